//! A simulated Docker Engine: list, inspect, events and logs, with the habits that were seen in real ones: `since` is
//! inclusive and looks at each message, `tail` counts messages and is applied first, ends come cleanly with lines
//! missing, lines come again around rotations, a daemon dies, freezes, refuses.
//!
//! Not simulated: lines sent again from before the answer's beginning, within a line that is still open, within lines of
//! equal time, or of the newest time alone. Nothing in the answer tells those from new ones. Neither a rotation nor
//! `tail` cuts between lines of one channel that have the same nanosecond.

mod follow;

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use capturer::testing::{BodyOutcome, ConnId, Event, HttpAnswer, RequestError, RequestId, docker, timestamp};
use serde_json::json;

use super::faults::EventsRefused;
use super::{Happening, World};
use crate::checker::LineId;
use follow::frame;

/// What becomes of the Engine.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Freezes,
    Dies,
    Recovers,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Health {
    #[default]
    Up,
    /// Until then.
    Frozen(u64),
    Down,
}

#[derive(Debug, Default)]
pub(super) struct Engine {
    health: Health,
    /// Log directories that the agent may not read.
    pub(super) denied: BTreeSet<String>,
    /// Containers whose driver is json-file but whose log is kept here.
    pub(super) json_file_only_by_api: BTreeSet<String>,
    /// The host has no inotify instance left.
    pub(super) no_inotify: bool,
}

/// A container's log as the Engine keeps it.
#[derive(Debug)]
pub(super) struct Log {
    entries: VecDeque<Entry>,
    /// Entries dropped at its beginning so far.
    dropped: u64,
    retain: usize,
    /// By channel: whose piece came last.
    newest: [Option<LineId>; 2],
}

#[derive(Clone, Debug)]
struct Entry {
    channel: usize,
    time_ns: i64,
    text_len: usize,
    newline: bool,
    /// As it is sent to each that asks.
    frame: Bytes,
    line: LineId,
    /// It is the first of its line.
    begins: bool,
    /// Rotations of its file's chain before it was written.
    rotations: u64,
}

/// A piece of a line, as a container prints it.
#[derive(Debug)]
pub(super) struct Printed {
    pub(super) channel: usize,
    pub(super) time_ns: i64,
    pub(super) text: Vec<u8>,
    pub(super) newline: bool,
    pub(super) line: LineId,
}

impl Log {
    pub(super) fn new(retain: usize) -> Log {
        Log { entries: VecDeque::new(), dropped: 0, retain, newest: [None; 2] }
    }

    pub(super) fn clear(&mut self) -> Vec<LineId> {
        self.entries.drain(..).map(|entry| entry.line).collect()
    }
}

/// A request that the Engine will get to.
#[derive(Debug)]
pub(super) struct Asked {
    what: What,
    path: String,
    gives_up_us: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Request(RequestId),
    Conn(ConnId),
}

/// A connection that follows.
#[derive(Debug)]
pub(super) struct Conn {
    id: ConnId,
    state: ConnState,
    /// Whose log, and the time from which on.
    logs: Option<(usize, i64)>,
    /// Entry that it began with, counted from the log's beginning.
    first: u64,
    follow: bool,
    /// Frames under way; the first may have been taken in part.
    frames: VecDeque<Bytes>,
    end: Option<BodyOutcome>,
    /// It brings nothing any more, and does not end.
    stalled: bool,
}

#[derive(Debug)]
enum ConnState {
    Opening,
    Idle,
    Reading { buffer: Vec<u8>, deadline_us: u64 },
}

impl World {
    pub(super) fn draw_fates(&mut self, until_us: u64) {
        self.engine.no_inotify = self.rand.chance(1, 10);
        for fate in [(Fate::Freezes, self.faults.freezes), (Fate::Dies, self.faults.engine_deaths)] {
            for _ in 0..fate.1 {
                let at = self.rand.within(0..until_us);
                self.at(at, Happening::Engine(fate.0));
            }
        }
    }

