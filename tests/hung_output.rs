//! One of three outputs is on a FUSE mount whose program does not answer: the others' lines still arrive, the hung one
//! is named with its cure, a stop does not wait for it, and however the agent ended, each line is there once when the
//! mount answers again.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use capturer_tests::agent::{Agent, Home};
use capturer_tests::fuse::{Hang, HungMount};
use capturer_tests::wait::{PATIENCE, wait_until};
use rustix::process::Signal;

const APPS: [&str; 3] = ["one", "hung", "two"];
/// Lines written while the output hangs, in turn: more than a stream may have in flight.
const LINES: usize = 300;

struct Host {
    /// Dropped first: the home can't be removed while it is mounted there.
    mount: HungMount,
    home: Home,
    config: String,
    /// How many lines each log has.
    written: usize,
}

impl Host {
    fn new() -> Result<Host> {
        let home = Home::new()?;
        let (point, backing) = (home.output_dir().join("hung"), home.path().join("backing"));
        for directory in [&point, &backing, &home.path().join("logs")] {
            fs::create_dir_all(directory)?;
        }
        let mount = HungMount::new(&backing, &point)?;
        let logs = home.path().join("logs");
        let entries = APPS
            .map(|app| format!("{{paths: ['{}'], labels: {{app: {app}}}}}", logs.join(app).display()))
            .join(", ");
        // Waiting for the hung one would take an hour, which is longer than the test.
        let config = home.config(&format!(
            "container_monitor: {{enabled: false}}\nshutdown_timeout: 1h\nfile_monitor: {{files: [{entries}]}}\n"
        ));
        let config = config.replace("{container_name}.ndjson", "{label:app}/out.ndjson");
        Ok(Host { mount, home, config, written: 0 })
    }

    fn write(&mut self, lines: usize) -> Result<()> {
        for app in APPS {
            let path = self.home.path().join("logs").join(app);
            let mut log = OpenOptions::new().append(true).create(true).open(path)?;
            for number in self.written..self.written + lines {
                writeln!(log, "{app} {number}")?;
            }
        }
        self.written += lines;
        Ok(())
    }

    /// In the mount, which may hang.
    fn output(&self, app: &str) -> PathBuf {
        let directory =
            if app == "hung" { self.home.path().join("backing") } else { self.home.output_dir().join(app) };
        directory.join("out.ndjson")
    }

    fn has_all(&self, app: &str) -> Result<()> {
        let lines = messages(&self.output(app))?;
        let expected: Vec<String> = (0..self.written).map(|number| format!("{app} {number}")).collect();
        ensure!(lines.len() >= expected.len(), "{} of {} lines of {app}", lines.len(), expected.len());
        assert_eq!(lines, expected);
        Ok(())
    }

    fn wait_for(&self, apps: &[&str]) -> Result<()> {
        apps.iter()
            .try_for_each(|app| wait_until(&format!("all lines of {app}"), PATIENCE, || self.has_all(app)))
    }

    /// The output hangs, which is shown everywhere that it should be.
    fn hang(&mut self, agent: &Agent, hang: Hang) -> Result<()> {
        self.mount.set(hang);
        for _ in 0..5 {
            self.write(LINES / 5)?;
            self.wait_for(&["one", "two"])?;
        }
        let output = self.home.output_dir().join("hung/out.ndjson").display().to_string();
        wait_until("health to name the output", PATIENCE, || {
            let (ok, message) = agent.health_of("sink_local_file")?;
            let names = |text: &str| {
                [&output, "(fuse)", "/abort", "does not answer"].iter().all(|word| text.contains(*word))
            };
            ensure!(!ok && names(&message), "{ok} {message}");
            ensure!(agent.log_text()?.lines().any(names), "not in the log");
            ensure!(agent.metric("outputs_blocked{sink=\"local_file\"}")? == 1.0, "not in the metrics");
            let rows = agent.streams()?;
            let row = rows.iter().find(|row| row.to_string().contains("logs/hung")).context("no stream")?;
            ensure!(row.to_string().contains("does not answer"), "{row}");
            anyhow::Ok(())
        })?;
        // However long it hangs, the others must not notice.
        self.write(LINES)?;
        self.wait_for(&["one", "two"])
    }
}

fn messages(path: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(path)?;
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let message = |line: &str| {
        let record: serde_json::Value =
            serde_json::from_str(line).with_context(|| format!("torn: {line:?}"))?;
        Ok(record["message"].as_str().context("no message")?.to_owned())
    };
    whole.map(message).collect()
}

fn well(agent: &Agent) -> Result<()> {
    wait_until("the sink to be well", PATIENCE, || {
        let (ok, message) = agent.health_of("sink_local_file")?;
        ensure!(ok, "{message}");
        ensure!(agent.metric("outputs_blocked{sink=\"local_file\"}")? == 0.0, "the metric still counts it");
        anyhow::Ok(())
    })
}

#[test]
fn only_the_hung_output_waits_and_all_comes_once() -> Result<()> {
    let mut host = Host::new()?;
    host.write(3)?;
    let mut agent = host.home.start(&host.config)?;
    host.wait_for(&APPS)?;
    for hang in [Hang::Writes, Hang::Lookups, Hang::All] {
        // It answers again.
        host.hang(&agent, hang)?;
        host.mount.set(Hang::Nothing);
        host.wait_for(&APPS)?;
        well(&agent)?;

        // The agent is told to stop.
        host.hang(&agent, hang)?;
        let from = agent.log_text()?.len();
        agent.signal(Signal::TERM);
        wait_until("the agent to be done", PATIENCE, || {
            let log = agent.log_text()?;
            let said = log[from..].lines().find(|line| line.contains("stopped without waiting for"));
            let said = said.with_context(|| format!("not said: {}", &log[from..]))?;
            ensure!(said.contains("logs/hung") && said.contains("does not answer"), "{said}");
            ensure!(!said.contains("logs/one") && !said.contains("logs/two"), "{said}");
            anyhow::Ok(())
        })?;
        // The kernel lets no process end whose request a FUSE program has taken and not answered.
        if hang != Hang::All {
            host.mount.set(Hang::Nothing);
        }
        let status = agent.ended()?;
        ensure!(status.code() == Some(69), "{hang:?}: {status}");
        // If it can, the mount still hangs when the next one starts.
        agent = host.home.start(&host.config)?;
        host.write(LINES)?;
        host.wait_for(&["one", "two"])?;
        host.mount.set(Hang::Nothing);
        host.wait_for(&APPS)?;

        // It is killed.
        host.hang(&agent, hang)?;
        agent.signal(Signal::KILL);
        host.mount.set(Hang::Nothing);
        agent.ended()?;
        agent = host.home.start(&host.config)?;
        host.wait_for(&APPS)?;
        well(&agent)?;
    }
    agent.assert_nothing_lost()?;
    agent.stop()
}
