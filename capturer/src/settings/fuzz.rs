//! Fuzz entry for the config: see [`crate::fuzz`]. There is no slow decoder, because YAML has no obvious one.

use std::path::Path;

use super::file::{Outside, Override, parse};
use super::problem::ConfigPlace;
use super::units;
use super::{ConfigError, FileTemplate, summary};
use crate::limits;

/// Stands for the value of any `${…}`. It resembles no other text, and is an invalid value for most keys.
const SECRET: &str = "hunter2{";
/// The secret as any quoting would show it.
const SECRET_TEXT: &str = "hunter2";

/// A config file; if it begins with `--set key=value`, that argument and the rest as the file.
pub fn check(bytes: &[u8]) {
    let written = String::from_utf8_lossy(bytes);
    let (overrides, text) = match written.strip_prefix("--set ").and_then(|text| text.split_once('\n')) {
        Some((set, text)) => {
            let (key, value) = set.split_once('=').unwrap_or((set, ""));
            (vec![Override { key: key.into(), value: value.to_owned() }], text)
        }
        None => (Vec::new(), &*written),
    };
    let outside = Outside {
        variable: &|name| if name.starts_with("NO") { None } else { Some(SECRET.to_owned()) },
        file: &|path: &Path| {
            if path.starts_with("/no") { Err("no".to_owned()) } else { Ok(SECRET.to_owned()) }
        },
    };
    let load = || parse("c.yaml", text, &overrides, &outside);
    let result = load();
    assert_eq!(load(), result, "the same text, another result");
    match result {
        Err(error) => {
            // If the config itself has it in a key, it is no secret, and is shown.
            assert!(written.contains(SECRET_TEXT) || !error.to_string().contains(SECRET_TEXT), "{error}");
            explains(&error, text);
        }
        Ok(settings) => {
            let shown = summary::summary(&settings, "c.yaml");
            assert!(shown.lines().all(|line| !line.contains(char::is_control)), "{shown:?}");
            assert!(settings.line_bytes_max <= limits::LINE_BYTES_CEILING);
            assert!(settings.sinks.stdout || settings.sinks.local_file.is_some());
        }
    }
    values(text);
}

/// Every problem is one line that names an existing place.
fn explains(error: &ConfigError, text: &str) {
    assert!(!error.problems.is_empty());
    let shown = error.to_string();
    assert_eq!(shown.split('\n').count(), error.problems.len(), "{shown:?}");
    assert!(shown.split('\n').all(|line| !line.contains(char::is_control)), "{shown:?}");
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines: Vec<&str> = text.split('\n').collect();
    for problem in &error.problems {
        if let ConfigPlace::File { line, column } = problem.place {
            let chars = lines.get(line - 1).map(|line| line.chars().count());
            // One column behind the last: something is missing at the end of the line.
            assert!(chars.is_some_and(|chars| (1..=chars + 1).contains(&column)), "{problem:?} in {lines:?}");
        }
    }
}

/// Single values: none panics, and a value that is shown can be read back.
fn values(text: &str) {
    if let Ok(duration) = units::duration(text) {
        assert_eq!(units::duration(&units::show_duration(duration)), Ok(duration), "{text:?}");
    }
    if let Ok(bytes) = units::size(text) {
        units::size(&units::show_size(bytes)).expect("a size that was shown");
    }
    if let Ok(path) = units::socket_path(text) {
        assert!(path.is_absolute());
    }
    if let Ok(template) = FileTemplate::parse(text) {
        assert_eq!(template.as_str(), text);
    }
    for refused in [units::listen(text).err(), units::pattern(text).err(), units::count(text).err()] {
        assert!(refused.is_none_or(|mismatch| !mismatch.expected.is_empty()));
    }
}
