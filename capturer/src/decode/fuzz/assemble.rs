//! Fuzz entry for joining pieces: the input is read as a list of pieces and exits, and a model that keeps whole lines
//! says what must come out.
//!
//! The first byte chooses how messages are written, where lines are cut, whether lines are joined, and whether a tag on
//! a piece says that more follows. Then every two bytes are a piece: its channel, time, newline, length, characters,
//! and whether its line is delivered; or an exit.

use std::sync::Arc;
use std::time::Duration;

use crate::decode::assemble::{Assembler, Join, Lines};
use crate::decode::{Piece, json_line, timestamp};
use crate::limits::PIECE_BYTES;
use crate::model::record::{BufferKind, MessageForm, StdType};
use crate::settings::Pipeline;
use crate::settings::pipeline::{Multiline, MultilineRule, Pattern};

/// Times of the pieces. The last one is empty, as in a plain file.
const TIMES: [&str; 4] = ["2026-11-22T00:52:48.1Z", "2026-11-22T00:52:48.2Z", "2026-11-22T00:52:49Z", ""];
const LENGTHS: [usize; 8] = [0, 1, 2, 5, 100, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1];
const LIMITS: [usize; 8] =
    [1, 3, 64, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES, 3 * PIECE_BYTES];
/// Characters of a text, with their unescaped lengths.
const RAW: [(&str, usize); 4] = [("x", 1), ("é", 2), ("€", 3), ("𝄞", 4)];
const ESCAPED: [(&str, usize); 4] = [("x", 1), ("\\n", 1), ("\\u20ac", 3), ("\\ud834\\udd1e", 4)];
/// A run of the agent has more pieces; here more would take time and find nothing new.
const OPS_MAX: usize = 64;

#[derive(Debug, PartialEq)]
struct Line {
    std_type: StdType,
    time: &'static str,
    text: String,
    decoded_len: usize,
    form: MessageForm,
}

impl Line {
    /// The text, unescaped.
    fn decoded(&self) -> Vec<u8> {
        decoded(self.form, self.text.as_bytes())
    }

    fn begins_with_x(&self) -> bool {
        self.text.starts_with('x')
    }
}

fn decoded(form: MessageForm, message: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    match form {
        MessageForm::Raw => decoded.extend_from_slice(message),
        MessageForm::JsonEscaped => json_line::unescape(message, &mut decoded),
    }
    decoded
}

/// A line that begins with x begins a group.
fn joining() -> Arc<Pipeline> {
    let start = Pattern::new("^x").expect("a pattern");
    let multiline = Multiline {
        rule: MultilineRule::Patterns { start: Some(start), continues: None },
        timeout: Duration::ZERO,
        lines_max: LINES_MAX,
        bytes_max: BYTES_MAX as u64,
    };
    Arc::new(Pipeline { multiline: Some(multiline), ..Pipeline::default() })
}

const LINES_MAX: usize = 3;
const BYTES_MAX: usize = 200;

#[derive(Default)]
struct Model {
    joins: bool,
    by_tag: bool,
    line_bytes_max: usize,
    open: [Option<(Line, bool)>; 2],
    groups: [Vec<Line>; 2],
    done: Vec<Vec<Line>>,
}

impl Model {
    fn end(&mut self, channel: usize) {
        let Some((line, true)) = self.open[channel].take() else { return };
        if !self.joins {
            return self.done.push(vec![line]);
        }
        let kept = |line: &Line| line.decoded_len.min(self.line_bytes_max);
        let group = &self.groups[channel];
        let bytes: usize = group.iter().map(|line| kept(line) + 1).sum();
        let fits = group.len() < LINES_MAX && bytes + kept(&line) <= BYTES_MAX;
        if !fits || line.begins_with_x() {
            self.end_group(channel);
        }
        self.groups[channel].push(line);
    }

    fn end_group(&mut self, channel: usize) {
        let group = std::mem::take(&mut self.groups[channel]);
        if !group.is_empty() {
            self.done.push(group);
        }
    }

    fn piece(&mut self, piece: Line, complete: bool, deliver: bool) {
        let channel = piece.std_type.index();
        if !self.by_tag && self.open[channel].as_ref().is_some_and(|(line, _)| line.time != piece.time) {
            self.end(channel);
        }
        let ends = complete || !self.by_tag && piece.decoded_len < PIECE_BYTES;
        match &mut self.open[channel] {
            Some((line, _)) => {
                line.text += &piece.text;
                line.decoded_len += piece.decoded_len;
            }
            // Nothing was printed.
            None if ends && piece.decoded_len == 0 && !complete => return,
            none => *none = Some((piece, deliver)),
        }
        if ends {
            self.end(channel);
        }
    }

    fn exit(&mut self, time: &str) {
        for channel in 0..2 {
            let time_of = |text: &str| timestamp::parse(text.as_bytes());
            let begun = |line: &Line| time_of(line.time).is_none_or(|begun| Some(begun) <= time_of(time));
            if self.open[channel].as_ref().is_some_and(|(line, _)| begun(line)) {
                self.end(channel);
            }
            if self.groups[channel].last().is_some_and(begun) {
                self.end_group(channel);
            }
        }
    }
}

