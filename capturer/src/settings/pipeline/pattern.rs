//! A regular expression of the config: compiled when the config is read, bounded in memory, linear in the text.

use crate::limits::{PATTERN_BYTES_MAX, PATTERN_DFA_BYTES_MAX, PATTERN_PROGRAM_BYTES_MAX};
use crate::settings::units::Mismatch;

/// Deepest nesting of groups.
const NEST_MAX: u32 = 50;

/// A compiled pattern. Patterns with the same text are equal.
#[derive(Clone)]
pub struct Pattern(regex::bytes::Regex);

impl Pattern {
    /// Compiles within the bounds of [`crate::limits`].
    ///
    /// # Errors
    /// What is wrong with the pattern, in words.
    pub fn new(text: &str) -> Result<Pattern, String> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(format!("it has more than {PATTERN_BYTES_MAX} bytes"));
        }
        let built = regex::bytes::RegexBuilder::new(text)
            .size_limit(PATTERN_PROGRAM_BYTES_MAX)
            .dfa_size_limit(PATTERN_DFA_BYTES_MAX)
            .nest_limit(NEST_MAX)
            .build();
        built.map(Pattern).map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => {
                format!(
                    "compiled it needs more than {PATTERN_PROGRAM_BYTES_MAX} bytes; lower its repetitions"
                )
            }
            // The library's own message draws the pattern over several lines; the last line says what is wrong.
            error => {
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default();
                last.trim_start_matches("error: ").to_owned()
            }
        })
    }

    /// Whether it has a group of this number or name.
    pub fn has_group(&self, group: &str) -> bool {
        match group.parse::<usize>() {
            Ok(number) => number < self.0.captures_len(),
            Err(_) => self.0.capture_names().flatten().any(|name| name == group),
        }
    }

    /// A pattern of the program itself.
    pub(crate) fn of_ours(text: &str) -> Pattern {
        Pattern::new(text).expect("our own patterns are good: each has a test")
    }

    pub(super) fn parse(text: &str) -> Result<Pattern, Mismatch> {
        let expected = || Mismatch::new("a regular expression");
        if text.is_empty() {
            return Err(expected().hint("an empty one matches every line"));
        }
        // In the extended syntax this character is ignored.
        let is_extended = text.strip_prefix("(?").is_some_and(|flags| {
            flags.split([')', ':', '-']).next().is_some_and(|flags| flags.contains('x'))
        });
        if text.ends_with('\n') && !is_extended {
            let hint = "this one ends with a line break, so it matches no line: write it after |- or in single quotes";
            return Err(expected().hint(hint));
        }
        Pattern::new(text).map_err(|why| expected().hint(why))
    }

    /// The compiled expression.
    pub fn regex(&self) -> &regex::bytes::Regex {
        &self.0
    }

    /// Whether it matches somewhere in the text.
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.0.is_match(text)
    }

    /// Whether it has `.*` or `.+` without the flag `s`, so that these stop at the end of a line.
    pub fn stops_at_line_end(&self) -> bool {
        let text = self.as_str();
        let has_flag = text.split("(?").skip(1).any(|flags| {
            let len = flags.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(flags.len());
            let (flags, behind) = flags.split_at(len);
            flags.contains('s') && behind.starts_with([')', ':', '-'])
        });
        let (mut escaped, mut before) = (false, ' ');
        let goes_far = text.chars().any(|c| {
            let is_dot = before == '.' && matches!(c, '*' | '+');
            // An escaped dot is a dot.
            before = if escaped { ' ' } else { c };
            escaped = !escaped && c == '\\';
            is_dot
        });
        goes_far && !has_flag
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

impl std::fmt::Debug for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pattern({:?})", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_stop_at_the_end_of_a_line() {
        for (text, stops) in [
            ("^(?P<level>\\w+) (?P<msg>.*)$", true),
            ("a.+b", true),
            ("(?s)^(?P<level>\\w+) (?P<msg>.*)$", false),
            ("(?is:a.*b)", false),
            ("(?i)a.*b", true),
            ("(?P<s>.*)", true),
            ("GET /healthz", false),
            (r"a\.*b", false),
            (r"a\\.*b", true),
            ("a.b", false),
            (r"(?P<m>[\s\S]*)", false),
        ] {
            assert_eq!(Pattern::new(text).expect("good").stops_at_line_end(), stops, "{text}");
        }
    }

    /// A user's mistake must not cost the agent its memory.
    #[test]
    fn bounds() {
        let why = |text: &str| Pattern::new(text).expect_err(text);
        assert!(why("(?:a{1000}){1000}").contains("lower its repetitions"));
        assert!(why(&"a".repeat(PATTERN_BYTES_MAX + 1)).contains("more than"));
        assert!(why(&"(".repeat(200)).contains("unclosed"));
        assert!(why(&format!("{}a{}", "(".repeat(60), ")".repeat(60))).contains("nest"));
        assert_eq!(why("a(b"), "unclosed group");
        assert_eq!(why("(?=a)"), "look-around, including look-ahead and look-behind, is not supported");
        assert_eq!(why(r"(a)\1"), "backreferences are not supported");
        assert!(Pattern::new(r"(?i)warn|error").expect("good").is_match(b"an ERROR"));
        assert!(Pattern::parse("").is_err());
        // As `pattern: |` makes it, with a line break at its end.
        for (text, is_good) in
            [("secret\n", false), ("secret\\n", true), ("(?x) secret # it\n", true), ("(?i:x)\n", false)]
        {
            assert_eq!(Pattern::parse(text).is_ok(), is_good, "{text:?}");
        }
    }
}
