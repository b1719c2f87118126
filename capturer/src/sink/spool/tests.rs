//! The spool compared with a plain queue, and after what power cuts and people do to its files.

#[path = "full_and_gone_tests.rs"]
mod full_and_gone;

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::time::Duration;

use super::super::testing::Rng;
use super::format::Record;
use super::*;
use crate::settings::{Spool, WhenFull};

fn config(bytes_max: u64) -> Spool {
    Spool { bytes_max, age_max: Duration::from_secs(3600), when_full: WhenFull::Wait, fsync: false }
}

fn held() -> SpoolOwner {
    SpoolOwner { claims: Claims::default(), owner: Owner::Sink("test".to_owned()) }
}

fn open(dir: &Path, config: &Spool, held: SpoolOwner) -> io::Result<(Writer, Reader, Vec<String>)> {
    super::open(dir, config, held).map(|Opened { writer, reader, notes, .. }| (writer, reader, notes))
}

fn record(number: u64, bytes: usize, rng: &mut Rng) -> Record {
    // Random, so that it does not compress.
    let payload: Vec<u8> = (0..bytes).map(|_| rng.next() as u8).collect();
    Record::new(number, unix_ms(), String::new(), 1, (&[], &payload))
}

/// Reads on; returns the numbers of the records, and how many bytes were damaged. All are delivered.
fn read_all(reader: &mut Reader) -> (Vec<u64>, u64) {
    let (mut numbers, mut damaged) = (Vec::new(), 0);
    loop {
        match reader.read_next().unwrap() {
            Read::Record(record, at) => {
                numbers.push(record.label_set);
                reader.done(at);
            }
            Read::Damaged { bytes, .. } => damaged += bytes,
            Read::TooOld(..) | Read::Missing { .. } | Read::Unfinished { .. } => {
                panic!("nothing is old, gone or unfinished here")
            }
            Read::Nothing => return (numbers, damaged),
        }
    }
}

/// Whatever is appended, read, forgotten and started again: records stay in order, none is lost, only those not
/// forgotten are repeated, and the spool never takes more of the disk than its bound.
#[test]
fn like_a_queue_across_restarts() {
    let mut rng = Rng::from_env();
    let dir = tempfile::tempdir().unwrap();
    let config = config(1024 * 1024);
    let (mut writer, mut reader, notes) = open(dir.path(), &config, held()).unwrap();
    assert!(notes.is_empty(), "{notes:?}");
    let (mut next, mut uncommitted) = (1, 0);
    let mut queue: VecDeque<u64> = VecDeque::new();
    let mut read: VecDeque<(u64, Position)> = VecDeque::new();
    let mut full = 0;
    for _ in 0..4_000 {
        match rng.below(20) {
            0..9 => match writer.append(&[record(next, rng.below(30_000), &mut rng)]) {
                Ok(()) => {
                    uncommitted += 1;
                    next += 1;
                }
                Err(AppendError::Full) => full += 1,
                Err(AppendError::Io(error)) => panic!("{error}"),
            },
            9..12 => {
                writer.commit().unwrap();
                queue.extend(next - uncommitted..next);
                uncommitted = 0;
            }
            12..17 => match reader.read_next().unwrap() {
                // A segment that is full is committed with it.
                Read::Record(record, at) => {
                    let expected = queue.pop_front().unwrap_or_else(|| {
                        uncommitted -= 1;
                        next - uncommitted - 1
                    });
                    assert_eq!(record.label_set, expected);
                    read.push_back((record.label_set, at));
                }
                Read::Nothing => assert!(queue.is_empty(), "{queue:?} was committed"),
                other => panic!("{other:?}"),
            },
            // In any order: some label sets wait longer.
            17..19 => {
                if !read.is_empty() {
                    let index = rng.below(read.len().min(3));
                    let (number, at) = read.remove(index).unwrap();
                    let Loaded::Record(record) = reader.load(at).unwrap() else {
                        panic!("{number} at {at:?}")
                    };
                    assert_eq!(record.label_set, number);
                    reader.done(at);
                }
                reader.forget().unwrap();
            }
            // Rarely: here a restart empties the spool, which should be full at times.
            _ if rng.below(15) > 0 => {}
            _ => {
                // Undelivered records come again, in order; uncommitted ones may be there or not.
                reader.forget().unwrap();
                drop((writer, reader));
                let left: Vec<u64> =
                    read.drain(..).map(|(number, _)| number).chain(queue.drain(..)).collect();
                let (new_writer, new_reader, _) = open(dir.path(), &config, held()).unwrap();
                (writer, reader) = (new_writer, new_reader);
                let (found, damaged) = read_all(&mut reader);
                assert_eq!(damaged, 0);
                assert_eq!(found[..left.len()], left);
                assert!(found[left.len()..].iter().all(|number| *number >= next - uncommitted));
                uncommitted = 0;
                reader.forget().unwrap();
            }
        }
        assert!(writer.bytes() <= config.bytes_max);
    }
    assert!(full > 0 && next > 500, "{full} times full, {next} records");
}

