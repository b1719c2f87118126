//! Which lines belong together, as a pure rule: given the lines of a group so far, what is the next line?
//!
//! ```text
//! first line ─ begin ─▶ Group ─ next(line) ─▶ Goes: it continues the group
//!                                             Maybe: it does if a line that does comes soon, else it begins another one
//!                                             Blank: it ends the group and is left out, unless more of the group comes
//!                                             Ends: it begins another group
//! ```
//! Presets know the stack traces that runtimes print ([`super::traces`]). A trace joins a line of level warn or above
//! before it, because logging libraries print message and trace one after the other; any other line stays a record of
//! its own.
//!
//! Not here: holding lines, time and bounds (decode/multiline.rs).

use std::time::Duration;

use super::Pattern;
use super::traces::{self, State};
use crate::limits::MULTILINE_LOOK_BYTES;

/// Which lines are joined to one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Multiline {
    /// How it is seen which line begins a record.
    pub rule: MultilineRule,
    /// A group ends when nothing was added to it for this long.
    pub timeout: Duration,
    /// Most lines of a group.
    pub lines_max: usize,
    /// Most bytes of a group.
    pub bytes_max: u64,
}

/// The rule by which lines belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MultilineRule {
    /// Stack traces of a runtime.
    Preset(MultilinePreset),
    /// At least one is set. A line that matches `start` begins a group, whatever `continues` says.
    Patterns {
        /// Matches the first line of a group. Without `continues`, every other line continues the group.
        start: Option<Pattern>,
        /// Matches lines that continue a group. Without `start`, every other line begins one.
        continues: Option<Pattern>,
    },
}

/// The runtime whose stack traces are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum MultilinePreset {
    Java,
    Python,
    Go,
    Node,
    Dotnet,
    Ruby,
    Php,
    Rust,
    Postgres,
}

impl MultilinePreset {
    /// All of them, with their names.
    pub const NAMED: [(&str, MultilinePreset); 9] = [
        ("java", MultilinePreset::Java),
        ("python", MultilinePreset::Python),
        ("go", MultilinePreset::Go),
        ("node", MultilinePreset::Node),
        ("dotnet", MultilinePreset::Dotnet),
        ("ruby", MultilinePreset::Ruby),
        ("php", MultilinePreset::Php),
        ("rust", MultilinePreset::Rust),
        ("postgres", MultilinePreset::Postgres),
    ];
}

/// What the lines of an open group have been so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group(pub(super) State);

/// What a line does to an open group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It continues the group.
    Goes(Group),
    /// It continues the group if a later line does.
    Maybe(Group),
    /// An empty line behind a trace: part of it if more of it comes, otherwise the trace ends and the line is not
    /// shown.
    Blank(Group),
    /// It begins another group.
    Ends,
}

impl Multiline {
    /// Whether colours are ignored: runtimes print none, but programs that print traces may. A user's patterns may
    /// contain them.
    pub fn ignores_colours(&self) -> bool {
        matches!(self.rule, MultilineRule::Preset(_))
    }

    /// The group that begins with a line.
    pub fn begin(&self, line: &[u8]) -> Group {
        Group(match &self.rule {
            MultilineRule::Patterns { .. } => State::Plain,
            MultilineRule::Preset(preset) => traces::begin(*preset, beginning(line)),
        })
    }

    /// What the line does to the group.
    pub fn next(&self, group: Group, line: &[u8]) -> Next {
        let line = beginning(line);
        match &self.rule {
            MultilineRule::Patterns { start, continues } => {
                let begins = start.as_ref().is_some_and(|start| start.is_match(line));
                let goes_on = continues.as_ref().is_none_or(|continues| continues.is_match(line));
                if !begins && goes_on { Next::Goes(group) } else { Next::Ends }
            }
            MultilineRule::Preset(preset) => traces::next(*preset, group.0, line),
        }
    }
}

fn beginning(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    &line[..line.len().min(MULTILINE_LOOK_BYTES)]
}

#[cfg(test)]
#[path = "multiline_tests.rs"]
mod tests;
