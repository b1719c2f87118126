//! How long events gather between two looks at inotify.
//!
//! On a quiet host a look ends with the event it waited for, and the next look follows after the shortest pause. If
//! every look finds something, each costs a read of every file that grew and a batch to the sinks, so a longer pause
//! delivers the same lines in fewer of them.
//!
//! Pauses must be short for one reason: a file that comes and goes between two looks is lost. That happens to a log
//! that is rotated again and again with few old files kept, and to a new file in a directory that a pattern names. One
//! rotation of a known log is no danger, however many logs of a host are rotated in turn. So what counts is how soon
//! the same log is rotated again.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Concerned;
use crate::model::record::StreamId;

/// The shortest pause between two looks: a container that prints line by line costs one look per pause, not one per line.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest pause, while files are written all the time.
const PAUSE_MAX: Duration = Duration::from_millis(40);
/// A log that is rotated twice within this time is rotated in a hurry.
const HURRY: Duration = Duration::from_secs(2);
/// After a hurry, this many looks use the short pause.
const CAREFUL_LOOKS: u32 = 250;
/// How many rotations are remembered, unless they are older than [`HURRY`].
const REMEMBERED: usize = 256;

/// What a look found.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// Events were there before the look waited for them.
    pub at_once: bool,
    /// The events were far from filling the read's buffer.
    pub with_ease: bool,
    pub told: &'a Concerned,
    /// Time since the agent began.
    pub now: Duration,
}

/// The pace of looks; see the head of this file.
#[derive(Debug)]
pub struct Pace {
    pause: Duration,
    careful: u32,
    rotated_at: BTreeMap<StreamId, Duration>,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { pause: PAUSE_MIN, careful: 0, rotated_at: BTreeMap::new() }
    }
}

impl Pace {
    /// The pause until the next look. A look that came late, and so found much, is no reason for many short pauses.
    pub fn after(&mut self, look: Look<'_>) -> Duration {
        let in_a_hurry = self.note_rotations(look) || look.told.hurried || !look.told.vanished.is_empty();
        self.careful = if in_a_hurry { CAREFUL_LOOKS } else { self.careful.saturating_sub(1) };
        let is_short = self.careful > 0 || !look.at_once || !look.with_ease;
        self.pause = if is_short { PAUSE_MIN } else { (2 * self.pause).min(PAUSE_MAX) };
        self.pause
    }

    /// Whether a log was rotated again too soon.
    fn note_rotations(&mut self, look: Look<'_>) -> bool {
        let is_recent = |at: Duration| look.now.saturating_sub(at) < HURRY;
        if self.rotated_at.len() > REMEMBERED {
            self.rotated_at.retain(|_, at| is_recent(*at));
        }
        let mut again = |stream: &StreamId| self.rotated_at.insert(*stream, look.now).is_some_and(is_recent);
        // Not `any`, which would stop at the first.
        look.told.renewed.keys().filter(|stream| again(stream)).count() > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(pace: &mut Pace, at_once: bool, with_ease: bool) -> u128 {
        let told = &Concerned::default();
        pace.after(Look { at_once, with_ease, told, now: Duration::ZERO }).as_millis()
    }

    fn rotated(pace: &mut Pace, stream: u32, ms: u64) -> u128 {
        let told = &Concerned { renewed: [(StreamId(stream), 1)].into(), ..Concerned::default() };
        pace.after(Look { at_once: true, with_ease: true, told, now: Duration::from_millis(ms) }).as_millis()
    }

    #[test]
    fn looks_are_rare_while_there_is_always_something() {
        let mut pace = Pace::default();
        assert_eq!([0; 4].map(|_| after(&mut pace, true, true)), [20, 40, 40, 40]);
        assert_eq!(after(&mut pace, false, true), 10, "it was quiet");
        assert_eq!(after(&mut pace, true, true), 20);
        assert_eq!(after(&mut pace, true, false), 10, "there was much");
        assert_eq!(after(&mut pace, true, true), 20);
    }

    #[test]
    fn only_a_log_that_is_rotated_in_a_hurry_is_looked_at_often() {
        let mut pace = Pace::default();
        assert_eq!([0; 2].map(|_| after(&mut pace, true, true)), [20, 40]);
        // A thousand logs, each rotated once a minute.
        for at in 0..5_000_u64 {
            assert_eq!(rotated(&mut pace, (at % 1_000) as u32, 60 * at), 40, "{at}");
        }
        assert!(pace.rotated_at.len() <= REMEMBERED + 1, "{}", pace.rotated_at.len());
        assert_eq!(rotated(&mut pace, 7, 400_000), 40);
        assert_eq!(rotated(&mut pace, 7, 401_999), 10);
        for _ in 1..CAREFUL_LOOKS {
            assert_eq!(after(&mut pace, true, true), 10);
        }
        assert_eq!(after(&mut pace, true, true), 20);
        for told in [
            Concerned { vanished: [(0, "a".to_owned())].into(), ..Concerned::default() },
            Concerned { hurried: true, ..Concerned::default() },
        ] {
            let mut pace = Pace::default();
            let look = Look { at_once: true, with_ease: true, told: &told, now: Duration::from_secs(500) };
            assert_eq!(pace.after(look), PAUSE_MIN, "{told:?}");
        }
    }
}
