//! What is shown of one stream, in `/api/v1/streams` and in the metrics of its source.

use std::sync::Arc;

use serde::Serialize;

use crate::model::cursor::Cursor;
use crate::model::rare::{Begins, Rare};

/// One line of `/api/v1/streams`. What the core has at hand is shared with it, for there may be tens of thousands, and a
/// snapshot stays until the next one.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StreamRow {
    /// Number in this process.
    pub id: u32,
    /// Key in the checkpoint.
    pub key: Arc<str>,
    /// Container name or path.
    pub name: Arc<str>,
    /// Sinks that it reads for. A network sink has streams of its own.
    pub sinks: Arc<[String]>,
    /// Container ID, empty for files.
    #[serde(skip_serializing_if = "is_empty")]
    pub container_id: Arc<str>,
    /// State of the stream's life (stream/state.rs).
    pub state: &'static str,
    /// Why it is in this state.
    pub cause: Arc<str>,
    /// `file` or `api`.
    pub mode: &'static str,
    /// Why that mode.
    pub mode_reason: Arc<str>,
    /// Milliseconds in this state.
    pub state_age_ms: u64,
    /// Age of the current connection or file in milliseconds.
    pub age_ms: u64,
    /// What it has counted, together with the runs before a reload.
    #[serde(flatten)]
    pub counts: StreamCounts,
    /// Number of the outlet that it reads for; 0 is there for every source.
    #[serde(skip)]
    pub outlet: u8,
    /// Milliseconds since the last record was read; absent before the first in this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_line_age_ms: Option<u64>,
    /// Source bytes behind: what is on disk and not yet acknowledged, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_bytes: Option<u64>,
    /// Failures in a row.
    pub failures: u32,
    /// Acknowledged position, as in the checkpoint. A JSON value would be ten times as large, and a snapshot stays until the
    /// next one.
    pub position: Option<Cursor>,
    /// What the row of a quiet source does not have.
    #[serde(flatten)]
    pub now: Rare<RowNow>,
}

const _: () = assert!(size_of::<StreamRow>() <= 264);

/// What hardly any of tens of thousands of rows has.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RowNow {
    /// The operation it waits for, if any.
    #[serde(skip_serializing_if = "is_empty")]
    pub operation: &'static str,
    /// Milliseconds until that operation's timer ends it; absent where the kernel has none (file reads).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation_deadline_ms: Option<u64>,
    /// Milliseconds for which that operation has been under way, where it has no timer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation_age_ms: Option<u64>,
    /// Why it is set aside: which file system does not answer, and in what. Empty while it is not.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub set_aside: String,
    /// Why nothing of it is delivered: it is not text, or can't be read. Empty while it is.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub left_out: String,
    /// Sinks behind it that take nothing now, so that it waits. Empty while it does not.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub held_up: String,
    /// Milliseconds since the oldest record was read that is not acknowledged yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_unacked_ms: Option<u64>,
    /// Last error, empty if none.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub last_error: String,
    /// What it waits for, of what words and attention depend on.
    #[serde(skip)]
    pub blocked: Option<Blocked>,
    /// It is left out for its age, as its owner wants it.
    #[serde(skip)]
    pub left_out_for_age: bool,
    /// The opening of its file waits until a file descriptor is free.
    #[serde(skip)]
    pub lacks_descriptor: bool,
    /// More files are followed than may be open, and its turn comes.
    #[serde(skip)]
    pub waits_its_turn: bool,
    /// What of its counts the runs before a reload had counted.
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

/// What keeps a stream waiting that is not its own doing.
#[derive(Clone, Debug, PartialEq)]
pub enum Blocked {
    /// Its output takes nothing, for this reason.
    Output(Arc<str>),
    /// dockerd is there and gives no answer; so long each question waits for one.
    Docker {
        /// In seconds.
        waited_s: u64,
    },
    /// dockerd can't be asked, in words.
    NoDocker(Arc<str>),
}

fn is_empty(text: &impl AsRef<str>) -> bool {
    text.as_ref().is_empty()
}

/// What a stream counts. All of it goes on through a reload and nothing of it ever falls: whoever adds a count here has it
/// carried over and scraped without a jump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StreamCounts {
    /// Planned rotations so far.
    pub rotations: u64,
    /// Reads that ended by their timer.
    pub read_timeouts: u64,
    /// Records handed on.
    pub lines: u64,
    /// Bytes of their messages.
    pub bytes: u64,
    /// Losses that were declared.
    pub losses: u64,
    /// Bytes of them, as far as known.
    pub lost_bytes: u64,
}

impl StreamCounts {
    /// The counts of both, added up.
    pub fn plus(self, more: StreamCounts) -> StreamCounts {
        self.with(more, |a, b| a + b)
    }

    /// What came since these were counted.
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
