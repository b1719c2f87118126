//! Path patterns, walked name by name from the root.
//!
//! ```text
//! /srv/current/log/*.log        at:    /srv/releases/7/log     without links: what is listed, watched and opened
//!      └ releases/7             shown: /srv/current/log        as the pattern has it: what the file is called
//! ```
//! Each link is read and followed here, never by the kernel, for three reasons: whether one is followed depends on who
//! made it (`Walk::enter_link`); it is watched, so that a change of it is noticed; and the walk stops where a file
//! system begins that may hang, whose own thread continues from there (lane.rs).
//!
//! A directory is watched before it is listed, so that files made meanwhile are seen twice instead of not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Statx};

use super::look::cause_of;
use super::own::Own;
use super::report::PatternReport;
use crate::capture::io::{FoundPath, LaneId};
use crate::model::cursor::FileId;
use crate::model::rotated_name;
use crate::model::rotated_name::UNREAD_ARCHIVES;
use crate::settings::FileSet;
use crate::settings::path_pattern::{Part, Wild};
use crate::shell::watches::Interest;
use crate::telemetry::metrics::PassedOver;
use crate::text::path_text::{name_of, text_of, text_of_path};

/// As many links as the kernel follows in one path.
const LINKS_MAX: usize = 40;
/// How deep the walk goes into directories.
const DEPTH_MAX: usize = 128;
/// Where the kubelet puts a link for each container's log.
const KUBELET_LINKS: &str = "/var/log/containers";
/// Where these links may lead.
const KUBELET_LOGS: [&str; 3] = ["/var/log/pods", "/var/log/containers", "/var/lib/docker/containers"];
/// How many names that can't be looked at are told.
const FAILING_MAX: usize = 50;

/// A remaining part of a path.
#[derive(Clone, Debug)]
enum Step {
    /// A name in the pattern.
    Name(OsString),
    /// A component of a link's target; it is not part of the file's name.
    Hop(OsString),
    Wild(Wild),
    Directories,
}

/// A place that the walk has reached.
#[derive(Clone, Debug)]
struct Place {
    /// Its path with all links followed.
    at: PathBuf,
    /// Its path as the pattern has it.
    shown: PathBuf,
    /// A wildcard has matched before here: whoever made the files chose the names.
    found: bool,
    /// `**` has led here.
    deep: bool,
    /// One of the kubelet's links was followed on the way.
    by_kubelet: bool,
    /// How many links were followed on the way.
    links: usize,
}

/// Where a walk begins or continues.
#[derive(Clone, Debug)]
pub struct Start {
    pattern: usize,
    place: Place,
    rest: Vec<Step>,
}

/// The result of a walk.
#[derive(Debug, Default)]
pub struct Found {
    /// Regular files that match, by name.
    pub paths: BTreeMap<Arc<str>, FoundPath>,
    /// Links that other links led over. No path shows their names.
    pub links: Vec<String>,
    /// A report for each pattern.
    pub reports: Vec<PatternReport>,
    /// Directories and names that could not be looked at though they are there and the right is not missing, each with why.
    pub failing: BTreeSet<String>,
    /// Directories that may not be listed, with the reason: nobody knows what is in them.
    pub unlistable: BTreeSet<String>,
    /// Where the walk stopped for another thread.
    pub elsewhere: BTreeMap<LaneId, Vec<Start>>,
}

impl Found {
    /// A copy of the files' paths. Paths may be kept for ever; without a copy they would lie between the walk's
    /// temporary memory, which could then not be freed.
    pub fn paths(&self) -> Vec<FoundPath> {
        let copy = |found: &FoundPath| FoundPath { path: Arc::from(&*found.path), ..found.clone() };
        self.paths.values().map(copy).collect()
    }
}

/// Where the walk of an entry's patterns begins.
pub fn starts(set: &FileSet) -> Vec<Start> {
    let starts = set.paths.iter().enumerate().flat_map(|(pattern, path)| {
        path.alternatives().iter().map(move |parts| Start {
            pattern,
            place: Place {
                at: "/".into(),
                shown: "/".into(),
                found: false,
                deep: false,
                by_kubelet: false,
                links: 0,
            },
            rest: parts.iter().map(step).collect(),
        })
    });
    starts.collect()
}

