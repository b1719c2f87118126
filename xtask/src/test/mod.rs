//! `cargo xtask test`: everything that must hold before a commit, one part after the other.
//!
//! ```text
//! PARTS (a table) ──▶ the ones asked for and what they need ──▶ run in order ──▶ summary, last line, exit code
//!                                                                └─ some beside those that follow
//! ```
//! A failed part stops only the parts that need it. The same command is all of CI. `--long` adds parts that take hours.

mod beside;
mod inotify;
pub mod libtest;
mod long;
mod parts;
mod processors;
mod schedule;
pub mod stream;

use std::fmt::Write as _;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::clean;
use beside::Beside;
use libtest::{End, Ran};
use parts::PARTS;
use processors::Busy;

/// How many columns a part's line in the summary may have.
const COLUMNS: usize = 100;
/// How many of the slowest tests are named.
const SLOWEST: usize = 10;

/// What to run.
#[derive(clap::Args, Default)]
pub struct TestArgs {
    /// Only these parts, and what they need.
    parts: Vec<String>,
    /// Print the parts and stop.
    #[arg(long)]
    list: bool,
    /// Also the parts that take hours. Their figures stand in docs/testing.md.
    #[arg(long)]
    long: bool,
    /// How many test programs against Engines run at a time while the emulated machines do; one more once those have
    /// ended.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
    side_by_side: u8,
}

/// Set once: parts are functions in a table and take no arguments.
static SIDE_BY_SIDE: OnceLock<usize> = OnceLock::new();

/// One thing to check.
pub struct Part {
    name: &'static str,
    /// For the header and `--list`: what the part runs.
    what: &'static str,
    /// Parts that must have passed; each is before this one in the table.
    needs: &'static [&'static str],
    pace: Pace,
    run: fn() -> Result<Outcome>,
}

/// Which parts may run at the same time as this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Earlier parts that are `Beside`.
    InTurn,
    /// Later parts, up to one that needs it or is `Alone`.
    Beside,
    /// Nothing.
    Alone,
}

/// How a part ended without an error that stopped it.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The part passed.
    Passed,
    /// The part consists of tests, which were counted; a failed one is a failure of the part.
    Tests(Tally),
    /// The part was not run, for this reason.
    Skipped(String),
}

/// Counts of tests; a part without tests counts as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many passed, including flaky ones.
    pub passed: u64,
    /// How many failed.
    pub failed: u64,
    /// How many did not run.
    pub skipped: u64,
    /// The names of the failed ones.
    pub failures: Vec<String>,
    /// Those that failed among others and passed alone, with the places of both outputs.
    pub flaky: Vec<String>,
    /// Those that did not run, with the reason.
    pub skips: Vec<String>,
    /// How long each took, in milliseconds.
    pub times: Vec<(u64, String)>,
}

impl Tally {
    /// Adds a program. Its failures count until [`Tally::judge_again`] corrects them.
    fn add(&mut self, ran: &Ran) {
        let skips = ran.skips.len() as u64;
        let failures = ran.failures();
        // A test that says it could not run has returned, which libtest counts as passed.
        self.passed += ran.count(End::Passed).saturating_sub(skips);
        self.failed += failures.len() as u64;
        self.skipped += ran.count(End::Ignored) + skips;
        self.failures.extend(failures);
        self.skips.extend(ran.skips.iter().map(|(test, why)| format!("{test}: {why}")));
        let ignored = ran.tests.iter().filter(|test| test.end == End::Ignored);
        self.skips.extend(ignored.map(|test| format!("{}: {}: marked #[ignore]", ran.name, test.name)));
        let timed = |test: &libtest::Test| {
            Some(((test.seconds? * 1000.0) as u64, format!("{}: {}", ran.name, test.name)))
        };
        self.times.extend(ran.tests.iter().filter_map(timed));
    }

    /// A failed test was run again, alone: if it passed, it counts as flaky.
    fn judge_again(&mut self, name: String, failed_again: bool, outputs: &[&Path]) {
        if failed_again {
            return;
        }
        self.failures.retain(|failure| *failure != name);
        self.failed -= 1;
        self.passed += 1;
        let outputs: Vec<String> = outputs.iter().map(|path| path.display().to_string()).collect();
        self.flaky.push(format!("{name}: failed in {}", outputs.join(", passed in ")));
    }

    fn merge(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.failures.extend(other.failures);
        self.flaky.extend(other.flaky);
        self.skips.extend(other.skips);
        self.times.extend(other.times);
    }
}

/// The verdict on a part.
struct Verdict {
    part: &'static str,
    took: Duration,
    tally: Tally,
    /// Whether parts that need it may run.
    holds: bool,
    /// The words of the summary.
    text: String,
}

