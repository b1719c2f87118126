//! How long a terminal's command is (ECMA-48): colours, cursor movements, titles.

/// Begins each command.
pub const ESCAPE: u8 = 0x1b;
const BELL: u8 = 0x07;

/// Length of the command that begins with this escape.
pub fn command_len(text: &[u8]) -> usize {
    let is_final = |byte: &u8| (0x40..=0x7e).contains(byte);
    match text.get(1) {
        Some(b'[') => {
            let inside = text[2..].iter().take_while(|byte| (0x20..=0x3f).contains(*byte)).count();
            2 + inside + usize::from(text.get(2 + inside).is_some_and(is_final))
        }
        // A title or link ends with a bell, or with an escape and a backslash. If it does not end, what follows is
        // text.
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
