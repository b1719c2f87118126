//! The config: checked and typed. `file` reads the config file as a user writes it and turns it into [`Settings`].
//! Every other part sees only this module's types.
//!
//! ```text
//! text ─yaml─▶ tree with places ─+ --set─▶ reader (substitute, units) ─▶ Settings ─check─▶ Settings or all problems
//! ```

pub(crate) mod advice;
mod check;
mod defaults;
pub(crate) mod environment;
pub(crate) mod file;
mod file_template;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod loki;
mod never_match;
mod path_overlap;
pub(crate) mod path_pattern;
pub(crate) mod pipeline;
mod problem;
mod reader;
mod reload;
mod substitute;
pub(crate) mod summary;
pub(crate) mod template;
pub(crate) mod units;
mod yaml;

pub use crate::text::encoding::Encoding;
pub use file_template::{FileTemplate, NamePart};
pub use loki::{
    Loki, LokiAuth, LokiFormat, LokiTls, MaxLineAge, Secret, Spool, TENANT_BYTES_MAX, WhenFull,
    is_tenant_char, shown_url,
};
pub use path_pattern::PathPattern;
pub use pipeline::Pipeline;
pub use problem::ConfigError;
pub use reload::Objection;
pub use template::LabelTemplate;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// For how long, and for how many files, the agent remembers how far it read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remember {
    /// Time since a file was last read or seen.
    pub age: Duration,
    /// How many files, for each sink.
    pub files: usize,
}

/// All settings of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Directory of the checkpoint.
    pub data_dir: PathBuf,
    /// How long SIGTERM may take to drain and flush before the process ends anyway.
    pub shutdown_timeout: Duration,
    /// What happens to rights that are not needed after the start.
    pub privileges: Privileges,
    /// Longest message in bytes; a longer line is cut, marked and counted. At most [`crate::limits::LINE_BYTES_CEILING`].
    pub line_bytes_max: u64,
    /// Bytes of read buffers under way between capture and sinks, all streams together.
    pub buffer_bytes_max: u64,
    /// Unread bytes of deleted files that may be held open, all files together.
    pub deleted_open_bytes_max: u64,
    /// How long the agent remembers what was read.
    pub remember: Remember,
    /// The admin server.
    pub admin: Admin,
    /// The agent's own log.
    pub log: Log,
    /// How containers are found and read.
    pub container_monitor: ContainerMonitor,
    /// Files that no container writes.
    pub file_monitor: FileMonitor,
    /// What is done to lines; a source gets the first pipeline that matches it.
    pub pipelines: Vec<Arc<Pipeline>>,
    /// Where records go.
    pub sinks: Sinks,
    /// Monitoring of the agent's own descriptors, threads and memory.
    pub resource_monitoring: ResourceMonitoring,
    /// Settings of the metrics.
    pub metrics: MetricsSettings,
}

/// What happens to rights that are not needed after the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Privileges {
    /// They are given up ([`crate::shell::privilege`]).
    Drop,
    /// They are kept.
    Keep,
}

/// The admin server.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// Address to listen on; `None` = no server (`listen: ""`).
    pub listen: Option<SocketAddr>,
    /// Names that a request's `Host` header may have, besides loopback and the address.
    pub hosts: Vec<String>,
    /// The token that a request over the network must have; `None` = every request that reaches the address is
    /// answered.
    pub token: Option<Secret>,
    /// Certificate chain and key in PEM; `None` = plain HTTP.
    pub tls: Option<AdminTls>,
    /// A Unix socket to listen on as well. Its permissions decide who may use it.
    pub socket: Option<PathBuf>,
    /// Whether `/api/v1/tap` shows lines live.
    pub tap: bool,
    /// Whether profiles of the agent may be taken.
    pub profile: bool,
}

/// Files of the admin server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminTls {
    /// The chain, the server's own certificate first.
    pub cert_file: PathBuf,
    /// The key of the certificate.
    pub key_file: PathBuf,
}

