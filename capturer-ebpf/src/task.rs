//! The running thread, as the kernel has it: its process, its descriptor table, the system call it is at the end of.
//!
//! The same three questions are answered in two ways. From Linux 5.15 on the verifier knows what the kernel's structures
//! look like and lets a program follow their pointers itself (feature `linux-5-15`); before, each step is a call of
//! `bpf_probe_read_kernel`. A call costs some 20 to 30 ns, and there are three fewer for each event.
//!
//! Not here: whether the process is watched, and what its descriptors were known to hold (table.rs).

use capturer_ebpf::offset;

use crate::read;
use crate::table::offset;

/// A descriptor table as it was when it was looked at. It may grow meanwhile, in another thread: then this is the
/// array of before, which the kernel keeps until the program has ended, with what it held at that moment.
#[derive(Clone, Copy)]
pub struct Files {
    /// Of the `files_struct`.
    pub address: u64,
    /// Length of the array.
    pub fds_max: u64,
    /// Address of the array of files.
    pub array: u64,
    /// Address of the bits of numbers in use.
    pub open: u64,
}

impl Files {
    /// The table at an address, which may be any number.
    #[inline(always)]
    pub fn at(address: u64) -> Files {
        let descriptors = read(address + offset(offset::FILES_FDT));
        let start = (descriptors + offset(offset::FDT_MAX_FDS)) as *const [u64; 4];
        // SAFETY: an address that can't be read gives an error. The agent has made sure of the order of the four.
        let members = unsafe { aya_ebpf::helpers::bpf_probe_read_kernel(start) };
        let [fds_max, array, _, open] = members.unwrap_or([0; 4]);
        // The length has 4 bytes, and nothing lies between it and the array's address.
        Files { address, fds_max: u64::from(fds_max as u32), array, open }
    }

    /// The file in that place; 0 = none.
    #[inline(always)]
    pub fn file(&self, fd: u32) -> u64 {
        if u64::from(fd) >= self.fds_max {
            return 0;
        }
        read(self.array + 8 * u64::from(fd))
    }
}

pub use way::Task;

#[cfg(not(feature = "linux-5-15"))]
mod way {
    use aya_ebpf::helpers::generated::bpf_get_current_task;
    use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_probe_read_kernel};

    use super::{Files, offset, read};

    /// The running thread.
    pub struct Task;

    impl Task {
        #[inline(always)]
        pub fn current() -> Task {
            Task
        }

        /// Its process's number.
        #[inline(always)]
        pub fn process(&self) -> u32 {
            (bpf_get_current_pid_tgid() >> 32) as u32
        }

        /// The address of its descriptor table. io_uring's worker has that of the process it works for.
        #[inline(always)]
        pub fn table(&self) -> u64 {
            // SAFETY: it has no precondition.
            let task = unsafe { bpf_get_current_task() };
            read(task + offset(offset::TASK_FILES))
        }

        /// That table.
        #[inline(always)]
        pub fn files(&self) -> Files {
            Files::at(self.table())
        }

        /// The number and the first argument of its system call, from the registers at that address.
        #[inline(always)]
        pub fn call(&self, registers: u64) -> (u32, u64) {
            let start = (registers + offset(offset::SYSCALL_ARGUMENT)) as *const [u64; 2];
            // SAFETY: an address that can't be read gives an error.
            let [first, number] = unsafe { bpf_probe_read_kernel(start) }.unwrap_or([0, u64::MAX]);
            (number as u32, first)
        }
    }
}

#[cfg(feature = "linux-5-15")]
mod way {
    use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs};

    use super::{Files, offset};

    /// The running thread.
    pub struct Task {
        /// To the verifier it is a pointer of known type, so offsets from it must be constants.
        address: u64,
    }

    impl Task {
        #[inline(always)]
        pub fn current() -> Task {
            // SAFETY: it has no precondition.
            Task { address: unsafe { bpf_get_current_task_btf() } as u64 }
        }

        /// Its process's number.
        #[inline(always)]
        pub fn process(&self) -> u32 {
            // SAFETY: a member, as the verifier checks.
            unsafe { follow(self.address + offset(offset::TASK_PROCESS)) }
        }

        /// The address of its descriptor table. io_uring's worker has that of the process it works for.
        #[inline(always)]
        pub fn table(&self) -> u64 {
            // SAFETY: a member, as the verifier checks.
            unsafe { follow(self.address + offset(offset::TASK_FILES)) }
        }

        /// That table.
        #[inline(always)]
        pub fn files(&self) -> Files {
            let files = self.table();
            // SAFETY: members, as the verifier checks. What is null or gone reads as 0.
            unsafe {
                let descriptors: u64 = follow(files + offset(offset::FILES_FDT));
                let fds_max: u32 = follow(descriptors + offset(offset::FDT_MAX_FDS));
                Files {
                    address: files,
                    fds_max: u64::from(fds_max),
                    array: follow(descriptors + offset(offset::FDT_FD)),
                    open: follow(descriptors + offset(offset::FDT_OPEN_FDS)),
                }
            }
        }

        /// The number and the first argument of its system call.
        #[inline(always)]
        pub fn call(&self, _registers: u64) -> (u32, u64) {
            // SAFETY: of the task just asked for; members of its registers, as the verifier checks.
            unsafe {
                let registers = bpf_task_pt_regs(self.address as *mut _) as u64;
                let first = registers + offset(offset::SYSCALL_ARGUMENT);
                (follow(first + 8), follow(first))
            }
        }
    }

    /// Reads through a pointer whose type the verifier knows. Volatile, so that it is done here and once: what is read
    /// next may be taken for equal to a number of ours, whose type it does not know.
    ///
    /// # Safety
    /// The kernel's verifier must have the last word.
    #[inline(always)]
    unsafe fn follow<T: Copy>(address: u64) -> T {
        // SAFETY: the caller's.
        unsafe { core::ptr::read_volatile(address as *const T) }
    }
}
