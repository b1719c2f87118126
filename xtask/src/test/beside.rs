//! A part that runs while later parts run.

use std::any::Any;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::anyhow;

use super::{Part, Verdict, judge};

/// A part running on a thread of its own. Its output is mixed with that of the others.
pub struct Beside {
    part: &'static str,
    thread: JoinHandle<Verdict>,
}

impl Beside {
    /// Starts it.
    pub fn start(part: &'static Part) -> Beside {
        Beside { part: part.name, thread: std::thread::spawn(|| part.run()) }
    }

    /// Its name.
    pub fn part(&self) -> &'static str {
        self.part
    }

    /// Waits for its end. A panic is a failure of this part alone.
    pub fn join(self) -> Verdict {
        if !self.thread.is_finished() {
            println!("waiting for {}", self.part);
        }
        self.thread.join().unwrap_or_else(|panic| {
            judge(self.part, Duration::ZERO, Err(anyhow!("it panicked: {}", said(panic.as_ref()))))
        })
    }
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::{Outcome, Pace};

    #[test]
    fn what_fails_beside_others_fails_alone() {
        static PANICS: Part =
            Part { name: "panics", what: "", needs: &[], pace: Pace::Beside, run: || panic!("at {}", 7) };
        static PASSES: Part =
            Part { name: "passes", what: "", needs: &[], pace: Pace::Beside, run: || Ok(Outcome::Passed) };
        let both = [Beside::start(&PANICS), Beside::start(&PASSES)].map(Beside::join);
        assert_eq!(both[0].text, "FAILED: it panicked: at 7");
        assert_eq!((both[0].tally.failed, both[1].tally.failed, both[1].holds), (1, 0, true));
    }
}
