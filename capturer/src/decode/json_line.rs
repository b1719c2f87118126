//! Docker's json-file: one JSON object a line, `{"log":"text\n","stream":"stdout","time":"…Z"}`, with `"attrs":{…}`
//! before the time where labels or environment go into the log. Source of the format: moby,
//! daemon/logger/jsonfilelog/jsonlog/jsonlog.go.
//!
//! The message stays escaped, as offsets: what Docker wrote is valid inside any JSON string, so json-file to NDJSON
//! copies it untouched. The decoder only walks its escapes, to find its end and length, and lone surrogates, which Go
//! never writes and our own output must not contain.
//!
//! Damage costs only itself: NUL holes are skipped, and a good record that is glued to a torn one (as after a full
//! disk) is found.

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::{Piece, Step, damage, timestamp, work};
use crate::model::record::{MessageForm, StdType};

/// Whether every line of `bytes` is valid UTF-8 without control characters, as JSON demands. Called once per buffer, at
/// the speed of memory, so that no line has to be checked by itself.
pub fn is_clean(bytes: &[u8]) -> bool {
    work::add(bytes.len());
    let controls = bytes.iter().fold(0, |sum, byte| sum | u8::from(*byte < 0x20 && *byte != b'\n'));
    controls == 0 && std::str::from_utf8(bytes).is_ok()
}

/// The first record of `bytes`; what it takes includes its newline. `clean` is the result of [`is_clean`] for a buffer
/// that holds `bytes`; if false, each line is checked by itself.
pub fn next_record(bytes: &[u8], clean: bool) -> Step<Piece> {
    next(bytes, clean, parse)
}

/// As [`next_record`], for files that Docker may not have written. Applications and other agents use the same keys and
/// more of their own, which a record would lose. So a line with a key that Docker does not write is no record.
pub fn next_record_of_docker(bytes: &[u8], clean: bool) -> Step<Piece> {
    next(bytes, clean, parse_of_docker)
}

fn next(bytes: &[u8], clean: bool, parse: impl Fn(&[u8]) -> Option<Piece>) -> Step<Piece> {
    let record = |line: &[u8]| {
        let line = without_cr(line);
        parse(line).filter(|_| clean || is_clean(line))
    };
    damage::next_record(bytes, record, |line| good_record_behind(line, &parse))
}

/// Quick test whether a line is a json-file record that loses nothing if it is decoded as one (`format: auto`).
pub fn looks_like_record(line: &[u8]) -> bool {
    let line = without_cr(line.strip_suffix(b"\n").unwrap_or(line));
    is_clean(line) && parse_of_docker(line).is_some()
}

/// A copy of a log that went through Windows ends its records with a carriage return and a newline.
fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Whether an unfinished line that begins with these bytes is a record as Docker writes it.
pub fn may_begin_record(bytes: &[u8]) -> bool {
    bytes.starts_with(OPENING) || OPENING.starts_with(bytes)
}

/// The record in a whole line of any writer, which has no newline.
pub fn whole_record(line: &[u8]) -> Option<Piece> {
    let line = without_cr(line);
    parse_of_docker(line).filter(|_| is_clean(line))
}

/// Where in a damaged line a whole record begins that reaches to its end. An unescaped `{"log":"` can't be inside a
/// JSON string, so it can only be the beginning of a record.
fn good_record_behind(line: &[u8], parse: impl Fn(&[u8]) -> Option<Piece>) -> Option<usize> {
    let line = without_cr(line);
    let mut end = line.len();
    // Two tries: a record may be glued to one torn record, or to two. More is not damage but another kind of file.
    for _ in 0..2 {
        let Some(at) = memchr::memmem::rfind(&line[..end], OPENING) else { break };
        work::add(end - at);
        if at > 0 && is_clean(&line[at..]) && parse(&line[at..]).is_some() {
            return Some(at);
        }
        end = at;
    }
    // The record behind a hole, whatever its beginning.
    let behind = memchr::memrchr(0, line)? + 1;
    (is_clean(&line[behind..]) && parse(&line[behind..]).is_some()).then_some(behind)
}

const OPENING: &[u8] = b"{\"log\":\"";

