//! The delivery's report on itself: which label sets wait, why, and what the last answer was. Part of [`Delivery`];
//! pure.

use std::collections::BTreeMap;
use std::time::Duration;

use bytesize::ByteSize;

use super::delivery::{Delivery, Now};
use super::label_set::{LabelSet, LabelSetTrouble};
use super::nouns::{Tenant, Trouble};
use crate::sink::spool::Waits;
use crate::telemetry::fault::Fault;
use crate::telemetry::metrics::PushFailure;
use crate::text::age::age_text;
use crate::text::counted::{many, which};

/// If lines wait and nothing was accepted for this long, something is wrong, whatever the answers were.
const STALLED_MS: u64 = 60_000;
/// If requests are in flight and none was answered for this long, Loki hangs; its time-out may be far away.
const SILENT_MS: u64 = 10_000;
/// How the sentence on a Loki that hangs begins.
const SILENT: &str = "Loki has not answered";
/// Tenants named in one message.
const NAMED_MAX: usize = 3;
/// Characters of a label set or an answer in a message.
const SHOWN_CHARS: usize = 300;
/// A text with its cure, in characters.
const SENTENCE_CHARS: usize = 1_000;

/// The state of the delivery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong, each with its cure; empty = all is well.
    pub wrong: Vec<String>,
    /// Nothing is sent until somebody mends something.
    pub held: bool,
    /// Worth reading although all is well.
    pub note: Option<String>,
    /// The names of what is wrong, for the log, which is told when this changes.
    pub reasons: Vec<PushFailure>,
    /// The same as kinds, the one that `wrong` begins with first.
    pub faults: Vec<Fault>,
    /// That Loki does not answer is among what is wrong.
    silence_is_said: bool,
    /// What lines in the spool wait for; empty = none waits.
    pub waits_for: String,
}

impl Report {
    fn fail(&mut self, trouble: &Trouble) {
        self.reasons.push(trouble.reason);
        self.faults.push(match trouble.reason {
            // Nobody was asked yet: what the login is made from can't be read.
            PushFailure::Unauthorized if !trouble.hold => Fault::LoginUnreadable,
            reason => Fault::Push(reason),
        });
    }

    fn say_silence(&mut self, text: String) {
        self.wrong.push(text);
        self.silence_is_said = true;
    }
}

impl Delivery {
    /// How it is now.
    pub fn report(&self, now: Now) -> Report {
        let (note, waits_for) = (self.body_limit.note(), self.waits_for(now));
        let mut report = Report { note, waits_for, ..Report::default() };
        if let Some(trouble) = &self.server.trouble {
            report.wrong.push(self.outage(trouble, now));
            report.silence_is_said = trouble.reason == PushFailure::TimedOut;
            report.fail(trouble);
            report.held = trouble.hold;
        }
        self.report_tenants(now, &mut report);
        self.report_label_sets(now, &mut report);
        // An empty push says nothing to an operator while no line waits for its answer.
        let probing_ms = self.server.probing_ms.filter(|_| !self.is_empty());
        let asked_ms = self.progress.asked_ms.into_iter().chain(probing_ms).min();
        let silent_ms = asked_ms.map_or(0, |asked_ms| now.ms.saturating_sub(asked_ms));
        if silent_ms >= SILENT_MS {
            // It is so now. What was answered before is older.
            if !report.silence_is_said {
                report.wrong.insert(0, self.silence("", now));
                report.silence_is_said = true;
            }
            report.reasons.insert(0, PushFailure::TimedOut);
            report.faults.insert(0, Fault::Push(PushFailure::TimedOut));
        }
        // Of an outage it is said already for how long nothing is taken.
        let is_said = self.server.trouble.is_some() || self.all_are_held_back() || report.silence_is_said;
        if let Some(since) = self.stalled_for(now).filter(|_| !is_said) {
            let answer =
                if self.progress.last_answer.is_empty() { "none" } else { &self.progress.last_answer };
            let answer = short(answer);
            let is_said = report.wrong.iter().any(|told| told.contains(&answer));
            let answer = if is_said { String::new() } else { format!("; the last answer was: {answer}") };
            let seconds = since.as_secs();
            report.faults.push(Fault::Usual);
            report.wrong.push(format!("nothing was accepted for {seconds} s while lines wait{answer}"));
        }
        report
    }

    /// What lines in the spool wait for now: an answer, the next attempt, or its turn.
    fn waits_for(&self, now: Now) -> String {
        if self.is_empty() {
            return String::new();
        }
        if let Some(asked_ms) = self.progress.asked_ms.into_iter().chain(self.server.probing_ms).min() {
            let age = age_text(now.ms.saturating_sub(asked_ms) / 1000);
            return format!("an answer to the push of {age} ago");
        }
        match self.next_deadline_ms().map(|at| at.saturating_sub(now.ms).div_ceil(1000)) {
            Some(seconds) if seconds > 0 => format!("the next push, in {}", age_text(seconds)),
            _ => "its turn".to_owned(),
        }
    }

    /// News about the size of requests, for the log.
    pub fn body_limit_news(&mut self) -> Option<String> {
        self.body_limit.take_news()
    }

