//! A Loki that refuses, limits, hangs or is not there: what is held, what is buried, and what is said.

use super::super::super::verdicts::{ALONE_MAX, IN_A_ROW_MAX};
use super::super::*;
use super::{BLOCKED, Bench, Push, RATE, UNIX_NS, at, config, status};
use crate::settings::MaxLineAge;
use crate::telemetry::fault::Fault;
use crate::telemetry::metrics::DeadLetterReason;

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

/// A proxy that takes far less than a record of the spool has: what was learned of it holds when the record is read again,
/// however many label sets share the room for what was cut up, and whatever else fails meanwhile.
#[test]
fn a_body_that_is_too_large_makes_requests_smaller() {
    for (label_sets, records, limit, refused_max) in
        [(1, 40, 300, 4), (1, 40, 60, 8), (1, 8, 5, 14), (40, 40, 60, 80), (20, 20, 5, 120)]
    {
        let mut bench = Bench::up(&Loki { batch_bytes: 1 << 20, batch_lines: 10_000, ..config() });
        for record in 0..records {
            let line = |number: i64| (UNIX_NS + record * 10_000 + number, "x".repeat(500));
            let lines = (0..1900).map(line).collect::<Vec<_>>();
            bench.take(0, 1 + record as u64 % label_sets, "", &lines);
        }
        let (mut refused, mut count) = (0, 0);
        let accepted = bench.run(0..400_000, &mut |_, push| {
            count += 1;
            let large = push.lines.len() > limit;
            refused += i32::from(large);
            match count % 50 {
                _ if large => status(413, ""),
                7 => status(503, ""),
                _ => status(204, ""),
            }
        });
        let case = format!("{label_sets} label sets, {limit} lines: {refused} of {count} refused");
        assert!(bench.delivery.is_empty() && bench.buried.is_empty(), "{case}; {}", bench.wrong(400_000));
        assert!(refused <= refused_max, "{case}");
        assert_eq!(
            accepted.iter().map(|(_, push)| push.lines.len()).sum::<usize>(),
            records as usize * 1900,
            "{case}"
        );
        let note = bench.delivery.report(at(400_000)).note.expect("it is said");
        assert!(note.contains("413") && note.contains("set batch_size to that"), "{note}");
        assert!(bench.delivery.body_limit_news().is_some() && bench.delivery.body_limit_news().is_none());
    }
}

/// A line alone that is too large is a dead letter, and makes nothing smaller for others.
#[test]
fn a_line_that_no_proxy_takes_is_a_dead_letter() {
    let mut bench = Bench::up(&Loki { batch_bytes: 1 << 20, batch_lines: 10_000, ..config() });
    for record in 0..20_i64 {
        let long = |number: i64| if number % 7 == 3 { 300_000 } else { 50 };
        let line = |number: i64| (UNIX_NS + record * 1000 + number, "x".repeat(long(number)));
        bench.take(0, 1, "", &(0..10).map(line).collect::<Vec<_>>());
    }
    let mut refused = 0;
    bench.run(0..60_000, &mut |_, push| {
        let large = push.lines.iter().map(|(_, line)| line.len()).sum::<usize>() > 200_000;
        refused += i32::from(large);
        if large { status(413, "too large") } else { status(204, "") }
    });
    assert!(bench.delivery.is_empty(), "{}", bench.wrong(60_000));
    assert!(bench.buried.len() == 20 && bench.buried.iter().all(|letter| letter.entry.line.len() == 300_000));
    assert!(
        bench
            .buried
            .iter()
            .all(|letter| letter.reason == DeadLetterReason::BodyTooLarge && letter.code == 413)
    );
    assert!(refused < 20 + 10, "{refused}");
}

/// A record that is larger than all that may be kept of what was cut up: the search for its one bad line ends all the same.
#[test]
fn a_record_larger_than_the_config_allows_is_searched_to_its_end() {
    let mut bench = Bench::up(&config());
    let line = |number: i64| (UNIX_NS + number, format!("{number} {}", "x".repeat(500)));
    bench.take(0, 1, "", &(0..100).map(line).collect::<Vec<_>>());
    bench.run(0..60_000, &mut |_, push| {
        let is_bad = push.lines.iter().any(|(_, line)| line.starts_with("77 "));
        if is_bad { status(400, "policy 17 says no") } else { status(204, "") }
    });
    assert!(bench.delivery.is_empty(), "{}", bench.wrong(60_000));
    assert_eq!(bench.buried.len(), 1);
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
    assert!(wrong.contains("Loki has not answered for 70 s"), "{wrong}");
    bench.answer(671_000, &push, &status(503, "shutting down"));
    let wrong = bench.wrong(672_000);
    assert!(
        wrong.contains("status 503: shutting down") && wrong.contains("nothing was accepted for"),
        "{wrong}"
    );
}

