//! How a time is written: one of the config's names for it, or a text with `%` parts, parsed once.

use crate::settings::units::Mismatch;

/// The format of a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimeFormat {
    /// `2026-11-22T00:52:48.5Z`; a space instead of the `T` is accepted, too.
    Rfc3339,
    /// Seconds since 1970, with or without a fraction.
    Unix,
    /// Milliseconds since 1970.
    UnixMs,
    /// Microseconds since 1970.
    UnixUs,
    /// Nanoseconds since 1970.
    UnixNs,
    /// Parts as in [`TimePart`], in UTC unless the text has a zone.
    Parts(Vec<TimePart>),
}

/// A part of a time's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimePart {
    /// `%Y`: four digits.
    Year,
    /// `%m`: 1 to 12.
    Month,
    /// `%b`: Jan, in English, in any case.
    MonthName,
    /// `%d`, and `%e` with a space before one digit.
    Day,
    /// `%H`: 0 to 23.
    Hour,
    /// `%I`: 1 to 12, with `%p`.
    Hour12,
    /// `%p`: AM or PM.
    Half,
    /// `%M`: the minute, two digits.
    Minute,
    /// `%S`: the second, two digits.
    Second,
    /// `%f`: any number of digits.
    Fraction,
    /// `%z`: Z, +0100 or +01:00.
    Zone,
    /// `%a`: Mon; skipped.
    Weekday,
    /// This byte; a space matches any number of spaces.
    Literal(u8),
}

const PARTS: [(u8, TimePart); 13] = [
    (b'Y', TimePart::Year),
    (b'm', TimePart::Month),
    (b'b', TimePart::MonthName),
    (b'd', TimePart::Day),
    (b'e', TimePart::Day),
    (b'H', TimePart::Hour),
    (b'I', TimePart::Hour12),
    (b'p', TimePart::Half),
    (b'M', TimePart::Minute),
    (b'S', TimePart::Second),
    (b'f', TimePart::Fraction),
    (b'z', TimePart::Zone),
    (b'a', TimePart::Weekday),
];

impl TimeFormat {
    #[cfg(test)]
    pub(crate) fn of_test(text: &str) -> TimeFormat {
        TimeFormat::parse(text).expect("a good form")
    }

    pub(super) fn parse(text: &str) -> Result<TimeFormat, Mismatch> {
        match text {
            "rfc3339" => return Ok(TimeFormat::Rfc3339),
            "unix" => return Ok(TimeFormat::Unix),
            "unix_ms" => return Ok(TimeFormat::UnixMs),
            "unix_us" => return Ok(TimeFormat::UnixUs),
            "unix_ns" => return Ok(TimeFormat::UnixNs),
            _ => {}
        }
        let expected = || {
            let parts: Vec<String> =
                PARTS.iter().map(|(letter, _)| format!("%{}", char::from(*letter))).collect();
            Mismatch::new(format!(
                "rfc3339, unix, unix_ms, unix_us, unix_ns, or a time in which {} stand for its parts",
                parts.join(" ")
            ))
        };
        let (mut parts, mut bytes) = (Vec::new(), text.bytes());
        while let Some(byte) = bytes.next() {
            if byte != b'%' {
                parts.push(TimePart::Literal(byte));
                continue;
            }
            match bytes.next() {
                Some(b'%') => parts.push(TimePart::Literal(b'%')),
                Some(b'T') => parts.extend([
                    TimePart::Hour,
                    TimePart::Literal(b':'),
                    TimePart::Minute,
                    TimePart::Literal(b':'),
                    TimePart::Second,
                ]),
                Some(b'F') => parts.extend([
                    TimePart::Year,
                    TimePart::Literal(b'-'),
                    TimePart::Month,
                    TimePart::Literal(b'-'),
                    TimePart::Day,
                ]),
                letter => {
                    let part = PARTS.iter().find(|(known, _)| Some(*known) == letter).ok_or_else(expected)?;
                    parts.push(part.1);
                }
            }
        }
        let has = |part| parts.contains(&part);
        let hour = has(TimePart::Hour) || (has(TimePart::Hour12) && has(TimePart::Half));
        if !has(TimePart::Day) || !(has(TimePart::Month) || has(TimePart::MonthName)) || !hour {
            return Err(expected().hint("it needs at least month, day and hour (%I needs %p)"));
        }
        if parts.len() > 64 {
            return Err(expected().hint("it is too long"));
        }
        Ok(TimeFormat::Parts(parts))
    }
}
