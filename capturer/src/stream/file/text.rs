//! What is made of a file's bytes: which lines they are, and in which encoding. A file is UTF-8 unless its byte order mark
//! or the config says otherwise; with `format: auto` each line that does not fit the ones before is decided by itself, and
//! nothing is thrown away for not being a record.

use super::FileSource;
use super::records::count_reject;
use crate::capture::support::Context;
use crate::cursor::FileId;
use crate::decode::assemble::Lines;
use crate::decode::text::{self, Encoding, Mark};
use crate::decode::{DecodeError, Piece, Step, cri, json_line, line};
use crate::record::{MessageForm, StdType};
use crate::settings::FileFormat;
use crate::stream::Told;

/// The encoding of the file that is read.
#[derive(Debug, Default)]
pub(super) struct Text {
    /// As the config has it.
    configured: Encoding,
    /// As the file's mark has it, and which file that is.
    of_file: Option<(FileId, Encoding)>,
    /// Logical position of the first byte of the buffer that is decoded.
    base: u64,
    /// A line in UTF-8.
    decoded: Vec<u8>,
    /// It was told that lines are of more than one format.
    told_mixed: bool,
}

impl Text {
    pub(super) fn new(encoding: Option<Encoding>) -> Text {
        Text { configured: encoding.unwrap_or_default(), ..Text::default() }
    }

    fn encoding(&self) -> Encoding {
        self.of_file.map_or(self.configured, |(_, encoding)| encoding)
    }
}

impl FileSource {
    /// What a buffer that was read at `offset` begins with: so many bytes of a byte order mark. `None` = more must come
    /// before that is known, or it can't be decoded.
    pub(super) fn begin_text(
        &mut self,
        offset: u64,
        buffer: &[u8],
        at_end: bool,
        told: &mut Vec<Told>,
    ) -> Option<usize> {
        let front = self.chain.links.front()?;
        let id = front.found.id;
        let known = self.text.of_file.is_some_and(|(of, _)| of == id);
        if offset > 0 && known {
            return Some(0);
        }
        let head = if offset == 0 { buffer } else { &front.found.head };
        let (encoding, begins) = match text::mark(head, at_end || offset > 0) {
            Mark::None => (self.text.configured, 0),
            Mark::Of(encoding, bytes) => (encoding, bytes),
            Mark::NeedMore => return None,
            Mark::Utf32 => {
                told.push(Told::Unreadable(format!(
                    "{}/{} is UTF-32, which is not decoded: write it as UTF-8",
                    self.directory, front.found.name
                )));
                return None;
            }
        };
        self.text.of_file = Some((id, encoding));
        Some(if offset == 0 { begins } else { 0 })
    }

    /// A buffer is decoded whose first bytes, so many, were decoded before.
    pub(super) fn begin_buffer(&mut self, again: usize) {
        // A file that is read from its first byte has none before it, but its stream's positions begin at zero.
        self.text.base = self.chain.position().wrapping_sub(again as u64);
    }

