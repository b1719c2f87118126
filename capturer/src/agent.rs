//! Builds the parts, owns the loop, and ends them in order.
//!
//! ```text
//! loop: wait for what comes first (an operation, another thread, a deadline)
//!       ▸ the core takes it (capture) ▸ its actions are started (shell)
//! ```
//! Everything that can wake the agent passes one line in `Loop::run`, and the clocks are read there alone.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::admin::server::AdminHandle;
use crate::capture::Capture;
use crate::capture::io::Event;
use crate::capture::outlets::SinkFacts;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::store::{self, DirLock};
use crate::clock::Now;
use crate::files::{self, Files, Hung};
use crate::ledger::Owner;
use crate::ledger::claims::{Claimed, Claims};
use crate::metrics::Metrics;
use crate::probe;
use crate::record::SinkId;
use crate::ring;
use crate::settings::Settings;
use crate::shell::Shell;
use crate::sink::local_file::LocalFileSink;
use crate::sink::loki::LokiSink;
use crate::sink::stdout::StdoutSink;
use crate::sink::{self, FromSink, Sink, SinkHandle};
use crate::status::Board;
use crate::witness::{Doing, Witness};
use crate::{admin, privilege, signals};

/// The loop turns at least so often: its beat, and the gauges that are sums.
const TURN_MS: u64 = 1_000;
/// Without inotify every file is looked at so often.
const LOOK_MS: u64 = 2_000;
/// What health says of files as a rule.
const FILES_WELL: &str = "all file systems answer";
/// What is still under way when all else is done may take so long.
const WIND_UP: Duration = Duration::from_secs(2);

/// Something from another thread.
enum Message {
    Files(files::Answer),
    Sink(FromSink),
    Ask,
    Stop,
}

/// How a run is stopped from outside its loop.
#[derive(Clone)]
pub struct Stopper(UnboundedSender<Message>);

impl Stopper {
    /// Drain, flush, checkpoint, end.
    pub fn stop(&self) {
        let _ = self.0.send(Message::Stop);
    }
}

/// A built agent, not running yet.
pub struct Agent {
    settings: Arc<Settings>,
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    admin: Option<AdminHandle>,
    capture: Capture,
    sinks: Vec<SinkHandle>,
    files: Files,
    inotify: Option<Arc<Claimed<OwnedFd>>>,
    witness: Witness,
    inbox: UnboundedReceiver<Message>,
    sender: UnboundedSender<Message>,
    _lock: Claimed<DirLock>,
}

impl Agent {
    /// Opens everything that can be opened before the first event: so that what is wrong is said at start.
    ///
    /// # Errors
    /// What was tried, why it failed, what to do.
    pub fn build(settings: Settings) -> anyhow::Result<Agent> {
        ring::check()?;
        let settings = Arc::new(settings);
        let metrics = Arc::new(Metrics::new(settings.metrics.max_containers).context("making the metrics")?);
        metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let board = Arc::<Board>::default();
        // First of all: its self-test counts every descriptor of the process.
        let mut options = probe::Options::default();
        if !settings.resource_monitoring.enabled {
            options.tiers.clear();
        }
        // On a thread of its own: the kernel's workers for the self-test's ring have this thread's rights, and with it they end.
        let start = || Witness::start(&options, &settings, Arc::clone(&metrics), Arc::clone(&board));
        let witness = std::thread::scope(|scope| scope.spawn(start).join());
        let Ok(witness) = witness else { anyhow::bail!("starting the witness of open descriptors panicked") };
        let claims = witness.claims();
        let (sender, inbox) = unbounded_channel();
        privilege::drop_unneeded(&settings, || witness.can_be_read())?;

        make_data_dir(&settings)?;
        let lock = claims.hold(DirLock::acquire(&settings.data_dir)?, Owner::Checkpoint);
        let mut loaded = store::load(&settings.data_dir).context("loading the checkpoint")?;
        for note in loaded.notes.drain(..) {
            tracing::warn!("checkpoint: {note}");
        }
        let (sinks, names) =
            open_sinks(&settings, &mut loaded.checkpoint, &board, &metrics, &claims, &sender)?;

        let inotify = open_inotify().map(|fd| Arc::new(claims.hold(fd, Owner::Discovery)));
        let answer = sender.clone();
        let files = Files::start(
            inotify.clone(),
            settings.file_monitor.files.clone(),
            settings.data_dir.clone(),
            claims.clone(),
            move |from| drop(answer.send(Message::Files(from))),
        )
        .context("starting the files threads")?;

        let ask = sender.clone();
        board.on_ask(Box::new(move || drop(ask.send(Message::Ask))));
        let listen = settings.admin.listen;
        let admin = listen
            .map(|addr| admin::server::start(addr, board.clone(), metrics.clone(), claims))
            .transpose()?;
        if let Some(admin) = &admin {
            tracing::info!(address = %admin.addr, "admin server listens");
        }
        let seed = u64::from(std::process::id()) ^ unix_ns() as u64;
        let capture =
            Capture::new(Arc::clone(&settings), Arc::clone(&metrics), names, loaded.checkpoint, seed);
        Ok(Agent {
            settings,
            board,
            metrics,
            admin,
            capture,
            sinks,
            files,
            inotify,
            witness,
            inbox,
            sender,
            _lock: lock,
        })
    }

