//! The agent under test as its users run it: the release binary, a config file, signals, HTTP. No knowledge of its
//! inside.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::sweep::{FOLDER_PREFIXES, folder_prefix};
use crate::wait::{PATIENCE, wait_until};

/// A user without rights, as Debian numbers it.
const NOBODY: u32 = 65_534;
/// How the log tells of a leak.
pub const LEAK_TOLD: &str = "a leak:";
/// How long a dropped agent gets to end after SIGKILL. One that hangs in the kernel does not end even then.
const KILLED_PATIENCE: Duration = Duration::from_secs(30);

/// The program to test: `CAPTURER_BIN`, which `cargo xtask test` sets.
pub fn program() -> PathBuf {
    let path = std::env::var_os("CAPTURER_BIN")
        .expect("CAPTURER_BIN names the agent to test; `cargo xtask test` builds it and sets this");
    PathBuf::from(path)
}

/// A place for an agent: its config, positions and output survive its restarts.
pub struct Home {
    /// There until it is dropped.
    dir: Option<tempfile::TempDir>,
}

impl Drop for Home {
    /// A test that leaves its folder behind fails itself, instead of the last part of the run. What is in the way is
    /// mostly a mount or a process that is dropped after its home.
    fn drop(&mut self) {
        let Some(dir) = self.dir.take() else { return };
        let path = dir.path().to_owned();
        if let Err(error) = dir.close()
            && !std::thread::panicking()
        {
            panic!("{} can't be removed: {error}", path.display());
        }
    }
}

impl Home {
    /// A new, empty one.
    pub fn new() -> Result<Home> {
        let dir = tempfile::Builder::new().prefix(&folder_prefix(FOLDER_PREFIXES[0])).tempdir()?;
        Ok(Home { dir: Some(dir) })
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.dir.as_ref().expect("it is not dropped").path()
    }

    /// Where records go.
    pub fn output_dir(&self) -> PathBuf {
        self.path().join("out")
    }

    /// A config with this home's directories, a free admin port, and more sections of YAML. Outputs are not rotated, so
    /// that each is one file.
    pub fn config(&self, more: &str) -> String {
        self.config_with_output("max_size: 0", more)
    }

    /// The same with settings of the output, as they stand between braces.
    pub fn config_with_output(&self, output: &str, more: &str) -> String {
        let home = self.path().display();
        format!(
            "data_dir: {home}/data\nadmin: {{listen: \"127.0.0.1:0\"}}\nlog: {{level: debug}}\n\
             sinks:\n  local_file: {{directory: {home}/out, file: \"{{container_name}}.ndjson\", {output}}}\n{more}"
        )
    }

    /// Starts an agent and waits until it is ready.
    pub fn start(&self, config: &str) -> Result<Agent> {
        let agent = self.launch(config)?;
        wait_until("the agent to be ready", PATIENCE, || agent.get("/readyz"))?;
        Ok(agent)
    }

    /// As [`Home::start`], but the agent runs as nobody: Docker's files are closed to it. The Engine's socket is opened
    /// to everybody for that.
    pub fn start_as_nobody(&self, config: &str, socket: &Path) -> Result<Agent> {
        let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        open(socket, 0o666)?;
        for parent in socket.ancestors().skip(1).filter(|parent| parent.starts_with("/tmp/")) {
            open(parent, 0o755)?;
        }
        for directory in [self.path().to_owned(), self.path().join("data"), self.output_dir()] {
            fs::create_dir_all(&directory)?;
            chown(&directory, Some(NOBODY), Some(NOBODY))?;
        }
        let agent = self.launch_as(config, &program(), &[], Some(NOBODY))?;
        wait_until("the agent to be ready", PATIENCE, || agent.get("/readyz"))?;
        Ok(agent)
    }

    /// Writes the config that the next reload, or the next start of a command, reads.
    pub fn write_config(&self, config: &str) -> Result<()> {
        // Whole or not at all, for it may be read just now.
        let (new, file) = (self.path().join("config.new"), self.path().join("config.yaml"));
        fs::write(&new, config)?;
        Ok(fs::rename(new, file)?)
    }

    /// Starts an agent and waits only until its admin server answers.
    pub fn launch(&self, config: &str) -> Result<Agent> {
        self.launch_program(config, &program(), &[])
    }

    /// The same with another program, and variables in its environment.
    pub fn launch_program(
        &self,
        config: &str,
        program: &Path,
        environment: &[(&str, &Path)],
    ) -> Result<Agent> {
        self.launch_as(config, program, environment, None)
    }

