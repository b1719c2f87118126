//! Tests of the local_file sink: what people and full disks do to output files, and restarts.

#[path = "rotation_tests.rs"]
mod rotation;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use rustix::fs::Mode;

use super::super::testing::{Rng, batch, container, followed, messages};
use super::*;
use crate::model::cursor::FileId;
use crate::settings::FileTemplate;
use rotation::rotating;

const NAME: &str = "{container_name}.ndjson";

pub(super) fn sink(directory: &Path, template: &str) -> LocalFileSink {
    let (mut sink, restored) = restart(directory, template, &[]);
    assert!(restored.notes.is_empty());
    // Each write checks whether the name still leads to the file; no test waits for a second to pass.
    sink.check_interval = Duration::ZERO;
    sink
}

pub(super) fn restart(directory: &Path, template: &str, marks: &[&OutputMark]) -> (LocalFileSink, Restored) {
    let file = FileTemplate::parse(template).unwrap();
    restart_with(LocalFile { directory: directory.to_owned(), file, ..LocalFile::default() }, marks)
}

pub(super) fn restart_with(settings: LocalFile, marks: &[&OutputMark]) -> (LocalFileSink, Restored) {
    let marks = marks.iter().map(|mark| (mark.path.clone(), (*mark).clone())).collect();
    LocalFileSink::open(&settings, &marks, Claims::default()).unwrap()
}

/// Delivers messages of one source; gives the mark.
pub(super) fn write(sink: &mut LocalFileSink, source: &Arc<Source>, texts: &[&str]) -> OutputMark {
    let lines: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
    sink.deliver(&batch(source, &lines)).unwrap().mark.unwrap()
}

pub(super) fn lines(path: impl AsRef<Path>) -> Vec<String> {
    messages(&fs::read(path).unwrap())
}

#[test]
fn writes_beneath_the_directory_and_marks_what_it_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("made/captured");
    let mut sink = sink(&out, "{image}/{container_name}.ndjson");
    let web = container(1, "web");
    let mark = sink.attach(&web).unwrap().unwrap();
    assert_eq!(mark.len_bytes, 0);
    let mark = write(&mut sink, &web, &["one", "two"]);
    let file = out.join(&*mark.path);
    assert_eq!(lines(&file), ["one", "two"]);
    assert_eq!(fs::metadata(&file).unwrap().len(), mark.len_bytes);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o137, 0, "no more than 0640");
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o027, 0, "no more than 0750");
    sink.flush().unwrap();
}

/// Promise: no duplicates in local files, not even after a crash, and no line in them is lost.
#[test]
fn what_was_written_after_the_checkpoint_stays_and_is_not_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let web = container(1, "web");
    let mut first = sink(dir.path(), NAME);
    let saved = write(&mut first, &web, &["one", "two"]);
    let last = write(&mut first, &web, &["after the checkpoint", "once more"]);
    drop(first);
    let (mut second, restored) = restart(dir.path(), NAME, &[&saved]);
    assert!(restored.notes[0].contains("holds 2 records"), "{:?}", restored.notes);
    let mark = second.attach(&web).unwrap().unwrap();
    assert_eq!(mark, restored.marks["web.ndjson"]);
    assert_eq!((mark.len_bytes, mark.uncovered.len()), (last.len_bytes, 1));
    assert_eq!((mark.uncovered[0].from, mark.uncovered[0].to), (saved.len_bytes, last.len_bytes));
    // The source is read again from the checkpoint's position, in other batches than before.
    let mark = write(&mut second, &web, &["after the checkpoint"]);
    assert_eq!(mark.len_bytes, last.len_bytes);
    assert!(mark.uncovered[0].from > saved.len_bytes);
    let mark = write(&mut second, &web, &["once more", "new", "once more"]);
    assert!(mark.uncovered.is_empty());
    let expected = ["one", "two", "after the checkpoint", "once more", "new", "once more"];
    assert_eq!(lines(dir.path().join("web.ndjson")), expected);
}

