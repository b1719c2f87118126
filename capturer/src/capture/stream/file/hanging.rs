//! File systems that may hang: of each, streams read in turn, one that has no answer is set aside, and because inotify
//! does not tell of what another host writes there, files are looked at.

use super::FileSource;
use crate::capture::context::{Context, Purpose};
use crate::capture::stream::chain::{Handle, Link};
use crate::telemetry::metrics::StreamError;
use crate::text::over::over;

/// inotify tells of writes by this host alone. What another one writes to a file system that may hang (there is no other
/// way to tell) is found by looking, this often.
const LOOK_MS: u64 = 2_000;
/// Each of this many looks lists the directory too.
const LOOKS_PER_SCAN: u32 = 5;

/// An operation has no answer, and nobody can end it.
#[derive(Debug)]
pub(super) struct SetAside {
    since_ms: u64,
    pub(super) place: String,
    pub(super) operation: String,
    /// Room that the read under way gave back to the others.
    bytes: Option<u64>,
}

impl FileSource {
    /// Its turn to read came.
    pub fn on_turn(&mut self) {
        self.in_line = false;
    }

    /// An operation under way has no answer. Returns whether that is news.
    pub fn on_hung(&mut self, place: &str, operation: &str, cx: &mut Context<'_>) -> bool {
        if self.operation().is_empty() {
            return false;
        }
        let known = self.set_aside.as_ref().map(|aside| aside.bytes);
        let mut bytes = known.flatten();
        if bytes.is_none() && self.reading.is_some() {
            cx.credit.set_aside(self.reading_bytes);
            bytes = Some(self.reading_bytes);
        }
        if let Some(aside) = &mut self.set_aside {
            aside.bytes = bytes;
            return false;
        }
        let (place, operation) = (place.to_owned(), operation.to_owned());
        self.set_aside = Some(Box::new(SetAside { since_ms: self.asked_ms, place, operation, bytes }));
        cx.metrics.stream_error(StreamError::FileHung);
        true
    }

    /// Some answer came: it does not hang, or no longer.
    pub(super) fn answered(&mut self, cx: &mut Context<'_>) {
        self.asked_ms = cx.now.mono_ms;
        let Some(set_aside) = self.set_aside.take() else { return };
        let SetAside { since_ms, place, bytes, .. } = *set_aside;
        if let Some(bytes) = bytes {
            cx.credit.take_back(bytes);
        }
        let after_s = (cx.now.mono_ms - since_ms) / 1000;
        let path = self.path();
        tracing::info!(
            path,
            "{}; reading goes on from the position",
            over(after_s, &format!("{place} did not answer"))
        );
    }

    /// Where a read of it hangs.
    pub fn hung_read(&self) -> Option<&str> {
        self.set_aside.as_ref().filter(|_| self.reading.is_some()).map(|aside| aside.place.as_str())
    }

    pub(super) fn operation(&self) -> &'static str {
        let opening = |link: &Link| matches!(link.handle, Handle::Opening(_));
        match () {
            () if self.reading.is_some() => "read of a file",
            () if self.chain.links.iter().any(opening) => "opening of a file",
            () if self.scanning => "listing of a directory",
            () => "",
        }
    }

    /// Its path is there. Where inotify does not tell of what another host does, nobody else says so.
    pub fn on_path_found(&mut self, is_news: bool, cx: &mut Context<'_>) {
        if is_news || self.chain.links.is_empty() {
            self.scan(cx);
        }
    }

    pub(super) fn look_later(&mut self, cx: &mut Context<'_>) {
        cx.wake(self.stream, Purpose::Look, cx.now.mono_ms + LOOK_MS);
    }

    /// Looks at what inotify tells nothing of.
    pub(super) fn look(&mut self, cx: &mut Context<'_>) {
        if self.chain.links.is_empty() {
            // What was listed is gone, and the next file may be made where inotify does not tell.
            return self.scan(cx);
        }
        if !self.chain.links.iter().any(|link| link.lane.is_some()) {
            return;
        }
        self.looks += 1;
        self.on_grew(cx);
        if self.looks.is_multiple_of(LOOKS_PER_SCAN) {
            self.scan(cx);
        }
        self.look_later(cx);
    }
}

#[cfg(test)]
mod tests {
    use super::super::listing_tests::live_file;
    use super::*;
    use crate::capture::core::bench::Bench;
    use crate::capture::io::{Action, FoundFile};
    use crate::capture::stream::chain::Start;
    use crate::model::record::StreamId;
    use crate::settings::FileFormat;

    /// Orders to list the directory since the last call.
    fn listings(bench: &mut Bench) -> usize {
        bench.actions().iter().filter(|action| matches!(action, Action::Scan { .. })).count()
    }

    /// A source whose directory was listed once, with this in it.
    fn listed(found: Vec<FoundFile>, bench: &mut Bench) -> FileSource {
        let (directory, name) = ("/nfs".to_owned(), "a.log".to_owned());
        let mut source =
            FileSource::new(StreamId(1), directory, name, FileFormat::Raw, Start::Oldest, 64 * 1024);
        source.open(&mut bench.cx());
        source.on_scanned(Ok(found), &mut bench.cx(), &mut Vec::new());
        assert_eq!(listings(bench), 1);
        source
    }

    /// Patterns are walked all the time: a path that is still there must cost no listing each time.
    #[test]
    fn a_path_that_was_there_all_along_is_not_listed_again() {
        let mut bench = Bench::new(1);
        let mut source = listed(vec![live_file()], &mut bench);
        source.on_path_found(false, &mut bench.cx());
        assert_eq!(listings(&mut bench), 0);
    }

    /// On a file system of another host inotify is silent: without this a file recreated there is never read.
    #[test]
    fn a_path_that_came_back_or_came_late_is_listed() {
        let mut bench = Bench::new(1);
        let mut source = listed(vec![live_file()], &mut bench);
        source.on_path_found(true, &mut bench.cx());
        assert_eq!(listings(&mut bench), 1);

        let mut source = listed(Vec::new(), &mut bench);
        source.on_path_found(false, &mut bench.cx());
        assert_eq!(listings(&mut bench), 1);
    }

    /// A listing under way may have been made before the file was: another follows, and one only.
    #[test]
    fn a_path_found_while_its_directory_is_listed_has_it_listed_once_more() {
        let mut bench = Bench::new(1);
        let mut source = listed(vec![live_file()], &mut bench);
        (0..3).for_each(|_| source.on_path_found(true, &mut bench.cx()));
        assert_eq!(listings(&mut bench), 1);
        source.on_scanned(Ok(vec![live_file()]), &mut bench.cx(), &mut Vec::new());
        assert_eq!(listings(&mut bench), 1);
        source.on_scanned(Ok(vec![live_file()]), &mut bench.cx(), &mut Vec::new());
        assert_eq!(listings(&mut bench), 0);
    }
}
