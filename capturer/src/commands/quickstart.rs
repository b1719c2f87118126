//! `capturer quickstart`: captures at once, so that a newcomer sees within a minute what the agent does. With Docker it
//! captures every container; without, it writes a few json-file logs itself into a temporary directory.
//!
//! It says what it found, shows a live table on a terminal, and at the end says where output, metrics and status page
//! are.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crate::agent::{Agent, Stopper, signals};
use crate::commands::ask;
use crate::commands::cli;
use crate::commands::cli::{Exit, QuickstartArgs};
use crate::commands::colours;
use crate::model::docker;
use crate::settings::{FileFormat, FileSet, LogLevel, PathPattern, Settings};
use crate::shell::{descriptors, privilege};
use crate::telemetry::own_log;
use crate::telemetry::status::{Snapshot, Status};
use crate::text::counted::counted;
use crate::text::{output, terminal};
use anyhow::Context as _;

/// The table is redrawn this often.
const DRAW_EVERY: Duration = Duration::from_secs(1);
/// Rows that fit a small terminal.
const ROWS_MAX: usize = 15;
/// How many json-file logs the demonstration writes.
const DEMO_FILES: usize = 3;
const DEMO_LINES_PER_SECOND: u64 = 20;

/// Prints a line. If a reader closed the pipe (`| head`), capturing goes on.
macro_rules! say {
    ($($text:tt)*) => {{ let _ = writeln!(output::stdout(), $($text)*); }};
}

/// Runs the command.
pub fn run(arguments: &QuickstartArgs) -> Exit {
    match quickstart(arguments) {
        Ok(()) => Exit::Ok,
        Err(error) => cli::fail(&error),
    }
}

fn quickstart(arguments: &QuickstartArgs) -> anyhow::Result<()> {
    descriptors::require()?;
    if let Some(listen) = arguments.admin.listen {
        let free = TcpListener::bind(listen).map(drop);
        free.with_context(|| {
            format!("{listen} can't be listened on: name another address with --admin 127.0.0.1:8002, or none with --admin \"\"")
        })?;
    }
    let mut settings = cli::quickstart_settings(arguments);
    settings.log.level = LogLevel::Warn;
    let (log, _) = own_log::init(&settings.log, privilege::renounce_in_log)?;
    log.end_process_on_panic();
    say!("capturer {} quickstart", env!("CARGO_PKG_VERSION"));
    let demo = choose_source(&mut settings)?;
    say!("  rights: {}", rights());
    let directory = arguments.directory.display().to_string();

    let agent = Agent::build(settings, None, signals::listen(false)?)?;
    say!("  witness of open descriptors: {}", agent.witness_tier());
    say!("  output: {directory}/");
    if let Some(addr) = agent.admin_address() {
        say!("  status page: http://{addr}/   metrics: http://{addr}/metrics");
    }
    say!("  Ctrl-C ends it.\n");
    let screen = Screen::start(agent.status(), agent.stopper(), arguments.seconds)?;
    let metrics = agent.metrics();
    let left = agent.run();
    screen.end();
    drop(demo);
    log.flush(own_log::END_PATIENCE);
    left?;
    let records = metrics.logs_sent_total.with_label_values(&["local_file"]).get();
    say!("\n{} captured, in {directory}/ with one JSON object a line:", counted(records, "record"));
    for (path, bytes) in outputs(&arguments.directory) {
        say!("  {bytes:>12} bytes  {}", path.display());
    }
    Ok(())
}

/// Docker if it answers, else logs that this command writes.
fn choose_source(settings: &mut Settings) -> anyhow::Result<Option<Demo>> {
    let socket = settings.container_monitor.socket_path.display().to_string();
    match ask::get(&settings.container_monitor.socket_path, docker::PING) {
        Ok(_) => {
            say!("  Docker: answers on {socket}; capturing every container");
            Ok(None)
        }
        Err(error) => {
            let hint = match error.kind() {
                io::ErrorKind::PermissionDenied => ": try as root, or as a user of the group docker",
                _ => "",
            };
            say!("  Docker: not on {socket} ({error}{hint})");
            say!("  capturing {DEMO_FILES} generated json-file logs instead");
            settings.container_monitor.enabled = false;
            let demo = Demo::start()?;
            let pattern = demo.directory.join("*/*-json.log");
            let pattern = PathPattern::new(&pattern.to_string_lossy()).map_err(anyhow::Error::msg)?;
            settings.file_monitor.files =
                vec![FileSet { paths: vec![pattern], format: FileFormat::Docker, ..FileSet::default() }];
            say!("  logs: {}", demo.directory.display());
            Ok(Some(demo))
        }
    }
}

