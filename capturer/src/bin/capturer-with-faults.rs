//! The agent with faults that tests turn on (faults.rs): the same program, under a name of its own so that nobody takes
//! it for the other.

fn main() -> std::process::ExitCode {
    capturer::main()
}
