//! Containers whose logs can't be read, although the agent has the right to: the logging driver keeps nothing that can be
//! read, or the file that Docker writes to is gone. Health names them, because nothing else would.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Capture, Kind, Stream};
use crate::capture::discover::Discovery;
use crate::capture::io::{Event, FoundFile};
use crate::model::clock::Now;
use crate::model::cursor::Cursor;
use crate::model::docker::{self, Inspect};
use crate::model::record::{StreamId, StreamKey};
use crate::settings::ReadFrom;
use crate::telemetry::fault::Fault;
use crate::telemetry::metrics::{LossReason, UnreadableReason};
use crate::telemetry::status::StreamRow;

/// How long a container's file may be missing. When Docker rotates, it renames the file before it makes the new one.
const GONE_AFTER_MS: u64 = 10_000;
/// The Engine's status for a container whose logging driver can't be read from.
const NOT_READABLE: u16 = 501;
/// A sentence names at most this many containers with the same cause.
const NAMED_MAX: usize = 5;
/// A sentence tells at most this many causes.
const CAUSES_MAX: usize = 5;

/// What is known of such containers.
#[derive(Debug, Default)]
pub(super) struct NoLogs {
    /// Logging drivers other than json-file.
    drivers: BTreeMap<StreamKey, String>,
    /// Containers with a json-file that is never rotated.
    never_rotate: BTreeSet<StreamKey>,
    /// Containers whose lines dockerd drops when they come too fast.
    may_drop: BTreeSet<StreamKey>,
    /// Containers without a stream.
    by_key: BTreeMap<StreamKey, Unread>,
    /// Since when a stream's file has been missing, and whether that was counted as a possible loss.
    gone: BTreeMap<StreamId, (u64, bool)>,
    /// Streams for which the Engine said that the driver keeps nothing that can be read.
    refused: BTreeSet<StreamId>,
    /// Streams that may have failed too often, with the Engine's words if it said that there is no such log.
    failing: BTreeMap<StreamId, Option<String>>,
    /// Streams whose files were listed: another may have the log's name since.
    listed: BTreeSet<StreamId>,
}

#[derive(Debug)]
struct Unread {
    id: String,
    name: String,
    running: bool,
    /// Somebody wanted it so: the driver is `none`.
    chosen: bool,
    why: String,
}

/// `None` if the driver leaves something to read. Otherwise whether somebody chose that, and why with the cure.
fn without_log(read_from: ReadFrom, driver: &str) -> Option<(bool, String)> {
    match (driver, read_from) {
        ("none", _) => {
            let why = "its logging driver is none, so Docker keeps nothing of what it prints; run it with json-file, local or \
                       journald, or leave it out (container_monitor.exclude_names)";
            Some((true, why.to_owned()))
        }
        ("json-file", _) | (_, ReadFrom::Auto | ReadFrom::Api) => None,
        (driver, ReadFrom::File) => Some((
            false,
            format!(
                "its logging driver {driver} writes no json-file, and container_monitor.read_from is file; set that to auto, \
                 or let the container log with json-file"
            ),
        )),
    }
}

impl NoLogs {
    /// A container was inspected. Returns whether anything of it can be read.
    pub(super) fn see(&mut self, read_from: ReadFrom, inspect: &Inspect, name: &str) -> bool {
        let key = StreamKey::container(&inspect.id);
        let driver = inspect.host_config.log_config.driver.as_str();
        if driver == "json-file" {
            self.drivers.remove(&key);
        } else {
            self.drivers.insert(key.clone(), driver.to_owned());
        }
        if driver == "json-file" && inspect.host_config.log_config.rotates_at().is_none() {
            self.never_rotate.insert(key.clone());
        } else {
            self.never_rotate.remove(&key);
        }
        if inspect.host_config.log_config.may_drop() {
            self.may_drop.insert(key.clone());
        } else {
            self.may_drop.remove(&key);
        }
        let Some((chosen, why)) = without_log(read_from, driver) else {
            self.by_key.remove(&key);
            return true;
        };
        if !self.by_key.contains_key(&key) && inspect.is_running() {
            tracing::warn!(container = name, driver, "not captured: {why}");
        }
        let running = inspect.is_running();
        let (id, name) = (inspect.id.clone(), name.to_owned());
        self.by_key.insert(key, Unread { id, name, running, chosen, why });
        false
    }

