//! Who may know whom in the agent: the module map's promise, as two tables.
//!
//! The part that decides is pure, so that the same code runs on the real ring and in a simulation; and the steps of the
//! flow do not know each other, so that each can be read alone. Both are lost one harmless import at a time.

use super::code::{has_word, used_paths};
use super::{Finding, Source};

const AGENT: &str = "capturer/src/";

/// What decides: files and folders of the agent that take events and the time, and return actions.
const PURE: [&str; 12] = [
    "decode/",
    "record.rs",
    "fields.rs",
    "cursor.rs",
    "kin.rs",
    "stream/",
    "discover/",
    "pipeline/",
    "checkpoint/",
    "ledger/",
    "capture.rs",
    "capture/",
];
/// The one file of them that does something: it writes the checkpoint.
const NOT_PURE: [&str; 1] = ["checkpoint/store.rs"];

/// What pure code may not mention, with what it does instead.
const IMPURE: [(&str, &str); 9] = [
    ("tokio", "return an action; the shell waits"),
    ("tokio_uring", "return an action; the shell talks to the ring"),
    ("std::fs", "return an action; the shell reads and writes"),
    ("std::net", "return an action; the shell connects"),
    ("std::thread", "return an action; threads belong to the agent"),
    ("Instant::now", "take the time as an argument: a simulation has its own"),
    ("SystemTime::now", "take the time as an argument: a simulation has its own"),
    ("HashMap", "use BTreeMap: its order is the same in every run of a seed"),
    ("HashSet", "use BTreeSet: its order is the same in every run of a seed"),
];

/// The steps of the flow, each with the steps it may know. What steps share is a noun of record.rs, cursor.rs or settings.
const STEPS: [(&str, &[&str]); 6] = [
    ("discover", &[]),
    // A source drives its decoders and hands on lines; decoders know nothing of sources.
    ("stream", &["decode"]),
    ("decode", &[]),
    // A line is looked at as it was before the decoder kept Docker's escapes; levels and times are decoded there too.
    ("pipeline", &["decode"]),
    // A sink's thread runs the steps of a pipeline over what it delivers. Some formats need a message as it was before the decoder kept Docker's escapes, and Loki wants times as numbers.
    ("sink", &["decode", "pipeline"]),
    ("checkpoint", &[]),
];

/// Modules that touch the outside, each with those that may know it; the module itself always may.
const OUTSIDE: [(&str, &[&str]); 5] = [
    ("ring", &["agent", "shell", "http", "docker", "doctor"]),
    // `faults` exists in a test's build only: it forgets connections on purpose.
    ("http", &["agent", "shell", "docker", "admin", "doctor", "faults"]),
    ("probe", &["agent", "witness", "doctor"]),
    ("witness", &["agent"]),
    // `check` reads the certificate that the server would.
    ("admin", &["agent", "shell", "online"]),
];

/// Pure code mentions nothing that waits, does or is different in each run.
pub fn pure_code_stays_pure(source: &Source) -> Vec<Finding> {
    let Some(path) = source.path.strip_prefix(AGENT) else { return Vec::new() };
    let pure =
        PURE.iter().any(|start| path.starts_with(start)) && !NOT_PURE.contains(&path) && !is_test_file(path);
    if !pure {
        return Vec::new();
    }
    let code = without_tests(&source.code);
    let mut findings = Vec::new();
    for (word, instead) in IMPURE {
        let lines = mentions(code, word);
        findings.extend(lines.into_iter().map(|line| {
            Finding::error(
                line,
                format!("{word} in pure code: {instead} (xtask/src/tidy/layers.rs lists what is pure)"),
            )
        }));
    }
    findings
}

