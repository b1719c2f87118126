//! Figures about the agent's code that no single file shows: how many rooms there are, whether imports form circles,
//! how many files and comments are too long or short. They are printed and fail nothing; whoever changes the layout
//! compares them with those of the commit before.
//!
//! They work for any layout of `capturer/src`, so that old commits can be measured too.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::Source;
use super::layers::{imports, is_test_file};

const AGENT: &str = "capturer/src/";
/// Its children count as rooms, as they import each other.
const NESTED: &str = "capture";
const LONG_LINES: usize = 500;

/// The figures of one tree.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Files and folders directly in `capturer/src`.
    rooms: usize,
    /// Groups of rooms that import each other, directly or by way of others.
    circles: Vec<Vec<String>>,
    /// Rust files of more than [`LONG_LINES`] lines.
    long_files: usize,
    /// Fields of type `bool` in the structs of `stream/`.
    stream_bools: usize,
    /// Doc comments of one or two words.
    short_docs: usize,
    /// Modules declared `pub`.
    public_modules: usize,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inside: usize = self.circles.iter().map(Vec::len).sum();
        writeln!(f, "{} rooms in {AGENT}", self.rooms)?;
        writeln!(f, "{} import circles between rooms, {inside} rooms in them", self.circles.len())?;
        for circle in &self.circles {
            writeln!(f, "  {}", circle.join(", "))?;
        }
        writeln!(f, "{} files of more than {LONG_LINES} lines", self.long_files)?;
        writeln!(f, "{} bools in structs of stream/", self.stream_bools)?;
        writeln!(f, "{} doc comments of one or two words", self.short_docs)?;
        writeln!(f, "{} public modules", self.public_modules)
    }
}

/// Counts.
pub fn figures(sources: &[Source]) -> Figures {
    let mut figures = Figures::default();
    let (mut rooms, mut knows, mut knows_inside) = (BTreeSet::new(), Graph::new(), Graph::new());
    for source in sources.iter().filter(|source| source.is_rust()) {
        let Some(path) = source.path.strip_prefix(AGENT) else { continue };
        figures.long_files += usize::from(source.text.lines().count() > LONG_LINES);
        figures.short_docs += short_docs(&source.text);
        let public = source.code.lines().filter(|line| line.starts_with("pub mod "));
        figures.public_modules += public.count();
        if format!("/{path}").contains("/stream/") && !is_test_file(path) {
            figures.stream_bools += bools(&source.code);
        }
        if ["main.rs", "lib.rs", "fuzz.rs", "testing.rs"].contains(&path)
            || path.starts_with("bin/")
            || is_test_file(path)
        {
            continue;
        }
        let own: Vec<&str> = path.trim_end_matches(".rs").split('/').collect();
        rooms.insert(own[0].to_owned());
        for (_, target) in imports(source) {
            let target: Vec<&str> = target.split('/').collect();
            if own[0] != target[0] {
                knows.entry(own[0].to_owned()).or_default().insert(target[0].to_owned());
            } else if own[0] == NESTED
                && let (Some(own), Some(target)) = (own.get(1), target.get(1))
                && own != target
                && *own != "mod"
            {
                knows_inside
                    .entry(format!("{NESTED}/{own}"))
                    .or_default()
                    .insert(format!("{NESTED}/{target}"));
            }
        }
    }
    figures.rooms = rooms.len();
    figures.circles = circles(&knows);
    figures.circles.extend(circles(&knows_inside));
    figures
}

type Graph = BTreeMap<String, BTreeSet<String>>;

/// The groups in which each room imports each other, directly or indirectly.
fn circles(knows: &Graph) -> Vec<Vec<String>> {
    let reached: BTreeMap<&String, BTreeSet<&String>> =
        knows.keys().map(|room| (room, reach(knows, room))).collect();
    let mut groups: BTreeSet<Vec<String>> = BTreeSet::new();
    for (room, others) in &reached {
        if !others.contains(*room) {
            continue;
        }
        let back = others.iter().filter(|other| reached.get(**other).is_some_and(|set| set.contains(*room)));
        groups.insert(back.map(|other| (*other).clone()).collect());
    }
    groups.into_iter().collect()
}

/// All rooms that `room` imports, directly or indirectly; itself only if there is a way back.
fn reach<'a>(knows: &'a Graph, room: &String) -> BTreeSet<&'a String> {
    let mut seen = BTreeSet::new();
    let mut next: Vec<&String> = knows.get(room).into_iter().flatten().collect();
    while let Some(other) = next.pop() {
        if seen.insert(other) {
            next.extend(knows.get(other).into_iter().flatten());
        }
    }
    seen
}

/// Doc comments that are one line of one or two words.
fn short_docs(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
    let is_doc = |index: Option<usize>| {
        index.and_then(|index| lines.get(index)).is_some_and(|line| line.starts_with("///"))
    };
    let alone = |index: usize| !is_doc(index.checked_sub(1)) && !is_doc(Some(index + 1));
    let short =
        |line: &str| line.strip_prefix("///").is_some_and(|words| words.split_whitespace().count() <= 2);
    lines.iter().enumerate().filter(|(index, line)| short(line) && alone(*index)).count()
}

/// Fields of type `bool` in structs.
fn bools(code: &str) -> usize {
    let mut inside = false;
    let mut count = 0;
    for line in code.lines() {
        let declares = line.contains("struct ") && line.ends_with('{');
        inside = (inside || declares) && line != "}";
        count += usize::from(inside && line.trim_end().ends_with(": bool,"));
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(files: &[(&str, &str)]) -> Figures {
        let sources: Vec<Source> =
            files.iter().map(|(path, text)| Source::new(&format!("{AGENT}{path}"), text)).collect();
        figures(&sources)
    }

    #[test]
    fn circles_are_found_across_rooms_and_inside_capture() {
        let circle = of(&[
            ("lib.rs", "pub mod a;\n"),
            ("a/mod.rs", "use crate::b::{self, X};\n"),
            ("b.rs", "fn f() { crate::c::g() }\n"),
            ("c/d.rs", "use crate::a;\n"),
            ("e.rs", "use crate::a;\n#[cfg(test)]\nmod tests {\n    use crate::f;\n}\n"),
            ("f.rs", "use crate::e;\n"),
            ("capture/io.rs", "use crate::capture::core::Capture;\n"),
            ("capture/core/mod.rs", "use crate::capture::io::Event;\n"),
        ]);
        assert_eq!(circle.circles, [vec!["a", "b", "c"], vec!["capture/core", "capture/io"]]);
        assert_eq!((circle.rooms, circle.public_modules), (6, 1));
    }

    #[test]
    fn what_is_short_and_what_is_bool_is_counted() {
        let text = "/// Whose.\npub struct A {\n    /// It is so.\n    a: bool,\n    b: u8,\n}\n/// Two\n/// lines.\nfn f(a: bool, b: bool) {}\n";
        let figures =
            of(&[("capture/stream/a.rs", text), ("stream/b.rs", "struct B {\n    pub x: bool,\n}\n")]);
        assert_eq!((figures.stream_bools, figures.short_docs), (2, 1));
    }
}
