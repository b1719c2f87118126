//! What `/api/v1/streams` and the metrics of a source show of one stream.

use std::sync::Arc;

use serde::Serialize;

use crate::model::cause::Cause;
use crate::model::cursor::Cursor;
use crate::model::rare::{Begins, Rare};

/// One row of `/api/v1/streams`. It shares what the core has, because there may be tens of thousands of rows and a
/// snapshot stays until the next one.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StreamRow {
    /// Number in this process.
    pub id: u32,
    /// Key in the checkpoint.
    pub key: Arc<str>,
    /// Container name or path.
    pub name: Arc<str>,
    /// Sinks it reads for. A network sink has streams of its own.
    pub sinks: Arc<[String]>,
    /// Container ID, empty for files.
    #[serde(skip_serializing_if = "is_empty")]
    pub container_id: Arc<str>,
    /// State of the stream's life (capture/stream/state.rs).
    pub state: &'static str,
    /// Why it is in this state.
    pub cause: Arc<str>,
    /// `file` or `api`.
    pub mode: &'static str,
    /// Why it is read in that mode.
    pub mode_reason: Arc<str>,
    /// Milliseconds in this state.
    pub state_age_ms: u64,
    /// Age of the current connection or file in milliseconds.
    pub age_ms: u64,
    /// Its counts, including those of runs before a reload.
    #[serde(flatten)]
    pub counts: StreamCounts,
    /// Number of its outlet; every source has outlet 0.
    #[serde(skip)]
    pub outlet: u8,
    /// Milliseconds since the last record was read; absent before the first in this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_line_age_ms: Option<u64>,
    /// Bytes of the source on disk that are not acknowledged yet, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_bytes: Option<u64>,
    /// Failures in a row.
    pub failures: u32,
    /// Acknowledged position, as in the checkpoint. As a JSON value it would be ten times as large, and a snapshot
    /// stays until the next one.
    pub position: Option<Cursor>,
    /// What the row of a quiet source does not need.
    #[serde(flatten)]
    pub now: Rare<RowNow>,
}

const _: () = assert!(size_of::<StreamRow>() <= 264);

/// What few of tens of thousands of rows need.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RowNow {
    /// The operation it waits for, if any.
    #[serde(skip_serializing_if = "is_empty")]
    pub operation: &'static str,
    /// Milliseconds until that operation's timer ends it; absent if it has no timer (file reads).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation_deadline_ms: Option<u64>,
    /// Milliseconds since that operation began, if it has no timer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation_age_ms: Option<u64>,
    /// Why it is set aside: the file system that does not answer, and the operation. Empty if it is not.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub set_aside: String,
    /// Why nothing of it is delivered: it is not text, or can't be read. Empty otherwise.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub left_out: String,
    /// Its sinks that take nothing, so that it waits. Empty if it does not.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub held_up: String,
    /// Milliseconds since the oldest record was read that is still unacknowledged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_unacked_ms: Option<u64>,
    /// Last error, empty if none.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub last_error: String,
    /// The same in few words, where there are some.
    #[serde(skip)]
    pub last_error_short: Option<Cause>,
    /// What it waits for, of what words and attention depend on.
    #[serde(skip)]
    pub blocked: Option<Blocked>,
    /// It is skipped for its age, on purpose.
    #[serde(skip)]
    pub left_out_for_age: bool,
    /// Its file can't be opened until a descriptor is free.
    #[serde(skip)]
    pub lacks_descriptor: bool,
    /// More files are followed than may be open, and it waits for its turn.
    #[serde(skip)]
    pub waits_its_turn: bool,
    /// The part of its counts from runs before a reload.
    #[serde(skip)]
    pub carried: StreamCounts,
}

impl Begins for RowNow {
    const BEGINNING: &'static RowNow = &RowNow {
        operation: "",
        operation_deadline_ms: None,
        operation_age_ms: None,
        set_aside: String::new(),
        left_out: String::new(),
        held_up: String::new(),
        oldest_unacked_ms: None,
        last_error: String::new(),
        last_error_short: None,
        blocked: None,
        left_out_for_age: false,
        lacks_descriptor: false,
        waits_its_turn: false,
        carried: StreamCounts {
            rotations: 0,
            read_timeouts: 0,
            lines: 0,
            bytes: 0,
            losses: 0,
            lost_bytes: 0,
        },
    };
}

/// Why a stream waits, if the cause lies outside it.
#[derive(Clone, Debug, PartialEq)]
pub enum Blocked {
    /// Its output takes nothing, for this reason; in few words, where there are some.
    Output(Arc<str>, Option<Cause>),
    /// dockerd is there and gives no answer; so long each question waits for one.
    Docker {
        /// Time-out of one question, in seconds.
        waited_s: u64,
    },
    /// dockerd can't be asked, in words; in few, where there are some.
    NoDocker(Arc<str>, Option<Cause>),
}

fn is_empty(text: &impl AsRef<str>) -> bool {
    text.as_ref().is_empty()
}

/// What a stream counts. Every count continues over a reload and never falls: a count added here is carried over and
/// scraped without a jump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StreamCounts {
    /// Planned rotations so far.
    pub rotations: u64,
    /// Reads that ended by their timer.
    pub read_timeouts: u64,
    /// Records passed on.
    pub lines: u64,
    /// Bytes of their messages.
    pub bytes: u64,
    /// How many losses were declared, of whatever size.
    pub losses: u64,
    /// Bytes lost, as far as known.
    pub lost_bytes: u64,
}

impl StreamCounts {
    /// The sum of both.
    pub fn plus(self, more: StreamCounts) -> StreamCounts {
        self.with(more, |a, b| a + b)
    }

    /// What was counted since `before`.
    pub fn since(self, before: StreamCounts) -> StreamCounts {
        self.with(before, u64::saturating_sub)
    }

    fn with(self, other: StreamCounts, of: impl Fn(u64, u64) -> u64) -> StreamCounts {
        StreamCounts {
            rotations: of(self.rotations, other.rotations),
            read_timeouts: of(self.read_timeouts, other.read_timeouts),
            lines: of(self.lines, other.lines),
            bytes: of(self.bytes, other.bytes),
            losses: of(self.losses, other.losses),
            lost_bytes: of(self.lost_bytes, other.lost_bytes),
        }
    }
}
