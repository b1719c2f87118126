//! Files that got the log's name and were gone before any listing showed them. A listing shows what is there; only
//! inotify reports what was there between two listings. It names no inodes, so its reports are counted: how often
//! another file got the live name, compared with how many new files listings showed. The difference came and went.
//! Either may come first: a listing may show a file whose event has not been read yet. So both are sums, and one
//! listing proves nothing: what was reported before the listing before last was requested, and neither has shown, is
//! unseen. Old sums are forgotten, so a copy, which is no live file when it is made, does not hide anything for long.

use std::collections::BTreeSet;

use super::{Chain, Link, Start};
use crate::capture::io::FoundFile;
use crate::model::clock::Now;
use crate::model::cursor::FileId;

/// After this long without a new file the sums start over. No event waits that long to be read.
const QUIET_MS: u64 = 30_000;
/// Files of the first listing that are younger than this may still be reported.
const YOUNG_NS: i64 = 10_000_000_000;
/// How many files of no chain, such as those of other streams, are remembered as shown.
const OTHERS_MAX: usize = 32;

/// The sums; see the head of this file.
#[derive(Debug)]
pub(super) struct Unseen {
    /// How often another file got the live name.
    told: u32,
    /// The same when the present listing was requested, and the one before it.
    asked: u32,
    asked_before: u32,
    /// New files in listings.
    shown: u32,
    /// New archives in the last listing: of files compressed before a listing showed them.
    packed: u32,
    /// Files that were counted, whichever stream reads them.
    counted: BTreeSet<FileId>,
    /// When something new came last; 0 = never.
    touched_ms: u64,
    /// At the last look the live name was not that of a file.
    no_file: bool,
}

impl Unseen {
    /// Nothing new has come.
    pub(super) const NONE: Unseen = Unseen {
        told: 0,
        asked: 0,
        asked_before: 0,
        shown: 0,
        packed: 0,
        counted: BTreeSet::new(),
        touched_ms: 0,
        no_file: false,
    };
}

impl Default for Unseen {
    fn default() -> Unseen {
        Unseen::NONE
    }
}

impl Chain {
    /// Something new has come: old sums play no part in it.
    fn touch_unseen(&mut self, now: Now) {
        let Unseen { told, shown, touched_ms, .. } = self.doubts.unseen;
        if touched_ms == 0 || touched_ms + QUIET_MS <= now.mono_ms && told <= shown {
            // Files of the first listing were made before the counting began.
            let is_young = |id: &FileId| id.birth_ns > now.unix_ns.saturating_sub(YOUNG_NS);
            let young = self.present.iter().filter(|id| is_young(id)).count() as u32;
            let no_file = self.doubts.unseen.no_file;
            self.doubts.unseen = Unseen { shown: young, no_file, ..Unseen::default() };
        }
        self.doubts.unseen.touched_ms = now.mono_ms.max(1);
    }

    /// inotify: another file got the live name this many times.
    pub fn note_made(&mut self, files: u32, now: Now) {
        self.touch_unseen(now);
        self.doubts.unseen.told = self.doubts.unseen.told.saturating_add(files);
    }

    /// A listing is requested.
    pub fn on_listing_asked(&mut self) {
        if self.doubts.unseen.told > 0 {
            self.doubts.unseen.asked = self.doubts.unseen.told;
        }
    }

    /// The count at the time when the newest listing was requested.
    pub fn told_when_asked(&self) -> u32 {
        self.doubts.unseen.asked
    }

