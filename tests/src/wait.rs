//! The one place where a test waits: for a condition, never for a time.
//!
//! A fixed sleep is either too short on a busy machine or too long on an idle one. `cargo xtask tidy` refuses
//! sleeping calls in every other file of this package.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long a test waits for what must come. It costs nothing when all is well, so it is long enough for a machine that
/// runs other tests and a compiler at the same time. A test that judges how quickly something comes measures that itself.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// The first pause between two looks. Doubled after each look, since most conditions hold at once or not soon.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// The longest pause between two looks that cost little.
const PAUSE_MAX: Duration = Duration::from_millis(20);
/// After a slow check, the pause is this many times as long: checks that read a whole output again and again would take
/// the processor from what they wait for.
const PAUSE_LOOKS: u32 = 3;
/// The longest pause of all.
const PAUSE_DEAR_MAX: Duration = Duration::from_millis(300);

/// What one look can answer: there, or not yet, with the state that was seen instead.
///
/// `bool` and `Option` say only "not yet". A `Result`'s error is no reason to stop looking: it is the state seen last,
/// and stands in the message if the deadline passes. So `poll` may use `?` freely.
pub trait Look {
    /// What is handed to the caller once it is there.
    type Found;

    /// `Err` holds the state seen, in words; empty when the look can't tell.
    fn found(self) -> Result<Self::Found, String>;
}

impl Look for bool {
    type Found = ();

    fn found(self) -> Result<(), String> {
        if self { Ok(()) } else { Err(String::new()) }
    }
}

impl<T> Look for Option<T> {
    type Found = T;

    fn found(self) -> Result<T, String> {
        self.ok_or_else(String::new)
    }
}

impl<T, E: Display> Look for Result<T, E> {
    type Found = T;

    fn found(self) -> Result<T, String> {
        // The alternate form is anyhow's "error: cause: cause" on one line.
        self.map_err(|state| format!("{state:#}"))
    }
}

/// Looks with `poll` until it answers yes, at most for `deadline`.
///
/// The error names what was waited for, for how long, how often it was looked at and what was seen last.
pub fn wait_until<L: Look>(what: &str, deadline: Duration, mut poll: impl FnMut() -> L) -> Result<L::Found> {
    let started = Instant::now();
    let mut pause = PAUSE_MIN;
    let mut looks = 0_u64;
    loop {
        // Taken before the look: a look that began in time counts, however long the machine let it lie.
        let waited = started.elapsed();
        looks += 1;
        let state = match poll().found() {
            Ok(found) => return Ok(found),
            Err(state) => state,
        };
        let dear = ((started.elapsed() - waited) * PAUSE_LOOKS).min(PAUSE_DEAR_MAX);
        if waited >= deadline {
            let seen = if state.is_empty() { String::new() } else { format!("; last seen: {state}") };
            bail!("waited {:.1} s for {what}, in {looks} looks{seen}", started.elapsed().as_secs_f64());
        }
        std::thread::sleep(pause.max(dear).min(deadline - waited));
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Lets time pass: for a server that is slow on purpose, and for loads that last. Never to wait for something.
pub fn pass(time: Duration) {
    std::thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_handed_over() {
        let mut looks = 0;
        let found = wait_until("the third look", Duration::from_secs(5), || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(found.unwrap(), 3);
    }

    #[test]
    fn what_never_comes_is_named_with_the_last_state() {
        let error = wait_until("rain", Duration::from_millis(5), || Err::<(), _>("a blue sky"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("for rain") && error.contains("last seen: a blue sky"), "{error}");
    }

    /// Without it a deadline of zero would fail before looking at what may long be true.
    #[test]
    fn it_looks_at_least_once() {
        wait_until("the truth", Duration::ZERO, || true).unwrap();
    }
}
