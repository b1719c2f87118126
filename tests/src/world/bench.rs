//! The simulated shell without an agent: orders come from a test, events go back to it.

use std::sync::Arc;
use std::time::Duration;

use capturer::testing::{Action, BodyOutcome, Capture, Event, Metrics};

use super::engine::Health;
use super::faults::Faults;
use super::lanes::Lanes;
use super::shell::{Change, Run};
use super::{Disk, World};
use crate::bench::{Bench, Deed, DiskDeed, LIVE_NAME};
use crate::checker::Flow;

/// Happenings without an event after which none will come.
const QUIET: usize = 10_000;

/// Where the log is.
const DIRECTORY: &str = "/docker/log";

/// The bench; see the head of this file.
pub struct SimBench {
    world: World,
    siblings: u32,
}

impl SimBench {
    /// Every read gets this time-out. Timers race with data as often as `races` in a thousand, and as often a file gives
    /// less than there is.
    pub fn new(seed: u64, read_timeout: Duration, races: u64) -> SimBench {
        let mut world = World::new(seed);
        world.queue.clear();
        world.containers.clear();
        world.paths.clear();
        world.faults = Faults { timer_races: races, short_reads: races, splits: true, ..Faults::default() };
        // No file system hangs, and inotify works.
        (world.lanes, world.engine.no_inotify) = (Lanes::default(), false);
        let no_birth_times = world.disk.no_birth_times;
        (world.disk, world.disk.no_birth_times) = (Disk::default(), no_birth_times);
        world.disk.make_directory(DIRECTORY);
        let mut settings = (*world.settings).clone();
        settings.container_monitor.read_timeout = read_timeout;
        world.settings = Arc::new(settings);
        let metrics = Arc::new(Metrics::new(1).expect("the metrics are fixed"));
        let settings = Arc::clone(&world.settings);
        let capture = Capture::new(settings, Arc::clone(&metrics), Vec::new(), Default::default(), seed);
        let flow = Flow::new(world.settings.buffer_bytes_max, 0);
        world.run = Some(Run::new(1, capture, metrics, flow));
        world.bench_events = Some(Default::default());
        SimBench { world, siblings: 0 }
    }

    fn log_file(rank: u32) -> String {
        let number = if rank == 0 { String::new() } else { format!(".{rank}") };
        format!("{DIRECTORY}/{LIVE_NAME}{number}")
    }

    fn remove(&mut self, path: &str) {
        self.world.disk.unlink(path);
        self.world.notify(path, Change::Gone);
    }
}

impl Bench for SimBench {
    fn order(&mut self, action: Action) {
        self.world.carry_out(action);
    }

    fn peer(&mut self, deed: Deed) {
        match deed {
            Deed::Send(bytes) => self.world.send_on_all(&bytes),
            Deed::End => self.world.end_conns(|_| true, &BodyOutcome::End),
            Deed::Break => {
                let broken = BodyOutcome::Broken("connection reset".to_owned());
                self.world.end_conns(|_| true, &broken);
            }
            Deed::Freeze => self.world.set_for_good(Health::Frozen(u64::MAX)),
            Deed::Die => self.world.set_for_good(Health::Down),
        }
    }

    fn disk(&mut self, deed: DiskDeed) {
        let now_ns = self.world.now_ns();
        match deed {
            DiskDeed::Append(rank, bytes) => {
                let path = Self::log_file(rank);
                let node = self.world.disk.node(&path).unwrap_or_else(|| {
                    let node = self.world.disk.create(&path, now_ns);
                    self.world.notify(&path, Change::Made);
                    node
                });
                self.world.disk.file_mut(node).content.extend_from_slice(&bytes);
                self.world.notify(&path, Change::Written);
            }
            DiskDeed::Rotate => {
                for rank in (0..=self.siblings).rev() {
                    let (from, to) = (Self::log_file(rank), Self::log_file(rank + 1));
                    self.world.disk.rename(&from, &to);
                    self.world.notify(&from, Change::Gone);
                    self.world.notify(&to, Change::Made);
                }
                self.siblings += 1;
                self.world.disk.create(&Self::log_file(0), now_ns);
                self.world.notify(&Self::log_file(0), Change::Made);
            }
            DiskDeed::Pack(rank) => {
                let (path, archive) = (Self::log_file(rank), Self::log_file(rank) + ".gz");
                let node = self.world.disk.node(&path).expect("a file of the chain");
                self.world.disk.create_archive(node, &archive, now_ns);
                self.world.notify(&archive, Change::Made);
                self.remove(&path);
            }
            DiskDeed::Remove(rank) => self.remove(&Self::log_file(rank)),
        }
    }

    fn directory(&self) -> String {
        DIRECTORY.to_owned()
    }

    async fn told(&mut self) -> Option<Event> {
        self.event().await
    }

    async fn event(&mut self) -> Option<Event> {
        for _ in 0..QUIET {
            let waiting = self.world.bench_events.as_mut()?;
            if let Some(event) = waiting.pop_front() {
                // As before the core gets it: what is under way is counted.
                self.world.before_event(&event);
                return Some(event);
            }
            let (&(at, _), _) = self.world.queue.first_key_value()?;
            self.world.run_until(at);
        }
        None
    }
}
