//! The answer for each path. Knows nothing of connections.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, ORIGIN, WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;

use super::access::Access;
use super::body::Body;
use super::health::{self, Facts};
use super::pieces::Pieces;
use crate::limits::TAPS_MAX;
use crate::model::cursor::Cursor;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::profile::{self, SECONDS_MAX};
use crate::telemetry::reload_requests::ReloadOutcome;
use crate::telemetry::row_words::{RowContext, Words};
use crate::telemetry::status::{DockerRow, Snapshot, Status, StreamRow};
use crate::telemetry::taps;
use crate::telemetry::taps::{Filter, Taps};
use crate::text::percent;
use crate::text::terminal;

/// How long a request waits for the capture loop before it gets the last snapshot.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long `/-/reload` waits for the result: a drain takes as long as the sinks need.
const RELOAD_PATIENCE: Duration = Duration::from_secs(8);
/// How often a waiting request checks; a healthy loop answers within a millisecond or two.
const LOOK_EVERY: Duration = Duration::from_millis(2);

const HTML: &str = "text/html; charset=utf-8";
const SVG: &str = "image/svg+xml";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const PPROF: &str = "application/octet-stream";
const NDJSON: &str = "application/x-ndjson";
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Only the page's own script and style, and only our own JSON: even a hostile container name that got into the page
/// could run nothing and send nothing.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const PATHS: &str = "/, /metrics, /healthz, /readyz, /health, /api/v1/streams, /api/v1/fds, /api/v1/positions, /api/v1/tap, /debug/profile, POST /-/reload";
const RELOAD: &str = "/-/reload";
const TAP: &str = "/api/v1/tap";
const PROFILE: &str = "/debug/profile";

/// The answer if a page was not made in time.
pub(super) fn late(limit: Duration) -> PageResponse {
    let message = format!("This page could not be made within {} s. Please report it.\n", limit.as_secs());
    text(StatusCode::SERVICE_UNAVAILABLE, message)
}

/// Everything that answers are made from.
pub(super) struct Pages {
    pub status: Arc<Status>,
    pub metrics: Arc<Metrics>,
    pub access: Access,
    /// Whether lines may be watched.
    pub tap: bool,
    /// Whether profiles may be taken.
    pub profile: bool,
}

pub(super) type PageResponse = Response<Body>;

