//! A test Loki: its push API as a real one answers it (measured against 3.4.6), with a knob for each fault.
//!
//! As the real one: bodies in protobuf with snappy, or JSON with gzip; every good line of a request that is refused is
//! stored, and the answer names the others in Loki's own words (too old, too new, too far behind, too long, too many
//! labels); a rate limit of a label set takes what is within it, one of a tenant takes a request whole or not at all; of
//! several label sets in a request what is over its rate or too far behind is told for the last only, and dropped
//! unsaid for the others; a line equal to a stored one of its label set in time and text is taken and not stored again;
//! an empty push is a 422. What is not there: queries, retention.
//!
//! Every line has its number of arrivals, and the lines of requests whose answer was withheld on purpose are
//! remembered: who sends those again has a reason.

mod requests;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use capturer::testing::read_label_text;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};

use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::loki_limits;
use requests::{Request, read_push, read_request};

/// A line that contains this is refused, for a reason that no agent knows.
pub const POISON: &str = "poison";
/// The words of that refusal.
pub const POISON_WORDS: &str = "the line contains poison";
/// The token that is right.
pub const TOKEN: &str = "right-token";

/// What the server does with requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// As Loki does.
    #[default]
    Well,
    /// Connections are closed as soon as they are made.
    Away,
    /// 429 with `Retry-After`, in seconds.
    Throttle(u64),
    /// 503.
    Unavailable,
    /// Answers after so many milliseconds.
    Slow(u64),
    /// Stores the lines, sends half of the answer's head and closes.
    HalfAnswers,
    /// Stores the lines and closes without an answer.
    Resets,
    /// 413 for bodies of more than so many bytes.
    SmallBodies(usize),
    /// 401 whatever the token.
    TokenExpired,
    /// Shows a certificate that nobody trusts.
    WrongCertificate,
    /// Answers as a TLS port does that is spoken to without TLS.
    NotLoki,
    /// 200 with a page to sign in.
    LoginPage,
    /// The same, but the connection ends before the page.
    CutPage,
    /// 260, as for a tenant whose ingestion is blocked.
    Blocked,
    /// Takes requests and answers none.
    Hangs,
}

/// What it takes: Loki's defaults, but for the rates, which are off.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Lines of a request without a tenant are refused.
    pub wants_tenant: bool,
    /// Tenants that may write; empty = all.
    pub tenants: Vec<String>,
    /// `reject_old_samples_max_age`.
    pub age_max: Duration,
    /// `creation_grace_period`.
    pub grace: Duration,
    /// Half of `max_chunk_age`: how far a line may be behind its label set's newest.
    pub behind_max: Duration,
    /// `max_line_size`.
    pub line_bytes_max: usize,
    /// `max_label_names_per_series`.
    pub labels_max: usize,
    /// Bytes a second of label sets that contain the text.
    pub stream_rate: Option<(String, usize)>,
    /// Bytes a second of a tenant.
    pub tenant_rate: Option<(String, usize)>,
    /// `allow_structured_metadata`.
    pub metadata_allowed: bool,
    /// A firewall before Loki answers 403 to every request with this text in a line.
    pub firewall: Option<String>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            wants_tenant: false,
            tenants: Vec::new(),
            age_max: Duration::from_secs(7 * 24 * 3600),
            grace: Duration::from_secs(600),
            behind_max: Duration::from_secs(3600),
            line_bytes_max: 256 * 1024,
            labels_max: 15,
            stream_rate: None,
            tenant_rate: None,
            metadata_allowed: true,
            firewall: None,
        }
    }
}

/// One line as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Nanoseconds since 1970.
    pub time_ns: i64,
    /// The text.
    pub text: String,
    /// How often it came.
    pub arrivals: u32,
}

/// What arrived, and what was done about it.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// By label set, in the order of their first arrival.
    pub lines: BTreeMap<String, Vec<Line>>,
    /// Texts of lines whose answer was withheld.
    pub answer_lost: BTreeSet<String>,
    /// Texts of lines that stood in a request that was refused for one of its lines.
    pub refused_with: BTreeSet<String>,
    /// Answers by status; 0 = none.
    pub answers: BTreeMap<u16, u64>,
    /// Tenants seen.
    pub tenants: BTreeSet<String>,
    /// Connections accepted.
    pub connections: u64,
    /// Most label sets in one request: of more than one Loki tells the truth about the last only.
    pub label_sets_max: usize,
    /// Time of each label set's newest line.
    pub newest: BTreeMap<String, i64>,
    index: BTreeMap<(String, i64, String), usize>,
}

impl Ledger {
    /// All lines of a container's channel.
    pub fn of(&self, container: &str, stream: &str) -> Vec<&Line> {
        let wanted = |labels: &str| {
            let labels: BTreeMap<String, String> =
                read_label_text(labels).unwrap_or_default().into_iter().collect();
            labels.get("container_name").is_some_and(|name| name == container)
                && labels.get("stream").is_some_and(|name| name == stream)
        };
        self.lines.iter().filter(|(labels, _)| wanted(labels)).flat_map(|(_, lines)| lines).collect()
    }

