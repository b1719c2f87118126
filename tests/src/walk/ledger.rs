//! The model: every line that was written, whether it must be delivered, and whether the output agrees.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};

use super::line::LineId;
use super::logs::FileId;
use super::output::Delivered;

/// Whether a line must be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// It may come: the agent had no time to look yet, or the line was gone before it had.
    Perhaps,
    /// It was in a file that this run of the agent has open. Whatever happens to the file's name, the host still has
    /// it.
    Open(u32),
    /// It was overwritten before the agent had certainly read it. If it is not delivered, that is a loss, which must be
    /// declared if the agent knew the file.
    Overwritten(FileId, bool),
    /// It must be delivered: it was in a file in sight, and the agent had time.
    Must,
}

/// What is known of one line.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// What has to become of it.
    pub due: Due,
    /// It was seen in an output.
    pub came: bool,
    /// An operator took it out of the output before a checkpoint knew of it, and the agent was killed: it may come again.
    pub may_repeat: bool,
}

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A line that stood in sight did not come.
    Missing,
    /// A line had come, and is not in the output any more.
    TakenBack,
    /// A line came twice.
    Twice,
    /// Something came that was never written.
    Altered,
    /// A part of a line came, though the line was whole in the end.
    Torn,
    /// A line came before an earlier one of the same file.
    Order,
    /// Lines were overwritten, did not come, and no loss was declared.
    Silent,
    /// A loss was declared, and nothing is missing.
    FalseLoss,
    /// A possible loss was declared in a history in which nothing could be lost.
    FalsePossible,
    /// A line of an output is no record.
    BrokenOutput,
    /// The agent ended, or did not start.
    Died,
    /// The agent did not end as it should when told to.
    BadEnd,
    /// A reload was refused.
    Reload,
}

/// What went wrong.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What kind of thing.
    pub kind: Kind,
    /// In words.
    pub detail: String,
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.detail)
    }
}

/// Losses that the agent declared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Declared {
    /// `losses_total`, and bytes of `lost_bytes_total`.
    pub known: f64,
    /// `possible_losses_total`.
    pub possible: f64,
}

impl Declared {
    /// What a page of metrics says. A metric that is not there counts as zero.
    pub fn in_metrics(text: &str) -> Declared {
        let sum = |name: &str| -> f64 {
            let lines = text
                .lines()
                .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
        };
        Declared {
            known: sum("log_capturer_losses_total") + sum("log_capturer_lost_bytes_total"),
            possible: sum("log_capturer_possible_losses_total"),
        }
    }
}

/// All lines.
#[derive(Default)]
pub struct Ledger {
    /// Every whole line.
    pub lines: BTreeMap<LineId, Entry>,
    /// Every line that was begun.
    pub begun: BTreeSet<LineId>,
    /// Overwritten lines of files that the agent knew and looked at since: if they did not come, it must say so.
    must_be_declared: BTreeSet<LineId>,
    /// Something happened after which an honest agent may say that it lost something, perhaps.
    pub is_doubtful: bool,
}

impl Ledger {
    /// A line was written.
    pub fn wrote(&mut self, id: LineId) {
        self.lines.insert(id, Entry { due: Due::Perhaps, came: false, may_repeat: false });
    }

    /// A line was in a file in sight, and is in none now.
    pub fn left_sight(&mut self, id: LineId, due: Due) {
        if let Some(entry) = self.lines.get_mut(&id).filter(|entry| entry.due != Due::Must) {
            self.is_doubtful = true;
            entry.due = due;
        }
    }

    /// A run of the agent ended, or closed its files: what it had open and did not read may be gone.
    pub fn closed(&mut self) {
        for entry in self.lines.values_mut() {
            if matches!(entry.due, Due::Open(_)) {
                entry.due = Due::Perhaps;
            }
        }
    }

    /// The agent has time to look now: what must have come in the end. `still_there` says which files are in sight.
    pub fn look(&mut self, seen: &BTreeSet<LineId>, still_there: &BTreeSet<FileId>) {
        for (id, entry) in &mut self.lines {
            match entry.due {
                _ if seen.contains(id) => entry.due = Due::Must,
                Due::Open(_) => entry.due = Due::Must,
                Due::Overwritten(file, true) if still_there.contains(&file) => {
                    self.must_be_declared.insert(*id);
                    entry.due = Due::Perhaps;
                }
                Due::Overwritten(..) => entry.due = Due::Perhaps,
                Due::Perhaps | Due::Must => {}
            }
        }
    }

    /// The lines that must be there and are not.
    pub fn missing(&self, delivered: &Delivered) -> Vec<LineId> {
        let came: BTreeSet<&str> = delivered.messages.values().flatten().map(String::as_str).collect();
        let due = self.lines.iter().filter(|(_, entry)| entry.due == Due::Must);
        due.map(|(id, _)| *id).filter(|id| !came.contains(id.line().as_str())).collect()
    }

    /// Whether a loss is still to be declared.
    pub fn is_undeclared(&self, delivered: &Delivered, declared: Declared) -> bool {
        declared.known + declared.possible == 0.0 && !self.lost_in_silence(delivered).is_empty()
    }

