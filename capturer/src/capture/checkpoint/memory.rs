//! The table of files read: where every file was left, by its identity, and which log it belonged to; and where logs
//! were left that nobody reads now. An entry is removed by age or number, never because its file is missing: a path
//! comes back, a file system is mounted late, a container is renamed out of the captured ones and in again.
//!
//! Positions of running streams are not here but in their cursors (tracker.rs), which take precedence.
//!
//! Not here: how it is saved (journal.rs).

mod begun;
mod heads;
mod live;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::cursor::{Cursor, FileId, FilePlace, HeadPrint, TailPrint};
use crate::model::record::StreamKey;
use crate::settings::Remember;
use begun::Begun;
pub use begun::beginning_of;
use heads::Heads;
pub use live::LiveFile;

/// An entry that is seen again is written again when it is this old: often enough not to expire, rarely enough to cost
/// nothing.
const TOUCH_AFTER_S: u64 = 24 * 60 * 60;

/// What is remembered of a log, by sink.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogMemory {
    /// By the sink's name.
    pub sinks: BTreeMap<String, SinkMemory>,
}

/// One sink's positions in a log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkMemory {
    /// Where it was left, if no stream reads it: seconds since 1970, rank among the sinks, position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<(u64, u32, Cursor)>,
    /// Files that were read to their ends.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", with = "as_list")]
    pub files: BTreeMap<FileId, (u64, FilePlace)>,
}

/// A file's line: device, inode, birth, head (length, sum), offset, tail (end, length, sum), seconds since 1970.
type Row = (u64, u64, i64, u32, u32, u64, u64, u32, u32, u64);

mod as_list {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        files: &BTreeMap<FileId, (u64, FilePlace)>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let row = |(at_s, place): &(u64, FilePlace)| -> Row {
            let FilePlace { file, head, tail, offset, .. } = *place;
            let (id, head) = ((file.device, file.inode, file.birth_ns), (head.len_bytes, head.crc32));
            (id.0, id.1, id.2, head.0, head.1, offset, tail.end, tail.len_bytes, tail.crc32, *at_s)
        };
        serializer.collect_seq(files.values().map(row))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<FileId, (u64, FilePlace)>, D::Error> {
        let rows = Vec::<Row>::deserialize(deserializer)?;
        let place = |row: Row| {
            let file = FileId { device: row.0, inode: row.1, birth_ns: row.2 };
            let head = HeadPrint { len_bytes: row.3, crc32: row.4 };
            let tail = TailPrint { end: row.6, len_bytes: row.7, crc32: row.8 };
            (file, (row.9, FilePlace { file, head, tail, offset: row.5, skip: [0; 2] }))
        };
        Ok(rows.into_iter().map(place).collect())
    }
}

impl LogMemory {
    /// Takes what came later.
    pub fn absorb(&mut self, newer: LogMemory) {
        for (sink, newer) in newer.sinks {
            let known = self.sinks.entry(sink).or_default();
            known.left = newer.left.or(known.left.take());
            known.files.extend(newer.files);
        }
    }
}

/// Everything remembered, by log.
pub type Logs = BTreeMap<StreamKey, LogMemory>;

/// Takes what came later.
pub fn absorb(logs: &mut Logs, newer: Logs) {
    for (log, newer) in newer {
        logs.entry(log).or_default().absorb(newer);
    }
}

/// Removes what is too old, and the oldest of what is too much. Returns how many files are left.
pub fn prune(logs: &mut Logs, remember: &Remember, now_s: u64) -> usize {
    let entries =
        |logs: &Logs| logs.values().flat_map(|log| log.sinks.values()).map(|sink| sink.files.len()).sum();
    let mut oldest_s = now_s.saturating_sub(remember.age.as_secs());
    let count: usize = entries(logs);
    if count > remember.files {
        let files = logs.values().flat_map(|log| log.sinks.values()).flat_map(|sink| sink.files.values());
        let mut times: Vec<u64> = files.map(|(at_s, _)| *at_s).collect();
        // A tenth more, so that not every new file brings another look at all of them.
        let excess = (count - remember.files + remember.files / 10).min(count - 1);
        let (_, at_s, _) = times.select_nth_unstable(excess);
        oldest_s = oldest_s.max(*at_s);
    }
    logs.retain(|_, log| {
        log.sinks.retain(|_, sink| {
            sink.files.retain(|_, (at_s, _)| *at_s >= oldest_s);
            sink.left = sink.left.take().filter(|(at_s, ..)| *at_s >= oldest_s);
            sink.left.is_some() || !sink.files.is_empty()
        });
        !log.sinks.is_empty()
    });
    entries(logs)
}

