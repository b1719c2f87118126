//! The config file: which keys there are, what each may be, and what must hold between them.
//!
//! A new setting is one line in its section here (Loki's section is in loki.rs), one in `Settings::default` and one in
//! `configs/config.yaml`; tests compare the three.

use std::fs::File;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use super::problem::{ConfigError, ConfigPlace, Problem};
use super::reader::{Reader, Section};
pub use super::substitute::Outside;
use super::units;
use super::yaml::{self, Node, Value};
use super::{
    Admin, AdminTls, Binary, Compress, ContainerMonitor, FileFormat, FileMonitor, FileSet, FileTemplate,
    Fsync, Log, LogFormat, LogLevel, Objection, OutputFormat, Privileges, ReadFrom, ResourceMonitoring,
    Rotation, Secret, Select, Settings, Sinks, StartAt, check, loki, pipeline, reload,
};
use crate::limits;

/// Longest config file.
const CONFIG_BYTES_MAX: u64 = 1024 * 1024;
/// Bounds of durations that the agent waits: with shorter ones it would spin, and longer ones help nobody.
pub(super) const DURATIONS: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(30 * 24 * 3600);
/// Bounds of pauses, which 0 turns off.
pub(super) const PAUSES: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);
/// Bounds of what 0 turns off and is otherwise minutes to years: ages, and the time between rotations.
const AGES: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3660 * 24 * 3600);
/// Ceiling of bounds on output files: 1 PiB, and as many files as can be listed in a directory.
const OUTPUT_BYTES_CEILING: u64 = 1 << 50;
const OUTPUT_FILES_CEILING: usize = 100_000;
/// Least `limits.line_bytes_max`: less would cut most lines.
const LINE_BYTES_FLOOR: u64 = 64;
/// Largest `deleted_open_bytes_max`: 1 TiB.
const DELETED_OPEN_BYTES_CEILING: u64 = 1 << 40;
/// Largest `buffer_bytes_max`: 64 GiB.
const BUFFER_BYTES_CEILING: u64 = 64 << 30;
/// Shortest `admin.token` that is accepted.
const TOKEN_BYTES_MIN: usize = 16;
/// Most files that can be remembered.
const REMEMBERED_CEILING: usize = 10_000_000;
/// Largest `metrics.max_containers`; each container adds lines to a scrape.
const SERIES_CEILING: usize = 100_000;

/// A `--set key=value` argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The dotted path of the key.
    pub key: Arc<str>,
    /// The value, as YAML.
    pub value: String,
}

/// Reads, merges and checks the config. `path` = `None`: the built-in defaults with the overrides.
pub fn load(path: Option<&Path>, overrides: &[Override], outside: &Outside) -> Result<Settings, ConfigError> {
    let (origin, text) = open(path)?;
    parse(&origin, &text, overrides, outside)
}

/// As [`load`], for an agent that runs with `running`: refuses changes that need a restart, and asks `object` about
/// settings that are otherwise good.
pub fn load_against(
    path: Option<&Path>,
    overrides: &[Override],
    outside: &Outside,
    running: &Settings,
    object: &dyn Fn(&Settings) -> Vec<Objection>,
) -> Result<Settings, ConfigError> {
    let (origin, text) = open(path)?;
    parse_against(&origin, &text, overrides, outside, running, object)
}

/// The config's text and its name.
fn open(path: Option<&Path>) -> Result<(String, String), ConfigError> {
    let Some(path) = path else { return Ok(("built-in defaults".to_owned(), String::new())) };
    let origin = path.display().to_string();
    match read_config(path) {
        Ok(text) => Ok((origin, text)),
        Err((message, permission_denied)) => {
            let problem = Problem { place: ConfigPlace::Nowhere, key: String::new(), message };
            Err(ConfigError { permission_denied, ..ConfigError::new(&origin, vec![problem]) })
        }
    }
}

/// Turns the text into settings; errors call it `origin`.
pub fn parse(
    origin: &str,
    text: &str,
    overrides: &[Override],
    outside: &Outside,
) -> Result<Settings, ConfigError> {
    parse_and(origin, text, overrides, outside, |_, _| {})
}

/// As [`parse`]; see [`load_against`].
pub fn parse_against(
    origin: &str,
    text: &str,
    overrides: &[Override],
    outside: &Outside,
    running: &Settings,
    object: &dyn Fn(&Settings) -> Vec<Objection>,
) -> Result<Settings, ConfigError> {
    parse_and(origin, text, overrides, outside, |settings, reader| {
        reload::check(settings, running, reader);
        if reader.is_content() {
            object(settings).into_iter().for_each(|Objection { key, message }| reader.problem(key, message));
        }
    })
}

