//! Followed paths with links on their way. What is read is where the links lead; when one is changed, the file that was
//! read so far is read to its end and for as long as its writer goes on, as one that was rotated, and the new one behind it.
//!
//! ```text
//! current.log ─▶ 7/app.log            current.log ─▶ 8/app.log
//! ─────────────────────────────┬──────────────────────────────▶
//!   read 7/app.log             └ it is open ─▶ list 8/ ─▶ 7/app.log to its end ─▶ 8/app.log
//! ```
//! A position says in which file it is, so that a link that is changed while the agent does not run skips nothing.

use std::sync::Arc;

use super::FileSource;
use crate::capture::context::Context;
use crate::capture::io::FoundFile;
use crate::capture::stream::SourceEvent;
use crate::capture::stream::chain::{Handle, Link};
use crate::model::cursor::{Cursor, FileId};
use crate::model::rare::{Begins, Rare};

/// Files that were left and may still be read.
const LEFT_MAX: usize = 64;

/// The links of a path; see the head of this file.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    /// What the path is called; empty = there are no links on its way.
    name: Arc<str>,
    /// Directory and name of the file that it leads to now, if another is still read.
    next: Option<Box<(String, String)>>,
    left: Rare<Left>,
}

/// What the path led to before.
#[derive(Debug, Default)]
struct Left {
    /// Where files are that are not where the path leads now.
    files: Vec<(FileId, String)>,
    /// Where the path led to, until a listing shows the file that it leads to now.
    before: String,
}

impl Begins for Left {
    const BEGINNING: &'static Left = &Left { files: Vec::new(), before: String::new() };
}

impl Elsewhere {
    /// The path leads elsewhere by now.
    pub(super) fn is_waiting(&self) -> bool {
        self.next.is_some()
    }

    /// What the files thread needs to find those that the path led to in between.
    pub(super) fn before(&self) -> String {
        self.left.before.clone()
    }
}

impl FileSource {
    /// Whether it has this file in hand.
    pub fn reads(&self, id: FileId) -> bool {
        self.chain.links.iter().any(|link| link.found.id.can_be(id))
    }

    /// What the followed path is called, and where it leads now.
    pub fn named(mut self, name: impl Into<Arc<str>>, target: &str) -> FileSource {
        self.elsewhere.name = name.into();
        self.elsewhere.next = (self.path() != target).then(|| Box::new(split(target)));
        self
    }

    /// The path leads to this file.
    pub fn lead_to(&mut self, target: &str, cx: &mut Context<'_>, told: &mut Vec<SourceEvent>) {
        self.elsewhere.next = (self.path() != target).then(|| Box::new(split(target)));
        if self.elsewhere.is_waiting() {
            // One that was closed because it is quiet is opened, to be read to its end.
            self.chain.links.iter_mut().filter(|link| link.idle).for_each(|link| link.unread = true);
            self.open_ahead(cx);
            self.go_on(cx, told);
        }
    }

    /// Goes over to where the path leads, once all that is there so far is open.
    pub(super) fn go_over(&mut self, cx: &mut Context<'_>) {
        let is_safe = |handle: Handle, deleted: bool| deleted || matches!(handle, Handle::Open(_));
        let all_open = self.chain.in_hand().all(|link| is_safe(link.handle, link.deleted));
        if self.scanning || !all_open {
            return;
        }
        let Some((directory, live_name)) = self.elsewhere.next.take().map(|next| *next) else { return };
        let path = self.path();
        let parked = self.chain.parked.iter_mut().map(|parked| &mut parked.link);
        for link in self.chain.links.iter_mut().chain(parked) {
            link.elsewhere = true;
            // As one that was rotated: it is no longer the live file.
            link.found.rank = link.found.rank.max(1);
            self.elsewhere.left.files.push((link.found.id, path.clone()));
        }
        let excess = self.elsewhere.left.files.len().saturating_sub(LEFT_MAX);
        self.elsewhere.left.files.drain(..excess);
        self.elsewhere.left.before = path;
        (self.directory, self.live_name) = (directory.into(), live_name);
        self.scan(cx);
    }

