//! A batch that is written to an output which may take only a part of it or fail.
//!
//! ```text
//! batch ── encode ≤ ENCODED_BYTES_MAX ─▶ buffer ── put, put, … ─▶ output
//!              ▲ next_record                │ written
//!              └──────── when all is written ┘
//! ```
//! After an error the same batch is pushed again and continues at the very byte where it stopped. Nearly every batch
//! fits one buffer and so is one write.

use std::io;

use super::Counts;
use super::ndjson::{self, SourcePrefix};
use super::plain::{self, PlainFormat};
use crate::limits::ENCODED_BYTES_MAX;
use crate::model::record::{Batch, Source};
use crate::settings::OutputFormat;

/// Text that is the same for all records of a source.
#[derive(Clone, Debug)]
pub(super) struct SourceFacts {
    pub(super) prefix: SourcePrefix,
    /// The name that `pretty` shows.
    pub(super) name: Box<str>,
}

#[derive(Debug)]
pub(super) struct Outbox {
    format: OutputFormat,
    /// `pretty` may use colours.
    coloured: bool,
    /// Encoded records, kept for the next batch so that it need not be allocated again.
    buffer: Vec<u8>,
    /// Bytes of `buffer` that are written.
    written: usize,
    /// First record of the batch that is not in `buffer`.
    next_record: usize,
    /// Counts of what was written of the batch so far.
    counts: Counts,
}

impl Outbox {
    pub(super) fn new(format: OutputFormat) -> Outbox {
        Outbox {
            format,
            coloured: false,
            buffer: Vec::new(),
            written: 0,
            next_record: 0,
            counts: Counts::default(),
        }
    }

    pub(super) fn coloured(self, coloured: bool) -> Outbox {
        Outbox { coloured, ..self }
    }

    /// Renders the text that is the same for all records of a source.
    pub(super) fn facts(&self, source: &Source) -> SourceFacts {
        // Only `pretty` shows it, and there may be tens of thousands of sources.
        let is_shown = self.format == OutputFormat::Pretty;
        let name = if is_shown { plain::pretty_name(source, self.coloured).into() } else { Box::default() };
        SourceFacts { prefix: SourcePrefix::new(source), name }
    }

    /// Writes all of a batch, or the rest that earlier calls failed to write. `put` returns how many bytes it took.
    pub(super) fn push(
        &mut self,
        batch: &Batch,
        facts: &SourceFacts,
        mut put: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<Counts> {
        loop {
            while self.written < self.buffer.len() {
                match put(&self.buffer[self.written..]) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(len) => self.written += len,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            if self.next_record == batch.records.len() {
                let counts = self.counts;
                self.reset();
                return Ok(counts);
            }
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.clear();
            self.written = 0;
            let (next, counts) = self.encode(batch, facts, self.next_record, ENCODED_BYTES_MAX, &mut buffer);
            self.buffer = buffer;
            self.next_record = next;
            self.counts += counts;
        }
    }

    /// Like [`Outbox::push`], for some of the records only. After an error it begins again.
    pub(super) fn push_some(
        &mut self,
        batch: &Batch,
        records: &[usize],
        facts: &SourceFacts,
        mut put: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<Counts> {
        self.reset();
        let (mut counts, mut buffer) = (Counts::default(), std::mem::take(&mut self.buffer));
        let mut put_all = |buffer: &mut Vec<u8>| -> io::Result<()> {
            let mut written = 0;
            while written < buffer.len() {
                match put(&buffer[written..]) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(len) => written += len,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            buffer.clear();
            Ok(())
        };
        for index in records {
            let max = buffer.len() + 1;
            counts += self.encode(batch, facts, *index, max, &mut buffer).1;
            if buffer.len() >= ENCODED_BYTES_MAX {
                put_all(&mut buffer)?;
            }
        }
        put_all(&mut buffer)?;
        self.buffer = buffer;
        Ok(counts)
    }

    fn encode(
        &self,
        batch: &Batch,
        facts: &SourceFacts,
        first: usize,
        max: usize,
        buffer: &mut Vec<u8>,
    ) -> (usize, Counts) {
        let mut in_plain = |format| plain::encode(format, batch, &facts.name, first, max, buffer);
        match self.format {
            OutputFormat::Ndjson => ndjson::encode(batch, &facts.prefix, first, max, buffer),
            OutputFormat::Raw => in_plain(PlainFormat::Raw),
            OutputFormat::Docker => in_plain(PlainFormat::Docker),
            OutputFormat::Pretty => in_plain(PlainFormat::Pretty),
        }
    }

    /// Starts the batch again: what was written of it is gone or was removed.
    pub(super) fn reset(&mut self) {
        // One line of 16 MiB must not keep its memory for ever.
        self.buffer.clear();
        self.buffer.shrink_to(2 * ENCODED_BYTES_MAX);
        self.written = 0;
        self.next_record = 0;
        self.counts = Counts::default();
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Rng, batch, container, messages};
    use super::*;

    /// Otherwise a full disk would leave torn or repeated lines.
    #[test]
    fn short_writes_and_errors_tear_and_repeat_nothing() {
        let mut rng = Rng::from_env();
        let source = container(1, "web");
        let mut outbox = Outbox::new(OutputFormat::Ndjson);
        let facts = outbox.facts(&source);
        let (mut output, mut expected) = (Vec::new(), Vec::new());
        for round in 0..200 {
            let texts: Vec<String> = (0..rng.below(30)).map(|line| format!("{round} {line}")).collect();
            let lines: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
            let batch = batch(&source, &lines);
            let counts = loop {
                let result = outbox.push(&batch, &facts, |bytes| match rng.below(4) {
                    0 => Err(io::ErrorKind::StorageFull.into()),
                    1 => Err(io::ErrorKind::Interrupted.into()),
                    2 => {
                        let len = 1 + rng.below(bytes.len());
                        output.extend_from_slice(&bytes[..len]);
                        Ok(len)
                    }
                    _ => {
                        output.extend_from_slice(bytes);
                        Ok(bytes.len())
                    }
                });
                if let Ok(counts) = result {
                    break counts;
                }
            };
            assert_eq!(counts.records as usize, texts.len());
            expected.extend(texts);
        }
        assert_eq!(messages(&output), expected);
    }

    #[test]
    fn a_batch_of_many_buffers_comes_out_whole() {
        let source = container(1, &"n".repeat(4000));
        let lines: Vec<&[u8]> = vec![b"x"; 3000];
        let batch = batch(&source, &lines);
        let mut output = Vec::new();
        let mut puts = 0;
        let mut outbox = Outbox::new(OutputFormat::Ndjson);
        let facts = outbox.facts(&source);
        outbox
            .push(&batch, &facts, |bytes| {
                puts += 1;
                output.extend_from_slice(bytes);
                Ok(bytes.len())
            })
            .unwrap();
        assert_eq!(messages(&output).len(), 3000);
        assert!(puts > 1 && outbox.buffer.capacity() <= 2 * ENCODED_BYTES_MAX);
    }
}
