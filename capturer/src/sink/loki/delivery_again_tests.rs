//! What of a request is sent again, and what is not: what was stored or buried stays so, whatever comes after it.

use std::collections::BTreeSet;

use super::super::*;
use super::{Bench, RATE, UNIX_NS, config, status};
use crate::settings::MaxLineAge;
use crate::telemetry::metrics::DeadLetterReason;

const DAY: i64 = 86_400_000_000_000;

fn lines(range: std::ops::Range<i64>, from: i64) -> Vec<(i64, String)> {
    range.map(|number| (from + number, number.to_string())).collect()
}

fn texts<'a>(pushes: impl IntoIterator<Item = &'a super::Push>) -> Vec<&'a str> {
    pushes.into_iter().flat_map(|push| &push.lines).map(|(_, line)| line.as_str()).collect()
}

/// Old lines beside fresh ones that Loki does not take for a while: each attempt buried the old ones again.
#[test]
fn letters_are_written_once_however_often_the_rest_is_refused() {
    let lost = || PushOutcome::Failed(PushFailure::BrokenAnswer, "closed".to_owned());
    let no_tenant = || status(429, "Ingestion rate limit exceeded for user t");
    let answers: [&dyn Fn() -> PushOutcome; 4] =
        [&|| status(500, ""), &lost, &no_tenant, &|| status(429, RATE)];
    for (number, answer) in answers.into_iter().enumerate() {
        for records in [1, 2] {
            let config = Loki { max_line_age: MaxLineAge::Fixed(Duration::from_secs(3600)), ..config() };
            let mut bench = Bench::up(&config);
            for record in 0..records {
                let mut mixed = lines(10 * record..10 * record + 5, UNIX_NS - DAY);
                mixed.extend(lines(10 * record + 5..10 * record + 10, UNIX_NS));
                bench.take(0, 1, "", &mixed);
            }
            let mut refusals = 0;
            let accepted = bench.run(0..60_000, &mut |_, _| {
                refusals += 1;
                if refusals <= 10 { answer() } else { status(204, "") }
            });
            assert!(bench.delivery.is_empty(), "answer {number}");
            assert_eq!(bench.buried.len() as i64, 5 * records, "answer {number}");
            let accepted = texts(accepted.iter().map(|(_, push)| push));
            let expected: Vec<String> = (0..records)
                .flat_map(|record| 10 * record + 5..10 * record + 10)
                .map(|line| line.to_string())
                .collect();
            assert_eq!(accepted, expected, "answer {number}");
        }
    }
}

/// Loki stored the good lines of a request and named two by their second, which are sent once more. That fails: the others
/// must not come again, and what is sure must not be buried again.
#[test]
fn what_a_refusal_decided_stays_decided() {
    let mut bench = Bench::up(&Loki { batch_bytes: 100_000, batch_lines: 1000, ..config() });
    let second = 1_000_000_000;
    let mut all = lines(0..100, UNIX_NS);
    all[10].1 = "x".repeat(2_000);
    (all[20].0, all[21].0) = (UNIX_NS - 5 * second, UNIX_NS - 5 * second + 1);
    bench.take(0, 1, "", &all);
    let mut sizes = Vec::new();
    bench.run(0..60_000, &mut |_, push| {
        sizes.push(push.lines.len());
        match sizes.len() {
            1 => status(
                400,
                "Max entry size '1000' bytes exceeded for stream '{}' while adding an entry with length '2000' bytes; \
                 entry with timestamp 2026-11-19T23:59:55Z ignored, reason: 'entry out of order' for stream: {}",
            ),
            2..5 => status(500, "once"),
            _ => status(204, ""),
        }
    });
    assert!(bench.delivery.is_empty());
    assert_eq!(sizes, [100, 2, 2, 2, 2], "only what is unsure is sent again");
    assert_eq!(bench.buried.len(), 1);
    assert_eq!(bench.delivery.accepted_lines(), 99);
}

