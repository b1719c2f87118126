//! The `pipelines` section: its keys, their values, and the relations between them; and the line that describes a
//! pipeline in `capturer check`.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::{
    Condition, Labels, Match, Multiline, MultilinePreset, MultilineRule, Otherwise, Over, Parse, ParseFormat,
    Pattern, Pipeline, RateLimit, Redact, RedactPattern, RedactPreset, Step, TimeFormat, Timestamp,
};
use crate::limits::{
    LINE_BYTES_CEILING, PIPELINE_NAME_BYTES_MAX, PIPELINE_STEPS_MAX, PIPELINES_MAX, REPLACEMENT_BYTES_MAX,
};
use crate::settings::loki::is_label_name;
use crate::settings::path_pattern::PathPattern;
use crate::settings::reader::Section;
use crate::settings::units::{self, Mismatch};
use crate::text::terminal::shown;

const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);
const BURSTS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
const WINDOWS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
const AGES: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3660 * 24 * 3600);
const GROUP_LINES: RangeInclusive<usize> = 2..=10_000;
const GROUP_BYTES: RangeInclusive<u64> = 1024..=LINE_BYTES_CEILING;
/// Default of a group's greatest size, unless `line_bytes_max` is less.
const GROUP_BYTES_DEFAULT: u64 = 256 * 1024;
const RATE_CEILING: u64 = 1 << 40;
/// Patterns of one step.
const REDACT_PATTERNS_MAX: usize = 32;
/// Bounds of a label's different values: Loki keeps a stream for each.
const VALUES: RangeInclusive<usize> = 1..=10_000;

/// Reads the list; lines have at most `line_bytes_max` bytes.
pub(in crate::settings) fn read(s: &mut Section, line_bytes_max: u64, into: &mut Vec<Arc<Pipeline>>) {
    let mut names = Vec::new();
    s.sections("pipelines", |s| {
        let pipeline = read_pipeline(s, line_bytes_max);
        if pipeline.name.is_empty() && !s.has_problem("name") {
            s.problem("name", "is missing: a name for metrics and messages");
        }
        if names.contains(&pipeline.name) {
            s.problem("name", format!("\"{}\" is the name of another pipeline", pipeline.name));
        }
        if names.len() == PIPELINES_MAX {
            s.problem("name", format!("there are more than {PIPELINES_MAX} pipelines: sources that need the same can share one (match takes lists)"));
        }
        names.push(pipeline.name.clone());
        into.push(Arc::new(pipeline));
    });
}

fn read_pipeline(s: &mut Section, line_bytes_max: u64) -> Pipeline {
    let mut pipeline = Pipeline::default();
    s.read("name", &mut pipeline.name, name);
    s.section("match", |s| read_match(s, &mut pipeline.matches));
    s.section("multiline", |s| pipeline.multiline = read_multiline(s, line_bytes_max));
    s.section("rate_limit", |s| pipeline.rate_limit = read_rate_limit(s));
    s.sections("steps", |s| pipeline.steps.extend(read_step(s)));
    let behind_dedup = |pair: &[Step]| matches!(pair[0].inner(), Step::Dedup { .. });
    if pipeline.steps.windows(2).any(behind_dedup) {
        s.problem("steps", "has a step after dedup, which must be last because it holds lines back");
    }
    if pipeline.steps.len() > PIPELINE_STEPS_MAX {
        s.problem("steps", format!("has more than {PIPELINE_STEPS_MAX}"));
    }
    pipeline.mark_levels();
    pipeline
}

fn read_match(s: &mut Section, into: &mut Match) {
    s.list("names", &mut into.names, units::pattern);
    s.list("images", &mut into.images, units::pattern);
    s.map("labels", &mut into.labels, units::pattern);
    s.list("paths", &mut into.paths, units::path_pattern);
}

fn read_multiline(s: &mut Section, line_bytes_max: u64) -> Option<Multiline> {
    let presets = MultilinePreset::NAMED.map(|(name, preset)| (name, Some(preset)));
    let (mut preset, mut start, mut continues) = (None, None, None);
    let (mut timeout, mut lines_max) = (Duration::from_secs(1), 500);
    let mut bytes_max = GROUP_BYTES_DEFAULT.min(line_bytes_max);
    s.choice("preset", &presets, &mut preset);
    s.read("start", &mut start, optional_pattern);
    s.read("continue", &mut continues, optional_pattern);
    s.duration("timeout", TIMEOUTS, &mut timeout);
    s.count("lines_max", GROUP_LINES, &mut lines_max);
    s.size("bytes_max", GROUP_BYTES, &mut bytes_max);
    if !s.is_given() {
        return None;
    }
    let patterns = start.is_some() || continues.is_some();
    let rule = match preset {
        Some(_) if patterns => {
            s.problem("preset", "excludes start and continue: give one or the other");
            return None;
        }
        Some(preset) => MultilineRule::Preset(preset),
        None if patterns => MultilineRule::Patterns { start, continues },
        None => {
            if !["preset", "start", "continue"].iter().any(|key| s.has_problem(key)) {
                s.problem("preset", "is missing: give it, or start, or continue");
            }
            return None;
        }
    };
    Some(Multiline { rule, timeout, lines_max, bytes_max })
}

