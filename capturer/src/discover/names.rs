//! Whether each pattern of `include_names` matches a container: one that never does is mostly a slip of the pen, and
//! without a word about it the agent would look well and capture nothing.

/// So long nobody is alarmed: containers start one after the other.
const PATIENCE_MS: u64 = 60_000;

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// When the containers were listed first.
    since_ms: Option<u64>,
    matched: Vec<bool>,
}

/// What is to be said of the patterns.
#[derive(Debug, PartialEq, Eq)]
pub enum Unmatched {
    /// None of them matches anything: nothing is captured.
    All(String),
    /// Some do not.
    Some(String),
}

impl Names {
    /// The containers were listed.
    pub fn on_list(&mut self, now_ms: u64) {
        self.since_ms.get_or_insert(now_ms);
    }

    /// There is a container of this name.
    pub fn see(&mut self, patterns: &[glob::Pattern], name: &str) {
        self.matched.resize(patterns.len(), false);
        for (matched, pattern) in self.matched.iter_mut().zip(patterns) {
            *matched |= pattern.matches(name);
        }
    }

    /// Patterns without a container, once they had a minute.
    pub fn unmatched(&self, patterns: &[glob::Pattern], now_ms: u64) -> Option<Unmatched> {
        if patterns.is_empty() || self.since_ms.is_none_or(|since| now_ms < since + PATIENCE_MS) {
            return None;
        }
        let is_matched = |index: usize| self.matched.get(index).copied().unwrap_or(false);
        let without: Vec<&str> = patterns
            .iter()
            .enumerate()
            .filter(|(index, _)| !is_matched(*index))
            .map(|(_, pattern)| pattern.as_str())
            .collect();
        let names = without.join(", ");
        match without.len() {
            0 => None,
            count if count == patterns.len() => Some(Unmatched::All(names)),
            _ => Some(Unmatched::Some(names)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_without_a_container_are_named_after_a_minute() {
        let patterns = ["web-*", "db"].map(|text| glob::Pattern::new(text).unwrap());
        let mut names = Names::default();
        assert_eq!(names.unmatched(&patterns, u64::MAX), None, "nothing was listed yet");
        names.on_list(1_000);
        assert_eq!(names.unmatched(&patterns, 60_999), None);
        assert_eq!(names.unmatched(&patterns, 61_000), Some(Unmatched::All("web-*, db".to_owned())));
        names.see(&patterns, "web-1");
        assert_eq!(names.unmatched(&patterns, 61_000), Some(Unmatched::Some("db".to_owned())));
        names.see(&patterns, "db");
        assert_eq!(names.unmatched(&patterns, 61_000), None);
        assert_eq!(names.unmatched(&[], 61_000), None);
    }
}
