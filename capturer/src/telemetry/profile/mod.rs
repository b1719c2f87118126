//! Where the agent's processor time goes: what a profile is, who may take one, and its two output formats.
//!
//! Not here: how it is taken (witness/profile/); the admin server requests it through [`Profiles`].

mod flame;
mod pprof;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::oneshot;

pub(crate) use flame::svg;
pub(crate) use pprof::pprof;

/// Samples per second of processor time. Not 100, so that sampling does not run in step with what happens every 10 ms.
pub const HERTZ: u32 = 99;
/// Longest profile, in seconds.
pub const SECONDS_MAX: u64 = 60;
/// Length of a profile if the request names none.
pub const SECONDS_DEFAULT: u64 = 10;

/// A function on a stack.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frame {
    /// Its name as source code has it, or the file that it is in.
    pub name: Arc<str>,
    /// Its source file; empty = not known.
    pub file: Arc<str>,
    /// The line that was being run, or had called the next function; 0 = not known.
    pub line: u32,
}

/// The stack of a thread.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stack {
    /// The thread's name.
    pub thread: Arc<str>,
    /// The outermost function first.
    pub frames: Vec<Frame>,
}

/// Stacks that were seen while a profile was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// How long it was taken.
    pub time: Duration,
    /// When it began, nanoseconds since 1970.
    pub began_ns: i64,
    /// How often each stack was seen.
    pub stacks: BTreeMap<Stack, u64>,
    /// Samples for which there was no room.
    pub missed: u64,
    /// What a reader should know about it; empty = nothing.
    pub note: String,
}

impl Profile {
    /// Total number of samples.
    pub fn samples(&self) -> u64 {
        self.stacks.values().sum()
    }
}

/// An order to take a profile. When it is dropped, the next one may be requested.
pub struct Order {
    /// For how long.
    pub time: Duration,
    /// For the profile, or the reason why there is none. Closed = nobody waits for it any more.
    pub answer: oneshot::Sender<anyhow::Result<Profile>>,
    /// Given back last.
    pub turn: Turn,
}

/// The right to take a profile: only one is taken at a time.
pub struct Turn(Arc<AtomicBool>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

type Taker = Box<dyn Fn(Order) + Send + Sync>;

/// Requests for profiles.
#[derive(Default)]
pub struct Profiles {
    taker: OnceLock<Taker>,
    busy: Arc<AtomicBool>,
}

impl Profiles {
    /// Sets who takes profiles. Call it once.
    pub fn open(&self, taker: Taker) {
        let _ = self.taker.set(taker);
    }

    /// Requests a profile. `None` = another one is being taken.
    pub fn ask(&self, time: Duration) -> Option<oneshot::Receiver<anyhow::Result<Profile>>> {
        if self.busy.swap(true, Ordering::AcqRel) {
            return None;
        }
        let turn = Turn(Arc::clone(&self.busy));
        let (answer, profile) = oneshot::channel();
        // If nobody takes profiles the order is dropped, which tells the reader.
        if let Some(taker) = self.taker.get() {
            taker(Order { time, answer, turn });
        }
        Some(profile)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn one_at_a_time() {
        let profiles = Profiles::default();
        let orders = Arc::<Mutex<Vec<Order>>>::default();
        let taken = Arc::clone(&orders);
        profiles.open(Box::new(move |order| taken.lock().expect("orders").push(order)));
        let first = profiles.ask(Duration::from_secs(1)).expect("nobody else asks");
        assert!(profiles.ask(Duration::from_secs(1)).is_none(), "one is under way");
        drop(first);
        assert!(profiles.ask(Duration::from_secs(1)).is_none(), "it is under way until its taker has let go");
        assert!(orders.lock().expect("orders")[0].answer.is_closed(), "and its taker is told");
        orders.lock().expect("orders").clear();
        assert!(profiles.ask(Duration::from_secs(1)).is_some());
    }
}
