//! A new live file that begins as another log does, and what becomes of a log whose copy that may be (chain/doubt.rs).

use super::FileSource;
use crate::capture::context::Context;
use crate::capture::stream::SourceEvent;
use crate::capture::stream::chain::{ContentFate, Doubt};
use crate::model::cursor::{FileId, FilePlace, TailPrint};

/// A file in doubt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubted {
    pub id: FileId,
    /// How long it was when it was listed last.
    pub len: u64,
    /// When its content last changed then, nanoseconds since 1970.
    pub modified_ns: i64,
    /// The sum of its first KiB.
    pub sum: u32,
    /// How far the doubt has come.
    pub doubt: Doubt,
}

impl FileSource {
    /// The live file is read for the first time, and begins with these bytes. Returns whether they are to be dropped, for another
    /// log begins so.
    pub(super) fn begins_as_another(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> bool {
        if !self.reader.group.of_paths {
            return false;
        }
        let Some((sum, file)) = self.chain.sum_of_new_live(bytes) else { return false };
        let is_one =
            cx.memory.is_made_while_looking(file.birth_ns) && cx.memory.begun_so(sum).next().is_some();
        if is_one {
            self.chain.doubt_live(bytes);
            // It may have been listed before it was whole.
            self.scan(cx);
        }
        is_one
    }

    /// The live file, as long as it is in doubt.
    pub fn doubted(&self) -> Option<Doubted> {
        let doubt = self.chain.doubt();
        let front = self.chain.links.front().filter(|_| doubt != Doubt::None)?;
        let (found, sum) = (&front.found, front.head.crc32);
        Some(Doubted { id: found.id, len: found.len, modified_ns: found.modified_ns, sum, doubt })
    }

    /// What was read of the file that was written anew last, and when that was noticed, nanoseconds since 1970.
    pub fn emptied(&self) -> Option<(FilePlace, i64)> {
        self.around.emptied
    }

    /// Lists the directory: the file in doubt may have grown.
    pub fn look_at_doubted(&mut self, cx: &mut Context<'_>) {
        self.scan(cx);
    }

    /// Reads the file in doubt where the other log was left.
    pub fn try_place(&mut self, place: FilePlace, cx: &mut Context<'_>, told: &mut Vec<SourceEvent>) {
        self.chain.try_place(place);
        self.go_on(cx, told);
    }

    /// The file in doubt is a copy that was read up to there, or a log of its own.
    pub fn settle_doubt(
        &mut self,
        place: Option<(u64, TailPrint)>,
        cx: &mut Context<'_>,
        told: &mut Vec<SourceEvent>,
    ) {
        self.chain.decide(place);
        self.go_on(cx, told);
    }

    /// What has become of what was read up to this place.
    pub fn fate_of(&self, place: &FilePlace) -> ContentFate {
        match (self.chain.fate_of(place), self.around.emptied) {
            (ContentFate::Unknown, Some((emptied, at_ns)))
                if emptied.file == place.file && emptied.head == place.head =>
            {
                ContentFate::Emptied(emptied, at_ns)
            }
            (fate, _) => fate,
        }
    }

    /// When its live file was made and last written to, as far as it is known, nanoseconds since 1970. `acked_ns`: something of
    /// it was delivered then.
    pub fn written_for_ns(&self, file: FileId, acked_ns: i64) -> i64 {
        let link = self.chain.in_hand().find(|link| link.found.id == file);
        link.map_or(0, |link| {
            let grew = link.offset > link.found.len;
            let until_ns = if grew { acked_ns.max(link.found.modified_ns) } else { link.found.modified_ns };
            until_ns.saturating_sub(file.birth_ns)
        })
    }

    pub(super) fn note_emptied(&mut self, cx: &Context<'_>) {
        if let Some(place) = self.chain.take_emptied() {
            self.around.emptied = Some((place, cx.now.unix_ns));
        }
    }
}
