//! A random walk: what can happen to log files, an agent and its outputs, in random order, against a model.
//!
//! ```text
//! seed ─▶ generate ─▶ Walk (a setup and a list of actions, which can be written as one line of text)
//!                       │
//!                     stage: logs on a real disk, the agent's binary, its outputs
//!                       │
//!                     ledger: every line that was written, and what has to become of it ─▶ Fault or none
//!                       │
//!                     shrink: the fewest actions that still show the fault
//! ```
//! The model is small because the lines say what they are (`t012.0034.…`: content, number, filler) and because what must
//! arrive is read from the disk itself: a line has to arrive once it stands in a file in the agent's sight while the agent
//! has time to look. The walk gives it that time with `settle`, which waits until everything in sight has arrived. What is
//! destroyed without that may be missing, but then the agent must have declared a loss.
//!
//! An action that can't be done where the walk stands is left out, so that any part of a list is a list too: that is what
//! makes shrinking simple.
//!
//! Deliberately not here: the agent's inside. What it must do follows from its documents: which names are rotated files of
//! which log stands in [`names`].

pub mod action;
pub mod generate;
pub mod ledger;
pub mod line;
pub mod logs;
pub mod many;
pub mod names;
pub mod output;
pub mod shrink;
pub mod stage;
pub mod watched;

pub use action::{Action, Setup, Walk};
pub use ledger::{Fault, Kind};
