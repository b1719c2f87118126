//! Formats that wrap a message: Kubernetes' log files, and syslog as it is in files. The message behind the head is
//! taken whole, however long it is.

use super::parse::{Found, NotThis};
use crate::model::fields::Value;
use crate::text::level::BY_SEVERITY;

/// `2026-11-22T00:52:48.1Z stderr F message`: fields time, stream, tag, message.
pub(super) fn cri(line: &[u8], into: &mut Found) -> Result<(), NotThis> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let mut next = || parts.next().ok_or(NotThis);
    let (time, stream, tag) = (next()?, next()?, next()?);
    let message = parts.next().unwrap_or_default();
    let is_tag = |tag: &[u8]| tag.split(|byte| *byte == b':').any(|part| matches!(part, b"F" | b"P"));
    if crate::decode::timestamp::parse(time).is_none() || !is_tag(tag) || tag.len() > 64 {
        return Err(NotThis);
    }
    if !matches!(stream, b"stdout" | b"stderr") {
        return Err(NotThis);
    }
    into.set_bytes("time", time);
    into.set_bytes("stream", stream);
    into.set_bytes("tag", tag);
    into.set_bytes("message", message);
    Ok(())
}

const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
];
/// Longest name in a head: host, program, ids.
const NAME_BYTES_MAX: usize = 255;
const FRACTION_DIGITS_MAX: usize = 9;

/// RFC 5424 with its version, else RFC 3164, whose priority files lack: fields level, facility, time, host, app, pid,
/// msgid, those of structured data (`id.name`), and message.
pub(super) fn syslog(line: &[u8], into: &mut Found) -> Result<(), NotThis> {
    let (priority, rest) = match line.strip_prefix(b"<") {
        Some(inside) => {
            let end = inside.iter().take(4).position(|byte| *byte == b'>').ok_or(NotThis)?;
            let number = std::str::from_utf8(&inside[..end]).ok().and_then(|text| text.parse::<u8>().ok());
            (Some(number.filter(|number| *number <= 191).ok_or(NotThis)?), &inside[end + 1..])
        }
        None => (None, line),
    };
    match rest.strip_prefix(b"1 ") {
        Some(rest) if priority.is_some() => {
            let parts = head_5424(rest)?;
            set_priority(priority, into);
            parts.set(into)?;
        }
        _ => {
            let parts = head_3164(rest)?;
            set_priority(priority, into);
            parts.set(into)?;
        }
    }
    Ok(())
}

fn set_priority(priority: Option<u8>, into: &mut Found) {
    if let Some(priority) = priority {
        into.set("level", Value::Text(BY_SEVERITY[usize::from(priority % 8)]));
        into.set("facility", Value::Text(FACILITIES[usize::from(priority / 8)]));
    }
}

/// The parts of a line; an empty part is missing.
#[derive(Default)]
struct Parts<'l> {
    time: &'l [u8],
    host: &'l [u8],
    app: &'l [u8],
    pid: &'l [u8],
    msgid: &'l [u8],
    /// The text between its brackets.
    data: &'l [u8],
    message: &'l [u8],
}

impl Parts<'_> {
    fn set(&self, into: &mut Found) -> Result<(), NotThis> {
        let parts = [
            ("time", self.time),
            ("host", self.host),
            ("app", self.app),
            ("pid", self.pid),
            ("msgid", self.msgid),
        ];
        for (name, value) in parts.into_iter().filter(|(_, value)| !value.is_empty()) {
            into.set_bytes(name, value);
        }
        structured_data(self.data, into)?;
        into.set_bytes("message", self.message);
        Ok(())
    }
}

fn head_5424(rest: &[u8]) -> Result<Parts<'_>, NotThis> {
    let mut rest = rest;
    let mut next = || {
        let end = rest.iter().take(NAME_BYTES_MAX + 1).position(|byte| *byte == b' ').ok_or(NotThis)?;
        let part = &rest[..end];
        rest = &rest[end + 1..];
        // A dash means that there is no value.
        if part.is_empty() { Err(NotThis) } else { Ok(if part == b"-" { &[] } else { part }) }
    };
    let (time, host, app, pid, msgid) = (next()?, next()?, next()?, next()?, next()?);
    if !time.is_empty() && crate::decode::timestamp::parse(time).is_none() {
        return Err(NotThis);
    }
    let data_len = data_len(rest)?;
    let message = rest[data_len..].strip_prefix(b" ").unwrap_or(&rest[data_len..]);
    let message = message.strip_prefix(b"\xef\xbb\xbf").unwrap_or(message);
    Ok(Parts { time, host, app, pid, msgid, data: &rest[..data_len], message })
}

