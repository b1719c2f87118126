//! Capturing without an Engine: json-file logs as dockerd writes and rotates them, an agent that is killed meanwhile,
//! and a daemon that accepts connections and never answers. It needs only the agent and a kernel, so `cargo xtask vm`
//! runs it in other kernels: this is the proof of "Linux 5.10 or newer".

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use anyhow::{Context as _, Result, ensure};
use capturer_tests::agent::{Home, assert_same_lines};
use capturer_tests::rand::Rand;
use capturer_tests::wait::{PATIENCE, wait_until};

const CONTAINER: &str = "0123456789abcdef";

/// A container's log as dockerd keeps it: the live file, and rotated siblings that move up by one.
struct DockerLog {
    path: PathBuf,
    live: File,
    siblings: usize,
    lines: u64,
}

impl DockerLog {
    fn create(dir: &Path) -> Result<DockerLog> {
        fs::create_dir_all(dir)?;
        let path = dir.join(format!("{CONTAINER}-json.log"));
        Ok(DockerLog { live: File::create(&path)?, path, siblings: 0, lines: 0 })
    }

    /// One write per record.
    fn print(&mut self, lines: u64) -> Result<()> {
        for number in self.lines..self.lines + lines {
            let stream = if number.is_multiple_of(7) { "stderr" } else { "stdout" };
            let record = format!(
                "{{\"log\":\"{}\\n\",\"stream\":\"{stream}\",\"time\":\"2026-11-22T00:52:48.{number:09}Z\"}}\n",
                text(number)
            );
            self.live.write_all(record.as_bytes())?;
        }
        self.lines += lines;
        Ok(())
    }

    /// From the oldest on, so that none is overwritten; between the last rename and the new file there is no live log.
    fn rotate(&mut self) -> Result<()> {
        let name = |number: usize| PathBuf::from(format!("{}.{number}", self.path.display()));
        for number in (1..=self.siblings).rev() {
            fs::rename(name(number), name(number + 1))?;
        }
        fs::rename(&self.path, name(1))?;
        self.live = File::create(&self.path)?;
        self.siblings += 1;
        Ok(())
    }

    fn printed(&self) -> Vec<u8> {
        (0..self.lines).flat_map(|number| (text(number) + "\n").into_bytes()).collect()
    }
}

fn text(number: u64) -> String {
    format!("line {number:07} \\u003cof a container\\u003e")
}

/// The output, in its order. Docker's escapes are those of JSON, so a reader sees what the container printed.
fn written(home: &Home) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    for record in home.records()?.into_values().flatten() {
        all.extend_from_slice(record.message.as_bytes());
        all.push(b'\n');
    }
    Ok(all)
}

/// The main promise about files: whenever a rotation or a kill happens, each line is there once, in order.
#[test]
fn rotations_and_kills_lose_nothing_and_repeat_nothing() -> Result<()> {
    let home = Home::new()?;
    let mut chance = Rand::from_env_or(510);
    let dir = home.path().join("in");
    let mut log = DockerLog::create(&dir)?;
    let config = home.config(&format!(
        "container_monitor: {{enabled: false}}\nfile_monitor: {{files: [{{paths: [\"{}/*-json.log\"], format: docker}}]}}\n",
        dir.display()
    ));
    for _kill in 0..6 {
        let agent = home.start(&config)?;
        let before = home.output_bytes();
        wait_until("output after a start", PATIENCE, || {
            log.print(chance.within(1..400))?;
            if chance.chance(1, 4) {
                log.rotate()?;
            }
            ensure!(home.output_bytes() > before + 20_000, "{} bytes", home.output_bytes());
            anyhow::Ok(())
        })?;
        // Before its first position is saved, a new path is only known by its live file.
        wait_until("a saved position", PATIENCE, || {
            fs::read_to_string(home.path().join("data/checkpoint.json"))
                .is_ok_and(|text| text.contains("\"kind\":\"file\""))
        })?;
        agent.kill()?;
        // The agent does not run meanwhile.
        log.print(chance.within(1..400))?;
        log.rotate()?;
        log.print(chance.within(0..100))?;
    }
    let agent = home.start(&config)?;
    let expected = String::from_utf8(log.printed())?.replace("\\u003c", "<").replace("\\u003e", ">");
    // A time-out is not a failure yet: the comparison says what is missing.
    let _ = wait_until("every line", PATIENCE, || {
        let got = written(&home)?;
        ensure!(got.len() >= expected.len(), "{} of {} bytes", got.len(), expected.len());
        anyhow::Ok(())
    });
    assert_same_lines("the log", &written(&home)?, expected.as_bytes());
    ensure!(log.siblings >= 6 && log.lines > 1_000, "{} rotations, {} lines", log.siblings, log.lines);
    agent.stop()
}

