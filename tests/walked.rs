//! What random walks (walk.rs) have found stays mended. Each walk of walks.txt is replayed, with what it was, but for those
//! that show it by chance.
//!
//! ```sh
//! CAPTURER_WALK_SIDE=4 CAPTURER_WALK_DEADLINE=60     # so many at a time; seconds until something must have arrived
//! ```

use anyhow::{Result, ensure};
use capturer_tests::walk::many::{Options, listed, run};

#[test]
fn what_walks_found_stays_mended() -> Result<()> {
    let report = run(&listed(false)?, Options::from_env()?)?;
    ensure!(report.failures.is_empty(), "{} walks failed; see above", report.failures.len());
    Ok(())
}
