//! Containers that print numbered lines, and dockerd's json-file driver that writes them: pieces of 16 KiB, rotation by
//! a chain of renames with a moment without the live name, `max-file=1` that unlinks, archives with a new inode.

mod lines;

use std::collections::VecDeque;

use capturer::testing::{FoundPath, StreamKey, timestamp};

use super::disk::{Disk, Node};
use super::engine::Printed;
use super::shell::Change;
use super::{Happening, World};
use crate::checker::LineId;

/// One container.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) origin: u32,
    pub(super) tty: bool,
    pub(super) running: bool,
    dying: bool,
    pub(super) started_once: bool,
    pub(super) removed: bool,
    pub(super) exited_at_ns: Option<i64>,
    channels: [Channel; 2],
    /// On disk: driver json-file; else the Engine keeps it.
    pub(super) chain: Option<LogFile>,
    pub(super) log: super::engine::Log,
    habits: Habits,
}

#[derive(Debug, Default)]
struct Channel {
    newest_ns: i64,
    /// Rotations before its newest line.
    newest_behind: u64,
    /// When that was printed.
    newest_at_us: u64,
    /// A long line of which only pieces were written.
    open: Option<(LineId, i64)>,
}

/// How a container behaves.
#[derive(Debug)]
struct Habits {
    pause_us: u64,
    long_lines: u64,
    bursts: u64,
    floods: u64,
    exits: u64,
    equal_times: u64,
    late_ns: u64,
    stderr: u64,
}

/// Its log on disk.
#[derive(Debug)]
pub(super) struct LogFile {
    pub(super) directory: String,
    pub(super) live_name: String,
    live: Option<Node>,
    max_size: usize,
    max_file: u32,
    compress: bool,
    attrs: bool,
    rotating: bool,
    compressing: bool,
    /// Records printed while the live name is away.
    waiting: VecDeque<(Vec<u8>, Printed)>,
    /// How often it was rotated.
    pub(super) rotations: u64,
}

/// What a rotation does, one step after the other.
#[derive(Clone, Copy, Debug)]
pub(super) enum RotationStep {
    Rename,
    Create,
    Compress,
    Compressed,
}

impl LogFile {
    pub(super) fn path(&self, ending: &str) -> String {
        format!("{}/{}{ending}", self.directory, self.live_name)
    }
}

impl Container {
    /// For people, after a failure.
    pub(super) fn describe(&self, disk: &Disk) -> String {
        let running = if self.running { "runs" } else { "does not run" };
        let log = self.chain.as_ref().map(|chain| {
            let size = chain.live.map(|live| disk.file(live).content.len());
            format!(
                "live {size:?}, {} records wait, max {} × {}",
                chain.waiting.len(),
                chain.max_size,
                chain.max_file
            )
        });
        format!(
            "{} {} {running}, removed {}, tty {}, log on disk {log:?}",
            self.id, self.name, self.removed, self.tty
        )
    }

    /// Its log begins anew: what it prints next bears other times than what went.
    pub(super) fn step_times(&mut self) {
        self.channels.iter_mut().for_each(|channel| channel.newest_ns += 1);
    }
}

impl World {
    pub(super) fn make_container(&mut self) {
        let number = self.containers.len();
        let id = format!("{:064x}", self.rand.number());
        let origin = self.checker.add_origin(StreamKey::container(&id));
        let json_file = self.rand.chance(3, 4);
        let mut chain = None;
        if json_file {
            let directory = format!("/docker/{id}");
            let live_name = format!("{id}-json.log");
            let denied = self.rand.chance(1, 12);
            if denied {
                self.engine.denied.insert(directory.clone());
            }
            let log_file = LogFile {
                directory,
                live_name,
                live: None,
                max_size: *self.rand.pick(&[usize::MAX, 40_000, 8_000, 2_000]),
                max_file: *self.rand.pick(&[1, 2, 3, 5]),
                compress: self.rand.chance(1, 3),
                attrs: self.rand.chance(1, 5),
                rotating: false,
                compressing: false,
                waiting: VecDeque::new(),
                rotations: 0,
            };
            chain = Some(log_file).filter(|_| !denied);
            if chain.is_none() {
                // The driver is json-file all the same; only the agent can't read it.
                self.engine.json_file_only_by_api.insert(id.clone());
            }
        }
        let retain = *self.rand.pick(&[usize::MAX, 5_000, 400]);
        let habits = Habits {
            pause_us: *self.rand.pick(&[20_000, 80_000, 400_000, 3_000_000]),
            long_lines: *self.rand.pick(&[0, 0, 20, 200]),
            bursts: *self.rand.pick(&[0, 20, 100]),
            floods: if chain.is_none() { *self.rand.pick(&[0, 0, 3]) } else { 0 },
            exits: *self.rand.pick(&[0, 5, 50]),
            equal_times: *self.rand.pick(&[0, 100, 700]),
            late_ns: *self.rand.pick(&[11_000_000, 11_000_000, 800_000_000]),
            stderr: *self.rand.pick(&[0, 200, 500]),
        };
        let name = format!("web-{}", self.rand.within(0..4) + 10 * number as u64 % 20);
        let container = Container {
            id,
            name,
            origin,
            tty: chain.is_none() && self.rand.chance(1, 5),
            running: false,
            dying: false,
            started_once: false,
            removed: false,
            exited_at_ns: None,
            channels: Default::default(),
            chain,
            log: super::engine::Log::new(retain),
            habits,
        };
        self.containers.push(container);
        self.tell_event(number, "create");
        let delay = self.delay(1_000_000, 5_000_000);
        self.later(delay, Happening::Container(number));
    }

