//! Space that a writer reserved at the end of its file: it extends the file by a region of NULs (`ftruncate`,
//! `fallocate`, a memory mapping such as log4j2's) and fills that with lines. Reading stops before such NULs, for lines
//! will be written there.
//!
//! ```text
//! line 1 ␊ line 2 ␊ ␀ ␀ ␀ ␀ ␀ ␀ ␀ end        read to the first NUL; the rest counts neither as read nor as unread
//! line 1 ␊ line 2 ␊ ␀ ␀ ␀ ␀ line 9 ␊ ␀ end   a hole: passed over as soon as something stands behind it
//! ```
//! If a read returns only NULs, the bytes after them are searched for data before the NULs are skipped: a file system
//! tells where a hole ends, while a region that was written, or only allocated, is read once, byte by byte. A write to
//! a mapping notifies nobody, so files with reserved space are checked now and then.

use super::FileSource;
use crate::capture::context::{Context, Purpose};
use crate::capture::io::NO_DATA;
use crate::capture::stream::SourceEvent;
use crate::capture::stream::chain::Link;
use crate::decode::damage::{HOLE_BYTES_MIN, leading_nuls};
use crate::limits::RECORD_BYTES_MAX;

/// The first pause between two checks.
const PAUSE_MS_MIN: u64 = 1_000;
/// The pause when no check has found anything for long.
const PAUSE_MS_MAX: u64 = 60_000;

/// This much of the searched space is searched again when none of it is filled for long.
const SEARCHED_AGAIN_MAX: u64 = 64 * 1024 * 1024;

/// Whether it is nothing but NULs.
pub(super) fn is_nul(bytes: &[u8]) -> bool {
    leading_nuls(bytes) == bytes.len()
}

impl FileSource {
    /// How many NULs at the end of a buffer may still be filled. `goes_on`: there is more after the buffer;
    /// `hole_ends`: data follows.
    pub(super) fn room(&self, buffer: &[u8], again: usize, goes_on: bool, hole_ends: bool) -> usize {
        let new = &buffer[again..];
        if new.last() != Some(&0) || !self.text.encoding().is_utf8() {
            return 0;
        }
        let nuls = new.iter().rev().take_while(|byte| **byte == 0).count();
        let text = buffer.len() - nuls;
        // Fewer may be a part of a line, or half a character of a file whose first bytes say that it is UTF-16.
        let is_behind_line = buffer[..text].last() == Some(&b'\n') && self.text.of_file.is_some();
        let is_room = nuls >= HOLE_BYTES_MIN || is_behind_line;
        // A hole, or behind a torn record for which no read was large enough.
        let is_passed = goes_on && (nuls == new.len() && hole_ends || new.len() >= RECORD_BYTES_MAX);
        if is_room && !is_passed { nuls } else { 0 }
    }

    /// A search for data behind NULs ended.
    pub(super) fn on_searched(
        &mut self,
        from: u64,
        buffer: Vec<u8>,
        file_len: Option<u64>,
        data_at: Option<u64>,
        cx: &mut Context<'_>,
        told: &mut Vec<SourceEvent>,
    ) {
        let (nuls, count) = (leading_nuls(&buffer), buffer.len());
        let ends = count < buffer.capacity();
        cx.credit.give_back(buffer, 0);
        let is_final = |front: &Link| front.settled && (front.last_look || !self.has_grace(front));
        let is_final = self.gone || self.chain.links.front().is_some_and(is_final);
        let Some(front) = self.chain.links.front_mut() else { return self.go_on(cx, told) };
        front.nuls_to = from + nuls as u64;
        match data_at {
            // It shrank. The next read tells what became of it.
            _ if file_len.is_some_and(|len| len < from) => (front.nuls_to, front.unread) = (0, true),
            _ if nuls < count => (front.hole, front.unread) = (true, true),
            Some(at) if at < NO_DATA => (front.nuls_to, front.unread) = (at, true),
            None if !ends => front.unread = true,
            // Nobody will fill it any more.
            _ if is_final => (front.hole, front.unread) = (true, true),
            _ => {
                front.room = true;
                self.look_at_room_later(true, false, cx);
            }
        }
        self.go_on(cx, told);
    }

    /// Reserved space was seen, or there is none. `filled`: some of it was filled since the last check.
    pub(super) fn look_at_room_later(&mut self, room: bool, filled: bool, cx: &mut Context<'_>) {
        if !room {
            self.room_look_ms = 0;
            // Another file may have some, and its turn comes.
            if !self.has_room() {
                cx.let_sleep(self.stream, Purpose::Room);
            }
            return;
        }
        let pause_ms = match self.room_look_ms {
            0 => PAUSE_MS_MIN,
            _ if filled => PAUSE_MS_MIN,
            before_ms => (2 * before_ms).min(PAUSE_MS_MAX),
        };
        self.room_look_ms = pause_ms;
        cx.wake(self.stream, Purpose::Room, cx.now.mono_ms + pause_ms);
    }

    /// Reads again what was room.
    pub(super) fn look_at_room(&mut self, cx: &mut Context<'_>) {
        if let Some(front) = self.chain.links.front_mut().filter(|front| front.room) {
            front.unread = true;
            let searched = front.nuls_to.saturating_sub(front.offset);
            if self.room_look_ms == PAUSE_MS_MAX && searched <= SEARCHED_AGAIN_MAX {
                // Its writer may have left some of it out.
                front.nuls_to = 0;
            }
        } else if self.has_room() {
            cx.wake(self.stream, Purpose::Room, cx.now.mono_ms + PAUSE_MS_MIN);
        }
    }

    fn has_room(&self) -> bool {
        self.chain.links.iter().any(|link| link.room)
    }
}
