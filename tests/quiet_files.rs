//! A thousand quiet files: no polling, little memory. The agent's own processor time while nothing happens is measured.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use capturer_tests::agent::Home;
use capturer_tests::wait::{PATIENCE, wait_until};

/// How long it is watched.
const QUIET: Duration = Duration::from_secs(30);

#[test]
fn a_thousand_quiet_files_cost_nothing() -> Result<()> {
    let home = Home::new()?;
    for number in 0..1000 {
        let dir = home.path().join(format!("containers/{number}"));
        fs::create_dir_all(&dir)?;
        let line = format!(
            "{{\"log\":\"only line {number}\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-22T00:52:48.162820305Z\"}}\n"
        );
        fs::write(dir.join("c-json.log"), line)?;
    }
    let pattern = home.path().join("containers/*/c-json.log");
    let config = home
        .config(&format!(
            "container_monitor: {{enabled: false}}\nfile_monitor:\n  files: [{{paths: [\"{}\"], format: docker}}]\n",
            pattern.display()
        ))
        .replace("{container_name}", "all");
    let agent = home.start(&config)?;
    wait_until("a line of each file", PATIENCE, || {
        let got = home.count_of("all");
        ensure!(got == 1000, "{got} of 1000");
        Ok(())
    })?;
    // Measured from outside: a request to the agent would cost more than it uses by itself.
    let (cpu, began) = (agent.cpu_seconds()?, Instant::now());
    wait_until("30 quiet seconds", PATIENCE, || began.elapsed() >= QUIET)?;
    let share = (agent.cpu_seconds()? - cpu) / began.elapsed().as_secs_f64();
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid()))?;
    let rss =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default().trim().to_owned();
    println!("1000 quiet files: {:.2} % of a core, RSS {rss}", share * 100.0);
    let kib: u64 = rss.split(' ').next().unwrap_or_default().parse()?;
    ensure!(kib < 40 * 1024, "RSS {rss}");
    ensure!(share < 0.005, "{:.2} % of a core", share * 100.0);
    agent.stop()
}
