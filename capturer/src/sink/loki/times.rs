//! Times of lines, a nanosecond apart for lines of a label set with equal times: Loki silently drops a line that equals
//! another one of its label set in time and text. A log with times to the second has many such lines, in any number of
//! batches, so given times are remembered for as long as lines with that time may come.
//!
//! Of each label set the last times are known, and of those that are not known any more how late the latest was. A whole
//! millisecond no later than that was perhaps given before, with nobody knowing how often: its lines begin some
//! microseconds behind it. (A finer time hardly ever comes twice, and must stay as it is: when a line is sent again after
//! a crash, Loki knows it by its time.) Bounded; no lock, allocation or clock per line.
//!
//! A stop leaves all that in a file beside the spool, which the next start takes. After a crash there is none.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::sink::spool::unix_ms;

/// How many times are remembered for a label set.
const RUNS: usize = 16;
/// At least this many label sets are remembered; at most twice as many.
const LABEL_SETS: usize = 4096;
/// A time that is a multiple of this comes from a clock that many lines share.
const COARSE_NS: i64 = 1_000_000;
/// Where lines of a time begin that was perhaps given before: one of `LATE_PLACES` multiples of this behind it.
const LATE_NS: i64 = 1_000;
const LATE_PLACES: u32 = 999;
const FILE: &str = "times";
const NEW_FILE: &str = "times.new";
const FIRST_LINE: &str = "times 1";

/// The times given to each label set.
#[derive(Debug)]
pub struct Times {
    /// Label sets used in the current generation, and in the one before.
    young: BTreeMap<u64, OfLabelSet>,
    old: BTreeMap<u64, OfLabelSet>,
    /// For forgotten label sets.
    forgotten: i64,
    late: u32,
}

/// How many nanoseconds from a time on were given.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Run {
    own: i64,
    next: i64,
}

/// What was given to one of them.
#[derive(Clone, Debug, PartialEq)]
pub struct OfLabelSet {
    runs: [Run; RUNS],
    /// Which run the next new time takes.
    turn: usize,
    /// The last nanosecond that was given.
    newest: i64,
    /// The latest whole millisecond of which it is not known what was given; `i64::MIN` = there is none.
    forgotten: i64,
    late: u32,
}

impl Default for Times {
    /// No time was ever given.
    fn default() -> Times {
        Times { young: BTreeMap::new(), old: BTreeMap::new(), forgotten: i64::MIN, late: 0 }
    }
}

impl Times {
    /// What the last run left. `is_new`: there was none.
    pub fn open(dir: &Path, is_new: bool) -> Times {
        match take(dir) {
            Some(times) => times,
            None if is_new => Times::default(),
            None => Times::unknown(unix_ms()),
        }
    }

    /// Any time up to now may have been given.
    fn unknown(now_ms: u64) -> Times {
        Times { forgotten: now_ms as i64 * COARSE_NS, late: (now_ms % 1_000_000) as u32, ..Times::default() }
    }

    /// What was given to a label set.
    pub fn of(&mut self, label_set: u64) -> &mut OfLabelSet {
        if self.young.len() >= LABEL_SETS && !self.young.contains_key(&label_set) {
            let gone = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
            let latest = gone.values().map(OfLabelSet::latest).max();
            self.forgotten = self.forgotten.max(latest.unwrap_or(i64::MIN));
        }
        let Times { young, old, forgotten, late } = self;
        young.entry(label_set).or_insert_with(|| {
            old.remove(&label_set).unwrap_or_else(|| {
                *late = late.wrapping_add(1);
                OfLabelSet::new(*forgotten, *late)
            })
        })
    }

    /// Leaves it to the next run. At the end only, when nothing more is given.
    pub fn save(&self, dir: &Path) -> io::Result<()> {
        let new = dir.join(NEW_FILE);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(self.show().as_bytes())?;
        file.sync_data()?;
        fs::rename(new, dir.join(FILE))
    }