#[test]
fn a_full_spool_drops_its_oldest_if_told_to_and_counts_them() {
    let mut rng = Rng::from_env();
    let dir = tempfile::tempdir().unwrap();
    let config = Spool { when_full: WhenFull::DropOldest, ..config(1024 * 1024) };
    let (mut writer, mut reader, _) = open(dir.path(), &config, held()).unwrap();
    let mut written = 0;
    for number in 1..=300 {
        let before = writer.bytes();
        writer.append(&[record(number, 10_000, &mut rng)]).unwrap();
        written += 10_000;
        assert!(writer.bytes() <= config.bytes_max, "{before}");
    }
    writer.commit().unwrap();
    let dropped = writer.take_dropped_bytes();
    let (numbers, damaged) = read_all(&mut reader);
    assert_eq!(damaged, 0);
    assert_eq!(numbers.last(), Some(&300));
    assert_eq!(numbers, (numbers[0]..=300).collect::<Vec<_>>(), "the newest, without a gap");
    let kept = numbers.len() as u64;
    assert!(dropped >= written - kept * 10_000, "{dropped} of {written} bytes dropped, {kept} records kept");
}

/// Must-show 5 for the spool: whatever happened to its files, a start succeeds and what can be read is read.
#[test]
fn torn_cut_flipped_and_zeroed_segments() {
    let mut rng = Rng::from_env();
    for round in 0..60 {
        let dir = tempfile::tempdir().unwrap();
        let config = config(1024 * 1024);
        let (mut writer, _, _) = open(dir.path(), &config, held()).unwrap();
        for number in 1..=40 {
            writer.append(&[record(number, 5_000, &mut rng)]).unwrap();
        }
        writer.commit().unwrap();
        drop(writer);
        let mut segments: Vec<PathBuf> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        segments.sort();
        let victim = &segments[rng.below(segments.len())];
        let mut bytes = fs::read(victim).unwrap();
        let (at, kind) = (rng.below(bytes.len()), round % 5);
        match kind {
            0 => bytes.truncate(at),
            1 => bytes[at] ^= 1 << rng.below(8),
            2 => bytes[at..].fill(0),
            3 => bytes.extend((0..3_000).map(|_| rng.next() as u8)),
            _ => bytes.clear(),
        }
        fs::write(victim, &bytes).unwrap();
        let (mut writer, mut reader, _) = open(dir.path(), &config, held()).unwrap();
        let (numbers, damaged) = read_all(&mut reader);
        assert!(numbers.is_sorted() && numbers.len() >= 25, "kind {kind}: {numbers:?}");
        let said = damaged > 0;
        let lost = numbers.len() < 40;
        // A file cut exactly between two records shows nothing.
        assert!(said || !lost || matches!(kind, 0 | 4), "kind {kind}: lost {lost}, said {said}");
        // It goes on.
        writer.append(&[record(41, 10, &mut rng)]).unwrap();
        writer.commit().unwrap();
        assert_eq!(read_all(&mut reader), (vec![41], 0));
    }
}

#[test]
fn a_damaged_cursor_repeats_and_is_said() {
    let mut rng = Rng::from_env();
    for damage in ["", "1", "1 2 3", "\0\0\0\0", "9 9 00000000", "x"] {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, mut reader, _) = open(dir.path(), &config(1 << 20), held()).unwrap();
        for number in 1..=3 {
            writer.append(&[record(number, 10, &mut rng)]).unwrap();
        }
        writer.commit().unwrap();
        read_all(&mut reader);
        fs::write(dir.path().join(CURSOR_FILE), damage).unwrap();
        let (_writer, mut reader, notes) = open(dir.path(), &config(1 << 20), held()).unwrap();
        assert_eq!(notes.len(), 1, "{damage:?}");
        assert_eq!(read_all(&mut reader).0, [1, 2, 3], "{damage:?}");
    }
}