    /// The container is gone, or left out.
    pub(super) fn forget(&mut self, key: &StreamKey) {
        self.drivers.remove(key);
        self.never_rotate.remove(key);
        self.may_drop.remove(key);
        self.by_key.remove(key);
    }

    pub(super) fn forget_stream(&mut self, stream: StreamId) {
        self.gone.remove(&stream);
        self.refused.remove(&stream);
        self.failing.remove(&stream);
        self.listed.remove(&stream);
    }

    /// The files of a container's log were listed.
    fn scanned(&mut self, now: Now, stream: StreamId, found: &[FoundFile]) {
        self.listed.insert(stream);
        if found.iter().any(|file| file.rank == 0) {
            self.gone.remove(&stream);
        } else {
            self.gone.entry(stream).or_insert((now.mono_ms, false));
        }
    }

    fn is_gone(&self, now: Now, stream: &Stream) -> bool {
        let since = self.gone.get(&stream.source.id);
        stream.is_running() && since.is_some_and(|(since, _)| now.mono_ms >= since + GONE_AFTER_MS)
    }
}

/// What health says of containers whose logs can't be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct UnreadContainers {
    /// A sentence that names them, with causes and cures; empty = there are none.
    pub faults: String,
    /// The same of containers that have ended, and whose last lines are waited for.
    pub ended: String,
    /// The same for those where somebody chose it.
    pub notes: String,
    /// Names those that are captured only until the agent ends: Docker writes to files that no name leads to.
    pub replaced: String,
    /// Names of those that log with the driver `local`.
    pub local: Vec<String>,
    /// Names of those whose lines Docker drops when they come too fast.
    pub may_drop: Vec<String>,
    /// Running containers that are not captured.
    pub count: usize,
    /// How many nobody chose, by reason.
    pub counts: BTreeMap<UnreadableReason, usize>,
}

impl UnreadContainers {
    /// What is wrong, each sentence with the kind that has its title.
    pub fn wrong(&self) -> Vec<(Fault, String)> {
        let all = [
            (Fault::Usual, &self.faults),
            (Fault::LastLinesUnread, &self.ended),
            (Fault::LogReplaced, &self.replaced),
        ];
        all.into_iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(kind, text)| (kind, text.clone()))
            .collect()
    }
}

/// `a, b and 3 others: why; c: why; and 3 others`.
fn sentence(all: &[(String, String)]) -> String {
    let mut by_why: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut place: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, why) in all {
        let index = *place.entry(why).or_insert(by_why.len());
        if index == by_why.len() {
            by_why.push((why, Vec::new()));
        }
        by_why[index].1.push(name);
    }
    let others = |count: usize| if count == 1 { "1 other".to_owned() } else { format!("{count} others") };
    let clause = |(why, names): &(&str, Vec<&str>)| {
        let shown = names.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
        let more = names.len().saturating_sub(NAMED_MAX);
        let more = if more > 0 { format!(" and {}", others(more)) } else { String::new() };
        format!("{shown}{more}: {why}")
    };
    let clauses: Vec<String> = by_why.iter().take(CAUSES_MAX).map(clause).collect();
    let more: usize = by_why.iter().skip(CAUSES_MAX).map(|(_, names)| names.len()).sum();
    let more = if more > 0 { format!("; and {}", others(more)) } else { String::new() };
    format!("{}{more}", clauses.join("; "))
}

