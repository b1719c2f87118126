//! Which lines go into which request, in what order, and what happens after each answer. Pure: places in the spool,
//! answers and the time go in, orders come out. `label_set.rs` has the waiting records of a label set, `parts.rs`
//! splits requests, `verdicts.rs` applies an answer.
//!
//! ```text
//! record ─▶ label set ─ due ─▶ turn: tenants, then their label sets ─▶ slot: Load ─▶ Send ─ accepted ─▶ done
//!              ▲ ▲                                                          │
//!              │ └─ waits: 429 of the label set, or its request failed ◀────┤
//!              ├─ its tenant waits: 401, 403, 404, 429 of the tenant ◀──────┤
//!              ├─ all wait: nobody there, or somebody else than Loki ◀──────┘ (an empty push asks until Loki answers)
//!              ├─ refused by a firewall: cut apart once others of the tenant were accepted between two refusals
//!              └─ refused: dead letters; the rest goes on, in parts if Loki's words do not say which lines it meant
//! ```
//! A label set has at most one request in flight, so its order is kept, whatever fails. A request has lines of one
//! label set only: for several, Loki's answer is about the last one, and the others' lines are dropped silently. A
//! label set that waits holds neither memory nor a slot, so it costs others nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use prost::Message as _;

use super::answer::{Presence, PushOutcome, presence};
use super::body_limit::BodyLimit;
use super::label_set::{Entry, Job, LabelSet, LabelSetState};
use super::nouns::{Limits, Progress, Server, Slot, Tenant};
use super::parcel::Parcel;
use super::refusals;
use crate::settings::Loki;
use crate::sink::spool::Position;
use crate::telemetry::metrics::PushFailure;

pub use super::nouns::{LoadedRecord, Now, Order, Refused, Trouble};

/// How many records' places are known at once. Beyond this reading waits: some 10 MiB of memory.
pub(super) const ENTRIES_MAX: usize = 131_072;
/// How many tenants without lines are remembered, with their state.
const TENANTS_REMEMBERED: usize = 1_000;

