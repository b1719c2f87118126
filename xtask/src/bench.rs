//! `cargo xtask bench`: what the agent costs per GiB of log, compared with the least that anything could cost.
//!
//! ```text
//! seed ─▶ one json-file log ─┬─▶ plain loop: read, scan Docker's one line shape, write NDJSON ─▶ output ┐ the same
//!        (temporary folder)  └─▶ the agent, release build, file_monitor ─▶ local_file ─────────▶ output ┘ bytes
//! ```
//! Both are processes, run in turn (A B A B …) so that other work of the machine slows both; the medians are printed.
//! The loop does nothing that an agent must do: no positions, no rotation, no other line shape, no second sink, no
//! handling of damage. The ratio is the price of all that.
//!
//! Peers of `bench_peers.rs` take turns as well. They copy lines unchanged, for not all of them know Docker's shape.
//!
//! The log is in the page cache, as it is when a container has just written it. The cost of the agent's start and end
//! is measured by runs over a log of one line, and has its own row: it matters less on a larger log.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::bench_host::{Contender, wait_for_peer};
use crate::bench_lines::{Exactness, Lines, compare};
use crate::bench_peers::{LineCounter, Peer, Places};
use crate::debian::run;
use crate::rand::Rand;
use crate::sweep::stat_fields;
use crate::wait::wait_until;
use crate::{paths, tools};

const MIB: u64 = 1024 * 1024;
pub(crate) const GIB: f64 = 1024.0 * 1024.0 * 1024.0;
/// For one run over the whole log.
const RUN_DEADLINE: Duration = Duration::from_secs(30 * 60);
/// For the agent to end after SIGTERM: it syncs its output to disk.
const END_DEADLINE: Duration = Duration::from_secs(120);
/// Bytes the plain loop reads and writes at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// What to measure.
#[derive(clap::Args)]
pub struct BenchArgs {
    /// What is measured: `file`, a json-file log read from disk; `many`, thousands of small files; `idle`, a thousand files of
    /// which none grows; `start`, the first line after a start; `probe`, what the witness of descriptors costs; `live`, `live-loki`,
    /// `loki`, `api`, `api-live`, a load on each way through the agent; `growth`, a line's cost by the number of files; `watched`, what it costs to look at it meanwhile
    #[arg(value_parser = ["file", "many", "idle", "start", "probe", "live", "live-loki", "loki", "api", "api-live", "growth", "watched"], default_value = "file")]
    pub(crate) what: String,
    /// Size of the log, 512 unless said otherwise; `file` takes several: 1,64,1024
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) mib: Vec<u64>,
    /// Runs of each, of which the median is printed
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// What the log's lines are drawn from
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Files of `many`
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub(crate) files: usize,
    /// `close_idle_after` of `many` and `idle`, as in a config: quiet files are closed
    #[arg(long, value_name = "DURATION")]
    pub(crate) close_idle_after: Option<String>,
    /// Seconds for which the agent is watched while nothing happens
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) idle_s: u64,
    /// Seconds for which a load is measured
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seconds: u64,
    /// Lines of `api`: a million unless said otherwise
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) lines: Option<u64>,
    /// Files of `growth`
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1, 100, 1_000, 10_000])]
    pub(crate) streams: Vec<usize>,
    /// Files or containers of `live`, `live-loki`, `watched` and `api-live`, which share the load's lines
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) sources: usize,
    /// Rotations a second of `live` and `live-loki`, over all files
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    pub(crate) rotations: f64,
    /// Another agent, that is measured in turn with the first one: A B A B …
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) against: Option<PathBuf>,
    /// Another program, described in tests/bench/peers, that takes turns with the agent; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) peer: Vec<String>,
    /// The agent to measure; without it the release build, which is made first
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) program: Option<PathBuf>,
    /// Prints a JSON object for each agent, of a load
    #[arg(long)]
    pub(crate) json: bool,
    /// Where the temporary folder is made: three times the log must fit
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

impl BenchArgs {
    /// Sizes of the log, for what is measured at several.
    pub(crate) fn sizes(&self) -> Vec<u64> {
        if self.mib.is_empty() { vec![self.mib()] } else { self.mib.clone() }
    }

    /// Size of the log, for what is measured at one.
    pub(crate) fn mib(&self) -> u64 {
        self.mib.first().copied().unwrap_or(512)
    }

