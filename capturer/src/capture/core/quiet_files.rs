//! Closes quiet files and gives their places to those that wait. `capture/open_files.rs` knows which one is next.

use super::Capture;
use crate::capture::context::Timer;
use crate::capture::stream::{Kind, Stream};
use crate::model::clock::Now;

impl Capture {
    /// At most this many followed files may be open, whatever the config allows.
    pub fn limit_open_files(&mut self, most: usize) {
        self.shared.open_files.set_most(most);
    }

    /// This many files wait for a descriptor.
    pub(super) fn on_descriptors_ran_out(&mut self, now: Now, files: usize) {
        self.shared.open_files.make_room(files, now.mono_ms);
        for id in self.shared.open_files.holders() {
            self.with_file(now, id, |file, cx, _| file.give_back(cx));
        }
    }

    /// Closes quiet files and gives their places to those that wait.
    pub(super) fn share_open_files(&mut self, now: Now) {
        loop {
            if let Some(id) = self.shared.open_files.next_in_line(now.mono_ms) {
                self.with_file(now, id, |file, cx, _| file.open_at_last(cx));
            } else if let Some(id) = self.shared.open_files.next_quiet(now.mono_ms) {
                self.with_file(now, id, |file, cx, _| file.close_quiet(cx));
            } else {
                break;
            }
        }
        self.shared.open_files.made_room();
        if let Some(due_ms) = self.shared.open_files.due_ms() {
            self.shared.timers.set_earlier(Timer::OpenFiles, due_ms);
        }
    }
}

/// How many files the stream has open, whether it is quiet, and whether it wants another place.
pub(super) fn standing(stream: &Stream) -> (usize, bool, bool) {
    match &stream.kind {
        Kind::File(file) => (file.files_open(), file.is_quiet(), file.wants_to_open()),
        Kind::Api(_) => (0, false, false),
    }
}
