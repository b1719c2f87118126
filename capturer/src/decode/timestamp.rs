//! RFC 3339 times as Docker writes them (`2026-11-22T00:52:48.162820305Z`), to nanoseconds since 1970 and back to the
//! `seconds.nanoseconds` that the API's `since` wants. (An RFC 3339 `since` makes Docker 20.10 answer 500.)
//!
//! Own code because it runs once per line: a general parser costs ten times as much. Checked against humantime.

use std::io::Write as _;

/// Longest time that is accepted: `YYYY-MM-DDThh:mm:ss.nnnnnnnnn+hh:mm`.
pub const TIME_BYTES_MAX: usize = 35;

/// Nanoseconds since 1970, or `None` if `text` is no RFC 3339 time. Years 1970 to 2261.
pub fn parse(text: &[u8]) -> Option<i64> {
    if text.len() < 20 || text.len() > TIME_BYTES_MAX {
        return None;
    }
    let (year, month, day) = (digits(text, 0, 4)?, digits(text, 5, 2)?, digits(text, 8, 2)?);
    let (hour, minute, second) = (digits(text, 11, 2)?, digits(text, 14, 2)?, digits(text, 17, 2)?);
    let punctuation =
        text[4] == b'-' && text[7] == b'-' && text[10] == b'T' && text[13] == b':' && text[16] == b':';
    let in_range = (1970..=2261).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour <= 23
        && minute <= 59
        && second <= 60;
    if !punctuation || !in_range {
        return None;
    }
    let mut at = 19;
    let mut nanos = 0;
    if text[at] == b'.' {
        at += 1;
        let start = at;
        while at < text.len() && text[at].is_ascii_digit() && at - start < 9 {
            nanos = nanos * 10 + i64::from(text[at] - b'0');
            at += 1;
        }
        if at == start {
            return None;
        }
        nanos *= 10_i64.pow(9 - (at - start) as u32);
    }
    let offset_s = if &text[at..] == b"Z" { 0 } else { offset_s(&text[at..])? };
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset_s;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

/// `+01:00`, in seconds. Docker writes `Z`.
#[cold]
fn offset_s(text: &[u8]) -> Option<i64> {
    let [sign @ (b'+' | b'-'), _, _, b':', _, _] = text else { return None };
    let (hours, minutes) = (digits(text, 1, 2)?, digits(text, 4, 2)?);
    let seconds = hours * 3600 + minutes * 60;
    (hours <= 23 && minutes <= 59).then_some(if *sign == b'+' { seconds } else { -seconds })
}

/// `seconds.nanoseconds`, as the API's `since` and `until` take it.
pub fn to_since(unix_ns: i64) -> String {
    let unix_ns = unix_ns.max(0);
    format!("{}.{:09}", unix_ns / 1_000_000_000, unix_ns % 1_000_000_000)
}

/// RFC 3339 with nanoseconds, UTC.
pub fn format(unix_ns: i64) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(unix_ns.max(0) as u64);
    humantime::format_rfc3339_nanos(time).to_string()
}

/// Passes `then` the same time in UTC with nanoseconds: podman writes the host's local time. Text that is no time is
/// passed as it is. Allocates nothing.
#[inline]
pub fn in_utc<R>(time: &[u8], then: impl FnOnce(&[u8]) -> R) -> R {
    if time.last() == Some(&b'Z') { then(time) } else { moved_to_utc(time, then) }
}

#[cold]
fn moved_to_utc<R>(time: &[u8], then: impl FnOnce(&[u8]) -> R) -> R {
    let since_1970 = parse(time).and_then(|unix_ns| u64::try_from(unix_ns).ok());
    let Some(unix_ns) = since_1970 else { return then(time) };
    let utc = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(unix_ns);
    let mut room = [0; TIME_BYTES_MAX];
    let mut rest = &mut room[..];
    let written = write!(rest, "{}", humantime::format_rfc3339_nanos(utc));
    let len = TIME_BYTES_MAX - rest.len();
    then(if written.is_ok() { &room[..len] } else { time })
}

fn digits(text: &[u8], at: usize, count: usize) -> Option<i64> {
    let mut value = 0;
    for &byte in text.get(at..at + count)? {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = value * 10 + i64::from(byte - b'0');
    }
    Some(value)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days from 1970-01-01, Gregorian.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    const BEFORE_MONTH: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let past = year - 1;
    let leaps = past / 4 - past / 100 + past / 400 - (1969 / 4 - 1969 / 100 + 1969 / 400);
    let leap_day = i64::from(month > 2 && is_leap(year));
    (year - 1970) * 365 + leaps + BEFORE_MONTH[(month - 1) as usize] + leap_day + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        let table = [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2026-11-22T00:52:48.162820305Z", Some(1_795_308_768_162_820_305)),
            ("2026-11-22T00:52:48.5Z", Some(1_795_308_768_500_000_000)),
            ("2026-11-22T02:52:48.5+02:00", Some(1_795_308_768_500_000_000)),
            ("2026-11-21T19:22:48-05:30", Some(1_795_308_768_000_000_000)),
            ("2024-02-29T00:00:00Z", Some(1_709_164_800_000_000_000)),
            ("2023-02-29T00:00:00Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-11-22T00:52:48.Z", None),
            ("2026-11-22T00:52:48", None),
            ("2026-11-22T00:52:48+24:00", None),
            ("2026-11-22T00:52:48-01:60", None),
            ("2026-11-22 00:52:48Z", None),
            ("2026-11-22T00:52:48.1628203051Z", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(to_since(1_795_308_768_000_000_005), "1795308768.000000005");
    }

    #[test]
    fn local_times_become_utc() {
        let table = [
            ("2026-11-22T00:52:48.5Z", "2026-11-22T00:52:48.5Z"),
            ("2026-11-22T02:52:48.162820305+02:00", "2026-11-22T00:52:48.162820305Z"),
            ("2026-11-21T19:22:48-05:30", "2026-11-22T00:52:48.000000000Z"),
            ("2026-11-22T00:52:48+00:00", "2026-11-22T00:52:48.000000000Z"),
            ("2026-11-22T00:52:48", "2026-11-22T00:52:48"),
            ("", ""),
        ];
        for (time, utc) in table {
            in_utc(time.as_bytes(), |found| assert_eq!(found, utc.as_bytes(), "{time}"));
        }
    }

    /// The slow and obvious way: humantime. One time a day over two centuries, at odd nanoseconds.
    #[test]
    fn agrees_with_humantime() {
        for day in 0..100_000_i64 {
            let ns = day * 86_400_000_000_000 + (day * 7_919_000_000_123) % 86_400_000_000_000;
            assert_eq!(parse(format(ns).as_bytes()), Some(ns), "{}", format(ns));
        }
    }
}