    /// Lines of `api`.
    pub(crate) fn lines(&self) -> u64 {
        self.lines.unwrap_or(1_000_000)
    }
}

/// One run.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    user_s: f64,
    system_s: f64,
    wall_s: f64,
    rss_bytes: u64,
}

/// Measures and prints.
pub fn bench(arguments: &BenchArgs) -> Result<()> {
    ensure!(
        arguments.peer.is_empty() || crate::bench_peers::LOADS.contains(&arguments.what.as_str()),
        "peers can be measured in {}",
        crate::bench_peers::LOADS.join(", ")
    );
    match arguments.what.as_str() {
        "probe" => return crate::bench_probe::bench(arguments),
        "many" | "idle" | "start" => return crate::bench_many::bench(arguments),
        "live" | "live-loki" | "loki" | "api" | "api-live" | "growth" | "watched" => {
            return crate::bench_loads::bench(arguments);
        }
        _ => {}
    }
    let contenders = Contender::all(arguments)?;
    let mut build = tools::cargo();
    build.args(["build", "--release", "--package", "xtask"]);
    run(build.current_dir(paths::workspace())).context("building the plain loop")?;
    for mib in arguments.sizes() {
        file(arguments, &contenders, mib)?;
    }
    Ok(())
}

/// A log of one size, by each program in turn.
fn file(arguments: &BenchArgs, contenders: &[Contender], mib: u64) -> Result<()> {
    let parent = arguments.dir.clone().unwrap_or_else(std::env::temp_dir);
    let home = tempfile::Builder::new().prefix("capturer-bench-").tempdir_in(&parent)?;
    let log = home.path().join("bench-json.log");
    let lines = write_log(&log, mib * MIB, arguments.seed)?;
    let gib = fs::metadata(&log)?.len() as f64 / GIB;
    eprintln!("a json-file log of {mib} MiB, {lines} lines (seed {})", arguments.seed);

    let short = home.path().join("short-json.log");
    write_log(&short, 1, arguments.seed)?;

    let mut starts = Vec::new();
    let mut rows = vec![Row::new("plain loop", false)];
    rows.extend(contenders.iter().map(|contender| Row::new(&contender.short_name(), contender.is_peer())));
    let Contender::Agent(program) = &contenders[0] else { bail!("the first program is the agent") };
    for round in 1..=arguments.rounds {
        starts.push(measure_agent(program, home.path(), &short, &home.path().join("short"), 1)?);
        fs::remove_dir_all(home.path().join("short"))?;
        let plain = home.path().join("plain.ndjson");
        rows[0].runs.push(measure_loop(&log, &plain)?);
        for (contender, row) in contenders.iter().zip(&mut rows[1..]) {
            match contender {
                Contender::Agent(program) => {
                    let output = home.path().join("out");
                    let expected = fs::metadata(&plain)?.len();
                    row.runs.push(measure_agent(program, home.path(), &log, &output, expected)?);
                    // A fast agent that writes something else would prove nothing.
                    ensure_same(&plain, &output.join("bench.ndjson"))?;
                    fs::remove_dir_all(&output)?;
                }
                Contender::Peer(peer) => {
                    let (measured, exactness) = measure_peer(peer, arguments, &log, lines)?;
                    row.runs.push(measured);
                    row.exactness = Exactness::sum([row.exactness, exactness].into_iter());
                }
            }
        }
        fs::remove_file(&plain)?;
        eprintln!(
            "round {round} of {}: the agent's output is the plain loop's, byte by byte",
            arguments.rounds
        );
    }
    if arguments.json {
        rows.iter().for_each(|row| println!("{}", row.json(mib, gib, lines)));
    } else {
        print!("\n{}", table(gib, lines, &rows, &starts));
    }
    Ok(())
}

/// All runs of one program.
struct Row {
    name: String,
    is_peer: bool,
    runs: Vec<Measured>,
    exactness: Exactness,
}

impl Row {
    fn new(name: &str, is_peer: bool) -> Row {
        Row { name: name.to_owned(), is_peer, runs: Vec::new(), exactness: Exactness::default() }
    }

    fn median(&self, value: fn(&Measured) -> f64) -> f64 {
        median(self.runs.iter().map(value).collect())
    }

