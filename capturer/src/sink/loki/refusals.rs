//! Which lines of a request Loki refused, by its own words. Pure.
//!
//! Loki stores every good line of a request that it answers with 400, so only the lines that it refused need care. It
//! names them by time, size or label set: `entry for stream '{…}' has timestamp too old: T, oldest acceptable timestamp
//! is: T`, `3 errors like: …`, `entry with timestamp T ignored, reason: 'entry too far behind, …'`. Times are mostly
//! written to the second, so lines of one second may only be told apart by their number; if even that does not decide,
//! they are sent once more. Lines that an ingester ignored are named to the nanosecond, but only the first ten of them:
//! if lines were out of order, the others follow from their number.

use std::collections::BTreeMap;

use prost::Message as _;

use super::answer::refusal;
use super::push::{EntryAdapter, PushRequest};
use crate::decode::timestamp;
use crate::telemetry::metrics::DeadLetterReason;

const SECOND_NS: i64 = 1_000_000_000;
/// How an ingester begins to name a line.
const IGNORED: &str = "entry with timestamp ";

/// The result for the lines of a request, by their positions in it. Lines in neither list were stored.
#[derive(Debug, Default, PartialEq)]
pub struct Sorted {
    /// Refused for good.
    pub refused: BTreeMap<usize, DeadLetterReason>,
    /// Refused or stored: to be sent once more.
    pub unsure: Vec<usize>,
}

impl Sorted {
    /// Loki's words name none of these lines.
    pub fn is_empty(&self) -> bool {
        self.refused.is_empty() && self.unsure.is_empty()
    }
}

/// One reason in Loki's words, with what it says about the lines.
#[derive(Debug, PartialEq)]
struct Reason<'a> {
    name: DeadLetterReason,
    /// Lines; `None` = not said.
    count: Option<usize>,
    text: &'a str,
}

/// Sorts the lines of a request that was answered with a 400 of these words. `now_ns` is our own clock.
pub fn sort(request: &PushRequest, words: &str, now_ns: i64) -> Sorted {
    let entries: Vec<&EntryAdapter> = request.streams.iter().flat_map(|stream| &stream.entries).collect();
    let mut sorted = Sorted::default();
    let reasons = reasons(words);
    let mut limits: BTreeMap<DeadLetterReason, (i64, Option<usize>)> = BTreeMap::new();
    let mut seconds: BTreeMap<(DeadLetterReason, i64), usize> = BTreeMap::new();
    let ignored = ignored(&entries, &reasons);
    let is_told = |reason: &&Reason| ignored.is_none() || !reason.is_of_ingester();
    for reason in reasons.iter().filter(is_told) {
        match reason.name {
            DeadLetterReason::TooManyLabels
            | DeadLetterReason::LabelNameTooLong
            | DeadLetterReason::LabelValueTooLong
            | DeadLetterReason::DuplicateLabel
            | DeadLetterReason::InvalidLabels => {
                // A request has one label set.
                sorted.refused.extend((0..entries.len()).map(|index| (index, reason.name)));
            }
            DeadLetterReason::LineTooLong => {
                let Some(limit) = number_behind(reason.text, "max entry size '") else { continue };
                let too_long = |(_, entry): &(usize, &&EntryAdapter)| entry.line.len() > limit;
                mark(&mut sorted, entries.iter().enumerate().filter(too_long), reason.name);
            }
            DeadLetterReason::MetadataTooLarge => {
                let Some(limit) = number_behind(reason.text, "limit: '") else { continue };
                let large = |(_, entry): &(usize, &&EntryAdapter)| {
                    let pairs = entry.structured_metadata.iter();
                    let size: usize = pairs.map(|pair| pair.name.len() + pair.value.len()).sum();
                    size > limit || entry.structured_metadata.len() > limit
                };
                mark(&mut sorted, entries.iter().enumerate().filter(large), reason.name);
            }
            DeadLetterReason::TooOld | DeadLetterReason::TooFarBehind => {
                // A limit in the future is none: every line would be behind it.
                if let Some(oldest) = oldest_acceptable(reason.text).filter(|oldest| *oldest <= now_ns) {
                    let (limit, count) = limits.entry(reason.name).or_insert((oldest, None));
                    *limit = oldest.max(*limit);
                    *count = reason.count.or(*count);
                } else {
                    *seconds.entry((reason.name, second(reason.text))).or_default() +=
                        reason.count.unwrap_or(1);
                }
            }
            DeadLetterReason::TooFarInFuture | DeadLetterReason::OutOfOrder => {
                *seconds.entry((reason.name, second(reason.text))).or_default() += reason.count.unwrap_or(1);
            }
            DeadLetterReason::BodyTooLarge | DeadLetterReason::Forbidden | DeadLetterReason::Other => {}
        }
    }
    for (index, name) in ignored.into_iter().flatten() {
        sorted.refused.entry(index).or_insert(name);
    }
    for (name, (oldest, count)) in limits {
        by_limit(&mut sorted, &entries, oldest, name, count);
    }
    for ((name, second), count) in seconds {
        by_second(&mut sorted, &entries, second, name, count);
    }
    // All of them, however they are named.
    let all: usize = reasons.iter().filter_map(|reason| reason.count).sum();
    if sorted.is_empty() && all >= entries.len() && all > 0 {
        sorted.refused.extend((0..entries.len()).map(|index| (index, reasons[0].name)));
    }
    sorted.unsure.retain(|index| !sorted.refused.contains_key(index));
    sorted.unsure.sort_unstable();
    sorted.unsure.dedup();
    sorted
}

