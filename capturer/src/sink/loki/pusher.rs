//! The thread that empties the spool: it waits for the next event (an answer, new records, a deadline), lets
//! [`Delivery`] decide, and carries out its orders. It decides nothing itself.

mod turn;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;

use super::NAME;
use super::answer::{Presence, PushOutcome, Verdict};
use super::client::{Client, Connection};
use super::delivery::{Delivery, LoadedRecord, Now, Order, Refused};
use super::encode::label_set_of;
use super::parcel::Parcel;
use super::summary::{self, Summary};
use crate::decode::timestamp;
use crate::settings::{Loki, Spool};
use crate::sink::backoff::chance;
use crate::sink::dead_letters::{DeadLetters, Letter};
use crate::sink::spool::{Loaded, Position, Read, Reader, format, unix_ms};
use crate::telemetry::metrics::{LossReason, Metrics, PushFailure};
use crate::telemetry::status::Status;
use turn::{LastReport, SpoolTrouble};

/// The component in health that reports on delivery; the sink's own reports on the spool.
const COMPONENT: &str = "sink_loki_delivery";
/// How often the cursor is saved and the gauges are set.
const TURN: Duration = Duration::from_secs(1);
/// How long it continues to deliver at the end. The rest stays in the spool for the next run.
const WIND_UP: Duration = Duration::from_secs(5);
/// But no longer than this without an answer: a Loki that hangs delays no stop.
const WIND_UP_SILENCE: Duration = Duration::from_millis(1_500);
/// How many records are read from the spool before answers are looked at again.
const FILL_RECORDS: usize = 512;
/// The same in bytes.
const FILL_BYTES: usize = 8 * 1024 * 1024;
/// Health is set at once when something goes wrong, but not more often than this.
const TOLD_AGAIN: Duration = Duration::from_millis(100);

/// The thread's other end.
pub(super) struct PushThread {
    signals: Arc<Signals>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Signals {
    wake: Notify,
    stop: AtomicBool,
}

impl PushThread {
    /// The spool has more.
    pub(super) fn wake(&self) {
        self.signals.wake.notify_one();
    }

    /// Delivers what it can within a few seconds and ends.
    pub(super) fn stop(&mut self) {
        self.signals.stop.store(true, Ordering::Relaxed);
        self.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that pushes to Loki panicked");
        }
    }
}

/// Starts the thread that pushes.
pub(super) fn start(
    config: &Loki,
    client: Client,
    reader: Reader,
    letters: DeadLetters,
    metrics: Arc<Metrics>,
    status: Arc<Status>,
) -> io::Result<PushThread> {
    let signals = Arc::<Signals>::default();
    status.set_health(COMPONENT, true, "asking Loki whether it takes lines");
    let pusher = Pusher {
        client: Arc::new(client),
        delivery: Delivery::new(config),
        reader,
        letters,
        metrics,
        status,
        // One more slot, for empty pushes.
        connections: (0..=config.in_flight_max).map(|_| None).collect(),
        under_way: FuturesUnordered::new(),
        signals: Arc::clone(&signals),
        started: Instant::now(),
        last: LastReport::default(),
        told_at: Instant::now(),
        counted_lines: 0,
        summary: Summary::default(),
        failing_read: false,
        spool_trouble: SpoolTrouble::default(),
        letters_looked_at: None,
        oldest_segment: 0,
        spool: config.spool.clone(),
        without_metadata: config.structured_metadata.is_empty(),
        tenant: config.fixed_tenant(),
        tenant_default: config.tenant_default.clone(),
    };
    // One thread of the runtime, which looks up host names, is enough.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(1)
        .build()?;
    let thread = std::thread::Builder::new().name("loki-push".to_owned()).spawn(move || {
        runtime.block_on(pusher.run());
        // A lookup that hangs must not hold up the end.
        runtime.shutdown_background();
    })?;
    Ok(PushThread { signals, thread: Some(thread) })
}

/// A request that ended, and whose connection that was. One slot more than requests: an empty push.
type Ended = (usize, PushOutcome, Option<Connection>, Duration);

