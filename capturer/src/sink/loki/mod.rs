//! The Loki sink: lines to Loki's push API, by way of a spool on disk.
//!
//! ```text
//! sink thread:  batch ─ encode.rs ─▶ chunks of one label set ─▶ spool (a batch is acknowledged when it is safe there)
//! push thread:  spool ─▶ delivery.rs (what, when, again) ◀─ verdicts.rs, answer.rs (what an answer means) ◀─ client.rs ◀─▶ Loki
//!                           └─ refused (refusals.rs: which of them) ─▶ dead letters
//! ```
//! `pusher.rs` is the thread, `client.rs` the network, `push.rs` the messages; the rest is pure. Lines arrive at least once, in order per label set: again are sent those whose answer was lost, those of a
//! refused request that were cut apart, and after a crash those since the last saved positions.

pub mod answer;
pub mod body;
pub mod by_hand;
pub mod client;
pub mod delivery;
pub mod encode;
mod lane;
mod nouns;
pub mod push;
mod pusher;
mod refusals;
mod report;
mod summary;
mod unescape;
mod verdicts;
pub mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::dead_letters::DeadLetters;
use super::spool::{self, AppendError, format};
use super::{Counts, Delivered, Sink, SinkError};
use crate::ledger::Owner;
use crate::ledger::claims::Claims;
use crate::model::record::{Batch, OutputMark, Source, StreamId};
use crate::settings::Loki;
use crate::telemetry::metrics::{LossReason, Metrics};
use crate::telemetry::status::Status;

use client::Client;
use encode::SourceHead;
use pusher::PushThread;

/// Its name in checkpoint, metrics and health.
pub const NAME: &str = "loki";
/// Batches wait so long for others before the spool is synced: ten syncs a second at most for a slow trickle.
const GATHER: Duration = Duration::from_millis(100);

/// See the module's head.
pub struct LokiSink {
    config: Loki,
    host: String,
    heads: BTreeMap<StreamId, (SourceHead, Arc<str>)>,
    writer: spool::Writer,
    spool_dir: PathBuf,
    /// Of batches that come again because the spool was full: what is not in it yet.
    left: BTreeMap<StreamId, Left>,
    /// Given up since that was said last, and when that was.
    dropped_bytes: u64,
    dropped_told: Option<Instant>,
    metrics: Arc<Metrics>,
    push: PushThread,
}

struct Left {
    seq: u64,
    records: VecDeque<format::Record>,
    counts: Counts,
}

impl LokiSink {
    /// Opens the spool and starts the thread that empties it.
    ///
    /// # Errors
    /// What can't work from the start: no directory for the spool, an unreadable certificate or token.
    pub fn open(
        config: &Loki,
        data_dir: &Path,
        metrics: &Arc<Metrics>,
        board: &Arc<Status>,
        claims: &Claims,
    ) -> io::Result<LokiSink> {
        let client = Client::new(config, claims.clone())?;
        let spool_dir = data_dir.join("spool").join(NAME);
        let opened = spool::open(
            &spool_dir,
            &config.spool,
            spool::Held { claims: claims.clone(), owner: Owner::Sink(NAME.to_owned()) },
        );
        let (writer, reader, notes) = opened.map_err(|error| {
            io::Error::new(error.kind(), format!("opening the spool {}: {error}", spool_dir.display()))
        })?;
        for note in notes {
            tracing::warn!("spool {}: {note}", spool_dir.display());
        }
        metrics.expect_network_sink(NAME);
        let limits = [
            (&metrics.spool_limit_bytes, config.spool.bytes_max),
            (&metrics.dead_letters_limit_bytes, config.dead_letter_bytes_max),
        ];
        limits.into_iter().for_each(|(gauge, max)| gauge.with_label_values(&[NAME]).set(max as i64));
        let letters = DeadLetters::new(data_dir, config.dead_letter_bytes_max);
        let push = pusher::start(config, client, reader, letters, Arc::clone(metrics), Arc::clone(board))?;
        Ok(LokiSink {
            config: config.clone(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            heads: BTreeMap::new(),
            writer,
            spool_dir,
            left: BTreeMap::new(),
            dropped_bytes: 0,
            dropped_told: None,
            metrics: Arc::clone(metrics),
            push,
        })
    }

    fn encode(&self, batch: &Batch) -> Left {
        let made;
        let head = match self.heads.get(&batch.source.id) {
            Some((head, _)) => head,
            None => {
                made = SourceHead::new(&self.config, &batch.source, &self.host);
                &made
            }
        };
        let (chunks, counts) = encode::encode(&self.config, head, batch);
        let time_ms = spool::unix_ms();
        let record = |chunk: encode::Chunk| format::Record {
            lane: chunk.lane,
            time_ms,
            tenant: chunk.tenant,
            lines: chunk.lines,
            payload: chunk.body,
        };
        Left { seq: batch.seq, records: chunks.into_iter().map(record).collect(), counts }
    }

    /// The spool takes nothing of anybody.
    fn all_wait(&self, source: io::Error) -> SinkError {
        SinkError::retry_all(format!("putting lines into {}", self.spool_dir.display()), source)
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
                "loki: the spool is full, its oldest lines are given up (spool.when_full: drop_oldest); mend Loki or raise sinks.loki.spool.max_size"
            );
        }
    }
}

impl Sink for LokiSink {
    fn name(&self) -> &str {
        NAME
    }

    /// Each source waits for itself when a label set of its lines has filled its share of the spool.
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

    fn deliver(&mut self, batch: &Batch) -> Result<Delivered, SinkError> {
        let left = self.left.remove(&batch.source.id).filter(|left| left.seq == batch.seq);
        let mut left = left.unwrap_or_else(|| self.encode(batch));
        while let Some(record) = left.records.front() {
            let error = match self.writer.append(record) {
                Ok(()) => {
                    left.records.pop_front();
                    continue;
                }
                Err(AppendError::OverShare) => SinkError::retry(
                    format!(
                        "of {}: Loki holds it back while it takes others' lines (sink_loki_delivery says why), and half of \
                         sinks.loki.spool.max_size is for such; its sources wait in their logs, and what rotates away there \
                         unread is lost",
                        report::short(&wire::labels(&record.payload))
                    ),
                    io::Error::other("the share of the spool is full"),
                ),
                Err(AppendError::Full) => self.all_wait(io::Error::other(format!(
                    "the spool is full and waits for Loki ({} MiB; logs rotate on meanwhile, and what rotates away unread is \
                     lost: mend Loki, raise sinks.loki.spool.max_size, or let the logs keep more),",
                    self.config.spool.bytes_max >> 20
                ))),
                Err(AppendError::Io(error)) => self.all_wait(error),
            };
            self.left.insert(batch.source.id, left);
            // What is there already must be delivered, else no room would ever come.
            self.commit()?;
            return Err(error);
        }
        self.declare_dropped();
        Ok(Delivered { mark: None, counts: left.counts })
    }

    fn commit(&mut self) -> Result<(), SinkError> {
        let committed = self.writer.commit();
        self.push.wake();
        committed
            .map_err(|source| SinkError::retry_all(format!("syncing {}", self.spool_dir.display()), source))
    }

    fn gathers(&self) -> Option<Duration> {
        Some(GATHER)
    }

    fn is_network(&self) -> bool {
        true
    }

    fn detach(&mut self, stream: StreamId) {
        self.heads.remove(&stream);
        self.left.remove(&stream);
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        let committed = self.commit();
        self.dropped_told = None;
        self.declare_dropped();
        self.push.stop();
        committed
    }
}