impl Pages {
    /// Answers one request. It waits at most [`PATIENCE`] for other parts of the agent, [`RELOAD_PATIENCE`] for a
    /// reload, and for a profile as long as the server allows.
    pub(super) async fn answer<B: hyper::body::Body>(
        &self,
        request: &Request<B>,
        local: Option<SocketAddr>,
    ) -> PageResponse {
        if let Err(host) = self.access.hosts.check(request.headers(), local) {
            let host = terminal::shown(&host);
            let message = format!(
                "This server is not called {host}. Ask it by its address, or add the name to admin.hosts.\n"
            );
            return text(StatusCode::MISDIRECTED_REQUEST, message);
        }
        // `/healthz` needs no token: supervisors ask for it, and it only says that the process lives.
        if local.is_some() && request.uri().path() != "/healthz" && !self.access.knows(request.headers()) {
            let message = "This server requires its token (admin.token): send Authorization: Bearer TOKEN, or use the \
                           token as the password.\n";
            let mut answer = text(StatusCode::UNAUTHORIZED, message);
            let scheme = HeaderValue::from_static("Basic realm=\"capturer: the token is the password\"");
            answer.headers_mut().insert(WWW_AUTHENTICATE, scheme);
            return answer;
        }
        let reload = request.uri().path() == RELOAD;
        let is_right = match *request.method() {
            Method::GET | Method::HEAD => !reload,
            Method::POST => reload,
            _ => false,
        };
        if !is_right {
            let allowed = if reload { "POST" } else { "GET, HEAD" };
            let message = format!("Only {} is answered here.\n", allowed.replace(", ", " or "));
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, message);
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            return answer;
        }
        if reload && request.headers().contains_key(ORIGIN) {
            // Browsers send this header with every POST: a page from elsewhere must not control the agent.
            return text(StatusCode::FORBIDDEN, "Not for web pages.\n");
        }
        if !request.body().is_end_stream() {
            return text(StatusCode::BAD_REQUEST, "A request here has no body.\n");
        }
        match request.uri().path() {
            "/" => with_type(StatusCode::OK, HTML, page()),
            "/icon-ok.svg" => with_type(StatusCode::OK, SVG, include_str!("page/icon-ok.svg")),
            "/icon-bad.svg" => with_type(StatusCode::OK, SVG, include_str!("page/icon-bad.svg")),
            "/icon-warning.svg" => with_type(StatusCode::OK, SVG, include_str!("page/icon-warning.svg")),
            "/icon-unknown.svg" => with_type(StatusCode::OK, SVG, include_str!("page/icon-unknown.svg")),
            "/page.js" => {
                with_type(StatusCode::OK, "text/javascript; charset=utf-8", include_str!("page/page.js"))
            }
            "/page.css" => {
                with_type(StatusCode::OK, "text/css; charset=utf-8", include_str!("page/page.css"))
            }
            RELOAD => self.reload().await,
            "/healthz" => text(StatusCode::OK, "alive\n"),
            "/metrics" => self.metrics().await,
            "/readyz" => self.ready(),
            "/health" => self.health(),
            "/api/v1/streams" => self.streams().await,
            "/api/v1/fds" => json(StatusCode::OK, &self.status.fds()),
            "/api/v1/positions" => self.positions().await,
            TAP => self.tap(request.uri().query().unwrap_or_default(), request.method() == Method::HEAD),
            PROFILE => {
                let query = request.uri().query().unwrap_or_default();
                self.profile(query, request.method() == Method::HEAD).await
            }
            _ => text(StatusCode::NOT_FOUND, format!("Not found. Available paths: {PATHS}\n")),
        }
    }

    async fn metrics(&self) -> PageResponse {
        let (snapshot, _) = self.snapshot().await;
        self.metrics.show_sources(&snapshot.streams, self.age_ms(&snapshot), snapshot.all_listed);
        self.metrics.show_process();
        let taps = &self.status.taps;
        self.metrics.tap_watchers.set(taps.count() as i64);
        self.metrics.tap_skipped_lines_total.inc_by(taps.take_skipped());
        let report = health::report(&self.facts());
        // A component that no longer exists must not be shown.
        self.metrics.component_health.reset();
        for (component, health) in &report.components {
            self.metrics.component_health.with_label_values(&[component]).set(i64::from(health.ok));
        }
        let mut text = Pieces::default();
        self.metrics.write_to(&mut text);
        in_pieces(StatusCode::OK, EXPOSITION, text)
    }

    /// The counters know what sinks have done so far.
    fn facts(&self) -> Facts {
        let mut facts = Facts::of(&self.status);
        facts.lines = facts.sinks.keys().map(|sink| (sink.clone(), self.metrics.lines_of(sink))).collect();
        facts
    }

    fn ready(&self) -> PageResponse {
        let reasons = health::not_ready(&Facts::of(&self.status));
        text(status(reasons.is_empty()), health::ready_text(&reasons))
    }

    fn health(&self) -> PageResponse {
        let report = health::report(&self.facts());
        json(status(report.ok), &report)
    }

    /// Waits without blocking the thread, so that others are answered meanwhile.
    async fn reload(&self) -> PageResponse {
        let requests = &self.status.reload_requests;
        let ticket = requests.ask();
        let looking = async {
            loop {
                if let Some(outcome) = requests.outcome(ticket) {
                    return outcome;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let (status, said) = match tokio::time::timeout(RELOAD_PATIENCE, looking).await {
            Ok(ReloadOutcome::Applied(said)) => (StatusCode::OK, said),
            Ok(ReloadOutcome::Refused(said)) => (StatusCode::BAD_REQUEST, said),
            Ok(ReloadOutcome::Failed(said)) => (StatusCode::INTERNAL_SERVER_ERROR, said),
            Ok(ReloadOutcome::Stopping) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "the agent is stopping, or was started without a config".to_owned(),
            ),
            Err(_) => {
                let said = "the reload is still in progress; /health and config_last_reload_successful show how it ends";
                (StatusCode::ACCEPTED, said.to_owned())
            }
        };
        text(status, said + "\n")
    }

    /// Records as they are delivered, until the reader leaves. `container` and `grep` filter them.
    fn tap(&self, query: &str, head: bool) -> PageResponse {
        if !self.tap {
            return text(StatusCode::FORBIDDEN, "Watching lines is switched off (admin.tap).\n");
        }
        let mut filter = Filter::default();
        for (key, value) in query.split('&').filter_map(|part| part.split_once('=')) {
            let Some(value) = percent::unquote(value) else {
                return text(StatusCode::BAD_REQUEST, format!("{key}: not percent-encoded UTF-8\n"));
            };
            match key {
                "container" => filter.source = Some(value),
                "grep" => match taps::pattern(&value) {
                    Ok(pattern) => filter.pattern = Some(pattern),
                    Err(error) => return text(StatusCode::BAD_REQUEST, format!("grep: {error}\n")),
                },
                _ => return text(StatusCode::BAD_REQUEST, "known here: container, grep\n"),
            }
        }
        if head {
            return with_type(StatusCode::OK, NDJSON, "");
        }
        let Some(watch) = Taps::watch(self.status.clone(), filter) else {
            let message = format!("At most {TAPS_MAX} readers at once; close another one first.\n");
            return text(StatusCode::SERVICE_UNAVAILABLE, message);
        };
        let mut answer = with_type(StatusCode::OK, NDJSON, "");
        answer.extensions_mut().insert(watch.watcher());
        *answer.body_mut() = Body::live(watch);
        answer
    }

    /// Where processor time goes for a while. `seconds` and `format` choose.
    async fn profile(&self, query: &str, head: bool) -> PageResponse {
        if !self.profile {
            let message = "Profiles are switched off. Set `admin: {profile: true}` in the config and restart the agent.\n";
            return text(StatusCode::FORBIDDEN, message);
        }
        let (mut seconds, mut as_pprof) = (profile::SECONDS_DEFAULT, false);
        for part in query.split('&').filter(|part| !part.is_empty()) {
            match part.split_once('=').unwrap_or((part, "")) {
                ("seconds", value) => match value.parse() {
                    Ok(given) if (1..=SECONDS_MAX).contains(&given) => seconds = given,
                    _ => {
                        let message = format!("seconds: a whole number from 1 to {SECONDS_MAX}\n");
                        return text(StatusCode::BAD_REQUEST, message);
                    }
                },
                ("format", "svg") => as_pprof = false,
                ("format", "pprof") => as_pprof = true,
                ("format", _) => return text(StatusCode::BAD_REQUEST, "format: svg or pprof\n"),
                _ => return text(StatusCode::BAD_REQUEST, "known here: seconds, format\n"),
            }
        }
        let content_type = if as_pprof { PPROF } else { SVG };
        if head {
            return with_type(StatusCode::OK, content_type, "");
        }
        let Some(taking) = self.status.profiles.ask(Duration::from_secs(seconds)) else {
            let message =
                "Another profile is being taken. Only one is taken at a time; ask again when it has ended.\n";
            return text(StatusCode::CONFLICT, message);
        };
        match taking.await {
            Ok(Ok(profile)) if as_pprof => with_type(StatusCode::OK, content_type, profile::pprof(&profile)),
            Ok(Ok(profile)) => with_type(StatusCode::OK, content_type, profile::svg(&profile)),
            Ok(Err(error)) => {
                text(StatusCode::INTERNAL_SERVER_ERROR, format!("No profile could be taken: {error:#}\n"))
            }
            Err(_) => {
                let message = "No profile could be taken: its thread could not be started.\n";
                text(StatusCode::SERVICE_UNAVAILABLE, message)
            }
        }
    }

    async fn streams(&self) -> PageResponse {
        let (snapshot, fresh) = self.snapshot().await;
        let report = health::report(&self.facts());
        let about = RowContext::new(&snapshot, &report.components);
        let streams = snapshot.streams.iter().map(|row| ShownRow { row, words: about.words(row) }).collect();
        let Snapshot { taken_at_ms, docker, operations, .. } = &*snapshot;
        let (taken_at_ms, operations) = (*taken_at_ms, *operations);
        let age_ms = self.age_ms(&snapshot);
        json(StatusCode::OK, &Streams { fresh, age_ms, taken_at_ms, streams, docker, operations })
    }

    async fn positions(&self) -> PageResponse {
        let (snapshot, fresh) = self.snapshot().await;
        let position = |row: &StreamRow| Position {
            key: row.key.clone(),
            name: row.name.clone(),
            position: row.position.clone(),
        };
        let positions = snapshot.streams.iter().map(position).collect();
        json(StatusCode::OK, &Positions { fresh, age_ms: self.age_ms(&snapshot), positions })
    }

    /// A snapshot, and whether it was made for this request. Waits without blocking the thread, so that others are
    /// answered meanwhile.
    async fn snapshot(&self) -> (Arc<Snapshot>, bool) {
        let ticket = self.status.ask();
        let looking = async {
            loop {
                if let Some(snapshot) = self.status.answer(&ticket) {
                    return snapshot;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        match tokio::time::timeout(PATIENCE, looking).await {
            Ok(snapshot) => (snapshot, true),
            Err(_) => (self.status.last_snapshot(), false),
        }
    }

    fn age_ms(&self, snapshot: &Snapshot) -> u64 {
        self.status.elapsed_ms().saturating_sub(snapshot.taken_at_ms)
    }
}

/// What `/api/v1/streams` answers.
#[derive(Serialize)]
struct Streams<'a> {
    /// False = the capture loop did not answer in time, and this is its last snapshot.
    fresh: bool,
    /// Age of the snapshot.
    age_ms: u64,
    taken_at_ms: u64,
    streams: Vec<ShownRow<'a>>,
    docker: &'a DockerRow,
    operations: u64,
}

#[derive(Serialize)]
struct ShownRow<'a> {
    #[serde(flatten)]
    row: &'a StreamRow,
    #[serde(flatten)]
    words: Words,
}

/// What `/api/v1/positions` answers.
#[derive(Serialize)]
struct Positions {
    fresh: bool,
    age_ms: u64,
    positions: Vec<Position>,
}

#[derive(Serialize)]
struct Position {
    key: Arc<str>,
    name: Arc<str>,
    position: Option<Cursor>,
}

/// The status page, including what is known before its script asks.
fn page() -> String {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy();
    // A host's name has only these characters; any other name is not shown.
    let plain = |c: &char| c.is_ascii_alphanumeric() || ".-_".contains(*c);
    let host: String = host.chars().filter(plain).collect();
    // A build without a repository can't name its commit.
    let commit = match env!("CAPTURER_COMMIT") {
        "" | "unknown" => String::new(),
        commit => format!(" ({commit})"),
    };
    include_str!("page/index.html")
        .replace("{host}", &host)
        .replace("{version}", env!("CARGO_PKG_VERSION"))
        .replace(" ({commit})", &commit)
}

fn status(ok: bool) -> StatusCode {
    if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> PageResponse {
    with_type(status, TEXT, body)
}

fn json(status: StatusCode, value: &impl Serialize) -> PageResponse {
    let mut body = Pieces::default();
    match serde_json::to_writer(&mut body, value).map_err(Into::into).and_then(|()| writeln!(body)) {
        Ok(()) => in_pieces(status, JSON, body),
        Err(error) => {
            tracing::error!(%error, "an answer of the admin server could not be written as JSON");
            text(StatusCode::INTERNAL_SERVER_ERROR, "The answer could not be written as JSON.\n")
        }
    }
}

fn with_type(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> PageResponse {
    in_pieces(status, content_type, body.into().into())
}

fn in_pieces(status: StatusCode, content_type: &'static str, body: Pieces) -> PageResponse {
    let mut answer = Response::new(Body::whole(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.insert("referrer-policy", HeaderValue::from_static("no-referrer"));
    answer
}
