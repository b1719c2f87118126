//! The lowest tier: /proc/self. It needs no right and no kernel feature. It sees what is open at the moment of the
//! look, and nothing of what was opened and closed between two looks.
//!
//! One look costs a readlink per descriptor, some 3 µs each, so it is taken at an interval and not per event.

use anyhow::Context as _;
use procfs::process::{FDTarget, Process};

/// What the kernel says of this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessLook {
    /// Open descriptors in numeric order, with what they are: `/path`, `socket:[123]`, `anon_inode:[io_uring]`.
    pub fds: Vec<(i32, String)>,
    /// Threads, without the kernel's io_uring workers for this process.
    pub threads: u64,
    /// Resident memory of this process.
    pub rss_bytes: u64,
}

/// Looks at this process.
pub fn look() -> anyhow::Result<ProcessLook> {
    look_at(&Process::myself().context("opening /proc/self")?)
}

/// Looks at any process.
pub fn look_at(process: &Process) -> anyhow::Result<ProcessLook> {
    let list = format!("/proc/{}/fd", process.pid);
    let mut fds = Vec::new();
    for entry in process.fd().with_context(|| format!("listing {list}"))? {
        // A descriptor closed between listing and readlink is simply not open.
        let Ok(info) = entry else { continue };
        let target = text(&info.target);
        // The look's own descriptors: /proc/<pid> and the listing in it.
        if target == list || target == list[..list.len() - "/fd".len()] {
            continue;
        }
        fds.push((info.fd, target));
    }
    fds.sort_unstable();
    let stat = process.stat().context("reading its stat")?;
    Ok(ProcessLook {
        fds,
        threads: u64::try_from(stat.num_threads).unwrap_or_default(),
        rss_bytes: stat.rss * procfs::page_size(),
    })
}

fn text(target: &FDTarget) -> String {
    match target {
        FDTarget::Path(path) => path.display().to_string(),
        FDTarget::Socket(inode) => format!("socket:[{inode}]"),
        FDTarget::Net(inode) => format!("net:[{inode}]"),
        FDTarget::Pipe(inode) => format!("pipe:[{inode}]"),
        FDTarget::AnonInode(kind) => format!("anon_inode:{kind}"),
        FDTarget::MemFD(name) => format!("/memfd:{name}"),
        FDTarget::Other(kind, inode) => format!("{kind}:[{inode}]"),
        FDTarget::Unknown(kind, rest) => format!("{kind}:{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn finds_what_was_opened_and_not_its_own_descriptors() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (read, _write) = rustix::pipe::pipe().unwrap();
        let look = look().unwrap();
        let target =
            |fd: i32| look.fds.iter().find(|(other, _)| *other == fd).map(|(_, target)| target.clone());
        assert_eq!(target(file.as_raw_fd()).unwrap(), file.path().display().to_string());
        assert!(target(read.as_raw_fd()).unwrap().starts_with("pipe:["));
        let own = format!("/proc/{}", std::process::id());
        assert!(!look.fds.iter().any(|(_, target)| target.starts_with(&own)), "{:?}", look.fds);
        assert!(look.threads >= 1 && look.rss_bytes > 100_000);
    }
}
