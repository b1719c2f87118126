//! Whether the include lists match any container. A pattern that never does is usually a typo; without a report the
//! agent would look healthy and capture nothing.

use std::collections::BTreeMap;

use crate::settings::Select;

/// Nothing is reported before this much time has passed, because containers start one after the other.
const PATIENCE_MS: u64 = 60_000;

/// Which patterns have matched a container.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// When the containers were first listed.
    since_ms: Option<u64>,
    matched_names: Vec<bool>,
    matched_images: Vec<bool>,
    matched_labels: Vec<bool>,
}

/// What is wrong with the lists.
#[derive(Debug, PartialEq, Eq)]
pub enum Unmatched {
    /// No container matches all of the lists: nothing is captured.
    All(String),
    /// Some patterns match no container.
    Some(String),
}

fn note(matched: &mut Vec<bool>, fits: impl ExactSizeIterator<Item = bool>) {
    matched.resize(fits.len(), false);
    matched.iter_mut().zip(fits).for_each(|(matched, fits)| *matched |= fits);
}

/// The patterns that matched nothing.
fn without<'a>(matched: &[bool], patterns: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let is_matched = |index: usize| matched.get(index).copied().unwrap_or(false);
    patterns.enumerate().filter(|(index, _)| !is_matched(*index)).map(|(_, pattern)| pattern).collect()
}

impl Names {
    /// The containers were listed.
    pub fn on_list(&mut self, now_ms: u64) {
        self.since_ms.get_or_insert(now_ms);
    }

    /// A container was seen.
    pub fn see(
        &mut self,
        select: &Select,
        name: &str,
        image: &str,
        labels: Option<&BTreeMap<String, String>>,
    ) {
        let label = |key: &str| labels.and_then(|labels| labels.get(key));
        note(&mut self.matched_names, select.include_names.iter().map(|pattern| pattern.matches(name)));
        note(&mut self.matched_images, select.include_images.iter().map(|pattern| pattern.matches(image)));
        let labels = select.include_labels.iter();
        let fits = labels.map(|(key, pattern)| label(key).is_some_and(|value| pattern.matches(value)));
        note(&mut self.matched_labels, fits);
    }

    /// Patterns without a container, after a minute.
    pub fn unmatched(&self, select: &Select, now_ms: u64) -> Option<Unmatched> {
        if self.since_ms.is_none_or(|since| now_ms < since + PATIENCE_MS) {
            return None;
        }
        let patterns =
            |globs: &'_ [glob::Pattern]| globs.iter().map(|glob| glob.as_str().to_owned()).collect();
        let labels: Vec<String> =
            select.include_labels.iter().map(|(key, glob)| format!("{key}: {glob}")).collect();
        // Unlike names and images, all of the labels must match.
        let lists: [(&str, Vec<String>, &[bool], bool); 3] = [
            ("include_names", patterns(&select.include_names), &self.matched_names, false),
            ("include_images", patterns(&select.include_images), &self.matched_images, false),
            ("include_labels", labels, &self.matched_labels, true),
        ];
        let (mut all, mut some) = (Vec::new(), Vec::new());
        for (list, patterns, matched, all_must) in &lists {
            let without = without(matched, patterns.iter().map(String::as_str));
            if without.is_empty() {
                continue;
            }
            let text = format!("container_monitor.{list} ({})", without.join(", "));
            let none = *all_must || without.len() == patterns.len();
            if none { &mut all } else { &mut some }.push(text);
        }
        match (all.is_empty(), some.is_empty()) {
            (false, _) => Some(Unmatched::All(all.join(" and "))),
            (true, false) => Some(Unmatched::Some(some.join(" and "))),
            (true, true) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_without_a_container_are_named_after_a_minute() {
        let glob = |text: &str| glob::Pattern::new(text).unwrap();
        let select = Select { include_names: vec![glob("web-*"), glob("db")], ..Select::default() };
        let mut names = Names::default();
        assert_eq!(names.unmatched(&select, u64::MAX), None, "nothing was listed yet");
        names.on_list(1_000);
        assert_eq!(names.unmatched(&select, 60_999), None);
        let text = |text: &str| format!("container_monitor.include_{text}");
        assert_eq!(names.unmatched(&select, 61_000), Some(Unmatched::All(text("names (web-*, db)"))));
        names.see(&select, "web-1", "nginx", None);
        assert_eq!(names.unmatched(&select, 61_000), Some(Unmatched::Some(text("names (db)"))));
        names.see(&select, "db", "nginx", None);
        assert_eq!(names.unmatched(&select, 61_000), None);
        assert_eq!(names.unmatched(&Select::default(), 61_000), None);
    }

    #[test]
    fn images_and_labels_are_told_too() {
        let glob = |text: &str| glob::Pattern::new(text).unwrap();
        let labels = [("tier", "web*"), ("team", "a")].map(|(key, value)| (key.to_owned(), glob(value)));
        let select = Select {
            include_images: vec![glob("nginx:*")],
            include_labels: labels.into(),
            ..Select::default()
        };
        let mut names = Names::default();
        names.on_list(0);
        let labels = BTreeMap::from([("tier".to_owned(), "web1".to_owned())]);
        names.see(&select, "one", "redis:7", Some(&labels));
        let all = "container_monitor.include_images (nginx:*) and container_monitor.include_labels (team: a)";
        assert_eq!(names.unmatched(&select, 60_000), Some(Unmatched::All(all.to_owned())));
        names.see(&select, "two", "nginx:1", None);
        let all = "container_monitor.include_labels (team: a)";
        assert_eq!(names.unmatched(&select, 60_000), Some(Unmatched::All(all.to_owned())));
    }
}
