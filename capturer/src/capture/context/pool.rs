//! Which api streams may have a connection.

use std::collections::VecDeque;

use crate::model::record::StreamId;

/// The slots of api streams. A stream that finds none waits in line, and gets the next slot that is returned.
#[derive(Debug)]
pub struct Pool {
    slots_max: usize,
    used: usize,
    line: VecDeque<StreamId>,
    granted: Vec<StreamId>,
    next_rotation_ms: u64,
    contended: bool,
    /// The Engine is not there or does not answer: the log has it, once for all streams.
    pub engine_is_away: bool,
}

impl Pool {
    /// At most this many connections follow at once.
    pub fn new(slots_max: usize) -> Pool {
        Pool {
            slots_max,
            used: 0,
            line: VecDeque::new(),
            granted: Vec::new(),
            next_rotation_ms: 0,
            contended: false,
            engine_is_away: false,
        }
    }

    /// Takes a slot for this stream. If there is none, the stream waits in line until [`Pool::take_granted`] names it.
    pub fn take(&mut self, stream: StreamId) -> bool {
        if self.used < self.slots_max && self.line.is_empty() {
            self.used += 1;
            return true;
        }
        self.contended = true;
        if !self.line.contains(&stream) {
            self.line.push_back(stream);
        }
        false
    }

    /// Returns a slot.
    pub fn release(&mut self) {
        match self.line.pop_front() {
            Some(next) => self.granted.push(next),
            None => self.used -= 1,
        }
    }

    /// A stream no longer wants a slot.
    pub fn forget(&mut self, stream: StreamId) {
        self.line.retain(|waiting| *waiting != stream);
    }

    /// Whether any stream waits in line.
    pub fn anyone_waits(&self) -> bool {
        !self.line.is_empty()
    }

    /// How many streams wait in line.
    pub fn waiting(&self) -> usize {
        self.line.len()
    }

    /// Whether there are more streams than slots, as far as known, so that quiet ones should give up theirs.
    pub fn is_contended(&self) -> bool {
        self.contended
    }

    /// Sets how many streams want a slot. Returns whether that is more than there are.
    pub fn set_wanted(&mut self, streams: usize) -> bool {
        self.contended = streams > self.slots_max;
        self.contended
    }

    /// Streams that got a slot since the last call.
    pub fn take_granted(&mut self) -> Vec<StreamId> {
        std::mem::take(&mut self.granted)
    }

    /// Used share of the slots, 0 to 1.
    pub fn utilization(&self) -> f64 {
        self.used as f64 / self.slots_max.max(1) as f64
    }

    /// The earliest time for the next rotation, so that streams don't reopen together.
    pub fn next_rotation_ms(&self, now_ms: u64) -> u64 {
        self.next_rotation_ms.max(now_ms)
    }

    /// A rotation began; the next may begin then.
    pub fn rotated(&mut self, next_ms: u64) {
        self.next_rotation_ms = next_ms;
    }
}
