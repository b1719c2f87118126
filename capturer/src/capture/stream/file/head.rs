//! Looks at a file's head while the file is written to. Each read begins with the bytes before its place and so notices that
//! somebody rewrote the file, unless the new content has the same bytes there: the end of a long line, a footer. The head
//! differs even then. While nothing new comes, the head is looked at more and more rarely. Docker alone writes Docker's logs,
//! so their heads are not looked at.
//!
//! ```text
//! written to ─▶ head not looked at for a second ─▶ read the head ─▶ the same ─▶ read on
//!           └─▶ looked at a moment ago ─▶ read on ─▶ when the second is over: read the head
//! ```

use super::FileSource;
use crate::capture::context::{Context, Purpose};
use crate::capture::stream::chain::{Copied, Handle};
use crate::model::cursor::HeadPrint;
use crate::settings::FileFormat;

/// Between two looks at the head of a file that grows.
const PAUSE_MS_MIN: u64 = 1_000;
/// The longest pause. A file on a file system without inotify is read every two seconds, whether it grows or not.
const PAUSE_MS_MAX: u64 = 64_000;

/// When the head of the first file was looked at.
#[derive(Debug)]
pub(super) struct HeadLook {
    at_ms: u64,
    /// Until the next one.
    pause_ms: u64,
    /// Nothing was read since.
    is_fresh: bool,
    /// The head was looked at just before the latest read was ordered.
    is_vouched_for: bool,
}

impl Default for HeadLook {
    fn default() -> HeadLook {
        HeadLook { at_ms: 0, pause_ms: PAUSE_MS_MIN, is_fresh: false, is_vouched_for: false }
    }
}

impl HeadLook {
    /// The head is as it was.
    pub(super) fn on_seen(&mut self, now_ms: u64) {
        (self.at_ms, self.is_fresh) = (now_ms, true);
        self.pause_ms = (2 * self.pause_ms).min(PAUSE_MS_MAX);
    }

    /// A read brought something new.
    pub(super) fn on_growth(&mut self) {
        self.pause_ms = PAUSE_MS_MIN;
    }

    /// The file is read on from there.
    pub(super) fn on_read_on(&mut self, offset: u64, now_ms: u64) {
        if offset == 0 {
            self.on_seen(now_ms);
        }
        self.is_vouched_for = std::mem::take(&mut self.is_fresh);
    }
}

impl FileSource {
    /// How many first bytes are to be read before the file is read on.
    pub(super) fn head_to_read(&self, now_ms: u64) -> Option<usize> {
        let is_due = !self.head.is_fresh && now_ms >= self.head.at_ms + self.head.pause_ms;
        is_due.then(|| self.head_that_tells()).flatten()
    }

    /// How many first bytes are known and not among those that each read reads again.
    fn head_that_tells(&self) -> Option<usize> {
        let front = self.chain.links.front()?;
        let is_read_again = front.offset <= u64::from(front.tail.len_bytes);
        // What may be a copy is judged by the bytes before its place.
        let is_judged = front.copy == Copied::Likely || front.candidate;
        let tells =
            self.format != FileFormat::Docker && !front.found.compressed && !is_read_again && !is_judged;
        (tells && front.head.len_bytes > 0).then_some(front.head.len_bytes as usize)
    }

    /// These first bytes are not those that were read. Fewer than were asked for prove nothing: that a file is shorter now is
    /// told by its length.
    pub(super) fn has_another_head(&self, bytes: &[u8]) -> bool {
        let known = self.chain.links.front().map(|front| front.head);
        let begins = |head: &HeadPrint| bytes.get(..head.len_bytes as usize).map(crc32fast::hash);
        known.is_some_and(|head| begins(&head).is_some_and(|sum| sum != head.crc32))
    }

    /// Somebody may have rewritten the file after its head was looked at and before the latest read.
    pub(super) fn look_at_head_later(&mut self, cx: &mut Context<'_>) {
        if !self.head.is_vouched_for && self.head_that_tells().is_some() {
            cx.wake_by(self.stream, Purpose::Head, self.head.at_ms + self.head.pause_ms);
        }
    }

    /// An older file may stand before the one that was written to, because its writer may go on.
    pub(super) fn look_at_head(&mut self) {
        let open = self.chain.links.iter_mut().filter(|link| matches!(link.handle, Handle::Open(_)));
        open.for_each(|link| link.unread = true);
    }
}
