//! Which lines go into which request, in what order, and what happens after each answer. Pure: chunks, answers and the
//! time go in, orders come out.
//!
//! ```text
//! chunk ─▶ shard (by lane) ─▶ job: chunks of one tenant ─▶ Sending ─ accepted ─▶ done
//!                                     ▲                      │ ├ failed ─▶ Waiting(until) ─▶ Sending
//!                                     └── next part ◀────────┘ └ refused ─▶ cut in two; alone: Burying ─▶ next part
//! ```
//! A label set always goes to the same shard, and a shard has one request under way: so the order within a label set
//! holds, whatever fails. The shards are as many as requests may be under way.
//!
//! Chunks are numbered; [`Delivery::done`] is the number up to which nothing is left, which is how far the spool may
//! forget. What a later shard finished earlier is remembered, not forgotten.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::time::Duration;

use prost::Message as _;

use super::answer::{Outcome, Verdict, judge};
use super::encode::Chunk;
use super::push::{EntryAdapter, PushRequest};
use crate::decode::timestamp;
use crate::metrics::{DeadLetterReason, PushFailure};
use crate::settings::Loki;

/// What the shell is to do.
#[derive(Debug, PartialEq)]
pub enum Order {
    /// Send this and report with [`Delivery::on_outcome`].
    Send {
        /// Who waits for the answer.
        shard: usize,
        /// Empty = none.
        tenant: String,
        /// Lines in it.
        lines: usize,
        /// An encoded request.
        body: Vec<u8>,
    },
    /// Write this to the dead letters and report with [`Delivery::on_buried`].
    Bury {
        /// Who waits.
        shard: usize,
        /// The line.
        letter: Refused,
    },
}

/// A line that will never be taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// By name.
    pub reason: DeadLetterReason,
    /// The answer's status.
    pub code: u16,
    /// The server's own words.
    pub words: String,
    /// Empty = none.
    pub tenant: String,
    /// Its label set.
    pub labels: String,
    /// The line.
    pub entry: EntryAdapter,
}

/// What is wrong now, for health and readiness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// By name.
    pub reason: PushFailure,
    /// In a sentence.
    pub words: String,
    /// Somebody has to mend something; it will not pass by itself.
    pub hold: bool,
}

/// See the module's head.
#[derive(Debug)]
pub struct Delivery {
    limits: Limits,
    shards: Vec<Shard>,
    /// Number of the last chunk taken.
    last: u64,
    done: u64,
    /// Finished beyond `done`.
    done_early: BTreeSet<u64>,
    bytes: usize,
    trouble: Option<Trouble>,
    accepted_lines: u64,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    batch_bytes: usize,
    batch_lines: usize,
    batch_timeout_ms: u64,
    backoff_min: Duration,
    backoff_max: Duration,
}

#[derive(Debug, Default)]
struct Shard {
    queue: VecDeque<Queued>,
    job: Option<Job>,
}

#[derive(Debug)]
struct Queued {
    number: u64,
    taken_ms: u64,
    chunk: Chunk,
}

/// What one request brings, and what becomes of it until all its lines are gone.
#[derive(Debug)]
struct Job {
    numbers: Vec<u64>,
    bytes: usize,
    tenant: String,
    /// Still to be sent, in order; the first is under way.
    parts: VecDeque<Part>,
    state: JobState,
    /// In a row.
    failures: u32,
}

#[derive(Debug)]
struct Part {
    lines: usize,
    body: Vec<u8>,
    /// Refused alone: only to be buried.
    refused: Option<Refused>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JobState {
    Ready,
    UnderWay,
    Waiting(u64),
}

impl Delivery {
    /// Nothing taken yet.
    pub fn new(config: &Loki) -> Delivery {
        let limits = Limits {
            batch_bytes: config.batch_bytes as usize,
            batch_lines: config.batch_lines,
            batch_timeout_ms: config.batch_timeout.as_millis() as u64,
            backoff_min: config.backoff_min,
            backoff_max: config.backoff_max,
        };
        Delivery {
            limits,
            shards: (0..config.in_flight_max).map(|_| Shard::default()).collect(),
            last: 0,
            done: 0,
            done_early: BTreeSet::new(),
            bytes: 0,
            trouble: None,
            accepted_lines: 0,
        }
    }

    /// Room for another chunk. Two requests for each shard are held: one under way, one being gathered.
    pub fn has_room(&self) -> bool {
        self.bytes < 2 * self.shards.len() * self.limits.batch_bytes
    }

