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
    table.see(shown.iter().copied());
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