fn parse_and(
    origin: &str,
    text: &str,
    overrides: &[Override],
    outside: &Outside,
    check_more: impl FnOnce(&Settings, &Reader),
) -> Result<Settings, ConfigError> {
    let mut settings = Settings::default();
    let reader = Reader::new(outside);
    let (root, mut problems) =
        tree(text, overrides).map_err(|problem| ConfigError::new(origin, vec![problem]))?;
    reader.root(&root, |section| read_settings(section, &mut settings));
    check::check(&settings, &reader);
    check_more(&settings, &reader);
    problems.extend(reader.into_problems());
    if problems.is_empty() { Ok(settings) } else { Err(ConfigError::new(origin, problems)) }
}

fn read_config(path: &Path) -> Result<String, (String, bool)> {
    let unreadable = |error: std::io::Error| {
        let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
        (format!("the config file can't be read: {error}"), denied)
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > CONFIG_BYTES_MAX {
        return Err((
            format!("the config file is longer than {}", units::show_size(CONFIG_BYTES_MAX)),
            false,
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|&&byte| byte == b'\n').count() + 1;
        (format!("the config file is not UTF-8 in line {line}"), false)
    })
}

/// The file's tree with the overrides applied, and problems that do not stop the reading.
fn tree(text: &str, overrides: &[Override]) -> Result<(Node, Vec<Problem>), Problem> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut root, mut problems) = yaml::parse(text, None)?;
    if !overrides.is_empty() && !matches!(root.value, Value::Null | Value::Map(_)) {
        // The reader reports what is wrong with the file; without a section, overrides have no place.
        return Ok((root, problems));
    }
    for Override { key, value } in overrides {
        let (value, found) = yaml::parse(value, Some(key))?;
        problems.extend(found);
        if let Err(message) = yaml::set(&mut root, key, value) {
            problems.push(Problem {
                place: ConfigPlace::Set(Arc::clone(key)),
                key: key.to_string(),
                message,
            });
        }
    }
    Ok((root, problems))
}

fn read_settings(s: &mut Section, into: &mut Settings) {
    s.read("data_dir", &mut into.data_dir, units::directory);
    s.duration("shutdown_timeout", DURATIONS, &mut into.shutdown_timeout);
    s.choice("privileges", &[("drop", Privileges::Drop), ("keep", Privileges::Keep)], &mut into.privileges);
    s.section("admin", |s| read_admin(s, &mut into.admin));
    s.section("log", |s| read_log(s, &mut into.log));
    s.section("limits", |s| {
        s.size("line_bytes_max", LINE_BYTES_FLOOR..=limits::LINE_BYTES_CEILING, &mut into.line_bytes_max);
        s.size("buffer_bytes_max", 1..=BUFFER_BYTES_CEILING, &mut into.buffer_bytes_max);
        s.size("deleted_open_bytes_max", 0..=DELETED_OPEN_BYTES_CEILING, &mut into.deleted_open_bytes_max);
    });
    s.section("remember", |s| {
        s.duration("for", DURATIONS, &mut into.remember.age);
        s.count("files", 1_000..=REMEMBERED_CEILING, &mut into.remember.files);
    });
    s.section("container_monitor", |s| read_container_monitor(s, &mut into.container_monitor));
    s.section("file_monitor", |s| read_file_monitor(s, &mut into.file_monitor));
    pipeline::read(s, into.line_bytes_max, &mut into.pipelines);
    s.section("sinks", |s| read_sinks(s, &mut into.sinks));
    s.section("resource_monitoring", |s| read_resource_monitoring(s, &mut into.resource_monitoring));
    s.section("metrics", |s| s.count("max_containers", 0..=SERIES_CEILING, &mut into.metrics.max_containers));
    let data_dir = &into.data_dir;
    let own = [data_dir.clone(), data_dir.join("spool"), data_dir.join("dead-letters")];
    let outputs = into.sinks.local_file.as_ref().map(|sink| &sink.directory);
    if outputs.is_some_and(|outputs| own.contains(outputs)) {
        // A container may have any name.
        s.problem(
            "sinks.local_file.directory",
            "this is where the agent keeps positions and spool (data_dir), and an output that has the name of such a file \
             would be replaced by it: name another directory",
        );
    }
}

