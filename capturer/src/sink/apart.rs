//! Outputs on file systems that may hang. The kernel does not end a call that hangs there. So each such file system
//! gets a thread and a sink of its own, a *lane*: when it hangs, only the outputs on it wait.
//!
//! ```text
//! inbox ─▶ the sink's thread ─┬─ output on a local disk: done here
//!                             └─ output on a mount that may hang ─▶ its lane (runtime.rs once more) ─▶ answers
//! ```
//! A stream's messages go to one lane, in order. It moves to another lane once the old one has answered all of them. So
//! answers stay in order, within a stream and within an output.
//!
//! A lane hangs when a step takes longer than [`LANE_PATIENCE`]. Capture is then told that the messages sent to it are
//! held, as for any blocked output; health names the file system and the cure; a Stop does not wait. Until the step
//! returns, nobody knows what it did, so nothing else touches the output. Once it returns, its answer arrives late and
//! everything continues in order.
//!
//! Bounds: one thread per such file system, at most [`LANES_MAX`]. The sender bounds the messages in flight
//! (runtime.rs).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::held::NAMED_MAX;
use super::{Sink, SinkError};
use crate::limits::LANES_MAX;
use crate::model::delivery::{FromSink, ToSink};
use crate::model::record::{SinkId, Source, StreamId};
use crate::telemetry::beat::Beat;
use crate::telemetry::fault::Fault;

/// A step that takes longer counts as hung. The threads that read sources use the same time.
const LANE_PATIENCE: Duration = Duration::from_secs(3);
/// How often lanes are checked while something is on its way.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often to check whether a stream may move, and whether lanes have ended.
const WAIT_EVERY: Duration = Duration::from_millis(20);

/// A file system that may hang.
#[derive(Clone, Debug)]
pub struct FileSystem {
    pub id: u64,
    /// The name shown to people: `/srv/out (nfs4)`.
    pub what: String,
    /// What to do when it hangs.
    pub cure: String,
}

/// Which outputs are on which file system, and how to open a sink for one.
pub struct Apart {
    /// The directory that outputs are in, for messages.
    pub directory: PathBuf,
    /// The file system that an output is on; `None` = a local disk.
    pub place_of: PlaceOf,
    /// Opens a sink for a place. Called on the lane's thread, because it may hang.
    pub open: OpenAt,
}

pub type PlaceOf = Box<dyn FnMut(&str) -> Option<FileSystem> + Send>;
pub type OpenAt = Arc<dyn Fn(u64) -> Result<Box<dyn Sink>, SinkError> + Send + Sync>;
/// Sends capture a message. Never blocks.
pub(super) type Reporter = Arc<dyn Fn(FromSink) + Send + Sync>;

/// State shared by a lane and the sink's thread.
pub(super) struct Shared {
    pub(super) beat: Arc<Beat>,
    out: Mutex<Out>,
    /// The lane was told of a saved checkpoint and has not handled the message yet.
    pub(super) saved_told: AtomicBool,
    pub(super) ended: AtomicBool,
    /// The lane must stop trying to open its sink.
    pub(super) gives_up: AtomicBool,
}

/// Messages sent to the lane and not answered yet.
#[derive(Default)]
struct Out {
    streams: BTreeMap<StreamId, Waiting>,
    /// Why it can't even be opened.
    trouble: Option<(String, Fault)>,
}

#[derive(Default)]
struct Waiting {
    output: Arc<str>,
    /// Oldest first; those that were reported as held come first.
    jobs: VecDeque<Job>,
    /// For how many of them the lane itself reported that their output is blocked.
    held_there: usize,
    /// Whether capture was told that the stream waits.
    is_told: bool,
}

struct Job {
    /// 0 for anything but a batch.
    bytes: u64,
    is_told: bool,
}

impl Shared {
    fn out(&self) -> MutexGuard<'_, Out> {
        // Whole values only are written.
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_trouble(&self, trouble: Option<(String, Fault)>) {
        self.out().trouble = trouble;
    }

    /// Passes the lane's report on to capture. The lock keeps it in step with what the sink's thread reports about the
    /// lane.
    pub(super) fn tell(&self, from: FromSink, report: &Reporter) {
        let mut out = self.out();
        match from {
            // Only one of the sink's threads has stopped, not the sink.
            FromSink::Stopped(_) => {}
            FromSink::Held { sink, stream, bytes, cause, short } => {
                let mut fresh = true;
                if let Some(waiting) = out.streams.get_mut(&stream) {
                    if let Some(job) = waiting.jobs.get_mut(waiting.held_there) {
                        fresh = !std::mem::replace(&mut job.is_told, true);
                    }
                    waiting.held_there += 1;
                }
                let bytes = if fresh { bytes } else { 0 };
                report(FromSink::Held { sink, stream, bytes, cause, short });
            }
            FromSink::Freed { .. } | FromSink::SaveAgain(_) => report(from),
            FromSink::Attached { sink, stream, .. } => {
                report(from);
                out.done(sink, stream, report);
            }
            FromSink::Ack(ack) => {
                let (sink, stream) = (ack.sink, ack.batch.source.id);
                report(FromSink::Ack(ack));
                out.done(sink, stream, report);
            }
        }
    }
}

