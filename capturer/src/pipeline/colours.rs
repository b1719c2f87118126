//! A text without its colours, and where its bytes are in the coloured text: loggers colour a key, its sign and its
//! value separately, so a pattern would find them in pieces.

use std::ops::Range;

use crate::decode::work;

const BEGINS: &[u8] = b"\x1b[";
/// Longest text of a colour's numbers, and most digits of each. Anything longer is no colour, and is searched as text.
const NUMBERS_BYTES_MAX: usize = 64;
const DIGITS_MAX: usize = 4;

/// A text without colours; see the head of this file.
pub(super) struct Uncoloured {
    pub(super) text: Vec<u8>,
    /// For each piece, its first byte's offset here and in the coloured text.
    places: Vec<(usize, usize)>,
}

impl Uncoloured {
    /// Replaces each colour with `mark`. `None` = the text has no colour.
    pub(super) fn of(coloured: &[u8], mark: &[u8]) -> Option<Uncoloured> {
        // Nearly all texts have none.
        memchr::memchr(BEGINS[0], coloured)?;
        work::add(coloured.len());
        let (mut text, mut places, mut at) = (Vec::with_capacity(coloured.len()), vec![(0, 0)], 0);
        for begin in memchr::memmem::find_iter(coloured, BEGINS) {
            let Some(len) = colour_len(&coloured[begin..]) else { continue };
            text.extend_from_slice(&coloured[at..begin]);
            text.extend_from_slice(mark);
            at = begin + len;
            places.push((text.len(), at));
        }
        text.extend_from_slice(&coloured[at..]);
        (places.len() > 1).then_some(Uncoloured { text, places })
    }

    /// The place of this range in the coloured text, including colours within the range but not those around it.
    pub(super) fn place(&self, range: Range<usize>) -> Range<usize> {
        let start = self.place_of(range.start);
        let end = if range.is_empty() { start } else { self.place_of(range.end - 1) + 1 };
        start..end
    }

    fn place_of(&self, at: usize) -> usize {
        let (text_at, coloured_at) =
            self.places[self.places.partition_point(|(text_at, _)| *text_at <= at) - 1];
        coloured_at + at - text_at
    }
}

/// Length of the colour at the beginning: an escape, a bracket, small numbers, a letter.
fn colour_len(text: &[u8]) -> Option<usize> {
    let rest = &text[BEGINS.len()..];
    let is_number = |byte: &u8| byte.is_ascii_digit() || b";:".contains(byte);
    let len = rest.iter().take(NUMBERS_BYTES_MAX).take_while(|byte| is_number(byte)).count();
    let are_small = rest[..len].split(|byte| b";:".contains(byte)).all(|number| number.len() <= DIGITS_MAX);
    let ends = rest.get(len).is_some_and(u8::is_ascii_alphabetic);
    (are_small && ends).then_some(BEGINS.len() + len + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_the_colours_within_it() {
        let coloured = b"a\x1b[36mbc\x1b[0;1md\x1b[m e";
        let plain = Uncoloured::of(coloured, b"").unwrap();
        assert_eq!(plain.text, b"abcd e");
        let placed = |range: Range<usize>| coloured[plain.place(range)].escape_ascii().to_string();
        assert_eq!(placed(0..1), "a");
        assert_eq!(placed(1..3), "bc");
        assert_eq!(placed(1..4), "bc\\x1b[0;1md");
        assert_eq!(placed(4..6), " e");
        assert_eq!(placed(0..6).len(), coloured.escape_ascii().count());
        let marked = Uncoloured::of(coloured, b"|").unwrap();
        assert_eq!(marked.text, b"a|bc|d| e");
        assert_eq!(coloured[marked.place(2..6)].escape_ascii().to_string(), "bc\\x1b[0;1md");
    }

    #[test]
    fn what_is_no_colour_stays() {
        for text in ["plain [1m", "\x1b[4111111111111111m", "\x1b[12", "\x1b[", "\x1b]0;t\x07"] {
            assert!(Uncoloured::of(text.as_bytes(), b"").is_none(), "{text:?}");
        }
    }
}
