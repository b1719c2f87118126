//! Turns text into fields. Every format is read in one pass from left to right. Text that does not fit gives no field
//! at all, so that a half-understood line is not taken for a parsed one.
//!
//! ```text
//! message or field ─▶ logfmt, regex: here    json: json.rs    cri, syslog: lines.rs    level: level.rs
//!                      └─▶ Found: fields, and the text that becomes the message
//! ```

mod json;

use std::borrow::Cow;

use super::access::{self, Behind};
use super::lines;
use crate::model::fields::{Fields, Value};
use crate::settings::pipeline::{ParseFormat, Pattern};
use crate::text::level;

/// What was found in a text.
#[derive(Debug, Default)]
pub(super) struct Found<'m> {
    /// All fields except the one that becomes the message.
    pub(super) fields: Fields,
    /// Name of the field that becomes the message.
    wanted: Option<&'m str>,
    /// The text of that field, uncut.
    pub(super) message: Option<Vec<u8>>,
    /// A bound applied: the text had more than is here.
    pub(super) limited: bool,
    /// The text was not quite JSON: part of it was read as other text.
    pub(super) mended: bool,
}

impl<'m> Found<'m> {
    pub(super) fn new(wanted: Option<&'m str>) -> Found<'m> {
        Found { wanted, ..Found::default() }
    }

    pub(super) fn set(&mut self, name: &str, value: Value) {
        if self.wanted == Some(name) {
            self.message = Some(value.as_str().as_bytes().to_vec());
        } else if !self.fields.set(name, value) {
            self.limited = true;
        }
    }

    pub(super) fn set_bytes(&mut self, name: &str, value: &[u8]) {
        if self.wanted == Some(name) {
            self.message = Some(value.to_vec());
        } else {
            self.set(name, Value::Text(&String::from_utf8_lossy(value)));
        }
    }
}

/// The text is not in this format.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotThis;

/// Parses a text; `into` has its fields only if this succeeds.
pub(super) fn parse(format: &ParseFormat, text: &[u8], into: &mut Found) -> Result<(), NotThis> {
    // A program writes a byte order mark each time it opens its log, so a later line may begin with one.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    match format {
        ParseFormat::Json => json::json(text, into),
        ParseFormat::Logfmt => logfmt(text, into),
        ParseFormat::Regex(pattern) => by_pattern(pattern, text, into),
        ParseFormat::Cri => lines::cri(text, into),
        ParseFormat::Syslog => lines::syslog(text, into),
        ParseFormat::Common => access::access(text, Behind::Nothing, into),
        ParseFormat::Combined => access::access(text, Behind::Agent, into),
        ParseFormat::Nginx => access::nginx(text, into),
        ParseFormat::ApacheError => access::apache_error(text, into),
        ParseFormat::Level => {
            if let Some(level) = level::detect(text) {
                into.set("level", Value::Text(level));
            }
            Ok(())
        }
    }
}

/// The level in a field: a name or its first letter, a number of pino, syslog or monolog. Otherwise as in free text.
pub(super) fn level_of_value(text: &str, into: &mut Found) {
    let text = text.trim().as_bytes();
    let by_itself = level::named(text).or_else(|| level::numbered(text)).or_else(|| level::lettered(text));
    if let Some(level) = by_itself.or_else(|| level::detect(text)) {
        into.set("level", Value::Text(level));
    }
}

fn by_pattern(pattern: &Pattern, text: &[u8], into: &mut Found) -> Result<(), NotThis> {
    let captures = pattern.regex().captures(text).ok_or(NotThis)?;
    for name in pattern.regex().capture_names().flatten() {
        if let Some(group) = captures.name(name) {
            into.set_bytes(name, group.as_bytes());
        }
    }
    Ok(())
}

