//! `cargo xtask sim` and `cargo xtask soak`: builds a program of package capturer-tests and runs it with the chore's own
//! arguments, which it explains itself (`--help`).
//!
//! They are programs of that package, not chores, because they are made of the agent's parts: an xtask that depended on
//! the agent would have to be built with it before the least chore.

use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::test::stream::check;
use crate::{engines, paths, tools};

/// Optimized, with overflow checks and debug assertions: ten times as fast as `dev`, and built in a third of the time
/// of `release`.
const CHECKED: &str = "vm";

/// Runs seeds of the simulation; whether all passed.
pub fn sim(arguments: &[OsString]) -> Result<bool> {
    let logs = paths::target().join("sim");
    run(program("sim", CHECKED).arg("--logs").arg(logs).args(arguments))
}

/// [`sim`] as `cargo xtask test` runs it: a failure is an error.
pub fn sim_seeds(seeds: &str) -> Result<()> {
    check(program("sim", CHECKED).arg("--logs").arg(paths::target().join("sim")).args(["--seeds", seeds]))
}

/// Runs real containers for long; whether nothing grew and nothing was lost.
pub fn soak(arguments: &[OsString]) -> Result<bool> {
    if !arguments.iter().any(|word| word == "--help") {
        engines::unpack_all()?;
        check(cargo().args(["build", "--release", "--package", "capturer"]))?;
    }
    let agent = paths::target().join("release/capturer");
    let mut command = program("soak", CHECKED);
    command.env("CAPTURER_BIN", agent).env("CAPTURER_ENGINES_DIR", paths::engines());
    run(command.arg("--reports").arg(paths::workspace().join("docs/soak")).args(arguments))
}

fn cargo() -> Command {
    let mut command = Command::new(tools::cargo());
    command.current_dir(paths::workspace());
    command
}

fn program(name: &str, profile: &str) -> Command {
    let mut command = cargo();
    command.args([
        "run",
        "--quiet",
        "--profile",
        profile,
        "--package",
        "capturer-tests",
        "--bin",
        name,
        "--",
    ]);
    command
}

/// Its output goes straight to the terminal, so that it can draw there.
fn run(command: &mut Command) -> Result<bool> {
    let status = command.status().with_context(|| format!("starting {}", tools::cargo()))?;
    Ok(status.success())
}
