//! The one build of everything but the release agent: unit tests, simulation, tests against Engines, and the programs
//! that run inside the emulated machines.
//!
//! ```text
//! cargo test --no-run, cargo build --bins: all packages and features, profile `ci`, static ─▶ a Program for each executable
//! ```
//! Every part calls cargo with the same options, so the dependencies are compiled once. Our own crates are compiled by
//! clippy's compiler (compiler.rs), so the build is also the lint.
//!
//! Static, because the programs also run in machines that have no C library.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::test::stream::shown;
use crate::{compiler, paths, tools};

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

/// cargo with the options of a part that shares the build's dependencies. `clippy` and `doc` bring their own compiler.
pub fn cargo(subcommand: &str) -> Command {
    let mut command = tools::cargo();
    command.arg(subcommand).args(["--workspace", "--all-features", "--profile", PROFILE]);
    command.args(["--target", &target()]);
    // With a target named, these do not apply to build scripts, which can't be static.
    command.env("RUSTFLAGS", "-C target-feature=+crt-static").current_dir(paths::workspace());
    command
}

static BUILT: OnceLock<Built> = OnceLock::new();

/// What cargo said of the build.
#[derive(Default)]
struct Built {
    programs: Vec<Program>,
    /// Each as the compiler shows it. A crate that is compiled twice gives them twice.
    warnings: BTreeSet<String>,
}

/// Builds all test programs, once per process, and returns them.
pub fn programs() -> Result<&'static [Program]> {
    if let Some(built) = BUILT.get() {
        return Ok(&built.programs);
    }
    let built = build()?;
    Ok(&BUILT.get_or_init(|| built).programs)
}

/// The warnings of the build, clippy's among them; `None` if this process has not built everything.
pub fn warnings() -> Option<Vec<&'static str>> {
    BUILT.get().map(|built| built.warnings.iter().map(String::as_str).collect())
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
        let program = built.programs.iter().find(|program| program.name == name && !program.is_test);
        return Ok(program.with_context(|| format!("the build made no program {name:?}"))?.path.clone());
    }
    let mut built = Built::default();
    built.add(cargo("build").args(["--bin", name]))?;
    let program = built.programs.into_iter().find(|program| program.name == name && !program.is_test);
    Ok(program.with_context(|| format!("the build made no program {name:?}"))?.path)
}

/// In three steps, for `cargo test` builds a package's programs only if the package has tests in files of their own,
/// and the libraries' unit tests are built without optimization: they run for seconds, while optimizing the agent once
/// more, with its tests, takes minutes.
fn build() -> Result<Built> {
    let mut built = Built::default();
    built.add(cargo("test").args(["--no-run", "--test", "*", "--bin", "xtask"]))?;
    let mut unit_tests = cargo("test");
    unit_tests.args(["--no-run", "--lib"]);
    for package in ["capturer", "capturer-tests"] {
        unit_tests.args(["--config", &format!("profile.{PROFILE}.package.{package}.opt-level=0")]);
    }
    built.add(&mut unit_tests)?;
    let mut bins = Built::default();
    bins.add(cargo("build").arg("--bins"))?;
    built.warnings.extend(bins.warnings);
    built.programs.extend(bins.programs.into_iter().filter(|program| !program.is_test));
    println!("{} programs", built.programs.len());
    Ok(built)
}

impl Built {
    fn add(&mut self, command: &mut Command) -> Result<()> {
        compiler::lint(command)?;
        println!("$ {}", shown(command));
        command.arg("--message-format=json").stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = command.output().context("starting cargo")?;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let Ok(message) = serde_json::from_str(line) else { continue };
            self.programs.extend(executable(&message));
            self.warnings.extend(diagnostic(&message));
        }
        if !output.status.success() {
            self.warnings.iter().for_each(|text| println!("{text}"));
            bail!("the tests do not build; what the compiler said is above");
        }
        Ok(())
    }
}

/// One of cargo's messages, if it is about an executable.
fn executable(message: &Value) -> Option<Program> {
    let path = PathBuf::from(message["executable"].as_str()?);
    Some(Program {
        package: Path::new(message["manifest_path"].as_str()?).parent()?.to_path_buf(),
        name: message["target"]["name"].as_str()?.to_owned(),
        kind: message["target"]["kind"][0].as_str()?.to_owned(),
        is_test: message["profile"]["test"].as_bool()?,
        path,
    })
}

/// A warning or an error of the compiler, as it shows it. The sum at the end has no place in the source.
fn diagnostic(message: &Value) -> Option<String> {
    let said = &message["message"];
    let has_place = said["spans"].as_array().is_some_and(|spans| !spans.is_empty());
    let text = said["rendered"].as_str()?;
    (message["reason"] == "compiler-message" && (has_place || said["level"] == "error"))
        .then(|| text.trim_end().to_owned())
}

/// This machine's target triple: naming it keeps the flags away from build scripts.
fn target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A bin is in cargo's messages twice. Taking the wrong one once ran a simulation in place of a test.
    #[test]
    fn a_program_and_its_unit_tests_are_told_apart() {
        let message = |test: bool| {
            json!({"reason": "compiler-artifact", "manifest_path": "/t/tests/Cargo.toml",
                   "target": {"kind": ["bin"], "name": "sim"}, "profile": {"test": test}, "executable": "/t/sim"})
        };
        let program = executable(&message(true)).unwrap();
        assert_eq!((program.package.as_path(), program.name.as_str()), (Path::new("/t/tests"), "sim"));
        assert_eq!((program.kind.as_str(), program.is_test), ("bin", true));
        assert!(!executable(&message(false)).unwrap().is_test);
        let library = json!({"manifest_path": "/t/Cargo.toml", "target": {"kind": ["lib"], "name": "y"}, "executable": null});
        for other in [library, json!({"reason": "build-finished"})] {
            assert_eq!(executable(&other), None, "{other}");
        }
    }

    #[test]
    fn each_warning_counts_and_the_sum_of_them_does_not() {
        let said = |level: &str, spans: Value| {
            json!({"reason": "compiler-message",
                   "message": {"level": level, "rendered": "text\n", "spans": spans}})
        };
        let somewhere = json!([{"file_name": "src/lib.rs"}]);
        assert_eq!(diagnostic(&said("warning", somewhere)).as_deref(), Some("text"));
        assert_eq!(diagnostic(&said("error", json!([]))).as_deref(), Some("text"));
        assert_eq!(diagnostic(&said("warning", json!([]))), None);
        assert_eq!(diagnostic(&json!({"reason": "build-finished"})), None);
    }
}
