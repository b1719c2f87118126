//! Pieces become lines. Docker cuts a line longer than 16 KiB into pieces of exactly 16,384 bytes; the only mark is
//! that a piece does not end in a newline, and all pieces of a line carry the time of its first. A line may stay open
//! for long, on either channel, while the other goes on.
//!
//! When is an open line whole?
//! - a piece with a newline ends it,
//! - a piece shorter than 16 KiB without newline ends it: only the end of the container's output cuts there,
//! - a piece with another time on the same channel begins a new line: the old one was left open at an exit and must
//!   not be joined to the next run's first line,
//! - the container has exited since and all was read ([`Assembler::close_begun_by`]).
//!
//! Other sources mark their pieces in other ways ([`Join`]).
//!
//! A line of a plain file may be delivered before its end is there ([`Assembler::cut_open`]), and so may one whose parts have
//! tags ([`Assembler::cut_part`]). Its record is marked, and so is that of its rest ([`Assembler::continue_line`]).
//!
//! A line longer than `line_bytes_max` is cut there, marked and counted. The rest of the line is skipped, and reading
//! goes on.
//!
//! If the config asks for it, whole lines are joined further ([`super::multiline`]); a group of them is then open as a
//! line is. Not here: which lines were delivered before (stream/).

use std::sync::Arc;

pub use crate::decode::lines::Lines;
use crate::decode::lines::{Kept, Marks, Whole};
use crate::decode::multiline::Groups;
use crate::decode::{Piece, json_line, timestamp, utf8};
use crate::limits::PIECE_BYTES;
use crate::model::record::{BufferKind, MessageForm, Record, StdType};
use crate::settings::Pipeline;

/// Which lines a push completed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Completed {
    /// The line that was open on this channel before.
    pub previous: bool,
    /// The line that the piece belongs to.
    pub this: bool,
}

/// How to tell which pieces belong to one line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Join {
    /// Docker's pieces, by their times and lengths.
    #[default]
    Docker,
    /// A tag on each piece ([`super::cri`]). These pieces can have any length, and each has a time of its own.
    Tag,
    /// Only the newline that ends a line.
    Newline,
}

/// Joins pieces, per channel. Holds at most two open lines of `line_bytes_max` each.
#[derive(Debug)]
pub struct Assembler {
    line_bytes_max: usize,
    /// Boxed: few sources have an open line while they are idle.
    open: [Option<Box<OpenLine>>; 2],
    /// Boxed: most sources join no lines.
    groups: Option<Box<Groups>>,
    join: Join,
    strips_cr: bool,
    copies: bool,
    continued: bool,
    /// By channel: parts with tags were delivered, and their rest was not read yet.
    cut: [bool; 2],
}

#[derive(Debug)]
struct OpenLine {
    line: Kept,
    /// False if an earlier run delivered the line; its pieces are skipped.
    deliver: bool,
    /// Where the line's last piece began.
    latest_at: u64,
    join: Join,
}

impl Assembler {
    /// Lines are cut at this many bytes.
    pub fn new(line_bytes_max: usize) -> Assembler {
        Assembler {
            line_bytes_max,
            open: [None, None],
            groups: None,
            join: Join::default(),
            strips_cr: false,
            copies: false,
            continued: false,
            cut: [false; 2],
        }
    }

    /// Joins whole lines too, if the pipeline has `multiline`.
    pub fn with_pipeline(mut self, pipeline: Option<&Arc<Pipeline>>) -> Assembler {
        self.groups = pipeline.and_then(Groups::new).map(Box::new);
        self
    }

    /// Whether carriage returns before a newline belong to the line's end.
    pub fn strip_cr(mut self, strips: bool) -> Assembler {
        self.strips_cr = strips;
        self
    }

    /// As set by `strip_cr`.
    pub fn strips_cr(&self) -> bool {
        self.strips_cr
    }

    /// How the pieces that follow are joined.
    pub fn join(&mut self, join: Join) {
        self.join = join;
    }

