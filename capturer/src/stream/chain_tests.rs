//! Rotation as the directory shows it, scan by scan.

use super::*;

fn file(rank: u32, inode: u64, content: &str) -> FoundFile {
    FoundFile {
        name: if rank == 0 { "l".to_owned() } else { format!("l.{rank}") },
        rank,
        compressed: false,
        id: FileId { device: 1, inode, birth_ns: inode as i64 },
        len: content.len() as u64,
        head: content.as_bytes()[..content.len().min(HEAD_BYTES)].to_vec(),
    }
}

fn compressed(rank: u32, inode: u64, content: &str) -> FoundFile {
    FoundFile { compressed: true, len: 7, name: format!("l.{rank}.gz"), ..file(rank, inode, content) }
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
    Start::Resume(FileCursor {
        file,
        head,
        offset: 30,
        skip,
        reached: Vec::new(),
        lines: ApiCursor::default(),
        passing: Default::default(),
    })
}

#[test]
fn a_fresh_stream_begins_with_the_oldest_file() {
    let mut chain = Chain::new(Start::Oldest);
    let changes =
        chain.on_scan(vec![file(0, 3, &content('c')), file(2, 1, &content('a')), file(1, 2, &content('b'))]);
    assert_eq!((inodes(&chain), changes), (vec![1, 2, 3], Changes::default()));
    assert_eq!(chain.links.iter().map(|link| link.settled).collect::<Vec<_>>(), [true, true, false]);
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
    assert!(!changes.resume_lost);
    assert_eq!((inodes(&chain), chain.position(), chain.delivered_to), (vec![9, 2], 30, [30, 35]));
}

#[test]
fn what_vanished_unopened_is_lost_and_what_is_open_is_not() {
    let mut chain = Chain::new(Start::Oldest);
    chain.on_scan(vec![file(1, 1, &content('a')), file(0, 2, &content('b'))]);
    chain.links[1].handle = Handle::Open(FileNo(1));
    let changes = chain.on_scan(vec![file(0, 3, &content('c'))]);
    assert_eq!(changes.lost, [("l.1".to_owned(), 100)]);
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
    assert!(changes.resume_lost);
    assert_eq!((inodes(&chain), chain.position()), (vec![1, 2], 0));
}

#[test]
fn a_truncated_file_is_read_from_its_beginning() {
    let mut chain = Chain::new(Start::Oldest);
    chain.on_scan(vec![file(0, 1, &content('a'))]);
    open_all(&mut chain);
    chain.links[0].offset = 60;
    let before = chain.position();
    assert_eq!(chain.on_short(10), Some((40, 10)));
    assert_eq!((chain.links[0].offset, chain.position()), (0, before));
    assert_eq!(chain.on_short(10), None);
}

/// Truncated and written again, past the old position, before anybody looked: the length tells nothing, the head does.
#[test]
fn a_rewritten_file_is_read_from_its_beginning() {
    let mut chain = Chain::new(Start::Oldest);
    chain.on_scan(vec![file(0, 1, &content('a'))]);
    open_all(&mut chain);
    chain.links[0].offset = 60;
    let changes = chain.on_scan(vec![file(0, 1, &content('b').repeat(3))]);
    assert_eq!((changes.truncated, inodes(&chain), chain.links[0].offset), (Some((240, 300)), vec![1], 0));
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
    assert_eq!(changes, Changes { truncated: Some((0, 100)), ..Changes::default() });
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
    assert_eq!((inodes(&chain), changes.lost), (vec![2, 1], vec![("l".to_owned(), 70)]));
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
    assert!(changes.resume_lost);
    assert_eq!((inodes(&chain), chain.position()), (vec![2, 3], 40));

    // The same if the file is still there at the first look and gone before it is opened. Found by seed 791441253.
    let mut chain = Chain::new(Start::Resume(cursor));
    chain.on_scan(vec![file(1, 1, &content('a')), file(0, 2, &content('b'))]);
    let changes = chain.on_scan(vec![file(1, 2, &content('b')), file(0, 3, &content('c'))]);
    assert_eq!(changes.lost, [("l.1".to_owned(), 10)]);
    assert_eq!((inodes(&chain), chain.links[0].offset), (vec![2, 3], 40));
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

/// Without birth times an empty file is opened by its number alone, and that may have come back meanwhile: what was made
/// and renamed between the listing and the opening comes first.
#[test]
fn a_number_that_came_back_before_the_opening_hides_nothing() {
    let unborn = |rank, inode, content: &str| {
        let mut file = file(rank, inode, content);
        file.id.birth_ns = 0;
        file
    };
    let mut chain = Chain::new(Start::Oldest);
    chain.on_scan(vec![unborn(1, 1, &content('a')), unborn(0, 2, "")]);
    for (at, link) in chain.links.iter_mut().enumerate() {
        link.doubted = !link.is_proven();
        link.handle = Handle::Open(FileNo(at as u64));
    }
    assert_eq!(chain.links.iter().map(|link| link.doubted).collect::<Vec<_>>(), [false, true]);
    read_front(&mut chain);
    // A rotation made 3 and 4, and the number 2 is the live file's again; 1 was there before.
    let found = [(3, 1, 'a'), (2, 3, 'b'), (1, 4, 'c'), (0, 2, 'd')];
    chain.on_scan(found.map(|(rank, inode, name)| unborn(rank, inode, &content(name))).to_vec());
    assert_eq!(inodes(&chain), [3, 4, 2]);
    let Cursor::File(cursor) = cursor_at(&mut chain, [None; 2]) else { panic!("it has a front") };
    assert_eq!((cursor.file.inode, cursor.offset), (3, 0));
    chain.trust_opened();
    assert!(chain.links.iter().all(|link| !link.doubted));
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
