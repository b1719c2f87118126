//! The spool on a full disk, and after somebody removed it.

use std::fs;
use std::path::Path;

use super::super::super::testing::Rng;
use super::super::*;
use super::{config, held, read_all, record};
use crate::settings::Spool;

fn names(dir: &Path, end: &str) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.retain(|name| name.ends_with(end));
    names.sort();
    names
}

/// Forty records in several segments, committed.
fn filled(dir: &Path, config: &Spool) -> (Writer, Reader) {
    let mut rng = Rng::from_env();
    let Opened { mut writer, reader, .. } = open(dir, config, held()).unwrap();
    for number in 1..=40 {
        writer.append(&[record(number, 10_000, &mut rng)]).unwrap();
    }
    writer.commit().unwrap();
    (writer, reader)
}

/// The records left to read, and what else is reported.
fn read_on(reader: &mut Reader) -> (Vec<u64>, Vec<Read>) {
    let (mut numbers, mut told) = (Vec::new(), Vec::new());
    loop {
        match reader.read_next().unwrap() {
            Read::Record(record, at) => {
                numbers.push(record.label_set);
                reader.done(at);
            }
            Read::Nothing => return (numbers, told),
            other => told.push(other),
        }
    }
}

/// On a full disk the cursor could not be written, so no segment was removed, so the disk stayed full for ever.
#[test]
fn what_is_delivered_makes_room_where_the_cursor_can_not_be_saved() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(1024 * 1024);
    let (writer, mut reader) = filled(dir.path(), &config);
    assert_eq!(read_all(&mut reader).0.len(), 40);
    let in_the_way = dir.path().join("cursor.new");
    fs::remove_file(&in_the_way).unwrap();
    fs::create_dir(&in_the_way).unwrap();
    reader.forget().unwrap_err();
    assert_eq!(names(dir.path(), ".seg").len(), 1, "the one that is being written");
    let done = names(dir.path(), ".done");
    assert!(done.len() > 2, "{done:?}");
    for name in &done {
        assert_eq!(fs::metadata(dir.path().join(name)).unwrap().len(), 0, "{name}");
    }
    // After a kill the dropped segments are neither missing nor there again.
    drop((writer, reader));
    fs::remove_dir(&in_the_way).unwrap();
    let Opened { mut writer, mut reader, .. } = open(dir.path(), &config, held()).unwrap();
    let (numbers, damaged) = read_all(&mut reader);
    assert!(damaged == 0 && numbers.iter().all(|number| *number > 30), "{numbers:?}");
    reader.forget().unwrap();
    assert_eq!(names(dir.path(), ".done"), [] as [String; 0]);
    writer.append(&[record(41, 10, &mut Rng::from_env())]).unwrap();
    writer.commit().unwrap();
    assert_eq!(read_all(&mut reader), (vec![41], 0));
}

/// A save of the cursor needs no new space: otherwise it fails on a full disk, and lines are repeated after a kill.
#[test]
fn the_cursor_is_written_into_room_that_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, mut reader) = filled(dir.path(), &config(1024 * 1024));
    read_all(&mut reader);
    reader.forget().unwrap();
    let inodes = || {
        let inode =
            |name: &str| std::os::unix::fs::MetadataExt::ino(&fs::metadata(dir.path().join(name)).unwrap());
        [inode("cursor"), inode("cursor.new")]
    };
    let [current, new] = inodes();
    writer.append(&[record(41, 10, &mut Rng::from_env())]).unwrap();
    writer.commit().unwrap();
    read_all(&mut reader);
    reader.forget().unwrap();
    assert_eq!(inodes(), [new, current], "they change names");
    for name in ["cursor", "cursor.new"] {
        assert!(fs::metadata(dir.path().join(name)).unwrap().len() >= 16 * 1024, "{name}");
    }
}

/// The segment that is being written may be the only one that the disk has room for.
#[test]
fn the_segment_being_written_ends_if_the_disk_is_full_and_it_is_delivered() {
    let mut rng = Rng::from_env();
    let dir = tempfile::tempdir().unwrap();
    let config = config(1024 * 1024);
    let Opened { mut writer, mut reader, .. } = open(dir.path(), &config, held()).unwrap();
    for number in 1..=3 {
        writer.append(&[record(number, 1_000, &mut rng)]).unwrap();
    }
    writer.commit().unwrap();
    writer.make_way().unwrap();
    reader.forget().unwrap();
    assert_eq!(names(dir.path(), ".seg"), ["0000000001.seg"], "nothing of it is delivered");
    assert_eq!(read_all(&mut reader).0, [1, 2, 3]);
    writer.make_way().unwrap();
    assert_eq!(reader.read_next().unwrap(), Read::Nothing);
    reader.forget().unwrap();
    assert_eq!(names(dir.path(), ".seg"), [] as [String; 0]);
    writer.append(&[record(4, 1_000, &mut rng)]).unwrap();
    writer.commit().unwrap();
    assert_eq!(read_all(&mut reader), (vec![4], 0));
}

