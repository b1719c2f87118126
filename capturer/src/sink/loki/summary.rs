//! Refused, skipped and dropped lines, summed per minute by label set and reason, each with its cure. One log line for
//! each sum and minute, however many lines there were, and a sentence for health. Pure: the time is an argument.

use std::collections::{BTreeMap, BTreeSet};

use super::report::short;
use crate::telemetry::fault::Fault;
use crate::telemetry::metrics::DeadLetterReason;
use crate::text::counted::{counted, many, which};

/// A sum is logged, and begun anew, after this long.
const MINUTE_MS: u64 = 60_000;
/// How many label sets have sums of their own; the others share one.
const NAMED_MAX: usize = 50;
/// Reasons that health names.
const SHOWN_MAX: usize = 3;

#[derive(Clone, Debug, Default)]
struct Sum {
    lines: u64,
    bytes: u64,
    /// Loki's own words about the first of them.
    words: String,
    cure: &'static str,
}

/// The sums; see the head of this file.
#[derive(Debug, Default)]
pub struct Summary {
    began_ms: u64,
    now: BTreeMap<(String, &'static str), Sum>,
    /// The sum of the minute before.
    last: BTreeMap<(String, &'static str), Sum>,
}

impl Summary {
    /// Lines that were not delivered. Gives what is to be logged at once: the first of a label set and reason in a while.
    pub fn add(
        &mut self,
        labels: &str,
        (reason, cure): (&'static str, &'static str),
        (lines, bytes): (u64, u64),
        words: &str,
    ) -> Option<String> {
        let known = self.now.len() < NAMED_MAX || self.now.contains_key(&(labels.to_owned(), reason));
        let name = if known { short(labels) } else { "other label sets".to_owned() };
        let key = (name, reason);
        let is_new = !self.now.contains_key(&key) && !self.last.contains_key(&key);
        let sum = self.now.entry(key.clone()).or_default();
        sum.lines += lines;
        sum.bytes += bytes;
        if sum.words.is_empty() {
            sum.words = short(words);
        }
        sum.cure = cure;
        is_new.then(|| tell(&key, sum))
    }

    /// What is to be logged now: the sums of a minute that is over.
    pub fn turn(&mut self, now_ms: u64) -> Vec<String> {
        if now_ms < self.began_ms + MINUTE_MS {
            return Vec::new();
        }
        self.began_ms = now_ms;
        self.last = std::mem::take(&mut self.now);
        // One line alone was told when it came.
        self.last.iter().filter(|(_, sum)| sum.lines != 1).map(|(key, sum)| tell(key, sum)).collect()
    }

    /// No dead letter is left: they were replayed or purged, and what was refused is nobody's trouble now.
    pub fn none_is_kept(&mut self) {
        for sums in [&mut self.now, &mut self.last] {
            sums.retain(|(_, reason), _| is_loss(reason));
        }
    }

    /// What happened in this minute and the one before, in the order of [`Summary::recent`].
    pub fn faults(&self) -> Vec<Fault> {
        let fault = |reason: &&str| if is_loss(reason) { Fault::SpoolLost } else { Fault::Refused };
        self.by_lines().iter().map(|(reason, _)| fault(reason)).collect()
    }

    /// For health: what happened in this minute and the one before.
    pub fn recent(&self) -> Vec<String> {
        let sums = self.by_lines();
        let more = sums.len().saturating_sub(SHOWN_MAX);
        let mut told: Vec<String> = sums
            .iter()
            .take(SHOWN_MAX)
            .map(|(reason, (labels, sum))| {
                let first = labels.first().copied().unwrap_or_default();
                let whose = match labels.len() {
                    1 => first.to_owned(),
                    count => format!("{count} label sets, such as {first},"),
                };
                tell_together(&whose, reason, sum)
            })
            .collect();
        if more > 0 {
            told.push(format!("{more} more reasons, see the log"));
        }
        told
    }

    /// One for each reason, and whose: nine label sets with the same reason would fill a screen. Most lines first.
    fn by_lines(&self) -> Vec<(&'static str, (BTreeSet<&str>, Sum))> {
        let mut sums: BTreeMap<&'static str, (BTreeSet<&str>, Sum)> = BTreeMap::new();
        for ((labels, reason), sum) in self.last.iter().chain(&self.now) {
            let beginning = || (BTreeSet::new(), Sum { lines: 0, bytes: 0, ..sum.clone() });
            let (all, of_reason) = sums.entry(reason).or_insert_with(beginning);
            all.insert(labels);
            of_reason.lines += sum.lines;
            of_reason.bytes += sum.bytes;
        }
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_by_key(|(_, (_, sum))| std::cmp::Reverse(sum.lines));
        sums
    }
}

fn tell((labels, reason): &(String, &'static str), sum: &Sum) -> String {
    let lines = match sum.lines {
        0 => counted(sum.bytes, "byte"),
        lines => counted(lines, "line"),
    };
    let words = if sum.words.is_empty() { String::new() } else { format!(" ({})", sum.words) };
    format!("{lines} of {labels} {}{words}; {}", what(reason, sum.lines), sum.cure)
}

/// For health, what happened to all label sets with the same reason.
fn tell_together(whose: &str, reason: &'static str, sum: &Sum) -> String {
    if is_loss(reason) {
        return tell(&(whose.to_owned(), reason), sum);
    }
    let lines = many(sum.lines, "line");
    let kept = which(sum.lines, "it is kept as a dead letter", "they are kept as dead letters");
    let words = if sum.words.is_empty() { String::new() } else { format!("; the reason: {}", sum.words) };
    format!(
        "refused as {reason}: {lines} of {whose} in the last two minutes; {kept}: capturer dead-letters list shows them{words}; {}",
        sum.cure
    )
}

fn is_loss(reason: &str) -> bool {
    [SPOOL_FULL, SPOOL_TOO_OLD, LETTERS_FULL].contains(&reason)
}

fn what(reason: &str, lines: u64) -> String {
    match reason {
        SPOOL_FULL => "were over their share of the spool while Loki held them back, and are lost".to_owned(),
        SPOOL_TOO_OLD => "waited in the spool for longer than spool.max_age and are lost".to_owned(),
        LETTERS_FULL => {
            "dead letters were deleted, oldest first, to make room for new ones, and are lost".to_owned()
        }
        reason => format!("refused as {reason}, {} in the dead letters", which(lines, "it is", "they are")),
    }
}

/// Reason of lines that grew too old in the spool.
pub const SPOOL_TOO_OLD: &str = "spool_too_old";

/// Reason of lines of a label set that filled its share of the spool.
pub const SPOOL_FULL: &str = "spool_full";

/// Reason of dead letters that were given up.
pub const LETTERS_FULL: &str = "dead_letters_full";

/// What to do about a refusal, by reason.
pub fn cure(reason: DeadLetterReason) -> &'static str {
    match reason {
        DeadLetterReason::TooOld => {
            "raise reject_old_samples_max_age in Loki and replay them (capturer dead-letters replay), or leave them"
        }
        DeadLetterReason::TooFarBehind | DeadLetterReason::OutOfOrder => {
            "a source of this label set writes older times than another: give each a label set of its own"
        }
        DeadLetterReason::TooFarInFuture => {
            "check the clock, and the time zone in which the source writes its times"
        }
        DeadLetterReason::LineTooLong => "lower sinks.loki.line_bytes_max, or raise max_line_size in Loki",
        DeadLetterReason::TooManyLabels
        | DeadLetterReason::LabelNameTooLong
        | DeadLetterReason::LabelValueTooLong
        | DeadLetterReason::DuplicateLabel
        | DeadLetterReason::InvalidLabels => "check sinks.loki.labels and the pipeline's labels",
        DeadLetterReason::MetadataTooLarge => "keep less in sinks.loki.structured_metadata",
        DeadLetterReason::BodyTooLarge => "raise the body limit of Loki or of the proxy in front of it",
        DeadLetterReason::Forbidden => {
            "a firewall or proxy in front of Loki refuses the content of these lines, but lets other lines of the \
             tenant pass: allow them there and replay them (capturer dead-letters replay)"
        }
        DeadLetterReason::Other => "look at them with capturer dead-letters list",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 200,000 lines are one line of log a minute, and health names them as long.
    #[test]
    fn many_are_told_as_one() {
        let mut summary = Summary::default();
        let add = |summary: &mut Summary, lines| {
            let (reason, cure) = ("too_old", cure(DeadLetterReason::TooOld));
            summary.add("{a=\"b\"}", (reason, cure), (lines, 100), "timestamp too old")
        };
        let first = add(&mut summary, 3).expect("the first is told at once");
        assert_eq!(
            first,
            "3 lines of {a=\"b\"} refused as too_old, they are in the dead letters (timestamp too old); raise \
             reject_old_samples_max_age in Loki and replay them (capturer dead-letters replay), or leave them"
        );
        assert_eq!(add(&mut summary, 200_000), None);
        assert!(summary.turn(59_000).is_empty());
        let told = summary.recent();
        let expected = "refused as too_old: 200,003 lines of {a=\"b\"} in the last two minutes; they are kept as dead letters";
        assert!(told[0].starts_with(expected), "{told:?}");
        assert_eq!(summary.turn(60_000).len(), 1);
        assert_eq!(add(&mut summary, 1), None, "known from the minute before");
        assert!(summary.recent()[0].starts_with("refused as too_old: 200,004 lines"));
        summary.turn(120_000);
        summary.turn(180_000);
        assert!(summary.recent().is_empty());
    }

    /// A replay delivered them all, and for more than a minute the page said that they are kept.
    #[test]
    fn what_was_replayed_is_no_trouble() {
        let mut summary = Summary::default();
        summary.add("{a}", ("too_old", "look"), (1, 1), "");
        summary.turn(60_000);
        summary.add("{a}", ("other", "look"), (1, 1), "");
        summary.add("{a}", (SPOOL_TOO_OLD, "raise it"), (1, 1), "");
        summary.none_is_kept();
        assert_eq!(summary.faults(), [Fault::SpoolLost], "what is lost does not come back");
        assert!(summary.add("{a}", ("other", "look"), (1, 1), "").is_some(), "the next one is news");
    }

    #[test]
    fn thousands_of_label_sets_are_bounded() {
        let mut summary = Summary::default();
        let told =
            (0..5_000).filter_map(|number| summary.add(&number.to_string(), ("other", "x"), (1, 1), ""));
        assert_eq!(told.count(), NAMED_MAX + 1);
        // Half a terminal was once filled with one reason.
        let told = summary.recent();
        assert!(
            told.len() == 1
                && told[0].starts_with("refused as other: 5,000 lines of 51 label sets, such as 0,"),
            "{told:?}"
        );
        let reasons = ["a", "b", "c", "d", "e"];
        reasons.iter().for_each(|reason| drop(summary.add("x", (reason, "y"), (1, 1), "")));
        assert_eq!(summary.recent().len(), SHOWN_MAX + 1);
        let one = Summary::default().add("{a}", ("too_old", "look"), (1, 1), "");
        assert_eq!(one.unwrap(), "1 line of {a} refused as too_old, it is in the dead letters; look");
    }
}
