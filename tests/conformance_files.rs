//! The cases of files, on the real disk with the real threads, ring and inotify, and on the simulated ones: listing a
//! chain, opening, reading to the end and beyond, rotations in between, and the order of inotify's events.

use capturer::testing::limits::HEAD_BYTES;
use capturer::testing::{
    Action, Event, FileError, FileId, FileNo, FoundFile, OpenedFile, StreamId, TailPrint, ring,
};
use capturer_tests::bench::{Bench, DiskDeed, LIVE_NAME, RealBench};
use capturer_tests::rand::Rand;
use capturer_tests::world::bench::SimBench;

use crate::LONG;

/// Makes two tests of a case: `name::real_files` and `name::simulated_files`, whose reads are short as often as so many times
/// in a thousand.
macro_rules! on_both {
    ($($name:ident(short_reads $short:expr);)*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn real_files() {
                ring::start(async {
                    let mut bench = RealBench::with_inotify(LONG).expect("a bench with inotify");
                    super::$name(&mut bench).await;
                    assert_eq!(bench.wind_up().await, 0, "operations are left in flight");
                })
                .expect("this machine has io_uring");
            }

            #[test]
            fn simulated_files() {
                ring::start(async {
                    for seed in 0..50 {
                        super::$name(&mut SimBench::new(seed, LONG, $short)).await;
                    }
                })
                .expect("this machine has io_uring");
            }
        }
    )*};
}

on_both! {
    a_chain_is_listed_whole(short_reads 0);
    a_live_file_that_is_the_same_is_all_that_is_looked_at(short_reads 0);
    a_directory_that_is_not_there_is_told(short_reads 0);
    a_file_is_read_to_its_end_and_beyond(short_reads 500);
    an_archive_is_read_like_a_file(short_reads 500);
    a_rotation_between_listing_and_opening_is_found_out(short_reads 0);
    an_open_file_is_read_on_after_its_rotation(short_reads 500);
    an_unlinked_file_is_still_readable(short_reads 500);
    a_removed_file_is_not_opened(short_reads 0);
    growth_is_told_of_the_older_file_first(short_reads 0);
    growth_behind_a_rotation_is_told_behind_it(short_reads 0);
    what_is_written_while_it_is_listed_is_listed_or_told(short_reads 0);
    nothing_is_told_of_what_is_not_watched(short_reads 0);
}

const STREAM: StreamId = StreamId(1);
const FILE: FileNo = FileNo(1);

fn is_of_inotify(event: &Event) -> bool {
    use Event::{ChainChanged, FileGrew, LiveMade, RotatedGrew};
    matches!(event, FileGrew { .. } | RotatedGrew { .. } | ChainChanged { .. } | LiveMade { .. })
}

/// The next event that answers an order; inotify's events meanwhile have cases of their own.
async fn answer(bench: &mut impl Bench) -> Event {
    loop {
        let event = bench.event().await.expect("an answer");
        if !is_of_inotify(&event) {
            return event;
        }
    }
}

fn order_scan(bench: &mut impl Bench) {
    let directory = bench.directory();
    order_scan_of(bench, directory);
}

fn order_scan_of(bench: &mut impl Bench, directory: String) {
    order_scan_unless(bench, directory, None);
}

fn order_scan_unless(bench: &mut impl Bench, directory: String, still: Option<FileId>) {
    let (stream, live_name) = (STREAM, LIVE_NAME.to_owned());
    let (wanted, apart) = Default::default();
    bench.order(Action::Scan {
        stream,
        directory: directory.into(),
        live_name,
        wanted,
        apart,
        olddirs: Vec::new(),
        before: String::new(),
        still,
    });
}

/// The chain, the live file first.
async fn scanned(bench: &mut impl Bench) -> Vec<FoundFile> {
    match answer(bench).await {
        Event::Scanned { stream: STREAM, result, .. } => {
            let mut found = result.expect("a listing");
            found.sort_by_key(|file| file.rank);
            found
        }
        other => panic!("a scan brought {other:?}"),
    }
}

async fn scan(bench: &mut impl Bench) -> Vec<FoundFile> {
    order_scan(bench);
    scanned(bench).await
}

