//! The thread around a sink: takes messages in order, tries again what failed, tells the board how it is.
//!
//! ```text
//! inbox ─▶ attach / deliver ── ok ──▶ report Attached / Ack, count
//!             ▲      └─ error ─▶ health false (said once) ─▶ pause 0.1 s … 5 s, jittered ─┐
//!             └───────────────────────────────────────────────────────────────────────────┘
//! ```
//! While it pauses it takes messages off the inbox and sets them aside, in order: so it notices a Stop, which stands
//! behind the batches that wait. A batch is never dropped; a Stop's deadline leaves it unacknowledged, and the next
//! run reads it again from the source.
//!
//! Bounds. The inbox is a channel without a limit of its own, so that `capture` never blocks in a send; what is in
//! it is limited by who sends: batches by [`crate::limits::SINK_BATCHES_MAX`] (counted against acknowledgements),
//! Attach by one per stream until it is answered, Detach by one per attached stream, Saved by one a second, Stop by one.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::steps::Steps;
use super::{FromSink, Sink, SinkError, SinkErrorKind, ToSink, tap};
use crate::limits::SINK_RETRY_MS_MAX;
use crate::metrics::Metrics;
use crate::record::{Ack, Batch, SinkId};
use crate::status::{Beat, Board};

/// First pause after a failure; doubled until [`SINK_RETRY_MS_MAX`].
const RETRY_MS_MIN: u64 = 100;

/// Batches that a sink gathers before it makes them safe: fewer than one stream may have out, else a busy stream would
/// wait for the pause each time.
const GATHERED_MAX: usize = crate::limits::STREAM_BATCHES_MAX / 2;

/// A running sink.
#[derive(Debug)]
pub struct SinkHandle {
    /// Never blocks. An error means that the thread has ended, which [`FromSink::Stopped`] told before.
    pub sender: Sender<ToSink>,
    /// Ends after [`ToSink::Stop`], or when all senders are gone.
    pub thread: JoinHandle<()>,
}

/// Starts a sink's thread. `report` is called on it and must not block.
pub fn spawn(
    id: SinkId,
    sink: Box<dyn Sink>,
    report: Box<dyn Fn(FromSink) + Send>,
    board: Arc<Board>,
    metrics: Arc<Metrics>,
) -> io::Result<SinkHandle> {
    let (sender, inbox) = channel();
    let component = format!("sink_{}", sink.name());
    board.expect_sink(sink.name());
    board.set_health(&component, true, "waiting for records");
    let beat = board.beat(&component);
    let mut worker = Worker {
        id,
        component,
        beat,
        steps: Steps::new(sink.name(), Arc::clone(&metrics)),
        metrics,
        sink,
        report,
        board,
        inbox,
        set_aside: VecDeque::new(),
        gathered: Vec::new(),
        commit_at: None,
        give_up_at: None,
        trouble: None,
        accepted: false,
    };
    let thread = std::thread::Builder::new()
        // The kernel shows 15 characters of it.
        .name(format!("sink-{}", worker.sink.name()))
        .spawn(move || worker.run())?;
    Ok(SinkHandle { sender, thread })
}

struct Worker {
    id: SinkId,
    /// Name of its health on the board.
    component: String,
    /// What it writes to may hang, and nothing ends that.
    beat: Arc<Beat>,
    /// What pipelines do to batches before the sink gets them.
    steps: Steps,
    metrics: Arc<Metrics>,
    sink: Box<dyn Sink>,
    report: Box<dyn Fn(FromSink) + Send>,
    board: Arc<Board>,
    inbox: Receiver<ToSink>,
    /// Taken off the inbox during a pause; comes before what is still in it.
    set_aside: VecDeque<ToSink>,
    /// Delivered and not committed yet.
    gathered: Vec<Ack>,
    /// When they are to be committed.
    commit_at: Option<Instant>,
    /// Set once a Stop was seen, wherever it stands in the queue.
    give_up_at: Option<Instant>,
    /// What was last said to be wrong; `None` = all is well.
    trouble: Option<String>,
    /// Told the board that it accepted something.
    accepted: bool,
}

impl Worker {
    fn run(&mut self) {
        while let Some(message) = self.next_message() {
            #[cfg(feature = "test-faults")]
            crate::faults::here();
            if self.handle(message).is_none() {
                break;
            }
        }
        let _ = self.commit();
        if let Err(error) = self.sink.flush() {
            self.on_failure(&error);
        }
        (self.report)(FromSink::Stopped(self.id));
    }

