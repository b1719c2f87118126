//! The stack traces that runtimes print, line by line: for each runtime how a trace begins, and which lines continue
//! it.
//!
//! What can only be said later is said as [`Next::Maybe`]: the second line of an exception's message is like any other
//! line, until a frame follows it. Python's and .NET's traces have files of their own.

mod dotnet;
mod python;

use super::multiline::{Group, MultilinePreset, Next};
use crate::text::level;

/// What the lines of an open group have been so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A line that is not part of a trace.
    Plain,
    /// As `Plain`, with a level below warn.
    Levelled,
    /// As `Plain`, with level warn or above. Only such a line is joined by the head of a trace behind it: a program
    /// that crashes prints its trace behind whatever it logged last, and whoever drops info must still see the crash.
    Warned,
    /// A JSON object. It is a complete record; with anything joined to it, it would not be JSON any more.
    Object,
    /// The head of a trace without a frame so far. Python: frames that no exception ends.
    Head,
    /// A line that may be the head of a trace, judging only by its form: a class with a message. It is one only if a
    /// frame follows at once. Python: the name of a field, before what is wrong with it. Go: a line that may come
    /// before a data race.
    Class,
    /// Frames of a stack trace.
    Trace,
    /// The last line of a trace.
    End,
    /// Empty lines behind a trace, or before a trace that follows a line with a level.
    Gap,
    /// Python: "During handling of the above exception…". Node: behind the source line. Rust: `Error: …` of a main.
    /// PHP: a frame whose argument continues in the next line. Ruby: frames of an exception raised while handling
    /// another one, which follows.
    Chain,
    /// Before the trace itself. Go: the panic. Node: the place of the source line. Rust: the panic, whose message
    /// follows. Java: the first line of a record of java.util.logging. .NET: the head of its console logger. Python: the line that says where an uncaught exception was. Ruby:
    /// the head of an exception raised while handling another one.
    Before,
    /// Further lines of a report with its own format. Python: the fields that pydantic refuses. Go: a data race.
    Report,
    /// Postgres: a message of the process with this number.
    Process(u32),
}

/// The state after a first line.
pub(super) fn begin(preset: MultilinePreset, line: &[u8]) -> State {
    if is_object(line) {
        return State::Object;
    }
    let head = match preset {
        MultilinePreset::Java if is_jul_place(line) => Some(State::Before),
        MultilinePreset::Java => (is_java_head(behind_sbt(line)) || is_thread(line)).then_some(State::Head),
        MultilinePreset::Python => python::begin(line),
        MultilinePreset::Go => go_begin(line),
        MultilinePreset::Node => node_begin(line),
        MultilinePreset::Dotnet => dotnet::begin(line),
        MultilinePreset::Ruby => ruby_begin(untagged(line)),
        MultilinePreset::Php => php_begin(line),
        MultilinePreset::Rust => rust_begin(line),
        MultilinePreset::Postgres => Some(postgres_process(line).map_or(State::Plain, State::Process)),
    };
    head.unwrap_or_else(|| plain(line))
}

/// What a line does to the lines before it.
pub(super) fn next(preset: MultilinePreset, state: State, line: &[u8]) -> Next {
    if state == State::Object {
        return Next::Ends;
    }
    match preset {
        MultilinePreset::Java => java_next(state, line),
        MultilinePreset::Python => python::next(state, line),
        MultilinePreset::Go => go_next(state, line),
        MultilinePreset::Node => node_next(state, line),
        MultilinePreset::Dotnet => dotnet::next(state, line),
        MultilinePreset::Ruby => ruby_next(state, line),
        MultilinePreset::Php => php_next(state, line),
        MultilinePreset::Rust => rust_next(state, line),
        MultilinePreset::Postgres => postgres_next(state, line),
    }
}

fn goes(state: State) -> Next {
    Next::Goes(Group(state))
}

fn maybe(state: State) -> Next {
    Next::Maybe(Group(state))
}

fn blank() -> Next {
    Next::Blank(Group(State::Gap))
}

