//! What was delivered of a json-file log, by times, and which of its lines were delivered over the API before. With it
//! a stream changes between the API and the files, between runs and within one, without losing its place.
//!
//! While files are read, the API cursor for the same line is kept ([`ApiCursor`]). [`SkipDelivered`] is for the way back:
//! lines of the files are skipped up to the last one delivered over the API.
//!
//! What may repeat: if the clock was set back within the kept log, a line whose time is newer than the mark may be
//! before it, and reading begins there. Nothing else repeats: lines with equal times are counted.

use crate::decode::assemble::Lines;
use crate::decode::timestamp;
use crate::model::cursor::{ApiCursor, ChannelMark, FileId};
use crate::model::rare::Begins;
use crate::model::record::StdType;

/// Updates the cursor by the records of a batch. It only looks at the last record of each channel, so it costs nothing
/// per line.
pub fn note(cursor: &mut ApiCursor, lines: &Lines, read: &[u8]) {
    if !lines.joined.is_empty() {
        return note_joined(cursor, &lines.joined);
    }
    let Some(last) = lines.records.last() else { return };
    let last_time = lines.time(last, read);
    let Some(last_ns) = timestamp::parse(last_time) else { return };
    for std_type in StdType::ALL {
        let mut of_channel = lines.records.iter().rev().filter(|record| record.std_type == std_type);
        let Some(newest) = of_channel.next() else { continue };
        let time = lines.time(newest, read);
        let Some(time_ns) = timestamp::parse(time) else { continue };
        let mut count = 1;
        let mut begins_here = false;
        for record in of_channel {
            if lines.time(record, read) != time {
                begins_here = true;
                break;
            }
            count += 1;
        }
        let mark = &mut cursor.channels[std_type.index()];
        if !begins_here && mark.time_ns == time_ns {
            count += mark.count;
        }
        *mark = ChannelMark { time_ns, count };
    }
    let before = lines.records.iter().rev().find(|record| lines.time(record, read) != last_time);
    let before = before.and_then(|record| timestamp::parse(lines.time(record, read)));
    let older = [before, Some(cursor.last_ns), Some(cursor.older_ns)];
    cursor.older_ns = older.into_iter().flatten().find(|time| *time > 0 && *time < last_ns).unwrap_or(0);
    cursor.last_ns = last_ns;
}

/// For records of several lines: one line after the other.
fn note_joined(cursor: &mut ApiCursor, joined: &[(StdType, i64)]) {
    for (std_type, time_ns) in joined.iter().copied().filter(|(_, time_ns)| *time_ns > 0) {
        cursor.channels[std_type.index()].count_in(time_ns);
        let older = [cursor.last_ns, cursor.older_ns];
        cursor.older_ns = older.into_iter().find(|time| *time > 0 && *time < time_ns).unwrap_or(0);
        cursor.last_ns = time_ns;
    }
}

impl Begins for SkipDelivered {
    const BEGINNING: &'static SkipDelivered = &SkipDelivered {
        marks: [ChannelMark { time_ns: 0, count: 0 }; 2],
        counted: [false; 2],
        gap_after_ns: None,
        stood_in: None,
        until: None,
    };
}

/// Lines that are still to be skipped: see the head of this file.
#[derive(Debug, Default, PartialEq)]
pub struct SkipDelivered {
    /// As in the cursor.
    pub marks: [ChannelMark; 2],
    /// Per channel: the line that began last is one of those in `count`.
    counted: [bool; 2],
    /// Time of the last delivered line, until the first line shows whether it is still there.
    gap_after_ns: Option<i64>,
    /// The file that had the last delivered line, if known.
    stood_in: Option<FileId>,
    /// Lines from this logical position on are new, whatever their time.
    until: Option<u64>,
}

/// The first line found is newer than the last delivered one, which is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Time of the last delivered line.
    pub after_ns: i64,
    /// Both lines were in the same file, so it was emptied, and the log was not rotated: whether anything was between
    /// them is unknown.
    pub emptied: bool,
}

impl SkipDelivered {
    /// Skips what this cursor delivered.
    pub fn up_to(cursor: &ApiCursor) -> SkipDelivered {
        SkipDelivered {
            marks: cursor.channels,
            counted: [false; 2],
            gap_after_ns: cursor.has_lines().then_some(cursor.last_ns),
            stood_in: None,
            until: None,
        }
    }

    /// Skips what a rewritten file repeats, up to this logical position.
    pub fn again(cursor: &ApiCursor, until: u64) -> SkipDelivered {
        SkipDelivered { marks: cursor.channels, until: Some(until), ..SkipDelivered::default() }
    }

    /// Whether a line at this logical position may repeat what was read before the file was rewritten.
    pub fn is_again(&self, position: u64) -> bool {
        self.until.is_some_and(|until| (until.wrapping_sub(position) as i64) > 0)
    }

    /// Whether it is about a rewritten file, see [`SkipDelivered::again`].
    pub fn has_end(&self) -> bool {
        self.until.is_some()
    }

    /// Whether a line at this logical position is behind everything that a rewritten file can repeat.
    pub fn is_behind(&self, position: u64) -> bool {
        self.until.is_some() && !self.is_again(position)
    }

    /// The last delivered line was in this file.
    pub fn delivered_from(&mut self, file: FileId) {
        self.stood_in = Some(file);
    }

    /// Resumes skipping after a restart.
    pub fn resume(marks: [ChannelMark; 2]) -> SkipDelivered {
        SkipDelivered { marks, ..SkipDelivered::default() }
    }

    /// Nothing is skipped any more: lines need not be looked at.
    pub fn is_over(&self) -> bool {
        self.marks.iter().all(|mark| mark.time_ns == 0) && self.gap_after_ns.is_none()
    }