fn read_rate_limit(s: &mut Section) -> Option<RateLimit> {
    let (mut lines, mut bytes) = (0, 0);
    let (mut burst, mut over) = (Duration::from_secs(5), Over::Wait);
    s.count("lines", 0..=RATE_CEILING as usize, &mut lines);
    s.size("bytes", 0..=RATE_CEILING, &mut bytes);
    s.duration("burst", BURSTS, &mut burst);
    s.choice("over", &[("wait", Over::Wait), ("drop", Over::Drop)], &mut over);
    if !s.is_given() {
        return None;
    }
    if lines == 0 && bytes == 0 && !s.has_problem("lines") && !s.has_problem("bytes") {
        s.problem("lines", "lines and bytes are both unlimited: set one of them");
    }
    Some(RateLimit { lines: lines as u64, bytes, burst, over })
}

/// One step: a section with one key, the step's name.
fn read_step(s: &mut Section) -> Option<Step> {
    let mut steps = Vec::new();
    let mut given = 0;
    let mut step = |s: &mut Section, name: &'static str, read: fn(&mut Section) -> Option<Step>| {
        s.section(name, |s| {
            let read = read(s);
            if s.is_given() {
                given += 1;
                steps.extend(read);
            }
        });
    };
    step(s, "parse", read_parse);
    step(s, "timestamp", read_timestamp);
    step(s, "keep", |s| read_condition(s).map(Step::Keep));
    step(s, "drop", |s| read_condition(s).map(Step::Drop));
    step(s, "sample", read_sample);
    step(s, "redact", read_redact);
    step(s, "labels", read_labels);
    step(s, "strip_ansi", |_| Some(Step::StripAnsi));
    step(s, "rename", read_rename);
    step(s, "remove", read_remove);
    step(s, "dedup", |s| {
        let mut window = Duration::from_secs(60);
        s.duration("window", WINDOWS, &mut window);
        Some(Step::Dedup { window })
    });
    if given != 1 && s.has_only_known() {
        s.problem(
            "",
            "must be exactly one step: one of parse, timestamp, keep, drop, sample, redact, labels, strip_ansi, rename, \
             remove and dedup, each after a dash of its own",
        );
    }
    let mut when = None;
    s.section("when", |s| when = read_condition(s));
    let step = steps.pop()?;
    Some(match when {
        Some(condition) => Step::When(condition, Box::new(step)),
        None => step,
    })
}

fn read_rename(s: &mut Section) -> Option<Step> {
    let mut fields = BTreeMap::new();
    s.map("fields", &mut fields, field);
    if fields.is_empty() {
        if s.is_given() {
            required(s, "fields", "old name: new name");
        }
        return None;
    }
    Some(Step::Rename(fields))
}

fn read_remove(s: &mut Section) -> Option<Step> {
    let mut fields = Vec::new();
    s.list("fields", &mut fields, field);
    if fields.is_empty() {
        if s.is_given() {
            required(s, "fields", "names of fields");
        }
        return None;
    }
    Some(Step::Remove(fields))
}

fn read_parse(s: &mut Section) -> Option<Step> {
    #[derive(Clone, Copy, PartialEq)]
    enum Format {
        None,
        Json,
        Logfmt,
        Regex,
        Cri,
        Syslog,
        Common,
        Combined,
        Nginx,
        ApacheError,
        Level,
    }
    let formats = [
        ("json", Format::Json),
        ("logfmt", Format::Logfmt),
        ("regex", Format::Regex),
        ("cri", Format::Cri),
        ("syslog", Format::Syslog),
        ("common", Format::Common),
        ("combined", Format::Combined),
        ("nginx", Format::Nginx),
        ("apache_error", Format::ApacheError),
        ("level", Format::Level),
    ];
    let (mut format, mut pattern, mut from, mut message) = (Format::None, None, None, None);
    s.choice("format", &formats, &mut format);
    s.read("pattern", &mut pattern, optional_pattern);
    s.read("from", &mut from, optional_field);
    s.read("message", &mut message, optional_field);
    if !s.is_given() {
        return None;
    }
    let named = |pattern: &Pattern| pattern.regex().capture_names().flatten().next().is_some();
    let format = match (format, pattern) {
        (Format::Regex, Some(pattern)) if named(&pattern) => ParseFormat::Regex(pattern),
        (Format::Regex, Some(_)) => {
            s.problem("pattern", "has no named group, which would become a field: (?P<name>…)");
            return None;
        }
        (Format::Regex, None) => {
            if !s.has_problem("pattern") {
                s.problem("pattern", "is missing: its named groups become fields");
            }
            return None;
        }
        (_, Some(_)) => {
            s.problem("pattern", "is for format: regex only");
            return None;
        }
        (Format::Json, None) => ParseFormat::Json,
        (Format::Logfmt, None) => ParseFormat::Logfmt,
        (Format::Cri, None) => ParseFormat::Cri,
        (Format::Syslog, None) => ParseFormat::Syslog,
        (Format::Common, None) => ParseFormat::Common,
        (Format::Combined, None) => ParseFormat::Combined,
        (Format::Nginx, None) => ParseFormat::Nginx,
        (Format::ApacheError, None) => ParseFormat::ApacheError,
        (Format::Level, None) => ParseFormat::Level,
        (Format::None, None) => {
            required(
                s,
                "format",
                "one of json, logfmt, regex, cri, syslog, common, combined, nginx, apache_error and level",
            );
            return None;
        }
    };
    Some(Step::Parse(Parse { format, from, message }))
}

