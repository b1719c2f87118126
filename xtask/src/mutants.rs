//! `cargo xtask mutants`: would the tests notice? Plants known bugs, one at a time, into a copy of the tree, and runs
//! the tests that should catch them.
//!
//! ```text
//! tests/mutants/NAME.patch: "Bug: …", one or more "Caught by: …", then a diff
//!   tree ─copy─▶ target/mutants/tree ─git apply─▶ each run ─▶ the tests or invariants that failed
//! ```
//! It fails if a run named in a patch passes with that bug, if a patch no longer applies, or if the copy fails without
//! any bug, as then a failure would prove nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::debian::run as run_to_end;
use crate::{paths, tidy, tools};

/// Seeds tried with each bug; few, since they run in a build without optimization, which takes the least time to make.
const SEEDS: &str = "0..60";

/// A way to catch a bug, as patches name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Run {
    /// `unit PATH`: the agent's unit tests whose path begins so.
    Unit(String),
    /// `simulation`.
    Simulation,
}

impl Run {
    fn parse(text: &str) -> Option<Run> {
        match text.split_once(' ') {
            Some(("unit", path)) => Some(Run::Unit(path.to_owned())),
            None if text == "simulation" => Some(Run::Simulation),
            _ => None,
        }
    }

    fn name(&self) -> String {
        match self {
            Run::Unit(path) => format!("unit tests of {path}"),
            Run::Simulation => "simulation".to_owned(),
        }
    }

    fn arguments(&self) -> Vec<&str> {
        match self {
            Run::Unit(path) => vec!["test", "--package", "capturer", "--lib", path],
            Run::Simulation => {
                let sim = ["run", "--package", "capturer-tests", "--bin", "sim", "--"];
                [&sim[..], &["--failures", "3", "--seeds", SEEDS]].concat()
            }
        }
    }
}

/// A planted bug.
#[derive(Debug)]
struct Mutant {
    name: String,
    bug: String,
    caught_by: Vec<Run>,
    patch: PathBuf,
}

/// Plants the named bugs, or all; returns whether each was caught by the runs that its patch names.
pub fn run(named: &[String]) -> Result<bool> {
    let mutants = mutants()?;
    for name in named {
        ensure!(mutants.iter().any(|mutant| mutant.name == *name), "there is no tests/mutants/{name}.patch");
    }
    let tree = paths::target().join("mutants/tree");
    sync(&tree)?;
    println!("without a bug");
    let chosen: Vec<&Mutant> =
        mutants.iter().filter(|mutant| named.is_empty() || named.contains(&mutant.name)).collect();
    let runs: BTreeSet<&Run> = chosen.iter().flat_map(|mutant| &mutant.caught_by).collect();
    for run in runs {
        let caught = catch(&tree, run)?;
        ensure!(caught.is_empty(), "the {} fail without any bug: {}", run.name(), joined(&caught));
    }
    let mut escaped = 0;
    let mut table = String::new();
    for mutant in chosen {
        println!("{}: {}", mutant.name, mutant.bug);
        sync(&tree)?;
        apply(&tree, &mutant.patch, &[])?;
        for run in &mutant.caught_by {
            let caught = catch(&tree, run)?;
            let verdict = match caught.is_empty() {
                false => format!("caught by the {}: {}", run.name(), joined(&caught)),
                true => format!("NOT CAUGHT by the {}", run.name()),
            };
            escaped += usize::from(caught.is_empty());
            println!("  {verdict}");
            table += &format!("{}: {verdict}\n", mutant.name);
        }
    }
    sync(&tree)?;
    println!("\n{table}{escaped} runs let a bug pass that they should catch");
    Ok(escaped == 0)
}

/// The code that cargo-mutants changes: it decides what is delivered.
const SAMPLED: [&str; 3] =
    ["capturer/src/decode/**", "capturer/src/capture/checkpoint/**", "capturer/src/capture/stream/**"];
/// cargo-mutants, built if it is not on the path.
const TOOL: &str = "cargo-mutants";

