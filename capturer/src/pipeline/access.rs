//! Lines of web servers: access logs as Apache and nginx write them, and their error logs.
//!
//! ```text
//! common       10.0.0.7 - ann [22/Nov/2026:01:52:48 +0100] "GET /a HTTP/1.1" 200 512
//! combined     … "https://from.example/" "Mozilla/5.0"           a virtual host before the client is taken too
//!              203.0.113.7, 10.0.0.2 - - […                      what it was forwarded for, where a server logs that first
//! nginx        … "203.0.113.7"                                   the same behind the line, if it is addresses
//!              2026/11/22 01:52:48 [error] 7#8: *9 open() failed, client: 10.0.0.7, server: a.example, request: "GET / …"
//! apache_error [Sun Nov 22 01:52:48.5 2026] [core:error] [pid 7:tid 8] [client 10.0.0.7:5] AH00126: Invalid URI
//! ```
//! Times become ISO 8601, which the timestamp step reads without a format. Error logs have no zone.

use super::parse::{Found, NotThis};
use crate::decode::work;
use crate::model::fields::Value;

/// What an access log has behind the number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    Nothing,
    /// Referer and agent, and whatever the server's own format adds.
    Agent,
}

const MONTHS: [&[u8]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
/// Longest text of names and addresses before the time.
const HEAD_BYTES_MAX: usize = 1024;

/// A line of an access log.
pub(super) fn access(line: &[u8], behind: Behind, into: &mut Found) -> Result<(), NotThis> {
    let head_len = memchr::memmem::find(&line[..line.len().min(HEAD_BYTES_MAX)], b" [").ok_or(NotThis)?;
    work::add(line.len());
    let head = Head::of(&line[..head_len])?;
    let (time, rest) = bracketed(&line[head_len + 1..]).ok_or(NotThis)?;
    let time = access_time(time).ok_or(NotThis)?;
    let (request, rest) = quoted(after_blank(rest)?)?;
    let (status, rest) = word(after_blank(rest)?);
    let (bytes, mut rest) = word(after_blank(rest)?);
    let status_number = number(status).filter(|status| (100..=999).contains(status)).ok_or(NotThis)?;
    if bytes != b"-" && number(bytes).is_none() {
        return Err(NotThis);
    }
    let mut texts = Vec::new();
    if behind == Behind::Agent {
        for _ in 0..2 {
            let (text, behind) = quoted(after_blank(rest)?)?;
            texts.push(text);
            rest = behind;
        }
        // nginx's own config adds this; other additions can be anything.
        if let Ok((text, _)) = after_blank(rest).and_then(quoted)
            && are_addresses(&text)
        {
            texts.push(text);
        }
    } else if !rest.is_empty() {
        return Err(NotThis);
    }
    head.set(into);
    into.set("time", Value::Text(&time));
    set_request(&request, into);
    into.set("status", Value::Number(&status_number.to_string()));
    if bytes != b"-" {
        set_number("bytes", bytes, into);
    }
    for (name, text) in ["referer", "agent", "forwarded_for"].into_iter().zip(&texts) {
        set_text(name, text, into);
    }
    let level = match status_number {
        500.. => "error",
        400..500 => "warn",
        _ => "info",
    };
    into.set("level", Value::Text(level));
    Ok(())
}

/// The fields in front of an access log line that say who made the request.
struct Head<'l> {
    vhost: Option<&'l [u8]>,
    client: &'l [u8],
    /// All addresses, if the client is logged together with the proxies on its way.
    forwarded_for: Option<&'l [u8]>,
    user: &'l [u8],
}

impl Head<'_> {
    fn of(head: &[u8]) -> Result<Head<'_>, NotThis> {
        let (first, rest) = addresses(head);
        let (second, behind) = addresses(after_blank(rest)?);
        let blanks = behind.iter().filter(|byte| **byte == b' ').count();
        let is_vhost = blanks > 1 && (has_port(first) || are_addresses(second));
        // Two addresses without a comma: either could be the client.
        if is_vhost && !has_port(first) && are_addresses(first) {
            return Err(NotThis);
        }
        let (vhost, client, rest) = if is_vhost {
            (Some(first), second, word(after_blank(behind)?).1)
        } else {
            (None, first, behind)
        };
        let user = after_blank(rest)?;
        let comma = memchr::memchr(b',', client);
        let (client, forwarded_for) = comma.map_or((client, None), |end| (&client[..end], Some(client)));
        if client.is_empty() || user.is_empty() {
            return Err(NotThis);
        }
        Ok(Head { vhost, client, forwarded_for, user })
    }

    fn set(&self, into: &mut Found) {
        self.vhost.iter().for_each(|vhost| set_text("vhost", vhost, into));
        set_text("client", self.client, into);
        self.forwarded_for.iter().for_each(|addresses| set_text("forwarded_for", addresses, into));
        set_text("user", self.user, into);
    }
}

