//! The command line: commands and arguments, and the commands that only look at the config. program.rs carries out
//! commands that run something.
//!
//! Exit codes are those of sysexits(3), so that a service manager can tell a bad config from an unavailable Engine.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::settings::file;
use crate::settings::file::{ConfigError, Outside, Override};
use crate::settings::{Admin, LocalFile, Objection, Settings, advice, environment, summary, units};
use crate::sink::SinkError;
use crate::text::terminal::Printable;

/// Read if there is no `-c` and the file exists.
pub const DEFAULT_CONFIG: &str = "/etc/capturer/config.yaml";

const ABOUT: &str = "Captures what containers print and what log files receive, and delivers it.";

const EXAMPLES: &str = "\
Examples:
  capturer quickstart                      capture every container into ./captured and show a live table
  capturer check -c config.yaml            is the config good, and what would it do?
  capturer doctor                          check this machine, and say how to fix what is wrong
  capturer run -c config.yaml              run until SIGTERM
  capturer run --set log.level=debug       one setting changed, the others from /etc/capturer/config.yaml
  capturer completion bash > /etc/bash_completion.d/capturer

Exit codes:
  0   all went well
  64  the command line is wrong
  69  something needed is unavailable: a port, a directory, io_uring, Loki for `check --online`;
      or a stop left something undelivered, which the log names
  70  a bug in capturer: please report the line that it left in the log
  74  what a command printed could not be written, as to a full disk
  77  a permission is missing
  78  the config is wrong
  130 a second signal ended it at once";

const SET_EXAMPLES: &str = "\
Examples of --set (values are YAML; a list or section is replaced as a whole):
  --set log.level=debug
  --set container_monitor.include_names='[web-*, api]'
  --set sinks.local_file='{directory: /srv/logs, file: \"{container_id}.ndjson\"}'";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "capturer", version, about = ABOUT, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent until SIGTERM or SIGINT
    #[command(after_help = SET_EXAMPLES)]
    Run(ConfigArgs),
    /// Check the config and say what would run; changes nothing
    #[command(after_help = SET_EXAMPLES)]
    Check(CheckArgs),
    /// Check whether the agent can run on this machine, and what to fix; changes nothing
    Doctor(DoctorArgs),
    /// Capture into a directory here and now, with a live table
    Quickstart(QuickstartArgs),
    /// Show records of a running agent as they are delivered
    Tap(TapArgs),
    /// Show each stream of a running agent: what it is doing, and its lines per second
    Top(TopArgs),
    /// Show how far each container and file was delivered
    Positions(PositionsArgs),
    /// Look at lines that Loki refused, send them again, or throw them away
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// Show what the steps of a pipeline do to lines from standard input or a file
    Try(TryArgs),
    /// Print a completion script for a shell
    Completion {
        /// bash, zsh, fish, elvish or powershell
        shell: Shell,
    },
}

/// Which config.
#[derive(Args, Clone, Debug, Default)]
pub struct ConfigArgs {
    /// Config file [default: /etc/capturer/config.yaml if it exists, else built-in defaults]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Change one setting; may be given more than once
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_override)]
    pub set: Vec<Override>,
}

/// Arguments of `capturer try`.
#[derive(Args, Clone, Debug)]
pub struct TryArgs {
    /// Which config.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Lines to try [default: standard input]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Which pipeline [default: the one that --container or --path gets, or the only one]
    #[arg(long, value_name = "NAME")]
    pub pipeline: Option<String>,
    /// Treat the lines as lines of the container with this name
    #[arg(long, value_name = "NAME", conflicts_with = "path")]
    pub container: Option<String>,
    /// Treat the lines as lines of the file at this path
    #[arg(long, value_name = "PATH")]
    pub path: Option<String>,
}

/// Arguments of `capturer check`.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// Which config.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Also try what it names: directories, the Engine's socket, Loki
    #[arg(long)]
    pub online: bool,
}

/// `capturer dead-letters`; which config, for its data_dir and Loki.
#[derive(Clone, Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// Show each with its reason, the server's own words and the line
    List {
        /// Which config.
        #[command(flatten)]
        config: ConfigArgs,
        /// Print them as they are stored: one JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Send each once more to sinks.loki; what is refused again stays
    Replay(ConfigArgs),
    /// Throw all of them away
    Purge(ConfigArgs),
}

/// Arguments of `capturer quickstart`.
#[derive(Args, Clone, Debug)]
pub struct QuickstartArgs {
    /// Where the output goes
    #[arg(long, value_name = "DIR", default_value = "./captured")]
    pub directory: PathBuf,
    /// The Engine's Unix socket
    #[arg(long, value_name = "PATH", default_value = "/var/run/docker.sock", value_parser = parse_socket)]
    pub socket: PathBuf,
    /// Stop by itself after this many seconds
    #[arg(long, value_name = "N")]
    pub seconds: Option<u64>,
    /// Address of the metrics and the status page; "" for none
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8001", value_parser = parse_admin)]
    pub admin: Admin,
}

