//! Files that begin as a followed log and were made while the agent looked: copies of it, as a script makes them that rotates
//! by `cp app.log app.log.bak; : > app.log`, or logs of their own. A program may write what another one wrote before, and to
//! pass that over would lose it. So a file counts as a copy only if the original is emptied or goes soon after, and:
//!
//! ```text
//! the original was emptied in place    and stood there as it was read when the copy was made
//! the original went, and               the copy's content is older than the copy itself (cp -p, cp -a, rsync -a); or
//!                                      it has the original's name with something behind it, and was seen beside it; or
//!                                      the original was written for a long time, and the copy in an instant
//! ```
//! Until that is known the file waits, for some seconds at most. It waits only if the same bytes stand where the original was
//! left: others are read at once.

use super::{Capture, split_path};
use crate::capture::context::Timer;
use crate::capture::stream::chain::{ContentFate, Doubt};
use crate::capture::stream::file::Doubted;
use crate::limits::{HEAD_BYTES, TAIL_BYTES};
use crate::model::clock::Now;
use crate::model::cursor::{Cursor, FilePlace, TailPrint};
use crate::model::record::{StreamId, StreamKey};

/// A file in doubt waits for so long. A stream that reads nothing for ten seconds would be called unhealthy.
const WAIT_MS: u64 = 8_000;
/// How often it is looked at.
const LOOK_MS: u64 = 250;
/// What was read of an original before it went or was emptied is acknowledged by then; and the copy was listed anew.
const SETTLE_MS: u64 = 750;
/// So much of the original must have been read: head and tail do not look at the same bytes. What programs of a kind print when
/// they start is shorter.
const READ_BYTES_MIN: u64 = (HEAD_BYTES + TAIL_BYTES) as u64;
/// An original that was written for so long is no output of a job that may do it again in an instant.
const WRITTEN_FOR_NS_MIN: i64 = 10_000_000_000;
/// The copy was written so many times faster.
const FASTER: i64 = 4;
/// So much a file grows from one look to the next that is still being copied.
const COPIED_BYTES_MIN: u64 = 1024 * 1024;
/// Logs that begin alike and are compared with a file.
const ALIKE_MAX: usize = 64;

/// A file in doubt.
#[derive(Debug)]
pub(super) struct DoubtedFile {
    since_ms: u64,
    /// How long it was when it was too short for its original.
    len: Option<u64>,
    /// Its original, and where that was left.
    of: Option<(StreamKey, FilePlace)>,
    /// The original was there after the same bytes had been seen in the copy.
    was_there: bool,
    /// When it was found to be there no longer.
    not_there_ms: Option<u64>,
}

/// What is to be done with a file in doubt.
enum CopyDecision {
    Wait,
    Own,
    Copy(u64, TailPrint),
}

impl Capture {
    /// A read of this stream ended: its file may be in doubt now.
    pub(in super::super) fn note_doubt(&mut self, now: Now, stream: StreamId) {
        let Some(doubt) = self.file(stream).and_then(|file| file.doubted()).map(|doubted| doubted.doubt)
        else {
            return;
        };
        let is_new = !self.paths.doubts.contains_key(&stream);
        if is_new {
            let file = DoubtedFile {
                since_ms: now.mono_ms,
                len: None,
                of: None,
                was_there: false,
                not_there_ms: None,
            };
            self.paths.doubts.insert(stream, file);
        }
        if is_new || doubt == Doubt::Shown {
            self.decide_doubt(now, stream);
            self.plan_doubts(now);
        }
    }

    pub(in super::super) fn decide_doubts(&mut self, now: Now) {
        let all: Vec<StreamId> = self.paths.doubts.keys().copied().collect();
        all.into_iter().for_each(|stream| self.decide_doubt(now, stream));
        self.plan_doubts(now);
    }

    fn plan_doubts(&mut self, now: Now) {
        if !self.paths.doubts.is_empty() {
            self.shared.timers.set_earlier(Timer::Doubts, now.mono_ms + LOOK_MS);
        }
    }