fn step(part: &Part) -> Step {
    match part {
        Part::Name(name) => Step::Name(name_of(name).into_owned()),
        Part::Wild(wild) => Step::Wild(wild.clone()),
        Part::Directories => Step::Directories,
    }
}

/// What a walk needs.
pub struct With<'a> {
    /// The entry of file_monitor.
    pub set: &'a FileSet,
    /// Whether some entry follows a path.
    pub takes: &'a dyn Fn(&str) -> bool,
    /// Files of the agent.
    pub own: &'a Own,
    /// The lane that handles a path without links, if any.
    pub lane_of: &'a dyn Fn(&Path) -> Option<LaneId>,
    /// Watches a directory for new names.
    pub watch: &'a mut dyn FnMut(&Path, Interest),
}

/// Walks from the given places.
pub fn walk(with: With<'_>, starts: Vec<Start>) -> Found {
    let report = |pattern: &str| PatternReport { pattern: pattern.to_owned(), ..PatternReport::default() };
    let reports = with.set.paths.iter().map(|pattern| report(pattern.as_str())).collect();
    let found = Found { reports, ..Found::default() };
    let mut walk = Walk {
        with,
        pattern: 0,
        listings: BTreeMap::new(),
        been: BTreeSet::new(),
        seen: BTreeSet::new(),
        found,
    };
    for Start { pattern, place, rest } in starts {
        // Even the root may be on a network.
        if let Some(lane) = (walk.with.lane_of)(&place.at) {
            walk.found.elsewhere.entry(lane).or_default().push(Start { pattern, place, rest });
            continue;
        }
        walk.pattern = pattern;
        walk.been.clear();
        walk.step(place, &rest);
    }
    walk.found.without_second_names();
    walk.found
}

/// A name in a directory, and its kind if the listing shows it.
type Entry = (OsString, FileType);

struct Walk<'a> {
    with: With<'a>,
    /// The pattern that is being walked.
    pattern: usize,
    /// Listed directories, because several patterns may lead to the same one.
    listings: BTreeMap<PathBuf, Rc<Vec<Entry>>>,
    /// Directories in which `**` of this pattern has been, by a link or not, with how much of the pattern was left:
    /// cuts circles of links.
    been: BTreeSet<(PathBuf, usize, bool)>,
    /// Names that a pattern has matched or passed over: braces may lead to one twice.
    seen: BTreeSet<(usize, PathBuf)>,
    found: Found,
}

