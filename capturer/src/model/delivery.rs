//! Messages between capture and the sinks. Each sink has its own queue, and answers each batch in order.

use std::sync::Arc;
use std::time::Instant;

use crate::model::cause::Cause;
use crate::model::record::{Ack, Batch, OutputMark, SavedMarks, SinkId, Source, StreamId};

/// From capture to a sink.
#[derive(Debug)]
pub enum ToSink {
    /// A stream will send batches: prepare its output and answer [`FromSink::Attached`].
    Attach(Arc<Source>),
    /// Deliver and answer [`FromSink::Ack`].
    Batch(Arc<Batch>),
    /// The stream has ended and all its batches were acknowledged; its output may be closed.
    Detach(StreamId),
    /// No line of the stream comes for now: its output may be removed if it is empty.
    Withdraw(StreamId),
    /// A checkpoint with these marks is on disk.
    Saved(Arc<SavedMarks>),
    /// Deliver what is queued, flush, answer [`FromSink::Stopped`] and end.
    Stop {
        /// What can't be delivered by then stays unacknowledged; the next run reads it again.
        give_up_at: Instant,
    },
}

/// From a sink to capture.
#[derive(Debug)]
pub enum FromSink {
    /// The output is there. The mark must be in a saved checkpoint before the first batch is sent. Otherwise a restart
    /// after a crash before the first checkpoint would not know which lines the output already has.
    Attached {
        /// Number of the sink.
        sink: SinkId,
        /// The stream that the output belongs to.
        stream: StreamId,
        /// State of the output before the stream's first record; `None` for sinks without one.
        mark: Option<OutputMark>,
    },
    /// A batch is safe with the sink.
    Ack(Ack),
    /// A batch or the attachment of a stream waits because its output takes nothing. The sink tries again; other
    /// streams go on.
    Held {
        /// Number of the sink.
        sink: SinkId,
        /// The stream that the output belongs to.
        stream: StreamId,
        /// Size of the batch that waits; 0 = it is no batch, or one that was reported before.
        bytes: u64,
        /// Why, and what to do.
        cause: Arc<str>,
        /// The same in few words, where there are some.
        short: Option<Cause>,
    },
    /// Nothing of the stream waits for its output any more.
    Freed {
        /// Number of the sink.
        sink: SinkId,
        /// The stream that the output belongs to.
        stream: StreamId,
    },
    /// The last two checkpoints name different outputs, so the sink can't yet remove what only one of them needs: save
    /// once more, even if no position moves.
    SaveAgain(SinkId),
    /// The thread has ended: it was told to, or nobody reads its output any more (`SinkErrorKind::Closed`, which health
    /// shows). It answers nothing sent after that.
    Stopped(SinkId),
}