/// Runs the named parts and those they need, or all; prints a summary; returns whether nothing failed.
pub fn run(arguments: &TestArgs) -> Result<bool> {
    if arguments.list {
        list();
        return Ok(true);
    }
    let chosen = choose(&arguments.parts, arguments.long)?;
    SIDE_BY_SIDE.get_or_init(|| usize::from(arguments.side_by_side));
    clean::before();
    let began = Instant::now();
    let mut verdicts: Vec<Verdict> = Vec::new();
    let mut beside: Vec<Beside> = Vec::new();
    for (index, part) in chosen.iter().enumerate() {
        let is_waited_for = |other: &Beside| part.pace == Pace::Alone || part.needs.contains(&other.part());
        for ended in beside.extract_if(.., |other| is_waited_for(other)) {
            verdicts.push(ended.join());
        }
        println!("\n== {} ({} of {}): {}", part.name, index + 1, chosen.len(), part.what);
        let holds = |need: &str| verdicts.iter().any(|verdict| verdict.part == need && verdict.holds);
        match part.needs.iter().find(|need| !holds(need)) {
            Some(need) => {
                verdicts.push(judge(
                    part.name,
                    Duration::ZERO,
                    Ok(Outcome::Skipped(format!("needs {need}"))),
                ));
            }
            None if part.pace == Pace::Beside => beside.push(Beside::start(part)),
            None => verdicts.push(part.run()),
        }
    }
    verdicts.extend(beside.into_iter().map(Beside::join));
    print!("{}", summary(&verdicts, began.elapsed()));
    Ok(verdicts.iter().all(|verdict| verdict.tally.failed == 0))
}

impl Part {
    /// Runs it, and prints how it ended and how busy the processors were.
    fn run(&self) -> Verdict {
        let (started, busy) = (Instant::now(), Busy::now());
        let outcome = (self.run)();
        let verdict = judge(self.name, started.elapsed(), outcome);
        let busy =
            busy.since().map_or_else(String::new, |percent| format!("; processors {percent:.0} % busy"));
        println!("-- {}: {} after {}{busy}", verdict.part, verdict.text, seconds(verdict.took));
        verdict
    }
}

/// Prints every part.
fn list() {
    let row = |part: &Part| {
        let needs =
            if part.needs.is_empty() { String::new() } else { format!(" (needs {})", part.needs.join(", ")) };
        println!("{:<13} {}{needs}", part.name, part.what);
    };
    PARTS.iter().for_each(row);
    println!("\nwith --long, or by name:");
    long::PARTS.iter().for_each(row);
}

/// The named parts and all that they need, in the table's order.
fn choose(named: &[String], long: bool) -> Result<Vec<&'static Part>> {
    let all = || PARTS.iter().chain(long::PARTS);
    for name in named {
        if !all().any(|part| part.name == name) {
            let all: Vec<&str> = all().map(|part| part.name).collect();
            bail!("there is no part {name:?}; the parts are {}", all.join(", "));
        }
    }
    if named.is_empty() {
        // The search for leftovers comes last.
        let (last, rest) = PARTS.split_last().expect("the table is not empty");
        let long: &[Part] = if long { long::PARTS } else { &[] };
        return Ok(rest.iter().chain(long).chain([last]).collect());
    }
    let mut wanted: Vec<&str> = named.iter().map(String::as_str).collect();
    // Needs come before their users, so one pass backwards finds indirect ones too.
    for part in all().collect::<Vec<_>>().into_iter().rev() {
        if wanted.contains(&part.name) {
            wanted.extend(part.needs);
        }
    }
    Ok(all().filter(|part| wanted.contains(&part.name)).collect())
}

fn judge(part: &'static str, took: Duration, outcome: Result<Outcome>) -> Verdict {
    let one = |passed, failed, skipped| Tally { passed, failed, skipped, ..Tally::default() };
    let (tally, holds, text) = match outcome {
        Ok(Outcome::Passed) => (one(1, 0, 0), true, "passed".to_owned()),
        Ok(Outcome::Skipped(reason)) => {
            let skips = vec![format!("{part}: {reason}")];
            (Tally { skips, ..one(0, 0, 1) }, false, format!("skipped: {reason}"))
        }
        Ok(Outcome::Tests(tally)) if tally.failed == 0 => {
            let more =
                |count: u64, what: &str| if count > 0 { format!(", {count} {what}") } else { String::new() };
            let text = format!(
                "passed, {} tests{}{}",
                tally.passed,
                more(tally.skipped, "skipped"),
                more(tally.flaky.len() as u64, "flaky")
            );
            (tally, true, text)
        }
        Ok(Outcome::Tests(tally)) => {
            let text = format!(
                "FAILED, {} of {}: {}",
                tally.failed,
                tally.passed + tally.failed,
                tally.failures.join(", ")
            );
            (tally, false, text)
        }
        Err(error) => {
            println!("error: {error:#}");
            let text = format!("{error:#}");
            (one(0, 1, 0), false, format!("FAILED: {}", text.lines().next().unwrap_or_default()))
        }
    };
    Verdict { part, took, tally, holds, text }
}

