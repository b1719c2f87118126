//! How long the file that grows has become while reads wait: for an output that takes nothing, a rate limit, room for
//! buffers. A read tells the length; without one somebody has to look, now and then.

use super::FileSource;
use crate::capture::io::FileNo;
use crate::capture::stream::chain::{Handle, Link};

/// What the last look saw.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    file: FileNo,
    len: u64,
}

impl FileSource {
    /// The open file that may have grown and is not read. Not on a file system that may hang: whoever looks would hang too.
    pub fn unmeasured(&self) -> Option<FileNo> {
        let last = self.chain.links.back()?;
        let waits = last.unread && last.lane.is_none() && !last.found.compressed && !self.is_left_out();
        match last.handle {
            Handle::Open(file) if waits => Some(file),
            _ => None,
        }
    }

    /// Somebody looked: it is so long.
    pub fn measured(&mut self, file: FileNo, len: u64) {
        self.length = Seen { file, len };
    }

    /// Bytes that are known to be there and were not read.
    pub fn lag_bytes(&self) -> u64 {
        let grown = |last: &Link| self.length.len.saturating_sub(last.len.max(last.offset));
        let is_seen = self.unmeasured() == Some(self.length.file);
        let grown = self.chain.links.back().filter(|_| is_seen).map_or(0, grown);
        self.unread_bytes().0 + grown
    }
}
