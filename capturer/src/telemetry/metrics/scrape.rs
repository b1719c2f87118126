//! Figures that are made when `/metrics` is requested: those of single sources, and of the process. They come from the
//! snapshot that the capture loop makes for the request, so they cost nothing per line, and nothing while nobody
//! scrapes.
//!
//! Sources are an open set. At most `metrics.max_containers` have series of their own, first come, first served; the
//! others share one. A counter adds what its source read since the last scrape, so the shared one does not fall when a
//! source leaves it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::core::Collector as _;

use super::by_source::{LABELS, Labels};
use super::furthest::{Furthest, Read};
use super::{Metrics, OTHER, cap};
use crate::model::packed::Pack;
use crate::telemetry::status::{StreamCounts, StreamRow};

/// States of a stream, as rows name them.
pub(super) const STATES: [&str; 6] = ["found", "opening", "following", "waiting", "draining", "closed"];

/// What the last scrape showed.
#[derive(Default)]
pub(super) struct Sources {
    own: BTreeSet<Labels>,
    other: bool,
    counted: BTreeMap<u32, StreamCounts>,
    /// Keyed by the network sink of an outlet; empty = the sinks on this host.
    read: BTreeMap<Labels, Furthest<Box<str>>>,
}

/// What all streams of one series show together.
#[derive(Default)]
struct Figures {
    added: StreamCounts,
    lag_bytes: Option<u64>,
    lag_ms: u64,
    last_line_age_ms: Option<u64>,
}

impl Figures {
    /// Adds another stream of the same source: the source is as far behind as its slowest outlet.
    fn add(&mut self, row: &StreamRow, added: StreamCounts) {
        self.added = self.added.plus(added);
        self.lag_bytes = self.lag_bytes.max(row.lag_bytes);
        self.lag_ms = self.lag_ms.max(row.now.oldest_unacked_ms.unwrap_or(0));
        self.last_line_age_ms = youngest(self.last_line_age_ms, row.last_line_age_ms);
    }

    /// Adds another source that shares the series: bytes add up, and times are the latest of both.
    fn share(&mut self, other: &Figures) {
        self.added = self.added.plus(other.added);
        let lags = self.lag_bytes.into_iter().chain(other.lag_bytes);
        self.lag_bytes = lags.reduce(|a, b| a + b);
        self.lag_ms = self.lag_ms.max(other.lag_ms);
        self.last_line_age_ms = youngest(self.last_line_age_ms, other.last_line_age_ms);
    }
}

fn youngest(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    a.into_iter().chain(b).min()
}

impl Sources {
    /// Creates entries that stay before anything that is needed only for a moment. Otherwise they would lie between
    /// short-lived memory, and an agent with tens of thousands of sources would keep megabytes that are mostly free.
    /// Existing entries are not touched.
    fn make_room(&mut self, rows: &[&StreamRow]) {
        let known = self.counted.len() + self.read.len();
        for row in rows {
            // What was carried into a new run's stream was counted in the run before.
            self.counted.entry(row.id).or_insert(row.now.carried);
            self.read.entry(labels(row)).or_default();
        }
        if self.counted.len() + self.read.len() > known {
            self.counted.pack();
            self.read.pack();
        }
        if self.counted.len() > rows.len() {
            let ids: BTreeSet<u32> = rows.iter().map(|row| row.id).collect();
            self.counted.retain(|id, _| ids.contains(id));
        }
    }