/// A stop between the parts of a request: the next run begins behind those that Loki took.
#[test]
fn the_next_run_goes_on_within_a_record() {
    let config = Loki { batch_lines: 1000, batch_bytes: 100_000, ..config() };
    let all = lines(0..300, UNIX_NS);
    let mut bench = Bench::up(&config);
    bench.take(0, 1, "", &all[..200]);
    bench.take(0, 1, "", &all[200..]);
    let mut sent = 0;
    let before = bench.run(0..2_000, &mut |_, push| {
        if push.lines.len() > 100 || sent >= 150 {
            return status(429, RATE);
        }
        sent += push.lines.len();
        status(204, "")
    });
    let first = Position { segment: 1, offset: 1 };
    let done: Vec<(Position, usize)> = bench.delivery.done_in_part().collect();
    assert_eq!(done, [(first, sent)]);
    assert!((150..200).contains(&sent), "{sent}");
    // As another run reads it: others of the label set may be done in part as well, if their tenant was another one then.
    let mut next = Bench::up(&config);
    next.take_rest(0, 1, "", &all[..200], sent);
    next.take_rest(0, 1, "", &all[200..], 10);
    let after = next.run(0..10_000, &mut |_, _| status(204, ""));
    assert!(next.delivery.is_empty() && next.done.len() == 2);
    let expected: Vec<&str> = (0..200).chain(210..300).map(|line: usize| all[line].1.as_str()).collect();
    assert_eq!(texts(before.iter().chain(&after).map(|(_, push)| push)), expected);
    assert_eq!(next.delivery.done_in_part().next(), None);
    assert_eq!(next.delivery.accepted_lines() as usize, 290 - sent);
}

/// Without `unordered_writes` a line that is sent again is refused even if it is stored, so none may be sent again for nothing.
#[test]
fn an_ordered_loki_gets_each_line_once() {
    let mut bench = Bench::up(&Loki { batch_bytes: 100_000, batch_lines: 1000, ..config() });
    let mut all: Vec<(i64, String)> =
        (0..100).map(|number| (UNIX_NS + number * 5_000_000, number.to_string())).collect();
    (30..45).for_each(|index| all[index].0 = UNIX_NS + index as i64);
    bench.take(0, 1, "", &all);
    let (mut newest, mut stored, mut requests) = (i64::MIN, Vec::new(), 0);
    bench.run(0..60_000, &mut |_, push| {
        requests += 1;
        let mut late = Vec::new();
        for (ns, line) in &push.lines {
            if *ns < newest {
                late.push(*ns);
            } else {
                newest = *ns;
                stored.push(line.clone());
            }
        }
        let shown =
            |ns: &i64| crate::decode::timestamp::format(*ns).replace('T', " ").replace('Z', " +0000 UTC");
        let named = late.iter().take(10);
        let named: String = named
            .map(|ns| format!("entry with timestamp {} ignored, reason: 'entry out of order',\n", shown(ns)))
            .collect();
        match late.len() {
            0 => status(204, ""),
            count => status(
                400,
                &format!(
                    "{named}user 't', total ignored: {count} out of {} for stream: {{}}",
                    push.lines.len()
                ),
            ),
        }
    });
    assert!(bench.delivery.is_empty());
    assert_eq!((stored.len(), bench.buried.len(), requests), (85, 15, 1));
    assert!(bench.buried.iter().all(|letter| letter.reason == DeadLetterReason::OutOfOrder));
}

/// Loki names one line by its second, of many: those that it stored must not become dead letters with it.
#[test]
fn one_line_of_a_second_is_found() {
    let mut bench = Bench::up(&Loki { batch_bytes: 100_000, batch_lines: 1000, ..config() });
    bench.take(0, 1, "", &lines(0..40, UNIX_NS));
    let (mut stored, mut requests) = (BTreeSet::new(), 0);
    bench.run(0..60_000, &mut |_, push| {
        requests += 1;
        stored.extend(push.lines.iter().map(|(_, line)| line.clone()).filter(|line| line != "33"));
        if push.lines.iter().any(|(_, line)| line == "33") {
            status(400, "entry for stream '{}' has timestamp too new: 2026-11-20T00:00:00Z")
        } else {
            status(204, "")
        }
    });
    assert!(bench.delivery.is_empty());
    let buried: Vec<&str> = bench.buried.iter().map(|letter| letter.entry.line.as_str()).collect();
    assert_eq!((buried, stored.len()), (vec!["33"], 39));
    assert!(requests < 16, "{requests}");
}
