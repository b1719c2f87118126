//! Files that were last changed before a time that the config sets (`ignore_older`). What such a file holds is passed over
//! when a log is found that nobody has read: each file is judged by its own age, the live one and its rotated ones. The
//! live one is read on from its end, so what is added to it later comes. A log that was read before is gone on with,
//! whatever the age of its files.

use super::{Chain, Start};
use crate::capture::io::FoundFile;

impl Chain {
    /// What files hold that were last changed before this time, nanoseconds since 1970, is passed over.
    pub fn ignore_before(&mut self, ns: Option<i64>) {
        self.ignore_before_ns = ns;
    }

    /// The live file that its start passed over, as long as nothing was added to it.
    pub fn is_ignored(&self) -> bool {
        let front = self.links.front();
        front.is_some_and(|front| {
            self.ignored.as_deref().is_some_and(|at| *at == (front.found.id, front.offset))
        })
    }

    /// Nothing of a rotated file is asked for. What is added to an old one is: its writer has not gone over to the new file.
    /// In one that was just written to a line may be open, and its rest says nothing.
    pub(super) fn pass_over(&mut self, file: &FoundFile) {
        let is_old = self.ignore_before_ns.is_some_and(|ns| file.modified_ns < ns);
        if is_old && !file.compressed {
            self.done.push(self.known.ignore(file));
        } else {
            self.known.pass_over(file);
        }
    }

    pub(super) fn is_to_be_ignored(&self, start: &Start, file: &FoundFile) -> bool {
        let is_known = matches!(start, Start::Resume(_) | Start::After(_));
        !is_known && self.ignore_before_ns.is_some_and(|ns| file.modified_ns < ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::stream::chain::link::link;
    use crate::model::cursor::{Cursor, FileId, FilePlace, TailPrint};

    /// The bound of these tests.
    const BOUND_NS: i64 = 1_000;

    fn file(rank: u32, inode: u64, modified_ns: i64) -> FoundFile {
        FoundFile {
            name: if rank == 0 { "l".to_owned() } else { format!("l.{rank}") },
            rank,
            compressed: false,
            id: FileId { device: 1, inode, birth_ns: inode as i64 },
            len: 100,
            head: vec![inode as u8; 100],
            unpacked_len: None,
            modified_ns,
        }
    }

    /// What is to be read, as (inode, from where).
    fn begun(start: Start, found: &[FoundFile]) -> (Chain, Vec<(u64, u64)>) {
        let mut chain = Chain::new(start);
        chain.ignore_before(Some(BOUND_NS));
        chain.on_listing(found.to_vec(), true, &|_| None);
        let links = chain.links.iter().map(|link| (link.found.id.inode, link.offset)).collect();
        (chain, links)
    }

    #[test]
    fn each_file_is_judged_by_its_own_age() {
        let check = |start: Start, ages: [i64; 3], expected: &[(u64, u64)]| {
            let [live, newer, older] = ages.map(|age| BOUND_NS - age);
            let found = [file(0, 3, live), file(1, 2, newer), file(2, 1, older)];
            let (chain, links) = begun(start.clone(), &found);
            assert_eq!(links, expected, "{start:?} {ages:?}");
            assert_eq!(chain.is_ignored(), ages[0] > 0 && expected == [(3, 100)], "{start:?} {ages:?}");
        };
        check(Start::Oldest, [0, 0, 0], &[(1, 0), (2, 0), (3, 0)]);
        check(Start::Oldest, [0, 0, 1], &[(2, 0), (3, 0)]);
        check(Start::Oldest, [0, 1, 2], &[(3, 0)]);
        check(Start::Oldest, [1, 2, 3], &[(3, 100)]);
        // Whoever writes to the rotated file still.
        check(Start::Oldest, [1, 0, 2], &[(2, 0), (3, 100)]);
        check(Start::Live, [0, 1, 2], &[(3, 0)]);
        check(Start::Live, [1, 2, 3], &[(3, 100)]);
        check(Start::Since(0), [1, 2, 3], &[(3, 100)]);
        check(Start::End, [0, 0, 0], &[(3, 100)]);
    }

    /// Nothing of what was passed over comes later, and nothing that is added is missed.
    #[test]
    fn what_is_added_is_read_from_where_it_begins() {
        let found = [file(0, 3, BOUND_NS - 1), file(1, 2, BOUND_NS - 2)];
        let (mut chain, _) = begun(Start::Oldest, &found);
        assert!(chain.is_ignored());
        // Written to, rotated, and a new file made, before anybody looked.
        let grown = FoundFile { len: 150, ..file(1, 3, BOUND_NS + 9) };
        chain.on_listing(vec![file(0, 4, BOUND_NS + 9), grown, file(2, 2, BOUND_NS - 2)], true, &|_| None);
        let links: Vec<_> = chain.links.iter().map(|link| (link.found.id.inode, link.offset)).collect();
        assert_eq!(links, [(3, 100), (4, 0)]);
        // The position is that of the end, for the next start too.
        let Cursor::File(cursor) = chain.cursor(&Default::default()) else { panic!("no position") };
        assert_eq!((cursor.file.inode, cursor.offset), (3, 100));
        let (chain, links) = begun(Start::Resume(cursor), &found);
        assert_eq!((links.as_slice(), chain.is_ignored()), ([(3, 100)].as_slice(), false));
    }

    /// Its writer never opened the new file.
    #[test]
    fn what_is_added_to_a_rotated_file_is_read_too() {
        let found = [file(0, 3, BOUND_NS), file(1, 2, BOUND_NS - 2), file(2, 1, BOUND_NS - 3)];
        let grown =
            || vec![found[0].clone(), FoundFile { len: 150, ..file(1, 2, BOUND_NS + 9) }, found[2].clone()];
        let (mut chain, links) = begun(Start::Oldest, &found);
        assert_eq!(links, [(3, 0)]);
        chain.on_listing(grown(), true, &|_| None);
        let parked = |chain: &Chain| -> Vec<(u64, u64)> {
            chain.parked.iter().map(|parked| (parked.link.found.id.inode, parked.link.offset)).collect()
        };
        assert_eq!(parked(&chain), [(2, 100)]);
        // While nobody looked.
        let (mut chain, _) = begun(Start::Oldest, &found);
        let Cursor::File(mut cursor) = chain.cursor(&Default::default()) else { panic!("no position") };
        let ignored = std::sync::Arc::make_mut(&mut cursor).done.take();
        let mut chain = Chain::new(Start::Resume(cursor));
        chain.remember(ignored);
        for _ in 0..2 {
            chain.on_listing(grown(), true, &|_| None);
        }
        assert_eq!(parked(&chain), [(2, 100)]);
    }

    /// What was read before goes on where it was left, however old it is.
    #[test]
    fn what_was_read_before_is_gone_on_with() {
        let found = file(0, 3, BOUND_NS - 1);
        let place = FilePlace {
            file: found.id,
            head: link(found.clone()).head,
            tail: TailPrint::default(),
            offset: 40,
            skip: [0; 2],
        };
        let mut chain = Chain::new(Start::Oldest);
        chain.ignore_before(Some(BOUND_NS));
        chain.on_listing(vec![found], true, &|_| Some(place));
        assert_eq!((chain.links[0].offset, chain.is_ignored()), (40, false));
    }
}
