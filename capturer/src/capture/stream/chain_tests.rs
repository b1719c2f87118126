//! Rotation as the directory shows it, scan by scan.

use super::*;
use crate::limits::HEAD_BYTES;
use crate::model::cursor::Cursor;

#[path = "chain/copies_tests.rs"]
mod copies;
#[path = "chain/moved_tests.rs"]
mod moved;
#[path = "chain/unborn_tests.rs"]
mod unborn;

fn file(rank: u32, inode: u64, content: &str) -> FoundFile {
    FoundFile {
        name: if rank == 0 { "l".to_owned() } else { format!("l.{rank}") },
        rank,
        compressed: false,
        id: FileId { device: 1, inode, birth_ns: inode as i64 },
        len: content.len() as u64,
        head: content.as_bytes()[..content.len().min(HEAD_BYTES)].to_vec(),
        unpacked_len: None,
        modified_ns: 0,
    }
}

impl Chain {
    /// A listing with nothing under way, and another if that alone proves nothing.
    fn on_scan(&mut self, found: Vec<FoundFile>) -> Changes {
        let changes = self.on_listing(found.clone(), true, &|_| None);
        if changes.look_again { self.on_listing(found, true, &|_| None) } else { changes }
    }
}

/// Names and bytes of what vanished before it was opened.
fn lost(changes: &Changes) -> Vec<(&str, u64)> {
    changes.lost.iter().map(|gone| (gone.name.as_str(), gone.bytes)).collect()
}

/// What a rewritten file held is not found.
fn gone(name: &str, inode: u64, bytes: u64, in_place: bool) -> Changes {
    let file = file(0, inode, "").id;
    Changes { gone: vec![Gone { name: name.to_owned(), bytes, in_place, file }], ..Changes::default() }
}

fn compressed(rank: u32, inode: u64, content: &str) -> FoundFile {
    let unpacked_len = Some(content.len() as u32);
    FoundFile {
        compressed: true,
        len: 7,
        name: format!("l.{rank}.gz"),
        unpacked_len,
        ..file(rank, inode, content)
    }
}

fn content(name: char) -> String {
    name.to_string().repeat(100)
}

fn inodes(chain: &Chain) -> Vec<u64> {
    chain.links.iter().map(|link| link.found.id.inode).collect()
}

fn open_all(chain: &mut Chain) {
    for (at, link) in chain.links.iter_mut().enumerate() {
        link.handle = Handle::Open(FileNo(at as u64));
    }
}

/// Reads the front to its end and finishes it.
fn read_front(chain: &mut Chain) {
    let front = chain.links.front_mut().unwrap();
    front.offset = front.len;
    chain.finish_front();
}

/// The cursor with a long line open on each of the channels, since there.
fn cursor_at(chain: &mut Chain, open: [Option<u64>; 2]) -> Cursor {
    chain
        .cursor(&open.map(|open| Undelivered { starts: open.into_iter().collect(), in_line: open.is_some() }))
}

fn reached_of(cursor: &FileCursor) -> Vec<(u64, u64, [u64; 2])> {
    cursor.reached.iter().map(|place| (place.file.inode, place.offset, place.skip)).collect()
}

/// A position 30 bytes into a file.
fn saved(file: FileId, head: HeadPrint, skip: [u64; 2]) -> Start {
    let place = FilePlace { file, head, tail: TailPrint::default(), offset: 30, skip };
    Start::Resume(Arc::new(FileCursor::at(place)))
}

#[test]
fn a_fresh_stream_begins_with_the_oldest_file() {
    let mut chain = Chain::new(Start::Oldest);
    let changes =
        chain.on_scan(vec![file(0, 3, &content('c')), file(2, 1, &content('a')), file(1, 2, &content('b'))]);
    assert_eq!((inodes(&chain), changes), (vec![1, 2, 3], Changes::default()));
    assert_eq!(chain.links.iter().map(|link| link.settled).collect::<Vec<_>>(), [true, true, false]);
}

/// A writer that does not append goes on where it stood when its file is emptied, and leaves a hole before its next line. A
/// listing sees nothing of a head that is a hole. The next start took the file for a rewritten one, and all lines came again.
#[test]
fn a_file_that_begins_with_a_hole_is_known_again() {
    for hole in [10, 100, HEAD_BYTES - 40, HEAD_BYTES, 2 * HEAD_BYTES] {
        let content = "\0".repeat(hole) + &content('a');
        let mut found = file(0, 1, &content);
        found.head.truncate(crate::decode::damage::without_room(&found.head).len());
        let mut chain = Chain::new(Start::Oldest);
        chain.on_scan(vec![FoundFile { len: 0, head: Vec::new(), ..found.clone() }]);
        open_all(&mut chain);
        chain.saw(0, content.as_bytes());
        chain.links[0].offset = content.len() as u64;
        chain.links[0].tail = TailPrint::of(content.as_bytes(), content.len() as u64);
        let Cursor::File(cursor) = cursor_at(&mut chain, [None; 2]) else { panic!("it names its file") };
        let mut chain = Chain::new(Start::Resume(cursor));
        let changes = chain.on_scan(vec![found]);
        assert_eq!((chain.links[0].offset, changes), (content.len() as u64, Changes::default()), "{hole}");
    }
}