    /// Where the admin server listens.
    pub fn admin_address(&self) -> Option<std::net::SocketAddr> {
        self.admin.as_ref().map(|admin| admin.addr)
    }

    /// The notice board.
    pub fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board)
    }

    /// The metrics.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// How the kernel is asked about our descriptors.
    pub fn witness_tier(&self) -> probe::Tier {
        self.witness.tier()
    }

    /// For signals and quickstart.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.sender.clone())
    }

    /// Runs until stopped. Returns what was not finished in time; empty = a clean end.
    ///
    /// # Errors
    /// Without io_uring, or when a part can't be started.
    pub fn run(self) -> anyhow::Result<Vec<String>> {
        let stopper = self.stopper();
        signals::start(move || stopper.stop())?;
        let Agent { settings, board, metrics, admin, capture, sinks, files, inotify, witness, inbox, .. } =
            self;
        let senders = sinks.iter().map(|sink| sink.sender.clone()).collect();
        let left = ring::start(async {
            let container = &settings.container_monitor;
            let shell = Shell::new(
                &container.socket_path,
                container.read_timeout,
                files,
                inotify,
                senders,
                settings.shutdown_timeout,
                witness.claims(),
            )
            .context("preparing the loop")?;
            let settings = Arc::clone(&settings);
            let files_hang = false;
            let mut looping = Loop { settings, board, metrics, capture, shell, witness, inbox, files_hang };
            looping.witness.begin();
            looping.run().await
        })??;
        if left.is_empty() {
            for sink in sinks {
                drop(sink.sender);
                let _ = sink.thread.join();
            }
        }
        if let Some(admin) = admin {
            admin.stop();
        }
        Ok(left)
    }
}

/// All that belongs to the capture thread.
struct Loop {
    settings: Arc<Settings>,
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    capture: Capture,
    shell: Shell,
    witness: Witness,
    inbox: UnboundedReceiver<Message>,
    /// Some file system does not answer, and that was said.
    files_hang: bool,
}

