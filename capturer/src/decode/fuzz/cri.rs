//! Fuzz entry for the decoder of container runtimes' logs. The slow and obvious decoder splits at blanks.

use crate::decode::cri::{looks_like_record, next_record};
use crate::decode::damage::HOLE_BYTES_MIN;
use crate::decode::{Piece, Step, timestamp};
use crate::fuzz::{Found, decode_in_any_parts};
use crate::limits::RECORD_BYTES_MAX;
use crate::model::record::StdType;

/// A runtime's log, whole or damaged.
pub fn check(bytes: &[u8]) {
    let (found, held) = decode_in_any_parts(bytes, RECORD_BYTES_MAX - 1, |part, _| next_record(part, true));
    let mut found_at = Vec::new();
    for one in &found {
        let Found::Item { at, took, item } = one else { continue };
        let line = &bytes[*at..at + took - 1];
        assert_eq!(Some(shown(line, item)), record_slowly(line), "{}", line.escape_ascii());
        assert_eq!(item.decoded_len, item.text.len());
        found_at.push(*at);
    }
    // A whole record is found, whatever damaged its neighbours.
    let mut at = 0;
    for line in bytes[..bytes.len() - held].split_inclusive(|byte| *byte == b'\n') {
        let whole = line.strip_suffix(b"\n").unwrap_or(line);
        let is_record = record_slowly(whole).is_some();
        assert_eq!(looks_like_record(line), is_record, "{}", line.escape_ascii());
        // A record with a hole in it is torn.
        let is_torn = whole.windows(HOLE_BYTES_MIN).any(|window| window.iter().all(|byte| *byte == 0));
        assert_eq!(is_record && !is_torn, found_at.contains(&at), "{}", whole.escape_ascii());
        at += line.len();
    }
    round_trip(bytes);
}

/// Channel, whether the line ends, text, time.
type Shown<'a> = (StdType, bool, &'a [u8], &'a [u8]);

fn shown<'a>(line: &'a [u8], piece: &Piece) -> Shown<'a> {
    (piece.std_type, piece.complete, &line[piece.text.clone()], &line[piece.time.clone()])
}

fn record_slowly(line: &[u8]) -> Option<Shown<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let (time, stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
    timestamp::parse(time)?;
    let std_type = StdType::ALL.into_iter().find(|std_type| std_type.as_str().as_bytes() == stream)?;
    let complete = match tag.split(|byte| *byte == b':').next()? {
        b"F" => true,
        b"P" => false,
        _ => return None,
    };
    (tag.len() < 64).then(|| (std_type, complete, parts.next().unwrap_or_default(), time))
}

/// 2: what a runtime that cuts at this many bytes would write for these lines.
fn round_trip(bytes: &[u8]) {
    let part_max = 1 + bytes.len() % 50;
    let std_type = StdType::ALL[bytes.len() % 2];
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let mut written = Vec::new();
    for line in &lines {
        let (mut rest, mut tag) = (*line, "P");
        while tag == "P" {
            let (part, behind) = rest.split_at(rest.len().min(part_max));
            tag = if behind.is_empty() { "F" } else { "P" };
            written.extend(format!("2026-11-25T10:00:00.123456789Z {} {tag} ", std_type.as_str()).as_bytes());
            written.extend(part);
            written.push(b'\n');
            rest = behind;
        }
    }
    let (mut again, mut open, mut at) = (Vec::new(), Vec::new(), 0);
    while at < written.len() {
        let Step::Item(piece, took) = next_record(&written[at..], false) else {
            panic!("not found: {}", written[at..].escape_ascii());
        };
        assert_eq!(piece.std_type, std_type);
        open.extend_from_slice(&written[at..][piece.text]);
        if piece.complete {
            again.push(std::mem::take(&mut open));
        }
        at += took;
    }
    assert_eq!(again, lines);
}
