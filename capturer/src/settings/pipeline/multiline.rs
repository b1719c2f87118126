//! Which lines belong together, as a pure rule: given what the group's lines so far were, does the next one continue it?
//!
//! ```text
//! first line ─ begin ─▶ Group ─ next(line) ─▶ Some(Group): continues     None: the line begins another group
//! ```
//! Presets know the stack traces that runtimes print. A trace that follows a line with a level joins it, for logging
//! libraries print message and trace one after the other; any other line is left alone. No preset needs to see a line
//! twice or ahead, and none keeps more than one byte.
//!
//! Not here: holding lines, time and bounds (stream/).

use std::time::Duration;

use super::Pattern;
use crate::decode::level;
use crate::limits::MULTILINE_LOOK_BYTES;

/// Which lines are one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Multiline {
    /// What belongs together.
    pub rule: MultilineRule,
    /// A group ends when nothing was added to it for so long.
    pub timeout: Duration,
    /// Most lines of a group.
    pub lines_max: usize,
    /// Most bytes of a group.
    pub bytes_max: u64,
}

/// What belongs together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MultilineRule {
    /// What a runtime prints.
    Preset(MultilinePreset),
    /// At least one is given. A line that matches `start` begins a group, whatever `continues` says.
    Patterns {
        /// Found in the first line of a group; alone, every other line continues.
        start: Option<Pattern>,
        /// Found in lines that continue a group; alone, every other line begins one.
        continues: Option<Pattern>,
    },
}

/// Whose stack traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum MultilinePreset {
    Java,
    Python,
    Go,
    Node,
}

/// What the lines of an open group were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group(State);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A line that is no part of a trace.
    Plain,
    /// The same, and it names a level.
    Levelled,
    /// The head of a trace, or a line in it.
    Trace,
    /// Python: the exception's own line. Node: the trace's last line.
    End,
    /// An empty line behind that.
    Gap,
    /// Python: "During handling of the above exception…". Node: behind the source line.
    Chain,
    /// Go: between the panic and the first goroutine. Node: the place of the source line before the error.
    Before,
}

impl Multiline {
    /// The group that a line begins.
    pub fn begin(&self, line: &[u8]) -> Group {
        let line = beginning(line);
        Group(match &self.rule {
            MultilineRule::Patterns { .. } => State::Plain,
            MultilineRule::Preset(preset) => match preset {
                MultilinePreset::Java => java_begin(line),
                MultilinePreset::Python if is_traceback(line) => State::Trace,
                MultilinePreset::Go => go_begin(line),
                MultilinePreset::Node if is_source_place(line) => State::Before,
                MultilinePreset::Python | MultilinePreset::Node => plain(line),
            },
        })
    }

    /// The group with this line added; `None` = the line does not belong to it and begins another one.
    pub fn next(&self, group: Group, line: &[u8]) -> Option<Group> {
        let line = beginning(line);
        match &self.rule {
            MultilineRule::Patterns { start, continues } => {
                let begins = start.as_ref().is_some_and(|start| start.is_match(line));
                let goes_on = continues.as_ref().is_none_or(|continues| continues.is_match(line));
                (!begins && goes_on).then_some(group)
            }
            MultilineRule::Preset(preset) => {
                let next = match preset {
                    MultilinePreset::Java => java_next,
                    MultilinePreset::Python => python_next,
                    MultilinePreset::Go => go_next,
                    MultilinePreset::Node => node_next,
                };
                next(group.0, line).map(Group)
            }
        }
    }
}

fn beginning(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    &line[..line.len().min(MULTILINE_LOOK_BYTES)]
}

fn plain(line: &[u8]) -> State {
    if level::detect(line).is_some() { State::Levelled } else { State::Plain }
}

fn is_indented(line: &[u8]) -> bool {
    matches!(line.first(), Some(b' ' | b'\t'))
}

fn is_empty(line: &[u8]) -> bool {
    line.trim_ascii().is_empty()
}

/// Length of a name with dots at the start: `java.lang.IllegalStateException`.
fn name_len(line: &[u8]) -> usize {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"_$.".contains(byte) || *byte >= 0x80;
    line.iter().position(|byte| !is_part(byte)).unwrap_or(line.len())
}

/// A name, then a colon or nothing.
fn is_error_line(line: &[u8]) -> bool {
    let len = name_len(line);
    let begins = line.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_');
    begins && matches!(line.get(len..).unwrap_or_default(), [] | [b':', ..])
}

fn java_begin(line: &[u8]) -> State {
    if line.starts_with(b"Exception in thread ") || is_java_throwable(line) {
        State::Trace
    } else {
        plain(line)
    }
}

/// `java.lang.IllegalStateException: no stock`
fn is_java_throwable(line: &[u8]) -> bool {
    let name = &line[..name_len(line)];
    let tail = [&b"Exception"[..], b"Error", b"Throwable"].iter().any(|tail| name.ends_with(tail));
    name.contains(&b'.') && tail && is_error_line(line)
}