impl Loop {
    async fn run(mut self) -> anyhow::Result<Vec<String>> {
        self.take(vec![Event::Started]);
        let (mut turn_at, mut look_at, mut check_at) = (0, LOOK_MS, 0);
        self.board.set_health("files", true, FILES_WELL);
        while self.shell.finished.is_none() {
            let now = self.now();
            if now.mono_ms >= turn_at {
                turn_at = now.mono_ms + TURN_MS;
                self.turn(now);
                let hung = self.look_for_hung_files();
                self.take(hung);
            }
            if now.mono_ms >= check_at && self.settings.resource_monitoring.enabled {
                check_at = now.mono_ms + self.settings.resource_monitoring.check_interval.as_millis() as u64;
                self.check_resources(now);
            }
            if now.mono_ms >= look_at && !self.shell.has_inotify() {
                look_at = now.mono_ms + LOOK_MS;
                self.take(vec![Event::WatchOverflow]);
            }
            let deadline = self.capture.next_deadline_ms().map_or(turn_at, |due| due.min(turn_at));
            let pause = Duration::from_millis(deadline.saturating_sub(self.board.elapsed_ms()));
            // The one place that waits.
            let mut events = tokio::select! {
                biased;
                Some(message) = self.inbox.recv() => self.on_message(message),
                events = self.shell.next() => events,
                () = tokio::time::sleep(pause) => vec![Event::Tick],
            };
            // The branches are biased: while an earlier one is always ready, the last is never reached.
            if self.board.elapsed_ms() >= deadline {
                events.push(Event::Tick);
            }
            self.take(events);
        }
        let left = self.shell.finished.take().unwrap_or_default();
        let operations = self.shell.wind_up(WIND_UP).await;
        let stream_descriptors = self.witness.held_by_streams();
        tracing::info!(operations, stream_descriptors, unfinished = ?left, "stopped");
        Ok(left)
    }

    fn now(&self) -> Now {
        Now { mono_ms: self.board.elapsed_ms(), unix_ns: unix_ns() }
    }

    fn take(&mut self, events: Vec<Event>) {
        let now = self.now();
        for event in events {
            self.capture.on_event(now, event);
            for action in self.capture.drain_actions() {
                self.shell.start(action);
            }
        }
        self.board.beat_capture();
    }

    fn on_message(&mut self, message: Message) -> Vec<Event> {
        match message {
            Message::Files(answer) => vec![self.shell.on_files(answer)],
            Message::Sink(from) => vec![Event::Sink(from)],
            Message::Stop => vec![Event::Stop],
            Message::Ask => {
                let mut snapshot = self.capture.snapshot(self.now());
                snapshot.operations = ring::operations_in_flight();
                self.board.publish(snapshot);
                Vec::new()
            }
        }
    }

    /// Once a second: gauges, and what health should say.
    fn turn(&mut self, now: Now) {
        #[cfg(feature = "test-faults")]
        crate::faults::turn();
        self.capture.refresh_gauges(now);
        self.metrics.heartbeat("capture");
        self.metrics.operations_in_flight.set(ring::operations_in_flight() as i64);
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        self.metrics.tasks.set(tasks as i64);
        if self.capture.is_ready() {
            self.board.sources_ready.store(true, Ordering::Relaxed);
        }
        let saving = match self.capture.checkpoint_trouble() {
            None => (true, "saved whenever a position moved".to_owned()),
            Some(error) => {
                (false, format!("{error}; new containers wait, and a crash now would repeat records"))
            }
        };
        self.board.set_health("checkpoint", saving.0, saving.1);
        if let Some(trouble) = self.capture.docker_trouble() {
            let socket = self.settings.container_monitor.socket_path.display();
            let message = match &trouble {
                None => format!("{socket} answers"),
                Some(trouble) => {
                    format!("{trouble}; check that dockerd is well and that this user may use {socket}")
                }
            };
            self.board.set_health("docker", trouble.is_none(), message);
        }
    }