    /// The next thing a container does.
    pub(super) fn step_container(&mut self, number: usize) {
        let container = &self.containers[number];
        if container.removed || (self.quiet && !container.dying) {
            return;
        }
        let exits = container.habits.exits;
        if container.dying {
            self.die(number);
        } else if !container.running {
            match self.rand.within(0..10) {
                0 if container.started_once => return self.remove(number),
                1..5 => self.start_container(number),
                _ => {}
            }
        } else if self.strikes(exits) {
            self.exit(number);
        } else if self.strikes(10) {
            self.rename_container(number);
        } else {
            self.print(number);
        }
        let pause = self.containers[number].habits.pause_us;
        let pause = self.rand.within(1..2 * pause);
        self.later(pause, Happening::Container(number));
    }

    fn start_container(&mut self, number: usize) {
        let now_ns = self.now_ns();
        let container = &mut self.containers[number];
        container.running = true;
        container.started_once = true;
        if let Some(chain) = &mut container.chain
            && chain.live.is_none()
            && !chain.rotating
        {
            let path = chain.path("");
            self.disk.make_directory(&chain.directory);
            chain.live = Some(self.disk.create(&path, now_ns));
            self.notify(&path, Change::Made);
        }
        self.tell_event(number, "start");
    }

    fn exit(&mut self, number: usize) {
        // Of a TTY the Engine sends bare bytes: a line without newline and the next one can't be told apart.
        let tty = self.containers[number].tty;
        for channel in 0..2 {
            let Some((line, time_ns)) = self.containers[number].channels[channel].open.take() else {
                continue;
            };
            if !tty && self.rand.chance(1, 2) {
                // The rest it had in its buffer, without a newline.
                let rest = self.filler(20);
                self.checker.extend_line(line, &rest);
                self.write_piece(number, channel, line, time_ns, rest, false);
            }
            self.checker.end_line(line);
            // A piece of the same time would belong to it.
            self.containers[number].channels[channel].newest_ns += 1;
        }
        if !tty && self.rand.chance(1, 4) {
            let channel = self.pick_channel(number);
            self.print_line(number, channel, 30, false);
        }
        self.containers[number].dying = true;
        self.die(number);
    }

    /// The second half of an exit: dockerd tells of it when the log is written.
    fn die(&mut self, number: usize) {
        let unwritten = self.containers[number].chain.as_ref().is_some_and(|chain| !chain.waiting.is_empty());
        if unwritten {
            return;
        }
        let now_ns = self.now_ns();
        let container = &mut self.containers[number];
        container.dying = false;
        container.running = false;
        // Nothing of the next life is as old as that.
        let newest =
            container.channels.iter().map(|channel| channel.newest_ns).max().unwrap_or(0).max(now_ns);
        container.exited_at_ns = Some(newest);
        container.channels.iter_mut().for_each(|channel| channel.newest_ns = newest + 1);
        self.end_follows(number);
        self.tell_event(number, "die");
    }

    fn remove(&mut self, number: usize) {
        let container = &mut self.containers[number];
        container.removed = true;
        let entries = container.log.clear();
        if container.chain.is_none() {
            self.checker.lines_gone(entries);
        }
        if let Some(chain) = &mut container.chain {
            let waiting: Vec<LineId> = chain.waiting.drain(..).map(|(_, printed)| printed.line).collect();
            chain.live = None;
            let directory = chain.directory.clone();
            let files = self.disk.matching(&directory, "");
            self.checker.lines_gone(waiting);
            for FoundPath { path, .. } in files {
                let gone = self.disk.unlink(&path);
                self.checker.lines_gone(gone);
                self.notify(&path, Change::Gone);
            }
            self.disk.remove_directory(&directory);
            self.notify_directory_gone(&directory);
        }
        self.tell_event(number, "destroy");
        if self.containers.len() < 12 {
            self.make_container();
        }
    }