fn plain(line: &[u8]) -> State {
    match level::detect(line) {
        None => State::Plain,
        Some("warn" | "error" | "fatal") => State::Warned,
        Some(_) => State::Levelled,
    }
}

/// Judged by its beginning, because only the first part of a long line is looked at.
fn is_object(line: &[u8]) -> bool {
    line.strip_prefix(b"{").is_some_and(|inside| inside.trim_ascii_start().starts_with(b"\""))
}

/// A line behind the head of a trace that is not a frame: part of its message if a frame follows. A line with a level
/// is a record of its own.
fn message(state: State, line: &[u8]) -> Next {
    let goes_on = is_indented(line) || level::detect(line).is_none() || quotes_database(line);
    if goes_on { maybe(state) } else { Next::Ends }
}

/// `(17) was aborted: ERROR: duplicate key`: the level is the database's, quoted by the driver.
fn quotes_database(line: &[u8]) -> bool {
    let at = [&b": ERROR: "[..], b": FATAL: "].iter().find_map(|quoted| memchr::memmem::find(line, quoted));
    at.is_some_and(|at| level::detect(&line[..at]).is_none())
}

/// Marks below a piece of source: `    ^^^`
fn is_mark(line: &[u8]) -> bool {
    let inside = line.trim_ascii();
    !inside.is_empty() && inside.iter().all(|byte| *byte == b'^')
}

fn is_indented(line: &[u8]) -> bool {
    matches!(line.first(), Some(b' ' | b'\t'))
}

fn is_empty(line: &[u8]) -> bool {
    line.trim_ascii().is_empty()
}

fn begins(line: &[u8], heads: &[&[u8]]) -> bool {
    heads.iter().any(|head| line.starts_with(head))
}

fn has(line: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(line, part).is_some()
}

/// Length of a name with dots at the start: `java.lang.IllegalStateException`.
fn name_len(line: &[u8]) -> usize {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"_$.".contains(byte) || *byte >= 0x80;
    line.iter().position(|byte| !is_part(byte)).unwrap_or(line.len())
}

