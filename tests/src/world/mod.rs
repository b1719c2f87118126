//! A simulated host for the real [`Capture`]: disk, Docker Engine, clock, ring, sinks, and what goes wrong with them.
//! All chance comes from one seed; time is virtual.
//!
//! ```text
//! queue of happenings ─▶ next one ─▶ containers print, files rotate, the Engine dies ... (writers, paths, engine)
//!                              └───▶ Event ─▶ Capture ─▶ Actions ─▶ shell.rs ─▶ happenings to come
//!                                                  every step ─▶ checker
//! ```
//! A run has two phases: with faults, in which nothing wrong may happen; then without, in which everything must arrive
//! and the agent must stop cleanly.
//!
//! Not here: the real ring, HTTP and file system; tests against real Engines have those.

pub mod bench;
mod disk;
mod draw;
mod engine;
mod faults;
mod lanes;
mod log;
mod paths;
mod phases;
mod shell;
mod sinks;
mod writers;

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::sync::Arc;

use capturer::testing::checkpoint::Checkpoint;
use capturer::testing::{Capture, Event, Metrics, Now, ReadFrom, Settings, SinkFacts, StreamId, checkpoint};

use crate::checker::{Checker, Flow, Snapshot};
use crate::rand::Rand;

use disk::Disk;
use draw::draw_settings;
use engine::Engine;
pub use faults::Faults;
use lanes::Lanes;
use log::Log;
use paths::FollowedPath;
use shell::{Run, Work};
use sinks::SinkModel;
use writers::Container;

/// The wall clock when the simulation begins.
const EPOCH_NS: i64 = 1_800_000_000_000_000_000;
/// More happenings than this in one seed are a loop that makes no progress. A container that printed much within its last
/// two seconds and is read in small pieces needs over two millions: each rotation reads those seconds again.
const STEPS_MAX: u64 = 20_000_000;
/// Happenings between two looks at the sums, each of which counts all streams.
const CHECKED_EACH: u64 = 8;
/// What comes next, at its time.
#[derive(Debug)]
enum Happening {
    /// The core's deadline.
    Tick { run: u64 },
    /// The core takes an event.
    Deliver { run: u64, event: Box<Event> },
    /// The files thread gets to a request.
    Files { run: u64, work: Work },
    /// A read of a file is carried out.
    ReadFile { run: u64, read: shell::FileRead },
    /// A read of a file has ended; its length is asked for now.
    ReadFileDone { run: u64, read: shell::FileRead },
    /// inotify tells what it has.
    Inotify { run: u64 },
    /// A connection may have something to tell.
    ConnWake { run: u64, conn: u64 },
    /// The Engine gets to a request.
    Asked { run: u64, asked: engine::Asked },
    /// A sink takes its next message.
    Sink { run: u64, sink: usize },
    /// A container prints, ends, begins ...
    Container(usize),
    /// The next step of a rotation of a container's log.
    Rotation(usize, writers::RotationStep),
    /// A followed path is written to or rotated.
    Path(usize),
    /// The second half of a path's rotation.
    PathRotated(usize),
    /// A rotated file may be read from now on.
    Readable(disk::Node),
    /// The Engine freezes, thaws, dies, comes back.
    Engine(engine::Fate),
    /// A file system begins to hang.
    Hang,
    /// The agent looks whether a stream's file operation hangs.
    TellHung { run: u64, stream: StreamId, directory: String },
    /// The agent is killed after so many more actions.
    CrashSoon(u64),
    /// The agent is told to stop.
    Stop,
    /// The agent starts.
    Start,
}

/// A simulated host; see the head of this file.
pub struct World {
    seed: u64,
    rand: Rand,
    faults: Faults,
    /// As drawn, to be shown.
    drawn: Faults,
    settings: Arc<Settings>,
    now_us: u64,
    /// By time and order. Boxed, for the tree moves its values all the time.
    queue: BTreeMap<(u64, u64), Box<Happening>>,
    order: u64,
    steps: u64,
    disk: Disk,
    lanes: Lanes,
    engine: Engine,
    containers: Vec<Container>,
    paths: Vec<FollowedPath>,
    sinks: Vec<SinkModel>,
    run: Option<Run>,
    runs: u64,
    crash_in: Option<u64>,
    /// The checkpoint on disk, and what it stands for.
    saved: (Checkpoint, Snapshot),
    checker: Checker,
    /// Nothing is printed any more.
    quiet: bool,
    /// The agent was told to stop and is not started again.
    ending: bool,
    trace: u64,
    log: Log,
    /// Lost bytes the core declared in runs that are over.
    declared: u64,
    /// On a bench there is no agent: its events wait here.
    bench_events: Option<VecDeque<Event>>,
}

