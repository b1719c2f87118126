//! The life of requests, as tables and against a model Loki.

#[path = "delivery_again_tests.rs"]
mod again;
#[path = "delivery_trouble_tests.rs"]
mod trouble;

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::testing::Rng;
use super::super::answer::Verdict;
use super::super::push::{EntryAdapter, PushRequest, StreamAdapter, Timestamp};
use super::*;
use crate::telemetry::metrics::DeadLetterReason;

/// 2026-11-20T00:00:00Z.
const UNIX_NS: i64 = 1_795_132_800_000_000_000;

fn config() -> Loki {
    Loki {
        batch_bytes: 1000,
        batch_lines: 20,
        in_flight_max: 3,
        backoff_min: Duration::from_millis(100),
        backoff_max: Duration::from_millis(1000),
        ..Loki::default()
    }
}

fn at(ms: u64) -> Now {
    Now { ms, unix_ns: UNIX_NS + ms as i64 * 1_000_000 }
}

fn status(code: u16, words: &str) -> PushOutcome {
    PushOutcome::Status { code, retry_after: None, words: words.to_owned() }
}

const RATE: &str = "Per stream rate limit exceeded (limit: 3MB/sec) while attempting to ingest";

/// A request as the model Loki sees it.
#[derive(Clone, Debug)]
struct Push {
    slot: usize,
    labels: String,
    lines: Vec<(i64, String)>,
}

impl Push {
    fn read(slot: usize, body: &Parcel) -> Push {
        let request = PushRequest::decode(&*body.request()).unwrap();
        let [stream] = &request.streams[..] else { panic!("{} label sets", request.streams.len()) };
        let line = |entry: &EntryAdapter| (entry.timestamp.unwrap().to_ns(), entry.line.clone());
        Push { slot, labels: stream.labels.clone(), lines: stream.entries.iter().map(line).collect() }
    }
}

/// A delivery with its spool, dead letters and requests under way.
struct Bench {
    delivery: Delivery,
    records: BTreeMap<Position, Parcel>,
    taken: u64,
    under_way: Vec<Push>,
    probes: usize,
    buried: Vec<Refused>,
    done: BTreeSet<Position>,
    letters_fail: bool,
}

impl Bench {
    fn new(config: &Loki) -> Bench {
        Bench {
            delivery: Delivery::new(config),
            records: BTreeMap::new(),
            taken: 0,
            under_way: Vec::new(),
            probes: 0,
            buried: Vec::new(),
            done: BTreeSet::new(),
            letters_fail: false,
        }
    }

    /// One that has found Loki.
    fn up(config: &Loki) -> Bench {
        let mut bench = Bench::new(config);
        bench.turn(0, false);
        bench.answer_probe(0, &status(204, ""));
        bench
    }

    fn take(&mut self, ms: u64, label_set: u64, tenant: &str, lines: &[(i64, String)]) {
        self.take_rest(ms, label_set, tenant, lines, 0);
    }

    /// A record of which an earlier run delivered some lines.
    fn take_rest(&mut self, ms: u64, label_set: u64, tenant: &str, lines: &[(i64, String)], done: usize) {
        self.taken += 1;
        let place = Position { segment: 1, offset: self.taken };
        let entry = |(ns, line): &(i64, String)| EntryAdapter {
            timestamp: Some(Timestamp::from_ns(*ns)),
            line: line.clone(),
            ..Default::default()
        };
        let stream = StreamAdapter {
            labels: format!("{{label_set=\"{label_set}\"}}"),
            entries: lines.iter().map(entry).collect(),
        };
        let body = Parcel::as_in_spool(&PushRequest { streams: vec![stream] });
        self.delivery.take(at(ms), label_set, tenant, (lines.len(), body.len()), (place, done));
        self.records.insert(place, body);
    }

    fn line(&mut self, ms: u64, label_set: u64, text: &str) {
        self.take(ms, label_set, "", &[(UNIX_NS, text.to_owned())]);
    }

