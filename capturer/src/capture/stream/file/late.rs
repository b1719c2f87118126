//! Files that were rotated while their writers go on: a program writes to a log that was renamed until it is told
//! (logrotate's postrotate) and opens its new one, and some never are. Nobody waits for that: the next file is read at
//! once, and what comes late to the older one comes late.
//!
//! ```text
//! read to its present end, renamed ─▶ parked, still open ─┬─ written to ─▶ read on ─▶ parked
//!                                                         └─ quiet for a while ─▶ its last line is whole ─▶ closed
//! closed ─▶ written to, whenever that is ─▶ listed, and it grew ─▶ opened, parked
//! ```

use super::FileSource;
use crate::capture::context::{Context, Purpose};
use crate::capture::io::Action;
use crate::capture::stream::SourceEvent;
use crate::capture::stream::chain::{Changes, Handle, Link};
use crate::decode::assemble::Lines;
use crate::model::record::StdType;

/// A file that was renamed stays open for this long behind what was written to it last.
const WRITER_GRACE_MS: u64 = 5_000;
/// How often a file is looked at that was deleted, was moved to a directory beneath (logrotate's `olddir`), or is in one that
/// a link no longer leads to: inotify says nothing of it.
const ELSEWHERE_LOOK_MS: u64 = 1_000;
/// It is closed when this many looks brought nothing.
const ELSEWHERE_LOOKS: u8 = 30;
/// After those looks, a file that Docker may still write to is looked at this often.
const HELD_LOOK_MS: u64 = 30_000;
/// This many are kept open for their writers at once; with one more, the oldest is due at once.
const PARKED_MAX: usize = 8;
/// A write to a file that is not the live one orders a listing, but no more often than this.
const ROTATED_LOOK_MS: u64 = 1_000;

/// Nothing is told of what is written to it.
pub(super) fn is_unwatched(link: &Link) -> bool {
    link.elsewhere || link.deleted || link.missing || link.packed || link.found.is_beneath()
}

impl FileSource {
    /// Its writer may not know yet that it was renamed. dockerd closes a log before it renames it; where somebody else renames
    /// the log, dockerd still has it open.
    pub(super) fn has_grace(&self, link: &Link) -> bool {
        let is_renamed = self.renamed_while_written && (link.found.rank > 0 || is_unwatched(link));
        (is_renamed || self.may_be_written_by_docker(link)) && !link.found.compressed
    }

    /// The first file was read to its present end and renamed.
    pub(super) fn park(&mut self, cx: &mut Context<'_>) {
        // A look that brought nothing does not put off its end.
        let nothing_came = self
            .chain
            .links
            .front()
            .and_then(|link| link.waited_at.filter(|(offset, _)| *offset == link.offset));
        self.moved_on |= nothing_came.is_none();
        let mut due_ms = nothing_came.map_or(cx.now.mono_ms + WRITER_GRACE_MS, |(_, due_ms)| due_ms);
        if let Some(link) = self.chain.links.front_mut().filter(|link| is_unwatched(link)) {
            link.quiet_looks = nothing_came.map_or(0, |_| link.quiet_looks.saturating_add(1));
            let is_long = link.quiet_looks >= ELSEWHERE_LOOKS;
            due_ms = cx.now.mono_ms + if is_long { HELD_LOOK_MS } else { ELSEWHERE_LOOK_MS };
        }
        self.chain.park_front(due_ms);
        if self.chain.parked.len() > PARKED_MAX {
            self.chain.parked[0].due_ms = Some(cx.now.mono_ms);
        }
        cx.wake_by(self.stream, Purpose::LateWriter, due_ms);
    }

    /// The first file ends within a line. Its writer may still write the rest there, and else it is in the next file. What
    /// came after a wait that was long enough is read before that.
    pub(super) fn waits_for_rest_of_line(&mut self, cx: &mut Context<'_>) -> bool {
        let in_line = StdType::ALL.iter().any(|std_type| self.assembler.undelivered(*std_type).1);
        let Some(front) = self.chain.links.front_mut().filter(|_| in_line) else { return false };
        let since = front.waited_at.filter(|(offset, _)| *offset == front.offset);
        let due_ms = since.map_or(cx.now.mono_ms + WRITER_GRACE_MS, |(_, due_ms)| due_ms);
        front.waited_at = Some((front.offset, due_ms));
        if due_ms <= cx.now.mono_ms {
            (front.last_look, front.unread) = (true, true);
        } else {
            cx.wake_by(self.stream, Purpose::LateWriter, due_ms);
        }
        true
    }

    /// Some of those listed grew since they were closed.
    pub(super) fn wait_for_late_writers(&mut self, cx: &mut Context<'_>) {
        let due_ms = cx.now.mono_ms + WRITER_GRACE_MS;
        for parked in self.chain.parked.iter_mut().filter(|parked| parked.due_ms.is_none()) {
            parked.due_ms = Some(due_ms);
            cx.wake_by(self.stream, Purpose::LateWriter, due_ms);
        }
    }

