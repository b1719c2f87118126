//! What is shown after two looks at an agent.

use super::*;

fn look(at: Instant, captured_so_far: u64, rows: &[Value]) -> Look {
    Look {
        at,
        rows: rows.iter().filter_map(|row| row.as_object().cloned()).collect(),
        fresh: true,
        age_ms: 0,
        problems: BTreeMap::new(),
        warnings: BTreeSet::new(),
        notes: BTreeMap::new(),
        told: BTreeMap::new(),
        behind_since: BTreeMap::new(),
        pipelines: String::new(),
        losses: losses("log_capturer_losses_total{reason=\"rotated\"} 0\n"),
        captured: captured(&format!("log_capturer_logs_processed_total {captured_so_far}\nother 1\n")),
        sent: by_sink("log_capturer_logs_sent_total{sink=\"local_file\"} 12\nother 1\n"),
        spools: Vec::new(),
    }
}

/// The screen hides text printed before it.
#[test]
fn that_another_agent_may_be_shown_is_on_the_screen() {
    let client = AgentClient {
        address: "127.0.0.1:8001".parse().unwrap(),
        socket: None,
        token: None,
        is_from_variable: false,
        tls: false,
        doubt: Some("this config can't be used".to_owned()),
    };
    let now = look(Instant::now(), 0, &[]);
    let table = words::page(&View::of(&client, &now, &now), (200, 10), true);
    assert!(table.contains("note on config: this config can't be used\n"), "{table}");
}

/// Lines in a spool are not delivered.
#[test]
fn delivered_is_what_the_other_side_accepted() {
    let text = "log_capturer_logs_sent_total{sink=\"loki\"} 900\nlog_capturer_logs_sent_total{sink=\"stdout\"} 7\n\
                log_capturer_pushed_lines_total{sink=\"loki\"} 3\n";
    assert_eq!(by_sink(text), BTreeMap::from([("loki".to_owned(), 3), ("stdout".to_owned(), 7)]));
}

fn view() -> View {
    let stream = |id: u64, name: &str, lines: u64| {
        serde_json::json!({
            "id": id, "name": name, "lines": lines, "mode": "api", "state": "following", "state_age_ms": 65_000,
            "says": "follows over the API", "operation": "read", "operation_deadline_ms": 12_000, "lag_bytes": 20_480, "age_ms": 500, "rotations": 3,
            "failures": 0
        })
    };
    let start = Instant::now();
    let before = look(start, 110, &[stream(1, "web", 100), stream(2, "db", 10)]);
    let rows = [stream(1, "web", 110), stream(2, "db\u{1b}[2J", 60), stream(3, "new", 9)];
    View::new("127.0.0.1:8001".to_owned(), &before, &look(start + Duration::from_secs(2), 179, &rows))
}

#[test]
fn rates_are_between_two_looks_and_the_busiest_comes_first() {
    let view = view();
    let rows: Vec<(&str, f64)> = view.streams.iter().map(|row| (text(row, "name"), rate(row))).collect();
    assert_eq!(rows, [("db\u{1b}[2J", 25.0), ("web", 5.0), ("new", 0.0)]);
    assert_eq!((view.lines_per_second, view.lag_bytes, view.sent["local_file"]), (34.5, 61_440, 12));
}

/// Loki reads apart from the other sinks, so each line counts in two rows.
#[test]
fn a_line_that_two_sinks_take_is_captured_once() {
    let stream = |id: u64, sink: &str, lines: u64, lag: u64| {
        let sinks = [sink];
        serde_json::json!({"id": id, "name": "web", "sinks": sinks, "lines": lines, "lag_bytes": lag})
    };
    let start = Instant::now();
    let before = look(start, 100, &[stream(1, "local_file", 100, 0), stream(2, "loki", 90, 0)]);
    let rows = [
        stream(1, "local_file", 120, 7),
        stream(2, "loki", 110, 30),
        stream(3, "local_file", 0, 1),
        stream(4, "loki", 0, 2),
    ];
    let view = View::new(String::new(), &before, &look(start + Duration::from_secs(1), 120, &rows));
    assert_eq!((view.lines_per_second, view.lag_bytes), (20.0, 32));
    assert_eq!(view.streams.iter().map(rate).collect::<Vec<_>>(), [20.0, 20.0, 0.0, 0.0]);
}

