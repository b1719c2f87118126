//! Which streams an inotify event concerns: by directory, then by name. Pure.
//!
//! The thread that lists a directory also watches it. The watch is known here only when that thread has answered.
//! Events that come before are kept and handled then.

mod names;
mod pace;
mod unseen;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;

use crate::capture::io::{FoundPath, LaneId};
use crate::decode::inotify::{
    ATTRIB, CREATE, DELETE, IGNORED, IS_DIRECTORY, InotifyEvent, MODIFY, MOVE_SELF, MOVED_FROM, MOVED_TO,
    OVERFLOW,
};
use crate::model::packed::Pack;
use crate::model::rare::Rare;
use crate::model::record::StreamId;
use crate::model::rotated_name;
use crate::model::rotated_name::RotatedName;
use crate::settings::path_pattern::Wild;
use crate::text::path_text::text_of_bytes;
use names::{Called, Names};
pub use pace::{Look, Pace};
use unseen::{Place, Unseen};

/// At most this many events are kept while directories are listed.
const KEPT_MAX: usize = 4096;

/// Which new names in a directory matter to an entry of file_monitor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    names: BTreeSet<String>,
    wild: Vec<Wild>,
    directories: bool,
    all: bool,
}

impl Interest {
    /// Only this name.
    pub fn name(name: impl Into<String>) -> Interest {
        Interest { names: BTreeSet::from([name.into()]), ..Interest::default() }
    }

    /// Names that match.
    pub fn wild(wild: Wild) -> Interest {
        Interest { wild: vec![wild], ..Interest::default() }
    }

    /// Directories, and with `links` also links.
    pub fn directories(links: bool) -> Interest {
        Interest { directories: true, all: links, ..Interest::default() }
    }

    /// Whether a new name matters.
    pub fn has(&self, name: &[u8], mask: u32) -> bool {
        let is_hidden = name.first() == Some(&b'.');
        let wild = || {
            let name = String::from_utf8_lossy(name);
            self.wild.iter().any(|wild| wild.matches(&name))
        };
        self.all && !is_hidden
            || self.directories && !is_hidden && mask & IS_DIRECTORY != 0
            || self.names.contains(&*text_of_bytes(name))
            || wild()
    }

    fn add(&mut self, other: Interest) {
        self.names.extend(other.names);
        for wild in other.wild {
            if !self.wild.contains(&wild) {
                self.wild.push(wild);
            }
        }
        self.directories |= other.directories;
        self.all |= other.all;
    }
}

/// Which streams and entries each watch concerns. There may be a watch for each of tens of thousands of streams, so
/// there is one table for all instead of one for each.
#[derive(Debug, Default)]
pub struct Watches {
    streams: BTreeMap<StreamId, Watched>,
    /// Names of the streams' files in watched directories.
    names: Names,
    /// Names that matter to entries of file_monitor whose patterns lead to a watch.
    interests: BTreeMap<(i32, Part), Arc<Interest>>,
    of_sets: BTreeMap<Part, BTreeSet<i32>>,
    /// Watches that are no longer needed.
    unused: Vec<i32>,
    /// Number of listings under way.
    listing: usize,
    /// Events since the first of them began: watch, mask, name.
    kept: BTreeSet<(i32, u32, Vec<u8>)>,
    unseen: Unseen,
    /// The last event, if a name went by it: the next one may say where to.
    moved: Option<Moved>,
    /// Files that matched a pattern and were removed before their directory was listed, by entry.
    never_listed: BTreeSet<(usize, i32, String)>,
}

/// A name was moved away, to another one or out of sight.
#[derive(Debug)]
struct Moved {
    from: Place,
    /// Nobody would have read the file under that name.
    from_nowhere: bool,
    /// A file that nobody had seen under it.
    is_unseen: bool,
}

/// The watch of a stream's directory.
#[derive(Debug)]
struct Watched {
    live_name: Box<str>,
    /// The watch's number, once it is known.
    watch: Option<i32>,
    /// Names of its other files at the last listing.
    rotated: Rare<BTreeSet<String>>,
    /// The name to which its live file was last renamed.
    renamed_to: Rare<String>,
}

