//! Lines that belong together become one record: a stack trace with the message it came with. A line goes on with the
//! group open on its channel, or begins the next one; a group ends when the next begins, at its bounds, when its
//! container has exited, or when nothing came for a while.
//!
//! To the rest of the program an open group is an open line ([`super::assemble`]): a position never lies behind its
//! beginning, so what was not delivered of it is read again after a restart, and nothing else is.
//!
//! Not here: which lines belong together ([`Multiline`]), and when time is up (stream/).

use std::sync::Arc;

use super::assemble::Lines;
use super::{json_line, timestamp, utf8};
use crate::limits::MULTILINE_LOOK_BYTES;
use crate::record::{MessageForm, StdType};
use crate::settings::Pipeline;
use crate::settings::pipeline::{self, Multiline};

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
    /// Of its first line.
    pub(super) time: Vec<u8>,
    /// Of every line: where it began, and its time in nanoseconds since 1970; 0 = it has none.
    lines: Vec<(u64, i64)>,
    text: Vec<u8>,
    form: MessageForm,
    decoded_len: usize,
    truncated: bool,
    /// What its lines were.
    state: pipeline::Group,
}

impl Group {
    fn new(line: &Whole<'_>, state: pipeline::Group) -> Group {
        Group {
            time: line.time.to_vec(),
            lines: vec![(line.began_at, timestamp::parse(line.time).unwrap_or(0))],
            text: line.text.to_vec(),
            form: line.form,
            decoded_len: line.decoded_len,
            truncated: line.truncated,
            state,
        }
    }

    /// Where its lines began, in order.
    pub(super) fn starts(&self) -> impl Iterator<Item = u64> {
        self.lines.iter().map(|(began_at, _)| *began_at)
    }

    fn has_room(&self, line: &Whole<'_>, multiline: &Multiline) -> bool {
        self.lines.len() < multiline.lines_max
            && (self.decoded_len + 1 + line.decoded_len) as u64 <= multiline.bytes_max
            && self.form == line.form
    }

    fn append(&mut self, line: &Whole<'_>, state: pipeline::Group) {
        let newline: &[u8] = if self.form == MessageForm::JsonEscaped { b"\\n" } else { b"\n" };
        self.text.extend_from_slice(newline);
        self.text.extend_from_slice(line.text);
        self.decoded_len += 1 + line.decoded_len;
        self.truncated |= line.truncated;
        self.lines.push((line.began_at, timestamp::parse(line.time).unwrap_or(0)));
        self.state = state;
    }

    fn emit(self, std_type: StdType, out: &mut Lines) {
        out.joined.extend(self.lines.iter().map(|(_, time_ns)| (std_type, *time_ns)));
        let whole = Whole {
            began_at: self.lines.first().map_or(0, |(began_at, _)| *began_at),
            time: &self.time,
            text: &self.text,
            form: self.form,
            decoded_len: self.decoded_len,
            truncated: self.truncated,
        };
        out.push_made(std_type, &whole);
    }
}

/// The open groups of a source, at most one a channel.
#[derive(Debug)]
pub(super) struct Groups {
    /// The pipeline that has it.
    pipeline: Arc<Pipeline>,
    open: [Option<Group>; 2],
    unescaped: Vec<u8>,
}

impl Groups {
    /// Nothing to do if the pipeline joins no lines.
    pub(super) fn new(pipeline: &Arc<Pipeline>) -> Option<Groups> {
        pipeline.multiline.as_ref()?;
        Some(Groups { pipeline: Arc::clone(pipeline), open: [None, None], unescaped: Vec::new() })
    }

    pub(super) fn timeout_ms(&self) -> u64 {
        self.pipeline.multiline.as_ref().map_or(0, |multiline| multiline.timeout.as_millis() as u64)
    }

    pub(super) fn on(&self, std_type: StdType) -> Option<&Group> {
        self.open[std_type.index()].as_ref()
    }

    /// Lines in the open group of a channel.
    pub(super) fn lines(&self, std_type: StdType) -> usize {
        self.on(std_type).map_or(0, |group| group.lines.len())
    }

    /// Time of the latest line in the open group of a channel; 0 = it has none.
    pub(super) fn latest_ns(&self, std_type: StdType) -> Option<i64> {
        self.on(std_type)?.lines.last().map(|(_, time_ns)| *time_ns)
    }

    pub(super) fn take(&mut self, std_type: StdType, line: &Whole<'_>, out: &mut Lines) {
        let Some(multiline) = &self.pipeline.multiline else { return };
        let look = look(line, &mut self.unescaped);
        let open = &mut self.open[std_type.index()];
        if let Some(group) = open
            && group.has_room(line, multiline)
            && let Some(state) = multiline.next(group.state, look)
        {
            return group.append(line, state);
        }
        if let Some(before) = open.replace(Group::new(line, multiline.begin(look))) {
            before.emit(std_type, out);
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

/// What is looked at of a line, unescaped.
fn look<'a>(line: &Whole<'a>, unescaped: &'a mut Vec<u8>) -> &'a [u8] {
    match line.form {
        MessageForm::Raw => &line.text[..utf8::cut(line.text, MULTILINE_LOOK_BYTES)],
        MessageForm::JsonEscaped => {
            unescaped.clear();
            let len = json_line::cut_escaped(line.text, MULTILINE_LOOK_BYTES);
            json_line::unescape(&line.text[..len], unescaped);
            unescaped
        }
    }
}
