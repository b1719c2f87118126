//! Random trees of files, links and patterns: what `capturer check` lists is what a run follows, and every file that it lists, and
//! every rotated file of one, comes once. Chance comes from a printed seed.
//!
//! Not here: what happens to files while the agent runs (`walk.rs`), and what is in them: each has one line, its own name.
//!
//! `CAPTURER_TREES=500` tries that many, `CAPTURER_TREE_SEED=97` one again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use capturer_tests::agent::{Home, program};
use capturer_tests::rand::Rand;
use capturer_tests::wait::{PATIENCE, wait_until};

/// Every day; a tree takes about a second, most of which is waiting.
const TREES: u64 = 40;
/// So many agents run side by side.
const AGENTS: usize = 5;
/// `check` names this many files of a pattern.
const LISTED_MAX: usize = 20;

const NAMES: [&str; 16] = [
    "a.log",
    "b.log",
    "a.log.1",
    "a.log.2",
    "a-2026-11-01.log",
    "b.log-20261101",
    "c.txt",
    ".h.log",
    "a.1.log",
    "z.gz",
    "a.log.3.gz",
    "b.log.1.xz",
    "app",
    "app.1",
    "e.log.0",
    "e.log",
];
const DIRECTORIES: [&str; 5] = ["", "d/", "d/e/", ".x/", "f/"];
const PATTERNS: [&str; 20] = [
    "*",
    "*.log",
    "**",
    "**/*.log",
    "d/*",
    "*/*.log",
    "a*",
    "a.log",
    "b.log",
    "a.log.1",
    "{a,b}*.log",
    ".*",
    "d/e/app*",
    "l0.log",
    "l1",
    "d/**",
    "[!a]*",
    "d/a.log*",
    "*/e.log",
    "e.log",
];

/// One tree, and the entries that look into it.
#[derive(Debug, Default)]
struct Tree {
    /// Each with its age in seconds.
    files: BTreeMap<String, u64>,
    /// Name and target; `@` is the directory of the tree.
    links: Vec<(String, String)>,
    entries: Vec<Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    patterns: Vec<&'static str>,
    follow_links: bool,
    excludes: bool,
}

impl Tree {
    fn new(seed: u64) -> Tree {
        let mut rand = Rand::new(seed);
        let mut tree = Tree::default();
        for directory in DIRECTORIES {
            let mut names = NAMES;
            rand.shuffle(&mut names);
            for name in &names[..rand.index(0..7)] {
                tree.files.insert(format!("{directory}{name}"), rand.within(100..100_000));
            }
        }
        let mut targets: Vec<String> = tree.files.keys().cloned().collect();
        targets.extend(["d", "f", "nix", "l1", "..", "d/e"].map(str::to_owned));
        for number in 0..rand.within(0..5) {
            let ending = rand.pick(&["", ".log"]);
            let name = format!("{}l{number}{ending}", rand.pick(&DIRECTORIES));
            let root = rand.pick(&["", "@/"]);
            let target = format!("{root}{}", rand.pick(&targets));
            tree.links.push((name, target));
        }
        for _ in 0..rand.within(1..4) {
            let mut patterns = PATTERNS;
            rand.shuffle(&mut patterns);
            tree.entries.push(Entry {
                patterns: patterns[..rand.index(1..4)].to_vec(),
                follow_links: rand.chance(3, 10),
                excludes: rand.chance(2, 10),
            });
        }
        tree
    }

    fn make(&self, at: &Path) -> Result<()> {
        for (name, age_s) in &self.files {
            let path = at.join(name);
            fs::create_dir_all(path.parent().context("a file in a directory")?)?;
            let mut file = File::create(&path)?;
            if name.ends_with(".gz") {
                let mut packed = flate2::write::GzEncoder::new(&file, flate2::Compression::fast());
                writeln!(packed, "{name}")?;
                packed.finish()?;
            } else {
                writeln!(file, "{name}")?;
            }
            file.set_modified(SystemTime::now() - Duration::from_secs(*age_s))?;
        }
        for (name, target) in &self.links {
            let path = at.join(name);
            fs::create_dir_all(path.parent().context("a link in a directory")?)?;
            let _ = symlink(target.replace('@', &at.to_string_lossy()), path);
        }
        Ok(())
    }

