//! Whether a file has text. A database in a log directory (lastlog, wtmp, a journal) would be delivered as many lines
//! that nobody can read.

use super::damage::{self, HOLE_BYTES_MIN};
use super::text::{Mark, mark};

/// How many bytes at a file's beginning are judged.
const LOOK_BYTES: usize = 4096;
/// Fewer bytes are not judged.
const LOOK_BYTES_MIN: usize = 8;
/// In text, fewer than one byte in this many is strange: escape codes, a word in another encoding.
const STRANGE_ONE_IN: usize = 4;

/// What the bytes at a file's beginning, or behind a hole, are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text, judging by these bytes.
    Text,
    /// Bytes that no text has.
    Binary,
    /// Too few bytes to judge.
    Unknown,
}

/// What a file has, judging by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Text that can be decoded.
    Text,
    /// No text in any encoding that the agent knows.
    Binary,
    /// Text in an encoding that the agent does not decode.
    Utf32,
}

/// Length of the longest byte order mark.
const MARK_BYTES: usize = 4;

/// Judges a file by its first bytes; `None` = there are too few. `is_known`: the config says that it is text. The agent
/// and `capturer check` both call this.
pub fn judge(first: &[u8], is_known: bool) -> Option<Content> {
    if first.len() < MARK_BYTES {
        return None;
    }
    if mark(first, true) == Mark::Utf32 {
        return Some(Content::Utf32);
    }
    if is_known {
        return Some(Content::Text);
    }
    match kind(first) {
        Kind::Unknown => None,
        Kind::Text => Some(Content::Text),
        Kind::Binary if seems_utf32(first) => Some(Content::Utf32),
        Kind::Binary => Some(Content::Binary),
    }
}

/// What text that is not UTF-8 and has no mark seems to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seems {
    /// UTF-16, little-endian.
    Utf16Le,
    /// UTF-16, big-endian.
    Utf16Be,
    /// One of the encodings in which each byte below 0x80 is ASCII. Which one, the bytes do not say.
    Ascii,
}

impl Seems {
    /// How it looks.
    pub fn text(self) -> &'static str {
        match self {
            Seems::Utf16Le => "utf-16le",
            Seems::Utf16Be => "utf-16be",
            Seems::Ascii => "text in an older encoding",
        }
    }

    /// What the config needs.
    pub fn cure(self) -> &'static str {
        match self {
            Seems::Utf16Le => "set `encoding: utf-16le` for it",
            Seems::Utf16Be => "set `encoding: utf-16be` for it",
            Seems::Ascii => "set its `encoding`, such as windows-1251, koi8-r, shift_jis or gbk",
        }
    }
}

/// The encoding that text without a mark seems to have.
pub fn seems(first: &[u8]) -> Option<Seems> {
    if seems_utf32(first) {
        return None;
    }
    seems_utf16(first).or_else(|| seems_ascii(first).then_some(Seems::Ascii))
}

/// Whether each character takes four bytes of which three are NUL: ASCII in UTF-32.
fn seems_utf32(first: &[u8]) -> bool {
    let first = &first[..first.len().min(LOOK_BYTES) & !3];
    let is_text = |byte: u8| (0x20..0x7f).contains(&byte) || matches!(byte, b'\t' | b'\n' | b'\r');
    let most = |at: usize| {
        let chars = first.chunks_exact(4).filter(|four| {
            is_text(four[at]) && four.iter().enumerate().all(|(other, byte)| other == at || *byte == 0)
        });
        chars.count() * 4 * 4 >= first.len() * 3
    };
    first.len() >= 4 * LOOK_BYTES_MIN && (most(0) || most(3))
}

/// Whether it has lines, and no byte that a text in no encoding of bytes has. What is packed or a table has NULs and other
/// control characters.
fn seems_ascii(first: &[u8]) -> bool {
    let first = &first[damage::leading_nuls(first)..];
    let first = &first[..first.len().min(LOOK_BYTES)];
    first.len() >= 2 * LOOK_BYTES_MIN && first.contains(&b'\n') && !first.iter().any(is_control)
}

/// If every other byte is NUL: letters of the Latin alphabet in UTF-16.
fn seems_utf16(first: &[u8]) -> Option<Seems> {
    let first = &first[..first.len().min(LOOK_BYTES) & !1];
    let nuls = |from: usize| first.iter().skip(from).step_by(2).filter(|byte| **byte == 0).count();
    let half = first.len() / 2;
    let most = |nuls: usize| half >= LOOK_BYTES_MIN / 2 && nuls * 10 >= half * 9;
    match (most(nuls(0)), most(nuls(1))) {
        (false, true) => Some(Seems::Utf16Le),
        (true, false) => Some(Seems::Utf16Be),
        _ => None,
    }
}

