//! Many seeds of the simulation, on several threads; each that fails leaves its event log as a file.
//!
//! A seed is first run without a log, since nearly all pass, and again with one if it failed: the same seed is the same
//! run.

use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use anyhow::{Context as _, Result};

use crate::world::{Outcome, World};

/// A seed that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which.
    pub seed: u64,
    /// Which invariant, and where in the code.
    pub message: String,
    /// Everything that happened, from the first moment on.
    pub log: PathBuf,
}

/// The result of running seeds.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    /// Seeds that ran to their end, failed ones included.
    pub seeds: u64,
    /// Simulated events.
    pub steps: u64,
    /// Seconds that passed on the simulated hosts.
    pub seconds: u64,
    /// Times the agent was started.
    pub runs: u64,
    /// Lines printed.
    pub printed: usize,
    /// Lines that the host had lost before they could be read.
    pub lost: usize,
    /// Those that failed.
    pub failures: Vec<Failure>,
}

impl Sum {
    fn add(&mut self, outcome: &Outcome) {
        self.steps += outcome.steps;
        self.seconds += outcome.seconds;
        self.runs += outcome.runs;
        self.printed += outcome.printed;
        self.lost += outcome.lost;
    }
}

/// Runs all these seeds. `told` hears the sum after each of them. Logs of failures go into `logs`; after
/// `failures_max` of them no further seed is begun.
pub fn run(seeds: &[u64], failures_max: usize, logs: &Path, told: impl Fn(&Sum) + Sync) -> Sum {
    let next = AtomicUsize::new(0);
    let sum = Mutex::new(Sum::default());
    let work = || {
        loop {
            let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            let ended = quietly(|| World::new(seed).unlogged().run());
            let ended = ended.map_err(|message| Failure { log: leave_log(seed, logs), seed, message });
            let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
            sum.seeds += 1;
            match ended {
                Ok(outcome) => sum.add(&outcome),
                Err(failure) => sum.failures.push(failure),
            }
            told(&sum);
            if sum.failures.len() >= failures_max {
                return;
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    sum.failures.sort_by_key(|failure| failure.seed);
    sum
}

/// Runs one seed and writes everything that happens; the message if an invariant did not hold.
pub fn replay(seed: u64, writer: Box<dyn Write + Send>) -> Result<Outcome, String> {
    quietly(|| World::new(seed).logged(writer).run())
}

/// Where the log of a failed seed is left.
pub fn log_path(seed: u64, logs: &Path) -> PathBuf {
    logs.join(format!("seed-{seed}.log"))
}

fn leave_log(seed: u64, logs: &Path) -> PathBuf {
    let path = log_path(seed, logs);
    let left = || -> Result<()> {
        fs::create_dir_all(logs).with_context(|| format!("making {}", logs.display()))?;
        let file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
        // It fails as before; only its log is new.
        let _ = replay(seed, Box::new(BufWriter::new(file)));
        Ok(())
    };
    if let Err(error) = left() {
        eprintln!("seed {seed} left no log: {error:#}");
    }
    path
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `work`; a panic is not printed but answered, with its place.
fn quietly<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if QUIET.get() {
                SAID.set(info.to_string());
            } else {
                usual(info);
            }
        }));
    });
    QUIET.set(true);
    let ended = catch_unwind(AssertUnwindSafe(work));
    QUIET.set(false);
    ended.map_err(|_| SAID.take())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A failure without its reason and place would have to be searched for.
    #[test]
    fn a_panic_is_answered_with_its_place() {
        let said = quietly(|| panic!("invariant broken: sums")).unwrap_err();
        assert!(said.contains("seeds.rs") && said.contains("invariant broken: sums"), "{said}");
        assert_eq!(quietly(|| 7), Ok(7));
    }
}