#[test]
fn what_is_too_old_is_given_up_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, mut reader, _) = open(dir.path(), &config(1 << 20), held()).unwrap();
    let mut old = record(1, 10, &mut Rng::from_env());
    old.time_ms -= 3_700_000;
    writer.append(&[old.clone()]).unwrap();
    writer.append(&[Record { label_set: 2, time_ms: unix_ms(), ..old }]).unwrap();
    writer.commit().unwrap();
    assert!(matches!(reader.read_next().unwrap(), Read::TooOld(_, bytes) if bytes > 40));
    assert!(matches!(reader.read_next().unwrap(), Read::Record(Record { label_set: 2, .. }, _)));
}

/// A label set that waits for days must not fill the disk with what others delivered, nor make them come again.
#[test]
fn one_that_waits_keeps_its_own_room_only() {
    let mut rng = Rng::from_env();
    let dir = tempfile::tempdir().unwrap();
    let config = config(4 * 1024 * 1024);
    let (mut writer, mut reader, _) = open(dir.path(), &config, held()).unwrap();
    let mut waiting = Vec::new();
    // Ten times as much as the spool holds, every fortieth record for a label set that waits.
    for number in 1..=4_000 {
        writer
            .append(&[record(number, 10_000, &mut rng)])
            .unwrap_or_else(|error| panic!("{number}: {error:?}"));
        if number % 40 == 0 {
            writer.commit().unwrap();
            while let Read::Record(record, at) = reader.read_next().unwrap() {
                if record.label_set % 40 == 1 {
                    waiting.push((record.label_set, at));
                } else {
                    reader.done(at);
                }
            }
            reader.forget().unwrap();
        }
    }
    assert_eq!(waiting.len(), 100);
    // A block of the file system at each end of a record, and what was written since.
    assert!(writer.bytes() < 100 * (10_000 + 3 * 4096) + 1024 * 1024, "{}", writer.bytes());
    for (label_set, at) in &waiting {
        let Loaded::Record(record) = reader.load(*at).unwrap() else { panic!("{label_set}") };
        assert_eq!(record.label_set, *label_set);
    }
    let on_disk: u64 = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| std::os::unix::fs::MetadataExt::blocks(&entry.unwrap().metadata().unwrap()) * 512)
        .sum();
    assert!(on_disk < 4 * 1024 * 1024, "{on_disk}");
    drop((writer, reader));
    let (_writer, mut reader, notes) = open(dir.path(), &config, held()).unwrap();
    assert_eq!(notes, [] as [String; 0]);
    let (numbers, damaged) = read_all(&mut reader);
    let expected: Vec<u64> = waiting.iter().map(|(label_set, _)| *label_set).collect();
    assert_eq!((numbers, damaged), (expected, 0), "those that wait, and nothing else again");
}

/// Somebody deletes files of the spool: what is gone is reported, by name and with its bytes, and nothing else is.
#[test]
fn segments_that_somebody_removed_are_told() {
    let mut rng = Rng::from_env();
    for case in ["first", "middle", "last", "cut", "running", "none"] {
        let dir = tempfile::tempdir().unwrap();
        let config = config(1024 * 1024);
        let (mut writer, mut reader, _) = open(dir.path(), &config, held()).unwrap();
        for number in 1..=40 {
            writer.append(&[record(number, 5_000, &mut rng)]).unwrap();
        }
        writer.commit().unwrap();
        let Read::Record(_, first) = reader.read_next().unwrap() else { panic!("no record") };
        reader.forget().unwrap();
        let mut segments: Vec<PathBuf> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|end| end == "seg"))
            .collect();
        segments.sort();
        let victim = match case {
            "first" => Some(&segments[0]),
            "last" | "cut" => segments.last(),
            "none" => None,
            _ => Some(&segments[2]),
        };
        let bytes = victim.map_or(0, |path| fs::metadata(path).unwrap().len());
        match case {
            "cut" => fs::OpenOptions::new().write(true).open(victim.unwrap()).unwrap().set_len(0).unwrap(),
            _ => victim.into_iter().for_each(|path| fs::remove_file(path).unwrap()),
        }
        if case != "running" {
            drop((writer, reader));
            (_, reader, _) = open(dir.path(), &config, held()).unwrap();
        }
        let (mut missing, mut numbers) = (Vec::new(), BTreeSet::new());
        loop {
            match reader.read_next().unwrap() {
                Read::Record(record, at) => {
                    numbers.insert(record.label_set);
                    reader.done(at);
                }
                Read::Missing { file, bytes } => missing.push((file, bytes)),
                Read::Nothing => break,
                other => panic!("{case}: {other:?}"),
            }
        }
        reader.done(first);
        let expected: Vec<(String, u64)> = victim
            .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), bytes))
            .into_iter()
            .collect();
        assert_eq!(missing, expected, "{case}");
        assert_eq!(numbers.len() < 39, victim.is_some(), "{case}: {numbers:?}");
    }
}

