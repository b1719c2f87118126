//! Lines joined while a container prints, by file and over the API: each trace is one record, whole and once, on both
//! channels at a time, whatever happens to the agent meanwhile. And a rate limit that lets lines wait loses none.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use capturer_tests::agent::Home;
use capturer_tests::engine::{Engine, EngineVersion, RunSpec};
use capturer_tests::rand::Rand;
use capturer_tests::scene::{Reading, assert_equal_to_docker_logs, config};
use capturer_tests::wait::{PATIENCE, wait_until};
use capturer_tests::{both_engines, one_engine};

both_engines! {
    traces_by_api => |version| traces(version, Reading::API);
}

one_engine! { V28_5:
    traces_by_file => |version| traces(version, Reading::FILE);
    held_back_by_file => |version| held_back(version, Reading::FILE);
    held_back_by_api => |version| held_back(version, Reading::API);
}

/// The next line ends a group, however long that takes; the time-out is for what no test waits for.
const PIPELINES: &str = "pipelines:\n\
    - {name: java, match: {names: [\"java-*\"]}, multiline: {preset: java, timeout: 10s}}\n\
    - {name: python, match: {names: [\"python-*\"]}, multiline: {preset: python, timeout: 10s}}\n";

/// What both print between two traces.
const PLAIN: &str = "all is well";
const TRACES: u32 = 150;
/// Of each container: a trace and a plain line, on both channels.
const RECORDS: usize = 4 * TRACES as usize;

fn java(number: u32) -> String {
    format!(
        "ERROR job {number} failed\njava.lang.IllegalStateException: job {number}\n\tat com.example.Job.run(Job.java:17)\n\
         Caused by: java.io.IOException: disk {number}\n\t... 3 more"
    )
}

fn python(number: u32) -> String {
    format!(
        "Traceback (most recent call last):\n  File \"/srv/job.py\", line {number}, in <module>\n    run()\n\
         ValueError: job {number}"
    )
}

/// Prints each trace on both channels at once, then a plain line on each.
fn script(trace: fn(u32) -> String) -> String {
    let text = trace(0).replace('\\', "\\\\").replace('\n', "\\n").replace('\t', "\\t").replace('"', "\\\"");
    let format = text.replace("job 0", "job $i").replace("disk 0", "disk $i").replace("line 0", "line $i");
    let both = "printf \"$t\\n$p\\n\" & printf \"$t\\n$p\\n\" >&2; wait";
    format!("p=\"{PLAIN}\"; for i in $(seq {TRACES}); do t=\"{format}\"; {both}; sleep 0.05; done")
}

fn traces(version: EngineVersion, reading: Reading) -> Result<()> {
    let mut rand = Rand::from_env_or(30);
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let config = config(&home, &engine, reading) + PIPELINES;
    let printers: BTreeMap<&str, fn(u32) -> String> =
        BTreeMap::from([("java-1", java as _), ("python-1", python as _)]);
    for (name, trace) in &printers {
        engine.run(&RunSpec::sh(&script(*trace)).name(name))?;
    }
    for _ in 0..5 {
        let agent = home.launch(&config)?;
        let goal = home.output_bytes() + rand.within(0..20_000);
        // A restart keeps what the output has, so on a slow machine all of it may be there before the last kill.
        let all_there = || printers.keys().all(|name| home.count_of(name) == RECORDS);
        wait_until("some output", PATIENCE, || home.output_bytes() >= goal || all_there())?;
        agent.kill()?;
    }
    let agent = home.start(&config)?;
    for (name, trace) in &printers {
        engine.wait(name)?;
        for channel in ["stdout", "stderr"] {
            let expected: Vec<String> =
                (1..=TRACES).flat_map(|number| [trace(number), PLAIN.to_owned()]).collect();
            let got = wait_until("all traces", PATIENCE, || {
                let records = home.records_of(name)?.into_iter().filter(|record| record.stream == channel);
                let got: Vec<String> = records.map(|record| record.message).collect();
                ensure!(got.len() >= expected.len(), "{name} {channel}: {} of {}", got.len(), expected.len());
                Ok(got)
            })?;
            let first = got.iter().zip(&expected).position(|(got, expected)| got != expected);
            let shown = first.map(|at| (at, &got[at], &expected[at]));
            ensure!(got == expected, "{name} {channel}: {} records; first difference {shown:?}", got.len());
        }
    }
    agent.stop()
}

fn held_back(version: EngineVersion, reading: Reading) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let limit = "pipelines:\n- {name: slow, rate_limit: {lines: 1500, burst: 1s, over: wait}}\n";
    let agent = home.start(&(config(&home, &engine, reading) + limit))?;
    let names = ["fast-1".to_owned(), "fast-2".to_owned()];
    for name in &names {
        engine.run(&RunSpec::sh("seq 8000; seq 4000 >&2").name(name))?;
    }
    wait_until("reading to be held back", PATIENCE, || {
        ensure!(agent.metric("rate_limit_waits_total")? >= 2.0, "it is not");
        Ok(())
    })?;
    wait_until("a stream to be seen waiting", PATIENCE, || {
        let streams = agent.streams()?;
        let waiting = streams.iter().any(|row| row["operation"] == "waiting (rate_limit)");
        ensure!(waiting || home.count_of(&names[0]) == 12_000, "{streams:?}");
        Ok(())
    })?;
    for name in &names {
        engine.wait(name)?;
    }
    assert_equal_to_docker_logs(&home, &engine, &names)?;
    agent.stop()
}
