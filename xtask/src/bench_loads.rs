//! `cargo xtask bench live|live-loki|loki|api|api-live|watched`: what a load costs on each way through the agent.
//!
//! ```text
//! live       20,000 lines a second over 50 files                  ─▶ local files    % of a core
//! live-loki  the same                                             ─▶ Loki           % of a core
//! loki       a json-file log read from its beginning              ─▶ Loki           CPU-s/GiB
//! api        a log that one answer of the Engine brings at once   ─▶ local file     CPU µs a line
//! api-live   50 containers, 20 lines a second each                ─▶ local files    % of a core
//! watched    as live, while nobody looks, Prometheus asks, and a page and `top` are open besides
//! ```
//! The ends are those of `bench_ends.rs`, the runs those of `bench_host.rs`. What came out is compared with what was printed,
//! line by line and in order, in every run. CPU time is that of all threads of the agent; its start is in that of `loki` and `api`,
//! and the witness of descriptors is off, for `bench probe` measures that. With `--against` and `--peer` several programs run in
//! turn (A B A B …). A peer that is not exact is a result; the agent must be.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::bench::{BenchArgs, GIB, median, write_log};
use crate::bench_ends::{Engine, Loki};
use crate::bench_host::{Contender, Host, Used, Way};
use crate::bench_lines::{Exactness, Lines, by_source, compare, printed_by, text, time};

/// Files of `live`, containers of `api-live`.
const SOURCES: usize = 50;
/// Lines a second of all files.
const LIVE_RATE: u64 = 20_000;
/// Lines a second of all containers.
const API_RATE: u64 = 1_000;
/// A load goes on so long before it is measured: by then everything is open.
pub(crate) const WARM_UP: Duration = Duration::from_secs(2);
/// Lines are written in slices of so long.
const SLICE: Duration = Duration::from_millis(2);

/// Measures and prints.
pub fn bench(arguments: &BenchArgs) -> Result<()> {
    let contenders = Contender::all(arguments)?;
    if arguments.what == "watched" {
        return watched(arguments, &contenders[0]);
    }
    let unit = match arguments.what.as_str() {
        "loki" => "CPU-s/GiB",
        "api" => "CPU µs a line",
        _ => "% of a core",
    };
    let mut runs = vec![Vec::new(); contenders.len()];
    for _ in 0..arguments.rounds {
        for (contender, runs) in contenders.iter().zip(&mut runs) {
            runs.push(run_on(&Host::new(arguments, contender)?, arguments)?);
        }
    }
    let mut medians = Vec::new();
    for (contender, runs) in contenders.iter().zip(&runs) {
        let of = |value: fn(&Found) -> f64| median(runs.iter().map(value).collect());
        let (cpu, user, system) = (of(|run| run.cpu()), of(|run| run.user), of(|run| run.system));
        let (switches, requests, rss) =
            (of(|run| run.switches), of(|run| run.requests), of(|run| run.rss_mib));
        let each: Vec<f64> = runs.iter().map(Found::cpu).collect();
        let exactness = Exactness::sum(runs.iter().map(|run| run.exactness));
        let name = contender.name();
        medians.push(cpu);
        if arguments.json {
            let found = json!({
                "what": arguments.what, "program": name, "peer": contender.is_peer(), "unit": unit, "cpu": cpu, "user": user,
                "system": system, "each": each, "switches_per_s": switches, "requests": requests, "rss_mib": rss,
                "exact": exactness.holds(), "exactness": exactness.to_string(),
            });
            println!("{found}");
        } else {
            println!(
                "{:<9} {cpu:>7.2} {unit} (user {user:.2}, system {system:.2}), {switches:.0} switches/s, {requests:.0} pushes, \
                 {rss:.1} MiB; each {each:.2?}; {exactness}; {name}",
                arguments.what
            );
        }
    }
    if !arguments.json {
        print_ratios(&contenders, &medians);
    }
    Ok(())
}

/// The first program's median beside that of each other one.
pub(crate) fn print_ratios(contenders: &[Contender], medians: &[f64]) {
    for (contender, median) in contenders.iter().zip(medians).skip(1) {
        println!("{} / {}: {:.2}", contenders[0].name(), contender.name(), medians[0] / median);
    }
}

/// One run of a load, of which the agent takes a profile; the picture.
pub(crate) fn profiled_run(arguments: &BenchArgs) -> Result<String> {
    let mut host = Host::new(arguments, &Contender::Agent(crate::bench_host::built(arguments)?))?;
    host.profile_s = Some(arguments.seconds);
    run_on(&host, arguments)?;
    let taken = host.profile.lock().unwrap_or_else(PoisonError::into_inner).take();
    taken.context("the load ended without its profile")
}

