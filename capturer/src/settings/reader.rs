//! Takes typed values out of the tree, section by section. Every key that is asked for becomes a known key, so the
//! strict check, its suggestions and the list of all keys need no second list. A wrong value is reported and its
//! default stays, so one pass finds all problems.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::problem::{ConfigPlace, Problem, did_you_mean, nearest, quoted, shown};
use super::substitute::{Outside, substitute};
use super::units::{self, Mismatch};
use super::yaml::{Key, Node, Value};

/// Sections at the top of other agents' configs.
const OTHER_AGENTS: [(&str, &str); 13] = [
    ("Promtail", "scrape_configs"),
    ("Promtail", "clients"),
    ("Promtail", "client"),
    ("Promtail", "server"),
    ("Promtail", "positions"),
    ("Promtail", "limits_config"),
    ("Promtail", "target_config"),
    ("Vector", "sources"),
    ("Vector", "transforms"),
    ("Vector", "api"),
    ("Fluent Bit", "service"),
    ("Fluent Bit", "pipeline"),
    ("Fluent Bit", "parsers"),
];

/// A message names so many keys of a section.
const KEYS_NAMED_MAX: usize = 6;

/// What one pass over the tree has found.
pub(super) struct Reader<'a> {
    outside: &'a Outside<'a>,
    problems: RefCell<Vec<Problem>>,
    /// Path → place of the value, for keys in the config.
    places: RefCell<BTreeMap<String, ConfigPlace>>,
    /// Paths of all known keys; `[]` for items of a list.
    known: RefCell<BTreeSet<String>>,
    unknown: RefCell<Vec<Unknown>>,
}

struct Unknown {
    place: ConfigPlace,
    section: String,
    name: String,
    siblings: Vec<&'static str>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(outside: &'a Outside<'a>) -> Reader<'a> {
        Reader {
            outside,
            problems: RefCell::default(),
            places: RefCell::default(),
            known: RefCell::default(),
            unknown: RefCell::default(),
        }
    }

    /// Reads the whole tree.
    pub(super) fn root(&self, node: &Node, read: impl FnOnce(&mut Section)) {
        self.section(Some(node), String::new(), String::new(), read);
    }

    /// Reports a problem with the key at `path`, wherever the key is.
    pub(super) fn problem(&self, path: &str, message: impl Into<String>) {
        let place = self.places.borrow().get(path).cloned().unwrap_or(ConfigPlace::Nowhere);
        self.problem_at(place, path, message);
    }

    /// No problem with a known key so far.
    pub(super) fn is_content(&self) -> bool {
        self.problems.borrow().is_empty() && self.unknown.borrow().is_empty()
    }

    /// Whether something within this section is wrong already.
    pub(super) fn has_problem_in(&self, section: &str) -> bool {
        self.problems.borrow().iter().any(|problem| problem.key.starts_with(section))
    }

