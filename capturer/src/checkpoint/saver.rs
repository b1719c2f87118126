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
}

impl Saver {
    /// Of one run: what runs before it saved is not looked at.
    pub fn new(dir: PathBuf) -> Saver {
        Saver { dir, named: BTreeMap::new() }
    }

    /// Saves it.
    ///
    /// # Errors
    /// As of [`store::save`]; the checkpoint counts as not saved then.
    pub fn save(&mut self, checkpoint: Checkpoint) -> Result<(), StoreError> {
        let bytes = encode(&checkpoint);
        store::save(&self.dir, &bytes)?;
        if self.names_more(&checkpoint) {
            store::save(&self.dir, &bytes)?;
        }
        self.named = checkpoint.outputs;
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