impl Admin {
    /// The address of the status page.
    pub fn url(&self, address: SocketAddr) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{address}/")
    }

    /// Whether an address is all that `capturer top` needs to reach the agent.
    pub fn is_plain(&self) -> bool {
        self.token.is_none() && self.tls.is_none()
    }

    /// A warning if the server is open to whoever reaches its address, with what to do; `None` = it is not.
    pub fn exposure(&self) -> Option<String> {
        let address = self.listen.filter(|address| !address.ip().is_loopback())?;
        let what =
            if self.tap { "names of containers, and log lines (/api/v1/tap)" } else { "names of containers" };
        let said = match (&self.token, &self.tls) {
            (Some(_), Some(_)) => return None,
            (None, _) => format!(
                "everybody who reaches it sees {what} and may reload the config: set admin.token and admin.tls_cert"
            ),
            (Some(_), None) => "the token and log lines are sent unencrypted: set admin.tls_cert".to_owned(),
        };
        Some(format!("admin.listen is {address}: {said}, or listen on 127.0.0.1"))
    }

    /// A warning if others may take profiles; `None` = they may not.
    pub fn exposed_profile(&self) -> Option<String> {
        let address = self.listen.filter(|address| self.profile && !address.ip().is_loopback())?;
        Some(format!(
            "admin.profile is on and admin.listen is {address}: whoever may ask this server can have the agent profiled for as \
             long as they like; set admin.profile: false when you have seen enough"
        ))
    }
}

/// The agent's own log, always on standard error.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// error, warn, info, debug or trace.
    pub level: LogLevel,
    /// Text for people, JSON for collectors.
    pub format: LogFormat,
}

/// The least important level that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Format of the agent's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum LogFormat {
    Text,
    Json,
}

/// How containers are found and read.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerMonitor {
    /// Off = the Docker socket is never touched.
    pub enabled: bool,
    /// Path of the Engine's socket (`unix://` removed).
    pub socket_path: PathBuf,
    /// From the json-file logs on disk or over the API.
    pub read_from: ReadFrom,
    /// Where to begin in a container that was never seen before.
    pub start_at: StartAt,
    /// Which containers are captured.
    pub select: Select,
    /// Whether the container in which the agent runs is captured, too.
    pub include_self: bool,
    /// Names of the container labels that go into records.
    pub record_labels: Vec<String>,
    /// How lines of containers with a TTY are changed.
    pub tty: TtyRules,
    /// Time between lists of the containers, which find what events missed.
    pub list_interval: Duration,
    /// Longest pause between attempts to reach the Engine, or to open a stream that failed.
    pub reconnect_interval: Duration,
    /// A read without a byte for this long is ended by its timer.
    pub read_timeout: Duration,
    /// Stream openings and requests under way at once, at most [`crate::limits::OPENINGS_CEILING`].
    pub max_concurrent: usize,
    /// Closing and reopening of api streams.
    pub rotation: Rotation,
    /// When a stream that keeps failing is paused.
    pub circuit_breaker: CircuitBreaker,
}

/// How lines of containers with a TTY are changed. A TTY ends each line with a carriage return and a newline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TtyRules {
    /// Whether the carriage return stays in the message.
    pub keep_cr: bool,
    /// Whether a message is only what the terminal would show: no colours, no cursor movements, and the last state of a
    /// progress bar.
    pub strip_ansi: bool,
}

/// Include and exclude lists. A container is captured if it matches each non-empty include list and no exclude list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Select {
    /// Glob patterns over the name.
    pub include_names: Vec<glob::Pattern>,
    /// Glob patterns over the name.
    pub exclude_names: Vec<glob::Pattern>,
    /// Label key → glob over its value.
    pub include_labels: BTreeMap<String, glob::Pattern>,
    /// Label key → glob over its value.
    pub exclude_labels: BTreeMap<String, glob::Pattern>,
    /// Glob patterns over the image reference.
    pub include_images: Vec<glob::Pattern>,
    /// Glob patterns over the image reference.
    pub exclude_images: Vec<glob::Pattern>,
}

