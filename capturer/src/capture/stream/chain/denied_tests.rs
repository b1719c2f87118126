//! Files that can't be read: which of them count, and what becomes of them.

use std::slice::from_ref;
use std::sync::Arc;

use super::*;
use crate::model::cursor::{ApiCursor, Cursor};

fn file(rank: u32, inode: u64, len: u64) -> FoundFile {
    FoundFile {
        name: if rank == 0 { "l".to_owned() } else { format!("l.{rank}") },
        rank,
        compressed: false,
        id: FileId { device: 1, inode, birth_ns: inode as i64 },
        len,
        head: vec![inode as u8; len.min(100) as usize],
        unpacked_len: None,
        modified_ns: inode as i64,
    }
}

fn archive(rank: u32, inode: u64, len: u64) -> FoundFile {
    FoundFile {
        name: format!("l.{rank}.gz"),
        compressed: true,
        unpacked_len: Some(100),
        ..file(rank, inode, len)
    }
}

fn denied(mut found: FoundFile) -> DeniedFile {
    let error = FileError::Denied(format!("/d/{}", found.name));
    (found.head, found.unpacked_len) = (Vec::new(), None);
    DeniedFile { found, error }
}

fn list(chain: &mut Chain, found: &[FoundFile], refused: &[FoundFile]) -> Changes {
    chain.set_denied(refused.iter().cloned().map(denied).collect(), &Default::default());
    chain.on_listing(found.to_vec(), true, &|_| None)
}

/// Names and places of those that wait.
fn waiting(chain: &Chain) -> Vec<(&str, u64)> {
    chain.denied().iter().map(|denied| (denied.name.as_str(), denied.place.offset)).collect()
}

fn links(chain: &Chain) -> Vec<(u64, u64)> {
    chain.links.iter().map(|link| (link.found.id.inode, link.offset)).collect()
}

fn parked(chain: &Chain) -> Vec<(u64, u64)> {
    chain.parked.iter().map(|parked| (parked.link.found.id.inode, parked.link.offset)).collect()
}

/// A cursor in this file, of which that much was read.
fn read(file: &FoundFile, offset: u64) -> Start {
    let tail = TailPrint::of(&file.head[..offset as usize], offset);
    let place = FilePlace { file: file.id, head: file.print(), tail, offset, skip: [0; 2] };
    Start::Resume(Arc::new(FileCursor { len: file.len, ..FileCursor::at(place) }))
}

fn gone(changes: &Changes) -> Vec<(&str, u64)> {
    changes.unreadable.iter().map(|gone| (gone.name.as_str(), gone.bytes)).collect()
}

/// It was declared lost, for another reason, while it was there.
#[test]
fn the_file_of_the_position_waits_with_its_place() {
    let (old, new) = (file(1, 1, 100), file(0, 2, 50));
    let mut chain = Chain::new(read(&old, 40));
    let changes = list(&mut chain, from_ref(&new), from_ref(&old));
    assert_eq!(changes, Changes::default());
    assert_eq!((waiting(&chain), links(&chain)), (vec![("l.1", 40)], vec![(2, 0)]));
    // The next rotation.
    let changes = list(&mut chain, &[file(0, 3, 50), file(1, 2, 50)], &[file(2, 1, 100)]);
    assert_eq!((changes, waiting(&chain)), (Changes::default(), vec![("l.2", 40)]));
    // It can be read again: from its place.
    let changes = list(&mut chain, &[file(0, 3, 50), file(1, 2, 50), file(2, 1, 100)], &[]);
    assert_eq!((changes, waiting(&chain)), (Changes::default(), vec![]));
    assert_eq!(parked(&chain), [(1, 40)]);
}

#[test]
fn one_that_goes_before_it_can_be_read_is_lost_for_that_reason() {
    let (old, new) = (file(1, 1, 100), file(0, 2, 50));
    let mut chain = Chain::new(read(&old, 40));
    list(&mut chain, from_ref(&new), &[old]);
    let changes = list(&mut chain, from_ref(&new), &[]);
    assert!(changes.look_again && gone(&changes).is_empty(), "one listing proves nothing");
    let changes = list(&mut chain, from_ref(&new), &[]);
    assert_eq!((gone(&changes), changes.gone.len()), (vec![("l.1", 60)], 0));
    assert_eq!(list(&mut chain, &[new], &[]), Changes::default(), "once");
}

