//! The level of a line of free text: `ERROR shop.Order - …`, `[warn] …`, `level=info …`, `E1122 10:00:00.1 …`, `<3>…`.
//!
//! A word in prose is not a level ("no error was found"). A level is in capitals, in brackets, before a colon, or the
//! value of a key called level; klog and tornado write one letter. A part of a path or an address is not a level
//! either. The first level in a line counts, with two exceptions: in a line of JSON the value of a key called level
//! goes before any word, and a priority with a facility, which is mostly the default one, is used only if no word is a
//! level. Not here: fields that hold a level already.

use super::escape::{ESCAPE, command_len};

/// A level is looked for in this many bytes at the beginning of a line: further on is text that somebody wrote.
const LOOKED_AT_BYTES: usize = 512;

/// Names of levels in use, and the six names that [`detect`] returns.
const NAMES: [(&str, &str); 36] = [
    ("trace", "trace"),
    ("trc", "trace"),
    ("trce", "trace"),
    ("trac", "trace"),
    ("finer", "trace"),
    ("finest", "trace"),
    ("debug", "debug"),
    ("dbg", "debug"),
    ("dbug", "debug"),
    ("debu", "debug"),
    ("fine", "debug"),
    ("verbose", "debug"),
    ("info", "info"),
    ("inf", "info"),
    ("information", "info"),
    ("notice", "info"),
    ("warn", "warn"),
    ("wrn", "warn"),
    ("warning", "warn"),
    ("error", "error"),
    ("err", "error"),
    ("eror", "error"),
    ("erro", "error"),
    ("fail", "error"),
    ("severe", "error"),
    ("fatal", "fatal"),
    ("ftl", "fatal"),
    ("fata", "fatal"),
    ("critical", "fatal"),
    ("crit", "fatal"),
    ("alert", "fatal"),
    ("panic", "fatal"),
    ("pani", "fatal"),
    ("dpanic", "fatal"),
    ("emerg", "fatal"),
    ("emergency", "fatal"),
];

/// Levels by syslog's severity, 0 to 7.
pub const BY_SEVERITY: [&str; 8] = ["fatal", "fatal", "fatal", "error", "warn", "info", "info", "debug"];

/// One of trace, debug, info, warn, error, fatal; `None` = the line names none.
pub fn detect(line: &[u8]) -> Option<&'static str> {
    let whole = line;
    let line = &line[..line.len().min(LOOKED_AT_BYTES)];
    let mut plain = [0; LOOKED_AT_BYTES];
    let line = if memchr::memchr(ESCAPE, line).is_some() { without_colours(line, &mut plain) } else { line };
    let priority = priority(line);
    let by_form = klog(line).or_else(|| letter_in_brackets(line));
    let own = by_form.or_else(|| priority.filter(|priority| *priority < 8).map(of_priority));
    let is_json = line.trim_ascii_start().first() == Some(&b'{');
    own.or_else(|| is_json.then(|| of_json(whole))?)
        .or_else(|| find(line))
        .or_else(|| priority.map(of_priority))
}

/// The line without the colours of a terminal, which stand right before a word and behind it: `␛[31mERROR␛[0m`.
fn without_colours<'p>(line: &[u8], plain: &'p mut [u8; LOOKED_AT_BYTES]) -> &'p [u8] {
    let (mut kept, mut at) = (0, 0);
    while at < line.len() {
        if line[at] == ESCAPE {
            at += command_len(&line[at..]);
        } else {
            plain[kept] = line[at];
            (kept, at) = (kept + 1, at + 1);
        }
    }
    &plain[..kept]
}

/// A level in JSON is looked for in this many bytes: its key may stand behind a long message.
const JSON_LOOKED_AT_BYTES: usize = 16 * 1024;

/// The value of the first key that is called level. A key of the object itself that is called so and no more goes before one
/// of an object within it, and before `app_level`.
/// What a string contains is text, whatever it looks like.
fn of_json(line: &[u8]) -> Option<&'static str> {
    let line = &line[..line.len().min(JSON_LOOKED_AT_BYTES)];
    let (mut at, mut depth, mut other) = (0, 0_usize, None);
    while let Some(next) = line[at..].iter().position(|byte| b"\"{}[]".contains(byte)) {
        at += next + 1;
        match line[at - 1] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {
                let (key, behind) = json_string(line, at);
                at = behind;
                let Some(value) = line[behind..].trim_ascii_start().strip_prefix(b":") else { continue };
                if !is_called_level(key) {
                    continue;
                }
                let is_exact = is_level(key);
                match json_level(value.trim_ascii_start(), is_exact) {
                    Some(level) if depth == 1 && is_exact => return Some(level),
                    level => other = other.or(level),
                }
            }
        }
    }
    other
}

