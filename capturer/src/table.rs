//! What tables on a terminal share (`quickstart`, `top`): names that fit and steer nothing, and a table that is drawn anew
//! in its own place.

use std::io::{self, Write as _};

/// Columns of a name.
pub const NAME_COLUMNS: usize = 32;

/// A name's end, printable, in [`NAME_COLUMNS`].
pub fn short(name: &str) -> String {
    let name: Vec<char> = name.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    if name.len() <= NAME_COLUMNS {
        name.into_iter().collect()
    } else {
        format!("…{}", name[name.len() + 1 - NAME_COLUMNS..].iter().collect::<String>())
    }
}

/// A line cut to so many columns, printable.
pub fn fit(line: &str, columns: usize) -> String {
    line.chars().map(|c| if c.is_control() { '?' } else { c }).take(columns).collect()
}

/// Draws texts one over the other.
#[derive(Debug, Default)]
pub struct Screen {
    lines_drawn: usize,
}

impl Screen {
    /// Puts a text in the place of the one before, on a terminal; else behind it.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub fn draw(&mut self, text: &str, terminal: bool) -> io::Result<()> {
        let mut out = io::stdout();
        if terminal && self.lines_drawn > 0 {
            write!(out, "\x1b[{}A\x1b[J", self.lines_drawn)?;
        }
        self.lines_drawn = text.lines().count();
        out.write_all(text.as_bytes())?;
        out.flush()
    }
}
