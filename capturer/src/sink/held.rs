//! What waits for outputs that take nothing: a queue for each, so that no other output waits with it. It reads no clock but
//! where it plans the next attempt.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::SinkError;
use crate::model::record::{Batch, Source, StreamId};
use crate::pipeline::Processed;
use crate::text::age::age_text;

/// This many reasons for which outputs are blocked are named.
pub(super) const NAMED_MAX: usize = 3;

/// Something a sink is to do for one stream.
pub(super) enum Job {
    Attach(Arc<Source>),
    Batch {
        batch: Arc<Batch>,
        /// What its pipeline made of it, once that ran.
        made: Option<Box<Option<Processed>>>,
    },
    Detach(StreamId),
}

impl Job {
    pub(super) fn stream(&self) -> StreamId {
        match self {
            Job::Attach(source) => source.id,
            Job::Batch { batch, .. } => batch.source.id,
            Job::Detach(stream) => *stream,
        }
    }

    /// Bytes of its buffers.
    pub(super) fn buffer_bytes(&self) -> u64 {
        match self {
            Job::Batch { batch, .. } => (batch.read.capacity() + batch.made.capacity()) as u64,
            Job::Attach(_) | Job::Detach(_) => 0,
        }
    }
}

/// The queues of one sink.
#[derive(Default)]
pub(super) struct Held {
    outputs: BTreeMap<Arc<str>, Output>,
    /// Streams with something in a queue, and which queue that is. All that comes for them goes there, too, to stay in order.
    streams: BTreeMap<StreamId, Arc<str>>,
}

struct Output {
    queue: VecDeque<Job>,
    failures: u32,
    attempt_at: Instant,
    since: Instant,
    trouble: Arc<str>,
    /// The trouble without the output's name, for others may have the same; and that name.
    alike: (String, String),
}

/// What a trouble says of any output in its directory, and of which output it says that.
fn alike(trouble: &str) -> (String, String) {
    // Not that of "Input/output error".
    let Some((before, rest)) = trouble.find(" /").map(|at| trouble.split_at(at + 1)) else {
        return (trouble.to_owned(), String::new());
    };
    let end = rest.find(": ").unwrap_or(rest.len());
    let (path, hint) = rest.split_at(end);
    let (directory, _) = path.rsplit_once('/').unwrap_or_default();
    // "…: free space": the error, where, and then what to do.
    let what = before.trim_end().trim_end_matches(" writing").trim_end_matches(" opening");
    let cure = if hint == ": free space" {
        format!("; free some space there (df -h {directory})")
    } else {
        hint.replacen(": ", "; ", 1)
    };
    (format!("{what} in {directory}\n{cure}"), path.to_owned())
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }

    /// Whether something of a stream waits.
    pub(super) fn has(&self, stream: StreamId) -> bool {
        self.streams.contains_key(&stream)
    }

    pub(super) fn len(&self) -> usize {
        self.outputs.len()
    }

    /// The queue that a job must go to, if its output is blocked or its stream already waits.
    pub(super) fn queue_for(&self, job: &Job, output: Option<&Arc<str>>) -> Option<Arc<str>> {
        let waits = self.streams.get(&job.stream()).cloned();
        waits.or_else(|| output.filter(|output| self.outputs.contains_key(*output)).cloned())
    }

    /// An attempt failed; the next one is made after `pause`. Returns whether the reason is new.
    pub(super) fn block(&mut self, output: Arc<str>, error: &SinkError, pause: Duration) -> bool {
        let trouble = error.to_string();
        let attempt_at = Instant::now() + pause;
        let held = self.outputs.entry(output).or_insert_with(|| Output {
            queue: VecDeque::new(),
            failures: 0,
            attempt_at,
            since: Instant::now(),
            trouble: Arc::from(""),
            alike: Default::default(),
        });
        held.failures += 1;
        held.attempt_at = attempt_at;
        let differs = *held.trouble != *trouble;
        if differs {
            held.alike = alike(&trouble);
            held.trouble = trouble.into();
        }
        differs
    }

    pub(super) fn failures(&self, output: &str) -> u32 {
        self.outputs.get(output).map_or(0, |held| held.failures)
    }

    /// Why an output takes nothing.
    pub(super) fn trouble(&self, output: &str) -> Option<Arc<str>> {
        self.outputs.get(output).map(|held| Arc::clone(&held.trouble))
    }

    /// Adds a job. Returns whether it is the first of its stream.
    pub(super) fn push(&mut self, output: &Arc<str>, job: Job) -> bool {
        let Some(held) = self.outputs.get_mut(output) else { return false };
        let first = self.streams.insert(job.stream(), Arc::clone(output)).is_none();
        held.queue.push_back(job);
        first
    }

    pub(super) fn pop(&mut self, output: &str) -> Option<Job> {
        self.outputs.get_mut(output)?.queue.pop_front()
    }

    pub(super) fn put_back(&mut self, output: &str, job: Job) {
        if let Some(held) = self.outputs.get_mut(output) {
            held.queue.push_front(job);
        }
    }

    /// Forgets an output for which nothing waits any more. Returns the streams that did.
    pub(super) fn freed(&mut self, output: &Arc<str>) -> Vec<StreamId> {
        if self.outputs.get(output).is_none_or(|held| !held.queue.is_empty()) {
            return Vec::new();
        }
        self.outputs.remove(output);
        let (freed, still): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.streams).into_iter().partition(|(_, waits_for)| waits_for == output);
        self.streams = still;
        freed.into_keys().collect()
    }

    /// When to make the next attempt.
    pub(super) fn next_attempt(&self) -> Option<Instant> {
        self.outputs.values().map(|held| held.attempt_at).min()
    }

    /// Outputs to try now.
    pub(super) fn due(&self, now: Instant) -> Vec<Arc<str>> {
        let due = self.outputs.iter().filter(|(_, held)| held.attempt_at <= now);
        due.map(|(output, _)| Arc::clone(output)).collect()
    }

    /// Makes all due now.
    pub(super) fn all_due(&mut self) {
        let now = Instant::now();
        self.outputs.values_mut().for_each(|held| held.attempt_at = now);
    }

    /// Which outputs are blocked, and why; `None` = none is. A full disk blocks hundreds for one reason, and that is said once.
    /// With a time it is also said for how long.
    pub(super) fn outputs(&self, now: Option<Instant>) -> Option<String> {
        let mut groups: BTreeMap<&str, Vec<&Output>> = BTreeMap::new();
        self.outputs.values().for_each(|held| groups.entry(&held.alike.0).or_default().push(held));
        let mut groups: Vec<_> = groups.into_iter().collect();
        groups.sort_by_key(|(_, of_group)| std::cmp::Reverse(of_group.len()));
        if groups.is_empty() {
            return None;
        }
        let (named, rest) = groups.split_at(groups.len().min(NAMED_MAX));
        let told: Vec<String> = named.iter().map(|(what, of_group)| tell(what, of_group, now)).collect();
        let more = match rest.iter().map(|(_, of_group)| of_group.len()).sum::<usize>() {
            0 => String::new(),
            more => format!("; and {more} more outputs for other reasons"),
        };
        Some(format!("{}{more}; outputs blocked: {}", told.join("; "), self.outputs.len()))
    }

    /// What that means.
    pub(super) fn consequence(&self) -> String {
        format!(
            "sources that wait for them: {}; no line is lost while their log files are kept; other outputs are not \
             affected",
            self.streams.len()
        )
    }
}

