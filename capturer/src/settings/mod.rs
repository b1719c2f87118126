//! What the agent is told to do: checked and typed. `file` holds the config file as a user writes it and
//! turns it into [`Settings`]. Every other part sees only this module's types.
//!
//! ```text
//! text ─yaml─▶ tree with places ─+ --set─▶ reader (substitute, units) ─▶ Settings ─check─▶ Settings or all problems
//! ```

pub(crate) mod advice;
mod check;
mod defaults;
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

/// How long, and of how many files, it is remembered what was read of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remember {
    /// Since a file was last read or seen.
    pub age: Duration,
    /// Files, once for each sink.
    pub files: usize,
}

/// All settings of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Directory of the checkpoint.
    pub data_dir: PathBuf,
    /// How long SIGTERM may take to drain and flush before the process ends anyway.
    pub shutdown_timeout: Duration,
    /// What becomes of rights that are not needed after the start.
    pub privileges: Privileges,
    /// Longest message in bytes; a longer line is cut, marked and counted. At most [`crate::limits::LINE_BYTES_CEILING`].
    pub line_bytes_max: u64,
    /// Bytes of read buffers under way between capture and sinks, all streams together.
    pub buffer_bytes_max: u64,
    /// Unread bytes of deleted files that may be held open, all files together.
    pub deleted_open_bytes_max: u64,
    /// How long it is remembered what was read.
    pub remember: Remember,
    /// The admin server.
    pub admin: Admin,
    /// Own log lines.
    pub log: Log,
    /// How containers are found and read.
    pub container_monitor: ContainerMonitor,
    /// Files that no container writes.
    pub file_monitor: FileMonitor,
    /// What is done to lines on their way; the first that matches a source is that source's.
    pub pipelines: Vec<Arc<Pipeline>>,
    /// Where records go.
    pub sinks: Sinks,
    /// The look at our own descriptors, threads and memory.
    pub resource_monitoring: ResourceMonitoring,
    /// Settings of the metrics.
    pub metrics: MetricsSettings,
}

/// What becomes of rights that are not needed after the start.
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
    /// Names by which it may be asked, beside loopback and its address.
    pub hosts: Vec<String>,
    /// What a request over the network must bring; `None` = everybody who reaches the address is answered.
    pub token: Option<Secret>,
    /// Certificate chain and key in PEM; `None` = plain HTTP.
    pub tls: Option<AdminTls>,
    /// A Unix socket that is listened on as well. Who may use it is up to its permissions.
    pub socket: Option<PathBuf>,
    /// Whether lines are shown live.
    pub tap: bool,
    /// Whether profiles of the agent are taken.
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
    /// What a browser is given to see the status page.
    pub fn url(&self, address: SocketAddr) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{address}/")
    }

    /// What is open to whoever reaches its address, and what to do about it; `None` = all is well.
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

    /// Profiles that others may take; `None` = all is well.
    pub fn exposed_profile(&self) -> Option<String> {
        let address = self.listen.filter(|address| self.profile && !address.ip().is_loopback())?;
        Some(format!(
            "admin.profile is on and admin.listen is {address}: whoever may ask this server can have the agent profiled for as \
             long as they like; set admin.profile: false when you have seen enough"
        ))
    }
}

/// Own log lines, always on standard error.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// error, warn, info, debug or trace.
    pub level: LogLevel,
    /// Text for people, JSON for collectors.
    pub format: LogFormat,
}

/// Least important level that is written.
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

/// Shape of own log lines.
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
    /// For a container never seen before.
    pub start_at: StartAt,
    /// Which containers are captured.
    pub select: Select,
    /// The container that the agent runs in is captured too.
    pub include_self: bool,
    /// Names of the container labels that go into records.
    pub record_labels: Vec<String>,
    /// What is made of the lines of containers with a TTY.
    pub tty: TtyRules,
    /// Pause between container lists; finds what events missed.
    pub list_interval: Duration,
    /// Longest pause between attempts to reach the Engine, or to open a stream that failed.
    pub reconnect_interval: Duration,
    /// After this long without a byte a read ends by its timer.
    pub read_timeout: Duration,
    /// Stream openings and requests under way at once, at most [`crate::limits::OPENINGS_CEILING`].
    pub max_concurrent: usize,
    /// Closing and reopening of api streams.
    pub rotation: Rotation,
    /// What a stream costs that fails all the time.
    pub circuit_breaker: CircuitBreaker,
}

/// What is made of the lines of containers with a TTY. It ends each line with a carriage return and a newline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TtyRules {
    /// The carriage return stays in the message.
    pub keep_cr: bool,
    /// A message is what the terminal would show: no colours, no cursor movements, and of a progress bar its last state.
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

/// Rotation of api streams: what one wedged connection can cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotation {
    /// Off = a connection lives until it ends.
    pub enabled: bool,
    /// Age at which a stream's connection is closed and opened again.
    pub interval: Duration,
    /// The same for a container under ten lines a minute.
    pub idle_interval: Duration,
    /// API connections that follow at once, at most [`crate::limits::API_STREAMS_CEILING`].
    pub max_concurrent_streams: usize,
    /// Least time between two rotations.
    pub pause_between_rotations: Duration,
}

/// When a stream that keeps failing is left alone.
#[derive(Clone, Debug, PartialEq)]
pub struct CircuitBreaker {
    /// Failures in a row, without a line between them, that are the stream's own and not the daemon's.
    pub failures: usize,
    /// How long it is left alone before it is tried once more, with jitter.
    pub pause: Duration,
}

/// Where a container's lines are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadFrom {
    /// From its file where that can be read, else over the API.
    Auto,
    /// Only from files; a container without a readable file is not captured, and said so.
    File,
    /// Only over the API.
    Api,
}

