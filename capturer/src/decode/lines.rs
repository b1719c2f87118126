//! What pieces become: whole lines, and the bytes that had to be made for them.

use crate::model::record::{BufferKind, MessageForm, Record, StdType};

/// What a batch is made from: the records, and the bytes that had to be made for them.
#[derive(Debug, Default)]
pub struct Lines {
    /// The records, in the order of their lines.
    pub records: Vec<Record>,
    /// Joined lines with their times.
    pub made: Vec<u8>,
    /// Lines cut at `line_bytes_max`.
    pub truncated: u64,
    /// Channel and time of each line in the records, where lines are joined (nanoseconds since 1970, 0 = none).
    pub joined: Vec<(StdType, i64)>,
}

impl Lines {
    /// Adds a record whose bytes are copied to `made`.
    pub(super) fn push_made(&mut self, std_type: StdType, line: &Whole<'_>) {
        let time_start = self.made.len() as u32;
        self.made.extend_from_slice(line.time);
        let message_start = self.made.len() as u32;
        self.made.extend_from_slice(line.text);
        self.truncated += u64::from(line.marks.truncated);
        self.records.push(Record {
            message_start,
            message_len: line.text.len() as u32,
            time_start,
            time_len: line.time.len() as u8,
            std_type,
            form: line.form,
            place: BufferKind::Made,
            truncated: line.marks.truncated,
            partial: line.marks.partial,
            continued: line.marks.continued,
        });
    }

    /// The time of a record, as Docker wrote it; `read` is the buffer that records point into.
    pub fn time<'a>(&'a self, record: &Record, read: &'a [u8]) -> &'a [u8] {
        let from = if record.place == BufferKind::Read { read } else { &self.made };
        &from[record.time_start as usize..][..usize::from(record.time_len)]
    }
}

/// How a line differs from a whole one; see [`Record`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) truncated: bool,
    pub(super) partial: bool,
    pub(super) continued: bool,
}

impl Marks {
    /// Adds the marks of another line of the same record.
    pub(super) fn add(&mut self, other: Marks) {
        self.truncated |= other.truncated;
        self.partial |= other.partial;
        self.continued |= other.continued;
    }
}

/// A line that is ready to be delivered, in whichever buffer its bytes are.
#[derive(Debug)]
pub(super) struct Whole<'a> {
    /// Where it began, in the caller's count.
    pub(super) began_at: u64,
    pub(super) time: &'a [u8],
    pub(super) text: &'a [u8],
    pub(super) form: MessageForm,
    pub(super) decoded_len: usize,
    pub(super) marks: Marks,
}

/// A line that owns its bytes.
#[derive(Debug)]
pub(super) struct Kept {
    /// Where it began, in the caller's count.
    pub(super) began_at: u64,
    pub(super) time: Vec<u8>,
    pub(super) text: Vec<u8>,
    pub(super) form: MessageForm,
    pub(super) decoded_len: usize,
    pub(super) marks: Marks,
}

impl Kept {
    pub(super) fn of(line: &Whole<'_>) -> Kept {
        Kept {
            began_at: line.began_at,
            time: line.time.to_vec(),
            text: line.text.to_vec(),
            form: line.form,
            decoded_len: line.decoded_len,
            marks: line.marks,
        }
    }

    pub(super) fn whole(&self) -> Whole<'_> {
        Whole {
            began_at: self.began_at,
            time: &self.time,
            text: &self.text,
            form: self.form,
            decoded_len: self.decoded_len,
            marks: self.marks,
        }
    }
}
