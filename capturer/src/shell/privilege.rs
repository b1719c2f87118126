//! After the start, gives up every right that only the start needed: a bug in a parser must not give an attacker root's
//! rights.
//!
//! ```text
//! start with all rights ─▶ which rights will be missed? (tried, not guessed) ─▶ the others go
//!          └─▶ thread that attaches the witness: all rights, until it has done so and ends
//! ```
//! Capabilities belong to threads. So they go before other threads are made, which are then born without. Two are older: the
//! log's thread gives up its own ([`renounce`]), and the one that attaches the witness ends.
//!
//! Rights that stay, each only if it was found to be needed:
//! - CAP_DAC_READ_SEARCH opens log files, for as long as the agent runs.
//! - CAP_DAC_OVERRIDE, if without it a directory that is written to, or the Engine's socket, would be refused.
//! - CAP_BPF, if this kernel lets nobody else read the witness's maps (before 5.19 or so).
//! - CAP_SYS_PTRACE, with watch_dockerd: to see what another's descriptors are.
//! - CAP_SYS_ADMIN, if kernel.io_uring_disabled is 1: the ring is made later.
//!
//! The user does not change: root without capabilities still owns root's files. A service with a user of its own is
//! better (packaging/capturer.service).

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{Access, AtFlags, CWD};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{self, CapabilitySet, CapabilitySets};

use crate::settings::{Privileges, Settings};

