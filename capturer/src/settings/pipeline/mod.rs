//! Settings of the pipelines: what happens to a source's lines between capture and sinks, typed and checked. Not here:
//! changing lines (pipeline/). The rules by which lines are joined are here ([`MultilineRule`]).

mod fields;
mod multiline;
mod pattern;
mod read;
mod time_format;
mod traces;

pub use multiline::{Group, Multiline, MultilinePreset, MultilineRule, Next};
pub use pattern::Pattern;
pub use time_format::{TimeFormat, TimePart};

pub(super) use fields::never_made;
pub(super) use read::{read, show};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::FileSet;
use super::path_overlap::may_meet;
use super::path_pattern::PathPattern;

/// What is done to the lines of some sources, in this order: multiline, rate limit, steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pipeline {
    /// Name in metrics and messages: unique, at most [`crate::limits::PIPELINE_NAME_BYTES_MAX`] bytes.
    pub name: String,
    /// The sources that it takes.
    pub matches: Match,
    /// Which lines are joined to one record.
    pub multiline: Option<Multiline>,
    /// How many lines or bytes pass, for each source.
    pub rate_limit: Option<RateLimit>,
    /// At most [`crate::limits::PIPELINE_STEPS_MAX`].
    pub steps: Vec<Step>,
}

/// Which sources a pipeline takes. Empty lists and maps match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// Globs over a container's name.
    pub names: Vec<glob::Pattern>,
    /// Globs over a container's image reference.
    pub images: Vec<glob::Pattern>,
    /// Label key → glob over its value; all labels of a container count.
    pub labels: BTreeMap<String, glob::Pattern>,
    /// Patterns over a followed file's path.
    pub paths: Vec<PathPattern>,
}

impl Match {
    /// A container matches by name, image and each label. A pipeline that only names paths takes no containers.
    pub fn container<'a>(&self, name: &str, image: &str, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        let any = |globs: &[glob::Pattern], text: &str| {
            globs.is_empty() || globs.iter().any(|glob| glob.matches(text))
        };
        if self.asks_no_container() {
            return self.paths.is_empty();
        }
        any(&self.names, name)
            && any(&self.images, image)
            && self.labels.iter().all(|(key, glob)| label(key).is_some_and(|value| glob.matches(value)))
    }

    /// Whether a container with this name can match, depending on its image and its labels.
    fn may_take(&self, name: &str) -> bool {
        let of_name = self.names.is_empty() || self.names.iter().any(|glob| glob.matches(name));
        of_name && !(self.images.is_empty() && self.labels.is_empty())
    }

    /// A followed path matches one of the paths. A pipeline that only names containers takes no paths.
    pub fn path(&self, path: &str) -> bool {
        if self.paths.is_empty() {
            return self.asks_no_container();
        }
        self.paths.iter().any(|pattern| pattern.matches_hidden(path))
    }

    fn asks_no_container(&self) -> bool {
        self.names.is_empty() && self.images.is_empty() && self.labels.is_empty()
    }
}

impl Pipeline {
    /// Whether it may take no source without being a mistake: it matches everything, or files that may be missing.
    pub fn may_be_unused(&self, files: &[FileSet]) -> bool {
        let may_be_empty = files.iter().filter(|set| set.may_be_empty).flat_map(|set| &set.paths);
        let meets = |pattern: &PathPattern| self.matches.paths.iter().any(|path| may_meet(path, pattern));
        self.matches == Match::default() || may_be_empty.into_iter().any(meets)
    }

    /// Whether a step holds lines back until nothing more comes.
    pub fn holds_back(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.inner(), Step::Dedup { .. }))
    }

    /// Whether a step sets the time of records.
    pub fn sets_time(&self) -> bool {
        self.steps.iter().any(Step::sets_time)
    }

    /// Labels that its steps set.
    pub fn record_labels(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().flat_map(|step| match step.inner() {
            Step::Labels(labels) => {
                let names = labels.set.keys().chain(labels.from_fields.keys());
                names.chain(labels.from_container_labels.keys()).map(String::as_str).collect()
            }
            _ => Vec::new(),
        })
    }

    /// Keys of the container labels that its steps use, whether or not these labels go into records.
    pub fn container_labels(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().flat_map(|step| match step.inner() {
            Step::Labels(labels) => labels.from_container_labels.values().map(String::as_str).collect(),
            _ => Vec::new(),
        })
    }
}

