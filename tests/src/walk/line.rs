//! The lines that a walk writes: each contains its own identity, so that it can be recognized anywhere.

/// A line by what was written (a file's content until it is emptied) and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LineId {
    /// Which content.
    pub text: u16,
    /// Which line of it, from 0.
    pub number: u16,
}

impl LineId {
    /// The line, without its newline. Its length depends on the number alone, so that a text can be written over another
    /// to the byte. One line alone is enough to know a copy of its file by.
    pub fn line(self) -> String {
        let mix = usize::from(self.number).wrapping_mul(7_919) % 61;
        let length = if self.number % 23 == 11 { 3_000 + mix } else { 44 + mix };
        let filler = (0..length).map(|at| char::from(b'a' + ((at + usize::from(self.number)) % 26) as u8));
        format!("t{:03}.{:04}.{}.", self.text, self.number, filler.collect::<String>())
    }

    /// The line that begins so, whether it is whole or not.
    pub fn of(text: &str) -> Option<LineId> {
        let mut parts = text.strip_prefix('t')?.split('.');
        let (text, number) = (parts.next()?, parts.next()?);
        parts.next()?;
        (text.len() == 3 && number.len() == 4).then_some(())?;
        Some(LineId { text: text.parse().ok()?, number: number.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Equal lengths are what makes a rewritten file hard to tell from the one before.
    #[test]
    fn lines_say_what_they_are_and_are_as_long_in_every_text() {
        for number in 0..200 {
            let id = LineId { text: 12, number };
            assert_eq!(LineId::of(&id.line()), Some(id));
            assert_eq!(id.line().len(), LineId { text: 3, number }.line().len());
        }
        assert_eq!(LineId::of("t01.0003.abc"), None);
        assert_eq!(LineId::of("abc"), None);
    }
}
