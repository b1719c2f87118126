//! What is around a log: names that are logs of their own, where its rotated files may be besides, what it held before.

use super::FileSource;
use crate::capture::context::Context;
use crate::capture::io::FoundFile;
use crate::model::cursor::FilePlace;
use crate::model::rare::Begins;

/// What is known around a log.
#[derive(Debug, Default)]
pub(super) struct Surroundings {
    /// Names in its directory that are logs of their own.
    pub(super) apart: Vec<String>,
    /// Directories beneath it where logrotate puts the log's rotated files (`olddir`), as paths from it.
    pub(super) olddirs: Vec<String>,
    /// What was read of the file that was written anew last, and when that was noticed, nanoseconds since 1970.
    pub(super) emptied: Option<(FilePlace, i64)>,
}

impl Begins for Surroundings {
    const BEGINNING: &'static Surroundings =
        &Surroundings { apart: Vec::new(), olddirs: Vec::new(), emptied: None };
}

impl Surroundings {
    /// An archive of a log of its own belongs to that.
    pub(super) fn is_archive_of_another(&self, file: &FoundFile) -> bool {
        let plain = file.name.rsplit_once('.').filter(|_| file.compressed);
        plain.is_some_and(|(plain, _)| self.apart.iter().any(|name| name == plain))
    }
}

impl FileSource {
    /// Directories beneath its own may have rotated files of it (logrotate's `olddir`).
    pub fn with_olddirs(mut self, olddirs: Vec<String>) -> FileSource {
        if !olddirs.is_empty() {
            self.around.olddirs = olddirs;
        }
        self
    }

    /// A rotated file of it was found, or grew, in a directory beneath its own: this path from there.
    pub fn on_moved_found(&mut self, olddir: &str, cx: &mut Context<'_>) {
        if !self.around.olddirs.iter().any(|known| known == olddir) {
            self.around.olddirs.push(olddir.to_owned());
        }
        self.scan(cx);
    }

    /// Another name in its directory is a log of its own.
    pub fn set_apart(&mut self, name: &str) {
        if !self.around.apart.iter().any(|known| known == name) {
            self.around.apart.push(name.to_owned());
        }
    }
}
