//! Which containers are there: the Engine's list, kept in step by its events, and one inspect for each that changed.
//!
//! ```text
//! reach: events stream open ─▶ list ─▶ inspect each new or changed ─▶ Found / Changed / Gone
//!            ▲    │ every event marks a container as changed (many events, one inspect)
//!  back-off ─┘    └ a list every 30 s finds what events missed
//! ```
//! Events are opened before the list is taken, so that nothing falls between; they are drained at once and coalesced:
//! an unread event stream slows the whole daemon, and past 914 unread ones events are lost.
//!
//! Maps here hold what the last list and later events named, not everything there ever was.

mod absence;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod glimpses;
mod names;
mod own;

use std::collections::{BTreeMap, BTreeSet};

use crate::capture::context::{Context, Timer};
use crate::capture::io::{Action, BodyOutcome, ConnId, HttpAnswer, RequestError, RequestId};
use crate::model::docker;
use crate::model::docker::{ContainerEvent, EventFacts, Inspect, ListRow, ListRowWithFacts};
use crate::settings::Select;
use crate::telemetry::metrics::{Metrics, RequestResult};
use crate::telemetry::status::DockerRow;

use absence::Absence;
use glimpses::Glimpses;
pub use glimpses::Missed;
use names::Names;
pub use names::Unmatched;
pub use own::OwnContainer;

/// Longest event line that is accepted. It contains the labels: 200,000 of them, 3 MB, could be made.
const EVENT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// First pause before the Engine is asked again.
const BACKOFF_FIRST_MS: u64 = 200;
/// First pause before the list is taken again after an answer that could not be used; doubles up to the interval of
/// the list.
const LIST_AGAIN_FIRST_MS: u64 = 1_000;
/// An event stream that held for this long is healthy again: when it ends, the pauses start over.
const WELL_AFTER_MS: u64 = 10_000;

/// Pause between questions whether a silent Engine answers again.
const PING_PAUSE_MS: u64 = 1_000;

/// What discovery tells the core.
#[derive(Debug)]
pub enum DiscoveryEvent {
    /// A container that is to be captured is there, or its facts changed.
    Container {
        /// What the Engine says of it.
        inspect: Box<Inspect>,
        /// It was there before the agent looked for the first time.
        was_there: bool,
    },
    /// A container was removed, its logs with it.
    Gone(String),
    /// It exists, but is not to be captured any more.
    Deselected(String),
    /// It ran and was removed before it could be inspected, or was only inspected before it ran.
    Missed(Box<Missed>),
    /// The Engine was listed; nothing is missing that it named then.
    Listed,
}

#[derive(Debug, PartialEq, Eq)]
enum EventsPhase {
    /// Not connected; again at this time.
    Waiting(u64),
    Opening(ConnId),
    Open {
        conn: ConnId,
        in_flight: bool,
    },
    Closing(ConnId),
    Stopped,
}

#[derive(Debug, PartialEq, Eq)]
enum Question {
    /// Is anybody there? Asked when the event stream was silent for a whole `read_timeout`: an idle Engine and a
    /// frozen one look alike on a connection that waits.
    Ping,
    List,
    Inspect(String),
    /// An inspection of a container that was removed meanwhile: its answer is out of date.
    Outdated,
}

/// See the module's head.
#[derive(Debug)]
pub struct Discovery {
    events: EventsPhase,
    /// A part of an event.
    held: Vec<u8>,
    /// Bytes of it that hold no newline, so that a long event that comes in small parts is searched once.
    searched: usize,
    /// Dropping bytes up to the next newline: the event was too long.
    skipping: bool,
    questions: BTreeMap<RequestId, Question>,
    /// To be inspected; a set, so that ten events of a container make one inspect.
    changed: BTreeSet<String>,
    /// Containers that the core was told of.
    known: BTreeSet<String>,
    /// Of those, the ones that run.
    running: BTreeSet<String>,
    /// What the first list named: those containers are older than the agent's first look.
    at_first: Option<BTreeSet<String>>,
    /// Containers that may be gone.
    absence: Absence,
    /// Containers of which only events were seen, or a row of a list.
    glimpses: Glimpses,
    /// Which patterns of the include lists match something.
    names: Names,
    own: OwnContainer,
    /// The log has said that the agent leaves out its own container.
    own_told: bool,
    /// Of those, found since the list under way was asked for: it may be too old to name them.
    found_since: BTreeSet<String>,
    /// State at the last list, by container.
    listed: BTreeMap<String, String>,
    list_at_ms: u64,
    /// Times in a row that an answer made the list be taken again.
    odd_rounds: u32,
    /// An answer did so since the last list.
    odd_since_list: bool,
    /// Why the last list could not be used; empty if it could.
    list_error: String,
    /// Containers whose last inspection could not be used: they are not captured, or with old facts.
    uninspected: BTreeSet<String>,
    /// Why the last of them could not.
    inspect_error: String,
    /// When the event stream was opened last.
    opened_at_ms: u64,
    failures: u32,
    last_error: String,
    reachable: bool,
    stopping: bool,
}

