//! Content of another log that was moved here: what is read of it, and from where.

use super::*;
use crate::capture::checkpoint::memory::Table;
use crate::model::record::StreamKey;
use crate::settings::Remember;

/// Where a file was left of which 100 bytes were read.
fn place_of_another() -> FilePlace {
    let found = file(0, 1, &content('a'));
    let tail = TailPrint::of(&found.head, 100);
    FilePlace { file: found.id, head: found.print(), tail, offset: 100, skip: [0; 2] }
}

/// Another log, of which 100 bytes were read, and what a look at the patterns showed of files.
fn table(shown: &[FileId]) -> Table {
    let mut table = Table::default();
    table.set_bounds(Remember::default());
    table.note(&StreamKey::file("/other/a.log"), "file", place_of_another());
    table.see(shown.iter().map(|file| (*file, 100)));
    table
}

/// What is to be read, as (inode, from where), and what is already read.
fn begun(start: Start, found: &[FoundFile], table: &Table) -> (Chain, Vec<(u64, u64)>) {
    let mut chain = Chain::new(start);
    chain.copied_since(i64::MAX);
    let sinks = ["file".to_owned()];
    chain.on_listing(found.to_vec(), true, &table.of(&sinks, true));
    chain.on_listing(found.to_vec(), true, &table.of(&sinks, true));
    let links = chain.links.iter().map(|link| (link.found.id.inode, link.offset)).collect();
    (chain, links)
}

#[test]
fn what_another_log_held_is_read_on_where_that_was_left() {
    let whole = content('a') + &content('b');
    let id = |inode| file(0, inode, "").id;
    let check = |what: &str, start: Start, found: &[FoundFile], shown: &[FileId], expected: &[(u64, u64)]| {
        let (_, links) = begun(start, found, &table(shown));
        assert_eq!(links, expected, "{what}");
    };
    let live = || file(0, 9, &content('c'));
    for packed in [compressed as fn(u32, u64, &str) -> FoundFile, file] {
        let found = [packed(1, 5, &whole), live()];
        for start in [Start::Live, Start::Since(i64::MAX), Start::Oldest] {
            check("read on", start, &found, &[], &[(5, 100), (9, 0)]);
        }
        // What is younger than it nobody has read; what is older is older than what was read.
        let three = [packed(3, 3, &content('o')), packed(2, 5, &whole), packed(1, 6, &content('n')), live()];
        check("with what followed", Start::Live, &three, &[], &[(5, 100), (6, 0), (9, 0)]);
        check("nothing new in it", Start::Oldest, &[packed(1, 5, &content('a')), live()], &[], &[(9, 0)]);
        check("shorter", Start::Oldest, &[packed(1, 5, &whole[..90]), live()], &[], &[(5, 0), (9, 0)]);
        check(
            "begins otherwise",
            Start::Oldest,
            &[packed(1, 5, &content('x')), live()],
            &[],
            &[(5, 0), (9, 0)],
        );
        check("that log is still there", Start::Oldest, &found, &[id(1)], &[(5, 0), (9, 0)]);
        // Copied and emptied: what a look showed is another content.
        let emptied = [packed(1, 5, &whole), file(0, 1, &content('c'))];
        check("rewritten", Start::Live, &emptied, &[id(1)], &[(5, 100), (1, 0)]);
    }
    // Two programs may begin their logs alike.
    check("a live log", Start::Live, &[file(0, 5, &whole)], &[], &[(5, 0)]);
}

/// Says of every live file that it holds what another one held.
struct LiveCopy;

impl Remembers for LiveCopy {
    fn place_of(&self, _: FileId) -> Option<FilePlace> {
        None
    }

    fn any_head(&self, _: &dyn Fn(&HeadPrint) -> bool) -> bool {
        false
    }

    fn moved(&self, _: &FoundFile, _: &dyn Fn(&FilePlace) -> Option<bool>) -> Option<FilePlace> {
        None
    }

    fn moved_live(
        &self,
        file: &FoundFile,
        is_here: &dyn Fn(&FilePlace) -> Option<bool>,
    ) -> Option<FilePlace> {
        let place = place_of_another();
        (place.file != file.id && is_here(&place) != Some(true)).then_some(place)
    }
}

/// All of it was read, or there is more; it is the only file, or rotated ones lie beside it. Its position is saved before it
/// is read: a kill in between must not bring it again.
#[test]
fn a_live_file_that_holds_what_another_held_is_read_on_and_followed() {
    let all_read = content('a');
    let more = content('a') + &content('b');
    for text in [&all_read, &more] {
        for start in [Start::Live, Start::Since(i64::MAX), Start::Oldest] {
            let mut chain = Chain::new(start.clone());
            chain.copied_since(i64::MAX);
            let found = vec![file(1, 4, &content('o')), file(0, 5, text)];
            chain.on_listing(found.clone(), true, &LiveCopy);
            chain.on_listing(found, true, &LiveCopy);
            let live = chain.links.back().unwrap();
            assert_eq!((live.found.id.inode, live.offset, live.copy), (5, 100, Copied::Likely), "{start:?}");
            if start == Start::Live {
                let Cursor::File(cursor) = chain.cursor(&Default::default()) else { panic!("no position") };
                assert_eq!((cursor.file.inode, cursor.offset, cursor.is_copy), (5, 100, true));
            }
        }
    }
    // Docker copies no log.
    let mut chain = Chain::new(Start::Oldest);
    chain.on_listing(vec![file(0, 5, &more)], true, &LiveCopy);
    assert_eq!(chain.links[0].offset, 0);
    // The original lies beside it.
    let mut chain = Chain::new(Start::Oldest);
    chain.copied_since(i64::MAX);
    chain.on_listing(vec![file(1, 1, &content('a')), file(0, 5, &more)], true, &LiveCopy);
    assert_eq!(chain.links.back().unwrap().offset, 0);
}

