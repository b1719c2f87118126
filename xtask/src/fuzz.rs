//! `cargo xtask fuzz`: looks for bytes that break a decoder, with libFuzzer.
//!
//! ```text
//! tests/fuzz (a line per target) ── one build ──▶ a program per target ── N seconds each, in turn ──▶ report, exit code
//!        ▲ corpus ──────────────────────────────────────▲      │ new finds ──▶ target/fuzz/found (--keep: the best to corpus)
//!                                                               └ a crash ───▶ target/fuzz/crashes
//! ```
//! Built by the workspace's own toolchain: coverage is a pass of rustc's LLVM, and only a sanitizer would need a
//! nightly. None is used, since the decoders have no unsafe code; the fuzzer looks for a panic, an overflow, a broken
//! property (capturer/src/fuzz.rs), or too much time or memory. Not here: the replay of the corpus, which is a test
//! (tests/decoders.rs).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::debian::run;
use crate::{paths, tools};

/// The same as cargo-fuzz sets.
const FLAGS: [&str; 7] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];
/// Longer inputs find nothing more, and are slower. Entries make long lines from a few bytes themselves.
const INPUT_BYTES_MAX: u32 = 4096;
/// An input that takes this long is reported as a crash.
const INPUT_SECONDS_MAX: u32 = 10;

/// What to run.
#[derive(clap::Args)]
pub struct FuzzArgs {
    /// Only these targets, as tests/fuzz/fuzz_targets names them. None: all.
    pub targets: Vec<String>,
    /// How long each target is run.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    pub seconds: u32,
    /// Put those new finds into the corpus that reach what no file of it reaches.
    #[arg(long)]
    pub keep: bool,
}

/// The result of one target's run.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    runs: u64,
    runs_per_second: u64,
    new_units: u64,
}

/// Builds all targets, runs the chosen ones; fails if one crashes.
pub fn fuzz(arguments: &FuzzArgs) -> Result<()> {
    let targets = choose(&arguments.targets, all_targets()?)?;
    tools::install_cpp()?;
    let programs = build()?;
    let mut crashed = Vec::new();
    for (index, target) in targets.iter().enumerate() {
        println!("fuzz {target} ({} of {}), {} s", index + 1, targets.len(), arguments.seconds);
        match fuzz_one(&programs, target, arguments.seconds)? {
            Ok(report) => println!(
                "  no crash in {} runs, {} a second; {} new finds",
                report.runs, report.runs_per_second, report.new_units
            ),
            Err(what) => {
                println!("{what}");
                crashed.push(target.as_str());
            }
        }
        if arguments.keep {
            keep(&programs, target)?;
        }
    }
    ensure!(
        crashed.is_empty(),
        "{} crashed; the files and how to run them again are above",
        crashed.join(", ")
    );
    Ok(())
}

fn all_targets() -> Result<Vec<String>> {
    let folder = source().join("fuzz_targets");
    let entries = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut targets = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        targets.extend(name.strip_suffix(".rs").map(str::to_owned));
    }
    targets.sort();
    Ok(targets)
}

fn choose(named: &[String], all: Vec<String>) -> Result<Vec<String>> {
    if let Some(odd) = named.iter().find(|name| !all.contains(name)) {
        bail!("there is no fuzz target {odd:?}; the targets are {}", all.join(", "));
    }
    Ok(if named.is_empty() { all } else { named.to_vec() })
}

fn source() -> PathBuf {
    paths::workspace().join("tests/fuzz")
}

fn output() -> PathBuf {
    paths::target().join("fuzz")
}

/// Builds every target; returns the folder of the programs.
fn build() -> Result<PathBuf> {
    println!("building the fuzz targets; the first time that takes some minutes");
    let version = run(Command::new("rustc").arg("-vV").current_dir(paths::workspace()))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    // With a target named, the flags only apply to it: build scripts must not be instrumented.
    run(tools::cargo()
        .args(["build", "--quiet", "--release", "--bins", "--target", host, "--target-dir"])
        .arg(output())
        .current_dir(source())
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}")))
    .context("building the fuzz targets")?;
    Ok(output().join(host).join("release"))
}

