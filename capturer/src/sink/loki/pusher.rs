//! The thread that empties the spool: it waits for what comes first (an answer, new records, a deadline), lets
//! [`Delivery`] decide, and carries its orders out. It decides nothing itself.

use std::collections::{BTreeMap, VecDeque};
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
use super::answer::{Outcome, Verdict, judge};
use super::client::{Client, Connection};
use super::delivery::{Delivery, Order, Refused, Trouble};
use super::encode::Chunk;
use crate::decode::timestamp;
use crate::metrics::{LossReason, Metrics, PushFailure};
use crate::settings::Loki;
use crate::sink::dead_letters::{DeadLetters, Letter};
use crate::sink::spool::{Position, Read, Reader, unix_ms};
use crate::status::Board;

/// Name of its health; the sink's own tells of the spool.
const COMPONENT: &str = "sink_loki_delivery";
/// The cursor is saved, and the gauges are set, so often.
const TURN: Duration = Duration::from_secs(1);
/// At the end it delivers for so long; what is left then stays in the spool for the next run.
const WIND_UP: Duration = Duration::from_secs(5);

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

/// Starts it.
pub(super) fn start(
    config: &Loki,
    client: Client,
    reader: Reader,
    letters: DeadLetters,
    metrics: Arc<Metrics>,
    board: Arc<Board>,
) -> io::Result<PushThread> {
    let signals = Arc::<Signals>::default();
    board.set_health(COMPONENT, true, "nothing was sent yet");
    let pusher = Pusher {
        client: Arc::new(client),
        delivery: Delivery::new(config),
        places: VecDeque::new(),
        done: reader.position(),
        reader,
        letters,
        metrics,
        board,
        connections: (0..config.in_flight_max).map(|_| None).collect(),
        under_way: FuturesUnordered::new(),
        signals: Arc::clone(&signals),
        started: Instant::now(),
        told: None,
        failing_read: false,
    };
    let backoff = config.backoff_min..=config.backoff_max;
    // Names of hosts are looked up by a thread of the runtime; one is enough.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(1)
        .build()?;
    let thread = std::thread::Builder::new().name("loki-push".to_owned()).spawn(move || {
        runtime.block_on(pusher.run(*backoff.start(), *backoff.end()));
        // A look-up that hangs must not hold up the end.
        runtime.shutdown_background();
    })?;
    Ok(PushThread { signals, thread: Some(thread) })
}

/// A request that ended, and whose connection that was.
type Ended = (usize, usize, Outcome, Option<Connection>);

struct Pusher {
    client: Arc<Client>,
    delivery: Delivery,
    reader: Reader,
    /// Where each chunk under way ends in the spool, by its number, and when it was put in.
    places: VecDeque<(u64, Position, u64)>,
    /// Nothing is left before it.
    done: Position,
    letters: DeadLetters,
    metrics: Arc<Metrics>,
    board: Arc<Board>,
    connections: Vec<Option<Connection>>,
    under_way: FuturesUnordered<BoxFuture<'static, Ended>>,
    signals: Arc<Signals>,
    started: Instant,
    /// The trouble last told; `None` = all is well.
    told: Option<Trouble>,
    failing_read: bool,
}

impl Pusher {
    async fn run(mut self, backoff_min: Duration, backoff_max: Duration) {
        // Before Loki is asked for: what is damaged in the spool is said at once.
        self.fill();
        self.reach(backoff_min, backoff_max).await;
        let mut turn_at = Instant::now();
        let mut stop_at = None;
        loop {
            #[cfg(feature = "test-faults")]
            crate::faults::here();
            if self.signals.stop.load(Ordering::Relaxed) && stop_at.is_none() {
                stop_at = Some(Instant::now() + WIND_UP);
            }
            self.fill();
            self.carry_out(stop_at.is_some());
            self.tell(self.delivery.trouble().cloned());
            if Instant::now() >= turn_at {
                turn_at = Instant::now() + TURN;
                self.turn();
            }
            if let Some(stop_at) = stop_at {
                let nothing_helps = self.delivery.is_empty() || self.delivery.trouble().is_some();
                if Instant::now() >= stop_at || (self.under_way.is_empty() && nothing_helps) {
                    break;
                }
            }
            let deadline =
                self.delivery.next_deadline_ms().map(|at| self.started + Duration::from_millis(at));
            let wake_at = deadline.into_iter().chain(stop_at).fold(turn_at, Instant::min);
            // The one place that waits.
            tokio::select! {
                Some(ended) = self.under_way.next() => self.on_ended(ended),
                () = self.signals.wake.notified() => {}
                () = tokio::time::sleep_until(wake_at.into()) => {}
            }
        }
        self.turn();
    }