/// Capabilities by their kernel names, for logs and `doctor`, in numeric order.
pub const NAMES: [(CapabilitySet, &str); 9] = [
    (CapabilitySet::DAC_OVERRIDE, "CAP_DAC_OVERRIDE"),
    (CapabilitySet::DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH"),
    (CapabilitySet::IPC_LOCK, "CAP_IPC_LOCK"),
    (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE"),
    (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
    (CapabilitySet::SYS_RESOURCE, "CAP_SYS_RESOURCE"),
    (CapabilitySet::NET_BIND_SERVICE, "CAP_NET_BIND_SERVICE"),
    (CapabilitySet::PERFMON, "CAP_PERFMON"),
    (CapabilitySet::BPF, "CAP_BPF"),
];

/// Drops what will not be needed any more, and says what stays. To be called on the thread of the loop before other threads
/// are made, but for the one that attaches the witness. `reads_witness` tries whether the witness can be read.
///
/// # Errors
/// When the kernel refuses to drop one, for which it has no reason.
pub fn drop_unneeded(settings: &Settings, reads_witness: impl FnOnce() -> bool) -> anyhow::Result<()> {
    if settings.privileges == Privileges::Keep {
        return Ok(());
    }
    let had = thread::capabilities(None).context("reading our capabilities")?.permitted;
    // Before 5.12 the ring counts as locked memory of a user without CAP_IPC_LOCK. If this is refused, the right was
    // not ours to give.
    if had.contains(CapabilitySet::SYS_RESOURCE) {
        let all = Rlimit { current: None, maximum: None };
        let _ = rustix::process::setrlimit(Resource::Memlock, all);
    }
    let mut kept = had & CapabilitySet::DAC_READ_SEARCH;
    try_with(had, kept)?;
    if let Some(path) = written(settings).iter().find(|path| !is_writable(path)) {
        kept |= had & CapabilitySet::DAC_OVERRIDE;
        if kept.contains(CapabilitySet::DAC_OVERRIDE) {
            tracing::info!(
                path = %path.display(),
                "CAP_DAC_OVERRIDE is kept: without it this path could not be written to"
            );
        }
    }
    if !reads_witness() {
        kept |= had & CapabilitySet::BPF;
    }
    if settings.resource_monitoring.watch_dockerd && settings.container_monitor.enabled {
        kept |= had & CapabilitySet::SYS_PTRACE;
    }
    if ring_needs_admin(std::fs::read_to_string(RING_SYSCTL).ok().as_deref()) {
        kept |= had & CapabilitySet::SYS_ADMIN;
    }
    only(kept)?;
    if !had.is_empty() {
        tracing::info!(kept = %shown(kept), "started; other capabilities are given up");
    }
    Ok(())
}

/// For a thread that needs no capability.
///
/// # Errors
/// As [`drop_unneeded`].
pub fn renounce() -> anyhow::Result<()> {
    only(CapabilitySet::empty())
}

/// [`renounce`] for the log's thread, which only writes to an open file. If it is refused, the thread writes anyway.
pub fn renounce_in_log() {
    let _ = renounce();
}

/// A set in words; capabilities without a name here are counted.
pub fn shown(set: CapabilitySet) -> String {
    let named = NAMES.iter().filter(|(one, _)| set.contains(*one));
    let mut words: Vec<String> = named.map(|(_, name)| (*name).to_owned()).collect();
    let known = NAMES.iter().fold(CapabilitySet::empty(), |sum, (one, _)| sum | *one);
    let others = (set & !known).bits().count_ones();
    match (words.is_empty(), others) {
        (true, 0) => return "none".to_owned(),
        (_, 0) => {}
        (_, others) => words.push(format!("{others} others")),
    }
    words.join(" ")
}

const RING_SYSCTL: &str = "/proc/sys/kernel/io_uring_disabled";

fn ring_needs_admin(sysctl: Option<&str>) -> bool {
    sysctl.is_some_and(|text| text.trim() == "1")
}

/// Uses only these capabilities for now; the others can be restored.
fn try_with(had: CapabilitySet, effective: CapabilitySet) -> anyhow::Result<()> {
    let sets = CapabilitySets { effective, permitted: had, inheritable: CapabilitySet::empty() };
    thread::set_capabilities(None, sets).context("trying with fewer capabilities")
}

/// Keeps only these capabilities from now on, for programs it executes, too.
fn only(kept: CapabilitySet) -> anyhow::Result<()> {
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    thread::set_capabilities(None, sets).context("giving up capabilities")?;
    thread::clear_ambient_capability_set().context("clearing ambient capabilities")?;
    thread::set_no_new_privs(true).context("renouncing new privileges")
}

/// Paths that the agent must be able to write to while it runs.
pub fn written(settings: &Settings) -> Vec<PathBuf> {
    let mut paths = vec![settings.data_dir.clone()];
    // The socket is made there, and an old one removed.
    paths.extend(settings.admin.socket.iter().filter_map(|path| path.parent().map(Path::to_owned)));
    paths.extend(settings.sinks.local_file.iter().map(|sink| sink.directory.clone()));
    if settings.container_monitor.enabled {
        paths.push(settings.container_monitor.socket_path.clone());
    }
    paths
}

/// Whether the path can be written to with the present rights. If it does not exist, its nearest directory is tested.
pub fn is_writable(path: &Path) -> bool {
    let existing = path.ancestors().find(|path| path.exists());
    // The last ancestor of a relative path is empty: the working directory.
    let existing = existing.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let access = match (existing.is_dir(), existing == path) {
        (true, _) => Access::WRITE_OK | Access::EXEC_OK,
        (false, true) => Access::WRITE_OK,
        // Nothing can be made below a file.
        (false, false) => return false,
    };
    // EACCESS uses the effective rights. Without it the kernel uses those that root could have.
    rustix::fs::accessat(CWD, existing, access, AtFlags::EACCESS).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each thread has its own capabilities, so each case runs in one.
    fn in_a_thread<T: Send>(run: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| scope.spawn(run).join().unwrap())
    }

    fn settings(dir: &Path) -> Settings {
        let mut settings = Settings { data_dir: dir.join("data"), ..Settings::default() };
        settings.container_monitor.enabled = false;
        settings.sinks.local_file = None;
        settings
    }

    fn left() -> CapabilitySets {
        thread::capabilities(None).unwrap()
    }

    /// As a user other than root, the table has empty sets and still holds.
    #[test]
    fn only_what_is_needed_stays() {
        let home = tempfile::tempdir().unwrap();
        let had = left().permitted;
        let admin = if ring_needs_admin(std::fs::read_to_string(RING_SYSCTL).ok().as_deref()) {
            CapabilitySet::SYS_ADMIN
        } else {
            CapabilitySet::empty()
        };
        let read = CapabilitySet::DAC_READ_SEARCH;
        for (reads, expected) in [(true, read), (false, read | CapabilitySet::BPF)] {
            let expected = (expected | admin) & had;
            in_a_thread(|| {
                drop_unneeded(&settings(home.path()), || reads).unwrap();
                let sets = left();
                assert_eq!((sets.effective, sets.permitted), (expected, expected));
                assert!(sets.inheritable.is_empty() && thread::no_new_privs().unwrap());
                // Threads made now have no more than these.
                in_a_thread(|| assert_eq!(left().permitted, expected));
            });
        }
        assert_eq!(left().permitted, had, "other threads keep theirs");
    }

    #[test]
    fn keep_keeps_and_renounce_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let had = left().permitted;
        in_a_thread(|| {
            let settings = Settings { privileges: Privileges::Keep, ..settings(home.path()) };
            drop_unneeded(&settings, || panic!("nothing is tried")).unwrap();
            assert_eq!(left().permitted, had);
            renounce().unwrap();
            assert!(left().permitted.is_empty());
        });
    }

    /// Root that writes into a user's directory must be able to do so after the start, too.
    #[test]
    fn a_directory_of_another_user_is_written_to_all_the_same() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root may give a directory away");
            return;
        }
        let home = tempfile::tempdir().unwrap();
        let nobody = Some(rustix::fs::Uid::from_raw(65_534));
        rustix::fs::chown(home.path(), nobody, None).unwrap();
        in_a_thread(|| {
            drop_unneeded(&settings(home.path()), || true).unwrap();
            assert!(left().effective.contains(CapabilitySet::DAC_OVERRIDE));
            std::fs::create_dir(home.path().join("data")).unwrap();
        });
        let mut settings = settings(&home.path().join("own"));
        std::fs::create_dir(home.path().join("own")).unwrap();
        settings.admin.socket = Some(home.path().join("admin.sock"));
        in_a_thread(|| {
            drop_unneeded(&settings, || true).unwrap();
            std::os::unix::net::UnixListener::bind(home.path().join("admin.sock")).unwrap();
        });
        in_a_thread(|| {
            renounce().unwrap();
            assert!(!is_writable(&home.path().join("other")));
        });
    }

    #[test]
    fn what_is_not_there_is_asked_of_its_directory() {
        let home = tempfile::tempdir().unwrap();
        assert!(is_writable(&home.path().join("a/b/c")) && is_writable(Path::new("not-there-yet")));
        assert!(!is_writable(Path::new("/proc/version/x")));
    }

    #[test]
    fn sets_are_shown_in_words() {
        assert_eq!(shown(CapabilitySet::empty()), "none");
        assert_eq!(shown(CapabilitySet::BPF | CapabilitySet::DAC_READ_SEARCH), "CAP_DAC_READ_SEARCH CAP_BPF");
        assert_eq!(shown(CapabilitySet::BPF | CapabilitySet::CHOWN), "CAP_BPF 1 others");
        assert!(ring_needs_admin(Some("1\n")) && !ring_needs_admin(Some("2")) && !ring_needs_admin(None));
    }
}
