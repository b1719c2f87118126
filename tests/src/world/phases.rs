//! The phases of a run: faults, calm in which everything must arrive, silence in which nothing may be read, a stop.

use super::faults::{EventsRefused, Faults};
use super::{Happening, Outcome, World};

/// So long, in simulated time, everything may take to arrive once faults are off.
const ARRIVAL_US: u64 = 180_000_000;
/// So long nobody prints, once everything has arrived.
const IDLE_SECONDS: u64 = 2_000;

impl World {
    /// Both phases.
    ///
    /// # Panics
    /// With an invariant's name, if one does not hold.
    pub fn run(mut self) -> Outcome {
        let faulty_us = 1_000_000 * self.rand.within(3..25);
        for _ in 0..self.faults.crashes {
            let (at, actions) = (self.rand.within(0..faulty_us), self.rand.within(0..40));
            self.at(at, Happening::CrashSoon(actions));
        }
        for _ in 0..self.faults.stops {
            let at = self.rand.within(0..faulty_us);
            self.at(at, Happening::Stop);
        }
        for _ in 0..self.faults.hangs {
            let at = self.rand.within(0..faulty_us);
            self.at(at, Happening::Hang);
        }
        self.draw_fates(faulty_us);
        self.run_until(faulty_us);
        self.calm();
        let deadline = self.now_us + ARRIVAL_US;
        while !self.checker.missing().is_empty() {
            if self.now_us >= deadline {
                self.checker.everything_arrived();
            }
            let next = self.now_us + 1_000_000;
            self.run_until(next);
        }
        self.stays_idle();
        self.stops_cleanly();
        let (printed, lost) = self.checker.counts();
        Outcome {
            trace: self.trace,
            steps: self.steps,
            printed,
            lost,
            seconds: self.now_us / 1_000_000,
            runs: self.runs,
        }
    }

    /// Faults end, everybody finishes what they were saying and falls silent.
    fn calm(&mut self) {
        self.note(|| "-- faults off".to_owned());
        // A limit of descriptors does not go away, nor does a proxy that refuses events for good: with them everything
        // must arrive all the same.
        let Faults { descriptors, events_refused, .. } = self.faults;
        let events_refused = match events_refused {
            EventsRefused::Always => EventsRefused::Always,
            EventsRefused::Never | EventsRefused::Often => EventsRefused::Never,
        };
        self.faults = Faults { descriptors, events_refused, ..Faults::default() };
        self.crash_in = None;
        self.calm_engine();
        self.calm_lanes();
        for container in 0..self.containers.len() {
            self.finish_lines(container);
        }
        for path in 0..self.paths.len() {
            self.finish_path(path);
        }
        self.quiet = true;
        if self.run.is_none() {
            self.later(0, Happening::Start);
        }
    }

    /// Nothing is read while nobody prints, for half an hour and more: what goes on is lists, looks at patterns,
    /// rotations of connections; and they leave nothing.
    fn stays_idle(&mut self) {
        // Longer than a vanished path is waited for, than a writer of a renamed log is, and than the pause between two looks at
        // the head of a file.
        let settle = self.now_us + 90_000_000;
        self.run_until(settle);
        let before = self.run.as_ref().map_or(0, |run| run.file_reads_total);
        self.run_until(settle + 1_000_000 * IDLE_SECONDS);
        let reads = self.run.as_ref().map_or(0, |run| run.file_reads_total) - before;
        let files = (self.containers.len() + self.paths.len()) as u64;
        // Up to three files on a file system that may hang are looked at every 2 s.
        let looks = 3 * self.lane_count() * (IDLE_SECONDS / 2 + 1);
        // A container's log that was replaced is looked at, too: dockerd may write to the old file.
        let looks = looks + self.containers.len() as u64 * (IDLE_SECONDS / 30 + 1);
        let polls = IDLE_SECONDS * (files + self.containers.len() as u64);
        let polls = if self.engine.no_inotify { polls } else { looks };
        // Where files are only looked at, their heads are read now and then, too.
        let polls = polls + polls / 4;
        assert!(reads <= polls, "invariant broken: quiet_files_cost_nothing: {reads} reads of {files} files");
        self.checker.everything_arrived();
    }

    fn stops_cleanly(&mut self) {
        self.ending = true;
        self.later(0, Happening::Stop);
        let until = self.now_us + 1_000 * self.settings.shutdown_timeout.as_millis() as u64 + 1_000_000;
        while self.run.is_some() && self.now_us < until {
            let Some((&(at, _), _)) = self.queue.first_key_value() else { break };
            self.run_until(at);
        }
        assert!(self.run.is_none(), "invariant broken: a_stop_ends: the agent did not finish");
        self.checker.everything_arrived();
    }
}