/// Why a container can't be read whose log dockerd can't read: its words say what became of the log.
fn unreadable_for_dockerd(words: &str) -> (UnreadableReason, String) {
    if words.contains("no such file or directory") {
        let why = format!(
            "its log file was removed: dockerd, which is asked for it, answers {words}; what the container prints now is lost; restart \
             it, which makes a new file, and free space with log-opts (max-size), not by removing files"
        );
        return (UnreadableReason::Missing, why);
    }
    if words.contains("too many open files") {
        let why = format!(
            "dockerd can't open its log, because it has as many files open as it may: {words}; raise its limit (LimitNOFILE in \
             docker.service)"
        );
        return (UnreadableReason::Other, why);
    }
    let why = format!(
        "dockerd can't read its log, nor the newest line alone: {words}; the log is damaged, as a full disk, a power cut or \
         a killed dockerd leaves it; recreate the container, which makes a new log"
    );
    (UnreadableReason::Other, why)
}

fn containers(count: usize) -> String {
    if count == 1 { "1 running container is".to_owned() } else { format!("{count} running containers are") }
}

impl Capture {
    pub(super) fn look_at_log(&mut self, now: Now, event: &Event) {
        match event {
            Event::Scanned { stream, result: Ok(found), .. }
                if self.streams.get(stream).is_some_and(|stream| stream.source.container.is_some()) =>
            {
                self.no_logs.scanned(now, *stream, found);
            }
            Event::StillLive { stream, found } => {
                self.no_logs.scanned(now, *stream, std::slice::from_ref(found));
            }
            Event::ConnOpened { conn, result } => {
                let Some(stream) = self.conns.get(conn) else { return };
                let breaker = self.settings.container_monitor.circuit_breaker.failures;
                if self.streams.get(stream).is_some_and(|stream| stream.may_fail_too_often(breaker)) {
                    let said = match result {
                        Ok((status @ (404 | 409), body)) => Some(docker::refusal(*status, body)),
                        _ => None,
                    };
                    self.no_logs.failing.insert(*stream, said);
                } else {
                    self.no_logs.failing.remove(stream);
                }
                let Ok((status, _)) = result else { return };
                if *status == NOT_READABLE {
                    self.no_logs.refused.insert(*stream);
                } else {
                    self.no_logs.refused.remove(stream);
                }
            }
            _ => {}
        }
    }

    /// Why nothing of a container's stream can be read; `None` if it can.
    pub(super) fn no_log(&self, now: Now, stream: &Stream) -> Option<(UnreadableReason, String)> {
        stream.source.container.as_ref().filter(|_| stream.is_running())?;
        if self.no_logs.refused.contains(&stream.source.id) && matches!(stream.kind, Kind::Api(_)) {
            let driver = self.no_logs.drivers.get(&stream.source.key).map_or("?", String::as_str);
            let why = format!(
                "its logging driver {driver} keeps nothing that the Engine can read; let it log with json-file, local or journald, \
                 or without cache-disabled"
            );
            return Some((UnreadableReason::Driver, why));
        }
        if stream.keeps_ending() {
            if let Some(Some(words)) = self.no_logs.failing.get(&stream.source.id) {
                let why = format!(
                    "it runs, and for its log {words}; restart it, and dockerd if docker logs says the same of others"
                );
                return Some((UnreadableReason::Other, why));
            }
            let why = "the Engine keeps ending its log although the container runs, so its output can't be read over the \
                       API: the log has a damaged record, at which docker logs stops too, or dockerd has a problem; read \
                       its json-file (container_monitor.read_from: auto, with the right to read it), or recreate the \
                       container";
            return Some((UnreadableReason::Other, why.to_owned()));
        }
        let Kind::File(file) = &stream.kind else { return None };
        let is_gone = self.no_logs.is_gone(now, stream) && !file.is_replaced(now.mono_ms);
        is_gone.then(|| {
            let why = format!(
                "it runs, but its log {} is missing, so its output can't be read, not even by docker logs; restart the \
                 container, and free space with log-opts (max-size), not by removing files",
                file.path()
            );
            (UnreadableReason::Missing, why)
        })
    }

