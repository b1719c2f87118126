//! What the kernel programs and the agent both know: the keys and values of the maps between them.
//!
//! Everything that must not be lost is in maps, nothing in events: a reader that comes late finds the same numbers.
//!
//! ```text
//! WATCHED   0                 → Watched      the agent is watch 0, a daemon it looks at is another
//! TABLES    table's address   → watch        threads, and io_uring's workers, share their process's table
//! TABLE_OF  watch             → table's address, once it was seen
//! SLOTS     watch, fd         → Slot         every open descriptor
//! LOW       watch, fd         → Slot         those of low numbers, where atomic instructions can keep it (LOW_FDS)
//! OPEN      watch, fd / 64    → bits         the same, to be compared with the kernel's own bits
//! UNFINISHED watch            → bits         what one comparison could not mend
//! REFERENCES file, n          → fd           which descriptors hold a file: dup gives one file several
//! FILES     file's address    → Held         every struct file, from its first descriptor until it is let go, where
//!                                            that is seen
//! OWNERS    watch, fd         → owner        as the agent claims it; LOW_OWNERS beside LOW
//! CLOSED_BY owner             → number       descriptors of its that went, never reset
//! COUNTS    watch, what       → number       by CPU, never reset
//! SYSCALLS  number            → kind         tier `tracepoint` only; 0 = of no interest
//! ```
//! Not here: how the maps are read (capturer/src/witness/probe/load.rs) and filled (main.rs).

#![no_std]

/// How many processes can be watched at once.
pub const WATCHES_MAX: u32 = 8;
/// Descriptors followed of all watched processes together. The maps take their memory at once, some 350 bytes for
/// each: on kernels of before 6.1 programs like these must not allocate.
pub const SLOTS_MAX: u32 = 16_384;
/// Descriptors of each watched process below this are in arrays (LOW, LOW_OWNERS: 192 KiB for all), if the object was
/// built for kernels whose programs can compare and exchange. The other maps then have room for fewer by as many.
pub const LOW_FDS: u32 = COMPARED_FDS_MAX;
/// Descriptors of one table up to which events that do not name a descriptor are followed, by comparing bits.
pub const COMPARED_FDS_MAX: u32 = 1024;
/// Descriptors that one run of program `compare` looks at: the verifier goes through it for each.
pub const COMPARED_AT_ONCE: u32 = 16;
/// Words of 64 such bits.
pub const COMPARED_WORDS: u32 = COMPARED_FDS_MAX / 64;
/// Owners whose closings are counted apart; the agent removes those it has done with.
pub const OWNERS_MAX: u32 = 8_192;
/// Past the highest number of a system call that matters, on every machine.
pub const SYSCALLS_MAX: u32 = 512;
/// Descriptors of one file that are found again when it is closed. More (by dup) are found by comparing bits only.
pub const REFERENCES_MAX: u32 = 8;

/// A descriptor of a watched process.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotKey {
    /// Whose.
    pub watch: u32,
    /// Its number.
    pub fd: u32,
}

/// Whose descriptors are followed: in the place of each watch, `process id << 32 | watch`; 0 = free.
pub type Watched = [u64; WATCHES_MAX as usize];

/// An open descriptor.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Which file, and how that was seen: so both come and go in one step.
    pub holds: Holds,
    /// CLOCK_MONOTONIC, nanoseconds. With the number it names this opening and no other.
    pub opened_ns: u64,
}

/// The address of a `struct file`, which is a multiple of 8, with one of the `BORN_` numbers in the bits that are free
/// in it. 0 = nothing.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holds(pub u64);

impl Holds {
    /// Nothing.
    pub const NOTHING: Holds = Holds(0);
    const BORN: u64 = 7;

    /// That file, which is not 0, seen in that way. Added, as the verifier allows no other arithmetic on what it knows to
    /// be a pointer.
    #[inline(always)]
    pub fn new(file: u64, born: u64) -> Holds {
        Holds(file + born)
    }

    /// The address of the file; 0 = none.
    #[inline(always)]
    pub fn file(self) -> u64 {
        self.0 & !Self::BORN
    }

    /// How it was seen to begin.
    #[inline(always)]
    pub fn born(self) -> u64 {
        self.0 & Self::BORN
    }
}

