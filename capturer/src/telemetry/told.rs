//! A component's message in short: a title that names the fault, a line for each thing to know or to do, and the
//! runbook. The status page and `capturer top` show these. Pure.
//!
//! A message of health has parts separated by semicolons. If there are many, the first says what is wrong, some say
//! what to do, and for the rest at least their number is shown.

use std::collections::BTreeSet;

use serde::Serialize;

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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Told {
    /// Names the fault in few words.
    pub title: String,
    /// What to know and what to do, one item per line.
    pub lines: Vec<String>,
    /// All parts of the message, if `lines` does not have all of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub all: Vec<String>,
    /// Name of the page in docs/runbooks.
    pub runbook: &'static str,
}

impl Told {
    /// Shortens a component's message.
    pub fn of(component: &str, message: &str) -> Told {
        let all: Vec<String> = parts(message).iter().map(|part| capital(&briefly(part))).collect();
        let lines = match component {
            // They are in order of importance, and the page unfolds the rest.
            "docker" => all.iter().take(LINES_OF_ONE_CAUSE_MAX).cloned().collect(),
            _ => lines(&all),
        };
        let all = if lines == all { Vec::new() } else { all };
        Told { title: title(component, message), lines, all, runbook: runbook(component, message) }
    }
}

/// If a component can be unwell for several reasons, the title is the first one in its message.
fn title(component: &str, message: &str) -> String {
    let lower = message.to_ascii_lowercase();
    let (reasons, usual) = titles(component);
    let named = reasons.iter().filter_map(|(words, title)| Some((lower.find(words)?, *title)));
    let title = named.min_by_key(|(at, _)| *at).map_or(usual, |(_, title)| title);
    match title {
        "" => component.to_owned(),
        // The beginning of the message says it, with its number.
        OWN_WORDS => capital(message.split([':', ';']).next().unwrap_or_default().trim()),
        LOSSES => capital(message.split([',', ';']).next().unwrap_or_default().trim()),
        SERVER_ERROR => {
            let code = lower.split("status ").nth(1).and_then(|rest| rest.get(..3)).unwrap_or("5xx");
            format!("{SERVER_ERROR} ({code})")
        }
        title => title.to_owned(),
    }
}

const REFUSED: &str = "Lines were refused and are kept as dead letters";
const UNREACHABLE: &str = "Loki cannot be reached";
const SILENT: &str = "Loki does not answer";
const WRONG_URL: &str = "No Loki at this URL";
const WRONG_URL_404: &str = "No Loki at this URL (404)";
const OWN_WORDS: &str = "…";
const LOSSES: &str = "losses";
const SERVER_ERROR: &str = "Loki has an internal error";

type Titles = (&'static [(&'static str, &'static str)], &'static str);

/// Words of a component's message with the title for each, and the title if none of them occurs.
fn titles(component: &str) -> Titles {
    match component {
        "losses" => (&[("lines are being lost", LOSSES), ("lines were lost", LOSSES)], "Lines may be lost"),
        "leak_detector" => (
            &[
                ("leaks a file descriptor", "The agent leaks a file descriptor"),
                ("file descriptors of", "The agent leaks file descriptors"),
                ("dockerd seems to leak", "dockerd seems to leak"),
            ],
            "The agent leaks: logs still arrive",
        ),
        "capture_loop" => (&[], "The capture loop is stuck"),
        "checkpoint" => (&[], "Positions cannot be saved"),
        "streams" => (&[], "Streams are stuck"),
        "descriptors" => (&[], "File descriptors are running out"),
        "config" => (&[], "The new config was refused"),
        "docker" => (
            &[
                ("permission denied", "No permission to use Docker"),
                ("no process listens", "Docker is not running here"),
            ],
            "Docker does not answer",
        ),
        "files" => (
            &[
                ("permission", OWN_WORDS),
                ("can't be read", OWN_WORDS),
                ("match no file", OWN_WORDS),
                ("matches no file", OWN_WORDS),
                ("directory can't be listed", "A directory cannot be listed"),
                ("directories can't be listed", "Directories cannot be listed"),
                ("has not answered", "A file system does not answer"),
                ("not text", OWN_WORDS),
                ("not watched", "inotify is at its limit"),
            ],
            "Files need attention",
        ),
        "containers" => {
            (&[("no container matches", "No container matches a pattern")], "Containers are not captured")
        }
        "sink_local_file" => (
            &[
                ("no space left", "Disk full: outputs cannot be written"),
                ("quota exceeded", "Quota used up: outputs cannot be written"),
                ("permission denied", "No permission to write outputs"),
                ("read-only file system", "Read-only disk: outputs cannot be written"),
                ("does not answer", "The disk of an output does not answer"),
            ],
            "An output cannot be written",
        ),
        "sink_stdout" => {
            (&[("does not answer", "Standard output takes nothing")], "Standard output cannot be written")
        }
        "sink_loki" => (
            &[
                ("share of the spool is full", "A label set has filled its share of the spool"),
                ("the spool is full", "The spool is full"),
                ("the disk of data_dir is full", "Disk full: lines for Loki wait"),
                ("does not answer", "The disk of the spool does not answer"),
            ],
            "The spool cannot be written",
        ),
        "sink_loki_delivery" => (
            &[
                ("unreachable", UNREACHABLE),
                ("has not answered", SILENT),
                ("this is not an answer from loki", WRONG_URL),
                ("status 401", "Loki refuses the login (401)"),
                ("status 403", "Loki refuses access (403)"),
                ("status 404", WRONG_URL_404),
                ("status 429", "Loki limits the rate (429)"),
                ("status 5", SERVER_ERROR),
                ("refused as", REFUSED),
                ("lost", "Lines for Loki were lost"),
            ],
            "Lines for Loki wait",
        ),
        _ => (&[], ""),
    }
}

