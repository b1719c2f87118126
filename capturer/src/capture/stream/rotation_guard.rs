//! Lines of a follow are held back until it is known that the log was not rotated before they came.
//!
//! When a file is rotated, dockerd's follow skips what it had not read of it, and nothing in its answer shows that (27
//! to 67 % of a burst were lost this way). Only a look at the files shows it. So if they can be read, their directory
//! is listed before a connection is opened, and again after lines came:
//!
//! ```text
//! listing ─▶ open ─▶ lines ─▶ held ─▶ listing ─┬ the same live file ─▶ delivered: nothing lies between them
//!                                              ├ another one ─▶ dropped; the files are read from the last line delivered
//!                                              └ emptied in place ─▶ delivered: they may stand nowhere else; then the files
//! ```
//! One listing covers everything that came before it was requested, and one is requested at most every `PAUSE_MS`; a
//! silent container costs none. Held lines keep their order, and none is delivered that a skipped one should have
//! preceded.
//!
//! Not here: opening files and finding the place in them (`file.rs`, `delivered.rs`).

use std::collections::VecDeque;

use crate::capture::context::{Context, Purpose};
use crate::capture::io::{Action, FileError, FoundFile};
use crate::decode::assemble::Lines;
use crate::model::cursor::{ApiCursor, Cursor, FileId, HeadPrint};
use crate::model::record::StreamId;

use super::SourceEvent;

/// At most one listing in this time.
pub(super) const PAUSE_MS: u64 = 100;
/// Pause between two looks at a directory without a live file: dockerd is in the middle of a rotation.
const ROTATING_MS: u64 = 20;
/// After this many of these looks it is not a rotation.
const ROTATING_LOOKS_MAX: u32 = 50;
/// Reading waits when this many batches are held.
const BATCHES_MAX: usize = 4;

/// Where a container's json-file log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPlace {
    /// Absolute path of its directory.
    pub directory: String,
    /// Name of the live file.
    pub live_name: String,
}

/// A batch that waits.
#[derive(Debug)]
struct HeldBatch {
    lines: Lines,
    read: Vec<u8>,
    end: ApiCursor,
    source_bytes: u64,
}

/// What a listing shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListingResult {
    /// It was the first, so connections may be opened; or nothing happened.
    GoOn,
    /// The log was rotated: held lines must not be delivered.
    Rotated,
    /// The same file has another beginning: somebody emptied it. Lines from before the listing were delivered.
    Emptied,
}

/// The live file in a listing.
#[derive(Debug, PartialEq, Eq)]
struct LiveFile {
    id: FileId,
    head: HeadPrint,
    /// The last rotated file.
    rotated: Option<FileId>,
}

/// What is known of the files.
#[derive(Debug, PartialEq, Eq)]
enum Files {
    /// Not listed yet.
    Unknown,
    /// The live file at that time; `None` = there was none.
    Live(Option<LiveFile>),
    /// They can't be read: nothing is held back.
    Unreadable,
}

/// Whether the live file grows while the connection brings nothing.
#[derive(Debug, Default)]
struct Silence {
    /// The next listing should show its length.
    asked: bool,
    /// Its length after an earlier read brought nothing.
    len: Option<u64>,
    /// It was longer after the next one.
    grew: bool,
}

/// Held lines of a stream; see the head of this file.
#[derive(Debug)]
pub struct RotationGuard {
    stream: StreamId,
    /// The log's place.
    pub place: LogPlace,
    files: Files,
    held: VecDeque<HeldBatch>,
    /// Number of batches at the front that came before the present listing was requested.
    covered: Option<usize>,
    /// Looks in a row without a live file.
    rotating: u32,
    next_look_ms: u64,
    silence: Silence,
    /// End of what was delivered.
    released: ApiCursor,
    /// The live file that had the newest delivered lines, if they were delivered since the first listing.
    delivered_from: Option<FileId>,
}

impl RotationGuard {
    /// Holds back what comes after `released`.
    pub fn new(stream: StreamId, place: LogPlace, released: ApiCursor) -> RotationGuard {
        RotationGuard {
            stream,
            place,
            files: Files::Unknown,
            held: VecDeque::new(),
            covered: None,
            rotating: 0,
            next_look_ms: 0,
            silence: Silence::default(),
            released,
            delivered_from: None,
        }
    }

    /// Whether the files must be listed before a connection may be opened.
    pub fn must_look_first(&self) -> bool {
        self.files == Files::Unknown
    }

    /// Whether the files can be read.
    pub fn is_readable(&self) -> bool {
        matches!(self.files, Files::Live(_))
    }

    /// Whether a listing is under way.
    pub fn is_looking(&self) -> bool {
        self.covered.is_some()
    }

