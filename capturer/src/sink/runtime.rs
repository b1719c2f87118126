//! The thread around a sink: takes messages in order, retries what failed, and reports health.
//!
//! ```text
//! inbox ─▶ attach / deliver ── ok ──▶ report Attached / Ack, count
//!             ▲      └─ error ─▶ health false (said once) ─▶ set aside for its output, tried again after 0.1 s … 5 s ─┐
//!             └───────────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//! Outputs fail alone ([`Sink::output_of`]): messages for a blocked one wait in a queue of their own (held.rs). Later
//! ones for that output or those streams queue up after them, and all others continue. So answers stay in order within
//! a stream and within an output, but not across outputs. A sink with a single output pauses instead. During the pause
//! it takes messages off the inbox and sets them aside, in order, so that it notices a Stop among the batches that
//! wait.
//!
//! A batch is never dropped. When a Stop's deadline passes it stays unacknowledged, and the next run reads it again
//! from the source. At a Stop, a blocked output is tried once more, and nobody waits for it.
//!
//! Bounds. The inbox is a channel without a limit of its own, so that `capture` never blocks in a send. The sender limits
//! what is in it: batches by [`crate::limits::SINK_BATCHES_MAX`] (counted against acknowledgements; those that
//! wait for a blocked output count apart), Attach by one per stream until it is answered, Detach by one per attached stream,
//! Saved by one a second, Stop by one.

mod retries;

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use super::apart::{Apart, FileSystem, LaneNews, Lanes, OpenAt, Reporter, Shared};
use super::held::{HeldMessages, Job};
use super::steps::Steps;
use super::troubles::{Part, Troubles};
use super::{Sink, SinkErrorKind, tap};
use crate::model::delivery::{FromSink, ToSink};
use crate::model::record::{Ack, Batch, SinkId, Source, StreamId};
use crate::telemetry::beat::Beat;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::status::Status;
use retries::retry_pause;

/// A sink gathers this many batches of one stream before it commits them: fewer than a stream may have in flight, or a
/// busy stream would wait for the pause each time.
const GATHERED_OF_STREAM_MAX: usize = crate::limits::STREAM_BATCHES_MAX / 2;
/// The same for all streams together.
const GATHERED_MAX: usize = (crate::limits::SINK_BATCHES_MAX - crate::limits::FILE_READS_MAX) / 2;

/// A running sink.
#[derive(Debug)]
pub struct SinkHandle {
    /// Never blocks. An error means that the thread has ended, which [`FromSink::Stopped`] has reported.
    pub sender: Sender<ToSink>,
    /// Ends after [`ToSink::Stop`], or when all senders are gone.
    pub thread: JoinHandle<()>,
}

/// Starts a sink's thread. `report` must not block. The file systems that `apart` names get threads of their own.
pub fn spawn(
    id: SinkId,
    sink: Box<dyn Sink>,
    apart: Option<Apart>,
    report: Box<dyn Fn(FromSink) + Send + Sync>,
    status: Arc<Status>,
    metrics: Arc<Metrics>,
) -> io::Result<SinkHandle> {
    let (sender, inbox) = channel();
    let report: Reporter = Arc::from(report);
    let component = format!("sink_{}", sink.name());
    status.expect_sink(sink.name());
    status.set_health(&component, true, "no record has come yet");
    let of_all = OfAll {
        id,
        name: sink.name().to_owned(),
        troubles: Arc::new(Troubles::new(component.clone(), sink.name(), &status, &metrics)),
        component,
        status,
        metrics,
    };
    let beat = of_all.status.beat(&of_all.component);
    let lanes = apart.map(|apart| Lanes::new(id, apart, Arc::clone(&report)));
    // The kernel shows 15 characters of a thread's name.
    let name = format!("sink-{}", sink.name());
    let mut worker = Worker { lanes, ..Worker::new(of_all, Part::Own, beat, sink, inbox, report) };
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        worker.run();
        let lanes = worker.lanes.take();
        // First close what it has open, then wait for the others.
        drop(worker);
        if let Some(lanes) = lanes {
            lanes.join();
        }
    })?;
    Ok(SinkHandle { sender, thread })
}