/// Without this its lines would come twice.
#[test]
fn a_file_seen_under_two_names_counts_once() {
    let mut chain = Chain::new(Start::Oldest);
    chain.on_scan(vec![file(0, 2, &content('b')), file(1, 2, &content('b')), file(2, 1, &content('a'))]);
    assert_eq!(inodes(&chain), [1, 2]);
}

#[test]
fn at_the_end_means_from_now_on() {
    let mut chain = Chain::new(Start::End);
    chain.on_scan(vec![file(0, 3, &content('c')), file(1, 2, &content('b'))]);
    assert_eq!((inodes(&chain), chain.position()), (vec![3], 100));
    // A live file that does not exist yet: all that will come is new.
    let mut chain = Chain::new(Start::End);
    chain.on_scan(vec![]);
    chain.on_scan(vec![file(0, 3, &content('c'))]);
    assert_eq!(chain.position(), 0);
}

#[test]
fn rotations_append_and_nothing_is_read_twice() {
    let mut chain = Chain::new(Start::Oldest);
    chain.on_scan(vec![file(0, 1, &content('a'))]);
    open_all(&mut chain);
    chain.on_scan(vec![file(1, 1, &content('a')), file(0, 2, &content('b'))]);
    assert_eq!(inodes(&chain), [1, 2]);
    read_front(&mut chain);
    // The finished file is still there as `.2`; it must not come back.
    chain.on_scan(vec![file(2, 1, &content('a')), file(1, 2, &content('b')), file(0, 3, &content('c'))]);
    assert_eq!(inodes(&chain), [2, 3]);
}

/// Inode 1 was deleted and came back as the live file: same number, another birth.
#[test]
fn an_inode_number_that_came_back_is_another_file() {
    let mut chain = Chain::new(Start::Oldest);
    chain.on_scan(vec![file(0, 1, &content('a'))]);
    chain.links[0].handle = Handle::None;
    let mut reborn = file(0, 1, &content('c'));
    reborn.id.birth_ns = 99;
    let changes = chain.on_scan(vec![file(1, 2, &content('b')), reborn]);
    assert_eq!((inodes(&chain), changes.lost.len()), (vec![2, 1], 1));
    // Even where the file system tells no birth time, the content does, unless the file is held open.
    let mut chain = Chain::new(Start::Oldest);
    chain.on_scan(vec![file(0, 1, &content('a'))]);
    let changes = chain.on_scan(vec![file(0, 1, &content('c'))]);
    assert_eq!((chain.links.len(), changes.lost.len()), (1, 1));
}

#[test]
fn a_file_that_was_compressed_is_known_by_its_content() {
    let mut chain = Chain::new(Start::Oldest);
    chain.on_scan(vec![file(0, 1, &content('a'))]);
    open_all(&mut chain);
    read_front(&mut chain);
    chain.on_scan(vec![compressed(1, 9, &content('a')), file(0, 2, &content('b'))]);
    assert_eq!(inodes(&chain), [2]);
    // And a saved position in it is found again.
    let head = file(0, 1, &content('a')).print();
    let id = FileId { device: 1, inode: 1, birth_ns: 1 };
    let mut chain = Chain::new(saved(id, head, [0, 5]));
    let changes = chain.on_scan(vec![compressed(1, 9, &content('a')), file(0, 2, &content('b'))]);
    assert_eq!(changes, Changes::default());
    assert_eq!((inodes(&chain), chain.position(), chain.delivered_to), (vec![9, 2], 30, [30, 35]));
}

#[test]
fn what_vanished_unopened_is_lost_and_what_is_open_is_not() {
    let mut chain = Chain::new(Start::Oldest);
    chain.on_scan(vec![file(1, 1, &content('a')), file(0, 2, &content('b'))]);
    chain.links[1].handle = Handle::Open(FileNo(1));
    let changes = chain.on_scan(vec![file(0, 3, &content('c'))]);
    assert_eq!(lost(&changes), [("l.1", 100)]);
    assert_eq!((inodes(&chain), chain.deleted_open_bytes()), (vec![2, 3], 100));
}

