//! `cargo xtask sim`, `soak`, `docs` and `screens`: programs of package capturer-tests, taken from the one build of the
//! tests and run with the chore's own arguments, which they explain themselves (`--help`).
//!
//! They are programs of that package, not chores, because they use parts of the agent: an xtask that depended on the
//! agent would have to build it before the smallest chore.

use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::debian::run as output_of;
use crate::test::stream::check;
use crate::{ci_build, engines, paths, release, tools};

/// Runs seeds of the simulation; returns whether all passed.
pub fn sim(arguments: &[OsString]) -> Result<bool> {
    run(sim_program()?.args(arguments))
}

/// Runs this many seeds that no other commit has run, and every seed that ever failed. A failure is an error.
pub fn sim_of_this_tree(count: u64) -> Result<()> {
    let first = first_seed()?;
    println!("seeds {first} and on: from the hash of the tree, so that each commit tries others");
    let seeds = format!("{first}..{}", first + count);
    let failed_once = paths::workspace().join("tests/seeds-that-failed.txt");
    check(sim_program()?.args(["--seeds", &seeds]).arg("--also").arg(failed_once))
}

/// The first 32 bits of the committed tree's hash: the same tree tries the same seeds.
fn first_seed() -> Result<u64> {
    let hash =
        output_of(Command::new("git").args(["rev-parse", "HEAD^{tree}"]).current_dir(paths::workspace()))
            .context("asking git for the tree's hash, from which the seeds come")?;
    let digits = hash.get(..8).with_context(|| format!("git answered {hash:?} in place of a hash"))?;
    u64::from_str_radix(digits, 16).with_context(|| format!("{digits:?} is no part of a hash"))
}

/// Runs real containers for a long time; returns whether nothing grew and nothing was lost.
pub fn soak(arguments: &[OsString]) -> Result<bool> {
    if !arguments.iter().any(|word| word == "--help") {
        engines::unpack_all()?;
        release::build()?;
    }
    run(soak_program()?.arg("--reports").arg(paths::workspace().join("docs/soak")).args(arguments))
}

/// The same for this many minutes; growth or a loss is an error. The report stays in the target folder.
pub fn soak_for(minutes: u32) -> Result<()> {
    let reports = paths::target().join("soak");
    check(soak_program()?.arg("--reports").arg(reports).args(["--minutes", &minutes.to_string()]))
}

/// Writes the files made from the catalog of metrics, or only compares them; returns whether they are right.
pub fn reference(check: bool) -> Result<bool> {
    run(program("reference")?.args(check.then_some("--check")))
}

/// Takes pictures of the status page and of `capturer top`, with agents of the tests' build.
pub fn screens(arguments: &[OsString]) -> Result<bool> {
    if !arguments.iter().any(|word| word == "--help") {
        tools::install_browser()?;
    }
    let mut command = program("screens")?;
    command.env("CAPTURER_BIN", ci_build::bin("capturer")?);
    command.env("CAPTURER_FAULTY_BIN", ci_build::bin("capturer-with-faults")?);
    run(command.args(arguments))
}

fn sim_program() -> Result<Command> {
    let mut command = program("sim")?;
    command.arg("--logs").arg(paths::target().join("sim"));
    Ok(command)
}

fn soak_program() -> Result<Command> {
    let mut command = program("soak")?;
    command.env("CAPTURER_BIN", release::program()).env("CAPTURER_ENGINES_DIR", paths::engines());
    Ok(command)
}

fn program(name: &str) -> Result<Command> {
    let mut command = Command::new(ci_build::bin(name)?);
    command.current_dir(paths::workspace());
    Ok(command)
}

/// Its output goes straight to the terminal, so that it can draw there.
fn run(command: &mut Command) -> Result<bool> {
    let status = command.status().with_context(|| format!("starting {}", command.get_program().display()))?;
    Ok(status.success())
}
