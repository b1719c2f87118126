//! Which lines belong together, as a pure rule: given what the group's lines so far were, what is the next one to it?
//!
//! ```text
//! first line ─ begin ─▶ Group ─ next(line) ─▶ Goes: it continues the group
//!                                             Maybe: it does if a line that does comes soon, else it begins another one
//!                                             Blank: it ends the group and is left out, unless more of the group comes
//!                                             Ends: it begins another group
//! ```
//! Presets know the stack traces that runtimes print ([`super::traces`]). A trace joins a line of warn or above before it, for
//! logging libraries print message and trace one after the other; any other line is left alone.
//!
//! Not here: holding lines, time and bounds (decode/multiline.rs).

use std::time::Duration;

use super::Pattern;
use super::traces::{self, State};
use crate::limits::MULTILINE_LOOK_BYTES;

/// Which lines are one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Multiline {
    /// What belongs together.
    pub rule: MultilineRule,
    /// A group ends when nothing was added to it for this long.
    pub timeout: Duration,
    /// Most lines of a group.
    pub lines_max: usize,
    /// Most bytes of a group.
    pub bytes_max: u64,
}

/// What belongs together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MultilineRule {
    /// What a runtime prints.
    Preset(MultilinePreset),
    /// At least one is given. A line that matches `start` begins a group, whatever `continues` says.
    Patterns {
        /// Found in the first line of a group; alone, every other line continues.
        start: Option<Pattern>,
        /// Found in lines that continue a group; alone, every other line begins one.
        continues: Option<Pattern>,
    },
}

/// Whose stack traces.
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

/// What the lines of an open group were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group(pub(super) State);

/// What a line is to an open group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It continues the group.
    Goes(Group),
    /// It continues the group if a later line does.
    Maybe(Group),
    /// An empty line behind a trace: part of it if more of it comes, else its end, and not shown.
    Blank(Group),
    /// It begins another group.
    Ends,
}

impl Multiline {
    /// Colours of a line are not looked at: runtimes print none, what prints their traces may. Who gives patterns may mean them.
    pub fn ignores_colours(&self) -> bool {
        matches!(self.rule, MultilineRule::Preset(_))
    }

    /// The group that a line begins.
    pub fn begin(&self, line: &[u8]) -> Group {
        Group(match &self.rule {
            MultilineRule::Patterns { .. } => State::Plain,
            MultilineRule::Preset(preset) => traces::begin(*preset, beginning(line)),
        })
    }

    /// What the line is to the group.
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
