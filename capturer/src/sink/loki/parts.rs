//! Splits a request before it is sent, if some of its lines are too old, or only few may be sent at once. Part of
//! [`Delivery`]; pure.

use std::collections::VecDeque;

use prost::Message as _;

use super::body_limit::lines_within;
use super::delivery::{Delivery, Now};
use super::label_set::Part;
use super::nouns::{LEARNED_MS, letters};
use super::parcel::Parcel;
use super::push::EntryAdapter;
use super::{refusals, wire};
use crate::decode::timestamp;
use crate::settings::MaxLineAge;
use crate::telemetry::metrics::DeadLetterReason;

impl Delivery {
    /// A request as parts: lines that are too old to be sent, and what may be sent at once of a limited label set, or where
    /// only small requests get through. What was learned holds also for a record of the spool that is larger.
    /// It has the lines `at` these numbers, and with those that are gone or decided it covers the span.
    pub(super) fn parts(
        &self,
        now: Now,
        tenant: &str,
        lines_max: usize,
        (begin, end): (usize, usize),
        (mut at, body): (Vec<u32>, Parcel),
    ) -> VecDeque<Part> {
        let oldest = self.oldest_to_send(now, tenant);
        let is_older = |ns: i64| oldest.as_ref().is_some_and(|(oldest, _)| ns < *oldest);
        let has_old = oldest.is_some() && wire::oldest_ns(&body.request()).is_some_and(is_older);
        let (covers, lines) = (end - begin, at.len());
        let small_enough = covers <= lines_max || lines_max >= self.limits.batch_lines;
        let bytes_max = if self.body_limit.is_lowered() { self.body_limit.bytes() } else { usize::MAX };
        let small_enough = small_enough && (body.len() <= bytes_max || lines <= 1);
        if small_enough && !has_old {
            return [Part { covers, lines, at, body, ..Part::default() }].into();
        }
        let mut rest = refusals::decode(&body.request());
        let (mut parts, mut covered) = (VecDeque::new(), begin);
        while rest.lines() > 0 {
            let fit = lines_within(&rest, bytes_max, lines_max);
            let (some, others) = rest.split_at(fit);
            rest = others;
            let rest_at = at.split_off(some.lines());
            // A part without lines is done together with the one before it.
            let next = rest_at.first().map_or(end, |next| *next as usize);
            let mut part = Part { covers: next - covered, ..Part::default() };
            covered = next;
            let is_old = |entry: &EntryAdapter| is_older(entry.timestamp.unwrap_or_default().to_ns());
            let old: Vec<bool> = some.streams.iter().flat_map(|stream| &stream.entries).map(is_old).collect();
            let fresh = refusals::pick(&some, |index| !old[index]);
            let fresh_at = at.iter().zip(&old).filter(|(_, old)| !**old);
            part.at = fresh_at.map(|(at, _)| *at).collect();
            at = rest_at;
            if let Some((_, words)) = &oldest {
                let set_aside = refusals::pick(&some, |index| old[index]);
                let reason = |_| DeadLetterReason::TooOld;
                part.letters = letters(tenant, &set_aside, reason, 0, words);
            }
            part.lines = fresh.lines();
            part.body =
                if part.lines == 0 { Parcel::default() } else { Parcel::plain(fresh.encode_to_vec()) };
            parts.push_back(part);
        }
        // Records that were lost have no lines and are done all the same.
        if end > covered {
            parts.push_back(Part { covers: end - covered, ..Part::default() });
        }
        parts
    }

    /// Lines older than this are set aside, and why.
    fn oldest_to_send(&self, now: Now, tenant: &str) -> Option<(i64, String)> {
        match self.limits.line_age {
            MaxLineAge::Off => None,
            MaxLineAge::Fixed(age) => {
                let age_ns = i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
                let words = format!("not sent: older than sinks.loki.max_line_age ({age:?})");
                Some((now.unix_ns.saturating_sub(age_ns), words))
            }
            MaxLineAge::AsServerSays => {
                let (oldest, at) = self.tenants.get(tenant)?.oldest?;
                let fresh = now.ms.saturating_sub(at.ms) < LEARNED_MS;
                let shown = timestamp::format(oldest);
                let words = format!("not sent: Loki said that the oldest acceptable timestamp is {shown}");
                fresh.then_some((oldest, words))
            }
        }
    }
}
