//! Containers born, stopped, restarted, paused, renamed and removed while the agent runs.

use std::fs;

use anyhow::{Result, ensure};
use capturer_tests::agent::Home;
use capturer_tests::amount::number;
use capturer_tests::engine::{Engine, EngineVersion, RunSpec};
use capturer_tests::gate::Door;
use capturer_tests::scene::{Reading, assert_printed, config};
use capturer_tests::wait::{PATIENCE, wait_until};
use capturer_tests::{both_engines, one_engine};

both_engines! {
    a_life_by_file => |version| a_life(version, Reading::FILE);
    a_life_by_api => |version| a_life(version, Reading::API);
}

one_engine! { V28_5:
    short_lives => short_lives;
    begun_at_the_end_by_file => |version| begun_at_the_end(version, Reading::FILE);
    begun_at_the_end_by_api => |version| begun_at_the_end(version, Reading::API);
    milliseconds_by_file_are_accounted_for => |version| milliseconds(version, Reading::FILE);
    milliseconds_by_api_are_accounted_for => |version| milliseconds(version, Reading::API);
}

/// Containers that live at the same time.
const BATCH: usize = 20;

fn count(home: &Home, name: &str, expected: usize) -> Result<()> {
    wait_until(&format!("{expected} lines of {name}"), PATIENCE, || {
        let got = home.count_of(name);
        ensure!(got == expected, "{got}");
        Ok(())
    })
}

fn a_life(version: EngineVersion, reading: Reading) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let agent = home.start(&config(&home, &engine, reading))?;
    // Stopped, started again, killed.
    engine.run(
        &RunSpec::sh("echo up; trap 'echo down; exit 0' TERM; while :; do sleep 0.1; done").name("life"),
    )?;
    count(&home, "life", 1)?;
    engine.docker(&["stop", "life"])?;
    count(&home, "life", 2)?;
    engine.docker(&["start", "life"])?;
    count(&home, "life", 3)?;
    engine.docker(&["restart", "life"])?;
    count(&home, "life", 5)?;
    // Silence that is not the end.
    engine.pause("life")?;
    engine.docker(&["unpause", "life"])?;
    // Renamed: new lines go under the new name.
    engine.docker(&["rename", "life", "afterlife"])?;
    wait_until("the new name", PATIENCE, || {
        let streams = agent.streams()?;
        ensure!(streams.iter().any(|row| row["name"] == "afterlife"), "{streams:?}");
        Ok(())
    })?;
    engine.docker(&["kill", "--signal=TERM", "afterlife"])?;
    count(&home, "afterlife", 1)?;
    assert_printed(&home, "life", b"up\ndown\nup\ndown\nup\n", b"")?;
    // Removed: its stream goes, with its positions and series.
    engine.rm("afterlife")?;
    wait_until("the stream to be forgotten", PATIENCE, || {
        let streams = agent.streams()?;
        ensure!(streams.is_empty(), "{streams:?}");
        Ok(())
    })?;
    // Created before it runs, and run twice.
    engine.docker(&["create", "--network=none", "--name=late", "capturer-test", "echo", "late"])?;
    for runs in 1..=2 {
        engine.docker(&["start", "late"])?;
        count(&home, "late", runs)?;
        // Its line may come before dockerd knows that it exited. A start then does nothing, and succeeds.
        engine.wait("late")?;
    }
    agent.stop()
}

/// Removed as soon as they have printed: their logs then exist for some milliseconds, as files that only the agent has
/// open. They print once the agent has their file open; on a busy machine it might otherwise be removed before.
/// `CAPTURER_SHORT_LIVES=300` is for a long run.
fn short_lives(version: EngineVersion) -> Result<()> {
    let batches = number("CAPTURER_SHORT_LIVES", 120)? as usize / BATCH;
    let count = batches * BATCH;
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let agent = home.start(&config(&home, &engine, Reading::FILE))?;
    let shared = home.path().join("shared");
    fs::create_dir(&shared)?;
    let mount = format!("--volume={}:/shared:ro", shared.display());
    for batch in 0..batches {
        let mut door = Door::new(shared.join(batch.to_string()))?;
        let script = format!(": < /shared/{batch}; echo one; echo two");
        for number in batch * BATCH..(batch + 1) * BATCH {
            let name = format!("short-{number}");
            engine.run(&RunSpec::sh(&script).name(&name).argument(&mount).rm())?;
        }
        wait_until("the agent to follow the batch", PATIENCE, || {
            let rows = agent.streams()?;
            let follow = rows.iter().filter(|row| row["state"] == "following").count();
            ensure!(follow >= BATCH, "{follow} of {BATCH} follow");
            Ok(())
        })?;
        door.open()?;
        wait_until("the batch to be forgotten", PATIENCE, || {
            let left = agent.streams()?.len();
            ensure!(left == 0, "{left} are left");
            Ok(())
        })?;
    }
    wait_until("two lines of each container", PATIENCE, || {
        let complete = (0..count).filter(|number| home.count_of(&format!("short-{number}")) == 2).count();
        ensure!(complete == count, "{complete} of {count} are complete");
        Ok(())
    })?;
    agent.stop()
}

