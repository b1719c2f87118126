//! The Loki sink: lines to Loki's push API, by way of a spool on disk.
//!
//! ```text
//! sink thread:  batches ─ encode.rs ─▶ chunks of one label set ─▶ spool (a batch is acknowledged when it is safe there)
//! push thread:  spool ─▶ delivery.rs (what, when, again) ◀─ verdicts.rs, answer.rs (what an answer means) ◀─ client.rs ◀─▶ Loki
//!                           └─ refused (refusals.rs: which of them) ─▶ dead letters
//! ```
//! `pusher.rs` is the thread, `client.rs` the network, `push.rs` the messages, `parcel.rs` how they are held and sent;
//! the rest is pure. Lines arrive at least once, in order per label set. Sent again are lines whose answer was lost,
//! those of a refused request that was cut up, and after a crash those since the last saved positions.

pub(crate) mod answer;
pub(crate) mod body;
mod body_limit;
pub(crate) mod by_hand;
pub(crate) mod client;
pub(crate) mod delivery;
mod dial;
pub(crate) mod encode;
mod label_set;
mod nouns;
pub(crate) mod parcel;
mod parts;
pub(crate) mod push;
mod pusher;
mod refusals;
mod report;
mod summary;
pub(crate) mod times;
mod unescape;
mod verdicts;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytesize::ByteSize;

use super::dead_letters::DeadLetters;
use super::spool::{self, AppendError, format};
use super::{Delivered, Sink, SinkError, SinkErrorKind};
use crate::ledger::Owner;
use crate::ledger::claims::Claims;
use crate::model::record::{Batch, OutputMark, Source, StreamId};
use crate::settings::Loki;
use crate::telemetry::fault::Fault;
use crate::telemetry::metrics::{LossReason, Metrics};
use crate::telemetry::status::Status;

use client::Client;
use encode::{Chunk, Gathered, SourceHead};
use pusher::PushThread;
use times::Times;

/// Its name in checkpoint, metrics and health.
pub const NAME: &str = "loki";
/// How long batches wait for others before they are put into the spool and that is synced: ten syncs a second at most for a
/// slow trickle, and one record for each label set.
const GATHER: Duration = Duration::from_millis(100);
/// Bytes of encoded lines that are put into the spool before that, to be synced with the rest.
const GATHERED_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// But at most this part of the spool (one in …), as gathered lines are not checked against their share again.
const GATHERED_OF_SPOOL: u64 = 16;

/// The sink; see the head of this file.
pub struct LokiSink {
    config: Loki,
    host: String,
    heads: BTreeMap<StreamId, (SourceHead, Arc<str>)>,
    writer: spool::Writer,
    spool_dir: PathBuf,
    /// Lines of taken batches that are not in the spool yet.
    gathered: Gathered,
    /// The next records, for which there was no room.
    waiting: Vec<format::Record>,
    /// Batches that were taken since the last commit, by how far they are.
    batches: Batches,
    /// Dropped bytes not reported yet, and when the last report was.
    dropped_bytes: u64,
    dropped_told: Option<Instant>,
    metrics: Arc<Metrics>,
    push: PushThread,
}

/// Taken batches that are not acknowledged, in order.
#[derive(Debug, Default)]
struct Batches {
    /// On disk, though later ones are not.
    safe: usize,
    /// In the spool, and not synced.
    put: usize,
    /// Not in the spool.
    gathered: usize,
}

impl Batches {
    fn on_put(&mut self) {
        self.put += std::mem::take(&mut self.gathered);
    }

    fn on_synced(&mut self) {
        self.safe += std::mem::take(&mut self.put);
    }
}

