//! From a seed to a walk. A pure function: the same seed is the same walk on every machine.
//!
//! Each seed leaves some kinds of actions out and prefers others (a "swarm"): walks in which everything happens a little
//! find less than walks that do a few things often.

use crate::rand::Rand;

use super::action::{Action, Length, Log, Output, OutputAction, Setup, Walk, Writer};
use super::names::{Pattern, STEMS, Scheme};

/// How many actions a walk has, beside the waiting between them.
const ACTIONS: std::ops::Range<usize> = 5..26;

/// What kinds of actions there are, and how often each is drawn where it is drawn at all.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Append,
    Part,
    Late,
    Rotate,
    CopyTruncate,
    Copy,
    Link,
    Gzip,
    Prune,
    Truncate,
    Rewrite,
    Unlink,
    Replace,
    Restore,
    Away,
    Folder,
    Output,
    Reload,
    Freeze,
    Term,
    Kill,
}

const SORTS: [(Sort, u64); 21] = [
    (Sort::Append, 12),
    (Sort::Part, 2),
    (Sort::Late, 4),
    (Sort::Rotate, 8),
    (Sort::CopyTruncate, 4),
    (Sort::Copy, 2),
    (Sort::Link, 2),
    (Sort::Gzip, 4),
    (Sort::Prune, 3),
    (Sort::Truncate, 2),
    (Sort::Rewrite, 3),
    (Sort::Unlink, 2),
    (Sort::Replace, 2),
    (Sort::Restore, 2),
    (Sort::Away, 3),
    (Sort::Folder, 2),
    (Sort::Output, 2),
    (Sort::Reload, 2),
    (Sort::Freeze, 2),
    (Sort::Term, 3),
    (Sort::Kill, 3),
];

/// The walk of this seed.
pub fn generate(seed: u64) -> Walk {
    let mut rand = Rand::new(seed);
    let setup = Setup {
        pattern: rand.pick(&Pattern::ALL).0,
        output: rand.pick(&[Output::Path, Output::Path, Output::Shared, Output::Rotated]).to_owned(),
        writers: std::array::from_fn(|_| rand.pick(&Writer::ALL).0),
    };
    let mut drawing = Drawing::new(rand);
    drawing.walk();
    Walk { setup, actions: drawing.actions }
}

struct Drawing {
    rand: Rand,
    /// What this walk is made of, each as often as it is likely.
    sorts: Vec<Sort>,
    logs: usize,
    /// How each log is rotated, as a rule.
    schemes: [Scheme; STEMS.len()],
    /// Out of ten: how often the agent has time before something is destroyed, and after anything else.
    careful: u64,
    settles: u64,
    actions: Vec<Action>,
    /// As far as the drawing knows. An action that does not fit is left out when the walk is run.
    running: bool,
    frozen: bool,
    source: bool,
    folder: bool,
}

impl Drawing {
    fn new(mut rand: Rand) -> Drawing {
        let kept = rand.within(25..90);
        let mut sorts = Vec::new();
        for (sort, weight) in SORTS {
            let factor = rand.within(1..4);
            if matches!(sort, Sort::Append | Sort::Rotate) || rand.chance(kept, 100) {
                sorts.extend(std::iter::repeat_n(sort, (weight * factor) as usize));
            }
        }
        let all: Vec<Scheme> = Scheme::all().collect();
        let kin: Vec<Scheme> = Scheme::kin().collect();
        // Half of all logs are rotated in the ways that everybody knows.
        let schemes =
            std::array::from_fn(|_| if rand.chance(1, 2) { *rand.pick(&kin) } else { *rand.pick(&all) });
        Drawing {
            sorts,
            logs: rand.index(1..STEMS.len() + 1),
            schemes,
            careful: *rand.pick(&[10, 10, 9, 6]),
            settles: rand.within(1..6),
            actions: Vec::new(),
            running: false,
            frozen: false,
            source: true,
            folder: true,
            rand,
        }
    }

    fn walk(&mut self) {
        // Some logs are older than the agent.
        for log in 0..self.logs {
            if self.rand.chance(1, 2) {
                self.append(log);
            }
        }
        self.start();
        let settles = self.rand.chance(3, 4);
        self.maybe(settles, Action::Settle);
        for _ in 0..self.rand.index(ACTIONS) {
            let sort = *self.rand.pick(&self.sorts);
            self.draw(sort);
            let settles = self.rand.chance(self.settles, 10);
            self.maybe(settles, Action::Settle);
        }
    }

    fn maybe(&mut self, whether: bool, action: Action) {
        if whether {
            self.actions.push(action);
        }
    }

    fn start(&mut self) {
        self.actions.push(Action::Start);
        (self.running, self.frozen) = (true, false);
    }

    fn append(&mut self, log: Log) {
        let lines = self.rand.within(1..9) as u32;
        self.actions.push(Action::Append(log, lines));
    }

    /// Before what can't be undone.
    fn take_care(&mut self) {
        let careful = self.rand.chance(self.careful, 10);
        self.maybe(careful, Action::Settle);
    }

    fn scheme(&mut self, log: Log) -> Scheme {
        let all: Vec<Scheme> = Scheme::all().collect();
        if self.rand.chance(5, 6) { self.schemes[log] } else { *self.rand.pick(&all) }
    }

