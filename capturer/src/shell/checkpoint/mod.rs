//! Checkpoints on disk: how one is written and read (`store.rs`), the thread that writes them (`saver.rs`), and the
//! files it holds open (`kept.rs`). capture/checkpoint decides what a checkpoint contains.

pub(crate) mod kept;
pub(crate) mod saver;
pub(crate) mod store;
