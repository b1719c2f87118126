//! Rotation by dockerd, under load and while the agent is stopped: lines that the host still had are delivered, once
//! and in order; the others are declared lost.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use capturer_tests::agent::{Agent, Home, Record};
use capturer_tests::engine::{Engine, EngineVersion, RunSpec};
use capturer_tests::gate::Gate;
use capturer_tests::one_engine;
use capturer_tests::scene::{Reading, assert_equal_to_docker_logs, config};
use capturer_tests::wait::{PATIENCE, wait_until};

// How dockerd renames and removes is the same in both versions.
one_engine! { V20_10:
    rotation_under_load => rotation_under_load;
    rotation_while_stopped => rotation_while_stopped;
    a_burst_of_300_000_lines => burst;
    long_lines_over_several_files => long_lines;
}

/// The ways dockerd rotates: (name, log options).
const WAYS: [(&str, &[(&str, &str)]); 3] = [
    ("unlinked", &[("max-size", "64k"), ("max-file", "1")]),
    ("renamed", &[("max-size", "64k"), ("max-file", "3")]),
    ("compressed", &[("max-size", "64k"), ("max-file", "3"), ("compress", "true")]),
];

fn spec(name: &str, options: &[(&str, &str)], script: &str) -> RunSpec {
    options.iter().fold(RunSpec::sh(script).name(name), |spec, (key, value)| spec.log_opt(key, value))
}

/// The printed numbers, in the order of the output. Each at most once and rising, or the test fails.
fn numbers(home: &Home, name: &str) -> Result<Vec<u64>> {
    let records: Vec<Record> = home.records_of(name)?;
    let numbers: Vec<u64> = records
        .iter()
        .map(|record| record.message.rsplit(' ').next().unwrap_or_default().parse().context("no number"))
        .collect::<Result<_>>()?;
    let rising = numbers.windows(2).all(|pair| pair[0] < pair[1]);
    ensure!(rising, "{name}: repeated or out of order");
    Ok(numbers)
}

/// What the agent has declared lost; empty if nothing.
fn losses(agent: &Agent) -> Result<String> {
    let text = agent.get("/metrics")?;
    Ok(text
        .lines()
        // Files that came and went meanwhile may be lost: nobody knows how much was in them.
        .filter(|line| {
            ["los", "possible_losses"].iter().any(|name| line.starts_with(&format!("log_capturer_{name}")))
        })
        .filter(|line| !line.ends_with(" 0"))
        .collect::<Vec<_>>()
        .join("\n"))
}

/// 30,000 lines at some 2,000 a second through files of 64 KiB, which hold some 670: a rotation every half second. The agent
/// is never more than one file behind.
fn rotation_under_load(version: EngineVersion) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let agent = home.start(&config(&home, &engine, Reading::FILE))?;
    let gate = Gate::new()?;
    for (name, options) in WAYS {
        let spec = spec(name, options, &gate.script(name, 30_000));
        engine.run(&spec.argument(&gate.volume()))?;
    }
    gate.keep(&home, &WAYS.map(|(name, _)| (name, 600)), || {
        WAYS.iter().try_for_each(|(name, _)| engine.wait(name).map(drop))
    })?;
    for (name, _) in WAYS {
        wait_until(&format!("the last line of {name}"), PATIENCE, || {
            let last = numbers(&home, name)?.last().copied();
            ensure!(last == Some(30_000), "the last is {last:?}");
            Ok(())
        })?;
        let got = numbers(&home, name)?.len();
        ensure!(got == 30_000, "{name}: {got} of 30000 lines; {}", losses(&agent)?);
    }
    agent.stop()
}

