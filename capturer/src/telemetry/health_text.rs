//! A component's message in short: a title that names the fault, a line for each thing to know or to do, and the
//! runbook. The status page and `capturer top` show these. Pure.
//!
//! A message of health has parts separated by semicolons. If there are many, the first says what is wrong, some say
//! what to do, and for the rest at least their number is shown.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::telemetry::fault::Fault;
use crate::telemetry::status::Health;
use crate::text::ids::briefly;

/// So many lines can be read at a glance if there may be several causes.
const LINES_MAX: usize = 7;
/// So many for a component with one cause and one cure; the rest is unfolded.
const LINES_OF_ONE_CAUSE_MAX: usize = 3;
/// First words of advice.
const VERBS: &[&str] = &[
    "allow", "check", "correct", "exclude", "fix", "free", "get", "give", "keep", "let", "look", "lower",
    "make", "move", "name", "raise", "remove", "repair", "report", "restart", "see", "send", "set", "start",
    "upgrade", "use",
];

/// A message in short; see the head of this file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthText {
    /// Names the fault in few words.
    pub title: String,
    /// What to know and what to do, one item per line.
    #[serde(default)]
    pub lines: Vec<String>,
    /// All parts of the message, if `lines` does not have all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub all: Vec<String>,
    /// Name of the page in docs/runbooks.
    #[serde(default)]
    pub runbook: Cow<'static, str>,
}

impl HealthText {
    /// Of how a component is.
    pub fn of(component: &str, health: &Health) -> HealthText {
        let all: Vec<String> = parts(&health.message).iter().map(|part| capital(&briefly(part))).collect();
        let lines = match component {
            // They are in order of importance, and the page unfolds the rest.
            "docker" => all.iter().take(LINES_OF_ONE_CAUSE_MAX).cloned().collect(),
            _ => lines(&all),
        };
        let all = if lines == all { Vec::new() } else { all };
        let first = health.faults.first();
        let fault = first.map_or(Fault::Usual, |standing| standing.fault);
        let title =
            first.map_or_else(|| title(component, fault, &health.message), |standing| standing.title.clone());
        HealthText { title, lines, all, runbook: fault.runbook(component).into() }
    }
}

/// What people call a fault of a component that says `message`.
pub fn title(component: &str, fault: Fault, message: &str) -> String {
    match fault.title(component) {
        Ok("") => component.to_owned(),
        Ok(title) => title.to_owned(),
        // The beginning of the sentence says it, with its number.
        Err(ends) => capital(message.split(ends).next().unwrap_or_default().trim()),
    }
}

/// The parts of a message, separated by semicolons outside quotes and brackets. If a bracket or quote does not close,
/// it is part of quoted text and does not count.
fn parts(text: &str) -> Vec<String> {
    let made = split(text, true).or_else(|| split(text, false));
    made.unwrap_or_else(|| text.split("; ").map(|part| part.trim().to_owned()).collect())
}

fn split(text: &str, brackets_count: bool) -> Option<Vec<String>> {
    let (mut parts, mut part) = (Vec::new(), String::new());
    let (mut quoted, mut escaped, mut depth) = (false, false, 0_usize);
    let mut signs = text.chars().peekable();
    while let Some(sign) = signs.next() {
        match sign {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '(' | '{' | '[' if !quoted && brackets_count => depth += 1,
            ')' | '}' | ']' if !quoted && brackets_count => depth = depth.checked_sub(1)?,
            ';' if !quoted && depth == 0 && signs.peek().is_none_or(|next| *next == ' ') => {
                parts.push(std::mem::take(&mut part).trim().to_owned());
                continue;
            }
            _ => {}
        }
        part.push(sign);
    }
    parts.push(part.trim().to_owned());
    parts.retain(|part| !part.is_empty());
    (!quoted && depth == 0).then_some(parts)
}

