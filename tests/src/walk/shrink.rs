//! From a walk that shows a fault to the fewest actions that still show one of its kind.
//!
//! Chunks of actions are left out, halves first, then single ones, as long as the fault stays (Zeller's delta
//! debugging, without its complements); then the setup is simplified. Many faults are races, so a walk that does not
//! fail at once is tried once more.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::action::{Action, Output, Walk, Writer};
use super::ledger::Kind;
use super::names::{STEMS, Scheme};
use super::stage::{self, Ended};

/// How long lines may take to arrive, at least. The agent has waits of some seconds for writers that are late.
const SHORT_MIN: Duration = Duration::from_secs(8);

/// The walk that is left, and how it ended. `budget` bounds the time it takes; what was found till then counts.
pub fn shrink(walk: &Walk, ended: Ended, deadline: Duration, budget: Duration) -> Result<(Walk, Ended)> {
    let Some(fault) = &ended.fault else { return Ok((walk.clone(), ended)) };
    let kind = fault.kind;
    // What never came is known by waiting, so less of it for each try, and all of it for what is left.
    let short = (deadline / 4).max(SHORT_MIN).min(deadline);
    let first = (walk.clone(), ended);
    let until = Instant::now() + budget;
    let mut shrinking =
        Shrinking { best: first.0.clone(), ended: first.1.clone(), kind, deadline: short, until };
    shrinking.needless()?;
    shrinking.actions()?;
    shrinking.simpler()?;
    // What stands beside a simpler action may not be needed any more.
    shrinking.actions()?;
    if short < deadline && shrinking.best != first.0 {
        let again = stage::run(&shrinking.best, deadline)?;
        if again.fault.as_ref().is_none_or(|fault| fault.kind != kind) {
            // It was only late. So at least what was not needed goes.
            (shrinking.best, shrinking.ended, shrinking.deadline) = (first.0, first.1, deadline);
            shrinking.until = Instant::now() + deadline * 3;
            shrinking.needless()?;
            return Ok((shrinking.best, shrinking.ended));
        }
        shrinking.ended = again;
    }
    Ok((shrinking.best, shrinking.ended))
}

struct Shrinking {
    best: Walk,
    ended: Ended,
    kind: Kind,
    deadline: Duration,
    until: Instant,
}

impl Shrinking {
    /// Takes `walk` if it still fails in the same way.
    fn try_walk(&mut self, walk: &Walk, tries: usize) -> Result<bool> {
        for _ in 0..tries {
            if *walk == self.best || Instant::now() >= self.until {
                return Ok(false);
            }
            let ended = stage::run(walk, self.deadline)?;
            if ended.fault.as_ref().is_some_and(|fault| fault.kind == self.kind) {
                (self.best, self.ended) = (walk.clone(), ended);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Leaves out what could not be done, and what came behind the fault.
    fn needless(&mut self) -> Result<()> {
        let mut walk = self.best.clone();
        walk.actions = self.ended.done.iter().filter_map(|at| walk.actions.get(*at).copied()).collect();
        self.try_walk(&walk, 3).map(|_| ())
    }

    fn actions(&mut self) -> Result<()> {
        let mut size = self.best.actions.len().div_ceil(2);
        while size > 0 {
            let mut at = 0;
            while at < self.best.actions.len() {
                let mut walk = self.best.clone();
                let end = (at + size).min(walk.actions.len());
                walk.actions.drain(at..end);
                if !self.try_walk(&walk, 2)? {
                    at += size;
                }
            }
            size /= 2;
        }
        Ok(())
    }

    fn simpler(&mut self) -> Result<()> {
        let mut walk = self.best.clone();
        walk.setup.output = Output::Path;
        self.try_walk(&walk, 1)?;
        for log in 0..STEMS.len() {
            let mut walk = self.best.clone();
            walk.setup.writers[log] = Writer::Each;
            self.try_walk(&walk, 1)?;
        }
        for at in 0..self.best.actions.len() {
            let mut walk = self.best.clone();
            if at < walk.actions.len() && simplify(&mut walk.actions[at]) {
                self.try_walk(&walk, 1)?;
            }
        }
        Ok(())
    }
}

/// The same in its plainest form; whether that is another.
fn simplify(action: &mut Action) -> bool {
    let plain = Scheme::kin().next();
    let simple = match (*action, plain) {
        (Action::Append(log, _), _) => Action::Append(log, 2),
        (Action::Late(log, _), _) => Action::Late(log, 1),
        (Action::Rotate(log, _, _), Some(scheme)) => Action::Rotate(log, scheme, true),
        (Action::CopyTruncate(log, _, torn), Some(scheme)) => Action::CopyTruncate(log, scheme, torn),
        (Action::Copy(log, _), Some(scheme)) => Action::Copy(log, scheme),
        (Action::Link(log, _), Some(scheme)) => Action::Link(log, scheme),
        (other, _) => other,
    };
    let differs = simple != *action;
    *action = simple;
    differs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plainest_form_stays() {
        for text in ["append b 7", "rotate a app.y-m-d.log nocreate", "kill", "late c 3"] {
            let mut action = Action::parse(text).unwrap();
            simplify(&mut action);
            assert!(!simplify(&mut action), "{action}");
        }
    }
}
