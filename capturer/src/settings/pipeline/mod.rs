//! Settings of the pipelines: what happens to a source's lines between capture and sinks, typed and checked. Not here:
//! anything that is done to a line (pipeline/), but for the rules by which lines belong together ([`MultilineRule`]).

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

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::FileSet;
use super::path_overlap::may_meet;
use super::path_pattern::PathPattern;

/// What is done to the lines of some sources, in this order: multiline, rate limit, steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pipeline {
    /// For metrics and messages: at most [`crate::limits::PIPELINE_NAME_BYTES_MAX`] bytes, unique.
    pub name: String,
    /// The sources that it applies to.
    pub matches: Match,
    /// Which lines are one record.
    pub multiline: Option<Multiline>,
    /// How much of each source.
    pub rate_limit: Option<RateLimit>,
    /// At most [`crate::limits::PIPELINE_STEPS_MAX`].
    pub steps: Vec<Step>,
}

/// Whose lines a pipeline takes. Empty lists and maps ask for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// Globs over a container's name.
    pub names: Vec<glob::Pattern>,
    /// Globs over a container's image reference.
    pub images: Vec<glob::Pattern>,
    /// Label key → glob over its value, of all labels that a container has.
    pub labels: BTreeMap<String, glob::Pattern>,
    /// Patterns over a followed file's path.
    pub paths: Vec<PathPattern>,
}

impl Match {
    /// A container matches what is asked of containers: a name, an image and each label. Who asks only for paths does
    /// not mean containers.
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

    /// A followed path matches one of the paths. Who asks only for containers does not mean paths.
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
    /// Whether it is no mistake that it takes no source: it asks for nothing, or for files that may be missing.
    pub fn may_be_unused(&self, files: &[FileSet]) -> bool {
        let may_be_empty = files.iter().filter(|set| set.may_be_empty).flat_map(|set| &set.paths);
        let meets = |pattern: &PathPattern| self.matches.paths.iter().any(|path| may_meet(path, pattern));
        self.matches == Match::default() || may_be_empty.into_iter().any(meets)
    }

    /// Whether a step keeps lines back, to be let go when nothing more comes.
    pub fn holds_back(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.inner(), Step::Dedup { .. }))
    }

    /// Whether a step gives lines a time.
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

    /// Keys of the container labels that its steps use: a container's own, whether or not they go into records.
    pub fn container_labels(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().flat_map(|step| match step.inner() {
            Step::Labels(labels) => labels.from_container_labels.values().map(String::as_str).collect(),
            _ => Vec::new(),
        })
    }
}

/// A pipeline that first makes of each message what a terminal would show of it.
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

/// The first pipeline that takes a followed path's lines.
pub fn for_path(pipelines: &[Arc<Pipeline>], path: &str) -> Option<Arc<Pipeline>> {
    pipelines.iter().find(|pipeline| pipeline.matches.path(path)).cloned()
}

/// How much of each source is let through, per second. At least one of lines and bytes is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Lines a second; 0 = no bound.
    pub lines: u64,
    /// Bytes of messages a second; 0 = no bound.
    pub bytes: u64,
    /// How much of that rate may come at once after a silence.
    pub burst: Duration,
    /// What becomes of more.
    pub over: Over,
}

/// What becomes of lines above a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Reading waits: they stay in the source as long as that keeps them.
    Wait,
    /// They are dropped and counted.
    Drop,
}

/// One step of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Text to fields.
    Parse(Parse),
    /// A record's time out of a field.
    Timestamp(Timestamp),
    /// Only lines that meet the condition go on.
    Keep(Condition),
    /// Lines that meet the condition do not.
    Drop(Condition),
    /// Only one of this many goes on.
    Sample {
        /// At least 2.
        keep_one_in: u64,
    },
    /// Secrets are replaced.
    Redact(Redact),
    /// Labels of the record.
    Labels(Labels),
    /// Colours and other commands to a terminal are taken out of the message.
    StripAnsi,
    /// The message becomes what a terminal would show of it.
    Terminal,
    /// Field → the name that it gets.
    Rename(BTreeMap<String, String>),
    /// Fields that go.
    Remove(Vec<String>),
    /// A step for lines that meet the condition; others pass it by.
    When(Condition, Box<Step>),
    /// Lines that repeat the one before.
    Dedup {
        /// For this long after the first of them, or after the last that was let through.
        window: Duration,
    },
}

