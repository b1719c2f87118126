//! Turns a file's bytes into lines: which format and encoding they have. A file is UTF-8 unless its byte order mark or
//! the config says otherwise; with `format: auto` each line that does not fit the earlier ones is decided by itself,
//! and nothing is dropped for not being a record.

use super::FileSource;
use super::records::count_reject;
use crate::capture::context::Context;
use crate::decode::assemble::{Join, Lines};
use crate::decode::line::{self, Known};
use crate::decode::text::{self, Mark};
use crate::decode::{DecodeError, Piece, Step, cri, json_line};
use crate::limits::{LINE_PIECE_BYTES, RECORD_BYTES_MAX};
use crate::model::cursor::FileId;
use crate::model::rare::Rare;
use crate::model::record::StdType;
use crate::settings::{FileFormat, TextRules};
use crate::text::encoding::Encoding;

/// The text of the file that is read.
#[derive(Debug, Default)]
pub(super) struct Text {
    /// The configured encoding.
    pub(super) rules: TextRules,
    /// The encoding by the file's byte order mark, and which file that is.
    pub(super) of_file: Option<OfFile>,
    /// Logical position of the first byte of the buffer that is decoded.
    base: u64,
    /// The next bytes are the rest of a line that was delivered.
    pub(super) continues: bool,
    /// A line in UTF-8.
    decoded: Rare<Vec<u8>>,
    /// It was told that lines are of more than one format.
    told_mixed: bool,
}

/// What the first bytes of a file tell.
#[derive(Clone, Copy, Debug)]
pub(super) struct OfFile {
    id: FileId,
    encoding: Encoding,
    /// Bytes of its mark.
    begins: u64,
}

impl Text {
    pub(super) fn new(rules: TextRules) -> Text {
        Text { rules, ..Text::default() }
    }

    pub(super) fn encoding(&self) -> Encoding {
        let configured = self.rules.encoding.unwrap_or_default();
        self.of_file.map_or(configured, |of_file| of_file.encoding)
    }
}

impl FileSource {
    /// What its text may be.
    pub fn with_text(mut self, rules: TextRules) -> FileSource {
        self.text = Text::new(rules);
        self.assembler = self.assembler.strip_cr(!rules.keep_cr);
        self
    }

    /// A carriage return before a line's end belongs to the end.
    pub fn strip_cr(mut self, strips: bool) -> FileSource {
        self.assembler = self.assembler.strip_cr(strips);
        self
    }

    /// What a buffer that was read at `offset` begins with: this many bytes of a byte order mark. `None` = more must come
    /// before that is known.
    pub(super) fn begin_text(&mut self, offset: u64, buffer: &[u8], at_end: bool) -> Option<usize> {
        let front = self.chain.links.front()?;
        let id = front.found.id;
        let known = self.text.of_file.is_some_and(|of_file| of_file.id == id);
        if offset > 0 && known {
            return Some(0);
        }
        let head = if offset == 0 { buffer } else { &front.found.head };
        let configured = self.text.rules.encoding.unwrap_or_default();
        let (encoding, begins) = match text::mark(head, at_end || offset > 0) {
            Mark::None => (configured, 0),
            Mark::Of(encoding, bytes) => (encoding, bytes),
            Mark::NeedMore => return None,
            // Left out, or a file of records, which has none.
            Mark::Utf32 => (configured, 0),
        };
        self.text.of_file = Some(OfFile { id, encoding, begins: begins as u64 });
        Some(if offset == 0 { begins } else { 0 })
    }

    /// A buffer that was read at `offset` is decoded. Its first bytes, this many, were decoded before: they say whether a line
    /// goes on.
    pub(super) fn begin_buffer(&mut self, offset: u64, buffer: &[u8], again: usize) {
        // A file read from its first byte has nothing before it, but its stream's positions begin at zero.
        self.text.base = self.chain.position().wrapping_sub(again as u64);
        let has_lines = self.decides || !self.holds_records();
        let begins = self.text.of_file.map_or(0, |of_file| of_file.begins);
        let is_behind_line = offset <= begins || self.text.encoding().ends_line(&buffer[..again]);
        self.text.continues = has_lines && !is_behind_line && !self.assembler.is_within_line();
    }

