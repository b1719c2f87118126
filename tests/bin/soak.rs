//! A soak for `cargo xtask soak`, which builds this and the agent and passes its arguments on.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use capturer_tests::engine::EngineVersion;
use capturer_tests::soak::report::{self, HEAD, markdown, row, title};
use capturer_tests::soak::{self, Plan};
use clap::Parser;

/// Runs the release agent beside real containers of a private Docker Engine: nothing may grow, be lost or come twice.
/// Ends with 1 if something did. Needs root.
#[derive(Parser)]
#[command(bin_name = "cargo xtask soak")]
struct Arguments {
    /// All containers; those neither idle nor chatty print a line a second.
    #[arg(long, default_value_t = 55)]
    containers: usize,
    /// Containers that print nothing for the whole time.
    #[arg(long, default_value_t = 15)]
    idle: usize,
    /// Containers that print --rate lines a second.
    #[arg(long, default_value_t = 5)]
    chatty: usize,
    /// Lines a second of a chatty one.
    #[arg(long, default_value_t = 2_000)]
    rate: u32,
    /// How long; fractions are allowed.
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Seconds between two rotations of a stream.
    #[arg(long, default_value_t = 5.0)]
    rotation: f64,
    /// Streams open at once; as many as containers if not given.
    #[arg(long)]
    slots: Option<usize>,
    /// Reads over the Engine's API (what is usual here, since only its streams rotate).
    #[arg(long, conflicts_with = "file")]
    api: bool,
    /// Reads the log files.
    #[arg(long)]
    file: bool,
    /// 20.10 or 28.5.
    #[arg(long, default_value = "20.10", value_parser = engine)]
    engine: EngineVersion,
    /// Where the report goes.
    #[arg(long, value_name = "DIR", default_value = "docs/soak")]
    reports: PathBuf,
}

fn engine(text: &str) -> Result<EngineVersion, String> {
    let known = EngineVersion::ALL.into_iter().find(|version| version.label() == text);
    known.ok_or_else(|| "the Engines are 20.10 and 28.5".to_owned())
}

impl Arguments {
    fn plan(&self) -> Result<Plan> {
        ensure!(
            self.idle + self.chatty <= self.containers,
            "more idle and chatty containers than containers"
        );
        ensure!((0.5..=10_000.0).contains(&self.minutes), "--minutes is from 0.5 to 10000");
        ensure!((0.2..=86_400.0).contains(&self.rotation), "--rotation is from 0.2 to 86400 seconds");
        Ok(Plan {
            engine: self.engine,
            containers: self.containers,
            idle: self.idle,
            chatty: self.chatty,
            chatty_rate: self.rate,
            length: Duration::from_secs_f64(self.minutes * 60.0),
            rotation: Duration::from_secs_f64(self.rotation),
            slots: self.slots.unwrap_or(self.containers),
            read_from: if self.file { "file" } else { "api" },
        })
    }

    fn command(&self, plan: &Plan) -> String {
        format!(
            "cargo xtask soak --containers {} --idle {} --chatty {} --rate {} --minutes {} --rotation {} --slots {} --{} --engine {}",
            plan.containers,
            plan.idle,
            plan.chatty,
            plan.chatty_rate,
            self.minutes,
            self.rotation,
            plan.slots,
            plan.read_from,
            plan.engine.label()
        )
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let plan = arguments.plan()?;
    let command = arguments.command(&plan);
    println!("{}\n\n{HEAD}", title(&plan));
    let soak = soak::run(plan, |_, sample| println!("{}", row(sample)))?;
    println!("\n{}", report::verdict(&soak));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let name = format!(
        "{}-{}-{}-containers-{}-minutes.md",
        soak.plan.engine.label(),
        soak.plan.read_from,
        soak.plan.containers,
        arguments.minutes
    );
    // Major and minor number: the rest names one machine.
    let kernel = kernel.split('.').take(2).collect::<Vec<_>>().join(".");
    let path = arguments.reports.join(name);
    fs::create_dir_all(&arguments.reports)
        .and_then(|()| fs::write(&path, markdown(&soak, &command, &kernel)))
        .with_context(|| format!("writing {}", path.display()))?;
    println!("report: {}", path.display());
    Ok(soak.complaints.is_empty())
}