/// State shared by all threads of a sink.
#[derive(Clone)]
struct OfAll {
    id: SinkId,
    name: String,
    /// Name of its component in health.
    component: String,
    troubles: Arc<Troubles>,
    status: Arc<Status>,
    metrics: Arc<Metrics>,
}

/// Starts the thread of a lane. Its sink is opened there.
fn spawn_lane(
    of_all: OfAll,
    place: u64,
    open: OpenAt,
    shared: Arc<Shared>,
    report: Reporter,
) -> io::Result<(Sender<ToSink>, JoinHandle<()>)> {
    let (sender, inbox) = channel();
    let name = format!("sink-{}-{}", of_all.name.chars().take(5).collect::<String>(), place % 10_000);
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        if let Some(sink) = open_lane(&open, place, &shared) {
            let told = Arc::clone(&shared);
            let report: Reporter = Arc::new(move |from| told.tell(from, &report));
            let beat = Arc::clone(&shared.beat);
            let worker = Worker::new(of_all, Part::Lane(place), beat, sink, inbox, report);
            let mut worker = Worker { lane: Some(Arc::clone(&shared)), ..worker };
            worker.run();
            // Closing its files may hang, too.
            let _step = shared.beat.step();
            drop(worker);
        }
        shared.ended.store(true, Ordering::Relaxed);
    })?;
    Ok((sender, thread))
}

/// `None` = given up.
fn open_lane(open: &OpenAt, place: u64, shared: &Shared) -> Option<Box<dyn Sink>> {
    let mut failures = 0;
    while !shared.gives_up.load(Ordering::Relaxed) {
        let step = shared.beat.step();
        let opened = open(place);
        drop(step);
        match opened {
            Ok(sink) => {
                shared.set_trouble(None);
                return Some(sink);
            }
            Err(error) => shared.set_trouble(Some((error.to_string(), error.fault()))),
        }
        std::thread::sleep(retry_pause(failures));
        failures += 1;
    }
    None
}

struct Worker {
    id: SinkId,
    of_all: OfAll,
    /// Which of the sink's threads this is.
    part: Part,
    /// Name of its component in health.
    component: String,
    /// Whether its sink may hang in a step, which nothing can end.
    beat: Arc<Beat>,
    /// The pipelines that batches pass before the sink gets them.
    steps: Steps,
    metrics: Arc<Metrics>,
    sink: Box<dyn Sink>,
    report: Reporter,
    status: Arc<Status>,
    inbox: Receiver<ToSink>,
    /// Outputs that are written by threads of their own.
    lanes: Option<Lanes>,
    /// Set if this is a lane's thread.
    lane: Option<Arc<Shared>>,
    /// Messages taken off the inbox during a pause, to be handled before those still in it.
    set_aside: VecDeque<ToSink>,
    /// Delivered and not committed yet.
    gathered: Vec<Ack>,
    /// When they are to be committed.
    commit_at: Option<Instant>,
    /// Set once a Stop was seen, wherever it stands in the queue.
    give_up_at: Option<Instant>,
    /// Blocked outputs, with the messages that wait for them.
    held: HeldMessages,
    /// The last reported trouble; `None` = there is none.
    trouble: Option<String>,
    /// Reasons for which outputs are blocked that the log was told, and how many were blocked then.
    blocked_told: (BTreeSet<String>, usize),
    /// Whether the status was told that it accepted something.
    accepted: bool,
    /// Streams for which the log was told that they are not UTF-8.
    not_utf8: BTreeSet<StreamId>,
}

impl Worker {
    fn new(
        of_all: OfAll,
        part: Part,
        beat: Arc<Beat>,
        sink: Box<dyn Sink>,
        inbox: Receiver<ToSink>,
        report: Reporter,
    ) -> Worker {
        Worker {
            id: of_all.id,
            part,
            component: of_all.component.clone(),
            beat,
            steps: Steps::new(&of_all.name, Arc::clone(&of_all.metrics)),
            metrics: Arc::clone(&of_all.metrics),
            sink,
            report,
            status: Arc::clone(&of_all.status),
            of_all,
            inbox,
            lanes: None,
            lane: None,
            set_aside: VecDeque::new(),
            gathered: Vec::new(),
            commit_at: None,
            give_up_at: None,
            held: HeldMessages::default(),
            trouble: None,
            blocked_told: (BTreeSet::new(), 0),
            accepted: false,
            not_utf8: BTreeSet::new(),
        }
    }

