//! Tests of what a crash leaves in outputs and how a start handles it: nothing in them is lost or repeated, whether the
//! sources still exist or not.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::super::testing::{Rng, batch, container, followed, in_local_time, messages};
use super::tests::{lines, restart, restart_with, sink, write};
use super::*;
use crate::model::cursor::{Cursor, FileCursor, FileId, FilePlace, HeadPrint, TailPrint};
use crate::model::record::Continued;
use crate::settings::{FileTemplate, OutputFormat};

const NAME: &str = "{container_name}.ndjson";
/// As [`batch`] sets it.
const READ_AT_NS: i64 = 1_000_000_000;

/// A batch of a followed file: its lines have no time of their own, `read_at_s` stands for it.
fn of_file(source: &Arc<Source>, texts: &[&str], born_ns: i64) -> Batch {
    let slices: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
    let mut batch = batch(source, &slices);
    batch.records.iter_mut().for_each(|record| record.time_len = 0);
    batch.read_time = "1970-01-01T00:00:01Z".to_owned();
    batch.end = Cursor::File(Arc::new(FileCursor::at(FilePlace {
        file: FileId { device: 1, inode: 2, birth_ns: born_ns },
        head: HeadPrint::default(),
        tail: TailPrint::default(),
        offset: 0,
        skip: [0, 0],
    })));
    batch
}

fn deliver(sink: &mut LocalFileSink, source: &Arc<Source>, texts: &[&str], born_ns: i64) -> OutputMark {
    sink.deliver(&of_file(source, texts, born_ns)).unwrap().mark.unwrap()
}

fn only_file(dir: &Path) -> Vec<String> {
    let mut names = fs::read_dir(dir).unwrap();
    let name = names.next().unwrap().unwrap().path();
    assert!(names.next().is_none());
    lines(name)
}

/// The source is gone, and something else has its path: its lines were never written, though they may look alike.
#[test]
fn a_new_file_under_the_path_of_one_that_is_gone_is_written_whole() {
    let dir = tempfile::tempdir().unwrap();
    let log = followed(1, "/var/log/app.log");
    let mut first = sink(dir.path(), NAME);
    let mark = deliver(&mut first, &log, &["started"], 5);
    deliver(&mut first, &log, &["ready", "stopped"], 5);
    drop(first);
    let (mut second, _) = restart(dir.path(), NAME, &[&mark]);
    deliver(&mut second, &log, &["ready", "stopped"], READ_AT_NS + 1);
    assert_eq!(only_file(dir.path()), ["started", "ready", "stopped", "ready", "stopped"]);
}

