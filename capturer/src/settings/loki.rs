//! Settings of the Loki sink: its section of the config, typed and checked. Not here: anything that connects.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use hyper::Uri;

use super::reader::{Reader, Section};
use super::template::LabelTemplate;
use super::units::{self, Mismatch};
use super::{Settings, file};
use crate::limits;
use crate::text::terminal::shown;

/// Added to a `url` without a path.
const PUSH_PATH: &str = "/loki/api/v1/push";
/// Bounds of one request's size before compression. Loki's own ceiling for a body is 100 MiB.
const BATCH_BYTES: std::ops::RangeInclusive<u64> = 1024..=16 * 1024 * 1024;
/// Bounds of the spool.
const SPOOL_BYTES: std::ops::RangeInclusive<u64> = 1024 * 1024..=1024 << 30;

/// The Loki sink.
#[derive(Clone, Debug, PartialEq)]
pub struct Loki {
    /// Where to push, path included.
    pub url: Uri,
    /// Tenant of a line (`X-Scope-OrgID`); `None` = no such header.
    pub tenant: Option<LabelTemplate>,
    /// Tenant of lines for which `tenant` is empty; empty = no such header.
    pub tenant_default: String,
    /// Labels of Loki's streams: few, each with few values.
    pub labels: BTreeMap<String, LabelTemplate>,
    /// Structured metadata that Loki keeps with each line.
    pub structured_metadata: BTreeMap<String, LabelTemplate>,
    /// How bodies are written.
    pub format: LokiFormat,
    /// Most bytes of lines in a request, before compression.
    pub batch_bytes: u64,
    /// Most lines in a request.
    pub batch_lines: usize,
    /// How long a line waits for others to share its request.
    pub batch_timeout: Duration,
    /// Requests under way at once, each for another label set.
    pub in_flight_max: usize,
    /// How long the answer to a request may take; connecting may take as long again.
    pub request_timeout: Duration,
    /// First pause after a failure.
    pub backoff_min: Duration,
    /// Longest pause after failures.
    pub backoff_max: Duration,
    /// A longer line is cut here and marked; see [`limits::LOKI_LINE_BYTES`].
    pub line_bytes_max: u64,
    /// Lines older than this are not sent, because Loki would refuse them.
    pub max_line_age: MaxLineAge,
    /// How requests authenticate.
    pub auth: LokiAuth,
    /// Settings for https.
    pub tls: LokiTls,
    /// The queue on disk.
    pub spool: Spool,
    /// Bytes of dead letters that are kept at most.
    pub dead_letter_bytes_max: u64,
}

/// The age from which lines are set aside instead of sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxLineAge {
    /// The age that the server last named as the oldest it takes.
    AsServerSays,
    /// From this age.
    Fixed(Duration),
    /// Lines of any age are sent.
    Off,
}

/// How the body of a push is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LokiFormat {
    /// Protobuf with snappy: what Loki's own clients send.
    Protobuf,
    /// JSON with gzip, for proxies that look into bodies.
    Json,
}

/// A password or token. Never shown, not even in debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// How a request authenticates.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum LokiAuth {
    /// Not at all, or by a client certificate.
    #[default]
    None,
    /// User and password.
    Basic(String, Secret),
    /// A bearer token.
    Bearer(Secret),
    /// A token in a file that something else renews; read for each request.
    BearerFile(PathBuf),
}

/// Settings for https.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LokiTls {
    /// Certificates of authorities to trust instead of the host's; PEM.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate; PEM. Set together with `key_file`.
    pub cert_file: Option<PathBuf>,
    /// The private key that goes with `cert_file`.
    pub key_file: Option<PathBuf>,
}

/// A sink's queue on disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Spool {
    /// Most bytes on disk.
    pub bytes_max: u64,
    /// Older lines are given up: Loki refuses them anyway.
    pub age_max: Duration,
    /// What happens when it is full.
    pub when_full: WhenFull,
    /// Whether a line counts as delivered only when it is on disk.
    pub fsync: bool,
}

