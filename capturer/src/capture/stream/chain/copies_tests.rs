//! Copies and archives: which files are, and what their positions say of them.

use super::*;

/// What stood in a log that was empty for us went into copies that nobody saw being made.
#[test]
fn copies_made_meanwhile_are_read_before_what_came_after_them() {
    let born = |file: FoundFile, birth_ns| FoundFile { id: FileId { birth_ns, ..file.id }, ..file };
    let old = || born(file(3, 3, &content('o')), 3);
    let empty = || born(file(0, 1, ""), 1);
    let copies = || [born(file(2, 12, &content('a')), 12), born(file(1, 11, &content('b')), 11)];
    let live = || born(file(0, 1, &content('c')), 1);
    let found = || [vec![old()], copies().to_vec(), vec![live()]].concat();
    // While it ran.
    let mut chain = Chain::new(Start::Live);
    chain.copied_since(0);
    chain.on_scan(vec![old(), empty()]);
    open_all(&mut chain);
    chain.on_scan(found());
    assert_eq!(inodes(&chain), [12, 11, 1]);
    assert_eq!(chain.position(), 0);
    // While it did not: only what was made since then is new.
    let mut chain = Chain::new(Start::Live);
    chain.on_scan(vec![empty()]);
    let Cursor::File(cursor) = cursor_at(&mut chain, [None; 2]) else { panic!("it names its file") };
    for (looked_ns, expected) in
        [(10, vec![12, 11, 1]), (11, vec![12, 1]), (20, vec![1]), (i64::MAX, vec![1])]
    {
        let mut chain = Chain::new(Start::Resume(cursor.clone()));
        chain.copied_since(looked_ns);
        chain.on_scan(found());
        assert_eq!(inodes(&chain), expected, "looked at {looked_ns}");
        chain.on_scan(found());
        assert_eq!(inodes(&chain), expected, "looked at {looked_ns}, listed again");
    }
}

/// logrotate's `copy` leaves the log as it is; a copy of Docker's log is no file of Docker's.
#[test]
fn a_copy_of_what_is_read_here_is_not_read_again() {
    for (copied, begun) in [(true, 60), (true, 0), (false, 60)] {
        let mut chain = Chain::new(Start::Oldest);
        if copied {
            chain.copied_since(0);
        }
        chain.on_scan(vec![file(0, 1, &content('a'))]);
        open_all(&mut chain);
        chain.links[0].offset = begun;
        let grown = content('a') + &content('b');
        chain.on_scan(vec![file(1, 2, &content('a')), file(0, 1, &grown)]);
        assert_eq!((inodes(&chain), chain.parked.len()), (vec![1], 0), "{copied} {begun}");
    }
}

/// A later run may find it without its log, which grew beyond it.
#[test]
fn a_copy_that_is_passed_over_is_in_the_table_if_it_was_whole() {
    let lines = |number: usize| "one line of a log that says something\n".repeat(number);
    for (copied, noted) in [(lines(3), vec![2]), (lines(99), vec![]), (lines(3) + "and", vec![])] {
        let mut chain = Chain::new(Start::Oldest);
        chain.copied_since(0);
        let grown = copied.clone() + &lines(9);
        chain.on_scan(vec![file(0, 1, &grown)]);
        open_all(&mut chain);
        read_to(&mut chain, &grown, grown.len());
        let found = || vec![file(1, 2, &copied), file(0, 1, &grown)];
        chain.on_scan(found());
        chain.on_scan(found());
        let Cursor::File(cursor) = cursor_at(&mut chain, [None; 2]) else { panic!("it names its file") };
        let done: Vec<u64> = cursor.done.iter().map(|place| place.file.inode).collect();
        assert_eq!(done, noted, "{} bytes", copied.len());
        // Nothing of it is read then.
        let place = cursor.done.first().copied();
        let mut chain = Chain::new(Start::Oldest);
        chain.on_listing(vec![file(0, 2, &copied)], true, &|_| place);
        assert_eq!(chain.unread_bytes(), if place.is_some() { 0 } else { copied.len() as u64 });
    }
}

