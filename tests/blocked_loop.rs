//! A capture loop that hangs: the admin thread must still answer and name it. Nothing in the agent helps with this
//! test: only the loop's thread is stopped, from outside, as a debugger does.

use std::fs;
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use capturer_tests::agent::{Agent, Home};
use capturer_tests::lateness::Lateness;
use capturer_tests::wait::{PATIENCE, wait_until};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde_json::Value;

/// Longer than the loop may take for a turn (3 s).
const BLOCKED: Duration = Duration::from_secs(5);
/// On an idle machine. An answer takes a millisecond, or 200 if it waits for a snapshot.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Stops the agent's first thread, which is the capture loop. Dropping this lets the thread continue.
struct Blocked(Pid);

impl Blocked {
    fn new(agent: &Agent) -> Result<Blocked> {
        let thread = Pid::from_raw(agent.pid());
        ptrace::seize(thread, ptrace::Options::empty())?;
        let blocked = Blocked(thread);
        ptrace::interrupt(thread)?;
        waitpid(thread, Some(WaitPidFlag::__WALL))?;
        Ok(blocked)
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        let _ = ptrace::detach(self.0, None);
    }
}

#[test]
fn a_blocked_capture_loop_is_named_while_everything_else_answers() -> Result<()> {
    let home = Home::new()?;
    let log = home.path().join("app.log");
    fs::write(&log, "before\n")?;
    let agent = home.start(&home.config(&format!(
        "container_monitor: {{enabled: false}}\nfile_monitor: {{files: [{{paths: [\"{}\"]}}]}}\n",
        log.display()
    )))?;
    wait_until("the line before", PATIENCE, || home.output_bytes() > 0)?;
    let output_bytes = home.output_bytes();

    let lateness = Lateness::watch();
    let blocked = Blocked::new(&agent)?;
    let since = Instant::now();
    fs::OpenOptions::new().append(true).open(&log)?.write_all(b"meanwhile\n")?;
    let (mut slowest, mut answers, mut named_after) = (Duration::ZERO, 0, None);
    wait_until("health to name the loop", PATIENCE, || -> Result<()> {
        for page in ["/healthz", "/health", "/api/v1/streams", "/metrics"] {
            let asked = Instant::now();
            let (status, body) = agent.ask(page)?;
            slowest = slowest.max(asked.elapsed());
            answers += 1;
            match page {
                "/health" => {
                    let health: Value = serde_json::from_str(&body)?;
                    let loop_health = &health["components"]["capture_loop"];
                    if status == 503 && loop_health["ok"] == false && named_after.is_none() {
                        println!("after {:?}: {loop_health}", since.elapsed());
                        named_after = Some(since.elapsed());
                    }
                }
                _ => ensure!(status == 200, "{page} answered {status}: {body}"),
            }
        }
        ensure!(since.elapsed() >= BLOCKED && named_after.is_some(), "not yet");
        Ok(())
    })?;
    println!(
        "{answers} answers while the loop was blocked, the slowest in {} ms; a thread was woken {:?} late",
        slowest.as_millis(),
        lateness.worst()
    );
    ensure!(slowest <= lateness.allow(ANSWER_MAX), "an answer took {slowest:?}");
    let in_time = |after: Duration| after <= lateness.allow(BLOCKED);
    ensure!(named_after.is_some_and(in_time), "/health named the loop after {named_after:?}");
    let metrics = agent.get("/metrics")?;
    ensure!(metrics.contains("log_capturer_component_health{component=\"capture_loop\"} 0\n"), "{metrics}");
    ensure!(home.output_bytes() == output_bytes, "the loop went on: it was not blocked");

    let logged = agent.log_text()?;
    ensure!(logged.contains("stuck: last turn"), "the log does not name it:\n{logged}");

    drop(blocked);
    wait_until("the agent to be well again", PATIENCE, || agent.get("/health"))?;
    wait_until("the line from meanwhile", PATIENCE, || home.output_bytes() > output_bytes)?;
    agent.stop()
}
