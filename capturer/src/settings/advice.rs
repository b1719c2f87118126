//! What is allowed and yet rarely meant: `capturer check` and the start say so. Errors are in `check.rs`.

use super::pipeline::{self, Parse, Pipeline, Step};
use super::{ContainerMonitor, Loki, LokiAuth, LokiTls, Settings};

/// A sentence for each.
pub fn warnings(settings: &Settings) -> Vec<String> {
    let mut warnings: Vec<String> = settings.admin.exposure().into_iter().collect();
    warnings.extend(settings.pipelines.iter().filter_map(|pipeline| parse_behind_redact(pipeline)));
    warnings.extend(settings.pipelines.iter().flat_map(|pipeline| pipeline::never_made(pipeline)));
    warnings.extend(regexes(settings));
    warnings.extend(tls_without_tls(settings));
    warnings.extend(labels_that_went(settings));
    warnings
}

/// A redaction changes the text that is parsed behind it: a replaced quote or brace, and nothing is parsed any more.
fn parse_behind_redact(pipeline: &Pipeline) -> Option<String> {
    let redact = pipeline.steps.iter().position(|step| matches!(step.inner(), Step::Redact(_)))?;
    let of_message = |step: &Step| matches!(step.inner(), Step::Parse(Parse { from: None, .. }));
    let parse = pipeline.steps.iter().skip(redact).position(of_message)? + redact;
    let (name, redact, parse) = (&pipeline.name, redact + 1, parse + 1);
    Some(format!(
        "pipeline {name}: step {parse} (parse) sees the message as step {redact} (redact) left it, and may fail on what was \
         replaced: put parse first; capturer try shows it"
    ))
}

/// A pattern with signs that no name has, or that only a regular expression would use.
pub fn looks_like_regex(pattern: &str) -> bool {
    pattern.contains(['^', '$', '\\', '|', '+', '(']) || pattern.contains(".*")
}

/// What to write instead.
pub const NO_REGEX: &str =
    "these are patterns in which * stands for any text, no regular expressions: write web-*, not ^web-.*$";

/// Patterns that match no name, for a regular expression was meant.
fn regexes(settings: &Settings) -> Vec<String> {
    let select = &settings.container_monitor.select;
    let monitor = [
        ("include_names", &select.include_names),
        ("exclude_names", &select.exclude_names),
        ("include_images", &select.include_images),
        ("exclude_images", &select.exclude_images),
    ];
    let monitor = monitor.into_iter().map(|(key, globs)| (format!("container_monitor.{key}"), globs));
    let pipelines = settings.pipelines.iter().flat_map(|pipeline| {
        let of = |key: &str| format!("pipeline {}: match.{key}", pipeline.name);
        [(of("names"), &pipeline.matches.names), (of("images"), &pipeline.matches.images)]
    });
    let mut warnings = Vec::new();
    for (key, globs) in monitor.chain(pipelines) {
        let odd = globs.iter().map(glob::Pattern::as_str).filter(|glob| looks_like_regex(glob));
        let odd: Vec<String> = odd.map(|glob| format!("\"{glob}\"")).collect();
        if !odd.is_empty() {
            warnings.push(format!("{key}: {} looks like a regular expression; {NO_REGEX}", odd.join(", ")));
        }
    }
    warnings
}

/// Certificates for an address that is not asked for any.
fn tls_without_tls(settings: &Settings) -> Option<String> {
    let loki = settings.sinks.loki.as_ref()?;
    let is_plain = loki.url.scheme_str() == Some("http");
    let secret = match &loki.auth {
        LokiAuth::None => "",
        _ => " The token or password of sinks.loki.auth goes over the network as it is.",
    };
    (is_plain && loki.tls != LokiTls::default()).then(|| {
        format!("sinks.loki.tls is set and not used, for sinks.loki.url begins with http://: write https://.{secret}")
    })
}

