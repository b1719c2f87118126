//! Containers of which only events, or a row of a list, were seen so far. One that lives for milliseconds may be
//! removed before it is inspected, and so may one that waits among thousands. Then all that can be done is to report by
//! name that it was missed.

use std::collections::BTreeMap;

use crate::model::docker::EventFacts;

/// At most this many are kept by name.
const GLIMPSES_MAX: usize = 10_000;

/// A container that ran and was removed before it could be inspected.
#[derive(Clone, Debug, Default)]
pub struct Missed {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Name, image and labels, as its events or the list had them.
    pub facts: EventFacts,
    /// It ran before anybody saw it: nobody knows whether it printed anything since it was last read, if ever.
    pub ran_before: bool,
}

/// What the events of a container said.
#[derive(Debug, Default)]
struct Glimpse {
    facts: EventFacts,
    /// It has run, so it may have printed something.
    started: bool,
    ran_before: bool,
    destroyed: bool,
}

/// Containers that were only glimpsed.
#[derive(Debug, Default)]
pub(super) struct Glimpses {
    by_id: BTreeMap<String, Glimpse>,
}

impl Glimpses {
    /// An event named a container that was not inspected yet. `facts` is called only for the first event.
    pub fn see(&mut self, id: &str, action: &str, facts: impl FnOnce() -> EventFacts) {
        if !self.by_id.contains_key(id) && self.by_id.len() >= GLIMPSES_MAX {
            return;
        }
        let new = || Glimpse { facts: facts(), ..Glimpse::default() };
        let glimpse = self.by_id.entry(id.to_owned()).or_insert_with(new);
        glimpse.started |= action == "start";
        glimpse.destroyed |= action == "destroy";
    }

    /// A list names a container that was not inspected yet and runs, or has run.
    pub fn list(&mut self, id: &str, facts: EventFacts) {
        if self.by_id.len() < GLIMPSES_MAX && !self.by_id.contains_key(id) {
            self.by_id.insert(id.to_owned(), Glimpse { facts, ran_before: true, ..Glimpse::default() });
        }
    }

    /// Whether an event has named it.
    pub fn is_seen(&self, id: &str) -> bool {
        self.by_id.contains_key(id)
    }

    /// Whether it was removed while an inspection was under way.
    pub fn is_destroyed(&self, id: &str) -> bool {
        self.by_id.get(id).is_some_and(|glimpse| glimpse.destroyed)
    }

    /// It was inspected, and runs or has run: its stream does the rest.
    pub fn looked_at(&mut self, id: &str) {
        self.by_id.remove(id);
    }

    /// It was inspected and had not run yet. Its start may be the last that is seen of it.
    pub fn has_not_run(&mut self, id: &str, facts: impl FnOnce() -> EventFacts) {
        self.see(id, "", facts);
    }

    /// It was removed. Returns what was missed with it.
    pub fn gone(&mut self, id: &str) -> Option<Missed> {
        let glimpse = self.by_id.remove(id).filter(|glimpse| glimpse.started || glimpse.ran_before)?;
        Some(Missed { id: id.to_owned(), facts: glimpse.facts, ran_before: glimpse.ran_before })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> EventFacts {
        EventFacts { name: "short".to_owned(), ..EventFacts::default() }
    }

    #[test]
    fn one_that_ran_and_went_unseen_was_missed() {
        let mut glimpses = Glimpses::default();
        glimpses.see("a", "create", facts);
        glimpses.see("a", "start", || panic!("known"));
        assert!(!glimpses.is_destroyed("a"));
        glimpses.see("a", "destroy", facts);
        assert!(glimpses.is_destroyed("a"));
        assert_eq!(glimpses.gone("a").expect("missed").facts.name, "short");
        assert!(glimpses.gone("a").is_none(), "once");
    }

    #[test]
    fn one_that_never_ran_or_was_looked_at_was_not() {
        let mut glimpses = Glimpses::default();
        glimpses.see("a", "create", facts);
        assert!(glimpses.gone("a").is_none());
        glimpses.see("b", "start", facts);
        glimpses.looked_at("b");
        assert!(glimpses.gone("b").is_none());
    }

    #[test]
    fn one_that_had_not_run_when_it_was_looked_at_can_still_be_missed() {
        let mut glimpses = Glimpses::default();
        glimpses.has_not_run("a", facts);
        glimpses.has_not_run("b", facts);
        glimpses.see("a", "start", || panic!("known"));
        assert!(glimpses.gone("a").is_some_and(|missed| !missed.ran_before));
        assert!(glimpses.gone("b").is_none(), "it never ran");
    }

    #[test]
    fn one_that_ran_before_may_have_been_missed() {
        let mut glimpses = Glimpses::default();
        glimpses.list("a", facts());
        glimpses.see("a", "destroy", || panic!("known"));
        assert!(glimpses.gone("a").expect("missed").ran_before);
        glimpses.see("b", "start", facts);
        glimpses.list("b", facts());
        assert!(!glimpses.gone("b").expect("missed").ran_before, "its start was seen");
    }
}
