//! Followed paths (`file_monitor`): programs that write log files of their own, rotated by renaming or by copying and
//! truncating, removed and made again.
//!
//! Not simulated: a file that is truncated and has grown past its old length before anybody looked. No reader can tell
//! that from growth, so after a truncation the writer pauses.

use capturer::testing::{Cursor, FileFormat, StreamKey};

use super::disk::Node;
use super::shell::Change;
use super::writers::{cri_record, json_record};
use super::{Happening, World};
use crate::checker::LineId;

/// After a truncation nothing is written for so long.
const TRUNCATED_PAUSE_US: u64 = 20_000_000;

/// One path and who writes it.
#[derive(Debug)]
pub(super) struct FollowedPath {
    path: String,
    origin: u32,
    /// What it is, never `Auto`.
    format: FileFormat,
    rotation: Rotation,
    /// What the writer has open.
    node: Option<Node>,
    /// A line written in part, and its channel.
    part: Option<(LineId, usize)>,
    newest_ns: i64,
    quiet_until_us: u64,
    pause_us: u64,
    rotates_at_us: u64,
    rotating: bool,
    /// It was rotated before anybody followed it: what its writer still adds is not asked for either.
    forgiven: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rotation {
    Never,
    Rename,
    CopyTruncate,
    Remove,
}

/// Rotated files kept.
const KEPT: u32 = 3;

impl World {
    pub(super) fn make_path(&mut self, set: usize) {
        self.disk.make_directory(&format!("/logs/{set}"));
        for name in 0..self.rand.within(1..4) {
            let path = format!("/logs/{set}/app{name}.log");
            let origin = self.checker.add_origin(StreamKey::file(&path));
            let format = match self.settings.file_monitor.files[set].format {
                FileFormat::Auto => *self.rand.pick(&[FileFormat::Raw, FileFormat::Docker, FileFormat::Cri]),
                format => format,
            };
            // Without birth times a truncated file can't be told from another one with its inode's number.
            let copies = if self.disk.no_birth_times { Rotation::Rename } else { Rotation::CopyTruncate };
            let rotations = [Rotation::Never, Rotation::Rename, Rotation::Rename, copies, Rotation::Remove];
            let followed = FollowedPath {
                path,
                origin,
                format,
                rotation: *self.rand.pick(&rotations),
                node: None,
                part: None,
                newest_ns: 0,
                quiet_until_us: 0,
                pause_us: *self.rand.pick(&[30_000, 200_000, 1_000_000]),
                rotates_at_us: self.rand.within(1_000_000..20_000_000),
                rotating: false,
                forgiven: false,
            };
            self.paths.push(followed);
            let delay = self.delay(2_000_000, 10_000_000);
            self.later(delay, Happening::Path(self.paths.len() - 1));
        }
    }

    pub(super) fn step_path(&mut self, number: usize) {
        if self.quiet {
            return;
        }
        let path = &self.paths[number];
        if self.now_us >= path.quiet_until_us {
            let rotates =
                path.rotation != Rotation::Never && !path.rotating && self.now_us >= path.rotates_at_us;
            if path.node.is_none() {
                self.create_path(number);
            } else if rotates {
                self.paths[number].rotates_at_us = self.now_us + self.rand.within(200_000..20_000_000);
                self.rotate_path(number);
            } else {
                for _ in 0..*self.rand.pick(&[1, 1, 1, 5, 20]) {
                    self.write_path(number);
                }
            }
        }
        let pause = self.paths[number].pause_us;
        let pause = self.rand.within(1..2 * pause);
        self.later(pause, Happening::Path(number));
    }

    /// Its writer opens it.
    fn create_path(&mut self, number: usize) {
        let node = self.make_live(number);
        self.paths[number].node = Some(node);
    }

    fn make_live(&mut self, number: usize) -> Node {
        let path = self.paths[number].path.clone();
        self.disk.node(&path).unwrap_or_else(|| {
            let node = self.disk.create(&path, self.now_ns());
            self.notify(&path, Change::Made);
            node
        })
    }

