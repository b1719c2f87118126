//! What a walk does to the agent and its outputs, and what it asks it.

use std::fs;
use std::time::SystemTime;

use super::*;
use crate::walk::action::OutputAction;

impl Stage {
    pub(super) fn take_output(&mut self, kind: OutputAction) -> Result<bool, Stop> {
        let delivered = self.outputs.read();
        let done = self.outputs.act(kind)?;
        if done {
            self.ledger.came(&delivered);
            let ids = delivered.messages.values().flatten().filter_map(|message| LineId::of(message));
            self.unsaved.extend(ids);
            if self.agent.is_none() && self.was_killed {
                self.may_repeat();
            }
            self.ledger.is_doubtful = true;
        }
        Ok(done)
    }

    pub(super) fn reload(&mut self, with: bool) -> Result<bool, Stop> {
        if self.is_frozen || self.has_source == with {
            return Ok(false);
        }
        self.has_source = with;
        self.ledger.closed();
        for info in &mut self.logs.files {
            info.open_in = None;
        }
        let config = self.config();
        self.sample();
        if let Some(agent) = &self.agent {
            self.home.write_config(&config)?;
            let (status, said) = agent.post("/-/reload")?;
            if status != 200 {
                return Err(fault(Kind::Reload, format!("{status}: {said}")));
            }
        }
        self.has_yet_to_look();
        Ok(true)
    }

    /// Whether the agent knows the folder has to be seen anew.
    pub(super) fn has_yet_to_look(&mut self) {
        self.has_looked = false;
        self.came_before = self.outputs.read().count();
    }

    pub(super) fn freeze(&mut self, frozen: bool) -> bool {
        if self.is_frozen == frozen {
            return false;
        }
        if frozen {
            self.sample();
        }
        let Some(agent) = &self.agent else { return false };
        agent.signal(if frozen { Signal::STOP } else { Signal::CONT });
        self.is_frozen = frozen;
        true
    }

    pub(super) fn start(&mut self) -> Result<(), Stop> {
        let config = self.config();
        let agent = self.home.launch(&config);
        let agent = agent.map_err(|error| fault(Kind::Died, format!("at its start: {error:#}")))?;
        wait_until("the agent to take signals", self.deadline, || takes_sigterm(agent.pid()))?;
        self.agent = Some(agent);
        self.run += 1;
        self.is_frozen = false;
        self.has_yet_to_look();
        Ok(())
    }

    pub(super) fn ended(&mut self) {
        self.earlier = self.declared();
        self.latest = Declared::default();
        self.ledger.closed();
    }

    pub(super) fn terminate(&mut self) -> Result<(), Stop> {
        self.sample();
        let Some(agent) = self.agent.take() else { return Ok(()) };
        self.ended();
        self.unsaved.clear();
        self.was_killed = false;
        agent.stop().map_err(|error| fault(Kind::BadEnd, format!("{error:#}").chars().take(300).collect()))
    }

    pub(super) fn kill(&mut self) -> Result<bool, Stop> {
        if self.agent.is_none() {
            return Ok(false);
        }
        if !self.is_frozen {
            self.sample();
        }
        if let Some(agent) = self.agent.take() {
            agent.kill()?;
        }
        self.ended();
        self.is_frozen = false;
        self.was_killed = true;
        self.may_repeat();
        // It is on the disk, and must not vanish by what the agent does next.
        let delivered = self.outputs.read();
        self.ledger.came(&delivered);
        Ok(true)
    }

    /// What was taken out of outputs before a checkpoint knew of it may come again.
    pub(super) fn may_repeat(&mut self) {
        for id in std::mem::take(&mut self.unsaved) {
            if let Some(entry) = self.ledger.lines.get_mut(&id) {
                entry.may_repeat = true;
            }
        }
    }

    pub(super) fn notice(&self) -> bool {
        let Some(agent) = self.agent.as_ref().filter(|_| !self.is_frozen) else { return false };
        let Ok(before) = agent.metric("files_monitored") else { return false };
        let changed = || agent.metric("files_monitored").is_ok_and(|now| now != before);
        wait_until("the agent to see it", NOTICE, changed).is_ok()
    }

    /// Whether a checkpoint is younger than everything that was delivered.
    pub(super) fn saved(&mut self) -> bool {
        if self.agent.is_none() || self.is_frozen {
            return false;
        }
        let Some(delivered) = self.outputs.newest() else { return false };
        let data = self.home.path().join("data");
        let newest = || {
            let entries = fs::read_dir(&data).into_iter().flatten().flatten();
            entries.filter_map(|entry| entry.metadata().ok()?.modified().ok()).max()
        };
        let younger = |saved: SystemTime| saved >= delivered + Duration::from_millis(20);
        let saved = wait_until("a checkpoint", SAVED, || newest().is_some_and(younger)).is_ok();
        if saved {
            self.unsaved.clear();
        }
        saved
    }

    pub(super) fn declared(&self) -> Declared {
        Declared {
            known: self.earlier.known + self.latest.known,
            possible: self.earlier.possible + self.latest.possible,
        }
    }

    /// Asks the agent what it declared. One that does not answer declared what it said last.
    pub(super) fn sample(&mut self) {
        let Some(text) = self.agent.as_ref().and_then(|agent| agent.get("/metrics").ok()) else { return };
        self.latest = Declared::in_metrics(&text);
    }

    pub(super) fn log_end(&self) -> String {
        let text = fs::read_to_string(self.home.path().join("agent.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

/// Whether a process handles SIGTERM: one that has just started ends by it, in whatever state.
fn takes_sigterm(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (Signal::TERM.as_raw() - 1)) != 0)
}
