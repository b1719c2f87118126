//! Once a second: logs what is stuck, and when it works again, on a thread that does not get stuck with it. The words
//! are those of `/health`. Not here: what a component reports itself; it logs that on its own.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use super::health::{self, CAPTURE_LOOP, Facts};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::status::Status;
use crate::text::over::over;

/// Pause between two looks.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Watches components with a beat; see the head of this file.
pub struct Watchdog {
    status: Arc<Status>,
    metrics: Arc<Metrics>,
    /// Since when each stuck component has been stuck.
    stuck: BTreeMap<String, u64>,
    steps: BTreeMap<String, u64>,
}

/// What is new about a component.
#[derive(Debug, PartialEq, Eq)]
enum StuckChange {
    /// It is stuck: the message of `/health`.
    Stuck(String, String),
    /// It works again, and was stuck for so many seconds.
    GoesOn(String, u64),
}

impl Watchdog {
    /// Nothing hangs yet.
    pub fn new(status: Arc<Status>, metrics: Arc<Metrics>) -> Watchdog {
        Watchdog { status, metrics, stuck: BTreeMap::new(), steps: BTreeMap::new() }
    }

    /// Looks, and logs what is new.
    pub fn look(&mut self) {
        #[cfg(feature = "test-faults")]
        crate::faults::here();
        self.metrics.heartbeat("admin");
        for (component, (_, steps)) in self.status.beats() {
            let before = self.steps.insert(component.clone(), steps).unwrap_or(0);
            // A reload may have removed the component and added it again, with a new count.
            self.metrics.heartbeats(&component, steps.checked_sub(before).unwrap_or(steps));
        }
        for news in judge(&Facts::of(&self.status), &mut self.stuck, self.status.elapsed_ms()) {
            match news {
                StuckChange::Stuck(component, message) => tracing::error!(component, "{message}"),
                StuckChange::GoesOn(component, seconds) => {
                    tracing::info!(component, "{}", over(seconds, "stuck"))
                }
            }
        }
    }
}

/// Components that are watched from outside, compared with those in `stuck` before.
fn judge(facts: &Facts, stuck: &mut BTreeMap<String, u64>, now_ms: u64) -> Vec<StuckChange> {
    let watched = |component: &str| component == CAPTURE_LOOP || facts.steps_ms.contains_key(component);
    let mut news = Vec::new();
    for (component, health) in health::report(facts).components {
        if !watched(&component) {
            continue;
        }
        let is_stuck = health::is_stuck(facts, &component);
        if is_stuck {
            if let Entry::Vacant(new) = stuck.entry(component.clone()) {
                new.insert(now_ms);
                news.push(StuckChange::Stuck(component, health.message));
            }
        } else if let Some(since_ms) = stuck.remove(&component) {
            news.push(StuckChange::GoesOn(component, now_ms.saturating_sub(since_ms) / 1000));
        }
    }
    news
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::status::Health;

    #[test]
    fn what_hangs_is_said_once_and_so_is_its_end() {
        let mut facts = Facts { sources_ready: true, ..Facts::default() };
        let well = Health::new(true, "accepts records");
        facts.components.insert("sink_stdout".to_owned(), well);
        let mut stuck = BTreeMap::new();
        assert_eq!(judge(&facts, &mut stuck, 1_000), []);
        facts.steps_ms.insert("sink_stdout".to_owned(), health::STEP_AGE_MAX_MS + 1);
        facts.capture_beat_age_ms = health::CAPTURE_BEAT_AGE_MAX_MS + 1;
        let said: Vec<String> = judge(&facts, &mut stuck, 2_000)
            .into_iter()
            .map(|news| match news {
                StuckChange::Stuck(component, message) if message.starts_with("stuck: ") => component,
                news => panic!("{news:?}"),
            })
            .collect();
        assert_eq!(said, [CAPTURE_LOOP, "sink_stdout"]);
        facts.steps_ms.insert("sink_stdout".to_owned(), health::STEP_AGE_MAX_MS + 5_000);
        assert_eq!(judge(&facts, &mut stuck, 7_000), []);
        facts.steps_ms.insert("sink_stdout".to_owned(), 0);
        let over = [StuckChange::GoesOn("sink_stdout".to_owned(), 12)];
        assert_eq!(judge(&facts, &mut stuck, 14_000), over);
        // A message that only begins like ours means nothing.
        facts.components.insert("sink_stdout".to_owned(), Health::new(false, "stuck: in its own words"));
        assert_eq!(judge(&facts, &mut stuck, 15_000), []);
    }

    #[test]
    fn steps_are_counted_where_they_end() {
        let status = Arc::new(Status::default());
        let metrics = Arc::new(Metrics::new(1).expect("the metrics are fixed"));
        let mut watchdog = Watchdog::new(Arc::clone(&status), Arc::clone(&metrics));
        let beat = status.beat("sink_stdout");
        drop(beat.step());
        let under_way = beat.step();
        watchdog.look();
        watchdog.look();
        drop(under_way);
        let text = metrics.encode();
        assert!(text.contains("task_heartbeats_total{task=\"sink_stdout\"} 1\n"), "{text}");
        assert!(text.contains("task_heartbeats_total{task=\"admin\"} 2\n"), "{text}");
    }
}
