//! Rules about single files: their headers, length and lines, and where some words may be used.

use super::code::has_word;
use super::{Finding, Source};

/// A longer file should be two files.
const LINES_MAX: usize = 800;
/// From this length on it is time to think about where to split.
const LINES_WARNED: usize = 600;

/// Where unsafe code may be: behind one door each, and in the kernel's own programs.
const UNSAFE_PLACES: [&str; 3] =
    ["capturer/src/shell/ring/", "capturer/src/witness/probe/", "capturer-ebpf/"];

/// The file in which all tests wait.
const WAITING: &str = "tests/src/wait.rs";

/// Words for postponed work, split in half because this file is checked as well.
const PUT_OFF: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
const PUT_OFF_MACROS: [&str; 2] = [concat!("to", "do!"), concat!("unimple", "mented!")];

/// Folders that only one machine has.
const PRIVATE_FOLDERS: [&str; 3] = [concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/ho", "me/")];

/// Every file says at its beginning what it is.
pub fn rust_files_say_what_they_are(source: &Source) -> Vec<Finding> {
    if !source.is_rust() || source.text.starts_with("//! ") {
        return Vec::new();
    }
    vec![Finding::error(1, "open the file with `//! …`: what it is, what it deliberately is not, its steps")]
}

/// Nobody reads long files.
pub fn files_are_not_too_long(source: &Source) -> Vec<Finding> {
    let lines = source.text.lines().count();
    if !source.is_rust() || lines < LINES_WARNED {
        return Vec::new();
    }
    let message = format!("{lines} lines; the limit is {LINES_MAX}: cut the file where its subject changes");
    vec![Finding { line: lines, message, warning: lines <= LINES_MAX }]
}

/// No blanks at the end of a line, no tabs, and a newline at the file's end: otherwise every diff has noise.
pub fn lines_are_clean(source: &Source) -> Vec<Finding> {
    if !is_ours_to_format(&source.path) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        if line.ends_with([' ', '\t', '\r']) {
            findings.push(Finding::error(index + 1, "blanks at the line's end: remove them"));
        }
        if line.contains('\t') {
            findings.push(Finding::error(index + 1, "a tab: use spaces (in a string: write it as \\t)"));
        }
    }
    if !source.text.is_empty() && !source.text.ends_with('\n') {
        findings.push(Finding::error(source.text.lines().count(), "no newline at the file's end: add one"));
    }
    findings
}

/// Unfinished work is not in the tree; what is left out is said in words.
pub fn nothing_is_left_to_do(source: &Source) -> Vec<Finding> {
    if !is_ours_to_format(&source.path) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        let words = PUT_OFF.iter().filter(|word| has_word(line, word));
        let macros = PUT_OFF_MACROS.iter().filter(|name| line.contains(*name));
        findings.extend(words.chain(macros).map(|word| {
            Finding::error(
                index + 1,
                format!("{word}: do it now, or say in a sentence what is not done and why"),
            )
        }));
    }
    findings
}

/// Code that the compiler can't check is only in the expected places.
pub fn unsafe_code_has_its_places(source: &Source) -> Vec<Finding> {
    if UNSAFE_PLACES.iter().any(|place| source.path.starts_with(place)) {
        return Vec::new();
    }
    let lines = source.code.lines().enumerate().filter(|(_, line)| has_word(line, "unsafe"));
    let how = format!(
        "only {} may hold unsafe code: use what they offer, or a crate's safe call",
        UNSAFE_PLACES.join(", ")
    );
    lines.map(|(index, _)| Finding::error(index + 1, how.clone())).collect()
}

/// A test that sleeps is slow on a fast machine and fails on a slow one.
pub fn tests_wait_in_one_place(source: &Source) -> Vec<Finding> {
    if !source.path.starts_with("tests/") || source.path == WAITING {
        return Vec::new();
    }
    let sleeps = |line: &str| ["thread::sleep", "time::sleep"].iter().any(|call| has_word(line, call));
    let lines = source.code.lines().enumerate().filter(|(_, line)| sleeps(line));
    lines
        .map(|(index, _)| {
            Finding::error(index + 1, format!("wait for a condition with wait_until of {WAITING}"))
        })
        .collect()
}

