//! Settings that are allowed but rarely meant: `capturer check` and the start warn of them. Errors are in `check.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::loki::knows_label;
use super::path_overlap::may_meet;
use super::pipeline::{self, Condition, Match, Over, Parse, ParseFormat, Pipeline, Step, TimeFormat};
use super::{
    ContainerMonitor, FileFormat, FileSet, LocalFile, Loki, LokiAuth, LokiTls, PathPattern, Settings,
    never_match,
};

/// Where Docker keeps the logs of containers, unless `data-root` says otherwise.
const DOCKER_LOGS: &str = "/var/lib/docker/containers/*/*-json.log";

/// One sentence per warning.
pub fn warnings(settings: &Settings) -> Vec<String> {
    let mut warnings: Vec<String> = settings.admin.exposure().into_iter().collect();
    warnings.extend(settings.admin.exposed_profile());
    warnings.extend(settings.pipelines.iter().filter_map(|pipeline| parse_behind_redact(pipeline)));
    warnings.extend(redacted_in_parts(settings));
    warnings.extend(limited_by_reading(settings));
    warnings.extend(settings.pipelines.iter().flat_map(|pipeline| pipeline::never_made(pipeline)));
    warnings.extend(settings.pipelines.iter().filter_map(|pipeline| first_lines_only(pipeline)));
    warnings.extend(shadowed(&settings.pipelines));
    warnings.extend(regexes(settings));
    warnings.extend(never_match::warnings(settings));
    warnings.extend(times_in_a_name(settings));
    warnings.extend(containers_twice(settings));
    warnings.extend(files_before_age(settings));
    warnings.extend(settings.pipelines.iter().filter_map(|pipeline| times_without_zone(pipeline)));
    warnings.extend(labels_for_nobody(settings));
    warnings.extend(tls_without_tls(settings));
    warnings.extend(path_without_push(settings));
    warnings.extend(settings.sinks.loki_left_off.then(|| {
        "sinks.loki has settings and is not enabled, so nothing goes to Loki: write enabled: true, or enabled: false if that is \
         meant"
            .to_owned()
    }));
    warnings.extend(labels_that_went(settings));
    warnings.extend(labels_of_pipelines(settings));
    warnings
}

/// What to do about a dockerd that hangs. Commands that ask it hang with it unless they have a timeout.
pub const SILENT_DOCKERD: &str = "check dockerd with timeout 5 docker info and journalctl -u docker, and restart it if it \
                                  still does not answer (that stops all containers unless live-restore is on)";

/// What Docker does to these containers' logs, for `doctor` and for health.
pub fn skipped_by_docker(containers: &str, names: &str) -> String {
    format!(
        "{containers} with the driver local: a follow over Docker's API that falls behind by more than a log file skips what was \
         rotated meanwhile; it is read again where lines come late, as far as Docker still has it: {names}"
    )
}

/// The same of containers whose files the agent can't read.
pub fn skipped_without_files(containers: &str, names: &str) -> String {
    format!(
        "{containers} with a json-file that rotates and that the agent does not read itself: a follow over Docker's API that falls \
         behind by more than a log file skips what was rotated meanwhile; it is read again where lines come late, as far as Docker \
         still has it: {names}"
    )
}

/// What to do about them.
pub const SKIPPED_WITHOUT_FILES: &str = "Give the agent the right to read Docker's containers directory (CAP_DAC_READ_SEARCH) with container_monitor.read_from: auto, \
     or raise their max-size.";

/// What Docker does to the lines of these containers, for `doctor` and for health.
pub fn dropped_by_docker(containers: &str, names: &str) -> String {
    format!(
        "{containers} with the log option mode=non-blocking: Docker drops lines that come faster than it writes them, and nothing \
         shows which lines: {names}"
    )
}

/// What to do about them.
pub const DROPPED_BY_DOCKER: &str =
    "Recreate them with mode=blocking, Docker's default, or with a larger max-buffer-size (1m unless set).";

/// What to do about containers whose lines Docker skips.
pub const SKIPPED_BY_DOCKER: &str = "Recreate them with --log-driver json-file, which the agent reads from its files, or raise their max-size.";

