//! File names as text. A Linux name may have any bytes but `/` and NUL. The agent keeps paths as text, in which a byte
//! that is not UTF-8 is written `\xE9`. In a name that contains these four characters, the backslash is written that
//! way itself, `\x5CxE9`. So each text stands for exactly one name.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

/// A name or path as text.
pub fn text_of(name: &OsStr) -> Cow<'_, str> {
    match name.to_str() {
        Some(text) if memchr::memchr(b'\\', text.as_bytes()).is_none() => Cow::Borrowed(text),
        _ => Cow::Owned(escape(name.as_bytes())),
    }
}

/// As [`text_of`], of bytes.
pub fn text_of_bytes(name: &[u8]) -> Cow<'_, str> {
    text_of(OsStr::from_bytes(name))
}

/// As [`text_of`], for a path.
pub fn text_of_path(path: &Path) -> Cow<'_, str> {
    text_of(path.as_os_str())
}

/// The name or path that a text stands for.
pub fn name_of(text: &str) -> Cow<'_, OsStr> {
    if memchr::memchr(b'\\', text.as_bytes()).is_none() {
        return Cow::Borrowed(OsStr::new(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if let Some(byte) = escaped(rest) {
            bytes.push(byte);
            rest = &rest[4..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    Cow::Owned(OsString::from_vec(bytes))
}

/// A text as patterns see it: a byte that is not UTF-8 is one character.
pub fn as_chars(text: &str) -> Cow<'_, str> {
    if memchr::memchr(b'\\', text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    chars_of(name_of(text).as_bytes(), |valid| valid.to_owned()).into()
}

/// A pattern in which `\xE9` stands for that byte, as [`as_chars`] writes it. `quote` makes a pattern that matches a
/// text literally.
pub fn pattern_as_chars(pattern: &str, quote: impl Fn(&str) -> String) -> String {
    let (mut chars, mut rest) = (String::new(), pattern);
    while let Some(at) = rest.find("\\x") {
        let (before, from) = rest.split_at(at);
        chars.push_str(before);
        let mut bytes = Vec::new();
        let mut behind = from;
        while let Some(byte) = escaped(behind.as_bytes()) {
            bytes.push(byte);
            behind = &behind[4..];
        }
        if bytes.is_empty() {
            chars.push_str(&from[..2]);
            behind = &from[2..];
        }
        chars.push_str(&chars_of(&bytes, &quote));
        rest = behind;
    }
    chars + rest
}

/// Turns bytes that are not UTF-8 into characters that no name has: the last ones of the last private plane.
fn chars_of(bytes: &[u8], text: impl Fn(&str) -> String) -> String {
    let char_of =
        |byte: &u8| char::from_u32(0x0010_FE00 + u32::from(*byte)).unwrap_or(char::REPLACEMENT_CHARACTER);
    let chunks = bytes.utf8_chunks();
    chunks
        .map(|chunk| text(chunk.valid()) + &chunk.invalid().iter().map(char_of).collect::<String>())
        .collect()
}

/// The byte that `\xE9` at the beginning stands for.
fn escaped(text: &[u8]) -> Option<u8> {
    let digits = text.strip_prefix(b"\\x")?.get(..2)?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn escape(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len() + 8);
    for chunk in name.utf8_chunks() {
        let valid = chunk.valid();
        for (at, char) in valid.char_indices() {
            if char == '\\' && escaped(&valid.as_bytes()[at..]).is_some() {
                text.push_str("\\x5C");
            } else {
                text.push(char);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_a_text_and_comes_back() {
        let table: [(&[u8], &str); 7] = [
            (b"a.log", "a.log"),
            ("größe.log".as_bytes(), "größe.log"),
            (b"caf\xE9.log", "caf\\xE9.log"),
            (b"\xFF\xFE", "\\xFF\\xFE"),
            (b"a\\b", "a\\b"),
            (b"a\\xE9", "a\\x5CxE9"),
            (b"a\\x5CxE9", "a\\x5Cx5CxE9"),
        ];
        for (name, text) in table {
            assert_eq!(text_of_bytes(name), text);
            assert_eq!(name_of(text).as_bytes(), name, "{text}");
        }
    }

    #[test]
    fn no_two_names_share_a_text() {
        let alphabet: [&[u8]; 7] = [b"\\", b"x", b"5", b"C", b"E", b"9", b"\xE9"];
        let mut seen = std::collections::BTreeMap::new();
        for number in 0..7_usize.pow(6) {
            let parts = (0..6).scan(number, |rest, _| {
                let part = alphabet[*rest % 7];
                *rest /= 7;
                Some(part)
            });
            let name: Vec<u8> = parts.flatten().copied().collect();
            let text = text_of_bytes(&name).into_owned();
            assert_eq!(name_of(&text).as_bytes(), name);
            assert_eq!(seen.insert(text, name), None);
        }
    }
}
