//! Settings that can't do what they are for. Mostly these are names and patterns that match nothing: what they should
//! exclude is captured, and what they should include is missed. `capturer check` and the start warn of them.

use std::collections::BTreeMap;

use super::loki::knows_label;
use super::path_overlap::may_meet;
use super::pipeline::{RedactPattern, Step};
use super::{LokiAuth, PathPattern, Pipeline, Settings};

/// One sentence per warning.
pub(super) fn warnings(settings: &Settings) -> Vec<String> {
    let mut warnings = Vec::new();
    for (key, globs) in lists(settings) {
        // The list is one of names or of images.
        let why = if key.ends_with("names") { name_never_matches } else { image_rarely_matches };
        warnings.extend(globs.iter().filter_map(|glob| Some(format!("{key}: {}", why(glob.as_str())?))));
    }
    let select = &settings.container_monitor.select;
    warnings.extend(odd_labels("include_labels", &select.include_labels));
    warnings.extend(odd_labels("exclude_labels", &select.exclude_labels));
    warnings.extend(in_both_lists(settings));
    warnings.extend(settings.admin.hosts.iter().filter_map(|host| odd_host(host)));
    warnings.extend(unknown_label(settings));
    warnings.extend(doubled_bearer(settings));
    warnings.extend(home(settings));
    warnings.extend(missing_groups(settings));
    warnings.extend(settings.pipelines.iter().filter_map(|pipeline| no_path(settings, pipeline)));
    warnings
}

/// What is excluded is not captured, whatever includes it.
fn in_both_lists(settings: &Settings) -> Vec<String> {
    let select = &settings.container_monitor.select;
    let globs = |globs: &[glob::Pattern]| globs.iter().map(|glob| glob.as_str().to_owned()).collect();
    let labels = |labels: &BTreeMap<String, glob::Pattern>| {
        labels.iter().map(|(label, glob)| format!("{label}: {}", glob.as_str())).collect()
    };
    let paths = |paths: &[PathPattern]| paths.iter().map(|path| path.as_str().to_owned()).collect();
    let lists: [(_, _, _, Vec<String>, Vec<String>); 3] = [
        (
            "container_monitor",
            "include_names",
            "exclude_names",
            globs(&select.include_names),
            globs(&select.exclude_names),
        ),
        (
            "container_monitor",
            "include_images",
            "exclude_images",
            globs(&select.include_images),
            globs(&select.exclude_images),
        ),
        (
            "container_monitor",
            "include_labels",
            "exclude_labels",
            labels(&select.include_labels),
            labels(&select.exclude_labels),
        ),
    ];
    let of_files = settings.file_monitor.files.iter();
    let of_files = of_files
        .map(|set| ("file_monitor.files", "paths", "exclude", paths(&set.paths), paths(&set.exclude)));
    let mut warnings = Vec::new();
    for (section, includes, excludes, included, excluded) in lists.into_iter().chain(of_files) {
        let both = included.iter().find(|pattern| excluded.contains(pattern));
        warnings.extend(both.map(|pattern| {
            format!(
                "{section}: \"{pattern}\" is in {includes} and in {excludes}, so nothing that it matches is captured: remove it \
                 from one of them"
            )
        }));
    }
    warnings
}

/// Only a shell expands `~`.
fn home(settings: &Settings) -> Option<String> {
    let sink = settings.sinks.local_file.as_ref().map(|sink| ("sinks.local_file.directory", &sink.directory));
    let (key, path) =
        [("data_dir", &settings.data_dir)].into_iter().chain(sink).find(|(_, path)| path.starts_with("~"))?;
    Some(format!(
        "{key} is {}: ~ is not expanded here, and a directory named ~ would be created; write the full path",
        path.display()
    ))
}

/// A reference to a group that the pattern lacks is replaced by nothing.
fn missing_groups(settings: &Settings) -> Vec<String> {
    let mut warnings = Vec::new();
    for pipeline in &settings.pipelines {
        let redacts = pipeline.steps.iter().filter_map(|step| match step.inner() {
            Step::Redact(redact) => Some(&redact.patterns),
            _ => None,
        });
        for RedactPattern { pattern, with } in redacts.flatten() {
            let missing = groups_of(with).into_iter().find(|group| !pattern.has_group(group));
            warnings.extend(missing.map(|group| {
                format!(
                    "pipeline {}: redact: with is \"{with}\", but its pattern has no group {group}, which is therefore \
                     replaced by nothing; letters and digits after $ are part of the name: write $${{1}}a for group 1 \
                     followed by an a",
                    pipeline.name
                )
            }));
        }
    }
    warnings
}