    /// What copies is logrotate, which names its files in documented ways. A copy under another name is another log.
    fn copy_scheme(&mut self, log: Log) -> Scheme {
        let kin: Vec<Scheme> = Scheme::kin().collect();
        if self.schemes[log].is_kin() { self.schemes[log] } else { *self.rand.pick(&kin) }
    }

    fn draw(&mut self, sort: Sort) {
        let log = self.rand.index(0..self.logs);
        match sort {
            Sort::Append if self.rand.chance(1, 12) => self.actions.push(Action::Create(log)),
            Sort::Append => self.append(log),
            Sort::Part => self.actions.push(Action::Part(log)),
            Sort::Late => {
                let lines = self.rand.within(1..4) as u32;
                self.actions.push(Action::Late(log, lines));
            }
            Sort::Rotate => {
                let (scheme, create) = (self.scheme(log), self.rand.chance(2, 3));
                self.actions.push(Action::Rotate(log, scheme, create));
                let goes_on = self.rand.chance(2, 3);
                if goes_on {
                    self.append(log);
                }
            }
            Sort::CopyTruncate => {
                let torn = self.rand.chance(1, 8);
                if torn {
                    self.take_care();
                }
                let scheme = self.copy_scheme(log);
                self.actions.push(Action::CopyTruncate(log, scheme, torn));
            }
            Sort::Copy => {
                let scheme = self.copy_scheme(log);
                self.actions.push(Action::Copy(log, scheme));
            }
            Sort::Link => {
                let scheme = self.scheme(log);
                self.actions.push(Action::Link(log, scheme));
            }
            Sort::Gzip => self.actions.push(Action::Gzip(log)),
            Sort::Restore => self.actions.push(Action::Restore(log)),
            Sort::Prune | Sort::Truncate | Sort::Rewrite | Sort::Unlink | Sort::Replace => {
                self.take_care();
                self.destroy(sort, log);
            }
            Sort::Away => self.away(log),
            Sort::Folder => self.folder(),
            Sort::Output => {
                let kinds = [
                    OutputAction::Empty,
                    OutputAction::Move,
                    OutputAction::Remove,
                    OutputAction::CopyTruncate,
                    OutputAction::RemoveFolder,
                ];
                let saved = self.rand.chance(1, 3);
                self.maybe(saved, Action::Saved);
                let kind = *self.rand.pick(&kinds);
                self.actions.push(Action::Output(kind));
            }
            Sort::Reload => {
                self.source = !self.source || self.rand.chance(1, 2);
                self.actions.push(Action::Reload(self.source));
            }
            Sort::Freeze => {
                self.frozen = !self.frozen;
                self.actions.push(if self.frozen { Action::Freeze } else { Action::Thaw });
            }
            Sort::Term | Sort::Kill => self.restart(sort),
        }
    }

    fn destroy(&mut self, sort: Sort, log: Log) {
        self.actions.push(match sort {
            Sort::Prune => Action::Prune(log),
            Sort::Truncate => Action::Truncate(log),
            Sort::Unlink => Action::Unlink(log),
            Sort::Replace => Action::Replace(log),
            _ => {
                let length = *self.rand.pick(&[Length::Shorter, Length::Same, Length::Longer]);
                Action::Rewrite(log, length, self.rand.chance(1, 2))
            }
        });
    }

    fn away(&mut self, log: Log) {
        if self.rand.chance(1, 2) {
            self.take_care();
            self.actions.push(Action::Away(log));
            let (seen, goes_on) = (self.rand.chance(2, 3), self.rand.chance(1, 2));
            self.maybe(seen, Action::Notice);
            if goes_on {
                return;
            }
        }
        self.actions.push(Action::Back(log));
    }

    fn folder(&mut self) {
        self.folder = !self.folder;
        self.actions.push(if self.folder { Action::FolderBack } else { Action::FolderAway });
        let seen = self.rand.chance(2, 3);
        self.maybe(seen, Action::Notice);
    }

    fn restart(&mut self, sort: Sort) {
        if !self.running {
            return self.start();
        }
        let saved = self.rand.chance(1, 3);
        self.maybe(saved && sort == Sort::Kill, Action::Saved);
        self.actions.push(if sort == Sort::Kill { Action::Kill } else { Action::Term });
        self.running = false;
        if self.rand.chance(1, 2) {
            self.start();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// An action that is never drawn is never tested.
    #[test]
    fn everything_is_drawn() {
        let mut verbs = BTreeSet::new();
        let mut schemes = BTreeSet::new();
        for seed in 0..2_000 {
            for action in generate(seed).actions {
                verbs.insert(action.to_string().split(' ').next().unwrap_or_default().to_owned());
                if let Action::Rotate(_, scheme, _) = action {
                    schemes.insert(scheme);
                }
            }
        }
        assert_eq!(verbs.len(), 29, "{verbs:?}");
        assert_eq!(schemes.len(), Scheme::all().count());
    }

    #[test]
    fn a_seed_is_one_walk() {
        for seed in 0..50 {
            assert_eq!(generate(seed), generate(seed));
            assert_ne!(generate(seed), generate(seed + 1));
        }
    }
}
