//! `cargo xtask bench live|live-loki|growth|loki|api|api-live|watched`: what each way through the agent costs under
//! load.
//!
//! ```text
//! live       20,000 lines a second over 50 files                  ─▶ local files    % of a core
//! live-loki  the same                                             ─▶ Loki           % of a core
//! loki       a json-file log read from its beginning              ─▶ Loki           CPU-s/GiB
//! api        a log that one answer of the Engine brings at once   ─▶ local file     CPU µs a line
//! api-live   50 containers, 20 lines a second each                ─▶ local files    % of a core
//! growth     as live, over 1, 100, 1,000 and 10,000 files         ─▶ local files    CPU µs a line
//! watched    as live, while nobody looks, Prometheus asks, and a page and `top` are open besides
//! ```
//! The servers are those of `bench_ends.rs`, the runs those of `bench_host.rs`. Every run compares what arrived with
//! what was printed, line by line and in order. CPU time is that of all threads of the agent; in `loki` and `api` it
//! includes the start; the witness of descriptors is off, as `bench probe` measures it. With `--against` and `--peer`
//! several programs run in turn (A B A B …). `live` and `live-loki` also report how long lines took to reach their
//! output (`bench_latency.rs`), and rotate their files with `--rotations`. A peer that is not exact is a result; the
//! agent must be exact.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::{Value, json};

use crate::bench::{BenchArgs, GIB, median, write_log};
use crate::bench_ends::{Engine, Loki};
use crate::bench_host::{Contender, Host, Used, Way};
use crate::bench_latency::{Latency, Written, watch_files};
use crate::bench_lines::{Exactness, Lines, by_source, compare, printed_by, text, time};

/// Lines a second of all files.
const LIVE_RATE: u64 = 20_000;
/// Lines a second of all containers.
const API_RATE: u64 = 1_000;
/// How long a load runs before it is measured: by then everything is open.
pub(crate) const WARM_UP: Duration = Duration::from_secs(2);
/// Length of the slices in which lines are written.
const SLICE: Duration = Duration::from_millis(2);

