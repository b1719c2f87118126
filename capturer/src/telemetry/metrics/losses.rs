//! Losses, counted where they happen and handed to whoever knows whose they are.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{LossReason, Metrics};

impl LossReason {
    /// Those that nobody may be able to know.
    pub(super) const POSSIBLE: [LossReason; 5] = [
        LossReason::FileGoneUnread,
        LossReason::FileTruncated,
        LossReason::FileNeverOpened,
        LossReason::ContainerGoneUnread,
        LossReason::SpoolDamaged,
    ];

    /// A file went or was emptied: whoever rotates it may have packed it before.
    pub fn may_be_in_an_archive(self) -> bool {
        matches!(self, LossReason::FileGoneUnread | LossReason::FileTruncated)
    }

    /// It happened in a sink, behind the reading of sources.
    fn is_of_sink(self) -> bool {
        use LossReason::{DeadLettersFull, SpoolDamaged, SpoolFull, SpoolTooOld};
        matches!(self, SpoolDamaged | SpoolFull | SpoolTooOld | DeadLettersFull)
    }
}

/// Losses that were counted and not yet told to [`crate::telemetry::losses`]: how many of each reason, and their bytes.
#[derive(Debug, Default)]
pub(super) struct Untold {
    of_sources: AtomicBool,
    /// By reason, and whether it is only possible: how many, and their bytes.
    by_reason: Mutex<BTreeMap<(LossReason, bool), (u64, u64)>>,
}

/// Losses of one reason that were counted since somebody asked last.
#[derive(Clone, Copy, Debug)]
pub struct Lost {
    /// Why they were lost.
    pub reason: LossReason,
    /// Nobody can know whether anything was lost.
    pub possible: bool,
    /// How many were counted.
    pub losses: u64,
    /// Bytes of all of them.
    pub bytes: u64,
}

impl Metrics {
    /// This many bytes of source were lost; 0 = nobody knows how many.
    pub fn lost(&self, reason: LossReason, bytes: u64) {
        self.losses_total.with_label_values(&[reason.as_str()]).inc();
        self.lost_bytes_total.with_label_values(&[reason.as_str()]).inc_by(bytes);
        self.untold(reason, false, bytes);
    }

    fn untold(&self, reason: LossReason, possible: bool, bytes: u64) {
        let mut untold = self.untold.by_reason.lock().unwrap_or_else(PoisonError::into_inner);
        let (losses, all_bytes) = untold.entry((reason, possible)).or_default();
        (*losses, *all_bytes) = (*losses + 1, *all_bytes + bytes);
        if !reason.is_of_sink() {
            self.untold.of_sources.store(true, Ordering::Relaxed);
        }
    }

    /// Which sinks did not get what was lost.
    pub fn lost_for(&self, sinks: &str, losses: u64, bytes: u64) {
        for sink in sinks.split(", ").filter(|sink| !sink.is_empty()) {
            self.sink_losses_total.with_label_values(&[sink]).inc_by(losses);
            self.sink_lost_bytes_total.with_label_values(&[sink]).inc_by(bytes);
        }
    }

    /// Losses of sources counted since the last call: the caller knows whose they are. Costs a load while there is none.
    pub fn take_source_losses(&self) -> Vec<Lost> {
        if !self.untold.of_sources.swap(false, Ordering::Relaxed) {
            return Vec::new();
        }
        self.take_losses(false)
    }

    /// The same for losses within sinks.
    pub fn take_sink_losses(&self) -> Vec<Lost> {
        self.take_losses(true)
    }

    fn take_losses(&self, of_sinks: bool) -> Vec<Lost> {
        let mut untold = self.untold.by_reason.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = untold.extract_if(.., |(reason, _), _| reason.is_of_sink() == of_sinks);
        let lost = |((reason, possible), (losses, bytes))| Lost { reason, possible, losses, bytes };
        taken.map(lost).collect()
    }

    /// Something may have been lost; nobody can know.
    pub fn possibly_lost(&self, reason: LossReason) {
        self.possible_losses_total.with_label_values(&[reason.as_str()]).inc();
        self.untold(reason, true, 0);
    }
}
