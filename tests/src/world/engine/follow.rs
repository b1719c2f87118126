//! A connection that follows a log: it sends the entries from a time on, then new ones, in frames that arrive in any
//! parts; and its faults.

use std::collections::VecDeque;

use bytes::{Buf as _, Bytes};
use capturer::testing::limits::{API_GATHER_BYTES, PIECE_BYTES};
use capturer::testing::{BodyOutcome, ConnId, Event, stdcopy, timestamp};

use super::super::{Happening, World};
use super::{Conn, ConnState, Entry, Health, Printed};
use crate::checker::LineId;

impl World {
    pub(super) fn followers(&self, number: usize) -> Vec<(u64, i64)> {
        let conns = self.run.iter().flat_map(|run| run.conns.values());
        let follows = |conn: &Conn| match conn.logs {
            Some((of, since)) if of == number && conn.follow && conn.end.is_none() => {
                Some((conn.id.0, since))
            }
            _ => None,
        };
        conns.filter_map(follows).collect()
    }

    /// The oldest entries go. Followers may lose what they had not been sent, or are sent lines again.
    pub(super) fn rotate_engine_log(&mut self, number: usize, followers: &[(u64, i64)]) {
        let log = &mut self.containers[number].log;
        let mut count = log.entries.len() / 3;
        while cuts_equal_times(&log.entries, count) {
            count += 1;
        }
        log.dropped += count as u64;
        let gone: Vec<LineId> = log.entries.drain(..count).map(|entry| entry.line).collect();
        self.containers[number].step_times();
        self.checker.lines_gone(gone);
        for (conn, since) in followers {
            if self.strikes(self.faults.early_ends) {
                self.end_early(*conn);
            } else if self.strikes(self.faults.resends) {
                self.send_again(*conn, number, *since);
            }
        }
    }

    /// What was not sent yet is skipped, and nothing shows it.
    pub(super) fn skip(&mut self, conn: u64) {
        let Some(conn) = self.run.as_mut().and_then(|run| run.conns.get_mut(&conn)) else { return };
        // The first frame may have been taken in part.
        conn.frames.truncate(1);
    }

    /// A clean end, with the newest lines missing.
    pub(super) fn end_early(&mut self, conn: u64) {
        let missing = self.rand.index(0..50);
        let Some(conn_mut) = self.run.as_mut().and_then(|run| run.conns.get_mut(&conn)) else { return };
        // The first frame may have been taken in part: it comes whole.
        let keep = conn_mut.frames.len().saturating_sub(missing).max(1);
        conn_mut.frames.truncate(keep);
        conn_mut.end = Some(BodyOutcome::End);
        self.wake_later(conn);
    }

    pub(super) fn send_again(&mut self, conn: u64, number: usize, since: i64) {
        let container = &self.containers[number];
        let entries = &container.log.entries;
        let begun = self.run.as_ref().and_then(|run| run.conns.get(&conn)).map_or(0, |conn| conn.first);
        let begun = begun.saturating_sub(container.log.dropped) as usize;
        let from = entries.len().saturating_sub(self.rand.index(1..1_300)).max(begun);
        let is_open = StdOpen::of(entries.iter()).any();
        let Some(from) = (from..entries.len()).find(|at| is_clean_cut(entries, *at)).filter(|_| !is_open)
        else {
            return;
        };
        let again = entries.iter().skip(from).filter(|entry| entry.time_ns >= since);
        let newest_alone = (0..2).any(|channel| {
            let mut times = again.clone().filter(|entry| entry.channel == channel).map(|entry| entry.time_ns);
            times.next().is_some_and(|first| times.next_back().unwrap_or(first) == first)
        });
        if newest_alone {
            return;
        }
        let frames: Vec<Bytes> = again.map(|entry| entry.frame.clone()).collect();
        for frame in frames {
            self.push_frame(conn, frame);
        }
    }

    pub(super) fn begin_logs(&mut self, conn: ConnId, number: usize, query: &str) {
        let value = |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        let follow = value("follow") == Some("1");
        let since = value("since").map_or(0, parse_since);
        let tail = value("tail").map_or(usize::MAX, |tail| tail.parse().expect("tail is a number"));
        let cut_short = self.strikes(self.faults.early_ends / 4);
        let missing = if cut_short { self.rand.index(0..200) } else { 0 };
        let breaks = self.strikes(self.faults.breaks);
        let container = &self.containers[number];
        let entries = &container.log.entries;
        let mut cut = entries.len().saturating_sub(tail);
        while cut > 0 && cuts_equal_times(entries, cut) {
            cut -= 1;
        }
        let first = container.log.dropped + cut as u64;
        let chosen = entries.iter().skip(cut).filter(|entry| entry.time_ns >= since);
        let mut frames: VecDeque<Bytes> = chosen.map(|entry| entry.frame.clone()).collect();
        let ends = !follow || !container.running;
        if follow && cut_short {
            frames.truncate(frames.len().saturating_sub(missing));
        }
        let Some(conn) = self.run.as_mut().and_then(|run| run.conns.get_mut(&conn.0)) else { return };
        conn.logs = Some((number, since));
        conn.first = first;
        conn.frames = frames;
        if breaks {
            conn.end = Some(BodyOutcome::Broken("connection reset".to_owned()));
        } else if ends || (follow && cut_short) {
            conn.end = Some(BodyOutcome::End);
        }
    }