/// One that takes the connection and never answers, from the start: the question whether it is there hangs.
#[test]
fn a_loki_that_never_answered_is_told_soon() {
    let mut bench = Bench::new(&config());
    bench.turn(0, false);
    assert!(bench.wrong(60_000).is_empty(), "nobody has anything to deliver");
    bench.line(60_000, 1, "a");
    bench.turn(60_100, false);
    assert!(bench.wrong(60_200).contains("Loki has not answered"), "{}", bench.wrong(60_200));
    bench.answer_probe(61_000, &status(204, ""));
    assert!(bench.wrong(61_000).is_empty(), "{}", bench.wrong(61_000));
}

/// A password that can't be read was once called a refused login, and what was answered last hid that nothing is answered now.
#[test]
fn what_is_wrong_is_named_by_its_kind() {
    let mut bench = Bench::up(&config());
    bench.line(0, 1, "a");
    bench.turn(1_100, false);
    let push = bench.under_way.remove(0);
    let failed = PushOutcome::Failed(PushFailure::Unauthorized, "reading /password: gone".to_owned());
    bench.answer(1_200, &push, &failed);
    let faults = bench.delivery.report(at(1_200)).faults;
    assert!(faults.contains(&Fault::LoginUnreadable), "{faults:?}");
    let mut bench = Bench::up(&config());
    bench.line(0, 1, "a");
    bench.turn(1_100, false);
    let push = bench.under_way.remove(0);
    bench.answer(1_200, &push, &status(401, "connection lost: unreachable, does not answer"));
    assert_eq!(bench.delivery.report(at(1_200)).faults, [Fault::Push(PushFailure::Unauthorized)]);
    bench.turn(120_000, false);
    let report = bench.delivery.report(at(140_000));
    assert_eq!(report.faults[0], Fault::Push(PushFailure::TimedOut), "{report:?}");
    assert!(report.wrong[0].starts_with("Loki has not answered"), "{report:?}");
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
    assert!(bench.wrong(21_000).contains("Loki has not answered for 11 s"), "{}", bench.wrong(21_000));
    assert_eq!(bench.delivery.report(at(21_000)).faults, [Fault::Push(PushFailure::TimedOut)]);
    let push = bench.under_way.remove(0);
    let words = "no answer within 30 s";
    bench.answer(41_000, &push, &PushOutcome::Failed(PushFailure::TimedOut, words.to_owned()));
    let wrong = bench.wrong(41_000);
    assert!(wrong.contains(words) && !wrong.contains("go on"), "nothing goes on: {wrong}");
    let wrong = bench.wrong(90_000);
    assert!(
        wrong.starts_with("Loki has not answered for 80 s (no answer within 30 s); check Loki"),
        "{wrong}"
    );
    assert!(!wrong.contains("nothing was accepted"), "said once: {wrong}");
    assert_eq!(wrong.matches(words).count(), 1, "{wrong}");
    let push = bench.under_way.remove(0);
    bench.answer(91_000, &push, &status(204, ""));
    assert!(bench.wrong(91_000).contains("other label sets go on"), "{}", bench.wrong(91_000));
}

/// Lines that are refused one after the other looked like an outage of many minutes in which nothing waited.
#[test]
fn refused_lines_do_not_wait() {
    let mut bench = Bench::up(&config());
    let mut rule =
        |_: u64, _: &Push| status(400, "entry for stream '{label_set=\"1\"}' has 16 label names; limit 15");
    for ms in (0..120_000).step_by(500) {
        // The next one comes before the last is done.
        bench.line(ms, ms / 500 % 3, "bad");
        bench.run(ms..ms + 500, &mut rule);
    }
    assert!(!bench.delivery.is_empty() && bench.buried.len() > 200, "{}", bench.buried.len());
    let wrong = bench.wrong(120_000);
    assert!(!wrong.contains("nothing was accepted"), "{wrong}");
}