/// Measures and prints.
pub fn bench(arguments: &BenchArgs) -> Result<()> {
    let contenders = Contender::all(arguments)?;
    if arguments.what == "watched" {
        return watched(arguments, &contenders[0]);
    }
    if arguments.what == "growth" {
        return growth(arguments, &contenders);
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
    report(arguments, unit, &contenders, &runs, None);
    Ok(())
}

/// Prints a row for each program, and the first one compared with the others.
fn report(
    arguments: &BenchArgs,
    unit: &str,
    contenders: &[Contender],
    runs: &[Vec<Found>],
    streams: Option<usize>,
) {
    let mut medians = Vec::new();
    for (contender, runs) in contenders.iter().zip(runs) {
        let of = |value: fn(&Found) -> f64| median(runs.iter().map(value).collect());
        let (cpu, user, system) = (of(Found::cpu), of(|run| run.user), of(|run| run.system));
        let (switches, requests, rss) =
            (of(|run| run.switches), of(|run| run.requests), of(|run| run.rss_mib));
        let (p50, p99) = (of(|run| run.latency.p50_ms), of(|run| run.latency.p99_ms));
        let max = runs.iter().map(|run| run.latency.max_ms).fold(0.0, f64::max);
        let each: Vec<f64> = runs.iter().map(Found::cpu).collect();
        let exactness = Exactness::sum(runs.iter().map(|run| run.exactness));
        let name = contender.name();
        medians.push(cpu);
        if arguments.json {
            let mut found = json!({
                "what": arguments.what, "program": name, "peer": contender.is_peer(), "unit": unit, "cpu": cpu, "user": user,
                "system": system, "each": each, "switches_per_s": switches, "requests": requests, "rss_mib": rss,
                "exact": exactness.holds(), "exactness": exactness.to_string(),
            });
            if max > 0.0 {
                found["latency_ms"] = json!({"p50": p50, "p99": p99, "max": max});
                found["rotations_per_s"] = arguments.rotations.into();
            }
            if let Some(streams) = streams {
                found["streams"] = streams.into();
            }
            println!("{found}");
            continue;
        }
        let row = streams.map_or(arguments.what.clone(), |streams| streams.to_string());
        let latency = if max > 0.0 {
            format!(", {p50:.1} ms to the output (p99 {p99:.1}, longest {max:.1})")
        } else {
            String::new()
        };
        println!(
            "{row:<9} {cpu:>7.2} {unit} (user {user:.2}, system {system:.2}), {switches:.0} switches/s, {requests:.0} pushes, \
             {rss:.1} MiB{latency}; each {each:.2?}; {exactness}; {name}"
        );
    }
    if !arguments.json {
        print_ratios(contenders, &medians);
    }
}

/// The first program's median beside that of each other one.
pub(crate) fn print_ratios(contenders: &[Contender], medians: &[f64]) {
    for (contender, median) in contenders.iter().zip(medians).skip(1) {
        println!("{} / {}: {:.2}", contenders[0].name(), contender.name(), medians[0] / median);
    }
}

/// One run of a load in which the agent takes a profile; returns the picture.
pub(crate) fn profiled_run(arguments: &BenchArgs) -> Result<String> {
    let mut host = Host::new(arguments, &Contender::Agent(crate::bench_host::built(arguments)?))?;
    host.profile_s = Some(arguments.seconds);
    run_on(&host, arguments)?;
    let taken = host.profile.lock().unwrap_or_else(PoisonError::into_inner).take();
    taken.context("the load ended without its profile")
}

/// What watchers of an agent request, and how often.
type Watchers = &'static [(Duration, &'static [&'static str])];

const NOBODY: Watchers = &[];
const PROMETHEUS: Watchers = &[(Duration::from_secs(15), &["/metrics"])];
/// The page asks every two seconds, `capturer top` every second.
const ALL: Watchers = &[
    (Duration::from_secs(15), &["/metrics"]),
    (Duration::from_secs(2), &["/health", "/api/v1/streams", "/metrics"]),
    (Duration::from_secs(1), &["/api/v1/streams", "/health", "/metrics"]),
];

/// What it costs the agent to be watched by people and Prometheus, in turn with an agent that is left alone.
fn watched(arguments: &BenchArgs, contender: &Contender) -> Result<()> {
    let kinds = [("nobody looks", NOBODY), ("Prometheus", PROMETHEUS), ("and page and top", ALL)];
    let mut runs = vec![Vec::new(); kinds.len()];
    for _ in 0..arguments.rounds {
        for ((_, watchers), runs) in kinds.iter().zip(&mut runs) {
            let load = Live { watchers, ..Live::new(arguments.sources, None) };
            runs.push(live(&Host::new(arguments, contender)?, arguments, load)?);
        }
    }
    for ((name, _), runs) in kinds.iter().zip(&runs) {
        let each: Vec<f64> = runs.iter().map(Found::cpu).collect();
        let rss = median(runs.iter().map(|run| run.rss_mib).collect());
        println!("{name:<17} {:>6.2} % of a core, {rss:.1} MiB; each {each:.2?}", median(each.clone()));
    }
    Ok(())
}

/// The result of one run, in the unit of its load.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    user: f64,
    system: f64,
    switches: f64,
    requests: f64,
    rss_mib: f64,
    /// For a live load.
    lines_a_second: f64,
    /// For a live load over files.
    latency: Latency,
    exactness: Exactness,
}

impl Found {
    fn cpu(&self) -> f64 {
        self.user + self.system
    }

    /// Adds the comparison of what arrived with what was expected.
    fn checked(self, host: &Host, expected: &Lines, found: &Lines) -> Result<Found> {
        let exactness = compare(expected, found);
        ensure!(exactness.holds() || host.contender.is_peer(), "{exactness}");
        Ok(Found { exactness, ..self })
    }
}

fn run_on(host: &Host, arguments: &BenchArgs) -> Result<Found> {
    match arguments.what.as_str() {
        "file" => bulk(host, arguments, None),
        "live" => live(host, arguments, Live::new(arguments.sources, None)),
        "live-loki" => live(host, arguments, Live::new(arguments.sources, Some(&Loki::start()?))),
        "loki" => bulk(host, arguments, Some(&Loki::start()?)),
        "api" => api(host, arguments),
        _ => api_live(host, arguments),
    }
}

/// The settings of a live load.
#[derive(Clone, Copy)]
struct Live<'a> {
    sources: usize,
    loki: Option<&'a Loki>,
    watchers: Watchers,
    warm_up: Duration,
}