/// Lost = declared, to the byte: what is given up is what was unread, and no more files than the bound asks for.
#[test]
fn deleted_files_are_given_up_oldest_first() {
    let mut chain = Chain::new(Start::Oldest);
    chain.on_scan(vec![file(2, 1, &content('a')), file(1, 2, &content('b')), file(0, 3, &content('c'))]);
    open_all(&mut chain);
    chain.links[0].offset = 40;
    chain.on_scan(vec![file(0, 4, &content('d'))]);
    assert_eq!(chain.deleted_open_bytes(), 60 + 100 + 100);
    // The first is being read.
    let given_up = chain.give_up_deleted(1, 50);
    assert_eq!(given_up, [("l.1".to_owned(), 100, Handle::Open(FileNo(1)))]);
    let given_up = chain.give_up_deleted(0, 50);
    assert_eq!(given_up, [("l.2".to_owned(), 60, Handle::Open(FileNo(0)))]);
    // The live file is not deleted, whatever is asked for.
    assert_eq!(chain.give_up_deleted(0, 1_000).len(), 1);
    assert_eq!((inodes(&chain), chain.deleted_open_bytes(), chain.position()), (vec![4], 0, 40));
}

#[test]
fn a_saved_position_whose_file_is_gone_is_told() {
    let id = FileId { device: 1, inode: 77, birth_ns: 1 };
    let head = file(0, 77, &content('z')).print();
    let mut chain = Chain::new(saved(id, head, [0; 2]));
    let changes = chain.on_scan(vec![file(1, 1, &content('a')), file(0, 2, &content('b'))]);
    assert_eq!(
        changes.gone,
        [Gone { name: "the file of the saved position".to_owned(), bytes: 0, in_place: false, file: id }]
    );
    assert_eq!((inodes(&chain), chain.position()), (vec![1, 2], 0));
}

#[test]
fn a_truncated_file_is_read_from_its_beginning() {
    let mut chain = Chain::new(Start::Oldest);
    chain.on_scan(vec![file(0, 1, &content('a'))]);
    open_all(&mut chain);
    chain.links[0].offset = 60;
    let before = chain.position();
    assert!(chain.on_short(10));
    assert_eq!((chain.links[0].offset, chain.position()), (0, before));
    assert!(!chain.on_short(10) && !chain.may_read());
    // Nobody has a copy.
    assert_eq!(chain.on_scan(vec![file(0, 1, "")]), gone("l", 1, 40, true));
    assert!(chain.may_read());
}

/// Truncated and written again, past the old position, before anybody looked: the length tells nothing, the head does.
#[test]
fn a_rewritten_file_is_read_from_its_beginning() {
    let mut chain = Chain::new(Start::Oldest);
    chain.on_scan(vec![file(0, 1, &content('a'))]);
    open_all(&mut chain);
    chain.links[0].offset = 60;
    let changes = chain.on_scan(vec![file(0, 1, &content('b').repeat(3))]);
    assert_eq!((changes, inodes(&chain), chain.links[0].offset), (gone("l", 1, 40, true), vec![1], 0));
}

/// The cursor points to the oldest open line, also when that began in a file already finished.
#[test]
fn cursors_reach_back_to_the_oldest_open_line() {
    let mut chain = Chain::new(Start::Oldest);
    chain.on_scan(vec![file(1, 1, &content('a')), file(0, 2, &content('b'))]);
    open_all(&mut chain);
    read_front(&mut chain);
    chain.links[0].offset = 20;
    let Cursor::File(cursor) = cursor_at(&mut chain, [Some(70), None]) else { panic!() };
    assert_eq!((cursor.file.inode, cursor.offset, cursor.skip), (1, 70, [0, 50]));
    let Cursor::File(cursor) = cursor_at(&mut chain, [None, None]) else { panic!() };
    assert_eq!((cursor.file.inode, cursor.offset, cursor.skip), (2, 20, [0, 0]));
}

/// Between two files the cursor is the beginning of the next, not the end of one that may be deleted.
#[test]
fn the_end_of_a_finished_file_is_the_beginning_of_the_next() {
    let mut chain = Chain::new(Start::Oldest);
    chain.on_scan(vec![file(1, 1, &content('a')), file(0, 2, &content('b'))]);
    open_all(&mut chain);
    read_front(&mut chain);
    let Cursor::File(cursor) = cursor_at(&mut chain, [None, None]) else { panic!() };
    assert_eq!((cursor.file.inode, cursor.offset), (2, 0));
}

/// Without this a restart after logrotate's copytruncate delivered the copy from its beginning, all of it twice.
#[test]
fn a_file_truncated_while_the_agent_did_not_run_goes_on_in_its_copy() {
    let mut chain = Chain::new(Start::Oldest);
    chain.on_scan(vec![file(0, 1, &content('a'))]);
    chain.links[0].offset = 60;
    let Cursor::File(cursor) = cursor_at(&mut chain, [None; 2]) else { panic!("it has read something") };

    let mut chain = Chain::new(Start::Resume(cursor.clone()));
    let found = vec![file(0, 1, &content('b')), file(1, 2, &content('a')), file(2, 3, &content('0'))];
    assert_eq!(chain.on_scan(found), Changes::default());
    assert_eq!((inodes(&chain), chain.position()), (vec![2, 1], 60));

    let mut chain = Chain::new(Start::Resume(cursor));
    let changes = chain.on_scan(vec![file(0, 1, &content('b')), file(1, 2, &content('0'))]);
    assert_eq!(changes, gone("the file of the saved position", 1, 40, true));
    assert_eq!((inodes(&chain), chain.position()), (vec![1], 0));
}

