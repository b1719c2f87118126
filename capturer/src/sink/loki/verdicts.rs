//! What an answer changes for a job, its label set, its tenant and everybody. Part of [`Delivery`]; pure.

use std::time::Duration;

use prost::Message as _;

use super::answer::{PushOutcome, Scope, Verdict, WRONG_ADDRESS, judge, may_mean_a_line};
use super::body_limit;
use super::delivery::{Delivery, Now, Trouble};
use super::label_set::{Job, LabelSetState, LabelSetTrouble, Part};
use super::nouns::{Slot, letters};
use super::parcel::Parcel;
use super::push::PushRequest;
use super::refusals;
use crate::telemetry::metrics::{DeadLetterReason, PushFailure};

/// After this many refusals in a row for unknown reasons, and nothing accepted in between, the address is wrong, not
/// the lines. It is more than it takes to find one line among a thousand.
const DOUBTS_MAX: u32 = 12;
/// How many refusals in a row of one tenant are blamed on a line, until others of the tenant were accepted.
pub(super) const IN_A_ROW_MAX: u32 = 24;
/// How often in a row a single line is refused before it is given up.
pub(super) const ALONE_MAX: u32 = 8;

impl Delivery {
    /// A request ended. `chance` spreads the pauses of agents that failed together.
    pub fn on_outcome(&mut self, now: Now, slot: usize, outcome: &PushOutcome, chance: u64) -> Verdict {
        let mut job = self.take_job(slot);
        let verdict = judge(outcome);
        let more = self.slots.iter().any(|slot| matches!(slot, Slot::UnderWay(_)));
        self.progress.asked_ms = more.then_some(now.ms);
        let may_be_a_line = may_mean_a_line(outcome).is_some();
        if let Some(part) = job.parts.front_mut().filter(|_| !may_be_a_line) {
            part.alone = 0;
        }
        self.remember(outcome);
        let tenant = self.tenant_of(job.label_set);
        match &verdict {
            Verdict::Accepted => {
                self.on_accepted(now, &tenant, &mut job);
                self.settle(now, slot, job);
            }
            Verdict::Retry { scope, reason, after, words } => {
                let trouble =
                    Trouble { reason: *reason, words: words.clone(), hold: false, since_ms: now.ms };
                self.on_failed(now, (*scope, trouble, *after), &tenant, job, chance);
            }
            Verdict::Hold { .. } if self.means_a_line(outcome, &tenant, job.label_set) => {
                self.on_line_refused(&tenant, &mut job, outcome);
                self.settle(now, slot, job);
            }
            Verdict::Hold { reason, words } => {
                let trouble = Trouble { reason: *reason, words: words.clone(), hold: true, since_ms: now.ms };
                self.on_failed(now, (Scope::Tenant, trouble, Duration::ZERO), &tenant, job, chance);
            }
            Verdict::Refused { reason, code, words } => {
                self.on_refused(now, &tenant, &mut job, (*reason, *code, words));
                let doubts = self.server.doubts_in_a_row;
                if *reason == DeadLetterReason::Other && doubts > DOUBTS_MAX && !self.has_witness(&job) {
                    self.doubt_address(now, job, *code, words, chance);
                } else {
                    self.settle_refused(now, slot, job, chance);
                }
            }
        }
        verdict
    }

    /// Refused lines are in the dead letters, or could not be written there and must be tried again.
    pub fn on_buried(&mut self, now: Now, slot: usize, result: Result<(), String>, chance: u64) {
        let mut job = self.take_job(slot);
        match result {
            Ok(()) => {
                if let Some(part) = job.parts.front_mut() {
                    part.letters.clear();
                }
                self.settle(now, slot, job);
            }
            Err(words) => {
                let reason = PushFailure::DeadLettersUnwritable;
                let trouble = Trouble { reason, words, hold: true, since_ms: now.ms };
                self.wait(now, job, trouble, (Duration::ZERO, true), chance);
            }
        }
    }

    fn take_job(&mut self, slot: usize) -> Job {
        match std::mem::replace(&mut self.slots[slot], Slot::Free) {
            Slot::UnderWay(job) => job,
            other => panic!("an answer for a slot that waits for none: {other:?}"),
        }
    }

    fn tenant_of(&self, id: u64) -> String {
        self.label_sets.get(&id).map(|label_set| label_set.tenant.clone()).unwrap_or_default()
    }