/// Which running agent.
#[derive(Args, Clone, Debug)]
pub struct AgentArgs {
    /// Which config, for its admin.listen.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Address of the agent's admin server [default: admin.listen of the config]
    #[arg(long, value_name = "ADDR", value_parser = parse_agent)]
    pub admin: Option<Admin>,
}

/// Arguments of `capturer tap`.
#[derive(Args, Clone, Debug)]
pub struct TapArgs {
    /// Which agent.
    #[command(flatten)]
    pub agent: AgentArgs,
    /// Only of this container (name, or the beginning of its ID) or file (path, or its last part)
    #[arg(long, value_name = "NAME")]
    pub container: Option<String>,
    /// Only lines that match this regular expression
    #[arg(long, value_name = "REGEX")]
    pub grep: Option<String>,
    /// As NDJSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `capturer top`.
#[derive(Args, Clone, Debug)]
pub struct TopArgs {
    /// Which agent.
    #[command(flatten)]
    pub agent: AgentArgs,
    /// Print one table and end
    #[arg(long)]
    pub once: bool,
    /// Print one JSON document and end
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `capturer positions`.
#[derive(Args, Clone, Debug)]
pub struct PositionsArgs {
    /// Which config, for its data_dir.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `capturer doctor`.
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {
    /// Which config, for its directories, sockets and limits.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Success.
    Ok = 0,
    /// The command line is invalid (EX_USAGE).
    Usage = 64,
    /// A port, a directory, a kernel feature or the like is unavailable (EX_UNAVAILABLE).
    Unavailable = 69,
    /// What was to be printed could not be written (EX_IOERR).
    Unwritten = 74,
    /// A permission is missing (EX_NOPERM).
    NoPermission = 77,
    /// The config is invalid (EX_CONFIG).
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

impl From<&ConfigError> for Exit {
    fn from(error: &ConfigError) -> Exit {
        if error.permission_denied { Exit::NoPermission } else { Exit::Config }
    }
}

/// Parses the command line. Prints help, version and usage errors; the error is the exit code.
pub fn parse<I, T>(arguments: I, out: &mut dyn Write, err: &mut dyn Write) -> Result<Cli, Exit>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    Cli::try_parse_from(arguments).map_err(|error| {
        let text = error.render();
        if error.use_stderr() {
            say(err, format_args!("{text}"));
            Exit::Usage
        } else {
            say(out, format_args!("{text}"));
            Exit::Ok
        }
    })
}

/// The settings, and where they come from.
pub fn load(arguments: &ConfigArgs) -> Result<(Settings, String), ConfigError> {
    load_from(arguments, Path::new(DEFAULT_CONFIG), &Outside::real())
}

/// Loads the settings again for a running agent; see `settings::file::load_against`.
pub fn load_again(
    arguments: &ConfigArgs,
    running: &Settings,
    object: &dyn Fn(&Settings) -> Vec<Objection>,
) -> Result<Settings, ConfigError> {
    let path = config_path(arguments, Path::new(DEFAULT_CONFIG));
    file::load_against(path, &arguments.set, &Outside::real(), running, object)
}

/// What [`load`] does, for a start that takes long.
pub fn reading(arguments: &ConfigArgs) -> String {
    let path = arguments.config.as_deref().unwrap_or(Path::new(DEFAULT_CONFIG));
    format!("reading the config ({}) and the files that it names", path.display())
}

/// If the default file exists but can't be read, that is an error: running without it would surprise.
fn config_path<'a>(arguments: &'a ConfigArgs, default: &'a Path) -> Option<&'a Path> {
    let is_there = || std::fs::symlink_metadata(default).is_ok();
    arguments.config.as_deref().or_else(|| is_there().then_some(default))
}

fn load_from(
    arguments: &ConfigArgs,
    default: &Path,
    outside: &Outside,
) -> Result<(Settings, String), ConfigError> {
    let path = config_path(arguments, default);
    let origin = path.map_or("built-in defaults".to_owned(), |path| path.display().to_string());
    file::load(path, &arguments.set, outside).map(|settings| (settings, origin))
}

/// `capturer check`: prints what would run, or everything that is wrong. `unusable_files` reports keys and
/// certificates, `list_files` what the patterns match; with `--online`, `try_out` tries what the config names.
pub fn check(
    arguments: &CheckArgs,
    unusable_files: impl FnOnce(&Settings) -> Vec<String>,
    list_files: impl FnOnce(&Settings, &mut dyn Write) -> std::io::Result<()>,
    try_out: impl FnOnce(&Settings, &mut dyn Write) -> Exit,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Exit {
    match load(&arguments.config) {
        Ok((settings, origin)) => {
            say(out, format_args!("{}", summary::summary(&settings, &origin)));
            let ignored = environment::ignored(&settings, &|name| std::env::var(name).ok());
            for warning in advice::warnings(&settings).into_iter().chain(ignored) {
                say(out, format_args!("warning: {warning}\n"));
            }
            let unusable = unusable_files(&settings);
            for error in &unusable {
                say(out, format_args!("FAILED: {error}; the agent would not start with this config\n"));
            }
            // As in `say`.
            let _ = list_files(&settings, out);
            let mut exit = if unusable.is_empty() { Exit::Ok } else { Exit::Unavailable };
            if arguments.online {
                say(out, format_args!("Online checks:\n"));
                let tried = try_out(&settings, out);
                exit = if exit == Exit::Ok { tried } else { exit };
            }
            exit
        }
        Err(error) => refuse(&error, err),
    }
}

/// Prints why a config can't be used.
pub fn refuse(error: &ConfigError, err: &mut dyn Write) -> Exit {
    say(err, format_args!("{error}\n"));
    error.into()
}

/// Prints why the agent can't run: what was tried, and every cause. A missing permission has an exit code of its own.
pub fn fail(error: &anyhow::Error) -> Exit {
    say(&mut Printable(std::io::stderr()), format_args!("capturer: {error:#}\n"));
    exit_of(error)
}

/// How the process ends if not all of its output could be written: an answer that nobody got is no success.
pub fn unless_unwritten(exit: Exit, trouble: Option<&std::io::Error>, err: &mut dyn Write) -> Exit {
    let Some(error) = trouble else { return exit };
    say(err, format_args!("capturer: standard output could not be written: {error}\n"));
    if exit == Exit::Ok { Exit::Unwritten } else { exit }
}

/// The exit code for an error.
pub fn exit_of(error: &anyhow::Error) -> Exit {
    let denied = error.chain().any(|cause| {
        // A sink's error prints its cause itself, so the cause is not in the chain.
        let sink = cause.downcast_ref::<SinkError>().map(|error| &error.source);
        let cause = sink.or_else(|| cause.downcast_ref::<std::io::Error>());
        cause.is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    });
    if denied { Exit::NoPermission } else { Exit::Unavailable }
}

/// Writes the completions of a shell: `capturer completion`.
pub fn completion(shell: Shell, out: &mut dyn Write) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "capturer", &mut script);
    say(out, format_args!("{}", String::from_utf8_lossy(&script)));
    Exit::Ok
}

/// The settings of `capturer quickstart`: nothing is written outside its directory.
pub fn quickstart_settings(arguments: &QuickstartArgs) -> Settings {
    let mut settings = Settings {
        data_dir: arguments.directory.join(".capturer"),
        admin: arguments.admin.clone(),
        ..Settings::default()
    };
    settings.container_monitor.socket_path.clone_from(&arguments.socket);
    settings.sinks.local_file =
        Some(LocalFile { directory: arguments.directory.clone(), ..LocalFile::default() });
    settings
}

/// Standard output remembers its own errors (text/output.rs).
fn say(writer: &mut dyn Write, text: std::fmt::Arguments) {
    let _ = writer.write_fmt(text).and_then(|()| writer.flush());
}

fn parse_override(argument: &str) -> Result<Override, String> {
    match argument.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok(Override { key: key.trim().into(), value: value.to_owned() })
        }
        _ => Err("write it as key=value, such as log.level=debug".to_owned()),
    }
}

