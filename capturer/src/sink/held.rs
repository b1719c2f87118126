//! What waits for outputs that take nothing: a queue for each, so that no other output waits with it. It reads no clock but
//! where it plans the next attempt.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::SinkError;
use crate::model::record::{Batch, Source, StreamId};
use crate::pipeline::Processed;

/// This many blocked outputs are named one by one.
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
    trouble: Arc<str>,
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
            trouble: Arc::from(""),
        });
        held.failures += 1;
        held.attempt_at = attempt_at;
        let differs = *held.trouble != *trouble;
        if differs {
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

    /// Which outputs are blocked, and why; `None` = none is.
    pub(super) fn outputs(&self) -> Option<String> {
        let named: Vec<&str> = self.outputs.values().take(NAMED_MAX).map(|held| &*held.trouble).collect();
        if named.is_empty() {
            return None;
        }
        let more = match self.outputs.len() - named.len() {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        Some(format!("{}{more}; outputs blocked: {}", named.join("; "), self.outputs.len()))
    }

    /// What that means.
    pub(super) fn consequence(&self) -> String {
        format!(
            "sources that wait for them: {}; their lines stay in the log files as long as those are kept; all others are delivered",
            self.streams.len()
        )
    }
}