/// Other agents put the time of a line into its output's name.
fn times_in_a_name(settings: &Settings) -> Option<String> {
    let name = settings.sinks.local_file.as_ref()?.file.as_str();
    let is_time = |pair: &[u8]| pair[0] == b'%' && pair[1].is_ascii_alphabetic();
    name.as_bytes().windows(2).any(is_time).then(|| {
        format!(
            "sinks.local_file.file is {name}: % is a plain character there, not a date placeholder; for one file per day \
             set rotate_every: 24h, which puts the time into the names of older files"
        )
    })
}

/// A pattern over Docker's own files beside the Engine's containers: both read them, and every line comes twice.
fn containers_twice(settings: &Settings) -> Option<String> {
    if !settings.container_monitor.enabled {
        return None;
    }
    let id = "0".repeat(64);
    let log = format!("/var/lib/docker/containers/{id}/{id}-json.log");
    // Whatever the data-root, nobody else names files like this.
    let is_of_docker = |pattern: &PathPattern| pattern.as_str().ends_with("-json.log");
    let is_left_out =
        |set: &&FileSet| set.exclude.iter().any(|pattern| pattern.covers(&log) || is_of_docker(pattern));
    let sets = settings.file_monitor.files.iter().filter(|set| !is_left_out(set));
    let mut patterns = sets.flat_map(|set| &set.paths);
    let pattern = patterns.find(|pattern| pattern.matches(&log) || is_of_docker(pattern))?;
    Some(format!(
        "file_monitor.files: {} can match the logs of containers that container_monitor captures, and then every line of theirs \
         comes twice: leave them out (exclude: [\"{DOCKER_LOGS}\"]), or set container_monitor.enabled: false",
        pattern.as_str()
    ))
}

/// The default of `max_files` stands in the annotated config, where people set `max_age` one line below it.
fn files_before_age(settings: &Settings) -> Option<String> {
    let sink = settings.sinks.local_file.as_ref()?;
    let default = LocalFile::default().max_files;
    let bound = match (sink.max_age.is_zero(), sink.max_bytes) {
        (true, 0) => return None,
        (true, _) => "max_bytes",
        (false, _) => "max_age",
    };
    (sink.max_files == default).then(|| {
        format!(
            "sinks.local_file.max_files is {default}: of each output no more than {default} files are kept, whatever {bound} allows; \
             set max_files: 0 if {bound} alone should decide"
        )
    })
}

/// The times of these error logs have no zone, and without `timezone` such a time fails the step.
fn times_without_zone(pipeline: &Pipeline) -> Option<String> {
    let mut format = None;
    for (index, step) in pipeline.steps.iter().enumerate() {
        match step.inner() {
            Step::Parse(Parse { format: ParseFormat::Nginx, .. }) => format = Some("nginx's error log"),
            Step::Parse(Parse { format: ParseFormat::ApacheError, .. }) => {
                format = Some("Apache's error log")
            }
            Step::Timestamp(time) if time.timezone.is_none() && time.format == TimeFormat::Rfc3339 => {
                let log = format?;
                return Some(format!(
                    "pipeline {}: step {} (timestamp) fails on every line of {log}, whose times have no zone: set its timezone \
                     (such as timezone: Europe/Berlin, or UTC)",
                    pipeline.name,
                    index + 1
                ));
            }
            _ => {}
        }
    }
    None
}

/// Loki gets the labels that its section names, and those that pipelines set. Any other goes into local files only.
fn labels_for_nobody(settings: &Settings) -> Vec<String> {
    let Some(loki) = &settings.sinks.loki else { return Vec::new() };
    let templates = loki.labels.values().chain(loki.structured_metadata.values()).chain(loki.tenant.as_ref());
    let used: BTreeSet<&str> = templates.flat_map(|template| template.source_labels()).collect();
    let defaults = ContainerMonitor::default().record_labels;
    let of_containers = settings.container_monitor.record_labels.iter();
    let of_containers = of_containers.filter(|label| !defaults.contains(label));
    let of_containers = of_containers.map(|label| ("container_monitor.record_labels", label));
    let of_files = settings.file_monitor.files.iter().flat_map(|set| set.labels.keys());
    let of_files = of_files.map(|label| ("labels of file_monitor.files", label));
    let mut by_key: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (key, label) in of_containers.chain(of_files).filter(|(_, label)| !used.contains(label.as_str())) {
        by_key.entry(key).or_default().insert(label);
    }
    let told = by_key.into_iter().map(|(key, labels)| {
        let first = labels.first().copied().unwrap_or_default();
        let name: String = first.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        format!(
            "{key}: Loki does not get {}: name what it should get in sinks.loki.labels or sinks.loki.structured_metadata, as in \
             {name}: \"{{label:{first}}}\" (for sinks.loki.labels, which replace the defaults, name those too)",
            labels.into_iter().collect::<Vec<_>>().join(", ")
        )
    });
    told.collect()
}