/// A list or map in the config replaces the defaults, it does not add to them.
fn labels_that_went(settings: &Settings) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut tell = |key: &str, gone: Vec<String>| {
        if !gone.is_empty() {
            let gone = gone.join(", ");
            warnings.push(format!(
                "{key} replaces the defaults: {gone} will be missing; name them too if you want them"
            ));
        }
    };
    let labels = &settings.container_monitor.record_labels;
    let default = ContainerMonitor::default().record_labels;
    if !labels.is_empty() {
        let gone = default.into_iter().filter(|label| !labels.contains(label)).collect();
        tell("container_monitor.record_labels", gone);
    }
    if let Some(loki) = &settings.sinks.loki {
        let default = Loki::default().labels;
        let gone = default.keys().filter(|label| !loki.labels.contains_key(*label)).cloned();
        tell("sinks.loki.labels", gone.collect());
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::super::file::{Outside, parse};
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let outside = Outside { variable: &|_| None, file: &|_| Err("none".to_owned()) };
        let settings = parse("c.yaml", text, &[], &outside).unwrap_or_else(|error| panic!("{error}"));
        let warnings = warnings(&settings);
        assert_eq!(warnings.len(), expected.len(), "{text}: {warnings:?}");
        for (warning, part) in warnings.iter().zip(expected) {
            assert!(warning.contains(part), "{warning}");
        }
    }

    #[test]
    fn what_is_rarely_meant_is_said() {
        check("", &[]);
        check("admin: {listen: \"127.0.0.1:1\"}", &[]);
        check("admin: {listen: \"0.0.0.0:8001\"}", &["log lines (/api/v1/tap)"]);
        check("admin: {listen: \"0.0.0.0:8001\", tap: false}", &["sees names of containers and may"]);
        let token = "token: 0123456789abcdef";
        check(&format!("admin: {{listen: \"0.0.0.0:8001\", {token}}}"), &["as they are: set admin.tls_cert"]);
        check(&format!("admin: {{listen: \"0.0.0.0:8001\", {token}, tls_cert: /c, tls_key: /k}}"), &[]);
        let pipeline = |steps: &str| format!("pipelines: [{{name: p, steps: [{steps}]}}]");
        let (redact, parse) = ("{redact: {presets: [email]}}", "{parse: {format: json}}");
        check(&pipeline(&format!("{parse}, {redact}")), &[]);
        check(&pipeline(&format!("{redact}, {parse}")), &["step 2 (parse) sees the message as step 1"]);
        for (steps, expected) in [
            ("{keep: {field: level, matches: error}}", "step 1 (keep) asks for the field \"level\""),
            ("{parse: {format: level}}, {keep: {field: lvl}}", "so it drops every line"),
            ("{drop: {field: status, matches: '^2'}}", "so it drops no line"),
            ("{drop: {matches: x}, when: {field: a}}", "step 1 (drop) asks for the field \"a\""),
            ("{timestamp: {field: ts}}", "each line keeps the time"),
            ("{labels: {from_fields: {level: level}}}", "no line gets its label"),
            ("{rename: {fields: {a: b}}}, {keep: {field: b}}", "nothing is renamed"),
            ("{remove: {fields: [a]}}", "nothing is removed"),
            ("{parse: {format: json, from: log}}", "it parses nothing"),
            ("{parse: {format: cri, message: msg}}", "no message is replaced"),
            ("{parse: {format: regex, pattern: '(?P<a>x)'}}, {keep: {field: b}}", "the field \"b\""),
        ] {
            check(&pipeline(steps), &[expected]);
        }
        for steps in [
            "{parse: {format: json}}, {keep: {field: anything}}",
            "{parse: {format: logfmt}}, {drop: {field: anything}}",
            "{parse: {format: syslog, message: message}}, {keep: {field: origin.ip}}",
            "{parse: {format: regex, pattern: '(?P<a>x)'}}, {rename: {fields: {a: b}}}, {keep: {field: b}}",
            "{parse: {format: cri}}, {parse: {format: json, from: message}}",
            "{parse: {format: nginx, message: message}}, {keep: {field: upstream}}",
            "{keep: {matches: error}}",
        ] {
            check(&pipeline(steps), &[]);
        }
        check(
            "container_monitor: {include_names: ['^web-.*$']}",
            &["include_names: \"^web-.*$\" looks like"],
        );
        check("container_monitor: {exclude_images: ['a|b']}", &["exclude_images: \"a|b\" looks like"]);
        check("container_monitor: {include_names: ['web-*', 'a.b', 'db[0-9]']}", &[]);
        check(
            "pipelines: [{name: p, match: {names: ['web.*']}, steps: [{strip_ansi: {}}]}]",
            &["pipeline p: match.names"],
        );
        check("container_monitor: {record_labels: [team]}", &["com.docker.compose.project, "]);
        check("container_monitor: {record_labels: []}", &[]);
    }
}
