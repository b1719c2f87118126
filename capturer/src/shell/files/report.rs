//! What a walk reports for each pattern, for people: what it matches, and what it passes over and why.

use std::collections::BTreeMap;

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
        PassedOver::LinkLoop => "a link that loops",
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