    /// inotify: a file that is not the live one was written to.
    pub fn on_rotated_grew(&mut self, cx: &mut Context<'_>, told: &mut Vec<SourceEvent>) {
        let parked = self.chain.parked.iter_mut().map(|parked| &mut parked.link);
        for link in self.chain.links.iter_mut().chain(parked).filter(|link| link.found.rank > 0) {
            link.unread = true;
        }
        let due_ms = (self.rotated_looked_ms + ROTATED_LOOK_MS).max(cx.now.mono_ms);
        self.look_at_rotated_by(due_ms, cx);
        // Those still open are read at once, before newer lines of the live file.
        self.go_on(cx, told);
    }

    pub(super) fn look_at_rotated_by(&mut self, due_ms: u64, cx: &mut Context<'_>) {
        if due_ms > cx.now.mono_ms {
            return cx.wake_by(self.stream, Purpose::LookAtRotated, due_ms);
        }
        cx.let_sleep(self.stream, Purpose::LookAtRotated);
        self.look_at_rotated(cx);
    }

    pub(super) fn look_at_rotated(&mut self, cx: &mut Context<'_>) {
        self.rotated_looked_ms = cx.now.mono_ms;
        self.scan(cx);
    }

    /// Goes on with a parked file that was written to, or whose time is over.
    pub(super) fn read_late_ones(&mut self, cx: &mut Context<'_>, told: &mut Vec<SourceEvent>) {
        let mut at = 0;
        while at < self.chain.parked.len() {
            let parked = &mut self.chain.parked[at];
            let due_ms = parked.due_ms.unwrap_or_default();
            let is_due = self.gone || due_ms <= cx.now.mono_ms;
            let link = &mut parked.link;
            let Handle::Open(file) = link.handle else {
                // Nothing is to be had of one that is gone before it was opened. One that waits for a descriptor gets it.
                let is_over = link.deleted || self.gone && !self.scanning && !link.is_to_be_opened();
                if link.handle == Handle::None && is_over {
                    let lost = self.chain.drop_parked(at);
                    self.declare(&Changes { lost, ..Changes::default() }, cx);
                } else {
                    at += 1;
                }
                continue;
            };
            if !is_due && !link.unread {
                cx.wake_by(self.stream, Purpose::LateWriter, due_ms);
                at += 1;
                continue;
            }
            let (is_read, is_watched) = (link.is_read(), !is_unwatched(link));
            let is_dockers = self.may_be_written_by_docker(&self.chain.parked[at].link);
            let is_held = is_dockers && !self.has_exited_since();
            if is_due && !self.gone && is_read && is_watched && is_held {
                let due_ms = cx.now.mono_ms + WRITER_GRACE_MS;
                self.chain.parked[at].due_ms = Some(due_ms);
                cx.wake_by(self.stream, Purpose::LateWriter, due_ms);
                at += 1;
                continue;
            }
            if is_due && !self.gone && is_read && is_watched {
                self.chain.close_parked(at);
                cx.act(Action::CloseFile { file });
                self.claim(cx);
                continue;
            }
            if !self.may_interrupt(at, told) {
                cx.wake_by(self.stream, Purpose::LateWriter, cx.now.mono_ms + ROTATED_LOOK_MS);
                return;
            }
            let is_left = self.is_of_container() && !is_dockers;
            let link = &mut self.chain.parked[at].link;
            let is_quiet = is_watched || link.quiet_looks >= ELSEWHERE_LOOKS;
            let is_over = is_quiet && !is_held || is_left || self.gone;
            (link.last_look, link.unread) = (is_due && is_over, true);
            self.chain.unpark(at);
            return;
        }
    }

    /// Lines of this parked file may come now: no line is left open, and a group of lines ends. Or it was read last, and
    /// goes on with what is open.
    fn may_interrupt(&mut self, at: usize, told: &mut Vec<SourceEvent>) -> bool {
        // What comes next was delivered in an earlier run: that must be said of the file it stands in.
        if self.reading.is_some() || self.chain.is_searching() || self.chain.is_within_delivered() {
            return false;
        }
        if self.chain.was_read_last(self.chain.parked[at].link.found.id) {
            return true;
        }
        self.leave_open_line(told);
        let open = StdType::ALL.map(|std_type| self.assembler.undelivered(std_type));
        if open.iter().any(|(_, in_line)| *in_line) {
            return false;
        }
        if open.iter().any(|(starts, _)| !starts.is_empty()) {
            self.end_all_groups(told);
        }
        true
    }

    /// A file was finished and brought no lines: the position is behind it all the same.
    pub(super) fn tell_moved_on(&mut self, told: &mut Vec<SourceEvent>) {
        if std::mem::take(&mut self.moved_on) {
            self.tell(Lines::default(), Vec::new(), 0, told);
        }
    }
}
