//! Series that exist before their first event, and series of sinks that come and go.

use std::sync::PoisonError;

use prometheus::{IntCounter, IntGaugeVec};

use super::{
    DeadLetterReason, LossReason, Metrics, PassedOver, PushFailure, ReloadResult, RequestResult, SkipReason,
    StreamError, UnreadableReason,
};
use crate::ledger::{Owner, Resource};
use crate::telemetry::metrics::scrape::STATES;

impl Metrics {
    /// A series that appears with its first event has no rate for that event.
    pub(super) fn create_closed_sets(&self) {
        for value in StreamError::ALL {
            self.container_stream_errors_total.with_label_values(&[value.as_str()]);
        }
        for value in SkipReason::ALL {
            self.skipped_records_total.with_label_values(&[value.as_str()]);
        }
        for value in LossReason::ALL {
            self.lost_bytes_total.with_label_values(&[value.as_str()]);
            self.losses_total.with_label_values(&[value.as_str()]);
        }
        for value in PassedOver::ALL {
            self.paths_passed_over.with_label_values(&[value.as_str()]);
        }
        for value in UnreadableReason::ALL {
            self.sources_unreadable.with_label_values(&[value.as_str()]);
        }
        for value in LossReason::POSSIBLE {
            self.possible_losses_total.with_label_values(&[value.as_str()]);
        }
        for value in RequestResult::ALL {
            self.docker_requests_total.with_label_values(&[value.as_str()]);
        }
        for class in Owner::CLASSES {
            self.kernel_fds_open.with_label_values(&[class]);
            self.kernel_fd_opened_total.with_label_values(&[class]);
            self.kernel_fd_closed_total.with_label_values(&[class]);
        }
        for value in ReloadResult::ALL {
            self.config_reloads_total.with_label_values(&[value.as_str()]);
        }
        for value in Resource::ALL {
            self.leak_detection.with_label_values(&[value.as_str()]);
        }
    }

    /// Creates a sink's series at zero.
    pub fn expect_sink(&self, sink: &str) {
        self.logs_sent_total.with_label_values(&[sink]);
        self.log_bytes_sent_total.with_label_values(&[sink]);
        self.delivered_lines_total.with_label_values(&[sink]);
        self.sink_losses_total.with_label_values(&[sink]);
        self.sink_lost_bytes_total.with_label_values(&[sink]);
        self.sink_errors_total.with_label_values(&[sink]);
        self.outputs_blocked.with_label_values(&[sink]);
        self.sink_batches_waiting.with_label_values(&[sink]);
    }

    /// Lines and bytes that a sink acknowledged: counters that are looked up once and not with every batch.
    pub fn sent_by(&self, sink: &str) -> [IntCounter; 2] {
        [&self.logs_sent_total, &self.log_bytes_sent_total].map(|counter| counter.with_label_values(&[sink]))
    }

    /// Creates the series of a network sink at zero.
    pub fn expect_network_sink(&self, sink: &str) {
        for reason in PushFailure::ALL {
            self.push_failures_total.with_label_values(&[sink, reason.as_str()]);
        }
        for reason in DeadLetterReason::ALL {
            self.dead_letters_total.with_label_values(&[sink, reason.as_str()]);
        }
        for counter in [&self.push_requests_total, &self.push_request_bytes_total, &self.pushed_lines_total] {
            counter.with_label_values(&[sink]);
        }
        for gauge in self.spool_gauges() {
            gauge.with_label_values(&[sink]);
        }
        self.push_duration_seconds.with_label_values(&[sink]);
        self.network_sinks.lock().unwrap_or_else(PoisonError::into_inner).insert(sink.to_owned());
    }

    /// Gauges that only a network sink has.
    fn spool_gauges(&self) -> [&IntGaugeVec; 5] {
        [
            &self.spool_bytes,
            &self.spool_limit_bytes,
            &self.spool_lag_seconds,
            &self.dead_letters_bytes,
            &self.dead_letters_limit_bytes,
        ]
    }

    /// A sink no longer exists: drops its series.
    pub fn forget_sink(&self, sink: &str) {
        self.forget_series(&["sink"], &[sink]);
        self.network_sinks.lock().unwrap_or_else(PoisonError::into_inner).remove(sink);
        for reason in PushFailure::ALL {
            let _ = self.push_failures_total.remove_label_values(&[sink, reason.as_str()]);
        }
        for reason in DeadLetterReason::ALL {
            let _ = self.dead_letters_total.remove_label_values(&[sink, reason.as_str()]);
        }
        for task in [format!("sink_{sink}"), format!("{sink}_push")] {
            let _ = self.task_heartbeats_total.remove_label_values(&[&task]);
        }
    }
}

/// Labels whose values are fixed, by metric, for the reference page.
pub fn closed_sets() -> Vec<(&'static str, &'static str, Vec<&'static str>)> {
    let losses = || LossReason::ALL.iter().map(|v| v.as_str()).collect();
    vec![
        ("streams", "state", STATES.to_vec()),
        (
            "container_stream_errors_total",
            "error_type",
            StreamError::ALL.iter().map(|v| v.as_str()).collect(),
        ),
        ("losses_total", "reason", losses()),
        ("lost_bytes_total", "reason", losses()),
        ("possible_losses_total", "reason", LossReason::POSSIBLE.iter().map(|v| v.as_str()).collect()),
        ("skipped_records_total", "reason", SkipReason::ALL.iter().map(|v| v.as_str()).collect()),
        ("sources_unreadable", "reason", UnreadableReason::ALL.iter().map(|v| v.as_str()).collect()),
        ("paths_passed_over", "reason", PassedOver::ALL.iter().map(|v| v.as_str()).collect()),
        ("push_failures_total", "reason", PushFailure::ALL.iter().map(|v| v.as_str()).collect()),
        ("dead_letters_total", "reason", DeadLetterReason::ALL.iter().map(|v| v.as_str()).collect()),
        ("docker_requests_total", "result", RequestResult::ALL.iter().map(|v| v.as_str()).collect()),
        ("config_reloads_total", "result", ReloadResult::ALL.iter().map(|v| v.as_str()).collect()),
        ("leak_detection", "resource", Resource::ALL.iter().map(|v| v.as_str()).collect()),
        ("kernel_fds_open", "owner", Owner::CLASSES.to_vec()),
        ("kernel_fd_opened_total", "owner", Owner::CLASSES.to_vec()),
        ("kernel_fd_closed_total", "owner", Owner::CLASSES.to_vec()),
    ]
}
