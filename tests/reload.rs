//! Reloads of a running agent: sinks, names, formats and labels change while files grow and containers print; nothing
//! is lost or repeated, a bad config changes nothing, and a run's resources are gone with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use capturer_tests::agent::{Agent, Held, Home};
use capturer_tests::engine::{Engine, EngineVersion, RunSpec};
use capturer_tests::fuse::{Hang, HungMount};
use capturer_tests::loki::TestLoki;
use capturer_tests::rand::Rand;
use capturer_tests::scene::numbered;
use capturer_tests::wait::{PATIENCE, pass, wait_until};
use rustix::process::Signal;
use serde_json::Value;

/// Files that grow.
const FILES: [&str; 3] = ["a.log", "b.log", "c.log"];
/// Lines of each at a time, and the pause between.
const BURST: u64 = 40;
const BURST_PAUSE: Duration = Duration::from_millis(20);

// ---- what is captured

/// Threads that append numbered lines to files, until told to stop.
struct Writers {
    stop: Arc<AtomicBool>,
    written: Vec<(String, Arc<AtomicU64>)>,
    threads: Vec<JoinHandle<std::io::Result<()>>>,
}

impl Writers {
    fn start(home: &Home) -> Result<Writers> {
        Writers::go_on(home, &BTreeMap::new())
    }

    /// Waits until each file has this many lines.
    fn go_on(home: &Home, from: &BTreeMap<String, u64>) -> Result<Writers> {
        fs::create_dir_all(home.path().join("in"))?;
        let stop = Arc::<AtomicBool>::default();
        let (mut written, mut threads) = (Vec::new(), Vec::new());
        for name in FILES {
            let count = Arc::new(AtomicU64::new(from.get(name).copied().unwrap_or(0)));
            written.push((name.to_owned(), Arc::clone(&count)));
            let mut file =
                File::options().create(true).append(true).open(home.path().join("in").join(name))?;
            let stop = Arc::clone(&stop);
            threads.push(std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let from = count.load(Ordering::Relaxed);
                    let lines: String = (from..from + BURST).map(|n| format!("{name} line {n}\n")).collect();
                    file.write_all(lines.as_bytes())?;
                    count.store(from + BURST, Ordering::Relaxed);
                    pass(BURST_PAUSE);
                }
                Ok(())
            }));
        }
        Ok(Writers { stop, written, threads })
    }

    /// Lines of each file.
    fn stop(self) -> Result<BTreeMap<String, u64>> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| anyhow::anyhow!("a writer panicked"))??;
        }
        Ok(self.written.into_iter().map(|(name, count)| (name, count.load(Ordering::Relaxed))).collect())
    }
}

// ---- what is configured

/// What a reload changes.
#[derive(Clone, Debug)]
struct Variant {
    /// Part of each output's name, so that a file holds one format.
    number: u32,
    format: &'static str,
    directory: &'static str,
    label: String,
    stdout: bool,
    loki: bool,
}

impl Variant {
    fn draw(rand: &mut Rand, number: u32) -> Variant {
        Variant {
            number,
            format: ["ndjson", "raw", "docker"][rand.index(0..3)],
            directory: ["out", "out", "elsewhere"][rand.index(0..3)],
            label: format!("v{}", rand.within(0..3)),
            stdout: rand.chance(1, 2),
            loki: rand.chance(1, 2),
        }
    }

    fn config(&self, home: &Home, loki: &TestLoki) -> String {
        let Variant { number, format, directory, label, stdout, loki: to_loki } = self;
        let (home, url) = (home.path().display(), loki.url());
        format!(
            "data_dir: {home}/data\nadmin: {{listen: \"127.0.0.1:0\"}}\nlog: {{level: debug}}\nshutdown_timeout: 10s\n\
             resource_monitoring: {{check_interval: 1s}}\ncontainer_monitor: {{enabled: false}}\n\
             file_monitor: {{files: [{{paths: [\"{home}/in/*.log\"], format: raw, labels: {{variant: {label}}}}}]}}\n\
             sinks:\n  local_file: {{directory: {home}/{directory}, file: \"{number}-{{path}}.{format}\", \
             format: {format}, max_size: 0}}\n  stdout: {{enabled: {stdout}}}\n  \
             loki: {{enabled: {to_loki}, url: \"{url}\", batch_timeout: 100ms}}\n"
        )
    }
}

