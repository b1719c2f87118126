//! Runs one test program and parses libtest's output: its tests, how each ended, and how long it took.
//!
//! ```text
//! program --report-time ─▶ a log file ─▶ Ran: tests, skips, whether it ended well
//!   test that can't run here ─▶ a line in the file CAPTURER_SKIP_LOG names
//! ```

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::ci_build::Program;
use crate::test::processors;
use crate::test::stream::end_with_descendants;

/// No program needs this long, even beside others on a busy machine.
const DEADLINE: Duration = Duration::from_secs(20 * 60);

/// A running test program.
pub struct Running {
    name: String,
    child: Child,
    log: PathBuf,
    skips: PathBuf,
    started: Instant,
    processors: Duration,
}

/// A test program that ended.
#[derive(Debug, Default)]
pub struct Ran {
    /// The target's name.
    pub name: String,
    /// Every test of it.
    pub tests: Vec<Test>,
    /// Tests that could not run here: name and reason.
    pub skips: Vec<(String, String)>,
    /// Why it counts as failed although it names no failed test: it crashed, or took too long.
    pub broke: Option<String>,
    /// Everything it printed.
    pub output: String,
    /// The file with that output.
    pub log: PathBuf,
    /// From start to end.
    pub took: Duration,
    /// Processor time of the program and of the children that it waited for.
    pub processors: Duration,
}

/// A test, from libtest's line about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Test {
    /// Its path within the program.
    pub name: String,
    /// How it ended.
    pub end: End,
    /// How long it ran, if libtest said so.
    pub seconds: Option<f64>,
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Well.
    Passed,
    /// Not well.
    Failed,
    /// It is marked `#[ignore]`.
    Ignored,
}

impl Running {
    /// Starts a program in its package's folder. `arguments` are libtest's; `log` is written anew.
    pub fn start(
        program: &Program,
        arguments: &[String],
        environment: &[(&str, PathBuf)],
        log: &Path,
    ) -> Result<Running> {
        let folder = log.parent().context("a log without a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let skips = log.with_extension("skipped");
        let _ = fs::remove_file(&skips);
        let file = File::create(log).with_context(|| format!("making {}", log.display()))?;
        let mut command = Command::new(&program.path);
        command.current_dir(&program.package).env("CARGO_MANIFEST_DIR", &program.package);
        command.args(arguments).args(["--report-time", "-Zunstable-options"]);
        // libtest has an option that prints how long each test took, but not officially on a stable compiler.
        command.env("RUSTC_BOOTSTRAP", "1").env("RUST_LIB_BACKTRACE", "0").env("CAPTURER_SKIP_LOG", &skips);
        command.envs(environment.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::null()).stdout(file.try_clone().context("a second handle")?).stderr(file);
        let child = command.spawn().with_context(|| format!("starting {}", program.path.display()))?;
        Ok(Running {
            name: program.name.clone(),
            child,
            log: log.to_path_buf(),
            skips,
            started: Instant::now(),
            processors: Duration::ZERO,
        })
    }

    /// The target's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its name and how long it has run.
    pub fn progress(&self) -> String {
        format!("{} ({} s)", self.name, self.started.elapsed().as_secs())
    }

    /// Its result, once it has ended. A program that takes too long is killed.
    pub fn poll(&mut self) -> Result<Option<Ran>> {
        let took = self.started.elapsed();
        // This is only available until somebody has waited for the program.
        self.processors = processors::of(self.child.id()).unwrap_or(self.processors);
        let ended = self.child.try_wait().with_context(|| format!("waiting for {}", self.name))?;
        let broke = match ended {
            Some(status) if status.success() => None,
            Some(status) => Some(format!("it ended with {status}")),
            None if took > DEADLINE => {
                end_with_descendants(&mut self.child)?;
                Some(format!("it was ended after {} minutes", DEADLINE.as_secs() / 60))
            }
            None => return Ok(None),
        };
        // A test may print any bytes.
        let output = String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned();
        let skips = fs::read_to_string(&self.skips).unwrap_or_default();
        let ran = read(&self.name, &output, &skips, broke, took);
        Ok(Some(Ran { log: self.log.clone(), processors: self.processors, ..ran }))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // cargo xtask itself gave up: what it started must not continue.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = end_with_descendants(&mut self.child);
        }
    }
}

