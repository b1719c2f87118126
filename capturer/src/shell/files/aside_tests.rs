//! Which files are between the file that was read and the live one, if names do not show it.

use super::*;
use crate::shell::files::listings::Listings;
use crate::shell::files::look::scan;

const READ: u32 = FoundFile::RANK_BY_BIRTH;
const TOLD: u32 = FoundFile::RANK_STRANGE;

/// Makes these files one after the other. The first was read; `gone/` before its name says that it is gone. Returns what is found beside it and the live one, newest last.
fn found(names: &[&str], apart: &[&str]) -> Vec<(String, u32)> {
    let dir = tempfile::tempdir().unwrap();
    let is_gone = names[0].starts_with("gone/");
    let names: Vec<&str> = names.iter().map(|name| name.trim_start_matches("gone/")).collect();
    for name in &names {
        let before = std::fs::read_dir(dir.path()).unwrap().count();
        std::fs::write(dir.path().join(name), name).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), before + 1);
        // Birth times are as coarse as the kernel's ticks.
        let newest = || std::fs::metadata(dir.path().join(name)).unwrap().created().unwrap();
        let probe = dir.path().join("probe");
        loop {
            std::fs::write(&probe, "").unwrap();
            let is_later = std::fs::metadata(&probe).unwrap().created().unwrap() > newest();
            std::fs::remove_file(&probe).unwrap();
            if is_later {
                break;
            }
        }
    }
    let id = |name: &str| {
        let stat = rustix::fs::statx(
            rustix::fs::CWD,
            dir.path().join(name),
            AtFlags::SYMLINK_NOFOLLOW,
            FileId::ASKED,
        );
        FileId::of(&stat.unwrap())
    };
    // The live file is wanted as the file that its path led to before.
    let wanted = [id(names[0]), id("web.log")];
    if is_gone {
        std::fs::remove_file(dir.path().join(names[0])).unwrap();
    }
    let apart: Vec<String> = apart.iter().map(|name| (*name).to_owned()).collect();
    let chain = Chain {
        directory: dir.path().to_str().unwrap(),
        live_name: "web.log",
        wanted: &wanted,
        apart: &apart,
        olddirs: &[],
        before: "",
    };
    let mut found = scan(chain, &mut Listings::default()).0.unwrap();
    found.retain(|file| file.rank > 0 && file.id != wanted[0]);
    found.sort_by_key(|file| file.id.birth_ns);
    found.into_iter().map(|file| (file.name, file.rank)).collect()
}

fn check(names: &[&str], expected: &[(&str, u32)]) {
    let found = found(names, &[]);
    let found: Vec<_> = found.iter().map(|(name, rank)| (name.as_str(), *rank)).collect();
    assert_eq!(found, expected, "{names:?}");
}

#[test]
fn names_that_differ_in_digits_alone_are_one_log() {
    check(&["web-2.log", "web-1.log", "web.log"], &[("web-1.log", READ)]);
    check(
        &["web-9.log", "web-10.log", "web-11.log", "web.log"],
        &[("web-10.log", READ), ("web-11.log", READ)],
    );
    check(&["web.log_1", "web.log_2", "web.log"], &[("web.log_2", READ)]);
    check(&["web-28-Nov-2026-1.log", "web-29-Nov-2026-1.log", "web.log"], &[("web-29-Nov-2026-1.log", READ)]);
    check(&["web-30-Nov-2026-1.log", "web-01-Dec-2026-1.log", "web.log"], &[("web-01-Dec-2026-1.log", TOLD)]);
    check(&["web-1.log", "web-2.log.gz", "web.log"], &[("web-2.log.gz", TOLD)]);
    check(&["gone/web.log.x", "web-1.log.gz", "web-2.log.gz", "web.log"], &[("web-2.log.gz", TOLD)]);
    check(&["gone/web.log.x", "web.log.1.gz", "web-2.log.gz", "web.log"], &[("web.log.1.gz", 1)]);
}

/// What is named like the file that was read may be of the log. It is told, not read.
#[test]
fn names_of_other_kinds_are_told() {
    let (one, two) = ("550e8400-e29b-41d4-a716-446655440000.log", "1f3c8400-0a9b-4cd4-8f16-4466554400ff.log");
    check(&[one, two, "api.log", "e29b.log", "web.log"], &[(two, TOLD)]);
    check(&["saved-17", "saved-18", "saved-x", "web.log"], &[("saved-18", TOLD)]);
    check(&["saved-by-hand", "saved-by-foot", "web.log"], &[]);
}

/// No line of another log is read.
#[test]
fn other_logs_are_not() {
    // The name of the file that was read is a rotated one, so files with other names are not of the same log.
    check(&["web.log.2", "web-1.log", "web-2.log", "web.log.1", "web.log"], &[("web.log.1", 1)]);
    check(&["web.log.old", "web-1.log", "web.log"], &[("web-1.log", TOLD)]);
    // Made before the file that was read, or after the live one.
    check(&["web-1.log", "web.log", "web-2.log"], &[]);
    // Files of another log, which has rotated files of its own.
    check(&["web.log.old", "web-error.log.old", "web.log", "web-error.log"], &[]);
    check(&["web.log.old", "website.log", "api.log", "web.log"], &[]);
    assert_eq!(found(&["web-2.log", "web-1.log", "web.log"], &["web-1.log"]), []);
}