/// Follows the files into `out`, with more settings.
fn simple(home: &Home, more: &str) -> String {
    let path = home.path().display();
    home.config(&format!(
        "resource_monitoring: {{check_interval: 1s}}\ncontainer_monitor: {{enabled: false}}\n\
         file_monitor: {{files: [{{paths: [\"{path}/in/*.log\"], format: raw}}]}}\n{more}"
    ))
}

fn reloads(agent: &Agent, result: &str) -> Result<u64> {
    Ok(agent.metric(&format!("config_reloads_total{{result=\"{result}\"}}"))? as u64)
}

/// Reloads this config in one way or the other; it must be applied.
fn reload(home: &Home, agent: &Agent, config: &str, by_signal: bool) -> Result<()> {
    home.write_config(config)?;
    let before = reloads(agent, "applied")?;
    if by_signal {
        agent.signal(Signal::HUP);
        await_applied(agent, before)?;
    } else {
        let (status, said) = agent.post("/-/reload")?;
        // 202: it takes longer than a client should wait.
        ensure!(status == 200 || status == 202, "{status}: {said}");
        await_applied(agent, before)?;
    }
    Ok(())
}

fn await_applied(agent: &Agent, before: u64) -> Result<()> {
    wait_until("the reload", PATIENCE, || {
        let refused = reloads(agent, "refused")? + reloads(agent, "failed")?;
        ensure!(reloads(agent, "applied")? > before, "{refused} refused or failed");
        Ok(())
    })
}

fn await_ready(agent: &Agent) -> Result<()> {
    wait_until("the agent to be ready", PATIENCE, || agent.get("/readyz")).map(drop)
}

/// Every counter series, and its value.
fn counters(agent: &Agent) -> Result<BTreeMap<String, f64>> {
    let text = agent.get("/metrics")?;
    let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    let counts =
        samples.filter(|(series, _)| series.split('{').next().is_some_and(|name| name.ends_with("_total")));
    counts.map(|(series, value)| Ok((series.to_owned(), value.parse()?))).collect()
}

/// Lines of a followed file that were read, as counted so far.
fn lines_of(counters: &BTreeMap<String, f64>, name: &str) -> Option<f64> {
    let is_its =
        |series: &str| series.contains("source_lines_total{") && series.contains(&format!("/{name}\""));
    counters.iter().find(|(series, _)| is_its(series)).map(|(_, lines)| *lines)
}

// ---- what must have come

/// The messages of one followed file in one directory, by output and in order.
fn messages(directory: &Path, name: &str) -> Result<Vec<Vec<String>>> {
    let mut outputs = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // The suffix after it tells sources of one name apart.
        if !file.contains(&format!("-{name}~")) {
            continue;
        }
        let format = file.rsplit('.').next().unwrap_or_default().to_owned();
        let text = fs::read_to_string(&path)?;
        ensure!(text.is_empty() || text.ends_with('\n'), "{file} ends within a record");
        let message = |line: &str| -> Result<String> {
            let key = match format.as_str() {
                "ndjson" => "message",
                "docker" => "log",
                _ => return Ok(line.to_owned()),
            };
            let value: Value = serde_json::from_str(line).with_context(|| format!("{file}: {line}"))?;
            Ok(value[key].as_str().context("no message")?.trim_end_matches('\n').to_owned())
        };
        outputs.push(text.lines().map(message).collect::<Result<_>>()?);
    }
    Ok(outputs)
}

