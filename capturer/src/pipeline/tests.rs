//! Each step as a table, and properties of any pipeline over any batch.

use super::*;
use crate::model::fields::Extra;
use crate::model::record::{MessageForm, StdType};
use crate::settings::file::{Outside, parse as parse_config};
use crate::sink::ndjson::{SourcePrefix, encode};
use crate::sink::testing::{Rng, batch, container, push};

const NOW: &str = "2026-11-22T01:00:00Z";

/// The first pipeline of a config.
fn pipeline(section: &str) -> Arc<Pipeline> {
    let outside = Outside { variable: &|_| None, file: &|_| Err("none".to_owned()) };
    let text = format!("pipelines: [{{name: p, {section}}}]");
    let settings = parse_config("c.yaml", &text, &[], &outside).unwrap_or_else(|error| panic!("{error}"));
    settings.pipelines[0].clone()
}

fn source(pipeline: &Arc<Pipeline>) -> Arc<Source> {
    let mut source = Arc::into_inner(container(1, "web")).expect("only one");
    source.pipeline = Some(Arc::clone(pipeline));
    source.pipeline_labels.insert("com.example.team".to_owned(), "shop".to_owned());
    Arc::new(source)
}

fn now_ns() -> i64 {
    timestamp::parse(NOW.as_bytes()).expect("a time")
}

/// A pipeline with its state, fed batch by batch.
struct Feed {
    source: Arc<Source>,
    pipelines: Pipelines,
    tally: Tally,
}

impl Feed {
    fn new(section: &str) -> Feed {
        let source = source(&pipeline(section));
        Feed { source, pipelines: Pipelines::default(), tally: Tally::new() }
    }

    /// What comes out of a batch, as short text: a line each.
    fn lines(&mut self, lines: &[&str]) -> Vec<String> {
        let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
        let batch = Arc::new(batch(&self.source, &lines));
        self.batch(&batch)
    }

    fn batch(&mut self, batch: &Arc<Batch>) -> Vec<String> {
        let processed = self.pipelines.process(batch, now_ns()).expect("a pipeline");
        for (key, lines) in processed.tally {
            *self.tally.entry(key).or_default() += lines;
        }
        show(processed.batch.as_ref().unwrap_or(batch))
    }

    fn tally(&self) -> String {
        let parts =
            self.tally.iter().map(|((step, outcome), lines)| format!("{step} {} {lines}", outcome.as_str()));
        parts.collect::<Vec<_>>().join(", ")
    }
}

/// Records as NDJSON writes them, without what is the same in all of them.
fn show(batch: &Batch) -> Vec<String> {
    let mut out = Vec::new();
    encode(batch, &SourcePrefix::new(&batch.source), 0, usize::MAX, &mut out);
    let text = String::from_utf8(out).expect("UTF-8");
    let id = format!("\"container_id\":\"{:064x}\",\"container_name\":\"web\",\"image\":\"nginx:1.27\",", 1);
    let shorter = |line: &str| {
        line.replace(&id, "")
            .replace("\"time\":\"2026-11-22T00:52:48.162820305Z\",", "")
            .replace("\"stream\":\"stdout\",", "")
    };
    text.lines().map(shorter).collect()
}

/// One pipeline over some lines; what is left of them, and what was counted.
#[track_caller]
fn check(section: &str, lines: &[&str], expected: &[&str], tally: &str) {
    let mut feed = Feed::new(section);
    assert_eq!(feed.lines(lines), expected, "{section}");
    assert_eq!(feed.tally(), tally, "{section}");
}

/// After a crash a line is read at another time. If the record had this time as its own, it would not be recognized.
#[test]
fn a_changed_line_that_has_no_time_gets_none() {
    let mut feed = Feed::new("steps: [{redact: {presets: [email]}}]");
    let mut before = batch(&feed.source, &[b"of a@b.example", b"of nobody"]);
    before.records.iter_mut().for_each(|record| record.time_len = 0);
    let before = Arc::new(before);
    let after = feed.pipelines.process(&before, now_ns()).expect("a pipeline").batch.expect("changed");
    assert_eq!(after.message(&after.records[0]), b"of [redacted: email]");
    for record in &after.records {
        assert_eq!((record.time_len, after.time(record)), (0, before.read_time.as_bytes()));
    }
}