impl Discovery {
    /// Does nothing until [`Discovery::start`].
    pub fn new() -> Discovery {
        Discovery {
            events: EventsPhase::Waiting(0),
            held: Vec::new(),
            searched: 0,
            skipping: false,
            questions: BTreeMap::new(),
            changed: BTreeSet::new(),
            known: BTreeSet::new(),
            running: BTreeSet::new(),
            at_first: None,
            absence: Absence::default(),
            glimpses: Glimpses::default(),
            names: Names::default(),
            own: OwnContainer::default(),
            own_told: false,
            found_since: BTreeSet::new(),
            listed: BTreeMap::new(),
            list_at_ms: 0,
            odd_rounds: 0,
            odd_since_list: false,
            list_error: String::new(),
            uninspected: BTreeSet::new(),
            inspect_error: String::new(),
            opened_at_ms: 0,
            failures: 0,
            last_error: String::new(),
            reachable: false,
            stopping: false,
        }
    }

    /// The container that the agent runs in is left out, unless the config says otherwise.
    pub fn leave_out(&mut self, own: OwnContainer) {
        self.own = own;
    }

    /// Starts, or tries again.
    pub fn start(&mut self, cx: &mut Context<'_>) {
        if !matches!(self.events, EventsPhase::Waiting(_)) {
            return;
        }
        let conn = cx.new_conn();
        self.events = EventsPhase::Opening(conn);
        cx.act(Action::OpenConn { conn, stream: None, path: docker::EVENTS.to_owned() });
    }

    /// A deadline may have passed.
    pub fn on_timer(&mut self, cx: &mut Context<'_>) {
        let now = cx.now.mono_ms;
        self.look_twice(cx);
        match self.events {
            EventsPhase::Waiting(at) if at <= now => self.start(cx),
            EventsPhase::Waiting(at) => cx.timers.set_earlier(Timer::Discovery, at),
            EventsPhase::Open { .. } if !self.reachable => self.ask_ping(cx),
            EventsPhase::Open { .. } if self.list_at_ms <= now => self.ask_list(cx),
            EventsPhase::Open { .. } => cx.timers.set_earlier(Timer::Discovery, self.list_at_ms),
            EventsPhase::Opening(_) | EventsPhase::Closing(_) | EventsPhase::Stopped => {}
        }
    }

    /// Inspects again what one inspection did not find.
    fn look_twice(&mut self, cx: &mut Context<'_>) {
        let now = cx.now.mono_ms;
        let waiting = self.absence.second_looks().filter(|(id, _)| !self.is_inspected(id));
        let (due, later): (Vec<_>, Vec<_>) = waiting.partition(|(_, at)| *at <= now);
        let next = later.into_iter().map(|(_, at)| at).min();
        let due: Vec<String> = due.into_iter().map(|(id, _)| id.clone()).collect();
        self.changed.extend(due);
        if let Some(at) = next {
            cx.timers.set_earlier(Timer::Discovery, at);
        }
        self.ask_inspects(cx);
    }

    /// Positions of these containers are kept, and no list names them: whether they were removed is asked.
    pub fn doubt(&mut self, ids: impl Iterator<Item = String>, cx: &mut Context<'_>) {
        self.changed.extend(ids);
        self.ask_inspects(cx);
    }

    /// Whether the container exists and is captured.
    pub fn knows(&self, id: &str) -> bool {
        self.known.contains(id)
    }

    /// Inspects a container again if it is captured.
    pub fn inspect_if_known(&mut self, id: String, cx: &mut Context<'_>) {
        if self.known.contains(&id) {
            self.changed.insert(id);
            self.ask_inspects(cx);
        }
    }