/// Whether text has bytes that are not UTF-8. A character that the end of `first` cuts is valid.
pub fn has_invalid_utf8(first: &[u8]) -> bool {
    match std::str::from_utf8(first) {
        Ok(_) => false,
        Err(error) => error.error_len().is_some(),
    }
}

/// Judges the first bytes of a file. Text in UTF-16 has a mark or is named in the config. Holes of NULs are skipped,
/// because text may follow.
pub fn kind(bytes: &[u8]) -> Kind {
    if !matches!(mark(bytes, true), Mark::None) {
        return Kind::Text;
    }
    let (mut looked_at, mut strange, mut at) = (0, 0, 0);
    while at < bytes.len() && looked_at < LOOK_BYTES {
        let nuls = damage::leading_nuls(&bytes[at..]);
        // The page where data begins may start with the end of a hole.
        if nuls >= HOLE_BYTES_MIN || (at == 0 && nuls > 0) {
            at += nuls;
            continue;
        }
        let rest = &bytes[at..bytes.len().min(at + LOOK_BYTES)];
        let hole = (nuls..rest.len())
            .find(|from| rest[*from] == 0 && damage::leading_nuls(&rest[*from..]) >= HOLE_BYTES_MIN);
        let part = &rest[..hole.unwrap_or(rest.len())];
        strange += strange_bytes(part);
        looked_at += part.len();
        at += part.len();
    }
    match looked_at {
        ..LOOK_BYTES_MIN => Kind::Unknown,
        _ if strange * STRANGE_ONE_IN >= looked_at => Kind::Binary,
        _ => Kind::Text,
    }
}

/// Bytes that are not UTF-8, and control characters that text does not have.
fn strange_bytes(bytes: &[u8]) -> usize {
    let controls = |text: &str| text.as_bytes().iter().filter(|byte| is_control(byte)).count();
    bytes.utf8_chunks().map(|chunk| chunk.invalid().len() + controls(chunk.valid())).sum()
}