/// Pieces of long lines, on both channels, in any order.
pub fn check(bytes: &[u8]) {
    let Some((first, ops)) = bytes.split_first() else { return };
    let (form, alphabet) =
        if first & 8 == 0 { (MessageForm::Raw, RAW) } else { (MessageForm::JsonEscaped, ESCAPED) };
    let line_bytes_max = LIMITS[usize::from(first & 7)];
    let joins = first & 16 != 0;
    let joining = joins.then(joining);
    let mut assembler = Assembler::new(line_bytes_max).with_pipeline(joining.as_ref());
    let by_tag = first & 32 != 0;
    if by_tag {
        assembler.join(Join::Tag);
    }
    let mut model = Model { joins, by_tag, line_bytes_max, ..Model::default() };
    for (at, op) in ops.chunks_exact(2).take(OPS_MAX).enumerate() {
        let mut out = Lines::default();
        let mut buffer = Vec::new();
        let time = TIMES[usize::from(op[0] >> 1 & 3)];
        if op[1] & 0x80 != 0 {
            if let Some(unix_ns) = timestamp::parse(time.as_bytes()) {
                assembler.close_begun_by(unix_ns, &mut out);
                model.exit(time);
            }
        } else {
            let std_type = StdType::ALL[usize::from(op[0] & 1)];
            let decoded_len = LENGTHS[usize::from(op[0] >> 4 & 7)];
            let (complete, deliver) = (op[0] & 8 != 0, op[1] & 4 == 0);
            let text = text_of(alphabet[usize::from(op[1] & 3)], decoded_len);
            buffer.extend_from_slice(time.as_bytes());
            buffer.extend_from_slice(text.as_bytes());
            let piece = Piece {
                text: time.len()..buffer.len(),
                time: 0..time.len(),
                form,
                decoded_len,
                std_type,
                complete,
            };
            assembler.push(&buffer, &piece, at as u64, deliver, &mut out);
            model.piece(Line { std_type, time, text, decoded_len, form }, complete, deliver);
        }
        compare(&buffer, &out, &mut model, line_bytes_max);
        for std_type in StdType::ALL {
            let channel = std_type.index();
            let open = model.open[channel].is_some() || !model.groups[channel].is_empty();
            assert_eq!(assembler.open_on(std_type).is_some(), open, "{std_type:?} after {op:?}");
            let (line, group) = (model.open[channel].is_some(), model.groups[channel].len());
            assert_eq!(assembler.grouped(std_type), group, "{std_type:?} after {op:?}");
            let (starts, in_line) = assembler.undelivered(std_type);
            assert_eq!(
                (starts.len(), in_line),
                (group + usize::from(line), line),
                "{std_type:?} after {op:?}"
            );
        }
    }
    let mut out = Lines::default();
    assembler.close_all(&mut out);
    for channel in 0..2 {
        model.end(channel);
        model.end_group(channel);
    }
    compare(&[], &out, &mut model, line_bytes_max);
    assert!(StdType::ALL.iter().all(|std_type| assembler.undelivered(*std_type) == (Vec::new(), false)));
}

fn text_of((unit, unit_len): (&str, usize), decoded_len: usize) -> String {
    unit.repeat(decoded_len / unit_len) + &"x".repeat(decoded_len % unit_len)
}

fn compare(buffer: &[u8], out: &Lines, model: &mut Model, line_bytes_max: usize) {
    let expected = std::mem::take(&mut model.done);
    assert_eq!(out.records.len(), expected.len(), "{expected:?}");
    let (mut truncated, mut joined) = (0, 0);
    for (record, lines) in out.records.iter().zip(expected) {
        let from = if record.place == BufferKind::Read { buffer } else { &out.made[..] };
        let part = |start: u32, len: u32| &from[start as usize..][..len as usize];
        let is_cut = |line: &Line| line.decoded_len > line_bytes_max;
        assert!(lines.iter().all(|line| line.std_type == record.std_type && line.form == record.form));
        assert_eq!(part(record.time_start, u32::from(record.time_len)), lines[0].time.as_bytes());
        assert_eq!(record.truncated, lines.iter().any(is_cut));
        truncated += u64::from(record.truncated);
        joined += lines.len();
        let message = part(record.message_start, record.message_len);
        if !record.truncated && lines.len() == 1 {
            assert_eq!(message, lines[0].text.as_bytes());
        }
        let mut message = &decoded(record.form, message)[..];
        for (number, line) in lines.iter().enumerate() {
            if number > 0 {
                message = message.strip_prefix(b"\n").expect("a newline between lines");
            }
            let text = line.decoded();
            let mut kept = text.len();
            if is_cut(line) {
                // 4: what is kept of a line is no longer than the limit, at most a character shorter, and cut between
                // characters.
                let whole = std::str::from_utf8(&text).expect("made of characters");
                kept = whole.floor_char_boundary(line_bytes_max);
            }
            message = message.strip_prefix(&text[..kept]).expect("the line's text");
        }
        assert_eq!(message, b"");
    }
    assert_eq!(out.truncated, truncated);
    let in_groups = if model.joins { joined } else { 0 };
    assert_eq!(out.joined.len(), in_groups);
}
