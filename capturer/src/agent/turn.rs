//! The loop of a run, and its end.
//!
//! ```text
//! loop: wait for what comes first (an operation, another thread, a deadline)
//!       ▸ the core takes it (capture) ▸ its actions are started (shell)
//! ```
//! Whatever wakes the agent passes the one `select!` in [`Process::drive`], and only this file reads the clocks for the
//! core.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc::UnboundedReceiver;

use super::faults::FilesSaid;
use super::pipelines::{Pipelines, Unused};
use super::reload::ReloadDecision;
use super::run::FromThread;
use super::sources::{DockerDisk, Said};
use super::unmatched::Patterns;
use super::{Message, Process};
use crate::capture::core::Capture;
use crate::capture::io::Event;
use crate::model::clock::Now;
use crate::model::docker::EngineFault;
use crate::model::packed::Pack;
use crate::settings::{ReadFrom, Settings};
use crate::shell::ring;
use crate::shell::{Rest, Shell};
use crate::telemetry::docker_words;
use crate::telemetry::fault::Fault;
use crate::telemetry::reload_requests::ReloadTicket;
use crate::telemetry::status::HealthState;
use crate::text::counted::{counted, which};
use crate::witness::Doing;
use crate::witness::probe::heap;

/// The loop turns at least this often, for its beat and for gauges that are sums.
const TURN_MS: u64 = 1_000;
/// Without inotify every file is looked at this often.
pub(super) const LOOK_MS: u64 = 2_000;
/// If the sources are not all listed by then, as while Docker is unavailable, the log is told anyway what is captured.
const TELL_AFTER_MS: u64 = 3_000;
/// How long operations still under way at the end of a run may take.
const WIND_UP: Duration = Duration::from_secs(2);

/// A run at work.
pub(super) struct ActiveRun {
    pub settings: Arc<Settings>,
    pub capture: Capture,
    pub shell: Shell,
    pub inbox: UnboundedReceiver<FromThread>,
    /// The threads of its sinks, by name.
    pub threads: Vec<(String, JoinHandle<()>)>,
}

/// A run that has ended.
pub(super) struct Ended {
    /// What did not end in time; empty = a clean end.
    pub left: Vec<String>,
    /// What runs next; `None` = the process ends.
    pub next: Option<(ReloadTicket, Settings)>,
    /// Threads of the run that end by themselves.
    pub threads: Vec<(String, JoinHandle<()>)>,
    pub rest: Rest,
    pub old: Arc<Settings>,
}

/// Everything that belongs to the capture thread.
pub(super) struct Loop<'a> {
    pub process: &'a mut Process,
    pub settings: Arc<Settings>,
    pub capture: Capture,
    pub shell: Shell,
    inbox: UnboundedReceiver<FromThread>,
    /// What was last reported of sources.
    pub said: Said,
    pub files_said: FilesSaid,
    pub docker_disk: DockerDisk,
    /// Since when Docker has not answered.
    pub docker_silent_since_ms: Option<u64>,
    /// The log has the beginning of a fault of Docker and not yet its end.
    pub docker_has_failed: bool,
    pub patterns: Patterns,
    pub pipelines: Pipelines,
    pub unused: Unused,
    /// All sources of this run have been listed once.
    is_ready: bool,
    /// When the log is told what is captured, even if not all sources are listed; `None` = it has been told.
    tell_at_ms: Option<u64>,
    heap: Heap,
    next: Next,
}

/// When free memory goes back to the kernel. Taking up thousands of sources needs much memory for a moment, which the
/// allocator would otherwise keep.
#[derive(Default)]
struct Heap {
    /// How many streams there were when memory last went back.
    streams_then: usize,
    /// Streams a second ago.
    streams_before: usize,
    /// Seconds until memory goes back once more, at the latest; 0 = it will not.
    again_in: u32,
}

