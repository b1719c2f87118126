//! Python's stack traces: those of exceptions, caught or not, those of asyncio, multiprocessing and the interpreter itself.
//!
//! Not here: what all runtimes have in common ([`super`]).

use super::{
    State, begins, blank, goes, is_database_detail, is_empty, is_error_line, is_indented, maybe, name_len,
};
use crate::settings::pipeline::multiline::Next;

fn is_traceback(line: &[u8]) -> bool {
    let inside = line.trim_ascii_start();
    let inside = inside.strip_prefix(b"+ Exception Group ").unwrap_or(inside);
    inside.starts_with(b"Traceback (most recent call last):")
}

/// `    +------------------------------------`: the end of an exception group.
fn is_rule(line: &[u8]) -> bool {
    let inside = line.trim_ascii();
    is_indented(line) && inside.len() > 2 && inside[0] == b'+' && inside[1..].iter().all(|byte| *byte == b'-')
}

/// `KeyError: 'sku'`, and of a class within a function `__main__.pay.<locals>.OutOfStock: 17`. One without a message is told
/// from other words by its capital, `KeyboardInterrupt`, or by its module: `socket.timeout`.
fn is_python_error(line: &[u8]) -> bool {
    let mut end = name_len(line);
    while let Some(rest) = line[end..].strip_prefix(b"<locals>") {
        end = line.len() - rest.len() + name_len(rest);
    }
    let (name, rest) = line.split_at(end);
    let begins = name.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_');
    let class = name.rsplit(|byte| *byte == b'.').next().unwrap_or_default();
    let qualified = name.contains(&b'.') && name.split(|byte| *byte == b'.').all(|part| !part.is_empty());
    let alone = rest.is_empty() && (class.first().is_some_and(u8::is_ascii_uppercase) || qualified);
    begins && (rest.first() == Some(&b':') || alone)
}

/// The trace of another process, which multiprocessing and concurrent.futures print between quotes.
fn is_remote_traceback(line: &[u8]) -> bool {
    line.trim_ascii_end().ends_with(b"RemoteTraceback:") && is_error_line(line)
}

pub(super) fn begin(line: &[u8]) -> Option<State> {
    if is_remote_traceback(line) { Some(State::Before) } else { is_traceback(line).then_some(State::Trace) }
}

pub(super) fn next(state: State, line: &[u8]) -> Next {
    let quotes = line == b"\"\"\"";
    let chained = begins(
        line,
        &[
            b"During handling of the above exception, another exception occurred:",
            b"The above exception was the direct cause of the following exception:",
        ],
    );
    match state {
        State::Warned | State::Chain if is_traceback(line) => goes(State::Trace),
        State::Warned if is_empty(line) => maybe(State::Warned),
        State::Warned if is_remote_traceback(line) => maybe(State::Before),
        State::Before if quotes => maybe(State::Before),
        State::Before if is_traceback(line) => goes(State::Trace),
        State::End | State::Gap if quotes => goes(State::End),
        State::Trace if is_traceback(line) => Next::Ends,
        State::Trace if is_rule(line) => goes(State::End),
        State::Trace if is_indented(line) => goes(State::Trace),
        // loguru marks the frame that caught the error, and has empty lines around it.
        State::Trace if line.starts_with(b"> File \"") => goes(State::Trace),
        State::Trace if is_empty(line) => maybe(State::Trace),
        State::Trace if is_python_error(line) => goes(State::End),
        // An exception group within another goes on behind the end of the inner one.
        State::End if is_indented(line) && matches!(line.trim_ascii_start().first(), Some(b'|' | b'+')) => {
            goes(if is_rule(line) { State::End } else { State::Trace })
        }
        State::End | State::Gap if is_database_detail(line) => goes(State::End),
        State::End | State::Gap if is_empty(line) => blank(),
        State::Gap if chained => goes(State::Chain),
        State::Chain if is_empty(line) => goes(State::Chain),
        _ => Next::Ends,
    }
}
