//! Which fields a pipeline's steps can make, and which steps need a field that none makes: such a `keep` drops every
//! line, and any other such step does nothing, silently.

use std::collections::{BTreeMap, BTreeSet};

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
    /// Those that no line has any more, with the step that took them.
    gone: BTreeMap<String, Taker>,
}

/// A step that takes fields away.
#[derive(Clone, Copy, Debug)]
struct Taker {
    number: usize,
    kind: &'static str,
}

impl Known {
    fn has(&self, name: &str) -> bool {
        !self.gone.contains_key(name) && (self.any || self.names.contains(name))
    }

    fn make(&mut self, name: &str) {
        self.gone.remove(name);
        self.names.insert(name.to_owned());
    }

    /// Not by a step for some lines only: others still have it.
    fn take(&mut self, name: &str, taker: Option<Taker>) {
        if let Some(taker) = taker {
            self.names.remove(name);
            self.gone.insert(name.to_owned(), taker);
        }
    }

    fn add(&mut self, parse: &Parse) {
        let lists: &[&[&str]] = match &parse.format {
            ParseFormat::Json | ParseFormat::Logfmt | ParseFormat::Syslog => {
                self.any = true;
                self.gone.clear();
                &[]
            }
            ParseFormat::Regex(pattern) => {
                pattern.regex().capture_names().flatten().for_each(|name| self.make(name));
                &[]
            }
            ParseFormat::Cri => &[CRI],
            ParseFormat::Common | ParseFormat::Combined => &[ACCESS],
            ParseFormat::Nginx => &[ACCESS, NGINX_ERROR],
            ParseFormat::ApacheError => &[APACHE_ERROR],
            ParseFormat::Level => &[&["level"]],
        };
        lists.iter().flat_map(|list| list.iter()).for_each(|name| self.make(name));
    }
}

/// A sentence for each step that needs a field that no earlier step makes.
pub(in crate::settings) fn never_made(pipeline: &Pipeline) -> Vec<String> {
    let mut known = Known::default();
    let mut told = Vec::new();
    for (index, step) in pipeline.steps.iter().enumerate() {
        let (name, number, kind) = (&pipeline.name, index + 1, step.kind());
        let is_for_all = !matches!(step, Step::When(..));
        let taker = Some(Taker { number, kind }).filter(|_| is_for_all);
        let gone = known.gone.clone();
        let mut tell = |field: &str, then: &str| {
            let asks =
                format!("pipeline {name}: step {number} ({kind}) asks for the field \"{}\"", shown(field));
            told.push(match gone.get(field) {
                None => format!(
                    "{asks}, which no step before it makes, so {then}: put a parse step before it, or correct the name; \
                     capturer try shows the fields of a line"
                ),
                Some(Taker { number: before, kind: "parse" }) => format!(
                    "{asks}, which step {before} (parse) made the message, so it is no field any more and {then}: leave out \
                     message in step {before}; a keep, drop or when without field looks at the message"
                ),
                Some(Taker { number: before, kind: took }) => format!(
                    "{asks}, which step {before} ({took}) took away, so {then}: put this step before step {before}, or \
                     correct the name"
                ),
            });
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
                for from in names.keys() {
                    if !known.has(from) {
                        tell(from, "nothing is renamed");
                    }
                }
                names.keys().for_each(|from| known.take(from, taker));
                names.values().for_each(|to| known.make(to));
            }
            Step::Remove(names) => {
                for field in names.iter().filter(|field| !known.has(field)) {
                    tell(field, "nothing is removed");
                }
                names.iter().for_each(|name| known.take(name, taker));
            }
            Step::Parse(parse) => {
                match &parse.from {
                    Some(field) if !known.has(field) => tell(field, "it parses nothing"),
                    _ => known.add(parse),
                }
                if let Some(field) = parse.message.as_ref().filter(|field| !known.has(field)) {
                    tell(field, "no message is replaced");
                }
                if let Some(field) = &parse.message {
                    known.take(field, taker);
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