impl LokiSink {
    /// Opens the spool and starts the thread that empties it. `had_lines`: a checkpoint says that lines were put into it.
    ///
    /// # Errors
    /// What can't work from the start: no directory for the spool, an unreadable certificate or token.
    pub fn open(
        config: &Loki,
        (data_dir, had_lines): (&Path, bool),
        metrics: &Arc<Metrics>,
        status: &Arc<Status>,
        claims: &Claims,
    ) -> io::Result<LokiSink> {
        let client = Client::new(config, claims.clone())?;
        let spool_dir = data_dir.join("spool").join(NAME);
        let opened = spool::open(
            &spool_dir,
            &config.spool,
            spool::SpoolOwner { claims: claims.clone(), owner: Owner::Sink(NAME.to_owned()) },
        );
        let spool::Opened { writer, reader, notes, is_new } = opened.map_err(|error| {
            io::Error::new(error.kind(), format!("opening the spool {}: {error}", spool_dir.display()))
        })?;
        for note in notes {
            tracing::warn!("spool {}: {note}", spool_dir.display());
        }
        if is_new && had_lines {
            metrics.possibly_lost(LossReason::SpoolDamaged);
            tracing::error!(
                "spool {}: it is gone, though the checkpoint says that lines were put into it: those that Loki did not have yet \
                 are lost, and nobody knows how many; leave data_dir alone, or remove all of it",
                spool_dir.display()
            );
        }
        metrics.expect_network_sink(NAME);
        let limits = [
            (&metrics.spool_limit_bytes, config.spool.bytes_max),
            (&metrics.dead_letters_limit_bytes, config.dead_letter_bytes_max),
        ];
        limits.into_iter().for_each(|(gauge, max)| gauge.with_label_values(&[NAME]).set(max as i64));
        let letters = DeadLetters::new(data_dir, config.dead_letter_bytes_max);
        let push = pusher::start(config, client, reader, letters, Arc::clone(metrics), Arc::clone(status))?;
        Ok(LokiSink {
            config: config.clone(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            heads: BTreeMap::new(),
            writer,
            gathered: Gathered::new(Times::open(&spool_dir, is_new)),
            spool_dir,
            waiting: Vec::new(),
            batches: Batches::default(),
            dropped_bytes: 0,
            dropped_told: None,
            metrics: Arc::clone(metrics),
            push,
        })
    }

    /// Puts what was gathered into the spool, all of it or nothing: what is there will be delivered, so it must be acknowledged,
    /// or it comes twice. Only where it is more than the spool can ever hold, a part of it goes first.
    fn put(&mut self) -> Result<(), SinkError> {
        let time_ms = spool::unix_ms();
        let packed = |chunk: Chunk| {
            let payload = (&*chunk.head(), &*chunk.entries);
            format::Record::new(chunk.label_set, time_ms, chunk.tenant, chunk.lines, payload)
        };
        while let Some(chunk) = self.gathered.pop() {
            self.waiting.push(packed(chunk));
        }
        let mut put = self.writer.append(&self.waiting);
        if put.is_err() && self.writer.bytes() == 0 {
            put = self.put_what_fits();
        }
        if let Err(error) = put {
            let failed = match error {
                // All is said: where that was tells nobody anything.
                AppendError::Full => SinkError {
                    known: Some(Fault::SpoolFull),
                    ..SinkError::retry_all(
                        "",
                        io::Error::other(format!(
                            "the spool is full ({}) and waits for Loki; other outputs go on; logs keep rotating, and what rotates away \
                         unread is lost; get Loki running again, raise sinks.loki.spool.max_size, or keep more of the logs",
                            ByteSize(self.config.spool.bytes_max).display().iec()
                        )),
                    )
                },
                AppendError::Io(error) => self.failed("putting lines into", error),
            };
            // What is there already must be delivered, else no room would ever come.
            self.sync()?;
            return Err(failed);
        }
        self.waiting.clear();
        self.batches.on_put();
        self.declare_dropped();
        Ok(())
    }

    /// It is too large even for an empty spool: as a whole it would never be written.
    fn put_what_fits(&mut self) -> Result<(), AppendError> {
        let mut put = 0;
        let outcome = self.waiting.iter().try_for_each(|record| {
            self.writer.append(std::slice::from_ref(record))?;
            put += 1;
            Ok(())
        });
        self.waiting.drain(..put);
        outcome
    }

    fn sync(&mut self) -> Result<(), SinkError> {
        let committed = self.writer.commit();
        self.push.wake();
        committed.map_err(|source| self.failed("syncing", source))?;
        self.batches.on_synced();
        Ok(())
    }

    fn failed(&self, what: &str, source: io::Error) -> SinkError {
        let is_disk_full = spool::is_disk_full(&source);
        let error = SinkError::of_file(what, self.spool_dir.clone(), "data_dir", self.explain(source));
        SinkError { kind: SinkErrorKind::RetryAll, is_disk_full, ..error }
    }

    /// Says of a full disk what of it the spool has, and what to do.
    fn explain(&self, error: io::Error) -> io::Error {
        if !spool::is_disk_full(&error) {
            return error;
        }
        let of_spool = self.writer.bytes();
        let what = if of_spool == 0 {
            // Loki can't give any room back.
            format!(
                "the disk of data_dir is full ({error}), and the spool has nothing on it: no line goes to Loki, and what rotates \
                 away unread is lost; free enough space there for a request and a checkpoint, or put data_dir on a larger \
                 disk. It failed at"
            )
        } else {
            format!(
                "the disk of data_dir is full ({error}); {:.1} MiB of it are lines that wait for Loki, and each request that Loki \
                 takes gives room back; logs keep rotating, and what rotates away unread is lost; free room there, repair Loki, or \
                 lower sinks.loki.spool.max_size to what the disk has. It failed at",
                of_spool as f64 / f64::from(1 << 20)
            )
        };
        // No system's error any more, for which the general hint would follow.
        io::Error::other(what)
    }

    /// Whether each label set of a batch still has room in its share of the spool. It counts as put in then.
    fn take_shares(&self, head: &SourceHead, batch: &Batch) -> Result<(), SinkError> {
        if !self.writer.has_shares() {
            return Ok(());
        }
        for part in encode::label_sets(head, batch) {
            if !self.writer.take_share(part.label_set, part.bytes) {
                let full = SinkError::retry(
                    format!(
                        "for {}: Loki holds this label set back, or accepts its lines more slowly than they are printed \
                         (sink_loki_delivery says which), and one label set may fill half of sinks.loki.spool.max_size; \
                         its sources wait in their logs, and what rotates away there unread is lost",
                        report::short(&part.labels)
                    ),
                    io::Error::other("the share of the spool is full"),
                );
                return Err(SinkError { known: Some(Fault::SpoolShareFull), ..full });
            }
        }
        Ok(())
    }

    /// Counted at once, and said once a minute.
    fn declare_dropped(&mut self) {
        let bytes = self.writer.take_dropped_bytes();
        if bytes > 0 {
            self.metrics.lost(LossReason::SpoolFull, bytes);
            self.dropped_bytes += bytes;
        }
        let is_time = self.dropped_told.is_none_or(|told| told.elapsed() >= Duration::from_secs(60));
        if self.dropped_bytes > 0 && is_time {
            self.dropped_told = Some(Instant::now());
            let bytes = std::mem::take(&mut self.dropped_bytes);
            tracing::warn!(
                bytes,
                "loki: the spool is full, so its oldest lines are dropped (spool.when_full: drop_oldest); get Loki \
                 running again or raise sinks.loki.spool.max_size"
            );
        }
    }
}

impl Sink for LokiSink {
    fn name(&self) -> &str {
        NAME
    }