    fn turn(&mut self, ms: u64, flush: bool) {
        loop {
            let orders = self.delivery.poll(at(ms), flush);
            if orders.is_empty() {
                break;
            }
            for order in orders {
                match order {
                    Order::Load { slot, places } => {
                        let record = |place: &Position| LoadedRecord { body: self.records[place].clone() };
                        let records = places.iter().map(record).collect();
                        self.delivery.on_loaded(at(ms), slot, records);
                    }
                    Order::Send { slot, lines, body, .. } => {
                        let push = Push::read(slot, &body);
                        assert_eq!(push.lines.len(), lines);
                        assert!(self.under_way.iter().all(|other| other.labels != push.labels), "twice");
                        self.under_way.push(push);
                    }
                    Order::Probe { .. } => self.probes += 1,
                    Order::Bury { slot, letters } => {
                        let result = if self.letters_fail { Err("disk full".to_owned()) } else { Ok(()) };
                        if result.is_ok() {
                            self.buried.extend(letters);
                        }
                        self.delivery.on_buried(at(ms), slot, result, 0);
                    }
                }
            }
        }
        for place in self.delivery.take_done() {
            assert!(self.done.insert(place), "{place:?} twice");
        }
    }

    fn answer_probe(&mut self, ms: u64, outcome: &PushOutcome) {
        assert!(self.probes > 0, "no empty push is under way");
        self.probes -= 1;
        self.delivery.on_probe(at(ms), outcome, 0);
    }

    fn answer(&mut self, ms: u64, push: &Push, outcome: &PushOutcome) -> Verdict {
        self.delivery.on_outcome(at(ms), push.slot, outcome, 0)
    }

    /// Answers everything by this rule, for so long in steps of 10 ms. Gives what was accepted.
    fn run(
        &mut self,
        ms: std::ops::Range<u64>,
        rule: &mut dyn FnMut(u64, &Push) -> PushOutcome,
    ) -> Vec<(u64, Push)> {
        let mut accepted = Vec::new();
        for ms in ms.clone().step_by(10) {
            self.turn(ms, false);
            while self.probes > 0 {
                self.answer_probe(ms, &status(204, ""));
            }
            for push in std::mem::take(&mut self.under_way) {
                let outcome = rule(ms, &push);
                if self.answer(ms, &push, &outcome) == Verdict::Accepted {
                    accepted.push((ms, push));
                }
            }
        }
        self.turn(ms.end, false);
        accepted
    }

    fn wrong(&self, ms: u64) -> String {
        self.delivery.report(at(ms)).wrong.join("; ")
    }
}

