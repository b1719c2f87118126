//! How busy the machine's processors were: a part that leaves them idle has room for others beside it.

use std::fs;

/// What /proc/stat says at one moment, in ticks of all processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy {
    busy: u64,
    all: u64,
}

impl Busy {
    /// Now; nothing where /proc can't be read.
    pub fn now() -> Busy {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        Busy::read(&text).unwrap_or(Busy { busy: 0, all: 0 })
    }

    /// The share of the time since then in which they were not idle, in percent.
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
    fn idle_and_waiting_for_disks_are_not_busy() {
        let text = "cpu  10 1 5 100 4 0 2 3 7 0\ncpu0 1 2 3\n";
        assert_eq!(Busy::read(text), Some(Busy { busy: 21, all: 125 }));
        assert_eq!(Busy::read(""), None);
        assert!(Busy::now().all > 0);
    }
}