    fn report_tenants(&self, now: Now, report: &mut Report) {
        let troubled = || {
            let with = self.tenants.iter().filter(|(_, tenant)| tenant.label_sets > 0);
            with.filter_map(|(name, tenant)| Some((name, tenant, tenant.trouble.as_ref()?)))
        };
        for (name, tenant, trouble) in troubled().take(NAMED_MAX) {
            let whose = format!("{}, such as {}", label_sets(tenant.label_sets), short(&tenant.example));
            let whose = match name.as_str() {
                "" if self.tenant.is_some() => String::new(),
                "" => format!("lines without a tenant ({whose}): "),
                name => format!("tenant {} ({whose}): ", short(name)),
            };
            let go_on = self.tenant.is_none() && self.accepted_since(trouble.since_ms);
            let others = if go_on { "; other tenants go on" } else { "" };
            let since = age_text(now.ms.saturating_sub(trouble.since_ms) / 1000);
            let waiting = self.lines_of(name) as u64;
            let (lines, have) = (many(waiting, "line"), which(waiting, "has", "have"));
            report.wrong.push(format!(
                "{whose}{lines} {have} waited on disk for {since}: {}{}; they are kept and sent again later{others}",
                sentence(&trouble.words),
                cure(trouble.reason)
            ));
            report.fail(trouble);
        }
        let more = troubled().count().saturating_sub(NAMED_MAX);
        if more > 0 {
            report.wrong.push(format!("{more} more tenants wait"));
        }
        // With all of them held nothing is delivered. Where tenants vary, others may just have no lines now.
        let with_lines = || self.tenants.values().filter(|tenant| tenant.label_sets > 0);
        let is_held = |tenant: &Tenant| tenant.trouble.as_ref().is_some_and(|trouble| trouble.hold);
        let others_go_on = self.tenant.is_none() && self.progress.accepted > 0;
        report.held |= with_lines().count() > 0 && with_lines().all(is_held) && !others_go_on;
    }

    fn report_label_sets(&self, now: Now, report: &mut Report) {
        // In an outage all wait, and it is said why. Some of them have a limit of their own besides.
        let is_told = |label_set: &&LabelSet| self.server.trouble.is_none() || self.is_limited(label_set);
        let mut waiting: Vec<_> = self
            .label_sets
            .values()
            .filter(is_told)
            .filter_map(|label_set| label_set.trouble.as_ref())
            .collect();
        waiting.sort_by_key(|told| told.trouble.since_ms);
        let mut reasons: Vec<PushFailure> = Vec::new();
        for told in &waiting {
            if !reasons.contains(&told.trouble.reason) {
                reasons.push(told.trouble.reason);
            }
        }
        // One sentence for each reason: ten label sets that wait for the same reason would fill a screen.
        for reason in reasons {
            let mut alike = waiting.iter().filter(|told| told.trouble.reason == reason);
            let Some(told) = alike.next() else { continue };
            let more = alike.count();
            let hint = match reason {
                PushFailure::StreamRateLimited => {
                    "; it is over its rate limit: send fewer lines, split it with another label, or raise \
                     per_stream_rate_limit in Loki"
                }
                PushFailure::StreamLimit => "; use fewer label values, or raise the limit in Loki",
                _ => "",
            };
            let (labels, words) = (short(&told.labels), sentence(&told.trouble.words));
            if reason == PushFailure::TimedOut && !self.accepted_since(told.trouble.since_ms) {
                report.say_silence(self.silence(&words, now));
                report.fail(&told.trouble);
                continue;
            }
            report.wrong.push(match more {
                0 => format!("label set {labels} waits: {words}{hint}"),
                _ => format!("{} wait, such as {labels}: {words}{hint}", label_sets(more + 1)),
            });
            report.fail(&told.trouble);
        }
        let goes_on = |told: &&LabelSetTrouble| self.accepted_since(told.trouble.since_ms);
        if self.server.trouble.is_none() && waiting.first().is_some_and(goes_on) {
            report.wrong.push("other label sets go on".to_owned());
        }
    }

    /// Nothing is delivered to Loki: since when, how much waits, and what to do.
    fn outage(&self, trouble: &Trouble, now: Now) -> String {
        let words = sentence(&trouble.words);
        let seconds = now.ms.saturating_sub(trouble.since_ms) / 1000;
        let waits = self.what_waits();
        if trouble.reason == PushFailure::Unreachable {
            let since = match seconds {
                0 => "Loki is unreachable".to_owned(),
                _ => format!("Loki has been unreachable for {}", age_text(seconds)),
            };
            return format!("{since}: {words}; check that Loki runs, or correct sinks.loki.url; {waits}");
        }
        if trouble.reason == PushFailure::TimedOut {
            return self.silence(&words, now);
        }
        let since = match seconds {
            0 => "nothing is delivered".to_owned(),
            _ => format!("nothing was delivered for {}", age_text(seconds)),
        };
        format!("{words}; {since}{}; {waits}", cure(trouble.reason))
    }