impl<'a> Live<'a> {
    fn new(sources: usize, loki: Option<&'a Loki>) -> Live<'a> {
        Live { sources, loki, watchers: NOBODY, warm_up: WARM_UP }
    }
}

fn live(host: &Host, arguments: &BenchArgs, load: Live) -> Result<Found> {
    let Live { sources, loki, watchers, warm_up } = load;
    let mut files = Files::create(&host.path().join("in"), sources, arguments.rotations)?;
    let inputs = format!("{}/*.log", files.folder.display());
    let mut working = host.start(&Way { inputs, docker: false, sources, loki, goes_on: true })?;
    let mut written = Written::new(sources);
    let mut write = |source: usize, n: u64| {
        files.rotate_if_due()?;
        let line = text(source, n) + "\n";
        written.note(source);
        Ok(files.open[source].write_all(line.as_bytes())?)
    };
    let (over, delivered) = (AtomicBool::new(false), AtomicBool::new(false));
    let (out, port, since) = (host.path().join("out"), host.port(), Instant::now() + warm_up);
    let (mut found, printed, arrivals) = std::thread::scope(|scope| {
        for (every, pages) in watchers {
            let over = &over;
            scope.spawn(move || watch(port, *every, pages, over));
        }
        let seen = loki.is_none().then(|| scope.spawn(|| watch_files(&out, sources, &delivered)));
        let rate = Rate { sources, a_second: LIVE_RATE, warm_up };
        let loaded = under_load(arguments, working.pid(), rate, &mut write);
        over.store(true, Ordering::Relaxed);
        let waited = loaded.and_then(|(found, printed)| {
            host.wait_for(printed, &mut working, loki)?;
            Ok((found, printed))
        });
        delivered.store(true, Ordering::Relaxed);
        let seen = seen.map(|seen| seen.join().map_err(|_| anyhow!("looking at outputs panicked")));
        let (found, printed) = waited?;
        Ok::<_, anyhow::Error>((found, printed, seen.transpose()?.transpose()?))
    })?;
    host.end(working)?;
    let (came, arrivals) = match (loki, arrivals) {
        (Some(loki), _) => {
            found.requests = loki.requests() as f64;
            (by_source(loki.lines()?, "path=\"")?, loki.arrivals()?)
        }
        (None, arrivals) => (host.outputs()?, arrivals.unwrap_or_default()),
    };
    found.latency = written.latencies(&arrivals, since);
    found.checked(host, &printed_by(sources, printed), &came)
}

/// The files of a live load, which are rotated by renaming, as logrotate does with `create`.
struct Files {
    folder: PathBuf,
    open: Vec<File>,
    /// How often each was rotated.
    rotated: Vec<usize>,
    /// Pause between two rotations, over all files.
    every: Option<Duration>,
    due: Instant,
    next: usize,
}

impl Files {
    fn create(folder: &Path, sources: usize, rotations: f64) -> Result<Files> {
        fs::create_dir(folder)?;
        let open =
            (0..sources).map(|source| File::create(path_of(folder, source))).collect::<Result<_, _>>()?;
        let every = (rotations > 0.0).then(|| Duration::from_secs_f64(1.0 / rotations));
        let (rotated, due) = (vec![0; sources], Instant::now() + every.unwrap_or_default());
        Ok(Files { folder: folder.to_owned(), open, rotated, every, due, next: 0 })
    }

