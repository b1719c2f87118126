//! Watches a start: whichever step takes long is named in the log, with what the kernel says that it waits in, and so is
//! its end. The loop and the sinks are watched by the admin server's thread, which is not there yet.
//!
//! What is waited for is mostly a file system that does not answer, and nobody can end a call on it. The thread that
//! watches has no rights.

use std::io::Write as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::Level;

use crate::text::over::over;
use crate::text::terminal::Printable;

/// A step that takes longer is named. All of a start takes about a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// A start under way; it ends when this is dropped.
pub struct Starting {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    at: Mutex<At>,
    moved: Condvar,
}

struct At {
    step: Step,
    ended: bool,
}

/// What a start is at.
#[derive(Clone)]
struct Step {
    what: String,
    since: Instant,
    is_told: bool,
}

impl Step {
    fn new(what: String) -> Step {
        Step { what, since: Instant::now(), is_told: false }
    }

    /// What is to be said when it has ended.
    fn over(&self) -> Option<String> {
        self.is_told
            .then(|| over(self.since.elapsed().as_secs(), &format!("the start waited: {}", self.what)))
    }
}

impl Starting {
    /// Begins with a step. `renounce` takes all rights from the thread that watches. Without a thread nobody does: that is no
    /// reason not to start.
    pub fn watch(what: impl Into<String>, renounce: fn()) -> Starting {
        let at = Mutex::new(At { step: Step::new(what.into()), ended: false });
        let shared = Arc::new(Shared { at, moved: Condvar::new() });
        // The thread that starts, as /proc has it.
        let starts = rustix::thread::gettid().as_raw_nonzero();
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("starting".to_owned()).spawn(move || {
            renounce();
            of_thread.look(PATIENCE, || waits_in(starts.get()), |told| say(Level::ERROR, &told));
        });
        Starting { shared, thread: thread.ok() }
    }

    /// The next step begins.
    pub(super) fn at(&self, what: impl Into<String>) {
        self.shared.go_on(Step::new(what.into()));
        #[cfg(feature = "test-faults")]
        crate::faults::start();
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(told) = self.shared.end() {
            say(Level::INFO, &told);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, At> {
        // Whole values only are written.
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn go_on(&self, step: Step) {
        let before = std::mem::replace(&mut self.lock().step, step);
        self.moved.notify_all();
        if let Some(told) = before.over() {
            say(Level::INFO, &told);
        }
    }

    fn end(&self) -> Option<String> {
        let mut at = self.lock();
        at.ended = true;
        self.moved.notify_all();
        at.step.over()
    }

    /// Tells of each step that takes longer than `patience`, once, until the start has ended.
    fn look(&self, patience: Duration, waits_in: impl Fn() -> String, tell: impl Fn(String)) {
        let mut at = self.lock();
        while !at.ended {
            let left = patience.saturating_sub(at.step.since.elapsed());
            if at.step.is_told {
                at = self.moved.wait(at).unwrap_or_else(PoisonError::into_inner);
            } else if left.is_zero() {
                at.step.is_told = true;
                tell(format!(
                    "the start waits and captures nothing yet: {} has taken {} s{}; a disk or network file system that \
                     does not answer does this (dmesg, df), or a pipe in place of a file; SIGTERM ends the process if \
                     you can't wait, SIGKILL if that does not: the next start resumes from the saved positions",
                    at.step.what,
                    patience.as_secs(),
                    waits_in()
                ));
            } else {
                at = self.moved.wait_timeout(at, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

/// Into the log, or on standard error while the config that says how to log is not read yet.
fn say(level: Level, told: &str) {
    if !tracing::dispatcher::has_been_set() {
        let _ = writeln!(Printable(std::io::stderr()), "capturer: {told}");
    } else if level == Level::ERROR {
        tracing::error!("{told}");
    } else {
        tracing::info!("{told}");
    }
}

/// What the kernel says that a thread waits in; empty = it does not say.
fn waits_in(thread: i32) -> String {
    let wchan = std::fs::read_to_string(format!("/proc/self/task/{thread}/wchan")).unwrap_or_default();
    let call = std::fs::read_to_string(format!("/proc/self/task/{thread}/syscall")).unwrap_or_default();
    let number = call.split(' ').next().unwrap_or_default();
    match (wchan.trim(), number) {
        ("" | "0", "" | "running") => String::new(),
        ("" | "0", number) => format!(" (in system call {number})"),
        (wchan, "" | "running") => format!(" (in {wchan})"),
        (wchan, number) => format!(" (in {wchan}, system call {number})"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    /// A start once hung for three minutes, and its log ended with "capturer starts".
    #[test]
    fn a_step_that_takes_long_is_named_once() {
        let at = Mutex::new(At { step: Step::new("reading /d".to_owned()), ended: false });
        let shared = Arc::new(Shared { at, moved: Condvar::new() });
        let (sender, told) = channel();
        let watch = |shared: Arc<Shared>| {
            move || shared.look(Duration::ZERO, || " (in x)".to_owned(), |text| drop(sender.send(text)))
        };
        let thread = std::thread::spawn(watch(Arc::clone(&shared)));
        let first = told.recv().expect("told");
        assert!(first.contains("yet: reading /d has taken 0 s (in x); a disk"), "{first}");
        shared.go_on(Step::new("locking /d".to_owned()));
        let second = told.recv().expect("told");
        assert!(second.contains("locking /d has taken"), "{second}");
        assert_eq!(shared.end(), Some("over after 0 s: the start waited: locking /d".to_owned()));
        thread.join().expect("it ends");
        assert!(told.recv().is_err(), "each once");
    }

    #[test]
    fn a_quick_step_is_not_told() {
        let starting = Starting::watch("this", || ());
        starting.at("that");
        assert!(starting.shared.lock().step.over().is_none());
    }

    #[test]
    fn the_kernel_is_asked() {
        let (sender, thread) = channel();
        let waits = std::thread::spawn(move || {
            let _ = sender.send(rustix::thread::gettid().as_raw_nonzero().get());
            std::thread::park_timeout(Duration::from_secs(60));
        });
        let thread = thread.recv().expect("its number");
        let begun = Instant::now();
        while !waits_in(thread).contains("(in ") {
            assert!(begun.elapsed() < Duration::from_secs(50), "{}", waits_in(thread));
            std::thread::yield_now();
        }
        waits.thread().unpark();
        waits.join().expect("it ends");
    }
}