    /// Names file systems that do not answer, and tells the core whom they keep waiting.
    fn look_for_hung_files(&mut self) -> Vec<Event> {
        let hung = self.shell.hung();
        if hung.is_empty() {
            if std::mem::take(&mut self.files_hang) {
                tracing::info!("{FILES_WELL} again");
                self.board.set_health("files", true, FILES_WELL);
            }
            return Vec::new();
        }
        let all: Vec<String> = hung
            .iter()
            .map(|Hung { place, operation, age, cure, streams }| {
                let (age, waiting) = (age.as_secs(), streams.len());
                format!("{place} has not answered {operation} for {age} s ({waiting} streams wait): {cure}")
            })
            .collect();
        let message = format!("{}; all other files go on", all.join("; "));
        if !std::mem::replace(&mut self.files_hang, true) {
            tracing::error!("files: {message}");
        }
        self.board.set_health("files", false, message);
        let told = hung.into_iter().flat_map(|Hung { place, operation, streams, .. }| {
            streams.into_iter().map(move |stream| Event::FileHung {
                stream,
                place: place.clone(),
                operation: operation.clone(),
            })
        });
        told.collect()
    }

    /// Once per check interval: what the kernel says, against what the loop has.
    fn check_resources(&mut self, now: Now) {
        let (streams, connections, containers) = self.capture.counts();
        let doing = Doing {
            streams,
            connections,
            containers,
            reachable: self.shell.reachable(),
            operations_base: self.shell.operations_base() as u64,
            operations: ring::operations_in_flight(),
            tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks() as u64,
            sinks: self.shell.sink_count() as u64,
        };
        self.witness.check(now, &doing);
    }
}

fn unix_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64)
}

fn make_data_dir(settings: &Settings) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let dir = &settings.data_dir;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(|| {
        format!(
            "making the data directory {}; choose another with data_dir, or run with the right to make it",
            dir.display()
        )
    })
}

/// One instance for all directories: dockerd uses up root's instances, one for each follow.
fn open_inotify() -> Option<OwnedFd> {
    match rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC) {
        Ok(inotify) => Some(inotify),
        Err(errno) => {
            tracing::warn!(
                "inotify is not to be had ({errno}): files are looked at every {} s instead; raise fs.inotify.max_user_instances",
                LOOK_MS / 1000
            );
            None
        }
    }
}

type Opened = (Vec<SinkHandle>, Vec<SinkFacts>);

fn open_sinks(
    settings: &Settings,
    loaded: &mut Checkpoint,
    board: &Arc<Board>,
    metrics: &Arc<Metrics>,
    claims: &Claims,
    sender: &UnboundedSender<Message>,
) -> anyhow::Result<Opened> {
    let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
    if let Some(local) = &settings.sinks.local_file {
        let none = BTreeMap::new();
        let marks = loaded.outputs.get("local_file").unwrap_or(&none);
        let (sink, restored) =
            LocalFileSink::open(local, marks, claims.clone()).context("sinks.local_file")?;
        for note in restored.notes {
            tracing::info!("local_file: {note}");
        }
        loaded.outputs.insert("local_file".to_owned(), restored.marks);
        sinks.push(Box::new(sink));
    }
    if let Some(loki) = &settings.sinks.loki {
        let sink = LokiSink::open(loki, &settings.data_dir, metrics, board, claims).context("sinks.loki")?;
        sinks.push(Box::new(sink));
    }
    if settings.sinks.stdout {
        let stdout = StdoutSink::new(settings.sinks.stdout_format, claims);
        sinks.push(Box::new(stdout.context("sinks.stdout")?));
    }
    let mut handles = Vec::new();
    let mut names = Vec::new();
    for (index, made) in sinks.into_iter().enumerate() {
        let name = made.name().to_owned();
        let is_network = made.is_network();
        metrics.expect_sink(&name);
        metrics.expect_pipelines(&name, &settings.pipelines);
        let report = sender.clone();
        let report = Box::new(move |from| drop(report.send(Message::Sink(from))));
        let handle = sink::spawn(SinkId(index as u8), made, report, Arc::clone(board), Arc::clone(metrics))
            .with_context(|| format!("starting the sink {name}"))?;
        // A file or standard output that could be opened accepts; with no container yet there is nothing else to show it.
        // Of a network sink its own delivery says so.
        if !is_network {
            board.sink_accepted(&name);
        }
        handles.push(handle);
        names.push(SinkFacts { name, own_pace: is_network });
    }
    Ok((handles, names))
}
