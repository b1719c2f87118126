//! What decides. Events go in and actions come out ([`io`]); nothing here waits, reads a clock or touches the kernel, so
//! the same code runs on the real ring and in the simulation.
//!
//! ```text
//! core/ ─▶ discover/, stream/ ─▶ context.rs ─▶ counted.rs, open_files.rs, owners.rs, texts.rs ─▶ io.rs ─▶ checkpoint/
//! ```
//! An arrow is an import. `core` owns the machines and hands what one makes to the next; the machines know what they are
//! called with (`context`), and not each other.

pub(crate) mod checkpoint;
pub(crate) mod context;
pub(crate) mod core;
pub(crate) mod counted;
pub(crate) mod discover;
pub(crate) mod io;
pub(crate) mod open_files;
pub(crate) mod owners;
pub(crate) mod stream;
pub(crate) mod texts;
pub(crate) mod tried;
