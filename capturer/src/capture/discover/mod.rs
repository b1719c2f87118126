//! Which containers exist: the Engine's list, kept up to date by its events, and one inspect for each that changed.
//!
//! ```text
//! reach: events stream open ─▶ list ─▶ inspect each new or changed ─▶ Found / Changed / Gone
//!            ▲    │ every event marks a container as changed (many events, one inspect)
//!  back-off ─┘    └ a list every 30 s finds what events missed
//! ```
//! While events are refused, a list every few seconds finds what they would tell: see `refused.rs`.
//!
//! Events are opened before the list is taken, so that nothing is missed in between. They are drained at once and
//! coalesced: an unread event stream slows the whole daemon, and beyond 914 unread events some are lost.
//!
//! Maps here have what the last list and later events named, not everything that ever existed.

mod absence;
mod answers;
mod events;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod glimpses;
mod hearing;
mod names;
mod own;
mod refused;
mod selection;

use std::collections::{BTreeMap, BTreeSet};

use crate::capture::context::{Context, Timer};
use crate::capture::io::{Action, ConnId, RequestId};
use crate::model::docker::{EngineFault, EngineTrouble, Inspect};
use crate::settings::Select;
use crate::telemetry::status::DockerRow;
use crate::text::counted::counted;

use absence::Absence;
use glimpses::Glimpses;
pub use glimpses::Missed;
use hearing::Hearing;
use names::Names;
pub use names::Unmatched;
pub use own::OwnContainer;
use refused::Refused;
pub use selection::{plain_name, would_select};

/// What discovery reports to the core.
#[derive(Debug)]
pub enum DiscoveryEvent {
    /// A container that should be captured exists, or its facts changed.
    Container {
        /// What the Engine says of it.
        inspect: Box<Inspect>,
        /// It existed before the agent first looked.
        was_there: bool,
    },
    /// A container was removed, and its logs with it.
    Gone(String),
    /// It exists, but should not be captured any more.
    Deselected(String),
    /// It ran and was removed before it could be inspected, or was only inspected before it ran.
    Missed(Box<Missed>),
    /// The Engine was listed, and everything it named has been reported.
    Listed,
}

#[derive(Debug, PartialEq, Eq)]
enum EventsPhase {
    /// Not connected; tries again at this time.
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
    /// Is the Engine alive? See `hearing.rs`.
    Ping,
    List,
    Inspect(String),
    /// An inspection of a container that was removed meanwhile: its answer is outdated.
    Outdated,
}

