//! Every metric the agent has: one list (`metrics!` below) makes the struct, its registration and the catalog
//! that the reference page, the dashboards and the alert rules are checked against, so a name can't drift.
//!
//! Label values are closed sets written as enums and created at zero at start, so that rates work from the first event
//! on. Two sets are open and bounded: sources (`source_*`, by_source.rs, filled by scrape.rs) and containers
//! (containers.rs).
//!
//! `source_*` is by source, however it is read. `container_stream_*` is about streams over the Engine's API, except
//! `container_stream_errors_total`, which counts errors of every stream. What a source does counts once, however many
//! outlets read it; errors count for each outlet.
//!
//! Not here: deciding when something counts. Each part counts at the place where the thing happens.

mod by_source;
mod containers;
pub(crate) mod furthest;
mod kinds;
mod losses;
mod pipelines;
mod scrape;
mod series;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Mutex;

use prometheus::core::Collector;
use prometheus::proto::{LabelPair, Metric, MetricFamily};
use prometheus::{
    Counter, Encoder as _, Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    TextEncoder,
};

use by_source::{SourceCounter, SourceGauge};
use containers::ContainerSeries;
use kinds::Make;
pub use kinds::{Entry, Kind, Unit};
pub use losses::Lost;
use losses::Untold;
pub use pipelines::{Drops, Work};
pub use series::closed_sets;
pub use values::{
    DeadLetterReason, LossReason, PassedOver, PushFailure, ReloadResult, RequestResult, SkipReason,
    StreamError, UnreadableReason,
};

use crate::ledger::Resource;

/// The prefix of every name.
pub const PREFIX: &str = "log_capturer_";
/// Longest label value in bytes. Docker accepts names of up to 60,004 bytes.
pub const LABEL_BYTES_MAX: usize = 128;
/// The label value for all containers beyond `metrics.max_containers`.
pub const OTHER: &str = "other";