/// The position has it, so that it is not forgotten.
#[test]
fn a_restart_changes_nothing() {
    let (old, new) = (file(1, 1, 100), file(0, 2, 50));
    let begun = || {
        let mut chain = Chain::new(read(&old, 40));
        list(&mut chain, from_ref(&new), from_ref(&old));
        assert!(chain.take_position_changed() && !chain.take_position_changed());
        let Cursor::File(cursor) = chain.cursor(&Default::default()) else { panic!("no position") };
        let cursor: FileCursor = serde_json::from_str(&serde_json::to_string(&*cursor).unwrap()).unwrap();
        assert_eq!((cursor.file, cursor.denied.len()), (new.id, 1));
        Chain::new(Start::Resume(Arc::new(cursor)))
    };
    let mut chain = begun();
    list(&mut chain, from_ref(&new), from_ref(&old));
    assert_eq!((waiting(&chain), links(&chain)), (vec![("l.1", 40)], vec![(2, 0)]));
    let mut chain = begun();
    for _ in 0..2 {
        list(&mut chain, &[new.clone(), old.clone()], &[]);
    }
    assert_eq!((waiting(&chain), parked(&chain)), (vec![], vec![(1, 40)]));
    let mut chain = begun();
    assert!(list(&mut chain, from_ref(&new), &[]).look_again);
    assert_eq!(gone(&list(&mut chain, from_ref(&new), &[])), [("l.1", 60)]);
}

/// A number without a birth time may be another file's, so this one was not taken for one that waits.
#[test]
fn files_without_birth_times_are_read_too() {
    let unborn = |file: FoundFile| FoundFile { id: FileId { birth_ns: 0, ..file.id }, ..file };
    let (old, new) = (unborn(file(1, 1, 100)), unborn(file(0, 2, 100)));
    let mut chain = Chain::new(Start::Oldest);
    list(&mut chain, from_ref(&new), from_ref(&old));
    assert_eq!(waiting(&chain), [("l.1", 0)]);
    list(&mut chain, &[new, old], &[]);
    assert_eq!((waiting(&chain), parked(&chain)), (vec![], vec![(1, 0)]));
}

/// A channel was delivered further than the other, of which a line was open.
#[test]
fn what_one_channel_has_already_is_passed_over() {
    let (old, new) = (file(1, 1, 100), file(0, 2, 50));
    let Start::Resume(mut cursor) = read(&old, 40) else { panic!("a position") };
    Arc::make_mut(&mut cursor).skip = [20, 0];
    let mut chain = Chain::new(Start::Resume(cursor));
    list(&mut chain, from_ref(&new), from_ref(&old));
    assert!(!chain.is_within_delivered());
    list(&mut chain, &[new, old], &[]);
    // It waits for its turn. A restart must not forget what it has to skip.
    let places = chain.denied_places();
    assert_eq!(places.iter().map(|denied| denied.place.skip).collect::<Vec<_>>(), [[20, 0]]);
    chain.unpark(0);
    let position = chain.position();
    assert_eq!((links(&chain)[0], chain.delivered_to), ((1, 40), [position + 20, position]));
}

/// Its beginning was glued to a line of the next file.
#[test]
fn a_line_that_is_open_is_read_again_with_its_file() {
    let (old, new) = (file(0, 1, 100), file(0, 2, 50));
    for (began, expected) in [(Some(60), 60), (None, 80), (Some(30), 80)] {
        let mut chain = Chain::new(read(&old, 40));
        list(&mut chain, from_ref(&old), &[]);
        // Read on, as far as that, where a line may be open.
        let beginning = chain.position() - 40;
        chain.links[0].offset = 80;
        let starts = began.into_iter().map(|began| beginning + began).collect();
        let open = [Undelivered { starts, in_line: began.is_some() }, Undelivered::default()];
        let is_read_again = chain.set_denied(vec![denied(file(1, 1, 100))], &open);
        chain.on_listing(vec![new.clone()], true, &|_| None);
        assert_eq!((is_read_again, waiting(&chain)), (expected == 60, vec![("l.1", expected)]), "{began:?}");
    }
}

/// Each of them holds what is asked for, or not.
#[test]
fn only_files_that_are_asked_for_count() {
    let check = |start: Start, expected: &[&str]| {
        let mut chain = Chain::new(start.clone());
        chain.ignore_before(Some(2));
        list(
            &mut chain,
            &[file(0, 9, 50), file(3, 6, 50)],
            &[file(1, 8, 50), file(2, 7, 50), file(4, 5, 50), file(5, 1, 50)],
        );
        let names: Vec<&str> = waiting(&chain).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, expected, "{start:?}");
    };
    check(Start::Oldest, &["l.4", "l.2", "l.1"]);
    check(Start::Live, &[]);
    check(Start::End, &[]);
    check(Start::Since(8), &["l.1"]);
    check(Start::After(ApiCursor::after(6)), &["l.2", "l.1"]);
    check(read(&file(3, 6, 50), 10), &["l.2", "l.1"]);
    check(read(&file(0, 9, 50), 10), &[]);
    // All of it was read.
    check(read(&file(1, 8, 50), 50), &[]);
    check(read(&file(2, 7, 50), 50), &["l.1"]);
    // The file of the position is gone.
    check(read(&file(9, 7, 50), 50), &["l.1"]);
}

