//! .NET's stack traces: those of exceptions, caught or not, in the languages that it speaks, and what Microsoft's console logger
//! puts around them.
//!
//! Not here: what all runtimes have in common ([`super`]).

use super::{
    State, begins, blank, goes, has_level_behind, is_empty, is_error_name, is_indented, maybe, message,
    name_len,
};
use crate::settings::pipeline::multiline::Next;

/// Heads of Microsoft's console logger; the message stands indented below.
const LEVELS: [&[u8]; 6] = [b"trce: ", b"dbug: ", b"info: ", b"warn: ", b"fail: ", b"crit: "];

pub(super) fn begin(line: &[u8]) -> Option<State> {
    if begins(line, &LEVELS) {
        return Some(State::Before);
    }
    (begins(line, &[b"Unhandled exception. ", b"Unhandled Exception: "])
        || is_throwable(line)
        || is_foreign_head(line))
    .then_some(State::Head)
}

/// `Unbehandelte Ausnahme: System.InvalidOperationException: …`: .NET speaks the language of its host.
fn is_foreign_head(line: &[u8]) -> bool {
    const HEADS: [&[u8]; 9] = [
        b"Unbehandelte Ausnahme",
        "Exception non gérée".as_bytes(),
        "Excepción no controlada".as_bytes(),
        b"Eccezione non gestita",
        "Exceção sem tratamento".as_bytes(),
        b"Onverwerkte uitzondering",
        "Необработанное исключение".as_bytes(),
        "ハンドルされていない例外".as_bytes(),
        "未经处理的异常".as_bytes(),
    ];
    let rest = HEADS.iter().find_map(|head| line.strip_prefix(*head));
    let signs = |rest: &[u8]| rest.iter().take_while(|byte| b" .:".contains(byte)).count();
    rest.is_some_and(|rest| signs(rest) > 0 && parts(&rest[signs(rest)..]).is_some())
}

/// The word before each frame, in the languages that .NET Framework and Mono speak. German, French, Spanish and Portuguese,
/// Italian, Dutch and Swedish, Polish, Czech and Russian, Japanese, Chinese.
const FOREIGN_AT: [&[u8]; 14] = [
    b"bei ",
    "à ".as_bytes(),
    b"en ",
    b"em ",
    b"a ",
    b"in ",
    b"bij ",
    b"vid ",
    b"w ",
    b"v ",
    "в ".as_bytes(),
    "場所 ".as_bytes(),
    "在 ".as_bytes(),
    "於 ".as_bytes(),
];

/// `   bei Shop.Order.Pay(Int32 id) in C:\src\Order.cs:Zeile 12.`: those words are words of prose as well, so what follows
/// must be a method with its class.
fn is_foreign_frame(line: &[u8]) -> bool {
    let Some(inside) = line.strip_prefix(b"   ") else { return false };
    let Some(method) = FOREIGN_AT.iter().find_map(|word| inside.strip_prefix(*word)) else { return false };
    let is_name = |byte: &u8| name_len(&[*byte]) == 1 || b"<>`+[],|".contains(byte);
    let len = method.iter().position(|byte| !is_name(byte)).unwrap_or(method.len());
    method[..len].contains(&b'.') && method.get(len) == Some(&b'(') && method[len..].contains(&b')')
}

/// `--- Ende der internen Ausnahmestapelüberwachung ---`
fn is_rule(inside: &[u8]) -> bool {
    inside.starts_with(b"--- ") && inside.len() > 8 && inside.ends_with(b" ---")
}

/// Behind the name of a .NET class: a class in another one has a plus sign before it, a generic one says of what.
fn class_len(line: &[u8]) -> usize {
    let mut len = 0;
    let mut within = 0_usize;
    for byte in line {
        match byte {
            b'[' if len > 0 => within += 1,
            b']' if within > 0 => within -= 1,
            b',' | b' ' | b'=' | b'&' | b'*' | b'-' if within > 0 => {}
            b'+' | b'`' if len > 0 => {}
            _ if name_len(&[*byte]) == 1 => {}
            _ => break,
        }
        len += 1;
    }
    len
}

/// Its name, and what follows: a code may stand between name and message, as in `SocketException (111): Connection refused`.
fn parts(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, rest) = line.split_at(class_len(line));
    let code = rest.strip_prefix(b" (").map(|inside| {
        let end = inside.iter().position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'-');
        inside[end.unwrap_or(inside.len())..].strip_prefix(b")").unwrap_or(rest)
    });
    let rest = code.unwrap_or(rest);
    let begins = name.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_');
    (begins && matches!(rest, [] | [b':', ..])).then_some((name, rest))
}

/// Without what it is of: a generic class has a backtick behind its name, then types in brackets.
fn without_generics(name: &[u8]) -> &[u8] {
    &name[..name.iter().position(|byte| matches!(byte, b'`' | b'[')).unwrap_or(name.len())]
}

fn is_throwable(line: &[u8]) -> bool {
    parts(line).is_some_and(|(name, _)| {
        let name = without_generics(name);
        name.contains(&b'.') && is_error_name(name)
    })
}

/// As [`super::is_class_line`], in .NET's form.
fn is_class(line: &[u8]) -> bool {
    parts(line).is_some_and(|(name, rest)| {
        let name = without_generics(name);
        let class = name.rsplit(|byte| matches!(byte, b'.' | b'+')).next().unwrap_or_default();
        let apart = name.iter().any(|byte| matches!(byte, b'.' | b'+')) || is_error_name(name);
        let first =
            class.first().is_some_and(|byte| byte.is_ascii_uppercase() || *byte >= 0x80 || *byte == b'_');
        apart && first && !has_level_behind(line, line.len() - rest.len())
    })
}

pub(super) fn next(state: State, line: &[u8]) -> Next {
    let inside = line.trim_ascii_start();
    let frame = is_indented(line) && begins(inside, &[b"at ", b"--- End of "]);
    match state {
        State::Before if is_indented(line) => goes(State::Before),
        State::Before => Next::Ends,
        _ if frame || begins(line, &[b"--- End of stack trace from previous location"]) => goes(State::Trace),
        _ if is_foreign_frame(line) => goes(State::Trace),
        State::Trace if is_rule(inside) => goes(State::Trace),
        // The message of an inner exception may have several lines, too.
        _ if is_indented(line) && inside.starts_with(b"---> ") => goes(State::Head),
        State::Warned if is_throwable(line) => goes(State::Head),
        State::Warned | State::End if is_empty(line) => maybe(State::End),
        State::End if is_throwable(line) => maybe(State::Head),
        State::Warned | State::End if is_class(line) => maybe(State::Class),
        State::Head if !is_throwable(line) => message(state, line),
        // What exceptions of databases have behind their frames.
        State::Trace if is_indented(line) && !is_empty(line) => goes(State::Trace),
        State::Trace if begins(line, &[b"ClientConnectionId:", b"Error Number:"]) => goes(State::Trace),
        State::Trace | State::Gap if is_empty(line) => blank(),
        _ => Next::Ends,
    }
}