/// A path of one machine works on no other, and tells who worked where.
pub fn no_paths_of_one_machine(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        for folder in PRIVATE_FOLDERS {
            // In the middle of a path it is an ordinary folder name.
            let in_path = |c: char| c.is_alphanumeric() || "_.-)}*>/~".contains(c);
            if line.match_indices(folder).any(|(at, _)| !line[..at].ends_with(in_path)) {
                findings.push(Finding::error(
                    index + 1,
                    format!("{folder}…: use a relative path or a temporary folder"),
                ));
            }
        }
    }
    findings
}

/// Files written by hand; a lock file or a recorded log is not.
fn is_ours_to_format(path: &str) -> bool {
    let endings = [".rs", ".toml", ".md", ".yaml", ".yml", ".sh", ".service"];
    endings.iter().any(|ending| path.ends_with(ending)) || path == ".ci/run"
}

#[cfg(test)]
mod tests {
    use super::super::tests::count;
    use super::*;

    #[test]
    fn a_header_is_asked_of_rust_files_alone() {
        assert_eq!(count(rust_files_say_what_they_are, "a.rs", "//! What it is.\n"), 0);
        assert_eq!(count(rust_files_say_what_they_are, "a.rs", "use x;\n"), 1);
        assert_eq!(count(rust_files_say_what_they_are, "a.md", "# x\n"), 0);
    }

    #[test]
    fn length_is_warned_of_and_then_refused() {
        let lines = |n: usize| "x\n".repeat(n);
        let found = |n: usize| files_are_not_too_long(&Source::new("a.rs", &lines(n)));
        assert!(found(599).is_empty());
        assert!(found(600)[0].warning && found(800)[0].warning);
        assert!(!found(801)[0].warning);
    }

    #[test]
    fn blanks_and_tabs_are_found() {
        assert_eq!(count(lines_are_clean, "a.md", "good\n"), 0);
        assert_eq!(count(lines_are_clean, "a.md", "bad \n"), 1);
        assert_eq!(count(lines_are_clean, "a.toml", "\tbad\n"), 1);
        assert_eq!(count(lines_are_clean, "a.rs", "no newline"), 1);
        assert_eq!(count(lines_are_clean, "corpus/tab.log", "\tgood\n"), 0);
    }

    #[test]
    fn what_is_put_off_is_found() {
        let bad = format!("// {}: later\n{}()\n", PUT_OFF[0], PUT_OFF_MACROS[1]);
        assert_eq!(count(nothing_is_left_to_do, "a.rs", &bad), 2);
        assert_eq!(count(nothing_is_left_to_do, "a.rs", "// mktemp -d x.XXXXXX\n"), 0);
    }

    #[test]
    fn unsafe_code_is_found_outside_its_places() {
        let text = "fn f() { unsafe { g() } } // unsafe\n";
        assert_eq!(count(unsafe_code_has_its_places, "capturer/src/shell/mod.rs", text), 1);
        assert_eq!(count(unsafe_code_has_its_places, "capturer/src/shell/ring/mod.rs", text), 0);
        assert_eq!(
            count(unsafe_code_has_its_places, "capturer/src/lib.rs", "#![deny(unsafe_code)] // unsafe\n"),
            0
        );
    }

    #[test]
    fn sleeping_tests_are_found() {
        let text = "fn f() { std::thread::sleep(d) }\n";
        assert_eq!(count(tests_wait_in_one_place, "tests/agent.rs", text), 1);
        assert_eq!(count(tests_wait_in_one_place, "tests/src/wait.rs", text), 0);
        assert_eq!(count(tests_wait_in_one_place, "capturer/src/agent.rs", text), 0);
        assert_eq!(count(tests_wait_in_one_place, "tests/agent.rs", "run(\"thread::sleep\")\n"), 0);
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        let [first, second, _] = PRIVATE_FOLDERS;
        assert_eq!(count(no_paths_of_one_machine, "a.md", &format!("see {first}notes\n")), 1);
        assert_eq!(count(no_paths_of_one_machine, "a.md", &format!("overlay2/x{second}y\n")), 0);
    }
}
