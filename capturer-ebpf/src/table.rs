//! One descriptor table, as the kernel has it and as the maps have it.
//!
//! The kernel's is read from its memory at offsets that the agent took from BTF. The maps' is changed by [`Table`]'s
//! functions alone.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use capturer_ebpf::{
    BORN_FOUND, BORN_REPLACED, COMPARED_AT_ONCE, COMPARED_FDS_MAX, COMPARED_WORDS, COUNT_CLOSED,
    COUNT_MISSED, COUNT_OPENED, COUNT_RELEASED, COUNTS_STRIDE, Held, Holds, OWNERS_MAX, REFERENCES_MAX,
    ReferenceKey, SLOTS_MAX, SYSCALLS_MAX, Slot, SlotKey, WATCHES_MAX, Watched,
};
use core::intrinsics::{AtomicOrdering, atomic_xadd};

use crate::read;
use crate::slots::{self, NO_EXIST, Put};
use crate::task::{Files, Task};

#[map]
static WATCHED: Array<Watched> = Array::with_max_entries(1, 0);
#[map]
static TABLES: HashMap<u64, u32> = HashMap::with_max_entries(2 * WATCHES_MAX, 0);
#[map]
static TABLE_OF: Array<u64> = Array::with_max_entries(WATCHES_MAX, 0);
#[map]
static OPEN: Array<u64> = Array::with_max_entries(WATCHES_MAX * COMPARED_WORDS, 0);
#[map]
static UNFINISHED: Array<u64> = Array::with_max_entries(WATCHES_MAX, 0);
#[map]
static REFERENCES: HashMap<ReferenceKey, u32> = HashMap::with_max_entries(SLOTS_MAX, 0);
#[map]
static FILES: HashMap<u64, Held> = HashMap::with_max_entries(SLOTS_MAX, 0);
#[map]
static CLOSED_BY: HashMap<u64, u64> = HashMap::with_max_entries(OWNERS_MAX, 0);
#[map]
static COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(WATCHES_MAX * COUNTS_STRIDE, 0);
#[map]
pub static SYSCALLS: Array<u32> = Array::with_max_entries(SYSCALLS_MAX, 0);

/// See `capturer_ebpf::offset`. Filled by the agent before loading, so that to the kernel it is constant.
#[unsafe(no_mangle)]
static OFFSETS: [u32; capturer_ebpf::offset::COUNT] = [0; capturer_ebpf::offset::COUNT];

#[inline(always)]
pub fn offset(which: usize) -> u64 {
    // SAFETY: in bounds, as every caller passes a constant of `capturer_ebpf::offset`. Volatile, or the compiler would
    // take the zeros above for the truth.
    u64::from(unsafe { core::ptr::read_volatile(OFFSETS.as_ptr().add(which)) })
}

/// Which watch a process is. A look through all of them is cheaper than a call that looks up one.
#[inline(always)]
pub fn watch_of(process: u32) -> Option<u32> {
    let watched = WATCHED.get_ptr(0)?.cast::<u64>();
    for place in 0..WATCHES_MAX as usize {
        // SAFETY: in bounds; written by the agent in one step. Volatile, so that the watch is what is read and not the
        // turn of the loop: to the verifier the rest of the program is then one for all of them.
        let entry = unsafe { core::ptr::read_volatile(watched.add(place)) };
        if (entry >> 32) as u32 == process {
            return Some(entry as u32);
        }
    }
    None
}

/// Which watch the table at that address belongs to, also if it was not seen before and the running process is watched.
#[inline(always)]
pub fn watch_at(files: u64, task: &Task) -> Option<u32> {
    if let Some(watch) = known_watch_at(files) {
        return Some(watch);
    }
    let watch = watch_of(task.process())?;
    let seen = TABLE_OF.get_ptr_mut(watch)?;
    // SAFETY: a value of the array lives as long as the array. A second table (a thread that unshared its own)
    // is not followed; two threads that come first at once bring the same table.
    unsafe {
        if *seen != 0 || files == 0 {
            return None;
        }
        *seen = files;
    }
    TABLES.insert(files, watch, 0).ok()?;
    Some(watch)
}