fn digits(line: &[u8]) -> usize {
    line.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

/// A name followed by a colon or by nothing.
fn is_error_line(line: &[u8]) -> bool {
    let len = name_len(line);
    let begins = line.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_');
    begins && matches!(line.get(len..).unwrap_or_default(), [] | [b':', ..])
}

/// `java.lang.IllegalStateException: no stock`, and a class within one: `a.HttpClientErrorException$NotFound: 404`
fn is_throwable(line: &[u8]) -> bool {
    let name = &line[..name_len(line)];
    name.contains(&b'.') && is_error_name(name) && is_error_line(line)
}

/// Whether a class of this name is an error: its own name or that of the class around it says so.
fn is_error_name(name: &[u8]) -> bool {
    let class = name.rsplit(|byte| *byte == b'.').next().unwrap_or_default();
    class
        .split(|byte| matches!(byte, b'$' | b'+'))
        .any(|part| [&b"Exception"[..], b"Error", b"Throwable"].iter().any(|tail| part.ends_with(tail)))
}

/// `com.a.MyFailure: no stock`, `com.a.B$C`, `MyException: no stock`. Programs name their errors freely, so this may be
/// any line; only a trace has a frame behind it. With a level behind the name the line is a record of its own.
fn is_class_line(line: &[u8]) -> bool {
    let name = &line[..name_len(line)];
    let class = name.rsplit(|byte| *byte == b'.').next().unwrap_or_default();
    let apart = name.iter().any(|byte| matches!(byte, b'.' | b'$')) || is_error_name(name);
    let first = class.first().is_some_and(|byte| byte.is_ascii_uppercase() || *byte >= 0x80 || *byte == b'_');
    apart && first && is_error_line(line) && !has_level_behind(line, name.len())
}

/// `shop.Order: ERROR …`: a logger's name, then a level.
fn has_level_behind(line: &[u8], name_len: usize) -> bool {
    let message = line.get(name_len + 1..).unwrap_or_default().trim_ascii_start();
    let word = message.split(|byte| *byte == b' ').next().unwrap_or_default();
    level::detect(word).is_some()
}

fn is_java_head(line: &[u8]) -> bool {
    line.starts_with(b"Exception in thread ") || is_throwable(line)
}

/// sbt and Mill put the level of their own log before each line of a trace: `[error] java.lang.Error: x`, `[error] »at a.B`.
fn behind_sbt(line: &[u8]) -> &[u8] {
    line.strip_prefix(b"[error] ").or_else(|| line.strip_prefix(b"[warn] ")).unwrap_or(line)
}

/// `"main" #1 prio=5 os_prio=0 tid=0x7f nid=0x1b runnable`: a thread in a dump, before its state and its frames.
fn is_thread(line: &[u8]) -> bool {
    line.starts_with(b"\"") && has(line, b"\" #") && has(line, b" tid=0x")
}

/// `Nov 22, 2026 10:00:00 AM com.a.App main`: java.util.logging prints each record in two lines, unless it is told otherwise.
fn is_jul_place(line: &[u8]) -> bool {
    let mut words = line.split(|byte| *byte == b' ');
    let mut next = || words.next().unwrap_or_default();
    let (month, day, year, time, half, class) = (next(), next(), next(), next(), next(), next());
    let is_name = |word: &[u8]| !word.is_empty() && digits(word) == 0;
    let is_day = day.strip_suffix(b",").is_some_and(|day| !day.is_empty() && digits(day) == day.len());
    let is_time = time.iter().filter(|byte| **byte == b':').count() == 2
        && time.iter().all(|byte| byte.is_ascii_digit() || *byte == b':');
    is_day && is_time && digits(year) == 4 && year.len() == 4 && [month, half, class].into_iter().all(is_name)
}

/// The second line of such a record: `SEVERE: no stock`, in other languages `SCHWERWIEGEND: …`.
fn jul_level(line: &[u8]) -> Option<State> {
    let end = memchr::memmem::find(line, b": ")?;
    let name = &line[..end];
    let is_level = !name.is_empty() && name.iter().all(|byte| byte.is_ascii_uppercase() || *byte >= 0x80);
    is_level.then(|| match level::named(name) {
        Some("trace" | "debug" | "info") => State::Levelled,
        _ if name == b"CONFIG" => State::Levelled,
        _ => State::Warned,
    })
}

fn java_next(state: State, line: &[u8]) -> Next {
    let (whole, line) = (line, behind_sbt(line));
    let inside = line.trim_ascii_start();
    let frame = is_indented(line) && begins(inside, &[b"at ", b"... "]);
    let cause = begins(inside, &[b"Caused by: ", b"Suppressed: ", b"Wrapped by: "]);
    if frame || cause {
        // The message of a cause may have several lines, too.
        return goes(if frame { State::Trace } else { State::Head });
    }
    match state {
        State::Before => jul_level(line).map_or(Next::Ends, goes),
        // `[CIRCULAR REFERENCE: …]` of dockerd and log4j, and indented messages of several lines.
        State::Trace | State::Head if is_indented(line) && !is_empty(line) => goes(state),
        State::Trace | State::Gap if is_empty(line) => blank(),
        // Each line of sbt's has a level, and may be one of its own.
        State::Warned if is_java_head(line) && whole != line => maybe(State::Head),
        State::Warned if is_java_head(line) => goes(State::Head),
        // Tomcat's own log indents the whole trace.
        State::Warned if is_indented(line) && is_java_head(inside) => maybe(State::Head),
        // Spring Boot prints an empty line before and behind the trace.
        State::Warned | State::End if is_empty(line) => maybe(State::End),
        State::End if is_java_head(line) => maybe(State::Head),
        State::Warned | State::End if is_class_line(line) => maybe(State::Class),
        // `  Detail: …`
        State::Class if is_indented(line) && !is_empty(line) => maybe(State::Class),
        // Reactor's words before the frames, the last of which looks like a level.
        State::Head if line == b"Original Stack Trace:" => maybe(State::Head),
        State::Head if is_padded_key(line) => maybe(State::Head),
        State::Head if !is_java_head(line) => message(state, line),
        _ => Next::Ends,
    }
}

/// `Message    : ERROR: relation exists`: Flyway's messages have several such lines. The level is the database's.
fn is_padded_key(line: &[u8]) -> bool {
    const KEY_BYTES_MAX: usize = 24;
    let near = &line[..line.len().min(KEY_BYTES_MAX)];
    let Some(colon) = memchr::memchr(b':', near) else { return false };
    let (key, value) = (&line[..colon], &line[colon + 1..]);
    let name = key.trim_ascii_end();
    name.len() < key.len()
        && value.first().is_none_or(|byte| *byte == b' ')
        && name.first().is_some_and(u8::is_ascii_uppercase)
        && name.iter().all(|byte| byte.is_ascii_alphabetic() || *byte == b' ')
        && level::named(name).is_none()
}

fn is_goroutine(line: &[u8]) -> bool {
    line.starts_with(b"goroutine ") && line.ends_with(b"]:")
}

/// The race detector's line before and behind a report, and the report's head.
const RACE_RULE: &[u8] = b"==================";
const RACE: &[u8] = b"WARNING: DATA RACE";

fn go_begin(line: &[u8]) -> Option<State> {
    let heads: [&[u8]; 9] = [
        b"SIGQUIT: ",
        b"SIGABRT: ",
        b"SIGSEGV: ",
        b"SIGBUS: ",
        b"SIGILL: ",
        b"SIGFPE: ",
        // Why the program ends: out of memory, too many threads, a stack that is too large.
        b"runtime: ",
        b"runtime/cgo: ",
        b"unexpected fault address ",
    ];
    let panics = [&b"panic: "[..], b"fatal error: ", b": panic serving ", b" panic recovered:"];
    if line == RACE_RULE {
        Some(State::Class)
    } else if line == RACE {
        Some(State::Report)
    } else if is_goroutine(line) || line == b"runtime stack:" {
        Some(State::Trace)
    } else if begins(line, &heads) || panics.iter().any(|head| has(line, head)) {
        Some(State::Before)
    } else {
        None
    }
}

fn go_next(state: State, line: &[u8]) -> Next {
    let stack = is_goroutine(line) || line == b"runtime stack:";
    match state {
        State::Before | State::Trace | State::Warned | State::Gap if stack => goes(State::Trace),
        State::Class if line == RACE => goes(State::Report),
        State::Report if line == RACE_RULE => goes(State::End),
        State::Report if is_empty(line) => maybe(State::Report),
        // `Previous write at 0x00c0 by goroutine 7:`, then its frames.
        State::Report if is_indented(line) || line.ends_with(b":") => goes(State::Report),
        State::Before if is_empty(line) => maybe(State::Before),
        State::Before if is_indented(line) => goes(State::Before),
        State::Before
            if begins(
                line,
                &[
                    b"[signal ",
                    b"signal arrived ",
                    b"runtime: ",
                    b"fatal error: ",
                    b"SIGABRT: ",
                    b"PC=",
                    b"sp=",
                ],
            ) =>
        {
            goes(State::Before)
        }
        // gin prints this behind the request and the panic; its frames have no goroutine above them.
        State::Before | State::Trace if is_gin_place(line) => goes(State::Trace),
        // The value of a panic may have several lines.
        State::Before if level::detect(line).is_none() || line.starts_with(b"runtime error: ") => {
            maybe(State::Before)
        }
        State::Trace | State::Gap if is_empty(line) => blank(),
        // `main.f(0x1, 0x2)`, `created by main.main in goroutine 1`, `...additional frames elided...`, registers.
        State::Trace if is_indented(line) => goes(State::Trace),
        State::Trace
            if line.ends_with(b")") && line.contains(&b'(') && !line[..name_len(line)].is_empty() =>
        {
            goes(State::Trace)
        }
        State::Trace if begins(line, &[b"created by ", b"..."]) => goes(State::Trace),
        State::Trace | State::Gap if line.starts_with(b"exit status ") => goes(State::End),
        State::Trace | State::Gap if is_register(line) => goes(State::Trace),
        State::Levelled | State::Warned | State::Trace if is_go_function(line) => maybe(State::Class),
        State::Class if is_go_place(line) => goes(State::Trace),
        _ => Next::Ends,
    }
}

/// A function as libraries print it that log an error's stack (zap, pkg/errors): `main.pay`, `net/http.(*conn).serve`.
fn is_go_function(line: &[u8]) -> bool {
    let part = |byte: &u8| byte.is_ascii_alphanumeric() || b"._/-()*[]~%{}".contains(byte) || *byte >= 0x80;
    let begins = line.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_');
    begins && line.contains(&b'.') && line.iter().all(part)
}

/// `/srv/main.go:12 (0x7f)`
fn is_gin_place(line: &[u8]) -> bool {
    line.starts_with(b"/") && line.ends_with(b")") && has(line, b".go:") && has(line, b" (0x")
}

/// A place in the source: `»/srv/main.go:8`
fn is_go_place(line: &[u8]) -> bool {
    let behind = line.strip_prefix(b"\t").and_then(|inside| {
        let at = memchr::memmem::rfind(inside, b".go:")?;
        Some(&inside[at + 4..])
    });
    behind.is_some_and(|number| digits(number) > 0)
}

/// A register as the Go runtime prints it: `rax    0x0`.
fn is_register(line: &[u8]) -> bool {
    let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let (Some(name), Some(value), None) = (words.next(), words.next(), words.next()) else { return false };
    name.len() <= 6 && value.starts_with(b"0x")
}

/// `/srv/app/order.js:5`, `node:internal/x:12`, before Node 16 `internal/x.js:12`, `file:///srv/order.mjs:5`
fn is_source_place(line: &[u8]) -> bool {
    let digits = line.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    begins(line, &[b"/", b"node:", b"file:///", b"internal/"])
        && digits > 0
        && line.len() > digits
        && line[line.len() - digits - 1] == b':'
        && !line.contains(&b' ')
}

/// `Error: x`, `TypeError [ERR_INVALID_ARG_TYPE]: x`, `Uncaught Error: x`
fn is_node_error(line: &[u8]) -> bool {
    let (name, rest) = node_name(line);
    let is_error = name.ends_with(b"Error") || name.ends_with(b"Exception");
    is_error && (rest.is_empty() || begins(rest, &[b":", b" ["]))
}

fn node_name(line: &[u8]) -> (&[u8], &[u8]) {
    let line = line.strip_prefix(b"Uncaught ").unwrap_or(line);
    line.split_at(name_len(line))
}

/// `OutOfStock: 17`, `NotFound [E404]: /cart`: an error that the program defines. A level before a colon is not one.
fn is_node_class(line: &[u8]) -> bool {
    let (name, rest) = node_name(line);
    let first = name.first().is_some_and(u8::is_ascii_uppercase);
    let levels = level::detect(line).is_some() || has_level_behind(line, line.len() - rest.len());
    first && (rest.is_empty() || begins(rest, &[b":", b" ["])) && !levels
}

fn node_begin(line: &[u8]) -> Option<State> {
    // Deno's head has a level.
    let is_head = is_node_error(line) || line.starts_with(b"error: Uncaught ");
    if is_source_place(line) { Some(State::Before) } else { is_head.then_some(State::Head) }
}

fn node_next(state: State, line: &[u8]) -> Next {
    let frame = is_indented(line) && line.trim_ascii_start().starts_with(b"at ");
    match state {
        _ if frame => goes(State::Trace),
        // The source line, the mark below it, an empty line, then the error.
        State::Before => maybe(State::Chain),
        State::Chain if is_error_line(line) && line.contains(&b':') || is_node_error(line) => {
            maybe(State::Head)
        }
        State::Chain if is_empty(line) || is_mark(line) => maybe(State::Chain),
        // The thrown value is not an error; its object follows.
        State::Chain if line.starts_with(b"[UnhandledPromiseRejection: ") => goes(State::Trace),
        State::Warned if is_node_error(line) => maybe(State::Head),
        // The errors of node-postgres have no other name.
        State::Warned if line.starts_with(b"error: ") => maybe(State::Class),
        State::Warned if is_node_class(line) => maybe(State::Class),
        // An event without a listener: behind the place where it was made comes the place where it was emitted.
        State::Trace if line.starts_with(b"Emitted 'error' event ") => goes(State::Trace),
        State::Head if !is_node_error(line) => message(state, line),
        State::Trace if is_empty(line) => blank(),
        State::Trace if is_indented(line) || begins(line, &[b"}"]) => goes(State::Trace),
        State::Gap if is_empty(line) => blank(),
        State::Gap if line.starts_with(b"Node.js v") => goes(State::End),
        _ => Next::Ends,
    }
}

/// Behind ``path:12:in `method'`` or `path:12:in 'Class#method'`; nothing if it is no such place.
fn behind_ruby_place(line: &[u8]) -> Option<&[u8]> {
    let at = memchr::memmem::find(line, b":in ")?;
    let number = line[..at].iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let method = line[at + 4..].strip_prefix(b"`").or_else(|| line[at + 4..].strip_prefix(b"'"))?;
    let end = memchr::memchr(b'\'', method)?;
    (number > 0 && line[..at - number].ends_with(b":")).then(|| &method[end + 1..])
}

/// ``app.rb:5:in `pay': no stock (RuntimeError)``, or Rails' `RuntimeError (no stock):`
fn is_ruby_head(line: &[u8]) -> bool {
    let uncaught = behind_ruby_place(line).is_some_and(|rest| rest.starts_with(b": ") && !is_indented(line));
    let name = line.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b':').count();
    let class = name > 0 && line[0].is_ascii_uppercase();
    uncaught || class && line[name..].starts_with(b" (") && line.ends_with(b"):")
}

