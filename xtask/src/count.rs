//! `cargo xtask count`: how many instructions the data path takes, by function, compared with the committed counts.
//!
//! ```text
//! tests/bin/count.rs, profile ci ─▶ valgrind --tool=callgrind ─▶ a count for each of our functions ─┐ compared
//! tests/bench/instructions.json ──────────────────────────────────────────────────────────────────┘
//! ```
//! Times differ from run to run, instructions don't: the input is always the same, and callgrind counts every one. So a
//! change that makes a line more expensive shows at once, even on a busy machine. The chore fails and names the
//! function if the total rises by more than [`RISE_PERCENT`], or a function that has at least [`SHARE_PERCENT`] of the
//! total; `--accept` writes the file anew.
//!
//! The build is that of the tests. A release build would take minutes more for a figure that is only compared with that
//! of the commit before. Other compilers, versions of valgrind and processors give other counts, so the file says what
//! it was counted with; if that differs, nothing is compared, and the chore says so.

pub mod callgrind;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};

use crate::debian::run;
use crate::{ci_build, paths, tools};
use callgrind::Counts;

/// A larger rise is a failure.
const RISE_PERCENT: f64 = 5.0;
/// A function with a smaller share is not judged: its count changes when the compiler inlines differently.
const SHARE_PERCENT: f64 = 1.0;
/// How many functions are printed.
const SHOWN: usize = 20;
/// Functions with a smaller share are not written.
const WRITTEN_PERCENT: f64 = 0.2;

/// What to do with the counts.
#[derive(clap::Args)]
pub struct CountArgs {
    /// Write the counts to tests/bench/instructions.json in place of comparing them
    #[arg(long)]
    accept: bool,
    /// The program to count; without it tests/bin/count.rs, which is built first as the tests are
    #[arg(long, value_name = "PROGRAM")]
    program: Option<PathBuf>,
}

/// The result of a comparison.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// Nothing rose too much.
    Holds,
    /// The committed counts were made with something else, which the text names.
    NotCompared(String),
}

/// Counts, prints and compares, or writes.
pub fn count(arguments: &CountArgs) -> Result<()> {
    tools::install_callgrind()?;
    let program = arguments.program.clone().map_or_else(|| ci_build::bin("count"), Ok)?;
    if !arguments.accept {
        return compare_with_committed(&program).map(drop);
    }
    let counts = counted(&program)?;
    print!("{}", table(&counts));
    let text = serde_json::to_string_pretty(&to_json(&counts, &made_with()?))? + "\n";
    fs::write(committed(), text).with_context(|| format!("writing {}", committed().display()))?;
    println!("written to {}", committed().display());
    Ok(())
}

/// Counts a program's instructions and compares; an error names what rose.
pub fn compare_with_committed(program: &Path) -> Result<Verdict> {
    let counts = counted(program)?;
    print!("{}", table(&counts));
    let text = fs::read_to_string(committed()).with_context(|| {
        format!("reading {}, which cargo xtask count --accept writes", committed().display())
    })?;
    let (before, with_before) = from_json(&serde_json::from_str(&text)?).context("the committed counts")?;
    let with = made_with()?;
    if with != with_before {
        let verdict = format!("the committed counts are of another build: {with_before}, this is {with}");
        println!("not compared: {verdict}");
        return Ok(Verdict::NotCompared(verdict));
    }
    println!("committed: {} instructions, {:+.2} %", before.total, rise(before.total, counts.total));
    let risen = risen(&before, &counts);
    if risen.is_empty() {
        return Ok(Verdict::Holds);
    }
    bail!(
        "more instructions than are committed:\n  {}\nIf that is meant, cargo xtask count --accept writes the new counts",
        risen.join("\n  ")
    )
}

fn committed() -> PathBuf {
    paths::workspace().join("tests/bench/instructions.json")
}

/// Runs it under callgrind.
fn counted(program: &Path) -> Result<Counts> {
    let out = paths::target().join("callgrind.out");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=count::measured*"]);
    valgrind.arg(format!("--callgrind-out-file={}", out.display())).arg(program);
    // The length of the environment moves the stack, which changes alignment.
    valgrind.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).stdin(Stdio::null());
    run(&mut valgrind).context("running the data path under callgrind")?;
    let text = fs::read_to_string(&out).with_context(|| format!("reading {}", out.display()))?;
    callgrind::read(&text)
}

/// What the counts depend on besides our code.
fn made_with() -> Result<String> {
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let compiler = run(Command::new(compiler).arg("--version").current_dir(paths::workspace()))?;
    let valgrind = run(Command::new("valgrind").arg("--version"))?;
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    // The C library and memchr choose their code by these.
    let flags = cpu.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let has = |flag: &str| flags.split_whitespace().any(|other| other == flag);
    let known: Vec<&str> = ["avx2", "erms", "fsrm"].into_iter().filter(|flag| has(flag)).collect();
    let words = [compiler.trim(), valgrind.trim(), std::env::consts::ARCH, &known.join(" ")];
    Ok(words.map(str::trim).join(", "))
}