/// What a seed's run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// A hash over everything that happened.
    pub trace: u64,
    /// Happenings.
    pub steps: u64,
    /// Lines printed.
    pub printed: usize,
    /// Lines printed and delivered nowhere: the host had lost them before they could be read.
    pub lost: usize,
    /// Seconds that passed on the host.
    pub seconds: u64,
    /// Times the agent was started.
    pub runs: u64,
}

impl World {
    /// The world of a seed.
    pub fn new(seed: u64) -> World {
        let mut rand = Rand::new(seed);
        let faults = Faults::swarm(&mut rand.fork());
        let settings = Arc::new(draw_settings(&mut rand.fork()));
        let names: &[(&str, bool)] = match rand.within(0..4) {
            0 => &[("stdout", true)],
            1 => &[("local_file", true), ("stdout", false)],
            _ => &[("local_file", true)],
        };
        let mut checker = Checker::new(names, settings.line_bytes_max as usize);
        checker.joins = settings.pipelines.iter().any(|pipeline| pipeline.multiline.is_some());
        let mut world = World {
            seed,
            drawn: faults.clone(),
            faults,
            now_us: 0,
            queue: BTreeMap::new(),
            order: 0,
            steps: 0,
            disk: Disk::default(),
            lanes: Lanes::default(),
            engine: Engine::default(),
            containers: Vec::new(),
            paths: Vec::new(),
            sinks: names.iter().map(|(name, _)| SinkModel::new(name)).collect(),
            run: None,
            runs: 0,
            crash_in: None,
            saved: Default::default(),
            checker,
            quiet: false,
            ending: false,
            trace: seed,
            log: Log::last(),
            declared: 0,
            bench_events: None,
            settings,
            rand,
        };
        world.furnish();
        world
    }

    /// Every happening goes to `writer`, and after a failure how things stood.
    pub fn logged(mut self, writer: Box<dyn Write + Send>) -> World {
        self.log = Log::All(writer);
        self
    }

    /// Nothing is shown, whatever happens: for runs of many seeds.
    pub fn unlogged(mut self) -> World {
        self.log = Log::Nothing;
        self
    }

    fn furnish(&mut self) {
        self.disk.no_birth_times = self.rand.chance(1, 4);
        self.draw_lanes();
        let containers = self.rand.within(1..6);
        for _ in 0..containers {
            self.make_container();
        }
        for set in 0..self.settings.file_monitor.files.len() {
            self.make_path(set);
        }
        self.later(0, Happening::Start);
    }

    // ---- time

    fn later(&mut self, delay_us: u64, happening: Happening) {
        self.at(self.now_us + delay_us, happening);
    }

    fn at(&mut self, at_us: u64, happening: Happening) {
        self.order += 1;
        self.queue.insert((at_us.max(self.now_us), self.order), Box::new(happening));
    }

    fn now(&self) -> Now {
        Now { mono_ms: self.now_us / 1000, unix_ns: self.now_ns() }
    }

    fn now_ns(&self) -> i64 {
        EPOCH_NS + self.now_us as i64 * 1000
    }

    /// A time that is short as a rule, and at times up to `slow_us`.
    fn delay(&mut self, usual_us: u64, slow_us: u64) -> u64 {
        let usual = self.rand.within(1..usual_us + 1);
        if slow_us > 0 && self.rand.chance(1, 5) { usual + self.rand.within(0..slow_us) } else { usual }
    }

    /// A fault happens, `rate` times in a thousand.
    fn strikes(&mut self, rate: u64) -> bool {
        rate > 0 && self.rand.chance(rate, 1000)
    }

    fn run_until(&mut self, until_us: u64) {
        while let Some(next) = self.queue.first_entry()
            && next.key().0 <= until_us
        {
            let (key, happening) = next.remove_entry();
            self.now_us = key.0;
            self.steps += 1;
            assert!(self.steps < STEPS_MAX, "invariant broken: the_world_makes_progress");
            self.happen(*happening);
        }
        self.now_us = self.now_us.max(until_us);
    }

