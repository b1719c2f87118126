//! Fuzz entry for encodings and line ends: a table of encodings, line ends and chunk borders, each compared with a slow
//! and obvious decoder that has the whole text at once.

use crate::decode::assemble::{Assembler, Lines};
use crate::decode::text::{Mark, mark};
use crate::decode::{DecodeError, Piece, Step, line};
use crate::fuzz::{Found, decode_in_any_parts};
use crate::limits::RECORD_BYTES_MAX;
use crate::model::record::{MessageForm, StdType};
use crate::text::encoding::Encoding;

const ENCODINGS: [&str; 6] = ["utf-16le", "utf-16be", "windows-1252", "shift_jis", "gbk", "koi8-r"];
const LINE_ENDS: [&str; 3] = ["\n", "\r\n", "\r\r\n"];

/// Any bytes as a file in each encoding, and as text that is written in each.
pub fn check(bytes: &[u8]) {
    marks(bytes);
    for name in ENCODINGS {
        let encoding = Encoding::named(name).expect("a known name");
        any_bytes(encoding, bytes);
    }
    let text = String::from_utf8_lossy(bytes).replace(['\0', '\r'], "");
    for line_end in LINE_ENDS {
        for big in [false, true] {
            round_trip(&text.replace('\n', line_end), &text, big);
        }
    }
}

/// Once the first bytes show an encoding, more bytes do not change that.
fn marks(bytes: &[u8]) {
    let whole = mark(bytes, true);
    for end in 0..bytes.len().min(8) {
        let part = mark(&bytes[..end], false);
        if end >= 4 {
            assert_eq!(part, whole, "after {end} bytes");
        } else if part != Mark::NeedMore && end > 0 {
            assert!(part == whole || part == Mark::None && bytes[0] == 0, "{part:?}, then {whole:?}");
        }
    }
}

fn any_bytes(encoding: Encoding, bytes: &[u8]) {
    let (found, held) =
        decode_in_any_parts(bytes, RECORD_BYTES_MAX + 1, |part, _| encoding.next_line(part, false));
    let mut fast = Vec::new();
    for one in &found {
        match one {
            Found::Item { at, item, .. } => fast.push(decoded(encoding, &bytes[*at..][item.text.clone()])),
            Found::Rejected { error, .. } => assert_eq!(*error, DecodeError::NulHole),
        }
    }
    let rest = &bytes[bytes.len() - held..];
    fast.extend(line::last_line(rest).map(|line| decoded(encoding, &rest[line.text])));
    assert_eq!(fast, lines_slowly(encoding, bytes), "{encoding:?}");
}

fn decoded(encoding: Encoding, text: &[u8]) -> String {
    let mut out = Vec::new();
    encoding.decode(text, &mut out);
    String::from_utf8(out).expect("UTF-8")
}

/// Decodes unit by unit.
fn lines_slowly(encoding: Encoding, bytes: &[u8]) -> Vec<String> {
    let unit = if encoding.name().starts_with("UTF-16") { 2 } else { 1 };
    let newline: &[u8] = match encoding.name() {
        "UTF-16LE" => b"\n\0",
        "UTF-16BE" => b"\0\n",
        _ => b"\n",
    };
    let (mut lines, mut line) = (Vec::new(), Vec::new());
    for one in bytes.chunks(unit) {
        if one == newline {
            lines.push(decoded(encoding, &line));
            line.clear();
        } else if !(line.is_empty() && one.len() == unit && one.iter().all(|byte| *byte == 0)) {
            line.extend_from_slice(one);
        }
    }
    if !line.is_empty() {
        lines.push(decoded(encoding, &line));
    }
    lines
}

/// UTF-16 with its mark, whichever way, gives the text's lines without their carriage returns.
fn round_trip(written: &str, text: &str, big: bool) {
    let units =
        written.encode_utf16().flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() });
    let bytes: Vec<u8> = (if big { *b"\xfe\xff" } else { *b"\xff\xfe" }).into_iter().chain(units).collect();
    let Mark::Of(encoding, begins) = mark(&bytes, true) else { panic!("no mark: {bytes:?}") };
    let (mut assembler, mut out) = (Assembler::new(RECORD_BYTES_MAX).strip_cr(true), Lines::default());
    assembler.copy(true);
    let mut at = begins;
    while at < bytes.len() {
        let (line, took) = match encoding.next_line(&bytes[at..], false) {
            Step::Item(line, took) => (line, took),
            // The text has no NULs to reject.
            Step::Reject(error, _) => panic!("{error}"),
            Step::NeedMore => (line::last_line(&bytes[at..]).expect("a rest"), bytes.len() - at),
        };
        let mut message = Vec::new();
        assert!(!encoding.decode(&bytes[at..][line.text], &mut message));
        let piece = Piece {
            text: 0..message.len(),
            time: 0..0,
            form: MessageForm::Raw,
            decoded_len: message.len(),
            std_type: StdType::Stdout,
            complete: line.complete,
        };
        assembler.push(&message, &piece, at as u64, true, &mut out);
        at += took;
    }
    let message = |record: &crate::model::record::Record| {
        let message = &out.made[record.message_start as usize..][..record.message_len as usize];
        String::from_utf8(message.to_vec()).expect("UTF-8")
    };
    let found: Vec<String> = out.records.iter().map(message).collect();
    assert_eq!(found, text.lines().collect::<Vec<_>>());
}