/// Makes [`Metrics`], its constructor and [`CATALOG`] from one list: `name: type [labels] unit "help";`.
macro_rules! metrics {
    ($($name:ident: $type:ident [$($label:literal),*] $unit:ident $help:literal;)*) => {
        /// All metrics, in the order in which the reference page shows them.
        pub const CATALOG: &[Entry] = &[$(Entry {
            name: concat!("log_capturer_", stringify!($name)),
            kind: <$type as Make>::KIND,
            labels: &[$($label),*],
            unit: Unit::$unit,
            help: $help,
        }),*];

        /// The agent's metrics, shared by all threads. Counting takes no lock, except for series by container.
        pub struct Metrics {
            containers: Mutex<ContainerSeries>,
            sources: Mutex<scrape::Sources>,
            network_sinks: Mutex<BTreeSet<String>>,
            untold: Untold,
            $(#[doc = $help] pub $name: $type,)*
        }

        impl Metrics {
            fn make(containers: Mutex<ContainerSeries>) -> prometheus::Result<Metrics> {
                let mut entries = CATALOG.iter();
                $(
                    let entry = entries.next().expect("the catalog and this code come from the same list");
                    let $name = <$type as Make>::make(entry)?;
                )*
                let (sources, network_sinks) = (Mutex::default(), Mutex::default());
                Ok(Metrics { containers, sources, network_sinks, untold: Untold::default(), $($name,)* })
            }

            /// Passes each metric that has series to `take`, one at a time: all of them together would be megabytes
            /// with hundreds of sources.
            fn each_family(&self, mut take: impl FnMut(MetricFamily)) {
                $(sorted(self.$name.collect()).for_each(&mut take);)*
            }

            /// Drops the series with these values from every metric with exactly these labels, so that a new metric in
            /// the list is covered.
            fn forget_series(&self, labels: &[&str], values: &[&str]) {
                $(
                    if labels == <[&str]>::as_ref(&[$($label),*]) {
                        self.$name.forget(values);
                    }
                )*
            }
        }
    };
}

metrics! {
    build_info: IntGaugeVec ["version", "commit"] Flag
        "Always 1; the labels name the version that runs and the commit it was built from.";
    process_start_time_seconds: Gauge [] Seconds "When this process began, seconds since 1970.";
    process_cpu_seconds_total: Counter [] Seconds "Processor time used by all threads of this process.";
    config_last_reload_successful: IntGauge [] Flag
        "1 = the config that was read last is in use, 0 = it was refused or could not be started.";
    config_last_reload_success_timestamp_seconds: Gauge [] Seconds
        "When the config in use was read, seconds since 1970.";
    config_reloads_total: IntCounterVec ["result"] Count "Reloads that were requested, by outcome.";
    component_health: IntGaugeVec ["component"] Flag
        "1 = the component is healthy, 0 = it is not; /health says why.";
    containers_monitored: IntGauge [] Count "Running containers that are captured.";
    files_monitored: IntGauge [] Count "Files followed for file_monitor.";
    sources_unreadable: IntGaugeVec ["reason"] Count
        "Files, containers' logs and directories that should be read but can't be. The health of `files` names them; the health of `containers` names those with reason `driver`, `missing` and `other`.";
    patterns_unmatched: IntGauge [] Count
        "Patterns of file_monitor that have matched no file for a minute. The health of `files` names them.";
    paths_passed_over: IntGaugeVec ["reason"] Count
        "Paths that patterns of file_monitor match but that are not followed. `capturer check` names them.";
    directories_unwatched: IntGauge [] Count
        "Directories that inotify can't watch, because it is missing or at its limit; they are listed from time to time instead.";
    streams_stuck: IntGauge [] Count
        "Streams that have had something to read for 10 s and read nothing, although no sink holds them up.";
    streams: IntGaugeVec ["state"] Count
        "Sources by the state of their stream. One that is read for several outlets counts once.";
    source_lines_total: SourceCounter ["container_id", "container_name", "path"] Count
        "Log records read, by source: a container, or a file of file_monitor. Sources beyond metrics.max_containers share one series, `other`.";
    source_bytes_total: SourceCounter ["container_id", "container_name", "path"] Bytes
        "Bytes of log messages read, by source.";
    source_lag_bytes: SourceGauge ["container_id", "container_name", "path"] Bytes
        "Bytes on disk that a sink has not acknowledged yet, by source; absent for sources read over the API.";
    source_lag_seconds: SourceGauge ["container_id", "container_name", "path"] Seconds
        "Age of the oldest record that was read and is not acknowledged yet, by source.";
    source_last_line_timestamp_seconds: SourceGauge ["container_id", "container_name", "path"] Seconds
        "When a source's last line was read, seconds since 1970. Absent before the first line of this run.";
    source_losses_total: SourceCounter ["container_id", "container_name", "path"] Count
        "Losses declared, by source, while the source is there; losses_total keeps counting them afterwards.";
    source_lost_bytes_total: SourceCounter ["container_id", "container_name", "path"] Bytes
        "Bytes lost, by source, where their number is known.";
    sources_in_other: IntGauge [] Count
        "Sources that share the series `other`, because metrics.max_containers others have series of their own.";
    logs_processed_total: IntCounter [] Count
        "Log records read from all sources. What is read for several sinks counts once.";
    log_bytes_processed_total: IntCounter [] Bytes "Bytes of log messages read from all sources. What is read for several sinks counts once.";
    logs_sent_total: IntCounterVec ["sink"] Count "Log records that a sink acknowledged. A network sink does so when they are in its spool (see pushed_lines_total).";
    log_bytes_sent_total: IntCounterVec ["sink"] Bytes "Bytes of log messages that a sink acknowledged.";
    delivered_lines_total: IntCounterVec ["sink"] Count
        "Log records written to a file or to standard output, or accepted by the server of a network sink. Those that only went into a spool do not count.";
    pipeline_lines_in_total: IntCounterVec ["sink", "pipeline"] Count
        "Lines that entered a pipeline on their way to a sink; pipeline_lines_total says what its steps did to them.";
    pipeline_lines_total: IntCounterVec ["sink", "pipeline", "step", "outcome"] Count
        "Lines by what a step of a pipeline did to them on their way to a sink. Those dropped are part of logs_processed_total and not of logs_sent_total.";
    lost_bytes_total: IntCounterVec ["reason"] Bytes
        "Bytes of sources that were lost, where their number is known; losses_total counts the others too.";
    losses_total: IntCounterVec ["reason"] Count
        "Losses declared, including those whose number of bytes is not known. Anything above zero is worth an alert.";
    sink_losses_total: IntCounterVec ["sink"] Count
        "Losses declared, by the sink that did not get the lines. A loss that hit two sinks counts for both.";
    sink_lost_bytes_total: IntCounterVec ["sink"] Bytes
        "Bytes lost, by the sink that did not get them, where their number is known.";
    possible_losses_total: IntCounterVec ["reason"] Count
        "Files that were rewritten or removed, and containers removed, before the agent could see whether all of them had been read; spools that were removed or end within a record.";
    skipped_records_total: IntCounterVec ["reason"] Count
        "Records of a source that could not be used and were skipped.";
    duplicates_dropped_total: IntCounter [] Count
        "Records that a source sent again after a reconnect and that were recognized and dropped.";
    lines_truncated_total: IntCounter [] Count "Lines cut at limits.line_bytes_max.";
    invalid_utf8_replaced_total: IntCounter [] Count
        "Replacement characters (U+FFFD) that sinks wrote for bytes that are not UTF-8; each sink counts its own.";
    capture_lag_bytes: IntGauge [] Bytes "Bytes on disk that no sink has acknowledged yet, all files together.";
    capture_lag_seconds: Gauge [] Seconds "Age of the oldest record that was read and is not acknowledged yet.";
    deleted_open_bytes: IntGauge [] Bytes
        "Bytes of deleted log files that are held open until they are read to their end.";
    buffer_bytes: IntGauge [] Bytes "Buffers in use for what was read and is not acknowledged yet.";
    buffer_limit_bytes: IntGauge [] Bytes "How large the buffers may be in total (limits.buffer_bytes_max).";
    container_streams_active: IntGauge [] Count "Container streams that are open.";
    container_stream_pool_utilization: Gauge [] Ratio
        "Used share of container_monitor.stream_rotation.max_concurrent_streams.";
    container_stream_rotations_total: IntCounterVec ["container_id", "container_name"] Count
        "Planned reconnects of a container's stream. Containers beyond metrics.max_containers share one series.";
    container_stream_age_seconds: Histogram [] Seconds "Age of a container stream's connection when it was closed.";
    container_stream_errors_total: IntCounterVec ["error_type"] Count "Errors of streams, of containers and of followed files.";
    stream_read_timeouts_total: IntCounter [] Count
        "Reads that timed out because nothing came. Usual for quiet containers.";
    rate_limit_waits_total: IntCounter [] Count
        "Times that reading a source began to wait because its pipeline's rate_limit was reached.";
    docker_requests_total: IntCounterVec ["result"] Count "Requests to the Docker Engine.";
    sink_batches_waiting: IntGaugeVec ["sink"] Count "Batches handed to a sink and not acknowledged yet.";
    sink_errors_total: IntCounterVec ["sink"] Count "Failed attempts of a sink to deliver; they are tried again.";
    outputs_blocked: IntGaugeVec ["sink"] Count
        "Outputs of a sink that can't be written to; `/health` names the cause and what to do. Their sources wait, others are delivered.";
    push_requests_total: IntCounterVec ["sink"] Count "Requests that a network sink sent, answered or not.";
    push_request_bytes_total: IntCounterVec ["sink"] Bytes "Bytes of request bodies that a network sink sent, before compression.";
    push_duration_seconds: HistogramVec ["sink"] Seconds "How long a request took until it was answered or given up.";
    push_failures_total: IntCounterVec ["sink", "reason"] Count
        "Requests of a network sink that failed; they are sent again until accepted.";
    pushed_lines_total: IntCounterVec ["sink"] Count "Lines that the server of a network sink accepted.";
    dead_letters_total: IntCounterVec ["sink", "reason"] Count
        "Lines that the server refused for good; they are in the dead letters with its own words.";
    dead_letters_bytes: IntGaugeVec ["sink"] Bytes "Size of the dead letters on disk (capturer dead-letters).";
    dead_letters_limit_bytes: IntGaugeVec ["sink"] Bytes "How large the dead letters may be. Beyond that the oldest are deleted, which is a loss.";
    spool_limit_bytes: IntGaugeVec ["sink"] Bytes "How large a sink's spool may be.";
    spool_bytes: IntGaugeVec ["sink"] Bytes "Size of a sink's spool on disk.";
    spool_lag_seconds: IntGaugeVec ["sink"] Seconds
        "Age of the oldest line in a sink's spool that was not delivered yet; 0 = there is none.";
    tap_watchers: IntGauge [] Count "Live views of records (/api/v1/tap) that are open.";
    tap_skipped_lines_total: IntCounter [] Count
        "Records that a live view skipped because it did not read fast enough. Nothing else was held up or lost.";
    checkpoint_saves_total: IntCounter [] Count "Checkpoints saved.";
    checkpoint_save_failures_total: IntCounter [] Count
        "Checkpoints that could not be saved; a crash now would repeat records.";
    task_heartbeats_total: IntCounterVec ["task"] Count "Turns of each long-lived task. If it does not rise, the task is stuck.";
    tasks: IntGauge [] Count "Tasks of the capture loop.";
    operations_in_flight: IntGauge [] Count "Kernel operations that were started and have not ended.";
    read_timers_refused_total: IntCounter [] Count
        "Reads that the kernel began without their timer. Must stay 0: such a read from a silent peer would wait for ever.";
    file_descriptors_limit: IntGauge [] Count "How many file descriptors this process may have.";
    files_waiting_for_descriptors: IntGauge [] Count
        "Files to be read that wait until another is closed, because the limit is nearly reached.";
    file_descriptors_open: IntGauge [] Count "Open file descriptors of this process, from /proc/self/fd.";
    threads: IntGauge [] Count "Threads of this process.";
    resident_memory_bytes: IntGauge [] Bytes "Resident memory of this process.";
    leak_detection: IntGaugeVec ["resource"] Flag "1 = more of this resource is held than the agent's work explains; the agent's log names the leak.";
    probe_tier: IntGaugeVec ["tier"] Flag "1 for the tier with which the agent watches its own descriptors.";
    kernel_fds_open: IntGaugeVec ["owner"] Count "Descriptors that the kernel saw opened and not released, by owner.";
    kernel_fd_opened_total: IntCounterVec ["owner"] Count
        "Descriptors opened, by owner, as the kernel counted them (tier procfs: as they were claimed). Owner `unknown`: opened and closed within one step of work, or claimed by no part.";
    kernel_fd_closed_total: IntCounterVec ["owner"] Count
        "Descriptors closed, by owner, as the kernel counted them (tier procfs: as their claims ended).";
    kernel_fd_drift: IntGauge [] Count "Descriptors by the kernel's account minus those in /proc/self/fd; 0 is right.";
}

/// Families that have samples, sorted by labels, because the vectors have no order.
fn sorted(families: Vec<MetricFamily>) -> impl Iterator<Item = MetricFamily> {
    families.into_iter().filter(|family| !family.get_metric().is_empty()).map(|mut family| {
        let mut samples = family.take_metric();
        samples.sort_by(|one, other| values(one).cmp(values(other)));
        family.set_metric(samples);
        family
    })
}

fn values(sample: &Metric) -> impl Iterator<Item = &str> {
    sample.get_label().iter().map(LabelPair::value)
}

impl Metrics {
    /// Makes all metrics. At most `containers_max` containers get series of their own.
    pub fn new(containers_max: usize) -> prometheus::Result<Metrics> {
        let containers = ContainerSeries { containers_max, names: BTreeMap::new() };
        let metrics = Metrics::make(Mutex::new(containers))?;
        metrics.create_closed_sets();
        metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION"), env!("CAPTURER_COMMIT")]).set(1);
        Ok(metrics)
    }

    /// All metrics, for the reference page.
    pub fn catalog() -> &'static [Entry] {
        CATALOG
    }

    /// Writes the text exposition format.
    pub fn write_to(&self, text: &mut impl Write) {
        let encoder = TextEncoder::new();
        self.each_family(|family| {
            // Can't happen with a family that has samples. Nobody reads a comment in the exposition, so log it, too.
            if let Err(error) = encoder.encode(&[family], text) {
                tracing::error!(%error, "metrics could not be encoded");
                let _ = writeln!(text, "# metrics could not be encoded: {error}");
            }
        });
    }

    /// The exposition as one string.
    #[cfg(test)]
    pub fn encode(&self) -> String {
        let mut text = Vec::new();
        self.write_to(&mut text);
        String::from_utf8(text).expect("labels are UTF-8")
    }

    /// A container stream had an error.
    pub fn stream_error(&self, error: StreamError) {
        self.container_stream_errors_total.with_label_values(&[error.as_str()]).inc();
    }

    /// So many records were skipped.
    pub fn skipped(&self, reason: SkipReason, records: u64) {
        self.skipped_records_total.with_label_values(&[reason.as_str()]).inc_by(records);
    }

    /// A request to the Engine ended.
    pub fn docker_request(&self, result: RequestResult) {
        self.docker_requests_total.with_label_values(&[result.as_str()]).inc();
    }

    /// Whether a resource seems to leak.
    pub fn leak(&self, resource: Resource, leaks: bool) {
        self.leak_detection.with_label_values(&[resource.as_str()]).set(i64::from(leaks));
    }

    /// A long-lived task made a turn.
    pub fn heartbeat(&self, task: &str) {
        self.task_heartbeats_total.with_label_values(&[task]).inc();
    }

    /// It made this many turns since.
    pub fn heartbeats(&self, task: &str, turns: u64) {
        self.task_heartbeats_total.with_label_values(&[task]).inc_by(turns);
    }

    /// The result of a reload, and when a config was taken into use, in seconds since 1970.
    pub fn reload(&self, result: ReloadResult, now_s: f64) {
        self.config_reloads_total.with_label_values(&[result.as_str()]).inc();
        let in_use = matches!(result, ReloadResult::Applied | ReloadResult::Unchanged);
        self.config_last_reload_successful.set(i64::from(in_use));
        if in_use {
            self.config_last_reload_success_timestamp_seconds.set(now_s);
        }
    }
}

/// A label value of bounded length, cut between characters.
fn cap(value: &str) -> &str {
    &value[..value.floor_char_boundary(LABEL_BYTES_MAX)]
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