    pub(super) fn meet_fate(&mut self, fate: Fate) {
        if self.quiet && !matches!(fate, Fate::Recovers) {
            return;
        }
        let pause = self.rand.within(100_000..15_000_000);
        match fate {
            Fate::Freezes => self.engine.health = Health::Frozen(self.now_us + pause),
            Fate::Dies => {
                self.engine.health = Health::Down;
                self.end_conns(|_| true, &BodyOutcome::Broken("connection reset".to_owned()));
            }
            Fate::Recovers => {
                self.engine.health = Health::Up;
                let conns: Vec<u64> = self.run.iter().flat_map(|run| run.conns.keys().copied()).collect();
                for conn in conns {
                    self.wake_later(conn);
                }
                return;
            }
        }
        self.later(pause, Happening::Engine(Fate::Recovers));
    }

    pub(super) fn calm_engine(&mut self) {
        self.meet_fate(Fate::Recovers);
        // A rotation bounds what one can cost, but not every seed rotates.
        let broken = BodyOutcome::Broken("connection reset".to_owned());
        self.end_conns(|conn| conn.stalled, &broken);
    }

    // ---- requests

    pub(super) fn on_get(&mut self, request: RequestId, path: String) {
        let Some(run) = &mut self.run else { return };
        assert!(
            run.requests.insert(request.0),
            "invariant broken: no_action_for_the_unknown: {request:?} twice"
        );
        let at_once = run.requests.len();
        // A list and a ping come on top.
        let allowed = self.settings.container_monitor.max_concurrent + 2;
        assert!(at_once <= allowed, "invariant broken: requests_are_bounded: {at_once} of {allowed}");
        self.ask(What::Request(request), path);
    }

    pub(super) fn on_open_conn(&mut self, conn: ConnId, path: String) {
        let Some(run) = &mut self.run else { return };
        let opening = Conn {
            id: conn,
            state: ConnState::Opening,
            logs: None,
            first: 0,
            follow: path.contains("follow=1") || !path.starts_with("/containers"),
            frames: VecDeque::new(),
            end: None,
            stalled: false,
        };
        assert!(
            run.conns.insert(conn.0, opening).is_none(),
            "invariant broken: no_action_for_the_unknown: {conn:?} twice"
        );
        let logs = run.conns.len();
        let allowed = self.settings.container_monitor.rotation.max_concurrent_streams + 1;
        assert!(logs <= allowed, "invariant broken: connections_are_bounded: {logs} of {allowed}");
        self.ask(What::Conn(conn), path);
    }

    fn ask(&mut self, what: What, path: String) {
        let timeout_us = self.settings.container_monitor.read_timeout.as_micros() as u64;
        let asked = Asked { what, path, gives_up_us: self.now_us + timeout_us };
        let delay = self.delay(2_000, self.faults.engine_slow_us);
        let Some(run) = self.run.as_ref().map(|run| run.number) else { return };
        self.later(delay, Happening::Asked { run, asked });
    }