    /// Sorts the rows into series, and returns how many sources share one. If every source has a row, sources without
    /// one are removed.
    fn sort(
        &mut self,
        rows: &[StreamRow],
        all_listed: bool,
        sources_max: usize,
        network_sinks: &BTreeSet<String>,
    ) -> (BTreeMap<Labels, Figures>, usize) {
        // Sorted rows take a pointer each; tables by labels some hundred bytes.
        let mut rows: Vec<&StreamRow> = rows.iter().collect();
        rows.sort_unstable_by(|a, b| (names(a), a.id).cmp(&(names(b), b.id)));
        let by_source = || rows.chunk_by(|a, b| names(a) == names(b));
        if all_listed {
            let is_there = |labels: &Labels| {
                rows.binary_search_by(|row| names(row).cmp(&labels.each_ref().map(|label| &**label))).is_ok()
            };
            self.own.retain(is_there);
            self.read.retain(|labels, _| is_there(labels));
        }
        for of_source in by_source() {
            if self.own.len() >= sources_max {
                break;
            }
            self.own.insert(labels(of_source[0]));
        }
        self.make_room(&rows);
        let (other, mut in_other) = (other(), 0);
        let mut series: BTreeMap<Labels, Figures> = BTreeMap::new();
        for of_source in by_source() {
            let labels = labels(of_source[0]);
            let figures = self.figures(&labels, of_source, network_sinks);
            let is_own = self.own.contains(&labels);
            in_other += usize::from(!is_own);
            series.entry(if is_own { labels } else { other.clone() }).or_default().share(&figures);
        }
        (series, in_other)
    }

    /// What the streams of one source show together.
    fn figures(&mut self, labels: &Labels, rows: &[&StreamRow], network_sinks: &BTreeSet<String>) -> Figures {
        let mut figures = Figures::default();
        for row in rows {
            let counted = self.counted.entry(row.id).or_insert(row.now.carried);
            let added = row.counts.since(std::mem::replace(counted, row.counts));
            let network = row.sinks.iter().find(|sink| network_sinks.contains(*sink));
            let network = network.map(|sink| sink.as_str().into()).unwrap_or_default();
            let read = Read { lines: added.lines, bytes: added.bytes, truncated: 0 };
            let news = self.read.entry(labels.clone()).or_default().read(network, read);
            figures.add(row, StreamCounts { lines: news.lines, bytes: news.bytes, ..added });
        }
        figures
    }
}

fn labels(row: &StreamRow) -> Labels {
    if row.container_id.is_empty() {
        [Arc::default(), Arc::default(), capped(&row.name)]
    } else {
        [capped(&row.container_id), capped(&row.name), Arc::default()]
    }
}

/// Label values without shared ownership.
fn names(row: &StreamRow) -> [&str; 3] {
    if row.container_id.is_empty() {
        ["", "", cap(&row.name)]
    } else {
        [cap(&row.container_id), cap(&row.name), ""]
    }
}

fn capped(text: &Arc<str>) -> Arc<str> {
    let short = cap(text);
    if short.len() == text.len() { Arc::clone(text) } else { short.into() }
}

fn other() -> Labels {
    [OTHER.into(), OTHER.into(), Arc::default()]
}

impl Metrics {
    /// Updates the series of single sources from these rows, which are `age_ms` old. Until all sources are listed, at
    /// the start of a run, a source without a row keeps its series.
    pub fn show_sources(&self, rows: &[StreamRow], age_ms: u64, all_listed: bool) {
        let network_sinks = self.network_sinks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let sources_max = self.containers.lock().unwrap_or_else(PoisonError::into_inner).containers_max;
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let before = sources.own.clone();
        let (series, in_other) = sources.sort(rows, all_listed, sources_max, &network_sinks);
        before.difference(&sources.own).for_each(|gone| self.forget_source(gone));
        if in_other == 0 && all_listed && std::mem::take(&mut sources.other) {
            self.forget_source(&other());
        }
        sources.other |= in_other > 0;
        self.sources_in_other.set(in_other as i64);
        let taken_ms = unix_ms().saturating_sub(u128::from(age_ms));
        series.iter().for_each(|(labels, figures)| self.show_source(labels, figures, taken_ms));
        for state in STATES {
            let there = rows.iter().filter(|row| row.outlet == 0 && row.state == state).count();
            self.streams.with_label_values(&[state]).set(there as i64);
        }
    }

