//! When patterns are looked at.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tracing_subscriber::layer::{Layer, SubscriberExt as _};

use super::*;
use crate::capture::checkpoint::tests::file_cursor;
use crate::capture::checkpoint::{Checkpoint, SinkCursor, StreamEntry};
use crate::capture::core::outlets::SinkFacts;
use crate::capture::io::Event;
use crate::model::cursor::Cursor;
use crate::model::record::Source;
use crate::settings::pipeline::Match;
use crate::settings::{FileMonitor, FileSet, PathPattern, Pipeline, Settings};
use crate::telemetry::metrics::Metrics;

struct Scene {
    capture: Capture,
    now: Now,
}

impl Scene {
    fn new() -> Scene {
        Scene::from(Checkpoint::default())
    }

    fn from(loaded: Checkpoint) -> Scene {
        let mut settings = Settings {
            file_monitor: FileMonitor { files: vec![FileSet::default()], ..FileMonitor::default() },
            ..Settings::default()
        };
        settings.container_monitor.enabled = false;
        let metrics = Arc::new(Metrics::new(1).unwrap());
        let sinks = vec![SinkFacts { name: "local_file".to_owned(), own_pace: false }];
        let capture = Capture::new(Arc::new(settings), metrics, sinks, loaded, 1);
        Scene { capture, now: Now { mono_ms: 1_000_000, unix_ns: 1_000_000_000_000 } }
    }

    /// How many looks follow this event.
    fn on(&mut self, event: Event) -> usize {
        self.capture.on_event(self.now, event);
        let is_look = |action: &Action| matches!(action, Action::FindPaths { set: 0 });
        self.capture.drain_actions().filter(is_look).count()
    }

    fn changed(&mut self) -> usize {
        self.on(Event::PathsChanged { set: 0 })
    }

    fn found(&mut self) -> usize {
        self.on(Event::PathsFound { set: 0, lane: None, lanes: Vec::new(), paths: Vec::new() })
    }

    fn after(&mut self, ms: u64) -> usize {
        self.now.mono_ms += ms;
        self.on(Event::Tick)
    }
}

/// Counts the warnings in the log of an agent that is left alone.
#[derive(Clone, Default)]
struct Warnings(Arc<AtomicUsize>);

impl<S: tracing::Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        if *event.metadata().level() <= tracing::Level::INFO {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Without inotify a look at everything comes every two seconds, which must not be logged each time.
#[test]
fn what_is_done_from_time_to_time_is_no_news() {
    let mut scene = Scene::new();
    scene.on(Event::Started);
    scene.found();
    let said = Warnings::default();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(said.clone()), || {
        let mut looks = 0;
        for _ in 0..100 {
            looks += scene.on(Event::LookAtAll) + scene.after(2_000);
            looks += scene.found();
        }
        assert!(looks > 50, "{looks}");
    });
    assert_eq!(said.0.load(Ordering::Relaxed), 0);
}

/// A file made after a look had passed it was not seen before the next sweep.
#[test]
fn what_changes_during_a_look_is_looked_at_behind_it() {
    let mut scene = Scene::new();
    assert_eq!(scene.on(Event::Started), 1);
    assert_eq!([scene.changed(), scene.changed()], [0, 0]);
    assert_eq!([scene.found(), scene.found()], [1, 0]);
}

/// However much is made in a large tree, the walks leave time for other work.
#[test]
fn a_look_that_took_long_is_rested_from() {
    let mut scene = Scene::new();
    scene.on(Event::Started);
    assert_eq!((scene.after(500), scene.found()), (0, 0));
    assert_eq!([scene.changed(), scene.changed()], [0, 0]);
    assert_eq!([scene.after(1_999), scene.after(1)], [0, 1]);
    assert_eq!((scene.after(60_000), scene.found()), (0, 0));
    assert_eq!(scene.changed(), 0);
    assert_eq!([scene.after(9_999), scene.after(1)], [0, 1]);
}

#[test]
fn a_sweep_looks_without_being_told() {
    let mut scene = Scene::new();
    scene.on(Event::Started);
    scene.found();
    assert_eq!([scene.after(29_999), scene.after(1)], [0, 1]);
    scene.found();
    assert_eq!([scene.changed(), scene.found()], [1, 0]);
    assert_eq!([scene.after(29_999), scene.after(1)], [0, 1]);
}

/// A pipeline that never took a file is reported; one that took a file earlier is not.
#[test]
fn a_pipeline_is_used_once_it_took_a_source() {
    let mut scene = Scene::new();
    let mut settings = (*scene.capture.settings).clone();
    let of = |name: &str, path: &str| {
        let paths = vec![PathPattern::new(path).unwrap()];
        let matches = Match { paths, ..Match::default() };
        Arc::new(Pipeline { name: name.to_owned(), matches, ..Pipeline::default() })
    };
    settings.pipelines = vec![of("typo", "/k/*"), of("pay", "/l/*")];
    scene.capture.settings = Arc::new(settings);
    scene.on(Event::Started);
    let path = Arc::from("/l/pay.log");
    let found = FoundPath { path, id: id(2), target: None, len: 0, modified_ns: 0 };
    scene.on(Event::PathsFound { set: 0, lane: None, lanes: Vec::new(), paths: vec![found] });
    assert_eq!(["typo", "pay"].map(|name| scene.capture.is_used(name)), [false, true]);
}

