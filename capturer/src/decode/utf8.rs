//! Invalid UTF-8 becomes U+FFFD, as Docker itself does it when it writes a json-file.

/// Appends `bytes` to `out` with each invalid sequence replaced; tells whether there was one.
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

/// The longest start of `bytes`, at most `max` long, that does not end within a UTF-8 character. Bytes that are not
/// UTF-8 are cut at `max`.
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
    fn replaces_and_tells() {
        let mut out = Vec::new();
        assert!(!push_lossy(&mut out, "é".as_bytes()));
        assert!(push_lossy(&mut out, b"a\xffb\xe2\x82"));
        assert_eq!(String::from_utf8(out).unwrap(), "éa\u{fffd}b\u{fffd}");
    }
}
