//! Many sources, one cause: two hundred containers whose logs can't be read are one fault with one cure, and whoever
//! opens the log must see that. The first line of a cause is written at once; those that follow within [`WINDOW_MS`], of
//! whatever source, become one with their number and the first names. Pure.
//!
//! A line is of a source if it names one in a field ([`super::line::WHO`]), and two have one cause if they come from one
//! place in the code and say the same but for names and numbers. Not here: lines without a source (`limit`).

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash as _, Hasher as _};

use tracing::callsite::Identifier;

use super::limit::WINDOW_MS;
use super::line::LogLine;

/// Causes that are known at once; past it, lines are limited by their place alone.
const CAUSES_MAX: usize = 256;
/// Sources that the one line names.
const NAMED_MAX: usize = 3;
/// Sources that are told apart; past it they are no longer counted.
const SOURCES_MAX: usize = 20_000;

/// See the module's head.
#[derive(Default)]
pub(super) struct Gatherer {
    causes: HashMap<(Identifier, String), Group>,
    /// Causes with lines that were kept back, so that the usual case looks at none.
    holding: usize,
}

struct Group {
    began_ms: u64,
    /// Kept back.
    lines: u64,
    names: Vec<String>,
    sources: HashSet<u64>,
    /// What is said for all.
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
    /// Whether the line is kept back, to be told with others.
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
        // Whatever is held back is told by `due`.
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

    /// One line for each cause whose window is over by then. What comes next of it is kept back again.
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

    /// Whether anything is kept back.
    pub(super) fn is_holding(&self) -> bool {
        self.holding > 0
    }
}