/// Reads that wait are ended by their timers, and by shutting down their socket when the agent stops: on every kernel,
/// with no operation left.
#[test]
fn a_daemon_that_never_answers_is_waited_for_and_left() -> Result<()> {
    let home = Home::new()?;
    let socket = home.path().join("docker.sock");
    let listener = UnixListener::bind(&socket)?;
    let (held, connections) = mpsc::channel();
    // Ends with the process: nothing ends an accept but a connection.
    std::thread::spawn(move || {
        listener.incoming().flatten().try_for_each(|connection| held.send(connection))
    });
    let config = home.config(&format!(
        "container_monitor: {{socket_path: \"unix://{}\", read_timeout: 200ms, reconnect_interval: 1s}}\n",
        socket.display()
    ));
    let agent = home.launch(&config)?;
    let first = connections.recv_timeout(PATIENCE).context("the agent asked for events")?;
    // It gives up by itself, and asks again.
    let second = connections.recv_timeout(PATIENCE).context("the agent asked again")?;
    agent.stop()?;
    drop((first, second));
    Ok(())
}

/// A pattern that matches a log's rotated files too: they are read with it, and none of their lines comes twice, though
/// they change their names.
#[test]
fn rotated_files_that_match_are_read_with_their_log() -> Result<()> {
    let home = Home::new()?;
    let dir = home.path().join("logs");
    fs::create_dir_all(&dir)?;
    let write = |name: &str, text: &str| fs::write(dir.join(name), format!("{text}\n"));
    for (name, text) in
        [("app.log.2", "one"), ("app.log.1", "two"), ("app.log", "three"), ("worker.1", "alone")]
    {
        write(name, text)?;
    }
    let config = home.config(&format!(
        "container_monitor: {{enabled: false}}\nfile_monitor: {{files: [{{paths: [\"{}/*\"]}}]}}\n",
        dir.display()
    ));
    let arrived = |expected: &[&str]| {
        wait_until("the lines", PATIENCE, || {
            let records = home.records()?;
            let mut outputs: Vec<Vec<&str>> = records
                .values()
                .map(|records| records.iter().map(|record| record.message.as_str()).collect())
                .collect();
            outputs.sort_unstable();
            ensure!(outputs == [&["alone"], expected], "{outputs:?}");
            anyhow::Ok(())
        })
    };
    let agent = home.start(&config)?;
    arrived(&["one", "two", "three"])?;
    let rotate = |siblings: u32| -> Result<()> {
        let name = |number| dir.join(format!("app.log.{number}"));
        (1..=siblings).rev().try_for_each(|number| fs::rename(name(number), name(number + 1)))?;
        Ok(fs::rename(dir.join("app.log"), name(1))?)
    };
    rotate(2)?;
    write("app.log", "four")?;
    arrived(&["one", "two", "three", "four"])?;
    agent.stop()?;
    rotate(3)?;
    write("app.log", "five")?;
    let agent = home.start(&config)?;
    arrived(&["one", "two", "three", "four", "five"])?;
    agent.stop()
}