    fn lost_in_silence(&self, delivered: &Delivered) -> Vec<LineId> {
        let came: BTreeSet<&str> = delivered.messages.values().flatten().map(String::as_str).collect();
        self.must_be_declared.iter().copied().filter(|id| !came.contains(id.line().as_str())).collect()
    }

    /// What is in outputs is there for good.
    pub fn came(&mut self, delivered: &Delivered) {
        for message in delivered.messages.values().flatten() {
            let Some(entry) = LineId::of(message).and_then(|id| self.lines.get_mut(&id)) else { continue };
            entry.due = Due::Must;
            entry.came = true;
        }
    }

    /// What is wrong with what came.
    pub fn wrong(&self, delivered: &Delivered, with_order: bool) -> Option<Fault> {
        let fault = |kind, detail| Some(Fault { kind, detail });
        if let Some(broken) = delivered.broken.first() {
            return fault(Kind::BrokenOutput, format!("{} lines, such as {broken}", delivered.broken.len()));
        }
        for (output, messages) in &delivered.messages {
            for message in messages {
                if let Err(fault) = self.is_right(message) {
                    return Some(Fault { detail: format!("{output}: {}", fault.detail), ..fault });
                }
            }
        }
        if let Some(detail) = self.twice(delivered) {
            return fault(Kind::Twice, detail);
        }
        let out_of_order = delivered.messages.iter().find_map(|(output, messages)| {
            self.out_of_order(messages).map(|detail| format!("{output}: {detail}"))
        });
        fault(Kind::Order, out_of_order.filter(|_| with_order)?)
    }

    fn may_repeat(&self, message: &str) -> bool {
        let entry = LineId::of(message).and_then(|id| self.lines.get(&id));
        entry.is_some_and(|entry| entry.may_repeat)
    }

    fn twice(&self, delivered: &Delivered) -> Option<String> {
        let mut times: BTreeMap<&str, usize> = BTreeMap::new();
        for message in delivered.messages.values().flatten() {
            *times.entry(message).or_default() += 1;
        }
        times.retain(|message, count| *count > 1 && !self.may_repeat(message));
        let (first, _) = times.first_key_value()?;
        let counted = delivered
            .messages
            .iter()
            .map(|(name, messages)| (messages.iter().filter(|message| message == first).count(), name));
        let counted = counted.filter(|(count, _)| *count > 0);
        let outputs: Vec<String> = counted.map(|(count, name)| format!("{count} × in {name}")).collect();
        Some(format!("{} lines, such as {first:.12} ({})", times.len(), outputs.join(", ")))
    }

    fn out_of_order(&self, messages: &[String]) -> Option<String> {
        let mut last: BTreeMap<u16, LineId> = BTreeMap::new();
        for message in messages.iter().filter(|message| !self.may_repeat(message)) {
            let id = LineId::of(message)?;
            let before = last.insert(id.text, id);
            if let Some(before) = before.filter(|before| *before > id) {
                return Some(format!("{id:?} after {before:?}"));
            }
        }
        None
    }

    /// Which line a message is; what is wrong with it if it is none.
    fn is_right(&self, message: &str) -> Result<LineId, Fault> {
        let altered = || Fault {
            kind: Kind::Altered,
            detail: format!("{} bytes: {:?}", message.len(), message.chars().take(120).collect::<String>()),
        };
        let id = LineId::of(message).ok_or_else(altered)?;
        let line = id.line();
        match (line == message, self.lines.contains_key(&id)) {
            (true, true) => Ok(id),
            (false, true) if line.starts_with(message) => Err(Fault {
                kind: Kind::Torn,
                detail: format!("{} of {} bytes of {id:?}", message.len(), line.len()),
            }),
            (false, false) if self.begun.contains(&id) && line.starts_with(message) => Ok(id),
            _ => Err(altered()),
        }
    }

    /// What is wrong with what was declared, in the end.
    pub fn wrongly_declared(
        &self,
        delivered: &Delivered,
        declared: Declared,
        broke_a_line: bool,
    ) -> Option<Fault> {
        let came: BTreeSet<&str> = delivered.messages.values().flatten().map(String::as_str).collect();
        let silent = self.lost_in_silence(delivered);
        if !silent.is_empty() && declared.known + declared.possible == 0.0 {
            let detail =
                format!("{} lines are missing, such as {:?}; nothing is declared", silent.len(), silent[0]);
            return Some(Fault { kind: Kind::Silent, detail });
        }
        let all_came = self.lines.keys().all(|id| came.contains(id.line().as_str()));
        if declared.known > 0.0 && all_came && !broke_a_line {
            let detail = format!("losses and bytes declared: {}; all lines came", declared.known);
            return Some(Fault { kind: Kind::FalseLoss, detail });
        }
        if declared.possible > 0.0 && all_came && !broke_a_line && !self.is_doubtful {
            let detail = format!("possible losses declared: {}; nothing could be lost", declared.possible);
            return Some(Fault { kind: Kind::FalsePossible, detail });
        }
        None
    }
}