/// So many new streams are worth giving memory back.
const STREAMS_TAKEN_UP: usize = 1_000;
/// When all streams are there, positions are still being acknowledged and saved. Memory goes back once more when that
/// is done, or after this long, since some stream may always move.
const AGAIN_AFTER_S: u32 = 60;

impl Heap {
    /// `is_settled`: the streams have delivered what was there, and their positions are saved. Returns true if memory
    /// should go back now.
    fn is_due(&mut self, streams: usize, is_settled: bool) -> bool {
        let is_steady = std::mem::replace(&mut self.streams_before, streams) == streams;
        let is_due = is_steady && streams >= self.streams_then + STREAMS_TAKEN_UP;
        let is_over = self.again_in == 1 || (is_settled && self.again_in > 1);
        self.again_in = match (is_due, is_over) {
            (true, _) => AGAIN_AFTER_S,
            (false, true) => 0,
            (false, false) => self.again_in.saturating_sub(1),
        };
        if is_due || streams < self.streams_then {
            self.streams_then = streams;
        }
        is_due || is_over
    }
}

/// What follows this run. Once the agent was told to stop, nothing does: a config that is still being read may turn out
/// to be good only while the run already drains.
#[derive(Default)]
struct Next {
    run: Option<(ReloadTicket, Settings)>,
    stopping: bool,
}

impl Next {
    fn stop(&mut self) {
        *self = Next { run: None, stopping: true };
    }

    /// Returns false if the agent was already told to stop.
    fn swap(&mut self, ticket: ReloadTicket, settings: Settings) -> bool {
        if !self.stopping {
            self.run = Some((ticket, settings));
        }
        !self.stopping
    }
}

impl Process {
    /// One run, from its first event to its end.
    pub(super) async fn drive(&mut self, run: ActiveRun) -> Ended {
        let ActiveRun { settings, capture, shell, inbox, threads } = run;
        let (said, is_ready, next) = (Said::default(), false, Next::default());
        let (files_said, patterns) = (FilesSaid::default(), Patterns::default());
        let (heap, pipelines) = (Heap::default(), Pipelines::new(&self.metrics.pipeline_drops()));
        let tell_at_ms = self.status.elapsed_ms() + TELL_AFTER_MS;
        let mut looping = Loop {
            process: self,
            settings,
            capture,
            shell,
            inbox,
            said,
            files_said,
            docker_disk: DockerDisk::default(),
            docker_silent_since_ms: None,
            docker_has_failed: false,
            patterns,
            pipelines,
            unused: Unused::default(),
            is_ready,
            tell_at_ms: Some(tell_at_ms),
            heap,
            next,
        };
        std::mem::swap(looping.capture.losses(), &mut looping.process.losses);
        let left = looping.run().await;
        std::mem::swap(looping.capture.losses(), &mut looping.process.losses);
        let Loop { settings, shell, next, .. } = looping;
        Ended { left, next: next.run, threads, rest: shell.into_rest(), old: settings }
    }
}

