//! Many sources, one cause: if the logs of two hundred containers can't be read, that is one fault with one cure, and
//! the log must show it so. The first line of a cause is written at once. Those that follow within [`WINDOW_MS`], from
//! any source, become one line with their number and the first names. Pure.
//!
//! A line belongs to a source if it names one in a field ([`super::line::WHO`]). Two lines have the same cause if they
//! come from the same place in the code and differ only in names and numbers. Not here: lines without a source
//! (`limit`).

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash as _, Hasher as _};

use tracing::callsite::Identifier;

use super::limit::WINDOW_MS;
use super::line::LogLine;

/// So many causes are known at once; beyond that, lines are limited by their place in the code alone.
const CAUSES_MAX: usize = 256;
/// How many sources the one line names.
const NAMED_MAX: usize = 3;
/// So many sources are told apart; further ones are not counted.
const SOURCES_MAX: usize = 20_000;

/// Holds back lines of the same cause; see the head of this file.
#[derive(Default)]
pub(super) struct Gatherer {
    causes: HashMap<(Identifier, String), Group>,
    /// How many causes hold back lines, so that the usual case looks at none.
    holding: usize,
}

struct Group {
    began_ms: u64,
    /// How many lines were held back.
    lines: u64,
    names: Vec<String>,
    sources: HashSet<u64>,
    /// The line for all of them.
    line: LogLine,
}

impl Group {
    fn note(&mut self, name: &str) {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let is_new = self.sources.len() < SOURCES_MAX && self.sources.insert(hasher.finish());
        if is_new && self.names.len() < NAMED_MAX {
            self.names.push(name.to_owned());
        }
    }

    fn line(&self) -> LogLine {
        let (sources, seconds) = (self.sources.len(), WINDOW_MS / 1000);
        let more = sources.saturating_sub(self.names.len());
        let names = self.names.join(", ");
        let others = match more {
            0 => String::new(),
            1 => " and 1 other".to_owned(),
            more => format!(" and {more} others"),
        };
        let head = match (sources, self.lines) {
            (1, 1) => format!("{names}, up to {seconds} s ago"),
            (1, lines) => format!("{names} {lines} more times within {seconds} s"),
            _ => format!("{sources} sources within {seconds} s ({names}{others})"),
        };
        self.line.saying(format!("{head}: {}", self.line.message))
    }
}

impl Gatherer {
    /// Whether the line is held back to be written with others.
    pub(super) fn holds(&mut self, place: Identifier, line: &LogLine, now_ms: u64) -> bool {
        let Some(name) = line.who() else { return false };
        let cause = line.cause();
        let key = (place, cause.key);
        if let Some(group) = self.causes.get_mut(&key)
            && (group.lines > 0 || now_ms.saturating_sub(group.began_ms) < WINDOW_MS)
        {
            group.note(name);
            group.lines += 1;
            self.holding += usize::from(group.lines == 1);
            return true;
        }
        // Lines that are held back remain until `due` takes them.
        self.causes.retain(|_, group| group.lines > 0 || now_ms.saturating_sub(group.began_ms) < WINDOW_MS);
        if self.causes.len() < CAUSES_MAX {
            let line = line.without_who(cause.message);
            let mut group =
                Group { began_ms: now_ms, lines: 0, names: Vec::new(), sources: HashSet::new(), line };
            group.note(name);
            self.causes.insert(key, group);
        }
        false
    }

    /// One line for each cause whose window is over. Later lines of the cause are held back again.
    pub(super) fn due(&mut self, now_ms: u64) -> Vec<LogLine> {
        if self.holding == 0 {
            return Vec::new();
        }
        let is_over = |group: &Group| group.lines > 0 && now_ms.saturating_sub(group.began_ms) >= WINDOW_MS;
        let mut due = Vec::new();
        for group in self.causes.values_mut().filter(|group| is_over(group)) {
            due.push((group.began_ms, group.line()));
            *group = Group {
                began_ms: now_ms,
                lines: 0,
                names: Vec::new(),
                sources: HashSet::new(),
                line: group.line.saying(group.line.message.clone()),
            };
        }
        self.holding -= due.len();
        due.sort_by_key(|(began_ms, _)| *began_ms);
        due.into_iter().map(|(_, line)| line).collect()
    }

    /// Whether any line is held back.
    pub(super) fn is_holding(&self) -> bool {
        self.holding > 0
    }
}