    fn cpu_per(&self, gib: f64) -> f64 {
        (self.median(|run| run.user_s) + self.median(|run| run.system_s)) / gib
    }

    fn json(&self, mib: u64, gib: f64, lines: u64) -> serde_json::Value {
        let each: Vec<f64> = self.runs.iter().map(|run| (run.user_s + run.system_s) / gib).collect();
        serde_json::json!({
            "what": "file", "program": self.name, "peer": self.is_peer, "unit": "CPU-s/GiB", "mib": mib,
            "cpu": self.cpu_per(gib), "user": self.median(|run| run.user_s) / gib,
            "system": self.median(|run| run.system_s) / gib, "each": each,
            "lines_per_s": lines as f64 / self.median(|run| run.wall_s),
            "rss_mib": self.median(|run| run.rss_bytes as f64) / MIB as f64,
            "exact": self.exactness.holds(), "exactness": self.exactness.to_string(),
        })
    }
}

/// The first row is the plain loop, the second the agent.
fn table(gib: f64, lines: u64, rows: &[Row], starts: &[Measured]) -> String {
    let mut text = format!(
        "{:<22} {:>9} {:>9} {:>9} {:>12} {:>11}\n",
        "median", "CPU-s/GiB", "user", "system", "lines/s", "max RSS MiB"
    );
    for row in rows {
        let exactness = if row.is_peer { format!("  {}", row.exactness) } else { String::new() };
        text += &format!(
            "{:<22} {:>9.2} {:>9.2} {:>9.2} {:>12.0} {:>11.1}{exactness}\n",
            row.name,
            row.cpu_per(gib),
            row.median(|run| run.user_s) / gib,
            row.median(|run| run.system_s) / gib,
            lines as f64 / row.median(|run| run.wall_s),
            row.median(|run| run.rss_bytes as f64) / MIB as f64,
        );
    }
    let start = median(starts.iter().map(|run| run.user_s + run.system_s).collect());
    let (plain_cpu, agent_cpu) = (rows[0].cpu_per(gib), rows[1].cpu_per(gib));
    let lasting_cpu = agent_cpu - start / gib;
    text += &format!(
        "{:<22} {:>9.2}\n{:<22} {lasting_cpu:>9.2}  (starting and ending: {start:.2} CPU-s a run)\n\
         {:<22} {:>9.2}\n",
        "capturer / plain loop",
        agent_cpu / plain_cpu,
        "capturer, once started",
        "its / plain loop",
        lasting_cpu / plain_cpu,
    );
    for row in &rows[2..] {
        text +=
            &format!("{:<22} {:>9.2}\n", format!("capturer / {}", row.name), agent_cpu / row.cpu_per(gib));
    }
    text
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) {
        f64::midpoint(values[middle - 1], values[middle])
    } else {
        values[middle]
    }
}

// ---- the two runs

/// A process that is killed when dropped.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn measure_loop(log: &Path, output: &Path) -> Result<Measured> {
    let before = cpu_of_children()?;
    let started = Instant::now();
    let program = paths::target().join("release/xtask");
    let ended = Command::new(program).arg("plain-loop").arg(log).arg(output).output()?;
    let wall_s = started.elapsed().as_secs_f64();
    ensure!(ended.status.success(), "the plain loop failed: {}", String::from_utf8_lossy(&ended.stderr));
    let rss_bytes = String::from_utf8(ended.stdout)?.trim().parse().context("what the plain loop printed")?;
    used_since(before, wall_s, rss_bytes)
}

fn measure_agent(
    program: &Path,
    home: &Path,
    log: &Path,
    output: &Path,
    expected_bytes: u64,
) -> Result<Measured> {
    let before = cpu_of_children()?;
    let started = Instant::now();
    let mut agent = start_agent(program, home, log, output, "")?;
    wait_until("the agent to write all of it", RUN_DEADLINE, || {
        let written = fs::metadata(output.join("bench.ndjson")).map_or(0, |metadata| metadata.len());
        match agent.0.try_wait() {
            // No reason to fail here; missing output is reported below.
            Ok(Some(_)) => true,
            _ => written >= expected_bytes,
        }
    })?;
    let wall_s = started.elapsed().as_secs_f64();
    let pid = i32::try_from(agent.0.id()).context("a process id over 31 bits")?;
    let rss_bytes = max_rss(&format!("/proc/{pid}/status")).context("the agent has ended by itself")?;
    end_agent(&mut agent)?;
    used_since(before, wall_s, rss_bytes)
}

