//! Every metric the agent has: one list (`metrics!` below) makes the struct, its registration and the catalog
//! that the reference page, the dashboards and the alert rules are checked against, so a name can't drift.
//!
//! Label values are closed sets written as enums, created at zero at start so that rates work from the first
//! event on. Two sets are open, and both bounded: sources (`source_*`, scrape.rs) and containers (containers.rs).
//!
//! `source_*` is by source, whatever it is read from; `container_stream_*` is about streams over the Engine's API.
//!
//! Not here: deciding when something counts. Each part counts at the place where the thing happens.

mod containers;
pub(crate) mod furthest;
mod losses;
mod pipelines;
mod scrape;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::{
    Counter, Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use containers::ContainerSeries;
pub use losses::Lost;
use losses::Untold;
pub use pipelines::Drops;
pub use scrape::closed_sets;

use crate::ledger::{Owner, Resource};
use crate::text::label_values::label_values;

/// What every name begins with.
pub const PREFIX: &str = "log_capturer_";
/// Longest label value in bytes. Docker accepts names of up to 60,004 bytes.
pub const LABEL_BYTES_MAX: usize = 128;
/// Stands for all containers beyond `metrics.max_containers`.
pub const OTHER: &str = "other";

/// One metric as the reference page shows it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Full name, with the prefix.
    pub name: &'static str,
    /// What it is in the exposition.
    pub kind: Kind,
    /// Names of its labels, in order.
    pub labels: &'static [&'static str],
    /// What the number is in.
    pub unit: Unit,
    /// What it says, in a sentence or two.
    pub help: &'static str,
}

/// Type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    /// As Prometheus writes it in a TYPE line.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// What a metric's number is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A count of things.
    Count,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// 0 to 1.
    Ratio,
    /// 0 or 1.
    Flag,
}

impl Unit {
    /// For the reference page.
    pub fn as_str(self) -> &'static str {
        match self {
            Unit::Count => "count",
            Unit::Bytes => "bytes",
            Unit::Seconds => "seconds",
            Unit::Ratio => "0 to 1",
            Unit::Flag => "0 or 1",
        }
    }
}

/// Upper bounds of the age histogram: the Go agent's 60 to 360, and finer ones below.
const AGE_BUCKETS: [f64; 10] = [1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0];

/// Upper bounds of the histogram of pushes: a Loki nearby answers in milliseconds, one that is overloaded in many seconds.
const PUSH_BUCKETS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0];

/// Makes a metric of one type from its entry.
trait Make: Collector + Clone + Sized + 'static {
    const KIND: Kind;
    fn make(entry: &Entry) -> prometheus::Result<Self>;
    /// Drops the series with these label values, if it has labels.
    fn forget(&self, values: &[&str]);
}

macro_rules! make {
    ($type:ty, $kind:ident, $entry:ident => $make:expr) => {
        make!($type, $kind, $entry => $make, (_metric, _values) => {});
    };
    ($type:ty [labels], $kind:ident, $entry:ident => $make:expr) => {
        make!($type, $kind, $entry => $make, (metric, values) => drop(metric.remove_label_values(values)));
    };
    ($type:ty, $kind:ident, $entry:ident => $make:expr, ($metric:ident, $values:ident) => $forget:expr) => {
        impl Make for $type {
            const KIND: Kind = Kind::$kind;
            fn make($entry: &Entry) -> prometheus::Result<Self> {
                $make
            }
            fn forget(&self, $values: &[&str]) {
                let $metric = self;
                $forget
            }
        }
    };
}

