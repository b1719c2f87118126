//! Keys that tell records of an output apart, both those read back from its file and those about to be written.
//!
//! ```text
//! line in an output ── of_line ──▶ source, Key ◀── of_record ── record of a batch
//! ```
//! A key leaves out what may differ when the same line is read again: the container's name and labels, the pipeline's
//! additions, and the time of a line that has none of its own and got the time of reading. It does not depend on how a
//! message is escaped either: the Engine's files have `\u003c` and `\ufffd` where its API sends the characters
//! themselves, and a line that came from the API may be read from a file the next time.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hasher as _};

use super::super::outbox::SourceFacts;
use super::super::plain::{self, PlainFormat};
use crate::decode::{json_line, timestamp};
use crate::model::record::{Batch, MessageForm, Record, StdType};
use crate::settings::OutputFormat;

/// One line of an output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Key {
    /// 0 or 1; 0 where the format does not tell.
    pub(super) channel: usize,
    /// Hash of channel and message.
    pub(super) weak: u64,
    /// Hash of channel, message and time; 0 = the line has no time of its own.
    pub(super) strong: u64,
    /// The time, or the latest it can be; 0 = unknown. Nanoseconds since 1970.
    pub(super) time_ns: i64,
}

impl Key {
    fn new(channel: usize, message: &[u8], time: &[u8]) -> Key {
        let weak = hash(&[&[channel as u8], message]);
        let time_ns = timestamp::parse(time);
        let strong = match time_ns {
            // Not the text: Docker's files leave out zeros at the end of the nanoseconds that its API writes.
            Some(time_ns) => hash(&[&weak.to_le_bytes(), &time_ns.to_le_bytes()]).max(1),
            None if time.is_empty() => 0,
            None => hash(&[&weak.to_le_bytes(), time]).max(1),
        };
        Key { channel, weak, strong, time_ns: time_ns.unwrap_or(0) }
    }
}

fn hash(parts: &[&[u8]]) -> u64 {
    // This hasher's keys are fixed, and its results do not outlive the process.
    let mut hasher = DefaultHasher::new();
    parts.iter().for_each(|part| hasher.write(part));
    hasher.finish()
}

/// A hash that is kept in the checkpoint: FNV-1a, the same in every version of this program.
pub(super) fn source_hash(parts: &[&[u8]]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.iter().copied().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Source and key of a line, without its newline; `None` = it is not one of ours. If the format does not name the
/// source, it is `nameless`; if it has no time, the record is known to be no younger than `until_ns`.
pub(super) fn of_line(format: OutputFormat, line: &[u8], nameless: u64, until_ns: i64) -> Option<(u64, Key)> {
    match format {
        OutputFormat::Ndjson => {
            let line = Members::of(line)?;
            let key = Key::new(line.channel, &unescaped(line.message?), line.time);
            Some((source_hash(&[line.container_id, line.path]), key))
        }
        OutputFormat::Docker => {
            let line = Members::of(line)?;
            let message = unescaped(line.message?);
            let message = message.strip_suffix(b"\n").unwrap_or(&message);
            Some((nameless, Key::new(line.channel, message, line.time)))
        }
        OutputFormat::Raw => Some((nameless, Key { time_ns: until_ns, ..Key::new(0, line, b"") })),
        OutputFormat::Pretty => {
            Some((nameless, Key { time_ns: until_ns, ..Key::new(0, behind_time(line), b"") }))
        }
    }
}

/// The source that [`of_line`] would find in a line with these facts.
pub(super) fn source_of(format: OutputFormat, facts: &SourceFacts, nameless: u64) -> u64 {
    match format {
        OutputFormat::Ndjson => {
            let sample = facts.prefix.sample();
            of_line(format, sample.trim_ascii_end(), 0, 0).map_or(nameless, |(source, _)| source)
        }
        _ => nameless,
    }
}

/// Keys of a record that is about to be written: one for each line it will be.
pub(super) fn of_record(
    format: OutputFormat,
    batch: &Batch,
    facts: &SourceFacts,
    record: &Record,
    text: &mut Vec<u8>,
    keys: &mut Vec<Key>,
) {
    keys.clear();
    text.clear();
    match format {
        OutputFormat::Ndjson | OutputFormat::Docker => {
            let message = match record.form {
                MessageForm::JsonEscaped => unescaped(batch.message(record)),
                MessageForm::Raw => as_text(batch.message(record)),
            };
            let own_time = if record.time_len == 0 { b"".as_slice() } else { batch.time(record) };
            keys.push(Key::new(record.std_type.index(), &message, own_time));
        }
        OutputFormat::Raw => {
            plain::encode_one(PlainFormat::Raw, batch, record, &facts.name, text);
            let whole = text.strip_suffix(b"\n").unwrap_or(text);
            keys.extend(whole.split(|byte| *byte == b'\n').map(|line| Key::new(0, line, b"")));
        }
        OutputFormat::Pretty => {
            plain::encode_one(PlainFormat::Pretty, batch, record, &facts.name, text);
            keys.push(Key::new(0, behind_time(text.strip_suffix(b"\n").unwrap_or(text)), b""));
        }
    }
}

/// Decodes the inside of a JSON string.
fn unescaped(message: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\\', message).is_none() {
        return Cow::Borrowed(message);
    }
    let mut text = Vec::with_capacity(message.len());
    json_line::unescape(message, &mut text);
    Cow::Owned(text)
}

