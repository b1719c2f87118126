//! The catalog, and that series come and go as they should.

use std::sync::Arc;

use super::*;
use crate::settings::Pipeline;
use crate::settings::pipeline::Step;

fn metrics() -> Metrics {
    Metrics::new(2).expect("the catalog is valid")
}

/// The exposition's lines of one metric, without its comments.
fn samples(metrics: &Metrics, name: &str) -> Vec<String> {
    let text = metrics.encode();
    text.lines().filter(|line| line.starts_with(&format!("{PREFIX}{name}"))).map(str::to_owned).collect()
}

/// After a reload nothing counts for a pipeline that no longer exists.
#[test]
fn series_of_a_gone_pipeline_sink_or_step_go() {
    let metrics = Metrics::new(10).unwrap();
    let pipeline = |name: &str, step: Step| {
        Arc::new(Pipeline { name: name.to_owned(), steps: vec![step], ..Pipeline::default() })
    };
    let sample = || Step::Sample { keep_one_in: 2 };
    let dedup = || Step::Dedup { window: std::time::Duration::from_secs(1) };
    let (stays, goes) = (pipeline("stays", sample()), pipeline("goes", sample()));
    for sink in ["loki", "stdout"] {
        metrics.expect_pipelines(sink, &[stays.clone(), goes.clone(), pipeline("stays", dedup())]);
    }
    metrics.keep_pipelines(&["loki"], &[stays]);
    let text = metrics.encode();
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("pipeline=")).collect();
    assert!(!lines.is_empty());
    for line in lines {
        for label in ["pipeline=\"stays\"", "sink=\"loki\""] {
            assert!(line.contains(label), "{line}");
        }
        assert!(!line.contains("step=") || line.contains("step=\"sample\""), "{line}");
    }
}

/// Otherwise a metric could be scraped but missing from the reference page, or the reverse.
#[test]
fn registered_metrics_and_catalog_are_the_same() {
    let metrics = metrics();
    // A vector without series is not gathered.
    metrics.expect_sink("local_file");
    metrics.expect_network_sink("loki");
    let steps = vec![Step::Sample { keep_one_in: 2 }];
    metrics.expect_pipelines("loki", &[Arc::new(Pipeline { steps, ..Pipeline::default() })]);
    metrics.rotation("0123", "web");
    let row = crate::telemetry::status::StreamRow {
        lag_bytes: Some(1),
        last_line_age_ms: Some(1),
        ..crate::telemetry::status::StreamRow::default()
    };
    metrics.show_sources(&[row], 0, true);
    metrics.heartbeat("capture");
    metrics.component_health.with_label_values(&["docker"]).set(1);
    metrics.probe_tier.with_label_values(&["none"]).set(1);
    let mut registered = Vec::new();
    metrics.each_family(|family| registered.push(family.name().to_owned()));
    let mut catalog: Vec<&str> = CATALOG.iter().map(|entry| entry.name).collect();
    registered.sort();
    catalog.sort();
    assert_eq!(registered, catalog);
    let text = metrics.encode();
    for entry in CATALOG {
        let type_line = format!("# TYPE {} {}\n", entry.name, entry.kind.as_str());
        assert!(text.contains(&type_line), "{type_line}");
    }
}

/// Driven by the catalog's labels, so that a new metric by source or sink can't be forgotten.
#[test]
fn whatever_is_by_source_or_by_sink_comes_and_goes_with_it() {
    let metrics = metrics();
    let with = |label: &str, value: &str| -> BTreeSet<&str> {
        let text = metrics.encode();
        let label = format!("{label}=\"{value}\"");
        let has = |entry: &&Entry| {
            text.lines().any(|line| {
                let rest = line.strip_prefix(entry.name).filter(|_| line.contains(&label));
                rest.is_some_and(|rest| ["{", "_bucket{"].iter().any(|start| rest.starts_with(start)))
            })
        };
        CATALOG.iter().filter(has).map(|entry| entry.name).collect()
    };
    let labelled = |label: &str| -> BTreeSet<&str> {
        CATALOG.iter().filter(|entry| entry.labels.contains(&label)).map(|entry| entry.name).collect()
    };

    let row = crate::telemetry::status::StreamRow {
        name: "/var/log/x".into(),
        lag_bytes: Some(1),
        last_line_age_ms: Some(1),
        ..crate::telemetry::status::StreamRow::default()
    };
    metrics.show_sources(&[row], 0, true);
    assert_eq!(with("path", "/var/log/x"), labelled("path"));
    assert!(CATALOG.iter().all(|entry| !entry.labels.contains(&"path") || entry.labels == by_source::LABELS));
    metrics.show_sources(&[], 0, true);
    assert_eq!(with("path", "/var/log/x"), BTreeSet::new());

    metrics.expect_sink("loki");
    metrics.expect_network_sink("loki");
    let steps = vec![Step::Sample { keep_one_in: 2 }];
    metrics.expect_pipelines("loki", &[Arc::new(Pipeline { steps, ..Pipeline::default() })]);
    assert_eq!(with("sink", "loki"), labelled("sink"));
    metrics.forget_sink("loki");
    metrics.keep_pipelines(&[], &[]);
    assert_eq!(with("sink", "loki"), BTreeSet::new());

    metrics.rotation("0123", "web");
    let of_container = labelled("container_id").difference(&labelled("path")).copied().collect();
    assert_eq!(with("container_id", "0123"), of_container);
    metrics.forget_container("0123");
    assert_eq!(with("container_id", "0123"), BTreeSet::new());
}