/// Without this what had been delivered came again: the copy was taken for a new file.
#[test]
fn a_file_copied_and_truncated_before_it_was_opened_goes_on_in_its_copy() {
    let listed = file(0, 1, &content('a'));
    let mut chain = Chain::new(saved(listed.id, listed.print(), [0; 2]));
    chain.on_scan(vec![listed]);
    let changes = chain.on_scan(vec![file(0, 1, ""), file(1, 2, &content('a'))]);
    assert_eq!((inodes(&chain), chain.position(), changes), (vec![2, 1], 30, Changes::default()));

    // Another one's content is not its copy.
    let listed = file(0, 1, &content('a'));
    let mut chain = Chain::new(saved(listed.id, listed.print(), [0; 2]));
    chain.on_scan(vec![listed]);
    let changes = chain.on_scan(vec![file(0, 1, ""), file(1, 2, &content('b'))]);
    assert_eq!((inodes(&chain), lost(&changes)), (vec![2, 1], vec![("l", 70)]));
    assert_eq!(chain.links[0].offset, 0);
}

/// Its writer goes on after the rename, and nobody tells. Without this the rest was passed over when the next rotation
/// was seen.
#[test]
fn a_renamed_file_that_grew_is_to_be_read_again() {
    let mut chain = Chain::new(Start::Oldest);
    chain.on_scan(vec![file(0, 1, &content('a'))]);
    open_all(&mut chain);
    chain.on_scan(vec![file(1, 1, &content('a'))]);
    let front = &mut chain.links[0];
    (front.offset, front.unread) = (front.len, false);
    chain.on_scan(vec![file(1, 1, &content('a'))]);
    assert!(!chain.links[0].unread);
    chain.on_scan(vec![file(2, 1, &content('a').repeat(2)), file(1, 2, &content('b'))]);
    assert!(chain.links[0].unread);
}

/// Without this what the other channel had delivered from newer files came a second time.
#[test]
fn a_line_open_since_a_file_that_went_does_not_send_back_the_other_channel() {
    let mut chain = Chain::new(Start::Oldest);
    chain.on_scan(vec![file(1, 1, &content('a')), file(0, 2, &content('b'))]);
    open_all(&mut chain);
    read_front(&mut chain);
    chain.links[0].offset = 40;
    let Cursor::File(cursor) = cursor_at(&mut chain, [Some(90), None]) else {
        panic!("it has read something")
    };
    assert_eq!((cursor.file.inode, cursor.offset, cursor.skip), (1, 90, [0, 50]));

    let mut chain = Chain::new(Start::Resume(cursor.clone()));
    let changes = chain.on_scan(vec![file(1, 2, &content('b')), file(0, 3, &content('c'))]);
    assert_eq!(changes.gone.len(), 1);
    assert_eq!((inodes(&chain), chain.position()), (vec![2, 3], 40));

    // The same if the file is still there at the first look and gone before it is opened. Found by seed 791441253.
    let mut chain = Chain::new(Start::Resume(cursor));
    chain.on_scan(vec![file(1, 1, &content('a')), file(0, 2, &content('b'))]);
    let changes = chain.on_scan(vec![file(1, 2, &content('b')), file(0, 3, &content('c'))]);
    assert_eq!(lost(&changes), [("l.1", 10)]);
    assert_eq!((inodes(&chain), chain.links[0].offset), (vec![2, 3], 40));
    assert_eq!(chain.delivered_to, [chain.position(); 2]);
}

/// The same for a file that is there and only looked like it, as its opening shows.
#[test]
fn a_file_that_is_not_the_saved_one_does_not_send_back_the_other_channel() {
    let mut chain = Chain::new(Start::Oldest);
    chain.on_scan(vec![file(1, 1, &content('a')), file(0, 2, &content('b'))]);
    open_all(&mut chain);
    read_front(&mut chain);
    chain.links[0].offset = 40;
    let Cursor::File(cursor) = cursor_at(&mut chain, [Some(90), None]) else {
        panic!("it has read something")
    };
    let mut chain = Chain::new(Start::Resume(cursor));
    let looks_like_it =
        FoundFile { id: FileId { birth_ns: 0, ..file(1, 7, "").id }, ..file(1, 7, &content('a')) };
    chain.on_scan(vec![looks_like_it, file(0, 2, &content('b'))]);
    chain.links[0].handle = Handle::Opening(FileNo(1));
    assert!(!chain.on_opened(FileNo(1), false, 100));
    assert_eq!((inodes(&chain), chain.links[0].offset), (vec![2], 40));
    assert_eq!(chain.delivered_to, [chain.position(); 2]);
}

