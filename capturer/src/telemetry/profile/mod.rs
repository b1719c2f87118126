//! Where the agent's processor time goes: what a profile is, who may have one taken, and the two forms it is told in.
//!
//! Not here: how it is taken (witness/profile/), which the admin server asks for through [`Profiles`].

mod flame;
mod pprof;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::oneshot;

pub(crate) use flame::svg;
pub(crate) use pprof::pprof;

/// Samples per second of processor time. Not 100, so that it does not beat in time with what happens every 10 ms.
pub const HERTZ: u32 = 99;
/// Longest profile, in seconds.
pub const SECONDS_MAX: u64 = 60;
/// What is taken if nobody says how long.
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

/// Where a thread was.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stack {
    /// The thread's name.
    pub thread: Arc<str>,
    /// The outermost function first.
    pub frames: Vec<Frame>,
}

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// How long it was looked.
    pub time: Duration,
    /// When it began, nanoseconds since 1970.
    pub began_ns: i64,
    /// How often each stack was seen.
    pub stacks: BTreeMap<Stack, u64>,
    /// Samples for which there was no room.
    pub missed: u64,
    /// What a reader has to know about it; empty = nothing.
    pub note: String,
}

impl Profile {
    /// Samples taken.
    pub fn samples(&self) -> u64 {
        self.stacks.values().sum()
    }
}

/// A profile that is to be taken. When it is dropped the next one may be asked for.
pub struct Order {
    /// For how long.
    pub time: Duration,
    /// Takes the profile, or why there is none. Closed = nobody waits for it any more.
    pub answer: oneshot::Sender<anyhow::Result<Profile>>,
    /// Given back last.
    pub turn: Turn,
}

/// Only one profile is taken at a time: this is the right to.
pub struct Turn(Arc<AtomicBool>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

type Taker = Box<dyn Fn(Order) + Send + Sync>;

/// Where profiles are asked for.
#[derive(Default)]
pub struct Profiles {
    taker: OnceLock<Taker>,
    busy: Arc<AtomicBool>,
}

impl Profiles {
    /// Sets who takes them. Once.
    pub fn open(&self, taker: Taker) {
        let _ = self.taker.set(taker);
    }

    /// Has one taken. `None` = another one is under way.
    pub fn ask(&self, time: Duration) -> Option<oneshot::Receiver<anyhow::Result<Profile>>> {
        if self.busy.swap(true, Ordering::AcqRel) {
            return None;
        }
        let turn = Turn(Arc::clone(&self.busy));
        let (answer, profile) = oneshot::channel();
        // Without anybody who takes it the order is dropped, which tells the reader.
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
