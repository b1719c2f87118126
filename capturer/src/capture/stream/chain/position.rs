//! Positions of a chain, as cursors: where every file that lines are still open in is to be read on.

use std::sync::Arc;

use super::{Chain, Handle, Link, Stretch, Undelivered, begins_as};
use crate::capture::io::FileNo;
use crate::decode::damage::without_room;
use crate::limits::{HEAD_BYTES, PLACES_MAX};
use crate::model::cursor::{Cursor, FileCursor, FileId, FilePlace, HeadPrint};

impl Chain {
    /// These bytes stand at `offset` in the front: its print may be known better now. Returns files to close: a file that
    /// was compressed before anything of it was known may be in the chain twice, as itself and as its archive.
    pub fn saw(&mut self, offset: u64, bytes: &[u8]) -> Vec<FileNo> {
        let Some(front) = self.links.front_mut() else { return Vec::new() };
        let known = front.head.len_bytes as usize;
        let from =
            known.checked_sub(offset as usize).filter(|from| known < HEAD_BYTES && *from < bytes.len());
        let Some(from) = from else { return Vec::new() };
        // As a listing takes it: otherwise a start would find another head in a file that begins with a hole.
        let more = without_room(&bytes[from..bytes.len().min(from + HEAD_BYTES - known)]);
        let mut hasher = crc32fast::Hasher::new_with_initial_len(front.head.crc32, known as u64);
        hasher.update(more);
        front.head = HeadPrint { len_bytes: (known + more.len()) as u32, crc32: hasher.finalize() };
        let head = front.head;
        let is_twin = |link: &Link| link.found.compressed && begins_as(&link.found, &head);
        let (mut twins, mut at) = (Vec::new(), 0);
        self.links.retain(|link| {
            at += 1;
            let twin = at > 1 && is_twin(link);
            if let (true, Handle::Open(file)) = (twin, link.handle) {
                twins.push(file);
            }
            !twin
        });
        twins
    }

    /// Bytes known to be unread.
    pub fn unread_bytes(&self) -> u64 {
        self.links.iter().map(Link::unread_bytes).sum()
    }

    /// Bytes of deleted files that are held open to be read.
    pub fn deleted_open_bytes(&self) -> u64 {
        let held = self.links.iter().filter(|link| link.deleted);
        held.map(Link::unread_bytes).sum()
    }

    /// Logical position of the next byte to read.
    pub fn position(&self) -> u64 {
        self.base.wrapping_add(self.links.front().map_or(0, |front| front.offset))
    }

    /// What is read next was delivered in an earlier run, at least on one channel.
    pub fn is_within_delivered(&self) -> bool {
        let position = self.position();
        self.delivered_to.iter().any(|to| *to > 0 && to.wrapping_sub(position) as i64 > 0)
    }

    /// The last byte that was read stood in this file.
    pub fn was_read_last(&self, file: FileId) -> bool {
        let position = self.position();
        let last = self.stretches.iter().rev().find(|stretch| stretch.start != position);
        last.is_some_and(|stretch| stretch.file == file)
    }

    /// Logical position that is saved: what is left out, because it is not text, counts as not read.
    fn position_to_save(&self) -> u64 {
        let left_out = self.links.front().and_then(|front| front.left_out);
        left_out.map_or_else(|| self.position(), |from| self.base.wrapping_add(from))
    }

    /// The cursor for a stream with these lines not delivered on its channels.
    pub fn cursor(&mut self, open: &[Undelivered; 2]) -> Cursor {
        let position = self.position_to_save();
        self.renew_mark();
        let since = |open: &Undelivered| open.starts.first().copied();
        let from = open.iter().filter_map(since).min().unwrap_or(position);
        let searched =
            self.orphan.as_ref().filter(|_| from == position).map(|orphan| orphan.cursor(&self.reached));
        while self.stretches.len() > 1 && self.stretches[1].start <= from {
            let end = self.stretches[1].start;
            let Some(Stretch { base, file, head, tail, .. }) = self.stretches.pop_front() else { break };
            self.done.push(FilePlace { file, head, tail, offset: end.wrapping_sub(base), skip: [0; 2] });
        }
        if let Some(searched) = searched {
            // What is found in its place says nothing of where its content went. A start looks for that again.
            let (done, denied) = (std::mem::take(&mut self.done), self.denied_places().into());
            return Cursor::File(Arc::new(FileCursor { done, denied, ..searched }));
        }
        let Some(Stretch { base, file, head, tail, is_copy, .. }) = self.stretches.front().copied() else {
            return Cursor::Beginning;
        };
        // What an earlier run delivered stays delivered, also while it is not read again yet.
        let done = |channel: usize| {
            let done = since(&open[channel]).unwrap_or(position);
            let before = self.delivered_to[channel];
            if before.wrapping_sub(done) as i64 > 0 && before > 0 { before } else { done }
        };
        let skip = [0, 1].map(|channel| done(channel).wrapping_sub(from));
        let begun = 1.max(self.stretches.len().saturating_sub(PLACES_MAX));
        let reached: Vec<_> = (begun..self.stretches.len()).map(|at| self.place_in(at, open)).collect();
        let link = self.links.iter().find(|link| link.found.id == file);
        // Nothing is lost with what is left out.
        let len = link.map_or(0, |link| link.left_out.unwrap_or_else(|| link.known_len()));
        let place = FilePlace { file, head, tail, offset: from.wrapping_sub(base), skip };
        Cursor::File(Arc::new(FileCursor {
            len,
            is_copy,
            ended: self.links.is_empty() && from == position && self.ended,
            reached: reached.into(),
            denied: self.denied_places().into(),
            done: std::mem::take(&mut self.done),
            ..FileCursor::at(place)
        }))
    }

    /// Where to go on if that file is there and none before it.
    pub(super) fn place_in(&self, at: usize, open: &[Undelivered; 2]) -> FilePlace {
        let position = self.position_to_save();
        let Stretch { start, base, file, head, tail, .. } = self.stretches[at];
        let end = self.stretches.get(at + 1).map_or(position, |next| next.start);
        // The first line of a channel that is wholly behind what is gone.
        let first = open.each_ref().map(|open| open.starts.iter().copied().find(|line| *line >= start));
        let from = first.iter().map(|first| first.unwrap_or(position)).min().unwrap_or(position).min(end);
        // Of a line whose beginning is gone the rest is taken, from here on.
        let done = |channel: usize| if open[channel].in_line { from } else { position };
        let skip = [0, 1].map(|channel| {
            // What an earlier run delivered stays delivered, also while it is not read again yet.
            let (done, before) = (first[channel].unwrap_or(done(channel)), self.delivered_to[channel]);
            let is_before = before > 0 && before.wrapping_sub(done) as i64 > 0;
            if is_before { before.wrapping_sub(from) } else { done - from }
        });
        FilePlace { file, head, tail, offset: from.wrapping_sub(base), skip }
    }
}
