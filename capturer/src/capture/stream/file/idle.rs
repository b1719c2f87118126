//! Files that are closed while they are quiet (capture/open_files.rs), and opened again when they grow.
//!
//! Only the live file is closed, read to its end, where inotify tells of each write and its birth time tells it from a file
//! that gets its inode number later. What is deleted between a write to a closed file and its opening is declared
//! as possibly lost; so a file that was written to within the last seconds is closed only where descriptors ran out.

use super::FileSource;
use crate::capture::context::Context;
use crate::capture::io::{Action, FileNo};
use crate::capture::stream::chain::{Handle, Link};

impl FileSource {
    /// Files that are open or being opened.
    pub fn files_open(&self) -> usize {
        self.chain.in_hand().filter(|link| link.handle != Handle::None).count()
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

fn may_close(link: &Link) -> bool {
    let is_live = link.found.rank == 0 && !link.settled && !link.deleted && !link.missing && !link.late;
    let is_plain = link.lane.is_none() && !link.found.compressed && link.found.id.birth_ns != 0;
    let is_known = !link.doubted && !link.candidate;
    // An empty one shows no trace of what was written to it and emptied before it is open again; nor does one with room,
    // which is filled without a change of its length, and by a mapping without a word from inotify.
    let is_read = link.is_read() && link.offset > 0 && !link.room;
    is_live && is_plain && is_known && is_read && matches!(link.handle, Handle::Open(_))
}