#[test]
fn a_restart_says_what_is_shorter_gone_or_another_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = sink(dir.path(), NAME);
    let marks: Vec<_> = ["a", "b", "c", "d"]
        .iter()
        .zip(1..)
        .map(|(name, id)| write(&mut first, &container(id, name), &["x"; 4]))
        .collect();
    let file = |name: &str| dir.path().join(format!("{name}.ndjson"));
    fs::OpenOptions::new().write(true).open(file("a")).unwrap().set_len(300).unwrap();
    fs::remove_file(file("b")).unwrap();
    fs::write(
        file("new"),
        "{\"message\":\"of somebody else, and longer than the mark says it is: xxxxxxxxxxxxxx\"}\n".repeat(9),
    )
    .unwrap();
    fs::rename(file("new"), file("c")).unwrap();
    let before = fs::read(file("c")).unwrap();
    let mut hostile = marks[3].clone();
    hostile.path = "../d.ndjson".into();
    let (_, restored) = restart(dir.path(), NAME, &[&marks[0], &marks[1], &marks[2], &hostile]);
    let said = |words: &str| restored.notes.iter().filter(|note| note.contains(words)).count();
    assert_eq!(said("a.ndjson is 492 bytes shorter"), 1, "{:?}", restored.notes);
    assert_eq!(
        (said("c.ndjson is a different file"), said("d.ndjson can't be continued")),
        (1, 1),
        "{:?}",
        restored.notes
    );
    assert_eq!(said("b.ndjson can't be continued"), 1, "{:?}", restored.notes);
    assert_eq!(fs::read(file("c")).unwrap(), before);
}

/// Inode numbers are reused within seconds: the content of a file made since was all written after the mark.
#[test]
fn a_file_with_a_returned_inode_number_is_another_file() {
    let dir = tempfile::tempdir().unwrap();
    let web = container(1, "web");
    let mut first = sink(dir.path(), NAME);
    let saved = write(&mut first, &web, &["one"]);
    write(&mut first, &web, &["two"]);
    drop(first);
    let mut of_older = OutputMark { print: None, ..saved.clone() };
    of_older.file.birth_ns -= 1;
    let (_, restored) = restart(dir.path(), NAME, &[&of_older]);
    assert!(restored.notes[0].contains("holds 2 records"), "{:?}", restored.notes);
    // A mark without a birth time is believed, as the file system may have none.
    let mut without_birth = saved.clone();
    without_birth.file.birth_ns = 0;
    let (_, restored) = restart(dir.path(), NAME, &[&without_birth]);
    assert!(restored.notes[0].contains("holds 1 record "), "{:?}", restored.notes);
    // So is a file with other numbers that has the bytes of the mark, as a copy has.
    let mut copied = saved;
    copied.file = FileId { device: 1, inode: 2, birth_ns: 3 };
    let (_, restored) = restart(dir.path(), NAME, &[&copied]);
    assert!(restored.notes[0].contains("holds 1 record "), "{:?}", restored.notes);
}

#[test]
fn what_a_crash_tore_costs_only_itself() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("web.ndjson");
    fs::write(&file, "{\"message\":\"whole\"}\n{\"mess").unwrap();
    let mut sink = sink(dir.path(), NAME);
    write(&mut sink, &container(1, "web"), &["next"]);
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[1], "{\"mess");
    assert_eq!(messages(format!("{}\n", lines[2]).as_bytes()), ["next"]);
}

#[test]
fn moved_deleted_and_emptied_files_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("web.ndjson");
    let web = container(1, "web");
    let mut sink = sink(dir.path(), NAME);
    let first = write(&mut sink, &web, &["one"]);

    fs::rename(&file, dir.path().join("web.old")).unwrap();
    let second = write(&mut sink, &web, &["two"]);
    assert_ne!(first.file, second.file);
    assert_eq!(lines(dir.path().join("web.old")), ["one"]);
    assert_eq!(lines(&file), ["two"]);

    fs::remove_file(&file).unwrap();
    write(&mut sink, &web, &["three"]);
    assert_eq!(lines(&file), ["three"]);

    // `> web.ndjson` must not cause a hole of NULs.
    fs::write(&file, "").unwrap();
    let mark = write(&mut sink, &web, &["four"]);
    assert_eq!(lines(&file), ["four"]);
    assert_eq!(mark.len_bytes, fs::metadata(&file).unwrap().len());
}

#[test]
fn links_directories_and_pipes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let victim = dir.path().join("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("secret"), "precious").unwrap();
    let mut sink = sink(&out, "{container_name}/x");
    std::os::unix::fs::symlink(&victim, out.join("linked")).unwrap();
    fs::create_dir_all(out.join("file-link")).unwrap();
    std::os::unix::fs::symlink(victim.join("secret"), out.join("file-link/x")).unwrap();
    fs::create_dir_all(out.join("directory/x")).unwrap();
    fs::create_dir_all(out.join("pipe")).unwrap();
    let pipe = out.join("pipe/x");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
    for (id, name) in ["linked", "file-link", "directory", "pipe"].iter().enumerate() {
        let error = sink.attach(&container(id as u32, name)).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(victim.join("secret")).unwrap(), "precious");
}

