//! An event as one line of text or JSON. Whatever its values contain, it stays one line of bounded length.

use std::fmt::{self, Write};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use super::level_name;
use crate::settings::LogFormat;
use crate::text::ids::with_ids;

/// Longest value that is written. Docker accepts names of 60,004 bytes.
const VALUE_BYTES_MAX: usize = 1024;

/// Fields that name the source of a line, the name that people know best first.
pub(super) const WHO: [&str; 5] = ["container", "output", "file", "path", "stream"];

/// The cause that a line reports, without its source.
pub(super) struct Cause {
    /// The same for all lines with this cause.
    pub key: String,
    /// The message without names.
    pub message: String,
}

/// The content of a line.
pub(super) struct LogLine {
    level: Level,
    target: &'static str,
    pub message: String,
    fields: Vec<(&'static str, Value)>,
}

#[derive(Clone)]
enum Value {
    Text(String),
    /// A number or boolean: written without quotes in JSON.
    Bare(String),
}

impl LogLine {
    pub(super) fn of(event: &Event) -> LogLine {
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        let mut line = LogLine { level, target, message: String::new(), fields: Vec::new() };
        event.record(&mut line);
        line
    }

    /// The last line of a process that ends because of a bug.
    pub(super) fn error(message: String) -> LogLine {
        LogLine { level: Level::ERROR, target: "capturer", message, fields: Vec::new() }
    }

    /// A line about the log itself.
    pub(super) fn note(message: String) -> LogLine {
        LogLine { level: Level::WARN, target: "capturer::telemetry::own_log", message, fields: Vec::new() }
    }

    /// The source it is about, by its best-known name.
    pub(super) fn who(&self) -> Option<&str> {
        WHO.iter().find_map(|name| self.whos(name).next())
    }

    fn whos<'a>(&'a self, wanted: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields.iter().filter_map(move |(name, value)| match value {
            Value::Text(text) if *name == wanted && !text.is_empty() => Some(text.as_str()),
            _ => None,
        })
    }

    /// Everything but names and numbers.
    pub(super) fn cause(&self) -> Cause {
        let mut message = self.message.clone();
        let mut names: Vec<&str> = WHO.iter().flat_map(|name| self.whos(name)).collect();
        // Longest first, because a path may contain the name of its container.
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        for name in names {
            message = without_name(&message, name);
        }
        let message = without_ids(&message);
        let mut key = message.clone();
        for (name, value) in self.fields.iter().filter(|(name, _)| !WHO.contains(name)) {
            if let Value::Text(text) = value {
                let _ = write!(key, "\n{name}={text}");
            }
        }
        Cause { key, message }
    }

    /// The same line without a source, with another message.
    pub(super) fn without_who(&self, message: String) -> LogLine {
        let mut line = self.saying(message);
        line.fields.retain(|(name, value)| !WHO.contains(name) && matches!(value, Value::Text(_)));
        line
    }

    /// The same line with another message.
    pub(super) fn saying(&self, message: String) -> LogLine {
        LogLine { message, fields: self.fields.clone(), ..*self }
    }

    /// The line as text, including its newline.
    pub(super) fn render(&self, format: LogFormat, time: SystemTime) -> String {
        let time = humantime::format_rfc3339_millis(time);
        match format {
            LogFormat::Text => self.text(&time),
            LogFormat::Json => self.json(&time),
        }
    }

    fn text(&self, time: &dyn fmt::Display) -> String {
        let level = level_name(self.level).to_uppercase();
        let mut text = format!("{time} {level:<5} {}", escaped(&self.message));
        for (name, value) in &self.fields {
            let _ = match value {
                Value::Bare(value) => write!(text, " {name}={value}"),
                Value::Text(value) if plain(value) => write!(text, " {name}={value}"),
                Value::Text(value) => write!(text, " {name}=\"{}\"", escaped(&value.replace('"', "\\\""))),
            };
        }
        text.push('\n');
        text
    }

