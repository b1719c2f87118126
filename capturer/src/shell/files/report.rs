//! What a walk reports for each pattern, for people: what it matches, and what it passes over and why.

use std::collections::BTreeMap;

use crate::settings::path_pattern::advice;
use crate::telemetry::metrics::PassedOver;

/// How many names are kept of those passed over for the same reason.
const NAMED_MAX: usize = 5;

/// The report for one pattern.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatternReport {
    /// The pattern as the config has it.
    pub pattern: String,
    /// How many files it matches.
    pub matched: usize,
    /// What it matches but does not follow.
    pub passed: BTreeMap<PassedOver, Named>,
    /// What its first names do not lead to.
    pub missing: Option<String>,
}

/// A number, and the first names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// How many there are.
    pub count: usize,
    /// The first names, each with details if there are any.
    pub first: Vec<String>,
}

impl Named {
    fn add(&mut self, name: String) {
        self.count += 1;
        if self.first.len() < NAMED_MAX {
            self.first.push(name);
        }
    }

    fn extend(&mut self, other: &Named) {
        self.count += other.count;
        let room = NAMED_MAX - self.first.len().min(NAMED_MAX);
        self.first.extend(other.first.iter().take(room).cloned());
    }
}

impl PatternReport {
    /// Notes a file that is not followed.
    pub fn pass(&mut self, why: PassedOver, name: String) {
        self.passed.entry(why).or_default().add(name);
    }

    /// Adds the report of another file system for the same pattern.
    pub fn extend(&mut self, other: &PatternReport) {
        self.matched += other.matched;
        for (why, named) in &other.passed {
            self.passed.entry(*why).or_default().extend(named);
        }
        if self.missing.is_none() {
            self.missing.clone_from(&other.missing);
        }
    }

    /// Why it matches nothing, as far as its names tell.
    pub fn nothing(&self) -> Option<String> {
        let parts: Vec<String> = self.missing.iter().cloned().chain(advice(&self.pattern)).collect();
        (!parts.is_empty()).then(|| parts.join(", and "))
    }

    /// The pattern, which matches nothing, and what it comes to instead.
    pub fn explain(&self, pattern: &str) -> String {
        let passed = self.passed.iter().map(|(why, named)| match (named.count, named.first.first()) {
            (1, Some(name)) => format!("{name} is {}", of_path(*why, name)),
            (count, first) => {
                let names = first.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
                format!("{count} paths such as {names} are skipped: {}", cure(*why))
            }
        });
        let parts: Vec<String> = passed.chain(self.nothing()).collect();
        match self.passed.iter().next().filter(|_| self.is_of_named(pattern)) {
            Some((why, _)) => format!("{pattern} is {}", of_path(*why, pattern)),
            None if parts.is_empty() => pattern.to_owned(),
            None => format!("{pattern} ({})", parts.join(", ")),
        }
    }

    /// The pattern is a path, and what stands there is a directory, pipe or such: it will be no file in a minute either.
    pub fn is_of_named(&self, pattern: &str) -> bool {
        let lasting = [PassedOver::Directory, PassedOver::Special];
        let mut passed = self.passed.iter();
        passed.any(|(why, named)| lasting.contains(why) && named.first.iter().any(|name| name == pattern))
    }
}

/// What is said of one path, with its own name in what to write instead.
fn of_path(why: PassedOver, path: &str) -> String {
    let directory = path.trim_end_matches('/');
    match why {
        PassedOver::Directory => {
            format!("a directory: write {directory}/* for its files, or {directory}/** for all below it")
        }
        why => cure(why).to_owned(),
    }
}

/// What to do about it, for whoever wonders why a file is not followed.
pub fn cure(why: PassedOver) -> &'static str {
    match why {
        PassedOver::Directory => {
            "a directory: write DIRECTORY/* for its files, or DIRECTORY/** for all beneath it"
        }
        PassedOver::Link => "a symbolic link that a pattern found: name it, or set follow_links: true",
        PassedOver::Dangling => "a link to nothing: it is followed when its target is there",
        PassedOver::LinkLoop => "a link that loops: let it lead to a file or a directory",
        PassedOver::OutOfRoots => "a link that leads outside the allowed directories (roots)",
        PassedOver::Special => "a socket, pipe or device, not a regular file",
        PassedOver::Own => "what the agent itself writes",
        PassedOver::Excluded => "left out by exclude",
        PassedOver::Hidden => "hidden: only a pattern that spells out the dot matches it, such as .*",
        PassedOver::Archive => {
            "an archive that is not read: only .gz is, with its log beside it. Let logrotate pack with gzip, or one rotation \
             later (delaycompress); unpack this one to have it read"
        }
        PassedOver::Older => {
            "older than ignore_older: unless they were read before, only what is added from now on is read"
        }
        PassedOver::Rotated => "a rotated file of a followed log: it is read together with that log",
        PassedOver::Denied => "may not be read by this user",
        PassedOver::Binary => {
            "not text in UTF-8: set encoding (latin1, utf-16le, …) if it is text in another"
        }
    }
}