#[test]
fn more_outputs_than_may_be_open() {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = Rng::from_env();
    let mut sink = sink(dir.path(), NAME);
    sink.open_max = 4;
    let sources: Vec<_> = (0..20).map(|id| container(id, &format!("c{id}"))).collect();
    let mut expected = vec![Vec::new(); sources.len()];
    for round in 0..400 {
        let index = rng.below(sources.len());
        let text = format!("{round}");
        write(&mut sink, &sources[index], &[&text]);
        expected[index].push(text);
        let open = sink.outputs.values().filter(|output| output.file.is_some()).count();
        assert!(open <= 4 && open == sink.open.len());
    }
    for (id, expected) in expected.iter().enumerate().filter(|(_, expected)| !expected.is_empty()) {
        assert_eq!(&lines(dir.path().join(format!("c{id}.ndjson"))), expected);
    }
    for source in &sources {
        sink.detach(source.id);
    }
    assert!(sink.outputs.is_empty() && sink.open.is_empty() && sink.streams.is_empty());
}

#[test]
fn streams_share_a_file_until_the_last_one_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = sink(dir.path(), "all.ndjson");
    let (a, b) = (container(1, "a"), followed(2, "/var/log/b.log"));
    sink.attach(&a).unwrap();
    sink.attach(&b).unwrap();
    sink.attach(&b).unwrap();
    write(&mut sink, &a, &["a1"]);
    let mark = write(&mut sink, &b, &["b1"]);
    assert_eq!(mark.len_bytes, fs::metadata(dir.path().join("all.ndjson")).unwrap().len());
    sink.detach(a.id);
    assert_eq!(sink.outputs.len(), 1);
    sink.detach(b.id);
    assert_eq!(sink.outputs.len(), 0);
    assert_eq!(lines(dir.path().join("all.ndjson")), ["a1", "b1"]);
}

#[test]
fn a_renamed_container_is_named_anew_and_changes_its_file_with_an_attach() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = sink(dir.path(), NAME);
    write(&mut sink, &container(1, "old"), &["1"]);
    write(&mut sink, &container(1, "new"), &["2"]);
    assert!(
        fs::read_to_string(dir.path().join("old.ndjson")).unwrap().contains("\"container_name\":\"new\"")
    );
    sink.attach(&container(1, "new")).unwrap();
    write(&mut sink, &container(1, "new"), &["3"]);
    assert_eq!(lines(dir.path().join("new.ndjson")), ["3"]);
    assert_eq!(sink.outputs.len(), 1);
}

/// A file system of a few pages, unmounted whatever happens.
struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    fn new(size: &str) -> SmallDisk {
        assert!(rustix::process::geteuid().is_root(), "needs root: mounts a tmpfs to fill");
        let disk = SmallDisk { dir: tempfile::tempdir().unwrap() };
        disk.mount(&format!("size={size}"));
        disk
    }

    fn mount(&self, options: &str) {
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "capturer-test"])
            .arg(self.dir.path())
            .status()
            .expect("mount can be run");
        assert!(status.success(), "mount -o {options}: {status}");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.dir.path()).status();
    }
}

/// Writes numbered batches until the disk is full; returns the texts written, and the batch that was not.
fn fill(sink: &mut LocalFileSink, source: &Arc<Source>) -> (Vec<String>, Batch, Vec<String>) {
    let mut taken = Vec::new();
    for number in 0..10_000 {
        let texts: Vec<String> = (0..40).map(|line| format!("{number}.{line} {}", "x".repeat(90))).collect();
        let slices: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
        let batch = batch(source, &slices);
        match sink.deliver(&batch) {
            Ok(_) => taken.extend(texts),
            Err(error) => {
                assert_eq!(error.source.kind(), io::ErrorKind::StorageFull, "{error}");
                assert!(error.to_string().contains(": free some room on the disk of "), "{error}");
                return (taken, batch, texts);
            }
        }
    }
    panic!("the disk never filled");
}

#[test]
fn a_full_disk_tears_nothing_repeats_nothing_loses_nothing() {
    let disk = SmallDisk::new("200k");
    let web = container(1, "web");
    let mut sink = sink(disk.dir.path(), NAME);
    let (mut expected, stuck, texts) = fill(&mut sink, &web);
    let file = disk.dir.path().join("web.ndjson");
    for _ in 0..3 {
        assert_eq!(lines(&file), expected, "what was written of a batch is taken back");
        sink.deliver(&stuck).unwrap_err();
    }
    disk.mount("remount,size=1m");
    let mark = sink.deliver(&stuck).unwrap().mark.unwrap();
    expected.extend(texts);
    assert_eq!(lines(&file), expected);
    assert_eq!(mark.len_bytes, fs::metadata(&file).unwrap().len());
}

