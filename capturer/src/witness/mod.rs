//! The witness at work: asks the kernel at an interval, compares the ledger with the answer, and reports what is wrong.
//!
//! ```text
//! Probe ─▶ Reading ─┐
//! Claims ───────────┼▶ Ledger ─▶ suspects ─┐
//! what the loop has ┴──────────▶ amounts  ─┴▶ Detector ─▶ log line, leak_detection, /health, /api/v1/fds
//! ```
//! It runs on the loop's thread, once per check interval; a look takes a millisecond. `/api/v1/fds` takes a look of its
//! own on the admin server's thread, so that its answer is true even if the loop is stuck.
//!
//! To bring programs into the kernel takes a third of a second, most of it in its verifier. A thread of its own does that
//! while the agent begins to read. Until then nothing is judged; what was claimed before is told to the programs afterwards,
//! and what was open and unclaimed when the run began still belongs to the runtime.
//!
//! Not here: what is a leak (ledger/leaks.rs) and how the kernel is asked (probe/).

mod dockerd;
mod facts;
pub(crate) mod probe;
pub(crate) mod profile;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::RawFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::ledger::Resource;
use crate::ledger::claims::{Claims, NoteOwner};
use crate::ledger::leaks::{self, Detector, LeakFault, LeakReport, Leaking, Suspect};
use crate::ledger::table::{DockerdRow, FdRow, FdTable, OwnerRow, kind};
use crate::ledger::{KernelFd, OpenFd, Owner, Totals, View};
use crate::model::clock::Now;
use crate::model::record::StreamKey;
use crate::settings::Settings;
use crate::telemetry::fault;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::status::{HealthState, Status};
use crate::text::over::over;
use crate::witness::probe::{Options, Owners, Probe, Reading, Tier};
use dockerd::Dockerd;
use facts::Start;

pub use facts::Doing;

/// How long an operation may keep a file whose descriptor is closed. The agent ends its operations before it closes, so
/// this should not happen at all.
const GRACE_MS: u64 = 1_000;
/// The component of health that reports leaks, and the one that reports the tier.
const LEAK_DETECTOR: &str = "leak_detector";
const PROBE: &str = "probe";
/// The kernel's verifier takes well under a second, on slow machines some seconds. What takes longer is said.
const ATTACHING_PATIENCE: Duration = Duration::from_secs(60);

/// The witness; see the head of this file.
pub struct Witness {
    shared: Arc<Shared>,
    detector: Detector,
    dockerd: Option<Dockerd>,
    /// How long a mismatch must stand to be more than an accident of one look.
    settle_ms: u64,
    start: Option<Start>,
    buffer_bytes_max: u64,
    /// What the counters of metrics have so far, by class.
    counted: BTreeMap<&'static str, Totals>,
    /// Names of containers, by the keys of their streams.
    names: BTreeMap<StreamKey, String>,
    /// What closed files pointed to, by the kernel's address of each, for as long as somebody holds them.
    targets: BTreeMap<u64, String>,
}

/// What the loop's and the admin server's thread share.
struct Shared {
    claims: Claims,
    probe: Mutex<Probe>,
    attaching: Mutex<Attaching>,
    attached: Condvar,
    last: Mutex<Last>,
    metrics: Arc<Metrics>,
    status: Arc<Status>,
}

/// How far the start has come.
#[derive(Debug)]
enum Attaching {
    /// Since when, and what was open when the first run began, if it has.
    UnderWay { since: Instant, open_at_begin: Option<Vec<OpenFd>> },
    /// The tier is decided.
    Done,
}

/// What the last check found.
#[derive(Default)]
struct Last {
    leaks: Vec<String>,
    dockerd: Option<DockerdRow>,
}

impl NoteOwner for Owners {
    fn note(&mut self, fd: i32, owner: u64) {
        // The map may be full, or the descriptor beyond its bound; the ledger has the claim anyway.
        if let Err(error) = self.claim(fd, owner) {
            tracing::debug!("descriptor {fd} has no owner in the kernel's account: {error:#}");
        }
    }
}

