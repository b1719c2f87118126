//! `capturer check`: which files the patterns of file_monitor match now, and which they pass over and why.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::own::Own;
use super::patterns::{self, With};
use super::report::{PatternReport, cure};
use crate::capture::io::{FoundPath, NO_DATA};
use crate::decode::binary::{self, Content, Seems};
use crate::decode::damage::leading_nuls;
use crate::decode::text::{Mark, mark};
use crate::limits::READ_BYTES;
use crate::model::rotated_name;
use crate::model::rotated_name::{RotatedName, UNREAD_ARCHIVES};
use crate::settings::{Binary, FileFormat, FileSet, PathPattern, Settings, TextRules};
use crate::telemetry::metrics::PassedOver;
use crate::text::age::age_text;
use crate::text::path_text::{name_of, text_of};
use crate::text::terminal::shown;

/// A file system that does not answer for this long is reported.
const PATIENCE: Duration = Duration::from_secs(10);
/// At most this many files of a pattern are listed, and files of an entry looked into.
const LISTED_MAX: usize = 20;
const LOOKED_INTO_MAX: usize = 1_000;
/// How many first bytes are read to tell text from binary. More are read if these don't show it, as in a hole.
const SNIFFED_BYTES: u64 = 8 * 1024;

/// Whether this user may read what the patterns match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// How many files match.
    pub files: usize,
    /// Files that can't be opened, with the reason.
    pub denied: Vec<String>,
    /// Directories that can't be listed, with the reason.
    pub unlistable: BTreeSet<String>,
    /// Patterns that match nothing and should, each with what is wrong with it, as far as is known.
    pub unmatched: Vec<String>,
    /// How many were tried.
    pub looked_at: usize,
    /// A file system did not answer in time.
    pub silent: bool,
}

/// Opens each file but reads none, and takes at most a few seconds per entry.
pub fn access(settings: &Settings) -> Access {
    let mut all = Access::default();
    for set in &settings.file_monitor.files {
        let (own, set, sets) = (Own::of(settings), set.clone(), settings.file_monitor.files.clone());
        let (sender, answer) = channel();
        // Nothing can end a look at a file system that hangs, so this thread is then left behind.
        std::thread::spawn(move || drop(sender.send(access_of(&set, &sets, &own))));
        match answer.recv_timeout(PATIENCE) {
            Ok(of_set) => {
                all.files += of_set.files;
                all.looked_at += of_set.looked_at;
                all.denied.extend(of_set.denied);
                all.unlistable.extend(of_set.unlistable);
                all.unmatched.extend(of_set.unmatched);
            }
            Err(_) => all.silent = true,
        }
    }
    all.denied.sort();
    // Two entries may match the same file.
    all.denied.dedup();
    all
}

fn access_of(set: &FileSet, sets: &[FileSet], own: &Own) -> Access {
    let takes = |path: &str| sets.iter().any(|set| set.takes(path));
    let with = With { set, takes: &takes, own, lane_of: &|_| None, watch: &mut |_, _| () };
    let found = patterns::walk(with, patterns::starts(set));
    let paths = found.paths();
    let empty = found.reports.iter().filter(|report| report.matched == 0 && !set.may_be_empty);
    let unmatched = empty.map(|report| report.explain(&report.pattern)).collect();
    let unlistable = found.unlistable.into_iter().chain(found.failing).collect();
    let mut access = Access { files: paths.len(), unlistable, unmatched, ..Access::default() };
    for FoundPath { path, target, .. } in paths.into_iter().take(LOOKED_INTO_MAX) {
        access.looked_at += 1;
        let at = target.as_deref().unwrap_or(&path);
        // A file that is gone by now is no fault.
        let error =
            open(Path::new(&name_of(at))).err().filter(|error| error.kind() != io::ErrorKind::NotFound);
        access.denied.extend(error.map(|error| format!("{path}: {error}")));
    }
    access
}

/// Does not wait for a writer if the path is a pipe.
fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32).open(path)
}