#[test]
fn a_full_disk_is_mended_by_deleting_or_moving_the_output() {
    for deleted in [true, false] {
        let disk = SmallDisk::new("200k");
        let web = container(1, "web");
        let mut sink = sink(disk.dir.path(), NAME);
        let (expected, stuck, texts) = fill(&mut sink, &web);
        let (file, old) = (disk.dir.path().join("web.ndjson"), disk.dir.path().join("web.old"));
        if deleted {
            fs::remove_file(&file).unwrap();
        } else {
            fs::rename(&file, &old).unwrap();
            disk.mount("remount,size=1m");
        }
        sink.deliver(&stuck).unwrap();
        assert_eq!(lines(&file), texts, "the batch is whole in the new file");
        if !deleted {
            assert_eq!(lines(&old), expected, "and taken back from the old one");
        }
    }
}

#[test]
fn giving_up_on_a_full_disk_leaves_whole_lines() {
    let disk = SmallDisk::new("200k");
    let web = container(1, "web");
    let mut sink = sink(disk.dir.path(), NAME);
    let (expected, _, _) = fill(&mut sink, &web);
    sink.flush().unwrap();
    assert_eq!(lines(disk.dir.path().join("web.ndjson")), expected);
}

// ---- rotation

#[test]
fn other_formats_come_out_and_are_not_repeated_either() {
    let dir = tempfile::tempdir().unwrap();
    for (format, expected) in [
        (crate::settings::OutputFormat::Raw, "one\ntwo\nthree\n"),
        (
            crate::settings::OutputFormat::Docker,
            "{\"log\":\"one\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-22T00:52:48.162820305Z\"}\n\
             {\"log\":\"two\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-22T00:52:48.162820305Z\"}\n\
             {\"log\":\"three\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-22T00:52:48.162820305Z\"}\n",
        ),
    ] {
        let file = format!("{format:?}.log");
        let settings = LocalFile {
            file: FileTemplate::parse(&file).unwrap(),
            format,
            fsync: Fsync::Batch,
            ..rotating(dir.path())
        };
        let (mut sink, _) = restart_with(settings.clone(), &[]);
        let web = container(1, "web");
        let mark = write(&mut sink, &web, &["one"]);
        write(&mut sink, &web, &["two"]);
        drop(sink);
        let (mut sink, _) = restart_with(settings, &[&mark]);
        write(&mut sink, &web, &["two", "three"]);
        assert_eq!(fs::read_to_string(dir.path().join(file)).unwrap(), expected);
    }
}

/// The output of a file that turned out to be no text: there is no file for it until there is a record.
#[test]
fn an_empty_output_goes_and_comes_with_the_first_record() {
    let dir = tempfile::tempdir().unwrap();
    let names = || fs::read_dir(dir.path()).unwrap().count();
    let mut first = sink(dir.path(), NAME);
    let web = container(1, "web");
    let saved = first.attach(&web).unwrap().unwrap();
    first.withdraw(web.id);
    assert_eq!(names(), 0);
    // A position alone needs no file.
    write(&mut first, &web, &[]);
    assert_eq!(names(), 0);
    write(&mut first, &web, &["one", "two"]);
    assert_eq!(lines(dir.path().join("web.ndjson")), ["one", "two"]);
    first.withdraw(web.id);
    assert_eq!(lines(dir.path().join("web.ndjson")), ["one", "two"], "what has lines stays");
    drop(first);
    // After a crash the checkpoint knows the removed file. The content of the new one is not repeated.
    let (mut second, _) = restart(dir.path(), NAME, &[&saved]);
    second.attach(&web).unwrap();
    write(&mut second, &web, &["one", "two", "three"]);
    assert_eq!(lines(dir.path().join("web.ndjson")), ["one", "two", "three"]);
}

/// An output that two sources share is in use; and a restart says nothing about a removed one.
#[test]
fn an_output_that_others_use_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = sink(dir.path(), "all.ndjson");
    let (web, db) = (container(1, "web"), container(2, "db"));
    sink.attach(&web).unwrap();
    sink.attach(&db).unwrap();
    sink.withdraw(web.id);
    assert!(dir.path().join("all.ndjson").exists());
    let (mut sink, restored) = restart(dir.path(), NAME, &[]);
    let mark = sink.attach(&web).unwrap().unwrap();
    sink.withdraw(web.id);
    drop(sink);
    assert!(restored.notes.is_empty());
    let (_, restored) = restart(dir.path(), NAME, &[&mark]);
    assert_eq!(restored.notes, Vec::<String>::new(), "nothing was in it: nobody has to be told");
}