async fn open(bench: &mut impl Bench, found: &FoundFile) -> Result<OpenedFile, FileError> {
    let directory = bench.directory();
    bench.order(Action::OpenFile {
        stream: STREAM,
        file: FILE,
        directory: directory.into(),
        found: found.clone(),
        expected: TailPrint::default(),
    });
    match answer(bench).await {
        Event::FileOpened { stream: STREAM, file: FILE, result } => result,
        other => panic!("opening brought {other:?}"),
    }
}

/// One read: the bytes, and the length of the file if it was asked for.
async fn read(bench: &mut impl Bench, offset: u64, room: usize) -> (Vec<u8>, Option<u64>) {
    let buffer = Vec::with_capacity(room);
    // The allocator may give more.
    let room = buffer.capacity();
    bench.order(Action::ReadFile { stream: STREAM, file: FILE, offset, buffer });
    match answer(bench).await {
        Event::FileRead { stream: STREAM, file: FILE, result, buffer, file_len, .. } => {
            assert_eq!(result, Ok(buffer.len()), "what came is what is told");
            assert!(buffer.len() <= room);
            let is_short = buffer.len() < room;
            assert_eq!(file_len.is_some(), is_short, "{} of {room} bytes, {file_len:?}", buffer.len());
            (buffer, file_len)
        }
        other => panic!("a read brought {other:?}"),
    }
}

/// Everything from an offset on, in reads of several sizes. A short read is not the end; an empty one is.
async fn read_all(bench: &mut impl Bench, mut offset: u64) -> Vec<u8> {
    let (mut rand, mut all) = (Rand::new(11), Vec::new());
    loop {
        let (bytes, file_len) = read(bench, offset, rand.index(1..3_000)).await;
        offset += bytes.len() as u64;
        if let Some(len) = file_len {
            assert!(offset <= len, "{offset} bytes were read of {len}");
        }
        if bytes.is_empty() {
            assert_eq!(file_len, Some(offset), "a read that brings nothing is at the end");
            return all;
        }
        all.extend(bytes);
    }
}

async fn close(bench: &mut impl Bench) {
    bench.order(Action::CloseFile { file: FILE });
    // inotify may have events left. Only a lane answers a close, which tells the core nothing.
    while let Some(event) = bench.event().await {
        assert!(is_of_inotify(&event) || matches!(event, Event::Tick), "closing brought {event:?}");
    }
}

fn text(lines: std::ops::Range<u32>) -> Vec<u8> {
    lines.flat_map(|number| format!("line {number}\n").into_bytes()).collect()
}

/// A chain of three, the oldest longer than what a listing shows of it.
fn furnish(bench: &mut impl Bench) -> [Vec<u8>; 3] {
    let contents = [text(0..10), text(10..20), text(20..1_000)];
    for (number, content) in contents.iter().rev().enumerate() {
        if number > 0 {
            bench.disk(DiskDeed::Rotate);
        }
        bench.disk(DiskDeed::Append(0, content.clone()));
    }
    contents
}

async fn a_chain_is_listed_whole(bench: &mut impl Bench) {
    let contents = furnish(bench);
    let found = scan(bench).await;
    assert_eq!(found.len(), 3, "{found:?}");
    for (rank, (file, content)) in found.iter().zip(&contents).enumerate() {
        let name = if rank == 0 { LIVE_NAME.to_owned() } else { format!("{LIVE_NAME}.{rank}") };
        assert_eq!((file.rank as usize, &file.name, file.compressed), (rank, &name, false));
        assert_eq!(file.len, content.len() as u64);
        assert_eq!(file.head, content[..content.len().min(HEAD_BYTES)]);
    }
    // A rotation changes names, and nothing of what a file is.
    bench.disk(DiskDeed::Rotate);
    let again = scan(bench).await;
    assert_eq!(again.len(), 4);
    for (before, after) in found.iter().zip(&again[1..]) {
        assert_eq!((before.id, before.rank + 1, &before.head), (after.id, after.rank, &after.head));
    }
    assert!(found.iter().all(|file| file.id != again[0].id), "the new file is another");
}

