//! All that a [`Context`] lends, owned: to call one machine of the core in its tests, without the others.

use crate::capture::checkpoint::memory::Table;
use crate::capture::context::{Context, Credit, Jitter, Lanes, Pool, Timers};
use crate::capture::counted::ReadCounts;
use crate::capture::io::Action;
use crate::capture::open_files::OpenFiles;
use crate::capture::owners::Owners;
use crate::limits::FILE_READS_MAX;
use crate::model::clock::Now;
use crate::settings::Settings;
use crate::telemetry::metrics::Metrics;

pub(crate) struct Bench {
    pub(crate) now: Now,
    pub(crate) pool: Pool,
    settings: Settings,
    metrics: Metrics,
    actions: Vec<Action>,
    credit: Credit,
    timers: Timers,
    lanes: Lanes,
    jitter: Jitter,
    owners: Owners,
    open_files: OpenFiles,
    counted: ReadCounts,
    memory: Table,
    last_number: u64,
}

impl Bench {
    /// With this many slots for api streams, at second 1,000 of both clocks.
    pub(crate) fn new(slots: usize) -> Bench {
        let settings = Settings::default();
        Bench {
            now: Now { mono_ms: 1_000_000, unix_ns: 1_000_000_000_000 },
            pool: Pool::new(slots),
            metrics: Metrics::new(1).expect("metrics"),
            actions: Vec::new(),
            credit: Credit::new(settings.buffer_bytes_max, FILE_READS_MAX),
            settings,
            timers: Timers::default(),
            lanes: Lanes::default(),
            jitter: Jitter::new(1),
            owners: Owners::default(),
            open_files: OpenFiles::new(1_000, 0),
            counted: ReadCounts::default(),
            memory: Table::default(),
            last_number: 0,
        }
    }

    pub(crate) fn cx(&mut self) -> Context<'_> {
        Context {
            now: self.now,
            settings: &self.settings,
            metrics: &self.metrics,
            actions: &mut self.actions,
            credit: &mut self.credit,
            timers: &mut self.timers,
            pool: &mut self.pool,
            lanes: &mut self.lanes,
            jitter: &mut self.jitter,
            owners: &mut self.owners,
            open_files: &mut self.open_files,
            counted: &mut self.counted,
            memory: &self.memory,
            last_number: &mut self.last_number,
        }
    }

    /// For another config.
    pub(crate) fn settings_mut(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// The orders given since the last call.
    pub(crate) fn actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }
}
