//! When a directory is listed again, and when its listing counts.

use super::*;
use crate::capture::bench::Bench;
use crate::record::StreamId;

fn live_file() -> FoundFile {
    FoundFile {
        name: "a.log".to_owned(),
        rank: 0,
        compressed: false,
        id: FileId { device: 1, inode: 2, birth_ns: 3 },
        len: 4,
        head: b"one\n".to_vec(),
        unpacked_len: None,
    }
}

/// A source whose directory was listed once, with its live file, and the number under which that is being opened.
fn listed(bench: &mut Bench) -> (FileSource, FileNo) {
    let (directory, name) = ("/d".to_owned(), "a.log".to_owned());
    let mut source = FileSource::new(StreamId(1), directory, name, FileFormat::Raw, Start::Oldest, 64 * 1024);
    source.open(&mut bench.cx());
    list(&mut source, vec![live_file()], bench);
    let Handle::Opening(file) = source.chain.links[0].handle else { panic!("it is not opened") };
    bench.actions();
    (source, file)
}

/// Whether it said that it is open.
fn list(source: &mut FileSource, found: Vec<FoundFile>, bench: &mut Bench) -> bool {
    let mut told = Vec::new();
    source.on_scanned(Ok(found), &mut bench.cx(), &mut told);
    told.iter().any(|told| matches!(told, Told::Opened))
}

fn begin(source: &mut FileSource, bench: &mut Bench) -> bool {
    let mut told = Vec::new();
    source.begin(&mut bench.cx(), &mut told);
    told.iter().any(|told| matches!(told, Told::Opened))
}

fn listings(bench: &mut Bench) -> usize {
    bench.actions().iter().filter(|action| matches!(action, Action::Scan { .. })).count()
}

fn fail_to_open(source: &mut FileSource, file: FileNo, error: FileError, bench: &mut Bench) {
    source.on_file_opened(file, Err(error), &mut bench.cx(), &mut Vec::new());
}

/// Each of them asked for another, which kept it from being the latest: without end. Found by the simulation (seed 46).
#[test]
fn a_file_that_went_while_its_directory_was_listed_takes_two_listings() {
    let mut bench = Bench::new(1);
    let (mut source, file) = listed(&mut bench);
    let opened = OpenedFile { len: 4, damaged: false, lane: None, as_expected: true };
    source.on_file_opened(file, Ok(opened), &mut bench.cx(), &mut Vec::new());
    (0..2).for_each(|_| source.on_chain_changed(&mut bench.cx()));
    assert_eq!(listings(&mut bench), 1);
    list(&mut source, Vec::new(), &mut bench);
    assert_eq!((listings(&mut bench), source.chain.links[0].deleted), (1, false));
    list(&mut source, Vec::new(), &mut bench);
    assert_eq!((listings(&mut bench), source.chain.links[0].deleted), (0, true));
}

/// It waited for a listing that had nothing to tell, or for one after another.
#[test]
fn it_begins_without_a_file_that_a_listing_lacked() {
    let mut bench = Bench::new(1);
    let (mut source, file) = listed(&mut bench);
    fail_to_open(&mut source, file, FileError::Changed("/d/a.log".to_owned()), &mut bench);
    list(&mut source, Vec::new(), &mut bench);
    assert!(source.chain.links[0].missing);
    bench.actions();
    assert!(begin(&mut source, &mut bench));
    assert_eq!(listings(&mut bench), 0);
}

#[test]
fn the_listing_under_way_tells_that_it_begins() {
    let mut bench = Bench::new(1);
    let (mut source, file) = listed(&mut bench);
    fail_to_open(&mut source, file, FileError::Denied("/d/a.log".to_owned()), &mut bench);
    source.on_chain_changed(&mut bench.cx());
    assert!(!begin(&mut source, &mut bench));
    assert!(list(&mut source, vec![live_file()], &mut bench));
}
