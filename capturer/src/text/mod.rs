//! Text of any kind: what may go to a terminal, file names that are not UTF-8, encodings, levels, percent-encoding,
//! counts, IDs.

pub(crate) mod age;
pub mod counted;
pub(crate) mod disk_room;
pub(crate) mod encoding;
pub(crate) mod escape;
pub(crate) mod ids;
pub(crate) mod label_values;
pub(crate) mod level;
pub(crate) mod output;
pub(crate) mod over;
pub(crate) mod path_text;
pub(crate) mod percent;
pub(crate) mod shown;
pub(crate) mod terminal;
