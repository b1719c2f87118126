//! Path patterns, walked a directory at a time, because a pattern may lead into several file systems of which one
//! hangs: the walk stops where such a one begins, and its own thread goes on from there (lane.rs).
//!
//! A wildcard matches within one component; `**` stands for any number of directories and follows no links.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

use glob::Pattern;
use rustix::fs::{AtFlags, FileType};

use crate::capture::io::{FoundPath, LaneId};
use crate::cursor::FileId;
use crate::settings::FileSet;

/// A component of a pattern.
#[derive(Clone, Debug)]
enum Part {
    Name(OsString),
    Wild(Pattern),
    /// `**`
    Directories,
}

/// Where a walk goes on: a directory, and what of the pattern is left.
#[derive(Clone, Debug)]
pub struct Start {
    directory: PathBuf,
    rest: Vec<Part>,
}

/// What a walk came to.
#[derive(Debug, Default)]
pub struct Found {
    /// Directories in which something may match.
    pub directories: BTreeSet<PathBuf>,
    /// Regular files that match.
    pub paths: BTreeMap<String, FileId>,
    /// Why a directory or name could not be looked at, where it is not that it is missing or not allowed.
    pub trouble: Option<String>,
    /// Directories that may not be looked at, with the reason: what is in them nobody knows.
    pub unlistable: BTreeSet<String>,
    /// Where the walk did not go on.
    pub elsewhere: BTreeMap<LaneId, Vec<Start>>,
}

impl Found {
    /// The files, for who asked.
    pub fn paths(&self) -> Vec<FoundPath> {
        let found = |(path, id): (&String, &FileId)| FoundPath { path: path.clone(), id: *id };
        self.paths.iter().map(found).collect()
    }
}

/// Where the patterns of an entry begin.
pub fn starts(set: &FileSet) -> Vec<Start> {
    set.paths.iter().map(start).collect()
}

fn start(pattern: &Pattern) -> Start {
    let path = Path::new(pattern.as_str());
    let directory = if path.has_root() { "/" } else { "." };
    let rest = path.components().filter_map(|component| match component {
        Component::Normal(name) => {
            let text = name.to_str().unwrap_or_default();
            let wild = Pattern::new(text).ok().filter(|_| text.contains(['*', '?', '[']));
            Some(match wild {
                _ if text == "**" => Part::Directories,
                Some(pattern) => Part::Wild(pattern),
                None => Part::Name(name.to_owned()),
            })
        }
        Component::ParentDir => Some(Part::Name(OsString::from(".."))),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    });
    Start { directory: directory.into(), rest: rest.collect() }
}

/// Walks from the given places. `lane_of` says of a path that another thread goes there.
pub fn walk(set: &FileSet, starts: Vec<Start>, lane_of: &dyn Fn(&Path) -> Option<LaneId>) -> Found {
    let mut walk = Walk { exclude: &set.exclude, lane_of, found: Found::default() };
    for Start { directory, rest } in starts {
        walk.step(directory, &rest);
    }
    walk.found
}

struct Walk<'a> {
    exclude: &'a [Pattern],
    lane_of: &'a dyn Fn(&Path) -> Option<LaneId>,
    found: Found,
}

