//! The admin server's thread: accepts connections, gives each a deadline, and lets `pages` answer.
//!
//! Every wait ends: a request has `HEADER_TIME_MAX` to arrive, its page `PAGE_TIME_MAX` to be made and
//! `CONNECTION_TIME_MAX` to be read, and a connection carries one request. At most `CONNECTIONS_MAX` are open. If all
//! of them stay in use for longer than `SLOT_PATIENCE`, one is closed for the newest, so that silent clients can't keep
//! out a health check. Clients that have sent no request go first. Those waiting for an answer go last, because a stuck
//! capture loop makes them wait longer than that.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Context;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::access::Access;
use super::hosts::Hosts;
use super::listeners::{Bound, Incoming};
pub use super::listeners::{Early, check_tls};
use super::pages::{self, Pages};
use super::watchdog::{self, Watchdog};
use crate::ledger::Owner;
use crate::ledger::claims::{Claimed, Claims};
use crate::settings::Admin;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::profile::SECONDS_MAX;
use crate::telemetry::status::Status;
use crate::telemetry::taps::Watcher;

/// The answer to a plain HTTP request if the server speaks TLS.
pub const SPEAKS_TLS: &str = "This server speaks TLS: use https://.\n";
/// Connections open at once.
const CONNECTIONS_MAX: usize = 32;
/// How long a new connection waits for another one to end. A normal request is answered within a millisecond or two.
const SLOT_PATIENCE: Duration = Duration::from_millis(10);
/// Longest time for the request's head to arrive.
const HEADER_TIME_MAX: Duration = Duration::from_secs(3);
/// Longest time for everything but making the page, so that an answer that nobody reads ends, too. A live view may last
/// as long as it is read; it ends if nothing was read for this long although something waited.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(10);
/// Longest time to make a page. A reload may take seconds, and a profile as long as requested plus the time to find
/// names.
const PAGE_TIME_MAX: Duration = Duration::from_secs(if cfg!(test) { 12 } else { SECONDS_MAX + 120 });
/// Largest head of a request.
const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Most headers of a request.
const HEADERS_MAX: usize = 64;
/// Pause after a failed accept (usually for lack of descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a stop waits for answers under way.
const STOP_PATIENCE: Duration = Duration::from_millis(500);

/// A running admin server. Dropping it stops it.
pub struct AdminHandle {
    /// The address it listens on; for port 0 in the config, with the port it got.
    pub addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl AdminHandle {
    /// Accepts no more requests, ends those under way, and waits for the thread, half a second at most.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the admin server's thread had panicked");
        }
    }
}

impl Drop for AdminHandle {
    fn drop(&mut self) {
        self.end();
    }
}

/// Listens and answers until the handle is stopped; `None` = the config turns the server off. Fails at once if the
/// address is not available.
pub fn start(
    settings: &Admin,
    early: Early,
    status: Arc<Status>,
    metrics: Arc<Metrics>,
    claims: Claims,
) -> anyhow::Result<Option<AdminHandle>> {
    let Some(listen) = settings.listen else { return Ok(None) };
    let bound = Bound::new(listen, early, settings)?;
    let addr = bound.addr;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .context("admin server: making its runtime")?;
    let (stop, stopped) = oneshot::channel();
    let hosts = Hosts { listen: Some(listen.ip()), names: settings.hosts.clone() };
    let access = Access { hosts, token: settings.token.clone() };
    let pages = Arc::new(Pages { status, metrics, access, tap: settings.tap, profile: settings.profile });
    let thread = std::thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || {
            if let Err(error) = runtime.block_on(serve(bound, pages, claims, stopped)) {
                tracing::error!(%error, "the admin server has ended");
            }
        })
        .context("admin server: starting its thread")?;
    Ok(Some(AdminHandle { addr, stop: Some(stop), thread: Some(thread) }))
}

