//! The containers of a soak: their scripts, and how many of their lines have been printed and delivered.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use super::Plan;
use super::lines::{Lines, Outlet};
use crate::agent::Home;
use crate::engine::{Engine, RunSpec};
use crate::wait::{PATIENCE, wait_until};

/// A line at the beginning and one at the end.
const IDLE: &str = "echo o 1; while [ ! -e /shared/stop ]; do sleep 1; done; echo o 2";
/// A line a second.
const STEADY: &str = "a=1; while [ ! -e /shared/stop ]; do echo o $a; a=$((a+1)); sleep 1; done; echo o $a";
/// Bursts of a chatty container a second.
const BURSTS: u32 = 20;

/// Prints on both channels, each numbered for itself: a burst of one is one write.
fn chatty(lines_per_second: u32) -> String {
    let last = lines_per_second / BURSTS / 2 - 1;
    // The shell's own commands, not seq and sed: to start those took more than to print. A burst still costs some
    // milliseconds.
    format!(
        "a=1; while [ ! -e /shared/stop ]; do z=$((a+{last})); o=; e=; \
         while [ $a -le $z ]; do o=\"${{o}}o $a\\n\"; e=\"${{e}}e $a\\n\"; a=$((a+1)); done; \
         printf \"$o\"; printf \"$e\" >&2; sleep 0.045; done"
    )
}

/// Running containers and where their lines come out.
pub struct Crew<'a> {
    engine: &'a Engine,
    stop_file: PathBuf,
    names: Vec<String>,
    outlets: Vec<Outlet>,
}

impl<'a> Crew<'a> {
    /// Starts all containers of a plan.
    pub fn start(plan: &Plan, engine: &'a Engine, home: &Home) -> Result<Crew<'a>> {
        let shared = home.path().join("shared");
        fs::create_dir(&shared)?;
        let mount = format!("--volume={}:/shared:ro", shared.display());
        let mut crew =
            Crew { engine, stop_file: shared.join("stop"), names: Vec::new(), outlets: Vec::new() };
        for number in 0..plan.containers {
            let (kind, script) = match number {
                number if number < plan.idle => ("idle", IDLE.to_owned()),
                number if number < plan.idle + plan.chatty => ("chatty", chatty(plan.chatty_rate)),
                _ => ("steady", STEADY.to_owned()),
            };
            let name = format!("{kind}-{number}");
            let id = engine.run(&RunSpec::sh(&script).name(&name).argument(&mount))?;
            crew.outlets.push(Outlet::new(&name, engine.log_path(&id), home.output_of(&name)));
            crew.names.push(name);
        }
        Ok(crew)
    }

    /// Looks at what was printed and delivered since the last call; answers the sum of all.
    pub fn count(&mut self) -> Result<Lines> {
        let mut sum = Lines::default();
        for outlet in &mut self.outlets {
            sum.add(outlet.count()?);
        }
        Ok(sum)
    }

    /// Tells all containers to end and waits until they have.
    pub fn end(&self) -> Result<()> {
        fs::write(&self.stop_file, "")?;
        for name in &self.names {
            self.engine.wait(name)?;
        }
        Ok(())
    }

    /// Waits until everything printed was delivered; if it never is, the answer shows what lacks.
    pub fn arrived(&mut self) -> Result<Lines> {
        let mut last = Ok(Lines::default());
        let _ = wait_until("every line", PATIENCE, || {
            last = self.count();
            last.as_ref().is_ok_and(|lines| lines.delivered >= lines.printed)
        });
        let mut lines = last?;
        for outlet in &self.outlets {
            lines.lacking.extend(outlet.lacking());
        }
        Ok(lines)
    }
}
