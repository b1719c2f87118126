//! What the threads report about themselves: `capture` and the sinks write it, `admin` shows it.
//!
//! `admin` must answer while `capture` is stuck, so it never waits for it without a limit: it asks for a new
//! [`Snapshot`], waits briefly, and otherwise shows the last one with its age. An idle agent makes none, since a
//! snapshot is only made on request.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::ledger::table::FdTable;
use crate::model::docker::EngineFault;
use crate::telemetry::beat::Beat;
use crate::telemetry::fault::Fault;
use crate::telemetry::health_text::{HealthText, title};
use crate::telemetry::profile::Profiles;
use crate::telemetry::reload_requests::ReloadRequests;
pub use crate::telemetry::stream_row::{StreamCounts, StreamRow};
use crate::telemetry::taps::Taps;
use crate::text::over::over;

/// What the capture loop knows at one moment. Plain data, made by the pure core.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Milliseconds since the agent began.
    pub taken_at_ms: u64,
    /// Every source has its row; false at the start of a run.
    pub all_listed: bool,
    /// A row for each stream.
    pub streams: Vec<StreamRow>,
    /// The Engine, as far as the loop knows.
    pub docker: DockerRow,
    /// Operations that the core waits for (reads, requests, openings).
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
    /// Why it can't be reached; empty if it can.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// The kind of error, on which the words of rows depend.
    #[serde(skip)]
    pub fault: EngineFault,
    /// Running containers seen.
    pub containers: u64,
}

/// A fault of a component that has others is over when it has not been there for so long. Requests that were under way end
/// one after the other, each in its own way.
const FADED_MS: u64 = 10_000;

/// How bad it is with a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HealthState {
    /// Nothing is wrong.
    Well,
    /// Something is wrong, but no line is lost or waits: amber.
    Warning,
    /// Lines are lost, wait or do not arrive: red.
    Bad,
}

/// Health of one component, as it reported it.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct Health {
    /// False = somebody has to act.
    pub ok: bool,
    /// One sentence: what is wrong and how to fix it, or what works.
    pub message: String,
    /// Nothing is wrong, but the message should be read.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub note: bool,
    /// Something is wrong, but no line is lost or waits: a page must not look as in an outage.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub warning: bool,
    /// What is wrong, the one that the sentence begins with first; empty = it is well.
    #[serde(skip)]
    pub faults: Vec<StandingFault>,
    /// What was wrong until a moment ago, and when it went. It may come back: the log has its end later.
    #[serde(skip)]
    pub faded: Vec<(StandingFault, u64)>,
    /// What those lines wait for that a network sink has in its spool; empty = none waits.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub waits_for: String,
    /// A short form for a quick look; made on request for faults and notes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub told: Option<HealthText>,
}

/// A fault that a component has.
#[derive(Clone, Debug, PartialEq)]
pub struct StandingFault {
    /// Its kind.
    pub fault: Fault,
    /// What people call it.
    pub title: String,
    /// Since when (milliseconds since the agent began).
    pub since_ms: u64,
}

impl StandingFault {
    /// The line that says that it has ended.
    fn over(&self, now_ms: u64) -> String {
        let after = self.fault.after();
        let lasted_ms = now_ms.saturating_sub(self.since_ms).saturating_sub(after.told_ms);
        over(lasted_ms / 1000, &format!("{}{}", self.title, after.but))
    }
}

impl Health {
    /// Neither a note nor a mere warning.
    pub fn new(ok: bool, message: impl Into<String>) -> Health {
        Health {
            ok,
            message: message.into(),
            note: false,
            warning: false,
            faults: Vec::new(),
            faded: Vec::new(),
            waits_for: String::new(),
            told: None,
        }
    }
}

