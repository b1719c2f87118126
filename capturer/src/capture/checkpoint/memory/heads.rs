//! An index of followed files by how they begin: their numbers by the prints of their heads. It finds a file whose
//! content has another name and another number by now.

use std::collections::BTreeSet;

use crate::limits::HEAD_BYTES_PROOF;
use crate::model::cursor::{FilePlace, HeadPrint};
use crate::model::record::StreamKey;

/// The index; see the head of this file.
#[derive(Debug, Default)]
pub(super) struct Heads {
    /// Length and sum of the head, device, inode.
    all: BTreeSet<(u32, u32, u64, u64)>,
}

/// A file's line; none if its head is too short to tell it from others.
fn row(place: &FilePlace) -> Option<(u32, u32, u64, u64)> {
    let HeadPrint { len_bytes, crc32 } = place.head;
    (len_bytes >= HEAD_BYTES_PROOF).then_some((len_bytes, crc32, place.file.device, place.file.inode))
}

impl Heads {
    /// A file of this log was left at that place. Logs of containers are not moved.
    pub(super) fn put(&mut self, log: &StreamKey, place: &FilePlace) {
        if log.0.starts_with("file:") && !place.tail.is_none() {
            self.all.extend(row(place));
        }
    }

    /// It is there no longer.
    pub(super) fn remove(&mut self, place: &FilePlace) {
        row(place).iter().for_each(|row| {
            self.all.remove(row);
        });
    }

    /// Files that began as these bytes do, as print, device and inode. One look for each length that occurs: few do, for a log
    /// that has grown has the longest.
    pub(super) fn of(&self, head: &[u8]) -> impl Iterator<Item = (HeadPrint, (u64, u64))> {
        let (mut sum, mut done) = (crc32fast::Hasher::new(), 0);
        let lengths = std::iter::successors(self.length_from(0), |len| self.length_from(len + 1));
        let prints = lengths.take_while(|len| *len as usize <= head.len()).map(move |len_bytes| {
            sum.update(&head[done..len_bytes as usize]);
            done = len_bytes as usize;
            HeadPrint { len_bytes, crc32: sum.clone().finalize() }
        });
        prints.flat_map(|print| {
            let HeadPrint { len_bytes, crc32 } = print;
            let rows = self.all.range((len_bytes, crc32, 0, 0)..=(len_bytes, crc32, u64::MAX, u64::MAX));
            rows.map(move |row| (print, (row.2, row.3)))
        })
    }

    /// The shortest length in the index that is at least this long.
    fn length_from(&self, len: u32) -> Option<u32> {
        self.all.range((len, 0, 0, 0)..).next().map(|row| row.0)
    }
}