impl Loop<'_> {
    async fn run(&mut self) -> Vec<String> {
        self.take(vec![Event::Started]);
        let (mut turn_at, mut look_at, mut list_at, mut check_at) = (0, LOOK_MS, 0, 0);
        // A reload may have been requested while the previous one was under way.
        self.begin_reload();
        while self.shell.finished.is_none() {
            let now = self.now();
            if now.mono_ms >= turn_at {
                turn_at = now.mono_ms + TURN_MS;
                self.turn(now);
                let hung = self.look_at_sources(now);
                self.take(hung);
            }
            if now.mono_ms >= check_at && self.settings.resource_monitoring.enabled {
                let interval_ms = self.settings.resource_monitoring.check_interval.as_millis() as u64;
                // Until the first look memory and threads are 0 in the metrics.
                let is_early = self.process.witness.is_attaching();
                check_at = now.mono_ms + if is_early { TURN_MS.min(interval_ms) } else { interval_ms };
                self.check_resources(now);
            }
            if now.mono_ms >= look_at && !self.shell.has_inotify() {
                look_at = now.mono_ms + LOOK_MS;
                self.take(vec![Event::LookAtAll]);
            } else if now.mono_ms >= look_at && !self.shell.unwatched().is_empty() {
                look_at = now.mono_ms + LOOK_MS;
                let listed = now.mono_ms >= list_at;
                if listed {
                    list_at = now.mono_ms + self.settings.file_monitor.sweep_interval.as_millis() as u64;
                }
                let events = self.shell.look_at_unwatched(listed);
                self.take(events);
            }
            let deadline = self.capture.next_deadline_ms().map_or(turn_at, |due| due.min(turn_at));
            let pause = Duration::from_millis(deadline.saturating_sub(self.process.status.elapsed_ms()));
            // The only place that waits.
            let mut events = tokio::select! {
                biased;
                Some(message) = self.process.inbox.recv() => self.on_message(message),
                Some(message) = self.inbox.recv() => self.on_thread(message),
                events = self.shell.next() => events,
                () = tokio::time::sleep(pause) => vec![Event::Tick],
            };
            // `select!` is biased: if an earlier branch is always ready, the last one is never reached.
            if self.process.status.elapsed_ms() >= deadline {
                events.push(Event::Tick);
            }
            self.take(events);
        }
        let left = self.shell.finished.take().unwrap_or_default();
        let operations = self.shell.wind_up(WIND_UP).await;
        let stream_descriptors = self.process.witness.held_by_streams();
        match self.next.run {
            None => {
                tracing::debug!(operations, stream_descriptors, unfinished = ?left, "wound up");
                tracing::info!("stopped; {}", what_is_left(operations, stream_descriptors, &left));
            }
            Some(_) => tracing::debug!(operations, stream_descriptors, unfinished = ?left, "drained"),
        }
        let mut last = self.capture.snapshot(self.now());
        self.process.carried.add_to(&mut last);
        // What was counted since the last scrape: the next run's streams count from there.
        self.process.metrics.show_sources(&last.streams, 0, false);
        self.process.carried.keep(last);
        self.process.counted = self.capture.take_read_counts();
        self.process.last_stream = self.capture.last_stream();
        left
    }

    fn now(&self) -> Now {
        Now { mono_ms: self.process.status.elapsed_ms(), unix_ns: unix_ns() }
    }

    fn take(&mut self, events: Vec<Event>) {
        let now = self.now();
        for event in events {
            self.capture.on_event(now, event);
            for action in self.capture.drain_actions() {
                self.shell.start(action);
            }
            // At the end as at the start, ten thousand files take time; the beat shows that the loop is alive.
            self.process.status.beat_capture();
        }
    }

    fn on_thread(&mut self, message: FromThread) -> Vec<Event> {
        match message {
            FromThread::Files(answer) => self.shell.on_files(answer),
            FromThread::Sink(from) => vec![Event::Sink(from)],
        }
    }

    fn on_message(&mut self, message: Message) -> Vec<Event> {
        match message {
            Message::Stop => {
                self.next.stop();
                self.process.status.reload_requests.close();
                return vec![Event::Stop];
            }
            Message::Ask => {
                let mut snapshot = self.capture.snapshot(self.now());
                snapshot.operations = ring::operations_in_flight();
                self.process.carried.add_to(&mut snapshot);
                self.process.status.publish(snapshot);
            }
            Message::Reload => self.begin_reload(),
            Message::Checked(result) => match self.process.reloads.judge(*result, &self.settings) {
                ReloadDecision::Swap(ticket, new) => {
                    if self.next.swap(ticket, *new) {
                        tracing::info!("the config has changed: draining, then a new run begins");
                        self.process.give_up_readiness();
                        return vec![Event::Stop];
                    }
                }
                ReloadDecision::Stay(settings) => {
                    self.settings = settings;
                    self.begin_reload();
                }
            },
        }
        Vec::new()
    }

    fn begin_reload(&mut self) {
        if self.next.run.is_none() && !self.next.stopping {
            let hangs = self.process.something_hangs();
            self.process.reloads.begin(&self.settings, hangs);
        }
    }

    /// Shrinks tables that grew while many sources were taken up.
    fn pack(&mut self) {
        self.capture.pack();
        self.shell.pack();
        self.process.claims.with(Pack::pack);
    }

    /// Once a second: gauges, and what health says.
    fn turn(&mut self, now: Now) {
        #[cfg(feature = "test-faults")]
        crate::faults::turn();
        for (stream, file) in self.capture.unmeasured() {
            if let Some(len) = self.shell.length(file) {
                self.capture.measured(stream, file, len);
            }
        }
        self.capture.refresh_gauges(now);
        if self.heap.is_due(self.capture.stream_count(), self.capture.has_settled()) {
            self.pack();
            heap::give_back();
        }
        self.process.metrics.heartbeat("capture");
        self.process.metrics.operations_in_flight.set(ring::operations_in_flight() as i64);
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        self.process.metrics.tasks.set(tasks as i64);
        let refused = &self.process.metrics.read_timers_refused_total;
        refused.inc_by(ring::timers_refused().saturating_sub(refused.get()));
        if !self.is_ready && self.next.run.is_none() && self.capture.is_ready() {
            self.is_ready = true;
            self.process.status.sources_ready.store(true, Ordering::Relaxed);
            self.tell_at_ms = None;
            self.tell_what_is_captured();
            // Containers may have gone between two runs.
            self.process.metrics.retain_containers(|id| self.capture.knows_container(id));
        }
        if self.next.run.is_none() && self.tell_at_ms.take_if(|at| now.mono_ms >= *at).is_some() {
            self.tell_what_is_captured();
        }
        let saving = match self.capture.checkpoint_trouble() {
            None => {
                let saves = self.process.metrics.checkpoint_saves_total.get();
                (HealthState::Well, Fault::Usual, format!("{saves} saved in this run; no save is failing"))
            }
            Some(error) => {
                let text = format!("{error}; new containers wait, and a crash now would repeat records");
                (HealthState::Bad, Fault::Usual, text)
            }
        };
        // If the directory is gone, that is the cause of its other faults.
        let gone = self.process.data_dir.trouble().map(|(fault, text)| (HealthState::Bad, fault, text));
        let (state, fault, text) = gone.unwrap_or(saving);
        self.process.status.set_faults("checkpoint", state, &[fault], text);
        if let Some(trouble) = self.capture.docker_trouble() {
            let socket = self.settings.container_monitor.socket_path.display();
            let message = match &trouble {
                None => {
                    self.docker_silent_since_ms = None;
                    let running = self.process.metrics.containers_monitored.get() as u64;
                    format!("{socket} answers; {}", captured(running))
                }
                Some(trouble) => {
                    if trouble.fault == EngineFault::NotYet {
                        self.docker_silent_since_ms = None; // nothing has failed yet
                    }
                    let since_ms = *self.docker_silent_since_ms.get_or_insert(now.mono_ms);
                    let seconds = now.mono_ms.saturating_sub(since_ms) / 1000;
                    let reads_files = self.settings.container_monitor.read_from != ReadFrom::Api;
                    let running = self.process.metrics.containers_monitored.get() as u64;
                    docker_words::trouble_text(trouble, &socket.to_string(), reads_files, running, seconds)
                }
            };
            // At a start nothing has failed yet, so no end is reported.
            let is_told = trouble.as_ref().is_some_and(|trouble| trouble.fault != EngineFault::NotYet);
            let state = if trouble.is_none() { HealthState::Well } else { HealthState::Bad };
            // While nothing is known yet, no fault begins.
            let faults =
                trouble.as_ref().filter(|_| is_told).map(|trouble| docker_words::fault(trouble.fault));
            let over = self.process.status.put("docker", state, faults.as_slice(), message);
            // Another fault of Docker's in its place is no end.
            for over in over.iter().filter(|_| self.docker_has_failed && trouble.is_none()) {
                tracing::info!(component = "docker", "{over}");
            }
            self.docker_has_failed = is_told || (self.docker_has_failed && trouble.is_some());
        }
    }

    /// Once per check interval: compares what the kernel shows with what the loop has.
    fn check_resources(&mut self, now: Now) {
        let (streams, connections, containers) = self.capture.counts();
        let left_behind = self.process.left_behind.as_ref();
        let doing = Doing {
            streams,
            connections,
            containers,
            reachable: self.shell.reachable(),
            left_behind: left_behind.map(Rest::descriptors).cloned().unwrap_or_default(),
            operations_base: self.shell.operations_base() as u64,
            operations: ring::operations_in_flight(),
            tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks() as u64,
            sinks: self.shell.sink_count() as u64,
            names: self.capture.container_names(),
        };
        self.process.witness.check(now, &doing);
    }
}

