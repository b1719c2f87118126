//! Joins what the parts of the agent reported: is it healthy, is it ready, and if not, why. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::telemetry::fault::Fault;
use crate::telemetry::health_text::{HealthText, title};
use crate::telemetry::status::{Health, StandingFault, Status};
use crate::text::counted::counted;
use crate::text::terminal::shown;

/// The capture loop turns at least once a second; after this long without a turn it is stuck.
pub const CAPTURE_BEAT_AGE_MAX_MS: u64 = 3_000;
/// Longest turn while sources are listed for the first time, when one turn may take up ten thousand files.
pub const START_BEAT_AGE_MAX_MS: u64 = 60_000;
/// A thread's step that takes longer is stuck, as in a write to a disk or file system that does not answer.
pub const STEP_AGE_MAX_MS: u64 = 10_000;
/// The beginning of a message about a component that is stuck.
const STUCK: &str = "stuck: ";
/// The component for the loop's beat.
pub const CAPTURE_LOOP: &str = "capture_loop";

/// Everything that health is made from, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// What each component reported.
    pub components: BTreeMap<String, Health>,
    /// Milliseconds since the capture loop's last turn.
    pub capture_beat_age_ms: u64,
    /// How many milliseconds the step of each component with a beat has taken.
    pub steps_ms: BTreeMap<String, u64>,
    /// The config is loaded and the sources were listed once.
    pub sources_ready: bool,
    /// For each sink, whether it has accepted something.
    pub sinks: BTreeMap<String, bool>,
    /// For each sink, the lines it acknowledged; for a network sink also the lines its server accepted.
    pub lines: BTreeMap<String, (u64, Option<u64>)>,
    /// For each sink whose server takes nothing until somebody fixes something: what to fix.
    pub held: BTreeMap<String, String>,
}

impl Facts {
    /// The present state.
    pub fn of(status: &Status) -> Facts {
        Facts {
            components: status.health(),
            capture_beat_age_ms: status.capture_beat_age_ms(),
            steps_ms: status.beats().into_iter().map(|(component, (age, _))| (component, age)).collect(),
            sources_ready: status.sources_ready.load(std::sync::atomic::Ordering::Relaxed),
            sinks: status.sinks(),
            lines: BTreeMap::new(),
            held: status.held_sinks(),
        }
    }
}

/// The answer of `/health`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HealthReport {
    /// All components are well.
    pub ok: bool,
    /// Each component with its message.
    pub components: BTreeMap<String, Health>,
}

/// Health by component, including the capture loop's.
pub fn report(facts: &Facts) -> HealthReport {
    let mut components = facts.components.clone();
    components.insert(CAPTURE_LOOP.to_owned(), capture_loop(facts));
    for (sink, (acknowledged, taken)) in &facts.lines {
        let mut say = |component: String, lines: u64, what: &str| {
            if let Some(health) = components.get_mut(&component).filter(|health| health.ok && lines > 0) {
                let done = format!("{} {what} in this run", counted(lines, "line"));
                health.message = if health.note { format!("{done}; {}", health.message) } else { done };
            }
        };
        let what = if taken.is_some() { "put into the spool" } else { "delivered" };
        say(format!("sink_{sink}"), *acknowledged, what);
        say(format!("sink_{sink}_delivery"), taken.unwrap_or(0), "accepted by the receiving server");
    }
    for (component, age_ms) in facts.steps_ms.iter().filter(|(_, age_ms)| **age_ms > STEP_AGE_MAX_MS) {
        components.insert(component.clone(), stuck_step(component, *age_ms));
    }
    for (name, health) in components.iter_mut().filter(|(_, health)| !health.ok || health.note) {
        health.told = Some(HealthText::of(name, health));
    }
    HealthReport { ok: components.values().all(|health| health.ok), components }
}

/// Whether this component or the loop is stuck.
pub fn is_stuck(facts: &Facts, component: &str) -> bool {
    if component == CAPTURE_LOOP {
        return facts.capture_beat_age_ms > beat_age_max_ms(facts);
    }
    facts.steps_ms.get(component).is_some_and(|age_ms| *age_ms > STEP_AGE_MAX_MS)
}