/// One request through each answer: when the next may come, and whom it concerns.
#[test]
fn one_request_and_each_answer() {
    let after =
        PushOutcome::Status { code: 429, retry_after: Some(Duration::from_secs(5)), words: String::new() };
    // Outcome, when this label set may send again (none = done), and whether another of the same tenant, and of another
    // tenant, may send meanwhile.
    for (outcome, again_ms, tenant_goes_on, others_go_on) in [
        (status(204, ""), None, true, true),
        (status(500, ""), Some(50..=100), true, true),
        (PushOutcome::Failed(PushFailure::TimedOut, String::new()), Some(50..=100), true, true),
        (status(429, RATE), Some(50..=100), true, true),
        (status(429, "Ingestion rate limit exceeded for user a"), Some(50..=100), false, true),
        (after, Some(5000..=5000), false, true),
        (status(401, "no org id"), Some(50..=100), false, true),
        (status(403, ""), Some(50..=100), false, true),
        (status(404, ""), Some(50..=100), false, true),
        (status(260, "blocked"), Some(50..=100), false, true),
        (status(200, "<html>"), Some(50..=100), false, true),
        (PushOutcome::Failed(PushFailure::Unreachable, String::new()), Some(50..=100), false, false),
        (status(413, ""), Some(0..=0), true, true),
    ] {
        let mut bench = Bench::up(&config());
        bench.take(0, 1, "a", &[(UNIX_NS, "x".to_owned()), (UNIX_NS + 1, "y".to_owned())]);
        bench.turn(999, false);
        assert!(bench.under_way.is_empty(), "it waits for more");
        bench.turn(1000, false);
        let push = bench.under_way.remove(0);
        bench.answer(1000, &push, &outcome);
        for (label_set, tenant) in [(2, "a"), (3, "b")] {
            bench.take(0, label_set, tenant, &[(UNIX_NS, "other".to_owned())]);
        }
        bench.turn(1000, false);
        let went = |labels: &str| bench.under_way.iter().any(|push| push.labels == labels);
        let gone = (went("{label_set=\"2\"}"), went("{label_set=\"3\"}"));
        assert_eq!(gone, (tenant_goes_on, others_go_on), "{outcome:?}");
        let again = (1000..10_000).find(|ms| {
            bench.turn(*ms, false);
            let asked = bench.probes > 0;
            bench.probes = 0;
            asked || bench.under_way.iter().any(|push| push.labels == "{label_set=\"1\"}")
        });
        match (again, again_ms) {
            (None, None) => assert_eq!(bench.done.len(), 1),
            // A tenant is tried with any of its label sets.
            (Some(ms), Some(range)) => assert!(range.contains(&(ms - 1000)), "{outcome:?}: {ms}"),
            (None, Some(range)) => {
                let of_tenant = bench.under_way.iter().any(|push| push.labels == "{label_set=\"2\"}");
                assert!(!tenant_goes_on && of_tenant, "{outcome:?}: {range:?}");
            }
            other => panic!("{outcome:?}: {other:?}"),
        }
    }
}

#[test]
fn pauses_grow_to_their_limit_and_end_with_success() {
    let mut bench = Bench::up(&config());
    bench.line(0, 1, "a");
    let mut now = 1000;
    let mut pauses = Vec::new();
    for _ in 0..7 {
        bench.turn(now, false);
        let push = bench.under_way.remove(0);
        bench.answer(now, &push, &status(429, RATE));
        let next = bench.delivery.next_deadline_ms().unwrap();
        pauses.push(next - now);
        now = next;
    }
    assert_eq!(pauses, [50, 100, 200, 400, 500, 500, 500]);
    assert!(
        bench.wrong(now).contains("label set {label_set=\"1\"} waits: status 429"),
        "{}",
        bench.wrong(now)
    );
    bench.turn(now, false);
    let push = bench.under_way.remove(0);
    bench.answer(now, &push, &status(204, ""));
    assert!(bench.delivery.is_empty() && bench.wrong(now).is_empty());
}