/// Steps know nouns, not steps; only the modules of [`OUTSIDE`]'s lists know the outside.
pub fn steps_do_not_know_each_other(source: &Source) -> Vec<Finding> {
    let Some(path) = source.path.strip_prefix(AGENT) else { return Vec::new() };
    let own = path.split(['/', '.']).next().unwrap_or_default();
    if ["main", "lib"].contains(&own) || is_test_file(path) {
        return Vec::new();
    }
    let code = without_tests(&source.code);
    let mut findings = Vec::new();
    let mut check = |other: &str, allowed: bool, how: &str| {
        if own == other || allowed {
            return;
        }
        let lines = mentions(code, &format!("crate::{other}"));
        findings.extend(
            lines.into_iter().map(|line| Finding::error(line, format!("{own} knows {other}: {how}"))),
        );
    };
    if let Some((_, known)) = STEPS.iter().find(|(step, _)| *step == own) {
        let how = "capture hands one step's output to the next, as a noun of record.rs or cursor.rs; \
                   or let it, and say why, in xtask/src/tidy/layers.rs";
        STEPS.iter().for_each(|(step, _)| check(step, known.contains(step), how));
    }
    for (outside, known_by) in OUTSIDE {
        let how = format!(
            "only {} may; return an action, or name the module and its reason in xtask/src/tidy/layers.rs",
            known_by.join(", ")
        );
        check(outside, known_by.contains(&own), &how);
    }
    findings
}

/// The lines that mention a path: spelled in a `use`, in a group of one, or in the code.
fn mentions(code: &str, path: &str) -> Vec<usize> {
    let inside = |used: &str| has_word(used, path);
    let used = used_paths(code).into_iter().filter(|(_, used)| inside(used)).map(|(line, _)| line);
    let written = code.lines().enumerate().filter(|(_, line)| inside(line)).map(|(index, _)| index + 1);
    let mut lines: Vec<usize> = used.chain(written).collect();
    lines.sort_unstable();
    lines.dedup();
    lines
}

/// Tests stand at a file's end, and may read files and count with what they like.
fn without_tests(code: &str) -> &str {
    code.split("#[cfg(test)]\nmod tests {").next().unwrap_or(code)
}

fn is_test_file(path: &str) -> bool {
    path.ends_with("tests.rs") || path.contains("/tests/")
}

#[cfg(test)]
mod tests {
    use super::super::tests::count;
    use super::*;

    #[test]
    fn pure_code_is_told_from_the_rest() {
        let bad = [
            "use std::fs;\n",
            "use std::{io, fs::File};\n",
            "fn f() { std::thread::yield_now() }\n",
            "let t = Instant::now();\n",
            "use std::collections::{BTreeMap, HashMap};\n",
            "use tokio::sync::mpsc;\n",
        ];
        for text in bad {
            assert!(count(pure_code_stays_pure, "capturer/src/decode/line.rs", text) > 0, "{text}");
            assert_eq!(count(pure_code_stays_pure, "capturer/src/shell.rs", text), 0, "{text}");
            assert_eq!(count(pure_code_stays_pure, "capturer/src/checkpoint/store.rs", text), 0, "{text}");
            assert_eq!(count(pure_code_stays_pure, "capturer/src/decode/line_tests.rs", text), 0, "{text}");
        }
        let good = "use std::collections::BTreeMap;\n// like std::fs\nlet x = \"tokio\";\n#[cfg(test)]\nmod tests {\n  use std::fs;\n}\n";
        assert_eq!(count(pure_code_stays_pure, "capturer/src/decode/line.rs", good), 0);
    }

    #[test]
    fn a_step_that_knows_a_step_is_found() {
        let text = "use crate::stream::State;\n";
        assert_eq!(count(steps_do_not_know_each_other, "capturer/src/decode/line.rs", text), 1);
        assert_eq!(count(steps_do_not_know_each_other, "capturer/src/stream/machine.rs", text), 0);
        assert_eq!(count(steps_do_not_know_each_other, "capturer/src/capture.rs", text), 0);
        let grouped = "use crate::{record::Record, sink::loki};\n";
        assert_eq!(count(steps_do_not_know_each_other, "capturer/src/pipeline/batch.rs", grouped), 1);
        assert_eq!(count(steps_do_not_know_each_other, "xtask/src/main.rs", grouped), 0);
    }

    #[test]
    fn only_the_shell_knows_the_ring() {
        let text = "fn f() { crate::ring::start() }\n";
        assert_eq!(count(steps_do_not_know_each_other, "capturer/src/metrics.rs", text), 1);
        assert_eq!(count(steps_do_not_know_each_other, "capturer/src/shell.rs", text), 0);
        assert_eq!(count(steps_do_not_know_each_other, "capturer/src/ring/mod.rs", text), 0);
        assert_eq!(count(steps_do_not_know_each_other, "capturer/src/lib.rs", text), 0);
    }
}
