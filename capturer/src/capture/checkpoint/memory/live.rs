//! Recognizes a new live file that has the content of another log: that log was copied or restored under another name,
//! and the original removed. Then reading continues where the original was left.
//!
//! Mistaking a new log for a copy loses lines: a program may write what another one wrote before, and that is new.
//! Heads and tails are equal in both cases. Hence these further conditions:
//!
//! ```text
//! enough was read      head and tail do not overlap: what all programs of a kind print when they start is shorter
//! the original is gone no look of this run showed it as it was read, and all patterns were looked at
//! it is a copy         its content is older than the file itself (cp -a, tar, rsync -a, mv to another disk), and no younger
//!                      than what was read of the original; or it was made while nobody looked, and the original was
//!                      followed until then
//! ```
//! So a job that removes its log and writes the same again under another name is read each time while the agent runs:
//! its content is younger than its file, and younger than what was read, even if it comes from another host with its
//! times.

use super::{FilePlace, Had, Table, View};
use crate::limits::{HEAD_BYTES, TAIL_BYTES};
use crate::model::cursor::FileId;
use crate::model::record::StreamKey;

/// Facts about a live file.
#[derive(Clone, Copy, Debug)]
pub struct LiveFile<'a> {
    /// Which file it is.
    pub id: FileId,
    /// How long it is.
    pub len: u64,
    /// Its first bytes.
    pub head: &'a [u8],
    /// When its content last changed, nanoseconds since 1970.
    pub modified_ns: i64,
}

/// A file missed this shortly before the end of a run did not disappear while nobody looked. Longer than a path may be
/// missing before its stream ends.
const MISSED_S: u64 = 60;

/// At least this much of the original must have been read.
const READ_BYTES_MIN: u64 = (HEAD_BYTES + TAIL_BYTES) as u64;

impl Table {
    /// Nobody looked between these times, nanoseconds since 1970; from now on what no look showed is gone.
    pub fn all_seen(&mut self, from_ns: i64, to_ns: i64) {
        self.unseen_ns = Some((from_ns, to_ns));
    }

    /// A file is not there any more, until a look shows it again.
    pub(super) fn miss(&mut self, file: FileId) {
        if let Some(had) = self.had_mut(file) {
            had.is_there = false;
        }
    }

    /// The file that a stream stands in is not there any more. A sink has it up to that place since `read_s`, seconds since
    /// 1970.
    pub fn miss_log(&mut self, log: &StreamKey, sink: &str, place: FilePlace, read_s: u64) {
        self.note_read(log, sink, place, read_s);
        self.miss(place.file);
    }

    /// The run that ended then had missed a file in which a stream of it stood.
    pub(super) fn was_missed(&self, log: &StreamKey, file: FileId, ended_s: u64) -> bool {
        let sinks = self.logs.get(log).into_iter().flat_map(|log| log.sinks.values());
        let mut noted = sinks.filter_map(|sink| sink.files.get(&file));
        noted.any(|(at_s, _)| at_s + MISSED_S >= ended_s && *at_s > 0)
    }
}