/// A thousand label sets, one refused, one over its rate limit, one too old, one in a tenant that is refused: the others
/// are as late as without them.
#[test]
fn nobody_pays_for_a_neighbour() {
    let config = Loki { in_flight_max: 4, batch_bytes: 100_000, batch_lines: 1000, ..config() };
    let mut lags = Vec::new();
    let mut requests = Vec::new();
    for with_bad in [false, true] {
        let mut bench = Bench::up(&config);
        let mut sum = 0;
        let mut count = 0;
        let mut sent = BTreeMap::new();
        let mut all = 0;
        for ms in (0..60_000_u64).step_by(10) {
            // Each good one prints a line every four seconds; the bad ones a hundred at once.
            for label_set in (0..1000).filter(|label_set| label_set % 400 == ms / 10 % 400) {
                sent.insert((label_set, ms), ms);
                bench.line(ms, label_set, &ms.to_string());
            }
            if with_bad && ms % 1000 == 0 {
                let old = UNIX_NS - 30 * 86_400_000_000_000;
                let lines = |ns: i64| -> Vec<(i64, String)> {
                    (0..100).map(|number| (ns + number, format!("{ms} {number}"))).collect()
                };
                bench.take(ms, 2001, "", &lines(UNIX_NS));
                bench.take(ms, 2002, "", &lines(UNIX_NS));
                bench.take(ms, 2003, "", &lines(old));
                bench.take(ms, 2004, "refused", &lines(UNIX_NS));
            }
            // A request takes 10 ms, so 400 a second; 250 are needed.
            let arrived: Vec<(u64, Push)> = bench.run(ms..ms + 10, &mut |_, push| {
                all += 1;
                match push.labels.as_str() {
                    "{label_set=\"2001\"}" => status(400, "entry for stream '{}' has 16 label names; limit 15"),
                    "{label_set=\"2002\"}" => status(429, RATE),
                    "{label_set=\"2003\"}" => status(
                        400,
                        "100 errors like: entry for stream '{}' has timestamp too old: 2026-10-21T00:00:00Z, oldest \
                         acceptable timestamp is: 2026-11-13T00:00:00Z",
                    ),
                    "{label_set=\"2004\"}" => status(403, ""),
                    _ => status(204, ""),
                }
            });
            for (at_ms, push) in arrived {
                for (_, line) in push.lines {
                    let label_set: u64 =
                        push.labels["{label_set=\"".len()..].trim_end_matches("\"}").parse().unwrap();
                    if let Some(from) = sent.remove(&(label_set, line.parse().unwrap_or(0))) {
                        sum += at_ms - from;
                        count += 1;
                    }
                }
            }
        }
        assert!(count > 13_000, "{count} lines arrived");
        lags.push(sum as f64 / f64::from(count));
        requests.push(all);
        if with_bad {
            let by_reason = |reason| bench.buried.iter().filter(|letter| letter.reason == reason).count();
            assert!(by_reason(DeadLetterReason::TooManyLabels) > 5000, "each refused once");
            assert!(by_reason(DeadLetterReason::TooOld) > 5000);
            let wrong = bench.wrong(60_000);
            assert!(
                wrong.contains("{label_set=\"2002\"} waits") && wrong.contains("tenant refused"),
                "{wrong}"
            );
        }
    }
    println!(
        "mean lag {:.1} ms without, {:.1} ms with the bad ones; requests {requests:?}",
        lags[0], lags[1]
    );
    assert!(lags[1] < lags[0] * 1.1, "{lags:?}");
    assert!(requests[1] < requests[0] + 1_000, "{requests:?}");
}

