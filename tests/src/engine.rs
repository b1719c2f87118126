//! A private, real Docker Engine for one test.
//!
//! ```text
//! target/engines/20.10, 28.5   unpacked by `cargo xtask engines`; nothing of it is installed on the machine
//! /tmp/capturer-engine-…/      one Engine's everything: docker.sock, data/, exec/, dockerd.log
//! ```
//! It has its own socket, data, containerd and cgroup, and no network (`--bridge=none`), so any number of Engines, of
//! one or several versions, run side by side and beside an installed one. Still, dockerd and containerd make two things
//! outside, once, empty except for a key: /etc/docker and /opt/containerd.
//!
//! Dropping an Engine takes all of it away, also while a test panics. A test process that is killed leaves a record in that
//! folder, by which the next Engine's start and `cargo xtask test` do the same later. (PR_SET_PDEATHSIG would not do: it
//! fires when the *thread* ends that started dockerd, it stops at dockerd, and it needs unsafe code.)
//!
//! Deliberately no mock and no wrapper of Docker's API: a test talks to [`Engine::socket`], or uses the Engine's own
//! command by [`Engine::docker`].

mod data_root;
mod run_spec;

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::sweep::{ROOT_PREFIX, SWEPT_NOTE, Traces, start_ticks, stat_fields, sweep_dead};
use crate::wait::{PATIENCE, wait_until};
pub use run_spec::RunSpec;

/// The image that every Engine has: busybox with a link for each of its commands, `sh` and `seq` among them.
pub const IMAGE: &str = "capturer-test";

/// Any one `docker` command. Waiting for a container to end is the longest.
const COMMAND_DEADLINE_SECONDS: u32 = 600;
/// How long dockerd may take to stop cleanly when a test is over. Its leftovers are swept.
const GOOD_ORDER_PATIENCE: Duration = Duration::from_secs(5);
/// A path to a socket may have 107 bytes, and the longest that dockerd makes lies 43 bytes beneath its folder.
const ROOT_BYTES_MAX: usize = 60;

/// The Docker Engines that everything is tried on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EngineVersion {
    /// 20.10 of Debian 12, API 1.41: the hard one, whose follow loses lines at rotations.
    V20_10,
    /// 28.5 of Debian sid, API 1.51: reads of logs were written anew in 23.
    V28_5,
}

impl EngineVersion {
    /// All of them, oldest first.
    pub const ALL: [Self; 2] = [Self::V20_10, Self::V28_5];

    /// The version as Docker writes it, also the name of its folder.
    pub fn label(self) -> &'static str {
        match self {
            Self::V20_10 => "20.10",
            Self::V28_5 => "28.5",
        }
    }
}

/// The output of an Engine's command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

/// A running Engine. Dropping it leaves nothing of it on the machine.
#[derive(Debug)]
pub struct Engine {
    version: EngineVersion,
    traces: Traces,
    socket: PathBuf,
    data_root: PathBuf,
    arguments: Vec<String>,
    /// `None` while it is stopped.
    daemon: Option<Child>,
    /// Set by [`Engine::close`], so that dropping does not do it all again.
    closed: bool,
}

impl Engine {
    /// Starts an Engine that has the image [`IMAGE`] and no container.
    ///
    /// # Panics
    /// If the Engines are not unpacked: a test that runs without one must not pass.
    pub fn start(version: EngineVersion) -> Result<Self> {
        Self::start_with(version, &[])
    }