make!(IntCounter, Counter, entry => IntCounter::new(entry.name, entry.help));
make!(IntCounterVec [labels], Counter, entry => IntCounterVec::new(Opts::new(entry.name, entry.help), entry.labels));
make!(IntGauge, Gauge, entry => IntGauge::new(entry.name, entry.help));
make!(IntGaugeVec [labels], Gauge, entry => IntGaugeVec::new(Opts::new(entry.name, entry.help), entry.labels));
make!(Counter, Counter, entry => Counter::new(entry.name, entry.help));
make!(GaugeVec [labels], Gauge, entry => GaugeVec::new(Opts::new(entry.name, entry.help), entry.labels));
make!(Gauge, Gauge, entry => Gauge::new(entry.name, entry.help));
make!(Histogram, Histogram, entry => {
    Histogram::with_opts(HistogramOpts::new(entry.name, entry.help).buckets(AGE_BUCKETS.to_vec()))
});
make!(HistogramVec [labels], Histogram, entry => {
    let options = HistogramOpts::new(entry.name, entry.help).buckets(PUSH_BUCKETS.to_vec());
    HistogramVec::new(options, entry.labels)
});

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

        /// The agent's metrics. Shared by all threads; counting takes no lock but for per-container series.
        pub struct Metrics {
            /// What [`Metrics::encode`] gathers from.
            pub registry: Registry,
            containers: Mutex<ContainerSeries>,
            sources: Mutex<scrape::Sources>,
            network_sinks: Mutex<BTreeSet<String>>,
            untold: Untold,
            $(#[doc = $help] pub $name: $type,)*
        }

        impl Metrics {
            fn register(registry: Registry, containers: Mutex<ContainerSeries>) -> prometheus::Result<Metrics> {
                let mut entries = CATALOG.iter();
                $(
                    let entry = entries.next().expect("the catalog and this code come from the same list");
                    let $name = <$type as Make>::make(entry)?;
                    registry.register(Box::new($name.clone()))?;
                )*
                let (sources, network_sinks) = (Mutex::default(), Mutex::default());
                Ok(Metrics { registry, containers, sources, network_sinks, untold: Untold::default(), $($name,)* })
            }

            /// Drops the series with these values from every metric that has just these labels: one that is added to the list
            /// is dropped with the others.
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
        "1 = the component is well, 0 = it needs attention; /health says why.";
    containers_monitored: IntGauge [] Count "Running containers that are captured.";
    files_monitored: IntGauge [] Count "Files followed for file_monitor.";
    sources_unreadable: IntGaugeVec ["reason"] Count
        "Files, containers' logs and directories that should be read but can't be. The health of `files` names them; the health of `containers` names those with reason `driver` and `missing`.";
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
    source_lines_total: IntCounterVec ["container_id", "container_name", "path"] Count
        "Log records read, by source: a container, or a file of file_monitor. Sources beyond metrics.max_containers share one series, `other`.";
    source_bytes_total: IntCounterVec ["container_id", "container_name", "path"] Bytes
        "Bytes of log messages read, by source.";
    source_lag_bytes: IntGaugeVec ["container_id", "container_name", "path"] Bytes
        "Bytes on disk that a sink has not acknowledged yet, by source; absent for sources read over the API.";
    source_lag_seconds: GaugeVec ["container_id", "container_name", "path"] Seconds
        "Age of the oldest record that was read and is not acknowledged yet, by source.";
    source_last_line_timestamp_seconds: GaugeVec ["container_id", "container_name", "path"] Seconds
        "When a source's last line was read, seconds since 1970. Absent before the first line of this run.";
    source_losses_total: IntCounterVec ["container_id", "container_name", "path"] Count
        "Losses declared, by source, while the source is there; losses_total keeps counting them afterwards.";
    source_lost_bytes_total: IntCounterVec ["container_id", "container_name", "path"] Bytes
        "Bytes lost, by source, where their number is known.";
    sources_in_other: IntGauge [] Count
        "Sources that share the series `other`, because metrics.max_containers others have series of their own.";
    logs_processed_total: IntCounter [] Count
        "Log records read from all sources. What is read for several sinks counts once.";
    log_bytes_processed_total: IntCounter [] Bytes "Bytes of the messages of those records.";
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
        "Files that were rewritten or removed, and containers removed, before the agent could see whether all of them had been read.";
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
    buffer_limit_bytes: IntGauge [] Bytes "How much of them there may be (limits.buffer_bytes_max).";
    container_streams_active: IntGauge [] Count "Container streams that are open.";
    container_stream_pool_utilization: Gauge [] Ratio
        "Used share of container_monitor.stream_rotation.max_concurrent_streams.";
    container_stream_rotations_total: IntCounterVec ["container_id", "container_name"] Count
        "Planned reconnects of a container's stream. Containers beyond metrics.max_containers share one series.";
    container_stream_age_seconds: Histogram [] Seconds "Age of a container stream's connection when it was closed.";
    container_stream_errors_total: IntCounterVec ["error_type"] Count "Errors of container streams.";
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
    push_request_bytes_total: IntCounterVec ["sink"] Bytes "Bytes of those requests' bodies, before compression.";
    push_duration_seconds: HistogramVec ["sink"] Seconds "How long a request took until it was answered or given up.";
    push_failures_total: IntCounterVec ["sink", "reason"] Count
        "Requests of a network sink that failed; they are sent again until accepted.";
    pushed_lines_total: IntCounterVec ["sink"] Count "Lines that the server of a network sink accepted.";
    dead_letters_total: IntCounterVec ["sink", "reason"] Count
        "Lines that the server refused for good; they are in the dead letters with its own words.";
    dead_letters_bytes: IntGaugeVec ["sink"] Bytes "Size of the dead letters on disk (capturer dead-letters).";
    dead_letters_limit_bytes: IntGaugeVec ["sink"] Bytes "How large they may be. Beyond that the oldest are deleted, which is a loss.";
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
        "Reads that the kernel began without their timer. Must stay 0: one whose peer is silent would wait for ever.";
    file_descriptors_limit: IntGauge [] Count "How many file descriptors this process may have.";
    files_waiting_for_descriptors: IntGauge [] Count
        "Files to be read that wait until another is closed, because the limit is nearly reached.";
    file_descriptors_open: IntGauge [] Count "Open file descriptors of this process, from /proc/self/fd.";
    threads: IntGauge [] Count "Threads of this process.";
    resident_memory_bytes: IntGauge [] Bytes "Resident memory of this process.";
    leak_detection: IntGaugeVec ["resource"] Flag "1 = there is more of this than what the agent does explains; its log names it.";
    probe_tier: IntGaugeVec ["tier"] Flag "1 for the way in which the kernel is asked about our descriptors.";
    kernel_fds_open: IntGaugeVec ["owner"] Count "Descriptors that the kernel saw opened and not released, by owner.";
    kernel_fd_opened_total: IntCounterVec ["owner"] Count
        "Descriptors opened, by owner, as the kernel counted them (tier procfs: as they were claimed). Without an owner: steps of work.";
    kernel_fd_closed_total: IntCounterVec ["owner"] Count
        "Descriptors closed, by owner, as the kernel counted them (tier procfs: as their claims ended).";
    kernel_fd_drift: IntGauge [] Count "Descriptors by the kernel's account minus those in /proc/self/fd; 0 is right.";
}

label_values! {
    /// `error_type` of `container_stream_errors_total`.
    StreamError {
        /// All slots were taken; the container waits for its turn and keeps its position.
        PoolFull = "pool_full",
        /// The file or connection could not be opened.
        OpenFailed = "open_failed",
        /// A read ended with an error.
        ReadFailed = "read_failed",
        /// No byte came in time although the source was growing.
        ReadTimeout = "read_timeout",
        /// A connection did not close when it should have.
        RotationStuck = "rotation_stuck",
        /// The Engine answered with an error status or an error frame.
        ApiError = "api_error",
        /// The Engine's connection ended without a last chunk, or it refuses connections.
        DaemonGone = "daemon_gone",
        /// The container's logging driver keeps nothing that can be read.
        DriverUnreadable = "driver_unreadable",
        /// The stream failed so often that it is paused.
        CircuitOpen = "circuit_open",
        /// The stream brought nothing while its container's log grew.
        Stalled = "stalled",
        /// A read of a file did not come back, as on a hung network file system.
        FileHung = "file_hung",
    }
}

label_values! {
    /// `reason` of `push_failures_total`: why a request will be sent again.
    PushFailure {
        /// 429: the tenant sends more than Loki takes.
        RateLimited = "rate_limited",
        /// 429: one label set brings more than Loki takes of it.
        StreamRateLimited = "stream_rate_limited",
        /// 429: too many label sets.
        StreamLimit = "stream_limit",
        /// 5xx: Loki, or what stands before it, has trouble of its own.
        ServerError = "server_error",
        /// No connection could be made.
        Unreachable = "unreachable",
        /// The certificate, ours or theirs, was not accepted.
        Tls = "tls",
        /// No answer in time.
        TimedOut = "timed_out",
        /// The connection broke, or what came was no HTTP.
        BrokenAnswer = "broken_answer",
        /// 401: Loki does not know who asks.
        Unauthorized = "unauthorized",
        /// 403: who asks may not push.
        Forbidden = "forbidden",
        /// 404: there is no push API at this address.
        NotFound = "not_found",
        /// 260: Loki is told to take nothing of this tenant.
        TenantBlocked = "tenant_blocked",
        /// 400: this Loki takes no structured metadata.
        MetadataDisallowed = "metadata_disallowed",
        /// A status that Loki's push API does not have.
        Unexpected = "unexpected",
        /// A refused line could not be written to the dead letters.
        DeadLettersUnwritable = "dead_letters_unwritable",
    }
}

label_values! {
    /// `reason` of `dead_letters_total`: why a line will never be taken.
    DeadLetterReason {
        /// Older than Loki takes at all (`reject_old_samples_max_age`).
        TooOld = "too_old",
        /// Too far behind the newest line of its label set.
        TooFarBehind = "too_far_behind",
        /// Older than the newest line, in a Loki that takes none such.
        OutOfOrder = "out_of_order",
        /// Newer than Loki's clock allows (`creation_grace_period`).
        TooFarInFuture = "too_far_in_future",
        /// Longer than `max_line_size`.
        LineTooLong = "line_too_long",
        /// More labels than `max_label_names_per_series`.
        TooManyLabels = "too_many_labels",
        /// Longer than `max_label_name_length`.
        LabelNameTooLong = "label_name_too_long",
        /// Longer than `max_label_value_length`.
        LabelValueTooLong = "label_value_too_long",
        /// A label twice.
        DuplicateLabel = "duplicate_label",
        /// Labels that Loki can't read or that lack one it wants.
        InvalidLabels = "invalid_labels",
        /// More structured metadata than Loki takes.
        MetadataTooLarge = "metadata_too_large",
        /// A single line that is too large for a request.
        BodyTooLarge = "body_too_large",
        /// A firewall or proxy before Loki refuses what the line says (403 and the like), while it takes others of the tenant.
        Forbidden = "forbidden",
        /// A reason that is not known by name; the dead letter holds the server's words.
        Other = "other",
    }
}

label_values! {
    /// `reason` of `skipped_records_total`.
    SkipReason {
        /// A record without its end, as a crash or a full disk leaves it.
        TornRecord = "torn_record",
        /// A raw record longer than the program's bound.
        RecordTooLong = "record_too_long",
        /// Not a record in the format the source should have.
        RecordInvalid = "record_invalid",
        /// Frame header with an impossible type or length.
        FrameInvalid = "frame_invalid",
        /// A frame that carries the daemon's own error, not a line.
        DaemonErrorFrame = "daemon_error_frame",
        /// A run of NUL bytes, as a truncation from outside leaves it.
        NulHole = "nul_hole",
    }
}

label_values! {
    /// `reason` of `lost_bytes_total`.
    LossReason {
        /// A file was deleted before it was read to its end.
        FileGoneUnread = "file_gone_unread",
        /// A file was truncated behind the position.
        FileTruncated = "file_truncated",
        /// The Engine skipped a rotated file in its answer.
        EngineSkippedRotation = "engine_skipped_rotation",
        /// A record was damaged on disk.
        RecordDamaged = "record_damaged",
        /// A raw record was longer than the program's bound.
        RecordTooLong = "record_too_long",
        /// A compressed file could not be decompressed to its end.
        ArchiveDamaged = "archive_damaged",
        /// The bound on held-open deleted files was reached.
        DeletedOpenLimit = "deleted_open_limit",
        /// A container was removed before anything of it could be read.
        ContainerGoneUnread = "container_gone_unread",
        /// A part of a sink's spool could not be read back.
        SpoolDamaged = "spool_damaged",
        /// A full spool gave up its oldest lines, as configured.
        SpoolFull = "spool_full",
        /// Lines waited in a spool for longer than its max_age.
        SpoolTooOld = "spool_too_old",
        /// Old dead letters made room for new ones.
        DeadLettersFull = "dead_letters_full",
    }
}

label_values! {
    /// `reason` of `sources_unreadable`.
    UnreadableReason {
        /// No right to read it.
        Permission = "permission",
        /// Not a regular file, or reached through a link.
        NotRegular = "not_regular",
        /// Its directory is not there.
        NoDirectory = "no_directory",
        /// A directory can't be listed, so nobody knows what is in it.
        Unlistable = "unlistable",
        /// All file descriptors that sources may have are in use.
        NoDescriptor = "no_descriptor",
        /// It is not text and is left out.
        Binary = "binary",
        /// Its text is of no encoding that is known for it.
        Undecodable = "undecodable",
        /// The container's logging driver keeps nothing that can be read.
        Driver = "driver",
        /// The container runs, and its log file was removed.
        Missing = "missing",
        /// Anything else; health has the words.
        Other = "other",
    }
}

label_values! {
    /// `result` of `docker_requests_total`.
    RequestResult {
        /// 2xx: the Engine answered.
        Ok = "ok",
        /// 404: the container is gone.
        NotFound = "not_found",
        /// Any other status.
        Refused = "refused",
        /// No answer in time.
        TimedOut = "timed_out",
        /// No connection, or it broke.
        Unreachable = "unreachable",
        /// An answer that is not what the API promises, or too large.
        Invalid = "invalid",
    }
}

label_values! {
    /// `result` of `config_reloads_total`.
    ReloadResult {
        /// A new run has begun, or the log's level was set.
        Applied = "applied",
        /// The settings are those in use.
        Unchanged = "unchanged",
        /// The config is wrong, or needs a restart.
        Refused = "refused",
        /// The config looked good and could not be started; the one before runs again.
        Failed = "failed",
    }
}

label_values! {
    /// `reason` of `paths_passed_over`.
    PassedOver {
        /// A directory where a file was expected.
        Directory = "directory",
        /// A symbolic link that a pattern found.
        Link = "link",
        /// A link whose target is not there.
        Dangling = "dangling_link",
        /// A link that leads in a circle.
        LinkLoop = "link_loop",
        /// A link that leads out of `roots`.
        OutOfRoots = "out_of_roots",
        /// A socket, pipe or device.
        Special = "special",
        /// A file of the agent.
        Own = "own",
        /// Left out by `exclude`.
        Excluded = "excluded",
        /// Its name begins with a dot.
        Hidden = "hidden",
        /// Compressed, and its log is not there.
        Archive = "archive",
        /// A rotated file of a log that is followed.
        Rotated = "rotated",
        /// No right to read it.
        Denied = "denied",
        /// A file that is not text.
        Binary = "binary",
        /// Last changed longer ago than `ignore_older`, and never read before.
        Older = "older",
    }
}

impl Metrics {
    /// Registers all metrics. At most `containers_max` containers get series of their own.
    pub fn new(containers_max: usize) -> prometheus::Result<Metrics> {
        let containers = ContainerSeries { containers_max, names: BTreeMap::new() };
        let metrics = Metrics::register(Registry::new(), Mutex::new(containers))?;
        metrics.create_closed_sets();
        metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION"), env!("CAPTURER_COMMIT")]).set(1);
        Ok(metrics)
    }

    /// A series that appears only with its first event has no rate for that event.
    fn create_closed_sets(&self) {
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

    /// Those that only a network sink has.
    fn spool_gauges(&self) -> [&IntGaugeVec; 5] {
        [
            &self.spool_bytes,
            &self.spool_limit_bytes,
            &self.spool_lag_seconds,
            &self.dead_letters_bytes,
            &self.dead_letters_limit_bytes,
        ]
    }

    /// A sink is gone: so are its series.
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

    /// All metrics, for the reference page.
    pub fn catalog() -> &'static [Entry] {
        CATALOG
    }

    /// The text exposition format.
    pub fn encode(&self) -> String {
        let mut text = Vec::with_capacity(16 * 1024);
        match TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            Ok(()) => String::from_utf8_lossy(&text).into_owned(),
            // Can't happen while every family has a sample; a scraper shows a comment to nobody, so log it too.
            Err(error) => {
                tracing::error!(%error, "metrics could not be encoded");
                format!("# metrics could not be encoded: {error}\n")
            }
        }
    }

    /// A container stream had an error.
    pub fn stream_error(&self, error: StreamError) {
        self.container_stream_errors_total.with_label_values(&[error.as_str()]).inc();
    }

    /// This many records were passed over.
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

    /// What became of a reload. The time of a config that is used from now on, in seconds since 1970.
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