/// `level=info msg="order 17 failed" done`; a key alone is true. There must be at least one pair. A message without
/// quotes ends at its first blank; if the rest of it seems to follow, the line is refused, because that rest would be
/// lost. Bytes that are not UTF-8 become U+FFFD.
fn logfmt(text: &[u8], into: &mut Found) -> Result<(), NotThis> {
    let text = String::from_utf8_lossy(text);
    into.mended |= matches!(text, Cow::Owned(_));
    let (mut rest, mut pairs) = (text.trim_start(), 0);
    while !rest.is_empty() {
        let key_len = rest.find(|c: char| c == '=' || c == '"' || c.is_whitespace()).unwrap_or(rest.len());
        let (key, behind) = rest.split_at(key_len);
        rest = match behind.strip_prefix('=') {
            _ if key.is_empty() => return Err(NotThis),
            Some(value) => {
                pairs += 1;
                if value.starts_with('"') {
                    let len = quoted_len(value).ok_or(NotThis)?;
                    let quoted = &value[..len];
                    let unquoted: String = serde_json::from_str(quoted).unwrap_or_else(|_| {
                        into.mended = true;
                        json::mended(quoted.as_bytes())
                            .and_then(|mended| serde_json::from_slice(&mended).ok())
                            .unwrap_or_else(|| go_unquoted(&quoted[1..len - 1]))
                    });
                    into.set(key, Value::Text(&unquoted));
                    &value[len..]
                } else {
                    let len = value.find(char::is_whitespace).unwrap_or(value.len());
                    let (value, behind) = value.split_at(len);
                    if into.wanted == Some(key) && goes_on(value, behind) {
                        return Err(NotThis);
                    }
                    into.set(key, Value::Text(value));
                    behind
                }
            }
            None if behind.starts_with('"') => return Err(NotThis),
            None => {
                into.set(key, Value::Bool(true));
                behind
            }
        };
        if !rest.is_empty() && !rest.starts_with(char::is_whitespace) {
            return Err(NotThis);
        }
        rest = rest.trim_start();
    }
    if pairs == 0 { Err(NotThis) } else { Ok(()) }
}

/// Whether a value without quotes is only the beginning of a text: a word that is no pair follows, or it contains an
/// open quote of another kind.
fn goes_on(value: &str, behind: &str) -> bool {
    let next = behind.trim_start();
    let next_len = next.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(next.len());
    let is_word = next_len > 0 && !next[next_len..].starts_with('=');
    let is_open = |quote: char| value.starts_with(quote) && (value.len() == 1 || !value.ends_with(quote));
    is_word || is_open('\'') || is_open('`')
}