/// Lines that are longer than a file: dockerd gives all pieces of one the same time, so that files from its middle are
/// equal to the byte. Other lines are between them.
fn long_lines(version: EngineVersion) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let agent = home.start(&config(&home, &engine, Reading::FILE))?;
    let script = "n=0; while [ $n -lt 40 ]; do n=$((n+1)); echo short $n; \
        head -c $((n * 5000 + 16384)) /dev/zero | tr '\\0' x; echo; done";
    let names: Vec<String> = (0..4).map(|number| format!("long-{number}")).collect();
    for name in &names {
        engine.run(&spec(name, &[("max-size", "60k"), ("max-file", "900")], script))?;
    }
    for name in &names {
        engine.wait(name)?;
    }
    assert_equal_to_docker_logs(&home, &engine, &names)?;
    let declared = losses(&agent)?;
    ensure!(declared.is_empty(), "nothing was lost, but it says {declared}");
    agent.stop()
}

/// The agent is stopped while the log rotates: a few times, so that its file still exists, and many times, so that it
/// does not. What `docker logs` still has must be delivered; a loss must have been declared.
fn rotation_while_stopped(version: EngineVersion) -> Result<()> {
    let engine = Engine::start(version)?;
    for (name, options) in WAYS {
        for (case, lines) in [("few", 2_000), ("many", 20_000)] {
            let name = format!("{name}-{case}");
            let home = Home::new()?;
            let config = config(&home, &engine, Reading::FILE) + &format!("  include_names: [\"{name}\"]\n");
            let agent = home.start(&config)?;
            let script = format!(
                "seq 1 500 | sed 's/^/line of some length /'; until [ -e /go1 ]; do sleep 0.05; done; seq 501 {lines} | sed 's/^/line of some length /'; until [ -e /go2 ]; do sleep 0.05; done; echo end 999999"
            );
            engine.run(&spec(&name, options, &script))?;
            wait_until("the first lines", PATIENCE, || {
                let got = home.count_of(&name);
                ensure!(got == 500, "{got} of 500");
                Ok(())
            })?;
            agent.stop()?;
            go_on(&engine, &name, 1);
            wait_until("the container to have printed", PATIENCE, || {
                let logs = engine.logs(&name)?;
                ensure!(logs.stdout.ends_with(format!(" {lines}\n").as_bytes()), "not yet");
                Ok(())
            })?;
            let still_there: BTreeSet<u64> = String::from_utf8(engine.logs(&name)?.stdout)?
                .lines()
                .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
                .collect();
            let agent = home.start(&config)?;
            go_on(&engine, &name, 2);
            wait_until("the last line", PATIENCE, || {
                let last = numbers(&home, &name)?.last().copied();
                ensure!(last == Some(999_999), "the last is {last:?}");
                Ok(())
            })?;
            let got: BTreeSet<u64> = numbers(&home, &name)?.into_iter().collect();
            let missing: Vec<_> = still_there.difference(&got).collect();
            ensure!(missing.is_empty(), "{name}: {} lines were still on disk: {missing:?}", missing.len());
            let (missing, declared) = (lines + 1 - got.len(), losses(&agent)?);
            ensure!(
                (missing == 0) == declared.is_empty(),
                "{name}: {missing} are missing, and: {declared:?}"
            );
            agent.stop()?;
            engine.rm(&name)?;
        }
    }
    Ok(())
}

/// Lets a container continue. It may end before the command that told it so, which then fails: what counts is what is
/// waited for next.
fn go_on(engine: &Engine, name: &str, step: u32) {
    let _ = engine.docker(&["exec", name, "touch", &format!("/go{step}")]);
}

/// The Engine's own follow loses a quarter to a half of these lines.
fn burst(version: EngineVersion) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let agent = home.start(&config(&home, &engine, Reading::FILE))?;
    let script = "seq 1 300000 | sed 's/^/a line of the burst with some more text in it, as lines have /'";
    let options = [("max-size", "10m"), ("max-file", "3")];
    engine.run(&spec("burst", &options, script))?;
    engine.wait("burst")?;
    wait_until("the last line", PATIENCE, || {
        let last = numbers(&home, "burst")?.last().copied();
        ensure!(last == Some(300_000), "the last is {last:?}");
        Ok(())
    })?;
    let got = numbers(&home, "burst")?.len();
    ensure!(got == 300_000, "{got} of 300000 lines; {}", losses(&agent)?);
    agent.stop()
}
