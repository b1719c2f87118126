//! `cargo xtask bench many|idle|start`: what many followed files cost.
//!
//! Each file has one line, and an output of its own: the agent's work is finding, opening, attaching and saving, not
//! lines. Each run compares what arrived with what was written, line by line.
//!
//! - *many*: N files in one directory, and in N directories: until all lines are out, then what the agent holds, what it
//!   does while nothing happens, and how soon it delivers a line that is added to a file it had closed.
//! - *idle*: the same for 1,000 files, without and with the witness of descriptors.
//! - *start*: how soon after its start the agent delivers the first line, without and with the witness.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::bench::{BenchArgs, Running, end_agent, median};
use crate::bench_host::{Contender, QUIET, built, wait_for_peer};
use crate::bench_lines::{Exactness, Lines, compare, source_of};
use crate::bench_loads::print_ratios;
use crate::bench_peers::{LineCounter, Places};
use crate::wait::wait_until;

const DEADLINE: Duration = Duration::from_secs(10 * 60);
/// How many files grow, one after the other.
const GROWING: usize = 20;
/// This long after its last line the agent is at rest.
const REST: Duration = Duration::from_secs(5);
/// How often the bench checks whether a line has arrived.
const LOOK: Duration = Duration::from_millis(1);
/// Files of `idle`.
const IDLE_FILES: usize = 1_000;

/// Measures and prints.
pub fn bench(arguments: &BenchArgs) -> Result<()> {
    let contenders = Contender::all(arguments)?;
    match arguments.what.as_str() {
        "start" => start(arguments),
        "idle" => {
            print_head(arguments);
            for probe in [false, true] {
                // A peer has no witness.
                let contenders: Vec<Contender> =
                    contenders.iter().filter(|contender| !probe || !contender.is_peer()).cloned().collect();
                let name = format!("{IDLE_FILES} files{}", if probe { ", witness" } else { "" });
                measure(arguments, &contenders, &name, IDLE_FILES, false, probe)?;
            }
            Ok(())
        }
        _ => {
            print_head(arguments);
            for files in [arguments.files / 2, arguments.files] {
                for directories in [false, true] {
                    let place = if directories { "a directory each" } else { "one directory" };
                    measure(arguments, &contenders, &format!("{files}, {place}"), files, directories, false)?;
                }
            }
            Ok(())
        }
    }
}

fn print_head(arguments: &BenchArgs) {
    if !arguments.json {
        println!("{}", Found::HEAD);
    }
}

/// Medians of some runs of each program, in turn.
fn measure(
    arguments: &BenchArgs,
    contenders: &[Contender],
    name: &str,
    files: usize,
    directories: bool,
    probe: bool,
) -> Result<()> {
    let mut runs = vec![Vec::new(); contenders.len()];
    for _ in 0..arguments.rounds {
        for (contender, runs) in contenders.iter().zip(&mut runs) {
            runs.push(one_run(arguments, contender, files, directories, probe)?);
        }
    }
    for (contender, runs) in contenders.iter().zip(&runs) {
        if arguments.json {
            println!("{}", Found::json(&arguments.what, name, files, contender, runs));
        } else {
            println!("{}", Found::row(name, runs, &contender.name()));
        }
    }
    if !arguments.json {
        let medians: Vec<f64> =
            runs.iter().map(|runs| median(runs.iter().map(|run| run.cpu_s).collect())).collect();
        print_ratios(contenders, &medians);
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, Default)]
struct Found {
    settled_s: f64,
    cpu_s: f64,
    rss_mib: f64,
    descriptors: f64,
    idle_percent: f64,
    growth_ms: f64,
    stop_s: f64,
    exactness: Exactness,
}

impl Found {
    const HEAD: &'static str =
        "median                     all lines s   CPU-s  RSS MiB  descriptors   idle %  growth ms   stop s";

    fn json(what: &str, name: &str, files: usize, contender: &Contender, runs: &[Found]) -> Value {
        let of = |value: fn(&Found) -> f64| median(runs.iter().map(value).collect());
        let exactness = Exactness::sum(runs.iter().map(|run| run.exactness));
        json!({
            "what": what, "row": name, "files": files, "program": contender.name(), "peer": contender.is_peer(),
            "unit": "CPU-s", "cpu": of(|run| run.cpu_s), "each": runs.iter().map(|run| run.cpu_s).collect::<Vec<_>>(),
            "settled_s": of(|run| run.settled_s), "rss_mib": of(|run| run.rss_mib),
            "descriptors": of(|run| run.descriptors), "idle_percent": of(|run| run.idle_percent),
            "growth_ms": of(|run| run.growth_ms), "stop_s": of(|run| run.stop_s),
            "exact": exactness.holds(), "exactness": exactness.to_string(),
        })
    }