    /// Batches that are held back.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether there is room for more.
    pub fn has_room(&self) -> bool {
        self.held.len() < BATCHES_MAX
    }

    /// End of what was delivered.
    pub fn released(&self) -> ApiCursor {
        self.released
    }

    /// The live file that had the newest delivered lines, if known. It is recognized only by its birth time.
    pub fn delivered_from(&self) -> Option<FileId> {
        self.delivered_from.filter(|id| id.birth_ns != 0)
    }

    /// Lists the files, unless a listing is under way.
    pub fn look(&mut self, cx: &mut Context<'_>) {
        if self.covered.is_some() {
            return;
        }
        self.covered = Some(self.held.len());
        // The moment at which a slow connection is read again (api/pace.rs).
        self.next_look_ms = next_tick_ms(cx.now.mono_ms, PAUSE_MS);
        let LogPlace { directory, live_name } = self.place.clone();
        let (directory, wanted, apart, olddirs) = (directory.into(), Vec::new(), Vec::new(), Vec::new());
        let still = match &self.files {
            // Without a birth time its number may have come back.
            Files::Live(Some(live)) if live.id.birth_ns != 0 => Some(live.id),
            _ => None,
        };
        let (stream, before) = (self.stream, String::new());
        cx.act(Action::Scan { stream, directory, live_name, wanted, apart, olddirs, before, still });
    }

    /// The connection brought something.
    pub fn on_bytes(&mut self) {
        self.silence = Silence::default();
    }

    /// A whole read brought nothing. Returns whether the log had grown before the read began, so that the read should
    /// have brought it.
    pub fn on_silence(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.is_readable() || self.silence.grew {
            return self.is_readable();
        }
        self.silence.asked = true;
        self.look(cx);
        false
    }

    /// Takes a batch, which is passed on now or later, or never if the log was rotated.
    pub fn take(
        &mut self,
        lines: Lines,
        read: Vec<u8>,
        end: ApiCursor,
        source_bytes: u64,
        cx: &mut Context<'_>,
        told: &mut Vec<SourceEvent>,
    ) {
        self.held.push_back(HeldBatch { lines, read, end, source_bytes });
        if self.files == Files::Unreadable {
            return self.release(usize::MAX, told);
        }
        self.look_if_due(cx);
    }

    fn look_if_due(&mut self, cx: &mut Context<'_>) {
        if self.held.is_empty() || self.covered.is_some() {
            return;
        }
        if self.next_look_ms <= cx.now.mono_ms || (self.rotating == 0 && !self.has_room()) {
            self.look(cx);
        } else {
            cx.wake(self.stream, Purpose::RotationGuard, self.next_look_ms);
        }
    }

    /// Looks, unless nothing waits for it any more.
    pub fn on_timer(&mut self, cx: &mut Context<'_>) {
        if self.rotating > 0 && self.next_look_ms <= cx.now.mono_ms {
            self.look(cx);
        }
        self.look_if_due(cx);
    }

    /// The files were listed.
    pub fn on_scanned(
        &mut self,
        result: &Result<Vec<FoundFile>, FileError>,
        cx: &mut Context<'_>,
        told: &mut Vec<SourceEvent>,
    ) -> ListingResult {
        let covered = self.covered.take().unwrap_or(0);
        let found = match result {
            Ok(found) => found,
            Err(error) => {
                if self.files == Files::Unknown {
                    tracing::debug!(stream = self.stream.0, %error, "gaps can't be mended from the files");
                }
                self.files = Files::Unreadable;
                self.rotating = 0;
                self.release(usize::MAX, told);
                return ListingResult::GoOn;
            }
        };
        let live = found.iter().find(|file| file.rank == 0);
        if live.is_none() && !found.is_empty() && self.rotating < ROTATING_LOOKS_MAX {
            self.rotating += 1;
            self.next_look_ms = cx.now.mono_ms + ROTATING_MS;
            cx.wake(self.stream, Purpose::RotationGuard, self.next_look_ms);
            return ListingResult::GoOn;
        }
        self.rotating = 0;
        if let Some(live) = live.filter(|_| self.silence.asked) {
            let grew = self.silence.len.is_some_and(|len| live.len > len);
            self.silence = Silence { asked: false, len: Some(live.len), grew };
        }
        let rotated = found.iter().rfind(|file| file.rank == 1).map(|file| file.id);
        match (&self.files, live) {
            (Files::Live(base), live) if !is_same(base.as_ref(), live, rotated) => {
                // With no files left, the container is being removed: what it printed is all there is.
                if found.is_empty() {
                    self.release(covered, told);
                    return ListingResult::GoOn;
                }
                if !is_emptied(base.as_ref(), live) {
                    return ListingResult::Rotated;
                }
                self.release(covered, told);
                return ListingResult::Emptied;
            }
            _ => {}
        }
        self.files = Files::Live(live.map(|file| LiveFile { id: file.id, head: file.print(), rotated }));
        self.release(covered, told);
        self.look_if_due(cx);
        ListingResult::GoOn
    }

