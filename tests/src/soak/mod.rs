//! A soak: real containers on a private Engine print for minutes or hours while the release agent captures them, and
//! nothing may grow, be lost or be repeated.
//!
//! ```text
//! Plan ─▶ Engine, agent, containers (crew.rs) ─▶ looks, ten a second (look.rs) ─▶ a Sample every 10 s
//!                                                  └ lines printed and delivered (lines.rs)
//! containers end ─▶ everything must arrive ─▶ Soak with its verdict (verdict.rs) ─▶ table and report (report.rs)
//! ```
//! Growth is judged between moments that can be compared: looks at which every slot's stream waits in a read ("at rest").
//! The median of those in a sample is the sample's number, and it must be the same from the first minute to the last.

mod crew;
mod lines;
mod look;
pub mod report;
mod verdict;

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::agent::Home;
use crate::engine::{Engine, EngineVersion};
use crate::wait::{PATIENCE, wait_until};
use crew::Crew;
pub use lines::Lines;
use look::Looks;
pub use look::{Rest, Sample};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Between two samples.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// Growth in this first period is not judged, as everything starts then.
pub const SETTLE: Duration = Duration::from_secs(60);

/// What is soaked, and for how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The Engine.
    pub engine: EngineVersion,
    /// All containers; those neither idle nor chatty print a line a second.
    pub containers: usize,
    /// Print a line when they start and one when they end.
    pub idle: usize,
    /// Print [`Plan::chatty_rate`].
    pub chatty: usize,
    /// Lines a second of a chatty one, both channels together, as far as the machine keeps up.
    pub chatty_rate: u32,
    /// How long.
    pub length: Duration,
    /// `stream_rotation.interval`, and the idle interval too.
    pub rotation: Duration,
    /// `max_concurrent_streams`.
    pub slots: usize,
    /// `read_from`: `api` or `file`.
    pub read_from: &'static str,
}

impl Plan {
    fn config(&self, home: &Home, engine: &Engine) -> String {
        let (rotation_ms, slots) = (self.rotation.as_millis(), self.slots);
        // All streams one after the other within a tenth of the interval.
        let pause_ms = (rotation_ms / (10 * self.containers.max(1) as u128)).min(100);
        let text = home.config(&format!(
            "container_monitor:\n  socket_path: unix://{}\n  read_from: {}\n  \
             stream_rotation: {{interval: {rotation_ms}ms, idle_interval: {rotation_ms}ms, \
             max_concurrent_streams: {slots}, pause_between_rotations: {pause_ms}ms}}\n",
            engine.socket().display(),
            self.read_from,
        ));
        text.replace("log: {level: debug}", "log: {level: info}")
    }

    /// There are more containers than slots.
    fn shares_slots(&self) -> bool {
        self.containers > self.slots
    }
}

/// The result of a soak.
#[derive(Debug)]
pub struct Soak {
    /// What was soaked.
    pub plan: Plan,
    /// One for every ten seconds.
    pub samples: Vec<Sample>,
    /// Lines of all containers at the end.
    pub lines: Lines,
    /// Rotations of each container, least first.
    pub rotations: Vec<u64>,
    /// No stream was seen to wait longer for a slot.
    pub wait_max: Duration,
    /// What must not be, in sentences; empty = passed.
    pub complaints: Vec<String>,
}

impl Soak {
    /// Streams were older than this at no look.
    pub fn age_max(&self) -> Duration {
        self.samples.iter().map(|sample| sample.age_max).max().unwrap_or_default()
    }

    /// No look was made later than this.
    pub fn late_max(&self) -> Duration {
        self.samples.iter().map(|sample| sample.late_max).max().unwrap_or_default()
    }
}

/// Runs a plan to its end. `told` hears each sample as it is made.
///
/// # Errors
/// What kept it from being run; a bad verdict is none.
pub fn run(plan: Plan, mut told: impl FnMut(&Plan, &Sample)) -> Result<Soak> {
    let engine = Engine::start(plan.engine)?;
    let home = Home::new()?;
    let agent = home.start(&plan.config(&home, &engine))?;
    let mut crew = Crew::start(&plan, &engine, &home)?;
    let started = Instant::now();
    let mut samples: Vec<Sample> = Vec::new();
    let (mut wait_max, mut rotations) = (Duration::ZERO, Vec::new());
    // On a machine that is busy it may take longer until two moments can be compared.
    let goes_on = |samples: &[Sample]| {
        let passed = started.elapsed();
        passed < plan.length || (passed < plan.length + PATIENCE && !verdict::comparable(&plan, samples))
    };
    while goes_on(&samples) {
        let ends = started + SAMPLE_EVERY * (samples.len() as u32 + 1);
        let mut looks = Looks::default();
        let mut next = Instant::now();
        while next < ends {
            wait_until("the next look", PATIENCE, || Instant::now() >= next)?;
            looks.look(next.elapsed(), &plan, &agent, &engine)?;
            next = (next + LOOK_EVERY).max(Instant::now());
        }
        let sample = looks.sample(started.elapsed(), &agent, crew.count()?)?;
        wait_max = wait_max.max(sample.wait_max);
        rotations.clone_from(&sample.rotations);
        told(&plan, &sample);
        samples.push(sample);
    }
    crew.end()?;
    let lines = crew.arrived()?;
    let mut soak = Soak { plan, samples, lines, rotations, wait_max, complaints: Vec::new() };
    soak.complaints = verdict::complaints(&soak);
    // What a stop leaves behind is told in figures at this level only; nothing is interrupted for it.
    home.write_config(
        &soak.plan.config(&home, &engine).replace("log: {level: info}", "log: {level: debug}"),
    )?;
    agent.post("/-/reload")?;
    if let Err(error) = agent.stop() {
        soak.complaints.push(format!("the agent did not stop cleanly: {error:#}"));
    }
    Ok(soak)
}
