//! Files that may have been rotated to names that model/rotated_name.rs does not know, between two looks at a log:
//! several rotations while the agent was down. The file that was read is recognized by its inode, whatever its name.
//! Files made after it and before the live one lie between them. They are read if their names differ from its name only
//! in digits, as with `a-1.log` and `a-2.log`: the same program named them. Other files are only named as possible
//! losses, because they may be other logs: those that begin like the log, and those that are named like the file that was
//! read, as with UUIDs.
//!
//! If the live file was read before, none of this counts (core/look.rs): then nothing can lie between.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, StatxFlags};

use super::led::led_to;
use super::listings::Listing;
use super::look::Chain;
use crate::capture::io::FoundFile;
use crate::model::cursor::FileId;
use crate::model::rotated_name::{RotatedName, UNREAD_ARCHIVES, common_start};
use crate::text::path_text::name_of;

/// After a rotation its writer has this long to switch to the new file. A file that is still written to after that is
/// another log.
pub(super) const GRACE_NS: i64 = 10_000_000_000;
/// At most this many names are looked at.
pub(super) const LOOKED_AT_MAX: usize = 512;
/// At most this many are reported.
pub(super) const TOLD_MAX: usize = 8;

pub(super) struct Seen {
    pub(super) id: FileId,
    pub(super) modified_ns: i64,
}

/// As names_of in look.rs: ranks, names, and whether each is compressed.
pub(super) fn aside(dir: &OwnedFd, listing: &Listing, chain: Chain<'_>) -> BTreeSet<(u32, String, bool)> {
    let none = BTreeSet::new();
    let Some(live) = see(dir, chain.live_name) else { return none };
    let led = led_to(dir, listing, chain, &live);
    if !led.is_empty() {
        return led;
    }
    let is_wanted = |seen: &Seen| chain.wanted.iter().any(|wanted| wanted.can_be(seen.id));
    let read = chain.wanted.iter().filter(|id| !id.can_be(live.id));
    let Some(birth_ns) = read.clone().map(|id| id.birth_ns).max() else { return none };
    let names = read.flat_map(|id| listing.of_inode(id.inode));
    // The inode number of a removed file may be the live one's now.
    let was_read = |seen: &Seen| is_wanted(seen) && !seen.id.can_be(live.id);
    let known = names.filter_map(|name| Some((name, see(dir, name).filter(was_read)?)));
    let known = known.max_by_key(|(_, known)| known.id.birth_ns);
    let stem = common_start(chain.live_name);
    let is_rotated = |name: &str| name == chain.live_name || RotatedName::of(name, chain.live_name).is_some();
    // A compressed file has another inode. Then it is enough if one name is known.
    let has_known_name = match &known {
        Some((name, _)) => is_rotated(name),
        None => {
            listing.beginning_with(stem).any(|name| name != chain.live_name && is_rotated(name))
                || birth_ns == 0
        }
    };
    if has_known_name {
        return none;
    }
    let (known_name, known) = known.map_or((chain.live_name, None), |(name, known)| (name, Some(known)));
    let kind = digits_alike(known_name);
    let is_kind = |name: &str| {
        name.starts_with(stem) && digits_alike(name) == kind && digits_alike(chain.live_name) != kind
    };
    let begins = |name: &&str| name[stem.len()..].starts_with(['.', '-', '_']);
    let mut alike: Vec<&str> =
        listing.beginning_with(stem).filter(begins).filter(|name| !is_rotated(name)).collect();
    if !known_name.starts_with(stem) {
        let shape = shape_of(known_name);
        let is_alike =
            |name: &&str| *name != known_name && !name.starts_with(stem) && shape_of(name) == shape;
        alike.extend(listing.beginning_with("").filter(is_alike).take(LOOKED_AT_MAX));
    }
    let is_apart = |name: &str| chain.apart.iter().any(|apart| apart == name);
    // It is rotated from another log, or has rotated files itself.
    let is_of_another = |name: &str| {
        alike.iter().any(|other| belongs_to(name, other) || belongs_to(other, name)) && !is_kind(name)
    };
    let mut found = Vec::new();
    for name in alike.iter().copied().filter(|name| !is_apart(name)).take(LOOKED_AT_MAX) {
        let Some(seen) = see(dir, name).filter(|seen| !is_wanted(seen)) else { continue };
        let has_births = birth_ns != 0 && live.id.birth_ns != 0;
        let is_archive = name.ends_with(".gz") || UNREAD_ARCHIVES.iter().any(|end| name.ends_with(end));
        let is_between = match has_births {
            true => seen.id.birth_ns > birth_ns && (is_archive || seen.id.birth_ns < live.id.birth_ns),
            false => {
                is_kind(name) && known.as_ref().is_some_and(|known| seen.modified_ns >= known.modified_ns)
            }
        };
        let is_done = !has_births || is_archive || seen.modified_ns <= live.id.birth_ns + GRACE_NS;
        if is_between && is_done && !is_of_another(name) {
            let is_read = has_births && is_kind(name) && !is_archive;
            found.push((
                seen.id.birth_ns,
                name,
                if is_read { FoundFile::RANK_BY_BIRTH } else { FoundFile::RANK_STRANGE },
            ));
        }
    }
    found.sort_unstable();
    let told = found
        .iter()
        .rev()
        .filter(|(.., rank)| *rank == FoundFile::RANK_STRANGE)
        .take(if known.is_some() { TOLD_MAX } else { 1 });
    let read = found.iter().filter(|(.., rank)| *rank == FoundFile::RANK_BY_BIRTH);
    read.chain(told).map(|(_, name, rank)| (*rank, (*name).to_owned(), name.ends_with(".gz"))).collect()
}

