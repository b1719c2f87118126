//! `cargo xtask flame NAME`: a flame graph of the agent under one of the bench's loads.
//!
//! ```text
//! a load of bench_loads.rs ─▶ the release agent, admin.profile on ─┐
//!                             GET /debug/profile?seconds=N  ◀──────┴─▶ an SVG that browsers show
//! ```
//! The agent takes the picture itself, so it is the same one that users can take. The load's output is checked as in
//! `cargo xtask bench`. A continuous load is profiled from the end of its warm-up, one that ends by itself from the
//! start of the agent; waiting threads are not in a profile, so the time after the load's end does no harm.

use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::bench::BenchArgs;
use crate::bench_host::ask;
use crate::bench_loads::{self, WARM_UP};
use crate::paths;
use crate::wait::wait_until;

/// Loads that run one agent, and begin and end.
const LOADS: [&str; 6] = ["file", "loki", "live", "live-loki", "api", "api-live"];
/// The seconds that `/debug/profile` accepts.
const SECONDS_MAX: u64 = 60;
/// For the agent to answer at all.
const DEADLINE: Duration = Duration::from_secs(120);
/// Sizes that keep the agent busy for some seconds: it is interrupted 99 times a second.
const FILE_MIB: u64 = 1024;
const LOKI_MIB: u64 = 512;
const API_LINES: u64 = 3_000_000;

/// What to look at.
#[derive(clap::Args)]
pub struct FlameArgs {
    #[command(flatten)]
    bench: BenchArgs,
    /// Where the picture goes; without it target/flame/NAME.svg
    #[arg(long, value_name = "FILE.svg")]
    out: Option<PathBuf>,
}

/// Runs the load and writes the picture.
pub fn flame(arguments: FlameArgs) -> Result<()> {
    let FlameArgs { mut bench, out } = arguments;
    ensure!(LOADS.contains(&bench.what.as_str()), "flame knows these loads: {}", LOADS.join(", "));
    ensure!(bench.seconds <= SECONDS_MAX, "a profile takes {SECONDS_MAX} seconds at most");
    if bench.mib.is_empty() {
        bench.mib = vec![if bench.what == "file" { FILE_MIB } else { LOKI_MIB }];
    }
    bench.lines = bench.lines.or(Some(API_LINES));
    let out = out.unwrap_or_else(|| paths::target().join("flame").join(format!("{}.svg", bench.what)));
    let svg = bench_loads::profiled_run(&bench)?;
    ensure!(svg.contains("capturer::"), "the profile names no function of the agent: was it stripped?");
    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    std::fs::write(&out, &svg).with_context(|| format!("writing {}", out.display()))?;
    println!("{}", heading(&svg).unwrap_or("a profile without a heading"));
    println!("{}", out.display());
    Ok(())
}

/// The first text of the picture: the number of samples and of seconds.
fn heading(svg: &str) -> Option<&str> {
    svg.split_once("<text")?.1.split_once('>')?.1.split('<').next()
}

/// A profile that is being taken.
pub struct Taken(JoinHandle<Result<String>>);

impl Taken {
    /// Takes a profile of the agent that answers at this port, or will. `goes_on`: the load has a warm-up.
    pub fn begin(port: u16, seconds: u64, goes_on: bool) -> Taken {
        Taken(std::thread::spawn(move || {
            if goes_on {
                std::thread::sleep(WARM_UP);
            }
            let patience = Duration::from_secs(seconds) + DEADLINE;
            wait_until("the agent to answer", DEADLINE, || ask(port, "/healthz", patience).is_ok())?;
            let answer = ask(port, &format!("/debug/profile?seconds={seconds}"), patience)?;
            let (head, body) =
                answer.split_once("\r\n\r\n").context("an answer without an end of its head")?;
            if !head.starts_with("HTTP/1.1 200 ") {
                bail!(
                    "the agent gives no profile: {}: {}",
                    head.lines().next().unwrap_or_default(),
                    body.trim()
                );
            }
            Ok(body.to_owned())
        }))
    }

    /// Waits for the picture.
    pub fn end(self) -> Result<String> {
        self.0.join().map_err(|_| anyhow::anyhow!("taking the profile panicked"))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heading_is_the_first_text() {
        let svg =
            "<svg><rect/>\n<text x=\"10\" y=\"20\">capturer 0.1: 7 samples</text><text>more</text></svg>";
        assert_eq!(heading(svg), Some("capturer 0.1: 7 samples"));
        assert_eq!(heading("<svg></svg>"), None);
    }
}
