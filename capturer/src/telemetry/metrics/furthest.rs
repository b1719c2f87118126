//! What was read of a source, each line once: every group of sinks reads it for itself, and the one that is furthest counts. One
//! that waits for its sink holds no count back, so no sink has ever delivered more than was read.

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Number of records.
    pub lines: u64,
    /// Bytes of their messages.
    pub bytes: u64,
    /// Those of them that were cut.
    pub truncated: u64,
}

impl Read {
    fn plus(self, more: Read) -> Read {
        Read {
            lines: self.lines + more.lines,
            bytes: self.bytes + more.bytes,
            truncated: self.truncated + more.truncated,
        }
    }

    fn beyond(self, known: Read) -> Read {
        Read {
            lines: self.lines.saturating_sub(known.lines),
            bytes: self.bytes.saturating_sub(known.bytes),
            truncated: self.truncated.saturating_sub(known.truncated),
        }
    }
}

/// How far each group has read one source.
#[derive(Debug, Default)]
pub struct Furthest {
    /// By the group's number.
    by_outlet: Vec<Read>,
    furthest: Read,
}

impl Furthest {
    /// A group has read so much more. Returns what of it none had read before.
    pub fn read(&mut self, outlet: u8, more: Read) -> Read {
        let outlet = usize::from(outlet);
        if self.by_outlet.len() <= outlet {
            self.by_outlet.resize(outlet + 1, Read::default());
        }
        self.by_outlet[outlet] = self.by_outlet[outlet].plus(more);
        let news = self.by_outlet[outlet].beyond(self.furthest);
        self.furthest = self.furthest.plus(news);
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_furthest_counts() {
        let mut source = Furthest::default();
        let mut read = |outlet, lines| source.read(outlet, Read { lines, ..Read::default() }).lines;
        assert_eq!([read(0, 5), read(1, 3), read(1, 4), read(0, 1), read(0, 2)], [5, 0, 2, 0, 1]);
        // The first group waits for its sink; the other's lines count all the same.
        assert_eq!(read(1, 100), 99);
    }
}