/// Copied, and then renamed to a name that tells nothing: the listing shows both, and a new live file.
#[test]
fn a_copy_of_a_log_that_was_renamed_then_is_told_by_what_stands_before_its_end() {
    let mut chain = Chain::new(Start::Oldest);
    chain.copied_since(0);
    chain.on_scan(vec![file(0, 1, &content('a'))]);
    open_all(&mut chain);
    chain.links[0].tail = TailPrint::of(content('a').as_bytes(), 100);
    chain.links[0].offset = 100;
    let renamed = FoundFile { name: "l.bak".to_owned(), ..file(FoundFile::RANK_UNKNOWN, 1, &content('a')) };
    chain.on_scan(vec![renamed, file(1, 2, &content('a')), file(0, 3, &content('c'))]);
    chain.finish_front();
    assert_eq!(inodes(&chain), [2, 3]);
    chain.assume_copy();
    assert_eq!((chain.links[0].offset, chain.links[0].copy), (100, Copied::Likely));
    // What is read shows whether it is.
    assert!(chain.is_no_copy(true));
    assert_eq!(chain.links[0].offset, 0);
}

/// dockerd gives all pieces of a line one time, so that two files of the middle of a long line differ in nothing but their
/// identity. The second is no copy of the first, which is still there.
#[test]
fn two_files_of_docker_that_are_the_same_to_the_byte_are_two() {
    for is_gone in [false, true] {
        let mut chain = Chain::new(Start::Oldest);
        chain.on_scan(vec![file(0, 1, &content('a'))]);
        open_all(&mut chain);
        (chain.links[0].tail, chain.links[0].offset) = (TailPrint::of(content('a').as_bytes(), 100), 100);
        let first = file(2, 1, &content('a'));
        let others = vec![file(1, 2, &content('a')), file(0, 3, &content('c'))];
        chain.on_scan([vec![first], others.clone()].concat());
        chain.finish_front();
        if is_gone {
            chain.on_scan(others);
        }
        assert_eq!(inodes(&chain), [2, 3]);
        chain.assume_copy();
        assert_eq!(chain.links[0].copy == Copied::Likely, is_gone, "a restored copy of all of it");
    }
}

/// Two of Docker's files may begin alike, within one line of hundreds of kilobytes. When the opening shows that the second is
/// no copy, that does not mean that somebody rewrote it.
#[test]
fn what_turns_out_to_be_no_copy_when_it_is_opened_is_read_whole_and_nothing_is_lost() {
    let mut chain = Chain::new(Start::Oldest);
    chain.copied_since(0);
    chain.on_scan(vec![file(0, 1, &content('a'))]);
    open_all(&mut chain);
    (chain.links[0].tail, chain.links[0].offset) = (TailPrint::of(content('a').as_bytes(), 100), 100);
    let next = content('a') + "and then something else";
    let found = || vec![file(2, 1, &content('a')), file(1, 2, &next), file(0, 3, &content('c'))];
    chain.on_scan(found());
    chain.finish_front();
    assert_eq!(inodes(&chain), [2, 3]);
    chain.assume_copy();
    assert_eq!((chain.links[0].offset, chain.links[0].copy), (100, Copied::Likely));
    let position = chain.position();
    chain.links[0].handle = Handle::Opening(FileNo(9));
    assert!(chain.on_opened(FileNo(9), false, 100));
    assert_eq!((chain.links[0].offset, chain.links[0].copy), (0, Copied::No));
    assert!(!chain.is_searching() && chain.position() == position);
    let changes = chain.on_scan(found());
    assert_eq!((changes.gone.len(), changes.lost.len()), (0, 0), "{changes:?}");
}

