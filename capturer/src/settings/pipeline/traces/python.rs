//! Python's stack traces: those of exceptions, caught or not, and those of asyncio, multiprocessing and the interpreter
//! itself.
//!
//! Not here: what all runtimes have in common ([`super`]).

use super::{
    State, begins, blank, digits, goes, has, is_database_detail, is_empty, is_error_line, is_error_name,
    is_indented, maybe, name_len,
};
use crate::settings::pipeline::multiline::Next;
use crate::text::level;

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

/// `KeyError: 'sku'`, and for a class within a function `__main__.pay.<locals>.OutOfStock: 17`. Without a message, an
/// error is recognized by its capital, `KeyboardInterrupt`, or by its module: `socket.timeout`.
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

/// The trace of another process, which multiprocessing and concurrent.futures print in quotes.
fn is_remote_traceback(line: &[u8]) -> bool {
    line.trim_ascii_end().ends_with(b"RemoteTraceback:") && is_error_line(line)
}

/// The line before the trace of an uncaught exception: in a thread, a destructor, asyncio, the interpreter.
fn is_python_notice(line: &[u8]) -> bool {
    const NOTICES: [&[u8]; 7] = [
        b"Exception in thread ",
        b"Exception ignored ",
        b"Exception in callback ",
        b"Task exception was never retrieved",
        b"Future exception was never retrieved",
        b"Unhandled exception in event loop",
        b"Fatal Python error: ",
    ];
    begins(line, &NOTICES)
}

/// `future: <Task finished …>`: asyncio's words about an exception, before its trace.
fn is_asyncio_detail(line: &[u8]) -> bool {
    begins(line, &[b"future: <", b"handle: <", b"task: <", b"protocol: <", b"transport: <"])
}

/// `  File "/srv/a.py", line 3`: without a head, Python could not parse that file.
fn is_python_place(line: &[u8]) -> bool {
    line.starts_with(b"  File \"") && has(line, b", line ")
}

/// `Thread 0x00007f (most recent call first):`: where a thread was when the interpreter had to stop.
fn is_python_thread(line: &[u8]) -> bool {
    begins(line, &[b"Current thread 0x", b"Thread 0x"]) && line.ends_with(b"(most recent call first):")
}

/// `INFO:root:ready`, and `    INFO     ready` of rich's logger, which omits a time that it has just shown.
fn is_record(line: &[u8]) -> bool {
    let word = line.trim_ascii_start().split(|byte| matches!(byte, b' ' | b':')).next().unwrap_or_default();
    word.iter().all(u8::is_ascii_uppercase) && level::named(word).is_some()
}

/// What logging prints behind a record that should show where it was made.
fn is_stack(line: &[u8]) -> bool {
    line == b"Stack (most recent call last):"
}

/// `items.0.price`, before pydantic 2 `items -> 0 -> price`
fn is_field_path(line: &[u8]) -> bool {
    !is_empty(line) && !is_indented(line) && (!line.contains(&b' ') || has(line, b" -> "))
}

/// `/srv/a.py:3: DeprecationWarning: use b`: the line of source it is about follows, indented.
fn is_warning(line: &[u8]) -> bool {
    let Some(at) = memchr::memmem::find(line, b".py:") else { return false };
    let behind = &line[at + 4..];
    let Some(text) = behind[digits(behind)..].strip_prefix(b": ") else { return false };
    let (name, rest) = text.split_at(name_len(text));
    digits(behind) > 0 && name.ends_with(b"Warning") && rest.starts_with(b": ")
}

pub(super) fn begin(line: &[u8]) -> Option<State> {
    if is_warning(line) {
        return Some(State::End);
    }
    if is_remote_traceback(line) || is_python_notice(line) {
        return Some(State::Before);
    }
    if is_stack(line) {
        return Some(State::Head);
    }
    (is_traceback(line) || is_python_place(line)).then_some(State::Trace)
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
        State::Levelled | State::Warned | State::End | State::Report if is_stack(line) => goes(State::Head),
        // No exception ends these frames.
        State::Head if is_indented(line) => goes(State::Head),
        State::Warned if is_empty(line) => maybe(State::Warned),
        State::Warned if is_remote_traceback(line) => maybe(State::Before),
        State::Warned | State::Before if is_asyncio_detail(line) => maybe(State::Before),
        State::Before if quotes || is_empty(line) || line.starts_with(b"Python runtime state: ") => {
            maybe(State::Before)
        }
        State::Before if is_traceback(line) => goes(State::Trace),
        // A destructor's `BrokenPipeError: …` has no frames.
        State::Before if is_python_error(line) && is_error_name(&line[..name_len(line)]) => goes(State::End),
        State::Before | State::Trace | State::Gap if is_python_thread(line) => goes(State::Trace),
        State::Trace if begins(line, &[b"Extension modules: ", b"<no Python frame>"]) => goes(State::End),
        State::End | State::Gap | State::Report if quotes => goes(State::End),
        State::Trace | State::End if is_traceback(line) => Next::Ends,
        State::Trace if is_rule(line) => goes(State::End),
        State::Trace if is_indented(line) => goes(State::Trace),
        // loguru marks the frame that caught the error, and prints empty lines around it.
        State::Trace if line.starts_with(b"> File \"") => goes(State::Trace),
        State::Trace if is_empty(line) => maybe(State::Trace),
        State::Trace if is_python_error(line) && !is_record(line) => {
            goes(if has(line, b" validation error") { State::Report } else { State::End })
        }
        State::Report if is_field_path(line) && level::detect(line).is_none() => maybe(State::Class),
        State::Report | State::Class if is_indented(line) && !is_empty(line) => goes(State::Report),
        // An exception group around another one continues behind the end of the inner one.
        State::End if is_indented(line) && matches!(line.trim_ascii_start().first(), Some(b'|' | b'+')) => {
            goes(if is_rule(line) { State::End } else { State::Trace })
        }
        State::End | State::Gap if is_database_detail(line) => goes(State::End),
        // A message of several lines. A line that is not indented may be anything.
        State::End if is_indented(line) && !is_empty(line) && !is_python_place(line) && !is_record(line) => {
            goes(State::End)
        }
        State::End | State::Gap | State::Report if is_empty(line) => blank(),
        State::Gap if chained => goes(State::Chain),
        State::Chain if is_empty(line) => goes(State::Chain),
        _ => Next::Ends,
    }
}
