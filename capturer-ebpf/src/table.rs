//! One descriptor table, as the kernel has it and as the maps have it.
//!
//! The kernel's is read from its memory at offsets that the agent took from BTF. The maps' is changed by [`Table`]'s
//! functions alone.

use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_ktime_get_ns};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_probe_read_kernel};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use capturer_ebpf::{
    BORN_FOUND, BORN_REPLACED, COMPARED_FDS_MAX, COMPARED_WORDS, COUNT_CLOSED, COUNT_MISSED, COUNT_OPENED,
    COUNT_RELEASED, COUNTS_STRIDE, Held, OWNERS_MAX, REFERENCES_MAX, ReferenceKey, SLOTS_MAX, SYSCALLS_MAX,
    Slot, SlotKey, WATCHES_MAX,
};
use core::intrinsics::{AtomicOrdering, atomic_xadd};

use crate::read;

#[map]
pub static WATCHED: HashMap<u32, u32> = HashMap::with_max_entries(WATCHES_MAX, 0);
#[map]
static TABLES: HashMap<u64, u32> = HashMap::with_max_entries(2 * WATCHES_MAX, 0);
#[map]
static TABLE_OF: Array<u64> = Array::with_max_entries(WATCHES_MAX, 0);
#[map]
static SLOTS: HashMap<SlotKey, Slot> = HashMap::with_max_entries(SLOTS_MAX, 0);
#[map]
static OPEN: Array<u64> = Array::with_max_entries(WATCHES_MAX * COMPARED_WORDS, 0);
#[map]
static UNFINISHED: Array<u64> = Array::with_max_entries(WATCHES_MAX, 0);
#[map]
static REFERENCES: HashMap<ReferenceKey, u32> = HashMap::with_max_entries(SLOTS_MAX, 0);
#[map]
static FILES: HashMap<u64, Held> = HashMap::with_max_entries(SLOTS_MAX, 0);
#[map]
static OWNERS: HashMap<SlotKey, u64> = HashMap::with_max_entries(SLOTS_MAX, 0);
#[map]
static CLOSED_BY: HashMap<u64, u64> = HashMap::with_max_entries(OWNERS_MAX, 0);
#[map]
static COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(WATCHES_MAX * COUNTS_STRIDE, 0);
#[map]
pub static SYSCALLS: Array<u32> = Array::with_max_entries(SYSCALLS_MAX, 0);

const EEXIST: i32 = -17;
/// Update only what is not there.
const NO_EXIST: u64 = 1;

/// See `capturer_ebpf::offset`. Filled by the agent before loading, so that to the kernel it is constant.
#[unsafe(no_mangle)]
static OFFSETS: [u32; capturer_ebpf::offset::COUNT] = [0; capturer_ebpf::offset::COUNT];

#[inline(always)]
pub fn offset(which: usize) -> u64 {
    // SAFETY: in bounds, as every caller passes a constant of `capturer_ebpf::offset`. Volatile, or the compiler would
    // take the zeros above for the truth.
    u64::from(unsafe { core::ptr::read_volatile(OFFSETS.as_ptr().add(which)) })
}

/// The descriptor table of a watched process.
pub struct Table {
    files: u64,
    watch: u32,
}

impl Table {
    /// That of the running thread. io_uring's worker has the table of the process it works for.
    #[inline(always)]
    pub fn of_current() -> Option<Table> {
        // SAFETY: it has no precondition.
        let task = unsafe { bpf_get_current_task() };
        Self::at(read(task + offset(capturer_ebpf::offset::TASK_FILES)))
    }

    /// That of the running thread, whose process is known to be watched: quicker, as it is one already seen.
    #[inline(always)]
    pub fn of_current_watched(watch: u32) -> Option<Table> {
        // SAFETY: it has no precondition.
        let task = unsafe { bpf_get_current_task() };
        let files = read(task + offset(capturer_ebpf::offset::TASK_FILES));
        if files != 0 && TABLE_OF.get(watch) == Some(&files) {
            return Some(Table { files, watch });
        }
        Self::at(files)
    }

    /// The one at that address, also if it was not seen before and the running process is watched.
    #[inline(always)]
    pub fn at(files: u64) -> Option<Table> {
        if let Some(table) = Self::known_at(files) {
            return Some(table);
        }
        let process = (bpf_get_current_pid_tgid() >> 32) as u32;
        // SAFETY: an entry is a number that is never changed.
        let watch = *unsafe { WATCHED.get(process) }?;
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
        Some(Table { files, watch })
    }

