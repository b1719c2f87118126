//! What capture and the sinks tell each other. Each sink has a queue of its own for it, and answers each batch in order.

use std::sync::Arc;
use std::time::Instant;

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
    /// Nothing of the stream comes for now: an empty output of it need not be there.
    Withdraw(StreamId),
    /// A checkpoint with these marks is on disk.
    Saved(Arc<SavedMarks>),
    /// Deliver what is queued, flush, answer [`FromSink::Stopped`], end.
    Stop {
        /// What can't be delivered by then stays unacknowledged; the next run reads it again.
        give_up_at: Instant,
    },
}

/// From a sink to capture.
#[derive(Debug)]
pub enum FromSink {
    /// The output is there. The mark must be in a saved checkpoint before the first batch is sent: otherwise a crash
    /// before the first checkpoint would leave lines that a restart could not know to cut off.
    Attached {
        /// Number of the sink.
        sink: SinkId,
        /// The stream that the output belongs to.
        stream: StreamId,
        /// State of the output before the stream's first record; `None` for sinks without one.
        mark: Option<OutputMark>,
    },
    /// A batch is safe.
    Ack(Ack),
    /// Something of a stream waits for its output, which takes nothing. It is tried again; others go on.
    Held {
        /// Number of the sink.
        sink: SinkId,
        /// The stream that the output belongs to.
        stream: StreamId,
        /// Size of the batch that waits; 0 = it is not a batch.
        bytes: u64,
        /// Why, and how to mend it.
        cause: Arc<str>,
    },
    /// Nothing of a stream waits for its output any more.
    Freed {
        /// Number of the sink.
        sink: SinkId,
        /// The stream that the output belongs to.
        stream: StreamId,
    },
    /// The last two checkpoints differ in what the sink may remove: it waits for one more, though nothing moves.
    SaveAgain(SinkId),
    /// The thread has ended: it was told to, or nobody takes its output any more (`SinkErrorKind::Closed`; its
    /// health says so). Nothing sent after that is answered.
    Stopped(SinkId),
}
