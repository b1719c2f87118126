//! Files of the chain are opened before it is their turn, so that a rotation can't take them away.
//!
//! Not so while descriptors are short. A stream that held one and waited for a second would keep it from others that do the
//! same, and none would go on. So each opens only the file that it reads next, and gives back what it holds beside that
//! (idle.rs). Then whoever holds a descriptor can go on with that alone: it reads the file to its end and closes it, be it
//! rotated or quiet, and the descriptor goes to the next. What may not be closed (a deleted file, one of a file system that
//! may hang) is kept; it is for `/health` to say that others wait.

use super::FileSource;
use crate::capture::context::{Context, Purpose};
use crate::capture::io::{Action, FileError, FileNo, OpenedFile};
use crate::capture::stream::SourceEvent;
use crate::capture::stream::chain::Handle;
use crate::model::cursor::FileId;
use crate::telemetry::metrics::{LossReason, StreamError};

/// Files opened ahead of the one being read.
pub(super) const OPEN_AHEAD: usize = 8;

impl FileSource {
    pub(super) fn open_ahead(&mut self, cx: &mut Context<'_>) {
        // One place is enough for all its files: an older one that waited would be read behind a newer one.
        let mut has_place = self.files_open() > 0;
        let is_short = cx.open_files.is_short(cx.now.mono_ms);
        let mut is_opening = self.is_opening();
        let ahead = if is_short { 1 } else { OPEN_AHEAD };
        let parked = self.chain.parked.iter_mut().map(|parked| &mut parked.link);
        for link in self.chain.links.iter_mut().take(ahead).chain(parked) {
            if is_short && is_opening {
                break;
            }
            if link.is_to_be_opened() {
                if !has_place && !cx.open_files.take() {
                    self.waits_to_open = true;
                    break;
                }
                (has_place, is_opening) = (true, true);
                let file = cx.new_file();
                (link.handle, link.lacks_descriptor) = (Handle::Opening(file), false);
                link.doubted = !link.is_proven();
                self.asked_ms = cx.now.mono_ms;
                cx.act(Action::OpenFile {
                    stream: self.stream,
                    file,
                    directory: self.directory.clone(),
                    found: link.found.clone(),
                    expected: link.expected(),
                });
            }
        }
    }

    /// No file waits to be opened, of those that should be open by now.
    pub fn has_opened_all(&self) -> bool {
        let parked = self.chain.parked.iter().map(|parked| &parked.link);
        let mut links = self.chain.links.iter().take(OPEN_AHEAD).chain(parked);
        !links.any(|link| link.is_to_be_opened() || matches!(link.handle, Handle::Opening(_)))
    }

    /// Which file is being opened under this number.
    pub fn opening_id(&self, file: FileNo) -> Option<FileId> {
        let link = self.chain.in_hand().find(|link| link.handle == Handle::Opening(file))?;
        Some(link.found.id)
    }

    /// A file was opened, or not.
    pub fn on_file_opened(
        &mut self,
        file: FileNo,
        result: Result<OpenedFile, FileError>,
        cx: &mut Context<'_>,
        told: &mut Vec<SourceEvent>,
    ) {
        self.answered(cx);
        if result.as_ref().is_ok_and(|opened| opened.lane.is_some())
            && !cx.will_wake(self.stream, Purpose::Look)
        {
            self.look_later(cx);
        }
        let parked = self.chain.parked.iter_mut().map(|parked| &mut parked.link);
        let mut links = self.chain.links.iter_mut().chain(parked);
        let link = links.find(|link| link.handle == Handle::Opening(file));
        match (link, result) {
            (Some(link), Ok(opened)) => {
                (link.handle, link.idle) = (Handle::Open(file), false);
                link.lane = opened.lane;
                link.len = if link.found.compressed { opened.len } else { link.len.max(opened.len) };
                link.unread = true;
                link.meet_opened(opened.head);
                let doubted = link.doubted;
                if opened.damaged {
                    cx.metrics.lost(LossReason::ArchiveDamaged, 0);
                    let file = format!("{}/{}", self.directory, link.found.name);
                    tracing::debug!(
                        file,
                        "lost, an unknown number of bytes: the archive is damaged behind what could be read"
                    );
                }
                let is_kept = self.chain.on_opened(file, opened.as_expected, opened.len);
                if !is_kept {
                    cx.act(Action::CloseFile { file });
                }
                if doubted || self.chain.is_searching() || !is_kept {
                    self.scan(cx);
                }
                // While descriptors are short one is asked for at a time, and another may be first by now.
                self.open_ahead(cx);
            }
            // Truncated away meanwhile: nobody reads it.
            (None, Ok(_)) => cx.act(Action::CloseFile { file }),
            (Some(link), Err(error)) => {
                link.handle = Handle::None;
                let is_rotated = link.found.rank > 0;
                // One that grew late is found again when it is listed.
                self.chain.drop_unopened();
                match error {
                    // Renamed between the scan and the opening: look again. Each round makes progress, for the chain
                    // only moves one way.
                    FileError::Changed(_) | FileError::NoDirectory(_) => self.scan(cx),
                    // A listing sets it aside, so that those behind it are read.
                    FileError::Denied(_) | FileError::NotRegular(..) if is_rotated => self.scan(cx),
                    error => told.push(unreadable(&error)),
                }
            }
            (None, Err(_)) => {}
        }
        self.go_on(cx, told);
    }
}

/// What is told of files that can't be listed or opened.
pub(super) fn unreadable(error: &FileError) -> SourceEvent {
    match error {
        FileError::Denied(_) | FileError::NoDirectory(_) | FileError::NotRegular(..) => {
            SourceEvent::Unreadable(error.into())
        }
        FileError::Changed(_) | FileError::NoDescriptor { .. } | FileError::Other { .. } => {
            SourceEvent::Failed(StreamError::OpenFailed, error.into())
        }
    }
}