fn parse(line: &[u8]) -> Option<Piece> {
    work::add(line.len());
    parse_common(line).or_else(|| parse_any::<AnyRecord>(line))
}

fn parse_of_docker(line: &[u8]) -> Option<Piece> {
    work::add(line.len());
    parse_common(line).or_else(|| parse_any::<DockerRecord>(line))
}

/// Parses the one form in which Docker writes records without attributes.
fn parse_common(line: &[u8]) -> Option<Piece> {
    let text = line.strip_prefix(OPENING)?;
    let string = scan_string(text)?;
    let rest = text[string.end..].strip_prefix(b"\",\"stream\":\"std")?;
    let (std_type, rest) = match rest.split_at_checked(OUT.len())? {
        (OUT, rest) => (StdType::Stdout, rest),
        (ERR, rest) => (StdType::Stderr, rest),
        _ => return None,
    };
    let time = rest.strip_suffix(b"\"}")?;
    if !is_time(time) {
        return None;
    }
    let time_start = line.len() - rest.len();
    Some(piece(OPENING.len(), string, std_type, time_start..time_start + time.len()))
}

const OUT: &[u8] = b"out\",\"time\":\"";
const ERR: &[u8] = b"err\",\"time\":\"";

#[derive(Deserialize)]
struct AnyRecord<'a> {
    #[serde(borrow)]
    log: Option<&'a RawValue>,
    #[serde(borrow)]
    stream: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
}

/// Every key that Docker writes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DockerRecord<'a> {
    #[serde(borrow)]
    log: Option<&'a RawValue>,
    #[serde(borrow)]
    stream: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(rename = "attrs")]
    _attributes: Option<IgnoredAny>,
}

impl<'a> From<DockerRecord<'a>> for AnyRecord<'a> {
    fn from(DockerRecord { log, stream, time, .. }: DockerRecord<'a>) -> AnyRecord<'a> {
        AnyRecord { log, stream, time }
    }
}

/// Parses any order of keys, attributes, and no `log` (Docker omits an empty one).
fn parse_any<'a, R: Deserialize<'a> + Into<AnyRecord<'a>>>(line: &'a [u8]) -> Option<Piece> {
    work::add(line.len());
    // serde takes an array for a struct, too.
    if !line.trim_ascii_start().starts_with(b"{") {
        return None;
    }
    let record: AnyRecord = serde_json::from_slice::<R>(line).ok()?.into();
    let std_type = match &*record.stream {
        "stdout" => StdType::Stdout,
        "stderr" => StdType::Stderr,
        _ => return None,
    };
    let Cow::Borrowed(time) = record.time else { return None };
    if !is_time(time.as_bytes()) {
        return None;
    }
    let time_start = offset_in(line, time);
    let time = time_start..time_start + time.len();
    let Some(log) = record.log else {
        return Some(piece(0, Scanned { end: 0, decoded_len: 0, complete: false }, std_type, time));
    };
    let text_start = offset_in(line, log.get()) + 1;
    let string = log.get().as_bytes().strip_prefix(b"\"").and_then(scan_string)?;
    Some(piece(text_start, string, std_type, time))
}

fn offset_in(line: &[u8], part: &str) -> usize {
    part.as_ptr() as usize - line.as_ptr() as usize
}

fn piece(text_start: usize, string: Scanned, std_type: StdType, time: Range<usize>) -> Piece {
    let newline = if string.complete { 2 } else { 0 };
    Piece {
        text: text_start..text_start + string.end - newline,
        time,
        form: MessageForm::JsonEscaped,
        decoded_len: string.decoded_len - newline / 2,
        std_type,
        complete: string.complete,
    }
}

/// Whether it is not empty and can't break out of a JSON string. Cheaper than [`timestamp::parse`]: most lines' times
/// are only copied.
fn is_time(time: &[u8]) -> bool {
    (20..=timestamp::TIME_BYTES_MAX).contains(&time.len())
        && time.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'-' | b':' | b'T' | b'Z' | b'.' | b'+'))
}

/// The inside of a JSON string.
struct Scanned {
    /// Offset of the closing quote.
    end: usize,
    /// Bytes after unescaping.
    decoded_len: usize,
    /// The last character is an escaped newline.
    complete: bool,
}