/// Length of `-` or of `[id name="value"][…]`.
fn data_len(rest: &[u8]) -> Result<usize, NotThis> {
    if rest.first() == Some(&b'-') {
        return match rest.get(1) {
            None | Some(b' ') => Ok(1),
            Some(_) => Err(NotThis),
        };
    }
    let (mut at, mut inside, mut quoted) = (0, false, false);
    while let Some(byte) = rest.get(at) {
        match byte {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            b'[' if !inside => inside = true,
            b']' if !quoted && inside => {
                inside = false;
                if rest.get(at + 1) != Some(&b'[') {
                    return Ok(at + 1);
                }
            }
            _ if !inside => return Err(NotThis),
            _ => {}
        }
        at += 1;
    }
    Err(NotThis)
}

fn structured_data(data: &[u8], into: &mut Found) -> Result<(), NotThis> {
    if data.is_empty() || data == b"-" {
        return Ok(());
    }
    let mut rest = std::str::from_utf8(data).map_err(|_| NotThis)?;
    while let Some(inside) = rest.strip_prefix('[') {
        let id_len = inside.find([' ', ']']).ok_or(NotThis)?;
        let id = &inside[..id_len];
        rest = &inside[id_len..];
        while let Some(pair) = rest.strip_prefix(' ') {
            let (name, value) = pair.split_once("=\"").ok_or(NotThis)?;
            if name.len() > NAME_BYTES_MAX || name.contains([' ', ']', '"']) {
                return Err(NotThis);
            }
            let (mut text, mut escaped, mut end) = (String::new(), false, None);
            for (at, c) in value.char_indices() {
                match c {
                    '"' | '\\' | ']' if escaped => {
                        text.push(c);
                        escaped = false;
                    }
                    '\\' if !escaped => escaped = true,
                    '"' => {
                        end = Some(at);
                        break;
                    }
                    c => {
                        if std::mem::take(&mut escaped) {
                            text.push('\\');
                        }
                        text.push(c);
                    }
                }
            }
            into.set(&format!("{id}.{name}"), Value::Text(&text));
            rest = &value[end.ok_or(NotThis)? + 1..];
        }
        rest = rest.strip_prefix(']').ok_or(NotThis)?;
    }
    Ok(())
}

/// `Nov 22 00:52:48 host app[12]: message`, or with an RFC 3339 time, as rsyslog writes files. A year or a zone behind
/// the time belongs to it. Programs that log on the same host may omit the host; then the tag comes first.
fn head_3164(rest: &[u8]) -> Result<Parts<'_>, NotThis> {
    let word =
        |text: &[u8]| text.iter().take(NAME_BYTES_MAX + 1).position(|byte| *byte == b' ').ok_or(NotThis);
    let time_len = match rest.get(..15) {
        Some(time) if is_bsd_time(time) => 15 + fraction_len(&rest[15..]),
        _ => {
            let len = word(rest)?;
            crate::decode::timestamp::parse(&rest[..len]).ok_or(NotThis)?;
            len
        }
    };
    let (time, rest) = rest.split_at(time_len + year_or_zone_len(&rest[time_len..]));
    let rest = rest.strip_prefix(b" ").ok_or(NotThis)?;
    let (first, behind) = rest.split_at(word(rest)?);
    // `fe80::` is a host, not a tag.
    let is_tag = first.len() > 1 && first.ends_with(b":") && !first.ends_with(b"::");
    let (host, rest) = if is_tag { (&b""[..], rest) } else { (first, &behind[1..]) };
    let tag_len = rest
        .iter()
        .take(NAME_BYTES_MAX + 1)
        .position(|byte| b": [".contains(byte))
        .filter(|len| *len > 0 && rest[*len] != b' ');
    // Without a program's name everything is the message.
    let Some(tag_len) = tag_len else {
        return Ok(Parts { time, host, message: rest, ..Parts::default() });
    };
    let (app, mut behind) = rest.split_at(tag_len);
    let mut pid: &[u8] = &[];
    if let Some(inside) = behind.strip_prefix(b"[") {
        let end = inside.iter().take(NAME_BYTES_MAX).position(|byte| *byte == b']').ok_or(NotThis)?;
        (pid, behind) = (&inside[..end], &inside[end + 1..]);
    }
    let message = behind.strip_prefix(b":").unwrap_or(behind);
    let message = message.strip_prefix(b" ").unwrap_or(message);
    Ok(Parts { time, host, app, pid, message, ..Parts::default() })
}

