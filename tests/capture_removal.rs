//! Containers that are removed while they print, whose logs somebody empties, or that are removed while the agent does
//! not run: nothing is repeated, nothing lost that was on disk when they were removed, and no loss declared that did
//! not happen.
//!
//! Each line is a number, so the output itself shows whether something is missing or repeated. `CAPTURER_REMOVALS=200`
//! is for a long run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read as _;

use anyhow::{Context as _, Result, ensure};
use capturer_tests::agent::{Agent, Home, Record};
use capturer_tests::amount::number;
use capturer_tests::engine::{Engine, EngineVersion, RunSpec};
use capturer_tests::rand::Rand;
use capturer_tests::scene::{Reading, config};
use capturer_tests::wait::{PATIENCE, wait_until};
use capturer_tests::{both_engines, one_engine};
use flate2::read::MultiGzDecoder;

both_engines! {
    removed_while_written => removed_while_written;
    removed_while_the_agent_is_killed => removed_and_killed;
}

one_engine! { V20_10:
    emptied_by_an_operator => emptied;
}

one_engine! { V28_5:
    removed_while_the_agent_is_down => removed_while_down;
}

/// Containers at one time.
const AT_ONCE: usize = 15;
const DOWN: &str = "possible_losses_total{reason=\"container_gone_unread\"}";

/// How many containers one test removes.
fn removals() -> Result<usize> {
    Ok(number("CAPTURER_REMOVALS", 60)? as usize)
}

/// Some 130 lines a second, numbered from 0: a file of 20 KiB is full after two seconds.
const STEADY: &str = "i=0; while :; do j=0; while [ $j -lt 40 ]; do echo line $i; i=$((i+1)); j=$((j+1)); done; sleep 0.3; done";

fn start(engine: &Engine, name: &str, max_size: &str) -> Result<String> {
    let options = [("max-size", max_size), ("max-file", "5"), ("compress", "true")];
    let spec = RunSpec::sh(STEADY).name(name);
    let spec = options.iter().fold(spec, |spec, (key, value)| spec.log_opt(key, value));
    engine.run(&spec)
}

/// The files of a container's log, open: they can be read after their names are gone.
fn hold(engine: &Engine, id: &str) -> Result<Vec<File>> {
    let log = engine.log_path(id);
    let mut files = Vec::new();
    for entry in fs::read_dir(log.parent().context("a log in a directory")?)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // Lines of a file that was renamed since the listing are in another one.
        if let (true, Ok(file)) = (name.contains("-json.log"), File::open(entry.path())) {
            files.push(file);
        }
    }
    Ok(files)
}

/// The numbers of the lines in these files. An archive that is just being written counts as far as it is readable.
fn numbers_in(files: Vec<File>) -> Result<BTreeSet<u64>> {
    let mut numbers = BTreeSet::new();
    for mut file in files {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let mut text = Vec::new();
            let _ = MultiGzDecoder::new(&bytes[..]).read_to_end(&mut text);
            bytes = text;
        }
        let whole = bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
        for line in whole {
            // Behind a hole there may be anything.
            let Ok(record) = serde_json::from_slice::<serde_json::Value>(line) else { continue };
            numbers.insert(number_of(record["log"].as_str().context("a record without a log")?)?);
        }
    }
    Ok(numbers)
}

fn number_of(line: &str) -> Result<u64> {
    let word = line.trim_end().strip_prefix("line ").with_context(|| format!("another line: {line:?}"))?;
    Ok(word.parse()?)
}

/// The lines delivered of a container: numbers that rise, or the test fails. Returns them.
fn came(home: &Home, name: &str) -> Result<Vec<u64>> {
    let records = home.records_of(name)?;
    let numbers: Vec<u64> = records.iter().map(|record| number_of(&record.message)).collect::<Result<_>>()?;
    for pair in numbers.windows(2) {
        assert!(pair[0] < pair[1], "{name}: {} came after {}", pair[1], pair[0]);
    }
    Ok(numbers)
}

fn missing(numbers: &[u64]) -> Vec<u64> {
    let came: BTreeSet<u64> = numbers.iter().copied().collect();
    (0..numbers.last().map_or(0, |last| last + 1)).filter(|number| !came.contains(number)).collect()
}

fn has_stream(agent: &Agent, name: &str) -> Result<bool> {
    Ok(agent.streams()?.iter().any(|row| row["name"] == name))
}