/// Its descriptor is as good as ever; one that waits to be opened holds up nobody.
#[test]
fn what_is_open_is_read_on_and_what_is_not_steps_aside() {
    let mut chain = Chain::new(Start::Oldest);
    list(&mut chain, &[file(0, 3, 50), file(1, 2, 50), file(2, 1, 50)], &[]);
    assert_eq!(links(&chain), [(1, 0), (2, 0), (3, 0)]);
    chain.links[0].handle = Handle::Open(crate::capture::io::FileNo(1));
    for _ in 0..3 {
        assert_eq!(
            list(&mut chain, &[file(0, 3, 50)], &[file(1, 2, 50), file(2, 1, 50)]),
            Changes::default()
        );
    }
    assert_eq!((links(&chain), waiting(&chain)), (vec![(1, 0), (3, 0)], vec![("l.1", 0)]));
    assert!(!chain.links[0].deleted);
    (chain.links[0].offset, chain.links[0].unread) = (50, false);
    chain.links[0].tail = TailPrint::of(&[1; 50], 50);
    chain.finish_front();
    list(&mut chain, &[file(0, 3, 50)], &[file(1, 2, 50), file(2, 1, 50)]);
    assert_eq!(waiting(&chain), [("l.1", 0)], "the other was read");
    // Its writer wrote on.
    list(&mut chain, &[file(0, 3, 50)], &[file(1, 2, 50), file(2, 1, 60)]);
    assert_eq!(waiting(&chain), [("l.2", 50), ("l.1", 0)]);
    list(&mut chain, &[file(0, 3, 50), file(1, 2, 50), file(2, 1, 60)], &[]);
    assert_eq!(parked(&chain), [(1, 50), (2, 0)]);
}

/// The first waits to be opened, and the position goes on behind it.
#[test]
fn the_first_file_steps_aside_with_its_place() {
    let (old, new) = (file(0, 1, 100), file(0, 2, 50));
    let mut chain = Chain::new(read(&old, 40));
    list(&mut chain, &[old], &[]);
    assert_eq!(links(&chain), [(1, 40)]);
    assert_eq!(list(&mut chain, &[new], &[file(1, 1, 100)]), Changes::default());
    assert_eq!((links(&chain), waiting(&chain)), (vec![(2, 0)], vec![("l.1", 40)]));
    let Cursor::File(cursor) = chain.cursor(&Default::default()) else { panic!("no position") };
    assert_eq!((cursor.file.inode, cursor.offset, cursor.denied.len()), (2, 0, 1));
}

/// gzip keeps the mode of what it packs, so the archive can't be read either.
#[test]
fn a_file_is_followed_into_its_archive() {
    let (old, new) = (file(1, 1, 100), file(0, 2, 50));
    let packed = archive(2, 5, 20);
    let begun = || {
        let mut chain = Chain::new(read(&old, 40));
        list(&mut chain, from_ref(&new), from_ref(&old));
        for _ in 0..2 {
            assert_eq!(gone(&list(&mut chain, &[file(0, 3, 9), file(1, 2, 50)], from_ref(&packed))), []);
        }
        assert_eq!(waiting(&chain), [("l.2.gz", 40)]);
        chain
    };
    let mut chain = begun();
    let readable = FoundFile { head: vec![1; 100], ..packed.clone() };
    list(&mut chain, &[file(0, 3, 9), file(1, 2, 50), readable], &[]);
    assert_eq!((waiting(&chain), parked(&chain)), (vec![], vec![(5, 40)]));
    let mut chain = begun();
    let last = || vec![file(0, 3, 9), file(1, 2, 50)];
    list(&mut chain, &last(), &[]);
    assert_eq!(gone(&list(&mut chain, &last(), &[])), [("l.2.gz", 0)], "nobody knows how much");
    // While the agent was down.
    let mut chain = Chain::new(read(&old, 40));
    let changes = list(&mut chain, &[new], &[archive(1, 5, 20)]);
    assert_eq!((changes, waiting(&chain)), (Changes::default(), vec![("l.1.gz", 40)]));
}

/// The archive of a file that was read holds nothing new, but shows nothing of itself.
#[test]
fn an_archive_of_what_was_read_is_no_trouble() {
    let mut chain = Chain::new(Start::Live);
    list(&mut chain, &[file(0, 1, 50)], &[]);
    chain.links[0].handle = Handle::Open(crate::capture::io::FileNo(1));
    for _ in 0..3 {
        let changes = list(&mut chain, &[file(0, 2, 50)], &[archive(1, 5, 20)]);
        assert!(waiting(&chain).is_empty() && gone(&changes).is_empty());
    }
}
