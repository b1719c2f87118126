//! When patterns are looked at.

use std::sync::Arc;

use super::*;
use crate::capture::io::Event;
use crate::settings::{FileMonitor, Settings};
use crate::telemetry::metrics::Metrics;

struct Scene {
    capture: Capture,
    now: Now,
}

impl Scene {
    fn new() -> Scene {
        let mut settings = Settings {
            file_monitor: FileMonitor { files: vec![FileSet::default()], ..FileMonitor::default() },
            ..Settings::default()
        };
        settings.container_monitor.enabled = false;
        let metrics = Arc::new(Metrics::new(1).unwrap());
        let capture = Capture::new(Arc::new(settings), metrics, Vec::new(), Default::default(), 1);
        Scene { capture, now: Now { mono_ms: 1_000_000, unix_ns: 1_000_000_000_000 } }
    }

    /// How often it is looked, when this happens.
    fn on(&mut self, event: Event) -> usize {
        self.capture.on_event(self.now, event);
        let is_look = |action: &Action| matches!(action, Action::FindPaths { set: 0 });
        self.capture.drain_actions().filter(is_look).count()
    }

    fn changed(&mut self) -> usize {
        self.on(Event::PathsChanged { set: 0 })
    }

    fn found(&mut self) -> usize {
        self.on(Event::PathsFound { set: 0, lane: None, lanes: Vec::new(), paths: Vec::new() })
    }

    fn after(&mut self, ms: u64) -> usize {
        self.now.mono_ms += ms;
        self.on(Event::Tick)
    }
}

/// What came when a look was past it was not seen before the next sweep.
#[test]
fn what_changes_during_a_look_is_looked_at_behind_it() {
    let mut scene = Scene::new();
    assert_eq!(scene.on(Event::Started), 1);
    assert_eq!([scene.changed(), scene.changed()], [0, 0]);
    assert_eq!([scene.found(), scene.found()], [1, 0]);
}

/// However much is made in a large tree, the walks leave room for other work.
#[test]
fn a_look_that_took_long_is_rested_from() {
    let mut scene = Scene::new();
    scene.on(Event::Started);
    assert_eq!((scene.after(500), scene.found()), (0, 0));
    assert_eq!([scene.changed(), scene.changed()], [0, 0]);
    assert_eq!([scene.after(1_999), scene.after(1)], [0, 1]);
    assert_eq!((scene.after(60_000), scene.found()), (0, 0));
    assert_eq!(scene.changed(), 0);
    assert_eq!([scene.after(9_999), scene.after(1)], [0, 1]);
}

#[test]
fn a_sweep_looks_without_being_told() {
    let mut scene = Scene::new();
    scene.on(Event::Started);
    scene.found();
    assert_eq!([scene.after(29_999), scene.after(1)], [0, 1]);
    scene.found();
    assert_eq!([scene.changed(), scene.found()], [1, 0]);
    assert_eq!([scene.after(29_999), scene.after(1)], [0, 1]);
}