/// logrotate's renamecopy: the log is renamed, copied and removed. A listing may show the copy while it is made.
#[test]
fn a_copy_that_is_being_made_is_not_read_as_new() {
    let whole = content('a') + &content('b');
    for shown in [0, 30, 100] {
        let mut chain = Chain::new(Start::Oldest);
        chain.copied_since(0);
        chain.on_scan(vec![file(0, 1, &whole)]);
        open_all(&mut chain);
        (chain.links[0].tail, chain.links[0].offset) = (TailPrint::of(whole.as_bytes(), 200), 200);
        let renamed = FoundFile { name: "l.tmp".to_owned(), ..file(FoundFile::RANK_UNKNOWN, 1, &whole) };
        chain.on_scan(vec![renamed, file(1, 2, &whole[..shown]), file(0, 3, "")]);
        chain.park_front(1_000);
        open_all(&mut chain);
        assert_eq!((inodes(&chain), chain.links[0].offset), (vec![2, 3], 0), "{shown}");
        assert!(!chain.may_read(), "{shown}: it waits for the rest");
        chain.on_scan(vec![file(1, 2, &whole), file(0, 3, "")]);
        assert!(chain.may_read(), "{shown}");
        chain.assume_copy();
        assert_eq!((chain.links[0].offset, chain.links[0].copy), (200, Copied::Likely), "{shown}");
    }
}

/// The same, and nothing stood in the copy when it was read first: it was parked, and grew.
#[test]
fn an_empty_copy_that_is_filled_later_is_told_by_what_it_begins_with() {
    let mut chain = Chain::new(Start::Oldest);
    chain.copied_since(0);
    chain.on_scan(vec![file(0, 1, &content('a'))]);
    open_all(&mut chain);
    (chain.links[0].tail, chain.links[0].offset) = (TailPrint::of(content('a').as_bytes(), 100), 100);
    chain.on_scan(vec![file(1, 2, ""), file(0, 3, "")]);
    chain.finish_front();
    open_all(&mut chain);
    chain.park_front(1_000);
    chain.unpark(0);
    assert!(!chain.begins_as_copy(&content('b').as_bytes()[..80]), "that is another");
    chain.links[0].found.head.clear();
    assert!(chain.begins_as_copy(content('a').as_bytes()));
    assert_eq!(chain.links[0].offset, 100);
}

/// Several copytruncates while the agent was late: only the oldest copy begins as what was read.
#[test]
fn all_copies_behind_the_one_that_goes_on_are_read() {
    let mut chain = Chain::new(Start::Oldest);
    chain.copied_since(0);
    chain.on_scan(vec![file(0, 1, &content('a'))]);
    open_all(&mut chain);
    chain.links[0].offset = 60;
    assert!(chain.on_short(10));
    let copies = vec![file(3, 2, &content('a')), file(2, 3, &content('b')), file(1, 4, &content('c'))];
    let changes = chain.on_scan([copies, vec![file(0, 1, &content('d'))]].concat());
    assert_eq!((changes, inodes(&chain)), (Changes::default(), vec![2, 3, 4, 1]));
}

/// Emptied and written again before anything of it was read.
#[test]
fn a_file_that_was_never_read_and_is_shorter_now_was_emptied() {
    let mut chain = Chain::new(Start::Oldest);
    chain.copied_since(0);
    chain.on_scan(vec![file(0, 1, &content('a'))]);
    open_all(&mut chain);
    assert!(chain.on_short(10));
    let found = vec![file(1, 2, &content('a')), file(0, 1, &content('b')[..10])];
    assert_eq!((chain.on_scan(found), inodes(&chain)), (Changes::default(), vec![2, 1]));
}

/// A file was read to its end and closed, and its writer rewrote it before it was opened again. All of the old content was declared
/// lost.
#[test]
fn a_quiet_file_that_is_shorter_when_it_is_opened_lost_nothing_that_was_read() {
    let (before, after) = (content('a') + &content('b'), &content('c')[..40]);
    let mut chain = Chain::new(Start::Oldest);
    chain.copied_since(0);
    chain.on_scan(vec![file(0, 1, &before)]);
    chain.links[0].handle = Handle::Open(FileNo(9));
    (chain.links[0].tail, chain.links[0].offset) = (TailPrint::of(before.as_bytes(), 200), 200);
    assert!(chain.on_opened(FileNo(9), false, 40));
    assert_eq!((chain.links[0].offset, chain.links[0].len), (0, 40));
    assert!(!chain.on_short(40));
    assert_eq!(chain.on_scan(vec![file(0, 1, after)]), gone("l", 1, 0, true));
}