    /// The Engine looks at a request; what it sees now is what it answers, later.
    pub(super) fn answer(&mut self, asked: Asked) {
        let Some(run) = self.run.as_ref().map(|run| run.number) else { return };
        if let Health::Frozen(until) = self.engine.health
            && self.now_us < asked.gives_up_us
        {
            let at = until.min(asked.gives_up_us).max(self.now_us + 1);
            return self.at(at, Happening::Asked { run, asked });
        }
        let refused = self.strikes(self.faults.refusals);
        let result = match self.engine.health {
            Health::Down => Err(RequestError::Connect {
                socket: "docker.sock".to_owned(),
                cause: "Connection refused".to_owned(),
                errno: 111,
            }),
            Health::Frozen(_) => Err(RequestError::NoAnswer { path: asked.path.clone(), timeout_s: 1 }),
            Health::Up if refused => Ok((500, br#"{"message":"the Engine is out of sorts"}"#.to_vec())),
            Health::Up if self.refuses_events() && asked.path == docker::EVENTS => {
                Ok((403, br#"{"message":"events are not allowed"}"#.to_vec()))
            }
            Health::Up => self.look_up(&asked),
        };
        let event = match asked.what {
            What::Request(request) => Event::Answered { request, result },
            What::Conn(conn) => {
                let Some(run) = &mut self.run else { return };
                let Some(opened) = run.conns.get_mut(&conn.0) else { return };
                if matches!(result, Ok((200, _))) {
                    opened.state = ConnState::Idle
                } else {
                    opened.end = None
                }
                Event::ConnOpened { conn, result }
            }
        };
        let delay = self.delay(500, self.faults.engine_slow_us / 4);
        self.later(delay, Happening::Deliver { run, event: Box::new(event) });
    }

    fn refuses_events(&self) -> bool {
        match self.faults.events_refused {
            EventsRefused::Never => false,
            EventsRefused::Often => (self.now_us / 60_000_000).is_multiple_of(2),
            EventsRefused::Always => true,
        }
    }

    /// An answer reaches the agent: the shell forgets the request, or the connection that was refused. False: it was
    /// closed meanwhile and its event does not come.
    pub(super) fn is_wanted(&mut self, event: &Event) -> bool {
        let Some(run) = &mut self.run else { return false };
        match event {
            Event::Answered { request, .. } => run.requests.remove(&request.0),
            Event::ConnOpened { conn, result } => {
                let there = run.conns.contains_key(&conn.0);
                if !matches!(result, Ok((200, _))) {
                    run.conns.remove(&conn.0);
                }
                there
            }
            _ => true,
        }
    }

    fn look_up(&mut self, asked: &Asked) -> HttpAnswer {
        let path = asked.path.as_str();
        if path == docker::LIST {
            let listed = self.containers.iter().filter(|container| !container.removed);
            let rows = listed.map(|container| {
                let state = match (container.running, container.started_once) {
                    (true, _) => "running",
                    (false, true) => "exited",
                    (false, false) => "created",
                };
                json!({"Id": container.id, "State": state})
            });
            return Ok((200, serde_json::Value::Array(rows.collect()).to_string().into_bytes()));
        }
        if path == docker::EVENTS || path == docker::PING {
            return Ok((200, Vec::new()));
        }
        let rest = path.strip_prefix("/containers/").unwrap_or_default();
        let (id, rest) = rest.split_once('/').unwrap_or_default();
        let found = self.containers.iter().position(|container| container.id == id && !container.removed);
        let Some(number) = found else { return Ok((404, br#"{"message":"No such container"}"#.to_vec())) };
        match (rest.strip_prefix("logs?"), asked.what) {
            (Some(query), What::Conn(conn)) => {
                self.begin_logs(conn, number, query);
                Ok((200, Vec::new()))
            }
            _ => Ok((200, self.inspection(number))),
        }
    }

    fn inspection(&self, number: usize) -> Vec<u8> {
        let container = &self.containers[number];
        let by_api = self.engine.json_file_only_by_api.contains(&container.id);
        let log_path = match &container.chain {
            Some(chain) if container.started_once => chain.path(""),
            None if by_api && container.started_once => format!("/docker/{0}/{0}-json.log", container.id),
            _ => String::new(),
        };
        let driver = if container.chain.is_some() || by_api { "json-file" } else { "local" };
        let never = "0001-01-01T00:00:00Z".to_owned();
        let finished_at = container.exited_at_ns.map_or(never, timestamp::format);
        let answer = json!({
            "Id": container.id,
            "Name": format!("/{}", container.name),
            "LogPath": log_path,
            "State": {"Running": container.running, "FinishedAt": finished_at},
            "Config": {"Tty": container.tty, "Image": "shop:1", "Labels": {"com.docker.compose.project": "shop"}},
            "HostConfig": {"LogConfig": {"Type": driver, "Config": {"max-size": "1k"}}},
        });
        answer.to_string().into_bytes()
    }

    /// Something happened to a container.
    pub(super) fn tell_event(&mut self, number: usize, action: &str) {
        let id = self.containers[number].id.clone();
        self.note(|| format!("container {number} {id}: {action}"));
        if self.strikes(self.faults.events_lost) || self.engine.health == Health::Down {
            return;
        }
        let container = &self.containers[number];
        let event = json!({"Type": "container", "Action": action, "Actor": {"ID": container.id}, "time": 1});
        let line = Bytes::from(format!("{event}\n"));
        let Some(run) = &mut self.run else { return };
        let open = |conn: &&mut Conn| conn.logs.is_none() && !matches!(conn.state, ConnState::Opening);
        let conns: Vec<u64> = run.conns.values_mut().filter(open).map(|conn| conn.id.0).collect();
        for conn in conns {
            self.push_frame(conn, line.clone());
        }
    }

    // ---- logs

    pub(super) fn log_to_engine(&mut self, number: usize, printed: Printed) {
        let frame = frame(&printed, self.containers[number].tty);
        let Printed { channel, time_ns, text, newline, line } = printed;
        let on_disk = self.containers[number].chain.as_ref().map(|chain| chain.rotations);
        let rotations = on_disk.unwrap_or(0);
        let log = &mut self.containers[number].log;
        let begins = log.newest[channel].replace(line) != Some(line);
        let (text_len, sent) = (text.len(), frame.clone());
        let entry = Entry { channel, time_ns, text_len, newline, frame: sent, line, begins, rotations };
        log.entries.push_back(entry);
        let rotates = on_disk.is_none() && log.entries.len() > log.retain;
        let followers = self.followers(number);
        for (conn, since) in &followers {
            if time_ns >= *since {
                self.push_frame(*conn, frame.clone());
            }
        }
        if rotates {
            self.rotate_engine_log(number, &followers);
        }
    }

    /// A log on disk was rotated: what is older than `oldest` is gone, and whoever follows skips what it had not read.
    pub(super) fn rotate_below_engine(&mut self, number: usize, oldest: u64) {
        let log = &mut self.containers[number].log;
        let count = log.entries.partition_point(|entry| entry.rotations < oldest);
        log.dropped += count as u64;
        log.entries.drain(..count);
        for (conn, since) in self.followers(number) {
            if self.strikes(self.faults.early_ends) {
                self.end_early(conn);
            } else if self.strikes(self.faults.skips) {
                self.skip(conn);
            } else if self.strikes(self.faults.resends) {
                self.send_again(conn, number, since);
            }
        }
    }

    /// A container ended: whoever follows it gets the rest and a clean end; on a busy machine not all of the rest.
    pub(super) fn end_follows(&mut self, number: usize) {
        for (conn, _) in self.followers(number) {
            if self.strikes(self.faults.early_ends) {
                self.end_early(conn);
            } else if let Some(conn) = self.run.as_mut().and_then(|run| run.conns.get_mut(&conn)) {
                conn.end = Some(BodyOutcome::End);
            }
            self.wake_later(conn);
        }
    }

    /// The Engine stays as it is told to be: for benches.
    pub(super) fn set_for_good(&mut self, health: Health) {
        self.engine.health = health;
    }

    /// The same bytes go out on every connection: for benches.
    pub(super) fn send_on_all(&mut self, bytes: &[u8]) {
        let bytes = Bytes::copy_from_slice(bytes);
        let conns: Vec<u64> = self.run.iter().flat_map(|run| run.conns.keys().copied()).collect();
        for conn in conns {
            self.push_frame(conn, bytes.clone());
        }
    }

    pub(super) fn end_conns(&mut self, which: impl Fn(&Conn) -> bool, outcome: &BodyOutcome) {
        let Some(run) = &mut self.run else { return };
        let mut ended = Vec::new();
        for conn in run.conns.values_mut().filter(|conn| which(conn)) {
            conn.end = Some(outcome.clone());
            ended.push(conn.id.0);
        }
        for conn in ended {
            self.wake_later(conn);
        }
    }

    // ---- bodies

    pub(super) fn on_read_conn(&mut self, conn: ConnId, buffer: Vec<u8>) {
        let deadline_us = self.now_us + self.settings.container_monitor.read_timeout.as_micros() as u64;
        let Some(run) = &mut self.run else { return };
        let Some(reading) = run.conns.get_mut(&conn.0).filter(|conn| matches!(conn.state, ConnState::Idle))
        else {
            panic!("invariant broken: no_action_for_the_unknown: a read of {conn:?}")
        };
        reading.state = ConnState::Reading { buffer, deadline_us };
        let waits = reading.frames.is_empty() && reading.end.is_none();
        let number = run.number;
        self.at(deadline_us, Happening::ConnWake { run: number, conn: conn.0 });
        if !waits {
            self.wake_later(conn.0);
        }
    }
}