    fn write_path(&mut self, number: usize) {
        let (origin, format) = (self.paths[number].origin, self.paths[number].format);
        let records = format != FileFormat::Raw;
        let mut channel = usize::from(records && self.rand.chance(1, 4));
        if let Some((_, open)) = self.paths[number].part {
            // The other channel may go on meanwhile.
            if !records || self.rand.chance(2, 3) {
                return self.finish_path(number);
            }
            channel = 1 - open;
        }
        let time_ns = records.then(|| self.next_path_ns(number));
        let index = self.checker.lines_begun(origin, channel);
        let line = self.checker.begin_line(origin, channel, time_ns);
        let mut text = format!("{origin}.{channel}.{index} ").into_bytes();
        match self.rand.within(0..10) {
            // Not the first line: an empty one would not tell the format. And one without a time only where nothing gets
            // lost, for it looks like any other.
            0 if index > 0 && (records || self.paths[number].rotation == Rotation::Never) => text.clear(),
            1 => text.extend(self.filler(400)),
            _ => text.extend(self.filler(20)),
        }
        self.checker.extend_line(line, &text);
        let in_part =
            format != FileFormat::Docker && self.paths[number].part.is_none() && self.rand.chance(1, 10);
        if in_part {
            self.paths[number].part = Some((line, channel));
        } else {
            self.checker.end_line(line);
        }
        let bytes = match (format, time_ns) {
            (FileFormat::Docker, Some(time_ns)) => json_record(&text, true, channel, time_ns, false),
            (FileFormat::Cri, Some(time_ns)) => cri_record(&text, !in_part, channel, time_ns),
            _ if in_part => text,
            _ => [&text[..], b"\n"].concat(),
        };
        self.append(number, &bytes, line);
    }

    fn next_path_ns(&mut self, number: usize) -> i64 {
        let step = self.rand.within(1..1_000_000) as i64;
        let next = (self.paths[number].newest_ns + step).max(self.now_ns());
        self.paths[number].newest_ns = next;
        next
    }

    /// The rest of a line of which a part was written.
    pub(super) fn finish_path(&mut self, number: usize) {
        let Some((line, channel)) = self.paths[number].part.take() else { return };
        let mut rest = self.filler(10);
        self.checker.extend_line(line, &rest);
        self.checker.end_line(line);
        let bytes = if self.paths[number].format == FileFormat::Cri {
            let time_ns = self.next_path_ns(number);
            cri_record(&rest, true, channel, time_ns)
        } else {
            rest.push(b'\n');
            rest
        };
        self.append(number, &bytes, line);
    }

    fn append(&mut self, number: usize, bytes: &[u8], line: LineId) {
        let Some(node) = self.paths[number].node else { return };
        let file = self.disk.file_mut(node);
        file.content.extend_from_slice(bytes);
        file.lines.push(line);
        if self.paths[number].forgiven {
            self.checker.lines_gone([line]);
        }
        if self.paths[number].rotating {
            self.checker.line_is_late(line);
        }
        if let Some(path) = self.disk.path(node) {
            self.notify(&path, Change::Written);
        }
    }

    fn rotate_path(&mut self, number: usize) {
        self.finish_path(number);
        let path = self.paths[number].path.clone();
        match self.paths[number].rotation {
            Rotation::Never => {}
            Rotation::Rename => {
                self.paths[number].forgiven = !self.is_followed(&path);
                if self.paths[number].forgiven {
                    self.forgive_node(&path);
                }
                self.shift_path(&path);
                let gone = self.disk.rename(&path, &format!("{path}.1"));
                self.checker.lines_gone(gone);
                self.notify(&path, Change::Gone);
                self.notify(&format!("{path}.1"), Change::Made);
                // After a kill, or without birth times, lines of such a file may come twice (docs/files.md).
                let is_sure = self.faults.crashes == 0 && !self.disk.no_birth_times;
                if self.faults.denies_rotated && is_sure && self.now_us.is_multiple_of(2) {
                    self.deny(&format!("{path}.1"));
                }
                self.paths[number].rotating = true;
                if self.rand.chance(1, 2) {
                    self.make_live(number);
                }
                // The writer goes on in the renamed file until it is told.
                let delay = self.delay(20_000, 3_000_000);
                self.later(delay, Happening::PathRotated(number));
            }
            Rotation::CopyTruncate => {
                let Some(node) = self.paths[number].node else { return };
                self.shift_path(&path);
                let copy = self.disk.create(&format!("{path}.1"), self.now_ns());
                self.disk.file_mut(copy).content = self.disk.file(node).content.clone();
                self.notify(&format!("{path}.1"), Change::Made);
                let gone = self.disk.truncate(node);
                self.checker.lines_gone(gone);
                self.notify(&path, Change::Written);
                self.paths[number].quiet_until_us = self.now_us + TRUNCATED_PAUSE_US;
            }
            Rotation::Remove => {
                let gone = self.disk.unlink(&path);
                self.checker.lines_gone(gone);
                self.notify(&path, Change::Gone);
                self.paths[number].node = None;
                self.paths[number].quiet_until_us = self.now_us + self.rand.within(0..40_000_000);
            }
        }
    }

