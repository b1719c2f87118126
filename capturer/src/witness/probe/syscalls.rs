//! Tier `tracepoint`: what each system call does to a descriptor table, by its number on this machine.
//!
//! The programs know kinds, not numbers, so that one object works on every machine. Calls not listed here change a
//! table only through what they start (an io_uring operation, which is seen when it completes).

use capturer_ebpf::syscall::{
    ANY, CLOSES, FCNTL, MAKES, MAY_MAKE, PAIR_FIRST, PAIR_FOURTH, RECEIVES, REPLACES,
};

/// Number and kind of every call that makes or releases descriptors.
pub fn kinds() -> Vec<(u32, u32)> {
    let everywhere = [
        (libc::SYS_openat, MAKES),
        (libc::SYS_openat2, MAKES),
        (libc::SYS_open_by_handle_at, MAKES),
        (libc::SYS_socket, MAKES),
        (libc::SYS_accept, MAKES),
        (libc::SYS_accept4, MAKES),
        (libc::SYS_dup, MAKES),
        (libc::SYS_epoll_create1, MAKES),
        (libc::SYS_eventfd2, MAKES),
        (libc::SYS_inotify_init1, MAKES),
        (libc::SYS_timerfd_create, MAKES),
        (libc::SYS_signalfd4, MAY_MAKE),
        (libc::SYS_memfd_create, MAKES),
        (libc::SYS_userfaultfd, MAKES),
        (libc::SYS_fanotify_init, MAKES),
        (libc::SYS_perf_event_open, MAKES),
        (libc::SYS_pidfd_open, MAKES),
        (libc::SYS_pidfd_getfd, MAKES),
        (libc::SYS_io_uring_setup, MAKES),
        (libc::SYS_fsopen, MAKES),
        (libc::SYS_fsmount, MAKES),
        (libc::SYS_fspick, MAKES),
        (libc::SYS_open_tree, MAKES),
        (libc::SYS_mq_open, MAKES),
        (libc::SYS_bpf, MAY_MAKE),
        (libc::SYS_ioctl, MAY_MAKE),
        (libc::SYS_seccomp, MAY_MAKE),
        (libc::SYS_dup3, REPLACES),
        (libc::SYS_fcntl, FCNTL),
        (libc::SYS_pipe2, PAIR_FIRST),
        (libc::SYS_socketpair, PAIR_FOURTH),
        (libc::SYS_recvmsg, RECEIVES),
        (libc::SYS_recvmmsg, ANY),
        (libc::SYS_close_range, ANY),
        (libc::SYS_close, CLOSES),
    ];
    #[cfg(target_arch = "x86_64")]
    let older = [
        (libc::SYS_open, MAKES),
        (libc::SYS_creat, MAKES),
        (libc::SYS_dup2, REPLACES),
        (libc::SYS_pipe, PAIR_FIRST),
        (libc::SYS_epoll_create, MAKES),
        (libc::SYS_eventfd, MAKES),
        (libc::SYS_signalfd, MAY_MAKE),
        (libc::SYS_inotify_init, MAKES),
    ];
    // Newer architectures never had these calls.
    #[cfg(not(target_arch = "x86_64"))]
    let older = [];
    let all = everywhere.into_iter().chain(older);
    all.map(|(number, kind)| (u32::try_from(number).expect("a system call's number"), kind)).collect()
}
