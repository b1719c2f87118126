//! Many containers, many resumes: nothing lost, nothing repeated, nothing kept.

use std::fs;
use std::io::Write as _;

use anyhow::{Result, ensure};
use capturer_tests::agent::Home;
use capturer_tests::amount::number;
use capturer_tests::engine::{Engine, EngineVersion, RunSpec};
use capturer_tests::scene::{
    Reading, assert_equal_to_docker_logs, config, held_at_rest, rotated, run_numbered, ticking,
};
use capturer_tests::wait::{PATIENCE, wait_until};
use capturer_tests::{both_engines, one_engine};

both_engines! {
    fifty_containers_by_api => |version| fifty_containers(version, Reading::API);
    resumes_within_open_lines => resumes_within_open_lines;
    a_resume_on_a_large_log_is_cheap => resume_on_a_large_log;
    twenty_rotations_of_fifty_streams_leave_nothing => rotations_leave_nothing;
}

one_engine! { V28_5:
    fifty_containers_by_file => |version| fifty_containers(version, Reading::FILE);
}

/// 50 containers, this many lines on each channel. `CAPTURER_LINES=20000` is for a long run.
fn fifty_containers(version: EngineVersion, reading: Reading) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let agent = home.start(&config(&home, &engine, reading))?;
    let lines = number("CAPTURER_LINES", 4_000)?;
    let names = run_numbered(&engine, 50, lines as u32, 4)?;
    engine.wait_for_all(&names)?;
    assert_equal_to_docker_logs(&home, &engine, &names)?;
    agent.stop()
}

/// Two containers print lines of up to five pieces on both channels without a pause, and the stream is rotated ten
/// times a second: most resumes fall into an open line.
fn resumes_within_open_lines(version: EngineVersion) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let reading = Reading { rotation: "100ms", ..Reading::API };
    let agent = home.start(&config(&home, &engine, reading))?;
    // A long line grows for a while, in portions, with lines of the other channel between them.
    let shared = home.path().join("shared");
    fs::create_dir(&shared)?;
    let mount = format!("--volume={}:/shared:ro", shared.display());
    let script = "i=0; while [ ! -e /shared/end ]; do i=$((i+1)); \
        for part in 1 2 3 4; do head -c 13000 /dev/zero | tr '\\0' a; echo e$i.$part >&2; sleep 0.02; done; echo $i; done";
    let names: Vec<String> = (0..2).map(|number| format!("open-{number}")).collect();
    for name in &names {
        engine.run(&RunSpec::sh(script).name(name).argument(&mount))?;
    }
    rotated(&agent, names.len(), 24)?;
    fs::write(shared.join("end"), "")?;
    for name in &names {
        engine.wait(name)?;
    }
    assert_equal_to_docker_logs(&home, &engine, &names)?;
    agent.stop()
}

/// A bare `since` makes dockerd scan the whole log: 3.3 s of CPU for 143 MB were seen.
fn resume_on_a_large_log(version: EngineVersion) -> Result<()> {
    let mut engine = Engine::start(version)?;
    let home = Home::new()?;
    let id = engine.run(&RunSpec::sh("echo first; read never").name("large").argument("--interactive"))?;
    // Written while dockerd is stopped: it would take minutes for it.
    let log = engine.log_path(&id);
    engine.stop()?;
    let mut file = fs::OpenOptions::new().append(true).open(&log)?;
    let mut text = String::new();
    for line in 0..1_000_000 {
        let (second, nano) = (line / 100_000, line % 100_000 * 10_000);
        text += &format!(
            "{{\"log\":\"line {line} of a large log that was written before\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-21T00:52:{second:02}.{nano:09}Z\"}}\n"
        );
    }
    file.write_all(text.as_bytes())?;
    ensure!(fs::metadata(&log)?.len() > 100_000_000, "the log is not large");
    engine.start_daemon()?;

    let agent = home.start(&config(&home, &engine, Reading { rotation: "300ms", ..Reading::API }))?;
    wait_until("the whole log", PATIENCE, || {
        let lines = agent.streams()?.first().and_then(|row| row["lines"].as_u64()).unwrap_or(0);
        ensure!(lines >= 1_000_001, "{lines} lines");
        Ok(())
    })?;
    engine.docker(&["start", "large"])?;
    let rotations = || -> Result<u64> { Ok(agent.streams()?[0]["rotations"].as_u64().unwrap_or(0)) };
    wait_until("the stream to follow", PATIENCE, || {
        let row = agent.streams()?[0].clone();
        ensure!(row["state"] == "following" && row["operation"] == "read of a connection", "{row}");
        ensure!(rotations()? >= 2, "it has not rotated yet");
        Ok(())
    })?;
    let (cpu, before) = (engine.cpu_seconds()?, rotations()?);
    wait_until("20 resumes", PATIENCE, || {
        let now = rotations()?;
        ensure!(now >= before + 20, "{} so far", now - before);
        Ok(())
    })?;
    let each = (engine.cpu_seconds()? - cpu) / (rotations()? - before) as f64;
    println!(
        "a resume on a log of {} MB costs dockerd {each:.4} CPU-s",
        fs::metadata(&log)?.len() / 1_000_000
    );
    ensure!(each < 0.1, "{each} CPU-s a resume");
    agent.stop()
}

/// Tasks, threads, operations and descriptors after N rotations equal those after the first, exactly.
fn rotations_leave_nothing(version: EngineVersion) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let agent =
        home.start(&config(&home, &engine, Reading { rotation: "2s", timeout: "30s", ..Reading::API }))?;
    let names: Vec<String> = (0..50).map(|number| format!("ticks-{number}")).collect();
    for name in &names {
        engine.run(&RunSpec::sh(&ticking("1")).name(name))?;
    }
    rotated(&agent, 50, 1)?;
    let after_first = held_at_rest(&agent, &home, &engine, &names)?;
    rotated(&agent, 50, 21)?;
    let after_many = held_at_rest(&agent, &home, &engine, &names)?;
    println!("50 streams, after 1 rotation and after 21: {after_first:?}, {after_many:?}");
    assert_eq!(after_many, after_first, "something grew with the rotations");
    agent.stop()
}
