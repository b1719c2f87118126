//! Checkpoints on disk: how they are written and read (`store.rs`), and the thread that writes one after the other
//! (`saver.rs`). What is in them is decided in `capture/checkpoint`.

pub mod saver;
pub mod store;

pub use store::{DirLock, LoadReport, StoreError};