    /// Whether the next piece, if it begins a line, is the rest of a line that was delivered before it ended.
    pub fn continue_line(&mut self, continued: bool) {
        self.continued = continued;
    }

    /// Whether the pieces that follow are in a temporary buffer, because they were decoded from another encoding.
    pub fn copy(&mut self, copies: bool) {
        self.copies = copies;
    }

    /// How many whole lines the open group of a channel has: the last completed ones that no record has yet.
    pub fn grouped(&self, std_type: StdType) -> usize {
        self.groups.as_ref().map_or(0, |groups| groups.lines(std_type))
    }

    /// In how many milliseconds the open group of a channel will have waited long enough, by the time of its latest
    /// line (or by now, if lines have no time); `None` = no group is open.
    pub fn group_waits_ms(&self, std_type: StdType, unix_ns: i64) -> Option<u64> {
        let groups = self.groups.as_ref()?;
        let latest_ns = groups.latest_ns(std_type)?;
        let timeout_ms = groups.timeout_ms();
        let age_ms = if latest_ns > 0 { (unix_ns - latest_ns).max(0) as u64 / 1_000_000 } else { 0 };
        Some(timeout_ms.saturating_sub(age_ms))
    }

    /// Ends the open group of a channel. An open line behind it stays open.
    pub fn end_group(&mut self, std_type: StdType, out: &mut Lines) {
        if let Some(groups) = &mut self.groups {
            groups.end(std_type, out);
        }
    }

    /// Whether this piece is the first of a line.
    pub fn begins_line(&self, buffer: &[u8], piece: &Piece) -> bool {
        !self.continues(buffer, piece)
    }

    fn continues(&self, buffer: &[u8], piece: &Piece) -> bool {
        let open = self.open[piece.std_type.index()].as_ref().filter(|open| open.join == self.join);
        open.is_some_and(|open| self.join != Join::Docker || open.line.time == buffer[piece.time.clone()])
    }

    /// Where the lines of a channel begin that no record has yet, and whether the last of them is unfinished.
    pub fn undelivered(&self, std_type: StdType) -> (Vec<u64>, bool) {
        let line = self.open[std_type.index()].as_ref();
        let grouped = self.groups.as_ref().and_then(|groups| groups.on(std_type));
        let grouped = grouped.into_iter().flat_map(|group| group.starts());
        (grouped.chain(line.map(|open| open.line.began_at)).collect(), line.is_some())
    }

    /// Where the last piece of a channel's open line began, if a tag says that more follows.
    pub fn open_part(&self, std_type: StdType) -> Option<u64> {
        let open = self.open[std_type.index()].as_ref().filter(|open| open.join == Join::Tag);
        open.map(|open| open.latest_at)
    }

    /// Whether a line of a plain file is open.
    pub fn is_within_line(&self) -> bool {
        self.open.iter().flatten().any(|open| open.join == Join::Newline)
    }

    /// Where the open line or group of a channel began.
    pub fn open_on(&self, std_type: StdType) -> Option<u64> {
        let group = self.groups.as_ref().and_then(|groups| groups.on(std_type));
        let line = self.open[std_type.index()].as_ref();
        group.and_then(|group| group.starts().next()).or(line.map(|open| open.line.began_at))
    }

    /// The time of the open line or group of a channel, nanoseconds since 1970.
    pub fn open_time(&self, std_type: StdType) -> Option<i64> {
        let group = self.groups.as_ref().and_then(|groups| groups.on(std_type));
        let line = self.open[std_type.index()].as_ref();
        timestamp::parse(group.map(|group| group.time()).or(line.map(|open| &open.line.time[..]))?)
    }

