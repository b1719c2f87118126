//! Trees and patterns as tables: what is found, what is passed over, what is watched.

use super::*;
use crate::settings::{PathPattern, Settings};

/// A directory with files, and links as `name -> target`.
fn tree(names: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in names {
        let (name, target) = name.split_once(" -> ").map_or((*name, None), |(name, to)| (name, Some(to)));
        let path = dir.path().join(name_of(name));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        match target {
            Some(target) => std::os::unix::fs::symlink(target, path).unwrap(),
            None if name.ends_with('/') => std::fs::create_dir_all(path).unwrap(),
            None => std::fs::write(path, "x").unwrap(),
        }
    }
    dir
}

fn set(dir: &Path, paths: &[&str]) -> FileSet {
    let pattern = |name: &&str| PathPattern::new(dir.join(name).to_str().unwrap()).unwrap();
    FileSet { paths: paths.iter().map(pattern).collect(), ..FileSet::default() }
}

#[derive(Default)]
struct Walked {
    found: Found,
    watches: BTreeMap<PathBuf, Vec<Interest>>,
}

fn walk_from(set: &FileSet, starts: Vec<Start>, lane_of: &dyn Fn(&Path) -> Option<LaneId>) -> Walked {
    let mut watches: BTreeMap<PathBuf, Vec<Interest>> = BTreeMap::new();
    let mut watch = |at: &Path, interest| watches.entry(at.to_owned()).or_default().push(interest);
    let found = walk(
        With { set, takes: &|path| set.takes(path), own: &Own::default(), lane_of, watch: &mut watch },
        starts,
    );
    Walked { found, watches }
}

fn walk_all(set: &FileSet) -> Walked {
    walk_from(set, starts(set), &|_| None)
}

fn relative(dir: &Path, path: &str) -> String {
    let prefix = format!("{}/", dir.display());
    path.replace(&prefix, "")
}

impl Walked {
    fn paths(&self, dir: &Path) -> Vec<String> {
        let target = |found: &FoundPath| found.target.as_ref().map(|target| format!(" -> {target}"));
        let shown = self
            .found
            .paths
            .values()
            .map(|found| found.path.to_string() + &target(found).unwrap_or_default());
        shown.map(|text| relative(dir, &text)).collect()
    }

    /// `reason: name`
    fn passed(&self, dir: &Path) -> Vec<String> {
        let of_all = self.found.reports.iter().flat_map(|report| &report.passed);
        let named = of_all.flat_map(|(why, named)| {
            named.first.iter().map(|name| format!("{}: {}", why.as_str(), relative(dir, name)))
        });
        named.collect()
    }

    fn watched(&self, dir: &Path, at: &str, name: &[u8], mask: u32) -> bool {
        let mut interests = self.watches.get(&dir.join(at)).into_iter().flatten();
        interests.any(|interest| interest.has(name, mask))
    }
}

const LOGS: &[&str] = &[
    "a.log",
    "b.log",
    "c.txt",
    ".hidden.log",
    "one/a.log",
    "one/.x/a.log",
    "one/deep/a.log",
    "one/deep/er/a.log",
    "two/a.log",
    "three/",
    "größe.log",
    "caf\\xE9.log",
    "dir.log/x.log",
];

