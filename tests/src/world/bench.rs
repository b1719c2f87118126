//! The simulated shell without an agent: orders come from a test, events go back to it.

use std::sync::Arc;
use std::time::Duration;

use capturer::capture::Capture;
use capturer::capture::io::{Action, BodyOutcome, Event};
use capturer::metrics::Metrics;

use super::World;
use super::engine::Health;
use super::faults::Faults;
use super::shell::Run;
use crate::bench::{Bench, Deed};
use crate::checker::Flow;

/// Happenings without an event after which none will come.
const QUIET: usize = 10_000;

/// See the module's head.
pub struct SimBench {
    world: World,
}

impl SimBench {
    /// Every read gets this time-out. Timers race with data as often as `races` in a thousand.
    pub fn new(seed: u64, read_timeout: Duration, races: u64) -> SimBench {
        let mut world = World::new(seed);
        world.queue.clear();
        world.containers.clear();
        world.paths.clear();
        world.faults = Faults { timer_races: races, splits: true, ..Faults::default() };
        let mut settings = (*world.settings).clone();
        settings.container_monitor.read_timeout = read_timeout;
        world.settings = Arc::new(settings);
        let metrics = Arc::new(Metrics::new(1).expect("the metrics are fixed"));
        let settings = Arc::clone(&world.settings);
        let capture = Capture::new(settings, Arc::clone(&metrics), Vec::new(), Default::default(), seed);
        let flow = Flow::new(world.settings.buffer_bytes_max, 0);
        world.run = Some(Run::new(1, capture, metrics, flow));
        world.bench_events = Some(Default::default());
        SimBench { world }
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

    async fn event(&mut self) -> Option<Event> {
        for _ in 0..QUIET {
            let waiting = self.world.bench_events.as_mut()?;
            if let Some(event) = waiting.pop_front() {
                return Some(event);
            }
            let (&(at, _), _) = self.world.queue.first_key_value()?;
            self.world.run_until(at);
        }
        None
    }
}