    fn remember(&mut self, outcome: &PushOutcome) {
        self.progress.last_answer = match outcome {
            PushOutcome::Failed(_, words) => words.clone(),
            PushOutcome::Status { code, words, .. } if words.is_empty() => format!("status {code}"),
            PushOutcome::Status { code, words, .. } => format!("status {code}: {words}"),
        };
    }

    fn on_accepted(&mut self, now: Now, tenant: &str, job: &mut Job) {
        self.progress.accepted += 1;
        self.progress.accepted_ms = Some(now.ms);
        self.body_limit.on_accepted();
        self.server.backoff.reset();
        self.server.failed_in_a_row = 0;
        self.server.doubts_in_a_row = 0;
        self.server.was_up = true;
        self.open_tenant(now, tenant);
        if let Some(tenant) = self.tenants.get_mut(tenant) {
            tenant.accepted += 1;
            tenant.refused_in_a_row = 0;
        }
        if let Some(part) = job.parts.front_mut() {
            self.progress.accepted_lines += part.lines as u64;
            put(part, &PushRequest::default(), |_| false);
        }
        let batch_lines = self.limits.batch_lines;
        if let Some(label_set) = self.label_sets.get_mut(&job.label_set) {
            label_set.backoff.reset();
            label_set.trouble.take_if(|told| told.is_over(now.ms));
            label_set.lines_max = label_set.lines_max.saturating_mul(2).min(batch_lines);
        }
        // Requests that failed because of the outage need not wait longer.
        std::mem::take(&mut self.failed).into_iter().for_each(|id| self.make_ready(id));
    }

    fn open_tenant(&mut self, now: Now, name: &str) {
        if let Some(tenant) = self.tenants.get_mut(name) {
            tenant.backoff.reset();
            tenant.forget_trouble(now);
        }
    }

    /// A tenant's or a label set's trouble is no more what its last answer was: health would go on naming another cause.
    fn forget_other_trouble(&mut self, now: Now, scope: Scope, tenant: &str, label_set: u64) {
        match scope {
            Scope::Tenant => {
                if let Some(label_set) = self.label_sets.get_mut(&label_set) {
                    label_set.trouble.take_if(|told| told.is_over(now.ms));
                }
            }
            Scope::Request | Scope::Server => {
                if let Some(tenant) = self.tenants.get_mut(tenant) {
                    tenant.forget_trouble(now);
                }
            }
            Scope::LabelSet => {}
        }
    }

    fn on_failed(
        &mut self,
        now: Now,
        (scope, trouble, after): (Scope, Trouble, Duration),
        tenant: &str,
        mut job: Job,
        chance: u64,
    ) {
        self.forget_other_trouble(now, scope, tenant, job.label_set);
        match scope {
            Scope::LabelSet => {
                self.open_tenant(now, tenant);
                self.server.failed_in_a_row = 0;
                self.server.backoff.reset();
                if trouble.reason == PushFailure::StreamRateLimited {
                    self.slow_down(&mut job);
                }
                self.wait(now, job, trouble, (after, false), chance);
            }
            Scope::Tenant => {
                // A tenant's limit takes a request whole or not at all.
                let often = self.tenants.get(tenant).is_some_and(|tenant| tenant.backoff.failures() >= 3);
                if trouble.reason == PushFailure::RateLimited && often {
                    self.slow_down(&mut job);
                }
                let hit = job.parts.front().map(|part| part.body.labels());
                if let Some(tenant) = self.tenants.get_mut(tenant) {
                    tenant.example = hit.unwrap_or_default();
                }
                self.close_tenant(now, tenant, trouble, after, chance);
                self.pause_job(job, false);
            }
            Scope::Request => {
                self.server.failed_in_a_row += 1;
                let id = job.label_set;
                let everybody = self.server.failed_in_a_row > self.slots.len();
                if everybody && self.server.is_up {
                    self.go_down(now, trouble.reason, &trouble.words, trouble.hold, after, chance);
                }
                self.wait(now, job, trouble, (after, false), chance);
                self.failed.insert(id);
            }
            Scope::Server => {
                if self.server.is_up {
                    self.go_down(now, trouble.reason, &trouble.words, trouble.hold, after, chance);
                }
                self.pause_job(job, false);
            }
        }
    }