/// The string that begins here, as it is written, and the place behind its quote.
fn json_string(line: &[u8], start: usize) -> (&[u8], usize) {
    let mut at = start;
    while let Some(next) = memchr::memchr2(b'"', b'\\', &line[at..]) {
        at += next;
        if line[at] == b'"' {
            return (&line[start..at], at + 1);
        }
        at = (at + 2).min(line.len());
    }
    (&line[start..], line.len())
}

/// The level that a value names. It may be a number, as pino writes it, if the key says level and no more: `water_level` is
/// another thing. A number with a fraction or an exponent is none.
fn json_level(value: &[u8], may_be_number: bool) -> Option<&'static str> {
    let text = match value.first() {
        Some(b'"') => json_string(value, 1).0,
        _ => {
            let is_of_number = |byte: &&u8| byte.is_ascii_alphanumeric() || b".+-".contains(byte);
            &value[..value.iter().take_while(is_of_number).count()]
        }
    };
    named(text.trim_ascii()).or_else(|| may_be_number.then(|| numbered(text))?)
}

/// The level of the first word that names one and is meant as one, by what stands before and behind it.
fn find(line: &[u8]) -> Option<&'static str> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut at = 0;
    while at < line.len() {
        if !is_word(line[at]) {
            at += 1;
            continue;
        }
        let len = line[at..].iter().position(|byte| !is_word(*byte)).unwrap_or(line.len() - at);
        let word = &line[at..at + len];
        if let Some(level) = named(word)
            && names_a_level(word, &line[..at], &line[at + len..])
        {
            return Some(level);
        }
        at += len;
    }
    None
}

fn names_a_level(word: &[u8], before: &[u8], behind: &[u8]) -> bool {
    let stands_between = |before: &[u8], behind: &[u8], open: &[u8], close: &[u8]| {
        before.last().is_some_and(|byte| open.contains(byte))
            && behind.first().is_some_and(|byte| close.contains(byte))
    };
    // Blanks pad a level to the longest one's length: `[info     ]`.
    let enclosed = stands_between(before, behind, b"[(<|", b"])>|")
        || stands_between(before.trim_ascii_end(), behind.trim_ascii_start(), b"[|", b"]|");
    let capitals = word.iter().all(u8::is_ascii_uppercase);
    if enclosed || is_value_of_level(before) || (capitals && is_behind_a_thread(before, behind)) {
        return true;
    }
    if is_of_a_stack(word, before) {
        return false;
    }
    // In `no-error: x` the word is part of a name.
    let colon = behind.starts_with(b":") && !behind.starts_with(b"::") && !before.ends_with(b"-");
    (capitals || colon) && !is_in_a_path(before)
}

/// `PHP Stack trace:` heads what follows an error.
fn is_of_a_stack(word: &[u8], before: &[u8]) -> bool {
    const STACK: &[u8] = b"stack";
    let before = before.trim_ascii_end();
    word.eq_ignore_ascii_case(b"trace")
        && before.len().checked_sub(STACK.len()).is_some_and(|at| before[at..].eq_ignore_ascii_case(STACK))
}

/// `[Server thread/WARN]`, but not `[GET /ERROR]` or `[a/b/ERROR]`.
fn is_behind_a_thread(before: &[u8], behind: &[u8]) -> bool {
    let Some(name) = before.strip_suffix(b"/").filter(|_| behind.starts_with(b"]")) else { return false };
    let Some(at) = memchr::memrchr(b'[', name) else { return false };
    let thread = &name[at + 1..];
    thread.last().is_some_and(|byte| !byte.is_ascii_whitespace()) && !thread.contains(&b'/')
}

/// `/api/error: 404`, `http://warn:80/`, `C:\log\error: …`. Dates have slashes and colons, too.
fn is_in_a_path(before: &[u8]) -> bool {
    let ends = |byte: &u8| byte.is_ascii_whitespace() || b"|[]()<>\"',".contains(byte);
    let start = before.iter().rposition(ends).map_or(0, |at| at + 1);
    let token = &before[start..];
    let is_of_date = |at: usize| at > 0 && token[at - 1].is_ascii_digit();
    token.iter().enumerate().any(|(at, byte)| *byte == b'\\' || (*byte == b'/' && !is_of_date(at)))
}

/// The level that a word names, in any case.
pub fn named(word: &[u8]) -> Option<&'static str> {
    let known = |name: &str| name.as_bytes().eq_ignore_ascii_case(word);
    NAMES.iter().find(|(name, _)| known(name)).map(|(_, level)| *level)
}

/// The level that a number stands for: pino's and bunyan's 10 to 60, syslog's severities 0 to 7, monolog's 100 to 600.
pub fn numbered(text: &[u8]) -> Option<&'static str> {
    Some(match text.strip_suffix(b".0").unwrap_or(text) {
        b"10" => "trace",
        b"20" | b"7" | b"100" => "debug",
        b"30" | b"5" | b"6" | b"200" | b"250" => "info",
        b"40" | b"4" | b"300" => "warn",
        b"50" | b"3" | b"400" => "error",
        b"60" | b"0" | b"1" | b"2" | b"500" | b"550" | b"600" => "fatal",
        _ => return None,
    })
}

