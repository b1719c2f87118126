//! Losses as a state: what was lost in the last ten minutes, from which source, for which sinks, why, and what to do so
//! that it does not happen again. A counter that rose is seen only by somebody who looks at the right moment; `/health`
//! and `top` show this long enough.
//!
//! Possible losses are shown as well, but only as a note. Nobody knows whether anything is missing, so nobody is woken;
//! the note says where to look, and what to change so that the next time it is known.
//!
//! The log has a line for the first loss of a source and reason, then one per minute with their sum. Pure.

use std::collections::BTreeMap;

use crate::model::rotated_name::UNREAD_ARCHIVES;
use crate::telemetry::metrics::LossReason;
use crate::text::age::age_text;
use crate::text::counted::amount;

/// How long health shows a loss.
pub const SHOWN_MS: u64 = 10 * 60_000;
/// Losses may continue until this many seconds after the last one.
const GOES_ON_S: u64 = 60;
/// Time between two log lines about the same loss.
const LINE_EVERY_MS: u64 = 60_000;
/// So many sources are listed by name; further ones share an entry.
const ENTRIES_MAX: usize = 1_000;
/// Up to this many sources that lost something for the same reason have a log line each.
const LINES_MAX: usize = 3;
/// Entries that health names.
const NAMED_MAX: usize = 5;
/// Stands for sources past [`ENTRIES_MAX`].
const OTHERS: &str = "other sources";

/// The source and the reason of a loss.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    source: String,
    sinks: String,
    reason: LossReason,
    possible: bool,
    /// Name of an archive that may have the lost lines.
    archive: Option<String>,
}

/// The sum of several losses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    losses: u64,
    bytes: u64,
    /// The bytes of some of them are unknown.
    unknown: bool,
    /// Reading waited for a sink when it happened.
    sink_waited: bool,
}

#[derive(Debug, Default)]
struct Entry {
    shown: Sum,
    last_ms: u64,
    /// Not logged yet.
    unsaid: Sum,
    said_ms: Option<u64>,
}

/// One or several losses of the same source and reason.
#[derive(Clone, Copy, Debug)]
pub struct Loss<'a> {
    /// For people: `container web-1`, `file /var/log/a.log`, or empty if only the sink is known.
    pub source: &'a str,
    /// Sinks that did not get it.
    pub sinks: &'a str,
    /// Why it was lost.
    pub reason: LossReason,
    /// Nobody can know whether anything was lost.
    pub possible: bool,
    pub losses: u64,
    /// Bytes of all of them; 0 = unknown.
    pub bytes: u64,
    /// Reading waited when it happened, because a sink took nothing.
    pub sink_waited: bool,
    /// Name of a file beside the log that may have the lost lines: an archive that can't be read, or a file that only
    /// its place marks as rotated.
    pub archive: Option<&'a str>,
}

/// Recent losses; see the head of this file.
#[derive(Debug, Default)]
pub struct Losses {
    entries: BTreeMap<Key, Entry>,
}

impl Sum {
    fn add(&mut self, loss: &Loss<'_>) {
        self.losses += loss.losses;
        self.bytes += loss.bytes;
        self.unknown |= loss.bytes == 0;
        self.sink_waited |= loss.sink_waited;
    }

    fn amount(&self) -> String {
        let bytes = match (self.bytes, self.unknown) {
            (0, _) => "an unknown number of bytes".to_owned(),
            (bytes, true) => format!("{} and an unknown number of others", amount(bytes)),
            (bytes, false) => amount(bytes),
        };
        if self.losses == 1 { bytes } else { format!("{bytes} in {} losses", self.losses) }
    }
}

/// The worst that happened lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LossState {
    /// Nothing was lost.
    Well,
    /// Something may have been lost; nobody can know.
    Doubt,
    /// Something was lost.
    Loss,
}

impl Key {
    fn state(&self) -> LossState {
        if self.possible { LossState::Doubt } else { LossState::Loss }
    }

