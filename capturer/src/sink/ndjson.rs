//! Records to NDJSON: one JSON object a line, keys in one fixed order, absent when empty (`message` always stands).
//!
//! ```text
//! {"time":" 2026-…Z ","stream":"stdout","container_id":…,"path":"…","message":" text "}⏎
//!           record  └──────────── SourcePrefix, once per source ─────────────┘ record
//! ```
//! What a pipeline added comes before the message: `"fields":{…},"repeated":3,"failed":["parse"]`; its labels are
//! merged with those of the source, which are rendered again for such a record.
//!
//! Records are copied. The only choice is the form of the message: an escaped one is copied as it is, a raw one is
//! scanned in blocks and copied between the bytes that need an escape. Nothing is allocated per record.
//!
//! Whatever a container calls itself or prints, a record stays one line and its keys are ours: every byte that could
//! end a string or a line is escaped.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write as _;

use super::Counts;
use crate::decode::timestamp;
use crate::limits::META_STRING_BYTES_MAX;
use crate::model::fields::{Extra, Labels, Value};
use crate::model::record::{Batch, MessageForm, Record, Source, StdType};

const HEAD: &[u8] = b"{\"time\":\"";
const MESSAGE: &[u8] = b",\"message\":\"";
const TRUNCATED: &[u8] = b",\"truncated\":true";
const PARTIAL: &[u8] = b",\"partial\":true";
const CONTINUED: &[u8] = b",\"continued\":true";
const END: &[u8] = b"\"}\n";

/// The text between time and message, the same for all records of a source. Both channels share it, for there may be
/// tens of thousands of sources.
#[derive(Clone, Debug)]
pub struct SourcePrefix {
    /// The text after the channel, up to the message's first byte.
    text: Box<[u8]>,
    /// Where the labels begin in that text.
    labels_at: usize,
    labels: BTreeMap<String, String>,
    /// Length of the text between labels and message.
    behind_labels: usize,
}

impl SourcePrefix {
    /// Renders the facts of a source.
    pub fn new(source: &Source) -> SourcePrefix {
        let mut labels = (*source.labels).clone();
        labels.extend(source.container.iter().flat_map(|container| container.labels.clone()));
        let mut text = Vec::new();
        if let Some(container) = &source.container {
            field(&mut text, "container_id", &container.id);
            field(&mut text, "container_name", &container.name);
            field(&mut text, "image", &container.image);
        }
        let labels_at = text.len();
        put_labels(labels.iter().map(|(key, value)| (&**key, &**value)).collect(), &mut text);
        let behind_labels_at = text.len();
        field(&mut text, "path", source.path.as_deref().unwrap_or_default());
        let behind_labels = text.len() - behind_labels_at;
        text.extend_from_slice(MESSAGE);
        SourcePrefix { text: text.into(), labels_at, labels, behind_labels }
    }

    /// A line of this source without a message, for any time.
    pub(super) fn sample(&self) -> Vec<u8> {
        [HEAD, b"1970-01-01T00:00:00Z", channel(StdType::Stdout), &self.text, END].concat()
    }

    fn without_message(&self) -> &[u8] {
        &self.text[..self.text.len() - MESSAGE.len()]
    }

    /// Writes everything up to `message`, with the record's own labels before those of the source.
    fn with_labels(&self, own: &Labels, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.text[..self.labels_at]);
        let mut labels: BTreeMap<&str, &str> = BTreeMap::new();
        for (key, value) in self.labels.iter().chain(own) {
            labels.insert(key, value);
        }
        put_labels(labels, out);
        let whole = self.without_message();
        out.extend_from_slice(&whole[whole.len() - self.behind_labels..]);
    }

    /// Writes what a pipeline added to a record, and everything before it.
    fn with_extra(&self, extra: &Extra, out: &mut Vec<u8>) {
        match extra.labels.as_deref() {
            None => out.extend_from_slice(self.without_message()),
            Some(own) => self.with_labels(own, out),
        }
        if !extra.fields.is_empty() {
            out.extend_from_slice(b",\"fields\":{");
            for (index, (name, value)) in extra.fields.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                quoted(name, out);
                out.push(b':');
                match value {
                    Value::Text(text) => quoted(text, out),
                    Value::Number(_) | Value::Bool(_) => out.extend_from_slice(value.as_str().as_bytes()),
                }
            }
            out.push(b'}');
        }
        if extra.repeated > 0 {
            let _ = write!(out, ",\"repeated\":{}", extra.repeated);
        }
        if !extra.failed.is_empty() {
            let names: Vec<&str> = extra.failed.names().collect();
            let _ = write!(out, ",\"failed\":[\"{}\"]", names.join("\",\""));
        }
    }
}

fn put_labels(labels: BTreeMap<&str, &str>, out: &mut Vec<u8>) {
    if labels.is_empty() {
        return;
    }
    out.extend_from_slice(b",\"labels\":{");
    for (index, (key, value)) in labels.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        string(out, key);
        out.push(b':');
        string(out, value);
    }
    out.push(b'}');
}

/// The text after the time.
fn channel(std_type: StdType) -> &'static [u8] {
    match std_type {
        StdType::Stdout => b"\",\"stream\":\"stdout\"",
        StdType::Stderr => b"\",\"stream\":\"stderr\"",
    }
}

