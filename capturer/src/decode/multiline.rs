//! Lines that belong together become one record: a stack trace with its message. A line continues the open group of its
//! channel or begins the next one. A group ends when the next begins, at its bounds, when its container has exited, or
//! when no line came for a while.
//!
//! To the rest of the program an open group is an open line ([`super::assemble`]): a saved position is never behind the
//! group's beginning, so its undelivered lines are read again after a restart, and nothing else is.
//!
//! If only a later line can show whether a line belongs to the group, the line waits with the group. If no later line
//! shows it, it begins the next group.
//!
//! Not here: which lines belong together ([`Multiline`]), and when time is up (stream/).

use std::sync::Arc;

use super::lines::{Kept, Lines, Whole};
use super::{json_line, timestamp, utf8, work};
use crate::limits::MULTILINE_LOOK_BYTES;
use crate::model::record::{MessageForm, StdType};
use crate::settings::Pipeline;
use crate::settings::pipeline::{self, Multiline, Next};

/// This many lines wait for the one that decides where they belong: messages of exceptions have at most that many.
const WAITING_LINES_MAX: usize = 64;

/// The lines of a group so far.
#[derive(Debug)]
pub(super) struct Group {
    /// The group's lines joined; the time is that of the first.
    joined: Kept,
    /// For every line, where it began and its time in nanoseconds since 1970; 0 = it has none.
    lines: Vec<(u64, i64)>,
    /// What the pattern of `multiline` has recognized in the lines so far.
    state: pipeline::Group,
    /// Lines behind the group that may belong to it.
    waiting: Vec<Waiting>,
}

/// A line that may belong to the group before it.
#[derive(Debug)]
struct Waiting {
    line: Kept,
    /// An empty line: if it ends the group, it belongs to the group but is not shown.
    blank: bool,
}

impl Waiting {
    fn time_ns(&self) -> i64 {
        timestamp::parse(&self.line.time).unwrap_or(0)
    }
}

impl Group {
    fn new(line: &Whole<'_>, state: pipeline::Group) -> Group {
        Group {
            joined: Kept::of(line),
            lines: vec![(line.began_at, timestamp::parse(line.time).unwrap_or(0))],
            state,
            waiting: Vec::new(),
        }
    }

    /// Time of its first line.
    pub(super) fn time(&self) -> &[u8] {
        &self.joined.time
    }

    /// Where its lines began, in order, including those that wait.
    pub(super) fn starts(&self) -> impl Iterator<Item = u64> {
        let waiting = self.waiting.iter().map(|waiting| waiting.line.began_at);
        self.lines.iter().map(|(began_at, _)| *began_at).chain(waiting)
    }

    fn has_room(&self, line: &Whole<'_>, multiline: &Multiline) -> bool {
        let waiting: usize = self.waiting.iter().map(|waiting| waiting.line.decoded_len + 1).sum();
        self.lines.len() + self.waiting.len() < multiline.lines_max
            && (self.joined.decoded_len + waiting + 1 + line.decoded_len) as u64 <= multiline.bytes_max
            && self.joined.form == line.form
    }

    /// Whether the line belongs to the group, or may.
    fn takes(&mut self, line: &Whole<'_>, look: &[u8], multiline: &Multiline) -> bool {
        // The rest of a line that was delivered before says nothing by its beginning.
        if line.marks.continued || !self.has_room(line, multiline) {
            return false;
        }
        let (state, blank) = match multiline.next(self.state, look) {
            Next::Goes(state) => {
                let waiting = std::mem::take(&mut self.waiting);
                waiting.iter().for_each(|waiting| self.append(&waiting.line.whole()));
                self.append(line);
                self.state = state;
                return true;
            }
            Next::Maybe(state) => (state, false),
            Next::Blank(state) => (state, true),
            Next::Ends => return false,
        };
        let waits = self.waiting.len() < WAITING_LINES_MAX;
        if waits {
            self.waiting.push(Waiting { line: Kept::of(line), blank });
            self.state = state;
        }
        waits
    }

    fn append(&mut self, line: &Whole<'_>) {
        let joined = &mut self.joined;
        let newline: &[u8] = if joined.form == MessageForm::JsonEscaped { b"\\n" } else { b"\n" };
        joined.text.extend_from_slice(newline);
        joined.text.extend_from_slice(line.text);
        joined.decoded_len += 1 + line.decoded_len;
        joined.marks.add(line.marks);
        self.lines.push((line.began_at, timestamp::parse(line.time).unwrap_or(0)));
    }

