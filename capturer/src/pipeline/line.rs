//! One line on its way through the steps, and the batch that is made of the lines that pass.

use std::sync::Arc;

use super::dedup::Kept;
use super::{changed_record, written};
use crate::decode::{json_line, timestamp};
use crate::model::fields::{Changes, Extra};
use crate::model::record::{Batch, MessageForm, Record};

/// A record's time, or its batch's if it has none.
pub(super) fn time_ns(batch: &Batch, record: &Record) -> i64 {
    let own = timestamp::parse(batch.time(record));
    own.or_else(|| timestamp::parse(batch.read_time.as_bytes())).unwrap_or_default()
}

/// A line as captured, and what the steps have made of it.
pub(super) struct Line<'b> {
    pub(super) batch: &'b Batch,
    pub(super) record: &'b Record,
    /// The message as the process wrote it, without Docker's escapes.
    captured: &'b [u8],
    /// The message instead of `captured`, once a step has changed it.
    text: Option<Vec<u8>>,
    /// Nanoseconds since 1970, once a step has changed the time.
    time: Option<i64>,
    /// A step looked for a level and found none that it knows.
    pub(super) level_unknown: bool,
    pub(super) extra: Extra,
}

impl<'b> Line<'b> {
    /// `scratch` takes the unescaped message if it has escapes.
    pub(super) fn new(
        batch: &'b Batch,
        record: &'b Record,
        reads_text: bool,
        scratch: &'b mut Vec<u8>,
    ) -> Line<'b> {
        let message = batch.message(record);
        let is_escaped = record.form == MessageForm::JsonEscaped && memchr::memchr(b'\\', message).is_some();
        let captured = if reads_text && is_escaped {
            scratch.clear();
            json_line::unescape(message, scratch);
            &scratch[..]
        } else {
            message
        };
        Line {
            batch,
            record,
            captured,
            text: None,
            time: None,
            level_unknown: false,
            extra: Extra::default(),
        }
    }

    pub(super) fn text(&self) -> &[u8] {
        self.text.as_deref().unwrap_or(self.captured)
    }

    pub(super) fn set_text(&mut self, text: Vec<u8>) {
        self.text = Some(text);
    }

    pub(super) fn time_ns(&self) -> i64 {
        self.time.unwrap_or_else(|| time_ns(self.batch, self.record))
    }

    pub(super) fn set_time(&mut self, time_ns: i64) {
        self.time = Some(time_ns);
    }

    /// A copy of the line that outlives its batch.
    pub(super) fn keep(&self) -> Kept {
        let (message, form) = self.message();
        let time =
            self.time.map_or_else(|| self.batch.time(self.record).to_vec(), |ns| written(ns).into_bytes());
        Kept {
            record: Record { form, ..*self.record },
            message: message.to_vec(),
            time,
            extra: self.extra.clone(),
        }
    }

    /// The message as it is delivered: an unchanged one as it was read.
    fn message(&self) -> (&[u8], MessageForm) {
        match &self.text {
            Some(text) => (text, MessageForm::Raw),
            None => (self.batch.message(self.record), self.record.form),
        }
    }
}

/// What passes of a batch.
pub(super) struct Made {
    records: Vec<Record>,
    bytes: Vec<u8>,
    /// As long as `records`, or empty while no record has extras.
    extras: Vec<Extra>,
    changed: bool,
}

impl Made {
    pub(super) fn new(batch: &Batch) -> Made {
        let records = Vec::with_capacity(batch.records.len());
        Made { records, bytes: Vec::new(), extras: Vec::new(), changed: false }
    }

    /// Drops a line.
    pub(super) fn leave_out(&mut self) {
        self.changed = true;
    }

    /// Lets a line pass.
    pub(super) fn push(&mut self, record: &Record, line: Line) {
        if line.text.is_none() && line.time.is_none() {
            self.records.push(*record);
        } else {
            let (message, form) = line.message();
            match line.time {
                Some(time) => self.put(Record { form, ..*record }, message, written(time).as_bytes()),
                // The line has no time of its own, and the time of reading would be another one after a crash.
                None if record.time_len == 0 => self.put(Record { form, ..*record }, message, b""),
                None => self.put(Record { form, ..*record }, message, line.batch.time(record)),
            }
        }
        self.push_extra(line.extra);
    }

    /// Lets a line of an earlier batch pass.
    pub(super) fn push_held(&mut self, kept: Kept) {
        self.put(kept.record, &kept.message, &kept.time);
        self.push_extra(kept.extra);
    }

    fn put(&mut self, record: Record, message: &[u8], time: &[u8]) {
        self.changed = true;
        let time_start = self.bytes.len();
        self.bytes.extend_from_slice(time);
        let message_start = self.bytes.len();
        self.bytes.extend_from_slice(message);
        assert!(
            self.bytes.len() < u32::MAX as usize,
            "a batch is bounded, and so is what a line may grow by"
        );
        self.records.push(Record {
            message_start: message_start as u32,
            message_len: message.len() as u32,
            time_start: time_start as u32,
            time_len: time.len() as u8,
            ..changed_record(&record)
        });
    }

    fn push_extra(&mut self, extra: Extra) {
        if extra.is_empty() && self.extras.is_empty() {
            return;
        }
        self.changed = true;
        self.extras.resize(self.records.len() - 1, Extra::default());
        self.extras.push(extra);
    }

    /// `None` = nothing was changed.
    pub(super) fn into_batch(mut self, original: &Arc<Batch>) -> Option<Batch> {
        if !self.changed {
            return None;
        }
        if !self.extras.is_empty() {
            self.extras.resize(self.records.len(), Extra::default());
        }
        Some(Batch {
            source: Arc::clone(&original.source),
            seq: original.seq,
            read: Vec::new(),
            made: Vec::new(),
            records: self.records,
            read_time: original.read_time.clone(),
            end: original.end.clone(),
            source_bytes: original.source_bytes,
            last: original.last,
            changes: Some(Box::new(Changes {
                original: Arc::clone(original),
                bytes: self.bytes,
                extras: self.extras,
            })),
        })
    }
}