/// Runs a program to its end.
pub fn run(
    program: &Program,
    arguments: &[String],
    environment: &[(&str, PathBuf)],
    log: &Path,
) -> Result<Ran> {
    let mut running = Running::start(program, arguments, environment, log)?;
    loop {
        if let Some(ran) = running.poll()? {
            return Ok(ran);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

impl Ran {
    /// Names of failed tests; the program itself if it failed without naming one.
    pub fn failures(&self) -> Vec<String> {
        let failed = self.tests.iter().filter(|test| test.end == End::Failed);
        let mut names: Vec<String> = failed.map(|test| format!("{}: {}", self.name, test.name)).collect();
        if let (true, Some(why)) = (names.is_empty(), &self.broke) {
            names.push(format!("{} (no test is named: {why})", self.name));
        }
        names
    }

    /// How many tests ended this way.
    pub fn count(&self, end: End) -> u64 {
        self.tests.iter().filter(|test| test.end == end).count() as u64
    }
}

fn read(name: &str, output: &str, skips: &str, broke: Option<String>, took: Duration) -> Ran {
    let mut tests: Vec<Test> = output.lines().filter_map(test).collect();
    // A test's output may split its line; the list at the end names the failed ones anyway.
    for listed in listed_failures(output) {
        if !tests.iter().any(|test| test.name == listed) {
            tests.push(Test { name: listed.to_owned(), end: End::Failed, seconds: None });
        }
    }
    let skips = skips.lines().filter_map(|line| line.split_once('\t'));
    let skips = skips.map(|(test, why)| (format!("{name}: {test}"), why.to_owned())).collect();
    let mut ran =
        Ran { name: name.to_owned(), tests, skips, broke, output: output.to_owned(), took, ..Ran::default() };
    ran.check_sum();
    ran
}

impl Ran {
    /// libtest's own count checks ours: a test that was not parsed must not count as passed.
    fn check_sum(&mut self) {
        let Some(said) = self.output.lines().rev().find_map(|line| line.strip_prefix("test result: ")) else {
            self.broke.get_or_insert_with(|| "it told no result".to_owned());
            return;
        };
        let number = |word: &str| -> u64 {
            let counts = said.split(['.', ';']).map(str::trim);
            counts.filter_map(|count| count.strip_suffix(word)?.trim().parse::<u64>().ok()).sum()
        };
        let missing = number("passed").saturating_sub(self.count(End::Passed));
        for number in 0..missing {
            self.tests.push(Test { name: format!("(unread {number})"), end: End::Passed, seconds: None });
        }
    }
}

/// `test a::b ... ok <0.012s>`, `test c ... FAILED <1.5s>`, `test d ... ignored, for people`.
fn test(line: &str) -> Option<Test> {
    let (name, rest) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let name = name.strip_suffix(" - should panic").unwrap_or(name);
    let (word, time) = rest.split_once(" <").unwrap_or((rest, ""));
    let end = match word {
        "ok" => End::Passed,
        "FAILED" => End::Failed,
        _ if word.starts_with("ignored") => End::Ignored,
        _ => return None,
    };
    Some(Test {
        name: name.to_owned(),
        end,
        seconds: time.strip_suffix("s>").and_then(|time| time.parse().ok()),
    })
}

/// The last list under `failures:`, of names alone.
fn listed_failures(output: &str) -> Vec<&str> {
    let Some((_, list)) = output.rsplit_once("\nfailures:\n") else { return Vec::new() };
    list.lines().map_while(|line| line.strip_prefix("    ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "running 4 tests
test a::b ... ok <0.012s>
test c ... FAILED <1.500s>
test d ... ignored, for people
test e ... it printed this in the middle of its line

failures:

---- c stdout ----
boom

failures:
    c
    f

test result: FAILED. 2 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.51s
";

    #[test]
    fn every_test_is_counted_once() {
        let ran = read("p", OUTPUT, "a::b\tno Engine\n", Some("x".to_owned()), Duration::ZERO);
        assert_eq!(ran.count(End::Passed), 2);
        assert_eq!(ran.count(End::Ignored), 1);
        assert_eq!(ran.failures(), ["p: c", "p: f"]);
        assert_eq!(ran.tests[1].seconds, Some(1.5));
        assert_eq!(ran.skips, [("p: a::b".to_owned(), "no Engine".to_owned())]);
    }

    /// Otherwise a program that crashes, or prints nothing, would have 0 failures.
    #[test]
    fn a_program_that_names_no_test_is_a_failure() {
        for (output, broke) in [("running 1 test\n", Some("it ended with signal: 6".to_owned())), ("", None)]
        {
            let ran = read("p", output, "", broke, Duration::ZERO);
            assert_eq!(ran.failures().len(), 1, "{ran:?}");
        }
    }
}