/// Length of ` 2026`, ` CET`, ` +0100`, or of two of them, in the host's place.
fn year_or_zone_len(text: &[u8]) -> usize {
    const ZONES: [&[u8]; 20] = [
        b"UTC", b"GMT", b"Z", b"WET", b"WEST", b"BST", b"CET", b"CEST", b"EET", b"EEST", b"MSK", b"EST",
        b"EDT", b"CST", b"CDT", b"MST", b"MDT", b"PST", b"PDT", b"JST",
    ];
    let mut len = 0;
    for _ in 0..2 {
        let Some(rest) = text[len..].strip_prefix(b" ") else { break };
        let word = &rest[..rest.iter().take(8).position(|byte| *byte == b' ').unwrap_or(0)];
        let digits = |text: &[u8]| text.len() == 4 && text.iter().all(u8::is_ascii_digit);
        let is_year = digits(word) && (word.starts_with(b"19") || word.starts_with(b"20"));
        let is_offset = word.split_first().is_some_and(|(sign, rest)| b"+-".contains(sign) && digits(rest));
        if !(is_year || is_offset || ZONES.contains(&word)) {
            break;
        }
        len += 1 + word.len();
    }
    len
}

/// `Nov  2 00:52:48`
/// `.123456`: systemd and rsyslog write it where they are told to be exact.
fn fraction_len(rest: &[u8]) -> usize {
    let digits =
        |rest: &[u8]| rest.iter().take(FRACTION_DIGITS_MAX).take_while(|byte| byte.is_ascii_digit()).count();
    match rest.strip_prefix(b".").map(digits) {
        None | Some(0) => 0,
        Some(digits) => 1 + digits,
    }
}

