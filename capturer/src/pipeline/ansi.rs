//! Terminal commands: colours, cursor movements, titles (ECMA-48). Removed in one pass; an incomplete command only
//! loses its escape byte.

use crate::decode::work;
use crate::text::escape::{ESCAPE, command_len};

const BACKSPACE: u8 = 0x08;
const RETURN: u8 = b'\r';

/// The text without commands; `None` = it has none.
pub(super) fn stripped(text: &[u8]) -> Option<Vec<u8>> {
    memchr::memchr(ESCAPE, text)?;
    let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
    while let Some(run) = memchr::memchr(ESCAPE, &text[at..]) {
        out.extend_from_slice(&text[at..at + run]);
        at += run;
        let len = command_len(&text[at..]);
        work::add(run + len);
        at += len;
    }
    out.extend_from_slice(&text[at..]);
    Some(out)
}

/// What a terminal shows of the text: after a carriage return or a backspace, what follows overwrites what was there.
/// `None` = the terminal shows the text unchanged.
pub(super) fn shown(text: &[u8]) -> Option<Vec<u8>> {
    memchr::memchr3(ESCAPE, RETURN, BACKSPACE, text)?;
    let (mut cells, mut column, mut at): (Vec<&[u8]>, usize, usize) = (Vec::new(), 0, 0);
    work::add(text.len());
    while let Some(byte) = text.get(at) {
        let rest = &text[at..];
        let len = match *byte {
            ESCAPE => {
                let len = command_len(rest);
                match &rest[..len] {
                    b"\x1b[K" | b"\x1b[0K" => cells.truncate(column),
                    b"\x1b[2K" => cells.iter_mut().for_each(|cell| *cell = b" "),
                    _ => {}
                }
                len
            }
            RETURN => {
                column = 0;
                1
            }
            BACKSPACE => {
                column = column.saturating_sub(1);
                1
            }
            _ => {
                let len = char_len(rest);
                let cell = &rest[..len];
                match cells.get_mut(column) {
                    Some(before) => *before = cell,
                    None => cells.push(cell),
                }
                column += 1;
                len
            }
        };
        at += len;
    }
    Some(cells.concat())
}

/// Length of the first character in bytes; 1 if the bytes are not a character.
fn char_len(text: &[u8]) -> usize {
    let continues =
        |len: usize| text.get(1..len).is_some_and(|rest| rest.iter().all(|byte| byte & 0xC0 == 0x80));
    match text[0] {
        0xC2..0xE0 if continues(2) => 2,
        0xE0..0xF0 if continues(3) => 3,
        0xF0..0xF5 if continues(4) => 4,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        let table: [(&[u8], &[u8]); 9] = [
            (b"\x1b[1;31mERROR\x1b[0m x", b"ERROR x"),
            (b"\x1b[38;5;12ma\x1b[K\x1b[2Jb", b"ab"),
            (b"\x1b]0;title\x07text", b"text"),
            (b"\x1b]8;;http://a/\x1b\\link\x1b]8;;\x1b\\ b", b"link b"),
            (b"\x1b(Ba\x1b7b\x1b=c", b"abc"),
            (b"\x1b]open \x1b[1mbold", b"open bold"),
            (b"a\x1b", b"a"),
            (b"a\x1b[12", b"a"),
            (b"\xff\x1b[mx\xc3\xa9", b"\xffx\xc3\xa9"),
        ];
        for (text, expected) in table {
            assert_eq!(stripped(text).expect("changed"), expected, "{}", text.escape_ascii());
        }
        assert_eq!(stripped(b"plain [1m"), None);
    }

    #[test]
    fn what_a_terminal_shows() {
        let table: [(&str, &str); 9] = [
            (" 10%\r 20%\r100%", "100%"),
            ("fetching\rdone", "donehing"),
            ("fetching\r\u{1b}[Kdone", "done"),
            ("\u{1b}[32mok\u{1b}[0m", "ok"),
            ("pasX\u{8}sword", "password"),
            ("äöü\rx", "xöü"),
            ("abc\r", "abc"),
            ("abc\u{1b}[2Kd", "   d"),
            ("\u{8}\u{8}a", "a"),
        ];
        for (text, expected) in table {
            let shown = shown(text.as_bytes()).expect("changed");
            assert_eq!(String::from_utf8_lossy(&shown), expected, "{text:?}");
        }
        assert_eq!(shown(b"plain"), None);
        assert_eq!(shown(b"\xff\rb\xc3").expect("changed"), b"b\xc3");
    }
}
