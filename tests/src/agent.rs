//! The agent under test as its users run it: the release binary, a config file, signals, HTTP. It knows nothing of the
//! agent's inside.

mod home;
mod records;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::wait::{PATIENCE, wait_until};
pub use home::Home;
pub use records::Record;

/// How the log reports a leak.
pub const LEAK_TOLD: &str = "ERROR a leak:";
/// How long a dropped agent gets to end after SIGKILL. One that hangs in the kernel does not end even then.
const KILLED_PATIENCE: Duration = Duration::from_secs(30);

/// The program to test: `CAPTURER_BIN`, which `cargo xtask test` sets.
pub fn program() -> PathBuf {
    let path = std::env::var_os("CAPTURER_BIN")
        .expect("CAPTURER_BIN names the agent to test; `cargo xtask test` builds it and sets this");
    PathBuf::from(path)
}

/// An agent's resources at one moment; equal numbers before and after = nothing leaked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Descriptors, from the kernel.
    pub fds: usize,
    /// Threads, from the kernel.
    pub threads: usize,
    /// Tasks of the capture loop, by its own count.
    pub tasks: u64,
}

/// A running agent; killed when dropped, and then it shows its log, for a successful test stops its agent or kills it.
/// Output of a test is only shown if the test fails.
pub struct Agent {
    child: Child,
    log: PathBuf,
    address: String,
    /// The test ended it, or saw it end.
    ended: bool,
}

impl Agent {
    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// What it logged.
    pub fn log_text(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    /// The body of a page that is answered with 200.
    pub fn get(&self, path: &str) -> Result<String> {
        let (status, body) = self.ask(path)?;
        ensure!(status == 200, "{path} answered {status}: {body}");
        Ok(body)
    }

    /// Status and body of a page.
    pub fn ask(&self, path: &str) -> Result<(u16, String)> {
        self.request("GET", path)
    }

    /// Status and body of the answer to a POST.
    pub fn post(&self, path: &str) -> Result<(u16, String)> {
        self.request("POST", path)
    }

    fn request(&self, method: &str, path: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let host = &self.address;
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no end of the head")?;
        let status = head.split(' ').nth(1).context("no status")?.parse()?;
        Ok((status, body.to_owned()))
    }

    /// Where its admin server listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A connection to its admin server that says nothing yet.
    pub fn connect(&self) -> Result<TcpStream> {
        Ok(TcpStream::connect(&self.address)?)
    }

    /// One metric, without its prefix, labels included as the exposition shows them.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let text = self.get("/metrics")?;
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("log_capturer_{name} ")));
        line.with_context(|| format!("no metric {name}"))?.parse().context("not a number")
    }

    /// The rows of `/api/v1/streams`.
    pub fn streams(&self) -> Result<Vec<Value>> {
        let body: Value = serde_json::from_str(&self.get("/api/v1/streams")?)?;
        Ok(body["streams"].as_array().context("no streams")?.clone())
    }

    /// The ledger: `/api/v1/fds`.
    pub fn fds(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.get("/api/v1/fds")?)?)
    }

    /// Its resources now.
    pub fn held(&self) -> Result<Held> {
        let count = |what: &str| {
            Ok::<_, anyhow::Error>(fs::read_dir(format!("/proc/{}/{what}", self.pid()))?.count())
        };
        Ok(Held { fds: count("fd")?, threads: count("task")?, tasks: self.metric("tasks")? as u64 })
    }

    /// Whether a component of `/health` is healthy, and its message.
    pub fn health_of(&self, component: &str) -> Result<(bool, String)> {
        let health: Value = serde_json::from_str(&self.ask("/health")?.1)?;
        let told = &health["components"][component];
        Ok((told["ok"] == true, told["message"].as_str().unwrap_or_default().to_owned()))
    }

    /// Fails if a loss, or a possible loss, was declared.
    pub fn assert_nothing_lost(&self) -> Result<()> {
        let text = self.get("/metrics")?;
        for name in ["losses_total", "possible_losses_total", "lost_bytes_total"] {
            let counted = text.lines().filter(|line| line.starts_with(&format!("log_capturer_{name}{{")));
            let above: Vec<&str> = counted.filter(|line| !line.ends_with(" 0")).collect();
            assert!(above.is_empty(), "{above:?}");
        }
        Ok(())
    }

    /// Fails if anything leaks or ever seemed to: by the metrics, by the ledger, by health, and by the log, in the
    /// words that witness.rs looks for when something does leak.
    pub fn assert_no_leak(&self) -> Result<()> {
        let text = self.get("/metrics")?;
        let flags: Vec<&str> =
            text.lines().filter(|line| line.starts_with("log_capturer_leak_detection{")).collect();
        ensure!(!flags.is_empty(), "nothing looks for leaks");
        let raised = flags.iter().find(|line| !line.ends_with(" 0"));
        ensure!(raised.is_none(), "{raised:?}; its log:\n{}", self.log_text()?);
        let leaks = self.fds()?["leaks"].clone();
        ensure!(leaks.as_array().is_some_and(Vec::is_empty), "{leaks}");
        let health: Value = serde_json::from_str(&self.ask("/health")?.1)?;
        let detector = &health["components"]["leak_detector"];
        ensure!(detector["ok"] == true, "{detector}");
        let log = self.log_text()?;
        let told = log.lines().find(|line| line.contains(LEAK_TOLD));
        ensure!(told.is_none(), "a leak was told: {told:?}");
        Ok(())
    }

    /// A checkpoint is being saved: meanwhile its directory is open, and the new file for a part of it.
    pub fn is_saving(&self) -> Result<bool> {
        let directory = self.log.with_file_name("data");
        let links = fs::read_dir(format!("/proc/{}/fd", self.pid()))?;
        Ok(links.flatten().any(|link| fs::read_link(link.path()).is_ok_and(|target| target == directory)))
    }

    /// CPU seconds used so far, user and system.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Sends SIGTERM; the agent must exit with code 0 within the deadline.
    pub fn stop(mut self) -> Result<()> {
        self.signal(Signal::TERM);
        let status = self.ended()?;
        let log = self.log_text()?;
        ensure!(status.code() == Some(0), "ended with {status}; its log:\n{log}");
        ensure!(log.contains("operations=0"), "operations were left in flight; its log:\n{log}");
        ensure!(log.contains("stream_descriptors=0"), "streams held descriptors; its log:\n{log}");
        Ok(())
    }

    /// kill -9.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        self.ended = true;
        Ok(())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid()) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Its exit status, if it has exited.
    pub fn has_ended(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        self.ended |= status.is_some();
        Ok(status)
    }

    /// Waits until it exits.
    pub fn ended(&mut self) -> Result<ExitStatus> {
        self.ended_within(PATIENCE)
    }

    fn ended_within(&mut self, patience: Duration) -> Result<ExitStatus> {
        let child = &mut self.child;
        let status = wait_until("the agent to end", patience, || child.try_wait().ok().flatten())?;
        self.ended = true;
        Ok(status)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let in_the_middle = !self.ended;
        let _ = self.child.kill();
        let _ = self.ended_within(KILLED_PATIENCE);
        if in_the_middle || std::thread::panicking() {
            let text = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            eprintln!(
                "--- the agent's log, last 40 lines\n{}",
                lines[lines.len().saturating_sub(40)..].join("\n")
            );
        }
    }
}