    fn ask_list(&mut self, cx: &mut Context<'_>) {
        self.list_at_ms = cx.now.mono_ms + cx.settings.container_monitor.list_interval.as_millis() as u64;
        cx.timers.set_earlier(Timer::Discovery, self.list_at_ms);
        if !self.questions.values().any(|question| *question == Question::List) {
            self.found_since.clear();
            self.ask(Question::List, docker::LIST.to_owned(), cx);
        }
    }

    fn ask_ping(&mut self, cx: &mut Context<'_>) {
        if !self.questions.values().any(|question| *question == Question::Ping) {
            self.ask(Question::Ping, docker::PING.to_owned(), cx);
        }
    }

    fn on_ping(&mut self, result: HttpAnswer, cx: &mut Context<'_>) {
        // Whatever the status, somebody answers.
        let error = match result {
            Ok(_) if self.reachable => return,
            Ok(_) => {
                tracing::info!("Docker answers again");
                self.reachable = true;
                self.last_error.clear();
                return self.ask_list(cx);
            }
            Err(error) => error.to_string(),
        };
        if self.reachable {
            tracing::warn!("Docker does not answer: {error}");
        }
        self.reachable = false;
        self.last_error = error;
        // Asked again as long as the event stream stands; its end has a way of its own.
        cx.timers.set_earlier(Timer::Discovery, cx.now.mono_ms + PING_PAUSE_MS);
    }

    fn ask(&mut self, question: Question, path: String, cx: &mut Context<'_>) {
        let request = cx.new_request();
        self.questions.insert(request, question);
        cx.act(Action::Get { request, path });
    }

    /// As many inspects as may be under way at once.
    fn ask_inspects(&mut self, cx: &mut Context<'_>) {
        if !matches!(self.events, EventsPhase::Open { .. }) {
            return;
        }
        while self.questions.len() < cx.settings.container_monitor.max_concurrent.max(1) {
            // One at a time of each: its answer may be of before the last event, and then the next one is asked for.
            let Some(id) = self.changed.iter().find(|id| !self.is_inspected(id)).cloned() else { return };
            self.changed.remove(&id);
            self.ask(Question::Inspect(id.clone()), docker::inspect(&id), cx);
        }
    }

    fn unreachable(&mut self, error: String, cx: &mut Context<'_>) {
        if self.reachable || self.failures == 0 {
            tracing::warn!("Docker is not reachable: {error}; trying again");
        }
        self.reachable = false;
        self.last_error = error;
        self.failures += 1;
        let max = cx.settings.container_monitor.reconnect_interval.as_millis() as u64;
        let pause = (BACKOFF_FIRST_MS << (self.failures - 1).min(16)).min(max);
        let at = cx.now.mono_ms + cx.jitter.around(pause);
        self.events = EventsPhase::Waiting(at);
        cx.timers.set_earlier(Timer::Discovery, at);
    }

    /// The events connection this part waits for.
    pub fn conn(&self) -> Option<ConnId> {
        match self.events {
            EventsPhase::Opening(conn) | EventsPhase::Open { conn, .. } | EventsPhase::Closing(conn) => {
                Some(conn)
            }
            EventsPhase::Waiting(_) | EventsPhase::Stopped => None,
        }
    }

    /// The events connection was opened, or not.
    pub fn on_opened(&mut self, result: HttpAnswer, cx: &mut Context<'_>) {
        let EventsPhase::Opening(conn) = self.events else { return };
        match result {
            Ok((200, _)) => {
                if !self.reachable && self.failures > 0 {
                    tracing::info!("Docker is reachable again");
                }
                self.reachable = true;
                self.opened_at_ms = cx.now.mono_ms;
                self.last_error.clear();
                self.held.clear();
                self.searched = 0;
                self.skipping = false;
                self.events = EventsPhase::Open { conn, in_flight: false };
                // Nobody reported what happened meanwhile, and a list shows neither a new name nor that a container ended
                // and runs again: all are inspected once more.
                self.listed.values_mut().for_each(String::clear);
                self.read_on(cx);
                self.ask_list(cx);
            }
            Ok((status, body)) => {
                let text = docker::refusal(status, &body);
                self.unreachable(text, cx);
            }
            Err(error) => self.unreachable(error.to_string(), cx),
        }
    }

