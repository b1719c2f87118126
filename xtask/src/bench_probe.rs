//! `cargo xtask bench probe`: what the witness of open descriptors costs.
//!
//! Two things are measured, without it and with it in turn (A B A B …), medians printed: on every tier that this kernel
//! allows, an open with its close, and another system call (`cost` in tests/probe.rs); and a busy capture, from the
//! first byte written to the last, by the CPU time of the agent's threads. Attaching is not included.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::bench::{BenchArgs, end_agent, median, start_agent, write_log};
use crate::bench_host::built;
use crate::debian::run;
use crate::wait::wait_until;
use crate::{paths, tools};

const DEADLINE: Duration = Duration::from_secs(30 * 60);
/// Config that turns the witness off.
const OFF: &str = "resource_monitoring: {enabled: false}\n";

/// Measures and prints.
pub fn bench(arguments: &BenchArgs) -> Result<()> {
    let mut pairs = tools::cargo();
    pairs.args(["test", "--package", "capturer-tests", "--profile", "ci", "--test", "probe", "--"]);
    pairs.args(["--ignored", "--nocapture", "--exact", "cost"]).current_dir(paths::workspace());
    let text = run(&mut pairs).context("measuring an opening with its closing")?;
    for line in text.lines().filter(|line| line.contains(" ns ") || line.contains("not used here")) {
        println!("{line}");
    }

    let program = built(arguments)?;
    let parent = arguments.dir.clone().unwrap_or_else(std::env::temp_dir);
    let home = tempfile::Builder::new().prefix("capturer-bench-").tempdir_in(&parent)?;
    let log = home.path().join("bench-json.log");
    let lines = write_log(&log, arguments.mib() * 1024 * 1024, arguments.seed)?;
    println!("a busy capture of {} MiB, {lines} lines (seed {})", arguments.mib(), arguments.seed);
    let (mut without, mut with) = (Vec::new(), Vec::new());
    // The first run warms up, and tells how much there is to write.
    let all = capture(&program, home.path(), &log, OFF, None)?.1;
    for _ in 0..arguments.rounds {
        without.push(capture(&program, home.path(), &log, OFF, Some(all))?.0 / lines as f64);
        with.push(capture(&program, home.path(), &log, "", Some(all))?.0 / lines as f64);
    }
    println!("CPU ns a line, every round: {without:.1?} without, {with:.1?} with");
    println!("median: {:.1} without, {:.1} with", median(without), median(with));
    Ok(())
}

/// CPU nanoseconds from the first byte of output to the last, and the number of bytes.
fn capture(program: &Path, home: &Path, log: &Path, more: &str, all: Option<u64>) -> Result<(f64, u64)> {
    let output = home.join("out");
    let mut agent = start_agent(program, home, log, &output, more)?;
    let pid = agent.0.id();
    let file = output.join("bench.ndjson");
    let written = || fs::metadata(&file).map_or(0, |metadata| metadata.len());
    wait_until("the first line", DEADLINE, || written() > 0)?;
    let before = cpu_ns(pid)?;
    match all {
        Some(all) => wait_until("the last line", DEADLINE, || written() >= all)?,
        None => {
            // Nobody knows yet how long it will be: wait until it no longer grows, then until the agent has ended.
            let mut last = 0;
            wait_until("the output to be whole", DEADLINE, || {
                std::thread::sleep(Duration::from_secs(1));
                let now = written();
                std::mem::replace(&mut last, now) == now
            })?;
        }
    }
    let used = cpu_ns(pid)? - before;
    end_agent(&mut agent)?;
    let bytes = written();
    ensure!(all.is_none_or(|all| all == bytes), "{bytes} bytes were written, other than before");
    fs::remove_dir_all(&output)?;
    Ok((used as f64, bytes))
}

/// CPU time of all threads of a process.
pub(crate) fn cpu_ns(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text =
            fs::read_to_string(task?.path().join("schedstat")).context("reading a thread's CPU time")?;
        let first = text.split_whitespace().next().context("an empty schedstat")?;
        sum += first.parse::<u64>().context("schedstat is not a number")?;
    }
    Ok(sum)
}