/// The groups that a replacement refers to, by the rules of the regex crate's `Captures::expand`.
fn groups_of(with: &str) -> Vec<&str> {
    let mut groups = Vec::new();
    let mut rest = with;
    while let Some((_, behind)) = rest.split_once('$') {
        rest = behind;
        if let Some(behind) = rest.strip_prefix('$') {
            rest = behind;
        } else if let Some((group, behind)) = rest.strip_prefix('{').and_then(|braced| braced.split_once('}'))
        {
            groups.push(group);
            rest = behind;
        } else {
            let is_of_name = |sign: char| sign.is_ascii_alphanumeric() || sign == '_';
            let len = rest.find(|sign| !is_of_name(sign)).unwrap_or(rest.len());
            groups.extend(Some(&rest[..len]).filter(|group| !group.is_empty()));
        }
    }
    groups
}

/// Lists of patterns for names or images of containers, with their keys.
pub(super) fn lists(settings: &Settings) -> Vec<(String, &Vec<glob::Pattern>)> {
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
    monitor.chain(pipelines).collect()
}

/// Docker's names only have letters, digits, `_`, `.` and `-`.
fn name_never_matches(glob: &str) -> Option<String> {
    if super::advice::looks_like_regex(glob) {
        return None;
    }
    if let Some(plain) = glob.strip_prefix('/') {
        return Some(format!(
            "\"{glob}\" matches no container: names are written without / here; write {plain}"
        ));
    }
    let can_be = |sign: char| sign.is_ascii_alphanumeric() || "_.-*?[]!".contains(sign);
    let odd = glob.chars().find(|sign| !can_be(*sign))?;
    let cure = match odd {
        ',' | ' ' | ';' => "put each name into its own entry, without spaces",
        _ => "names have letters, digits, _, . and -",
    };
    Some(format!("\"{glob}\" matches no container: no name has {odd:?}; {cure}"))
}

/// An image is matched as it was named at `docker run`, usually with its tag.
fn image_rarely_matches(glob: &str) -> Option<String> {
    let is_whole = glob.contains(['*', '?', '[', '@']) || glob.rsplit('/').next()?.contains(':');
    let is_id = glob.len() >= 12 && glob.bytes().all(|byte| byte.is_ascii_hexdigit());
    (!is_whole && !is_id && !super::advice::looks_like_regex(glob)).then(|| {
        format!(
            "\"{glob}\" matches only containers whose image was named without a tag; write \"{glob}:*\" for those with one"
        )
    })
}

fn odd_labels(key: &str, labels: &BTreeMap<String, glob::Pattern>) -> Option<String> {
    let (label, name) = labels.keys().find_map(|label| Some((label, label.split_once('=')?.0)))?;
    Some(format!(
        "container_monitor.{key}: no label is called \"{label}\"; write the label and its value as {name}: \"VALUE\""
    ))
}

/// The `Host` header is compared without its port.
fn odd_host(host: &str) -> Option<String> {
    let cure = if host.contains("//") {
        "write the name alone, without http://"
    } else if host.contains('*') {
        "name each host; * is not a wildcard here"
    } else if host.ends_with('.') {
        "write it without the last dot"
    } else if host.contains([':', '/', ' ', ',']) && host.parse::<std::net::IpAddr>().is_err() {
        "write the name alone, without a port, and each in an entry of its own"
    } else {
        return None;
    };
    Some(format!("admin.hosts: \"{host}\" matches no request, so those who use that name get 421; {cure}"))
}

/// All records that lack the label go into one output.
fn unknown_label(settings: &Settings) -> Option<String> {
    let file = &settings.sinks.local_file.as_ref()?.file;
    // advice.rs warns of labels that a pipeline sets.
    let is_set = |label: &str| {
        knows_label(settings, label)
            || settings.pipelines.iter().any(|pipeline| pipeline.record_labels().any(|set| set == label))
    };
    let label = file.labels().find(|label| !is_set(label))?;
    Some(format!(
        "sinks.local_file.file uses {{label:{label}}}, which no record has, so all go into no-label; add \"{label}\" to \
         container_monitor.record_labels"
    ))
}

/// A pipeline's paths that no pattern of `file_monitor` can match: what the pipeline should redact or drop is delivered
/// unchanged.
fn no_path(settings: &Settings, pipeline: &Pipeline) -> Option<String> {
    let paths = &pipeline.matches.paths;
    let followed = || settings.file_monitor.files.iter().flat_map(|files| &files.paths);
    let fits = |path: &PathPattern| followed().any(|pattern| may_meet(path, pattern));
    (!paths.is_empty() && !paths.iter().any(fits)).then(|| {
        let paths: Vec<&str> = paths.iter().map(PathPattern::as_str).collect();
        let why = match followed().next() {
            None => "file_monitor has none",
            Some(_) => "compare it with the paths of file_monitor.files",
        };
        format!(
            "pipeline {}: match.paths ({}) fits no path that file_monitor can follow, so it takes no file: {why}",
            pipeline.name,
            paths.join(", ")
        )
    })
}