    /// A request over the rate may never pass if the limit is smaller than the request.
    fn slow_down(&mut self, job: &mut Job) {
        let Some(part) = job.parts.front() else { return };
        let half = (part.lines / 2).max(1);
        if let Some(label_set) = self.label_sets.get_mut(&job.label_set) {
            label_set.lines_max = label_set.lines_max.min(half);
        }
        if job.was_cut && part.lines > 1 {
            cut(job);
        }
    }

    /// The label set pauses, and holds nothing meanwhile but what can't be read again.
    fn wait(
        &mut self,
        now: Now,
        job: Job,
        trouble: Trouble,
        (after, must_keep): (Duration, bool),
        chance: u64,
    ) {
        let id = job.label_set;
        self.release(id);
        let labels = job.parts.iter().map(|part| part.body.labels()).find(|labels| !labels.is_empty());
        let labels = labels.or_else(|| Some(job.parts.front()?.letters.first()?.labels.clone()));
        let (min, max) = (self.limits.backoff_min, self.limits.backoff_max);
        let Some(label_set) = self.label_sets.get_mut(&id) else { return };
        label_set.state = LabelSetState::Waiting;
        let until_ms = now.ms + label_set.backoff.next_ms(min, max, after, chance);
        let since_ms = label_set.trouble.as_ref().map_or(now.ms, |told| told.trouble.since_ms);
        let trouble = Trouble { since_ms, ..trouble };
        label_set.trouble =
            Some(LabelSetTrouble { labels: labels.unwrap_or_default(), trouble, last_ms: now.ms });
        self.keep(job, must_keep);
        self.set_timer(id, until_ms);
    }

    fn on_refused(
        &mut self,
        now: Now,
        tenant: &str,
        job: &mut Job,
        (reason, code, words): (DeadLetterReason, u16, &str),
    ) {
        let Some(part) = job.parts.front_mut() else { return };
        let request = refusals::decode(&part.body.request());
        let too_large = reason == DeadLetterReason::BodyTooLarge;
        let part_bytes = part.body.len();
        if reason == DeadLetterReason::Other {
            self.server.doubts_in_a_row += 1;
            job.doubt.get_or_insert(self.progress.accepted + self.server.present);
        } else {
            // Loki is well: it read the request and judged it.
            self.server.backoff.reset();
            self.server.failed_in_a_row = 0;
            self.server.doubts_in_a_row = 0;
            self.open_tenant(now, tenant);
            self.learn_oldest(now, tenant, words);
            if let Some(label_set) = self.label_sets.get_mut(&job.label_set) {
                label_set.backoff.reset();
                label_set.trouble.take_if(|told| told.is_over(now.ms));
            }
        }
        if too_large && request.lines() > 1 {
            self.body_limit.on_too_large(now.ms, &part.body, (code, words));
            cut_to_size(job, self.body_limit.bytes().min(part_bytes / 2));
            return;
        }
        job.tries = job.tries.saturating_sub(1);
        let sorted = if too_large || reason == DeadLetterReason::Other {
            refusals::Sorted::default()
        } else {
            refusals::sort(&request, words, now.unix_ns)
        };
        if !sorted.is_empty() {
            // Refused again: one line alone is, of several the words may still tell some, or the halves do.
            let again = part.sent_again;
            let alone = sorted.refused.is_empty() && sorted.unsure.len() == 1;
            let is_last = again && (alone || job.tries == 0);
            let is_refused =
                |index| sorted.refused.contains_key(&index) || (is_last && sorted.unsure.contains(&index));
            let refused = refusals::pick(&request, is_refused);
            let reasons: Vec<DeadLetterReason> = (0..request.lines())
                .filter(|index| is_refused(*index))
                .map(|index| sorted.refused.get(&index).copied().unwrap_or(reason))
                .collect();
            part.letters = letters(tenant, &refused, |index| reasons[index], code, words);
            let stored = request.lines() - refused.lines();
            put(part, &request, |index| !is_last && sorted.unsure.contains(&index));
            self.progress.accepted_lines += (stored - part.lines) as u64;
            part.sent_again = true;
            if again && part.letters.is_empty() && part.lines > 1 {
                cut(job);
            }
        } else if request.lines() > 1 && job.tries > 0 {
            cut(job);
        } else if reason != DeadLetterReason::Other || self.has_witness_of(job.doubt) {
            part.letters = letters(tenant, &request, |_| reason, code, words);
            put(part, &PushRequest::default(), |_| false);
        } else if let Some(mut part) = job.parts.pop_front() {
            // Kept as they would be buried, if it turns out that it was Loki who refused.
            part.letters = letters(tenant, &request, |_| reason, code, words);
            job.doubtful.push_back(part);
        }
    }