    fn read_on(&mut self, cx: &mut Context<'_>) {
        if let EventsPhase::Open { conn, in_flight: false } = self.events {
            self.events = EventsPhase::Open { conn, in_flight: true };
            cx.act(Action::ReadConn { conn, buffer: std::mem::take(&mut self.held) });
        }
    }

    /// A read of the events connection ended.
    pub fn on_read(
        &mut self,
        outcome: BodyOutcome,
        buffer: Vec<u8>,
        cx: &mut Context<'_>,
        told: &mut Vec<DiscoveryEvent>,
    ) {
        let EventsPhase::Open { conn, in_flight: true } = self.events else { return };
        self.events = EventsPhase::Open { conn, in_flight: false };
        match outcome {
            BodyOutcome::Bytes => self.take_events(buffer, cx.metrics, told),
            BodyOutcome::TimedOut => {
                self.searched = buffer.len();
                self.held = buffer;
                self.ask_ping(cx);
            }
            BodyOutcome::End | BodyOutcome::Broken(_) => {
                if cx.now.mono_ms - self.opened_at_ms >= WELL_AFTER_MS {
                    self.failures = 0;
                }
                self.last_error = "the Engine ended the event stream".to_owned();
                self.events = EventsPhase::Closing(conn);
                cx.act(Action::CloseConn { conn });
                return;
            }
        }
        self.read_on(cx);
        self.ask_inspects(cx);
    }

    fn take_events(&mut self, mut buffer: Vec<u8>, metrics: &Metrics, told: &mut Vec<DiscoveryEvent>) {
        let (mut begin, mut search_from) = (0, std::mem::take(&mut self.searched));
        while let Some(len) = memchr::memchr(b'\n', &buffer[search_from..]) {
            let line = &buffer[begin..search_from + len];
            begin = search_from + len + 1;
            search_from = begin;
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            let event = serde_json::from_slice::<ContainerEvent>(line).ok();
            let Some(event) = event.filter(|event| docker::is_id(&event.actor.id)) else {
                // What it would have said is made good by the next list.
                metrics.docker_request(RequestResult::Invalid);
                tracing::warn!("Docker sent an event that can't be read; the next list makes it good");
                continue;
            };
            let id = event.actor.id;
            if !self.known.contains(&id) || self.glimpses.is_seen(&id) {
                let facts =
                    || serde_json::from_slice::<docker::EventWithFacts>(line).unwrap_or_default().into();
                self.glimpses.see(&id, &event.action, facts);
            }
            if event.action == "destroy" {
                if self.glimpses.is_destroyed(&id) && self.is_inspected(&id) {
                    // The answer may still be of the time before.
                    continue;
                }
                self.forget(&id, told);
            } else {
                self.changed.insert(id);
            }
        }
        buffer.drain(..begin);
        if buffer.len() > EVENT_BYTES_MAX {
            if !self.skipping {
                metrics.docker_request(RequestResult::Invalid);
                tracing::warn!("Docker sent an event of over {EVENT_BYTES_MAX} bytes; it is passed over");
            }
            buffer = Vec::new();
            self.skipping = true;
        }
        self.searched = buffer.len();
        self.held = buffer;
    }

    fn is_inspected(&self, id: &str) -> bool {
        let asked = |question: &Question| matches!(question, Question::Inspect(asked) if asked == id);
        self.questions.values().any(asked)
    }

    /// A container was removed.
    fn forget(&mut self, id: &str, told: &mut Vec<DiscoveryEvent>) {
        self.changed.remove(id);
        self.listed.remove(id);
        self.found_since.remove(id);
        self.uninspected.remove(id);
        self.absence.forget(id);
        self.known.remove(id);
        self.running.remove(id);
        let inspections = self.questions.values_mut();
        inspections
            .filter(|question| matches!(question, Question::Inspect(asked) if asked == id))
            .for_each(|question| *question = Question::Outdated);
        told.extend(self.glimpses.gone(id).map(|missed| DiscoveryEvent::Missed(Box::new(missed))));
        told.push(DiscoveryEvent::Gone(id.to_owned()));
    }

    /// The events connection is closed.
    pub fn on_closed(&mut self, cx: &mut Context<'_>) {
        if self.stopping {
            self.events = EventsPhase::Stopped;
        } else if matches!(self.events, EventsPhase::Closing(_)) {
            let error = std::mem::take(&mut self.last_error);
            self.unreachable(error, cx);
        }
    }