    fn json(&self, time: &dyn fmt::Display) -> String {
        let (level, target, message) = (level_name(self.level), json(self.target), json(&self.message));
        let mut text =
            format!(r#"{{"time":"{time}","level":"{level}","target":{target},"message":{message}"#);
        for (name, value) in &self.fields {
            let _ = match value {
                Value::Bare(value) => write!(text, ",{}:{value}", json(name)),
                Value::Text(value) => write!(text, ",{}:{}", json(name), json(value)),
            };
        }
        text.push_str("}\n");
        text
    }

    fn push(&mut self, field: &Field, value: Value) {
        match value {
            Value::Text(text) | Value::Bare(text) if field.name() == "message" => self.message = text,
            value => self.fields.push((field.name(), value)),
        }
    }
}

/// Removes the name where it is a word of its own: a container may be called `a`.
fn without_name(text: &str, name: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(name) {
        let end = at + name.len();
        let is_word = |c: char| c.is_alphanumeric();
        let before = safe.chars().chain(rest[..at].chars()).next_back();
        let stands_alone = !before.is_some_and(is_word) && !rest[end..].chars().next().is_some_and(is_word);
        safe.push_str(&rest[..at]);
        safe.push_str(if stands_alone { "…" } else { name });
        rest = &rest[end..];
    }
    safe + rest
}

/// Removes IDs of containers, which identify a source as names do.
fn without_ids(text: &str) -> String {
    with_ids(text, |_| "…")
}

fn plain(value: &str) -> bool {
    !value.is_empty()
        && !value.contains(|c: char| c.is_control() || c.is_whitespace() || c == '"' || c == '=')
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        // Direction overrides (U+202E and the like) make a line show something other than what it says.
        if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// A JSON string in which control characters above U+007F are escaped, too.
fn json(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    let mut safe = String::with_capacity(quoted.len());
    for c in quoted.chars() {
        if c.is_control() {
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    safe
}

fn capped(mut text: String) -> String {
    if text.len() > VALUE_BYTES_MAX {
        text.truncate(text.floor_char_boundary(VALUE_BYTES_MAX));
        text.push('…');
    }
    text
}

impl Visit for LogLine {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, Value::Text(capped(format!("{value:?}"))));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, Value::Text(capped(value.to_owned())));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, Value::Bare(value.to_string()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, Value::Bare(value.to_string()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, Value::Bare(value.to_string()));
    }

    fn record_error(&mut self, field: &Field, error: &(dyn std::error::Error + 'static)) {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let _ = write!(text, ": {cause}");
            source = cause.source();
        }
        self.push(field, Value::Text(capped(text)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(fields: Vec<(&'static str, Value)>, message: &str, text: &str, json: &str) {
        let line = LogLine { level: Level::WARN, target: "capturer", message: message.to_owned(), fields };
        let time = SystemTime::UNIX_EPOCH;
        assert_eq!(line.render(LogFormat::Text, time), format!("1970-01-01T00:00:00.000Z WARN  {text}\n"));
        let head = r#"{"time":"1970-01-01T00:00:00.000Z","level":"warn","target":"capturer","message":"#;
        let rendered = line.render(LogFormat::Json, time);
        assert_eq!(rendered, format!("{head}{json}}}\n"));
        serde_json::from_str::<serde_json::Value>(&rendered).expect("valid JSON");
    }

    #[test]
    fn lines() {
        let text = |text: &str| Value::Text(text.to_owned());
        check(vec![], "hello", "hello", r#""hello""#);
        check(
            vec![("n", Value::Bare("5".into())), ("name", text("web-1"))],
            "found",
            "found n=5 name=web-1",
            r#""found","n":5,"name":"web-1""#,
        );
        check(vec![("a", text("b c\"d"))], "x", "x a=\"b c\\\"d\"", r#""x","a":"b c\"d""#);
        check(vec![("a", text(""))], "x", "x a=\"\"", r#""x","a":"""#);
        check(vec![], "a\nb\x1b[0m\u{9b}", "a\\nb\\u{1b}[0m\\u{9b}", r#""a\nb\u001b[0m\u009b""#);
        check(vec![], "é…", "é…", r#""é…""#);
    }

    #[test]
    fn a_cause_is_the_same_for_all() {
        let id = "0123456789abcdef".repeat(4);
        let line = |name: &str, path: &str, message: &str, error: &str| {
            let fields = [("container", name), ("path", path), ("stream", ""), ("error", error)];
            let mut fields: Vec<_> =
                fields.iter().map(|(name, value)| (*name, Value::Text((*value).to_owned()))).collect();
            fields.push(("after_s", Value::Bare(path.len().to_string())));
            LogLine { level: Level::WARN, target: "capturer", message: message.to_owned(), fields }
        };
        let path = format!("/c/{id}/web");
        let web = line("web", &path, &format!("opening {path} of web ({id}/log): denied"), "open");
        let other = line("b", "/c/b", &format!("opening /c/b of b ({}/log): denied", "f".repeat(64)), "open");
        assert_eq!(web.cause().message, "opening … of … (…/log): denied");
        assert_eq!(web.cause().key, other.cause().key);
        assert_ne!(web.cause().key, line("web", &path, "opening", "read").cause().key);
        assert_eq!((web.who(), line("", "/c/b", "", "").who()), (Some("web"), Some("/c/b")));
        assert_eq!(line("", "", "", "").who(), None);
        assert_eq!(without_ids("abc é 12 x"), "abc é 12 x");
        assert_eq!(without_name("a can't read aa, a/b: a", "a"), "… can't read aa, …/b: …");
        assert_eq!(without_name("", "a"), "");
    }

    #[test]
    fn values_are_cut_between_characters() {
        assert_eq!(capped("é".repeat(60_000)).len(), VALUE_BYTES_MAX + '…'.len_utf8());
        assert_eq!(capped("short".to_owned()), "short");
    }
}