/// A writer that does not append leaves a hole at the beginning when its log is emptied. Its lines were not looked for in the copy
/// that was made at the next rotation.
#[test]
fn what_a_log_that_begins_with_a_hole_held_is_read_on_in_its_copy() {
    let hole = |rank, inode, content: &str| FoundFile { head: Vec::new(), ..file(rank, inode, content) };
    let before = "\0".repeat(2 * HEAD_BYTES) + &content('a');
    let copy = before.clone() + &content('b');
    let mut chain = Chain::new(Start::Oldest);
    chain.copied_since(0);
    chain.on_scan(vec![hole(0, 1, &before)]);
    open_all(&mut chain);
    chain.saw(0, before.as_bytes());
    let read = before.len() as u64;
    (chain.links[0].tail, chain.links[0].offset) = (TailPrint::of(before.as_bytes(), read), read);
    let live = "\0".repeat(copy.len()) + &content('c');
    chain.begin_anew(live.len() as u64);
    // The copy begins with a hole, too. A file that begins with text is not the copy, even if it is longer.
    let found = vec![file(2, 3, &content('x').repeat(99)), hole(1, 2, &copy), hole(0, 1, &live)];
    assert_eq!(chain.on_scan(found), Changes::default());
    assert_eq!((inodes(&chain), chain.links[0].offset), (vec![2, 1], read));
    chain.links[0].handle = Handle::Opening(FileNo(7));
    assert!(chain.on_opened(FileNo(7), true, copy.len() as u64) && chain.may_read());
}

/// An editor saved it, or a backup was restored: all of it came again.
#[test]
fn a_log_that_begins_with_a_hole_and_is_restored_goes_on_where_it_was_left() {
    let hole = |inode, content: &str| FoundFile { head: Vec::new(), ..file(0, inode, content) };
    let content_of = |name| "\0".repeat(2 * HEAD_BYTES) + &content(name);
    let mut chain = Chain::new(Start::Oldest);
    chain.copied_since(0);
    chain.on_scan(vec![hole(1, &content_of('a'))]);
    open_all(&mut chain);
    let before = content_of('a');
    chain.saw(0, before.as_bytes());
    let read = before.len() as u64;
    (chain.links[0].tail, chain.links[0].offset) = (TailPrint::of(before.as_bytes(), read), read);
    chain.on_scan(vec![hole(2, &before)]);
    chain.finish_front();
    assert_eq!(inodes(&chain), [2]);
    chain.assume_copy();
    assert_eq!((chain.links[0].offset, chain.links[0].copy), (read, Copied::Likely));
    // What is read shows whether it is: another may begin with a hole, too.
    assert!(chain.is_no_copy(true));
    assert_eq!(chain.links[0].offset, 0);
}

/// Outputs compare lines with a file's birth: of a copy and of an archive that says nothing, and their positions say so.
#[test]
fn a_position_in_a_file_that_is_younger_than_its_lines_says_so() {
    let is_copy = |found: Vec<FoundFile>| {
        let mut chain = Chain::new(Start::Oldest);
        chain.on_scan(found);
        let Cursor::File(begun) = cursor_at(&mut chain, [None; 2]) else { panic!("it names its file") };
        open_all(&mut chain);
        chain.links[0].offset = 60;
        let Cursor::File(cursor) = cursor_at(&mut chain, [None; 2]) else { panic!("it names its file") };
        assert_eq!(begun.is_copy, cursor.is_copy);
        cursor.is_copy
    };
    let (a, b, c) = (&content('a'), &content('b'), &content('c'));
    // Renamed: each file is older than the next.
    assert!(!is_copy(vec![file(2, 1, a), file(1, 2, b), file(0, 3, c)]));
    // Copied and emptied, or renamed, made anew and copied: the live file is older.
    assert!(is_copy(vec![file(2, 3, a), file(1, 4, b), file(0, 2, c)]));
    assert!(is_copy(vec![compressed(1, 1, a), file(0, 2, c)]));
}