impl Out {
    fn done(&mut self, sink: SinkId, stream: StreamId, report: &Reporter) {
        let Some(waiting) = self.streams.get_mut(&stream) else { return };
        waiting.jobs.pop_front();
        waiting.held_there = waiting.held_there.saturating_sub(1);
        if waiting.jobs.is_empty() {
            let is_told = waiting.is_told;
            self.streams.remove(&stream);
            if is_told {
                report(FromSink::Freed { sink, stream });
            }
        }
    }

    /// Reports all unanswered messages as held: the file system hangs.
    fn hold_all(&mut self, sink: SinkId, directory: &std::path::Path, cause: &str, report: &Reporter) {
        for (&stream, waiting) in &mut self.streams {
            let output = directory.join(&*waiting.output).display().to_string();
            let cause: Arc<str> = format!("{output}: {cause}").into();
            for job in waiting.jobs.iter_mut().filter(|job| !job.is_told) {
                (job.is_told, waiting.is_told) = (true, true);
                let (bytes, cause) = (job.bytes, Arc::clone(&cause));
                report(FromSink::Held { sink, stream, bytes, cause, short: None });
            }
        }
    }

    fn outputs(&self) -> BTreeSet<Arc<str>> {
        self.streams.values().map(|waiting| Arc::clone(&waiting.output)).collect()
    }
}

/// The sink's thread's end of a lane.
struct Lane {
    place: FileSystem,
    sender: Sender<ToSink>,
    thread: JoinHandle<()>,
    shared: Arc<Shared>,
    /// The lane was reported as hung.
    is_stuck: bool,
}

impl Lane {
    /// Why it does not answer. For how long is added where that is shown.
    fn stuck(&self) -> Option<(String, Fault)> {
        let FileSystem { what, cure, .. } = &self.place;
        if let Some(trouble) = &self.shared.out().trouble {
            return Some(trouble.clone());
        }
        let hangs = self.shared.beat.age() >= LANE_PATIENCE;
        hangs.then(|| (format!("{what} does not answer: {cure}"), Fault::Silent))
    }

    fn has(&self, stream: StreamId) -> bool {
        self.shared.out().streams.contains_key(&stream)
    }

    fn send(&self, message: ToSink, output: Option<&Arc<str>>) {
        let job = match &message {
            ToSink::Attach(source) => Some((source.id, 0)),
            ToSink::Batch(batch) => {
                Some((batch.source.id, (batch.read.capacity() + batch.made.capacity()) as u64))
            }
            _ => None,
        };
        if let Some((stream, bytes)) = job {
            let mut out = self.shared.out();
            let waiting = out.streams.entry(stream).or_default();
            if let Some(output) = output {
                waiting.output = Arc::clone(output);
            }
            waiting.jobs.push_back(Job { bytes, is_told: false });
        }
        // Fails only after the lane has ended, as it was told to.
        let _ = self.sender.send(message);
    }
}

/// What changed with a lane that hangs, or still holds.
pub(super) struct LaneNews {
    pub(super) id: u64,
    /// Which outputs hang, why and for how long; `None` = it answers again.
    pub(super) wrong: Option<(String, Fault)>,
    /// How many outputs wait.
    pub(super) outputs: usize,
    /// Whether this is news.
    pub(super) is_new: bool,
}

/// Starts the thread of a lane.
pub(super) type Start<'a> =
    &'a mut dyn FnMut(&FileSystem, Arc<Shared>) -> std::io::Result<(Sender<ToSink>, JoinHandle<()>)>;

/// The lanes of a sink.
pub(super) struct Lanes {
    sink: SinkId,
    apart: Apart,
    report: Reporter,
    lanes: BTreeMap<u64, Lane>,
    /// Streams that have a lane, with their lane and output.
    homes: BTreeMap<StreamId, (u64, Arc<str>)>,
    /// Messages of streams that move: they wait until the old place has answered all earlier ones.
    moving: BTreeMap<StreamId, VecDeque<ToSink>>,
    look_at: Option<Instant>,
}

