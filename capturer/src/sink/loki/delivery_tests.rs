//! The life of requests, as tables and against a model Loki.

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::testing::Rng;
use super::super::push::{StreamAdapter, Timestamp};
use super::*;

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

fn chunk(lane: u64, lines: &[String]) -> Chunk {
    let entry = |line: &String| EntryAdapter {
        timestamp: Some(Timestamp::from_ns(1)),
        line: line.clone(),
        ..Default::default()
    };
    let stream =
        StreamAdapter { labels: format!("{{lane=\"{lane}\"}}"), entries: lines.iter().map(entry).collect() };
    let body = PushRequest { streams: vec![stream] }.encode_to_vec();
    Chunk { lane, tenant: String::new(), lines: lines.len() as u32, body }
}

fn lines(body: &[u8]) -> Vec<(String, String)> {
    let request = PushRequest::decode(body).unwrap();
    let streams = request.streams.into_iter();
    streams
        .flat_map(|stream| stream.entries.into_iter().map(move |entry| (stream.labels.clone(), entry.line)))
        .collect()
}

fn status(code: u16) -> Outcome {
    Outcome::Status { code, retry_after: None, words: String::new() }
}

/// One request through each answer: what the shard does next.
#[test]
fn one_request_and_each_answer() {
    let refused_connection = Outcome::Failed(PushFailure::Unreachable, "refused".to_owned());
    let after =
        Outcome::Status { code: 429, retry_after: Some(Duration::from_secs(5)), words: String::new() };
    // Outcome, then when the next order may come (0 = at once, none = done) and what is wrong.
    for (outcome, wait_ms, trouble) in [
        (status(204), None, None),
        (status(500), Some(50..=100), Some((PushFailure::ServerError, false))),
        (status(429), Some(50..=100), Some((PushFailure::RateLimited, false))),
        (after, Some(5000..=5000), Some((PushFailure::RateLimited, false))),
        (refused_connection, Some(50..=100), Some((PushFailure::Unreachable, false))),
        (status(401), Some(50..=100), Some((PushFailure::Unauthorized, true))),
        (status(404), Some(50..=100), Some((PushFailure::NotFound, true))),
        (status(400), Some(0..=0), None),
        (status(413), Some(0..=0), None),
    ] {
        let mut delivery = Delivery::new(&config());
        delivery.take(0, chunk(1, &["a".to_owned(), "b".to_owned()]));
        assert_eq!(delivery.poll(0, false), [], "it waits for more");
        let [Order::Send { shard, lines: 2, .. }] = delivery.poll(1000, false)[..] else {
            panic!("{outcome:?}")
        };
        delivery.on_outcome(1000, shard, &outcome, 77);
        let told = delivery.trouble().map(|trouble| (trouble.reason, trouble.hold));
        assert_eq!(told, trouble, "{outcome:?}");
        let waited = (0..20_000).find(|ms| !delivery.poll(1000 + ms, false).is_empty());
        match (waited, wait_ms) {
            (None, None) => assert!(delivery.is_empty()),
            (Some(ms), Some(range)) => assert!(range.contains(&ms), "{outcome:?}: {ms}"),
            other => panic!("{outcome:?}: {other:?}"),
        }
    }
}

#[test]
fn pauses_grow_to_their_limit_and_end_with_success() {
    let mut delivery = Delivery::new(&config());
    delivery.take(0, chunk(1, &["a".to_owned()]));
    let mut now = 1000;
    let mut pauses = Vec::new();
    for _ in 0..7 {
        let orders = delivery.poll(now, false);
        assert_eq!(orders.len(), 1);
        delivery.on_outcome(now, 1, &status(503), 0);
        let next = delivery.next_deadline_ms().unwrap();
        pauses.push(next - now);
        now = next;
    }
    assert_eq!(pauses, [50, 100, 200, 400, 500, 500, 500]);
    delivery.poll(now, false);
    delivery.on_outcome(now, 1, &status(204), 0);
    assert!(delivery.is_empty() && delivery.trouble().is_none());
}

