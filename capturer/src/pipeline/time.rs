//! Turns times in fields into nanoseconds since 1970. decode/timestamp.rs reads the one form that Docker writes.

use jiff::tz::TimeZone;

use crate::decode::timestamp::{self, TIME_BYTES_MAX};
use crate::settings::pipeline::{TimeFormat, TimePart, Timestamp};

const SECOND_NS: i128 = 1_000_000_000;
const DAY_NS: i64 = 86_400_000_000_000;
/// Longest text that can be a time.
const TEXT_BYTES_MAX: usize = 128;

/// From 2001 to 2199. A number outside is in another unit: seconds read as milliseconds would be a day in 1970.
const PLAUSIBLE_NS: std::ops::Range<i64> = 978_307_200_000_000_000..7_258_118_400_000_000_000;

/// `None` = the text is no time of this form. `now_ns` gives the year if the form has none.
pub(super) fn parse(settings: &Timestamp, text: &str, now_ns: i64) -> Option<i64> {
    let text = text.trim_ascii();
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let timezone = settings.timezone.as_ref();
    match &settings.format {
        TimeFormat::Rfc3339 => {
            let of = |text: &str| rfc3339(text).or_else(|| iso8601(text.as_bytes(), timezone));
            of(text).or_else(|| of(without_names(text)?))
        }
        TimeFormat::Unix => number(text, SECOND_NS),
        TimeFormat::UnixMs => number(text, 1_000_000),
        TimeFormat::UnixUs => number(text, 1000),
        TimeFormat::UnixNs => number(text, 1),
        TimeFormat::Parts(parts) => by_parts(parts, text.as_bytes(), timezone, now_ns),
    }
}

/// The offset counts, and what names it once more does not: Go prints `2026-11-22 00:52:48.1 +0000 UTC m=+0.5`, Java
/// `2026-11-22T01:52:48+01:00[Europe/Berlin]`.
fn without_names(text: &str) -> Option<&str> {
    let plain = text.split_once(" m=").map_or(text, |(plain, _)| plain);
    let plain =
        plain.strip_suffix(']').and_then(|inside| inside.rsplit_once('[')).map_or(plain, |(plain, _)| plain);
    let is_name =
        |word: &str| (1..=5).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_alphabetic());
    let is_offset = |word: &str| word.starts_with(['+', '-']) && word.ends_with(|c: char| c.is_ascii_digit());
    let plain = match plain.rsplit_once(' ') {
        Some((before, name)) if is_name(name) && before.rsplit(' ').next().is_some_and(is_offset) => before,
        _ => plain,
    };
    (plain.len() < text.len()).then_some(plain)
}

fn rfc3339(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let mut copy = [0; TIME_BYTES_MAX];
    let copy = copy.get_mut(..bytes.len())?;
    copy.copy_from_slice(bytes);
    if let Some(between) = copy.get_mut(10).filter(|byte| matches!(byte, b' ' | b't')) {
        *between = b'T';
    }
    if let Some(last) = copy.last_mut().filter(|byte| **byte == b'z') {
        *last = b'Z';
    }
    timestamp::parse(copy)
}

/// Other common forms of ISO 8601: offsets of hours alone or without a colon, a comma before the fraction, no seconds,
/// no signs between the parts, and, if a time zone is given, no offset.
fn iso8601(text: &[u8], timezone: Option<&TimeZone>) -> Option<i64> {
    let mut civil = Civil::default();
    let extended = text.get(4) == Some(&b'-');
    let sign = |text| if extended { skip(text, b"-") } else { Some(text) };
    let (year, rest) = number_of(text, 4, 4)?;
    let (month, rest) = number_of(sign(rest)?, 2, 2)?;
    let (day, rest) = number_of(sign(rest)?, 2, 2)?;
    let rest = skip(rest, b"Tt _")?;
    let rest = rest.trim_ascii_start();
    let (hour, rest) = number_of(rest, 2, 2)?;
    let colon = rest.first() == Some(&b':');
    let (minute, mut rest) = number_of(if colon { &rest[1..] } else { rest }, 2, 2)?;
    if let Some((second, behind)) =
        number_of(if colon { skip(rest, b":").unwrap_or(b"") } else { rest }, 2, 2)
    {
        (civil.second, rest) = (second, behind);
        if let Some(digits) = skip(rest, b".,") {
            rest = civil.take(TimePart::Fraction, digits)?;
        }
    }
    (civil.month, civil.day, civil.hour, civil.minute) = (month, day, hour, minute);
    let rest = rest.trim_ascii_start();
    if !rest.is_empty() {
        rest_is_none(civil.zone(rest)?)?;
    } else if timezone.is_none() {
        return None;
    }
    civil.to_ns(year, timezone)
}