fn field(out: &mut Vec<u8>, key: &str, value: &str) {
    if !value.is_empty() {
        out.push(b',');
        string(out, key);
        out.push(b':');
        string(out, value);
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    escape_text(shortened(text).as_bytes(), out);
    out.push(b'"');
}

fn quoted(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    escape_text(text.as_bytes(), out);
    out.push(b'"');
}

/// A container's owner may choose 60,000 bytes of name and a megabyte of label; each record repeats them.
fn shortened(text: &str) -> Cow<'_, str> {
    if text.len() <= META_STRING_BYTES_MAX {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("{}…", &text[..text.floor_char_boundary(META_STRING_BYTES_MAX)]))
}

/// Appends the batch's records from `first` on, until all are written or `out` holds `bytes_max`. Returns the index of
/// the first record left, and counts of what was written.
pub fn encode(
    batch: &Batch,
    prefix: &SourcePrefix,
    first: usize,
    bytes_max: usize,
    out: &mut Vec<u8>,
) -> (usize, Counts) {
    let records = &batch.records[first..];
    let start = out.len();
    let around = HEAD.len() + 36 + channel(StdType::Stdout).len() + prefix.text.len() + END.len();
    let message_bytes: usize = records.iter().map(|record| record.message_len as usize).sum();
    out.reserve((around * records.len() + message_bytes).min(bytes_max.saturating_sub(out.len())));

    let mut counts = Counts::default();
    for (index, record) in records.iter().enumerate() {
        if out.len() >= bytes_max {
            break;
        }
        encode_one(batch, prefix, first + index, record, out, &mut counts);
        counts.records += 1;
    }
    counts.bytes = (out.len() - start) as u64;
    (first + counts.records as usize, counts)
}

/// Appends the record of that index.
#[inline]
pub(super) fn encode_one(
    batch: &Batch,
    prefix: &SourcePrefix,
    index: usize,
    record: &Record,
    out: &mut Vec<u8>,
    counts: &mut Counts,
) {
    out.extend_from_slice(HEAD);
    // A time is digits and a few signs; escaping costs nothing then, and keeps a decoder's mistake inside its string.
    timestamp::in_utc(batch.time(record), |time| escape_text(time, out));
    counts.truncated += u64::from(record.truncated);
    out.extend_from_slice(channel(record.std_type));
    match batch.extra(index) {
        None if !record.is_marked() => out.extend_from_slice(&prefix.text),
        None => {
            out.extend_from_slice(prefix.without_message());
            marks(record, out);
            out.extend_from_slice(MESSAGE);
        }
        Some(extra) => {
            prefix.with_extra(extra, out);
            marks(record, out);
            out.extend_from_slice(MESSAGE);
        }
    }
    let message = batch.message(record);
    match record.form {
        MessageForm::JsonEscaped => out.extend_from_slice(message),
        MessageForm::Raw => counts.invalid_utf8 += escape_raw(message, out),
    }
    out.extend_from_slice(END);
}

fn marks(record: &Record, out: &mut Vec<u8>) {
    let marks = [(record.truncated, TRUNCATED), (record.partial, PARTIAL), (record.continued, CONTINUED)];
    marks.iter().filter(|(is_set, _)| *is_set).for_each(|(_, mark)| out.extend_from_slice(mark));
}

/// Appends any bytes as the inside of a JSON string. Returns how often U+FFFD took the place of bytes that are not
/// UTF-8 (the same places as `String::from_utf8_lossy`).
pub(super) fn escape_raw(bytes: &[u8], out: &mut Vec<u8>) -> u64 {
    // The check for valid text runs many bytes at a time; the walk by chunks does not, and is rarely needed.
    if std::str::from_utf8(bytes).is_ok() {
        escape_text(bytes, out);
        return 0;
    }
    let mut replaced = 0;
    for chunk in bytes.utf8_chunks() {
        escape_text(chunk.valid().as_bytes(), out);
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
            replaced += 1;
        }
    }
    replaced
}

/// Appends valid UTF-8 as the inside of a JSON string.
fn escape_text(mut text: &[u8], out: &mut Vec<u8>) {
    loop {
        let clean = clean_len(text);
        out.extend_from_slice(&text[..clean]);
        let Some(byte) = text.get(clean) else { return };
        escape_byte(*byte, out);
        text = &text[clean + 1..];
    }
}

#[inline]
fn needs_escape(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

/// Length of the run that can be copied as it is. The inner loop has no branch, so that the compiler vectorizes it.
#[inline]
fn clean_len(text: &[u8]) -> usize {
    const BLOCK: usize = 32;
    let mut len = 0;
    while let Some(block) = text[len..].first_chunk::<BLOCK>() {
        if block.iter().fold(0u8, |hit, byte| hit | u8::from(needs_escape(*byte))) != 0 {
            break;
        }
        len += BLOCK;
    }
    let rest = &text[len..];
    len + rest.iter().position(|byte| needs_escape(*byte)).unwrap_or(rest.len())
}

#[cold]
fn escape_byte(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        _ => {
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
        }
    }
}

#[cfg(test)]
#[path = "ndjson_tests.rs"]
mod tests;