/// Without this the other channel's open line came without its beginning.
#[test]
fn with_both_channels_open_it_goes_on_where_the_later_line_begins() {
    let mut chain = Chain::new(Start::Oldest);
    chain.on_scan(vec![file(2, 1, &content('a')), file(1, 2, &content('b')), file(0, 3, &content('c'))]);
    open_all(&mut chain);
    read_front(&mut chain);
    read_front(&mut chain);
    chain.links[0].offset = 40;
    let Cursor::File(cursor) = cursor_at(&mut chain, [Some(90), Some(110)]) else {
        panic!("it has read something")
    };
    assert_eq!((cursor.file.inode, cursor.offset, cursor.skip), (1, 90, [0, 20]));

    let mut chain = Chain::new(Start::Resume(cursor));
    chain.on_scan(vec![file(1, 2, &content('b')), file(0, 3, &content('c'))]);
    assert_eq!((inodes(&chain), chain.position()), (vec![2, 3], 10));
    // Both in the file that went: from where reading had come to.
    let mut chain = Chain::new(Start::Oldest);
    chain.on_scan(vec![file(1, 1, &content('a')), file(0, 2, &content('b'))]);
    open_all(&mut chain);
    read_front(&mut chain);
    chain.links[0].offset = 40;
    let Cursor::File(cursor) = cursor_at(&mut chain, [Some(80), Some(90)]) else {
        panic!("it has read something")
    };
    assert_eq!(reached_of(&cursor), [(2, 40, [0, 0])]);
}

/// Whole lines wait for others to join them: those in files that are still there must not go with the first one's file,
/// and the other channel's come only once.
#[test]
fn lines_that_wait_in_a_group_are_found_in_later_files() {
    let mut chain = Chain::new(Start::Oldest);
    chain.on_scan(vec![file(2, 1, &content('a')), file(1, 2, &content('b')), file(0, 3, &content('c'))]);
    open_all(&mut chain);
    read_front(&mut chain);
    read_front(&mut chain);
    chain.links[0].offset = 40;
    let group = |starts: &[u64]| Undelivered { starts: starts.to_vec(), in_line: false };
    let Cursor::File(cursor) = chain.cursor(&[group(&[90, 120, 150]), group(&[])]) else {
        panic!("it has read something")
    };
    assert_eq!((cursor.file.inode, cursor.offset, cursor.skip), (1, 90, [0, 150]));
    assert_eq!(reached_of(&cursor), [(2, 20, [0, 120]), (3, 40, [0, 0])]);
    let mut two = Chain::new(Start::Resume(cursor.clone()));
    two.on_scan(vec![file(1, 2, &content('b')), file(0, 3, &content('c'))]);
    assert_eq!((inodes(&two), two.position(), two.delivered_to), (vec![2, 3], 20, [20, 140]));
    let mut three = Chain::new(Start::Resume(cursor));
    three.on_scan(vec![file(0, 3, &content('c'))]);
    assert_eq!((inodes(&three), three.position(), three.delivered_to), (vec![3], 40, [40, 40]));
}

/// A file is begun of which an earlier run delivered a part, and the agent dies before that was read again.
#[test]
fn what_was_delivered_of_a_later_file_stays_delivered_if_the_first_is_gone() {
    let [old, live] = [file(1, 1, &content('a')), file(0, 2, &content('b'))];
    // One channel was delivered up to 30 bytes into the second file, a line of the other is open since the first.
    let mut chain = Chain::new(saved(old.id, old.print(), [100, 0]));
    chain.on_scan(vec![old, live]);
    open_all(&mut chain);
    read_front(&mut chain);
    let Cursor::File(cursor) = cursor_at(&mut chain, [None, Some(30)]) else { panic!("it has a front") };
    assert_eq!(reached_of(&cursor), [(2, 0, [30, 0])]);
}

/// Without this a file that was compressed before a byte of it was read came twice.
#[test]
fn an_archive_of_a_file_of_which_nothing_was_known_is_told_when_it_is_read() {
    let mut chain = Chain::new(Start::Oldest);
    chain.on_scan(vec![file(0, 1, "")]);
    open_all(&mut chain);
    chain.on_scan(vec![compressed(1, 2, &content('a')), file(0, 3, &content('b'))]);
    open_all(&mut chain);
    assert_eq!(inodes(&chain), [1, 2, 3]);
    // Too little to tell, then enough.
    assert_eq!(chain.saw(0, &content('a').as_bytes()[..20]), []);
    assert_eq!(chain.saw(0, content('a').as_bytes()), [FileNo(1)]);
    assert_eq!((inodes(&chain), chain.links[0].head.len_bytes), (vec![1, 3], 100));
    assert!(file(0, 1, &content('a')).has_head(&chain.links[0].head));
}

// ---- what was read, under whatever name and in whatever order listings show it

/// The content, read so far.
fn read_to(chain: &mut Chain, content: &str, offset: usize) {
    let front = chain.links.front_mut().unwrap();
    front.offset = offset as u64;
    front.tail = TailPrint::of(&content.as_bytes()[..offset], offset as u64);
}

