//! capturer. The program's code is in the library, from `commands/program.rs` on.

fn main() -> std::process::ExitCode {
    capturer::main()
}