/// A model Loki with bad lines, outages and lost answers: every good line arrives, in order per label set, bad ones
/// alone are buried, and a line comes twice only if its answer was lost or it was cut out of a refused request.
#[test]
fn against_a_model_loki() {
    let mut rng = Rng::from_env();
    for _ in 0..150 {
        let config = config();
        let mut delivery = Delivery::new(&config);
        let mut sent: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        let mut arrived: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut refused_with: BTreeSet<String> = BTreeSet::new();
        let mut lost_answers: BTreeSet<String> = BTreeSet::new();
        let (mut buried, mut bad, mut now, mut number) = (Vec::new(), BTreeSet::new(), 0, 0);
        let mut under_way: Vec<(usize, Vec<u8>)> = Vec::new();
        let chunks = 30 + rng.below(60);
        let mut taken = 0;
        while taken < chunks || !delivery.is_empty() {
            now += rng.below(300) as u64;
            if taken < chunks && delivery.has_room() {
                let lane = rng.below(6) as u64;
                let batch: Vec<String> = (0..1 + rng.below(8))
                    .map(|_| {
                        number += 1;
                        let line = format!("{number}{}", if rng.below(25) == 0 { " bad" } else { "" });
                        if line.ends_with("bad") {
                            bad.insert(line.clone());
                        }
                        line
                    })
                    .collect();
                sent.entry(lane).or_default().extend(batch.clone());
                taken += 1;
                assert_eq!(delivery.take(now, chunk(lane, &batch)), taken as u64);
            }
            for order in delivery.poll(now, false) {
                match order {
                    Order::Send { shard, body, lines: count, .. } => {
                        assert_eq!(lines(&body).len(), count);
                        under_way.push((shard, body));
                    }
                    Order::Bury { shard, letter } => {
                        let works = rng.below(4) > 0;
                        if works {
                            buried.push(letter.entry.line);
                        }
                        let result = if works { Ok(()) } else { Err("disk full".to_owned()) };
                        delivery.on_buried(now, shard, result, rng.next());
                    }
                }
            }
            assert!(under_way.len() <= config.in_flight_max);
            if under_way.is_empty() || rng.below(3) == 0 {
                continue;
            }
            let (shard, body) = under_way.swap_remove(rng.below(under_way.len()));
            let lines = lines(&body);
            let is_bad = lines.iter().any(|(_, line)| line.ends_with("bad"));
            let outcome = match rng.below(10) {
                0 => status(503),
                1 => Outcome::Failed(PushFailure::BrokenAnswer, "lost".to_owned()),
                _ if is_bad => status(400),
                _ => status(204),
            };
            let taken_by_loki = !matches!(outcome, Outcome::Status { code: 503, .. });
            if taken_by_loki {
                // As the real one: good lines of a refused request are kept.
                for (labels, line) in lines {
                    if !matches!(outcome, Outcome::Status { code: 204, .. }) {
                        let set = if matches!(outcome, Outcome::Failed(..)) {
                            &mut lost_answers
                        } else {
                            &mut refused_with
                        };
                        set.insert(line.clone());
                    }
                    if !line.ends_with("bad") {
                        arrived.entry(labels).or_default().push(line);
                    }
                }
            }
            delivery.on_outcome(now, shard, &outcome, rng.next());
        }
        assert_eq!(delivery.done(), chunks as u64);
        assert_eq!(buried.iter().cloned().collect::<BTreeSet<_>>(), bad);
        assert_eq!(buried.len(), bad.len(), "each once");
        for (lane, expected) in sent {
            let got = arrived.remove(&format!("{{lane=\"{lane}\"}}")).unwrap_or_default();
            let mut seen = BTreeSet::new();
            let first: Vec<&String> = got.iter().filter(|line| seen.insert(*line)).collect();
            let good: Vec<&String> = expected.iter().filter(|line| !bad.contains(*line)).collect();
            assert_eq!(first, good, "lane {lane}: all of them, in order");
            let mut seen = BTreeSet::new();
            for line in &got {
                assert!(
                    seen.insert(line) || lost_answers.contains(line) || refused_with.contains(line),
                    "{line} came twice without a reason"
                );
            }
        }
    }
}

#[test]
fn tenants_do_not_share_a_request() {
    let mut delivery = Delivery::new(&Loki { in_flight_max: 1, ..config() });
    for tenant in ["a", "a", "b"] {
        delivery.take(0, Chunk { tenant: tenant.to_owned(), ..chunk(1, &["x".to_owned()]) });
    }
    for (expected, lines_expected) in [("a", 2), ("b", 1)] {
        let orders = delivery.poll(5000, false);
        let [Order::Send { shard, tenant, lines, .. }] = &orders[..] else { panic!("{orders:?}") };
        assert_eq!((tenant.as_str(), *lines), (expected, lines_expected));
        delivery.on_outcome(5000, *shard, &status(204), 0);
    }
    assert!(delivery.is_empty());
}

/// What Loki's words tell is used: one request for the whole, and few for the neighbourhood of the bad line.
#[test]
fn words_narrow_the_search() {
    let config = Loki { batch_bytes: 1 << 20, batch_lines: 5000, in_flight_max: 1, ..config() };
    let mut delivery = Delivery::new(&config);
    let line = |number: usize| EntryAdapter {
        timestamp: Some(Timestamp::from_ns(1_763_772_768_000_000_000 + number as i64 * 100_000_000)),
        line: number.to_string(),
        ..Default::default()
    };
    for lane in 0..4 {
        let entries = (0..1000).map(|number| line(lane * 1000 + number)).collect();
        let stream = StreamAdapter { labels: format!("{{lane=\"{lane}\"}}"), entries };
        let body = PushRequest { streams: vec![stream] }.encode_to_vec();
        delivery.take(0, Chunk { lane: lane as u64, tenant: String::new(), lines: 1000, body });
    }
    let (mut sent, mut buried) = (0, Vec::new());
    while !delivery.is_empty() {
        for order in delivery.poll(1_000_000, true) {
            match order {
                Order::Send { shard, body, lines: count, .. } => {
                    sent += count;
                    let bad = lines(&body).iter().any(|(_, line)| line == "2345");
                    // Its second: 2025-11-22T00:52:48 + 234.5 s.
                    let words =
                        "entry for stream '{lane=\"2\"}' has timestamp too old: 2025-11-22T00:56:42Z, oldest"
                            .to_owned();
                    let code = if bad { 400 } else { 204 };
                    delivery.on_outcome(0, shard, &Outcome::Status { code, retry_after: None, words }, 0);
                }
                Order::Bury { shard, letter } => {
                    buried.push(letter.entry.line);
                    delivery.on_buried(0, shard, Ok(()), 0);
                }
            }
        }
    }
    assert_eq!(buried, ["2345"]);
    assert!(sent < 2 * 4000 + 100, "{sent} lines sent for 4000");
}