    /// Takes the next chunk; returns its number, 1 and up.
    pub fn take(&mut self, now_ms: u64, chunk: Chunk) -> u64 {
        self.last += 1;
        self.bytes += chunk.body.len();
        let shard = (chunk.lane % self.shards.len() as u64) as usize;
        self.shards[shard].queue.push_back(Queued { number: self.last, taken_ms: now_ms, chunk });
        self.last
    }

    /// What can be done now. `flush`: do not wait for more lines.
    pub fn poll(&mut self, now_ms: u64, flush: bool) -> Vec<Order> {
        let mut orders = Vec::new();
        for index in 0..self.shards.len() {
            let shard = &mut self.shards[index];
            if shard.job.is_none() && shard.is_due(&self.limits, now_ms, flush) {
                shard.job = Some(shard.gather(&self.limits));
            }
            if let Some(job) = &mut shard.job
                && job.may_go(now_ms)
            {
                job.state = JobState::UnderWay;
                orders.push(job.order(index));
            }
        }
        orders
    }

    /// When [`Delivery::poll`] would have something to do again without an answer or a new chunk.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let deadline = |shard: &Shard| match &shard.job {
            Some(Job { state: JobState::Waiting(until), .. }) => Some(*until),
            Some(_) => None,
            None => shard.queue.front().map(|first| first.taken_ms + self.limits.batch_timeout_ms),
        };
        self.shards.iter().filter_map(deadline).min()
    }

    /// A request ended. `chance` spreads the pauses of agents that failed together.
    pub fn on_outcome(&mut self, now_ms: u64, shard: usize, outcome: &Outcome, chance: u64) -> Verdict {
        let verdict = judge(outcome);
        let job = self.shards[shard].job.as_mut().expect("an answer is for a request under way");
        match &verdict {
            Verdict::Accepted => {
                self.trouble = None;
                self.accepted_lines += job.parts.pop_front().map_or(0, |part| part.lines as u64);
                self.go_on(shard);
            }
            Verdict::Retry { reason, after, words } => {
                job.wait(now_ms, *after, &self.limits, chance);
                self.trouble = Some(Trouble { reason: *reason, words: words.clone(), hold: false });
            }
            Verdict::Hold { reason, words } => {
                job.wait(now_ms, Duration::ZERO, &self.limits, chance);
                self.trouble = Some(Trouble { reason: *reason, words: words.clone(), hold: true });
            }
            Verdict::Refused { reason, code, words } => {
                // The other side is well: it read the request and judged it.
                self.trouble = None;
                job.failures = 0;
                job.state = JobState::Ready;
                job.cut(*reason, *code, words);
            }
        }
        verdict
    }

    /// A refused line is in the dead letters, or could not be written there and must be tried again.
    pub fn on_buried(&mut self, now_ms: u64, shard: usize, result: Result<(), String>, chance: u64) {
        let job = self.shards[shard].job.as_mut().expect("a line of a job was buried");
        match result {
            Ok(()) => {
                job.parts.pop_front();
                self.go_on(shard);
            }
            Err(words) => {
                job.wait(now_ms, Duration::ZERO, &self.limits, chance);
                let reason = PushFailure::DeadLettersUnwritable;
                self.trouble = Some(Trouble { reason, words, hold: true });
            }
        }
    }

    fn go_on(&mut self, index: usize) {
        let shard = &mut self.shards[index];
        let Some(job) = &mut shard.job else { return };
        job.failures = 0;
        job.state = JobState::Ready;
        if !job.parts.is_empty() {
            return;
        }
        self.bytes -= job.bytes;
        self.done_early.extend(job.numbers.drain(..));
        shard.job = None;
        while self.done_early.remove(&(self.done + 1)) {
            self.done += 1;
        }
    }

    /// Nothing is left up to this chunk.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// Nothing is left at all.
    pub fn is_empty(&self) -> bool {
        self.done == self.last
    }

    /// What is wrong now.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// Lines accepted so far.
    pub fn accepted_lines(&self) -> u64 {
        self.accepted_lines
    }
}

impl Shard {
    fn is_due(&self, limits: &Limits, now_ms: u64, flush: bool) -> bool {
        let Some(first) = self.queue.front() else { return false };
        let bytes: usize = self.queue.iter().map(|queued| queued.chunk.body.len()).sum();
        let lines: usize = self.queue.iter().map(|queued| queued.chunk.lines as usize).sum();
        flush
            || bytes >= limits.batch_bytes
            || lines >= limits.batch_lines
            || now_ms >= first.taken_ms + limits.batch_timeout_ms
    }

