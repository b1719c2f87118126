//! One file of a chain: what is known of it, and whether a found file is this one.

use super::Gone;
use crate::capture::io::{FileNo, FoundFile, LaneId};
pub(super) use crate::limits::HEAD_BYTES_PROOF;
use crate::model::cursor::{FileId, FilePlace, HeadPrint, TailPrint};

/// Whether a link's file is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handle {
    /// Not opened yet.
    None,
    /// The opening is under way.
    Opening(FileNo),
    Open(FileNo),
}

/// One file of the chain.
#[derive(Debug)]
pub struct Link {
    /// As last found; the name is only valid until the next rotation.
    pub found: FoundFile,
    /// Print of its head, as far as it was seen.
    pub head: HeadPrint,
    /// Whether it is open.
    pub handle: Handle,
    /// The file system it was opened on, if that may hang.
    pub lane: Option<LaneId>,
    /// Next byte to read.
    pub offset: u64,
    /// Print of the bytes before `offset`, as they were read.
    pub tail: TailPrint,
    /// The greatest length seen.
    pub len: u64,
    /// It is no longer the live file. Its writer may still write to it for a while: see `has_grace`.
    pub settled: bool,
    /// No longer in the directory: only its open file can still be read.
    pub deleted: bool,
    /// It was compressed and removed by a program other than its writer, which may still write to it.
    pub packed: bool,
    /// The stream went over to another directory: that this file is not listed there means nothing.
    pub elsewhere: bool,
    /// Looks since it was left that found nothing new.
    pub quiet_looks: u8,
    /// There may be bytes behind `offset`.
    pub unread: bool,
    /// Behind `offset` there are only NULs: space that its writer reserved and has not filled.
    pub room: bool,
    /// From `offset` to here there are only NULs; the next look begins here. 0 = not looked at.
    pub nuls_to: u64,
    /// Data begins at `nuls_to`, so the NULs before it are a hole.
    pub hole: bool,
    /// It was opened by its inode number alone, which another file may have since the listing: files made and renamed
    /// meanwhile may belong before it. Not read until a later listing has shown them.
    pub doubted: bool,
    /// The last listing lacked it.
    pub missing: bool,
    /// Its writer had enough time to switch to the next file: what is at its end is final.
    pub last_look: bool,
    /// It was read to its end before. If it is rewritten, it is older than what was read since.
    pub late: bool,
    /// Where reading stopped when it began to wait for its writer, and until when it waits.
    pub waited_at: Option<(u64, u64)>,
    /// It seems to have the earlier content of a file that was rewritten. Its opening shows whether it does.
    pub candidate: bool,
    /// It was to be read as a file of its own before it became a candidate.
    pub queued: bool,
    /// It was rewritten, and a listing from before that may still come.
    pub anew: bool,
    /// It was rewritten since it was read. Part of its content may be as before.
    pub rewritten: bool,
    /// It was closed because it is quiet. It is opened again when there is more to read.
    pub idle: bool,
    /// It is not text, and is skipped from here on.
    pub left_out: Option<u64>,
    /// Its opening waits for a file descriptor.
    pub lacks_descriptor: bool,
    /// Whether it has the content of another file.
    pub copy: Copied,
}

/// Whether a file is a copy of another that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// Not known yet.
    Unknown,
    /// It begins like that file; the first read shows the rest.
    Likely,
    /// It is a copy.
    Yes,
    /// It is no copy.
    No,
}

pub(super) fn link(found: FoundFile) -> Link {
    Link {
        head: found.print(),
        handle: Handle::None,
        lane: None,
        offset: 0,
        tail: TailPrint::default(),
        len: found.len,
        settled: false,
        deleted: false,
        packed: false,
        elsewhere: false,
        quiet_looks: 0,
        unread: true,
        room: false,
        nuls_to: 0,
        hole: false,
        doubted: false,
        missing: false,
        last_look: false,
        late: false,
        waited_at: None,
        candidate: false,
        queued: false,
        copy: Copied::Unknown,
        anew: false,
        rewritten: false,
        left_out: None,
        idle: false,
        lacks_descriptor: false,
        found,
    }
}

/// A link to a file of which something was read.
pub(super) fn link_at(found: FoundFile, place: &FilePlace) -> Link {
    let head = if found.has_head(&place.head) { found.print() } else { place.head };
    Link { offset: place.offset, tail: place.tail, head, ..link(found) }
}

impl Link {
    /// An inode that is held open can't become another file: whatever its content is, it belongs to this link. So does
    /// one that is being opened, or was closed for being quiet, if its birth time shows it.
    pub(super) fn is_in(&self, file: &FoundFile) -> bool {
        let same_inode = (self.found.id.device, self.found.id.inode) == (file.id.device, file.id.inode);
        let is_born = self.found.id == file.id && file.id.birth_ns != 0;
        let is_held = match self.handle {
            Handle::Open(_) => true,
            Handle::Opening(_) => is_born,
            Handle::None => self.idle && is_born,
        };
        same_inode && is_held && !file.compressed
    }