fn parse_admin(argument: &str) -> Result<Admin, String> {
    let listen = units::listen(argument).map_err(|mismatch| format!("expected {}", mismatch.expected))?;
    Ok(Admin { listen, ..Admin::default() })
}

/// The address of a running agent, in whichever form people write it.
fn parse_agent(argument: &str) -> Result<Admin, String> {
    if argument.starts_with("https://") {
        return Err(
            "capturer top and tap do not speak TLS: set admin.socket in the agent's config, and pass that \
             config with -c"
                .to_owned(),
        );
    }
    let plain = argument.strip_prefix("http://").unwrap_or(argument).trim_end_matches('/');
    let plain = plain.strip_prefix("localhost:").map_or(plain.to_owned(), |port| format!("127.0.0.1:{port}"));
    match units::listen(&plain) {
        Ok(Some(address)) => Ok(Admin { listen: Some(address), ..Admin::default() }),
        _ => Err("expected the IP address and port that the agent listens on (admin.listen), such as 127.0.0.1:8001".to_owned()),
    }
}

fn parse_socket(argument: &str) -> Result<PathBuf, String> {
    units::socket_path(argument)
        .map_err(|mismatch| format!("expected {}; {}", mismatch.expected, mismatch.hint))
}

#[cfg(test)]
#[path = "cli_tests.rs"]
mod tests;