    /// Counts what a listing shows, including others' files. `is_sure`: everything in the directory is shown; `asked`:
    /// the count when it was requested. Returns how many files came and went unseen, and whether another look should
    /// decide.
    pub fn count_unseen(&mut self, found: &[FoundFile], is_sure: bool, asked: u32, now: Now) -> (u32, bool) {
        if self.start.is_some() && self.doubts.unseen.told == 0 {
            return (0, false);
        }
        let is_new = |file: &&FoundFile| {
            !self.in_hand().any(|link| link.found.id == file.id)
                && self.present.binary_search(&file.id).is_err()
                && !self.known.has(file.id)
                && !self.doubts.unseen.counted.contains(&file.id)
        };
        // One that can't be read was seen, too.
        let shown = found.iter().chain(self.denied_files()).filter(is_new);
        let new: Vec<(FileId, bool)> = shown.map(|file| (file.id, file.compressed)).collect();
        if new.is_empty() && self.doubts.unseen.told == 0 {
            return (0, false);
        }
        if !new.is_empty() {
            self.touch_unseen(now);
        }
        let packed = new.iter().filter(|(_, compressed)| *compressed).count() as u32;
        let no_file = std::mem::take(&mut self.doubts.unseen.no_file);
        let back = u32::from(self.has_live_name_again(found, no_file));
        let unseen = &mut self.doubts.unseen;
        let asked = asked.min(unseen.told);
        unseen.shown = unseen.shown.saturating_add(new.len() as u32 - packed + back);
        while unseen.counted.len() + new.len() > OTHERS_MAX && unseen.counted.pop_first().is_some() {}
        unseen.counted.extend(new.iter().map(|(id, _)| *id));
        let packed = packed.saturating_add(std::mem::replace(&mut unseen.packed, packed));
        // Without a birth time, a number does not distinguish a new file from the one that had it before.
        let is_sure = is_sure && found.iter().all(|file| file.id.birth_ns != 0);
        if !is_sure {
            unseen.shown = unseen.shown.max(asked);
        }
        // Decided for good, whether an archive is the file or nobody knows.
        let due = unseen.asked_before.saturating_sub(unseen.shown);
        unseen.shown += due;
        unseen.asked_before = asked;
        (due.saturating_sub(packed), asked > unseen.shown.saturating_add(packed))
    }

    /// The live name is that of a directory, a pipe or such. inotify counts a pipe as it counts a file.
    pub fn note_no_file(&mut self, is_directory: bool, now: Now) {
        if !self.doubts.unseen.no_file {
            self.touch_unseen(now);
            let unseen = &mut self.doubts.unseen;
            unseen.no_file = true;
            unseen.shown = unseen.shown.saturating_add(u32::from(!is_directory));
        }
    }

    /// Whether a file that was read before has the live name again, after the last listing showed it under another one or not at
    /// all. `no_file`: something else had the name.
    fn has_live_name_again(&self, found: &[FoundFile], no_file: bool) -> bool {
        let Some(live) = found.iter().find(|file| file.rank == 0) else { return false };
        let is_ours = self.known.has(live.id) || self.in_hand().any(|link| link.found.id == live.id);
        let has_kept_it = |link: &Link| link.found.id == live.id && !link.missing && !no_file;
        is_ours && !self.links.back().is_some_and(has_kept_it)
    }

    /// The file that a path led to when it was found, if no listing has shown any.
    pub fn never_listed(&self) -> Option<FileId> {
        let is_new = matches!(self.start.as_deref(), Some(start) if !matches!(start, Start::Resume(_)));
        Some(self.first).filter(|first| is_new && first.birth_ns != 0 && !self.doubts.vanish_counted)
    }

