//! Done once a second besides pushing: the cursor is saved, gauges are set, label sets that Loki holds back are kept to
//! their share of the spool, and health is told what is wrong.

use std::time::{Duration, Instant};

use super::super::NAME;
use super::super::delivery::ENTRIES_MAX;
use super::super::report::Report;
use super::super::summary;
use super::{COMPONENT, Pusher, parcel};
use crate::settings::WhenFull;
use crate::sink::spool::{Found, Loaded, Position, Shares, is_disk_full, unix_ms};
use crate::telemetry::fault::Fault;
use crate::telemetry::losses::SHOWN_MS;
use crate::telemetry::metrics::{LossReason, PushFailure};
use crate::telemetry::status::HealthState;

/// How often the size of the dead letters is checked.
const LETTERS_LOOK: Duration = Duration::from_secs(10);

/// How long health tells that somebody removed files of the spool: as long as it tells of a loss.
const GONE_SHOWN: Duration = Duration::from_millis(SHOWN_MS);

/// Problems with the spool's files.
#[derive(Default)]
pub(super) struct SpoolTrouble {
    /// Why the cursor can't be saved.
    unsaved: Option<String>,
    /// Why the names of its files can't be checked.
    unseen: Option<String>,
    /// What somebody removed, and when this was noticed.
    gone: Option<(Instant, String)>,
}

impl SpoolTrouble {
    fn wrong(&self) -> Vec<(Fault, String)> {
        let gone = self.gone.as_ref().filter(|(seen, _)| seen.elapsed() < GONE_SHOWN);
        let gone = gone.map(|(_, text)| (Fault::SpoolRemoved, text.clone()));
        let unsaved = self.unsaved.clone().map(|text| (Fault::SpoolUnsaved, text));
        let unseen = self.unseen.clone().map(|text| (Fault::SpoolRemoved, text));
        [unsaved, unseen, gone].into_iter().flatten().collect()
    }
}

/// Logs new problems, each once.
fn begin(trouble: &mut Option<String>, text: Option<String>) {
    if let Some(text) = text.as_ref().filter(|text| trouble.as_ref() != Some(text)) {
        tracing::warn!("loki: {text}");
    }
    *trouble = text;
}

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
        self.look_after_spool();
        self.share_out();
        self.metrics.spool_bytes.with_label_values(&[NAME]).set(self.reader.bytes() as i64);
        if self.letters_looked_at.is_none_or(|at| at.elapsed() >= LETTERS_LOOK) {
            self.letters_looked_at = Some(Instant::now());
            let bytes = self.letters.bytes().unwrap_or(0);
            self.metrics.dead_letters_bytes.with_label_values(&[NAME]).set(bytes as i64);
            if bytes == 0 {
                self.summary.none_is_kept();
            }
        }
        let oldest = self.reader.oldest_ms().map_or(0, |time_ms| unix_ms().saturating_sub(time_ms) / 1000);
        self.metrics.spool_lag_seconds.with_label_values(&[NAME]).set(oldest as i64);
        let now = self.now();
        self.summary.turn(now.ms).into_iter().for_each(|told| tracing::warn!("loki: {told}"));
        self.tell();
    }

    fn look_after_spool(&mut self) {
        let found = self.reader.look();
        let unseen = found.as_ref().err().map(|error| {
            format!(
                "files of the spool were removed and can't be put back: {error}; a stop now would lose lines: repair data_dir"
            )
        });
        begin(&mut self.spool_trouble.unseen, unseen);
        if let Ok(Some(found)) = found {
            self.on_gone(found);
        }
        for (at, lines) in self.delivery.done_in_part() {
            self.reader.done_in_part(at, lines);
        }
        let unsaved = self.reader.forget().err().map(|error| {
            let cure = if is_disk_full(&error) {
                format!(
                    "the disk of data_dir is full; the spool has {:.1} MiB of it, which become free as Loki takes lines: free some room there",
                    self.reader.bytes() as f64 / f64::from(1 << 20)
                )
            } else {
                "repair the disk of data_dir, or the rights there".to_owned()
            };
            format!("saving how far the spool was delivered: {error}; a crash now would repeat lines; {cure}")
        });
        begin(&mut self.spool_trouble.unsaved, unsaved);
    }

    /// Somebody removed files of the spool.
    fn on_gone(&mut self, Found { put_back, lost, lost_bytes }: Found) {
        if lost_bytes > 0 {
            self.metrics.lost(LossReason::SpoolDamaged, lost_bytes);
        }
        let what = if lost > 0 {
            format!(
                "{lost} of its files could not be put back, and {lost_bytes} bytes that Loki did not have yet are lost"
            )
        } else {
            "what Loki did not have yet is on disk again, and nothing is lost".to_owned()
        };
        let text = format!(
            "somebody removed the spool, or data_dir with it, while the agent ran ({put_back} files put back): {what}; leave \
             data_dir alone while the agent runs"
        );
        tracing::error!("loki: {text}");
        self.spool_trouble.gone = Some((Instant::now(), text));
    }

    /// Label sets that Loki holds back while it takes others' lines may fill half of the spool, each its share.
    fn share_out(&mut self) {
        let waiting = self.delivery.held_back();
        let bytes_max = self.spool.bytes_max;
        if self.spool.when_full == WhenFull::DropOldest {
            let oldest = self.reader.oldest_segment();
            if oldest > std::mem::replace(&mut self.oldest_segment, oldest) {
                // The writer has counted them. Health would go on saying that they wait.
                let places = self.delivery.give_up_before(oldest);
                places.into_iter().for_each(|at| self.reader.done(at));
            }
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
        let mut faults = report.faults.clone();
        faults.extend(self.summary.faults());
        for (fault, text) in self.spool_trouble.wrong() {
            wrong.push(text);
            faults.push(fault);
        }
        let url = self.client.shown_url();
        let message = match (wrong.is_empty(), self.delivery.accepted_lines()) {
            // That names the host, and must begin with what is wrong.
            (false, _) if report.reasons.first() == Some(&PushFailure::Unreachable) => wrong.join("; "),
            (false, _) if report.wrong.is_empty() => wrong.join("; "),
            (false, _) => format!("{}; sent to {url}", wrong.join("; ")),
            (true, 0) if !self.delivery.was_up() && !self.delivery.is_empty() => {
                format!("{url}: asking Loki whether it takes lines; lines wait for its answer")
            }
            (true, 0) if !self.delivery.was_up() => "asking Loki whether it takes lines".to_owned(),
            (true, 0) if self.delivery.is_empty() => "Loki answers; no line has come yet".to_owned(),
            (true, 0) => "Loki answers; the first lines are on their way".to_owned(),
            (true, accepted) if self.last.trouble_at == Some(accepted) && !self.delivery.is_empty() => {
                "Loki answers again; lines wait for their turn".to_owned()
            }
            (true, _) => report.note.clone().unwrap_or_else(|| "delivers".to_owned()),
        };
        let news = self.delivery.body_limit_news();
        news.into_iter().for_each(|news| tracing::warn!(component = COMPONENT, "{news}"));
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
                trouble_at = None;
            }
            None => {}
        }
        if message != self.last.message {
            if wrong.is_empty() && report.note.is_some() {
                self.status.set_note(COMPONENT, message.clone());
            } else {
                let state = if wrong.is_empty() { HealthState::Well } else { HealthState::Bad };
                self.status.set_faults(COMPONENT, state, &faults, message.clone());
            }
            self.status.hold_sink(NAME, held);
        }
        self.status.set_waits_for(COMPONENT, &report.waits_for);
        self.last = LastReport { report, message, trouble_at };
    }
}
