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
        if let Some(meant) = of_other_layout(text) {
            return Err(expected().hint(format!("in these letters that is \"{meant}\"")));
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

/// What a layout of Go (Promtail) or Java, or a name that other agents have for one, is called here.
fn of_other_layout(text: &str) -> Option<String> {
    const NAMES: [(&str, &str); 11] = [
        ("RFC3339", "rfc3339"),
        ("RFC3339Nano", "rfc3339"),
        ("RFC3339Milli", "rfc3339"),
        ("iso8601", "rfc3339"),
        ("Unix", "unix"),
        ("epoch", "unix"),
        ("UnixMs", "unix_ms"),
        ("UnixMillis", "unix_ms"),
        ("UnixUs", "unix_us"),
        ("UnixMicros", "unix_us"),
        ("UnixNs", "unix_ns"),
    ];
    // The longer before those that they begin with.
    const GO: [(&str, &str); 22] = [
        ("2006", "%Y"),
        ("January", "%b"),
        ("Jan", "%b"),
        ("Monday", "%a"),
        ("Mon", "%a"),
        ("Z07:00", "%z"),
        ("-07:00", "%z"),
        ("-0700", "%z"),
        ("Z0700", "%z"),
        ("MST", "%z"),
        ("01", "%m"),
        ("02", "%d"),
        ("_2", "%e"),
        ("15", "%H"),
        ("03", "%I"),
        ("04", "%M"),
        ("05", "%S"),
        ("PM", "%p"),
        (".999999999", ".%f"),
        (".000000", ".%f"),
        (".000", ".%f"),
        (",000", ",%f"),
    ];
    const JAVA: [(&str, &str); 11] = [
        ("yyyy", "%Y"),
        ("uuuu", "%Y"),
        ("MMM", "%b"),
        ("MM", "%m"),
        ("dd", "%d"),
        ("HH", "%H"),
        ("hh", "%I"),
        ("mm", "%M"),
        ("SSSSSS", "%f"),
        ("SSS", "%f"),
        ("ss", "%S"),
    ];
    if let Some((_, name)) = NAMES.iter().find(|(other, _)| other.eq_ignore_ascii_case(text)) {
        return Some((*name).to_owned());
    }
    if text.contains('%') || text.len() > 64 {
        return None;
    }
    let written = |table: &[(&str, &str)]| {
        let (mut rest, mut out) = (text, String::new());
        while let Some(first) = rest.chars().next() {
            let (len, part) = match table.iter().find(|(theirs, _)| rest.starts_with(theirs)) {
                Some((theirs, ours)) => (theirs.len(), *ours),
                None => (first.len_utf8(), &rest[..first.len_utf8()]),
            };
            out.push_str(part);
            rest = &rest[len..];
        }
        let out = out.replace("'T'", "T");
        (out.contains('%') && TimeFormat::parse(&out).is_ok()).then_some(out)
    };
    if text.contains("yy") || text.contains("uuuu") { written(&JAVA) } else { written(&GO) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who comes from another agent writes its layout first.
    #[test]
    fn layouts_of_others_are_named_in_our_letters() {
        for (theirs, ours) in [
            ("2006-01-02 15:04:05", "%Y-%m-%d %H:%M:%S"),
            ("2006-01-02T15:04:05.000Z07:00", "%Y-%m-%dT%H:%M:%S.%f%z"),
            ("02/Jan/2006:15:04:05 -0700", "%d/%b/%Y:%H:%M:%S %z"),
            ("Jan _2 15:04:05", "%b %e %H:%M:%S"),
            ("01/02/2006 03:04:05 PM", "%m/%d/%Y %I:%M:%S %p"),
            ("yyyy-MM-dd HH:mm:ss,SSS", "%Y-%m-%d %H:%M:%S,%f"),
            ("yyyy-MM-dd'T'HH:mm:ss.SSS", "%Y-%m-%dT%H:%M:%S.%f"),
            ("RFC3339Nano", "rfc3339"),
            ("ISO8601", "rfc3339"),
            ("UnixMs", "unix_ms"),
        ] {
            let error = TimeFormat::parse(theirs).expect_err(theirs);
            assert_eq!(error.hint, format!("in these letters that is \"{ours}\""), "{theirs}");
        }
        for bad in ["", "%Y", "soon", "2006", "%Q", "yyyy"] {
            let error = TimeFormat::parse(bad).expect_err(bad);
            assert!(!error.hint.contains("that is"), "{bad}: {}", error.hint);
        }
    }
}
