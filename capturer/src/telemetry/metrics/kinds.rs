//! What a metric can be: its type, its unit, and how each type is made from an entry of the list.

use prometheus::core::Collector;
use prometheus::{
    Counter, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts,
};

/// One metric as the reference page shows it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Full name, with the prefix.
    pub name: &'static str,
    /// What it is in the exposition.
    pub kind: Kind,
    /// Names of its labels, in order.
    pub labels: &'static [&'static str],
    /// What the number is in.
    pub unit: Unit,
    /// What it says, in a sentence or two.
    pub help: &'static str,
}

/// Type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    /// As Prometheus writes it in a TYPE line.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// What a metric's number is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A count of things.
    Count,
    Bytes,
    Seconds,
    /// 0 to 1.
    Ratio,
    /// 0 or 1.
    Flag,
}

impl Unit {
    /// For the reference page.
    pub fn as_str(self) -> &'static str {
        match self {
            Unit::Count => "count",
            Unit::Bytes => "bytes",
            Unit::Seconds => "seconds",
            Unit::Ratio => "0 to 1",
            Unit::Flag => "0 or 1",
        }
    }
}

/// Upper bounds of the age histogram: 60 to 360 s as the predecessor had them, and finer ones below.
const AGE_BUCKETS: [f64; 10] = [1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0];

/// Upper bounds of the histogram of pushes: a Loki nearby answers in milliseconds, one that is overloaded in many seconds.
const PUSH_BUCKETS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0];

/// Makes a metric of one type from its entry.
pub(super) trait Make: Collector + Clone + Sized + 'static {
    const KIND: Kind;
    fn make(entry: &Entry) -> prometheus::Result<Self>;
    /// Drops the series with these label values, if it has labels.
    fn forget(&self, values: &[&str]);
}

macro_rules! make {
    ($type:ty, $kind:ident, $entry:ident => $make:expr) => {
        make!($type, $kind, $entry => $make, (_metric, _values) => {});
    };
    ($type:ty [labels], $kind:ident, $entry:ident => $make:expr) => {
        make!($type, $kind, $entry => $make, (metric, values) => drop(metric.remove_label_values(values)));
    };
    ($type:ty, $kind:ident, $entry:ident => $make:expr, ($metric:ident, $values:ident) => $forget:expr) => {
        impl Make for $type {
            const KIND: Kind = Kind::$kind;
            fn make($entry: &Entry) -> prometheus::Result<Self> {
                $make
            }
            fn forget(&self, $values: &[&str]) {
                let $metric = self;
                $forget
            }
        }
    };
}

make!(IntCounter, Counter, entry => IntCounter::new(entry.name, entry.help));
make!(IntCounterVec [labels], Counter, entry => IntCounterVec::new(Opts::new(entry.name, entry.help), entry.labels));
make!(IntGauge, Gauge, entry => IntGauge::new(entry.name, entry.help));
make!(IntGaugeVec [labels], Gauge, entry => IntGaugeVec::new(Opts::new(entry.name, entry.help), entry.labels));
make!(Counter, Counter, entry => Counter::new(entry.name, entry.help));
make!(GaugeVec [labels], Gauge, entry => GaugeVec::new(Opts::new(entry.name, entry.help), entry.labels));
make!(Gauge, Gauge, entry => Gauge::new(entry.name, entry.help));
make!(Histogram, Histogram, entry => {
    Histogram::with_opts(HistogramOpts::new(entry.name, entry.help).buckets(AGE_BUCKETS.to_vec()))
});
make!(HistogramVec [labels], Histogram, entry => {
    let options = HistogramOpts::new(entry.name, entry.help).buckets(PUSH_BUCKETS.to_vec());
    HistogramVec::new(options, entry.labels)
});