/// `Shop::OutOfStock: 17`, as programs print an error they define.
fn is_ruby_class(line: &[u8]) -> bool {
    let name = line.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b':').count();
    let (name, rest) = line.split_at(name);
    let class = name.strip_suffix(b":").unwrap_or(name);
    class.first().is_some_and(u8::is_ascii_uppercase)
        && (has(class, b"::") || is_error_name(class))
        && (rest.is_empty() || name.len() > class.len() && rest[0] == b' ')
        && !has_level_behind(line, class.len())
}

/// Rails' head again, with a message of several lines, the last of which is `):`.
fn is_open_ruby_head(line: &[u8]) -> bool {
    let name = line.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b':').count();
    let (name, rest) = line.split_at(name);
    name.first().is_some_and(u8::is_ascii_uppercase)
        && (has(name, b"::") || is_error_name(name))
        && rest.starts_with(b" (")
        && !rest.contains(&b')')
}

fn ruby_begin(line: &[u8]) -> Option<State> {
    if is_ruby_head(line) || is_open_ruby_head(line) {
        return Some(ruby_head(line));
    }
    // Sinatra's `2026-11-22 10:00:00 - RuntimeError - no stock:` begins with a time, and so does Puma's
    // `… Rack app ("GET /" - (127.0.0.1)): #<RuntimeError: no stock>`.
    let dumped = line.ends_with(b":") && has(line, b" - ") || line.ends_with(b">") && has(line, b": #<");
    ((is_ruby_class(line) || dumped) && level::detect(line).is_none()).then_some(State::Class)
}