    /// Whether it is a line that is refused: its label set was refused, then others of its tenant were accepted, and now it is
    /// refused again. Too many refusals in a row ask for a new proof, for the tenant may have been shut out meanwhile.
    fn means_a_line(&mut self, outcome: &PushOutcome, tenant: &str, label_set: u64) -> bool {
        let Some(tenant) = self.tenants.get(tenant) else { return false };
        let Some(label_set) = self.label_sets.get_mut(&label_set) else { return false };
        let proven = label_set.refused_at.is_some_and(|then| tenant.accepted > then);
        let is_line = may_mean_a_line(outcome).is_some() && proven && tenant.refused_in_a_row < IN_A_ROW_MAX;
        if !is_line {
            label_set.refused_at = Some(tenant.accepted);
        }
        is_line
    }

    /// Looks for the line in halves. One alone must be refused several times in a row before it is a dead letter: a proxy of
    /// which one instance is misconfigured refuses whatever comes its way.
    fn on_line_refused(&mut self, tenant: &str, job: &mut Job, outcome: &PushOutcome) {
        let Some((code, words)) = may_mean_a_line(outcome) else { return };
        let Some(part) = job.parts.front_mut() else { return };
        if let Some(tenant) = self.tenants.get_mut(tenant) {
            tenant.refused_in_a_row += 1;
        }
        self.server.failed_in_a_row = 0;
        if part.lines > 1 {
            cut(job);
        } else if part.alone + 1 < ALONE_MAX {
            part.alone += 1;
            job.was_cut = true;
        } else {
            let request = refusals::decode(&part.body.request());
            part.letters = letters(tenant, &request, |_| DeadLetterReason::Forbidden, code, words);
            put(part, &PushRequest::default(), |_| false);
        }
    }

    fn learn_oldest(&mut self, now: Now, tenant: &str, words: &str) {
        let oldest =
            words.contains("timestamp too old").then(|| refusals::oldest_acceptable(words)).flatten();
        // One in the future would set everything aside.
        if let Some(oldest) = oldest.filter(|oldest| *oldest <= now.unix_ns)
            && let Some(tenant) = self.tenants.get_mut(tenant)
        {
            tenant.oldest = Some((oldest, now));
        }
    }

    /// Since the first doubt something was accepted, or an empty push was answered as Loki does: so it is Loki who refused.
    fn has_witness(&self, job: &Job) -> bool {
        self.has_witness_of(job.doubt)
    }

    fn has_witness_of(&self, doubt: Option<u64>) -> bool {
        // Who answers an empty push well and has never taken a line may be anybody.
        self.progress.accepted > 0
            && doubt.is_none_or(|then| self.progress.accepted + self.server.present > then)
    }

    /// Everything is refused by somebody whose words are not Loki's: lines are no dead letters for that.
    fn doubt_address(&mut self, now: Now, mut job: Job, code: u16, words: &str, chance: u64) {
        let words = format!("status {code}: {words}; {WRONG_ADDRESS}");
        if self.server.is_up {
            self.go_down(now, PushFailure::Unexpected, &words, true, Duration::ZERO, chance);
        }
        undoubt(&mut job);
        let trouble = Trouble { reason: PushFailure::Unexpected, words, hold: true, since_ms: now.ms };
        self.wait(now, job, trouble, (Duration::ZERO, false), chance);
    }

    fn settle_refused(&mut self, now: Now, slot: usize, mut job: Job, chance: u64) {
        let nothing_else = job.parts.is_empty() && !job.doubtful.is_empty();
        if nothing_else && !self.has_witness(&job) {
            self.server.wants_probe = self.progress.accepted > 0;
            let words = job.doubtful.front().and_then(|part| part.letters.first());
            let words = words.map(|letter| format!("status {}: {}", letter.code, letter.words));
            let words = format!(
                "{}; this is not a reason that Loki is known to give, and nothing has been accepted since: {WRONG_ADDRESS}",
                words.unwrap_or_default()
            );
            undoubt(&mut job);
            let trouble = Trouble { reason: PushFailure::Unexpected, words, hold: true, since_ms: now.ms };
            self.wait(now, job, trouble, (Duration::ZERO, false), chance);
            return;
        }
        self.settle(now, slot, job);
    }

