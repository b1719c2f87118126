//! The words of a row in `/api/v1/streams`: the state of the source with the cause first, and how much attention it
//! needs. The status page and `capturer top` both show these, so they can't differ. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::cause::Cause;
use crate::model::docker::EngineFault;
use crate::telemetry::status::{Health, Snapshot, StreamRow};
use crate::telemetry::stream_row::Blocked;
use crate::text::age::age_text;
use crate::text::ids::briefly;

/// A read of a file that takes this long is worth showing.
const OPERATION_IS_LONG_MS: u64 = 1_000;
/// The operation of a stream that waits for its pipeline's rate limit.
pub const RATE_LIMIT: &str = "waiting (rate_limit)";
/// The cause of a new connection if nothing is wrong.
pub const PLANNED: &str = "planned rotation";

/// How much attention a source needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attention {
    /// It needs none.
    #[default]
    None,
    /// Lines are late, or some are left out on purpose.
    Some,
    /// Lines wait or were lost, and somebody has to act.
    Much,
}

/// What is added to a row.
#[derive(Debug, Serialize)]
pub struct Words {
    /// Its state, and why.
    pub says: String,
    /// 0 = none, 1 = lines are late or left out, 2 = lines wait or are lost.
    pub attention: u8,
    /// It waits for something that went wrong, or is held back. Another group of sinks may still read the same source.
    pub waits: bool,
    /// What happens to its lines in this group of sinks while another group waits, if it is more than that reading goes
    /// on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub besides: String,
    /// Nobody knows how much is unread.
    pub unknown: bool,
}

/// What all rows of a snapshot have in common.
#[derive(Debug, Default)]
pub struct RowContext<'a> {
    /// dockerd does not answer. It writes the files of containers, so a file read to its end does not mean that nothing
    /// is missing.
    dockerd_is_silent: bool,
    /// Messages of components that are not well.
    components: BTreeMap<&'a str, &'a str>,
}

impl<'a> RowContext<'a> {
    /// From a snapshot, and from health with titles.
    pub fn new(snapshot: &Snapshot, components: &'a BTreeMap<String, Health>) -> RowContext<'a> {
        let docker = &snapshot.docker;
        let bad = components.iter().filter(|(name, health)| !health.ok && name.starts_with("sink_"));
        let titles =
            bad.filter_map(|(name, health)| Some((name.as_str(), health.told.as_ref()?.title.as_str())));
        RowContext {
            dockerd_is_silent: docker.enabled
                && !docker.reachable
                && matches!(docker.fault, EngineFault::Silent { .. }),
            components: titles.collect(),
        }
    }

    /// Why a sink takes nothing, in few words.
    fn why(&self, sink: &str) -> Option<&'a str> {
        let of_sink = self.components.get(format!("sink_{sink}").as_str()).copied();
        of_sink.or_else(|| self.why_not_delivered(sink))
    }

