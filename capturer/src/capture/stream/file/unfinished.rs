//! Lines without an end yet. A plain file's last line without newline is delivered when nothing was added to the file
//! for a while; its rest follows later as a record that says so.
//!
//! ```text
//! read to the end, "abc" is left ─▶ nothing comes ─▶ "a line is split behind abc" is told as a part of the position
//!                                       ─▶ reading waits until a checkpoint holds that ─▶ "abc" is delivered, partial
//!                                                               "def\n" comes, sooner or later: "def", continued
//! ```
//! It is not stored that a line continues: the byte before the position shows it, as it is no newline.
//!
//! The split is announced first because a checkpoint is saved later than an output is written. An agent that is killed
//! in between splits the line at the same byte again, however long the line is by then, and an output that has its
//! first part skips it.

use std::sync::Arc;
use std::time::Duration;

use super::FileSource;
use crate::capture::context::{Context, Purpose};
use crate::capture::stream::SourceEvent;
use crate::decode::assemble::Lines;
use crate::model::cursor::Cursor;

/// A checkpoint is saved within this time.
const SPLIT_IS_SAVED: Duration = Duration::from_secs(2);

/// So much that was decoded before is read again where its print is not known: it says whether a line goes on.
pub(super) const LOOK_BACK: u64 = 2;

/// A line that waits for its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unfinished {
    /// Where it begins, an offset in the front file.
    begin: u64,
    /// When something is to be done about it, unless more comes.
    due_ms: u64,
    /// Its bytes so far.
    len: u32,
    /// The second in which its beginning was first seen, as a small number: it is asked how long ago that was.
    since_s: u16,
    /// Its split was told: nothing is read until then.
    is_told: bool,
}

/// Seconds, without the high bits.
fn small_seconds(mono_ms: u64) -> u16 {
    (mono_ms / 1000) as u16
}

impl FileSource {
    /// How long a line waits before its split is told, and from then on.
    fn waits_ms(&self) -> (u64, u64) {
        let after = self.text.rules.unfinished_line_after;
        let told = SPLIT_IS_SAVED.min(after / 2);
        ((after - told).as_millis() as u64, told.as_millis() as u64)
    }

    /// True if the file no longer has the bytes that were read before or, where nothing was read yet, those that were listed.
    pub(super) fn is_another(&self, offset: u64, buffer: &[u8], again: usize) -> bool {
        let front = self.chain.links.front();
        if let Some(front) = front.filter(|front| offset == 0 && front.is_as_listed()) {
            // A later listing may have shown it empty; what it began with before counts.
            if let Some(first) = buffer.get(..front.head.len_bytes as usize) {
                return crc32fast::hash(first) != front.head.crc32;
            }
            let listed = &front.found.head[..front.found.head.len().min(buffer.len())];
            return !buffer.starts_with(listed);
        }
        let tail =
            front.map(|front| &front.tail).filter(|tail| again > 0 && tail.len_bytes as usize == again);
        buffer.len() >= again && tail.is_some_and(|tail| !tail.is_of(&buffer[..again]))
    }

    /// Nothing is read, for a checkpoint has to hold first where a line is split.
    pub(super) fn waits_for_split(&self) -> bool {
        self.unfinished.is_some_and(|unfinished| unfinished.is_told)
    }

    /// Whether the open groups of lines wait with a line, which may be their last: a program that is killed leaves its trace
    /// without the last newline. A line that grows and grows does not hold them up.
    pub(super) fn groups_wait(&self, now_ms: u64) -> bool {
        let longest = self.text.rules.unfinished_line_after + SPLIT_IS_SAVED;
        self.unfinished.is_some_and(|unfinished| {
            u64::from(small_seconds(now_ms).wrapping_sub(unfinished.since_s)) <= longest.as_secs()
        })
    }

    /// What was read before is not there any more.
    pub(super) fn forget_unfinished(&mut self) {
        (self.unfinished, self.split) = (None, None);
    }

