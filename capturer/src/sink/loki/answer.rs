//! What an answer of Loki means for the request it answers: one table, pure.
//!
//! Loki names its reasons in words, not codes (Loki: pkg/validation/validate.go), so the words are looked for. What is
//! not recognized is still treated right by its status; only its name in the metrics is then `other`.

use std::time::Duration;

use super::report::short;
use crate::limits::LOKI_RETRY_AFTER_SECS_MAX;
use crate::telemetry::metrics::{DeadLetterReason, PushFailure};

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushOutcome {
    /// An answer came.
    Status {
        /// Its code, as Loki or a proxy sent it.
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
        /// Who waits because of it.
        scope: Scope,
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
    /// Some line of it will never be taken; `refusals.rs` says which.
    Refused {
        /// Why, by name; [`DeadLetterReason::Other`] = these are not Loki's words, as far as we know them.
        reason: DeadLetterReason,
        /// The status that it came with.
        code: u16,
        /// The server's own words.
        words: String,
    },
}

/// Whom a failure concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The label set of the request.
    LabelSet,
    /// All label sets of its tenant.
    Tenant,
    /// One request: whether everybody is concerned shows when others fail too.
    Request,
    /// Everybody: Loki as a whole takes nothing.
    Server,
}

/// What an empty push was answered: whether Loki is there at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is Loki, and it would take lines.
    Loki,
    /// Somebody answers who knows the tenants apart; whether ours may write shows when lines come.
    AsksForTenant {
        /// The answer in Loki's own words.
        words: String,
    },
    /// It is not there, or what is there is not Loki.
    No {
        /// The reason as metrics name it.
        reason: PushFailure,
        /// The answer, and what to do.
        words: String,
        /// Somebody has to mend something.
        hold: bool,
        /// Pause at least so long.
        after: Duration,
    },
}

/// Judges the answer to an empty push. `tenant_varies`: it was sent for one of several tenants, or for none of them.
pub fn presence(outcome: &PushOutcome, tenant_varies: bool) -> Presence {
    let said = match outcome {
        PushOutcome::Status { words, .. } => words.as_str(),
        PushOutcome::Failed(..) => "",
    };
    match judge(outcome) {
        Verdict::Accepted => Presence::Loki,
        Verdict::Refused { .. } if contains(said, "at least one valid stream") => Presence::Loki,
        // The push API is there, and the lines will bring their tenants.
        Verdict::Hold { words, .. } if tenant_varies && contains(said, "no org id") => {
            Presence::AsksForTenant { words }
        }
        Verdict::Hold {
            reason:
                PushFailure::Unauthorized
                | PushFailure::Forbidden
                | PushFailure::NotFound
                | PushFailure::TenantBlocked,
            words,
        } if tenant_varies => Presence::AsksForTenant { words },
        Verdict::Retry { scope: Scope::Tenant | Scope::LabelSet, words, .. } => {
            Presence::AsksForTenant { words }
        }
        Verdict::Hold { reason, words } => Presence::No { reason, words, hold: true, after: Duration::ZERO },
        Verdict::Retry { reason, after, words, .. } => Presence::No { reason, words, hold: false, after },
        Verdict::Refused { code, words, .. } => {
            let words = format!("status {code}: {words}; {WRONG_ADDRESS}");
            Presence::No { reason: PushFailure::Unexpected, words, hold: true, after: Duration::ZERO }
        }
    }
}

/// Cure where the answers are not Loki's.
pub const WRONG_ADDRESS: &str = "this is not an answer from Loki's push API: check sinks.loki.url, its http or https, and \
                                 proxies on the way";