/// Lists the files, a few lines per pattern.
pub fn show(settings: &Settings, out: &mut dyn Write) -> io::Result<()> {
    if settings.file_monitor.files.is_empty() {
        return Ok(());
    }
    writeln!(out, "What the patterns match now:")?;
    let everything = everything(settings);
    // Of each file, the entry that comes first.
    let mut taken: BTreeMap<String, usize> = BTreeMap::new();
    for (index, set) in settings.file_monitor.files.iter().enumerate() {
        let (own, entry) = (Own::of(settings), set.clone());
        let (sender, answer) = channel();
        // Nothing can end a look at a file system that hangs, so this thread is then left behind.
        let named: Vec<PathPattern> =
            settings.file_monitor.files.iter().flat_map(|set| set.paths.iter().cloned()).collect();
        let (all, everything) = (settings.file_monitor.files.clone(), everything[index].clone());
        std::thread::spawn(move || drop(sender.send(look(&entry, &all, &own, &named, &everything))));
        match answer.recv_timeout(PATIENCE) {
            Ok(mut looks) => {
                let names = names_of(&looks);
                looks.iter_mut().for_each(|look| look.take_second(&names));
                let files = looks.iter().flat_map(|look| look.paths.iter().cloned());
                files.for_each(|path| _ = taken.entry(path).or_insert(index));
                for look in &mut looks {
                    let other = |path: &&String| taken.get(*path).is_some_and(|first| *first != index);
                    look.others =
                        look.paths.iter().filter(other).map(|path| (path.clone(), taken[path])).collect();
                    look.show(index, out)?;
                }
            }
            Err(_) => writeln!(
                out,
                "  files[{index}] no answer within {} s: a file system hangs; capturer doctor and /health name it",
                PATIENCE.as_secs()
            )?,
        }
    }
    Ok(())
}

/// Under which name an entry reads each file: its own, if a pattern matches that, or else the first link's.
fn names_of(looks: &[Look]) -> BTreeMap<String, String> {
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for (target, path) in looks.iter().flat_map(|look| look.targets.iter().zip(&look.paths)) {
        let name = names.entry(target.clone()).or_insert_with(|| path.clone());
        if path == target || *name != *target && *path < *name {
            name.clone_from(path);
        }
    }
    names
}

/// Of each entry, what it and those before it match: a rotated file may be found by another one than its log. The agent looks
/// at them in this order, too.
fn everything(settings: &Settings) -> Vec<BTreeSet<String>> {
    let mut all = vec![BTreeSet::new()];
    for set in &settings.file_monitor.files {
        let (own, set, sets) = (Own::of(settings), set.clone(), settings.file_monitor.files.clone());
        let (sender, answer) = channel();
        // As in `access`.
        std::thread::spawn(move || drop(sender.send(paths_of(&set, &sets, &own))));
        let mut with = all.last().cloned().unwrap_or_default();
        with.extend(answer.recv_timeout(PATIENCE).into_iter().flatten());
        all.push(with);
    }
    all.split_off(1)
}

fn paths_of(set: &FileSet, sets: &[FileSet], own: &Own) -> Vec<String> {
    let takes = |path: &str| sets.iter().any(|set| set.takes(path));
    let with = With { set, takes: &takes, own, lane_of: &|_| None, watch: &mut |_, _| () };
    patterns::walk(with, patterns::starts(set)).paths.into_keys().map(|path| path.to_string()).collect()
}

/// Of one pattern.
struct Look {
    report: PatternReport,
    /// Files that are followed, with the targets of links.
    files: Vec<String>,
    /// The same without the targets.
    paths: Vec<String>,
    /// Files that an earlier entry matches as well, with its index.
    others: Vec<(String, usize)>,
    /// Archives of these logs that can't be read and that the pattern does not match itself.
    archives: Vec<String>,
    /// Files with bytes that are not UTF-8.
    not_utf8: Vec<String>,
    /// Files beside them that look like rotated ones but are not recognized.
    strange: Vec<String>,
    /// Directories that can't be listed.
    unlistable: BTreeSet<String>,
    /// Other names of files that are listed already: each file is read once.
    second: Vec<String>,
    /// The files themselves, without links on their way.
    targets: Vec<String>,
}