    /// Advice that differs from the usual one: an operator can't choose how Docker rotates its logs.
    fn other_cure(&self) -> Option<String> {
        if let Some(archive) = &self.archive {
            if !UNREAD_ARCHIVES.iter().any(|ending| archive.ends_with(ending)) {
                return Some(format!(
                    "it may be in {archive}, which is not read, because its name is not recognized as that of a rotated \
                     file: rotate to names like app.log.1, app.log-20261125 or app-2026-11-25.log, or let a pattern match it"
                ));
            }
            return Some(format!(
                "it may be in the archive {archive}, which is not read, because only .gz is: let logrotate compress one \
                 rotation later (delaycompress) or with gzip"
            ));
        }
        let of_container = match self.reason {
            _ if !self.source.starts_with("container ") => None,
            LossReason::FileTruncated => {
                Some("leave Docker's log files alone: max-size and max-file bound them")
            }
            // dockerd writes every line of such a file.
            LossReason::RecordDamaged => {
                Some("dockerd did not write it whole: look for a full disk, a killed dockerd or a power cut")
            }
            _ => None,
        };
        of_container.map(str::to_owned)
    }

    fn sentence(&self, sum: &Sum) -> String {
        self.sentence_with(sum, self.other_cure())
    }

    fn sentence_with(&self, sum: &Sum, other_cure: Option<String>) -> String {
        if self.possible {
            let times = if sum.losses == 1 { String::new() } else { format!(", {} times", sum.losses) };
            let (what, cure) = doubt(self.reason);
            let cure = other_cure.as_deref().unwrap_or(cure);
            let of = if self.source.is_empty() { String::new() } else { format!(" of {}", self.source) };
            let (sinks, reason) = (&self.sinks, self.reason.as_str());
            return format!("may be lost for {sinks}: {what}{of} ({reason}{times}); {cure}");
        }
        let amount = sum.amount();
        let of = if self.source.is_empty() { String::new() } else { format!(" of {}", self.source) };
        let waited = if sum.sink_waited {
            " while a sink accepted nothing: its outage lasted longer than the log is kept"
        } else {
            ""
        };
        let (reason, cure) = (self.reason.as_str(), other_cure.as_deref().unwrap_or(cure(self.reason)));
        let why = if self.reason == LossReason::SpoolFull { " because the spool was full" } else { "" };
        format!("lost for {}: {amount}{of}{why} ({reason}){waited}; {cure}", self.sinks)
    }
}

impl Losses {
    /// Adds a loss.
    pub fn note(&mut self, now_ms: u64, loss: Loss<'_>) {
        let mut key = Key {
            source: loss.source.to_owned(),
            sinks: loss.sinks.to_owned(),
            reason: loss.reason,
            possible: loss.possible,
            archive: loss.archive.map(str::to_owned),
        };
        if self.entries.len() >= ENTRIES_MAX && !self.entries.contains_key(&key) {
            OTHERS.clone_into(&mut key.source);
            key.archive = None;
        }
        let entry = self.entries.entry(key).or_default();
        entry.shown.add(&loss);
        entry.unsaid.add(&loss);
        entry.last_ms = now_ms;
    }

    /// Log lines that are due: one per source, or one for all sources of a reason if there are many. Forgets old
    /// losses.
    pub fn lines(&mut self, now_ms: u64) -> Vec<(LossState, String)> {
        let mut due: BTreeMap<Cause<'_>, Vec<(&Key, Sum)>> = BTreeMap::new();
        for (key, entry) in &mut self.entries {
            let is_due = entry.said_ms.is_none_or(|said| now_ms >= said + LINE_EVERY_MS);
            if entry.unsaid.losses > 0 && is_due {
                let cause = (key.sinks.as_str(), key.reason, key.possible, key.other_cure());
                due.entry(cause).or_default().push((key, std::mem::take(&mut entry.unsaid)));
                entry.said_ms = Some(now_ms);
            }
        }
        let mut lines = Vec::new();
        for of_cause in due.values() {
            if of_cause.len() > LINES_MAX {
                lines.push(together(of_cause));
            } else {
                lines.extend(of_cause.iter().map(|(key, sum)| (key.state(), key.sentence(sum))));
            }
        }
        self.entries.retain(|_, entry| entry.unsaid.losses > 0 || now_ms < entry.last_ms + SHOWN_MS);
        lines
    }