    /// What comes next goes on with a plain line.
    pub(super) fn is_within_line(&self) -> bool {
        self.text.continues || self.assembler.is_within_line()
    }

    /// Decodes whole records from `begins` on; returns how many bytes of the buffer are done with.
    pub(super) fn decode_lines(
        &mut self,
        buffer: &[u8],
        begins: usize,
        lines: &mut Lines,
        cx: &Context<'_>,
    ) -> usize {
        if self.format == FileFormat::Auto && self.text.encoding().is_utf8() && !self.is_within_line() {
            self.format = guess_format(&buffer[begins..]);
        }
        // Asked once per buffer, not per line.
        let clean = self.format == FileFormat::Docker && json_line::is_clean(buffer);
        let nuls = !clean && memchr::memchr(0, buffer).is_some();
        let mut at = begins;
        while at < buffer.len() {
            match self.next_step(&buffer[at..], clean, nuls) {
                Step::Item(piece, took) => {
                    self.take(buffer, at, piece, lines, cx);
                    at += took;
                }
                Step::Reject(DecodeError::TornRecord, took) if self.decides => {
                    self.take_as_they_are(buffer, at..at + took, nuls, lines, cx);
                    at += took;
                }
                Step::Reject(DecodeError::RecordTooLong, _) if self.decides => {
                    self.changes_to(FileFormat::Raw)
                }
                Step::Reject(error, took) => {
                    self.reject(error, at, took, lines, cx);
                    at += took;
                }
                Step::NeedMore => break,
            }
        }
        at
    }

    fn next_step(&mut self, bytes: &[u8], clean: bool, nuls: bool) -> Step<Piece> {
        let (encoding, within) = (self.text.encoding(), self.is_within_line());
        if !encoding.is_utf8() {
            return encoding.next_line(bytes, within);
        }
        match self.format {
            _ if within => line::next_line(bytes, Known { nuls, within }),
            FileFormat::Docker if self.decides => json_line::next_record_of_docker(bytes, clean),
            FileFormat::Docker => json_line::next_record(bytes, clean),
            FileFormat::Cri => cri::next_record(bytes, nuls),
            FileFormat::Raw if self.decides && begins_record(bytes[0]) => self.decide(bytes, nuls),
            // The format of its first line is unknown before its end has arrived.
            FileFormat::Auto => next_line_or_record(bytes, nuls),
            FileFormat::Raw => line::next_line(bytes, Known { nuls, within }),
        }
    }

    fn reject(&mut self, error: DecodeError, at: usize, took: usize, lines: &mut Lines, cx: &Context<'_>) {
        if self.is_within_line() {
            // A hole ends the line it stands in.
            self.assembler.close(StdType::Stdout, lines);
            self.text.continues = false;
        }
        // What was cut off of a record that was delivered is no loss.
        if !self.skip.is_again(self.text.base.wrapping_add(at as u64)) {
            count_reject(error, took, cx);
        }
    }

    /// A piece whose offsets count from `at` on.
    fn take(&mut self, buffer: &[u8], at: usize, mut piece: Piece, lines: &mut Lines, cx: &Context<'_>) {
        shift(&mut piece, at);
        let join = match self.format {
            _ if self.is_within_line() => Join::Newline,
            FileFormat::Docker => Join::Docker,
            // Plain lines between those of a runtime have no tag, and no time.
            FileFormat::Cri if !piece.time.is_empty() => Join::Tag,
            FileFormat::Cri | FileFormat::Raw | FileFormat::Auto => Join::Newline,
        };
        self.assembler.join(join);
        self.assembler.continue_line(std::mem::take(&mut self.text.continues));
        let begins_at = self.text.base.wrapping_add(at as u64);
        let deliver = begins_at >= self.chain.delivered_to[piece.std_type.index()];
        if !self.text.encoding().is_utf8() {
            self.take_encoded(buffer, piece, begins_at, deliver, lines);
        } else if self.skip.is_over() || self.skip.is_behind(begins_at) {
            self.assembler.push(buffer, &piece, begins_at, deliver, lines);
        } else {
            self.pass_over(buffer, &piece, begins_at, deliver, lines, cx);
        }
    }