impl Witness {
    /// Starts on the best tier that the kernel allows; never fails. A thread of its own attaches it, with the rights that the
    /// caller has now.
    pub fn start(
        options: &Options,
        settings: &Settings,
        metrics: Arc<Metrics>,
        status: Arc<Status>,
    ) -> Witness {
        let monitoring = &settings.resource_monitoring;
        let docker = &settings.container_monitor;
        let dockerd = (monitoring.watch_dockerd && docker.enabled).then(|| Dockerd::new(&docker.socket_path));
        let shared = Arc::new(Shared {
            claims: Claims::default(),
            probe: Mutex::new(Probe::procfs()),
            attaching: Mutex::new(Attaching::UnderWay { since: Instant::now(), open_at_begin: None }),
            attached: Condvar::new(),
            last: Mutex::default(),
            metrics,
            status,
        });
        let status = &shared.status;
        status.set_state(PROBE, HealthState::Well, "the agent's open files will be watched in a moment");
        let table = Arc::clone(&shared);
        status.on_fds(Box::new(move || table.fd_table()));
        let (attaching, tried) = (Arc::clone(&shared), options.clone());
        let thread = std::thread::Builder::new().name("witness".to_owned());
        if let Err(error) = thread.spawn(move || attaching.attach(&tried)) {
            tracing::debug!("the witness gets no thread of its own: {error}");
            shared.attach(options);
        }
        Witness {
            shared,
            detector: Detector::default(),
            dockerd,
            settle_ms: settle_ms(settings),
            start: None,
            buffer_bytes_max: settings.buffer_bytes_max,
            counted: BTreeMap::new(),
            names: BTreeMap::new(),
            targets: BTreeMap::new(),
        }
    }

    /// Takes the settings of a new run. All looks are still compared with the first one.
    pub fn renew(&mut self, settings: &Settings) {
        self.settle_ms = settle_ms(settings);
        // Memory that was used once may never go back to the kernel.
        self.buffer_bytes_max = self.buffer_bytes_max.max(settings.buffer_bytes_max);
    }

    /// Through these the parts of the program claim their descriptors.
    pub fn claims(&self) -> Claims {
        self.shared.claims.clone()
    }

    /// Which tier is at work. Waits until that is decided.
    pub fn tier(&self) -> Tier {
        let attaching = lock(&self.shared.attaching);
        let under_way = |attaching: &mut Attaching| matches!(attaching, Attaching::UnderWay { .. });
        drop(self.shared.attached.wait_while(attaching, under_way));
        lock(&self.shared.probe).tier()
    }

    /// Everything is built and a run begins: descriptors that nobody has claimed belong to the runtime.
    pub fn begin(&mut self) {
        let mut attaching = lock(&self.shared.attaching);
        let reading = match &*attaching {
            Attaching::UnderWay { .. } => Probe::procfs().read(),
            Attaching::Done => lock(&self.shared.probe).read(),
        };
        match (reading, &mut *attaching) {
            (Ok(reading), Attaching::UnderWay { open_at_begin, .. }) => {
                *open_at_begin = Some(open_fds(&reading));
            }
            (Ok(reading), Attaching::Done) => {
                self.shared.claims.adopt(&open_fds(&reading), &Owner::Runtime);
            }
            (Err(error), _) => tracing::warn!("looking at our own descriptors: {error:#}"),
        }
    }

    /// Whether a tier is still being attached, so that no look can be taken.
    pub fn is_attaching(&self) -> bool {
        matches!(&*lock(&self.shared.attaching), Attaching::UnderWay { .. })
    }