impl Step {
    /// The step itself, without its condition.
    pub fn inner(&self) -> &Step {
        if let Step::When(_, step) = self { step.inner() } else { self }
    }

    /// Whether it gives lines a time.
    pub fn sets_time(&self) -> bool {
        matches!(self.inner(), Step::Timestamp(_))
    }

    /// As the config names it, and metrics.
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

/// Text to fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parse {
    /// What the text is.
    pub format: ParseFormat,
    /// Field that holds the text; `None` = the message.
    pub from: Option<String>,
    /// Field that then becomes the message, and is no field any more.
    pub message: Option<String>,
}

/// What a text is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParseFormat {
    /// A JSON object.
    Json,
    /// logfmt: `key=value key="value"`.
    Logfmt,
    /// Its named groups become fields.
    Regex(Pattern),
    /// A line of a Kubernetes log file: `time stream F message`.
    Cri,
    /// RFC 5424 or RFC 3164.
    Syslog,
    /// An access log in the Common Log Format.
    Common,
    /// The same with referer and agent.
    Combined,
    /// nginx's access log or error log.
    Nginx,
    /// Apache's error log.
    ApacheError,
    /// Anything: the first word that names a level.
    Level,
}

/// A record's time out of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timestamp {
    /// Name of the field.
    pub field: String,
    /// How the time is written there.
    pub format: TimeFormat,
    /// Where the clock stood that wrote times without a zone; `None` = at UTC.
    pub timezone: Option<jiff::tz::TimeZone>,
    /// Older than this before now is out of bounds; zero = there is no such bound.
    pub too_old: Duration,
    /// Later than this after now is out of bounds; zero = there is no such bound.
    pub future: Duration,
    /// What becomes of a line out of bounds.
    pub otherwise: Otherwise,
}

/// What becomes of a line whose time is out of bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Otherwise {
    /// It keeps the time at which it was captured.
    Keep,
    /// It gets the nearest time within bounds.
    Clamp,
    /// It is dropped and counted.
    Reject,
}

/// What a line must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Where to look; `None` = in the message.
    pub field: Option<String>,
    /// Must be found there; `None` = the field must be there.
    pub matches: Option<Pattern>,
}

/// Secrets are replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redact {
    /// What is known to be secret by its look.
    pub presets: Vec<RedactPreset>,
    /// The user's own.
    pub patterns: Vec<RedactPattern>,
}

/// The user's own pattern of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedactPattern {
    /// What is replaced.
    pub pattern: Pattern,
    /// By what; `$1` and `$name` stand for what groups found.
    pub with: String,
}

/// What is known to be secret by its look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RedactPreset {
    /// 13 to 19 digits with a right check digit.
    CreditCard,
    /// An e-mail address.
    Email,
    /// What follows `Bearer`, and JSON web tokens anywhere.
    BearerToken,
    /// The value of a key that is called password, token and the like.
    KeySecret,
}

impl RedactPreset {
    /// All of them.
    pub const ALL: [RedactPreset; 4] =
        [RedactPreset::CreditCard, RedactPreset::Email, RedactPreset::BearerToken, RedactPreset::KeySecret];
}

/// Labels of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// Label → value.
    pub set: BTreeMap<String, String>,
    /// Label → field whose value it gets.
    pub from_fields: BTreeMap<String, String>,
    /// Label → the container's label whose value it gets.
    pub from_container_labels: BTreeMap<String, String>,
    /// Different values that a label from a field may have, of one source.
    pub values_max: usize,
    /// Stands for all values beyond those.
    pub overflow: String,
}