/// Judges an outcome.
pub fn judge(outcome: &PushOutcome) -> Verdict {
    let (code, retry_after, words) = match outcome {
        PushOutcome::Failed(reason, words) => {
            let scope = match reason {
                PushFailure::Unreachable | PushFailure::Tls => Scope::Server,
                _ => Scope::Request,
            };
            let after = Duration::ZERO;
            return Verdict::Retry { scope, reason: *reason, after, words: words.clone() };
        }
        PushOutcome::Status { code, retry_after, words } => (*code, *retry_after, words.trim()),
    };
    // Only what the server says is cut: what to do stands behind it, and is read.
    let said =
        if words.is_empty() { format!("status {code}") } else { format!("status {code}: {}", short(words)) };
    let hold = |reason, cure: &str| Verdict::Hold { reason, words: format!("{said}; {cure}") };
    let after = retry_after.unwrap_or_default().min(Duration::from_secs(LOKI_RETRY_AFTER_SECS_MAX));
    let asked = asked_for(retry_after, after);
    let retry = |scope, reason| Verdict::Retry { scope, reason, after, words: format!("{said}{asked}") };
    match code {
        204 => Verdict::Accepted,
        // A login page comes with 200 as well, and so does what some gateways say of an error.
        200 if words.is_empty() || says_yes(words) => Verdict::Accepted,
        260 => hold(
            PushFailure::TenantBlocked,
            "Loki is configured to refuse this tenant's lines (limits_config.block_ingestion_until); they wait here",
        ),
        400 | 422 if contains(words, "structured metadata, but this feature is disallowed") => hold(
            PushFailure::MetadataDisallowed,
            "set sinks.loki.structured_metadata to {}, or allow it in Loki (limits_config.allow_structured_metadata)",
        ),
        400 if contains(words, "tenant id") && contains(words, "unsupported character") => {
            hold(PushFailure::Forbidden, "check sinks.loki.tenant_id")
        }
        400 | 413 | 422 => Verdict::Refused { reason: refusal(code, words), code, words: words.to_owned() },
        // Between Loki's own parts.
        429 | 500..=599 if contains(words, "received message larger than max") => {
            Verdict::Refused { reason: DeadLetterReason::BodyTooLarge, code, words: words.to_owned() }
        }
        401 if contains(words, "no org id") => hold(
            PushFailure::Unauthorized,
            "these lines have no tenant and this Loki requires one: set sinks.loki.tenant_id, or tenant_default for \
             those that lack its label",
        ),
        401 => hold(
            PushFailure::Unauthorized,
            "check sinks.loki.auth: the user, password or token is missing, wrong or expired",
        ),
        403 => hold(
            PushFailure::Forbidden,
            "check that this user or token may write, and check sinks.loki.tenant_id; or a firewall in front of Loki \
             refuses the content of a line",
        ),
        // What is pushed is not sent elsewhere by itself: credentials go only where the config says.
        300..=399 => hold(
            PushFailure::Unexpected,
            "redirects are not followed: set sinks.loki.url to where Loki is, with its path (/loki/api/v1/push), or mend \
             the proxy",
        ),
        404 => hold(
            PushFailure::NotFound,
            "check sinks.loki.url: Loki's push API is not there. A path in it is used as it is: behind a prefix write \
             https://host/prefix/loki/api/v1/push",
        ),
        429 => match throttle(words) {
            reason @ PushFailure::RateLimited => retry(Scope::Tenant, reason),
            reason => retry(Scope::LabelSet, reason),
        },
        408 => retry(Scope::Request, PushFailure::TimedOut),
        500..=599 => retry(Scope::Request, PushFailure::ServerError),
        _ => hold(PushFailure::Unexpected, WRONG_ADDRESS),
    }
}

/// The status and words of an answer that may be a firewall's to what a line says, or somebody's to who we are. Which of
/// them shows only when others of the same tenant are taken.
pub fn may_mean_a_line(outcome: &PushOutcome) -> Option<(u16, &str)> {
    let PushOutcome::Status { code, words, .. } = outcome else { return None };
    // Those left out are Loki's own, or say that nobody may push here.
    let may = (402..500).contains(code) && !matches!(code, 404 | 407 | 408 | 413 | 422 | 429);
    may.then_some((*code, words.trim()))
}

/// That the server, and not the agent, chose the pause.
fn asked_for(retry_after: Option<Duration>, after: Duration) -> String {
    match retry_after.map(|asked| asked.as_secs()) {
        None | Some(0) => String::new(),
        Some(asked) if asked > after.as_secs() => {
            format!(
                "; it asks for a pause of {asked} s (Retry-After), of which {} s are kept",
                after.as_secs()
            )
        }
        Some(asked) => format!("; it asks for a pause of {asked} s (Retry-After)"),
    }
}