impl Look {
    /// Takes out what is listed already under another name.
    fn take_second(&mut self, names: &BTreeMap<String, String>) {
        let is_second =
            |at: &usize| names.get(&self.targets[*at]).is_some_and(|name| *name != self.paths[*at]);
        let second: Vec<usize> = (0..self.paths.len()).filter(is_second).collect();
        for at in second.into_iter().rev() {
            self.files.remove(at);
            let (path, target) = (self.paths.remove(at), self.targets.remove(at));
            let more = if names[&target] == target { "" } else { ", read by the name of another link" };
            self.second.insert(0, format!("{path} -> {target}{more}"));
        }
    }

    fn show(&self, index: usize, out: &mut dyn Write) -> io::Result<()> {
        let PatternReport { pattern, passed, .. } = &self.report;
        let count = match self.files.len() {
            0 => "no file".to_owned(),
            1 => "1 file".to_owned(),
            count => format!("{count} files"),
        };
        let nothing = self.report.nothing().filter(|_| self.files.is_empty() && self.second.is_empty());
        let why = nothing.map(|why| format!(": {}", shown(&why))).unwrap_or_default();
        writeln!(out, "  files[{index}] {}: {count}{why}", shown(pattern))?;
        for file in self.files.iter().take(LISTED_MAX) {
            writeln!(out, "      {}", shown(file))?;
        }
        if self.files.len() > LISTED_MAX {
            writeln!(out, "      and {} more", self.files.len() - LISTED_MAX)?;
        }
        for (why, named) in passed {
            let more = if named.count > named.first.len() { ", …" } else { "" };
            writeln!(
                out,
                "    passes over {} ({}): {}{more}",
                named.count,
                cure(*why),
                shown(&named.first.join(", "))
            )?;
        }
        if let Some(first) = self.not_utf8.first() {
            let more = if self.not_utf8.len() > 1 { ", …" } else { "" };
            writeln!(
                out,
                "    not UTF-8 in {} ({}{more}): each wrong byte would become U+FFFD; set `encoding`, such as latin1 or utf-16le",
                self.not_utf8.len(),
                shown(first)
            )?;
        }
        if let Some((path, first)) = self.others.first() {
            let more = if self.others.len() > 1 { ", …" } else { "" };
            writeln!(
                out,
                "    also matched by an earlier entry: {} ({}{more}): files[{first}] comes first, so its settings apply",
                self.others.len(),
                shown(path)
            )?;
        }
        if let Some(first) = self.second.first() {
            let more = if self.second.len() > 1 { ", …" } else { "" };
            writeln!(
                out,
                "    other names of files that are listed already: {} ({}{more}): each file is read once",
                self.second.len(),
                shown(first)
            )?;
        }
        if let Some(first) = self.archives.first() {
            let more = if self.archives.len() > 1 { ", …" } else { "" };
            writeln!(
                out,
                "    archives beside them: {} ({}{more}): {}",
                self.archives.len(),
                shown(first),
                cure(PassedOver::Archive)
            )?;
        }
        if let Some(first) = self.strange.first() {
            let more = if self.strange.len() > 1 { ", …" } else { "" };
            writeln!(
                out,
                "    beside them, with names not recognized as those of rotated files: {} ({}{more}): read only if the \
                 file that was read last has such a name; rotate to names like app.log.1 or app-2026-11-25.log, or let a \
                 pattern match them if they are separate logs",
                self.strange.len(),
                shown(first)
            )?;
        }
        for text in self.unlistable.iter().take(LISTED_MAX) {
            writeln!(out, "    can't look at {}", shown(text))?;
        }
        Ok(())
    }
}