    /// Takes the next piece. `at` is where it begins, in the caller's count. `deliver` matters only for a piece that
    /// begins a line; false skips the whole line.
    pub fn push(
        &mut self,
        buffer: &[u8],
        piece: &Piece,
        at: u64,
        deliver: bool,
        out: &mut Lines,
    ) -> Completed {
        let channel = piece.std_type.index();
        let mut completed = Completed::default();
        let continues = self.continues(buffer, piece);
        if !continues && self.open[channel].is_some() {
            self.close(piece.std_type, out);
            completed.previous = true;
        }
        let is_rest = !continues && self.join == Join::Tag && std::mem::take(&mut self.cut[channel]);
        let continued = self.continued || is_rest;
        let ends = piece.complete || self.join == Join::Docker && piece.decoded_len < PIECE_BYTES;
        if !continues && ends {
            // The usual line. An empty piece without a newline is not a line: nothing was printed.
            completed.this = piece.complete || piece.decoded_len > 0;
            if completed.this && deliver {
                self.emit_in_place(buffer, piece, at, continued, out);
            }
            return completed;
        }
        let line = self.open[channel].get_or_insert_with(|| {
            Box::new(OpenLine {
                line: Kept {
                    began_at: at,
                    time: buffer[piece.time.clone()].to_vec(),
                    text: Vec::new(),
                    form: piece.form,
                    decoded_len: 0,
                    marks: Marks { continued, ..Marks::default() },
                },
                deliver,
                latest_at: at,
                join: self.join,
            })
        });
        line.latest_at = at;
        // The line's end does not count towards its length.
        let text = &buffer[piece.text.clone()];
        let strips = self.strips_cr && piece.complete;
        let returns = if strips { trailing_cr(text, piece.form) } else { 0 };
        let text = &text[..text.len() - returns * cr_len(piece.form)];
        line.append(text, piece.decoded_len - returns, self.line_bytes_max);
        if ends {
            if strips {
                line.strip_cr();
            }
            self.close(piece.std_type, out);
            completed.this = true;
        }
        completed
    }

    /// Ends the open line of a channel, if there is one.
    pub fn close(&mut self, std_type: StdType, out: &mut Lines) -> bool {
        let Some(open) = self.open[std_type.index()].take() else { return false };
        if open.deliver && !is_empty_rest(&open.line.whole()) {
            self.put(std_type, &open.line.whole(), out);
        }
        true
    }

    /// Delivers what has come of the open line of a plain file, marked as partial. Its rest becomes another record.
    pub fn cut_open(&mut self, out: &mut Lines) {
        for std_type in StdType::ALL {
            let open = self.open[std_type.index()].take_if(|open| open.join == Join::Newline);
            let Some(mut open) = open.filter(|open| open.deliver) else { continue };
            open.line.marks.partial = true;
            self.put(std_type, &open.line.whole(), out);
            self.end_group(std_type, out);
        }
    }

    /// Delivers a channel's open parts, whose rest did not come in time, marked. What comes next on the channel is the rest.
    pub fn cut_part(&mut self, std_type: StdType, out: &mut Lines) {
        let channel = std_type.index();
        let Some(mut open) = self.open[channel].take_if(|open| open.join == Join::Tag) else { return };
        self.cut[channel] = true;
        if open.deliver && !is_empty_rest(&open.line.whole()) {
            open.line.marks.partial = true;
            self.put(std_type, &open.line.whole(), out);
        }
    }

    fn put(&mut self, std_type: StdType, line: &Whole<'_>, out: &mut Lines) {
        match &mut self.groups {
            Some(groups) => groups.take(std_type, line, out),
            None => out.push_made(std_type, line),
        }
    }

    /// Ends open lines and groups that began no later than this, when the container exited: nothing will continue them.
    /// A line that the next run has begun stays open. Returns for which channels a line ended.
    pub fn close_begun_by(&mut self, unix_ns: i64, out: &mut Lines) -> [bool; 2] {
        StdType::ALL.map(|std_type| {
            let open = self.open[std_type.index()].as_ref();
            let begun =
                open.is_some_and(|open| timestamp::parse(&open.line.time).is_none_or(|time| time <= unix_ns));
            let closed = begun && self.close(std_type, out);
            let latest = self.groups.as_ref().and_then(|groups| groups.latest_ns(std_type));
            if latest.is_some_and(|latest| latest <= unix_ns) {
                self.end_group(std_type, out);
            }
            closed
        })
    }