    /// What is not read of it yet comes later than newer lines.
    fn deny(&mut self, path: &str) {
        let Some(node) = self.disk.node(path) else { return };
        self.disk.denied.insert(node);
        let lines = self.disk.file(node).lines.clone();
        lines.into_iter().for_each(|line| self.checker.line_is_late(line));
        let delay = 1_000_000 + self.now_us % 20_000_000;
        self.later(delay, Happening::Readable(node));
    }

    /// Its rights were given back.
    pub(super) fn readable(&mut self, node: Node) {
        self.disk.denied.remove(&node);
        if let Some(path) = self.disk.path(node) {
            self.notify(&path, Change::Rights);
        }
    }

    /// A path that was never read begins with its live file: what was rotated before is not asked for.
    fn is_followed(&self, path: &str) -> bool {
        self.was_read(path) || self.run.as_ref().is_some_and(|run| run.watches(path))
    }

    /// A saved position points into it.
    fn was_read(&self, path: &str) -> bool {
        let entry = self.saved.0.streams.get(&StreamKey::file(path));
        entry.and_then(|entry| entry.lowest()).is_some_and(|sink| matches!(sink.cursor, Cursor::File(_)))
    }

    fn forgive_node(&mut self, path: &str) {
        if let Some(node) = self.disk.node(path) {
            let lines = self.disk.file(node).lines.clone();
            self.checker.lines_gone(lines);
        }
    }

    /// The saved position names a file of which nothing was read, by a number that another one may have by now: one that was
    /// rotated while it was empty, and was written to since, is not known by it.
    fn has_number_alone(&self, path: &str) -> bool {
        let entry = self.saved.0.streams.get(&StreamKey::file(path));
        let cursor = entry.and_then(|entry| entry.lowest()).map(|sink| &sink.cursor);
        matches!(cursor, Some(Cursor::File(cursor)) if cursor.says_nothing())
    }

    /// An agent starts: of paths without a saved position it reads only the live file.
    pub(super) fn forgive_rotated_paths(&mut self) {
        for number in 0..self.paths.len() {
            let path = self.paths[number].path.clone();
            if !self.was_read(&path) || self.has_number_alone(&path) {
                self.paths[number].forgiven |= self.paths[number].rotating;
                (1..=KEPT).for_each(|rank| self.forgive_node(&format!("{path}.{rank}")));
            }
        }
    }

    fn shift_path(&mut self, path: &str) {
        let last = format!("{path}.{KEPT}");
        if self.disk.node(&last).is_some() {
            let gone = self.disk.unlink(&last);
            self.checker.lines_gone(gone);
            self.notify(&last, Change::Gone);
        }
        for rank in (1..KEPT).rev() {
            let (from, to) = (format!("{path}.{rank}"), format!("{path}.{}", rank + 1));
            if self.disk.node(&from).is_some() {
                let gone = self.disk.rename(&from, &to);
                self.checker.lines_gone(gone);
                self.notify(&from, Change::Gone);
                self.notify(&to, Change::Made);
            }
        }
    }

    /// The writer was told of the rotation and makes its new file.
    pub(super) fn finish_path_rotation(&mut self, number: usize) {
        self.finish_path(number);
        self.paths[number].rotating = false;
        self.paths[number].node = None;
        self.paths[number].forgiven = false;
        self.create_path(number);
    }
}
