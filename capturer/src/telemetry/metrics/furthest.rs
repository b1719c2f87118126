//! Counts what was read of a source, each line once. Every outlet reads the source for itself, and the count is that of
//! the furthest one. So an outlet that waits for its sink does not hold the count back, and no sink has delivered more
//! than was read.

use crate::model::rare::Rare;

/// What an outlet has read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Number of records.
    pub lines: u64,
    /// Bytes of their messages.
    pub bytes: u64,
    /// How many of them were cut.
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

/// How far each outlet has read one source. `O` identifies outlets. Nearly all of tens of thousands of sources have one
/// outlet, which needs no list.
#[derive(Debug)]
pub struct Furthest<O> {
    /// The only outlet so far, which has read up to `furthest`.
    only: Option<O>,
    /// All outlets, if there are several.
    by_outlet: Rare<Vec<(O, Read)>>,
    furthest: Read,
}

impl<O> Default for Furthest<O> {
    fn default() -> Self {
        Furthest { only: None, by_outlet: Rare::default(), furthest: Read::default() }
    }
}

impl<O: PartialEq + 'static> Furthest<O> {
    /// An outlet has read `more`. Returns the part that no outlet had read before.
    pub fn read(&mut self, outlet: O, more: Read) -> Read {
        let is_only = match &self.only {
            Some(only) => *only == outlet,
            None => self.by_outlet.is_empty() && self.furthest == Read::default(),
        };
        if is_only {
            self.only = Some(outlet);
            self.furthest = self.furthest.plus(more);
            return more;
        }
        self.by_outlet.extend(self.only.take().map(|only| (only, self.furthest)));
        let index = self.by_outlet.iter().position(|(known, _)| *known == outlet);
        let index = index.unwrap_or_else(|| {
            self.by_outlet.push((outlet, Read::default()));
            self.by_outlet.len() - 1
        });
        let read = &mut self.by_outlet[index].1;
        *read = read.plus(more);
        let news = read.beyond(self.furthest);
        self.furthest = self.furthest.plus(news);
        news
    }

    /// The same with other names for outlets; `None` = that outlet no longer exists.
    pub fn renamed<N: PartialEq + 'static>(&self, name: impl Fn(&O) -> Option<N>) -> Furthest<N> {
        let only = self.only.iter().map(|only| (only, self.furthest));
        let known = only.chain(self.by_outlet.iter().map(|(outlet, read)| (outlet, *read)));
        let by_outlet: Vec<_> = known.filter_map(|(outlet, read)| Some((name(outlet)?, read))).collect();
        Furthest { only: None, by_outlet: by_outlet.into(), furthest: self.furthest }
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
        // The first outlet waits for its sink; the other one's lines count anyway.
        assert_eq!(read(1, 100), 99);
    }
}