/// Walks the patterns one by one, so that each has its own files.
fn look(
    set: &FileSet,
    all_sets: &[FileSet],
    own: &Own,
    named: &[PathPattern],
    everything: &BTreeSet<String>,
) -> Vec<Look> {
    let takes = |path: &str| all_sets.iter().any(|set| set.takes(path));
    let walk = |paths: Vec<PathPattern>| {
        let set = FileSet { paths, ..set.clone() };
        let with = With { set: &set, takes: &takes, own, lane_of: &|_| None, watch: &mut |_, _| () };
        patterns::walk(with, patterns::starts(&set))
    };
    let rotated = rotated(named, everything, &takes);
    let mut room = LOOKED_INTO_MAX;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let since_ns = set.changed_since_ns(i64::try_from(now.as_nanos()).unwrap_or(i64::MAX));
    let looks = set.paths.iter().map(|pattern| {
        let mut found = walk(vec![pattern.clone()]);
        let mut report = std::mem::take(&mut found.reports[0]);
        let (mut files, mut all_paths, mut not_utf8) = (Vec::new(), Vec::new(), Vec::new());
        let mut targets = Vec::new();
        for FoundPath { path, target, modified_ns, .. } in found.paths() {
            let path = path.to_string();
            let is_old = since_ns.is_some_and(|since_ns| modified_ns < since_ns);
            if is_old && !rotated.contains(&path) {
                let age = now.as_secs().saturating_sub((modified_ns.max(0) / 1_000_000_000) as u64);
                report.pass(PassedOver::Older, format!("{path} ({} ago)", age_text(age)));
                continue;
            }
            let inside = if rotated.contains(&path) {
                Inside::Unfit(PassedOver::Rotated)
            } else if room > 0 {
                room -= 1;
                let is_named = named.iter().any(|pattern| pattern.names(&path));
                look_into(Path::new(&name_of(target.as_deref().unwrap_or(&path))), set, is_named)
            } else {
                Inside::Fit
            };
            if let Inside::NotUtf8(seems) = inside {
                not_utf8.push(with_looks(&path, seems.map(Seems::text)));
            }
            match inside {
                Inside::Unfit(why) => report.pass(why, path),
                Inside::NotText(looks) => report.pass(PassedOver::Binary, with_looks(&path, looks)),
                Inside::Fit | Inside::NotUtf8(_) => {
                    targets.push(target.clone().unwrap_or_else(|| path.clone()));
                    files.push(target.map_or(path.clone(), |target| format!("{path} -> {target}")));
                    all_paths.push(path);
                }
            }
        }
        let (archives, strange) = beside(&all_paths, set, named);
        let unlistable = found.unlistable.into_iter().chain(found.failing).collect();
        let (paths, others, second) = (all_paths, Vec::new(), Vec::new());
        Look { report, files, paths, others, archives, strange, not_utf8, unlistable, second, targets }
    });
    looks.collect()
}

/// Archives of these logs that can't be read, and files that look like rotated ones of them. What a pattern matches
/// itself is reported with what it passes over, or is read.
fn beside(paths: &[String], set: &FileSet, named: &[PathPattern]) -> (Vec<String>, Vec<String>) {
    let mut listed: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let (mut archives, mut strange) = (BTreeSet::new(), BTreeSet::new());
    for path in paths.iter().take(LOOKED_INTO_MAX) {
        let Some((directory, live)) = path.rsplit_once('/') else { continue };
        let names = listed.entry(directory).or_insert_with(|| {
            let entries = std::fs::read_dir(Path::new(&name_of(&format!("{directory}/"))));
            let names =
                entries.into_iter().flatten().flatten().map(|entry| text_of(&entry.file_name()).into_owned());
            let is_archive = |name: &str| UNREAD_ARCHIVES.iter().any(|ending| name.ends_with(ending));
            names.filter(|name| is_archive(name) || name.bytes().any(|byte| byte.is_ascii_digit())).collect()
        });
        let path_of = |name: &String| format!("{directory}/{name}");
        let covers =
            |patterns: &[PathPattern], path: &String| patterns.iter().any(|pattern| pattern.covers(path));
        let of_it = names.iter().filter(|name| RotatedName::of_unread_archive(name, live).is_some());
        archives.extend(of_it.map(path_of).filter(|path| !covers(&set.paths, path)));
        let alike = names.iter().filter(|name| rotated_name::looks_rotated(name, live)).map(path_of);
        strange.extend(alike.filter(|path| !covers(named, path) && !covers(&set.exclude, path)));
    }
    (archives.into_iter().collect(), strange.into_iter().collect())
}