/// Whoever looks in an outage has a few seconds: since when, why, how much waits and what to do, and not each label set.
#[test]
fn an_outage_is_told_in_one_sentence() {
    let mut bench = Bench::up(&config());
    (0..3).for_each(|label_set| bench.line(0, label_set, "a line"));
    bench.turn(2_000, false);
    let failed = |words: &str| PushOutcome::Failed(PushFailure::BrokenAnswer, words.to_owned());
    for push in std::mem::take(&mut bench.under_way) {
        bench.answer(2_000, &push, &failed("the connection broke"));
    }
    let wrong = bench.wrong(2_000);
    assert!(wrong.starts_with("3 label sets wait, such as {label_set="), "{wrong}");
    assert_eq!(wrong.matches("the connection broke").count(), 1, "{wrong}");
    bench.turn(3_000, false);
    let refused = || PushOutcome::Failed(PushFailure::Unreachable, "connecting to h:1: refused".to_owned());
    for push in std::mem::take(&mut bench.under_way) {
        bench.answer(3_000, &push, &refused());
    }
    for _ in 0..std::mem::take(&mut bench.probes) {
        bench.delivery.on_probe(at(3_000), &refused(), 0);
    }
    let wrong = bench.wrong(193_000);
    assert!(
        wrong.starts_with(
            "Loki has been unreachable for 3 min: connecting to h:1: refused; check that Loki runs, or correct \
             sinks.loki.url; 3 lines wait on disk ("
        ),
        "{wrong}"
    );
    assert!(wrong.ends_with("sent when Loki accepts lines again"), "{wrong}");
}

/// A page said "waiting for loki: 16 s", and nobody knew whether for an answer, for the next attempt or for the spool.
#[test]
fn what_lines_wait_for_is_told() {
    let mut bench = Bench::up(&config());
    let waits_for = |bench: &mut Bench, ms: u64| bench.delivery.report(at(ms)).waits_for;
    assert_eq!(waits_for(&mut bench, 5_000), "", "no line is there");
    bench.line(10_000, 1, "a");
    bench.turn(11_000, false);
    assert_eq!(waits_for(&mut bench, 14_000), "an answer to the push of 3 s ago");
    let push = bench.under_way.remove(0);
    let refused = PushOutcome::Failed(PushFailure::Unreachable, "connecting to h:1: refused".to_owned());
    bench.answer(14_000, &push, &refused);
    let told = waits_for(&mut bench, 14_000);
    assert!(told.starts_with("the next push, in ") && told.ends_with(" s"), "{told}");
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

/// The spool makes room by giving up its oldest segment. What stood there does not wait any more, and health must not say so.
#[test]
fn lines_that_the_spool_gave_up_do_not_wait() {
    let mut bench = Bench::up(&config());
    let limited = |_: u64, _: &Push| status(429, RATE);
    for round in 0..3 {
        (0..20).for_each(|line| bench.line(round * 500, 1, &format!("{round} {line}")));
        bench.run(round * 500..(round + 1) * 500, &mut limited.clone());
    }
    let said = |bench: &Bench| bench.delivery.report(at(2000)).wrong.join("\n");
    let (before, entries) = (said(&bench), bench.delivery.what_waits());
    assert!(entries.starts_with("60 lines"), "{entries}; {before}");
    let places = bench.delivery.give_up_before(2);
    let after = bench.delivery.what_waits();
    assert!(after.starts_with("1 line "), "{} given up: {after}", places.len());
}

/// A cause that is over was named, with its cure, for as long as another lasted.
#[test]
fn what_is_told_is_what_the_last_answer_was() {
    for tenant in ["", "a"] {
        let mut bench = Bench::up(&config());
        bench.take(0, 1, tenant, &[(UNIX_NS, "x".to_owned())]);
        let answers = [(403, "403"), (503, "503"), (403, "403"), (500, "500"), (401, "401"), (429, "429")];
        let mut from = 0;
        for (code, said) in answers {
            bench.run(from..from + 20_000, &mut |_, _| status(code, ""));
            from += 20_000;
            let wrong = bench.wrong(from);
            assert!(wrong.contains(said), "{said}: {wrong}");
            let others = answers.iter().filter(|(_, other)| *other != said && wrong.contains(other));
            assert_eq!(others.count(), 0, "only {said}: {wrong}");
        }
        // With nobody there, empty pushes alone are answered.
        bench.run(from..from + 61_000, &mut |_, _| status(403, ""));
        from += 61_000;
        let gone = PushOutcome::Failed(PushFailure::Unreachable, "connection refused".to_owned());
        bench.run(from..from + 20_000, &mut |_, _| gone.clone());
        let wrong = bench.wrong(from + 20_000);
        assert!(wrong.contains("unreachable") && !wrong.contains("403"), "{wrong}");
    }
}