/// A log was copied to the name of a rotated one before it could be opened: it goes on in the copy.
#[test]
fn a_position_says_that_the_log_goes_on_in_a_copy() {
    let mut chain = Chain::new(Start::Oldest);
    chain.copied_since(0);
    chain.on_scan(vec![file(0, 1, &content('a'))]);
    chain.on_scan(vec![file(1, 2, &content('a')), file(0, 1, "")]);
    let Cursor::File(cursor) = cursor_at(&mut chain, [None; 2]) else { panic!("it names its file") };
    assert_eq!((cursor.file.inode, cursor.is_copy), (2, true));
}

/// Docker compresses a file after it made the next one. The archive was read to its end, and is gone at the next start, or
/// at the next look: the file that followed it is older by birth, and not read yet.
#[test]
fn what_follows_an_archive_that_is_gone_is_read() {
    let (a, b, c) = (&content('a'), &content('b'), &content('c'));
    let before = vec![compressed(1, 5, a), file(0, 4, b)];
    let after = vec![file(1, 4, b), file(0, 6, c)];
    let mut chain = Chain::new(Start::Oldest);
    chain.on_scan(before.clone());
    open_all(&mut chain);
    chain.links[0].offset = 100;
    let Cursor::File(cursor) = cursor_at(&mut chain, [None; 2]) else { panic!("it names its file") };
    assert_eq!((cursor.file.inode, cursor.offset, cursor.is_copy), (5, 100, true));
    let mut next = Chain::new(Start::Resume(cursor));
    next.on_scan(after.clone());
    next.on_scan(after.clone());
    assert_eq!(inodes(&next), [4, 6]);

    // The same without a start between: the archive was all that was known.
    let mut chain = Chain::new(Start::Oldest);
    chain.on_scan(vec![before[0].clone()]);
    open_all(&mut chain);
    chain.links[0].offset = 100;
    chain.on_scan(after.clone());
    chain.on_scan(after);
    assert_eq!(inodes(&chain), [5, 4, 6]);
}

/// A log that was copied, written to, and copied and emptied: the newer name is not that of the newer copy.
#[test]
fn what_was_emptied_goes_on_in_the_longest_copy() {
    let (short, long) = (content('a'), content('a') + &content('b'));
    let mut chain = Chain::new(Start::Oldest);
    chain.copied_since(0);
    chain.on_scan(vec![file(0, 1, &short)]);
    open_all(&mut chain);
    chain.saw(0, short.as_bytes());
    chain.links[0].offset = 100;
    assert!(chain.on_short(10));
    chain.on_scan(vec![file(2, 5, &long), file(1, 4, &short), file(0, 1, &content('c')[..10])]);
    assert_eq!((inodes(&chain)[0], chain.links[0].candidate, chain.links[0].offset), (5, true, 100));
}

/// Lines that have just the time of the last one delivered are counted from the log's beginning. Where the table of files
/// read would let reading begin, some of them would be behind the place, and as many others be passed over.
#[test]
fn behind_a_time_files_are_read_from_their_beginning() {
    let found = vec![file(1, 1, &content('a')), file(0, 2, &content('b'))];
    let place = |file: &FoundFile, offset| FilePlace { offset, ..link(file.clone()).place() };
    let places = [place(&found[0], 100), place(&found[1], 50)];
    for (start, expected) in
        [(Start::After(ApiCursor::after(20)), vec![(1, 0), (2, 0)]), (Start::Oldest, vec![(2, 50)])]
    {
        let mut chain = Chain::new(start);
        chain.remember(places);
        chain.on_scan(found.clone());
        let begun: Vec<_> = chain.links.iter().map(|link| (link.found.id.inode, link.offset)).collect();
        assert_eq!(begun, expected);
    }
}

