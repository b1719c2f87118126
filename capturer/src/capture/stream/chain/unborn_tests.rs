//! File systems without birth times, where a number alone says little: it comes back with another file.

use super::*;

/// On a file system without birth times.
fn unborn(rank: u32, inode: u64, content: &str) -> FoundFile {
    let file = file(rank, inode, content);
    FoundFile { id: FileId { birth_ns: 0, ..file.id }, ..file }
}

/// Without birth times an empty file is opened by its number alone, and that may have come back meanwhile: what was made
/// and renamed between the listing and the opening comes first.
#[test]
fn a_number_that_came_back_before_the_opening_hides_nothing() {
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

/// The same, and the file that has the number was rotated and compressed before it was listed: only its first bytes, seen when
/// it was opened, show that the archive is its own, and which one is older.
#[test]
fn an_archive_older_than_the_opened_file_is_read_before_it() {
    let mut chain = Chain::new(Start::Oldest);
    chain.on_scan(vec![unborn(0, 1, "")]);
    (chain.links[0].doubted, chain.links[0].handle) = (true, Handle::Open(FileNo(0)));
    chain.links[0].meet_opened(content('b').into_bytes());
    let live = unborn(0, 4, &content('c'));
    chain.on_scan(vec![compressed(2, 2, &content('a')), compressed(1, 3, &content('b')), live]);
    assert_eq!(inodes(&chain), [2, 1, 4]);
}

/// The same before the opening was even tried: the empty file was rotated, compressed and removed, and the number came
/// back with the live file. Its archives are new.
#[test]
fn archives_made_before_a_number_came_back_are_new() {
    let mut chain = Chain::new(Start::Oldest);
    chain.on_scan(vec![unborn(0, 2, "")]);
    let archive = |rank, inode, name| {
        let file = compressed(rank, inode, &content(name));
        FoundFile { id: FileId { birth_ns: 0, ..file.id }, ..file }
    };
    chain.on_scan(vec![archive(2, 3, 'a'), archive(1, 4, 'b'), unborn(0, 2, &content('c'))]);
    assert_eq!(inodes(&chain), [3, 4, 2]);
}
