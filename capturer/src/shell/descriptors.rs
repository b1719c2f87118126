//! How many file descriptors this process may have, and the reserve that sources may not use. Without the reserve, an
//! agent that follows more files than it may open could neither save positions nor answer requests about what is wrong.
//!
//! The kernel gives every new descriptor the lowest free number. So a number near the limit means that all numbers
//! below it are in use, and nothing has to be counted.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::limits::{API_STREAMS_CEILING, OUTPUT_FILES_OPEN_MAX};

/// How much of the limit is kept for admin connections, checkpoints, listings and sinks: a quarter, within bounds.
const RESERVE_MIN: u64 = 32;
const RESERVE_MAX: u64 = 256;
/// The most that streams over the Engine's API and outputs can use, with some to spare.
const OTHERS_MAX: u64 = (API_STREAMS_CEILING + OUTPUT_FILES_OPEN_MAX) as u64 + 56;
/// How to raise the limit.
pub const HOW: &str =
    "LimitNOFILE= in the systemd unit, --ulimit nofile= of the container, or ulimit -Hn in the shell";

/// The limit as [`raise`] left it; before that, no limit.
static LIMIT: AtomicU64 = AtomicU64::new(u64::MAX);

/// What the agent needs to follow anything: some fifty for ring, threads, checkpoint, outputs, witness and admin
/// server, the reserve, and some for files.
pub const NEEDED: u64 = 96;

/// Raises the limit, and fails if it is too low to capture anything.
///
/// # Errors
/// If it stays below [`NEEDED`].
pub fn require() -> anyhow::Result<()> {
    let (_, now) = raise();
    anyhow::ensure!(
        now >= NEEDED,
        "this process may have {now} file descriptors; the agent needs at least {NEEDED}, and one more for each file that it \
         follows: raise the limit, with {HOW}"
    );
    Ok(())
}

/// Raises the soft limit to the hard one, which needs no permission. Returns the old and the new limit.
pub fn raise() -> (u64, u64) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let before = current.unwrap_or(u64::MAX);
    let wanted = maximum.or(current);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: wanted, maximum });
    let now = if raised.is_ok() { wanted.unwrap_or(u64::MAX) } else { before };
    LIMIT.store(now, Ordering::Relaxed);
    (before, now)
}

/// The soft limit of this process.
pub fn limit() -> u64 {
    LIMIT.load(Ordering::Relaxed)
}

/// How many followed files may be open: the descriptors of sources, without a part for connections to the Engine,
/// outputs and archives.
pub fn for_files() -> usize {
    let room = limit() - reserve(limit());
    usize::try_from(room - (room / 4).min(OTHERS_MAX)).unwrap_or(usize::MAX)
}

/// How many outputs a sink of local files may hold open: an eighth of a small limit, because otherwise outputs would
/// use everything that sources may have.
pub fn for_outputs() -> usize {
    outputs_of(limit())
}

/// Whether a source may keep a descriptor it has just opened. If not, it must close it and wait.
pub fn may_keep(fd: BorrowedFd<'_>) -> bool {
    fits(fd.as_raw_fd(), limit())
}

/// Whether a source could open one more.
pub fn is_room() -> bool {
    let lowest = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 0);
    lowest.is_ok_and(|fd| may_keep(fd.as_fd()))
}

fn fits(number: i32, limit: u64) -> bool {
    u64::try_from(number).is_ok_and(|number| number < limit - reserve(limit))
}

fn outputs_of(limit: u64) -> usize {
    let part = (limit - reserve(limit)) / 8;
    usize::try_from(part).map_or(OUTPUT_FILES_OPEN_MAX, |part| part.clamp(2, OUTPUT_FILES_OPEN_MAX))
}

fn reserve(limit: u64) -> u64 {
    (limit / 4).clamp(RESERVE_MIN, RESERVE_MAX).min(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept() {
        assert!(fits(191, 256) && !fits(192, 256));
        assert!(fits(65_000, 65_536) && !fits(65_280, 65_536));
        assert!(!fits(3, 16), "nothing is left");
        assert!(fits(i32::MAX, u64::MAX));
    }

    #[test]
    fn outputs_leave_room_for_sources() {
        assert_eq!(
            [16, 120, 1_024, u64::MAX].map(outputs_of),
            [2, 11, OUTPUT_FILES_OPEN_MAX, OUTPUT_FILES_OPEN_MAX]
        );
    }

    #[test]
    fn there_is_room_in_a_test() {
        assert!(is_room());
    }
}
