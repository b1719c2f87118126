//! The agent with faults that tests turn on (faults.rs): the same program, under a name of its own so that nobody takes
//! it for the other.

use std::process::ExitCode;

#[path = "../main.rs"]
mod capturer_main;

fn main() -> ExitCode {
    capturer_main::main()
}