    /// All problems, at the end of the pass.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let unknown = self.unknown.take();
        // A key that is missing because it is misspelt is one mistake.
        let places = self.places.borrow();
        self.problems.borrow_mut().retain(|problem| {
            let is_meant = |unknown: &Unknown| {
                let near = nearest(&unknown.name, unknown.siblings.iter().copied());
                near.is_some_and(|near| problem.key == join(&unknown.section, near))
            };
            places.contains_key(&problem.key) || !unknown.iter().any(is_meant)
        });
        drop(places);
        for unknown in unknown {
            let path = join(&unknown.section, &shown(&unknown.name));
            self.problem_at(unknown.place.clone(), &path, self.explain(&unknown));
        }
        self.problems.into_inner()
    }

    /// All known keys, with their sections.
    #[cfg(test)]
    pub(super) fn known(&self) -> BTreeSet<String> {
        self.known.borrow().clone()
    }

    /// Paths of the keys in the config.
    #[cfg(test)]
    pub(super) fn given(&self) -> BTreeSet<String> {
        self.places.borrow().keys().cloned().collect()
    }

    fn explain(&self, unknown: &Unknown) -> String {
        let near = did_you_mean(&unknown.name, unknown.siblings.iter().copied());
        if !near.is_empty() {
            return format!("unknown key{near}");
        }
        let foreign = OTHER_AGENTS.iter().find(|(_, key)| unknown.section.is_empty() && *key == unknown.name);
        if let Some((agent, _)) = foreign {
            return format!("unknown key; {agent} has it: docs/migrate.md shows what to write instead");
        }
        // `socket` for `socket_path`.
        let longer =
            |key: &&&str| key.strip_prefix(unknown.name.as_str()).is_some_and(|rest| rest.starts_with('_'));
        if let Some(longer) = unknown.siblings.iter().find(longer) {
            return format!("unknown key; did you mean {longer}?");
        }
        let suffix = format!(".{}", unknown.name);
        let known = self.known.borrow();
        let here = unknown.siblings.join(", ");
        match known.iter().find(|path| path.ends_with(&suffix) || **path == unknown.name) {
            Some(below) if below.starts_with(&unknown.section) => {
                // `file` for `local_file`, which has a `file`.
                let above = below.strip_suffix(&suffix).unwrap_or(below);
                let is_meant = above.rsplit('_').next() == Some(&unknown.name);
                format!("unknown key; did you mean {}?", if is_meant { above } else { below })
            }
            Some(elsewhere) => format!("unknown key; did you mean {elsewhere}? Known here: {here}"),
            None => format!("unknown key; known here: {here}"),
        }
    }

    fn problem_at(&self, place: ConfigPlace, path: &str, message: impl Into<String>) {
        self.problems.borrow_mut().push(Problem { place, key: path.to_owned(), message: message.into() });
    }

    fn section(
        &self,
        node: Option<&Node>,
        path: String,
        known_path: String,
        read: impl FnOnce(&mut Section),
    ) {
        let (entries, odd): (&[(Key, Node)], _) = match node.map(|node| &node.value) {
            Some(Value::Map(entries)) => (entries, None),
            None | Some(Value::Null) => (&[], None),
            Some(_) => (&[], node),
        };
        let (given, is_odd) = (node.is_some(), odd.is_some());
        let mut section =
            Section { reader: self, path, known_path, entries, given, is_odd, known: Vec::new() };
        read(&mut section);
        if let Some(node) = odd {
            let message =
                format!("expected a section with keys, found {}{}", node.describe(), section.instead(node));
            self.problem_at(node.place.clone(), &section.path, message);
        }
        section.finish();
    }

    /// Parses a scalar after substitution, and reports what is wrong with it.
    fn parse<T>(&self, node: &Node, path: &str, parse: impl Fn(&str) -> Result<T, Mismatch>) -> Option<T> {
        match self.parse_quietly(node, parse) {
            Ok(value) => Some(value),
            Err(message) => {
                self.problem_at(node.place.clone(), path, message);
                None
            }
        }
    }

    fn parse_quietly<T>(
        &self,
        node: &Node,
        parse: impl Fn(&str) -> Result<T, Mismatch>,
    ) -> Result<T, String> {
        let Value::Scalar(written) = &node.value else {
            let expected = parse("").err().map_or("text".to_owned(), |mismatch| mismatch.expected);
            return Err(format!("expected {expected}, found {}", node.describe()));
        };
        let text = substitute(written, self.outside)?;
        parse(&text.value).map_err(|mismatch| {
            let found = match mismatch.is_secret && !text.substituted {
                true => format!("{} characters, which are not shown", written.chars().count()),
                false => quoted(written),
            };
            match (text.substituted, mismatch.hint.as_str()) {
                (true, hint) if mismatch.is_secret => {
                    let count = text.value.chars().count();
                    let hint = if hint.is_empty() { String::new() } else { format!("; {hint}") };
                    format!("expected {}, but {found} stands for {count} characters{hint}", mismatch.expected)
                }
                // The hint may quote a secret.
                (true, _) => format!("expected {}, but {found} stands for something else", mismatch.expected),
                (false, "") => format!("expected {}, found {found}", mismatch.expected),
                (false, hint) => format!("expected {}, found {found}; {hint}", mismatch.expected),
            }
        })
    }
}

