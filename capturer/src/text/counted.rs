//! Counts as people say them: `1 file`, `2 files`.

use bytesize::ByteSize;

/// A count of things whose plural ends in s.
pub fn counted(count: u64, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

/// A count that may be large, as people read it: `87,174 lines`.
pub fn many(count: u64, one: &str) -> String {
    let digits = count.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{grouped} {one}{}", which(count, "", "s"))
}

/// Bytes as people read them.
pub fn amount(bytes: u64) -> String {
    if bytes < 10_000 { counted(bytes, "byte") } else { ByteSize(bytes).display().iec().to_string() }
}

/// A list names at most this many.
const NAMED_MAX: usize = 5;

/// The first names, and how many more there are.
pub fn named(all: impl ExactSizeIterator<Item = String>) -> String {
    let more = all.len().saturating_sub(NAMED_MAX);
    let first: Vec<String> = all.take(NAMED_MAX).collect();
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("{}{more}", first.join("; "))
}

/// `one` for a count of one, otherwise `more`: for verbs and words with an irregular plural.
pub fn which<'a>(count: u64, one: &'a str, more: &'a str) -> &'a str {
    if count == 1 { one } else { more }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_parted() {
        let told = [0, 1, 999, 1_000, 87_174, 1_000_000].map(|count| many(count, "line"));
        assert_eq!(
            told,
            ["0 lines", "1 line", "999 lines", "1,000 lines", "87,174 lines", "1,000,000 lines"]
        );
    }

    #[test]
    fn one_is_one() {
        assert_eq!([0, 1, 2].map(|count| counted(count, "file")), ["0 files", "1 file", "2 files"]);
        assert_eq!([0, 1, 2].map(|count| which(count, "is", "are")), ["are", "is", "are"]);
    }
}
