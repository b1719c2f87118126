//! The program: arguments → settings → agent → exit code.

use std::io::stderr;
use std::process::ExitCode;
use std::sync::Arc;

use crate::agent::{self, Agent, Reloading, Starting, signals};
use crate::commands::cli;
use crate::commands::cli::{Command, ConfigArgs, Exit};
use crate::commands::{dead_letters, doctor, online, positions, quickstart, tap, top, try_out};
use crate::settings::LogFormat;
use crate::shell::files::listing;
use crate::shell::{descriptors, privilege};
use crate::telemetry::own_log;
use crate::text::output::{self, stdout};
use crate::text::terminal::Printable;

/// What `capturer` and `capturer-with-faults` run.
pub fn main() -> ExitCode {
    agent::keep_little_memory();
    let exit = match cli::parse(std::env::args_os(), &mut stdout(), &mut stderr()) {
        Ok(cli) => carry_out(cli.command),
        Err(exit) => exit,
    };
    cli::unless_unwritten(exit, output::trouble(), &mut Printable(stderr())).into()
}

fn carry_out(command: Command) -> Exit {
    // Others choose names in the output. Completions are our own text; `tap` and `top` filter their output themselves.
    let (mut out, mut err) = (Printable(stdout()), Printable(stderr()));
    match command {
        Command::Run(arguments) => run(&arguments),
        Command::Check(arguments) => {
            cli::check(&arguments, online::unusable_files, listing::show, online::check, &mut out, &mut err)
        }
        Command::Doctor(arguments) => doctor::run(&arguments, &mut out),
        Command::Quickstart(arguments) => quickstart::run(&arguments),
        Command::Tap(arguments) => tap::run(&arguments, &mut err),
        Command::Top(arguments) => top::run(&arguments, &mut err),
        Command::Positions(arguments) => positions::show(&arguments, &mut out, &mut err),
        Command::DeadLetters(command) => dead_letters::run(&command, &mut out, &mut err),
        Command::Try(arguments) => try_out::run(&arguments, &mut out, &mut err),
        Command::Completion { shell } => cli::completion(shell, &mut stdout()),
    }
}

fn run(arguments: &ConfigArgs) -> Exit {
    // Before anything that uses descriptors.
    let signals = match descriptors::require().and_then(|()| signals::listen(true)) {
        Ok(signals) => signals,
        Err(error) => return cli::fail(&error),
    };
    let starting = Starting::watch(cli::reading(arguments), privilege::renounce_in_log);
    let loaded = cli::load(arguments);
    drop(starting);
    let (settings, origin) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => return cli::refuse(&error, &mut Printable(stderr())),
    };
    let (log, levels) = match own_log::init(&settings.log, privilege::renounce_in_log) {
        Ok(log) => log,
        Err(error) => return cli::fail(&error),
    };
    log.end_process_on_panic();
    // Where the log is filtered by module, this line counts for the whole program.
    tracing::info!(target: "capturer", config = origin, version = env!("CARGO_PKG_VERSION"), "capturer starts");
    let arguments = arguments.clone();
    let reloading = Reloading {
        load: Arc::new(move |running, object| cli::load_again(&arguments, running, object)),
        set_level: Box::new(move |level| levels.set(level)),
    };
    let is_json = settings.log.format == LogFormat::Json;
    let result = Agent::build(settings, Some(reloading), signals).and_then(Agent::run);
    if let (Err(error), true) = (&result, is_json) {
        // A collector that expects JSON would drop a line of plain text.
        tracing::error!(target: "capturer", "the agent ends: {error:#}");
    }
    let is_read = log.flush(own_log::END_PATIENCE);
    let error = match result {
        Ok(left) if left.is_empty() => return Exit::Ok,
        Ok(left) => anyhow::anyhow!(
            "stopped without waiting for {}; the next start resumes from the saved positions",
            left.join(", ")
        ),
        Err(error) if is_json => return cli::exit_of(&error),
        Err(error) => error,
    };
    // If nobody reads standard error, the next write to it never ends.
    if is_read { cli::fail(&error) } else { cli::exit_of(&error) }
}