    #[inline(always)]
    pub fn known_at(files: u64) -> Option<Table> {
        // SAFETY: an entry is a number that is never changed.
        let watch = *unsafe { TABLES.get(files) }?;
        Some(Table { files, watch })
    }

    #[inline(always)]
    pub fn of_watch(watch: u32) -> Option<Table> {
        let files = *TABLE_OF.get(watch)?;
        (files != 0).then_some(Table { files, watch })
    }

    /// `fd` now holds `file`; said after it was put there.
    #[inline(always)]
    pub fn opened(&self, fd: u32, file: u64, born: u64) {
        self.opening(fd, file, born);
        // Closed by another thread since? Then its filp_close may have come before our entry.
        if self.file_of(fd) != file {
            slot_gone(self.watch, fd, file);
        }
    }

    /// `fd` is about to hold `file`.
    #[inline(always)]
    pub fn opening(&self, fd: u32, file: u64, born: u64) {
        slot_opened(self.watch, fd, file, born);
    }

    /// `fd` was just made by a system call that has ended: the table says which file.
    #[inline(always)]
    pub fn opened_now(&self, fd: u32, born: u64) {
        note_opened_now(self.files, self.watch, fd, born);
    }

    /// `number` may be a descriptor: whether the table has a file there, and another than is known.
    #[inline(always)]
    pub fn is_new(&self, number: u64) -> bool {
        if number >= u64::from(u32::MAX) {
            return false;
        }
        let file = self.file_of(number as u32);
        file != 0 && self.known_file(number as u32) != file
    }

    /// `fd` may have been closed; if the table still has its file there, it was not, or is open again.
    #[inline(always)]
    pub fn closed_if_gone(&self, fd: u32) {
        let known = self.known_file(fd);
        if known != 0 && self.file_of(fd) != known {
            slot_gone(self.watch, fd, known);
        }
    }

    /// `file` was taken out of this table: from which of its descriptors is found by asking the table.
    #[inline(always)]
    pub fn closing(&self, file: u64) {
        let Some(held) = FILES.get_ptr(file) else { return };
        // SAFETY: the caller has a reference to the file, so its entry stays.
        let mut left = unsafe { (*held).slots };
        for ordinal in 0..REFERENCES_MAX {
            if left <= 0 {
                break;
            }
            let key = ReferenceKey { file, watch: self.watch, ordinal };
            let Some(fd) = REFERENCES.get_ptr(key) else { continue };
            left -= 1;
            // SAFETY: a stale number is caught by the question that follows.
            let fd = unsafe { *fd };
            if self.file_of(fd) != file {
                slot_gone(self.watch, fd, file);
            }
        }
    }

    /// Sets what is known against the kernel's bits, for events that do not say what changed. Of each 64 descriptors
    /// it mends one, as the verifier goes through every turn of the loop; if more are wrong, the process's next event
    /// goes on.
    #[inline(always)]
    pub fn compare_bits(&self) {
        let descriptors = read(self.files + offset(capturer_ebpf::offset::FILES_FDT));
        let fds_max = read(descriptors + offset(capturer_ebpf::offset::FDT_MAX_FDS)) as u32;
        let open = read(descriptors + offset(capturer_ebpf::offset::FDT_OPEN_FDS));
        let mut left = 0;
        for word in 0..COMPARED_WORDS {
            if word * 64 >= fds_max {
                break;
            }
            let there = read(open + 8 * u64::from(word));
            let Some(known) = OPEN.get(self.watch * COMPARED_WORDS + word) else { break };
            let wrong = there ^ *known;
            if wrong != 0 {
                // The lowest bit's place, without a branch.
                let bit = (wrong & wrong.wrapping_neg()).wrapping_sub(1).count_ones();
                compare_one(self.files, self.watch, word * 64 + bit);
                left |= wrong & (wrong - 1);
            }
        }
        if let Some(unfinished) = UNFINISHED.get_ptr_mut(self.watch) {
            // SAFETY: a value of the array lives as long as the array.
            unsafe { *unfinished = left };
        }
    }

