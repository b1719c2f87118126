//! What the API sends for a container with a TTY: no frames, both outputs merged, and with `timestamps=1` a time before
//! every piece. So a long line has a second time in its middle, after 16,384 bytes of what was printed. These may have
//! become more bytes: for a character that is cut there, and for each other byte that is not UTF-8, the Engine's
//! json-file has U+FFFD.

use super::timestamp::{self, TIME_BYTES_MAX};
use super::{DecodeError, Piece, Step, stdcopy, work};
use crate::limits::PIECE_BYTES;
use crate::model::record::{MessageForm, StdType};

/// A line longer than this without a time in front is skipped without waiting for its newline.
pub const WITHOUT_TIME_BYTES_MAX: usize = 2 * PIECE_BYTES;

/// U+FFFD: the replacement for a byte that was not UTF-8.
const REPLACED: &[u8] = "\u{fffd}".as_bytes();
/// The end of a full piece is searched for up to this length, so that less than [`WITHOUT_TIME_BYTES_MAX`] waits for
/// more bytes.
pub const FULL_BYTES_MAX: usize = WITHOUT_TIME_BYTES_MAX - 3 * (TIME_BYTES_MAX + 1);

/// The first piece of `bytes`. `at_end`: nothing follows, so the bytes are complete.
pub fn next_piece(bytes: &[u8], at_end: bool) -> Step<Piece> {
    if bytes.is_empty() {
        return Step::NeedMore;
    }
    // Bytes behind a piece are not searched for it.
    let newline = memchr::memchr(b'\n', &bytes[..bytes.len().min(WITHOUT_TIME_BYTES_MAX)]);
    work::add(newline.unwrap_or(WITHOUT_TIME_BYTES_MAX.min(bytes.len())));
    let line = &bytes[..newline.map_or(bytes.len(), |at| at + 1)];
    let Some((time, text, complete)) = stdcopy::split_time(line) else {
        return match newline {
            // The Engine puts a time before every piece: more bytes than a piece has, without a time, will not get one.
            None if !at_end && bytes.len() < WITHOUT_TIME_BYTES_MAX => Step::NeedMore,
            // No more at once, even if more is there: what is skipped must not depend on how the bytes arrive.
            _ => Step::Reject(DecodeError::NoTime, line.len().min(WITHOUT_TIME_BYTES_MAX)),
        };
    };
    // A full piece: more of the line follows, with its own time, and the newline that was found may belong to it. For a
    // piece that is exactly full the byte behind it decides, however the bytes arrive.
    let full = text.len() > PIECE_BYTES;
    if full {
        let is_all = at_end || newline.is_some();
        let Some(len) = full_piece(&line[text.clone()], is_all) else { return Step::NeedMore };
        let text = text.start..text.start + len;
        let took = text.end;
        return Step::Item(piece(time, text, false), took);
    }
    match newline {
        None if !at_end => Step::NeedMore,
        _ => Step::Item(piece(time, text, complete), line.len()),
    }
}

/// Length of the first piece of a text that is longer than one piece. `None` = the bytes that follow decide. `is_all`:
/// nothing follows.
fn full_piece(text: &[u8], is_all: bool) -> Option<usize> {
    let text = &text[..text.len().min(FULL_BYTES_MAX + TIME_BYTES_MAX + 1)];
    let has = |len: usize| is_all || text.len() >= len;
    if !has(PIECE_BYTES + 2) {
        return None;
    }
    work::add(text.len());
    let ends = memchr::memmem::find_iter(text, REPLACED).map(|at| at + REPLACED.len());
    let mut ends = ends.peekable();
    if ends.peek().is_none_or(|end| *end > PIECE_BYTES + 2) {
        return Some(PIECE_BYTES);
    }
    let (mut len, mut replaced) = (PIECE_BYTES, 0);
    loop {
        while ends.next_if(|end| *end <= len).is_some() {
            replaced += 1;
        }
        // Each replaced byte made the piece two bytes longer.
        if len > FULL_BYTES_MAX || len - PIECE_BYTES > 2 * replaced {
            return Some(PIECE_BYTES);
        }
        if !has(len + TIME_BYTES_MAX + 1) {
            return None;
        }
        if text.get(len..).is_some_and(begins_with_time) {
            return Some(len);
        }
        len += 2;
    }
}

