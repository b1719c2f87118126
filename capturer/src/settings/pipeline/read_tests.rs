//! Valid configs of pipelines, and exactly what is reported about invalid ones.

use super::*;
use crate::settings::file::{Outside, parse};
use crate::settings::{Settings, summary};

const OUTSIDE: Outside = Outside { variable: &|_| None, file: &|_| Err("none".to_owned()) };

fn good(text: &str) -> Settings {
    parse("c.yaml", text, &[], &OUTSIDE).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

/// One pipeline's section, and everything reported about it.
fn check(section: &str, expected: &str) {
    let text = format!("pipelines:\n- name: p\n  {section}\n");
    let error = parse("c.yaml", &text, &[], &OUTSIDE).expect_err(section);
    let expected = format!("c.yaml:3:{expected}");
    assert_eq!(error.to_string(), expected, "\n{text}");
}

/// One step of the first pipeline.
fn step(step: &str) -> Step {
    good(&format!("pipelines: [{{name: p, steps: [{step}]}}]")).pipelines[0].steps[0].clone()
}

#[test]
fn steps_are_taken() {
    let keep = |field: Option<&str>, matches: Option<&str>| {
        let pattern = matches.map(|text| Pattern::new(text).expect("good"));
        let is_of_level = field == Some("level");
        Step::Keep(Condition { field: field.map(str::to_owned), matches: pattern, is_of_level })
    };
    assert_eq!(step("{keep: {field: level, matches: 'a|b'}}"), keep(Some("level"), Some("a|b")));
    assert_eq!(step("{keep: {field: level}}"), keep(Some("level"), None));
    assert_eq!(step("{sample: {keep_one_in: 10}}"), Step::Sample { keep_one_in: 10 });
    assert_eq!(step("{dedup: }"), Step::Dedup { window: Duration::from_secs(60) });
    assert_eq!(step("{dedup: {window: 5s}}"), Step::Dedup { window: Duration::from_secs(5) });
    let Step::Timestamp(timestamp) = step("{timestamp: {field: ts, format: unix_ms, too_old: 7d}}") else {
        panic!("a timestamp");
    };
    assert_eq!((timestamp.format, timestamp.too_old.as_secs()), (TimeFormat::UnixMs, 604_800));
    let Step::Redact(redact) = step("{redact: {presets: [email, email], patterns: [{pattern: 'c-\\d+'}]}}")
    else {
        panic!("redact");
    };
    assert_eq!(redact.presets, [RedactPreset::Email]);
    assert_eq!(redact.patterns[0].with, "[redacted]");
    let settings =
        good("pipelines: [{name: a, rate_limit: {lines: 10}}, {name: b, multiline: {preset: go}}]");
    let limit = settings.pipelines[0].rate_limit.expect("given");
    assert_eq!((limit.lines, limit.bytes, limit.burst.as_secs(), limit.over), (10, 0, 5, Over::Wait));
    assert_eq!(settings.pipelines[0].multiline, None);
    let multiline = settings.pipelines[1].multiline.as_ref().expect("given");
    assert_eq!((multiline.lines_max, multiline.bytes_max), (500, 256 * 1024));
}

/// A default bound must not contradict one that was set.
#[test]
fn joined_lines_are_no_longer_than_a_line_may_be() {
    let bytes_max = |limit: &str, given: &str| {
        let text = format!(
            "limits: {{line_bytes_max: {limit}}}\npipelines: [{{name: p, multiline: {{preset: go{given}}}}}]\n"
        );
        good(&text).pipelines[0].multiline.as_ref().expect("given").bytes_max
    };
    assert_eq!(bytes_max("1MiB", ""), 256 << 10);
    assert_eq!(bytes_max("64KiB", ""), 64 << 10);
    assert_eq!(bytes_max("64KiB", ", bytes_max: 64KiB"), 64 << 10);
    assert_eq!(bytes_max("1MiB", ", bytes_max: 1MiB"), 1 << 20);
}

#[test]
fn what_is_wrong_is_said() {
    let expected = "expected a regular expression, found";
    check(
        "steps: [{drop: {matches: 'a(b'}}]",
        &format!("28: pipelines[0].steps[0].drop.matches: {expected} \"a(b\"; unclosed group"),
    );
    check(
        "steps: [{drop: {matches: '(?:a{1000}){1000}'}}]",
        &format!(
            "28: pipelines[0].steps[0].drop.matches: {expected} \"(?:a{{1000}}){{1000}}\"; \
             compiled it needs more than 1048576 bytes; lower its repetitions"
        ),
    );
    check(
        "steps: [{drop: {match: x}}]",
        "19: pipelines[0].steps[0].drop.match: unknown key; did you mean matches?",
    );
    check("steps: [{redcat: {}}]", "12: pipelines[0].steps[0].redcat: unknown key; did you mean redact?");
    let one = "must be exactly one step: one of parse, timestamp, keep, drop, sample, redact, labels, strip_ansi, rename, remove and dedup, each after a \
               dash of its own";
    check("steps: [{dedup: {}, sample: {keep_one_in: 2}}]", &format!("11: pipelines[0].steps[0]: {one}"));
    check(
        "steps: [{parse: {format: jsno}}]",
        "28: pipelines[0].steps[0].parse.format: expected one of json, logfmt, regex, cri, syslog, common, combined, nginx, apache_error, level, \
         found \"jsno\"; did you mean json?",
    );
    check(
        "steps: [{parse: {}}]",
        "19: pipelines[0].steps[0].parse.format: is missing: one of json, logfmt, regex, cri, syslog, common, combined, nginx, apache_error and level",
    );
    check(
        "steps: [{parse: {format: regex}}]",
        "20: pipelines[0].steps[0].parse.pattern: is missing: its named groups become fields",
    );
    check(
        "steps: [{parse: {format: regex, pattern: '(a)'}}]",
        "44: pipelines[0].steps[0].parse.pattern: has no named group, which would become a field: (?P<name>…)",
    );
    check(
        "steps: [{dedup: }, {sample: {keep_one_in: 2}}]",
        "10: pipelines[0].steps: has a step after dedup, which must be last because it holds lines back",
    );
    check(
        "steps: [{redact: {presets: [emial]}}]",
        "31: pipelines[0].steps[0].redact.presets[0]: expected one of credit_card, email, bearer_token, key_secret, \
         found \"emial\"",
    );
    check(
        "steps: [{redact: {patterns: [{pattern: 'x*'}]}}]",
        "42: pipelines[0].steps[0].redact.patterns[0].pattern: matches the empty string, so it would match everywhere",
    );
    check(
        "steps: [{labels: {set: {a-b: x}}}]",
        "26: pipelines[0].steps[0].labels.set: \"a-b\" is not a valid label name: use letters, digits and _, and do not begin with a digit",
    );
    check(
        "steps: [{labels: {set: {a: x}, from_fields: {a: b}}}]",
        "47: pipelines[0].steps[0].labels.from_fields: \"a\" gets its value in two ways",
    );
    check(
        "multiline: {timeout: 1s}",
        "15: pipelines[0].multiline.preset: is missing: give it, or start, or continue",
    );
    check(
        "multiline: {preset: go, start: x}",
        "23: pipelines[0].multiline.preset: excludes start and continue: give one or the other",
    );
    check(
        "multiline: {preset: go, bytes_max: 2MiB}",
        "38: pipelines[0].multiline.bytes_max: is 2.0MiB, but must be at most limits.line_bytes_max, which is 1.0MiB",
    );
    check(
        "rate_limit: {over: drop}",
        "16: pipelines[0].rate_limit.lines: lines and bytes are both unlimited: set one of them",
    );
    check("match: {path: [/a]}", "11: pipelines[0].match.path: unknown key; did you mean paths?");
}

#[test]
fn names() {
    let all = |text: &str| parse("c.yaml", text, &[], &OUTSIDE).expect_err(text).to_string();
    assert_eq!(
        all("pipelines: [{name: a}, {name: a}]"),
        "c.yaml:1:31: pipelines[1].name: \"a\" is the name of another pipeline"
    );
    assert_eq!(
        all("pipelines: [{match: {}}]"),
        "c.yaml:1:14: pipelines[0].name: is missing: a name for metrics and messages"
    );
    assert!(all("pipelines: [{name: 'a b'}]").contains("a name of letters, digits, _ - and ., at most 64"));
    let many: Vec<String> = (0..=PIPELINES_MAX).map(|index| format!("{{name: p{index}}}")).collect();
    assert!(
        all(&format!("pipelines: [{}]", many.join(", ")))
            .contains("there are more than 32 pipelines: sources that need")
    );
}

#[test]
fn whose_lines() {
    let settings = good(
        "pipelines:\n- {name: a, match: {names: ['shop-*'], labels: {tier: w*}}}\n\
         - {name: b, match: {paths: ['/var/log/*.log']}}\n- {name: c, match: {images: ['nginx:*']}}\n",
    );
    let label = |key: &str| (key == "tier").then_some("web");
    let container = |name: &str, image: &str, label: &dyn Fn(&str) -> Option<&'static str>| {
        crate::settings::pipeline::for_container(&settings.pipelines, name, image, label)
            .map(|pipeline| pipeline.name.clone())
    };
    assert_eq!(container("shop-1", "x", &label).as_deref(), Some("a"));
    assert_eq!(container("shop-1", "x", &|_| None), None);
    assert_eq!(container("shop-1", "nginx:1", &|_| None).as_deref(), Some("c"));
    assert_eq!(container("other", "x", &label), None);
    let path = |path: &str| {
        crate::settings::pipeline::for_path(&settings.pipelines, path).map(|pipeline| pipeline.name.clone())
    };
    assert_eq!(path("/var/log/a.log").as_deref(), Some("b"));
    assert_eq!(path("/var/log/x/a.log"), None, "as in file_monitor, * does not pass a /");
    let all = good("pipelines: [{name: all}]");
    assert!(all.pipelines[0].matches.path("/x") && all.pipelines[0].matches.container("x", "y", |_| None));
}

#[test]
fn times() {
    let parse = |text: &str| TimeFormat::parse(text).map_err(|mismatch| mismatch.hint);
    assert_eq!(parse("unix"), Ok(TimeFormat::Unix));
    assert!(matches!(parse("%d/%b/%Y:%T %z"), Ok(TimeFormat::Parts(parts)) if parts.len() == 13));
    for bad in ["", "rfc", "%Q", "%", "%Y-%m-%d", "%d %m %I"] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

/// A golden text. Patterns and values are not shown, because they may contain what they should hide.
#[test]
fn summary_of_pipelines() {
    let settings = good(
        "pipelines:\n- name: shop\n  match: {names: ['shop-*', web], paths: [/var/log/shop.log]}\n  \
         multiline: {preset: java}\n  rate_limit: {lines: 5, over: drop}\n  steps:\n  - parse: {format: json}\n  \
         - redact: {patterns: [{pattern: secret}]}\n- name: rest\n",
    );
    let text = summary::summary(&settings, "c.yaml");
    assert!(
        text.contains(
            "  pipeline    shop: name shop-* or web; path /var/log/shop.log: multiline, rate_limit (drop), parse, redact\n  \
             pipeline    rest: all sources: nothing\n"
        ),
        "{text}"
    );
}