    /// `None` = the end: told to stop, or nobody is left to tell anything.
    fn next_message(&mut self) -> Option<ToSink> {
        let message = loop {
            if let Some(message) = self.set_aside.pop_front() {
                break message;
            }
            let Some(commit_at) = self.commit_at else { break self.inbox.recv().ok()? };
            match self.inbox.recv_timeout(commit_at.saturating_duration_since(Instant::now())) {
                Ok(message) => break message,
                Err(RecvTimeoutError::Timeout) => self.commit()?,
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        };
        match message {
            ToSink::Stop { give_up_at } => {
                self.give_up_at = Some(give_up_at);
                None
            }
            message => Some(message),
        }
    }

    /// Makes what was gathered safe and acknowledges it.
    fn commit(&mut self) -> Option<()> {
        self.commit_at = None;
        if self.gathered.is_empty() {
            return Some(());
        }
        self.persist(|sink| sink.commit())?;
        for ack in std::mem::take(&mut self.gathered) {
            (self.report)(FromSink::Ack(ack));
        }
        Some(())
    }

    fn acknowledge(&mut self, ack: Ack) -> Option<()> {
        let Some(pause) = self.sink.gathers() else {
            (self.report)(FromSink::Ack(ack));
            return Some(());
        };
        self.gathered.push(ack);
        let commit_at = *self.commit_at.get_or_insert_with(|| Instant::now() + pause);
        if self.gathered.len() >= GATHERED_MAX || Instant::now() >= commit_at {
            return self.commit();
        }
        Some(())
    }

    /// `None` = given up.
    fn handle(&mut self, message: ToSink) -> Option<()> {
        match message {
            ToSink::Attach(source) => {
                let mark = self.persist(|sink| sink.attach(&source))?;
                (self.report)(FromSink::Attached { sink: self.id, stream: source.id, mark });
            }
            ToSink::Batch(batch) => {
                // Once, whatever attempts its delivery takes.
                let made = self.steps.run(&batch);
                let out = made.as_ref().and_then(|made| made.batch.as_ref()).unwrap_or(&batch);
                let delivered = self.persist(|sink| sink.deliver(out))?;
                self.metrics.invalid_utf8_replaced_total.inc_by(delivered.counts.invalid_utf8);
                // As it was delivered: redacted where that is configured.
                self.show(out);
                // Before the acknowledgement: that must bring back the only reference to the batch.
                let amount = made.and_then(|made| self.steps.count(&batch.source, made));
                self.acknowledge(Ack { sink: self.id, batch, mark: delivered.mark, delivered: amount })?;
            }
            ToSink::Detach(stream) => {
                self.steps.detach(stream);
                self.sink.detach(stream);
            }
            ToSink::Saved(marks) => self.sink.saved(&marks),
            ToSink::Stop { .. } => unreachable!("next_message ends there"),
        }
        Some(())
    }

    /// To those who watch live: what the first sink of the first outlet delivered, so each record once. While nobody does,
    /// it costs a load.
    fn show(&self, batch: &Batch) {
        let outlet = batch.source.outlet;
        if self.board.taps.are_watched() && outlet.index == 0 && outlet.first() == self.id {
            tap::show(&self.board.taps, batch);
        }
    }

    /// Tries until it works; `None` = closed, or the deadline of a Stop has passed.
    fn persist<T>(&mut self, mut attempt: impl FnMut(&mut dyn Sink) -> Result<T, SinkError>) -> Option<T> {
        let mut failures = 0;
        loop {
            let step = self.beat.step();
            let outcome = attempt(&mut *self.sink);
            drop(step);
            match outcome {
                Ok(value) => {
                    self.on_success();
                    return Some(value);
                }
                Err(error) => {
                    self.on_failure(&error);
                    let again =
                        error.kind == SinkErrorKind::Retry && self.pause(retry_pause(failures, chance()));
                    if !again {
                        return None;
                    }
                    failures += 1;
                }
            }
        }
    }

    /// Waits; false = a Stop's deadline came, or all senders are gone.
    fn pause(&mut self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        loop {
            let now = Instant::now();
            if self.give_up_at.is_some_and(|give_up_at| give_up_at <= now) {
                return false;
            }
            if until <= now {
                return true;
            }
            let wake_at = self.give_up_at.map_or(until, |give_up_at| give_up_at.min(until));
            match self.inbox.recv_timeout(wake_at - now) {
                Ok(message) => {
                    if let ToSink::Stop { give_up_at } = message {
                        self.give_up_at = Some(give_up_at);
                    }
                    self.set_aside.push_back(message);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) if self.give_up_at.is_none() => return false,
                // Told to stop by a certain time, and nobody has more to say: try until then.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(wake_at - now),
            }
        }
    }

    fn on_failure(&mut self, error: &SinkError) {
        self.metrics.sink_errors_total.with_label_values(&[self.sink.name()]).inc();
        let consequence = match error.kind {
            SinkErrorKind::Retry => "reading waits, nothing is dropped",
            SinkErrorKind::Closed => "this sink has ended",
        };
        let message = format!("{error}; {consequence}");
        if self.trouble.as_ref() != Some(&message) {
            tracing::warn!(component = %self.component, "{message}");
            self.board.set_health(&self.component, false, message.clone());
            self.trouble = Some(message);
        }
    }

    fn on_success(&mut self) {
        if self.trouble.take().is_some() {
            tracing::info!(component = %self.component, "works again");
            self.board.set_health(&self.component, true, "works again");
        }
        if !self.accepted {
            self.accepted = true;
            if self.sink.is_network() {
                let message = "takes records into its spool; its delivery has a word of its own";
                self.board.set_health(&self.component, true, message);
            } else {
                self.board.set_health(&self.component, true, "accepts records");
                self.board.sink_accepted(self.sink.name());
            }
        }
    }
}

/// Half fixed, half chance, so that agents that failed together do not come back together.
fn retry_pause(failures: u32, chance: u64) -> Duration {
    let whole = (RETRY_MS_MIN << failures.min(16)).min(SINK_RETRY_MS_MAX);
    Duration::from_millis(whole / 2 + chance % (whole / 2 + 1))
}

fn chance() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::testing::{batch, container};
    use super::super::{Counts, Delivered};
    use super::*;
    use crate::record::{OutputMark, Source, StreamId};