/// Found open by comparing with the kernel's table.
pub const BORN_FOUND: u64 = 0;
/// By the function that puts a file into a table.
pub const BORN_INSTALLED: u64 = 1;
/// By dup2 or dup3.
pub const BORN_REPLACED: u64 = 2;
/// By a system call's result.
pub const BORN_SYSCALL: u64 = 3;
/// By an io_uring completion's result.
pub const BORN_RING: u64 = 4;

/// One of the descriptors that hold a file.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReferenceKey {
    /// The address of the `struct file`.
    pub file: u64,
    /// Whose descriptor.
    pub watch: u32,
    /// Below [`REFERENCES_MAX`].
    pub ordinal: u32,
}

/// A `struct file` that a watched process has or had in its table, and that the kernel did not let go yet.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Descriptors that hold it. At zero it should go; an operation still under way, or a mapping, keeps it.
    pub slots: i64,
    /// When its first descriptor was seen.
    pub opened_ns: u64,
    /// When its last descriptor went; 0 before.
    pub closed_ns: u64,
    /// The last descriptor that went.
    pub last_fd: u32,
    /// Whose.
    pub watch: u32,
    /// Who had claimed that descriptor; 0 = nobody.
    pub owner: u64,
}

/// Indexes into COUNTS, from `watch * COUNTS_STRIDE`.
pub const COUNT_OPENED: u32 = 0;
/// Descriptors released.
pub const COUNT_CLOSED: u32 = 1;
/// Files released, those whose descriptors were seen.
pub const COUNT_RELEASED: u32 = 2;
/// Openings that found a map full and are not followed.
pub const COUNT_MISSED: u32 = 3;
/// Distance between two watches' counts.
pub const COUNTS_STRIDE: u32 = 4;

/// Indexes into the constant OFFSETS, which the agent fills from the running kernel's BTF before loading.
pub mod offset {
    /// `task_struct.files`
    pub const TASK_FILES: usize = 0;
    /// `files_struct.fdt`
    pub const FILES_FDT: usize = 1;
    /// `fdtable.max_fds`; 8 bytes after it `fd`, 24 after it `open_fds`.
    pub const FDT_MAX_FDS: usize = 2;
    /// `task_struct.tgid`
    pub const TASK_PROCESS: usize = 3;
    /// `fdtable.fd`
    pub const FDT_FD: usize = 4;
    /// `fdtable.open_fds`
    pub const FDT_OPEN_FDS: usize = 5;
    /// Four function arguments in `pt_regs`, in order.
    pub const ARGUMENT: usize = 6;
    /// Four system call arguments in `pt_regs` as they are at its exit, in order. 8 bytes after the first the call's
    /// number.
    pub const SYSCALL_ARGUMENT: usize = 10;
    /// Which argument of tracepoint io_uring_complete is the result, or the entry it stands in.
    pub const RING_RESULT: usize = 14;
    /// 1 = that argument is the address of a completion queue entry (Linux 6.15 and later).
    pub const RING_RESULT_IN_ENTRY: usize = 15;
    /// 1 = a program is told of files let go (`__fput`). Else FILES and REFERENCES stay empty.
    pub const RELEASES_SEEN: usize = 16;
    /// How many there are.
    pub const COUNT: usize = 17;
}

/// What a system call does to the table: the values of SYSCALLS.
pub mod syscall {
    /// Its result is a new descriptor.
    pub const MAKES: u32 = 1;
    /// dup2, dup3: its result is a descriptor that may have replaced another.
    pub const REPLACES: u32 = 2;
    /// fcntl: its result is a new descriptor for some commands.
    pub const FCNTL: u32 = 3;
    /// close: its first argument is gone.
    pub const CLOSES: u32 = 4;
    /// pipe: two new descriptors where its first argument points.
    pub const PAIR_FIRST: u32 = 5;
    /// socketpair: two new descriptors where its fourth argument points.
    pub const PAIR_FOURTH: u32 = 6;
    /// recvmsg: any number of descriptors, if there was room for control data.
    pub const RECEIVES: u32 = 7;
    /// close_range, recvmmsg: any number come or go.
    pub const ANY: u32 = 8;
    /// ioctl, bpf: its result may be a new descriptor.
    pub const MAY_MAKE: u32 = 9;
}

#[cfg(feature = "user")]
mod user {
    use super::{Held, ReferenceKey, Slot, SlotKey};

    // SAFETY: `repr(C)`, of integers alone, and without padding: every pattern of bytes is a value of it.
    unsafe impl aya::Pod for SlotKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Slot {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ReferenceKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Held {}
}
