//! Tests of a sink's thread: order, retries, outputs that fail alone, stops.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::super::testing::{batch, container};
use super::super::{Counts, Delivered, SinkError};
use super::retries::{RETRY_MS_MIN, retry_pause};
use super::*;
use crate::limits::SINK_RETRY_MS_MAX;
use crate::model::record::{OutputMark, Source, StreamId};

/// Fails while told to; remembers what it took.
#[derive(Clone, Default)]
struct Fake {
    broken: Arc<AtomicBool>,
    closed: Arc<AtomicBool>,
    /// Each container has an output of its own, and those with one of these names are blocked.
    blocked: Arc<Mutex<Vec<String>>>,
    apart: bool,
    /// Gathers batches for this long.
    gathers: Option<Duration>,
    /// Commits fail, though this many batches are safe.
    commit_fails: bool,
    safe: usize,
    taken: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    fn answer<T>(&self, what: &str, value: T) -> Result<T, SinkError> {
        if self.closed.load(Ordering::SeqCst) {
            let source = io::ErrorKind::BrokenPipe;
            return Err(SinkError { kind: SinkErrorKind::Closed, ..SinkError::retry(what, source) });
        }
        if self.broken.load(Ordering::SeqCst) {
            return Err(SinkError::retry(what, io::ErrorKind::StorageFull));
        }
        self.taken.lock().unwrap().push(what.to_owned());
        Ok(value)
    }
}

impl Fake {
    fn look(&self, source: &Source) -> Result<(), SinkError> {
        let name = &source.container.as_ref().expect("of a container").name;
        if self.blocked.lock().unwrap().contains(name) {
            return Err(SinkError::retry(format!("opening {name}"), io::ErrorKind::IsADirectory));
        }
        Ok(())
    }
}

