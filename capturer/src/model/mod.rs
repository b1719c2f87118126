//! The nouns that everybody shares: a record and where it comes from, where to resume, what capture and sinks tell each
//! other. They hold no file, no connection and no thread.

pub(crate) mod cause;
pub(crate) mod clock;
pub(crate) mod cursor;
pub(crate) mod delivery;
pub(crate) mod docker;
pub(crate) mod fields;
pub(crate) mod outcome;
pub(crate) mod packed;
pub(crate) mod rare;
pub(crate) mod record;
pub(crate) mod rotated_name;
