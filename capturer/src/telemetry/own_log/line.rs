//! An event as one line of text or JSON. Whatever its values hold, the line stays one line and of bounded length.

use std::fmt::{self, Write};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use super::level_name;
use crate::settings::LogFormat;

/// Longest value that is written. Docker accepts names of 60,004 bytes.
const VALUE_BYTES_MAX: usize = 1024;

/// What a line says.
pub(super) struct LogLine {
    level: Level,
    target: &'static str,
    pub message: String,
    fields: Vec<(&'static str, Value)>,
}

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

    /// The last line of a process that ends because of a mistake of its own.
    pub(super) fn error(message: String) -> LogLine {
        LogLine { level: Level::ERROR, target: "capturer", message, fields: Vec::new() }
    }

    /// A line about the log itself.
    pub(super) fn note(message: String) -> LogLine {
        LogLine { level: Level::WARN, target: "capturer::telemetry::own_log", message, fields: Vec::new() }
    }

    /// With its newline.
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

fn plain(value: &str) -> bool {
    !value.is_empty()
        && !value.contains(|c: char| c.is_control() || c.is_whitespace() || c == '"' || c == '=')
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        // Direction overrides (U+202E and the like) make a line show what it does not say.
        if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// A JSON string; control characters above U+007F too are written as escapes.
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
    fn values_are_cut_between_characters() {
        assert_eq!(capped("é".repeat(60_000)).len(), VALUE_BYTES_MAX + '…'.len_utf8());
        assert_eq!(capped("short".to_owned()), "short");
    }
}