/// Every line of the file once over all outputs, in order within each.
fn assert_once(home: &Home, name: &str, count: u64) -> Result<()> {
    let number = |line: &String| -> Result<u64> {
        let number = line.strip_prefix(&format!("{name} line ")).and_then(|number| number.parse().ok());
        number.with_context(|| format!("{name}: {line:?} was never written"))
    };
    let all = || -> Result<Vec<Vec<u64>>> {
        let mut outputs = messages(&home.path().join("out"), name)?;
        outputs.extend(messages(&home.path().join("elsewhere"), name)?);
        outputs.iter().map(|lines| lines.iter().map(number).collect()).collect()
    };
    // A time-out is not a failure yet: the comparison says which are missing.
    let _ = wait_until("every line", PATIENCE, || {
        let got: usize = all()?.iter().map(Vec::len).sum();
        ensure!(got as u64 >= count, "{got} of {count} of {name}");
        Ok(())
    });
    let outputs = all()?;
    let mut seen = BTreeSet::new();
    for lines in &outputs {
        ensure!(lines.is_sorted(), "{name}: out of order");
        for line in lines {
            ensure!(seen.insert(*line), "{name}: line {line} is there twice");
        }
    }
    let missing: Vec<u64> = (0..count).filter(|number| !seen.contains(number)).take(10).collect();
    ensure!(missing.is_empty(), "{name}: of {count} lines these are missing: {missing:?} …");
    Ok(())
}

/// The numbers of a file's lines that Loki has; each came once.
fn numbers_in_loki(loki: &TestLoki, name: &str) -> Result<BTreeSet<u64>> {
    let mut seen = BTreeSet::new();
    for line in loki.ledger().lines.values().flatten() {
        let Some(number) = line.text.strip_prefix(&format!("{name} line ")) else { continue };
        ensure!(line.arrivals == 1, "{:?} came {} times", line.text, line.arrivals);
        ensure!(seen.insert(number.parse()?), "{:?} is there twice", line.text);
    }
    Ok(seen)
}

// ---- tests

/// Must-show 8. Loki is there all the time and gets every line, in one label set or another.
#[test]
fn sinks_change_under_load_and_no_line_is_lost_or_repeated() -> Result<()> {
    let mut rand = Rand::from_env_or(8);
    let (home, loki) = (Home::new()?, TestLoki::start()?);
    let writers = Writers::start(&home)?;
    let mut variant = Variant { loki: true, ..Variant::draw(&mut rand, 0) };
    let agent = home.start(&variant.config(&home, &loki))?;
    let mut totals = (0.0, 0);
    let mut counted = counters(&agent)?;
    for number in 1..=12 {
        pass(Duration::from_millis(rand.within(0..700)));
        variant = Variant { loki: true, ..Variant::draw(&mut rand, number) };
        reload(&home, &agent, &variant.config(&home, &loki), rand.chance(1, 2))?;
        // A shown count never decreases.
        let rows: u64 = agent.streams()?.iter().filter_map(|row| row["lines"].as_u64()).max().unwrap_or(0);
        let now = (agent.metric("logs_processed_total")?, rows);
        // Right after the start of a run its streams may not be there yet.
        ensure!(now.0 >= totals.0 && (rows == 0 || now.1 >= totals.1), "{now:?} after {totals:?}");
        totals = (now.0, now.1.max(totals.1));
        let now = counters(&agent)?;
        for (series, before) in &counted {
            let after = now.get(series);
            ensure!(after.is_none_or(|after| after >= before), "{series} fell from {before} to {after:?}");
        }
        for (name, written) in &writers.written {
            let was = lines_of(&counted, name);
            let Some(read) = lines_of(&now, name) else {
                ensure!(was.is_none(), "the lines of {name} are not counted any more");
                continue;
            };
            // Read before the writer has counted them.
            let written = written.load(Ordering::Relaxed) + BURST;
            ensure!(
                read as u64 <= written,
                "{read} lines of {name} were read and {written} written; {was:?}"
            );
        }
        counted = now;
    }
    let written = writers.stop()?;
    for (name, count) in &written {
        assert_once(&home, name, *count)?;
        wait_until("every line in Loki", PATIENCE, || {
            let got = numbers_in_loki(&loki, name)?.len();
            ensure!(got as u64 == *count, "{got} of {count} of {name}");
            Ok(())
        })?;
    }
    let counted = counters(&agent)?;
    for (name, count) in &written {
        assert_eq!(lines_of(&counted, name), Some(*count as f64), "{name}: each line is counted once");
    }
    let all: u64 = written.values().sum();
    assert_eq!(agent.metric("logs_processed_total")? as u64, all);
    assert_eq!(reloads(&agent, "applied")?, 12);
    agent.get("/health")?;
    agent.assert_no_leak()?;
    agent.stop()
}

