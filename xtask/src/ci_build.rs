//! The one build of everything but the release agent: unit tests, simulation, tests against Engines, and the programs
//! that run inside the emulated machines.
//!
//! ```text
//! cargo test --no-run, cargo build --bins: all packages and features, profile `ci`, static ─▶ a Program for each executable
//! ```
//! Every part calls cargo with the same options, so the dependencies are compiled once. clippy and doc use them too:
//! with the same profile and target they share build scripts and procedural macros with the build, and metadata with
//! each other.
//!
//! Static, because the programs also run in machines that have no C library.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::test::stream::shown;
use crate::{paths, tools};

const PROFILE: &str = "ci";

/// An executable of the build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The folder of its package: `capturer`, `tests`, `xtask`. Tests run there, as cargo runs them.
    pub package: PathBuf,
    /// Its target, as Cargo.toml names it.
    pub name: String,
    /// cargo's word for that: `lib`, `bin` or `test`.
    pub kind: String,
    /// Whether libtest is in it. A `bin` is built twice: as itself, and with its unit tests.
    pub is_test: bool,
    /// Its path.
    pub path: PathBuf,
}

/// cargo with the options of a part that shares the build's dependencies.
pub fn cargo(subcommand: &str) -> Command {
    let mut command = tools::cargo();
    command.arg(subcommand).args(["--workspace", "--all-features", "--profile", PROFILE]);
    command.args(["--target", &target()]);
    // With a target named, these do not apply to build scripts, which can't be static.
    command.env("RUSTFLAGS", "-C target-feature=+crt-static").current_dir(paths::workspace());
    command
}

static BUILT: OnceLock<Vec<Program>> = OnceLock::new();

/// Builds all test programs, once per process, and returns them.
pub fn programs() -> Result<&'static [Program]> {
    if let Some(built) = BUILT.get() {
        return Ok(built);
    }
    let built = build()?;
    Ok(BUILT.get_or_init(|| built))
}

/// The program of a target.
pub fn program(package: &str, name: &str, kind: &str, is_test: bool) -> Result<&'static Program> {
    let wanted = |program: &&Program| {
        program.package.ends_with(package)
            && program.name == name
            && program.kind == kind
            && program.is_test == is_test
    };
    programs()?
        .iter()
        .find(wanted)
        .with_context(|| format!("the build made no {kind} {name:?} of package folder {package}"))
}

/// Builds one program that is no test, without building the tests.
pub fn bin(name: &str) -> Result<PathBuf> {
    if let Some(built) = BUILT.get() {
        let program = built.iter().find(|program| program.name == name && !program.is_test);
        return Ok(program.with_context(|| format!("the build made no program {name:?}"))?.path.clone());
    }
    let built = artifacts(cargo("build").args(["--bin", name]))?;
    let program = built.into_iter().find(|program| program.name == name && !program.is_test);
    Ok(program.with_context(|| format!("the build made no program {name:?}"))?.path)
}

/// In three steps, for `cargo test` builds a package's programs only if the package has tests in files of their own,
/// and the libraries' unit tests are built without optimization: they run for seconds, while optimizing the agent once
/// more, with its tests, takes minutes.
fn build() -> Result<Vec<Program>> {
    let mut programs = artifacts(cargo("test").args(["--no-run", "--test", "*", "--bin", "xtask"]))?;
    let mut unit_tests = cargo("test");
    unit_tests.args(["--no-run", "--lib"]);
    for package in ["capturer", "capturer-tests"] {
        unit_tests.args(["--config", &format!("profile.{PROFILE}.package.{package}.opt-level=0")]);
    }
    programs.extend(artifacts(&mut unit_tests)?);
    programs.extend(artifacts(cargo("build").arg("--bins"))?.into_iter().filter(|program| !program.is_test));
    println!("{} programs", programs.len());
    Ok(programs)
}

fn artifacts(command: &mut Command) -> Result<Vec<Program>> {
    println!("$ {}", shown(command));
    command.arg("--message-format=json-render-diagnostics").stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().context("starting cargo")?;
    ensure!(output.status.success(), "the tests do not build; what cargo said is above");
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(parse).collect())
}

/// Parses one of cargo's messages; `None` for one that is not about an executable.
fn parse(message: &str) -> Option<Program> {
    let message: Value = serde_json::from_str(message).ok()?;
    let path = PathBuf::from(message["executable"].as_str()?);
    Some(Program {
        package: Path::new(message["manifest_path"].as_str()?).parent()?.to_path_buf(),
        name: message["target"]["name"].as_str()?.to_owned(),
        kind: message["target"]["kind"][0].as_str()?.to_owned(),
        is_test: message["profile"]["test"].as_bool()?,
        path,
    })
}

/// This machine's target triple: naming it keeps the flags away from build scripts.
fn target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bin is in cargo's messages twice. Taking the wrong one once ran a simulation in place of a test.
    #[test]
    fn a_program_and_its_unit_tests_are_told_apart() {
        let message = |test: bool| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/t/tests/Cargo.toml","target":{{"kind":["bin"],"name":"sim"}},"profile":{{"test":{test}}},"executable":"/t/sim"}}"#
            )
        };
        let program = parse(&message(true)).unwrap();
        assert_eq!((program.package.as_path(), program.name.as_str()), (Path::new("/t/tests"), "sim"));
        assert_eq!((program.kind.as_str(), program.is_test), ("bin", true));
        assert!(!parse(&message(false)).unwrap().is_test);
        let library =
            r#"{"manifest_path":"/t/Cargo.toml","target":{"kind":["lib"],"name":"y"},"executable":null}"#;
        for other in [library, r#"{"reason":"build-finished"}"#, "not JSON"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
