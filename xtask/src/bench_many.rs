//! `cargo xtask bench many|idle|start`: what many followed files cost.
//!
//! Each file holds one line, and each has an output of its own: the agent's work is finding, opening, attaching and saving,
//! not lines. What comes out is compared with what went in, line by line, in each run.
//!
//! - *many*: N files in one directory, and in N directories: until all lines are out, then what the agent holds, what it
//!   does while nothing happens, and how soon it delivers a line that is added to a file it had closed.
//! - *idle*: the same for 1,000 files, without and with the witness of descriptors.
//! - *start*: how soon after its start the agent delivers the first line, without and with the witness.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::bench::{BenchArgs, Running, end_agent, median};
use crate::debian::run;
use crate::wait::wait_until;
use crate::{paths, tools};

const DEADLINE: Duration = Duration::from_secs(10 * 60);
/// Files that grow one after the other.
const GROWING: usize = 20;
/// The agent has come to rest so long after its last line.
const REST: Duration = Duration::from_secs(5);
/// How often it is looked whether a line came.
const LOOK: Duration = Duration::from_millis(1);
/// Files of `idle`.
const IDLE_FILES: usize = 1_000;

/// Measures and prints.
pub fn bench(arguments: &BenchArgs) -> Result<()> {
    if arguments.program.is_none() {
        let mut build = tools::cargo();
        build.args(["build", "--release", "--package", "capturer"]).current_dir(paths::workspace());
        run(&mut build).context("building the agent")?;
    }
    let idle = Duration::from_secs(arguments.idle_s);
    match arguments.what.as_str() {
        "start" => start(arguments),
        "idle" => {
            println!("{}", Found::HEAD);
            for probe in [false, true] {
                let name = format!("{IDLE_FILES} files{}", if probe { ", witness" } else { "" });
                measure(arguments, &name, IDLE_FILES, false, probe, idle)?;
            }
            Ok(())
        }
        _ => {
            println!("{}", Found::HEAD);
            for files in [arguments.files / 2, arguments.files] {
                for directories in [false, true] {
                    let place = if directories { "a directory each" } else { "one directory" };
                    measure(arguments, &format!("{files}, {place}"), files, directories, false, idle)?;
                }
            }
            Ok(())
        }
    }
}

/// Medians of some runs.
fn measure(
    arguments: &BenchArgs,
    name: &str,
    files: usize,
    directories: bool,
    probe: bool,
    idle: Duration,
) -> Result<()> {
    let runs: Result<Vec<Found>> =
        (0..arguments.rounds).map(|_| one_run(arguments, files, directories, probe, idle)).collect();
    println!("{}", Found::row(name, &runs?));
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
}

impl Found {
    const HEAD: &'static str =
        "median                     all lines s   CPU-s  RSS MiB  descriptors   idle %  growth ms   stop s";