/// `a.example:443`, `[::1]:80`, but not `2001:db8::1`.
fn has_port(name: &[u8]) -> bool {
    let Some(colon) = memchr::memrchr(b':', name) else { return false };
    let (host, port) = (&name[..colon], &name[colon + 1..]);
    let is_host = host.ends_with(b"]") || memchr::memchr(b':', host).is_none();
    is_host && !port.is_empty() && number(port).is_some()
}

/// `10.0.0.7`, `2001:db8::1`, `[::1]`, and the same with a port.
fn is_address(text: &[u8]) -> bool {
    // An address is never longer.
    const ADDRESS_BYTES_MAX: usize = 64;
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= ADDRESS_BYTES_MAX);
    let Some(text) = text else { return false };
    let inside = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    inside.parse::<core::net::IpAddr>().is_ok() || text.parse::<core::net::SocketAddr>().is_ok()
}

/// One or more addresses, separated by commas. A proxy that hides one writes unknown.
fn are_addresses(text: &[u8]) -> bool {
    let parts = || text.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    parts().all(|part| part == b"unknown" || is_address(part)) && parts().any(is_address)
}

fn set_request(request: &[u8], into: &mut Found) {
    let end = memchr::memchr(b' ', request).unwrap_or(0);
    let protocol = memchr::memrchr(b' ', request).unwrap_or(0);
    if end > 0 && protocol > end && request[protocol + 1..].starts_with(b"HTTP/") {
        into.set_bytes("method", &request[..end]);
        into.set_bytes("path", &request[end + 1..protocol]);
        into.set_bytes("protocol", &request[protocol + 1..]);
    } else {
        set_text("request", request, into);
    }
}

/// nginx's access log or its error log, because a container prints both.
pub(super) fn nginx(line: &[u8], into: &mut Found) -> Result<(), NotThis> {
    nginx_error(line, into).or_else(|NotThis| access(line, Behind::Agent, into))
}

fn nginx_error(line: &[u8], into: &mut Found) -> Result<(), NotThis> {
    work::add(line.len());
    let (time, rest) = line.split_at_checked(b"2026/11/22 01:52:48".len()).ok_or(NotThis)?;
    let is_time = time.iter().zip(b"0000/00/00 00:00:00").all(|(byte, shape)| match shape {
        b'0' => byte.is_ascii_digit(),
        sign => byte == sign,
    });
    let (level, rest) = bracketed(after_blank(rest)?).filter(|_| is_time).ok_or(NotThis)?;
    let level = level_of(level).ok_or(NotThis)?;
    let (ids, rest) = word(after_blank(rest)?);
    let ids = ids.strip_suffix(b":").ok_or(NotThis)?;
    let sharp = memchr::memchr(b'#', ids).ok_or(NotThis)?;
    let (pid, tid) = (&ids[..sharp], &ids[sharp + 1..]);
    let mut message = after_blank(rest)?;
    let connection = message.strip_prefix(b"*").map(word).filter(|(id, _)| number(id).is_some());
    if let Some((_, behind)) = connection {
        message = after_blank(behind)?;
    }
    number(pid).and(number(tid)).ok_or(NotThis)?;
    let time: Vec<u8> = time.iter().map(|byte| if *byte == b'/' { b'-' } else { *byte }).collect();
    into.set_bytes("time", &time);
    into.set("level", Value::Text(level));
    set_number("pid", pid, into);
    set_number("tid", tid, into);
    if let Some((id, _)) = connection {
        set_number("connection", id, into);
    }
    let end = pairs_begin(message)?;
    each_pair(&message[end..], |name, value| {
        if name == "request" {
            set_request(value, into);
        } else {
            set_text(name, value, into);
        }
        true
    });
    into.set_bytes("message", &message[..end]);
    Ok(())
}

/// Where the message ends and nginx's own pairs begin: at the client's address. A path in the message, a request and a
/// referrer may contain whatever a client wants, as nginx writes them. With two addresses nobody can say which of them
/// nginx wrote.
fn pairs_begin(message: &[u8]) -> Result<usize, NotThis> {
    const CLIENT: &[u8] = b", client: ";
    work::add(message.len());
    let is_clients = |at: &usize| is_client(&message[at + CLIENT.len()..]);
    let mut begins = memchr::memmem::find_iter(message, CLIENT).filter(is_clients);
    match (begins.next(), begins.next()) {
        (_, Some(_)) => Err(NotThis),
        (begin, None) => Ok(begin.unwrap_or(message.len())),
    }
}

