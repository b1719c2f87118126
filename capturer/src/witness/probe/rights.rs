//! Whether a thread without rights of its own may ask the kernel's programs: before some Linux 5.19 every use of bpf(2)
//! needs CAP_BPF where `kernel.unprivileged_bpf_disabled` is set, later only loading does.

#![allow(unsafe_code)] // bpf(2), for which neither rustix nor libc has a safe call.

/// BPF_MAP_LOOKUP_ELEM (include/uapi/linux/bpf.h).
const LOOK_UP: libc::c_long = 1;

/// What the look-up takes of `union bpf_attr`: the map's descriptor, then what a look-up needs and this one never gets to.
#[repr(C)]
#[derive(Default)]
struct LookUp {
    map: i32,
    unused: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// With the calling thread's rights. The kernel looks at those first, so a look-up in a map that is none tells: refused
/// (EPERM), or no such descriptor.
pub(crate) fn may_read_maps() -> bool {
    let attributes = LookUp { map: -1, ..LookUp::default() };
    // SAFETY: the kernel reads that many bytes of the structure and, as descriptor -1 is never open, nothing else.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, LOOK_UP, &raw const attributes, size_of::<LookUp>()) };
    answer == 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::EPERM)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Root with all its rights is never refused; where others are, nobody can say without knowing the kernel.
    #[test]
    fn who_may_load_may_read() {
        if rustix::process::geteuid().is_root() {
            assert!(may_read_maps());
        }
    }
}