impl View<'_> {
    /// Where reading of a live file goes on; `None` = it is a log of its own. `is_here` as in [`View::moved`].
    pub fn moved_live(
        &self,
        file: LiveFile<'_>,
        is_here: impl Fn(&FilePlace) -> Option<bool>,
    ) -> Option<FilePlace> {
        let (from_ns, to_ns) = self.table.unseen_ns?;
        let born_ns = file.id.birth_ns;
        let has_old_content = file.modified_ns < born_ns;
        let is_made_unseen = from_ns < born_ns && born_ns <= to_ns;
        if born_ns == 0 || !(has_old_content || is_made_unseen) {
            return None;
        }
        let modified_s = u64::try_from(file.modified_ns / 1_000_000_000).unwrap_or(0);
        let is_copy_of =
            |had: &Had| has_old_content && modified_s <= had.read_s || is_made_unseen && had.was_followed;
        let fits = |place: &FilePlace| {
            place.file != file.id
                && (READ_BYTES_MIN..=file.len).contains(&place.offset)
                && self.table.log_of.get(&(place.file.device, place.file.inode)).is_some_and(is_copy_of)
        };
        self.moved(file.head, fits, is_here)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cursor::{Cursor, FileCursor, HeadPrint, TailPrint};
    use crate::settings::Remember;
    use std::sync::Arc;

    /// When the run before ended, the first look of this one, and now.
    const ENDED_S: u64 = 1_000;
    const LOOKED_S: u64 = 2_000;
    const NOW_S: u64 = 5_000;
    const LEN: u64 = 3_000;

    fn ns(seconds: u64) -> i64 {
        seconds as i64 * 1_000_000_000
    }

    const HEAD: [&[u8]; 2] = [&[b'a'; HEAD_BYTES], &[b'b'; HEAD_BYTES]];

    /// Where the original was left, `offset` bytes behind its beginning.
    fn place(offset: u64) -> FilePlace {
        FilePlace {
            file: FileId { device: 1, inode: 10, birth_ns: ns(500) },
            head: HeadPrint { len_bytes: HEAD_BYTES as u32, crc32: crc32fast::hash(HEAD[0]) },
            tail: TailPrint { end: offset, len_bytes: TAIL_BYTES as u32, crc32: 7 },
            offset,
            skip: [0; 2],
        }
    }

    /// A live file with the same beginning.
    fn found(born_s: u64, modified_s: u64) -> LiveFile<'static> {
        let id = FileId { device: 1, inode: 20, birth_ns: ns(born_s) };
        LiveFile { id, len: LEN + 100, head: HEAD[0], modified_ns: ns(modified_s) }
    }

    /// A table in which a stream stood in the original when the run before ended, and all patterns were looked at.
    fn followed(offset: u64) -> Table {
        let mut table = Table::default();
        table.set_bounds(Remember::default());
        let cursor = Cursor::File(Arc::new(FileCursor::at(place(offset))));
        table.know(&StreamKey::file("/app.log"), "file", &cursor, ENDED_S);
        table.set_now(ns(NOW_S));
        table.all_seen(ns(ENDED_S), ns(LOOKED_S));
        table
    }

    fn goes_on_at(table: &Table, file: LiveFile<'_>) -> Option<u64> {
        table.of(&["file".to_owned()], true).moved_live(file, |_| None).map(|place| place.offset)
    }

    #[test]
    fn a_copy_that_was_made_while_nobody_looked_goes_on_where_its_original_was_left() {
        let table = followed(LEN);
        // cp, and cp -a; with lines that came before anybody looked, and at the last moment.
        for (born_s, modified_s) in [(1_500, 1_500), (1_500, 900), (1_500, 1_900), (2_000, 2_100)] {
            assert_eq!(goes_on_at(&table, found(born_s, modified_s)), Some(LEN), "{born_s} {modified_s}");
        }
        // The original is there, but emptied.
        let mut table = followed(LEN);
        table.see([(place(LEN).file, LEN - 1)]);
        assert_eq!(goes_on_at(&table, found(1_500, 1_500)), Some(LEN));
    }

    /// Its lines would be lost.
    #[test]
    fn what_may_be_the_log_of_another_program_is_read_from_its_beginning() {
        let copy = || found(1_500, 1_500);
        let check = |what: &str, table: &Table, file: LiveFile<'_>| {
            assert_eq!(goes_on_at(table, file), None, "{what}");
        };
        let mut shown = followed(LEN);
        shown.see([(place(LEN).file, LEN)]);
        check("the original is there", &shown, copy());
        check("the same, with its times", &shown, found(1_500, 900));
        let mut unlooked = followed(LEN);
        unlooked.unseen_ns = None;
        check("a pattern that was not looked at may show the original", &unlooked, copy());
        check("what programs of a kind print when they start", &followed(READ_BYTES_MIN - 1), copy());
        check("shorter than what was read", &followed(LEN), LiveFile { len: LEN - 1, ..copy() });
        check("begins otherwise", &followed(LEN), LiveFile { head: HEAD[1], ..copy() });
        check("of a file system without birth times", &followed(LEN), found(0, 900));
        check("there before the last run ended", &followed(LEN), found(999, 1_500));
        check("a job that writes the same again", &followed(LEN), found(2_001, 2_001));
        check("the same, slowly", &followed(LEN), found(2_001, 3_000));
        check("brought from a host where a job wrote the same again", &followed(LEN), found(4_000, 3_000));
        // Nobody knows when it went.
        let mut left = Table::default();
        left.set_bounds(Remember::default());
        left.set_now(ns(900));
        left.note(&StreamKey::file("/app.log"), "file", place(LEN));
        left.all_seen(ns(ENDED_S), ns(LOOKED_S));
        check("an original that was gone before", &left, copy());
        assert_eq!(goes_on_at(&left, found(1_500, 900)), Some(LEN), "restored, with its times");
        let mut of_container = Table::default();
        of_container.set_bounds(Remember::default());
        let cursor = Cursor::File(Arc::new(FileCursor::at(place(LEN))));
        of_container.know(&StreamKey::container("c"), "file", &cursor, ENDED_S);
        of_container.all_seen(ns(ENDED_S), ns(LOOKED_S));
        check("a container's log", &of_container, copy());
    }

    /// In this run: a look shows it, then it is missed, and comes back with its times.
    #[test]
    fn a_log_that_went_is_known_when_it_is_restored_elsewhere() {
        let (mut table, log) = (followed(LEN), StreamKey::file("/app.log"));
        let restored = || found(4_900, 3_000);
        table.see([(place(LEN).file, LEN + 50)]);
        table.miss_log(&log, "file", place(LEN + 50), 3_000);
        assert_eq!(goes_on_at(&table, restored()), Some(LEN + 50));
        assert_eq!(goes_on_at(&table, found(4_900, 3_001)), None, "younger than what was read");
        assert_eq!(goes_on_at(&table, found(4_900, 4_900)), None, "as a job writes it");
        table.see([(place(LEN).file, LEN + 50)]);
        assert_eq!(goes_on_at(&table, restored()), None, "it is back");
        // Left for good; an index made anew keeps what is known.
        let cursor = Cursor::File(Arc::new(FileCursor::at(place(LEN + 50))));
        table.leave(&log, "file", 0, cursor, 3_000);
        assert_eq!(goes_on_at(&table, restored()), Some(LEN + 50));
        table.index();
        assert_eq!(goes_on_at(&table, restored()), Some(LEN + 50));
        assert_eq!(goes_on_at(&table, found(4_900, 3_001)), None, "still");
    }

    /// Its job had removed it just before the agent was stopped, and wrote the same again before that was back.
    #[test]
    fn what_was_missed_before_the_run_ended_did_not_go_while_nobody_looked() {
        let log = StreamKey::file("/app.log");
        let cursor = Cursor::File(Arc::new(FileCursor::at(place(LEN))));
        for (missed_s, expected) in
            [(Some(ENDED_S - 10), None), (Some(ENDED_S - 100), Some(LEN)), (None, Some(LEN))]
        {
            let mut before = Table::default();
            before.set_bounds(Remember::default());
            before.know(&log, "file", &cursor, 500);
            before.set_now(ns(missed_s.unwrap_or(ENDED_S)));
            before.see([(place(LEN).file, LEN)]);
            missed_s.iter().for_each(|_| before.miss_log(&log, "file", place(LEN), 500));
            let mut table = Table::new(before.take_unsaved());
            table.set_bounds(Remember::default());
            table.know(&log, "file", &cursor, ENDED_S);
            table.all_seen(ns(ENDED_S), ns(LOOKED_S));
            assert_eq!(goes_on_at(&table, found(1_500, 1_500)), expected, "{missed_s:?}");
        }
    }

    /// Several names of one file: each log that had it may have lines of it in its output.
    #[test]
    fn all_logs_that_had_a_file_are_known() {
        let (mut table, file) = (followed(LEN), place(LEN).file);
        let logs = |table: &Table| -> Vec<StreamKey> { table.logs_of(file).cloned().collect() };
        let (app, web) = (StreamKey::file("/app.log"), StreamKey::file("/web.log"));
        assert_eq!(logs(&table), std::slice::from_ref(&app));
        table.note(&web, "file", place(LEN));
        assert_eq!(logs(&table), [web.clone(), app.clone()]);
        table.index();
        assert_eq!(logs(&table), [web, app]);
    }
}
