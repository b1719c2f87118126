//! The parts of `cargo xtask test`, in the order in which they run: those that tell most in the least time come first.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::inotify::Raised;
use super::libtest::{self, Ran};
use super::schedule::{self, Schedule};
use super::stream::check;
use super::{Outcome, Pace, Part, SIDE_BY_SIDE, Tally};
use crate::ci_build::{self, Program};
use crate::count::{self, Verdict};
use crate::debian::run;
use crate::{build_ebpf, clean, compiler, engines, paths, programs, release, tidy, tools, vm};

/// All parts except those that take hours.
pub const PARTS: &[Part] = &[
    Part {
        name: "tools",
        what: "what building needs is on the machine, or is installed",
        needs: &[],
        pace: Pace::InTurn,
        run: || tools::install_linker().map(|()| Outcome::Passed),
    },
    Part {
        name: "downloads",
        what: "what the tests run is on the machine, or is installed: programs, Docker Engines, kernels",
        needs: &["tools"],
        pace: Pace::Beside,
        run: || download().map(|()| Outcome::Passed),
    },
    Part {
        name: "fmt",
        what: "cargo fmt --all --check",
        needs: &["tools"],
        pace: Pace::InTurn,
        run: || check(cargo("fmt").args(["--all", "--check"])).map(|()| Outcome::Passed),
    },
    Part {
        name: "tidy",
        what: "the repository's own rules (cargo xtask tidy)",
        needs: &[],
        pace: Pace::InTurn,
        run: || tidy::check_tree().map(|()| Outcome::Passed),
    },
    Part {
        name: "ebpf",
        what: "the committed kernel programs were built from these sources (build-ebpf --check builds them)",
        needs: &[],
        pace: Pace::InTurn,
        run: || build_ebpf::sums_hold().map(|()| Outcome::Passed),
    },
    Part {
        name: "build",
        what: "every test program, once: for unit tests, simulation, Engine tests and emulated machines",
        needs: &["tools"],
        pace: Pace::InTurn,
        run: || ci_build::programs().map(|_| Outcome::Passed),
    },
    Part {
        name: "clippy",
        what: "clippy on everything, warnings refused",
        needs: &["tools"],
        pace: Pace::InTurn,
        run: || lint().map(|()| Outcome::Passed),
    },
    Part {
        name: "doc",
        what: "rustdoc on everything, warnings refused",
        needs: &["tools"],
        pace: Pace::InTurn,
        run: || document().map(|()| Outcome::Passed),
    },
    Part {
        name: "unit",
        what: "every test that needs no Docker Engine",
        needs: &["build", "downloads"],
        pace: Pace::InTurn,
        run: unit,
    },
    Part {
        name: "count",
        what: "the data path takes no more instructions than are committed (cargo xtask count)",
        needs: &["build", "downloads"],
        pace: Pace::InTurn,
        run: count_instructions,
    },
    Part {
        name: "agent",
        what: "the release agent, built in a fresh clone: the program that the next parts run",
        needs: &["tools"],
        pace: Pace::Beside,
        run: || release::build().map(|()| Outcome::Passed),
    },
    Part {
        name: "simulation",
        what: "two thousand seeds of this commit, and each that ever failed (cargo xtask sim)",
        needs: &["build"],
        pace: Pace::InTurn,
        run: || programs::sim_of_this_tree(2_000).map(|()| Outcome::Passed),
    },
    Part {
        name: "vm",
        what: "witness, ring and files inside Linux 5.10 and 6.12 (cargo xtask vm)",
        needs: &["build", "downloads"],
        pace: Pace::Beside,
        run: || vm_tests(&[]),
    },
    Part {
        name: "quickstart",
        what: "the README's first run, as a user types it (tests/quickstart.rs)",
        needs: &["build", "downloads", "agent"],
        pace: Pace::Beside,
        run: || engine_tests(|| 1, &[], |_, target| target == QUICKSTART),
    },
    Part {
        name: "engine-tests",
        what: "tests against private Docker Engines, several programs at a time",
        needs: &["build", "downloads", "agent"],
        pace: Pace::InTurn,
        run: || {
            engine_tests(usual_width, &[], |tests, target| tests.is_usual(target) && !tests.is_timed(target))
        },
    },
    Part {
        name: "timed-tests",
        what: "those that judge times, with nothing beside them but one that mostly waits",
        needs: &["build", "downloads", "agent"],
        pace: Pace::Alone,
        run: || engine_tests(|| 2, &[], |tests, target| tests.is_usual(target) && tests.is_timed(target)),
    },
    Part {
        name: "clean",
        what: "nothing of a test is left on the machine",
        needs: &[],
        pace: Pace::Alone,
        run: || clean::after().map(|()| Outcome::Passed),
    },
];

/// The emulated machines are running.
static MACHINES_RUN: AtomicBool = AtomicBool::new(false);
/// The test target of the part with the same name.
const QUICKSTART: &str = "quickstart";
/// The feature without which the tests against Engines are not compiled, and the folder of their package.
const FEATURE: &str = "engines";
const PACKAGE: &str = "tests";