/// An address, perhaps with a port, or a Unix socket, and then the end or the next pair.
fn is_client(value: &[u8]) -> bool {
    let end = memchr::memchr(b',', &value[..value.len().min(HEAD_BYTES_MAX)]);
    let client = &value[..end.unwrap_or(value.len())];
    is_address(client) || client == b"unix:"
}

/// Takes pairs as in `, client: 10.0.0.7, request: "GET / HTTP/1.1"` for as long as the text has them and they are
/// wanted. Returns the rest.
fn each_pair(mut rest: &[u8], mut wanted: impl FnMut(&str, &[u8]) -> bool) -> &[u8] {
    const NAMES: [&str; 8] =
        ["client", "server", "request", "subrequest", "upstream", "host", "referrer", "login"];
    work::add(rest.len());
    while let Some(pair) = rest.strip_prefix(b", ") {
        let named = NAMES.iter().find_map(|name| {
            let behind = pair.strip_prefix(name.as_bytes())?;
            Some((*name, behind.strip_prefix(b": ")?))
        });
        let Some((name, value)) = named else { break };
        let (value, behind) = match quoted(value) {
            Ok(quoted) => quoted,
            Err(NotThis) => {
                let end = memchr::memmem::find(value, b", ").unwrap_or(value.len());
                // An address or a server's name: other text is none of nginx's pairs.
                if value[..end].iter().any(|byte| byte.is_ascii_whitespace() || *byte == b'"') {
                    break;
                }
                (value[..end].to_vec(), &value[end..])
            }
        };
        if !wanted(name, &value) {
            break;
        }
        rest = behind;
    }
    rest
}

/// Apache's error log, of 2.2 and of 2.4.
pub(super) fn apache_error(line: &[u8], into: &mut Found) -> Result<(), NotThis> {
    work::add(line.len());
    let (time, rest) = bracketed(line).ok_or(NotThis)?;
    let time = error_time(time).ok_or(NotThis)?;
    let (level, mut rest) = bracketed(after_blank(rest)?).ok_or(NotThis)?;
    let colon = memchr::memchr(b':', level);
    let (module, level) = colon.map_or((None, level), |at| (Some(&level[..at]), &level[at + 1..]));
    let level = level_of(level).ok_or(NotThis)?;
    into.set("time", Value::Text(&time));
    into.set("level", Value::Text(level));
    module.iter().for_each(|module| set_text("module", module, into));
    let (mut before_error, mut is_behind_error) = (rest, false);
    loop {
        let Some((inside, behind)) = after_blank(rest).ok().and_then(bracketed) else {
            // Apache 2.4 puts the error of the system between process and client.
            match after_blank(rest).ok().and_then(behind_error).filter(|_| !is_behind_error) {
                Some(behind) => (before_error, rest, is_behind_error) = (rest, behind, true),
                None => break,
            }
            continue;
        };
        let (name, value) = word(inside);
        let Ok(value) = after_blank(value) else { break };
        match name {
            b"pid" => {
                let colon = memchr::memmem::find(value, b":tid ");
                set_number("pid", &value[..colon.unwrap_or(value.len())], into);
                colon.iter().for_each(|at| set_number("tid", &value[at + b":tid ".len()..], into));
            }
            b"client" => set_text("client", value, into),
            b"remote" => set_text("remote", value, into),
            _ => break,
        }
        rest = behind;
    }
    // The message may be empty, but text must not be taken for an empty one.
    let said = if rest.is_empty() { rest } else { after_blank(rest)? };
    let (code, _) = word(said);
    if let Some(code) = code.strip_suffix(b":").filter(|code| is_code(code)) {
        into.set_bytes("code", code);
    }
    let message = if is_behind_error { after_blank(before_error)? } else { said };
    into.set_bytes("message", message);
    Ok(())
}

/// What stands behind `mod_x.c(12): (13)Permission denied:`, from its blank on; either may be missing. `None` = neither is there.
fn behind_error(text: &[u8]) -> Option<&[u8]> {
    let (first, behind) = word(text);
    let is_place = first.ends_with(b"):") && memchr::memmem::find(first, b".c(").is_some();
    let error = if is_place { after_blank(behind).unwrap_or_default() } else { text };
    let of_system = error.strip_prefix(b"(").and_then(|rest| {
        let close = memchr::memchr(b')', rest)?;
        let is_number = close > 0 && rest[..close].iter().all(u8::is_ascii_digit);
        let colon = is_number.then(|| memchr::memmem::find(rest, b": "))??;
        Some(&rest[colon + 1..])
    });
    of_system.or(is_place.then_some(behind))
}