pub(super) fn see(dir: &OwnedFd, name: &str) -> Option<Seen> {
    let stat = rustix::fs::statx(dir, &*name_of(name), AtFlags::SYMLINK_NOFOLLOW, FileId::ASKED).ok()?;
    let is_regular = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile;
    is_regular.then(|| Seen { id: FileId::of(&stat), modified_ns: FileId::modified_ns(&stat) })
}

/// When something other than its content changed last: its name, for a file that was rotated and left alone.
pub(super) fn renamed_ns(dir: &OwnedFd, name: &str) -> Option<i64> {
    let stat = rustix::fs::statx(dir, &*name_of(name), AtFlags::SYMLINK_NOFOLLOW, StatxFlags::CTIME).ok()?;
    let at = stat.stx_ctime;
    Some(at.tv_sec.saturating_mul(1_000_000_000).saturating_add(i64::from(at.tv_nsec)))
}

/// The name with `#` for each number in it.
pub(super) fn digits_alike(name: &str) -> String {
    let mut alike = String::new();
    for char in name.chars() {
        match char {
            '0'..='9' if alike.ends_with('#') => {}
            '0'..='9' => alike.push('#'),
            char => alike.push(char),
        }
    }
    alike
}

/// The name with `#` for each number in it, of either base: `app-#-#.log` for `app-17-e29b.log`.
fn shape_of(name: &str) -> String {
    let is_hex = |word: &str| {
        let digits = word.bytes().filter(u8::is_ascii_digit).count();
        word.len() >= HEX_DIGITS_MIN && digits > 0 && word.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let mut shape = String::new();
    for part in name.split_inclusive(|char: char| !char.is_ascii_alphanumeric()) {
        let end = part.find(|char: char| !char.is_ascii_alphanumeric()).unwrap_or(part.len());
        let (word, sign) = part.split_at(end);
        match is_hex(word) {
            true => shape.push('#'),
            false => shape.push_str(&digits_alike(word)),
        }
        shape.push_str(sign);
    }
    shape
}

/// A word of fewer digits is hardly a number in hexadecimal: `db1`.
const HEX_DIGITS_MIN: usize = 4;

/// Like `a-error.log.1` and `a-error.log`.
fn belongs_to(name: &str, log: &str) -> bool {
    name.strip_prefix(log).is_some_and(|more| more.starts_with(['.', '-', '_']))
}

#[cfg(test)]
#[path = "aside_tests.rs"]
mod tests;
