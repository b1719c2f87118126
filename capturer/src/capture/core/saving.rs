//! When a checkpoint is saved. This decides how much a crash repeats at sinks without marks, such as Loki.
//!
//! ```text
//! a position moved ─▶ the last save was ordered over a second ago, or a crash would repeat 1 MiB of a stream: now
//!                  ├▶ a file was read to its end and another begun: a tenth of a second after the last one
//!                  └▶ else: a second after the last one
//! a stream waits for its first batch ─▶ now; while others are being prepared too: with them, after 50 ms at most
//! ```
//! So the first of a run is saved at once, and an agent that dies again and again still makes progress. One save is
//! under way at a time; positions that move meanwhile are saved after it. shell/checkpoint/store.rs writes it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Capture;
use crate::capture::context::Timer;
use crate::capture::io::Action;
use crate::model::clock::Now;
use crate::model::cursor::Cursor;
use crate::model::record::{SavedMarks, StreamId};

/// A checkpoint is saved at most this long after a position moved, and no more often, unless a crash would repeat much.
const CHECKPOINT_INTERVAL_MS: u64 = 1_000;
/// The interval if a stream went on to another file. Once that file is renamed again, only the table of files read
/// shows which log it belongs to: after a crash a pattern may find it under a name that looks like a log of its own.
const WENT_ON_INTERVAL_MS: u64 = 100;
/// A stream that could begin waits this long for others that are being prepared, so that ten thousand files need few
/// checkpoints.
const GATHER_MS: u64 = 50;
/// Bytes of one stream's messages that a crash may repeat at sinks without marks.
const REPEATABLE_BYTES_MAX: u64 = 1024 * 1024;

/// The state of saving.
#[derive(Debug, Default)]
pub(super) struct Saving {
    /// The marks of outputs in the save under way.
    under_way: Option<Arc<SavedMarks>>,
    /// When the last one was ordered.
    ordered_ms: Option<u64>,
    /// Bytes of messages acknowledged since then, by stream, by sinks without marks.
    repeatable: BTreeMap<StreamId, u64>,
    /// The greatest of these.
    repeatable_most: u64,
    /// A stream went on to another file since then.
    went_on: bool,
    /// Since when a stream has waited for its first batch.
    urgent_since_ms: Option<u64>,
    /// Why the last save failed.
    error: Option<String>,
}

impl Saving {
    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// A sink without marks has acknowledged this much of a stream.
    pub(super) fn count_repeatable(&mut self, stream: StreamId, bytes: u64) {
        let repeatable = self.repeatable.entry(stream).or_default();
        *repeatable += bytes;
        self.repeatable_most = self.repeatable_most.max(*repeatable);
    }

    /// A sink has acknowledged lines up to this cursor.
    pub(super) fn note_end(&mut self, end: &Cursor) {
        self.went_on |= matches!(end, Cursor::File(end) if !end.done.is_empty());
    }

    /// When the save is due that streams wait for; `all`: no other stream is being prepared.
    fn urgent_due_ms(&self, since_ms: u64, all: bool, now: Now) -> u64 {
        match (&self.error, self.ordered_ms) {
            // A full disk stays full: these saves are tried no more often than others.
            (Some(_), Some(ordered_ms)) => ordered_ms + CHECKPOINT_INTERVAL_MS,
            _ if all => now.mono_ms,
            _ => since_ms + GATHER_MS,
        }
    }

    /// When to save what has moved.
    fn due_ms(&self, now: Now) -> u64 {
        let interval_ms = if self.went_on { WENT_ON_INTERVAL_MS } else { CHECKPOINT_INTERVAL_MS };
        match self.ordered_ms {
            Some(ordered_ms) if self.repeatable_most < REPEATABLE_BYTES_MAX => {
                now.mono_ms.max(ordered_ms + interval_ms)
            }
            _ => now.mono_ms,
        }
    }
}

impl Capture {
    /// Plans a save: a position has moved or was removed.
    pub(super) fn plan_save(&mut self, now: Now) {
        // While a save is under way, none can be ordered; its end plans the next.
        if !self.saving.is_under_way() {
            self.shared.timers.set_earlier(Timer::Checkpoint, self.saving.due_ms(now));
        }
    }

    /// A sink waits for a save, although nothing moved.
    pub(super) fn save_again(&mut self, now: Now) {
        self.tracker.save_again();
        self.plan_save(now);
    }

    /// Whether all streams have begun, everything there was is read and delivered, and every position is saved.
    pub fn has_settled(&self) -> bool {
        let is_saved = self.tracker.dirty_seq() <= self.tracker.saved_seq() && !self.saving.is_under_way();
        // A stream that has begun and read nothing has nothing to save.
        self.attaching.is_empty() && self.sums.busy().next().is_none() && is_saved
    }