/// A line for each part; then the slow, skipped, flaky and failed tests by name; last, on its own line, the sum of all
/// tests.
fn summary(verdicts: &[Verdict], took: Duration) -> String {
    let mut text = String::from("\n== summary\n");
    let mut sum = Tally::default();
    for verdict in verdicts {
        let line = format!("{:<13} {:>8}  {}", verdict.part, seconds(verdict.took), verdict.text);
        let _ = writeln!(text, "{}", cut(&line));
        sum.merge(verdict.tally.clone());
    }
    let _ = writeln!(text, "{:<13} {:>8}", "all", seconds(took));
    sum.times.sort_by(|one, other| other.cmp(one));
    for (millis, name) in sum.times.iter().take(SLOWEST) {
        let _ = writeln!(text, "slow {:>9}  {name}", seconds(Duration::from_millis(*millis)));
    }
    for (word, names) in [("SKIPPED", &sum.skips), ("FLAKY", &sum.flaky), ("FAILED", &sum.failures)] {
        for name in names {
            let _ = writeln!(text, "{word} {name}");
        }
    }
    let _ = writeln!(text, "{} flaky", sum.flaky.len());
    let _ = writeln!(text, "{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.skipped);
    text
}

fn cut(line: &str) -> String {
    if line.chars().count() <= COLUMNS {
        return line.to_owned();
    }
    line.chars().take(COLUMNS - 1).chain(['…']).collect()
}

fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str]) -> Vec<&'static str> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        choose(&names, false).unwrap().iter().map(|part| part.name).collect()
    }

    /// A part that came before one it needs would always be skipped.
    #[test]
    fn needs_stand_before_their_users() {
        let all: Vec<&Part> = PARTS.iter().chain(long::PARTS).collect();
        for (index, part) in all.iter().enumerate() {
            for need in part.needs {
                assert!(
                    all[..index].iter().any(|earlier| earlier.name == *need),
                    "{} needs {need}",
                    part.name
                );
            }
            assert!(
                all[..index].iter().all(|earlier| earlier.name != part.name),
                "{} is there twice",
                part.name
            );
        }
    }

    #[test]
    fn a_named_part_brings_what_it_needs() {
        assert_eq!(chosen(&["tidy"]), ["tidy"]);
        assert_eq!(chosen(&["engine-tests"]), ["tools", "downloads", "build", "agent", "engine-tests"]);
        assert_eq!(chosen(&["mutants"]), ["tools", "mutants"]);
        assert_eq!(chosen(&[]).len(), PARTS.len());
        assert_eq!(choose(&[], true).unwrap().len(), PARTS.len() + long::PARTS.len());
        assert_eq!(choose(&[], true).unwrap().last().unwrap().name, "clean");
        assert!(choose(&["nonsense".to_owned()], false).is_err());
    }

    #[test]
    fn the_summary_names_what_is_not_plainly_passed() {
        let tally = Tally {
            passed: 3,
            failed: 1,
            skipped: 2,
            failures: vec!["a::b".to_owned()],
            flaky: vec!["c: failed in x, passed in y".to_owned()],
            skips: vec!["d: no FUSE".to_owned()],
            times: (0..20).map(|number| (number * 1000, format!("t{number}"))).collect(),
        };
        let verdicts = [
            judge("unit", Duration::from_secs(1), Ok(Outcome::Tests(tally))),
            judge("engines", Duration::from_secs(2), Err(anyhow::anyhow!("x\n{}", "y".repeat(200)))),
            judge("tidy", Duration::ZERO, Ok(Outcome::Passed)),
            judge("doc", Duration::ZERO, Ok(Outcome::Skipped("needs tools".to_owned()))),
        ];
        let text = summary(&verdicts, Duration::from_secs(3));
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
        assert!(text.ends_with("\n1 flaky\n4 passed, 2 failed, 3 skipped\n"), "{text}");
        for line in [
            "FAILED a::b",
            "FLAKY c: failed in x, passed in y",
            "SKIPPED d: no FUSE",
            "SKIPPED doc: needs tools",
        ] {
            assert!(text.lines().any(|other| other == line), "no {line:?} in {text}");
        }
        assert_eq!(text.lines().filter(|line| line.starts_with("slow ")).count(), SLOWEST);
        assert!(text.contains("slow    19.0 s  t19\n"), "{text}");
        assert_eq!(
            verdicts.iter().map(|verdict| verdict.holds).collect::<Vec<_>>(),
            [false, false, true, false]
        );
    }

    /// libtest counts a test that returned early as passed.
    #[test]
    fn a_test_that_said_it_was_skipped_is_not_counted_as_passed() {
        let test = |name: &str| libtest::Test { name: name.to_owned(), end: End::Passed, seconds: Some(0.5) };
        let ran = Ran {
            name: "p".to_owned(),
            tests: vec![test("a"), test("b")],
            skips: vec![("p: b".to_owned(), "no FUSE".to_owned())],
            ..Ran::default()
        };
        let mut tally = Tally::default();
        tally.add(&ran);
        assert_eq!((tally.passed, tally.failed, tally.skipped), (1, 0, 1));
        assert_eq!(tally.skips, ["p: b: no FUSE"]);
    }
}
