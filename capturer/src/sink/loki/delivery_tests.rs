//! The life of requests, as tables and against a model Loki.

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::testing::Rng;
use super::super::answer::Verdict;
use super::super::push::{PushRequest, StreamAdapter, Timestamp};
use super::super::verdicts::{ALONE_MAX, IN_A_ROW_MAX};
use super::*;

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

fn status(code: u16, words: &str) -> Outcome {
    Outcome::Status { code, retry_after: None, words: words.to_owned() }
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
        self.delivery.take(at(ms), label_set, tenant, (lines.len(), body.len()), place);
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

    fn answer_probe(&mut self, ms: u64, outcome: &Outcome) {
        assert!(self.probes > 0, "no empty push is under way");
        self.probes -= 1;
        self.delivery.on_probe(at(ms), outcome, 0);
    }

    fn answer(&mut self, ms: u64, push: &Push, outcome: &Outcome) -> Verdict {
        self.delivery.on_outcome(at(ms), push.slot, outcome, 0)
    }

    /// Answers everything by this rule, for so long in steps of 10 ms. Gives what was accepted.
    fn run(
        &mut self,
        ms: std::ops::Range<u64>,
        rule: &mut dyn FnMut(u64, &Push) -> Outcome,
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
        Outcome::Status { code: 429, retry_after: Some(Duration::from_secs(5)), words: String::new() };
    // Outcome, when this label set may send again (none = done), and whether another of the same tenant, and of another
    // tenant, may send meanwhile.
    for (outcome, again_ms, tenant_goes_on, others_go_on) in [
        (status(204, ""), None, true, true),
        (status(500, ""), Some(50..=100), true, true),
        (Outcome::Failed(PushFailure::TimedOut, String::new()), Some(50..=100), true, true),
        (status(429, RATE), Some(50..=100), true, true),
        (status(429, "Ingestion rate limit exceeded for user a"), Some(50..=100), false, true),
        (after, Some(5000..=5000), false, true),
        (status(401, "no org id"), Some(50..=100), false, true),
        (status(403, ""), Some(50..=100), false, true),
        (status(404, ""), Some(50..=100), false, true),
        (status(260, "blocked"), Some(50..=100), false, true),
        (status(200, "<html>"), Some(50..=100), false, true),
        (Outcome::Failed(PushFailure::Unreachable, String::new()), Some(50..=100), false, false),
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

/// The first day: 200,000 lines of two weeks. Those that are too old are refused by a few requests and then not sent.
#[test]
fn old_lines_cost_few_requests() {
    let config = Loki { batch_bytes: 100_000, batch_lines: 1000, ..config() };
    let mut bench = Bench::up(&config);
    let day = 86_400_000_000_000;
    for record in 0..200_i64 {
        let lines: Vec<(i64, String)> = (0..1000)
            .map(|line| {
                (UNIX_NS - 14 * day + (record * 1000 + line) * (14 * day / 200_000), line.to_string())
            })
            .collect();
        bench.take(0, 1, "", &lines);
    }
    let oldest = UNIX_NS - 7 * day;
    let (mut requests, mut arrived) = (0, 0);
    bench.run(0..60_000, &mut |_, push| {
        requests += 1;
        let old = push.lines.iter().filter(|(ns, _)| *ns < oldest);
        match old.clone().next() {
            None => {
                arrived += push.lines.len();
                status(204, "")
            }
            Some((first, _)) => {
                arrived += push.lines.len() - old.count();
                let first = crate::decode::timestamp::format(*first);
                let words = "entry for stream '{label_set=\"1\"}' has timestamp too old";
                let words = format!(
                    "{words}: {}Z, oldest acceptable timestamp is: 2026-11-13T00:00:00Z",
                    &first[..19]
                );
                status(400, &words)
            }
        }
    });
    assert!(bench.delivery.is_empty());
    assert_eq!((bench.buried.len(), arrived), (100_000, 100_000));
    assert!(requests < 110, "{requests} requests for 200 records");
    assert!(bench.buried.iter().all(|letter| letter.words.len() <= 500));
    let learned = bench.buried.iter().filter(|letter| letter.code == 0).count();
    assert!(learned > 90_000, "{learned} were not sent");
}

#[test]
fn a_fixed_age_is_kept_to_and_off_means_off() {
    for (age, expected) in [
        (MaxLineAge::Fixed(Duration::from_secs(3600)), 1),
        (MaxLineAge::Off, 0),
        (MaxLineAge::AsServerSays, 0),
    ] {
        let mut bench = Bench::up(&Loki { max_line_age: age, ..config() });
        bench.take(0, 1, "", &[(UNIX_NS - 7_200_000_000_000, "old".to_owned()), (UNIX_NS, "new".to_owned())]);
        let accepted = bench.run(0..2000, &mut |_, _| status(204, ""));
        assert_eq!((bench.buried.len(), accepted[0].1.lines.len()), (expected, 2 - expected), "{age:?}");
        assert!(bench.delivery.is_empty());
    }
}

/// A limit below a request's size lets nothing through unless requests become smaller.
#[test]
fn a_label_set_over_its_rate_sends_less_at_once() {
    let mut bench = Bench::up(&Loki { batch_lines: 1000, batch_bytes: 100_000, ..config() });
    let lines: Vec<(i64, String)> = (0..1000).map(|number| (UNIX_NS + number, number.to_string())).collect();
    bench.take(0, 1, "", &lines);
    let accepted = bench.run(0..200_000, &mut |_, push| {
        if push.lines.len() > 100 { status(429, RATE) } else { status(204, "") }
    });
    assert!(bench.delivery.is_empty());
    let texts: Vec<String> =
        accepted.iter().flat_map(|(_, push)| &push.lines).map(|(_, line)| line.clone()).collect();
    assert_eq!(texts, lines.iter().map(|(_, line)| line.clone()).collect::<Vec<_>>(), "in order, each once");
}

/// A source over its limit is refused and accepted by turns: what is said of it must not change each time.
#[test]
fn whoever_is_over_a_rate_limit_by_turns_waits_all_the_time() {
    for (tenant, words) in [("", RATE), ("red", "Ingestion rate limit exceeded for user red")] {
        let mut bench = Bench::up(&Loki { batch_lines: 1, ..config() });
        (0..200).for_each(|number| bench.take(0, 1, tenant, &[(UNIX_NS + number, number.to_string())]));
        let (mut refuses, mut refusals, mut said) = (false, 0, vec![Vec::new()]);
        for ms in (0..100_000).step_by(10) {
            bench.turn(ms, false);
            for push in std::mem::take(&mut bench.under_way) {
                refuses = !refuses;
                refusals += u32::from(refuses);
                let outcome = if refuses { status(429, words) } else { status(204, "") };
                bench.answer(ms, &push, &outcome);
                said.push(bench.delivery.report(at(ms)).reasons);
            }
        }
        bench.turn(100_000, false);
        said.push(bench.delivery.report(at(100_000)).reasons);
        said.dedup();
        assert!(bench.delivery.is_empty() && refusals == 200, "{refusals}");
        assert_eq!((said.len(), said[1].len()), (3, 1), "nothing, the limit, nothing: {said:?}");
    }
}

/// A proxy or a TLS port answers everything with 400: nothing is a dead letter, whenever that begins.
#[test]
fn a_wrong_address_is_no_reason_to_bury() {
    let proxy = || status(400, "Client sent an HTTP request to an HTTPS server.");
    // From the beginning: the empty push shows it.
    let mut bench = Bench::new(&config());
    bench.line(0, 1, "a");
    for ms in 0..5_000 {
        bench.turn(ms, false);
        if bench.probes > 0 {
            bench.answer_probe(ms, &proxy());
        }
        assert!(bench.under_way.is_empty());
    }
    assert!(bench.wrong(5_000).contains("sinks.loki.url") && bench.delivery.report(at(5_000)).held);
    // An empty push is taken, but no line of any label set; or once it took lines and then no more.
    for (accepts_first, probe_is_taken) in [(false, true), (true, false), (false, false)] {
        let mut bench = Bench::up(&config());
        for label_set in 0..40 {
            for number in 0..10 {
                bench.line(0, label_set, &format!("{label_set} {number}"));
            }
        }
        let mut accepted = 0;
        let mut requests = 0;
        for ms in (0..60_000).step_by(10) {
            bench.turn(ms, false);
            while bench.probes > 0 {
                bench.answer_probe(ms, &if probe_is_taken { status(204, "") } else { proxy() });
            }
            for push in std::mem::take(&mut bench.under_way) {
                requests += 1;
                let take = accepts_first && accepted < 3;
                accepted += u32::from(take);
                bench.answer(ms, &push, &if take { status(204, "") } else { proxy() });
            }
        }
        assert!(bench.buried.is_empty(), "{accepts_first} {probe_is_taken}: {} buried", bench.buried.len());
        assert!(bench.delivery.report(at(60_000)).held, "{}", bench.wrong(60_000));
        assert!(requests < 700, "{requests}");
        // The address is mended: all of it arrives.
        let rest = bench.run(60_000..120_000, &mut |_, _| status(204, ""));
        let lines: usize = rest.iter().map(|(_, push)| push.lines.len()).sum();
        assert!(bench.delivery.is_empty() && lines >= 400 - 60, "{lines}");
    }
}

/// Loki refuses one line for a reason that nobody knows: it is found, and nothing waits for it.
#[test]
fn an_unknown_reason_is_searched_for_within_a_budget() {
    for bad in [0, 7, 19] {
        let mut bench = Bench::up(&Loki { batch_lines: 100, batch_bytes: 100_000, ..config() });
        let lines: Vec<(i64, String)> =
            (0..20).map(|number| (UNIX_NS + number, number.to_string())).collect();
        bench.take(0, 1, "", &lines);
        let accepted = bench.run(0..10_000, &mut |_, push| {
            let refused = push.lines.iter().any(|(_, line)| *line == bad.to_string());
            if refused { status(400, "policy 17 says no") } else { status(204, "") }
        });
        assert_eq!(
            bench.buried.iter().map(|letter| letter.entry.line.clone()).collect::<Vec<_>>(),
            [bad.to_string()]
        );
        assert_eq!(accepted.iter().map(|(_, push)| push.lines.len()).sum::<usize>(), 19);
        assert!(bench.delivery.is_empty());
    }
    // Every line of one label set: given up on after a number of tries, not a request a line.
    let mut bench = Bench::up(&Loki { batch_lines: 2000, batch_bytes: 1 << 20, ..config() });
    let lines: Vec<(i64, String)> = (0..2000).map(|number| (UNIX_NS + number, number.to_string())).collect();
    bench.take(0, 1, "", &lines);
    bench.line(0, 2, "good");
    let mut requests = 0;
    bench.run(0..60_000, &mut |_, push| {
        requests += 1;
        if push.labels.contains('1') { status(400, "policy 17 says no") } else { status(204, "") }
    });
    assert!(bench.delivery.is_empty() && requests < 200, "{requests} requests");
    assert_eq!(bench.buried.len(), 2000);
}

#[test]
fn a_body_that_is_too_large_makes_requests_smaller() {
    let mut bench = Bench::up(&Loki { batch_bytes: 1 << 20, batch_lines: 10_000, ..config() });
    for record in 0..20 {
        let line = |number: i64| (UNIX_NS + record * 1000 + number, "x".repeat(500));
        bench.take(0, 1, "", &(0..400).map(line).collect::<Vec<_>>());
    }
    let mut refused = 0;
    bench.run(0..60_000, &mut |_, push| {
        let large = push.lines.len() > 300;
        refused += i32::from(large);
        if large { status(413, "") } else { status(204, "") }
    });
    assert!(bench.delivery.is_empty() && bench.buried.is_empty());
    assert!(refused < 50, "{refused}");
}

/// Nothing accepted for a minute while lines wait is wrong, whatever the answers were, and the last one is told.
#[test]
fn a_minute_without_success_is_told() {
    let mut bench = Bench::up(&config());
    assert!(bench.delivery.report(at(600_000)).wrong.is_empty(), "nothing waits");
    bench.line(600_000, 1, "a");
    bench.turn(601_000, false);
    let push = bench.under_way.remove(0);
    assert!(bench.wrong(610_999).is_empty());
    // It hangs.
    let wrong = bench.wrong(670_000);
    assert!(wrong.contains("nothing was accepted for 70 s while lines wait"), "{wrong}");
    bench.answer(671_000, &push, &status(503, "shutting down"));
    let wrong = bench.wrong(672_000);
    assert!(
        wrong.contains("status 503: shutting down") && wrong.contains("nothing was accepted for"),
        "{wrong}"
    );
}

/// A Loki that hangs is told of before its time-out, and is nobody's fault but its own; one answer is told once.
#[test]
fn a_loki_that_hangs_is_told_soon() {
    let mut bench = Bench::up(&config());
    bench.line(0, 1, "first");
    bench.run(0..2_000, &mut |_, _| status(204, ""));
    bench.line(10_000, 1, "a");
    bench.line(10_000, 2, "b");
    bench.turn(11_000, false);
    assert!(bench.wrong(20_000).is_empty(), "{}", bench.wrong(20_000));
    assert!(bench.wrong(21_000).contains("no request was answered for 10 s"), "{}", bench.wrong(21_000));
    let push = bench.under_way.remove(0);
    let words = "no answer within 30s";
    bench.answer(41_000, &push, &Outcome::Failed(PushFailure::TimedOut, words.to_owned()));
    let wrong = bench.wrong(41_000);
    assert!(wrong.contains(words) && !wrong.contains("go on"), "nothing goes on: {wrong}");
    let wrong = bench.wrong(90_000);
    assert!(wrong.contains("nothing was accepted for 80 s while lines wait"), "{wrong}");
    assert_eq!(wrong.matches(words).count(), 1, "{wrong}");
    let push = bench.under_way.remove(0);
    bench.answer(91_000, &push, &status(204, ""));
    assert!(bench.wrong(91_000).contains("other label sets go on"), "{}", bench.wrong(91_000));
}

/// Dead letters that can't be written hold their own lines.
#[test]
fn an_unwritable_dead_letter_is_tried_again() {
    let mut bench = Bench::up(&config());
    bench.letters_fail = true;
    bench.line(0, 1, "bad");
    bench.line(0, 2, "good");
    let mut rule = |_: u64, push: &Push| match push.labels.as_str() {
        "{label_set=\"1\"}" => status(400, "entry for stream '{}' has 16 label names; limit 15"),
        _ => status(204, ""),
    };
    let accepted = bench.run(0..5_000, &mut rule);
    assert_eq!((accepted.len(), bench.buried.len()), (1, 0));
    assert!(bench.wrong(5_000).contains("disk full"));
    bench.letters_fail = false;
    bench.run(5_000..10_000, &mut rule);
    assert!(bench.delivery.is_empty() && bench.buried.len() == 1);
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
                1 => Outcome::Failed(PushFailure::BrokenAnswer, "lost".to_owned()),
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
                Outcome::Failed(..) => true,
                Outcome::Status { code, .. } => matches!(code, 204 | 400),
            };
            let repeats = policy || matches!(&outcome, Outcome::Failed(..));
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

/// A firewall before Loki refuses what one line says: that line is a dead letter, and all others arrive, also where nothing
/// but one line of another label set showed that the tenant is taken.
#[test]
fn a_line_that_a_firewall_refuses_costs_itself() {
    for (code, bad) in [(403, vec![0]), (403, vec![49]), (406, vec![7, 8, 30]), (403, (0..12).collect())] {
        let mut bench = Bench::up(&Loki { batch_lines: 100, batch_bytes: 100_000, ..config() });
        let text = |number: usize| {
            if bad.contains(&number) {
                format!("GET /../etc/passwd {number}")
            } else {
                format!("line {number}")
            }
        };
        let lines: Vec<_> = (0..50).map(|number| (UNIX_NS + number as i64, text(number))).collect();
        bench.take(0, 1, "", &lines);
        let mut rule = |_: u64, push: &Push| {
            let is_bad = push.lines.iter().any(|(_, line)| line.contains("etc/passwd"));
            if is_bad { status(code, BLOCKED) } else { status(204, "") }
        };
        let held = bench.run(0..2_000, &mut rule);
        assert!(held.is_empty() && bench.buried.is_empty(), "nothing shows yet whose fault it is");
        assert!(bench.wrong(2_000).contains(&format!("status {code}")), "{}", bench.wrong(2_000));
        bench.line(2_000, 2, "other");
        let mut arrived = bench.run(2_000..20_000, &mut rule);
        // More in a row need to be shown again and again that the tenant is not shut out.
        for ms in (20_000..180_000).step_by(5_000).filter(|_| bad.len() > 3) {
            bench.line(ms, 2, "other");
            arrived.extend(bench.run(ms..ms + 5_000, &mut rule));
        }
        let buried: Vec<&str> = bench.buried.iter().map(|letter| letter.entry.line.as_str()).collect();
        assert_eq!(buried, bad.iter().map(|number| text(*number)).collect::<Vec<_>>());
        let is_named = |letter: &Refused| letter.reason == DeadLetterReason::Forbidden && letter.code == code;
        assert!(bench.buried.iter().all(is_named));
        let arrived = arrived.into_iter().filter(|(_, push)| push.labels == "{label_set=\"1\"}");
        let arrived: Vec<String> = arrived.flat_map(|(_, push)| push.lines).map(|(_, line)| line).collect();
        let good = (0..50).filter(|number| !bad.contains(number)).map(text);
        assert_eq!(arrived, good.collect::<Vec<_>>(), "each once, in order");
        assert!(bench.delivery.is_empty() && bench.wrong(180_000).is_empty());
    }
}

/// Whoever may not write any more is not a line that is refused, also if that begins while one is looked for.
#[test]
fn a_tenant_that_is_shut_out_is_held() {
    for shut_out_after in [0, 1, 3, 8] {
        let mut bench = Bench::up(&Loki { batch_lines: 100, batch_bytes: 100_000, ..config() });
        for label_set in 1..=3 {
            let text = |number: i64| {
                if label_set == 1 && number == 20 { "etc/passwd".to_owned() } else { number.to_string() }
            };
            let lines: Vec<_> = (0..40).map(|number| (UNIX_NS + number, text(number))).collect();
            bench.take(0, label_set, "", &lines);
        }
        let mut refused = 0;
        bench.run(0..300_000, &mut |ms, push| {
            let is_bad = push.lines.iter().any(|(_, line)| line.contains("etc/passwd"));
            // A line of a neighbour while nobody is shut out: what shows that it is the line.
            if ms < 250_000 && (is_bad || refused > shut_out_after) {
                refused += 1;
                return status(403, "no such token");
            }
            if is_bad { status(403, "no such token") } else { status(204, "") }
        });
        let buried: Vec<&str> = bench.buried.iter().map(|letter| letter.entry.line.as_str()).collect();
        let wrongly = buried.iter().filter(|line| **line != "etc/passwd").count();
        assert!(wrongly <= (IN_A_ROW_MAX / ALONE_MAX) as usize, "{buried:?}");
    }
}
