//! Test programs against Engines, several at a time.
//!
//! ```text
//! longest first ─▶ N side by side ─▶ what failed, once more, one at a time ─▶ verdicts
//! ```
//! They mostly wait, each for an Engine, an agent and folders of its own. A test that fails among others and passes
//! alone is FLAKY: reported with both outputs and counted, but no failure of the run.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Tally;
use super::libtest::{self, End, Ran, Running};
use crate::ci_build::Program;

/// How often the running programs are printed.
const PROGRESS: Duration = Duration::from_secs(20);

/// What to run, and how.
pub struct Schedule<'a> {
    /// In the order in which they start.
    pub programs: Vec<&'a Program>,
    /// Of these only one runs at a time.
    pub apart: Vec<&'a Program>,
    /// How many at a time; asked before each start.
    pub width: fn() -> usize,
    /// Environment variables of every program.
    pub environment: Vec<(&'static str, PathBuf)>,
    /// The folder of their outputs.
    pub logs: PathBuf,
}

/// Runs all.
pub fn run(schedule: &Schedule<'_>) -> Result<Tally> {
    let mut tally = Tally::default();
    for ran in side_by_side(schedule)? {
        let failures = ran.failures();
        tally.add(&ran);
        if !failures.is_empty() {
            let program = schedule.programs.iter().find(|program| program.name == ran.name);
            again(schedule, program.expect("only those ran"), &ran, failures, &mut tally)?;
        }
    }
    Ok(tally)
}

fn side_by_side(schedule: &Schedule<'_>) -> Result<Vec<Ran>> {
    let mut waiting: VecDeque<&Program> = schedule.programs.iter().copied().collect();
    let (mut running, mut ended): (Vec<Running>, Vec<Ran>) = (Vec::new(), Vec::new());
    let mut told = Instant::now();
    loop {
        while running.len() < (schedule.width)()
            && let Some(program) = next(schedule, &mut waiting, &running)
        {
            let log = log_of(&schedule.logs, program, "log");
            running.push(Running::start(program, &[], &schedule.environment, &log)?);
        }
        if running.is_empty() {
            return Ok(ended);
        }
        let mut at = 0;
        while at < running.len() {
            match running[at].poll()? {
                Some(ran) => {
                    show(&ran);
                    ended.push(ran);
                    running.remove(at);
                }
                None => at += 1,
            }
        }
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            let names: Vec<String> = running.iter().map(Running::progress).collect();
            println!("{} of {} ended; running: {}", ended.len(), schedule.programs.len(), names.join(", "));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The first program that may start beside the running ones.
fn next<'a>(
    schedule: &Schedule<'_>,
    waiting: &mut VecDeque<&'a Program>,
    running: &[Running],
) -> Option<&'a Program> {
    let is_apart = |name: &str| schedule.apart.iter().any(|program| program.name == name);
    let taken = running.iter().any(|running| is_apart(running.name()));
    let at = waiting.iter().position(|program| !(taken && is_apart(&program.name)))?;
    waiting.remove(at)
}

/// Runs the failed tests once more, with nothing beside them.
fn again(
    schedule: &Schedule<'_>,
    program: &Program,
    first: &Ran,
    failures: Vec<String>,
    tally: &mut Tally,
) -> Result<()> {
    let failed = first.tests.iter().filter(|test| test.end == End::Failed).map(|test| test.name.clone());
    let mut arguments: Vec<String> = failed.collect();
    println!("\nonce more, alone: {}", failures.join(", "));
    if !arguments.is_empty() {
        arguments.extend(["--exact".to_owned(), "--test-threads=1".to_owned()]);
    }
    let log = log_of(&schedule.logs, program, "again.log");
    let second = libtest::run(program, &arguments, &schedule.environment, &log)?;
    show(&second);
    let still = second.failures();
    // Tests that the second run did not name as failed have passed in it.
    for name in failures {
        let failed_again =
            still.contains(&name) || still.iter().any(|still| still.contains("no test is named"));
        tally.judge_again(name, failed_again, &[&first.log, &second.log]);
    }
    Ok(())
}

/// One line for a program that passed; all output of one that failed.
pub fn show(ran: &Ran) {
    let failures = ran.failures();
    if failures.is_empty() {
        println!(
            "  {:<22} {:>4} passed in {:.0} s, {:.0} s of a processor",
            ran.name,
            ran.count(End::Passed),
            ran.took.as_secs_f64(),
            ran.processors.as_secs_f64()
        );
    } else {
        println!("\n---- {} ----\n{}", ran.name, ran.output.trim_end());
        println!(
            "  {:<22} FAILED after {:.0} s: {}\n",
            ran.name,
            ran.took.as_secs_f64(),
            failures.join(", ")
        );
    }
    for (test, why) in &ran.skips {
        println!("  skipped {test}: {why}");
    }
}

fn log_of(logs: &Path, program: &Program, ending: &str) -> PathBuf {
    logs.join(format!("{}.{ending}", program.name))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn program(dir: &Path, name: &str, script: &str) -> Program {
        let path = dir.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Program {
            package: dir.to_path_buf(),
            name: name.to_owned(),
            kind: "test".to_owned(),
            is_test: true,
            path,
        }
    }

    const OK: &str = "echo 'test a ... ok <0.1s>'\necho 'test result: ok. 1 passed; 0 failed; 0 ignored'\n";
    const BAD: &str = "echo 'test a ... FAILED <0.1s>'\necho 'test result: FAILED. 0 passed; 1 failed; 0 ignored'\nexit 101\n";

    /// A fault and chance are told apart, and neither is hidden.
    #[test]
    fn what_passes_alone_is_flaky_and_what_fails_twice_has_failed() {
        let dir = tempfile::tempdir().unwrap();
        let once = format!("if [ -e once ]; then\n{OK}else\ntouch once\n{BAD}fi\n");
        let [good, chance, bad] = [("good", OK), ("chance", &once), ("bad", BAD)]
            .map(|(name, script)| program(dir.path(), name, script));
        let tally = run(&Schedule {
            programs: vec![&good, &chance, &bad],
            apart: Vec::new(),
            width: || 2,
            environment: Vec::new(),
            logs: dir.path().join("logs"),
        })
        .unwrap();
        assert_eq!((tally.passed, tally.failed), (2, 1), "{tally:?}");
        assert_eq!(tally.failures, ["bad: a"]);
        assert_eq!(tally.flaky.len(), 1);
        assert!(
            tally.flaky[0].contains("chance: a") && tally.flaky[0].contains("chance.again.log"),
            "{tally:?}"
        );
    }

    /// Two of them at once would fail by chance.
    #[test]
    fn all_run_and_those_that_must_be_apart_are() {
        let dir = tempfile::tempdir().unwrap();
        let careful = format!("mkdir alone || exit 1\nsleep 0.2\nrmdir alone\n{OK}");
        let script = |number: usize| if number < 4 { careful.as_str() } else { OK };
        let programs: Vec<Program> =
            (0..6).map(|number| program(dir.path(), &format!("p{number}"), script(number))).collect();
        let schedule = Schedule {
            programs: programs.iter().collect(),
            apart: programs.iter().take(4).collect(),
            width: || 2,
            environment: Vec::new(),
            logs: dir.path().join("logs"),
        };
        let tally = run(&schedule).unwrap();
        assert_eq!((tally.passed, tally.flaky.len()), (6, 0), "{tally:?}");
    }
}
