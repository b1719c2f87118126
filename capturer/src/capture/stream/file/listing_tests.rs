//! When a directory is listed again, and when its listing counts.

use super::*;
use crate::capture::core::bench::Bench;
use crate::capture::io::{FileNo, OpenedFile};
use crate::model::cursor::TailPrint;
use crate::model::record::{StdType, StreamId};

/// What was rotated before the first line was acknowledged was passed over. Found by the simulation (seed 450).
#[test]
fn a_number_alone_does_not_say_what_was_delivered() {
    let numbered = |name: &str, rank, inode, birth_ns| FoundFile {
        name: name.to_owned(),
        rank,
        id: FileId { device: 1, inode, birth_ns },
        ..live_file()
    };
    for (birth_ns, expected) in [(0, vec![5, 2]), (3, vec![2])] {
        let live = numbered("c-json.log", 0, 2, birth_ns);
        let rotated = numbered("c-json.log.1", 1, 5, birth_ns);
        let mut bench = Bench::new(1);
        let mut chain = Chain::new(Start::Oldest);
        let empty = FoundFile { len: 0, head: Vec::new(), ..live.clone() };
        chain.on_listing(vec![empty], true, &|_| None);
        let Cursor::File(cursor) = chain.cursor(&Default::default()) else { panic!("it names its file") };
        let (directory, name, start) = ("/d".to_owned(), "c-json.log".to_owned(), Start::Resume(cursor));
        let mut source = FileSource::new(StreamId(1), directory, name, FileFormat::Docker, start, 64 * 1024);
        list(&mut source, vec![rotated, live], &mut bench);
        let inodes: Vec<u64> = source.chain.links.iter().map(|link| link.found.id.inode).collect();
        assert_eq!(inodes, expected, "born at {birth_ns}");
    }
}

/// A reader of one file that was read up to within a line, rotated to another name.
fn within_a_line(bench: &mut Bench) -> FileSource {
    let found = FoundFile { len: CRI_PART.len() as u64, head: CRI_PART.to_vec(), ..live_file() };
    let (mut source, file) = listed_with(found, bench);
    source.renamed_while_written = true;
    let opened = OpenedFile::plain(4);
    source.on_file_opened(file, Ok(opened), &mut bench.cx(), &mut Vec::new());
    source.format = FileFormat::Cri;
    read(&mut source, CRI_PART, bench);
    let (_, in_line) = source.assembler.undelivered(StdType::Stdout);
    assert!(in_line);
    source
}

const CRI_PART: &[u8] = b"2026-11-25T10:00:00.000000001Z stdout P one, \n";
const CRI_REST: &[u8] = b"2026-11-25T10:00:00.000000002Z stdout F two\n";

/// A read of the front brings this, behind what was read before. Returns the lines that came.
fn read(source: &mut FileSource, bytes: &[u8], bench: &mut Bench) -> Vec<String> {
    source.chain.links[0].unread = true;
    source.read_on(&mut bench.cx());
    let again = source.reading.as_ref().expect("it reads").again;
    let before = [CRI_PART, CRI_REST].concat();
    let offset = source.chain.links[0].offset as usize;
    // A full buffer would mean that there is more.
    let mut buffer = Vec::with_capacity(READ_BYTES);
    buffer.extend_from_slice(&before[offset - again..offset]);
    buffer.extend_from_slice(bytes);
    let mut told = Vec::new();
    let len = (offset + bytes.len()) as u64;
    source.on_read(Ok(buffer.len()), buffer, Some(len), None, &mut bench.cx(), &mut told);
    let lines = told.iter().filter_map(|told| match told {
        SourceEvent::Lines { lines, .. } => Some(lines.records.len()),
        _ => None,
    });
    lines.map(|count| format!("{count} lines")).filter(|lines| lines != "0 lines").collect()
}

/// A line that goes on in the copy came without its beginning. Found by the simulation (seed 97).
#[test]
fn a_line_that_is_open_when_its_file_is_copied_and_truncated_goes_on_in_the_copy() {
    let mut bench = Bench::new(1);
    let mut source = within_a_line(&mut bench);
    // Truncated: shorter than what was read.
    source.chain.links[0].unread = true;
    source.read_on(&mut bench.cx());
    source.on_read(Ok(0), Vec::new(), Some(0), None, &mut bench.cx(), &mut Vec::new());
    assert!(source.chain.is_searching());
    let copy = FoundFile {
        name: "a.log.1".to_owned(),
        rank: 1,
        id: FileId { device: 1, inode: 7, birth_ns: 8 },
        len: (CRI_PART.len() + CRI_REST.len()) as u64,
        head: [CRI_PART, CRI_REST].concat(),
        ..live_file()
    };
    let live = FoundFile { len: 0, head: Vec::new(), ..live_file() };
    list(&mut source, vec![copy, live], &mut bench);
    let Handle::Opening(file) = source.chain.links[0].handle else { panic!("the copy is not opened") };
    let opened = OpenedFile::plain(1000);
    source.on_file_opened(file, Ok(opened), &mut bench.cx(), &mut Vec::new());
    assert_eq!(read(&mut source, CRI_REST, &mut bench), ["1 lines"]);
    assert!(!source.assembler.undelivered(StdType::Stdout).1);
}