/// A peer copies the lines unchanged; this checks its output.
fn measure_peer(peer: &Peer, arguments: &BenchArgs, log: &Path, lines: u64) -> Result<(Measured, Exactness)> {
    let parent = arguments.dir.clone().unwrap_or_else(std::env::temp_dir);
    let home = tempfile::Builder::new().prefix("capturer-bench-").tempdir_in(&parent)?;
    let out = home.path().join("out");
    let before = cpu_of_children()?;
    let started = Instant::now();
    let inputs = &*log.display().to_string();
    let mut running = peer.start(&Places { home: home.path(), inputs, sources: 1, loki: None })?;
    let mut counter = LineCounter::default();
    let (_, ended) = wait_for_peer(lines, &mut running, || counter.look(&out))?;
    let rss_bytes = max_rss(&format!("/proc/{}/status", running.0.id()))?;
    end_agent(&mut running)?;
    let measured = used_since(before, (ended - started).as_secs_f64(), rss_bytes)?;
    let mut outputs = fs::read_dir(&out)?.map(|entry| entry.map(|entry| entry.path()));
    let output = outputs.next().context("no output")??;
    if outputs.next().is_none() && ensure_same(log, &output).is_ok() {
        return Ok((measured, Exactness::default()));
    }
    let read = |path: &Path| -> Result<Lines> {
        let lines = BufReader::new(File::open(path)?).lines().map(|line| peer.message(line?));
        Ok(Lines::from([(String::new(), lines.collect::<Result<_>>()?)]))
    };
    Ok((measured, compare(&read(log)?, &read(&output)?)))
}

/// Starts the release agent on one log, with extra sections of config.
pub(crate) fn start_agent(
    program: &Path,
    home: &Path,
    log: &Path,
    output: &Path,
    more: &str,
) -> Result<Running> {
    let data = home.join("data");
    if data.exists() {
        fs::remove_dir_all(&data)?;
    }
    let config = home.join("bench.yaml");
    let text = format!(
        "data_dir: {}\nadmin: {{listen: \"\"}}\nlog: {{level: warn}}\ncontainer_monitor: {{enabled: false}}\n\
         file_monitor: {{files: [{{paths: [\"{}\"], format: docker}}]}}\n\
         sinks: {{local_file: {{directory: {}, file: bench.ndjson, max_size: 0}}}}\n{more}",
        data.display(),
        log.display(),
        output.display()
    );
    fs::write(&config, text)?;
    let child = Command::new(program).args(["run", "-c"]).arg(&config).stdin(Stdio::null()).spawn()?;
    Ok(Running(child))
}

/// Sends SIGTERM; the agent must exit with success.
pub(crate) fn end_agent(agent: &mut Running) -> Result<()> {
    let pid = i32::try_from(agent.0.id()).context("a process id over 31 bits")?;
    kill_process(Pid::from_raw(pid).context("no process")?, Signal::TERM)?;
    let status = wait_until("the agent to end", END_DEADLINE, || agent.0.try_wait().ok().flatten())?;
    ensure!(status.success(), "the agent ended with {status}");
    Ok(())
}

/// User and system seconds of all children that have been waited for, summed.
fn cpu_of_children() -> Result<(f64, f64)> {
    let pid = i32::try_from(std::process::id()).context("a process id over 31 bits")?;
    let fields = stat_fields(pid).context("reading /proc/self/stat")?;
    let seconds = |index: usize| -> Result<f64> {
        let ticks: u64 = fields.get(index).context("a short stat line")?.parse()?;
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    };
    // cutime and cstime are fields 16 and 17; ours begin with the third.
    Ok((seconds(13)?, seconds(14)?))
}

fn used_since(before: (f64, f64), wall_s: f64, rss_bytes: u64) -> Result<Measured> {
    let after = cpu_of_children()?;
    Ok(Measured { user_s: after.0 - before.0, system_s: after.1 - before.1, wall_s, rss_bytes })
}