    /// Adds the group's record, and returns the lines that were not part of it.
    fn emit(mut self, std_type: StdType, out: &mut Lines) -> Vec<Waiting> {
        let blanks = self.waiting.iter().take_while(|waiting| waiting.blank).count();
        let others = self.waiting.split_off(blanks);
        let blanks = self.waiting.iter().map(|waiting| (waiting.line.began_at, waiting.time_ns()));
        self.lines.extend(blanks);
        out.joined.extend(self.lines.iter().map(|(_, time_ns)| (std_type, *time_ns)));
        out.push_made(std_type, &self.joined.whole());
        others
    }
}

/// The open groups of a source, at most one per channel.
#[derive(Debug)]
pub(super) struct Groups {
    /// The pipeline whose `multiline` they follow.
    pipeline: Arc<Pipeline>,
    open: [Option<Group>; 2],
    unescaped: Vec<u8>,
}

impl Groups {
    /// `None` if the pipeline joins no lines.
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

    /// How many lines the open group of a channel has.
    pub(super) fn lines(&self, std_type: StdType) -> usize {
        self.on(std_type).map_or(0, |group| group.lines.len() + group.waiting.len())
    }

    /// Time of the latest line in the open group of a channel; 0 = it has none.
    pub(super) fn latest_ns(&self, std_type: StdType) -> Option<i64> {
        let group = self.on(std_type)?;
        let waiting = group.waiting.last().map(Waiting::time_ns);
        waiting.or_else(|| group.lines.last().map(|(_, time_ns)| *time_ns))
    }

    pub(super) fn take(&mut self, std_type: StdType, line: &Whole<'_>, out: &mut Lines) {
        let Some(multiline) = &self.pipeline.multiline else { return };
        let look = look(line, multiline.ignores_colours(), &mut self.unescaped);
        let open = &mut self.open[std_type.index()];
        let Some(group) = open else {
            *open = Some(Group::new(line, multiline.begin(look)));
            return;
        };
        if group.takes(line, look, multiline) {
            return;
        }
        let next = Group::new(line, multiline.begin(look));
        let Some(before) = open.take() else { return };
        let waiting = before.emit(std_type, out);
        if waiting.is_empty() {
            self.open[std_type.index()] = Some(next);
            return;
        }
        // The waiting lines begin a group of their own, to which the line may belong.
        waiting.iter().for_each(|waiting| self.take(std_type, &waiting.line.whole(), out));
        self.take(std_type, line, out);
    }

    /// Ends the open group of a channel.
    pub(super) fn end(&mut self, std_type: StdType, out: &mut Lines) {
        // This ends, because each round takes at least one line.
        while let Some(group) = self.open[std_type.index()].take() {
            for waiting in group.emit(std_type, out) {
                self.take(std_type, &waiting.line.whole(), out);
            }
        }
    }

    pub(super) fn forget(&mut self) {
        self.open = [None, None];
    }
}

/// The part of a line that decides, unescaped, and without colours if they don't count. The line itself is not changed.
fn look<'a>(line: &Whole<'a>, ignores_colours: bool, unescaped: &'a mut Vec<u8>) -> &'a [u8] {
    match line.form {
        MessageForm::Raw => {
            let text = &line.text[..utf8::cut(line.text, MULTILINE_LOOK_BYTES)];
            if !ignores_colours || memchr::memchr(ESCAPE, text).is_none() {
                return text;
            }
            unescaped.clear();
            unescaped.extend_from_slice(text);
        }
        MessageForm::JsonEscaped => {
            unescaped.clear();
            let len = json_line::cut_escaped(line.text, MULTILINE_LOOK_BYTES);
            json_line::unescape(&line.text[..len], unescaped);
        }
    }
    if ignores_colours && memchr::memchr(ESCAPE, unescaped).is_some() {
        take_colours_out(unescaped);
    }
    unescaped
}

const ESCAPE: u8 = 0x1b;

/// Removes commands with the form of colours: an escape, a bracket, numbers, a letter.
fn take_colours_out(text: &mut Vec<u8>) {
    work::add(text.len());
    let (mut kept, mut at) = (0, 0);
    while at < text.len() {
        let numbers = text[at..].strip_prefix(b"\x1b[").map(|inside| {
            inside.iter().take_while(|byte| byte.is_ascii_digit() || matches!(byte, b';' | b':')).count()
        });
        if let Some(numbers) =
            numbers.filter(|numbers| text.get(at + 2 + numbers).is_some_and(u8::is_ascii_alphabetic))
        {
            at += numbers + 3;
            continue;
        }
        text[kept] = text[at];
        (kept, at) = (kept + 1, at + 1);
    }
    text.truncate(kept);
}