    fn row(name: &str, runs: &[Found], program: &str) -> String {
        let of = |value: fn(&Found) -> f64| median(runs.iter().map(value).collect());
        let exactness = Exactness::sum(runs.iter().map(|run| run.exactness));
        format!(
            "{name:<26} {:>11.1} {:>7.2} {:>8.0} {:>12.0} {:>8.3} {:>10.0} {:>8.1}  {exactness}; {program}",
            of(|run| run.settled_s),
            of(|run| run.cpu_s),
            of(|run| run.rss_mib),
            of(|run| run.descriptors),
            of(|run| run.idle_percent),
            of(|run| run.growth_ms),
            of(|run| run.stop_s),
        )
    }
}

fn one_run(
    arguments: &BenchArgs,
    contender: &Contender,
    files: usize,
    directories: bool,
    probe: bool,
) -> Result<Found> {
    let idle = Duration::from_secs(arguments.idle_s);
    let host = Host::new(arguments, contender, files, directories)?;
    let started = Instant::now();
    let mut agent = host.start(probe)?;
    let pid = agent.0.id();
    let settled = host.wait_for(files, &mut agent)?;
    let mut found = Found { settled_s: (settled - started).as_secs_f64(), ..Found::default() };
    std::thread::sleep(REST);
    found.cpu_s = cpu_s(pid)?;
    found.descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?.count() as f64;
    let before = cpu_s(pid)?;
    std::thread::sleep(idle);
    found.idle_percent = 100.0 * (cpu_s(pid)? - before) / idle.as_secs_f64();
    found.rss_mib = rss_mib(pid)?;
    let mut growths = Vec::new();
    for at in 0..GROWING.min(files) {
        let number = at * (files / GROWING.min(files));
        let Some(output) = host.output(number)? else {
            ensure!(contender.is_peer(), "no output of {}", host.file(number).display());
            continue;
        };
        let len = || fs::metadata(&output).map_or(0, |metadata| metadata.len());
        let before = len();
        let grown = Instant::now();
        let mut file = fs::File::options().append(true).open(host.file(number))?;
        writeln!(file, "more {at}")?;
        let deadline = if contender.is_peer() { QUIET } else { DEADLINE };
        while len() == before && (!contender.is_peer() || grown.elapsed() < deadline) {
            ensure!(grown.elapsed() < DEADLINE, "a line of {} did not come", host.file(number).display());
            std::thread::sleep(LOOK);
        }
        growths.push(grown.elapsed().as_secs_f64() * 1000.0);
        if !contender.is_peer() {
            host.wait_for(files + at + 1, &mut agent)?;
        }
    }
    found.growth_ms = if growths.is_empty() { f64::NAN } else { median(growths) };
    let stopping = Instant::now();
    end_agent(&mut agent)?;
    found.stop_s = stopping.elapsed().as_secs_f64();
    found.exactness = host.exactness()?;
    ensure!(found.exactness.holds() || contender.is_peer(), "{}", found.exactness);
    Ok(found)
}

/// Measures how soon the first line arrives.
fn start(arguments: &BenchArgs) -> Result<()> {
    let contender = Contender::Agent(built(arguments)?);
    for (name, probe) in [("without the witness", false), ("with the witness", true)] {
        let mut times = Vec::new();
        for _ in 0..arguments.rounds {
            let host = Host::new(arguments, &contender, 1, false)?;
            let len = || host.output(0).ok().flatten().and_then(|output| fs::metadata(output).ok());
            let started = Instant::now();
            let mut agent = host.start(probe)?;
            while len().is_none_or(|metadata| metadata.len() == 0) {
                ensure!(started.elapsed() < DEADLINE, "no line came");
                std::thread::sleep(LOOK);
            }
            times.push(started.elapsed().as_secs_f64() * 1000.0);
            host.wait_for(1, &mut agent)?;
            end_agent(&mut agent)?;
            let exactness = host.exactness()?;
            ensure!(exactness.holds(), "{exactness}");
        }
        println!("first line {name}: median {:.0} ms of {times:.0?}", median(times.clone()));
    }
    Ok(())
}

/// Files, and an agent's folders beside them.
struct Host {
    home: tempfile::TempDir,
    files: usize,
    directories: bool,
    port: u16,
    contender: Contender,
    close_idle_after: Option<String>,
}

