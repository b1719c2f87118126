//! A live file that was made while the agent looks and begins as another log does: its copy, or a log of its own. What it
//! holds is not read until that is known, for either its lines would come twice, or they would not come at all.
//!
//! ```text
//! its first bytes are those of another ─▶ Asked ─┬─ nothing of that log fits ─────────────────────────▶ read from its beginning
//!                                                └─ a place ─▶ Tried: read there ─┬─ other bytes ─────▶ read from its beginning
//!                                                                                 └─ the same ─▶ Shown ─▶ decided by what
//!                                                                                                becomes of the other log
//! ```
//! Who decides has both logs before it (core/paths/doubts.rs).

use super::{Chain, Copied, Link};
use crate::limits::HEAD_BYTES;
use crate::model::cursor::{FileId, FilePlace, TailPrint};

/// See the module's head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Doubt {
    /// There is none.
    #[default]
    None,
    /// It begins as another log.
    Asked,
    /// It is read where that log was left.
    Tried,
    /// The same bytes stand before that place.
    Shown,
}

/// What has become of a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentFate {
    /// It is there.
    There,
    /// The file was written anew after this place, noticed at that time, nanoseconds since 1970.
    Emptied(FilePlace, i64),
    /// The file is gone, and was read up to there. `is_read`: that is its end.
    Gone(FilePlace, bool),
    /// It has another beginning, or was read less far than that: nobody knows.
    Unknown,
}

impl Chain {
    /// How it stands with the first file.
    pub fn doubt(&self) -> Doubt {
        self.doubt
    }

    /// The live file, if nothing of it was read or judged.
    pub fn new_live(&self) -> Option<&Link> {
        let is_new = |front: &&Link| {
            front.found.rank == 0 && front.offset == 0 && front.copy == Copied::Unknown && !front.elsewhere
        };
        self.links.front().filter(is_new)
    }

    /// It begins with these bytes. Returns the sum of its first KiB if it may be a copy.
    pub fn sum_of_new_live(&self, bytes: &[u8]) -> Option<(u32, FileId)> {
        let head = bytes.get(..HEAD_BYTES)?;
        let live = self.new_live().filter(|_| self.doubt == Doubt::None && self.links.len() == 1)?;
        Some((crc32fast::hash(head), live.found.id))
    }

    /// It is not read until somebody decides.
    pub fn doubt_live(&mut self, bytes: &[u8]) {
        self.doubt = Doubt::Asked;
        if let Some(front) = self.links.front_mut() {
            front.unread = true;
            if front.found.head.len() < HEAD_BYTES {
                front.found.head = bytes[..bytes.len().min(HEAD_BYTES)].to_vec();
                front.head = front.found.print();
            }
        }
    }

    /// It is read where the other log was left, to see whether the same bytes stand there.
    pub fn try_place(&mut self, place: FilePlace) {
        if self.new_live().is_some() {
            self.doubt = Doubt::Tried;
            self.stand_at(place.offset, place.tail, Copied::Likely);
        } else {
            self.doubt = Doubt::None;
        }
    }

    /// The first read of it ended, and no other bytes stand there. Returns whether it waits for a decision from now on.
    pub fn is_shown(&mut self) -> bool {
        let is_tried = self.doubt == Doubt::Tried;
        if is_tried {
            self.doubt = Doubt::Shown;
            // A position that is saved meanwhile passes over nothing.
            self.stand_at(0, TailPrint::default(), Copied::Unknown);
        }
        is_tried
    }

    /// It is a copy that was read up to there, or a log of its own.
    pub fn decide(&mut self, place: Option<(u64, TailPrint)>) {
        let is_new = self.new_live().is_some();
        self.doubt = Doubt::None;
        if is_new {
            match place {
                Some((offset, tail)) => self.stand_at(offset, tail, Copied::Likely),
                None => self.stand_at(0, TailPrint::default(), Copied::No),
            }
        }
    }

    fn stand_at(&mut self, offset: u64, tail: TailPrint, copy: Copied) {
        let position = self.position();
        if let Some(front) = self.links.front_mut() {
            (front.offset, front.tail, front.copy, front.unread) = (offset, tail, copy, true);
        }
        self.go_on_at(position);
    }

    /// What was read of a file that was written anew since this was asked last.
    pub fn take_emptied(&mut self) -> Option<FilePlace> {
        self.emptied.take().map(|place| *place)
    }