fn read_admin(s: &mut Section, into: &mut Admin) {
    s.read("listen", &mut into.listen, units::listen);
    s.list("hosts", &mut into.hosts, units::text);
    let (mut token, mut cert_file, mut key_file) = (String::new(), String::new(), String::new());
    s.secret("token", &mut token, admin_token);
    s.read("tls_cert", &mut cert_file, units::text);
    s.read("tls_key", &mut key_file, units::text);
    s.read("socket", &mut into.socket, units::own_socket);
    s.flag("tap", &mut into.tap);
    s.flag("profile", &mut into.profile);
    if cert_file.is_empty() != key_file.is_empty() {
        s.problem("tls_cert", "tls_cert and tls_key belong together: give both or neither");
    }
    into.token = (!token.is_empty()).then(|| Secret::new(token));
    into.tls =
        (!cert_file.is_empty()).then(|| AdminTls { cert_file: cert_file.into(), key_file: key_file.into() });
}

/// A token that can be guessed protects nothing, and a header allows only some characters.
fn admin_token(text: &str) -> Result<String, units::Mismatch> {
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    if text.is_empty() || (plain && text.len() >= TOKEN_BYTES_MIN) {
        return Ok(text.to_owned());
    }
    let hint = "openssl rand -hex 16 makes one; keep it in a file: \"${file:/etc/capturer/admin-token}\"";
    Err(units::Mismatch::new("at least 16 visible ASCII characters").hint(hint).secret())
}

