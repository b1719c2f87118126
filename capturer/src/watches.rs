//! Which stream an inotify event concerns: by directory, then by name. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::decode::inotify::{CREATE, Event, IGNORED, MODIFY, MOVED_TO};
use crate::record::StreamId;

/// The table.
#[derive(Debug, Default)]
pub struct Watches {
    directories: BTreeMap<i32, Directory>,
    /// Live name and, once known, watch of each stream.
    streams: BTreeMap<StreamId, (String, Option<i32>)>,
}

#[derive(Debug, Default)]
struct Directory {
    /// By live name; several where sinks are read for at paces of their own.
    streams: BTreeMap<String, BTreeSet<StreamId>>,
    /// Indices of file_monitor entries whose patterns lead here.
    sets: BTreeSet<usize>,
}

impl Directory {
    fn forget(&mut self, name: &str, stream: StreamId) {
        if let Some(streams) = self.streams.get_mut(name) {
            streams.remove(&stream);
            if streams.is_empty() {
                self.streams.remove(name);
            }
        }
    }
}

impl Watches {
    /// A stream's directory is about to be watched.
    pub fn expect(&mut self, stream: StreamId, live_name: &str) {
        self.streams.entry(stream).or_insert_with(|| (live_name.to_owned(), None));
    }

    /// A stream's directory is watched.
    pub fn set(&mut self, stream: StreamId, watch: i32) {
        let Some((name, known)) = self.streams.get_mut(&stream) else { return };
        if let Some(old) = known.replace(watch).filter(|old| *old != watch)
            && let Some(directory) = self.directories.get_mut(&old)
        {
            directory.forget(name, stream);
        }
        self.directories.entry(watch).or_default().streams.entry(name.clone()).or_default().insert(stream);
    }

    /// Directories that patterns lead to are watched.
    pub fn set_of_patterns(&mut self, set: usize, watches: &[i32]) {
        for watch in watches {
            self.directories.entry(*watch).or_default().sets.insert(set);
        }
    }

    /// Forgets a stream. Returns its watch if nobody else needs it.
    pub fn remove(&mut self, stream: StreamId) -> Option<i32> {
        let (name, watch) = self.streams.remove(&stream)?;
        let watch = watch?;
        let directory = self.directories.get_mut(&watch)?;
        directory.forget(&name, stream);
        if directory.streams.is_empty() && directory.sets.is_empty() {
            self.directories.remove(&watch);
            return Some(watch);
        }
        None
    }

    /// Sorts an event: whose live file grew, whose chain changed, which patterns may match something new.
    pub fn on_event(
        &mut self,
        event: &Event<'_>,
        grew: &mut BTreeSet<StreamId>,
        changed: &mut BTreeSet<StreamId>,
        sets: &mut BTreeSet<usize>,
    ) {
        if event.mask & IGNORED != 0 {
            // The directory is gone, and the watch with it.
            if let Some(directory) = self.directories.remove(&event.watch) {
                changed.extend(directory.streams.values().flatten());
                sets.extend(&directory.sets);
            }
            return;
        }
        let Some(directory) = self.directories.get(&event.watch) else { return };
        if event.mask & (CREATE | MOVED_TO) != 0 {
            sets.extend(&directory.sets);
        }
        let Ok(name) = std::str::from_utf8(event.name) else { return };
        match directory.streams.get(name) {
            Some(streams) if event.mask & MODIFY != 0 => grew.extend(streams),
            Some(streams) => changed.extend(streams),
            None => {
                // A rotated sibling: it came, went or was compressed. Writes to it don't matter, it is final.
                let base = name.strip_suffix(".gz").unwrap_or(name);
                // By number or by date: a.log.1, 0.log.20261125-100000, a.log-20261125.
                let stems = ['.', '-'].map(|before| base.rsplit_once(before).map(|(stem, _)| stem));
                for streams in stems.into_iter().flatten().filter_map(|stem| directory.streams.get(stem)) {
                    if event.mask & MODIFY == 0 {
                        changed.extend(streams);
                    }
                }
            }
        }
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
        let mut check = |name: &str, mask: u32, expected: (&[u32], &[u32], &[usize])| {
            let (mut grew, mut changed, mut sets) = Default::default();
            let event = Event { watch: 7, mask, name: name.as_bytes() };
            watches.on_event(&event, &mut grew, &mut changed, &mut sets);
            let ids = |set: BTreeSet<StreamId>| set.into_iter().map(|id| id.0).collect::<Vec<_>>();
            let sets: Vec<_> = sets.into_iter().collect();
            assert_eq!((&ids(grew)[..], &ids(changed)[..], &sets[..]), expected, "{name} {mask:x}");
        };
        check("a.log", MODIFY, (&[1], &[], &[]));
        check("b.log", CREATE, (&[], &[2], &[0]));
        check("a.log.1", MOVED_TO, (&[], &[1], &[0]));
        check("a.log.1.gz", CREATE, (&[], &[1], &[0]));
        check("a.log.20261125-100000", MOVED_TO, (&[], &[1], &[0]));
        check("a.log-20261125.gz", CREATE, (&[], &[1], &[0]));
        check("a.log.1", MODIFY, (&[], &[], &[]));
        check("a.log-20261125", MODIFY, (&[], &[], &[]));
        check("other", CREATE, (&[], &[], &[0]));
        check("", IGNORED, (&[], &[1, 2], &[0]));
        check("a.log", MODIFY, (&[], &[], &[]));
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
