//! Why something waits, where people have a short word for it. Whoever gets the system's answer names the cause here, so that
//! nobody looks for words in a sentence later.

use std::io;
use std::path::Path;

/// A cause that is told in few words. All others are told in their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The disk is full.
    NoRoom,
    /// This user's share of the disk is used up.
    QuotaUsed,
    /// The file system is mounted so.
    ReadOnly,
    /// The agent has not the right to use this path.
    NoPermission(String),
    /// A directory stands where a file should.
    Directory,
    /// No dockerd is there.
    NoDocker,
    /// dockerd is there, and gave no answer.
    NoAnswer {
        /// For so long it was waited for.
        waited_s: u64,
    },
}

impl Cause {
    /// Of what the system says to who does something with a path.
    pub fn of(error: &io::Error, path: Option<&Path>) -> Option<Cause> {
        Some(match error.kind() {
            io::ErrorKind::StorageFull => Cause::NoRoom,
            io::ErrorKind::QuotaExceeded => Cause::QuotaUsed,
            io::ErrorKind::ReadOnlyFilesystem => Cause::ReadOnly,
            io::ErrorKind::IsADirectory => Cause::Directory,
            io::ErrorKind::PermissionDenied => Cause::NoPermission(path?.display().to_string()),
            _ => return None,
        })
    }

    /// In a row, whose end may be cut.
    pub fn words(&self) -> String {
        match self {
            Cause::NoRoom => "disk full".to_owned(),
            Cause::QuotaUsed => "disk quota used up".to_owned(),
            Cause::ReadOnly => "its disk is read-only".to_owned(),
            Cause::Directory => "a directory is in its place".to_owned(),
            Cause::NoPermission(path) => format!("no permission: {path}"),
            Cause::NoDocker => "Docker is not running here".to_owned(),
            Cause::NoAnswer { waited_s } => format!("no answer from dockerd within {waited_s} s"),
        }
    }
}
