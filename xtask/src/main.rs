//! The project's own chores. This file is the table of contents; each chore is a file.
//!
//! No part of the agent, and nothing here needs more than the Rust toolchain, Debian's own tools and, for tests with
//! containers, root.

mod debian;
mod engines;
mod paths;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own chores.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Downloads and unpacks the Docker Engines that tests run privately.
    Engines,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().chore {
        Chore::Engines => engines::unpack_all(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