/// What follows a container by the API asks so ten times a second.
async fn a_live_file_that_is_the_same_is_all_that_is_looked_at(bench: &mut impl Bench) {
    let content = text(0..100);
    bench.disk(DiskDeed::Append(0, content.clone()));
    bench.disk(DiskDeed::Rotate);
    bench.disk(DiskDeed::Append(0, content.clone()));
    let live = scan(bench).await.remove(0);
    let more = text(100..200);
    bench.disk(DiskDeed::Append(0, more.clone()));
    let directory = bench.directory();
    order_scan_unless(bench, directory.clone(), Some(live.id));
    match answer(bench).await {
        Event::StillLive { stream: STREAM, found } => {
            assert_eq!((found.id, found.rank, &found.name), (live.id, 0, &live.name));
            assert_eq!(found.len, (content.len() + more.len()) as u64);
            let whole = [content, more].concat();
            assert_eq!(found.head, whole[..whole.len().min(HEAD_BYTES)]);
        }
        other => panic!("a look at the live file brought {other:?}"),
    }
    bench.disk(DiskDeed::Rotate);
    order_scan_unless(bench, directory, Some(live.id));
    let found = scanned(bench).await;
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].id != live.id && found[1].id == live.id, "{found:?}");
}

async fn a_directory_that_is_not_there_is_told(bench: &mut impl Bench) {
    let directory = bench.directory() + "/nothing";
    order_scan_of(bench, directory);
    match answer(bench).await {
        Event::Scanned { stream: STREAM, result: Err(FileError::NoDirectory(_)), .. } => {}
        other => panic!("a scan of nothing brought {other:?}"),
    }
    let more = bench.event().await;
    assert!(more.is_none(), "{more:?}");
}

async fn a_file_is_read_to_its_end_and_beyond(bench: &mut impl Bench) {
    let first = text(0..2_000);
    bench.disk(DiskDeed::Append(0, first.clone()));
    let found = scan(bench).await.remove(0);
    let opened = open(bench, &found).await.expect("the file just listed");
    // Its first bytes are told where no birth time shows which file it is.
    let head =
        if found.id.birth_ns == 0 { first[..first.len().min(HEAD_BYTES)].to_vec() } else { Vec::new() };
    let len = first.len() as u64;
    assert_eq!(opened, OpenedFile { len, damaged: false, lane: None, as_expected: true, head });
    assert!(read_all(bench, 0).await == first, "altered");
    // Behind its end there is nothing, and then what was written since.
    assert_eq!(read(bench, first.len() as u64, 100).await, (Vec::new(), Some(first.len() as u64)));
    let more = text(2_000..2_100);
    bench.disk(DiskDeed::Append(0, more.clone()));
    assert!(read_all(bench, first.len() as u64).await == more, "altered");
    close(bench).await;
}

async fn an_archive_is_read_like_a_file(bench: &mut impl Bench) {
    let content = text(0..2_000);
    bench.disk(DiskDeed::Append(0, content.clone()));
    bench.disk(DiskDeed::Rotate);
    bench.disk(DiskDeed::Pack(1));
    let found = scan(bench).await;
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[1].compressed && found[1].rank == 1 && found[1].head == content[..HEAD_BYTES]);
    let opened = open(bench, &found[1]).await.expect("the archive");
    assert_eq!((opened.len, opened.damaged), (content.len() as u64, false));
    assert!(read_all(bench, 0).await == content, "altered");
    close(bench).await;
}

/// The name now leads to another file: reading that from the old one's position would lose or repeat.
async fn a_rotation_between_listing_and_opening_is_found_out(bench: &mut impl Bench) {
    let content = text(0..100);
    bench.disk(DiskDeed::Append(0, content.clone()));
    let listed = scan(bench).await.remove(0);
    bench.disk(DiskDeed::Rotate);
    let result = open(bench, &listed).await;
    assert!(matches!(result, Err(FileError::Changed(_))), "{result:?}");
    // A new file that begins alike is not the same one either.
    bench.disk(DiskDeed::Append(0, content.clone()));
    let result = open(bench, &listed).await;
    assert!(matches!(result, Err(FileError::Changed(_))), "{result:?}");
    let again = scan(bench).await;
    assert_eq!(again[1].id, listed.id);
    open(bench, &again[1]).await.expect("the file by its new name");
    assert!(read_all(bench, 0).await == content, "altered");
    close(bench).await;
}

async fn an_open_file_is_read_on_after_its_rotation(bench: &mut impl Bench) {
    let (before, after) = (text(0..100), text(100..200));
    bench.disk(DiskDeed::Append(0, before.clone()));
    let found = scan(bench).await.remove(0);
    open(bench, &found).await.expect("the live file");
    assert!(read_all(bench, 0).await == before, "altered");
    bench.disk(DiskDeed::Rotate);
    // A writer that has it open goes on for a while, and the new file has lines of its own.
    bench.disk(DiskDeed::Append(1, after.clone()));
    bench.disk(DiskDeed::Append(0, text(200..300)));
    assert!(read_all(bench, before.len() as u64).await == after, "not what is behind the position");
    close(bench).await;
}