    /// The same as nobody, who may read nothing that is not open to all.
    pub fn launch_as_nobody(&self, config: &str) -> Result<Agent> {
        for directory in [self.path().to_owned(), self.path().join("data"), self.output_dir()] {
            fs::create_dir_all(&directory)?;
            chown(&directory, Some(NOBODY), Some(NOBODY))?;
        }
        self.launch_as(config, &program(), &[], Some(NOBODY))
    }

    fn launch_as(
        &self,
        config: &str,
        program: &Path,
        environment: &[(&str, &Path)],
        user: Option<u32>,
    ) -> Result<Agent> {
        let file = self.path().join("config.yaml");
        fs::write(&file, config)?;
        let log = self.path().join("agent.log");
        let from = fs::metadata(&log).map_or(0, |metadata| metadata.len());
        let mut command = Command::new(program);
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        let child = command
            .args(["run", "-c"])
            .arg(&file)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::options().create(true).append(true).open(&log)?)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let mut agent = Agent { child, log, address: String::new(), ended: false };
        let (address, text) =
            wait_until("the agent to say where its admin server listens", PATIENCE, || {
                // Asked first: what it said before it ended is in its log by then.
                let has_ended = agent.child.try_wait()?.is_some();
                let text = agent.log_text()?;
                let text = text.get(from as usize..).unwrap_or_default();
                let line = text.lines().find(|line| line.contains("admin server listens"));
                let address = line.and_then(|line| line.split("address=").nth(1)?.split_whitespace().next());
                ensure!(has_ended || address.is_some(), "its log:\n{text}");
                Ok((address.map(str::to_owned), text.to_owned()))
            })?;
        agent.address = address.with_context(|| format!("the agent ended at once; its log:\n{text}"))?;
        Ok(agent)
    }

    /// All records written, by output file, in the order they stand there. Every line must be a whole record.
    pub fn records(&self) -> Result<BTreeMap<String, Vec<Record>>> {
        self.by_output(read_records)
    }

    /// The same without a last line that has no end: the agent was killed, or is in the middle of a write.
    pub fn whole_records(&self) -> Result<BTreeMap<String, Vec<Record>>> {
        self.by_output(|path| {
            let text = fs::read(path)?;
            let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            parse_records(path, &text[..whole])
        })
    }

    fn by_output(
        &self,
        read: impl Fn(&Path) -> Result<Vec<Record>>,
    ) -> Result<BTreeMap<String, Vec<Record>>> {
        let mut all = BTreeMap::new();
        for entry in fs::read_dir(self.output_dir()).into_iter().flatten() {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            all.insert(name, read(&path)?);
        }
        Ok(all)
    }

    /// Records of one container; none if it has no output yet.
    pub fn records_of(&self, container: &str) -> Result<Vec<Record>> {
        let path = self.output_of(container);
        if path.exists() { read_records(&path) } else { Ok(Vec::new()) }
    }

    /// Records of one container, those in older files of its output included, oldest first. Compressed ones are not read.
    pub fn records_with_older(&self, container: &str) -> Result<Vec<Record>> {
        let mut older = Vec::new();
        for entry in fs::read_dir(self.output_dir())? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // Named by time, so by name is by age.
            if name.starts_with(&format!("{container}~")) && name.ends_with(".ndjson") {
                older.push(path);
            }
        }
        older.sort();
        let mut records = Vec::new();
        for path in older {
            records.extend(read_records(&path)?);
        }
        records.extend(self.records_of(container)?);
        Ok(records)
    }

    /// The output of one container.
    pub fn output_of(&self, container: &str) -> PathBuf {
        self.output_dir().join(format!("{container}.ndjson"))
    }

    /// These lines came, each once and nothing else, in whatever order and outputs.
    pub fn assert_all_came_once(&self, lines: &[String]) -> Result<()> {
        let mut expected = lines.to_vec();
        expected.sort();
        let got = || -> Result<Vec<String>> {
            Ok(self.records()?.into_values().flatten().map(|record| record.message).collect())
        };
        // Not a failure yet if they never come: the comparison says which are missing. What comes twice comes late.
        let _ = wait_until("every line", PATIENCE, || {
            let got = got()?.len();
            ensure!(got >= expected.len(), "{got} of {} lines", expected.len());
            Ok(())
        });
        let mut got = got()?;
        got.sort();
        let missing: Vec<_> = expected.iter().filter(|line| got.binary_search(line).is_err()).collect();
        let twice: Vec<_> = got.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| &pair[0]).collect();
        assert!(missing.is_empty() && twice.is_empty(), "missing {missing:?}, twice {twice:?}");
        assert_eq!(got, expected);
        Ok(())
    }

    /// How many records one container has; cheap, for waiting.
    pub fn count_of(&self, container: &str) -> usize {
        let text = fs::read(self.output_of(container)).unwrap_or_default();
        text.iter().filter(|byte| **byte == b'\n').count()
    }

    /// Messages of one container, by channel, each with its newline: as `docker logs` prints them.
    pub fn printed(&self, container: &str) -> Result<(Vec<u8>, Vec<u8>)> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        for record in self.records_of(container)? {
            let channel = if record.stream == "stdout" { &mut stdout } else { &mut stderr };
            channel.extend_from_slice(record.message.as_bytes());
            channel.push(b'\n');
        }
        Ok((stdout, stderr))
    }

    /// Bytes of all outputs; cheap, for waiting.
    pub fn output_bytes(&self) -> u64 {
        let entries = fs::read_dir(self.output_dir()).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
    }
}

