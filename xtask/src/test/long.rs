//! The parts of `cargo xtask test --long`, which take hours and run at night or before a release. docs/testing.md has
//! their figures.

use super::parts::{large_tests, long_tests, vm_tests};
use super::{Outcome, Pace, Part};
use crate::fuzz::FuzzArgs;
use crate::{build_ebpf, fuzz, mutants, programs, tools};

/// How long libFuzzer runs each target.
const FUZZ_SECONDS: u32 = 300;
/// cargo-mutants tries one place in this many; which ones depends on the commit.
const MUTANTS_SHARDS: u32 = 20;

/// All parts that take hours.
pub const PARTS: &[Part] = &[
    Part {
        name: "ebpf-build",
        what: "the committed kernel programs are, byte for byte, what their sources give (build-ebpf --check)",
        needs: &["tools"],
        pace: Pace::InTurn,
        run: || build_ebpf::build(true).map(|()| Outcome::Passed),
    },
    Part {
        name: "fuzz",
        what: "every decoder under libFuzzer for five minutes (cargo xtask fuzz)",
        needs: &["tools"],
        pace: Pace::InTurn,
        run: || {
            tools::install_cpp()?;
            let arguments = FuzzArgs { targets: Vec::new(), seconds: FUZZ_SECONDS, keep: false };
            fuzz::fuzz(&arguments).map(|()| Outcome::Passed)
        },
    },
    Part {
        name: "seeds",
        what: "a hundred thousand seeds of the simulation",
        needs: &["build"],
        pace: Pace::InTurn,
        run: || programs::sim_of_this_tree(100_000).map(|()| Outcome::Passed),
    },
    Part {
        name: "walks",
        what: "random walks against a model, and real writers that rotate (tests/walk.rs, tests/writers.rs)",
        needs: &["build", "downloads", "agent"],
        pace: Pace::InTurn,
        run: long_tests,
    },
    Part {
        name: "containers",
        what: "more lines, short lives and removals than every day (capture_many, capture_life, capture_removal)",
        needs: &["build", "downloads", "agent"],
        pace: Pace::InTurn,
        run: large_tests,
    },
    Part {
        name: "soak",
        what: "fifty-five containers for half an hour: nothing grows, is lost or comes twice",
        needs: &["build", "downloads", "agent"],
        pace: Pace::InTurn,
        run: || programs::soak_for(30).map(|()| Outcome::Passed),
    },
    Part {
        name: "vm-more",
        what: "witness, ring and files inside Linux 6.1 and 7.2",
        needs: &["build"],
        pace: Pace::InTurn,
        run: || vm_tests(&["6.1", "7.2"]),
    },
    Part {
        name: "mutants",
        what: "the planted bugs of tests/mutants are caught",
        needs: &["tools"],
        pace: Pace::InTurn,
        run: || {
            anyhow::ensure!(mutants::run(&[])?, "a bug was not caught; the table above names it");
            Ok(Outcome::Passed)
        },
    },
    Part {
        name: "cargo-mutants",
        what: "one in twenty of cargo-mutants' changes to decode, checkpoint and stream; survivors are listed",
        needs: &["tools"],
        pace: Pace::InTurn,
        run: || mutants::sample(MUTANTS_SHARDS).map(|()| Outcome::Passed),
    },
];