    /// The oldest chunks that fit into one request: of one tenant, at least one.
    fn gather(&mut self, limits: &Limits) -> Job {
        let (mut body, mut lines, mut numbers) = (Vec::new(), 0, Vec::new());
        let mut tenant = String::new();
        while let Some(next) = self.queue.front() {
            let chunk = &next.chunk;
            let fits = body.len() + chunk.body.len() <= limits.batch_bytes
                && lines + chunk.lines as usize <= limits.batch_lines
                && chunk.tenant == tenant;
            if !numbers.is_empty() && !fits {
                break;
            }
            let Some(Queued { number, chunk, .. }) = self.queue.pop_front() else { break };
            numbers.push(number);
            tenant = chunk.tenant;
            lines += chunk.lines as usize;
            body.extend_from_slice(&chunk.body);
        }
        let bytes = body.len();
        let parts = VecDeque::from([Part { lines, body, refused: None }]);
        Job { numbers, bytes, tenant, parts, state: JobState::Ready, failures: 0 }
    }
}

impl Job {
    fn may_go(&self, now_ms: u64) -> bool {
        match self.state {
            JobState::Ready => true,
            JobState::UnderWay => false,
            JobState::Waiting(until) => until <= now_ms,
        }
    }

    fn order(&self, shard: usize) -> Order {
        let part = self.parts.front().expect("a job without parts is gone");
        match &part.refused {
            Some(letter) => Order::Bury { shard, letter: letter.clone() },
            None => {
                Order::Send { shard, tenant: self.tenant.clone(), lines: part.lines, body: part.body.clone() }
            }
        }
    }

    /// Half fixed, half chance.
    fn wait(&mut self, now_ms: u64, at_least: Duration, limits: &Limits, chance: u64) {
        let doubled = limits.backoff_min.saturating_mul(1 << self.failures.min(16)).min(limits.backoff_max);
        self.failures += 1;
        let whole = doubled.as_millis() as u64;
        let pause = whole / 2 + chance % (whole / 2 + 1);
        self.state = JobState::Waiting(now_ms + pause.max(at_least.as_millis() as u64));
    }

    /// Cuts the part that was refused; a line that is alone is to be buried.
    fn cut(&mut self, reason: DeadLetterReason, code: u16, words: &str) {
        let part = self.parts.pop_front().expect("a part was refused");
        // Only what we encoded ourselves is in the spool, and its checksum was right.
        let request = PushRequest::decode(part.body.as_slice()).unwrap_or_default();
        if request.lines() > 1 {
            let pieces = match suspects(&request, words) {
                Some(range) => {
                    let (head, tail) = request.split_at(range.end);
                    let (head, middle) = head.split_at(range.start);
                    vec![head, middle, tail]
                }
                None => {
                    let half = request.lines() / 2;
                    <[_; 2]>::from(request.split_at(half)).into()
                }
            };
            for piece in pieces.into_iter().rev().filter(|piece| piece.lines() > 0) {
                let (lines, body) = (piece.lines(), piece.encode_to_vec());
                self.parts.push_front(Part { lines, body, refused: None });
            }
            return;
        }
        let mut streams = request.streams.into_iter();
        let (labels, mut entries) =
            streams.next().map(|stream| (stream.labels, stream.entries)).unwrap_or_default();
        let letter = Refused {
            reason,
            code,
            words: words.to_owned(),
            tenant: self.tenant.clone(),
            labels,
            entry: entries.pop().unwrap_or_default(),
        };
        self.parts.push_front(Part { refused: Some(letter), ..part });
    }
}

/// Loki stores the good lines of a request that it refuses, so each cut sends them again, and Loki has to drop them
/// again. Its words name the label set, and often the time, of a line that it refused: that narrows the search at once.
/// `None` = the words are no help.
fn suspects(request: &PushRequest, words: &str) -> Option<Range<usize>> {
    let entries = || {
        request.streams.iter().flat_map(|stream| stream.entries.iter().map(|entry| (&stream.labels, entry)))
    };
    let named = |(labels, _): &(&String, &EntryAdapter)| words.contains(labels.as_str());
    let timed = |(_, entry): &(&String, &EntryAdapter)| {
        // Loki writes times to the second.
        let text = timestamp::format(entry.timestamp.unwrap_or_default().to_ns());
        text.get(.."2026-01-01T00:00:00".len()).is_some_and(|second| words.contains(second))
    };
    let range = |suspect: &dyn Fn(&(&String, &EntryAdapter)) -> bool| {
        let mut places = entries().enumerate().filter(|(_, entry)| suspect(entry)).map(|(index, _)| index);
        let first = places.next()?;
        let range = first..places.last().unwrap_or(first) + 1;
        (range.len() < request.lines()).then_some(range)
    };
    range(&|entry| named(entry) && timed(entry)).or_else(|| range(&named))
}

#[cfg(test)]
#[path = "delivery_tests.rs"]
mod tests;
