//! Followed paths with links on their way. What is read is where the links lead; when one is changed, the file that was
//! read so far is read to its end and for as long as its writer goes on, as one that was rotated, and the new one behind it.
//!
//! ```text
//! current.log ─▶ 7/app.log            current.log ─▶ 8/app.log
//! ─────────────────────────────┬──────────────────────────────▶
//!   read 7/app.log             └ it is open ─▶ list 8/ ─▶ 7/app.log to its end ─▶ 8/app.log
//! ```
//! A position says in which file it is, so that a link that is changed while the agent does not run skips nothing.

use super::FileSource;
use crate::capture::support::Context;
use crate::cursor::{Cursor, FileId};
use crate::stream::Told;
use crate::stream::chain::Handle;

/// Files that were left and may still be read.
const LEFT_MAX: usize = 16;

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    /// What the path is called; empty = there are no links on its way.
    name: String,
    /// Directory and name of the file that it leads to now, if another is still read.
    next: Option<(String, String)>,
    /// Where files are that are not where the path leads now.
    left: Vec<(FileId, String)>,
}

impl Elsewhere {
    /// The path leads elsewhere by now.
    pub(super) fn is_waiting(&self) -> bool {
        self.next.is_some()
    }
}

impl FileSource {
    /// Whether it has this file in hand.
    pub fn reads(&self, id: FileId) -> bool {
        self.chain.links.iter().any(|link| link.found.id.can_be(id))
    }

    /// What the followed path is called, and where it leads now.
    pub fn named(mut self, name: &str, target: &str) -> FileSource {
        self.elsewhere.name = name.to_owned();
        self.elsewhere.next = (self.path() != target).then(|| split(target));
        self
    }

    /// The path leads to this file.
    pub fn lead_to(&mut self, target: &str, cx: &mut Context<'_>, told: &mut Vec<Told>) {
        self.elsewhere.next = (self.path() != target).then(|| split(target));
        if self.elsewhere.is_waiting() {
            self.go_on(cx, told);
        }
    }

    /// Goes over to where the path leads, once all that is there so far is open.
    pub(super) fn go_over(&mut self, cx: &mut Context<'_>) {
        let is_safe = |handle: Handle, deleted: bool| deleted || matches!(handle, Handle::Open(_));
        let parked = self.chain.parked.iter().map(|parked| &parked.link);
        let all_open = self.chain.links.iter().chain(parked).all(|link| is_safe(link.handle, link.deleted));
        if self.scanning || !all_open {
            return;
        }
        let Some((directory, live_name)) = self.elsewhere.next.take() else { return };
        let path = self.path();
        let parked = self.chain.parked.iter_mut().map(|parked| &mut parked.link);
        for link in self.chain.links.iter_mut().chain(parked) {
            link.elsewhere = true;
            // As one that was rotated: it is no longer the live file.
            link.found.rank = link.found.rank.max(1);
            self.elsewhere.left.push((link.found.id, path.clone()));
        }
        let excess = self.elsewhere.left.len().saturating_sub(LEFT_MAX);
        self.elsewhere.left.drain(..excess);
        (self.directory, self.live_name) = (directory, live_name);
        self.scan(cx);
    }

    /// Adds to a position in which file it is.
    pub(super) fn note_path(&self, cursor: &mut Cursor) {
        let Cursor::File(cursor) = cursor else { return };
        if let Some((_, path)) = self.elsewhere.left.iter().rev().find(|(id, _)| *id == cursor.file) {
            cursor.at.clone_from(path);
        } else if !self.elsewhere.name.is_empty() && self.path() != self.elsewhere.name {
            cursor.at = self.path();
        }
    }
}

fn split(path: &str) -> (String, String) {
    let (directory, name) = path.rsplit_once('/').unwrap_or((".", path));
    (directory.to_owned(), name.to_owned())
}