    fn row(name: &str, runs: &[Found]) -> String {
        let of = |value: fn(&Found) -> f64| median(runs.iter().map(value).collect());
        format!(
            "{name:<26} {:>11.1} {:>7.2} {:>8.0} {:>12.0} {:>8.3} {:>10.0} {:>8.1}",
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
    files: usize,
    directories: bool,
    probe: bool,
    idle: Duration,
) -> Result<Found> {
    let host = Host::new(arguments, files, directories)?;
    let started = Instant::now();
    let mut agent = host.start(probe)?;
    let pid = agent.0.id();
    host.wait_for(files, &mut agent)?;
    let mut found = Found { settled_s: started.elapsed().as_secs_f64(), ..Found::default() };
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
        let output = host.output(number)?.context("an output for each file")?;
        let len = || fs::metadata(&output).map_or(0, |metadata| metadata.len());
        let before = len();
        let grown = Instant::now();
        let mut file = fs::File::options().append(true).open(host.file(number))?;
        writeln!(file, "more {at}")?;
        while len() == before {
            ensure!(grown.elapsed() < DEADLINE, "a line of {} did not come", host.file(number).display());
            std::thread::sleep(LOOK);
        }
        growths.push(grown.elapsed().as_secs_f64() * 1000.0);
        host.wait_for(files + at + 1, &mut agent)?;
    }
    found.growth_ms = median(growths);
    let stopping = Instant::now();
    end_agent(&mut agent)?;
    found.stop_s = stopping.elapsed().as_secs_f64();
    host.ensure_exact()?;
    Ok(found)
}

/// How soon the first line comes.
fn start(arguments: &BenchArgs) -> Result<()> {
    for (name, probe) in [("without the witness", false), ("with the witness", true)] {
        let mut times = Vec::new();
        for _ in 0..arguments.rounds {
            let host = Host::new(arguments, 1, false)?;
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
            host.ensure_exact()?;
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
    program: PathBuf,
    close_idle_after: Option<String>,
}

impl Host {
    fn new(arguments: &BenchArgs, files: usize, directories: bool) -> Result<Host> {
        let parent = arguments.dir.clone().unwrap_or_else(std::env::temp_dir);
        let home = tempfile::Builder::new().prefix("capturer-bench-").tempdir_in(parent)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let built = paths::target().join("release/capturer");
        let program = arguments.program.clone().unwrap_or(built);
        let close_idle_after = arguments.close_idle_after.clone();
        let host = Host { home, files, directories, port, program, close_idle_after };
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

    /// The file's output, once there is one. Its name has a hash of the path.
    fn output(&self, number: usize) -> Result<Option<PathBuf>> {
        let start = format!("f{number}.log~");
        for entry in fs::read_dir(self.home.path().join("out"))? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&start) {
                return Ok(Some(entry.path()));
            }
        }
        Ok(None)
    }

    fn start(&self, probe: bool) -> Result<Running> {
        let home = self.home.path().display();
        let closing = self.close_idle_after.as_ref().map(|after| format!("close_idle_after: {after}, "));
        let closing = closing.unwrap_or_default();
        let pattern = if self.directories { "*/*.log" } else { "*.log" };
        let text = format!(
            "data_dir: {home}/data\nadmin: {{listen: \"127.0.0.1:{}\"}}\nlog: {{level: warn}}\n\
             container_monitor: {{enabled: false}}\nresource_monitoring: {{enabled: {probe}}}\n\
             file_monitor: {{{closing}files: [{{paths: [\"{home}/in/{pattern}\"]}}]}}\n\
             sinks: {{local_file: {{directory: {home}/out, file: \"{{path}}.ndjson\"}}}}\n",
            self.port
        );
        let config = self.home.path().join("bench.yaml");
        fs::write(&config, text)?;
        let child =
            Command::new(&self.program).args(["run", "-c"]).arg(config).stdin(Stdio::null()).spawn()?;
        Ok(Running(child))
    }

    /// Until so many lines were delivered.
    fn wait_for(&self, lines: usize, agent: &mut Running) -> Result<()> {
        wait_until("the lines to be delivered", DEADLINE, || {
            if agent.0.try_wait().is_ok_and(|status| status.is_some()) {
                return true;
            }
            delivered(self.port).is_ok_and(|count| count >= lines)
        })?;
        ensure!(agent.0.try_wait()?.is_none(), "the agent has ended by itself");
        Ok(())
    }

    /// Each line is there once, and nothing else.
    fn ensure_exact(&self) -> Result<()> {
        let mut expected = BTreeMap::new();
        for number in 0..self.files {
            for line in fs::read_to_string(self.file(number))?.lines() {
                *expected.entry(line.to_owned()).or_insert(0_i64) += 1;
            }
        }
        count_messages(&self.home.path().join("out"), &mut expected)?;
        let wrong: Vec<_> = expected.iter().filter(|(_, count)| **count != 0).take(5).collect();
        ensure!(wrong.is_empty(), "lines that are missing, or there too often: {wrong:?}");
        Ok(())
    }
}

fn count_messages(directory: &Path, expected: &mut BTreeMap<String, i64>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            count_messages(&path, expected)?;
            continue;
        }
        for line in fs::read_to_string(&path)?.lines() {
            let record: serde_json::Value = serde_json::from_str(line)?;
            let message = record["message"].as_str().context("a record without a message")?;
            *expected.entry(message.to_owned()).or_insert(0) -= 1;
        }
    }
    Ok(())
}

/// Lines that the agent says its sink has delivered.
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
