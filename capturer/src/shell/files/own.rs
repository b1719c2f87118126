//! Files of the agent itself, which it never follows, because each line in them would make another one. These are its
//! data directory with positions and spool, what its sinks write, and the files that its standard output and log go to.

use std::path::{Path, PathBuf};

use glob::Pattern;
use rustix::fs::{AtFlags, statx};

use super::mounts::other_ways;
use crate::capture::io::FoundFile;
use crate::model::cursor::FileId;
use crate::model::rotated_name;
use crate::settings::{NamePart, Settings};
use crate::text::path_text::{name_of, text_of};

/// The agent's own files; see the head of this file.
#[derive(Clone, Debug, Default)]
pub struct Own {
    /// The data directory, by each path that led there when the agent started or reloaded.
    data_dirs: Vec<PathBuf>,
    /// The local_file sink's directory, by each path, with a pattern for each component below it.
    outputs: Vec<(PathBuf, Vec<Pattern>)>,
    /// Standard output and standard error, if they are files.
    streams: Vec<FileId>,
}

impl Own {
    /// The files of an agent with these settings.
    pub fn of(settings: &Settings) -> Own {
        Own::mounted(settings, &std::fs::read("/proc/self/mountinfo").unwrap_or_default())
    }

    fn mounted(settings: &Settings, mountinfo: &[u8]) -> Own {
        let ways = |directory: &Path| {
            let directory = real(directory);
            let others = other_ways(mountinfo, &directory);
            [(directory, 0)].into_iter().chain(others)
        };
        let outputs = settings.sinks.local_file.iter().flat_map(|sink| {
            let template: Vec<_> = sink.file.components().map(glob_of).collect();
            ways(&sink.directory).filter_map(move |(way, depth)| Some((way, template.get(depth..)?.to_vec())))
        });
        let data_dirs = Some(&settings.data_dir).filter(|dir| !dir.as_os_str().is_empty());
        let id = |stat: rustix::fs::Statx| FileId::of(&stat);
        let stdout = statx(rustix::stdio::stdout(), "", AtFlags::EMPTY_PATH, FileId::ASKED);
        let stderr = statx(rustix::stdio::stderr(), "", AtFlags::EMPTY_PATH, FileId::ASKED);
        let streams = [stdout, stderr].into_iter().filter_map(Result::ok).map(id).collect();
        Own {
            data_dirs: data_dirs.into_iter().flat_map(|dir| ways(dir)).map(|(way, _)| way).collect(),
            outputs: outputs.collect(),
            streams,
        }
    }

    /// Whether this directory has only files of the agent.
    pub fn has_directory(&self, at: &Path) -> bool {
        self.data_dirs.iter().any(|dir| at.starts_with(dir))
    }

    /// Whether this is a file of the agent. Its path contains no links.
    pub fn has_file(&self, at: &Path, id: FileId) -> bool {
        self.has_directory(at) || self.streams.contains(&id) || self.is_output(at)
    }

    /// Takes the agent's own files out of a listing of this directory: a path may have led to another file before, when it
    /// was followed.
    pub fn leave_out(&self, directory: &str, found: &mut Vec<FoundFile>) {
        let directory = Path::new(&name_of(directory)).to_owned();
        found.retain(|file| !self.has_file(&directory.join(&*name_of(&file.name)), file.id));
    }

    fn is_output(&self, at: &Path) -> bool {
        self.outputs.iter().any(|(directory, template)| {
            let Ok(beneath) = at.strip_prefix(directory) else { return false };
            let names: Vec<_> = beneath.components().map(|name| text_of(name.as_os_str())).collect();
            let fits = |(name, pattern): (_, &Pattern)| {
                pattern.matches(name) || fits_older(pattern, name) || fits_rotated(pattern, name)
            };
            names.len() == template.len() && names.iter().map(AsRef::as_ref).zip(template).all(fits)
        })
    }
}

/// The directory's path without links, as far as it exists.
fn real(directory: &Path) -> PathBuf {
    std::fs::canonicalize(directory)
        .or_else(|_| std::path::absolute(directory))
        .unwrap_or_else(|_| directory.to_owned())
}

/// A pattern for what a component of the template can become.
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

/// Whether the name is an older output: `web.ndjson` is rotated to `web~20261125T034118.123Z.ndjson` and may be
/// compressed.
fn fits_older(pattern: &Pattern, name: &str) -> bool {
    let plain = name.strip_suffix(".tmp").unwrap_or(name);
    let plain = [".gz", ".zst"].iter().find_map(|ending| plain.strip_suffix(ending)).unwrap_or(plain);
    let Some((stem, stamp)) = plain.rsplit_once('~') else { return false };
    let ending = stamp.find('Z').map_or("", |at| &stamp[at + 1..]);
    pattern.matches(&format!("{stem}{ending}"))
}

/// Whether the name is what an operator's logrotate makes of an output: `web.ndjson.1`, `web.ndjson-20261125.gz`.
fn fits_rotated(pattern: &Pattern, name: &str) -> bool {
    rotated_name::live_names(name).any(|live| pattern.matches(&live))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{FileTemplate, LocalFile};

    /// `/` is mounted a second time, as a container sees its host, and the outputs a third time.
    #[test]
    fn what_the_agent_writes_is_known_by_other_mounts() {
        let mountinfo = b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            23 22 0:21 / /proc rw - proc proc rw\n\
            24 22 8:1 / /mnt/the\\040host ro - ext4 /dev/sda1 rw\n\
            25 22 8:1 /no/out /bound rw - ext4 /dev/sda1 rw\n\
            26 22 8:1 /no/out/shop /shop rw - ext4 /dev/sda1 rw\n\
            27 22 8:2 / /other rw - ext4 /dev/sdb1 rw\n";
        let mut settings = Settings { data_dir: PathBuf::from("/no/data"), ..Settings::default() };
        let file = FileTemplate::parse("{label:team}/{path}").unwrap();
        settings.sinks.local_file =
            Some(LocalFile { directory: PathBuf::from("/no/out"), file, ..LocalFile::default() });
        let own = Own::mounted(&settings, mountinfo);
        let id = FileId { device: 1, inode: u64::MAX, birth_ns: 1 };
        let table = [
            ("/no/data/checkpoint.json", true),
            ("/mnt/the host/no/data/spool/1", true),
            ("/other/no/data/checkpoint.json", false),
            ("/no/out/shop/a.log", true),
            ("/mnt/the host/no/out/shop/a.log", true),
            ("/bound/shop/a.log", true),
            ("/bound/a.log", false),
            ("/shop/a.log", true),
            ("/shop/x/a.log", false),
            ("/other/no/out/shop/a.log", false),
        ];
        for (path, expected) in table {
            assert_eq!(own.has_file(Path::new(path), id), expected, "{path}");
        }
    }

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
            ("{path}.ndjson", "out/a.log.ndjson.1", true),
            ("{path}.ndjson", "out/a.log.ndjson-20261125", true),
            ("{path}.ndjson", "out/a.log.ndjson.2.gz", true),
            ("{path}.ndjson", "out/a.log", false),
            ("{path}.ndjson", "out/a.log.1", false),
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