fn cargo(subcommand: &str) -> Command {
    let mut command = tools::cargo();
    command.arg(subcommand).current_dir(paths::workspace());
    command
}

/// Where the outputs of test programs go.
fn logs() -> PathBuf {
    paths::target().join("test-logs")
}

/// The build has linted what it compiled. Where nothing was built, clippy alone is quicker.
fn lint() -> Result<()> {
    match ci_build::warnings() {
        Some(warnings) if warnings.is_empty() => Ok(()),
        Some(warnings) => {
            warnings.iter().for_each(|warning| println!("{warning}"));
            bail!("warnings of the build, {} in all; they are above", warnings.len())
        }
        None => check(ci_build::cargo("clippy").args(["--all-targets", "--", "-D", "warnings"])),
    }
}

/// Nearly everything is private, and public items may link to private ones.
const RUSTDOC: [&str; 5] =
    ["--document-private-items", "-D", "warnings", "-A", "rustdoc::private_intra_doc_links"];

/// The build has noted how it compiled each crate. Where nothing was built, cargo reads the dependencies for it.
fn document() -> Result<()> {
    if ci_build::warnings().is_some() {
        return compiler::document(&RUSTDOC);
    }
    let mut doc = ci_build::cargo("doc");
    check(doc.arg("--no-deps").env("RUSTDOCFLAGS", RUSTDOC.join(" ")))
}

/// One program after the other: each uses all processors by itself. None is run again: without an Engine their only
/// randomness comes from a printed seed.
fn unit() -> Result<Outcome> {
    let engine_tests = EngineTests::read()?;
    let of_unit =
        |program: &&Program| program.is_test && !(program.kind == "test" && engine_tests.has(&program.name));
    let mut tally = Tally::default();
    for program in ci_build::programs()?.iter().filter(of_unit) {
        let package = program.package.file_name().unwrap_or_default().to_string_lossy();
        let log = logs().join(format!("unit-{package}-{}-{}.log", program.name, program.kind));
        let ran: Ran = libtest::run(program, &[], &[], &log)?;
        if !ran.tests.is_empty() || !ran.failures().is_empty() {
            schedule::show(&ran);
        }
        tally.add(&ran);
    }
    Ok(Outcome::Tests(tally))
}

/// All that tests need and no build makes. The processors have little to do with it, so it runs beside the build.
fn download() -> Result<()> {
    tools::install()?;
    engines::unpack_all()?;
    if vm::missing().is_none() { vm::download(&[]) } else { Ok(()) }
}

/// With another compiler or processor the committed counts mean nothing.
fn count_instructions() -> Result<Outcome> {
    tools::install_callgrind()?;
    let program = &ci_build::program(PACKAGE, "count", "bin", false)?.path;
    Ok(match count::compare_with_committed(program)? {
        Verdict::Holds => Outcome::Passed,
        Verdict::NotCompared(reason) => Outcome::Skipped(reason),
    })
}

/// The emulated machines with these kernels; if none is named, the usual ones.
pub fn vm_tests(kernels: &[&str]) -> Result<Outcome> {
    if let Some(reason) = vm::missing() {
        return Ok(Outcome::Skipped(reason));
    }
    let kernels: Vec<String> = kernels.iter().map(|&kernel| kernel.to_owned()).collect();
    MACHINES_RUN.store(true, Ordering::Relaxed);
    let outcome = vm::run_in(&kernels);
    MACHINES_RUN.store(false, Ordering::Relaxed);
    let vm::Outcome { passed, failed } = outcome?;
    Ok(Outcome::Tests(Tally { passed, failed: failed.len() as u64, failures: failed, ..Tally::default() }))
}

/// The programs that tests/Cargo.toml lists as `long`.
pub fn long_tests() -> Result<Outcome> {
    tools::install_rotators()?;
    engine_tests(usual_width, &[], |tests, target| tests.long.iter().any(|long| long == target))
}

/// Tests that do more on request than every day: how much, and the programs.
const AMOUNTS: [(&str, &str); 3] =
    [("CAPTURER_LINES", "20000"), ("CAPTURER_SHORT_LIVES", "300"), ("CAPTURER_REMOVALS", "200")];
const AMOUNTS_OF: [&str; 3] = ["capture_many", "capture_life", "capture_removal"];

/// These programs, with as much as they can do.
pub fn large_tests() -> Result<Outcome> {
    engine_tests(usual_width, &AMOUNTS, |_, target| AMOUNTS_OF.contains(&target))
}

/// How many programs against Engines run at a time. Each emulated machine takes a whole processor, so there is room for
/// one more once they have ended.
fn usual_width() -> usize {
    SIDE_BY_SIDE.get().copied().unwrap_or(1) + usize::from(!MACHINES_RUN.load(Ordering::Relaxed))
}

