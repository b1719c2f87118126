//! How many followed files are open at once. A file is open to be read, and so that a rotation can't take away what was
//! not read yet; a quiet file need not be. Of tens of thousands of logs most are quiet: those that have been quiet
//! longest are closed, and opened again when they grow.
//!
//! ```text
//! opening wanted ─▶ room? ─ yes ─▶ open ─▶ read to its end ─▶ quiet ─┬─ grows ───────────────▶ read
//!                     └─ no ─▶ in line ◀─ a quiet one is closed      └─ closed ─▶ grows ─▶ opening wanted
//! ```
//! A file that can't become quiet (a backlog, an output that takes nothing) keeps its place. So that such files can't
//! keep out others for ever, a file that has waited long gets a place beyond the bound, some per second. The process's
//! limit of descriptors is a bound, too: near it quiet files make room at once.
//!
//! If descriptors still run out, streams give back those they can do without (stream/file/idle.rs).
//!
//! Not here: whether a file may be closed at all (stream/file/idle.rs).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::model::packed::Pack;
use crate::model::record::StreamId;

/// A file is only closed for others after it was quiet for this long, so one that is written to every second stays
/// open, unless others wait for its place.
const QUIET_MS: u64 = 2_000;
/// Waiting files may exceed the bound this many times before they have to wait for others to be quiet that long.
const OVER: usize = 2;
/// A file that waited this long for a place gets one beyond the bound,
const PATIENCE_MS: u64 = 1_000;
/// but only one in this many milliseconds.
const BEYOND_EVERY_MS: u64 = 10;
/// Descriptors count as short for this long after a file last waited for one. While one waits, this is reported every
/// second.
const SHORT_MS: u64 = 3_000;

/// Counts open files; see the head of this file.
#[derive(Debug)]
pub struct OpenFiles {
    max: usize,
    /// How many may be open at once with the process's descriptors.
    most: usize,
    /// How many more must be closed, because descriptors ran out before that.
    missing: usize,
    /// Descriptors are short until then.
    short_until_ms: u64,
    close_idle_after_ms: u64,
    /// How many files each stream has open.
    of: BTreeMap<StreamId, usize>,
    open: usize,
    /// Openings ordered while an event is handled.
    ordered: usize,
    /// The next request for a place was promised one.
    granted: bool,
    /// Streams whose file could be closed, by since when.
    quiet: BTreeSet<(u64, StreamId)>,
    quiet_since: BTreeMap<StreamId, u64>,
    /// Streams that wait for a place, and since when.
    line: VecDeque<(StreamId, u64)>,
    waiting: BTreeSet<StreamId>,
    beyond_at_ms: u64,
}

impl Pack for OpenFiles {
    fn pack(&mut self) {
        self.of.pack();
        self.quiet.pack();
        self.quiet_since.pack();
    }
}

impl OpenFiles {
    /// At most `max` quiet files stay open; 0 milliseconds = files are not closed only for being quiet.
    pub fn new(max: usize, close_idle_after_ms: u64) -> OpenFiles {
        OpenFiles {
            max: max.max(1),
            most: usize::MAX,
            missing: 0,
            short_until_ms: 0,
            close_idle_after_ms,
            of: BTreeMap::new(),
            open: 0,
            ordered: 0,
            granted: false,
            quiet: BTreeSet::new(),
            quiet_since: BTreeMap::new(),
            line: VecDeque::new(),
            waiting: BTreeSet::new(),
            beyond_at_ms: 0,
        }
    }

    /// The process has descriptors for this many files.
    pub(super) fn set_most(&mut self, most: usize) {
        self.most = most.max(2);
    }

    /// This many files wait for a descriptor: quiet ones make room, whatever the counts here say.
    pub fn make_room(&mut self, files: usize, now_ms: u64) {
        (self.missing, self.short_until_ms) = (files, now_ms + SHORT_MS);
    }

