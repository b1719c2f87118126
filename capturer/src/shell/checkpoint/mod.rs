//! Checkpoints on disk: how they are written and read (`store.rs`), and the thread that writes one after the other
//! (`saver.rs`). What is in them is decided in `capture/checkpoint`.

pub(crate) mod saver;
pub(crate) mod store;