impl Host {
    fn new(arguments: &BenchArgs, contender: &Contender, files: usize, directories: bool) -> Result<Host> {
        let parent = arguments.dir.clone().unwrap_or_else(std::env::temp_dir);
        let home = tempfile::Builder::new().prefix("capturer-bench-").tempdir_in(parent)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let close_idle_after = arguments.close_idle_after.clone();
        let contender = contender.clone();
        let host = Host { home, files, directories, port, contender, close_idle_after };
        fs::create_dir(host.home.path().join("in"))?;
        for number in 0..files {
            let file = host.file(number);
            if directories {
                fs::create_dir(file.parent().context("a file in a directory")?)?;
            }
            fs::write(file, format!("line {number}\n"))?;
        }
        Ok(host)
    }

    fn file(&self, number: usize) -> PathBuf {
        let home = self.home.path().join("in");
        let name = format!("f{number}.log");
        if self.directories { home.join(format!("d{number}")).join(name) } else { home.join(name) }
    }

    /// The file's output, if it exists. The agent adds a hash of the path to the name.
    fn output(&self, number: usize) -> Result<Option<PathBuf>> {
        let source = format!("f{number}");
        for entry in fs::read_dir(self.home.path().join("out"))? {
            let entry = entry?;
            if source_of(&entry.file_name().to_string_lossy()) == source {
                return Ok(Some(entry.path()));
            }
        }
        Ok(None)
    }

    fn start(&self, probe: bool) -> Result<Running> {
        let home = self.home.path().display();
        let pattern = if self.directories { "*/*.log" } else { "*.log" };
        let program = match &self.contender {
            Contender::Agent(program) => program,
            Contender::Peer(peer) => {
                let inputs = &*format!("{home}/in/{pattern}");
                return peer.start(&Places {
                    home: self.home.path(),
                    inputs,
                    sources: self.files,
                    loki: None,
                });
            }
        };
        let closing = self.close_idle_after.as_ref().map(|after| format!("close_idle_after: {after}, "));
        let closing = closing.unwrap_or_default();
        let text = format!(
            "data_dir: {home}/data\nadmin: {{listen: \"127.0.0.1:{}\"}}\nlog: {{level: warn}}\n\
             container_monitor: {{enabled: false}}\nresource_monitoring: {{enabled: {probe}}}\n\
             file_monitor: {{{closing}files: [{{paths: [\"{home}/in/{pattern}\"]}}]}}\n\
             sinks: {{local_file: {{directory: {home}/out, file: \"{{path}}.ndjson\"}}}}\n",
            self.port
        );
        let config = self.home.path().join("bench.yaml");
        fs::write(&config, text)?;
        let child = Command::new(program).args(["run", "-c"]).arg(config).stdin(Stdio::null()).spawn()?;
        Ok(Running(child))
    }

    /// Waits until this many lines were delivered, or a peer is done; returns the time.
    fn wait_for(&self, lines: usize, agent: &mut Running) -> Result<Instant> {
        if self.contender.is_peer() {
            let mut counter = LineCounter::default();
            return Ok(wait_for_peer(lines as u64, agent, || counter.look(&self.home.path().join("out")))?.1);
        }
        wait_until("the lines to be delivered", DEADLINE, || {
            if agent.0.try_wait().is_ok_and(|status| status.is_some()) {
                return true;
            }
            delivered(self.port).is_ok_and(|count| count >= lines)
        })?;
        ensure!(agent.0.try_wait()?.is_none(), "the agent has ended by itself");
        Ok(Instant::now())
    }

    /// Fails unless each line is there once, and nothing else.
    fn exactness(&self) -> Result<Exactness> {
        let mut found = Lines::new();
        for entry in fs::read_dir(self.home.path().join("out"))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let lines = found.entry(source_of(&name).to_owned()).or_default();
            for line in fs::read_to_string(&path)?.lines() {
                lines.push(self.contender.message(line.to_owned())?);
            }
        }
        let mut expected = Lines::new();
        for number in 0..self.files {
            let lines = fs::read_to_string(self.file(number))?.lines().map(str::to_owned).collect();
            expected.insert(format!("f{number}"), lines);
        }
        Ok(compare(&expected, &found))
    }
}

/// How many lines the agent reports as delivered by its sink.
fn delivered(port: u16) -> Result<usize> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let lines = text.lines().filter(|line| line.starts_with("log_capturer_logs_sent_total{"));
    let counts = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<usize>().ok());
    Ok(counts.sum())
}

/// CPU time of all threads of a process.
fn cpu_s(pid: u32) -> Result<f64> {
    Ok(crate::bench_probe::cpu_ns(pid)? as f64 / 1e9)
}

pub(crate) fn rss_mib(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}
