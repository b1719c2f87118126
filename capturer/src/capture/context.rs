//! What the machines of the core are called with: the time, the settings, and what they share.

mod credit;
mod jitter;
mod pool;
mod read_turns;
mod timers;

pub use credit::Credit;
pub use jitter::Jitter;
pub use pool::Pool;
pub use read_turns::ReadTurns;
pub use timers::{Purpose, Timer, Timers};

use super::counted::ReadCounts;
use super::io::{Action, ConnId, FileNo, RequestId};
use super::open_files::OpenFiles;
use super::owners::Owners;
use super::texts::Texts;
use crate::capture::checkpoint::memory::Table;
use crate::model::clock::Now;
use crate::model::record::StreamId;
use crate::settings::Settings;
use crate::telemetry::metrics::Metrics;

/// What a part of the core is called with.
pub struct Context<'a> {
    /// The time of the event.
    pub now: Now,
    /// The settings of this run.
    pub settings: &'a Settings,
    /// The counters to add to.
    pub metrics: &'a Metrics,
    /// Where actions are added.
    pub actions: &'a mut Vec<Action>,
    /// Room for buffers of the stream's outlet.
    pub credit: &'a mut Credit,
    /// Deadlines of all parts.
    pub timers: &'a mut Timers,
    /// Slots of api streams.
    pub pool: &'a mut Pool,
    /// Turns on file systems that may hang.
    pub lanes: &'a mut ReadTurns,
    /// Jitter for back-offs.
    pub jitter: &'a mut Jitter,
    /// Who reads which file.
    pub owners: &'a mut Owners,
    /// How many files are open.
    pub open_files: &'a mut OpenFiles,
    /// What was read of each source.
    pub counted: &'a mut ReadCounts,
    /// Texts that many streams share.
    pub texts: &'a mut Texts,
    /// The table of files read.
    pub memory: &'a Table,
    /// The last number given to a stream, connection, request or file.
    pub last_number: &'a mut u64,
}

/// The parts of a context that are the same for every part of the core.
#[derive(Debug)]
pub struct Shared {
    /// See [`Context`] for this and the other fields.
    pub actions: Vec<Action>,
    pub timers: Timers,
    pub pool: Pool,
    pub lanes: ReadTurns,
    pub jitter: Jitter,
    pub owners: Owners,
    pub open_files: OpenFiles,
    pub counted: ReadCounts,
    texts: Texts,
    last_number: u64,
}

impl Shared {
    /// `seed` is for jitter.
    pub fn new(settings: &Settings, counted: ReadCounts, seed: u64) -> Shared {
        let close_idle_after_ms = settings.file_monitor.close_idle_after.as_millis() as u64;
        Shared {
            actions: Vec::new(),
            timers: Timers::default(),
            pool: Pool::new(settings.container_monitor.rotation.max_concurrent_streams),
            lanes: ReadTurns::default(),
            jitter: Jitter::new(seed),
            owners: Owners::default(),
            open_files: OpenFiles::new(settings.file_monitor.max_open, close_idle_after_ms),
            counted,
            texts: Texts::default(),
            last_number: 0,
        }
    }

    /// A context for a part whose buffers come from this credit.
    pub fn context<'a>(
        &'a mut self,
        now: Now,
        settings: &'a Settings,
        metrics: &'a Metrics,
        credit: &'a mut Credit,
        memory: &'a Table,
    ) -> Context<'a> {
        Context {
            now,
            settings,
            metrics,
            actions: &mut self.actions,
            credit,
            timers: &mut self.timers,
            pool: &mut self.pool,
            lanes: &mut self.lanes,
            jitter: &mut self.jitter,
            owners: &mut self.owners,
            open_files: &mut self.open_files,
            counted: &mut self.counted,
            texts: &mut self.texts,
            memory,
            last_number: &mut self.last_number,
        }
    }
}

impl Context<'_> {
    /// Gives an order.
    pub fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// Calls the stream at that moment for that purpose, instead of at an earlier set one.
    pub fn wake(&mut self, stream: StreamId, purpose: Purpose, at_ms: u64) {
        self.timers.set(Timer::Stream(stream, purpose), at_ms);
    }

    /// As `wake`, unless it will be called sooner.
    pub fn wake_by(&mut self, stream: StreamId, purpose: Purpose, at_ms: u64) {
        self.timers.set_earlier(Timer::Stream(stream, purpose), at_ms);
    }

    /// Whether the stream will be called for that purpose.
    pub fn will_wake(&self, stream: StreamId, purpose: Purpose) -> bool {
        self.timers.is_set(Timer::Stream(stream, purpose))
    }

    /// Cancels the deadline for that purpose.
    pub fn let_sleep(&mut self, stream: StreamId, purpose: Purpose) {
        self.timers.cancel(Timer::Stream(stream, purpose));
    }

    fn number(&mut self) -> u64 {
        *self.last_number += 1;
        *self.last_number
    }

    /// A new connection's number.
    pub fn new_conn(&mut self) -> ConnId {
        ConnId(self.number())
    }

    /// A new request's number.
    pub fn new_request(&mut self) -> RequestId {
        RequestId(self.number())
    }

    /// A new file's number.
    pub fn new_file(&mut self) -> FileNo {
        FileNo(self.number())
    }
}