/// The names of output files and `tenant_id` are made of facts about a container or file, not of labels that a pipeline
/// sets.
fn labels_of_pipelines(settings: &Settings) -> Vec<String> {
    let tenant = settings.sinks.loki.as_ref().and_then(|loki| loki.tenant.as_ref());
    let of_tenant = tenant.into_iter().flat_map(|template| template.source_labels());
    let file = settings.sinks.local_file.as_ref().map(|sink| &sink.file);
    let of_file = file.into_iter().flat_map(|file| file.labels());
    let used = of_tenant.map(|label| ("sinks.loki.tenant_id", label));
    let mut warnings = Vec::new();
    for (key, label) in used.chain(of_file.map(|label| ("sinks.local_file.file", label))) {
        let sets = |pipeline: &&Arc<Pipeline>| pipeline.record_labels().any(|set| set == label);
        let nobody = if key == "sinks.local_file.file" && !knows_label(settings, label) {
            "; neither has this label, so all records go into no-label: set it in labels of file_monitor.files, or name \
             it in container_monitor.record_labels"
        } else {
            ""
        };
        for pipeline in settings.pipelines.iter().filter(sets) {
            warnings.push(format!(
                "{key} uses the label {label} of the container or of file_monitor.files, not the one that the \
                 pipeline {} sets{nobody}",
                pipeline.name
            ));
        }
    }
    warnings
}

/// A redaction changes the text that a later step parses: with a quote or brace replaced, nothing can be parsed.
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

/// A secret that is split between a line's beginning and its rest is found in neither.
fn redacted_in_parts(settings: &Settings) -> Option<String> {
    let redacts =
        |pipeline: &Pipeline| pipeline.steps.iter().any(|step| matches!(step.inner(), Step::Redact(_)));
    let after = |files: &FileSet| Some(files.text.unfinished_line_after).filter(|after| !after.is_zero());
    let split = |pipeline: &Arc<Pipeline>| {
        let parts = files_of(settings, pipeline).into_iter().find_map(after)?;
        redacts(pipeline).then_some((Arc::clone(pipeline), parts))
    };
    let (pipeline, parts) = settings.pipelines.iter().find_map(split)?;
    Some(format!(
        "pipeline {}: redact does not find a secret that is split: a line whose end is not written within {} is delivered in two \
         parts. Where a program may write half a line and wait, set unfinished_line_after: 0s for its file",
        pipeline.name,
        humantime::format_duration(parts)
    ))
}

/// Plain lines do not say when they were printed. Everything written while the agent was down is read in a moment, and
/// most of it would be dropped.
fn limited_by_reading(settings: &Settings) -> Vec<String> {
    let drops = |pipeline: &&Arc<Pipeline>| {
        let limit = pipeline.rate_limit.is_some_and(|limit| limit.over == Over::Drop);
        limit && !pipeline.sets_time()
    };
    let is_plain = |files: &&FileSet| matches!(files.format, FileFormat::Auto | FileFormat::Raw);
    let of_plain = |pipeline: &&Arc<Pipeline>| files_of(settings, pipeline).iter().any(&is_plain);
    let pipelines = settings.pipelines.iter().filter(drops).filter(of_plain);
    let told = pipelines.map(|pipeline| {
        format!(
            "pipeline {}: rate_limit with over: drop goes by the times of lines, and plain lines of files have none: what was written \
             while the agent did not run is read all at once, and most of it is dropped. Set over: wait, or add a \
             timestamp step",
            pipeline.name
        )
    });
    told.collect()
}

/// Entries of `file_monitor` from which a pipeline may take files. A file belongs to the first entry that matches it.
fn files_of<'s>(settings: &'s Settings, pipeline: &Pipeline) -> Vec<&'s FileSet> {
    let sets = &settings.file_monitor.files;
    let Match { names, images, labels, paths } = &pipeline.matches;
    if paths.is_empty() {
        let asks_no_container = names.is_empty() && images.is_empty() && labels.is_empty();
        return if asks_no_container { sets.iter().collect() } else { Vec::new() };
    }
    let of = |path: &PathPattern| -> Vec<&'s FileSet> {
        let meets = |set: &&FileSet| set.paths.iter().any(|pattern| may_meet(path, pattern));
        match path.names(path.as_str()) {
            true => sets.iter().find(|set| set.takes(path.as_str())).into_iter().collect(),
            false => sets.iter().filter(meets).collect(),
        }
    };
    paths.iter().flat_map(of).collect()
}

