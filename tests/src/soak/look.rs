//! Measures the agent and dockerd from outside: /proc, and the agent's own pages.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Lines, Plan};
use crate::agent::Agent;
use crate::engine::Engine;
use crate::wait::PATIENCE;

/// A look of so many opens a log as well.
const OPENING_EVERY: usize = 5;

/// What is held while every stream waits in a read, or where slots are shared for its turn; then beside what the reads
/// hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    /// Descriptors of the agent.
    pub fds: u64,
    /// Threads of the agent.
    pub threads: u64,
    /// Kernel operations in flight.
    pub operations: u64,
    /// Descriptors of dockerd.
    pub dockerd_fds: u64,
}

/// Ten seconds.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Since all containers were started.
    pub at: Duration,
    /// Looks that were made, and those of them at rest.
    pub looks: (usize, usize),
    /// The median of the looks at rest; nothing if there was none.
    pub rest: Option<Rest>,
    /// Tasks of the capture loop.
    pub tasks: u64,
    /// The agent's descriptors by kind, at the last look.
    pub fds: BTreeMap<String, u64>,
    /// The agent's descriptors by owner, from `/api/v1/fds`; empty where it has no such page.
    pub owners: BTreeMap<String, u64>,
    /// Resident memory of the agent.
    pub rss_bytes: u64,
    /// Of each container, least first.
    pub rotations: Vec<u64>,
    /// The oldest stream seen.
    pub age_max: Duration,
    /// The longest wait for a slot seen.
    pub wait_max: Duration,
    /// So much later than it should the latest look was made: the machine was busy, and the agent no less late.
    pub late_max: Duration,
    /// The longest that the Engine took to begin to answer a request for a container's log, which the soak made itself.
    pub opening_max: Duration,
    /// Lines so far.
    pub lines: Lines,
    /// Bytes the agent itself has declared lost.
    pub declared_bytes: u64,
}

/// The looks of one sample.
#[derive(Default)]
pub struct Looks {
    count: usize,
    at_rest: Vec<Rest>,
    fds: BTreeMap<String, u64>,
    rotations: Vec<u64>,
    age_max: Duration,
    wait_max: Duration,
    late_max: Duration,
    opening_max: Duration,
}

impl Looks {
    /// One look, so late.
    pub fn look(&mut self, late: Duration, plan: &Plan, agent: &Agent, engine: &Engine) -> Result<()> {
        self.count += 1;
        let asked = Instant::now();
        // Before the page is asked for, whose connection is a descriptor too.
        self.fds = fds_by_kind(agent.pid())?;
        let threads = fs::read_dir(format!("/proc/{}/task", agent.pid()))?.count() as u64;
        let dockerd_fds = engine.fd_count()? as u64;
        let page: Value = serde_json::from_str(&agent.get("/api/v1/streams")?)?;
        let rows = page["streams"].as_array().context("/api/v1/streams has no streams")?;
        self.late_max = self.late_max.max(late + asked.elapsed());
        if plan.read_from == "api" && self.count % OPENING_EVERY == 1 {
            self.opening_max = self.opening_max.max(opening(engine, rows)?);
        }
        let ms = |row: &Value, key: &str| Duration::from_millis(row[key].as_u64().unwrap_or(0));
        let of = |row: &&Value, operation: &str| row["operation"].as_str().unwrap_or("") == operation;
        let reading: Vec<&Value> = rows.iter().filter(|row| of(row, "read of a connection")).collect();
        // For a slot, or quiet and asked now and then because there are more containers than slots.
        let waiting: Vec<&Value> = rows
            .iter()
            .filter(|row| row["cause"].as_str().is_some_and(|cause| cause.contains("slot")))
            .collect();
        let ages = reading.iter().map(|row| ms(row, "age_ms"));
        self.age_max = ages.fold(self.age_max, Duration::max);
        let waits = waiting.iter().map(|row| ms(row, "state_age_ms"));
        self.wait_max = waits.fold(self.wait_max, Duration::max);
        self.rotations = rows.iter().map(|row| row["rotations"].as_u64().unwrap_or(0)).collect();
        self.rotations.sort_unstable();
        let rests = match plan.read_from {
            "api" if plan.shares_slots() => reading.len() + waiting.len() == plan.containers,
            "api" => reading.len() == plan.containers,
            _ => rows.iter().filter(|row| row["state"] == "following").count() == plan.containers,
        };
        if rests && page["fresh"] == true {
            let operations = page["operations"].as_u64().context("no operations")?;
            let fds: u64 = self.fds.values().sum();
            // How many follow changes all the time where slots are shared; each holds a socket, and has a read and its timer.
            let following = if plan.shares_slots() { reading.len() as u64 } else { 0 };
            // The descriptors were counted a moment before the page: where many were opened between, it is no look at rest.
            let own = (fds.checked_sub(following), operations.checked_sub(2 * following));
            if let (Some(fds), Some(operations)) = own {
                self.at_rest.push(Rest { fds, threads, operations, dockerd_fds });
            }
        }
        Ok(())
    }

