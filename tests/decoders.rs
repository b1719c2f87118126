//! Every decoder under the corpus of its fuzz target, and under mutations of it. No Engine is needed.
//!
//! The checks are next to the decoders (`capturer::fuzz` describes them); here are only the inputs. `cargo xtask fuzz`
//! looks for new ones. `CAPTURER_SEED`, which a failure prints, repeats the random choices.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use capturer::fuzz::{TARGETS, WORK};
use capturer::testing::limits::RECORD_BYTES_MAX;
use capturer::testing::work;
use capturer_tests::rand::Rand;

/// Mutations of each corpus; they take some seconds altogether, in the dev profile.
const MUTATIONS: usize = 500;
/// Everybody who clones the repository gets the corpus files.
const CORPUS_BYTES_MAX: u64 = 300 * 1024;

fn fuzz_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The names in a folder, without their endings.
fn names(folder: &Path) -> Result<BTreeSet<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let stem = |entry: std::io::Result<fs::DirEntry>| {
        Ok(entry?.path().with_extension("").file_name().unwrap_or_default().to_string_lossy().into_owned())
    };
    entries.map(stem).collect()
}

/// File names and contents of a target's corpus, in the same order on every machine.
fn corpus(target: &str) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let folder = fuzz_dir().join("corpus").join(target);
    let entries = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    paths.into_iter().map(|path| Ok((path.clone(), fs::read(path)?))).collect()
}

/// Otherwise a decoder could be fuzzed without a corpus, or a corpus be unused.
#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() -> Result<()> {
    let listed: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&fuzz_dir().join("corpus"))?, listed, "folders of tests/fuzz/corpus");
    assert_eq!(names(&fuzz_dir().join("fuzz_targets"))?, listed, "files of tests/fuzz/fuzz_targets");
    let manifest = fs::read_to_string(fuzz_dir().join("Cargo.toml"))?;
    for (name, _) in TARGETS {
        ensure!(manifest.contains(&format!("[[bin]]\nname = \"{name}\"\n")), "no [[bin]] for {name}");
    }
    let mut bytes = 0;
    for name in &listed {
        let files = corpus(name)?;
        ensure!(files.len() >= 4, "{name}: {} files are no corpus", files.len());
        bytes += files.iter().map(|(_, content)| content.len() as u64).sum::<u64>();
    }
    ensure!(
        bytes <= CORPUS_BYTES_MAX,
        "the corpus is {bytes} bytes: minimize it, cargo xtask fuzz --keep does"
    );
    Ok(())
}

#[test]
fn every_file_of_the_corpus_holds() -> Result<()> {
    let mut failed = Vec::new();
    for (name, check) in TARGETS {
        for (path, bytes) in corpus(name)? {
            if catch_unwind(|| check(&bytes)).is_err() {
                failed.push(path);
            }
        }
    }
    ensure!(failed.is_empty(), "these files break a property; each panicked above: {failed:?}");
    Ok(())
}

#[test]
fn mutations_of_the_corpus_hold() -> Result<()> {
    let mut rand = Rand::from_env_or(26);
    for (name, check) in TARGETS {
        let corpus: Vec<Vec<u8>> = corpus(name)?.into_iter().map(|(_, bytes)| bytes).collect();
        let mut rand = rand.fork();
        for round in 0..MUTATIONS {
            let bytes = mutated(&corpus, &mut rand);
            let held = catch_unwind(|| check(&bytes)).is_ok();
            ensure!(held, "{name}, round {round}, panicked above, by b\"{}\"", bytes.escape_ascii());
        }
    }
    Ok(())
}

/// Parts of lines that make a decoder look far ahead, look back, or begin again.
const PARTS: [&[u8]; 34] = [
    b"\0",
    b"x",
    b"\n",
    b"\r",
    b"\\",
    b"\"",
    b"'",
    b" ",
    b"=",
    b":",
    b"://",
    b"@",
    b".",
    b"[",
    b"{",
    b"]",
    b"\xff",
    "é".as_bytes(),
    b"4111 1111 ",
    b"{\"log\":\"",
    b"{\"log\":\"x\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-22T00:52:48Z\"}",
    b"2026-11-22T00:52:48Z",
    b" stdout ",
    b" stdout F ",
    b"password",
    b"password=[redacted",
    b"-----BEGIN PRIVATE KEY-----",
    b"[redacted",
    b"bearer ",
    b"eyJ",
    b"--token ",
    b"<password>",
    b"level=",
    &[0; 64],
];

