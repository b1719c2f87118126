//! Decides who is next for what is scarce: connections, file systems that may hang, buffers, and bytes of deleted files
//! that are held open. `quiet_files.rs` does the same for open files.

use super::Capture;
use crate::capture::context::Timer;
use crate::capture::stream::Stream;
use crate::capture::stream::api::pace;
use crate::model::clock::Now;
use crate::model::record::StreamId;

impl Capture {
    /// Bounds how many bytes of deleted files each outlet holds open.
    pub(super) fn bound_deleted(&mut self, now: Now, changed: StreamId) {
        let held = |stream: &Stream| stream.unread_bytes().1;
        let Some(outlet) = self.streams.get(&changed).filter(|stream| held(stream) > 0) else { return };
        let outlet = outlet.source.outlet;
        let max = self.settings.deleted_open_bytes_max;
        let of_outlet = self.streams.iter().filter(|(_, stream)| stream.source.outlet == outlet);
        let mut by_stream: Vec<(u64, StreamId)> = of_outlet.map(|(id, stream)| (held(stream), *id)).collect();
        let total: u64 = by_stream.iter().map(|(bytes, _)| bytes).sum();
        let mut excess = total.saturating_sub(max);
        by_stream.sort_unstable_by_key(|(bytes, id)| (std::cmp::Reverse(*bytes), *id));
        for (_, id) in by_stream {
            if excess == 0 {
                return;
            }
            self.with_file(now, id, |file, cx, told| {
                excess = excess.saturating_sub(file.give_up_deleted(excess, cx, told));
            });
        }
    }

    pub(super) fn grant_slots(&mut self, now: Now) {
        loop {
            let granted = self.shared.pool.take_granted();
            if granted.is_empty() {
                return;
            }
            for id in granted {
                // It may have ended meanwhile, or read from files by now.
                let mut taken = false;
                self.with_api(now, id, |api, cx, told| {
                    taken = true;
                    api.on_slot(cx, told);
                });
                if !taken {
                    self.shared.pool.release();
                }
            }
        }
    }

    /// While there are more streams than slots, quiet ones give theirs to those that wait.
    pub(super) fn share_slots(&mut self, now: Now) {
        let wanted = self.streams.values().filter(|stream| stream.wants_slot()).count();
        if self.stopping.is_some() || !self.shared.pool.set_wanted(wanted) {
            return;
        }
        let mut waiting = self.shared.pool.waiting();
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        for id in ids {
            if waiting == 0 {
                break;
            }
            self.with_api(now, id, |api, cx, _| waiting -= usize::from(api.yield_slot(cx)));
        }
        self.shared.timers.set_earlier(Timer::Pool, now.mono_ms + pace::poll_ms(&self.settings));
    }

    /// Gives turns on file systems that may hang to the next in line.
    pub(super) fn grant_lanes(&mut self, now: Now) {
        while let Some(id) = self.shared.lanes.next_in_line() {
            self.with_file(now, id, |file, _, _| file.on_turn());
        }
    }

    /// Room for buffers was returned: waiting streams read on, one after the other.
    pub(super) fn feed_hungry(&mut self, now: Now) {
        for outlet in 0..self.outlets.len() {
            for _ in 0..self.outlets[outlet].hungry.len() {
                let Some(id) = self.outlets[outlet].next_fed() else { break };
                self.with_stream(now, id, Stream::pump);
            }
        }
    }
}