/// The inside of a quoted text with escapes that JSON does not have: those of Go's `%q` (`\x1b`, `\a`). A backslash that escapes
/// nothing stays, as in `C:\data`.
fn go_unquoted(inside: &str) -> String {
    let bytes = inside.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(byte) = bytes.get(at) {
        let Some(escape) = bytes.get(at + 1).filter(|_| *byte == b'\\') else {
            out.push(*byte);
            at += 1;
            continue;
        };
        let digits = match escape {
            b'x' => 2,
            b'u' => 4,
            b'U' => 8,
            _ => 0,
        };
        let hex = inside.get(at + 2..at + 2 + digits).filter(|_| digits > 0);
        let number = hex.and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let plain = match escape {
            b'n' => Some(b'\n'),
            b't' => Some(b'\t'),
            b'r' => Some(b'\r'),
            b'a' => Some(7),
            b'b' => Some(8),
            b'v' => Some(11),
            b'f' => Some(12),
            b'"' | b'\\' | b'/' => Some(*escape),
            // A byte of a text that is not UTF-8.
            b'x' => number.and_then(|number| u8::try_from(number).ok()),
            _ => None,
        };
        if let Some(plain) = plain {
            out.push(plain);
        } else if let Some(char) = number.and_then(char::from_u32) {
            out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
        } else {
            out.push(b'\\');
            at += 1;
            continue;
        }
        at += 2 + digits;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Length of a text in quotes, including the quotes.
fn quoted_len(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(found: &Found) -> String {
        let mut parts: Vec<String> = found
            .fields
            .iter()
            .map(|(name, value)| match value {
                Value::Text(text) => format!("{name}={text:?}"),
                other => format!("{name}={}", other.as_str()),
            })
            .collect();
        if let Some(message) = &found.message {
            parts.push(format!("MESSAGE {:?}", String::from_utf8_lossy(message)));
        }
        if found.limited {
            parts.push("LIMITED".to_owned());
        }
        if found.mended {
            parts.push("MENDED".to_owned());
        }
        parts.join(" ")
    }

    #[track_caller]
    fn check(format: &ParseFormat, text: &str, expected: &str) {
        let mut found = Found::new(Some("msg"));
        let shown = match parse(format, text.as_bytes(), &mut found) {
            Ok(()) => show(&found),
            Err(NotThis) => "no".to_owned(),
        };
        assert_eq!(shown, expected, "{text}");
    }

    #[test]
    fn json_objects() {
        let json = |text: &str, expected: &str| check(&ParseFormat::Json, text, expected);
        json(r#"{"level":"info","n":17,"f":1.5,"ok":true,"no":null}"#, r#"level="info" n=17 f=1.5 ok=true"#);
        json(r#"{"http":{"status":500,"q":{"a":"b"}},"x":-1}"#, r#"http.status=500 http.q.a="b" x=-1"#);
        json(r#"{"tags":["a",{"b":1}],"e":{},"l":[]}"#, r#"tags="[\"a\",{\"b\":1}]" l="[]""#);
        json(r#"{"a":1,"a":"2"}"#, r#"a="2""#);
        json(r#"{"msg":"line\nbreak","a":1}"#, r#"a=1 MESSAGE "line\nbreak""#);
        json(r#"{"msg":17}"#, r#"MESSAGE "17""#);
        json(" {} ", "");
        json("\u{feff}{\"a\":1}", "a=1");
        for bad in ["", "x", "[1]", "\"a\"", "{", r#"{"a":1} x"#, r#"{"a":}"#, "{'a':1}", r#"{"a":01}"#] {
            json(bad, "no");
        }
        // Not JSON, but written by programs: the fields are kept.
        json(r#"{"level":"debug","a":"cut \ud83d"}"#, "level=\"debug\" a=\"cut \u{fffd}\" MENDED");
        json(
            r#"{"a":"\udc00x\ud83d\ude00\ud83d\ud83d\ude00","\ud800":1}"#,
            "a=\"\u{fffd}x😀\u{fffd}😀\" \u{fffd}=1 MENDED",
        );
        json(r#"{"a":"\\ud83d"}"#, r#"a="\\ud83d""#);
        json("{\"a\":\"b\tc\u{1b}[1m\"}", r#"a="b\tc\u{1b}[1m" MENDED"#);
        json(r#"{"a":"\ud83"}"#, "no");
        let mut found = Found::new(None);
        assert_eq!(parse(&ParseFormat::Json, b"{\"a\":\"b\xff\"}", &mut found), Ok(()));
        assert_eq!(show(&found), "a=\"b\u{fffd}\" MENDED");
        let deep = format!("{}1{}", "{\"a\":".repeat(12), "}".repeat(12));
        json(&deep, "LIMITED");
        json(&format!("{{{:?}:1}}", "k".repeat(200)), "LIMITED");
        let deeper = format!("{}1{}", "{\"a\":".repeat(500), "}".repeat(500));
        json(&deeper, "LIMITED");
        // Too deep an object costs neither the line nor its other fields.
        for depth in [9, 200, 100_000] {
            let objects = format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
            json(&format!("{{\"x\":{objects},\"level\":\"info\"}}"), r#"level="info" LIMITED"#);
        }
        let lists = format!("{}{}", "[".repeat(200), "]".repeat(200));
        json(&format!("{{\"a\":{lists},\"b\":1}}"), &format!("a={lists:?} b=1"));
    }

    /// A number is what the program wrote, whatever numbers this program can hold.
    #[test]
    fn json_numbers_stay_as_they_are() {
        let digits = "9".repeat(400);
        let long = format!("0.{}", "1".repeat(300));
        let numbers = [
            "1e400",
            "-1e999",
            "1e-400",
            "0",
            "-0",
            "1.50",
            "1E5",
            "1.0e+2",
            "18446744073709551616",
            "123456789012345678901",
            "0.1234567890123456789",
            "1795888888.123456789",
            &digits,
            &long,
        ];
        for number in numbers {
            let json = |text: &str, expected: &str| check(&ParseFormat::Json, text, expected);
            json(&format!("{{\"a\":{number},\"b\": {number} }}"), &format!("a={number} b={number}"));
            json(&format!("{{\"a\":{{\"b\":{number}}}}}"), &format!("a.b={number}"));
            json(&format!("{{\"a\":[ {number} , {number}]}}"), &format!("a=\"[{number},{number}]\""));
            json(&format!("{{\"msg\":{number}}}"), &format!("MESSAGE {number:?}"));
        }
        // Part of a number would be another number.
        let too_long = "9".repeat(crate::limits::FIELD_VALUE_BYTES_MAX + 1);
        check(&ParseFormat::Json, &format!("{{\"a\":{too_long},\"b\":1}}"), "b=1 LIMITED");
    }

    #[test]
    fn json_of_python() {
        let json = |text: &str, expected: &str| check(&ParseFormat::Json, text, expected);
        json(r#"{"a":NaN,"b": Infinity ,"c":-Infinity}"#, r#"a="NaN" b="Infinity" c="-Infinity" MENDED"#);
        json(r#"{"a":[NaN, 1, -Infinity],"b":-1}"#, r#"a="[\"NaN\",1,\"-Infinity\"]" b=-1 MENDED"#);
        json(r#"{"a":"x: NaN, y","b":1}"#, r#"a="x: NaN, y" b=1"#);
        for bad in [r#"{NaN:1}"#, r#"{"a":1,NaN:2}"#, r#"{"a":NaNa}"#, r#"{"a":nan}"#, r#"{"a":- Infinity}"#]
        {
            json(bad, "no");
        }
    }

    /// A list is its JSON in the shortest form.
    #[test]
    fn json_lists() {
        let json = |text: &str, expected: &str| check(&ParseFormat::Json, text, expected);
        json(r#"{"a":[ "b c" , { "d" : [ 1, 2 ] } ]}"#, r#"a="[\"b c\",{\"d\":[1,2]}]""#);
        json(r#"{"a":["postgres:\/\/\u0061:b", "\"", "é"]}"#, r#"a="[\"postgres://a:b\",\"\\\"\",\"é\"]""#);
        json(r#"{"a":["\ud83d"],"b":1}"#, "a=\"[\\\"\u{fffd}\\\"]\" b=1 MENDED");
        json(r#"{"a":["x" "y"]}"#, "no");
    }

    #[test]
    fn logfmt_lines() {
        let logfmt = |text: &str, expected: &str| check(&ParseFormat::Logfmt, text, expected);
        logfmt("level=info n=17 done", r#"level="info" n="17" done=true"#);
        logfmt(r#"a="b \"c\" d=e" f= g"#, r#"a="b \"c\" d=e" f="" g=true"#);
        logfmt("  msg=\"order failed\"  a=1  ", r#"a="1" MESSAGE "order failed""#);
        logfmt("url=http://a/?b=c", r#"url="http://a/?b=c""#);
        // A message must not be cut at its first blank.
        logfmt("level=error msg=refused host=db1", r#"level="error" host="db1" MESSAGE "refused""#);
        logfmt(
            "level=error err=no such file msg=x",
            r#"level="error" err="no" such=true file=true MESSAGE "x""#,
        );
        logfmt("msg='a' b=1", r#"b="1" MESSAGE "'a'""#);
        logfmt("msg=it's b=1", r#"b="1" MESSAGE "it's""#);
        for cut in [
            "level=error msg=could not open file=/x err=no such file",
            "msg=hello world",
            "msg='a b' c=1",
            "msg='a b=c d'",
            "msg=`a b=c`",
            "msg= a b=1",
        ] {
            logfmt(cut, "no");
        }
        for bad in ["", "only words", "=x", "a=\"b", "a=\"b\"c", "a\"b=c", "a=\"\\\""] {
            logfmt(bad, "no");
        }
        // One such value must not cost the others.
        logfmt(r#"path="C:\dir\x" n=1"#, r#"path="C:\\dir\\x" n="1" MENDED"#);
        logfmt(
            r#"a="\x1b[1m \a\u00e9\U0001F600\xc3\xa9\x" b="\x""#,
            "a=\"\\u{1b}[1m \\u{7}é😀é\\\\x\" b=\"\\\\x\" MENDED",
        );
        let mut found = Found::new(None);
        super::logfmt(b"level=error a=caf\xe9 b=\"caf\xe9 closed\"", &mut found)
            .unwrap_or_else(|_| panic!("refused"));
        assert_eq!(show(&found), "level=\"error\" a=\"caf\u{fffd}\" b=\"caf\u{fffd} closed\" MENDED");
    }

    #[test]
    fn patterns() {
        let pattern = Pattern::new(r"^(?P<level>\w+): (?P<msg>.*?)(?: took (?P<ms>\d+))?$").expect("good");
        let format = ParseFormat::Regex(pattern);
        check(&format, "ERROR: order took 12", r#"level="ERROR" ms="12" MESSAGE "order""#);
        check(&format, "ERROR: order", r#"level="ERROR" MESSAGE "order""#);
        check(&format, "nothing", "no");
    }

    #[test]
    fn levels() {
        check(&ParseFormat::Level, "2026 ERROR x", r#"level="error""#);
        check(&ParseFormat::Level, "nothing", "");
        let table = [
            ("30", "info"),
            ("50", "error"),
            ("60", "fatal"),
            ("3", "error"),
            ("7", "debug"),
            ("0", "fatal"),
            ("50.0", "error"),
            ("550", "fatal"),
            ("E", "error"),
            ("<4>", "warn"),
        ];
        for (text, expected) in table.into_iter().chain([("Warning", "warn"), ("[error] x", "error")]) {
            let mut found = Found::new(None);
            level_of_value(text, &mut found);
            assert_eq!(show(&found), format!("level={expected:?}"), "{text}");
        }
        let mut found = Found::new(None);
        level_of_value("31", &mut found);
        assert_eq!(show(&found), "");
    }
}
