//! What people are told of a chain of files: what it lost, by name and bytes, and its row of `/api/v1/streams`.

use super::FileSource;
use super::hanging::SetAside;
use crate::capture::context::Context;
use crate::capture::io::Action;
use crate::capture::stream::SourceEvent;
use crate::capture::stream::chain::{Changes, Gone, Handle};
use crate::capture::stream::delivered::Gap;
use crate::decode::timestamp;
use crate::telemetry::metrics::LossReason;
use crate::telemetry::status::StreamRow;

impl FileSource {
    pub(super) fn declare(&self, changes: &Changes, cx: &Context<'_>) {
        for Gone { name, bytes, .. } in &changes.unreadable {
            match bytes {
                0 => cx.metrics.possibly_lost(LossReason::FileUnreadable),
                bytes => cx.metrics.lost(LossReason::FileUnreadable, *bytes),
            }
            let (file, sinks) = (self.path_of(name), self.reader.sinks.join(", "));
            tracing::debug!(file, sinks, bytes, "gone; it could not be read as long as it was there");
        }
        if let Some((read, next)) = &changes.gap {
            cx.metrics.possibly_lost(LossReason::FileGoneUnread);
            let (file, next) = (self.path_of(read), self.path_of(next));
            let sinks = self.reader.sinks.join(", ");
            tracing::debug!(
                file,
                next,
                sinks,
                "was renamed while the agent did not run, well before the next file was made: others that had the log's name \
                 in between may be gone, and what stood in them lost"
            );
        }
        for Gone { name, bytes, in_place, .. } in
            changes.gone.iter().chain(&changes.cut_off).chain(&changes.lost)
        {
            let reason = match in_place {
                true => LossReason::FileTruncated,
                // Its cure is another one: the log did not rotate, it went with its container.
                false if self.gone && !self.reader.group.of_paths => LossReason::ContainerGoneUnread,
                false => LossReason::FileGoneUnread,
            };
            let file = self.path_of(name);
            // Each outlet reads it for itself, and is told of for itself.
            let sinks = self.reader.sinks.join(", ");
            match (bytes, in_place) {
                (0, true) => {
                    cx.metrics.possibly_lost(reason);
                    tracing::debug!(
                        file,
                        sinks,
                        "rewritten; what was written just before that may be lost: reading it from the beginning"
                    );
                }
                (0, false) => {
                    cx.metrics.possibly_lost(reason);
                    tracing::debug!(
                        file,
                        sinks,
                        "gone; what was written to it after it was read may be lost"
                    );
                }
                (bytes, true) => {
                    cx.metrics.lost(reason, *bytes);
                    tracing::debug!(
                        file,
                        bytes,
                        "lost: rewritten before that was read; reading it from the beginning"
                    );
                }
                (bytes, false) => {
                    cx.metrics.lost(reason, *bytes);
                    tracing::debug!(file, bytes, "lost: gone before that was read");
                }
            }
        }
    }

    /// Other files had the live name between two listings.
    pub(super) fn declare_unseen(&self, files: u32, cx: &Context<'_>) {
        for _ in 0..files {
            cx.metrics.possibly_lost(LossReason::FileNeverOpened);
        }
        if files > 0 {
            let (file, sinks) = (self.path(), self.reader.sinks.join(", "));
            tracing::debug!(
                file,
                sinks,
                files,
                "files that had this name were rotated away or removed before they could be opened; what stood in them is not \
                 read and may be lost"
            );
        }
    }

    /// That the file of its path went before it was listed is counted already.
    pub fn vanish_is_counted(&mut self) {
        self.chain.vanish_is_counted();
    }

    /// A path that was found, and was gone before its file could be listed.
    fn declare_never_listed(&self, cx: &Context<'_>) {
        let file = self.chain.never_listed().filter(|_| self.reader.group.of_paths);
        if file.is_some_and(|file| !self.is_read_elsewhere(file, cx)) {
            self.declare_unseen(1, cx);
        }
    }

    /// A path that went while the agent did not run, and did not come back.
    pub(super) fn declare_never_found(&self, cx: &Context<'_>) {
        self.declare_never_listed(cx);
        let gone = self.chain.never_found(&self.live_name).filter(|_| self.reader.group.of_paths);
        if let Some(gone) = gone.filter(|gone| !self.is_read_elsewhere(gone.file, cx)) {
            self.declare(&Changes { gone: vec![gone], ..Changes::default() }, cx);
        }
    }

    /// Gives up deleted files that are held open, oldest first, until this many of their unread bytes are gone. Returns
    /// how many are. The one being read stays until its read has ended.
    pub fn give_up_deleted(&mut self, bytes: u64, cx: &mut Context<'_>, told: &mut Vec<SourceEvent>) -> u64 {
        let busy = usize::from(self.reading.is_some());
        let mut given_up = 0;
        for (name, unread, handle) in self.chain.give_up_deleted(busy, bytes) {
            if let Handle::Open(file) = handle {
                cx.act(Action::CloseFile { file });
            }
            given_up += unread;
            cx.metrics.lost(LossReason::DeletedOpenLimit, unread);
            tracing::debug!(
                file = %format!("{}/{name}", self.directory),
                bytes = unread,
                "lost: deleted, and limits.deleted_open_bytes_max does not allow holding it open any longer"
            );
        }
        self.go_on(cx, told);
        given_up
    }

    /// Bytes known to be unread, and those of them in deleted files.
    pub fn unread_bytes(&self) -> (u64, u64) {
        let unread = if self.is_left_out() { 0 } else { self.chain.unread_bytes() };
        (unread, self.chain.deleted_open_bytes())
    }

    /// Fills its part of a row of `/api/v1/streams`.
    pub fn describe(&self, row: &mut StreamRow, now_ms: u64) {
        row.mode = "file";
        let ignored = self.is_ignored().then_some("older than ignore_older");
        if let Some(left_out) = self.left_out().or(ignored) {
            row.now.left_out = left_out.to_owned();
            row.now.left_out_for_age = self.left_out().is_none();
        }
        if self.lacks_descriptor() {
            row.now.lacks_descriptor = true;
        } else if self.waits_to_open && self.files_open() == 0 {
            row.now.waits_its_turn = true;
        }
        let operation = self.operation();
        if !operation.is_empty() {
            row.now.operation = operation;
            row.now.operation_age_ms = Some(now_ms.saturating_sub(self.asked_ms));
        }
        if let Some(SetAside { place, operation, .. }) = self.set_aside.as_deref() {
            row.now.set_aside = format!("{place} does not answer ({operation})");
        }
    }

    pub(super) fn declare_gap(&self, gap: Gap, first_ns: i64, cx: &Context<'_>) {
        let Gap { after_ns, emptied } = gap;
        let file = format!("{}/{}", self.directory, self.live_name);
        let (after, before) = (timestamp::format(after_ns), timestamp::format(first_ns));
        if emptied {
            cx.metrics.possibly_lost(LossReason::FileTruncated);
            tracing::debug!(%file, %after, %before, "emptied; what was printed just before that may be lost");
        } else {
            cx.metrics.lost(LossReason::EngineSkippedRotation, 0);
            tracing::debug!(
                %file, %after, %before,
                "lost, an unknown number of bytes: what was printed between these times was rotated away before it was read"
            );
        }
    }
}
