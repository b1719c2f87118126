//! Streams whose output takes nothing. They read no further until it does. Their unacknowledged batches are set aside,
//! up to a bound, so that they do not take others' room.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::Capture;
use crate::capture::stream::Stream;
use crate::model::cause::Cause;
use crate::model::clock::Now;
use crate::model::record::StreamId;

/// The held streams.
#[derive(Debug, Default)]
pub(super) struct HeldStreams {
    streams: BTreeMap<StreamId, HeldStream>,
    /// Bytes set aside for all streams.
    bytes: u64,
}

#[derive(Debug, Default)]
struct HeldStream {
    /// Why it waits; `None` = it no longer does.
    cause: Option<Arc<str>>,
    /// The same in few words, where there are some.
    short: Option<Cause>,
    /// Batches that were on their way when it was held, oldest first, with the bytes set aside; `None` = it counts as usual.
    batches: VecDeque<Option<u64>>,
}

impl HeldStreams {
    /// Why a stream waits for its output, if it does.
    pub(super) fn cause(&self, stream: StreamId) -> Option<&str> {
        self.streams.get(&stream)?.cause.as_deref()
    }

    /// The same in few words, where there are some.
    pub(super) fn short(&self, stream: StreamId) -> Option<Cause> {
        self.streams.get(&stream)?.short.clone()
    }

    pub(super) fn forget(&mut self, stream: StreamId) {
        if self.streams.get(&stream).is_some_and(|held| held.batches.is_empty()) {
            self.streams.remove(&stream);
        }
    }
}

impl Capture {
    pub(super) fn on_held(
        &mut self,
        now: Now,
        id: StreamId,
        bytes: u64,
        (cause, short): (Arc<str>, Option<Cause>),
    ) {
        let Some(stream) = self.streams.get(&id) else { return };
        let outlet = usize::from(stream.source.outlet.index);
        let held = self.held.streams.entry(id).or_default();
        (held.cause, held.short) = (Some(cause), short);
        if bytes > 0 {
            let fits = self.held.bytes + bytes <= self.settings.buffer_bytes_max;
            held.batches.push_back(fits.then_some(bytes));
            if fits {
                self.held.bytes += bytes;
                self.outlets[outlet].credit.set_batch_aside(bytes);
            }
        }
        self.with_stream(now, id, |stream, _| stream.hold(true));
    }

    pub(super) fn on_freed(&mut self, now: Now, id: StreamId) {
        if let Some(held) = self.held.streams.get_mut(&id) {
            held.cause = None;
        }
        self.held.forget(id);
        self.with_stream(now, id, |stream, cx| {
            stream.hold(false);
            stream.pump(cx);
        });
    }

    /// A batch was acknowledged: if it was set aside it counts again, and is returned like any other.
    pub(super) fn count_again(&mut self, id: StreamId, outlet: usize) {
        let Some(held) = self.held.streams.get_mut(&id) else { return };
        if let Some(Some(bytes)) = held.batches.pop_front() {
            self.held.bytes -= bytes;
            self.outlets[outlet].credit.take_batch_back(bytes);
        }
        if held.cause.is_none() {
            self.held.forget(id);
        }
    }

    /// Whether the stream waits only for a blocked output.
    pub(super) fn is_held(&self, stream: &Stream) -> bool {
        self.held.cause(stream.source.id).is_some() && stream.reads_nothing()
    }

    /// Sources that a stop does not wait for, with the reason.
    pub(super) fn what_is_held(&self) -> Vec<String> {
        let held = self
            .streams
            .values()
            .map(Box::as_ref)
            .filter(|stream| self.is_held(stream) && !stream.is_at_rest());
        let named = |stream: &Stream| {
            let cause = self.held.cause(stream.source.id).unwrap_or_default();
            format!("{} (its output is blocked: {cause})", stream.source.key.0)
        };
        held.map(named).collect()
    }
}