    /// Sets 64 descriptors against the kernel's table, file by file.
    #[inline(always)]
    pub fn compare_word(&self, word: u32) {
        for bit in 0..64 {
            compare_one(self.files, self.watch, word * 64 + bit);
        }
    }

    /// The file in that place of the kernel's table; 0 = none.
    #[inline(always)]
    fn file_of(&self, fd: u32) -> u64 {
        let descriptors = read(self.files + offset(capturer_ebpf::offset::FILES_FDT));
        let start = (descriptors + offset(capturer_ebpf::offset::FDT_MAX_FDS)) as *const [u64; 2];
        // SAFETY: an address that can't be read gives an error. The agent has made sure that the array's address
        // follows its length.
        let [fds_max, files] = unsafe { bpf_probe_read_kernel(start) }.unwrap_or([0, 0]);
        if fd >= fds_max as u32 {
            return 0;
        }
        read(files + 8 * u64::from(fd))
    }

    #[inline(always)]
    fn known_file(&self, fd: u32) -> u64 {
        let key = SlotKey { watch: self.watch, fd };
        // SAFETY: a value read while the entry is reused is another's; callers set it against the kernel's table.
        SLOTS.get_ptr(key).map_or(0, |slot| unsafe { (*slot).file })
    }
}

/// Whether [`Table::compare_bits`] had more to mend than it could.
#[inline(always)]
pub fn is_unfinished(watch: u32) -> bool {
    UNFINISHED.get(watch).is_some_and(|left| *left != 0)
}

/// Notes that `fd` holds `file`.
#[inline(never)]
fn slot_opened(watch: u32, fd: u32, file: u64, born: u64) {
    let key = SlotKey { watch, fd };
    if let Some(before) = SLOTS.get_ptr(key) {
        // SAFETY: the entry may be reused for another meanwhile; then the removal in `slot_gone` finds that.
        let (file_before, born_before) = unsafe { ((*before).file, (*before).born) };
        // Another thread's comparing found this opening before the call that made it has ended.
        if file_before == file && born_before == BORN_FOUND && born != BORN_REPLACED {
            return;
        }
        slot_gone(watch, fd, file_before);
    }
    // SAFETY: it has no precondition.
    let now = unsafe { bpf_ktime_get_ns() };
    let slot = Slot { file, opened_ns: now, born };
    match SLOTS.insert(key, slot, NO_EXIST) {
        Ok(()) => {}
        // The same opening, noted by another thread's comparing at this moment.
        Err(EEXIST) => return,
        Err(_) => {
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

/// See [`Table::opened_now`].
#[inline(never)]
fn note_opened_now(files: u64, watch: u32, fd: u32, born: u64) {
    let table = Table { files, watch };
    let file = table.file_of(fd);
    if file != 0 {
        table.opened(fd, file, born);
    }
}

/// `fd` holds `file` no longer. Only the first to say so is heard.
#[inline(never)]
fn slot_gone(watch: u32, fd: u32, file: u64) {
    let key = SlotKey { watch, fd };
    if SLOTS.remove(key).is_err() {
        return;
    }
    count(watch, COUNT_CLOSED);
    flip(watch, fd, false);
    let mut owner = 0;
    if let Some(claimed) = OWNERS.get_ptr(key) {
        // SAFETY: written by the agent once for this opening.
        owner = unsafe { *claimed };
        let _ = OWNERS.remove(key);
        count_closed_by(owner);
    }
    if !releases_are_seen() {
        return;
    }
    for ordinal in 0..REFERENCES_MAX {
        let reference = ReferenceKey { file, watch, ordinal };
        if let Some(holder) = REFERENCES.get_ptr(reference) {
            // SAFETY: as in `Table::closing`; a number that is not ours is left alone.
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
    if CLOSED_BY.insert(owner, 1, NO_EXIST).is_err()
        && let Some(number) = CLOSED_BY.get_ptr_mut(owner)
    {
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

/// One descriptor of [`Table::compare`]: a function of its own, so that the loop around it stays small.
#[inline(never)]
fn compare_one(files: u64, watch: u32, fd: u32) {
    let table = Table { files, watch };
    let known = table.known_file(fd);
    let there = table.file_of(fd);
    if known == there {
        return;
    }
    if known != 0 {
        slot_gone(watch, fd, known);
    }
    if there != 0 {
        table.opened(fd, there, BORN_FOUND);
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