    /// Why the server of a network sink takes nothing; meanwhile the sink puts lines into its spool.
    fn why_not_delivered(&self, sink: &str) -> Option<&'a str> {
        self.components.get(format!("sink_{sink}_delivery").as_str()).copied()
    }

    /// That a sink reads on does not mean that its lines arrive.
    fn besides(&self, row: &StreamRow) -> String {
        if row.sinks.iter().all(|sink| self.why_not_delivered(sink).is_none()) {
            return String::new();
        }
        let each = row.sinks.iter().map(|sink| match self.why_not_delivered(sink) {
            None => format!("{sink} goes on"),
            Some(why) => format!("lines for {sink} wait in its spool: {}", lower(why)),
        });
        each.collect::<Vec<_>>().join("; ")
    }

    /// The words for a row.
    pub fn words(&self, row: &StreamRow) -> Words {
        let doubtful = self.dockerd_is_silent && row.mode == "file" && !row.container_id.is_empty();
        let attention = attention(row).max(if doubtful { Attention::Some } else { Attention::None });
        let no_access = !row.now.set_aside.is_empty() || is_failing(row) || row.state == "not captured";
        Words {
            says: self.says(row, doubtful),
            attention: attention as u8,
            waits: !row.now.held_up.is_empty() || matches!(row.now.blocked, Some(Blocked::Output(..))),
            besides: self.besides(row),
            unknown: doubtful
                || ((no_access || row.now.lacks_descriptor) && row.lag_bytes.unwrap_or_default() == 0),
        }
    }

    fn says(&self, row: &StreamRow, doubtful: bool) -> String {
        let now = &row.now;
        if row.state == "not captured" {
            return format!("not captured: {}", row.cause);
        }
        if !now.set_aside.is_empty() {
            return format!("waits: {}", briefly(&now.set_aside));
        }
        if is_failing(row) {
            return waits_for(&now.last_error, now.last_error_short.as_ref());
        }
        if !now.held_up.is_empty() {
            return self.held_up(row);
        }
        if !now.left_out.is_empty() {
            return format!("left out: {}", now.left_out);
        }
        match &now.blocked {
            Some(Blocked::Output(text, short) | Blocked::NoDocker(text, short)) => {
                return waits_for(text, short.as_ref());
            }
            Some(Blocked::Docker { waited_s }) => {
                return waits_for("", Some(&Cause::NoAnswer { waited_s: *waited_s }));
            }
            None => {}
        }
        if now.lacks_descriptor {
            return "waits: no file descriptor is free".to_owned();
        }
        if now.waits_its_turn {
            return "waits its turn: too many files for the descriptors".to_owned();
        }
        if now.operation == RATE_LIMIT {
            let ms = now.operation_deadline_ms.unwrap_or_default();
            return format!(
                "waits: rate limit of its pipeline, next line in {}",
                age_text(ms.div_ceil(1000))
            );
        }
        if row.cause.as_ref() == PLANNED && row.state != "following" {
            return "reopening (planned)".to_owned();
        }
        if row.state != "following" {
            return format!("{}: {}", row.state, briefly(&row.cause));
        }
        if doubtful {
            return "lines may wait in dockerd".to_owned();
        }
        // An operation with a timer ends by itself, and says nothing about a fault.
        match now.operation_age_ms.filter(|age| *age >= OPERATION_IS_LONG_MS && !now.operation.is_empty()) {
            Some(age) => format!("follows: {} for {}", now.operation, age_text(age / 1000)),
            None if row.mode == "api" => "follows over the API".to_owned(),
            None => "follows its file".to_owned(),
        }
    }

    /// The core knows that a sink takes nothing; the sink has reported why.
    fn held_up(&self, row: &StreamRow) -> String {
        let why = row.sinks.iter().find_map(|sink| Some((sink, self.why(sink)?)));
        match why {
            Some((sink, why)) => format!("{sink} waits: {}", lower(why)),
            None => format!("waits: {}", row.now.held_up),
        }
    }
}

/// It was opened again where it follows, whatever its last error was. Its failures are counted on until it has done so for a
/// while, because they make the next pause longer.
fn is_failing(row: &StreamRow) -> bool {
    row.failures > 0 && row.state != "following" && !row.now.last_error.is_empty()
}

fn attention(row: &StreamRow) -> Attention {
    let now = &row.now;
    let held = now.blocked.is_some() || now.lacks_descriptor;
    let is_told = !now.set_aside.is_empty() || !now.held_up.is_empty();
    let is_unread = row.state == "not captured" && now.left_out.is_empty();
    let fails = row.failures > 0 && row.state != "following";
    if fails || row.counts.losses > 0 || held || is_told || is_unread {
        return Attention::Much;
    }
    // What is skipped for its age is skipped on purpose.
    let is_left_out = !now.left_out.is_empty() && !now.left_out_for_age;
    let is_late = now.operation == RATE_LIMIT || now.waits_its_turn;
    if is_left_out || is_late { Attention::Some } else { Attention::None }
}