    /// Delivers the first part of a line whose split was told. Returns from where on the buffer is new.
    pub(super) fn decode_split(
        &mut self,
        offset: u64,
        buffer: &[u8],
        again: usize,
        from: usize,
        lines: &mut Lines,
        cx: &Context<'_>,
    ) -> usize {
        let front = self.chain.links.front().map(|front| front.found.id);
        let Some((_, split)) = self.split.as_deref().copied().filter(|(file, _)| front == Some(*file)) else {
            return from;
        };
        let until = split.checked_sub(offset).map(|len| again + len as usize);
        let Some(until) = until.filter(|until| *until >= from) else {
            self.split = None;
            return from;
        };
        if until > buffer.len() {
            return from;
        }
        // An open group of lines may keep the part: until the position is past it, the split is told. The next read forgets it.
        if until == from {
            self.split = None;
        }
        let part = &buffer[..until];
        let to = self.decode_lines(part, from, lines, cx);
        let to = self.decode_unfinished(part, to, lines, cx);
        if to > from {
            self.text.continues = !self.text.encoding().ends_line(&part[..to]);
        }
        to
    }

    /// The file was read to its end, and so much of the buffer is done with. Returns whether a position is to be told.
    pub(super) fn note_end(
        &mut self,
        offset: u64,
        buffer: &[u8],
        again: usize,
        to: usize,
        cx: &mut Context<'_>,
    ) -> bool {
        let place = |at: usize| offset + (at - again) as u64;
        let len = self.unfinished(&buffer[to..]);
        let waits = len > 0 || self.assembler.is_within_line();
        if !waits || self.text.rules.unfinished_line_after.is_zero() {
            self.unfinished = None;
            return false;
        }
        let (begin, (wait_ms, told_ms)) = (place(to), self.waits_ms());
        let len_bytes = u32::try_from(buffer.len() - to).unwrap_or(u32::MAX);
        let before = self.unfinished.filter(|before| before.begin == begin);
        let since_s = before.map_or(small_seconds(cx.now.mono_ms), |before| before.since_s);
        let due_ms = cx.now.mono_ms + wait_ms;
        let new = Unfinished { begin, due_ms, len: len_bytes, since_s, is_told: false };
        let mut unfinished = before.filter(|before| before.len == len_bytes).unwrap_or(new);
        if unfinished.due_ms <= cx.now.mono_ms {
            unfinished = Unfinished { due_ms: cx.now.mono_ms + told_ms, is_told: true, ..unfinished };
            self.split = self.chain.links.front().map(|front| Box::new((front.found.id, place(to + len))));
        }
        self.unfinished = Some(unfinished);
        self.set_unfinished_timer(cx);
        unfinished.is_told
    }

    /// A split that was told and not yet made is a part of the position.
    pub(super) fn note_split(&self, end: &mut Cursor) {
        if let (Cursor::File(end), Some((file, split))) = (end, self.split.as_deref().copied())
            && end.file == file
            && end.offset < split
        {
            Arc::make_mut(end).split = split;
        }
    }

    pub(super) fn set_unfinished_timer(&self, cx: &mut Context<'_>) {
        if let Some(unfinished) = self.unfinished {
            cx.wake(self.stream, Purpose::Unfinished, unfinished.due_ms);
        }
    }

    /// A line that waited long enough is read again, and with it whatever came meanwhile.
    pub(super) fn look_at_unfinished(&mut self) {
        let Some(unfinished) = &mut self.unfinished else { return };
        unfinished.is_told = false;
        if let Some(front) = self.chain.links.front_mut() {
            front.unread = true;
        }
    }

    /// Another file is read next. A plain line does not go on there.
    pub(super) fn leave_open_line(&mut self, told: &mut Vec<SourceEvent>) {
        self.unfinished = None;
        let mut lines = Lines::default();
        self.assembler.cut_open(&mut lines);
        if !lines.records.is_empty() {
            self.tell(lines, Vec::new(), 0, told);
        }
    }
}