async fn an_unlinked_file_is_still_readable(bench: &mut impl Bench) {
    let content = text(0..1_000);
    bench.disk(DiskDeed::Append(0, content.clone()));
    let found = scan(bench).await.remove(0);
    open(bench, &found).await.expect("the live file");
    bench.disk(DiskDeed::Remove(0));
    assert_eq!(scan(bench).await, []);
    assert!(read_all(bench, 0).await == content, "altered");
    close(bench).await;
}

async fn a_removed_file_is_not_opened(bench: &mut impl Bench) {
    bench.disk(DiskDeed::Append(0, text(0..100)));
    let found = scan(bench).await.remove(0);
    bench.disk(DiskDeed::Remove(0));
    let result = open(bench, &found).await;
    assert!(matches!(result, Err(FileError::Changed(_))), "{result:?}");
}

/// What inotify tells next: whether the chain changed, else the live file grew.
async fn changed(bench: &mut impl Bench) -> bool {
    match bench.told().await.expect("inotify to tell") {
        Event::FileGrew { stream: STREAM } => false,
        Event::ChainChanged { stream: STREAM } => true,
        Event::LiveMade { stream: STREAM, files: 1 } => {
            let next = bench.told().await;
            assert!(matches!(next, Some(Event::ChainChanged { stream: STREAM })), "behind it: {next:?}");
            true
        }
        other => panic!("inotify told {other:?}"),
    }
}

/// Or what is newer would be read first.
async fn growth_is_told_of_the_older_file_first(bench: &mut impl Bench) {
    furnish(bench);
    scan(bench).await;
    bench.disk(DiskDeed::Append(1, text(0..1)));
    bench.disk(DiskDeed::Append(0, text(1..2)));
    let told = [bench.told().await, bench.told().await];
    let is_right = matches!(
        told,
        [Some(Event::RotatedGrew { stream: STREAM }), Some(Event::FileGrew { stream: STREAM })]
    );
    assert!(is_right, "inotify told {told:?}");
    let more = bench.event().await;
    assert!(more.is_none(), "growth was told twice: {more:?}");
}

/// Otherwise the core would take content of the next file for that of its own.
async fn growth_behind_a_rotation_is_told_behind_it(bench: &mut impl Bench) {
    furnish(bench);
    scan(bench).await;
    bench.disk(DiskDeed::Rotate);
    bench.disk(DiskDeed::Append(0, text(0..1)));
    assert!(changed(bench).await, "growth was told first");
    // The rotation may be reported in parts.
    while changed(bench).await {}
    let more = bench.event().await;
    assert!(more.is_none(), "behind the growth came {more:?}");
}

/// Between a listing and its watch no change may go unseen.
async fn what_is_written_while_it_is_listed_is_listed_or_told(bench: &mut impl Bench) {
    bench.disk(DiskDeed::Append(0, text(0..10)));
    let mut len = text(0..10).len() as u64;
    for round in 1..6 {
        order_scan(bench);
        let more = text(10 * round..10 * round + 10);
        bench.disk(DiskDeed::Append(0, more.clone()));
        len += more.len() as u64;
        let (mut listed, mut told) = (None, false);
        while listed.is_none() || !(told || listed == Some(len)) {
            match bench.told().await.expect("the listing, or what it lacks") {
                Event::Scanned { result, .. } => listed = Some(result.expect("a listing")[0].len),
                Event::FileGrew { .. } => told = true,
                // What was written between the watch and the listing may have been a new file as well.
                Event::ChainChanged { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        // Late events do not belong to the next round.
        while bench.event().await.is_some() {}
    }
}

async fn nothing_is_told_of_what_is_not_watched(bench: &mut impl Bench) {
    furnish(bench);
    // Not yet.
    let early = bench.event().await;
    assert!(early.is_none(), "{early:?}");
    scan(bench).await;
    bench.order(Action::Unwatch { stream: STREAM });
    bench.disk(DiskDeed::Append(0, text(0..1)));
    bench.disk(DiskDeed::Rotate);
    let late = bench.event().await;
    assert!(late.is_none(), "{late:?}");
}