    /// Takes one look, reports what is wrong, and returns it.
    pub fn check(&mut self, now: Now, doing: &Doing) -> LeakReport {
        if let Attaching::UnderWay { since, .. } = &*lock(&self.shared.attaching) {
            self.shared.tell_attaching(since.elapsed());
            return LeakReport::default();
        }
        let newest_claim = self.shared.claims.with(|ledger| ledger.newest_claim());
        let reading = lock(&self.shared.probe).read();
        let reading = match reading {
            Ok(reading) => reading,
            Err(error) => {
                tracing::warn!("looking at our own resources: {error:#}");
                self.shared.tell_tier(Some(format!("the last look failed: {error:#}")));
                return LeakReport::default();
            }
        };
        self.shared.tell_tier(None);
        let open = open_fds(&reading);
        let closed_by = reading.counts.is_some().then_some(&reading.closed_by);
        let settle_ms = self.settle_ms;
        let (report, classes, suspects) = self.shared.claims.with(|ledger| {
            let report = ledger.observe(View { open: &open, closed_by, newest_claim }, now, settle_ms);
            let suspects: Vec<Suspect> = open
                .iter()
                .filter(|open| !doing.left_behind.contains(&open.fd))
                .filter_map(|open| {
                    let (fault, identity, owner) = match (ledger.claimant(open.fd), open.kernel) {
                        (Some((owner @ Owner::Stream(_), serial)), _) if ledger.has_ended(owner) => {
                            (LeakFault::StreamEnded, serial, owner.clone())
                        }
                        (Some((owner @ Owner::Stream(_), serial)), _)
                            if !doing.reachable.contains(&open.fd) =>
                        {
                            (LeakFault::Forgotten, serial, owner.clone())
                        }
                        (None, Some(kernel)) if kernel.owner != 0 => {
                            (LeakFault::Released, kernel.opened_ns, ledger.owner(kernel.owner))
                        }
                        _ => return None,
                    };
                    let age_ms = age_ms(open.kernel).unwrap_or_default();
                    Some(Suspect { fd: open.fd, identity, fault, owner, target: open.target.clone(), age_ms })
                })
                .collect();
            (report, ledger.seen_by_class(), suspects)
        });
        let mut suspects = suspects;
        suspects.extend(self.unreleased(&reading));
        self.forget_owners(&reading);
        let dockerd = self.dockerd.as_mut().map(|dockerd| dockerd.look(&mut lock(&self.shared.probe), doing));

        let start = self.start.get_or_insert_with(|| Start::of(&reading, doing, &report));
        let mut amounts = start.amounts(&reading, doing, &report, self.buffer_bytes_max);
        amounts.extend(dockerd.as_ref().and_then(DockerdRow::amount));
        let stream_of = |suspect: &Suspect| match &suspect.owner {
            Owner::Stream(key) => Some(leaks::source_of(key)),
            _ => None,
        };
        let suspected: BTreeSet<StreamKey> = suspects.iter().filter_map(stream_of).collect();
        let verdict = self.detector.look(now.mono_ms, suspects, amounts, settle_ms, GRACE_MS);
        self.count(&reading, &report.open, classes);
        let drift = if reading.counts.is_some() { reading.drift } else { report.missing.len() as i64 };
        self.shared.metrics.kernel_fd_drift.set(drift);
        self.know(&doing.names, &suspected);
        self.tell(&verdict, dockerd);
        verdict
    }

    /// How many descriptors streams hold by their claims; 0 once the agent has stopped.
    pub fn held_by_streams(&self) -> u64 {
        self.shared.claims.with(|ledger| ledger.held_by_streams())
    }

    fn unreleased(&mut self, reading: &Reading) -> Vec<Suspect> {
        let target_of: BTreeMap<RawFd, &String> =
            reading.look.fds.iter().map(|(fd, target)| (*fd, target)).collect();
        let kept = reading.unreleased.iter().filter_map(|file| {
            let target = self.targets.get(&file.file).cloned();
            target.map(|target| (file.file, target))
        });
        let mut targets: BTreeMap<u64, String> = kept.collect();
        let live =
            reading.live.iter().filter_map(|live| Some((live.file, (*target_of.get(&live.fd)?).clone())));
        targets.extend(live);
        self.targets = targets;
        let claims = &self.shared.claims;
        // A file that nobody claimed may be a library's mapping, which may last.
        let owned = reading.unreleased.iter().filter(|file| file.owner != 0);
        owned
            .map(|file| Suspect {
                fd: file.last_fd,
                identity: file.file,
                fault: LeakFault::Unreleased,
                owner: claims.with(|ledger| ledger.owner(file.owner)),
                target: self.targets.get(&file.file).cloned().unwrap_or_else(|| "a file".to_owned()),
                age_ms: file.age_ms,
            })
            .collect()
    }

    /// The kernel stops counting for streams that the ledger has forgotten.
    fn forget_owners(&self, reading: &Reading) {
        let done = |number: &&u64| !self.shared.claims.with(|ledger| ledger.knows(**number));
        let done: Vec<u64> = reading.closed_by.keys().filter(done).copied().collect();
        let mut probe = lock(&self.shared.probe);
        done.into_iter().for_each(|number| probe.forget_owner(number));
    }

