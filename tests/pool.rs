//! More containers than slots: each gets its turn, nothing is lost.

use std::time::Duration;

use anyhow::{Result, ensure};
use capturer_tests::engine::EngineVersion;
use capturer_tests::soak::report::{HEAD, row, title, verdict};
use capturer_tests::soak::{self, Plan};

/// 120 containers on 50 slots: those that print are followed, and the 90 idle ones are asked now and then, for a moment
/// each. So nobody waits longer for a slot than one interval.
#[test]
fn a_hundred_and_twenty_containers_share_fifty_slots() -> Result<()> {
    let rotation = Duration::from_secs(3);
    let plan = Plan {
        engine: EngineVersion::V28_5,
        containers: 120,
        idle: 90,
        chatty: 2,
        chatty_rate: 400,
        length: Duration::from_secs(60),
        rotation,
        slots: 50,
        read_from: "api",
    };
    println!("{}\n{HEAD}", title(&plan));
    let soak = soak::run(plan, |_, sample| println!("{}", row(sample)))?;
    println!("{}", verdict(&soak));
    ensure!(soak.complaints.is_empty(), "{}", soak.complaints.join("\n"));
    ensure!(soak.wait_max > Duration::ZERO, "nobody was seen to wait: the pool did nothing here");
    // A slot that is due becomes free when the machine gets to it.
    let most = rotation + rotation / 10 + soak.late_max();
    ensure!(soak.wait_max <= most, "somebody waited {:?} for a slot, {most:?} are allowed", soak.wait_max);
    Ok(())
}