    /// Loki is there and does not answer. `words`: how the last request ended.
    fn silence(&self, words: &str, now: Now) -> String {
        let since = age_text(now.ms.saturating_sub(self.waits_since_ms().unwrap_or(now.ms)) / 1000);
        let words = if words.is_empty() { String::new() } else { format!(" ({words})") };
        format!("{SILENT} for {since}{words}; check Loki and the network to it; {}", self.what_waits())
    }

    /// Since when the oldest line waits and nothing was accepted. Lines that were refused wait no more.
    fn waits_since_ms(&self) -> Option<u64> {
        let oldest = self.label_sets.values().filter_map(|label_set| label_set.queue.front());
        let oldest_ms = oldest.map(|entry| entry.taken_ms).min()?;
        Some(self.progress.accepted_ms.unwrap_or(0).max(oldest_ms))
    }

    fn lines_of(&self, tenant: &str) -> usize {
        let label_sets = self.label_sets.values().filter(|label_set| label_set.tenant == tenant);
        label_sets.map(|label_set| label_set.lines).sum()
    }

    /// How many lines of the spool wait, and their bytes, as far as they were read.
    pub(super) fn what_waits(&self) -> String {
        let lines: usize = self.label_sets.values().map(|label_set| label_set.lines).sum();
        let bytes: usize = self.label_sets.values().map(|label_set| label_set.bytes).sum();
        if lines == 0 {
            return "no line waits yet".to_owned();
        }
        let at_least = if self.has_room() { "" } else { "more than " };
        let wait = which(lines as u64, "waits", "wait");
        let lines = many(lines as u64, "line");
        // Those in the spool are compressed: its figure is another.
        format!(
            "{at_least}{lines} {wait} on disk ({} before compression) and will be sent when Loki accepts lines again",
            ByteSize(bytes as u64).display().iec()
        )
    }

    fn accepted_since(&self, since_ms: u64) -> bool {
        self.progress.accepted_ms.is_some_and(|accepted_ms| accepted_ms > since_ms)
    }

    /// Whatever waits does so for its tenant's or its label set's own sake, which is said: that nothing was accepted is no
    /// sign of anything else then.
    fn all_are_held_back(&self) -> bool {
        self.label_sets
            .values()
            .all(|label_set| self.waits_for_tenant(label_set) || self.is_limited(label_set))
    }

    fn waits_for_tenant(&self, label_set: &LabelSet) -> bool {
        self.tenants.get(&label_set.tenant).is_some_and(|tenant| tenant.trouble.is_some())
    }

    fn is_limited(&self, label_set: &LabelSet) -> bool {
        let limits = [PushFailure::StreamRateLimited, PushFailure::StreamLimit];
        label_set.trouble.as_ref().is_some_and(|told| limits.contains(&told.trouble.reason))
    }

    /// How long nothing was accepted while something waits, if that is too long.
    fn stalled_for(&self, now: Now) -> Option<Duration> {
        let stalled_ms = now.ms.saturating_sub(self.waits_since_ms()?);
        (stalled_ms > STALLED_MS).then(|| Duration::from_millis(stalled_ms))
    }

    /// Lines accepted so far.
    pub fn accepted_lines(&self) -> u64 {
        self.progress.accepted_lines
    }

    /// Loki answered as itself, or took lines, at least once.
    pub fn was_up(&self) -> bool {
        self.server.was_up
    }

    /// Bytes of each label set in the spool, as long as Loki answers or was not asked yet.
    pub fn queued_while_answered(&self) -> Option<BTreeMap<u64, u64>> {
        let answers = self.server.is_up || self.server.backoff.failures() == 0;
        answers.then(|| self.label_sets.iter().map(|(id, label_set)| (*id, label_set.bytes as u64)).collect())
    }

    /// What label sets have in the spool that wait by themselves or for their tenant, so that others can go on. A tenant that
    /// is everybody's holds everybody, as an outage does.
    pub fn held_back(&self) -> BTreeMap<u64, Waits> {
        let waits = |label_set: &LabelSet| Waits {
            records: label_set.queue.len() as u64,
            bytes: label_set.bytes as u64,
        };
        let apart = |label_set: &LabelSet| {
            self.is_limited(label_set) || (self.tenant.is_none() && self.waits_for_tenant(label_set))
        };
        let held = self.label_sets.iter().filter(|(_, label_set)| self.server.is_up && apart(label_set));
        held.map(|(id, label_set)| (*id, waits(label_set))).collect()
    }
}

/// What to do where the answer's words do not say.
fn cure(reason: PushFailure) -> &'static str {
    match reason {
        PushFailure::ServerError => "; look at Loki's own log",
        PushFailure::RateLimited => "; raise ingestion_rate_mb in Loki (limits_config) if this stays",
        _ => "",
    }
}

fn label_sets(count: usize) -> String {
    if count == 1 { "1 label set".to_owned() } else { format!("{count} label sets") }
}

/// Texts of containers and servers, at a readable length.
pub(super) fn short(text: &str) -> String {
    first(text, SHOWN_CHARS)
}

/// What a server said, which is [`short`], and what to do about it, which should be seen whole.
fn sentence(words: &str) -> String {
    first(words, SENTENCE_CHARS)
}

fn first(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
