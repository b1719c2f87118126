//! Names of rotated files: which of the files in a directory are one log.
//!
//! ```text
//! a.log ◀── a.log.1 ◀── a.log.2.gz          numbered by whoever rotates: dockerd, logrotate, Python
//! a.log ◀── a.log.0 ◀── a.log.1.gz          numbered from 0: savelog, logrotate's `start 0`
//! a.log ◀── a.log.2.gz ◀── a.log.1.gz       numbered upwards: log4j2
//! a.log ◀── a.log-20261125                  dated: logrotate's dateext
//! a.log ◀── a.log.2026-11-25                dated: Python, log4j's daily files
//! a.log ◀── a-2026-11-25T10-00-00.000.log   dated before the ending: lumberjack, log4j2
//! a.log ◀── a__2026-11-25_10-00-00.log      the same: pm2-logrotate
//! 0.log ◀── 0.log.20261125-100000.gz        dated: Kubernetes' kubelet
//! current ◀── @400000006567a1b209f0c3d4.s   dated: svlogd, multilog, s6-log
//! ```
//! Names only help to find files and to order them. Whether a file was read before depends on its identity.
//!
//! Not here: which of two files is the older (shell/files/look.rs).

/// Endings of compressed files that are not read.
pub const UNREAD_ARCHIVES: [&str; 6] = [".xz", ".zst", ".bz2", ".lz4", ".Z", ".lzma"];

/// How a name in a directory relates to a live file's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RotatedName {
    /// The live file's name itself.
    Live,
    /// `name.N`: usually the number grows with each rotation, so the lowest is the newest.
    Number(u32),
    /// `name.20261125-100000` (kubelet), `name-20261125`, `name-2026112510` (logrotate's dateext), `name.2026-11-25`:
    /// the file keeps its name, and the latest date is the newest.
    Date(String),
    /// An unrelated name of a file that is looked for.
    Stranger,
}

impl RotatedName {
    /// How `name` relates to `live_name`, and whether it is compressed; `None` = it is not a name of that log.
    pub fn of(name: &str, live_name: &str) -> Option<(RotatedName, bool)> {
        if name == live_name {
            return Some((RotatedName::Live, false));
        }
        if live_name == CURRENT
            && let Some(date) = tai64n(name)
        {
            return Some((RotatedName::Date(date), false));
        }
        let (plain, compressed) = name.strip_suffix(".gz").map_or((name, false), |plain| (plain, true));
        let rotated = plain.strip_prefix(live_name).and_then(mark).or_else(|| within(plain, live_name))?;
        Some((rotated, compressed))
    }

    /// How the name of an archive that can't be read (not `.gz`) relates to a live file's name.
    pub fn of_unread_archive(name: &str, live_name: &str) -> Option<RotatedName> {
        let plain = UNREAD_ARCHIVES.iter().find_map(|ending| name.strip_suffix(ending))?;
        RotatedName::of(plain, live_name).filter(|(_, compressed)| !compressed).map(|(rotated, _)| rotated)
    }

    /// A key that orders dates whatever their separators.
    pub fn date_key(&self) -> Vec<u64> {
        let RotatedName::Date(text) = self else { return Vec::new() };
        let digits = text.split(|char: char| !char.is_ascii_digit()).filter(|group| !group.is_empty());
        digits.map(|group| group.parse().unwrap_or(u64::MAX)).collect()
    }
}

/// The rotation that `text`, the part of a rotated name behind the live name, stands for.
fn mark(text: &str) -> Option<RotatedName> {
    let behind = text.strip_prefix("__").or_else(|| text.strip_prefix(['.', '-', '_']))?;
    if is_date(behind) {
        return Some(RotatedName::Date(behind.to_owned()));
    }
    let digits = text.strip_prefix('.')?;
    let plain = !digits.is_empty() && digits.len() <= 9 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| plain).map(RotatedName::Number)
}

/// `a.1.log`, `a-2026-11-25.log` of `a.log`.
fn within(name: &str, live_name: &str) -> Option<RotatedName> {
    let (stem, ending) = live_name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty())?;
    let between = name.strip_suffix(ending)?.strip_suffix('.')?.strip_prefix(stem)?;
    mark(between)
}