/// JSON that does not speak of an error.
fn says_yes(words: &str) -> bool {
    use serde_json::Value;
    let Ok(value) = serde_json::from_str::<Value>(words) else { return false };
    let is_empty = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    };
    let is_no = |status: &str| {
        ["error", "fail", "failed", "failure"].iter().any(|no| status.eq_ignore_ascii_case(no))
    };
    let status_is_no = value.get("status").and_then(Value::as_str).is_some_and(is_no);
    let has_error = ["error", "errors"].iter().any(|key| value.get(key).is_some_and(|told| !is_empty(told)));
    !status_is_no && !has_error && value.get("success") != Some(&Value::Bool(false))
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
pub(super) fn refusal(code: u16, words: &str) -> DeadLetterReason {
    const TABLE: [(&str, DeadLetterReason); 15] = [
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
        ("couldn't parse labels", DeadLetterReason::InvalidLabels),
        ("at least one label pair", DeadLetterReason::InvalidLabels),
        ("missing required labels", DeadLetterReason::InvalidLabels),
        ("structured metadata", DeadLetterReason::MetadataTooLarge),
        ("body too large", DeadLetterReason::BodyTooLarge),
    ];
    let named = TABLE.iter().find(|(part, _)| contains(words, part)).map(|(_, reason)| *reason);
    named.unwrap_or(if code == 413 { DeadLetterReason::BodyTooLarge } else { DeadLetterReason::Other })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(code: u16, words: &str) -> Verdict {
        judge(&PushOutcome::Status { code, retry_after: None, words: words.to_owned() })
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
            (200, r#"{"status":"ok"}"#, "accepted"),
            (200, "<html><form>Sign in</form></html>", "hold unexpected"),
            (200, r#"{"status":"ok"} <html>"#, "hold unexpected"),
            (200, r#"{"status":"success","data":null}"#, "accepted"),
            (200, "{}", "accepted"),
            (200, r#"{"code":200,"error":null}"#, "accepted"),
            (200, r#"{"took":3,"errors":0}"#, "accepted"),
            (200, r#"{"status":"error","error":"no upstream"}"#, "hold unexpected"),
            (200, r#"{"status":"fail"}"#, "hold unexpected"),
            (200, r#"{"error":"no upstream"}"#, "hold unexpected"),
            (200, r#"{"errors":["no upstream"]}"#, "hold unexpected"),
            (200, r#"{"success":false}"#, "hold unexpected"),
            (202, "", "hold unexpected"),
            (260, "ingestion blocked for user t1 until 2027-01-01", "hold tenant_blocked"),
            (400, "tenant ID 'a/b' contains unsupported character '/'", "hold forbidden"),
            (400, "couldn't parse labels: 1:2: parse error", "refused invalid_labels"),
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
            (
                500,
                "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (5 vs. 4)",
                "refused body_too_large",
            ),
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
        let scope = |code, words| match judged(code, words) {
            Verdict::Retry { scope, .. } => Some(scope),
            _ => None,
        };
        assert_eq!(scope(429, "Per stream rate limit exceeded (limit: 3MB/sec)"), Some(Scope::LabelSet));
        assert_eq!(scope(429, "Ingestion rate limit exceeded for user a"), Some(Scope::Tenant));
        assert_eq!(scope(503, ""), Some(Scope::Request));
        let failed = PushOutcome::Failed(PushFailure::Unreachable, "connection refused".to_owned());
        assert_eq!(shown(judge(&failed)), "retry unreachable");
    }

    /// A proxy, a TLS port and a login page answer, too: none of them is Loki.
    #[test]
    fn who_answers_an_empty_push() {
        let shown = |code: u16, words: &str, varies| {
            let outcome = PushOutcome::Status { code, retry_after: None, words: words.to_owned() };
            match presence(&outcome, varies) {
                Presence::Loki => "loki".to_owned(),
                Presence::AsksForTenant { .. } => "tenant".to_owned(),
                Presence::No { reason, hold, .. } => format!("no {} {hold}", reason.as_str()),
            }
        };
        for (code, words, varies, expected) in [
            (204, "", false, "loki"),
            (422, "error at least one valid stream is required for ingestion", false, "loki"),
            (401, "no org id", true, "tenant"),
            (401, "no org id", false, "no unauthorized true"),
            (403, "", true, "tenant"),
            (404, "404 page not found", false, "no not_found true"),
            (429, "Ingestion rate limit exceeded", false, "tenant"),
            (400, "Client sent an HTTP request to an HTTPS server.", false, "no unexpected true"),
            (400, "Client sent an HTTP request to an HTTPS server.", true, "no unexpected true"),
            (413, "", false, "no unexpected true"),
            (200, "<html>", false, "no unexpected true"),
            (503, "", false, "no server_error false"),
        ] {
            assert_eq!(shown(code, words, varies), expected, "{code} {words}");
        }
    }

    #[test]
    fn a_retry_after_is_honoured_up_to_a_bound() {
        for (asked, expected) in [(2, 2), (86_400, LOKI_RETRY_AFTER_SECS_MAX)] {
            let retry_after = Some(Duration::from_secs(asked));
            let verdict = judge(&PushOutcome::Status { code: 429, retry_after, words: String::new() });
            let Verdict::Retry { after, words, .. } = verdict else { panic!("{verdict:?}") };
            assert_eq!(after, Duration::from_secs(expected));
            assert!(words.contains(&format!("a pause of {asked} s (Retry-After)")), "{words}");
            assert_eq!(words.contains("are kept"), asked != expected, "{words}");
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