    /// [`Engine::start`] with more arguments for dockerd, as `--live-restore`.
    ///
    /// # Panics
    /// If the Engines are not unpacked.
    pub fn start_with(version: EngineVersion, arguments: &[&str]) -> Result<Self> {
        let programs = engines_dir().join(version.label());
        let programs = programs.canonicalize().unwrap_or(programs);
        assert!(
            programs.join("STAMP").exists(),
            "there is no Docker Engine in {}; `cargo xtask test` unpacks it and runs this test (or: cargo xtask engines)",
            programs.display()
        );
        sweep_dead_and_note()?;
        let root = make_root()?;
        let suffix = root.file_name().context("a folder without a name")?.to_string_lossy().into_owned();
        let traces = Traces::of_this_process(programs, root.clone(), suffix)?;
        traces.save()?;
        // From here on, dropping cleans up, also when a step below fails.
        let mut engine = Self {
            version,
            socket: root.join("docker.sock"),
            data_root: root.join("data"),
            arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
            daemon: None,
            closed: false,
            traces,
        };
        // Without a file of its own it would read the machine's /etc/docker/daemon.json.
        fs::write(root.join("daemon.json"), "{}\n").context("writing daemon.json")?;
        engine.start_daemon()?;
        let image = engine.traces.programs.join("image.tar");
        engine.docker(&["import", &image.to_string_lossy(), IMAGE]).context("making the test image")?;
        Ok(engine)
    }

    /// Which Engine this is.
    pub fn version(&self) -> EngineVersion {
        self.version
    }

    /// The socket of its API.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its `--data-root`; log files lie beneath `containers`.
    pub fn data_root(&self) -> &Path {
        &self.data_root
    }

    /// Its temporary folder: a place for what belongs to it and must go with it.
    pub fn root(&self) -> &Path {
        &self.traces.root
    }

    /// What dockerd and its containerd log.
    pub fn daemon_log(&self) -> PathBuf {
        self.traces.root.join("dockerd.log")
    }

    /// What it would leave on the machine, for tests of the cleaning itself.
    pub fn traces(&self) -> &Traces {
        &self.traces
    }

    /// The process id of dockerd.
    ///
    /// # Panics
    /// If it is stopped.
    pub fn dockerd_pid(&self) -> i32 {
        i32::try_from(self.child().id()).expect("process ids fit in 31 bits")
    }