/// `20261125`, `2026112510`, `20261125-100000`, `2026-11-25`, `2026-11-25T10-00-00.000`, `2026-11-25_10`, `1795305168`,
/// `1795305168123`.
fn is_date(text: &str) -> bool {
    let separator = |byte: u8| matches!(byte, b'-' | b'_' | b'.' | b':' | b'T');
    let text = text.strip_suffix('Z').unwrap_or(text);
    let allowed = text.bytes().all(|byte| byte.is_ascii_digit() || separator(byte));
    let ends = [text.bytes().next(), text.bytes().last()];
    if !allowed || !ends.into_iter().all(|byte| byte.is_some_and(|byte| byte.is_ascii_digit())) {
        return false;
    }
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    // Seconds or milliseconds since 1970.
    if matches!(digits.len(), 10 | 13)
        && text.len() == digits.len()
        && matches!(&digits[..2], "16" | "17" | "18" | "19")
    {
        return true;
    }
    if !(8..=20).contains(&digits.len())
        || (digits.len() == text.len() && !matches!(digits.len(), 8 | 10 | 12 | 14))
    {
        return false;
    }
    let (month, of_month) = (&digits[4..6], &digits[6..8]);
    matches!(&digits[..2], "19" | "20" | "21")
        && ("01"..="12").contains(&month)
        && ("01"..="31").contains(&of_month)
}

/// The live name of svlogd, multilog and s6-log.
const CURRENT: &str = "current";

/// The time in `@400000006567a1b209f0c3d4.s`, as `SECONDS.NANOSECONDS`: TAI64N in hexadecimal, then `.s` for a finished file
/// or `.u` for one that was cut short (<https://cr.yp.to/daemontools/multilog.html>).
fn tai64n(name: &str) -> Option<String> {
    let label = name.strip_prefix('@')?;
    let label = label.strip_suffix(".s").or_else(|| label.strip_suffix(".u"))?;
    let is_label = label.len() == 24 && label.bytes().all(|byte| byte.is_ascii_hexdigit());
    let (seconds, nanos) = is_label.then(|| label.split_at(16))?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some(format!("{}.{}", number(seconds)?, number(nanos)?))
}

/// What the live name and its rotated names begin with; svlogd's begin otherwise, see [`starts`].
pub fn common_start(live_name: &str) -> &str {
    live_name.rsplit_once('.').map_or(live_name, |(stem, _)| stem)
}

/// Every name that the log can have begins with one of these.
pub fn starts(live_name: &str) -> impl Iterator<Item = &str> {
    std::iter::once(common_start(live_name)).chain((live_name == CURRENT).then_some("@"))
}

/// The name looks like a rotated one of the live file, but nothing confirms it: `a-1.log`, `a.log_1`.
pub fn looks_rotated(name: &str, live_name: &str) -> bool {
    let is_numbered =
        |more: &str| more.starts_with(['.', '-', '_']) && more.bytes().any(|b| b.is_ascii_digit());
    let stem = common_start(live_name);
    let ending = &live_name[stem.len()..];
    let plain = name.strip_suffix(".gz").unwrap_or(name);
    let within = plain.strip_prefix(stem).and_then(|rest| rest.strip_suffix(ending));
    let is_alike = name.strip_prefix(live_name).is_some_and(is_numbered) || within.is_some_and(is_numbered);
    is_alike
        && RotatedName::of(name, live_name).is_none()
        && RotatedName::of_unread_archive(name, live_name).is_none()
}

/// Names that rotated files of a log may have, one of each common form.
pub fn examples(live_name: &str) -> Vec<String> {
    let marks = [".1", ".0", "-20260102", ".2026-01-02", ".1.gz", "-20260102.gz"];
    let mut names: Vec<String> = marks.iter().map(|mark| format!("{live_name}{mark}")).collect();
    if let Some((stem, ending)) = live_name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()) {
        let marks = ["-2026-01-02", "-20260102", "-2026-01-02T03-04-05.678"];
        names.extend(marks.iter().map(|mark| format!("{stem}{mark}.{ending}")));
    }
    names
}

/// Live names that `name` may be a rotated name of, also with the mark before the ending: more than [`live_names`] gives.
pub fn stems(name: &str) -> impl Iterator<Item = &str> {
    let plain = name.strip_suffix(".gz").unwrap_or(name);
    let stems = plain.match_indices(['.', '-', '_']).map(|(at, _)| &plain[..at]);
    stems.filter(|stem| !stem.is_empty()).chain(tai64n(name).map(|_| CURRENT))
}