/// A log was emptied before anything of it was read; a listing showed that, and it was longer again when it was read. Its new
/// lines were taken for those that it had before, and came again when the next listing showed another head.
#[test]
fn a_file_that_was_emptied_before_it_was_read_begins_anew_though_a_listing_showed_it_empty() {
    let (old, new) = (b"old and gone\n".repeat(8), b"new and here\n".repeat(12));
    for (read, is_new) in [(&new, true), (&old, false)] {
        let mut bench = Bench::new(1);
        let found = FoundFile { len: old.len() as u64, head: old.clone(), ..live_file() };
        let (mut source, file) = listed_with(found, &mut bench);
        let opened = OpenedFile::plain(old.len() as u64);
        source.on_file_opened(file, Ok(opened), &mut bench.cx(), &mut Vec::new());
        let empty = FoundFile { len: 0, head: Vec::new(), ..live_file() };
        list(&mut source, vec![empty], &mut bench);
        source.format = FileFormat::Raw;
        source.read_on(&mut bench.cx());
        let mut buffer = Vec::with_capacity(READ_BYTES);
        buffer.extend_from_slice(read);
        let len = read.len() as u64;
        source.on_read(Ok(read.len()), buffer, Some(len), None, &mut bench.cx(), &mut Vec::new());
        assert_eq!(source.chain.is_searching(), is_new);
        assert_eq!(source.chain.links[0].offset, if is_new { 0 } else { len });
    }
}

/// And if there is no copy, it does not go on in what was rewritten.
#[test]
fn a_line_that_is_open_when_its_file_is_truncated_is_not_joined_with_new_lines() {
    let mut bench = Bench::new(1);
    let mut source = within_a_line(&mut bench);
    source.chain.links[0].unread = true;
    source.read_on(&mut bench.cx());
    source.on_read(Ok(0), Vec::new(), Some(0), None, &mut bench.cx(), &mut Vec::new());
    let live = FoundFile { len: 0, head: Vec::new(), ..live_file() };
    (0..2).for_each(|_| {
        list(&mut source, vec![live.clone()], &mut bench);
    });
    assert!(!source.chain.is_searching() && !source.assembler.undelivered(StdType::Stdout).1);
}

/// The line was joined with the first of the new file instead, and all else of the old one waited for its end. Found by
/// the simulation (seeds 807 and 828).
#[test]
fn a_line_that_is_open_at_the_end_of_a_renamed_file_goes_on_in_that_one() {
    let mut bench = Bench::new(1);
    let mut source = within_a_line(&mut bench);
    rotate(&mut source, &mut bench);
    read(&mut source, b"", &mut bench);
    // The next file waits, for its first record would be taken for the rest.
    assert_eq!((source.chain.parked.len(), source.chain.links[0].found.id.inode), (0, 2));
    source.on_rotated_grew(&mut bench.cx(), &mut Vec::new());
    assert_eq!(read(&mut source, CRI_REST, &mut bench), ["1 lines"]);
    assert_eq!((source.chain.parked.len(), source.chain.links[0].found.id.inode), (1, 7));
}

/// kubelet rotates where it likes: after the grace the rest is in the next file.
#[test]
fn a_line_that_is_open_at_the_end_of_a_renamed_file_waits_no_longer_than_its_writer_may_take() {
    let mut bench = Bench::new(1);
    let mut source = within_a_line(&mut bench);
    rotate(&mut source, &mut bench);
    read(&mut source, b"", &mut bench);
    bench.now.mono_ms += 5_000;
    assert_eq!(bench.due(), [Purpose::LateWriter]);
    source.on_timer(Purpose::LateWriter, &mut bench.cx(), &mut Vec::new());
    read(&mut source, b"", &mut bench);
    assert_eq!(source.chain.links[0].found.id.inode, 7);
    assert!(source.assembler.undelivered(StdType::Stdout).1);
}

/// Its file gets another name, and another file its own.
fn rotate(source: &mut FileSource, bench: &mut Bench) {
    let rotated = FoundFile { name: "a.log.1".to_owned(), rank: 1, ..source.chain.links[0].found.clone() };
    let next = FoundFile {
        id: FileId { device: 1, inode: 7, birth_ns: 8 },
        len: 0,
        head: Vec::new(),
        ..live_file()
    };
    list(source, vec![rotated, next], bench);
}

