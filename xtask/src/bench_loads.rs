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
//! The peers are those of `bench_ends.rs`. What came out is compared with what was printed, line by line and in order,
//! in every run. CPU time is that of all threads of the agent; its start is in that of `loki` and `api`, and the witness of
//! descriptors is off, for `bench probe` measures that. With `--against` two programs run in turn (A B A B …).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::bench::{BenchArgs, Running, end_agent, median, write_log};
use crate::bench_ends::{Engine, Loki};
use crate::debian::run;
use crate::flame::Taken;
use crate::wait::wait_until;
use crate::{paths, tools};

const DEADLINE: Duration = Duration::from_secs(10 * 60);
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
/// Seconds before the first line's time is past.
const FIRST_LINE_S: u64 = 3_168;

/// Measures and prints.
pub fn bench(arguments: &BenchArgs) -> Result<()> {
    let mut programs = vec![built(arguments)?];
    if arguments.what == "watched" {
        return watched(arguments, &programs[0]);
    }
    programs.extend(arguments.against.clone());
    let unit = match arguments.what.as_str() {
        "loki" => "CPU-s/GiB",
        "api" => "CPU µs a line",
        _ => "% of a core",
    };
    let mut runs = vec![Vec::new(); programs.len()];
    for _ in 0..arguments.rounds {
        for (program, runs) in programs.iter().zip(&mut runs) {
            runs.push(one_run(arguments, program)?);
        }
    }
    for (program, runs) in programs.iter().zip(&runs) {
        let of = |value: fn(&Found) -> f64| median(runs.iter().map(value).collect());
        let (cpu, user, system) = (of(|run| run.user + run.system), of(|run| run.user), of(|run| run.system));
        let (switches, requests) = (of(|run| run.switches), of(|run| run.requests));
        let each: Vec<f64> = runs.iter().map(|run| run.user + run.system).collect();
        if arguments.json {
            let found = json!({
                "what": arguments.what, "program": program, "unit": unit, "cpu": cpu, "user": user, "system": system,
                "each": each, "switches_per_s": switches, "requests": requests,
            });
            println!("{found}");
        } else {
            let name = program.display();
            println!(
                "{:<9} {cpu:>7.2} {unit} (user {user:.2}, system {system:.2}), {switches:.0} switches/s, {requests:.0} pushes; each {each:.2?}; {name}",
                arguments.what
            );
        }
    }
    Ok(())
}

/// The agent to measure, built unless it is named.
pub(crate) fn built(arguments: &BenchArgs) -> Result<PathBuf> {
    if let Some(program) = &arguments.program {
        return Ok(program.clone());
    }
    let mut build = tools::cargo();
    build.args(["build", "--release", "--package", "capturer"]).current_dir(paths::workspace());
    run(&mut build).context("building the agent")?;
    Ok(paths::target().join("release/capturer"))
}