/// The delivery; see the head of this file.
#[derive(Debug)]
pub struct Delivery {
    pub(super) limits: Limits,
    pub(super) body_limit: BodyLimit,
    /// Fixed for all lines; `None` = it depends on the line.
    pub(super) tenant: Option<String>,
    pub(super) label_sets: BTreeMap<u64, LabelSet>,
    pub(super) tenants: BTreeMap<String, Tenant>,
    /// The tenant that had the last turn.
    last_tenant: String,
    timers: BTreeSet<(u64, u64)>,
    pub(super) slots: Vec<Slot>,
    pub(super) server: Server,
    /// Label sets that wait because their request failed: they continue when another one's succeeds.
    pub(super) failed: BTreeSet<u64>,
    pub(super) done: Vec<Position>,
    entries: usize,
    pub(super) kept_bytes: usize,
    pub(super) progress: Progress,
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
            line_age: config.max_line_age,
        };
        Delivery {
            limits,
            body_limit: BodyLimit::new(limits.batch_bytes),
            tenant: config.fixed_tenant(),
            label_sets: BTreeMap::new(),
            tenants: BTreeMap::new(),
            last_tenant: String::new(),
            timers: BTreeSet::new(),
            slots: (0..config.in_flight_max).map(|_| Slot::Free).collect(),
            server: Server::default(),
            failed: BTreeSet::new(),
            done: Vec::new(),
            entries: 0,
            kept_bytes: 0,
            progress: Progress::default(),
        }
    }

    /// How many more records' places it can take.
    pub fn has_room(&self) -> bool {
        self.entries < ENTRIES_MAX
    }

    /// Adds a record of the spool: its label set, tenant, lines and bytes, its place, and how many of its lines are
    /// done.
    pub fn take(
        &mut self,
        now: Now,
        id: u64,
        tenant: &str,
        (lines, bytes): (usize, usize),
        (place, done): (Position, usize),
    ) {
        self.entries += 1;
        let label_set = self.label_sets.entry(id).or_insert_with(|| {
            self.tenants.entry(tenant.to_owned()).or_default().label_sets += 1;
            LabelSet::new(tenant.to_owned(), self.limits.batch_lines)
        });
        let (lines, done) = (lines.max(1), done.min(lines.saturating_sub(1)));
        label_set.push(Entry { place, lines, bytes, taken_ms: now.ms, done });
        if label_set.state == LabelSetState::Gathering {
            if label_set.bytes >= self.body_limit.bytes() || label_set.lines >= self.limits.batch_lines {
                self.make_ready(id);
            } else if label_set.timer.is_none() {
                self.set_timer(id, now.ms + self.limits.batch_timeout_ms);
            }
        }
    }

    /// The next order, if there is one. `flush`: do not wait for more lines.
    pub fn poll(&mut self, now: Now, flush: bool) -> Vec<Order> {
        while let Some((at, id)) = self.timers.first().copied()
            && at <= now.ms
        {
            self.make_ready(id);
        }
        self.body_limit.on_time(now.ms);
        if flush {
            let gathering = |(_, label_set): &(&u64, &LabelSet)| label_set.state == LabelSetState::Gathering;
            let ids: Vec<u64> = self.label_sets.iter().filter(gathering).map(|(id, _)| *id).collect();
            ids.into_iter().for_each(|id| self.make_ready(id));
        }
        let mut orders = Vec::new();
        let asks = if self.server.is_up { self.server.wants_probe } else { now.ms >= self.server.until_ms };
        if asks && self.server.probing_ms.is_none() {
            self.server.probing_ms = Some(now.ms);
            self.server.wants_probe = false;
            orders.push(Order::Probe { tenant: self.probed_tenant() });
        }
        for slot in 0..self.slots.len() {
            if matches!(self.slots[slot], Slot::Ready(_)) {
                orders.extend(self.go_on(slot));
            }
            if matches!(self.slots[slot], Slot::Free)
                && self.server.is_up
                && let Some(id) = self.next_label_set(now)
            {
                orders.extend(self.begin(slot, id));
            }
        }
        if orders.iter().any(|order| matches!(order, Order::Send { .. })) {
            self.progress.asked_ms.get_or_insert(now.ms);
        }
        orders
    }

    /// The tenant of an empty push: the only one, or one whose lines wait.
    fn probed_tenant(&self) -> String {
        let waiting = || self.tenants.keys().find(|name| !name.is_empty()).cloned();
        self.tenant.clone().or_else(waiting).unwrap_or_default()
    }

    /// Tenants take turns, and the label sets of each.
    fn next_label_set(&mut self, now: Now) -> Option<u64> {
        let can = |tenant: &Tenant| {
            // One request shows whether it takes lines again.
            let trusted = tenant.backoff.failures() == 0 || tenant.under_way == 0;
            !tenant.ready.is_empty() && tenant.until_ms <= now.ms && trusted
        };
        use std::ops::Bound::{Excluded, Unbounded};
        let later = self.tenants.range::<str, _>((Excluded(self.last_tenant.as_str()), Unbounded));
        let name = later.chain(self.tenants.iter()).find(|(_, tenant)| can(tenant))?.0.clone();
        self.last_tenant.clone_from(&name);
        self.tenants.get_mut(&name)?.ready.pop_front()
    }

    fn begin(&mut self, slot: usize, id: u64) -> Option<Order> {
        let label_set = self.label_sets.get_mut(&id)?;
        label_set.state = LabelSetState::Busy;
        if let Some(tenant) = self.tenants.get_mut(&label_set.tenant) {
            tenant.under_way += 1;
        }
        if let Some(job) = label_set.kept.take() {
            self.kept_bytes -= job.bytes();
            self.slots[slot] = Slot::Ready(job);
            return self.go_on(slot);
        }
        self.slots[slot] = Slot::Loading(id);
        Some(Order::Load { slot, places: label_set.next_request(self.body_limit.bytes()) })
    }

    /// The next step of a job that has a slot.
    fn go_on(&mut self, slot: usize) -> Option<Order> {
        let Slot::Ready(job) = std::mem::replace(&mut self.slots[slot], Slot::Free) else { return None };
        let part = job.parts.front()?;
        if part.letters.is_empty() && !self.server.is_up {
            self.pause_job(job, false);
            return None;
        }
        let order = if part.letters.is_empty() {
            let tenant = self
                .label_sets
                .get(&job.label_set)
                .map(|label_set| label_set.tenant.clone())
                .unwrap_or_default();
            Order::Send { slot, tenant, lines: part.lines, body: part.body.clone() }
        } else {
            Order::Bury { slot, letters: part.letters.clone() }
        };
        self.slots[slot] = Slot::UnderWay(job);
        Some(order)
    }

    /// The records of an [`Order::Load`], in their order.
    pub fn on_loaded(&mut self, now: Now, slot: usize, records: Vec<LoadedRecord>) {
        let Slot::Loading(id) = self.slots[slot] else { panic!("records for a slot that asked for none") };
        self.slots[slot] = Slot::Free;
        let Some(label_set) = self.label_sets.get(&id) else { return };
        let whole: usize = label_set.queue.iter().take(records.len()).map(|entry| entry.lines).sum();
        // Records that are gone were counted as lost: they must not count as accepted, too.
        let there: Vec<bool> = records.iter().map(|record| !record.body.is_empty()).collect();
        let (at, left) = label_set.to_send(&there);
        let bodies = records.into_iter().map(|record| record.body).filter(|body| !body.is_empty());
        let mut body = Parcel::join(bodies.collect());
        if at.len() < left.len() {
            let request = refusals::decode(&body.request());
            body = Parcel::plain(refusals::pick(&request, |index| left[index]).encode_to_vec());
        }
        let span = (label_set.skip, whole);
        let parts = self.parts(now, &label_set.tenant, label_set.lines_max, span, (at, body));
        let job = Job::new(id, parts);
        self.settle(now, slot, job);
    }

    /// The answer to an empty push.
    pub fn on_probe(&mut self, now: Now, outcome: &PushOutcome, chance: u64) -> Presence {
        self.server.probing_ms = None;
        let presence = presence(outcome, self.tenant.is_none());
        match &presence {
            Presence::Loki => {
                self.server.present += 1;
                self.server.was_up = true;
                self.go_up();
            }
            Presence::AsksForTenant { .. } => self.go_up(),
            Presence::No { reason, words, hold, after } => {
                self.progress.last_answer.clone_from(words);
                self.go_down(now, *reason, words, *hold, *after, chance);
            }
        }
        presence
    }

    fn go_up(&mut self) {
        self.server.is_up = true;
        self.server.failed_in_a_row = 0;
        self.server.trouble = None;
    }

    /// Nobody may send until an empty push was answered the way Loki does.
    pub(super) fn go_down(
        &mut self,
        now: Now,
        reason: PushFailure,
        words: &str,
        hold: bool,
        after: Duration,
        chance: u64,
    ) {
        let since_ms = self.server.trouble.as_ref().map_or(now.ms, |trouble| trouble.since_ms);
        self.server.trouble = Some(Trouble { reason, words: words.to_owned(), hold, since_ms });
        let Limits { backoff_min, backoff_max, .. } = self.limits;
        self.server.until_ms = now.ms + self.server.backoff.next_ms(backoff_min, backoff_max, after, chance);
        self.server.is_up = false;
        // Tenants may or may not be refused now.
        self.tenants.values_mut().for_each(|tenant| tenant.forget_trouble(now));
    }

    /// A tenant takes nothing for a while.
    pub(super) fn close_tenant(
        &mut self,
        now: Now,
        name: &str,
        trouble: Trouble,
        after: Duration,
        chance: u64,
    ) {
        let Limits { backoff_min, backoff_max, .. } = self.limits;
        let Some(tenant) = self.tenants.get_mut(name) else { return };
        // Answers to requests that were in flight together are one failure.
        if tenant.until_ms <= now.ms {
            tenant.until_ms = now.ms + tenant.backoff.next_ms(backoff_min, backoff_max, after, chance);
        }
        let since_ms = tenant.trouble.as_ref().map_or(now.ms, |trouble| trouble.since_ms);
        tenant.trouble = Some(Trouble { since_ms, ..trouble });
        tenant.refused_ms = now.ms;
    }

    /// A label set's job is over for now: it continues with the kept part of it, or reads the rest again.
    pub(super) fn pause_job(&mut self, job: Job, must_keep: bool) {
        let id = job.label_set;
        self.release(id);
        self.keep(job, must_keep);
        self.make_ready(id);
    }

    /// Keeps a job that was cut up, if there is room or it can't be read again.
    pub(super) fn keep(&mut self, job: Job, must_keep: bool) {
        // One is always kept: a record may be larger than the config now allows, and the search in it would never end.
        let most = 2 * self.slots.len() * self.limits.batch_bytes;
        let room = self.kept_bytes == 0 || self.kept_bytes + job.bytes() <= most;
        let must_keep = must_keep || !job.doubtful.is_empty() || job.late > 0;
        let Some(label_set) = self.label_sets.get_mut(&job.label_set) else { return };
        if must_keep || (room && job.was_cut) {
            self.kept_bytes += job.bytes();
            label_set.kept = Some(job);
        } else {
            label_set.leave(&job);
        }
    }

    pub(super) fn release(&mut self, id: u64) {
        let Some(label_set) = self.label_sets.get(&id) else { return };
        if let Some(tenant) = self.tenants.get_mut(&label_set.tenant) {
            tenant.under_way -= 1;
        }
    }

    /// Nothing of its job is left: decides what the label set does next.
    pub(super) fn rest(&mut self, now: Now, id: u64) {
        self.release(id);
        let Some(label_set) = self.label_sets.get_mut(&id) else { return };
        label_set.state = LabelSetState::Gathering;
        label_set.refused_at = None;
        let Some(first) = label_set.queue.front().copied() else {
            self.forget(id);
            return;
        };
        let full = label_set.bytes >= self.body_limit.bytes() || label_set.lines >= self.limits.batch_lines;
        let due_ms = first.taken_ms + self.limits.batch_timeout_ms;
        if full || due_ms <= now.ms {
            self.make_ready(id);
        } else {
            self.set_timer(id, due_ms);
        }
    }

    fn forget(&mut self, id: u64) {
        self.failed.remove(&id);
        let Some(label_set) = self.label_sets.remove(&id) else { return };
        if let Some(at) = label_set.timer {
            self.timers.remove(&(at, id));
        }
        // What it learned is worth keeping, but their names may come from containers.
        let many = self.tenants.len() > TENANTS_REMEMBERED;
        if let Some(tenant) = self.tenants.get_mut(&label_set.tenant) {
            tenant.label_sets -= 1;
            if tenant.label_sets == 0 && (many || tenant.backoff.failures() == 0 && tenant.oldest.is_none()) {
                self.tenants.remove(&label_set.tenant);
            }
        }
    }

    pub(super) fn set_timer(&mut self, id: u64, at: u64) {
        let Some(label_set) = self.label_sets.get_mut(&id) else { return };
        if let Some(before) = label_set.timer.replace(at) {
            self.timers.remove(&(before, id));
        }
        self.timers.insert((at, id));
    }

    /// Puts it behind all others of its tenant.
    pub(super) fn make_ready(&mut self, id: u64) {
        let Some(label_set) = self.label_sets.get_mut(&id) else { return };
        if let Some(at) = label_set.timer.take() {
            self.timers.remove(&(at, id));
        }
        self.failed.remove(&id);
        label_set.state = LabelSetState::Ready;
        if let Some(tenant) = self.tenants.get_mut(&label_set.tenant) {
            tenant.ready.push_back(id);
        }
    }

    /// This many lines of a label set are done.
    pub(super) fn advance(&mut self, id: u64, lines: usize) {
        let Some(label_set) = self.label_sets.get_mut(&id) else { return };
        let before = self.done.len();
        label_set.advance(lines, &mut self.done);
        self.entries -= self.done.len() - before;
    }

    /// Drops the oldest records of a label set that has nothing in flight or cut up, until at least this many of their
    /// bytes are gone. Returns their places; the first may have been delivered in part.
    pub fn give_up(&mut self, id: u64, bytes: u64) -> Vec<Position> {
        let Some(label_set) = self.label_sets.get_mut(&id) else { return Vec::new() };
        let mut gone = 0;
        let given_up = label_set.give_up(|entry| {
            let more = gone < bytes;
            gone += entry.bytes as u64;
            more
        });
        self.entries -= given_up.len();
        given_up
    }

    /// Forgets records in segments before this one, which a full spool dropped. Returns their places.
    pub fn give_up_before(&mut self, segment: u64) -> Vec<Position> {
        let label_sets = self.label_sets.values_mut();
        let given_up: Vec<Position> = label_sets
            .flat_map(|label_set| label_set.give_up(|entry| entry.place.segment < segment))
            .collect();
        self.entries -= given_up.len();
        given_up
    }

    /// When [`Delivery::poll`] would have something to do again without an answer or a new record.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let server = (!self.server.is_up && self.server.probing_ms.is_none()).then_some(self.server.until_ms);
        let tenants = self.tenants.values().filter(|tenant| !tenant.ready.is_empty() && tenant.until_ms > 0);
        let free = self.slots.iter().any(|slot| matches!(slot, Slot::Free)) && self.server.is_up;
        let tenants = tenants.filter(|tenant| free && tenant.under_way == 0).map(|tenant| tenant.until_ms);
        let label_sets = self.timers.first().map(|(at, _)| *at);
        server.into_iter().chain(tenants).chain(label_sets).min()
    }

    /// Records that were finished since the last call.
    pub fn take_done(&mut self) -> Vec<Position> {
        std::mem::take(&mut self.done)
    }

    /// Records of which some lines are done, and how many from the first on.
    pub fn done_in_part(&self) -> impl Iterator<Item = (Position, usize)> {
        let label_sets = self.label_sets.values().filter(|label_set| label_set.skip > 0);
        label_sets.filter_map(|label_set| Some((label_set.queue.front()?.place, label_set.skip)))
    }

    /// Whether there is nothing left to deliver.
    pub fn is_empty(&self) -> bool {
        self.label_sets.is_empty()
    }
}

#[cfg(test)]
#[path = "delivery_tests.rs"]
mod tests;
