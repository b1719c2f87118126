//! Loki's own words, and which lines they mean.

use super::super::push::{LabelPairAdapter, StreamAdapter, Timestamp};
use super::*;

/// 2026-11-20T00:00:00Z.
const NOW: i64 = 1_795_132_800 * SECOND_NS;
const DAY: i64 = 86_400 * SECOND_NS;

fn request(times: &[i64]) -> PushRequest {
    let entry = |time: &i64| EntryAdapter {
        timestamp: Some(Timestamp::from_ns(*time)),
        line: "x".to_owned(),
        ..Default::default()
    };
    let entries = times.iter().map(entry).collect();
    PushRequest { streams: vec![StreamAdapter { labels: "{a=\"b; c\"}".to_owned(), entries }] }
}

fn shown(ns: i64) -> String {
    format!("{}Z", &timestamp::format(ns)[..19])
}

fn check(request: &PushRequest, words: &str, refused: &[usize], unsure: &[usize]) {
    let sorted = sort(request, words, NOW);
    let found: Vec<usize> = sorted.refused.keys().copied().collect();
    assert_eq!((&found[..], &sorted.unsure[..]), (refused, unsure), "{words}");
}

#[test]
fn too_old_by_the_oldest_that_is_acceptable() {
    let oldest = NOW - 7 * DAY;
    let times = [oldest - DAY, oldest - 1, oldest + 1, oldest + SECOND_NS, NOW];
    let words = |time: i64, oldest: i64| {
        format!(
            "entry for stream '{{a=\"b; c\"}}' has timestamp too old: {}, oldest acceptable timestamp is: {}",
            shown(time),
            shown(oldest)
        )
    };
    check(&request(&times), &words(times[0], oldest), &[0, 1], &[2]);
    let both = format!("{}; 1 errors like: {}", words(times[0], oldest), words(times[1], oldest));
    check(&request(&times), &both, &[0, 1], &[2]);
    // A limit that no line could keep is not believed: the lines are told by their second.
    check(&request(&times), &words(times[0], NOW + DAY), &[0], &[]);
    check(&request(&[NOW]), &words(times[0], NOW + DAY), &[], &[]);
}

#[test]
fn too_new_by_second_and_count() {
    let late = NOW + 3600 * SECOND_NS;
    let words = |count: usize, time: i64| {
        let count = if count == 1 { String::new() } else { format!("{count} errors like: ") };
        format!("{count}entry for stream '{{a=\"b; c\"}}' has timestamp too new: {}", shown(time))
    };
    let times = [NOW, late, late + 5, late + SECOND_NS];
    check(&request(&times), &format!("{}; {}", words(2, late), words(1, late + SECOND_NS)), &[1, 2, 3], &[]);
    // One of two lines of that second: which, Loki does not say.
    check(&request(&times), &words(1, late), &[], &[1, 2]);
    // Words that fit no line, and words that mean all lines.
    check(&request(&times), &words(1, late + DAY), &[], &[]);
    check(&request(&times), &words(4, late + DAY), &[0, 1, 2, 3], &[]);
}

/// As Go shows a time.
fn exact(ns: i64) -> String {
    let text = timestamp::format(ns);
    let (date, time) = text.trim_end_matches('Z').split_once('T').unwrap();
    let time = if time.contains('.') { time.trim_end_matches('0').trim_end_matches('.') } else { time };
    format!("{date} {time} +0000 UTC")
}

/// Ten are named, and how many there are.
fn ignored(times: &[i64], reason: &str, of: usize) -> String {
    let one = |time: &i64| format!("entry with timestamp {} ignored, reason: '{reason}',\n", exact(*time));
    let named: String = times.iter().take(10).map(one).collect();
    format!("{named}user 't1', total ignored: {} out of {of} for stream: {{a=\"b; c\"}}", times.len())
}

/// All of them in one second: by it nobody could tell them apart, and those that are stored would become dead letters.
#[test]
fn out_of_order_to_the_nanosecond() {
    let reason = "entry out of order";
    let mut times: Vec<i64> = (0..100).map(|number| NOW + number * 5_000_000).collect();
    times.splice(30..33, [NOW + 1, NOW + 2, NOW + 3]);
    let words = ignored(&times[30..33], reason, 100);
    check(&request(&times), &words, &[30, 31, 32], &[]);
    // More than are named; and some before the first, for Loki had a newer line.
    for count in [11, 40] {
        let mut times: Vec<i64> = (0..100).map(|number| NOW + number * 5_000_000).collect();
        (0..count).for_each(|index| times[20 + 2 * index] = NOW + 7 + index as i64);
        let late: Vec<usize> = (0..5).chain((0..count).map(|index| 20 + 2 * index)).collect();
        let of_late: Vec<i64> = late.iter().map(|index| times[*index]).collect();
        check(&request(&times), &ignored(&of_late, reason, 100), &late, &[]);
    }
    // Two of one nanosecond, of which one was refused: not told by the time, but by the order.
    let times = [NOW, NOW + 9, NOW, NOW + 9];
    check(&request(&times), &ignored(&[NOW], reason, 4), &[2], &[]);
}

