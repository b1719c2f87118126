//! Pushes made from the command line, outside a running agent: the probe of `check --online`, and replayed dead letters.

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;

use prost::Message as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::answer::{Presence, PushOutcome, Verdict, judge, presence};
use super::client::{Client, Connection};
use super::parcel::Parcel;
use super::push::{EntryAdapter, LabelPairAdapter, PushRequest, StreamAdapter, Timestamp};
use crate::ledger::claims::Claims;
use crate::settings::Loki;
use crate::sink::dead_letters::Letter;

/// A client with a thread's runtime to itself.
pub struct ByHand {
    client: Client,
    connection: Option<Connection>,
    /// `None` = it depends on the line.
    tenant: Option<String>,
    tenant_default: String,
    /// `structured_metadata` is `{}`.
    without_metadata: bool,
    /// Signals that end it early.
    signals: Vec<Signal>,
    runtime: tokio::runtime::Runtime,
}

impl ByHand {
    /// Reads certificates and token.
    ///
    /// # Errors
    /// Names the file that can't be read.
    pub fn new(config: &Loki) -> io::Result<ByHand> {
        // A person waits.
        let patience = config.request_timeout.min(Duration::from_secs(10));
        let client = Client::new(&Loki { request_timeout: patience, ..config.clone() }, Claims::default())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        Ok(ByHand {
            client,
            connection: None,
            tenant: config.fixed_tenant(),
            tenant_default: config.tenant_default.clone(),
            without_metadata: config.structured_metadata.is_empty(),
            signals: Vec::new(),
            runtime,
        })
    }

    /// From now on a signal to end does not end the process, but is told by [`ByHand::was_signalled`].
    ///
    /// # Errors
    /// The system gives none.
    pub fn heed_signals(&mut self) -> io::Result<()> {
        let _runtime = self.runtime.enter();
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        self.signals = kinds.into_iter().map(signal).collect::<io::Result<_>>()?;
        Ok(())
    }

    /// Whether a signal has told it to end.
    pub fn was_signalled(&mut self) -> bool {
        let signals = &mut self.signals;
        self.runtime.block_on(async {
            // This lets the runtime process signals that have arrived.
            tokio::task::yield_now().await;
            poll_fn(|cx| Poll::Ready(signals.iter_mut().any(|signal| signal.poll_recv(cx).is_ready()))).await
        })
    }

    /// An empty push: a server that answers it as Loki does takes pushes. It has nothing in it that a limit could refuse, and
    /// a line would stay in Loki. `Err` says why not, and what to do.
    pub fn probe(&mut self) -> Result<String, String> {
        let url = self.client.shown_url();
        let tenant = self.tenant.clone().unwrap_or_default();
        match presence(&self.push(&tenant, &[]), self.tenant.is_none()) {
            Presence::Loki => {
                Ok(format!("{url} takes an empty push; what it refuses of lines shows when it gets some"))
            }
            Presence::AsksForTenant { words } => {
                let what = "is there; whether it takes lines depends on their tenants (sinks.loki.tenant_id)";
                Ok(format!("{url} {what}: {words}"))
            }
            Presence::No { words, .. } => Err(format!("{url}: {words}")),
        }
    }

    /// Sends a dead letter again, once.
    pub fn replay(&mut self, letter: &Letter) -> Verdict {
        // By the current config, which also applies to lines waiting in the spool.
        let metadata = letter.metadata.iter().filter(|_| !self.without_metadata);
        let entry = EntryAdapter {
            timestamp: Some(Timestamp::from_ns(letter.line_time_ns)),
            line: letter.line.clone(),
            structured_metadata: metadata
                .map(|(name, value)| LabelPairAdapter { name: name.clone(), value: value.clone() })
                .collect(),
        };
        let stream = StreamAdapter { labels: letter.labels.clone(), entries: vec![entry] };
        let tenant = match &self.tenant {
            Some(fixed) => fixed.clone(),
            None if letter.tenant.is_empty() => self.tenant_default.clone(),
            None => letter.tenant.clone(),
        };
        judge(&self.push(&tenant, &PushRequest { streams: vec![stream] }.encode_to_vec()))
    }

    fn push(&mut self, tenant: &str, body: &[u8]) -> PushOutcome {
        self.runtime.block_on(self.client.push(&mut self.connection, tenant, &Parcel::plain(body.to_vec())))
    }
}