/// The level that a letter by itself stands for.
pub fn lettered(text: &[u8]) -> Option<&'static str> {
    Some(match text {
        b"T" => "trace",
        b"D" | b"V" => "debug",
        b"I" => "info",
        b"W" => "warn",
        b"E" => "error",
        b"C" | b"F" => "fatal",
        _ => return None,
    })
}

/// `level=`, `lvl: "` or the like is right before the word.
fn is_value_of_level(before: &[u8]) -> bool {
    let unquoted = |text| {
        let text = <[u8]>::trim_ascii_end(text);
        text.strip_suffix(b"\"").or_else(|| text.strip_suffix(b"'")).unwrap_or(text)
    };
    let Some((b'=' | b':', text)) = unquoted(before).trim_ascii_end().split_last() else { return false };
    is_called_level(unquoted(text))
}

const LEVEL_KEYS: [&[u8]; 6] = [b"level", b"lvl", b"severity", b"levelname", b"level_name", b"@l"];

/// Nothing else stands in front but what ECS and OpenTelemetry put there.
fn is_level(key: &[u8]) -> bool {
    let key = key.strip_prefix(b"log.").unwrap_or(key);
    LEVEL_KEYS.iter().any(|name| key.eq_ignore_ascii_case(name))
}

/// A key may say more in front: `log.level`.
fn is_called_level(key: &[u8]) -> bool {
    LEVEL_KEYS
        .iter()
        .any(|name| key.len() >= name.len() && key[key.len() - name.len()..].eq_ignore_ascii_case(name))
}

/// `<3>`, as systemd and syslog write it in front of a message.
fn priority(line: &[u8]) -> Option<u8> {
    let inside = line.strip_prefix(b"<")?;
    let len = inside.iter().take(4).position(|byte| *byte == b'>').filter(|len| *len > 0)?;
    let digits = &inside[..len];
    let number = digits.iter().try_fold(0_u16, |number, digit| {
        digit.is_ascii_digit().then(|| number * 10 + u16::from(digit - b'0'))
    })?;
    u8::try_from(number).ok().filter(|number| *number <= 191)
}

fn of_priority(priority: u8) -> &'static str {
    BY_SEVERITY[usize::from(priority % 8)]
}

/// `[E 261122 10:00:00 web:12] …`, `[E] …`
fn letter_in_brackets(line: &[u8]) -> Option<&'static str> {
    let [b'[', letter, behind, ..] = line else { return None };
    let is_meant = match behind {
        b']' => true,
        b' ' => line.get(3).is_some_and(u8::is_ascii_digit),
        _ => false,
    };
    is_meant.then(|| lettered(&[*letter]))?
}

