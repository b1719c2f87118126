//! What the agent delivered, whatever an operator did to its files meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::Value;

use super::action::OutputAction;

/// A piece of an output that is not in its place any more.
enum Taken {
    /// What stood in a file that was emptied or removed.
    Bytes(Vec<u8>),
    /// Where it was moved to: it may still grow.
    File(PathBuf),
}

/// What was delivered.
#[derive(Default)]
pub struct Delivered {
    /// By output, in its order.
    pub messages: BTreeMap<String, Vec<String>>,
    /// Lines that are no records.
    pub broken: Vec<String>,
    /// What an output ends with that has no newline.
    pub open_ends: Vec<String>,
}

impl Delivered {
    /// How many lines came.
    pub fn count(&self) -> usize {
        self.messages.values().map(Vec::len).sum()
    }
}

/// The folder of outputs.
pub struct Outputs {
    folder: PathBuf,
    taken_folder: PathBuf,
    /// By output, oldest first.
    taken: BTreeMap<String, Vec<Taken>>,
    moved: usize,
    /// An operator did something to a folder that holds rotated outputs too: which is the older is not known any more.
    pub order_is_lost: bool,
}

impl Outputs {
    /// Those in `root/out`.
    pub fn new(root: &Path) -> Result<Outputs> {
        let taken_folder = root.join("taken");
        fs::create_dir_all(&taken_folder)?;
        let folder = root.join("out");
        Ok(Outputs { folder, taken_folder, taken: BTreeMap::new(), moved: 0, order_is_lost: false })
    }

    /// All files, oldest first for each output.
    fn files(&self) -> Vec<(String, PathBuf)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut files: Vec<(String, bool, PathBuf)> = entries
            .filter(|entry| entry.file_name().to_string_lossy().ends_with(".ndjson"))
            .map(|entry| {
                let path = entry.path();
                let name = entry.file_name().to_string_lossy().into_owned();
                match older_of(&name) {
                    Some(current) => (current, false, path),
                    None => (name, true, path),
                }
            })
            .collect();
        files.sort();
        files.into_iter().map(|(name, _, path)| (name, path)).collect()
    }

    /// A number that changes when anything was delivered; cheap, for waiting.
    pub fn print(&self) -> Vec<(PathBuf, u64)> {
        let taken = self.taken.values().flatten().filter_map(|taken| match taken {
            Taken::File(path) => Some(path.clone()),
            Taken::Bytes(_) => None,
        });
        let all = self.files().into_iter().map(|(_, path)| path).chain(taken);
        all.map(|path| (path.clone(), fs::metadata(&path).map_or(0, |metadata| metadata.len()))).collect()
    }

    /// When anything was delivered last.
    pub fn newest(&self) -> Option<std::time::SystemTime> {
        let times = self.files().into_iter().filter_map(|(_, path)| fs::metadata(path).ok()?.modified().ok());
        times.max()
    }

    /// Everything that was delivered so far.
    pub fn read(&self) -> Delivered {
        let mut pieces: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        for (name, taken) in &self.taken {
            let bytes = taken.iter().map(|taken| match taken {
                Taken::Bytes(bytes) => bytes.clone(),
                Taken::File(path) => fs::read(path).unwrap_or_default(),
            });
            pieces.entry(name.clone()).or_default().extend(bytes);
        }
        for (name, path) in self.files() {
            // A file may be rotated between being listed and read; the next look finds it.
            pieces.entry(name).or_default().push(fs::read(path).unwrap_or_default());
        }
        let mut delivered = Delivered::default();
        for (name, pieces) in pieces {
            let messages = delivered.messages.entry(name.clone()).or_default();
            for piece in pieces {
                let (whole, end) = split_end(&piece);
                if !end.is_empty() {
                    delivered.open_ends.push(shown(&name, end));
                }
                for line in whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    let value: Option<Value> = serde_json::from_slice(line).ok();
                    match value.as_ref().and_then(|value| value["message"].as_str()) {
                        Some(message) => messages.push(message.to_owned()),
                        None => delivered.broken.push(shown(&name, line)),
                    }
                }
            }
        }
        delivered
    }

    /// What an operator does.
    pub fn act(&mut self, action: OutputAction) -> Result<bool> {
        let files = self.files();
        if files.is_empty() {
            return Ok(false);
        }
        let is_current = |name: &str, path: &Path| path.ends_with(name);
        self.order_is_lost |= files.iter().any(|(name, path)| !is_current(name, path));
        for (name, path) in files {
            let is_current = is_current(&name, &path);
            if is_current || action == OutputAction::RemoveFolder {
                let taken = self.take(&path, action)?;
                self.taken.entry(name).or_default().push(taken);
            }
        }
        if action == OutputAction::RemoveFolder {
            fs::remove_dir_all(&self.folder)?;
        }
        Ok(true)
    }

    fn take(&mut self, path: &Path, action: OutputAction) -> Result<Taken> {
        let bytes = fs::read(path)?;
        Ok(match action {
            OutputAction::Move => {
                self.moved += 1;
                let to = self.taken_folder.join(self.moved.to_string());
                fs::rename(path, &to)?;
                Taken::File(to)
            }
            OutputAction::Empty | OutputAction::CopyTruncate => {
                if action == OutputAction::CopyTruncate {
                    // Beside it, as logrotate does. No output of the agent's is called so.
                    fs::write(path.with_extension("ndjson.1"), &bytes)?;
                }
                fs::OpenOptions::new().write(true).truncate(true).open(path)?;
                Taken::Bytes(bytes)
            }
            OutputAction::Remove | OutputAction::RemoveFolder => {
                fs::remove_file(path)?;
                Taken::Bytes(bytes)
            }
        })
    }
}

/// The output of which a file of this name is an older part: `a.log~TIME.ndjson` is one of `a.log.ndjson`.
fn older_of(name: &str) -> Option<String> {
    let (stem, time) = name.rsplit_once('~')?;
    let digits = |text: &str| text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_time = time.split_once('T').is_some_and(|(day, _)| digits(day));
    is_time.then(|| format!("{stem}.ndjson"))
}

fn split_end(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    bytes.split_at(end)
}

fn shown(name: &str, line: &[u8]) -> String {
    format!("{name}: {:?}", String::from_utf8_lossy(&line[..line.len().min(200)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_parts_are_told_from_other_outputs() {
        let older = "app.log~22ab34cd56~20261126T000004.120Z.ndjson";
        assert_eq!(older_of(older).as_deref(), Some("app.log~22ab34cd56.ndjson"));
        assert_eq!(older_of("app.log~22ab34cd56.ndjson"), None);
        assert_eq!(older_of("all.ndjson"), None);
    }
}
