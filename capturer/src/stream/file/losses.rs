//! What people are told of a chain of files: what it lost, by name and bytes, and its row of `/api/v1/streams`.

use super::FileSource;
use super::hanging::SetAside;
use crate::capture::support::Context;
use crate::decode::timestamp;
use crate::metrics::LossReason;
use crate::status::StreamRow;
use crate::stream::chain::Changes;

impl FileSource {
    pub(super) fn declare(&self, changes: &Changes, cx: &Context<'_>) {
        for (name, bytes) in &changes.lost {
            cx.metrics.lost(LossReason::FileGoneUnread, *bytes);
            tracing::debug!(file = %format!("{}/{name}", self.directory), bytes, "lost: deleted before it was read");
        }
        if changes.resume_lost {
            cx.metrics.lost(LossReason::FileGoneUnread, 0);
            tracing::debug!(
                file = %format!("{}/{}", self.directory, self.live_name),
                "lost, an unknown number of bytes: the file of the saved position was rotated away while the agent did not run; going on with the oldest file there is"
            );
        }
        self.declare_truncation(changes.truncated, cx);
    }

    pub(super) fn declare_truncation(&self, truncated: Option<(u64, u64)>, cx: &Context<'_>) {
        if let Some((bytes, len)) = truncated {
            cx.metrics.lost(LossReason::FileTruncated, bytes);
            let file = format!("{}/{}", self.directory, self.live_name);
            tracing::debug!(file, bytes, len, "truncated from outside; reading it from its beginning");
        }
    }

    /// Fills its part of a row of `/api/v1/streams`.
    pub fn describe(&self, row: &mut StreamRow, now_ms: u64) {
        row.mode = "file".to_owned();
        row.lag_bytes = Some(self.chain.unread_bytes());
        row.operation = self.operation().to_owned();
        if !row.operation.is_empty() {
            row.operation_age_ms = Some(now_ms.saturating_sub(self.asked_ms));
        }
        if let Some(SetAside { place, operation, .. }) = &self.set_aside {
            row.set_aside = format!("{place} does not answer ({operation})");
        }
    }

    pub(super) fn declare_gap(&self, last_ns: i64, first_ns: i64, cx: &Context<'_>) {
        cx.metrics.lost(LossReason::EngineSkippedRotation, 0);
        tracing::debug!(
            file = %format!("{}/{}", self.directory, self.live_name),
            after = %timestamp::format(last_ns),
            before = %timestamp::format(first_ns),
            "lost, an unknown number of bytes: what was printed between these times was rotated away before it was read"
        );
    }
}