/// At most [`LINES_MAX`]: parts that say the same of different things become one; then the first part, advice and its
/// purpose, and then others in their order. A line says how many are left out.
fn lines(all: &[String]) -> Vec<String> {
    let mut kept: Vec<(String, &str, usize)> = Vec::new();
    for part in all {
        let shape = shape(part);
        match kept.iter_mut().find(|(known, _, _)| *known == shape) {
            Some((_, _, count)) => *count += 1,
            None => kept.push((shape, part, 1)),
        }
    }
    let mut wanted: BTreeSet<usize> = (0..kept.len()).collect();
    if kept.len() > LINES_MAX {
        let first = std::iter::once(0);
        let cures = (1..kept.len()).filter(|at| is_cure(kept[*at].1));
        // The line about omitted parts needs a place, too.
        let by_weight = first.chain(cures).chain(1..kept.len());
        wanted.clear();
        for at in by_weight {
            if wanted.len() < LINES_MAX - 1 {
                wanted.insert(at);
            }
        }
    }
    let left_out: usize =
        kept.iter().enumerate().filter(|(at, _)| !wanted.contains(at)).map(|(_, (_, _, count))| count).sum();
    let shown = kept.iter().enumerate().filter(|(at, _)| wanted.contains(at));
    let mut lines: Vec<String> = shown
        .map(|(_, (_, part, count))| match count {
            1 => (*part).to_owned(),
            _ => format!("{part} (and {} more like this)", count - 1),
        })
        .collect();
    if left_out > 0 {
        lines.push(format!("And {left_out} more: /health has all"));
    }
    lines
}

fn is_cure(part: &str) -> bool {
    let lower = part.to_ascii_lowercase();
    let begins = |text: &str| {
        let word = text.split([' ', ':']).next().unwrap_or_default();
        VERBS.contains(&word)
    };
    begins(&lower) || lower.split(": ").skip(1).any(begins)
}