    /// Quiet files have made room. Files that still wait are reported again.
    pub(super) fn made_room(&mut self) {
        self.missing = 0;
    }

    /// Whether a file waited for a descriptor lately.
    pub fn is_short(&self, now_ms: u64) -> bool {
        now_ms < self.short_until_ms
    }

    /// Streams that have files open or are opening some.
    pub(super) fn holders(&self) -> Vec<StreamId> {
        self.of.keys().copied().collect()
    }

    /// The most that are opened, except for files that have waited long.
    fn bound(&self) -> usize {
        self.max.saturating_mul(OVER).min(self.most)
    }

    /// Quiet files are closed down to this, somewhat below the descriptors' bound, so that the next file finds a place.
    fn kept(&self) -> usize {
        self.max.min(self.most - self.most / 16)
    }

    /// Takes a place for a file about to be opened. Returns false if there is none; the stream then queues through
    /// `OpenFiles::note`.
    pub fn take(&mut self) -> bool {
        let is_room = std::mem::take(&mut self.granted) || self.open + self.ordered < self.bound();
        self.ordered += usize::from(is_room);
        is_room
    }

    /// Notes the state of a stream after an event.
    pub(super) fn note(&mut self, stream: StreamId, open: usize, quiet: bool, wants: bool, now_ms: u64) {
        (self.ordered, self.granted) = (0, false);
        let before = if open > 0 { self.of.insert(stream, open) } else { self.of.remove(&stream) };
        self.open = self.open + open - before.unwrap_or(0);
        match (quiet, self.quiet_since.get(&stream).copied()) {
            (true, None) => {
                self.quiet.insert((now_ms, stream));
                self.quiet_since.insert(stream, now_ms);
            }
            (false, Some(since)) => {
                self.quiet.remove(&(since, stream));
                self.quiet_since.remove(&stream);
            }
            _ => {}
        }
        if wants && self.waiting.insert(stream) {
            self.line.push_back((stream, now_ms));
        }
    }

    pub(super) fn forget(&mut self, stream: StreamId) {
        self.note(stream, 0, false, false, 0);
    }

    /// The next stream that gets a place.
    pub(super) fn next_in_line(&mut self, now_ms: u64) -> Option<StreamId> {
        let (stream, since) = *self.line.front()?;
        if self.open >= self.bound() {
            let is_due = since + PATIENCE_MS <= now_ms && self.beyond_at_ms <= now_ms;
            if !is_due {
                return None;
            }
            self.beyond_at_ms = now_ms + BEYOND_EVERY_MS;
        }
        self.granted = true;
        self.line.pop_front();
        self.waiting.remove(&stream);
        Some(stream)
    }

    /// When the file that has been quiet longest must be closed.
    fn close_due_ms(&self) -> Option<u64> {
        let (since, _) = self.quiet.first()?;
        if self.missing > 0 || !self.line.is_empty() && self.open >= self.bound() {
            return Some(*since);
        }
        let for_others = (self.open > self.kept()).then_some(QUIET_MS);
        let idle = (self.close_idle_after_ms > 0).then_some(self.close_idle_after_ms);
        Some(since + for_others.into_iter().chain(idle).min()?)
    }

    pub(super) fn next_quiet(&mut self, now_ms: u64) -> Option<StreamId> {
        if self.close_due_ms()? > now_ms {
            return None;
        }
        let (_, stream) = self.quiet.pop_first()?;
        self.missing = self.missing.saturating_sub(1);
        self.quiet_since.remove(&stream);
        Some(stream)
    }

