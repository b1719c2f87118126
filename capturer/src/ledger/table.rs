//! The answer of `/api/v1/fds`: plain data.

use serde::Serialize;

/// Every descriptor with its owner, and what each owner opened and closed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FdTable {
    /// The tier by which the kernel is asked.
    pub tier: String,
    /// Descriptors that the kernel's programs know less those in /proc/self/fd.
    pub drift: i64,
    /// Closings that were not reported to the ledger.
    pub slips: u64,
    /// Openings that the kernel's programs could not follow because a map was full.
    pub missed: u64,
    /// One row per owner, including streams that ended lately.
    pub owners: Vec<OwnerRow>,
    /// Open descriptors, and closed ones whose file the kernel still holds.
    pub fds: Vec<FdRow>,
    /// Leaks found by the last check, one sentence each.
    pub leaks: Vec<String>,
    /// dockerd's descriptors, if it is watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dockerd: Option<DockerdRow>,
}

/// What an owner opened and closed since the start.
#[derive(Clone, Debug, Default, Serialize)]
pub struct OwnerRow {
    /// `stream:container:<id>`, `sink:<name>`, or the name of a part.
    pub owner: String,
    /// How many are open now.
    pub open: u64,
    /// Opened since the start, counted by the kernel's programs on every tier but procfs.
    pub opened: u64,
    /// Closed since the start, counted likewise.
    pub closed: u64,
    /// The stream has ended: nothing may be open.
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
    /// Milliseconds since it was opened, or closed if it is unreleased; absent where the kernel does not tell (tier
    /// procfs).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
    /// False = open. True = closed, but an operation keeps the kernel's file.
    pub unreleased: bool,
}

/// What dockerd holds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DockerdRow {
    /// Its process id; 0 = not found.
    pub pid: i32,
    /// Descriptors by kind.
    pub open: std::collections::BTreeMap<String, u64>,
    /// Opened since the watch began, including those found open; absent if nobody counts (tier procfs).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opened: Option<u64>,
    /// Closed since the watch began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed: Option<u64>,
    /// The most descriptors that the captured containers and streams explain.
    pub explained: u64,
    /// Why nothing is known; empty = something is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub problem: String,
}

/// The kind of file, from /proc's text for it.
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