/// The tests of capturer-tests that need Engines and are `wanted`, this many programs at a time. They test the release
/// agent, a process of its own.
fn engine_tests(
    width: fn() -> usize,
    amounts: &[(&'static str, &str)],
    wanted: impl Fn(&EngineTests, &str) -> bool,
) -> Result<Outcome> {
    let targets = EngineTests::read()?;
    if !tools::is_root() {
        return Ok(Outcome::Skipped("only root may start dockerd: run cargo xtask test as root".to_owned()));
    }
    let mut programs = Vec::new();
    for target in targets.names.iter().filter(|target| wanted(&targets, target)) {
        programs.push(ci_build::program(PACKAGE, target, "test", true)?);
    }
    programs.sort_by_key(|program| targets.rank(&program.name));
    let _raised = Raised::new();
    let is_apart = |program: &&&Program| {
        !Raised::is_enough() && targets.apart.contains(&program.name) || targets.is_disturbed(&program.name)
    };
    let apart = programs.iter().filter(is_apart).copied().collect();
    let faulty = ci_build::program("capturer", "capturer-with-faults", "bin", false)?;
    let mut environment = vec![
        ("CAPTURER_BIN", release::program()),
        ("CAPTURER_CLONE", release::clone_dir()),
        ("CAPTURER_FAULTY_BIN", faulty.path.clone()),
        ("CAPTURER_ENGINES_DIR", paths::engines()),
        ("CAPTURER_PYTHON", paths::python()),
    ];
    environment.extend(amounts.iter().map(|&(name, amount)| (name, PathBuf::from(amount))));
    let tally = schedule::run(&Schedule { programs, apart, width, environment, logs: logs() })?;
    Ok(Outcome::Tests(tally))
}

/// What tests/Cargo.toml says about its test targets.
struct EngineTests {
    /// Those with `required-features = ["engines"]`; the others are unit tests.
    names: Vec<String>,
    /// `exclusive` in `[package.metadata.capturer]`: those that measure times.
    alone: Vec<String>,
    /// `patient` there: those of them that mostly wait.
    patient: Vec<String>,
    /// `apart` there: those of which only one may run at a time if inotify's limit can't be raised.
    apart: Vec<String>,
    /// `long` there: those that run with `--long`.
    long: Vec<String>,
    /// `heavy` there: those that take longest, longest first.
    heavy: Vec<String>,
}

impl EngineTests {
    fn read() -> Result<EngineTests> {
        let text = run(cargo("metadata").args(["--no-deps", "--format-version", "1"]))?;
        let metadata: Value = serde_json::from_str(&text).context("parsing cargo metadata")?;
        let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
        let package = packages.iter().find(|package| package["name"] == "capturer-tests");
        EngineTests::of(package.context("no package capturer-tests")?)
    }

    fn of(package: &Value) -> Result<EngineTests> {
        let targets = package["targets"].as_array().context("capturer-tests has no targets")?;
        let needs_engines = |target: &&Value| {
            target["required-features"]
                .as_array()
                .is_some_and(|features| features.iter().any(|f| f == FEATURE))
        };
        let names: Vec<String> =
            targets.iter().filter(needs_engines).filter_map(|target| name(&target["name"])).collect();
        let list = |key: &str| -> Result<Vec<String>> {
            let list = package["metadata"]["capturer"][key].as_array().into_iter().flatten();
            let list: Vec<String> = list.filter_map(name).collect();
            let unknown = list.iter().find(|name| !names.contains(name));
            match unknown {
                Some(unknown) => anyhow::bail!(
                    "tests/Cargo.toml: {key} names {unknown:?}, which is no [[test]] with feature {FEATURE:?}"
                ),
                None => Ok(list),
            }
        };
        Ok(EngineTests {
            alone: list("exclusive")?,
            patient: list("patient")?,
            apart: list("apart")?,
            long: list("long")?,
            heavy: list("heavy")?,
            names,
        })
    }

    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|other| other == name)
    }

    /// It is of the part engine-tests or timed-tests.
    fn is_usual(&self, name: &str) -> bool {
        name != QUICKSTART && !self.long.iter().any(|long| long == name)
    }

    /// It measures times.
    fn is_timed(&self, name: &str) -> bool {
        self.alone.iter().any(|alone| alone == name)
    }

    /// It measures times, and no other such program may run beside it.
    fn is_disturbed(&self, name: &str) -> bool {
        self.is_timed(name) && !self.patient.iter().any(|patient| patient == name)
    }

    /// Its place in the order in which programs start.
    fn rank(&self, name: &str) -> usize {
        self.heavy.iter().position(|other| other == name).unwrap_or(self.heavy.len())
    }
}

fn name(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A renamed program would run beside others from then on, and fail at random.
    #[test]
    fn lists_of_programs_name_what_is_there() {
        let package = |exclusive: &str| {
            let text = format!(
                r#"{{"targets":[{{"name":"a","required-features":["engines"]}},{{"name":"b"}}],"metadata":{{"capturer":{{"exclusive":["{exclusive}"]}}}}}}"#
            );
            EngineTests::of(&serde_json::from_str(&text).unwrap())
        };
        let tests = package("a").unwrap();
        assert_eq!((tests.names, tests.alone), (vec!["a".to_owned()], vec!["a".to_owned()]));
        assert!(package("b").is_err());
        EngineTests::read().unwrap();
    }
}
