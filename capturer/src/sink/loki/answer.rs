//! What an answer of Loki means for the request it answers: one table, pure.
//!
//! Loki names its reasons in words, not codes (Loki: pkg/validation/validate.go), so the words are looked for. What is
//! not recognized is still treated right by its status; only its name in the metrics is then `other`.

use std::time::Duration;

use crate::limits::LOKI_RETRY_AFTER_SECS_MAX;
use crate::metrics::{DeadLetterReason, PushFailure};

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer came.
    Status {
        /// Its code.
        code: u16,
        /// What it asked for with `Retry-After`.
        retry_after: Option<Duration>,
        /// The server's own words, cut at a bound.
        words: String,
    },
    /// None came; the request may have been taken all the same.
    Failed(PushFailure, String),
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All lines are Loki's now.
    Accepted,
    /// The same again after a pause, for as long as it takes.
    Retry {
        /// Why, by name.
        reason: PushFailure,
        /// At least so long.
        after: Duration,
        /// Why, for people.
        words: String,
    },
    /// The same again after a pause, but somebody has to mend something first.
    Hold {
        /// Why, by name.
        reason: PushFailure,
        /// Why and what to do, for people.
        words: String,
    },
    /// Some line of it will never be taken: cut the request until that line is alone.
    Refused {
        /// Why, by name.
        reason: DeadLetterReason,
        /// The status.
        code: u16,
        /// The server's own words.
        words: String,
    },
}

/// Judges an outcome.
pub fn judge(outcome: &Outcome) -> Verdict {
    let (code, retry_after, words) = match outcome {
        Outcome::Failed(reason, words) => {
            return Verdict::Retry { reason: *reason, after: Duration::ZERO, words: words.clone() };
        }
        Outcome::Status { code, retry_after, words } => (*code, *retry_after, words.trim()),
    };
    let said = if words.is_empty() { format!("status {code}") } else { format!("status {code}: {words}") };
    let hold = |reason, cure: &str| Verdict::Hold { reason, words: format!("{said}; {cure}") };
    let retry = |reason| Verdict::Retry {
        reason,
        after: retry_after.unwrap_or_default().min(Duration::from_secs(LOKI_RETRY_AFTER_SECS_MAX)),
        words: said.clone(),
    };
    match code {
        200..=299 => Verdict::Accepted,
        400 | 422 if contains(words, "structured metadata, but this feature is disallowed") => hold(
            PushFailure::MetadataDisallowed,
            "set sinks.loki.structured_metadata to {}, or allow it in Loki (limits_config.allow_structured_metadata)",
        ),
        400 | 413 | 422 => Verdict::Refused { reason: refusal(code, words), code, words: words.to_owned() },
        401 => hold(
            PushFailure::Unauthorized,
            "check sinks.loki.auth: user, password or token are missing, wrong or expired",
        ),
        403 => {
            hold(PushFailure::Forbidden, "check that this user or token may write, and sinks.loki.tenant_id")
        }
        404 => hold(PushFailure::NotFound, "check sinks.loki.url: Loki's push API is not there"),
        429 => retry(throttle(words)),
        408 => retry(PushFailure::TimedOut),
        500..=599 => retry(PushFailure::ServerError),
        _ => hold(PushFailure::Unexpected, "check sinks.loki.url: this is no answer of Loki's push API"),
    }
}

fn contains(words: &str, part: &str) -> bool {
    words.to_ascii_lowercase().contains(part)
}

/// By name why a 429 came.
fn throttle(words: &str) -> PushFailure {
    if contains(words, "per stream rate limit exceeded") {
        PushFailure::StreamRateLimited
    } else if contains(words, "maximum active stream limit exceeded") {
        PushFailure::StreamLimit
    } else {
        PushFailure::RateLimited
    }
}