/// Trees, patterns, what is found, what is passed over.
#[test]
fn patterns_find_what_they_say() {
    let table: &[(&[&str], &[&str], &[&str])] = &[
        (&["a.log"], &["a.log"], &[]),
        (&["missing.log"], &[], &[]),
        (&["missing/*.log"], &[], &[]),
        (
            &["*.log"],
            &["a.log", "b.log", "caf\\xE9.log", "größe.log"],
            &["directory: dir.log", "hidden: .hidden.log"],
        ),
        (&["gr??e.log"], &["größe.log"], &[]),
        (&["caf?.log"], &["caf\\xE9.log"], &[]),
        (&["caf\\xE9.log"], &["caf\\xE9.log"], &[]),
        (&[".*.log"], &[".hidden.log"], &[]),
        (&["{a,b}.log"], &["a.log", "b.log"], &[]),
        (&["[!a].log"], &["b.log"], &[]),
        (&["[^a].log"], &["b.log"], &[]),
        (&["*/a.log"], &["one/a.log", "two/a.log"], &[]),
        (&["{one,two}/*.log"], &["one/a.log", "two/a.log"], &[]),
        (&["one/**/a.log"], &["one/a.log", "one/deep/a.log", "one/deep/er/a.log"], &[]),
        (&["one/**"], &["one/a.log", "one/deep/a.log", "one/deep/er/a.log"], &["hidden: one/.x"]),
        (&["one/.x/*"], &["one/.x/a.log"], &[]),
        (&["one/../two/*.log"], &["one/../two/a.log -> two/a.log"], &[]),
        (&["one"], &[], &["directory: one"]),
        (&["a.log", "*.log", "{a,a}.log"], &["a.log", "b.log", "caf\\xE9.log", "größe.log"], &[]),
    ];
    let dir = tree(LOGS);
    for (patterns, paths, passed) in table {
        let walked = walk_all(&set(dir.path(), patterns));
        assert_eq!(walked.paths(dir.path()), *paths, "{patterns:?}");
        if !passed.is_empty() {
            assert_eq!(walked.passed(dir.path()), *passed, "{patterns:?}");
        }
    }
}