impl Select {
    /// Whether a container is captured, by its name without a slash, its image and its labels.
    pub fn selects(&self, name: &str, image: &str, labels: &BTreeMap<String, String>) -> bool {
        let any =
            |patterns: &[glob::Pattern], text: &str| patterns.iter().any(|pattern| pattern.matches(text));
        let has =
            |(key, value): (&String, &glob::Pattern)| labels.get(key).is_some_and(|text| value.matches(text));
        let included = (self.include_names.is_empty() || any(&self.include_names, name))
            && (self.include_images.is_empty() || any(&self.include_images, image))
            && self.include_labels.iter().all(has);
        let excluded = any(&self.exclude_names, name)
            || any(&self.exclude_images, image)
            || self.exclude_labels.iter().any(has);
        included && !excluded
    }
}

/// Rotation of api streams, which bounds the harm of one stuck connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotation {
    /// Off = a connection lives until it ends.
    pub enabled: bool,
    /// Age at which a stream's connection is closed and opened again.
    pub interval: Duration,
    /// The interval for a container with fewer than ten lines a minute.
    pub idle_interval: Duration,
    /// API connections that follow at once, at most [`crate::limits::API_STREAMS_CEILING`].
    pub max_concurrent_streams: usize,
    /// Least time between two rotations.
    pub pause_between_rotations: Duration,
}

/// When a stream that keeps failing is paused.
#[derive(Clone, Debug, PartialEq)]
pub struct CircuitBreaker {
    /// Failures in a row, without a line between them, that are caused by the stream and not by the daemon.
    pub failures: usize,
    /// How long the stream is paused before one more try, with jitter.
    pub pause: Duration,
}

/// From where a container's lines are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadFrom {
    /// From its file if that can be read, otherwise over the API.
    Auto,
    /// Only from files; a container without a readable file is reported as not captured.
    File,
    /// Only over the API.
    Api,
}

/// Where to begin in a source that was never seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StartAt {
    /// With the oldest record that still exists.
    Beginning,
    /// With lines that are written from now on.
    End,
}

/// Files that no container writes.
#[derive(Clone, Debug, PartialEq)]
pub struct FileMonitor {
    /// How often patterns are matched again, to find what inotify did not report.
    pub sweep_interval: Duration,
    /// How many idle files stay open, including containers' logs.
    pub max_open: usize,
    /// A file that was idle this long is closed; zero = idle files are not closed for that.
    pub close_idle_after: Duration,
    /// The entries, each with its patterns.
    pub files: Vec<FileSet>,
}

/// One entry of `file_monitor.files`.
#[derive(Clone, Debug, PartialEq)]
pub struct FileSet {
    /// Patterns of the files to follow.
    pub paths: Vec<PathPattern>,
    /// Files and directories to leave out.
    pub exclude: Vec<PathPattern>,
    /// Whether links that a pattern matches are followed.
    pub follow_links: bool,
    /// Links are only followed to files below these directories; empty = anywhere.
    pub roots: Vec<PathBuf>,
    /// Whether it is normal that a pattern matches nothing.
    pub may_be_empty: bool,
    /// The existing content of a new file is not read if the file was last changed longer ago than this; 0 = it is
    /// always read.
    pub ignore_older: Duration,
    /// What a line of the file is.
    pub format: FileFormat,
    /// How the file's bytes are decoded.
    pub text: TextRules,
    /// Where to begin in a file that was never seen before.
    pub start_at: StartAt,
    /// Labels that go into each record's `labels`.
    pub labels: BTreeMap<String, String>,
}

impl FileSet {
    /// Whether a pattern of this entry matches the path. An earlier entry that does so takes it.
    pub fn takes(&self, path: &str) -> bool {
        self.paths.iter().any(|pattern| pattern.matches(path))
            && !self.exclude.iter().any(|pattern| pattern.covers(path))
    }

    /// A new file's existing content is read if it was changed since this; both nanoseconds since 1970.
    pub fn changed_since_ns(&self, now_ns: i64) -> Option<i64> {
        let older_ns = i64::try_from(self.ignore_older.as_nanos()).unwrap_or(i64::MAX);
        (older_ns > 0).then(|| now_ns.saturating_sub(older_ns))
    }
}