    /// A line with this time begins; returns whether it was delivered.
    pub fn begins(&mut self, std_type: StdType, time_ns: i64) -> bool {
        let channel = std_type.index();
        let mark = &mut self.marks[channel];
        self.counted[channel] = mark.time_ns == time_ns && mark.count > 0;
        if time_ns > mark.time_ns || (time_ns == mark.time_ns && mark.count == 0) {
            *mark = ChannelMark::default();
        }
        mark.time_ns > 0
    }

    /// The line that began last is complete.
    pub fn completed(&mut self, std_type: StdType) {
        let channel = std_type.index();
        if std::mem::take(&mut self.counted[channel]) {
            let mark = &mut self.marks[channel];
            mark.count -= 1;
            if mark.count == 0 {
                *mark = ChannelMark::default();
            }
        }
    }

    /// The first line of all has this time and is in `file`. Returns a gap if neither the last delivered line nor an
    /// older one is there.
    pub fn gap_before(&mut self, first_ns: i64, file: Option<FileId>) -> Option<Gap> {
        let after_ns = self.gap_after_ns.take().filter(|last| first_ns > *last)?;
        Some(Gap { after_ns, emptied: file.is_some() && file == self.stood_in })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::record::{BufferKind, MessageForm, Record};

    /// Batches of (channel, nanoseconds) lines; the cursor after each.
    fn after(batches: &[&[(StdType, i64)]]) -> Vec<ApiCursor> {
        let mut cursor = ApiCursor::default();
        let note_batch = |batch: &&[(StdType, i64)]| {
            let (mut read, mut lines) = (Vec::new(), Lines::default());
            for (std_type, time_ns) in *batch {
                let time = timestamp::format(*time_ns);
                lines.records.push(Record {
                    message_start: 0,
                    message_len: 0,
                    time_start: read.len() as u32,
                    time_len: time.len() as u8,
                    std_type: *std_type,
                    form: MessageForm::Raw,
                    place: BufferKind::Read,
                    truncated: false,
                    partial: false,
                    continued: false,
                });
                read.extend_from_slice(time.as_bytes());
            }
            note(&mut cursor, &lines, &read);
            cursor
        };
        batches.iter().map(note_batch).collect()
    }

    #[test]
    fn the_cursor_says_what_was_read() {
        use StdType::{Stderr, Stdout};
        let cursors =
            after(&[&[(Stdout, 10), (Stdout, 20), (Stderr, 15)], &[(Stdout, 20)], &[], &[(Stderr, 30)]]);
        let mark = |time_ns, count| ChannelMark { time_ns, count };
        assert_eq!(cursors[0].channels, [mark(20, 1), mark(15, 1)]);
        assert_eq!((cursors[0].last_ns, cursors[0].older_ns), (15, 0));
        assert_eq!(cursors[1].channels, [mark(20, 2), mark(15, 1)]);
        assert_eq!((cursors[1].last_ns, cursors[1].older_ns), (20, 15));
        assert_eq!(cursors[2], cursors[1]);
        assert_eq!(cursors[3].channels, [mark(20, 2), mark(30, 1)]);
        assert_eq!((cursors[3].last_ns, cursors[3].older_ns), (30, 20));
    }

    fn delivered(skip: &mut SkipDelivered, times: &[i64]) -> Vec<bool> {
        let line = |time: &i64| {
            let delivered = skip.begins(StdType::Stdout, *time);
            skip.completed(StdType::Stdout);
            delivered
        };
        times.iter().map(line).collect()
    }

    #[test]
    fn lines_are_passed_over_up_to_the_mark() {
        let mark = ChannelMark { time_ns: 20, count: 2 };
        let cursor =
            ApiCursor { channels: [mark, ChannelMark::default()], last_ns: 20, ..Default::default() };
        let mut skip = SkipDelivered::up_to(&cursor);
        assert_eq!(skip.gap_before(10, None), None);
        assert_eq!(delivered(&mut skip, &[10, 20, 20, 20, 15, 30]), [true, true, true, false, false, false]);
        assert!(skip.is_over());
        // None of the delivered lines is there any more.
        let mut skip = SkipDelivered::up_to(&cursor);
        assert_eq!(skip.gap_before(21, None), Some(Gap { after_ns: 20, emptied: false }));
        assert_eq!(delivered(&mut skip, &[21]), [false]);
        // The line is not there, but the file is the one that had it.
        let [file, other] = [1, 2].map(|inode| FileId { device: 1, inode, birth_ns: 9 });
        for (first, emptied) in [(file, true), (other, false)] {
            let mut skip = SkipDelivered::up_to(&cursor);
            skip.delivered_from(file);
            assert_eq!(skip.gap_before(21, Some(first)), Some(Gap { after_ns: 20, emptied }));
        }
        // Begun at the end: older lines are not wanted, and nothing is missed.
        let mut skip = SkipDelivered::up_to(&ApiCursor::after(20));
        assert_eq!(skip.gap_before(30, None), None);
        assert_eq!(delivered(&mut skip, &[19, 20, 21]), [true, false, false]);
    }

    /// Otherwise a crash while a long line is being skipped would deliver it twice.
    #[test]
    fn a_line_counts_when_it_is_complete() {
        let mut skip = SkipDelivered::resume([ChannelMark { time_ns: 20, count: 1 }, ChannelMark::default()]);
        assert!(skip.begins(StdType::Stdout, 20));
        assert_eq!(skip.marks[0].count, 1);
        skip.completed(StdType::Stdout);
        assert!(skip.is_over());
    }
}
