//! Saves one checkpoint after the other, so that the one before is as good as the newest.
//!
//! A start from a checkpoint that does not name an output leaves it as long as it is and reads its sources from their
//! beginning: all that is in it would be there twice. So what names an output for the first time is saved twice. Nothing
//! is written to an output before that is done, and then whichever of the two files survives knows how long it was.
//!
//! With many streams most saves are of what changed (changes.rs); then a line that names an output for the first time stands
//! twice.
//!
//! Not here: how a file is saved (store.rs), and when (capture).

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;

use super::store;
use crate::capture::checkpoint::{Checkpoint, encode};
use crate::model::record::OutputMarks;
use crate::shell::checkpoint::store::StoreError;

/// See the module's head.
#[derive(Debug)]
pub struct Saver {
    dir: PathBuf,
    /// Outputs that both files name: hashes of sink and path.
    named: BTreeSet<u64>,
    /// There are changes of earlier saves.
    has_changes: bool,
    /// Numbers of the two checkpoints on disk, the newer first.
    on_disk: [u64; 2],
    /// What is remembered is rewritten when it is so long.
    compact_at: Option<u64>,
}

/// What is remembered is not worth rewriting below that.
const COMPACT_BYTES_MIN: u64 = 1024 * 1024;

impl Saver {
    /// Of one run: what runs before it saved is not looked at.
    pub fn new(dir: PathBuf) -> Saver {
        let has_changes = store::has_changes(&dir);
        Saver { dir, named: BTreeSet::new(), has_changes, on_disk: [0; 2], compact_at: None }
    }

    /// Saves it.
    ///
    /// # Errors
    /// As of [`store::save`]; the checkpoint counts as not saved then.
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
        // Changes count behind the checkpoint of the number before alone: whichever file is found, it must be that.
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
        // Whichever of the two checkpoints is found, it finds what was remembered then.
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

    /// The checkpoint that a start finds when the newest is damaged.
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

    /// Else a start from the one before would append to an output what is in it already.
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
            // It was forgotten and comes back.
            (naming(&[("a", 0), ("b", 2)]), naming(&[("a", 0), ("b", 2)])),
        ] {
            saver.save(saved).unwrap();
            assert_eq!(the_one_before(&saver), before);
        }
    }

    /// Changes follow the checkpoint that both files hold, so that either is as good; a whole one takes their place.
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
        // A run that begins with them.
        let mut saver = Saver::new(dir.path().to_owned());
        saver.save(whole(4, &[("a", 9), ("b", 1)])).unwrap();
        let expected = whole(4, &[("a", 9), ("b", 1)]);
        assert_eq!((found(), the_one_before(&saver)), (expected.clone(), expected));
        assert!(!store::has_changes(dir.path()));
    }
}