    /// After a listing: files that the path led to in between are read before the one that it leads to now. A start finds each
    /// by its own path.
    pub(super) fn note_led_to(&mut self) {
        if self.elsewhere.left.before.is_empty() {
            return;
        }
        if self.chain.links.iter().any(|link| link.found.rank == 0 && !link.elsewhere) {
            self.elsewhere.left.before = String::new();
        }
        let is_between = |link: &&Link| link.found.rank == FoundFile::RANK_BY_BIRTH;
        let between = self.chain.links.iter().filter(is_between);
        let between: Vec<_> = between.map(|link| (link.found.id, self.path_of(&link.found.name))).collect();
        // The first are read first.
        let room = LEFT_MAX.saturating_sub(self.elsewhere.left.files.len());
        self.elsewhere.left.files.extend(between.into_iter().take(room));
    }

    /// Adds to a position in which file it is.
    pub(super) fn note_path(&self, cursor: &mut Cursor) {
        let Cursor::File(cursor) = cursor else { return };
        if let Some((_, path)) = self.elsewhere.left.files.iter().rev().find(|(id, _)| *id == cursor.file) {
            Arc::make_mut(cursor).at = path.clone().into();
        } else if !self.elsewhere.name.is_empty() && *self.path() != *self.elsewhere.name {
            Arc::make_mut(cursor).at = self.path().into();
        }
    }
}