/// What is written to such a file while it is closed leaves no trace if it is gone before it is open again.
#[test]
fn a_quiet_file_that_would_show_no_trace_stays_open() {
    let mut bench = Bench::new(1);
    let (mut source, file) = listed(&mut bench);
    source.opened = true;
    let read = |link: &mut Link| {
        (link.handle, link.unread, link.offset) = (Handle::Open(file), false, link.len);
        (link.room, link.found.id.birth_ns, link.late) = (false, 3, false);
    };
    let hides: [fn(&mut Link); 4] = [
        |link| (link.offset, link.len) = (0, 0),
        |link| link.room = true,
        |link| link.found.id.birth_ns = 0,
        |link| link.late = true,
    ];
    for (at, hide) in hides.iter().enumerate() {
        source.chain.links[0].len = 4;
        read(&mut source.chain.links[0]);
        assert!(source.is_quiet(), "{at}");
        hide(&mut source.chain.links[0]);
        assert!(!source.is_quiet(), "{at}");
    }
}

/// A log that was read whole is rewritten with less, and the agent reads its head first. All of the old content was declared lost.
#[test]
fn a_file_that_shows_another_head_is_not_as_long_as_before() {
    let mut bench = Bench::new(1);
    let found = FoundFile { len: 9_000, head: vec![b'o'; 1_024], ..live_file() };
    let (mut source, file) = listed_with(found, &mut bench);
    let opened = OpenedFile::plain(9_000);
    source.on_file_opened(file, Ok(opened), &mut bench.cx(), &mut Vec::new());
    (source.chain.links[0].offset, source.chain.links[0].unread) = (9_000, true);
    source.chain.links[0].tail = TailPrint::of(&[b'o'; 9_000], 9_000);
    bench.cx().credit.file_read(1_024).expect("a read is free");
    source.reading = Some(Reading { file, offset: 9_000, is_head: true, ..Reading::default() });
    let head = vec![b'n'; 1_024];
    source.on_read(Ok(1_024), head.clone(), None, None, &mut bench.cx(), &mut Vec::new());
    assert!(source.chain.is_searching());
    assert_eq!((source.chain.links[0].offset, source.chain.links[0].len), (0, 1_024));
    assert!(!source.chain.on_short(2_000));
    let changes =
        source.chain.on_listing(vec![FoundFile { len: 2_000, head, ..live_file() }], true, &|_| None);
    assert_eq!(changes.gone.iter().map(|gone| gone.bytes).collect::<Vec<_>>(), [0]);
}

pub(super) fn live_file() -> FoundFile {
    FoundFile {
        name: "a.log".to_owned(),
        rank: 0,
        compressed: false,
        id: FileId { device: 1, inode: 2, birth_ns: 3 },
        len: 4,
        head: b"one\n".to_vec(),
        unpacked_len: None,
        modified_ns: 0,
    }
}

/// A source whose directory was listed once, with its live file, and the number under which that is being opened.
fn listed(bench: &mut Bench) -> (FileSource, FileNo) {
    listed_with(live_file(), bench)
}

fn listed_with(found: FoundFile, bench: &mut Bench) -> (FileSource, FileNo) {
    let (directory, name) = ("/d".to_owned(), "a.log".to_owned());
    let mut source = FileSource::new(StreamId(1), directory, name, FileFormat::Raw, Start::Oldest, 64 * 1024);
    source.open(&mut bench.cx());
    list(&mut source, vec![found], bench);
    let Handle::Opening(file) = source.chain.links[0].handle else { panic!("it is not opened") };
    bench.actions();
    (source, file)
}

/// Whether it said that it is open.
fn list(source: &mut FileSource, found: Vec<FoundFile>, bench: &mut Bench) -> bool {
    let mut told = Vec::new();
    source.on_scanned(Ok(found), &mut bench.cx(), &mut told);
    told.iter().any(|told| matches!(told, SourceEvent::Opened))
}

