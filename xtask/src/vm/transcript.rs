//! A machine's serial output, summarized for readers who only see the end of a long output: how its tests ended, which
//! failed, and with what message.
//!
//! Not here: libtest's other lines, which were printed as they came.

use std::collections::VecDeque;

/// How the init script reports its result on the serial line.
pub const RESULT: &str = "tests ended with ";
/// How it reports that a test program failed: `program NAME ended with 101`.
pub const PROGRAM: &str = "program ";
/// Longest panic message that is repeated.
const PANIC_LINES_MAX: usize = 12;
/// How many lines of a machine that ended early are repeated: enough for a kernel panic.
const LAST_LINES: usize = 40;

/// The transcript, parsed line by line.
#[derive(Default)]
pub struct Transcript {
    result: Option<String>,
    failed: Vec<String>,
    /// How many of them belong to programs that have ended.
    told: usize,
    /// Names of a list that may not be complete yet.
    listed: Vec<String>,
    panics: Vec<Vec<String>>,
    in_panic: bool,
    last: VecDeque<String>,
}

/// How a machine failed.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// The failed tests, or a sentence that says why none is named.
    pub tests: Vec<String>,
    /// Details, line by line.
    pub said: Vec<String>,
}

impl Transcript {
    /// Takes the next line, without its end.
    pub fn read(&mut self, line: &str) {
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line.to_owned());
        if let Some(code) = line.strip_prefix(RESULT) {
            self.result = Some(code.to_owned());
        }
        if line.starts_with(PROGRAM) && line.contains(" ended with ") {
            // A program that crashes, or can't start, names no test.
            if self.failed.len() == self.told {
                self.failed.push(line.to_owned());
            }
            self.told = self.failed.len();
        }
        self.read_names(line);
        self.read_panic(line);
    }

    /// The names of failed tests are in a list at the end, indented by four. (`test NAME ... FAILED` may be split by
    /// the test's own output.) Before that list comes another `failures:` with the output of each.
    fn read_names(&mut self, line: &str) {
        if line == "failures:" {
            self.listed.clear();
        } else if line.starts_with("test result: ") {
            self.failed.append(&mut self.listed);
        } else if let Some(name) = line.strip_prefix("    ") {
            self.listed.push(name.to_owned());
        }
    }

    /// `thread 'NAME' (17) panicked at FILE:LINE:COLUMN:`, the message, and a note. It looks the same whether captured
    /// or not.
    fn read_panic(&mut self, line: &str) {
        let begins = line.starts_with("thread '") && line.contains(" panicked at ");
        if begins {
            self.panics.push(Vec::new());
        }
        self.in_panic = begins || (self.in_panic && !line.starts_with("note: run with "));
        if let Some(panic) = self.panics.last_mut()
            && self.in_panic
            && panic.len() < PANIC_LINES_MAX
        {
            panic.push(line.to_owned());
        }
    }

    /// How the machine failed, if it did; `stopped` says why its end was not waited for.
    pub fn failure(self, stopped: Option<String>) -> Option<Failure> {
        let nameless = match self.result.as_deref() {
            _ if stopped.is_some() => stopped,
            None => Some("the machine ended before its tests did".to_owned()),
            Some("0") => return None,
            Some(_) => None,
        };
        Some(match nameless {
            Some(why) => Failure { tests: vec![why], said: self.last.into() },
            None if self.panics.is_empty() => Failure { tests: self.failed, said: self.last.into() },
            None => Failure { tests: self.failed, said: self.panics.concat() },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(said: &str) -> Option<Failure> {
        let mut transcript = Transcript::default();
        said.lines().for_each(|line| transcript.read(line));
        transcript.failure(None)
    }

    /// As in a machine: one program captures the output of its tests, the other does not.
    const SAID: &str = "
test ring::a ... FAILED

failures:

---- ring::a stdout ----

thread 'ring::a' (31) panicked at capturer/src/ring/a.rs:1:2:
assertion `left == right` failed
  left:
    [1]
 right: []
note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace


failures:
    ring::a

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.21s
program ring ended with 101
# files
program files ended with 139
# probe
test limits::b ... tracing: fine

thread 'limits::b' (240) panicked at tests/b.rs:116:54:
called `Result::unwrap()` on an `Err` value: Os { code: 22 }
note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace
FAILED

failures:

failures:
    limits::b

test result: FAILED. 14 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 199.90s
program probe ended with 101
tests ended with 101
reboot: Power down";

    #[test]
    fn failed_tests_are_named_with_their_panics() {
        let failure = failure(SAID).unwrap();
        assert_eq!(failure.tests, ["ring::a", "program files ended with 139", "limits::b"]);
        let said = [
            "thread 'ring::a' (31) panicked at capturer/src/ring/a.rs:1:2:",
            "assertion `left == right` failed",
            "  left:",
            "    [1]",
            " right: []",
            "thread 'limits::b' (240) panicked at tests/b.rs:116:54:",
            "called `Result::unwrap()` on an `Err` value: Os { code: 22 }",
        ];
        assert_eq!(failure.said, said);
    }

    #[test]
    fn without_a_test_to_name_the_end_is_shown() {
        let passed = "test result: ok. 2 passed; 0 failed\ntests ended with 0";
        assert_eq!(failure(passed), None);
        let crashed = failure("test a ... \nprogram x ended with 139\ntests ended with 139").unwrap();
        assert_eq!(crashed.tests, ["program x ended with 139"]);
        assert_eq!(crashed.said, ["test a ... ", "program x ended with 139", "tests ended with 139"]);
        let long: String = (0..100).map(|number| format!("line {number}\n")).collect();
        let ended = failure(&long).unwrap();
        assert_eq!(ended.tests, ["the machine ended before its tests did"]);
        assert_eq!((ended.said.len(), ended.said.last().unwrap().as_str()), (LAST_LINES, "line 99"));
        let mut hung = Transcript::default();
        hung.read("booting");
        let hung = hung.failure(Some("over the time".to_owned())).unwrap();
        assert_eq!(
            hung,
            Failure { tests: vec!["over the time".to_owned()], said: vec!["booting".to_owned()] }
        );
    }
}