impl Reason<'_> {
    fn is_of_ingester(&self) -> bool {
        self.text.get(..IGNORED.len()).is_some_and(|head| head.eq_ignore_ascii_case(IGNORED))
    }
}

/// The lines that an ingester ignored, if its words say it of each: their times are exact, and there are as many as it says.
fn ignored(entries: &[&EntryAdapter], reasons: &[Reason]) -> Option<BTreeMap<usize, DeadLetterReason>> {
    let mut times: BTreeMap<i64, (usize, DeadLetterReason)> = BTreeMap::new();
    let named: Vec<&Reason> = reasons.iter().filter(|reason| reason.is_of_ingester()).collect();
    for reason in &named {
        times.entry(exact_time(&reason.text[IGNORED.len()..])?).or_insert((0, reason.name)).0 += 1;
    }
    let total = named.iter().rev().find_map(|reason| reason.count).unwrap_or(named.len());
    let mut found = BTreeMap::new();
    for (time, (count, name)) in &times {
        let equal = places(entries, |other| other == *time);
        if equal.len() == *count {
            found.extend(equal.into_iter().map(|index| (index, *name)));
        }
    }
    let name = DeadLetterReason::OutOfOrder;
    if found.len() != total && named.iter().all(|reason| reason.name == name) {
        let late = out_of_order(entries, total)?;
        found.retain(|index, _| !late.contains(index));
        let is_right = found.is_empty();
        found = late.into_iter().map(|index| (index, name)).collect();
        return is_right.then_some(found);
    }
    (!found.is_empty() && found.len() == total).then_some(found)
}

/// The lines that a Loki without `unordered_writes` ignored of a request, if it ignored so many: each that is older than the
/// newest before it, or than what was there before. That time alone is unknown, and the later it is the more are ignored.
fn out_of_order(entries: &[&EntryAdapter], count: usize) -> Option<Vec<usize>> {
    let times: Vec<i64> = entries.iter().map(|entry| entry.timestamp.unwrap_or_default().to_ns()).collect();
    let behind = |mut newest: i64| -> Vec<usize> {
        let late = |(_, time): &(usize, &i64)| {
            let is_late = **time < newest;
            newest = newest.max(**time);
            is_late
        };
        times.iter().enumerate().filter(late).map(|(index, _)| index).collect()
    };
    let mut before: Vec<i64> = [i64::MIN, i64::MAX].into_iter().chain(times.iter().copied()).collect();
    before.sort_unstable();
    let at = before.partition_point(|before| behind(*before).len() < count);
    Some(behind(*before.get(at)?)).filter(|late| late.len() == count)
}

fn mark<'e>(
    sorted: &mut Sorted,
    found: impl Iterator<Item = (usize, &'e &'e EntryAdapter)>,
    name: DeadLetterReason,
) {
    for (index, _) in found {
        sorted.refused.entry(index).or_insert(name);
    }
}

/// Everything older than what is acceptable. The limit is written to the second, so lines of that second are in doubt.
fn by_limit(
    sorted: &mut Sorted,
    entries: &[&EntryAdapter],
    oldest: i64,
    name: DeadLetterReason,
    count: Option<usize>,
) {
    let older = places(entries, |time| time < oldest);
    // The limit of a label set moves with its newest line, so it may have been another one for each line.
    if name == DeadLetterReason::TooFarBehind && count.is_some_and(|count| count != older.len()) {
        sorted.unsure.extend(older);
    } else {
        older.into_iter().for_each(|index| {
            sorted.refused.entry(index).or_insert(name);
        });
    }
    sorted.unsure.extend(places(entries, |time| (oldest..oldest + SECOND_NS).contains(&time)));
}

fn by_second(
    sorted: &mut Sorted,
    entries: &[&EntryAdapter],
    second: i64,
    name: DeadLetterReason,
    count: usize,
) {
    let found = places(entries, |time| time.div_euclid(SECOND_NS) * SECOND_NS == second);
    if found.len() == count {
        found.into_iter().for_each(|index| {
            sorted.refused.entry(index).or_insert(name);
        });
    } else {
        sorted.unsure.extend(found);
    }
}