/// Removed at random moments: while it prints, while its log is rotated, while a rotated file is compressed.
fn removed_while_written(version: EngineVersion) -> Result<()> {
    let mut rand = Rand::from_env_or(60);
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let config = config(&home, &engine, Reading::FILE);
    let mut agent = home.start(&config)?;
    let (count, mut gaps) = (removals()?, 0);
    for first in (0..count).step_by(AT_ONCE) {
        let names: Vec<String> =
            (first..count.min(first + AT_ONCE)).map(|at| format!("brief-{at}")).collect();
        let last = names.last().cloned().unwrap_or_default();
        let mut alive = Vec::new();
        for name in names {
            alive.push((start(&engine, &name, "20k")?, name));
        }
        wait_until("a series of the last of them", PATIENCE, || {
            let metrics = agent.get("/metrics")?;
            ensure!(metrics.contains(&format!("\"{last}\"")), "there is none");
            Ok(())
        })?;
        rand.shuffle(&mut alive);
        // A restart in between: what is known of their files then comes from the checkpoint.
        let restart_at = rand.index(0..alive.len());
        let mut on_disk = BTreeMap::new();
        for (at, (id, name)) in alive.iter().enumerate() {
            let goal = rand.within(100..900) as usize;
            wait_until("some lines", PATIENCE, || home.count_of(name) >= goal)?;
            if at == restart_at {
                agent.assert_nothing_lost()?;
                agent.stop()?;
                agent = home.start(&config)?;
                wait_until("it to be followed again", PATIENCE, || {
                    let rows = agent.streams()?;
                    let follow = rows.iter().filter(|row| row["state"] == "following").count();
                    ensure!(follow >= alive.len() - at, "{follow} are followed");
                    Ok(())
                })?;
            }
            let held = hold(&engine, id)?;
            engine.rm(id)?;
            on_disk.insert(name, numbers_in(held)?);
        }
        for (name, on_disk) in on_disk {
            wait_until("its stream to end", PATIENCE, || {
                ensure!(!has_stream(&agent, name)?, "{name} has a stream");
                Ok(())
            })?;
            let numbers = came(&home, name)?;
            let lost: Vec<_> =
                on_disk.iter().filter(|number| numbers.binary_search(number).is_err()).collect();
            ensure!(lost.is_empty(), "{name}: on disk when it was removed, and lost: {lost:?}");
            gaps += missing(&numbers).len();
        }
    }
    println!("{}: {count} removed, {gaps} lines missing that were rotated away before", version.label());
    wait_until("the series of the last of them to go", PATIENCE, || {
        let metrics = agent.get("/metrics")?;
        let left: Vec<_> = metrics.lines().filter(|line| line.contains("brief-")).collect();
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })?;
    if gaps == 0 {
        agent.assert_nothing_lost()?;
    } else {
        let lost = agent.metric("losses_total{reason=\"file_gone_unread\"}")?;
        ensure!(lost > 0.0, "{gaps} lines are missing, and nothing was said");
    }
    agent.stop()
}

/// The agent is killed around removals: what was in an output before the crash stays and is not repeated, and there is
/// no gap. Unread lines of the removed container are lost with it.
fn removed_and_killed(version: EngineVersion) -> Result<()> {
    let mut rand = Rand::from_env_or(61);
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let config = config(&home, &engine, Reading::FILE);
    let mut agent = home.start(&config)?;
    let mut alive = Vec::new();
    for at in 0..(removals()? / 5).max(2) {
        let name = format!("crash-{at}");
        // Files last longer than a start takes.
        alive.push((start(&engine, &name, "100k")?, name));
    }
    rand.shuffle(&mut alive);
    let names: Vec<String> = alive.iter().map(|(_, name)| name.clone()).collect();
    for (at, (id, name)) in alive.iter().enumerate() {
        let goal = home.count_of(name) + rand.index(50..300);
        wait_until("some lines", PATIENCE, || home.count_of(name) >= goal)?;
        let is_down = rand.chance(1, 2);
        if is_down {
            agent.kill()?;
            engine.rm(id)?;
        } else {
            engine.rm(id)?;
            // From the start until everything is read.
            let goal = home.output_bytes() + rand.within(0..4_000);
            let others = at + 1 < alive.len();
            wait_until("some output", PATIENCE, || !others || home.output_bytes() >= goal)?;
            agent.kill()?;
        }
        let before = home.whole_records()?;
        agent = home.start(&config)?;
        if is_down {
            wait_until("a possible loss to be declared", PATIENCE, || {
                let declared = agent.metric(DOWN)?;
                ensure!(declared >= 1.0, "{declared}");
                Ok(())
            })?;
        }
        for (_, name) in &alive[at + 1..] {
            let goal = home.count_of(name) + 40;
            wait_until("more of those that are left", PATIENCE, || home.count_of(name) >= goal)?;
        }
        assert_kept(&before, &home)?;
    }
    for name in &names {
        let gaps = missing(&came(&home, name)?);
        ensure!(gaps.is_empty(), "{name}: {gaps:?} are missing");
    }
    agent.stop()
}

/// Each output begins with its earlier content.
fn assert_kept(before: &BTreeMap<String, Vec<Record>>, home: &Home) -> Result<()> {
    let now = home.whole_records()?;
    for (name, before) in before {
        let now = now.get(name).with_context(|| format!("{name} is gone"))?;
        assert!(now.starts_with(before), "{name} had {} records and has other {}", before.len(), now.len());
    }
    Ok(())
}