    /// Puts the looks together.
    pub fn sample(self, at: Duration, agent: &Agent, lines: Lines) -> Result<Sample> {
        let median = |of: fn(&Rest) -> u64| {
            let mut numbers: Vec<u64> = self.at_rest.iter().map(of).collect();
            numbers.sort_unstable();
            numbers.get(numbers.len() / 2).copied()
        };
        let rest = median(|rest| rest.fds).map(|fds| Rest {
            fds,
            threads: median(|rest| rest.threads).unwrap_or(0),
            operations: median(|rest| rest.operations).unwrap_or(0),
            dockerd_fds: median(|rest| rest.dockerd_fds).unwrap_or(0),
        });
        Ok(Sample {
            at,
            looks: (self.count, self.at_rest.len()),
            rest,
            tasks: agent.metric("tasks")? as u64,
            fds: self.fds,
            owners: owners(agent)?,
            rss_bytes: rss_bytes(agent.pid())?,
            rotations: self.rotations,
            age_max: self.age_max,
            wait_max: self.wait_max,
            late_max: self.late_max,
            opening_max: self.opening_max,
            lines,
            declared_bytes: declared_bytes(agent)?,
        })
    }
}

/// How long the Engine takes to begin to answer when the log of a container is asked for.
fn opening(engine: &Engine, rows: &[Value]) -> Result<Duration> {
    let Some(id) = rows.first().and_then(|row| row["container_id"].as_str()) else {
        return Ok(Duration::ZERO);
    };
    let asked = Instant::now();
    let mut stream = UnixStream::connect(engine.socket())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /containers/{id}/logs?stdout=1&stderr=1&tail=1 HTTP/1.0\r\n\r\n")?;
    stream.read_exact(&mut [0])?;
    Ok(asked.elapsed())
}

/// Open descriptors by what they are: `socket`, `pipe`, `file`, `anon_inode:[io_uring]` …
fn fds_by_kind(pid: i32) -> Result<BTreeMap<String, u64>> {
    let mut kinds = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // Closed since it was listed: not open any more.
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        let target = target.to_string_lossy().into_owned();
        let kind = match target.split_once(":[") {
            Some((kind @ ("socket" | "pipe"), _)) => kind.to_owned(),
            _ if target.starts_with('/') => "file".to_owned(),
            _ => target,
        };
        *kinds.entry(kind).or_insert(0) += 1;
    }
    Ok(kinds)
}

/// `kernel_fds_open{owner}`: what the kernel programs saw opened and not released.
fn owners(agent: &Agent) -> Result<BTreeMap<String, u64>> {
    let text = agent.get("/metrics")?;
    let lines = text.lines().filter_map(|line| line.strip_prefix("log_capturer_kernel_fds_open{owner=\""));
    let parse = |line: &str| {
        let (owner, number) = line.split_once("\"} ")?;
        Some((owner.to_owned(), number.parse().ok()?))
    };
    Ok(lines.filter_map(parse).collect())
}

fn declared_bytes(agent: &Agent) -> Result<u64> {
    let text = agent.get("/metrics")?;
    let lines = text.lines().filter(|line| line.starts_with("log_capturer_lost_bytes_total{"));
    Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
}

fn rss_bytes(pid: i32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