/// Live names that `name` may be a rotated name of, whether such files exist or not.
pub fn live_names(name: &str) -> impl Iterator<Item = String> {
    let plain = name.strip_suffix(".gz").unwrap_or(name);
    let ending = plain.rsplit_once('.').map_or("", |(_, ending)| ending);
    let has_ending = ending.bytes().any(|byte| !byte.is_ascii_digit());
    let heads =
        plain.match_indices(['.', '-', '_']).map(|(at, _)| &plain[..at]).filter(|head| !head.is_empty());
    let live = heads.flat_map(move |head| {
        let rotated = Some(head.to_owned()).filter(|live| RotatedName::of(name, live).is_some());
        // Not `a.1.log` of `a.log`: these are about as often two separate logs. With a date, the name is one that
        // lumberjack, log4j2 and logback make.
        let dated = Some(format!("{head}.{ending}")).filter(|live| {
            matches!(RotatedName::of(name, live), Some((RotatedName::Date(_), _))) && has_ending
        });
        rotated.into_iter().chain(dated)
    });
    live.chain(tai64n(name).map(|_| CURRENT.to_owned()))
}

/// A rotated file's log may be at most this many directories above it (logrotate's `olddir`).
const OLDDIR_DEPTH: usize = 2;

/// Logs that may have been rotated to the file at `path`, in a directory below theirs (logrotate's `olddir`). The
/// nearest comes first, each with the path from its directory to the file's.
pub fn logs_above(path: &str) -> impl Iterator<Item = (String, &str)> {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    let cuts = directory.rmatch_indices('/').take(OLDDIR_DEPTH);
    cuts.flat_map(move |(at, _)| {
        let (above, beneath) = (&directory[..at], &directory[at + 1..]);
        live_names(name).map(move |live| (format!("{above}/{live}"), beneath))
    })
}