    fn take_encoded(
        &mut self,
        buffer: &[u8],
        piece: Piece,
        begins_at: u64,
        deliver: bool,
        lines: &mut Lines,
    ) {
        let mut decoded = std::mem::take(&mut self.text.decoded);
        decoded.clear();
        self.text.encoding().decode(&buffer[piece.text.clone()], &mut decoded);
        let piece = Piece { text: 0..decoded.len(), time: 0..0, decoded_len: decoded.len(), ..piece };
        self.assembler.copy(true);
        self.assembler.push(&decoded, &piece, begins_at, deliver, lines);
        self.assembler.copy(false);
        self.text.decoded = decoded;
    }

    /// A line of an undecided file that may be a record, though those before it are none.
    fn decide(&mut self, bytes: &[u8], nuls: bool) -> Step<Piece> {
        let step = next_line_or_record(bytes, nuls);
        let Step::Item(piece, took) = &step else { return step };
        let line = &bytes[piece.text.clone()];
        let format = match format_of(line) {
            FileFormat::Raw => return step,
            format if bytes.get(*took - 1) == Some(&b'\n') => format,
            _ => return step,
        };
        self.changes_to(format);
        match format {
            FileFormat::Docker => json_line::next_record_of_docker(bytes, false),
            _ => cri::next_record(bytes, nuls),
        }
    }

    /// What is no record of an undecided file, in lines as they stand there. All of it at once: what was looked at for a
    /// record is not looked at again.
    fn take_as_they_are(
        &mut self,
        buffer: &[u8],
        range: std::ops::Range<usize>,
        nuls: bool,
        lines: &mut Lines,
        cx: &Context<'_>,
    ) {
        let (mut at, end) = (range.start, range.end);
        while at < end {
            let rest = &buffer[at..end];
            let within = self.is_within_line();
            let step = if within {
                line::next_line(rest, Known { nuls, within })
            } else {
                next_line_or_record(rest, nuls)
            };
            let step = match step {
                // A good record is glued behind it, or nothing is.
                Step::NeedMore => {
                    line::last_line(rest).map_or(Step::NeedMore, |piece| Step::Item(piece, rest.len()))
                }
                step => step,
            };
            match step {
                Step::Item(piece, took) => {
                    if within {
                        self.take(buffer, at, piece, lines, cx);
                    } else {
                        self.take_one(buffer, at, piece, lines, cx);
                    }
                    at += took;
                }
                Step::Reject(error, took) => {
                    self.reject(error, at, took, lines, cx);
                    at += took;
                }
                Step::NeedMore => break,
            }
        }
    }

    fn take_one(&mut self, buffer: &[u8], at: usize, plain: Piece, lines: &mut Lines, cx: &Context<'_>) {
        let line = &buffer[at..][plain.text.clone()];
        let format = format_of(line);
        let record = match format {
            FileFormat::Docker => json_line::whole_record(line),
            FileFormat::Cri => cri::whole_record(line),
            FileFormat::Auto | FileFormat::Raw => None,
        };
        self.changes_to(format);
        self.take(buffer, at, record.unwrap_or(plain), lines, cx);
    }

    /// The lines of an undecided file are of this format from now on. Said once.
    fn changes_to(&mut self, format: FileFormat) {
        if self.format == format {
            return;
        }
        let name = |format| match format {
            FileFormat::Docker => "docker",
            FileFormat::Cri => "cri",
            FileFormat::Auto | FileFormat::Raw => "raw",
        };
        if !std::mem::replace(&mut self.text.told_mixed, true) {
            tracing::warn!(
                file = self.path(),
                before = name(self.format),
                now = name(format),
                "lines have more than one format; each is read in its own. Set `format` if that is wrong"
            );
        }
        self.format = format;
    }

