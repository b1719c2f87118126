//! Notes where this process's threads are, many times per second of processor time: for profiles (witness/profile/).
//!
//! The kernel's timer sends SIGPROF to the thread that used the time. The handler notes the thread's registers and
//! copies the top of its stack into a free slot, nothing else; another thread later finds out what is on the stack. So
//! the handler takes no lock, allocates nothing and unwinds nothing, whatever it interrupted. The kernel makes the copy
//! (process_vm_readv) and stops where the stack ends.
//!
//! The handler stays installed for good: a last signal may be under way when the timer stops, and without a handler it
//! would end the process. System calls that it interrupts are resumed (SA_RESTART); those that never are (poll, epoll,
//! io_uring_enter) are repeated by their callers anyway.

#![allow(unsafe_code)] // sigaction, setitimer, the handler, and a mapped file: no crate has safe calls for them.

use std::cell::UnsafeCell;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicUsize, Ordering};

/// Bytes of a stack that are copied. Deeper stacks are cut off.
const STACK_BYTES: usize = 64 * 1024;
/// Samples that wait for [`Sampling::look`]: 20 ms of samples at 99 Hz on each of 32 processors.
const SLOTS: usize = 64;

const FREE: u8 = 0;
const TAKEN: u8 = 1;
const FULL: u8 = 2;

/// Where the handler puts its samples; null = none are wanted.
static CURRENT: AtomicPtr<Slots> = AtomicPtr::new(ptr::null_mut());
/// Handlers running that may hold what [`CURRENT`] pointed to.
static INSIDE: AtomicUsize = AtomicUsize::new(0);

/// A thread at one moment.
pub struct Sample {
    /// Its number in the kernel (tid).
    pub thread: i32,
    /// Instruction, stack and frame pointer, and the link register where there is one.
    pub registers: [u64; 4],
    stack: [u8; STACK_BYTES],
    stack_len: usize,
}

impl Sample {
    /// The eight bytes of its stack at an address.
    pub fn word(&self, address: u64) -> Option<u64> {
        let from = usize::try_from(address.checked_sub(self.registers[1])?).ok()?;
        let bytes = self.stack[..self.stack_len].get(from..from.checked_add(8)?)?;
        Some(u64::from_ne_bytes(bytes.try_into().ok()?))
    }
}

struct Slot {
    /// Who may touch the sample: nobody, the handler that is taking it, or [`Sampling::look`].
    state: AtomicU8,
    sample: UnsafeCell<Sample>,
}

struct Slots {
    slots: Box<[Slot]>,
    next: AtomicUsize,
    missed: AtomicUsize,
}

/// Takes samples until it is dropped. Only one exists at a time: [`crate::telemetry::profile::Turn`] sees to that.
pub struct Sampling {
    slots: NonNull<Slots>,
}

// SAFETY: what it points to is shared by atomics alone, and only its owner frees it.
unsafe impl Send for Sampling {}