/// The live name if `name` has a number before its ending: `a.log` for `a.1.log`. These are about as often two separate
/// logs.
pub fn numbered_live_name(name: &str) -> Option<String> {
    let (stem, ending) = name.rsplit_once('.')?;
    let live = format!("{}.{ending}", stem.rsplit_once('.')?.0);
    matches!(RotatedName::of(name, &live), Some((RotatedName::Number(_), false))).then_some(live)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_before_the_ending() {
        let live = |name| numbered_live_name(name);
        assert_eq!(live("app.12.log"), Some("app.log".to_owned()));
        for name in ["app.log", "app.log.1", "app.2026-11-26.log", "app.x.log", ".1.log", "1.log"] {
            assert_eq!(live(name), None, "{name}");
        }
    }

    #[test]
    fn names_of_svlogd() {
        let of = |name| RotatedName::of(name, "current");
        let (older, _) = of("@400000006567a1b209f0c3d4.s").unwrap();
        let (newer, _) = of("@400000006567a1b20a000000.u").unwrap();
        assert_eq!(older, RotatedName::Date("4611686020128678322.166773716".to_owned()));
        assert!(older.date_key() < newer.date_key());
        for name in
            ["@400000006567a1b209f0c3d4", "@400000006567a1b209f0c3d.s", "@40000000x567a1b209f0c3d4.s", "lock"]
        {
            assert_eq!(of(name), None, "{name}");
        }
        assert!(starts("current").any(|start| "@400000006567a1b209f0c3d4.s".starts_with(start)));
        assert_eq!(live_names("@400000006567a1b209f0c3d4.s").last().as_deref(), Some("current"));
        assert_eq!(stems("@400000006567a1b209f0c3d4.s").last(), Some("current"));
    }

    #[test]
    fn archives_that_are_not_read() {
        let of = RotatedName::of_unread_archive;
        assert_eq!(of("a.log.1.zst", "a.log"), Some(RotatedName::Number(1)));
        assert_eq!(of("a.log-20261125.xz", "a.log"), Some(RotatedName::Date("20261125".to_owned())));
        assert_eq!(of("a.2.log.bz2", "a.log"), Some(RotatedName::Number(2)));
        assert_eq!(of("a.log.Z", "a.log"), Some(RotatedName::Live));
        for name in ["a.log", "a.log.1", "a.log.1.gz", "a.log.1.gz.zst", "b.log.1.zst", "zst", "a.log.x.zst"]
        {
            assert_eq!(of(name, "a.log"), None, "{name}");
        }
    }

    #[test]
    fn what_only_looks_rotated() {
        for name in ["a-1.log", "a_12.log.gz", "a.log_1", "a-28-Nov-2026-1.log", "a.log-1", "a.log.1.bak"] {
            assert!(looks_rotated(name, "a.log"), "{name}");
        }
        for name in
            ["a.log", "a.log.1", "a.1.log", "a.log.1.zst", "a.log.bak", "a-error.log", "ab-1.log", "a1.log"]
        {
            assert!(!looks_rotated(name, "a.log"), "{name}");
        }
        assert!(looks_rotated("a-1", "a") && !looks_rotated("a.1", "a"));
    }

    #[test]
    fn by_name() {
        let number = |number, compressed| Some((RotatedName::Number(number), compressed));
        let date = |date: &str, compressed| Some((RotatedName::Date(date.to_owned()), compressed));
        let table = [
            ("l", Some((RotatedName::Live, false))),
            ("l.1", number(1, false)),
            ("l.12.gz", number(12, true)),
            ("l.12345678", number(12_345_678, false)),
            ("l.20261325", number(20_261_325, false)),
            ("l.20261125-100000", date("20261125-100000", false)),
            ("l.20261125-100000.gz", date("20261125-100000", true)),
            ("l-20261125", date("20261125", false)),
            ("l-2026112510.gz", date("2026112510", true)),
            ("l.20261125", date("20261125", false)),
            ("l.20261125-100000.tmp", None),
            ("l.20261125-1000", date("20261125-1000", false)),
            ("l.2026-11-25", date("2026-11-25", false)),
            ("l.2026-11-25_10-00-00.gz", date("2026-11-25_10-00-00", true)),
            ("l.1795305168", date("1795305168", false)),
            ("l.2026-11-25-", None),
            ("l.2026-13-25", None),
            ("l.20261125-", None),
            ("l-20261325", None),
            ("l-20261100", None),
            ("l-99991125", None),
            ("l-2026112", None),
            ("l-1", None),
            ("l--20261125", None),
            ("l.é2026112", None),
            ("l20261125", None),
            ("l.0", number(0, false)),
            ("l.0.gz", number(0, true)),
            ("l.1795305168123", date("1795305168123", false)),
            ("@400000006567a1b209f0c3d4.s", None),
            ("l__2026-11-28_10-00-00", date("2026-11-28_10-00-00", false)),
            ("l___20261125", None),
            ("l__1", None),
            ("l_1", None),
            ("l.17953051681", None),
            ("l.1.gz.tmp", None),
            ("l.gz", None),
            ("l.x", None),
            ("l.+1", None),
            ("m", None),
            ("lo", None),
            ("l.99999999999", None),
        ];
        for (name, expected) in table {
            assert_eq!(RotatedName::of(name, "l"), expected, "{name}");
        }
    }

    #[test]
    fn a_mark_may_stand_before_the_ending() {
        let rotated = |name| RotatedName::of(name, "app.log");
        assert_eq!(rotated("app.1.log"), Some((RotatedName::Number(1), false)));
        assert_eq!(rotated("app.12.log.gz"), Some((RotatedName::Number(12), true)));
        let date = "2026-11-26T10-00-00.000";
        assert_eq!(
            rotated("app-2026-11-26T10-00-00.000.log"),
            Some((RotatedName::Date(date.to_owned()), false))
        );
        assert_eq!(
            rotated("app-2026-11-26-1.log.gz"),
            Some((RotatedName::Date("2026-11-26-1".to_owned()), true))
        );
        for other in ["app-1.log", "apple.log", "app.log.bak", "app-err.log", "app.log.1.log"] {
            assert_eq!(rotated(other), None, "{other}");
        }
    }

    #[test]
    fn dates_are_ordered_by_their_numbers() {
        let key = |text: &str| RotatedName::Date(text.to_owned()).date_key();
        assert!(key("2026-11-26-9") < key("2026-11-26-10") && key("2026-11-26") < key("2026-11-26-1"));
        assert!(key("20251231-235959") < key("20260101-000000"));
    }

    #[test]
    fn whose_rotated_name_it_may_be() {
        let check =
            |name, expected: &[&str]| assert_eq!(live_names(name).collect::<Vec<_>>(), expected, "{name}");
        check("a.log", &[]);
        check("a.log.1", &["a.log"]);
        check("a.log.1.gz", &["a.log"]);
        check("a.log-20261125", &["a.log"]);
        check("0.log.20261125-100000.gz", &["0.log"]);
        check("a-20261125.1", &["a", "a-20261125"]);
        check("a.1.log", &[]);
        check("a.log.0", &["a.log"]);
        check("a__2026-11-28_10-00-00.log", &["a.log", "a_.log"]);
        check("a-1795305168123.log", &["a.log"]);
        check("a-2026-11-26T10-00-00.000.log", &["a.log"]);
        check("a-2026-11-26-1.log.gz", &["a.log"]);
        check("a.b.20261126.log", &["a.b.log"]);
        check("a-1.log", &[]);
        check(".1", &[]);
        check("größe.log.1", &["größe.log"]);
    }

    #[test]
    fn examples_are_rotated_names() {
        for live in ["a.log", "syslog", "a.b.log", ".hidden"] {
            for name in examples(live) {
                let rotated = RotatedName::of(&name, live);
                assert!(rotated.is_some_and(|(rotated, _)| rotated != RotatedName::Live), "{name} of {live}");
            }
        }
    }
}
