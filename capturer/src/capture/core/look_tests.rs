//! Troubles of sources: when they are noted, and what ends them.

use std::sync::Arc;

use super::*;
use crate::capture::checkpoint::Checkpoint;
use crate::capture::core::outlets::SinkFacts;
use crate::capture::io::{Beside, DeniedFile, FileNo, FoundPath, NoFile, OpenedFile};
use crate::model::cursor::FileId;
use crate::settings::{FileMonitor, FileSet, Settings};
use crate::telemetry::metrics::Metrics;

/// A core that follows `/l/a.log`.
struct Scene {
    capture: Capture,
    now: Now,
    stream: StreamId,
}

impl Scene {
    fn new() -> Scene {
        let mut settings = Settings {
            file_monitor: FileMonitor { files: vec![FileSet::default()], ..FileMonitor::default() },
            ..Settings::default()
        };
        settings.container_monitor.enabled = false;
        let metrics = Arc::new(Metrics::new(1).unwrap());
        let sinks = vec![SinkFacts { name: "local_file".to_owned(), own_pace: false }];
        let capture = Capture::new(Arc::new(settings), metrics, sinks, Checkpoint::default(), 1);
        let now = Now { mono_ms: 1_000_000, unix_ns: 1_000_000_000_000 };
        let mut scene = Scene { capture, now, stream: StreamId(0) };
        scene.on(Event::Started);
        let path = "/l/a.log".into();
        let paths = vec![FoundPath { path, id: id(1), target: None, len: 9, modified_ns: 0 }];
        scene.on(Event::PathsFound { set: 0, lane: None, lanes: Vec::new(), paths });
        scene.stream = *scene.capture.streams.keys().next().expect("a stream");
        scene
    }

    /// The files that are to be opened now.
    fn on(&mut self, event: Event) -> Vec<FileNo> {
        self.capture.on_event(self.now, event);
        let opens = self.capture.drain_actions().filter_map(|action| match action {
            Action::OpenFile { file, .. } => Some(file),
            _ => None,
        });
        opens.collect()
    }

    fn listed(&mut self, result: Result<Vec<FoundFile>, FileError>) -> Vec<FileNo> {
        self.beside(result, Vec::new())
    }

    fn beside(&mut self, result: Result<Vec<FoundFile>, FileError>, denied: Vec<DeniedFile>) -> Vec<FileNo> {
        let beside = Beside { denied, ..Beside::default() };
        self.on(Event::Scanned { stream: self.stream, result, beside })
    }

    fn opened(&mut self, file: FileNo, result: Result<(), FileError>) -> Vec<FileNo> {
        let opened = OpenedFile::plain(9);
        self.on(Event::FileOpened { stream: self.stream, file, result: result.map(|()| opened) })
    }

    /// A read ended. No sink is there, so the stream has ordered none.
    fn read(&mut self, file: FileNo, result: Result<usize, FileError>) {
        let (stream, buffer) = (self.stream, Vec::new());
        let read = Event::FileRead { stream, file, result, buffer, file_len: Some(9), data_at: None };
        self.capture.look_at(self.now, &read);
    }

    fn troubles(&self) -> Vec<UnreadableReason> {
        self.capture.unreadable().1.into_keys().collect()
    }
}

fn id(inode: u64) -> FileId {
    FileId { device: 1, inode, birth_ns: inode as i64 }
}

fn file(name: &str, rank: u32, inode: u64) -> FoundFile {
    FoundFile {
        name: name.to_owned(),
        rank,
        compressed: false,
        id: id(inode),
        len: 9,
        head: b"one line\n".to_vec(),
        unpacked_len: None,
        modified_ns: 0,
    }
}

fn failing() -> FileError {
    FileError::Other { what: "reading /l/a.log".to_owned(), cause: "I/O error".to_owned() }
}

/// A link stood in its place for a moment. The file was open all the while, so nothing was opened anew, and health named
/// the link for ever.
#[test]
fn a_listing_that_succeeds_ends_the_trouble_of_one_that_failed() {
    let mut scene = Scene::new();
    let files = scene.listed(Ok(vec![file("a.log", 0, 1)]));
    scene.opened(files[0], Ok(()));
    assert_eq!(scene.troubles(), []);
    let link = FileError::NotRegular("/l/a.log".to_owned(), NoFile::Link);
    scene.listed(Err(link));
    assert_eq!(scene.troubles(), [UnreadableReason::NotRegular]);
    assert_eq!(scene.listed(Ok(vec![file("a.log", 0, 1)])), [], "it is open");
    assert_eq!(scene.troubles(), []);
}

/// A listing shows nothing of whether reads succeed.
#[test]
fn a_read_that_succeeds_ends_the_trouble_of_one_that_failed() {
    let mut scene = Scene::new();
    let files = scene.listed(Ok(vec![file("a.log", 0, 1)]));
    scene.opened(files[0], Ok(()));
    scene.read(files[0], Err(failing()));
    assert_eq!(scene.troubles(), [UnreadableReason::Other]);
    scene.listed(Ok(vec![file("a.log", 0, 1)]));
    assert_eq!(scene.troubles(), [UnreadableReason::Other]);
    scene.read(files[0], Ok(0));
    assert_eq!(scene.troubles(), []);
}