fn rise(before: u64, now: u64) -> f64 {
    100.0 * (now as f64 - before as f64) / before as f64
}

/// What rose too much, largest first; if the total did, also functions that are new.
fn risen(before: &Counts, now: &Counts) -> Vec<String> {
    let all_rose = rise(before.total, now.total) > RISE_PERCENT;
    let share = |count: u64| 100.0 * count as f64 / now.total as f64;
    let mut rows: Vec<(u64, String)> = Vec::new();
    for (name, count) in &now.functions {
        if share(*count) < SHARE_PERCENT {
            continue;
        }
        match before.functions.get(name) {
            Some(old) if rise(*old, *count) > RISE_PERCENT => {
                let text = format!("{name}: {old} before, {count} now, {:+.1} %", rise(*old, *count));
                rows.push((count - old, text));
            }
            None if all_rose => rows.push((*count, format!("{name}: new, {count}"))),
            _ => {}
        }
    }
    rows.sort_by(|one, other| other.cmp(one));
    let mut risen: Vec<String> = rows.into_iter().map(|(_, text)| text).collect();
    if all_rose {
        let (old, new) = (before.total, now.total);
        risen.insert(0, format!("all together: {old} before, {new} now, {:+.1} %", rise(old, new)));
    }
    risen
}

fn table(counts: &Counts) -> String {
    let mut rows: Vec<(&String, &u64)> = counts.functions.iter().collect();
    rows.sort_by(|one, other| other.1.cmp(one.1).then(one.0.cmp(other.0)));
    let mut text =
        format!("{:>12} {:>6}  {}\n", "instructions", "%", "function, with the libraries it calls");
    for (name, count) in rows.into_iter().take(SHOWN) {
        text += &format!("{count:>12} {:>6.2}  {name}\n", 100.0 * *count as f64 / counts.total as f64);
    }
    text + &format!("{:>12} {:>6.2}  all\n", counts.total, 100.0)
}

fn to_json(counts: &Counts, with: &str) -> Value {
    let written = counts.total as f64 * WRITTEN_PERCENT / 100.0;
    let functions = counts.functions.iter().filter(|(_, count)| **count as f64 >= written);
    let functions: Map<String, Value> =
        functions.map(|(name, count)| (name.clone(), (*count).into())).collect();
    json!({"made_with": with, "total": counts.total, "functions": functions})
}

fn from_json(value: &Value) -> Result<(Counts, String)> {
    let with = value["made_with"].as_str().context("no made_with")?.to_owned();
    let total = value["total"].as_u64().context("no total")?;
    let functions = value["functions"].as_object().context("no functions")?.iter();
    let functions =
        functions.map(|(name, count)| Some((name.clone(), count.as_u64()?))).collect::<Option<_>>();
    Ok((Counts { total, functions: functions.context("a function without a count")? }, with))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(functions: &[(&str, u64)]) -> Counts {
        let total = functions.iter().map(|(_, count)| count).sum();
        Counts {
            total,
            functions: functions.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
        }
    }

    #[test]
    fn what_rises_is_named() {
        let before = counts(&[("a", 6_000), ("b", 4_000), ("small", 20)]);
        let none = Vec::<String>::new();
        assert_eq!(risen(&before, &before), none);
        assert_eq!(risen(&before, &counts(&[("a", 6_290), ("b", 4_000), ("small", 20)])), none, "under 5 %");
        assert_eq!(risen(&before, &counts(&[("a", 6_000), ("b", 4_000), ("small", 40)])), none, "too small");
        assert_eq!(risen(&before, &counts(&[("a", 100), ("b", 4_000)])), none, "a fall is none");
        // A shift from one function to another shows, even if the total is the same.
        let moved = risen(&before, &counts(&[("a", 5_000), ("b", 5_000), ("small", 20)]));
        assert_eq!(moved, ["b: 4000 before, 5000 now, +25.0 %"]);
        let more = risen(&before, &counts(&[("a", 7_000), ("b", 4_000), ("small", 20), ("c", 500)]));
        assert_eq!(more.len(), 3, "{more:?}");
        assert!(more[0].starts_with("all together") && more[1].starts_with("a:") && more[2] == "c: new, 500");
    }

    #[test]
    fn what_is_written_is_read() {
        let counts = counts(&[("a", 600_000), ("<b as c>::d", 400_000)]);
        let (read, with) = from_json(&to_json(&counts, "rustc 1")).unwrap();
        assert_eq!((read, with.as_str()), (counts.clone(), "rustc 1"));
        assert!(from_json(&json!({"total": 1})).is_err());
        assert!(table(&counts).contains("60.00  a\n"));
    }

    /// Otherwise a broken file would only be noticed in a run of all parts.
    #[test]
    fn the_committed_counts_are_readable() {
        let text = fs::read_to_string(committed()).unwrap();
        let (counts, _) = from_json(&serde_json::from_str(&text).unwrap()).unwrap();
        assert!(counts.functions.keys().any(|name| name.contains("decode")), "{counts:?}");
    }
}
