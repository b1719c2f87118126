//! Files that another program writes and rotates, and an agent that is up, down, stopped or killed meanwhile. For tests
//! with real programs: each line must simply be delivered once, and no loss declared.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use super::ledger::Declared;
use super::output::Outputs;
use crate::agent::{Agent, Home};
use crate::amount::number;
use crate::wait::wait_until;

/// How long lines may take to arrive, in seconds, if `CAPTURER_WALK_DEADLINE` says nothing else.
const DEADLINE: u64 = 120;

/// What the agent does while files are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum While {
    /// It runs.
    Up,
    /// It was ended by SIGTERM, and is started afterwards.
    Down,
    /// It is stopped by SIGSTOP, and goes on afterwards.
    Frozen,
    /// It was ended by SIGKILL, and is started afterwards.
    Killed,
}

impl While {
    /// All of them.
    pub const ALL: [While; 4] = [While::Up, While::Down, While::Frozen, While::Killed];
}

/// An agent that follows some paths into one output.
pub struct Watched {
    home: Home,
    paths: Vec<String>,
    agent: Option<Agent>,
    earlier: Declared,
}

impl Watched {
    /// One that follows these paths, which are relative to its own folder `logs`.
    pub fn start(paths: &[&str]) -> Result<Watched> {
        let home = Home::new()?;
        let folder = home.path().join("logs");
        fs::create_dir_all(&folder)?;
        let paths = paths.iter().map(|path| folder.join(path).display().to_string()).collect();
        let mut watched = Watched { home, paths, agent: None, earlier: Declared::default() };
        watched.launch()?;
        Ok(watched)
    }

    /// The folder of the logs.
    pub fn logs(&self) -> PathBuf {
        self.home.path().join("logs")
    }

    /// The folder of everything.
    pub fn path(&self) -> &Path {
        self.home.path()
    }

    fn launch(&mut self) -> Result<()> {
        let home = self.home.path().display();
        let config = format!(
            "data_dir: {home}/data\nadmin: {{listen: \"127.0.0.1:0\"}}\nlog: {{level: debug}}\n\
             container_monitor: {{enabled: false}}\nresource_monitoring: {{enabled: false}}\n\
             sinks:\n  local_file: {{directory: {home}/out, file: \"all.ndjson\", max_size: 0}}\n\
             file_monitor:\n  files: [{{paths: {:?}, format: raw}}]\n",
            self.paths
        );
        self.agent = Some(self.home.launch(&config)?);
        Ok(())
    }

    /// Waits until the agent has looked at everything. One that is ended before leaves files unread for another round, and
    /// what is rotated that often without anybody looking is gone.
    fn wait_for_look(&self) -> Result<()> {
        let Some(agent) = &self.agent else { return Ok(()) };
        let deadline = Duration::from_secs(number("CAPTURER_WALK_DEADLINE", DEADLINE)?);
        wait_until("the agent to look", deadline, || {
            let (status, ready) = agent.ask("/readyz")?;
            let streams = agent.streams()?;
            let is_begun = |stream: &Value| !matches!(stream["state"].as_str(), Some("found" | "opening"));
            ensure!(status == 200 && streams.iter().all(is_begun), "{ready}: {streams:?}");
            Ok::<_, anyhow::Error>(())
        })
    }

    /// Brings the agent into a state for `work`, and back.
    pub fn while_it_is(&mut self, state: While, work: impl FnOnce() -> Result<()>) -> Result<()> {
        self.wait_for_look()?;
        match state {
            While::Up => return work(),
            While::Down => self.stop()?,
            While::Killed => {
                self.sample()?;
                if let Some(agent) = self.agent.take() {
                    agent.kill()?;
                }
            }
            While::Frozen => self.signal(Signal::STOP),
        }
        let worked = work();
        match state {
            While::Frozen => self.signal(Signal::CONT),
            _ => self.launch()?,
        }
        worked
    }

    fn signal(&self, signal: Signal) {
        if let Some(agent) = &self.agent {
            agent.signal(signal);
        }
    }

    /// Everything that came, in its order.
    pub fn came(&self) -> Result<Vec<String>> {
        let delivered = Outputs::new(self.home.path())?.read();
        ensure!(delivered.broken.is_empty(), "broken records: {:?}", delivered.broken);
        Ok(delivered.messages.into_values().flatten().collect())
    }

    /// Waits until these lines came. Any that came twice is found at the end.
    pub fn wait_for(&self, lines: &[String]) -> Result<()> {
        let wanted: std::collections::BTreeSet<&String> = lines.iter().collect();
        let deadline = Duration::from_secs(number("CAPTURER_WALK_DEADLINE", DEADLINE)?);
        wait_until("all lines to come", deadline, || {
            let came = self.came()?;
            let mut missing = wanted.clone();
            came.iter().for_each(|line| {
                missing.remove(line);
            });
            ensure!(missing.is_empty(), "{} lines are missing, such as {:?}", missing.len(), missing.first());
            Ok::<_, anyhow::Error>(())
        })
        .with_context(|| format!("the agent's log ends with\n{}", self.log_end()))
    }

    fn log_end(&self) -> String {
        let text = fs::read_to_string(self.home.path().join("agent.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Adds what the running agent declared to what is known; it starts from zero in its next run.
    fn sample(&mut self) -> Result<()> {
        let Some(agent) = &self.agent else { return Ok(()) };
        let declared = Declared::in_metrics(&agent.get("/metrics")?);
        self.earlier.known += declared.known;
        self.earlier.possible += declared.possible;
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        self.sample()?;
        self.agent.take().map_or(Ok(()), Agent::stop)
    }

    /// Ends it. Each of `lines` must have come once and nothing else, in the order they have, but for those that `is_late`
    /// says were written to a file that was rotated already; and no loss may be declared,
    /// unless `is_doubtful` a possible one.
    pub fn finish(
        mut self,
        lines: &[String],
        is_late: impl Fn(&str) -> bool,
        is_doubtful: bool,
    ) -> Result<()> {
        self.wait_for(lines)?;
        self.stop()?;
        let came = self.came()?;
        let mut times: BTreeMap<&String, i64> = lines.iter().map(|line| (line, 0)).collect();
        for line in &came {
            *times.entry(line).or_insert(1_000_000) += 1;
        }
        let wrong: Vec<_> = times.iter().filter(|(_, count)| **count != 1).collect();
        ensure!(
            wrong.is_empty(),
            "{} of {} lines did not come once, such as {:?}; the agent's log ends with\n{}",
            wrong.len(),
            lines.len(),
            wrong[0],
            self.log_end()
        );
        let in_order =
            |all: &[String]| -> Vec<String> { all.iter().filter(|line| !is_late(line)).cloned().collect() };
        let (got, expected) = (in_order(&came), in_order(lines));
        let at = got.iter().zip(&expected).position(|(got, expected)| got != expected);
        ensure!(
            at.is_none(),
            "out of order: {:?} where {:?} is due",
            got[at.unwrap_or(0)],
            expected[at.unwrap_or(0)]
        );
        let Declared { known, possible } = self.earlier;
        ensure!(
            known == 0.0 && (possible == 0.0 || is_doubtful),
            "everything came; losses and bytes declared: {known}, possible losses: {possible}; the log ends with\n{}",
            self.log_end()
        );
        Ok(())
    }
}
