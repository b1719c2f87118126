//! What the API sends for a container with a TTY: no frames, both outputs merged, and with `timestamps=1` a time before
//! every piece, so that a long line has a second one in its middle, after 16,384 bytes.

use super::{DecodeError, Piece, Step, stdcopy, work};
use crate::limits::PIECE_BYTES;
use crate::model::record::{MessageForm, StdType};

/// With more than this and no time in front, a line is skipped without waiting for its newline.
pub const WITHOUT_TIME_BYTES_MAX: usize = 2 * PIECE_BYTES;

/// The first piece of `bytes`. `at_end`: nothing follows, what is there is whole.
pub fn next_piece(bytes: &[u8], at_end: bool) -> Step<Piece> {
    if bytes.is_empty() {
        return Step::NeedMore;
    }
    // What stands behind a piece is not looked at for it.
    let newline = memchr::memchr(b'\n', &bytes[..bytes.len().min(WITHOUT_TIME_BYTES_MAX)]);
    work::add(newline.unwrap_or(WITHOUT_TIME_BYTES_MAX.min(bytes.len())));
    let line = &bytes[..newline.map_or(bytes.len(), |at| at + 1)];
    let Some((time, text, complete)) = stdcopy::split_time(line) else {
        return match newline {
            // The Engine puts a time before every piece, so what is longer than one and has none has none to come.
            None if !at_end && bytes.len() < WITHOUT_TIME_BYTES_MAX => Step::NeedMore,
            // No more at once, even if more is there: what is skipped must not depend on how the bytes come.
            _ => Step::Reject(DecodeError::NoTime, line.len().min(WITHOUT_TIME_BYTES_MAX)),
        };
    };
    // A full piece: more of the line follows, with a time of its own, and may contain the newline that was found. One that
    // is exactly full is judged by the byte behind it, however the bytes come.
    let full = text.len() > PIECE_BYTES;
    if full {
        let text = text.start..text.start + PIECE_BYTES;
        let took = text.end;
        return Step::Item(piece(time, text, false), took);
    }
    match newline {
        None if !at_end => Step::NeedMore,
        _ => Step::Item(piece(time, text, complete), line.len()),
    }
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
                        .replace(&"x".repeat(PIECE_BYTES), "P");
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
        let table = [
            (format!("{TIME} a\r\n{TIME} b\r\n"), false, vec!["a\r$", "b\r$"]),
            (format!("{TIME} {full}{TIME} rest\r\n{TIME} c\r\n"), false, vec!["P", "rest\r$", "c\r$"]),
            (format!("{TIME} {full}{TIME} \n"), false, vec!["P", "$"]),
            (format!("{TIME} {full}"), false, vec![]),
            (format!("{TIME} {full}"), true, vec!["P"]),
            // No Engine sends that; a newline that comes a read later must not become a line without a time.
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