/// The table; see the head of this file.
#[derive(Debug, Default)]
pub struct Table {
    logs: Logs,
    /// The log that had a file last; without the birth time, which may be unknown.
    log_of: BTreeMap<(u64, u64), Had>,
    /// Logs that had it before, where it had several names.
    had_before: BTreeMap<(u64, u64), BTreeSet<StreamKey>>,
    heads: Heads,
    begun: Begun,
    remember: Remember,
    /// Files in it, once for each sink.
    files: usize,
    now_s: u64,
    /// When nobody looked: from the last save of the run before until the first look at all patterns of this one,
    /// nanoseconds since 1970. `None` = some pattern was not looked at yet.
    unseen_ns: Option<(i64, i64)>,
    /// What is not on disk: since the last save was ordered, and what that one saves.
    changed: Logs,
    saving: Logs,
}

/// Which log had a file.
#[derive(Clone, Debug)]
struct Had {
    log: StreamKey,
    /// A look at the patterns of this run showed it, as long as it was read.
    is_there: bool,
    /// A stream stood in it when the run before this one ended, and its path was there.
    was_followed: bool,
    /// Nothing of it was read after this time, seconds since 1970.
    read_s: u64,
}

/// A table as it counts for some sinks.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    table: &'a Table,
    sinks: &'a [String],
    /// Of followed paths; else of containers. A container's file may be followed as a path too, for another purpose.
    of_paths: bool,
}

impl Table {
    /// Begins with what was loaded.
    pub fn new(logs: Logs) -> Table {
        let mut table = Table { logs, ..Table::default() };
        table.index();
        table
    }

    /// Bounds from now on.
    pub fn set_bounds(&mut self, remember: Remember) {
        self.remember = remember;
    }

    /// How much is remembered, and for how long.
    pub fn bounds(&self) -> Remember {
        self.remember
    }

    /// Sets the time that ages are counted from.
    pub fn set_now(&mut self, unix_ns: i64) {
        self.now_s = u64::try_from(unix_ns / 1_000_000_000).unwrap_or(0);
    }

    /// The time it was told last, seconds since 1970.
    pub fn now_s(&self) -> u64 {
        self.now_s
    }

    /// When a log was left last, seconds since 1970.
    pub fn left_at_s(&self, log: &StreamKey) -> Option<u64> {
        let sinks = self.logs.get(log)?.sinks.values();
        sinks.filter_map(|sink| sink.left.as_ref()).map(|(at_s, ..)| *at_s).max()
    }

    /// A number may stand under several logs: it belongs to the one that had it before, else to the one that noted it last.
    fn index(&mut self) {
        let before = std::mem::take(&mut self.log_of);
        self.had_before.clear();
        self.heads = Heads::default();
        self.files = 0;
        let mut noted_s: BTreeMap<(u64, u64), u64> = BTreeMap::new();
        for (key, log) in &self.logs {
            for (id, (at_s, place)) in log.sinks.values().flat_map(|sink| &sink.files) {
                self.heads.put(key, place);
                self.files += 1;
                let number = (id.device, id.inode);
                let (before, had) = (before.get(&number), self.log_of.get(&number));
                let is_of = |log: &StreamKey| before.is_some_and(|before| before.log == *log);
                let noted_s = noted_s.entry(number).or_default();
                let is_last = is_of(key) || had.is_none_or(|had| !is_of(&had.log) && *at_s >= *noted_s);
                if !is_last {
                    if self.log_of.get(&number).is_some_and(|had| had.log != *key) {
                        self.had_before.entry(number).or_default().insert(key.clone());
                    }
                    continue;
                }
                *noted_s = *at_s;
                let new = Had { log: key.clone(), is_there: false, was_followed: false, read_s: *at_s };
                let had = before.map_or(new, |before| Had { log: key.clone(), ..before.clone() });
                if let Some(other) = self.log_of.insert(number, had).filter(|other| other.log != *key) {
                    self.had_before.entry(number).or_default().insert(other.log);
                }
            }
        }
    }