impl Lanes {
    pub(super) fn new(sink: SinkId, apart: Apart, report: Reporter) -> Lanes {
        Lanes {
            sink,
            apart,
            report,
            lanes: BTreeMap::new(),
            homes: BTreeMap::new(),
            moving: BTreeMap::new(),
            look_at: None,
        }
    }

    /// Whether a message may be for a lane. Where there are no lanes, this check is all that a batch costs.
    pub(super) fn concerns(&self, message: &ToSink) -> bool {
        match message {
            ToSink::Attach(_) => true,
            ToSink::Batch(_) | ToSink::Detach(_) | ToSink::Withdraw(_) => {
                !self.homes.is_empty() || !self.moving.is_empty()
            }
            ToSink::Saved(_) => !self.lanes.is_empty(),
            ToSink::Stop { .. } => false,
        }
    }

    pub(super) fn report(&self) -> Reporter {
        Arc::clone(&self.report)
    }

    pub(super) fn open_at(&self) -> OpenAt {
        Arc::clone(&self.apart.open)
    }

    /// Sends a message to its lane, or returns it for the sink's own thread. `output` is where an Attach moves the
    /// stream, `is_held` whether a message of the stream waits on the sink's own thread.
    pub(super) fn route(
        &mut self,
        message: ToSink,
        output: Option<Arc<str>>,
        is_held: bool,
        beat: &dyn Fn() -> Arc<Beat>,
        start: Start<'_>,
    ) -> Option<ToSink> {
        let stream = match &message {
            ToSink::Attach(source) => source.id,
            ToSink::Batch(batch) => batch.source.id,
            ToSink::Detach(stream) | ToSink::Withdraw(stream) => *stream,
            ToSink::Saved(marks) => {
                for lane in self.lanes.values() {
                    // Each repeats what the earlier ones said, so a hung lane gets one and not a heap of them.
                    if !lane.shared.saved_told.swap(true, Ordering::Relaxed) {
                        lane.send(ToSink::Saved(Arc::clone(marks)), None);
                    }
                }
                return Some(message);
            }
            ToSink::Stop { .. } => return Some(message),
        };
        if let Some(waiting) = self.moving.get_mut(&stream) {
            waiting.push_back(message);
            return None;
        }
        let mut own = None;
        if let (ToSink::Attach(_), Some(output)) = (&message, output) {
            let place = (self.apart.place_of)(&output);
            let home = self.homes.get(&stream).map(|(id, _)| *id);
            if home != place.as_ref().map(|place| place.id) {
                let is_out =
                    home.map_or(is_held, |id| self.lanes.get(&id).is_some_and(|lane| lane.has(stream)));
                if is_out {
                    self.moving.entry(stream).or_default().push_back(message);
                    return None;
                }
                match home.and_then(|id| self.lanes.get(&id)) {
                    Some(lane) => lane.send(ToSink::Detach(stream), None),
                    None => own = Some(ToSink::Detach(stream)),
                }
                self.homes.remove(&stream);
            }
            if let Some(place) = place {
                match self.ready(&place, beat, start) {
                    Ok(()) => drop(self.homes.insert(stream, (place.id, output))),
                    // Without a lane the sink's own thread does the work, and may hang with it.
                    Err(error) => tracing::warn!("{}: no thread for it: {error}", place.what),
                }
            }
        }
        let Some((id, output)) = self.homes.get(&stream) else { return Some(message) };
        let Some(lane) = self.lanes.get(id) else { return Some(message) };
        let ends = matches!(message, ToSink::Detach(_));
        lane.send(message, Some(output));
        if lane.is_stuck
            && let Some((cause, _)) = lane.stuck()
        {
            lane.shared.out().hold_all(self.sink, &self.apart.directory, &cause, &self.report);
        }
        if ends {
            self.homes.remove(&stream);
        }
        self.look_at.get_or_insert_with(|| Instant::now() + LOOK_EVERY);
        own
    }

    fn ready(
        &mut self,
        place: &FileSystem,
        beat: &dyn Fn() -> Arc<Beat>,
        start: Start<'_>,
    ) -> std::io::Result<()> {
        if self.lanes.contains_key(&place.id) {
            return Ok(());
        }
        if self.lanes.len() >= LANES_MAX {
            // A lane that no stream uses ends with its sender; a busy one is kept.
            let homes: BTreeSet<u64> = self.homes.values().map(|(id, _)| *id).collect();
            self.lanes.retain(|id, lane| homes.contains(id) || !lane.shared.beat.age().is_zero());
        }
        if self.lanes.len() >= LANES_MAX {
            return Err(std::io::Error::other(format!("there are {LANES_MAX} of them already")));
        }
        let shared = Arc::new(Shared {
            beat: beat(),
            out: Mutex::default(),
            saved_told: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            gives_up: AtomicBool::new(false),
        });
        let (sender, thread) = start(place, Arc::clone(&shared))?;
        tracing::info!("{} may hang: outputs there are written by a thread of their own", place.what);
        let lane = Lane { place: place.clone(), sender, thread, shared, is_stuck: false };
        self.lanes.insert(place.id, lane);
        Ok(())
    }