fn is_bsd_time(time: &[u8]) -> bool {
    time.iter().zip(b"aaa 00 00:00:00").enumerate().all(|(at, (byte, shape))| match shape {
        b'a' => byte.is_ascii_alphabetic(),
        b'0' => byte.is_ascii_digit() || (at == 4 && *byte == b' '),
        shape => byte == shape,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(parse: impl Fn(&[u8], &mut Found) -> Result<(), NotThis>, line: &str, expected: &str) {
        let mut found = Found::new(Some("message"));
        let shown = match parse(line.as_bytes(), &mut found) {
            Ok(()) => {
                let fields = found.fields.iter().map(|(name, value)| format!("{name}={} ", value.as_str()));
                let message =
                    String::from_utf8_lossy(found.message.as_deref().expect("a message")).into_owned();
                format!("{}| {message}", fields.collect::<String>())
            }
            Err(NotThis) => "no".to_owned(),
        };
        assert_eq!(shown, expected, "{line}");
    }

    #[test]
    fn cri_lines() {
        let time = "2026-11-22T00:52:48.162820305Z";
        check(cri, &format!("{time} stderr F a  b"), &format!("time={time} stream=stderr tag=F | a  b"));
        check(cri, &format!("{time} stdout P "), &format!("time={time} stream=stdout tag=P | "));
        check(cri, &format!("{time} stdout F"), &format!("time={time} stream=stdout tag=F | "));
        for bad in ["", "x stdout F a", &format!("{time} stdin F a"), &format!("{time} stdout X a"), time] {
            check(cri, bad, "no");
        }
    }

    #[test]
    fn syslog_5424() {
        check(
            syslog,
            "<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 [exampleSDID@32473 iut=\"3\" \
             eventSource=\"Appli\\\"cation\\]\"][b@1] \u{feff}An application event",
            "level=info facility=local4 time=2003-10-11T22:14:15.003Z host=mymachine.example.com app=evntslog \
             msgid=ID47 exampleSDID@32473.iut=3 exampleSDID@32473.eventSource=Appli\"cation] | An application event",
        );
        check(syslog, "<34>1 - - su 12 - - x", "level=fatal facility=auth app=su pid=12 | x");
        check(syslog, "<34>1 - - su - - -", "level=fatal facility=auth app=su | ");
        for bad in ["<34>1 - - su - - [a", "<34>1 - - su - - x", "<34>1 y - su - - -", "<999>1 - - - - - -"] {
            check(syslog, bad, "no");
        }
    }

    #[test]
    fn syslog_3164() {
        check(
            syslog,
            "<34>Oct 11 22:14:15 mymachine su: 'su root' failed",
            "level=fatal facility=auth time=Oct 11 22:14:15 host=mymachine app=su | 'su root' failed",
        );
        check(
            syslog,
            "Nov  2 00:52:48 box sshd[812]: Accepted publickey",
            "time=Nov  2 00:52:48 host=box app=sshd pid=812 | Accepted publickey",
        );
        check(
            syslog,
            "2026-11-22T00:52:48.1+01:00 box kernel: [1.2] usb",
            "time=2026-11-22T00:52:48.1+01:00 host=box app=kernel | [1.2] usb",
        );
        // With fractions of a second, as rsyslog and journald write them where that is asked for.
        check(
            syslog,
            "Nov 22 00:52:48.123456 box sshd[812]: x",
            "time=Nov 22 00:52:48.123456 host=box app=sshd pid=812 | x",
        );
        check(syslog, "Nov  2 00:52:48.1 app: x", "time=Nov  2 00:52:48.1 app=app | x");
        check(syslog, "Nov 22 00:52:48. box app: x", "no");
        check(
            syslog,
            "Nov 22 00:52:48.123 2026 box app: x",
            "time=Nov 22 00:52:48.123 2026 host=box app=app | x",
        );
        // Without a host; with more of the time.
        let time = "time=Nov 22 00:52:48";
        for (line, expected) in [
            (
                "Nov 22 00:52:48 sshd[12]: Accepted key: x",
                format!("{time} app=sshd pid=12 | Accepted key: x"),
            ),
            ("Nov 22 00:52:48 kernel: [1.0] usb", format!("{time} app=kernel | [1.0] usb")),
            ("Nov 22 00:52:48 fe80::1 su: x", format!("{time} host=fe80::1 app=su | x")),
            ("Nov 22 00:52:48 fe80:: su: x", format!("{time} host=fe80:: app=su | x")),
            ("Nov 22 00:52:48 2026 box app[1]: x", format!("{time} 2026 host=box app=app pid=1 | x")),
            ("Nov 22 00:52:48 UTC box app[1]: x", format!("{time} UTC host=box app=app pid=1 | x")),
            ("Nov 22 00:52:48 CET 2026 app[1]: x", format!("{time} CET 2026 app=app pid=1 | x")),
            ("Nov 22 00:52:48 +0100 box app: x", format!("{time} +0100 host=box app=app | x")),
            ("Nov 22 00:52:48 NAS app: x", format!("{time} host=NAS app=app | x")),
            (
                "Nov 22 00:52:48 box last message repeated 2 times",
                format!("{time} host=box | last message repeated 2 times"),
            ),
        ] {
            check(syslog, line, &expected);
        }
        check(
            syslog,
            "<30>Nov 22 00:52:48 dockerd[1]: started",
            &format!("level=info facility=daemon {time} app=dockerd pid=1 | started"),
        );
        check(syslog, "Nov  2 00:52:48 box no tag here", "time=Nov  2 00:52:48 host=box | no tag here");
        for bad in ["", "plain text of a line", "<34>", "Nov  2 00:52:48", "Nov  2 00:52:48 box", "<3x>Nov"] {
            check(syslog, bad, "no");
        }
    }
}