/// Walks the inside of a JSON string up to its closing quote. `None`: no end, an invalid escape, or a lone surrogate.
fn scan_string(text: &[u8]) -> Option<Scanned> {
    let mut at = 0;
    let mut decoded_len = 0;
    let mut newline_ended_at = usize::MAX;
    loop {
        let next = at + special(&text[at..])?;
        decoded_len += next - at;
        if text[next] == b'"' {
            return Some(Scanned { end: next, decoded_len, complete: newline_ended_at == next });
        }
        // Nearly all escapes are one of these, and where there is one there are many: JSON within JSON has two a word.
        if let Some(b'"' | b'n' | b't' | b'\\') = text.get(next + 1) {
            at = next + 2;
            decoded_len += 1;
            if text[next + 1] == b'n' {
                newline_ended_at = at;
            }
            continue;
        }
        let (bytes, decoded) = escape(&text[next..])?;
        decoded_len += decoded;
        at = next + bytes;
    }
}

/// Where the next quote or backslash is. The first few bytes are tested one by one, because a search in wide steps only
/// pays for more.
fn special(text: &[u8]) -> Option<usize> {
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\');
    let near = text.len().min(NEAR_BYTES);
    let found = text[..near].iter().position(is_special);
    found.or_else(|| Some(near + memchr::memchr2(b'"', b'\\', &text[near..])?))
}

const NEAR_BYTES: usize = 8;

/// The escape at the start of `text`: its length, and the length of its character in UTF-8.
fn escape(text: &[u8]) -> Option<(usize, usize)> {
    match text.get(1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some((2, 1)),
        b'u' => match hex4(text, 2)? {
            0..=0x7F => Some((6, 1)),
            0x80..=0x7FF => Some((6, 2)),
            0xD800..=0xDBFF => match (text.get(6)?, text.get(7)?, hex4(text, 8)?) {
                (b'\\', b'u', 0xDC00..=0xDFFF) => Some((12, 4)),
                _ => None,
            },
            0xDC00..=0xDFFF => None,
            _ => Some((6, 3)),
        },
        _ => None,
    }
}

fn hex4(text: &[u8], at: usize) -> Option<u32> {
    text.get(at..at + 4)?.iter().try_fold(0, |value, byte| Some(value * 16 + char::from(*byte).to_digit(16)?))
}

/// The longest start of an escaped text that is at most `decoded_max` bytes when unescaped and ends within neither an
/// escape nor a character.
pub fn cut_escaped(text: &[u8], decoded_max: usize) -> usize {
    let mut at = 0;
    let mut left = decoded_max;
    while at < text.len() {
        if text[at] != b'\\' {
            let run = memchr::memchr(b'\\', &text[at..]).unwrap_or(text.len() - at);
            if run > left {
                return at + super::utf8::cut(&text[at..at + run], left);
            }
            at += run;
            left -= run;
            continue;
        }
        match escape(&text[at..]) {
            Some((bytes, decoded)) if decoded <= left => {
                at += bytes;
                left -= decoded;
            }
            _ => return at,
        }
    }
    at
}

/// Appends the unescaped text to `out`. `text` must be one that [`next_record`] accepted.
pub fn unescape(text: &[u8], out: &mut Vec<u8>) {
    let mut at = 0;
    while let Some(run) = memchr::memchr(b'\\', &text[at..]) {
        out.extend_from_slice(&text[at..at + run]);
        at += run;
        let Some((bytes, _)) = escape(&text[at..]) else { break };
        let character = match text[at + 1] {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => unicode(&text[at..]),
            other => char::from(other),
        };
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        at += bytes;
    }
    out.extend_from_slice(&text[at..]);
}

fn unicode(text: &[u8]) -> char {
    let first = hex4(text, 2).unwrap_or(0xFFFD);
    let code = match (first, hex4(text, 8)) {
        (0xD800..=0xDBFF, Some(second @ 0xDC00..=0xDFFF)) => {
            0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00)
        }
        _ => first,
    };
    char::from_u32(code).unwrap_or('\u{fffd}')
}

#[cfg(test)]
#[path = "json_line_tests.rs"]
mod tests;
