//! Shared by tests of the agent against an Engine: its config, containers that print numbered lines, and the comparison
//! with the output of `docker logs`.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::agent::{Agent, Held, Home, assert_same_lines};
use crate::engine::{Engine, RunSpec};
use crate::wait::{PATIENCE, wait_until};

/// How the agent reads.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// `auto`, `file` or `api`.
    pub from: &'static str,
    /// Rotation interval of api streams, as in the config.
    pub rotation: &'static str,
    /// `read_timeout`.
    pub timeout: &'static str,
}

impl Reading {
    /// From files.
    pub const FILE: Reading = Reading { from: "file", rotation: "1h", timeout: "1s" };
    /// Over the API, rotating every second.
    pub const API: Reading = Reading { from: "api", rotation: "1s", timeout: "1s" };
}

/// A config for an Engine.
pub fn config(home: &Home, engine: &Engine, reading: Reading) -> String {
    let Reading { from, rotation, timeout } = reading;
    home.config(&format!(
        "container_monitor:\n  socket_path: unix://{}\n  read_from: {from}\n  read_timeout: {timeout}\n  reconnect_interval: 1s\n  \
         stream_rotation: {{interval: {rotation}, idle_interval: {rotation}, pause_between_rotations: 10ms}}\n",
        engine.socket().display()
    ))
}

/// A script that prints numbered lines on both channels, in bursts with a pause after each.
pub fn numbered(lines: u32, bursts: u32) -> String {
    let per_burst = lines / bursts;
    // seq and sed, not a loop of echo: the test is of the agent, not of busybox.
    format!(
        "a=1; while [ $a -le {lines} ]; do z=$((a+{per_burst}-1)); \
         seq $a $z | sed 's/^/out line /' & seq $a $z | sed 's/^/err line /' >&2; wait; a=$((z+1)); sleep 0.5; done"
    )
}

/// Starts containers that run [`numbered`]; returns their names.
pub fn run_numbered(engine: &Engine, count: usize, lines: u32, bursts: u32) -> Result<Vec<String>> {
    let names: Vec<String> = (0..count).map(|number| format!("numbered-{number}")).collect();
    for name in &names {
        engine.run(&RunSpec::sh(&numbered(lines, bursts)).name(name))?;
    }
    Ok(names)
}

/// Waits until each container's output is as long as what `docker logs` prints, then compares byte for byte.
pub fn assert_equal_to_docker_logs(home: &Home, engine: &Engine, names: &[String]) -> Result<()> {
    for name in names {
        let logs = engine.logs(name)?;
        assert_printed(home, name, &logs.stdout, &logs.stderr)?;
    }
    Ok(())
}

/// Waits until a container's output is as long as expected, then compares byte for byte.
pub fn assert_printed(home: &Home, name: &str, stdout: &[u8], stderr: &[u8]) -> Result<()> {
    // Not a failure yet if it never comes: the comparison says which lines are missing.
    let lines = |text: &[u8]| text.iter().filter(|byte| **byte == b'\n').count();
    let expected = lines(stdout) + lines(stderr);
    let _ = wait_until(&format!("all lines of {name}"), PATIENCE, || {
        let got = home.count_of(name);
        ensure!(got >= expected, "{got} of {expected} lines");
        Ok(())
    });
    let (out, err) = home.printed(name)?;
    assert_same_lines(&format!("{name} stdout"), &out, stdout);
    assert_same_lines(&format!("{name} stderr"), &err, stderr);
    Ok(())
}

/// A script that prints a line after every `pause`, as `sleep` takes it; none between SIGUSR1 and SIGUSR2.
pub fn ticking(pause: &str) -> String {
    format!(
        "ticks=y; trap 'ticks=; echo hush' USR1; trap 'ticks=y' USR2; \
         while sleep {pause}; do [ $ticks ] && echo tick; done"
    )
}

/// Waits until each of so many streams was rotated at least so often.
pub fn rotated(agent: &Agent, streams: usize, rotations: u64) -> Result<()> {
    wait_until("all streams to be rotated", PATIENCE, || {
        let rows = agent.streams()?;
        let rotated = rows.iter().filter(|row| row["rotations"].as_u64() >= Some(rotations)).count();
        ensure!(rows.len() == streams && rotated == streams, "{rotated} of {} streams", rows.len());
        Ok(())
    })
}

/// The agent's resources while the streams of these containers, which run [`ticking`], all wait in a read, and there
/// are no others.
///
/// They are silent meanwhile: after each growth of a log inotify is not read for some milliseconds, and with many
/// containers that print, it is chance whether that read is among the operations.
pub fn held_at_rest(agent: &Agent, home: &Home, engine: &Engine, containers: &[String]) -> Result<Held> {
    signal(engine, containers, "USR1")?;
    wait_until("all containers to be silent", PATIENCE, || {
        let last = |name: &String| fs::read(home.output_of(name)).unwrap_or_default();
        let loud = containers.iter().filter(|name| !last(name).ends_with(b"\"message\":\"hush\"}\n")).count();
        ensure!(loud == 0, "{loud} still print");
        Ok(())
    })?;
    let held = held_by_resting(agent, containers.len())?;
    signal(engine, containers, "USR2")?;
    Ok(held)
}

/// What is held while so many api streams all wait in a read and nothing else is under way: no list, no ping, no checkpoint
/// being saved, which are chance.
pub fn held_by_resting(agent: &Agent, streams: usize) -> Result<Held> {
    // A read and its timer for each stream, for the Engine's events and for inotify.
    let expected = 2 * (streams as u64 + 2);
    wait_until("all streams to rest in a read", PATIENCE, || {
        let held = agent.held()?;
        let page: Value = serde_json::from_str(&agent.get("/api/v1/streams")?)?;
        let rows = page["streams"].as_array().context("no streams")?;
        let resting = rows.iter().filter(|row| row["operation"] == "read of a connection").count();
        ensure!(rows.len() == streams && resting == rows.len(), "{} streams, {resting} rest", rows.len());
        let operations = page["operations"].as_u64().context("no operations")?;
        ensure!(operations == expected, "{operations} operations, {expected} are right");
        ensure!(!agent.is_saving()?, "a checkpoint is being saved");
        ensure!(agent.held()? == held, "in motion");
        Ok(held)
    })
}

fn signal(engine: &Engine, containers: &[String], signal: &str) -> Result<()> {
    let option = format!("--signal={signal}");
    let mut words = vec!["kill", &option];
    words.extend(containers.iter().map(String::as_str));
    engine.docker(&words).map(drop)
}

/// Makes tests of one version: for what does not depend on it. What dockerd writes to disk is the same in both, and that its
/// containers and their logs are found on both is shown by engine.rs and capture_life.rs.
#[macro_export]
macro_rules! one_engine {
    ($version:ident: $($name:ident => $test:expr;)*) => {$(
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            #[test]
            fn one_engine() -> anyhow::Result<()> {
                $test($crate::engine::EngineVersion::$version)
            }
        }
    )*};
}

/// Makes a test of each version: `both!(name, |version| …)` gives `name_20_10` and `name_28_5`.
#[macro_export]
macro_rules! both_engines {
    ($($name:ident => $test:expr;)*) => {$(
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            #[test]
            fn engine_20_10() -> anyhow::Result<()> {
                $test($crate::engine::EngineVersion::V20_10)
            }

            #[test]
            fn engine_28_5() -> anyhow::Result<()> {
                $test($crate::engine::EngineVersion::V28_5)
            }
        }
    )*};
}
