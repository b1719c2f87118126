//! `capturer positions`: how far each container and file was delivered, from the checkpoint on disk. It takes no lock
//! and changes nothing, so it may be asked while the agent runs.

use std::io::{ErrorKind, Write};
use std::path::Path;

use crate::capture::checkpoint::Checkpoint;
use crate::commands::cli;
use crate::commands::cli::{Exit, PositionsArgs};
use crate::decode::timestamp;
use crate::model::cursor::Cursor;
use crate::shell::checkpoint::store;
use crate::shell::checkpoint::store::StoreError;
use crate::text::terminal;

/// Shows them, as a table or as JSON.
pub fn show(arguments: &PositionsArgs, out: &mut dyn Write, err: &mut dyn Write) -> Exit {
    let settings = match cli::load(&arguments.config) {
        Ok((settings, _)) => settings,
        Err(error) => return cli::refuse(&error, err),
    };
    let checkpoint = match look(&settings.data_dir) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return cli::fail(&anyhow::Error::from(error)),
    };
    let text = if arguments.json {
        serde_json::to_string_pretty(&checkpoint).unwrap_or_default() + "\n"
    } else {
        table(&checkpoint, &settings.data_dir.display().to_string())
    };
    // A reader that went away (`| head`) is no error of ours.
    let _ = out.write_all(text.as_bytes());
    Exit::Ok
}

/// A directory that is not there holds nothing, and looking must not make it.
fn look(data_dir: &Path) -> Result<Checkpoint, StoreError> {
    if matches!(std::fs::symlink_metadata(data_dir), Err(error) if error.kind() == ErrorKind::NotFound) {
        return Ok(Checkpoint::default());
    }
    store::peek(data_dir)
}

fn table(checkpoint: &Checkpoint, data_dir: &str) -> String {
    if checkpoint.streams.is_empty() {
        return format!("no positions in {data_dir}: nothing was delivered from there yet\n");
    }
    // No key is cut: what distinguishes two paths may stand anywhere in them.
    let width = checkpoint.streams.keys().map(|key| shown(&key.0).chars().count()).max().unwrap_or(0).max(6);
    let mut text = format!("{:<width$} {:<12} POSITION\n", "STREAM", "SINK");
    for (key, entry) in &checkpoint.streams {
        for (sink, at) in &entry.sinks {
            text += &format!("{:<width$} {:<12} {}\n", shown(&key.0), sink, describe(&at.cursor));
        }
    }
    text
}

/// Container IDs as docker shows them; a path as it is.
fn shown(key: &str) -> String {
    match key.strip_prefix("container:") {
        Some(id) => format!("container:{}", id.get(..12).unwrap_or(id)),
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
