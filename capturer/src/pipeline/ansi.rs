//! Commands to a terminal: colours, cursor movements, titles (ECMA-48). Taken out in one pass; what is no whole command
//! loses its escape byte alone.

use crate::decode::work;

const ESCAPE: u8 = 0x1b;
const BELL: u8 = 0x07;

/// The text without them; `None` = there is none.
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

/// Length of the command that begins with an escape.
fn command_len(text: &[u8]) -> usize {
    let is_final = |byte: &u8| (0x40..=0x7e).contains(byte);
    match text.get(1) {
        Some(b'[') => {
            let inside = text[2..].iter().take_while(|byte| (0x20..=0x3f).contains(*byte)).count();
            2 + inside + usize::from(text.get(2 + inside).is_some_and(is_final))
        }
        // A title, a link: ended by a bell, or by an escape and a backslash. Not ended, what follows is text.
        Some(b']' | b'P' | b'_' | b'^' | b'X') => match memchr::memchr2(BELL, ESCAPE, &text[2..]) {
            Some(end) if text[2 + end] == BELL => 2 + end + 1,
            Some(end) if text.get(2 + end + 1) == Some(&b'\\') => 2 + end + 2,
            _ => 2,
        },
        Some(byte) if (0x20..=0x2f).contains(byte) => {
            let between = text[1..].iter().take_while(|byte| (0x20..=0x2f).contains(*byte)).count();
            1 + between + usize::from(text.get(1 + between).is_some())
        }
        Some(0x30..=0x7e) => 2,
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
}