/// A path, and what the file looks like.
fn with_looks(path: &str, looks: Option<&str>) -> String {
    looks.map_or_else(|| path.to_owned(), |looks| format!("{path} (looks like {looks})"))
}

/// Rotated files of others that are followed: capture/core/paths.rs and its olddir.rs leave them to those.
fn rotated(named: &[PathPattern], all: &BTreeSet<String>, takes: &dyn Fn(&str) -> bool) -> BTreeSet<String> {
    let mut rotated = BTreeSet::new();
    let mut olddirs: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    let mut moved = Vec::new();
    for path in all {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let (is_named, is_archive) = (named.iter().any(|pattern| pattern.names(path)), path.ends_with(".gz"));
        if rotated_name::live_names(name).any(|live| all.contains(&format!("{directory}/{live}"))) {
            if !is_named {
                rotated.insert(path.clone());
            }
            continue;
        }
        let is_log = |log: &str| all.contains(log) || is_archive && takes(log);
        let log_above = rotated_name::logs_above(path).find(|(log, _)| is_log(log));
        if let Some((log, olddir)) = log_above.filter(|_| is_archive || !is_named) {
            olddirs.entry(log.clone()).or_default().insert(olddir);
            moved.push((path, log));
        }
    }
    // In two directories they may be of different logs. An archive is never a log of its own.
    let is_sure = |path: &str, log: &str| path.ends_with(".gz") || olddirs[log].len() == 1;
    rotated.extend(moved.iter().filter(|(path, log)| is_sure(path, log)).map(|(path, _)| (*path).clone()));
    rotated
}

/// What the first bytes of a file show.
enum Inside {
    /// It would be read.
    Fit,
    /// It would be read, and not all of it is UTF-8. With what most of it looks like.
    NotUtf8(Option<Seems>),
    /// It would not be read, because it is not text. With what it looks like.
    NotText(Option<&'static str>),
    /// It would not be read for another reason.
    Unfit(PassedOver),
}

/// Looks into a file as the agent does before it reads it (capture/stream/file/binary.rs).
fn look_into(path: &Path, set: &FileSet, is_named: bool) -> Inside {
    // Non-blocking: it may be a pipe by now.
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_NOCTTY;
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Inside::Unfit(PassedOver::Denied);
        }
        Err(_) => return Inside::Fit,
    };
    if !matches!(set.format, FileFormat::Auto | FileFormat::Raw) {
        return Inside::Fit;
    }
    let TextRules { encoding, binary, .. } = set.text;
    let is_known = encoding.is_some() || binary == Binary::Read;
    let mut first = Vec::new();
    let _ = (&file).take(SNIFFED_BYTES).read_to_end(&mut first);
    if binary::judge(&first, is_known).is_none() && first.len() as u64 == SNIFFED_BYTES {
        let _ = (&file).take(READ_BYTES as u64 - SNIFFED_BYTES).read_to_end(&mut first);
    }
    // If a hole is longer than a read, it is skipped, as in the agent: the data behind it decides.
    if leading_nuls(&first) == first.len()
        && let Some(at) = super::data_behind(file.as_fd(), 0, &first).filter(|at| *at < NO_DATA)
        && (&file).seek(SeekFrom::Start(at)).is_ok()
    {
        first.clear();
        let _ = (&file).take(READ_BYTES as u64).read_to_end(&mut first);
    }
    let left_out = binary.of_path(|| is_named) == Binary::Skip;
    match binary::judge(&first, is_known) {
        Some(Content::Utf32) => Inside::NotText(Some("utf-32, which is not decoded")),
        Some(Content::Binary) if left_out => Inside::NotText(binary::seems(&first).map(Seems::text)),
        Some(Content::Binary) => Inside::NotUtf8(binary::seems(&first)),
        Some(Content::Text) | None if is_known || has_mark(&first) => Inside::Fit,
        Some(Content::Text) | None if binary::has_invalid_utf8(&first) => Inside::NotUtf8(None),
        Some(Content::Text) | None => Inside::Fit,
    }
}