fn ruby_head(line: &[u8]) -> State {
    if is_in_rescue(line) { State::Before } else { State::Head }
}

/// ``app.rb:5:in `rescue in pay'``: where another exception was being handled, which Ruby prints behind this trace.
fn is_in_rescue(line: &[u8]) -> bool {
    [&b"rescue in "[..], b"ensure in "].iter().any(|part| has(line, part))
}

/// Rails puts a request's number before each of its lines: `[0af7651916cd] `.
fn untagged(line: &[u8]) -> &[u8] {
    const TAG_BYTES_MAX: usize = 64;
    let Some(tag) = line.strip_prefix(b"[") else { return line };
    let end = tag.iter().take(TAG_BYTES_MAX).position(|byte| *byte == b']');
    end.and_then(|end| tag[end + 1..].strip_prefix(b" ")).unwrap_or(line)
}

fn ruby_next(state: State, line: &[u8]) -> Next {
    let line = untagged(line);
    let inside = line.trim_ascii_start();
    let place = behind_ruby_place(inside.strip_prefix(b"from ").unwrap_or(inside));
    let frame = place.is_some_and(|rest| rest.is_empty());
    match state {
        State::Before | State::Chain if frame => goes(State::Chain),
        State::Head
        | State::Class
        | State::Trace
        | State::Levelled
        | State::Warned
        | State::Gap
        | State::End
            if frame =>
        {
            goes(if is_in_rescue(line) { State::Chain } else { State::Trace })
        }
        State::Chain if is_ruby_head(line) => goes(ruby_head(line)),
        State::Trace | State::Chain if inside.starts_with(b"... ") && is_indented(line) => goes(state),
        State::Warned | State::End if is_empty(line) => maybe(State::End),
        State::Warned | State::End if is_ruby_head(line) || is_open_ruby_head(line) => maybe(ruby_head(line)),
        State::Warned | State::End if is_ruby_class(line) => maybe(State::Class),
        State::Trace | State::Chain | State::Gap if line.starts_with(b"Causes:") => goes(State::Head),
        // Below a message Ruby shows the piece of source it is about, and what may have been meant.
        State::Head | State::Before if is_mark(line) || line.starts_with(b"Did you mean?") => goes(state),
        State::Head | State::Before if !is_ruby_head(line) => message(state, line),
        State::Trace | State::Chain | State::Gap if is_empty(line) => blank(),
        _ => Next::Ends,
    }
}

