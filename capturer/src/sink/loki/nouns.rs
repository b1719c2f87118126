//! The types of a delivery: its orders, its reports, and the state of tenants and of the server. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use super::label_set::Job;
use super::parcel::Parcel;
use super::push::{EntryAdapter, PushRequest};
use crate::settings::MaxLineAge;
use crate::sink::backoff::Backoff;
use crate::sink::spool::Position;
use crate::telemetry::metrics::{DeadLetterReason, PushFailure};

/// How long a refusal's statement about the server's limits counts: they may be raised.
pub(super) const LEARNED_MS: u64 = 600_000;

/// Orders to the caller.
#[derive(Debug, PartialEq)]
pub enum Order {
    /// Read these records and hand them over with `Delivery::on_loaded`.
    Load {
        /// The slot that waits for the answer.
        slot: usize,
        /// In order; of one label set.
        places: Vec<Position>,
    },
    /// Send this and report with `Delivery::on_outcome`.
    Send {
        /// Who waits for the answer.
        slot: usize,
        /// Empty = none.
        tenant: String,
        /// Lines in it.
        lines: usize,
        /// The request's body.
        body: Parcel,
    },
    /// Write these to the dead letters and report with `Delivery::on_buried`.
    Bury {
        /// The slot that waits for the answer.
        slot: usize,
        /// Lines that go to the dead letters.
        letters: Vec<Refused>,
    },
    /// Send an empty push and report with `Delivery::on_probe`.
    Probe {
        /// Empty = none.
        tenant: String,
    },
}

/// A line that will never be taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// The reason as metrics name it.
    pub reason: DeadLetterReason,
    /// The answer's status; 0 = it was not sent.
    pub code: u16,
    /// The server's own words.
    pub words: String,
    /// Empty = none.
    pub tenant: String,
    /// Its label set.
    pub labels: String,
    /// The line with its time and metadata.
    pub entry: EntryAdapter,
}

/// A record that was read again.
#[derive(Debug)]
pub struct LoadedRecord {
    /// A request; empty = it is lost.
    pub body: Parcel,
}

/// The time, by both clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Since the delivery began.
    pub ms: u64,
    /// Since 1970, nanoseconds.
    pub unix_ns: i64,
}

/// What is wrong now, for health and readiness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The reason as metrics name it.
    pub reason: PushFailure,
    /// In a sentence.
    pub words: String,
    /// Somebody has to mend something; it will not pass by itself.
    pub hold: bool,
    /// Since when, by [`Now::ms`].
    pub since_ms: u64,
}

/// A label set over a rate limit is refused and accepted by turns. So it counts as waiting until it was not refused for
/// this long, or has nothing left to send: otherwise health would change with each request, and so would the log.
const LIMIT_LASTS_MS: u64 = 60_000;

impl Trouble {
    /// Whether an accepted request now shows that it is over, if the last refusal was at `last_ms`.
    pub(super) fn is_over(&self, last_ms: u64, now_ms: u64) -> bool {
        let by_turns = matches!(self.reason, PushFailure::StreamRateLimited | PushFailure::RateLimited);
        !by_turns || now_ms >= last_ms + LIMIT_LASTS_MS
    }
}

/// The state of the delivery, for watchers.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub accepted_lines: u64,
    /// Requests that were accepted.
    pub accepted: u64,
    pub accepted_ms: Option<u64>,
    pub last_answer: String,
    /// Since when requests have been in flight without any answer.
    pub asked_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub batch_bytes: usize,
    pub batch_lines: usize,
    pub batch_timeout_ms: u64,
    pub backoff_min: Duration,
    pub backoff_max: Duration,
    pub line_age: MaxLineAge,
}

#[derive(Debug)]
pub(super) enum Slot {
    Free,
    Loading(u64),
    Ready(Job),
    UnderWay(Job),
}

#[derive(Debug, Default)]
pub(super) struct Tenant {
    /// Label sets that may send, in the order of their turns.
    pub ready: VecDeque<u64>,
    pub until_ms: u64,
    pub backoff: Backoff,
    pub under_way: usize,
    pub trouble: Option<Trouble>,
    /// When it was refused last.
    pub refused_ms: u64,
    /// Requests of it that were accepted.
    pub accepted: u64,
    /// Refusals in a row that may be due to a line's content.
    pub refused_in_a_row: u32,
    /// One of its label sets that the trouble affects.
    pub example: String,
    /// The oldest time that the server takes, as it said last, and when that was.
    pub oldest: Option<(i64, Now)>,
    pub label_sets: usize,
}

impl Tenant {
    /// Its last answer was a different one.
    pub fn forget_trouble(&mut self, now: Now) {
        self.trouble.take_if(|trouble| trouble.is_over(self.refused_ms, now.ms));
    }
}

/// Whether Loki is there.
#[derive(Debug, Default)]
pub(super) struct Server {
    pub is_up: bool,
    /// It answered as Loki, or took lines.
    pub was_up: bool,
    pub until_ms: u64,
    pub backoff: Backoff,
    /// Requests that failed in a row, of any label set.
    pub failed_in_a_row: usize,
    /// Refusals in a row for unknown reasons.
    pub doubts_in_a_row: u32,
    /// When the empty push in flight began; `None` = there is none.
    pub probing_ms: Option<u64>,
    pub wants_probe: bool,
    /// How often it answered an empty push as Loki.
    pub present: u64,
    pub trouble: Option<Trouble>,
}

/// Bytes of an answer that are kept with each line it refused.
const WORDS_BYTES_MAX: usize = 500;

/// Lines as dead letters.
pub(super) fn letters(
    tenant: &str,
    request: &PushRequest,
    reason: impl Fn(usize) -> DeadLetterReason,
    code: u16,
    words: &str,
) -> Vec<Refused> {
    let entries =
        request.streams.iter().flat_map(|stream| stream.entries.iter().map(|entry| (&stream.labels, entry)));
    // Loki names every line of a request in one answer, and each letter would hold all of that.
    let mut words = words.to_owned();
    words.truncate(words.floor_char_boundary(WORDS_BYTES_MAX));
    let letter = |(index, (labels, entry)): (usize, (&String, &EntryAdapter))| Refused {
        reason: reason(index),
        code,
        words: words.clone(),
        tenant: tenant.to_owned(),
        labels: labels.clone(),
        entry: entry.clone(),
    };
    entries.enumerate().map(letter).collect()
}