/// What several outputs have in common.
fn tell(what: &str, outputs: &[&Output], now: Option<Instant>) -> String {
    let oldest = outputs.iter().map(|held| held.since).min();
    let age = now.zip(oldest).map_or(0, |(now, oldest)| now.saturating_duration_since(oldest).as_secs());
    let since = age_text(age);
    let [first, others @ ..] = outputs else { return String::new() };
    let Some((what, cure)) = what.split_once('\n').filter(|_| !others.is_empty()) else {
        return if age == 0 {
            first.trouble.to_string()
        } else {
            format!("{}; it began {since} ago", first.trouble)
        };
    };
    let since = if age == 0 { String::new() } else { format!(" for {since}") };
    let name = first.alike.1.rsplit('/').next().unwrap_or_default();
    format!("{what}{since}: {} outputs wait, such as {name}{cure}", outputs.len())
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn block(held: &mut Held, path: &str, kind: io::ErrorKind) {
        let error = SinkError::retry(format!("writing {path}"), io::Error::from(kind));
        held.block(path.into(), &error, Duration::ZERO);
    }

    /// Three hundred outputs of one full disk were told by three names and a number, and the cost was not seen.
    #[test]
    fn a_full_disk_is_said_once() {
        let mut held = Held::default();
        assert_eq!(held.outputs(None), None);
        block(&mut held, "/o/a b.log", io::ErrorKind::StorageFull);
        assert_eq!(
            held.outputs(None).unwrap(),
            "no storage space writing /o/a b.log: free space; outputs blocked: 1"
        );
        (0..299).for_each(|number| block(&mut held, &format!("/o/{number}.log"), io::ErrorKind::StorageFull));
        block(&mut held, "/p/x.log", io::ErrorKind::StorageFull);
        block(&mut held, "/o/y.log", io::ErrorKind::PermissionDenied);
        let later = Instant::now() + Duration::from_secs(180);
        let told = held.outputs(Some(later)).unwrap();
        let first = "no storage space in /o for 3 min: 300 outputs wait, such as 0.log; free some space there (df -h /o); ";
        assert!(told.starts_with(first), "{told}");
        assert!(
            told.contains("writing /p/x.log: free space; it began 3 min ago") && told.contains("/o/y.log"),
            "{told}"
        );
        assert!(told.ends_with("; outputs blocked: 302"), "{told}");
        // The log has a line when this changes, and time alone is no change.
        assert_eq!(held.outputs(None), held.outputs(None));
    }
}