/// A model Loki with every fault by chance: each good line arrives, in order per label set, bad ones alone are buried,
/// and a line comes twice only if its answer was lost or its request failed or was refused for an unknown reason.
#[test]
fn against_a_model_loki() {
    let mut rng = Rng::from_env();
    for round in 0..150 {
        let mut bench = Bench::new(&config());
        let mut sent: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        let mut arrived: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let (mut may_repeat, mut bad) = (BTreeSet::new(), BTreeSet::new());
        let (mut now, mut number, mut taken) = (0, 0_i64, 0);
        let records = 30 + rng.below(60);
        while taken < records || !bench.delivery.is_empty() {
            now += rng.below(300) as u64;
            assert!(now < 10_000_000, "round {round}: {}", bench.wrong(now));
            if taken < records {
                taken += 1;
                let label_set = rng.below(6) as u64;
                let lines: Vec<(i64, String)> = (0..1 + rng.below(8))
                    .map(|_| {
                        number += 1;
                        let kind = ["old", "policy", "", "", "", "", "", "", "", "", "", ""][rng.below(12)];
                        let line = format!("{number} {kind}");
                        if !kind.is_empty() {
                            bad.insert(line.clone());
                        }
                        let age_ns = if kind == "old" { 30 * 86_400_000_000_000 } else { 0 };
                        (UNIX_NS + number - age_ns, line)
                    })
                    .collect();
                sent.entry(label_set).or_default().extend(lines.iter().map(|(_, line)| line.clone()));
                bench.take(now, label_set, if label_set.is_multiple_of(2) { "even" } else { "odd" }, &lines);
            }
            bench.letters_fail = rng.below(8) == 0;
            bench.turn(now, rng.below(10) == 0);
            if bench.probes > 0 && rng.below(2) == 0 {
                bench.answer_probe(now, &if rng.below(3) == 0 { status(503, "") } else { status(204, "") });
            }
            assert!(bench.under_way.len() <= config().in_flight_max);
            if bench.under_way.is_empty() || rng.below(3) == 0 {
                continue;
            }
            let push = bench.under_way.swap_remove(rng.below(bench.under_way.len()));
            let old = push.lines.iter().filter(|(_, line)| line.ends_with("old")).count();
            let policy = push.lines.iter().any(|(_, line)| line.ends_with("policy"));
            let outcome = match rng.below(12) {
                0 => status(503, ""),
                1 => PushOutcome::Failed(PushFailure::BrokenAnswer, "lost".to_owned()),
                2 => status(429, RATE),
                3 => status(429, "Ingestion rate limit exceeded"),
                4 => status(403, ""),
                _ if policy => status(400, "policy 17 says no"),
                _ if old > 0 => status(
                    400,
                    &format!(
                        "{old} errors like: entry for stream '{{}}' has timestamp too old: 2026-10-21T00:00:00Z, \
                         oldest acceptable timestamp is: 2026-11-13T00:00:00Z"
                    ),
                ),
                _ => status(204, ""),
            };
            let stores = match &outcome {
                PushOutcome::Failed(..) => true,
                PushOutcome::Status { code, .. } => matches!(code, 204 | 400),
            };
            let repeats = policy || matches!(&outcome, PushOutcome::Failed(..));
            for (_, line) in push.lines.iter().filter(|_| stores) {
                if repeats {
                    may_repeat.insert(line.clone());
                }
                if !bad.contains(line) {
                    arrived.entry(push.labels.clone()).or_default().push(line.clone());
                }
            }
            bench.answer(now, &push, &outcome);
        }
        bench.turn(now, true);
        assert_eq!(bench.done.len() as u64, bench.taken, "all records are done");
        let buried: BTreeSet<String> = bench.buried.iter().map(|letter| letter.entry.line.clone()).collect();
        let wrongly = bench.buried.iter().filter(|letter| !bad.contains(&letter.entry.line));
        let wrongly: Vec<_> = wrongly.map(|letter| (letter.entry.line.as_str(), letter.reason)).collect();
        assert!(wrongly.is_empty(), "round {round}: {wrongly:?}");
        assert_eq!(buried, bad);
        assert_eq!(bench.buried.len(), bad.len(), "round {round}: each once");
        for (label_set, expected) in sent {
            let got = arrived.remove(&format!("{{label_set=\"{label_set}\"}}")).unwrap_or_default();
            let mut seen = BTreeSet::new();
            let first: Vec<&String> = got.iter().filter(|line| seen.insert(*line)).collect();
            let good: Vec<&String> = expected.iter().filter(|line| !bad.contains(*line)).collect();
            assert_eq!(first, good, "round {round}, label_set {label_set}: all of them, in order");
            let mut seen = BTreeSet::new();
            for line in &got {
                assert!(seen.insert(line) || may_repeat.contains(line), "{line} came twice without a reason");
            }
        }
    }
}

const BLOCKED: &str = "<html><h1>403 Forbidden</h1>request blocked</html>";

/// They were counted as lost, and were counted as accepted as well.
#[test]
fn lines_that_are_gone_when_a_request_is_made_do_not_count_as_accepted() {
    let mut bench = Bench::up(&config());
    for text in ["gone", "sent"] {
        bench.take(0, 1, "", &[(UNIX_NS, text.to_owned()), (UNIX_NS + 1, text.to_owned())]);
    }
    // A full spool gave the first up.
    bench.records.insert(Position { segment: 1, offset: 1 }, Parcel::default());
    bench.turn(0, true);
    let push = bench.under_way.pop().unwrap();
    assert_eq!(push.lines.len(), 2);
    bench.answer(1, &push, &status(204, ""));
    bench.turn(1, true);
    assert_eq!((bench.delivery.accepted_lines(), bench.done.len()), (2, 2));
}