    /// Asks Loki, with an empty push, until it answers as Loki: so that readiness, a wrong address and a wrong token
    /// are known before the first line. Lines wait in the spool meanwhile.
    async fn reach(&mut self, backoff_min: Duration, backoff_max: Duration) {
        let mut pause = backoff_min;
        while !self.signals.stop.load(Ordering::Relaxed) {
            let mut slot = self.connections[0].take();
            let outcome = self.client.push(&mut slot, "", &[]).await;
            self.connections[0] = slot;
            self.metrics.push_requests_total.with_label_values(&[NAME]).inc();
            let trouble = match judge(&outcome) {
                // No lines: nothing to take, but it would have been taken.
                Verdict::Accepted | Verdict::Refused { .. } => {
                    self.tell(None);
                    self.board.sink_accepted(NAME);
                    return;
                }
                Verdict::Retry { reason, words, .. } => Trouble { reason, words, hold: false },
                Verdict::Hold { reason, words } => Trouble { reason, words, hold: true },
            };
            self.failed(trouble.reason);
            self.tell(Some(trouble));
            self.turn();
            let until = Instant::now() + pause / 2 + pause.mul_f64((chance() % 1000) as f64 / 2000.0);
            while Instant::now() < until && !self.signals.stop.load(Ordering::Relaxed) {
                tokio::select! {
                    () = self.signals.wake.notified() => {}
                    () = tokio::time::sleep_until(until.into()) => {}
                }
            }
            pause = (pause * 2).min(backoff_max);
        }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Takes from the spool what there is room for.
    fn fill(&mut self) {
        while self.delivery.has_room() {
            match self.reader.read_next() {
                Ok(Read::Record(record, at)) => {
                    let format = (record.lane, record.tenant, record.lines, record.payload);
                    let (lane, tenant, lines, body) = format;
                    let number = self.delivery.take(self.now_ms(), Chunk { lane, tenant, lines, body });
                    self.places.push_back((number, at, record.time_ms));
                }
                Ok(Read::Damaged { file, offset, bytes }) => {
                    self.metrics.lost(LossReason::SpoolDamaged, bytes);
                    tracing::error!(
                        file,
                        offset,
                        bytes,
                        "loki: a part of the spool is unreadable and was passed over"
                    );
                }
                Ok(Read::TooOld(bytes)) => {
                    self.metrics.lost(LossReason::SpoolTooOld, bytes);
                    tracing::warn!(
                        bytes,
                        "loki: lines waited in the spool for longer than spool.max_age and are given up"
                    );
                }
                Ok(Read::Nothing) => break,
                Err(error) => {
                    if !std::mem::replace(&mut self.failing_read, true) {
                        tracing::error!("loki: reading the spool: {error}; trying again");
                    }
                    return;
                }
            }
        }
        self.failing_read = false;
    }

    fn carry_out(&mut self, flush: bool) {
        loop {
            let orders = self.delivery.poll(self.now_ms(), flush);
            if orders.is_empty() {
                return;
            }
            for order in orders {
                match order {
                    Order::Send { shard, tenant, lines, body } => self.send(shard, tenant, lines, body),
                    Order::Bury { shard, letter } => {
                        let result = self.bury(&letter);
                        self.delivery.on_buried(self.now_ms(), shard, result, chance());
                    }
                }
            }
        }
    }

    fn send(&mut self, shard: usize, tenant: String, lines: usize, body: Vec<u8>) {
        let client = Arc::clone(&self.client);
        let mut slot = self.connections[shard].take();
        self.metrics.push_requests_total.with_label_values(&[NAME]).inc();
        self.under_way.push(Box::pin(async move {
            let outcome = client.push(&mut slot, &tenant, &body).await;
            (shard, lines, outcome, slot)
        }));
    }

    fn on_ended(&mut self, (shard, lines, outcome, connection): Ended) {
        self.connections[shard] = connection;
        let verdict = self.delivery.on_outcome(self.now_ms(), shard, &outcome, chance());
        match verdict {
            Verdict::Accepted => {
                self.metrics.pushed_lines_total.with_label_values(&[NAME]).inc_by(lines as u64);
                self.board.sink_accepted(NAME);
            }
            Verdict::Retry { reason, .. } | Verdict::Hold { reason, .. } => self.failed(reason),
            Verdict::Refused { .. } => self.board.sink_accepted(NAME),
        }
    }

    fn failed(&self, reason: PushFailure) {
        self.metrics.push_failures_total.with_label_values(&[NAME, reason.as_str()]).inc();
    }

    fn bury(&mut self, refused: &Refused) -> Result<(), String> {
        let Refused { reason, code, words, tenant, labels, entry } = refused;
        let metadata: BTreeMap<String, String> =
            entry.structured_metadata.iter().map(|pair| (pair.name.clone(), pair.value.clone())).collect();
        let letter = Letter {
            time: timestamp::format(unix_ms() as i64 * 1_000_000),
            sink: NAME.to_owned(),
            reason: reason.as_str().to_owned(),
            status: *code,
            answer: words.clone(),
            tenant: tenant.clone(),
            labels: labels.clone(),
            line_time_ns: entry.timestamp.unwrap_or_default().to_ns(),
            metadata,
            line: entry.line.clone(),
        };
        let dropped = self.letters.bury(&letter).map_err(|error| {
            self.failed(PushFailure::DeadLettersUnwritable);
            format!("writing a refused line to the dead letters: {error}")
        })?;
        if dropped > 0 {
            self.metrics.lost(LossReason::DeadLettersFull, dropped);
            tracing::warn!(bytes = dropped, "old dead letters made room for new ones");
        }
        self.metrics.dead_letters_total.with_label_values(&[NAME, reason.as_str()]).inc();
        tracing::warn!(
            reason = reason.as_str(),
            status = code,
            answer = words,
            "Loki refused a line; it is in the dead letters"
        );
        Ok(())
    }

    /// Once a second, and at the end.
    fn turn(&mut self) {
        self.metrics.heartbeat("loki_push");
        while self.places.front().is_some_and(|(number, ..)| *number <= self.delivery.done()) {
            self.done = self.places.pop_front().map_or(self.done, |(_, at, _)| at);
        }
        // With nothing under way, what was passed over is done too.
        if self.places.is_empty() {
            self.done = self.reader.position();
        }
        if let Err(error) = self.reader.forget(self.done) {
            tracing::warn!(
                "loki: saving how far the spool was delivered: {error}; a crash now would repeat lines"
            );
        }
        self.metrics.spool_bytes.with_label_values(&[NAME]).set(self.reader.bytes() as i64);
        let oldest =
            self.places.front().map_or(0, |(_, _, time_ms)| unix_ms().saturating_sub(*time_ms) / 1000);
        self.metrics.spool_lag_seconds.with_label_values(&[NAME]).set(oldest as i64);
    }

    /// Says once what is wrong, and once that it is over.
    fn tell(&mut self, trouble: Option<Trouble>) {
        match (&trouble, &self.told) {
            (Some(new), told) if told.as_ref().is_none_or(|told| told.words != new.words) => {
                let what = if new.hold { "is held" } else { "waits" };
                let message = format!(
                    "{}: {}; delivery {what}, lines are kept and tried again",
                    self.client.url(),
                    new.words
                );
                if told.as_ref().is_none_or(|told| told.reason != new.reason) {
                    tracing::warn!(component = COMPONENT, reason = new.reason.as_str(), "{message}");
                }
                self.board.set_health(COMPONENT, false, message.clone());
                self.board.hold_sink(NAME, new.hold.then_some(message));
            }
            (None, Some(_)) => {
                tracing::info!(component = COMPONENT, "delivers again");
                self.board.set_health(COMPONENT, true, "delivers again");
                self.board.hold_sink(NAME, None);
            }
            (None, None) | (Some(_), _) => {}
        }
        self.told = trouble;
    }
}

fn chance() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0)
}
