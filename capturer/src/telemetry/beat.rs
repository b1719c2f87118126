//! Whether a thread goes on: it notes when it begins a step of its work and when it has ended it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The step that a thread is working on and that nothing can interrupt. `/health` reports a step that takes long,
/// because the thread itself can't.
#[derive(Debug)]
pub struct Beat {
    started: Instant,
    /// When the step began, in milliseconds since `started`; 0 = the thread waits for work.
    busy_since_ms: AtomicU64,
    steps: AtomicU64,
}

/// A step under way; it ends when this is dropped.
#[derive(Debug)]
pub struct Step<'a>(&'a Beat);

impl Beat {
    /// A thread that waits for work. `started` is a moment before its first step.
    pub(super) fn new(started: Instant) -> Beat {
        Beat { started, busy_since_ms: AtomicU64::new(0), steps: AtomicU64::new(0) }
    }

    /// How long the present step has taken; zero if there is none.
    pub fn age(&self) -> Duration {
        let since = Duration::from_millis(self.busy_since_ms.load(Ordering::Relaxed));
        if since.is_zero() { Duration::ZERO } else { self.started.elapsed().saturating_sub(since) }
    }

    /// How many steps have ended.
    pub(super) fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// A step begins.
    pub fn step(&self) -> Step<'_> {
        let now = self.started.elapsed().as_millis() as u64;
        self.busy_since_ms.store(now.max(1), Ordering::Relaxed);
        Step(self)
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        self.0.busy_since_ms.store(0, Ordering::Relaxed);
        self.0.steps.fetch_add(1, Ordering::Relaxed);
    }
}