/// Receipt for an [`Status::ask`]; empty if nobody answers.
#[derive(Debug)]
pub struct SnapshotTicket(Option<u64>);

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
    /// Requests for reloads.
    pub reload_requests: ReloadRequests,
    /// Requests for profiles.
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
    // A poisoned lock is usable: threads write only whole values under it.
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

    /// Sets how `admin` wakes the capture loop for a snapshot. Call it once, at start.
    pub fn on_ask(&self, ask: Box<dyn Fn() + Send + Sync>) {
        let _ = self.ask.set(ask);
    }

    /// Sets how `admin` looks at the descriptors, which does not need the loop. Call it once, at start.
    pub fn on_fds(&self, fds: Box<dyn Fn() -> FdTable + Send + Sync>) {
        let _ = self.fds.set(fds);
    }

    /// The present descriptors.
    pub fn fds(&self) -> FdTable {
        self.fds.get().map_or_else(FdTable::default, |fds| fds())
    }

    /// The capture loop's answer to a request.
    pub fn publish(&self, snapshot: Snapshot) {
        *lock(&self.snapshot) = Arc::new(snapshot);
        *lock(&self.snapshot_count) += 1;
        self.snapshot_made.notify_all();
    }

    /// Requests a snapshot from the capture loop without waiting; [`Status::answer`] with this ticket returns it.
    pub fn ask(&self) -> SnapshotTicket {
        let before = *lock(&self.snapshot_count);
        match self.ask.get() {
            Some(ask) => {
                // Not under the lock: the loop may publish at once.
                ask();
                SnapshotTicket(Some(before))
            }
            None => SnapshotTicket(None),
        }
    }

    /// The snapshot for this ticket, once the loop has made it.
    pub fn answer(&self, ticket: &SnapshotTicket) -> Option<Arc<Snapshot>> {
        match ticket.0 {
            Some(before) if *lock(&self.snapshot_count) == before => None,
            _ => Some(self.last_snapshot()),
        }
    }

    /// The last snapshot, however old.
    pub fn last_snapshot(&self) -> Arc<Snapshot> {
        lock(&self.snapshot).clone()
    }

    /// A snapshot made after this call if one comes within `patience`, otherwise the last one. Blocks this thread.
    pub fn fresh_snapshot(&self, patience: Duration) -> Arc<Snapshot> {
        if let SnapshotTicket(Some(before)) = self.ask() {
            let _unused = self
                .snapshot_made
                .wait_timeout_while(lock(&self.snapshot_count), patience, |count| *count == before)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        self.last_snapshot()
    }

    /// Sets a component's health. Logs the end of a fault.
    pub fn set_health(&self, component: &str, ok: bool, message: impl Into<String>) {
        self.set_state(component, if ok { HealthState::Well } else { HealthState::Bad }, message);
    }

    /// Sets a warning: something is wrong, but lines arrive.
    pub fn set_warning(&self, component: &str, message: impl Into<String>) {
        self.set_state(component, HealthState::Warning, message);
    }

    /// Sets a component's state and message.
    pub fn set_state(&self, component: &str, state: HealthState, message: impl Into<String>) {
        self.set_faults(component, state, &[Fault::Usual], message);
    }

    /// The same of a component that can have several faults: which of them it has, the one that the message begins with
    /// first. The log has a line for each that has ended.
    pub fn set_faults(
        &self,
        component: &str,
        state: HealthState,
        faults: &[Fault],
        message: impl Into<String>,
    ) {
        for over in self.put(component, state, faults, message) {
            tracing::info!(component, "{over}");
        }
    }

    /// Sets a note: nothing is wrong, but the message should be read.
    pub fn set_note(&self, component: &str, message: impl Into<String>) {
        for over in self.put_note(component, message) {
            tracing::info!(component, "{over}");
        }
    }

    /// The same without a line of the log, as [`Status::put`].
    #[must_use]
    pub fn put_note(&self, component: &str, message: impl Into<String>) -> Vec<String> {
        self.insert(component, &[], Health { note: true, ..Health::new(true, message) })
    }

    /// The same as [`Status::set_faults`] without a line of the log: answers the lines that say which faults have ended.
    #[must_use]
    pub fn put(
        &self,
        component: &str,
        state: HealthState,
        faults: &[Fault],
        message: impl Into<String>,
    ) -> Vec<String> {
        let warning = state == HealthState::Warning;
        self.insert(component, faults, Health { warning, ..Health::new(state == HealthState::Well, message) })
    }

    fn insert(&self, component: &str, faults: &[Fault], health: Health) -> Vec<String> {
        self.insert_at(self.elapsed_ms(), component, faults, health)
    }

    fn insert_at(&self, now_ms: u64, component: &str, faults: &[Fault], mut health: Health) -> Vec<String> {
        let mut all = lock(&self.health);
        let before = all.remove(component);
        let (mut before, mut faded) = before.map(|before| (before.faults, before.faded)).unwrap_or_default();
        for &fault in faults.iter().filter(|_| !health.ok) {
            if health.faults.iter().any(|known| known.fault == fault) {
                continue;
            }
            let of_before = before.iter().position(|known| known.fault == fault);
            let of_faded = faded.iter().position(|(known, _)| known.fault == fault);
            let since_ms = match (of_before, of_faded) {
                (Some(at), _) => before.swap_remove(at).since_ms,
                (None, Some(at)) => faded.swap_remove(at).0.since_ms,
                (None, None) => now_ms,
            };
            let title = title(component, fault, &health.message);
            health.faults.push(StandingFault { fault, title, since_ms });
        }
        faded.extend(before.into_iter().map(|gone| (gone, now_ms)));
        // While another fault is there, this one may only be hidden by it.
        let is_over = |gone_ms: u64| health.ok || now_ms.saturating_sub(gone_ms) >= FADED_MS;
        let ended = faded.extract_if(.., |(_, gone_ms)| is_over(*gone_ms));
        let told = ended.map(|(ended, gone_ms)| ended.over(gone_ms)).collect();
        health.faded = faded;
        all.insert(component.to_owned(), health);
        told
    }

    /// Sets what the lines in a component's spool wait for.
    pub fn set_waits_for(&self, component: &str, text: &str) {
        if let Some(health) = lock(&self.health).get_mut(component).filter(|health| health.waits_for != text)
        {
            text.clone_into(&mut health.waits_for);
        }
    }

    /// A component no longer exists.
    pub fn forget_health(&self, component: &str) {
        lock(&self.health).remove(component);
    }

    /// Health of all components.
    pub fn health(&self) -> BTreeMap<String, Health> {
        lock(&self.health).clone()
    }

    /// A beat that belongs to no component.
    pub fn lone_beat(&self) -> Arc<Beat> {
        Arc::new(Beat::new(self.started))
    }

    /// The beat of a component, made on first use.
    pub fn beat(&self, component: &str) -> Arc<Beat> {
        Arc::clone(lock(&self.beats).entry(component.to_owned()).or_insert_with(|| self.lone_beat()))
    }

    /// For each component with a beat: how many milliseconds its step has taken, 0 if there is none, and how many steps
    /// have ended.
    pub fn beats(&self) -> BTreeMap<String, (u64, u64)> {
        let read = |beat: &Beat| (beat.age().as_millis() as u64, beat.steps());
        lock(&self.beats).iter().map(|(component, beat)| (component.clone(), read(beat))).collect()
    }

    /// Adds a sink, which is ready once it has accepted something.
    pub fn expect_sink(&self, name: &str) {
        lock(&self.sinks_waiting).entry(name.to_owned()).or_insert(false);
    }

    /// A sink no longer exists: removes its health, including that of its delivery.
    pub fn forget_sink(&self, name: &str) {
        let component = format!("sink_{name}");
        let part = format!("{component}_");
        lock(&self.health).retain(|known, _| *known != component && !known.starts_with(&part));
        lock(&self.beats).remove(&component);
        self.doubt_sink(name);
        lock(&self.sinks_waiting).remove(name);
    }

    /// A sink has new settings and must show again that it accepts lines.
    pub fn doubt_sink(&self, name: &str) {
        lock(&self.sinks_held).remove(name);
        if let Some(accepted) = lock(&self.sinks_waiting).get_mut(name) {
            *accepted = false;
        }
    }

    /// A sink has accepted a batch, or its first attachment.
    pub fn sink_accepted(&self, name: &str) {
        lock(&self.sinks_waiting).insert(name.to_owned(), true);
    }

    /// A sink's server takes nothing until somebody fixes what `reason` says; `None` = it takes lines again.
    pub fn hold_sink(&self, name: &str, reason: Option<String>) {
        let mut held = lock(&self.sinks_held);
        match reason {
            Some(reason) => drop(held.insert(name.to_owned(), reason)),
            None => drop(held.remove(name)),
        }
    }

    /// The sinks that are held, with reasons.
    pub fn held_sinks(&self) -> BTreeMap<String, String> {
        lock(&self.sinks_held).clone()
    }

    /// For each sink, whether it has accepted something.
    pub fn sinks(&self) -> BTreeMap<String, bool> {
        lock(&self.sinks_waiting).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::PushFailure;

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

    /// `admin` must not hang with the capture loop.
    #[test]
    fn patience_ends() {
        let status = Status::default();
        status.publish(streams(1));
        status.on_ask(Box::new(|| {}));
        assert_eq!(status.fresh_snapshot(Duration::from_millis(10)).streams.len(), 1);
    }

    /// The end of a fault once had seven wordings in the log.
    #[test]
    fn the_end_of_every_components_fault_has_one_form() {
        let status = Status::default();
        for (component, fault, what) in [
            ("docker", Fault::Usual, "Docker does not answer"),
            ("checkpoint", Fault::Usual, "Positions cannot be saved"),
            ("config", Fault::Usual, "The new config was refused"),
            ("streams", Fault::Usual, "Streams are stuck"),
            ("descriptors", Fault::Usual, "File descriptors are running out"),
            ("containers", Fault::NoContainerMatches, "No container matches a pattern"),
            ("sink_local_file", Fault::NoRoom, "Disk full: outputs cannot be written"),
            ("sink_stdout", Fault::Usual, "Standard output cannot be written"),
            ("sink_loki", Fault::SpoolFull, "The spool is full"),
            ("sink_loki_delivery", Fault::Push(PushFailure::Unauthorized), "Loki refuses the login (401)"),
            ("leak_detector", Fault::LeaksDescriptor, "The agent leaks a file descriptor"),
            ("files", Fault::Said, "2 files are gone"),
            ("probe", Fault::Usual, "probe"),
        ] {
            let put = |state, message: &str| status.put(component, state, &[fault], message);
            for state in [HealthState::Bad, HealthState::Warning] {
                assert!(put(HealthState::Well, "well").is_empty(), "{component}");
                assert!(put(state, "2 files are gone: /a, /b").is_empty(), "{component}");
                assert!(put(state, "2 files are gone: /b, /c").is_empty(), "{component}: as before");
                assert_eq!(put(HealthState::Well, "well"), [format!("over after 0 s: {what}")]);
            }
        }
    }

    /// One line once ended both: it named the last one, with the time of the first.
    #[test]
    fn each_of_two_faults_in_a_row_has_an_end_of_its_own() {
        let status = Status::default();
        let put = |now_ms, faults: &[Fault]| {
            let health = Health::new(faults.is_empty(), "x");
            status.insert_at(now_ms, "sink_loki_delivery", faults, health)
        };
        let (away, silent) = (Fault::Push(PushFailure::Unreachable), Fault::Push(PushFailure::TimedOut));
        assert!(put(1_000, &[away]).is_empty());
        assert!(put(2_000, &[silent, away]).is_empty());
        assert!(put(5_000, &[silent, silent]).is_empty(), "it may come back");
        assert_eq!(put(15_000, &[silent]), ["over after 4 s: Loki cannot be reached"]);
        assert_eq!(put(32_000, &[]), ["over after 30 s: Loki does not answer"]);
        // Hidden for a moment by requests that were under way: it goes on since it began.
        assert!(put(40_000, &[away]).is_empty());
        assert!(put(41_000, &[silent]).is_empty());
        assert!(put(42_000, &[away]).is_empty());
        let ends = ["over after 1 s: Loki does not answer", "over after 20 s: Loki cannot be reached"];
        assert_eq!(put(60_000, &[]), ends);
    }

    /// Health tells of a loss for ten minutes. A line that calls that its length, and its end a cure, is untrue.
    #[test]
    fn the_end_of_a_loss_says_that_it_is_no_cure() {
        let standing =
            StandingFault { fault: Fault::Lost, title: "Lines were lost: 3 bytes".to_owned(), since_ms: 0 };
        let expected = "over after 5 s: Lines were lost: 3 bytes; no more for 10 minutes, and those lines do not come back";
        assert_eq!(standing.over(605_000), expected);
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

    /// In a simulation the answer may come within the request.
    #[test]
    fn the_asked_one_may_answer_at_once() {
        let status = Arc::new(Status::default());
        let asked = Arc::downgrade(&status);
        status.on_ask(Box::new(move || asked.upgrade().expect("alive").publish(streams(3))));
        assert_eq!(status.fresh_snapshot(Duration::from_secs(60)).streams.len(), 3);
    }
}
