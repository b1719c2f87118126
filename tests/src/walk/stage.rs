//! One walk, carried out: logs on a real disk, the agent's binary, and a check of its outputs whenever the walk
//! settles.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use super::action::{Action, Output, Walk};
use super::ledger::{Declared, Due, Fault, Kind, Ledger};
use super::line::LineId;
use super::logs::{FileId, Logs, Place};
use super::names::STEMS;
use super::output::{Delivered, Outputs};
use crate::agent::{Agent, Home};
use crate::wait::wait_until;

mod orders;

/// How long the agent may take to see that a file came or went. Nothing depends on it but how much a walk shows.
const NOTICE: Duration = Duration::from_millis(400);
/// How long a checkpoint may take that follows what was delivered. As above.
const SAVED: Duration = Duration::from_millis(1_600);
/// How long a loss may take to be declared once everything else has settled.
const DECLARED: Duration = Duration::from_secs(10);

/// How a walk ended.
#[derive(Clone)]
pub struct Ended {
    /// What went wrong, if anything did.
    pub fault: Option<Fault>,
    /// What was done, an action a line.
    pub story: Vec<String>,
    /// Which actions could be done; those behind the fault are not among them.
    pub done: Vec<usize>,
    /// The end of the agent's log, if something went wrong.
    pub log: String,
}

/// Carries out a walk. An error is one of the test's own, or of the machine.
pub fn run(walk: &Walk, deadline: Duration) -> Result<Ended> {
    let mut stage = Stage::new(walk, deadline)?;
    let fault = match stage.go(walk) {
        Ok(()) => None,
        Err(Stop::Fault(fault)) => Some(fault),
        Err(Stop::Error(error)) => return Err(error.context(format!("in the walk {walk}"))),
    };
    let log = if fault.is_some() { stage.log_end() } else { String::new() };
    if let Some(agent) = stage.agent.take() {
        agent.kill()?;
    }
    Ok(Ended { fault, story: stage.story, done: stage.done, log })
}