    /// A request ended.
    pub fn on_answer(
        &mut self,
        request: RequestId,
        result: HttpAnswer,
        cx: &mut Context<'_>,
        told: &mut Vec<DiscoveryEvent>,
    ) {
        let Some(question) = self.questions.remove(&request) else { return };
        cx.metrics.docker_request(request_result(&result));
        match (question, result) {
            (Question::Ping, result) if matches!(self.events, EventsPhase::Open { .. }) => {
                self.on_ping(result, cx)
            }
            (Question::Ping | Question::Outdated, _) => {}
            (Question::List, result) => match body_of::<Vec<ListRow>>(&result) {
                Ok(rows) => {
                    // Read once more only where the list names what nobody knows.
                    let facts = || body_of(&result).unwrap_or_default();
                    self.on_list(rows, facts, cx.now.mono_ms, told);
                }
                Err(error) => self.on_odd_list(error, cx),
            },
            (Question::Inspect(id), Ok((404, body))) if docker::is_no_such_container(&body) => {
                self.on_not_found(&id, cx, told);
            }
            (Question::Inspect(id), result) => match body_of::<Inspect>(&result) {
                Ok(inspect) if inspect.id == id => self.on_inspect(inspect, cx, told),
                Ok(_) => self.on_odd_inspect(id, Odd::Invalid("it is of another container".to_owned()), cx),
                Err(error) => self.on_odd_inspect(id, error, cx),
            },
        }
        self.ask_inspects(cx);
    }

    fn on_not_found(&mut self, id: &str, cx: &mut Context<'_>, told: &mut Vec<DiscoveryEvent>) {
        if self.glimpses.is_destroyed(id) || self.absence.not_found(id, cx.now.mono_ms) {
            self.forget(id, told);
        } else {
            cx.timers.set_earlier(Timer::Discovery, cx.now.mono_ms + absence::INSPECTS_APART_MS);
        }
    }

    fn on_odd_list(&mut self, odd: Odd, cx: &mut Context<'_>) {
        self.list_error = format!("the list of containers can't be had: {}", odd.counted(cx));
        tracing::warn!("{}; trying again", self.list_error);
        self.list_again(cx);
    }

    fn on_odd_inspect(&mut self, id: String, odd: Odd, cx: &mut Context<'_>) {
        self.inspect_error = format!("container {}: {}", &id[..12], odd.counted(cx));
        tracing::warn!("inspecting {}; trying again", self.inspect_error);
        // The list will name it again as long as it is there, and then as one that changed.
        self.listed.remove(&id);
        self.uninspected.insert(id);
        self.list_again(cx);
    }

    /// Soon at first, then less and less often: an answer that is wrong now is usually wrong later.
    fn list_again(&mut self, cx: &mut Context<'_>) {
        if !std::mem::replace(&mut self.odd_since_list, true) {
            self.odd_rounds += 1;
        }
        let max = cx.settings.container_monitor.list_interval.as_millis() as u64;
        let pause = (LIST_AGAIN_FIRST_MS << (self.odd_rounds - 1).min(16)).min(max);
        let at = cx.now.mono_ms + cx.jitter.around(pause);
        self.list_at_ms = self.list_at_ms.min(at);
        cx.timers.set_earlier(Timer::Discovery, self.list_at_ms);
    }

    fn on_list(
        &mut self,
        rows: Vec<ListRow>,
        facts: impl FnOnce() -> Vec<ListRowWithFacts>,
        now_ms: u64,
        told: &mut Vec<DiscoveryEvent>,
    ) {
        self.list_error.clear();
        self.names.on_list(now_ms);
        if !std::mem::take(&mut self.odd_since_list) {
            self.odd_rounds = 0;
        }
        let (mut listed, mut unseen) = (BTreeMap::new(), BTreeSet::new());
        for row in rows.into_iter().filter(|row| docker::is_id(&row.id)) {
            if self.listed.get(&row.id) != Some(&row.state) {
                self.changed.insert(row.id.clone());
                if !self.known.contains(&row.id) && row.state != "created" {
                    unseen.insert(row.id.clone());
                }
            }
            self.absence.listed(&row.id);
            listed.insert(row.id, row.state);
        }
        let is_missing = |id: &&String| !listed.contains_key(*id) && !self.found_since.contains(*id);
        let missing: Vec<String> = self.known.iter().filter(is_missing).cloned().collect();
        for id in missing {
            if self.absence.not_listed(&id, now_ms) {
                self.forget(&id, told);
            } else {
                self.changed.insert(id);
            }
        }
        self.uninspected.retain(|id| listed.contains_key(id));
        // What events named before is new.
        self.at_first
            .get_or_insert_with(|| listed.keys().filter(|id| !self.glimpses.is_seen(id)).cloned().collect());
        self.listed = listed;
        if !unseen.is_empty() {
            let rows = facts().into_iter().filter(|row| unseen.contains(&row.id));
            rows.for_each(|row| self.glimpses.list(&row.id.clone(), row.into()));
        }
        told.push(DiscoveryEvent::Listed);
    }