    /// What comes next of a job that has a slot.
    pub(super) fn settle(&mut self, now: Now, slot: usize, mut job: Job) {
        while let Some(part) = job.parts.front().filter(|part| part.letters.is_empty() && part.lines == 0) {
            if job.doubtful.is_empty() {
                self.advance(job.label_set, part.covers);
            } else {
                job.late += part.covers;
            }
            job.parts.pop_front();
        }
        if job.parts.is_empty() && !job.doubtful.is_empty() && self.has_witness(&job) {
            for mut part in std::mem::take(&mut job.doubtful) {
                put(&mut part, &PushRequest::default(), |_| false);
                job.parts.push_back(part);
            }
            let late = std::mem::take(&mut job.late);
            job.parts.push_back(Part { covers: late, ..Part::default() });
        }
        if job.parts.is_empty() && job.doubtful.is_empty() {
            self.rest(now, job.label_set);
        } else if job.parts.is_empty() {
            undoubt(&mut job);
            self.pause_job(job, true);
        } else if job.was_cut && job.parts.front().is_some_and(|part| part.letters.is_empty()) {
            // A job that was cut up lets others go first between its parts.
            self.pause_job(job, false);
        } else {
            self.slots[slot] = Slot::Ready(job);
        }
    }
}

/// Doubtful lines are to be sent again.
fn undoubt(job: &mut Job) {
    let late = std::mem::take(&mut job.late);
    for mut part in std::mem::take(&mut job.doubtful).into_iter().rev() {
        part.letters.clear();
        job.parts.push_front(part);
    }
    if late > 0 {
        job.parts.push_back(Part { covers: late, ..Part::default() });
    }
    job.was_cut = true;
}

/// What is left to be sent of a part, of the lines that it has.
fn put(part: &mut Part, request: &PushRequest, is_left: impl Fn(usize) -> bool) {
    let mut index = 0..;
    part.at.retain(|_| index.next().is_some_and(&is_left));
    let request = refusals::pick(request, is_left);
    part.lines = request.lines();
    part.body = if part.lines == 0 { Parcel::default() } else { Parcel::plain(request.encode_to_vec()) };
}

/// Cuts what has more bytes than this, which is less than the first part has.
fn cut_to_size(job: &mut Job, bytes_max: usize) {
    for part in std::mem::take(&mut job.parts) {
        let is_large = part.letters.is_empty() && part.lines > 1 && part.body.len() > bytes_max;
        if is_large {
            job.parts.extend(pieces(&part, bytes_max));
        } else {
            job.parts.push_back(part);
        }
    }
    job.was_cut = true;
}

/// A part as at least two of so many bytes.
fn pieces(part: &Part, bytes_max: usize) -> Vec<Part> {
    let mut rest = refusals::decode(&part.body.request());
    let (lines_max, mut covers, mut at) = (rest.lines().div_ceil(2), part.covers, part.at.clone());
    let mut pieces = Vec::new();
    while rest.lines() > 0 {
        let lines = body_limit::lines_within(&rest, bytes_max, lines_max);
        let (some, others) = rest.split_at(lines);
        rest = others;
        // What has no line any more is done with the last.
        let covered = if rest.lines() == 0 { covers } else { some.lines().min(covers) };
        covers -= covered;
        let later = at.split_off(some.lines());
        let at = std::mem::replace(&mut at, later);
        let mut piece = Part { covers: covered, at, sent_again: part.sent_again, ..Part::default() };
        put(&mut piece, &some, |_| true);
        pieces.push(piece);
    }
    pieces
}

/// Cuts the first part in two.
fn cut(job: &mut Job) {
    let Some(mut part) = job.parts.pop_front() else { return };
    let request = refusals::decode(&part.body.request());
    let half = request.lines() / 2;
    let rest = part.covers.saturating_sub(half);
    let (first, second) = request.split_at(half);
    let at = part.at.split_off(half);
    for (request, covers, at) in [(second, rest, at), (first, half, part.at)] {
        let mut piece = Part { covers, at, sent_again: part.sent_again, ..Part::default() };
        put(&mut piece, &request, |_| true);
        job.parts.push_front(piece);
    }
    job.was_cut = true;
}
