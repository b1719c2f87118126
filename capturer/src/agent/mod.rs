//! The agent: what lives as long as the process, and the runs that it has one after the other.
//!
//! ```text
//! process   own log, signals, admin server with its status and metrics, witness and claims, rights, lock, ring
//! run       checkpoint, sinks, files threads, inotify (run.rs) ▸ core and shell in the loop (turn.rs)
//!
//! reload    config read and tried (reload.rs) ▸ drained as by SIGTERM ▸ threads of the old run have ended ▸ new run
//!                      └ bad: refused, nothing changes                             can't begin: the old settings again ┘
//! ```
//! A reload is a stop and a start within one process, because stop and start are tested to lose and repeat nothing.

mod faults;
mod pipelines;
mod reload;
mod run;
pub(crate) mod signals;
mod sources;
mod starting;
mod turn;
mod unmatched;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::capture::counted::ReadCounts;
use crate::ledger::claims::Claims;
use crate::settings::{ConfigError, Settings, advice, environment};
use crate::shell::Rest;
use crate::shell::checkpoint::kept::DataDir;
use crate::shell::descriptors;
use crate::shell::privilege;
use crate::shell::ring;
use crate::telemetry::admin;
use crate::telemetry::admin::server::AdminHandle;
use crate::telemetry::fault::Fault;
use crate::telemetry::losses::Losses;
use crate::telemetry::metrics::{Metrics, ReloadResult};
use crate::telemetry::reload_requests::{ReloadOutcome, ReloadTicket};
use crate::telemetry::status::{HealthState, Status};
use crate::witness::Witness;
use crate::witness::probe::rights;
use crate::witness::{probe, profile};

pub use crate::witness::probe::heap::keep_little as keep_little_memory;
pub use reload::Reloading;
use reload::{Carried, Reloads};
use run::Run;
use signals::Signals;
pub use starting::Starting;
use turn::{ActiveRun, Ended};

/// How often a reload checks whether the threads of the earlier run have ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// After this long, health and the log name the threads that a reload still waits for.
const THREADS_PATIENCE: Duration = Duration::from_secs(3);
/// The component in health that reports reloads.
const CONFIG: &str = "config";

/// A message to the process, not to one of its runs.
enum Message {
    Ask,
    Stop,
    Reload,
    /// The config was read again and tried. An error lists what is wrong with it, one problem per line.
    Checked(Box<Result<Settings, ConfigError>>),
}

/// Stops the agent from outside its loop.
#[derive(Clone)]
pub struct Stopper(UnboundedSender<Message>);

impl Stopper {
    /// Drains, flushes, saves a checkpoint, ends.
    pub fn stop(&self) {
        let _ = self.0.send(Message::Stop);
    }
}

/// A built agent, not running yet.
pub struct Agent {
    process: Process,
    run: Run,
    admin: Option<AdminHandle>,
    _data_dir: Arc<DataDir>,
}

/// What outlives a single run.
struct Process {
    data_dir: Arc<DataDir>,
    status: Arc<Status>,
    metrics: Arc<Metrics>,
    claims: Claims,
    witness: Witness,
    inbox: UnboundedReceiver<Message>,
    sender: UnboundedSender<Message>,
    reloads: Reloads,
    /// Where the admin server listens.
    admin: Option<SocketAddr>,
    /// Threads of an earlier run that hang in a file system.
    left_behind: Option<Rest>,
    /// Where the counts in the rows of streams continue from.
    carried: Carried,
    /// How much each outlet of the last run had read of each source.
    counted: ReadCounts,
    /// Number of the newest stream of all runs.
    last_stream: u32,
    /// What the runs lost lately, for health and the log.
    losses: Losses,
}