    /// A sink of this run that the last one did not have: it has what the others have.
    pub fn add_sink(&mut self, name: &str, has_position: impl Fn(&StreamKey) -> bool) {
        for (key, log) in &mut self.logs {
            if !log.sinks.contains_key(name)
                && !has_position(key)
                && let Some(other) = log.sinks.values().next().cloned()
            {
                self.files += other.files.len();
                log.sinks.insert(name.to_owned(), other);
            }
        }
    }

    /// A stream of the last run stood there: the file is known whatever name it is found under. Those that it had reached
    /// with a line open are not: their lines begin before, and they are read again from their beginning. That run ended at
    /// `ended_s`, seconds since 1970.
    pub fn know(&mut self, log: &StreamKey, sink: &str, cursor: &Cursor, ended_s: u64) {
        if let Cursor::File(position) = cursor {
            let was_missed = self.was_missed(log, position.file, ended_s);
            self.put(log, sink, position.place(), ended_s);
            if let Some(had) = self.had_mut(position.file) {
                had.was_followed |= !was_missed;
            }
        }
    }

    fn put(&mut self, log: &StreamKey, sink: &str, place: FilePlace, read_s: u64) {
        let sinks = &mut self.logs.entry(log.clone()).or_default().sinks;
        let files = &mut sinks.entry(sink.to_owned()).or_default().files;
        let before = files.insert(place.file, (self.now_s, place));
        self.files += usize::from(before.is_none());
        before.iter().for_each(|(_, before)| self.heads.remove(before));
        self.heads.put(log, &place);
        let number = (place.file.device, place.file.inode);
        let new = Had { log: log.clone(), is_there: false, was_followed: false, read_s };
        let had = self.log_of.get(&number).filter(|_| before.is_some());
        let had =
            had.map_or(new, |had| Had { log: log.clone(), read_s: had.read_s.max(read_s), ..had.clone() });
        if let Some(other) = self.log_of.insert(number, had).filter(|other| other.log != *log) {
            self.had_before.entry(number).or_default().insert(other.log);
        }
    }

    fn had_mut(&mut self, file: FileId) -> Option<&mut Had> {
        self.log_of.get_mut(&(file.device, file.inode))
    }

    /// A sink has a file up to there.
    pub fn note(&mut self, log: &StreamKey, sink: &str, place: FilePlace) {
        self.note_read(log, sink, place, self.now_s);
    }

    fn note_read(&mut self, log: &StreamKey, sink: &str, place: FilePlace, read_s: u64) {
        self.put(log, sink, place, read_s);
        let sinks = &mut self.changed.entry(log.clone()).or_default().sinks;
        sinks.entry(sink.to_owned()).or_default().files.insert(place.file, (self.now_s, place));
        if self.files > self.remember.files + self.remember.files / 10 {
            self.prune();
        }
    }

    fn prune(&mut self) {
        prune(&mut self.logs, &self.remember, self.now_s);
        self.index();
    }

    /// Nobody reads a log any more; a sink has it up to there, since `read_s`, seconds since 1970.
    pub fn leave(&mut self, log: &StreamKey, sink: &str, rank: u32, cursor: Cursor, read_s: u64) {
        if cursor == Cursor::Beginning {
            return;
        }
        // Its file may be found under another name, by another stream.
        if let Cursor::File(position) = &cursor {
            self.note_read(log, sink, FilePlace { skip: [0; 2], ..position.place() }, read_s);
            self.miss(position.file);
        }
        for logs in [&mut self.logs, &mut self.changed] {
            let sinks = &mut logs.entry(log.clone()).or_default().sinks;
            sinks.entry(sink.to_owned()).or_default().left = Some((self.now_s, rank, cursor.clone()));
        }
    }