/// An entry of file_monitor, and a file system that may hang; `None` = all that may not.
type Part = (usize, Option<LaneId>);

/// Sorts before every part.
const FIRST_PART: Part = (0, None);

/// Tells directories apart. Its results do not outlive the process.
pub fn hash_of_directory(path: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(path.trim_end_matches('/').as_bytes());
    hasher.finish()
}

fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

impl Watched {
    fn of(live_name: &str) -> Watched {
        Watched {
            live_name: live_name.into(),
            watch: None,
            rotated: Rare::default(),
            renamed_to: Rare::default(),
        }
    }

    /// Whether one of its files has this name.
    fn is(&self, called: Called, name: &str) -> bool {
        match called {
            Called::Live => *self.live_name == *name,
            Called::LiveStem => stem(&self.live_name) == name,
            Called::Rotated => self.rotated.contains(name),
        }
    }

    /// The names of its files.
    fn names(&self) -> impl Iterator<Item = (Called, &str)> {
        let live = [(Called::Live, &*self.live_name), (Called::LiveStem, stem(&self.live_name))];
        live.into_iter().chain(self.rotated.iter().map(|name| (Called::Rotated, name.as_str())))
    }
}

/// The streams and entries that events concern.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Concerned {
    /// inotify lost events, and nobody knows which.
    pub all: bool,
    /// Streams whose live file was written to.
    pub grew: BTreeSet<StreamId>,
    /// Streams with another file that was written to.
    pub rotated_grew: BTreeSet<StreamId>,
    /// Streams with files that were made, renamed or removed.
    pub changed: BTreeSet<StreamId>,
    /// Of `changed`: streams whose live name belongs to another file, and how often that happened.
    pub renewed: BTreeMap<StreamId, u32>,
    /// Something came that may go again soon: an unknown file or directory that a pattern matches, a removed live file,
    /// or several files in turn under one name.
    pub hurried: bool,
    /// Streams whose known file may have become readable.
    pub rights: BTreeSet<StreamId>,
    /// Entries whose patterns may match something new.
    pub sets: BTreeSet<usize>,
    /// Names that matched a pattern and were removed before anybody could look, by entry.
    pub vanished: BTreeSet<(usize, String)>,
}

impl Pack for Watches {
    fn pack(&mut self) {
        self.streams.pack();
        self.names.pack();
        self.interests.pack();
        self.of_sets.values_mut().for_each(Pack::pack);
    }
}

impl Watches {
    /// A thread is about to watch and list directories.
    pub fn begin_listing(&mut self) {
        self.listing += 1;
    }

    /// The thread has done so, and its answer is known here.
    pub fn end_listing(&mut self) {
        self.listing = self.listing.saturating_sub(1);
        if self.listing == 0 {
            self.kept.clear();
        }
    }

    /// A stream's directory is about to be watched, perhaps for another live name than before.
    pub fn expect(&mut self, stream: StreamId, live_name: &str) {
        self.unseen.retain_moved_away(|name| *text_of_bytes(name) != *live_name);
        let watched = self.streams.entry(stream).or_insert_with(|| Watched::of(live_name));
        if *watched.live_name != *live_name {
            let before = std::mem::replace(watched, Watched::of(live_name));
            self.leave(stream, &before);
        }
    }

    /// A stream has no files any more in the directory that was watched for it.
    fn leave(&mut self, stream: StreamId, watched: &Watched) {
        let Some(watch) = watched.watch else { return };
        for (called, name) in watched.names() {
            self.names.remove(watch, called, name, stream);
        }
        self.drop_unused(watch);
    }

    /// Sets the watch of a stream's directory. Returns whether events had come there before.
    pub fn set(&mut self, stream: StreamId, watch: i32) -> bool {
        let Some(watched) = self.streams.get_mut(&stream) else { return false };
        if watched.watch == Some(watch) {
            return false;
        }
        let fresh = Watched { watch: Some(watch), ..Watched::of(&watched.live_name) };
        let before = std::mem::replace(watched, fresh);
        for (called, name) in watched.names() {
            self.names.insert(watch, called, name, stream);
        }
        self.leave(stream, &before);
        self.is_full() || self.kept_of(watch).next().is_some()
    }

