//! The parts of `cargo xtask test`, in the order they run: what tells most for the least time comes first.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::stream::{check, tests};
use super::{Outcome, Part, Tally};
use crate::debian::run;
use crate::{build_ebpf, clean, engines, fuzz, paths, programs, tidy, tools, vm};

/// All of them.
pub const PARTS: &[Part] = &[
    Part {
        name: "tools",
        what: "what building and testing need is on the machine, or is installed",
        needs: &[],
        run: || tools::install().map(|()| Outcome::Passed),
    },
    Part {
        name: "fmt",
        what: "cargo fmt --all --check",
        needs: &["tools"],
        run: || passes(&["fmt", "--all", "--check"]),
    },
    Part {
        name: "tidy",
        what: "the repository's own rules (cargo xtask tidy)",
        needs: &[],
        run: || tidy::check_tree().map(|()| Outcome::Passed),
    },
    Part {
        name: "clippy",
        what: "cargo clippy on everything, warnings refused",
        needs: &["tools"],
        run: clippy,
    },
    Part { name: "doc", what: "cargo doc, warnings refused", needs: &["tools"], run: doc },
    Part {
        name: "unit",
        what: "cargo test --workspace: every test that needs no Docker Engine",
        needs: &["tools"],
        run: unit,
    },
    Part {
        name: "ebpf",
        what: "the committed kernel programs are what their sources give (cargo xtask build-ebpf --check)",
        needs: &["tools"],
        run: ebpf,
    },
    Part {
        name: "simulation",
        what: "ten thousand seeds of the simulation (cargo xtask sim)",
        needs: &["tools"],
        run: || programs::sim_seeds("0..10000").map(|()| Outcome::Passed),
    },
    Part {
        name: "fuzz",
        what: "every decoder fuzzed for 5 s (cargo xtask fuzz)",
        needs: &["unit"],
        run: fuzzing,
    },
    Part {
        name: "agent",
        what: "cargo build --release -p capturer: the program that the next parts run",
        needs: &["tools"],
        run: || passes(&["build", "--release", "--package", "capturer"]),
    },
    Part {
        name: "faulty-agent",
        what: "the agent with faults that tests/witness.rs turns on, a program of its own",
        needs: &["tools"],
        run: || {
            let faulty = ["--features", "test-faults", "--bin", "capturer-with-faults"];
            passes(&[&["build", "--package", "capturer"], &faulty[..]].concat())
        },
    },
    Part {
        name: "engines",
        what: "unpacks the Docker Engines (cargo xtask engines)",
        needs: &["tools"],
        run: || engines::unpack_all().map(|()| Outcome::Passed),
    },
    Part {
        name: "engine-tests",
        what: "tests against private Docker Engines",
        needs: &["agent", "faulty-agent", "engines"],
        run: || engine_tests(|target| target != QUICKSTART),
    },
    Part {
        name: "quickstart",
        what: "the README's first run, as a user types it (tests/quickstart.rs)",
        needs: &["agent", "engines"],
        run: || engine_tests(|target| target == QUICKSTART),
    },
    Part {
        name: "vm",
        what: "witness, ring and files inside Linux 5.10, 6.1 and 6.12 (cargo xtask vm)",
        needs: &["tools"],
        run: vm,
    },
    Part {
        name: "clean",
        what: "nothing of a test is left on the machine",
        needs: &[],
        run: || clean::after().map(|()| Outcome::Passed),
    },
];

/// The test target of the part with the same name.
const QUICKSTART: &str = "quickstart";
/// The feature of package capturer-tests without which its tests against Engines do not exist.
const FEATURE: &str = "engines";

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(tools::cargo());
    command.args(arguments).current_dir(paths::workspace());
    command
}

fn passes(arguments: &[&str]) -> Result<Outcome> {
    check(&mut cargo(arguments)).map(|()| Outcome::Passed)
}

fn clippy() -> Result<Outcome> {
    passes(&["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"])
}

fn doc() -> Result<Outcome> {
    check(cargo(&["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
        .map(|()| Outcome::Passed)
}

fn unit() -> Result<Outcome> {
    tests(&mut cargo(&["test", "--workspace", "--no-fail-fast"])).map(Outcome::Tests)
}

/// Without a C++ compiler there is no libFuzzer; the corpus ran as unit tests all the same.
fn fuzzing() -> Result<Outcome> {
    if let Err(error) = tools::install_cpp() {
        return Ok(Outcome::Skipped(format!("no C++ compiler: {error:#}")));
    }
    fuzz::short().map(|()| Outcome::Passed)
}

fn ebpf() -> Result<Outcome> {
    if run(Command::new("rustup").arg("--version")).is_err() {
        return Ok(Outcome::Skipped("no rustup, which brings the pinned compiler".to_owned()));
    }
    build_ebpf::build(true).map(|()| Outcome::Passed)
}

fn vm() -> Result<Outcome> {
    if let Some(reason) = vm::missing() {
        return Ok(Outcome::Skipped(reason));
    }
    let vm::Outcome { passed, failed } = vm::run_in(&[])?;
    Ok(Outcome::Tests(Tally { passed, failed: failed.len() as u64, skipped: 0, failures: failed }))
}

/// The tests of capturer-tests that need Engines and are `wanted`. In the dev profile: what is measured is the agent,
/// which is a release build and a process of its own, and linking each test with LTO would take longer than running it.
fn engine_tests(wanted: impl Fn(&str) -> bool) -> Result<Outcome> {
    let targets: Vec<String> = engine_test_targets()?.into_iter().filter(|target| wanted(target)).collect();
    if targets.is_empty() {
        return Ok(Outcome::Skipped(format!(
            "tests/Cargo.toml has no such [[test]] with feature {FEATURE:?}"
        )));
    }
    if !tools::is_root() {
        return Ok(Outcome::Skipped("only root may start dockerd: run cargo xtask test as root".to_owned()));
    }
    let mut command =
        cargo(&["test", "--package", "capturer-tests", "--features", FEATURE, "--no-fail-fast"]);
    for target in &targets {
        command.args(["--test", target]);
    }
    command.env("CAPTURER_BIN", agent_program()).env("CAPTURER_ENGINES_DIR", paths::engines());
    command.env("CAPTURER_PYTHON", paths::python());
    command.env("CAPTURER_FAULTY_BIN", paths::target().join("debug/capturer-with-faults"));
    tests(&mut command).map(Outcome::Tests)
}

/// The release build of the agent.
fn agent_program() -> PathBuf {
    paths::target().join("release/capturer")
}

/// Every `[[test]]` of tests/Cargo.toml with `required-features = ["engines"]`: the others ran as unit tests.
fn engine_test_targets() -> Result<Vec<String>> {
    let text = run(&mut cargo(&["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&text).context("parsing cargo metadata")?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let package = packages
        .iter()
        .find(|package| package["name"] == "capturer-tests")
        .context("no package capturer-tests")?;
    let targets = package["targets"].as_array().context("capturer-tests has no targets")?;
    let needs_engines = |target: &&Value| {
        target["required-features"].as_array().is_some_and(|features| features.iter().any(|f| f == FEATURE))
    };
    let names = targets.iter().filter(needs_engines).filter_map(|target| target["name"].as_str());
    Ok(names.map(str::to_owned).collect())
}