fn skip<'t>(text: &'t [u8], one_of: &[u8]) -> Option<&'t [u8]> {
    text.split_first().filter(|(byte, _)| one_of.contains(byte)).map(|(_, rest)| rest)
}

fn rest_is_none(rest: &[u8]) -> Option<()> {
    rest.is_empty().then_some(())
}

/// A number with or without a fraction, in units of this many nanoseconds, if it is a plausible time. Java writes
/// seconds with an exponent: `1.795888888123E9`.
fn number(text: &str, unit_ns: i128) -> Option<i64> {
    if let Some((mantissa, exponent)) = text.split_once(['e', 'E']) {
        return number(&shifted(mantissa, exponent)?, unit_ns);
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 20 || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let mut ns = whole.parse::<i128>().ok()? * unit_ns;
    let mut unit = unit_ns;
    for digit in fraction.bytes() {
        unit /= 10;
        ns += i128::from(digit - b'0') * unit;
    }
    i64::try_from(ns).ok().filter(|ns| PLAUSIBLE_NS.contains(ns))
}

/// The same number without an exponent, if it can be a time.
fn shifted(mantissa: &str, exponent: &str) -> Option<String> {
    let exponent: usize = exponent.parse().ok().filter(|exponent| *exponent <= 20)?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() {
        return None;
    }
    let fraction = format!("{fraction:0<exponent$}");
    let (moved, rest) = fraction.split_at_checked(exponent)?;
    Some(format!("{whole}{moved}.{rest}"))
}

#[derive(Default)]
struct Civil {
    year: Option<i64>,
    month: i64,
    day: i64,
    hour: i64,
    /// With a 12-hour clock: whether it is the second half of the day.
    afternoon: Option<bool>,
    minute: i64,
    second: i64,
    nanos: i64,
    /// Minutes east of UTC, if the text has an offset.
    offset_min: Option<i64>,
}

fn by_parts(parts: &[TimePart], text: &[u8], timezone: Option<&TimeZone>, now_ns: i64) -> Option<i64> {
    let mut civil = Civil::default();
    let mut rest = text;
    for part in parts {
        rest = civil.take(*part, rest)?;
    }
    // Nothing may follow the time.
    if !rest.is_empty() {
        return None;
    }
    let year = match civil.year {
        Some(year) => year,
        None => {
            let this: i64 = timestamp::format(now_ns).get(..4)?.parse().ok()?;
            // A line of December may be read in January. Eight years may be between two 29ths of February.
            let is_past = |year: &i64| {
                civil.to_ns(*year, timezone).is_some_and(|ns| ns <= now_ns.saturating_add(DAY_NS))
            };
            // At New Year the next year has already begun where the zone is ahead of UTC, or the clock is.
            (this - 8..=this + 1).rev().find(is_past)?
        }
    };
    civil.to_ns(year, timezone)
}

impl Civil {
    /// Takes a part from the beginning of the text.
    fn take<'t>(&mut self, part: TimePart, text: &'t [u8]) -> Option<&'t [u8]> {
        let (value, rest) = match part {
            TimePart::Literal(b' ') => {
                let rest = text.trim_ascii_start();
                return (rest.len() < text.len()).then_some(rest);
            }
            TimePart::Literal(byte) => return text.strip_prefix(&[byte]),
            TimePart::Weekday => return text.get(..3).filter(|name| name.is_ascii()).map(|_| &text[3..]),
            TimePart::MonthName => {
                const NAMES: [&str; 12] =
                    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
                let name = text.get(..3)?;
                let index = NAMES.iter().position(|known| known.as_bytes().eq_ignore_ascii_case(name))?;
                (index as i64 + 1, &text[3..])
            }
            TimePart::Half => {
                let half = text.get(..2)?.to_ascii_uppercase();
                self.afternoon = Some(match &half[..] {
                    b"AM" => false,
                    b"PM" => true,
                    _ => return None,
                });
                return Some(&text[2..]);
            }
            TimePart::Zone => return self.zone(text),
            TimePart::Fraction => {
                let len = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
                let digits = text.get(..len).filter(|digits| !digits.is_empty())?;
                let padded = digits.iter().chain(std::iter::repeat(&b'0')).take(9);
                (padded.fold(0, |ns, digit| ns * 10 + i64::from(digit - b'0')), &text[len..])
            }
            TimePart::Year => number_of(text, 4, 4)?,
            // A space may stand for a zero.
            TimePart::Day => number_of(text.strip_prefix(b" ").unwrap_or(text), 1, 2)?,
            TimePart::Month | TimePart::Hour | TimePart::Hour12 | TimePart::Minute | TimePart::Second => {
                number_of(text, 1, 2)?
            }
        };
        match part {
            TimePart::Year => self.year = Some(value),
            TimePart::Month | TimePart::MonthName => self.month = value,
            TimePart::Day => self.day = value,
            TimePart::Hour12 if !(1..=12).contains(&value) => return None,
            TimePart::Hour | TimePart::Hour12 => self.hour = value,
            TimePart::Minute => self.minute = value,
            TimePart::Second => self.second = value,
            _ => self.nanos = value,
        }
        Some(rest)
    }

    fn zone<'t>(&mut self, text: &'t [u8]) -> Option<&'t [u8]> {
        let utc = [&b"Z"[..], b"z", b"UTC", b"GMT"].into_iter().find_map(|name| text.strip_prefix(name));
        if let Some(rest) = utc {
            self.offset_min = Some(0);
            return Some(rest);
        }
        let (sign, rest) = match text.split_first()? {
            (b'+', rest) => (1, rest),
            (b'-', rest) => (-1, rest),
            _ => return None,
        };
        let (hours, rest) = number_of(rest, 2, 2)?;
        let behind = rest.strip_prefix(b":");
        let (minutes, rest) = match number_of(behind.unwrap_or(rest), 2, 2) {
            Some(found) => found,
            // PostgreSQL writes hours alone.
            None if behind.is_none() => (0, rest),
            None => return None,
        };
        self.offset_min = Some(sign * (hours * 60 + minutes));
        (hours < 24 && minutes < 60).then_some(rest)
    }

    fn to_ns(&self, year: i64, timezone: Option<&TimeZone>) -> Option<i64> {
        let hour = match self.afternoon {
            Some(afternoon) => self.hour % 12 + if afternoon { 12 } else { 0 },
            None => self.hour,
        };
        let (month, day, minute, second) = (self.month, self.day, self.minute, self.second);
        if let (None, Some(timezone)) = (self.offset_min, timezone) {
            // A leap second is the first of the next minute, as elsewhere.
            let leap = i64::from(second == 60);
            let part = |value: i64| i8::try_from(value).ok();
            let civil = jiff::civil::DateTime::new(
                i16::try_from(year).ok()?,
                part(month)?,
                part(day)?,
                part(hour)?,
                part(minute)?,
                part(second - leap)?,
                i32::try_from(self.nanos).ok()?,
            );
            // An hour that occurs twice means the first; a time that a zone skips is moved by the length of the gap.
            let time = timezone.to_ambiguous_timestamp(civil.ok()?).compatible().ok()?;
            let ns = i64::try_from(time.as_nanosecond()).ok().filter(|ns| *ns >= 0)?;
            return ns.checked_add(leap * SECOND_NS as i64);
        }
        let text =
            format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z", self.nanos);
        timestamp::parse(text.as_bytes())?.checked_sub(self.offset_min.unwrap_or(0) * 60_000_000_000)
    }
}