    /// Files that still are there, and how long they are. One that is shorter than what was read of it holds something else.
    pub fn see(&mut self, found: impl IntoIterator<Item = (FileId, u64)>) {
        for (id, len) in found {
            let Some(Had { log: key, is_there, .. }) = self.log_of.get_mut(&(id.device, id.inode)) else {
                continue;
            };
            let Some(log) = self.logs.get_mut(key) else { continue };
            let mut places = log.sinks.values().filter_map(|sink| sink.files.get(&id));
            *is_there |= places.any(|(_, place)| place.offset <= len);
            for (name, sink) in &mut log.sinks {
                let is_old = |at_s: u64| at_s + TOUCH_AFTER_S < self.now_s;
                let old = sink.files.get_mut(&id).filter(|(at_s, _)| is_old(*at_s));
                if let Some((at_s, place)) = old {
                    // Where a stream of the last run stood is in its cursor, and needs no line.
                    let is_known = std::mem::replace(at_s, self.now_s) == 0;
                    if is_known {
                        continue;
                    }
                    let sinks = &mut self.changed.entry(key.clone()).or_default().sinks;
                    sinks.entry(name.clone()).or_default().files.insert(id, (*at_s, *place));
                }
            }
        }
    }

    /// Where these sinks were left with a log: the one that is furthest behind.
    pub fn left(&self, log: &StreamKey, sinks: &[String]) -> Option<&Cursor> {
        let of_sinks = self.logs.get(log)?.sinks.iter().filter(|(name, _)| sinks.contains(name));
        let left = of_sinks.filter_map(|(_, sink)| sink.left.as_ref());
        left.min_by_key(|(_, rank, _)| *rank).map(|(_, _, cursor)| cursor)
    }

    /// The log that had a file last.
    pub fn log_of(&self, file: FileId) -> Option<&StreamKey> {
        let key = &self.log_of.get(&(file.device, file.inode))?.log;
        let has = |sink: &SinkMemory| sink.files.contains_key(&file);
        self.logs.get(key)?.sinks.values().any(has).then_some(key)
    }

    /// All logs that had a file, or another of its number.
    pub fn logs_of(&self, file: FileId) -> impl Iterator<Item = &StreamKey> {
        let number = (file.device, file.inode);
        let last = self.log_of.get(&number).map(|had| &had.log);
        last.into_iter().chain(self.had_before.get(&number).into_iter().flatten())
    }

    /// What counts for these sinks.
    pub fn of<'a>(&'a self, sinks: &'a [String], of_paths: bool) -> View<'a> {
        View { table: self, sinks, of_paths }
    }

    /// What to save.
    pub fn take_unsaved(&mut self) -> Logs {
        absorb(&mut self.saving, std::mem::take(&mut self.changed));
        self.saving.clone()
    }

    /// It was saved.
    pub fn on_saved(&mut self) {
        self.saving.clear();
    }
}

