//! Simulated file systems that may hang: some directories are on one of their own. While it hangs, whatever is done there
//! is not carried out; when it is back, all of it is, in order. As in the agent, everything of one such file system is
//! done one after the other, whoever waits is named to the core after a while, and inotify tells nothing there.

use std::collections::BTreeMap;

use capturer::testing::{Event, LaneId, StreamId};

use super::{Happening, World};

/// The agent believes that something hangs after so long, and says so again as often as it looks.
const PATIENCE_US: u64 = 3_000_000;
const LOOK_US: u64 = 1_000_000;
/// Longest hang.
const HANG_US_MAX: u64 = 30_000_000;

/// File systems that may hang, by directory.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    /// Every how many-th directory is on one; 0 = none is.
    every: u64,
    by_directory: BTreeMap<String, Lane>,
}

#[derive(Debug, Default)]
struct Lane {
    /// `None`: the directory is local.
    id: Option<LaneId>,
    hung_until_us: u64,
    /// Its thread is busy until then.
    busy_us: u64,
}

impl World {
    pub(super) fn draw_lanes(&mut self) {
        self.lanes.every = self.rand.within(0..4);
    }

    /// The file system of a directory, if it may hang.
    pub(super) fn lane_of(&mut self, directory: &str) -> Option<LaneId> {
        self.lane_mut(directory).id
    }

    fn lane_mut(&mut self, directory: &str) -> &mut Lane {
        if !self.lanes.by_directory.contains_key(directory) {
            let number = self.lanes.by_directory.len() as u64;
            let may_hang = self.lanes.every > 0 && number.is_multiple_of(self.lanes.every);
            let lane = Lane { id: may_hang.then_some(LaneId(100 + number)), ..Lane::default() };
            self.lanes.by_directory.insert(directory.to_owned(), lane);
        }
        self.lanes.by_directory.get_mut(directory).expect("just made")
    }

    /// Directories that may hang, for what a silent agent may do: it looks there from time to time.
    pub(super) fn lane_count(&self) -> u64 {
        self.lanes.by_directory.values().filter(|lane| lane.id.is_some()).count() as u64
    }

    /// When the thread of a directory's file system gets to something that takes `delay_us`.
    pub(super) fn lane_turn_us(&mut self, directory: &str, delay_us: u64) -> u64 {
        let now = self.now_us;
        let lane = self.lane_mut(directory);
        lane.busy_us = lane.busy_us.max(now) + delay_us;
        lane.busy_us
    }

    /// A file system begins to hang.
    pub(super) fn hang(&mut self) {
        let directories: Vec<String> = self.lanes.by_directory.keys().cloned().collect();
        if self.quiet || directories.is_empty() {
            return;
        }
        let directory = self.rand.pick(&directories).clone();
        let until = self.now_us + self.rand.within(0..HANG_US_MAX);
        let lane = self.lane_mut(&directory);
        lane.hung_until_us = until;
        self.note(|| format!("-- {directory} hangs until {until}"));
    }

    /// All file systems answer from now on.
    pub(super) fn calm_lanes(&mut self) {
        self.lanes.by_directory.values_mut().for_each(|lane| lane.hung_until_us = 0);
    }

    /// If the directory's file system hangs, puts off what is done there and plans that the core is told.
    pub(super) fn put_off(
        &mut self,
        directory: &str,
        stream: Option<StreamId>,
        happening: Happening,
    ) -> Option<Happening> {
        let now = self.now_us;
        let lane = self.lane_mut(directory);
        if lane.id.is_none() || lane.hung_until_us <= now {
            return Some(happening);
        }
        // Looked at again and again, for it may come back sooner than was drawn.
        let next = lane.hung_until_us.min(now + LOOK_US);
        let told_at = now + PATIENCE_US;
        self.at(next, happening);
        if let (Some(stream), Some(run)) = (stream, self.run.as_mut())
            && run.told_hung.insert(stream)
        {
            let run = run.number;
            self.at(told_at, Happening::TellHung { run, stream, directory: directory.to_owned() });
        }
        None
    }

    /// The agent looks whether a request is still without an answer.
    pub(super) fn tell_hung(&mut self, stream: StreamId, directory: String) {
        let now = self.now_us;
        let hangs = self.lane_mut(&directory).hung_until_us > now;
        let Some(run) = self.run.as_mut() else { return };
        let number = run.number;
        if !hangs {
            run.told_hung.remove(&stream);
            return;
        }
        let operation = "an operation of the simulation".to_owned();
        self.deliver(Event::FileHung { stream, place: directory.clone(), operation });
        self.later(LOOK_US, Happening::TellHung { run: number, stream, directory });
    }
}
