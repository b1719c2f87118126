//! Folds repeated lines: the first of a run passes at once; of the others only the last passes, with their number.
//!
//! ```text
//! a  a  a  a  b        a at once; the next three are held back: the last of them goes on before b, as "repeated": 3
//! a  a  b              the same, but the second a stands for itself alone, and no number is written
//! ```
//! Lines are equal if text, fields, labels and marks are. The field that gave a line its time is not compared, and
//! neither is the time. Everything but the text is compared by a hash: most lines begin a run, and none of them should
//! cost a copy.
//!
//! One line per channel is held in memory. It also passes when its stream ends and when the agent stops. A crash only
//! loses the number, because the line itself passed when the run began.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::time::Duration;

use super::line::Line;
use crate::model::fields::{Extra, Failed, Value};
use crate::model::record::Record;
use crate::settings::pipeline::{Pipeline, Step};

/// A line that outlives its batch.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) record: Record,
    pub(super) message: Vec<u8>,
    pub(super) time: Vec<u8>,
    pub(super) extra: Extra,
}

/// The last line of each channel.
#[derive(Debug, Default)]
pub(super) struct Dedup {
    runs: [Run; 2],
    /// Fields that the pipeline's timestamp steps read.
    times: Vec<String>,
    /// Seeded per stream, so that nobody can write lines that pass for others.
    hash: RandomState,
}

/// Equal lines in a row.
#[derive(Debug, Default)]
struct Run {
    /// Their text; `None` = there was no line yet.
    text: Option<Vec<u8>>,
    /// Hash of their fields, labels and marks.
    extra_hash: u64,
    /// When the run, or its last part, began.
    since_ns: i64,
    /// The last of the lines that were held back.
    last: Option<Kept>,
    /// How many were held back.
    count: u64,
}

/// What to do with a line.
#[derive(Debug)]
pub(super) enum Repeat {
    /// Hold the line, and drop one that was held before it.
    Held {
        /// Whether another line was held before.
        and_dropped: bool,
    },
    /// Let the line pass, behind the one that was held.
    First {
        /// The held line of the previous run.
        before: Option<Kept>,
    },
}

impl Dedup {
    pub(super) fn new(pipeline: &Pipeline) -> Dedup {
        let times = pipeline.steps.iter().filter_map(|step| match step.inner() {
            Step::Timestamp(settings) => Some(settings.field.clone()),
            _ => None,
        });
        Dedup { times: times.collect(), ..Dedup::default() }
    }

    fn hash_of(&self, extra: &Extra) -> u64 {
        let mut hash = self.hash.build_hasher();
        for (name, value) in extra.fields.iter() {
            // If the field's text is no time, it is compared like any other.
            if extra.failed.has(Failed::TIMESTAMP) || !self.times.iter().any(|time| time == name) {
                (name, matches!(value, Value::Text(_)), value.as_str()).hash(&mut hash);
            }
        }
        (&extra.labels, extra.failed).hash(&mut hash);
        hash.finish()
    }

    pub(super) fn next(&mut self, window: Duration, line: &Line) -> Repeat {
        let extra_hash = self.hash_of(&line.extra);
        let run = &mut self.runs[line.record.std_type.index()];
        let (text, time_ns) = (line.text(), line.time_ns());
        let same_text = run.text.as_deref() == Some(text);
        let same = same_text && run.extra_hash == extra_hash;
        // If a clock was set back, no window ends by it: otherwise the window would never end.
        let elapsed = u128::try_from(time_ns.saturating_sub(run.since_ns)).unwrap_or(0);
        if same && elapsed < window.as_nanos() {
            run.count += 1;
            return Repeat::Held { and_dropped: run.last.replace(line.keep()).is_some() };
        }
        run.extra_hash = extra_hash;
        if !same_text {
            let held = run.text.get_or_insert_default();
            held.clear();
            held.extend_from_slice(text);
            // One line of 16 MiB must not keep its memory for ever.
            held.shrink_to(2 * text.len() + 1024);
        }
        run.since_ns = time_ns;
        Repeat::First { before: run.take_last() }
    }

    /// Nothing more comes: returns what is held, by channel.
    pub(super) fn end(&mut self) -> impl Iterator<Item = Kept> {
        std::mem::take(&mut self.runs).into_iter().filter_map(|mut run| run.take_last())
    }

    /// How many lines are held. Lines that were dropped in their favour have been counted.
    pub(super) fn held(&self) -> u64 {
        self.runs.iter().map(|run| u64::from(run.last.is_some())).sum()
    }
}

impl Run {
    fn take_last(&mut self) -> Option<Kept> {
        let count = std::mem::take(&mut self.count);
        let mut kept = self.last.take()?;
        // A line that stands only for itself has no number.
        kept.extra.repeated = if count > 1 { count } else { 0 };
        Some(kept)
    }
}
