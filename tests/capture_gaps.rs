//! What dockerd's follow skips when a log is rotated: read over the API it is mended from the files; where they can't be
//! read it is declared. And a container that is read now from its files, now over the API.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use capturer_tests::agent::{Agent, Home};
use capturer_tests::both_engines;
use capturer_tests::engine::{Engine, EngineVersion, RunSpec};
use capturer_tests::scene::{Reading, config};
use capturer_tests::wait::wait_until;

both_engines! {
    a_burst_of_300_000_lines_by_api => burst;
    rotation_under_load_by_api => rotation_under_load;
    three_missed_rotations => three_missed_rotations;
    without_the_files_the_loss_is_declared => without_files;
    read_from_changes_between_runs => read_from_changes;
}

const MINUTE: Duration = Duration::from_secs(60);

fn spec(name: &str, options: &[(&str, &str)], script: &str) -> RunSpec {
    options.iter().fold(RunSpec::sh(script).name(name), |spec, (key, value)| spec.log_opt(key, value))
}

/// The number at the end of each line delivered, in order of delivery. Each once and rising, or the test fails.
fn numbers(home: &Home, name: &str) -> Result<Vec<u64>> {
    let last_word = |message: &str| message.rsplit(' ').next().unwrap_or_default().parse::<u64>();
    let records = home.records_of(name)?;
    let numbers: Vec<u64> = records
        .iter()
        .map(|record| last_word(&record.message).with_context(|| format!("no number: {:?}", record.message)))
        .collect::<Result<_>>()?;
    for pair in numbers.windows(2) {
        ensure!(pair[0] < pair[1], "{name}: {} came after {}", pair[1], pair[0]);
    }
    Ok(numbers)
}

fn all_of(home: &Home, agent: &Agent, name: &str, lines: u64) -> Result<()> {
    wait_until(&format!("the last line of {name}"), MINUTE, || {
        let last = numbers(home, name)?.last().copied();
        ensure!(last == Some(lines), "the last is {last:?}");
        Ok(())
    })?;
    let got = numbers(home, name)?.len() as u64;
    ensure!(got == lines, "{name}: {got} of {lines} lines; {}", losses(agent)?);
    Ok(())
}

fn losses(agent: &Agent) -> Result<String> {
    let text = agent.get("/metrics")?;
    let of_losses = |line: &&str| line.starts_with("log_capturer_los") && !line.ends_with(" 0");
    Ok(text.lines().filter(of_losses).collect::<Vec<_>>().join("\n"))
}

fn mode(agent: &Agent, name: &str) -> Result<String> {
    let streams = agent.streams()?;
    let row = streams.iter().find(|row| row["name"] == name).with_context(|| format!("no stream {name}"))?;
    Ok(row["mode"].as_str().unwrap_or_default().to_owned())
}

/// The Engine's own follow loses a quarter to a half of this behind a clean end.
fn burst(version: EngineVersion) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let agent = home.start(&config(&home, &engine, Reading { rotation: "1h", ..Reading::API }))?;
    let script = "seq 1 300000 | sed 's/^/a line of the burst with some more text in it, as lines have /'";
    engine.run(&spec("burst", &[("max-size", "10m"), ("max-file", "3")], script))?;
    engine.wait("burst")?;
    wait_until("the last line", MINUTE, || {
        let last = numbers(&home, "burst")?.last().copied();
        ensure!(last == Some(300_000), "the last is {last:?}");
        Ok(())
    })?;
    let got = numbers(&home, "burst")?.len();
    let declared = losses(&agent)?;
    println!("burst: {got} of 300000 lines; {declared}");
    // Files that dockerd removed before the agent came to them are gone; that must have been said, and only then.
    ensure!((got == 300_000) == declared.is_empty(), "{got} of 300000 lines; {declared}");
    agent.stop()
}

/// 30,000 lines at some 2,000 a second through files of 64 KiB: a rotation every half second, in each way that dockerd
/// has.
fn rotation_under_load(version: EngineVersion) -> Result<()> {
    let ways: [(&str, &[(&str, &str)]); 3] = [
        ("unlinked", &[("max-size", "64k"), ("max-file", "1")]),
        ("renamed", &[("max-size", "64k"), ("max-file", "3")]),
        ("compressed", &[("max-size", "64k"), ("max-file", "3"), ("compress", "true")]),
    ];
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let agent = home.start(&config(&home, &engine, Reading { rotation: "1h", ..Reading::API }))?;
    let script = "a=1; while [ $a -le 30000 ]; do z=$((a+199)); \
        seq $a $z | sed 's/^/line of some length /'; a=$((z+1)); sleep 0.1; done";
    for (name, options) in ways {
        engine.run(&spec(name, options, script))?;
    }
    for (name, _) in ways {
        engine.wait(name)?;
        wait_until(&format!("the last line of {name}"), MINUTE, || {
            let last = numbers(&home, name)?.last().copied();
            ensure!(last == Some(30_000), "the last is {last:?}");
            Ok(())
        })?;
        let got = numbers(&home, name)?.len();
        println!("{name}: {got} of 30000 lines, {}, {}", mode(&agent, name)?, losses(&agent)?);
        if got < 30_000 {
            ensure!(!losses(&agent)?.is_empty(), "{name}: {got} lines, and nothing was said");
        }
        // With a single file the rest of it goes with each rotation, before anybody can open it by its name.
        ensure!(got == 30_000 || name == "unlinked", "{name}: {got} of 30000 lines; {}", losses(&agent)?);
    }
    agent.stop()
}

