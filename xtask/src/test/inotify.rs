//! More inotify instances for root while Engines run: dockerd 20.10 takes one for each container, and root has 128, which two
//! programs that follow many containers at once use up.

use std::fs;

const SETTING: &str = "/proc/sys/fs/inotify/max_user_instances";
/// Enough for as many programs as may run at a time.
const ENOUGH: u64 = 2_048;

/// The limit as it was, set again when this is dropped.
pub struct Raised {
    before: Option<u64>,
}

impl Raised {
    /// Raises it, where it is too low.
    pub fn new() -> Raised {
        let now = fs::read_to_string(SETTING).ok().and_then(|text| text.trim().parse::<u64>().ok());
        let before = now.filter(|&now| now < ENOUGH);
        if before.is_some() && !set(ENOUGH) {
            return Raised { before: None };
        }
        if let Some(before) = before {
            println!("fs.inotify.max_user_instances is {ENOUGH} meanwhile, {before} again afterwards");
        }
        Raised { before }
    }

    /// Whether there are enough now.
    pub fn is_enough() -> bool {
        fs::read_to_string(SETTING)
            .is_ok_and(|text| text.trim().parse::<u64>().is_ok_and(|now| now >= ENOUGH))
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        self.before.map(set);
    }
}

fn set(value: u64) -> bool {
    fs::write(SETTING, value.to_string()).is_ok()
}
