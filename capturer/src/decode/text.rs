//! Text files as other systems write them: byte order marks, and encodings other than UTF-8. Lines are found in the bytes
//! as they are in the file, so that positions stay offsets into it, and each line is decoded by itself.
//!
//! Which encoding a file has is said by its byte order mark, else by the config. Not here: the state of a file, which is
//! that of its first bytes (stream/).

use std::ops::Range;

use encoding_rs::{UTF_8, UTF_16BE, UTF_16LE};

use super::{DecodeError, Step, damage, work};
use crate::limits::RECORD_BYTES_MAX;

/// How a file's text is encoded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Encoding(&'static encoding_rs::Encoding);

/// UTF-8, which needs no decoding.
impl Default for Encoding {
    fn default() -> Encoding {
        Encoding(UTF_8)
    }
}

impl std::fmt::Debug for Encoding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Encoding({})", self.name())
    }
}

/// A line as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedLine {
    /// Its text, without its newline.
    pub text: Range<usize>,
    /// A newline ended it.
    pub complete: bool,
}

/// What the first bytes of a file say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// No byte order mark.
    None,
    /// One of so many bytes.
    Of(Encoding, usize),
    /// It is too early to say.
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
    // A file that begins with NULs has a hole there, not half a mark.
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
    /// By one of its names in the WHATWG standard: `utf-16le`, `windows-1252`, `latin1`, `shift_jis`, `gbk`.
    pub fn named(name: &str) -> Option<Encoding> {
        let found = encoding_rs::Encoding::for_label_no_replacement(name.as_bytes())?;
        // Its shifts may span lines, and nothing says where.
        (found != encoding_rs::ISO_2022_JP).then_some(Encoding(found))
    }

    /// Its name in the standard.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// Nothing has to be decoded.
    pub fn is_utf8(self) -> bool {
        self.0 == UTF_8
    }

    /// Bytes of its shortest character.
    fn unit(self) -> usize {
        if self.0 == UTF_16LE || self.0 == UTF_16BE { 2 } else { 1 }
    }

    /// The first line of `bytes`, newline included in what it takes.
    pub fn next_line(self, bytes: &[u8]) -> Step<EncodedLine> {
        let unit = self.unit();
        let nuls = damage::leading_nuls(bytes) / unit * unit;
        if nuls > 0 {
            return Step::Reject(DecodeError::NulHole, nuls);
        }
        if let Some(end) = self.newline(bytes) {
            return Step::Item(EncodedLine { text: 0..end, complete: true }, end + unit);
        }
        if bytes.len() < RECORD_BYTES_MAX + unit {
            return Step::NeedMore;
        }
        let end = self.cut(bytes);
        Step::Item(EncodedLine { text: 0..end, complete: false }, end)
    }

    /// What is left at the end of a file that will not grow.
    pub fn last_line(self, bytes: &[u8]) -> Option<EncodedLine> {
        (!bytes.is_empty()).then_some(EncodedLine { text: 0..bytes.len(), complete: true })
    }

    /// Appends the text as UTF-8. True: something in it was not of this encoding, and became U+FFFD.
    pub fn decode(self, text: &[u8], out: &mut Vec<u8>) -> bool {
        work::add(text.len());
        let (decoded, invalid) = self.0.decode_without_bom_handling(text);
        out.extend_from_slice(decoded.as_bytes());
        invalid
    }

    fn newline(self, bytes: &[u8]) -> Option<usize> {
        if self.unit() == 1 {
            // In none of them is a newline a part of another character.
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

    /// Where a line is cut that is too long: not within a pair of UTF-16.
    fn cut(self, bytes: &[u8]) -> usize {
        if self.unit() == 1 {
            return RECORD_BYTES_MAX;
        }
        let last = &bytes[RECORD_BYTES_MAX - 2..RECORD_BYTES_MAX];
        let high = if self.0 == UTF_16BE { last[0] } else { last[1] };
        if (0xD8..0xDC).contains(&high) { RECORD_BYTES_MAX - 2 } else { RECORD_BYTES_MAX }
    }
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
