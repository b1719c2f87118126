//! The deadlines of all parts of the core.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::record::StreamId;

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A stream, for this purpose.
    Stream(StreamId, Purpose),
    /// Discovery: list, reconnect.
    Discovery,
    /// Quiet API streams give their slots to waiting ones, while there are more streams than slots.
    Pool,
    /// The file patterns are looked at again.
    Paths,
    /// Files that may be copies are decided.
    Doubts,
    /// Quiet files are closed, and others opened.
    OpenFiles,
    /// A checkpoint is due.
    Checkpoint,
    /// The time allowed for stopping is over.
    StopDeadline,
}

/// The purpose of a stream's deadline. Deadlines at the same moment are handled in this order; keep the first one
/// first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// A new attempt after a failure, or the next poll.
    Retry,
    /// The rate limit has let through what it allows; more may be read now.
    RateLimit,
    /// A look at a file for which inotify reports nothing.
    Look,
    /// An older file was written to: list the directory.
    LookAtRotated,
    /// A look at a renamed file whose writer may still write to it, or its closing.
    LateWriter,
    /// A line without its end is delivered as it is.
    Unfinished,
    /// Space at a file's end may have been filled.
    Room,
    /// A look at the head of a file that was written to.
    Head,
    /// An open group of lines, or a part of a line, has waited long enough. After everything that may bring the next
    /// line.
    Groups,
    /// A listing of an API stream's files, to know whether the stream missed something.
    RotationGuard,
    /// The latest time for a connection to have closed.
    Close,
    /// A planned reconnect.
    Rotate,
    /// Lines that arrive slowly over a connection have gathered.
    Trickle,
}

impl Purpose {
    /// Whether it is about reading a file, which pauses while the stream waits for another attempt.
    pub fn is_of_reading_a_file(self) -> bool {
        use Purpose::{Head, LateWriter, Look, LookAtRotated, Room, Unfinished};
        matches!(self, Look | LookAtRotated | LateWriter | Unfinished | Room | Head)
    }
}

/// Deadlines. Each [`Timer`] has at most one; setting it again moves it.
#[derive(Debug, Default)]
pub struct Timers {
    by_due: BTreeSet<(u64, Timer)>,
    due_of: BTreeMap<Timer, u64>,
}

impl Timers {
    /// Sets or moves a deadline.
    pub fn set(&mut self, timer: Timer, due_ms: u64) {
        self.cancel(timer);
        self.by_due.insert((due_ms, timer));
        self.due_of.insert(timer, due_ms);
    }

    /// Sets a deadline unless an earlier one is set.
    pub fn set_earlier(&mut self, timer: Timer, due_ms: u64) {
        if self.due_of.get(&timer).is_none_or(|due| due_ms < *due) {
            self.set(timer, due_ms);
        }
    }

    /// Removes a deadline.
    pub fn cancel(&mut self, timer: Timer) {
        if let Some(due) = self.due_of.remove(&timer) {
            self.by_due.remove(&(due, timer));
        }
    }

    /// Removes all deadlines of a stream.
    pub fn cancel_all(&mut self, stream: StreamId) {
        let is_of_it = |timer: &&Timer| matches!(timer, Timer::Stream(id, _) if *id == stream);
        let from = self.due_of.range(Timer::Stream(stream, Purpose::Retry)..).map(|(timer, _)| timer);
        let all: Vec<Timer> = from.take_while(is_of_it).copied().collect();
        all.into_iter().for_each(|timer| self.cancel(timer));
    }

    pub(super) fn is_set(&self, timer: Timer) -> bool {
        self.due_of.contains_key(&timer)
    }

    /// The next deadline.
    pub fn next_ms(&self) -> Option<u64> {
        self.by_due.first().map(|(due, _)| *due)
    }

    /// Takes a timer that is due.
    pub fn pop_due(&mut self, now_ms: u64) -> Option<Timer> {
        let (due, timer) = *self.by_due.first()?;
        if due > now_ms {
            return None;
        }
        self.cancel(timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_has_one_deadline() {
        let mut timers = Timers::default();
        timers.set(Timer::Paths, 10);
        timers.set(Timer::Paths, 20);
        timers.set(Timer::Checkpoint, 15);
        timers.set_earlier(Timer::Checkpoint, 18);
        assert_eq!((timers.next_ms(), timers.pop_due(14)), (Some(15), None));
        assert_eq!(timers.pop_due(15), Some(Timer::Checkpoint));
        assert_eq!(
            (timers.pop_due(19), timers.pop_due(20), timers.pop_due(99)),
            (None, Some(Timer::Paths), None)
        );
    }

    #[test]
    fn a_stream_that_is_gone_has_no_deadlines() {
        let mut timers = Timers::default();
        let all = [Purpose::Retry, Purpose::Room, Purpose::Trickle];
        for stream in [StreamId(1), StreamId(2), StreamId(3)] {
            all.iter().for_each(|purpose| timers.set(Timer::Stream(stream, *purpose), 10));
        }
        timers.set(Timer::Discovery, 10);
        timers.cancel_all(StreamId(2));
        let mut left = Vec::new();
        while let Some(timer) = timers.pop_due(10) {
            left.push(timer);
        }
        let of = |stream| all.map(|purpose| Timer::Stream(StreamId(stream), purpose));
        assert_eq!(left, [&of(1)[..], &of(3), &[Timer::Discovery]].concat());
    }
}
