//! The content of an output, parsed as strictly as by a user's tools.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::wait::{PATIENCE, wait_until};

/// An agent that runs may be in the middle of a write: it is waited for.
pub(super) fn read_records(path: &Path) -> Result<Vec<Record>> {
    let text = wait_until("a whole record at the end", PATIENCE, || {
        let text = fs::read(path)?;
        ensure!(text.last().is_none_or(|byte| *byte == b'\n'), "{} ends within a record", path.display());
        anyhow::Ok(text)
    })?;
    parse_records(path, &text)
}

pub(super) fn parse_records(path: &Path, text: &[u8]) -> Result<Vec<Record>> {
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let parse = |line: &[u8]| {
        let shown =
            || format!("{}: {}", path.display(), String::from_utf8_lossy(&line[..line.len().min(300)]));
        Record::parse(line).with_context(shown)
    };
    lines.map(parse).collect()
}

/// One record of the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// RFC 3339.
    pub time: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// Container name, empty for files.
    pub container_name: String,
    /// The text.
    pub message: String,
}

impl Record {
    fn parse(line: &[u8]) -> Result<Record> {
        let value: Value = serde_json::from_slice(line)?;
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        Ok(Record {
            time: text("time").context("no time")?,
            stream: text("stream").context("no stream")?,
            container_name: text("container_name").unwrap_or_default(),
            message: text("message").context("no message")?,
        })
    }
}