/// The follower is stopped while the log is rotated three times.
fn three_missed_rotations(version: EngineVersion) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let agent = home.start(&config(&home, &engine, Reading { rotation: "1h", ..Reading::API }))?;
    // Each step prints once it is told to; 2,000 lines fill a file of 128 KiB.
    let script = "seq 1 100 | sed 's/^/line of some length /'; until [ -e /go ]; do sleep 0.05; done; \
        seq 101 6500 | sed 's/^/line of some length /'; until [ -e /end ]; do sleep 0.05; done; echo end 6501";
    engine.run(&spec("slow", &[("max-size", "128k"), ("max-file", "8")], script))?;
    wait_until("the first lines", MINUTE, || home.count_of("slow") == 100)?;
    ensure!(mode(&agent, "slow")? == "api", "it is read over the API until its log is rotated");
    // The lines may have come by a read without follow, made before the container was known to run: to open the next one
    // behind the rotations would not be to miss them. Only the read of a follow waits until it times out.
    wait_until("the stream to wait for more", MINUTE, || {
        let rows = agent.streams()?;
        ensure!(rows.first().and_then(|row| row["read_timeouts"].as_u64()) >= Some(1), "{rows:?}");
        Ok(())
    })?;
    agent.signal(rustix::process::Signal::STOP);
    go_on(&engine, "slow", "/go");
    wait_until("the container to have printed", MINUTE, || {
        let logs = engine.logs("slow")?;
        ensure!(logs.stdout.ends_with(b" 6500\n"), "not yet");
        Ok(())
    })?;
    agent.signal(rustix::process::Signal::CONT);
    go_on(&engine, "slow", "/end");
    all_of(&home, &agent, "slow", 6_501)?;
    ensure!(mode(&agent, "slow")? == "file", "it is read from its files after that");
    ensure!(losses(&agent)?.is_empty(), "{}", losses(&agent)?);
    agent.stop()
}

/// The files can't be read, and the log was rotated away while the agent was stopped.
fn without_files(version: EngineVersion) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let config = config(&home, &engine, Reading { rotation: "1h", ..Reading::API });
    let script = "seq 1 100 | sed 's/^/line of some length /'; until [ -e /go ]; do sleep 0.05; done; \
        seq 101 9000 | sed 's/^/line of some length /'; until [ -e /end ]; do sleep 0.05; done; echo end 9001";
    engine.run(&spec("hidden", &[("max-size", "64k"), ("max-file", "2")], script))?;
    let agent = home.start_as_nobody(&config, engine.socket())?;
    wait_until("the first lines", MINUTE, || home.count_of("hidden") == 100)?;
    agent.stop()?;
    go_on(&engine, "hidden", "/go");
    wait_until("the container to have printed", MINUTE, || {
        let logs = engine.logs("hidden")?;
        ensure!(logs.stdout.ends_with(b" 9000\n"), "not yet");
        Ok(())
    })?;
    let agent = home.start_as_nobody(&config, engine.socket())?;
    go_on(&engine, "hidden", "/end");
    wait_until("the last line", MINUTE, || {
        let last = numbers(&home, "hidden")?.last().copied();
        ensure!(last == Some(9_001), "the last is {last:?}");
        Ok(())
    })?;
    let got = numbers(&home, "hidden")?.len();
    ensure!(got < 9_001, "nothing was lost: the test is of no use");
    let declared = losses(&agent)?;
    ensure!(declared.contains("losses_total{reason=\"engine_skipped_rotation\"} 1"), "{declared}");
    let log = agent.log_text()?;
    ensure!(log.contains("the Engine's log begins behind the last line delivered"), "not in its log");
    agent.stop()
}

/// From the files, over the API, and back, with restarts between: every line once.
fn read_from_changes(version: EngineVersion) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let script = "a=1; while [ ! -e /end ]; do z=$((a+99)); \
        seq $a $z | sed 's/^/line of some length /'; a=$((z+1)); sleep 0.1; done; echo end $a > /last; cat /last";
    engine.run(&spec("both", &[], script))?;
    for from in ["file", "api", "file", "api", "api", "auto"] {
        let agent = home.start(&config(&home, &engine, Reading { from, ..Reading::API }))?;
        let goal = home.count_of("both") + 300;
        wait_until("more lines", MINUTE, || home.count_of("both") >= goal)?;
        ensure!(mode(&agent, "both")? == if from == "api" { "api" } else { "file" });
        if from == "auto" {
            go_on(&engine, "both", "/end");
            engine.wait("both")?;
            let printed = engine.logs("both")?.stdout;
            let lines = printed.iter().filter(|byte| **byte == b'\n').count() as u64;
            all_of(&home, &agent, "both", lines)?;
        }
        agent.stop()?;
    }
    Ok(())
}

/// Lets a container go on. It may end before the command that told it so, which then fails: what counts is what is
/// waited for next.
fn go_on(engine: &Engine, name: &str, file: &str) {
    let _ = engine.docker(&["exec", name, "touch", file]);
}
