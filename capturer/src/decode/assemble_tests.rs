//! Pieces of long lines, joined, tagged and cut.

use std::time::Duration;

use super::*;
use crate::settings::pipeline::{Multiline, MultilinePreset, MultilineRule, Pattern};

/// One channel's pieces as `(time, text, complete)`; a text of `P` stands for a full piece of 16 KiB.
fn lines(pieces: &[(StdType, &str, &str, bool)], line_bytes_max: usize) -> Vec<String> {
    joined(Assembler::new(line_bytes_max), pieces)
}

fn joined(mut assembler: Assembler, pieces: &[(StdType, &str, &str, bool)]) -> Vec<String> {
    let (mut out, mut shown) = (Lines::default(), Vec::new());
    for (at, (std_type, time, text, complete)) in pieces.iter().enumerate() {
        let text = text.replace('P', &"p".repeat(PIECE_BYTES));
        let buffer = format!("{time}{text}").into_bytes();
        let piece = Piece {
            text: time.len()..buffer.len(),
            time: 0..time.len(),
            form: MessageForm::Raw,
            decoded_len: text.len(),
            std_type: *std_type,
            complete: *complete,
        };
        assembler.push(&buffer, &piece, at as u64, true, &mut out);
        show(&buffer, &mut out, &mut shown);
    }
    assembler.close_all(&mut out);
    show(&[], &mut out, &mut shown);
    shown
}

fn show(buffer: &[u8], out: &mut Lines, shown: &mut Vec<String>) {
    for record in out.records.drain(..) {
        let from = if record.place == BufferKind::Read { buffer } else { &out.made[..] };
        let part = |start: u32, len: u32| {
            String::from_utf8_lossy(&from[start as usize..][..len as usize])
                .replace(&"p".repeat(PIECE_BYTES), "P")
        };
        let mark = if record.truncated { "~" } else { "" };
        let time = part(record.time_start, u32::from(record.time_len));
        shown.push(format!("{time}{}{mark}", part(record.message_start, record.message_len)));
    }
}

#[test]
fn pieces_of_long_lines() {
    use StdType::{Stderr, Stdout};
    let max = 1 << 20;
    assert_eq!(lines(&[(Stdout, "1", "a", true), (Stdout, "2", "", true)], max), ["1a", "2"]);
    assert_eq!(lines(&[(Stdout, "1", "P", false), (Stdout, "1", "b", true)], max), ["1Pb"]);
    // Exactly 16 KiB: only the newline follows.
    assert_eq!(lines(&[(Stdout, "1", "P", false), (Stdout, "1", "", true)], max), ["1P"]);
    // The other channel goes on meanwhile.
    let interleaved = [(Stdout, "1", "P", false), (Stderr, "2", "e", true), (Stdout, "1", "b", true)];
    assert_eq!(lines(&interleaved, max), ["2e", "1Pb"]);
    // The container exited within a line, whose rest is short and has no newline.
    assert_eq!(
        lines(&[(Stdout, "1", "P", false), (Stdout, "1", "b", false), (Stdout, "2", "c", true)], max),
        ["1Pb", "2c"]
    );
    assert_eq!(lines(&[(Stdout, "1", "b", false), (Stdout, "2", "c", true)], max), ["1b", "2c"]);
    // It exited right after a full piece: the first line of the next run is a new line.
    assert_eq!(lines(&[(Stdout, "1", "P", false), (Stdout, "2", "c", true)], max), ["1P", "2c"]);
    assert_eq!(lines(&[(Stdout, "1", "P", false)], max), ["1P"]);
    assert_eq!(lines(&[(Stdout, "1", "", false), (Stdout, "2", "c", true)], max), ["2c"]);
}

/// Neither length nor time shows which pieces belong together.
#[test]
fn tagged_pieces() {
    use StdType::{Stderr, Stdout};
    let lines = |pieces: &[(StdType, &str, &str, bool)], line_bytes_max| {
        let mut assembler = Assembler::new(line_bytes_max);
        assembler.join(Join::Tag);
        joined(assembler, pieces)
    };
    let max = 1 << 20;
    let parts = [(Stdout, "1", "a", false), (Stdout, "2", "P", false), (Stdout, "3", "b", true)];
    assert_eq!(lines(&parts, max), ["1aPb"]);
    assert_eq!(lines(&parts, 2), ["1ap~"]);
    let interleaved = [
        (Stdout, "1", "a", false),
        (Stderr, "1", "e", false),
        (Stdout, "2", "b", true),
        (Stderr, "2", "", true),
    ];
    assert_eq!(lines(&interleaved, max), ["1ab", "1e"]);
    assert_eq!(lines(&[(Stdout, "1", "", false), (Stdout, "2", "", true)], max), ["1"]);
    assert_eq!(lines(&[(Stdout, "1", "a", true), (Stdout, "1", "b", true)], max), ["1a", "1b"]);
    // The line's file is gone.
    assert_eq!(lines(&[(Stdout, "1", "a", false)], max), ["1a"]);
}