/// A stream that has read these files, oldest first, and has the last in hand.
fn reader_of(names: &[char]) -> Chain {
    let mut chain = Chain::new(Start::Oldest);
    let last = names.len() - 1;
    let files = names.iter().enumerate();
    chain.on_scan(files.map(|(at, name)| file((last - at) as u32, at as u64 + 1, &content(*name))).collect());
    open_all(&mut chain);
    for name in &names[..last] {
        read_to(&mut chain, &content(*name), 100);
        chain.finish_front();
    }
    chain
}

/// `docker rm` takes away one file after the other. Without this those still listed came again.
#[test]
fn files_that_were_read_are_not_new_because_newer_ones_vanished() {
    let mut chain = reader_of(&['a', 'b', 'c']);
    chain.on_scan(vec![file(2, 1, &content('a')), file(1, 2, &content('b'))]);
    assert_eq!((inodes(&chain), chain.links[0].deleted), (vec![3], true));
    // Nothing known is left, but it was made before what was read.
    let mut chain = reader_of(&['a', 'b', 'c']);
    chain.known = Known::default();
    chain.on_scan(vec![file(2, 1, &content('a'))]);
    assert_eq!(inodes(&chain), [3]);
}

/// Without this a listing made while names were changing closed lines that went on.
#[test]
fn one_listing_without_a_file_proves_nothing() {
    let mut chain = Chain::new(Start::Oldest);
    chain.on_scan(vec![file(0, 1, &content('a'))]);
    open_all(&mut chain);
    let changes = chain.on_listing(Vec::new(), true, &|_| None);
    assert!(changes.look_again && !chain.links[0].deleted && !chain.links[0].settled);
    // Something happened since: this one is no second witness.
    assert!(chain.on_listing(Vec::new(), false, &|_| None).look_again);
    assert!(!chain.links[0].deleted);
    chain.on_listing(Vec::new(), true, &|_| None);
    assert!(chain.links[0].deleted);
    chain.on_listing(vec![file(0, 1, &content('a'))], true, &|_| None);
    assert!(!chain.links[0].deleted && !chain.links[0].settled);
}

/// logrotate's copytruncate while the agent is behind: what is unread stands in the copy.
#[test]
fn what_a_rewritten_file_held_is_read_on_in_its_copy() {
    let mut chain = Chain::new(Start::Oldest);
    chain.on_scan(vec![file(0, 1, &content('a'))]);
    open_all(&mut chain);
    read_to(&mut chain, &content('a'), 60);
    assert!(chain.on_short(0) && !chain.may_read());
    let found = vec![file(0, 1, ""), file(1, 2, &content('a')), file(2, 3, &content('a'))];
    assert_eq!(chain.on_scan(found.clone()), Changes::default());
    // Two begin alike: only the opening tells.
    assert_eq!((inodes(&chain), chain.links[0].expected().end), (vec![2, 1], 60));
    chain.links[0].handle = Handle::Opening(FileNo(9));
    assert!(!chain.on_opened(FileNo(9), false, 100));
    assert_eq!(chain.on_scan(found.clone()), Changes::default());
    assert_eq!(inodes(&chain), [3, 1]);
    chain.links[0].handle = Handle::Opening(FileNo(10));
    assert!(chain.on_opened(FileNo(10), true, 100) && chain.may_read());
    assert_eq!((chain.position(), chain.links[0].offset), (60, 60));
    read_front(&mut chain);
    assert_eq!((inodes(&chain), chain.position(), chain.links[0].offset), (vec![1], 100, 0));
    // Neither of them is new later.
    chain.on_scan(found);
    assert_eq!(inodes(&chain), [1]);
}

/// A writer that goes on in the file that was renamed: without this its lines were never read.
#[test]
fn a_file_that_grew_after_it_was_finished_is_read_on() {
    let mut chain = reader_of(&['a', 'b']);
    read_to(&mut chain, &content('b'), 40);
    let grown = content('a') + "late\n";
    chain.on_scan(vec![file(1, 1, &grown), file(0, 2, &content('b'))]);
    assert_eq!((chain.parked.len(), chain.parked[0].link.offset), (1, 100));
    chain.unpark(0);
    assert_eq!((inodes(&chain), chain.position()), (vec![1, 2], 140));
    read_to(&mut chain, &grown, 105);
    let Cursor::File(cursor) = cursor_at(&mut chain, [None; 2]) else { panic!("it has read something") };
    assert_eq!((cursor.file.inode, cursor.offset, cursor.done.len()), (1, 105, 2));
    assert_eq!((cursor.done[1].file.inode, cursor.done[1].offset), (2, 40));
    chain.finish_front();
    assert_eq!((inodes(&chain), chain.position(), chain.links[0].offset), (vec![2], 145, 40));

    // The next run goes on in both.
    let mut next = Chain::new(Start::Resume(cursor.clone()));
    next.remember(cursor.done.to_vec());
    next.on_scan(vec![file(1, 1, &(grown + "more\n")), file(0, 2, &content('b'))]);
    assert_eq!(next.links.iter().map(|link| link.offset).collect::<Vec<_>>(), [105, 40]);
}

