//! Older files of an output: when it is rotated, which files are kept, and crashes around a rotation.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::super::super::testing::{Rng, container, messages};
use super::super::*;
use super::{lines, restart_with, write};

pub(super) fn rotating(directory: &Path) -> LocalFile {
    LocalFile { directory: directory.to_owned(), max_size: 1000, max_files: 0, ..LocalFile::default() }
}

/// Returns whether the sink waits for one more.
fn saved(sink: &mut LocalFileSink, mark: &OutputMark) -> bool {
    let marks = BTreeMap::from([(mark.path.clone(), mark.clone())]);
    let outputs = BTreeMap::from([("local_file".to_owned(), marks)]);
    sink.saved(&SavedMarks { outputs, gone: None })
}

/// Everything that was ever written and not deleted, compressed or not, oldest first.
pub(super) fn everything(directory: &Path) -> Vec<String> {
    let root = rustix::fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let older = generations::list(&root, "web.ndjson").unwrap();
    let mut all = Vec::new();
    for name in older.iter().map(|older| older.name.as_str()).chain(["web.ndjson"]) {
        let Ok(bytes) = fs::read(directory.join(name)) else { continue };
        let bytes = if name.ends_with(".zst") { zstd::decode_all(&bytes[..]).unwrap() } else { bytes };
        all.extend(messages(&bytes));
    }
    all
}

#[test]
fn a_full_file_is_rotated_and_compressed_once_two_checkpoints_name_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let (mut sink, _) = restart_with(rotating(dir.path()), &[]);
    let web = container(1, "web");
    let texts: Vec<String> = (0..40).map(|number| format!("{number} {}", "x".repeat(90))).collect();
    let mut mark = sink.attach(&web).unwrap().unwrap();
    for text in &texts {
        mark = write(&mut sink, &web, &[text]);
    }
    let names = |ending: &str| {
        let entries = fs::read_dir(dir.path()).unwrap();
        entries
            .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().ends_with(ending))
            .count()
    };
    let rotated = names("Z.ndjson");
    assert!(rotated >= 5, "{rotated}");
    assert!(saved(&mut sink, &mark), "nothing else would have another saved where the disk is full");
    assert_eq!(names(".zst"), 0, "the checkpoint before may still be loaded");
    assert!(!saved(&mut sink, &mark));
    sink.archive.take().unwrap().finish();
    assert_eq!((names("Z.ndjson"), names(".zst")), (0, rotated));
    assert_eq!(everything(dir.path()), texts);
}

/// With many streams a checkpoint only says what changed: for an output that it does not mention, the earlier one
/// counts.
#[test]
fn older_files_wait_while_nothing_is_said_of_their_output() {
    let dir = tempfile::tempdir().unwrap();
    let (mut sink, _) = restart_with(rotating(dir.path()), &[]);
    let web = container(1, "web");
    sink.attach(&web).unwrap();
    let mut mark = None;
    (0..40)
        .for_each(|number| mark = Some(write(&mut sink, &web, &[&format!("{number} {}", "x".repeat(90))])));
    let mark = mark.unwrap();
    let waiting = |sink: &LocalFileSink| sink.pending.values().map(|older| older.files.len()).sum::<usize>();
    let rotated = waiting(&sink);
    let unchanged = SavedMarks { gone: Some(BTreeMap::new()), ..SavedMarks::default() };
    for _ in 0..5 {
        sink.saved(&unchanged);
    }
    assert_eq!(waiting(&sink), rotated, "the checkpoint may still name the oldest");
    for _ in 0..2 {
        saved(&mut sink, &mark);
    }
    assert_eq!(waiting(&sink), 0);
}

#[test]
fn only_so_many_files_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (mut sink, _) = restart_with(LocalFile { max_files: 3, ..rotating(dir.path()) }, &[]);
    let web = container(1, "web");
    for round in 0..60 {
        let mark = write(&mut sink, &web, &[&format!("{round} {}", "x".repeat(200))]);
        saved(&mut sink, &mark);
    }
    sink.archive.take().unwrap().finish();
    // Two of the newest may still be waiting for their checkpoints.
    let count = fs::read_dir(dir.path()).unwrap().count();
    assert!((3..=5).contains(&count), "{count} files");
    let kept = everything(dir.path());
    assert!(kept.last().unwrap().starts_with("59 ") && kept.len() < 30, "{}", kept.len());
}

