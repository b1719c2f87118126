//! Which stream an inotify event concerns: by directory, then by name. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::decode::inotify::{CREATE, Event, IGNORED, MODIFY, MOVED_TO};
use crate::kin::{self, Kin};
use crate::record::StreamId;

/// The table.
#[derive(Debug, Default)]
pub struct Watches {
    directories: BTreeMap<i32, Directory>,
    streams: BTreeMap<StreamId, Watched>,
}

/// What is known of a stream.
#[derive(Debug)]
struct Watched {
    live_name: String,
    /// Once known.
    watch: Option<i32>,
    /// Names of its other files when they were last listed.
    kin: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Directory {
    /// By live name; several where sinks are read for at paces of their own.
    streams: BTreeMap<String, BTreeSet<StreamId>>,
    /// By the live name without its ending: a rotated file may have its mark before that.
    stems: BTreeMap<String, BTreeSet<StreamId>>,
    /// By the name of a rotated file.
    kin: BTreeMap<String, BTreeSet<StreamId>>,
    /// Indices of file_monitor entries whose patterns lead here.
    sets: BTreeSet<usize>,
}

fn forget(table: &mut BTreeMap<String, BTreeSet<StreamId>>, name: &str, stream: StreamId) {
    if let Some(streams) = table.get_mut(name) {
        streams.remove(&stream);
        if streams.is_empty() {
            table.remove(name);
        }
    }
}

fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

impl Directory {
    fn forget(&mut self, stream: StreamId, watched: &Watched) {
        forget(&mut self.streams, &watched.live_name, stream);
        forget(&mut self.stems, stem(&watched.live_name), stream);
        for name in &watched.kin {
            forget(&mut self.kin, name, stream);
        }
    }
}

/// Whom events concern.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Concerned {
    /// Their live file was written to.
    pub grew: BTreeSet<StreamId>,
    /// Another file of theirs was.
    pub kin_grew: BTreeSet<StreamId>,
    /// Files of theirs were made, renamed or removed.
    pub changed: BTreeSet<StreamId>,
    /// Their patterns may match something new.
    pub sets: BTreeSet<usize>,
}

impl Watches {
    /// A stream's directory is about to be watched.
    pub fn expect(&mut self, stream: StreamId, live_name: &str) {
        self.streams.entry(stream).or_insert_with(|| Watched {
            live_name: live_name.to_owned(),
            watch: None,
            kin: BTreeSet::new(),
        });
    }

    /// A stream's directory is watched.
    pub fn set(&mut self, stream: StreamId, watch: i32) {
        let Some(watched) = self.streams.get_mut(&stream) else { return };
        if let Some(old) = watched.watch.replace(watch).filter(|old| *old != watch)
            && let Some(directory) = self.directories.get_mut(&old)
        {
            directory.forget(stream, watched);
            watched.kin.clear();
        }
        let directory = self.directories.entry(watch).or_default();
        directory.streams.entry(watched.live_name.clone()).or_default().insert(stream);
        directory.stems.entry(stem(&watched.live_name).to_owned()).or_default().insert(stream);
    }

