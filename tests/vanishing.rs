//! Logs that are emptied, deleted or rotated away before the agent has read them, by the whole agent on real files: what
//! nobody can read any more is declared, as much as was known to be there, and what can be read is.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use capturer_tests::agent::{Agent, Home};
use capturer_tests::wait::wait_until;
use rustix::process::Signal;

const DEADLINE: Duration = Duration::from_secs(120);
/// Lines of a backlog: more than a read brings.
const BACKLOG: usize = 20_000;

/// A followed log, and what was written to it.
struct Host {
    home: Home,
    config: String,
    written: Vec<String>,
}

impl Host {
    fn new(more: &str) -> Result<Host> {
        let home = Home::new()?;
        let logs = home.path().join("logs");
        fs::create_dir(&logs)?;
        let config = home.config(&format!(
            "container_monitor: {{enabled: false}}\nfile_monitor: {{files: [{{paths: ['{}/a.log'], format: raw}}]}}\n{more}",
            logs.display()
        ));
        Ok(Host { home, config, written: Vec::new() })
    }

    /// Reading waits: it takes some lines a second, and a read brings seven thousand. So the next read is half a minute away,
    /// should a busy machine look late at what happened; it is that read which finds a log emptied.
    fn slow() -> Result<Host> {
        Host::new("pipelines: [{name: slow, rate_limit: {lines: 200, burst: 1s, over: wait}}]\n")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join("logs").join(name)
    }

    fn open(&self, name: &str) -> Result<File> {
        Ok(OpenOptions::new().append(true).create(true).open(self.path(name))?)
    }

    fn write(&mut self, mut file: &File, lines: usize) -> Result<()> {
        let from = self.written.len();
        self.written
            .extend((from..from + lines).map(|number| format!("line {number:07} of a log that goes away")));
        Ok(file.write_all((self.written[from..].join("\n") + "\n").as_bytes())?)
    }

    /// Everything that was written comes, each line once.
    fn all_come(&self) -> Result<()> {
        self.home.assert_all_came_once(&self.written)
    }

    fn bytes_written(&self) -> f64 {
        self.written.iter().map(|line| line.len() as f64 + 1.0).sum()
    }
}

/// An agent that has read a log of two lines, and the log.
fn followed() -> Result<(Host, Agent, File)> {
    let mut host = Host::new("")?;
    let agent = host.home.start(&host.config)?;
    let log = host.open("a.log")?;
    host.write(&log, 2)?;
    host.all_come()?;
    Ok((host, agent, log))
}

/// The sum of a metric over its label values.
fn sum(agent: &Agent, name: &str) -> Result<f64> {
    let text = agent.get("/metrics")?;
    let of = |line: &str| {
        line.strip_prefix(&format!("log_capturer_{name}{{"))?.rsplit_once(' ')?.1.parse::<f64>().ok()
    };
    Ok(text.lines().filter_map(of).sum::<f64>())
}

/// Waits until the agent has seen how much waits.
fn await_backlog(agent: &Agent, bytes: f64) -> Result<()> {
    wait_until("the backlog to be seen", DEADLINE, || {
        let lag = sum(agent, "source_lag_bytes")?;
        ensure!(lag > 0.6 * bytes, "{lag} of {bytes}");
        anyhow::Ok(())
    })
}

/// "The disk is full" is when outputs take nothing, and when people empty big logs.
#[test]
fn what_waited_in_a_log_that_was_emptied_is_declared() -> Result<()> {
    let mut host = Host::slow()?;
    let agent = host.home.start(&host.config)?;
    let log = host.open("a.log")?;
    host.write(&log, BACKLOG)?;
    let all = host.bytes_written();
    await_backlog(&agent, all)?;
    log.set_len(0)?;
    wait_until("the loss to be declared", DEADLINE, || {
        let lost = sum(&agent, "lost_bytes_total")?;
        ensure!(lost > 0.6 * all && lost <= all, "{lost} of {all}");
        anyhow::Ok(())
    })?;
    agent.stop()
}

/// The agent alone has it open, so its lines go when it ends.
#[test]
fn a_stop_says_what_of_deleted_files_goes_with_it() -> Result<()> {
    let mut host = Host::slow()?;
    let agent = host.home.start(&host.config)?;
    let log = host.open("a.log")?;
    host.write(&log, BACKLOG)?;
    let all = host.bytes_written();
    await_backlog(&agent, all)?;
    fs::rename(host.path("a.log"), host.path("a.log.1"))?;
    fs::remove_file(host.path("a.log.1"))?;
    host.open("a.log")?;
    wait_until("the deletion to be seen", DEADLINE, || {
        let held = agent.metric("deleted_open_bytes")?;
        ensure!(held > 0.5 * all, "{held}");
        anyhow::Ok(())
    })?;
    let mut agent = agent;
    agent.signal(Signal::TERM);
    let status = wait_until("the agent to end", DEADLINE, || agent.has_ended()?.context("it runs"))?;
    assert_eq!(status.code(), Some(69));
    let said = agent.log_text()?;
    let named = said.lines().find(|line| line.contains("a.log, which was deleted (lost with this stop: "));
    ensure!(named.is_some(), "{said}");
    // The next run counts what was left.
    let agent = host.home.start(&host.config)?;
    wait_until("the loss to be declared", DEADLINE, || {
        let lost = sum(&agent, "lost_bytes_total")?;
        ensure!(lost > 0.5 * all && lost <= all, "{lost} of {all}");
        anyhow::Ok(())
    })?;
    agent.stop()
}