fn is_php_head(line: &[u8]) -> bool {
    [&b"Fatal error: "[..], b"Uncaught "].iter().any(|head| has(line, head))
}

fn php_begin(line: &[u8]) -> Option<State> {
    if is_php_head(line) {
        return Some(State::Head);
    }
    (is_php_thrown(line) && level::detect(line).is_none()).then_some(State::Class)
}

/// An exception as text: `Shop\OutOfStock: 17 in /srv/order.php:12`. error_log puts a time before it.
fn is_php_thrown(line: &[u8]) -> bool {
    let number = line.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    number > 0 && line[..line.len() - number].ends_with(b".php:") && has(line, b" in /")
}

fn php_next(state: State, line: &[u8]) -> Next {
    let frame = line
        .strip_prefix(b"#")
        .is_some_and(|rest| digits(rest) > 0 && rest[digits(rest)..].starts_with(b" "));
    let inside = line.strip_prefix(b"PHP ").unwrap_or_default().trim_ascii_start();
    let numbered = digits(inside) > 0 && inside[digits(inside)..].starts_with(b". ");
    let is_closed = line.ends_with(b")") || line.ends_with(b"}");
    match state {
        State::Head | State::Class | State::Levelled | State::Warned | State::Trace | State::Gap
            if begins(
                line,
                &[b"Stack trace:", b"PHP Stack trace:", b"[stacktrace]", b"[previous exception]"],
            ) =>
        {
            goes(State::Trace)
        }
        State::Trace | State::Chain if frame && !is_closed => goes(State::Chain),
        State::Trace | State::Chain if frame || numbered => goes(State::Trace),
        // The argument of a frame continues.
        State::Chain => maybe(if is_closed { State::Trace } else { State::Chain }),
        // Monolog's exception is a string in JSON: its end, other keys, then the record's `extra`.
        State::Trace if begins(line, &[b"  thrown in ", b"\"}", b"\","]) => goes(State::End),
        State::Trace | State::Gap if line.starts_with(b"Next ") => maybe(State::Head),
        State::Warned if php_begin(line) == Some(State::Class) => maybe(State::Class),
        State::Trace | State::Gap if is_empty(line) => blank(),
        State::Head if !is_php_head(line) => message(state, line),
        _ => Next::Ends,
    }
}

