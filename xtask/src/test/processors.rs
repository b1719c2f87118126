//! How busy the processors were, and with which processes: a part that leaves them idle has room for others beside it.

use std::fs;
use std::time::Duration;

/// Linux counts a process's time in hundredths of a second, whatever its own clock is (USER_HZ, time(7)).
const TICK: Duration = Duration::from_millis(10);

/// The processor time of a process and of all descendants that were waited for (proc_pid_stat(5)). A process that has
/// ended keeps it until its parent waits for it.
pub fn of(process: u32) -> Option<Duration> {
    ticks(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?).map(|ticks| TICK * ticks)
}

/// utime, stime, cutime and cstime; the name before them may hold any characters.
fn ticks(stat: &str) -> Option<u32> {
    let (_, behind) = stat.rsplit_once(')')?;
    let fields: Vec<u32> =
        behind.split_whitespace().skip(11).take(4).map(str::parse).collect::<Result<_, _>>().ok()?;
    (fields.len() == 4).then(|| fields.iter().sum())
}

/// The numbers of /proc/stat at one moment, in ticks of all processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy {
    busy: u64,
    all: u64,
}

impl Busy {
    /// The numbers now; zeros if /proc can't be read.
    pub fn now() -> Busy {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        Busy::read(&text).unwrap_or(Busy { busy: 0, all: 0 })
    }

    /// The percentage of time since then in which the processors were not idle.
    pub fn since(&self) -> Option<f64> {
        let now = Busy::now();
        let all = now.all.checked_sub(self.all).filter(|&all| all > 0)?;
        Some(100.0 * now.busy.saturating_sub(self.busy) as f64 / all as f64)
    }

    /// The first line: user nice system idle iowait irq softirq steal … (proc_stat(5)). Guests' time is within user's.
    fn read(text: &str) -> Option<Busy> {
        let fields = text.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
        let ticks: Vec<u64> = fields.take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
        let all = ticks.iter().sum();
        Some(Busy { busy: all - ticks.get(3)? - ticks.get(4)?, all })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_that_of_a_process_and_its_children() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 10 20 300 4000 20 0 1 0 5 6 7";
        assert_eq!(ticks(stat), Some(4330));
        assert_eq!(ticks("7 (a) S 1"), None);
        assert!(of(std::process::id()).is_some());
    }

    #[test]
    fn idle_and_waiting_for_disks_are_not_busy() {
        let text = "cpu  10 1 5 100 4 0 2 3 7 0\ncpu0 1 2 3\n";
        assert_eq!(Busy::read(text), Some(Busy { busy: 21, all: 125 }));
        assert_eq!(Busy::read(""), None);
        assert!(Busy::now().all > 0);
    }
}