/// A control character that no text has.
fn is_control(byte: &u8) -> bool {
    const IN_TEXT: [u8; 6] = [b'\t', b'\n', b'\r', 0x08, 0x0c, 0x1b];
    (*byte < 0x20 && !IN_TEXT.contains(byte)) || *byte == 0x7f
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_in_utf_16_without_a_mark_is_known_for_what_it_is() {
        let encoded = |bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
            "a line of a log, é\n".encode_utf16().flat_map(bytes).collect()
        };
        assert_eq!(seems_utf16(&encoded(u16::to_le_bytes)), Some(Seems::Utf16Le));
        assert_eq!(seems_utf16(&encoded(u16::to_be_bytes)), Some(Seems::Utf16Be));
        for other in [&b"plain text"[..], &[0; 64], b"", b"a\0"] {
            assert_eq!(seems_utf16(other), None, "{other:?}");
        }
        assert_eq!(judge(&encoded(u16::to_le_bytes), false), Some(Content::Binary));
        assert_eq!(judge(&encoded(u16::to_le_bytes), true), Some(Content::Text));
        assert_eq!(judge(b"abc", false), None);
    }

    /// A writer that keeps its position after a truncation leaves a hole, whose end is in the page where its data
    /// begins.
    #[test]
    fn the_end_of_a_hole_says_nothing() {
        let text = [&[0; 10][..], b"written on\n"].concat();
        assert_eq!(judge(&text, false), Some(Content::Text));
        assert_eq!(
            judge(&[&[0; 10][..], &[8, 0, 0, 0, 1, 2, 3, 4, 0, 0]].concat(), false),
            Some(Content::Binary)
        );
    }

    #[test]
    fn a_character_that_is_cut_is_valid() {
        assert!(!has_invalid_utf8("caf\u{e9}".as_bytes()) && !has_invalid_utf8(b"caf\xc3"));
        assert!(has_invalid_utf8(b"caf\xe9 au lait"));
    }

    /// A record of wtmp or btmp, as glibc writes it.
    fn utmp(line: &str, user: &str, host: &str) -> Vec<u8> {
        let mut record = vec![7, 0, 0, 0, 0x4a, 0x0e, 0, 0];
        for (text, len) in [(line, 32), ("ts/0", 4), (user, 32), (host, 256)] {
            record.extend(text.bytes().chain(std::iter::repeat(0)).take(len));
        }
        record.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x9c, 0x11, 0x27, 0x69, 0x31, 0x80, 0x0a, 0]);
        record.resize(384, 0);
        record
    }

    /// Entries of lastlog: time, line, host of each user id, most of which never logged in.
    fn lastlog(host: &str) -> Vec<u8> {
        let mut file = vec![0; 1000 * 292];
        file.extend([0x9c, 0x11, 0x27, 0x69]);
        for (text, len) in [("tty1", 32), (host, 256)] {
            file.extend(text.bytes().chain(std::iter::repeat(0)).take(len));
        }
        file
    }

    fn journal() -> Vec<u8> {
        let mut file = b"LPKSHHRH".to_vec();
        file.extend((0..248_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8));
        file
    }

    /// A log in Russian was left out as if it were wtmp, and health said that all is well; of UTF-32 it said UTF-16.
    #[test]
    fn text_in_another_encoding_is_told_from_what_is_no_text() {
        let in_encoding = |label: &str, text: &str| {
            let encoding = encoding_rs::Encoding::for_label(label.as_bytes()).unwrap();
            encoding.encode(text).0.into_owned()
        };
        let russian = "2026-11-25 ошибка: нет места на диске\n";
        let chinese = "错误：磁盘空间不足\n".repeat(3);
        let random: Vec<u8> =
            (0..4096_u32).map(|at| (at.wrapping_mul(2_654_435_761).rotate_left(9) >> 13) as u8).collect();
        let utf32 = |bytes: fn(u32) -> [u8; 4]| -> Vec<u8> {
            "ein Bericht, schön, über 日本\n".chars().flat_map(|char| bytes(char.into())).collect()
        };
        let (text, binary) = (Some(Seems::Ascii), Some(Content::Binary));
        let table = [
            ("windows-1251", in_encoding("windows-1251", russian), text, binary),
            ("koi8-r", in_encoding("koi8-r", russian), text, binary),
            ("ibm866", in_encoding("ibm866", russian), text, binary),
            ("gbk", in_encoding("gbk", &chinese), text, binary),
            ("shift_jis", in_encoding("shift_jis", "エラー、ディスクに空きがありません\n"), text, binary),
            ("euc-kr", in_encoding("euc-kr", "오류: 디스크 공간이 부족합니다\n"), text, binary),
            ("behind a hole", [vec![0; 5000], in_encoding("koi8-r", russian)].concat(), text, binary),
            ("UTF-32, little-endian", utf32(u32::to_le_bytes), None, Some(Content::Utf32)),
            ("UTF-32, big-endian", utf32(u32::to_be_bytes), None, Some(Content::Utf32)),
            ("wtmp", utmp("pts/0", "root", "192.168.0.17"), None, binary),
            ("a journal", journal(), None, binary),
            ("random", random, None, binary),
            ("a key", vec![0x9a; 32], None, binary),
        ];
        for (name, bytes, expected, content) in table {
            assert_eq!(seems(&bytes), expected, "{name}");
            assert_eq!(judge(&bytes, false), content, "{name}");
        }
    }

    #[test]
    fn files_of_a_log_directory() {
        let russian = "привет из журнала, который пишет программа\n".repeat(5);
        let koi8 = encoding_rs::KOI8_R.encode(&russian).0.into_owned();
        let latin1 =
            encoding_rs::WINDOWS_1252.encode(&"Grüße aus München, alles schön\n".repeat(5)).0.into_owned();
        let utf16: Vec<u8> =
            [0xfeff].into_iter().chain("hello\n".encode_utf16()).flat_map(u16::to_le_bytes).collect();
        let behind_hole = [vec![0; 5_000], b"first after the hole, and then some\n".to_vec()].concat();
        let with_holes = [b"a line of a log file, rather short\n".to_vec(), vec![0; 300]].concat().repeat(4);
        let coloured = "\u{1b}[1;32m[ok]\u{1b}[0m started, and it goes on\r\n".repeat(3).into_bytes();
        let table: [(&str, Vec<u8>, Kind); 14] = [
            ("wtmp", utmp("pts/0", "root", "192.168.0.17"), Kind::Binary),
            ("btmp", utmp("ssh:notty", "admin", "203.0.113.7"), Kind::Binary),
            ("lastlog", lastlog("192.168.0.17"), Kind::Binary),
            ("lastlog of a console", lastlog(""), Kind::Binary),
            ("journal", journal(), Kind::Binary),
            ("KOI8-R without a word of it", koi8, Kind::Binary),
            ("Latin-1", latin1, Kind::Text),
            ("UTF-8", russian.into_bytes(), Kind::Text),
            ("UTF-16 with a mark", utf16, Kind::Text),
            ("text behind a hole", behind_hole, Kind::Text),
            ("text between holes", with_holes, Kind::Text),
            ("colours", coloured, Kind::Text),
            ("nothing but a hole", vec![0; 10_000], Kind::Unknown),
            ("a few bytes", vec![1, 2, 3], Kind::Unknown),
        ];
        for (name, bytes, expected) in table {
            assert_eq!(kind(&bytes), expected, "{name}");
        }
    }
}
