//! The agent against real Docker Engines, both versions: the output has what containers print.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use capturer_tests::agent::{Agent, Home};
use capturer_tests::engine::{Engine, EngineVersion, RunSpec};
use capturer_tests::scene::{
    Reading, assert_equal_to_docker_logs, config, held_by_resting, numbered, rotated, run_numbered,
};
use capturer_tests::wait::{PATIENCE, wait_until};
use capturer_tests::{both_engines, one_engine};

both_engines! {
    files => |version| captures_everything(version, Reading::FILE);
    api_with_rotation_every_second => |version| captures_everything(version, Reading::API);
    sigterm_and_restart_api => |version| stops_and_starts(version, Reading::API);
    idle_reads_end_by_their_timer => idle_reads;
}

one_engine! { V28_5:
    sigterm_and_restart_files => |version| stops_and_starts(version, Reading::FILE);
}

fn captures_everything(version: EngineVersion, reading: Reading) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let agent = home.start(&config(&home, &engine, reading))?;
    let shared = home.path().join("shared");
    fs::create_dir(&shared)?;
    let mount = format!("--volume={}:/shared:ro", shared.display());
    let script = numbered(5_000, 5) + "; until [ -e /shared/end ]; do sleep 0.05; done; echo the end";
    let names: Vec<String> = (0..10).map(|number| format!("numbered-{number}")).collect();
    for name in &names {
        engine.run(&RunSpec::sh(&script).name(name).argument(&mount))?;
    }
    if reading.from == "api" {
        // Without rotations the test would prove nothing about them.
        rotated(&agent, 10, 2)?;
    }
    fs::write(shared.join("end"), "")?;
    for name in &names {
        engine.wait(name)?;
    }
    assert_equal_to_docker_logs(&home, &engine, &names)?;
    let modes: Vec<_> = agent.streams()?.iter().map(|row| row["mode"].clone()).collect();
    ensure!(modes.len() == 10 && modes.iter().all(|mode| mode == reading.from), "modes: {modes:?}");
    agent.stop()
}

/// SIGTERM in mid-stream and a new start, several times: a position saved too early loses lines, one saved too late
/// repeats them.
fn stops_and_starts(version: EngineVersion, reading: Reading) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let config = config(&home, &engine, reading);
    let agent = home.start(&config)?;
    // Half a minute of output: on a busy machine each of the rounds takes some seconds, and needs some to come.
    let names = run_numbered(&engine, 5, 10_000, 50)?;
    let mut agent = Some(agent);
    for round in 1..=4 {
        let before = home.output_bytes();
        wait_until("more output", PATIENCE, || home.output_bytes() > before + 20_000)?;
        agent.take().context("no agent")?.stop().with_context(|| format!("round {round}"))?;
        agent = Some(home.start(&config)?);
    }
    for name in &names {
        engine.wait(name)?;
    }
    assert_equal_to_docker_logs(&home, &engine, &names)?;
    agent.context("no agent")?.stop()
}

fn timeouts(agent: &Agent) -> Result<u64> {
    Ok(agent.streams()?.iter().filter_map(|row| row["read_timeouts"].as_u64()).min().unwrap_or(0))
}

/// The predecessor's bug: an idle container's read blocked for ever, and each rotation left one behind.
fn idle_reads(version: EngineVersion) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let agent = home.start(&config(&home, &engine, Reading { rotation: "1h", ..Reading::API }))?;
    for number in 0..5 {
        engine.run(&RunSpec::sh("echo hello; exec sleep 600").name(&format!("idle-{number}")))?;
    }
    wait_until("five streams that wait for a line", PATIENCE, || {
        let streams = agent.streams()?;
        let following = streams.iter().filter(|row| row["state"] == "following" && row["lines"] == 1).count();
        ensure!(following == 5, "{following} of 5 follow: {streams:?}");
        ensure!(timeouts(&agent)? >= 1, "no timer has ended a read yet");
        Ok(())
    })?;
    let (held, seen) = (held_by_resting(&agent, 5)?, timeouts(&agent)?);
    wait_until("ten more reads of each stream to end by their timer", PATIENCE, || {
        let now = timeouts(&agent)?;
        ensure!(now >= seen + 10, "{now} since the start, {seen} before");
        Ok(())
    })?;
    // A leak would not disappear; a list of the containers that is just being made does.
    wait_until("what is held to be what was held", PATIENCE, || {
        let now = held_by_resting(&agent, 5)?;
        ensure!(now == held, "{now:?}, and {held:?} before; {}", agent.fds()?["owners"]);
        Ok(())
    })?;
    agent.stop()
}
