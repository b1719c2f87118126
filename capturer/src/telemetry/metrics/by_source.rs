//! Metrics with a series for each source. The prometheus crate's vectors keep a name, a help text and the labels for
//! each series, some 800 bytes; with hundreds of sources that was most of what a scrape cost. These keep one number per
//! series, and share the labels.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, LabelPair, MetricFamily, MetricType};

use super::kinds::{Entry, Kind, Make};

/// Labels of a metric by source.
pub(super) const LABELS: [&str; 3] = ["container_id", "container_name", "path"];
/// Label values, shared with the rows where these have them.
pub(super) type Labels = [Arc<str>; 3];

/// A counter for each source.
#[derive(Clone)]
pub struct SourceCounter(Series);

/// A gauge for each source.
#[derive(Clone)]
pub struct SourceGauge(Series);

#[derive(Clone)]
struct Series {
    desc: Arc<Desc>,
    kind: MetricType,
    values: Arc<Mutex<BTreeMap<Labels, f64>>>,
}

impl SourceCounter {
    /// Exact up to 2^53.
    pub(super) fn add(&self, labels: &Labels, more: u64) {
        *self.0.lock().entry(labels.clone()).or_default() += more as f64;
    }
}

impl SourceGauge {
    /// `None` = the source has no such number now.
    pub(super) fn set(&self, labels: &Labels, value: Option<f64>) {
        match value {
            Some(value) => drop(self.0.lock().insert(labels.clone(), value)),
            None => drop(self.0.lock().remove(labels)),
        }
    }
}

impl Series {
    fn new(entry: &Entry, kind: MetricType) -> prometheus::Result<Series> {
        let labels = entry.labels.iter().map(|label| (*label).to_owned()).collect();
        let desc = Desc::new(entry.name.to_owned(), entry.help.to_owned(), labels, HashMap::new())?;
        Ok(Series { desc: Arc::new(desc), kind, values: Arc::default() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Labels, f64>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, values: &[&str]) {
        self.lock().retain(|labels, _| !labels.iter().map(|label| &**label).eq(values.iter().copied()));
    }

    fn sample(&self, labels: &Labels, value: f64) -> proto::Metric {
        let pair = |(name, value): (&&str, &Arc<str>)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value(value.as_ref().to_owned());
            pair
        };
        let mut metric = proto::Metric::from_label(LABELS.iter().zip(labels).map(pair).collect());
        if self.kind == MetricType::COUNTER {
            let mut counter = proto::Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        metric
    }

    fn family(&self) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(self.kind);
        let samples = self.lock().iter().map(|(labels, value)| self.sample(labels, *value)).collect();
        family.set_metric(samples);
        family
    }
}

macro_rules! by_source {
    ($type:ident, $kind:ident, $metric_type:ident) => {
        impl Make for $type {
            const KIND: Kind = Kind::$kind;

            fn make(entry: &Entry) -> prometheus::Result<Self> {
                Series::new(entry, MetricType::$metric_type).map($type)
            }

            fn forget(&self, values: &[&str]) {
                self.0.forget(values);
            }
        }

        impl Collector for $type {
            fn desc(&self) -> Vec<&Desc> {
                vec![&self.0.desc]
            }

            fn collect(&self) -> Vec<MetricFamily> {
                vec![self.0.family()]
            }
        }
    };
}

by_source!(SourceCounter, Counter, COUNTER);
by_source!(SourceGauge, Gauge, GAUGE);
