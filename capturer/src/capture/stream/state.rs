//! The life of a stream.
//!
//! ```text
//!           Begin           Opened                 Gone                Drained
//!  Found ──────────▶ Opening ──────▶ Following ──────────▶ Draining ──────────▶ Closed
//!    │                ▲   │ Failed      │ Failed, Ended        ▲
//!    │          Retry │   ▼             ▼                      │ Gone
//!    │               Waiting ◀──────────┘ ─────────────────────┤
//!    └─────────────────────────────────────────────────────────┘
//! Rotate: Following ─▶ Opening. A planned reconnect; the position does not move.
//! ```
//! `Found` lasts until every sink has prepared the stream's output and a checkpoint with both is on disk: a crash
//! before that would leave lines in an output that no checkpoint knows. Only `Closed` may drop the stream's rows.

use thiserror::Error;

/// Where a stream is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Known; its outputs are being prepared.
    Found,
    /// A connection or the files are being opened.
    Opening,
    /// Lines are read as they come.
    Following,
    /// Nothing is under way until a deadline, a free slot, or the start of the container.
    Waiting,
    /// The source is gone; what is left is read and acknowledged.
    Draining,
    /// Nothing is left of it.
    Closed,
}

impl State {
    /// The name that people see.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Found => "found",
            State::Opening => "opening",
            State::Following => "following",
            State::Waiting => "waiting",
            State::Draining => "draining",
            State::Closed => "closed",
        }
    }
}

/// What happens to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Its outputs are ready.
    Begin,
    /// The connection or the files are open.
    Opened,
    /// Opening or reading failed.
    Failed,
    /// The source has no more for now.
    Ended,
    /// The wait is over: a pause after a failure, a turn among slots, a container that runs again, files to continue
    /// from.
    Retry,
    /// A planned reconnect.
    Rotate,
    /// The source is gone for good.
    Gone,
    /// Everything was read and acknowledged.
    Drained,
}

/// A change that the table does not have: a bug.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("a stream that is {} can't take the change {change:?}", from.as_str())]
pub struct BadChange {
    from: State,
    change: Change,
}

/// Looks up the table.
///
/// # Errors
/// [`BadChange`] for a pair that is not in it.
pub fn next(from: State, change: Change) -> Result<State, BadChange> {
    use Change::*;
    use State::*;
    match (from, change) {
        (Found, Begin) => Ok(Opening),
        (Opening, Opened) => Ok(Following),
        (Opening | Following, Failed | Ended) => Ok(Waiting),
        (Following, Rotate) => Ok(Opening),
        (Waiting, Retry) => Ok(Opening),
        (Found | Opening | Following | Waiting, Gone) => Ok(Draining),
        (Draining, Drained) => Ok(Closed),
        (from, change) => Err(BadChange { from, change }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole table as text, so that a forgotten case shows as a difference.
    #[test]
    fn the_table() {
        use Change::*;
        use State::*;
        let mut text = String::new();
        for from in [Found, Opening, Following, Waiting, Draining, Closed] {
            for change in [Begin, Opened, Failed, Ended, Retry, Rotate, Gone, Drained] {
                let to = next(from, change).map_or("-", State::as_str);
                text += &format!("{:<9} {:<7} {to}\n", from.as_str(), format!("{change:?}"));
            }
        }
        assert_eq!(text, include_str!("state_table.txt"));
    }
}