fn has_mark(first: &[u8]) -> bool {
    !matches!(mark(first, true), Mark::None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(dir: &Path, patterns: &[&str]) -> String {
        let pattern = |name: &&str| PathPattern::new(dir.join(name).to_str().unwrap()).unwrap();
        let paths = patterns.iter().map(pattern).collect();
        let mut settings = Settings { data_dir: dir.join("data"), ..Settings::default() };
        settings.file_monitor.files = vec![FileSet { paths, ..FileSet::default() }];
        let mut out = Vec::new();
        show(&settings, &mut out).unwrap();
        String::from_utf8(out).unwrap().replace(&format!("{}/", dir.display()), "")
    }

    #[test]
    fn each_pattern_has_its_files_and_what_it_passes_over() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
        for name in ["a.log", "a.log.1", ".hidden", "z.gz"] {
            write(name, b"text\n");
        }
        write("wtmp", b"\x08\x00\x00\x00tty1\x00\x00");
        write("utf16", b"\xFF\xFEa\x00\n\x00");
        write("no-mark", b"a\x00 \x00l\x00i\x00n\x00e\x00\n\x00");
        write("latin1", b"caf\xE9 au lait\n");
        // Like lastlog: a hole, and then data that is not text.
        let holes = File::create(dir.path().join("holes")).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&holes, b"\x08\x00\x00\x00tty1\x00\x00", 1 << 20).unwrap();
        std::os::unix::fs::symlink("a.log", dir.path().join("link")).unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        let text = listing(dir.path(), &["*", "none*", "d/x/*.log", "latin1/*", "a.log,/b.log", "link"]);
        let expected = [
            "What the patterns match now:",
            "  files[0] *: 3 files",
            "      a.log",
            "      latin1",
            "      utf16",
            "passes over 1 (a directory:",
            "d\n",
            "passes over 1 (a symbolic link",
            "link\n",
            "passes over 1 (hidden",
            ".hidden\n",
            "passes over 1 (an archive",
            "z.gz\n",
            "passes over 1 (a rotated file",
            "a.log.1\n",
            "passes over 3 (not text in UTF-8",
            "holes, no-mark (looks like utf-16le), wtmp\n",
            "not UTF-8 in 1 (latin1)",
            "  files[0] none*: no file\n",
            "  files[0] d/x/*.log: no file: there is no d/x\n",
            "  files[0] latin1/*: no file: latin1 is a file, not a directory\n",
            "  files[0] a.log,/b.log: no file: there is no a.log,, and a comma is taken literally",
            "  files[0] link: no file\n",
            "other names of files that are listed already: 1 (link -> a.log): ",
        ];
        let mut rest = text.as_str();
        for part in expected {
            let at = rest
                .find(part)
                .unwrap_or_else(|| panic!("{part:?} is missing or not in its place in\n{text}"));
            rest = &rest[at + part.len()..];
        }
    }

    /// As in a run (capture/core/paths/olddir.rs), compressed or not.
    #[test]
    fn files_that_were_moved_to_an_olddir_are_rotated_ones() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["old", "older", "own"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let moved = ["old/a.log.1", "old/a.log.2.gz", "old/b.log.1", "older/b.log.2", "own/a.log.1"];
        for name in ["a.log", "b.log", "own/a.log"].iter().chain(&moved) {
            std::fs::write(dir.path().join(name), "text\n").unwrap();
        }
        let passed = |patterns: &[&str]| -> Vec<String> {
            let text = listing(dir.path(), patterns);
            let told = text.lines().filter(|line| line.contains("(a rotated file"));
            told.map(|line| line.rsplit_once("): ").unwrap().1.to_owned()).collect()
        };
        // Two directories have files of b.log, which may be logs of their own.
        assert_eq!(passed(&["**/*"]), ["old/a.log.1, old/a.log.2.gz, own/a.log.1"]);
        // A file that is named is read as a log of its own.
        assert_eq!(passed(&["a.log", "old/a.log.1"]), Vec::<String>::new());
    }

    #[test]
    fn a_file_of_two_entries_is_said_to_be_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.log", "b.log", "c.txt"] {
            std::fs::write(dir.path().join(name), "text\n").unwrap();
        }
        let set = |name: &str| FileSet {
            paths: vec![PathPattern::new(dir.path().join(name).to_str().unwrap()).unwrap()],
            ..FileSet::default()
        };
        let mut settings = Settings { data_dir: dir.path().join("data"), ..Settings::default() };
        settings.file_monitor.files = vec![set("a.log"), set("*.log"), set("*.txt")];
        let mut out = Vec::new();
        show(&settings, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap().replace(&format!("{}/", dir.path().display()), "");
        let told: Vec<&str> = text.lines().filter(|line| line.contains("by an earlier entry")).collect();
        let expected =
            "    also matched by an earlier entry: 1 (a.log): files[0] comes first, so its settings apply";
        assert_eq!(told, [expected], "{text}");
        assert!(
            text.find(expected) > text.find("files[1]") && text.find(expected) < text.find("files[2]"),
            "{text}"
        );
    }

    /// They were listed as if they were followed, and the agent read them with the log of another entry, or not at all.
    #[test]
    fn rotated_files_of_a_log_of_another_entry_are_told() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.log", "a.log.1", "a-2026-11-25.log", "b.log", "b.log.1"] {
            std::fs::write(dir.path().join(name), "text\n").unwrap();
        }
        let set = |name: &str| FileSet {
            paths: vec![PathPattern::new(dir.path().join(name).to_str().unwrap()).unwrap()],
            ..FileSet::default()
        };
        let mut settings = Settings { data_dir: dir.path().join("data"), ..Settings::default() };
        settings.file_monitor.files = vec![set("a.log"), set("a*[0-9]*"), set("b.log"), set("b.log.1")];
        let mut out = Vec::new();
        show(&settings, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap().replace(&format!("{}/", dir.path().display()), "");
        let told: Vec<&str> = text.lines().filter(|line| line.contains("(a rotated file")).collect();
        assert!(told.len() == 1 && told[0].ends_with("): a-2026-11-25.log, a.log.1"), "{text}");
        assert!(text.contains("files[3] b.log.1: 1 file\n"), "named, it is a log of its own: {text}");
    }

    /// A link and its target, found by two patterns, were listed as two files, and the agent read one.
    #[test]
    fn a_file_with_two_names_is_listed_once() {
        let dir = tempfile::tempdir().unwrap();
        for (target, link) in [("a.log", "l0.log"), ("z.log", "l1.log")] {
            std::fs::write(dir.path().join(target), "text\n").unwrap();
            std::os::unix::fs::symlink(target, dir.path().join(link)).unwrap();
        }
        let set = |names: &[&str]| FileSet {
            paths: names
                .iter()
                .map(|name| PathPattern::new(dir.path().join(name).to_str().unwrap()).unwrap())
                .collect(),
            follow_links: true,
            ..FileSet::default()
        };
        let mut settings = Settings { data_dir: dir.path().join("data"), ..Settings::default() };
        settings.file_monitor.files = vec![set(&["l*.log", "a*"]), set(&["z.log", "a.log"])];
        let mut out = Vec::new();
        show(&settings, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap().replace(&format!("{}/", dir.path().display()), "");
        let expected = "What the patterns match now:\n\
            \x20 files[0] l*.log: 1 file\n\
            \x20     l1.log -> z.log\n\
            \x20   other names of files that are listed already: 1 (l0.log -> a.log): each file is read once\n\
            \x20 files[0] a*: 1 file\n\
            \x20     a.log\n\
            \x20 files[1] z.log: 1 file\n\
            \x20     z.log\n\
            \x20 files[1] a.log: 1 file\n\
            \x20     a.log\n\
            \x20   also matched by an earlier entry: 1 (a.log): files[0] comes first, so its settings apply\n";
        assert_eq!(text, expected);
    }

    /// A name of a file made a line of the answer.
    #[test]
    fn names_are_shown_in_one_line() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a\n  forged: 9 files", "b\u{1b}[2J.bin", "d\n.gz", "e\n"] {
            std::fs::write(
                dir.path().join(name),
                [b"caf\xe9\0\x01 au lait\n".as_slice(), name.as_bytes()].concat(),
            )
            .unwrap();
        }
        std::os::unix::fs::symlink("a\nb", dir.path().join("l\nink")).unwrap();
        let text = listing(dir.path(), &["*"]);
        assert!(!text.contains("\n  forged") && !text.contains('\u{1b}'), "{text}");
        let known =
            ["What", "  files[0]", "      ", "    passes", "    not UTF-8", "    beside", "    archives"];
        assert!(text.lines().all(|line| known.iter().any(|begins| line.starts_with(begins))), "{text}");
    }

    #[test]
    fn files_that_look_rotated_are_named_beside_their_log() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.log", "a-1.log", "a-2.log", "a.log.1", "b-1.log"] {
            std::fs::write(dir.path().join(name), "text\n").unwrap();
        }
        let text = listing(dir.path(), &["a.log"]);
        assert!(text.contains("not recognized as those of rotated files: 2 (a-1.log, …): "), "{text}");
        let text = listing(dir.path(), &["a.log", "a-*.log"]);
        assert!(!text.contains("rotated files"), "{text}");
    }

    /// Their lines may be missing in the outputs, and nothing in the pattern shows that.
    #[test]
    fn archives_that_are_not_read_are_named_beside_their_log() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.log", "a.log.1.zst", "a.log.2.gz", "other.log.1.zst"] {
            std::fs::write(dir.path().join(name), "text\n").unwrap();
        }
        let text = listing(dir.path(), &["*.log"]);
        assert!(
            text.contains("    archives beside them: 1 (a.log.1.zst): ") && text.contains("delaycompress"),
            "{text}"
        );
        let text = listing(dir.path(), &["*"]);
        let passed: Vec<&str> = text.lines().filter(|line| line.contains("archive")).collect();
        assert_eq!(passed.len(), 1, "{text}");
        assert!(passed[0].ends_with("a.log.1.zst, other.log.1.zst"), "{text}");
    }

    #[test]
    fn old_files_are_named_with_their_age() {
        let dir = tempfile::tempdir().unwrap();
        let ages = [("new.log", 0), ("old.log", 3), ("old.log.1", 5), ("older.log", 40)];
        for (name, days) in ages {
            std::fs::write(dir.path().join(name), "text\n").unwrap();
            let at = SystemTime::now() - Duration::from_secs(days * 86_400 + 60);
            File::options().append(true).open(dir.path().join(name)).unwrap().set_modified(at).unwrap();
        }
        let set = |older: u64| FileSet {
            paths: vec![PathPattern::new(dir.path().join("*").to_str().unwrap()).unwrap()],
            ignore_older: Duration::from_secs(older * 86_400),
            ..FileSet::default()
        };
        let shown = |older| {
            let mut out = Vec::new();
            let own = Own::of(&Settings::default());
            let everything = paths_of(&set(older), &[], &own).into_iter().collect();
            for look in look(&set(older), &[], &own, &[], &everything) {
                look.show(0, &mut out).unwrap();
            }
            String::from_utf8(out).unwrap().replace(&format!("{}/", dir.path().display()), "")
        };
        let text = shown(2);
        assert!(text.contains("*: 1 file\n      new.log\n"), "{text}");
        assert!(text.contains("): old.log (3 d ago), older.log (40 d ago)\n"), "{text}");
        assert!(text.contains("read together with that log): old.log.1\n"), "{text}");
        assert!(shown(0).contains("*: 3 files\n"), "{}", shown(0));
    }

    #[test]
    fn the_list_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        (0..500).for_each(|number| std::fs::write(dir.path().join(format!("{number}.log")), "x").unwrap());
        let text = listing(dir.path(), &["*.log"]);
        assert!(text.contains("*.log: 500 files") && text.contains("and 480 more"), "{text}");
        assert!(text.lines().count() < 30, "{text}");
    }
}
