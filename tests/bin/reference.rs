//! Behind `cargo xtask docs` and `cargo xtask dashboards`: writes the files made from the catalog of metrics, or says
//! which of them differ.

use std::process::ExitCode;

use capturer_tests::reference;
use clap::Parser;

/// Writes the files that are made from the catalog of metrics.
#[derive(Parser)]
struct Arguments {
    /// Only compare them with what is there.
    #[arg(long)]
    check: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    if !Arguments::parse().check {
        reference::write()?;
        return Ok(ExitCode::SUCCESS);
    }
    let stale = reference::stale()?;
    for path in &stale {
        eprintln!("{path} is not what the catalog gives: run cargo xtask docs");
    }
    Ok(if stale.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
