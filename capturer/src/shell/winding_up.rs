//! How the shell of a run ends: open files and connections are closed, and threads that hang are left behind as
//! [`Rest`].

use std::collections::BTreeSet;
use std::os::fd::RawFd;
use std::time::Duration;

use super::{Opened, Shell, ring};
use crate::capture::io::ConnId;
use crate::shell::files::{Files, Hung};

/// Threads of an ended run, which may hang for as long as a file system does.
pub struct Rest {
    files: Files,
    descriptors: BTreeSet<RawFd>,
}

impl Rest {
    /// Whether every thread that had files open has closed them.
    pub fn has_ended(&mut self) -> bool {
        self.files.has_ended()
    }

    /// Whether no checkpoint is being saved.
    pub fn saver_has_ended(&self) -> bool {
        self.files.saver_has_ended()
    }

    /// Threads whose step takes longer than it should.
    pub fn hung(&self) -> Vec<Hung> {
        self.files.hung()
    }

    /// Descriptors that they have open.
    pub fn descriptors(&self) -> &BTreeSet<RawFd> {
        &self.descriptors
    }
}

impl Shell {
    /// Ends everything under way and waits for at most `patience`, but not for the threads for files if one of them is
    /// known to hang. Returns the number of operations left.
    pub async fn wind_up(&mut self, patience: Duration) -> u64 {
        self.stopped = true;
        for cancel in self.requests.values() {
            cancel.cancel();
        }
        let connections: Vec<ConnId> = self.connections.keys().copied().collect();
        for conn in connections {
            self.close(conn);
        }
        if let Some(inotify) = &self.inotify {
            // Removing a watch is an event, which ends the read of inotify at once. The root directory never hangs.
            let watch =
                rustix::fs::inotify::add_watch(inotify, "/", rustix::fs::inotify::WatchFlags::DELETE_SELF);
            let _ = watch.and_then(|watch| rustix::fs::inotify::remove_watch(inotify, watch));
        }
        self.on_lanes = self
            .open_files
            .values()
            .filter_map(|file| match file {
                Opened::OnLane(_, number) => Some(*number),
                Opened::Here(_) => None,
            })
            .collect();
        self.open_files.clear();
        let deadline = tokio::time::Instant::now() + patience;
        while !self.in_flight.is_empty() {
            if tokio::time::timeout_at(deadline, self.next()).await.is_err() {
                break;
            }
        }
        if self.files.hung().is_empty() {
            // Only their own threads close files on lanes.
            let _ = tokio::time::timeout_at(deadline, self.files.end()).await;
        }
        self.files.close();
        ring::operations_in_flight()
    }

    /// Call it after [`Shell::wind_up`]: returns what that did not wait for. For the ledger the streams have ended.
    pub fn into_rest(self) -> Rest {
        self.claims.with(|ledger| self.keys.values().for_each(|key| ledger.stream_ended(key)));
        Rest { files: self.files, descriptors: self.on_lanes }
    }
}
