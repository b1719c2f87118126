//! Lines whose end is not there yet. A plain file's last line without newline is delivered when nothing was added to the
//! file for a while, and its rest, when it comes, as a record that says so.
//!
//! ```text
//! read to the end, "abc" is left ─▶ nothing for a while ─▶ the position "is split behind abc" is told
//!                                                      ─▶ a little later, still nothing: "abc" is delivered, partial
//!                                                                                  "def\n" comes: "def", continued
//! ```
//! That a line goes on is not remembered: it is seen by the byte before the position, which is no newline.
//!
//! The split is told first because the checkpoint is written later than an output: an agent that is killed in between
//! delivers the same part of the line again, whatever the line is by then, and an output that has it already passes it over.

use super::FileSource;
use crate::capture::support::{Context, Timer};
use crate::cursor::Cursor;
use crate::decode::assemble::Lines;
use crate::stream::Told;

/// A checkpoint is saved within so long.
const SPLIT_IS_SAVED_MS: u64 = 2_000;

/// A line that waits for its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unfinished {
    /// The file's end when it was read, an offset in the front file.
    end: u64,
    /// Nothing was added since.
    since_ms: u64,
    /// Where its split was told to be.
    told: Option<u64>,
}

/// What is to be done about a line without end at the end of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// Its split is told.
    Tell,
    /// It is delivered.
    Deliver,
}

impl FileSource {
    /// Delivers what was delivered by an earlier run up to the middle of a line. Returns from where on the buffer is new.
    pub(super) fn decode_split(
        &mut self,
        offset: u64,
        buffer: &[u8],
        again: usize,
        from: usize,
        lines: &mut Lines,
        cx: &Context<'_>,
    ) -> usize {
        let front = self.chain.links.front();
        let Some((_, split)) = self.split.filter(|(id, _)| front.is_some_and(|front| front.found.id == *id)) else {
            return from;
        };
        let Some(until) = split.checked_sub(offset).map(|len| again + len as usize) else {
            self.split = None;
            return from;
        };
        if until > buffer.len() || until < from {
            return from;
        }
        self.split = None;
        let part = &buffer[..until];
        let to = self.decode_lines(part, from, lines, cx);
        let to = self.decode_unfinished(part, to, lines, cx);
        if to > from {
            self.text.continues = !self.text.encoding().ends_line(&part[..to]);
        }
        to
    }

    /// Decides what becomes of a line without end at the end of the file. `to`: so much of the buffer is done with.
    pub(super) fn decode_end(
        &mut self,
        offset: u64,
        buffer: &[u8],
        again: usize,
        to: &mut usize,
        lines: &mut Lines,
        cx: &mut Context<'_>,
    ) -> Due {
        let at = |place: usize| offset + (place - again) as u64;
        let len = self.unfinished(&buffer[*to..]);
        let split = (len > 0 || self.assembler.is_within_line()).then(|| at(*to + len));
        let due = self.note_end(at(buffer.len()), split, cx);
        if due == Due::Deliver {
            *to = self.decode_unfinished(buffer, *to, lines, cx);
        }
        due
    }

    /// A split that is about to be made is a part of the position.
    pub(super) fn note_split(&self, end: &mut Cursor) {
        let told = self.unfinished.and_then(|unfinished| unfinished.told);
        if let (Cursor::File(end), Some(split), Some(front)) = (end, told, self.chain.links.front())
            && end.file == front.found.id
        {
            end.split = split;
        }
    }

    /// When the split is told, and when the line is delivered.
    fn unfinished_times(&self, unfinished: Unfinished) -> (u64, u64) {
        let after_ms = self.text.rules.unfinished_line_after.as_millis() as u64;
        let tell_ms = after_ms.saturating_sub(SPLIT_IS_SAVED_MS);
        (unfinished.since_ms + tell_ms, unfinished.since_ms + after_ms)
    }

    /// The file was read to its end, which is there; a line that is not finished would be split there.
    fn note_end(&mut self, end: u64, split: Option<u64>, cx: &mut Context<'_>) -> Due {
        if split.is_none() || self.text.rules.unfinished_line_after.is_zero() {
            self.unfinished = None;
            return Due::Nothing;
        }
        let new = Unfinished { end, since_ms: cx.now.mono_ms, told: None };
        let unfinished = self.unfinished.filter(|before| before.end == end).unwrap_or(new);
        let (tell_ms, deliver_ms) = self.unfinished_times(unfinished);
        let due = match cx.now.mono_ms {
            now if now >= deliver_ms => Due::Deliver,
            now if now >= tell_ms && unfinished.told.is_none() => Due::Tell,
            _ => Due::Nothing,
        };
        self.unfinished = match due {
            Due::Deliver => None,
            Due::Tell => Some(Unfinished { told: split, ..unfinished }),
            Due::Nothing => Some(unfinished),
        };
        self.set_unfinished_timer(cx);
        due
    }

    fn set_unfinished_timer(&self, cx: &mut Context<'_>) {
        if let Some(unfinished) = self.unfinished {
            let (tell_ms, deliver_ms) = self.unfinished_times(unfinished);
            let at = if unfinished.told.is_some() { deliver_ms } else { tell_ms };
            cx.timers.set_earlier(Timer::Stream(self.stream), at);
        }
    }

    /// A line that waited long enough is read again, and with it whatever came meanwhile.
    pub(super) fn look_at_unfinished(&mut self, cx: &mut Context<'_>) {
        let Some(unfinished) = self.unfinished else { return };
        let (tell_ms, deliver_ms) = self.unfinished_times(unfinished);
        let at = if unfinished.told.is_some() { deliver_ms } else { tell_ms };
        if cx.now.mono_ms < at {
            return self.set_unfinished_timer(cx);
        }
        if let Some(front) = self.chain.links.front_mut() {
            front.unread = true;
        }
    }

    /// Another file is read next. A plain line does not go on there.
    pub(super) fn leave_open_line(&mut self, told: &mut Vec<Told>) {
        self.unfinished = None;
        let mut lines = Lines::default();
        self.assembler.cut_open(&mut lines);
        if !lines.records.is_empty() {
            self.tell(lines, Vec::new(), 0, told);
        }
    }
}