/// What a full spool does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Reading for this sink waits; lines stay in their log files.
    Wait,
    /// The oldest lines are given up, counted and reported as lost.
    DropOldest,
}

impl Loki {
    /// The tenant of every line; `None` = it depends on the line.
    pub fn fixed_tenant(&self) -> Option<String> {
        let fixed = self.tenant.as_ref().map_or(Some(String::new()), LabelTemplate::fixed);
        fixed.map(|tenant| if tenant.is_empty() { self.tenant_default.clone() } else { tenant })
    }
}

impl Default for Loki {
    fn default() -> Self {
        let templates = |pairs: &[(&str, &str)]| {
            let parse = |text: &str| LabelTemplate::parse(text).expect("our own templates are good");
            pairs.iter().map(|(name, text)| ((*name).to_owned(), parse(text))).collect()
        };
        Loki {
            url: Uri::from_static("http://127.0.0.1:3100/loki/api/v1/push"),
            tenant: None,
            tenant_default: String::new(),
            labels: templates(&[
                ("job", "capturer"),
                ("host", "{host}"),
                ("container_name", "{container_name}"),
                ("path", "{path}"),
                ("stream", "{stream}"),
            ]),
            structured_metadata: templates(&[
                ("container_id", "{container_id}"),
                ("image", "{image}"),
                ("compose_project", "{label:com.docker.compose.project}"),
                ("compose_service", "{label:com.docker.compose.service}"),
            ]),
            format: LokiFormat::Protobuf,
            batch_bytes: 1024 * 1024,
            batch_lines: 10_000,
            batch_timeout: Duration::from_secs(1),
            in_flight_max: 4,
            request_timeout: Duration::from_secs(30),
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_secs(60),
            line_bytes_max: limits::LOKI_LINE_BYTES,
            max_line_age: MaxLineAge::AsServerSays,
            auth: LokiAuth::None,
            tls: LokiTls::default(),
            spool: Spool {
                bytes_max: 1 << 30,
                age_max: Duration::from_secs(7 * 24 * 3600),
                when_full: WhenFull::Wait,
                fsync: true,
            },
            dead_letter_bytes_max: 64 * 1024 * 1024,
        }
    }
}

