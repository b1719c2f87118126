//! A panicking thread must not leave an agent that looks healthy and delivers nothing: whichever thread it is, the
//! process ends with 70 and one line that names it, and the next start continues without losing or repeating a line.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use capturer_tests::agent::{Agent, Home};
use capturer_tests::fuse::HungMount;
use capturer_tests::loki::TestLoki;
use capturer_tests::wait::wait_until;
use rustix::process::Signal;
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(120);

/// Small outputs, so that the archive has work to do.
fn config(home: &Home, loki: &TestLoki) -> String {
    let (path, url) = (home.path().display(), loki.url());
    format!(
        "data_dir: {path}/data\nadmin: {{listen: \"127.0.0.1:0\"}}\nlog: {{level: debug}}\n\
         container_monitor: {{enabled: false}}\n\
         file_monitor: {{files: [{{paths: [\"{path}/in/*.log\", \"{path}/mount/*.log\"]}}]}}\n\
         sinks:\n  local_file: {{directory: {path}/out, file: all.ndjson, max_size: 64KiB, max_files: 10000, compress: none}}\n  \
         loki: {{enabled: true, url: \"{url}\"}}\n"
    )
}

/// Writes numbered lines, one per request.
struct Writer {
    file: File,
    lines: u64,
}

impl Writer {
    fn new(path: &Path) -> Result<Writer> {
        Ok(Writer { file: File::options().create(true).append(true).open(path)?, lines: 0 })
    }

    fn write(&mut self) -> Result<()> {
        self.lines += 1;
        // Long enough for the output to be rotated within some hundred lines.
        Ok(writeln!(self.file, "line {} {}", self.lines, "x".repeat(1000))?)
    }
}

/// How often each line was delivered to the outputs, by its number.
fn delivered(home: &Home) -> Result<BTreeMap<u64, u64>> {
    let mut times = BTreeMap::new();
    for entry in fs::read_dir(home.output_dir())? {
        for line in fs::read_to_string(entry?.path())?.lines() {
            let record: Value = serde_json::from_str(line)?;
            let message = record["message"].as_str().context("no message")?;
            let number = message.split(' ').nth(1).context("no number")?.parse()?;
            *times.entry(number).or_default() += 1;
        }
    }
    Ok(times)
}

fn faulty() -> Result<PathBuf> {
    let program = std::env::var_os("CAPTURER_FAULTY_BIN").context(
        "CAPTURER_FAULTY_BIN names the agent with faults; `cargo xtask test` builds it and sets this",
    )?;
    Ok(program.into())
}

fn ready(agent: &Agent) -> Result<()> {
    wait_until("the agent to be ready", DEADLINE, || agent.get("/readyz")).map(drop)
}

/// Makes the thread panic; `poke` is repeated until the process has ended.
fn panic_of(thread: &str, poke: impl Fn(&Agent)) -> Result<()> {
    println!("a panic of {thread}");
    let (home, loki) = (Home::new()?, TestLoki::start()?);
    for directory in ["in", "behind", "mount"] {
        fs::create_dir(home.path().join(directory))?;
    }
    // Whatever is on FUSE may hang, so it gets a thread of its own.
    let _mount = HungMount::new(&home.path().join("behind"), &home.path().join("mount"))?;
    fs::write(home.path().join("behind/other.log"), "")?;
    let mut writer = Writer::new(&home.path().join("in/a.log"))?;
    let (config, faults) = (config(&home, &loki), home.path().join("faults"));
    fs::write(&faults, "")?;
    let mut agent = home.launch_program(&config, &faulty()?, &[("CAPTURER_FAULTS", &faults)])?;
    ready(&agent)?;
    for _ in 0..10 {
        writer.write()?;
    }
    wait_until("the first lines", DEADLINE, || Ok::<_, anyhow::Error>(delivered(&home)?.len() == 10))?;

    fs::write(&faults, format!("panic:{thread}"))?;
    let status = wait_until("the end", DEADLINE, || {
        writer.write()?;
        poke(&agent);
        agent.has_ended()?.context("it runs")
    })?;
    let log = agent.log_text()?;
    let name = thread.trim_end_matches('*');
    let line =
        log.lines().find(|line| line.contains(&format!("thread {name}")) && line.contains("panicked at"));
    ensure!(status.code() == Some(70) && line.is_some(), "{status}, its log:\n{log}");
    println!("{}", line.unwrap_or_default());

    // As systemd would.
    let agent = home.launch(&config)?;
    ready(&agent)?;
    let lines = writer.lines;
    wait_until("every line once", DEADLINE, || {
        let delivered = delivered(&home)?;
        let once = delivered.values().all(|times| *times == 1);
        ensure!(once && delivered.len() as u64 == lines, "{} of {lines}, each once: {once}", delivered.len());
        Ok(())
    })?;
    wait_until("every line in Loki", DEADLINE, || {
        // A line of plain text has the time at which it was read: if it is sent again, it is another line to Loki.
        let ledger = loki.ledger();
        let texts: BTreeSet<&str> = ledger.lines.values().flatten().map(|line| line.text.as_str()).collect();
        ensure!(texts.len() as u64 == lines, "{} of {lines}", texts.len());
        Ok(())
    })?;
    agent.stop()
}

#[test]
fn a_panic_of_any_thread_ends_the_process() -> Result<()> {
    let threads = [
        "main",
        "sink-local_file",
        "sink-loki",
        "loki-push",
        "files",
        "files-*",
        "checkpoints",
        "archive",
        "admin",
    ];
    for thread in threads {
        panic_of(thread, |_| ()).with_context(|| thread.to_owned())?;
    }
    // After a reload, each of these has work to do.
    for thread in ["signals", "reload", "log"] {
        panic_of(thread, |agent| agent.signal(Signal::HUP)).with_context(|| thread.to_owned())?;
    }
    Ok(())
}
