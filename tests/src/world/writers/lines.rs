//! What a container prints, and how the json-file driver writes it: times, pieces, records, rotation.

use capturer::testing::limits::PIECE_BYTES;

use super::super::engine::Printed;
use super::super::shell::Change;
use super::super::{Happening, World};
use super::{RotationStep, json_record};
use crate::checker::LineId;

impl World {
    pub(super) fn pick_channel(&mut self, number: usize) -> usize {
        let stderr = self.containers[number].habits.stderr;
        usize::from(!self.containers[number].tty && self.strikes(stderr))
    }

    pub(super) fn print(&mut self, number: usize) {
        let channel = self.pick_channel(number);
        let habits = &self.containers[number].habits;
        let (long_lines, bursts, floods) = (habits.long_lines, habits.bursts, habits.floods);
        if let Some((line, time_ns)) = self.containers[number].channels[channel].open {
            match self.rand.within(0..4) {
                0 | 1 => self.finish_line(number, channel),
                2 => {
                    let piece = self.filler(PIECE_BYTES);
                    self.checker.extend_line(line, &piece);
                    self.write_piece(number, channel, line, time_ns, piece, false);
                }
                _ => {}
            }
        } else if self.strikes(long_lines) {
            self.open_line(number, channel);
        } else if self.strikes(floods) {
            let lines = self.rand.within(900..1_500);
            (0..lines).for_each(|_| self.print_line(number, channel, 12, true));
        } else if self.strikes(bursts) {
            for _ in 0..self.rand.within(10..80) {
                let channel = self.pick_channel(number);
                if self.containers[number].channels[channel].open.is_none() {
                    let len = *self.rand.pick(&[0, 30, 30, 200]);
                    self.print_line(number, channel, len, true);
                }
            }
        } else {
            let len = *self.rand.pick(&[0, 20, 20, 80, 400, 3_000]);
            self.print_line(number, channel, len, true);
        }
    }

    /// Times of a channel never go back; against the other channel they step back by up to 11 ms, on a busy machine by
    /// most of a second.
    fn next_time(&mut self, number: usize, channel: usize, distinct: bool) -> i64 {
        let equal = self.containers[number].habits.equal_times;
        let (rotations, rotating) = self.rotations_before_next(number);
        let now_us = self.now_us;
        let of_channel = &mut self.containers[number].channels[channel];
        let rotated = std::mem::replace(&mut of_channel.newest_behind, rotations) != rotations || rotating;
        // Within one burst only: else a log that begins between two would tell nobody of the first.
        let in_burst = std::mem::replace(&mut of_channel.newest_at_us, now_us) == now_us;
        let may_equal = !distinct && !rotated && in_burst;
        let step = if may_equal && self.strikes(equal) { 0 } else { self.rand.within(1..5_000) as i64 };
        let behind = self.rand.within(0..self.containers[number].habits.late_ns) as i64;
        let now_ns = self.now_ns();
        let newest = &mut self.containers[number].channels[channel].newest_ns;
        *newest = (*newest + step).max(now_ns - behind);
        *newest
    }

    /// How often the log on disk was rotated, and whether it will be before the next record is written. Records that wait
    /// for a rotation may have to wait for another.
    fn rotations_before_next(&self, number: usize) -> (u64, bool) {
        let Some(chain) = &self.containers[number].chain else { return (0, false) };
        let is_full = |live| self.disk.file(live).content.len() >= chain.max_size;
        (chain.rotations, chain.rotating || chain.live.is_some_and(is_full))
    }

    pub(super) fn print_line(&mut self, number: usize, channel: usize, len: usize, newline: bool) {
        let time_ns = self.next_time(number, channel, len == 0);
        let origin = self.containers[number].origin;
        let index = self.checker.lines_begun(origin, channel);
        let line = self.checker.begin_line(origin, channel, Some(time_ns));
        // Of an empty line within a joined record nothing is known, so that the checker could take it for another.
        let joins = self.settings.pipelines.iter().any(|pipeline| pipeline.multiline.is_some());
        let mut text = if len == 0 && newline && !joins {
            Vec::new()
        } else {
            format!("{origin}.{channel}.{index} ").into_bytes()
        };
        let more = len.saturating_sub(text.len());
        text.extend(self.filler(more));
        if len == 20 && self.settings.line_bytes_max > 1_000 {
            text.extend_from_slice("\"<é\\\t>&".as_bytes());
        }
        self.print_text(number, channel, (line, time_ns), text, newline);
        self.checker.end_line(line);
    }

