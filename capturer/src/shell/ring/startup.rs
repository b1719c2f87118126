//! Checks that the kernel offers the ring we need, before anything is built on it, and starts the runtime. If it does
//! not, one sentence names the likely cause and the cure.

use std::io;

use io_uring::{IoUring, Probe, opcode};

use crate::limits::RING_ENTRIES;

/// Why there is no ring. Its text is one sentence for an operator: what was tried, the likely cause, the cure.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("io_uring is not available: {cause}. {cure}")]
pub struct RingUnavailable {
    cause: String,
    cure: &'static str,
    errno: Option<i32>,
}

/// ENOMEM: the locked memory of this user would be more than its limit.
const NO_MEMORY: i32 = 12;

impl RingUnavailable {
    /// Whether the limit of locked memory is too small for it.
    pub fn lacks_locked_memory(&self) -> bool {
        self.errno == Some(NO_MEMORY)
    }

    /// What was tried, and the likely cause.
    pub fn cause(&self) -> &str {
        &self.cause
    }

    /// What to do about it, in a sentence.
    pub fn cure(&self) -> &'static str {
        self.cure
    }
}

const UNCONFINED: &str =
    "In a container use --security-opt seccomp=unconfined or a profile that allows io_uring_*.";

/// Runs a future to completion on a new ring of this thread.
///
/// # Errors
/// [`RingUnavailable`] where the kernel refuses the ring or lacks an operation.
pub fn start<F: Future>(future: F) -> Result<F::Output, RingUnavailable> {
    check()?;
    Ok(tokio_uring::builder().entries(RING_ENTRIES as u32).start(future))
}

/// Makes a ring of the size that will be used, checks its features, and drops it.
///
/// # Errors
/// [`RingUnavailable`], as [`start`].
pub fn check() -> Result<(), RingUnavailable> {
    let mut ring = IoUring::new(RING_ENTRIES as u32).map_err(|error| refused(&error, sysctl().as_deref()))?;
    if !ring.params().is_feature_nodrop() || !ring.params().is_feature_fast_poll() {
        return Err(too_old("the ring has no NODROP or FAST_POLL feature"));
    }
    let mut probe = Probe::new();
    if ring.submitter().register_probe(&mut probe).is_err() {
        return Err(too_old("the kernel can't say which operations it has"));
    }
    let needed = [
        (opcode::Read::CODE, "read"),
        (opcode::Recv::CODE, "recv"),
        (opcode::Send::CODE, "send"),
        (opcode::LinkTimeout::CODE, "linked timeout"),
    ];
    for (code, name) in needed {
        if !probe.is_supported(code) {
            return Err(too_old(&format!("the ring has no {name} operation")));
        }
    }
    try_one(&mut ring)
}

/// A profile may allow making a ring but not using it.
fn try_one(ring: &mut IoUring) -> Result<(), RingUnavailable> {
    let nothing = opcode::Nop::new().build();
    // SAFETY: the operation names no memory and no descriptor.
    let pushed = unsafe { ring.submission().push(&nothing) };
    pushed.expect("a new ring has room for one entry");
    match ring.submit_and_wait(1) {
        Ok(_) => Ok(()),
        Err(error) => Err(RingUnavailable {
            cause: format!("io_uring_enter failed ({error}), most likely by a seccomp profile"),
            cure: UNCONFINED,
            errno: None,
        }),
    }
}

fn too_old(what: &str) -> RingUnavailable {
    RingUnavailable { cause: what.to_owned(), cure: "capturer needs Linux 5.10 or newer.", errno: None }
}

/// `kernel.io_uring_disabled` (Linux 6.6 and newer): 0 all, 1 only a group and the privileged, 2 nobody.
fn sysctl() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?;
    Some(text.trim().to_owned())
}

fn refused(error: &io::Error, sysctl: Option<&str>) -> RingUnavailable {
    let (cause, cure) = match (error.raw_os_error(), sysctl) {
        (Some(1), Some(level @ ("1" | "2"))) => (
            format!("io_uring_setup failed ({error}) and kernel.io_uring_disabled is {level}"),
            "Set it to 0: sysctl -w kernel.io_uring_disabled=0 (with 1, root or CAP_SYS_ADMIN is enough).",
        ),
        (Some(1 | 13), _) => (
            format!("io_uring_setup failed ({error}), most likely by a seccomp profile or an LSM"),
            UNCONFINED,
        ),
        (Some(38), _) => (
            format!(
                "io_uring_setup failed ({error}): the kernel is older than 5.1, built without io_uring, or a seccomp profile hides it"
            ),
            "capturer needs Linux 5.10 or newer with CONFIG_IO_URING; in a container use --security-opt seccomp=unconfined.",
        ),
        (Some(NO_MEMORY), _) => (
            format!("io_uring_setup failed ({error}): the locked-memory limit is too small for the ring"),
            "Raise it: ulimit -l unlimited, or LimitMEMLOCK=infinity in the systemd unit.",
        ),
        (Some(23 | 24), _) => (
            format!("io_uring_setup failed ({error}): no file descriptor is left"),
            "Raise the limit: ulimit -n, or LimitNOFILE in the systemd unit.",
        ),
        _ => {
            (format!("io_uring_setup failed ({error})"), "capturer needs Linux 5.10 or newer with io_uring.")
        }
    };
    RingUnavailable { cause, cure, errno: error.raw_os_error() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_names_cause_and_cure() {
        let table = [
            (1, Some("2"), "kernel.io_uring_disabled is 2"),
            (1, Some("0"), "seccomp"),
            (1, None, "seccomp"),
            (38, None, "5.10"),
            (12, None, "LimitMEMLOCK"),
            (24, None, "LimitNOFILE"),
            (5, None, "5.10"),
        ];
        for (errno, sysctl, expected) in table {
            let text = refused(&io::Error::from_raw_os_error(errno), sysctl).to_string();
            assert!(text.contains(expected), "errno {errno}: {text}");
            assert!(text.starts_with("io_uring is not available: io_uring_setup failed"), "{text}");
            let is_of_memory = refused(&io::Error::from_raw_os_error(errno), sysctl).lacks_locked_memory();
            assert_eq!(is_of_memory, text.contains("locked-memory"), "{text}");
        }
    }

    #[test]
    fn this_machine_has_what_is_needed() {
        assert_eq!(check(), Ok(()));
    }
}
