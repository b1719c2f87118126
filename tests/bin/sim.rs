//! The simulation by seeds, for `cargo xtask sim`, which builds this with optimization and passes its arguments on.

use std::fs;
use std::io::{BufWriter, IsTerminal as _, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use capturer_tests::seeds::{self, Sum};
use clap::Parser;

/// Runs the agent's core on simulated hosts. A seed that fails leaves its event log; the same seed is the same run.
#[derive(Parser)]
#[command(bin_name = "cargo xtask sim")]
struct Arguments {
    /// Plays one seed again and prints everything that happens.
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Runs many, on all processors.
    #[arg(long, value_name = "A..B", default_value = "0..10000", value_parser = range)]
    seeds: Range<u64>,
    /// Also the seeds of a file: one a line, with words behind `#`.
    #[arg(long, value_name = "FILE")]
    also: Option<PathBuf>,
    /// After so many failures it looks no further.
    #[arg(long, value_name = "N", default_value_t = 20)]
    failures: usize,
    /// Where logs of failed seeds go.
    #[arg(long, value_name = "DIR", default_value = "target/sim")]
    logs: PathBuf,
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("expected A..B, as 0..10000")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
    let range = number(from)?..number(to)?;
    if range.is_empty() { Err("there is no seed in it".to_owned()) } else { Ok(range) }
}

/// The seeds of a list, whose lines are `1833  # a container that exits within a series of reads`.
fn listed(path: &Path) -> anyhow::Result<Vec<u64>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let numbers = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let parse = |number: &str| number.parse().with_context(|| format!("{}: {number:?}", path.display()));
    numbers.filter(|number| !number.is_empty()).map(parse).collect()
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let passed = match arguments.seed {
        Some(seed) => replay(seed),
        None => match arguments.also.as_deref().map_or(Ok(Vec::new()), listed) {
            Ok(also) => run(&arguments, &also),
            Err(error) => {
                eprintln!("error: {error:#}");
                false
            }
        },
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn replay(seed: u64) -> bool {
    match seeds::replay(seed, Box::new(BufWriter::new(std::io::stdout()))) {
        Ok(outcome) => {
            println!("seed {seed} passed: {outcome:?}");
            true
        }
        Err(message) => {
            println!("seed {seed} FAILED: {message}");
            false
        }
    }
}

fn run(arguments: &Arguments, also: &[u64]) -> bool {
    let Arguments { seeds, failures, logs, .. } = arguments;
    let all: Vec<u64> = also.iter().copied().chain(seeds.clone()).collect();
    let total = all.len() as u64;
    let started = Instant::now();
    println!(
        "seeds {}..{} and {} of the list; logs of those that fail go to {}",
        seeds.start,
        seeds.end,
        also.len(),
        logs.display()
    );
    let terminal = std::io::stdout().is_terminal();
    let every = if terminal { Duration::from_millis(200) } else { Duration::from_secs(10) };
    let told_at = Mutex::new((started, 0));
    let sum = seeds::run(&all, *failures, logs, |sum| {
        let mut told_at = told_at.lock().expect("printing does not panic");
        if sum.failures.len() > told_at.1 {
            told_at.1 = sum.failures.len();
            let failure = &sum.failures[sum.failures.len() - 1];
            println!("seed {} FAILED, its log: {}", failure.seed, failure.log.display());
            println!("  {}", failure.message.replace('\n', "\n  "));
        }
        if told_at.0.elapsed() >= every || sum.seeds == total {
            told_at.0 = Instant::now();
            let line = progress(sum, total, started.elapsed());
            if terminal {
                print!("{line}\r")
            } else {
                println!("{line}")
            }
            let _ = std::io::stdout().flush();
        }
    });
    println!();
    println!(
        "{} seeds in {:.0} s: {} happenings in {} simulated seconds, {} starts of the agent, {} lines",
        sum.seeds,
        started.elapsed().as_secs_f64(),
        sum.steps,
        sum.seconds,
        sum.runs,
        sum.printed
    );
    if sum.seeds < total {
        println!("ended early, after {} failures", sum.failures.len());
    }
    for failure in &sum.failures {
        println!("FAILED: cargo xtask sim --seed {}   {}", failure.seed, failure.log.display());
    }
    sum.failures.is_empty()
}

fn progress(sum: &Sum, total: u64, elapsed: Duration) -> String {
    let (seeds, failed) = (sum.seeds, sum.failures.len());
    format!("{seeds:>8} of {total} seeds, {failed} failed, {:>4.0} s", elapsed.as_secs_f64())
}
