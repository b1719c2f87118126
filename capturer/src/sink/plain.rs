//! The formats besides NDJSON: for programs that want lines, for readers of Docker's own files, and for people.
//!
//! ```text
//! raw     GET /
//! docker  {"log":"GET /\n","stream":"stdout","time":"2026-11-22T00:52:48.162820305Z"}
//! pretty  00:52:48.162 web-1 | GET /
//! ```
//! `raw` is byte for byte what the process wrote, as far as the source kept it: a message that contains what looks like
//! another line is written as it is. `pretty` trusts nothing: characters that could steer a terminal are shown escaped.

use super::Counts;
use super::ndjson::escape_raw;
use crate::decode::json_line::unescape;
use crate::decode::timestamp::in_utc;
use crate::model::record::{Batch, MessageForm, Record, Source};
use crate::text::terminal::shown;

/// A format of this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PlainFormat {
    /// The message and a line feed.
    Raw,
    /// As Docker's own files have it.
    Docker,
    /// For people to read.
    Pretty,
}

/// Longest container name that `pretty` shows, characters.
const NAME_CHARS_MAX: usize = 24;
/// Colours that can be read on dark and on light, as SGR numbers.
const COLOURS: [&str; 6] = ["36", "33", "32", "35", "34", "31"];

/// What `pretty` puts before each message of a source, colour included.
pub(super) fn pretty_name(source: &Source, coloured: bool) -> String {
    let name = source.container.as_ref().map(|container| container.name.as_str());
    let name = name.filter(|name| !name.is_empty()).or(source.path.as_deref()).unwrap_or(&source.key.0);
    shown_name(name, coloured)
}

/// A record as `pretty` shows it, from its parts: RFC 3339 time, name of its source, message. With the newline.
pub fn show_line(time: &str, name: &str, message: &str, coloured: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 64);
    line(time.as_bytes(), &shown_name(name, coloured), message.as_bytes(), &mut out);
    out
}

fn shown_name(name: &str, coloured: bool) -> String {
    // The end of a path, or of a long name, is the distinctive part.
    let excess = name.chars().count().saturating_sub(NAME_CHARS_MAX);
    let mut shown = shown(&name.chars().skip(excess + usize::from(excess > 0)).collect::<String>());
    if excess > 0 {
        shown.insert(0, '…');
    }
    if !coloured {
        return format!("{shown:<12} |");
    }
    let colour = COLOURS
        [name.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31) + usize::from(byte)) % COLOURS.len()];
    format!("\u{1b}[{colour}m{shown:<12} |\u{1b}[0m")
}

/// Like [`super::ndjson::encode`], in another format. `name` is that of [`pretty_name`].
pub(super) fn encode(
    format: PlainFormat,
    batch: &Batch,
    name: &str,
    first: usize,
    bytes_max: usize,
    out: &mut Vec<u8>,
) -> (usize, Counts) {
    let start = out.len();
    let mut counts = Counts::default();
    let mut text = Vec::new();
    for record in &batch.records[first..] {
        if out.len() >= bytes_max {
            break;
        }
        counts.invalid_utf8 += one(format, batch, record, name, &mut text, out);
        counts.records += 1;
        counts.truncated += u64::from(record.truncated);
    }
    counts.bytes = (out.len() - start) as u64;
    (first + counts.records as usize, counts)
}

/// Appends one record.
pub(super) fn encode_one(format: PlainFormat, batch: &Batch, record: &Record, name: &str, out: &mut Vec<u8>) {
    one(format, batch, record, name, &mut Vec::new(), out);
}

