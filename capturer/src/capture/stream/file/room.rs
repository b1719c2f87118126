//! Room that a writer made at the end of its file: it extends the file by a region of NULs (`ftruncate`, `fallocate`, a
//! memory mapping such as log4j2's) and fills that with lines. What was read ends before such NULs, for lines will stand there.
//!
//! ```text
//! line 1 ␊ line 2 ␊ ␀ ␀ ␀ ␀ ␀ ␀ ␀ end        read to the first NUL; the rest counts neither as read nor as unread
//! line 1 ␊ line 2 ␊ ␀ ␀ ␀ ␀ line 9 ␊ ␀ end   a hole: passed over as soon as something stands behind it
//! ```
//! A region that was written as NULs, not left as a hole, is known as such up to [`READ_BYTES`] of it. A mapping tells nobody
//! when it is written to, so files with room are looked at now and then.
//!
//! [`READ_BYTES`]: crate::limits::READ_BYTES

use super::FileSource;
use crate::capture::context::{Context, Purpose};
use crate::decode::damage::HOLE_BYTES_MIN;
use crate::limits::RECORD_BYTES_MAX;

/// Between two looks at first.
const PAUSE_MS_MIN: u64 = 1_000;
/// And when none of them has found anything for long.
const PAUSE_MS_MAX: u64 = 60_000;

impl FileSource {
    /// How many NULs at the end of a buffer may be filled yet. `goes_on`: there is more behind the buffer.
    pub(super) fn room(&self, buffer: &[u8], again: usize, goes_on: bool) -> usize {
        let new = &buffer[again..];
        if new.last() != Some(&0) || !self.text.encoding().is_utf8() {
            return 0;
        }
        let nuls = new.iter().rev().take_while(|byte| **byte == 0).count();
        let text = buffer.len() - nuls;
        // Fewer may be a part of a line, or half a character of a file whose first bytes say that it is UTF-16.
        let is_behind_line = buffer[..text].last() == Some(&b'\n') && self.text.of_file.is_some();
        let is_room = nuls >= HOLE_BYTES_MIN || is_behind_line;
        // Too long to wait for, or behind a torn record for which no read was large enough.
        let is_endless = goes_on && (nuls == new.len() || new.len() >= RECORD_BYTES_MAX);
        if is_room && !is_endless { nuls } else { 0 }
    }

    /// Room was seen, or there is none. `filled`: since the last look.
    pub(super) fn look_at_room_later(&mut self, room: bool, filled: bool, cx: &mut Context<'_>) {
        if !room {
            self.room_look = None;
            // Another file may have some, and its turn comes.
            if !self.has_room() {
                cx.let_sleep(self.stream, Purpose::Room);
            }
            return;
        }
        let pause_ms = match self.room_look {
            Some(before_ms) if !filled => (2 * before_ms).min(PAUSE_MS_MAX),
            _ => PAUSE_MS_MIN,
        };
        self.room_look = Some(pause_ms);
        cx.wake(self.stream, Purpose::Room, cx.now.mono_ms + pause_ms);
    }

    /// Reads again what was room.
    pub(super) fn look_at_room(&mut self, cx: &mut Context<'_>) {
        if let Some(front) = self.chain.links.front_mut().filter(|front| front.room) {
            front.unread = true;
        } else if self.has_room() {
            cx.wake(self.stream, Purpose::Room, cx.now.mono_ms + PAUSE_MS_MIN);
        }
    }

    fn has_room(&self) -> bool {
        self.chain.links.iter().any(|link| link.room)
    }
}
