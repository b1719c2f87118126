//! The lines of the bench's loads, and the comparison of outputs with them.
//!
//! Every line of a live load contains its source and number, which determine its text, so outputs can be checked
//! without keeping what was written. [`compare`] counts the differences: for the agent any difference is an error, for
//! another program it is a result.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;

use anyhow::{Context as _, Result, ensure};

/// Lines in order, by source.
pub type Lines = BTreeMap<String, Vec<String>>;

/// Seconds before the first line's time is past.
const FIRST_LINE_S: u64 = 3_168;

/// Differences between outputs and what was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exactness {
    /// Lines that did not arrive.
    pub lost: u64,
    /// Copies of lines beyond the number that was written.
    pub repeated: u64,
    /// Lines that were never written.
    pub foreign: u64,
    /// Lines that arrived after one that was written later.
    pub disordered: u64,
}

impl Exactness {
    /// Each line came once and in order.
    pub fn holds(self) -> bool {
        self == Exactness::default()
    }

    fn add(&mut self, other: Exactness) {
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.foreign += other.foreign;
        self.disordered += other.disordered;
    }

    /// The sum over several runs.
    pub fn sum(runs: impl Iterator<Item = Exactness>) -> Exactness {
        let mut sum = Exactness::default();
        runs.for_each(|run| sum.add(run));
        sum
    }
}

impl fmt::Display for Exactness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.holds() {
            return f.write_str("exact");
        }
        let counts = [
            (self.lost, "lost"),
            (self.repeated, "repeated"),
            (self.foreign, "altered"),
            (self.disordered, "out of order"),
        ];
        let said =
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
        write!(f, "NOT EXACT: {} lines", said.collect::<Vec<_>>().join(", "))
    }
}

/// How what was found differs from what was expected, over all sources.
pub fn compare(expected: &Lines, found: &Lines) -> Exactness {
    let mut all = Exactness::default();
    let none = Vec::new();
    for (source, lines) in expected {
        all.add(compare_source(lines, found.get(source).unwrap_or(&none)));
    }
    let unknown = found.iter().filter(|(source, _)| !expected.contains_key(*source));
    all.foreign += unknown.map(|(_, lines)| lines.len() as u64).sum::<u64>();
    all
}

fn compare_source(expected: &[String], found: &[String]) -> Exactness {
    let mut all = Exactness::default();
    if expected == found {
        return all;
    }
    // The places of each text that was written and has not been found yet.
    let mut places = HashMap::<&str, VecDeque<usize>>::new();
    for (at, line) in expected.iter().enumerate() {
        places.entry(line).or_default().push_back(at);
    }
    let mut last = 0;
    for line in found {
        match places.get_mut(line.as_str()).map(VecDeque::pop_front) {
            None => all.foreign += 1,
            Some(None) => all.repeated += 1,
            Some(Some(at)) => {
                all.disordered += u64::from(at < last);
                last = last.max(at);
            }
        }
    }
    all.lost = places.values().map(|left| left.len() as u64).sum();
    all
}

/// `…_c7.log.ndjson`, `…/c7.log`, `bench.c7` or `c7.ndjson` is `c7`: the last part that is a letter and a number.
pub fn source_of(name: &str) -> &str {
    let is_source = |part: &&str| {
        let digits = part.strip_prefix(['c', 'f']).unwrap_or_default();
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    // After a ~ the agent's names have a hash, which may look like a source.
    let plain = name.split('~').next().unwrap_or(name);
    plain.rsplit(['_', '/', '.']).find(is_source).unwrap_or(name)
}

/// Lines by the value of one label.
pub fn by_source(lines: Lines, label: &str) -> Result<Lines> {
    let mut found = Lines::new();
    for (labels, lines) in lines {
        let value = labels.split_once(label).and_then(|(_, rest)| rest.split('"').next());
        let value = value.with_context(|| format!("no {label} in {labels}"))?;
        ensure!(found.insert(source_of(value).to_owned(), lines).is_none(), "two label sets of {value}");
    }
    Ok(found)
}

/// The lines that each source of a live load has printed when together they have printed this many.
pub fn printed_by(sources: usize, lines: u64) -> Lines {
    let of = |source| (0..lines / sources as u64).map(move |n| text(source, n)).collect();
    (0..sources).map(|source| (format!("c{source}"), of(source))).collect()
}

/// The text of a source's line with this number.
pub fn text(source: usize, n: u64) -> String {
    const WORDS: &str = "request done by the worker that took it from the queue of orders in the warehouse behind the shop, and \
                         nobody had to wait for longer than is promised, which is what everybody wants to read in a log";
    let any = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(source as u64).rotate_left(17);
    let len = 20 + (any % 160) as usize;
    format!("{n} c{source} {:08x} {}", any >> 32, &WORDS[..len])
}

/// A time within one day, a microsecond for each line.
pub fn time(number: u64) -> String {
    let seconds = FIRST_LINE_S + number / 1_000_000;
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("2026-11-22T{hour:02}:{minute:02}:{second:02}.{:09}Z", number % 1_000_000 * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A check that accepts anything would call every program exact.
    #[test]
    fn what_is_missing_repeated_or_in_another_order_is_seen() {
        let all = |of: &dyn Fn(usize) -> Vec<u64>| -> Lines {
            let lines = |source| of(source).into_iter().map(|n| text(source, n)).collect();
            (0..3).map(|source| (format!("c{source}"), lines(source))).collect()
        };
        let expected = printed_by(3, 9);
        assert!(compare(&expected, &all(&|_| (0..3).collect())).holds());
        let cases = [
            (vec![0, 1], Exactness { lost: 1, ..Exactness::default() }),
            (vec![0, 1, 2, 2], Exactness { repeated: 1, ..Exactness::default() }),
            (vec![0, 2, 1], Exactness { disordered: 1, ..Exactness::default() }),
            (vec![0, 1, 3], Exactness { lost: 1, foreign: 1, ..Exactness::default() }),
            (vec![], Exactness { lost: 3, ..Exactness::default() }),
        ];
        for (wrong, outcome) in cases {
            let of = |source: usize| if source == 1 { wrong.clone() } else { vec![0, 1, 2] };
            assert_eq!(compare(&expected, &all(&of)), outcome, "{wrong:?}");
        }
        let more = compare(&printed_by(2, 6), &expected);
        assert_eq!(more, Exactness { foreign: 3, ..Exactness::default() }, "a source that nobody has");
        assert_eq!(more.to_string(), "NOT EXACT: 3 altered lines");
    }

    #[test]
    fn sources_have_their_names_in_files_and_labels() {
        for name in ["tmp_bench_in_c7.log.ndjson", "/tmp/x/in/c7.log", "c7.ndjson", "bench.c7", "/c1/c7.log"]
        {
            assert_eq!(source_of(name), "c7");
        }
        assert_eq!(source_of("tmp_f12.log~c1234567.ndjson"), "f12");
        assert_eq!(source_of("stdout"), "stdout");
    }
}
