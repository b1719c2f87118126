//! What random walks (walk.rs) have found stays mended. Each walk of walks.txt is replayed, with what it was.
//!
//! ```sh
//! CAPTURER_WALK_SIDE=4 CAPTURER_WALK_DEADLINE=60     # so many at a time; seconds until something must have arrived
//! ```

use anyhow::{Context as _, Result, ensure};
use capturer_tests::walk::Walk;
use capturer_tests::walk::many::{Case, Options, run};

#[test]
fn what_walks_found_stays_mended() -> Result<()> {
    let mut cases = Vec::new();
    for (index, line) in include_str!("walks.txt").lines().enumerate() {
        let (walk, found) = line.split_once('#').unwrap_or((line, ""));
        if walk.trim().is_empty() {
            continue;
        }
        let name = format!("walks.txt, line {}:{found}", index + 1);
        cases.push(Case { walk: Walk::parse(walk).with_context(|| name.clone())?, name });
    }
    ensure!(!cases.is_empty(), "walks.txt is empty");
    let report = run(&cases, Options::from_env()?)?;
    ensure!(report.failures.is_empty(), "{} walks failed; see above", report.failures.len());
    Ok(())
}