    fn decide_doubt(&mut self, now: Now, stream: StreamId) {
        let Some(mut file) = self.paths.doubts.remove(&stream) else { return };
        let Some(doubted) = self.file(stream).and_then(|file| file.doubted()) else { return };
        let is_over = now.mono_ms >= file.since_ms + WAIT_MS;
        let verdict = match doubted.doubt {
            Doubt::None => return,
            _ if is_over => CopyDecision::Own,
            Doubt::Tried => CopyDecision::Wait,
            Doubt::Asked => self.find_original(now, stream, &doubted, &mut file),
            Doubt::Shown => self.judge(now, stream, &doubted, &mut file),
        };
        match verdict {
            CopyDecision::Wait => drop(self.paths.doubts.insert(stream, file)),
            CopyDecision::Own => {
                self.with_file(now, stream, |file, cx, told| file.settle_doubt(None, cx, told))
            }
            CopyDecision::Copy(offset, tail) => {
                self.with_file(now, stream, |file, cx, told| {
                    file.settle_doubt(Some((offset, tail)), cx, told)
                });
            }
        }
    }

    /// The log whose copy it may be. Its place is tried; while the file is shorter, it may still be copied.
    fn find_original(
        &mut self,
        now: Now,
        stream: StreamId,
        doubted: &Doubted,
        file: &mut DoubtedFile,
    ) -> CopyDecision {
        let Some(own) = self.streams.get(&stream).map(|stream| stream.source.key.clone()) else {
            return CopyDecision::Own;
        };
        let logs: Vec<StreamKey> = self
            .tracker
            .memory()
            .begun_so(doubted.sum)
            .filter(|log| **log != own)
            .take(ALIKE_MAX)
            .cloned()
            .collect();
        // What was read of the original is acknowledged in a moment.
        let may_be_acked = now.mono_ms < file.since_ms + SETTLE_MS
            && logs.iter().any(|log| self.beside(stream, log).is_some());
        let mut places: Vec<(StreamKey, FilePlace)> = Vec::new();
        for log in logs {
            let of_log = self.original_places(stream, &log, doubted);
            places.extend(of_log.into_iter().map(|place| (log.clone(), place)));
        }
        let fitting = places.iter().filter(|(_, place)| place.offset <= doubted.len);
        match fitting.max_by_key(|(_, place)| place.offset) {
            Some((log, place)) => {
                file.of = Some((log.clone(), *place));
                let place = *place;
                self.with_file(now, stream, |file, cx, told| file.try_place(place, cx, told));
                CopyDecision::Wait
            }
            None if places.is_empty() && may_be_acked => CopyDecision::Wait,
            None if places.is_empty() => CopyDecision::Own,
            None if file.len.is_some_and(|before| doubted.len < before.saturating_add(COPIED_BYTES_MIN)) => {
                CopyDecision::Own
            }
            None => {
                file.len = Some(doubted.len);
                self.with_file(now, stream, |file, cx, _| file.look_at_doubted(cx));
                CopyDecision::Wait
            }
        }
    }

    /// The stream of a log for the outlet of another stream.
    fn beside(&self, stream: StreamId, log: &StreamKey) -> Option<StreamId> {
        let outlet = self.streams.get(&stream)?.source.outlet.index;
        self.ids_of(log)
            .into_iter()
            .find(|id| self.streams.get(id).is_some_and(|stream| stream.source.outlet.index == outlet))
    }

    /// Where a log was left whose copy this file may be: what is acknowledged now or was before the log grew, what was read
    /// before it was emptied, and earlier files of the log.
    fn original_places(&self, stream: StreamId, log: &StreamKey, doubted: &Doubted) -> Vec<FilePlace> {
        let Some(original) = self.beside(stream, log).and_then(|beside| self.file(beside)) else {
            return Vec::new();
        };
        let acked = match self.tracker.resume_for(log, original.sinks()) {
            Some(Cursor::File(cursor)) => Some(FilePlace { skip: [0; 2], ..cursor.place() }),
            _ => None,
        };
        let emptied = original.emptied().map(|(place, _)| place);
        let earlier = self.tracker.earlier(log, original.sinks());
        let fits = |place: &FilePlace| {
            place.head.len_bytes as usize == HEAD_BYTES
                && place.head.crc32 == doubted.sum
                && place.offset >= READ_BYTES_MIN
                && !place.tail.is_none()
                && place.tail.end == place.offset
                && place.file != doubted.id
                && place.file.birth_ns != 0
        };
        // Another file may have replaced the original, and its position may have moved on, before the copy was read.
        let left = self.tracker.memory().of(original.sinks(), true).places(log);
        acked.into_iter().chain(emptied).chain(earlier).chain(left).filter(fits).collect()
    }