fn id(inode: u64) -> FileId {
    FileId { device: 1, inode, birth_ns: inode as i64 }
}

/// A log that an earlier run left in this file.
fn left_in(inode: u64) -> Checkpoint {
    let mut cursor = file_cursor(0);
    if let Cursor::File(cursor) = &mut cursor {
        Arc::make_mut(cursor).file = id(inode);
    }
    let sink = SinkCursor { rank: 0, cursor, output: None, looked_s: None };
    let entry = StreamEntry { sinks: [("local_file".into(), sink)].into_iter().collect() };
    Checkpoint { streams: BTreeMap::from([(StreamKey::file("/l/a.log"), entry)]), ..Checkpoint::default() }
}

/// It was renamed to a name that is followed, too, without a new file, and the agent was killed: its output has lines
/// that no checkpoint knows, and they came again in the output of the new name.
#[test]
fn a_log_that_is_not_there_goes_on_in_the_file_it_was_left_in() {
    let own = |left: u64, matches: bool, is_first: bool| {
        let mut scene = Scene::from(left_in(left));
        let mut settings = (*scene.capture.settings).clone();
        let pattern = if matches { "/l/*.log*" } else { "/m/*" };
        settings.file_monitor.files[0].paths = vec![PathPattern::new(pattern).unwrap()];
        scene.capture.settings = Arc::new(settings);
        let path: Arc<str> = "/l/a.log.bak".into();
        let ids = BTreeMap::from([(path.clone(), id(2))]);
        let paths = BTreeSet::from([path]);
        scene.capture.without_others(scene.now, paths, &ids, &BTreeMap::new(), is_first).len()
    };
    assert_eq!(own(2, true, true), 0);
    assert_eq!(own(3, true, true), 1, "another file");
    assert_eq!(own(2, false, true), 1, "nobody follows that log");
    assert_eq!(own(2, true, false), 1, "it was followed, and is gone for good");
}

/// Its directory was renamed before the agent was back from a crash: the output of the old path has lines that no
/// checkpoint knows, and they came again in the new path's output.
#[test]
fn a_file_that_is_found_under_another_path_continues_the_log_that_was_left_in_it() {
    let continued = |left: Checkpoint, paths: &[(&str, u64)]| {
        let mut scene = Scene::from(left);
        scene.on(Event::Started);
        let found = |(path, inode): &(&str, u64)| FoundPath {
            path: (*path).into(),
            id: id(*inode),
            target: None,
            len: 0,
            modified_ns: 0,
        };
        let paths = paths.iter().map(found).collect();
        scene.on(Event::PathsFound { set: 0, lane: None, lanes: Vec::new(), paths });
        let sources = scene.capture.streams.values().map(|stream| &stream.source);
        let of = |source: &Arc<Source>| -> Vec<String> {
            let before = source.continues.iter().filter_map(|before| before.path.as_deref());
            before.map(|before| format!("{before} {}", source.key.0)).collect()
        };
        sources.flat_map(of).collect::<Vec<_>>()
    };
    assert_eq!(continued(left_in(2), &[("/m/a.log", 2)]), ["/l/a.log file:/m/a.log"]);
    assert!(continued(left_in(2), &[("/m/a.log", 3)]).is_empty(), "another file");
    assert!(continued(left_in(2), &[("/l/a.log", 2)]).is_empty(), "it is where it was");
    // The previous run began with it under its new path, and was killed before it read on.
    let with_new = |offset: u64| {
        let mut left = left_in(2);
        let mut entry = left.streams[&StreamKey::file("/l/a.log")].clone();
        for sink in entry.sinks.values_mut() {
            if let Cursor::File(cursor) = &mut sink.cursor {
                Arc::make_mut(cursor).offset = offset;
            }
        }
        left.streams.insert(StreamKey::file("/m/a.log"), entry);
        left
    };
    assert_eq!(continued(with_new(0), &[("/m/a.log", 2)]), ["/l/a.log file:/m/a.log"]);
    assert!(continued(with_new(50), &[("/m/a.log", 2)]).is_empty(), "it is further on by itself");
}

/// After a crash before the last rotation was saved.
#[test]
fn what_was_rotated_from_a_log_unseen_is_read_with_it() {
    let followed = |left: u64, files: &[(&str, u64)]| {
        let mut scene = Scene::from(left_in(left));
        let ids = files.iter().map(|(name, inode)| (format!("/l/{name}").into(), id(*inode))).collect();
        let paths = files.iter().map(|(name, _)| format!("/l/{name}").into()).collect();
        let own = scene.capture.without_others(scene.now, paths, &ids, &BTreeMap::new(), true);
        own.into_iter().map(|path| path.replace("/l/", "")).collect::<Vec<_>>()
    };
    // It was left in the file that is a.2.log now.
    assert_eq!(followed(2, &[("a.2.log", 2), ("a.1.log", 3), ("a.log", 4)]), ["a.log"]);
    // An older file: a log of its own.
    assert_eq!(followed(2, &[("a.2.log", 2), ("a.1.log", 1), ("a.log", 4)]), ["a.1.log", "a.log"]);
    // Nothing shows that these names are rotated ones.
    assert_eq!(followed(4, &[("a.2.log", 2), ("a.1.log", 3), ("a.log", 4)]), ["a.1.log", "a.2.log", "a.log"]);
}