    /// Each source waits for itself when a label set of its lines has used up its share of the spool.
    fn output_of(&self, source: &Source, _after_attach: bool) -> Option<Arc<str>> {
        self.heads.get(&source.id).map(|(_, output)| Arc::clone(output))
    }

    fn attach(&mut self, source: &Arc<Source>) -> Result<Option<OutputMark>, SinkError> {
        let head = SourceHead::new(&self.config, source, &self.host);
        if let Some(note) = head.tenant_note(&self.config, source, &self.host) {
            let container = source.container.as_ref().map(|container| container.name.as_str());
            let name = container.or(source.path.as_deref()).unwrap_or_default();
            tracing::warn!(name, "loki: {note}");
        }
        let output = Arc::from(format!("loki {}", source.id));
        self.heads.insert(source.id, (head, output));
        Ok(None)
    }

    /// Takes it into memory; [`Sink::commit`] makes it safe, and only then it is acknowledged.
    fn deliver(&mut self, batch: &Batch) -> Result<Delivered, SinkError> {
        // Before any of the batch was taken: if this fails, all of it is delivered again.
        let gathered_max = (self.config.spool.bytes_max / GATHERED_OF_SPOOL).min(GATHERED_BYTES_MAX);
        if self.gathered.bytes() as u64 >= gathered_max {
            self.put()?;
        }
        let made;
        let head = match self.heads.get(&batch.source.id) {
            Some((head, _)) => head,
            None => {
                made = SourceHead::new(&self.config, &batch.source, &self.host);
                &made
            }
        };
        self.take_shares(head, batch)?;
        let counts = encode::encode(&self.config, head, batch, &mut self.gathered);
        self.batches.gathered += 1;
        Ok(Delivered { mark: None, counts })
    }

    fn commit(&mut self) -> Result<(), SinkError> {
        self.put()?;
        self.sync()?;
        // All are acknowledged now.
        self.batches = Batches::default();
        Ok(())
    }

    fn take_safe(&mut self) -> usize {
        std::mem::take(&mut self.batches.safe)
    }

    fn gathers(&self) -> Option<Duration> {
        Some(GATHER)
    }

    fn is_network(&self) -> bool {
        true
    }

    fn detach(&mut self, stream: StreamId) {
        self.heads.remove(&stream);
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        // What could not be put in until now is not put in any more: nobody would acknowledge it, and it would come twice.
        let synced = self.sync();
        self.dropped_told = None;
        self.declare_dropped();
        // Before the push thread ends, which takes its time: nothing is given a time any more.
        if let Err(error) = self.gathered.times.save(&self.spool_dir) {
            tracing::warn!(
                "loki: saving which times were given to lines: {error}; after a restart, lines with times of \
                 the last second get times some microseconds later"
            );
        }
        self.push.stop();
        synced
    }
}
