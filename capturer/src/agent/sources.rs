//! Once a second: what is to be said of sources in health and in the log, from what the core and the threads of files
//! know. Each component says which sources it is about, why, and what to do.

use std::collections::BTreeMap;

use super::turn::Loop;
use crate::capture::io::Event;
use crate::capture::look::Named;
use crate::clock::Now;
use crate::descriptors;
use crate::discover::Unmatched;
use crate::files::Hung;
use crate::metrics::UnreadableReason;
use crate::settings::shown_url;
use crate::shell::Rest;

/// What health says of files as a rule.
const FILES_WELL: &str = "all that is to be read can be read";
/// What to do about a file that can't be read.
const CURE_UNREADABLE: &str =
    "give the agent the right to read them (CAP_DAC_READ_SEARCH, a group), or leave them out (exclude)";

/// Directories that a sentence names.
const NAMED_MAX: usize = 5;

/// What was said last of each component, so that the log has it once.
#[derive(Default)]
pub(super) struct Said(BTreeMap<&'static str, bool>);

impl Said {
    /// Whether this is news: the first time that it is not well, or that it is well again.
    fn is_news(&mut self, component: &'static str, ok: bool) -> bool {
        self.0.insert(component, ok).unwrap_or(true) != ok
    }
}

impl Loop<'_> {
    /// Says what there is to say, and answers what the core must know of file systems that hang.
    pub fn look_at_sources(&mut self, now: Now) -> Vec<Event> {
        self.tell_losses(now);
        self.tell_streams(now);
        self.tell_names(now);
        self.tell_descriptors();
        self.tell_files()
    }

    /// For who looks at the log for the first time: what is captured, where it goes, and where to look.
    pub(super) fn tell_what_is_captured(&self) {
        let metrics = &self.process.metrics;
        let mut what = Vec::new();
        if self.settings.container_monitor.enabled {
            what.push(format!("{} running containers", metrics.containers_monitored.get()));
        }
        if !self.settings.file_monitor.files.is_empty() {
            what.push(format!("{} files", metrics.files_monitored.get()));
        }
        let sinks = &self.settings.sinks;
        let file = sinks.local_file.as_ref().map(|sink| sink.directory.display().to_string());
        let loki = sinks.loki.as_ref().map(|sink| format!("Loki at {}", shown_url(&sink.url)));
        let stdout = sinks.stdout.then(|| "standard output".to_owned());
        let whereto: Vec<String> = file.into_iter().chain(loki).chain(stdout).collect();
        tracing::info!(
            "captures {} into {}; what it is at: capturer top, what is wrong: capturer doctor",
            what.join(" and "),
            whereto.join(" and ")
        );
    }

    fn tell(&mut self, component: &'static str, ok: bool, message: String) {
        if self.said.is_news(component, ok) {
            if ok {
                tracing::info!(component, "{message}");
            } else {
                tracing::error!(component, "{message}");
            }
        }
        self.process.board.set_health(component, ok, message);
    }

    fn tell_losses(&mut self, now: Now) {
        self.capture.note_sink_losses(now);
        let losses = self.capture.losses();
        losses.lines(now.mono_ms).iter().for_each(|line| tracing::error!("{line}"));
        let (ok, message) = losses.health(now.mono_ms);
        self.process.board.set_health("losses", ok, message);
    }

    fn tell_streams(&mut self, now: Now) {
        let Named { count, text } = self.capture.stuck(now);
        self.process.metrics.streams_stuck.set(count as i64);
        let message = match count {
            0 => {
                let (streams, _, _) = self.capture.counts();
                format!("{streams} streams, none stuck")
            }
            _ => format!(
                "{count} streams read nothing although there is something to read: {text}. Nothing behind them holds them up, so \
                 this may be a mistake of the agent: please report it; a restart goes on from the saved positions"
            ),
        };
        self.tell("streams", count == 0, message);
    }

    fn tell_names(&mut self, now: Now) {
        if !self.settings.container_monitor.enabled {
            return self.process.board.forget_health("containers");
        }
        let (ok, message) = match self.capture.unmatched_names(now) {
            None => {
                let running = self.process.metrics.containers_monitored.get();
                (true, format!("{running} running containers are captured, as configured"))
            }
            Some(Unmatched::All(names)) => (
                false,
                format!(
                    "no container matches container_monitor.include_names ({names}), so none is captured; compare with docker ps"
                ),
            ),
            Some(Unmatched::Some(names)) => {
                (true, format!("no container matches {names} of container_monitor.include_names"))
            }
        };
        self.tell("containers", ok, message);
    }

    fn tell_descriptors(&mut self) {
        let waiting = self.shell.files_waiting();
        let limit = descriptors::limit();
        self.process.metrics.file_descriptors_limit.set(limit as i64);
        self.process.metrics.files_waiting_for_descriptors.set(waiting as i64);
        let is_full = waiting > 0 || !descriptors::is_room();
        let message = if is_full {
            format!(
                "{waiting} files wait until another is closed: of {limit} file descriptors, the limit of this process, only those \
                 are left that saving positions and answering here need. {}",
                descriptors::CURE
            )
        } else {
            let open = self.process.metrics.file_descriptors_open.get();
            format!("{open} of at most {limit} file descriptors were open at the last look; enough are free")
        };
        self.tell("descriptors", !is_full, message);
    }

    /// Names file systems that do not answer and sources that can't be read, and tells the core whom the former keep
    /// waiting.
    fn tell_files(&mut self) -> Vec<Event> {
        let mut hung = self.shell.hung();
        if self.process.something_hangs() {
            hung.extend(self.process.left_behind.iter().flat_map(Rest::hung));
        }
        let (unreadable, mut counts) = self.capture.unreadable();
        let unlistable = self.shell.unlistable();
        counts.insert(UnreadableReason::Unlistable, unlistable.len());
        for reason in UnreadableReason::ALL {
            let count = counts.get(reason).copied().unwrap_or(0);
            self.process.metrics.sources_unreadable.with_label_values(&[reason.as_str()]).set(count as i64);
        }
        let mut parts: Vec<String> = hung.iter().map(describe).collect();
        if unreadable.count > 0 {
            let Named { count, text } = unreadable;
            parts.push(format!("{count} sources can't be read: {text}; {CURE_UNREADABLE}"));
        }
        if !unlistable.is_empty() {
            let count = unlistable.len();
            let names = unlistable.into_iter().take(NAMED_MAX).collect::<Vec<_>>().join("; ");
            parts.push(format!(
                "{count} directories can't be listed, and what is in them is not read: {names}; {CURE_UNREADABLE}"
            ));
        }
        if parts.is_empty() {
            self.tell("files", true, FILES_WELL.to_owned());
        } else {
            self.tell("files", false, format!("{}; all other files go on", parts.join("; ")));
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
}

fn describe(hung: &Hung) -> String {
    let Hung { place, operation, age, cure, streams } = hung;
    let (age, waiting) = (age.as_secs(), streams.len());
    format!("{place} has not answered {operation} for {age} s ({waiting} streams wait): {cure}")
}