struct Pusher {
    client: Arc<Client>,
    delivery: Delivery,
    reader: Reader,
    letters: DeadLetters,
    metrics: Arc<Metrics>,
    status: Arc<Status>,
    connections: Vec<Option<Connection>>,
    under_way: FuturesUnordered<BoxFuture<'static, Ended>>,
    signals: Arc<Signals>,
    started: Instant,
    last: LastReport,
    told_at: Instant,
    /// How many accepted lines the metrics have counted.
    counted_lines: u64,
    summary: Summary,
    failing_read: bool,
    spool_trouble: SpoolTrouble,
    letters_looked_at: Option<Instant>,
    /// The first segment on disk at the last check.
    oldest_segment: u64,
    spool: Spool,
    /// `structured_metadata` is `{}`.
    without_metadata: bool,
    /// Of all lines; `None` = it depends on the line.
    tenant: Option<String>,
    tenant_default: String,
}

impl Pusher {
    async fn run(mut self) {
        let mut turn_at = Instant::now();
        let mut stop_at = None;
        let mut answered_at = Instant::now();
        loop {
            #[cfg(feature = "test-faults")]
            crate::faults::here();
            if self.signals.stop.load(Ordering::Relaxed) && stop_at.is_none() {
                stop_at = Some(Instant::now() + WIND_UP);
                answered_at = Instant::now();
            }
            let has_more = self.fill();
            let idle = !self.carry_out(stop_at.is_some());
            if Instant::now() >= turn_at {
                turn_at = Instant::now() + TURN;
                self.turn();
            }
            let mut wake_at = turn_at;
            if let Some(stop_at) = stop_at {
                let end = stop_at.min(answered_at + WIND_UP_SILENCE);
                if Instant::now() >= end || (idle && !has_more && self.under_way.is_empty()) {
                    break;
                }
                wake_at = wake_at.min(end);
            }
            if has_more {
                wake_at = Instant::now();
            } else if let Some(at) = self.delivery.next_deadline_ms() {
                wake_at = wake_at.min(self.started + Duration::from_millis(at));
            }
            // The one place that waits.
            tokio::select! {
                Some(ended) = self.under_way.next() => {
                    answered_at = Instant::now();
                    self.on_ended(ended);
                }
                () = self.signals.wake.notified() => {}
                () = tokio::time::sleep_until(wake_at.into()) => {}
            }
        }
        self.turn();
        if let Err(error) = self.reader.save() {
            tracing::warn!(
                "loki: saving how far the spool was delivered: {error}; the next start repeats lines"
            );
        }
    }

    fn now(&self) -> Now {
        Now { ms: self.started.elapsed().as_millis() as u64, unix_ns: unix_ms() as i64 * 1_000_000 }
    }

