//! Files of the agent itself, which are never followed: each line of them would make another. Its data directory with
//! positions and spool, what its sinks write, and the files that its standard output and its log go to.

use std::path::{Path, PathBuf};

use glob::Pattern;
use rustix::fs::{AtFlags, statx};

use crate::model::cursor::FileId;
use crate::settings::{NamePart, Settings};
use crate::text::path_text::text_of;

/// See the module's head.
#[derive(Clone, Debug, Default)]
pub struct Own {
    data_dir: PathBuf,
    /// Where the local_file sink writes, and what each component beneath that looks like.
    outputs: Option<(PathBuf, Vec<Pattern>)>,
    /// Standard output and standard error, where those are files.
    streams: Vec<FileId>,
}

impl Own {
    /// Those of an agent with these settings.
    pub fn of(settings: &Settings) -> Own {
        let outputs = settings
            .sinks
            .local_file
            .as_ref()
            .map(|sink| (real(&sink.directory), sink.file.components().map(glob_of).collect::<Vec<_>>()));
        let id = |stat: rustix::fs::Statx| FileId::of(&stat);
        let stdout = statx(rustix::stdio::stdout(), "", AtFlags::EMPTY_PATH, FileId::ASKED);
        let stderr = statx(rustix::stdio::stderr(), "", AtFlags::EMPTY_PATH, FileId::ASKED);
        let streams = [stdout, stderr].into_iter().filter_map(Result::ok).map(id).collect();
        Own { data_dir: real(&settings.data_dir), outputs, streams }
    }

    /// Whether this directory has nothing but files of the agent.
    pub fn has_directory(&self, at: &Path) -> bool {
        !self.data_dir.as_os_str().is_empty() && at.starts_with(&self.data_dir)
    }

    /// Whether this file is one of them. Its path has no links in it.
    pub fn has_file(&self, at: &Path, id: FileId) -> bool {
        self.has_directory(at) || self.streams.contains(&id) || self.is_output(at)
    }

    fn is_output(&self, at: &Path) -> bool {
        let Some((directory, template)) = &self.outputs else { return false };
        let Ok(beneath) = at.strip_prefix(directory) else { return false };
        let names: Vec<_> = beneath.components().map(|name| text_of(name.as_os_str())).collect();
        if names.len() != template.len() {
            return false;
        }
        let fits = |(name, pattern): (_, &Pattern)| pattern.matches(name) || fits_older(pattern, name);
        names.iter().map(AsRef::as_ref).zip(template).all(fits)
    }
}

/// The directory's path without links, as far as it is there.
fn real(directory: &Path) -> PathBuf {
    std::fs::canonicalize(directory)
        .or_else(|_| std::path::absolute(directory))
        .unwrap_or_else(|_| directory.to_owned())
}

/// What a component of the template may become.
fn glob_of(parts: &[NamePart]) -> Pattern {
    let mut text = String::new();
    for part in parts {
        match part {
            NamePart::Literal(literal) => text += &Pattern::escape(literal),
            _ if text.ends_with('*') => {}
            _ => text.push('*'),
        }
    }
    Pattern::new(&text).unwrap_or_default()
}

/// `web.ndjson` was rotated to `web~20261125T034118.123Z.ndjson`, and may be compressed.
fn fits_older(pattern: &Pattern, name: &str) -> bool {
    let plain = name.strip_suffix(".tmp").unwrap_or(name);
    let plain = [".gz", ".zst"].iter().find_map(|ending| plain.strip_suffix(ending)).unwrap_or(plain);
    let Some((stem, stamp)) = plain.rsplit_once('~') else { return false };
    let ending = stamp.find('Z').map_or("", |at| &stamp[at + 1..]);
    pattern.matches(&format!("{stem}{ending}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{FileTemplate, LocalFile};

    #[test]
    fn what_the_agent_writes_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let own = |file: &str| {
            let mut settings = Settings { data_dir: dir.path().join("data"), ..Settings::default() };
            let file = FileTemplate::parse(file).unwrap();
            settings.sinks.local_file =
                Some(LocalFile { directory: dir.path().join("out"), file, ..LocalFile::default() });
            Own::of(&settings)
        };
        let id = FileId { device: 1, inode: u64::MAX, birth_ns: 1 };
        let table = [
            ("{path}.ndjson", "data/checkpoint.json", true),
            ("{path}.ndjson", "data/spool/loki/1", true),
            ("{path}.ndjson", "database.log", false),
            ("{path}.ndjson", "out/a.log.ndjson", true),
            ("{path}.ndjson", "out/a.log~20261125T034118.123Z.ndjson", true),
            ("{path}.ndjson", "out/a.log~20261125T034118.123Z.ndjson.zst", true),
            ("{path}.ndjson", "out/a.log~20261125T034118.123Z.ndjson.zst.tmp", true),
            ("{path}.ndjson", "out/a.log", false),
            ("{path}.ndjson", "out/x/a.ndjson", false),
            ("{path}.ndjson", "a.ndjson", false),
            ("all.ndjson", "out/all.ndjson", true),
            ("all.ndjson", "out/all~20261125T034118.123Z.ndjson", true),
            ("all.ndjson", "out/other.ndjson", false),
            ("{label:team}/{path}", "out/shop/a.log", true),
            ("{label:team}/{path}", "out/a.log", false),
        ];
        for (template, path, expected) in table {
            assert_eq!(own(template).has_file(&dir.path().join(path), id), expected, "{template} {path}");
        }
    }
}
