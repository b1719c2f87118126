//! Lines that belong together become one record: a stack trace with the message it came with. A line goes on with the
//! group open on its channel, or begins the next one; a group ends when the next begins, at its bounds, when its
//! container has exited, or when nothing came for a while.
//!
//! To the rest of the program an open group is an open line ([`super::assemble`]): a position never lies behind its
//! beginning, so what was not delivered of it is read again after a restart, and nothing else is.
//!
//! Not here: the patterns (settings/), and when time is up (stream/).

use std::fmt;
use std::sync::Arc;

use super::assemble::Lines;
use super::{json_line, timestamp, utf8};
use crate::limits::MULTILINE_LOOK_BYTES;
use crate::record::{MessageForm, Place, Record, StdType};

/// Which lines belong together.
pub trait Continues: fmt::Debug + Send + Sync {
    /// Whether `line` goes on with the group that began with `first` and whose latest line is `latest`. Of each, the
    /// first [`MULTILINE_LOOK_BYTES`] are given, unescaped.
    fn continues(&self, first: &[u8], latest: &[u8], line: &[u8]) -> bool;
}

/// How a source's lines are joined.
#[derive(Clone, Debug)]
pub struct Multiline {
    /// Which lines belong together.
    pub rule: Arc<dyn Continues>,
    /// Most lines in a group, at least 1.
    pub lines_max: usize,
    /// Most bytes of a group, unescaped. A line that is longer by itself is a group by itself.
    pub bytes_max: usize,
    /// So long after its latest line a group waits for another one, milliseconds.
    pub timeout_ms: u64,
}

/// A line that is whole.
#[derive(Debug)]
pub(super) struct Whole<'a> {
    /// Where it began, in the caller's own count.
    pub(super) began_at: u64,
    pub(super) time: &'a [u8],
    pub(super) text: &'a [u8],
    pub(super) form: MessageForm,
    pub(super) decoded_len: usize,
    pub(super) truncated: bool,
}

/// The lines of a group so far.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) began_at: u64,
    /// Of its first line.
    pub(super) time: Vec<u8>,
    /// Of every line, nanoseconds since 1970; 0 = it has none.
    times: Vec<i64>,
    text: Vec<u8>,
    form: MessageForm,
    decoded_len: usize,
    truncated: bool,
    first: Vec<u8>,
    latest: Vec<u8>,
}

impl Group {
    fn new(line: &Whole<'_>, look: Vec<u8>) -> Group {
        Group {
            began_at: line.began_at,
            time: line.time.to_vec(),
            times: vec![timestamp::parse(line.time).unwrap_or(0)],
            text: line.text.to_vec(),
            form: line.form,
            decoded_len: line.decoded_len,
            truncated: line.truncated,
            first: look.clone(),
            latest: look,
        }
    }

    fn has_room(&self, line: &Whole<'_>, multiline: &Multiline) -> bool {
        self.times.len() < multiline.lines_max
            && self.decoded_len + 1 + line.decoded_len <= multiline.bytes_max
            && self.form == line.form
    }

    fn append(&mut self, line: &Whole<'_>, look: Vec<u8>) {
        let newline: &[u8] = if self.form == MessageForm::JsonEscaped { b"\\n" } else { b"\n" };
        self.text.extend_from_slice(newline);
        self.text.extend_from_slice(line.text);
        self.decoded_len += 1 + line.decoded_len;
        self.truncated |= line.truncated;
        self.times.push(timestamp::parse(line.time).unwrap_or(0));
        self.latest = look;
    }

    fn emit(self, std_type: StdType, out: &mut Lines) {
        let time_start = out.made.len() as u32;
        out.made.extend_from_slice(&self.time);
        let message_start = out.made.len() as u32;
        out.made.extend_from_slice(&self.text);
        out.truncated += u64::from(self.truncated);
        out.joined.extend(self.times.iter().map(|time_ns| (std_type, *time_ns)));
        out.records.push(Record {
            message_start,
            message_len: self.text.len() as u32,
            time_start,
            time_len: self.time.len() as u8,
            std_type,
            form: self.form,
            place: Place::Made,
            truncated: self.truncated,
        });
    }
}

/// The open groups of a source, at most one a channel.
#[derive(Debug)]
pub(super) struct Groups {
    multiline: Multiline,
    open: [Option<Group>; 2],
}

impl Groups {
    pub(super) fn new(multiline: Multiline) -> Groups {
        Groups { multiline, open: [None, None] }
    }

    pub(super) fn timeout_ms(&self) -> u64 {
        self.multiline.timeout_ms
    }

    pub(super) fn on(&self, std_type: StdType) -> Option<&Group> {
        self.open[std_type.index()].as_ref()
    }

    /// Lines in the open group of a channel.
    pub(super) fn lines(&self, std_type: StdType) -> usize {
        self.on(std_type).map_or(0, |group| group.times.len())
    }

    /// Time of the latest line in the open group of a channel; 0 = it has none.
    pub(super) fn latest_ns(&self, std_type: StdType) -> Option<i64> {
        self.on(std_type)?.times.last().copied()
    }

    pub(super) fn take(&mut self, std_type: StdType, line: &Whole<'_>, out: &mut Lines) {
        let look = look(line);
        let open = &mut self.open[std_type.index()];
        let fitting = open.as_mut().filter(|group| {
            group.has_room(line, &self.multiline)
                && self.multiline.rule.continues(&group.first, &group.latest, &look)
        });
        match fitting {
            Some(group) => group.append(line, look),
            None => {
                if let Some(before) = open.replace(Group::new(line, look)) {
                    before.emit(std_type, out);
                }
            }
        }
    }

    /// Ends the open group of a channel.
    pub(super) fn end(&mut self, std_type: StdType, out: &mut Lines) {
        if let Some(group) = self.open[std_type.index()].take() {
            group.emit(std_type, out);
        }
    }

    pub(super) fn forget(&mut self) {
        self.open = [None, None];
    }
}

/// What a rule is shown of a line. However long it is, no more is looked at.
fn look(line: &Whole<'_>) -> Vec<u8> {
    match line.form {
        MessageForm::Raw => line.text[..utf8::cut(line.text, MULTILINE_LOOK_BYTES)].to_vec(),
        MessageForm::JsonEscaped => {
            let mut out = Vec::new();
            let len = json_line::cut_escaped(line.text, MULTILINE_LOOK_BYTES);
            json_line::unescape(&line.text[..len], &mut out);
            out
        }
    }
}
