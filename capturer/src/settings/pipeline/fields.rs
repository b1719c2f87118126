//! Which fields a pipeline's steps can make, and which steps need a field that none makes: such a `keep` drops every
//! line, and any other such step does nothing, silently.

use std::collections::BTreeSet;

use super::{Condition, Parse, ParseFormat, Pipeline, Step};
use crate::text::terminal::shown;

/// Fields of an access log.
const ACCESS: &[&str] = &[
    "vhost",
    "client",
    "user",
    "time",
    "method",
    "path",
    "protocol",
    "request",
    "status",
    "bytes",
    "referer",
    "agent",
    "forwarded_for",
    "level",
];
/// Further fields of nginx's error log.
const NGINX_ERROR: &[&str] =
    &["pid", "tid", "connection", "message", "server", "subrequest", "upstream", "host", "referrer", "login"];
const APACHE_ERROR: &[&str] =
    &["time", "level", "module", "pid", "tid", "client", "remote", "code", "message"];
const CRI: &[&str] = &["time", "stream", "tag", "message"];

/// The fields that a line may have.
#[derive(Debug, Default)]
struct Known {
    /// Any field: the lines themselves name them.
    any: bool,
    names: BTreeSet<String>,
}

impl Known {
    fn has(&self, name: &str) -> bool {
        self.any || self.names.contains(name)
    }

    fn add(&mut self, parse: &Parse) {
        let lists: &[&[&str]] = match &parse.format {
            ParseFormat::Json | ParseFormat::Logfmt | ParseFormat::Syslog => {
                self.any = true;
                &[]
            }
            ParseFormat::Regex(pattern) => {
                self.names.extend(pattern.regex().capture_names().flatten().map(str::to_owned));
                &[]
            }
            ParseFormat::Cri => &[CRI],
            ParseFormat::Common | ParseFormat::Combined => &[ACCESS],
            ParseFormat::Nginx => &[ACCESS, NGINX_ERROR],
            ParseFormat::ApacheError => &[APACHE_ERROR],
            ParseFormat::Level => &[&["level"]],
        };
        self.names.extend(lists.iter().flat_map(|list| list.iter()).map(|name| (*name).to_owned()));
    }
}

/// A sentence for each step that needs a field that no earlier step makes.
pub(in crate::settings) fn never_made(pipeline: &Pipeline) -> Vec<String> {
    let mut known = Known::default();
    let mut told = Vec::new();
    for (index, step) in pipeline.steps.iter().enumerate() {
        let mut tell = |field: &str, then: &str| {
            let (name, number, kind) = (&pipeline.name, index + 1, step.kind());
            told.push(format!(
                "pipeline {name}: step {number} ({kind}) asks for the field \"{}\", which no step before it makes, so {then}: put \
                 a parse step before it, or correct the name; capturer try shows the fields of a line",
                shown(field)
            ));
        };
        if let Step::When(condition, _) = step
            && let Some(field) = unmade(condition, &known)
        {
            tell(field, "its condition is never met and every line skips this step");
            continue;
        }
        match step.inner() {
            Step::Keep(condition) => {
                if let Some(field) = unmade(condition, &known) {
                    tell(field, "it drops every line");
                }
            }
            Step::Drop(condition) => {
                if let Some(field) = unmade(condition, &known) {
                    tell(field, "it drops no line");
                }
            }
            Step::Timestamp(settings) if !known.has(&settings.field) => {
                tell(&settings.field, "each line keeps the time at which it was captured");
            }
            Step::Labels(labels) => {
                for field in labels.from_fields.values().filter(|field| !known.has(field)) {
                    tell(field, "no line gets its label");
                }
            }
            Step::Rename(names) => {
                for (from, to) in names {
                    if !known.has(from) {
                        tell(from, "nothing is renamed");
                    }
                    known.names.insert(to.clone());
                }
            }
            Step::Remove(names) => {
                for field in names.iter().filter(|field| !known.has(field)) {
                    tell(field, "nothing is removed");
                }
            }
            Step::Parse(parse) => {
                match &parse.from {
                    Some(field) if !known.has(field) => tell(field, "it parses nothing"),
                    _ => known.add(parse),
                }
                if let Some(field) = parse.message.as_ref().filter(|field| !known.has(field)) {
                    tell(field, "no message is replaced");
                }
            }
            _ => {}
        }
    }
    told
}

fn unmade<'c>(condition: &'c Condition, known: &Known) -> Option<&'c str> {
    condition.field.as_deref().filter(|field| !known.has(field))
}