    /// Why a container's stream captures nothing. Of one that fails again and again its row has the failures and the pauses.
    fn not_captured(&self, now: Now, stream: &Stream) -> Option<(UnreadableReason, String)> {
        // The Engine says for each request why, and no other cause fits.
        if self.no_logs.refused.contains(&stream.source.id) {
            return self.no_log(now, stream);
        }
        let breaker = self.settings.container_monitor.circuit_breaker.failures;
        let Some(words) = stream.fails_too_often(breaker, now.mono_ms) else {
            return self.no_log(now, stream);
        };
        if matches!(&stream.kind, Kind::Api(api) if api.is_damaged()) {
            return Some(unreadable_for_dockerd(words));
        }
        let why = format!(
            "reading its log over the API failed each of the last times: {words}; docker logs should show the same; look at \
             dockerd's own log, at authorization plugins and at proxies before its socket, or read the container's file \
             (container_monitor.read_from: auto, with the right to read it)"
        );
        Some((UnreadableReason::Other, why))
    }

    /// Running containers whose logs can't be read. Where the last run read from a file that is gone now, that may have had
    /// more: this counts a possible loss.
    pub fn unread_containers(&mut self, now: Now) -> UnreadContainers {
        let mut told = UnreadContainers::default();
        let (mut faults, mut notes, mut lost, mut ended) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for unread in self.no_logs.by_key.values().filter(|unread| unread.running) {
            let named = (unread.name.clone(), unread.why.clone());
            if unread.chosen {
                notes.push(named);
            } else {
                faults.push(named);
                *told.counts.entry(UnreadableReason::Driver).or_default() += 1;
            }
        }
        for stream in self.suspects() {
            let Some((reason, why)) = self.not_captured(now, stream) else { continue };
            if !stream.is_running() {
                if stream.source.outlet.index == 0 {
                    let name = stream.source.container.as_ref().map_or("", |it| it.name.as_str());
                    ended.push((name.to_owned(), why));
                }
                continue;
            }
            if reason == UnreadableReason::Missing
                && matches!(stream.acked(), Cursor::File(_))
                && !stream.has_lines()
            {
                lost.push(stream.source.id);
            }
            if stream.source.outlet.index == 0 {
                *told.counts.entry(reason).or_default() += 1;
                let name = stream.source.container.as_ref().map_or("", |container| container.name.as_str());
                faults.push((name.to_owned(), why));
            }
        }
        for id in lost {
            if let Some((_, told @ false)) = self.no_logs.gone.get_mut(&id) {
                *told = true;
                self.metrics.possibly_lost(LossReason::FileGoneUnread);
                let lost = self.metrics.take_source_losses();
                self.note_losses_of(now, id, lost);
            }
        }
        let replaced = self.replaced_logs(now);
        if !replaced.is_empty() {
            *told.counts.entry(UnreadableReason::Missing).or_default() += replaced.len();
            told.replaced = format!(
                "Docker writes to a log that was removed or replaced ({}); what is printed is read as long as this agent runs, \
                 and is lost from its next start on; restart the container, and free space with log-opts (max-size), not \
                 by changing files",
                sentence(&replaced)
            );
        }
        if self.no_logs.drivers.values().any(|driver| driver == "local") {
            let is_local =
                |key: &StreamKey| self.no_logs.drivers.get(key).is_some_and(|driver| driver == "local");
            told.local = self.running_names(is_local);
        }
        if !self.no_logs.may_drop.is_empty() {
            told.may_drop = self.running_names(|key| self.no_logs.may_drop.contains(key));
        }
        told.count = faults.len() + notes.len();
        if !faults.is_empty() {
            told.faults = format!("{} not captured: {}", containers(faults.len()), sentence(&faults));
        }
        if !ended.is_empty() {
            *told.counts.entry(UnreadableReason::Other).or_default() += ended.len();
            let are = if ended.len() == 1 {
                "1 container that has"
            } else {
                &format!("{} containers that have", ended.len())
            };
            told.ended = format!("what {are} ended printed last can't be read: {}", sentence(&ended));
        }
        if !notes.is_empty() {
            told.notes = format!("{} not captured: {}", containers(notes.len()), sentence(&notes));
        }
        told
    }

