//! Once a second: reports on sources to health and the log, from what the core and the threads of files know. Each
//! component says which sources are affected, why, and what to do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::faults::{Faults, Kind};
use super::turn::{LOOK_MS, Loop};
use crate::capture::core::look::{Named, UnreadableSource};
use crate::capture::discover::Unmatched;
use crate::capture::io::Event;
use crate::model::clock::Now;
use crate::model::docker::EngineFault;
use crate::settings::{Select, advice, shown_url};
use crate::shell::Rest;
use crate::shell::descriptors;
use crate::shell::files::{Hung, Unwatched};
use crate::telemetry::fault::Fault;
use crate::telemetry::losses;
use crate::telemetry::metrics::PassedOver;
use crate::telemetry::metrics::UnreadableReason;
use crate::telemetry::status::HealthState;
use crate::text::counted::{counted, named, which};
use crate::text::over::over;

/// The message of the component `files` when nothing is wrong.
const FILES_WELL: &str = "everything to be read can be read";

/// What was last seen of the disk of Docker's logs.
#[derive(Default)]
pub(super) struct DockerDisk {
    look_at_ms: u64,
    was_full: bool,
}

/// Time between two looks at the room on Docker's disk.
const DISK_MS: u64 = 5_000;

/// What was last reported of each component, so that the log has the beginning and the end of each fault once.
#[derive(Default)]
pub(super) struct Said(BTreeMap<(&'static str, About), Reported>);

/// A fault of one component that was reported.
struct Reported {
    since_ms: u64,
    what: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum About {
    /// Whether the component is well, and why not.
    Health,
    /// Something worth reading although the component is well.
    Note,
}

/// What is new to the log.
#[derive(Debug, PartialEq, Eq)]
enum FaultChange {
    None,
    Begins,
    /// The fault is over, with the line that says so.
    Ends(String),
}

impl Said {
    /// Compares a component's fault, if it has one, with what was last reported.
    fn news(&mut self, now_ms: u64, of: (&'static str, About), fault: Option<&str>) -> FaultChange {
        match (fault, self.0.contains_key(&of)) {
            (Some(message), false) => {
                let what = message.split([';', ':']).next().unwrap_or_default().to_owned();
                self.0.insert(of, Reported { since_ms: now_ms, what });
                FaultChange::Begins
            }
            (None, true) => {
                let fault = self.0.remove(&of);
                let told = fault
                    .map(|Reported { since_ms, what }| over(now_ms.saturating_sub(since_ms) / 1000, &what));
                told.map_or(FaultChange::None, FaultChange::Ends)
            }
            _ => FaultChange::None,
        }
    }
}

impl Loop<'_> {
    /// Reports everything, and returns the events that tell the core of file systems that hang.
    pub fn look_at_sources(&mut self, now: Now) -> Vec<Event> {
        self.tell_losses(now);
        let (waiting, short) = self.tell_descriptors(now);
        self.tell_streams(now, short);
        let unread = self.tell_containers(now);
        self.tell_pipelines(now);
        let mut events = self.tell_files(now, unread);
        events.extend((waiting > 0).then_some(Event::DescriptorsRanOut { files: waiting }));
        events
    }

    /// Logs what is captured, where it goes and where to look, for somebody who runs the agent for the first time.
    pub(super) fn tell_what_is_captured(&self) {
        let metrics = &self.process.metrics;
        let mut what = Vec::new();
        if self.settings.container_monitor.enabled {
            let trouble = self.capture.docker_trouble().flatten();
            // Without events lists find them.
            let trouble = trouble.filter(|trouble| trouble.fault != EngineFault::EventsRefused);
            what.push(match trouble {
                None => counted(metrics.containers_monitored.get() as u64, "running container"),
                Some(_) => "containers, once Docker answers (it does not yet)".to_owned(),
            });
        }
        if !self.settings.file_monitor.files.is_empty() {
            what.push(format!("{} of file_monitor", counted(metrics.files_monitored.get() as u64, "file")));
        }
        let sinks = &self.settings.sinks;
        let file = sinks.local_file.as_ref().map(|sink| format!("files in {}", sink.directory.display()));
        let loki = sinks.loki.as_ref().map(|sink| format!("Loki at {}", shown_url(&sink.url)));
        let stdout = sinks.stdout.then(|| "standard output".to_owned());
        let whereto: Vec<String> = file.into_iter().chain(loki).chain(stdout).collect();
        let look = match self.process.admin {
            Some(address) => {
                let url = self.settings.admin.url(address);
                // With TLS, a token or a socket, an address alone does not open the door.
                let with = match self.settings.admin.is_plain() {
                    true => format!("--admin {address}"),
                    false => "-c and the config file".to_owned(),
                };
                format!("watch it at {url} or with capturer top {with}")
            }
            None => "admin.listen is empty, so there is no way to watch it".to_owned(),
        };
        tracing::info!(
            "capturing {} into {}; {look}; run capturer doctor to check this machine",
            what.join(" and "),
            whereto.join(" and ")
        );
    }

    /// Sets a component's state. A warning is a fault that neither loses nor delays a line.
    fn tell(&mut self, now: Now, component: &'static str, state: HealthState, message: String) {
        self.tell_kinds(now, component, (state, &[Fault::Usual]), message);
    }

    /// The same of a component that can have several faults.
    fn tell_kinds(
        &mut self,
        now: Now,
        component: &'static str,
        (state, kinds): (HealthState, &[Fault]),
        message: String,
    ) {
        let fault = (state != HealthState::Well).then_some(message.as_str());
        match self.said.news(now.mono_ms, (component, About::Health), fault) {
            // `Status` logs the end of a fault.
            FaultChange::None | FaultChange::Ends(_) => {}
            FaultChange::Begins if state == HealthState::Warning => tracing::warn!(component, "{message}"),
            FaultChange::Begins => tracing::error!(component, "{message}"),
        }
        self.process.status.set_faults(component, state, kinds, message);
    }

    /// As `tell`, for a note; `None` = there is no note any more.
    fn log_note(&mut self, now: Now, component: &'static str, note: Option<&str>) {
        match self.said.news(now.mono_ms, (component, About::Note), note) {
            FaultChange::None => {}
            FaultChange::Ends(over) => tracing::info!(component, "{over}"),
            FaultChange::Begins => tracing::warn!(component, "{}", note.unwrap_or_default()),
        }
    }

    fn tell_losses(&mut self, now: Now) {
        self.capture.note_sink_losses(now);
        let losses = self.capture.losses();
        for (state, line) in losses.lines(now.mono_ms) {
            if state == losses::LossState::Loss {
                tracing::error!("{line}");
            } else {
                tracing::warn!("{line}");
            }
        }
        let (state, message) = losses.health(now.mono_ms);
        match state {
            losses::LossState::Doubt => self.process.status.set_note("losses", message),
            losses::LossState::Well => self.process.status.set_health("losses", true, message),
            losses::LossState::Loss => {
                self.process.status.set_faults("losses", HealthState::Bad, &[Fault::Lost], message);
            }
        }
    }

    /// `short`: descriptors are short, so files may wait for one.
    fn tell_streams(&mut self, now: Now, short: bool) {
        let is_docker_full = self.shell.full_docker_disk().is_some();
        let Named { count, text } = self.capture.stuck(now, short, is_docker_full);
        self.process.metrics.streams_stuck.set(count as i64);
        let message = match count {
            0 => {
                let (streams, _, _) = self.capture.counts();
                format!("{}, none stuck", counted(streams, "stream"))
            }
            _ => format!(
                "{} {} nothing although there is something to read: {text}. No sink holds them up, so \
                 this may be a bug in the agent: please report it; a restart resumes from the saved positions",
                counted(count as u64, "stream"),
                which(count as u64, "reads", "read")
            ),
        };
        let state = if count == 0 { HealthState::Well } else { HealthState::Bad };
        self.tell(now, "streams", state, message);
    }

    /// Reports which containers are captured, which are not although they should be, and which names match none.
    /// Returns how many can't be read, by reason.
    fn tell_containers(&mut self, now: Now) -> BTreeMap<UnreadableReason, usize> {
        if !self.settings.container_monitor.enabled {
            self.process.status.forget_health("containers");
            return BTreeMap::new();
        }
        let unread = self.capture.unread_containers(now);
        let unmatched = self.capture.unmatched_names(now);
        let well = super::turn::captured(self.process.metrics.containers_monitored.get() as u64);
        let disk = self.look_at_docker_disk(now).map(|text| (Fault::DockerDiskFull, text));
        let (mut kinds, faults): (Vec<Fault>, Vec<String>) = disk.into_iter().chain(unread.wrong()).unzip();
        let (mut notes, mut warnings) = (Vec::new(), Vec::new());
        let hint = regex_hint(&self.settings.container_monitor.select);
        match unmatched {
            None => {}
            // A typo, or containers that do not run yet: no line is lost.
            Some(Unmatched::All(names)) => {
                warnings.push(format!(
                    "no container matches {names}, so none is captured; compare with docker ps{hint}"
                ));
            }
            Some(Unmatched::Some(names)) => {
                notes.push(format!("no container matches {names}{hint}"));
            }
        }
        kinds.extend((!warnings.is_empty()).then_some(Fault::NoContainerMatches));
        notes.extend(Some(unread.notes).filter(|text| !text.is_empty()));
        notes.extend(self.skipped_by_docker(&unread.local));
        notes.extend(self.skipped_without_files());
        if !unread.may_drop.is_empty() {
            let are = counted(unread.may_drop.len() as u64, "container");
            let told = advice::dropped_by_docker(&are, &named(unread.may_drop.into_iter()));
            notes.push(format!("{told}. {}", advice::DROPPED_BY_DOCKER.trim_end_matches('.')));
        }
        let state = match (faults.is_empty(), warnings.is_empty()) {
            (false, _) => HealthState::Bad,
            (true, false) => HealthState::Warning,
            (true, true) => HealthState::Well,
        };
        if state == HealthState::Well && !notes.is_empty() {
            self.tell_note(now, "containers", format!("{}; {well}", notes.join("; ")));
            return unread.counts;
        }
        self.log_note(now, "containers", None);
        let message = match state {
            HealthState::Well => format!("{well}, as configured"),
            _ => {
                let all = faults.into_iter().chain(warnings).chain(notes);
                format!("{}; {well}", all.collect::<Vec<_>>().join("; "))
            }
        };
        self.tell_kinds(now, "containers", (state, &kinds), message);
        unread.counts
    }

    /// Containers whose lines Docker's own follow skips, which nothing in its answers shows.
    fn skipped_by_docker(&self, local: &[String]) -> Option<String> {
        let (are, names) = (counted(local.len() as u64, "container"), named(local.iter().cloned()));
        let told = advice::skipped_by_docker(&are, &names);
        (!local.is_empty()).then(|| format!("{told}. {}", advice::SKIPPED_BY_DOCKER.trim_end_matches('.')))
    }

    /// Why Docker can't write its logs any more, if that is so.
    fn look_at_docker_disk(&mut self, now: Now) -> Option<String> {
        if now.mono_ms >= self.docker_disk.look_at_ms {
            self.docker_disk.look_at_ms = now.mono_ms + DISK_MS;
            // Whoever frees room may remove every container that is read.
            let full = self.shell.full_docker_disk().map(|(directory, _)| Arc::clone(directory));
            if let Some(directory) = self.capture.docker_logs_directory().or(full) {
                self.shell.look_for_room(directory);
            }
        }
        let full = self.shell.full_docker_disk();
        let was_full = std::mem::replace(&mut self.docker_disk.was_full, full.is_some());
        let (directory, free) = full?;
        let text = format!(
            "Docker's disk is full ({free} at {directory}): what containers print now does not reach their logs and is \
             lost, and nobody can count it. Free some room (df -h {directory} shows it, docker system df what Docker \
             takes, docker image prune removes unused images), and bound the logs with max-size and max-file"
        );
        if !was_full {
            self.capture.note_docker_disk_full(now);
        }
        Some(text)
    }

    /// As [`Loop::skipped_by_docker`], of json-files that the agent can't read, so that it has only the follow.
    fn skipped_without_files(&self) -> Option<String> {
        let names = self.capture.followed_without_files();
        let are = counted(names.len() as u64, "container");
        let told = advice::skipped_without_files(&are, &named(names.iter().cloned()));
        (!names.is_empty())
            .then(|| format!("{told}. {}", advice::SKIPPED_WITHOUT_FILES.trim_end_matches('.')))
    }

    fn tell_pipelines(&mut self, now: Now) {
        if self.settings.pipelines.is_empty() {
            return self.process.status.forget_health("pipelines");
        }
        let unused = self.tell_unused_pipelines(now);
        let drops = self.process.metrics.pipeline_drops();
        for text in self.pipelines.begin_to_limit(&drops) {
            tracing::warn!(component = "pipelines", "{text}");
        }
        let said = self.pipelines.look(now.mono_ms, &drops);
        self.log_note(now, "pipelines", said.note.then_some(&*said.text));
        let is_note = said.note || !unused.is_empty();
        let texts = unused.into_iter().chain(Some(said.text)).filter(|text| !text.is_empty());
        let text = texts.collect::<Vec<_>>().join("; ");
        if is_note {
            self.process.status.set_note("pipelines", text);
        } else {
            self.process.status.set_health("pipelines", true, text);
        }
    }

    /// A sentence for each pipeline that takes no source. The log has one line when that begins and one when it ends.
    fn tell_unused_pipelines(&mut self, now: Now) -> Vec<String> {
        if !self.capture.is_ready() {
            return Vec::new();
        }
        let capture = &self.capture;
        let said = self.unused.look(now.mono_ms, &self.settings, |name| capture.is_used(name));
        for text in said.begin {
            tracing::warn!(component = "pipelines", "{text}");
        }
        for (name, seconds) in said.end {
            let text = over(seconds, &format!("pipeline {name} took nothing"));
            tracing::info!(component = "pipelines", "{text}");
        }
        said.texts
    }

    /// Sets a note: the component is well, but health and log have something to read.
    fn tell_note(&mut self, now: Now, component: &'static str, message: String) {
        self.log_note(now, component, Some(&message));
        self.said.news(now.mono_ms, (component, About::Health), None);
        self.process.status.set_note(component, message);
    }

    /// Reports on descriptors, and returns how many files wait for one, and whether they are short.
    fn tell_descriptors(&mut self, now: Now) -> (usize, bool) {
        let waiting = self.shell.files_waiting();
        let limit = descriptors::limit();
        self.process.metrics.file_descriptors_limit.set(limit as i64);
        self.process.metrics.files_waiting_for_descriptors.set(waiting as i64);
        let is_full = waiting > 0 || !descriptors::is_room();
        let message = if is_full {
            format!(
                "{} {} until another is closed: this process may have {limit} file descriptors, and the last ones \
                 are reserved for saving positions and for the admin server. Raise the limit and restart: {}; or follow fewer files",
                counted(waiting as u64, "file"),
                which(waiting as u64, "waits", "wait"),
                descriptors::HOW
            )
        } else {
            let open = self.process.metrics.file_descriptors_open.get();
            format!("{open} of at most {limit} file descriptors were open at the last look; enough are free")
        };
        let state = match (is_full, waiting) {
            (false, _) => HealthState::Well,
            // The reserve is in use, but no file waits yet.
            (true, 0) => HealthState::Warning,
            (true, _) => HealthState::Bad,
        };
        self.tell(now, "descriptors", state, message);
        (waiting, is_full)
    }

    /// Reports faults of files, and tells the core which streams wait for a file system that hangs.
    fn tell_files(&mut self, now: Now, of_containers: BTreeMap<UnreadableReason, usize>) -> Vec<Event> {
        let mut hung = self.shell.hung();
        if self.process.something_hangs() {
            hung.extend(self.process.left_behind.iter().flat_map(Rest::hung));
        }
        let (unreadable, mut counts) = self.capture.unreadable();
        let mut by_kind: BTreeMap<Kind, usize> = BTreeMap::new();
        for (reason, count) in &counts {
            *by_kind.entry(Kind::of(*reason)).or_default() += count;
        }
        let (not_text, more, left_out) = self.capture.not_text();
        let mut passed = self.capture.passed_over();
        passed.insert(PassedOver::Binary, left_out);
        counts.extend(more);
        counts.extend(of_containers);
        let walks = self.shell.walks();
        let sets = &self.settings.file_monitor.files;
        let patterns = self.patterns.look(now.mono_ms, sets, &walks);
        counts.insert(UnreadableReason::Unlistable, patterns.unlistable.len());
        *counts.entry(UnreadableReason::Other).or_default() += patterns.failing.len();
        for reason in UnreadableReason::ALL {
            let count = counts.get(reason).copied().unwrap_or(0);
            self.process.metrics.sources_unreadable.with_label_values(&[reason.as_str()]).set(count as i64);
        }
        for reason in PassedOver::ALL {
            let of_walks = patterns.passed.get(reason).copied().unwrap_or(0);
            let count = of_walks + passed.get(reason).copied().unwrap_or(0);
            self.process.metrics.paths_passed_over.with_label_values(&[reason.as_str()]).set(count as i64);
        }
        self.process.metrics.patterns_unmatched.set(patterns.unmatched.len() as i64);
        let mut faults = Faults::default();
        for hung in &hung {
            faults.add(Kind::Hung, hung.place.clone(), describe(hung));
        }
        for UnreadableSource { reason, whose, why } in unreadable {
            let text = format!("{whose}: {why}");
            match reason {
                UnreadableReason::Permission => faults.add_denied(whose, text),
                reason => faults.add(Kind::of(reason), text.clone(), text),
            }
        }
        by_kind.into_iter().for_each(|(kind, count)| faults.count(kind, count));
        for (as_meant, text) in not_text {
            faults.add(if as_meant { Kind::LeftOut } else { Kind::NotText }, text.clone(), text);
        }
        patterns.unlistable.into_iter().for_each(|text| faults.add(Kind::Unlistable, text.clone(), text));
        patterns.failing.into_iter().for_each(|text| faults.add(Kind::Failing, text.clone(), text));
        for (pattern, text) in patterns.unmatched {
            faults.add(Kind::Unmatched, pattern, text);
        }
        for (pattern, text) in patterns.unmatched_yet {
            faults.add(Kind::UnmatchedYet, pattern, text);
        }
        self.add_unwatched(patterns.unwatched, &mut faults);
        self.files_said.tell(now.mono_ms, &faults);
        match (faults.state(), faults.health()) {
            // The log has a line for the end of each, too.
            (HealthState::Well, Some(note)) => drop(self.process.status.put_note("files", note)),
            (state, message) => {
                // The log has a line for each of them.
                let message = message.unwrap_or_else(|| FILES_WELL.to_owned());
                let _ = self.process.status.put("files", state, &faults.kinds(), message);
            }
        }
        let told = hung.into_iter().flat_map(|Hung { place, operation, streams, .. }| {
            streams.into_iter().map(move |stream| Event::FileHung {
                stream,
                place: place.clone(),
                operation: operation.clone(),
            })
        });
        told.collect()
    }

    /// Counts the directories that inotify does not watch, and says what that costs. `unwatched` are those of walks.
    fn add_unwatched(&self, mut unwatched: BTreeSet<u64>, faults: &mut Faults) {
        let of_streams = self.shell.unwatched();
        let denied = of_streams.values().filter(|why| **why == Unwatched::Denied).count();
        // A walk and the streams of its files may want the same one.
        unwatched.extend(of_streams.values().filter_map(|why| match why {
            Unwatched::Other(directory) => Some(directory),
            Unwatched::Denied => None,
        }));
        let unwatched = unwatched.len();
        self.process.metrics.directories_unwatched.set((unwatched + denied) as i64);
        if unwatched > 0 {
            let what = if self.shell.has_inotify() { "watches" } else { "instances" };
            let sweep = std::time::Duration::from_millis(self.capture.sweep_interval_ms());
            let sweep = humantime::format_duration(sweep);
            let text = format!(
                "{unwatched} {} not watched, because inotify's limit is reached: new files there are found within \
                 {sweep}. Raise the limit: sysctl -w fs.inotify.max_user_{what}=1048576",
                which(unwatched as u64, "directory is", "directories are")
            );
            faults.add(Kind::Unwatched, String::new(), text);
        }
        if denied > 0 {
            let text = format!(
                "{denied} {} in directories that this user may enter and not list, so inotify can't watch them: what is rotated \
                 there twice within {} s, or while the agent is down, is not read. Give the agent's user the right to list them \
                 (chmod o+r, or an ACL)",
                which(denied as u64, "log is", "logs are"),
                LOOK_MS / 1000
            );
            faults.add(Kind::UnwatchedDenied, String::new(), text);
        }
    }
}

/// A hint for somebody who wrote a regular expression where a pattern is expected.
fn regex_hint(select: &Select) -> String {
    let patterns =
        select.include_names.iter().chain(&select.include_images).chain(select.include_labels.values());
    let is_regex = patterns.map(glob::Pattern::as_str).any(advice::looks_like_regex);
    if is_regex { format!("; {}", advice::NO_REGEX) } else { String::new() }
}

fn describe(hung: &Hung) -> String {
    let Hung { place, operation, age, cure, streams } = hung;
    let (age, waiting) = (age.as_secs(), streams.len() as u64);
    let waiting = format!("{} {}", counted(waiting, "stream"), which(waiting, "waits", "wait"));
    format!("{place} has not answered {operation} for {age} s ({waiting}): {cure}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_wrote_a_regular_expression_is_told_that_it_is_none() {
        let of = |pattern: &str| {
            let include_names = vec![glob::Pattern::new(pattern).expect("a pattern")];
            regex_hint(&Select { include_names, ..Select::default() })
        };
        assert_eq!(of("wbe-2"), "");
        assert!(of("^web-.*$").contains("not regular expressions"));
    }

    #[test]
    fn the_log_has_the_beginning_and_the_end_of_a_fault_once() {
        let mut said = Said::default();
        let of = ("descriptors", About::Health);
        assert_eq!(said.news(1_000, of, None), FaultChange::None);
        assert_eq!(said.news(2_000, of, Some("4 files wait")), FaultChange::Begins);
        assert_eq!(said.news(3_000, of, Some("5 files wait")), FaultChange::None);
        assert_eq!(said.news(3_000, ("descriptors", About::Note), Some("1 note; more")), FaultChange::Begins);
        let ends = "over after 12 s: 4 files wait".to_owned();
        assert_eq!(said.news(14_500, of, None), FaultChange::Ends(ends));
        assert_eq!(said.news(15_000, of, None), FaultChange::None);
        let ends = "over after 9 s: 1 note".to_owned();
        assert_eq!(said.news(12_000, ("descriptors", About::Note), None), FaultChange::Ends(ends));
    }
}