    fn on_inspect(&mut self, inspect: Inspect, cx: &Context<'_>, told: &mut Vec<DiscoveryEvent>) {
        let was_destroyed = self.glimpses.is_destroyed(&inspect.id);
        if inspect.has_run() {
            self.glimpses.looked_at(&inspect.id);
        } else {
            self.glimpses.has_not_run(&inspect.id, || facts_of(&inspect));
        }
        self.uninspected.remove(&inspect.id);
        self.absence.found(&inspect.id);
        // It changed since the list: the next one must not find it unchanged, for events get lost.
        let ran = self.listed.get(&inspect.id).map(|state| runs(state));
        if ran.is_some_and(|ran| ran != inspect.state.running) {
            self.listed.insert(inspect.id.clone(), String::new());
        }
        let monitor = &cx.settings.container_monitor;
        let labels = inspect.config.labels.as_ref();
        self.names.see(&monitor.select, plain_name(&inspect.name), &inspect.config.image, labels);
        let id = inspect.id.clone();
        if is_selected(&monitor.select, &inspect) && !self.is_left_out(&inspect, monitor.include_self) {
            if self.known.insert(id.clone()) {
                self.found_since.insert(id.clone());
            }
            if inspect.state.running {
                self.running.insert(id.clone());
            } else {
                self.running.remove(&id);
            }
            let was_there = self.at_first.as_ref().is_some_and(|first| first.contains(&id));
            told.push(DiscoveryEvent::Container { inspect: Box::new(inspect), was_there });
        } else if self.known.remove(&id) {
            self.running.remove(&id);
            told.push(DiscoveryEvent::Deselected(id.clone()));
        }
        if was_destroyed {
            self.forget(&id, told);
        }
    }

    fn is_left_out(&mut self, inspect: &Inspect, include_self: bool) -> bool {
        let is_left_out = !include_self && self.own.is(&inspect.id);
        if is_left_out && !std::mem::replace(&mut self.own_told, true) {
            tracing::info!(
                container = plain_name(&inspect.name),
                "the agent runs in this container and leaves it out; container_monitor.include_self: true captures it too"
            );
        }
        is_left_out
    }

    /// The agent stops.
    pub fn stop(&mut self, cx: &mut Context<'_>) {
        self.changed.clear();
        match self.events {
            EventsPhase::Opening(conn) | EventsPhase::Open { conn, .. } => {
                self.events = EventsPhase::Closing(conn);
                cx.act(Action::CloseConn { conn });
            }
            EventsPhase::Waiting(_) => self.events = EventsPhase::Stopped,
            EventsPhase::Closing(_) | EventsPhase::Stopped => {}
        }
        self.stopping = true;
    }

    /// Whether the Engine named it in its last list, or in an event since.
    pub fn is_listed(&self, id: &str) -> bool {
        self.listed.contains_key(id) || self.known.contains(id) || self.changed.contains(id)
    }

    /// Whether no request and no connection of discovery is under way.
    pub fn is_at_rest(&self) -> bool {
        matches!(self.events, EventsPhase::Stopped | EventsPhase::Waiting(_))
    }

    /// Requests not yet answered.
    pub fn requests_open(&self) -> usize {
        self.questions.len()
    }

    /// Why containers can't be found, in a sentence; `None` if they can.
    pub fn trouble(&self) -> Option<String> {
        if !self.reachable {
            let asked = !self.last_error.is_empty();
            return Some(if asked {
                self.last_error.clone()
            } else {
                "Docker has not answered yet".to_owned()
            });
        }
        if !self.list_error.is_empty() {
            return Some(self.list_error.clone());
        }
        let count = self.uninspected.len();
        (count > 0).then(|| {
            format!(
                "{count} containers can't be inspected and are not captured, the last {}",
                self.inspect_error
            )
        })
    }

