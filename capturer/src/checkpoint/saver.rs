//! Saves one checkpoint after the other, so that the one before is as good as the newest.
//!
//! A start from a checkpoint that does not name an output leaves it as long as it is and reads its sources from their
//! beginning: all that is in it would be there twice. So what names an output for the first time is saved twice. Nothing
//! is written to an output before that is done, and then whichever of the two files survives knows how long it was.
//!
//! Not here: how a file is saved (store.rs), and when (capture).

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Checkpoint, StoreError, encode, store};
use crate::record::OutputMark;

/// See the module's head.
#[derive(Debug)]
pub struct Saver {
    dir: PathBuf,
    /// Outputs that both files name, by sink.
    named: BTreeMap<String, BTreeMap<String, OutputMark>>,
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
        Saver { dir, named: BTreeMap::new(), on_disk: [0; 2], compact_at: None }
    }

    /// Saves it.
    ///
    /// # Errors
    /// As of [`store::save`]; the checkpoint counts as not saved then.
    pub fn save(&mut self, checkpoint: Checkpoint) -> Result<(), StoreError> {
        let bytes = encode(&checkpoint);
        if !checkpoint.memory.is_empty() {
            self.remember(&checkpoint)?;
        }
        store::save(&self.dir, &bytes)?;
        if self.names_more(&checkpoint) {
            store::save(&self.dir, &bytes)?;
        }
        self.named = checkpoint.outputs;
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

    fn names_more(&self, checkpoint: &Checkpoint) -> bool {
        checkpoint.outputs.iter().any(|(sink, outputs)| {
            let named = self.named.get(sink);
            outputs.keys().any(|path| named.is_none_or(|named| !named.contains_key(path)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::mark;
    use super::*;

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
        let marks = outputs.iter().map(|(path, len)| ((*path).to_owned(), mark(path, *len))).collect();
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
}