/// Bytes as the text that is written for them.
fn as_text(message: &[u8]) -> Cow<'_, [u8]> {
    match String::from_utf8_lossy(message) {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

fn behind_time(line: &[u8]) -> &[u8] {
    memchr::memchr(b' ', line).map_or(line, |at| &line[at..])
}

/// The parts of a JSON line that count for its key, as they stand in it.
#[derive(Debug, Default)]
struct Members<'a> {
    time: &'a [u8],
    channel: usize,
    container_id: &'a [u8],
    path: &'a [u8],
    message: Option<&'a [u8]>,
}

impl<'a> Members<'a> {
    fn of(line: &'a [u8]) -> Option<Members<'a>> {
        let mut members = Members::default();
        let mut rest = line.strip_prefix(b"{")?;
        loop {
            let (key, behind) = value(rest)?;
            let (value, behind) = value(behind.strip_prefix(b":")?)?;
            let text = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
            match (key, text) {
                (b"\"time\"", Some(text)) => members.time = text,
                (b"\"stream\"", Some(text)) => {
                    members.channel = usize::from(text == StdType::Stderr.as_str().as_bytes());
                }
                (b"\"container_id\"", Some(text)) => members.container_id = text,
                (b"\"path\"", Some(text)) => members.path = text,
                (b"\"message\"" | b"\"log\"", Some(text)) => members.message = Some(text),
                _ => {}
            }
            match behind {
                // Every line of ours has a time.
                b"}" => return Some(members).filter(|members| !members.time.is_empty()),
                [b',', more @ ..] => rest = more,
                _ => return None,
            }
        }
    }
}

/// The JSON value at the beginning of a text, and the rest. It is not validated, only its end is found.
fn value(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut depth = 0_usize;
    let mut at = 0;
    loop {
        match text.get(at)? {
            b'"' => at = string_end(text, at + 1)?,
            b'{' | b'[' => (depth, at) = (depth + 1, at + 1),
            b'}' | b']' if depth > 0 => (depth, at) = (depth - 1, at + 1),
            b'}' | b']' | b',' | b':' if depth == 0 => return (at > 0).then(|| text.split_at(at)),
            _ => at += 1,
        }
        if depth == 0 && matches!(text[at - 1], b'"' | b'}' | b']') {
            return Some(text.split_at(at));
        }
    }
}

/// The offset after the quote that ends a string.
fn string_end(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::outbox::Outbox;
    use super::super::super::testing::{Rng, batch, container, followed, push};
    use super::*;

    const FORMATS: [OutputFormat; 4] =
        [OutputFormat::Ndjson, OutputFormat::Docker, OutputFormat::Raw, OutputFormat::Pretty];

    /// Otherwise a restart would not recognize what it wrote, and would write it again.
    #[test]
    fn a_record_has_the_key_of_the_line_it_becomes() {
        let mut rng = Rng::from_env();
        for round in 0..400 {
            let format = FORMATS[round % 4];
            let source = if rng.below(2) == 0 {
                container(1, &rng.text(30))
            } else {
                followed(2, &format!("/var/log/{}", rng.text(30)))
            };
            let texts: Vec<Vec<u8>> = (0..1 + rng.below(5)).map(|_| rng.bytes(60)).collect();
            let lines: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
            let mut batch = batch(&source, &lines);
            push(&mut batch, br#"a \"b\" \\ \n c"#, MessageForm::JsonEscaped);
            batch.records[0].std_type = StdType::Stderr;
            let mut outbox = Outbox::new(format);
            let facts = outbox.facts(&source);
            let mut written = Vec::new();
            outbox
                .push(&batch, &facts, |bytes| {
                    written.extend_from_slice(bytes);
                    Ok(bytes.len())
                })
                .unwrap();
            let found: Vec<(u64, Key)> = written
                .strip_suffix(b"\n")
                .unwrap()
                .split(|byte| *byte == b'\n')
                .map(|line| of_line(format, line, 7, 0).expect("a line of ours"))
                .collect();
            let (mut text, mut keys, mut expected) = (Vec::new(), Vec::new(), Vec::new());
            for record in &batch.records {
                of_record(format, &batch, &facts, record, &mut text, &mut keys);
                expected.extend(keys.iter().map(|key| (source_of(format, &facts, 7), *key)));
            }
            assert_eq!(found, expected, "{format:?}");
        }
    }

    /// A line that came over the API before a crash is read from the file after it, or the other way round. Docker's
    /// files escape more than JSON requires.
    #[test]
    fn a_line_has_one_key_however_it_is_escaped() {
        let mut rng = Rng::from_env();
        let source = container(1, "web");
        let outbox = Outbox::new(OutputFormat::Ndjson);
        let facts = outbox.facts(&source);
        let as_docker = |text: &str| -> String {
            let escaped = |c: char| match c {
                '"' | '\\' => format!("\\{c}"),
                '\n' => "\\n".to_owned(),
                '\u{fffd}' | '\u{2028}' | '\u{2029}' | '<' | '>' | '&' => format!("\\u{:04x}", u32::from(c)),
                c if c < ' ' => format!("\\u{:04x}", u32::from(c)),
                c => c.to_string(),
            };
            text.chars().map(escaped).collect()
        };
        for round in 0..300 {
            let text = match round {
                0 => {
                    "<a href=\"x\"> & \u{2028}\u{1}\u{8}\u{1b}[31m \u{fffd}\u{fffd} \\n \t\r\u{7f}".to_owned()
                }
                _ => rng.text(80).replace('\n', "<"),
            };
            let mut batch = batch(&source, &[text.as_bytes()]);
            push(&mut batch, as_docker(&text).as_bytes(), MessageForm::JsonEscaped);
            let (mut scratch, mut raw, mut escaped) = (Vec::new(), Vec::new(), Vec::new());
            for format in [OutputFormat::Ndjson, OutputFormat::Docker] {
                of_record(format, &batch, &facts, &batch.records[0], &mut scratch, &mut raw);
                of_record(format, &batch, &facts, &batch.records[1], &mut scratch, &mut escaped);
                assert_eq!(raw[0].weak, escaped[0].weak, "{text:?}");
            }
        }
    }

    #[test]
    fn what_is_not_ours_has_no_key() {
        for line in [
            "",
            "{",
            "{}",
            "plain",
            "{\"time\":\"x\"}",
            "{\"message\":\"x\"",
            "{\"message\":\"x\"}",
            "{\"message\":\"x\\",
            "[1,2]",
        ] {
            assert_eq!(of_line(OutputFormat::Ndjson, line.as_bytes(), 0, 0), None, "{line}");
        }
        let mut rng = Rng::from_env();
        for _ in 0..2_000 {
            let _ = of_line(OutputFormat::Ndjson, &rng.bytes(80), 0, 0);
        }
    }
}