    /// Fails while told to; remembers what it took.
    #[derive(Clone, Default)]
    struct Fake {
        broken: Arc<AtomicBool>,
        closed: Arc<AtomicBool>,
        taken: Arc<Mutex<Vec<String>>>,
    }

    impl Fake {
        fn answer<T>(&self, what: &str, value: T) -> Result<T, SinkError> {
            if self.closed.load(Ordering::SeqCst) {
                let source = io::ErrorKind::BrokenPipe.into();
                return Err(SinkError { kind: SinkErrorKind::Closed, what: what.to_owned(), source });
            }
            if self.broken.load(Ordering::SeqCst) {
                return Err(SinkError::retry(what, io::ErrorKind::StorageFull));
            }
            self.taken.lock().unwrap().push(what.to_owned());
            Ok(value)
        }
    }

    impl Sink for Fake {
        fn name(&self) -> &str {
            "fake"
        }
        fn attach(&mut self, source: &Arc<Source>) -> Result<Option<OutputMark>, SinkError> {
            self.answer(&format!("attaching {}", source.id), None)
        }
        fn deliver(&mut self, batch: &Batch) -> Result<Delivered, SinkError> {
            let counts = Counts { records: 1, invalid_utf8: 2, ..Counts::default() };
            self.answer(&format!("writing {}", batch.source_bytes), Delivered { mark: None, counts })
        }
        fn detach(&mut self, stream: StreamId) {
            self.taken.lock().unwrap().push(format!("detach {stream}"));
        }
        fn flush(&mut self) -> Result<(), SinkError> {
            self.taken.lock().unwrap().push("flush".to_owned());
            Ok(())
        }
    }

    fn numbered(n: u64) -> Arc<Batch> {
        let mut batch = batch(&container(1, "web"), &[b"x"]);
        batch.source_bytes = n;
        Arc::new(batch)
    }

    fn start(fake: &Fake) -> (SinkHandle, Receiver<FromSink>, Arc<Board>) {
        start_with(fake, &Arc::new(Metrics::new(1).unwrap()))
    }

    fn start_with(fake: &Fake, metrics: &Arc<Metrics>) -> (SinkHandle, Receiver<FromSink>, Arc<Board>) {
        let (tell, told) = channel();
        let board = Arc::new(Board::default());
        let report = Box::new(move |message| tell.send(message).unwrap());
        let handle =
            spawn(SinkId(3), Box::new(fake.clone()), report, board.clone(), Arc::clone(metrics)).unwrap();
        (handle, told, board)
    }