    /// A stream's files were listed; these are the names that are not its live one.
    pub fn set_kin<'a>(&mut self, stream: StreamId, names: impl Iterator<Item = &'a str>) {
        let Some(watched) = self.streams.get_mut(&stream) else { return };
        let Some(directory) = watched.watch.and_then(|watch| self.directories.get_mut(&watch)) else {
            return;
        };
        let live_name = watched.live_name.as_str();
        let kin: BTreeSet<String> = names.filter(|name| *name != live_name).map(str::to_owned).collect();
        if kin == watched.kin {
            return;
        }
        for name in watched.kin.difference(&kin) {
            forget(&mut directory.kin, name, stream);
        }
        for name in kin.difference(&watched.kin) {
            directory.kin.entry(name.clone()).or_default().insert(stream);
        }
        watched.kin = kin;
    }

    /// Directories that patterns lead to are watched.
    pub fn set_of_patterns(&mut self, set: usize, watches: &[i32]) {
        for watch in watches {
            self.directories.entry(*watch).or_default().sets.insert(set);
        }
    }

    /// Forgets a stream. Returns its watch if nobody else needs it.
    pub fn remove(&mut self, stream: StreamId) -> Option<i32> {
        let watched = self.streams.remove(&stream)?;
        let watch = watched.watch?;
        let directory = self.directories.get_mut(&watch)?;
        directory.forget(stream, &watched);
        if directory.streams.is_empty() && directory.sets.is_empty() {
            self.directories.remove(&watch);
            return Some(watch);
        }
        None
    }

    /// Sorts an event.
    pub fn on_event(&mut self, event: &Event<'_>, told: &mut Concerned) {
        if event.mask & IGNORED != 0 {
            // The directory is gone, and the watch with it.
            if let Some(directory) = self.directories.remove(&event.watch) {
                told.changed.extend(directory.streams.values().flatten());
                told.sets.extend(&directory.sets);
            }
            return;
        }
        let Some(directory) = self.directories.get(&event.watch) else { return };
        let is_write = event.mask & MODIFY != 0;
        if event.mask & (CREATE | MOVED_TO) != 0 {
            told.sets.extend(&directory.sets);
        }
        let Ok(name) = std::str::from_utf8(event.name) else { return };
        let kin = directory.kin.get(name).into_iter().flatten();
        match directory.streams.get(name) {
            Some(streams) if is_write => told.grew.extend(streams),
            Some(streams) => told.changed.extend(streams),
            None if is_write => told.kin_grew.extend(kin),
            None => {
                told.changed.extend(kin);
                // One that comes may be a sibling: a.log.1, 0.log.20261125-100000, a.log-20261125.gz, a-2026-11-25.log.
                for stem in kin::stems(name) {
                    let by_name = [directory.streams.get(stem), directory.stems.get(stem)];
                    let streams = by_name.into_iter().flatten().flatten();
                    told.changed.extend(streams.filter(|stream| self.is_kin(**stream, name)));
                }
            }
        }
    }

    fn is_kin(&self, stream: StreamId, name: &str) -> bool {
        self.streams.get(&stream).is_some_and(|watched| Kin::of(name, &watched.live_name).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_reach_their_streams() {
        let mut watches = Watches::default();
        watches.expect(StreamId(1), "a.log");
        watches.expect(StreamId(2), "b.log");
        watches.set(StreamId(1), 7);
        watches.set(StreamId(2), 7);
        watches.set_of_patterns(0, &[7]);
        watches.set_kin(StreamId(1), ["a.log", "a.log.1", "strange"].into_iter());
        let mut kin_grew = Vec::new();
        let mut check = |name: &str, mask: u32, expected: (&[u32], &[u32], &[usize])| {
            let mut told = Concerned::default();
            let event = Event { watch: 7, mask, name: name.as_bytes() };
            watches.on_event(&event, &mut told);
            let ids = |set: BTreeSet<StreamId>| set.into_iter().map(|id| id.0).collect::<Vec<_>>();
            let sets: Vec<_> = told.sets.into_iter().collect();
            assert_eq!((&ids(told.grew)[..], &ids(told.changed)[..], &sets[..]), expected, "{name} {mask:x}");
            kin_grew.extend(told.kin_grew.into_iter().map(|id| (name.to_owned(), id.0)));
        };
        check("a.log", MODIFY, (&[1], &[], &[]));
        check("b.log", CREATE, (&[], &[2], &[0]));
        check("a.log.1", MOVED_TO, (&[], &[1], &[0]));
        check("a.log.1.gz", CREATE, (&[], &[1], &[0]));
        check("a.log.20261125-100000", MOVED_TO, (&[], &[1], &[0]));
        check("a.log-20261125.gz", CREATE, (&[], &[1], &[0]));
        check("a-2026-11-25T10-00-00.000.log", MOVED_TO, (&[], &[1], &[0]));
        check("a.log.1", MODIFY, (&[], &[], &[]));
        check("strange", MODIFY, (&[], &[], &[]));
        check("a.log-20261125", MODIFY, (&[], &[], &[]));
        check("other", CREATE, (&[], &[], &[0]));
        check("", IGNORED, (&[], &[1, 2], &[0]));
        check("a.log", MODIFY, (&[], &[], &[]));
        // What no listing showed is nobody's.
        assert_eq!(kin_grew, [("a.log.1".to_owned(), 1), ("strange".to_owned(), 1)]);
    }

    #[test]
    fn a_watch_lives_as_long_as_somebody_needs_it() {
        let mut watches = Watches::default();
        for stream in [1, 2] {
            watches.expect(StreamId(stream), &format!("{stream}"));
            watches.set(StreamId(stream), 3);
        }
        assert_eq!(watches.remove(StreamId(1)), None);
        assert_eq!(watches.remove(StreamId(2)), Some(3));
        assert_eq!(watches.remove(StreamId(2)), None);
    }
}