/// logrotate's `copy` with `compress`: at each start the whole log came again, as that of its archive.
#[test]
fn a_log_goes_on_in_itself_and_not_in_the_archive_of_its_copy() {
    let (copied, whole) = (content('a'), content('a') + &content('b'));
    let mut chain = Chain::new(Start::Oldest);
    chain.copied_since(0);
    chain.on_scan(vec![file(0, 1, &copied)]);
    open_all(&mut chain);
    read_to(&mut chain, &copied, 100);
    let Cursor::File(cursor) = cursor_at(&mut chain, [None; 2]) else { panic!("it names its file") };
    let found = || vec![compressed(1, 2, &copied), file(0, 1, &whole)];
    let begun = |chain: &Chain| -> Vec<_> {
        chain.links.iter().map(|link| (link.found.id.inode, link.offset)).collect()
    };
    let mut next = Chain::new(Start::Resume(cursor.clone()));
    next.copied_since(0);
    next.on_scan(found());
    assert_eq!(begun(&next), [(1, 100)]);
    // While it runs and the log is quiet, too.
    (chain.links[0].handle, chain.links[0].idle, chain.links[0].unread) = (Handle::None, true, false);
    chain.on_scan(found());
    assert_eq!(begun(&chain), [(1, 100)]);
    // The table of files read knows the log, and the archive has more than was read of it by then.
    let mut next = Chain::new(Start::Resume(cursor.clone()));
    next.copied_since(0);
    next.remember([cursor.place()]);
    let grown = || vec![compressed(1, 2, &whole), file(0, 1, &whole)];
    next.on_scan(grown());
    next.on_scan(grown());
    assert_eq!((begun(&next), next.parked.len()), (vec![(1, 100)], 0));
}

/// Copied, written to, and renamed: what is known of the log is more than stands in the copy.
#[test]
fn an_older_copy_of_a_small_log_that_was_renamed_is_not_read() {
    let (copied, whole) = (content('a'), content('a') + &content('b'));
    let mut chain = Chain::new(Start::Oldest);
    chain.copied_since(0);
    chain.on_scan(vec![file(0, 1, &copied)]);
    open_all(&mut chain);
    read_to(&mut chain, &copied, 100);
    let found = || vec![file(2, 2, &copied), file(1, 1, &whole), file(0, 3, "")];
    chain.on_scan(found());
    assert_eq!((inodes(&chain), chain.parked.len()), (vec![1, 3], 0));
    read_front(&mut chain);
    open_all(&mut chain);
    chain.links[0].offset = 10;
    chain.on_scan(found());
    assert_eq!((inodes(&chain), chain.parked.len()), (vec![3], 0));
}

/// Copied, emptied, and then renamed or replaced within a moment: no listing showed the copy before another file had the log's
/// name, so the copy looks like a new file.
#[test]
fn a_copy_that_waits_for_its_turn_is_known_when_its_log_was_emptied() {
    let whole = content('a') + &content('b');
    for (offset, is_gone, is_listed_before) in
        [(100, false, false), (100, true, false), (0, false, true), (100, false, true)]
    {
        let case = format!("{offset} {is_gone} {is_listed_before}");
        let mut chain = Chain::new(Start::Oldest);
        chain.copied_since(0);
        chain.on_scan(vec![file(0, 1, &whole)]);
        open_all(&mut chain);
        if offset > 0 {
            read_to(&mut chain, &whole, offset);
        }
        let renamed = if is_gone { vec![] } else { vec![file(2, 1, "")] };
        let found = || [renamed.clone(), vec![file(1, 2, &whole), file(0, 3, "")]].concat();
        if is_listed_before {
            chain.on_scan(found());
            open_all(&mut chain);
        }
        assert!(chain.on_short(0), "{case}");
        let changes = chain.on_listing(found(), true, &|_| None);
        assert_eq!(changes.gone.len(), 0, "{case}: {changes:?}");
        assert_eq!(changes.let_go.len(), usize::from(is_listed_before), "{case}");
        let (front, place) = (&chain.links[0], chain.links[0].offset);
        assert_eq!((inodes(&chain), front.candidate, place), (vec![2, 1, 3], true, offset as u64), "{case}");
        // It is another one that begins alike: it is read whole, when its turn comes.
        chain.links[0].handle = Handle::Opening(FileNo(9));
        assert!(chain.on_opened(FileNo(9), false, 100), "{case}");
        assert_eq!((inodes(&chain), chain.links[1].offset), (vec![1, 2, 3], 0), "{case}");
        let changes = chain.on_scan(found());
        assert_eq!((changes.gone.len(), inodes(&chain).len()), (1, 3), "{case}: {changes:?}");
        assert!(!chain.is_searching() && chain.links.iter().all(|link| !link.candidate), "{case}");
    }
}

