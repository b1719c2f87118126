//! How long files have become while reads wait: for an output that takes nothing, a rate limit, room for buffers. A read
//! tells the length; without one somebody has to look, now and then. What is emptied or deleted then is lost, and only the
//! last look says how much it was.

use super::FileSource;
use crate::capture::io::FileNo;
use crate::capture::stream::chain::{Handle, Link};
use crate::model::cursor::FileId;

impl FileSource {
    /// Open files that may have grown and are not read. Not on a file system that may hang: whoever looks would hang too.
    pub fn unmeasured(&self) -> impl Iterator<Item = FileNo> + '_ {
        let waits = |link: &&Link| link.unread && link.lane.is_none() && !link.found.compressed;
        let waiting = self.chain.links.iter().filter(waits).filter(|_| !self.is_left_out());
        waiting.filter_map(|link| match link.handle {
            Handle::Open(file) => Some(file),
            _ => None,
        })
    }

    /// Somebody looked: it is so long.
    pub fn measured(&mut self, file: FileNo, len: u64) {
        let is_it = |link: &&mut Link| link.handle == Handle::Open(file);
        if let Some(link) = self.chain.links.iter_mut().find(is_it) {
            link.len = link.len.max(len);
        }
    }

    /// The opening of this file waits for a descriptor; it is so long, if somebody could look.
    pub fn waits_for_descriptor(&mut self, file: FileNo, len: Option<u64>) {
        let is_it = |link: &&mut Link| link.handle == Handle::Opening(file);
        if let Some(link) = self.chain.links.iter_mut().find(is_it) {
            link.lacks_descriptor = true;
            link.len = link.len.max(len.unwrap_or(0));
        }
    }

    /// The opening of one of its files waits for a file descriptor.
    pub(super) fn lacks_descriptor(&self) -> bool {
        let lacks = |link: &Link| matches!(link.handle, Handle::Opening(_)) && link.lacks_descriptor;
        self.chain.links.iter().any(lacks)
    }

    /// What the open deleted files hold that was not read: nobody can read it once this process has ended.
    pub fn deleted_unread(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        let deleted = self.chain.links.iter().filter(|link| link.deleted && link.unread_bytes() > 0);
        deleted.map(|link| (format!("{}/{}", self.directory, link.found.name), link.unread_bytes()))
    }

    /// How long the file is known to be that a saved position is in. The position was made when its line was read.
    pub fn len_of(&self, file: FileId) -> Option<u64> {
        let link = self.chain.links.iter().find(|link| link.found.id == file && !link.found.compressed);
        link.map(Link::known_len).filter(|_| !self.is_left_out())
    }
}
