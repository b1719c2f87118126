//! A message in JSON. What programs write although it is not quite JSON is mended first, so that the line keeps its
//! fields.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Found, NotThis, quoted_len};
use crate::decode::utf8;
use crate::limits::{FIELD_NAME_BYTES_MAX, FIELDS_DEPTH_MAX};
use crate::model::fields::Value;

/// One object and nothing else. Nested objects become names with dots, lists become their text, and null is left out.
pub(super) fn json(text: &[u8], into: &mut Found) -> Result<(), NotThis> {
    if text.trim_ascii_start().first() != Some(&b'{') {
        return Err(NotThis);
    }
    if let Ok(text) = std::str::from_utf8(text)
        && json_as_it_is(text, into).is_ok()
    {
        return Ok(());
    }
    let mended = mended(text).ok_or(NotThis)?;
    *into = Found::new(into.wanted);
    json_as_it_is(std::str::from_utf8(&mended).map_err(|_| NotThis)?, into)?;
    into.mended = true;
    Ok(())
}

/// Repairs what programs write although it is not JSON: half a surrogate pair (JavaScript does this when it cuts an
/// emoji), control characters, bytes that are not UTF-8, Python's NaN and Infinity. They become U+FFFD, escapes or
/// strings, and the line keeps its fields. `None` = the text has nothing of the kind.
pub(super) fn mended(text: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut quoted, mut at) = (Vec::with_capacity(text.len() + 16), false, 0);
    let is_utf8 = !utf8::push_lossy(&mut out, text);
    let text = std::mem::replace(&mut out, Vec::with_capacity(text.len() + 16));
    let mut changed = !is_utf8;
    while let Some(byte) = text.get(at) {
        let mut took = 1;
        match byte {
            b'\\' if quoted && text.get(at + 1) == Some(&b'u') => {
                took = surrogates(&text[at..]).map_or(2, usize::from);
                if took == LONE_BYTES {
                    out.extend_from_slice(b"\\ufffd");
                    changed = true;
                    at += took;
                    continue;
                }
            }
            b'\\' if quoted => took = 2,
            b'"' => quoted = !quoted,
            b'N' | b'I' | b'-' if !quoted => {
                if let Some(word) = word_for_a_number(&out, &text[at..]) {
                    out.push(b'"');
                    out.extend_from_slice(word);
                    out.push(b'"');
                    changed = true;
                    at += word.len();
                    continue;
                }
            }
            0..0x20 if quoted => {
                out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
                changed = true;
                at += 1;
                continue;
            }
            _ => {}
        }
        out.extend_from_slice(&text[at..(at + took).min(text.len())]);
        at += took;
    }
    changed.then_some(out)
}

/// What Python's json writes for floats that JSON has no number for, in a value's place.
fn word_for_a_number(before: &[u8], text: &[u8]) -> Option<&'static [u8]> {
    let words = [&b"NaN"[..], b"Infinity", b"-Infinity"];
    let word = words.into_iter().find(|word| text.starts_with(word))?;
    let behind = text[word.len()..].trim_ascii_start().first();
    let is_value = matches!(before.trim_ascii_end().last(), Some(b':' | b'[' | b','));
    (is_value && matches!(behind, Some(b',' | b']' | b'}'))).then_some(word)
}

/// Length of a lone surrogate's escape.
const LONE_BYTES: usize = 6;

/// Length of the escape of a lone surrogate or of a pair; `None` = there is no surrogate here.
fn surrogates(text: &[u8]) -> Option<u8> {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    match (unit(0)?, unit(6)) {
        (0xD800..=0xDBFF, Some(0xDC00..=0xDFFF)) => Some(12),
        (0xD800..=0xDFFF, _) => Some(LONE_BYTES as u8),
        _ => None,
    }
}

fn json_as_it_is(text: &str, into: &mut Found) -> Result<(), NotThis> {
    Object { name: &mut String::new(), depth: 0, into }.read(text)
}

/// An object whose members become fields. Its values are first located in the text, which takes no recursion however
/// deep they are, and keeps the digits of a number.
struct Object<'a, 'f, 'm> {
    /// The names of the objects around it.
    name: &'a mut String,
    depth: usize,
    into: &'f mut Found<'m>,
}

/// A key, borrowed if nothing in it is escaped.
#[derive(Deserialize)]
struct Key<'k>(#[serde(borrow)] Cow<'k, str>);

impl Object<'_, '_, '_> {
    fn read(self, text: &str) -> Result<(), NotThis> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        deserializer.deserialize_map(self).and_then(|()| deserializer.end()).map_err(|_| NotThis)
    }

    fn member(&mut self, value: &str) -> Result<(), NotThis> {
        match value.as_bytes().first() {
            Some(b'{') => {
                Object { name: self.name, depth: self.depth + 1, into: self.into }.read(value)?;
            }
            Some(b'[') => self.into.set(self.name, Value::Text(&list(value)?)),
            Some(b'"') => self.into.set(self.name, Value::Text(&string(value)?)),
            Some(b't') => self.into.set(self.name, Value::Bool(true)),
            Some(b'f') => self.into.set(self.name, Value::Bool(false)),
            Some(b'n') => {}
            _ => self.into.set(self.name, Value::Number(value)),
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Object<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let outer = self.name.len();
        while let Some(Key(key)) = map.next_key()? {
            let value = map.next_value::<&RawValue>()?;
            let dot = usize::from(outer > 0);
            if self.depth == FIELDS_DEPTH_MAX || outer + dot + key.len() > FIELD_NAME_BYTES_MAX {
                self.into.limited = true;
                continue;
            }
            if outer > 0 {
                self.name.push('.');
            }
            self.name.push_str(&key);
            self.member(value.get()).map_err(|NotThis| serde::de::Error::custom("no text"))?;
            self.name.truncate(outer);
        }
        Ok(())
    }
}

/// The text of a quoted string.
fn string(quoted: &str) -> Result<Cow<'_, str>, NotThis> {
    let inside = quoted.get(1..quoted.len() - 1).ok_or(NotThis)?;
    if memchr::memchr(b'\\', inside.as_bytes()).is_none() {
        return Ok(Cow::Borrowed(inside));
    }
    serde_json::from_str(quoted).map(Cow::Owned).map_err(|_| NotThis)
}

/// A list as the shortest JSON: no blanks between values, nothing escaped without need. Otherwise `redact` could miss
/// what it looks for.
fn list(text: &str) -> Result<Cow<'_, str>, NotThis> {
    if !text.bytes().any(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'\\')) {
        return Ok(Cow::Borrowed(text));
    }
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(next) = rest.chars().next() {
        let len = if next == '"' { quoted_len(rest).ok_or(NotThis)? } else { next.len_utf8() };
        let (token, behind) = rest.split_at(len);
        match next {
            '"' if token.contains('\\') => {
                out.push_str(&serde_json::to_string(&string(token)?).map_err(|_| NotThis)?);
            }
            ' ' | '\t' | '\n' | '\r' => {}
            _ => out.push_str(token),
        }
        rest = behind;
    }
    Ok(Cow::Owned(out))
}
