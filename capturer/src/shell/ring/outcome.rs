//! What a pair of completions (read, timer) means. Pure, and tested over the whole table.
//!
//! The timer's result says nothing about the data: in 51,557 races on Linux 6.18 "data + ETIME" came 6 times and "data
//! + ENOENT" 658 times, and no byte was lost. So only the read's result decides, after both completions.

use std::io;

/// How a timed operation ended. It always ends.
#[derive(Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// This many bytes were transferred; at least one.
    Bytes(usize),
    /// The other side will send no more.
    End,
    /// The timer ended it; nothing was transferred.
    TimedOut,
    /// The read failed.
    Failed(ReadError),
}

/// A failed operation, by errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", io::Error::from_raw_os_error(*.0))]
pub struct ReadError(
    /// The errno, positive.
    pub i32,
);

/// What happened to the timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerState {
    /// It was armed and has ended in one way or the other.
    Armed,
    /// The kernel refused it, so the read had no timer. A bug in the queue's size; counted.
    Refused,
}

const EINTR: i32 = 4;
const EAGAIN: i32 = 11;
const ENOENT: i32 = 2;
const EINVAL: i32 = 22;
const ETIME: i32 = 62;
const EALREADY: i32 = 114;
const ECANCELED: i32 = 125;

/// Judges a pair of results. `read_result` and `timer_result` are as the kernel gives them: a count, or −errno.
pub(super) fn outcome(read_result: i32, timer_result: i32) -> (ReadOutcome, TimerState) {
    let read = match read_result {
        n if n > 0 => ReadOutcome::Bytes(n as usize),
        0 => ReadOutcome::End,
        // Cancelled: by the timer. Interrupted: by the timer too, if the read had begun on a worker thread. Try again:
        // a spurious wake-up (5.10 leaves it to the caller), which is a tick like any other.
        n if matches!(-n, ECANCELED | EINTR | EAGAIN) => ReadOutcome::TimedOut,
        n => ReadOutcome::Failed(ReadError(-n)),
    };
    let timer = match -timer_result {
        // The read ended first (cancelled, or already gone), the timer fired, or it fired while the read ended.
        ECANCELED | ENOENT | ETIME | EALREADY => TimerState::Armed,
        EINVAL => TimerState::Refused,
        // Unknown results are no reason to doubt the read.
        _ => TimerState::Armed,
    };
    (read, timer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise a new behaviour of the kernel (say, data + ETIME) could silently throw data away.
    #[test]
    fn every_pair_seen_or_documented_has_its_meaning() {
        use ReadOutcome::*;
        use TimerState::*;
        let table = [
            (17, -ECANCELED, Bytes(17), Armed),
            (17, -ETIME, Bytes(17), Armed),
            (17, -ENOENT, Bytes(17), Armed),
            (17, -EALREADY, Bytes(17), Armed),
            (17, -EINVAL, Bytes(17), Refused),
            (0, -ECANCELED, End, Armed),
            (0, -ETIME, End, Armed),
            (-ECANCELED, -ETIME, TimedOut, Armed),
            (-ECANCELED, -EALREADY, TimedOut, Armed),
            (-EINTR, -ETIME, TimedOut, Armed),
            (-EINTR, -EALREADY, TimedOut, Armed),
            (-EAGAIN, -ECANCELED, TimedOut, Armed),
            (-104, -ECANCELED, Failed(ReadError(104)), Armed),
            (-ECANCELED, -ECANCELED, TimedOut, Armed),
            (-EINVAL, -ECANCELED, Failed(ReadError(EINVAL)), Armed),
        ];
        for (read, timer, expected, state) in table {
            assert_eq!(outcome(read, timer), (expected, state), "read {read}, timer {timer}");
        }
    }

    /// Bytes win over every timer result, known or not.
    #[test]
    fn bytes_win_over_any_timer_result() {
        for timer in -200..=200 {
            assert_eq!(outcome(5, timer).0, ReadOutcome::Bytes(5), "timer {timer}");
        }
    }
}
