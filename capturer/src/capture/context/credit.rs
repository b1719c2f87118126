//! Room for buffers and batches. It is what holds reading back.

use crate::limits::{FILE_READS_MAX, READ_BYTES, SINK_BATCHES_MAX};

/// Buffers and batches in use, bounded. When the credit is used up, reading waits: the log file is the queue.
#[derive(Debug)]
pub struct Credit {
    bytes_max: u64,
    bytes_out: u64,
    batches_out: usize,
    file_reads: usize,
    file_reads_max: usize,
    /// Returned buffers of [`READ_BYTES`], kept for the next reads.
    spare: Vec<Vec<u8>>,
}

impl Credit {
    /// At most `bytes_max` bytes of buffers and `file_reads_max` file reads are in use; one read is always possible.
    pub fn new(bytes_max: u64, file_reads_max: usize) -> Credit {
        let file_reads_max = file_reads_max.clamp(1, FILE_READS_MAX);
        Credit { bytes_max, bytes_out: 0, batches_out: 0, file_reads: 0, file_reads_max, spare: Vec::new() }
    }

    /// Bytes of buffers in use, and the bound.
    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes_out, self.bytes_max)
    }

    /// A buffer for a file read, if there is room.
    pub fn file_read(&mut self, capacity: usize) -> Option<Vec<u8>> {
        if !self.has_file_read() {
            return None;
        }
        let buffer = self.buffer(capacity)?;
        self.file_reads += 1;
        Some(buffer)
    }

    /// Whether one more file read may begin.
    pub fn has_file_read(&self) -> bool {
        self.file_reads < self.file_reads_max
    }

    /// A file read has ended; its buffer is still in use.
    pub fn file_read_done(&mut self) {
        self.file_reads -= 1;
    }

    /// A file read hangs: its buffer must not keep others from reading.
    pub fn set_aside(&mut self, bytes: u64) {
        self.file_reads -= 1;
        self.bytes_out = self.bytes_out.saturating_sub(bytes);
    }

    /// A file read that was set aside has ended: its buffer counts again.
    pub fn take_back(&mut self, bytes: u64) {
        self.file_reads += 1;
        self.bytes_out += bytes;
    }

    /// A batch waits for an output that takes nothing, and must not keep other streams from reading.
    pub fn set_batch_aside(&mut self, bytes: u64) {
        self.batches_out = self.batches_out.saturating_sub(1);
        self.bytes_out = self.bytes_out.saturating_sub(bytes);
    }

    /// A batch that was set aside counts again.
    pub fn take_batch_back(&mut self, bytes: u64) {
        self.batches_out += 1;
        self.bytes_out += bytes;
    }

    /// A buffer, if there is room for it and for the batch it will become.
    pub fn buffer(&mut self, capacity: usize) -> Option<Vec<u8>> {
        if !self.has_room(capacity) {
            return None;
        }
        let buffer = match self.spare.pop() {
            Some(buffer) if capacity == READ_BYTES => buffer,
            Some(other) => {
                self.spare.push(other);
                Vec::with_capacity(capacity)
            }
            None => Vec::with_capacity(capacity),
        };
        self.bytes_out += buffer.capacity() as u64;
        Some(buffer)
    }

    /// Whether there is room for a buffer of this size.
    pub fn has_room(&self, capacity: usize) -> bool {
        let fits = self.bytes_out == 0 || self.bytes_out + capacity as u64 <= self.bytes_max;
        fits && self.batches_out < SINK_BATCHES_MAX - FILE_READS_MAX
    }

    /// Buffers in use have grown (a batch's made text, a larger buffer).
    pub fn grow(&mut self, bytes: u64) {
        self.bytes_out += bytes;
    }

    /// Takes buffers back.
    pub fn give_back(&mut self, mut buffer: Vec<u8>, other_bytes: u64) {
        self.bytes_out = self.bytes_out.saturating_sub(buffer.capacity() as u64 + other_bytes);
        // A few are enough: an idle agent should not keep what a busy one needed.
        if buffer.capacity() == READ_BYTES && self.spare.len() < 4 {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// A batch goes to the sinks.
    pub fn batch_out(&mut self) {
        self.batches_out += 1;
    }

    /// All sinks have acknowledged a batch.
    pub fn batch_back(&mut self) {
        self.batches_out -= 1;
    }

    /// How many batches are with the sinks.
    pub fn batches_out(&self) -> usize {
        self.batches_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_bounds_bytes_and_reads_but_never_stops_the_only_one() {
        let mut credit = Credit::new(2 * READ_BYTES as u64, FILE_READS_MAX);
        let first = credit.file_read(READ_BYTES).unwrap();
        let _second = credit.file_read(READ_BYTES).unwrap();
        assert!(credit.file_read(READ_BYTES).is_none());
        credit.file_read_done();
        credit.give_back(first, 0);
        assert!(credit.file_read(READ_BYTES).is_some());
        let mut tiny = Credit::new(1, FILE_READS_MAX);
        assert!(tiny.buffer(READ_BYTES).is_some());
    }

    /// A hung file system must not use up the others' room.
    #[test]
    fn a_hung_read_is_set_aside_and_comes_back() {
        let mut credit = Credit::new(1, FILE_READS_MAX);
        let hung = credit.file_read(READ_BYTES).unwrap();
        let bytes = hung.capacity() as u64;
        assert!(credit.file_read(READ_BYTES).is_none());
        credit.set_aside(bytes);
        let other = credit.file_read(READ_BYTES).unwrap();
        credit.file_read_done();
        credit.give_back(other, 0);
        credit.take_back(bytes);
        assert!(credit.file_read(READ_BYTES).is_none());
        credit.file_read_done();
        credit.give_back(hung, 0);
        assert!(credit.file_read(READ_BYTES).is_some());
    }
}