#[inline(always)]
pub fn known_watch_at(files: u64) -> Option<u32> {
    // SAFETY: an entry is a number that is never changed.
    unsafe { TABLES.get(files) }.copied()
}

/// The descriptor table of a watched process.
pub struct Table {
    files: Files,
    watch: u32,
}

impl Table {
    /// That of the running thread.
    #[inline(always)]
    pub fn of_current(task: &Task) -> Option<Table> {
        let files = task.files();
        Some(Table { watch: watch_at(files.address, task)?, files })
    }

    /// That of the running thread, whose process is known to be watched: quicker, as it is one already seen.
    #[inline(always)]
    pub fn of_current_watched(task: &Task, watch: u32) -> Option<Table> {
        let files = task.files();
        if files.address != 0 && TABLE_OF.get(watch) == Some(&files.address) {
            return Some(Table { files, watch });
        }
        Some(Table { watch: watch_at(files.address, task)?, files })
    }

    /// The one at that address, also if it was not seen before and the running process is watched.
    #[inline(always)]
    pub fn at(files: u64, task: &Task) -> Option<Table> {
        let watch = watch_at(files, task)?;
        Some(Table { files: Files::at(files), watch })
    }

    #[inline(always)]
    pub fn of_watch(watch: u32) -> Option<Table> {
        let files = *TABLE_OF.get(watch)?;
        (files != 0).then(|| Table { files: Files::at(files), watch })
    }

    /// `fd` now holds `file`; said after it was put there.
    #[inline(always)]
    pub fn opened(&self, fd: u32, file: u64, born: u64) {
        opening(self.watch, fd, file, born);
        // Closed by another thread since? Then its closing may have been looked at before our entry was there. If the
        // table grew since we found it, the array we ask still has the file, and the entry stays: it shows as drift and
        // is compared away, or goes when the number is used again. So it was before too, for the moment between finding
        // the array and asking it.
        if self.files.file(fd) != file {
            let known = self.known(fd);
            if known.file() == file {
                slot_gone(self.watch, fd, known);
            }
        }
    }

    /// `fd` was just made by a system call that has ended: the table says which file.
    #[inline(never)]
    pub fn opened_now(&self, fd: u32, born: u64) {
        let file = self.files.file(fd);
        if file != 0 {
            self.opened(fd, file, born);
        }
    }

    /// `number` may be a descriptor: whether the table has a file there, and another than is known.
    #[inline(always)]
    pub fn is_new(&self, number: u64) -> bool {
        if number >= u64::from(u32::MAX) {
            return false;
        }
        let file = self.files.file(number as u32);
        file != 0 && self.known(number as u32).file() != file
    }

    /// `fd` may have been closed; if the table still has its file there, it was not, or is open again.
    #[inline(always)]
    pub fn closed_if_gone(&self, fd: u32) {
        let known = self.known(fd);
        if known != Holds::NOTHING && self.files.file(fd) != known.file() {
            slot_gone(self.watch, fd, known);
        }
    }

    /// Sets what is known against the kernel's bits, for events that do not say what changed. Of each 64 descriptors
    /// it mends one, as the verifier goes through every turn of the loop; if more are wrong, the process's next event
    /// goes on.
    #[inline(always)]
    pub fn compare_bits(&self) {
        let mut left = 0;
        for word in 0..COMPARED_WORDS {
            if u64::from(word * 64) >= self.files.fds_max {
                break;
            }
            let there = read(self.files.open + 8 * u64::from(word));
            let Some(known) = OPEN.get(self.watch * COMPARED_WORDS + word) else { break };
            let wrong = there ^ *known;
            if wrong != 0 {
                // The lowest bit's place, without a branch.
                let bit = (wrong & wrong.wrapping_neg()).wrapping_sub(1).count_ones();
                self.compare_one(word * 64 + bit);
                left |= wrong & (wrong - 1);
            }
        }
        if let Some(unfinished) = UNFINISHED.get_ptr_mut(self.watch) {
            // SAFETY: a value of the array lives as long as the array.
            unsafe { *unfinished = left };
        }
    }

