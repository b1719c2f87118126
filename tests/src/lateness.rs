//! How late this machine wakes a thread. Tests with a time limit add it to the limit, so that they measure the agent
//! and not the machine's other work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::wait::pass;

/// How often the thread asks to be woken.
const PERIOD: Duration = Duration::from_millis(2);
/// An answer takes a few wake-ups one after the other: of the client, the server, the loop, and the test itself.
const WAKE_UPS: u32 = 10;

/// A thread that measures until it is dropped.
pub struct Lateness {
    over: Arc<AtomicBool>,
    worst_ns: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Lateness {
    /// Measures from now on.
    pub fn watch() -> Lateness {
        let (over, worst_ns) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (is_over, worst) = (Arc::clone(&over), Arc::clone(&worst_ns));
        let thread = std::thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                let asked = Instant::now();
                pass(PERIOD);
                let late = asked.elapsed().saturating_sub(PERIOD);
                worst.fetch_max(late.as_nanos() as u64, Ordering::Relaxed);
            }
        });
        Lateness { over, worst_ns, thread: Some(thread) }
    }

    /// The latest that a thread was woken so far.
    pub fn worst(&self) -> Duration {
        Duration::from_nanos(self.worst_ns.load(Ordering::Relaxed))
    }

    /// A limit for an idle machine, adapted to this one.
    pub fn allow(&self, limit: Duration) -> Duration {
        limit + WAKE_UPS * self.worst()
    }
}

impl Drop for Lateness {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::{PATIENCE, wait_until};

    #[test]
    fn no_thread_is_woken_at_the_very_moment() {
        let lateness = Lateness::watch();
        wait_until("a thread to be woken", PATIENCE, || lateness.worst() > Duration::ZERO).unwrap();
        assert!(lateness.allow(Duration::from_secs(1)) > Duration::from_secs(1));
    }
}