    /// The end of a line, or all of it. A TTY's has a carriage return, which is a part of the line where the config says so.
    fn print_text(
        &mut self,
        number: usize,
        channel: usize,
        (line, time_ns): (LineId, i64),
        mut text: Vec<u8>,
        newline: bool,
    ) {
        let returns = self.containers[number].tty && newline;
        if !returns || !self.settings.container_monitor.tty.keep_cr {
            self.checker.extend_line(line, &text);
        }
        if returns {
            text.push(b'\r');
        }
        if returns && self.settings.container_monitor.tty.keep_cr {
            self.checker.extend_line(line, &text);
        }
        self.write_piece(number, channel, line, time_ns, text, newline);
    }

    /// The first piece of a long line, whose rest comes later.
    fn open_line(&mut self, number: usize, channel: usize) {
        let time_ns = self.next_time(number, channel, false);
        let origin = self.containers[number].origin;
        let index = self.checker.lines_begun(origin, channel);
        let line = self.checker.begin_line(origin, channel, Some(time_ns));
        let mut text = format!("{origin}.{channel}.{index} ").into_bytes();
        text.extend(self.filler(PIECE_BYTES - text.len()));
        self.checker.extend_line(line, &text);
        self.write_piece(number, channel, line, time_ns, text, false);
        self.containers[number].channels[channel].open = Some((line, time_ns));
    }

    pub(super) fn finish_line(&mut self, number: usize, channel: usize) {
        let Some((line, time_ns)) = self.containers[number].channels[channel].open.take() else { return };
        let len = *self.rand.pick(&[0, 5, 300]);
        let rest = self.filler(len);
        self.print_text(number, channel, (line, time_ns), rest, true);
        self.checker.end_line(line);
    }

    pub(super) fn write_piece(
        &mut self,
        number: usize,
        channel: usize,
        line: LineId,
        time_ns: i64,
        text: Vec<u8>,
        newline: bool,
    ) {
        let container = &self.containers[number];
        let printed = Printed { channel, time_ns, text, newline, line };
        let Some(chain) = &container.chain else { return self.log_to_engine(number, printed) };
        let record = json_record(&printed.text, newline, channel, time_ns, chain.attrs);
        self.write_record(number, record, printed);
    }

    pub(super) fn write_record(&mut self, number: usize, record: Vec<u8>, printed: Printed) {
        let Some(chain) = &mut self.containers[number].chain else { return };
        let size = chain.live.map_or(0, |live| self.disk.file(live).content.len());
        if !chain.rotating && size >= chain.max_size {
            chain.rotating = true;
            self.later(0, Happening::Rotation(number, RotationStep::Rename));
        }
        let Some(chain) = &mut self.containers[number].chain else { return };
        let Some(live) = chain.live.filter(|_| !chain.rotating) else {
            chain.waiting.push_back((record, printed));
            return;
        };
        let path = chain.path("");
        let file = self.disk.file_mut(live);
        file.content.extend_from_slice(&record);
        file.lines.push(printed.line);
        self.notify(&path, Change::Written);
        self.log_to_engine(number, printed);
    }

    pub(super) fn rename_chain(&mut self, number: usize) {
        let Some(chain) = &self.containers[number].chain else { return };
        let max_file = chain.max_file;
        let path = |rank: u32, ending: &str| match rank {
            0 => chain.path(""),
            rank => chain.path(&format!(".{rank}{ending}")),
        };
        let mut steps: Vec<(String, Option<String>)> = Vec::new();
        if max_file == 1 {
            steps.push((path(0, ""), None));
        } else {
            let last = max_file - 1;
            steps.extend(["", ".gz"].map(|ending| (path(last, ending), None)));
            for rank in (1..last).rev() {
                for ending in ["", ".gz"] {
                    steps.push((path(rank, ending), Some(path(rank + 1, ending))));
                }
            }
            steps.push((path(0, ""), Some(path(1, ""))));
        }
        for (from, to) in steps {
            if self.disk.node(&from).is_none() {
                continue;
            }
            let gone = match &to {
                Some(to) => self.disk.rename(&from, to),
                None => self.disk.unlink(&from),
            };
            self.checker.lines_gone(gone);
            self.notify(&from, Change::Gone);
            if let Some(to) = to {
                self.notify(&to, Change::Made);
            }
        }
    }
}
