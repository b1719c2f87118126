//! Invalid UTF-8 becomes U+FFFD, as Docker itself does it when it writes a json-file.

/// Appends `bytes` to `out` with each invalid sequence replaced. Returns whether there was one.
pub fn push_lossy(out: &mut Vec<u8>, bytes: &[u8]) -> bool {
    let mut replaced = false;
    for chunk in bytes.utf8_chunks() {
        out.extend_from_slice(chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
            replaced = true;
        }
    }
    replaced
}

/// Length of the longest start of `bytes`, at most `max`, that does not end within a UTF-8 character. Bytes that are
/// not UTF-8 are cut at `max`.
pub fn cut(bytes: &[u8], max: usize) -> usize {
    if bytes.len() <= max {
        return bytes.len();
    }
    let mut at = max;
    // A character has at most three continuation bytes.
    while at > max.saturating_sub(3) && (bytes[at] & 0xC0) == 0x80 {
        at -= 1;
    }
    if (bytes[at] & 0xC0) == 0x80 { max } else { at }
}

/// How many bytes at the end begin a character whose rest is missing.
pub fn torn_tail(bytes: &[u8]) -> usize {
    let is_torn = |len: &usize| {
        let tail = &bytes[bytes.len() - len..];
        std::str::from_utf8(tail).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
    };
    (1..=bytes.len().min(3)).find(is_torn).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_between_characters() {
        assert_eq!(cut("aé€𝄞".as_bytes(), 100), 10);
        let text = "aé€𝄞".as_bytes();
        let table = [(0, 0), (1, 1), (2, 1), (3, 3), (4, 3), (5, 3), (6, 6), (7, 6), (9, 6), (10, 10)];
        for (max, expected) in table {
            assert_eq!(cut(text, max), expected, "max {max}");
        }
        assert_eq!(cut(&[0x80; 10], 5), 5);
    }

    #[test]
    fn torn_characters_at_the_end() {
        let table: [(&[u8], usize); 8] = [
            (b"", 0),
            (b"a", 0),
            ("é".as_bytes(), 0),
            (b"a\xc3", 1),
            (b"\xe2\x82", 2),
            (b"x\xf0\x9d\x84", 3),
            (b"\x82\x82", 0),
            (b"\xff", 0),
        ];
        for (bytes, expected) in table {
            assert_eq!(torn_tail(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn replaces_and_tells() {
        let mut out = Vec::new();
        assert!(!push_lossy(&mut out, "é".as_bytes()));
        assert!(push_lossy(&mut out, b"a\xffb\xe2\x82"));
        assert_eq!(String::from_utf8(out).unwrap(), "éa\u{fffd}b\u{fffd}");
    }
}