/// Copied, written to, and then renamed to a name that tells nothing, or removed: the copy waits for its turn as a new file, is
/// shorter than what was read of the log, and all that it holds came again.
#[test]
fn an_older_copy_that_outlives_its_log_is_not_read_again() {
    let (copied, whole) = (content('a'), content('a') + &content('b'));
    for is_gone in [false, true] {
        let mut chain = Chain::new(Start::Oldest);
        chain.copied_since(0);
        chain.on_scan(vec![file(0, 1, &whole)]);
        open_all(&mut chain);
        read_to(&mut chain, &whole, 200);
        let renamed = FoundFile { name: "l.tmp".to_owned(), ..file(FoundFile::RANK_UNKNOWN, 1, &whole) };
        let renamed = if is_gone { vec![] } else { vec![renamed] };
        let found = || [renamed.clone(), vec![file(1, 2, &copied), file(0, 3, "")]].concat();
        chain.on_scan(found());
        chain.park_front(1_000);
        open_all(&mut chain);
        assert_eq!((inodes(&chain), chain.links[0].offset, chain.parked.len()), (vec![2, 3], 0, 1));
        let position = chain.position();
        if is_gone {
            chain.assume_copy();
        } else {
            assert!(!chain.may_read(), "its writer may still copy it");
            chain.close_parked(0);
        }
        assert_eq!((chain.links[0].offset, chain.links[0].copy), (100, Copied::Likely), "{is_gone}");
        assert!(chain.may_read() && chain.position() == position);
        // What is read shows whether it is.
        assert!(chain.is_no_copy(true));
        assert_eq!(chain.links[0].offset, 0);
    }
    // One that was there before the log, or has more than was read of it, is none.
    for (inode, offset) in [(9, 200), (1, 60)] {
        let mut chain = Chain::new(Start::Oldest);
        chain.copied_since(0);
        chain.on_scan(vec![file(0, inode, &whole)]);
        open_all(&mut chain);
        read_to(&mut chain, &whole, offset);
        chain.park_front(1_000);
        chain.links.push_back(link(file(1, 2, &copied)));
        chain.assume_copy();
        assert_eq!((chain.links[0].offset, chain.links[0].copy), (0, Copied::Unknown));
    }
}

/// The length that an archive names is that of its last member. What was read came again.
#[test]
fn an_archive_that_seems_too_short_may_have_several_members() {
    let content = content('a').repeat(20);
    let head = file(0, 1, &content).print();
    for (copied, is_short, expected) in
        [(true, true, (9, 1_500)), (true, false, (9, 1_500)), (false, true, (2, 0))]
    {
        let Start::Resume(cursor) = saved(file(0, 1, "").id, head, [0; 2]) else { unreachable!() };
        let cursor = FileCursor { offset: 1_500, len: 2_000, ..(*cursor).clone() };
        let mut chain = Chain::new(Start::Resume(Arc::new(cursor)));
        if copied {
            chain.copied_since(0);
        }
        let archive = FoundFile {
            unpacked_len: Some(if is_short { 400 } else { 2_000 }),
            ..compressed(1, 9, &content)
        };
        chain.on_scan(vec![archive, file(0, 2, "b")]);
        let first = &chain.links.back().filter(|_| !copied).unwrap_or(&chain.links[0]);
        assert_eq!((first.found.id.inode, first.offset), expected, "{copied} {is_short}");
        assert_eq!(chain.links[0].candidate, copied && is_short);
    }
}

/// Made after the archive that was read last, and by their numbers older: read if they may be copies, else told, once.
#[test]
fn an_archive_that_is_newer_than_its_number_says_is_told() {
    let at = |file: FoundFile, modified_ns| FoundFile { modified_ns, ..file };
    let read = || at(compressed(2, 11, &content('a')), 20);
    let between = || at(compressed(3, 12, &content('b')), 30);
    let live = || at(file(0, 13, &content('c')), 40);
    for (oldest_ns, looked_ns, told) in [(25, 10, vec!["l.3.gz"]), (25, 35, vec![]), (15, 10, vec![])] {
        let mut chain = Chain::new(saved(file(0, 1, "").id, file(0, 1, &content('a')).print(), [0; 2]));
        chain.copied_since(looked_ns);
        let found = || vec![at(between(), oldest_ns), read(), live()];
        let changes = chain.on_listing(found(), true, &|_| None);
        let names: Vec<&str> = changes.cut_off.iter().map(|gone| gone.name.as_str()).collect();
        assert_eq!(names, told, "made at {oldest_ns}, looked at {looked_ns}");
        assert_eq!(inodes(&chain), [11, 13]);
        assert_eq!(chain.on_listing(found(), true, &|_| None).cut_off, []);
    }
}