/// Tree, patterns, whether links that a pattern finds are followed, what is found, what is passed over.
type OfLinks<'a> = (&'a [&'a str], &'a [&'a str], bool, &'a [&'a str], &'a [&'a str]);

/// A link that another one leads over has a name that no path shows. If it was replaced, it counted as a file that came and
/// went.
#[test]
fn links_that_others_lead_over_are_named() {
    let dir = tree(&[
        "r1/v1.txt",
        "r1/two.log -> v1.txt",
        "r -> r1",
        "one.log -> r/two.log",
        "d/a.log -> ../one.log",
    ]);
    for (pattern, expected) in [
        ("one.log", vec!["r", "r1/two.log"]),
        ("r/two.log", vec![]),
        ("r1/*.txt", vec![]),
        ("d/*.log", vec!["one.log", "r", "r1/two.log"]),
    ] {
        let set = FileSet { follow_links: true, ..set(dir.path(), &[pattern]) };
        let links = walk_all(&set).found.links;
        let links: Vec<_> = links.iter().map(|link| relative(dir.path(), link)).collect();
        assert_eq!(links, expected, "{pattern}");
    }
}

#[test]
fn links() {
    let current: &[&str] = &["r1/app.log", "r2/app.log", "current -> r1"];
    let several: &[&str] = &["v1.txt", "one.log -> v1.txt", "two.log -> one.log", "plain.log"];
    let circles: &[&str] = &["a/x.log", "a/up -> ..", "l1 -> l2", "l2 -> l1"];
    let outside: &[&str] = &["in/a.log -> ../out/a.log", "in/b.log -> c.log", "in/c.log", "out/a.log"];
    let table: &[OfLinks<'_>] = &[
        (current, &["current/app.log"], false, &["current/app.log -> r1/app.log"], &[]),
        (current, &["current/*.log"], false, &["current/app.log -> r1/app.log"], &[]),
        (current, &["*/app.log"], false, &["r1/app.log", "r2/app.log"], &["link: current"]),
        (current, &["*/app.log"], true, &["r1/app.log", "r2/app.log"], &[]),
        (current, &["**/app.log"], true, &["r1/app.log", "r2/app.log"], &[]),
        (several, &["two.log"], false, &["two.log -> v1.txt"], &[]),
        (several, &["*.log"], false, &["plain.log"], &["link: one.log", "link: two.log"]),
        (several, &["*.log"], true, &["one.log -> v1.txt", "plain.log"], &[]),
        (several, &["*.log", "v1.txt"], true, &["plain.log", "v1.txt"], &[]),
        (several, &["two.log", "v1.txt"], false, &["v1.txt"], &[]),
        (circles, &["**/x.log"], true, &["a/x.log"], &["link_loop: l1", "link_loop: l2"]),
        (circles, &["l1"], false, &[], &["link_loop: l1"]),
        (circles, &["a/up/a/x.log"], false, &["a/up/a/x.log -> a/x.log"], &[]),
        (outside, &["in/*"], true, &["in/a.log -> out/a.log", "in/c.log"], &[]),
        (&["a.log -> gone"], &["a.log"], false, &[], &["dangling_link: a.log -> gone"]),
        (&["a.log -> gone"], &["*"], true, &[], &["dangling_link: a.log -> gone"]),
        (&["d/x", "a.log -> d"], &["a.log"], false, &[], &["directory: a.log"]),
        (&["a.log -> /"], &["a.log"], false, &[], &["directory: a.log"]),
        (&["a.log -> ../../../../../../../../dev/null"], &["a.log"], false, &[], &["special: a.log"]),
    ];
    for (names, patterns, follow_links, paths, passed) in table {
        let dir = tree(names);
        let set = FileSet { follow_links: *follow_links, ..set(dir.path(), patterns) };
        let walked = walk_all(&set);
        assert_eq!(walked.paths(dir.path()), *paths, "{patterns:?} in {names:?}");
        assert_eq!(walked.passed(dir.path()), *passed, "{patterns:?} in {names:?}");
    }
}

#[test]
fn links_stay_within_their_roots() {
    let dir =
        tree(&["in/a.log -> ../out/a.log", "in/b.log -> c.txt", "in/c.txt", "out/a.log", "in/up -> ../out"]);
    let set = FileSet {
        follow_links: true,
        roots: vec![dir.path().join("in")],
        ..set(dir.path(), &["in/*.log", "in/up/a.log"])
    };
    let walked = walk_all(&set);
    assert_eq!(walked.paths(dir.path()), ["in/b.log -> in/c.txt"]);
    assert_eq!(
        walked.passed(dir.path()),
        ["out_of_roots: in/a.log -> out/a.log", "out_of_roots: in/up -> out"]
    );
}

/// A tree outside is not even watched. A link may lead above a root, and through any directory.
#[test]
fn nothing_is_looked_for_outside_of_the_roots() {
    let dir = tree(&[
        "in/x -> ../out",
        "in/y -> ..",
        "in/z -> ../out/back",
        "out/deep/a.log",
        "out/back -> ../in",
        "in/b.log",
    ]);
    let set = FileSet {
        follow_links: true,
        roots: vec![dir.path().join("in")],
        ..set(dir.path(), &["in/*/*.log", "in/y/in/*.log"])
    };
    let walked = walk_all(&set);
    assert_eq!(walked.paths(dir.path()), ["in/y/in/b.log -> in/b.log"]);
    assert_eq!(walked.passed(dir.path()), ["out_of_roots: in/x -> out"]);
    let outside = dir.path().join("out");
    let watched: Vec<_> = walked.watches.keys().filter(|at| at.starts_with(outside.join("deep"))).collect();
    assert!(watched.is_empty(), "{watched:?}");
}

#[test]
fn archives_are_read_with_their_logs_alone() {
    let dir = tree(&["a.log", "a.log.1.gz", "b.log.1.gz", "c.gz", "d.log.zst"]);
    let walked = walk_all(&set(dir.path(), &["*", "c.gz"]));
    assert_eq!(walked.paths(dir.path()), ["a.log", "a.log.1.gz"]);
    let passed = ["archive: b.log.1.gz", "archive: c.gz", "archive: d.log.zst", "archive: c.gz"];
    assert_eq!(walked.passed(dir.path()), passed);
}

#[test]
fn what_is_excluded_is_not_gone_into() {
    let dir = tree(&["a.log", "b.log", "x/a.log", "x/y/a.log", "l -> x/a.log"]);
    let exclude =
        ["b*", "x"].map(|name| PathPattern::exclude(dir.path().join(name).to_str().unwrap()).unwrap());
    let mut set = FileSet { exclude: exclude.into(), ..set(dir.path(), &["**/*.log"]) };
    let walked = walk_all(&set);
    assert_eq!(walked.paths(dir.path()), ["a.log"]);
    assert!(!walked.watches.contains_key(&dir.path().join("x")));
    set.paths = vec![PathPattern::new(dir.path().join("l").to_str().unwrap()).unwrap()];
    assert_eq!(walk_all(&set).passed(dir.path()), ["excluded: l -> x/a.log"]);
}

#[test]
fn the_agents_own_files_are_left_out() {
    let dir = tree(&["data/checkpoint.json", "a.json", "link -> data", "named.json -> data/checkpoint.json"]);
    let own = Own::of(&Settings { data_dir: dir.path().join("data"), ..Settings::default() });
    let set = FileSet { follow_links: true, ..set(dir.path(), &["**/*.json", "link/checkpoint.json"]) };
    let with = With { set: &set, takes: &|_| false, own: &own, lane_of: &|_| None, watch: &mut |_, _| () };
    let walked = Walked { found: walk(with, starts(&set)), ..Walked::default() };
    assert_eq!(walked.paths(dir.path()), ["a.json"]);
    assert_eq!(walked.passed(dir.path()), ["own: data", "own: link", "own: named.json", "own: link"]);
}

/// Each level is watched for what may appear: a missing name, a link, a directory that a wildcard may match.
#[test]
fn each_level_is_watched_for_what_may_come() {
    const CREATE: u32 = crate::decode::inotify::CREATE;
    const DIRECTORY: u32 = CREATE | crate::decode::inotify::IS_DIRECTORY;
    let dir = tree(&["r1/app.log", "current -> r1", "deep/a/"]);
    let patterns = ["current/app.log", "missing/x/*.log", "deep/*/app.log", "deep/**/*.txt", "dangling"];
    let walked = walk_all(&set(dir.path(), &patterns));
    let check = |at: &str, name: &str, mask, expected| {
        assert_eq!(walked.watched(dir.path(), at, name.as_bytes(), mask), expected, "{at} {name}");
    };
    check("", "current", CREATE, true);
    check("", "missing", DIRECTORY, true);
    check("", "dangling", CREATE, true);
    check("", "other", DIRECTORY, false);
    check("r1", "app.log", CREATE, true);
    check("r1", "other.log", CREATE, false);
    check("deep", "b", DIRECTORY, true);
    check("deep/a", "app.log", CREATE, true);
    check("deep/a", "x.txt", CREATE, true);
    check("deep/a", "x", DIRECTORY, true);
    check("deep/a", "x.log", CREATE, false);
    check("", "deep", DIRECTORY, true);
    check("", "r1", DIRECTORY, true);
}

/// One hung file system must not hide what a pattern matches elsewhere.
#[test]
fn a_walk_stops_where_another_file_system_begins_and_goes_on_from_there() {
    let dir = tree(LOGS);
    std::os::unix::fs::symlink("one", dir.path().join("to-one")).unwrap();
    let set = set(dir.path(), &["*/*.log", "**/er/*.log", "a.log", "to-one/a.log"]);
    let lane_of = |path: &Path| {
        if path == dir.path().join("one") {
            Some(LaneId(1))
        } else {
            (path == dir.path().join("a.log")).then_some(LaneId(2))
        }
    };
    let mut walked = walk_from(&set, starts(&set), &lane_of);
    assert_eq!(walked.paths(dir.path()), ["dir.log/x.log", "two/a.log"]);
    assert_eq!(walked.found.elsewhere.keys().copied().collect::<Vec<_>>(), [LaneId(1), LaneId(2)]);
    let mut rest =
        |lane| walk_from(&set, walked.found.elsewhere.remove(&lane).unwrap(), &|_| None).paths(dir.path());
    assert_eq!(rest(LaneId(1)), ["one/a.log", "one/deep/er/a.log"]);
    assert_eq!(rest(LaneId(2)), ["a.log"]);
}
