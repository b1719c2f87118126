//! One run of a load: its folder, the program in it (the agent, or a peer of `bench_peers.rs`), when the program has
//! delivered everything, what it used, and what it wrote.
//!
//! The agent itself reports how many lines it delivered. For a peer the lines in its outputs are counted; one that
//! loses lines never delivers all, so it counts as done when no more arrived for [`QUIET`].

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::bench::{BenchArgs, Running, end_agent};
use crate::bench_ends::{Engine, Loki};
use crate::bench_lines::{Lines, source_of};
use crate::bench_peers::{LineCounter, Peer, Places};
use crate::debian::run;
use crate::flame::Taken;
use crate::wait::wait_until;
use crate::{bench_peers, paths, tools};

const DEADLINE: Duration = Duration::from_secs(10 * 60);
/// A peer that has delivered nothing for this long is done.
pub(crate) const QUIET: Duration = Duration::from_secs(10);
/// How often progress is checked: asking costs the agent something, and counting takes time from a peer.
const LOOK: Duration = Duration::from_millis(100);
const SENT: &str = "log_capturer_logs_sent_total{";
const PUSHED: &str = "log_capturer_pushed_lines_total{";

/// A program to measure.
#[derive(Clone, Debug)]
pub(crate) enum Contender {
    Agent(PathBuf),
    Peer(Rc<Peer>),
}

impl Contender {
    /// The programs that the arguments name, in the order in which they take turns.
    pub(crate) fn all(arguments: &BenchArgs) -> Result<Vec<Contender>> {
        let peers = bench_peers::named(&arguments.peer, &arguments.what)?;
        let mut all = vec![Contender::Agent(built(arguments)?)];
        all.extend(arguments.against.clone().map(Contender::Agent));
        all.extend(peers.into_iter().map(|peer| Contender::Peer(Rc::new(peer))));
        Ok(all)
    }

    pub(crate) fn name(&self) -> String {
        match self {
            Contender::Agent(program) => program.display().to_string(),
            Contender::Peer(peer) => peer.name.clone(),
        }
    }

    /// Its name in a table: the agent's path is only shown if there are two agents.
    pub(crate) fn short_name(&self) -> String {
        match self {
            Contender::Agent(program) => {
                program.file_name().unwrap_or_default().to_string_lossy().into_owned()
            }
            Contender::Peer(peer) => peer.name.clone(),
        }
    }

    pub(crate) fn is_peer(&self) -> bool {
        matches!(self, Contender::Peer(_))
    }
}

/// The agent to measure; built unless the arguments name one.
pub(crate) fn built(arguments: &BenchArgs) -> Result<PathBuf> {
    if let Some(program) = &arguments.program {
        return Ok(program.clone());
    }
    let mut build = tools::cargo();
    build.args(["build", "--release", "--package", "capturer"]).current_dir(paths::workspace());
    run(&mut build).context("building the agent")?;
    Ok(paths::target().join("release/capturer"))
}

/// What a program is to read, and where its lines go.
pub(crate) struct Way<'a> {
    /// A path or a pattern.
    pub(crate) inputs: String,
    /// The inputs are json-file logs. A peer copies their lines unchanged.
    pub(crate) docker: bool,
    /// Files that match.
    pub(crate) sources: usize,
    /// `None` = lines go to files.
    pub(crate) loki: Option<&'a Loki>,
    /// The load never ends by itself.
    pub(crate) goes_on: bool,
}

/// One run; see the head of this file.
pub(crate) struct Host {
    home: tempfile::TempDir,
    port: u16,
    pub(crate) contender: Contender,
    /// How long a profile of each run is to be, in seconds; `None` = there is none.
    pub(crate) profile_s: Option<u64>,
    /// The profile of the last run.
    pub(crate) profile: Mutex<Option<String>>,
}

/// A running program, and the profile being taken of it.
pub(crate) struct Working {
    pub(crate) running: Running,
    profile: Option<Taken>,
}

