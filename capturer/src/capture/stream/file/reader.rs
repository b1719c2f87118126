//! Which files this stream may read, and for which sinks.

use std::sync::Arc;

use super::FileSource;
use crate::capture::checkpoint::memory::Table;
use crate::capture::context::Context;
use crate::capture::io::FoundFile;
use crate::capture::owners::{Group, Owners};
use crate::model::cursor::{FileId, FilePlace};

/// The reader of a source.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    /// Among whom it is the only reader of its files.
    pub group: Group,
    /// Names of its sinks whose positions are kept.
    pub sinks: Arc<[String]>,
}

impl FileSource {
    /// What is in the chain has one reader, also until the table knows how far it was read.
    pub(super) fn claim(&mut self, cx: &mut Context<'_>) {
        let held = self.chain.held();
        for id in self.claimed.iter().filter(|id| held.binary_search(id).is_err()) {
            self.unacked.insert(*id);
        }
        let held = self.with_unacked(held);
        if held != self.claimed {
            cx.owners.change(self.stream, self.reader.group, &self.claimed, &held);
            self.claimed = held;
        }
    }

    /// Names of its sinks whose positions are kept.
    pub fn sinks(&self) -> &[String] {
        &self.reader.sinks
    }

    /// What was read of a log whose copies it may find.
    pub fn remember(&mut self, places: Vec<FilePlace>) {
        self.chain.remember(places);
    }

    /// Claims a file that nobody else reads yet.
    pub fn claim_at_once(&mut self, file: FileId, owners: &mut Owners) {
        if owners.owner(self.reader.group, file).is_none() && self.claimed.is_empty() {
            self.claimed = vec![file];
            owners.change(self.stream, self.reader.group, &[], &self.claimed);
        }
    }

    fn with_unacked(&self, mut held: Vec<FileId>) -> Vec<FileId> {
        held.extend(&*self.unacked);
        held.sort_unstable();
        held.dedup();
        held
    }

    /// Whether it finds a file of its own by itself, as one that was rotated in its directory.
    pub fn finds(&self, directory: &str, file: FileId) -> bool {
        *self.directory == *directory && self.chain.wanted().contains(&file)
    }

    /// Files that it wants were found under other names, and were renamed at these times.
    pub fn note_renamed(&mut self, renamed: &[(FileId, i64)]) {
        self.chain.note_renamed(renamed);
    }

    /// The path of a file that was found with it.
    pub fn path_of(&self, name: &str) -> String {
        let (mut directory, mut name) = (&*self.directory, name);
        while let Some(more) = name.strip_prefix("../") {
            (directory, name) = (directory.rsplit_once('/').map_or("", |(parent, _)| parent), more);
        }
        format!("{directory}/{name}")
    }

    /// The live file of a listing is one that was read.
    pub fn knows_live(&self, found: &[FoundFile], memory: &Table) -> bool {
        let view = memory.of(&self.reader.sinks, self.reader.group.of_paths);
        let live = found.iter().find(|file| file.rank == 0);
        live.is_none_or(|live| self.chain.is_known(live, &view))
    }

    /// It is not gone: it has another name now, under which another stream reads it.
    pub(super) fn is_read_elsewhere(&self, file: FileId, cx: &Context<'_>) -> bool {
        let owner = cx.owners.owner(self.reader.group, file);
        owner.is_some_and(|owner| owner != self.stream)
    }

    /// All sinks have these files up to where they were left.
    pub fn on_acked(&mut self, done: Vec<FilePlace>, cx: &mut Context<'_>) {
        if !done.is_empty() {
            let before = self.unacked.len();
            for place in &done {
                self.unacked.remove(&place.file);
            }
            if self.unacked.len() != before {
                let held = self.with_unacked(self.chain.held());
                cx.owners.change(self.stream, self.reader.group, &self.claimed, &held);
                self.claimed = held;
            }
        }
    }

    /// It is over: others may read what it had.
    pub fn let_go(&self, owners: &mut Owners) {
        owners.change(self.stream, self.reader.group, &self.claimed, &[]);
    }
}