/// A number with this many digits, and the rest.
fn number_of(text: &[u8], least: usize, most: usize) -> Option<(i64, &[u8])> {
    let len = text.iter().take(most).take_while(|byte| byte.is_ascii_digit()).count();
    (len >= least).then(|| {
        (text[..len].iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0')), &text[len..])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-02T00:00:00Z";

    #[track_caller]
    fn check(format: &str, text: &str, expected: &str) {
        check_at("", format, text, expected);
    }

    #[track_caller]
    fn check_at(timezone: &str, format: &str, text: &str, expected: &str) {
        assert_eq!(shown_at(NOW, timezone, format, text), expected, "{text}");
    }

    fn shown_at(now: &str, timezone: &str, format: &str, text: &str) -> String {
        let settings = Timestamp {
            field: String::new(),
            format: TimeFormat::of_test(format),
            timezone: (!timezone.is_empty()).then(|| TimeZone::get(timezone).expect("a zone")),
            too_old: std::time::Duration::ZERO,
            future: std::time::Duration::ZERO,
            otherwise: crate::settings::pipeline::Otherwise::Keep,
        };
        let now = timestamp::parse(now.as_bytes()).expect("a time");
        parse(&settings, text, now).map_or("no".to_owned(), timestamp::format)
    }

    #[test]
    fn offsets_of_every_form() {
        for text in [
            "2026-11-22T01:52:48+0100",
            "2026-11-22T01:52:48+01",
            "2026-11-22 01:52:48 +01:00",
            "2026-11-22 00:52:48,000Z",
            "2026-11-22 00:52:48 UTC",
            "20261122T005248Z",
            "20261122T015248+0100",
            "2026-11-21t19:52:48-05",
            // Go's String and Java's ZonedDateTime name the offset once more.
            "2026-11-22 00:52:48 +0000 UTC",
            "2026-11-22 01:52:48 +0100 CET m=+0.012345678",
            "2026-11-22T01:52:48+01:00[Europe/Berlin]",
            "2026-11-22T00:52:48Z[UTC]",
        ] {
            check("rfc3339", text, "2026-11-22T00:52:48.000000000Z");
        }
        check("rfc3339", "2026-11-22T01:52+01", "2026-11-22T00:52:00.000000000Z");
        check("%F %T.%f%z", "2026-11-22 01:52:48.25+01", "2026-11-22T00:52:48.250000000Z");
        for text in [
            "2026-11-22T01:52:48+1",
            "2026-11-22T01:52:48+25",
            "2026-11-22T01:52:48Zx",
            "2026-11-22T01+01",
            "2026-11-22T01:52:48[Europe/Berlin]",
            "2026-11-22 01:52:48 nine",
            "]",
            "[",
            " m=",
        ] {
            check("rfc3339", text, "no");
        }
    }

    #[test]
    fn zones_by_name() {
        let berlin =
            |format: &str, text: &str, expected: &str| check_at("Europe/Berlin", format, text, expected);
        berlin("rfc3339", "2026-11-22T01:52:48.5", "2026-11-22T00:52:48.500000000Z");
        berlin("rfc3339", "2026-07-22 02:52:48", "2026-07-22T00:52:48.000000000Z");
        // The text's own offset takes precedence.
        berlin("rfc3339", "2026-11-22T00:52:48Z", "2026-11-22T00:52:48.000000000Z");
        berlin("%F %T %z", "2026-11-22 01:52:48 -0500", "2026-11-22T06:52:48.000000000Z");
        berlin("%F %T", "2026-11-22 01:52:48", "2026-11-22T00:52:48.000000000Z");
        // The hour that occurs twice, and the one that is skipped.
        berlin("%F %T", "2025-10-26 02:30:00", "2025-10-26T00:30:00.000000000Z");
        berlin("%F %T", "2026-03-29 02:30:00", "2026-03-29T01:30:00.000000000Z");
        berlin("%b %e %T", "Dec 31 10:00:00", "2025-12-31T09:00:00.000000000Z");
        berlin("%F %T", "2026-02-30 00:00:00", "no");
        berlin("%F %T", "1969-12-31 00:00:00", "no");
        check_at("America/New_York", "rfc3339", "2026-11-21T19:52:48", "2026-11-22T00:52:48.000000000Z");
    }

    #[test]
    fn forms() {
        check("rfc3339", "2026-11-22T00:52:48.5+02:00", "2026-11-21T22:52:48.500000000Z");
        check("rfc3339", " 2026-11-22 00:52:48z", "2026-11-22T00:52:48.000000000Z");
        check("unix", "1795308768", "2026-11-22T00:52:48.000000000Z");
        check("unix", "1795308768.162820305999", "2026-11-22T00:52:48.162820305Z");
        check("unix_ms", "1795308768162.5", "2026-11-22T00:52:48.162500000Z");
        // As Java writes a double.
        check("unix", "1.795308768162E9", "2026-11-22T00:52:48.162000000Z");
        check("unix", "1.795308768e+09", "2026-11-22T00:52:48.000000000Z");
        check("unix_ms", "1.795308768162E12", "2026-11-22T00:52:48.162000000Z");
        for bad in ["1e", "e9", "1e-9", "1e400", "1e21", "1.5e9e9", "1.x5e9", "-1e9", "NaN"] {
            check("unix", bad, "no");
        }
        check("unix_ns", "1795308768162820305", "2026-11-22T00:52:48.162820305Z");
        check("unix_us", "1795308768162820", "2026-11-22T00:52:48.162820000Z");
        check("unix_us", "1795308768162820.5", "2026-11-22T00:52:48.162820500Z");
        check("%d/%b/%Y:%H:%M:%S %z", "22/Nov/2026:01:52:48 +0100", "2026-11-22T00:52:48.000000000Z");
        check("%Y-%m-%d %H:%M:%S,%f", "2026-11-22 00:52:48,123", "2026-11-22T00:52:48.123000000Z");
        check("%F %T%z", "2026-11-22 00:52:48Z", "2026-11-22T00:52:48.000000000Z");
        check("%m/%d/%Y %I:%M %p", "11/2/2026 12:05 AM", "2026-11-02T00:05:00.000000000Z");
        check("%m/%d/%Y %I:%M %p", "11/2/2026 12:05 pm", "2026-11-02T12:05:00.000000000Z");
        check("%a %b %e %H:%M:%S %Y", "Sun Nov  2 00:05:00 2026", "2026-11-02T00:05:00.000000000Z");
        // Without a year: the year in which it is not in the future.
        check("%b %e %T", "Jan  1 10:00:00", "2026-01-01T10:00:00.000000000Z");
        check("%b %e %T", "Dec 31 10:00:00", "2025-12-31T10:00:00.000000000Z");
        check("%b %e %T", "Feb 29 10:00:00", "2024-02-29T10:00:00.000000000Z");
        check("%b %e %T", "Feb 30 10:00:00", "no");
        // At New Year the zone may be in the next year before UTC is, or another host's clock may be.
        for (now, timezone, text, expected) in [
            ("2026-12-31T23:10:00Z", "Europe/Berlin", "Jan  1 00:09:00", "2026-12-31T23:09:00.000000000Z"),
            ("2026-12-31T12:00:00Z", "Pacific/Auckland", "Jan  1 01:00:00", "2026-12-31T12:00:00.000000000Z"),
            ("2026-12-31T23:59:59Z", "", "Jan  1 00:00:01", "2027-01-01T00:00:01.000000000Z"),
            ("2027-01-01T00:30:00Z", "America/New_York", "Dec 31 19:29:00", "2027-01-01T00:29:00.000000000Z"),
            ("2027-01-01T03:00:00Z", "", "Dec 31 23:00:00", "2026-12-31T23:00:00.000000000Z"),
            ("2026-12-30T12:00:00Z", "", "Jan  1 00:00:01", "2026-01-01T00:00:01.000000000Z"),
        ] {
            assert_eq!(shown_at(now, timezone, "%b %e %T", text), expected, "{now} {timezone} {text}");
        }
        for (now, expected) in [
            ("2028-02-29T12:00:00Z", "2028-02-29T10:00:00.000000000Z"),
            ("2028-02-20T12:00:00Z", "2024-02-29T10:00:00.000000000Z"),
            // The year 2100 has no such day.
            ("2104-02-20T12:00:00Z", "2096-02-29T10:00:00.000000000Z"),
        ] {
            assert_eq!(shown_at(now, "", "%b %e %T", "Feb 29 10:00:00"), expected, "{now}");
        }
    }

    /// Otherwise a line of today would be dated 1970, and nobody would notice.
    #[test]
    fn numbers_in_another_unit_are_no_times() {
        let (s, ms, us, ns) = ("1795308768", "1795308768162", "1795308768162820", "1795308768162820305");
        for (format, right) in [("unix", s), ("unix_ms", ms), ("unix_us", us), ("unix_ns", ns)] {
            for text in [s, ms, us, ns] {
                let is_time = shown_at(NOW, "", format, text) != "no";
                assert_eq!(is_time, text == right, "{format} {text}");
            }
        }
        check("unix", "978307200", "2001-01-01T00:00:00.000000000Z");
        check("unix", "7258118399", "2199-12-31T23:59:59.000000000Z");
        for text in ["0", "17", "978307199", "7258118400"] {
            check("unix", text, "no");
        }
    }

    #[test]
    fn no_times() {
        for text in ["", "x", "-1", "1.2.3", "1e30", "99999999999999999999999", "9223372037"] {
            check("unix", text, "no");
        }
        for text in ["", "2026-11-22", "2026-11-22T00:52:48", &"2".repeat(300)] {
            check("rfc3339", text, "no");
        }
        for text in ["2026-13-01 00:00:00", "2026-11-22 00:00:00 more", "2026-11-22 25:00:00", "26-1-1 0:0:0"]
        {
            check("%F %T", text, "no");
        }
        check("%m/%d/%Y %I:%M %p", "11/2/2026 13:05 AM", "no");
    }
}