    /// See [`Chain::never_listed`]: its loss was counted when its removal was reported.
    pub fn vanish_is_counted(&mut self) {
        if self.never_listed().is_some() {
            self.doubts.vanish_counted = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Parked, link};
    use super::*;

    const SECOND_NS: i64 = 1_000_000_000;
    /// When the first file was made.
    const BORN_NS: i64 = 1_000 * SECOND_NS;

    fn at(seconds: i64) -> Now {
        Now { mono_ms: 1_000 * seconds as u64, unix_ns: BORN_NS + seconds * SECOND_NS }
    }

    fn file(rank: u32, inode: u64) -> FoundFile {
        FoundFile {
            name: if rank == 0 { "l".to_owned() } else { format!("l.{rank}") },
            rank,
            compressed: false,
            id: FileId { device: 1, inode, birth_ns: BORN_NS + inode as i64 },
            len: 100,
            head: inode.to_le_bytes().to_vec(),
            unpacked_len: None,
            modified_ns: 0,
        }
    }

    fn list_all(chain: &mut Chain, files: Vec<FoundFile>, now: Now) -> (u32, bool) {
        chain.on_listing_asked();
        let result = chain.count_unseen(&files, true, chain.told_when_asked(), now);
        chain.on_listing(files, true, &|_| None);
        result
    }

    fn list(chain: &mut Chain, files: &[(u32, u64)], now: Now) -> (u32, bool) {
        list_all(chain, files.iter().map(|(rank, inode)| file(*rank, *inode)).collect(), now)
    }

    /// A chain that has listed file 1, which is old by now.
    fn followed() -> Chain {
        let mut chain = Chain::new(Start::Live);
        assert_eq!(list(&mut chain, &[(0, 1)], at(100)), (0, false));
        chain
    }

    /// The second listing without a file shows that it is gone, however many known files both show.
    #[test]
    fn a_file_that_no_listing_showed_is_counted_once() {
        let mut chain = followed();
        chain.note_made(3, at(200));
        assert_eq!(list(&mut chain, &[(0, 4), (1, 3)], at(200)), (0, true), "one may be between two names");
        assert_eq!(list(&mut chain, &[(0, 4), (1, 3)], at(200)), (1, false));
        assert_eq!(list(&mut chain, &[(0, 4), (1, 3)], at(200)), (0, false));
        chain.note_made(1, at(200));
        assert_eq!(list(&mut chain, &[(0, 5), (1, 4)], at(200)), (0, false));
        // And where nothing is left.
        chain.note_made(1, at(200));
        assert_eq!(list(&mut chain, &[], at(200)), (0, true));
        assert_eq!(list(&mut chain, &[], at(200)), (1, false));
    }

    /// The second look shows a file that was between two names at the first.
    #[test]
    fn a_file_that_one_listing_missed_is_not_unseen() {
        let mut chain = followed();
        chain.note_made(2, at(200));
        assert_eq!(list(&mut chain, &[(0, 3), (2, 1)], at(200)), (0, true));
        assert_eq!(list(&mut chain, &[(0, 3), (1, 2), (2, 1)], at(200)), (0, false));
        assert_eq!(list(&mut chain, &[(0, 3), (1, 2), (2, 1)], at(200)), (0, false));
    }

    #[test]
    fn a_listing_may_come_before_the_event() {
        let mut chain = followed();
        assert_eq!(list(&mut chain, &[(0, 2), (1, 1)], at(200)), (0, false));
        chain.note_made(1, at(200));
        for _ in 0..3 {
            assert_eq!(list(&mut chain, &[(0, 2), (1, 1)], at(200)), (0, false));
        }
        // Also before that of a file of the first listing.
        let mut chain = Chain::new(Start::Live);
        assert_eq!(list(&mut chain, &[(0, 2)], at(1)), (0, false));
        chain.note_made(1, at(1));
        for _ in 0..3 {
            assert_eq!(list(&mut chain, &[(0, 2)], at(1)), (0, false));
        }
    }

    /// Copying and emptying a log makes files that are not reported, and a later loss still counts.
    #[test]
    fn a_copy_hides_nothing_for_long() {
        let mut chain = followed();
        assert_eq!(list(&mut chain, &[(0, 1), (1, 2)], at(200)), (0, false));
        chain.note_made(2, at(240));
        assert_eq!(list(&mut chain, &[(0, 9), (1, 1)], at(240)), (0, true));
        assert_eq!(list(&mut chain, &[(0, 9), (1, 1)], at(240)), (1, false));
    }

    /// It was compressed before a listing showed it: its archive is read.
    #[test]
    fn a_new_archive_may_be_the_file() {
        let mut chain = followed();
        chain.note_made(2, at(200));
        let archive = FoundFile { name: "l.1.gz".to_owned(), compressed: true, ..file(1, 7) };
        let files = vec![file(0, 3), archive, file(2, 1)];
        for seconds in [200, 200, 200, 240] {
            assert_eq!(list_all(&mut chain, files.clone(), at(seconds)), (0, false));
        }
    }

    /// Another listing is requested before the answer of the present one is judged, which knows nothing of what was
    /// reported since.
    #[test]
    fn a_listing_from_before_the_event_proves_nothing() {
        let mut chain = followed();
        chain.on_listing_asked();
        let asked = chain.told_when_asked();
        chain.note_made(2, at(200));
        chain.on_listing_asked();
        let files = vec![file(0, 1)];
        assert_eq!(chain.count_unseen(&files, true, asked, at(200)), (0, false));
        chain.on_listing(files, false, &|_| None);
        // One is between two names.
        let files = vec![file(0, 3), file(2, 1)];
        assert_eq!(chain.count_unseen(&files, true, chain.told_when_asked(), at(200)), (0, true));
        chain.on_listing(files, true, &|_| None);
        assert_eq!(list(&mut chain, &[(0, 3), (1, 2), (2, 1)], at(200)), (0, false));
    }

    /// A log that was moved out of its directory and back was taken for two files, of which one came and went.
    #[test]
    fn a_log_that_was_away_is_no_other_file() {
        let mut chain = followed();
        assert_eq!(list(&mut chain, &[], at(200)), (0, false));
        chain.note_made(1, at(205));
        for seconds in [205, 205, 206] {
            assert_eq!(list(&mut chain, &[(0, 1)], at(seconds)), (0, false));
        }
        chain.note_made(1, at(250));
        assert_eq!(list(&mut chain, &[(0, 1)], at(250)), (0, true));
        assert_eq!(
            list(&mut chain, &[(0, 1)], at(250)),
            (1, false),
            "another came and went while it was here"
        );
    }

    /// A pipe or a directory took its place for a while: no line was in those.
    #[test]
    fn what_is_no_file_is_no_unseen_file() {
        for is_directory in [false, true] {
            let mut chain = followed();
            // inotify counts new pipes, and no directories.
            chain.note_made(u32::from(!is_directory), at(200));
            chain.note_no_file(is_directory, at(200));
            chain.note_no_file(is_directory, at(201));
            chain.note_made(1, at(205));
            for seconds in [205, 205, 206] {
                assert_eq!(list(&mut chain, &[(0, 1)], at(seconds)), (0, false), "{is_directory}");
            }
            chain.note_made(1, at(206));
            assert_eq!(list(&mut chain, &[(0, 1)], at(206)), (0, true), "{is_directory}");
            assert_eq!(list(&mut chain, &[(0, 1)], at(206)), (1, false), "{is_directory}");
        }
    }

    /// Without birth times a number may be another file's.
    #[test]
    fn nothing_is_counted_without_birth_times() {
        let mut chain = followed();
        chain.note_made(5, at(200));
        for _ in 0..3 {
            let file = FoundFile { id: FileId { device: 1, inode: 3, birth_ns: 0 }, ..file(0, 3) };
            assert_eq!(list_all(&mut chain, vec![file], at(200)), (0, false));
        }
    }

    /// It was empty when it was listed, and nobody knows what was written to it before it was removed.
    #[test]
    fn an_empty_file_that_went_before_it_was_opened_may_be_lost() {
        let mut chain = Chain::new(Start::Live);
        list_all(&mut chain, vec![FoundFile { len: 0, head: Vec::new(), ..file(0, 1) }], at(100));
        let (first, second) =
            (chain.on_listing(Vec::new(), true, &|_| None), chain.on_listing(Vec::new(), true, &|_| None));
        assert!(first.look_again && first.lost.is_empty());
        let lost: Vec<_> = second.lost.iter().map(|gone| (gone.name.as_str(), gone.bytes)).collect();
        assert_eq!(lost, [("l", 0)]);
    }

    /// A log that is rotated away again and again: each listing shows only new files, and none of them proves anything.
    #[test]
    fn what_was_cut_off_is_told_though_the_next_listing_proves_nothing() {
        let mut chain = followed();
        let told: Vec<_> = [(3, 2, false), (5, 4, false), (7, 6, true), (7, 6, true)]
            .into_iter()
            .flat_map(|(live, rotated, latest)| {
                chain.on_listing(vec![file(0, live), file(1, rotated)], latest, &|_| None).cut_off
            })
            .map(|gone| gone.file.inode)
            .collect();
        assert_eq!(told.first(), Some(&1), "{told:?}");
    }

    /// A file that grew late can't be opened: it has another name by now, or is gone.
    #[test]
    fn what_grew_late_and_is_gone_is_lost() {
        for (is_gone, expected) in [(true, vec![("l.1".to_owned(), 60)]), (false, vec![])] {
            let mut chain = followed();
            let mut late = link(file(1, 5));
            late.offset = 40;
            chain.parked.push(Parked { link: late, due_ms: None });
            chain.drop_unopened();
            assert!(chain.parked.is_empty());
            let shown = if is_gone { vec![file(0, 1)] } else { vec![file(0, 1), file(2, 5)] };
            let lost = chain.on_listing(shown, true, &|_| None).lost;
            assert_eq!(lost.into_iter().map(|gone| (gone.name, gone.bytes)).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn a_path_whose_file_no_listing_showed_is_named() {
        let mut chain = Chain::new(Start::Live);
        chain.begin_with(file(0, 1).id);
        assert_eq!(list(&mut chain, &[], at(1)), (0, false));
        assert_eq!(chain.never_listed(), Some(file(0, 1).id));
        list(&mut chain, &[(0, 1)], at(1));
        assert_eq!(chain.never_listed(), None);
        let mut chain = Chain::new(Start::Live);
        chain.begin_with(file(0, 1).id);
        chain.vanish_is_counted();
        assert_eq!(chain.never_listed(), None, "it counts once");
    }
}
