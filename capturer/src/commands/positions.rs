//! `capturer positions`: how far each container and file was delivered, from the checkpoint on disk. It takes no lock
//! and changes nothing, so it may be used while the agent runs.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::path::Path;

use crate::capture::checkpoint::Checkpoint;
use crate::commands::ask;
use crate::commands::cli;
use crate::commands::cli::{Exit, PositionsArgs};
use crate::decode::timestamp;
use crate::model::cursor::Cursor;
use crate::model::docker;
use crate::model::docker::{EventFacts, ListRowWithFacts};
use crate::model::record::StreamKey;
use crate::settings::ContainerMonitor;
use crate::shell::checkpoint::store;
use crate::text::terminal;

/// Prefix of a container's key.
const CONTAINER: &str = "container:";

/// Prints the positions as a table or as JSON.
pub fn show(arguments: &PositionsArgs, out: &mut dyn Write, err: &mut dyn Write) -> Exit {
    let settings = match cli::load(&arguments.config) {
        Ok((settings, _)) => settings,
        Err(error) => return cli::refuse(&error, err),
    };
    if is_missing(&settings.data_dir) {
        return cli::fail(&anyhow::anyhow!(
            "no positions in {}: there is no such directory, so no agent has run with this data_dir; -c names the config of one that \
             has",
            settings.data_dir.display()
        ));
    }
    let checkpoint = match store::peek(&settings.data_dir) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return cli::fail(&anyhow::Error::from(error)),
    };
    let text = if arguments.json {
        serde_json::to_string_pretty(&checkpoint).unwrap_or_default() + "\n"
    } else {
        let names = names(&settings.container_monitor, &checkpoint);
        table(&checkpoint, &names, &settings.data_dir.display().to_string())
    };
    // Standard output remembers its errors (text/output.rs).
    let _ = out.write_all(text.as_bytes());
    Exit::Ok
}

/// A missing directory has no positions, and looking must not make it.
fn is_missing(data_dir: &Path) -> bool {
    matches!(std::fs::symlink_metadata(data_dir), Err(error) if error.kind() == ErrorKind::NotFound)
}

/// Names of containers by ID, if the Engine has them. The checkpoint has none, because they change.
fn names(settings: &ContainerMonitor, checkpoint: &Checkpoint) -> BTreeMap<String, String> {
    let is_container = |key: &StreamKey| key.0.starts_with(CONTAINER);
    if !settings.enabled || !checkpoint.streams.keys().any(is_container) {
        return BTreeMap::new();
    }
    let rows = ask::get(&settings.socket_path, docker::LIST).unwrap_or_default();
    let rows: Vec<ListRowWithFacts> = serde_json::from_slice(&rows).unwrap_or_default();
    rows.into_iter().map(|row| (row.id.clone(), EventFacts::from(row).name)).collect()
}

fn table(checkpoint: &Checkpoint, names: &BTreeMap<String, String>, data_dir: &str) -> String {
    if checkpoint.streams.is_empty() {
        return format!(
            "no positions in {data_dir}: no agent has delivered anything with this data_dir yet\n"
        );
    }
    // Keys are not cut: two paths may differ anywhere.
    let shown = |key: &StreamKey| shown(&key.0, names);
    let width = checkpoint.streams.keys().map(|key| shown(key).chars().count()).max().unwrap_or(0).max(6);
    let mut text = format!("{:<width$} {:<12} POSITION\n", "STREAM", "SINK");
    for (key, entry) in &checkpoint.streams {
        for (sink, at) in entry.sinks.iter() {
            text += &format!("{:<width$} {:<12} {}\n", shown(key), sink, describe(&at.cursor));
        }
    }
    text
}

/// Containers by name and ID, as Docker shows them; a path unchanged.
fn shown(key: &str, names: &BTreeMap<String, String>) -> String {
    match key.strip_prefix(CONTAINER) {
        Some(id) => {
            let name = names.get(id).map(|name| format!(" {}", terminal::printable(name)));
            format!("{CONTAINER}{}{}", id.get(..12).unwrap_or(id), name.unwrap_or_default())
        }
        None => terminal::printable(key),
    }
}

fn describe(cursor: &Cursor) -> String {
    match cursor {
        Cursor::Beginning => "at the beginning".to_owned(),
        Cursor::File(at) => format!("byte {} of inode {}", at.offset, at.file.inode),
        Cursor::Api(at) if !at.is_beginning() => format!("line of {}", timestamp::format(at.last_ns)),
        Cursor::Api(_) => "at the beginning".to_owned(),
    }
}