/// Many lines look alike: a line is only taken for one in the overhang where that one is expected.
#[test]
fn lines_without_a_time_are_passed_over_in_their_order_only() {
    for (again, expected) in [
        (vec!["b", "a", "c", "a"], vec!["a", "b", "a", "c", "a"]),
        // The source continues somewhere else, for its first lines are lost.
        (vec!["c", "a"], vec!["a", "b", "a", "c", "c", "a"]),
        (vec!["x", "b", "a", "c"], vec!["a", "b", "a", "c", "x", "b", "a", "c"]),
        // A pipeline may drop other lines than before.
        (vec!["b", "c", "d"], vec!["a", "b", "a", "c", "d"]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let log = followed(1, "/var/log/app.log");
        let mut first = sink(dir.path(), NAME);
        let mark = deliver(&mut first, &log, &["a"], 5);
        deliver(&mut first, &log, &["b", "a", "c"], 5);
        drop(first);
        let (mut second, _) = restart(dir.path(), NAME, &[&mark]);
        for text in again {
            deliver(&mut second, &log, &[text], 5);
        }
        assert_eq!(only_file(dir.path()), expected);
    }
}

/// The file that held the first of them was rotated away and removed while the agent was dead. Several equal lines in a
/// row show where the source continues; of several such places the last counts.
#[test]
fn lines_without_a_time_are_found_behind_those_that_are_gone() {
    for (delivered, again, expected) in [
        ("gone gone a b c d e", "a b c d e f", "gone gone a b c d e f"),
        // The output ends within them.
        ("gone a b c d", "a b c d e f", "gone a b c d e f"),
        // So few lines prove nothing.
        ("gone a b c", "a b c d", "gone a b c a b c d"),
        ("gone a b c d e", "a b c x e f", "gone a b c d e a b c x e f"),
        ("x a a a a a a", "a a a a a b", "x a a a a a a a b"),
        // The first was joined or split by the clock and differs: it is written, and the following ones are skipped.
        ("tra ce a b c d e", "trace a b c d e f", "tra ce a b c d e trace f"),
        ("trace a b c d e", "tra ce a b c d e f", "trace a b c d e tra ce f"),
        ("trace a b c", "tra ce a b c f", "trace a b c tra ce a b c f"),
        ("a b c d e", "x a a b a c a d a", "a b c d e x a a b a c a d a"),
    ] {
        let words = |text: &'static str| text.split(' ').collect::<Vec<_>>();
        let dir = tempfile::tempdir().unwrap();
        let log = followed(1, "/var/log/app.log");
        let mut first = sink(dir.path(), NAME);
        let mark = deliver(&mut first, &log, &["0"], 5);
        deliver(&mut first, &log, &words(delivered), 5);
        drop(first);
        let (mut second, _) = restart(dir.path(), NAME, &[&mark]);
        deliver(&mut second, &log, &words(again), 5);
        assert_eq!(only_file(dir.path())[1..], words(expected), "{delivered}, then {again}");
    }
}

/// A followed file whose directory was renamed before the agent came back.
fn renamed(id: u32, path: &str, before: &str) -> Arc<Source> {
    let source = Source::clone(&followed(id, path));
    let before = Continued { path: Some(before.into()), output: None };
    Arc::new(Source { continues: vec![before].into(), ..source })
}

/// Its records are in the output of its old path; those of a second crash also in that of its new one.
#[test]
fn a_followed_file_that_comes_back_under_another_path_brings_nothing_again() {
    for format in [OutputFormat::Ndjson, OutputFormat::Docker, OutputFormat::Raw, OutputFormat::Pretty] {
        for file in ["{path}.out", "all.out"] {
            let dir = tempfile::tempdir().unwrap();
            let settings = LocalFile {
                directory: dir.path().to_owned(),
                file: FileTemplate::parse(file).unwrap(),
                format,
                ..LocalFile::default()
            };
            let (old, new) = (followed(1, "/x/a.log"), renamed(2, "/y/a.log", "/x/a.log"));
            let other = followed(3, "/z/a.log");
            let (mut first, _) = restart_with(settings.clone(), &[]);
            let mut marks = vec![deliver(&mut first, &old, &["1"], 5)];
            marks.push(deliver(&mut first, &other, &["z"], 5));
            marks = if file == "all.out" { marks.split_off(1) } else { marks };
            deliver(&mut first, &old, &["2", "3"], 5);
            drop(first);
            let marks_of = |marks: &[OutputMark]| marks.to_vec();
            let (mut second, restored) =
                restart_with(settings.clone(), &marks_of(&marks).iter().collect::<Vec<_>>());
            let mut marks: Vec<OutputMark> = restored.marks.into_values().collect();
            // Its own, from before its first line.
            let own = second.attach(&new).unwrap().unwrap();
            marks.retain(|mark| mark.path != own.path);
            marks.push(own);
            deliver(&mut second, &new, &["2"], 5);
            deliver(&mut second, &new, &["3", "4"], 5);
            drop(second);
            let (mut third, _) = restart_with(settings.clone(), &marks.iter().collect::<Vec<_>>());
            // Once more: the second run was killed before it saved.
            deliver(&mut third, &new, &["2", "3"], 5);
            deliver(&mut third, &new, &["4", "5"], 5);
            deliver(&mut third, &followed(4, "/w/a.log"), &["2"], 5);
            // New lines that look like the earlier ones.
            deliver(&mut third, &new, &["2", "4"], 5);
            drop(third);
            let texts = all_texts(dir.path());
            for (text, times) in [("1", 1), ("2", 3), ("3", 1), ("4", 2), ("5", 1), ("z", 1)] {
                let count = texts.iter().filter(|got| *got == text).count();
                assert!(count == times, "{format:?} {file}: {text} is there {count} times: {texts:?}");
            }
        }
    }
}

/// Its records are in the output of its old name. Only `ndjson` has its ID in each record, and `pretty` its name.
#[test]
fn a_container_that_was_renamed_after_a_crash_brings_nothing_again() {
    for format in [OutputFormat::Ndjson, OutputFormat::Docker, OutputFormat::Raw] {
        let dir = tempfile::tempdir().unwrap();
        let settings = LocalFile {
            directory: dir.path().to_owned(),
            file: FileTemplate::parse("{container_name}.out").unwrap(),
            format,
            ..LocalFile::default()
        };
        let before = container(1, "before");
        let (mut first, _) = restart_with(settings.clone(), &[]);
        let mark = write(&mut first, &before, &["1"]);
        write(&mut first, &before, &["2", "3"]);
        drop(first);
        let mut meta = before.container.clone().unwrap();
        meta.name = "after".to_owned();
        let continued = Continued { path: None, output: Some(mark.path.clone()) };
        let after =
            Source { container: Some(meta), continues: vec![continued].into(), ..Source::clone(&before) };
        let after = Arc::new(after);
        let (mut second, restored) = restart_with(settings.clone(), &[&mark]);
        let new = second.attach(&after).unwrap().unwrap();
        write(&mut second, &after, &["2", "3", "4"]);
        let sorted = || {
            let mut texts = all_texts(dir.path());
            texts.sort();
            texts
        };
        assert_eq!(sorted(), ["1", "2", "3", "4"], "{format:?}");
        // Killed again before a checkpoint says so. The new name sorts before the old one, whose records are older.
        drop(second);
        let (mut third, _) = restart_with(settings, &[&new, &restored.marks[&mark.path]]);
        write(&mut third, &after, &["2", "3", "4", "5"]);
        assert_eq!(sorted(), ["1", "2", "3", "4", "5"], "{format:?}");
    }
}

/// Messages of all outputs, whatever the format.
fn all_texts(dir: &Path) -> Vec<String> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let text: String = paths.map(|path| fs::read_to_string(path).unwrap()).collect();
    let message = |line: &str| {
        for before in ["\"message\":\"", "\"log\":\""] {
            if let Some((_, rest)) = line.split_once(before) {
                return rest.split(['"', '\\']).next().unwrap().to_owned();
            }
        }
        line.rsplit(' ').next().unwrap().to_owned()
    };
    text.lines().map(message).collect()
}

