//! Containers born, stopped, restarted, paused, renamed and removed while the agent runs; and a thousand quiet ones.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use capturer_tests::agent::Home;
use capturer_tests::both_engines;
use capturer_tests::engine::{Engine, EngineVersion, RunSpec};
use capturer_tests::scene::{Reading, assert_printed, config};
use capturer_tests::wait::wait_until;

both_engines! {
    a_life_by_file => |version| a_life(version, Reading::FILE);
    a_life_by_api => |version| a_life(version, Reading::API);
    three_hundred_short_lives => short_lives;
    begun_at_the_end_by_file => |version| begun_at_the_end(version, Reading::FILE);
    begun_at_the_end_by_api => |version| begun_at_the_end(version, Reading::API);
    milliseconds_by_file_are_accounted_for => |version| milliseconds(version, Reading::FILE);
    milliseconds_by_api_are_accounted_for => |version| milliseconds(version, Reading::API);
}

fn count(home: &Home, name: &str, expected: usize) -> Result<()> {
    wait_until(&format!("{expected} lines of {name}"), Duration::from_secs(30), || {
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
    // Silence that is not an end.
    engine.docker(&["pause", "life"])?;
    engine.docker(&["unpause", "life"])?;
    // Renamed: new lines go under the new name.
    engine.docker(&["rename", "life", "afterlife"])?;
    wait_until("the new name", Duration::from_secs(30), || {
        let streams = agent.streams()?;
        ensure!(streams.iter().any(|row| row["name"] == "afterlife"), "{streams:?}");
        Ok(())
    })?;
    engine.docker(&["kill", "--signal=TERM", "afterlife"])?;
    count(&home, "afterlife", 1)?;
    assert_printed(&home, "life", b"up\ndown\nup\ndown\nup\n", b"")?;
    // Removed: its stream goes, with its positions and series.
    engine.rm("afterlife")?;
    wait_until("the stream to be forgotten", Duration::from_secs(30), || {
        let streams = agent.streams()?;
        ensure!(streams.is_empty(), "{streams:?}");
        Ok(())
    })?;
    // Created before it runs, and run twice.
    engine.docker(&["create", "--network=none", "--name=late", "capturer-test", "echo", "late"])?;
    for runs in 1..=2 {
        engine.docker(&["start", "late"])?;
        count(&home, "late", runs)?;
    }
    agent.stop()
}

/// Removed the moment they end: their logs exist for some hundred milliseconds.
fn short_lives(version: EngineVersion) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let agent = home.start(&config(&home, &engine, Reading::FILE))?;
    for number in 0..300 {
        engine.run(&RunSpec::sh("echo one; echo two; sleep 0.3").name(&format!("short-{number}")).rm())?;
    }
    wait_until("two lines of each of 300 containers", Duration::from_secs(60), || {
        let complete = (0..300).filter(|number| home.count_of(&format!("short-{number}")) == 2).count();
        ensure!(complete == 300, "{complete} are complete");
        Ok(())
    })?;
    wait_until("all streams to be forgotten", Duration::from_secs(60), || {
        let streams = agent.streams()?;
        ensure!(streams.is_empty(), "{} are left", streams.len());
        Ok(())
    })?;
    agent.stop()
}

/// 1,000 quiet json-files: no polling, little memory.
#[test]
fn a_thousand_quiet_files_cost_nothing() -> Result<()> {
    let home = Home::new()?;
    for number in 0..1000 {
        let dir = home.path().join(format!("containers/{number}"));
        fs::create_dir_all(&dir)?;
        let line = format!(
            "{{\"log\":\"only line {number}\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-22T00:52:48.162820305Z\"}}\n"
        );
        fs::write(dir.join("c-json.log"), line)?;
    }
    let pattern = home.path().join("containers/*/c-json.log");
    let config = home
        .config(&format!(
            "container_monitor: {{enabled: false}}\nfile_monitor:\n  files: [{{paths: [\"{}\"], format: docker}}]\n",
            pattern.display()
        ))
        .replace("{container_name}", "all");
    let agent = home.start(&config)?;
    wait_until("a line of each file", Duration::from_secs(60), || {
        let got = home.count_of("all");
        ensure!(got == 1000, "{got} of 1000");
        Ok(())
    })?;
    // Measured from outside: a question to the agent would cost more than it uses by itself.
    let (cpu, began) = (agent.cpu_seconds()?, Instant::now());
    wait_until("30 quiet seconds", Duration::from_secs(90), || began.elapsed() >= Duration::from_secs(30))?;
    let share = (agent.cpu_seconds()? - cpu) / began.elapsed().as_secs_f64();
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid()))?;
    let rss =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default().trim().to_owned();
    println!("1000 quiet files: {:.2} % of a core, RSS {rss}", share * 100.0);
    let kib: u64 = rss.split(' ').next().unwrap_or_default().parse()?;
    ensure!(kib < 40 * 1024, "RSS {rss}");
    ensure!(share < 0.005, "{:.2} % of a core", share * 100.0);
    agent.stop()
}

/// `start_at: end` begins with what comes now; what starts later is new, and after a restart positions win.
fn begun_at_the_end(version: EngineVersion, reading: Reading) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let old = "seq 500; trap 'echo new' USR1; trap 'echo newer' USR2; echo up; while :; do sleep 0.1; done";
    let id = engine.run(&RunSpec::sh(old).name("old"))?;
    wait_until("the old lines", Duration::from_secs(30), || {
        let printed = engine.logs("old")?.stdout;
        ensure!(printed.ends_with(b"up\n"), "{} bytes", printed.len());
        Ok(())
    })?;
    let config = config(&home, &engine, reading);
    let config = config.replace("container_monitor:\n", "container_monitor:\n  start_at: end\n");
    let agent = home.start(&config)?;
    wait_until("it to be followed", Duration::from_secs(30), || {
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
        engine.run(&RunSpec::command(&["echo", "only"]).name(&name).rm())?;
        names.push(name);
    }
    let mut declared = 0;
    wait_until("each to be accounted for", Duration::from_secs(60), || {
        let delivered = names.iter().filter(|name| home.count_of(name) == 1).count();
        declared = agent.metric("losses_total{reason=\"container_gone_unread\"}")? as usize;
        ensure!(delivered + declared == COUNT, "{delivered} delivered, {declared} declared");
        Ok(())
    })?;
    println!("{} by {}: {declared} of {COUNT} were missed", version.label(), reading.from);
    if declared > 0 {
        wait_until("health to name them", Duration::from_secs(30), || {
            let (status, health) = agent.ask("/health")?;
            ensure!(status == 503 && health.contains("container brief-"), "{health}");
            Ok(())
        })?;
    }
    agent.stop()
}