/// Reads the section; the sink stays off unless it says `enabled: true`. Returns whether it says neither that nor `false`.
pub(super) fn read(s: &mut Section, into: &mut Option<Loki>) -> bool {
    let (mut said, was_on) = (None, into.is_some());
    let mut sink = into.take().unwrap_or_default();
    s.read("enabled", &mut said, |text| units::flag(text).map(Some));
    s.read("url", &mut sink.url, url);
    s.read("tenant_id", &mut sink.tenant, tenant);
    s.read("tenant_default", &mut sink.tenant_default, fixed_tenant);
    s.map("labels", &mut sink.labels, LabelTemplate::parse);
    s.map("structured_metadata", &mut sink.structured_metadata, LabelTemplate::parse);
    s.choice("format", &[("protobuf", LokiFormat::Protobuf), ("json", LokiFormat::Json)], &mut sink.format);
    s.size("batch_size", BATCH_BYTES, &mut sink.batch_bytes);
    s.count("batch_lines", 1..=1_000_000, &mut sink.batch_lines);
    s.duration("batch_timeout", file::PAUSES, &mut sink.batch_timeout);
    s.count("max_in_flight", 1..=limits::LOKI_IN_FLIGHT_CEILING, &mut sink.in_flight_max);
    s.duration("request_timeout", file::DURATIONS, &mut sink.request_timeout);
    s.section("backoff", |s| {
        s.duration("min", file::DURATIONS, &mut sink.backoff_min);
        s.duration("max", file::DURATIONS, &mut sink.backoff_max);
    });
    s.size("line_bytes_max", 64..=limits::LINE_BYTES_CEILING, &mut sink.line_bytes_max);
    s.read("max_line_age", &mut sink.max_line_age, max_line_age);
    s.section("auth", |s| read_auth(s, &mut sink.auth));
    s.section("tls", |s| {
        s.read("ca_file", &mut sink.tls.ca_file, optional_path);
        s.read("cert_file", &mut sink.tls.cert_file, optional_path);
        s.read("key_file", &mut sink.tls.key_file, optional_path);
        if sink.tls.cert_file.is_some() != sink.tls.key_file.is_some() {
            s.problem("cert_file", "cert_file and key_file belong together: give both or neither");
        }
    });
    s.section("spool", |s| {
        s.size("max_size", SPOOL_BYTES, &mut sink.spool.bytes_max);
        s.duration("max_age", file::DURATIONS, &mut sink.spool.age_max);
        let full = [("wait", WhenFull::Wait), ("drop_oldest", WhenFull::DropOldest)];
        s.choice("when_full", &full, &mut sink.spool.when_full);
        s.choice("fsync", &[("always", true), ("never", false)], &mut sink.spool.fsync);
    });
    s.section("dead_letters", |s| {
        s.size("max_size", 64 * 1024..=1024 << 30, &mut sink.dead_letter_bytes_max);
    });
    if sink.labels.is_empty() && !s.has_problem("labels") {
        s.problem("labels", "has no labels; Loki requires at least one");
    }
    if sink.labels.len() > limits::LOKI_LABELS {
        s.problem(
            "labels",
            format!("has {} labels; Loki accepts at most {}", sink.labels.len(), limits::LOKI_LABELS),
        );
    }
    let names = [("labels", &sink.labels), ("structured_metadata", &sink.structured_metadata)];
    for (key, map) in names {
        for name in map.keys().filter(|name| !is_label_name(name)) {
            let why = "is not a valid label name: use letters, digits and _, and do not begin with a digit";
            s.problem(key, format!("\"{}\" {why}", shown(name)));
        }
    }
    *into = said.unwrap_or(was_on).then_some(sink);
    s.is_given() && said.is_none() && !was_on
}

fn read_auth(s: &mut Section, into: &mut LokiAuth) {
    let (mut username, mut password, mut token) = (String::new(), String::new(), String::new());
    let mut token_file = None;
    s.read("username", &mut username, units::text);
    s.secret("password", &mut password, secret);
    s.secret("bearer_token", &mut token, secret);
    s.read("bearer_token_file", &mut token_file, optional_path);
    let given = [!username.is_empty(), !token.is_empty(), token_file.is_some()];
    if given.into_iter().filter(|given| *given).count() > 1 {
        s.problem(
            "username",
            "username, bearer_token and bearer_token_file exclude each other: give one of them",
        );
    }
    if !password.is_empty() && username.is_empty() && !s.has_problem("username") {
        s.problem("username", "is missing: a password needs a username");
    }
    if !username.is_empty() && password.is_empty() && !s.has_problem("password") {
        s.problem(
            "password",
            "is missing: username needs one, best from a file: \"${file:/etc/capturer/loki-password}\"",
        );
    }
    *into = match token_file {
        Some(path) => LokiAuth::BearerFile(path),
        None if !token.is_empty() => LokiAuth::Bearer(Secret(token)),
        None if !username.is_empty() => LokiAuth::Basic(username, Secret(password)),
        None => LokiAuth::None,
    };
}