/// Loki comes and goes: lines read while it was there are there once; those read meanwhile are not fetched again.
#[test]
fn a_sink_that_comes_begins_where_the_others_are() -> Result<()> {
    let mut rand = Rand::from_env_or(9);
    let (home, loki) = (Home::new()?, TestLoki::start()?);
    let writers = Writers::start(&home)?;
    let mut variant = Variant { loki: false, ..Variant::draw(&mut rand, 0) };
    let agent = home.start(&variant.config(&home, &loki))?;
    let series = |agent: &Agent| Ok::<_, anyhow::Error>(agent.get("/metrics")?.contains("sink=\"loki\""));
    for number in 1..=8 {
        pass(Duration::from_millis(rand.within(100..600)));
        variant = Variant { loki: number % 2 == 1, ..Variant::draw(&mut rand, number) };
        reload(&home, &agent, &variant.config(&home, &loki), rand.chance(1, 2))?;
        let health: Value = serde_json::from_str(&agent.ask("/health")?.1)?;
        let there = health["components"].get("sink_loki").is_some();
        ensure!(there == variant.loki && series(&agent)? == variant.loki, "{health}");
        if variant.loki {
            let before = loki.count();
            wait_until("lines in Loki", PATIENCE, || loki.count() > before)?;
        } else {
            await_ready(&agent)?;
        }
    }
    let written = writers.stop()?;
    for (name, count) in &written {
        assert_once(&home, name, *count)?;
        let seen = numbers_in_loki(&loki, name)?;
        // It was there four times, so its lines come from at most four runs.
        let runs = seen.iter().filter(|number| **number == 0 || !seen.contains(&(*number - 1))).count();
        ensure!(!seen.is_empty() && runs <= 4, "{name}: {runs} runs of lines in Loki");
        ensure!(!seen.contains(&0), "{name}: its past was fetched");
    }
    agent.stop()
}

#[test]
fn a_bad_config_is_refused_by_name_and_line_and_the_old_one_runs_on() -> Result<()> {
    let home = Home::new()?;
    let writers = Writers::start(&home)?;
    let good = simple(&home, "");
    let agent = home.start(&good)?;
    let ids = || -> Result<BTreeSet<u64>> {
        Ok(agent.streams()?.iter().filter_map(|row| row["id"].as_u64()).collect())
    };
    let before = ids()?;
    ensure!(before.len() == FILES.len(), "{before:?}");
    fs::write(home.path().join("file"), "in the way")?;
    let out = format!("{}/out", home.path().display());
    let lines = good.lines().count();
    let table = [
        (format!("{good}shutdown_timeout: 5\n"), format!(":{}:19: shutdown_timeout", lines + 1)),
        (format!("{good}sinks: {{}}\n"), format!(":{}:1: the key", lines + 1)),
        (good.replace("data_dir: ", "data_dir: /elsewhere"), ":1:11: data_dir: differs".to_owned()),
        (
            good.replace(&out, &format!("{}/file", home.path().display())),
            "sinks.local_file.directory".to_owned(),
        ),
        (format!("{good}levl: 1\n"), format!(":{}:1: levl: unknown key", lines + 1)),
        ("[".to_owned(), "config.yaml:".to_owned()),
    ];
    for (number, (bad, part)) in table.iter().enumerate() {
        home.write_config(bad)?;
        let (status, said) = agent.post("/-/reload")?;
        ensure!(status == 400 && said.contains(part), "{status} without {part:?}: {said}");
        assert_eq!(agent.metric("config_last_reload_successful")?, 0.0);
        // A reload by signal is only reported in the log and in health.
        agent.signal(Signal::HUP);
        wait_until("the second refusal", PATIENCE, || {
            let refused = reloads(&agent, "refused")?;
            ensure!(refused == 2 * (number as u64 + 1), "{refused}");
            Ok(())
        })?;
        let (status, health) = agent.ask("/health")?;
        ensure!(status == 503 && health.contains(part.trim_start_matches(':')), "{status}: {health}");
    }
    let log = agent.log_text()?;
    let said =
        log.lines().filter(|line| line.contains("the config was refused") && line.contains("sinks")).count();
    ensure!(said >= 2, "said {said} times:\n{log}");
    assert_eq!(ids()?, before, "the run was touched");
    home.write_config(&good)?;
    let (status, said) = agent.post("/-/reload")?;
    ensure!(status == 200 && said.contains("nothing has changed"), "{status}: {said}");
    assert_eq!((agent.metric("config_last_reload_successful")?, reloads(&agent, "unchanged")?), (1.0, 1));
    assert_eq!(ids()?, before, "the run was touched");
    agent.get("/health")?;
    for (name, count) in writers.stop()? {
        let mut got = Vec::new();
        wait_until("every line", PATIENCE, || {
            let outputs = home.records()?.into_iter().filter(|(file, _)| file.starts_with(&name));
            got = outputs.flat_map(|(_, records)| records).map(|record| record.message).collect();
            ensure!(got.len() as u64 >= count, "{} of {count}", got.len());
            Ok(())
        })?;
        let expected: Vec<String> = (0..count).map(|number| format!("{name} line {number}")).collect();
        ensure!(got == expected, "{name}: {} lines, {count} expected", got.len());
    }
    agent.stop()
}