/// In a narrow row the end is cut: so the cause comes first, in the fewest words. The details have the whole of it.
fn waits_for(text: &str, short: Option<&Cause>) -> String {
    format!("waits: {}", short.map_or_else(|| briefly(text), Cause::words))
}

/// A title for the middle of a sentence.
fn lower(title: &str) -> String {
    let is_word = title.chars().nth(1).is_some_and(|sign| sign.is_ascii_lowercase() || sign == ' ');
    let is_name = title.starts_with("Loki") || title.starts_with("Docker");
    let mut signs = title.chars();
    match signs.next() {
        Some(first) if is_word && !is_name => first.to_lowercase().chain(signs).collect(),
        _ => title.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::rare::Rare;
    use crate::telemetry::fault::Fault;
    use crate::telemetry::metrics::PushFailure;
    use crate::telemetry::status::StandingFault;
    use crate::telemetry::stream_row::{RowNow, StreamCounts};

    fn row(state: &'static str, cause: &str, now: RowNow) -> StreamRow {
        let sinks = ["loki".to_owned()].into();
        let now: Rare<RowNow> = {
            let mut rare = Rare::default();
            *rare = now;
            rare
        };
        StreamRow {
            name: "web".into(),
            state,
            cause: cause.into(),
            mode: "file",
            sinks,
            now,
            ..StreamRow::default()
        }
    }

    fn told(component: &str, fault: Fault) -> (String, Health) {
        let title = crate::telemetry::health_text::title(component, fault, "");
        let faults = vec![StandingFault { fault, title, since_ms: 0 }];
        let health = Health { faults, ..Health::new(false, "") };
        let told = Some(crate::telemetry::health_text::HealthText::of(component, &health));
        (component.to_owned(), Health { told, ..health })
    }

    fn check(row: &StreamRow, says: &str, attention: Attention) {
        let words = RowContext::default().words(row);
        assert_eq!((words.says.as_str(), words.attention), (says, attention as u8));
    }

    #[test]
    fn a_source_that_waits_says_for_what() {
        let limited =
            RowNow { operation: RATE_LIMIT, operation_deadline_ms: Some(2_760_000), ..RowNow::default() };
        check(
            &row("following", "delivering", limited),
            "waits: rate limit of its pipeline, next line in 46 min",
            Attention::Some,
        );
        let full = "No space left on device (os error 28) writing /o/a.log: free some room";
        let blocked = Some(Blocked::Output(full.into(), Some(Cause::NoRoom)));
        let full = RowNow { blocked, ..RowNow::default() };
        check(&row("following", "x", full), "waits: disk full", Attention::Much);
        // What a name or a server's answer says is no cause.
        let said = "writing /o/No space left on device.log: EIO";
        let other = RowNow { blocked: Some(Blocked::Output(said.into(), None)), ..RowNow::default() };
        check(&row("following", "x", other), &format!("waits: {said}"), Attention::Much);
        let lacks = RowNow { lacks_descriptor: true, ..RowNow::default() };
        check(&row("opening", "x", lacks), "waits: no file descriptor is free", Attention::Much);
        check(&row("opening", PLANNED, RowNow::default()), "reopening (planned)", Attention::None);
        check(&row("following", "x", RowNow::default()), "follows its file", Attention::None);
        // A word in a text changes nothing.
        let old = "older than ignore_older".to_owned();
        let older = RowNow { left_out: old.clone(), ..RowNow::default() };
        check(&row("following", "x", older), "left out: older than ignore_older", Attention::Some);
        check(
            &row("following", "dockerd does not answer", RowNow::default()),
            "follows its file",
            Attention::None,
        );
        let old = RowNow { left_out: old, left_out_for_age: true, ..RowNow::default() };
        check(&row("following", "x", old), "left out: older than ignore_older", Attention::None);
        let lost = StreamRow {
            counts: StreamCounts { losses: 1, ..StreamCounts::default() },
            ..row("following", "x", RowNow::default())
        };
        check(&lost, "follows its file", Attention::Much);
    }

    /// One state once had three wordings: in the stream, its last error, and `top`.
    #[test]
    fn a_silent_dockerd_is_worded_in_one_way() {
        let says = "waits: no answer from dockerd within 5 s";
        let error = format!("no answer to GET /containers/{}/logs?stdout=1 within 5 s", "a".repeat(64));
        let failing = StreamRow {
            failures: 1,
            ..row(
                "opening",
                "x",
                RowNow {
                    last_error: error.clone(),
                    last_error_short: Some(Cause::NoAnswer { waited_s: 5 }),
                    ..RowNow::default()
                },
            )
        };
        check(&failing, says, Attention::Much);
        let silent = RowNow { blocked: Some(Blocked::Docker { waited_s: 5 }), ..RowNow::default() };
        check(&row("waiting", "x", silent), says, Attention::Much);
    }

    #[test]
    fn the_sink_says_why_it_takes_nothing() {
        let held = row(
            "following",
            "x",
            RowNow { held_up: "loki has not taken it".to_owned(), ..RowNow::default() },
        );
        check(&held, "waits: loki has not taken it", Attention::Much);
        let components = [told("sink_loki", Fault::SpoolFull)].into();
        let about = RowContext::new(&Snapshot::default(), &components);
        let words = about.words(&held);
        assert_eq!((words.says.as_str(), words.waits), ("loki waits: the spool is full", true));
    }

    /// A row once said "loki goes on" beside a full disk of the files, while Loki refused every push.
    #[test]
    fn what_goes_on_beside_a_sink_that_waits_is_true_in_each_state() {
        let follows = row("following", "x", RowNow::default());
        for (failure, expected) in [
            (PushFailure::Unreachable, "lines for loki wait in its spool: Loki cannot be reached"),
            (PushFailure::TimedOut, "lines for loki wait in its spool: Loki does not answer"),
            (PushFailure::Unauthorized, "lines for loki wait in its spool: Loki refuses the login (401)"),
            (PushFailure::StreamRateLimited, "lines for loki wait in its spool: Loki limits the rate (429)"),
        ] {
            let components = [told("sink_loki_delivery", Fault::Push(failure))].into();
            let words = RowContext::new(&Snapshot::default(), &components).words(&follows);
            assert_eq!((words.besides.as_str(), words.waits), (expected, false), "{failure:?}");
        }
        let words = RowContext::default().words(&follows);
        assert_eq!(words.besides, "", "it goes on");
    }

    /// After a restart of dockerd a row said for half a minute that it waited, while its lines came.
    #[test]
    fn what_is_over_is_not_told() {
        let was = RowNow { last_error: "connecting to /d.sock: refused".to_owned(), ..RowNow::default() };
        let again = StreamRow { failures: 4, ..row("following", "x", was.clone()) };
        check(&again, "follows its file", Attention::None);
        assert!(!RowContext::default().words(&again).unknown);
        let fails = StreamRow { failures: 4, ..row("waiting", "x", was) };
        check(&fails, "waits: connecting to /d.sock: refused", Attention::Much);
    }

    /// A zero that nobody knows looks like all is read.
    #[test]
    fn what_is_not_known_is_no_zero() {
        let denied = StreamRow {
            failures: 3,
            lag_bytes: Some(0),
            ..row(
                "waiting",
                "x",
                RowNow {
                    last_error: "no permission to read /a.log".to_owned(),
                    last_error_short: Some(Cause::NoPermission("/a.log".to_owned())),
                    ..RowNow::default()
                },
            )
        };
        let words = RowContext::default().words(&denied);
        assert_eq!((words.says.as_str(), words.unknown), ("waits: no permission: /a.log", true));
        assert!(!RowContext::default().words(&row("following", "x", RowNow::default())).unknown);
        let about = RowContext { dockerd_is_silent: true, ..RowContext::default() };
        let of_docker = StreamRow { container_id: "c".into(), ..row("following", "x", RowNow::default()) };
        let words = about.words(&of_docker);
        assert_eq!(
            (words.says.as_str(), words.attention, words.unknown),
            ("lines may wait in dockerd", 1, true)
        );
    }
}