/// What those ask who look at an agent, and how often.
type Watchers = &'static [(Duration, &'static [&'static str])];

const NOBODY: Watchers = &[];
const PROMETHEUS: Watchers = &[(Duration::from_secs(15), &["/metrics"])];
/// The page asks every two seconds, `capturer top` every second.
const ALL: Watchers = &[
    (Duration::from_secs(15), &["/metrics"]),
    (Duration::from_secs(2), &["/health", "/api/v1/streams", "/metrics"]),
    (Duration::from_secs(1), &["/api/v1/streams", "/health", "/metrics"]),
];

/// What it costs the agent that people and Prometheus look at it, in turn with an agent that is left alone.
fn watched(arguments: &BenchArgs, contender: &Contender) -> Result<()> {
    let kinds = [("nobody looks", NOBODY), ("Prometheus", PROMETHEUS), ("and page and top", ALL)];
    let mut runs = vec![Vec::new(); kinds.len()];
    for _ in 0..arguments.rounds {
        for ((_, watchers), runs) in kinds.iter().zip(&mut runs) {
            runs.push(live(&Host::new(arguments, contender)?, arguments, None, watchers)?);
        }
    }
    for ((name, _), runs) in kinds.iter().zip(&runs) {
        let each: Vec<f64> = runs.iter().map(Found::cpu).collect();
        let rss = median(runs.iter().map(|run| run.rss_mib).collect());
        println!("{name:<17} {:>6.2} % of a core, {rss:.1} MiB; each {each:.2?}", median(each.clone()));
    }
    Ok(())
}

/// One run, in the unit of what was measured.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    user: f64,
    system: f64,
    switches: f64,
    requests: f64,
    rss_mib: f64,
    exactness: Exactness,
}

impl Found {
    fn cpu(&self) -> f64 {
        self.user + self.system
    }

    /// With what came out held against what was to come.
    fn checked(self, host: &Host, expected: &Lines, found: &Lines) -> Result<Found> {
        let exactness = compare(expected, found);
        ensure!(exactness.holds() || host.contender.is_peer(), "{exactness}");
        Ok(Found { exactness, ..self })
    }
}

fn run_on(host: &Host, arguments: &BenchArgs) -> Result<Found> {
    match arguments.what.as_str() {
        "file" => bulk(host, arguments, None),
        "live" => live(host, arguments, None, NOBODY),
        "live-loki" => live(host, arguments, Some(&Loki::start()?), NOBODY),
        "loki" => bulk(host, arguments, Some(&Loki::start()?)),
        "api" => api(host, arguments),
        _ => api_live(host, arguments),
    }
}

fn live(host: &Host, arguments: &BenchArgs, loki: Option<&Loki>, watchers: Watchers) -> Result<Found> {
    let folder = host.path().join("in");
    fs::create_dir(&folder)?;
    let file = |number: usize| folder.join(format!("c{number}.log"));
    let mut files: Vec<File> =
        (0..SOURCES).map(|number| File::create(file(number))).collect::<Result<_, _>>()?;
    let inputs = format!("{}/*.log", folder.display());
    let mut working = host.start(&Way { inputs, docker: false, sources: SOURCES, loki, goes_on: true })?;
    let mut write = |source: usize, n: u64| Ok(files[source].write_all((text(source, n) + "\n").as_bytes())?);
    let ended = AtomicBool::new(false);
    let (mut found, printed) = std::thread::scope(|scope| {
        for (every, pages) in watchers {
            let ended = &ended;
            let port = host.port();
            scope.spawn(move || watch(port, *every, pages, ended));
        }
        let found = under_load(arguments, working.pid(), LIVE_RATE, &mut write);
        ended.store(true, Ordering::Relaxed);
        found
    })?;
    host.wait_for(printed, &mut working, loki)?;
    host.end(working)?;
    let came = match loki {
        Some(loki) => {
            found.requests = loki.requests() as f64;
            by_source(loki.lines()?, "path=\"")?
        }
        None => host.outputs()?,
    };
    found.checked(host, &printed_by(SOURCES, printed), &came)
}

fn api_live(host: &Host, arguments: &BenchArgs) -> Result<Found> {
    let engine = Engine::start(host.path(), SOURCES)?;
    let mut working = host.start_on(&engine, true)?;
    let mut number = 0;
    let mut write = |source: usize, n: u64| {
        number += 1;
        engine.print(source, std::iter::once((time(number).as_str(), text(source, n).as_str())));
        Ok(())
    };
    let (found, printed) = under_load(arguments, working.pid(), API_RATE, &mut write)?;
    host.wait_for(printed, &mut working, None)?;
    host.end(working)?;
    found.checked(host, &printed_by(SOURCES, printed), &host.outputs()?)
}