/// The file that could not be opened is gone, and what is left is open.
#[test]
fn the_trouble_of_an_opening_ends_with_its_file() {
    let mut scene = Scene::new();
    let denied = || Err(FileError::Denied("/l/a.log".to_owned()));
    let files = scene.listed(Ok(vec![file("a.log", 0, 1)]));
    scene.opened(files[0], Ok(()));
    let rotated = || vec![file("a.log", 0, 2), file("a.log.1", 1, 1)];
    let files = scene.listed(Ok(rotated()));
    scene.opened(files[0], denied());
    assert_eq!(scene.troubles(), [UnreadableReason::Permission]);
    let files = scene.listed(Ok(rotated()));
    assert_eq!(files.len(), 1);
    assert_eq!(scene.troubles(), [UnreadableReason::Permission], "it is tried again");
    scene.opened(files[0], denied());
    assert_eq!(scene.troubles(), [UnreadableReason::Permission]);
    for _ in 0..3 {
        assert_eq!(scene.listed(Ok(vec![file("a.log", 0, 1)])), [], "it is open");
    }
    assert_eq!(scene.troubles(), []);
}

/// Another file of the log was opened, which says nothing of the one that can't be.
#[test]
fn an_opening_ends_the_trouble_of_its_file_alone() {
    let mut scene = Scene::new();
    let files = scene.listed(Ok(vec![file("a.log", 0, 2), file("a.log.1", 1, 1)]));
    assert_eq!(files.len(), 2);
    scene.opened(files[0], Err(failing()));
    assert_eq!(scene.troubles(), [UnreadableReason::Other]);
    scene.opened(files[1], Ok(()));
    assert_eq!(scene.troubles(), [UnreadableReason::Other]);
}

/// Only the log had a line of it, and it was declared lost for another reason.
#[test]
fn a_rotated_file_that_can_not_be_read_is_named_as_long_as_it_waits() {
    let mut scene = Scene::new();
    let files = scene.listed(Ok(vec![file("a.log", 0, 1)]));
    scene.opened(files[0], Err(FileError::Changed("/l/a.log".to_owned())));
    let denied = || {
        let error = FileError::Denied("/l/a.log.1".to_owned());
        vec![DeniedFile { found: FoundFile { head: Vec::new(), ..file("a.log.1", 1, 1) }, error }]
    };
    let files = scene.beside(Ok(vec![file("a.log", 0, 2)]), denied());
    assert_eq!(files.len(), 1, "the live file is read");
    scene.opened(files[0], Ok(()));
    let (first, counts) = scene.capture.unreadable();
    assert_eq!(first[0].whose, "file /l/a.log.1");
    assert!(first[0].why.starts_with("no permission to read /l/a.log.1; "), "{}", first[0].why);
    assert_eq!(counts, BTreeMap::from([(UnreadableReason::Permission, 1)]));
    assert_eq!(scene.capture.passed_over()[&PassedOver::Denied], 1);
    // Its rights are given back.
    let stream = scene.stream;
    scene.capture.on_event(scene.now, Event::RightsChanged { stream });
    assert!(scene.capture.drain_actions().any(|action| matches!(action, Action::Scan { .. })));
    let files = scene.listed(Ok(vec![file("a.log", 0, 2), file("a.log.1", 1, 1)]));
    assert_eq!((files.len(), scene.troubles()), (1, vec![]));
}

/// The listing shows that it can't be opened, and those behind it need not wait.
#[test]
fn an_opening_that_is_refused_has_the_files_listed_again() {
    let mut scene = Scene::new();
    let files = scene.listed(Ok(vec![file("a.log", 0, 1)]));
    scene.opened(files[0], Ok(()));
    let rotated = vec![file("a.log", 0, 3), file("a.log.1", 1, 2), file("a.log.2", 2, 1)];
    let files = scene.listed(Ok(rotated));
    assert_eq!(files.len(), 2);
    scene.capture.on_event(
        scene.now,
        Event::FileOpened {
            stream: scene.stream,
            file: files[0],
            result: Err(FileError::Denied("/l/a.log.1".to_owned())),
        },
    );
    assert!(scene.capture.drain_actions().any(|action| matches!(action, Action::Scan { .. })));
}

/// Of one that waits for a descriptor it was once said that it reads nothing because of a bug: it counts among the open files
/// from the moment that its opening is ordered.
#[test]
fn a_file_that_is_being_opened_is_not_open() {
    let mut scene = Scene::new();
    let opens = scene.listed(Ok(vec![file("a.log", 0, 1)]));
    let is_open = |scene: &Scene| scene.capture.file(scene.stream).is_some_and(FileSource::has_open_file);
    assert_eq!((opens.len(), is_open(&scene)), (1, false));
    scene.opened(opens[0], Ok(()));
    assert!(is_open(&scene));
}