fn max_rss(status: &str) -> Result<u64> {
    let text = fs::read_to_string(status)?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: u64 = line.trim().strip_suffix(" kB").context("VmHWM in an unknown unit")?.parse()?;
    Ok(kib * 1024)
}

fn ensure_same(one: &Path, other: &Path) -> Result<()> {
    let mut files = [BufReader::new(File::open(one)?), BufReader::new(File::open(other)?)];
    let mut chunks = [vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]];
    let mut at = 0;
    loop {
        let mut lens = [0; 2];
        for index in 0..2 {
            let chunk = &mut chunks[index];
            while lens[index] < chunk.len() {
                match files[index].read(&mut chunk[lens[index]..])? {
                    0 => break,
                    count => lens[index] += count,
                }
            }
        }
        if lens[0] != lens[1] || chunks[0][..lens[0]] != chunks[1][..lens[1]] {
            bail!("{} and {} differ behind byte {at}", one.display(), other.display());
        }
        if lens[0] == 0 {
            return Ok(());
        }
        at += lens[0];
    }
}

// ---- the plain loop

/// Reads a json-file log and writes it as NDJSON, for Docker's one line shape alone; prints its largest memory.
pub fn plain_loop(log: &Path, output: &Path) -> Result<()> {
    let path = format!("\",\"path\":\"{}\",\"message\":\"", log.display());
    let (mut from, mut to) = (File::open(log)?, File::create(output)?);
    let mut held = vec![0; 2 * CHUNK_BYTES];
    let (mut len, mut out) = (0, Vec::with_capacity(2 * CHUNK_BYTES));
    loop {
        let count = from.read(&mut held[len..])?;
        if count == 0 {
            break;
        }
        len += count;
        let mut at = 0;
        while let Some(end) = memchr::memchr(b'\n', &held[at..len]) {
            convert(&held[at..at + end], path.as_bytes(), &mut out).context("not Docker's one line shape")?;
            at += end + 1;
        }
        held.copy_within(at..len, 0);
        len -= at;
        to.write_all(&out)?;
        out.clear();
    }
    println!("{}", max_rss("/proc/self/status")?);
    Ok(())
}

fn convert(line: &[u8], path: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let text = line.strip_prefix(b"{\"log\":\"")?;
    let mut end = 0;
    loop {
        end += memchr::memchr2(b'"', b'\\', text.get(end..)?)?;
        if text[end] == b'"' {
            break;
        }
        end += 2;
    }
    let message = text[..end].strip_suffix(b"\\n")?;
    let rest = text[end..].strip_prefix(b"\",\"stream\":\"")?;
    let (stream, rest) = rest.split_at_checked(b"stdout".len())?;
    let time = rest.strip_prefix(b"\",\"time\":\"")?.strip_suffix(b"\"}")?;
    for part in [b"{\"time\":\"".as_slice(), time, b"\",\"stream\":\"", stream, path, message, b"\"}\n"] {
        out.extend_from_slice(part);
    }
    Some(())
}

// ---- the log

/// Writes lines as they are seen on hosts, at least `bytes` of them; returns how many.
pub(crate) fn write_log(path: &Path, bytes: u64, seed: u64) -> Result<u64> {
    let mut rand = Rand::new(seed);
    let mut file = BufWriter::with_capacity(CHUNK_BYTES, File::create(path)?);
    let (mut written, mut lines, mut time_ns) = (0, 0, 0_u64);
    while written < bytes {
        time_ns += rand.within(1_000..400_000);
        let text = message(&mut rand);
        let stream = if rand.chance(1, 5) { "stderr" } else { "stdout" };
        let time = time(time_ns);
        let line = format!("{{\"log\":\"{text}\\n\",\"stream\":\"{stream}\",\"time\":\"{time}\"}}\n");
        file.write_all(line.as_bytes())?;
        written += line.len() as u64;
        lines += 1;
    }
    file.flush()?;
    Ok(lines)
}