    /// Ends all open lines and groups: nothing more comes from the source.
    pub fn close_all(&mut self, out: &mut Lines) {
        for std_type in StdType::ALL {
            self.close(std_type, out);
            self.end_group(std_type, out);
        }
    }

    /// Forgets open lines and groups, because their pieces will be read again.
    pub fn reset(&mut self) {
        self.open = [None, None];
        self.cut = [false; 2];
        if let Some(groups) = &mut self.groups {
            groups.forget();
        }
    }

    fn emit_in_place(&mut self, buffer: &[u8], piece: &Piece, at: u64, continued: bool, out: &mut Lines) {
        debug_assert!(piece.time.len() <= timestamp::TIME_BYTES_MAX);
        let text = &buffer[piece.text.clone()];
        let returns = if self.strips_cr && piece.complete { trailing_cr(text, piece.form) } else { 0 };
        let text = &text[..text.len() - returns * cr_len(piece.form)];
        let decoded_len = piece.decoded_len - returns;
        let truncated = decoded_len > self.line_bytes_max;
        let len = if truncated { cut(text, piece.form, self.line_bytes_max) } else { text.len() };
        let whole = Whole {
            began_at: at,
            time: &buffer[piece.time.clone()],
            text: &text[..len],
            form: piece.form,
            decoded_len: decoded_len.min(self.line_bytes_max),
            marks: Marks { truncated, partial: false, continued },
        };
        if is_empty_rest(&whole) {
            return;
        }
        if self.groups.is_some() || self.copies {
            return self.put(piece.std_type, &whole, out);
        }
        out.truncated += u64::from(truncated);
        out.records.push(Record {
            message_start: piece.text.start as u32,
            message_len: len as u32,
            time_start: piece.time.start as u32,
            time_len: piece.time.len() as u8,
            std_type: piece.std_type,
            form: piece.form,
            place: BufferKind::Read,
            truncated,
            partial: false,
            continued,
        });
    }
}

impl OpenLine {
    fn strip_cr(&mut self) {
        if self.line.marks.truncated || !self.deliver {
            return;
        }
        let line = &mut self.line;
        let returns = trailing_cr(&line.text, line.form);
        line.text.truncate(line.text.len() - returns * cr_len(line.form));
        line.decoded_len -= returns;
    }

    fn append(&mut self, text: &[u8], decoded_len: usize, line_bytes_max: usize) {
        if self.line.marks.truncated || !self.deliver {
            return;
        }
        let line = &mut self.line;
        let room = line_bytes_max - line.decoded_len;
        if decoded_len <= room {
            line.text.extend_from_slice(text);
            line.decoded_len += decoded_len;
        } else {
            line.text.extend_from_slice(&text[..cut(text, line.form, room)]);
            line.decoded_len = line_bytes_max;
            line.marks.truncated = true;
        }
    }
}

/// Whether only the end is left of a line that was delivered before.
fn is_empty_rest(line: &Whole<'_>) -> bool {
    line.marks.continued && line.decoded_len == 0
}

/// Length of a carriage return in bytes.
fn cr_len(form: MessageForm) -> usize {
    if form == MessageForm::Raw { 1 } else { 2 }
}

/// How many carriage returns a text ends with.
fn trailing_cr(text: &[u8], form: MessageForm) -> usize {
    if form == MessageForm::Raw {
        return text.iter().rev().take_while(|byte| **byte == b'\r').count();
    }
    let returns = text.rchunks_exact(2).take_while(|pair| *pair == b"\\r").count();
    // In `\\r` the backslash is escaped, so this is not a carriage return.
    let before = &text[..text.len() - 2 * returns];
    let backslashes = before.iter().rev().take_while(|byte| **byte == b'\\').count();
    returns.saturating_sub(backslashes % 2)
}

fn cut(text: &[u8], form: MessageForm, decoded_max: usize) -> usize {
    match form {
        MessageForm::Raw => utf8::cut(text, decoded_max),
        MessageForm::JsonEscaped => json_line::cut_escaped(text, decoded_max),
    }
}

#[cfg(test)]
#[path = "assemble_tests.rs"]
mod tests;