    /// When to check lanes and moving streams next.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let moves = (!self.moving.is_empty()).then(|| Instant::now() + WAIT_EVERY);
        self.look_at.into_iter().chain(moves).min()
    }

    /// Messages of streams that may move now, in order: the old place has answered all their earlier ones.
    pub(super) fn moved(&mut self, is_held: &dyn Fn(StreamId) -> bool) -> Vec<ToSink> {
        let (homes, lanes) = (&self.homes, &self.lanes);
        let is_out = |stream: StreamId| match homes.get(&stream).and_then(|(id, _)| lanes.get(id)) {
            Some(lane) => lane.has(stream),
            None => is_held(stream),
        };
        let free: Vec<StreamId> = self.moving.keys().copied().filter(|stream| !is_out(*stream)).collect();
        free.iter().flat_map(|stream| self.moving.remove(stream).unwrap_or_default()).collect()
    }

    /// Checks which lanes hang, tells capture which streams wait for them, and returns the changes.
    pub(super) fn look(&mut self) -> Vec<LaneNews> {
        let Some(look_at) = self.look_at else { return Vec::new() };
        let now = Instant::now();
        if look_at > now {
            return Vec::new();
        }
        let mut news = Vec::new();
        let mut is_any_busy = false;
        for (&id, lane) in &mut self.lanes {
            let stuck = lane.stuck();
            let mut out = lane.shared.out();
            is_any_busy |= stuck.is_some() || !out.streams.is_empty() || !lane.shared.beat.age().is_zero();
            match stuck {
                Some((cause, fault)) => {
                    out.hold_all(self.sink, &self.apart.directory, &cause, &self.report);
                    let outputs = out.outputs();
                    let shown =
                        |output: &Arc<str>| self.apart.directory.join(&**output).display().to_string();
                    let named: Vec<String> = outputs.iter().take(NAMED_MAX).map(shown).collect();
                    let more = match outputs.len() - named.len() {
                        0 => String::new(),
                        more => format!(" and {more} more"),
                    };
                    let age = lane.shared.beat.age().as_secs();
                    let waits = match named.is_empty() {
                        true => "no output waits for it".to_owned(),
                        false => format!("outputs that wait for it: {}{more}", named.join(", ")),
                    };
                    news.push(LaneNews {
                        id,
                        wrong: Some((format!("{cause}; for {age} s; {waits}"), fault)),
                        outputs: outputs.len(),
                        is_new: !std::mem::replace(&mut lane.is_stuck, true),
                    });
                }
                None if std::mem::take(&mut lane.is_stuck) => {
                    news.push(LaneNews { id, wrong: None, outputs: 0, is_new: true });
                }
                None => {}
            }
        }
        self.look_at = is_any_busy.then(|| now + LOOK_EVERY);
        news
    }

    /// Tells all lanes to end.
    pub(super) fn stop(&self, give_up_at: Option<Instant>) {
        for lane in self.lanes.values() {
            lane.shared.gives_up.store(true, Ordering::Relaxed);
            let _ = lane.sender.send(ToSink::Stop { give_up_at: give_up_at.unwrap_or_else(Instant::now) });
        }
    }

    /// Waits until all lanes have ended, except those that hang.
    pub(super) fn wait(&self, give_up_at: Option<Instant>) {
        let is_at_work = |lane: &Lane| !lane.shared.ended.load(Ordering::Relaxed) && lane.stuck().is_none();
        while self.lanes.values().any(is_at_work) && give_up_at.is_none_or(|at| Instant::now() < at) {
            std::thread::sleep(WAIT_EVERY);
        }
    }

    /// Waits for hung lanes, too: they may still write, and until they end nobody else may.
    pub(super) fn join(self) {
        for lane in self.lanes.into_values() {
            drop(lane.sender);
            // A panic ends the process.
            let _ = lane.thread.join();
        }
    }

    /// For an Attach: where the stream goes from then on.
    pub(super) fn output_of(sink: &dyn Sink, message: &ToSink) -> Option<Arc<str>> {
        let of = |source: &Source| sink.output_of(source, true);
        if let ToSink::Attach(source) = message { of(source) } else { None }
    }
}
