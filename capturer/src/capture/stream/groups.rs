//! When an open group of lines (multiline) has waited long enough for another line, and a tagged part of a line for its
//! rest: a container that exits within a line leaves its beginning as a part, and for a followed file no exit is
//! reported.
//!
//! A line's age is judged by its own time, so that a group that is read again after a reconnect need not wait again. It
//! waits a little in any case, because the lines just read may continue in the next read.

use crate::capture::context::{Context, Purpose};
use crate::decode::assemble::{Assembler, Lines};
use crate::model::rare::{Begins, Rare};
use crate::model::record::{StdType, StreamId};

/// A group waits at least this long after a read.
const GRACE_MS: u64 = 250;
/// How long a part of a line waits for its rest, whatever the other channel does. A runtime writes a part when it has 16 KiB
/// of a line, and the rest with the line's end. A program that prints a line slowly has it delivered in marked parts.
const PART_WAITS_MS: u64 = 10_000;

/// The deadlines of one stream.
#[derive(Debug, Default)]
pub(super) struct GroupsDue(Rare<Due>);

/// By channel, milliseconds on the monotonic clock.
#[derive(Debug, Default, PartialEq)]
struct Due {
    groups: [Option<u64>; 2],
    parts: [Option<u64>; 2],
    /// Where the parts begin that wait for their rest.
    parts_at: [Option<u64>; 2],
}

impl Begins for Due {
    const BEGINNING: &'static Due = &Due { groups: [None; 2], parts: [None; 2], parts_at: [None; 2] };
}

impl GroupsDue {
    /// Something new was read.
    pub(super) fn note(&mut self, assembler: &Assembler, stream: StreamId, cx: &mut Context<'_>) {
        let unix_ns = cx.now.unix_ns;
        let may_go_on = |std_type| {
            assembler.open_part(std_type).is_some() || assembler.group_waits_ms(std_type, unix_ns).is_some()
        };
        if self.is_waiting() || StdType::ALL.into_iter().any(may_go_on) {
            self.0.note(assembler, stream, cx);
        }
    }

    fn is_waiting(&self) -> bool {
        *self.0 != *Due::BEGINNING
    }

    /// Ends the parts and groups that are due, unless there is more to read first.
    pub(super) fn end_due(
        &mut self,
        assembler: &mut Assembler,
        all_is_read: bool,
        stream: StreamId,
        lines: &mut Lines,
        cx: &mut Context<'_>,
    ) {
        if self.is_waiting() {
            self.0.end_due(assembler, all_is_read, stream, lines, cx);
        }
    }
}

impl Due {
    fn note(&mut self, assembler: &Assembler, stream: StreamId, cx: &mut Context<'_>) {
        for std_type in StdType::ALL {
            self.note_group(assembler, std_type, cx);
            let (channel, part_at) = (std_type.index(), assembler.open_part(std_type));
            if part_at != self.parts_at[channel] {
                self.parts_at[channel] = part_at;
                self.parts[channel] = part_at.map(|_| cx.now.mono_ms + PART_WAITS_MS);
            }
        }
        self.set_timer(stream, cx);
    }

    fn note_group(&mut self, assembler: &Assembler, std_type: StdType, cx: &Context<'_>) {
        let waits_ms = assembler.group_waits_ms(std_type, cx.now.unix_ns);
        self.groups[std_type.index()] = waits_ms.map(|waits_ms| cx.now.mono_ms + waits_ms.max(GRACE_MS));
    }

    fn end_due(
        &mut self,
        assembler: &mut Assembler,
        all_is_read: bool,
        stream: StreamId,
        lines: &mut Lines,
        cx: &mut Context<'_>,
    ) {
        for std_type in StdType::ALL {
            if is_due(&mut self.groups[std_type.index()], all_is_read, cx.now.mono_ms) {
                assembler.end_group(std_type, lines);
            }
            if is_due(&mut self.parts[std_type.index()], all_is_read, cx.now.mono_ms) {
                assembler.cut_part(std_type, lines);
                self.parts_at[std_type.index()] = None;
                self.note_group(assembler, std_type, cx);
            }
        }
        self.set_timer(stream, cx);
    }

    fn set_timer(&self, stream: StreamId, cx: &mut Context<'_>) {
        if let Some(due) = self.groups.iter().chain(&self.parts).flatten().min() {
            cx.wake(stream, Purpose::Groups, *due);
        }
    }
}

/// Whether a deadline is due; if so, removes it.
fn is_due(due: &mut Option<u64>, all_is_read: bool, now_ms: u64) -> bool {
    match due {
        Some(at) if *at <= now_ms && !all_is_read => *at = now_ms + GRACE_MS,
        Some(at) if *at <= now_ms => {
            *due = None;
            return true;
        }
        _ => {}
    }
    false
}