impl Agent {
    /// Opens everything that can be opened before the first event, so that errors show at start. With `reloading` the
    /// agent reads its config again on SIGHUP and `/-/reload`. Signals that reached `signals` meanwhile are answered
    /// afterwards.
    ///
    /// # Errors
    /// What was tried, why it failed, what to do.
    pub fn build(
        settings: Settings,
        reloading: Option<Reloading>,
        signals: Signals,
    ) -> anyhow::Result<Agent> {
        let starting = Starting::watch("asking the kernel for io_uring", privilege::renounce_in_log);
        ring::check()?;
        let (before, now) = descriptors::raise();
        if now > before {
            tracing::debug!(before, now, "the limit of file descriptors is raised");
        }
        let settings = Arc::new(settings);
        let metrics = Arc::new(Metrics::new(settings.metrics.max_containers).context("making the metrics")?);
        metrics.process_start_time_seconds.set(turn::unix_s());
        metrics.config_last_reload_successful.set(1);
        metrics.config_last_reload_success_timestamp_seconds.set(turn::unix_s());
        let status = Arc::<Status>::default();
        // With all rights, which its thread keeps until the programs are in the kernel.
        let mut options = probe::Options::default();
        if !settings.resource_monitoring.enabled {
            options.tiers.clear();
        }
        starting.at("starting the witness");
        let witness = Witness::start(&options, &settings, Arc::clone(&metrics), Arc::clone(&status));
        let claims = witness.claims();
        let (sender, inbox) = unbounded_channel();
        starting.at("binding admin.listen");
        let early = admin::server::Early::bind(&settings.admin);
        let places = privilege::written(&settings);
        let places = places.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        starting.at(format!("looking whether the agent may write to {places}"));
        let reads_witness = || !settings.resource_monitoring.enabled || rights::may_read_maps();
        privilege::drop_unneeded(&settings, reads_witness)?;

        starting.at(format!("making and locking data_dir ({})", settings.data_dir.display()));
        run::make_data_dir(&settings)?;
        let data_dir = Arc::new(DataDir::acquire(&settings.data_dir, &claims)?);
        let data = settings.data_dir.display();
        starting.at(format!("reading the saved positions in {data}, and opening the outputs ({places})"));
        let run = Run::open(settings, &data_dir, &status, &metrics, &claims)?;

        starting.at("starting the signals' thread and the admin server");
        status.profiles.open(Box::new(profile::start));
        let ask = sender.clone();
        status.on_ask(Box::new(move || drop(ask.send(Message::Ask))));
        if reloading.is_some() {
            let reload = sender.clone();
            status.reload_requests.open(Box::new(move || drop(reload.send(Message::Reload))));
        }
        // Signals are answered before the admin server listens: whoever sees that the agent is there may tell it to
        // stop.
        let (stopper, asked) = (Stopper(sender.clone()), Arc::clone(&status));
        let reload = reloading.is_some().then_some(move || {
            let _ticket = asked.reload_requests.ask();
        });
        signals.start(move || stopper.stop(), reload);
        let settings = &run.settings.admin;
        let admin = admin::server::start(settings, early, status.clone(), metrics.clone(), claims.clone())?;
        if let Some(admin) = &admin {
            tracing::info!(address = %admin.addr, "admin server listens");
        }
        let ignored = environment::ignored(&run.settings, &|name| std::env::var(name).ok());
        for warning in advice::warnings(&run.settings).into_iter().chain(ignored) {
            tracing::warn!("{warning}");
        }
        let reloads = Reloads::new(reloading, &status, &metrics, &claims, &sender);
        let process = Process {
            data_dir: Arc::clone(&data_dir),
            status,
            metrics,
            claims,
            witness,
            inbox,
            sender,
            reloads,
            admin: admin.as_ref().map(|admin| admin.addr),
            left_behind: None,
            carried: Carried::default(),
            counted: ReadCounts::default(),
            last_stream: 0,
            losses: Losses::default(),
        };
        Ok(Agent { process, run, admin, _data_dir: data_dir })
    }

    /// Where the admin server listens.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|admin| admin.addr)
    }

    /// What `/health`, `/readyz` and the status page show.
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.process.status)
    }

    /// The agent's metrics.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.process.metrics)
    }

    /// How the kernel is asked about our descriptors. Waits until that is decided, some tenths of a second after the start.
    pub fn witness_tier(&self) -> probe::Tier {
        self.process.witness.tier()
    }

    /// For signals and quickstart, which stop the agent.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.process.sender.clone())
    }

    /// Runs until stopped. Returns what was not finished in time; empty = a clean end.
    ///
    /// # Errors
    /// Without io_uring, or when a part can't be started.
    pub fn run(self) -> anyhow::Result<Vec<String>> {
        let Agent { process, run, admin, _data_dir } = self;
        let left = ring::start(process.live(run))??;
        if let Some(admin) = admin {
            admin.stop();
        }
        Ok(left)
    }
}