    fn show_source(&self, labels: &Labels, figures: &Figures, taken_ms: u128) {
        let StreamCounts { lines, bytes, losses, lost_bytes, rotations: _, read_timeouts: _ } = figures.added;
        self.source_lines_total.add(labels, lines);
        self.source_bytes_total.add(labels, bytes);
        self.source_losses_total.add(labels, losses);
        self.source_lost_bytes_total.add(labels, lost_bytes);
        self.source_lag_seconds.set(labels, Some(figures.lag_ms as f64 / 1000.0));
        self.source_lag_bytes.set(labels, figures.lag_bytes.map(|lag| lag as f64));
        let last_line_at = |age_ms: u64| taken_ms.saturating_sub(u128::from(age_ms)) as f64 / 1000.0;
        self.source_last_line_timestamp_seconds.set(labels, figures.last_line_age_ms.map(last_line_at));
    }

    fn forget_source(&self, labels: &Labels) {
        self.forget_series(&LABELS, &labels.each_ref().map(|label| &**label));
    }

    /// Lines that a sink acknowledged; for a network sink also lines that its server accepted.
    pub fn lines_of(&self, sink: &str) -> (u64, Option<u64>) {
        let network = self.network_sinks.lock().unwrap_or_else(PoisonError::into_inner).contains(sink);
        let pushed = network.then(|| self.pushed_lines_total.with_label_values(&[sink]).get());
        (self.logs_sent_total.with_label_values(&[sink]).get(), pushed)
    }

    /// Updates the figures of the process and of sinks' deliveries.
    pub fn show_process(&self) {
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let used = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
        self.process_cpu_seconds_total.inc_by((used - self.process_cpu_seconds_total.get()).max(0.0));
        let network = self.network_sinks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for metric in self.logs_sent_total.collect().iter().flat_map(|family| family.get_metric()) {
            let Some(sink) = metric.get_label().first().map(|label| label.value().to_owned()) else {
                continue;
            };
            let brought = if network.contains(&sink) {
                self.pushed_lines_total.with_label_values(&[&sink]).get()
            } else {
                metric.get_counter().get_value() as u64
            };
            let delivered = self.delivered_lines_total.with_label_values(&[&sink]);
            delivered.inc_by(brought.saturating_sub(delivered.get()));
        }
    }
}