    pub(super) fn save_if_urgent(&mut self, now: Now) {
        if self.to_begin.is_empty() || self.saving.is_under_way() {
            return;
        }
        let since_ms = *self.saving.urgent_since_ms.get_or_insert(now.mono_ms);
        let placed: usize = self.to_begin.values().map(Vec::len).sum();
        let due_ms = self.saving.urgent_due_ms(since_ms, placed >= self.attaching.len(), now);
        if due_ms <= now.mono_ms {
            self.save(now);
        } else {
            self.shared.timers.set_earlier(Timer::Checkpoint, due_ms);
        }
    }

    pub(super) fn save(&mut self, now: Now) {
        if self.saving.is_under_way() || self.tracker.dirty_seq() <= self.tracker.saved_seq() {
            return;
        }
        let seq = self.tracker.dirty_seq();
        let is_last = self.is_at_rest();
        if self.stopping.is_some() {
            self.note_lengths();
        }
        if is_last {
            // Saved whole, because the checkpoint says that its run ended cleanly.
            self.tracker.save_whole();
        }
        let mut checkpoint = self.tracker.next_checkpoint();
        checkpoint.clean = is_last;
        let gone = checkpoint.changes.as_ref().map(|gone| gone.outputs.clone());
        self.saving.under_way = Some(Arc::new(SavedMarks { outputs: checkpoint.outputs.clone(), gone }));
        self.saving.ordered_ms = Some(now.mono_ms);
        self.saving.urgent_since_ms = None;
        self.saving.repeatable.clear();
        self.saving.repeatable_most = 0;
        self.saving.went_on = false;
        self.shared.actions.push(Action::SaveCheckpoint { seq, checkpoint });
    }

    pub(super) fn on_saved(&mut self, now: Now, seq: u64, result: Result<(), String>) {
        let marks = self.saving.under_way.take();
        match result {
            Ok(()) => {
                self.shared.actions.extend(marks.map(Action::Saved));
                self.metrics.checkpoint_saves_total.inc();
                self.saving.error = None;
                self.tracker.on_saved(seq);
                if self.tracker.dirty_seq() > seq {
                    self.plan_save(now);
                }
            }
            Err(error) => {
                self.metrics.checkpoint_save_failures_total.inc();
                self.tracker.on_save_failed();
                // The log reports it once, /health for as long as it lasts.
                if self.saving.error.as_ref() != Some(&error) {
                    tracing::error!(
                        "the checkpoint can't be saved, a crash now would repeat records: {error}"
                    );
                }
                self.saving.error = Some(error);
                self.shared.timers.set_earlier(Timer::Checkpoint, now.mono_ms + CHECKPOINT_INTERVAL_MS);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due_ms(ordered_ms: Option<u64>, repeatable: &[(u32, u64)], now_ms: u64) -> u64 {
        let mut saving = Saving { ordered_ms, ..Saving::default() };
        for (stream, bytes) in repeatable {
            saving.count_repeatable(StreamId(*stream), *bytes);
        }
        saving.due_ms(Now { mono_ms: now_ms, ..Now::default() })
    }

    /// A new container once cost a whole processor on a host with a full disk.
    #[test]
    fn a_save_that_failed_is_tried_again_after_a_second_however_urgent() {
        let now = Now { mono_ms: 5_000, ..Now::default() };
        let mut saving = Saving { ordered_ms: Some(4_990), ..Saving::default() };
        assert_eq!([true, false].map(|all| saving.urgent_due_ms(4_980, all, now)), [5_000, 5_030]);
        saving.error = Some("no space left".to_owned());
        assert_eq!([true, false].map(|all| saving.urgent_due_ms(4_980, all, now)), [5_990; 2]);
    }

    #[test]
    fn a_save_is_due_at_once_or_a_second_after_the_last() {
        const MIB: u64 = REPEATABLE_BYTES_MAX;
        assert_eq!(due_ms(None, &[(1, 10)], 5), 5, "the first of a run");
        assert_eq!(due_ms(Some(5_000), &[(1, 10)], 5_300), 6_000, "shortly after another");
        assert_eq!(due_ms(Some(5_000), &[(1, 10)], 9_000), 9_000, "after a pause");
        assert_eq!(due_ms(Some(5_000), &[(1, MIB)], 5_300), 5_300, "much of one stream");
        assert_eq!(due_ms(Some(5_000), &[(1, MIB - 1), (1, 1)], 5_300), 5_300, "in two batches");
        assert_eq!(due_ms(Some(5_000), &[(1, MIB - 1), (2, MIB - 1)], 5_300), 6_000, "of two streams");
    }
}