/// One run of a load, of which the agent takes a profile; the picture.
pub(crate) fn profiled_run(arguments: &BenchArgs, program: &Path) -> Result<String> {
    let mut host = Host::new(arguments, program)?;
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
fn watched(arguments: &BenchArgs, program: &Path) -> Result<()> {
    let kinds = [("nobody looks", NOBODY), ("Prometheus", PROMETHEUS), ("and page and top", ALL)];
    let mut runs = vec![Vec::new(); kinds.len()];
    for _ in 0..arguments.rounds {
        for ((_, watchers), runs) in kinds.iter().zip(&mut runs) {
            let mut host = Host::new(arguments, program)?;
            host.watchers = watchers;
            runs.push(host.live(arguments, None)?);
        }
    }
    for ((name, _), runs) in kinds.iter().zip(&runs) {
        let each: Vec<f64> = runs.iter().map(|run| run.user + run.system).collect();
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
}

fn one_run(arguments: &BenchArgs, program: &Path) -> Result<Found> {
    run_on(&Host::new(arguments, program)?, arguments)
}

fn run_on(host: &Host, arguments: &BenchArgs) -> Result<Found> {
    match arguments.what.as_str() {
        "file" => host.bulk(arguments, None),
        "live" => host.live(arguments, None),
        "live-loki" => host.live(arguments, Some(&Loki::start()?)),
        "loki" => host.bulk(arguments, Some(&Loki::start()?)),
        "api" => host.api(arguments),
        _ => host.api_live(arguments),
    }
}

struct Host {
    home: tempfile::TempDir,
    port: u16,
    program: PathBuf,
    watchers: Watchers,
    /// For so many seconds a profile is to be taken of each run.
    profile_s: Option<u64>,
    /// The last one.
    profile: Mutex<Option<String>>,
}

/// An agent at work, and the profile that is taken of it.
struct Agent {
    running: Running,
    profile: Option<Taken>,
}

impl Host {
    fn new(arguments: &BenchArgs, program: &Path) -> Result<Host> {
        let parent = arguments.dir.clone().unwrap_or_else(std::env::temp_dir);
        let home = tempfile::Builder::new().prefix("capturer-bench-").tempdir_in(parent)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let program = program.to_owned();
        Ok(Host { home, port, program, watchers: NOBODY, profile_s: None, profile: Mutex::default() })
    }

    fn path(&self) -> &Path {
        self.home.path()
    }

    /// `goes_on`: the load has no end by itself.
    fn start(&self, sources: &str, sinks: &str, goes_on: bool) -> Result<Agent> {
        let text = format!(
            "data_dir: {}/data\nadmin: {{listen: \"127.0.0.1:{}\", profile: {}}}\nlog: {{level: warn}}\n\
             resource_monitoring: {{enabled: false}}\n{sources}\nsinks: {{{sinks}}}\n",
            self.path().display(),
            self.port,
            self.profile_s.is_some(),
        );
        let config = self.path().join("bench.yaml");
        fs::write(&config, text)?;
        let mut command = Command::new(&self.program);
        command.args(["run", "-c"]).arg(config).stdin(Stdio::null());
        let running = Running(command.spawn().context("starting the agent")?);
        let profile = self.profile_s.map(|seconds| Taken::begin(self.port, seconds, goes_on));
        Ok(Agent { running, profile })
    }

    /// Waits for the agent's profile, if one is taken, and ends it.
    fn end(&self, mut agent: Agent) -> Result<()> {
        if let Some(taken) = agent.profile.take() {
            *self.profile.lock().unwrap_or_else(PoisonError::into_inner) = Some(taken.end()?);
        }
        end_agent(&mut agent.running)
    }

    fn to_files(&self, name: &str) -> String {
        format!(
            "local_file: {{directory: {}/out, file: \"{{{name}}}.ndjson\", max_size: 0}}",
            self.path().display()
        )
    }

    fn live(&self, arguments: &BenchArgs, loki: Option<&Loki>) -> Result<Found> {
        let home = self.path().display();
        fs::create_dir(self.path().join("in"))?;
        let file = |number: usize| self.path().join("in").join(format!("c{number}.log"));
        let mut files: Vec<File> =
            (0..SOURCES).map(|number| File::create(file(number))).collect::<Result<_, _>>()?;
        let sources = format!(
            "container_monitor: {{enabled: false}}\nfile_monitor: {{files: [{{paths: [\"{home}/in/*.log\"]}}]}}"
        );
        let sinks = match loki {
            Some(loki) => to_loki(loki),
            None => self.to_files("path"),
        };
        let mut agent = self.start(&sources, &sinks, true)?;
        let mut write =
            |source: usize, n: u64| Ok(files[source].write_all((text(source, n) + "\n").as_bytes())?);
        let ended = AtomicBool::new(false);
        let (mut found, printed) = std::thread::scope(|scope| {
            for (every, pages) in self.watchers {
                let ended = &ended;
                scope.spawn(move || self.watch(*every, pages, ended));
            }
            let found = self.under_load(arguments, &agent.running, LIVE_RATE, &mut write);
            ended.store(true, Ordering::Relaxed);
            found
        })?;
        self.wait_for(printed, &mut agent, if loki.is_some() { PUSHED } else { SENT })?;
        self.end(agent)?;
        match loki {
            Some(loki) => {
                found.requests = loki.requests() as f64;
                ensure_all(&by_source(loki.lines()?, "path=\"")?, SOURCES, printed)?;
            }
            None => ensure_all(&self.outputs()?, SOURCES, printed)?,
        }
        Ok(found)
    }

    fn api_live(&self, arguments: &BenchArgs) -> Result<Found> {
        let engine = Engine::start(self.path(), SOURCES)?;
        let mut agent = self.start(&over_api(&engine), &self.to_files("container_name"), true)?;
        let mut number = 0;
        let mut write = |source: usize, n: u64| {
            number += 1;
            engine.print(source, std::iter::once((time(number).as_str(), text(source, n).as_str())));
            Ok(())
        };
        let (found, printed) = self.under_load(arguments, &agent.running, API_RATE, &mut write)?;
        self.wait_for(printed, &mut agent, SENT)?;
        self.end(agent)?;
        ensure_all(&self.outputs()?, SOURCES, printed)?;
        Ok(found)
    }

    /// A warm-up, then so many seconds that are measured. Returns how many lines were printed in all.
    fn under_load(
        &self,
        arguments: &BenchArgs,
        agent: &Running,
        rate: u64,
        write: &mut dyn FnMut(usize, u64) -> Result<()>,
    ) -> Result<(Found, u64)> {
        let (pid, began) = (agent.0.id(), Instant::now());
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
            requests: 0.0,
            rss_mib: crate::bench_many::rss_mib(pid)?,
        };
        Ok((found, printed))
    }

    /// A json-file log from its beginning to its end.
    fn bulk(&self, arguments: &BenchArgs, loki: Option<&Loki>) -> Result<Found> {
        let log = self.path().join("bench-json.log");
        let lines = write_log(&log, arguments.mib() * 1024 * 1024, arguments.seed)?;
        let sources = format!(
            "container_monitor: {{enabled: false}}\nfile_monitor: {{files: [{{paths: [\"{}\"], format: docker}}]}}",
            log.display()
        );
        let sinks = loki.map_or_else(|| self.to_files("path"), to_loki);
        let began = Instant::now();
        let mut agent = self.start(&sources, &sinks, false)?;
        self.wait_for(lines, &mut agent, if loki.is_some() { PUSHED } else { SENT })?;
        let used = Used::of(agent.running.0.id())?;
        let seconds = began.elapsed().as_secs_f64();
        self.end(agent)?;
        let expected = by_channel(&log, "log")?;
        let found = match loki {
            Some(loki) => by_source(loki.lines()?, "stream=\"")?,
            None => {
                let output = fs::read_dir(self.path().join("out"))?.next().context("no output")??;
                by_channel(&output.path(), "message")?
            }
        };
        ensure!(found == expected, "other lines came than were printed");
        let gib = fs::metadata(&log)?.len() as f64 / (1024.0 * 1024.0 * 1024.0);
        Ok(used.per(gib, seconds, loki.map_or(0, Loki::requests)))
    }

    fn api(&self, arguments: &BenchArgs) -> Result<Found> {
        let engine = Engine::start(self.path(), 1)?;
        let texts: Vec<(String, String)> =
            (0..arguments.lines()).map(|number| (time(number), text(0, number))).collect();
        engine.print(0, texts.iter().map(|(time, text)| (time.as_str(), text.as_str())));
        let began = Instant::now();
        let mut agent = self.start(&over_api(&engine), &self.to_files("container_name"), false)?;
        self.wait_for(arguments.lines(), &mut agent, SENT)?;
        let used = Used::of(agent.running.0.id())?;
        let seconds = began.elapsed().as_secs_f64();
        self.end(agent)?;
        ensure_all(&self.outputs()?, 1, arguments.lines())?;
        Ok(used.per(arguments.lines() as f64 / 1e6, seconds, 0))
    }

    /// Until so many lines were delivered.
    fn wait_for(&self, lines: u64, agent: &mut Agent, counter: &str) -> Result<()> {
        wait_until("the lines to be delivered", DEADLINE, || {
            // Asking costs the agent something.
            std::thread::sleep(Duration::from_millis(100));
            if agent.running.0.try_wait().is_ok_and(|status| status.is_some()) {
                return Ok(());
            }
            let count = self.count(counter)?;
            ensure!(count >= lines, "{count} of {lines} lines");
            Ok(())
        })?;
        ensure!(agent.running.0.try_wait()?.is_none(), "the agent has ended by itself");
        Ok(())
    }

    /// Asks for pages until the load has ended.
    fn watch(&self, every: Duration, pages: &[&str], ended: &AtomicBool) {
        let mut due = Instant::now();
        while !ended.load(Ordering::Relaxed) {
            if due.elapsed() > Duration::ZERO {
                due += every;
                // While the agent starts nobody answers.
                pages.iter().for_each(|page| drop(self.get(page)));
            }
            std::thread::sleep(SLICE);
        }
    }

    fn get(&self, page: &str) -> Result<String> {
        ask(self.port, page, Duration::from_secs(10))
    }

    fn count(&self, counter: &str) -> Result<u64> {
        let text = self.get("/metrics")?;
        let lines = text.lines().filter(|line| line.starts_with(counter));
        Ok(lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum())
    }

    /// The messages of each output, in their order.
    fn outputs(&self) -> Result<BTreeMap<String, Vec<String>>> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(self.path().join("out"))? {
            let path = entry?.path();
            let mut messages = Vec::new();
            for line in BufReader::new(File::open(&path)?).lines() {
                let record: Value = serde_json::from_str(&line?)?;
                messages.push(record["message"].as_str().context("a record without a message")?.to_owned());
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.insert(source_of(&name).to_owned(), messages);
        }
        Ok(found)
    }
}

/// An agent's whole answer.
pub(crate) fn ask(port: u16, page: &str, patience: Duration) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(patience))?;
    write!(stream, "GET {page} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

const SENT: &str = "log_capturer_logs_sent_total{";
const PUSHED: &str = "log_capturer_pushed_lines_total{";

/// `…_c7.log.ndjson`, `…/c7.log` or `c7.ndjson` is `c7`.
fn source_of(name: &str) -> &str {
    let name = name.rsplit(['_', '/']).next().unwrap_or(name);
    name.split('.').next().unwrap_or(name)
}

fn to_loki(loki: &Loki) -> String {
    format!("local_file: {{enabled: false}}, loki: {{enabled: true, url: \"{}\"}}", loki.url())
}

fn over_api(engine: &Engine) -> String {
    format!("container_monitor: {{socket_path: \"unix://{}\", read_from: api}}", engine.socket().display())
}

/// The texts of a file of JSON objects, by channel.
fn by_channel(file: &Path, key: &str) -> Result<BTreeMap<String, Vec<String>>> {
    let mut found = BTreeMap::<String, Vec<String>>::new();
    for line in BufReader::new(File::open(file)?).lines() {
        let record: Value = serde_json::from_str(&line?)?;
        let stream = record["stream"].as_str().context("a line of a channel")?.to_owned();
        let text = record[key].as_str().context("a line with a text")?.trim_end_matches('\n');
        found.entry(stream).or_default().push(text.to_owned());
    }
    Ok(found)
}

/// Lines by the value of one label.
fn by_source(lines: BTreeMap<String, Vec<String>>, label: &str) -> Result<BTreeMap<String, Vec<String>>> {
    let mut found = BTreeMap::new();
    for (labels, lines) in lines {
        let value = labels.split_once(label).and_then(|(_, rest)| rest.split('"').next());
        let value = value.with_context(|| format!("no {label} in {labels}"))?;
        ensure!(found.insert(source_of(value).to_owned(), lines).is_none(), "two label sets of {value}");
    }
    Ok(found)
}

/// Each source's lines, all of them, once and in order.
fn ensure_all(found: &BTreeMap<String, Vec<String>>, sources: usize, lines: u64) -> Result<()> {
    ensure!(found.len() == sources, "lines of {} sources instead of {sources}", found.len());
    for source in 0..sources {
        let lines_of = found.get(&format!("c{source}")).with_context(|| format!("nothing of c{source}"))?;
        ensure!(lines_of.len() as u64 == lines / sources as u64, "{} lines of c{source}", lines_of.len());
        for (n, line) in lines_of.iter().enumerate() {
            ensure!(*line == text(source, n as u64), "line {n} of c{source} is {line:?}");
        }
    }
    Ok(())
}

/// The text of a source's line.
fn text(source: usize, n: u64) -> String {
    const WORDS: &str = "request done by the worker that took it from the queue of orders in the warehouse behind the shop, and \
                         nobody had to wait for longer than is promised, which is what everybody wants to read in a log";
    let any = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(source as u64).rotate_left(17);
    let len = 20 + (any % 160) as usize;
    format!("{n} c{source} {:08x} {}", any >> 32, &WORDS[..len])
}

/// A time within one day, a microsecond for each line.
fn time(number: u64) -> String {
    let seconds = FIRST_LINE_S + number / 1_000_000;
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("2026-11-22T{hour:02}:{minute:02}:{second:02}.{:09}Z", number % 1_000_000 * 1000)
}

/// What a process used so far.
#[derive(Clone, Copy, Debug)]
struct Used {
    user_s: f64,
    system_s: f64,
    switches: f64,
}

impl Used {
    fn of(pid: u32) -> Result<Used> {
        let fields = crate::sweep::stat_fields(i32::try_from(pid)?).context("the agent has ended")?;
        let ticks =
            |index: usize| -> Result<f64> { Ok(fields.get(index).context("a short stat line")?.parse()?) };
        // utime and stime are fields 14 and 15; ours begin with the third. Of both together the scheduler knows more exactly.
        let (user, system) = (ticks(11)?, ticks(12)?);
        let all_s = crate::bench_probe::cpu_ns(pid)? as f64 / 1e9;
        let user_share = if user + system > 0.0 { user / (user + system) } else { 0.0 };
        let mut switches = 0.0;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let status = fs::read_to_string(task?.path().join("status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            switches += line.context("no count of switches")?.trim().parse::<f64>()?;
        }
        Ok(Used { user_s: all_s * user_share, system_s: all_s * (1.0 - user_share), switches })
    }

    fn per(self, units: f64, seconds: f64, requests: usize) -> Found {
        Found {
            user: self.user_s / units,
            system: self.system_s / units,
            switches: self.switches / seconds,
            requests: requests as f64,
            rss_mib: 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A check that takes anything would call every agent exact.
    #[test]
    fn what_is_missing_repeated_or_in_another_order_is_seen() {
        let all = |of: &dyn Fn(usize) -> Vec<u64>| -> BTreeMap<String, Vec<String>> {
            let lines = |source| of(source).into_iter().map(|n| text(source, n)).collect();
            (0..3).map(|source| (format!("c{source}"), lines(source))).collect()
        };
        assert!(ensure_all(&all(&|_| (0..9).collect()), 3, 27).is_ok());
        for wrong in [vec![0, 1], vec![0, 1, 2, 2], vec![0, 2, 1], vec![0, 1, 3]] {
            let of = |source: usize| if source == 1 { wrong.clone() } else { vec![0, 1, 2] };
            assert!(ensure_all(&all(&of), 3, 9).is_err(), "{wrong:?}");
        }
        assert!(ensure_all(&all(&|_| vec![0, 1, 2]), 4, 12).is_err());
    }

    #[test]
    fn sources_have_their_names_in_files_and_labels() {
        for name in ["tmp_bench_in_c7.log.ndjson", "/tmp/x/in/c7.log", "c7.ndjson"] {
            assert_eq!(source_of(name), "c7");
        }
    }
}