    /// Whether the file is this one.
    pub(super) fn is(&self, file: &FoundFile) -> bool {
        self.is_in(file) || self.is_known() && is_same(file, self.found.id, &self.head)
    }

    /// Whether the file is this one with another beginning.
    pub(super) fn is_rewritten_as(&self, file: &FoundFile) -> bool {
        let judged = file.head.len() >= self.head.len_bytes as usize;
        !file.compressed && judged && !file.has_head(&self.head)
    }

    /// Whether it should be opened. A file that the last listing lacked would only fail, and request a listing that
    /// delays the deciding one.
    pub fn is_to_be_opened(&self) -> bool {
        self.handle == Handle::None && !self.deleted && !self.missing && (!self.idle || self.unread)
    }

    pub(super) fn open_file(&self) -> Option<FileNo> {
        if let Handle::Open(file) = self.handle { Some(file) } else { None }
    }

    /// Whether its listing was of this very file: another file may have got the same number.
    pub fn is_as_listed(&self) -> bool {
        self.found.id.birth_ns != 0 && !self.found.compressed
    }

    /// Whether it is this open file, and this is the next byte to read.
    pub fn is_at(&self, file: FileNo, offset: u64) -> bool {
        self.handle == Handle::Open(file) && self.offset == offset
    }

    /// Where to look for data behind NULs.
    pub fn searched_at(&self) -> Option<u64> {
        (self.nuls_to > self.offset && !self.room && !self.hole).then_some(self.nuls_to)
    }

    /// Whether it is this open file, and this is the next place to look at.
    pub fn is_searched_at(&self, file: FileNo, offset: u64) -> bool {
        self.handle == Handle::Open(file) && self.searched_at() == Some(offset)
    }

    /// Bytes known to be unread.
    pub fn unread_bytes(&self) -> u64 {
        self.known_len().saturating_sub(self.offset)
    }

    /// Its known length, without space that its writer reserved.
    pub fn known_len(&self) -> u64 {
        if self.room { self.offset } else { self.len }
    }

    /// What to report when it is gone, with this many bytes unread; 0 = nobody knows.
    pub(super) fn gone(&self, bytes: u64) -> Gone {
        Gone { name: self.found.name.clone(), bytes, in_place: false, file: self.found.id }
    }

    /// What to report if it is gone and was not opened. A file that was listed empty may have been written to since.
    /// The content of an archive or a copy was read elsewhere, or nobody knows how much it was.
    pub(super) fn lost_unopened(&self) -> Option<Gone> {
        if self.candidate || self.left_out.is_some() || self.is_copy() {
            return None;
        }
        let bytes = if self.found.compressed { 0 } else { self.unread_bytes() };
        (self.offset == 0 || bytes > 0).then(|| self.gone(bytes))
    }

    /// Whether all of it was read, as far as anybody knows.
    pub fn is_read(&self) -> bool {
        !self.unread && self.offset >= self.known_len()
    }

    /// How far it was read, as checkpoints keep it.
    pub fn place(&self) -> FilePlace {
        FilePlace { file: self.found.id, head: self.head, tail: self.tail, offset: self.offset, skip: [0; 2] }
    }

    /// The print of bytes that must be in it, if any of it was read.
    pub fn expected(&self) -> TailPrint {
        if self.offset > 0 { self.tail } else { TailPrint::default() }
    }

    /// False if only its number is known, which another file may have by now.
    fn is_known(&self) -> bool {
        self.handle != Handle::None || self.head.len_bytes > 0 || self.found.id.birth_ns != 0
    }

    /// Whether only its number is known, and the file has that number.
    pub(super) fn has_number_of(&self, file: &FoundFile) -> bool {
        let is_alike = file.compressed == self.found.compressed && file.id == self.found.id;
        !self.is_known() && self.offset == 0 && is_alike
    }

    /// Whether more than its number is known.
    pub fn is_proven(&self) -> bool {
        self.found.id.birth_ns != 0 || self.found.head.len() >= HEAD_BYTES_PROOF as usize
    }

    /// It was rotated by copying before it could be opened: it continues in the copy, and its own inode begins anew.
    pub(super) fn was_copied_to(&self, file: &FoundFile) -> bool {
        self.handle == Handle::None && !self.idle && self.found.rank == 0 && is_copy(file, &self.head)
    }

    /// At its last listing it began with everything that the file has: the file is a copy made before it grew.
    pub(super) fn was_as(&self, file: &FoundFile) -> bool {
        let is_proof = file.head.len() >= HEAD_BYTES_PROOF as usize && file.len == file.head.len() as u64;
        is_proof && !file.compressed && file.id != self.found.id && self.found.head.starts_with(&file.head)
    }

    /// Whether nothing of it was read and it is a copy of that file from before it grew, which was read. Certain only
    /// for a small file, all of which was listed.
    pub(super) fn is_older_copy_of(&self, other: &Link) -> bool {
        let is_new = self.offset == 0 && self.copy == Copied::Unknown && self.found.rank > 0;
        let is_younger = self.found.id.birth_ns > other.found.id.birth_ns;
        is_new && is_younger && other.was_as(&self.found) && other.offset >= self.found.len
    }