/// By name why a line will never be taken.
fn refusal(code: u16, words: &str) -> DeadLetterReason {
    const TABLE: [(&str, DeadLetterReason); 14] = [
        ("max entry size", DeadLetterReason::LineTooLong),
        ("timestamp too old", DeadLetterReason::TooOld),
        ("entry too far behind", DeadLetterReason::TooFarBehind),
        ("out of order", DeadLetterReason::OutOfOrder),
        ("timestamp too new", DeadLetterReason::TooFarInFuture),
        ("label names; limit", DeadLetterReason::TooManyLabels),
        ("label name too long", DeadLetterReason::LabelNameTooLong),
        ("label value too long", DeadLetterReason::LabelValueTooLong),
        ("duplicate label name", DeadLetterReason::DuplicateLabel),
        ("error parsing labels", DeadLetterReason::InvalidLabels),
        ("at least one label pair", DeadLetterReason::InvalidLabels),
        ("missing required labels", DeadLetterReason::InvalidLabels),
        ("structured metadata", DeadLetterReason::MetadataTooLarge),
        ("too large", DeadLetterReason::BodyTooLarge),
    ];
    let named = TABLE.iter().find(|(part, _)| contains(words, part)).map(|(_, reason)| *reason);
    named.unwrap_or(if code == 413 { DeadLetterReason::BodyTooLarge } else { DeadLetterReason::Other })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(code: u16, words: &str) -> Verdict {
        judge(&Outcome::Status { code, retry_after: None, words: words.to_owned() })
    }

    /// Each class of answer, with Loki's own wording.
    #[test]
    fn every_answer_has_its_verdict() {
        let shown = |verdict: Verdict| match verdict {
            Verdict::Accepted => "accepted".to_owned(),
            Verdict::Retry { reason, .. } => format!("retry {}", reason.as_str()),
            Verdict::Hold { reason, .. } => format!("hold {}", reason.as_str()),
            Verdict::Refused { reason, .. } => format!("refused {}", reason.as_str()),
        };
        for (code, words, expected) in [
            (200, "", "accepted"),
            (204, "", "accepted"),
            (
                400,
                "entry for stream '{a=\"b\"}' has timestamp too old: 2020-01-01T00:00:00Z, oldest acceptable timestamp is: 2026-01-01T00:00:00Z",
                "refused too_old",
            ),
            (
                400,
                "entry with timestamp 2026-01-01 ignored, reason: 'entry too far behind, entry timestamp is: …'",
                "refused too_far_behind",
            ),
            (
                400,
                "entry with timestamp 2026-01-01 ignored, reason: 'entry out of order' for stream: {a=\"b\"}",
                "refused out_of_order",
            ),
            (
                400,
                "entry for stream '{}' has timestamp too new: 2036-01-01T00:00:00Z",
                "refused too_far_in_future",
            ),
            (
                400,
                "Max entry size '262144' bytes exceeded for stream '{}' while adding an entry with length '300000' bytes",
                "refused line_too_long",
            ),
            (400, "entry for stream '{}' has 16 label names; limit 15", "refused too_many_labels"),
            (400, "stream '{}' has label value too long: 'x'", "refused label_value_too_long"),
            (400, "stream '{}' has label name too long: 'x'", "refused label_name_too_long"),
            (400, "stream '{}' has duplicate label name: 'x'", "refused duplicate_label"),
            (400, "Error parsing labels '{' with error: x", "refused invalid_labels"),
            (400, "error at least one label pair is required per stream", "refused invalid_labels"),
            (
                400,
                "stream '{}' has structured metadata too large: '99' bytes, limit: '9' bytes.",
                "refused metadata_too_large",
            ),
            (
                400,
                "stream '{}' includes structured metadata, but this feature is disallowed. Please see …",
                "hold metadata_disallowed",
            ),
            (400, "", "refused other"),
            (413, "", "refused body_too_large"),
            (413, "request body too large: 9 bytes, limit: 8 bytes", "refused body_too_large"),
            (422, "error at least one valid stream is required for ingestion", "refused other"),
            (401, "no org id", "hold unauthorized"),
            (403, "", "hold forbidden"),
            (404, "404 page not found", "hold not_found"),
            (302, "", "hold unexpected"),
            (405, "", "hold unexpected"),
            (408, "", "retry timed_out"),
            (429, "Ingestion rate limit exceeded for user fake (limit: 1 bytes/sec)", "retry rate_limited"),
            (
                429,
                "Per stream rate limit exceeded (limit: 3MB/sec) while attempting to ingest",
                "retry stream_rate_limited",
            ),
            (429, "Maximum active stream limit exceeded when trying to create stream", "retry stream_limit"),
            (500, "", "retry server_error"),
            (503, "shutting down", "retry server_error"),
        ] {
            assert_eq!(shown(judged(code, words)), expected, "{code} {words}");
        }
        let failed = Outcome::Failed(PushFailure::Unreachable, "connection refused".to_owned());
        assert_eq!(shown(judge(&failed)), "retry unreachable");
    }

    #[test]
    fn a_retry_after_is_honoured_up_to_a_bound() {
        for (asked, expected) in [(2, 2), (86_400, LOKI_RETRY_AFTER_SECS_MAX)] {
            let retry_after = Some(Duration::from_secs(asked));
            let verdict = judge(&Outcome::Status { code: 429, retry_after, words: String::new() });
            let Verdict::Retry { after, .. } = verdict else { panic!("{verdict:?}") };
            assert_eq!(after, Duration::from_secs(expected));
        }
    }

    #[test]
    fn what_holds_says_the_cure() {
        for (code, cure) in [(401, "sinks.loki.auth"), (403, "tenant_id"), (404, "sinks.loki.url")] {
            let Verdict::Hold { words, .. } = judged(code, "no") else { panic!("{code}") };
            assert!(
                words.starts_with(&format!("status {code}: no; check ")) && words.contains(cure),
                "{words}"
            );
        }
    }
}