    /// All lines of label sets that contain a text.
    pub fn with(&self, text: &str) -> Vec<&Line> {
        self.lines.iter().filter(|(labels, _)| labels.contains(text)).flat_map(|(_, lines)| lines).collect()
    }

    /// Lines stored, each once.
    pub fn count(&self) -> usize {
        self.lines.values().map(Vec::len).sum()
    }

    /// Arrivals beyond the first: all, those whose answer was lost, those cut out of a refused request.
    pub fn repeats(&self) -> (u64, u64, u64) {
        let (mut all, mut lost, mut refused) = (0, 0, 0);
        for line in self.lines.values().flatten().filter(|line| line.arrivals > 1) {
            let more = u64::from(line.arrivals - 1);
            all += more;
            if self.answer_lost.contains(&line.text) {
                lost += more;
            } else if self.refused_with.contains(&line.text) {
                refused += more;
            }
        }
        (all, lost, refused)
    }

    /// Keeps a line; one that is there already is not kept again.
    pub(crate) fn store(&mut self, labels: &str, time_ns: i64, text: &str) {
        let key = (labels.to_owned(), time_ns, text.to_owned());
        let lines = self.lines.entry(labels.to_owned()).or_default();
        match self.index.get(&key) {
            Some(at) => lines[*at].arrivals += 1,
            None => {
                self.index.insert(key, lines.len());
                lines.push(Line { time_ns, text: text.to_owned(), arrivals: 1 });
            }
        }
    }
}

struct Shared {
    mood: Mutex<Mood>,
    limits: Mutex<Limits>,
    rates: Mutex<crate::loki_limits::Rates>,
    ledger: Mutex<Ledger>,
    wants_token: bool,
    tls: Option<Certificates>,
    stopped: std::sync::atomic::AtomicBool,
}

struct Certificates {
    right: Arc<ServerConfig>,
    wrong: Arc<ServerConfig>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running server; ends when dropped.
pub struct TestLoki {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    ca_pem: Option<String>,
}

impl TestLoki {
    /// Over plain HTTP, for anybody.
    pub fn start() -> Result<TestLoki> {
        TestLoki::start_with(None, false)
    }

    /// Over TLS, for who has the token.
    pub fn start_guarded() -> Result<TestLoki> {
        let (right, ca_pem) = certificate()?;
        let (wrong, _) = certificate()?;
        TestLoki::start_with(Some((Certificates { right, wrong }, ca_pem)), true)
    }

    fn start_with(tls: Option<(Certificates, String)>, wants_token: bool) -> Result<TestLoki> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (tls, ca_pem) = tls.map_or((None, None), |(tls, ca_pem)| (Some(tls), Some(ca_pem)));
        let shared = Arc::new(Shared {
            mood: Mutex::default(),
            limits: Mutex::default(),
            rates: Mutex::default(),
            ledger: Mutex::default(),
            wants_token,
            tls,
            stopped: false.into(),
        });
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || accept(&listener, &of_thread));
        Ok(TestLoki { address, shared, thread: Some(thread), ca_pem })
    }

    /// Where it listens, as in the config.
    pub fn url(&self) -> String {
        let scheme = if self.ca_pem.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Writes the certificate that is right.
    pub fn write_ca(&self, path: &Path) -> Result<()> {
        Ok(std::fs::write(path, self.ca_pem.as_ref().context("it speaks no TLS")?)?)
    }

    /// Turns a knob; holds for requests that come from now on.
    pub fn set(&self, mood: Mood) {
        *lock(&self.shared.mood) = mood;
    }

    /// Other limits; hold for requests that come from now on.
    pub fn limit(&self, limits: Limits) {
        *lock(&self.shared.limits) = limits;
    }

    /// What arrived so far.
    pub fn ledger(&self) -> Ledger {
        lock(&self.shared.ledger).clone()
    }

    /// Lines stored so far; cheap, for waiting.
    pub fn count(&self) -> usize {
        lock(&self.shared.ledger).count()
    }
}

impl Drop for TestLoki {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A certificate for this host that is its own authority.
fn certificate() -> Result<(Arc<ServerConfig>, String)> {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])?;
    let pem = made.cert.pem();
    let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes())?;
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    Ok((Arc::new(config), pem))
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming().flatten() {
        if shared.stopped.load(Ordering::Relaxed) {
            return;
        }
        lock(&shared.ledger).connections += 1;
        let mood = *lock(&shared.mood);
        if mood == Mood::Away {
            continue;
        }
        let shared = Arc::clone(shared);
        // A thread per connection: the agent has a handful, and they end with it.
        std::thread::spawn(move || {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
            let _ = match &shared.tls {
                None => converse(stream, &shared),
                Some(tls) => {
                    let config = if mood == Mood::WrongCertificate { &tls.wrong } else { &tls.right };
                    let session = ServerConnection::new(Arc::clone(config)).map_err(anyhow::Error::from);
                    session.and_then(|session| converse(StreamOwned::new(session, stream), &shared))
                }
            };
        });
    }
}