impl Walk<'_> {
    fn step(&mut self, directory: PathBuf, rest: &[Part]) {
        if self.leave(&directory, &directory, rest) {
            return;
        }
        match rest {
            [] => {}
            [Part::Directories, tail @ ..] => {
                for entry in self.entries(&directory) {
                    if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                        self.step(entry.path(), rest);
                    }
                }
                self.step(directory, tail);
            }
            [part, tail @ ..] => {
                if tail.is_empty() && directory.is_dir() {
                    self.found.directories.insert(directory.clone());
                }
                for name in self.names(&directory, part) {
                    let path = directory.join(&name);
                    if !tail.is_empty() {
                        self.step(path, tail);
                    } else if !self.leave(&path, &directory, &[Part::Name(name)]) {
                        self.take(&path);
                    }
                }
            }
        }
    }

    /// Whether another thread goes to this path; then from `directory` by `rest`.
    fn leave(&mut self, path: &Path, directory: &Path, rest: &[Part]) -> bool {
        let Some(lane) = (self.lane_of)(path) else { return false };
        let start = Start { directory: directory.to_owned(), rest: rest.to_vec() };
        self.found.elsewhere.entry(lane).or_default().push(start);
        true
    }

    fn names(&mut self, directory: &Path, part: &Part) -> Vec<OsString> {
        match part {
            Part::Name(name) => vec![name.clone()],
            Part::Wild(pattern) => {
                let names = self.entries(directory).into_iter().map(|entry| entry.file_name());
                names.filter(|name| name.to_str().is_some_and(|name| pattern.matches(name))).collect()
            }
            Part::Directories => Vec::new(),
        }
    }

    fn entries(&mut self, directory: &Path) -> Vec<std::fs::DirEntry> {
        let (mut entries, mut error) = (Vec::new(), None);
        match std::fs::read_dir(directory) {
            Ok(all) => all.for_each(|entry| match entry {
                Ok(entry) => entries.push(entry),
                Err(cause) => error = Some(cause),
            }),
            Err(cause) => error = Some(cause),
        }
        self.note(directory, error);
        entries
    }

    fn note(&mut self, path: &Path, error: Option<io::Error>) {
        use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
        if let Some(error) = error.as_ref().filter(|error| error.kind() == PermissionDenied) {
            self.found.unlistable.insert(format!("{}: {error}", path.display()));
        }
        let told = error.filter(|error| !matches!(error.kind(), NotADirectory | NotFound | PermissionDenied));
        if let Some(error) = told {
            self.found.trouble = Some(format!("{}: {error}", path.display()));
        }
    }

    fn take(&mut self, path: &Path) {
        let looked = rustix::fs::statx(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW, FileId::ASKED);
        let stat = match looked {
            Ok(stat) => stat,
            Err(errno) => return self.note(path, Some(errno.into())),
        };
        let regular = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile;
        let Some(text) = path.to_str().filter(|_| regular) else { return };
        if !self.exclude.iter().any(|exclude| exclude.matches(text)) {
            self.found.paths.insert(text.to_owned(), FileId::of(&stat));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(dir: &Path, paths: &[&str], exclude: &[&str]) -> FileSet {
        let patterns = |names: &[&str]| {
            let pattern = |name: &&str| Pattern::new(dir.join(name).to_str().unwrap()).unwrap();
            names.iter().map(pattern).collect()
        };
        FileSet { paths: patterns(paths), exclude: patterns(exclude), ..FileSet::default() }
    }

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in ["one/deep/er", "two", "three"] {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        for name in
            ["a.log", "b.log", "c.txt", "one/a.log", "two/a.log", "one/deep/a.log", "one/deep/er/a.log"]
        {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link.log")).unwrap();
        std::os::unix::fs::symlink("two", dir.path().join("to-two")).unwrap();
        dir
    }

    fn relative(dir: &Path, paths: impl IntoIterator<Item = impl AsRef<Path>>) -> Vec<String> {
        let shorten = |path: &Path| path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
        paths.into_iter().map(|path| shorten(path.as_ref())).collect()
    }

    #[test]
    fn patterns_match_regular_files_and_name_their_directories() {
        let dir = tree();
        let check = |pattern: &str, paths: &[&str], directories: &[&str]| {
            let set = set(dir.path(), &[pattern], &["b*"]);
            let found = walk(&set, starts(&set), &|_| None);
            assert_eq!(relative(dir.path(), found.paths.keys()), paths, "{pattern}");
            assert_eq!(relative(dir.path(), &found.directories), directories, "{pattern}");
        };
        check("*.log", &["a.log"], &[""]);
        check("a.log", &["a.log"], &[""]);
        check("missing.log", &[], &[""]);
        check("missing/*.log", &[], &[]);
        check("*/a.log", &["one/a.log", "to-two/a.log", "two/a.log"], &["one", "three", "to-two", "two"]);
        check("[ot]*/a.???", &["one/a.log", "to-two/a.log", "two/a.log"], &["one", "three", "to-two", "two"]);
        check("one/../two/*.log", &["one/../two/a.log"], &["one/../two"]);
        check(
            "one/**/a.log",
            &["one/a.log", "one/deep/a.log", "one/deep/er/a.log"],
            &["one", "one/deep", "one/deep/er"],
        );
    }

    /// One hung file system must not hide what a pattern matches beside it.
    #[test]
    fn a_walk_stops_where_another_file_system_begins_and_goes_on_from_there() {
        let dir = tree();
        let set = set(dir.path(), &["*/*.log", "**/er/*.log", "a.log"], &[]);
        let lane_of = |path: &Path| {
            let inside = |name: &str| path.starts_with(dir.path().join(name));
            if inside("one") { Some(LaneId(1)) } else { inside("a.log").then_some(LaneId(2)) }
        };
        let mut found = walk(&set, starts(&set), &lane_of);
        assert_eq!(relative(dir.path(), found.paths.keys()), ["to-two/a.log", "two/a.log"]);
        assert_eq!(found.elsewhere.keys().copied().collect::<Vec<_>>(), [LaneId(1), LaneId(2)]);
        let mut rest = |lane| walk(&set, found.elsewhere.remove(&lane).unwrap(), &|_| None);
        assert_eq!(relative(dir.path(), rest(LaneId(1)).paths.keys()), ["one/a.log", "one/deep/er/a.log"]);
        assert_eq!(relative(dir.path(), rest(LaneId(2)).paths.keys()), ["a.log"]);
    }
}