#[test]
fn the_level_of_the_log_changes_in_place() -> Result<()> {
    let home = Home::new()?;
    let writers = Writers::start(&home)?;
    let debug = simple(&home, "");
    let agent = home.start(&debug)?;
    let before = agent.streams()?.first().context("no stream")?["id"].clone();
    reload(&home, &agent, &debug.replace("level: debug", "level: error"), false)?;
    // A run with that level would log it.
    reload(&home, &agent, &debug.replace("level: debug", "level: warn"), true)?;
    let quiet = agent.log_text()?.len();
    home.write_config(&debug.replace("level: debug", "level: error"))?;
    assert_eq!(agent.post("/-/reload")?.0, 200);
    let log = agent.log_text()?;
    ensure!(!log[quiet..].contains("INFO"), "{}", &log[quiet..]);
    assert_eq!(agent.streams()?.first().context("no stream")?["id"], before, "a new run");
    // With the previous level it logs it, in the expected words.
    let loud = agent.log_text()?.len();
    reload(&home, &agent, &debug, false)?;
    wait_until("a line of the usual level", PATIENCE, || {
        let log = agent.log_text()?;
        ensure!(log[loud..].contains("INFO"), "{}", &log[loud..]);
        Ok(())
    })?;
    writers.stop()?;
    agent.stop()
}