/// Says where two texts differ, instead of printing both.
pub fn assert_same_lines(what: &str, got: &[u8], expected: &[u8]) {
    if got == expected {
        return;
    }
    let lines =
        |text: &[u8]| text.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let (got, expected) = (lines(got), lines(expected));
    let at = got.iter().zip(&expected).take_while(|(got, expected)| got == expected).count();
    let empty = Vec::new();
    let (got_line, expected_line) = (got.get(at).unwrap_or(&empty), expected.get(at).unwrap_or(&empty));
    let byte = got_line.iter().zip(expected_line).take_while(|(got, expected)| got == expected).count();
    let show = |line: &[u8]| {
        let part = &line[byte.saturating_sub(20)..line.len().min(byte + 60)];
        format!("{} bytes, there {:?}", line.len(), String::from_utf8_lossy(part))
    };
    panic!(
        "{what}: {} lines, expected {}; first difference at line {}, byte {byte}:\n  got      {}\n  expected {}",
        got.len(),
        expected.len(),
        at + 1,
        show(got_line),
        show(expected_line)
    );
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// The test that leaves its folder behind must be the one that fails.
    #[test]
    fn a_home_that_cannot_be_removed_is_a_failure() -> Result<()> {
        let home = Home::new()?;
        let path = home.path().to_owned();
        // Even root removes no folder where a file is.
        fs::remove_dir_all(&path)?;
        fs::write(&path, "")?;
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(home)));
        fs::remove_file(&path)?;
        let panic = dropped.expect_err("its folder was not removed");
        let text = panic.downcast_ref::<String>().context("it says why")?;
        ensure!(text.contains(&format!("{} can't be removed", path.display())), "{text}");
        drop(Home::new()?);
        Ok(())
    }
}