fn read_timestamp(s: &mut Section) -> Option<Step> {
    let (mut field, mut format) = (None, TimeFormat::Rfc3339);
    let (mut too_old, mut future) = (Duration::ZERO, Duration::ZERO);
    let (mut otherwise, mut timezone) = (Otherwise::Keep, None);
    s.read("field", &mut field, optional_field);
    s.read("format", &mut format, TimeFormat::parse);
    s.read("timezone", &mut timezone, time_zone);
    s.duration("too_old", AGES, &mut too_old);
    s.duration("future", AGES, &mut future);
    let ways = [("keep", Otherwise::Keep), ("clamp", Otherwise::Clamp), ("reject", Otherwise::Reject)];
    s.choice("otherwise", &ways, &mut otherwise);
    if field.is_none() && s.is_given() {
        required(s, "field", "the field that holds the time");
    }
    Some(Step::Timestamp(Timestamp { field: field?, format, timezone, too_old, future, otherwise }))
}

fn read_condition(s: &mut Section) -> Option<Condition> {
    let (mut field, mut matches) = (None, None);
    s.read("field", &mut field, optional_field);
    s.read("matches", &mut matches, optional_pattern);
    if field.is_none() && matches.is_none() {
        if s.is_given() && !s.has_problem("field") {
            required(s, "matches", "a regular expression, or field: the name of a field that must be there");
        }
        return None;
    }
    Some(Condition { field, matches, is_of_level: false })
}

fn read_sample(s: &mut Section) -> Option<Step> {
    let mut keep_one_in = 0;
    s.count("keep_one_in", 2..=1_000_000_000, &mut keep_one_in);
    if keep_one_in == 0 {
        if s.is_given() {
            required(s, "keep_one_in", "10 lets one line in ten through");
        }
        return None;
    }
    Some(Step::Sample { keep_one_in: keep_one_in as u64 })
}

fn read_redact(s: &mut Section) -> Option<Step> {
    let mut redact = Redact::default();
    s.list("presets", &mut redact.presets, preset);
    s.sections("patterns", |s| {
        if redact.patterns.len() == REDACT_PATTERNS_MAX {
            s.problem("pattern", format!("there are more than {REDACT_PATTERNS_MAX} patterns"));
            return;
        }
        let (mut pattern, mut with) = (None, "[redacted]".to_owned());
        s.read("pattern", &mut pattern, optional_pattern);
        s.read("with", &mut with, replacement);
        match pattern {
            Some(pattern) if pattern.is_match(b"") => {
                s.problem("pattern", "matches the empty string, so it would match everywhere");
            }
            Some(pattern) => redact.patterns.push(RedactPattern { pattern, with }),
            None => required(s, "pattern", "what is to be replaced"),
        }
    });
    redact.presets.sort_unstable();
    redact.presets.dedup();
    if s.is_given() && redact == Redact::default() && !s.has_problem("presets") && !s.has_problem("patterns")
    {
        s.problem("presets", "presets and patterns are both missing: nothing would be redacted");
    }
    Some(Step::Redact(redact))
}