#[test]
fn a_spool_in_which_lines_wait_is_named() {
    let text = |age: u32| {
        format!(
            "log_capturer_spool_bytes{{sink=\"loki\"}} 1048576\nlog_capturer_spool_lag_seconds{{sink=\"loki\"}} {age}\n\
             log_capturer_spool_limit_bytes{{sink=\"loki\"}} 4194304\n"
        )
    };
    let waits = |_: &str| Some("the next push, in 4 s");
    let expected = "spool of loki: 25.0 % full (1.0 MiB), its oldest line is 86 s old and waits for the next push, in 4 s";
    assert_eq!(spools(&text(86), &waits), [expected]);
    assert_eq!(spools(&text(86), &|_| None), [expected.split(" and waits").next().unwrap()]);
    assert_eq!(spools(&text(1), &waits), Vec::<String>::new());
}

/// A source counts as behind after a while, and not if it was just read.
#[test]
fn behind_is_who_was_behind_for_a_while() {
    let start = Instant::now();
    let rows = |lag: u64| [serde_json::json!({"id": 1, "name": "a", "lines": 5, "lag_bytes": lag})];
    let first = look(start, 0, &rows(BEHIND_BYTES));
    let behind = |seconds: u64, lag: u64, before: &Look| {
        let now = look(start + Duration::from_secs(seconds), 0, &rows(lag)).after(before);
        let view = View::new(String::new(), before, &now);
        (view.streams[0].contains_key(fold::BEHIND), now)
    };
    let (is_behind, second) = behind(1, BEHIND_BYTES, &first);
    assert!(!is_behind);
    assert!(behind(11, 1, &second).0, "nothing of it was read");
    assert!(!behind(11, 0, &second).0);
}

#[test]
fn sentences_are_wrapped_and_not_cut() {
    assert_eq!(wrap("one two three", 7), ["one two", "three"]);
    assert_eq!(wrap("a-long-word b", 4), ["a-long-word", "b"]);
}

/// Golden: a name can't control the terminal, and the table fits it.
#[test]
fn the_table_fits_the_terminal() {
    let page = |size: (usize, usize)| words::page(&view(), size, true);
    let all = page((80, 100));
    assert_eq!(
        all.lines().collect::<Vec<_>>(),
        [
            "✓ all is well",
            "capturer at 127.0.0.1:8001",
            "3 sources, 34.5 lines/s, unread 60 KiB, losses 0; delivered: local_file 12",
            "SOURCE                     LINES/S   UNREAD    LAST STATE",
            "db?[2J                        25.0   20 KiB       - follows over the API",
            "web                            5.0   20 KiB       - follows over the API",
            "new                            0.0   20 KiB       - follows over the API",
        ]
    );
    let small = page((40, 9));
    assert!(small.lines().all(|line| line.chars().count() <= 47), "{small}");
    assert!(small.ends_with("\n… and 2 more\n"), "{small}");
}

#[test]
fn losses_of_all_reasons_are_summed() {
    let text = "log_capturer_losses_total{reason=\"rotated\"} 2\nlog_capturer_losses_total{reason=\"spool_full\"} 1\n\
                log_capturer_possible_losses_total{reason=\"rotated\"} 9\n";
    assert_eq!(losses(text), 3);
}

/// Lines that wait in the spool are not delivered.
#[test]
fn a_network_sink_has_delivered_what_was_taken() {
    let metrics = "log_capturer_logs_sent_total{sink=\"loki\"} 90\nlog_capturer_logs_sent_total{sink=\"stdout\"} 80\n\
                   log_capturer_pushed_lines_total{sink=\"loki\"} 5\n";
    assert_eq!(by_sink(metrics), [("loki".to_owned(), 5), ("stdout".to_owned(), 80)].into());
}

/// The sum once looked as if it were all, beside rows of which nobody knew anything.
#[test]
fn what_is_not_known_is_part_of_the_sum() {
    let start = Instant::now();
    let row = |id: u32, unknown: bool| serde_json::json!({"id": id, "key": format!("c:{}", id / 2), "name": "a", "lag_bytes": 51, "unknown": unknown});
    let told = |rows: &[Value]| {
        let look = look(start, 0, rows);
        unread_of_all(&View::new(String::new(), &look, &look))
    };
    assert_eq!(told(&[row(2, false)]), "51 B");
    assert_eq!(told(&[row(2, false), row(4, true), row(5, true)]), "153 B + ? (1 source not known)");
    assert_eq!(told(&[row(4, true)]), "?");
}