    /// Decodes whole records from `begins` on; returns how many bytes of the buffer are done with.
    pub(super) fn decode_lines(
        &mut self,
        buffer: &[u8],
        begins: usize,
        lines: &mut Lines,
        cx: &Context<'_>,
    ) -> usize {
        let encoding = self.text.encoding();
        if !encoding.is_utf8() {
            return self.decode_encoded(encoding, buffer, begins, lines, cx);
        }
        if self.format == FileFormat::Auto {
            self.format = guess_format(&buffer[begins..]);
        }
        // Asked once a buffer, so that nothing has to be asked per line.
        let clean = self.format == FileFormat::Docker && json_line::is_clean(buffer);
        let nuls = !clean && memchr::memchr(0, buffer).is_some();
        let mut at = begins;
        while at < buffer.len() {
            let step = match self.format {
                FileFormat::Docker => json_line::next_record(&buffer[at..], clean),
                FileFormat::Cri => cri::next_record(&buffer[at..], nuls),
                FileFormat::Raw if self.decides && begins_record(buffer[at]) => {
                    self.decide(&buffer[at..], nuls)
                }
                FileFormat::Auto | FileFormat::Raw => line::next_line(&buffer[at..], nuls),
            };
            match step {
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
                    count_reject(error, took, cx);
                    at += took;
                }
                Step::NeedMore => break,
            }
        }
        at
    }

    fn take(&mut self, buffer: &[u8], at: usize, mut piece: Piece, lines: &mut Lines, cx: &Context<'_>) {
        shift(&mut piece, at);
        // Plain lines between those of a runtime have no tag, and no time.
        let by_tag = self.format == FileFormat::Cri && !piece.time.is_empty();
        self.assembler.join_by_tag(by_tag);
        let begins_at = self.text.base.wrapping_add(at as u64);
        let deliver = begins_at >= self.chain.delivered_to[piece.std_type.index()];
        if self.passing.is_over() {
            self.assembler.push(buffer, &piece, begins_at, deliver, lines);
        } else {
            self.pass_over(buffer, &piece, begins_at, deliver, lines, cx);
        }
    }

    /// A line of an undecided file that may be a record, though those before it are none.
    fn decide(&mut self, bytes: &[u8], nuls: bool) -> Step<Piece> {
        let step = line::next_line(bytes, nuls);
        let Step::Item(piece, took) = &step else { return step };
        let line = &bytes[piece.text.clone()];
        let format = match format_of(line) {
            FileFormat::Raw => return step,
            format if bytes.get(*took - 1) == Some(&b'\n') => format,
            _ => return step,
        };
        self.changes_to(format);
        match format {
            FileFormat::Docker => json_line::next_record(bytes, false),
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
            let step = match line::next_line(rest, nuls) {
                // A good record is glued behind it.
                Step::NeedMore => {
                    line::last_line(rest).map_or(Step::NeedMore, |piece| Step::Item(piece, rest.len()))
                }
                step => step,
            };
            match step {
                Step::Item(piece, took) => {
                    let format = format_of(&rest[piece.text.clone()]);
                    self.changes_to(format);
                    self.take_one(buffer, at, piece, format, lines, cx);
                    at += took;
                }
                Step::Reject(error, took) => {
                    count_reject(error, took, cx);
                    at += took;
                }
                Step::NeedMore => break,
            }
        }
    }

    fn take_one(
        &mut self,
        buffer: &[u8],
        at: usize,
        plain: Piece,
        format: FileFormat,
        lines: &mut Lines,
        cx: &Context<'_>,
    ) {
        let line = &buffer[at..][plain.text.clone()];
        let record = match format {
            FileFormat::Docker => json_line::whole_record(line),
            FileFormat::Cri => cri::whole_record(line),
            FileFormat::Auto | FileFormat::Raw => None,
        };
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
                "lines are of more than one format; each is taken for what it is. Set `format` if they are not"
            );
        }
        self.format = format;
    }

    fn decode_encoded(
        &mut self,
        encoding: Encoding,
        buffer: &[u8],
        begins: usize,
        lines: &mut Lines,
        cx: &Context<'_>,
    ) -> usize {
        let mut at = begins;
        while at < buffer.len() {
            match encoding.next_line(&buffer[at..]) {
                Step::Item(line, took) => {
                    self.take_encoded(encoding, buffer, at, &line, lines);
                    at += took;
                }
                Step::Reject(error, took) => {
                    count_reject(error, took, cx);
                    at += took;
                }
                Step::NeedMore => break,
            }
        }
        at
    }

    fn take_encoded(
        &mut self,
        encoding: Encoding,
        buffer: &[u8],
        at: usize,
        line: &text::EncodedLine,
        lines: &mut Lines,
    ) {
        let mut decoded = std::mem::take(&mut self.text.decoded);
        decoded.clear();
        encoding.decode(&buffer[at..][line.text.clone()], &mut decoded);
        let piece = Piece {
            text: 0..decoded.len(),
            time: 0..0,
            form: MessageForm::Raw,
            decoded_len: decoded.len(),
            std_type: StdType::Stdout,
            complete: line.complete,
        };
        let begins_at = self.text.base.wrapping_add(at as u64);
        let deliver = begins_at >= self.chain.delivered_to[piece.std_type.index()];
        self.assembler.copy(true);
        self.assembler.push(&decoded, &piece, begins_at, deliver, lines);
        self.assembler.copy(false);
        self.text.decoded = decoded;
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
        let encoding = self.text.encoding();
        if !encoding.is_utf8() {
            if let Some(line) = encoding.last_line(rest) {
                self.take_encoded(encoding, buffer, used, &line, lines);
            }
        } else if self.decides {
            let nuls = memchr::memchr(0, rest).is_some();
            self.take_as_they_are(buffer, used..buffer.len(), nuls, lines, cx);
        } else if self.holds_records() {
            count_reject(DecodeError::TornRecord, rest.len(), cx);
        } else if let Some(piece) = line::last_line(rest) {
            self.take(buffer, used, piece, lines, cx);
        }
        buffer.len()
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