    /// What has become of what was read up to this place.
    pub fn fate_of(&self, place: &FilePlace) -> ContentFate {
        let is_it = |link: &&Link| link.found.id == place.file && !link.found.compressed;
        match self.in_hand().find(is_it) {
            None => ContentFate::Gone(*place, true),
            Some(link) if link.head != place.head || link.offset < place.offset => ContentFate::Unknown,
            Some(link) if link.deleted || link.missing => ContentFate::Gone(link.place(), link.is_read()),
            Some(_) => ContentFate::There,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::io::{FileNo, FoundFile};
    use crate::capture::stream::chain::{Handle, Start};
    use crate::model::cursor::HeadPrint;

    const LEN: u64 = 3_000;

    fn live(inode: u64, byte: u8) -> FoundFile {
        FoundFile {
            name: "l".to_owned(),
            rank: 0,
            compressed: false,
            id: FileId { device: 1, inode, birth_ns: inode as i64 },
            len: LEN,
            head: vec![byte; HEAD_BYTES],
            unpacked_len: None,
            modified_ns: 0,
        }
    }

    fn listed(file: FoundFile) -> Chain {
        let mut chain = Chain::new(Start::Oldest);
        chain.on_listing(vec![file], true, &|_| None);
        chain.links[0].handle = Handle::Open(FileNo(1));
        chain
    }

    fn place(offset: u64) -> FilePlace {
        FilePlace {
            file: FileId { device: 1, inode: 2, birth_ns: 2 },
            head: live(2, b'a').print(),
            tail: TailPrint { end: offset, len_bytes: 1024, crc32: 7 },
            offset,
            skip: [0; 2],
        }
    }

    /// It is read nowhere but at the place that is tried, and no position says otherwise.
    #[test]
    fn a_file_in_doubt_is_not_read_until_that_is_decided() {
        for (is_another, decided, expected) in [
            (true, None, (0, Copied::No)),
            (false, None, (0, Copied::No)),
            (false, Some(2_500), (2_500, Copied::Likely)),
        ] {
            let mut chain = listed(live(9, b'a'));
            let bytes = vec![b'a'; LEN as usize];
            assert!(chain.sum_of_new_live(&bytes[..HEAD_BYTES - 1]).is_none());
            let (sum, file) = chain.sum_of_new_live(&bytes).expect("it is new");
            assert_eq!((sum, file.inode), (place(0).head.crc32, 9));
            chain.doubt_live(&bytes);
            assert!(!chain.may_read() && chain.sum_of_new_live(&bytes).is_none());
            chain.try_place(place(2_500));
            assert!(chain.may_read());
            assert_eq!((chain.links[0].offset, chain.links[0].copy), (2_500, Copied::Likely));
            assert_eq!(chain.position(), 0);
            let is_over = chain.is_no_copy(is_another);
            assert_eq!((is_over, chain.is_shown()), (is_another, !is_another));
            if !is_over {
                assert!(!chain.may_read());
                assert_eq!(chain.links[0].offset, 0);
                chain.decide(decided.map(|offset| (offset, place(offset).tail)));
            }
            assert!(chain.may_read() && chain.links[0].unread);
            assert_eq!((chain.links[0].offset, chain.links[0].copy), expected);
            assert_eq!((chain.position(), chain.doubt()), (0, Doubt::None));
            assert!(chain.sum_of_new_live(&bytes).is_none(), "once");
        }
    }

    #[test]
    fn what_has_become_of_a_log_is_known() {
        let mut chain = listed(live(2, b'a'));
        (chain.links[0].offset, chain.links[0].tail) = (LEN, place(LEN).tail);
        assert_eq!(chain.fate_of(&place(2_500)), ContentFate::There);
        chain.on_listing(Vec::new(), true, &|_| None);
        chain.links[0].unread = false;
        assert_eq!(chain.fate_of(&place(2_500)), ContentFate::Gone(chain.links[0].place(), true));
        chain.on_listing(vec![live(2, b'a')], true, &|_| None);
        assert_eq!(chain.fate_of(&place(2_500)), ContentFate::There);
        assert_eq!(chain.take_emptied(), None);
        assert!(chain.on_short(10));
        assert_eq!(chain.fate_of(&place(2_500)), ContentFate::Unknown);
        assert_eq!(chain.take_emptied().map(|place| place.offset), Some(LEN));
        assert_eq!(chain.links[0].head, HeadPrint::default());
    }
}
