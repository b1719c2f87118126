//! Reloads as the loop sees them: when the config is read again, what is done with the result, and which counts and
//! health entries of the old run a new one drops or continues.
//!
//! ```text
//! asked ─▶ a thread reads and tries it ─▶ judge ─┬─ wrong: refused by name and line, nothing changes
//!          (a file of it may hang; the loop      ├─ as it was, or only log.level differs: the run goes on
//!           must not)                            └─ else: a new run
//! ```
//! One reload is under way at a time; requests that arrive meanwhile are answered by one more.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use super::{CONFIG, Message, turn};
use crate::ledger::claims::Claims;
use crate::settings::{ConfigError, LogLevel, Objection, Settings};
use crate::shell::privilege;
use crate::sink::loki::client::Client;
use crate::telemetry::metrics::{Metrics, ReloadResult};
use crate::telemetry::reload_requests::{ReloadOutcome, ReloadTicket};
use crate::telemetry::status::{Snapshot, Status, StreamCounts, StreamRow};

/// Every sink that can be configured.
const SINKS: [&str; 3] = ["local_file", "loki", "stdout"];
/// Added to the name of what the agent may not write to.
const RIGHTS: &str = "can't be written to with the rights that this agent has now; give its user the right, name another \
                      directory, or restart it if rights were given up at the start";

/// Reads the config as at the start and compares it with the running settings. The last argument checks what only the
/// running agent can check.
type Load =
    dyn Fn(&Settings, &dyn Fn(&Settings) -> Vec<Objection>) -> Result<Settings, ConfigError> + Send + Sync;

/// What a process must bring to be able to reload.
pub struct Reloading {
    /// Reads the config.
    pub load: Arc<Load>,
    /// Sets the level of the agent's own log.
    pub set_level: Box<dyn Fn(LogLevel)>,
}

/// The reload under way and its parts; see the head of this file.
pub(super) struct Reloads {
    reloading: Option<Reloading>,
    status: Arc<Status>,
    metrics: Arc<Metrics>,
    claims: Claims,
    sender: UnboundedSender<Message>,
    /// The request for which the config is being read.
    under_way: Option<ReloadTicket>,
}

/// What happens with the new config.
pub(super) enum ReloadDecision {
    /// The run goes on, with these settings.
    Stay(Arc<Settings>),
    /// A new run begins.
    Swap(ReloadTicket, Box<Settings>),
}

impl Reloads {
    pub fn new(
        reloading: Option<Reloading>,
        status: &Arc<Status>,
        metrics: &Arc<Metrics>,
        claims: &Claims,
        sender: &UnboundedSender<Message>,
    ) -> Reloads {
        Reloads {
            reloading,
            status: Arc::clone(status),
            metrics: Arc::clone(metrics),
            claims: claims.clone(),
            sender: sender.clone(),
            under_way: None,
        }
    }

    pub fn set_level(&self, level: LogLevel) {
        if let Some(reloading) = &self.reloading {
            (reloading.set_level)(level);
        }
    }

    /// Reads the config if a request waits; [`Message::Checked`] follows. Refuses while threads of an earlier run hang,
    /// because another run would leave more of them behind.
    pub fn begin(&mut self, running: &Arc<Settings>, something_hangs: bool) {
        let (None, Some(ticket), Some(reloading)) =
            (self.under_way, self.status.reload_requests.unanswered(), &self.reloading)
        else {
            return;
        };
        if something_hangs {
            let text = "a file system that hung at the last reload still does, see /health";
            return self.refuse(ticket, text, "fix that first, or restart the agent");
        }
        let (load, running) = (Arc::clone(&reloading.load), Arc::clone(running));
        let (sender, claims) = (self.sender.clone(), self.claims.clone());
        let read = move || {
            #[cfg(feature = "test-faults")]
            crate::faults::here();
            let result = load(&running, &|settings| object(settings, &claims));
            let _ = sender.send(Message::Checked(Box::new(result)));
        };
        match std::thread::Builder::new().name("reload".to_owned()).spawn(read) {
            Ok(_) => self.under_way = Some(ticket),
            Err(error) => {
                let cure = "give the agent more threads (TasksMax in its unit), then reload again";
                self.refuse(ticket, &format!("no thread to read the config: {error}"), cure);
            }
        }
    }

    /// Decides what to do with the config that was read.
    pub fn judge(&mut self, read: Result<Settings, ConfigError>, running: &Arc<Settings>) -> ReloadDecision {
        let stay = || ReloadDecision::Stay(Arc::clone(running));
        let Some(ticket) = self.under_way.take() else { return stay() };
        let new = match read {
            Ok(new) => new,
            Err(error) => {
                self.refuse(ticket, &error.to_string(), error.cure());
                return stay();
            }
        };
        if new == **running {
            self.accept(
                ticket,
                ReloadResult::Unchanged,
                "nothing has changed in the config; the run continues",
            );
            return stay();
        }
        if (Settings { log: running.log.clone(), ..new.clone() }) == **running {
            self.set_level(new.log.level);
            self.accept(
                ticket,
                ReloadResult::Applied,
                "log.level is set and nothing else has changed; the run continues",
            );
            return ReloadDecision::Stay(Arc::new(new));
        }
        ReloadDecision::Swap(ticket, Box::new(new))
    }

