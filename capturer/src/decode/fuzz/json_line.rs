//! Fuzz entry for the json-file decoder. The slow and obvious decoder is serde_json.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::decode::json_line::{
    cut_escaped, is_clean, looks_like_record, next_record, next_record_of_docker, unescape,
};
use crate::decode::timestamp::TIME_BYTES_MAX;
use crate::decode::{Piece, Step};
use crate::fuzz::{Found, decode_in_any_parts, decode_in_parts};
use crate::limits::RECORD_BYTES_MAX;
use crate::model::record::StdType;

const TIME: &str = "2026-11-22T00:52:48.162820305Z";

/// A json-file, whole or damaged.
pub fn check(bytes: &[u8]) {
    let next = |bytes: &[u8], _| next_record(bytes, is_clean(bytes));
    let (found, held) = decode_in_any_parts(bytes, RECORD_BYTES_MAX - 1, next);
    // Called once for all bytes, as the stream does, the result must be the same.
    let clean = is_clean(bytes);
    let again =
        decode_in_parts(bytes, &[bytes.len()], RECORD_BYTES_MAX - 1, |bytes, _| next_record(bytes, clean));
    assert_eq!(again.0, found);

    let mut found_at = Vec::new();
    for one in &found {
        let Found::Item { at, took, item } = one else { continue };
        let line = &bytes[*at..at + took - 1];
        assert_eq!(Some(shown(line, item)), record_slowly(line), "{}", line.escape_ascii());
        message(&line[item.text.clone()], item.decoded_len);
        found_at.push(*at);
    }
    // A whole record is found, whatever damaged its neighbours.
    let mut at = 0;
    for line in bytes[..bytes.len() - held].split_inclusive(|byte| *byte == b'\n') {
        let whole = line.strip_suffix(b"\n").unwrap_or(line);
        let is_record = record_slowly(whole).is_some();
        assert!(!is_record || found_at.contains(&at), "not found: {}", whole.escape_ascii());
        let loses_nothing = is_record && has_no_other_keys(whole);
        assert_eq!(looks_like_record(line), loses_nothing, "{}", line.escape_ascii());
        let step = next_record_of_docker(line, clean);
        assert_eq!(matches!(step, Step::Item(..)), loses_nothing, "{}", line.escape_ascii());
        at += line.len();
    }
    round_trip(&String::from_utf8_lossy(bytes));
}

/// Channel, message as printed, time.
type Shown = (StdType, String, String);

fn shown(line: &[u8], piece: &Piece) -> Shown {
    let mut text = Vec::new();
    unescape(&line[piece.text.clone()], &mut text);
    if piece.complete {
        text.push(b'\n');
    }
    let utf8 = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    (piece.std_type, utf8(&text), utf8(&line[piece.time.clone()]))
}

#[derive(Deserialize)]
struct SlowRecord<'a> {
    log: Option<String>,
    stream: String,
    time: &'a str,
}

/// `line` must be a record.
fn has_no_other_keys(line: &[u8]) -> bool {
    let keys: Result<Keys, _> = serde_json::from_slice(line);
    keys.is_ok()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(rename = "log")]
    _log: Option<IgnoredAny>,
    #[serde(rename = "stream")]
    _stream: IgnoredAny,
    #[serde(rename = "time")]
    _time: IgnoredAny,
    #[serde(rename = "attrs")]
    _attrs: Option<IgnoredAny>,
}

fn record_slowly(line: &[u8]) -> Option<Shown> {
    let text = std::str::from_utf8(line).ok().filter(|text| text.bytes().all(|byte| byte >= 0x20))?;
    // serde takes an array for a struct, too.
    let text = Some(text).filter(|text| text.trim_start().starts_with('{'))?;
    let record: SlowRecord = serde_json::from_str(text).ok()?;
    let std_type = match record.stream.as_str() {
        "stdout" => StdType::Stdout,
        "stderr" => StdType::Stderr,
        _ => return None,
    };
    let is_time = (20..=TIME_BYTES_MAX).contains(&record.time.len())
        && record.time.chars().all(|c| "0123456789-:TZ.+".contains(c));
    is_time.then(|| (std_type, record.log.unwrap_or_default(), record.time.to_owned()))
}

/// A message that was accepted can be copied into any JSON string, and cut anywhere.
fn message(escaped: &[u8], decoded_len: usize) {
    let mut text = Vec::new();
    unescape(escaped, &mut text);
    assert_eq!(text.len(), decoded_len);
    let quoted = [b"\"", escaped, b"\""].concat();
    let slow: String = serde_json::from_slice(&quoted).expect("the inside of a JSON string");
    assert_eq!(slow.as_bytes(), text);
    for max in (0..8).chain([text.len() / 2, text.len().saturating_sub(1), text.len(), usize::MAX]) {
        let mut part = Vec::new();
        unescape(&escaped[..cut_escaped(escaped, max)], &mut part);
        assert_eq!(part, &text[..slow.floor_char_boundary(max)], "cut at {max}");
    }
}

/// What Docker would write for a line, and the same with every character escaped.
fn round_trip(text: &str) {
    let std_type = StdType::ALL[text.len() % 2];
    let stream = std_type.as_str();
    let plain = serde_json::to_string(text).expect("text is JSON");
    let escaped: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
    for log in [plain, format!("\"{escaped}\"")] {
        // A real record is no longer than that; here escapes may make it longer.
        let record = format!("{{\"log\":{log},\"stream\":\"{stream}\",\"time\":\"{TIME}\"}}\n");
        let record = record.as_bytes();
        let Step::Item(piece, took) = next_record(record, is_clean(record)) else {
            panic!("not found: {}", record.escape_ascii());
        };
        assert_eq!(took, record.len());
        assert_eq!(shown(record, &piece), (std_type, text.to_owned(), TIME.to_owned()));
    }
}