    fn rename_container(&mut self, number: usize) {
        self.containers[number].name = format!("web-{}", self.rand.within(0..30));
        self.tell_event(number, "rename");
    }

    /// All open lines get their ends.
    pub(super) fn finish_lines(&mut self, number: usize) {
        for channel in 0..2 {
            self.finish_line(number, channel);
        }
        if self.containers[number].dying {
            self.later(5_000_000, Happening::Container(number));
        }
    }

    /// Text that shows what is cut or glued: no stretch of it looks like another.
    pub(super) fn filler(&mut self, len: usize) -> Vec<u8> {
        let mut text = Vec::with_capacity(len + 8);
        let mut number = self.rand.number();
        while text.len() < len {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            text.extend((0..8).map(|at| b'a' + (number >> (24 + 5 * at)) as u8 % 26));
        }
        text.truncate(len);
        text
    }

    pub(super) fn step_rotation(&mut self, number: usize, step: RotationStep) {
        let now_ns = self.now_ns();
        if self.containers[number].removed {
            return;
        }
        let Some(chain) = &mut self.containers[number].chain else { return };
        match step {
            RotationStep::Rename if chain.compressing => {
                // dockerd waits for the archive of the last rotation.
                self.later(1_000, Happening::Rotation(number, step));
            }
            RotationStep::Rename => {
                chain.live = None;
                chain.rotations += 1;
                let oldest = (chain.rotations + 1).saturating_sub(u64::from(chain.max_file));
                self.rename_chain(number);
                self.rotate_below_engine(number, oldest);
                let delay = self.delay(1_000, 20_000);
                self.later(delay, Happening::Rotation(number, RotationStep::Create));
            }
            RotationStep::Create => {
                let path = chain.path("");
                chain.live = Some(self.disk.create(&path, now_ns));
                chain.rotating = false;
                let compress = chain.compress && chain.max_file > 1;
                chain.compressing = compress;
                let waiting: Vec<_> = chain.waiting.drain(..).collect();
                self.notify(&path, Change::Made);
                if compress {
                    let delay = self.delay(20_000, 500_000);
                    self.later(delay, Happening::Rotation(number, RotationStep::Compress));
                }
                for (record, printed) in waiting {
                    self.write_record(number, record, printed);
                }
            }
            RotationStep::Compress => {
                let (from, archive) = (chain.path(".1"), chain.path(".1.gz"));
                if let Some(node) = self.disk.node(&from) {
                    self.disk.create_archive(node, &archive, now_ns);
                    self.notify(&archive, Change::Made);
                }
                let delay = self.delay(1_000, 20_000);
                self.later(delay, Happening::Rotation(number, RotationStep::Compressed));
            }
            RotationStep::Compressed => {
                chain.compressing = false;
                let from = chain.path(".1");
                let gone = self.disk.unlink(&from);
                self.checker.lines_gone(gone);
                self.notify(&from, Change::Gone);
            }
        }
    }
}

/// As dockerd writes it.
pub(super) fn json_record(text: &[u8], newline: bool, channel: usize, time_ns: i64, attrs: bool) -> Vec<u8> {
    let mut record = b"{".to_vec();
    if !text.is_empty() || newline {
        record.extend_from_slice(b"\"log\":\"");
        for byte in text {
            match byte {
                b'"' => record.extend_from_slice(b"\\\""),
                b'\\' => record.extend_from_slice(b"\\\\"),
                b'\t' => record.extend_from_slice(b"\\t"),
                b'\r' => record.extend_from_slice(b"\\r"),
                b'<' => record.extend_from_slice(b"\\u003c"),
                b'>' => record.extend_from_slice(b"\\u003e"),
                b'&' => record.extend_from_slice(b"\\u0026"),
                byte => record.push(*byte),
            }
        }
        record.extend_from_slice(if newline { b"\\n\"," } else { b"\"," });
    }
    let channel = ["stdout", "stderr"][channel];
    let attrs = if attrs { "\"attrs\":{\"shop\":\"\\\"1\\\"\"}," } else { "" };
    // Go's RFC3339Nano leaves zeros at the end out.
    let time = timestamp::format(time_ns);
    let time = time.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
    record.extend_from_slice(format!("\"stream\":\"{channel}\",{attrs}\"time\":\"{time}Z\"}}\n").as_bytes());
    record
}

/// A line, or a part of one, as a container runtime writes it for Kubernetes.
pub(super) fn cri_record(text: &[u8], whole: bool, channel: usize, time_ns: i64) -> Vec<u8> {
    let (channel, tag) = (["stdout", "stderr"][channel], if whole { "F" } else { "P" });
    let mut record = format!("{} {channel} {tag} ", timestamp::format(time_ns)).into_bytes();
    record.extend_from_slice(text);
    record.push(b'\n');
    record
}