    fn stop_in(limit: Duration) -> ToSink {
        ToSink::Stop { give_up_at: Instant::now() + limit }
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn answers_in_order_and_ends_on_stop() {
        let fake = Fake::default();
        let metrics = Arc::new(Metrics::new(1).unwrap());
        let (handle, told, board) = start_with(&fake, &metrics);
        assert!(!board.sinks()["fake"]);
        handle.sender.send(ToSink::Attach(container(1, "web"))).unwrap();
        for n in 1..=3 {
            handle.sender.send(ToSink::Batch(numbered(n))).unwrap();
        }
        handle.sender.send(ToSink::Detach(StreamId(1))).unwrap();
        handle.sender.send(stop_in(LONG)).unwrap();
        assert!(matches!(told.recv().unwrap(), FromSink::Attached { sink: SinkId(3), .. }));
        for n in 1..=3 {
            let FromSink::Ack(ack) = told.recv().unwrap() else { panic!("an ack comes") };
            assert_eq!(ack.batch.source_bytes, n);
        }
        assert!(matches!(told.recv().unwrap(), FromSink::Stopped(SinkId(3))));
        handle.thread.join().unwrap();
        let expected = ["attaching #1", "writing 1", "writing 2", "writing 3", "detach #1", "flush"];
        assert_eq!(*fake.taken.lock().unwrap(), expected);
        assert!(board.sinks()["fake"]);
        assert_eq!(metrics.invalid_utf8_replaced_total.get(), 6);
        assert_eq!(metrics.sink_errors_total.with_label_values(&["fake"]).get(), 0);
    }

    /// Without this a full disk would lose the batch, or keep the order only by luck.
    #[test]
    fn keeps_trying_says_why_and_recovers_in_order() {
        let fake = Fake::default();
        fake.broken.store(true, Ordering::SeqCst);
        let metrics = Arc::new(Metrics::new(1).unwrap());
        let (handle, told, board) = start_with(&fake, &metrics);
        for n in 1..=5 {
            handle.sender.send(ToSink::Batch(numbered(n))).unwrap();
        }
        let errors = metrics.sink_errors_total.with_label_values(&["fake"]);
        while errors.get() < 2 {
            std::thread::yield_now();
        }
        let health = board.health()["sink_fake"].clone();
        assert!(!health.ok);
        assert_eq!(
            health.message,
            "no storage space writing 1: free space; reading waits, nothing is dropped"
        );
        assert!(told.try_recv().is_err());
        fake.broken.store(false, Ordering::SeqCst);
        for n in 1..=5 {
            let FromSink::Ack(ack) = told.recv().unwrap() else { panic!("an ack comes") };
            assert_eq!(ack.batch.source_bytes, n);
        }
        assert!(board.health()["sink_fake"].ok);
        handle.sender.send(stop_in(LONG)).unwrap();
        handle.thread.join().unwrap();
    }

    #[test]
    fn stop_behind_a_batch_that_can_not_be_delivered_gives_up_in_time() {
        let fake = Fake::default();
        fake.broken.store(true, Ordering::SeqCst);
        let (handle, told, board) = start(&fake);
        handle.sender.send(ToSink::Batch(numbered(1))).unwrap();
        handle.sender.send(ToSink::Batch(numbered(2))).unwrap();
        handle.sender.send(stop_in(Duration::from_millis(300))).unwrap();
        assert!(matches!(told.recv_timeout(LONG).unwrap(), FromSink::Stopped(_)));
        handle.thread.join().unwrap();
        assert_eq!(*fake.taken.lock().unwrap(), ["flush"]);
        assert!(!board.health()["sink_fake"].ok);
    }

    #[test]
    fn a_closed_output_ends_the_sink() {
        let fake = Fake::default();
        fake.closed.store(true, Ordering::SeqCst);
        let (handle, told, board) = start(&fake);
        handle.sender.send(ToSink::Batch(numbered(1))).unwrap();
        assert!(matches!(told.recv_timeout(LONG).unwrap(), FromSink::Stopped(_)));
        handle.thread.join().unwrap();
        assert!(board.health()["sink_fake"].message.contains("this sink has ended"));
        assert!(handle.sender.send(ToSink::Detach(StreamId(1))).is_err());
    }

    #[test]
    fn no_sender_left_ends_it_even_while_it_retries() {
        let fake = Fake::default();
        fake.broken.store(true, Ordering::SeqCst);
        let (handle, told, _board) = start(&fake);
        handle.sender.send(ToSink::Batch(numbered(1))).unwrap();
        drop(handle.sender);
        assert!(matches!(told.recv_timeout(LONG).unwrap(), FromSink::Stopped(_)));
        handle.thread.join().unwrap();
    }

    #[test]
    fn pauses_grow_stay_within_their_limit_and_differ() {
        for failures in 0..40 {
            for chance in [0, 1, 77, u64::MAX] {
                let pause = retry_pause(failures, chance).as_millis() as u64;
                assert!((RETRY_MS_MIN / 2..=SINK_RETRY_MS_MAX).contains(&pause));
            }
        }
        assert!(retry_pause(3, 0) > retry_pause(0, u64::MAX));
        assert_ne!(retry_pause(20, 0), retry_pause(20, 999));
    }
}
