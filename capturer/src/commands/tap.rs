//! `capturer tap`: shows on this terminal what a running agent delivers, at that moment. It never holds up the agent:
//! records that are not read fast enough are skipped, and the command says so.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write};

use anyhow::Context as _;
use serde_json::Value;

use crate::commands::agent_client::AgentClient;
use crate::commands::cli;
use crate::commands::cli::{Exit, TapArgs};
use crate::commands::colours;
use crate::commands::http::{self, Patience};
use crate::limits::RECORD_BYTES_MAX;
use crate::sink;
use crate::telemetry::taps::{self, ID_CHARS_MIN};
use crate::text::output;
use crate::text::percent::quote;
use crate::text::terminal;

/// No record is longer: each byte of the longest takes at most six in JSON, and fields come on top.
const LINE_BYTES_MAX: u64 = 8 * RECORD_BYTES_MAX as u64;
/// More of a refusal is not shown.
const REFUSAL_BYTES_MAX: u64 = 4 * 1024;

/// Shows records until it is interrupted or the agent ends.
pub fn run(arguments: &TapArgs, err: &mut dyn Write) -> Exit {
    let client = match AgentClient::find(&arguments.agent, err) {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    if let Some(Err(error)) = arguments.grep.as_deref().map(taps::pattern) {
        let _ = writeln!(err, "capturer: --grep: {error}");
        return Exit::Usage;
    }
    if let Err(error) = end_on_interrupt() {
        return cli::fail(&error);
    }
    if let Some(name) = arguments.container.as_deref().filter(|name| is_absent(&client, name)) {
        let name = terminal::shown(name);
        let _ = writeln!(
            err,
            "no container or file that is captured now is called {name}; waiting until there is one (capturer top lists them)"
        );
    }
    match watch(&client, arguments) {
        Ok(exit) => exit,
        Err(error) => cli::fail(&error),
    }
}

/// Whether the agent says that it captures nothing of this name. What else goes wrong is told by the view itself.
fn is_absent(client: &AgentClient, name: &str) -> bool {
    let body = client.get("/api/v1/streams").map(|(_, body)| body).unwrap_or_default();
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    answer["streams"].as_array().is_some_and(|rows| !rows.iter().any(|row| is_of(row, name)))
}

/// Whether a row is of the source that the agent would choose by this name (sink/tap.rs).
fn is_of(row: &Value, name: &str) -> bool {
    let text = |key: &str| row[key].as_str().unwrap_or_default();
    if text("state") == "not captured" {
        return false;
    }
    let (called, id) = (text("name"), text("container_id"));
    called == name
        || (called.starts_with('/') && called.rsplit('/').next() == Some(name))
        || (name.len() >= ID_CHARS_MIN && id.starts_with(name))
}

fn watch(client: &AgentClient, arguments: &TapArgs) -> anyhow::Result<Exit> {
    let filters = [("container", &arguments.container), ("grep", &arguments.grep)];
    let query =
        filters.into_iter().filter_map(|(key, value)| Some(format!("{key}={}", quote(value.as_ref()?))));
    let query: Vec<String> = query.collect();
    let http::Answer { status, body: mut answer } =
        client.open(&format!("/api/v1/tap?{}", query.join("&")))?;
    if status != 200 {
        let mut said = Vec::new();
        (&mut answer).take(REFUSAL_BYTES_MAX).read_to_end(&mut said).context("reading the agent's answer")?;
        let said = String::from_utf8_lossy(&said);
        anyhow::bail!("the agent at {} refused: {}", client.address, terminal::shown(said.trim_end()));
    }
    // A container may be quiet for days.
    answer.get_mut().set_patience(Patience::Endless);
    let mut out = output::stdout();
    let coloured = colours::are_wanted(io::stdout().is_terminal());
    let mut line = Vec::new();
    loop {
        line.clear();
        (&mut answer).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).context("reading records")?;
        if line.is_empty() {
            break;
        }
        anyhow::ensure!(
            line.len() < LINE_BYTES_MAX as usize,
            "what answers at {} is not capturer: it sends a line of more than {} MiB",
            client.address,
            LINE_BYTES_MAX >> 20
        );
        let written = if arguments.json {
            out.write_all(&line)
        } else {
            out.write_all(&shown(&String::from_utf8_lossy(&line), coloured))
        };
        // A reader that closed the pipe (`| head`) is not an error; any other is told at the end (text/output.rs).
        if written.and_then(|()| out.flush()).is_err() {
            return Ok(Exit::Ok);
        }
    }
    anyhow::bail!(
        "the agent at {} closed the stream: it stopped, or this command did not read for 10 s",
        client.address
    )
}

/// A line of NDJSON in the form `pretty`.
fn shown(line: &str, coloured: bool) -> Vec<u8> {
    let Ok(record) = serde_json::from_str::<Value>(line) else {
        return format!("{}\n", terminal::shown(line.trim_end())).into_bytes();
    };
    if let Some(skipped) = record["skipped"].as_u64() {
        return format!("… {skipped} lines were not shown: they came faster than they were read\n")
            .into_bytes();
    }
    let text = |key: &str| record[key].as_str();
    let name = text("container_name").or(text("path")).or(text("container_id")).unwrap_or("?");
    sink::show_line(text("time").unwrap_or_default(), name, text("message").unwrap_or_default(), coloured)
}

/// Ctrl-C is the usual way to end this command.
fn end_on_interrupt() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("making a runtime for signals")?;
    let interrupt = || -> io::Result<_> {
        let _guard = runtime.enter();
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
    };
    let mut interrupt = interrupt().context("listening for Ctrl-C")?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(interrupt.recv());
            std::process::exit(Exit::Ok as i32);
        })
        .context("starting the thread for signals")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `--container nosuch` waited without a word.
    #[test]
    fn a_name_that_nothing_has_is_known() {
        let rows: Vec<Value> = serde_json::from_str(
            r#"[{"name":"web","container_id":"0123456789abcdef"},{"name":"/var/log/a.log","container_id":""},
                {"name":"none","container_id":"fedcba9876543210","state":"not captured"}]"#,
        )
        .unwrap();
        let is_there = |name: &str| rows.iter().any(|row| is_of(row, name));
        for name in ["web", "0123456789", "/var/log/a.log", "a.log"] {
            assert!(is_there(name), "{name}");
        }
        for name in ["we", "01", "log", "nosuch", "none", "fedcba", ""] {
            assert!(!is_there(name), "{name}");
        }
    }

    #[test]
    fn lines_are_shown_as_the_pretty_format_does() {
        let check = |line: &str, expected: &str| {
            assert_eq!(String::from_utf8_lossy(&shown(line, false)), expected);
        };
        let time = "2026-11-22T00:52:48.162820305Z";
        check(
            &format!(
                "{{\"time\":\"{time}\",\"container_name\":\"web-1\",\"message\":\"GET / \\u001b[2J\"}}\n"
            ),
            "00:52:48.162 web-1        | GET / \\u{1b}[2J\n",
        );
        check(
            &format!("{{\"time\":\"{time}\",\"path\":\"/a.log\",\"message\":\"x\"}}\n"),
            "00:52:48.162 /a.log       | x\n",
        );
        check("{\"skipped\":5}\n", "… 5 lines were not shown: they came faster than they were read\n");
        check("no \u{1b} JSON\n", "no \\u{1b} JSON\n");
    }
}