impl Working {
    pub(crate) fn pid(&self) -> u32 {
        self.running.0.id()
    }
}

impl Host {
    pub(crate) fn new(arguments: &BenchArgs, contender: &Contender) -> Result<Host> {
        let parent = arguments.dir.clone().unwrap_or_else(std::env::temp_dir);
        let home = tempfile::Builder::new().prefix("capturer-bench-").tempdir_in(parent)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let contender = contender.clone();
        Ok(Host { home, port, contender, profile_s: None, profile: Mutex::default() })
    }

    pub(crate) fn path(&self) -> &Path {
        self.home.path()
    }

    /// Starts the program on files.
    pub(crate) fn start(&self, way: &Way) -> Result<Working> {
        let program = match &self.contender {
            Contender::Agent(program) => program,
            Contender::Peer(peer) => {
                let (inputs, sources, loki) = (&*way.inputs, way.sources, way.loki);
                let running = peer.start(&Places { home: self.path(), inputs, sources, loki })?;
                return Ok(Working { running, profile: None });
            }
        };
        let format = if way.docker { ", format: docker" } else { "" };
        let sources = format!(
            "container_monitor: {{enabled: false}}\nfile_monitor: {{files: [{{paths: [\"{}\"]{format}}}]}}",
            way.inputs
        );
        let sinks = match way.loki {
            Some(loki) => {
                format!("local_file: {{enabled: false}}, loki: {{enabled: true, url: \"{}\"}}", loki.url())
            }
            None => self.to_files("path"),
        };
        self.start_agent(program, &sources, &sinks, way.goes_on)
    }

    /// Starts the agent on the Engine's API.
    pub(crate) fn start_on(&self, engine: &Engine, goes_on: bool) -> Result<Working> {
        let Contender::Agent(program) = &self.contender else { anyhow::bail!("a peer of the API") };
        let socket = engine.socket().display();
        let sources = format!("container_monitor: {{socket_path: \"unix://{socket}\", read_from: api}}");
        self.start_agent(program, &sources, &self.to_files("container_name"), goes_on)
    }

    fn start_agent(&self, program: &Path, sources: &str, sinks: &str, goes_on: bool) -> Result<Working> {
        let text = format!(
            "data_dir: {}/data\nadmin: {{listen: \"127.0.0.1:{}\", profile: {}}}\nlog: {{level: warn}}\n\
             resource_monitoring: {{enabled: false}}\n{sources}\nsinks: {{{sinks}}}\n",
            self.path().display(),
            self.port,
            self.profile_s.is_some(),
        );
        let config = self.path().join("bench.yaml");
        fs::write(&config, text)?;
        let mut command = Command::new(program);
        command.args(["run", "-c"]).arg(config).stdin(Stdio::null());
        let running = Running(command.spawn().context("starting the agent")?);
        let profile = self.profile_s.map(|seconds| Taken::begin(self.port, seconds, goes_on));
        Ok(Working { running, profile })
    }

    fn to_files(&self, name: &str) -> String {
        format!(
            "local_file: {{directory: {}/out, file: \"{{{name}}}.ndjson\", max_size: 0}}",
            self.path().display()
        )
    }

    /// Waits for the agent's profile, if there is one, and ends the program.
    pub(crate) fn end(&self, mut working: Working) -> Result<()> {
        if let Some(taken) = working.profile.take() {
            *self.profile.lock().unwrap_or_else(PoisonError::into_inner) = Some(taken.end()?);
        }
        end_agent(&mut working.running)
    }