/// A pipeline that first turns each message into what a terminal would show.
pub fn as_on_terminal(pipeline: Option<Arc<Pipeline>>) -> Arc<Pipeline> {
    let mut pipeline = pipeline.map_or_else(
        || Pipeline { name: "tty".to_owned(), ..Pipeline::default() },
        |pipeline| Pipeline::clone(&pipeline),
    );
    pipeline.steps.insert(0, Step::Terminal);
    Arc::new(pipeline)
}

/// The first pipeline that takes a container's lines.
pub fn for_container<'a>(
    pipelines: &[Arc<Pipeline>],
    name: &str,
    image: &str,
    label: impl Fn(&str) -> Option<&'a str>,
) -> Option<Arc<Pipeline>> {
    pipelines.iter().find(|pipeline| pipeline.matches.container(name, image, &label)).cloned()
}

/// The pipelines that a container with this name reaches, if images and labels are not known: those that may take it by
/// these, each of which comes first if it does, and the first that takes it by its name alone.
pub fn for_name(pipelines: &[Arc<Pipeline>], name: &str) -> (Vec<Arc<Pipeline>>, Option<Arc<Pipeline>>) {
    let by_name = pipelines.iter().position(|pipeline| pipeline.matches.container(name, "", |_| None));
    let before = &pipelines[..by_name.unwrap_or(pipelines.len())];
    let may_take = before.iter().filter(|pipeline| pipeline.matches.may_take(name)).cloned();
    (may_take.collect(), by_name.map(|at| Arc::clone(&pipelines[at])))
}

/// The first pipeline that takes a followed path's lines.
pub fn for_path(pipelines: &[Arc<Pipeline>], path: &str) -> Option<Arc<Pipeline>> {
    pipelines.iter().find(|pipeline| pipeline.matches.path(path)).cloned()
}

/// How much passes per second and source. At least one of lines and bytes is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Lines a second; 0 = no bound.
    pub lines: u64,
    /// Bytes of messages a second; 0 = no bound.
    pub bytes: u64,
    /// How much time's worth of that rate may pass at once after a silence.
    pub burst: Duration,
    /// What happens to lines above the rate.
    pub over: Over,
}

/// What happens to lines above a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Reading waits: the lines stay in the source for as long as it keeps them.
    Wait,
    /// The lines are dropped and counted.
    Drop,
}

/// One step of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Makes fields of text.
    Parse(Parse),
    /// Sets a record's time from a field.
    Timestamp(Timestamp),
    /// Only lines that meet the condition pass.
    Keep(Condition),
    /// Lines that meet the condition are dropped.
    Drop(Condition),
    /// Only one of this many lines passes.
    Sample {
        /// At least 2.
        keep_one_in: u64,
    },
    /// Replaces secrets.
    Redact(Redact),
    /// Sets labels of the record.
    Labels(Labels),
    /// Removes colours and other terminal commands from the message.
    StripAnsi,
    /// Turns the message into what a terminal would show.
    Terminal,
    /// Field → its new name.
    Rename(BTreeMap<String, String>),
    /// Fields to remove.
    Remove(Vec<String>),
    /// A step for lines that meet the condition; other lines skip it.
    When(Condition, Box<Step>),
    /// Drops lines that repeat the one before.
    Dedup {
        /// How long after the first of them, or after the last one that passed.
        window: Duration,
    },
}

impl Step {
    /// The step without its condition.
    pub fn inner(&self) -> &Step {
        if let Step::When(_, step) = self { step.inner() } else { self }
    }

    /// Whether it sets the time of records.
    pub fn sets_time(&self) -> bool {
        matches!(self.inner(), Step::Timestamp(_))
    }

    /// Its name in the config and in metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Step::Parse(_) => "parse",
            Step::Timestamp(_) => "timestamp",
            Step::Keep(_) => "keep",
            Step::Drop(_) => "drop",
            Step::Sample { .. } => "sample",
            Step::Redact(_) => "redact",
            Step::Labels(_) => "labels",
            Step::StripAnsi | Step::Terminal => "strip_ansi",
            Step::Rename(_) => "rename",
            Step::Remove(_) => "remove",
            Step::When(_, step) => step.kind(),
            Step::Dedup { .. } => "dedup",
        }
    }
}