    fn happen(&mut self, happening: Happening) {
        if !matches!(happening, Happening::ConnWake { .. } | Happening::Tick { .. }) {
            self.note(|| brief(&happening));
        }
        match happening {
            Happening::Tick { run } => self.tick(run),
            Happening::Deliver { run, event } if self.is_running(run) => {
                if self.is_wanted(&event) {
                    self.deliver(*event);
                }
            }
            Happening::Files { run, work } if self.is_running(run) => self.work_on_files(run, work),
            Happening::ReadFile { run, read } if self.is_running(run) => self.read_file(run, read),
            Happening::TellHung { run, stream, directory } if self.is_running(run) => {
                self.tell_hung(stream, directory);
            }
            Happening::ReadFileDone { run, read } if self.is_running(run) => self.read_file_done(read),
            Happening::Inotify { run } if self.is_running(run) => self.tell_inotify(),
            Happening::ConnWake { run, conn } if self.is_running(run) => self.wake_conn(conn),
            Happening::Asked { run, asked } if self.is_running(run) => self.answer(asked),
            Happening::Sink { run, sink } if self.is_running(run) => self.step_sink(sink),
            Happening::Deliver { .. }
            | Happening::Files { .. }
            | Happening::ReadFile { .. }
            | Happening::ReadFileDone { .. }
            | Happening::TellHung { .. }
            | Happening::Inotify { .. }
            | Happening::ConnWake { .. }
            | Happening::Asked { .. }
            | Happening::Sink { .. } => {}
            Happening::Container(container) => self.step_container(container),
            Happening::Rotation(container, step) => self.step_rotation(container, step),
            Happening::Path(path) => self.step_path(path),
            Happening::PathRotated(path) => self.finish_path_rotation(path),
            Happening::Readable(node) => self.readable(node),
            Happening::Engine(fate) => self.meet_fate(fate),
            Happening::Hang => self.hang(),
            Happening::CrashSoon(actions) if !self.quiet => self.crash_in = Some(actions),
            Happening::CrashSoon(_) => {}
            Happening::Stop if self.quiet && !self.ending => {}
            Happening::Stop => self.stop(),
            Happening::Start => self.start(),
        }
    }