    pub(super) fn push_frame(&mut self, conn: u64, mut bytes: Bytes) {
        let (breaks, errors) = (self.strikes(self.faults.breaks / 4), self.strikes(self.faults.error_frames));
        let stalls = self.strikes(self.faults.stalls);
        let cut = self.rand.index(0..bytes.len());
        let Some(conn_mut) = self.run.as_mut().and_then(|run| run.conns.get_mut(&conn)) else { return };
        if conn_mut.end.is_some() || conn_mut.stalled {
            return;
        }
        let is_logs = conn_mut.logs.is_some();
        if stalls && is_logs {
            conn_mut.stalled = true;
            return;
        }
        if breaks {
            bytes.truncate(cut);
            conn_mut.end = Some(BodyOutcome::Broken("connection reset".to_owned()));
        }
        conn_mut.frames.push_back(bytes);
        let tty = conn_mut.logs.is_some_and(|(number, _)| self.containers[number].tty);
        if errors && is_logs && !tty && !breaks {
            let error = stdcopy::encode(3, b"error grabbing logs: unexpected EOF\n");
            conn_mut.frames.push_back(error.into());
            conn_mut.end = Some(BodyOutcome::End);
        }
        self.wake_later(conn);
    }

    pub(super) fn wake_later(&mut self, conn: u64) {
        let Some(run) = self.run.as_ref().map(|run| run.number) else { return };
        let delay = self.delay(300, self.faults.engine_slow_us / 10);
        self.later(delay, Happening::ConnWake { run, conn });
    }

    pub(in crate::world) fn on_close_conn(&mut self, conn: ConnId) {
        let Some(run) = &mut self.run else { return };
        assert!(
            run.conns.remove(&conn.0).is_some(),
            "invariant broken: no_action_for_the_unknown: closing {conn:?}"
        );
        let number = run.number;
        let delay = self.delay(300, self.faults.engine_slow_us / 4);
        self.later(delay, Happening::Deliver { run: number, event: Box::new(Event::ConnClosed { conn }) });
    }

    pub(in crate::world) fn wake_conn(&mut self, conn: u64) {
        let frozen = matches!(self.engine.health, Health::Frozen(_));
        let race = self.strikes(self.faults.timer_races);
        let most = if self.faults.splits { self.rand.index(1..2_000) } else { API_GATHER_BYTES };
        let now_us = self.now_us;
        let Some(conn) = self.run.as_mut().and_then(|run| run.conns.get_mut(&conn)) else { return };
        let ConnState::Reading { buffer, deadline_us } = &mut conn.state else { return };
        let outcome = if race || (now_us >= *deadline_us && (frozen || conn.frames.is_empty())) {
            BodyOutcome::TimedOut
        } else if frozen {
            return;
        } else if !conn.frames.is_empty() {
            let mut room = most;
            while room > 0
                && let Some(front) = conn.frames.front_mut()
            {
                let len = front.len().min(room);
                buffer.extend_from_slice(&front[..len]);
                room -= len;
                if len == front.len() {
                    conn.frames.pop_front();
                } else {
                    front.advance(len);
                }
            }
            BodyOutcome::Bytes
        } else if let Some(end) = &conn.end {
            end.clone()
        } else {
            return;
        };
        let (id, buffer) = (conn.id, std::mem::take(buffer));
        conn.state = ConnState::Idle;
        let event = Event::ConnRead { conn: id, outcome, buffer };
        self.note(|| super::super::shell::brief_event(&event));
        self.deliver(event);
    }
}

/// Which channels end within a line.
#[derive(Default)]
struct StdOpen([bool; 2]);

impl StdOpen {
    fn of<'a>(entries: impl Iterator<Item = &'a Entry>) -> StdOpen {
        let mut open = StdOpen::default();
        for entry in entries {
            open.0[entry.channel] = !entry.newline && entry.text_len >= PIECE_BYTES;
        }
        open
    }

    fn any(&self) -> bool {
        self.0[0] || self.0[1]
    }
}

/// Neither a line nor lines of equal time are cut before this entry.
fn is_clean_cut(entries: &VecDeque<Entry>, at: usize) -> bool {
    let behind = |channel| entries.iter().skip(at).find(|entry| entry.channel == channel);
    !cuts_equal_times(entries, at) && (0..2).all(|channel| behind(channel).is_none_or(|behind| behind.begins))
}

/// Lines of one channel that have equal times stand before this entry and from it on.
fn cuts_equal_times(entries: &VecDeque<Entry>, at: usize) -> bool {
    (0..2).any(|channel| {
        let before = entries.iter().take(at).rfind(|entry| entry.channel == channel);
        let behind = entries.iter().skip(at).find(|entry| entry.channel == channel);
        before.zip(behind).is_some_and(|(before, behind)| behind.begins && before.time_ns == behind.time_ns)
    })
}

/// A piece of a line as the Engine sends it.
pub(super) fn frame(printed: &Printed, tty: bool) -> Bytes {
    let mut payload = timestamp::format(printed.time_ns).into_bytes();
    payload.push(b' ');
    payload.extend_from_slice(&printed.text);
    if printed.newline {
        payload.push(b'\n');
    }
    if tty { payload.into() } else { stdcopy::encode(printed.channel as u8 + 1, &payload).into() }
}

fn parse_since(text: &str) -> i64 {
    let (seconds, nanos) = text.split_once('.').expect("since is seconds.nanoseconds");
    seconds.parse::<i64>().expect("seconds") * 1_000_000_000 + nanos.parse::<i64>().expect("nanoseconds")
}