/// A source gets the first pipeline that matches it. One behind another that matches all the same sources never runs.
fn shadowed(pipelines: &[Arc<Pipeline>]) -> Vec<String> {
    let mut warnings = Vec::new();
    for (index, pipeline) in pipelines.iter().enumerate() {
        let takes_all =
            |other: &&Arc<Pipeline>| other.matches == Match::default() || other.matches == pipeline.matches;
        if let Some(first) = pipelines[..index].iter().find(takes_all) {
            let (name, other) = (&pipeline.name, &first.name);
            let why = if first.matches == Match::default() {
                "has no match and takes every source"
            } else {
                "has the same match"
            };
            warnings.push(format!(
                "pipeline {name}: it never runs, because pipeline {other} before it {why}; put {name} before {other}, or give {other} a \
                 match that leaves something"
            ));
        }
    }
    warnings
}

/// A pattern with characters that no name has, or that only a regular expression would use.
pub fn looks_like_regex(pattern: &str) -> bool {
    pattern.contains(['^', '$', '\\', '|', '+', '(']) || pattern.contains(".*")
}

/// What to write instead of a regular expression.
pub const NO_REGEX: &str =
    "these are patterns in which * stands for any text, not regular expressions: write web-*, not ^web-.*$";

/// A pattern that is applied to records of several lines but does not match past a line break.
fn first_lines_only(pipeline: &Pipeline) -> Option<String> {
    pipeline.multiline.as_ref()?;
    let of_message = |condition: &Condition| match condition {
        Condition { field: None, matches: Some(pattern), .. } => pattern.stops_at_line_end(),
        _ => false,
    };
    let mut steps = pipeline.steps.iter().enumerate();
    let (index, step) = steps.find(|(_, step)| match step.inner() {
        Step::Parse(Parse { from: None, format: ParseFormat::Regex(pattern), .. }) => {
            pattern.stops_at_line_end()
        }
        Step::Keep(condition) | Step::Drop(condition) => of_message(condition),
        _ => false,
    })?;
    Some(format!(
        "pipeline {}: step {} ({}) has a pattern in which . stops at the end of a line, but multiline makes records of several \
         lines: begin it with (?s) if it is to go on to the end of the record",
        pipeline.name,
        index + 1,
        step.kind()
    ))
}

/// Patterns that match no name, because they are regular expressions.
fn regexes(settings: &Settings) -> Vec<String> {
    let mut warnings = Vec::new();
    for (key, globs) in never_match::lists(settings) {
        let odd = globs.iter().map(glob::Pattern::as_str).filter(|glob| looks_like_regex(glob));
        let odd: Vec<String> = odd.map(|glob| format!("\"{glob}\"")).collect();
        if !odd.is_empty() {
            warnings.push(format!("{key}: {} looks like a regular expression; {NO_REGEX}", odd.join(", ")));
        }
    }
    warnings
}

/// Certificates for an address that does not use TLS.
fn tls_without_tls(settings: &Settings) -> Option<String> {
    let loki = settings.sinks.loki.as_ref()?;
    let is_plain = loki.url.scheme_str() == Some("http");
    let secret = match &loki.auth {
        LokiAuth::None => "",
        _ => " The token or password of sinks.loki.auth is sent unencrypted.",
    };
    (is_plain && loki.tls != LokiTls::default()).then(|| {
        format!("sinks.loki.tls is set but not used, because sinks.loki.url begins with http://: write https://.{secret}")
    })
}