/// A descriptor, a thread or a task that each reload leaves behind is found after twenty of them.
#[test]
fn twenty_reloads_hold_what_one_holds() -> Result<()> {
    let (home, loki) = (Home::new()?, TestLoki::start()?);
    let writers = Writers::start(&home)?;
    let variants = [1, 2].map(|number| Variant {
        number,
        format: "ndjson",
        directory: "out",
        label: "x".to_owned(),
        stdout: true,
        loki: true,
    });
    let [one, two] = variants.map(|variant| variant.config(&home, &loki));
    let agent = home.start(&one)?;
    let settle = |what: &str, expected: Option<Held>| -> Result<Held> {
        let (mut last, mut same, began) = (None, 0, Instant::now());
        wait_until(what, PATIENCE, || {
            await_ready(&agent)?;
            let held = agent.held()?;
            same = if last == Some(held) { same + 1 } else { 0 };
            last = Some(held);
            // A renamed file stays open for five seconds behind its last write.
            ensure!(
                same >= 20
                    && began.elapsed() > Duration::from_secs(6)
                    && expected.is_none_or(|expected| expected == held),
                "{held:?}, {expected:?} before"
            );
            Ok(held)
        })
    };
    // Counted while nothing is written, in a run that has read nothing: the number of connections to Loki under load is
    // random.
    let written = writers.stop()?;
    reload(&home, &agent, &two, false)?;
    let before = settle("a quiet run to settle", None)?;
    let writers = Writers::go_on(&home, &written)?;
    for number in 0..20 {
        reload(&home, &agent, if number % 2 == 0 { &one } else { &two }, number % 3 == 0)?;
    }
    let counts = writers.stop()?;
    counts.iter().try_for_each(|(name, count)| assert_once(&home, name, *count))?;
    // Lines left in the spool would be pushed by the last run, with connections that the first did not need.
    wait_until("Loki to have everything", PATIENCE, || {
        let lag = agent.metric("spool_lag_seconds{sink=\"loki\"}")?;
        ensure!(lag == 0.0, "its oldest line is {lag} s old");
        Ok(())
    })?;
    reload(&home, &agent, &one, false)?;
    reload(&home, &agent, &two, false)?;
    settle("the last run to hold as much as the first", Some(before))?;
    // Two looks of the detector with everything quiet.
    let looked = agent.metric("task_heartbeats_total{task=\"capture\"}")?;
    wait_until("some looks", PATIENCE, || {
        ensure!(agent.metric("task_heartbeats_total{task=\"capture\"}")? >= looked + 3.0, "not yet");
        Ok(())
    })?;
    agent.assert_no_leak()?;
    agent.stop()
}

/// Many signals at once are few reloads, and the last config is the one in use.
#[test]
fn signals_collapse_and_the_last_config_wins() -> Result<()> {
    let home = Home::new()?;
    let writers = Writers::start(&home)?;
    const SIGNALS: u64 = 30;
    let config = |number: u64| simple(&home, &format!("shutdown_timeout: {number}s\n"));
    let agent = home.start(&config(10))?;
    // It sees none of them before the last is sent, however quick it is.
    agent.signal(Signal::STOP);
    for number in 1..=SIGNALS {
        home.write_config(&config(10 + number))?;
        agent.signal(Signal::HUP);
    }
    agent.signal(Signal::CONT);
    // After all of them; 202 = it still takes a while.
    wait_until("the last config to be in use", PATIENCE, || {
        let (status, said) = agent.post("/-/reload")?;
        ensure!(status == 200 && said.contains("nothing has changed"), "{status}: {said}");
        Ok(())
    })?;
    let (applied, unchanged) = (reloads(&agent, "applied")?, reloads(&agent, "unchanged")?);
    println!("{SIGNALS} signals were {applied} reloads of a changed config, {unchanged} of the same");
    ensure!((1..SIGNALS).contains(&applied), "{applied} reloads for {SIGNALS} signals");
    writers.stop()?;
    agent.stop()
}

/// A service manager may stop what it has just told to reload.
#[test]
fn a_stop_amid_a_reload_is_a_clean_end() -> Result<()> {
    let mut rand = Rand::from_env_or(10);
    let (home, loki) = (Home::new()?, TestLoki::start()?);
    let writers = Writers::start(&home)?;
    for number in 0..8 {
        let agent = home.start(&Variant::draw(&mut rand, 2 * number).config(&home, &loki))?;
        home.write_config(&Variant::draw(&mut rand, 2 * number + 1).config(&home, &loki))?;
        agent.signal(Signal::HUP);
        pass(Duration::from_millis(rand.within(0..40)));
        let log = agent.log_text()?.len();
        agent.stop().with_context(|| format!("round {number}"))?;
        let text = fs::read_to_string(home.path().join("agent.log"))?;
        ensure!(text[log..].contains("INFO"), "levels are written in other words: {}", &text[log..]);
        ensure!(!text[log..].contains("ERROR"), "{}", &text[log..]);
    }
    let written = writers.stop()?;
    let agent = home.start(&Variant::draw(&mut rand, 99).config(&home, &loki))?;
    written.iter().try_for_each(|(name, count)| assert_once(&home, name, *count))?;
    agent.stop()
}