/// Relations between this sink's settings and others.
pub(super) fn check(settings: &Settings, sink: &Loki, reader: &Reader) {
    if sink.backoff_max < sink.backoff_min {
        let min = units::show_duration(sink.backoff_min);
        reader.problem("sinks.loki.backoff.max", format!("must be at least min, which is {min}"));
    }
    // The spool has several segments, each with room for more than a batch. Otherwise one batch could fill it.
    let least = 4 * sink.line_bytes_max.max(settings.line_bytes_max);
    if sink.spool.bytes_max < least {
        let message = format!("must be at least {}, four times the longest line", units::show_size(least));
        reader.problem("sinks.loki.spool.max_size", message);
    }
    for pipeline in &settings.pipelines {
        let own = pipeline.record_labels().filter(|label| !sink.labels.contains_key(*label));
        let own: std::collections::BTreeSet<&str> = own.collect();
        let count = sink.labels.len() + own.len();
        if count > limits::LOKI_LABELS {
            let taken = limits::LOKI_LABELS;
            let message = format!(
                "these and the labels of pipeline {} are {count} labels together; Loki accepts at most {taken}",
                pipeline.name
            );
            reader.problem("sinks.loki.labels", message);
        }
    }
    let tenant: BTreeMap<String, LabelTemplate> =
        sink.tenant.iter().map(|template| (String::new(), template.clone())).collect();
    let maps = [
        ("labels", &sink.labels),
        ("structured_metadata", &sink.structured_metadata),
        ("tenant_id", &tenant),
    ];
    for (key, map) in maps {
        let wanted = map.values().flat_map(LabelTemplate::source_labels);
        for label in wanted.filter(|label| !knows_label(settings, label)) {
            let setter =
                settings.pipelines.iter().find(|pipeline| pipeline.record_labels().any(|set| set == label));
            let label = shown(label);
            let message = match setter {
                None => format!(
                    "uses {{label:{label}}}, which no record has; add \"{label}\" to container_monitor.record_labels"
                ),
                // A pipeline runs per line, behind what is made here for a container or file.
                Some(pipeline) if key == "tenant_id" => format!(
                    "uses {{label:{label}}}, which only the pipeline {} sets: a tenant is made of labels of the container \
                     (container_monitor.record_labels) or of the file (labels in file_monitor.files)",
                    pipeline.name
                ),
                Some(pipeline) => format!(
                    "uses {{label:{label}}}, which only the pipeline {} sets: Loki gets the labels of pipelines without being \
                     told, so remove this one",
                    pipeline.name
                ),
            };
            reader.problem(&format!("sinks.loki.{key}"), message);
        }
    }
}

/// The default labels include compose's; whoever removes those from `record_labels` should not get an error.
pub(super) fn knows_label(settings: &Settings, label: &str) -> bool {
    label.starts_with("com.docker.compose.")
        || settings.container_monitor.record_labels.iter().any(|known| known == label)
        || settings.file_monitor.files.iter().any(|set| set.labels.contains_key(label))
}

pub(super) fn is_label_name(name: &str) -> bool {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    first && name.len() <= 1024 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn url(text: &str) -> Result<Uri, Mismatch> {
    let expected =
        || Mismatch::new("Loki's address, such as http://127.0.0.1:3100 or https://logs.example.com");
    let uri = Uri::from_str(text).map_err(|_| expected())?;
    let scheme = uri.scheme_str().unwrap_or_default();
    let host = uri.host().unwrap_or_default();
    let user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    if user {
        return Err(expected().hint("user and password stand in sinks.loki.auth, not in the address"));
    }
    if !matches!(scheme, "http" | "https") || host.is_empty() {
        return Err(expected());
    }
    let port = uri.authority().and_then(|authority| authority.as_str().rsplit_once(':'));
    let is_number = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    if port.is_some_and(|(_, port)| is_number(port) && !port.parse::<u16>().is_ok_and(|port| port > 0)) {
        return Err(expected().hint("ports go from 1 to 65535"));
    }
    if uri.path() != "/" {
        return Ok(uri);
    }
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let text = format!(
        "{scheme}://{}{PUSH_PATH}{query}",
        uri.authority().map_or("", |authority| authority.as_str())
    );
    Uri::from_str(&text).map_err(|_| expected())
}

/// Longest name of a tenant in bytes.
pub const TENANT_BYTES_MAX: usize = 150;

/// Whether Loki allows this character in a tenant's name.
pub fn is_tenant_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!-_.*'()".contains(c)
}

