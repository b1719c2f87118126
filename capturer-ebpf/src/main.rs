//! The kernel's side of the witness: programs that keep the maps of lib.rs equal to the descriptor tables of the
//! watched processes.
//!
//! ```text
//! tier         a descriptor is born                 a descriptor goes                     its file goes
//! tracing      fexit fd_install, do_dup2            fentry filp_close, filp_flush         fentry __fput
//! kprobe       kprobe on the same                   the same                              the same
//! tracepoint   sys_exit by the call's number,       sys_exit, or by comparing bits        not seen
//!              io_uring_complete by its result
//! ```
//! No function that releases a descriptor exists under one name from Linux 5.10 to today, and none of them is told the
//! number. But each passes the file to filp_close or (from 6.6) filp_flush after taking it out of the table. So the
//! question asked there is: which of the descriptors known to hold this file do so no longer? dup2, close_range, exec
//! and io_uring need no cases of their own.
//!
//! Programs run on all processors at once and take no lock. Whoever removes an entry from SLOTS (or LOW), which only one can,
//! does what belongs to that removal.
//!
//! There are two objects of these sources: one for every kernel, and one with feature `linux-5-15`, which asks the same
//! with fewer calls (task.rs, slots.rs). The agent loads the second where the kernel takes it.

#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(
    internal_features,
    reason = "the very atomic instructions that a kernel has; see table.rs and slots.rs"
)]

mod slots;
mod table;
mod task;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::{bpf_probe_read_kernel, bpf_probe_read_user};
use aya_ebpf::macros::{fentry, fexit, kprobe, raw_tracepoint};
use aya_ebpf::programs::{FEntryContext, FExitContext, ProbeContext, RawTracePointContext};
use capturer_ebpf::{BORN_INSTALLED, BORN_REPLACED, BORN_RING, BORN_SYSCALL, offset, syscall};
use table::{SYSCALLS, Table};
use task::Task;

/// `fd_install(fd, file)`: afterwards, so that the table can be asked whether it is still so.
#[fexit]
fn fd_install_exit(ctx: FExitContext) -> i32 {
    if let Some(table) = Table::of_current(&Task::current()) {
        table.opened(ctx.arg(0), ctx.arg(1), BORN_INSTALLED);
    }
    0
}

/// `do_dup2(files, file, fd, flags)`; it may refuse.
#[fexit]
fn do_dup2_exit(ctx: FExitContext) -> i32 {
    let result: i32 = ctx.arg(4);
    if result >= 0
        && let Some(table) = Table::at(ctx.arg(0), &Task::current())
    {
        table.opened(ctx.arg(2), ctx.arg(1), BORN_REPLACED);
    }
    0
}

/// `filp_close(file, files)`
#[fentry]
fn filp_close_entry(ctx: FEntryContext) -> i32 {
    closing(ctx.arg(0), ctx.arg(1))
}

/// `filp_flush(file, files)`
#[fentry]
fn filp_flush_entry(ctx: FEntryContext) -> i32 {
    closing(ctx.arg(0), ctx.arg(1))
}

/// `__fput(file)`
#[fentry]
fn fput_entry(ctx: FEntryContext) -> i32 {
    table::file_released(ctx.arg(0));
    0
}

/// As [`fd_install_exit`], but before it: a kprobe at the end is not told the arguments.
#[kprobe]
fn fd_install_probe(ctx: ProbeContext) -> u32 {
    let task = Task::current();
    if let Some(watch) = table::watch_at(task.table(), &task) {
        table::opening(watch, argument(&ctx, 0) as u32, argument(&ctx, 1), BORN_INSTALLED);
    }
    0
}

/// As [`do_dup2_exit`], but before it. It refuses (EBUSY) where another thread is about to use the number; that
/// thread's fd_install then corrects what is noted here.
#[kprobe]
fn do_dup2_probe(ctx: ProbeContext) -> u32 {
    if let Some(watch) = table::watch_at(argument(&ctx, 0), &Task::current()) {
        table::opening(watch, argument(&ctx, 2) as u32, argument(&ctx, 1), BORN_REPLACED);
    }
    0
}

/// `filp_close(file, files)`
#[kprobe]
fn filp_close_probe(ctx: ProbeContext) -> u32 {
    closing(argument(&ctx, 0), argument(&ctx, 1)) as u32
}

/// `filp_flush(file, files)`
#[kprobe]
fn filp_flush_probe(ctx: ProbeContext) -> u32 {
    closing(argument(&ctx, 0), argument(&ctx, 1)) as u32
}

/// `__fput(file)`
#[kprobe]
fn fput_probe(ctx: ProbeContext) -> u32 {
    table::file_released(argument(&ctx, 0));
    0
}