    fn accept(&self, ticket: ReloadTicket, result: ReloadResult, text: &str) {
        tracing::info!("{text}");
        self.metrics.reload(result, turn::unix_s());
        self.status.set_health(CONFIG, true, "the last reload is in use");
        self.status.reload_requests.answer(ticket, ReloadOutcome::Applied(text.to_owned()));
    }

    fn refuse(&self, ticket: ReloadTicket, text: &str, cure: &str) {
        let said =
            |line: &str| format!("the config was refused: {line}; the previous one stays in use; {cure}");
        tracing::error!("{}", said(&text.lines().collect::<Vec<_>>().join("; ")));
        // The list of all known keys would fill half a screen; the log has it.
        let brief = text.lines().map(|line| line.split("; known here: ").next().unwrap_or(line));
        let message = said(&brief.collect::<Vec<_>>().join("; "));
        self.metrics.reload(ReloadResult::Refused, turn::unix_s());
        self.status.set_warning(CONFIG, message);
        self.status.reload_requests.answer(ticket, ReloadOutcome::Refused(text.to_owned()));
    }
}

/// What would make opening the sinks fail, as far as it can be tested while the present ones run.
fn object(settings: &Settings, claims: &Claims) -> Vec<Objection> {
    let mut objections = Vec::new();
    let mut object = |key, message| objections.push(Objection { key, message });
    if let Some(local) = &settings.sinks.local_file {
        let directory = &local.directory;
        if directory.exists() && !directory.is_dir() {
            object("sinks.local_file.directory", format!("{} is not a directory", directory.display()));
        } else if !privilege::is_writable(directory) {
            object("sinks.local_file.directory", format!("{} {RIGHTS}", directory.display()));
        }
    }
    if let Some(loki) = &settings.sinks.loki {
        let spool = settings.data_dir.join("spool/loki");
        if !privilege::is_writable(&spool) {
            object("sinks.loki", format!("its spool {} {RIGHTS}", spool.display()));
        }
        // Reads certificates and token.
        if let Err(error) = Client::new(loki, claims.clone()) {
            object("sinks.loki", error.to_string());
        }
    }
    objections
}

fn names(settings: &Settings) -> Vec<&'static str> {
    let sinks = &settings.sinks;
    let enabled = [sinks.local_file.is_some(), sinks.loki.is_some(), sinks.stdout];
    SINKS.into_iter().zip(enabled).filter(|(_, enabled)| *enabled).map(|(name, _)| name).collect()
}

/// After a change of Loki's settings health waits for the new Loki's first answer; an unchanged one keeps its state.
pub(super) fn doubt_changed(status: &Status, old: &Settings, new: &Settings) {
    if old.sinks.loki != new.sinks.loki {
        status.doubt_sink("loki");
    }
}

/// Removes health and metrics of sinks and sources that this run does not have.
pub(super) fn forget_gone(status: &Status, metrics: &Metrics, settings: &Settings) {
    let names = names(settings);
    for gone in SINKS.into_iter().filter(|name| !names.contains(name)) {
        status.forget_sink(gone);
        metrics.forget_sink(gone);
    }
    metrics.keep_pipelines(&names, &settings.pipelines);
    if !settings.container_monitor.enabled {
        status.forget_health("docker");
        metrics.containers_monitored.set(0);
    }
}

/// What rows of streams have counted in earlier runs: a number once shown never falls.
#[derive(Debug, Default)]
pub(super) struct Carried(BTreeMap<(Arc<str>, String), StreamCounts>);

impl Carried {
    /// Keeps the last snapshot of a run that has ended, which includes what was carried into it. The next run counts on
    /// from there.
    pub fn keep(&mut self, last: Snapshot) {
        let mut kept = BTreeMap::new();
        for StreamRow { key, sinks, counts, .. } in last.streams {
            kept.extend(sinks.iter().map(|sink| ((key.clone(), sink.clone()), counts)));
        }
        self.0 = kept;
    }