fn read_log(s: &mut Section, into: &mut Log) {
    let levels = [
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
    s.choice("level", &levels, &mut into.level);
    s.choice("format", &[("text", LogFormat::Text), ("json", LogFormat::Json)], &mut into.format);
}

fn read_container_monitor(s: &mut Section, into: &mut ContainerMonitor) {
    s.flag("enabled", &mut into.enabled);
    s.read("socket_path", &mut into.socket_path, units::socket_path);
    let modes = [("auto", ReadFrom::Auto), ("file", ReadFrom::File), ("api", ReadFrom::Api)];
    s.choice("read_from", &modes, &mut into.read_from);
    s.choice("start_at", &START_AT, &mut into.start_at);
    read_select(s, &mut into.select);
    s.flag("include_self", &mut into.include_self);
    s.list("record_labels", &mut into.record_labels, units::text);
    s.section("tty", |s| {
        s.flag("keep_cr", &mut into.tty.keep_cr);
        s.flag("strip_ansi", &mut into.tty.strip_ansi);
    });
    s.duration("list_interval", DURATIONS, &mut into.list_interval);
    s.duration("reconnect_interval", DURATIONS, &mut into.reconnect_interval);
    s.duration("read_timeout", DURATIONS, &mut into.read_timeout);
    s.count("max_concurrent", 1..=limits::OPENINGS_CEILING, &mut into.max_concurrent);
    s.section("stream_rotation", |s| read_rotation(s, &mut into.rotation));
    s.section("circuit_breaker", |s| {
        s.count("failures", 1..=1_000, &mut into.circuit_breaker.failures);
        s.duration("pause", DURATIONS, &mut into.circuit_breaker.pause);
    });
}

const START_AT: [(&str, StartAt); 2] = [("beginning", StartAt::Beginning), ("end", StartAt::End)];

fn read_select(s: &mut Section, into: &mut Select) {
    s.list("include_names", &mut into.include_names, units::pattern);
    s.list("exclude_names", &mut into.exclude_names, units::pattern);
    s.map("include_labels", &mut into.include_labels, units::pattern);
    s.map("exclude_labels", &mut into.exclude_labels, units::pattern);
    s.list("include_images", &mut into.include_images, units::pattern);
    s.list("exclude_images", &mut into.exclude_images, units::pattern);
}

fn read_rotation(s: &mut Section, into: &mut Rotation) {
    s.flag("enabled", &mut into.enabled);
    s.duration("interval", DURATIONS, &mut into.interval);
    s.duration("idle_interval", DURATIONS, &mut into.idle_interval);
    s.count("max_concurrent_streams", 1..=limits::API_STREAMS_CEILING, &mut into.max_concurrent_streams);
    s.duration("pause_between_rotations", PAUSES, &mut into.pause_between_rotations);
}

fn read_file_monitor(s: &mut Section, into: &mut FileMonitor) {
    s.duration("sweep_interval", DURATIONS, &mut into.sweep_interval);
    s.count("max_open", 1..=limits::FILES_OPEN_CEILING, &mut into.max_open);
    s.duration("close_idle_after", PAUSES, &mut into.close_idle_after);
    s.sections("files", |s| {
        let mut set = FileSet::default();
        s.list("paths", &mut set.paths, units::path_pattern);
        s.list("exclude", &mut set.exclude, units::exclude_pattern);
        s.flag("follow_links", &mut set.follow_links);
        s.list("roots", &mut set.roots, units::root);
        s.flag("may_be_empty", &mut set.may_be_empty);
        s.duration("ignore_older", AGES, &mut set.ignore_older);
        let formats = [
            ("auto", FileFormat::Auto),
            ("raw", FileFormat::Raw),
            ("docker", FileFormat::Docker),
            ("cri", FileFormat::Cri),
        ];
        s.choice("format", &formats, &mut set.format);
        s.read("encoding", &mut set.text.encoding, units::encoding);
        s.flag("keep_cr", &mut set.text.keep_cr);
        s.duration("unfinished_line_after", PAUSES, &mut set.text.unfinished_line_after);
        let ways = [("auto", Binary::Auto), ("skip", Binary::Skip), ("read", Binary::Read)];
        s.choice("binary", &ways, &mut set.text.binary);
        s.choice("start_at", &START_AT, &mut set.start_at);
        s.map("labels", &mut set.labels, units::text);
        if set.paths.is_empty() && !s.has_problem("paths") {
            s.problem("paths", "names no file to follow");
        }
        if set.text.encoding.is_some() && matches!(set.format, FileFormat::Docker | FileFormat::Cri) {
            s.problem(
                "encoding",
                "is only for files of plain lines: docker and cri records are always UTF-8",
            );
        }
        into.files.push(set);
    });
}

const OUTPUT_FORMATS: [(&str, OutputFormat); 3] =
    [("ndjson", OutputFormat::Ndjson), ("raw", OutputFormat::Raw), ("docker", OutputFormat::Docker)];

fn read_sinks(s: &mut Section, into: &mut Sinks) {
    s.section("local_file", |s| {
        let mut enabled = into.local_file.is_some();
        let mut sink = into.local_file.take().unwrap_or_default();
        s.flag("enabled", &mut enabled);
        s.read("directory", &mut sink.directory, units::directory);
        s.read("file", &mut sink.file, FileTemplate::parse);
        s.choice("format", &OUTPUT_FORMATS, &mut sink.format);
        s.size("max_size", 0..=OUTPUT_BYTES_CEILING, &mut sink.max_size);
        s.duration("rotate_every", AGES, &mut sink.rotate_every);
        const NOT_GIVEN: usize = usize::MAX;
        let default = std::mem::replace(&mut sink.max_files, NOT_GIVEN);
        s.count("max_files", 0..=OUTPUT_FILES_CEILING, &mut sink.max_files);
        s.size("max_bytes", 0..=OUTPUT_BYTES_CEILING, &mut sink.max_bytes);
        s.duration("max_age", AGES, &mut sink.max_age);
        if sink.max_files == NOT_GIVEN {
            // Whoever bounds what is kept in another way does not mean ten files.
            let is_bounded = sink.max_bytes > 0 || !sink.max_age.is_zero();
            sink.max_files = if is_bounded { 0 } else { default };
        }
        let ways = [("none", Compress::None), ("gzip", Compress::Gzip), ("zstd", Compress::Zstd)];
        s.choice("compress", &ways, &mut sink.compress);
        s.choice("fsync", &[("never", Fsync::Never), ("batch", Fsync::Batch)], &mut sink.fsync);
        s.read("file_mode", &mut sink.file_mode, units::file_mode);
        into.local_file = enabled.then_some(sink);
    });
    s.section("loki", |s| into.loki_left_off = loki::read(s, &mut into.loki));
    s.section("stdout", |s| {
        s.flag("enabled", &mut into.stdout);
        let [ndjson, raw, _] = OUTPUT_FORMATS;
        s.choice("format", &[ndjson, raw, ("pretty", OutputFormat::Pretty)], &mut into.stdout_format);
    });
}

fn read_resource_monitoring(s: &mut Section, into: &mut ResourceMonitoring) {
    s.flag("enabled", &mut into.enabled);
    s.duration("check_interval", DURATIONS, &mut into.check_interval);
    s.flag("watch_dockerd", &mut into.watch_dockerd);
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
