//! More inotify instances for root while Engines run: dockerd 20.10 takes one for each container, and root has 128,
//! which two programs that follow many containers at once use up.
//!
//! The original limit is kept in a file meanwhile. If the run is killed, the next one restores it.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::paths;

const SETTING: &str = "/proc/sys/fs/inotify/max_user_instances";
/// Enough for as many programs as may run at a time.
const ENOUGH: u64 = 2_048;

/// The limit is raised until the last of these is dropped: parts run beside each other.
pub struct Raised;

static HELD: Mutex<usize> = Mutex::new(0);

impl Raised {
    /// Raises the limit if it is too low.
    pub fn new() -> Raised {
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        *held += 1;
        let Some(now) = read(SETTING.into()).filter(|&now| now < ENOUGH) else { return Raised };
        // A limit that could not be restored is left alone.
        if fs::write(before(), now.to_string()).is_ok() && fs::write(SETTING, ENOUGH.to_string()).is_ok() {
            println!("fs.inotify.max_user_instances is {ENOUGH} meanwhile, {now} again afterwards");
        }
        Raised
    }

    /// Whether there are enough now.
    pub fn is_enough() -> bool {
        read(SETTING.into()).is_some_and(|now| now >= ENOUGH)
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        *held -= 1;
        if *held == 0
            && let Some(limit) = read(before())
            && fs::write(SETTING, limit.to_string()).is_ok()
        {
            let _ = fs::remove_file(before());
        }
    }
}

/// Whether the limit is as it was.
fn before() -> PathBuf {
    paths::target().join("max_user_instances.before")
}

fn read(path: PathBuf) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