impl Walk<'_> {
    fn step(&mut self, place: Place, rest: &[Step]) {
        let Some((first, tail)) = rest.split_first() else { return };
        match first {
            Step::Name(name) | Step::Hop(name) => {
                self.enter(place, name, matches!(first, Step::Name(_)), tail);
            }
            Step::Wild(wild) => self.wild(&place, wild, tail),
            Step::Directories => self.directories(place, rest, tail),
        }
    }

    /// `**`: the rest of the pattern is searched for here and in each directory below.
    fn directories(&mut self, place: Place, rest: &[Step], tail: &[Step]) {
        let depth = place.at.components().count();
        let by_link = place.links > 0;
        let been = |walk: &Walk<'_>, by_link| walk.been.contains(&(place.at.clone(), rest.len(), by_link));
        if depth > DEPTH_MAX || been(self, by_link) || by_link && been(self, false) {
            return;
        }
        self.been.insert((place.at.clone(), rest.len(), by_link));
        self.watch(&place.at, Interest::directories(self.with.set.follow_links));
        for (name, kind) in self.entries(&place.at).iter() {
            let may_be_one = matches!(*kind, FileType::Directory | FileType::Symlink);
            if may_be_one && !name.as_bytes().starts_with(b".") {
                self.enter_listed(&place, name, *kind, rest);
            }
        }
        self.step(Place { found: true, deep: true, ..place }, tail);
    }

    fn wild(&mut self, place: &Place, wild: &Wild, tail: &[Step]) {
        self.watch(&place.at, Interest::wild(wild.clone()));
        for (name, kind) in self.entries(&place.at).iter() {
            let text = text_of(name);
            if wild.matches(&text) {
                self.enter_listed(place, name, *kind, tail);
            } else if tail.is_empty() && wild.matches_hidden(&text) {
                self.pass(PassedOver::Hidden, &place.shown.join(name), "");
            }
        }
    }

    /// Continues to a name from a listing. The directory is already watched.
    fn enter_listed(&mut self, place: &Place, name: &OsStr, kind: FileType, tail: &[Step]) {
        let place = Place { found: true, ..place.clone() };
        let (at, shown) = (place.at.join(name), place.shown.join(name));
        if self.leave(&at, &place, Step::Name(name.to_owned()), tail) {
            return;
        }
        if self.is_excluded(&shown) {
            return self.pass(PassedOver::Excluded, &shown, "");
        }
        // The listing tells directories from other files, so no look at each is needed.
        if kind == FileType::Directory && !tail.is_empty() {
            return self.enter_directory(Place { at, shown, ..place }, tail);
        }
        match look(&at) {
            Ok(stat) if is(&stat, FileType::Symlink) => self.enter_link(place, shown, name, true, tail),
            Ok(stat) => self.come_to(Place { at, shown, ..place }, &stat, tail),
            Err(error) => self.note_name(&at, error),
        }
    }

    /// Continues to a name from the pattern or from a link. `is_shown`: from the pattern.
    fn enter(&mut self, place: Place, name: &OsStr, is_shown: bool, tail: &[Step]) {
        let shown = if is_shown { place.shown.join(name) } else { place.shown.clone() };
        if name == ".." {
            let at = place.at.parent().unwrap_or(Path::new("/")).to_owned();
            return self.step(Place { at, shown, ..place }, tail);
        }
        let at = place.at.join(name);
        let first = if is_shown { Step::Name(name.to_owned()) } else { Step::Hop(name.to_owned()) };
        if self.leave(&at, &place, first, tail) {
            return;
        }
        if self.is_excluded(&shown) {
            return self.pass(PassedOver::Excluded, &shown, "");
        }
        // The name may be made, replaced or, if it is a link, changed.
        self.watch(&place.at, Interest::name(text_of(name)));
        match look(&at) {
            Ok(stat) if is(&stat, FileType::Symlink) => self.enter_link(place, shown, name, is_shown, tail),
            Ok(stat) => self.come_to(Place { at, shown, ..place }, &stat, tail),
            Err(error) => {
                if error.kind() == io::ErrorKind::NotFound && !is_shown {
                    self.pass(PassedOver::Dangling, &shown, &format!(" -> {}", text_of_path(&at)));
                } else if error.kind() == io::ErrorKind::NotFound && !place.found && !tail.is_empty() {
                    self.miss(|| format!("there is no {}", text_of_path(&shown)));
                }
                self.note_name(&at, error);
            }
        }
    }

    /// Whether another thread continues from here.
    fn leave(&mut self, at: &Path, place: &Place, first: Step, tail: &[Step]) -> bool {
        let Some(lane) = (self.with.lane_of)(at) else { return false };
        let rest = [&[first], tail].concat();
        let start = Start { pattern: self.pattern, place: place.clone(), rest };
        self.found.elsewhere.entry(lane).or_default().push(start);
        true
    }

    /// Handles something that is not a link.
    fn come_to(&mut self, place: Place, stat: &Statx, tail: &[Step]) {
        match FileType::from_raw_mode(stat.stx_mode.into()) {
            // `**` goes into each of them anyway.
            FileType::Directory if tail.is_empty() && place.deep => {}
            FileType::Directory if tail.is_empty() => self.pass(PassedOver::Directory, &place.shown, ""),
            FileType::Directory => self.enter_directory(place, tail),
            FileType::RegularFile if tail.is_empty() => self.take(&place, stat),
            _ if tail.is_empty() => self.pass(PassedOver::Special, &place.shown, ""),
            // One that a wildcard found is like any other name that does not match.
            _ if place.found => {}
            _ => self.miss(|| format!("{} is a file, not a directory", text_of_path(&place.shown))),
        }
    }

    fn enter_directory(&mut self, place: Place, tail: &[Step]) {
        if self.with.own.has_directory(&place.at) {
            return self.pass(PassedOver::Own, &place.shown, "");
        }
        let roots = &self.with.set.roots;
        let is_on_the_way = |root: &PathBuf| place.at.starts_with(root) || root.starts_with(&place.at);
        // Where a link ends matters, but not what it goes through.
        let is_end = !matches!(tail.first(), Some(Step::Hop(_)));
        if place.links > 0 && is_end && !roots.is_empty() && !roots.iter().any(is_on_the_way) {
            let leads = format!(" -> {}", text_of_path(&place.at));
            return self.pass(PassedOver::OutOfRoots, &place.shown, &leads);
        }
        self.step(place, tail);
    }

    fn enter_link(&mut self, place: Place, shown: PathBuf, name: &OsStr, is_shown: bool, tail: &[Step]) {
        let is_kubelets = tail.is_empty() && place.at == Path::new(KUBELET_LINKS);
        if is_shown && place.found && !place.by_kubelet && !self.with.set.follow_links && !is_kubelets {
            return self.pass(PassedOver::Link, &shown, "");
        }
        if place.links >= LINKS_MAX {
            return self.pass(PassedOver::LinkLoop, &shown, "");
        }
        let target = match std::fs::read_link(place.at.join(name)) {
            Ok(target) => target,
            Err(error) => return self.note_name(&place.at.join(name), error),
        };
        if !is_shown && !place.by_kubelet {
            self.found.links.push(text_of_path(&place.at.join(name)).into_owned());
        }
        let hops = target.components().filter_map(|component| match component {
            Component::Normal(name) => Some(Step::Hop(name.to_owned())),
            Component::ParentDir => Some(Step::Hop(OsString::from(".."))),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
        });
        let rest: Vec<Step> = hops.chain(tail.iter().cloned()).collect();
        let at = if target.has_root() { PathBuf::from("/") } else { place.at };
        let by_kubelet = place.by_kubelet || is_kubelets && !self.with.set.follow_links && place.found;
        let place = Place { at, shown, by_kubelet, links: place.links + 1, ..place };
        if rest.is_empty() {
            // It leads to its own place.
            return self.pass(PassedOver::Directory, &place.shown, "");
        }
        self.step(place, &rest);
    }

    fn take(&mut self, place: &Place, stat: &Statx) {
        let Place { at, shown, by_kubelet, links, .. } = place;
        let id = FileId::of(stat);
        let via_link = *links > 0;
        let beneath = |roots: &[PathBuf]| roots.iter().any(|root| at.starts_with(root));
        let kubelet_roots = KUBELET_LOGS.map(PathBuf::from);
        let strays = *by_kubelet && !beneath(&kubelet_roots)
            || via_link && !self.with.set.roots.is_empty() && !beneath(&self.with.set.roots);
        let leads = || format!(" -> {}", text_of_path(at));
        if strays {
            return self.pass(PassedOver::OutOfRoots, shown, &leads());
        }
        if self.with.own.has_file(at, id) {
            return self.pass(PassedOver::Own, shown, "");
        }
        if via_link && self.is_excluded(at) {
            return self.pass(PassedOver::Excluded, shown, &leads());
        }
        if self.is_lone_archive(at) {
            return self.pass(PassedOver::Archive, shown, "");
        }
        if !self.seen.insert((self.pattern, shown.clone())) {
            return;
        }
        self.found.reports[self.pattern].matched += 1;
        let path: Arc<str> = text_of_path(shown).into();
        let target = (at != shown).then(|| text_of_path(at).into_owned());
        let (len, modified_ns) = (stat.stx_size, FileId::modified_ns(stat));
        let found = FoundPath { path: Arc::clone(&path), id, target, len, modified_ns };
        self.found.paths.insert(path, found);
    }

    /// Whether it is a compressed file that is neither a rotated file of a log beside it, nor one that logrotate's
    /// `olddir` moved.
    fn is_lone_archive(&self, at: &Path) -> bool {
        let Some(name) = at.file_name().map(text_of) else { return false };
        let mut endings = UNREAD_ARCHIVES.iter().chain(&[".gz"]);
        if !endings.any(|ending| name.ends_with(ending)) {
            return false;
        }
        let is_there = |log: String| std::fs::symlink_metadata(at.with_file_name(name_of(&log))).is_ok();
        if rotated_name::live_names(&name).any(is_there) {
            return false;
        }
        let path = text_of_path(at);
        let is_log = |log: &str| (self.with.takes)(log) && std::fs::metadata(&*name_of(log)).is_ok();
        !name.ends_with(".gz") || !rotated_name::logs_above(&path).any(|(log, _)| is_log(&log))
    }

    fn is_excluded(&self, shown: &Path) -> bool {
        let exclude = &self.with.set.exclude;
        !exclude.is_empty() && {
            let text = text_of_path(shown);
            exclude.iter().any(|pattern| pattern.covers(&text))
        }
    }

    fn pass(&mut self, why: PassedOver, shown: &Path, more: &str) {
        if self.seen.insert((self.pattern, shown.to_owned())) {
            self.found.reports[self.pattern].pass(why, format!("{}{more}", text_of_path(shown)));
        }
    }

    /// The names before the first wildcard do not lead on.
    fn miss(&mut self, what: impl FnOnce() -> String) {
        self.found.reports[self.pattern].missing.get_or_insert_with(what);
    }

    fn watch(&mut self, at: &Path, interest: Interest) {
        (self.with.watch)(at, interest);
    }

    fn entries(&mut self, directory: &Path) -> Rc<Vec<Entry>> {
        if let Some(entries) = self.listings.get(directory) {
            return Rc::clone(entries);
        }
        let (mut entries, mut error) = (Vec::new(), None);
        match std::fs::read_dir(directory) {
            Ok(all) => all.for_each(|entry| match entry {
                Ok(entry) => entries.push((entry.file_name(), kind_of(&entry))),
                Err(cause) => error = Some(cause),
            }),
            Err(cause) => error = Some(cause),
        }
        self.note(directory, error);
        entries.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let entries = Rc::new(entries);
        self.listings.insert(directory.to_owned(), Rc::clone(&entries));
        entries
    }

    /// A name that can't be looked at. If permission is missing, it is its directory's, which is reported once for all
    /// patterns that lead into it.
    fn note_name(&mut self, at: &Path, error: io::Error) {
        let denied = error.kind() == io::ErrorKind::PermissionDenied;
        let directory = at.parent().filter(|_| denied);
        self.note(directory.unwrap_or(at), Some(error));
    }

    fn note(&mut self, path: &Path, error: Option<io::Error>) {
        use io::ErrorKind::{InvalidInput, NotADirectory, NotFound, PermissionDenied};
        let Some(error) = error else { return };
        match error.kind() {
            // The last one is a link that became a file meanwhile; its watch reports that.
            NotADirectory | NotFound | InvalidInput => {}
            PermissionDenied => {
                self.found.unlistable.insert(format!("{}: {error}", path.display()));
            }
            _ => {
                let text = format!("{}: {}", text_of_path(path), cause_of(&error));
                if self.found.failing.len() < FAILING_MAX {
                    self.found.failing.insert(text);
                }
            }
        }
    }
}