fn places(entries: &[&EntryAdapter], wanted: impl Fn(i64) -> bool) -> Vec<usize> {
    let time = |entry: &EntryAdapter| entry.timestamp.unwrap_or_default().to_ns();
    entries.iter().enumerate().filter(|(_, entry)| wanted(time(entry))).map(|(index, _)| index).collect()
}

/// The oldest time that Loki still takes, if these words say so: nanoseconds since 1970, to the second.
pub fn oldest_acceptable(words: &str) -> Option<i64> {
    const BEFORE: &str = "oldest acceptable timestamp is: ";
    let mut latest = None;
    for (at, _) in words.match_indices(BEFORE) {
        latest = latest.max(time_at(&words[at + BEFORE.len()..]));
    }
    latest
}

/// The second that a reason names first; `i64::MIN` = none.
fn second(text: &str) -> i64 {
    let places = text.char_indices().filter(|(_, c)| c.is_ascii_digit()).map(|(at, _)| at);
    let mut times = places.filter_map(|at| time_at(&text[at..]));
    times.next().map_or(i64::MIN, |ns| ns.div_euclid(SECOND_NS) * SECOND_NS)
}

/// A time in one of the two forms that Loki writes: `2026-01-01T00:00:00Z` or `2026-01-01 00:00:00.5 +0000 UTC`.
fn time_at(text: &str) -> Option<i64> {
    let head = text.get(.."2026-01-01T00:00:00".len())?;
    let bytes = head.as_bytes();
    if bytes[4] != b'-' || !matches!(bytes[10], b'T' | b' ') || bytes[13] != b':' {
        return None;
    }
    timestamp::parse(format!("{}T{}Z", &head[..10], &head[11..]).as_bytes())
}

/// A time as Go shows it, to the nanosecond: `2026-01-01 00:00:00.5 +0000 UTC`.
fn exact_time(text: &str) -> Option<i64> {
    let (time, _) = text.split_once(" +0000 UTC")?;
    let (date, time) = time.split_once(' ')?;
    timestamp::parse(format!("{date}T{time}Z").as_bytes())
}

fn number_behind(text: &str, mark: &str) -> Option<usize> {
    let lower = text.to_ascii_lowercase();
    let at = lower.find(mark)? + mark.len();
    let digits: String = lower[at..].chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// How Loki's reasons begin, as far as several can stand in one answer.
const BEGINNINGS: [&str; 7] = [
    "entry for stream",
    "entry with timestamp",
    "max entry size",
    "stream '",
    "error",
    "couldn't parse",
    "duplicate label",
];

/// Loki joins its reasons by `; ` or new lines. A label's value may hold both, so only what begins as a reason is one.
fn reasons(words: &str) -> Vec<Reason<'_>> {
    let begins = |piece: &str| {
        let piece = piece.trim_start_matches(|c: char| c.is_ascii_digit());
        let piece = piece.strip_prefix(" errors like: ").unwrap_or(piece);
        BEGINNINGS.iter().any(|beginning| {
            piece.get(..beginning.len()).is_some_and(|head| head.eq_ignore_ascii_case(beginning))
        })
    };
    let after = |mark: &'static str| words.match_indices(mark).map(move |(at, _)| at + mark.len());
    let mut starts: Vec<usize> = after("; ").chain(after("\n")).filter(|at| begins(&words[*at..])).collect();
    starts.push(0);
    starts.sort_unstable();
    let ends = starts.iter().skip(1).copied().chain([words.len()]);
    let pieces = starts.iter().zip(ends).map(|(from, to)| words[*from..to].trim_matches([';', ' ', '\n']));
    let reason = |text| Reason { name: refusal(400, text), count: count(text), text };
    pieces.map(reason).filter(|reason| reason.name != DeadLetterReason::Other).collect()
}

/// `3 errors like: …`, or `total ignored: 3 out of 5`.
fn count(text: &str) -> Option<usize> {
    if let Some((number, _)) = text.split_once(" errors like: ") {
        return number.split_whitespace().last()?.parse().ok();
    }
    number_behind(text, "total ignored: ")
}

/// Takes the lines at these positions out of a request, with their label set.
pub fn pick(request: &PushRequest, wanted: impl Fn(usize) -> bool) -> PushRequest {
    let mut picked = PushRequest::default();
    let mut index = 0;
    for stream in &request.streams {
        let mut of_stream = super::push::StreamAdapter { labels: stream.labels.clone(), entries: Vec::new() };
        for entry in &stream.entries {
            if wanted(index) {
                of_stream.entries.push(entry.clone());
            }
            index += 1;
        }
        if !of_stream.entries.is_empty() {
            picked.streams.push(of_stream);
        }
    }
    picked
}

/// A request as it is encoded; only what we encoded ourselves is in the spool, and its checksum was right.
pub fn decode(body: &[u8]) -> PushRequest {
    PushRequest::decode(body).unwrap_or_default()
}

#[cfg(test)]
#[path = "refusals_tests.rs"]
mod tests;