    fn config(&self, home: &Home, at: &Path) -> String {
        let mut files = String::new();
        for Entry { patterns, follow_links, excludes } in &self.entries {
            let paths = patterns.iter().map(|pattern| format!("'{}/{pattern}'", at.display()));
            let paths = paths.collect::<Vec<_>>().join(", ");
            let exclude = if *excludes {
                format!(", exclude: ['{0}/d/e', '{0}/*.txt']", at.display())
            } else {
                String::new()
            };
            let _ = write!(files, "{{paths: [{paths}], follow_links: {follow_links}{exclude}}}, ");
        }
        home.config(&format!("container_monitor: {{enabled: false}}\nfile_monitor: {{files: [{files}]}}\n"))
    }
}

/// What `check` lists.
#[derive(Debug, Default)]
struct Checked {
    followed: BTreeSet<String>,
    /// Rotated files, which are read with their logs.
    rotated: BTreeSet<String>,
    /// It named only the first of a list.
    is_cut: bool,
}

fn check(home: &Home) -> Result<Checked> {
    let config = home.path().join("config.yaml");
    let out = Command::new(program()).args(["check", "-c"]).arg(config).output()?;
    let text = String::from_utf8(out.stdout)?;
    ensure!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
    let mut checked = Checked::default();
    let without_target = |name: &str| name.split(" -> ").next().unwrap_or_default().to_owned();
    let mut listed = 0;
    for line in text.lines() {
        if let Some(path) = line.strip_prefix("      ").filter(|rest| rest.starts_with('/')) {
            listed += 1;
            checked.is_cut |= listed == LISTED_MAX;
            checked.followed.insert(without_target(path));
        } else {
            listed = 0;
        }
        if let Some((_, names)) =
            line.split_once("(a rotated file of a followed log: it is read together with that log): ")
        {
            checked.is_cut |= names.ends_with('…');
            checked.rotated.extend(names.split(", ").map(without_target));
        }
    }
    Ok(checked)
}

fn messages(home: &Home) -> Result<Vec<String>> {
    let records = home.whole_records()?;
    let mut messages: Vec<String> = records.into_values().flatten().map(|record| record.message).collect();
    messages.sort();
    Ok(messages)
}

/// What is wrong with one tree; empty = nothing.
fn run(seed: u64, tree: &Tree) -> Result<Vec<String>> {
    let home = Home::new()?;
    // A link may lead above the tree, where nothing else is.
    let at = home.path().canonicalize()?.join("logs/tree");
    fs::create_dir_all(&at)?;
    tree.make(&at)?;
    let agent = home.start(&tree.config(&home, &at))?;
    let checked = check(&home)?;
    // The name of the file itself, as the tree has it.
    let real = |path: &String| -> Option<String> {
        let real = PathBuf::from(path).canonicalize().ok()?;
        Some(real.strip_prefix(&at).ok()?.to_string_lossy().into_owned())
    };
    let expected: BTreeSet<String> =
        checked.followed.iter().chain(&checked.rotated).filter_map(real).collect();
    let all_came = wait_until("every listed file to come", Duration::from_secs(8), || {
        let came: BTreeSet<String> = messages(&home)?.into_iter().collect();
        let missing: Vec<&String> = expected.difference(&came).collect();
        ensure!(missing.is_empty(), "{missing:?}");
        anyhow::Ok(())
    });
    let began = Instant::now();
    wait_until("what should not come to have had its time", PATIENCE, || {
        ensure!(began.elapsed() >= Duration::from_millis(300), "not yet");
        anyhow::Ok(())
    })?;
    let mut wrong = Vec::new();
    wrong.extend(all_came.err().map(|error| format!("missing: {error:#}")));
    let rows = agent.streams()?;
    let followed: BTreeSet<String> =
        rows.iter().filter_map(|row| row["name"].as_str().map(str::to_owned)).collect();
    if followed != checked.followed && !checked.is_cut {
        let run_only: Vec<_> = followed.difference(&checked.followed).collect();
        let check_only: Vec<_> = checked.followed.difference(&followed).collect();
        wrong.push(format!("followed by the run alone {run_only:?}, by check alone {check_only:?}"));
    }
    let came = messages(&home)?;
    let twice: Vec<_> = came.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    if !twice.is_empty() {
        wrong.push(format!("came twice: {twice:?}"));
    }
    // A log brings its rotated files, whether a pattern matches those or not.
    let is_rotated = |name: &str| {
        let plain = name.strip_suffix(".gz").unwrap_or(name);
        plain.ends_with(|last: char| last.is_ascii_digit()) || plain.ends_with("-01.log")
    };
    let more: Vec<_> = came.iter().filter(|name| !expected.contains(*name) && !is_rotated(name)).collect();
    if !more.is_empty() && !checked.is_cut {
        wrong.push(format!("came, though check does not list them: {more:?}"));
    }
    wrong.extend(agent.assert_nothing_lost().err().map(|error| format!("{error:#}")));
    agent.stop()?;
    if !wrong.is_empty() {
        wrong.insert(0, format!("seed {seed}: {tree:#?}"));
    }
    Ok(wrong)
}

