//! When an open group of lines (multiline) has waited long enough for another one.
//!
//! A line's age goes by the time it bears, so that a group that is read again, after a reconnect, need not wait anew; but
//! a little it waits in any case, for what was read just now may go on in the next read.

use crate::capture::support::{Context, Timer};
use crate::decode::assemble::{Assembler, Lines};
use crate::record::{StdType, StreamId};

/// A group waits at least so long behind a read.
const GRACE_MS: u64 = 250;

/// By channel, milliseconds on the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct GroupsDue([Option<u64>; 2]);

impl GroupsDue {
    /// Something new was read.
    pub(super) fn note(&mut self, assembler: &Assembler, stream: StreamId, cx: &mut Context<'_>) {
        for std_type in StdType::ALL {
            let waits_ms = assembler.group_waits_ms(std_type, cx.now.unix_ns);
            self.0[std_type.index()] = waits_ms.map(|waits_ms| cx.now.mono_ms + waits_ms.max(GRACE_MS));
        }
        self.set_timer(stream, cx);
    }

    /// Ends the groups that are due, unless there is more to read first.
    pub(super) fn end_due(
        &mut self,
        assembler: &mut Assembler,
        all_is_read: bool,
        stream: StreamId,
        lines: &mut Lines,
        cx: &mut Context<'_>,
    ) {
        for std_type in StdType::ALL {
            let due = &mut self.0[std_type.index()];
            match due {
                Some(at) if *at > cx.now.mono_ms => {}
                Some(at) if !all_is_read => *at = cx.now.mono_ms + GRACE_MS,
                Some(_) => {
                    *due = None;
                    assembler.end_group(std_type, lines);
                }
                None => {}
            }
        }
        self.set_timer(stream, cx);
    }

    fn set_timer(&self, stream: StreamId, cx: &mut Context<'_>) {
        if let Some(due) = self.0.iter().flatten().min() {
            cx.timers.set_earlier(Timer::Stream(stream), *due);
        }
    }
}
