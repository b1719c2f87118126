//! What the threads tell each other about themselves: what `capture` and the sinks tell, and what `admin` shows.
//!
//! `admin` must answer while `capture` is stuck, so it never waits for it without a limit: it asks for a fresh
//! [`Snapshot`], waits briefly, and else shows the last one with its age. Idle costs nothing: a snapshot is made
//! only when asked for.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::ledger::table::FdTable;
use crate::model::docker::EngineFault;
use crate::telemetry::profile::Profiles;
use crate::telemetry::reload_requests::ReloadRequests;
pub use crate::telemetry::stream_row::{StreamCounts, StreamRow};
use crate::telemetry::taps::Taps;
use crate::telemetry::told::Told;
use crate::text::over::over;

/// What the capture loop knows at one moment. Plain data, made by the pure core.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Milliseconds since the agent began.
    pub taken_at_ms: u64,
    /// Every source there is has its row; not yet so at the start of a run.
    pub all_listed: bool,
    /// A row for each stream.
    pub streams: Vec<StreamRow>,
    /// The Engine, as far as the loop knows.
    pub docker: DockerRow,
    /// Operations the core waits for (reads, requests, openings).
    pub operations: u64,
}

/// What is known of the Engine.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DockerRow {
    /// Whether containers are monitored at all.
    pub enabled: bool,
    /// The last request was answered.
    pub reachable: bool,
    /// Path of the socket.
    pub socket: String,
    /// Why not reachable; empty if it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// The same as a kind, by which rows are worded.
    #[serde(skip)]
    pub fault: EngineFault,
    /// Running containers seen.
    pub containers: u64,
}

/// How bad it is with a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HealthState {
    /// It is well.
    Well,
    /// It is not, and no line is lost or waits for that: amber.
    Warning,
    /// It is not, and lines are lost, wait or do not come: red.
    Bad,
}

/// Health of one component, as it told itself.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct Health {
    /// False = needs somebody's attention.
    pub ok: bool,
    /// One sentence: what is wrong and how to mend it, or what is well.
    pub message: String,
    /// It is well, and yet somebody should read this.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub note: bool,
    /// It is not well, and no line is lost or waits for that: a page must not look as in an outage.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub warning: bool,
    /// Since when it is as it is (milliseconds since the agent began).
    #[serde(skip)]
    pub since_ms: u64,
    /// What those lines wait for that a network sink has in its spool; empty = none waits.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub waits_for: String,
    /// The same for who has five seconds; made when somebody looks, of what is not well or a note.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub told: Option<Told>,
}

impl Health {
    /// Without a note, and no mere warning.
    pub fn new(ok: bool, message: impl Into<String>) -> Health {
        Health {
            ok,
            message: message.into(),
            note: false,
            warning: false,
            since_ms: 0,
            waits_for: String::new(),
            told: None,
        }
    }
}

/// What a thread is at that nothing can end: while it works on a step, since when. A step under way for long is said by
/// `/health`, for the thread itself can't.
#[derive(Debug)]
pub struct Beat {
    started: Instant,
    /// Milliseconds since `started`; 0 = it waits for work.
    busy_since_ms: AtomicU64,
    steps: AtomicU64,
}

/// A step under way; it ends when this is dropped.
#[derive(Debug)]
pub struct Step<'a>(&'a Beat);

impl Beat {
    /// For how long the step under way has been; zero if there is none.
    pub fn age(&self) -> Duration {
        let since = Duration::from_millis(self.busy_since_ms.load(Ordering::Relaxed));
        if since.is_zero() { Duration::ZERO } else { self.started.elapsed().saturating_sub(since) }
    }

    /// A step begins.
    pub fn step(&self) -> Step<'_> {
        let now = self.started.elapsed().as_millis() as u64;
        self.busy_since_ms.store(now.max(1), Ordering::Relaxed);
        Step(self)
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        self.0.busy_since_ms.store(0, Ordering::Relaxed);
        self.0.steps.fetch_add(1, Ordering::Relaxed);
    }
}

/// Receipt for an [`Status::ask`]; empty if there is nobody to ask.
#[derive(Debug)]
pub struct Ticket(Option<u64>);

