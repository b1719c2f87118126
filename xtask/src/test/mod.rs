//! `cargo xtask test`: everything that must hold before a commit, one part after the other.
//!
//! ```text
//! PARTS (a table) ──▶ the ones asked for and what they need ──▶ run in order ──▶ summary, last line, exit code
//! ```
//! A part that fails stops only the parts that need it. The same command is all of CI.

mod parts;
pub mod stream;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::clean;
use parts::PARTS;

/// How many columns the summary may have.
const COLUMNS: usize = 100;

/// One thing to check.
pub struct Part {
    name: &'static str,
    /// For the header and `--list`: what is run.
    what: &'static str,
    /// Parts that must have passed; each stands before this one in the table.
    needs: &'static [&'static str],
    run: fn() -> Result<Outcome>,
}

/// How a part ended, when it was not an error that stopped it.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It holds.
    Passed,
    /// It is made of tests, which were counted; one that failed is a failure of the part.
    Tests(Tally),
    /// It was not run, and why.
    Skipped(String),
}

/// Tests counted; a part without tests counts as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
    /// The names of those that failed.
    failures: Vec<String>,
}

/// The verdict on a part.
struct Verdict {
    part: &'static str,
    took: Duration,
    tally: Tally,
    /// Whether other parts may build on it.
    holds: bool,
    /// In words, for the summary.
    text: String,
}

/// Prints every part.
pub fn list() {
    for part in PARTS {
        let needs =
            if part.needs.is_empty() { String::new() } else { format!(" (needs {})", part.needs.join(", ")) };
        println!("{:<13} {}{needs}", part.name, part.what);
    }
}

/// Runs the named parts and what they need, or all; prints a summary; answers whether nothing failed.
pub fn run(named: &[String]) -> Result<bool> {
    let chosen = choose(named)?;
    clean::before();
    let mut verdicts: Vec<Verdict> = Vec::new();
    for (index, part) in chosen.iter().enumerate() {
        println!("\n== {} ({} of {}): {}", part.name, index + 1, chosen.len(), part.what);
        let started = Instant::now();
        let holds = |need: &str| verdicts.iter().any(|verdict| verdict.part == need && verdict.holds);
        let outcome = match part.needs.iter().find(|need| !holds(need)) {
            Some(need) => Ok(Outcome::Skipped(format!("needs {need}"))),
            None => (part.run)(),
        };
        let verdict = judge(part.name, started.elapsed(), outcome);
        println!("-- {}: {} after {}", verdict.part, verdict.text, seconds(verdict.took));
        verdicts.push(verdict);
    }
    print!("{}", summary(&verdicts));
    Ok(verdicts.iter().all(|verdict| verdict.tally.failed == 0))
}

/// The named parts with all that they need, in the table's order.
fn choose(named: &[String]) -> Result<Vec<&'static Part>> {
    for name in named {
        if !PARTS.iter().any(|part| part.name == name) {
            let all: Vec<&str> = PARTS.iter().map(|part| part.name).collect();
            bail!("there is no part {name:?}; the parts are {}", all.join(", "));
        }
    }
    let mut wanted: Vec<&str> = named.iter().map(String::as_str).collect();
    // Needs stand before their users, so one pass backwards finds those of those too.
    for part in PARTS.iter().rev() {
        if wanted.contains(&part.name) {
            wanted.extend(part.needs);
        }
    }
    Ok(PARTS.iter().filter(|part| named.is_empty() || wanted.contains(&part.name)).collect())
}

fn judge(part: &'static str, took: Duration, outcome: Result<Outcome>) -> Verdict {
    let one = |passed, failed, skipped| Tally { passed, failed, skipped, failures: Vec::new() };
    let (tally, holds, text) = match outcome {
        Ok(Outcome::Passed) => (one(1, 0, 0), true, "passed".to_owned()),
        Ok(Outcome::Skipped(reason)) => (one(0, 0, 1), false, format!("skipped: {reason}")),
        Ok(Outcome::Tests(tally)) if tally.failed == 0 => {
            let ignored =
                if tally.skipped > 0 { format!(", {} ignored", tally.skipped) } else { String::new() };
            let text = format!("passed, {} tests{ignored}", tally.passed);
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

/// A line for each part, and last, alone, the sum of all tests.
fn summary(verdicts: &[Verdict]) -> String {
    let mut text = String::from("\n== summary\n");
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for verdict in verdicts {
        let line = format!("{:<13} {:>8}  {}", verdict.part, seconds(verdict.took), verdict.text);
        let _ = writeln!(text, "{}", cut(&line));
        passed += verdict.tally.passed;
        failed += verdict.tally.failed;
        skipped += verdict.tally.skipped;
    }
    for name in verdicts.iter().flat_map(|verdict| &verdict.tally.failures) {
        let _ = writeln!(text, "FAILED {name}");
    }
    let _ = writeln!(text, "{passed} passed, {failed} failed, {skipped} skipped");
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
        choose(&names).unwrap().iter().map(|part| part.name).collect()
    }

    /// A part that stood before what it needs would always be skipped.
    #[test]
    fn needs_stand_before_their_users() {
        for (index, part) in PARTS.iter().enumerate() {
            for need in part.needs {
                assert!(
                    PARTS[..index].iter().any(|earlier| earlier.name == *need),
                    "{} needs {need}",
                    part.name
                );
            }
        }
    }

    #[test]
    fn a_named_part_brings_what_it_needs() {
        assert_eq!(chosen(&["tidy"]), ["tidy"]);
        assert_eq!(chosen(&["engine-tests"]), ["tools", "agent", "faulty-agent", "engines", "engine-tests"]);
        assert_eq!(chosen(&[]).len(), PARTS.len());
        assert!(choose(&["nonsense".to_owned()]).is_err());
    }

    #[test]
    fn the_summary_fits_and_ends_with_the_sum() {
        let tally = Tally { passed: 3, failed: 1, skipped: 2, failures: vec!["a::b".to_owned()] };
        let verdicts = [
            judge("unit", Duration::from_secs(1), Ok(Outcome::Tests(tally))),
            judge("engines", Duration::from_secs(2), Err(anyhow::anyhow!("x\n{}", "y".repeat(200)))),
            judge("tidy", Duration::ZERO, Ok(Outcome::Passed)),
            judge("doc", Duration::ZERO, Ok(Outcome::Skipped("needs tools".to_owned()))),
        ];
        let text = summary(&verdicts);
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
        assert_eq!(text.lines().last(), Some("4 passed, 2 failed, 3 skipped"));
        assert!(text.contains("\nFAILED a::b\n"));
        assert_eq!(
            verdicts.iter().map(|verdict| verdict.holds).collect::<Vec<_>>(),
            [false, false, true, false]
        );
    }
}
