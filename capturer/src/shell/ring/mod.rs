//! The only access to io_uring. Nothing outside this folder knows tokio-uring, so that the runtime can be replaced.
//! Unsafe code is only here and in witness/probe/.
//!
//! It offers [`timed_read()`] and its relatives (a wait that always ends), [`file_read()`] (a read of a local file),
//! and [`start`] (the runtime, or one sentence why not). It does not know who reads, why, or what the bytes mean.
//!
//! Every operation in flight is counted from submission to completion, even if its future was dropped: the kernel still
//! uses the buffer then, and the driver keeps it until the completion. The count is zero at shutdown.

#![allow(unsafe_code)]

mod file_read;
mod operation;
mod outcome;
mod startup;
mod timed_read;

use std::cell::Cell;
use std::rc::Rc;

pub use file_read::file_read;
pub use outcome::ReadOutcome;
pub use startup::{RingUnavailable, check, start};
pub use timed_read::{timed_read, timed_receive, timed_send};

thread_local! {
    static COUNTS: Rc<Counts> = Rc::default();
}

/// Counters of this thread's ring.
#[derive(Debug, Default)]
pub struct Counts {
    in_flight: Cell<u64>,
    timer_refused: Cell<u64>,
}

/// Operations submitted and not yet completed on this thread, timers included.
pub fn operations_in_flight() -> u64 {
    COUNTS.with(|counts| counts.in_flight.get())
}

/// Timers that the kernel refused (EINVAL: the pair was cut by a submission's end). Must stay 0; a read whose
/// timer was refused would wait for ever.
pub fn timers_refused() -> u64 {
    COUNTS.with(|counts| counts.timer_refused.get())
}

/// Lives as long as the kernel works on an operation.
#[derive(Debug)]
struct InFlight(Rc<Counts>);

impl InFlight {
    fn begin() -> InFlight {
        let counts = COUNTS.with(Rc::clone);
        counts.in_flight.set(counts.in_flight.get() + 1);
        InFlight(counts)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}