    fn show(&self) -> String {
        let mut text = format!("{FIRST_LINE}\nforgotten {} {}\n", self.forgotten, self.late);
        for (label_set, of) in self.old.iter().chain(&self.young) {
            let runs: Vec<&Run> = of.runs.iter().filter(|run| run.is_worth_keeping()).collect();
            if runs.is_empty() && of.forgotten == self.forgotten {
                continue;
            }
            let _ = write!(text, "{label_set} {} {}", of.forgotten, of.late);
            runs.into_iter().for_each(|run| {
                let _ = write!(text, " {}:{}", run.own, run.next);
            });
            text.push('\n');
        }
        let sum = crc32fast::hash(text.as_bytes());
        let _ = writeln!(text, "sum {sum:08x}");
        text
    }

    fn parse(text: &str) -> Option<Times> {
        let body = &text[..text.rfind("sum ")?];
        if text[body.len()..] != format!("sum {:08x}\n", crc32fast::hash(body.as_bytes())) {
            return None;
        }
        let mut lines = body.lines();
        lines.next().filter(|first| *first == FIRST_LINE)?;
        let (forgotten, late) = lines.next()?.strip_prefix("forgotten ")?.split_once(' ')?;
        let (forgotten, late) = (forgotten.parse().ok()?, late.parse().ok()?);
        let mut times = Times { forgotten, late, ..Times::default() };
        for line in lines {
            let mut words = line.split(' ');
            let label_set = words.next()?.parse().ok()?;
            let mut of = OfLabelSet::new(words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            for word in words.take(RUNS) {
                let (own, next) = word.split_once(':')?;
                of.remember(own.parse().ok()?, next.parse().ok()?);
            }
            // They are the older half: those that are used again become young.
            times.old.insert(label_set, of);
        }
        Some(times)
    }
}

/// Takes the file. It must be gone for good before anything new is given, for a crash would leave it as it was.
fn take(dir: &Path) -> Option<Times> {
    let text = fs::read_to_string(dir.join(FILE)).ok()?;
    fs::remove_file(dir.join(FILE)).ok()?;
    File::open(dir).and_then(|dir| dir.sync_all()).ok()?;
    Times::parse(&text)
}

impl Run {
    fn holds(&self, time: i64) -> bool {
        self.own <= time && time < self.next
    }

    /// Lines of that time may come again. A fine time given once stays as it is if its line is sent again.
    fn is_worth_keeping(&self) -> bool {
        self.next > self.own && (is_coarse(self.own) || self.next - self.own > 1)
    }
}

fn is_coarse(time: i64) -> bool {
    time % COARSE_NS == 0
}

impl OfLabelSet {
    fn new(forgotten: i64, late: u32) -> OfLabelSet {
        OfLabelSet { runs: [Run::default(); RUNS], turn: 0, newest: i64::MIN, forgotten, late }
    }

    /// The latest whole millisecond of which it was known or forgotten what was given.
    fn latest(&self) -> i64 {
        let known = self.runs.iter().filter(|run| run.next > run.own && is_coarse(run.own));
        known.map(|run| run.own).max().unwrap_or(i64::MIN).max(self.forgotten)
    }

    /// The time of the next line, of which its log says `own`: that, or the first nanosecond behind it that was not given.
    pub fn next(&mut self, own: i64) -> i64 {
        let known = self.runs.iter().position(|run| run.own == own && run.holds(own));
        let mut time = own;
        if known.is_none() && own <= self.forgotten && is_coarse(own) {
            time = own.saturating_add(i64::from(1 + self.late % LATE_PLACES) * LATE_NS);
            self.late = self.late.wrapping_add(1);
        }
        // Most lines are later than all before.
        while time <= self.newest
            && let Some(run) = self.runs.iter().find(|run| run.holds(time))
        {
            time = run.next;
        }
        let next = time.saturating_add(1);
        match known {
            Some(at) => self.runs[at].next = next,
            None => self.remember(own, next),
        }
        self.newest = self.newest.max(time);
        time
    }