/// Every system call's end, of every process: so the first question is whether it is ours.
#[raw_tracepoint]
fn sys_exit(ctx: RawTracePointContext) -> i32 {
    let task = Task::current();
    let Some(watch) = table::watch_of(task.process()) else { return 0 };
    let registers: u64 = ctx.arg(0);
    let (number, first) = task.call(registers);
    let kind = SYSCALLS.get(number).copied().unwrap_or(0);
    let mut compare = table::is_unfinished(watch);
    // Most calls end here.
    if kind == 0 && !compare {
        return 0;
    }
    let Some(table) = Table::of_current_watched(&task, watch) else { return 0 };
    let result: i64 = ctx.arg(1);
    // Each thing that can be done stands here once: the verifier goes through it once for each time it is written.
    let mut one = None;
    let mut pair_at = 0;
    match kind {
        syscall::MAKES => one = Some(BORN_SYSCALL),
        // dup2(7, 7) does nothing.
        syscall::REPLACES if first != result as u64 => one = Some(BORN_REPLACED),
        syscall::FCNTL => {
            const F_DUPFD: u32 = 0;
            const F_DUPFD_CLOEXEC: u32 = 1030;
            let command = register(registers, offset::SYSCALL_ARGUMENT + 1) as u32;
            if command == F_DUPFD || command == F_DUPFD_CLOEXEC {
                one = Some(BORN_SYSCALL);
            }
        }
        syscall::MAY_MAKE if table.is_new(result as u64) => one = Some(BORN_SYSCALL),
        // It may say EINTR or EIO and has closed all the same; for EBADF there is nothing noted.
        syscall::CLOSES => table.closed_if_gone(first as u32),
        syscall::PAIR_FIRST => pair_at = first,
        syscall::PAIR_FOURTH => pair_at = register(registers, offset::SYSCALL_ARGUMENT + 3),
        syscall::RECEIVES => {
            /// `msghdr.msg_controllen`, on every 64-bit machine; the kernel writes what it used.
            const CONTROL_BYTES: u64 = 40;
            let header = register(registers, offset::SYSCALL_ARGUMENT + 1);
            // SAFETY: an address that can't be read gives an error.
            let bytes = unsafe { bpf_probe_read_user((header + CONTROL_BYTES) as *const u64) };
            compare |= bytes != Ok(0);
        }
        syscall::ANY => compare = true,
        _ => {}
    }
    if result >= 0 {
        if let Some(born) = one {
            table.opened_now(result as u32, born);
        }
        if pair_at != 0 {
            pair(&table, pair_at);
        }
    }
    if compare {
        table.compare_bits();
    }
    0
}

/// Every io_uring operation's end. What it was is not said: a result may be a descriptor or a count of bytes, so the
/// table is asked whether a descriptor of that number is new.
#[raw_tracepoint]
fn io_uring_complete(ctx: RawTracePointContext) -> i32 {
    let Some(table) = Table::of_current(&Task::current()) else { return 0 };
    let arguments = ctx.as_ptr() as u64;
    let argument = read(arguments + 8 * table::offset(offset::RING_RESULT));
    let result = if table::offset(offset::RING_RESULT_IN_ENTRY) == 1 {
        /// `io_uring_cqe.res`, part of the interface to programs.
        const RESULT: u64 = 8;
        read(argument + RESULT) as i32
    } else {
        argument as i32
    };
    if result >= 0 && table.is_new(result as u64) {
        table.opened_now(result as u32, BORN_RING);
    }
    if result == 0 {
        // A close says 0, and so do many others; looking costs a word for each 64 descriptors.
        table.compare_bits();
    }
    0
}

/// Not attached to anything: the agent runs it, to have the maps set against the kernel's table. Arguments: whose, and
/// the first of `COMPARED_AT_ONCE` descriptors.
#[raw_tracepoint]
fn compare(ctx: RawTracePointContext) -> i32 {
    // A table that was never seen is the caller's own, if that is watched.
    let _ = Table::of_current(&Task::current());
    if let Some(table) = Table::of_watch(ctx.arg::<u64>(0) as u32) {
        table.compare(ctx.arg::<u64>(1) as u32);
    }
    0
}

fn closing(file: u64, files: u64) -> i32 {
    table::closing(file, files);
    0
}

fn pair(table: &Table, address: u64) {
    // SAFETY: an address that can't be read gives an error.
    if let Ok([one, other]) = unsafe { bpf_probe_read_user(address as *const [u32; 2]) } {
        table.opened_now(one, BORN_SYSCALL);
        table.opened_now(other, BORN_SYSCALL);
    }
}

fn argument(ctx: &ProbeContext, index: usize) -> u64 {
    register(ctx.as_ptr() as u64, offset::ARGUMENT + index)
}

fn register(registers: u64, which: usize) -> u64 {
    read(registers + table::offset(which))
}

/// 8 bytes of kernel memory; 0 if they can't be read.
#[inline(always)]
fn read(address: u64) -> u64 {
    // SAFETY: an address that can't be read gives an error.
    unsafe { bpf_probe_read_kernel(address as *const u64) }.unwrap_or(0)
}

/// The kernel asks for it: the helpers that read its memory are for the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
