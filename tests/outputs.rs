//! What happens to outputs: they are emptied, moved and removed while they are written, their names are taken by
//! something that can't be written, their directory is removed; and the agent is killed when the source of its last
//! lines is gone. No line is torn, lost from an output or repeated, and a fault of one output does not affect the
//! others.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use capturer_tests::agent::{Agent, Home};
use capturer_tests::rand::Rand;
use capturer_tests::wait::{pass, wait_until};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(120);

fn config(home: &Home) -> Result<String> {
    fs::create_dir_all(home.path().join("in"))?;
    Ok(home.config(&format!(
        "container_monitor: {{enabled: false}}\nfile_monitor: {{files: [{{paths: [\"{}/in/*.log\"], format: raw}}]}}\n",
        home.path().display()
    )))
}

/// A followed file; its lines are numbered.
struct Source {
    path: PathBuf,
    file: File,
    lines: Vec<String>,
}

impl Source {
    fn new(home: &Home, name: &str) -> Result<Source> {
        let path = home.path().join("in").join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&path)?;
        Ok(Source { path, file, lines: Vec::new() })
    }

    fn write(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            let line = format!("line {} of {}", self.lines.len(), self.path.display());
            writeln!(self.file, "{line}")?;
            self.lines.push(line);
        }
        Ok(())
    }

    /// The beginning of its output's name.
    fn output_stem(&self) -> String {
        format!("{}~", self.path.file_name().expect("it has a name").to_string_lossy())
    }

    fn output(&self, home: &Home) -> Result<PathBuf> {
        let entries = fs::read_dir(home.output_dir())?;
        let mut names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let is_it = |name: &String| name.starts_with(&self.output_stem()) && name.ends_with(".ndjson");
        Ok(home.output_dir().join(names.find(is_it).context("it has no output")?))
    }

    /// All its lines in any file of a directory, which must only hold complete records.
    fn delivered(&self, directory: &Path) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if !path.is_file() {
                continue;
            }
            let bytes = fs::read(&path)?;
            ensure!(bytes.last().is_none_or(|last| *last == b'\n'), "{} is torn", path.display());
            for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let record: Value = serde_json::from_slice(line)
                    .with_context(|| format!("{}: {:?}", path.display(), String::from_utf8_lossy(line)))?;
                if record["path"].as_str().map(Path::new) == Some(&self.path) {
                    lines.push(record["message"].as_str().unwrap_or_default().to_owned());
                }
            }
        }
        Ok(lines)
    }

    /// Waits until each line has arrived, once. (Files are read in any order.)
    fn await_all(&self, home: &Home) -> Result<()> {
        let sorted = |mut lines: Vec<String>| {
            lines.sort();
            lines
        };
        let expected = sorted(self.lines.clone());
        wait_until(&format!("the lines of {}", self.path.display()), DEADLINE, || {
            let got = sorted(self.delivered(&home.output_dir())?);
            ensure!(got.len() >= expected.len(), "{} of {}", got.len(), expected.len());
            Ok(())
        })?;
        let got = sorted(self.delivered(&home.output_dir())?);
        ensure!(got == expected, "{}: {} lines, {} expected", self.path.display(), got.len(), expected.len());
        Ok(())
    }
}

fn health(agent: &Agent) -> Result<(bool, String)> {
    let (_, body) = agent.ask("/health")?;
    let body: Value = serde_json::from_str(&body)?;
    let sink = &body["components"]["sink_local_file"];
    Ok((sink["ok"] == true, sink["message"].as_str().unwrap_or_default().to_owned()))
}