    /// Keeps what happened for the hash, and the last of it to be shown.
    /// The text is made only where somebody reads it or compares it.
    fn note(&mut self, text: impl FnOnce() -> String) {
        if matches!(self.log, Log::Nothing) {
            return;
        }
        let text = text();
        for byte in text.bytes().chain(self.now_us.to_le_bytes()) {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.log.line(self.now_us, &text);
    }

    // ---- the agent's life

    fn is_running(&self, run: u64) -> bool {
        self.run.as_ref().is_some_and(|running| running.number == run)
    }

    fn start(&mut self) {
        if self.run.is_some() {
            return;
        }
        self.runs += 1;
        if self.drawn.switches && self.rand.chance(1, 2) {
            let mut settings = (*self.settings).clone();
            let read_from = &mut settings.container_monitor.read_from;
            *read_from = if *read_from == ReadFrom::Api { ReadFrom::Auto } else { ReadFrom::Api };
            self.settings = Arc::new(settings);
        }
        self.forgive_rotated_paths();
        // Through its file format, as a real start has it.
        let mut loaded = checkpoint::decode(&checkpoint::encode(&self.saved.0)).expect("it was just encoded");
        loaded.memory = self.saved.0.memory.clone();
        let now_s = self.now_ns() as u64 / 1_000_000_000;
        for sink in &mut self.sinks {
            sink.restore(&mut loaded, now_s);
        }
        self.checker.on_restart(&loaded, &self.saved.1);
        for sink in 0..self.sinks.len() {
            if self.sinks[sink].keeps_outputs() {
                self.checker.outputs_hold_what_positions_say(sink);
            }
        }
        let metrics = Arc::new(Metrics::new(100).expect("the metrics are fixed"));
        let facts = |sink: &SinkModel| SinkFacts { name: sink.name.clone(), own_pace: false };
        let names = self.sinks.iter().map(facts).collect();
        let seed = self.rand.number();
        let mut capture = Capture::new(Arc::clone(&self.settings), Arc::clone(&metrics), names, loaded, seed);
        // Of half the hosts only what changed is saved, as of one with thousands of streams.
        capture.save_changes_from(if self.seed.is_multiple_of(2) { 0 } else { usize::MAX });
        let flow = Flow::new(self.settings.buffer_bytes_max, self.sinks.len());
        self.run = Some(Run::new(self.runs, capture, metrics, flow));
        self.deliver(Event::Started);
        self.watch_without_inotify();
    }

    /// Gives an event to the core and carries out what it orders.
    fn deliver(&mut self, event: Event) {
        if let Some(events) = &mut self.bench_events {
            return events.push_back(event);
        }
        let now = self.now();
        self.before_event(&event);
        let Some(run) = &mut self.run else { return };
        run.capture.on_event(now, event);
        // A sum that went wrong stays wrong, so a later look sees it. With a log it is seen after the event that did it.
        if self.steps.is_multiple_of(CHECKED_EACH) || !matches!(self.log, Log::Nothing) {
            run.capture.check_sums();
        }
        let actions: Vec<_> = run.capture.drain_actions().collect();
        for action in actions {
            if let Some(left) = &mut self.crash_in {
                if *left == 0 {
                    return self.crash();
                }
                *left -= 1;
            }
            self.carry_out(action);
        }
        self.plan_tick();
    }

    fn plan_tick(&mut self) {
        let late = self.faults.ticks_late_us;
        let Some(run) = &mut self.run else { return };
        let Some(due_ms) = run.capture.next_deadline_ms() else { return };
        let number = run.number;
        let at_us = (due_ms * 1000).max(self.now_us + 1);
        if run.tick_at_us.is_none_or(|planned| at_us < planned) {
            run.tick_at_us = Some(at_us);
            let late = if late > 0 && self.rand.chance(1, 10) { self.rand.within(0..late) } else { 0 };
            self.at(at_us + late, Happening::Tick { run: number });
        }
    }

    fn tick(&mut self, number: u64) {
        if !self.is_running(number) {
            return;
        }
        let Some(run) = &mut self.run else { return };
        run.tick_at_us = None;
        self.deliver(Event::Tick);
    }

    fn stop(&mut self) {
        if let Some(run) = &mut self.run {
            run.stopping = true;
            self.deliver(Event::Stop);
        }
    }

    /// The process ends: what it had open is closed, what it knew is gone.
    fn crash(&mut self) {
        self.note(|| "-- crash".to_owned());
        self.end_run();
        let pause = self.delay(1_000_000, 10_000_000);
        self.later(pause, Happening::Start);
    }

    fn end_run(&mut self) {
        self.crash_in = None;
        let Some(run) = self.run.take() else { return };
        self.declared += shell::declared_losses(&run.metrics);
        for node in run.open_files.into_values() {
            let gone = self.disk.close(node);
            self.checker.lines_gone(gone);
        }
        for sink in &mut self.sinks {
            sink.die();
        }
    }

    fn finished(&mut self, left: &[String]) {
        self.note(|| format!("-- finished, left {left:?}"));
        assert!(left.is_empty() || !self.ending, "invariant broken: a_stop_is_clean: left {left:?}");
        if left.is_empty() {
            self.nothing_is_left();
        }
        self.end_run();
        if !self.ending {
            let pause = self.delay(1_000_000, 10_000_000);
            self.later(pause, Happening::Start);
        }
    }
}

impl Drop for World {
    /// A failure shows its seed and what led to it.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let mut state = Vec::new();
        if let Some(run) = &self.run {
            for row in run.capture.snapshot(self.now()).streams {
                let (key, at, cause, operation) = (row.key, row.state, row.cause, row.now.operation);
                state.push(format!(
                    "{key}: {at} ({cause}) {operation} {:?} {}",
                    row.lag_bytes,
                    serde_json::json!(row.position)
                ));
            }
        }
        state.extend(self.containers.iter().map(|container| container.describe(&self.disk)));
        let seed = self.seed;
        state.push(format!("seed {seed}, {} happenings; {:?}", self.steps, self.drawn));
        state.push(format!("again: cargo xtask sim --seed {seed}"));
        self.log.failed(&state);
    }
}

/// A happening in a line.
fn brief(happening: &Happening) -> String {
    match happening {
        Happening::Deliver { event, .. } => shell::brief_event(event),
        Happening::ReadFile { read, .. } => format!("reading file {} from {}", read.file.0, read.offset),
        Happening::ReadFileDone { read, .. } => {
            format!("read file {}: {} bytes", read.file.0, read.buffer.len())
        }
        other => format!("{other:?}").chars().take(400).collect(),
    }
}