    /// Adds to each row what the earlier streams for its sinks had counted.
    pub fn add_to(&self, snapshot: &mut Snapshot) {
        if self.0.is_empty() {
            return;
        }
        for row in &mut snapshot.streams {
            let of = |sink: &String| self.0.get(&(row.key.clone(), sink.clone()));
            let Some(carried) = row.sinks.iter().find_map(of).copied() else { continue };
            row.counts = row.counts.plus(carried);
            row.now.carried = carried;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::CATALOG;

    fn row(key: &str, sinks: &[&str], lines: u64) -> StreamRow {
        let sinks = sinks.iter().map(|sink| (*sink).to_owned()).collect();
        let counts = StreamCounts { lines, bytes: 10 * lines, ..StreamCounts::default() };
        StreamRow { key: key.into(), sinks, counts, ..StreamRow::default() }
    }

    fn snapshot(streams: Vec<StreamRow>) -> Snapshot {
        Snapshot { streams, ..Snapshot::default() }
    }

    /// Sinks come and go; a stream that remains for one of them counts on.
    #[test]
    fn rows_count_on_from_run_to_run() {
        let mut carried = Carried::default();
        carried.keep(snapshot(vec![row("a", &["local_file"], 10), row("a", &["loki"], 7)]));
        let mut second = snapshot(vec![
            row("a", &["local_file", "stdout"], 1),
            row("a", &["loki"], 2),
            row("b", &["local_file", "stdout"], 3),
        ]);
        carried.add_to(&mut second);
        let lines =
            |snapshot: &Snapshot| snapshot.streams.iter().map(|row| row.counts.lines).collect::<Vec<_>>();
        assert_eq!(lines(&second), [11, 9, 3]);
        assert_eq!(second.streams[0].now.carried.lines, 10);
        let mut last = snapshot(vec![row("a", &["local_file", "stdout"], 5)]);
        carried.add_to(&mut last);
        carried.keep(last);
        let mut third = snapshot(vec![row("a", &["stdout"], 1), row("a", &["loki"], 1)]);
        carried.add_to(&mut third);
        assert_eq!(lines(&third), [16, 1]);
    }

    /// Every count by source, multiplied by `times`. Written without `..` so that a new count can't be forgotten here.
    fn counts(times: u64) -> StreamCounts {
        StreamCounts {
            rotations: times,
            read_timeouts: 2 * times,
            lines: 3 * times,
            bytes: 50 * times,
            losses: 7 * times,
            lost_bytes: 11 * times,
        }
    }

    /// A stream of the container `a` whose counts in its run are `times`.
    fn counted(id: u32, sinks: &[&str], times: u64) -> StreamRow {
        let name = "a".to_owned();
        StreamRow {
            id,
            container_id: name.as_str().into(),
            name: name.into(),
            counts: counts(times),
            ..row("a", sinks, 0)
        }
    }

    /// Every counter by source, under its name without prefix and suffix.
    fn source_counters(metrics: &Metrics) -> BTreeMap<String, u64> {
        let text = metrics.encode();
        let sample = |line: &str| {
            let (name, rest) = line.strip_prefix("log_capturer_source_")?.split_once("_total{")?;
            Some((name.to_owned(), rest.rsplit_once(' ')?.1.parse().unwrap()))
        };
        text.lines().filter_map(sample).collect()
    }

    /// No count by source jumps or falls over reloads, neither in rows nor in `/metrics`, at whatever moment it is
    /// read.
    #[test]
    fn no_count_of_a_source_jumps_or_falls_over_a_reload() {
        let metrics = Metrics::new(9).unwrap();
        metrics.expect_network_sink("loki");
        let mut carried = Carried::default();
        let look = |carried: &Carried, rows: Vec<StreamRow>, all_listed| {
            let mut snapshot = snapshot(rows);
            carried.add_to(&mut snapshot);
            metrics.show_sources(&snapshot.streams, 0, all_listed);
            snapshot
        };
        let check = |shown: &Snapshot, times: u64| {
            shown.streams.iter().for_each(|row| assert_eq!(row.counts, counts(times)));
            let rows = serde_json::to_value(counts(times)).unwrap();
            let counters = source_counters(&metrics);
            let of_metrics = CATALOG.iter().filter(|entry| {
                entry.name.starts_with("log_capturer_source_") && entry.name.ends_with("_total")
            });
            assert_eq!(counters.len(), of_metrics.count(), "{counters:?}");
            counters.iter().for_each(|(name, value)| assert_eq!(*value, rows[name], "{name}"));
        };
        check(&look(&carried, vec![counted(1, &["local_file"], 3)], true), 3);
        // Nobody reads a snapshot between this one and the end of the run.
        let last = look(&carried, vec![counted(1, &["local_file"], 5)], false);
        check(&last, 5);
        carried.keep(last);
        // The next run begins without rows.
        check(&look(&carried, Vec::new(), false), 5);
        check(&look(&carried, vec![counted(2, &["local_file", "stdout"], 0)], true), 5);
        let last = look(&carried, vec![counted(2, &["local_file", "stdout"], 4)], false);
        check(&last, 9);
        carried.keep(last);
        check(&look(&carried, vec![counted(3, &["stdout"], 1)], true), 10);
        // Once everything is listed, the series of sources that are gone are removed.
        look(&carried, Vec::new(), true);
        assert!(source_counters(&metrics).is_empty());
    }

    #[test]
    fn what_could_not_be_opened_is_known_before() {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings { data_dir: dir.path().to_owned(), ..Settings::default() };
        let local = settings.sinks.local_file.get_or_insert_default();
        local.directory = dir.path().join("out");
        let keys = |settings: &Settings| {
            object(settings, &Claims::default()).into_iter().map(|object| object.key).collect::<Vec<_>>()
        };
        assert!(keys(&settings).is_empty());
        std::fs::write(dir.path().join("out"), "a file").unwrap();
        assert_eq!(keys(&settings), ["sinks.local_file.directory"]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was made");
    }
}