/// Streams share an output; one source is gone, and the agent crashes again and again.
#[test]
fn many_crashes_with_shared_outputs_and_vanishing_sources_lose_and_repeat_nothing() {
    let mut rng = Rng::from_env();
    for format in [OutputFormat::Ndjson, OutputFormat::Docker, OutputFormat::Raw].iter().cycle().take(60) {
        let dir = tempfile::tempdir().unwrap();
        let settings = LocalFile {
            directory: dir.path().to_owned(),
            file: FileTemplate::parse("all").unwrap(),
            format: *format,
            max_size: if rng.below(2) == 0 { 0 } else { 2_000 },
            max_files: 0,
            ..LocalFile::default()
        };
        let (mut sink, _) = restart_with(settings.clone(), &[]);
        let sources = [container(1, "a"), container(2, "b"), followed(3, "/c.log")];
        let mut gone = [false; 3];
        // Per source: lines delivered in all, and where its position is; the latter as the checkpoint has it, too.
        let (mut most, mut next, mut saved) = ([0_usize; 3], [0_usize; 3], [0_usize; 3]);
        let mut mark = sink.attach(&sources[0]).unwrap().unwrap();
        let (mut newest, mut attached) = (mark.clone(), true);
        for _ in 0..60 {
            if !std::mem::replace(&mut attached, true) {
                newest = sink.attach(&sources[0]).unwrap().unwrap();
            }
            match rng.below(10) {
                0 => {
                    drop(sink);
                    gone[rng.below(3)] |= rng.below(3) == 0;
                    if rng.below(2) == 0 {
                        tear(&dir.path().join("all"), *format);
                    }
                    sink = restart_with(settings.clone(), &[&mark]).0;
                    (next, attached) = (saved, false);
                }
                1 | 2 => (mark, saved) = (newest.clone(), next),
                _ => {
                    let at = rng.below(3);
                    if gone[at] {
                        continue;
                    }
                    let texts: Vec<String> =
                        (next[at]..next[at] + rng.below(9)).map(|n| format!("{at}:{n}")).collect();
                    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                    newest = if at == 2 {
                        deliver(&mut sink, &sources[at], &texts, 5)
                    } else {
                        write(&mut sink, &sources[at], &texts)
                    };
                    next[at] += texts.len();
                    most[at] = most[at].max(next[at]);
                }
            }
        }
        drop(sink);
        let mut got = everything(dir.path(), *format);
        let mut expected: Vec<String> =
            (0..3).flat_map(|at| (0..most[at]).map(move |n| format!("{at}:{n}"))).collect();
        got.sort();
        expected.sort();
        assert_eq!(got, expected, "{format:?}");
    }
}

/// The beginning of a record, as a kill in the middle of a write leaves it.
fn tear(output: &Path, format: OutputFormat) {
    let torn: &[u8] = if format == OutputFormat::Raw { b"" } else { b"{\"time\":\"2026" };
    let mut file = fs::OpenOptions::new().append(true).open(output).unwrap();
    io::Write::write_all(&mut file, torn).unwrap();
}