fn beat_age_max_ms(facts: &Facts) -> u64 {
    if facts.sources_ready { CAPTURE_BEAT_AGE_MAX_MS } else { START_BEAT_AGE_MAX_MS }
}

fn stuck_step(component: &str, age_ms: u64) -> Health {
    let message = format!(
        "{STUCK}one write has been under way for {:.1} s; the disk or file system that it goes to does not answer: check it \
         with dmesg and iostat -x; reading waits, and lines stay in the log files as long as those are kept",
        age_ms as f64 / 1000.0
    );
    let title = title(component, Fault::Silent, &message);
    let faults = vec![StandingFault { fault: Fault::Silent, title, since_ms: 0 }];
    Health { faults, ..Health::new(false, message) }
}

fn capture_loop(facts: &Facts) -> Health {
    let age_ms = facts.capture_beat_age_ms;
    let seconds = age_ms as f64 / 1000.0;
    let max = beat_age_max_ms(facts);
    let usual = if facts.sources_ready { "" } else { " while sources are listed for the first time" };
    if age_ms <= CAPTURE_BEAT_AGE_MAX_MS {
        return Health::new(true, format!("last turn {seconds:.1} s ago"));
    }
    if age_ms <= max {
        return Health::new(true, format!("is opening its sources, last turn {seconds:.1} s ago"));
    }
    let message = format!(
        "{STUCK}last turn {seconds:.1} s ago, at most {} s are usual{usual}; /api/v1/streams shows what it waited for last",
        max / 1000
    );
    Health::new(false, message)
}

/// What is missing for `/readyz`, one reason per line; empty = ready. Readiness is about having begun. A sink that
/// accepted something once stays ready when it becomes slow: otherwise an outage of Loki would restart every agent. A
/// held sink (wrong token, wrong address) is not ready: this does not pass by itself, and whoever rolls out a config
/// looks here.
pub fn not_ready(facts: &Facts) -> Vec<String> {
    let mut reasons = Vec::new();
    if !facts.sources_ready {
        let docker = facts.components.get("docker").filter(|docker| !docker.ok);
        let why = docker.map(|docker| format!(": {}", docker.message)).unwrap_or_default();
        reasons.push(format!("sources: not listed yet{why}"));
    }
    reasons.extend(facts.held.iter().map(|(sink, why)| format!("sink {sink}: {why}")));
    let waiting =
        facts.sinks.iter().filter(|(sink, accepted)| !**accepted && !facts.held.contains_key(*sink));
    reasons.extend(waiting.map(|(sink, _)| format!("sink {sink}: has not accepted anything yet")));
    let capture_loop = capture_loop(facts);
    if !capture_loop.ok {
        reasons.push(format!("{CAPTURE_LOOP}: {}", capture_loop.message));
    }
    reasons
}