    /// Runs the Engine's own `docker` command. Fails, with what it printed, unless it ends with 0.
    pub fn docker(&self, arguments: &[&str]) -> Result<Output> {
        let (status, output) = self.docker_status(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        match status.code() {
            Some(0) => Ok(output),
            Some(124) => bail!("docker {} took over {COMMAND_DEADLINE_SECONDS} s", arguments.join(" ")),
            _ => bail!("docker {} ended with {status}: {}", arguments.join(" "), said.trim()),
        }
    }

    /// Makes a file in a container, which may wait for that to end. `touch` is killed then if it has not ended before.
    pub fn touch(&self, container: &str, file: &str) -> Result<()> {
        const KILLED: i32 = 128 + 9;
        let (status, output) = self.docker_status(&["exec", container, "touch", file])?;
        let said = String::from_utf8_lossy(&output.stderr);
        let is_done = matches!(status.code(), Some(0 | KILLED));
        ensure!(is_done, "touching {file} in {container} ended with {status}: {}", said.trim());
        Ok(())
    }

    /// Pauses a container. runc gives up freezing one while the machine is busy, so it is told again.
    pub fn pause(&self, container: &str) -> Result<()> {
        wait_until("the container to be paused", PATIENCE, || self.docker(&["pause", container]).map(drop))
    }

    /// Runs a container in the background, without a network; answers its id.
    pub fn run(&self, spec: &RunSpec) -> Result<String> {
        let mut words = vec!["run", "--detach", "--network=none"];
        words.extend(spec.arguments.iter().map(String::as_str));
        words.push(spec.image.as_deref().unwrap_or(IMAGE));
        words.extend(spec.command.iter().map(String::as_str));
        self.docker_line(&words)
    }

    /// Waits until the container has ended; answers its exit code.
    pub fn wait(&self, container: &str) -> Result<i32> {
        let code = self.docker_line(&["wait", container])?;
        code.parse().with_context(|| format!("docker wait {container} answered {code:?}"))
    }

    /// Waits until all of them have ended. One command for all: each takes more of a processor than the containers do.
    pub fn wait_for_all(&self, containers: &[String]) -> Result<()> {
        let mut words = vec!["wait"];
        words.extend(containers.iter().map(String::as_str));
        self.docker(&words).map(drop)
    }

    /// What the Engine itself gives back of the container's output.
    pub fn logs(&self, container: &str) -> Result<Output> {
        self.docker(&["logs", container])
    }

    /// `docker inspect`.
    pub fn inspect(&self, container: &str) -> Result<Value> {
        let output = self.docker(&["container", "inspect", container])?;
        let mut list: Vec<Value> =
            serde_json::from_slice(&output.stdout).context("parsing docker inspect")?;
        list.pop().with_context(|| format!("docker inspect {container} answered an empty list"))
    }

    /// Where driver `json-file` keeps a container's log; `id` in full.
    pub fn log_path(&self, id: &str) -> PathBuf {
        self.data_root.join("containers").join(id).join(format!("{id}-json.log"))
    }

    /// Removes the container, killing it if it runs.
    pub fn rm(&self, container: &str) -> Result<()> {
        self.docker(&["rm", "--force", container]).map(drop)
    }

    /// Stops dockerd by SIGTERM and waits for its end; containers end with it.
    pub fn stop(&mut self) -> Result<()> {
        self.end_daemon(Signal::TERM)
    }

    /// Ends dockerd by SIGKILL. Containers run on, but nobody reads what they print.
    pub fn kill(&mut self) -> Result<()> {
        self.end_daemon(Signal::KILL)
    }

    /// Stops dockerd and starts it again on the same data.
    pub fn restart_daemon(&mut self) -> Result<()> {
        self.stop()?;
        self.start_daemon()
    }

    /// Starts dockerd after [`Engine::stop`] or [`Engine::kill`], and waits until it answers.
    ///
    /// # Panics
    /// If it runs already.
    pub fn start_daemon(&mut self) -> Result<()> {
        assert!(self.daemon.is_none(), "dockerd of {} runs already", self.traces.root.display());
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.daemon_log())
            .context("opening dockerd.log")?;
        let root = &self.traces.root;
        let daemon = self
            .program("usr/sbin/dockerd")
            .arg("--config-file")
            .arg(root.join("daemon.json"))
            .arg("--host")
            .arg(self.host())
            .arg("--data-root")
            .arg(&self.data_root)
            .arg("--exec-root")
            .arg(root.join("exec"))
            .arg("--pidfile")
            .arg(root.join("dockerd.pid"))
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
            // systemd's driver would need systemd, and scopes of a name we don't choose.
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent"])
            .arg(format!("/{}", self.traces.cgroup))
            .args(&self.arguments)
            .current_dir("/")
            // Ctrl-C in the terminal is for the test, which then is swept; dockerd would take 15 s over it.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("dockerd.log")?)
            .stderr(log)
            .spawn()
            .context("starting dockerd")?;
        self.daemon = Some(daemon);
        self.wait_until_it_answers().map_err(|e| e.context(self.log_tail(30)))
    }