#[test]
fn long_lines_are_cut_marked_and_passed_over() {
    use StdType::Stdout;
    assert_eq!(lines(&[(Stdout, "1", "abcdef", true), (Stdout, "2", "abc", true)], 3), ["1abc~", "2abc"]);
    let pieces = [
        (Stdout, "1", "P", false),
        (Stdout, "1", "P", false),
        (Stdout, "1", "x", true),
        (Stdout, "2", "y", true),
    ];
    assert_eq!(lines(&pieces, PIECE_BYTES), ["1P~", "2y"]);
    assert_eq!(lines(&pieces, 2 * PIECE_BYTES), ["1PP~", "2y"]);
    assert_eq!(lines(&pieces, 2 * PIECE_BYTES + 1), ["1PPx", "2y"]);
}

/// Colours neither split a trace nor are removed from its lines. A pattern may contain them.
#[test]
fn traces_are_joined_whatever_their_colours() {
    let rule = MultilineRule::Preset(MultilinePreset::Java);
    let multiline = Multiline { rule, timeout: Duration::from_secs(1), lines_max: 500, bytes_max: 1 << 18 };
    let lines = [
        "\x1b[31m2026-11-28 10:00:00 \x1b[1;31mERROR\x1b[m x",
        "\x1b[31mjava.lang.IllegalStateException: m\x1b[m",
        "\x1b[31m\tat a.B.c(B.java:1)\x1b[0m",
        "next",
    ];
    let raw = lines.map(|line| (StdType::Stdout, "", line, true));
    let joined_lines = [lines[..3].join("\n"), "next".to_owned()];
    let preset = Arc::new(Pipeline { multiline: Some(multiline.clone()), ..Pipeline::default() });
    assert_eq!(joined(Assembler::new(1 << 20).with_pipeline(Some(&preset)), &raw), joined_lines);
    let continues = Some(Pattern::new(r"^\s").unwrap());
    let rule = MultilineRule::Patterns { start: None, continues };
    let patterns = Pipeline { multiline: Some(Multiline { rule, ..multiline }), ..Pipeline::default() };
    assert_eq!(joined(Assembler::new(1 << 20).with_pipeline(Some(&Arc::new(patterns))), &raw), lines);

    let mut assembler = Assembler::new(1 << 20).with_pipeline(Some(&preset));
    let mut out = Lines::default();
    for line in lines {
        let escaped = line.replace('\x1b', "\\u001b").replace('\t', "\\t").into_bytes();
        let piece = Piece {
            text: 0..escaped.len(),
            time: 0..0,
            form: MessageForm::JsonEscaped,
            decoded_len: line.len(),
            std_type: StdType::Stdout,
            complete: true,
        };
        assembler.push(&escaped, &piece, 0, true, &mut out);
    }
    assembler.close_all(&mut out);
    assert_eq!(out.records.len(), 2);
    assert!(out.made.starts_with(b"\\u001b[31m2026-11-28"));
}

/// The rest of a tagged line that came late stood there as a line of its own, and nothing told that it was none.
#[test]
fn a_tagged_line_whose_rest_comes_late_is_delivered_in_marked_parts() {
    use StdType::{Stderr, Stdout};
    // Channel, text, whether it ends the line, and whether its rest does not come in time.
    let delivered = |pieces: &[(StdType, &str, bool, bool)]| {
        let (mut assembler, mut out, mut shown) = (Assembler::new(1 << 20), Lines::default(), Vec::new());
        for (at, (std_type, text, complete, is_late)) in pieces.iter().enumerate() {
            let buffer = format!("{at}{text}").into_bytes();
            let (std_type, complete, form) = (*std_type, *complete, MessageForm::Raw);
            let (text, decoded_len) = (1..buffer.len(), text.len());
            let piece = Piece { text, time: 0..1, form, decoded_len, std_type, complete };
            assembler.join(Join::Tag);
            assembler.push(&buffer, &piece, at as u64, true, &mut out);
            if *is_late {
                assembler.cut_part(std_type, &mut out);
            }
            for record in out.records.drain(..) {
                let from = if record.place == BufferKind::Read { &buffer } else { &out.made };
                let message = &from[record.message_start as usize..][..record.message_len as usize];
                let (before, behind) =
                    (if record.continued { "…" } else { "" }, if record.partial { "…" } else { "" });
                shown.push(format!("{before}{}{behind}", String::from_utf8_lossy(message)));
            }
        }
        shown.join(" ")
    };
    let check = |pieces: &[(StdType, &str, bool, bool)], expected: &str| {
        assert_eq!(delivered(pieces), expected, "{pieces:?}");
    };
    check(&[(Stdout, "a", false, false), (Stdout, "b", true, false)], "ab");
    check(&[(Stdout, "a", false, true), (Stdout, "b", true, false), (Stdout, "c", true, false)], "a… …b c");
    check(&[(Stdout, "a", false, true), (Stdout, "b", false, true), (Stdout, "c", true, false)], "a… …b… …c");
    check(&[(Stdout, "a", false, true), (Stdout, "b", false, false), (Stdout, "c", true, false)], "a… …bc");
    check(&[(Stdout, "a", false, true), (Stderr, "e", true, false), (Stdout, "b", true, false)], "a… e …b");
    // Nothing but the newline follows.
    check(&[(Stdout, "a", false, true), (Stdout, "", true, false), (Stdout, "c", true, false)], "a… c");
}
