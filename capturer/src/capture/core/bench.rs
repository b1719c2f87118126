//! Owns everything that a [`Context`] borrows: for tests that call one part of the core without the others.

use crate::capture::checkpoint::memory::Table;
use crate::capture::context::{Context, Credit, Pool, Purpose, Shared, Timer};
use crate::capture::counted::ReadCounts;
use crate::capture::io::Action;
use crate::limits::FILE_READS_MAX;
use crate::model::clock::Now;
use crate::settings::Settings;
use crate::telemetry::metrics::Metrics;

pub(crate) struct Bench {
    pub(crate) now: Now,
    pub(crate) shared: Shared,
    settings: Settings,
    metrics: Metrics,
    credit: Credit,
    memory: Table,
}

impl Bench {
    /// With this many slots for api streams, at second 1,000 of both clocks.
    pub(crate) fn new(slots: usize) -> Bench {
        let settings = Settings::default();
        let mut shared = Shared::new(&settings, ReadCounts::default(), 1);
        shared.pool = Pool::new(slots);
        Bench {
            now: Now { mono_ms: 1_000_000, unix_ns: 1_000_000_000_000 },
            shared,
            metrics: Metrics::new(1).expect("metrics"),
            credit: Credit::new(settings.buffer_bytes_max, FILE_READS_MAX),
            settings,
            memory: Table::default(),
        }
    }

    pub(crate) fn cx(&mut self) -> Context<'_> {
        self.shared.context(self.now, &self.settings, &self.metrics, &mut self.credit, &self.memory)
    }

    /// The purposes of the streams' deadlines that are due.
    pub(crate) fn due(&mut self) -> Vec<Purpose> {
        let mut due = Vec::new();
        while let Some(timer) = self.shared.timers.pop_due(self.now.mono_ms) {
            if let Timer::Stream(_, purpose) = timer {
                due.push(purpose);
            }
        }
        due
    }

    /// For another config.
    pub(crate) fn settings_mut(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// The actions since the last call.
    pub(crate) fn actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.shared.actions)
    }
}