impl Sink for Fake {
    fn name(&self) -> &str {
        "fake"
    }
    fn output_of(&self, source: &Source, _after_attach: bool) -> Option<Arc<str>> {
        let name = &source.container.as_ref().expect("of a container").name;
        self.apart.then(|| name.as_str().into())
    }
    fn attach(&mut self, source: &Arc<Source>) -> Result<Option<OutputMark>, SinkError> {
        self.look(source)?;
        self.answer(&format!("attaching {}", source.id), None)
    }
    fn deliver(&mut self, batch: &Batch) -> Result<Delivered, SinkError> {
        self.look(&batch.source)?;
        let counts = Counts { records: 1, invalid_utf8: 2, ..Counts::default() };
        self.answer(&format!("writing {}", batch.source_bytes), Delivered { mark: None, counts })
    }
    fn gathers(&self) -> Option<Duration> {
        self.gathers
    }
    fn commit(&mut self) -> Result<(), SinkError> {
        if self.commit_fails {
            return Err(SinkError::retry("commit", io::ErrorKind::StorageFull));
        }
        self.answer("commit", ())
    }
    fn take_safe(&mut self) -> usize {
        std::mem::take(&mut self.safe)
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

fn start(fake: &Fake) -> (SinkHandle, Receiver<FromSink>, Arc<Status>) {
    start_with(fake, &Arc::new(Metrics::new(1).unwrap()))
}

fn start_with(fake: &Fake, metrics: &Arc<Metrics>) -> (SinkHandle, Receiver<FromSink>, Arc<Status>) {
    let (tell, told) = channel();
    let status = Arc::new(Status::default());
    let report = Box::new(move |message| tell.send(message).unwrap());
    let handle =
        spawn(SinkId(3), Box::new(fake.clone()), None, report, status.clone(), Arc::clone(metrics)).unwrap();
    (handle, told, status)
}

fn stop_in(limit: Duration) -> ToSink {
    ToSink::Stop { give_up_at: Instant::now() + limit }
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn answers_in_order_and_ends_on_stop() {
    let fake = Fake::default();
    let metrics = Arc::new(Metrics::new(1).unwrap());
    let (handle, told, status) = start_with(&fake, &metrics);
    assert!(!status.sinks()["fake"]);
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
    assert!(status.sinks()["fake"]);
    assert_eq!(metrics.invalid_utf8_replaced_total.get(), 6);
    assert_eq!(metrics.sink_errors_total.with_label_values(&["fake"]).get(), 0);
}

/// Otherwise a full disk would lose the batch, or the order would be kept only by luck.
#[test]
fn keeps_trying_says_why_and_recovers_in_order() {
    let fake = Fake::default();
    fake.broken.store(true, Ordering::SeqCst);
    let metrics = Arc::new(Metrics::new(1).unwrap());
    let (handle, told, status) = start_with(&fake, &metrics);
    for n in 1..=5 {
        handle.sender.send(ToSink::Batch(numbered(n))).unwrap();
    }
    let errors = metrics.sink_errors_total.with_label_values(&["fake"]);
    while errors.get() < 2 {
        std::thread::yield_now();
    }
    let health = status.health()["sink_fake"].clone();
    assert!(!health.ok);
    assert_eq!(
        health.message,
        "no storage space writing 1: free some room there; reading waits, and lines stay in the log files as long as those are kept"
    );
    assert!(told.try_recv().is_err());
    fake.broken.store(false, Ordering::SeqCst);
    for n in 1..=5 {
        let FromSink::Ack(ack) = told.recv().unwrap() else { panic!("an ack comes") };
        assert_eq!(ack.batch.source_bytes, n);
    }
    assert!(status.health()["sink_fake"].ok);
    handle.sender.send(stop_in(LONG)).unwrap();
    handle.thread.join().unwrap();
}

#[test]
fn stop_behind_a_batch_that_can_not_be_delivered_gives_up_in_time() {
    let fake = Fake::default();
    fake.broken.store(true, Ordering::SeqCst);
    let (handle, told, status) = start(&fake);
    handle.sender.send(ToSink::Batch(numbered(1))).unwrap();
    handle.sender.send(ToSink::Batch(numbered(2))).unwrap();
    handle.sender.send(stop_in(Duration::from_millis(300))).unwrap();
    assert!(matches!(told.recv_timeout(LONG).unwrap(), FromSink::Stopped(_)));
    handle.thread.join().unwrap();
    assert_eq!(*fake.taken.lock().unwrap(), ["flush"]);
    assert!(!status.health()["sink_fake"].ok);
}

#[test]
fn a_closed_output_ends_the_sink() {
    let fake = Fake::default();
    fake.closed.store(true, Ordering::SeqCst);
    let (handle, told, status) = start(&fake);
    handle.sender.send(ToSink::Batch(numbered(1))).unwrap();
    assert!(matches!(told.recv_timeout(LONG).unwrap(), FromSink::Stopped(_)));
    handle.thread.join().unwrap();
    assert!(status.health()["sink_fake"].message.contains("this sink has ended"));
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
fn pauses_grow_and_stay_within_their_limit() {
    for failures in 0..40 {
        let pause = retry_pause(failures).as_millis() as u64;
        assert!((RETRY_MS_MIN / 2..=SINK_RETRY_MS_MAX).contains(&pause));
    }
    assert!(retry_pause(3) > retry_pause(0));
}

fn of(id: u32, name: &str, n: u64) -> ToSink {
    let mut batch = batch(&container(id, name), &[b"x"]);
    batch.source_bytes = n;
    ToSink::Batch(Arc::new(batch))
}

/// Otherwise one name that can't be opened would stop all containers.
#[test]
fn a_blocked_output_holds_its_own_streams_and_no_others() {
    let fake = Fake { apart: true, ..Fake::default() };
    fake.blocked.lock().unwrap().push("bad".to_owned());
    let metrics = Arc::new(Metrics::new(1).unwrap());
    let (handle, told, status) = start_with(&fake, &metrics);
    handle.sender.send(ToSink::Attach(container(1, "bad"))).unwrap();
    for n in 1..=3 {
        handle.sender.send(of(1, "bad", n)).unwrap();
        handle.sender.send(of(2, "good", 10 + n)).unwrap();
        // It shares the blocked output.
        handle.sender.send(of(3, "bad", 20 + n)).unwrap();
    }
    handle.sender.send(ToSink::Detach(StreamId(3))).unwrap();
    let (mut acked, mut held) = (Vec::new(), 0);
    while acked.len() < 3 || held < 7 {
        match told.recv_timeout(LONG).unwrap() {
            FromSink::Ack(ack) => acked.push(ack.batch.source_bytes),
            FromSink::Held { stream, cause, bytes, .. } => {
                held += 1;
                assert!(stream != StreamId(2) && (bytes > 0 || held == 1));
                assert_eq!(&*cause, "is a directory opening bad: move away what stands there");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(acked, [11, 12, 13]);
    let blocked = metrics.outputs_blocked.with_label_values(&["fake"]);
    assert_eq!(blocked.get(), 1);
    let health = status.health()["sink_fake"].clone();
    let expected = "outputs blocked: 1, sources that wait for them: 2; no line is lost while their log files are kept; other outputs are not affected";
    assert!(!health.ok && health.message.ends_with(expected), "{}", health.message);

    fake.blocked.lock().unwrap().clear();
    let mut answers = Vec::new();
    let mut freed = 0;
    while freed < 2 {
        match told.recv_timeout(LONG).unwrap() {
            FromSink::Ack(ack) => answers.push((ack.batch.source.id.0, ack.batch.source_bytes)),
            FromSink::Freed { .. } => freed += 1,
            FromSink::Attached { stream, .. } => answers.push((stream.0, 0)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(answers, [(1, 0), (1, 1), (3, 21), (1, 2), (3, 22), (1, 3), (3, 23)]);
    assert_eq!(fake.taken.lock().unwrap().last().unwrap(), "detach #3");
    crate::sink::testing::until(|| status.health()["sink_fake"].ok && blocked.get() == 0);
    handle.sender.send(stop_in(LONG)).unwrap();
    handle.thread.join().unwrap();
}

/// A stop waits for deliverable batches, and tries the others once more.
#[test]
fn a_stop_does_not_wait_for_a_blocked_output() {
    let fake = Fake { apart: true, ..Fake::default() };
    fake.blocked.lock().unwrap().push("bad".to_owned());
    let (handle, told, _board) = start(&fake);
    handle.sender.send(of(1, "bad", 1)).unwrap();
    handle.sender.send(of(2, "good", 2)).unwrap();
    // Far longer than the test may take.
    handle.sender.send(stop_in(100 * LONG)).unwrap();
    handle.thread.join().unwrap();
    let told: Vec<FromSink> = told.try_iter().collect();
    assert!(matches!(&told[0], FromSink::Held { .. }) && matches!(told.last(), Some(FromSink::Stopped(_))));
    assert_eq!(*fake.taken.lock().unwrap(), ["writing 2", "flush"]);
}

/// Many quiet sources share a commit; a busy one does not wait for them.
#[test]
fn batches_are_gathered_by_stream_and_all_together() {
    let of = |stream: usize| Arc::new(batch(&container(stream as u32, "web"), &[b"x"]));
    let commits =
        |taken: &Mutex<Vec<String>>| taken.lock().unwrap().iter().filter(|what| *what == "commit").count();
    // The first is acknowledged when one stream's share is full, the second when all together have theirs.
    for (streams, batches) in [(1, GATHERED_OF_STREAM_MAX), (GATHERED_MAX, GATHERED_MAX)] {
        let fake = Fake { gathers: Some(LONG), ..Fake::default() };
        let (handle, told, _) = start(&fake);
        for n in 0..batches {
            handle.sender.send(ToSink::Batch(of(n % streams))).unwrap();
        }
        for _ in 0..batches {
            assert!(matches!(told.recv_timeout(LONG / 2).unwrap(), FromSink::Ack(_)));
        }
        assert_eq!(commits(&fake.taken), 1, "{batches} batches of {streams} streams");
        handle.sender.send(stop_in(LONG)).unwrap();
        handle.thread.join().unwrap();
    }
    // Fewer than that wait for others, and are committed when their time is over.
    let fake = Fake { gathers: Some(Duration::from_millis(50)), ..Fake::default() };
    let (handle, told, _) = start(&fake);
    handle.sender.send(ToSink::Batch(of(0))).unwrap();
    assert!(matches!(told.recv_timeout(LONG).unwrap(), FromSink::Ack(_)));
    assert_eq!(commits(&fake.taken), 1);
    handle.sender.send(stop_in(LONG)).unwrap();
    handle.thread.join().unwrap();
}

/// The spool is full at a stop: its records will be delivered, so the next run must not read them again.
#[test]
fn what_is_safe_is_acknowledged_though_the_rest_is_not() {
    for safe in [0, 2, 3] {
        let fake = Fake { gathers: Some(LONG), commit_fails: true, safe, ..Fake::default() };
        let (handle, told, _) = start(&fake);
        for n in 1..=3 {
            handle.sender.send(ToSink::Batch(numbered(n))).unwrap();
        }
        handle.sender.send(stop_in(Duration::from_millis(300))).unwrap();
        handle.thread.join().unwrap();
        let acks = told.iter().filter_map(|message| match message {
            FromSink::Ack(ack) => Some(ack.batch.source_bytes),
            _ => None,
        });
        assert_eq!(acks.collect::<Vec<_>>(), (1..=safe as u64).collect::<Vec<_>>());
    }
}

/// A stop waits for acknowledgements, and must not end before those that only come once everything else is safe.
#[test]
fn what_is_safe_is_acknowledged_while_the_rest_waits() {
    let fake = Fake { gathers: Some(LONG), safe: 2, ..Fake::default() };
    let (handle, told, _) = start(&fake);
    for n in 1..=2 {
        handle.sender.send(ToSink::Batch(numbered(n))).unwrap();
    }
    let until = Instant::now() + LONG;
    while fake.taken.lock().unwrap().len() < 2 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    fake.broken.store(true, Ordering::SeqCst);
    handle.sender.send(ToSink::Batch(numbered(3))).unwrap();
    for n in 1..=2 {
        let FromSink::Ack(ack) = told.recv_timeout(LONG).unwrap() else { panic!("no acknowledgement") };
        assert_eq!(ack.batch.source_bytes, n);
    }
    // All senders are gone, so nobody would hear an acknowledgement: nothing more is committed.
    fake.broken.store(false, Ordering::SeqCst);
    drop(handle.sender);
    handle.thread.join().unwrap();
    assert!(!fake.taken.lock().unwrap().iter().any(|what| what == "commit"));
}

/// A sink on a file system that may hang: it takes nothing while told to hang.
#[derive(Clone)]
struct Slow {
    fake: Fake,
    gate: Arc<Mutex<()>>,
}

impl Sink for Slow {
    fn name(&self) -> &str {
        "fake"
    }
    fn attach(&mut self, source: &Arc<Source>) -> Result<Option<OutputMark>, SinkError> {
        self.fake.attach(source)
    }
    fn deliver(&mut self, batch: &Batch) -> Result<Delivered, SinkError> {
        let _gate = self.gate.lock().unwrap();
        self.fake.deliver(batch)
    }
    fn detach(&mut self, stream: StreamId) {
        self.fake.detach(stream);
    }
    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

/// A sink whose containers named `far…` are on a file system of their own.
struct Divided {
    handle: SinkHandle,
    told: Receiver<FromSink>,
    status: Arc<Status>,
    near: Fake,
    far: Fake,
    /// While held, `far` outputs hang.
    gate: Arc<Mutex<()>>,
}

fn start_apart() -> Divided {
    let (near, far) = (Fake { apart: true, ..Fake::default() }, Fake { apart: true, ..Fake::default() });
    let gate = Arc::<Mutex<()>>::default();
    let slow = Slow { fake: far.clone(), gate: Arc::clone(&gate) };
    let place = FileSystem { id: 7, what: "/far (fuse)".to_owned(), cure: "abort it".to_owned() };
    let apart = Apart {
        directory: "/out".into(),
        place_of: Box::new(move |output| output.starts_with("far").then(|| place.clone())),
        open: Arc::new(move |place| {
            assert_eq!(place, 7);
            Ok(Box::new(slow.clone()))
        }),
    };
    let (tell, told) = channel();
    let (status, metrics) = (Arc::new(Status::default()), Arc::new(Metrics::new(1).unwrap()));
    let report = Box::new(move |message| tell.send(message).unwrap());
    let sink = Box::new(near.clone());
    let handle = spawn(SinkId(3), sink, Some(apart), report, status.clone(), metrics).unwrap();
    Divided { handle, told, status, near, far, gate }
}

/// Short forms of what was reported.
fn word(from: FromSink) -> String {
    match from {
        FromSink::Attached { stream, .. } => format!("attached {}", stream.0),
        FromSink::Ack(ack) => format!("ack {} {}", ack.batch.source.id.0, ack.batch.source_bytes),
        FromSink::Held { stream, bytes, cause, .. } => {
            assert!(
                bytes > 0 && cause.starts_with("/out/far: /far (fuse) does not answer: abort it"),
                "{cause}"
            );
            format!("held {}", stream.0)
        }
        FromSink::Freed { stream, .. } => format!("freed {}", stream.0),
        FromSink::SaveAgain(_) => "save again".to_owned(),
        FromSink::Stopped(_) => "stopped".to_owned(),
    }
}

/// Otherwise one hung mount stops all outputs, and a stop waits for it.
#[test]
fn what_hangs_makes_only_its_own_outputs_wait() {
    let Divided { handle, told, status, near, far, gate } = start_apart();
    let next = || word(told.recv_timeout(LONG).unwrap());
    let send = |message| handle.sender.send(message).unwrap();
    for (stream, name) in [(1, "near"), (2, "far")] {
        send(ToSink::Attach(container(stream, name)));
        assert_eq!(next(), format!("attached {stream}"));
    }
    let shut = gate.lock().unwrap();
    send(of(2, "far", 1));
    send(of(2, "far", 2));
    for n in 1..100 {
        send(of(1, "near", n));
        assert_eq!(next(), format!("ack 1 {n}"));
    }
    // Each message in flight is reported once, in order, and so is each later one.
    assert_eq!([next(), next()], ["held 2", "held 2"]);
    send(of(2, "far", 3));
    assert_eq!(next(), "held 2");
    let health = status.health()["sink_fake"].clone();
    assert!(
        !health.ok && health.message.contains("outputs that wait for it: /out/far"),
        "{}",
        health.message
    );
    drop(shut);
    assert_eq!([next(), next(), next(), next()], ["ack 2 1", "ack 2 2", "ack 2 3", "freed 2"]);
    // Messages about saves do not pile up while it hangs, and a stop does not wait.
    let shut = gate.lock().unwrap();
    send(of(2, "far", 4));
    assert_eq!(next(), "held 2");
    send(stop_in(LONG));
    assert_eq!(next(), "stopped");
    assert!(!handle.thread.is_finished(), "what the other thread still writes, nobody else may");
    drop(shut);
    assert_eq!([next(), next()], ["ack 2 4", "freed 2"]);
    handle.thread.join().unwrap();
    let taken = |fake: &Fake| fake.taken.lock().unwrap().clone();
    assert_eq!(
        taken(&near).len(),
        1 + 1 + 99 + 1,
        "a detach of what is not here, an attach, the batches, the flush"
    );
    let written = ["attaching #2", "writing 1", "writing 2", "writing 3", "writing 4"];
    assert_eq!(taken(&far), written);
}

/// A rename may lead a stream's output to another file system. Its answers stay in order, and only one thread has the
/// stream.
#[test]
fn a_stream_changes_over_when_nothing_of_it_is_out() {
    let Divided { handle, told, near, far, gate, .. } = start_apart();
    let next = || word(told.recv_timeout(LONG).unwrap());
    let send = |message| handle.sender.send(message).unwrap();
    send(ToSink::Attach(container(1, "far")));
    assert_eq!(next(), "attached 1");
    let shut = gate.lock().unwrap();
    send(of(1, "far", 1));
    send(ToSink::Attach(container(1, "near")));
    send(of(1, "near", 2));
    send(ToSink::Attach(container(1, "far")));
    send(of(1, "far", 3));
    drop(shut);
    let expected = ["ack 1 1", "attached 1", "ack 1 2", "attached 1", "ack 1 3"];
    assert_eq!([next(), next(), next(), next(), next()], expected);
    send(ToSink::Detach(StreamId(1)));
    send(stop_in(LONG));
    assert_eq!(next(), "stopped");
    handle.thread.join().unwrap();
    let taken = |fake: &Fake| fake.taken.lock().unwrap().join(", ");
    assert_eq!(taken(&near), "detach #1, attaching #1, writing 2, detach #1, flush");
    assert_eq!(taken(&far), "attaching #1, writing 1, detach #1, attaching #1, writing 3, detach #1");
}
