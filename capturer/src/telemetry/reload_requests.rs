//! Where reloads are asked for and answered. SIGHUP and `/-/reload` ask and go on; the loop takes what was asked, and its
//! answer is for all that had been asked by then: whoever asks while a reload is under way gets the next one, and many
//! who do get one together.
//!
//! Not here: what a reload does (agent/reload.rs).

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// What became of a reload. The text is for people, a line for each thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// The config is in use.
    Applied(String),
    /// It can't be used, and why; nothing has changed.
    Refused(String),
    /// It looked good and could not be started; the one before is in use again.
    Failed(String),
    /// The agent ends, or never reloads.
    Stopping,
}

/// Receipt for a [`ReloadRequests::ask`].
#[derive(Clone, Copy, Debug)]
pub struct Ticket(u64);

/// Shared by those who ask and the one who answers.
#[derive(Default)]
pub struct ReloadRequests {
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    /// Number of the last ask.
    asked: u64,
    /// All up to this one are answered, by `outcome`.
    answered: u64,
    outcome: Option<ReloadOutcome>,
    closed: bool,
}

impl ReloadRequests {
    /// Sets how the one who answers is woken. Once; without it every answer is [`ReloadOutcome::Stopping`].
    pub fn open(&self, wake: Box<dyn Fn() + Send + Sync>) {
        let _ = self.wake.set(wake);
    }

    /// Asks for a reload, without waiting.
    pub fn ask(&self) -> Ticket {
        let mut book = self.book();
        book.asked += 1;
        let ticket = Ticket(book.asked);
        drop(book);
        if let Some(wake) = self.wake.get() {
            wake();
        }
        ticket
    }

    /// What became of it; `None` = not known yet.
    pub fn outcome(&self, ticket: Ticket) -> Option<ReloadOutcome> {
        let book = self.book();
        if book.answered >= ticket.0 {
            return book.outcome.clone();
        }
        (book.closed || self.wake.get().is_none()).then_some(ReloadOutcome::Stopping)
    }

    /// For the one who answers: the last ask, if it has no answer yet.
    pub fn unanswered(&self) -> Option<Ticket> {
        let book = self.book();
        (book.asked > book.answered).then_some(Ticket(book.asked))
    }

    /// Answers that ask and all before it.
    pub fn answer(&self, ticket: Ticket, outcome: ReloadOutcome) {
        let mut book = self.book();
        book.answered = ticket.0;
        book.outcome = Some(outcome);
    }

    /// The agent ends: nothing more is answered.
    pub fn close(&self) {
        self.book().closed = true;
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Nothing is left half written in it.
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

    /// Who asks must not wait for an agent that ends, or that has nothing to reload.
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