async fn serve(
    bound: Bound,
    pages: Arc<Pages>,
    claims: Claims,
    mut stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    let tls = bound.tls.clone();
    let listeners = bound.listen(&claims)?;
    let mut connections = Connections::default();
    let mut watchdog = Watchdog::new(Arc::clone(&pages.status), Arc::clone(&pages.metrics));
    let mut look = tokio::time::interval(watchdog::LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let accepted = tokio::select! {
            accepted = listeners.accept() => accepted,
            _ = look.tick() => {
                watchdog.look();
                continue;
            }
            _ = &mut stopped => break,
        };
        match accepted {
            Ok(stream) => {
                connections.make_room().await;
                connections.open(stream, tls.clone(), Arc::clone(&pages), claims.clone());
            }
            Err(error) => {
                tracing::warn!(%error, "the admin server could not take a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listeners);
    // A stop does not wait for live views.
    pages.status.taps.close();
    connections.close().await;
    Ok(())
}

/// How far a connection has come; if one must be closed, it is the one with the least progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// No complete request has arrived.
    Silent,
    /// The answer is being sent to a client that does not read it.
    Answered,
    /// The answer is being made.
    Asked,
}

struct Connection {
    task: AbortHandle,
    phase: Arc<Mutex<Phase>>,
}

/// The open connections, oldest first.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    by_age: Vec<Connection>,
}

impl Connections {
    /// Returns once there is room for one more.
    async fn make_room(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        if self.tasks.len() >= CONNECTIONS_MAX {
            let _ = tokio::time::timeout(SLOT_PATIENCE, self.tasks.join_next()).await;
            // On a busy machine the time may be up before a request that has arrived was read.
            tokio::task::yield_now().await;
        }
        self.by_age.retain(|connection| !connection.task.is_finished());
        let phase =
            |connection: &Connection| *connection.phase.lock().unwrap_or_else(PoisonError::into_inner);
        // The oldest among equals.
        let first = self.by_age.iter().enumerate().min_by_key(|(_, connection)| phase(connection));
        if self.tasks.len() >= CONNECTIONS_MAX
            && let Some((at, _)) = first
        {
            self.by_age.remove(at).task.abort();
            let _ = self.tasks.join_next().await;
        }
    }

    fn open(&mut self, stream: Incoming, tls: Option<TlsAcceptor>, pages: Arc<Pages>, claims: Claims) {
        let phase = Arc::new(Mutex::new(Phase::Silent));
        let told = Arc::clone(&phase);
        let task = self.tasks.spawn(async move {
            // A slow peer, or one that does not speak HTTP, is not our problem: nothing to log or count.
            let watcher = OnceLock::new();
            let conversation = converse(stream, tls, pages, &claims, &told, &watcher);
            let mut conversation = std::pin::pin!(conversation);
            let mut before = None;
            let mut was_asked = false;
            while tokio::time::timeout(CONNECTION_TIME_MAX, &mut conversation).await.is_err() {
                // Making the page has its own deadline; then the answer has as much time as any other.
                let is_asked = *told.lock().unwrap_or_else(PoisonError::into_inner) == Phase::Asked;
                if std::mem::replace(&mut was_asked, is_asked) || is_asked {
                    continue;
                }
                let Some((taken, waits)) = watcher.get().map(|watcher: &Arc<Watcher>| watcher.progress())
                else {
                    break;
                };
                if waits && before == Some(taken) {
                    break;
                }
                before = Some(taken);
            }
        });
        self.by_age.push(Connection { task, phase });
    }

    async fn close(mut self) {
        let rest = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(STOP_PATIENCE, rest).await;
        self.tasks.abort_all();
    }
}

/// One request, one answer. A failed handshake is the peer's problem.
async fn converse(
    stream: Incoming,
    tls: Option<TlsAcceptor>,
    pages: Arc<Pages>,
    claims: &Claims,
    phase: &Mutex<Phase>,
    watcher: &OnceLock<Arc<Watcher>>,
) -> hyper::Result<()> {
    match stream {
        Incoming::Unix(stream) => {
            let stream = claims.hold(stream, Owner::Admin);
            answer(stream, None, pages, phase, watcher).await
        }
        Incoming::Tcp(stream) => {
            let stream = claims.hold(stream, Owner::Admin);
            let local = stream.local_addr().ok();
            let Some(begins_tls) = begins_tls(&stream).await else { return Ok(()) };
            match tls {
                None if begins_tls => {
                    tracing::warn!(
                        "a client used TLS to connect to the admin server, which does not use TLS: use http://, or set \
                         admin.tls_cert and admin.tls_key"
                    );
                    Ok(())
                }
                None => answer(stream, local, pages, phase, watcher).await,
                Some(_) if !begins_tls => {
                    refuse_plain(stream).await;
                    Ok(())
                }
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => answer(stream, local, pages, phase, watcher).await,
                    Err(_) => Ok(()),
                },
            }
        }
    }
}

/// Whether a connection begins with a TLS handshake; nothing of it is consumed. `None` = nothing arrived in the time
/// that a request's head may take.
async fn begins_tls(stream: &TcpStream) -> Option<bool> {
    let mut first = [0];
    match tokio::time::timeout(HEADER_TIME_MAX, stream.peek(&mut first)).await {
        Ok(Ok(1)) => Some(first[0] == 0x16),
        _ => None,
    }
}

/// Answers a client that does not speak TLS: a closed connection would tell it nothing.
async fn refuse_plain(stream: Claimed<TcpStream>) {
    // Unread bytes would turn the close into a reset, which discards the answer.
    let _ = stream.try_read(&mut [0; HEADER_BYTES_MAX]);
    let body = SPEAKS_TLS;
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    // A new connection has room for the answer.
    let _ = stream.try_write(answer.as_bytes());
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    local: Option<SocketAddr>,
    pages: Arc<Pages>,
    phase: &Mutex<Phase>,
    watcher: &OnceLock<Arc<Watcher>>,
) -> hyper::Result<()> {
    let reach = |reached| *phase.lock().unwrap_or_else(PoisonError::into_inner) = reached;
    let service = service_fn(|request| {
        let pages = Arc::clone(&pages);
        async move {
            reach(Phase::Asked);
            let page = tokio::time::timeout(PAGE_TIME_MAX, pages.answer(&request, local));
            let mut answer = page.await.unwrap_or_else(|_| pages::late(PAGE_TIME_MAX));
            if let Some(watching) = answer.extensions_mut().remove::<Arc<Watcher>>() {
                let _ = watcher.set(watching);
            }
            reach(Phase::Answered);
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .keep_alive(false);
    builder.serve_connection(TokioIo::new(stream), service).await
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