/// What two parts have in common that say the same of two files, label sets or addresses.
fn shape(part: &str) -> String {
    let words = part.split(' ').map(|word| {
        let is_name = word.contains(['/', '"', '{']);
        if is_name { "…".to_owned() } else { word.replace(|sign: char| sign.is_ascii_digit(), "0") }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// With a capital, unless it begins with a name or an address.
fn capital(text: &str) -> String {
    let word = text.split([' ', ',', ':']).next().unwrap_or_default();
    let is_word = word.bytes().all(|byte| byte.is_ascii_lowercase()) && word.len() < text.len();
    if !is_word || ["dockerd", "docker", "capturer", "inotify", "file", "container"].contains(&word) {
        return text.to_owned();
    }
    let mut signs = text.chars();
    signs.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(signs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::PushFailure;
    use crate::telemetry::status::HealthState;

    /// A message was once cut inside its brackets, and the page said "lost: (4 MiB".
    #[test]
    fn brackets_and_quotes_are_not_split() {
        let check = |text: &str, expected: &[&str]| assert_eq!(parts(text), expected);
        check(
            "it is full (4 MiB; old; more), wait; free some",
            &["it is full (4 MiB; old; more), wait", "free some"],
        );
        check(
            "label set {a=\"x; y\", b=\"\\\"; \"} waits; look",
            &["label set {a=\"x; y\", b=\"\\\"; \"} waits", "look"],
        );
        check("a&amp;b; c;", &["a&amp;b", "c"]);
        // A server's answer may be cut anywhere.
        check("it said: {\"a\":[1; check", &["it said: {\"a\":[1", "check"]);
        check("it said (x; check", &["it said (x", "check"]);
        check("x) y; z", &["x) y", "z"]);
    }

    #[test]
    fn nothing_is_left_out_without_a_word() {
        let names = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
        let parts: Vec<String> = names.iter().map(|name| format!("what is said of {name} only")).collect();
        let text = format!("it is bad; {}; raise the limit", parts.join("; "));
        let told = |text: &str| HealthText::of("x", &Health::new(false, text));
        let shown = told(&text);
        assert_eq!(shown.lines.len(), LINES_MAX, "{shown:?}");
        assert_eq!((shown.lines[0].as_str(), shown.lines[5].as_str()), ("It is bad", "Raise the limit"));
        assert_eq!(shown.lines[6], "And 5 more: /health has all");
        assert_eq!(shown.all.len(), 11);
        // Few are shown as they are.
        let few = told("it is bad: /a/b; look there");
        assert_eq!((few.lines.len(), few.all.len()), (2, 0), "{few:?}");
        let alike = told("read /a: EIO 5; read /b: EIO 5; read /c: EIO 5; check it");
        assert_eq!(alike.lines, ["Read /a: EIO 5 (and 2 more like this)", "Check it"]);
        assert_eq!(alike.all.len(), 4);
    }

    fn health(component: &str, fault: Fault, message: &str) -> Health {
        let status = crate::telemetry::status::Status::default();
        status.set_faults(component, HealthState::Bad, &[fault], message);
        status.health().remove(component).expect("it was set")
    }

    #[test]
    fn titles_name_the_fault() {
        let check = |component: &str, fault: Fault, message: &str, expected: &str| {
            assert_eq!(
                HealthText::of(component, &health(component, fault, message)).title,
                expected,
                "{message}"
            );
        };
        let being = "lines are being lost: 3.4 MiB in the last 10 minutes; lost for loki: …";
        check("losses", Fault::Lost, being, "Lines are being lost: 3.4 MiB in the last 10 minutes");
        let patterns = "4 patterns match no file: /a, /b; correct them";
        check("files", Fault::Said, patterns, "4 patterns match no file");
        check("docker", Fault::DockerAway, "x", "Docker is not running here");
        check("docker", Fault::Usual, "x", "Docker does not answer");
        check("sink_local_file", Fault::NoRoom, "x", "Disk full: outputs cannot be written");
        check("sink_loki", Fault::NoRoom, "x", "Disk full: lines for Loki wait");
        check("news", Fault::Usual, "x", "news");
    }

    /// "Nothing is lost" was once titled "Lines for Loki were lost", and a gateway's words could name any fault.
    #[test]
    fn words_of_a_sentence_decide_nothing() {
        for words in ["nothing is lost", "status 401: unreachable, no space left", "it does not answer"] {
            let told =
                HealthText::of("sink_loki_delivery", &health("sink_loki_delivery", Fault::Usual, words));
            assert_eq!(
                (told.title.as_str(), told.runbook.as_ref()),
                ("Lines for Loki wait", "pushes-refused"),
                "{words}"
            );
            let told = HealthText::of(
                "docker",
                &health("docker", Fault::Usual, &format!("permission denied {words}")),
            );
            assert_eq!(told.title, "Docker does not answer");
        }
    }

    #[test]
    fn a_loki_that_is_away_has_another_runbook_than_one_that_refuses() {
        for (fault, page) in [
            (Fault::Push(PushFailure::Unreachable), "loki-unreachable"),
            (Fault::Push(PushFailure::TimedOut), "loki-unreachable"),
            (Fault::Push(PushFailure::NotFound), "loki-unreachable"),
            (Fault::Push(PushFailure::Unauthorized), "pushes-refused"),
            (Fault::Push(PushFailure::StreamRateLimited), "pushes-refused"),
            (Fault::Push(PushFailure::ServerError), "pushes-refused"),
            (Fault::Refused, "dead-letters"),
        ] {
            assert_eq!(fault.runbook("sink_loki_delivery"), page, "{fault:?}");
        }
    }

    /// Each fault of each component has a title that fits in a row, and a page that is there.
    #[test]
    fn each_fault_has_a_title_and_a_runbook() {
        let components = [
            "losses",
            "leak_detector",
            "capture_loop",
            "checkpoint",
            "streams",
            "descriptors",
            "config",
            "files",
            "containers",
            "sink_local_file",
            "sink_loki",
            "sink_loki_delivery",
            "sink_stdout",
            "pipelines",
            "probe",
            "docker",
        ];
        let of_pushes = PushFailure::ALL.iter().map(|failure| Fault::Push(*failure));
        let faults: Vec<Fault> = [
            Fault::Usual,
            Fault::Said,
            Fault::Lost,
            Fault::Silent,
            Fault::NoRoom,
            Fault::QuotaUsed,
            Fault::Denied,
            Fault::ReadOnly,
            Fault::SpoolFull,
            Fault::SpoolRemoved,
            Fault::SpoolUnsaved,
            Fault::SpoolLost,
            Fault::Refused,
            Fault::LoginUnreadable,
            Fault::DockerFails,
            Fault::LastLinesUnread,
            Fault::LogReplaced,
            Fault::DataDirRemoved,
            Fault::ConfigNotStarted,
            Fault::ReloadWaits,
        ]
        .into_iter()
        .chain(of_pushes)
        .collect();
        for component in components {
            for fault in &faults {
                let told = HealthText::of(component, &health(component, *fault, "it begins so; and goes on"));
                assert!((5..=50).contains(&told.title.len()), "{component} {fault:?}: {told:?}");
                let page = format!("{}/../docs/runbooks/{}.md", env!("CARGO_MANIFEST_DIR"), told.runbook);
                assert!(std::path::Path::new(&page).exists(), "{page}");
            }
        }
    }
}
