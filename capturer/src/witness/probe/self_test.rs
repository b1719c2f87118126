//! Does an attached tier see everything? In the running kernel a function may have been renamed, inlined or bypassed;
//! then the probe attaches to it and counts nothing. So every way of ways.rs is tried once, and the kernel's maps must
//! show it.
//!
//! ```text
//! for each way in:   make ─▶ each descriptor is in the table, as a new opening ─▶ close ─▶ not there, file let go
//! for each way out:  open ─▶ release ─▶ not there, file let go
//! at last:           the maps hold what /proc/self/fd shows, and nothing else
//! ```
//! Two checks depend on the tier: `tracepoint` is not tested on files, which it can't see.

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use capturer_ebpf::Slot;

use super::load::Kernel;
use super::procfs_tier;
use super::ways::{MAKING, Make, RELEASING, Release, Way, Workbench};

/// The result of one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WayResult {
    /// Its name in the table.
    pub way: &'static str,
    /// Whether it was seen, or why not, or why it could not be tried.
    pub verdict: WayOutcome,
}

/// Whether a way was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WayOutcome {
    /// Opened, released and, where the tier can see that, its file released too.
    Seen,
    /// The kernel does not offer it, or not to this process.
    NotHere(String),
    /// The tier is blind to it.
    Blind(String),
}

/// The kernel releases a file when its last user has run; a worker of io_uring may need a moment for that.
const RELEASE_DEADLINE: Duration = Duration::from_millis(500);
/// A number that another thread opens and closes all the time may differ in some looks, not in that many.
const LOOKS_MAX: usize = 10;
/// A way that is not seen is tried this often, but not again after this long.
const TRIES: usize = 20;
const TRYING: Duration = Duration::from_secs(1);

/// Tries every way. Fails only if none can be tried.
pub(super) fn run(kernel: &mut Kernel) -> Result<Vec<WayResult>> {
    let mut bench = Workbench::new()?;
    let mut results = Vec::new();
    for way in &MAKING {
        let verdict = tried(|| Ok(made(kernel, &mut bench, way)))?;
        results.push(WayResult { way: way.name, verdict });
        if is_blind_enough(&results) {
            return Ok(results);
        }
    }
    for way in &RELEASING {
        let verdict = tried(|| released(kernel, &mut bench, way))?;
        results.push(WayResult { way: way.name, verdict });
        if is_blind_enough(&results) {
            return Ok(results);
        }
    }
    results.push(WayResult { way: "all of /proc/self/fd", verdict: equal(kernel)? });
    Ok(results)
}

/// A tier that is blind to a way is so every time. One that is not may take a new descriptor for the one before it, if another
/// thread closes that number at the same moment and the kernel gives the new file the old one's address.
fn tried(mut way: impl FnMut() -> Result<WayOutcome>) -> Result<WayOutcome> {
    let until = Instant::now() + TRYING;
    let mut outcome = way()?;
    for _ in 1..TRIES {
        if !matches!(outcome, WayOutcome::Blind(_)) || Instant::now() > until {
            break;
        }
        outcome = way()?;
    }
    Ok(outcome)
}

/// A few unseen ways are enough to refuse a tier and to say why; each may have waited for its deadline.
fn is_blind_enough(results: &[WayResult]) -> bool {
    results.iter().filter(|result| matches!(result.verdict, WayOutcome::Blind(_))).count() >= 3
}

/// Why the tier can't be trusted; `None` = it can.
pub(super) fn blindness(results: &[WayResult]) -> Option<String> {
    let blind = results.iter().filter_map(|result| match &result.verdict {
        WayOutcome::Blind(why) => Some(format!("{}: {why}", result.way)),
        _ => None,
    });
    let blind: Vec<String> = blind.collect();
    (!blind.is_empty()).then(|| format!("attached, but blind to {}", blind.join("; ")))
}

fn made(kernel: &Kernel, bench: &mut Workbench, way: &Way<Make>) -> WayOutcome {
    let begun_ns = now_ns();
    let fds = match (way.go)(bench) {
        Ok(fds) => fds,
        Err(error) => return WayOutcome::NotHere(format!("{error:#}")),
    };
    let mut slots = Vec::new();
    for fd in &fds {
        match new_slot(kernel, fd, begun_ns) {
            Ok(slot) => slots.push(slot),
            Err(why) => return WayOutcome::Blind(why),
        }
    }
    drop(fds);
    slots.into_iter().find_map(|slot| gone(kernel, slot).err()).map_or(WayOutcome::Seen, WayOutcome::Blind)
}

fn released(kernel: &Kernel, bench: &mut Workbench, way: &Way<Release>) -> Result<WayOutcome> {
    let begun_ns = now_ns();
    let file = std::fs::File::open("/dev/null").context("opening /dev/null")?;
    let fd = OwnedFd::from(file);
    let slot = match new_slot(kernel, &fd, begun_ns) {
        Ok(slot) => slot,
        Err(why) => return Ok(WayOutcome::Blind(why)),
    };
    Ok(match (way.go)(bench, fd) {
        Err(error) => WayOutcome::NotHere(format!("{error:#}")),
        Ok(()) => gone(kernel, slot).map_or_else(WayOutcome::Blind, |()| WayOutcome::Seen),
    })
}

/// The entry of a descriptor made since `begun_ns`.
fn new_slot(kernel: &Kernel, fd: &OwnedFd, begun_ns: u64) -> std::result::Result<(u32, Slot), String> {
    let number = u32::try_from(fd.as_raw_fd()).expect("an open descriptor");
    match kernel.slot(number) {
        None => Err(format!("descriptor {number} is not in the table")),
        Some(slot) if slot.opened_ns < begun_ns => {
            Err(format!("descriptor {number} is in the table as one opened before"))
        }
        Some(slot) => Ok((number, slot)),
    }
}

fn gone(kernel: &Kernel, (number, slot): (u32, Slot)) -> std::result::Result<(), String> {
    if kernel.slot(number) == Some(slot) {
        return Err(format!("descriptor {number} is in the table still"));
    }
    // Not decided by the time of opening: on a tier that does not see releases, the entry may be that of an earlier
    // file with the same address.
    let unreleased = || kernel.file(slot.holds.file()).is_some_and(|held| held.slots <= 0);
    let deadline = Instant::now() + RELEASE_DEADLINE;
    while unreleased() {
        if Instant::now() > deadline {
            return Err(format!("the file of descriptor {number} is in the table still"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Other threads open and close descriptors while we look: what counts is what every look finds.
fn equal(kernel: &Kernel) -> Result<WayOutcome> {
    let mut wrong: Option<BTreeSet<i32>> = None;
    for _ in 0..LOOKS_MAX {
        let before = super::live(kernel, 0);
        let look = procfs_tier::look()?;
        let (only_programs, only_proc) = super::differing(&before, &look, &super::live(kernel, 0));
        let differing = only_programs.into_iter().chain(only_proc);
        let now: BTreeSet<i32> = match &wrong {
            None => differing.collect(),
            Some(wrong) => differing.filter(|fd| wrong.contains(fd)).collect(),
        };
        if now.is_empty() {
            return Ok(WayOutcome::Seen);
        }
        wrong = Some(now);
        std::thread::sleep(Duration::from_millis(1));
    }
    let wrong = wrong.unwrap_or_default();
    Ok(WayOutcome::Blind(format!("descriptors {wrong:?} are in one and not in the other")))
}

/// Now, by the clock with which the programs note openings.
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