    /// Names of running containers with a json-file that rotates and that the agent has only over the API, where nothing shows
    /// what the Engine skips.
    pub fn followed_without_files(&self) -> Vec<String> {
        let has_only_api = |stream: &Stream| match &stream.kind {
            Kind::Api(api) => !api.has_readable_files(),
            Kind::File(_) => false,
        };
        let is_one =
            |stream: &&Stream| stream.is_running() && stream.source.outlet.index == 0 && has_only_api(stream);
        let containers = self.streams.values().map(Box::as_ref).filter(is_one);
        let is_json_file = |stream: &&Stream| {
            let key = &stream.source.key;
            !self.no_logs.drivers.contains_key(key) && !self.no_logs.never_rotate.contains(key)
        };
        let name = |stream: &Stream| stream.source.container.as_ref().map(|container| container.name.clone());
        containers.filter(is_json_file).filter_map(name).collect()
    }

    /// Names of captured containers that run.
    fn running_names(&self, is_one: impl Fn(&StreamKey) -> bool) -> Vec<String> {
        let named = |stream: &Stream| {
            let is_one = stream.is_running() && stream.source.outlet.index == 0 && is_one(&stream.source.key);
            stream.source.container.as_ref().filter(|_| is_one).map(|container| container.name.clone())
        };
        self.streams.values().filter_map(|stream| named(stream)).collect()
    }

    /// Running containers whose log was removed or replaced while Docker still writes to the old file.
    fn replaced_logs(&mut self, now: Now) -> Vec<(String, String)> {
        let mut replaced = Vec::new();
        let streams = &mut self.streams;
        self.no_logs.listed.retain(|id| {
            let Some(stream) = streams.get_mut(id).map(Box::as_mut) else { return false };
            let is_named = stream.is_running() && stream.source.outlet.index == 0;
            let Kind::File(file) = &mut stream.kind else { return false };
            file.note_replaced(now.mono_ms);
            if is_named && file.is_replaced(now.mono_ms) {
                let name = stream.source.container.as_ref().map_or("", |container| container.name.as_str());
                replaced.push((name.to_owned(), file.path()));
            }
            file.may_be_replaced()
        });
        replaced
    }

    /// The few streams worth a look: those whose file is missing, and those that the Engine refuses, breaks off or keeps ending.
    fn suspects(&self) -> impl Iterator<Item = &Stream> {
        let ids: BTreeSet<StreamId> = self
            .no_logs
            .gone
            .keys()
            .chain(&self.no_logs.refused)
            .chain(self.no_logs.failing.keys())
            .copied()
            .collect();
        ids.into_iter().filter_map(|id| self.streams.get(&id).map(Box::as_ref))
    }

    /// Running containers that are captured.
    pub(super) fn captured_containers(&self, now: Now) -> usize {
        let running = self.discovery.as_ref().map_or(0, Discovery::running);
        let without = self.no_logs.by_key.values().filter(|unread| unread.running).count();
        let first = |stream: &&Stream| {
            stream.is_running() && stream.source.outlet.index == 0 && self.not_captured(now, stream).is_some()
        };
        running.saturating_sub(without + self.suspects().filter(first).count())
    }