    fn count(
        &mut self,
        reading: &Reading,
        open: &BTreeMap<Owner, u64>,
        mut classes: BTreeMap<&'static str, Totals>,
    ) {
        let metrics = &self.shared.metrics;
        metrics.file_descriptors_open.set(reading.look.fds.len() as i64);
        metrics.threads.set(reading.look.threads as i64);
        metrics.resident_memory_bytes.set(reading.look.rss_bytes as i64);
        if let Some(counts) = reading.counts {
            // Opened and closed without a claim: within steps of work, and strays.
            let sum = |of: fn(&Totals) -> u64| classes.values().map(of).sum::<u64>();
            let unknown = Totals {
                opened: counts.opened.saturating_sub(sum(|totals| totals.opened)),
                closed: counts.closed.saturating_sub(sum(|totals| totals.closed)),
            };
            classes.insert(Owner::Unknown.class(), unknown);
        }
        for (class, totals) in classes {
            let counted = self.counted.entry(class).or_default();
            let opened = metrics.kernel_fd_opened_total.with_label_values(&[class]);
            opened.inc_by(totals.opened.saturating_sub(counted.opened));
            let closed = metrics.kernel_fd_closed_total.with_label_values(&[class]);
            closed.inc_by(totals.closed.saturating_sub(counted.closed));
            counted.opened = counted.opened.max(totals.opened);
            counted.closed = counted.closed.max(totals.closed);
            let now = open.iter().filter(|(owner, _)| owner.class() == class).map(|(_, count)| *count);
            metrics.kernel_fds_open.with_label_values(&[class]).set(now.sum::<u64>() as i64);
        }
    }

    /// Keeps names of streams that ended and may have left something open, so that a leak can name them.
    fn know(&mut self, names: &BTreeMap<StreamKey, String>, suspected: &BTreeSet<StreamKey>) {
        self.names.retain(|key, _| suspected.contains(key));
        self.names.extend(names.iter().map(|(key, name)| (key.clone(), name.clone())));
    }

    fn tell(&self, verdict: &LeakReport, dockerd: Option<DockerdRow>) {
        for text in &verdict.new {
            tracing::error!("a leak: {text}");
        }
        for (seconds, text) in &verdict.gone {
            tracing::info!("{}", over(*seconds, &format!("a leak: {text}")));
        }
        for resource in Resource::ALL {
            self.shared.metrics.leak(*resource, verdict.leaks.iter().any(|leak| leak.resource == *resource));
        }
        let leaks: Vec<String> = verdict.leaks.iter().map(|leak| leak.text.clone()).collect();
        if leaks.is_empty() {
            self.shared.status.set_health(LEAK_DETECTOR, true, "nothing leaks");
        } else {
            let fault = match leaks::leaking(&verdict.leaks) {
                Leaking::Descriptors(1) => fault::Fault::LeaksDescriptor,
                Leaking::Descriptors(_) => fault::Fault::LeaksDescriptors,
                Leaking::Dockerd => fault::Fault::DockerdLeaks,
                Leaking::Amount => fault::Fault::Usual,
            };
            let message = leaks::message(&verdict.leaks, &self.names);
            self.shared.status.set_faults(LEAK_DETECTOR, HealthState::Warning, &[fault], message);
        }
        *lock(&self.shared.last) = Last { leaks, dockerd };
    }
}

impl Shared {
    /// Decides for a tier and puts it to work.
    fn attach(&self, options: &Options) {
        let probe = Probe::start(options);
        let (tier, programs, owners) = (probe.tier(), probe.programs(), probe.owners());
        for fd in probe.own_fds() {
            self.claims.claim_number(*fd, Owner::Probe);
        }
        let refused = probe.refused().iter().map(|(tier, why)| format!("{tier} is not used: {why}"));
        let refused: Vec<String> = refused.collect();
        let mut attaching = lock(&self.attaching);
        *lock(&self.probe) = probe;
        if let Some(owners) = owners {
            self.claims.tell(Box::new(owners));
        }
        if let Attaching::UnderWay { open_at_begin: Some(open), .. } = &*attaching {
            self.adopt_what_stayed(open);
        }
        tracing::info!(tier = %tier, programs, "open descriptors are watched");
        refused.iter().for_each(|reason| tracing::debug!("{reason}"));
        self.metrics.probe_tier.with_label_values(&[&tier.to_string()]).set(1);
        self.tell_tier(None);
        *attaching = Attaching::Done;
        drop(attaching);
        self.attached.notify_all();
    }

