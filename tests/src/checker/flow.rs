//! How much is in flight: buffers and batches stay within their bounds, whatever happens.

use std::collections::BTreeMap;

use capturer::testing::{Batch, StreamKey, limits};

use super::violated;

/// Buffers, batches and reads under way, as seen from outside the core.
#[derive(Debug)]
pub(crate) struct Flow {
    buffer_bytes_max: u64,
    sinks: usize,
    file_reads: u64,
    read_bytes: u64,
    /// By stream and number: bytes, and sinks that have not acknowledged.
    batches: BTreeMap<(StreamKey, u64), (u64, usize)>,
    batch_bytes: u64,
}

impl Flow {
    pub(crate) fn new(buffer_bytes_max: u64, sinks: usize) -> Flow {
        Flow {
            buffer_bytes_max,
            sinks,
            file_reads: 0,
            read_bytes: 0,
            batches: BTreeMap::new(),
            batch_bytes: 0,
        }
    }

    pub(crate) fn on_file_read(&mut self, capacity: usize) {
        self.file_reads += 1;
        self.read_bytes += capacity as u64;
        self.buffers_are_bounded();
    }

    pub(crate) fn on_file_read_done(&mut self, capacity: usize) {
        self.file_reads -= 1;
        self.read_bytes -= capacity as u64;
    }

    pub(crate) fn on_send(&mut self, batch: &Batch) {
        let bytes = batch.read.capacity() as u64;
        self.batch_bytes += bytes;
        let key = (batch.source.key.clone(), batch.seq);
        if self.batches.insert(key.clone(), (bytes, self.sinks)).is_some() {
            violated("batches_are_bounded", format!("batch {key:?} was sent twice"));
        }
        self.batches_are_bounded(&batch.source.key);
    }

    pub(crate) fn on_acked(&mut self, batch: &Batch) {
        let key = (batch.source.key.clone(), batch.seq);
        let Some((bytes, missing)) = self.batches.get_mut(&key) else { return };
        *missing -= 1;
        if *missing == 0 {
            self.batch_bytes -= *bytes;
            self.batches.remove(&key);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.file_reads == 0 && self.batches.is_empty()
    }

    /// One read is always possible; beyond that the bound of the settings holds. (Reads of connections bring what they
    /// bring: up to one gathering each beyond it.)
    fn buffers_are_bounded(&self) {
        let out = self.read_bytes + self.batch_bytes;
        let alone = self.file_reads == 1 && self.batches.is_empty();
        let slack = (limits::API_STREAMS_CEILING.min(64) * 2 * limits::API_GATHER_BYTES) as u64;
        if (out > self.buffer_bytes_max + slack && !alone) || self.file_reads > limits::FILE_READS_MAX as u64
        {
            violated(
                "buffers_are_bounded",
                format!("{out} bytes out of {} and {} reads", self.buffer_bytes_max, self.file_reads),
            );
        }
    }

    fn batches_are_bounded(&self, key: &StreamKey) {
        let of_stream = self.batches.keys().filter(|(of, _)| of == key).count();
        // A read or two may be under way when the last batch goes; what they bring is sent as well, and so is what their end
        // and a deadline close: a line that was open, groups of lines.
        if self.batches.len() > limits::SINK_BATCHES_MAX || of_stream > limits::STREAM_BATCHES_MAX + 4 {
            violated(
                "batches_are_bounded",
                format!("{} batches out, {of_stream} of {key:?}", self.batches.len()),
            );
        }
    }
}