fn doubled_bearer(settings: &Settings) -> Option<String> {
    let LokiAuth::Bearer(token) = &settings.sinks.loki.as_ref()?.auth else { return None };
    let has_scheme = token.reveal().get(..7).is_some_and(|begin| begin.eq_ignore_ascii_case("bearer "));
    has_scheme.then(|| {
        "sinks.loki.auth.bearer_token begins with \"Bearer \", which is sent before it anyway: write the token alone".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::super::file::{Outside, parse};

    #[test]
    fn what_can_match_nothing_is_named() {
        let outside = Outside { variable: &|_| None, file: &|_| Err("none".to_owned()) };
        let warnings = |text: &str| {
            let settings = parse("c.yaml", text, &[], &outside).unwrap_or_else(|error| panic!("{error}"));
            super::warnings(&settings)
        };
        let monitor = |text: &str| format!("container_monitor: {{{text}}}");
        let redact = |pattern: &str, with: &str| {
            format!(
                "pipelines: [{{name: p, steps: [{{redact: {{patterns: [{{pattern: {pattern}, with: '{with}'}}]}}}}]}}]"
            )
        };
        let paths = |followed: &str, of_pipeline: &str| {
            format!(
                "file_monitor: {{files: [{{paths: ['{followed}']}}]}}\n\
                 pipelines: [{{name: p, match: {{paths: ['{of_pipeline}']}}, steps: [{{strip_ansi: {{}}}}]}}]"
            )
        };
        let table = [
            (monitor("exclude_names: ['/secret*']"), "write secret*"),
            (monitor("exclude_names: ['secret ']"), "no name has ' '"),
            (monitor("exclude_names: ['a,b']"), "its own entry"),
            (monitor("exclude_names: ['web-[0-9]*', 'a.b_c']"), ""),
            (monitor("exclude_images: [bb]"), "write \"bb:*\""),
            (monitor("exclude_images: ['host:5000/bb']"), "write \"host:5000/bb:*\""),
            (monitor("exclude_images: ['bb:1', 'bb*', 'host:5000/bb:2', 'bb@sha256:0']"), ""),
            (monitor("exclude_labels: {'env=prod': '*'}"), "write the label and its value as env:"),
            (monitor("exclude_labels: {env: prod}"), ""),
            (monitor("include_names: [a, web], exclude_names: [web]"), "\"web\" is in include_names and in exclude_names"),
            (monitor("include_labels: {a: b}, exclude_labels: {a: b}"), "\"a: b\" is in include_labels"),
            (monitor("include_labels: {a: b}, exclude_labels: {a: c}"), ""),
            ("file_monitor: {files: [{paths: [/a/*.log], exclude: [/a/*.log]}]}".to_owned(), "is in paths and in exclude"),
            (
                "pipelines: [{name: p, match: {images: [bb]}, steps: [{strip_ansi: {}}]}]".to_owned(),
                "pipeline p: match.images: \"bb\"",
            ),
            ("admin: {hosts: ['a:8001']}".to_owned(), "without a port"),
            ("admin: {hosts: ['http://a']}".to_owned(), "without http://"),
            ("admin: {hosts: ['*.example']}".to_owned(), "* is not a wildcard"),
            ("admin: {hosts: ['a.example.']}".to_owned(), "last dot"),
            ("admin: {hosts: ['a.example', 'a']}".to_owned(), ""),
            ("sinks: {local_file: {file: '{label:team}.ndjson'}}".to_owned(), "add \"team\""),
            (
                "container_monitor: {record_labels: [team]}\nsinks: {local_file: {file: '{label:team}.ndjson'}}"
                    .to_owned(),
                "",
            ),
            (paths("/l/*.log", "/logs/pay*.log"), "pipeline p: match.paths (/logs/pay*.log) fits no path"),
            (paths("/l/*.log", "/l/pay*.log"), ""),
            (
                "pipelines: [{name: p, match: {paths: [/l/a]}, steps: [{strip_ansi: {}}]}]".to_owned(),
                "file_monitor has none",
            ),
            ("data_dir: ~/capturer".to_owned(), "write the full path"),
            ("sinks: {local_file: {directory: ~/out}}".to_owned(), "sinks.local_file.directory is ~/out"),
            (redact("'a(b)'", "$1$$$$"), ""),
            (redact("'a(?P<b>b)'", "$${b}c"), ""),
            (redact("'a(b)'", "$2"), "no group 2"),
            (redact("'a(b)'", "$1x"), "no group 1x"),
            (
                "sinks: {loki: {enabled: true, url: 'https://l', auth: {bearer_token: 'Bearer abc'}}}".to_owned(),
                "write the token alone",
            ),
        ];
        for (text, expected) in table {
            let warnings = warnings(&text);
            assert_eq!(warnings.is_empty(), expected.is_empty(), "{text}: {warnings:?}");
            assert!(expected.is_empty() || warnings[0].contains(expected), "{text}: {warnings:?}");
        }
    }
}