/// `truncate -s 0` of a log. dockerd continues at its old place if the log was rotated before, which leaves a hole of
/// NULs.
fn emptied(version: EngineVersion) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let agent = home.start(&config(&home, &engine, Reading::FILE))?;
    let waits = "print() { while [ $i -lt $1 ]; do echo line $i; i=$((i+1)); done; }; i=0; print 900; \
        until [ -e /go ]; do sleep 0.05; done; print 1000; until [ -e /end ]; do sleep 0.05; done; print 1001";
    let small = |spec: RunSpec| spec.log_opt("max-size", "32k").log_opt("max-file", "3");
    let quiet = [
        ("quiet-whole", engine.run(&RunSpec::sh(waits).name("quiet-whole"))?),
        ("quiet-rotated", engine.run(&small(RunSpec::sh(waits).name("quiet-rotated")))?),
    ];
    let empty = |id: &str| File::options().write(true).open(engine.log_path(id))?.set_len(0);
    for (name, id) in &quiet {
        wait_until("what was printed", PATIENCE, || home.count_of(name) == 900)?;
        empty(id)?;
        engine.touch(name, "/go")?;
        wait_until("what was printed after that", PATIENCE, || home.count_of(name) >= 1_000)?;
        empty(id)?;
        engine.touch(name, "/end")?;
        wait_until("the last line", PATIENCE, || home.count_of(name) >= 1_001)?;
        let numbers = came(&home, name)?;
        ensure!(numbers.len() == 1_001, "{name}: {} lines", numbers.len());
    }
    // Nothing was lost. A possible loss is declared: nobody can see what was there for a moment.
    let possible = "possible_losses_total{reason=\"file_truncated\"}";
    let no_loss = || -> Result<()> {
        let text = agent.get("/metrics")?;
        let losses = text.lines().filter(|line| line.starts_with("log_capturer_los") && line.contains('{'));
        let above: Vec<&str> = losses.filter(|line| !line.ends_with(" 0")).collect();
        ensure!(above.is_empty(), "{above:?}");
        Ok(())
    };
    no_loss()?;
    // While it prints, unread lines may be lost: they are never repeated, and the possibility is declared.
    for (name, spec) in [("busy-whole", RunSpec::sh(STEADY)), ("busy-rotated", small(RunSpec::sh(STEADY)))] {
        let (id, mut times) = (engine.run(&spec.name(name))?, 0);
        let declared = agent.metric(possible)?;
        while times < 4 {
            let goal = home.count_of(name) + 500;
            wait_until("more lines", PATIENCE, || home.count_of(name) >= goal)?;
            // Its live file has no name for a moment while it is rotated.
            times += usize::from(empty(&id).is_ok());
        }
        let goal = home.count_of(name) + 100;
        wait_until("lines behind that", PATIENCE, || home.count_of(name) >= goal)?;
        let gaps = missing(&came(&home, name)?);
        println!("{name}: emptied {times} times, {} lines missing", gaps.len());
        let said = agent.metric(possible)? - declared;
        ensure!(gaps.is_empty() || said > 0.0, "{name}: {gaps:?} are missing, and nothing was said");
        engine.rm(name)?;
    }
    agent.stop()
}

/// Nobody can tell what a container printed that was removed while the agent did not run. One that stayed lost nothing.
fn removed_while_down(version: EngineVersion) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let config = config(&home, &engine, Reading::FILE);
    let agent = home.start(&config)?;
    let script = "echo line 0; until [ -e /go ]; do sleep 0.05; done; echo line 1; until [ -e /end ]; do sleep 0.05; done";
    for name in ["goes", "stays"] {
        engine.run(&RunSpec::sh(script).name(name))?;
        wait_until("its first line", PATIENCE, || home.count_of(name) == 1)?;
    }
    agent.stop()?;
    for name in ["goes", "stays"] {
        engine.touch(name, "/go")?;
        wait_until("its second line", PATIENCE, || {
            engine.logs(name).is_ok_and(|logs| logs.stdout.ends_with(b"line 1\n"))
        })?;
    }
    engine.rm("goes")?;
    let agent = home.start(&config)?;
    wait_until("the possibility to be declared", PATIENCE, || {
        let declared = agent.metric(DOWN)?;
        ensure!(declared == 1.0, "{declared}");
        Ok(())
    })?;
    ensure!(agent.log_text()?.contains("was removed while the agent did not run"), "not in its log");
    wait_until("what came meanwhile", PATIENCE, || home.count_of("stays") == 2)?;
    agent.stop()?;
    // It is reported once.
    let agent = home.start(&config)?;
    wait_until("it to be followed", PATIENCE, || {
        let rows = agent.streams()?;
        ensure!(rows.iter().any(|row| row["state"] == "following"), "{rows:?}");
        Ok(())
    })?;
    agent.assert_nothing_lost()?;
    agent.stop()
}