/// Request after request until either side closes.
fn converse(mut stream: impl Read + Write, shared: &Shared) -> Result<()> {
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer)? {
        let mood = *lock(&shared.mood);
        let (status, head, body) = match answer(&request, mood, shared)? {
            Some(answer) => answer,
            None => return Ok(()),
        };
        if mood == Mood::Hangs {
            // Until it is told otherwise, or ends.
            while *lock(&shared.mood) == Mood::Hangs && !shared.stopped.load(Ordering::Relaxed) {
                crate::wait::pass(Duration::from_millis(50));
            }
            return Ok(());
        }
        if let Mood::Slow(pause_ms) = mood {
            crate::wait::pass(Duration::from_millis(pause_ms));
        }
        let reason = if status < 300 { "OK" } else { "No" };
        let text =
            format!("HTTP/1.1 {status} {reason}\r\n{head}Content-Length: {}\r\n\r\n{body}", body.len());
        if mood == Mood::HalfAnswers {
            stream.write_all(&text.as_bytes()[..text.len() / 2])?;
            return Ok(());
        }
        if mood == Mood::CutPage && status == 200 {
            stream.write_all(&text.as_bytes()[..text.len() - body.len()])?;
            return Ok(());
        }
        stream.write_all(text.as_bytes())?;
        stream.flush()?;
        // A fault of the connection itself holds for connections that were there before it, too.
        if matches!(*lock(&shared.mood), Mood::Away | Mood::WrongCertificate) {
            return Ok(());
        }
    }
    Ok(())
}

type Answer = (u16, String, String);

/// `None` = the connection is closed without one.
fn answer(request: &Request, mood: Mood, shared: &Shared) -> Result<Option<Answer>> {
    let plain = |status: u16, words: &str| Ok(Some((status, String::new(), words.to_owned())));
    let mut ledger = lock(&shared.ledger);
    let said = |ledger: &mut Ledger, status: u16| *ledger.answers.entry(status).or_default() += 1;
    let refuse = match mood {
        Mood::Throttle(seconds) => {
            said(&mut ledger, 429);
            let words =
                "Ingestion rate limit exceeded for user fake (limit: 1 bytes/sec) while attempting to ingest";
            return Ok(Some((429, format!("Retry-After: {seconds}\r\n"), words.to_owned())));
        }
        Mood::Unavailable => Some((503, "the ingester is shutting down".to_owned())),
        Mood::Away => {
            said(&mut ledger, 0);
            return Ok(None);
        }
        Mood::TokenExpired => Some((401, "token expired".to_owned())),
        _ if shared.wants_token && request.header("authorization") != Some(&format!("Bearer {TOKEN}")) => {
            Some((401, "no such token".to_owned()))
        }
        Mood::SmallBodies(limit) if request.body.len() > limit => {
            Some((413, format!("request body too large: {} bytes, limit: {limit} bytes", request.body.len())))
        }
        _ if !request.head.starts_with("POST /loki/api/v1/push ") => {
            Some((404, "404 page not found".to_owned()))
        }
        _ => None,
    };
    if let Some((status, words)) = refuse {
        said(&mut ledger, status);
        return plain(status, &words);
    }
    if mood == Mood::NotLoki {
        said(&mut ledger, 400);
        return plain(400, "Client sent an HTTP request to an HTTPS server.\n");
    }
    if matches!(mood, Mood::LoginPage | Mood::CutPage) {
        said(&mut ledger, 200);
        return plain(200, "<html><form action=\"/login\">Sign in</form></html>");
    }
    let limits = lock(&shared.limits).clone();
    let tenant = request.header("x-scope-orgid").unwrap_or_default().to_owned();
    let push = read_push(request)?;
    if let Some((status, words)) = loki_limits::refuse_whole(&limits, &tenant, &push, mood == Mood::Blocked) {
        said(&mut ledger, status);
        return plain(status, &words);
    }
    ledger.tenants.insert(tenant.clone());
    ledger.label_sets_max = ledger.label_sets_max.max(push.streams.len());
    if matches!(mood, Mood::HalfAnswers | Mood::Resets) {
        let texts = push.streams.iter().flat_map(|stream| &stream.entries).map(|entry| entry.line.clone());
        ledger.answer_lost.extend(texts);
    }
    let (status, words) = loki_limits::take(&limits, &mut lock(&shared.rates), &tenant, &push, &mut ledger);
    if status >= 400 {
        let texts = push.streams.iter().flat_map(|stream| &stream.entries).map(|entry| entry.line.clone());
        ledger.refused_with.extend(texts);
    }
    if mood == Mood::Resets {
        said(&mut ledger, 0);
        return Ok(None);
    }
    said(&mut ledger, status);
    plain(status, &words)
}
