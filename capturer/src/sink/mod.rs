//! Sinks: where records go. Each sink has a thread and a bounded queue of its own, so that a slow one holds
//! nobody else back; it answers each batch with an [`Ack`], in order.
//!
//! The queue never overflows by construction: `capture` counts what it has sent and what was acknowledged, and
//! stops reading at [`crate::limits::SINK_BATCHES_MAX`]. The log file on disk is the real queue.
//!
//! Not here: checkpoints. A sink only says what it has and, for files, how long its output is.

use std::sync::Arc;

use crate::record::{Ack, Batch, OutputMark, SinkId, Source, StreamId};

/// From capture to a sink.
#[derive(Debug)]
pub enum ToSink {
    /// A stream will send batches: prepare its output and answer [`FromSink::Attached`].
    Attach(Arc<Source>),
    /// Deliver and answer [`FromSink::Ack`].
    Batch(Arc<Batch>),
    /// The stream has ended and all its batches were acknowledged; its output may be closed.
    Detach(StreamId),
    /// Deliver what is queued, flush, answer [`FromSink::Stopped`], end.
    Stop,
}

/// From a sink to capture.
#[derive(Debug)]
pub enum FromSink {
    /// The output is there. The mark must be in a saved checkpoint before the first batch is sent: otherwise a crash
    /// before the first checkpoint would leave lines that a restart could not know to cut off.
    Attached {
        /// Which sink.
        sink: SinkId,
        /// Whose output.
        stream: StreamId,
        /// State of the output before the stream's first record; `None` for sinks without one.
        mark: Option<OutputMark>,
    },
    /// A batch is safe.
    Ack(Ack),
    /// The thread has ended.
    Stopped(SinkId),
}
