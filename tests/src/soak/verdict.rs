//! Whether a soak passed: what grew, was lost, repeated or late, each in a sentence.

use std::time::Duration;

use super::{Plan, Rest, SETTLE, Sample, Soak};

/// A stream may be older than the interval by a tenth, by as much as the machine was late in these ten seconds, and by
/// this.
const AGE_SLACK: Duration = Duration::from_millis(50);
/// Descriptors of dockerd come and go with its own requests and its garbage collector.
const DOCKERD_SLACK: u64 = 6;
/// At most so many descriptors a follow costs dockerd: its connection, the log, and inotify's.
const DOCKERD_FDS_OF_A_FOLLOW: u64 = 4;
/// What the allocator may keep more at the end than after the first minute: a twentieth, or so much.
const RSS_SLACK_BYTES: u64 = 4 << 20;

/// First and last number of something that must not grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    /// Its name.
    pub what: &'static str,
    /// After [`SETTLE`].
    pub first: u64,
    /// At the end.
    pub last: u64,
    /// So much more is none.
    pub slack: u64,
}

impl Growth {
    /// How much more it is than it may be.
    pub fn beyond(&self) -> u64 {
        self.last.saturating_sub(self.first + self.slack)
    }
}

/// The samples that count: from the first minute on, or in a short soak from its middle on.
pub(super) fn settled<'a>(plan: &Plan, samples: &'a [Sample]) -> &'a [Sample] {
    let from = samples.iter().position(|sample| sample.at >= SETTLE.min(plan.length / 2));
    &samples[from.unwrap_or(samples.len())..]
}

/// At two moments everything was at rest, so that growth can be judged.
pub(super) fn comparable(plan: &Plan, samples: &[Sample]) -> bool {
    settled(plan, samples).iter().filter(|sample| sample.rest.is_some()).count() >= 2
}

/// Everything whose growth is judged; empty if no two samples can be compared.
pub fn growth(soak: &Soak) -> Vec<Growth> {
    let settled = settled(&soak.plan, &soak.samples);
    let rests: Vec<(&Sample, Rest)> =
        settled.iter().filter_map(|sample| Some((sample, sample.rest?))).collect();
    let (Some((first, first_rest)), Some((last, last_rest))) = (rests.first(), rests.last()) else {
        return Vec::new();
    };
    if rests.len() < 2 {
        return Vec::new();
    }
    let grown = |what, first, last, slack| Growth { what, first, last, slack };
    // Where slots are shared, it has more or fewer connections at each look.
    let of_slots =
        if soak.plan.shares_slots() { DOCKERD_FDS_OF_A_FOLLOW * soak.plan.slots as u64 } else { 0 };
    let dockerd_slack = DOCKERD_SLACK + of_slots;
    vec![
        grown("tasks", first.tasks, last.tasks, 0),
        grown("threads", first_rest.threads, last_rest.threads, 0),
        grown("operations", first_rest.operations, last_rest.operations, 0),
        grown("descriptors", first_rest.fds, last_rest.fds, 0),
        grown("dockerd's descriptors", first_rest.dockerd_fds, last_rest.dockerd_fds, dockerd_slack),
        grown("resident bytes", first.rss_bytes, last.rss_bytes, (first.rss_bytes / 20).max(RSS_SLACK_BYTES)),
    ]
}

pub(super) fn complaints(soak: &Soak) -> Vec<String> {
    let mut complaints = Vec::new();
    let growth = growth(soak);
    if growth.is_empty() {
        complaints.push("no two samples had all streams at rest, so growth can't be judged".to_owned());
    }
    for grown in growth.iter().filter(|grown| grown.beyond() > 0) {
        complaints.push(format!("{} grew from {} to {}", grown.what, grown.first, grown.last));
    }
    let lines = &soak.lines;
    if lines.delivered != lines.printed || lines.lost > 0 || lines.duplicated > 0 {
        complaints.push(format!(
            "{} lines printed, {} delivered, {} left out, {} twice: {}",
            lines.printed,
            lines.delivered,
            lines.lost,
            lines.duplicated,
            lines.lacking.join("; ")
        ));
    }
    if lines.printed == 0 {
        complaints.push("nothing was printed".to_owned());
    }
    if soak.plan.read_from == "api" {
        complaints.extend(rotation(soak));
    }
    complaints
}

/// How old a stream may be. What is late on this machine makes the agent late as well: its loop and its kernel operations,
/// one after the other, by as much as a look, and an opening by as much as one that the soak made itself.
fn age_max(plan: &Plan, sample: &Sample) -> Duration {
    plan.rotation + plan.rotation / 10 + AGE_SLACK + sample.late_max * 2 + sample.opening_max
}

/// How often each stream must have been rotated: once in the time that it may be old, and the time that an opening takes.
/// 80 times in three minutes with two seconds on an idle machine.
fn rotations_due(soak: &Soak) -> u64 {
    let mut before = Duration::ZERO;
    let due = soak.samples.iter().map(|sample| {
        let passed = sample.at.saturating_sub(std::mem::replace(&mut before, sample.at));
        passed.as_secs_f64() / (age_max(&soak.plan, sample) + sample.opening_max).as_secs_f64()
    });
    due.sum::<f64>().floor() as u64
}

/// Rotations that did not come, or came late.
fn rotation(soak: &Soak) -> Vec<String> {
    let mut complaints = Vec::new();
    let plan = &soak.plan;
    // A quiet one that shares slots has no connection that could be rotated.
    let least = if plan.shares_slots() { 0 } else { rotations_due(soak) };
    match soak.rotations.first() {
        Some(rotations) if *rotations >= least && soak.rotations.len() == plan.containers => {}
        found => complaints.push(format!(
            "{} streams, the least rotated of them {found:?} times; {least} were due",
            soak.rotations.len()
        )),
    }
    for sample in &soak.samples {
        let age_max = age_max(plan, sample);
        if sample.age_max > age_max {
            complaints.push(format!(
                "a stream was {:?} old before {:?}; at most {age_max:?} are allowed",
                sample.age_max, sample.at
            ));
        }
    }
    complaints
}
