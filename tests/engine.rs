//! The agent against real Docker Engines, both versions: what containers print is what stands in the output.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use capturer_tests::agent::{Agent, Home, assert_same_lines};
use capturer_tests::engine::{Engine, EngineVersion, RunSpec};
use capturer_tests::wait::wait_until;

/// Numbered lines on both channels, in bursts, so that the run lasts longer than a few rotations.
fn numbered(lines: u32, bursts: u32) -> String {
    let per_burst = lines / bursts;
    format!(
        "b=0; i=0; while [ $b -lt {bursts} ]; do b=$((b+1)); n=0; \
         while [ $n -lt {per_burst} ]; do echo out line $i; echo err line $i >&2; i=$((i+1)); n=$((n+1)); done; \
         sleep 0.5; done"
    )
}

fn config(home: &Home, engine: &Engine, read_from: &str, rotation: &str) -> String {
    home.config(&format!(
        "container_monitor:\n  socket_path: unix://{}\n  read_from: {read_from}\n  read_timeout: 1s\n  reconnect_interval: 1s\n  \
         stream_rotation: {{interval: {rotation}, idle_interval: {rotation}, pause_between_rotations: 10ms}}\n",
        engine.socket().display()
    ))
}

/// Waits until the output of each container is as long as what `docker logs` prints, then compares byte for byte.
fn assert_equal_to_docker_logs(home: &Home, engine: &Engine, names: &[String]) -> Result<()> {
    for name in names {
        let logs = engine.logs(name)?;
        // Not a failure yet if it never comes: the comparison says which lines are missing.
        let _ = wait_until(&format!("all lines of {name}"), Duration::from_secs(30), || {
            let (stdout, stderr) = home.printed(name)?;
            let (got, expected) = (stdout.len() + stderr.len(), logs.stdout.len() + logs.stderr.len());
            ensure!(got >= expected, "{got} of {expected} bytes");
            Ok(())
        });
        let (stdout, stderr) = home.printed(name)?;
        assert_same_lines(&format!("{name} stdout"), &stdout, &logs.stdout);
        assert_same_lines(&format!("{name} stderr"), &stderr, &logs.stderr);
    }
    Ok(())
}

fn run_numbered(engine: &Engine, count: usize, lines: u32, bursts: u32) -> Result<Vec<String>> {
    let names: Vec<String> = (0..count).map(|number| format!("numbered-{number}")).collect();
    for name in &names {
        engine.run(&RunSpec::sh(&numbered(lines, bursts)).name(name))?;
    }
    Ok(names)
}

fn captures_everything(version: EngineVersion, read_from: &str) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let agent = home.start(&config(&home, &engine, read_from, "1s"))?;
    let names = run_numbered(&engine, 10, 5_000, 5)?;
    for name in &names {
        engine.wait(name)?;
    }
    assert_equal_to_docker_logs(&home, &engine, &names)?;
    if read_from == "api" {
        // Without rotations the test would show nothing about them.
        let rotations: u64 = agent.streams()?.iter().filter_map(|row| row["rotations"].as_u64()).sum();
        ensure!(rotations >= 10, "only {rotations} rotations");
    }
    let modes: Vec<_> = agent.streams()?.iter().map(|row| row["mode"].clone()).collect();
    ensure!(modes.len() == 10 && modes.iter().all(|mode| mode == read_from), "modes: {modes:?}");
    agent.stop()
}

#[test]
fn files_20_10() -> Result<()> {
    captures_everything(EngineVersion::V20_10, "file")
}

#[test]
fn files_28_5() -> Result<()> {
    captures_everything(EngineVersion::V28_5, "file")
}

#[test]
fn api_with_rotation_every_second_20_10() -> Result<()> {
    captures_everything(EngineVersion::V20_10, "api")
}

#[test]
fn api_with_rotation_every_second_28_5() -> Result<()> {
    captures_everything(EngineVersion::V28_5, "api")
}

/// SIGTERM in mid-stream and a new start, several times: a position that moved too early loses, one that moved too
/// late repeats.
fn stops_and_starts(version: EngineVersion, read_from: &str) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let config = config(&home, &engine, read_from, "1s");
    let agent = home.start(&config)?;
    let names = run_numbered(&engine, 5, 10_000, 10)?;
    let mut agent = Some(agent);
    for round in 1..=4 {
        let before = home.output_bytes();
        wait_until("more output", Duration::from_secs(30), || home.output_bytes() > before + 20_000)?;
        agent.take().context("no agent")?.stop().with_context(|| format!("round {round}"))?;
        agent = Some(home.start(&config)?);
    }
    for name in &names {
        engine.wait(name)?;
    }
    assert_equal_to_docker_logs(&home, &engine, &names)?;
    agent.context("no agent")?.stop()
}

#[test]
fn sigterm_and_restart_files_20_10() -> Result<()> {
    stops_and_starts(EngineVersion::V20_10, "file")
}

#[test]
fn sigterm_and_restart_files_28_5() -> Result<()> {
    stops_and_starts(EngineVersion::V28_5, "file")
}

#[test]
fn sigterm_and_restart_api_20_10() -> Result<()> {
    stops_and_starts(EngineVersion::V20_10, "api")
}

#[test]
fn sigterm_and_restart_api_28_5() -> Result<()> {
    stops_and_starts(EngineVersion::V28_5, "api")
}

fn timeouts(agent: &Agent) -> Result<u64> {
    Ok(agent.streams()?.iter().filter_map(|row| row["read_timeouts"].as_u64()).min().unwrap_or(0))
}

/// The predecessor's fault: an idle container's read blocked for ever, and each rotation left one behind.
fn idle_reads_end_by_their_timer(version: EngineVersion) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let agent = home.start(&config(&home, &engine, "api", "1h"))?;
    for number in 0..5 {
        engine.run(&RunSpec::sh("echo hello; exec sleep 600").name(&format!("idle-{number}")))?;
    }
    wait_until("five streams that wait for a line", Duration::from_secs(30), || {
        let streams = agent.streams()?;
        let following = streams.iter().filter(|row| row["state"] == "following" && row["lines"] == 1).count();
        ensure!(following == 5, "{following} of 5 follow: {streams:?}");
        ensure!(timeouts(&agent)? >= 1, "no timer has ended a read yet");
        Ok(())
    })?;
    let (held, seen) = (agent.held()?, timeouts(&agent)?);
    wait_until("ten more reads of each stream to end by their timer", Duration::from_secs(60), || {
        let now = timeouts(&agent)?;
        ensure!(now >= seen + 10, "{now} since the start, {seen} before");
        Ok(())
    })?;
    assert_eq!(agent.held()?, held, "something grew while nothing happened");
    assert_eq!(
        agent.metric("operations_in_flight")? as u64 % 2,
        0,
        "a read without its timer, or the other way round"
    );
    agent.stop()
}

#[test]
fn idle_reads_end_by_their_timer_20_10() -> Result<()> {
    idle_reads_end_by_their_timer(EngineVersion::V20_10)
}

#[test]
fn idle_reads_end_by_their_timer_28_5() -> Result<()> {
    idle_reads_end_by_their_timer(EngineVersion::V28_5)
}
