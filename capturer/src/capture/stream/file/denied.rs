//! Rotated files of a log that can't be read (chain/denied.rs): when they are looked at again, and what is told of them.

use super::FileSource;
use crate::capture::context::Context;
use crate::capture::io::{DeniedFile, FileError};
use crate::capture::stream::SourceEvent;
use crate::capture::stream::chain::{Changes, Denied, Gone};
use crate::decode::assemble::Lines;
use crate::model::cursor::FileId;

/// inotify tells of rights, not of a repaired disk nor of a changed group or profile.
const DENIED_LOOK_MS: u64 = 30_000;

impl FileSource {
    /// Takes what a listing shows and nobody could look into, before what it shows beside that. What another stream reads is
    /// that one's.
    pub fn set_denied(&mut self, mut denied: Vec<DeniedFile>, cx: &Context<'_>) {
        denied.retain(|denied| !self.is_read_elsewhere(denied.found.id, cx));
        let open = self.undelivered();
        if self.chain.set_denied(denied, &open) {
            self.assembler.reset();
        }
    }

    /// The position has such files, so it is told when they change, once outputs are there; and when a loss was declared,
    /// which another start would declare again.
    pub fn tell_position(&mut self, told: &mut Vec<SourceEvent>) {
        if self.chain.take_position_changed() {
            self.tell(Lines::default(), Vec::new(), 0, told);
        }
    }

    pub(super) fn look_at_denied_later(&mut self, cx: &mut Context<'_>) {
        if !self.chain.denied().is_empty() {
            self.look_at_rotated_by(cx.now.mono_ms + DENIED_LOOK_MS, cx);
        }
    }

    /// Rights of one of its files changed.
    pub fn on_rights_changed(&mut self, cx: &mut Context<'_>) {
        if !self.chain.denied().is_empty() {
            self.scan(cx);
        }
    }

    /// Files with unread bytes that can't be read, by path, and why.
    pub fn denied(&self) -> impl Iterator<Item = (String, &FileError)> {
        let denied = self.chain.denied().iter();
        denied.filter_map(|Denied { name, error, .. }| Some((self.path_of(name), error.as_ref()?)))
    }

    /// It is over, and nobody looks at them any more. If the log comes again, they are read where they were left.
    pub(super) fn declare_never_readable(&self, cx: &Context<'_>) {
        let gone = |denied: &Denied| Gone {
            name: denied.name.clone(),
            bytes: 0,
            in_place: false,
            file: FileId::default(),
        };
        let unreadable: Vec<Gone> = self.chain.denied().iter().map(gone).collect();
        self.declare(&Changes { unreadable, ..Changes::default() }, cx);
    }
}