/// Lets cargo-mutants change one in `shards` places of [`SAMPLED`] and lists the changes that no unit test notices. The
/// tree's hash selects the places. Survivors are no failure: each is a place to look at.
pub fn sample(shards: u32) -> Result<()> {
    let tool = tool()?;
    let hash =
        run_to_end(Command::new("git").args(["rev-parse", "HEAD^{tree}"]).current_dir(paths::workspace()))?;
    let hash = u32::from_str_radix(hash.get(..7).context("a tree's hash")?, 16).context("a tree's hash")?;
    let shard = format!("{}/{shards}", hash % shards);
    let output = paths::target().join("mutants");
    fs::create_dir_all(&output).with_context(|| format!("making {}", output.display()))?;
    println!("shard {shard} of the changes to {}", SAMPLED.join(", "));
    let mut command = Command::new(tool);
    command.args([
        "mutants",
        "--package",
        "capturer",
        "--shard",
        &shard,
        "--no-shuffle",
        "--colors",
        "never",
    ]);
    for files in SAMPLED {
        command.args(["--file", files]);
    }
    command.arg("--output").arg(&output).args(["--", "--lib"]).current_dir(paths::workspace());
    let status = command.status().context("starting cargo-mutants")?;
    // 2 = some survived, 3 = some exceeded its time limit; anything else is no result.
    ensure!(matches!(status.code(), Some(0 | 2 | 3)), "cargo-mutants ended with {status}");
    for (word, file) in [("caught", "caught.txt"), ("TIMED OUT", "timeout.txt"), ("SURVIVED", "missed.txt")] {
        let path = output.join("mutants.out").join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        println!("{word}: {}", text.lines().count());
        if word != "caught" {
            text.lines().for_each(|line| println!("  {line}"));
        }
    }
    Ok(())
}

fn tool() -> Result<PathBuf> {
    let own = paths::target().join("tools/bin").join(TOOL);
    for candidate in [PathBuf::from(TOOL), own.clone()] {
        if run_to_end(Command::new(&candidate).args(["mutants", "--version"])).is_ok() {
            return Ok(candidate);
        }
    }
    println!("building {TOOL}; that takes some minutes, once");
    run_to_end(
        tools::cargo()
            .args(["install", TOOL, "--locked", "--root"])
            .arg(paths::target().join("tools"))
            .current_dir(std::env::temp_dir()),
    )?;
    Ok(own)
}

/// The names of what failed; empty = the run passed.
fn catch(tree: &Path, run: &Run) -> Result<BTreeSet<String>> {
    let mut command = tools::cargo();
    command.args(run.arguments()).current_dir(tree).stdin(Stdio::null());
    // A folder of its own: the copies of the packages must not replace the originals.
    command.env("CARGO_TARGET_DIR", paths::target().join("mutants/target"));
    let output = command.output().context("starting cargo")?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    if text.contains("could not compile") {
        bail!("the tree does not compile:\n{text}");
    }
    let names = failures(&text);
    ensure!(
        output.status.success() == names.is_empty(),
        "{} ended with {}:\n{text}",
        run.name(),
        output.status
    );
    Ok(names)
}

/// Names of failed tests and broken invariants in the output of a run.
fn failures(text: &str) -> BTreeSet<String> {
    let test = |line: &str| {
        line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")).map(str::to_owned)
    };
    let invariant = |line: &str| {
        let name = line.split("invariant broken: ").nth(1)?.split(':').next()?;
        Some(name.to_owned())
    };
    // In the simulation a bug may also break an assertion of the agent itself.
    let panic = |line: &str| {
        let place = line.trim_start().strip_prefix("panicked at capturer/src/")?;
        Some(format!("an assertion in {}", place.split(':').next()?))
    };
    text.lines().filter_map(|line| test(line).or_else(|| invariant(line)).or_else(|| panic(line))).collect()
}