/// Makes fields of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parse {
    /// The format of the text.
    pub format: ParseFormat,
    /// The field with the text; `None` = the message.
    pub from: Option<String>,
    /// A field that becomes the message and is removed.
    pub message: Option<String>,
}

/// The format of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParseFormat {
    /// A JSON object.
    Json,
    /// logfmt: `key=value key="value"`.
    Logfmt,
    /// A regular expression whose named groups become fields.
    Regex(Pattern),
    /// A line of a Kubernetes log file: `time stream F message`.
    Cri,
    /// RFC 5424 or RFC 3164.
    Syslog,
    /// An access log in the Common Log Format.
    Common,
    /// The Combined Log Format: Common with referer and agent.
    Combined,
    /// nginx's access log or error log.
    Nginx,
    /// Apache's error log.
    ApacheError,
    /// Any text: takes the first word that is a level.
    Level,
}

/// Sets a record's time from a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timestamp {
    /// Name of the field.
    pub field: String,
    /// How the time is written there.
    pub format: TimeFormat,
    /// Time zone of times without one; `None` = UTC.
    pub timezone: Option<jiff::tz::TimeZone>,
    /// A time is out of bounds if it is longer than this before now; zero = no such bound.
    pub too_old: Duration,
    /// A time is out of bounds if it is longer than this after now; zero = no such bound.
    pub future: Duration,
    /// What happens to a line whose time is out of bounds.
    pub otherwise: Otherwise,
}

/// What happens to a line whose time is out of bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Otherwise {
    /// It keeps the time at which it was captured.
    Keep,
    /// It gets the nearest time within bounds.
    Clamp,
    /// It is dropped and counted.
    Reject,
}

/// A condition on lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Where to look; `None` = in the message.
    pub field: Option<String>,
    /// Must match there; `None` = the field must exist.
    pub matches: Option<Pattern>,
    /// The field is the one that holds a line's level, under this name or under one that it was renamed from.
    pub is_of_level: bool,
}

/// The field that gets a line's level.
pub const LEVEL: &str = "level";

impl Pipeline {
    /// Tells each `keep` whether it looks at the level, which may have another name by then.
    fn mark_levels(&mut self) {
        let mut names = BTreeSet::from([LEVEL.to_owned()]);
        for step in &mut self.steps {
            let step = match step {
                Step::When(_, step) => step.as_mut(),
                step => step,
            };
            match step {
                Step::Rename(renamed) => {
                    let more =
                        renamed.iter().filter(|(from, _)| names.contains(*from)).map(|(_, to)| to.clone());
                    names.extend(more.collect::<Vec<_>>());
                }
                Step::Keep(condition) => {
                    condition.is_of_level =
                        condition.field.as_ref().is_some_and(|field| names.contains(field));
                }
                _ => {}
            }
        }
    }
}

/// Which secrets are replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redact {
    /// Built-in patterns of secrets.
    pub presets: Vec<RedactPreset>,
    /// The user's own patterns.
    pub patterns: Vec<RedactPattern>,
}

/// The user's own pattern of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedactPattern {
    /// What is replaced.
    pub pattern: Pattern,
    /// The replacement; `$1` and `$name` stand for groups.
    pub with: String,
}

/// A built-in pattern of secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RedactPreset {
    /// 13 to 19 digits with a valid check digit.
    CreditCard,
    /// An e-mail address.
    Email,
    /// The word after `Bearer`, and JSON web tokens anywhere.
    BearerToken,
    /// The value of a key called password, token or the like.
    KeySecret,
}

impl RedactPreset {
    /// All of them.
    pub const ALL: [RedactPreset; 4] =
        [RedactPreset::CreditCard, RedactPreset::Email, RedactPreset::BearerToken, RedactPreset::KeySecret];
}

/// Labels that a step sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// Label → value.
    pub set: BTreeMap<String, String>,
    /// Label → the field with its value.
    pub from_fields: BTreeMap<String, String>,
    /// Label → the container's label with its value.
    pub from_container_labels: BTreeMap<String, String>,
    /// How many different values a label from a field may have per source.
    pub values_max: usize,
    /// The value in place of all further ones.
    pub overflow: String,
}
