//! What a step of a pipeline did to a line, as metrics count it.

use std::collections::BTreeMap;

/// What a step did to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The line goes no further.
    Dropped,
    /// The step could not do its work; the line goes on, marked.
    Failed,
    /// The step changed the line.
    Changed,
    /// The line was not quite in the format: part of it was read as other text.
    Mended,
    /// A bound applied: too many fields or labels, a time out of bounds, a line that took too much work.
    Limited,
}

impl Outcome {
    /// The value of the metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Dropped => "dropped",
            Outcome::Failed => "failed",
            Outcome::Changed => "changed",
            Outcome::Mended => "mended",
            Outcome::Limited => "limited",
        }
    }

    /// The outcomes that a step of this kind can have.
    pub fn possible(step: &str) -> &'static [Outcome] {
        match step {
            "parse" => &[Outcome::Failed, Outcome::Changed, Outcome::Mended, Outcome::Limited],
            "timestamp" => &[Outcome::Dropped, Outcome::Failed, Outcome::Changed, Outcome::Limited],
            "strip_ansi" | "remove" => &[Outcome::Changed],
            "rename" => &[Outcome::Failed, Outcome::Changed, Outcome::Limited],
            "redact" | "labels" => &[Outcome::Changed, Outcome::Limited],
            _ => &[Outcome::Dropped],
        }
    }
}

/// The step that comes before all others.
pub const RATE_LIMIT: &str = "rate_limit";

/// Lines by step and outcome.
pub type Tally = BTreeMap<(&'static str, Outcome), u64>;