/// With logrotate's `olddir` and copytruncate every line once came twice.
#[test]
fn what_was_read_of_a_log_counts_for_its_copies_in_a_directory_beneath() {
    let known = |path: &str| {
        let scene = Scene::from(left_in(2));
        let sinks = ["local_file".to_owned()];
        let places = scene.capture.copied_from(path, &sinks);
        places.iter().any(|place| place.file == id(2))
    };
    for path in ["/l/old/a.log.1", "/l/old/a.log-20261125", "/l/old/2026/a.log.2"] {
        assert!(known(path), "{path}");
    }
    for path in
        ["/l/old/a.log", "/l/old/b.log.1", "/m/a.log.1", "/m/old/a.log.1", "/l/1/2/3/a.log.1", "/a.log.1"]
    {
        assert!(!known(path), "{path}");
    }
}

/// logrotate's `olddir`: files below the log are read with it, if it is clear to which log they belong.
#[test]
fn rotated_files_in_a_directory_beneath_are_read_with_their_log() {
    let own = |files: &[&str]| {
        let mut scene = Scene::new();
        let paths: BTreeSet<Arc<str>> = files.iter().map(|path| (*path).into()).collect();
        let (own, logs) = scene.capture.without_moved(scene.now, paths, &[]);
        let left: Vec<String> = own.iter().map(|path| path.to_string()).collect();
        (left.join(" "), logs.into_iter().collect::<Vec<_>>().join(" "))
    };
    let is = |own: &str, logs: &str| (own.to_owned(), logs.to_owned());
    let rotated = ["/l/old/a.log-20261125", "/l/old/a.log.1", "/l/old/a.log.2.gz"];
    assert_eq!(own(&[&["/l/a.log"], &rotated[..]].concat()), is("/l/a.log", "/l/a.log"));
    assert_eq!(own(&["/l/a.log", "/l/old/2026/a.log.1"]), is("/l/a.log", "/l/a.log"));
    assert_eq!(own(&rotated[1..2]), is("/l/old/a.log.1", ""), "nobody follows its log");
    let beside = ["/l/a.log", "/l/old/a.log", "/l/old/a.log.1"];
    assert_eq!(own(&beside), is(&beside.join(" "), ""), "there is a log beside it");
    let two = ["/l/a.log", "/l/x/a.log.1", "/l/y/a.log.1"];
    assert_eq!(own(&two), is(&two.join(" "), ""), "they may be of two other logs");
}

/// Its rotated files were dropped as those of the log, which had begun behind them: nobody read them, and nothing was told.
#[test]
fn a_log_of_one_entry_has_rotated_files_that_another_matches() {
    type Change = fn(&mut FileSet);
    let with = |entries: &[(&str, Change)]| {
        let mut scene = Scene::new();
        let mut settings = (*scene.capture.settings).clone();
        let entry = |(pattern, change): &(&str, Change)| {
            let paths = vec![PathPattern::new(pattern).unwrap()];
            let mut entry = FileSet { paths, ..FileSet::default() };
            change(&mut entry);
            entry
        };
        settings.file_monitor.files = entries.iter().map(entry).collect();
        scene.capture.paths = Paths::new(&settings.file_monitor.files);
        scene.capture.settings = Arc::new(settings);
        scene.capture.is_rotated_elsewhere(0, "/l/a.log")
    };
    let plain: Change = |_| ();
    let log = ("/l/a.log", plain);
    for pattern in
        ["/l/**", "/l/*", "/**/a*", "/l/a.log.*", "/l/a-*.log", "/l/a.log-*", "/l/*.{1,2}", "/l/*.gz"]
    {
        assert!(with(&[log, (pattern, plain)]), "{pattern}");
    }
    assert!(with(&[log, ("/l/old/*", plain)]), "as olddir moves them");
    for pattern in ["/l/?.log", "/m/**", "/l/b.log.*", "/l/*/a.log.1", "/l/old/b*"] {
        assert!(!with(&[log, (pattern, plain)]), "{pattern}");
    }
    assert!(!with(&[log]));
    let exclude: Change = |entry| entry.exclude = vec![PathPattern::exclude("/l/a*").unwrap()];
    assert!(!with(&[log, ("/l/**", exclude)]));
    assert!(!with(&[log, ("/l/**", |entry| entry.start_at = crate::settings::StartAt::End)]));
    let week: Change = |entry| entry.ignore_older = std::time::Duration::from_secs(7 * 86400);
    assert!(!with(&[log, ("/l/**", week)]));
    assert!(with(&[("/l/a.log", week), ("/l/**", week)]));
}
