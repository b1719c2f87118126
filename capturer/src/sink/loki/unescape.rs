//! The inside of a JSON string to real text: records keep Docker's escapes until a sink wants them gone.

use memchr::memchr;

/// Appends the text. What no JSON string could hold (a lone surrogate, an unknown escape) becomes U+FFFD.
pub(super) fn unescape(mut escaped: &[u8], out: &mut Vec<u8>) {
    while let Some(at) = backslash(escaped) {
        out.extend_from_slice(&escaped[..at]);
        escaped = &escaped[at + 1..];
        let Some((kind, rest)) = escaped.split_first() else {
            return push('\u{fffd}', out);
        };
        escaped = rest;
        match kind {
            b'"' | b'\\' | b'/' => out.push(*kind),
            b'n' => out.push(b'\n'),
            b't' => out.push(b'\t'),
            b'r' => out.push(b'\r'),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'u' => escaped = unicode(escaped, out),
            _ => push('\u{fffd}', out),
        }
    }
    out.extend_from_slice(escaped);
}

/// Where the next one is. Escapes stand close together, so a few bytes are looked at before it is worth it to search in wide
/// steps.
fn backslash(text: &[u8]) -> Option<usize> {
    let near = text.len().min(NEAR_BYTES);
    let found = text[..near].iter().position(|byte| *byte == b'\\');
    found.or_else(|| Some(near + memchr(b'\\', &text[near..])?))
}

const NEAR_BYTES: usize = 8;

/// Behind `\u`; returns what follows the digits, and those of a low surrogate.
fn unicode<'a>(escaped: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let Some((first, rest)) = hex4(escaped) else {
        push('\u{fffd}', out);
        return escaped;
    };
    if (0xd800..0xdc00).contains(&first)
        && let Some((second, rest)) = rest.strip_prefix(b"\\u").and_then(hex4)
        && (0xdc00..0xe000).contains(&second)
    {
        let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        push(char::from_u32(code).unwrap_or('\u{fffd}'), out);
        return rest;
    }
    push(char::from_u32(first).unwrap_or('\u{fffd}'), out);
    rest
}

fn hex4(text: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = text.split_first_chunk::<4>()?;
    let mut code = 0;
    for digit in digits {
        code = code * 16 + char::from(*digit).to_digit(16)?;
    }
    Some((code, rest))
}

fn push(c: char, out: &mut Vec<u8>) {
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::Rng;
    use super::*;

    fn text(escaped: &str) -> String {
        let mut out = Vec::new();
        unescape(escaped.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn docker_and_odd_escapes() {
        assert_eq!(text(r#"\u003cb\u003e \u0026\u2028"#), "<b> &\u{2028}");
        assert_eq!(text(r#"a\"b\\c\/d\n\t\r\b\f"#), "a\"b\\c/d\n\t\r\u{8}\u{c}");
        assert_eq!(text(r"\ud83e\udd80!"), "🦀!");
        for (odd, expected) in [
            (r"\ud83e", "\u{fffd}"),
            (r"\udd80x", "\u{fffd}x"),
            (r"\ud83e\n", "\u{fffd}\n"),
            (r"\x", "\u{fffd}"),
            (r"\u12", "\u{fffd}12"),
            ("\\", "\u{fffd}"),
        ] {
            assert_eq!(text(odd), expected, "{odd}");
        }
    }

    /// Against serde_json, with its own escapes and with every character written as \u.
    #[test]
    fn agrees_with_a_json_parser() {
        let mut rng = Rng::from_env();
        for _ in 0..3_000 {
            let original = rng.text(200);
            let json = serde_json::to_string(&original).unwrap();
            assert_eq!(text(&json[1..json.len() - 1]), original);
            let all: String = original.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
            assert_eq!(text(&all), original);
        }
    }
}