/// `cp` onto the copy that was read: it is older than the log, whatever stands in it.
#[test]
fn a_rotated_file_that_is_overwritten_is_not_read_again() {
    let mut chain = reader_of(&['a', 'b']);
    chain.on_scan(vec![file(1, 1, &(content('a') + "late\n")), file(0, 2, &content('b'))]);
    chain.parked[0].link.handle = Handle::Open(FileNo(7));
    let changes = chain.on_scan(vec![file(1, 1, &content('x').repeat(2)), file(0, 2, &content('b'))]);
    assert_eq!((changes.let_go, chain.parked.len(), inodes(&chain)), (vec![FileNo(7)], 0, vec![2]));
    chain.on_scan(vec![file(1, 1, &content('x').repeat(3)), file(0, 2, &content('b'))]);
    assert_eq!((chain.parked.len(), inodes(&chain)), (0, vec![2]));
}

/// Restored from a backup, or copied to another disk: every inode is another.
#[test]
fn a_copied_directory_goes_on_where_it_was() {
    let mut chain = reader_of(&['a', 'b']);
    read_to(&mut chain, &content('b'), 40);
    let Cursor::File(cursor) = cursor_at(&mut chain, [None; 2]) else { panic!("it has read something") };
    let mut next = Chain::new(Start::Resume(cursor));
    let changes = next.on_scan(vec![file(1, 11, &content('a')), file(0, 12, &content('b'))]);
    assert_eq!((changes, inodes(&next), next.position()), (Changes::default(), vec![12], 40));
    next.links[0].handle = Handle::Opening(FileNo(1));
    assert!(next.on_opened(FileNo(1), true, 100) && next.may_read());
}

/// Rotated to a name that nobody knows, it stands in the order of birth.
#[test]
fn a_file_under_a_strange_name_keeps_its_place() {
    let mut chain = reader_of(&['a', 'b']);
    read_to(&mut chain, &content('b'), 40);
    let strange = FoundFile { name: "moved".to_owned(), ..file(FoundFile::RANK_UNKNOWN, 2, &content('b')) };
    chain.on_scan(vec![file(1, 1, &content('a')), strange, file(0, 3, &content('c'))]);
    assert_eq!((inodes(&chain), chain.links[0].settled), (vec![2, 3], true));
}

/// Without birth times a number comes back with another file, maybe one that is followed under its own name.
#[test]
fn a_strange_name_with_a_number_that_came_back_is_another_file() {
    let numbered = |name: &str, rank, content: &str| FoundFile {
        name: name.to_owned(),
        id: FileId { device: 1, inode: 5, birth_ns: 0 },
        ..file(rank, 5, content)
    };
    let live = numbered("l", 0, &content('a'));
    let stranger = numbered("other", FoundFile::RANK_UNKNOWN, &content('b'));
    // Waited for since the start.
    let mut chain = Chain::new(saved(live.id, live.print(), [0; 2]));
    assert!(chain.wanted().contains(&stranger.id));
    chain.on_scan(vec![stranger.clone()]);
    assert_eq!(inodes(&chain), [0; 0]);
    // Read, finished and removed.
    let mut chain = Chain::new(Start::Oldest);
    chain.on_scan(vec![live]);
    open_all(&mut chain);
    read_front(&mut chain);
    chain.on_scan(vec![stranger, file(0, 6, &content('c'))]);
    assert_eq!(inodes(&chain), [6]);
}

/// Made and rotated before anybody saw it.
#[test]
fn what_was_rotated_since_the_agent_looks_is_new() {
    let mut chain = Chain::new(Start::Since(2));
    chain.on_scan(vec![file(2, 1, &content('a')), file(1, 2, &content('b')), file(0, 3, &content('c'))]);
    assert_eq!(inodes(&chain), [2, 3]);
    let mut chain = Chain::new(Start::Live);
    chain.on_scan(vec![file(1, 2, &content('b')), file(0, 3, &content('c'))]);
    assert_eq!(inodes(&chain), [3]);
}

/// It was packed at once: its archive was passed over, and nobody said so.
#[test]
fn what_was_rotated_and_packed_since_the_agent_looks_is_new() {
    let packed =
        |rank, inode, modified_ns| FoundFile { modified_ns, ..compressed(rank, inode, &content('b')) };
    let begun = |packed: FoundFile| {
        let mut chain = Chain::new(Start::Since(5));
        chain.on_scan(vec![file(2, 1, &content('a')), packed, file(0, 9, &content('c'))]);
        inodes(&chain)
    };
    assert_eq!(begun(packed(1, 8, 7)), [8, 9]);
    assert_eq!(begun(packed(1, 8, 4)), [9], "packed since, of what was written before");
    assert_eq!(begun(packed(1, 4, 4)), [9], "packed before");
}