    /// Streams with a file of that name in the watched directory.
    fn called<'a>(
        &'a self,
        watch: i32,
        called: Called,
        name: &'a str,
    ) -> impl Iterator<Item = StreamId> + 'a {
        let is =
            move |stream: &StreamId| self.streams.get(stream).is_some_and(|watched| watched.is(called, name));
        self.names.candidates(watch, called, name).filter(is)
    }

    /// Entries whose patterns lead to the watch, and the names that matter to them.
    fn interests_of(&self, watch: i32) -> impl Iterator<Item = (usize, &Interest)> + Clone {
        let of_watch = self.interests.range((watch, FIRST_PART)..);
        let of_watch = of_watch.take_while(move |((of, _), _)| *of == watch);
        of_watch.map(|((_, (set, _)), interest)| (*set, &**interest))
    }

    fn forget_interests(&mut self, watch: i32) {
        let of_watch = self.interests.range((watch, FIRST_PART)..).map(|(key, _)| *key);
        let keys: Vec<(i32, Part)> = of_watch.take_while(|(of, _)| *of == watch).collect();
        keys.iter().for_each(|key| drop(self.interests.remove(key)));
    }

    fn kept_of(&self, watch: i32) -> impl Iterator<Item = &(i32, u32, Vec<u8>)> {
        self.kept.range((watch, 0, Vec::new())..).take_while(move |(of, ..)| *of == watch)
    }

    /// Whether more events came than are kept.
    fn is_full(&self) -> bool {
        self.kept.len() >= KEPT_MAX
    }

    /// A stream's files were listed; `names` are all but the live one.
    pub fn set_rotated<'a>(&mut self, stream: StreamId, names: impl Iterator<Item = &'a str>) {
        let Some(watched) = self.streams.get_mut(&stream) else { return };
        let Some(watch) = watched.watch else { return };
        let live_name = &*watched.live_name;
        let rotated: BTreeSet<String> = names.filter(|name| *name != live_name).map(str::to_owned).collect();
        if rotated == *watched.rotated {
            return;
        }
        for name in watched.rotated.difference(&rotated) {
            self.names.remove(watch, Called::Rotated, name, stream);
        }
        for name in rotated.difference(&watched.rotated) {
            self.names.insert(watch, Called::Rotated, name, stream);
        }
        watched.rotated = rotated.into();
    }

    /// Sets the directories that an entry's patterns lead to; others are no longer watched for it. Returns whether
    /// events that matter to the entry had come before.
    pub fn set_of_patterns(
        &mut self,
        set: usize,
        lane: Option<LaneId>,
        watches: Vec<(i32, Interest)>,
    ) -> bool {
        let unseen = self.unseen.on_listed();
        self.never_listed.extend(unseen.flat_map(|((watch, name), sets)| {
            let name = text_of_bytes(&name).into_owned();
            sets.into_iter().map(move |set| (set, watch, name.clone()))
        }));
        let mut of_set: BTreeMap<i32, Interest> = BTreeMap::new();
        for (watch, interest) in watches {
            of_set.entry(watch).or_default().add(interest);
        }
        let before = self.of_sets.insert((set, lane), of_set.keys().copied().collect()).unwrap_or_default();
        for watch in before.into_iter().filter(|watch| !of_set.contains_key(watch)) {
            self.interests.remove(&(watch, (set, lane)));
            self.drop_unused(watch);
        }
        let mut concerned = false;
        // If a directory is like the one before it, both share what is known of them.
        let mut last = Arc::<Interest>::default();
        for (watch, interest) in of_set {
            if *last != interest {
                last = Arc::new(interest);
            }
            let before = self.interests.insert((watch, (set, lane)), Arc::clone(&last));
            if before.is_none() {
                self.note_never_listed(watch, set, &last);
            }
            concerned |= before.is_none_or(|before| before != last) && self.has_kept(watch, &last);
        }
        concerned
    }

    /// A directory is watched since it was listed: files removed there before that answer were never opened.
    fn note_never_listed(&mut self, watch: i32, set: usize, interest: &Interest) {
        let is_removed = |(_, mask, name): &&(i32, u32, Vec<u8>)| {
            mask & DELETE != 0 && mask & IS_DIRECTORY == 0 && interest.has(name, *mask)
        };
        let removed = self.kept_of(watch).filter(is_removed).map(|(.., name)| text_of_bytes(name));
        let is_known = |name: &str| {
            [Called::Live, Called::Rotated]
                .iter()
                .any(|called| self.called(watch, *called, name).next().is_some())
                || self.siblings_of(watch, name).next().is_some()
        };
        let never: Vec<_> =
            removed.filter(|name| !is_known(name)).map(|name| (set, watch, name.into_owned())).collect();
        self.never_listed.extend(never);
    }

    /// A listing of patterns found these paths in these directories, some of them over links that lead to others. Whoever
    /// reads a path tells if its file went before it could be opened, so its removal is not to be told here, too.
    ///
    /// Returns the files that match a pattern and were removed before their directory was listed: entry, name, and the path
    /// that the listing found all the same.
    pub fn saw_paths(
        &mut self,
        directories: &[(i32, u64)],
        links: &[String],
        paths: &[FoundPath],
    ) -> Vec<(usize, String, Option<Arc<str>>)> {
        let never = std::mem::take(&mut self.never_listed);
        if never.is_empty() && self.unseen.is_empty() {
            return Vec::new();
        }
        fn place_of(path: &str) -> (u64, &str) {
            let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
            (hash_of_directory(directory), name)
        }
        let mut shown: BTreeMap<(u64, &str), &Arc<str>> = BTreeMap::new();
        for found in paths {
            shown.insert(place_of(found.target.as_deref().unwrap_or(&found.path)), &found.path);
        }
        let links: BTreeSet<(u64, &str)> = links.iter().map(|link| place_of(link)).collect();
        let hashes: BTreeMap<i32, u64> = directories.iter().copied().collect();
        let path_of = |watch: i32, name: &str| shown.get(&(*hashes.get(&watch)?, name)).copied();
        let is_link =
            |watch: i32, name: &str| hashes.get(&watch).is_some_and(|hash| links.contains(&(*hash, name)));
        self.unseen.retain(|watch, name| {
            let name = &*text_of_bytes(name);
            path_of(watch, name).is_none() && !is_link(watch, name)
        });
        never
            .into_iter()
            .map(|(set, watch, name)| {
                let path = path_of(watch, &name).cloned();
                (set, name, path)
            })
            .collect()
    }

    /// Links that a listing found, or that lead to what it found: a later event for such a name is about another file.
    /// A stream watches the link's target, so the link's name is not known here otherwise.
    pub fn saw_links<'a>(&mut self, paths: impl Iterator<Item = &'a str>) {
        if self.unseen.is_empty() {
            return;
        }
        let names: BTreeSet<&str> = paths.flat_map(|path| path.split('/')).collect();
        self.unseen.retain(|_, name| !names.contains(&*text_of_bytes(name)));
    }

    fn has_kept(&self, watch: i32, interest: &Interest) -> bool {
        let is_news = |(_, mask, name): &(i32, u32, Vec<u8>)| {
            let made = mask & (CREATE | MOVED_TO) != 0 && interest.has(name, *mask);
            made || mask & (IGNORED | MOVE_SELF) != 0
        };
        self.is_full() || self.kept_of(watch).any(is_news)
    }

    fn drop_unused(&mut self, watch: i32) {
        if self.names.of_watch(watch).next().is_none() && self.interests_of(watch).next().is_none() {
            self.unused.push(watch);
        }
    }

    /// Watches that are no longer needed.
    pub fn take_unused(&mut self) -> Vec<i32> {
        std::mem::take(&mut self.unused)
    }

    /// Forgets a stream.
    pub fn remove(&mut self, stream: StreamId) {
        if let Some(watched) = self.streams.remove(&stream) {
            self.leave(stream, &watched);
        }
    }

    /// Adds the streams and entries that an event concerns to `told`.
    pub fn on_event(&mut self, event: &InotifyEvent<'_>, told: &mut Concerned) {
        if event.mask & OVERFLOW != 0 {
            // An overflow names no directory.
            told.all = true;
            return;
        }
        let moved = self.moved.take();
        if self.listing > 0 && !self.is_full() && event.mask != ATTRIB {
            self.kept.insert((event.watch, event.mask, event.name.to_vec()));
        }
        if event.mask & (IGNORED | MOVE_SELF) != 0 {
            self.on_directory_gone(event, told);
            return;
        }
        let is_concerned =
            event.mask & (CREATE | MOVED_TO) != 0 && self.on_new_name(event, moved.as_ref(), told);
        let name = text_of_bytes(event.name);
        let name = &*name;
        let live: Vec<StreamId> = self.called(event.watch, Called::Live, name).collect();
        let rotated: Vec<StreamId> = self.called(event.watch, Called::Rotated, name).collect();
        let is_known = !live.is_empty() || !rotated.is_empty();
        let is_rename = |moved: &Moved| moved.from.0 == event.watch && event.mask & MOVED_TO != 0;
        let renamed_from = moved.filter(is_rename).map(|moved| moved.from.1);
        let renamed_from = renamed_from.as_deref().map(text_of_bytes);
        if let Some(from) = &renamed_from {
            self.note_renamed(event.watch, from, name);
        }
        let is_rotated = || self.siblings_of(event.watch, name).next().is_some();
        told.hurried |= is_concerned && !is_known && !is_rotated();
        if event.mask & (MOVED_FROM | DELETE) != 0 {
            self.on_name_gone(event, name, is_known, told);
        }
        if event.mask & ATTRIB != 0 {
            told.rights.extend(live.iter().chain(&rotated));
            if name.is_empty() {
                // The directory's own rights changed: what is in it may be readable now.
                told.rights.extend(self.names.of_watch(event.watch));
                told.sets.extend(self.interests_of(event.watch).map(|(set, _)| set));
            }
        }
        let is_write = event.mask & MODIFY != 0;
        if name.is_empty() || event.mask & ATTRIB != 0 && is_known && !is_write {
            return;
        }
        match live.is_empty() {
            false if is_write => told.grew.extend(live),
            false => self.on_live_name(event, live, renamed_from.as_deref(), told),
            true if is_write => told.rotated_grew.extend(rotated),
            true => {
                told.changed.extend(rotated);
                told.changed.extend(self.siblings_of(event.watch, name));
            }
        }
    }

    /// A watched directory was removed, and the watch with it, or whatever has its old path now is another directory.
    fn on_directory_gone(&mut self, event: &InotifyEvent<'_>, told: &mut Concerned) {
        if event.mask & IGNORED != 0 {
            for stream in self.names.remove_watch(event.watch) {
                if let Some(watched) = self.streams.get_mut(&stream) {
                    *watched = Watched::of(&watched.live_name);
                }
                told.changed.insert(stream);
            }
        } else {
            told.changed.extend(self.names.of_watch(event.watch));
        }
        told.sets.extend(self.interests_of(event.watch).map(|(set, _)| set));
        self.forget_interests(event.watch);
    }

    /// A name is new. Returns whether a pattern matches it.
    fn on_new_name(&mut self, event: &InotifyEvent<'_>, moved: Option<&Moved>, told: &mut Concerned) -> bool {
        let concerned = self.who_wants(event);
        let is_concerned = !concerned.is_empty();
        let place = (event.watch, event.name.to_vec());
        if is_concerned && event.mask & IS_DIRECTORY == 0 {
            // Whoever finds it under its new name reads it.
            if let Some(moved) = moved.filter(|moved| moved.is_unseen) {
                self.unseen.is_found(&moved.from);
            }
            // A file that had another name may have been read under it, unless that name would not have been read
            // either: many programs write a file under another name and rename it when it is complete.
            let was_unread = |moved: &Moved| moved.from_nowhere && moved.from.0 == event.watch;
            if event.mask & CREATE != 0 || moved.is_some_and(was_unread) {
                self.unseen.made(place.clone());
            }
        }
        self.unseen.is_found(&place);
        told.sets.extend(concerned);
        is_concerned
    }

    /// A name is gone: moved away or removed.
    fn on_name_gone(&mut self, event: &InotifyEvent<'_>, name: &str, is_known: bool, told: &mut Concerned) {
        let is_move = event.mask & MOVED_FROM != 0;
        if !is_move && self.unseen.is_empty() {
            return;
        }
        let place = (event.watch, event.name.to_vec());
        let was_unseen = self.unseen.went(&place);
        let is_ours = is_known || was_unseen && self.siblings_of(event.watch, name).next().is_some();
        let concerned =
            if is_known || !(is_move || was_unseen) { BTreeSet::new() } else { self.who_wants(event) };
        let from_nowhere = !is_known && concerned.is_empty();
        let is_unseen = was_unseen && !is_ours;
        if is_move {
            let is_unseen = is_unseen && self.unseen.moved_away(place.clone(), concerned);
            self.moved = Some(Moved { from: place, from_nowhere, is_unseen });
        } else if is_unseen {
            told.vanished.extend(concerned.into_iter().map(|set| (set, name.to_owned())));
        }
    }

    /// Something happened to the name of the live file of these streams.
    fn on_live_name(
        &self,
        event: &InotifyEvent<'_>,
        live: Vec<StreamId>,
        renamed_from: Option<&str>,
        told: &mut Concerned,
    ) {
        told.hurried |= event.mask & DELETE != 0;
        if event.mask & (CREATE | MOVED_TO) != 0 && event.mask & IS_DIRECTORY == 0 {
            told.hurried |= live.iter().any(|stream| told.renewed.contains_key(stream));
            for stream in live.iter().filter(|stream| !self.is_undone(**stream, renamed_from)) {
                *told.renewed.entry(*stream).or_default() += 1;
            }
        }
        told.changed.extend(live);
    }

    /// Entries with a pattern to which the event's name matters.
    fn who_wants(&self, event: &InotifyEvent<'_>) -> BTreeSet<usize> {
        let wants = |(_, interest): &(usize, &Interest)| interest.has(event.name, event.mask);
        self.interests_of(event.watch).filter(wants).map(|(set, _)| set).collect()
    }

    /// A file was renamed within its directory.
    fn note_renamed(&mut self, watch: i32, from: &str, to: &str) {
        let streams: Vec<StreamId> = self.called(watch, Called::Live, from).collect();
        for stream in streams {
            if let Some(watched) = self.streams.get_mut(&stream) {
                to.clone_into(&mut watched.renamed_to);
            }
        }
    }

    /// The live file gets back the name that a rename took away: it is the same file.
    fn is_undone(&self, stream: StreamId, renamed_from: Option<&str>) -> bool {
        let renamed_to = self.streams.get(&stream).map(|watched| watched.renamed_to.as_str());
        renamed_from.is_some() && renamed_to == renamed_from
    }

    /// Streams for which a file of this name would be a rotated one: a.log.1, 0.log.20261125-100000, a.log-20261125.gz,
    /// a-2026-11-25.log.
    fn siblings_of<'a>(&'a self, watch: i32, name: &'a str) -> impl Iterator<Item = StreamId> + 'a {
        let by_name = move |stem: &'a str| {
            let live = self.called(watch, Called::Live, stem);
            live.chain(self.called(watch, Called::LiveStem, stem))
        };
        let streams = rotated_name::stems(name).flat_map(by_name);
        streams.filter(|stream| self.is_rotated(*stream, name))
    }

    fn is_rotated(&self, stream: StreamId, name: &str) -> bool {
        self.streams.get(&stream).is_some_and(|watched| RotatedName::of(name, &watched.live_name).is_some())
    }
}

#[cfg(test)]
#[path = "watches_tests.rs"]
mod tests;
