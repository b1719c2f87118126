//! A host for an agent in pictures: dockerd, containers whose logs are json-files or journald's, log files of services,
//! and lines in all of them.
//!
//! ```text
//! unshare: mounts, name and network of its own ─▶ /run, /var/lib, /var/log are empty; host-1; 127.0.0.1 alone
//! FakeDocker at /var/run/docker.sock ◀─ names, inspections, what journald's containers print
//! a thread: lines ─▶ /var/lib/docker/containers/…, /var/log/…
//! ```
//! So a picture shows the paths and ports that an operator knows, and nothing of the machine where it was taken.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::fake_docker::{FakeDocker, Reply, inspect_path, inspection};
use crate::wait::pass;

/// A program that is inside is started with this.
pub const INSIDE: &str = "--inside";

const SETUP: &str = "for at in /run /var/lib /var/log; do mount -t tmpfs tmpfs $at; done\n\
    hostname host-1\nip link set lo up\nexec \"$0\" \"$@\"";

/// The writer's turns.
const TURN: Duration = Duration::from_millis(100);
/// One container in so many logs to journald,
const JOURNALD_EVERY: usize = 6;
/// and no more than these: each is followed for two outlets, and there are fifty slots.
const JOURNALD_MAX: usize = 20;

const SERVICES: [&str; 14] = [
    "web",
    "api",
    "worker",
    "checkout",
    "search",
    "payments",
    "redis",
    "postgres",
    "nginx-proxy",
    "mailer",
    "auth",
    "scheduler",
    "grafana",
    "shop-frontend-production-image-resizer",
];
const FILES: [&str; 8] = [
    "syslog",
    "auth.log",
    "nginx/access.log",
    "nginx/error.log",
    "postgresql/postgresql-16-main.log",
    "cron.log",
    "kern.log",
    "mail.log",
];