    /// Stops dockerd where it stands (SIGSTOP): connections stay open and nothing answers.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        wait_until("dockerd to freeze", PATIENCE, || self.state() == "T")
    }

    /// Lets a frozen dockerd go on.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)?;
        wait_until("dockerd to thaw", PATIENCE, || self.state() != "T")
    }

    /// The processor time dockerd has used since it started, in seconds, user and system.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let fields = stat_fields(self.dockerd_pid()).context("reading dockerd's /proc/PID/stat")?;
        let ticks =
            |index: usize| -> Result<u64> { Ok(fields.get(index).context("a short stat line")?.parse()?) };
        // utime and stime are fields 14 and 15; ours begin with the third.
        Ok((ticks(11)? + ticks(12)?) as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// How many file descriptors dockerd has open.
    pub fn fd_count(&self) -> Result<usize> {
        let dir = format!("/proc/{}/fd", self.dockerd_pid());
        Ok(fs::read_dir(&dir).with_context(|| format!("reading {dir}"))?.count())
    }

    /// Takes the Engine away and says whether all of it went. Dropping does the same, but can only print.
    pub fn close(mut self) -> Result<()> {
        self.take_away()
    }

    fn child(&self) -> &Child {
        self.daemon.as_ref().unwrap_or_else(|| panic!("dockerd of {} is stopped", self.traces.root.display()))
    }

    fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// A program of this Engine, with an environment of its own: nothing of the caller's DOCKER_* gets in.
    fn program(&self, program: &str) -> Command {
        let programs = &self.traces.programs;
        let mut command = Command::new(programs.join(program));
        let machine = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let path = format!("{0}/usr/sbin:{0}/usr/bin:{machine}", programs.display());
        command.env_clear().env("PATH", path).env("HOME", &self.traces.root);
        // Only libraries the machine lacks are unpacked there.
        command.env("LD_LIBRARY_PATH", programs.join("libraries"));
        command.env("DOCKER_CONFIG", self.traces.root.join("docker-config"));
        command
    }

    fn docker_status(&self, arguments: &[&str]) -> Result<(ExitStatus, Output)> {
        // `timeout` ends a command that waits on a frozen daemon, so that a test fails instead of hanging.
        let docker = self.program("usr/bin/docker");
        let mut command = Command::new("timeout");
        command.args(["--kill-after=1", &COMMAND_DEADLINE_SECONDS.to_string()]);
        command.arg(docker.get_program()).arg("--host").arg(self.host()).args(arguments);
        command.env_clear().envs(docker.get_envs().filter_map(|(key, value)| Some((key, value?))));
        let output = command.stdin(Stdio::null()).output().context("starting docker")?;
        Ok((output.status, Output { stdout: output.stdout, stderr: output.stderr }))
    }

    /// The one line that many docker commands answer.
    fn docker_line(&self, arguments: &[&str]) -> Result<String> {
        let output = self.docker(arguments)?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.dockerd_pid()).context("process id 0")?;
        kill_process(pid, signal).with_context(|| format!("sending {signal:?} to dockerd"))
    }

    /// The letter of /proc/PID/stat.
    fn state(&self) -> String {
        stat_fields(self.dockerd_pid()).and_then(|fields| fields.first().cloned()).unwrap_or_default()
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let socket = self.socket.clone();
        let child = self.daemon.as_mut().context("dockerd was not started")?;
        // The outer error is its early end, for which nobody should wait.
        wait_until("dockerd to answer", PATIENCE, || match child.try_wait() {
            Ok(Some(status)) => Ok(Err(anyhow!("dockerd ended with {status} instead of starting"))),
            Ok(None) => ping(&socket).map(Ok),
            Err(error) => Ok(Err(error.into())),
        })?
    }

    fn end_daemon(&mut self, signal: Signal) -> Result<()> {
        let pid_file = self.traces.root.join("exec/containerd/containerd.pid");
        let containerd = fs::read_to_string(&pid_file).ok().and_then(|text| text.trim().parse().ok());
        let started = containerd.and_then(start_ticks);
        self.signal(signal)?;
        let child = self.daemon.as_mut().context("dockerd is stopped already")?;
        let ended = wait_until("dockerd to end", PATIENCE, || child.try_wait().ok().flatten());
        ended.map_err(|e| e.context(self.log_tail(30)))?;
        self.daemon = None;
        // containerd dies with its parent, a little later. A dockerd started meanwhile takes the old process id, even that of a
        // zombie, for a containerd that serves, and gives up after 16 s: so wait, and leave no id behind.
        if started.is_some() {
            wait_until("containerd to end", PATIENCE, || containerd.and_then(start_ticks) != started)?;
        }
        match fs::remove_file(&pid_file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("removing containerd.pid")
            }
            _ => Ok(()),
        }
    }

    fn log_tail(&self, lines: usize) -> String {
        let mut bytes = Vec::new();
        // An unreadable log is worth saying, but is not what went wrong.
        let read = File::open(self.daemon_log()).and_then(|mut log| log.read_to_end(&mut bytes));
        let text = String::from_utf8_lossy(&bytes);
        let all: Vec<&str> = text.lines().filter(|line| !line.contains("loading plugin")).collect();
        let tail = all[all.len().saturating_sub(lines)..].join("\n");
        format!("dockerd {} failed; its log ({read:?} bytes) ends:\n{tail}\n", self.version.label())
    }

    fn take_away(&mut self) -> Result<()> {
        self.closed = true;
        // Killed first: dockerd would give each container 10 s to heed a SIGTERM that a shell as process 1 ignores.
        self.traces.kill_containers();
        if let Some(mut daemon) = self.daemon.take() {
            // Only a daemon that runs can stop in good order, which spares the sweep its mounts and sockets.
            for signal in [Signal::CONT, Signal::TERM] {
                let _ = kill_process(Pid::from_child(&daemon), signal);
            }
            if wait_until("dockerd to end", GOOD_ORDER_PATIENCE, || daemon.try_wait().ok().flatten()).is_err()
            {
                let _ = daemon.kill();
                daemon.wait().context("waiting for dockerd, killed")?;
            }
        }
        self.traces.sweep()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.closed {
            return;
        }
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail(15));
        }
        // Not a panic: in a test that already panics it would abort the whole test process, and with it every other
        // test's cleaning. The record stays, so `cargo xtask test` tries again and fails if it can't.
        if let Err(error) = self.take_away() {
            eprintln!("an Engine could not be taken away wholly: {error:#}");
        }
    }
}

