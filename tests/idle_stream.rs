//! The idle stream: a silent container keeps rotating, its connection never gets old, and its lines after a long
//! silence arrive at once. In the predecessor an idle container's read could not be ended, so it never rotated.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use capturer_tests::agent::Home;
use capturer_tests::both_engines;
use capturer_tests::engine::{Engine, EngineVersion, RunSpec};
use capturer_tests::lateness::Lateness;
use capturer_tests::wait::{PATIENCE, wait_until};

both_engines! {
    an_idle_stream_keeps_rotating => keeps_rotating;
}

/// Rotations of silence. At the default interval they would take five hours.
const ROTATIONS: u64 = 20;
const INTERVAL_MS: u64 = 200;
const IDLE_INTERVAL_MS: u64 = 1_000;
/// A tenth more, and a rotation's own time, on an idle machine.
const AGE_MAX: Duration = Duration::from_millis(IDLE_INTERVAL_MS + IDLE_INTERVAL_MS / 10 + 200);
/// "At once", on an idle machine: the container looks for its cue 20 times a second, and a rotation may be under way.
const ARRIVAL_MAX: Duration = Duration::from_secs(2);

fn keeps_rotating(version: EngineVersion) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let agent = home.start(&home.config(&format!(
        "container_monitor:\n  socket_path: unix://{}\n  read_from: api\n  read_timeout: 300ms\n  \
         stream_rotation: {{interval: {INTERVAL_MS}ms, idle_interval: {IDLE_INTERVAL_MS}ms}}\n",
        engine.socket().display()
    )))?;
    let shared = home.path().join("shared");
    fs::create_dir(&shared)?;
    let script = "echo first; while [ ! -e /shared/cue ]; do sleep 0.05; done; echo second; \
                  while [ ! -e /shared/end ]; do sleep 0.05; done";
    let mount = format!("--volume={}:/shared:ro", shared.display());
    engine.run(&RunSpec::sh(script).name("silent").argument(&mount))?;
    wait_until("the first line", PATIENCE, || home.count_of("silent") == 1)?;

    let row = || Ok::<_, anyhow::Error>(agent.streams()?.first().context("no stream")?.clone());
    let begun = row()?["rotations"].as_u64().unwrap_or(0);
    let lateness = Lateness::watch();
    let (mut age_ms_max, mut timeouts, started) = (0, 0, Instant::now());
    wait_until("many rotations in silence", PATIENCE, || {
        let row = row()?;
        age_ms_max = age_ms_max.max(row["age_ms"].as_u64().unwrap_or(0));
        timeouts = row["read_timeouts"].as_u64().unwrap_or(0);
        let rotations = row["rotations"].as_u64().unwrap_or(0) - begun;
        ensure!(rotations >= ROTATIONS, "{rotations} so far");
        Ok(())
    })?;
    let took = started.elapsed();
    println!(
        "{ROTATIONS} rotations of a silent container in {:.1} s, none older than {age_ms_max} ms; {timeouts} reads ended by their timer",
        took.as_secs_f64()
    );
    let age_max = lateness.allow(AGE_MAX);
    ensure!(
        Duration::from_millis(age_ms_max) <= age_max,
        "a connection was {age_ms_max} ms old; {age_max:?} are allowed"
    );
    // It is known to be idle: rotated at the longer interval, not at the shorter.
    ensure!(age_ms_max > 2 * INTERVAL_MS, "an idle container was rotated like a busy one: {age_ms_max} ms");
    ensure!(timeouts >= ROTATIONS, "only {timeouts} reads ended by their timer");

    let cue = Instant::now();
    fs::write(shared.join("cue"), "")?;
    wait_until("the second line", PATIENCE, || home.count_of("silent") == 2)?;
    let arrival = cue.elapsed();
    println!("a line after the silence arrived within {} ms", arrival.as_millis());
    ensure!(arrival <= lateness.allow(ARRIVAL_MAX), "it took {arrival:?}");
    fs::write(shared.join("end"), "")?;
    engine.wait("silent")?;
    ensure!(home.printed("silent")?.0 == b"first\nsecond\n", "{:?}", home.records_of("silent")?);
    agent.stop()
}
