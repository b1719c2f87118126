//! Lines that were read, each once, however many groups of sinks read it: of a source counts what the group has read that is
//! furthest. One that waits for its sink holds no count back, so no sink has ever delivered more than was read.

use std::collections::BTreeMap;

use crate::record::StreamKey;

/// What was read of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Records.
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

/// See the module's head.
#[derive(Debug)]
pub struct Counted {
    outlets: usize,
    by_source: BTreeMap<StreamKey, Source>,
}

#[derive(Debug)]
struct Source {
    by_outlet: Vec<Read>,
    furthest: Read,
}

impl Counted {
    /// For so many groups of sinks.
    pub fn new(outlets: usize) -> Counted {
        Counted { outlets, by_source: BTreeMap::new() }
    }

    /// A group has read so much more. Returns what of it nobody had read before.
    pub fn read(&mut self, source: &StreamKey, outlet: u8, more: Read) -> Read {
        if self.outlets <= 1 {
            return more;
        }
        if !self.by_source.contains_key(source) {
            let by_outlet = vec![Read::default(); self.outlets];
            self.by_source.insert(source.clone(), Source { by_outlet, furthest: Read::default() });
        }
        let Some(known) = self.by_source.get_mut(source) else { return more };
        let own = &mut known.by_outlet[usize::from(outlet)];
        *own = own.plus(more);
        let news = own.beyond(known.furthest);
        known.furthest = known.furthest.plus(news);
        news
    }

    /// Nobody reads it any more.
    pub fn forget(&mut self, source: &StreamKey) {
        self.by_source.remove(source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_furthest_counts() {
        let mut counted = Counted::new(2);
        let key = StreamKey("a".to_owned());
        let mut read = |outlet, lines| counted.read(&key, outlet, Read { lines, ..Read::default() }).lines;
        assert_eq!([read(0, 5), read(1, 3), read(1, 4), read(0, 1), read(0, 2)], [5, 0, 2, 0, 1]);
        // The first group waits for its sink; the other's lines count all the same.
        assert_eq!(read(1, 100), 99);
    }

    #[test]
    fn of_one_group_all_counts() {
        let mut counted = Counted::new(1);
        let key = StreamKey("a".to_owned());
        assert_eq!(counted.read(&key, 0, Read { lines: 5, ..Read::default() }).lines, 5);
        assert!(counted.by_source.is_empty());
    }
}