fn rust_begin(line: &[u8]) -> Option<State> {
    if line.starts_with(b"thread '") && has(line, b"panicked at ") {
        // Before Rust 1.73 the message is in the first line.
        return Some(if line.ends_with(b":") { State::Before } else { State::Head });
    }
    if line.starts_with(b"thread '") && line.ends_with(b" has overflowed its stack") {
        return Some(State::Class);
    }
    line.starts_with(b"Error: ").then_some(State::Chain)
}

fn rust_next(state: State, line: &[u8]) -> Next {
    let inside = line.trim_ascii_start();
    let numbered = digits(inside) > 0 && inside[digits(inside)..].starts_with(b": ");
    let title = begins(line, &[b"stack backtrace:", b"Stack backtrace:", b"Caused by:"]);
    let note = begins(line, &[b"note: run with `RUST_BACKTRACE", b"note: Some details are omitted"]);
    let aborts = line.starts_with(b"thread ") && line.ends_with(b". aborting.");
    match state {
        State::Before => goes(State::Head),
        State::Head | State::Trace if note => goes(State::End),
        State::Head | State::Trace | State::End if aborts => goes(State::End),
        State::Class | State::End if line.starts_with(b"fatal runtime error: ") => goes(State::End),
        State::Head
        | State::Chain
        | State::Trace
        | State::Gap
        | State::End
        | State::Levelled
        | State::Warned
            if title =>
        {
            goes(State::Trace)
        }
        State::Warned if line.starts_with(b"Error: ") => maybe(State::Chain),
        State::Warned if line.starts_with(b"thread '") => rust_begin(line).map_or(Next::Ends, maybe),
        State::Trace if is_indented(line) && !is_empty(line) || numbered => goes(State::Trace),
        // color-eyre's causes, place and backtrace.
        State::Chain if is_indented(line) && numbered => goes(State::Trace),
        State::Trace | State::Gap if line == b"Location:" => goes(State::Trace),
        State::Trace | State::Gap if line.starts_with(b"Backtrace omitted. Run with RUST_") => {
            goes(State::Trace)
        }
        State::Trace if line.starts_with(b"Run with RUST_") => goes(State::Trace),
        State::Gap if is_indented(line) && has(line, "━━━".as_bytes()) => goes(State::Trace),
        State::Trace | State::Gap if is_empty(line) => blank(),
        State::Chain | State::End | State::Levelled | State::Warned if is_empty(line) => maybe(State::End),
        State::Head if rust_begin(line).is_none() => message(state, line),
        _ => Next::Ends,
    }
}