/// Waits for threads at the end of the process, and names those that do not end: their file system does not answer.
async fn wait_at_end(mut threads: Vec<(String, JoinHandle<()>)>) -> Vec<String> {
    let began = Instant::now();
    loop {
        threads.retain(|(_, thread)| !thread.is_finished());
        if threads.is_empty() || began.elapsed() >= THREADS_PATIENCE {
            return threads.into_iter().map(|(name, _)| format!("the sink {name}")).collect();
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl Process {
    /// Runs one run after the other until no other follows.
    async fn live(mut self, first: Run) -> anyhow::Result<Vec<String>> {
        let mut run = first.begin(&self.claims).context("preparing the loop")?;
        loop {
            self.witness.begin();
            let ended = self.drive(run).await;
            let Ended { mut left, next, threads, mut rest, old } = ended;
            let Some((ticket, new)) = next else {
                if left.is_empty() {
                    left = wait_at_end(threads).await;
                }
                return Ok(left);
            };
            if !left.is_empty() {
                tracing::warn!(unfinished = ?left, "the drain before the reload did not wait for all");
            }
            if !self.wait_for(threads, &rest).await {
                let descriptors = self.witness.held_by_streams();
                let what = turn::what_is_left(ring::operations_in_flight(), descriptors, &left);
                tracing::info!("stopped amid a reload; {what}");
                return Ok(left);
            }
            self.left_behind = (!rest.has_ended()).then_some(rest);
            run = self.begin(ticket, new, old)?;
        }
    }

    /// Waits for the threads of the ended run that write where the next one will. They end within seconds unless a disk
    /// hangs. Nothing is read meanwhile, and nothing is lost. Returns false if the agent was told to stop.
    async fn wait_for(&mut self, mut threads: Vec<(String, JoinHandle<()>)>, rest: &Rest) -> bool {
        let began = Instant::now();
        let mut told = false;
        loop {
            threads.retain(|(_, thread)| !thread.is_finished());
            let mut names: Vec<&str> = threads.iter().map(|(name, _)| name.as_str()).collect();
            names.extend((!rest.saver_has_ended()).then_some("the checkpoint"));
            if names.is_empty() {
                return true;
            }
            if !told && began.elapsed() >= THREADS_PATIENCE {
                told = true;
                let message = format!(
                    "the reload waits for {} of the previous run, whose disk or reader does not answer; nothing is read \
                     meanwhile, and nothing lost",
                    names.join(", ")
                );
                tracing::error!("{message}");
                self.status.set_faults(CONFIG, HealthState::Bad, &[Fault::ReloadWaits], message);
            }
            self.status.beat_capture();
            let message = tokio::time::timeout(LOOK_EVERY, self.inbox.recv()).await;
            match message {
                Ok(Some(Message::Stop)) => {
                    self.status.reload_requests.close();
                    return false;
                }
                Ok(Some(Message::Ask)) => self.status.publish((*self.status.last_snapshot()).clone()),
                // The next run looks for reload requests when it begins.
                Ok(Some(Message::Reload | Message::Checked(_)) | None) | Err(_) => {}
            }
        }
    }

    /// Begins the next run, or the previous one again if the new config can't be started, and reports which it is.
    fn begin(
        &mut self,
        ticket: ReloadTicket,
        new: Settings,
        old: Arc<Settings>,
    ) -> anyhow::Result<ActiveRun> {
        let new = Arc::new(new);
        reload::doubt_changed(&self.status, &old, &new);
        let (run, settings, result, outcome) = match self.open(Arc::clone(&new)) {
            Ok(run) => {
                let text = "reloaded: a new run has begun".to_owned();
                tracing::info!("{text}");
                self.status.set_health(CONFIG, true, "the last reload is in use");
                (run, new, ReloadResult::Applied, ReloadOutcome::Applied(text))
            }
            Err(error) => {
                let text =
                    format!("the new config could not be started, so the previous one runs again: {error:#}");
                tracing::error!("{text}");
                let run = self.open(Arc::clone(&old)).with_context(|| {
                    format!("{text}; and the previous config could not be started again either")
                })?;
                let kind = [Fault::ConfigNotStarted];
                self.status.set_faults(CONFIG, HealthState::Warning, &kind, text.clone());
                (run, old, ReloadResult::Failed, ReloadOutcome::Failed(text))
            }
        };
        reload::forget_gone(&self.status, &self.metrics, &settings);
        self.reloads.set_level(settings.log.level);
        self.witness.renew(&settings);
        self.metrics.reload(result, turn::unix_s());
        self.status.reload_requests.answer(ticket, outcome);
        Ok(run)
    }

    fn open(&mut self, settings: Arc<Settings>) -> anyhow::Result<ActiveRun> {
        self.status.beat_capture();
        let mut run = Run::open(settings, &self.data_dir, &self.status, &self.metrics, &self.claims)?;
        run.capture.number_streams_after(self.last_stream);
        run.capture.count_on(&self.counted);
        run.begin(&self.claims).context("preparing the loop")
    }

    /// Whether threads of an earlier run are still at work in a file system that does not answer.
    fn something_hangs(&mut self) -> bool {
        self.left_behind.take_if(Rest::has_ended);
        self.left_behind.is_some()
    }

    /// A reload is about to replace the run: the agent is not ready until the next run has listed its sources.
    fn give_up_readiness(&self) {
        self.status.sources_ready.store(false, Ordering::Relaxed);
    }
}
