//! Fuzz entries for what reads lines: see [`crate::fuzz`]. Nothing is encoded here, so nothing is decoded again, and a
//! line comes whole.

use std::time::Duration;

use super::parse::{Found, parse};
use super::{cards, redact, secrets};
use crate::limits::{FIELD_NAME_BYTES_MAX, FIELD_VALUE_BYTES_MAX, FIELDS_BYTES_MAX, FIELDS_MAX};
use crate::model::fields::Value;
use crate::settings::pipeline::{
    Multiline, MultilinePreset, MultilineRule, Next, ParseFormat, Pattern, Redact, RedactPattern,
    RedactPreset,
};

/// One line, through every format and through redaction.
pub fn check(line: &[u8]) {
    for format in [
        ParseFormat::Json,
        ParseFormat::Logfmt,
        ParseFormat::Cri,
        ParseFormat::Syslog,
        ParseFormat::Common,
        ParseFormat::Combined,
        ParseFormat::Nginx,
        ParseFormat::ApacheError,
        ParseFormat::Level,
    ] {
        for wanted in [None, Some("message"), Some("a")] {
            let mut found = Found::new(wanted);
            if parse(&format, line, &mut found).is_ok() {
                is_bounded(&found);
                // 6: serde_json finds the same names and values at the top.
                if format == ParseFormat::Json && wanted.is_none() && !found.limited {
                    agrees_with_serde(line, &found);
                }
            }
        }
    }
    is_redacted(line);
}

/// A line through one format, as a step does it.
pub fn parse_as(format: &ParseFormat, line: &[u8]) {
    let _ = super::parse_text(format, line, &mut Found::new(Some("message")));
}

/// A line through every redaction, including a pattern of the user.
pub fn redact_all(line: &[u8]) {
    let pattern = Pattern::new(r"customer-(\d+)").expect("a pattern");
    let patterns = vec![RedactPattern { pattern, with: "customer-*".to_owned() }];
    redact::redact(&Redact { presets: RedactPreset::ALL.to_vec(), patterns }, line);
}

/// Lines through every multiline preset.
pub fn multiline(bytes: &[u8]) {
    for (_, preset) in MultilinePreset::NAMED {
        let rule = MultilineRule::Preset(preset);
        let multiline = Multiline { rule, timeout: Duration::ZERO, lines_max: 500, bytes_max: 1 << 18 };
        let mut open = None;
        for line in bytes.split(|byte| *byte == b'\n') {
            open = Some(match open.map(|group| multiline.next(group, line)) {
                Some(Next::Goes(group) | Next::Maybe(group) | Next::Blank(group)) => group,
                Some(Next::Ends) | None => multiline.begin(line),
            });
        }
    }
}

/// Property 4: what was found is bounded.
fn is_bounded(found: &Found) {
    let (mut count, mut bytes) = (0, 0);
    for (name, value) in found.fields.iter() {
        assert!(!name.is_empty() && name.len() <= FIELD_NAME_BYTES_MAX, "{name}");
        assert!(value.as_str().len() <= FIELD_VALUE_BYTES_MAX, "{name}");
        count += 1;
        bytes += name.len() + value.as_str().len();
    }
    assert!(count <= FIELDS_MAX && bytes <= FIELDS_BYTES_MAX, "{count} fields of {bytes} bytes");
}

fn agrees_with_serde(line: &[u8], found: &Found) {
    // Text that was mended is not valid JSON by itself.
    let Ok(object) = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(line) else {
        return;
    };
    for (name, value) in &object {
        // An object may have set it again under a name with dots.
        if name.contains('.') || object.keys().any(|other| other.contains('.')) {
            continue;
        }
        let same = match (value, found.fields.get(name)) {
            (serde_json::Value::String(text), Some(Value::Text(found))) => text == found,
            (serde_json::Value::Bool(is), Some(Value::Bool(found))) => *is == found,
            // The field keeps the line's digits, which may be more than serde_json's number holds.
            (serde_json::Value::Number(number), Some(Value::Number(found))) => {
                serde_json::from_str::<serde_json::Number>(found).is_ok_and(|same| same == *number)
                    && memchr::memmem::find(line, found.as_bytes()).is_some()
            }
            (serde_json::Value::Array(_), Some(Value::Text(found))) => {
                serde_json::from_str::<serde_json::Value>(found).is_ok_and(|same| same == *value)
            }
            // With the same key twice, the first value may be of another kind.
            (serde_json::Value::Object(_) | serde_json::Value::Null, _) => true,
            _ => false,
        };
        assert!(same, "{name}: {value} in {:?}", found.fields);
    }
}

/// 3 and 5: places are in the line, in order and apart; redacted text is not redacted again.
fn is_redacted(line: &[u8]) {
    for ranges in [secrets::values(line), cards::cards(line)] {
        let mut end = 0;
        for range in ranges {
            assert!(end <= range.start && range.start <= range.end && range.end <= line.len(), "{range:?}");
            end = range.end;
        }
    }
    let presets = RedactPreset::ALL.to_vec();
    let (text, done) = redact::redact(&Redact { presets, patterns: Vec::new() }, line);
    assert!(!done.limited, "presets have no bound that could bite");
    assert_eq!(done.changed, *text != *line);
}