fn joined(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// All patches, by name.
fn mutants() -> Result<Vec<Mutant>> {
    let dir = paths::workspace().join("tests/mutants");
    let mut mutants = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))? {
        let patch = entry?.path();
        let name = patch.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&patch).with_context(|| format!("reading {}", patch.display()))?;
        let values = |key: &str| -> Vec<String> {
            let head = text.lines().take_while(|line| !line.starts_with("diff "));
            head.filter_map(|line| line.strip_prefix(key)).map(|value| value.trim().to_owned()).collect()
        };
        let runs: Option<Vec<Run>> = values("Caught by:").iter().map(|text| Run::parse(text)).collect();
        let (bug, caught_by) = (values("Bug:").concat(), runs.unwrap_or_default());
        ensure!(
            !bug.is_empty() && !caught_by.is_empty(),
            "{} must begin with `Bug: …` and lines of `Caught by: simulation` or `Caught by: unit PATH`",
            patch.display(),
        );
        mutants.push(Mutant { name, bug, caught_by, patch });
    }
    mutants.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(mutants)
}

/// Makes `tree` a copy of the repository. Only files that differ are written, so that cargo builds only what they
/// change.
fn sync(tree: &Path) -> Result<()> {
    let top = paths::workspace();
    let files: BTreeSet<PathBuf> = tidy::list_files(&top)?.into_iter().map(PathBuf::from).collect();
    remove_others(tree, Path::new(""), &files)?;
    for path in &files {
        let to = tree.join(path);
        let Ok(bytes) = fs::read(top.join(path)) else { continue };
        if fs::read(&to).is_ok_and(|there| there == bytes) {
            continue;
        }
        fs::create_dir_all(to.parent().context("a file without a folder")?)?;
        fs::write(&to, bytes).with_context(|| format!("writing {}", to.display()))?;
    }
    Ok(())
}

/// Removes files of an earlier copy that the repository no longer has.
fn remove_others(tree: &Path, under: &Path, files: &BTreeSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(tree.join(under)).into_iter().flatten() {
        let entry = entry?;
        let path = under.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            remove_others(tree, &path, files)?;
        } else if !files.contains(&path) {
            fs::remove_file(entry.path()).with_context(|| format!("removing {}", entry.path().display()))?;
        }
    }
    Ok(())
}

fn apply(tree: &Path, patch: &Path, more: &[&str]) -> Result<()> {
    // Outside of a repository git applies a patch to the files beneath the current folder; inside, it would
    // ignore what is not tracked.
    let mut command = Command::new("git");
    command.args(["apply", "--whitespace=nowarn"]).args(more).arg(patch).current_dir(tree);
    command.env("GIT_DIR", tree.join("no-repository"));
    let output = command.output().context("starting git")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{} does not apply any more ({}): make its bug anew in the code as it is now",
        patch.display(),
        said.trim()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A module that became a folder would exist twice, and nothing would compile.
    #[test]
    fn what_the_repository_has_no_more_goes_from_the_copy() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("src")).unwrap();
        for file in ["src/kept.rs", "src/gone.rs", "gone.md"] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        remove_others(dir.path(), Path::new(""), &[PathBuf::from("src/kept.rs")].into()).unwrap();
        let left = |file: &str| dir.path().join(file).exists();
        assert!(left("src/kept.rs") && !left("src/gone.rs") && !left("gone.md"));
    }

    /// The chore takes minutes; every test run at least checks that its patches still fit the code.
    #[test]
    fn every_patch_applies() {
        let mutants = mutants().unwrap();
        assert!(mutants.len() >= 5);
        for mutant in mutants {
            apply(&paths::workspace(), &mutant.patch, &["--check"]).unwrap();
        }
    }

    #[test]
    fn failures_are_named() {
        let text = "test a::b ... FAILED\ntest c ... ok\n  invariant broken: nothing_is_lost: line 7\n\
                    seed 3 FAILED, its log: x\n  panicked at capturer/src/checkpoint/tracker.rs:157:13:\n";
        let expected = ["a::b", "an assertion in checkpoint/tracker.rs", "nothing_is_lost"];
        assert_eq!(failures(text), expected.map(str::to_owned).into());
    }
}
