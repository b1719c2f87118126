//! The real core on a simulated host, each seed with its own faults. See `capturer_tests::world`.
//!
//! A few seeds only, since this is built without optimization: `cargo xtask sim` runs ten thousand, as does
//! `cargo xtask test`. One seed again: `cargo xtask sim --seed N`. Other seeds here: `CAPTURER_SEEDS=A..B`.

use std::ops::Range;
use std::path::Path;

use capturer_tests::seeds;
use capturer_tests::world::{Outcome, World};

/// After this many failures there is enough to look at.
const FAILURES_MAX: usize = 3;
/// The seeds of an ordinary run.
const SEEDS: Range<u64> = 0..100;

fn chosen() -> Range<u64> {
    let number =
        |text: &str| text.parse::<u64>().unwrap_or_else(|error| panic!("{text:?} is no seed: {error}"));
    if let Ok(seed) = std::env::var("CAPTURER_SEED") {
        return number(&seed)..number(&seed) + 1;
    }
    match std::env::var("CAPTURER_SEEDS") {
        Ok(range) => {
            let (from, to) = range.split_once("..").expect("CAPTURER_SEEDS is A..B");
            number(from)..number(to)
        }
        Err(_) => SEEDS,
    }
}

/// Nothing wrong may happen while the world is at its worst, and everything must arrive once it is healthy again.
#[test]
fn a_hundred_seeds() {
    let seeds: Vec<u64> = chosen().collect();
    let sum = seeds::run(&seeds, FAILURES_MAX, Path::new(env!("CARGO_TARGET_TMPDIR")), |_| {});
    println!("{sum:?}");
    let failed: Vec<String> = sum
        .failures
        .iter()
        .map(|failure| {
            format!("seed {}: {}; its log: {}", failure.seed, failure.message, failure.log.display())
        })
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Otherwise a failure could not be reproduced.
#[test]
fn the_same_seed_is_the_same_run() {
    for seed in chosen().take(5) {
        let [first, second]: [Outcome; 2] = std::array::from_fn(|_| World::new(seed).run());
        assert_eq!(first, second, "seed {seed}");
    }
}
