//! Requests for reloads, and their results. SIGHUP and `/-/reload` post a request and continue. The loop takes what was
//! requested, and its result is for every request posted by then. A request during a reload is answered by the next
//! one, and several such requests share it.
//!
//! Not here: what a reload does (agent/reload.rs).

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// The result of a reload. The text is for people, one item per line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// The config is in use.
    Applied(String),
    /// It can't be used, for these reasons; nothing has changed.
    Refused(String),
    /// It passed the check but could not be started; the previous one is in use again.
    Failed(String),
    /// The agent is ending, or never reloads.
    Stopping,
}

/// Receipt for a [`ReloadRequests::ask`].
#[derive(Clone, Copy, Debug)]
pub struct ReloadTicket(u64);

/// Shared by those who request reloads and the loop that answers.
#[derive(Default)]
pub struct ReloadRequests {
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    /// Number of the last request.
    asked: u64,
    /// `outcome` is the result for all requests up to this one.
    answered: u64,
    outcome: Option<ReloadOutcome>,
    closed: bool,
}

impl ReloadRequests {
    /// Sets how the loop is woken. Call it once; without it every result is [`ReloadOutcome::Stopping`].
    pub fn open(&self, wake: Box<dyn Fn() + Send + Sync>) {
        let _ = self.wake.set(wake);
    }

    /// Requests a reload, without waiting.
    pub fn ask(&self) -> ReloadTicket {
        let mut book = self.book();
        book.asked += 1;
        let ticket = ReloadTicket(book.asked);
        drop(book);
        if let Some(wake) = self.wake.get() {
            wake();
        }
        ticket
    }

    /// The result; `None` = not known yet.
    pub fn outcome(&self, ticket: ReloadTicket) -> Option<ReloadOutcome> {
        let book = self.book();
        if book.answered >= ticket.0 {
            return book.outcome.clone();
        }
        (book.closed || self.wake.get().is_none()).then_some(ReloadOutcome::Stopping)
    }

    /// For the loop: the last request, if it has no result yet.
    pub fn unanswered(&self) -> Option<ReloadTicket> {
        let book = self.book();
        (book.asked > book.answered).then_some(ReloadTicket(book.asked))
    }

    /// Sets the result for this request and all before it.
    pub fn answer(&self, ticket: ReloadTicket, outcome: ReloadOutcome) {
        let mut book = self.book();
        book.answered = ticket.0;
        book.outcome = Some(outcome);
    }

    /// The agent is ending: no more requests are answered.
    pub fn close(&self) {
        self.book().closed = true;
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // A poisoned lock is usable: nothing in it is left half written.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn those_who_ask_meanwhile_get_one_more_together() {
        let requests = ReloadRequests::default();
        let woken = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&woken);
        requests.open(Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        }));
        assert!(requests.unanswered().is_none());
        let first = requests.ask();
        let under_way = requests.unanswered().expect("asked");
        let (second, third) = (requests.ask(), requests.ask());
        let bad = ReloadOutcome::Refused("c.yaml:1:1: no".to_owned());
        requests.answer(under_way, bad.clone());
        assert_eq!([first, second, third].map(|ticket| requests.outcome(ticket)), [Some(bad), None, None]);
        let both = requests.unanswered().expect("two wait");
        requests.answer(both, ReloadOutcome::Applied("good".to_owned()));
        assert!(requests.unanswered().is_none());
        assert_eq!(requests.outcome(second), requests.outcome(third));
        assert_eq!(woken.load(Ordering::Relaxed), 3);
    }

    /// A request must not wait for an agent that is ending, or that can't reload.
    #[test]
    fn nobody_is_left_waiting() {
        let requests = ReloadRequests::default();
        let ticket = requests.ask();
        assert_eq!(requests.outcome(ticket), Some(ReloadOutcome::Stopping), "nobody answers here");
        requests.open(Box::new(|| {}));
        assert_eq!(requests.outcome(ticket), None);
        requests.close();
        assert_eq!(requests.outcome(ticket), Some(ReloadOutcome::Stopping));
    }
}
