//! A disk under the output that does not answer: a file system of its own, frozen. Nothing can end the write that waits
//! for it, but the agent must say which sink hangs, answer requests meanwhile, and then continue where it was.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use capturer_tests::agent::Home;
use capturer_tests::lateness::Lateness;
use capturer_tests::wait::{PATIENCE, wait_until};
use serde_json::Value;

/// On an idle machine. An answer takes a millisecond, or 200 if it waits for a snapshot.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// An ext4 in a file. Dropping it unmounts it.
struct Disk(PathBuf);

impl Disk {
    fn mount(image: &Path, point: &Path) -> Result<Disk> {
        fs::File::create(image)?.set_len(32 << 20)?;
        fs::create_dir_all(point)?;
        run(Command::new("mkfs.ext4").arg("-q").arg(image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(point))?;
        let disk = Disk(point.to_owned());
        fs::remove_dir(point.join("lost+found"))?;
        Ok(disk)
    }

    /// Makes every write wait until the guard is dropped, which must happen before the agent is dropped, as that can't
    /// end meanwhile.
    fn freeze(&self) -> Result<Frozen> {
        run(Command::new("fsfreeze").arg("--freeze").arg(&self.0))?;
        Ok(Frozen(self.0.clone()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

struct Frozen(PathBuf);

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = run(Command::new("fsfreeze").arg("--unfreeze").arg(&self.0));
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn a_hung_output_disk_is_named_while_everything_else_answers() -> Result<()> {
    let home = Home::new()?;
    let disk = Disk::mount(&home.path().join("disk"), &home.output_dir())?;
    let log = home.path().join("app.log");
    fs::write(&log, "line 0\n")?;
    let agent = home.start(&home.config(&format!(
        "container_monitor: {{enabled: false}}\nfile_monitor: {{files: [{{paths: [\"{}\"]}}]}}\n",
        log.display()
    )))?;
    wait_until("the first line", PATIENCE, || home.output_bytes() > 0)?;

    let lateness = Lateness::watch();
    let frozen = disk.freeze()?;
    let mut writer = fs::OpenOptions::new().append(true).open(&log)?;
    let since = Instant::now();
    let (mut slowest, mut written) = (Duration::ZERO, 0);
    wait_until("health to name the sink", PATIENCE, || -> Result<()> {
        written += 1;
        writeln!(writer, "line {written}")?;
        for page in ["/healthz", "/api/v1/streams", "/metrics"] {
            let asked = Instant::now();
            let (status, body) = agent.ask(page)?;
            slowest = slowest.max(asked.elapsed());
            ensure!(status == 200, "{page} answered {status}: {body}");
        }
        let (status, body) = agent.ask("/health")?;
        let health: Value = serde_json::from_str(&body)?;
        let (sink, capture) =
            (&health["components"]["sink_local_file"], &health["components"]["capture_loop"]);
        ensure!(capture["ok"] == true, "the loop hangs with it: {body}");
        let message = sink["message"].as_str().unwrap_or_default();
        ensure!(status == 503 && sink["ok"] == false && message.starts_with("stuck: "), "{sink}");
        Ok(())
    })?;
    println!("named after {:?}; the slowest answer took {} ms", since.elapsed(), slowest.as_millis());
    ensure!(slowest <= lateness.allow(ANSWER_MAX), "an answer took {slowest:?}");
    let metrics = agent.get("/metrics")?;
    ensure!(
        metrics.contains("log_capturer_component_health{component=\"sink_local_file\"} 0\n"),
        "{metrics}"
    );
    // The agent checks once a second.
    wait_until("the log to name it", PATIENCE, || agent.log_text().is_ok_and(|log| log.contains("stuck: ")))?;

    drop(frozen);
    wait_until("the agent to be well again", PATIENCE, || agent.get("/health"))?;
    let expected: Vec<String> = (0..=written).map(|number| format!("line {number}")).collect();
    let got = wait_until("all lines", PATIENCE, || {
        let records = home.records()?.into_values().flatten();
        let got: Vec<String> = records.map(|record| record.message).collect();
        ensure!(got.len() >= expected.len(), "{} of {}", got.len(), expected.len());
        Ok(got)
    })?;
    assert_eq!(got, expected);
    agent.stop()
}
