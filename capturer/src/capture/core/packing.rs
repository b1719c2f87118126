//! The core's tables without spare room, once many sources were taken up.

use super::Capture;
use crate::model::packed::Pack;

impl Pack for Capture {
    fn pack(&mut self) {
        self.tracker.pack();
        self.streams.pack();
        self.ids.pack();
        self.opened.pack();
        self.progress.pack();
        self.shared.owners.pack();
        self.shared.open_files.pack();
    }
}