    /// What is left at the end of a file that will not grow: of a plain file its last line, of one of records a torn one.
    pub(super) fn decode_rest(
        &mut self,
        buffer: &[u8],
        used: usize,
        lines: &mut Lines,
        cx: &Context<'_>,
    ) -> usize {
        let rest = &buffer[used..];
        if self.decides && self.text.encoding().is_utf8() {
            let nuls = memchr::memchr(0, rest).is_some();
            self.take_as_they_are(buffer, used..buffer.len(), nuls, lines, cx);
        } else if self.holds_records() {
            count_reject(DecodeError::TornRecord, rest.len(), cx);
        } else if let Some(piece) = line::last_line(rest) {
            self.take(buffer, used, piece, lines, cx);
        }
        buffer.len()
    }

    /// How much of what was read, and is not the whole of a line, can be delivered as it is.
    pub(super) fn unfinished(&self, rest: &[u8]) -> usize {
        let within = self.is_within_line();
        let is_record = match self.decides {
            true => !within && self.text.encoding().is_utf8() && may_be_record(rest, self.format),
            false => self.holds_records(),
        };
        if is_record { 0 } else { self.text.encoding().unfinished(rest, self.text.rules.keep_cr) }
    }

    /// Delivers the beginning of a line, for its end has not come for long. Returns how much of the buffer is done with.
    pub(super) fn decode_unfinished(
        &mut self,
        buffer: &[u8],
        used: usize,
        lines: &mut Lines,
        cx: &Context<'_>,
    ) -> usize {
        let len = self.unfinished(&buffer[used..]);
        if len > 0 {
            if self.holds_records() {
                self.changes_to(FileFormat::Raw);
            }
            let text = &buffer[used..used + len];
            if let Some(piece) = line::last_line(text) {
                self.take(buffer, used, Piece { complete: false, ..piece }, lines, cx);
            }
        }
        self.assembler.cut_open(lines);
        used + len
    }
}

fn shift(piece: &mut Piece, by: usize) {
    piece.text = piece.text.start + by..piece.text.end + by;
    piece.time = piece.time.start + by..piece.time.end + by;
}

/// Whether a line that begins with this byte is worth a look.
fn begins_record(byte: u8) -> bool {
    byte == b'{' || byte.is_ascii_digit()
}

/// A line, in one piece if it may be a record.
fn next_line_or_record(bytes: &[u8], nuls: bool) -> Step<Piece> {
    let is_record = json_line::may_begin_record(bytes) || cri::may_begin_record(bytes);
    let piece_bytes = if is_record { RECORD_BYTES_MAX } else { LINE_PIECE_BYTES };
    line::next_line_up_to(bytes, Known { nuls, within: false }, piece_bytes)
}

/// Whether the beginning of a line is that of a record.
fn may_be_record(bytes: &[u8], format: FileFormat) -> bool {
    match bytes.first() {
        Some(b'{') => json_line::may_begin_record(bytes),
        Some(b'0'..=b'9') => {
            cri::may_begin_record(bytes) && (format == FileFormat::Cri || cri::looks_like_record(bytes))
        }
        _ => false,
    }
}

fn format_of(line: &[u8]) -> FileFormat {
    match line.first() {
        Some(b'{') if json_line::looks_like_record(line) => FileFormat::Docker,
        Some(b'0'..=b'9') if cri::looks_like_record(line) => FileFormat::Cri,
        _ => FileFormat::Raw,
    }
}

fn guess_format(buffer: &[u8]) -> FileFormat {
    match memchr::memchr(b'\n', buffer) {
        Some(end) => format_of(&buffer[..end]),
        None => FileFormat::Auto,
    }
}