    /// Sets some descriptors against the kernel's table, file by file.
    #[inline(always)]
    pub fn compare(&self, first: u32) {
        for place in 0..COMPARED_AT_ONCE {
            self.compare_one(first + place);
        }
    }

    /// One descriptor: a function of its own, so that the loops around it stay small.
    #[inline(never)]
    fn compare_one(&self, fd: u32) {
        let known = self.known(fd);
        let there = self.files.file(fd);
        if known.file() == there {
            return;
        }
        if there == 0 {
            slot_gone(self.watch, fd, known);
        } else {
            self.opened_now(fd, BORN_FOUND);
        }
    }

    #[inline(always)]
    fn known(&self, fd: u32) -> Holds {
        slots::known(SlotKey { watch: self.watch, fd })
    }
}

/// `file` was taken out of the table at that address: from which of its descriptors is found by asking the table.
#[inline(always)]
pub fn closing(file: u64, files: u64) {
    let Some(watch) = known_watch_at(files) else { return };
    let Some(held) = FILES.get_ptr(file) else { return };
    // SAFETY: the caller has a reference to the file, so its entry stays.
    let mut left = unsafe { (*held).slots };
    if left <= 0 {
        return;
    }
    let table = Table { files: Files::at(files), watch };
    for ordinal in 0..REFERENCES_MAX {
        if left <= 0 {
            break;
        }
        let key = ReferenceKey { file, watch, ordinal };
        let Some(fd) = REFERENCES.get_ptr(key) else { continue };
        left -= 1;
        // SAFETY: a stale number is caught by the question that follows.
        let fd = unsafe { *fd };
        if table.files.file(fd) != file {
            let known = table.known(fd);
            if known.file() == file {
                slot_gone(watch, fd, known);
            }
        }
    }
}

/// Whether [`Table::compare_bits`] had more to mend than it could.
#[inline(always)]
pub fn is_unfinished(watch: u32) -> bool {
    UNFINISHED.get(watch).is_some_and(|left| *left != 0)
}

/// Notes that `fd` holds `file`, or is about to.
#[inline(always)]
pub fn opening(watch: u32, fd: u32, file: u64, born: u64) {
    let key = SlotKey { watch, fd };
    // SAFETY: it has no precondition.
    let now = unsafe { bpf_ktime_get_ns() };
    let slot = Slot { holds: Holds::new(file, born), opened_ns: now };
    let mut put = slots::put(key, slot);
    // Rare, so that it is not looked for first.
    if let Put::Taken(before) = put {
        // Of the same opening there may be two who tell: the call that made it, and another thread's comparing.
        let is_same = before.born() == BORN_FOUND && born != BORN_REPLACED || born == BORN_FOUND;
        if before.file() == file && is_same {
            return;
        }
        slot_gone(watch, fd, before);
        put = slots::put(key, slot);
    }
    match put {
        Put::Done => {}
        // The same opening, noted by another thread's comparing at this moment.
        Put::Taken(_) => return,
        Put::NoRoom => {
            count(watch, COUNT_MISSED);
            return;
        }
    }
    count(watch, COUNT_OPENED);
    flip(watch, fd, true);
    if !releases_are_seen() {
        return;
    }
    for ordinal in 0..REFERENCES_MAX {
        let reference = ReferenceKey { file, watch, ordinal };
        if REFERENCES.insert(reference, fd, NO_EXIST).is_ok() {
            break;
        }
    }
    let held = Held { slots: 1, opened_ns: now, closed_ns: 0, last_fd: fd, watch, owner: 0 };
    if FILES.insert(file, held, NO_EXIST).is_err()
        && let Some(held) = FILES.get_ptr_mut(file)
    {
        // SAFETY: the entry is the file's until __fput, which does not come while it is in a table.
        unsafe {
            add(&raw mut (*held).slots, 1);
            (*held).closed_ns = 0;
        }
    }
}