impl View<'_> {
    /// Files of a log that all the sinks have, up to where the one furthest behind is; those that were read last come last.
    pub fn places(&self, log: &StreamKey) -> Vec<FilePlace> {
        let Some(memory) = self.table.logs.get(log) else { return Vec::new() };
        let mut times: BTreeMap<FileId, u64> = BTreeMap::new();
        for (id, (at_s, _)) in memory.sinks.values().flat_map(|sink| &sink.files) {
            times.entry(*id).and_modify(|time| *time = (*time).max(*at_s)).or_insert(*at_s);
        }
        let mut ids: Vec<(u64, FileId)> = times.into_iter().map(|(id, at_s)| (at_s, id)).collect();
        ids.sort_unstable();
        ids.into_iter().filter_map(|(_, id)| self.lowest(memory, id)).collect()
    }

    /// Where the sink that is furthest behind has a file; `None` if one of them does not have it at all.
    fn lowest(&self, memory: &LogMemory, file: FileId) -> Option<FilePlace> {
        let place_in = |sink: &SinkMemory| sink.files.get(&file).map(|(_, place)| *place);
        // Standard output keeps no position, and begins where the others are.
        let places: Option<Vec<FilePlace>> = if self.sinks.is_empty() {
            memory.sinks.values().map(place_in).collect()
        } else {
            self.sinks.iter().map(|name| place_in(memory.sinks.get(name)?)).collect()
        };
        places?.into_iter().min_by_key(|place| place.offset)
    }

    /// Where a file was left, whatever log it belonged to.
    pub fn place_of(&self, file: FileId) -> Option<FilePlace> {
        let key = self.table.log_of(file)?;
        let is_path = key.0.starts_with("file:");
        if file.birth_ns == 0 || is_path != self.of_paths {
            return None;
        }
        self.lowest(self.table.logs.get(key)?, file)
    }

    /// Whether a file of any log begins so. Looks at all that is remembered.
    pub fn any_head(&self, is_it: impl Fn(&HeadPrint) -> bool) -> bool {
        let sinks = self.table.logs.values().flat_map(|log| log.sinks.values());
        sinks.flat_map(|sink| sink.files.values()).any(|(_, place)| is_it(&place.head))
    }

    /// Where a file was left that began with these bytes, whatever log it belonged to: of those that fit the one that was read
    /// furthest. `is_here` says whether a file stands as it was read; what it does not know is here if a look showed it.
    pub fn moved(
        &self,
        head: &[u8],
        fits: impl Fn(&FilePlace) -> bool,
        is_here: impl Fn(&FilePlace) -> Option<bool>,
    ) -> Option<FilePlace> {
        if !self.of_paths {
            return None;
        }
        let was_shown =
            |file: &FileId| self.table.log_of.get(&(file.device, file.inode)).is_some_and(|had| had.is_there);
        let is_it = |place: &FilePlace| {
            place.offset > 0
                && !place.tail.is_none()
                && place.tail.end == place.offset
                && fits(place)
                && !is_here(place).unwrap_or_else(|| was_shown(&place.file))
        };
        let places = self.table.heads.of(head).filter_map(|(print, number)| {
            let memory = self.table.logs.get(&self.table.log_of.get(&number)?.log)?;
            let of_number = FileId { device: number.0, inode: number.1, birth_ns: i64::MIN };
            let last = FileId { birth_ns: i64::MAX, ..of_number };
            let files = memory.sinks.values().flat_map(|sink| sink.files.range(of_number..=last));
            let found = files.map(|(id, (_, place))| (*id, place.head)).find(|(_, head)| *head == print);
            self.lowest(memory, found?.0).filter(|place| place.head == print && is_it(place))
        });
        places.max_by_key(|place| place.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cursor::FileCursor;
    use std::sync::Arc;
    use std::time::Duration;

    fn place(inode: u64, offset: u64) -> FilePlace {
        FilePlace {
            file: FileId { device: 2049, inode, birth_ns: 1_795_305_168_162_820_305 },
            head: HeadPrint { len_bytes: 1024, crc32: 0xdead_beef },
            tail: TailPrint { end: offset, len_bytes: 1024, crc32: 0x1234_5678 },
            offset,
            skip: [0; 2],
        }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// After the table had been pruned, a file belonged to whichever of its logs came last in the alphabet: the log that reads
    /// it was not asked for it any more, and its lines came again.
    #[test]
    fn a_file_belongs_to_the_log_that_had_it_last_also_when_the_table_was_pruned() {
        let logs = ["/a.log", "/b.log", "/c.log"].map(StreamKey::file);
        let first = |bounds| {
            let mut table = Table::default();
            table.set_bounds(bounds);
            table.set_now(1_000_000_000_000);
            table
        };
        for last in &logs {
            let bounds = Remember { files: 20, ..Remember::default() };
            let mut table = first(bounds);
            logs.iter().for_each(|log| table.note(log, "file", place(1, 10)));
            table.set_now(1_001_000_000_000);
            table.note(last, "file", place(1, 20));
            for inode in 2..40 {
                table.set_now(1_001_000_000_000 + inode as i64 * 1_000_000);
                table.note(&StreamKey::file("/other.log"), "file", place(inode, 1));
            }
            table.index();
            assert_eq!(table.log_of(place(1, 0).file), Some(last));
            let mut all: Vec<StreamKey> = table.logs_of(place(1, 0).file).cloned().collect();
            assert_eq!(all.remove(0), *last);
            assert!(!all.contains(last));
            // As the next run loads it: the log that noted it last.
            let mut loaded = first(bounds);
            logs.iter().for_each(|log| loaded.note(log, "file", place(1, 10)));
            loaded.set_now(1_001_000_000_000);
            loaded.note(last, "file", place(1, 20));
            assert_eq!(Table::new(loaded.take_unsaved()).log_of(place(1, 0).file), Some(last));
        }
    }

    #[test]
    fn a_file_is_known_when_all_sinks_have_it_and_up_to_the_slowest() {
        let (mut table, log) = (Table::default(), StreamKey::file("/a.log"));
        table.set_bounds(Remember::default());
        table.note(&log, "file", place(1, 100));
        let both = names(&["file", "loki"]);
        assert_eq!(table.of(&both, true).places(&log), []);
        table.note(&log, "loki", place(1, 70));
        assert_eq!(table.of(&both, true).places(&log), [place(1, 70)]);
        assert_eq!(table.of(&both[..1], true).place_of(place(1, 0).file), Some(place(1, 100)));
        assert_eq!(table.of(&both[..1], false).place_of(place(1, 0).file), None);
    }

    /// The line goes on in them. If they counted as read, it would be cut.
    #[test]
    fn files_reached_with_a_line_open_are_not_known() {
        let (mut table, log) = (Table::default(), StreamKey::container("c"));
        let cursor =
            FileCursor { len: 100, reached: vec![place(2, 900)].into(), ..FileCursor::at(place(1, 100)) };
        table.know(&log, "file", &Cursor::File(Arc::new(cursor)), 0);
        let sinks = names(&["file"]);
        assert_eq!(table.of(&sinks, false).places(&log), [place(1, 100)]);
    }

    /// An archive of all that was ever read would grow for ever; one that goes too early repeats whole files.
    #[test]
    fn entries_go_by_age_and_by_number_and_stay_while_they_are_seen() {
        let (mut table, log) = (Table::default(), StreamKey::file("/a.log"));
        table.set_bounds(Remember { age: Duration::from_secs(7 * 86_400), files: 10 });
        for day in 0..6 {
            table.set_now(day * 86_400_000_000_000 + 1_000_000_000);
            table.note(&log, "file", place(day as u64, 1));
        }
        table.set_now(9 * 86_400_000_000_000);
        table.see([(place(0, 1).file, 1)]);
        table.prune();
        let left = |table: &Table| {
            let sinks = names(&["file"]);
            table.of(&sinks, true).places(&log).iter().map(|place| place.file.inode).collect::<Vec<_>>()
        };
        // What was seen last comes last.
        assert_eq!(left(&table), [2, 3, 4, 5, 0]);
        for inode in 10..18 {
            table.note(&log, "file", place(inode, 1));
        }
        assert!(left(&table).len() <= 11 && left(&table).ends_with(&[15, 16, 17]), "{:?}", left(&table));
    }

    /// A log that was renamed to another followed name came again as a whole, once its old name was gone for long.
    #[test]
    fn a_file_that_was_left_is_known_under_any_name() {
        let (mut table, log) = (Table::default(), StreamKey::file("/a.log"));
        table.set_bounds(Remember::default());
        let Cursor::File(mut cursor) = crate::capture::checkpoint::tests::file_cursor(100) else {
            panic!("of a file")
        };
        Arc::make_mut(&mut cursor).skip = [7, 0];
        let id = cursor.file;
        table.leave(&log, "file", 0, Cursor::File(cursor), 0);
        let sinks = names(&["file"]);
        assert_eq!(
            table.of(&sinks, true).place_of(id).map(|place| (place.offset, place.skip)),
            Some((100, [0; 2]))
        );
        assert_eq!(table.take_unsaved()[&log].sinks["file"].files.len(), 1);
    }

    #[test]
    fn what_changed_is_saved_until_that_succeeded() {
        let (mut table, log) = (Table::default(), StreamKey::file("/a.log"));
        table.set_bounds(Remember::default());
        table.note(&log, "file", place(1, 5));
        assert_eq!(table.take_unsaved()[&log].sinks["file"].files.len(), 1);
        table.leave(&log, "file", 0, Cursor::Api(Default::default()), 0);
        assert_eq!(table.take_unsaved()[&log].sinks["file"].files.len(), 1);
        table.on_saved();
        assert!(table.take_unsaved().is_empty());
        assert!(table.left(&log, &names(&["file"])).is_some());
    }

    /// The place where content was left is found by how it begins, and by nothing that is out of date.
    #[test]
    fn content_is_found_by_its_first_bytes_whatever_its_length() {
        let text: Vec<u8> = (0..200_u8).collect();
        let with_head = |inode, len: usize, offset| FilePlace {
            head: HeadPrint { len_bytes: len as u32, crc32: crc32fast::hash(&text[..len]) },
            ..place(inode, offset)
        };
        let (mut table, log) = (Table::default(), StreamKey::file("/a.log"));
        table.set_bounds(Remember::default());
        let (one, both) = (names(&["file"]), names(&["file", "loki"]));
        let moved = |table: &Table, sinks: &[String], max: u64, is_here: Option<bool>| {
            let place = table.of(sinks, true).moved(&text, |place| place.offset <= max, |_| is_here);
            place.map(|place| (place.file.inode, place.offset))
        };
        table.note(&log, "file", with_head(1, 49, 900));
        table.note(&log, "file", FilePlace { tail: TailPrint::default(), ..with_head(2, 100, 800) });
        table.note(&StreamKey::container("c"), "file", with_head(3, 100, 700));
        assert_eq!(moved(&table, &one, 999, None), None);
        for (inode, len, offset) in [(4, 50, 300), (5, 100, 400), (6, 200, 500), (7, 100, 600)] {
            table.note(&log, "file", with_head(inode, len, offset));
            assert_eq!(moved(&table, &one, 999, None), Some((inode, offset)));
        }
        for (max, expected) in
            [(599, Some((6, 500))), (499, Some((5, 400))), (300, Some((4, 300))), (299, None)]
        {
            assert_eq!(moved(&table, &one, max, None), expected);
        }
        assert_eq!(moved(&table, &one, 999, Some(true)), None);
        assert_eq!(moved(&table, &both, 999, None), None, "a sink that never had it");
        // A file that the patterns still show was not moved, unless it is known to be rewritten.
        table.see([(place(7, 0).file, 600)]);
        assert_eq!(moved(&table, &one, 999, None), Some((6, 500)));
        assert_eq!(moved(&table, &one, 999, Some(false)), Some((7, 600)));
        table.index();
        assert_eq!(moved(&table, &one, 999, None), Some((6, 500)), "after entries went");
        // It was rewritten, and begins otherwise now.
        table.note(&log, "file", place(6, 30));
        assert_eq!(moved(&table, &one, 999, None), Some((5, 400)));
    }

    #[test]
    fn an_entry_takes_some_hundred_bytes() {
        let files = (0..1000).map(|inode| (place(inode, 1).file, (1_795_305_168, place(inode, 10_485_760))));
        let memory = SinkMemory { left: None, files: files.collect() };
        let text = serde_json::to_string(&memory).unwrap();
        assert!(text.len() < 1000 * 120, "{}", text.len());
        assert_eq!(serde_json::from_str::<SinkMemory>(&text).unwrap(), memory);
    }
}