    /// Waits until this many lines were delivered, or a peer is done. Returns what was used by then, and the time.
    pub(crate) fn wait_for(
        &self,
        lines: u64,
        working: &mut Working,
        loki: Option<&Loki>,
    ) -> Result<(Used, Instant)> {
        let pid = working.pid();
        if self.contender.is_peer() {
            let mut counter = LineCounter::default();
            return wait_for_peer(lines, &mut working.running, || match loki {
                Some(loki) => loki.count_lines(),
                None => counter.look(&self.path().join("out")),
            });
        }
        let counter = if loki.is_some() { PUSHED } else { SENT };
        wait_until("the lines to be delivered", DEADLINE, || {
            std::thread::sleep(LOOK);
            if working.running.0.try_wait().is_ok_and(|status| status.is_some()) {
                return Ok(());
            }
            let count = self.count(counter)?;
            ensure!(count >= lines, "{count} of {lines} lines");
            Ok(())
        })?;
        ensure!(working.running.0.try_wait()?.is_none(), "the agent has ended by itself");
        Ok((Used::of(pid)?, Instant::now()))
    }

    /// The port of the agent's admin server.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    fn get(&self, page: &str) -> Result<String> {
        ask(self.port, page, Duration::from_secs(10))
    }

    fn count(&self, counter: &str) -> Result<u64> {
        let text = self.get("/metrics")?;
        let lines = text.lines().filter(|line| line.starts_with(counter));
        Ok(lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum())
    }

    /// The messages of each output, in order.
    pub(crate) fn outputs(&self) -> Result<Lines> {
        let mut found = Lines::new();
        for entry in fs::read_dir(self.path().join("out"))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let messages = found.entry(source_of(&name).to_owned()).or_default();
            for line in BufReader::new(File::open(&path)?).lines() {
                messages.push(self.contender.message(line?)?);
            }
        }
        Ok(found)
    }
}

impl Contender {
    /// The message of a line that the program wrote.
    pub(crate) fn message(&self, line: String) -> Result<String> {
        if let Contender::Peer(peer) = self {
            return peer.message(line);
        }
        let record: Value = serde_json::from_str(&line)?;
        Ok(record["message"].as_str().context("a record without a message")?.to_owned())
    }
}

/// Waits until `count` returns this many lines, or has not changed for [`QUIET`].
pub(crate) fn wait_for_peer(
    lines: u64,
    running: &mut Running,
    mut count: impl FnMut() -> Result<u64>,
) -> Result<(Used, Instant)> {
    let (pid, started) = (running.0.id(), Instant::now());
    let (mut last, mut used, mut since) = (0, Used::of(pid)?, Instant::now());
    while last < lines && since.elapsed() < QUIET {
        std::thread::sleep(LOOK);
        ensure!(running.0.try_wait()?.is_none(), "the peer has ended by itself");
        ensure!(started.elapsed() < DEADLINE, "the peer did not come to an end");
        let now = count()?;
        if now > last {
            (last, used, since) = (now, Used::of(pid)?, Instant::now());
        }
    }
    Ok((used, since))
}

/// An agent's whole answer.
pub(crate) fn ask(port: u16, page: &str, patience: Duration) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(patience))?;
    write!(stream, "GET {page} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Used {
    pub(crate) user_s: f64,
    pub(crate) system_s: f64,
    pub(crate) switches: f64,
}

impl Used {
    pub(crate) fn of(pid: u32) -> Result<Used> {
        let fields = crate::sweep::stat_fields(i32::try_from(pid)?).context("the program has ended")?;
        let ticks =
            |index: usize| -> Result<f64> { Ok(fields.get(index).context("a short stat line")?.parse()?) };
        // utime and stime are fields 14 and 15; ours begin with the third. Of both together the scheduler knows more exactly.
        let (user, system) = (ticks(11)?, ticks(12)?);
        let all_s = crate::bench_probe::cpu_ns(pid)? as f64 / 1e9;
        let user_share = if user + system > 0.0 { user / (user + system) } else { 0.0 };
        let mut switches = 0.0;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may end meanwhile.
            let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            switches += line.context("no count of switches")?.trim().parse::<f64>()?;
        }
        Ok(Used { user_s: all_s * user_share, system_s: all_s * (1.0 - user_share), switches })
    }
}
