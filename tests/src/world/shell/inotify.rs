//! What inotify tells, and when: which streams and entries a change of a file concerns, and events that are lost.

use std::collections::{BTreeMap, BTreeSet};

use capturer::testing::{Event, StreamId};

use super::super::{Happening, World};
use super::{LOOK_US, brief_event};

#[derive(Debug)]
pub(super) struct Watch {
    pub(super) directory: String,
    pub(super) live_name: String,
    /// The scan that sets it was carried out, and the directory was there.
    pub(super) set: bool,
}

/// What inotify holds and has not told.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) planned: bool,
    pub(super) overflow: bool,
    pub(super) grew: BTreeSet<StreamId>,
    pub(super) rotated_grew: BTreeSet<StreamId>,
    pub(super) changed: BTreeSet<StreamId>,
    /// How often another file got the live name.
    pub(super) renewed: BTreeMap<StreamId, u32>,
    pub(super) sets: BTreeSet<usize>,
    pub(super) rights: BTreeSet<StreamId>,
}

/// What a file's event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::world) enum Change {
    Written,
    Made,
    Gone,
    Rights,
}

impl World {
    /// A file was written, made or removed.
    pub(in crate::world) fn notify(&mut self, path: &str, change: Change) {
        let Some(run) = &mut self.run else { return };
        let Some((directory, name)) = path.rsplit_once('/') else { return };
        if self.engine.no_inotify {
            return;
        }
        for (stream, watch) in
            run.watches.iter().filter(|(_, watch)| watch.set && watch.directory == directory)
        {
            let Some(ending) = name.strip_prefix(watch.live_name.as_str()) else { continue };
            match change {
                Change::Written if ending.is_empty() => drop(run.inotify.grew.insert(*stream)),
                Change::Written if is_kin(ending) => drop(run.inotify.rotated_grew.insert(*stream)),
                Change::Rights if ending.is_empty() || is_kin(ending) => {
                    run.inotify.rights.insert(*stream);
                }
                Change::Made | Change::Gone if ending.is_empty() || is_kin(ending) => {
                    run.inotify.changed.insert(*stream);
                    if change == Change::Made && ending.is_empty() {
                        *run.inotify.renewed.entry(*stream).or_default() += 1;
                    }
                }
                _ => {}
            }
        }
        if change == Change::Made
            && let Some(set) = directory.strip_prefix("/logs/").and_then(|set| set.parse().ok())
            && run.watched_sets.contains(&set)
        {
            run.inotify.sets.insert(set);
        }
        self.plan_inotify();
    }

    /// A directory is gone, and its watches with it.
    pub(in crate::world) fn notify_directory_gone(&mut self, directory: &str) {
        let Some(run) = &mut self.run else { return };
        for (stream, watch) in run.watches.iter_mut().filter(|(_, watch)| watch.directory == directory) {
            if std::mem::take(&mut watch.set) && !self.engine.no_inotify {
                run.inotify.changed.insert(*stream);
            }
        }
        self.plan_inotify();
    }

    fn plan_inotify(&mut self) {
        let Some(run) = &mut self.run else { return };
        let pending = &mut run.inotify;
        let empty = pending.grew.is_empty()
            && pending.rotated_grew.is_empty()
            && pending.changed.is_empty()
            && pending.sets.is_empty()
            && pending.rights.is_empty();
        if pending.planned || (empty && !pending.overflow) {
            return;
        }
        pending.planned = true;
        let number = run.number;
        let delay = self.delay(10_000, self.faults.inotify_late_us);
        self.later(delay, Happening::Inotify { run: number });
    }

    pub(in crate::world) fn tell_inotify(&mut self) {
        if self.strikes(self.faults.inotify_overflow) {
            self.run_mut().inotify = Pending { overflow: true, planned: true, ..Pending::default() };
        }
        let Pending { overflow, grew, rotated_grew, changed, renewed, sets, rights, .. } =
            std::mem::take(&mut self.run_mut().inotify);
        let mut events: Vec<Event> = Vec::new();
        if overflow {
            events.push(Event::LookAtAll);
        }
        events.extend(renewed.into_iter().map(|(stream, files)| Event::LiveMade { stream, files }));
        events.extend(changed.into_iter().map(|stream| Event::ChainChanged { stream }));
        events.extend(rotated_grew.into_iter().map(|stream| Event::RotatedGrew { stream }));
        events.extend(grew.into_iter().map(|stream| Event::FileGrew { stream }));
        events.extend(rights.into_iter().map(|stream| Event::RightsChanged { stream }));
        events.extend(sets.into_iter().map(|set| Event::PathsChanged { set }));
        for event in events {
            self.note(|| brief_event(&event));
            self.deliver(event);
        }
        self.watch_without_inotify();
    }

    /// Plans the next look at everything, where there is no inotify.
    pub(in crate::world) fn watch_without_inotify(&mut self) {
        if self.engine.no_inotify
            && let Some(run) = &mut self.run
        {
            let number = run.number;
            (run.inotify.overflow, run.inotify.planned) = (true, true);
            self.later(LOOK_US, Happening::Inotify { run: number });
        }
    }
}

fn is_kin(ending: &str) -> bool {
    let digits = ending.strip_prefix('.').map(|rest| rest.strip_suffix(".gz").unwrap_or(rest));
    digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}
