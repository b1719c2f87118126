//! Text, whatever it says: what may go to a terminal, names that are no UTF-8, encodings, levels, percent-encoding.

pub mod encoding;
pub(crate) mod label_values;
pub mod level;
pub mod path_text;
pub mod percent;
pub mod terminal;