/// `fd` holds that no longer. Only the first to say so is heard.
#[inline(never)]
fn slot_gone(watch: u32, fd: u32, holds: Holds) {
    let (key, file) = (SlotKey { watch, fd }, holds.file());
    if !slots::remove(key, holds) {
        return;
    }
    count(watch, COUNT_CLOSED);
    flip(watch, fd, false);
    let owner = slots::take_owner(key);
    if owner != 0 {
        count_closed_by(owner);
    }
    if !releases_are_seen() {
        return;
    }
    for ordinal in 0..REFERENCES_MAX {
        let reference = ReferenceKey { file, watch, ordinal };
        if let Some(holder) = REFERENCES.get_ptr(reference) {
            // SAFETY: as in `closing`; a number that is not ours is left alone.
            if unsafe { *holder } == fd {
                let _ = REFERENCES.remove(reference);
                break;
            }
        }
    }
    if let Some(held) = FILES.get_ptr_mut(file) {
        // SAFETY: if the entry were reused meanwhile, its count would be wrong by one; __fput removes it with the
        // file, and the file has not gone while it is being closed.
        unsafe {
            add(&raw mut (*held).slots, -1);
            if (*held).slots > 0 {
                return;
            }
            (*held).last_fd = fd;
            (*held).owner = owner;
            (*held).closed_ns = bpf_ktime_get_ns();
        }
    }
}

/// Whether a program is told of files let go. Where none is, REFERENCES and FILES serve nobody and stay empty, which
/// makes an opening and its closing some hundred nanoseconds cheaper.
#[inline(always)]
fn releases_are_seen() -> bool {
    offset(capturer_ebpf::offset::RELEASES_SEEN) == 1
}

/// A map that is full leaves the owner uncounted; the sum over all owners is in COUNTS.
#[inline(always)]
fn count_closed_by(owner: u64) {
    let mut number = CLOSED_BY.get_ptr_mut(owner);
    if number.is_none() {
        if CLOSED_BY.insert(owner, 1, NO_EXIST).is_ok() {
            return;
        }
        number = CLOSED_BY.get_ptr_mut(owner);
    }
    if let Some(number) = number {
        // SAFETY: aligned; the agent removes an entry only when nothing of the owner's is open.
        unsafe { add(number, 1) };
    }
}

/// Keeps OPEN. Whoever put in or removed the entry of SLOTS flips the bit, so adding is as good as setting, and an
/// addition is what every kernel can do without a lock.
#[inline(always)]
fn flip(watch: u32, fd: u32, set: bool) {
    if fd >= COMPARED_FDS_MAX {
        return;
    }
    if let Some(word) = OPEN.get_ptr_mut(watch * COMPARED_WORDS + fd / 64) {
        let bit = 1_u64 << (fd % 64);
        let change = if set { bit } else { bit.wrapping_neg() };
        // SAFETY: a value of the array lives as long as the array, and is aligned.
        unsafe { add(word, change) };
    }
}

/// `__fput`: nobody holds the file any more.
#[inline(always)]
pub fn file_released(file: u64) {
    let Some(held) = FILES.get_ptr(file) else { return };
    // SAFETY: the entry is the file's until here.
    let watch = unsafe { (*held).watch };
    if FILES.remove(file).is_ok() {
        count(watch, COUNT_RELEASED);
    }
}

/// Adds, with no other processor in between. core's atomic types lack it here: the instruction that answers the old
/// value is newer than Linux 5.10; this one does not.
///
/// # Safety
/// `number` is aligned and may be written.
#[inline(always)]
unsafe fn add<T: Copy>(number: *mut T, change: T) {
    // SAFETY: the caller's.
    unsafe { atomic_xadd::<T, T, { AtomicOrdering::Relaxed }>(number, change) };
}

#[inline(always)]
fn count(watch: u32, what: u32) {
    if let Some(number) = COUNTS.get_ptr_mut(watch * COUNTS_STRIDE + what) {
        // SAFETY: each processor has its own, and a program is not interrupted by another on it, but for one in an
        // interrupt: those open and close nothing.
        unsafe { *number += 1 };
    }
}