/// The kind as the directory has it, without a look at the file where the file system shows it.
fn kind_of(entry: &std::fs::DirEntry) -> FileType {
    match entry.file_type() {
        Ok(kind) if kind.is_dir() => FileType::Directory,
        Ok(kind) if kind.is_symlink() => FileType::Symlink,
        Ok(_) | Err(_) => FileType::Unknown,
    }
}

fn look(at: &Path) -> io::Result<Statx> {
    let looked = rustix::fs::statx(rustix::fs::CWD, at, AtFlags::SYMLINK_NOFOLLOW, FileId::ASKED);
    looked.map_err(io::Error::from)
}

fn is(stat: &Statx, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.stx_mode.into()) == kind
}

impl Found {
    /// A file reached by several links, or by its own name and by links, counts once, under its own name if that
    /// matches, too.
    fn without_second_names(&mut self) {
        let mut kept: BTreeMap<&str, &str> = BTreeMap::new();
        for found in self.paths.values() {
            let target = found.target.as_deref().unwrap_or(&found.path);
            let name = kept.entry(target).or_insert(&found.path);
            if found.target.is_none() {
                *name = &found.path;
            }
        }
        let kept: BTreeSet<String> = kept.into_values().map(str::to_owned).collect();
        self.paths.retain(|path, _| kept.contains(&**path));
    }
}

#[cfg(test)]
#[path = "patterns_tests.rs"]
mod tests;