/// Shared by all threads, behind an [`Arc`].
pub struct Status {
    started: Instant,
    /// Milliseconds (since start) of the capture loop's last turn.
    capture_beat_ms: AtomicU64,
    snapshot: Mutex<Arc<Snapshot>>,
    snapshot_count: Mutex<u64>,
    snapshot_made: Condvar,
    ask: OnceLock<Box<dyn Fn() + Send + Sync>>,
    fds: OnceLock<Box<dyn Fn() -> FdTable + Send + Sync>>,
    /// Reloads that are asked for.
    pub reload_requests: ReloadRequests,
    /// Profiles of the agent that are asked for.
    pub profiles: Profiles,
    /// Live views of records.
    pub taps: Taps,
    health: Mutex<BTreeMap<String, Health>>,
    beats: Mutex<BTreeMap<String, Arc<Beat>>>,
    /// The config is loaded and the sources were listed once.
    pub sources_ready: AtomicBool,
    sinks_waiting: Mutex<BTreeMap<String, bool>>,
    sinks_held: Mutex<BTreeMap<String, String>>,
}

impl Default for Status {
    fn default() -> Self {
        Status {
            started: Instant::now(),
            capture_beat_ms: AtomicU64::new(0),
            snapshot: Mutex::default(),
            snapshot_count: Mutex::new(0),
            snapshot_made: Condvar::new(),
            ask: OnceLock::new(),
            fds: OnceLock::new(),
            reload_requests: ReloadRequests::default(),
            profiles: Profiles::default(),
            taps: Taps::default(),
            health: Mutex::default(),
            beats: Mutex::default(),
            sources_ready: AtomicBool::new(false),
            sinks_waiting: Mutex::default(),
            sinks_held: Mutex::default(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A thread that panicked while it held the lock wrote whole values only; what it left can be read.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl AsRef<Taps> for Status {
    fn as_ref(&self) -> &Taps {
        &self.taps
    }
}

impl Status {
    /// Milliseconds since the agent began.
    pub fn elapsed_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// The capture loop made a turn.
    pub fn beat_capture(&self) {
        self.capture_beat_ms.store(self.elapsed_ms(), Ordering::Relaxed);
    }

    /// Milliseconds since the capture loop's last turn. It turns at least once a second.
    pub fn capture_beat_age_ms(&self) -> u64 {
        self.elapsed_ms().saturating_sub(self.capture_beat_ms.load(Ordering::Relaxed))
    }

    /// Sets how `admin` wakes the capture loop for a snapshot. Once, at start.
    pub fn on_ask(&self, ask: Box<dyn Fn() + Send + Sync>) {
        let _ = self.ask.set(ask);
    }

    /// Sets how `admin` looks at the descriptors, which needs no loop. Once, at start.
    pub fn on_fds(&self, fds: Box<dyn Fn() -> FdTable + Send + Sync>) {
        let _ = self.fds.set(fds);
    }

    /// The descriptors as they are now.
    pub fn fds(&self) -> FdTable {
        self.fds.get().map_or_else(FdTable::default, |fds| fds())
    }

    /// The capture loop's answer to an ask.
    pub fn publish(&self, snapshot: Snapshot) {
        *lock(&self.snapshot) = Arc::new(snapshot);
        *lock(&self.snapshot_count) += 1;
        self.snapshot_made.notify_all();
    }

    /// Asks the capture loop for a snapshot without waiting; [`Status::answer`] with this ticket tells when it came.
    pub fn ask(&self) -> Ticket {
        let before = *lock(&self.snapshot_count);
        match self.ask.get() {
            Some(ask) => {
                // Not under the lock: the asked one may publish at once.
                ask();
                Ticket(Some(before))
            }
            None => Ticket(None),
        }
    }

    /// The snapshot that was asked for, once it is there.
    pub fn answer(&self, ticket: &Ticket) -> Option<Arc<Snapshot>> {
        match ticket.0 {
            Some(before) if *lock(&self.snapshot_count) == before => None,
            _ => Some(self.last_snapshot()),
        }
    }

    /// The last snapshot there is, however old.
    pub fn last_snapshot(&self) -> Arc<Snapshot> {
        lock(&self.snapshot).clone()
    }

    /// A snapshot made after this call if one comes within `patience`, else the last there is. Blocks this thread.
    pub fn fresh_snapshot(&self, patience: Duration) -> Arc<Snapshot> {
        if let Ticket(Some(before)) = self.ask() {
            let _unused = self
                .snapshot_made
                .wait_timeout_while(lock(&self.snapshot_count), patience, |count| *count == before)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        self.last_snapshot()
    }

    /// A component tells how it is. If a fault of it has ended, the log says so.
    pub fn set_health(&self, component: &str, ok: bool, message: impl Into<String>) {
        self.set_state(component, if ok { HealthState::Well } else { HealthState::Bad }, message);
    }

    /// A component is not well, and lines arrive all the same.
    pub fn set_warning(&self, component: &str, message: impl Into<String>) {
        self.set_state(component, HealthState::Warning, message);
    }

    /// A component tells how it is, and how bad that is.
    pub fn set_state(&self, component: &str, state: HealthState, message: impl Into<String>) {
        if let Some(over) = self.put(component, state, message) {
            tracing::info!(component, "{over}");
        }
    }

    /// A component is well, and has something to say that should be read all the same.
    pub fn set_note(&self, component: &str, message: impl Into<String>) {
        let health = Health { note: true, ..Health::new(true, message) };
        if let Some(over) = self.insert(component, health) {
            tracing::info!(component, "{over}");
        }
    }

    /// The same as [`Status::set_state`] without a line of the log: answers the line that says that its fault has ended.
    #[must_use]
    pub fn put(&self, component: &str, state: HealthState, message: impl Into<String>) -> Option<String> {
        let warning = state == HealthState::Warning;
        self.insert(component, Health { warning, ..Health::new(state == HealthState::Well, message) })
    }

    fn insert(&self, component: &str, mut health: Health) -> Option<String> {
        let now_ms = self.elapsed_ms();
        health.since_ms = now_ms;
        let mut all = lock(&self.health);
        let mut ended = None;
        if let Some(fault) = all.get(component).filter(|before| !before.ok) {
            if health.ok {
                let what = Told::of(component, &fault.message).title;
                ended = Some(over(now_ms.saturating_sub(fault.since_ms) / 1000, &what));
            } else {
                health.since_ms = fault.since_ms;
            }
        }
        all.insert(component.to_owned(), health);
        ended
    }

    /// What the lines of a component's spool wait for.
    pub fn set_waits_for(&self, component: &str, text: &str) {
        if let Some(health) = lock(&self.health).get_mut(component).filter(|health| health.waits_for != text)
        {
            text.clone_into(&mut health.waits_for);
        }
    }

    /// A component is no more.
    pub fn forget_health(&self, component: &str) {
        lock(&self.health).remove(component);
    }

    /// What all components told.
    pub fn health(&self) -> BTreeMap<String, Health> {
        lock(&self.health).clone()
    }

    /// A beat that no component has.
    pub fn lone_beat(&self) -> Arc<Beat> {
        let (busy_since_ms, steps) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Beat { started: self.started, busy_since_ms, steps })
    }

    /// The beat of a component, made by the first who asks.
    pub fn beat(&self, component: &str) -> Arc<Beat> {
        Arc::clone(lock(&self.beats).entry(component.to_owned()).or_insert_with(|| self.lone_beat()))
    }

    /// Per component that has a beat: milliseconds that its step has been under way, 0 if there is none; and how many
    /// have ended.
    pub fn beats(&self) -> BTreeMap<String, (u64, u64)> {
        let now = self.elapsed_ms();
        let read = |beat: &Beat| {
            let since = beat.busy_since_ms.load(Ordering::Relaxed);
            let age = if since == 0 { 0 } else { now.saturating_sub(since) };
            (age, beat.steps.load(Ordering::Relaxed))
        };
        lock(&self.beats).iter().map(|(component, beat)| (component.clone(), read(beat))).collect()
    }

    /// A sink exists; ready once it accepted something.
    pub fn expect_sink(&self, name: &str) {
        lock(&self.sinks_waiting).entry(name.to_owned()).or_insert(false);
    }

    /// A sink is no more: what was told of it goes, its delivery's words included.
    pub fn forget_sink(&self, name: &str) {
        let component = format!("sink_{name}");
        let part = format!("{component}_");
        lock(&self.health).retain(|known, _| *known != component && !known.starts_with(&part));
        lock(&self.beats).remove(&component);
        self.doubt_sink(name);
        lock(&self.sinks_waiting).remove(name);
    }

    /// A sink has other settings: it has to show anew that it accepts.
    pub fn doubt_sink(&self, name: &str) {
        lock(&self.sinks_held).remove(name);
        if let Some(accepted) = lock(&self.sinks_waiting).get_mut(name) {
            *accepted = false;
        }
    }

    /// A sink accepted (a batch, or its first attachment).
    pub fn sink_accepted(&self, name: &str) {
        lock(&self.sinks_waiting).insert(name.to_owned(), true);
    }

    /// The other side of a sink takes nothing until somebody mends what the reason says; `None` = it is mended.
    pub fn hold_sink(&self, name: &str, reason: Option<String>) {
        let mut held = lock(&self.sinks_held);
        match reason {
            Some(reason) => drop(held.insert(name.to_owned(), reason)),
            None => drop(held.remove(name)),
        }
    }

    /// Per sink that is held: why.
    pub fn held_sinks(&self) -> BTreeMap<String, String> {
        lock(&self.sinks_held).clone()
    }

    /// Per sink: whether it accepted once.
    pub fn sinks(&self) -> BTreeMap<String, bool> {
        lock(&self.sinks_waiting).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streams(count: usize) -> Snapshot {
        Snapshot { streams: vec![StreamRow::default(); count], ..Snapshot::default() }
    }

    #[test]
    fn an_ask_is_answered_by_the_next_snapshot_only() {
        let status = Status::default();
        assert!(status.answer(&status.ask()).is_some(), "nobody to ask: what there is");
        status.on_ask(Box::new(|| {}));
        status.publish(streams(1));
        let ticket = status.ask();
        assert!(status.answer(&ticket).is_none());
        status.publish(streams(2));
        assert_eq!(status.answer(&ticket).expect("answered").streams.len(), 2);
    }

    /// `admin` must not hang on a capture loop that does.
    #[test]
    fn patience_ends() {
        let status = Status::default();
        status.publish(streams(1));
        status.on_ask(Box::new(|| {}));
        assert_eq!(status.fresh_snapshot(Duration::from_millis(10)).streams.len(), 1);
    }

    /// Seven wordings of the end of a fault once stood in the log. Now whoever is well again has it said here.
    #[test]
    fn the_end_of_every_components_fault_has_one_form() {
        let status = Status::default();
        for (component, message, what) in [
            ("docker", "Docker has not answered for 9 s", "Docker does not answer"),
            ("checkpoint", "no room", "Positions cannot be saved"),
            ("config", "no", "The new config was refused"),
            ("streams", "2 streams read nothing", "Streams are stuck"),
            ("descriptors", "4 files wait", "File descriptors are running out"),
            ("containers", "no container matches x", "No container matches a pattern"),
            ("sink_local_file", "No space left on device", "Disk full: outputs cannot be written"),
            ("sink_stdout", "no", "Standard output cannot be written"),
            ("sink_loki", "the spool is full", "The spool is full"),
            ("sink_loki_delivery", "status 401", "Loki refuses the login (401)"),
            ("losses", "lines were lost: 3 bytes, x", "Lines were lost: 3 bytes"),
            ("leak_detector", "x leaks a file descriptor", "The agent leaks a file descriptor"),
            ("probe", "the last look failed", "probe"),
        ] {
            for state in [HealthState::Bad, HealthState::Warning] {
                assert_eq!(status.put(component, HealthState::Well, "well"), None, "{component}");
                assert_eq!(status.put(component, state, message), None, "{component}");
                assert_eq!(status.put(component, state, message), None, "{component}: as before");
                let ended = status.put(component, HealthState::Well, "well");
                assert_eq!(ended, Some(format!("over after 0 s: {what}")), "{component}");
            }
        }
    }

    /// What a reload took away must not be waited for, nor alarm.
    #[test]
    fn a_sink_that_is_gone_is_not_waited_for() {
        let status = Status::default();
        status.expect_sink("loki");
        status.hold_sink("loki", Some("status 401".to_owned()));
        let _ = status.beat("sink_loki");
        for component in ["sink_loki", "sink_loki_delivery", "sink_local_file"] {
            status.set_health(component, false, "no");
        }
        status.forget_sink("loki");
        assert_eq!(status.health().keys().collect::<Vec<_>>(), ["sink_local_file"]);
        assert!(status.sinks().is_empty() && status.held_sinks().is_empty() && status.beats().is_empty());
        status.sink_accepted("loki");
        status.doubt_sink("loki");
        assert!(!status.sinks()["loki"]);
    }

    /// In a simulation the asked one answers within the ask.
    #[test]
    fn the_asked_one_may_answer_at_once() {
        let status = Arc::new(Status::default());
        let asked = Arc::downgrade(&status);
        status.on_ask(Box::new(move || asked.upgrade().expect("alive").publish(streams(3))));
        assert_eq!(status.fresh_snapshot(Duration::from_secs(60)).streams.len(), 3);
    }
}
