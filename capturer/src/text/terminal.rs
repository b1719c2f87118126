//! Output to a terminal: text without control characters, names that fit (`quickstart`, `top`), and a table that is
//! redrawn in place.

use std::fmt::Write as _;
use std::io::{self, Write};

use crate::text::output::stdout;

/// Columns of a name.
pub const NAME_COLUMNS: usize = 32;

/// Characters that a terminal obeys instead of showing them: control characters, and those that change the direction of
/// text, so that a line would show something other than what it says.
pub fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writes text with such characters as `\u001b`, which is valid in JSON. Whoever makes a file or a container chooses
/// its name.
#[derive(Debug)]
pub struct Printable<W>(pub W);

impl<W: Write> Write for Printable<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Formatting hands over whole strings.
        let text = String::from_utf8_lossy(bytes);
        if !text.chars().any(|c| steers(c) && c != '\n' && c != '\t') {
            self.0.write_all(bytes)?;
            return Ok(bytes.len());
        }
        let mut safe = String::with_capacity(text.len());
        for c in text.chars() {
            if steers(c) && c != '\n' && c != '\t' {
                let _ = write!(safe, "\\u{:04x}", u32::from(c));
            } else {
                safe.push(c);
            }
        }
        self.0.write_all(safe.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The end of a name, printable, in [`NAME_COLUMNS`].
pub fn short(name: &str) -> String {
    let name: Vec<char> = name.chars().map(|c| if steers(c) { '?' } else { c }).collect();
    if name.len() <= NAME_COLUMNS {
        name.into_iter().collect()
    } else {
        format!("…{}", name[name.len() + 1 - NAME_COLUMNS..].iter().collect::<String>())
    }
}

/// A text for people: only characters that a terminal obeys are escaped (`\n`, `\u{1b}`). (`str::escape_debug` escapes
/// quotes too, which is meant for source code.)
pub fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// A text without characters that a terminal obeys.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if steers(c) { '?' } else { c }).collect()
}

/// A name in this many columns, printable. Names mostly differ at their beginnings and ends, so these are kept.
pub fn shorten(name: &str, columns: usize) -> String {
    let name: Vec<char> = printable(name).chars().collect();
    if name.len() <= columns {
        return name.into_iter().collect();
    }
    let begin = columns.saturating_sub(1).div_ceil(2);
    let end = columns.saturating_sub(1) - begin;
    format!("{}…{}", String::from_iter(&name[..begin]), String::from_iter(&name[name.len() - end..]))
}

/// Draws each text over the one before.
#[derive(Debug, Default)]
pub struct Screen {
    lines_drawn: usize,
}

impl Screen {
    /// Replaces the previous text on a terminal; anywhere else appends.
    ///
    /// # Errors
    /// When the output is closed.
    pub fn draw(&mut self, text: &str, terminal: bool) -> io::Result<()> {
        let mut out = stdout();
        if terminal && self.lines_drawn > 0 {
            write!(out, "\x1b[{}A\x1b[J", self.lines_drawn)?;
        }
        self.lines_drawn = text.lines().count();
        out.write_all(text.as_bytes())?;
        out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        let mut out = Vec::new();
        let name = "a\u{1b}[2J\u{9b}31m\u{202e}gpj.exe\r";
        writeln!(Printable(&mut out), "file:{name}\tbyte 7").unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "file:a\\u001b[2J\\u009b31m\\u202egpj.exe\\u000d\tbyte 7\n");
        assert_eq!(short(name), "a?[2J?31m?gpj.exe?");
        assert_eq!(shorten("0123456789", 5), "01…89");
        assert_eq!(shorten("01234", 5), "01234");
    }

    /// The escapes are JSON's, so a reader gets the name back.
    #[test]
    fn json_stays_json() {
        let (mut out, name) = (Vec::new(), "a\u{1b}\u{9b}\u{202e}é");
        writeln!(Printable(&mut out), "{}", serde_json::Value::from(name)).unwrap();
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), name);
    }
}
