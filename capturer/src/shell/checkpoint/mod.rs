//! Checkpoints on disk: how they are written and read (`store.rs`), and the thread that writes one after the other
//! (`saver.rs`), and what of them is held open (`kept.rs`). What is in them is decided in `capture/checkpoint`.

pub(crate) mod kept;
pub(crate) mod saver;
pub(crate) mod store;