fn read_labels(s: &mut Section) -> Option<Step> {
    let mut labels = Labels {
        set: BTreeMap::new(),
        from_fields: BTreeMap::new(),
        from_container_labels: BTreeMap::new(),
        values_max: 100,
        overflow: "other".to_owned(),
    };
    s.map("set", &mut labels.set, units::text);
    s.map("from_fields", &mut labels.from_fields, field);
    s.map("from_container_labels", &mut labels.from_container_labels, units::text);
    s.count("values_max", VALUES, &mut labels.values_max);
    s.read("overflow", &mut labels.overflow, units::text);
    let keys = [
        ("set", labels.set.keys()),
        ("from_fields", labels.from_fields.keys()),
        ("from_container_labels", labels.from_container_labels.keys()),
    ];
    let mut all: Vec<&String> = Vec::new();
    for (key, names) in keys {
        for name in names {
            let shown = shown(name);
            if !is_label_name(name) {
                let why =
                    "is not a valid label name: use letters, digits and _, and do not begin with a digit";
                s.problem(key, format!("\"{shown}\" {why}"));
            }
            if all.contains(&name) {
                s.problem(key, format!("\"{shown}\" gets its value in two ways"));
            }
            all.push(name);
        }
    }
    if all.is_empty() && s.is_given() && !["set", "from_fields"].iter().any(|key| s.has_problem(key)) {
        s.problem("set", "set, from_fields and from_container_labels are all missing: no label would be set");
    }
    Some(Step::Labels(labels))
}

/// Reports a missing key, unless a problem with its value was reported already.
fn required(s: &Section, key: &'static str, what: &str) {
    if !s.has_problem(key) {
        s.problem(key, format!("is missing: {what}"));
    }
}

fn name(text: &str) -> Result<String, Mismatch> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if text.is_empty() || text.len() > PIPELINE_NAME_BYTES_MAX || !text.bytes().all(allowed) {
        return Err(Mismatch::new(format!(
            "a name of letters, digits, _ - and ., at most {PIPELINE_NAME_BYTES_MAX}"
        )));
    }
    Ok(text.to_owned())
}

fn field(text: &str) -> Result<String, Mismatch> {
    if text.is_empty() || text.len() > 256 {
        return Err(Mismatch::new("the name of a field"));
    }
    Ok(text.to_owned())
}

/// A time zone by its name in IANA's database: the host's copy, or else the built-in one.
fn time_zone(text: &str) -> Result<Option<jiff::tz::TimeZone>, Mismatch> {
    if text.is_empty() {
        return Ok(None);
    }
    let expected = "a time zone by its IANA name, such as Europe/Berlin or UTC";
    jiff::tz::TimeZone::get(text).map(Some).map_err(|_| Mismatch::new(expected))
}

fn replacement(text: &str) -> Result<String, Mismatch> {
    if text.len() > REPLACEMENT_BYTES_MAX {
        return Err(Mismatch::new(format!("a text of at most {REPLACEMENT_BYTES_MAX} bytes")));
    }
    Ok(text.to_owned())
}

fn optional_field(text: &str) -> Result<Option<String>, Mismatch> {
    if text.is_empty() { Ok(None) } else { field(text).map(Some) }
}

fn optional_pattern(text: &str) -> Result<Option<Pattern>, Mismatch> {
    Pattern::parse(text).map(Some)
}

const PRESETS: [(&str, RedactPreset); 4] = [
    ("credit_card", RedactPreset::CreditCard),
    ("email", RedactPreset::Email),
    ("bearer_token", RedactPreset::BearerToken),
    ("key_secret", RedactPreset::KeySecret),
];

fn preset(text: &str) -> Result<RedactPreset, Mismatch> {
    PRESETS
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, preset)| *preset)
        .ok_or_else(|| Mismatch::new(format!("one of {}", PRESETS.map(|(name, _)| name).join(", "))))
}

/// `java: of names shop-*; multiline, rate limit (wait), parse json, drop, redact`. Shows no pattern and no value,
/// which may be secret.
pub(in crate::settings) fn show(pipeline: &Pipeline) -> String {
    let any = |what: &str, any: Vec<&str>| (!any.is_empty()).then(|| format!("{what} {}", any.join(" or ")));
    let globs =
        |what: &str, globs: &[glob::Pattern]| any(what, globs.iter().map(glob::Pattern::as_str).collect());
    let matches = &pipeline.matches;
    let mut whose: Vec<String> = globs("name", &matches.names).into_iter().collect();
    whose.extend(globs("image", &matches.images));
    whose.extend(matches.labels.iter().map(|(key, glob)| format!("label {key}={glob}")));
    whose.extend(any("path", matches.paths.iter().map(PathPattern::as_str).collect()));
    let mut steps = Vec::new();
    steps.extend(pipeline.multiline.as_ref().map(|_| "multiline".to_owned()));
    steps.extend(pipeline.rate_limit.map(|limit| {
        let over = if limit.over == Over::Wait { "wait" } else { "drop" };
        format!("rate_limit ({over})")
    }));
    steps.extend(pipeline.steps.iter().map(|step| step.kind().to_owned()));
    let whose = if whose.is_empty() { "all sources".to_owned() } else { whose.join("; ") };
    let steps = if steps.is_empty() { "nothing".to_owned() } else { steps.join(", ") };
    format!("{}: {whose}: {steps}", pipeline.name)
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