#[test]
fn too_far_behind_to_the_nanosecond() {
    let reason = format!("entry too far behind, oldest acceptable timestamp is: {}", shown(NOW - DAY));
    let times = [NOW - DAY - 1, NOW - DAY + 5, NOW - DAY + 6, NOW];
    check(&request(&times), &ignored(&times[..2], &reason, 4), &[0, 1], &[]);
    // Which of two equal ones, Loki does not say.
    let times = [NOW - DAY + 5, NOW - DAY + 5, NOW];
    check(&request(&times), &ignored(&times[..1], &reason, 3), &[], &[0, 1]);
}

#[test]
fn too_far_behind_by_limit_and_count() {
    let words = |ignored: usize, oldest: i64| {
        format!(
            "entry with timestamp {} ignored, reason: 'entry too far behind, entry timestamp is: {}, oldest \
             acceptable timestamp is: {}',\nuser 't1', total ignored: {ignored} out of 3 for stream: {{a=\"b; c\"}}",
            shown(NOW - 2 * DAY).replace('T', " ").replace('Z', " +0000 UTC"),
            shown(NOW - 2 * DAY),
            shown(oldest)
        )
    };
    let times = [NOW - 2 * DAY, NOW - DAY, NOW];
    check(&request(&times), &words(1, NOW - DAY - SECOND_NS), &[0], &[]);
    // The limit moved; the line's own time is exact, if it is there.
    check(&request(&times), &words(1, NOW - SECOND_NS), &[0], &[]);
    check(&request(&times), &words(1, NOW - SECOND_NS).replace(" +0000 UTC", "Z"), &[], &[0, 1]);
    // Without the limit there is the line's own time.
    let words = "entry with timestamp 2026-11-18 00:00:00 +0000 UTC ignored, reason: 'entry too far behind, \
                 …', user 't1', total ignored: 1 out of 3 for stream: {a=\"b; c\"}";
    check(&request(&times), words, &[0], &[]);
}

#[test]
fn by_length_size_and_label_set() {
    let mut long = request(&[NOW, NOW, NOW]);
    long.streams[0].entries[1].line = "x".repeat(300);
    long.streams[0].entries[2].structured_metadata =
        vec![LabelPairAdapter { name: "a".to_owned(), value: "y".repeat(200) }];
    let too_long = "Max entry size '262' bytes exceeded for stream '{a=\"b; c\"}' while adding an entry with length '300' bytes";
    let too_large =
        "stream '{a=\"b; c\"}' has structured metadata too large: '201' bytes, limit: '100' bytes.";
    check(&long, too_long, &[1], &[]);
    check(&long, too_large, &[2], &[]);
    check(&long, &format!("{too_long}; {too_large}"), &[1, 2], &[]);
    check(&long, "entry for stream '{a=\"b; c\"}' has 16 label names; limit 15", &[0, 1, 2], &[]);
    check(&long, "couldn't parse labels: 1:3: parse error", &[0, 1, 2], &[]);
    for other in ["", "no", "bad; worse\nworst", "Max entry size"] {
        check(&long, other, &[], &[]);
    }
}

/// A server's words are anybody's: no panic, and no line is both.
#[test]
fn any_words() {
    let mut rng = super::super::super::testing::Rng::from_env();
    let parts = [
        "timestamp too old: ",
        "2026-11-13T00:00:00Z",
        "oldest acceptable timestamp is: ",
        "; ",
        "\n",
        "3 errors like: ",
        "total ignored: ",
        "9",
        "too new",
        "max entry size '",
        "é",
        "entry too far behind",
        "2026-11-13 00:00:00",
        "structured metadata limit: '",
        "{a=\"",
    ];
    for _ in 0..5_000 {
        let words: String = (0..rng.below(12)).map(|_| rng.pick(&parts)).collect();
        let sorted = sort(&request(&[NOW, NOW - 8 * DAY]), &words, NOW);
        assert!(sorted.unsure.iter().all(|index| !sorted.refused.contains_key(index)));
    }
}