/// Where `cargo xtask engines` unpacks, unless `CAPTURER_ENGINES_DIR` says otherwise.
fn engines_dir() -> PathBuf {
    let set = |key: &str| std::env::var_os(key).filter(|value| !value.is_empty()).map(PathBuf::from);
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package lies in a workspace");
    set("CAPTURER_ENGINES_DIR").unwrap_or_else(|| {
        set("CARGO_TARGET_DIR").unwrap_or_else(|| workspace.join("target")).join("engines")
    })
}

/// What a killed test left would be in the way of this one. It is noted for the last part of `cargo xtask test`, which
/// fails for it all the same, and which tries again what could not be taken away here.
fn sweep_dead_and_note() -> Result<()> {
    let removed = sweep_dead(&std::env::temp_dir()).removed;
    if removed.is_empty() {
        return Ok(());
    }
    let path = engines_dir().join(SWEPT_NOTE);
    let note: String = removed.iter().map(|what| format!("{what}\n")).collect();
    let file = OpenOptions::new().create(true).append(true).open(&path);
    file.and_then(|mut file| file.write_all(note.as_bytes()))
        .with_context(|| format!("writing {}", path.display()))
}

/// A folder whose name tells whose it is, short enough for sockets.
fn make_root() -> Result<PathBuf> {
    let prefix = format!("{ROOT_PREFIX}{}-", std::process::id());
    let dir = tempfile::Builder::new().prefix(&prefix).tempdir().context("making an Engine's folder")?;
    let bytes = dir.path().as_os_str().len();
    ensure!(
        bytes <= ROOT_BYTES_MAX,
        "{} is {bytes} bytes long; sockets in it need {ROOT_BYTES_MAX} or less: set TMPDIR to a shorter path",
        dir.path().display()
    );
    // The sweep removes it, as it must first be rid of mounts.
    let root = dir.keep();
    Ok(root.canonicalize().unwrap_or(root))
}

/// One `GET /_ping`, with an end to every wait.
fn ping(socket: &Path) -> Result<()> {
    let mut stream = UnixStream::connect(socket).context("connecting")?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n").context("asking /_ping")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("reading /_ping")?;
    let status = answer.lines().next().unwrap_or_default();
    ensure!(status.contains(" 200 "), "/_ping answered {status:?}");
    Ok(())
}
