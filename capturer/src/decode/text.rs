//! Text files as other systems write them: byte order marks, and encodings other than UTF-8. Lines are found in the
//! file's own bytes, so that positions stay offsets into the file, and each line is decoded by itself.
//!
//! A file's byte order mark says which encoding it has, or else the config. Not here: the first bytes of each file and
//! what they said (stream/).

use encoding_rs::{DecoderResult, UTF_8, UTF_16BE, UTF_16LE};

use super::{DecodeError, Piece, Step, damage, line, utf8, work};
use crate::limits::LINE_PIECE_BYTES;
use crate::text::encoding::Encoding;

/// What the first bytes of a file show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// No byte order mark.
    None,
    /// An encoding, and the length of its mark in bytes.
    Of(Encoding, usize),
    /// Too few bytes to tell.
    NeedMore,
    /// UTF-32, which is not decoded.
    Utf32,
}

/// The byte order mark at the beginning of a file.
pub fn mark(head: &[u8], at_end: bool) -> Mark {
    const MARKS: [(&[u8], Mark); 5] = [
        (b"\xff\xfe\0\0", Mark::Utf32),
        (b"\0\0\xfe\xff", Mark::Utf32),
        (b"\xef\xbb\xbf", Mark::Of(Encoding(UTF_8), 3)),
        (b"\xff\xfe", Mark::Of(Encoding(UTF_16LE), 2)),
        (b"\xfe\xff", Mark::Of(Encoding(UTF_16BE), 2)),
    ];
    // A file that begins with NULs has a hole there, not part of a mark.
    let may_become =
        |mark: &[u8]| !at_end && mark[0] != 0 && head.len() < mark.len() && mark.starts_with(head);
    if head.is_empty() {
        return Mark::None;
    }
    if MARKS.iter().any(|(mark, _)| may_become(mark)) {
        return Mark::NeedMore;
    }
    MARKS.iter().find(|(mark, _)| head.starts_with(mark)).map_or(Mark::None, |(_, meaning)| *meaning)
}

impl Encoding {
    /// Bytes of its shortest character.
    fn unit(self) -> usize {
        if self.0 == UTF_16LE || self.0 == UTF_16BE { 2 } else { 1 }
    }

    /// The first line of `bytes`, undecoded; what it takes includes its newline. `within`: the bytes continue a line.
    pub fn next_line(self, bytes: &[u8], within: bool) -> Step<Piece> {
        let unit = self.unit();
        let nuls = damage::leading_nuls(bytes) / unit * unit;
        if nuls > 0 && (!within || nuls >= damage::HOLE_BYTES_MIN) {
            return Step::Reject(DecodeError::NulHole, nuls);
        }
        // A piece has the same length whatever is behind it.
        let line = self.newline(&bytes[..bytes.len().min(LINE_PIECE_BYTES + unit)]);
        if let Some(end) = line.filter(|end| *end <= LINE_PIECE_BYTES) {
            return Step::Item(line::piece(end, true), end + unit);
        }
        if line.is_none() && bytes.len() < LINE_PIECE_BYTES + unit {
            return Step::NeedMore;
        }
        let piece = &bytes[..LINE_PIECE_BYTES];
        let end = piece.len() - self.torn_tail(piece);
        Step::Item(line::piece(end, false), end)
    }

    /// Appends the text as UTF-8. Returns true if part of it was not in this encoding and became U+FFFD.
    pub fn decode(self, text: &[u8], out: &mut Vec<u8>) -> bool {
        work::add(text.len());
        let (decoded, invalid) = self.0.decode_without_bom_handling(text);
        out.extend_from_slice(decoded.as_bytes());
        invalid
    }

    fn newline(self, bytes: &[u8]) -> Option<usize> {
        if self.unit() == 1 {
            // In none of these encodings is a newline byte part of another character.
            return damage::newline(bytes);
        }
        let low = usize::from(self.0 == UTF_16BE);
        let mut at = 0;
        while let Some(run) = memchr::memchr(b'\n', &bytes[at..]) {
            let found = at + run;
            work::add(run + 1);
            // The newline's other byte is a NUL, before or behind it.
            if found % 2 == low && bytes.get(found ^ 1) == Some(&0) {
                return Some(found - low);
            }
            at = found + 1;
        }
        work::add(bytes.len() - at);
        None
    }

    /// How many bytes can be delivered of a line that has not ended. Bytes that may be half of a line's end, of a hole
    /// or of a character are left.
    pub fn unfinished(self, bytes: &[u8], keeps_cr: bool) -> usize {
        let whole = &bytes[..bytes.len() - self.torn_tail(bytes)];
        let is_open = |unit: &&[u8]| {
            matches!(self.ascii(unit), Some(0)) || !keeps_cr && self.ascii(unit) == Some(b'\r')
        };
        let open = whole.rchunks_exact(self.unit()).take_while(is_open).count();
        whole.len() - open * self.unit()
    }

    /// Whether these bytes are the end of a line or of a hole. With too few bytes to tell, true.
    pub fn ends_line(self, bytes: &[u8]) -> bool {
        let last = bytes.rchunks_exact(self.unit()).next();
        last.is_none_or(|unit| matches!(self.ascii(unit), Some(0 | b'\n')))
    }

    /// The ASCII character of one unit, if it is one.
    fn ascii(self, unit: &[u8]) -> Option<u8> {
        match *unit {
            [byte] => Some(byte),
            [byte, 0] if self.0 == UTF_16LE => Some(byte),
            [0, byte] if self.0 == UTF_16BE => Some(byte),
            _ => None,
        }
        .filter(u8::is_ascii)
    }

    /// How many bytes at the end begin a character whose rest is missing. The text begins at a character's first byte.
    fn torn_tail(self, bytes: &[u8]) -> usize {
        if self.is_utf8() {
            return utf8::torn_tail(bytes);
        }
        if self.0.is_single_byte() {
            return 0;
        }
        if self.unit() == 2 {
            let odd = bytes.len() % 2;
            let last = bytes[..bytes.len() - odd].last_chunk::<2>();
            let high = last.map_or(0, |last| if self.0 == UTF_16BE { last[0] } else { last[1] });
            return odd + if (0xD8..0xDC).contains(&high) { 2 } else { 0 };
        }
        work::add(bytes.len());
        let mut decoder = self.0.new_decoder_without_bom_handling();
        let (mut out, mut at) = ([0; 1024], 0);
        loop {
            let (result, read, _) = decoder.decode_to_utf8_without_replacement(&bytes[at..], &mut out, false);
            at += read;
            if result == DecoderResult::InputEmpty {
                break;
            }
        }
        // A character that the decoder still holds is torn.
        match decoder.decode_to_utf8_without_replacement(&[], &mut out, true).0 {
            DecoderResult::Malformed(held, behind) => usize::from(held + behind).min(bytes.len()),
            DecoderResult::InputEmpty | DecoderResult::OutputFull => 0,
        }
    }
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
