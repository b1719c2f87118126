//! Which rooms of the agent may import which, as tables of its folders.
//!
//! Code that decides is pure, so that the same code runs on the real ring and in a simulation; and imports go one way,
//! so that each folder can be read with only those below it. Both are lost one harmless import at a time.

use super::code::{has_word, used_paths};
use super::{Finding, Source};

const AGENT: &str = "capturer/src/";

/// Code that decides: folders of the agent that take events and the time, and return actions.
const PURE: [&str; 6] = ["text/", "model/", "decode/", "pipeline/", "ledger/", "capture/"];

/// What pure code may not mention, with what to do instead.
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

/// The rooms of the agent from the bottom up, each with the rooms below that it may import. The longest path counts, so
/// `capture/io` is a room and the rest of `capture` another. Each room only names earlier ones in this list, so there
/// is no circle.
const ROOMS: [(&str, &[&str]); 24] = [
    ("limits", &[]),
    // Faults that tests turn on: called from everywhere, but only in a build for tests.
    ("faults", &[]),
    ("text", &[]),
    ("settings", &["text"]),
    ("model", &["settings", "text"]),
    ("ledger", &["model", "text"]),
    // Everybody may report to it; it imports nobody who captures or delivers.
    ("telemetry", &["ledger", "model", "settings", "text"]),
    ("decode", &["model", "settings", "text"]),
    // A line is looked at as it was before the decoder kept Docker's escapes; times are decoded there too.
    ("pipeline", &["decode", "model", "settings", "text"]),
    ("capture/checkpoint", &["model", "settings", "text"]),
    ("capture/io", &["capture/checkpoint", "model"]),
    ("capture/owners", &["capture/io", "model"]),
    ("capture/open_files", &["model"]),
    ("capture/counted", &["model", "telemetry"]),
    ("capture/texts", &[]),
    (
        "capture/context",
        &[
            "capture/counted",
            "capture/open_files",
            "capture/owners",
            "capture/texts",
            "capture/io",
            "capture/checkpoint",
            "telemetry",
            "model",
            "settings",
        ],
    ),
    ("capture/discover", &["capture/context", "capture/io", "telemetry", "model", "settings", "text"]),
    // A source drives its decoders and hands on lines; decoders know nothing of sources.
    (
        "capture/stream",
        &[
            "capture/context",
            "capture/owners",
            "capture/io",
            "capture/checkpoint",
            "decode",
            "telemetry",
            "model",
            "settings",
            "text",
        ],
    ),
    ("capture", &["capture/*", "decode", "telemetry", "model", "settings", "text"]),
    // A sink's thread runs the steps of a pipeline over what it delivers, and some formats need a message as it was before
    // the decoder kept Docker's escapes.
    ("sink", &["pipeline", "decode", "telemetry", "ledger", "model", "settings", "text"]),
    (
        "shell",
        &["capture/io", "capture/checkpoint", "decode", "telemetry", "ledger", "model", "settings", "text"],
    ),
    ("witness", &["telemetry", "ledger", "model", "settings", "text"]),
    (
        "agent",
        &[
            "witness",
            "shell",
            "sink",
            "capture",
            "capture/*",
            "pipeline",
            "decode",
            "telemetry",
            "ledger",
            "model",
            "settings",
            "text",
        ],
    ),
    (
        "commands",
        &[
            "agent",
            "witness",
            "shell",
            "sink",
            // A pipeline is tried on lines as the agent reads them.
            "capture",
            "capture/checkpoint",
            "pipeline",
            "decode",
            "telemetry",
            "ledger",
            "model",
            "settings",
            "text",
        ],
    ),
];

/// Modules that touch the outside world, each with the folders that may import it.
const OUTSIDE: [(&str, &[&str]); 5] = [
    ("shell/ring", &["agent/", "shell/", "commands/doctor/"]),
    ("shell/http", &["agent/", "shell/"]),
    ("witness/probe", &["agent/", "witness/", "commands/doctor/"]),
    ("witness", &["agent/", "witness/", "commands/doctor/"]),
    // `check` reads the certificate as the server would; clients know its answer to requests without TLS.
    ("telemetry/admin", &["agent/", "telemetry/admin/", "commands/online.rs", "commands/agent_client.rs"]),
];