fn tenant(text: &str) -> Result<Option<LabelTemplate>, Mismatch> {
    if text.is_empty() {
        return Ok(None);
    }
    let template = LabelTemplate::parse(text)?;
    if !template.texts().all(|text| text.chars().all(is_tenant_char))
        || template.fixed().is_some_and(|fixed| fixed_tenant(&fixed).is_err())
    {
        return Err(tenant_expected());
    }
    Ok(Some(template))
}

fn tenant_expected() -> Mismatch {
    Mismatch::new(format!(
        "a tenant as Loki takes it: letters, digits and !-_.*'(), at most {TENANT_BYTES_MAX}, not . or .."
    ))
}

fn fixed_tenant(text: &str) -> Result<String, Mismatch> {
    let good =
        text.chars().all(is_tenant_char) && text.len() <= TENANT_BYTES_MAX && text != "." && text != "..";
    if good { Ok(text.to_owned()) } else { Err(tenant_expected()) }
}

fn max_line_age(text: &str) -> Result<MaxLineAge, Mismatch> {
    match text {
        "auto" => Ok(MaxLineAge::AsServerSays),
        "off" => Ok(MaxLineAge::Off),
        text => match units::duration(text) {
            Ok(age) if file::DURATIONS.contains(&age) => Ok(MaxLineAge::Fixed(age)),
            _ => Err(Mismatch::new(
                "a duration with its unit, such as 7d, or auto (as the server says), or off",
            )),
        },
    }
}

/// An address for messages, without parts that may be secret.
pub fn shown_url(url: &Uri) -> String {
    let text = url.to_string();
    match text.split_once('?') {
        Some((plain, _)) => format!("{plain}?…"),
        None => text,
    }
}

/// A secret that goes into a header.
fn secret(text: &str) -> Result<String, Mismatch> {
    if text.chars().any(char::is_control) {
        return Err(Mismatch::new("a text without control characters").secret());
    }
    Ok(text.to_owned())
}

fn optional_path(text: &str) -> Result<Option<PathBuf>, Mismatch> {
    if text.is_empty() {
        return Ok(None);
    }
    units::directory(text).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let path = |text: &str| url(text).map(|uri| uri.to_string()).ok();
        assert_eq!(path("http://a:3100").as_deref(), Some("http://a:3100/loki/api/v1/push"));
        assert_eq!(path("https://a/").as_deref(), Some("https://a/loki/api/v1/push"));
        assert_eq!(path("https://a/x/push").as_deref(), Some("https://a/x/push"));
        assert_eq!(path("http://[::1]:3100/").as_deref(), Some("http://[::1]:3100/loki/api/v1/push"));
        assert_eq!(path("http://[::1]").as_deref(), Some("http://[::1]/loki/api/v1/push"));
        let ports = ["http://a:0", "http://a:65536", "https://a:99999/x", "http://[::1]:99999"];
        for bad in ["", "a", "a:3100", "ftp://a", "/x", "http://", "http://u:p@a"].into_iter().chain(ports) {
            assert_eq!(path(bad), None, "{bad}");
        }
    }

    /// Settings in a log or a panic must not show the value of `${file:…}`.
    #[test]
    fn secrets_are_never_shown() {
        let loki = Loki { auth: LokiAuth::Basic("me".to_owned(), Secret::new("hunter2")), ..Loki::default() };
        let shown = format!("{loki:?}");
        assert!(shown.contains("me") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn label_names() {
        for good in ["a", "_a1", "container_name"] {
            assert!(is_label_name(good), "{good}");
        }
        for bad in ["", "1a", "a-b", "a.b", "ä", "a b"] {
            assert!(!is_label_name(bad), "{bad}");
        }
    }
}