/// What is known of the Engine's containers, and the requests under way.
#[derive(Debug)]
pub struct Discovery {
    events: EventsPhase,
    /// The beginning of an event whose rest has not come.
    held: Vec<u8>,
    /// Bytes of it without a newline, so that a long event in small parts is searched only once.
    searched: usize,
    /// Bytes are dropped up to the next newline: the event was too long.
    skipping: bool,
    questions: BTreeMap<RequestId, Question>,
    /// Containers to inspect; a set, so that ten events of a container make one inspect.
    changed: BTreeSet<String>,
    /// Containers that the core knows.
    known: BTreeSet<String>,
    /// The ones of `known` that run.
    running: BTreeSet<String>,
    /// Containers in the first list: they are older than the agent's first look.
    at_first: Option<BTreeSet<String>>,
    /// Containers that may be gone.
    absence: Absence,
    /// Containers of which only events were seen, or a row of a list.
    glimpses: Glimpses,
    /// Which patterns of the include lists match something.
    names: Names,
    own: OwnContainer,
    /// The log has the line that the agent's own container is left out.
    own_told: bool,
    /// Those of `known` that were found since the list under way was requested, which may be too old to name them.
    found_since: BTreeSet<String>,
    /// State at the last list, by container.
    listed: BTreeMap<String, String>,
    list_at_ms: u64,
    /// How many lists in a row were requested early because of an unusable answer.
    odd_rounds: u32,
    /// There was an unusable answer since the last list.
    odd_since_list: bool,
    /// Why the last list could not be used; empty if it could.
    list_error: String,
    /// Containers whose last inspection was unusable: they are not captured, or with old facts.
    uninspected: BTreeSet<String>,
    /// The reason for the last of them.
    inspect_error: String,
    /// When the event stream was opened last.
    opened_at_ms: u64,
    failures: u32,
    last_error: EngineTrouble,
    reachable: bool,
    /// Events are refused, and lists replace them.
    refused: Option<Refused>,
    hearing: Hearing,
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
            last_error: EngineTrouble::default(),
            reachable: false,
            refused: None,
            hearing: Hearing::default(),
            stopping: false,
        }
    }

    /// Leaves out the agent's own container, unless the config says otherwise.
    pub fn leave_out(&mut self, own: OwnContainer) {
        self.own = own;
    }

    /// A deadline may have passed.
    pub fn on_timer(&mut self, cx: &mut Context<'_>) {
        let now = cx.now.mono_ms;
        self.look_twice(cx);
        match self.events {
            EventsPhase::Waiting(at) if at <= now => {
                self.start(cx);
                self.list_without_events(cx);
            }
            EventsPhase::Waiting(at) => {
                cx.timers.set_earlier(Timer::Discovery, at);
                self.list_without_events(cx);
            }
            EventsPhase::Open { .. } if !self.reachable => self.ask_ping(cx),
            EventsPhase::Open { .. } if self.list_at_ms <= now => {
                self.ask_list(cx);
                cx.timers.set_earlier(Timer::Discovery, now + hearing::LIST_FIRST_MS);
            }
            EventsPhase::Open { .. } => {
                cx.timers.set_earlier(Timer::Discovery, self.list_at_ms);
                self.listen(cx);
            }
            EventsPhase::Opening(_) => {
                self.listen(cx);
                self.list_without_events(cx);
            }
            EventsPhase::Closing(_) | EventsPhase::Stopped => {}
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

    /// Checks whether these containers were removed: their positions are kept, but no list names them.
    pub fn doubt(&mut self, ids: impl Iterator<Item = String>, cx: &mut Context<'_>) {
        self.changed.extend(ids);
        self.ask_inspects(cx);
    }

    /// Inspects a container again, if it is captured.
    pub fn inspect_if_known(&mut self, id: String, cx: &mut Context<'_>) {
        if self.known.contains(&id) {
            self.changed.insert(id);
            self.ask_inspects(cx);
        }
    }

    /// The connection for events, in whatever state it is.
    pub fn conn(&self) -> Option<ConnId> {
        match self.events {
            EventsPhase::Opening(conn) | EventsPhase::Open { conn, .. } | EventsPhase::Closing(conn) => {
                Some(conn)
            }
            EventsPhase::Waiting(_) | EventsPhase::Stopped => None,
        }
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

    /// The agent is stopping.
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

    /// Whether the Engine's last list named it, or an event since.
    pub fn is_listed(&self, id: &str) -> bool {
        self.listed.contains_key(id) || self.known.contains(id) || self.changed.contains(id)
    }

    /// Whether discovery has no request and no connection under way.
    pub fn is_at_rest(&self) -> bool {
        matches!(self.events, EventsPhase::Stopped | EventsPhase::Waiting(_))
    }

    /// Why containers can't be found, in a sentence; `None` if they can.
    pub fn trouble(&self) -> Option<EngineTrouble> {
        if !self.reachable {
            let asked = !self.last_error.text.is_empty();
            return Some(if asked {
                self.last_error.clone()
            } else {
                EngineTrouble { fault: EngineFault::NotYet, text: "Docker has not answered yet".to_owned() }
            });
        }
        let Some(refused) = &self.refused else { return self.odd_answers().map(EngineTrouble::other) };
        let mut trouble = refused.error.clone();
        if let Some(more) = self.odd_answers() {
            trouble.text = format!("{}; {more}", trouble.text);
        }
        Some(trouble)
    }

    /// What the Engine's last answers lack, in a sentence.
    fn odd_answers(&self) -> Option<String> {
        if !self.list_error.is_empty() {
            return Some(self.list_error.clone());
        }
        let count = self.uninspected.len();
        (count > 0).then(|| {
            format!(
                "not captured: {} that can't be inspected, the last {}",
                counted(count as u64, "container"),
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

    /// Why Docker seems not to answer, if so.
    pub fn silence(&self) -> Option<&EngineTrouble> {
        (!self.reachable && !self.last_error.text.is_empty()).then_some(&self.last_error)
    }

    /// The row that `/api/v1/streams` shows.
    pub fn row(&self, socket: String) -> DockerRow {
        let error = self.refused.as_ref().map_or(&self.last_error, |refused| &refused.error);
        DockerRow {
            enabled: true,
            reachable: self.reachable,
            socket,
            error: error.text.clone(),
            fault: error.fault,
            containers: self.running.len() as u64,
        }
    }
}

impl Default for Discovery {
    fn default() -> Self {
        Discovery::new()
    }
}

#[cfg(test)]
mod tests;
