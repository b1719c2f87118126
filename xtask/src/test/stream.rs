//! Runs a command of a part, which must exit with 0. Its output goes to the terminal as it comes.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::sweep::{all_processes, stat_fields};

/// No command of a part needs this long; all together must end within the hour that CI has.
const COMMAND_DEADLINE: Duration = Duration::from_secs(40 * 60);
/// After this long without output it is checked whether the command still runs.
const QUIET: Duration = Duration::from_millis(500);

/// Runs a command that must end with 0.
pub fn check(command: &mut Command) -> Result<()> {
    if !stream(command)? {
        bail!("{} failed; what it said is above", shown(command));
    }
    Ok(())
}

fn stream(command: &mut Command) -> Result<bool> {
    println!("$ {}", shown(command));
    // A result that is an error prints one line of causes, not a backtrace of the test runner.
    command.env("RUST_LIB_BACKTRACE", "0").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {}", shown(command)))?;
    let output = child.stdout.take().context("no output to read")?;
    let (line_sender, lines) = mpsc::channel();
    std::thread::spawn(move || read_lines(output, &line_sender));
    let started = Instant::now();
    let status = loop {
        match lines.recv_timeout(QUIET) {
            Ok(line) => {
                println!("{line}");
                std::io::stdout().flush().context("writing to the terminal")?;
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break child.wait(),
            // A process that a test left behind may hold the pipe open for ever: the command's own end is enough.
            Err(mpsc::RecvTimeoutError::Timeout) => match child.try_wait() {
                Ok(Some(status)) => break Ok(status),
                Ok(None) => {}
                Err(error) => break Err(error),
            },
        }
        if started.elapsed() > COMMAND_DEADLINE {
            end_with_descendants(&mut child)?;
            bail!("{} took over {} minutes; it was ended", shown(command), COMMAND_DEADLINE.as_secs() / 60);
        }
    };
    Ok(status.with_context(|| format!("waiting for {}", shown(command)))?.success())
}

fn read_lines(output: impl Read, lines: &mpsc::Sender<String>) {
    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    // A test may print any bytes.
    while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        if lines.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
            return;
        }
        line.clear();
    }
}

/// If cargo alone were ended, the test process would keep running, and so would its Engines.
pub fn end_with_descendants(child: &mut Child) -> Result<()> {
    let parent_of = |pid: i32| stat_fields(pid).and_then(|fields| fields.get(1)?.parse::<i32>().ok());
    let mut doomed = vec![i32::try_from(child.id()).context("a process id over 31 bits")?];
    let mut index = 0;
    while index < doomed.len() {
        let parent = doomed[index];
        doomed.extend(all_processes().into_iter().filter(|&pid| parent_of(pid) == Some(parent)));
        index += 1;
    }
    for pid in doomed.into_iter().filter_map(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
    child.wait().context("waiting for a killed command")?;
    Ok(())
}

/// A command as it is printed.
pub fn shown(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script);
        command
    }

    #[test]
    fn a_command_that_fails_is_an_error() {
        assert!(check(&mut sh("echo nothing; exit 101")).is_err());
        assert!(check(&mut sh("true")).is_ok());
    }
}