fn begin(source: &mut FileSource, bench: &mut Bench) -> bool {
    let mut told = Vec::new();
    source.begin(&mut bench.cx(), &mut told);
    told.iter().any(|told| matches!(told, SourceEvent::Opened))
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
    let opened = OpenedFile::plain(4);
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

/// Where anything may have been written to, all that is parked is looked at again and again: it was never closed.
#[test]
fn looks_that_bring_nothing_do_not_keep_a_renamed_file_open() {
    let mut bench = Bench::new(1);
    let mut source = within_a_line(&mut bench);
    read(&mut source, CRI_REST, &mut bench);
    rotate(&mut source, &mut bench);
    read(&mut source, b"", &mut bench);
    let due_ms = source.chain.parked[0].due_ms;
    bench.now.mono_ms += 1_000;
    source.on_rotated_grew(&mut bench.cx(), &mut Vec::new());
    read(&mut source, b"", &mut bench);
    assert_eq!(source.chain.parked[0].due_ms, due_ms);
}

/// Logs that held their live files and waited for the files that were to be read before those held each other up for ever.
#[test]
fn who_waits_for_a_descriptor_holds_none_that_it_does_not_read() {
    let mut bench = Bench::new(1);
    let rotated = FoundFile {
        name: "a.log.1".to_owned(),
        rank: 1,
        id: FileId { device: 1, inode: 7, birth_ns: 1 },
        len: 100,
        head: vec![b'x'; 100],
        ..live_file()
    };
    let start = Start::Oldest;
    let mut source =
        FileSource::new(StreamId(1), "/d".to_owned(), "a.log".to_owned(), FileFormat::Raw, start, 1 << 16);
    list(&mut source, vec![rotated.clone(), live_file()], &mut bench);
    let (first, second) = (source.chain.links[0].handle, source.chain.links[1].handle);
    let (Handle::Opening(first), Handle::Opening(live)) = (first, second) else {
        panic!("both are asked for")
    };
    let opened = || Ok(OpenedFile::plain(100));
    // The one behind gets the last descriptor.
    source.on_file_opened(live, opened(), &mut bench.cx(), &mut Vec::new());
    bench.actions();
    bench.shared.open_files.make_room(1, bench.now.mono_ms);
    source.give_back(&mut bench.cx());
    let closed = |bench: &mut Bench| {
        let is_close =
            |action: Action| if let Action::CloseFile { file } = action { Some(file) } else { None };
        bench.actions().into_iter().filter_map(is_close).collect::<Vec<_>>()
    };
    assert_eq!(closed(&mut bench), [live]);
    // It is not asked for again before its turn, and what is read is not given back.
    source.on_file_opened(first, opened(), &mut bench.cx(), &mut Vec::new());
    source.give_back(&mut bench.cx());
    let orders = bench.actions();
    let asks = |action: &Action| matches!(action, Action::OpenFile { .. } | Action::CloseFile { .. });
    assert!(!orders.iter().any(asks), "{orders:?}");
    assert_eq!((source.files_open(), source.chain.links[1].handle), (1, Handle::None));
}

/// What had been added to a rotated file was dropped without a word when its path went before there was a descriptor for it.
#[test]
fn a_file_that_grew_late_is_read_though_its_path_went_before_it_could_be_opened() {
    let mut bench = Bench::new(1);
    // Others have all there is.
    bench.shared.open_files.set_most(2);
    bench.shared.open_files.note(StreamId(9), 1_000_000, false, false, 0);
    let (directory, name) = ("/d".to_owned(), "a.log".to_owned());
    let mut source = FileSource::new(StreamId(1), directory, name, FileFormat::Raw, Start::Oldest, 64 * 1024)
        .rotated_while_written(0);
    source.open(&mut bench.cx());
    list(&mut source, vec![live_file()], &mut bench);
    let old = FoundFile {
        name: "a.log.1".to_owned(),
        rank: 1,
        id: FileId { device: 1, inode: 7, birth_ns: 1 },
        len: 8,
        head: b"old\nnew\n".to_vec(),
        ..live_file()
    };
    let read = FoundFile { head: b"old\n".to_vec(), ..old.clone() };
    let place = FilePlace {
        file: old.id,
        head: read.print(),
        tail: TailPrint::of(b"old\n", 4),
        offset: 4,
        skip: [0; 2],
    };
    source.remember(vec![place]);
    list(&mut source, vec![old, live_file()], &mut bench);
    assert_eq!(source.chain.parked.len(), 1);
    let mut told = Vec::new();
    source.gone(&mut bench.cx(), &mut told);
    list(&mut source, vec![live_file()], &mut bench);
    list(&mut source, vec![live_file()], &mut bench);
    assert_eq!(source.chain.parked.len(), 1);
    assert!(!told.iter().any(|told| matches!(told, SourceEvent::Drained)));
    bench.actions();
    bench.shared.open_files.forget(StreamId(9));
    source.open_at_last(&mut bench.cx());
    let is_opening =
        |action: &Action| matches!(action, Action::OpenFile { found, .. } if found.id.inode == 7);
    assert!(bench.actions().iter().any(is_opening));
    // It went before that: it is told.
    let Handle::Opening(file) = source.chain.parked[0].link.handle else { panic!("it is opened") };
    fail_to_open(&mut source, file, FileError::Changed("a.log.1".to_owned()), &mut bench);
    list(&mut source, vec![live_file()], &mut bench);
    list(&mut source, vec![live_file()], &mut bench);
    let losses = bench.cx().metrics.take_source_losses();
    assert_eq!(losses.len(), 1, "{losses:?}");
    assert_eq!((losses[0].bytes, losses[0].possible), (4, false));
}