fn java_next(state: State, line: &[u8]) -> Option<State> {
    let inside = line.trim_ascii_start();
    let frame = is_indented(line)
        && (inside.starts_with(b"at ") || inside.starts_with(b"... ") || inside.starts_with(b"Suppressed: "));
    let cause =
        [&b"Caused by: "[..], b"Suppressed: ", b"Wrapped by: "].iter().any(|key| inside.starts_with(key));
    // dockerd's and log4j's `[CIRCULAR REFERENCE: …]`, and messages of several lines that are indented.
    if frame || cause || (state == State::Trace && is_indented(line)) {
        return Some(State::Trace);
    }
    (state == State::Levelled && is_java_throwable(line)).then_some(State::Trace)
}

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

/// `KeyError: 'sku'`; one without a message is told from other words by its capital: `KeyboardInterrupt`.
fn is_python_error(line: &[u8]) -> bool {
    let name = &line[..name_len(line)];
    let class = name.rsplit(|byte| *byte == b'.').next().unwrap_or_default();
    is_error_line(line) && (name.len() < line.len() || class.first().is_some_and(u8::is_ascii_uppercase))
}

fn python_next(state: State, line: &[u8]) -> Option<State> {
    let chained = line.starts_with(b"During handling of the above exception, another exception occurred:")
        || line.starts_with(b"The above exception was the direct cause of the following exception:");
    match state {
        State::Levelled | State::Chain if is_traceback(line) => Some(State::Trace),
        State::Trace if is_traceback(line) => None,
        State::Trace if is_rule(line) => Some(State::End),
        State::Trace if is_indented(line) => Some(State::Trace),
        State::Trace if is_python_error(line) => Some(State::End),
        // An exception group within another goes on behind the end of the inner one.
        State::End if is_indented(line) && matches!(line.trim_ascii_start().first(), Some(b'|' | b'+')) => {
            Some(if is_rule(line) { State::End } else { State::Trace })
        }
        State::End if is_empty(line) => Some(State::Gap),
        State::Gap if chained => Some(State::Chain),
        State::Chain if is_empty(line) => Some(State::Chain),
        _ => None,
    }
}

fn is_goroutine(line: &[u8]) -> bool {
    line.starts_with(b"goroutine ") && line.ends_with(b"]:")
}

fn go_begin(line: &[u8]) -> State {
    if is_goroutine(line) {
        State::Trace
    } else if [&b"panic: "[..], b"fatal error: ", b": panic serving "]
        .iter()
        .any(|head| memchr::memmem::find(line, head).is_some())
    {
        State::Before
    } else {
        plain(line)
    }
}

fn go_next(state: State, line: &[u8]) -> Option<State> {
    match state {
        State::Before | State::Trace | State::Levelled if is_goroutine(line) => Some(State::Trace),
        State::Before if is_empty(line) || is_indented(line) => Some(State::Before),
        State::Before if line.starts_with(b"[signal ") || line.starts_with(b"runtime: ") => {
            Some(State::Before)
        }
        // `main.f(0x1, 0x2)`, `created by main.main in goroutine 1`, `...additional frames elided...`, registers.
        State::Trace if is_empty(line) || is_indented(line) => Some(State::Trace),
        State::Trace
            if line.ends_with(b")") && line.contains(&b'(') && !line[..name_len(line)].is_empty() =>
        {
            Some(State::Trace)
        }
        State::Trace if line.starts_with(b"created by ") || line.starts_with(b"...") => Some(State::Trace),
        State::Trace if line.starts_with(b"exit status ") => Some(State::End),
        State::Trace if is_register(line) => Some(State::Trace),
        _ => None,
    }
}

/// `rax    0x0`
fn is_register(line: &[u8]) -> bool {
    let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let (Some(name), Some(value), None) = (words.next(), words.next(), words.next()) else { return false };
    name.len() <= 6 && value.starts_with(b"0x")
}

/// `/srv/app/order.js:5`, `node:internal/x:12`, `file:///srv/order.mjs:5`
fn is_source_place(line: &[u8]) -> bool {
    let place = [&b"/"[..], b"node:", b"file:///"].iter().any(|start| line.starts_with(start));
    let digits = line.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    place
        && digits > 0
        && line.len() > digits
        && line[line.len() - digits - 1] == b':'
        && !line.contains(&b' ')
}

fn node_next(state: State, line: &[u8]) -> Option<State> {
    let frame = is_indented(line) && line.trim_ascii_start().starts_with(b"at ");
    match state {
        _ if frame => Some(State::Trace),
        // The source line, the mark below it, an empty line, then the error itself.
        State::Before => Some(State::Chain),
        State::Chain if is_error_line(line) && line.contains(&b':') => Some(State::Trace),
        State::Chain if is_empty(line) || line.trim_ascii().iter().all(|byte| *byte == b'^') => {
            Some(State::Chain)
        }
        State::Trace if is_indented(line) => Some(State::Trace),
        State::Trace if line == b"}" => Some(State::Trace),
        State::Trace if is_empty(line) => Some(State::Gap),
        State::Gap if line.starts_with(b"Node.js v") => Some(State::End),
        _ => None,
    }
}

#[cfg(test)]
#[path = "multiline_tests.rs"]
mod tests;