    /// Number of captured containers that are running.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Patterns of the include lists that match no container.
    pub fn unmatched(&self, select: &Select, now_ms: u64) -> Option<Unmatched> {
        self.names.unmatched(select, now_ms)
    }

    /// Why Docker is believed not to answer, if it is.
    pub fn silence(&self) -> Option<&str> {
        (!self.reachable && !self.last_error.is_empty()).then_some(self.last_error.as_str())
    }

    /// The row that `/api/v1/streams` shows.
    pub fn row(&self, socket: String) -> DockerRow {
        DockerRow {
            enabled: true,
            reachable: self.reachable,
            socket,
            error: self.last_error.clone(),
            containers: self.running.len() as u64,
        }
    }
}

impl Default for Discovery {
    fn default() -> Self {
        Discovery::new()
    }
}

/// Whether inspect calls a container of this listed state running.
fn runs(state: &str) -> bool {
    matches!(state, "running" | "paused" | "restarting")
}

/// Docker's name without its slash.
pub fn plain_name(name: &str) -> &str {
    name.strip_prefix('/').unwrap_or(name)
}

fn facts_of(inspect: &Inspect) -> EventFacts {
    EventFacts {
        name: plain_name(&inspect.name).to_owned(),
        image: inspect.config.image.clone(),
        labels: inspect.config.labels.clone().unwrap_or_default(),
    }
}

fn is_selected(select: &Select, inspect: &Inspect) -> bool {
    let labels = inspect.config.labels.as_ref();
    selects(select, plain_name(&inspect.name), &inspect.config.image, labels)
}

/// Whether a container that was missed would have been captured.
pub fn would_select(select: &Select, missed: &Missed) -> bool {
    let facts = &missed.facts;
    selects(select, &facts.name, &facts.image, Some(&facts.labels))
}

fn selects(select: &Select, name: &str, image: &str, labels: Option<&BTreeMap<String, String>>) -> bool {
    let label = |key: &str| labels.and_then(|labels| labels.get(key));
    let any = |patterns: &[glob::Pattern], text: &str| patterns.iter().any(|pattern| pattern.matches(text));
    let included = (select.include_names.is_empty() || any(&select.include_names, name))
        && (select.include_images.is_empty() || any(&select.include_images, image))
        && select
            .include_labels
            .iter()
            .all(|(key, value)| label(key).is_some_and(|text| value.matches(text)));
    let excluded = any(&select.exclude_names, name)
        || any(&select.exclude_images, image)
        || select
            .exclude_labels
            .iter()
            .any(|(key, value)| label(key).is_some_and(|text| value.matches(text)));
    included && !excluded
}

/// An answer that could not be used.
enum Odd {
    /// There was none, or it was a refusal: counted already.
    Failed(String),
    /// It is not what the API promises.
    Invalid(String),
}

impl Odd {
    fn counted(self, cx: &Context<'_>) -> String {
        match self {
            Odd::Failed(text) => text,
            Odd::Invalid(text) => {
                cx.metrics.docker_request(RequestResult::Invalid);
                format!("Docker's answer can't be read: {text}")
            }
        }
    }
}

fn body_of<T: serde::de::DeserializeOwned>(result: &HttpAnswer) -> Result<T, Odd> {
    match result {
        Ok((200, body)) => serde_json::from_slice(body).map_err(|error| Odd::Invalid(error.to_string())),
        Ok((status, body)) => Err(Odd::Failed(docker::refusal(*status, body))),
        Err(error) => Err(Odd::Failed(error.to_string())),
    }
}

fn request_result(result: &HttpAnswer) -> RequestResult {
    match result {
        Ok((200..=299, _)) => RequestResult::Ok,
        Ok((404, _)) => RequestResult::NotFound,
        Ok(_) => RequestResult::Refused,
        Err(RequestError::NoAnswer { .. }) => RequestResult::TimedOut,
        Err(RequestError::TooLarge { .. }) => RequestResult::Invalid,
        Err(RequestError::Connect { .. } | RequestError::Broken { .. }) => RequestResult::Unreachable,
    }
}

#[cfg(test)]
mod tests;