fn everything(dir: &Path, format: OutputFormat) -> Vec<String> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let bytes: Vec<u8> = paths.flat_map(|path| fs::read(path).unwrap()).collect();
    match format {
        OutputFormat::Ndjson => messages(&bytes),
        _ => {
            let text = String::from_utf8(bytes).unwrap();
            let message = |line: &str| match line.strip_prefix("{\"log\":\"") {
                Some(rest) => rest.split("\\n").next().unwrap().to_owned(),
                None => line.to_owned(),
            };
            text.lines().map(message).collect()
        }
    }
}

/// What operators do to outputs while the agent does not run, after it was killed.
#[test]
fn outputs_changed_while_the_agent_was_down() {
    type Change = fn(&Path);
    let changes: [(&str, Change, &[&str]); 6] = [
        ("nothing", |_| {}, &["1", "2", "3", "4"]),
        ("moved", |file| fs::rename(file, file.with_extension("old")).unwrap(), &["4"]),
        ("emptied", |file| fs::write(file, "").unwrap(), &["2", "3", "4"]),
        ("removed", |file| fs::remove_file(file).unwrap(), &["2", "3", "4"]),
        (
            "copied and truncated",
            |file| {
                fs::copy(file, file.with_extension("1")).unwrap();
                fs::write(file, "").unwrap();
            },
            &["2", "3", "4"],
        ),
        (
            "replaced by a copy, as a restored backup is",
            |file| {
                fs::copy(file, file.with_extension("copy")).unwrap();
                fs::rename(file.with_extension("copy"), file).unwrap();
            },
            &["1", "2", "3", "4"],
        ),
    ];
    for (what, change, expected) in changes {
        let dir = tempfile::tempdir().unwrap();
        let web = container(1, "web");
        let mut first = sink(dir.path(), NAME);
        let mark = write(&mut first, &web, &["1"]);
        write(&mut first, &web, &["2", "3"]);
        drop(first);
        let file = dir.path().join("web.ndjson");
        change(&file);
        let (mut second, restored) = restart(dir.path(), NAME, &[&mark]);
        write(&mut second, &web, &["2", "3", "4"]);
        assert_eq!(lines(&file), expected, "{what}: {:?}", restored.notes);
    }
}

/// The output was emptied while the agent ran, which was killed before a checkpoint said so: its content was written
/// after the mark, though it may be longer by now.
#[test]
fn an_output_that_was_emptied_before_the_crash_is_not_cut_and_not_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let (web, file) = (container(1, "web"), dir.path().join("web.ndjson"));
    let mut first = sink(dir.path(), NAME);
    let mark = write(&mut first, &web, &["old 1", "old 2"]);
    fs::write(&file, "").unwrap();
    write(&mut first, &web, &["1", "2", "3", "4"]);
    drop(first);
    let (mut second, restored) = restart(dir.path(), NAME, &[&mark]);
    assert!(restored.notes[0].contains("was emptied"), "{:?}", restored.notes);
    write(&mut second, &web, &["1", "2", "3", "4", "5"]);
    assert_eq!(lines(&file), ["1", "2", "3", "4", "5"]);
}

/// Their source has another text for their time than the output.
#[test]
fn records_with_local_times_are_known_again() {
    let dir = tempfile::tempdir().unwrap();
    let web = container(1, "web");
    let mut first = sink(dir.path(), NAME);
    let mark = write(&mut first, &web, &["0"]);
    let mut local = batch(&web, &[b"1", b"2"]);
    in_local_time(&mut local);
    first.deliver(&local).unwrap();
    drop(first);
    let (mut second, _) = restart(dir.path(), NAME, &[&mark]);
    second.deliver(&local).unwrap();
    assert_eq!(lines(dir.path().join("web.ndjson")), ["0", "1", "2"]);
}

/// Otherwise each start would look through it again, for as long as the checkpoint lives.
#[test]
fn what_nobody_came_back_for_is_forgotten_after_a_day() {
    let dir = tempfile::tempdir().unwrap();
    let web = container(1, "web");
    let mut first = sink(dir.path(), NAME);
    let mark = write(&mut first, &web, &["1"]);
    write(&mut first, &web, &["2"]);
    drop(first);
    let (_, restored) = restart(dir.path(), NAME, &[&mark]);
    let mut mark = restored.marks["web.ndjson"].clone();
    assert_eq!(mark.uncovered.len(), 1);
    let (_, restored) = restart(dir.path(), NAME, &[&mark]);
    assert_eq!(restored.marks["web.ndjson"], mark);
    mark.uncovered[0].since_s -= 25 * 3600;
    let (_, restored) = restart(dir.path(), NAME, &[&mark]);
    assert!(restored.marks["web.ndjson"].uncovered.is_empty());
}