fn unix_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: u32, name: &str, lines: u64) -> StreamRow {
        StreamRow {
            id,
            container_id: format!("id-{name}").into(),
            name: name.into(),
            state: "following",
            counts: StreamCounts { lines, bytes: 10 * lines, ..StreamCounts::default() },
            lag_bytes: Some(lines),
            ..StreamRow::default()
        }
    }

    fn samples(metrics: &Metrics, name: &str) -> BTreeMap<String, f64> {
        let start = format!("log_capturer_{name}{{");
        let text = metrics.encode();
        let lines = text.lines().filter_map(|line| line.strip_prefix(&start)?.split_once("} "));
        let name = |labels: &str| labels.split('"').nth(3).unwrap_or_default().to_owned();
        lines.map(|(labels, value)| (name(labels), value.parse().unwrap())).collect()
    }

    #[test]
    fn sources_past_the_limit_share_a_series_that_never_falls() {
        let metrics = Metrics::new(2).unwrap();
        let rows: Vec<StreamRow> = (0..5).map(|id| row(id, &format!("c{id}"), 100)).collect();
        metrics.show_sources(&rows, 0, true);
        let expected = [("c0", 100.0), ("c1", 100.0), ("other", 300.0)];
        let expected: BTreeMap<String, f64> =
            expected.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        assert_eq!(samples(&metrics, "source_lines_total"), expected);
        assert_eq!(samples(&metrics, "source_lag_bytes"), expected);
        assert_eq!(metrics.sources_in_other.get(), 3);
        // One of the others goes, one stays.
        metrics.show_sources(&[row(0, "c0", 100), row(1, "c1", 100), row(4, "c4", 130)], 0, true);
        assert_eq!(samples(&metrics, "source_lines_total")["other"], 330.0);
        assert_eq!(samples(&metrics, "source_lag_bytes")["other"], 130.0);
    }

    #[test]
    fn sources_that_went_leave_nothing() {
        let metrics = Metrics::new(1).unwrap();
        for round in 0..300 {
            let rows = [row(2 * round, &format!("a{round}"), 5), row(2 * round + 1, &format!("b{round}"), 5)];
            metrics.show_sources(&rows, 0, true);
        }
        metrics.show_sources(&[], 0, true);
        assert!(!metrics.encode().contains("log_capturer_source_"), "{}", metrics.encode());
    }

    /// Metrics of an agent with Loki.
    fn with_loki(sources_max: usize) -> Metrics {
        let metrics = Metrics::new(sources_max).unwrap();
        metrics.expect_network_sink("loki");
        metrics
    }

    /// A row of the outlet that is for Loki.
    fn loki_row(id: u32, name: &str, lines: u64) -> StreamRow {
        StreamRow { outlet: 1, sinks: ["loki".to_owned()].into(), ..row(id, name, lines) }
    }

    /// Each outlet reads the source for itself.
    #[test]
    fn a_source_that_two_outlets_read_counts_once_and_is_as_late_as_the_slower() {
        let metrics = with_loki(9);
        let mut slow = StreamRow { lag_bytes: Some(700), ..loki_row(2, "web", 40) };
        slow.now.oldest_unacked_ms = Some(2_500);
        metrics.show_sources(&[row(1, "web", 100), slow], 0, true);
        assert_eq!(samples(&metrics, "source_lines_total")["web"], 100.0);
        assert_eq!(samples(&metrics, "source_bytes_total")["web"], 1000.0);
        assert_eq!(samples(&metrics, "source_lag_bytes")["web"], 700.0);
        assert_eq!(samples(&metrics, "source_lag_seconds")["web"], 2.5);
        // The first outlet waits for its sink; what the other one reads counts.
        let ahead = loki_row(2, "web", 300);
        metrics.show_sources(&[row(1, "web", 100), ahead], 0, true);
        assert_eq!(samples(&metrics, "source_lines_total")["web"], 300.0);
        let ahead = loki_row(2, "web", 300);
        metrics.show_sources(&[row(1, "web", 310), ahead], 0, true);
        assert_eq!(samples(&metrics, "source_lines_total")["web"], 310.0);
    }

    /// Also in the series that sources share.
    #[test]
    fn a_source_that_two_outlets_read_is_behind_once_in_other() {
        let metrics = with_loki(0);
        let slow = StreamRow { lag_bytes: Some(700), ..loki_row(2, "web", 40) };
        metrics.show_sources(&[row(1, "web", 100), slow, row(3, "db", 5)], 0, true);
        assert_eq!(samples(&metrics, "source_lag_bytes")["other"], 705.0);
        assert_eq!(samples(&metrics, "source_lines_total")["other"], 105.0);
    }

    #[test]
    fn a_spool_is_no_delivery() {
        let metrics = Metrics::new(9).unwrap();
        ["local_file", "loki"].into_iter().for_each(|sink| metrics.expect_sink(sink));
        metrics.expect_network_sink("loki");
        for sink in ["local_file", "loki"] {
            metrics.logs_sent_total.with_label_values(&[sink]).inc_by(50);
        }
        metrics.pushed_lines_total.with_label_values(&["loki"]).inc_by(3);
        metrics.show_process();
        let delivered = |sink| metrics.delivered_lines_total.with_label_values(&[sink]).get();
        assert_eq!((delivered("local_file"), delivered("loki")), (50, 3));
        assert!(metrics.process_cpu_seconds_total.get() > 0.0);
    }
}
