//! What a step of a pipeline did to a line, as metrics count it.

use std::collections::BTreeMap;

/// What happened to a line in a step, as metrics count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It goes no further.
    Dropped,
    /// The step could not do its work; the line goes on, marked.
    Failed,
    /// It is another than before.
    Changed,
    /// It was not quite in the format: something in it was read as another text.
    Mended,
    /// A bound bit: fields or labels that were too many, a time out of bounds, a line that cost too much.
    Limited,
}

impl Outcome {
    /// As it stands in a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Dropped => "dropped",
            Outcome::Failed => "failed",
            Outcome::Changed => "changed",
            Outcome::Mended => "mended",
            Outcome::Limited => "limited",
        }
    }

    /// What can happen in a step of this kind.
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

/// Name of the step that comes before all others.
pub const RATE_LIMIT: &str = "rate_limit";

/// Lines by step and outcome.
pub type Tally = BTreeMap<(&'static str, Outcome), u64>;