impl Sampling {
    /// Begins to take samples.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn start(hertz: u32) -> io::Result<Sampling> {
        // Tried here, because the handler could not report a failure.
        let here = 0_u64;
        if copy_own(ptr::from_ref(&here) as u64, &mut [0; 8]) != 8 {
            return Err(io::Error::last_os_error());
        }
        let empty = || Slot {
            state: AtomicU8::new(FREE),
            // SAFETY: a sample is numbers only, for which zeros are values.
            sample: UnsafeCell::new(unsafe { MaybeUninit::zeroed().assume_init() }),
        };
        let slots = Slots {
            slots: (0..SLOTS).map(|_| empty()).collect(),
            next: AtomicUsize::new(0),
            missed: AtomicUsize::new(0),
        };
        let slots = NonNull::from(Box::leak(Box::new(slots)));
        CURRENT.store(slots.as_ptr(), Ordering::SeqCst);
        let sampling = Sampling { slots };
        // SAFETY: the handler calls what signal-safety(7) allows, and keeps errno.
        unsafe {
            let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
            action.sa_sigaction = on_tick as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
            if libc::sigaction(libc::SIGPROF, &action, ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        set_timer(1_000_000 / libc::suseconds_t::from(hertz.max(1)))?;
        Ok(sampling)
    }

    /// Passes on the samples taken since the last look.
    pub fn look(&mut self, mut see: impl FnMut(&Sample)) {
        // SAFETY: freed by `drop` only.
        let slots = unsafe { self.slots.as_ref() };
        for slot in slots.slots.iter().filter(|slot| slot.state.load(Ordering::Acquire) == FULL) {
            // SAFETY: no handler touches a full slot, and there is one owner of `self`.
            see(unsafe { &*slot.sample.get() });
            slot.state.store(FREE, Ordering::Release);
        }
    }

    /// Stops sampling; returns how many samples found no free slot. Samples that are left can still be looked at.
    pub fn end(&mut self) -> u64 {
        let _ = set_timer(0);
        CURRENT.store(ptr::null_mut(), Ordering::SeqCst);
        // A handler takes a few microseconds.
        while INSIDE.load(Ordering::SeqCst) != 0 {
            std::thread::yield_now();
        }
        // SAFETY: freed by `drop` only.
        unsafe { self.slots.as_ref() }.missed.load(Ordering::Relaxed) as u64
    }
}

impl Drop for Sampling {
    fn drop(&mut self) {
        self.end();
        // SAFETY: it was leaked by `start`, and after `end` no handler has it or gets it.
        drop(unsafe { Box::from_raw(self.slots.as_ptr()) });
    }
}

/// 0 = stop the timer.
fn set_timer(microseconds: libc::suseconds_t) -> io::Result<()> {
    let time = libc::timeval { tv_sec: 0, tv_usec: microseconds };
    let timer = libc::itimerval { it_interval: time, it_value: time };
    // SAFETY: the kernel reads the timer, and writes nothing.
    match unsafe { libc::setitimer(libc::ITIMER_PROF, &timer, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

extern "C" fn on_tick(_signal: libc::c_int, _info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the thread's own errno, which what was interrupted may be about to read.
    let errno = unsafe { *libc::__errno_location() };
    INSIDE.fetch_add(1, Ordering::SeqCst);
    // SAFETY: whoever frees it makes it null first, and then waits until nobody is inside.
    if let Some(slots) = unsafe { CURRENT.load(Ordering::SeqCst).as_ref() } {
        // SAFETY: the kernel hands a handler with SA_SIGINFO the registers of what it interrupted.
        note(slots, registers(unsafe { &*context.cast::<libc::ucontext_t>() }));
    }
    INSIDE.fetch_sub(1, Ordering::SeqCst);
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

fn note(slots: &Slots, registers: [u64; 4]) {
    let count = slots.slots.len();
    let first = slots.next.fetch_add(1, Ordering::Relaxed);
    let take =
        |slot: &&Slot| slot.state.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_ok();
    let Some(slot) = (0..count).map(|more| &slots.slots[first.wrapping_add(more) % count]).find(take) else {
        slots.missed.fetch_add(1, Ordering::Relaxed);
        return;
    };
    // SAFETY: the slot is this handler's until it is full.
    let sample = unsafe { &mut *slot.sample.get() };
    // SAFETY: a system call without arguments.
    sample.thread = unsafe { libc::gettid() };
    sample.registers = registers;
    sample.stack_len = copy_own(registers[1], &mut sample.stack);
    slot.state.store(FULL, Ordering::Release);
}

#[cfg(target_arch = "x86_64")]
fn registers(context: &libc::ucontext_t) -> [u64; 4] {
    let of = |register: libc::c_int| context.uc_mcontext.gregs[register as usize] as u64;
    [of(libc::REG_RIP), of(libc::REG_RSP), of(libc::REG_RBP), 0]
}

#[cfg(target_arch = "aarch64")]
fn registers(context: &libc::ucontext_t) -> [u64; 4] {
    let machine = &context.uc_mcontext;
    [machine.pc, machine.sp, machine.regs[29], machine.regs[30]]
}

/// Copies this process's own memory as far as it is mapped; 0 = nothing at `address` is.
pub(in crate::witness) fn copy_own(address: u64, to: &mut [u8]) -> usize {
    let local = libc::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: to.len() };
    let remote = libc::iovec { iov_base: address as usize as *mut libc::c_void, iov_len: to.len() };
    // SAFETY: the kernel writes to `to` only, and reads what may be read. No value of Rust is looked at by it.
    let copied = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
    usize::try_from(copied).unwrap_or(0)
}

/// A mapped file: only the pages that are read take memory.
pub struct Mapped {
    start: NonNull<u8>,
    len: usize,
}

impl Mapped {
    /// Maps a whole file. Meant for programs and libraries that run: the kernel lets nobody write to those.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn new(file: &File) -> io::Result<Mapped> {
        let len = usize::try_from(file.metadata()?.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let (protection, flags) = (rustix::mm::ProtFlags::READ, rustix::mm::MapFlags::PRIVATE);
        // SAFETY: a new mapping, where nothing else is.
        let start = unsafe { rustix::mm::mmap(ptr::null_mut(), len, protection, flags, file, 0)? };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Mapped { start, len })
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: mapped until `drop`, and its bytes stay as they are.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nobody borrows it any more.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

// SAFETY: bytes that nobody changes.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_copied_as_far_as_it_is_there() {
        let there = [7_u8; 100];
        let mut to = [0; 100];
        assert_eq!(copy_own(there.as_ptr() as u64, &mut to), 100);
        assert_eq!(to, there);
        assert_eq!(copy_own(8, &mut to), 0, "nothing is there");
    }
}
