//! The items inside the agent that the tests' package may use. All others are private, so the compiler names unused
//! ones.

pub use crate::capture::core::Capture;
pub use crate::capture::core::outlets::SinkFacts;
pub use crate::capture::io::{
    Action, Beside, BodyOutcome, ConnId, DeniedFile, Event, FileError, FileNo, FoundFile, FoundPath,
    HttpAnswer, LaneId, OpenedFile, RequestError, RequestId,
};
pub use crate::ledger::Owner;
pub use crate::ledger::claims::{Claimed, Claims};
pub use crate::ledger::leaks::LeakFault;
pub use crate::model::clock::Now;
pub use crate::model::cursor::{Cursor, FileId, TailPrint};
pub use crate::model::delivery::FromSink;
pub use crate::model::fields::{Changes, Extra, Failed, Labels, Value};
pub use crate::model::record::{
    Ack, Batch, BufferKind, ContainerMeta, MessageForm, OutputMark, Record, SinkId, Source, StdType,
    StreamId, StreamKey,
};
pub use crate::settings::pipeline::{Multiline, MultilineRule, Over, Pattern, RateLimit, Step};
pub use crate::settings::{
    FileFormat, FileSet, Loki, LokiFormat, OutputFormat, PathPattern, Pipeline, ReadFrom, Settings,
};
pub use crate::shell::Shell;
pub use crate::shell::files::{Files, FilesAnswer};
pub use crate::sink::local_file::skipping::{Looks, Skipping};
pub use crate::sink::loki::encode::{Gathered, SourceHead, encode};
pub use crate::sink::loki::parcel::Parcel;
pub use crate::sink::loki::push::{
    EntryAdapter, PushRequest, StreamAdapter, Timestamp, label_text, read_label_text,
};
pub use crate::telemetry::metrics::{CATALOG, Entry, Kind, LossReason, Metrics, PREFIX, closed_sets};
pub use crate::telemetry::status::Status;
pub use crate::witness::probe::self_test::WayOutcome;
pub use crate::witness::probe::ways::{RELEASING, Workbench};
pub use crate::witness::probe::{FOLLOWED_MAX, Object, Options, Probe, Reading, Tier};
pub use crate::witness::{Doing, Witness};

pub mod body {
    pub use crate::sink::loki::body::pack;
}

pub mod checkpoint {
    pub use crate::capture::checkpoint::{Checkpoint, decode, encode};
}

pub mod docker {
    pub use crate::model::docker::{EVENTS, LIST, PING};
}

pub mod limits {
    pub use crate::limits::{
        API_GATHER_BYTES, API_STREAMS_CEILING, FILE_READS_MAX, HEAD_BYTES, PIECE_BYTES, RECORD_BYTES_MAX,
        SINK_BATCHES_MAX, STREAM_BATCHES_MAX,
    };
}

pub mod ring {
    pub use crate::shell::ring::start;
}

pub mod stdcopy {
    pub use crate::decode::stdcopy::encode;
}

pub mod timestamp {
    pub use crate::decode::timestamp::{format, parse};
}

#[cfg(feature = "fuzz")]
pub mod work {
    pub use crate::decode::work::of;
}

/// The steps that a line passes, for `cargo xtask count`: bytes to pieces, lines, records, and what sinks make of them.
#[cfg(feature = "fuzz")]
pub mod data_path {
    pub use crate::decode::assemble::{Assembler, Join, Lines};
    pub use crate::decode::cri::next_record as next_cri;
    pub use crate::decode::json_line::{is_clean, next_record as next_docker};
    pub use crate::decode::line::{Known, next_line};
    pub use crate::decode::{Piece, Step};
    pub use crate::pipeline::Pipelines;
    pub use crate::settings::file::{Outside, parse as parse_config};
    pub use crate::sink::ndjson::{SourcePrefix, encode as encode_ndjson};
    pub use crate::sink::spool::format::{Record as SpoolRecord, encode as encode_spool};
}