    /// Takes from the spool as much as there is room for. Returns whether there may be more.
    fn fill(&mut self) -> bool {
        let mut bytes = 0;
        for _ in 0..FILL_RECORDS {
            if !self.delivery.has_room() || bytes > FILL_BYTES {
                return bytes > FILL_BYTES;
            }
            match self.reader.read_next() {
                Ok(Read::Record(record, at)) => {
                    bytes += record.block.len();
                    let amount = (record.lines as usize, record.payload_len as usize);
                    let (label_set, tenant) = self.addressee(&record, at);
                    let place = (at, self.reader.lines_done(at));
                    self.delivery.take(self.now(), label_set, &tenant, amount, place);
                }
                Ok(Read::Damaged { file, offset, bytes }) => {
                    self.metrics.lost(LossReason::SpoolDamaged, bytes);
                    tracing::error!(
                        file,
                        offset,
                        bytes,
                        "loki: a part of the spool is unreadable and was passed over; check the disk"
                    );
                }
                Ok(Read::Unfinished { file, bytes }) => {
                    self.metrics.possibly_lost(LossReason::SpoolDamaged);
                    tracing::warn!(
                        file,
                        bytes,
                        "loki: a part of the spool is unreadable: the last record of this file is not whole. If the agent was killed while it wrote, its lines are read from their source again; if the disk damaged it, they are lost"
                    );
                }
                Ok(Read::Missing { file, bytes }) => {
                    self.metrics.lost(LossReason::SpoolDamaged, bytes);
                    tracing::error!(
                        file,
                        bytes,
                        "loki: a file of the spool, or its end, is gone with lines that were not delivered; nobody but the agent may remove files there"
                    );
                }
                Ok(Read::TooOld(record, bytes)) => self.too_old(&record, bytes),
                Ok(Read::Nothing) => {
                    self.failing_read = false;
                    return false;
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.failing_read, true) {
                        tracing::error!("loki: reading the spool: {error}; trying again");
                    }
                    return false;
                }
            }
        }
        true
    }

    /// Label set and tenant of a record, as the config has it now: what Loki refuses for its tenant is put right by
    /// another `tenant_id` or `tenant_default`, and that must count for what waits already.
    fn addressee<'r>(&self, record: &'r format::Record, at: Position) -> (u64, Cow<'r, str>) {
        let now = match &self.tenant {
            Some(fixed) => fixed,
            None if record.tenant.is_empty() => &self.tenant_default,
            None => &record.tenant,
        };
        if *now == record.tenant || !self.reader.is_of_earlier_run(at) {
            return (record.label_set, Cow::Borrowed(&record.tenant));
        }
        (label_set_of(now, &parcel(record.clone()).labels()), Cow::Owned(now.clone()))
    }

    fn too_old(&mut self, record: &format::Record, bytes: u64) {
        self.metrics.lost(LossReason::SpoolTooOld, bytes);
        let cure = "raise sinks.loki.spool.max_age, or see why Loki took nothing for so long";
        let labels = parcel(record.clone()).labels();
        let amount = (u64::from(record.lines), bytes);
        let told = self.summary.add(&labels, (summary::SPOOL_TOO_OLD, cure), amount, "");
        told.into_iter().for_each(|told| tracing::warn!("loki: {told}"));
    }

    /// Returns whether anything was done.
    fn carry_out(&mut self, flush: bool) -> bool {
        let mut busy = false;
        loop {
            let orders = self.delivery.poll(self.now(), flush);
            let mut orders = orders.into_iter().filter(|order| {
                // Nobody waits for the answer of an empty push at a stop.
                !(flush && matches!(order, Order::Probe { .. }))
            });
            let Some(first) = orders.next() else { return busy };
            busy = true;
            for order in std::iter::once(first).chain(orders) {
                match order {
                    Order::Load { slot, places } => self.load(slot, &places),
                    Order::Send { slot, tenant, body, .. } => self.send(slot, tenant, body),
                    Order::Probe { tenant } => {
                        self.send(self.connections.len() - 1, tenant, Parcel::default())
                    }
                    Order::Bury { slot, letters } => {
                        let result = self.bury(&letters);
                        self.delivery.on_buried(self.now(), slot, result, chance());
                    }
                }
            }
            self.forget_done();
        }
    }

    fn load(&mut self, slot: usize, places: &[Position]) {
        let mut records = Vec::with_capacity(places.len());
        for at in places {
            let body = match self.reader.load(*at) {
                Ok(Loaded::Record(record)) if self.without_metadata && self.reader.is_of_earlier_run(*at) => {
                    parcel(record).without_metadata()
                }
                Ok(Loaded::Record(record)) => parcel(record),
                Ok(Loaded::TooOld(record, bytes)) => {
                    self.too_old(&record, bytes);
                    Parcel::default()
                }
                Ok(Loaded::Dropped) => Parcel::default(),
                Ok(Loaded::Lost(bytes)) => {
                    self.metrics.lost(LossReason::SpoolDamaged, bytes);
                    tracing::error!(
                        bytes,
                        "loki: lines of the spool can't be read again and are lost; check the disk"
                    );
                    Parcel::default()
                }
                Err(error) => {
                    self.reader.done(*at);
                    tracing::error!("loki: reading lines of the spool again: {error}; they are lost");
                    Parcel::default()
                }
            };
            records.push(LoadedRecord { body });
        }
        self.delivery.on_loaded(self.now(), slot, records);
    }

    fn send(&mut self, slot: usize, tenant: String, body: Parcel) {
        let client = Arc::clone(&self.client);
        let mut connection = self.connections[slot].take();
        self.metrics.push_requests_total.with_label_values(&[NAME]).inc();
        self.metrics.push_request_bytes_total.with_label_values(&[NAME]).inc_by(body.len() as u64);
        let began = Instant::now();
        self.under_way.push(Box::pin(async move {
            let outcome = client.push(&mut connection, &tenant, &body).await;
            (slot, outcome, connection, began.elapsed())
        }));
    }

    fn on_ended(&mut self, (slot, outcome, connection, took): Ended) {
        self.metrics.push_duration_seconds.with_label_values(&[NAME]).observe(took.as_secs_f64());
        self.connections[slot] = connection;
        let now = self.now();
        if slot + 1 == self.connections.len() {
            match self.delivery.on_probe(now, &outcome, chance()) {
                Presence::Loki | Presence::AsksForTenant { .. } => self.status.sink_accepted(NAME),
                Presence::No { reason, .. } => self.failed(reason),
            }
        } else {
            match self.delivery.on_outcome(now, slot, &outcome, chance()) {
                Verdict::Accepted => self.status.sink_accepted(NAME),
                Verdict::Retry { reason, .. } | Verdict::Hold { reason, .. } => self.failed(reason),
                Verdict::Refused { .. } => {}
            }
            self.forget_done();
        }
        if self.told_at.elapsed() >= TOLD_AGAIN {
            self.tell();
        }
    }

    fn forget_done(&mut self) {
        self.delivery.take_done().into_iter().for_each(|at| self.reader.done(at));
        let accepted = self.delivery.accepted_lines();
        self.metrics.pushed_lines_total.with_label_values(&[NAME]).inc_by(accepted - self.counted_lines);
        self.counted_lines = accepted;
    }

    fn failed(&self, reason: PushFailure) {
        self.metrics.push_failures_total.with_label_values(&[NAME, reason.as_str()]).inc();
    }

    fn bury(&mut self, refused: &[Refused]) -> Result<(), String> {
        let time = timestamp::format(unix_ms() as i64 * 1_000_000);
        let letters: Vec<Letter> = refused.iter().map(|refused| letter(refused, &time)).collect();
        let dropped = self.letters.bury_all(&letters).map_err(|error| {
            self.failed(PushFailure::DeadLettersUnwritable);
            format!("writing refused lines to the dead letters: {error}")
        })?;
        if dropped > 0 {
            self.metrics.lost(LossReason::DeadLettersFull, dropped);
            let cure = "raise sinks.loki.dead_letters.max_size";
            let told = self.summary.add("all", (summary::LETTERS_FULL, cure), (0, dropped), "");
            told.into_iter().for_each(|told| tracing::warn!("loki: {told}"));
        }
        for line in refused {
            let reason = line.reason.as_str();
            self.metrics.dead_letters_total.with_label_values(&[NAME, reason]).inc();
            let what = (reason, summary::cure(line.reason));
            let told = self.summary.add(&line.labels, what, (1, line.entry.line.len() as u64), &line.words);
            told.into_iter().for_each(|told| tracing::warn!("loki: {told}"));
        }
        Ok(())
    }
}

fn parcel(record: format::Record) -> Parcel {
    Parcel::packed(record.block, record.payload_len as usize)
}

fn letter(refused: &Refused, time: &str) -> Letter {
    let Refused { reason, code, words, tenant, labels, entry } = refused;
    let metadata: BTreeMap<String, String> =
        entry.structured_metadata.iter().map(|pair| (pair.name.clone(), pair.value.clone())).collect();
    Letter {
        time: time.to_owned(),
        sink: NAME.to_owned(),
        reason: reason.as_str().to_owned(),
        status: *code,
        answer: words.clone(),
        tenant: tenant.clone(),
        labels: labels.clone(),
        line_time_ns: entry.timestamp.unwrap_or_default().to_ns(),
        metadata,
        line: entry.line.clone(),
    }
}