    /// What was open when the run began and is so still. Descriptors of the attaching itself are gone by now.
    fn adopt_what_stayed(&self, open_at_begin: &[OpenFd]) {
        match lock(&self.probe).read() {
            Ok(reading) => {
                let then: BTreeMap<RawFd, &String> =
                    open_at_begin.iter().map(|open| (open.fd, &open.target)).collect();
                let mut open = open_fds(&reading);
                open.retain(|open| then.get(&open.fd) == Some(&&open.target));
                self.claims.adopt(&open, &Owner::Runtime);
            }
            Err(error) => tracing::warn!("looking at our own descriptors: {error:#}"),
        }
    }

    fn tell_attaching(&self, since: Duration) {
        if since > ATTACHING_PATIENCE {
            let message = format!(
                "the kernel has not taken the programs that watch open files for {} s: leaks are not looked for meanwhile; \
                 resource_monitoring: {{enabled: false}} does without them",
                since.as_secs()
            );
            self.status.set_state(PROBE, HealthState::Warning, message);
        }
    }

    fn tell_tier(&self, problem: Option<String>) {
        let probe = lock(&self.probe);
        let mut parts = vec![format!("the agent's open files are watched through {}", probe.tier())];
        parts.extend(problem.clone());
        if !probe.refused().is_empty() {
            parts.push("capturer doctor says how to improve that".to_owned());
        }
        let state = if problem.is_none() { HealthState::Well } else { HealthState::Warning };
        self.status.set_state(PROBE, state, parts.join("; "));
    }

    fn fd_table(&self) -> FdTable {
        let newest_claim = self.claims.with(|ledger| ledger.newest_claim());
        let (reading, tier) = {
            let mut probe = lock(&self.probe);
            (probe.read(), probe.tier().to_string())
        };
        let reading = match reading {
            Ok(reading) => reading,
            Err(error) => {
                return FdTable { tier, leaks: vec![format!("no look: {error:#}")], ..FdTable::default() };
            }
        };
        let open = open_fds(&reading);
        let last = lock(&self.last);
        let missed = reading.counts.map_or(0, |counts| counts.missed);
        let mut table = FdTable {
            tier,
            drift: reading.drift,
            missed,
            leaks: last.leaks.clone(),
            dockerd: last.dockerd.clone(),
            ..FdTable::default()
        };
        drop(last);
        let closed_by = reading.counts.is_some().then_some(&reading.closed_by);
        self.claims.with(|ledger| {
            table.slips = ledger.slips();
            table.owners = ledger
                .totals_of(View { open: &open, closed_by, newest_claim })
                .into_iter()
                .map(|(owner, totals)| OwnerRow {
                    owner: owner.to_string(),
                    open: totals.opened - totals.closed,
                    opened: totals.opened,
                    closed: totals.closed,
                    ended: ledger.has_ended(owner),
                })
                .collect();
            table.fds = open
                .iter()
                .map(|open| FdRow {
                    owner: ledger.claimant(open.fd).map_or(&Owner::Unknown, |(owner, _)| owner).to_string(),
                    fd: open.fd,
                    kind: kind(&open.target).to_owned(),
                    target: open.target.clone(),
                    age_ms: age_ms(open.kernel),
                    unreleased: false,
                })
                .collect();
            table.fds.extend(reading.unreleased.iter().map(|file| FdRow {
                owner: ledger.owner(file.owner).to_string(),
                fd: file.last_fd,
                kind: "unreleased".to_owned(),
                target: String::new(),
                age_ms: Some(file.age_ms),
                unreleased: true,
            }));
        });
        table
    }
}

fn settle_ms(settings: &Settings) -> u64 {
    settings.resource_monitoring.check_interval.as_millis() as u64 * 6 / 10
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A look that panicked leaves whole values behind; the next look starts over.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The open descriptors of this process in a reading.
fn open_fds(reading: &Reading) -> Vec<OpenFd> {
    let known: BTreeMap<RawFd, KernelFd> = reading
        .live
        .iter()
        .map(|live| (live.fd, KernelFd { opened_ns: live.opened_ns, owner: live.owner }))
        .collect();
    let open = reading.look.fds.iter().map(|(fd, target)| OpenFd {
        fd: *fd,
        target: target.clone(),
        kernel: known.get(fd).copied(),
    });
    open.collect()
}

fn age_ms(kernel: Option<KernelFd>) -> Option<u64> {
    let now_ns = crate::witness::probe::self_test::now_ns();
    kernel.map(|kernel| now_ns.saturating_sub(kernel.opened_ns) / 1_000_000)
}