    fn run(&mut self) {
        while let Some(message) = self.next_message() {
            #[cfg(feature = "test-faults")]
            crate::faults::here();
            if self.receive(message).is_none() {
                break;
            }
        }
        if let Some(lanes) = &self.lanes {
            lanes.stop(self.give_up_at);
        }
        self.held.all_due();
        let _ = self.retry_held();
        // If all senders are gone, nobody hears an acknowledgement: nothing more is committed, or it would be delivered
        // twice.
        if self.give_up_at.is_some() {
            let _ = self.commit();
        }
        let beat = Arc::clone(&self.beat);
        let step = beat.step();
        let flushed = self.sink.flush();
        drop(step);
        if let Err(error) = flushed {
            self.on_failure(&error);
        }
        if let Some(lanes) = &self.lanes {
            lanes.wait(self.give_up_at);
        }
        (self.report)(FromSink::Stopped(self.id));
    }

    /// `None` = the end: it was told to stop, or there are no senders left.
    fn next_message(&mut self) -> Option<ToSink> {
        let message = loop {
            self.retry_held()?;
            self.look_at_lanes();
            if let Some(message) = self.set_aside.pop_front() {
                break message;
            }
            let look_at = self.lanes.as_ref().and_then(Lanes::next_look);
            let wake_at = self.commit_at.into_iter().chain(self.held.next_attempt()).chain(look_at).min();
            let Some(wake_at) = wake_at else { break self.inbox.recv().ok()? };
            match self.inbox.recv_timeout(wake_at.saturating_duration_since(Instant::now())) {
                Ok(message) => break message,
                Err(RecvTimeoutError::Timeout) => {
                    if self.commit_at.is_some_and(|at| at <= Instant::now()) {
                        self.commit()?;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        };
        match message {
            ToSink::Stop { give_up_at } => {
                self.give_up_at = Some(give_up_at);
                None
            }
            message => Some(message),
        }
    }

    /// Commits the gathered batches and acknowledges them.
    fn commit(&mut self) -> Option<()> {
        self.commit_at = None;
        if self.gathered.is_empty() {
            return Some(());
        }
        self.persist(|sink| sink.commit())?;
        for ack in std::mem::take(&mut self.gathered) {
            (self.report)(FromSink::Ack(ack));
        }
        Some(())
    }

    /// After a failure: safe batches are acknowledged at once, for at a stop nobody may be left to hear it later.
    pub(super) fn acknowledge_safe(&mut self) {
        let safe = self.sink.take_safe().min(self.gathered.len());
        for ack in self.gathered.drain(..safe) {
            (self.report)(FromSink::Ack(ack));
        }
    }

    fn acknowledge(&mut self, ack: Ack) -> Option<()> {
        let Some(pause) = self.sink.gathers() else {
            (self.report)(FromSink::Ack(ack));
            return Some(());
        };
        let stream = ack.batch.source.id;
        self.gathered.push(ack);
        let commit_at = *self.commit_at.get_or_insert_with(|| Instant::now() + pause);
        let of_stream = self.gathered.iter().filter(|ack| ack.batch.source.id == stream).count();
        let enough = of_stream >= GATHERED_OF_STREAM_MAX || self.gathered.len() >= GATHERED_MAX;
        if enough || Instant::now() >= commit_at {
            return self.commit();
        }
        Some(())
    }

    /// Handles a message, or sends it to the lane it belongs to. `None` = given up.
    fn receive(&mut self, message: ToSink) -> Option<()> {
        let message = match &mut self.lanes {
            None => message,
            Some(lanes) if !lanes.concerns(&message) => message,
            Some(lanes) => {
                let output = Lanes::output_of(&*self.sink, &message);
                let is_held = match &message {
                    ToSink::Attach(source) => self.held.has(source.id),
                    _ => false,
                };
                let (of_all, report) = (&self.of_all, lanes.report());
                let open = lanes.open_at();
                let mut start = |place: &FileSystem, shared: Arc<Shared>| {
                    spawn_lane(of_all.clone(), place.id, Arc::clone(&open), shared, Arc::clone(&report))
                };
                let beat = || of_all.status.lone_beat();
                match lanes.route(message, output, is_held, &beat, &mut start) {
                    Some(message) => message,
                    None => return Some(()),
                }
            }
        };
        self.handle(message)
    }

    /// Reports which lanes hang, and moves the streams that may move now.
    fn look_at_lanes(&mut self) {
        let Some(lanes) = &mut self.lanes else { return };
        let held = &self.held;
        // They go before later messages.
        for message in lanes.moved(&|stream| held.has(stream)).into_iter().rev() {
            self.set_aside.push_front(message);
        }
        for LaneNews { id, wrong, outputs, is_new } in lanes.look() {
            match &wrong {
                Some((text, _)) if is_new => tracing::warn!(component = %self.component, "{text}"),
                // Health says that, and the log with it.
                Some(_) | None => {}
            }
            let wrong = wrong.map(|(text, fault)| {
                let waits = "their sources wait, and no line is lost while their log files are kept";
                (format!("{text}; {waits}"), vec![fault])
            });
            self.of_all.troubles.set(Part::Hung(id), wrong, outputs);
        }
    }

    /// `None` = given up.
    fn handle(&mut self, message: ToSink) -> Option<()> {
        let beat = Arc::clone(&self.beat);
        let job = match message {
            ToSink::Attach(source) => Job::Attach(source),
            ToSink::Batch(batch) => Job::Batch { batch, made: None },
            ToSink::Detach(stream) => Job::Detach(stream),
            ToSink::Withdraw(stream) => {
                let _step = beat.step();
                self.sink.withdraw(stream);
                return Some(());
            }
            ToSink::Saved(marks) => {
                let _step = beat.step();
                if self.sink.saved(&marks) {
                    (self.report)(FromSink::SaveAgain(self.id));
                }
                if let Some(lane) = &self.lane {
                    lane.saved_told.store(false, Ordering::Relaxed);
                }
                return Some(());
            }
            ToSink::Stop { .. } => unreachable!("next_message ends there"),
        };
        let output = match &job {
            Job::Attach(source) => self.sink.output_of(source, true),
            Job::Batch { batch, .. } => self.sink.output_of(&batch.source, false),
            Job::Detach(_) => None,
        };
        if let Some(output) = self.held.queue_for(&job, output.as_ref()) {
            return self.hold(output, job);
        }
        match self.attempt(job) {
            Ok(()) => Some(()),
            Err(failed) => match (*failed, output) {
                ((job, error), Some(output)) if error.kind == SinkErrorKind::Retry => {
                    self.count_failure();
                    self.held.block(Arc::clone(&output), &error, retry_pause(0));
                    self.hold(output, job)
                }
                ((job, error), _) => self.insist(job, error),
            },
        }
    }

    /// Once for each source, by one of its sinks: a count of replaced bytes does not tell whose they are.
    fn tell_not_utf8(&mut self, source: &Source) {
        let speaks = source.outlet.index == 0 && source.outlet.first() == self.id;
        if !speaks || !self.not_utf8.insert(source.id) {
            return;
        }
        match (&source.container, &source.path) {
            (Some(container), _) => tracing::warn!(
                container = container.name,
                "prints bytes that are not UTF-8: each becomes U+FFFD (invalid_utf8_replaced_total)"
            ),
            (None, path) => tracing::warn!(
                path = path.as_deref().unwrap_or_default(),
                "has bytes that are not UTF-8: each becomes U+FFFD (invalid_utf8_replaced_total); set its `encoding` in \
                 file_monitor, such as latin1"
            ),
        }
    }

    /// Shows live viewers what the first sink of the first group of sinks delivered, so each record once. While nobody
    /// watches, this costs one load.
    fn show(&self, batch: &Batch) {
        let outlet = batch.source.outlet;
        if self.status.taps.are_watched() && outlet.index == 0 && outlet.first() == self.id {
            tap::show(&self.status.taps, batch);
        }
    }
}

#[cfg(test)]
#[path = "runtime_tests.rs"]
mod tests;
