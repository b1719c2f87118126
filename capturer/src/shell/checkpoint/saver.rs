//! Saves checkpoints one after the other, so that the previous one is as good as the newest.
//!
//! If a start finds a checkpoint that does not name an output, it keeps the output as it is and reads its sources from
//! their beginning, so everything in it would be written twice. Therefore a checkpoint that names an output for the
//! first time is saved twice. Nothing is written to the output before that is done, so whichever of the two files
//! survives knows how long the output was.
//!
//! With many streams most saves only have changes (changes.rs). A line that names an output for the first time is then
//! written twice.
//!
//! Not here: how a file is saved (store.rs), and when (capture).

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;

use super::store;
use crate::capture::checkpoint::{Checkpoint, encode};
use crate::model::record::OutputMarks;
use crate::shell::checkpoint::store::StoreError;

/// Saves checkpoints; see the head of this file.
#[derive(Debug)]
pub struct Saver {
    dir: PathBuf,
    /// Outputs that both checkpoint files name, as hashes of sink and path.
    named: BTreeSet<u64>,
    /// The file of changes has some.
    has_changes: bool,
    /// Numbers of the two checkpoints on disk, the newer first.
    on_disk: [u64; 2],
    /// The table of files read is rewritten when its file is this long.
    compact_at: Option<u64>,
}

/// A shorter table is not worth rewriting.
const COMPACT_BYTES_MIN: u64 = 1024 * 1024;

impl Saver {
    /// For one run: it ignores what earlier runs saved.
    pub fn new(dir: PathBuf) -> Saver {
        let has_changes = store::has_changes(&dir);
        Saver { dir, named: BTreeSet::new(), has_changes, on_disk: [0; 2], compact_at: None }
    }

    /// Saves a checkpoint.
    ///
    /// # Errors
    /// As [`store::save`]; then the checkpoint counts as not saved.
    pub fn save(&mut self, checkpoint: Checkpoint) -> Result<(), StoreError> {
        if !checkpoint.memory.is_empty() {
            self.remember(&checkpoint)?;
        }
        let outputs = names(&checkpoint.outputs);
        let names_more = outputs.iter().any(|output| !self.named.contains(output));
        if let Some(gone) = &checkpoint.changes {
            self.has_changes = true;
            store::append_changes(&self.dir, &checkpoint, names_more)?;
            let gone =
                gone.outputs.iter().flat_map(|(sink, paths)| paths.iter().map(|path| name(sink, path)));
            for output in gone {
                self.named.remove(&output);
            }
            self.named.extend(outputs);
            return Ok(());
        }
        let bytes = encode(&checkpoint);
        store::save(&self.dir, &bytes)?;
        // Changes are applied only to the checkpoint with the number before theirs, whichever file has it.
        if names_more || self.has_changes || checkpoint.changes_follow {
            store::save(&self.dir, &bytes)?;
        }
        if std::mem::take(&mut self.has_changes) {
            store::drop_changes(&self.dir)?;
        }
        self.named = outputs;
        if checkpoint.seq != self.on_disk[0] {
            self.on_disk = [checkpoint.seq, self.on_disk[0]];
        }
        Ok(())
    }

    fn remember(&mut self, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        let len = store::remember(&self.dir, checkpoint)?;
        let at = *self.compact_at.get_or_insert(len + COMPACT_BYTES_MIN);
        // Both checkpoints on disk must find their part of the table.
        if len > at && self.on_disk[1] > 0 {
            let left = store::compact(&self.dir, self.on_disk[1], &checkpoint.remember)?;
            self.compact_at = Some(COMPACT_BYTES_MIN.max(2 * left));
        }
        Ok(())
    }
}

fn names(outputs: &OutputMarks) -> BTreeSet<u64> {
    outputs.iter().flat_map(|(sink, outputs)| outputs.keys().map(|path| name(sink, path))).collect()
}

fn name(sink: &str, path: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (sink, path).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::checkpoint::tests::mark;

    /// The checkpoint that a start uses if the newest is damaged.
    fn the_one_before(saver: &Saver) -> Checkpoint {
        let newest = saver.dir.join("checkpoint.json");
        let intact = std::fs::read(&newest).unwrap();
        std::fs::write(&newest, "damaged").unwrap();
        let found = store::peek(&saver.dir).unwrap();
        std::fs::write(&newest, intact).unwrap();
        found
    }

    fn naming(outputs: &[(&str, u64)]) -> Checkpoint {
        let marks = outputs.iter().map(|(path, len)| ((*path).into(), mark(path, *len))).collect();
        Checkpoint { outputs: [("local_file".to_owned(), marks)].into(), ..Checkpoint::default() }
    }

    /// Otherwise a start from the previous one would append to an output what is in it already.
    #[test]
    fn the_one_before_names_every_output_too() {
        let dir = tempfile::tempdir().unwrap();
        let mut saver = Saver::new(dir.path().to_owned());
        saver.save(Checkpoint::default()).unwrap();
        for (saved, before) in [
            (naming(&[("a", 0)]), naming(&[("a", 0)])),
            (naming(&[("a", 7)]), naming(&[("a", 0)])),
            (naming(&[("a", 8), ("b", 0)]), naming(&[("a", 8), ("b", 0)])),
            (naming(&[("b", 1)]), naming(&[("a", 8), ("b", 0)])),
            // The output was dropped and comes back.
            (naming(&[("a", 0), ("b", 2)]), naming(&[("a", 0), ("b", 2)])),
        ] {
            saver.save(saved).unwrap();
            assert_eq!(the_one_before(&saver), before);
        }
    }

    /// Changes follow a checkpoint that both files have, so that either is as good. A whole checkpoint replaces them.
    #[test]
    fn changes_are_found_behind_either_file_until_a_whole_checkpoint_holds_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut saver = Saver::new(dir.path().to_owned());
        let found = || store::peek(dir.path()).unwrap();
        let changed = |seq, outputs: &[(&str, u64)]| Checkpoint {
            seq,
            changes: Some(Default::default()),
            ..naming(outputs)
        };
        let whole = |seq, outputs: &[(&str, u64)]| Checkpoint { seq, ..naming(outputs) };
        saver.save(naming(&[("a", 0)])).unwrap();
        saver.save(Checkpoint { changes_follow: true, ..whole(1, &[("a", 0)]) }).unwrap();
        saver.save(changed(2, &[("a", 7)])).unwrap();
        saver.save(changed(3, &[("b", 0)])).unwrap();
        let expected = whole(3, &[("a", 7), ("b", 0)]);
        assert_eq!((found(), the_one_before(&saver)), (expected.clone(), expected));
        // A new run that finds changes on disk.
        let mut saver = Saver::new(dir.path().to_owned());
        saver.save(whole(4, &[("a", 9), ("b", 1)])).unwrap();
        let expected = whole(4, &[("a", 9), ("b", 1)]);
        assert_eq!((found(), the_one_before(&saver)), (expected.clone(), expected));
        assert!(!store::has_changes(dir.path()));
    }
}