/// An agent that runs may be in the middle of a write: it is waited for.
fn read_records(path: &Path) -> Result<Vec<Record>> {
    let text = wait_until("a whole record at the end", PATIENCE, || {
        let text = fs::read(path)?;
        ensure!(text.last().is_none_or(|byte| *byte == b'\n'), "{} ends within a record", path.display());
        anyhow::Ok(text)
    })?;
    parse_records(path, &text)
}

fn parse_records(path: &Path, text: &[u8]) -> Result<Vec<Record>> {
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let parse = |line: &[u8]| {
        let shown =
            || format!("{}: {}", path.display(), String::from_utf8_lossy(&line[..line.len().min(300)]));
        Record::parse(line).with_context(shown)
    };
    lines.map(parse).collect()
}

/// One record of the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// RFC 3339.
    pub time: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// Container name, empty for files.
    pub container_name: String,
    /// The text.
    pub message: String,
}

impl Record {
    fn parse(line: &[u8]) -> Result<Record> {
        let value: Value = serde_json::from_slice(line)?;
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        Ok(Record {
            time: text("time").context("no time")?,
            stream: text("stream").context("no stream")?,
            container_name: text("container_name").unwrap_or_default(),
            message: text("message").context("no message")?,
        })
    }
}

/// What an agent holds at one moment; equal numbers before and after = nothing leaked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Descriptors, from the kernel.
    pub fds: usize,
    /// Threads, from the kernel.
    pub threads: usize,
    /// Tasks of the capture loop, by its own count.
    pub tasks: u64,
}

/// A running agent; killed when dropped, and then it shows its log, for a test that ends well stops its agent or kills it.
/// What a test says is shown if it fails.
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

    /// Status and body of the answer to an order.
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

    /// What it holds now.
    pub fn held(&self) -> Result<Held> {
        let count = |what: &str| {
            Ok::<_, anyhow::Error>(fs::read_dir(format!("/proc/{}/{what}", self.pid()))?.count())
        };
        Ok(Held { fds: count("fd")?, threads: count("task")?, tasks: self.metric("tasks")? as u64 })
    }

    /// Whether a component of `/health` is well, and what it says.
    pub fn health_of(&self, component: &str) -> Result<(bool, String)> {
        let health: Value = serde_json::from_str(&self.ask("/health")?.1)?;
        let told = &health["components"][component];
        Ok((told["ok"] == true, told["message"].as_str().unwrap_or_default().to_owned()))
    }

    /// No loss was declared, nor the possibility of one.
    pub fn assert_nothing_lost(&self) -> Result<()> {
        let text = self.get("/metrics")?;
        for name in ["losses_total", "possible_losses_total", "lost_bytes_total"] {
            let counted = text.lines().filter(|line| line.starts_with(&format!("log_capturer_{name}{{")));
            let above: Vec<&str> = counted.filter(|line| !line.ends_with(" 0")).collect();
            assert!(above.is_empty(), "{above:?}");
        }
        Ok(())
    }

    /// Nothing seems to leak, and nothing ever seemed to: by the metrics, by the ledger, by health, and by the log, in words
    /// that witness.rs sees there when something does leak.
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

    /// SIGTERM; must end with exit code 0 within the deadline.
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

    /// How it ended, if it has.
    pub fn has_ended(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        self.ended |= status.is_some();
        Ok(status)
    }

    /// Waits for its end.
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