/// Escapes a text for a JSON string, as Go does.
fn message(rand: &mut Rand) -> String {
    let number = rand.within(0..1_000_000);
    match rand.within(0..10) {
        // An access log.
        0..4 => {
            let status = rand.pick(&[200, 200, 200, 204, 304, 404, 500]);
            let agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36";
            format!(
                "10.0.{}.{} - - [22/Nov/2026:00:52:48 +0000] \\\"GET /shop/item/{number}?ref=list HTTP/1.1\\\" {status} {} \\\"-\\\" \\\"{agent}\\\"",
                rand.within(0..256),
                rand.within(0..256),
                rand.within(100..60_000)
            )
        }
        // A program that logs JSON: every quote is an escape.
        4..6 => format!(
            "{{\\\"level\\\":\\\"info\\\",\\\"ts\\\":{number}.25,\\\"logger\\\":\\\"http.server\\\",\\\"msg\\\":\\\"request done\\\",\\\"request_id\\\":\\\"{:016x}\\\",\\\"took_ms\\\":{}}}",
            rand.number(),
            rand.within(1..2_000)
        ),
        // Plain words.
        6..8 => format!(
            "INFO worker-{} finished job {number} of queue mail in {} ms",
            number % 16,
            rand.within(1..900)
        ),
        // Hardly anything.
        8 => format!("tick {number}"),
        // A frame of a stack trace, with a tab and a generic's angle brackets as Go escapes them; sometimes a long one.
        _ => {
            let frame = format!(
                "\\tat org.example.shop.Repository\\u003cItem\\u003e.find(Repository.java:{number}) – größer"
            );
            if rand.chance(1, 20) { frame.repeat(30) } else { frame }
        }
    }
}

/// RFC 3339 within one day, which is enough for a log of any size used here.
fn time(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("2026-11-22T{hour:02}:{minute:02}:{second:02}.{:09}Z", ns % 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loop_converts_every_line_that_is_drawn() {
        let home = tempfile::tempdir().unwrap();
        let (log, output) = (home.path().join("l"), home.path().join("o"));
        let lines = write_log(&log, MIB, 7).unwrap();
        plain_loop(&log, &output).unwrap();
        let text = fs::read_to_string(&output).unwrap();
        let mut count = 0;
        for (line, original) in text.lines().zip(fs::read_to_string(&log).unwrap().lines()) {
            let (line, original): (serde_json::Value, serde_json::Value) =
                (serde_json::from_str(line).unwrap(), serde_json::from_str(original).unwrap());
            assert_eq!(format!("{}\n", line["message"].as_str().unwrap()), original["log"].as_str().unwrap());
            assert_eq!((&line["time"], &line["stream"]), (&original["time"], &original["stream"]));
            count += 1;
        }
        assert_eq!(count, lines);
        ensure_same(&output, &output).unwrap();
        assert!(ensure_same(&output, &log).is_err());
    }

    /// Numbers from two days can only be compared if the log is the same.
    #[test]
    fn a_seed_draws_the_same_log() {
        let home = tempfile::tempdir().unwrap();
        let log = |name: &str, seed| {
            write_log(&home.path().join(name), 10_000, seed).unwrap();
            fs::read(home.path().join(name)).unwrap()
        };
        assert!(log("a", 1) == log("b", 1) && log("a", 1) != log("c", 2));
    }

    #[test]
    fn the_table_fits_and_takes_medians() {
        let run = |user_s| Measured { user_s, system_s: 1.0, wall_s: 2.0, rss_bytes: 10 * MIB };
        let row = |name, runs: &[f64]| Row {
            runs: runs.iter().map(|user_s| run(*user_s)).collect(),
            ..Row::new(name, name == "rsyslogd")
        };
        let mut rows = vec![row("plain loop", &[1.0, 9.0, 0.5]), row("capturer", &[3.0, 3.0])];
        let text = table(0.5, 1_000_000, &rows, &[run(0.0)]);
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
        assert!(
            text.contains("plain loop                  4.00      2.00      2.00       500000        10.0"),
            "{text}"
        );
        assert!(text.contains("capturer / plain loop       2.00\n"), "{text}");
        // The start takes one second, which is two seconds per GiB of this log.
        assert!(
            text.contains("capturer, once started      6.00  (starting and ending: 1.00 CPU-s a run)\n"),
            "{text}"
        );
        assert!(text.ends_with("its / plain loop            1.50\n"), "{text}");
        rows.push(row("rsyslogd", &[7.0]));
        let text = table(0.5, 1_000_000, &rows, &[run(0.0)]);
        assert!(text.ends_with("capturer / rsyslogd         0.50\n"), "{text}");
        assert!(text.contains("10.0  exact\n"), "{text}");
    }
}