/// The page in docs/runbooks that helps.
fn runbook(component: &str, message: &str) -> &'static str {
    match component {
        "losses" => "losses",
        "leak_detector" => "leak",
        "capture_loop" => "capture-stalled",
        "checkpoint" => "checkpoint-failing",
        "streams" => "stuck-stream",
        "descriptors" => "descriptors-exhausted",
        "config" => "config-refused",
        "files" | "containers" => "sources-unreadable",
        "sink_local_file" | "sink_stdout" => "sink-failing",
        "sink_loki" => "spool-filling",
        "sink_loki_delivery" => match title(component, message).as_str() {
            REFUSED => "dead-letters",
            UNREACHABLE | SILENT | WRONG_URL | WRONG_URL_404 => "loki-unreachable",
            _ => "pushes-refused",
        },
        "pipelines" => "pipelines",
        "probe" => "probe-degraded",
        _ => "component-unhealthy",
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
        let told = Told::of("x", &text);
        assert_eq!(told.lines.len(), LINES_MAX, "{told:?}");
        assert_eq!((told.lines[0].as_str(), told.lines[5].as_str()), ("It is bad", "Raise the limit"));
        assert_eq!(told.lines[6], "And 5 more: /health has all");
        assert_eq!(told.all.len(), 11);
        // Few parts are shown unchanged.
        let told = Told::of("x", "it is bad: /a/b; look there");
        assert_eq!((told.lines.len(), told.all.len()), (2, 0), "{told:?}");
        let alike = Told::of("x", "read /a: EIO 5; read /b: EIO 5; read /c: EIO 5; check it");
        assert_eq!(alike.lines, ["Read /a: EIO 5 (and 2 more like this)", "Check it"]);
        assert_eq!(alike.all.len(), 4);
    }

    #[test]
    fn titles_name_the_fault() {
        let check = |component: &str, message: &str, expected: &str| {
            assert_eq!(title(component, message), expected, "{message}");
        };
        let loki = "sink_loki_delivery";
        check(
            loki,
            "Loki has been unreachable for 3 min: connecting to h:1: refused",
            "Loki cannot be reached",
        );
        check(loki, "status 401: no; nothing was delivered", "Loki refuses the login (401)");
        check(loki, "status 404; check sinks.loki.url", "No Loki at this URL (404)");
        check(loki, "label set {a=\"b\"} waits: status 429: Per stream", "Loki limits the rate (429)");
        let wrong =
            "label set {a} waits: no; this is not an answer from Loki's push API: check sinks.loki.url";
        check(loki, wrong, "No Loki at this URL");
        check(loki, "status 503: shutting down", "Loki has an internal error (503)");
        check(loki, "Loki has not answered for 34 s (no answer)", "Loki does not answer");
        check(loki, "refused as too_old: 7 lines of {a}", REFUSED);
        check(
            "losses",
            "lines are being lost: 3.4 MiB in the last 10 minutes; lost for loki: …",
            "Lines are being lost: 3.4 MiB in the last 10 minutes",
        );
        check("files", "4 patterns match no file: /a, /b; correct them", "4 patterns match no file");
        check("files", "no permission to read 2 files: /a, /b; give", "No permission to read 2 files");
        check("docker", "Docker is not running here: no process listens at /x", "Docker is not running here");
        check("docker", "Docker has not answered for 23 s", "Docker does not answer");
        let space = "No space left on device (os error 28) in /o: 300 outputs wait";
        check("sink_local_file", space, "Disk full: outputs cannot be written");
        check("sink_loki", "the spool is full (4 MiB): reading for Loki waits", "The spool is full");
        check("news", "x", "news");
    }

    #[test]
    fn a_loki_that_is_away_has_another_runbook_than_one_that_refuses() {
        for (message, page) in [
            ("Loki has been unreachable for 3 min: connecting to h:1: refused", "loki-unreachable"),
            ("Loki has not answered for 34 s (no answer)", "loki-unreachable"),
            ("status 404; check sinks.loki.url", "loki-unreachable"),
            ("status 401: no; nothing was delivered", "pushes-refused"),
            ("label set {a} waits: status 429: Per stream", "pushes-refused"),
            ("status 503: shutting down", "pushes-refused"),
            ("refused as too_old: 7 lines of {a}", "dead-letters"),
        ] {
            assert_eq!(runbook("sink_loki_delivery", message), page, "{message}");
            let path = format!("{}/../docs/runbooks/{page}.md", env!("CARGO_MANIFEST_DIR"));
            assert!(std::path::Path::new(&path).exists(), "{path}");
        }
    }

    #[test]
    fn each_runbook_is_there() {
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
            "pipelines",
            "probe",
            "docker",
        ];
        for component in components {
            let page = format!(
                "{}/../docs/runbooks/{}.md",
                env!("CARGO_MANIFEST_DIR"),
                runbook(component, "refused as too_old: 7 lines")
            );
            assert!(std::path::Path::new(&page).exists(), "{page}");
        }
    }
}