/// A kill in the middle of a write is no loss: the write was not acknowledged. A segment that has become shorter is one.
#[test]
fn an_unfinished_write_is_told_from_damage() {
    for known in [false, true] {
        let mut rng = Rng::from_env();
        let dir = tempfile::tempdir().unwrap();
        let config = Spool { fsync: true, ..config(1024 * 1024) };
        let Opened { mut writer, mut reader, .. } = open(dir.path(), &config, held()).unwrap();
        for number in 1..=3 {
            writer.append(&[record(number, 1_000, &mut rng)]).unwrap();
        }
        writer.commit().unwrap();
        if known {
            let Read::Record(..) = reader.read_next().unwrap() else { panic!("no record") };
            reader.save().unwrap();
        }
        drop((writer, reader));
        let path = dir.path().join("0000000001.seg");
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(file.metadata().unwrap().len() - 10).unwrap();
        let Opened { mut reader, .. } = open(dir.path(), &config, held()).unwrap();
        let (numbers, told) = read_on(&mut reader);
        assert_eq!(numbers, [1, 2]);
        let unfinished =
            told.iter().any(|told| matches!(told, Read::Unfinished { bytes, .. } if *bytes > 900));
        let damaged = told.iter().any(|told| matches!(told, Read::Damaged { .. }));
        assert_eq!((unfinished, damaged), (!known, known), "{told:?}");
    }
}

/// Otherwise lines go to files without a name, and are gone with the process.
#[test]
fn a_spool_that_is_removed_is_put_back_as_far_as_it_is_open() {
    for writer_sees_it in [true, false] {
        let mut rng = Rng::from_env();
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("data/spool");
        let config = config(1024 * 1024);
        let Opened { mut writer, mut reader, is_new, .. } = open(&dir, &config, held()).unwrap();
        assert!(is_new);
        for number in 1..=3 {
            writer.append(&[record(number, 1_000, &mut rng)]).unwrap();
        }
        writer.commit().unwrap();
        assert_eq!(reader.look().unwrap(), None);
        fs::remove_dir_all(home.path().join("data")).unwrap();
        let mut expected = vec![1, 2, 3];
        if writer_sees_it {
            writer.append(&[record(4, 1_000, &mut rng)]).unwrap();
            writer.commit().unwrap();
            expected.push(4);
            assert_eq!(names(&dir, ".seg").len(), 1, "before anything is acknowledged");
        }
        assert_eq!(reader.look().unwrap(), Some(Found { put_back: 1, ..Found::default() }));
        reader.forget().unwrap();
        assert_eq!(reader.look().unwrap(), None);
        // It continues in the file that has the name.
        writer.append(&[record(5, 1_000, &mut rng)]).unwrap();
        writer.commit().unwrap();
        expected.push(5);
        drop((writer, reader));
        let Opened { mut reader, is_new, .. } = open(&dir, &config, held()).unwrap();
        assert!(!is_new);
        assert_eq!(read_all(&mut reader), (expected, 0));
    }
}

/// What is no longer open is lost, which is reported once, with its bytes.
#[test]
fn what_can_not_be_put_back_is_lost_and_said_once() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("spool");
    let (writer, mut reader) = filled(&dir, &config(1024 * 1024));
    let Read::Record(_, first) = reader.read_next().unwrap() else { panic!("no record") };
    fs::remove_dir_all(&dir).unwrap();
    let Found { put_back, lost, lost_bytes } = reader.look().unwrap().unwrap();
    // The first is being read, the last is being written.
    assert_eq!((put_back, names(&dir, ".seg").len()), (2, 2));
    assert!(lost > 2 && lost_bytes > 10_000 * lost as u64, "{lost} {lost_bytes}");
    let (numbers, told) = read_on(&mut reader);
    assert_eq!(told, [], "it is told already");
    assert!(numbers.first() == Some(&2) && numbers.last() == Some(&40), "{numbers:?}");
    let gone = 40 - 1 - numbers.len() as u64;
    assert!((10_000 * gone..10_200 * gone).contains(&lost_bytes), "{lost_bytes} bytes of {gone} records");
    assert!(matches!(reader.load(first).unwrap(), Loaded::Record(_)));
    drop(writer);
}

/// Otherwise half of a group would be delivered, not acknowledged, and come again from its source.
#[test]
fn what_does_not_fit_whole_is_not_put_in_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(100_000);
    let Opened { mut writer, mut reader, .. } = open(dir.path(), &config, held()).unwrap();
    let mut rng = Rng::from_env();
    let mut some = |numbers: std::ops::RangeInclusive<u64>| -> Vec<format::Record> {
        numbers.map(|number| record(number, 10_000, &mut rng)).collect()
    };
    let (first, second) = (some(1..=5), some(6..=12));
    writer.append(&first).unwrap();
    writer.commit().unwrap();
    assert!(matches!(writer.append(&second), Err(AppendError::Full)));
    writer.commit().unwrap();
    assert_eq!(read_all(&mut reader).0, [1, 2, 3, 4, 5], "nothing of what did not fit");
    // Delivered records make room, also those in the segment being written.
    assert!(matches!(writer.append(&second), Err(AppendError::Full)));
    reader.forget().unwrap();
    writer.append(&second).unwrap();
    writer.commit().unwrap();
    assert_eq!(read_all(&mut reader).0, (6..=12).collect::<Vec<_>>());
}

/// Somebody else's file is not replaced: it may be a second agent's.
#[test]
fn a_file_of_somebody_else_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _reader) = filled(dir.path(), &config(1024 * 1024));
    let last = dir.path().join(names(dir.path(), ".seg").pop().unwrap());
    fs::remove_file(&last).unwrap();
    fs::write(&last, "of somebody else").unwrap();
    let error = writer.commit().unwrap_err().to_string();
    assert!(error.contains("does a second agent use data_dir?"), "{error}");
    assert_eq!(fs::read(&last).unwrap(), b"of somebody else");
}