fn split(path: &str) -> (String, String) {
    let (directory, name) = path.rsplit_once('/').unwrap_or((".", path));
    (directory.to_owned(), name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::core::bench::Bench;
    use crate::capture::io::{Action, FileNo, OpenedFile};
    use crate::capture::stream::chain::Start;
    use crate::limits::READ_BYTES;
    use crate::model::record::StreamId;
    use crate::settings::FileFormat;

    fn found(inode: u64, text: &[u8]) -> FoundFile {
        FoundFile {
            name: "app.log".to_owned(),
            rank: 0,
            compressed: false,
            id: FileId { device: 1, inode, birth_ns: inode as i64 },
            len: text.len() as u64,
            head: text.to_vec(),
            unpacked_len: None,
            modified_ns: 0,
        }
    }

    fn scanned(bench: &mut Bench) -> Vec<String> {
        let directory = |action| match action {
            Action::Scan { directory, .. } => Some(directory.to_string()),
            _ => None,
        };
        bench.actions().into_iter().filter_map(directory).collect()
    }

    fn opening(source: &FileSource) -> FileNo {
        let opening = |handle| if let Handle::Opening(file) = handle { Some(file) } else { None };
        source.chain.links.iter().find_map(|link| opening(link.handle)).expect("a file is opened")
    }

    fn position(source: &mut FileSource) -> String {
        match source.first_position() {
            Some(Cursor::File(cursor)) => cursor.at.to_string(),
            other => panic!("{other:?}"),
        }
    }

    /// What a link led to is left when it is open, and read to its end; its position says where it is.
    #[test]
    fn the_file_before_is_not_lost_when_a_link_is_changed() {
        let mut bench = Bench::new(1);
        let start = Start::Oldest;
        let (directory, name) = ("/r1".to_owned(), "app.log".to_owned());
        let mut source = FileSource::new(StreamId(1), directory, name, FileFormat::Raw, start, 64 * 1024)
            .rotated_while_written(0)
            .named("/current/app.log", "/r1/app.log");
        source.open(&mut bench.cx());
        let told = &mut Vec::new();
        source.on_scanned(Ok(vec![found(1, b"one\n")]), &mut bench.cx(), told);
        assert_eq!(scanned(&mut bench), ["/r1"]);
        source.lead_to("/r2/app.log", &mut bench.cx(), told);
        assert_eq!(scanned(&mut bench), Vec::<String>::new(), "it would be lost if it were removed now");
        let opened = OpenedFile::plain(4);
        let file = opening(&source);
        source.on_file_opened(file, Ok(opened.clone()), &mut bench.cx(), told);
        assert_eq!(scanned(&mut bench), ["/r2"]);
        for _ in 0..3 {
            source.on_scanned(Ok(vec![found(2, b"two\n")]), &mut bench.cx(), told);
            source.on_chain_changed(&mut bench.cx());
        }
        source.on_scanned(Ok(vec![found(2, b"two\n")]), &mut bench.cx(), told);
        let links: Vec<_> =
            source.chain.links.iter().map(|link| (link.found.id.inode, link.settled, link.deleted)).collect();
        assert_eq!(links, [(1, true, false), (2, false, false)]);
        assert_eq!(position(&mut source), "/r1/app.log");
        let file = opening(&source);
        source.on_file_opened(file, Ok(opened), &mut bench.cx(), told);
        source.read_on(&mut bench.cx());
        let mut buffer = Vec::with_capacity(READ_BYTES);
        buffer.extend_from_slice(b"one\n");
        source.on_read(Ok(4), buffer, Some(4), None, &mut bench.cx(), told);
        assert_eq!(source.chain.links[0].found.id.inode, 2, "the first is read to its end");
        assert_eq!(source.chain.parked.len(), 1, "its writer may go on");
        assert_eq!(position(&mut source), "/r2/app.log");
    }

    /// The link moved on twice between two looks. What it led to in between was neither read nor told.
    #[test]
    fn what_a_link_led_to_in_between_is_read_and_found_again() {
        let mut bench = Bench::new(1);
        let (directory, name) = ("/r".to_owned(), "app.1".to_owned());
        let mut source =
            FileSource::new(StreamId(1), directory, name, FileFormat::Raw, Start::Oldest, 64 * 1024)
                .named("/r/current", "/r/app.1");
        source.open(&mut bench.cx());
        let named =
            |inode, name: &str, rank| FoundFile { name: name.to_owned(), rank, ..found(inode, b"one\n") };
        let told = &mut Vec::new();
        source.on_scanned(Ok(vec![named(1, "app.1", 0)]), &mut bench.cx(), told);
        let file = opening(&source);
        source.on_file_opened(file, Ok(OpenedFile::plain(4)), &mut bench.cx(), told);
        let befores = |bench: &mut Bench| -> Vec<String> {
            let before = |action| if let Action::Scan { before, .. } = action { Some(before) } else { None };
            bench.actions().into_iter().filter_map(before).collect()
        };
        assert!(befores(&mut bench).iter().all(String::is_empty));
        source.lead_to("/r/app.3", &mut bench.cx(), told);
        assert_eq!(befores(&mut bench), ["/r/app.1"]);
        let all = |rank| {
            vec![named(1, "app.1", FoundFile::RANK_UNKNOWN), named(2, "app.2", rank), named(3, "app.3", 0)]
        };
        source.on_scanned(Ok(all(FoundFile::RANK_BY_BIRTH)), &mut bench.cx(), told);
        let inodes: Vec<_> = source.chain.links.iter().map(|link| link.found.id.inode).collect();
        assert_eq!(inodes, [1, 2, 3]);
        source.on_chain_changed(&mut bench.cx());
        assert!(befores(&mut bench).iter().all(String::is_empty), "it is looked for once");
        for _ in 0..2 {
            source.on_scanned(Ok(all(FoundFile::RANK_UNKNOWN)), &mut bench.cx(), told);
            source.on_chain_changed(&mut bench.cx());
        }
        source.on_scanned(Ok(all(FoundFile::RANK_UNKNOWN)), &mut bench.cx(), told);
        let file = opening(&source);
        source.on_file_opened(file, Ok(OpenedFile::plain(4)), &mut bench.cx(), told);
        source.read_on(&mut bench.cx());
        let mut buffer = Vec::with_capacity(READ_BYTES);
        buffer.extend_from_slice(b"one\n");
        source.on_read(Ok(4), buffer, Some(4), None, &mut bench.cx(), told);
        assert_eq!(source.chain.links[0].found.id.inode, 2);
        assert_eq!(position(&mut source), "/r/app.2");
        assert_eq!(source.path_of("../q/app.2"), "/q/app.2");
    }

    /// A link that was changed while nobody looked: first what it led to then.
    #[test]
    fn a_saved_position_is_gone_to_before_the_link_is_followed() {
        let mut bench = Bench::new(1);
        let (directory, name) = ("/r1".to_owned(), "app.log".to_owned());
        let mut source =
            FileSource::new(StreamId(1), directory, name, FileFormat::Raw, Start::Oldest, 64 * 1024)
                .named("/current/app.log", "/r2/app.log");
        source.open(&mut bench.cx());
        assert_eq!(scanned(&mut bench), ["/r1"]);
        let gone = crate::capture::io::FileError::NoDirectory("/r1".to_owned());
        let told = &mut Vec::new();
        source.on_scanned(Err(gone), &mut bench.cx(), told);
        assert_eq!(scanned(&mut bench), ["/r2"]);
        assert!(told.is_empty(), "{told:?}");
    }
}