/// A path is used as it is, and Loki's API is below the address that people know.
fn path_without_push(settings: &Settings) -> Option<String> {
    let url = &settings.sinks.loki.as_ref()?.url;
    (!url.path().ends_with("/push")).then(|| {
        let (scheme, host) =
            (url.scheme_str().unwrap_or_default(), url.authority().map_or("", |host| host.as_str()));
        let base = url.path().trim_end_matches('/');
        let base = base.trim_end_matches("/api/v1").trim_end_matches("/push").trim_end_matches("/loki");
        let base = base.trim_end_matches("/loki/api/v1");
        format!(
            "sinks.loki.url has a path that does not end in /push, and is used as it is: Loki is mostly at \
             {scheme}://{host}{base}/loki/api/v1/push"
        )
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
    fn a_pipeline_behind_one_that_takes_all_is_named() {
        let steps = "steps: [{strip_ansi: {}}]";
        let all = |name: &str| format!("{{name: {name}, {steps}}}");
        let some = |name: &str, of: &str| format!("{{name: {name}, match: {{names: ['{of}']}}, {steps}}}");
        let text = |entries: &[String]| format!("pipelines: [{}]", entries.join(", "));
        check(&text(&[some("a", "web"), some("b", "db"), all("c")]), &[]);
        check(
            &text(&[all("a"), some("b", "web")]),
            &["pipeline b: it never runs, because pipeline a before it has no match"],
        );
        check(
            &text(&[some("a", "web"), some("b", "web")]),
            &["pipeline b: it never runs, because pipeline a before it has the same"],
        );
        check(
            &text(&[some("a", "web"), all("b"), some("c", "db"), all("d")]),
            &["pipeline c: it", "pipeline d: it"],
        );
    }

    #[test]
    fn a_pattern_over_logs_of_containers_is_named() {
        let text = |files: &str, more: &str| format!("file_monitor: {{files: [{{{files}}}]}}\n{more}");
        for bad in [
            "/var/lib/docker/containers/*/*-json.log",
            "/data/docker/containers/*/*-json.log",
            "/var/lib/**/*.log",
        ] {
            check(&text(&format!("paths: ['{bad}']"), ""), &["comes twice"]);
        }
        check(&text("paths: ['/var/log/**/*.log', '/var/lib/**/*.txt']", ""), &[]);
        let among_others = text("paths: ['/var/log/*.log', '/var/lib/**/*.log']", "");
        check(&among_others, &["file_monitor.files: /var/lib/**/*.log can match"]);
        check(&text(&format!("paths: ['/var/lib/**/*.log'], exclude: ['{DOCKER_LOGS}']"), ""), &[]);
        let alone = "container_monitor: {enabled: false}\n";
        check(&text(&format!("paths: ['{DOCKER_LOGS}']"), alone), &[]);
    }

    /// "Keep seven days" would keep ten files, and the annotated config has the ten written out.
    #[test]
    fn an_age_beside_the_default_number_of_files() {
        let text = |keep: &str| format!("sinks: {{local_file: {{{keep}}}}}");
        for good in
            ["max_files: 10", "max_age: 7d", "max_age: 7d, max_files: 0", "max_age: 7d, max_files: 20"]
        {
            check(&text(good), &[]);
        }
        check(&text("max_age: 7d, max_files: 10"), &["whatever max_age allows; set max_files: 0"]);
        check(&text("max_bytes: 1GiB, max_files: 10"), &["whatever max_bytes allows"]);
    }

    #[test]
    fn times_of_error_logs_need_a_zone() {
        let text = |format: &str, time: &str| {
            format!(
                "pipelines: [{{name: web, steps: [{{parse: {{format: {format}}}}}, {{timestamp: {{field: time{time}}}}}]}}]"
            )
        };
        check(&text("nginx", ""), &["step 2 (timestamp) fails on every line of nginx's error log"]);
        check(&text("apache_error", ""), &["Apache's error log"]);
        check(&text("nginx", ", timezone: UTC"), &[]);
        check(&text("combined", ""), &[]);
    }

    #[test]
    fn labels_that_loki_does_not_get() {
        let text = |more: &str, loki: &str| format!("{more}sinks: {{loki: {{enabled: true{loki}}}}}");
        let files = "file_monitor: {files: [{paths: [/var/log/a.log], labels: {dc: fra}}]}\n";
        check(files, &[]);
        check(&text(files, ""), &["labels of file_monitor.files: Loki does not get dc: name"]);
        check(&text(files, ", structured_metadata: {dc: \"{label:dc}\"}"), &[]);
        let keys = "container_monitor: {record_labels: [com.docker.compose.project, com.docker.compose.service, my.team]}\n";
        check(&text(keys, ""), &["as in my_team: \"{label:my.team}\""]);
        check(&text("", ""), &[]);
    }

    /// What people write first, and what is silently not what they mean.
    #[test]
    fn an_address_of_loki_that_is_not_its_push_api() {
        let text = |url: &str| format!("sinks: {{loki: {{enabled: true, url: \"http://loki:3100{url}\"}}}}");
        for good in ["", "/", "/loki/api/v1/push", "/a/loki/api/v1/push", "/api/prom/push"] {
            check(&text(good), &[]);
        }
        for bad in ["/loki", "/loki/", "/loki/api/v1", "/loki/api/v1/push/"] {
            check(&text(bad), &["is mostly at http://loki:3100/loki/api/v1/push"]);
        }
        check(&text("/gate/"), &["is mostly at http://loki:3100/gate/loki/api/v1/push"]);
        check("sinks: {loki: {url: \"http://loki:3100\"}}", &["sinks.loki has settings and is not enabled"]);
        check("sinks: {loki: {enabled: false, url: \"http://loki:3100\"}}", &[]);
    }

    /// A tenant is made of a container's labels; one that a pipeline sets would silently not count.
    #[test]
    fn a_tenant_of_a_pipeline_is_none() {
        let text = |set: &str| {
            format!(
                "container_monitor: {{record_labels: [com.docker.compose.project, com.docker.compose.service, team]}}\n\
                 pipelines: [{{name: p, steps: [{{labels: {{set: {{{set}: t1}}}}}}]}}]\n\
                 sinks: {{loki: {{enabled: true, url: \"http://127.0.0.1:1\", tenant_id: \"{{label:team}}\"}}}}\n"
            )
        };
        check(&text("team"), &["not the one that the pipeline p sets"]);
        check(&text("other"), &[]);
    }

    /// An output's name is made before the pipeline runs: every line went into `no-label`, without a warning.
    #[test]
    fn nor_does_an_output_have_a_label_of_a_pipeline() {
        let text = |entry: &str| {
            format!(
                "file_monitor: {{files: [{{paths: [/l/a.log]{entry}}}]}}\n\
                 pipelines: [{{name: p, steps: [{{labels: {{set: {{team: t1}}}}}}]}}]\n\
                 sinks: {{local_file: {{file: \"{{label:team}}.ndjson\"}}}}\n"
            )
        };
        check(
            &text(""),
            &[
                "the pipeline p sets; neither has this label, so all records go into no-label: set it in labels",
            ],
        );
        check(&text(", labels: {team: t2}"), &["not the one that the pipeline p sets"]);
    }

    /// Advice about files is only given for pipelines that take files.
    #[test]
    fn advice_on_files_is_for_pipelines_that_take_them() {
        let text = |files: &str, pipeline: &str| {
            format!("file_monitor: {{files: [{files}]}}\npipelines: [{{name: p, {pipeline}}}]")
        };
        let redact = "steps: [{redact: {presets: [email]}}]";
        let (a, b) = ("{paths: [/l/a.log]}", "{paths: [/l/b.log], unfinished_line_after: 0s}");
        let both = format!("{a}, {b}");
        check(&text(a, &format!("match: {{labels: {{a: b}}}}, {redact}")), &[]);
        check(&text(&both, &format!("match: {{paths: [/l/b.log]}}, {redact}")), &[]);
        check(
            &text(&format!("{b}, {{paths: ['/l/*']}}"), &format!("match: {{paths: [/l/b.log]}}, {redact}")),
            &[],
        );
        check(&text(&both, &format!("match: {{paths: ['/l/*']}}, {redact}")), &["secret that is split"]);
        check(&text(&both, redact), &["secret that is split"]);
        let limit = |over: &str, steps: &str| {
            format!("rate_limit: {{lines: 3, burst: 1s, over: {over}}}, steps: [{steps}]")
        };
        let time = "{parse: {format: json}}, {timestamp: {field: ts}}";
        check(&text(a, &limit("drop", "{strip_ansi: {}}")), &["Set over: wait, or add a timestamp step"]);
        check(&text(a, &limit("wait", "{strip_ansi: {}}")), &[]);
        check(&text(a, &limit("drop", time)), &[]);
        check(&text("{paths: [/l/a], format: cri}", &limit("drop", "{strip_ansi: {}}")), &[]);
        check(&format!("pipelines: [{{name: p, {}}}]", limit("drop", "{strip_ansi: {}}")), &[]);
    }

    /// Of a joined trace, only the first line would become the message.
    #[test]
    fn patterns_over_several_lines_are_to_say_so() {
        let check_steps = |multiline: &str, step: &str, expected: &[&str]| {
            check(&format!("pipelines: [{{name: p, {multiline}steps: [{step}]}}]"), expected);
        };
        let java = "multiline: {preset: java}, ";
        let parse = "{parse: {format: regex, pattern: '^(?P<l>\\w+) (?P<m>.*)', message: m}}";
        check_steps(java, parse, &["pipeline p: step 1 (parse) has a pattern in which . stops"]);
        check_steps("", parse, &[]);
        check_steps(java, &parse.replace('^', "(?s)^"), &[]);
        check_steps(java, "{keep: {matches: 'ERROR.*stock'}}", &["step 1 (keep)"]);
        check_steps(java, "{keep: {matches: ERROR}}, {drop: {matches: 'a.*b'}}", &["step 2 (drop)"]);
    }

    #[test]
    fn what_is_rarely_meant_is_said() {
        check("", &[]);
        check("admin: {listen: \"127.0.0.1:1\"}", &[]);
        check("admin: {listen: \"0.0.0.0:8001\"}", &["log lines (/api/v1/tap)"]);
        check("admin: {listen: \"0.0.0.0:8001\", tap: false}", &["sees names of containers and may"]);
        let token = "token: 0123456789abcdef";
        check(
            &format!("admin: {{listen: \"0.0.0.0:8001\", {token}}}"),
            &["sent unencrypted: set admin.tls_cert"],
        );
        check(
            "sinks: {local_file: {file: \"{container_name}-%Y-%m-%d.log\"}}",
            &["% is a plain character there"],
        );
        check("sinks: {local_file: {file: \"100%.log\"}}", &[]);
        check("admin: {profile: true}", &[]);
        check("admin: {profile: true, listen: \"\"}", &[]);
        let open = format!("listen: \"0.0.0.0:8001\", {token}, tls_cert: /c, tls_key: /k");
        check(
            &format!("admin: {{{open}, profile: true}}"),
            &["admin.profile is on and admin.listen is 0.0.0.0:8001"],
        );
        check(&format!("admin: {{listen: \"0.0.0.0:8001\", {token}, tls_cert: /c, tls_key: /k}}"), &[]);
        let pipeline = |steps: &str| format!("pipelines: [{{name: p, steps: [{steps}]}}]");
        let (redact, parse) = ("{redact: {presets: [email]}}", "{parse: {format: json}}");
        check(&pipeline(&format!("{parse}, {redact}")), &[]);
        let file = |more: &str| {
            format!("{}\nfile_monitor: {{files: [{{paths: [/l/a.log]{more}}}]}}", pipeline(redact))
        };
        check(&file(""), &["is not written within 5s is delivered in two parts"]);
        check(&file(", unfinished_line_after: 500ms"), &["within 500ms"]);
        check(&file(", unfinished_line_after: 0s"), &[]);
        check(&format!("{}\nfile_monitor: {{files: [{{paths: [/l/a.log]}}]}}", pipeline(parse)), &[]);
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
            // Made, and then taken away.
            (
                "{parse: {format: json, message: msg}}, {timestamp: {field: msg}}",
                "which step 1 (parse) made the message",
            ),
            (
                "{parse: {format: json, message: msg}}, {keep: {field: msg, matches: x}}",
                "it drops every line",
            ),
            (
                "{parse: {format: json, message: msg}}, {parse: {format: level, from: msg}}",
                "it parses nothing",
            ),
            (
                "{parse: {format: json}}, {remove: {fields: [ts]}}, {timestamp: {field: ts}}",
                "step 2 (remove) took away",
            ),
            (
                "{parse: {format: json}}, {rename: {fields: {a: b}}}, {keep: {field: a}}",
                "step 2 (rename) took away",
            ),
            (
                "{parse: {format: level}}, {remove: {fields: [level]}}, {keep: {field: level, matches: e}}",
                "every line",
            ),
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
            // What is made again is there, and what only some lines lose.
            "{parse: {format: json, message: msg}}, {parse: {format: json}}, {keep: {field: msg}}",
            "{parse: {format: json}}, {when: {field: a}, remove: {fields: [b]}}, {keep: {field: b}}",
            "{parse: {format: json}}, {rename: {fields: {a: b, b: a}}}, {keep: {field: a}}",
            "{parse: {format: json, message: msg}}, {keep: {field: msg.a}}",
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