/// Lines that are only in an output must survive the start after a crash; those whose source still exists must not be
/// repeated.
#[test]
fn a_kill_right_after_a_source_vanished() -> Result<()> {
    let home = Home::new()?;
    let mut rand = Rand::from_env_or(u64::from(std::process::id()));
    println!("seed {}", rand.seed());
    let config = config(&home)?;
    let mut stays = Source::new(&home, "stays")?;
    let mut gone = Vec::new();
    for round in 0..12 {
        let agent = home.start(&config)?;
        let mut goes = Source::new(&home, &format!("goes-{round}"))?;
        goes.write(1)?;
        goes.await_all(&home)?;
        // A checkpoint is saved once a second: some kills come before the first, some in the middle.
        let until = Instant::now() + Duration::from_millis(rand.within(0..1_500));
        while Instant::now() < until {
            goes.write(3)?;
            stays.write(2)?;
            pass(Duration::from_millis(5));
        }
        goes.await_all(&home)?;
        fs::remove_file(&goes.path)?;
        agent.kill()?;
        gone.push(goes);
    }
    let agent = home.start(&config)?;
    stays.write(10)?;
    stays.await_all(&home)?;
    for goes in &gone {
        goes.await_all(&home)?;
    }
    agent.stop()
}

/// Emptied, moved, removed, replaced, at any rate: only lines that were removed with the file are missing, and no hole
/// is left.
#[test]
fn operators_change_outputs_while_they_are_written() -> Result<()> {
    let home = Home::new()?;
    let agent = home.start(&config(&home)?)?;
    let mut source = Source::new(&home, "app")?;
    source.write(1)?;
    source.await_all(&home)?;
    let output = source.output(&home)?;
    let elsewhere = home.path().join("moved");
    fs::create_dir(&elsewhere)?;
    for round in 0..40 {
        for _ in 0..20 {
            source.write(5)?;
            pass(Duration::from_millis(2));
        }
        match round % 4 {
            0 => File::options().write(true).open(&output)?.set_len(0)?,
            1 => fs::rename(&output, elsewhere.join(format!("{round}")))?,
            2 => fs::remove_file(&output)?,
            _ => {
                let copy = home.path().join("copy");
                let text = fs::read(&output)?;
                // A read during a write may end within a record, which nobody could complete.
                let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                fs::write(&copy, &text[..whole])?;
                fs::rename(&copy, &output)?;
            }
        }
        // Lines written from here on must arrive.
        let from = source.lines.len();
        source.write(5)?;
        let last = source.lines.last().expect("just written").clone();
        wait_until("the line after the change", DEADLINE, || -> Result<()> {
            let got = source.delivered(&home.output_dir())?;
            ensure!(got.contains(&last), "{last} is not among {} lines", got.len());
            Ok(())
        })?;
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for line in source.delivered(&home.output_dir())?.into_iter().chain(source.delivered(&elsewhere)?) {
            *counts.entry(line).or_default() += 1;
        }
        ensure!(counts.values().all(|count| *count == 1), "round {round}: a line is there twice");
        for line in &source.lines[from..] {
            ensure!(counts.contains_key(line), "round {round}: {line} is missing");
        }
    }
    agent.stop()
}

/// The directory is removed, moved away, made again: outputs are where the config says.
#[test]
fn the_directory_goes_and_comes_back() -> Result<()> {
    let home = Home::new()?;
    let agent = home.start(&config(&home)?)?;
    let mut source = Source::new(&home, "app")?;
    for round in 0..6 {
        source.write(10)?;
        source.await_all(&home)?;
        match round % 3 {
            0 => fs::remove_dir_all(home.output_dir())?,
            1 => fs::rename(home.output_dir(), home.path().join(format!("old-{round}")))?,
            _ => {
                fs::rename(home.output_dir(), home.path().join(format!("old-{round}")))?;
                fs::create_dir(home.output_dir())?;
            }
        }
        // The path is checked once a second. Lines written earlier go where the directory went.
        pass(Duration::from_millis(1_100));
        source.lines.clear();
        writeln!(source.file, "first after change {round}")?;
        source.lines.push(format!("first after change {round}"));
        wait_until("the directory", DEADLINE, || home.output_dir().is_dir().then_some(()))?;
    }
    source.await_all(&home)?;
    agent.stop()
}