/// It was listed while its original was still there.
#[test]
fn a_live_file_whose_original_goes_before_it_is_read_is_read_on() {
    let mut chain = Chain::new(Start::Live);
    chain.copied_since(i64::MAX);
    chain.on_scan(vec![file(0, 5, &(content('a') + &content('b')))]);
    open_all(&mut chain);
    let position = chain.position();
    assert_eq!(chain.links[0].offset, 0);
    chain.assume_moved(&LiveCopy);
    assert_eq!((chain.links[0].offset, chain.links[0].copy), (100, Copied::Likely));
    assert_eq!(chain.position(), position);
    // Not once it was begun, or is known to be another.
    for (offset, copy) in [(10, Copied::Unknown), (0, Copied::No)] {
        (chain.links[0].offset, chain.links[0].copy) = (offset, copy);
        chain.assume_moved(&LiveCopy);
        assert_eq!((chain.links[0].offset, chain.links[0].copy), (offset, copy));
    }
}

/// Head and length were the same, and what stands before the place is not: nothing of it may be missing, and nothing is
/// looked for.
#[test]
fn a_live_file_that_turns_out_to_be_another_is_read_from_its_beginning() {
    for by_opening in [true, false] {
        let mut chain = Chain::new(Start::Live);
        chain.copied_since(i64::MAX);
        chain.on_listing(vec![file(0, 5, &(content('a') + &content('b')))], true, &LiveCopy);
        let position = chain.position();
        if by_opening {
            chain.links[0].handle = Handle::Opening(FileNo(9));
            assert!(chain.on_opened(FileNo(9), false, 200));
        } else {
            open_all(&mut chain);
            assert!(chain.is_no_copy(true));
        }
        assert_eq!((chain.links[0].offset, chain.links[0].copy), (0, Copied::No));
        assert!(!chain.is_searching() && chain.position() == position);
    }
}

/// It comes while the log is followed.
#[test]
fn what_is_moved_between_two_listings_is_known_too() {
    let mut chain = Chain::new(Start::Oldest);
    chain.copied_since(0);
    let (table, sinks) = (table(&[]), ["file".to_owned()]);
    chain.on_listing(vec![file(0, 7, &content('x'))], true, &table.of(&sinks, true));
    open_all(&mut chain);
    let whole = content('a') + &content('b');
    let found = vec![file(2, 7, &content('x')), compressed(1, 5, &whole), file(0, 9, &content('c'))];
    chain.on_listing(found, true, &table.of(&sinks, true));
    let links: Vec<_> = chain.links.iter().map(|link| (link.found.id.inode, link.offset)).collect();
    assert_eq!(links, [(7, 0), (5, 100), (9, 0)]);
}

/// It only began alike: nothing of it may be missing, first or not.
#[test]
fn what_turns_out_to_be_another_file_is_read_from_its_beginning() {
    let whole = content('a') + &content('b');
    for before in [false, true] {
        let older = file(2, 4, &content('o'));
        let found = [compressed(1, 5, &whole), file(0, 9, &content('c'))];
        let found = [if before { vec![older] } else { vec![] }, found.to_vec()].concat();
        let (mut chain, _) = begun(Start::Oldest, &found, &table(&[]));
        let at = usize::from(before);
        let position = chain.position();
        assert_eq!((chain.links[at].offset, chain.links[at].expected().end), (100, 100));
        chain.links[at].handle = Handle::Opening(FileNo(9));
        assert!(chain.on_opened(FileNo(9), false, 200));
        assert_eq!((chain.links[at].offset, chain.links[at].copy), (0, Copied::No), "{before}");
        assert!(!chain.is_searching() && chain.position() == position);
    }
}

/// In an `olddir` a copy may be the only file of its stream, and is listed as it is made.
#[test]
fn the_name_of_a_copy_tells_it_from_a_live_file_that_begins_alike() {
    for (name, is_told) in [("l", false), ("l.1", true)] {
        let mut chain = Chain::new(Start::Oldest);
        chain.copied_since(0);
        chain.remember([place_of_another()]);
        chain.on_scan(vec![FoundFile { name: name.to_owned(), ..file(0, 5, "") }]);
        open_all(&mut chain);
        assert_eq!(chain.begins_as_copy(content('a').as_bytes()), is_told, "{name}");
        assert_eq!(chain.links[0].offset, if is_told { 100 } else { 0 }, "{name}");
    }
}