/// What database drivers print behind an error: libpq's further lines, SQLAlchemy's statement.
fn is_database_detail(line: &[u8]) -> bool {
    let line_number = line.strip_prefix(b"LINE ").is_some_and(|rest| digits(rest) > 0);
    let keys: [&[u8]; 6] =
        [b"DETAIL:  ", b"HINT:  ", b"CONTEXT:  ", b"[SQL: ", b"[parameters: ", b"(Background on this error"];
    line_number || begins(line, &keys) || line.trim_ascii() == b"^"
}

/// Keys of the lines that follow a message of the server.
const POSTGRES_MORE: [&[u8]; 6] =
    [b"DETAIL:  ", b"HINT:  ", b"CONTEXT:  ", b"STATEMENT:  ", b"QUERY:  ", b"LOCATION:  "];

/// The number in the first brackets that contain one: `[71]`, `[71-1]`.
fn postgres_process(line: &[u8]) -> Option<u32> {
    let mut rest = line;
    while let Some(at) = memchr::memchr(b'[', rest) {
        rest = &rest[at + 1..];
        let len = digits(rest);
        if (1..=9).contains(&len) && matches!(rest.get(len), Some(b']' | b'-')) {
            return std::str::from_utf8(&rest[..len]).ok()?.parse().ok();
        }
    }
    None
}

fn postgres_next(state: State, line: &[u8]) -> Next {
    // The server puts a tab before each further line of a message; libpq's further lines have keys.
    if line.starts_with(b"\t") || is_database_detail(line) || begins(line, &POSTGRES_MORE) {
        return goes(state);
    }
    let more = POSTGRES_MORE.iter().any(|key| has(line, key));
    match (state, postgres_process(line)) {
        (State::Process(before), Some(process)) if more && before == process => goes(state),
        (State::Plain, None) if more => goes(state),
        _ => Next::Ends,
    }
}
