//! capturer. What it does is in the library, from `commands/program.rs` on.

fn main() -> std::process::ExitCode {
    capturer::main()
}
