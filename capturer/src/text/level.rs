//! The level of a line of free text: `ERROR shop.Order - …`, `[warn] …`, `level=info …`, `E1122 10:00:00.1 …`.
//!
//! A word of prose is none ("no error was found"): it must stand in capitals, in brackets, before a colon, behind a key
//! that is called level, or be klog's letter with the month and day. The first one counts. Not here: fields that hold a
//! level already.

/// So far into a line it is looked for: behind it stands what somebody said.
const LOOKED_AT_BYTES: usize = 512;

/// Names in use, and the six that come out.
const NAMES: [(&str, &str); 22] = [
    ("trace", "trace"),
    ("trc", "trace"),
    ("finest", "trace"),
    ("debug", "debug"),
    ("dbg", "debug"),
    ("fine", "debug"),
    ("info", "info"),
    ("inf", "info"),
    ("information", "info"),
    ("notice", "info"),
    ("warn", "warn"),
    ("wrn", "warn"),
    ("warning", "warn"),
    ("error", "error"),
    ("err", "error"),
    ("severe", "error"),
    ("fatal", "fatal"),
    ("ftl", "fatal"),
    ("critical", "fatal"),
    ("crit", "fatal"),
    ("panic", "fatal"),
    ("emerg", "fatal"),
];

/// One of trace, debug, info, warn, error, fatal; `None` = the line names none.
pub fn detect(line: &[u8]) -> Option<&'static str> {
    let line = &line[..line.len().min(LOOKED_AT_BYTES)];
    if let Some(level) = klog(line) {
        return Some(level);
    }
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut at = 0;
    while at < line.len() {
        if !is_word(line[at]) {
            at += 1;
            continue;
        }
        let len = line[at..].iter().position(|byte| !is_word(*byte)).unwrap_or(line.len() - at);
        let word = &line[at..at + len];
        if let Some(level) = named(word) {
            let (before, behind) = (&line[..at], &line[at + len..]);
            let capitals = word.iter().all(u8::is_ascii_uppercase);
            let enclosed = before.last().is_some_and(|byte| b"[(<|".contains(byte))
                && behind.first().is_some_and(|byte| b"])>|".contains(byte));
            let colon = behind.starts_with(b":") && !behind.starts_with(b"::");
            if capitals || enclosed || colon || is_value_of_level(before) {
                return Some(level);
            }
        }
        at += len;
    }
    None
}

/// The level that a word names, in any case.
pub fn named(word: &[u8]) -> Option<&'static str> {
    let known = |name: &str| name.as_bytes().eq_ignore_ascii_case(word);
    NAMES.iter().find(|(name, _)| known(name)).map(|(_, level)| *level)
}

/// The level that a number stands for: pino's and bunyan's 10 to 60, syslog's severities 0 to 7.
pub fn numbered(text: &[u8]) -> Option<&'static str> {
    Some(match text {
        b"10" => "trace",
        b"20" | b"7" => "debug",
        b"30" | b"5" | b"6" => "info",
        b"40" | b"4" => "warn",
        b"50" | b"3" => "error",
        b"60" | b"0" | b"1" | b"2" => "fatal",
        _ => return None,
    })
}

/// `level=`, `lvl: "` and the like stand right before.
fn is_value_of_level(before: &[u8]) -> bool {
    let text = before.trim_ascii_end();
    let text = text.strip_suffix(b"\"").unwrap_or(text).trim_ascii_end();
    let Some((b'=' | b':', text)) = text.split_last() else { return false };
    let text = text.strip_suffix(b"\"").unwrap_or(text);
    [&b"level"[..], b"lvl", b"severity", b"loglevel"]
        .iter()
        .any(|key| text.len() >= key.len() && text[text.len() - key.len()..].eq_ignore_ascii_case(key))
}

/// `E1122 10:00:00.000000       1 main.go:12] …`
fn klog(line: &[u8]) -> Option<&'static str> {
    let [letter, a, b, c, d, b' ', ..] = line else { return None };
    if ![a, b, c, d].iter().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match letter {
        b'I' => Some("info"),
        b'W' => Some("warn"),
        b'E' => Some("error"),
        b'F' => Some("fatal"),
        _ => None,
    }
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
            ("", None),
            ("=", None),
            ("ERROR", Some("error")),
        ];
        for (line, expected) in table {
            assert_eq!(detect(line.as_bytes()), expected, "{line}");
        }
        let far = format!("{}ERROR", "x ".repeat(LOOKED_AT_BYTES));
        assert_eq!(detect(far.as_bytes()), None, "nobody looks for a level that far in");
    }
}