    /// When to act without an event.
    pub(super) fn due_ms(&self) -> Option<u64> {
        let patience = self.line.front().map(|(_, since)| (since + PATIENCE_MS).max(self.beyond_at_ms));
        self.close_due_ms().into_iter().chain(patience).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: [StreamId; 5] = [StreamId(1), StreamId(2), StreamId(3), StreamId(4), StreamId(5)];

    /// Opens files of these streams, quiet since the millisecond of their number.
    fn with_quiet(max: usize, idle_ms: u64, count: usize) -> OpenFiles {
        let mut files = OpenFiles::new(max, idle_ms);
        for id in &IDS[..count] {
            assert!(files.take());
            files.note(*id, 1, false, false, 0);
            files.note(*id, 1, true, false, u64::from(id.0));
        }
        files
    }

    #[test]
    fn those_quiet_longest_are_closed_down_to_the_bound() {
        let mut files = with_quiet(2, 0, 4);
        assert_eq!((files.open, files.due_ms()), (4, Some(1 + QUIET_MS)));
        assert_eq!(files.next_quiet(QUIET_MS), None, "it may be written to every second");
        let mut closed = Vec::new();
        while let Some(id) = files.next_quiet(60_000) {
            files.note(id, 0, false, false, 60_000);
            closed.push(id);
        }
        assert_eq!((closed, files.open, files.due_ms()), (IDS[..2].to_vec(), 2, None));
    }

    /// The config may allow more open files than the process.
    #[test]
    fn descriptors_are_a_bound_too() {
        let mut files = with_quiet(1_000, 0, 4);
        files.set_most(4);
        assert!(!files.take());
        files.note(IDS[4], 0, false, true, 10);
        assert_eq!((files.next_in_line(10), files.due_ms()), (None, Some(1)));
        assert_eq!(files.next_quiet(10), Some(IDS[0]));
        files.note(IDS[0], 0, false, false, 10);
        assert_eq!((files.next_in_line(10), files.due_ms()), (Some(IDS[4]), None));
        // Something else used them.
        files.make_room(2, 10);
        assert!(files.is_short(10) && !files.is_short(10 + SHORT_MS));
        assert_eq!(files.due_ms(), Some(2), "however short they were quiet");
        assert_eq!(
            [files.next_quiet(10), files.next_quiet(10), files.next_quiet(10)],
            [Some(IDS[1]), Some(IDS[2]), None]
        );
    }

    #[test]
    fn one_that_grows_is_not_quiet_any_more() {
        let mut files = with_quiet(1, 0, 2);
        files.note(IDS[0], 1, false, false, 50);
        assert_eq!(files.next_quiet(60_000), Some(IDS[1]));
    }

    #[test]
    fn the_idle_are_closed_whatever_the_bound() {
        let mut files = with_quiet(100, 10_000, 2);
        assert_eq!((files.next_quiet(10_000), files.due_ms()), (None, Some(10_001)));
        assert_eq!(files.next_quiet(10_001), Some(IDS[0]));
    }

    #[test]
    fn who_waits_gets_the_place_of_a_quiet_one_at_once() {
        let mut files = with_quiet(2, 0, 4);
        assert!(!files.take());
        files.note(IDS[4], 0, false, true, 10);
        assert_eq!((files.next_in_line(10), files.due_ms()), (None, Some(1)));
        let closed = files.next_quiet(10).unwrap();
        files.note(closed, 0, false, false, 10);
        assert_eq!(files.next_in_line(10), Some(IDS[4]));
        assert!(files.take());
    }

    /// Files whose output takes nothing never become quiet; the others must be read all the same.
    #[test]
    fn who_waited_long_gets_a_place_beyond_the_bound() {
        let mut files = OpenFiles::new(1, 0);
        for id in &IDS[..2] {
            files.note(*id, 1, false, false, 0);
        }
        for id in &IDS[2..4] {
            files.note(*id, 0, false, true, 5);
        }
        assert_eq!((files.next_in_line(1_004), files.due_ms()), (None, Some(1_005)));
        assert_eq!(files.next_in_line(1_005), Some(IDS[2]));
        assert!(files.take() && !files.take());
        files.note(IDS[2], 1, false, false, 1_005);
        assert_eq!((files.next_in_line(1_005), files.due_ms()), (None, Some(1_015)));
        assert_eq!(files.next_in_line(1_015), Some(IDS[3]));
    }
}
