//! What inotify reports, and what replaces it where it does not watch.

use std::collections::{BTreeMap, HashSet};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec};

use super::{Done, Shell, Unwatched, ring};
use crate::capture::io::Event;
use crate::decode::inotify;
use crate::model::record::StreamId;
use crate::shell::ring::ReadOutcome;
use crate::shell::watches::{Concerned, Look};

/// Bytes of one read of inotify: some 2,000 events.
const INOTIFY_BYTES: usize = 64 * 1024;

fn has_events(inotify: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(inotify, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}

impl Shell {
    /// Events for streams whose directory inotify does not watch; with `listed`, also for other files of theirs.
    pub fn look_at_unwatched(&self, listed: bool) -> Vec<Event> {
        let mut events = Vec::new();
        for stream in self.unwatched.keys().copied() {
            if listed {
                events.push(Event::ChainChanged { stream });
            }
            events.extend([Event::FileGrew { stream }, Event::RotatedGrew { stream }]);
        }
        events
    }

    /// Streams whose directory inotify does not watch, and why.
    pub fn unwatched(&self) -> &BTreeMap<StreamId, Unwatched> {
        &self.unwatched
    }

    pub(super) fn unwatch(&mut self, stream: StreamId) {
        self.unwatched.remove(&stream);
        self.watches.remove(stream);
        self.drop_unused_watches();
    }

    pub(super) fn drop_unused_watches(&mut self) {
        let unused = self.watches.take_unused();
        if let Some(inotify) = &self.inotify {
            for watch in unused {
                let _ = rustix::fs::inotify::remove_watch(inotify, watch);
            }
        }
    }

    pub(super) fn read_inotify(&mut self, pause: Duration) {
        let Some(inotify) = self.inotify_ring.as_ref().map(Rc::clone).filter(|_| !self.stopped) else {
            return;
        };
        let timeout = self.read_timeout;
        self.run(async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            let mut buffer = Vec::with_capacity(INOTIFY_BYTES);
            // Events that are there are read at once: the ring would give the read to a kernel thread. To ask how many bytes
            // there are (FIONREAD) would make the kernel walk all of them.
            let at_once = has_events(&inotify);
            if at_once && let Ok(count) = rustix::io::read(&**inotify, spare_capacity(&mut buffer)) {
                return Done::Inotify(ReadOutcome::Bytes(count), buffer, at_once);
            }
            let (outcome, buffer) = ring::timed_read(&inotify, buffer, timeout).await;
            Done::Inotify(outcome, buffer, at_once)
        });
    }

    pub(super) fn on_inotify(&mut self, outcome: ReadOutcome, buffer: &[u8], at_once: bool) -> Vec<Event> {
        let mut told = Concerned::default();
        match outcome {
            ReadOutcome::Bytes(_) => {
                // If a file is written line by line, one look finds hundreds of equal events.
                let mut written = HashSet::new();
                for event in inotify::events(buffer) {
                    if event.mask != inotify::MODIFY || written.insert((event.watch, event.name)) {
                        self.watches.on_event(&event, &mut told);
                    }
                }
                let look = Look {
                    at_once,
                    with_ease: buffer.len() < INOTIFY_BYTES / 4 * 3,
                    told: &told,
                    now: self.began.elapsed(),
                };
                let pause = self.inotify_pace.after(look);
                self.read_inotify(pause);
            }
            ReadOutcome::TimedOut => self.read_inotify(Duration::ZERO),
            ReadOutcome::End | ReadOutcome::Failed(_) => {
                tracing::error!("inotify failed; files are looked at from time to time instead");
                self.inotify = None;
                self.inotify_ring = None;
                return vec![Event::LookAtAll];
            }
        }
        let mut events = Vec::new();
        let Concerned { all, grew, rotated_grew, changed, renewed, hurried: _, rights, sets, vanished } =
            told;
        if all {
            tracing::warn!("inotify lost events; looking at every file");
            events.push(Event::LookAtAll);
        }
        // Counted before the listing that should show the files is requested.
        events.extend(renewed.into_iter().map(|(stream, files)| Event::LiveMade { stream, files }));
        events.extend(changed.into_iter().map(|stream| Event::ChainChanged { stream }));
        events.extend(rights.into_iter().map(|stream| Event::RightsChanged { stream }));
        // What was written to an older file comes first.
        events.extend(rotated_grew.into_iter().map(|stream| Event::RotatedGrew { stream }));
        events.extend(grew.into_iter().map(|stream| Event::FileGrew { stream }));
        events.extend(sets.into_iter().map(|set| Event::PathsChanged { set }));
        events.extend(vanished.into_iter().map(|(set, name)| Event::FileVanished { set, name, path: None }));
        events
    }
}