/// `E1122 10:00:00.000000       1 main.go:12] …`
fn klog(line: &[u8]) -> Option<&'static str> {
    let [letter, a, b, c, d, b' ', ..] = line else { return None };
    if ![a, b, c, d].iter().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if b"IWEF".contains(letter) { lettered(&[*letter]) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_their_levels() {
        let table = [
            ("2026-11-22 10:00:00 ERROR shop.Order - order 17 failed", Some("error")),
            ("ERROR:root:order failed", Some("error")),
            ("2026-11-22 10:00:00,123 [main] WARN  x - y", Some("warn")),
            ("[error] 12#12: *1 open() failed", Some("error")),
            ("npm warn: old", Some("warn")),
            ("time=x level=warning msg=\"disk\"", Some("warn")),
            (r#"{"ts":1,"level":"info","msg":"ERROR"}"#, Some("info")),
            (r#"{"severity": "CRITICAL"}"#, Some("fatal")),
            ("E1122 10:00:00.000000       1 main.go:12] x", Some("error")),
            ("I12345 not klog", None),
            ("no error was found", None),
            ("std::error::Error", None),
            ("ERRORS everywhere", None),
            ("MY_ERROR", None),
            ("Error: order failed", Some("error")),
            ("<info> x", Some("info")),
            // Padded; in other words; with a letter or a priority alone.
            ("2026-11-22 10:00:00 [error    ] failed   key=1", Some("error")),
            ("2026-11-22 10:00:00 | info     | x", Some("info")),
            ("2026-11-22 10:00:00 [  WARN] x", Some("warn")),
            ("[12:34:56] [Server thread/WARN]: Can't keep up!", Some("warn")),
            ("[12:34:56] [GET /WARN]: x", None),
            ("[12:34:56] [a/b/WARN] x", None),
            ("[ an error of x ]", None),
            ("[2026-11-22T10:00:00] app.EMERGENCY: x", Some("fatal")),
            ("ALERT: x", Some("fatal")),
            ("[29-Nov-2026 10:00:00 UTC] PHP Stack trace:", None),
            ("STACK TRACE: x", None),
            ("trace: x", Some("trace")),
            ("t=2026 lvl=eror msg=x", Some("error")),
            ("lvl=dbug msg=x", Some("debug")),
            ("fail: Microsoft.Hosting[0]", Some("error")),
            ("\"level\":\"dpanic\"", Some("fatal")),
            ("[E 2026-11-22 10:00:00 web:12] x", Some("error")),
            ("[C] x", Some("fatal")),
            ("[E x", None),
            ("[X 2026] x", None),
            ("<3>x", Some("error")),
            ("<6>ERROR x", Some("info")),
            ("<14>ERROR x", Some("error")),
            ("<14>x", Some("info")),
            ("<192>x", None),
            ("<>x", None),
            ("<3x", None),
            // A path, an address, a name.
            ("GET /api/error: 404", None),
            ("POST /ERROR HTTP/1.1", None),
            ("GET /a?state=ERROR HTTP/1.1", None),
            ("http://warn:80/x", None),
            ("no-error: x", None),
            (r"C:\log\error: gone", None),
            ("2026/11/22-10:00:00-ERROR x", Some("error")),
            ("[2026-11-22 10:00:00,123: ERROR/Worker-1] x", Some("error")),
            ("a/b|ERROR|x", Some("error")),
            // In JSON the value of the key goes before a word.
            (r#"{"msg":"ERROR of old","level":"info"}"#, Some("info")),
            (r#"{"msg":"ERROR of old","log.level" : "warn"}"#, Some("warn")),
            (r#"{"msg":"a \"level\":\"error\" b","level":"info"}"#, Some("info")),
            (r#"{"msg":"ERROR","n":1}"#, Some("error")),
            (r#"{"msg":"upstream said level=info, giving up","level":"error"}"#, Some("error")),
            (r#"{"msg":"retry with level=error","level":"info"}"#, Some("info")),
            (r#"{"query":"?loglevel=debug","level":"error","msg":"x"}"#, Some("error")),
            (r#"{"request":{"level":"debug"},"list":["level",{"level":7}],"level":"error"}"#, Some("error")),
            (r#"{"log":{"level":"warn"},"msg":"ERROR"}"#, Some("warn")),
            (r#"{"water_level":3,"level":"info"}"#, Some("info")),
            (r#"{"log_level":"debug","event":"config loaded","level":"error"}"#, Some("error")),
            (r#"{"noise_level":60,"message":"ok"}"#, None),
            (r#"{"app_level":"warn","message":"ok"}"#, Some("warn")),
            (r#"{"level":1e1}"#, None),
            (r#"{"msg":"\\","level":"warn"}"#, Some("warn")),
            (r#"{"msg":"level=warn"}"#, Some("warn")),
            (r#"{"level":"#, None),
            (r#"{"level":"err"#, Some("error")),
            ("{'levelname': 'WARNING'}", Some("warn")),
            // Colours stand before a word and behind it.
            ("\x1b[31mERROR\x1b[0m x", Some("error")),
            ("\x1b[1;33m[warn]\x1b[m x", Some("warn")),
            ("level=\x1b[33mwarn\x1b[0m x", Some("warn")),
            ("\x1b[2m2026-11-22T10:00:00Z\x1b[0m \x1b[32m INFO\x1b[0m \x1b[2mapp\x1b[0m: x", Some("info")),
            ("\x1b[?25hERROR x", Some("error")),
            ("\x1b[", None),
            ("\x1b[31mno error was found\x1b[0m", None),
            // In JSON a level may be a number.
            (r#"{"level":30,"msg":"x"}"#, Some("info")),
            (r#"{"level":50,"msg":"INFO: x"}"#, Some("error")),
            (r#"{"level":5.5,"msg":"x"}"#, None),
            (r#"{"level":17,"msg":"x"}"#, None),
            (r#"{"levels":{"n":30},"msg":"x"}"#, None),
            ("level=30 msg=x", None),
            ("", None),
            ("=", None),
            ("ERROR", Some("error")),
        ];
        for (line, expected) in table {
            assert_eq!(detect(line.as_bytes()), expected, "{line}");
        }
        let behind = format!(r#"{{"msg":"ERROR {}","level":"info"}}"#, "x ".repeat(LOOKED_AT_BYTES));
        assert_eq!(detect(behind.as_bytes()), Some("info"), "the key may stand behind a long message");
        let far = format!("{}ERROR", "x ".repeat(LOOKED_AT_BYTES));
        assert_eq!(detect(far.as_bytes()), None, "nobody looks for a level that far in");
    }
}