    fn rotate_if_due(&mut self) -> Result<()> {
        let Some(every) = self.every else { return Ok(()) };
        if Instant::now() < self.due {
            return Ok(());
        }
        self.due += every;
        let source = self.next;
        self.next = (source + 1) % self.open.len();
        let path = path_of(&self.folder, source);
        let name = |rank: usize| path.with_added_extension(rank.to_string());
        for rank in (1..=self.rotated[source]).rev() {
            fs::rename(name(rank), name(rank + 1))?;
        }
        fs::rename(&path, name(1))?;
        self.rotated[source] += 1;
        self.open[source] = File::create(&path)?;
        Ok(())
    }
}

fn path_of(folder: &Path, source: usize) -> PathBuf {
    folder.join(format!("c{source}.log"))
}

fn api_live(host: &Host, arguments: &BenchArgs) -> Result<Found> {
    let sources = arguments.sources;
    let engine = Engine::start(host.path(), sources)?;
    let mut working = host.start_on(&engine, true)?;
    let mut number = 0;
    let mut write = |source: usize, n: u64| {
        number += 1;
        engine.print(source, std::iter::once((time(number).as_str(), text(source, n).as_str())));
        Ok(())
    };
    let rate = Rate { sources, a_second: API_RATE, warm_up: WARM_UP };
    let (found, printed) = under_load(arguments, working.pid(), rate, &mut write)?;
    host.wait_for(printed, &mut working, None)?;
    host.end(working)?;
    found.checked(host, &printed_by(sources, printed), &host.outputs()?)
}

/// How fast lines are written, and from when on they count.
#[derive(Clone, Copy)]
struct Rate {
    sources: usize,
    a_second: u64,
    warm_up: Duration,
}

/// A warm-up, then this many seconds that are measured. Returns how many lines were printed in all.
fn under_load(
    arguments: &BenchArgs,
    pid: u32,
    rate: Rate,
    write: &mut dyn FnMut(usize, u64) -> Result<()>,
) -> Result<(Found, u64)> {
    let Rate { sources, a_second, warm_up } = rate;
    let began = Instant::now();
    let end = warm_up + Duration::from_secs(arguments.seconds);
    let (mut printed, mut before) = (0, None);
    let place = |printed: u64| ((printed % sources as u64) as usize, printed / sources as u64);
    loop {
        let past = began.elapsed();
        if past >= warm_up && before.is_none() {
            before = Some((Used::of(pid)?, Instant::now(), printed));
        }
        if past >= end {
            break;
        }
        while printed < past.as_micros() as u64 * a_second / 1_000_000 {
            let (source, n) = place(printed);
            write(source, n)?;
            printed += 1;
        }
        std::thread::sleep(SLICE);
    }
    let (before, since, printed_before) = before.context("no time to measure")?;
    let (used, seconds) = (Used::of(pid)?, since.elapsed().as_secs_f64());
    let found = Found {
        user: 100.0 * (used.user_s - before.user_s) / seconds,
        system: 100.0 * (used.system_s - before.system_s) / seconds,
        switches: (used.switches - before.switches) / seconds,
        lines_a_second: (printed - printed_before) as f64 / seconds,
        rss_mib: crate::bench_many::rss_mib(pid)?,
        ..Found::default()
    };
    // Each source has the same number of lines.
    while printed % sources as u64 > 0 {
        let (source, n) = place(printed);
        write(source, n)?;
        printed += 1;
    }
    Ok((found, printed))
}

/// The cost of a line by the number of files that all lines are spread over.
fn growth(arguments: &BenchArgs, contenders: &[Contender]) -> Result<()> {
    for &sources in &arguments.streams {
        let mut runs = vec![Vec::new(); contenders.len()];
        // Each file is opened before the measurement begins.
        let warm_up = WARM_UP + Duration::from_millis(sources as u64);
        for _ in 0..arguments.rounds {
            for (contender, runs) in contenders.iter().zip(&mut runs) {
                let load = Live { warm_up, ..Live::new(sources, None) };
                let mut found = live(&Host::new(arguments, contender)?, arguments, load)?;
                // A percent of a core is 10 ms a second.
                let of_a_line = 10_000.0 / found.lines_a_second;
                found.user *= of_a_line;
                found.system *= of_a_line;
                runs.push(found);
            }
        }
        report(arguments, "CPU µs a line", contenders, &runs, Some(sources));
    }
    Ok(())
}

/// Reads a json-file log from its beginning to its end.
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

/// Requests pages until the load has ended.
fn watch(port: u16, every: Duration, pages: &[&str], ended: &AtomicBool) {
    let mut due = Instant::now();
    while !ended.load(Ordering::Relaxed) {
        if due.elapsed() > Duration::ZERO {
            due += every;
            // During its start the agent does not answer.
            pages.iter().for_each(|page| drop(crate::bench_host::ask(port, page, Duration::from_secs(10))));
        }
        std::thread::sleep(SLICE);
    }
}

/// The texts in a file of JSON objects, or in the only file of a folder, by channel.
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
