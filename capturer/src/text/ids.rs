//! Containers' IDs in a text that people read.

/// Length of an ID in hexadecimal digits.
const DIGITS: usize = 64;

/// The text with each ID written as `shown` has it.
pub(crate) fn with_ids(text: &str, shown: impl Fn(&str) -> &str) -> String {
    let mut rest = text;
    let mut written = String::with_capacity(text.len());
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
        let other = rest[digits..].find(|c: char| c.is_ascii_hexdigit()).map_or(rest.len(), |at| digits + at);
        written.push_str(if digits == DIGITS { shown(&rest[..digits]) } else { &rest[..digits] });
        written.push_str(&rest[digits..other]);
        rest = &rest[other..];
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_run_of_sixty_four_digits_is_an_id() {
        let id = "0123456789abcdef".repeat(4);
        let short = |text: &str| with_ids(text, |id| &id[..12]);
        assert_eq!(short(&format!("é {id}: {id}")), "é 0123456789ab: 0123456789ab");
        assert_eq!(short("abc é 12 x"), "abc é 12 x");
        assert_eq!(short(&format!("{id}0")), format!("{id}0"));
        assert_eq!(short(""), "");
    }
}