/// How a file's bytes are decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextRules {
    /// Encoding of files without a byte order mark; `None` = UTF-8.
    pub encoding: Option<Encoding>,
    /// Whether carriage returns before a line's end stay in the message.
    pub keep_cr: bool,
    /// A last line without a newline is delivered when the file has not grown for this long; 0 = never.
    pub unfinished_line_after: Duration,
    /// What to do with files that are not text.
    pub binary: Binary,
}

/// What to do with files that are not text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Binary {
    /// Skip those that a pattern matched; read those that are named.
    #[default]
    Auto,
    /// Skip all of them.
    Skip,
    /// Read all of them.
    Read,
}

impl Binary {
    /// What `Auto` means for a path.
    pub fn of_path(self, is_named: impl FnOnce() -> bool) -> Binary {
        if self == Binary::Auto && !is_named() { Binary::Skip } else { self }
    }
}

/// The format of a followed file's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileFormat {
    /// `docker` or `cri` if the first line is such a record, otherwise `raw`.
    Auto,
    /// Every line is a message.
    Raw,
    /// Docker's json-file: one JSON object a line.
    Docker,
    /// The format of container runtimes for Kubernetes: time, channel, tag, text.
    Cri,
}

/// Where records go. At least one is enabled.
#[derive(Clone, Debug, PartialEq)]
pub struct Sinks {
    /// Files in a directory.
    pub local_file: Option<LocalFile>,
    /// Loki's push API.
    pub loki: Option<Loki>,
    /// The config has settings for Loki, and does not say whether it is on.
    pub loki_left_off: bool,
    /// Records on standard output.
    pub stdout: bool,
    /// Format of the records on standard output.
    pub stdout_format: OutputFormat,
}

/// The local_file sink. A bound of 0 means no bound.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalFile {
    /// The directory of all output files.
    pub directory: PathBuf,
    /// Name template: `{container_name}`, `{container_id}`, `{image}`, `{label:KEY}`, `{path}` (a followed path's last
    /// part).
    pub file: FileTemplate,
    /// Format of the records.
    pub format: OutputFormat,
    /// Size in bytes at which a file is rotated; the last batch may exceed it.
    pub max_size: u64,
    /// A file is rotated at multiples of this time since 1970 (UTC).
    pub rotate_every: Duration,
    /// How many files one output may have, including the one being written.
    pub max_files: usize,
    /// Bytes on disk of the older files of one output.
    pub max_bytes: u64,
    /// Age of older files.
    pub max_age: Duration,
    /// How older files are compressed.
    pub compress: Compress,
    /// When written data is synced to the disk.
    pub fsync: Fsync,
    /// Permission bits of new files.
    pub file_mode: u32,
}

/// Format of records in an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputFormat {
    /// One JSON object a line.
    Ndjson,
    /// The message and a newline.
    Raw,
    /// Docker's json-file record.
    Docker,
    /// For people: time of day, name, message.
    Pretty,
}

/// How older output files are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compress {
    /// Not at all.
    None,
    /// As gzip; the name gets `.gz`.
    Gzip,
    /// As Zstandard; the name gets `.zst`.
    Zstd,
}

/// When an output is synced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fsync {
    /// When the kernel decides, and when the agent ends: a power cut can take the last seconds.
    Never,
    /// Before a batch is acknowledged: what a checkpoint counts as written survives a power cut.
    Batch,
}

/// Monitoring of the agent's own resources.
#[derive(Clone, Debug, PartialEq)]
pub struct ResourceMonitoring {
    /// Off = descriptors, threads and memory are not counted.
    pub enabled: bool,
    /// How often the witness looks.
    pub check_interval: Duration,
    /// Whether dockerd's descriptors are watched, too.
    pub watch_dockerd: bool,
}

/// Settings of the metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricsSettings {
    /// How many containers have series of their own; the others share one called `other`.
    pub max_containers: usize,
}
