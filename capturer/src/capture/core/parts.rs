//! How the core calls its parts: each gets a context, and what it tells is handled at once.

use super::{Attaching, Capture, gauges, quiet_files};
use crate::capture::context::Context;
use crate::capture::discover;
use crate::capture::discover::Discovery;
use crate::capture::io::ConnId;
use crate::capture::stream::api::ApiSource;
use crate::capture::stream::file::FileSource;
use crate::capture::stream::{Kind, SourceEvent, State, Stream};
use crate::model::clock::Now;
use crate::model::record::StreamId;

impl Capture {
    pub(super) fn context(&mut self, now: Now, outlet: usize) -> Context<'_> {
        let credit = &mut self.outlets[outlet].credit;
        self.shared.context(now, &self.settings, &self.metrics, credit, self.tracker.memory())
    }

    pub(super) fn with_stream(
        &mut self,
        now: Now,
        id: StreamId,
        handler: impl FnOnce(&mut Stream, &mut Context<'_>),
    ) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let before = gauges::Counted::of(stream);
        let outlet = usize::from(stream.source.outlet.index);
        let (credit, memory) = (&mut self.outlets[outlet].credit, self.tracker.memory());
        let mut cx = self.shared.context(now, &self.settings, &self.metrics, credit, memory);
        handler(stream, &mut cx);
        let lost = self.metrics.take_source_losses();
        if let Some(conn) = stream.conn() {
            self.conns.insert(conn, id);
        }
        if stream.state() == State::Closed {
            self.closed.push(id);
        } else if stream.is_hungry() {
            self.outlets[outlet].hungry.push(id, matches!(stream.kind, Kind::File(_)));
        }
        self.sums.changed(stream, before);
        let (open, quiet, wants) = quiet_files::standing(stream);
        self.shared.open_files.note(id, open, quiet, wants, now.mono_ms);
        if self.attaching.get(&id).is_some_and(Attaching::is_prepared) {
            self.to_place.insert(id);
        }
        if !lost.is_empty() {
            self.note_losses_of(now, id, lost);
        }
    }

    pub(super) fn with_file(
        &mut self,
        now: Now,
        id: StreamId,
        handler: impl FnOnce(&mut FileSource, &mut Context<'_>, &mut Vec<SourceEvent>),
    ) {
        self.with_kind(now, id, |kind, cx, told| {
            if let Kind::File(file) = kind {
                handler(file, cx, told);
            }
        });
    }

    pub(super) fn with_api(
        &mut self,
        now: Now,
        id: StreamId,
        handler: impl FnOnce(&mut ApiSource, &mut Context<'_>, &mut Vec<SourceEvent>),
    ) {
        self.with_kind(now, id, |kind, cx, told| {
            if let Kind::Api(api) = kind {
                handler(api, cx, told);
            }
        });
    }

    fn with_kind(
        &mut self,
        now: Now,
        id: StreamId,
        handler: impl FnOnce(&mut Kind, &mut Context<'_>, &mut Vec<SourceEvent>),
    ) {
        self.with_stream(now, id, |stream, cx| stream.with_source(cx, handler));
    }

    pub(super) fn with_discovery(
        &mut self,
        now: Now,
        handler: impl FnOnce(&mut Discovery, &mut Context<'_>, &mut Vec<discover::DiscoveryEvent>),
    ) {
        let Some(mut discovery) = self.discovery.take() else { return };
        let mut told = Vec::new();
        handler(&mut discovery, &mut self.context(now, 0), &mut told);
        self.discovery = Some(discovery);
        for told in told {
            self.on_discovered(now, told);
        }
    }

    pub(super) fn with_events(
        &mut self,
        now: Now,
        conn: ConnId,
        handler: impl FnOnce(&mut Discovery, &mut Context<'_>, &mut Vec<discover::DiscoveryEvent>),
    ) {
        if self.discovery.as_ref().and_then(Discovery::conn) == Some(conn) {
            self.with_discovery(now, handler);
        }
    }
}