/// Why a walk stops early.
enum Stop {
    Fault(Fault),
    Error(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Stop {
    fn from(error: E) -> Stop {
        Stop::Error(error.into())
    }
}

fn fault(kind: Kind, detail: String) -> Stop {
    Stop::Fault(Fault { kind, detail })
}

struct Stage {
    home: Home,
    walk: Walk,
    logs: Logs,
    outputs: Outputs,
    ledger: Ledger,
    agent: Option<Agent>,
    is_frozen: bool,
    /// The config has the logs in it.
    has_source: bool,
    /// The agent's runs so far.
    run: u32,
    deadline: Duration,
    /// Declared by runs that ended, and by this one when it was asked last.
    earlier: Declared,
    latest: Declared,
    /// What an operator took out of outputs before a checkpoint knew of it.
    unsaved: BTreeSet<LineId>,
    /// This run of the agent has looked at the folder, for lines came from there: of a file that comes now it sees the birth.
    has_looked: bool,
    /// How many lines had come before it could look.
    came_before: usize,
    /// A file left the agent's sight since everything had arrived.
    has_left: bool,
    /// The last run was killed: what it delivered last, no checkpoint knows.
    was_killed: bool,
    story: Vec<String>,
    done: Vec<usize>,
}

impl Stage {
    fn new(walk: &Walk, deadline: Duration) -> Result<Stage> {
        let home = Home::new()?;
        let logs = Logs::new(home.path(), walk.setup)?;
        let outputs = Outputs::new(home.path())?;
        Ok(Stage {
            logs,
            outputs,
            home,
            walk: walk.clone(),
            ledger: Ledger::default(),
            agent: None,
            is_frozen: false,
            has_source: true,
            run: 0,
            deadline,
            earlier: Declared::default(),
            latest: Declared::default(),
            unsaved: BTreeSet::new(),
            has_looked: false,
            came_before: 0,
            has_left: false,
            was_killed: false,
            story: Vec::new(),
            done: Vec::new(),
        })
    }

    fn config(&self) -> String {
        let home = self.home.path().display();
        let (file, more) = match self.walk.setup.output {
            Output::Path => ("{path}.ndjson", "max_size: 0"),
            Output::Shared => ("all.ndjson", "max_size: 0"),
            Output::Rotated => ("{path}.ndjson", "max_size: 1KiB, max_files: 0"),
        };
        // Nothing here is so old: with it all is read as without.
        let older = if self.walk.setup.output == Output::Shared { ", ignore_older: 1d" } else { "" };
        let globs = self.walk.setup.pattern.globs();
        let paths: Vec<String> =
            globs.iter().map(|glob| format!("\"{}/{glob}\"", self.logs.folder().display())).collect();
        let other = format!("\"{home}/none/*.log\"");
        let paths = if self.has_source { paths.join(", ") } else { other };
        format!(
            "data_dir: {home}/data\nadmin: {{listen: \"127.0.0.1:0\"}}\nlog: {{level: debug}}\n\
             container_monitor: {{enabled: false}}\nresource_monitoring: {{enabled: false}}\n\
             sinks:\n  local_file: {{directory: {home}/out, file: \"{file}\", compress: none, {more}}}\n\
             file_monitor:\n  files: [{{paths: [{paths}], format: raw{older}}}]\n"
        )
    }

    fn go(&mut self, walk: &Walk) -> Result<(), Stop> {
        for (index, action) in walk.actions.iter().enumerate() {
            // Before it is done: it may be the one that shows the fault.
            self.done.push(index);
            if !self.tell(*action, &format!("{index:3}"))? {
                self.done.pop();
            }
        }
        self.end()
    }

    /// Does an action and notes it.
    fn tell(&mut self, action: Action, at: &str) -> Result<bool, Stop> {
        self.story.push(format!("{at} {action}"));
        let done = self.act(action)?;
        self.note();
        if !done {
            self.story.pop();
        }
        Ok(done)
    }

    /// Everything is brought back, and must have arrived; then once more after a restart.
    fn end(&mut self) -> Result<(), Stop> {
        for action in [Action::Thaw, Action::Start, Action::Reload(true), Action::FolderBack, Action::Settle]
        {
            self.tell(action, "end")?;
        }
        // What comes last is behind what might come a second time.
        for log in 0..STEMS.len() {
            if self.logs.names.contains_key(&Place::Live(log)) {
                self.tell(Action::Append(log, 1), "end")?;
            }
        }
        self.tell(Action::Settle, "end")?;
        let delivered = self.outputs.read();
        let undeclared = |stage: &mut Stage| -> Result<()> {
            stage.sample();
            ensure!(!stage.ledger.is_undeclared(&delivered, stage.declared()), "nothing declared");
            Ok(())
        };
        // What comes of it is judged below.
        let _ = wait_until("a loss to be declared", DECLARED.min(self.deadline), || undeclared(self));
        self.tell(Action::Term, "end")?;
        self.judge()?;
        self.tell(Action::Start, "end")?;
        self.tell(Action::Settle, "end")?;
        self.tell(Action::Term, "end")?;
        self.judge()
    }

    fn judge(&mut self) -> Result<(), Stop> {
        let delivered = self.outputs.read();
        self.check(&delivered)?;
        if let Some(end) = delivered.open_ends.first() {
            return Err(fault(Kind::BrokenOutput, format!("an output ends within a record: {end}")));
        }
        if let Some(line) = self.ledger.missing(&delivered).first() {
            return Err(fault(Kind::TakenBack, format!("{line:?} is gone at the end")));
        }
        let declared = self.declared();
        match self.ledger.wrongly_declared(&delivered, declared, self.logs.broke_a_line || self.logs.has_hole)
        {
            Some(fault) => Err(Stop::Fault(fault)),
            None => Ok(()),
        }
    }

    fn check(&self, delivered: &Delivered) -> Result<(), Stop> {
        match self.ledger.wrong(delivered, !self.outputs.order_is_lost) {
            Some(fault) => Err(Stop::Fault(fault)),
            None => Ok(()),
        }
    }

    /// Does an action, if it can be done here, and tells the ledger what left the agent's sight by it.
    fn act(&mut self, action: Action) -> Result<bool, Stop> {
        let plain =
            matches!(action, Action::Append(..) | Action::Part(_) | Action::Late(..) | Action::Create(_));
        let agents = matches!(action, Action::Settle | Action::Notice | Action::Saved | Action::Output(_));
        if plain || agents {
            return self.carry_out(action);
        }
        let before = self.seen()?;
        let tells_loss: Vec<bool> = self.logs.files.iter().map(|info| info.tells_loss).collect();
        let overwrites =
            matches!(action, Action::CopyTruncate(..) | Action::Truncate(_) | Action::Rewrite(..));
        let files_before = self.files_in_sight();
        let (run, has_agent) = (self.run, self.agent.is_some() && self.has_source);
        let done = self.carry_out(action)?;
        self.note();
        let after = self.seen()?;
        for (line, file) in before.into_iter().filter(|(line, _)| !after.contains_key(line)) {
            let info = &self.logs.files[file];
            let due = if overwrites {
                Due::Overwritten(file, tells_loss[file])
            } else if has_agent && self.agent.is_some() && self.run == run && info.open_in == Some(run) {
                Due::Open(run)
            } else {
                Due::Perhaps
            };
            self.ledger.left_sight(line, due);
        }
        let files_after = self.files_in_sight();
        let gone: Vec<FileId> = files_before.into_iter().filter(|file| !files_after.contains(file)).collect();
        self.has_left |= !gone.is_empty();
        // What happened to a file that is gone nobody can tell who was not there, or had not looked into it yet. A reload ends
        // a run, too.
        let unread = |file: &FileId| !has_agent || !self.logs.files[*file].known;
        let ended = done && matches!(action, Action::Reload(_)) || self.run_ended(run, has_agent);
        self.ledger.is_doubtful |= gone.iter().any(unread) || self.has_left && ended;
        if overwrites && done && !matches!(action, Action::CopyTruncate(_, _, false)) {
            self.ledger.is_doubtful = true;
        }
        Ok(done)
    }

    fn carry_out(&mut self, action: Action) -> Result<bool, Stop> {
        let logs = &mut self.logs;
        Ok(match action {
            Action::Append(log, lines) => logs.append(log, lines, false)?,
            Action::Part(log) => logs.append(log, 0, true)?,
            Action::Late(log, lines) => logs.late(log, lines)?,
            Action::Create(log) => logs.create(log)?,
            Action::Rotate(log, scheme, create) => logs.rotate(log, scheme, create)?,
            Action::CopyTruncate(log, scheme, torn) => logs.copy_truncate(log, scheme, torn)?,
            Action::Copy(log, scheme) => logs.copy(log, scheme)?,
            Action::Link(log, scheme) => logs.link(log, scheme)?,
            Action::Gzip(log) => logs.gzip(log)?,
            Action::Prune(log) => logs.prune(log)?,
            Action::Truncate(log) => logs.truncate(log)?,
            Action::Rewrite(log, length, emptied) => logs.rewrite(log, length, emptied)?,
            Action::Unlink(log) => logs.unlink(log)?,
            Action::Replace(log) => logs.replace(log, false)?,
            Action::Restore(log) => logs.replace(log, true)?,
            Action::Away(log) => logs.move_away(log)?,
            Action::Back(log) => logs.move_back(log)?,
            Action::FolderAway => logs.move_folder(true)?,
            Action::FolderBack => {
                let done = logs.move_folder(false)?;
                self.has_yet_to_look();
                done
            }
            Action::Output(kind) => {
                if self.agent.is_some() && !self.is_frozen {
                    self.settle()?;
                }
                self.take_output(kind)?
            }
            Action::Reload(with) => self.reload(with)?,
            Action::Freeze => self.freeze(true),
            Action::Thaw => self.freeze(false),
            Action::Term if self.agent.is_none() || self.is_frozen => false,
            Action::Term => self.terminate().map(|()| true)?,
            Action::Kill => self.kill()?,
            Action::Start if self.agent.is_some() => false,
            Action::Start => self.start().map(|()| true)?,
            Action::Settle if self.agent.is_none() || self.is_frozen => false,
            Action::Settle => self.settle().map(|()| true)?,
            Action::Notice => self.notice(),
            Action::Saved => self.saved(),
        })
    }

    /// What was written goes into the ledger, and what the agent sees of files to come is set.
    fn note(&mut self) {
        for id in self.logs.fresh.drain(..) {
            self.ledger.wrote(id);
        }
        self.ledger.begun.extend(self.logs.begun.drain(..));
        let sees_births = self.agent.is_some() && self.has_source && self.has_looked;
        self.logs.watched_by = sees_births.then_some(self.run);
    }

    /// The lines in sight, each with a file it stands in.
    fn seen(&self) -> Result<BTreeMap<LineId, FileId>> {
        let mut seen = BTreeMap::new();
        if self.has_source {
            for (place, file) in &self.logs.names {
                if self.logs.is_seen(*place) {
                    let lines = self.logs.lines_at(*place)?;
                    seen.extend(lines.into_iter().map(|line| (line, *file)));
                }
            }
        }
        Ok(seen)
    }

    /// The files that are in sight of an agent whose config has the logs in it.
    fn files_in_sight(&self) -> BTreeSet<FileId> {
        let in_sight = |(place, _): &(&Place, &FileId)| self.logs.is_seen(**place);
        self.logs.names.iter().filter(in_sight).map(|(_, file)| *file).collect()
    }

    /// Whether the run that there was has ended since.
    fn run_ended(&self, run: u32, had_agent: bool) -> bool {
        had_agent && (self.agent.is_none() || self.run != run)
    }

    /// Waits until everything has arrived that must, and looks at what came.
    fn settle(&mut self) -> Result<(), Stop> {
        self.note();
        let seen: BTreeSet<LineId> = self.seen()?.into_keys().collect();
        let mut files = self.files_in_sight();
        files.retain(|_| self.has_source);
        self.ledger.look(&seen, &files);
        let delivered = self.wait_for_all()?;
        self.check(&delivered)?;
        self.ledger.came(&delivered);
        self.sample();
        self.has_left = false;
        self.has_looked |= delivered.count() > self.came_before;
        for (place, file) in &self.logs.names {
            if !files.contains(file) {
                continue;
            }
            // If nothing stands in it, the agent may not have come to it yet.
            let is_read = !self.logs.lines_at(*place)?.is_empty();
            let info = &mut self.logs.files[*file];
            info.known |= is_read;
            (info.tells_loss, info.open_in) = (is_read, None);
            if !is_read {
                continue;
            }
            if let Place::Live(log) = place {
                self.logs.followed[*log] = true;
            }
        }
        for (place, file) in &self.logs.names {
            let is_read = files.contains(file) && self.logs.files[*file].known;
            if matches!(place, Place::Live(_)) && is_read {
                self.logs.files[*file].open_in = Some(self.run);
            }
        }
        Ok(())
    }

    fn wait_for_all(&mut self) -> Result<Delivered, Stop> {
        let mut last = Vec::new();
        let mut missing = Vec::new();
        let mut looks = 0_u32;
        let ledger = &self.ledger;
        let (outputs, agent) = (&self.outputs, self.agent.as_ref().context("no agent to settle")?);
        let arrived = wait_until("all lines to arrive", self.deadline, || {
            looks += 1;
            let print = outputs.print();
            let is_alive = !looks.is_multiple_of(64) || agent.connect().is_ok();
            if !last.is_empty() && print == last && is_alive {
                return None;
            }
            last = print;
            let delivered = outputs.read();
            missing = ledger.missing(&delivered);
            // Wrong is wrong, whatever else may come.
            let is_over = missing.is_empty() || !is_alive || ledger.wrong(&delivered, false).is_some();
            is_over.then_some(delivered)
        });
        let delivered = arrived.unwrap_or_else(|_| self.outputs.read());
        self.check(&delivered)?;
        let missing = self.ledger.missing(&delivered);
        if missing.is_empty() {
            return Ok(delivered);
        }
        if agent.connect().is_err() {
            return Err(fault(Kind::Died, "the agent does not answer any more".to_owned()));
        }
        Err(self.describe(&missing))
    }

    fn describe(&self, missing: &[LineId]) -> Stop {
        let came = |line: &LineId| self.ledger.lines.get(line).is_some_and(|entry| entry.came);
        let kind = if missing.iter().any(came) { Kind::TakenBack } else { Kind::Missing };
        let first = missing.iter().find(|line| kind == Kind::Missing || came(line)).unwrap_or(&missing[0]);
        let mut places = Vec::new();
        for place in self.logs.names.keys() {
            if self.logs.lines_at(*place).is_ok_and(|lines| lines.contains(first)) {
                places.push(Logs::name(*place));
            }
        }
        let places = if places.is_empty() { "no file".to_owned() } else { places.join(", ") };
        let streams = self.agent.as_ref().and_then(|agent| agent.streams().ok()).unwrap_or_default();
        let streams: Vec<String> = streams.iter().map(ToString::to_string).collect();
        fault(
            kind,
            format!(
                "{} lines, such as {first:?}, which stands in {places}; declared {:?}; streams {}",
                missing.len(),
                self.declared(),
                streams.join(" ")
            ),
        )
    }
}