    /// The state, and a message about what was or may be lost.
    pub fn health(&self, now_ms: u64) -> (LossState, String) {
        let mut shown: Vec<_> =
            self.entries.iter().filter(|(_, entry)| now_ms < entry.last_ms + SHOWN_MS).collect();
        if shown.is_empty() {
            return (LossState::Well, format!("nothing was lost in the last {} minutes", SHOWN_MS / 60_000));
        }
        // Certain losses first, then the latest.
        shown.sort_by_key(|(key, entry)| std::cmp::Reverse((key.state(), entry.last_ms)));
        let worst = shown.first().map_or(LossState::Well, |(key, _)| key.state());
        let headline = headline(&shown, now_ms);
        let more = shown.len().saturating_sub(NAMED_MAX);
        let named = shown.into_iter().take(NAMED_MAX).map(|(key, entry)| key.sentence(&entry.shown));
        let mut text = headline.into_iter().chain(named).collect::<Vec<_>>().join("; ");
        if more > 0 {
            text += &format!("; and {more} more, see the log");
        }
        (worst, text)
    }
}

/// Whether lines are still being lost, and how much so far; `None` = nothing is known to be lost.
fn headline(shown: &[(&Key, &Entry)], now_ms: u64) -> Option<String> {
    let known = || shown.iter().filter(|(key, _)| key.state() == LossState::Loss).map(|(_, entry)| entry);
    let last_ms = known().map(|entry| entry.last_ms).max()?;
    let bytes: u64 = known().map(|entry| entry.shown.bytes).sum();
    let so_far = if bytes == 0 { String::new() } else { format!(": {}", amount(bytes)) };
    let age_s = now_ms.saturating_sub(last_ms) / 1000;
    Some(match age_s {
        0..GOES_ON_S => format!("lines are being lost{so_far} in the last {} minutes", SHOWN_MS / 60_000),
        _ => format!("lines were lost{so_far}, {} ago", age_text(age_s)),
    })
}

/// Sinks, reason, whether the loss is only possible, and advice other than the usual one.
type Cause<'a> = (&'a str, LossReason, bool, Option<String>);

/// The losses of several sources for one reason.
fn together(of_cause: &[(&Key, Sum)]) -> (LossState, String) {
    let mut sum = Sum::default();
    for (_, other) in of_cause {
        sum.losses += other.losses;
        sum.bytes += other.bytes;
        sum.unknown |= other.unknown;
        sum.sink_waited |= other.sink_waited;
    }
    let named: Vec<&str> = of_cause.iter().take(LINES_MAX).map(|(key, _)| key.source.as_str()).collect();
    let more = of_cause.len() - named.len();
    let source = format!("{} sources ({} and {more} more)", of_cause.len(), named.join(", "));
    let (first, _) = of_cause[0];
    let all = Key { source, ..first.clone() };
    (all.state(), all.sentence_with(&sum, first.other_cure()))
}

/// How Docker's disk does not fill up.
const KEEP_ROOM: &str = "keep room on Docker's disk: bound its logs (max-size, max-file) and remove unused images (docker system df, docker image prune)";

/// What may be lost, and what to change so that the next time it is known.
fn doubt(reason: LossReason) -> (&'static str, &'static str) {
    match reason {
        LossReason::FileTruncated => (
            "what was written just before the truncation or rewrite of the log",
            "rotate by renaming (logrotate: create) instead of copytruncate",
        ),
        LossReason::FileUnreadable => (
            "what stood in a rotated file that could not be read and is gone, or is left behind by its log,",
            "give the agent's user the right to read rotated files (logrotate: create, or a default ACL), or see what the disk \
             says (dmesg)",
        ),
        LossReason::FileNeverOpened => (
            "the content of files that were removed before they could be opened,",
            "let a file stay for a tenth of a second, or let its program write to one file that stays",
        ),
        LossReason::DockerDiskFull => {
            ("what containers printed while Docker's disk was full, which never reached a log,", KEEP_ROOM)
        }
        LossReason::EngineSkippedRotation => (
            "what Docker's follow skipped of a rotated log just before its container was removed",
            "read from the files (container_monitor.read_from: auto, with the right to read them), or keep more of the log \
             (max-size)",
        ),
        LossReason::ContainerGoneUnread => (
            "what was printed after the last read",
            "remove containers no sooner than a second after they end, and only while the agent runs",
        ),
        LossReason::SpoolDamaged => (
            "undelivered lines in the spool, because the spool was removed or its last record is incomplete",
            "leave data_dir alone (the log says what was found)",
        ),
        _ => (
            "what was written after the last read, before a file disappeared,",
            "keep more of the log (Docker: max-size times max-file), and remove files while the agent runs; if nothing was \
             removed, keep rotated files beside the log (no olddir in logrotate) or let a pattern match them",
        ),
    }
}