/// A link was changed and changed back: what it leads to was taken for a rotated file for ever.
#[test]
fn a_file_that_is_live_again_grows_again() {
    for parked in [true, false] {
        let mut chain = Chain::new(Start::Oldest);
        chain.on_scan(vec![file(0, 1, &content('a'))]);
        open_all(&mut chain);
        chain.links[0].offset = 60;
        chain.links[0].elsewhere = true;
        chain.links[0].found.rank = 1;
        chain.on_scan(vec![file(0, 2, &content('b'))]);
        open_all(&mut chain);
        assert_eq!(inodes(&chain), [1, 2]);
        if parked {
            chain.park_front(1_000);
        }
        chain.links[0].elsewhere |= parked;
        let position = chain.position();
        chain.on_scan(vec![file(0, 1, &content('a'))]);
        let live = chain.links.back().expect("it is there");
        assert_eq!((live.found.id.inode, live.offset, live.elsewhere, live.settled), (1, 60, false, false));
        assert!(live.unread && matches!(live.handle, Handle::Open(_)));
        assert_eq!(chain.position(), position, "parked {parked}");
    }
}

/// Renamed between the look that found it and the listing: it was passed over as an older file.
#[test]
fn a_file_that_was_rotated_before_it_was_listed_is_the_first() {
    for (start, expected) in [(Start::Live, 0), (Start::End, 100)] {
        let mut chain = Chain::new(start);
        chain.begin_with(file(0, 2, "").id);
        chain.on_scan(vec![file(2, 1, &content('a')), file(1, 2, &content('b')), file(0, 3, &content('c'))]);
        assert_eq!((inodes(&chain), chain.links[0].offset, chain.links[1].offset), (vec![2, 3], expected, 0));
    }
}

/// A folder is put in another's place while the agent does not run, and back again.
#[test]
fn a_file_that_was_not_there_at_a_start_is_known_when_it_is_back() {
    let (first, second) = (content('a'), content('b'));
    let resume = |chain: &mut Chain| {
        let Cursor::File(cursor) = cursor_at(chain, [None; 2]) else { panic!("it names its file") };
        Start::Resume(cursor)
    };
    let read = |chain: &mut Chain, text: &str| {
        let len = text.len() as u64;
        let front = &mut chain.links[0];
        (front.tail, front.offset, front.unread) = (TailPrint::of(text.as_bytes(), len), len, false);
    };
    let born = |inode: u64, text: &str| {
        let file = file(0, inode, text);
        FoundFile { id: FileId { birth_ns: inode as i64, ..file.id }, ..file }
    };
    let mut chain = Chain::new(Start::Oldest);
    chain.on_scan(vec![born(1, &first)]);
    read(&mut chain, &first);
    let mut chain = Chain::new(resume(&mut chain));
    chain.on_scan(vec![born(2, &second)]);
    assert_eq!((inodes(&chain), chain.links[0].offset), (vec![2], 0));
    read(&mut chain, &second);
    let Cursor::File(cursor) = cursor_at(&mut chain, [None; 2]) else { panic!("it names its file") };
    let remembered = cursor.done.clone();
    assert_eq!(remembered.iter().map(|place| place.file.inode).collect::<Vec<_>>(), [1]);
    let mut chain = Chain::new(Start::Resume(cursor));
    chain.remember(remembered.to_vec());
    chain.on_scan(vec![born(1, &(first + "more"))]);
    assert_eq!((inodes(&chain), chain.links[0].offset), (vec![1], 100));
}

/// What becomes of the name of a log that was removed takes nothing away, if it was read to its end.
#[test]
fn a_removed_log_that_was_read_to_its_end_is_no_loss_later() {
    let text = content('a');
    for is_read in [true, false] {
        let mut chain = Chain::new(Start::Oldest);
        chain.on_scan(vec![file(0, 1, &text)]);
        open_all(&mut chain);
        (chain.links[0].tail, chain.links[0].offset) = (TailPrint::of(text.as_bytes(), 100), 100);
        chain.links[0].unread = false;
        if is_read {
            (0..2).for_each(|_| drop(chain.on_scan(Vec::new())));
            chain.links[0].unread = false;
            chain.finish_front();
        }
        let Cursor::File(cursor) = cursor_at(&mut chain, [None; 2]) else { panic!("it names its file") };
        assert_eq!((cursor.offset, cursor.ended), (100, is_read));
        let mut chain = Chain::new(Start::Resume(cursor.clone()));
        assert_eq!(chain.never_found("l").is_none(), is_read, "while nothing is found");
        let changes = chain.on_scan(vec![file(0, 2, &content('b'))]);
        assert_eq!(changes.gone.len(), usize::from(!is_read), "{changes:?}");
        assert_eq!((inodes(&chain), chain.links[0].offset), (vec![2], 0));
        assert!(chain.never_found("l").is_none());
    }
}
