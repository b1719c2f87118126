//! The part that decides. Events go in and actions come out ([`io`]); nothing here waits, reads a clock or touches the
//! kernel, so the same code runs on the real ring and in the simulation.
//!
//! ```text
//! core/ ─▶ discover/, stream/ ─▶ context.rs ─▶ counted.rs, open_files.rs, owners.rs, texts.rs ─▶ io.rs ─▶ checkpoint/
//! ```
//! An arrow is an import. `core` owns the other parts and passes on what each makes; they know their `context`, but not
//! each other.

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