/// Nothing tells of what is written to it, and its program was not told of the new one.
#[test]
fn a_deleted_log_is_read_as_long_as_it_is_written_to() -> Result<()> {
    let (mut host, agent, old) = followed()?;
    fs::remove_file(host.path("a.log"))?;
    let new = host.open("a.log")?;
    for _ in 0..5 {
        host.write(&old, 3)?;
        host.write(&new, 2)?;
        host.all_come()?;
    }
    agent.assert_nothing_lost()?;
    agent.stop()
}

/// More rotations than files are kept, while the agent could not look.
#[test]
fn files_that_came_and_went_unseen_may_be_lost() -> Result<()> {
    let (mut host, agent, _) = followed()?;
    agent.signal(Signal::STOP);
    for _ in 0..5 {
        host.write(&host.open("a.log")?, 2)?;
        let _ = fs::rename(host.path("a.log.1"), host.path("a.log.2"));
        fs::rename(host.path("a.log"), host.path("a.log.1"))?;
    }
    host.write(&host.open("a.log")?, 1)?;
    agent.signal(Signal::CONT);
    wait_until("the doubt to be said", DEADLINE, || {
        let possible = sum(&agent, "possible_losses_total")?;
        ensure!(possible > 0.0, "no possible loss");
        anyhow::Ok(())
    })?;
    agent.stop()
}

/// A log that is removed and made anew, or rotated with one old file kept, faster than the agent can look: some files come and go
/// between two looks, others between a look and their opening. Whoever misses lines is told.
#[test]
fn files_that_come_and_go_faster_than_anybody_can_look_are_declared() -> Result<()> {
    for is_renamed in [false, true] {
        let (mut host, agent, _) = followed()?;
        // Until one was missed: the agent is quick.
        let end = Instant::now() + DEADLINE;
        let declared =
            || -> Result<f64> { Ok(sum(&agent, "losses_total")? + sum(&agent, "possible_losses_total")?) };
        while declared()? == 0.0 {
            ensure!(Instant::now() < end, "renamed {is_renamed}: nothing was missed, or nobody was told");
            for _ in 0..200 {
                match is_renamed {
                    true => fs::rename(host.path("a.log"), host.path("a.log.1"))?,
                    false => fs::remove_file(host.path("a.log"))?,
                }
                host.write(&host.open("a.log")?, 1)?;
            }
        }
        // The last one stays, so it comes; and what was told is no false alarm.
        let last = host.written.last().cloned().context("nothing was written")?;
        let missing = wait_until("the last line", DEADLINE, || {
            let records = host.home.whole_records()?;
            let came: BTreeSet<&str> =
                records.values().flatten().map(|record| record.message.as_str()).collect();
            ensure!(came.contains(last.as_str()), "{last} is missing");
            anyhow::Ok(host.written.iter().filter(|line| !came.contains(line.as_str())).count())
        })?;
        let losses = declared()?;
        println!(
            "renamed {is_renamed}: {missing} of {} lines are missing, {losses} losses",
            host.written.len()
        );
        ensure!(missing > 0, "{losses} losses were told, and all lines came");
        agent.stop()?;
    }
    Ok(())
}

/// As log4j2's memory-mapped appender does: the file is extended by a region of NULs, lines are written into it, and at the
/// end it is cut to what was written.
#[test]
fn lines_that_are_written_into_room_made_beforehand_come_once() -> Result<()> {
    const REGION: u64 = 4_096;
    for is_sparse in [true, false] {
        let mut host = Host::new("")?;
        let agent = host.home.start(&host.config)?;
        let log = File::create(host.path("a.log"))?;
        let (mut at, mut len) = (0, 0);
        for _ in 0..12 {
            let from = host.written.len();
            host.written.extend((from..from + 20).map(|number| format!("line {number:07} into a region")));
            let lines = host.written[from..].join("\n") + "\n";
            while at + lines.len() as u64 > len {
                len += REGION;
                if is_sparse {
                    log.set_len(len)?;
                } else {
                    log.write_all_at(&[0; REGION as usize], len - REGION)?;
                }
            }
            log.write_all_at(lines.as_bytes(), at)?;
            at += lines.len() as u64;
            host.all_come()?;
        }
        log.set_len(at)?;
        let log = host.open("a.log")?;
        host.write(&log, 3)?;
        host.all_come()?;
        agent.assert_nothing_lost()?;
        agent.stop()?;
    }
    Ok(())
}