fn rights() -> &'static str {
    if rustix::process::geteuid().is_root() {
        "root; json-file logs are read from disk"
    } else {
        "not root; what can't be read from disk is read over the API"
    }
}

/// The demonstration's logs and the thread that writes them.
struct Demo {
    directory: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Demo {
    fn start() -> anyhow::Result<Demo> {
        let directory = make_directory()?;
        let mut files = Vec::new();
        for number in 1..=DEMO_FILES {
            let name = format!("demo-{number}");
            let dir = directory.join(&name);
            std::fs::create_dir(&dir).with_context(|| format!("making {}", dir.display()))?;
            let path = dir.join(format!("{name}-json.log"));
            let file = OpenOptions::new().create_new(true).append(true).open(&path);
            files.push(file.with_context(|| format!("making {}", path.display()))?);
        }
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("demo".to_owned())
            .spawn(move || write_lines(&mut files, &stopped))
            .context("starting the demonstration's writer")?;
        Ok(Demo { directory, stop, thread: Some(thread) })
    }
}

/// Makes a new directory. An existing one belongs to somebody else, or to a run that was killed.
fn make_directory() -> anyhow::Result<PathBuf> {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let name = format!("capturer-quickstart-{}-{}", std::process::id(), since_1970.subsec_nanos());
    let directory = std::env::temp_dir().join(name);
    let made = std::fs::DirBuilder::new().mode(0o700).create(&directory);
    made.with_context(|| format!("making {}", directory.display()))?;
    Ok(directory)
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn write_lines(files: &mut [File], stop: &AtomicBool) {
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let time = humantime::format_rfc3339_nanos(SystemTime::now());
        let stream = if number.is_multiple_of(10) { "stderr" } else { "stdout" };
        for file in &mut *files {
            // One write per record, as in Docker.
            let line = format!(
                "{{\"log\":\"demo line {number}\\n\",\"stream\":\"{stream}\",\"time\":\"{time}\"}}\n"
            );
            if file.write_all(line.as_bytes()).is_err() {
                return;
            }
        }
        std::thread::sleep(Duration::from_millis(1000 / DEMO_LINES_PER_SECOND));
    }
}

/// The live table, drawn from the status by a thread of its own.
struct Screen {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Screen {
    fn start(status: Arc<Status>, stopper: Stopper, seconds: Option<u64>) -> anyhow::Result<Screen> {
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("screen".to_owned())
            .spawn(move || draw(&status, &stopper, seconds, &stopped))
            .context("starting the live table")?;
        Ok(Screen { stop, thread })
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        let _ = self.thread.join();
    }
}

fn draw(status: &Status, stopper: &Stopper, seconds: Option<u64>, stop: &AtomicBool) {
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let terminal = io::stdout().is_terminal() && !colours::is_dumb();
    let mut before: BTreeMap<u32, u64> = BTreeMap::new();
    let mut screen = terminal::Screen::default();
    loop {
        std::thread::park_timeout(DRAW_EVERY);
        let stopping = stop.load(Ordering::Relaxed);
        if !stopping && until.is_some_and(|until| Instant::now() >= until) {
            stopper.stop();
        }
        let snapshot = status.fresh_snapshot(Duration::from_millis(200));
        if terminal || stopping {
            let _ = screen.draw(&table(&snapshot, &before), terminal);
        }
        if stopping {
            return;
        }
        before = snapshot.streams.iter().map(|row| (row.id, row.counts.lines)).collect();
    }
}

fn table(snapshot: &Snapshot, before: &BTreeMap<u32, u64>) -> String {
    let mut text =
        format!("{:<32} {:<10} {:<5} {:>12} {:>10}\n", "NAME", "STATE", "MODE", "RECORDS", "PER SECOND");
    let mut rows: Vec<_> = snapshot.streams.iter().collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.counts.lines));
    for row in rows.iter().take(ROWS_MAX) {
        let rate = row.counts.lines.saturating_sub(before.get(&row.id).copied().unwrap_or(0));
        text += &format!(
            "{:<32} {:<10} {:<5} {:>12} {:>10}\n",
            terminal::short(&row.name),
            row.state,
            row.mode,
            row.counts.lines,
            rate
        );
    }
    if rows.len() > ROWS_MAX {
        text += &format!("… and {} more\n", rows.len() - ROWS_MAX);
    }
    if rows.is_empty() {
        text += "(no container yet: start one)\n";
    }
    text
}

fn outputs(directory: &Path) -> Vec<(PathBuf, u64)> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut outputs: Vec<_> = entries
        .filter_map(|entry| {
            let metadata = entry.metadata().ok().filter(std::fs::Metadata::is_file)?;
            Some((entry.path(), metadata.len()))
        })
        .collect();
    outputs.sort();
    outputs
}