    /// Assumes that everything listed of it was read elsewhere. The first read shows whether that is so.
    pub(super) fn assume_read(&mut self) {
        (self.offset, self.tail) = (self.found.len, TailPrint::of(&self.found.head, self.found.len));
        self.copy = Copied::Likely;
    }

    /// Whether it is to be read as a file of its own and was not begun: it may still be a copy of an earlier one.
    pub(super) fn is_queued(&self) -> bool {
        self.offset == 0 && self.found.rank > 0 && !self.candidate && !self.late
    }

    /// Whether its lines may be older than the file.
    pub fn is_copy(&self) -> bool {
        matches!(self.copy, Copied::Likely | Copied::Yes)
    }

    /// It has the live name again: a link was changed back, or a rename undone.
    pub(super) fn is_live_again(&mut self) {
        (self.elsewhere, self.late, self.last_look, self.settled) = (false, false, false, false);
        (self.quiet_looks, self.waited_at, self.unread) = (0, None, true);
    }

    /// It was listed as this file, which may be its archive.
    pub(super) fn note_packed(&mut self, file: &FoundFile, may_be: bool) {
        self.packed = may_be && file.compressed && !self.found.compressed;
    }

    /// It was opened, and begins with these bytes. It had fewer when it was listed, so without them its archive would not be
    /// known as its own, and older files would be read behind it.
    pub fn meet_opened(&mut self, head: Vec<u8>) {
        if !self.is_proven() && !self.found.compressed && head.len() > self.found.head.len() {
            self.found.head = head;
            self.head = self.found.print();
        }
    }

    pub(super) fn meet(&mut self, file: &FoundFile) {
        self.missing = false;
        if self.anew {
            if self.found.rank == 0 && file.rank > 0 {
                self.found.rank = file.rank;
            }
            return;
        }
        // It grew after it was closed; opening it again shows by how much.
        self.unread |= self.idle && !file.compressed && file.len != self.len;
        if file.compressed == self.found.compressed && file.has_head(&self.head) {
            // Its writer wrote on after a rename that was not reported.
            self.unread |= file.len > self.len;
            self.len = self.len.max(file.len);
        }
        if file.head.len() > self.head.len_bytes as usize && file.has_head(&self.head) {
            self.head = file.print();
        }
        // Once open, the file itself counts; its compressed twin is only another name for it.
        if self.handle == Handle::None || !file.compressed {
            self.found = file.clone();
        }
        if self.found.rank == 0 && file.rank > 0 {
            self.found.rank = file.rank;
        }
    }
}

/// Whether it is the same file: by identity, or by its first bytes if it was compressed meanwhile. A short print proves
/// nothing.
pub(super) fn is_same(file: &FoundFile, id: FileId, head: &HeadPrint) -> bool {
    if file.compressed && file.id != id {
        return begins_as(file, head);
    }
    file.id == id && file.has_head(head)
}

/// Whether a rotated file begins like the live one did. A short print proves nothing.
fn is_copy(file: &FoundFile, head: &HeadPrint) -> bool {
    file.rank > 0 && begins_as(file, head)
}

/// Whether it begins like a file of which enough was seen to distinguish it.
pub(super) fn begins_as(file: &FoundFile, head: &HeadPrint) -> bool {
    head.len_bytes >= HEAD_BYTES_PROOF && file.has_head(head)
}

/// The file of a place: itself, else its archive. Of a log that was copied and continues (logrotate's `copy`) there are
/// both, and an archive shorter than what was read is that of an earlier copy.
pub(super) fn file_of(place: &FilePlace, found: &[FoundFile]) -> Option<usize> {
    let is_it = |file: &FoundFile| is_same(file, place.file, &place.head);
    let fits = |file: &FoundFile| file.unpacked_len.is_none_or(|len| len >= place.offset as u32);
    let itself = found.iter().position(|file| file.id == place.file && is_it(file));
    itself.or_else(|| found.iter().position(|file| is_it(file) && fits(file)))
}

/// Whether the file has more than was read of it.
pub(super) fn grew(file: &FoundFile, place: &FilePlace) -> bool {
    // Of a skipped file, only that is known, and where it ended if later content is wanted.
    let was_read = !place.tail.is_none() || place.tail.end == place.offset;
    let len = if file.compressed { file.unpacked_len.map_or(0, u64::from) } else { file.len };
    was_read && len > place.offset
}

/// Inserts a file whose name does not show its place: it is older than all that were made after it.
pub(super) fn insert_by_birth(found: &mut Vec<FoundFile>, file: FoundFile) {
    let is_newer = |other: &FoundFile| {
        other.rank == 0
            || !other.compressed
                && other.rank < FoundFile::RANK_BY_BIRTH
                && other.id.birth_ns > file.id.birth_ns
    };
    let at = found.iter().position(is_newer).unwrap_or(found.len());
    found.insert(at, file);
}
