//! Names of a log file's rotated kin: which of the files in a directory are one log.
//!
//! ```text
//! a.log ◀── a.log.1 ◀── a.log.2.gz          numbered by whoever rotates: dockerd, logrotate
//! a.log ◀── a.log-20261125                  dated: logrotate's dateext
//! 0.log ◀── 0.log.20261125-100000.gz        dated: Kubernetes' kubelet
//! ```
//! Not here: which of them is the older (files/look.rs).

/// What a name in a directory is to a live file's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kin {
    /// `name` itself.
    Live,
    /// `name.N`: it moves on with each rotation, so the lowest number is the newest.
    Number(u32),
    /// `name.20261125-100000` (kubelet), `name-20261125`, `name-2026112510` (logrotate's dateext): it keeps its name, and
    /// the latest is the newest.
    Date(String),
}

impl Kin {
    /// What `name` is to `live_name`, and whether it is compressed; nothing if it has to do with another file or none.
    pub fn of(name: &str, live_name: &str) -> Option<(Kin, bool)> {
        let rest = name.strip_prefix(live_name)?;
        if rest.is_empty() {
            return Some((Kin::Live, false));
        }
        let (rest, compressed) = rest.strip_suffix(".gz").map_or((rest, false), |rest| (rest, true));
        let behind = rest.strip_prefix('.').or_else(|| rest.strip_prefix('-')).unwrap_or_default();
        if is_date(behind) {
            return Some((Kin::Date(behind.to_owned()), compressed));
        }
        let digits = rest.strip_prefix('.')?;
        let plain =
            !digits.is_empty() && digits.len() <= 9 && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.parse().ok().filter(|number| plain && *number > 0)?;
        Some((Kin::Number(number), compressed))
    }
}

/// `20261125`, `2026112510`, `20261125-100000`.
fn is_date(text: &str) -> bool {
    let (day, time) = text.split_once('-').map_or((text, None), |(day, time)| (day, Some(time)));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(text.get(..8).unwrap_or("x")) || !digits(day) || !time.is_none_or(digits) {
        return false;
    }
    let lengths = matches!((day.len(), time.map(str::len)), (8 | 10, None) | (8, Some(6)));
    let (month, of_month) = (&text[4..6], &text[6..8]);
    lengths
        && matches!(&text[..2], "19" | "20" | "21")
        && ("01"..="12").contains(&month)
        && ("01"..="31").contains(&of_month)
}

/// The names of which `name` may be rotated kin, whether there are such files or not.
pub fn live_names(name: &str) -> impl Iterator<Item = &str> {
    let heads = name.match_indices(['.', '-']).map(|(at, _)| &name[..at]).filter(|head| !head.is_empty());
    heads.filter(move |head| Kin::of(name, head).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kin_by_name() {
        let number = |number, compressed| Some((Kin::Number(number), compressed));
        let date = |date: &str, compressed| Some((Kin::Date(date.to_owned()), compressed));
        let table = [
            ("l", Some((Kin::Live, false))),
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
            ("l.20261125-1000", None),
            ("l.20261125-", None),
            ("l-20261325", None),
            ("l-20261100", None),
            ("l-99991125", None),
            ("l-2026112", None),
            ("l-1", None),
            ("l--20261125", None),
            ("l.é2026112", None),
            ("l20261125", None),
            ("l.0", None),
            ("l.1.gz.tmp", None),
            ("l.gz", None),
            ("l.x", None),
            ("l.+1", None),
            ("m", None),
            ("lo", None),
            ("l.99999999999", None),
        ];
        for (name, expected) in table {
            assert_eq!(Kin::of(name, "l"), expected, "{name}");
        }
    }

    #[test]
    fn whose_kin_a_name_may_be() {
        let check =
            |name, expected: &[&str]| assert_eq!(live_names(name).collect::<Vec<_>>(), expected, "{name}");
        check("a.log", &[]);
        check("a.log.1", &["a.log"]);
        check("a.log.1.gz", &["a.log"]);
        check("a.log-20261125", &["a.log"]);
        check("0.log.20261125-100000.gz", &["0.log"]);
        check("a-20261125.1", &["a-20261125"]);
        check(".1", &[]);
        check("größe.log.1", &["größe.log"]);
    }
}