#[test]
fn parse_takes_fields_and_marks_what_it_can_not() {
    check(
        "steps: [{parse: {format: json}}]",
        &[r#"{"level":"info","n":1,"a":{"b":true}}"#, "no JSON"],
        &[
            r#"{"fields":{"level":"info","n":1,"a.b":true},"message":"{\"level\":\"info\",\"n\":1,\"a\":{\"b\":true}}"}"#,
            r#"{"failed":["parse"],"message":"no JSON"}"#,
        ],
        "parse failed 1, parse changed 1",
    );
    check(
        "steps: [{parse: {format: json, message: msg}}, {parse: {format: logfmt, from: more}}]",
        &[r#"{"msg":"hi","more":"a=1"}"#, r#"{"msg":"hi"}"#],
        &[r#"{"fields":{"more":"a=1","a":"1"},"message":"hi"}"#, r#"{"message":"hi"}"#],
        "parse changed 3",
    );
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(MATCHED_BYTES_MAX));
    let mut feed = Feed::new("steps: [{parse: {format: json}}]");
    feed.lines(&[&long]);
    assert_eq!(feed.tally(), "parse failed 1", "what is too long is not parsed, and not cut");
}

/// No name is lost because another field gets it in the same step.
#[test]
fn fields_are_renamed_at_once() {
    let table = [
        ("{a: b, b: a}", r#""fields":{"c":3,"b":1,"a":2}"#),
        ("{a: b, b: d}", r#""fields":{"c":3,"b":1,"d":2}"#),
        // Two with the same name: both stay.
        ("{a: b}", r#""fields":{"a":1,"b":2,"c":3},"failed":["rename"]"#),
        ("{a: b, b: b}", r#""fields":{"a":1,"b":2,"c":3},"failed":["rename"]"#),
        ("{a: x, b: x, c: y}", r#""fields":{"a":1,"b":2,"c":3},"failed":["rename"]"#),
        ("{a: d, x: d}", r#""fields":{"b":2,"c":3,"d":1}"#),
        ("{x: a, a: a}", r#""fields":{"a":1,"b":2,"c":3}"#),
    ];
    for (names, expected) in table {
        let mut feed =
            Feed::new(&format!("steps: [{{parse: {{format: json}}}}, {{rename: {{fields: {names}}}}}]"));
        let lines = feed.lines(&[r#"{"a":1,"b":2,"c":3}"#]);
        assert!(lines[0].contains(expected), "{names}: {lines:?}");
    }
}

#[test]
fn timestamps() {
    let section = |more: &str| {
        format!(
            "steps: [{{parse: {{format: json}}}}, {{timestamp: {{field: ts, too_old: 7d, future: 10m, {more}}}}}]"
        )
    };
    let line = |ts: &str| format!("{{\"ts\":\"{ts}\"}}");
    let times = |more: &str| {
        let mut feed = Feed::new(&section(more));
        let lines = ["2026-11-22T00:00:00Z", "2020-01-01T00:00:00Z", "2030-01-01T00:00:00Z", "x"].map(line);
        let out = feed.lines(&lines.each_ref().map(String::as_str));
        let time = |line: &String| {
            let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
            value["time"].as_str().map_or("captured".to_owned(), str::to_owned)
        };
        (out.iter().map(time).collect::<Vec<_>>(), feed.tally())
    };
    let (kept, tally) = times("otherwise: keep");
    assert_eq!(kept, ["2026-11-22T00:00:00.000000000Z", "captured", "captured", "captured"]);
    assert_eq!(tally, "parse changed 4, timestamp failed 1, timestamp changed 1, timestamp limited 2");
    let (clamped, _) = times("otherwise: clamp");
    assert_eq!(
        clamped[1..3],
        ["2026-11-15T01:00:00.000000000Z".to_owned(), "2026-11-22T01:10:00.000000000Z".to_owned()]
    );
    let (rejected, tally) = times("otherwise: reject");
    assert_eq!(rejected, ["2026-11-22T00:00:00.000000000Z", "captured"]);
    assert_eq!(tally, "parse changed 4, timestamp dropped 2, timestamp failed 1, timestamp changed 1");
}

#[test]
fn keep_and_drop() {
    check(
        "steps: [{drop: {matches: 'GET /healthz'}}]",
        &["GET /", "GET /healthz 200", "x"],
        &[r#"{"message":"GET /"}"#, r#"{"message":"x"}"#],
        "drop dropped 1",
    );
    check("steps: [{keep: {matches: '^a'}}]", &["a", "ba"], &[r#"{"message":"a"}"#], "keep dropped 1");
    // A line that could not be parsed is kept, because nobody knows what it says.
    check(
        "steps: [{parse: {format: json, message: m}}, {keep: {field: level, matches: 'warn|error'}}]",
        &[r#"{"level":"error","m":"a"}"#, r#"{"level":"info","m":"b"}"#, r#"{"m":"c"}"#, "panic: at once"],
        &[
            r#"{"fields":{"level":"error"},"message":"a"}"#,
            r#"{"failed":["parse"],"message":"panic: at once"}"#,
        ],
        "keep dropped 2, parse failed 1, parse changed 3",
    );
    check(
        "steps: [{parse: {format: json, message: m}}, {drop: {field: debug}}]",
        &[r#"{"debug":false,"m":"a"}"#, r#"{"m":"b"}"#],
        &[r#"{"message":"b"}"#],
        "drop dropped 1, parse changed 2",
    );
    let mut feed = Feed::new("steps: [{drop: {matches: needle}}]");
    let far = format!("{}needle", "x".repeat(MATCHED_BYTES_MAX));
    assert_eq!(feed.lines(&[&far]).len(), 1, "only the beginning is looked at");
}

/// An error must not be dropped because its program has another word for the level.
#[test]
fn keep_lets_a_level_through_that_is_not_known() {
    let keep = "{keep: {field: level, matches: '^(warn|error|fatal)$'}}";
    check(
        &format!("steps: [{{parse: {{format: level}}}}, {keep}]"),
        &["INFO ok", "ERROR bad", "Segmentation fault (core dumped)"],
        &[
            r#"{"fields":{"level":"error"},"message":"ERROR bad"}"#,
            r#"{"message":"Segmentation fault (core dumped)"}"#,
        ],
        "keep dropped 1, parse changed 2",
    );
    check(
        &format!(
            "steps: [{{parse: {{format: json, message: m}}}}, {{parse: {{format: level, from: level}}}}, {keep}]"
        ),
        &[
            r#"{"level":30,"m":"a"}"#,
            r#"{"level":"ERR0R","m":"b"}"#,
            r#"{"level":17,"m":"c"}"#,
            r#"{"m":"d"}"#,
        ],
        &[
            r#"{"fields":{"level":"ERR0R"},"message":"b"}"#,
            r#"{"fields":{"level":17},"message":"c"}"#,
            r#"{"message":"d"}"#,
        ],
        "keep dropped 1, parse changed 5",
    );
    // One of two steps knew the level; whether a level exists can be answered; other fields are no level.
    check(
        &format!("steps: [{{parse: {{format: logfmt}}}}, {{parse: {{format: level, from: odd}}}}, {keep}]"),
        &["level=info odd=x", "odd=x"],
        &[r#"{"fields":{"odd":"x"},"message":"odd=x"}"#],
        "keep dropped 1, parse changed 2",
    );
    check("steps: [{parse: {format: level}}, {keep: {field: level}}]", &["none"], &[], "keep dropped 1");
    // Under another name it is the level all the same.
    let renamed = "{rename: {fields: {level: severity}}}, {rename: {fields: {severity: sev}}}";
    check(
        &format!(
            "steps: [{{parse: {{format: level}}}}, {renamed}, {{keep: {{field: sev, matches: error}}}}]"
        ),
        &["ERROR a", "INFO b", "core dumped"],
        &[r#"{"fields":{"sev":"error"},"message":"ERROR a"}"#, r#"{"message":"core dumped"}"#],
        "keep dropped 1, parse changed 2, rename changed 4",
    );
    check(
        "steps: [{parse: {format: level}}, {parse: {format: logfmt}}, {keep: {field: user, matches: b}}]",
        &["user=a"],
        &[],
        "keep dropped 1, parse changed 1",
    );
}

#[test]
fn sample_counts_per_source() {
    let mut feed = Feed::new("steps: [{sample: {keep_one_in: 3}}]");
    assert_eq!(feed.lines(&["0", "1"]), [r#"{"message":"0"}"#]);
    assert_eq!(feed.lines(&["2", "3", "4", "5", "6"]), [r#"{"message":"3"}"#, r#"{"message":"6"}"#]);
    assert_eq!(feed.tally(), "sample dropped 4");
    feed.pipelines.detach(StreamId(1));
    assert_eq!(feed.lines(&["7"]).len(), 1, "its counter went with the stream");
}

#[test]
fn redaction_covers_fields_and_labels() {
    check(
        "steps: [{parse: {format: json}}, {labels: {from_fields: {user: user}}}, {redact: {presets: [email, key_secret]}}]",
        &[r#"{"password":"hunter2","user":"a@b.de","n":1}"#],
        &[concat!(
            r#"{"labels":{"user":"[redacted: email]"},"fields":{"password":"[redacted]","user":"[redacted: email]","n":1},"#,
            r#""message":"{\"password\":\"[redacted]\",\"user\":\"[redacted: email]\",\"n\":1}"}"#
        )],
        "labels changed 1, parse changed 1, redact changed 1",
    );
}

/// Docker writes `&` as `\u0026`, but a pattern must see what the process wrote.
#[test]
fn escapes_are_undone_before_anything_looks() {
    let mut feed = Feed::new("steps: [{drop: {matches: 'a&b'}}, {redact: {presets: [key_secret]}}]");
    let mut raw = batch(&feed.source, &[]);
    push(&mut raw, br"a\u0026b", MessageForm::JsonEscaped);
    push(&mut raw, br#"{\"password\":\"x\\\"y\"}"#, MessageForm::JsonEscaped);
    push(&mut raw, br"say \u003c3", MessageForm::JsonEscaped);
    let out = feed.batch(&Arc::new(raw));
    assert_eq!(out, [r#"{"message":"{\"password\":\"[redacted]\"}"}"#, r#"{"message":"say \u003c3"}"#]);
}

#[test]
fn labels_and_their_bound() {
    check(
        "steps: [{parse: {format: logfmt, message: m}}, {labels: {set: {env: prod}, from_fields: {code: code}, \
         from_container_labels: {team: com.example.team, none: x}, values_max: 2, overflow: many}}]",
        &["code=1 m=a", "code=2 m=b", "code=3 m=c", "code=1 m=d", "m=e x=y"],
        &[
            r#"{"labels":{"code":"1","env":"prod","team":"shop"},"fields":{"code":"1"},"message":"a"}"#,
            r#"{"labels":{"code":"2","env":"prod","team":"shop"},"fields":{"code":"2"},"message":"b"}"#,
            r#"{"labels":{"code":"many","env":"prod","team":"shop"},"fields":{"code":"3"},"message":"c"}"#,
            r#"{"labels":{"code":"1","env":"prod","team":"shop"},"fields":{"code":"1"},"message":"d"}"#,
            r#"{"labels":{"env":"prod","team":"shop"},"fields":{"x":"y"},"message":"e"}"#,
        ],
        "labels changed 5, labels limited 1, parse changed 5",
    );
}

/// Lines of a backlog are read at once, and have their own times only behind the step that finds these.
#[test]
fn rate_limit_goes_by_the_times_that_steps_set() {
    let limit = "rate_limit: {lines: 1, burst: 1s, over: drop}";
    let steps = "steps: [{parse: {format: json}}, {timestamp: {field: t}}, {keep: {matches: t}}]";
    let lines = [0, 1, 2, 2, 3].map(|second| format!("{{\"t\":\"2026-11-22T00:00:0{second}Z\"}}"));
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let mut feed = Feed::new(&format!("{limit}, {steps}"));
    assert_eq!(feed.lines(&lines).len(), 4);
    assert!(feed.tally().contains("rate_limit dropped 1"), "{}", feed.tally());
    let mut feed = Feed::new(&format!("{limit}, steps: [{{keep: {{matches: t}}}}]"));
    assert_eq!(feed.lines(&lines).len(), 1, "the times of reading are one moment");
}

#[test]
fn rate_limit_that_drops() {
    check(
        "rate_limit: {lines: 2, burst: 1s, over: drop}",
        &["1", "2", "3"],
        &[r#"{"message":"1"}"#, r#"{"message":"2"}"#],
        "rate_limit dropped 1",
    );
    // Lines that wait were held back before they came here.
    check(
        "rate_limit: {lines: 1, burst: 1s}",
        &["1", "2"],
        &[r#"{"message":"1"}"#, r#"{"message":"2"}"#],
        "",
    );
}

#[test]
fn dedup_keeps_first_and_last() {
    let mut feed = Feed::new("steps: [{dedup: {window: 1m}}]");
    assert_eq!(feed.lines(&["a", "a"]), [r#"{"message":"a"}"#]);
    assert_eq!(feed.lines(&["a", "a"]), [] as [&str; 0]);
    assert_eq!(
        feed.lines(&["b", "c"]),
        [r#"{"repeated":3,"message":"a"}"#, r#"{"message":"b"}"#, r#"{"message":"c"}"#]
    );
    // A single repeat stands for one line: it passes, without a number.
    assert_eq!(feed.lines(&["c", "d"]), [r#"{"message":"c"}"#, r#"{"message":"d"}"#]);
    assert_eq!(feed.tally(), "dedup dropped 2");
    assert_eq!(feed.lines(&["d"]), [] as [&str; 0]);
    let (_, left) = feed.pipelines.detach(StreamId(1)).expect("it was there");
    assert_eq!(left, Tally::from([(("dedup", Outcome::Dropped), 1)]));
    // The other channel has a run of its own.
    let mut both = batch(&feed.source, &[b"a", b"a", b"a"]);
    both.records[1].std_type = StdType::Stderr;
    let mut feed = Feed::new("steps: [{dedup: {window: 1m}}]");
    both.source = feed.source.clone();
    assert_eq!(feed.batch(&Arc::new(both)).len(), 2);
}

/// At the end of a stream, or a stop, held lines are delivered, once, on both channels.
#[test]
fn the_last_batch_lets_go_of_what_dedup_holds() {
    let mut feed = Feed::new("steps: [{dedup: {window: 1m}}]");
    let mut both = batch(&feed.source, &[b"a", b"a", b"x", b"a", b"x"]);
    [2, 4].into_iter().for_each(|at| both.records[at].std_type = StdType::Stderr);
    assert_eq!(feed.batch(&Arc::new(both)).len(), 2);
    let mut last = batch(&feed.source, &[]);
    last.last = true;
    let last = Arc::new(last);
    let expected = [r#"{"repeated":2,"message":"a"}"#, r#"{"stream":"stderr","message":"x"}"#];
    assert_eq!(feed.batch(&last), expected);
    assert_eq!(feed.batch(&last), [] as [&str; 0]);
    assert_eq!(feed.tally(), "dedup dropped 1");
    let (_, left) = feed.pipelines.detach(StreamId(1)).expect("it was there");
    assert!(left.is_empty(), "it was delivered: {left:?}");
}

/// Six failed payments with the same text are six orders.
#[test]
fn dedup_folds_what_is_equal_in_all_that_it_says() {
    let check = |steps: &str, lines: &[&str], expected: &[&str]| {
        let mut feed = Feed::new(&format!("steps: [{steps}, {{dedup: {{window: 1m}}}}]"));
        let out = feed.lines(lines);
        let short = |line: &String| line.replace(r#""fields":"#, "").replace(r#","message":"x""#, "");
        assert_eq!(out.iter().map(short).collect::<Vec<_>>(), expected, "{steps}");
    };
    let json = "{parse: {format: json, message: msg}}";
    check(
        json,
        &[
            r#"{"msg":"x","order":1}"#,
            r#"{"msg":"x","order":2}"#,
            r#"{"msg":"x","order":2}"#,
            r#"{"msg":"x","order":"2"}"#,
        ],
        &[r#"{{"order":1}}"#, r#"{{"order":2}}"#, r#"{{"order":2}}"#, r#"{{"order":"2"}}"#],
    );
    check(
        json,
        &[r#"{"msg":"x","level":"info"}"#, r#"{"msg":"x","level":"error"}"#, r#"{"msg":"x","level":"info"}"#],
        &[r#"{{"level":"info"}}"#, r#"{{"level":"error"}}"#, r#"{{"level":"info"}}"#],
    );
    check(
        &format!("{json}, {{labels: {{from_fields: {{a: a}}}}}}, {{remove: {{fields: [a]}}}}"),
        &[r#"{"msg":"x","a":"1"}"#, r#"{"msg":"x","a":"2"}"#],
        &[r#"{"labels":{"a":"1"}}"#, r#"{"labels":{"a":"2"}}"#],
    );
    // A line's time may differ; a text that is no time may not.
    let time = format!("{json}, {{timestamp: {{field: t}}}}, {{remove: {{fields: [none]}}}}");
    let with_time = |t: &str| format!("{{\"msg\":\"x\",\"t\":\"{t}\"}}");
    let lines = ["2026-11-22T00:52:48Z", "2026-11-22T00:52:49Z", "2026-11-22T00:52:50Z"].map(with_time);
    let mut feed = Feed::new(&format!("steps: [{time}, {{dedup: {{window: 1m}}}}]"));
    assert_eq!(feed.lines(&lines.each_ref().map(String::as_str)).len(), 1);
    let lines = ["soon", "later"].map(with_time);
    assert_eq!(feed.lines(&lines.each_ref().map(String::as_str)).len(), 3, "with the one that was held");
}

#[test]
fn the_window_ends_a_run() {
    let mut feed = Feed::new(
        "steps: [{parse: {format: json, message: m}}, {timestamp: {field: t}}, {dedup: {window: 10s}}]",
    );
    let at = |second: u32| format!("{{\"t\":\"2026-11-22T00:00:{second:02}Z\",\"m\":\"a\"}}");
    let lines = [at(0), at(5), at(9), at(10), at(19), at(3)];
    let out = feed.lines(&lines.each_ref().map(String::as_str));
    let times: Vec<String> = out.iter().map(|line| line[26..28].to_owned()).collect();
    assert_eq!(times, ["00", "09", "10"], "{out:?}");
    assert!(out[1].contains("\"repeated\":2"));
}

/// A batch that a pipeline does not change must not be copied.
#[test]
fn nothing_to_do_is_nothing_done() {
    for section in ["steps: []", "steps: [{drop: {matches: nope}}, {redact: {presets: [email]}}, {dedup: }]"]
    {
        let feed = Feed::new(section);
        let batch = Arc::new(batch(&feed.source, &[b"a", b"b", b"c"]));
        let mut pipelines = feed.pipelines;
        let processed = pipelines.process(&batch, 0).expect("a pipeline");
        assert!(processed.batch.is_none() && processed.tally.is_empty());
        assert_eq!(Arc::strong_count(&batch), 1);
    }
    let plain = Arc::new(batch(&container(2, "x"), &[b"a"]));
    assert!(Pipelines::default().process(&plain, 0).is_none());
}

#[test]
fn another_pipeline_begins_anew() {
    let mut feed = Feed::new("steps: [{sample: {keep_one_in: 2}}]");
    feed.lines(&["0"]);
    feed.source = source(&pipeline("steps: [{sample: {keep_one_in: 5}}]"));
    assert_eq!(feed.lines(&["1"]).len(), 1);
}

const SECTIONS: [&str; 8] = [
    "{parse: {format: json, message: msg}}",
    "{parse: {format: logfmt}}, {timestamp: {field: ts, format: unix, too_old: 7d, otherwise: reject}}",
    "{parse: {format: regex, pattern: '(?P<a>.)(?P<b>.*)', message: b}}",
    "{parse: {format: syslog}}, {parse: {format: cri, from: message}}, {parse: {format: level}}",
    "{keep: {matches: '[a-m]'}}, {drop: {field: a, matches: x}}",
    "{sample: {keep_one_in: 3}}",
    "{redact: {presets: [credit_card, email, bearer_token, key_secret], patterns: [{pattern: 'a+', with: '$0$0'}]}}",
    "{labels: {set: {s: t}, from_fields: {a: a, level: level}, values_max: 3}}",
];

/// Whatever comes in: nothing panics, every line is delivered, dropped or held and counted as such, in order, and the
/// output is valid JSON.
#[test]
fn any_pipeline_over_any_batches() {
    let mut rng = Rng::from_env();
    for _ in 0..400 {
        let mut steps: Vec<&str> =
            (0..rng.below(5)).map(|_| *SECTIONS.get(rng.below(8)).expect("one")).collect();
        if rng.below(2) == 0 {
            steps.push("{dedup: {window: 1m}}");
        }
        let limit = if rng.below(3) == 0 { "rate_limit: {lines: 20, burst: 1s, over: drop}, " } else { "" };
        let mut feed = Feed::new(&format!("{limit}steps: [{}]", steps.join(", ")));
        let (mut came, mut went) = (0, 0);
        for _ in 0..3 {
            let mut raw = batch(&feed.source, &[]);
            for _ in 0..rng.below(20) {
                let message = match rng.below(4) {
                    0 => format!("{{\"msg\":{},\"ts\":{}}}", serde_json::json!(rng.text(40)), rng.below(5))
                        .into_bytes(),
                    1 => format!("a=b ts={} msg=\"x\" password=y", rng.below(9)).into_bytes(),
                    2 => b"same".to_vec(),
                    _ => rng.bytes(80),
                };
                if rng.below(2) == 0 {
                    push(&mut raw, &message, MessageForm::Raw);
                } else {
                    let quoted = serde_json::to_vec(&String::from_utf8_lossy(&message)).expect("text");
                    push(&mut raw, &quoted[1..quoted.len() - 1], MessageForm::JsonEscaped);
                }
                let record = raw.records.last_mut().expect("pushed");
                record.std_type = StdType::ALL[rng.below(2)];
                record.truncated = rng.below(9) == 0;
            }
            came += raw.records.len();
            for line in feed.batch(&Arc::new(raw)) {
                let _: serde_json::Value =
                    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                went += 1;
            }
        }
        let dropped = |tally: &Tally| {
            tally
                .iter()
                .filter(|((_, outcome), _)| *outcome == Outcome::Dropped)
                .map(|(_, n)| *n as usize)
                .sum::<usize>()
        };
        let (_, left) = feed.pipelines.detach(StreamId(1)).expect("it was there");
        assert_eq!(came, went + dropped(&feed.tally) + dropped(&left), "{steps:?} {}", feed.tally());
    }
}

/// Lines that pass keep their order: each has its number.
#[test]
fn order_is_kept() {
    let mut rng = Rng::from_env();
    for _ in 0..100 {
        let mut feed =
            Feed::new("steps: [{drop: {matches: 'd'}}, {redact: {patterns: [{pattern: r}]}}, {dedup: }]");
        let (mut number, mut seen) = (0, Vec::new());
        for _ in 0..4 {
            let lines: Vec<String> = (0..rng.below(12))
                .map(|_| {
                    number += 1;
                    format!("{} {number:05}", rng.pick(&["d", "r", "x"]))
                })
                .collect();
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            seen.extend(feed.lines(&lines));
        }
        let numbers: Vec<&str> = seen.iter().map(|line| &line[line.len() - 7..line.len() - 2]).collect();
        assert!(numbers.is_sorted(), "{numbers:?}");
    }
}

/// A record's extra has the record's index, whatever was left out before it.
#[test]
fn extras_belong_to_their_records() {
    let feed = Feed::new("steps: [{drop: {matches: out}}, {parse: {format: logfmt}}]");
    let batch = Arc::new(batch(&feed.source, &[b"out", b"a=1", b"plain", b"out", b"b=2"]));
    let mut pipelines = feed.pipelines;
    let made = pipelines.process(&batch, 0).and_then(|processed| processed.batch).expect("changed");
    let names = |extra: Option<&Extra>| {
        extra.map_or(String::new(), |extra| extra.fields.iter().map(|(name, _)| name).collect())
    };
    assert_eq!([0, 1, 2, 3].map(|index| names(made.extra(index))), ["a", "", "b", ""]);
}