/// Starts this program again with the same arguments and [`INSIDE`], on a host of its own.
pub fn enter() -> Result<ExitCode> {
    let status = Command::new("unshare")
        .args(["--mount", "--uts", "--net", "sh", "-ec", SETUP])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .arg(INSIDE)
        .status()
        .context("starting unshare")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How a source's lines reach it.
enum Pen {
    /// dockerd appends them to a json-file.
    JsonFile(File),
    /// dockerd gives them to who asks for them.
    Api(String),
    /// A service writes them.
    Plain(File),
}

struct Source {
    name: String,
    pen: Pen,
    /// A line each so many turns.
    turns: u64,
}

/// One that runs; its lines end when it is dropped.
pub struct Host {
    shared: Arc<Shared>,
    names: BTreeSet<String>,
    writer: Option<JoinHandle<()>>,
}

struct Shared {
    docker: FakeDocker,
    is_frozen: AtomicBool,
    ended: AtomicBool,
}

impl Host {
    /// With so many sources; one in five is a file.
    pub fn start(count: usize) -> Result<Host> {
        for folder in ["/run", "/var/lib", "/var/log"] {
            // What an earlier scene left; nothing else can be there, or this is no host of our own.
            ensure!(is_tmpfs(folder)?, "{folder} is not ours to clear");
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
            }
        }
        let docker = FakeDocker::start()?;
        symlink(docker.socket(), "/run/docker.sock")?;
        let mut sources = Vec::new();
        for number in 0..count / 5 {
            let name = file_name(number);
            let pen = Pen::Plain(create(Path::new(&name))?);
            sources.push(Source { name, pen, turns: turns(number) });
        }
        for number in 0..count - sources.len() {
            let name = container_name(number);
            let pen = if number % JOURNALD_EVERY == 0 && number / JOURNALD_EVERY < JOURNALD_MAX {
                Pen::Api(docker.add(&name))
            } else {
                Pen::JsonFile(add_with_file(&docker, &name)?)
            };
            sources.push(Source { name, pen, turns: turns(number) });
        }
        let names: BTreeSet<String> = sources.iter().map(|source| source.name.clone()).collect();
        ensure!(names.len() == count, "some names are there twice");
        let shared =
            Arc::new(Shared { docker, is_frozen: AtomicBool::new(false), ended: AtomicBool::new(false) });
        let of_writer = Arc::clone(&shared);
        let writer = std::thread::spawn(move || write(&mut sources, &of_writer));
        Ok(Host { shared, names, writer: Some(writer) })
    }

    /// The config's sections that read all of it.
    pub fn config() -> String {
        String::from(
            "container_monitor:\n  socket_path: unix:///var/run/docker.sock\n  list_interval: 2s\n  read_timeout: 5s\n  \
             stream_rotation: {interval: 5s, idle_interval: 5s}\n\
             file_monitor: {files: [{paths: [\"/var/log/**\"]}]}\n",
        )
    }

    /// The sources, as the agent calls them.
    pub fn names(&self) -> &BTreeSet<String> {
        &self.names
    }

    /// dockerd hangs: it answers nothing, and no container's line reaches its log.
    pub fn freeze_docker(&self) {
        self.shared.is_frozen.store(true, Ordering::Relaxed);
        self.shared.docker.set_silent(true);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn is_tmpfs(folder: &str) -> Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    Ok(mounts.lines().any(|line| line.starts_with(&format!("tmpfs {folder} tmpfs "))))
}

fn container_name(number: usize) -> String {
    let service = SERVICES[number % SERVICES.len()];
    format!("{service}-{}", number / SERVICES.len() + 1)
}

fn file_name(number: usize) -> String {
    let (file, round) = (FILES[number % FILES.len()], number / FILES.len());
    // More of them are those of a service's other customers.
    let folder = if round == 0 { String::new() } else { format!("customer-{round}/") };
    format!("/var/log/{folder}{file}")
}

/// Most print a line in a second or two, some many, some hardly any.
fn turns(number: usize) -> u64 {
    match number % 10 {
        0 => 1,
        7 => 600,
        other => 4 + 3 * other as u64,
    }
}

fn create(path: &Path) -> Result<File> {
    fs::create_dir_all(path.parent().context("a path without a folder")?)?;
    Ok(File::options().create(true).append(true).open(path)?)
}

/// A container whose log is a json-file, as most are.
fn add_with_file(docker: &FakeDocker, name: &str) -> Result<File> {
    let id = docker.add_hidden(name, false);
    let path = format!("/var/lib/docker/containers/{id}/{id}-json.log");
    let mut told: Value = inspection(&id, name, false);
    told["LogPath"] = path.as_str().into();
    told["HostConfig"] = json!({"LogConfig": {"Type": "json-file"}});
    docker.script(&inspect_path(&id), Reply::json(&told));
    let file = create(Path::new(&path))?;
    docker.show(&id);
    Ok(file)
}

fn write(sources: &mut [Source], host: &Shared) {
    for turn in 0_u64.. {
        if host.ended.load(Ordering::Relaxed) {
            return;
        }
        let is_frozen = host.is_frozen.load(Ordering::Relaxed);
        for (number, source) in sources.iter_mut().enumerate() {
            if (turn + number as u64).is_multiple_of(source.turns) {
                source.print(turn, is_frozen, &host.docker);
            }
        }
        pass(TURN);
    }
}

impl Source {
    fn print(&mut self, turn: u64, is_frozen: bool, docker: &FakeDocker) {
        let text = format!("level=info msg=\"GET /items/{turn} 200\" duration_ms={}", 3 + turn % 40);
        // A disk that is full shows in the picture: its source has no lines.
        let _ = match &mut self.pen {
            Pen::Plain(file) => writeln!(file, "{text}"),
            _ if is_frozen => Ok(()),
            Pen::Api(id) => {
                docker.print_now(id, text.as_bytes());
                Ok(())
            }
            Pen::JsonFile(file) => {
                let time = humantime::format_rfc3339_nanos(SystemTime::now()).to_string();
                writeln!(file, "{}", json!({"log": format!("{text}\n"), "stream": "stdout", "time": time}))
            }
        };
    }
}