/// One section of the config while it is being read.
pub(super) struct Section<'a> {
    reader: &'a Reader<'a>,
    path: String,
    known_path: String,
    entries: &'a [(Key, Node)],
    /// The section is in the config, even if empty.
    given: bool,
    /// Something other than a section is in its place, which is reported.
    is_odd: bool,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// A section within this one. Missing and empty ones are read too, so that all their keys get defaults.
    pub(super) fn section(&mut self, name: &'static str, read: impl FnOnce(&mut Section)) {
        let node = self.take(name);
        self.reader.section(node, join(&self.path, name), join(&self.known_path, name), read);
    }

    /// A list of sections.
    pub(super) fn sections(&mut self, name: &'static str, mut read: impl FnMut(&mut Section)) {
        let Some(node) = self.take(name) else { return };
        let (path, known_path) = (join(&self.path, name), format!("{}[]", join(&self.known_path, name)));
        for (index, item) in self.items(node, &path, "sections").iter().enumerate() {
            self.reader.places.borrow_mut().insert(format!("{path}[{index}]"), item.place.clone());
            self.reader.section(Some(item), format!("{path}[{index}]"), known_path.clone(), &mut read);
        }
    }

    /// Any value that is a scalar.
    pub(super) fn read<T>(
        &mut self,
        name: &'static str,
        into: &mut T,
        parse: impl Fn(&str) -> Result<T, Mismatch>,
    ) {
        let Some(node) = self.take(name) else { return };
        if let Some(value) = self.reader.parse(node, &join(&self.path, name), parse) {
            *into = value;
        }
    }

    /// A password or token. Written as "" there is none. One that `${…}` made empty counts as missing, because
    /// continuing without it would open what it protects.
    pub(super) fn secret(
        &mut self,
        name: &'static str,
        into: &mut String,
        parse: impl Fn(&str) -> Result<String, Mismatch>,
    ) {
        let Some(node) = self.take(name) else { return };
        let is_written = !matches!(&node.value, Value::Scalar(written) if written.is_empty());
        let parse = |text: &str| {
            if is_written && text.is_empty() {
                return Err(Mismatch::new("a secret, or \"\" where none is meant").secret());
            }
            parse(text)
        };
        if let Some(value) = self.reader.parse(node, &join(&self.path, name), parse) {
            *into = value;
        }
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, name: &'static str, into: &mut bool) {
        self.read(name, into, units::flag);
    }

    /// A duration within bounds.
    pub(super) fn duration(
        &mut self,
        name: &'static str,
        range: RangeInclusive<Duration>,
        into: &mut Duration,
    ) {
        self.read(name, into, bounded(units::duration, range, units::show_duration));
    }

    /// A size in bytes within bounds.
    pub(super) fn size(&mut self, name: &'static str, range: RangeInclusive<u64>, into: &mut u64) {
        self.read(name, into, bounded(units::size, range, units::show_size));
    }

    /// A whole number within bounds.
    pub(super) fn count(&mut self, name: &'static str, range: RangeInclusive<usize>, into: &mut usize) {
        self.read(name, into, bounded(units::count, range, |count| count.to_string()));
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, name: &'static str, words: &[(&str, T)], into: &mut T) {
        self.read(name, into, |text| {
            words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
                let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                let hint = did_you_mean(text, all.iter().copied());
                let hint = hint.trim_start_matches("; ").to_owned();
                Mismatch { expected: format!("one of {}", all.join(", ")), hint, is_secret: false }
            })
        });
    }

    /// A list of values.
    pub(super) fn list<T>(
        &mut self,
        name: &'static str,
        into: &mut Vec<T>,
        parse: impl Fn(&str) -> Result<T, Mismatch>,
    ) {
        let Some(node) = self.take(name) else { return };
        let path = join(&self.path, name);
        let items = self.items(node, &path, "values").iter().enumerate();
        *into = items
            .filter_map(|(index, item)| self.reader.parse(item, &format!("{path}[{index}]"), &parse))
            .collect();
    }

    /// A section whose keys the user chooses.
    pub(super) fn map<T>(
        &mut self,
        name: &'static str,
        into: &mut BTreeMap<String, T>,
        parse: impl Fn(&str) -> Result<T, Mismatch>,
    ) {
        let Some(node) = self.take(name) else { return };
        let path = join(&self.path, name);
        into.clear();
        match &node.value {
            Value::Null => {}
            Value::Map(entries) => {
                for (key, value) in entries {
                    let path = format!("{path}[{}]", quoted(&key.name));
                    if let Some(value) = self.reader.parse(value, &path, &parse) {
                        into.insert(key.name.clone(), value);
                    }
                }
            }
            _ => {
                let message =
                    format!("expected keys with values, found {}{}", node.describe(), as_keys(node));
                self.reader.problem_at(node.place.clone(), &path, message);
            }
        }
    }

    /// Whether the section is in the config, even if empty.
    pub(super) fn is_given(&self) -> bool {
        self.given
    }

    /// Whether every key in this section is known so far. Unknown ones are reported at the end.
    pub(super) fn has_only_known(&self) -> bool {
        self.entries.iter().all(|(key, _)| self.known.contains(&key.name.as_str()))
    }

    /// Whether a problem with a key of this section was reported.
    pub(super) fn has_problem(&self, name: &str) -> bool {
        let path = join(&self.path, name);
        self.reader.problems.borrow().iter().any(|problem| problem.key.starts_with(&path))
    }

    /// Reports a problem with a key of this section. If the key is missing, or the problem is with the section itself
    /// (`""`), the place is that of the section's first key.
    pub(super) fn problem(&self, name: &str, message: impl Into<String>) {
        // What is missing in it follows from that.
        if self.is_odd {
            return;
        }
        let path = if name.is_empty() { self.path.clone() } else { join(&self.path, name) };
        let given = self.reader.places.borrow().contains_key(&path);
        if given {
            return self.reader.problem(&path, message);
        }
        let own = || self.reader.places.borrow().get(&self.path).cloned();
        let place = self.entries.first().map(|(first, _)| first.place.clone()).or_else(own);
        self.reader.problem_at(place.unwrap_or(ConfigPlace::Nowhere), &path, message);
    }

    fn items<'n>(&self, node: &'n Node, path: &str, of: &str) -> &'n [Node] {
        match &node.value {
            Value::List(items) => items,
            Value::Null => &[],
            _ => {
                let instead = match (&node.value, of) {
                    (Value::Scalar(text), "values") => format!("; write [{}]", quoted(text)),
                    (Value::Map(_), "sections") => "; write - before its first key".to_owned(),
                    _ => format!("; write - before each of its {of}"),
                };
                let message = format!("expected a list of {of}, found {}{instead}", node.describe());
                self.reader.problem_at(node.place.clone(), path, message);
                &[]
            }
        }
    }

    fn take(&mut self, name: &'static str) -> Option<&'a Node> {
        self.known.push(name);
        self.reader.known.borrow_mut().insert(join(&self.known_path, name));
        let (_, node) = self.entries.iter().find(|(key, _)| key.name == name)?;
        self.reader.places.borrow_mut().insert(join(&self.path, name), node.place.clone());
        Some(node)
    }

    /// What to write where this section should be and something else is.
    fn instead(&self, node: &Node) -> String {
        let keys = self.known.iter().take(KEYS_NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
        let more = if self.known.len() > KEYS_NAMED_MAX { ", …" } else { "" };
        let name = self.path.rsplit('.').next().unwrap_or_default();
        match &node.value {
            Value::Scalar(text)
                if matches!(text.as_str(), "true" | "false") && self.known.contains(&"enabled") =>
            {
                format!("; write {name}: {{enabled: {text}}}")
            }
            Value::List(_) if !self.path.is_empty() => {
                format!("; write its keys without - or []: {keys}{more}")
            }
            _ => format!("; its keys are {keys}{more}"),
        }
    }

    fn finish(self) {
        for (key, _) in self.entries.iter().filter(|(key, _)| !self.known.contains(&key.name.as_str())) {
            self.reader.unknown.borrow_mut().push(Unknown {
                place: key.place.clone(),
                section: self.path.clone(),
                name: key.name.clone(),
                siblings: self.known.clone(),
            });
        }
    }
}

/// What to write where keys with values should be: `[a=b]` is meant as `{a: "b"}`. Values may be secret.
fn as_keys(node: &Node) -> String {
    let first = match &node.value {
        Value::List(items) => items.first().map(|item| &item.value),
        value => Some(value),
    };
    match first {
        Some(Value::Scalar(text)) => {
            let key = text.split_once(['=', ':']).map(|(key, _)| key).filter(|key| !key.is_empty());
            format!("; write {{{}: \"VALUE\"}}", key.map_or_else(|| "KEY".to_owned(), shown))
        }
        Some(Value::Map(_)) => "; write its keys without -".to_owned(),
        _ => "; write {KEY: \"VALUE\"}".to_owned(),
    }
}

fn bounded<T: PartialOrd + Copy>(
    parse: impl Fn(&str) -> Result<T, Mismatch>,
    range: RangeInclusive<T>,
    show: impl Fn(T) -> String,
) -> impl Fn(&str) -> Result<T, Mismatch> {
    move |text| {
        let value = parse(text)?;
        if range.contains(&value) {
            return Ok(value);
        }
        Err(Mismatch::new(format!("{} to {}", show(*range.start()), show(*range.end()))))
    }
}

fn join(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}
