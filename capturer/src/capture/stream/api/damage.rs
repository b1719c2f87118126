//! A log with a record that dockerd can't read: a full disk, a power cut or a killed dockerd tore it. dockerd then ends each
//! answer that begins before that record with an error, for ever, although what was printed behind it can be had: by asking for
//! fewer lines. How few is found by halving.
//!
//! ```text
//! the same error again and again, and no line ─▶ half as many lines ─┬ error ─▶ fewer
//!                                                                    ├ reaches back to what was delivered ─▶ goes on
//!                                                                    └ does not ─▶ more
//! the most that work, and one more fails again ─▶ these are taken, and what lies before them is declared lost
//! ```
//! An error may come from a dockerd that has other troubles for a moment, so the log is asked for as usual some times first, and
//! nothing is given up before the failure was seen again.
//!
//! Not here: the requests (`api.rs`), and what health says where nothing can be had (`core/no_log.rs`).

/// After so many errors in a row that bring no line the log may be damaged.
const ERRORS_MIN: u32 = 5;

/// How many lines the answer being asked for should have, and why.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Search {
    /// So many lines can be had, and so many can't: what lies between is tried.
    Between { works: u32, fails: u32 },
    /// The failure must be seen again.
    Confirm { works: u32 },
    /// What comes is taken, although it does not reach back.
    Take,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Damage {
    /// Errors in a row that brought no line.
    errors: u32,
    /// The last answer ended with an error.
    fails: bool,
    /// It was found damaged before, so that one error is enough to search.
    is_known: bool,
    search: Option<Search>,
}

impl Damage {
    /// An answer of so many lines ended with dockerd's error and brought nothing new. Returns how many to ask for at once;
    /// `None` = it failed.
    pub(super) fn failed(&mut self, lines: u32) -> Option<u32> {
        self.fails = true;
        match self.search {
            None => {
                self.errors += 1;
                let is_enough = self.is_known || self.errors >= ERRORS_MIN;
                if is_enough { self.between(0, lines) } else { None }
            }
            Some(Search::Between { works, .. }) => self.between(works, lines),
            Some(Search::Confirm { works }) if works > 0 => {
                self.is_known = true;
                self.search = Some(Search::Take);
                Some(works)
            }
            Some(Search::Confirm { .. } | Search::Take) => {
                // Not even the newest line can be had.
                *self = Damage { fails: true, ..Damage::default() };
                None
            }
        }
    }

    /// An answer of so many lines came, and does not reach back. Returns how many to ask for; `None` = nothing is searched.
    pub(super) fn fell_short(&mut self, lines: u32) -> Option<u32> {
        match self.search {
            Some(Search::Between { fails, .. }) => self.between(lines, fails),
            // What failed works after all.
            Some(Search::Confirm { .. } | Search::Take) | None => {
                self.search = None;
                None
            }
        }
    }

    fn between(&mut self, works: u32, fails: u32) -> Option<u32> {
        let (search, lines) = if fails <= works + 1 {
            (Search::Confirm { works }, works + 1)
        } else {
            (Search::Between { works, fails }, works + (fails - works) / 2)
        };
        self.search = Some(search);
        Some(lines)
    }

    /// A new line came, or an answer ended well.
    pub(super) fn is_over(&mut self) {
        if self.fails {
            *self = Damage { is_known: self.is_known, ..Damage::default() };
        }
    }

    pub(super) fn is_searched(&self) -> bool {
        self.search.is_some()
    }

    /// What comes now is all that can be had.
    pub(super) fn takes_what_comes(&self) -> bool {
        self.search == Some(Search::Take)
    }

    /// The last answer ended with dockerd's error, and no line came since.
    pub(super) fn fails(&self) -> bool {
        self.fails
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a log whose newest `readable` lines can be had, and whose newest `delivered_before` were printed since the last
    /// delivered one: how many lines are taken at the end, and whether that is declared; `None` = it fails.
    fn taken(readable: u32, new: u32, damage: &mut Damage) -> (Option<(u32, bool)>, u32) {
        let (mut asked, mut lines) = (0, 1_000);
        loop {
            asked += 1;
            assert!(asked < 50, "it does not end");
            let next = if lines > readable {
                damage.failed(lines)
            } else if damage.takes_what_comes() || lines > new {
                let declared = damage.takes_what_comes();
                damage.is_over();
                return (Some((lines, declared)), asked);
            } else {
                damage.fell_short(lines)
            };
            match next {
                Some(next) => lines = next,
                None => return (None, asked),
            }
        }
    }

    #[test]
    fn all_that_can_be_had_is_taken() {
        for readable in [1, 2, 3, 62, 500, 501, 998, 999] {
            let mut damage = Damage::default();
            for _ in 1..ERRORS_MIN {
                assert_eq!(taken(readable, 5_000, &mut damage), (None, 1), "it may be for a moment");
            }
            let (took, asked) = taken(readable, 5_000, &mut damage);
            assert_eq!(took, Some((readable, true)));
            assert!(asked <= 14, "{asked} requests");
            // Once it is known to be damaged, the next connection finds its place at once, and nothing more is lost.
            let (took, asked) = taken(readable + 10, 10, &mut damage);
            let (lines, declared) = took.expect("lines");
            assert!(lines > 10 && !declared && asked <= 14, "{lines} {declared} {asked}");
        }
    }

    #[test]
    fn where_nothing_can_be_had_it_fails() {
        let mut damage = Damage::default();
        for round in 1..20 {
            let (took, asked) = taken(0, 100, &mut damage);
            assert_eq!((took, asked > 1), (None, round % ERRORS_MIN == 0), "{round}");
            assert!(damage.fails());
        }
        damage.is_over();
        assert!(!damage.fails());
    }

    /// Errors of a dockerd with other troubles must not cost a line.
    #[test]
    fn a_failure_that_goes_away_gives_nothing_up() {
        let mut damage = Damage::default();
        for _ in 1..ERRORS_MIN {
            assert_eq!(damage.failed(1_000), None);
        }
        let mut lines = damage.failed(1_000).expect("a search");
        while lines < 1_000 {
            lines = damage.fell_short(lines).expect("more");
            assert!(!damage.takes_what_comes());
        }
        // Now it works, and the search is over: more are asked for as usual.
        assert_eq!(damage.fell_short(lines), None);
        assert!(!damage.is_searched());
    }
}