/// One of these, repeated, is a line that once stopped the agent for minutes, or nearly did.
const UNITS: [&[&[u8]]; 16] = [
    &[b"x", b"\0"],
    &[b"x", &[0; 64]],
    &[b"2026-11-22T00:52:48Z stdout F ", &[0; 64]],
    &[b" stdout"],
    &[b"2026-11-22T00:52:48Z stdout X "],
    &[b"{\"log\":\""],
    &[b"{\"log\":\"", b"\0"],
    &[b"password=[redacted "],
    &[b"-----BEGIN PRIVATE KEY-----[redacted "],
    &[b"mysql ,-p[redacted curl ,-u:[redacted"],
    &[b"{\"pin\":1,"],
    &[b"a@"],
    &[b"\x0a\x0a"],
    &[b"[[[[\"a\","],
    &[b"a=\"\\\""],
    &[b"\r"],
];

fn repeated(unit: &[&[u8]], len: usize) -> Vec<u8> {
    unit.concat().iter().copied().cycle().take(len).collect()
}

fn cpu_time(work: impl FnOnce()) -> Duration {
    let now = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let before = now();
    work();
    now() - before
}

/// The cost of a line is a small multiple of its length, whatever it contains: a process that prints one must not stop
/// the agent. Counted in bytes looked at, if the decoder counts them, and in processor time, which includes everything.
#[test]
fn the_work_for_a_line_grows_with_its_length_alone() -> Result<()> {
    const LEN: usize = 1024 * 1024;
    /// A quarter of the length may take this share of the time for all: a fourth if the work grows linearly, and a
    /// sixteenth if it grows with the square.
    const GROWTH: u32 = 8;
    const NOISE: Duration = Duration::from_millis(400);
    let mut rand = Rand::from_env_or(27);
    let by_chance =
        |rand: &mut Rand| -> Vec<&[u8]> { (0..rand.index(1..5)).map(|_| *rand.pick(&PARTS)).collect() };
    let mut units: Vec<Vec<&[u8]>> = UNITS.iter().map(|unit| unit.to_vec()).collect();
    units.extend((0..12).map(|_| by_chance(&mut rand)));
    for (name, read) in WORK {
        for unit in &units {
            let shown = || format!("{name}, b\"{}\" repeated", unit.concat().escape_ascii());
            let (part, whole) = (repeated(unit, LEN / 4), repeated(unit, LEN));
            let of_part = cpu_time(|| read(&part));
            let mut counted = 0;
            let of_whole = cpu_time(|| counted = work::of(|| read(&whole)));
            ensure!(counted <= 32 * LEN as u64, "{}: {counted} bytes looked at in {LEN}", shown());
            ensure!(
                of_whole < of_part * GROWTH + NOISE,
                "{}: {of_part:?}, and {of_whole:?} for four times as much",
                shown()
            );
        }
    }
    Ok(())
}

/// The same for a line of the greatest length, for decoders that read whole files.
#[test]
fn the_longest_line_costs_as_little_for_each_byte() -> Result<()> {
    for (name, read) in WORK.iter().filter(|(name, _)| name.starts_with("assemble")) {
        for unit in [UNITS[0], UNITS[1], UNITS[2]] {
            let line = repeated(unit, RECORD_BYTES_MAX - 1);
            let counted = work::of(|| read(&[&line[..], b"\n"].concat()));
            ensure!(counted <= 32 * RECORD_BYTES_MAX as u64, "{name}, {unit:?}: {counted} bytes looked at");
        }
    }
    Ok(())
}

/// An entry of the corpus with up to four changes, as torn writes, flipped bits and glued records cause them.
fn mutated(corpus: &[Vec<u8>], rand: &mut Rand) -> Vec<u8> {
    let mut bytes = rand.pick(corpus).clone();
    for _ in 0..rand.index(1..5) {
        let at = rand.index(0..bytes.len() + 1);
        let end = rand.index(at..bytes.len() + 1);
        match rand.index(0..6) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => bytes.splice(at..end, rand.pick(corpus).clone()).for_each(drop),
            3 => bytes.insert(at, *rand.pick(b"\0\n\"\\{}[]u:, \x80\xC3\xFF1/.-~@")),
            4 => bytes.insert(at, rand.number() as u8),
            _ if at < bytes.len() => bytes[at] ^= 1 << rand.index(0..8),
            _ => {}
        }
    }
    bytes
}
