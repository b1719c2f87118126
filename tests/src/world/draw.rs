//! The part of a world that a seed decides at its beginning: the config.

use std::sync::Arc;
use std::time::Duration;

use capturer::testing::{
    FileFormat, FileSet, Multiline, MultilineRule, Over, PathPattern, Pattern, Pipeline, RateLimit, ReadFrom,
    Settings, Step,
};

use crate::rand::Rand;

pub(super) fn draw_settings(rand: &mut Rand) -> Settings {
    let mut settings = Settings { shutdown_timeout: Duration::from_secs(60), ..Settings::default() };
    settings.line_bytes_max = *rand.pick(&[1 << 20, 1 << 20, 20_000, 300]);
    settings.buffer_bytes_max = *rand.pick(&[1, 600_000, 4 << 20, 32 << 20]);
    let monitor = &mut settings.container_monitor;
    monitor.read_from = *rand.pick(&[ReadFrom::Auto, ReadFrom::Auto, ReadFrom::Api]);
    monitor.list_interval = Duration::from_secs(rand.within(2..30));
    monitor.reconnect_interval = Duration::from_secs(rand.within(1..10));
    monitor.read_timeout = Duration::from_secs(rand.within(1..20));
    monitor.max_concurrent = rand.index(1..25);
    // Half of the worlds, without a draw that would change all of them.
    monitor.tty.keep_cr = monitor.max_concurrent.is_multiple_of(2);
    monitor.rotation.enabled = rand.chance(3, 4);
    monitor.rotation.interval = Duration::from_secs(rand.within(1..20));
    monitor.rotation.idle_interval = monitor.rotation.interval * 3;
    monitor.rotation.max_concurrent_streams = rand.index(1..8);
    monitor.circuit_breaker.failures = rand.index(1..12);
    monitor.circuit_breaker.pause = Duration::from_secs(rand.within(1..10));
    for set in 0..rand.within(0..3) {
        let pattern = PathPattern::new(&format!("/logs/{set}/*.log")).expect("a fixed pattern");
        let format = *rand.pick(&[FileFormat::Auto, FileFormat::Raw, FileFormat::Docker, FileFormat::Cri]);
        settings.file_monitor.files.push(FileSet { paths: vec![pattern], format, ..FileSet::default() });
    }
    if rand.chance(1, 2) {
        settings.pipelines.push(Arc::new(draw_pipeline(rand)));
    }
    // Quiet files are closed and opened again.
    if rand.chance(1, 2) {
        settings.file_monitor.max_open = rand.index(1..4);
        settings.file_monitor.close_idle_after = Duration::from_millis(rand.within(2_000..10_000));
    }
    settings
}

/// Of everything that a pipeline may ask for, what the core does itself: joining lines, and waiting.
fn draw_pipeline(rand: &mut Rand) -> Pipeline {
    let mut pipeline = Pipeline { name: "drawn".to_owned(), ..Pipeline::default() };
    if rand.chance(3, 4) {
        let pattern = |text: &str| Some(Pattern::new(text).expect("a fixed pattern"));
        let (start, continues) =
            *rand.pick(&[(Some("[0-4]"), None), (None, Some("[05]")), (Some("1"), Some("2"))]);
        pipeline.multiline = Some(Multiline {
            rule: MultilineRule::Patterns {
                start: start.and_then(pattern),
                continues: continues.and_then(pattern),
            },
            timeout: Duration::from_millis(rand.within(10..4_000)),
            lines_max: rand.index(1..60),
            bytes_max: *rand.pick(&[60, 40_000, 1 << 20]),
        });
    }
    if rand.chance(1, 2) {
        pipeline.rate_limit = Some(RateLimit {
            lines: rand.within(100..2_000),
            bytes: *rand.pick(&[0, 100_000, 1 << 20]),
            burst: Duration::from_millis(rand.within(100..5_000)),
            over: Over::Wait,
        });
    }
    // The sinks here run no steps; for the core it is a last batch more.
    if rand.chance(1, 2) {
        pipeline.steps.push(Step::Dedup { window: Duration::from_secs(60) });
    }
    pipeline
}