    /// Passes on the batches at the front.
    pub fn release(&mut self, count: usize, told: &mut Vec<SourceEvent>) {
        for HeldBatch { lines, read, end, source_bytes } in self.held.drain(..count.min(self.held.len())) {
            self.released = end;
            if let Files::Live(live) = &self.files {
                self.delivered_from = live.as_ref().map(|live| live.id);
            }
            told.push(SourceEvent::Lines { lines, read, end: Cursor::Api(Box::new(end)), source_bytes });
        }
    }

    /// Drops what is held: it will be read again.
    pub fn drop_held(&mut self, cx: &mut Context<'_>) {
        for held in self.held.drain(..) {
            cx.credit.give_back(held.read, 0);
        }
        if let Some(covered) = &mut self.covered {
            *covered = 0;
        }
    }
}

/// Ends of pauses are the same for all streams.
pub(super) fn next_tick_ms(now_ms: u64, pause_ms: u64) -> u64 {
    (now_ms / pause_ms + 1) * pause_ms
}

/// A number without a birth time may be another file's by now.
fn is_emptied(base: Option<&LiveFile>, live: Option<&FoundFile>) -> bool {
    base.zip(live)
        .is_some_and(|(base, live)| live.id == base.id && base.id.birth_ns != 0 && !live.has_head(&base.head))
}

fn is_same(base: Option<&LiveFile>, live: Option<&FoundFile>, rotated: Option<FileId>) -> bool {
    match (base, live) {
        (Some(base), Some(live)) => {
            // Only the number of an empty file without a birth time is known, and another file may have it by now.
            let is_proven = base.id.birth_ns != 0 || base.head.len_bytes > 0;
            live.id == base.id && live.has_head(&base.head) && (is_proven || rotated == base.rotated)
        }
        (None, None) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::core::bench::Bench;

    const LOG: FileId = FileId { device: 1, inode: 7, birth_ns: 9 };

    fn live(id: FileId, head: &str) -> FoundFile {
        FoundFile {
            name: "c-json.log".to_owned(),
            rank: 0,
            compressed: false,
            id,
            len: head.len() as u64,
            head: head.as_bytes().to_vec(),
            unpacked_len: None,
            modified_ns: 0,
        }
    }

    /// Lines of a log that begins with `head` are delivered, and more are held; then the log is found as `then`.
    /// Returns the result, how many held batches are delivered, and the file that is known to have had them.
    fn found_as(base: FileId, then: FoundFile) -> (ListingResult, usize, Option<FileId>) {
        let mut bench = Bench::new(1);
        let place = LogPlace { directory: "/d".to_owned(), live_name: "c-json.log".to_owned() };
        let mut hold = RotationGuard::new(StreamId(1), place, ApiCursor::default());
        let mut told = Vec::new();
        let list =
            |hold: &mut RotationGuard, file: FoundFile, bench: &mut Bench, told: &mut Vec<SourceEvent>| {
                hold.look(&mut bench.cx());
                hold.on_scanned(&Ok(vec![file]), &mut bench.cx(), told)
            };
        list(&mut hold, live(base, "first"), &mut bench, &mut told);
        for batch in 0..2 {
            let end = ApiCursor::after(10 + batch);
            hold.take(Lines::default(), Vec::new(), end, 1, &mut bench.cx(), &mut told);
            if batch == 0 {
                list(&mut hold, live(base, "first and more"), &mut bench, &mut told);
            }
        }
        assert_eq!((told.len(), hold.held()), (1, 1));
        let result = list(&mut hold, then, &mut bench, &mut told);
        (result, told.len() - 1, hold.delivered_from())
    }

    #[test]
    fn of_a_rotated_log_what_is_held_is_not_delivered() {
        let other = FileId { inode: 8, ..LOG };
        assert_eq!(found_as(LOG, live(other, "second")), (ListingResult::Rotated, 0, Some(LOG)));
        assert_eq!(found_as(LOG, live(LOG, "first and more")), (ListingResult::GoOn, 1, Some(LOG)));
    }

    /// Held lines may be nowhere else any more, and dockerd skips nothing of a log that keeps its file.
    #[test]
    fn of_an_emptied_log_what_is_held_is_delivered() {
        for head in ["", "\0\0\0\0\0\0", "other"] {
            assert_eq!(found_as(LOG, live(LOG, head)), (ListingResult::Emptied, 1, Some(LOG)), "{head:?}");
        }
        let unborn = FileId { birth_ns: 0, ..LOG };
        assert_eq!(found_as(unborn, live(unborn, "other")), (ListingResult::Rotated, 0, None));
    }
}
