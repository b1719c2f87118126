//! How often one place in the code may log: [`BUDGET`] lines in [`WINDOW_MS`], then a count. Pure.

use std::collections::HashMap;

use tracing::callsite::Identifier;

/// Lines of one place in one window.
pub(super) const BUDGET: u64 = 20;
/// Length of a window.
pub(super) const WINDOW_MS: u64 = 10_000;

/// What to do with an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is written to the log.
    Admit,
    /// Do not write it, but pass its message to [`Limiter::remember`]: it represents those that follow.
    Remember,
    /// Do not write it.
    Suppress,
}

/// One entry for each place that has logged; the code has a fixed number of places.
#[derive(Default)]
pub(super) struct Limiter {
    places: HashMap<Identifier, Window>,
    /// How many places hold something back, so that the usual case looks at none.
    holding: usize,
}

struct Window {
    began_ms: u64,
    admitted: u64,
    suppressed: u64,
    example: String,
}

impl Limiter {
    pub(super) fn admit(&mut self, place: Identifier, now_ms: u64) -> Admission {
        let new = || Window { began_ms: now_ms, admitted: 0, suppressed: 0, example: String::new() };
        let window = self.places.entry(place).or_insert_with(new);
        if window.suppressed == 0 && now_ms.saturating_sub(window.began_ms) >= WINDOW_MS {
            *window = new();
        }
        if window.admitted < BUDGET {
            window.admitted += 1;
            return Admission::Admit;
        }
        window.suppressed += 1;
        if window.suppressed > 1 {
            return Admission::Suppress;
        }
        self.holding += 1;
        Admission::Remember
    }

    /// Whether anything is kept back.
    pub(super) fn is_holding(&self) -> bool {
        self.holding > 0
    }

    pub(super) fn remember(&mut self, place: Identifier, message: String) {
        if let Some(window) = self.places.get_mut(&place) {
            window.example = message;
        }
    }

    /// Places whose window is over, with an example and how many lines were held back. Their next window begins empty.
    pub(super) fn due(&mut self, now_ms: u64) -> Vec<(String, u64)> {
        if self.holding == 0 {
            return Vec::new();
        }
        let mut due = Vec::new();
        self.places.retain(|_, window| {
            let over = window.suppressed > 0 && now_ms.saturating_sub(window.began_ms) >= WINDOW_MS;
            if over {
                due.push((std::mem::take(&mut window.example), window.suppressed));
            }
            !over
        });
        self.holding -= due.len();
        due.sort();
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two different places in the code.
    fn places() -> [Identifier; 2] {
        // Not empty: zero-sized values may share an address.
        struct Place(#[allow(dead_code)] u8);
        impl tracing::Callsite for Place {
            fn set_interest(&self, _: tracing::subscriber::Interest) {}
            fn metadata(&self) -> &tracing::Metadata<'_> {
                unreachable!("only its address is used")
            }
        }
        static A: Place = Place(1);
        static B: Place = Place(2);
        [Identifier(&A), Identifier(&B)]
    }

    #[test]
    fn budget_then_count_then_a_new_window() {
        let [a, b] = places();
        let mut limiter = Limiter::default();
        for _ in 0..BUDGET {
            assert_eq!(limiter.admit(a.clone(), 5), Admission::Admit);
        }
        assert_eq!(limiter.admit(a.clone(), 6), Admission::Remember);
        limiter.remember(a.clone(), "trouble".to_owned());
        assert_eq!(limiter.admit(a.clone(), 7), Admission::Suppress);
        assert_eq!(limiter.admit(b.clone(), 8), Admission::Admit);
        assert_eq!(limiter.due(WINDOW_MS), []);
        assert_eq!(limiter.due(WINDOW_MS + 5), [("trouble".to_owned(), 2)]);
        assert_eq!(limiter.due(WINDOW_MS + 5), []);
        assert_eq!(limiter.admit(a, WINDOW_MS + 6), Admission::Admit);
        assert_eq!(limiter.holding, 0);
    }

    /// A slow trickle is never limited.
    #[test]
    fn a_window_ends() {
        let [a, _] = places();
        let mut limiter = Limiter::default();
        for second in 0..1000 {
            assert_eq!(limiter.admit(a.clone(), second * 1000), Admission::Admit);
        }
    }
}