/// <https://prometheus.io/docs/practices/naming>: base units, `_total` for counters and for nothing else.
#[test]
fn names_follow_the_conventions() {
    for entry in CATALOG {
        let name = entry.name;
        let bare = name.strip_prefix(PREFIX).expect("prefix");
        assert!(bare.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
        assert_eq!(name.ends_with("_total"), entry.kind == Kind::Counter, "{name}");
        assert_eq!(bare.contains("bytes"), entry.unit == Unit::Bytes, "{name}");
        assert_eq!(bare.contains("seconds"), entry.unit == Unit::Seconds, "{name}");
        assert!(!bare.contains("_ms") && !bare.contains("kilo") && !bare.contains("minutes"), "{name}");
        assert!(entry.help.ends_with('.'), "{name}: help is a sentence");
    }
}

#[test]
fn closed_sets_begin_at_zero() {
    let metrics = metrics();
    assert_eq!(samples(&metrics, "container_stream_errors_total").len(), StreamError::ALL.len());
    assert!(
        samples(&metrics, "lost_bytes_total")
            .contains(&"log_capturer_lost_bytes_total{reason=\"file_gone_unread\"} 0".to_owned())
    );
    metrics.stream_error(StreamError::PoolFull);
    assert!(metrics.encode().contains("container_stream_errors_total{error_type=\"pool_full\"} 1\n"));
}

/// The reference page lists the values of every label whose series exist from the start.
#[test]
fn every_closed_set_is_listed() {
    let metrics = metrics();
    metrics.expect_sink("loki");
    metrics.expect_network_sink("loki");
    metrics.show_sources(&[], 0, true);
    let mut there = BTreeMap::<(String, String), BTreeSet<String>>::new();
    metrics.each_family(|family| {
        let name = family.name().strip_prefix(PREFIX).expect("our prefix").to_owned();
        for metric in family.get_metric() {
            for pair in metric.get_label().iter().filter(|pair| pair.name() != "sink") {
                there
                    .entry((name.clone(), pair.name().to_owned()))
                    .or_default()
                    .insert(pair.value().to_owned());
            }
        }
    });
    let several = there.into_iter().filter(|(_, values)| values.len() > 1);
    let listed = closed_sets().into_iter().map(|(name, label, values)| {
        ((name.to_owned(), label.to_owned()), values.into_iter().map(str::to_owned).collect())
    });
    assert_eq!(several.collect::<BTreeMap<_, _>>(), listed.collect::<BTreeMap<_, BTreeSet<_>>>());
}

/// Otherwise a host that starts a container a minute would gain series for ever.
#[test]
fn container_series_are_bounded_and_removed() {
    let metrics = metrics();
    for id in ["a", "b", "c", "d"] {
        metrics.rotation(id, "web");
    }
    metrics.rotation("a", "web");
    let name = "container_stream_rotations_total";
    assert_eq!(
        samples(&metrics, name),
        [
            "log_capturer_container_stream_rotations_total{container_id=\"a\",container_name=\"web\"} 2",
            "log_capturer_container_stream_rotations_total{container_id=\"b\",container_name=\"web\"} 1",
            "log_capturer_container_stream_rotations_total{container_id=\"other\",container_name=\"other\"} 2",
        ]
    );
    metrics.forget_container("a");
    metrics.forget_container("never seen");
    metrics.rotation("c", "web");
    assert_eq!(samples(&metrics, name).len(), 3);
    assert!(!metrics.encode().contains("container_id=\"a\""));
}

/// Otherwise a sink that a reload removed would be scraped for ever, and raise alarms.
#[test]
fn a_sink_that_is_gone_leaves_no_series() {
    let metrics = metrics();
    metrics.expect_sink("local_file");
    let before = metrics.encode();
    metrics.expect_sink("loki");
    metrics.expect_network_sink("loki");
    metrics.heartbeat("sink_loki");
    metrics.heartbeat("loki_push");
    metrics.forget_sink("loki");
    assert_eq!(metrics.encode(), before);
    metrics.rotation("a", "web");
    metrics.rotation("b", "db");
    metrics.retain_containers(|id| id == "b");
    assert_eq!(samples(&metrics, "container_stream_rotations_total").len(), 1);
}

#[test]
fn a_renamed_container_has_one_series() {
    let metrics = metrics();
    metrics.rotation("a", "old");
    metrics.rotation("a", "new");
    assert_eq!(
        samples(&metrics, "container_stream_rotations_total"),
        ["log_capturer_container_stream_rotations_total{container_id=\"a\",container_name=\"new\"} 2"]
    );
    metrics.forget_container("a");
    assert!(samples(&metrics, "container_stream_rotations_total").is_empty());
}

#[test]
fn hostile_names_are_capped_between_characters() {
    let metrics = metrics();
    let name = "é".repeat(40_000);
    metrics.rotation("a", &name);
    let line = samples(&metrics, "container_stream_rotations_total").remove(0);
    assert_eq!(line.matches('é').count(), LABEL_BYTES_MAX / 2);
    assert_eq!(cap(&format!("x{name}")).len(), LABEL_BYTES_MAX - 1);
    metrics.rotation("b", "quote\" newline\n");
    assert!(metrics.encode().contains("container_name=\"quote\\\" newline\\n\""));
}