/// What a crash left of an output, as the next start finds it: a change of its directory, given the output's name.
type Leftover = (&'static str, fn(&Path, &Path));

/// The agent may be killed again before it attached a stream. The second start then only has the marks that the first
/// one gave the checkpoint, and must find the same records with them.
#[test]
fn a_second_crash_before_anything_was_attached_changes_nothing() {
    let older = |dir: &Path, live: &Path| {
        fs::rename(live, dir.join(generations::name("web.ndjson", &generations::stamp(1)))).unwrap();
    };
    let leftovers: [Leftover; 8] = [
        ("as it was", |_, _| {}),
        ("killed between the renaming and the new file", older),
        ("killed after the new file was made", |dir, live| {
            fs::rename(live, dir.join(generations::name("web.ndjson", &generations::stamp(1)))).unwrap();
            fs::write(live, "").unwrap();
        }),
        ("killed while the new file was written", |dir, live| {
            let (whole, text) =
                (dir.join(generations::name("web.ndjson", &generations::stamp(1))), fs::read(live));
            fs::rename(live, whole).unwrap();
            fs::write(live, &text.unwrap()[..20]).unwrap();
        }),
        ("torn at its end", |_, live| {
            let text = fs::read(live).unwrap();
            fs::write(live, [text.as_slice(), b"{\"time\":\"19"].concat()).unwrap();
        }),
        ("renamed by somebody", |dir, live| fs::rename(live, dir.join("moved")).unwrap()),
        ("renamed, and another begun", |dir, live| {
            fs::rename(live, dir.join("moved")).unwrap();
            fs::write(live, "").unwrap();
        }),
        ("a directory in its place", |dir, live| {
            fs::rename(live, dir.join("moved")).unwrap();
            fs::create_dir(live).unwrap();
        }),
    ];
    for (what, change) in leftovers {
        for starts in [1, 2, 3] {
            let dir = tempfile::tempdir().unwrap();
            let (web, live) = (container(1, "web"), dir.path().join("web.ndjson"));
            let mut first = sink(dir.path(), NAME);
            let mut mark = write(&mut first, &web, &["1"]);
            write(&mut first, &web, &["2", "3"]);
            drop(first);
            change(dir.path(), &live);
            for _ in 1..starts {
                let (_, restored) = restart(dir.path(), NAME, &[&mark]);
                mark = restored
                    .marks
                    .get("web.ndjson")
                    .cloned()
                    .unwrap_or_else(|| panic!("{what}: {restored:?}"));
            }
            if live.is_dir() {
                fs::remove_dir(&live).unwrap();
            }
            let (mut last, restored) = restart(dir.path(), NAME, &[&mark]);
            write(&mut last, &web, &["2", "3", "4"]);
            let files = fs::read_dir(dir.path()).unwrap();
            let mut all: Vec<String> = files.flat_map(|file| lines(file.unwrap().path())).collect();
            all.sort();
            assert_eq!(all, ["1", "2", "3", "4"], "{what}, {starts} starts: {:?}", restored.notes);
        }
    }
}

/// The lines of a crash are in an older file, and before anything was read again somebody replaced the output by
/// another file.
#[test]
fn a_file_of_somebody_else_does_not_hide_the_lines_of_an_older_crash() {
    let dir = tempfile::tempdir().unwrap();
    let (web, live) = (container(1, "web"), dir.path().join("web.ndjson"));
    let mut first = sink(dir.path(), NAME);
    let mark = write(&mut first, &web, &["1"]);
    write(&mut first, &web, &["2", "3"]);
    drop(first);
    let older = dir.path().join(generations::name("web.ndjson", &generations::stamp(1)));
    fs::rename(&live, &older).unwrap();
    fs::write(&live, "").unwrap();
    let restored = restart(dir.path(), NAME, &[&mark]).1;
    fs::write(dir.path().join("strange"), "no record\n").unwrap();
    fs::rename(dir.path().join("strange"), &live).unwrap();
    let restored = restart(dir.path(), NAME, &[&restored.marks["web.ndjson"]]).1;
    let (mut last, restored) = restart(dir.path(), NAME, &[&restored.marks["web.ndjson"]]);
    write(&mut last, &web, &["2", "3", "4"]);
    assert_eq!(lines(&older), ["1", "2", "3"], "{:?}", restored.notes);
    let text = fs::read_to_string(&live).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.starts_with("no record\n") && text.contains("\"message\":\"4\""), "{text}");
}
