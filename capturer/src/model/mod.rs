//! The nouns that everybody shares: a record and where it comes from, where to resume, what capture and sinks tell each
//! other. They hold no file, no connection and no thread.

pub mod clock;
pub mod cursor;
pub mod delivery;
pub mod docker;
pub mod fields;
pub(crate) mod outcome;
pub mod record;
pub(crate) mod rotated_name;
