//! What is done once a second beside pushing: the cursor is saved, gauges are set, label sets that Loki holds back are kept
//! to their share of the spool, and health is told what is wrong.

use std::time::{Duration, Instant};

use super::super::NAME;
use super::super::delivery::ENTRIES_MAX;
use super::super::report::Report;
use super::super::summary;
use super::{COMPONENT, Pusher, parcel};
use crate::settings::WhenFull;
use crate::sink::spool::{Loaded, Position, Shares, unix_ms};
use crate::telemetry::metrics::{LossReason, PushFailure};

/// How often the size of the dead letters is looked at.
const LETTERS_LOOK: Duration = Duration::from_secs(10);

/// What was last reported.
#[derive(Default)]
pub(super) struct LastReport {
    report: Report,
    message: String,
    /// How many lines had been accepted when something was last wrong; `None` = the log says that this is over.
    trouble_at: Option<u64>,
}

impl Pusher {
    /// Once a second, and at the end.
    pub(super) fn turn(&mut self) {
        self.metrics.heartbeat("loki_push");
        self.forget_done();
        if let Err(error) = self.reader.forget() {
            tracing::warn!(
                "loki: saving how far the spool was delivered: {error}; a crash now would repeat lines"
            );
        }
        self.share_out();
        self.metrics.spool_bytes.with_label_values(&[NAME]).set(self.reader.bytes() as i64);
        if self.letters_looked_at.is_none_or(|at| at.elapsed() >= LETTERS_LOOK) {
            self.letters_looked_at = Some(Instant::now());
            let bytes = self.letters.bytes().unwrap_or(0);
            self.metrics.dead_letters_bytes.with_label_values(&[NAME]).set(bytes as i64);
        }
        let oldest = self.reader.oldest_ms().map_or(0, |time_ms| unix_ms().saturating_sub(time_ms) / 1000);
        self.metrics.spool_lag_seconds.with_label_values(&[NAME]).set(oldest as i64);
        let now = self.now();
        self.summary.turn(now.ms).into_iter().for_each(|told| tracing::warn!("loki: {told}"));
        self.tell();
    }

    /// Label sets that Loki holds back while it takes others' lines may fill half of the spool, each its share.
    fn share_out(&mut self) {
        let waiting = self.delivery.held_back();
        let bytes_max = self.spool.bytes_max;
        if self.spool.when_full == WhenFull::DropOldest {
            for (label_set, bytes) in Shares::excess(&waiting, bytes_max) {
                let places = self.delivery.give_up(label_set, bytes);
                places.into_iter().for_each(|at| self.over_share(at));
            }
        }
        let shares = Shares::new(&waiting, bytes_max, ENTRIES_MAX as u64);
        self.reader.set_shares(match self.delivery.queued_while_answered() {
            Some(queued) => shares.and_half_for_each(bytes_max, queued),
            None => shares,
        });
    }

    fn over_share(&mut self, at: Position) {
        let loaded = self.reader.load(at);
        self.reader.done(at);
        match loaded {
            Ok(Loaded::Record(record)) => {
                let bytes = u64::from(record.payload_len);
                self.metrics.lost(LossReason::SpoolFull, bytes);
                let cure = "see why Loki holds this label set back, or raise sinks.loki.spool.max_size";
                let (labels, amount) = (parcel(record.clone()).labels(), (u64::from(record.lines), bytes));
                let told = self.summary.add(&labels, (summary::SPOOL_FULL, cure), amount, "");
                told.into_iter().for_each(|told| tracing::warn!("loki: {told}"));
            }
            Ok(Loaded::TooOld(record, bytes)) => self.too_old(&record, bytes),
            Ok(Loaded::Lost(bytes)) => self.metrics.lost(LossReason::SpoolDamaged, bytes),
            Ok(Loaded::Dropped) => {}
            Err(error) => tracing::error!("loki: reading lines of the spool again: {error}; they are lost"),
        }
    }

    /// Reports what is wrong when that changes, and when it is over.
    pub(super) fn tell(&mut self) {
        self.told_at = Instant::now();
        let report = self.delivery.report(self.now());
        let mut wrong = report.wrong.clone();
        wrong.extend(self.summary.recent());
        let url = self.client.shown_url();
        let message = match (wrong.is_empty(), self.delivery.accepted_lines()) {
            // That names the host, and must begin with what is wrong.
            (false, _) if report.reasons.first() == Some(&PushFailure::Unreachable) => wrong.join("; "),
            (false, _) => format!("{url}: {}", wrong.join("; ")),
            (true, 0) if !self.delivery.was_up() && !self.delivery.is_empty() => {
                format!("{url}: asking Loki whether it takes lines; lines wait for its answer")
            }
            (true, 0) if !self.delivery.was_up() => "asking Loki whether it takes lines".to_owned(),
            (true, 0) if self.delivery.is_empty() => "Loki answers; no line has come yet".to_owned(),
            (true, 0) => "Loki answers; the first lines are on their way".to_owned(),
            (true, accepted) if self.last.trouble_at == Some(accepted) && !self.delivery.is_empty() => {
                "Loki answers again; lines wait for their turn".to_owned()
            }
            (true, _) => "delivers".to_owned(),
        };
        let held = report.held.then(|| message.clone());
        let accepted = self.delivery.accepted_lines();
        let mut trouble_at = self.last.trouble_at;
        match report.reasons.first() {
            Some(reason) => {
                if report.reasons != self.last.report.reasons {
                    tracing::warn!(component = COMPONENT, reason = reason.as_str(), "{message}");
                }
                trouble_at = Some(accepted);
            }
            // An answer to an empty push delivers nothing yet.
            None if trouble_at.is_some_and(|at| accepted > at || self.delivery.is_empty()) => {
                tracing::info!(component = COMPONENT, "delivers again");
                trouble_at = None;
            }
            None => {}
        }
        if message != self.last.message {
            self.status.set_health(COMPONENT, wrong.is_empty(), message.clone());
            self.status.hold_sink(NAME, held);
        }
        self.last = LastReport { report, message, trouble_at };
    }
}