/// The body of `/readyz`.
pub fn ready_text(reasons: &[String]) -> String {
    if reasons.is_empty() {
        return "ready\n".to_owned();
    }
    let mut text = "not ready\n".to_owned();
    for reason in reasons {
        let _ = writeln!(text, "{}", shown(reason));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let components = [("docker".to_owned(), Health::new(true, "3 containers"))].into();
        Facts {
            components,
            capture_beat_age_ms: 900,
            steps_ms: BTreeMap::new(),
            sources_ready: true,
            sinks: [("stdout".to_owned(), true)].into(),
            lines: BTreeMap::new(),
            held: BTreeMap::new(),
        }
    }

    /// A message that never changes is soon untrue.
    #[test]
    fn a_sink_that_is_well_says_what_it_has_done() {
        let mut facts = facts();
        let well = || Health::new(true, "no record has come yet");
        for component in ["sink_stdout", "sink_loki", "sink_loki_delivery"] {
            facts.components.insert(component.to_owned(), well());
        }
        facts.lines = [("stdout".to_owned(), (5_000_000, None)), ("loki".to_owned(), (70, Some(30)))].into();
        let said = |facts: &Facts, component: &str| report(facts).components[component].message.clone();
        assert_eq!(said(&facts, "sink_stdout"), "5000000 lines delivered in this run");
        assert_eq!(said(&facts, "sink_loki"), "70 lines put into the spool in this run");
        assert_eq!(
            said(&facts, "sink_loki_delivery"),
            "30 lines accepted by the receiving server in this run"
        );
        let note = Health { note: true, ..well() };
        facts.components.insert("sink_loki_delivery".to_owned(), note);
        assert!(
            said(&facts, "sink_loki_delivery").ends_with("in this run; no record has come yet"),
            "a note is kept"
        );
        facts.lines.insert("loki".to_owned(), (0, Some(0)));
        assert_eq!(said(&facts, "sink_loki_delivery"), "no record has come yet");
    }

    #[test]
    fn all_is_well() {
        let report = report(&facts());
        assert!(report.ok);
        assert_eq!(report.components[CAPTURE_LOOP].message, "last turn 0.9 s ago");
        assert_eq!(ready_text(&not_ready(&facts())), "ready\n");
    }

    #[test]
    fn one_bad_component_is_enough() {
        let mut facts = facts();
        facts.components.insert("checkpoint".to_owned(), Health::new(false, "disk full"));
        let report = report(&facts);
        assert!(!report.ok);
        assert!(report.components["docker"].ok);
    }

    /// The predecessor of this agent was dead-locked and reported itself healthy.
    #[test]
    fn a_stuck_loop_is_neither_well_nor_ready() {
        let mut facts = facts();
        facts.capture_beat_age_ms = 3_000;
        assert!(report(&facts).ok);
        facts.capture_beat_age_ms = 12_345;
        let report = report(&facts);
        assert!(!report.ok);
        assert!(report.components[CAPTURE_LOOP].message.starts_with("stuck: last turn 12.3 s ago"));
        assert_eq!(not_ready(&facts).len(), 1);
    }

    /// Ten thousand files taken up in one turn are no reason for an alarm; a minute without a turn is.
    #[test]
    fn a_slow_start_is_not_stuck() {
        let mut facts = Facts { sources_ready: false, capture_beat_age_ms: 30_000, ..facts() };
        let well = report(&facts);
        assert!(well.ok && well.components[CAPTURE_LOOP].message.contains("is opening its sources"));
        facts.capture_beat_age_ms = START_BEAT_AGE_MAX_MS + 1;
        assert!(!report(&facts).ok);
    }

    /// A thread that hangs can't report it itself.
    #[test]
    fn a_hung_write_is_named_and_leaves_the_agent_ready() {
        let mut facts = facts();
        facts.components.insert("sink_stdout".to_owned(), Health::new(true, "works"));
        facts.steps_ms.insert("sink_stdout".to_owned(), 10_000);
        assert!(report(&facts).ok);
        facts.steps_ms.insert("sink_stdout".to_owned(), 10_001);
        let report = report(&facts);
        assert!(!report.ok && report.components["sink_stdout"].message.starts_with("stuck: one write"));
        assert_eq!(not_ready(&facts), Vec::<String>::new());
    }

    /// An outage passes and must restart nobody; an expired token must be seen.
    #[test]
    fn a_held_sink_is_not_ready_and_says_why() {
        let held = [("stdout".to_owned(), "status 401; check the token".to_owned())].into();
        let facts = Facts { held, ..facts() };
        assert_eq!(ready_text(&not_ready(&facts)), "not ready\nsink stdout: status 401; check the token\n");
    }

    #[test]
    fn sources_wait_for_docker_and_it_is_named() {
        let mut facts = Facts { sources_ready: false, ..facts() };
        let away = Health::new(false, "no answer; check dockerd");
        facts.components.insert("docker".to_owned(), away);
        let expected = "not ready\nsources: not listed yet: no answer; check dockerd\n";
        assert_eq!(ready_text(&not_ready(&facts)), expected);
    }

    #[test]
    fn reasons_stand_one_a_line() {
        let sinks = [("local_file".to_owned(), false), ("a\nb".to_owned(), false)].into();
        let facts = Facts { sources_ready: false, sinks, ..facts() };
        assert_eq!(
            ready_text(&not_ready(&facts)),
            "not ready\nsources: not listed yet\nsink a\\nb: has not accepted anything yet\n\
             sink local_file: has not accepted anything yet\n"
        );
    }
}