fn begins_with_time(text: &[u8]) -> bool {
    let time = stdcopy::split_time(text).and_then(|(time, ..)| timestamp::parse(&text[time]));
    time.is_some()
}

fn piece(time: std::ops::Range<usize>, text: std::ops::Range<usize>, complete: bool) -> Piece {
    Piece { decoded_len: text.len(), text, time, form: MessageForm::Raw, std_type: StdType::Stdout, complete }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "2026-11-22T00:52:48.162820305Z";

    fn all(bytes: &[u8], at_end: bool) -> Vec<String> {
        let (mut at, mut out) = (0, Vec::new());
        loop {
            match next_piece(&bytes[at..], at_end) {
                Step::Item(piece, took) => {
                    let text = String::from_utf8_lossy(&bytes[at..][piece.text])
                        .replace(&"x".repeat(PIECE_BYTES), "P")
                        .replace(&"x".repeat(PIECE_BYTES - 1), "C")
                        .replace(&"x".repeat(PIECE_BYTES - 2), "T")
                        .replace(&"x".repeat(PIECE_BYTES - 3), "T");
                    out.push(text + if piece.complete { "$" } else { "" });
                    at += took;
                }
                Step::Reject(error, took) => {
                    out.push(format!("!{error:?}"));
                    at += took;
                }
                Step::NeedMore => return out,
            }
        }
    }

    #[test]
    fn lines_and_pieces() {
        let full = "x".repeat(PIECE_BYTES);
        let (cut, two) = (&full[1..], &full[2..]);
        let table = [
            (format!("{TIME} a\r\n{TIME} b\r\n"), false, vec!["a\r$", "b\r$"]),
            (format!("{TIME} {full}{TIME} rest\r\n{TIME} c\r\n"), false, vec!["P", "rest\r$", "c\r$"]),
            (format!("{TIME} {full}{TIME} \n"), false, vec!["P", "$"]),
            (format!("{TIME} {full}"), false, vec![]),
            // A three-byte character whose first or second byte is the last of a piece.
            (
                format!("{TIME} {cut}\u{fffd}{TIME} \u{fffd}\u{fffd}rest\n"),
                false,
                vec!["C\u{fffd}", "\u{fffd}\u{fffd}rest$"],
            ),
            (format!("{TIME} {cut}\u{fffd}{TIME}"), false, vec![]),
            (
                format!("{TIME} {two}\u{fffd}\u{fffd}{TIME} \u{fffd}rest\n"),
                false,
                vec!["T\u{fffd}\u{fffd}", "\u{fffd}rest$"],
            ),
            // U+FFFD was printed; nothing was replaced.
            (
                format!("{TIME} \u{fffd}{}{TIME} rest\n", "x".repeat(PIECE_BYTES - 3)),
                false,
                vec!["\u{fffd}T", "rest$"],
            ),
            (format!("{TIME} {full}"), true, vec!["P"]),
            // No Engine sends this, but a newline that arrives with the next read must not become a line without a
            // time.
            (format!("{TIME} {full}\n{TIME} c\n"), false, vec!["P$", "c$"]),
            (format!("{TIME} prompt: "), false, vec![]),
            (format!("{TIME} prompt: "), true, vec!["prompt: "]),
            ("garbage-without-a-time-and-long-enough-to-see-it-is-none\n".to_owned(), false, vec!["!NoTime"]),
            (TIME[..10].to_owned(), false, vec![]),
        ];
        for (input, at_end, expected) in table {
            assert_eq!(all(input.as_bytes(), at_end), expected, "{input:.60}");
        }
    }
}
