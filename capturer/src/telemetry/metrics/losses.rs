//! Losses: counted where they happen, and handed to the caller that knows their source.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{LossReason, Metrics};

impl LossReason {
    /// Reasons for which a loss may be only possible.
    pub(super) const POSSIBLE: [LossReason; 8] = [
        LossReason::FileGoneUnread,
        LossReason::FileUnreadable,
        LossReason::FileTruncated,
        LossReason::EngineSkippedRotation,
        LossReason::FileNeverOpened,
        LossReason::DockerDiskFull,
        LossReason::ContainerGoneUnread,
        LossReason::SpoolDamaged,
    ];

    /// A file was removed or emptied; whoever rotates it may have compressed it before.
    pub fn may_be_in_an_archive(self) -> bool {
        matches!(self, LossReason::FileGoneUnread | LossReason::FileTruncated)
    }

    /// The loss happened in a sink, after reading.
    fn is_of_sink(self) -> bool {
        use LossReason::{DeadLettersFull, SpoolDamaged, SpoolFull, SpoolTooOld};
        matches!(self, SpoolDamaged | SpoolFull | SpoolTooOld | DeadLettersFull)
    }
}

/// Losses that were counted and not yet passed to [`crate::telemetry::losses`].
#[derive(Debug, Default)]
pub(super) struct Untold {
    of_sources: AtomicBool,
    /// Their number and bytes, by reason and by whether they are only possible.
    by_reason: Mutex<BTreeMap<(LossReason, bool), (u64, u64)>>,
}

/// Losses of one reason since the last call.
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
    /// So many bytes of a source were lost; 0 = nobody knows how many.
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

    /// Counts a loss for the sinks that did not get the lines.
    pub fn lost_for(&self, sinks: &str, losses: u64, bytes: u64) {
        for sink in sinks.split(", ").filter(|sink| !sink.is_empty()) {
            self.sink_losses_total.with_label_values(&[sink]).inc_by(losses);
            self.sink_lost_bytes_total.with_label_values(&[sink]).inc_by(bytes);
        }
    }

    /// Losses of sources counted since the last call, for the caller that knows the source. Costs one atomic load if
    /// there are none.
    pub fn take_source_losses(&self) -> Vec<Lost> {
        if !self.untold.of_sources.swap(false, Ordering::Relaxed) {
            return Vec::new();
        }
        self.take_losses(false)
    }

    /// As [`Metrics::take_source_losses`], for losses within sinks.
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
