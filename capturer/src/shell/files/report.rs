//! What a walk has to say of each pattern, for people: what it matches, and what it passes over and why.

use std::collections::BTreeMap;

use crate::telemetry::metrics::PassedOver;

/// Names that are kept of those passed over for one reason.
const NAMED_MAX: usize = 5;

/// Of one pattern.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatternReport {
    /// As the config has it.
    pub pattern: String,
    /// Files that it matches.
    pub matched: usize,
    /// What it comes to and does not follow.
    pub passed: BTreeMap<PassedOver, Named>,
}

/// How many, and which are the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// How many there are.
    pub count: usize,
    /// The first of them, each with what there is to add.
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
    /// A file is not followed.
    pub fn pass(&mut self, why: PassedOver, name: String) {
        self.passed.entry(why).or_default().add(name);
    }

    /// What another file system had to say of the same pattern.
    pub fn extend(&mut self, other: &PatternReport) {
        self.matched += other.matched;
        for (why, named) in &other.passed {
            self.passed.entry(*why).or_default().extend(named);
        }
    }
}

/// What to do about it, for those who wonder why a file is not followed.
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