/// Where to begin with a source never seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StartAt {
    /// With the oldest record that is still there.
    Beginning,
    /// With what comes from now on.
    End,
}

/// Files that no container writes.
#[derive(Clone, Debug, PartialEq)]
pub struct FileMonitor {
    /// Patterns are matched again so often, for what inotify did not tell.
    pub sweep_interval: Duration,
    /// This many quiet files stay open; containers' logs count too.
    pub max_open: usize,
    /// A file that was quiet for so long is closed; zero = never for that alone.
    pub close_idle_after: Duration,
    /// Each with its patterns.
    pub files: Vec<FileSet>,
}

/// One entry of `file_monitor.files`.
#[derive(Clone, Debug, PartialEq)]
pub struct FileSet {
    /// Patterns of the files to follow.
    pub paths: Vec<PathPattern>,
    /// Files and directories to leave out.
    pub exclude: Vec<PathPattern>,
    /// Links that a pattern finds are followed.
    pub follow_links: bool,
    /// Links lead to files beneath these only; empty = anywhere.
    pub roots: Vec<PathBuf>,
    /// Nobody is alarmed when a pattern matches nothing.
    pub may_be_empty: bool,
    /// What a file never seen before holds is not read if its last change is longer ago than this; 0 = it is.
    pub ignore_older: Duration,
    /// What a line of the file is.
    pub format: FileFormat,
    /// What is made of its bytes.
    pub text: TextRules,
    /// For a file never seen before.
    pub start_at: StartAt,
    /// Go into each record's `labels`.
    pub labels: BTreeMap<String, String>,
}

impl FileSet {
    /// It is the entry of this path, unless one before it is.
    pub fn takes(&self, path: &str) -> bool {
        self.paths.iter().any(|pattern| pattern.matches(path))
            && !self.exclude.iter().any(|pattern| pattern.covers(path))
    }

    /// What a file never seen before holds is read at this time if it was changed since then; both nanoseconds since 1970.
    pub fn changed_since_ns(&self, now_ns: i64) -> Option<i64> {
        let older_ns = i64::try_from(self.ignore_older.as_nanos()).unwrap_or(i64::MAX);
        (older_ns > 0).then(|| now_ns.saturating_sub(older_ns))
    }
}

/// What is made of a file's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextRules {
    /// How its text is encoded where no byte order mark says so; `None` = UTF-8.
    pub encoding: Option<Encoding>,
    /// Carriage returns before a line's end stay in the message.
    pub keep_cr: bool,
    /// A last line without newline is delivered when nothing came for this long; 0 = never.
    pub unfinished_line_after: Duration,
    /// What is done about files that are not text.
    pub binary: Binary,
}

/// What is done about files that are not text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Binary {
    /// Those that a pattern finds are left out, those that are named are read.
    #[default]
    Auto,
    /// All are left out.
    Skip,
    /// All are read.
    Read,
}

impl Binary {
    /// What `Auto` means for a path.
    pub fn of_path(self, is_named: impl FnOnce() -> bool) -> Binary {
        if self == Binary::Auto && !is_named() { Binary::Skip } else { self }
    }
}

/// What a line of a followed file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileFormat {
    /// `docker` or `cri` if the first line is such a record, else `raw`.
    Auto,
    /// Every line is a message.
    Raw,
    /// Docker's json-file: one JSON object a line.
    Docker,
    /// What container runtimes write for Kubernetes: time, channel, tag, text.
    Cri,
}

/// Where records go. At least one is enabled.
#[derive(Clone, Debug, PartialEq)]
pub struct Sinks {
    /// Files in a directory.
    pub local_file: Option<LocalFile>,
    /// Loki's push API.
    pub loki: Option<Loki>,
    /// Records on standard output.
    pub stdout: bool,
    /// What a record becomes there.
    pub stdout_format: OutputFormat,
}

/// The local_file sink. For its bounds 0 means none.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalFile {
    /// All files are made beneath it.
    pub directory: PathBuf,
    /// Name template: `{container_name}`, `{container_id}`, `{image}`, `{label:KEY}`, `{path}` (a followed path's last
    /// part).
    pub file: FileTemplate,
    /// What a record becomes.
    pub format: OutputFormat,
    /// Bytes at which a file is rotated; the last batch may pass it.
    pub max_size: u64,
    /// A file is rotated when a multiple of this since 1970 (UTC) has passed since it was begun.
    pub rotate_every: Duration,
    /// Files of one output, the one being written included.
    pub max_files: usize,
    /// Bytes on disk of the older files of one output.
    pub max_bytes: u64,
    /// Age of older files.
    pub max_age: Duration,
    /// How older files are compressed.
    pub compress: Compress,
    /// When what was written is brought to the disk.
    pub fsync: Fsync,
    /// Permission bits of new files.
    pub file_mode: u32,
}

/// What a record becomes in an output.
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

/// When an output is brought to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fsync {
    /// When the kernel likes, and at the agent's end: a power cut can take the last seconds.
    Never,
    /// Before a batch is acknowledged: what a checkpoint counts as written survives a power cut.
    Batch,
}

/// The look at our own resources.
#[derive(Clone, Debug, PartialEq)]
pub struct ResourceMonitoring {
    /// Off = descriptors, threads and memory are not counted.
    pub enabled: bool,
    /// How often the witness looks.
    pub check_interval: Duration,
    /// dockerd's descriptors are looked at too.
    pub watch_dockerd: bool,
}

/// Settings of the metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricsSettings {
    /// Containers with series of their own; the rest share one named `other`.
    pub max_containers: usize,
}