/// Runs a target. The inner error describes a crash.
fn fuzz_one(programs: &Path, target: &str, seconds: u32) -> Result<Result<Report, String>> {
    let (found, crashes) = (output().join("found").join(target), output().join("crashes").join(target));
    for folder in [&found, &crashes] {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let ran = Command::new(programs.join(target))
        .arg(&found)
        .arg(corpus(target))
        .arg(format!("-artifact_prefix={}/", crashes.display()))
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={INPUT_BYTES_MAX}"))
        .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
        .arg("-print_final_stats=1")
        .env("RUST_BACKTRACE", "0")
        .output()
        .with_context(|| format!("running the fuzz target {target}"))?;
    let said = String::from_utf8_lossy(&ran.stderr);
    if ran.status.success() {
        return Ok(Ok(report(&said)));
    }
    Ok(Err(crash(&said, target, &programs.join(target))))
}

fn corpus(target: &str) -> PathBuf {
    source().join("corpus").join(target)
}

/// Reads libFuzzer's final statistics: `stat::average_exec_per_sec: 4711`.
fn report(said: &str) -> Report {
    let stat = |name: &str| {
        let lines = said.lines().filter_map(|line| line.strip_prefix("stat::")?.strip_prefix(name));
        lines.filter_map(|rest| rest.strip_prefix(':')?.trim().parse().ok()).next_back().unwrap_or(0)
    };
    Report {
        runs: stat("number_of_executed_units"),
        runs_per_second: stat("average_exec_per_sec"),
        new_units: stat("new_units_added"),
    }
}

/// What a person needs to know about a crash: the message, the file, and the two ways to continue.
fn crash(said: &str, target: &str, program: &Path) -> String {
    const LINES_MAX: usize = 12;
    let from =
        said.lines().position(|line| line.contains("panicked at") || line.contains("ERROR: libFuzzer"));
    let lines: Vec<&str> = said.lines().skip(from.unwrap_or(0)).take(LINES_MAX).collect();
    let mut text = format!("  CRASH of {target}:\n    {}", lines.join("\n    "));
    match said.lines().find_map(|line| line.split_once("Test unit written to ")) {
        Some((_, file)) => text.push_str(&format!(
            "\n  the input: {file}\n  again:     {} {file}\n  and once mended, copy it to tests/fuzz/corpus/{target}/",
            program.display()
        )),
        None => text.push_str("\n  libFuzzer wrote no input down"),
    }
    text
}

/// Copies inputs to the corpus that reach code which it does not.
fn keep(programs: &Path, target: &str) -> Result<()> {
    let before = fs::read_dir(corpus(target)).map_or(0, Iterator::count);
    run(Command::new(programs.join(target))
        .arg("-merge=1")
        .arg(corpus(target))
        .arg(output().join("found").join(target)))
    .with_context(|| format!("merging the finds of {target}"))?;
    let after = fs::read_dir(corpus(target)).map_or(0, Iterator::count);
    println!("  {} of the finds went into the corpus", after.saturating_sub(before));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_chosen_by_name() {
        let names = |names: &[&str]| -> Vec<String> { names.iter().map(|&name| name.to_owned()).collect() };
        let all = names(&["line", "tty"]);
        assert_eq!(choose(&[], all.clone()).unwrap(), all);
        assert_eq!(choose(&names(&["tty"]), all.clone()).unwrap(), ["tty"]);
        let error = choose(&names(&["ttx"]), all).unwrap_err().to_string();
        assert_eq!(error, "there is no fuzz target \"ttx\"; the targets are line, tty");
        assert!(all_targets().unwrap().contains(&"json_line".to_owned()));
    }

    #[test]
    fn statistics_are_read() {
        let said = "#2 INITED\nstat::number_of_executed_units: 1234\nstat::average_exec_per_sec:     56\n\
                    stat::new_units_added:          7\nstat::peak_rss_mb: 40\n";
        assert_eq!(report(said), Report { runs: 1234, runs_per_second: 56, new_units: 7 });
    }

    /// A crash must be reproducible without looking anything up.
    #[test]
    fn a_crash_names_its_input_and_how_to_run_it() {
        let said = "INFO: x\nthread '<unnamed>' panicked at a.rs:1:2:\nboom\n\
                    artifact_prefix='/t/'; Test unit written to /t/crash-1\n";
        let text = crash(said, "line", Path::new("/p/line"));
        assert!(text.contains("boom") && text.contains("/p/line /t/crash-1"), "{text}");
        assert!(!text.contains("INFO"), "{text}");
    }
}