/// Beside the file that was read, by inode, under a name that says nothing.
#[test]
fn what_lies_between_is_read_in_order_of_birth_or_told() {
    let named = |rank, file: FoundFile| FoundFile { rank, ..file };
    let unknown = |rank| {
        vec![
            file(0, 9, &content('d')),
            named(rank, file(7, 4, &content('c'))),
            named(rank, file(7, 3, &content('b'))),
            named(FoundFile::RANK_UNKNOWN, file(7, 2, &content('a'))),
        ]
    };
    for (rank, expected, told) in
        [(FoundFile::RANK_BY_BIRTH, vec![2, 3, 4, 9], 0), (FoundFile::RANK_STRANGE, vec![2, 9], 2)]
    {
        let mut chain = Chain::new(saved(file(0, 2, "").id, file(0, 2, &content('a')).print(), [0; 2]));
        let changes = chain.on_listing(unknown(rank), true, &|_| None);
        assert_eq!((inodes(&chain), changes.cut_off.len()), (expected.clone(), told));
        // While it ran.
        let mut chain = Chain::new(Start::Oldest);
        chain.on_scan(vec![file(0, 2, &content('a'))]);
        open_all(&mut chain);
        let changes = chain.on_listing(unknown(rank), true, &|_| None);
        assert_eq!((inodes(&chain), changes.cut_off.len()), (expected, told));
        assert_eq!(chain.on_listing(unknown(rank), true, &|_| None).cut_off, []);
    }
}

/// A log was emptied, and its copy is looked for. What a stop saves meanwhile leads there, and not to the empty log.
#[test]
fn a_position_that_is_saved_while_a_copy_is_looked_for_leads_to_the_copy() {
    let whole = content('a') + &content('b');
    let begin = || {
        let mut chain = Chain::new(Start::Oldest);
        chain.copied_since(0);
        chain.on_scan(vec![file(0, 1, &whole)]);
        open_all(&mut chain);
        (chain.links[0].tail, chain.links[0].offset) = (TailPrint::of(content('a').as_bytes(), 100), 100);
        assert!(chain.on_short(0) && chain.is_searching());
        chain
    };
    let copy = || file(1, 2, &whole);
    for is_listed in [false, true] {
        let mut chain = begin();
        if is_listed {
            chain.on_scan(vec![copy(), file(0, 1, "")]);
            assert!(chain.is_searching(), "its opening tells");
        }
        let Cursor::File(cursor) = cursor_at(&mut chain, [None; 2]) else { panic!("it names its file") };
        assert_eq!((cursor.file.inode, cursor.offset), (1, 100), "{is_listed}");
        for found in [vec![copy(), file(0, 1, "")], vec![copy(), file(0, 1, &content('c'))]] {
            let mut chain = Chain::new(Start::Resume(cursor.clone()));
            chain.copied_since(0);
            let changes = chain.on_scan(found);
            assert_eq!((inodes(&chain), chain.links[0].offset), (vec![2, 1], 100), "{is_listed}");
            assert!(changes.gone.is_empty() && changes.lost.is_empty(), "{changes:?}");
        }
        // It went nowhere: that is told once, and the log is read from its beginning.
        let mut chain = Chain::new(Start::Resume(cursor.clone()));
        chain.copied_since(0);
        let changes = chain.on_scan(vec![file(0, 1, &content('c'))]);
        assert_eq!(
            (inodes(&chain), chain.links[0].offset, changes.gone.len()),
            (vec![1], 0, 1),
            "{is_listed}"
        );
    }
}
