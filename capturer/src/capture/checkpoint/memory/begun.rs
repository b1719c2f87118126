//! How the logs begin that are followed: the sums of their first KiB. A new file that begins as one of them may be its copy.

use std::collections::BTreeSet;

use super::Table;
use crate::limits::HEAD_BYTES;
use crate::model::cursor::{Cursor, FileId};
use crate::model::record::StreamKey;

/// Entries that may stand for content that is gone, beside one for each log.
const OLD_MAX: usize = 1_024;

/// The file of a position, and the sum of its first KiB; none if it has less.
pub fn beginning_of(cursor: &Cursor) -> Option<(FileId, u32)> {
    let Cursor::File(cursor) = cursor else { return None };
    (cursor.head.len_bytes as usize == HEAD_BYTES).then_some((cursor.file, cursor.head.crc32))
}

impl Table {
    /// A followed log begins so.
    pub fn note_begun(&mut self, sum: u32, log: &StreamKey) {
        if log.0.starts_with("file:") {
            self.begun.insert((sum, log.clone()));
        }
    }

    /// There are more entries than this many logs need.
    pub fn has_many_begun(&self, logs: usize) -> bool {
        self.begun.len() > 2 * logs + OLD_MAX
    }

    /// Keeps those of which that is true.
    pub fn retain_begun(&mut self, is_so: impl Fn(u32, &StreamKey) -> bool) {
        self.begun.retain(|(sum, log)| is_so(*sum, log));
    }

    /// Logs that began so, now or not long ago.
    pub fn begun_so(&self, sum: u32) -> impl Iterator<Item = &StreamKey> {
        let from = (sum, StreamKey(String::new().into()));
        self.begun.range(from..).take_while(move |(of, _)| *of == sum).map(|(_, log)| log)
    }

    /// A file that was made then, nanoseconds since 1970, was made while this run looked.
    pub fn is_made_while_looking(&self, born_ns: i64) -> bool {
        self.unseen_ns.is_some_and(|(_, to_ns)| born_ns > to_ns)
    }
}

/// See [`Table`].
pub(super) type Begun = BTreeSet<(u32, StreamKey)>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_found_by_their_first_kib() {
        let (mut table, app, web) =
            (Table::default(), StreamKey::file("/app.log"), StreamKey::file("/web.log"));
        table.note_begun(7, &app);
        table.note_begun(7, &web);
        table.note_begun(8, &web);
        table.note_begun(7, &StreamKey::container("c"));
        assert!(!table.has_many_begun(2));
        assert_eq!(table.begun_so(7).collect::<Vec<_>>(), [&app, &web]);
        table.retain_begun(|sum, log| sum == 8 || log == &app);
        assert_eq!(table.begun_so(7).collect::<Vec<_>>(), [&app]);
        assert_eq!(table.begun_so(8).collect::<Vec<_>>(), [&web]);
        assert_eq!(table.begun_so(9).count(), 0);
    }
}