    fn judge(
        &mut self,
        now: Now,
        stream: StreamId,
        doubted: &Doubted,
        file: &mut DoubtedFile,
    ) -> CopyDecision {
        let Some((log, place)) = file.of.clone() else { return CopyDecision::Own };
        let Some(beside) = self.beside(stream, &log) else { return CopyDecision::Own };
        let Some(original) = self.file(beside) else { return CopyDecision::Own };
        let fate = original.fate_of(&place);
        if fate == ContentFate::There {
            (file.was_there, file.not_there_ms) = (true, None);
            return CopyDecision::Wait;
        }
        // It is read to its end and acknowledged, and the copy was listed since.
        let since_ms = match file.not_there_ms {
            Some(since_ms) => since_ms,
            None => {
                file.not_there_ms = Some(now.mono_ms);
                self.with_file(now, stream, |file, cx, _| file.look_at_doubted(cx));
                return CopyDecision::Wait;
            }
        };
        let (left, is_copy) = match fate {
            ContentFate::Emptied(left, at_ns) => (left, file.was_there || doubted.id.birth_ns <= at_ns),
            ContentFate::Gone(left, true) => {
                let noted = self.tracker.memory().of(original.sinks(), true).place_of(left.file);
                let left = noted
                    .filter(|noted| noted.head == left.head && noted.offset > left.offset)
                    .unwrap_or(left);
                (left, self.is_copy_of_gone(now, stream, beside, doubted, file))
            }
            ContentFate::Gone(_, false) => return CopyDecision::Wait,
            ContentFate::There | ContentFate::Unknown => return CopyDecision::Own,
        };
        if now.mono_ms < since_ms + SETTLE_MS {
            return CopyDecision::Wait;
        }
        if !is_copy {
            return CopyDecision::Own;
        }
        // What the original got after it was copied was read there.
        if left.offset <= doubted.len && left.tail.end == left.offset {
            CopyDecision::Copy(left.offset, left.tail)
        } else {
            CopyDecision::Copy(doubted.len, TailPrint::default())
        }
    }

    fn is_copy_of_gone(
        &self,
        now: Now,
        stream: StreamId,
        original: StreamId,
        doubted: &Doubted,
        file: &DoubtedFile,
    ) -> bool {
        let (Some((log, place)), Some(original)) = (&file.of, self.file(original)) else { return false };
        let born_ns = doubted.id.birth_ns;
        // No younger than what was read: else it is what somebody wrote again.
        let (acked_s, modified_s) = (self.tracker.acked_s(log), doubted.modified_ns / 1_000_000_000);
        if doubted.modified_ns < born_ns
            && (acked_s == 0 || u64::try_from(modified_s).unwrap_or(0) <= acked_s)
        {
            return true;
        }
        let path = |key: &StreamKey| key.0.strip_prefix("file:").map(split_path);
        let own = self.streams.get(&stream).and_then(|stream| path(&stream.source.key));
        let is_named_after = match (own, path(log)) {
            (Some((directory, name)), Some((of, original))) => {
                directory == of && name.len() > original.len() && name.starts_with(&original)
            }
            _ => false,
        };
        let acked_ns = i64::try_from(acked_s).unwrap_or(0).saturating_mul(1_000_000_000);
        let original_ns = original.written_for_ns(place.file, acked_ns.min(now.unix_ns));
        let copy_ns = doubted.modified_ns.saturating_sub(born_ns);
        let is_faster = original_ns >= WRITTEN_FOR_NS_MIN && copy_ns <= original_ns / FASTER;
        file.was_there && is_named_after || is_faster
    }
}