pub(super) fn unix_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64)
}

pub(super) fn unix_s() -> f64 {
    unix_ns() as f64 / 1e9
}

/// How many containers are captured.
pub(super) fn captured(running: u64) -> String {
    format!("{} {} captured", counted(running, "running container"), which(running, "is", "are"))
}

/// What a stop leaves behind, in words.
pub(super) fn what_is_left(operations: u64, stream_descriptors: u64, unfinished: &[String]) -> String {
    let mut left = Vec::new();
    if operations > 0 {
        left.push(format!("{} of the kernel had not ended", counted(operations, "operation")));
    }
    if stream_descriptors > 0 {
        left.push(format!("{} of sources still open", counted(stream_descriptors, "descriptor")));
    }
    if !unfinished.is_empty() {
        left.push(format!("it did not wait for {}", unfinished.join(", ")));
    }
    if left.is_empty() {
        "every operation ended and nothing is left open".to_owned()
    } else {
        left.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::reload_requests::ReloadRequests;

    #[test]
    fn the_last_line_is_for_people() {
        assert_eq!(what_is_left(0, 0, &[]), "every operation ended and nothing is left open");
        assert_eq!(
            what_is_left(1, 2, &["file:/a".to_owned(), "sink loki".to_owned()]),
            "1 operation of the kernel had not ended; 2 descriptors of sources still open; it did not wait for file:/a, \
             sink loki"
        );
    }

    /// Ten thousand files were taken up in two seconds: memory goes back when they are there, and once more when they
    /// are at rest.
    #[test]
    fn memory_goes_back_when_many_were_taken_up() {
        let mut heap = Heap::default();
        let due: Vec<bool> = [5, 4_000, 10_000, 10_000, 10_000, 10_500, 10_500, 0, 0, 1_000, 1_000]
            .map(|now| heap.is_due(now, false))
            .into();
        let expected = [3, 10];
        assert_eq!(
            due.iter().enumerate().filter(|(_, due)| **due).map(|(at, _)| at).collect::<Vec<_>>(),
            expected
        );
        assert!(heap.is_due(1_000, true), "all is saved");
        assert_eq!((0..90).filter(|second| heap.is_due(1_000, second % 2 == 0)).count(), 0, "and then never");
        assert!(!heap.is_due(2_000, true) && heap.is_due(2_000, true), "more were taken up");
        let again: Vec<usize> = (1..90).filter(|_| heap.is_due(2_000, false)).collect();
        assert_eq!(again, [AGAIN_AFTER_S as usize], "some stream always moved");
    }

    /// The agent once kept running after SIGHUP and then SIGTERM while the config was still being read.
    #[test]
    fn nothing_follows_a_stop() {
        let ticket = ReloadRequests::default().ask();
        let mut next = Next::default();
        assert!(next.swap(ticket, Settings::default()) && next.run.is_some());
        next.stop();
        assert!(next.run.is_none(), "a stop while the run drains for a reload");
        assert!(
            !next.swap(ticket, Settings::default()) && next.run.is_none(),
            "a config that was read too late"
        );
    }
}
