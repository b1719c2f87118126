//! Files that are closed while they are quiet (capture/open_files.rs), and opened again when they grow.
//!
//! Only the live file is closed, read to its end, where inotify tells of each write and its birth time tells it from a file
//! that gets its inode number later. What is deleted between a write to a closed file and its opening is declared
//! as possibly lost; so a file that was written to within the last seconds is closed only where descriptors ran out.

use super::FileSource;
use super::late::is_unwatched;
use crate::capture::context::Context;
use crate::capture::io::{Action, FileNo, FoundFile};
use crate::capture::stream::chain::{Handle, Link};

impl FileSource {
    /// Files that are open or being opened.
    pub fn files_open(&self) -> usize {
        self.chain.in_hand().filter(|link| link.handle != Handle::None).count()
    }

    /// One of its files is open. One that is being opened may wait for a descriptor.
    pub fn has_open_file(&self) -> bool {
        self.open_files().next().is_some()
    }

    /// One of its files is being opened.
    pub(super) fn is_opening(&self) -> bool {
        self.chain.in_hand().any(|link| matches!(link.handle, Handle::Opening(_)))
    }

    /// Files that are open, to be closed when the stream is dropped.
    pub fn open_files(&self) -> impl Iterator<Item = FileNo> {
        self.chain.in_hand().filter_map(|link| match link.handle {
            Handle::Open(file) => Some(file),
            Handle::None | Handle::Opening(_) => None,
        })
    }

    /// Nothing is to be read of it, and nothing says that this will change: it may be closed.
    pub fn is_quiet(&self) -> bool {
        let alone = self.chain.links.len() == 1 && self.chain.parked.is_empty();
        let at_rest = self.reading.is_none() && !self.scanning && self.set_aside.is_none() && !self.gone;
        alone
            && at_rest
            && self.opened
            && !self.chain.is_searching()
            && self.chain.links.front().is_some_and(may_close)
    }

    /// It found no place for a file.
    pub fn wants_to_open(&self) -> bool {
        self.waits_to_open
    }

    /// There is a place now.
    pub fn open_at_last(&mut self, cx: &mut Context<'_>) {
        self.waits_to_open = false;
        self.open_ahead(cx);
    }

    /// Files wait for descriptors. What it read and its writers may go on with is closed; and if one of its own is among those
    /// that wait, so is what it does not read now. That may be rotated away before it is opened again, and is a loss then.
    pub fn give_back(&mut self, cx: &mut Context<'_>) {
        let waits = self.is_opening();
        let mut at = 0;
        while let Some(parked) = self.chain.parked.get(at) {
            let is_read = parked.link.is_read() && may_give_back(&parked.link);
            match parked.link.handle {
                // Also one that dockerd may go on with: it has a name by which it is opened again when it is written to.
                Handle::Open(file) if is_read => {
                    self.chain.close_parked(at);
                    cx.act(Action::CloseFile { file });
                }
                _ => at += 1,
            }
        }
        for (at, link) in self.chain.links.iter_mut().enumerate().filter(|_| waits) {
            let is_busy = at == 0 && (self.reading.is_some() || link.unread);
            let Handle::Open(file) = link.handle else { continue };
            // One that waits to be read is opened as well later, whatever it is.
            let may_go = if at > 0 { can_be_found(link) } else { may_give_back(link) };
            if is_busy || !may_go {
                continue;
            }
            cx.act(Action::CloseFile { file });
            // As one that is quiet, or as one that was never opened.
            (link.handle, link.idle) = (Handle::None, may_be_idle(link));
            link.unread |= !link.idle;
        }
        self.claim(cx);
    }

    /// Closes it until it grows, if it still may be.
    pub fn close_quiet(&mut self, cx: &mut Context<'_>) {
        if !self.is_quiet() {
            return;
        }
        let Some(front) = self.chain.links.front_mut() else { return };
        if let Handle::Open(file) = front.handle {
            cx.act(Action::CloseFile { file });
            (front.handle, front.idle) = (Handle::None, true);
        }
    }
}

/// While descriptors are short it may be closed before it is read, for it is known again.
fn may_give_back(link: &Link) -> bool {
    let is_known = !link.doubted && !link.candidate && !link.late && !link.is_copy();
    can_be_found(link) && is_known && !link.found.compressed && !link.room
}

/// It has a name by which it is opened again, and is then told from another file.
fn can_be_found(link: &Link) -> bool {
    let is_named = link.found.rank < FoundFile::RANK_STRANGE && !is_unwatched(link);
    is_named && link.lane.is_none() && link.found.id.birth_ns != 0
}

fn may_close(link: &Link) -> bool {
    may_be_idle(link) && matches!(link.handle, Handle::Open(_))
}

fn may_be_idle(link: &Link) -> bool {
    let is_live = link.found.rank == 0 && !link.settled && !link.deleted && !link.missing && !link.late;
    let is_plain = link.lane.is_none() && !link.found.compressed && link.found.id.birth_ns != 0;
    let is_known = !link.doubted && !link.candidate;
    // An empty one shows no trace of what was written to it and emptied before it is open again; nor does one with room,
    // which is filled without a change of its length, and by a mapping without a word from inotify.
    let is_read = link.is_read() && link.offset > 0 && !link.room;
    is_live && is_plain && is_known && is_read
}