fn number(name: &str) -> Result<Option<u64>> {
    std::env::var(name).ok().map(|text| text.parse().with_context(|| format!("{name}={text}"))).transpose()
}

#[test]
fn a_run_follows_what_check_lists() -> Result<()> {
    let seeds = match (number("CAPTURER_TREE_SEED")?, number("CAPTURER_TREES")?.unwrap_or(TREES)) {
        (Some(seed), _) => seed..seed + 1,
        (None, trees) => 0..trees,
    };
    println!("seeds {seeds:?}; one again: CAPTURER_TREE_SEED");
    let next = AtomicU64::new(seeds.start);
    let work = || -> Vec<String> {
        let mut wrong = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return wrong;
            }
            wrong.extend(
                run(seed, &Tree::new(seed)).unwrap_or_else(|error| vec![format!("seed {seed}: {error:#}")]),
            );
        }
    };
    let wrong: Vec<String> = thread::scope(|scope| {
        let workers: Vec<_> = (0..AGENTS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no panic")).collect()
    });
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// logrotate's `olddir`: what lay there before the first start was read by nobody if only the pattern of another entry, which is
/// looked at later, leads there.
#[test]
fn what_lies_in_an_olddir_before_the_first_start_is_read() -> Result<()> {
    for names in [["d/e/a.log.2", "d/e/a.log.1"], ["d/e/a.log.3.gz", "d/e/a.log.2.gz"]] {
        let ages = [(names[0], 3_000), (names[1], 2_000), ("d/a.log", 1_000)];
        let files = ages.map(|(name, age_s)| (name.to_owned(), age_s)).into();
        let mut tree = Tree { files, ..Tree::default() };
        let entry = |pattern| Entry { patterns: vec![pattern], ..Entry::default() };
        for patterns in [["d/a.log", "**"], ["*/*.log", "d/**"], ["**", "d/a.log"]] {
            tree.entries = patterns.map(entry).into();
            let home = Home::new()?;
            let at = home.path().join("logs");
            fs::create_dir(&at)?;
            tree.make(&at)?;
            let config = tree.config(&home, &at);
            // From the oldest to the newest, and none again at the next start.
            let expected = [names[0], names[1], "d/a.log"];
            for _ in 0..2 {
                let agent = home.start(&config)?;
                wait_until("all files to come", PATIENCE, || {
                    let records = home.whole_records()?;
                    let came: Vec<String> =
                        records.into_values().flatten().map(|record| record.message).collect();
                    ensure!(came == expected, "{patterns:?}: {came:?}");
                    anyhow::Ok(())
                })?;
                agent.assert_nothing_lost()?;
                agent.stop()?;
            }
        }
    }
    Ok(())
}
