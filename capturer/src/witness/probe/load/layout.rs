//! What the programs must know of the running kernel: which functions it has, and where its structures keep what the
//! programs read.

use std::cell::OnceCell;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use aya::Btf;
use capturer_ebpf::offset;

use super::super::Tier;
use super::super::btf::KernelTypes;

/// The kernel functions by which descriptors and files come and go, each with its program.
const FUNCTIONS: [Function; 5] = [
    Function { name: "fd_install", arguments: &["fd", "file"], program: "fd_install", at_exit: true },
    Function {
        name: "do_dup2",
        arguments: &["files", "file", "fd", "flags"],
        program: "do_dup2",
        at_exit: true,
    },
    Function { name: "filp_close", arguments: &["filp", "id"], program: "filp_close", at_exit: false },
    Function { name: FLUSH, arguments: &["filp", "id"], program: "filp_flush", at_exit: false },
    Function { name: "__fput", arguments: &["file"], program: "fput", at_exit: false },
];

/// close(2) calls it since 6.6; older kernels don't have it.
const FLUSH: &str = "filp_flush";

pub(super) struct Function {
    pub(super) name: &'static str,
    /// A function of the same name with other arguments would be misread.
    pub(super) arguments: &'static [&'static str],
    pub(super) program: &'static str,
    pub(super) at_exit: bool,
}

/// The function by which BTF knows the tracepoint, whose arguments changed in 5.20 and 6.15.
const RING_COMPLETE: &str = "__traceiter_io_uring_complete";

/// What every tier needs to know of the running kernel.
pub(in crate::witness::probe) fn kernel_types(btf: &Path) -> Result<Types> {
    let mut functions: Vec<&str> = FUNCTIONS.iter().map(|function| function.name).collect();
    functions.push(RING_COMPLETE);
    Ok(Types { facts: KernelTypes::read(btf, &functions)?, whole: OnceCell::new() })
}

/// What is known of the kernel's types while tiers are tried.
pub(in crate::witness::probe) struct Types {
    pub(super) facts: KernelTypes,
    /// In the form aya needs for attaching: 13 MiB, so read only when a tier needs it, and once.
    whole: OnceCell<Btf>,
}

impl Types {
    /// Drops what another tier does not need.
    pub(in crate::witness::probe) fn trim(&mut self) {
        self.whole.take();
    }

    pub(super) fn for_attaching(&self) -> Result<&Btf> {
        if let Some(btf) = self.whole.get() {
            return Ok(btf);
        }
        let btf = Btf::from_sys_fs().context("reading the kernel's BTF")?;
        Ok(self.whole.get_or_init(|| btf))
    }
}

/// The functions of [`FUNCTIONS`] that this kernel has. One may be missing: before 6.6, filp_close does everything.
pub(super) fn present(types: &KernelTypes) -> Result<Vec<&'static Function>> {
    let mut present = Vec::new();
    for function in &FUNCTIONS {
        match types.arguments(function.name) {
            Some(arguments) if arguments == function.arguments => present.push(function),
            Some(arguments) => bail!("{} has other arguments here: {arguments:?}", function.name),
            None if function.name == FLUSH => {}
            None => bail!("this kernel has no function {} to attach to", function.name),
        }
    }
    Ok(present)
}

pub(super) fn offsets(tier: Tier, types: &KernelTypes) -> Result<[u32; offset::COUNT]> {
    let mut offsets = [0; offset::COUNT];
    offsets[offset::TASK_FILES] = types.member("task_struct", "files")?;
    offsets[offset::FILES_FDT] = types.member("files_struct", "fdt")?;
    offsets[offset::FDT_MAX_FDS] = types.member("fdtable", "max_fds")?;
    offsets[offset::TASK_PROCESS] = types.member("task_struct", "tgid")?;
    offsets[offset::FDT_FD] = types.member("fdtable", "fd")?;
    offsets[offset::FDT_OPEN_FDS] = types.member("fdtable", "open_fds")?;
    let [length, array, open] =
        [offset::FDT_MAX_FDS, offset::FDT_FD, offset::FDT_OPEN_FDS].map(|member| offsets[member]);
    ensure!(
        (array, open) == (length + 8, length + 24),
        "struct fdtable is laid out otherwise here: max_fds at {length}, fd at {array}, open_fds at {open}"
    );
    offsets[offset::ARGUMENT..][..4].copy_from_slice(&ARGUMENTS);
    offsets[offset::SYSCALL_ARGUMENT..][..4].copy_from_slice(&SYSCALL_ARGUMENTS);
    offsets[offset::RELEASES_SEEN] = u32::from(tier.sees_releases());
    if tier == Tier::Tracepoint {
        let arguments = types.arguments(RING_COMPLETE).context("this kernel traces no io_uring")?;
        // The first argument is the tracepoint's own.
        let position = |name: &str| arguments.iter().skip(1).position(|argument| argument == name);
        let (index, in_entry) = match (position("res"), position("cqe")) {
            (Some(index), _) => (index, 0),
            (None, Some(index)) => (index, 1),
            (None, None) => bail!("io_uring_complete has other arguments here: {arguments:?}"),
        };
        offsets[offset::RING_RESULT] = index as u32;
        offsets[offset::RING_RESULT_IN_ENTRY] = in_entry;
    }
    Ok(offsets)
}

// Where `struct pt_regs` keeps them: arch/*/include/asm/ptrace.h, unchanged since before 5.10 and part of the
// interface to debuggers.
/// rdi, rsi, rdx, rcx
#[cfg(target_arch = "x86_64")]
const ARGUMENTS: [u32; 4] = [112, 104, 96, 88];
/// rdi, rsi, rdx, r10
#[cfg(target_arch = "x86_64")]
const SYSCALL_ARGUMENTS: [u32; 4] = [112, 104, 96, 56];
/// The system call's number: `orig_rax`.
#[cfg(target_arch = "x86_64")]
const SYSCALL: u32 = 120;
/// x0 to x3
#[cfg(target_arch = "aarch64")]
const ARGUMENTS: [u32; 4] = [0, 8, 16, 24];
/// orig_x0, as x0 has the result; x1 to x3
#[cfg(target_arch = "aarch64")]
const SYSCALL_ARGUMENTS: [u32; 4] = [272, 8, 16, 24];
/// The system call's number: `syscallno`.
#[cfg(target_arch = "aarch64")]
const SYSCALL: u32 = 280;
// Both are read at once.
const _: () = assert!(SYSCALL == SYSCALL_ARGUMENTS[0] + 8);