/// A fault that check can't predict: the previous settings run again, which is reported.
#[test]
fn a_run_that_cannot_begin_gives_way_to_the_one_before() -> Result<()> {
    let home = Home::new()?;
    let writers = Writers::start(&home)?;
    let good = simple(&home, "");
    let agent = home.start(&good)?;
    // A link that leads nowhere: nothing is there, and nothing can be made there.
    let link = home.path().join("link");
    std::os::unix::fs::symlink("/nonexistent/there", &link)?;
    let out = format!("{}/out", home.path().display());
    home.write_config(&good.replace(&out, &link.display().to_string()))?;
    let (status, said) = agent.post("/-/reload")?;
    let is_said = said.contains("the previous one runs again") && said.contains("link");
    // 202: it takes longer than a client should wait; health has the words then.
    ensure!(status == 202 || (status == 500 && is_said), "{status}: {said}");
    wait_until("the reload to fail", PATIENCE, || reloads(&agent, "failed").is_ok_and(|failed| failed == 1))?;
    assert_eq!(agent.metric("config_last_reload_successful")?, 0.0);
    let before = home.output_bytes();
    wait_until("more output", PATIENCE, || home.output_bytes() > before)?;
    let (status, health) = agent.ask("/health")?;
    ensure!(status == 503 && health.contains("could not be started"), "{status}: {health}");
    // Once mended, it is accepted.
    fs::remove_file(&link)?;
    reload(&home, &agent, &good.replace(&out, &link.display().to_string()), true)?;
    agent.get("/health")?;
    writers.stop()?;
    agent.stop()
}

/// A hung file system delays no reload; it stays named, its threads are no leak, and a second reload is refused while
/// they exist, for it would leave more of them.
#[test]
fn a_hung_file_system_holds_up_no_reload() -> Result<()> {
    let home = Home::new()?;
    let (hidden, point) = (home.path().join("hidden"), home.path().join("fuse"));
    fs::create_dir_all(&hidden)?;
    fs::create_dir_all(&point)?;
    let mut file = File::options().create(true).append(true).open(hidden.join("h.log"))?;
    let mut written = 0;
    let mut write = |count: u64| -> Result<u64> {
        let lines: String = (written..written + count).map(|n| format!("h.log line {n}\n")).collect();
        file.write_all(lines.as_bytes())?;
        written += count;
        Ok(written)
    };
    write(100)?;
    let mount = HungMount::new(&hidden, &point)?;
    let writers = Writers::start(&home)?;
    let config = |number: u32| {
        let path = home.path().display();
        format!(
            "data_dir: {path}/data\nadmin: {{listen: \"127.0.0.1:0\"}}\nlog: {{level: debug}}\nshutdown_timeout: 3s\n\
             resource_monitoring: {{check_interval: 1s}}\ncontainer_monitor: {{enabled: false}}\n\
             file_monitor: {{files: [{{paths: [\"{path}/in/*.log\", \"{path}/fuse/*.log\"], format: raw}}]}}\n\
             sinks: {{local_file: {{directory: {path}/out, file: \"{number}-{{path}}.ndjson\", max_size: 0}}}}\n"
        )
    };
    let agent = home.start(&config(0))?;
    let lines_of = |name: &str| -> Result<u64> {
        Ok(messages(&home.path().join("out"), name)?.iter().map(Vec::len).sum::<usize>() as u64)
    };
    wait_until("the first lines", PATIENCE, || {
        let got = lines_of("h.log")?;
        ensure!(got == 100, "{got}");
        Ok(())
    })?;
    mount.set(Hang::Reads);
    write(100)?;
    let named = |agent: &Agent| {
        wait_until("health to name the hung file system", PATIENCE, || {
            let (status, body) = agent.ask("/health")?;
            ensure!(status == 503 && body.contains("(fuse)"), "{status}: {body}");
            Ok(())
        })
    };
    named(&agent)?;
    reload(&home, &agent, &config(1), true)?;
    named(&agent)?;
    let before = lines_of("a.log")?;
    wait_until("the healthy files to go on", PATIENCE, || {
        let got = lines_of("a.log")?;
        ensure!(got > before, "{got}");
        Ok(())
    })?;
    home.write_config(&config(2))?;
    let (status, said) = agent.post("/-/reload")?;
    ensure!(status == 400 && said.contains("still does"), "{status}: {said}");
    // Some looks of the detector.
    let looked = agent.metric("task_heartbeats_total{task=\"capture\"}")?;
    wait_until("some looks", PATIENCE, || {
        ensure!(agent.metric("task_heartbeats_total{task=\"capture\"}")? >= looked + 4.0, "not yet");
        Ok(())
    })?;
    agent.assert_no_leak()?;
    mount.set(Hang::Nothing);
    let all = write(100)?;
    wait_until("a reload to be taken", PATIENCE, || {
        let (status, said) = agent.post("/-/reload")?;
        ensure!(status == 200, "{status}: {said}");
        Ok(())
    })?;
    assert_once(&home, "h.log", all)?;
    let counts = writers.stop()?;
    counts.iter().try_for_each(|(name, count)| assert_once(&home, name, *count))?;
    wait_until("health to be well again", PATIENCE, || agent.get("/health").map(drop))?;
    agent.assert_no_leak()?;
    agent.stop()
}

