//! The older files of an output: what they are called, and which there are.
//!
//! ```text
//! web.ndjson                                   being written
//! web~20261125T034118.123Z.ndjson              rotated then (UTC)
//! web~20261124T120000.000Z.ndjson.zst          rotated and compressed
//! ```
//! A name never changes but for the ending of a compressed one, so nothing races with a renaming. `~` is not in the
//! alphabet of container names (file_name.rs), and the hash behind a changed name has neither `T` nor `Z`: no
//! container can choose a name that another's older file has.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, UNIX_EPOCH};

use crate::settings::Compress;

/// Bytes of the longest addition to an output's name: `~`, the time, `.zst`, and `.tmp` while that is made.
pub(super) const ADDED_BYTES: usize = 1 + STAMP_BYTES + 4 + 4;
const STAMP_BYTES: usize = "20261125T034118.123Z".len();
/// What a compressed file's name ends in.
pub(super) fn packed_ending(compress: Compress) -> &'static str {
    match compress {
        Compress::None => "",
        Compress::Gzip => ".gz",
        Compress::Zstd => ".zst",
    }
}

/// Of a compressed file that is being made.
pub(super) const UNFINISHED: &str = ".tmp";

/// One older file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Generation {
    /// When it was rotated; orders generations.
    pub(super) stamp: String,
    /// Its name in the directory.
    pub(super) name: String,
    /// Compressed already.
    pub(super) packed: bool,
}

/// The name of an older file with this stamp.
pub(super) fn name(live: &str, stamp: &str) -> String {
    let (stem, ending) = split(live);
    format!("{stem}~{stamp}{ending}")
}

/// The stamp of a file rotated at this time, milliseconds since 1970. Later than the newest there is: one millisecond if
/// the clock stands or was set back.
pub(super) fn stamp_after(newest: &str, unix_ms: u64) -> String {
    let wanted = stamp(unix_ms);
    if wanted.as_str() > newest {
        return wanted;
    }
    stamp(millis(newest).map_or(unix_ms, |millis| millis + 1))
}

/// A time as generations are ordered by it.
pub(super) fn stamp(unix_ms: u64) -> String {
    let time = humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(unix_ms)).to_string();
    time.replace(['-', ':'], "")
}

fn millis(stamp: &str) -> Option<u64> {
    let part = |from, to| stamp.get(from..to);
    let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    let (hour, minute, rest) = (part(9, 11)?, part(11, 13)?, part(13, STAMP_BYTES)?);
    let time = humantime::parse_rfc3339(&format!("{year}-{month}-{day}T{hour}:{minute}:{rest}")).ok()?;
    let millis = time.duration_since(UNIX_EPOCH).ok()?.as_millis() as u64;
    // humantime takes some texts that it would never write.
    (self::stamp(millis) == stamp).then_some(millis)
}

/// What an older file of `live` is, if this is the name of one.
pub(super) fn parse(live: &str, name: &str) -> Option<Generation> {
    let (stem, ending) = split(live);
    let rest = name.strip_prefix(stem)?.strip_prefix('~')?;
    let stamp = rest.get(..STAMP_BYTES)?;
    let behind = rest[STAMP_BYTES..].strip_prefix(ending)?;
    let packed = match behind {
        "" => false,
        ".gz" | ".zst" => true,
        _ => return None,
    };
    millis(stamp)?;
    Some(Generation { stamp: stamp.to_owned(), name: name.to_owned(), packed })
}

fn split(live: &str) -> (&str, &str) {
    match live.rfind('.') {
        Some(at) if at > 0 => live.split_at(at),
        _ => (live, ""),
    }
}

/// The older files of an output, oldest first.
pub(super) fn list(dir: &OwnedFd, live: &str) -> io::Result<Vec<Generation>> {
    let mut found: Vec<Generation> = names(dir)?.iter().filter_map(|name| parse(live, name)).collect();
    found.sort();
    Ok(found)
}

/// All names of a directory that are UTF-8; ours are.
pub(super) fn names(dir: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        if let Ok(name) = entry?.file_name().to_str() {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_795_578_078_123;

    #[test]
    fn names_and_what_they_say() {
        assert_eq!(name("web.ndjson", &stamp(MS)), "web~20261125T034118.123Z.ndjson");
        assert_eq!(name("a.b", &stamp(0)), "a~19700101T000000.000Z.b");
        assert_eq!(name("web", &stamp(MS)), "web~20261125T034118.123Z");
        assert_eq!(name(".x", &stamp(MS)), ".x~20261125T034118.123Z");
        for (live, found, expected) in [
            ("web.ndjson", "web~20261125T034118.123Z.ndjson", Some(false)),
            ("web.ndjson", "web~20261125T034118.123Z.ndjson.zst", Some(true)),
            ("web.ndjson", "web~20261125T034118.123Z.ndjson.gz", Some(true)),
            ("web.ndjson", "web~20261125T034118.123Z.ndjson.zst.tmp", None),
            ("web.ndjson", "web.ndjson", None),
            ("web.ndjson", "web2~20261125T034118.123Z.ndjson", None),
            ("web.ndjson", "web~20261325T034118.123Z.ndjson", None),
            ("web.ndjson", "web~20261125x034118.123Z.ndjson", None),
            ("web.ndjson", "web~20261125T034118Z123Z.ndjson", None),
            ("web.ndjson", "web~e484e9d1b9.ndjson", None),
            ("web.ndjson", "web~", None),
            ("web.ndjson", "web~20261125T034118.12€Z", None),
            ("web", "web~20261125T034118.123Z", Some(false)),
        ] {
            assert_eq!(parse(live, found).map(|found| found.packed), expected, "{found}");
        }
        assert!(
            name("web.ndjson", &stamp(MS)).len() + 4 + UNFINISHED.len() <= "web.ndjson".len() + ADDED_BYTES
        );
    }

    /// Generations are ordered by name alone: a clock that stands still or goes back must not confuse them.
    #[test]
    fn the_next_stamp_is_always_later() {
        let mut newest = String::new();
        for unix_ms in [MS, MS, MS - 10_000, 0, MS + 5] {
            let next = stamp_after(&newest, unix_ms);
            let found = parse("x.log", &name("x.log", &next)).expect("a name of ours");
            assert_eq!(found.stamp, next);
            assert!(next > newest, "{next} after {newest}");
            newest = next;
        }
    }
}