    fn remember(&mut self, own: i64, next: i64) {
        let gone = std::mem::replace(&mut self.runs[self.turn], Run { own, next });
        if gone.next > gone.own && is_coarse(gone.own) {
            self.forgotten = self.forgotten.max(gone.own);
        }
        self.turn = (self.turn + 1) % RUNS;
        self.newest = self.newest.max(next.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::super::testing::Rng;
    use super::*;

    const SECOND: i64 = 1_000_000_000;
    const T: i64 = 1_763_772_768 * SECOND;

    /// Property: whatever times come in whatever order, none is given twice to a label set, and none is early or far off.
    #[test]
    fn no_time_is_given_twice() {
        let mut rng = Rng::from_env();
        for _ in 0..200 {
            let mut times = Times::default();
            let mut given: BTreeSet<(u64, i64)> = BTreeSet::new();
            // Whole seconds, milliseconds, or nanoseconds close by; going on, and back by more than is remembered.
            let unit = [SECOND, COARSE_NS, 1][rng.below(3)];
            for number in 0..600_usize {
                let label_set = rng.below(3) as u64;
                let far = if unit == 1 { rng.below(RUNS) } else { number / 20 + rng.below(3 * RUNS) };
                let own = T + unit * far as i64;
                let time = times.of(label_set).next(own);
                assert!(given.insert((label_set, time)), "{time} twice");
                assert!((0..COARSE_NS + 600).contains(&(time - own)), "{own} became {time}");
            }
        }
    }

    #[test]
    fn a_stop_and_a_crash_give_none_twice() {
        for (crash, is_fine) in [(false, false), (true, false), (true, true)] {
            let dir = tempfile::tempdir().unwrap();
            let own = if is_fine { T + 7 } else { T };
            let mut given = BTreeSet::new();
            let mut count = 0;
            for run in 0..4 {
                let mut times = Times::open(dir.path(), run == 0);
                for _ in 0..3 {
                    given.insert(times.of(1).next(own));
                    count += 1;
                }
                assert_eq!(times.of(2).next(T + SECOND + 5), T + SECOND + 5, "as it was before");
                if !crash {
                    times.save(dir.path()).unwrap();
                }
                // A clock that has gone on by then.
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            // A fine time that comes again after a crash is the same line.
            assert_eq!(given.len(), if is_fine { 3 } else { count }, "crash {crash}");
            assert_eq!(given.first(), Some(&own));
            let span = given.last().unwrap() - own;
            assert!(if crash { span < COARSE_NS } else { span == 11 }, "{span}");
        }
    }

    #[test]
    fn what_was_saved_is_read_once_and_damage_is_noticed() {
        let mut rng = Rng::from_env();
        let dir = tempfile::tempdir().unwrap();
        let mut times = Times::default();
        for _ in 0..5_000 {
            times.of(rng.next()).next(T + SECOND * rng.below(100) as i64);
        }
        let text = times.show();
        assert_eq!(Times::parse(&text).unwrap().show().lines().count(), text.lines().count());
        assert!(Times::parse(&text[..text.len() / 2]).is_none());
        assert!(Times::parse(&text.replacen(':', ":1", 1)).is_none());
        times.save(dir.path()).unwrap();
        assert!(take(dir.path()).is_some());
        assert!(take(dir.path()).is_none(), "after a crash it would say too little");
    }

    /// Names come from containers: their number must not.
    #[test]
    fn label_sets_are_bounded_and_what_is_forgotten_is_given_behind() {
        let mut times = Times::default();
        let first = times.of(0).next(T);
        for label_set in 1..3 * LABEL_SETS as u64 {
            times.of(label_set).next(T);
        }
        assert!(times.young.len() + times.old.len() <= 2 * LABEL_SETS);
        let again = times.of(0).next(T);
        assert!(again > first && again < first + COARSE_NS, "{again}");
        assert_eq!(times.of(0).next(T + SECOND), T + SECOND, "later than what is forgotten");
    }
}