    /// Rows for containers without a stream, so that whoever looks for one finds it.
    pub(super) fn rows_without_stream(&self) -> impl Iterator<Item = StreamRow> {
        let running = self.no_logs.by_key.iter().filter(|(_, unread)| unread.running);
        running.zip(0..).map(|((key, unread), number)| {
            let mut row = StreamRow {
                id: u32::MAX - number,
                key: Arc::clone(&key.0),
                name: unread.name.as_str().into(),
                container_id: unread.id.as_str().into(),
                sinks: self.sinks.as_slice().into(),
                state: "not captured",
                cause: unread.why.as_str().into(),
                ..StreamRow::default()
            };
            if unread.chosen {
                row.now.left_out.clone_from(&unread.why);
            }
            row
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_nothing_to_read() {
        use ReadFrom::{Api, Auto, File};
        for (driver, read_from, chosen) in [
            ("json-file", File, None),
            ("json-file", Auto, None),
            ("local", Auto, None),
            ("syslog", Api, None),
            ("none", Auto, Some(true)),
            ("none", Api, Some(true)),
            ("local", File, Some(false)),
            ("journald", File, Some(false)),
        ] {
            let told = without_log(read_from, driver);
            assert_eq!(told.as_ref().map(|(chosen, _)| *chosen), chosen, "{driver}");
            // Where the Engine could read it, the cure is to let it.
            assert!(chosen != Some(false) || told.is_some_and(|(_, why)| why.contains("to auto")));
        }
    }

    /// A removed log was called a damaged one, with a cure that throws the container away.
    #[test]
    fn what_became_of_a_log_is_told_by_the_words_of_dockerd() {
        for (words, reason, what, cure) in [
            (
                "dockerd: open /var/lib/docker/containers/x/x-json.log: no such file or directory",
                UnreadableReason::Missing,
                "its log file was removed",
                "restart it, which makes a new file",
            ),
            (
                "open /x: too many open files",
                UnreadableReason::Other,
                "as many files open as it may",
                "LimitNOFILE",
            ),
            (
                "invalid character 'x' looking for beginning of value",
                UnreadableReason::Other,
                "the log is damaged",
                "recreate the container",
            ),
        ] {
            let (told, why) = unreadable_for_dockerd(words);
            assert_eq!(told, reason, "{why}");
            assert!(why.contains(what) && why.contains(cure) && why.contains(words), "{why}");
            assert_eq!(why.contains("damaged"), what.contains("damaged"), "{why}");
        }
    }

    /// A log that was removed, and is read, stood below "Containers are not captured".
    #[test]
    fn a_title_is_true_of_its_sentence() {
        let title = |kind: Fault, text: &str| crate::telemetry::health_text::title("containers", kind, text);
        let said = |text: &str| text.to_owned();
        let replaced = "Docker writes to a log that was removed or replaced (a: /x); what is printed is read";
        let unread = UnreadContainers { replaced: said(replaced), ..UnreadContainers::default() };
        let titles = |unread: &UnreadContainers| -> Vec<String> {
            unread.wrong().iter().map(|(kind, text)| title(*kind, text)).collect()
        };
        assert_eq!(titles(&unread), ["A container's log was removed or replaced"]);
        let all = UnreadContainers {
            faults: said("1 running container is not captured: b: why"),
            ended: said("what 1 container that has ended printed last can't be read: c: why"),
            ..unread
        };
        assert_eq!(
            titles(&all),
            [
                "Containers are not captured",
                "Last lines of ended containers cannot be read",
                "A container's log was removed or replaced"
            ]
        );
    }

    #[test]
    fn the_first_are_named() {
        let all: Vec<_> = (0..7).map(|number| (number.to_string(), "x".to_owned())).collect();
        assert_eq!(sentence(&all), "0, 1, 2, 3, 4 and 2 others: x");
        assert_eq!(sentence(&all[..1]), "0: x");
        let each: Vec<_> = (0..7).map(|number| ("a".to_owned(), number.to_string())).collect();
        assert_eq!(sentence(&each), "a: 0; a: 1; a: 2; a: 3; a: 4; and 2 others");
    }

    /// Docker renames the live file when it rotates, and makes a new one.
    #[test]
    fn a_file_is_gone_after_a_while() {
        let at = |mono_ms| Now { mono_ms, unix_ns: 0 };
        let id = StreamId(1);
        let mut logs = NoLogs::default();
        logs.scanned(at(0), id, &[]);
        logs.scanned(at(5_000), id, &[]);
        assert_eq!(logs.gone.get(&id), Some(&(0, false)));
        let live = FoundFile {
            name: "x-json.log".to_owned(),
            rank: 0,
            compressed: false,
            id: crate::model::cursor::FileId::default(),
            len: 0,
            modified_ns: 0,
            head: Vec::new(),
            unpacked_len: None,
        };
        logs.scanned(at(6_000), id, &[live]);
        assert!(logs.gone.is_empty());
    }
}