/// The same with containers: the outputs of all runs together have what they print.
#[test]
fn containers_are_captured_across_reloads() -> Result<()> {
    let mut rand = Rand::from_env_or(11);
    let engine = Engine::start(EngineVersion::V28_5)?;
    let home = Home::new()?;
    let config = |number: u32, from: &str| {
        let path = home.path().display();
        format!(
            "data_dir: {path}/data\nadmin: {{listen: \"127.0.0.1:0\"}}\nlog: {{level: debug}}\n\
             sinks: {{local_file: {{directory: {path}/out, file: \"{number}-{{container_name}}.ndjson\", max_size: 0}}}}\n\
             container_monitor: {{socket_path: \"unix://{}\", read_from: {from}, read_timeout: 1s, \
             exclude_names: [\"never-{number}\"]}}\n",
            engine.socket().display()
        )
    };
    let agent = home.start(&config(0, "file"))?;
    let names: Vec<String> = (0..4).map(|number| format!("printer-{number}")).collect();
    for name in &names {
        engine.run(&RunSpec::sh(&numbered(6_000, 30)).name(name))?;
    }
    for number in 1..=8 {
        pass(Duration::from_millis(rand.within(300..1500)));
        let from = if rand.chance(1, 2) { "file" } else { "api" };
        reload(&home, &agent, &config(number, from), rand.chance(1, 2))?;
    }
    for name in &names {
        engine.wait(name)?;
        let logs = engine.logs(name)?;
        let lines =
            |text: &[u8]| String::from_utf8_lossy(text).lines().map(str::to_owned).collect::<Vec<_>>();
        let (out, err) = (lines(&logs.stdout), lines(&logs.stderr));
        // By reload, and so in order.
        let got = || -> Result<(Vec<String>, Vec<String>)> {
            let (mut got_out, mut got_err) = (Vec::new(), Vec::new());
            for number in 0..=8 {
                for record in home.records_of(&format!("{number}-{name}"))? {
                    let channel = if record.stream == "stdout" { &mut got_out } else { &mut got_err };
                    channel.push(record.message);
                }
            }
            Ok((got_out, got_err))
        };
        let _ = wait_until("every line", PATIENCE, || {
            let (got_out, got_err) = got()?;
            ensure!(
                got_out.len() + got_err.len() >= out.len() + err.len(),
                "{} and {}",
                got_out.len(),
                got_err.len()
            );
            Ok(())
        });
        let (got_out, got_err) = got()?;
        ensure!(
            got_out == out && got_err == err,
            "{name}: {} and {} lines of {} and {}",
            got_out.len(),
            got_err.len(),
            out.len(),
            err.len()
        );
    }
    agent.assert_no_leak()?;
    agent.stop()
}