/// What to do so that it does not happen again.
fn cure(reason: LossReason) -> &'static str {
    match reason {
        LossReason::FileGoneUnread => {
            "keep more of the log (Docker: max-size times max-file), or repair the sink that reading waits for"
        }
        LossReason::FileUnreadable => {
            "give the agent's user the right to read rotated files (logrotate: create, or a default ACL), or see what the disk \
             says (dmesg)"
        }
        LossReason::FileTruncated => "rotate by renaming (logrotate: create) instead of copytruncate",
        LossReason::EngineSkippedRotation => {
            "read from the files (container_monitor.read_from: file, with the right to read them), or keep more of the log \
             (max-size)"
        }
        LossReason::RecordDamaged => {
            "check for a full disk, a crash of the host, or a format in file_monitor that does not fit this file"
        }
        LossReason::DockerDiskFull => KEEP_ROOM,
        LossReason::FileNeverOpened => "let a file stay for a tenth of a second",
        LossReason::RecordTooLong => "let the program write shorter lines",
        LossReason::ArchiveDamaged => "check for a full disk or a crash of the host",
        LossReason::DeletedOpenLimit => {
            "raise limits.deleted_open_bytes_max, or repair the sink that reading waits for"
        }
        LossReason::ContainerGoneUnread => {
            "the container was removed before it could be read: let it run a second longer, or remove it later instead \
             of using --rm"
        }
        LossReason::SpoolDamaged => "leave data_dir alone while the agent runs, or check its disk for errors",
        LossReason::SpoolFull => "raise sinks.loki.spool.max_size, or set spool.when_full: wait",
        LossReason::SpoolTooOld => "raise sinks.loki.spool.max_age",
        LossReason::DeadLettersFull => {
            "deliver or remove dead letters (capturer dead-letters), or keep more of them"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(source: &str, bytes: u64) -> Loss<'_> {
        let reason = LossReason::DeletedOpenLimit;
        Loss {
            source,
            sinks: "local_file",
            reason,
            possible: false,
            losses: 1,
            bytes,
            sink_waited: false,
            archive: None,
        }
    }

    #[test]
    fn health_is_unwell_for_ten_minutes_and_says_what_to_raise() {
        let mut losses = Losses::default();
        assert_eq!(losses.health(0).0, LossState::Well);
        losses.note(1_000, loss("container web", 7));
        let (state, text) = losses.health(1_000 + SHOWN_MS - 1);
        assert_eq!(state, LossState::Loss);
        assert_eq!(
            text,
            "lines were lost: 7 bytes, 9 min ago; lost for local_file: 7 bytes of container web (deleted_open_limit); raise \
             limits.deleted_open_bytes_max, or repair the sink that reading waits for"
        );
        assert_eq!(losses.health(1_000 + SHOWN_MS).0, LossState::Well);
    }

    #[test]
    fn the_file_that_may_hold_it_is_named() {
        let check = |file, expected| {
            let archive = Some(file);
            let loss = Loss { possible: true, archive, ..loss("file /a.log", 0) };
            let mut losses = Losses::default();
            losses.note(1_000, loss);
            let (_, text) = losses.health(1_000);
            assert!(text.contains(expected), "{text}");
        };
        check("a.log.1.zst", "it may be in the archive a.log.1.zst, which is not read, because only .gz is");
        check("a-1.log", "it may be in a-1.log, which is not read, because its name is not recognized");
    }

    /// A possible loss wakes nobody, is not hidden by a certain one, and hides none.
    #[test]
    fn what_may_be_lost_is_said_as_long_and_apart() {
        let doubt = |source, reason| Loss { reason, possible: true, bytes: 0, ..loss(source, 0) };
        let mut losses = Losses::default();
        losses.note(1_000, doubt("file /a.log", LossReason::FileTruncated));
        let (state, text) = losses.health(1_000 + SHOWN_MS - 1);
        assert_eq!(state, LossState::Doubt);
        assert_eq!(
            text,
            "may be lost for local_file: what was written just before the truncation or rewrite of the log of file /a.log \
             (file_truncated); rotate by renaming (logrotate: create) instead of copytruncate"
        );
        assert_eq!(losses.lines(1_000), [(LossState::Doubt, text)]);
        losses.note(1_000, loss("container web", 7));
        losses.note(2_000, doubt("file /a.log", LossReason::FileTruncated));
        let (state, text) = losses.health(2_000);
        assert_eq!(state, LossState::Loss);
        assert!(
            text.starts_with("lines are being lost: 7 bytes in")
                && text.contains("; lost for")
                && text.contains("(file_truncated, 2 times)"),
            "{text}"
        );
        assert_eq!(losses.health(1_000 + SHOWN_MS).0, LossState::Doubt);
        assert_eq!(losses.health(2_000 + SHOWN_MS).0, LossState::Well);
    }

    /// Such lines are not gone but in an archive that is not read, and whoever looks for them must know in which.
    #[test]
    fn an_archive_that_may_hold_it_is_named() {
        for possible in [true, false] {
            let mut losses = Losses::default();
            let of = |source, archive| Loss {
                reason: LossReason::FileGoneUnread,
                possible,
                archive,
                ..loss(source, 7)
            };
            losses.note(1_000, of("file /a.log", Some("a.log.1.zst")));
            let (_, text) = losses.health(1_000);
            assert!(
                text.contains("in the archive a.log.1.zst, which") && text.contains("delaycompress"),
                "{text}"
            );
            assert!(!text.contains("max-file"), "{text}");
            losses.note(1_000, of("file /b.log", None));
            let lines = losses.lines(1_000);
            assert!(
                lines.iter().any(|(_, line)| line.contains("/b.log") && line.contains("max-file")),
                "{lines:?}"
            );
            let mut many = Losses::default();
            for number in 0..10 {
                let source = format!("file /{number}.log");
                many.note(1_000, Loss { source: &source, ..of("", Some("x.log.1.zst")) });
            }
            let lines = many.lines(1_000);
            assert!(lines.len() == 1 && lines[0].1.contains("x.log.1.zst"), "{lines:?}");
        }
    }

    /// Advice that names a missing key helps nobody.
    #[test]
    fn cures_name_keys_of_the_config() {
        let config = include_str!("../../../configs/config.yaml");
        for reason in LossReason::ALL {
            let all = format!("{} {}", cure(*reason), doubt(*reason).1);
            let words = all.split(|c: char| !(c.is_ascii_alphanumeric() || "._".contains(c)));
            for key in words.filter(|word| word.contains('.') || word.contains('_')) {
                let last = key.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
                let known =
                    ["data_dir", "dead_letters"].contains(&last) || config.contains(&format!("{last}:"));
                assert!(known, "{reason:?}: no key {key}");
            }
        }
    }

    #[test]
    fn the_log_has_the_first_at_once_and_then_sums() {
        let mut losses = Losses::default();
        losses.note(0, loss("container web", 7));
        assert_eq!(losses.lines(0).len(), 1);
        for ms in 1..1_000 {
            losses.note(ms, loss("container web", u64::from(ms % 2 == 0)));
        }
        losses.note(500, loss("file /a.log", 1));
        let lines = losses.lines(1_000);
        assert!(lines.len() == 1 && lines[0].1.contains("file /a.log"), "{lines:?}");
        let lines = losses.lines(LINE_EVERY_MS);
        assert!(lines.len() == 1, "{lines:?}");
        assert!(lines[0].1.contains("499 bytes and an unknown number of others in 999 losses"), "{lines:?}");
        assert!(losses.lines(SHOWN_MS + 1_000).is_empty() && losses.entries.is_empty());
    }

    /// A disk that is full for a minute costs two hundred containers something, for one reason.
    #[test]
    fn many_sources_of_one_reason_are_one_line() {
        let mut losses = Losses::default();
        for number in 0..200 {
            losses.note(5, loss(&format!("container web-{number:03}"), 7));
        }
        losses.note(5, Loss { reason: LossReason::SpoolFull, ..loss("container alone", 1) });
        let lines = losses.lines(5);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!(
            lines[0].1,
            "lost for local_file: 1400 bytes in 200 losses of 200 sources (container web-000, container web-001, \
             container web-002 and 197 more) (deleted_open_limit); raise limits.deleted_open_bytes_max, or repair the sink that \
             reading waits for"
        );
        assert!(lines[1].1.contains("container alone because the spool was full (spool_full)"), "{lines:?}");
        assert_eq!(losses.lines(6), []);
    }

    #[test]
    fn many_sources_are_bounded_and_counted() {
        let mut losses = Losses::default();
        for number in 0..3 * ENTRIES_MAX {
            losses.note(5, loss(&format!("container {number}"), 1));
        }
        assert_eq!(losses.entries.len(), ENTRIES_MAX + 1);
        let (_, text) = losses.health(6);
        assert!(text.contains("; and 996 more"), "{text}");
    }
}
