//! Many walks, some in parallel; failed ones are shrunk and reported at once.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::action::{Action, Walk};
use super::ledger::Fault;
use super::shrink::shrink;
use super::stage;
use crate::amount::number;

/// How walks are run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Walks at a time. They wait more than they work.
    pub side_by_side: usize,
    /// How long lines may take to arrive.
    pub deadline: Duration,
    /// How long one failure may take to be made small; zero leaves it as it is.
    pub shrink: Duration,
    /// After so many failures no further walk is begun.
    pub failures_max: usize,
}

impl Options {
    /// As the environment says, else for a run in CI.
    pub fn from_env() -> Result<Options> {
        Ok(Options {
            side_by_side: number("CAPTURER_WALK_SIDE", 4)? as usize,
            deadline: Duration::from_secs(number("CAPTURER_WALK_DEADLINE", 60)?),
            shrink: Duration::from_secs(number("CAPTURER_WALK_SHRINK", 90)?),
            failures_max: number("CAPTURER_WALK_FAILURES", 3)? as usize,
        })
    }
}

/// A walk to run, and how to call it.
pub struct Case {
    /// `seed 17`, or where it is written.
    pub name: String,
    /// What happens.
    pub walk: Walk,
}

/// The walks of walks.txt; either those that show what they show each time, or those that do so by chance (`race:`).
///
/// # Errors
/// A line that is no walk.
pub fn listed(races: bool) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (index, line) in include_str!("../../walks.txt").lines().enumerate() {
        let (walk, found) = line.split_once('#').unwrap_or((line, ""));
        if walk.trim().is_empty() || found.trim_start().starts_with("race:") != races {
            continue;
        }
        let name = format!("walks.txt, line {}:{found}", index + 1);
        cases.push(Case { walk: Walk::parse(walk).with_context(|| name.clone())?, name });
    }
    ensure!(!cases.is_empty(), "walks.txt has none");
    Ok(cases)
}

/// A walk that failed.
pub struct Failure {
    /// Which.
    pub name: String,
    /// What is left of it.
    pub walk: Walk,
    /// What went wrong.
    pub fault: Fault,
    /// What was done, and the end of the agent's log.
    pub story: String,
}

impl Failure {
    /// All there is to know, with how to see it again.
    pub fn text(&self) -> String {
        format!(
            "=== {}\n{}\nactions, again with CAPTURER_WALK='{}'\n{}\n",
            self.name, self.fault, self.walk, self.story
        )
    }

    /// What failures of one cause share, as a rule: the kind and the actions that are left.
    fn signature(&self) -> String {
        let mut verbs: Vec<String> = self.walk.actions.iter().map(Action::verb).collect();
        verbs.retain(|verb| !matches!(verb.as_str(), "append" | "settle" | "start"));
        verbs.dedup();
        format!("{:?}: {}", self.fault.kind, verbs.join(", "))
    }
}

/// What walks came to.
#[derive(Default)]
pub struct Report {
    /// Walks that were run.
    pub walks: usize,
    /// Those that failed.
    pub failures: Vec<Failure>,
}

/// Runs walks until there are no more, or too many failed.
pub fn run(cases: &[Case], options: Options) -> Result<Report> {
    let next = AtomicUsize::new(0);
    let report = Mutex::new(Report::default());
    let started = Instant::now();
    let work = || -> Result<()> {
        loop {
            let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) else { return Ok(()) };
            if report.lock().unwrap_or_else(PoisonError::into_inner).failures.len() >= options.failures_max {
                return Ok(());
            }
            let failure = run_one(case, options)?;
            let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
            report.walks += 1;
            if let Some(failure) = failure {
                println!("{}", failure.text());
                let _ = std::io::stdout().flush();
                report.failures.push(failure);
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.side_by_side.max(1)).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    let report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!(
        "{} walks in {:.1} s, {} failed",
        report.walks,
        started.elapsed().as_secs_f64(),
        report.failures.len()
    );
    Ok(report)
}

fn run_one(case: &Case, options: Options) -> Result<Option<Failure>> {
    let ended = stage::run(&case.walk, options.deadline).with_context(|| case.name.clone())?;
    if ended.fault.is_none() {
        return Ok(None);
    }
    let (walk, ended) = shrink(&case.walk, ended, options.deadline, options.shrink)?;
    let Some(fault) = ended.fault else { return Ok(None) };
    let story = format!("{}\n--- the agent's log, last lines\n{}", ended.story.join("\n"), ended.log);
    Ok(Some(Failure { name: case.name.clone(), walk, fault, story }))
}

impl Report {
    /// A line for each cause that was found: how often, and its shortest walk.
    pub fn table(&self) -> String {
        let mut causes: BTreeMap<String, Vec<&Failure>> = BTreeMap::new();
        for failure in &self.failures {
            causes.entry(failure.signature()).or_default().push(failure);
        }
        let mut text = String::new();
        for (signature, failures) in causes {
            let shortest = failures.iter().min_by_key(|failure| failure.walk.actions.len());
            let Some(shortest) = shortest else { continue };
            let _ = writeln!(
                text,
                "{:4} × {signature}\n       {}: {}",
                failures.len(),
                shortest.name,
                shortest.walk
            );
        }
        text
    }
}