/// What a full spool dropped was counted then: a start does not report it again.
#[test]
fn what_was_dropped_is_not_missing() {
    let mut rng = Rng::from_env();
    let dir = tempfile::tempdir().unwrap();
    let config = Spool { when_full: WhenFull::DropOldest, ..config(1024 * 1024) };
    let (mut writer, mut reader, _) = open(dir.path(), &config, held()).unwrap();
    writer.append(&[record(1, 10_000, &mut rng)]).unwrap();
    writer.commit().unwrap();
    let Read::Record(_, at) = reader.read_next().unwrap() else { panic!("no record") };
    reader.forget().unwrap();
    for number in 2..=300 {
        writer.append(&[record(number, 10_000, &mut rng)]).unwrap();
    }
    writer.commit().unwrap();
    assert_eq!(reader.load(at).unwrap(), Loaded::Dropped);
    drop((writer, reader));
    let (_writer, mut reader, _) = open(dir.path(), &config, held()).unwrap();
    let (numbers, damaged) = read_all(&mut reader);
    assert_eq!((numbers.last(), damaged), (Some(&300), 0));
}

/// A label set's request may be sent in parts: a stop between them must not send the first ones again.
#[test]
fn how_much_of_a_record_is_done_is_known_to_the_next_run() {
    let mut rng = Rng::from_env();
    let dir = tempfile::tempdir().unwrap();
    let config = config(1024 * 1024);
    let (mut writer, mut reader, _) = open(dir.path(), &config, held()).unwrap();
    for number in 1..=3 {
        writer.append(&[record(number, 10, &mut rng)]).unwrap();
    }
    writer.commit().unwrap();
    let mut places = Vec::new();
    while let Read::Record(_, at) = reader.read_next().unwrap() {
        places.push(at);
    }
    reader.done_in_part(places[1], 200);
    reader.save().unwrap();
    reader.done(places[0]);
    reader.done_in_part(places[1], 300);
    reader.save().unwrap();
    drop((writer, reader));
    let (_writer, mut reader, notes) = open(dir.path(), &config, held()).unwrap();
    assert_eq!(notes, [] as [String; 0]);
    let mut done = Vec::new();
    while let Read::Record(record, at) = reader.read_next().unwrap() {
        done.push((record.label_set, reader.lines_done(at)));
    }
    assert_eq!(done, [(2, 300), (3, 0)]);
    // An older agent knows lines whose first word ends at a space, and skips the others.
    let text = fs::read_to_string(dir.path().join(CURSOR_FILE)).unwrap();
    let part = text.lines().find(|line| line.starts_with("part=")).unwrap();
    assert!(!part.contains(' '), "{part}");
}

/// A cursor of an older agent has one line; a damaged rest costs repeats only.
#[test]
fn cursors_of_older_agents_and_damaged_ones() {
    let mut rng = Rng::from_env();
    for damage in ["older", "torn", "flipped"] {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, mut reader, _) = open(dir.path(), &config(1 << 20), held()).unwrap();
        for number in 1..=6 {
            writer.append(&[record(number, 10, &mut rng)]).unwrap();
        }
        writer.commit().unwrap();
        let mut places = Vec::new();
        while let Read::Record(_, at) = reader.read_next().unwrap() {
            places.push(at);
        }
        for index in [0, 1, 3, 5] {
            reader.done(places[index]);
        }
        reader.save().unwrap();
        let path = dir.path().join(CURSOR_FILE);
        let text = fs::read_to_string(&path).unwrap().trim_end_matches('\0').to_owned();
        let hurt = match damage {
            "older" => text.lines().next().unwrap().to_owned() + "\n",
            "torn" => text[..text.len() - 5].to_owned(),
            _ => text.replace("open ", "0pen "),
        };
        drop((writer, reader));
        let (_writer, mut reader, _) = open(dir.path(), &config(1 << 20), held()).unwrap();
        assert_eq!(read_all(&mut reader).0, [3, 5], "what was open");
        drop(reader);
        fs::write(&path, hurt).unwrap();
        let (_writer, mut reader, _) = open(dir.path(), &config(1 << 20), held()).unwrap();
        assert_eq!(read_all(&mut reader).0, [3, 4, 5, 6], "{damage}: from the first that was open");
    }
}