/// One file a day, which the operator finds by the time at which it ended.
#[test]
fn a_file_is_rotated_by_the_first_record_after_midnight() {
    const BEFORE_MS: u64 = 1_795_651_199_990; // 2026-11-25T23:59:59.990Z
    const AFTER_MS: u64 = BEFORE_MS + 4_130;
    let dir = tempfile::tempdir().unwrap();
    let day = Duration::from_secs(24 * 3600);
    let settings = LocalFile { max_size: 0, rotate_every: day, ..rotating(dir.path()) };
    let (mut sink, _) = restart_with(settings, &[]);
    let web = container(1, "web");
    // The file system says when a file was made, and does not know the clock used here.
    let begun_at = |sink: &mut LocalFileSink, unix_ms: u64| {
        sink.outputs.values_mut().for_each(|output| output.born_s = unix_ms / 1000);
    };
    sink.unix_ms = || BEFORE_MS;
    write(&mut sink, &web, &["one"]);
    begun_at(&mut sink, BEFORE_MS - 3_600_000);
    write(&mut sink, &web, &["two"]);
    sink.unix_ms = || AFTER_MS;
    write(&mut sink, &web, &["three"]);
    begun_at(&mut sink, AFTER_MS);
    write(&mut sink, &web, &["four"]);
    assert_eq!(lines(dir.path().join("web~20261126T000004.120Z.ndjson")), ["one", "two"]);
    assert_eq!(lines(dir.path().join("web.ndjson")), ["three", "four"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

/// The file has its new name, and the next one does not exist yet.
fn killed_within_a_rotation(dir: &Path) {
    let fd: OwnedFd = fs::File::open(dir).unwrap().into();
    let newest = generations::list(&fd, "web.ndjson").unwrap().pop();
    let stamp = generations::stamp_after(&newest.map(|newest| newest.stamp).unwrap_or_default(), 0);
    fs::rename(dir.join("web.ndjson"), dir.join(generations::name("web.ndjson", &stamp))).unwrap();
}

/// Promise: not even a crash repeats or loses a line in local files, wherever between two checkpoints it falls and
/// whichever of the two is loaded.
#[test]
fn crashes_around_rotations_repeat_nothing() {
    let mut rng = Rng::from_env();
    for _ in 0..30 {
        let dir = tempfile::tempdir().unwrap();
        let web = container(1, "web");
        let (mut sink, _) = restart_with(rotating(dir.path()), &[]);
        let mark = sink.attach(&web).unwrap().unwrap();
        // Each checkpoint: lines delivered, and the mark with them.
        let (mut last, mut previous) = ((0, mark.clone()), (0, mark));
        let (mut next, mut written) = (0_usize, 0);
        for _ in 0..40 {
            match rng.below(8) {
                0 => {
                    drop(sink);
                    if rng.below(3) == 0 {
                        killed_within_a_rotation(dir.path());
                    }
                    let mut loaded = if rng.below(4) == 0 { previous.clone() } else { last.clone() };
                    let (mut again, mut restored) = restart_with(rotating(dir.path()), &[&loaded.1]);
                    while rng.below(3) == 0 {
                        // It is killed again before it attached this stream; another stream had a checkpoint saved.
                        loaded.1 = restored.marks["web.ndjson"].clone();
                        (again, restored) = restart_with(rotating(dir.path()), &[&loaded.1]);
                    }
                    assert!(restored.marks.contains_key("web.ndjson"), "{:?}", restored.notes);
                    next = loaded.0;
                    previous = loaded.clone();
                    last = loaded;
                    sink = again;
                    sink.attach(&web).unwrap();
                }
                1 | 2 => {
                    let mark = sink.mark(&Arc::from("web.ndjson")).unwrap();
                    previous = std::mem::replace(&mut last, (next, mark));
                    saved(&mut sink, &last.1);
                }
                _ => {
                    let text = |number: usize| format!("{number} {}", "x".repeat(number * 37 % 200));
                    let texts: Vec<String> = (next..next + rng.below(8)).map(text).collect();
                    let slices: Vec<&str> = texts.iter().map(String::as_str).collect();
                    write(&mut sink, &web, &slices);
                    next += texts.len();
                    written = written.max(next);
                }
            }
        }
        sink.flush().unwrap();
        let got: Vec<usize> = everything(dir.path())
            .iter()
            .map(|text| text.split(' ').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(got, (0..written).collect::<Vec<_>>());
    }
}
