//! The answer of `/api/v1/fds`: plain data.

use serde::Serialize;

/// Every descriptor with its owner, and what each owner opened and closed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FdTable {
    /// How the kernel is asked.
    pub tier: String,
    /// Descriptors by the kernel's account less those in /proc/self/fd.
    pub drift: i64,
    /// Closings that were never told to the ledger.
    pub slips: u64,
    /// Openings that the kernel's programs could not follow because a map was full.
    pub missed: u64,
    /// By owner: streams that ended lately too.
    pub owners: Vec<OwnerRow>,
    /// Descriptors, and files whose descriptor is closed and that are not let go.
    pub fds: Vec<FdRow>,
    /// Leaks found by the last check, a sentence each.
    pub leaks: Vec<String>,
    /// dockerd's, if it is watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dockerd: Option<DockerdRow>,
}

/// What an owner opened and closed since the start.
#[derive(Clone, Debug, Default, Serialize)]
pub struct OwnerRow {
    /// `stream:container:<id>`, `sink:<name>`, or a part.
    pub owner: String,
    /// How many are open now.
    pub open: u64,
    /// Opened, by the kernel's count where programs of ours count there (any tier but procfs).
    pub opened: u64,
    /// Closed, by the same count.
    pub closed: u64,
    /// A stream that has ended: nothing may be open.
    pub ended: bool,
}

/// A row for one descriptor.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FdRow {
    /// Who holds it.
    pub owner: String,
    /// Its number; of an unreleased file, the number it had.
    pub fd: i32,
    /// `file`, `socket`, `pipe`, `inotify`, `io_uring` …
    pub kind: String,
    /// What /proc says it is.
    pub target: String,
    /// Since it was opened, or closed if it is unreleased; absent where the kernel does not tell (tier procfs).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
    /// False = open. True = closed, and the kernel keeps the file: an operation holds it.
    pub unreleased: bool,
}

/// What dockerd holds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DockerdRow {
    /// Its process, 0 if it is not found.
    pub pid: i32,
    /// Descriptors by kind.
    pub open: std::collections::BTreeMap<String, u64>,
    /// Opened since it is watched, those found open included; absent where nobody counts (tier procfs).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opened: Option<u64>,
    /// Closed since it is watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed: Option<u64>,
    /// The most descriptors that what is captured explains.
    pub explained: u64,
    /// Why nothing is known; empty if it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub problem: String,
}

/// What kind of thing a target is, from /proc's text for it.
pub fn kind(target: &str) -> &str {
    if target.starts_with("/memfd:") {
        return "memfd";
    }
    if target.starts_with('/') {
        return if target.starts_with("/dev/") { "device" } else { "file" };
    }
    match target.split_once(':') {
        Some(("anon_inode", kind)) => kind.trim_matches(|edge| edge == '[' || edge == ']'),
        Some((kind, _)) => kind,
        None => target,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_off_targets() {
        let cases = [
            ("/var/log/a:b.log (deleted)", "file"),
            ("/dev/null", "device"),
            ("/memfd:x (deleted)", "memfd"),
            ("socket:[4711]", "socket"),
            ("anon_inode:[io_uring]", "io_uring"),
            ("anon_inode:inotify", "inotify"),
            ("odd", "odd"),
        ];
        for (target, expected) in cases {
            assert_eq!(kind(target), expected, "{target}");
        }
    }
}