/// One of Apache's codes, such as AH00126.
fn is_code(code: &[u8]) -> bool {
    code.len() == 7 && code.starts_with(b"AH") && code[2..].iter().all(u8::is_ascii_digit)
}

/// The level by the names that both servers use.
fn level_of(name: &[u8]) -> Option<&'static str> {
    Some(match name {
        b"emerg" | b"alert" | b"crit" => "fatal",
        b"error" => "error",
        b"warn" => "warn",
        b"notice" | b"info" => "info",
        b"debug" => "debug",
        _ if name.len() == 6 && name.starts_with(b"trace") => "trace",
        _ => return None,
    })
}

/// `22/Nov/2026:01:52:48 +0100` → `2026-11-22T01:52:48+0100`
fn access_time(time: &[u8]) -> Option<String> {
    let time = std::str::from_utf8(time).ok()?;
    let (date, zone) = time.split_once(' ')?;
    let (date, clock) = date.split_once(':')?;
    let mut parts = date.split('/');
    let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
    let month = month_of(month.as_bytes())?;
    (day.len() == 2 && year.len() == 4 && clock.len() >= 8)
        .then(|| format!("{year}-{month:02}-{day}T{clock}{zone}"))
}

/// `Sun Nov 22 01:52:48.5 2026` → `2026-11-22T01:52:48.5`
fn error_time(time: &[u8]) -> Option<String> {
    let time = std::str::from_utf8(time).ok()?;
    let mut parts = time.split_ascii_whitespace();
    let (_, month, day) = (parts.next()?, parts.next()?, parts.next()?.parse::<u8>().ok()?);
    let (clock, year) = (parts.next()?, parts.next()?);
    let month = month_of(month.as_bytes())?;
    (year.len() == 4 && clock.len() >= 8).then(|| format!("{year}-{month:02}-{day:02}T{clock}"))
}

fn month_of(name: &[u8]) -> Option<usize> {
    MONTHS.iter().position(|month| *month == name).map(|at| at + 1)
}

/// The text in brackets at the beginning, and the rest. An address may have brackets of its own.
fn bracketed(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let inside = text.strip_prefix(b"[")?;
    let mut open = 1;
    let end = memchr::memchr2_iter(b'[', b']', &inside[..inside.len().min(HEAD_BYTES_MAX)]).find(|at| {
        if inside[*at] == b'[' {
            open += 1;
        } else {
            open -= 1;
        }
        open == 0
    })?;
    Some((&inside[..end], &inside[end + 1..]))
}

/// The text in quotes at the beginning, unescaped, and the rest. Apache escapes a quote as `\"`, nginx as `\x22`.
fn quoted(text: &[u8]) -> Result<(Vec<u8>, &[u8]), NotThis> {
    let mut rest = text.strip_prefix(b"\"").ok_or(NotThis)?;
    let mut out = Vec::new();
    loop {
        let at = memchr::memchr2(b'"', b'\\', rest).ok_or(NotThis)?;
        out.extend_from_slice(&rest[..at]);
        if rest[at] == b'"' {
            return Ok((out, &rest[at + 1..]));
        }
        let hex = rest.get(at + 2..at + 4).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.filter(|_| rest[at + 1] == b'x').and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let (byte, took) = match (byte, rest.get(at + 1)) {
            (Some(byte), _) => (byte, 4),
            (None, Some(escaped @ (b'"' | b'\\'))) => (*escaped, 2),
            (None, _) => (b'\\', 1),
        };
        out.push(byte);
        rest = &rest[at + took..];
    }
}

/// The text up to the next blank, and the rest.
fn word(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(memchr::memchr(b' ', text).unwrap_or(text.len()))
}

/// A word, or several separated by commas, and the rest.
fn addresses(text: &[u8]) -> (&[u8], &[u8]) {
    let mut len = word(text).0.len();
    while text[..len].ends_with(b",") && len + 1 < text.len() {
        len += 1 + word(&text[len + 1..]).0.len();
    }
    text.split_at(len)
}

fn after_blank(text: &[u8]) -> Result<&[u8], NotThis> {
    text.strip_prefix(b" ").ok_or(NotThis)
}

fn number(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn set_number(name: &str, text: &[u8], into: &mut Found) {
    if let Some(number) = number(text) {
        into.set(name, Value::Number(&number.to_string()));
    }
}

/// A dash means that there is no value.
fn set_text(name: &str, text: &[u8], into: &mut Found) {
    if !text.is_empty() && text != b"-" {
        into.set_bytes(name, text);
    }
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