/// `start_at: end` begins with lines printed from now on; containers started later are read whole, and after a restart
/// positions take precedence.
fn begun_at_the_end(version: EngineVersion, reading: Reading) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let old = "seq 500; trap 'echo new' USR1; trap 'echo newer' USR2; echo up; while :; do sleep 0.1; done";
    let id = engine.run(&RunSpec::sh(old).name("old"))?;
    wait_until("the old lines", PATIENCE, || {
        let printed = engine.logs("old")?.stdout;
        ensure!(printed.ends_with(b"up\n"), "{} bytes", printed.len());
        Ok(())
    })?;
    let config = config(&home, &engine, reading);
    let config = config.replace("container_monitor:\n", "container_monitor:\n  start_at: end\n");
    let agent = home.start(&config)?;
    wait_until("it to be followed", PATIENCE, || {
        let streams = agent.streams()?;
        ensure!(streams.iter().any(|row| row["state"] == "following"), "{streams:?}");
        Ok(())
    })?;
    engine.docker(&["kill", "--signal=USR1", id.trim()])?;
    engine.run(&RunSpec::sh("echo one; echo two; sleep 60").name("young"))?;
    assert_printed(&home, "old", b"new\n", b"")?;
    assert_printed(&home, "young", b"one\ntwo\n", b"")?;
    agent.stop()?;
    engine.docker(&["kill", "--signal=USR2", id.trim()])?;
    let agent = home.start(&config)?;
    assert_printed(&home, "old", b"new\nnewer\n", b"")?;
    agent.stop()
}

/// Containers that live for milliseconds: each line is there, or its loss is declared with the container's name.
fn milliseconds(version: EngineVersion, reading: Reading) -> Result<()> {
    const COUNT: usize = 30;
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let agent = home.start(&config(&home, &engine, reading))?;
    let mut names = Vec::new();
    for number in 0..COUNT {
        let name = format!("brief-{number}");
        let id = engine.run(&RunSpec::command(&["echo", "only"]).name(&name).rm())?;
        names.push((name, id));
    }
    let mut declared = 0;
    let mut missing = Vec::new();
    let accounted = wait_until("each to be accounted for", PATIENCE, || {
        missing = names.iter().filter(|(name, _)| home.count_of(name) != 1).collect();
        // Which of the two depends on what the agent saw first: that the file is gone, or that the container is.
        let of = |reason: &str| agent.metric(&format!("losses_total{{reason=\"{reason}\"}}"));
        declared = (of("container_gone_unread")? + of("file_gone_unread")?) as usize;
        let named: Vec<_> = missing.iter().map(|(name, _)| name).collect();
        ensure!(missing.len() == declared, "{declared} declared, {named:?} not delivered once");
        Ok(())
    });
    if accounted.is_err() {
        let log = agent.log_text()?;
        for (name, id) in &missing {
            let of_it =
                |line: &&str| line.contains(id.trim()) || line.contains(&format!("container {name} "));
            println!(
                "--- {name}, {}\n{}",
                id.trim(),
                log.lines().filter(of_it).collect::<Vec<_>>().join("\n")
            );
        }
    }
    accounted?;
    println!("{} by {}: {declared} of {COUNT} were missed", version.label(), reading.from);
    if declared > 0 {
        wait_until("health to name them", PATIENCE, || {
            let (status, health) = agent.ask("/health")?;
            ensure!(status == 503 && health.contains("container brief-"), "{health}");
            Ok(())
        })?;
    }
    agent.stop()
}