/// A warm-up, then so many seconds that are measured. Returns how many lines were printed in all.
fn under_load(
    arguments: &BenchArgs,
    pid: u32,
    rate: u64,
    write: &mut dyn FnMut(usize, u64) -> Result<()>,
) -> Result<(Found, u64)> {
    let began = Instant::now();
    let end = WARM_UP + Duration::from_secs(arguments.seconds);
    let (mut printed, mut before) = (0, None);
    loop {
        let past = began.elapsed();
        if past >= WARM_UP && before.is_none() {
            before = Some((Used::of(pid)?, Instant::now()));
        }
        if past >= end {
            break;
        }
        while printed < past.as_micros() as u64 * rate / 1_000_000 {
            write((printed % SOURCES as u64) as usize, printed / SOURCES as u64)?;
            printed += 1;
        }
        std::thread::sleep(SLICE);
    }
    // Each source has the same number of lines.
    while printed % SOURCES as u64 > 0 {
        write((printed % SOURCES as u64) as usize, printed / SOURCES as u64)?;
        printed += 1;
    }
    let (before, since) = before.context("no time to measure")?;
    let (used, seconds) = (Used::of(pid)?, since.elapsed().as_secs_f64());
    let found = Found {
        user: 100.0 * (used.user_s - before.user_s) / seconds,
        system: 100.0 * (used.system_s - before.system_s) / seconds,
        switches: (used.switches - before.switches) / seconds,
        rss_mib: crate::bench_many::rss_mib(pid)?,
        ..Found::default()
    };
    Ok((found, printed))
}

/// A json-file log from its beginning to its end.
fn bulk(host: &Host, arguments: &BenchArgs, loki: Option<&Loki>) -> Result<Found> {
    let log = host.path().join("bench-json.log");
    let lines = write_log(&log, arguments.mib() * 1024 * 1024, arguments.seed)?;
    let inputs = log.display().to_string();
    let began = Instant::now();
    let mut working = host.start(&Way { inputs, docker: true, sources: 1, loki, goes_on: false })?;
    let (used, ended) = host.wait_for(lines, &mut working, loki)?;
    let rss_mib = crate::bench_many::rss_mib(working.pid())?;
    host.end(working)?;
    let gib = fs::metadata(&log)?.len() as f64 / GIB;
    let mut found = per(used, gib, ended - began, loki.map_or(0, Loki::requests));
    found.rss_mib = rss_mib;
    if host.contender.is_peer() {
        let whole = BufReader::new(File::open(&log)?).lines().collect::<Result<_, _>>()?;
        let came = loki.map_or_else(|| host.outputs(), Loki::lines)?.into_values().flatten().collect();
        return found.checked(
            host,
            &Lines::from([(String::new(), whole)]),
            &Lines::from([(String::new(), came)]),
        );
    }
    let came = match loki {
        Some(loki) => by_source(loki.lines()?, "stream=\"")?,
        None => by_channel(&host.path().join("out"), "message")?,
    };
    found.checked(host, &by_channel(&log, "log")?, &came)
}

fn api(host: &Host, arguments: &BenchArgs) -> Result<Found> {
    let engine = Engine::start(host.path(), 1)?;
    let texts: Vec<(String, String)> =
        (0..arguments.lines()).map(|number| (time(number), text(0, number))).collect();
    engine.print(0, texts.iter().map(|(time, text)| (time.as_str(), text.as_str())));
    let began = Instant::now();
    let mut working = host.start_on(&engine, false)?;
    let (used, ended) = host.wait_for(arguments.lines(), &mut working, None)?;
    let rss_mib = crate::bench_many::rss_mib(working.pid())?;
    host.end(working)?;
    let found = Found { rss_mib, ..per(used, arguments.lines() as f64 / 1e6, ended - began, 0) };
    found.checked(host, &printed_by(1, arguments.lines()), &host.outputs()?)
}

fn per(used: Used, units: f64, time: Duration, requests: usize) -> Found {
    Found {
        user: used.user_s / units,
        system: used.system_s / units,
        switches: used.switches / time.as_secs_f64(),
        requests: requests as f64,
        ..Found::default()
    }
}

/// Asks for pages until the load has ended.
fn watch(port: u16, every: Duration, pages: &[&str], ended: &AtomicBool) {
    let mut due = Instant::now();
    while !ended.load(Ordering::Relaxed) {
        if due.elapsed() > Duration::ZERO {
            due += every;
            // While the agent starts nobody answers.
            pages.iter().for_each(|page| drop(crate::bench_host::ask(port, page, Duration::from_secs(10))));
        }
        std::thread::sleep(SLICE);
    }
}

/// The texts of a file of JSON objects, or of the only one in a folder, by channel.
fn by_channel(path: &Path, key: &str) -> Result<Lines> {
    let mut found = Lines::new();
    let file = match path.is_dir() {
        true => fs::read_dir(path)?.next().context("no output")??.path(),
        false => path.to_owned(),
    };
    for line in BufReader::new(File::open(file)?).lines() {
        let record: Value = serde_json::from_str(&line?)?;
        let stream = record["stream"].as_str().context("a line of a channel")?.to_owned();
        let text = record[key].as_str().context("a line with a text")?.trim_end_matches('\n');
        found.entry(stream).or_default().push(text.to_owned());
    }
    Ok(found)
}