/// Pure code mentions nothing that waits, acts or differs between runs.
pub fn pure_code_stays_pure(source: &Source) -> Vec<Finding> {
    let Some(path) = source.path.strip_prefix(AGENT) else { return Vec::new() };
    if is_test_file(path) || !PURE.iter().any(|start| path.starts_with(start)) {
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

/// Each room imports only rooms below it, and few rooms import what touches the outside world.
pub fn imports_lead_down(source: &Source) -> Vec<Finding> {
    let Some(path) = source.path.strip_prefix(AGENT) else { return Vec::new() };
    if is_test_file(path)
        || ["main.rs", "lib.rs", "fuzz.rs", "testing.rs"].contains(&path)
        || path.starts_with("bin/")
    {
        return Vec::new();
    }
    let own = path.trim_end_matches(".rs").trim_end_matches("/mod");
    let Some((room, below)) = room_of(own) else {
        let message = format!("{own} is no room: put it into one, or name it in xtask/src/tidy/layers.rs");
        return vec![Finding::error(1, message)];
    };
    let mut findings = Vec::new();
    for (line, target) in imports(source) {
        let Some((other, _)) = room_of(&target) else { continue };
        let allowed = room == other
            || other == "limits"
            || other == "faults"
            || below.iter().any(|name| match name.strip_suffix("/*") {
                Some(folder) => other.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')),
                None => *name == other,
            });
        if !allowed {
            findings.push(Finding::error(
                line,
                format!(
                    "{room} knows {other}: imports lead down. Move what both need into a room below both, or let it, \
                     and say why, in xtask/src/tidy/layers.rs"
                ),
            ));
        }
        for (door, known_by) in OUTSIDE {
            let through =
                target.strip_prefix(door).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            if through && !known_by.iter().any(|folder| path.starts_with(folder)) {
                findings.push(Finding::error(
                    line,
                    format!("only {} may know {door}: return an action instead", known_by.join(", ")),
                ));
            }
        }
    }
    findings
}

/// The room of a module, written as a path, and what it may import.
fn room_of(module: &str) -> Option<(&'static str, &'static [&'static str])> {
    let inside =
        |room: &str| module.strip_prefix(room).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    ROOMS.into_iter().filter(|(room, _)| inside(room)).max_by_key(|(room, _)| room.len())
}

/// The modules of the agent that a file mentions, as paths (`capture/io/Event`), each with its line. Tests are left
/// out.
pub fn imports(source: &Source) -> Vec<(usize, String)> {
    let code = without_tests(&source.code);
    let mut found: Vec<(usize, String)> = used_paths(code)
        .into_iter()
        .filter_map(|(line, path)| Some((line, path.strip_prefix("crate::")?.replace("::", "/"))))
        .collect();
    for (index, line) in code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("use ")) {
        found.extend(line.match_indices("crate::").filter_map(|(at, begin)| {
            let rest = &line[at + begin.len()..];
            let end =
                rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
            let path = rest[..end].trim_end_matches(':');
            (!path.is_empty()).then(|| (index + 1, path.replace("::", "/")))
        }));
    }
    found.sort();
    found.dedup();
    found
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

/// Tests are at a file's end, and may read files and use any clock.
fn without_tests(code: &str) -> &str {
    let begins = ["#[cfg(test)]\nmod tests {", "#[cfg(test)]\npub(crate) mod tests {"];
    begins.iter().filter_map(|begin| code.find(begin)).min().map_or(code, |at| &code[..at])
}

/// Tests, benches and fuzz entries may import any room.
pub fn is_test_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.ends_with("tests.rs")
        || ["fuzz.rs", "bench.rs", "testing.rs"].contains(&name)
        || path.contains("/tests/")
        || path.contains("/fuzz/")
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
            assert!(count(pure_code_stays_pure, "capturer/src/capture/stream/mod.rs", text) > 0, "{text}");
            assert_eq!(count(pure_code_stays_pure, "capturer/src/shell/mod.rs", text), 0, "{text}");
            assert_eq!(count(pure_code_stays_pure, "capturer/src/decode/line_tests.rs", text), 0, "{text}");
        }
        let good = "use std::collections::BTreeMap;\n// like std::fs\nlet x = \"tokio\";\n#[cfg(test)]\nmod tests {\n  use std::fs;\n}\n";
        assert_eq!(count(pure_code_stays_pure, "capturer/src/decode/line.rs", good), 0);
    }

    /// A room may only name earlier rooms, so the table itself has no circle.
    #[test]
    fn the_rooms_are_in_order() {
        for (index, (room, below)) in ROOMS.iter().enumerate() {
            for name in below.iter().filter(|name| !name.ends_with("/*")) {
                assert!(ROOMS[..index].iter().any(|(lower, _)| lower == name), "{room} names {name}");
            }
        }
    }

    #[test]
    fn an_import_that_leads_up_is_found() {
        let check = |path: &str, text: &str, expected: usize| {
            assert_eq!(
                count(imports_lead_down, &format!("capturer/src/{path}"), text),
                expected,
                "{path}: {text}"
            );
        };
        let stream = "use crate::capture::stream::State;\n";
        check("decode/line.rs", stream, 1);
        check("capture/discover/mod.rs", stream, 1);
        check("capture/stream/api.rs", stream, 0);
        check("capture/core/mod.rs", stream, 0);
        check("agent/run.rs", stream, 0);
        check("capture/io.rs", "use crate::capture::{checkpoint::Checkpoint, core::Capture};\n", 1);
        check("pipeline/batch.rs", "use crate::{model::record::Record, sink::loki};\n", 1);
        check(
            "sink/mod.rs",
            "fn f() { crate::agent::run() }\n#[cfg(test)]\nmod tests {\n  use crate::agent;\n}\n",
            1,
        );
        check("sink/mod.rs", "use crate::limits::READ_BYTES;\n", 0);
        check("other/mod.rs", "", 1);
    }

    #[test]
    fn only_the_shell_knows_the_ring() {
        let text = "fn f() { crate::shell::ring::start() }\n";
        assert_eq!(count(imports_lead_down, "capturer/src/shell/http.rs", text), 0);
        assert_eq!(count(imports_lead_down, "capturer/src/agent/mod.rs", text), 0);
        assert_eq!(count(imports_lead_down, "capturer/src/commands/doctor/gather.rs", text), 0);
        assert_eq!(count(imports_lead_down, "capturer/src/commands/tap.rs", text), 1);
    }
}
