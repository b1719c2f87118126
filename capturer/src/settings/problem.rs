//! What is wrong with a config, and where: all of it at once, so that nobody has to fix one mistake after the other.
//!
//! A message shows text as the config has it, never the value of `${…}`, which may be a secret.

use std::fmt;
use std::sync::Arc;

use super::reload::NEEDS_RESTART;

/// Where a key or value was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigPlace {
    /// Nowhere: the key is missing, or has its default.
    Nowhere,
    /// In the config file.
    File {
        /// Line in the file, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
    },
    /// In a `--set` argument with this key.
    Set(Arc<str>),
}

/// Something that makes a config unusable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The place in the config.
    pub place: ConfigPlace,
    /// Dotted path of the key; empty if the problem is with no key.
    pub key: String,
    /// What is wrong, what was expected, how to fix it.
    pub message: String,
}

/// A config that can't be used.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The path of the file, or what was read instead.
    pub origin: String,
    /// At least one, in the order in which they are shown.
    pub problems: Vec<Problem>,
    /// The file exists, but this user may not read it.
    pub permission_denied: bool,
}

impl ConfigError {
    /// Sorts the problems by place.
    pub(super) fn new(origin: &str, mut problems: Vec<Problem>) -> ConfigError {
        problems.sort();
        problems.dedup();
        ConfigError { origin: origin.to_owned(), problems, permission_denied: false }
    }

    /// What the user of a running agent does about it.
    pub fn cure(&self) -> &'static str {
        let by_restart = self.problems.iter().filter(|problem| problem.message == NEEDS_RESTART).count();
        match by_restart {
            0 => "correct it until capturer check finds nothing, then systemctl reload capturer",
            all if all == self.problems.len() => {
                "restart the agent to use it (systemctl restart capturer), or put the old value back and reload"
            }
            _ => "correct it until capturer check finds nothing, then systemctl restart capturer",
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            problem.write(&self.origin, f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl Problem {
    fn write(&self, origin: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            ConfigPlace::Nowhere => write!(f, "{origin}")?,
            ConfigPlace::File { line, column } => write!(f, "{origin}:{line}:{column}")?,
            ConfigPlace::Set(key) => write!(f, "--set {}", shown(key))?,
        }
        let said = matches!(&self.place, ConfigPlace::Set(key) if **key == *self.key);
        if !said && !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Text from the config for a message: quoted, shortened, with control characters escaped.
pub(super) fn quoted(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    let text = &without_password(text);
    let short: String = text.chars().take(CHARS_MAX).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("\"{}{more}\"", crate::text::terminal::shown(&short))
}

/// An address without a user and password in it, whatever else is wrong with it.
fn without_password(text: &str) -> String {
    let from = text.find("://").map_or(0, |at| at + 3);
    match text.rfind('@') {
        Some(to) if to >= from && (from > 0 || text[..to].contains(':')) => {
            format!("{}…{}", &text[..from], &text[to..])
        }
        _ => text.to_owned(),
    }
}

/// A key as the user wrote it. A hostile one is quoted, so that it can't forge a line of the message.
pub(super) fn shown(name: &str) -> String {
    let plain = !name.is_empty()
        && name.len() <= 60
        && name.chars().all(|c| c.is_alphanumeric() || "_-.".contains(c));
    if plain { name.to_owned() } else { quoted(name) }
}

/// `; did you mean …?` with the nearest known word if one is near enough, otherwise nothing.
pub(super) fn did_you_mean<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    nearest(word, known).map(|candidate| format!("; did you mean {candidate}?")).unwrap_or_default()
}

/// The nearest known word, if one is near enough.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    known
        .map(|candidate| (strsim::damerau_levenshtein(&lower, candidate), candidate))
        // A third of the letters may differ: `intervall`, `max_concurent`, `directroy`, but not `foo` for `format`.
        .filter(|(distance, candidate)| distance * 3 <= candidate.chars().count())
        .min()
        .map(|(_, candidate)| candidate)
}