/// Gives how often U+FFFD took the place of bytes that are not UTF-8.
fn one(
    format: PlainFormat,
    batch: &Batch,
    record: &Record,
    name: &str,
    text: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> u64 {
    match format {
        PlainFormat::Docker => docker(batch, record, out),
        PlainFormat::Pretty => {
            text.clear();
            plain(batch, record, text);
            in_utc(batch.time(record), |time| line(time, name, text, out))
        }
        PlainFormat::Raw => {
            plain(batch, record, out);
            out.push(b'\n');
            0
        }
    }
}

fn plain(batch: &Batch, record: &Record, out: &mut Vec<u8>) {
    let message = batch.message(record);
    match record.form {
        MessageForm::JsonEscaped if memchr::memchr(b'\\', message).is_some() => unescape(message, out),
        MessageForm::JsonEscaped | MessageForm::Raw => out.extend_from_slice(message),
    }
}

fn docker(batch: &Batch, record: &Record, out: &mut Vec<u8>) -> u64 {
    let mut replaced = 0;
    out.extend_from_slice(b"{\"log\":\"");
    let message = batch.message(record);
    match record.form {
        MessageForm::JsonEscaped => out.extend_from_slice(message),
        MessageForm::Raw => replaced += escape_raw(message, out),
    }
    // Docker itself leaves out the line feed of a line that continues.
    let line_end: &[u8] = if record.partial { b"" } else { b"\\n" };
    out.extend_from_slice(line_end);
    out.extend_from_slice(b"\",\"stream\":\"");
    out.extend_from_slice(record.std_type.as_str().as_bytes());
    out.extend_from_slice(b"\",\"time\":\"");
    replaced += in_utc(batch.time(record), |time| escape_raw(time, out));
    out.extend_from_slice(b"\"}\n");
    replaced
}

/// Gives how often U+FFFD took the place of bytes that are not UTF-8.
fn line(time: &[u8], name: &str, text: &[u8], out: &mut Vec<u8>) -> u64 {
    let mut replaced = 0;
    // 2026-11-22T00:52:48.162820305Z: the time of day to the millisecond.
    let time = time.get(11..23).unwrap_or(time);
    out.extend(time.iter().map(|byte| if byte.is_ascii_graphic() { *byte } else { b'?' }));
    out.push(b' ');
    out.extend_from_slice(name.as_bytes());
    out.push(b' ');
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            // Bidirectional overrides could make one line look like another.
            if (c.is_control() && c != '\t') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            {
                out.extend_from_slice(c.escape_debug().to_string().as_bytes());
            } else {
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
            replaced += 1;
        }
    }
    out.push(b'\n');
    replaced
}

#[cfg(test)]
mod tests {
    use super::super::testing::{batch, container, in_local_time, push};
    use super::*;

    fn check(format: PlainFormat, messages: &[&[u8]], escaped: &[&[u8]], expected: &str) {
        let source = container(1, "web-1");
        let mut batch = batch(&source, messages);
        for message in escaped {
            push(&mut batch, message, MessageForm::JsonEscaped);
        }
        let mut out = Vec::new();
        let (next, counts) = encode(format, &batch, &pretty_name(&source, false), 0, usize::MAX, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), expected);
        assert_eq!((next, counts.records as usize), (batch.records.len(), batch.records.len()));
        assert_eq!(counts.bytes, out.len() as u64);
    }

    #[test]
    fn raw_is_what_was_written() {
        check(PlainFormat::Raw, &[b"GET /", b"", b"a\tb"], &[], "GET /\n\na\tb\n");
        check(PlainFormat::Raw, &[], &[br#"say \"hi\" \u003c3"#, b"plain"], "say \"hi\" <3\nplain\n");
    }

    #[test]
    fn docker_reads_as_dockers_own_files_do() {
        check(
            PlainFormat::Docker,
            &[b"a\"b"],
            &[br"\u003c"],
            "{\"log\":\"a\\\"b\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-22T00:52:48.162820305Z\"}\n\
             {\"log\":\"\\u003c\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-22T00:52:48.162820305Z\"}\n",
        );
    }

    #[test]
    fn local_times_are_written_in_utc() {
        let source = container(1, "web-1");
        for format in [PlainFormat::Docker, PlainFormat::Pretty] {
            let encoded = |batch: &Batch| {
                let mut out = Vec::new();
                encode(format, batch, "web-1", 0, usize::MAX, &mut out);
                String::from_utf8(out).unwrap()
            };
            let mut local = batch(&source, &[b"m"]);
            let utc = encoded(&local);
            in_local_time(&mut local);
            assert_eq!(encoded(&local), utc);
        }
    }

    /// Who prints escape codes must not be able to clear the operator's screen or to hide a line.
    #[test]
    fn pretty_steers_no_terminal() {
        check(
            PlainFormat::Pretty,
            &[b"GET /", b"\x1b[2Jx\r\n", "\u{202e}evil".as_bytes(), b"\xff"],
            &[],
            "00:52:48.162 web-1        | GET /\n00:52:48.162 web-1        | \\u{1b}[2Jx\\r\\n\n\
             00:52:48.162 web-1        | \\u{202e}evil\n00:52:48.162 web-1        | \u{fffd}\n",
        );
        let hostile = pretty_name(&container(1, "\u{1b}]0;x\u{7}"), true);
        assert_eq!(hostile.matches('\u{1b}').count(), 2, "only our own colours: {hostile:?}");
    }

    #[test]
    fn a_batch_comes_out_in_pieces() {
        let source = container(1, "web");
        let batch = batch(&source, &[b"1", b"2", b"3"]);
        let mut out = Vec::new();
        let (next, _) = encode(PlainFormat::Raw, &batch, "", 0, 3, &mut out);
        assert_eq!((next, out.as_slice()), (2, &b"1\n2\n"[..]));
        let (next, _) = encode(PlainFormat::Raw, &batch, "", next, usize::MAX, &mut out);
        assert_eq!((next, out.as_slice()), (3, &b"1\n2\n3\n"[..]));
    }
}
