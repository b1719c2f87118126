//! The project's own chores. This file is the table of contents; each chore is a file.
//!
//! Not part of the agent. Nothing here needs more than the Rust toolchain, Debian's own tools and, for tests with
//! containers, root.

mod bench;
mod bench_ends;
mod bench_host;
mod bench_latency;
mod bench_lines;
mod bench_loads;
mod bench_many;
mod bench_peers;
mod bench_probe;
mod build_ebpf;
mod ci_build;
mod clean;
mod compiler;
mod count;
mod debian;
mod engines;
mod flame;
mod fuzz;
mod mutants;
mod paths;
mod plot;
mod programs;
mod release;
mod test;
mod tidy;
mod tools;
mod vm;

#[expect(dead_code, reason = "tests draw more kinds of things than the benchmark's log")]
#[path = "../../tests/src/rand.rs"]
mod rand;
// Engines are removed by the same code, whether by the test that started them or, if that was killed, by us.
#[expect(dead_code, reason = "what starts an Engine's record is for tests; what ends it is for both")]
#[path = "../../tests/src/sweep.rs"]
mod sweep;
#[expect(dead_code, reason = "only tests let time pass")]
#[path = "../../tests/src/wait.rs"]
mod wait;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own chores.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", version, about)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Everything that must hold before a commit; all of CI. A part that fails stops only those that need it.
    Test(test::TestArgs),
    /// The repository's rules that no compiler checks.
    Tidy,
    /// Downloads and unpacks the Docker Engines that tests run privately.
    Engines,
    /// Builds the kernel programs of the witness, which are committed as capturer-ebpf/probe.o.
    BuildEbpf {
        /// Only compare what is committed with what the sources give.
        #[arg(long)]
        check: bool,
    },
    /// Runs the tests of the witness and the ring inside other kernels, on an emulated machine.
    Vm {
        /// Kernel series: 5.10, 6.1, 6.12, 7.2. None: the first three.
        kernels: Vec<String>,
    },
    /// Looks for bytes that break a decoder, one fuzz target after the other.
    Fuzz(fuzz::FuzzArgs),
    /// Writes the files that are made from the catalog of metrics: docs/metrics.md and dashboards/capturer.json.
    #[command(visible_alias = "dashboards")]
    Docs {
        /// Only compare them with what is there.
        #[arg(long)]
        check: bool,
    },
    /// Runs the agent's core on simulated hosts: one seed again, or ten thousand.
    #[command(disable_help_flag = true)]
    Sim {
        /// See `cargo xtask sim --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Runs the agent beside real containers for minutes or hours: nothing may grow, be lost or come twice.
    #[command(disable_help_flag = true)]
    Soak {
        /// See `cargo xtask soak --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Takes pictures of the status page and of `capturer top` for docs/screens, in the states that an operator meets.
    #[command(disable_help_flag = true)]
    Screens {
        /// See `cargo xtask screens --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Plants known bugs into a copy of the tree and sees whether the tests catch them. Takes some minutes.
    Mutants {
        /// Only these of tests/mutants.
        names: Vec<String>,
    },
    /// What the agent costs per GiB of log, beside a plain loop that does only the least.
    Bench(bench::BenchArgs),
    /// A flame graph of the agent under a load of the bench, taken by the agent itself.
    Flame(flame::FlameArgs),
    /// How many instructions the data path takes, by function, against those that are committed.
    Count(count::CountArgs),
    /// Plots for docs/bench from what `cargo xtask bench --json` printed.
    Plot(plot::PlotArgs),
    /// The plain loop, as a process of its own to be measured.
    #[command(hide = true)]
    PlainLoop {
        /// A json-file log.
        log: PathBuf,
        /// Where the NDJSON goes.
        output: PathBuf,
    },
}

fn main() -> ExitCode {
    if let Some(code) = compiler::in_place_of_rustc() {
        return code;
    }
    let outcome = match Arguments::parse().chore {
        Chore::Test(arguments) => test::run(&arguments),
        Chore::Tidy => tidy::check_tree().map(|()| true),
        Chore::Engines => engines::unpack_all().map(|()| true),
        Chore::BuildEbpf { check } => build_ebpf::build(check).map(|()| true),
        Chore::Vm { kernels } => vm::run_in(&kernels).map(|outcome| outcome.failed.is_empty()),
        Chore::Fuzz(arguments) => fuzz::fuzz(&arguments).map(|()| true),
        Chore::Docs { check } => programs::reference(check),
        Chore::Sim { arguments } => programs::sim(&arguments),
        Chore::Soak { arguments } => programs::soak(&arguments),
        Chore::Screens { arguments } => programs::screens(&arguments),
        Chore::Mutants { names } => mutants::run(&names),
        Chore::Bench(arguments) => bench::bench(&arguments).map(|()| true),
        Chore::Flame(arguments) => flame::flame(arguments).map(|()| true),
        Chore::Count(arguments) => count::count(&arguments).map(|()| true),
        Chore::Plot(arguments) => plot::plot(&arguments).map(|()| true),
        Chore::PlainLoop { log, output } => bench::plain_loop(&log, &output).map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