/// One name is taken by something that is no file: its source waits and is named, the others continue, a stop does not
/// wait, and once it is mended every line arrives, once.
#[test]
fn a_blocked_output_harms_no_other() -> Result<()> {
    for blocker in ["directory", "link", "pipe"] {
        let home = Home::new()?;
        let config = config(&home)?;
        let agent = home.start(&config)?;
        let mut blocked = Source::new(&home, "blocked")?;
        let mut others: Vec<Source> =
            (0..5).map(|number| Source::new(&home, &format!("other-{number}"))).collect::<Result<_>>()?;
        blocked.write(1)?;
        blocked.await_all(&home)?;
        let output = blocked.output(&home)?;
        let aside = home.path().join("aside.ndjson");
        fs::rename(&output, &aside)?;
        match blocker {
            "directory" => fs::create_dir(&output)?,
            "link" => std::os::unix::fs::symlink("/dev/null", &output)?,
            _ => {
                let mode = rustix::fs::Mode::RWXU;
                rustix::fs::mknodat(rustix::fs::CWD, &output, rustix::fs::FileType::Fifo, mode, 0)?;
            }
        }
        blocked.write(50)?;
        for round in 0..40 {
            blocked.write(20)?;
            for other in &mut others {
                other.write(5)?;
            }
            if round % 10 == 0 {
                others.iter().try_for_each(|other| other.await_all(&home))?;
            }
        }
        others.iter().try_for_each(|other| other.await_all(&home))?;
        wait_until("health to name the output", DEADLINE, || -> Result<()> {
            let (ok, message) = health(&agent)?;
            let name = output.file_name().expect("it has a name").to_string_lossy();
            ensure!(!ok && message.contains(&*name) && message.contains("outputs blocked: 1"), "{message}");
            Ok(())
        })?;
        let metric = "log_capturer_outputs_blocked{sink=\"local_file\"}";
        ensure!(agent.get("/metrics")?.contains(&format!("{metric} 1\n")), "the metric does not say so");
        ensure!(agent.log_text()?.contains("outputs blocked: 1"), "the log does not say so");
        // Lines in flight and unread lines: all but the first line are behind.
        let first = blocked.lines.first().map_or(0, |line| line.len() as u64 + 1);
        let behind = fs::metadata(&blocked.path)?.len() - first;
        wait_until("how far behind it is", DEADLINE, || -> Result<()> {
            let streams = agent.streams()?;
            let row = streams.iter().find(|row| row["name"] == blocked.path.display().to_string());
            let lag = row.and_then(|row| row["lag_bytes"].as_u64());
            ensure!(lag == Some(behind), "{lag:?} of {behind}");
            let lag = agent.metric("capture_lag_bytes")?;
            ensure!(lag == behind as f64, "{lag} of {behind} in all");
            Ok(())
        })?;

        // It stops, and reports what it left undelivered.
        let mut agent = agent;
        let began = Instant::now();
        agent.signal(rustix::process::Signal::TERM);
        let status = agent.ended()?;
        ensure!(status.code() == Some(69), "{status}: {}", agent.log_text()?);
        ensure!(began.elapsed() < Duration::from_secs(20), "the stop took {:?}", began.elapsed());

        // A start with a blocked output behaves the same.
        let agent = home.start(&config)?;
        others[0].write(5)?;
        others[0].await_all(&home)?;
        match blocker {
            "directory" => fs::remove_dir(&output)?,
            _ => fs::remove_file(&output)?,
        }
        fs::rename(&aside, &output)?;
        blocked.await_all(&home)?;
        wait_until("health to be well", DEADLINE, || -> Result<()> {
            let (ok, message) = health(&agent)?;
            ensure!(ok, "{message}");
            Ok(())
        })?;
        agent.stop()?;
    }
    Ok(())
}
