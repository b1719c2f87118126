//! Figures of `/metrics` that `capturer top` shows. Pure.

use std::collections::BTreeMap;

use super::bytes;
use crate::text::age::age_text;

/// Lines in a spool that are older than this wait for more than a request.
const SPOOL_WAITS_SECS: f64 = 5.0;

/// What waits in spools for longer than a request takes. `waits_for` says for what, in the agent's words.
pub(super) fn spools<'a>(metrics: &str, waits_for: &dyn Fn(&str) -> Option<&'a str>) -> Vec<String> {
    let gauge = |name: &str, sink: &str| -> Option<f64> {
        let sample = format!("log_capturer_{name}{{sink=\"{sink}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&sample)?.parse().ok())
    };
    let sinks = metrics.lines().filter_map(|line| {
        Some(line.strip_prefix("log_capturer_spool_lag_seconds{sink=\"")?.split_once("\"} ")?.0)
    });
    let told = sinks.filter_map(|sink| {
        let (age, size) = (gauge("spool_lag_seconds", sink)?, gauge("spool_bytes", sink)?);
        let share = 100.0 * size / gauge("spool_limit_bytes", sink)?.max(1.0);
        let waits_for = waits_for(sink).map(|what| format!(" and waits for {what}")).unwrap_or_default();
        (age >= SPOOL_WAITS_SECS).then(|| {
            format!(
                "spool of {sink}: {share:.1} % full ({}), its oldest line is {} old{waits_for}",
                bytes(Some(size as u64)),
                age_text(age as u64)
            )
        })
    });
    told.collect()
}

pub(super) fn captured(metrics: &str) -> u64 {
    let count = |line: &str| line.strip_prefix("log_capturer_logs_processed_total ")?.parse().ok();
    metrics.lines().find_map(count).unwrap_or(0)
}

pub(super) fn losses(metrics: &str) -> u64 {
    let of = |line: &str| line.strip_prefix("log_capturer_losses_total{")?.rsplit_once(' ')?.1.parse().ok();
    metrics.lines().filter_map(of).map(|count: f64| count as u64).sum()
}

/// What each sink delivered. For a network sink: what its server accepted, not what is in its spool.
pub(super) fn by_sink(metrics: &str) -> BTreeMap<String, u64> {
    let samples = |name: &'static str| {
        metrics.lines().filter_map(move |line| {
            let (sink, count) = line.strip_prefix(name)?.strip_prefix("{sink=\"")?.split_once("\"} ")?;
            Some((sink.to_owned(), count.parse().ok()?))
        })
    };
    samples("log_capturer_logs_sent_total").chain(samples("log_capturer_pushed_lines_total")).collect()
}
