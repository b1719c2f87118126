//! One row for each source, however many outlets read it. Pure.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{bytes, duration, number, rate, text};
use crate::text::ids::with_ids;

/// A read of a file that takes so long is worth a look.
const OPERATION_IS_LONG_MS: u64 = 1_000;
/// Digits of an ID that `docker ps` shows.
const ID_DIGITS_SHOWN: usize = 12;

fn losses_of(count: u64) -> String {
    if count == 1 { "1 loss".to_owned() } else { format!("{count} losses") }
}

/// A source: a container or a file.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub key: String,
    pub name: String,
    /// As `/api/v1/streams` has them, with `lines_per_second`.
    pub rows: Vec<Map<String, Value>>,
    pub rate: f64,
    /// Bytes in its log that are not taken yet, of the group that has most of them.
    pub lag: Option<u64>,
    /// Its log may lack lines, so that nobody knows what is unread.
    pub doubtful: bool,
    pub last_ms: Option<u64>,
    /// Something of it needs attention.
    pub troubled: bool,
    /// What it is at, and why.
    pub what: String,
}

/// By what rows are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Order {
    /// What needs attention, then the busiest.
    #[default]
    Trouble,
    Rate,
    Lag,
    Name,
    /// Longest without a line first.
    Quiet,
}

impl Order {
    pub fn next(self) -> Order {
        match self {
            Order::Trouble => Order::Rate,
            Order::Rate => Order::Lag,
            Order::Lag => Order::Quiet,
            Order::Quiet => Order::Name,
            Order::Name => Order::Trouble,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Order::Trouble => "trouble first",
            Order::Rate => "busiest first",
            Order::Lag => "most unread first",
            Order::Name => "by name",
            Order::Quiet => "quietest first",
        }
    }

    fn compare(self, a: &Source, b: &Source) -> Ordering {
        let by = match self {
            Order::Trouble => (b.troubled, b.doubtful).cmp(&(a.troubled, a.doubtful)),
            Order::Rate => Ordering::Equal,
            Order::Lag => b.lag.cmp(&a.lag),
            Order::Name => a.name.cmp(&b.name),
            Order::Quiet => b.last_ms.unwrap_or(u64::MAX).cmp(&a.last_ms.unwrap_or(u64::MAX)),
        };
        by.then(b.rate.total_cmp(&a.rate)).then_with(|| a.name.cmp(&b.name))
    }
}

/// Folds streams into sources; those that match `filter`, sorted.
pub(super) fn sources(streams: &[Map<String, Value>], filter: &str, order: Order) -> Vec<Source> {
    let mut by_key: BTreeMap<String, Vec<&Map<String, Value>>> = BTreeMap::new();
    for row in streams {
        // An older agent tells no key.
        let key = if text(row, "key").is_empty() {
            number(row, "id").to_string()
        } else {
            text(row, "key").to_owned()
        };
        by_key.entry(key).or_default().push(row);
    }
    let mut sources: Vec<Source> = by_key.iter().map(|(key, rows)| source(key, rows)).collect();
    let filter = filter.to_lowercase();
    sources.retain(|source| format!("{} {}", source.name, source.what).to_lowercase().contains(&filter));
    sources.sort_by(|a, b| order.compare(a, b));
    sources
}

fn source(key: &str, rows: &[&Map<String, Value>]) -> Source {
    let of =
        |key: &str| rows.iter().filter_map(|row| row.get(key).and_then(Value::as_u64)).collect::<Vec<_>>();
    let shown = rows.iter().find(|row| is_troubled(row));
    let shown =
        shown.or_else(|| rows.iter().find(|row| text(row, "state") != "following")).unwrap_or(&rows[0]);
    let losses: u64 = of("losses").into_iter().sum();
    Source {
        key: key.to_owned(),
        name: text(rows[0], "name").to_owned(),
        rate: rows.iter().map(|row| rate(row)).fold(0.0, f64::max),
        lag: of("lag_bytes").into_iter().max(),
        last_ms: of("last_line_age_ms").into_iter().min(),
        doubtful: rows.iter().any(|row| is_doubtful(row)),
        troubled: rows.iter().any(|row| is_troubled(row)),
        what: if losses > 0 {
            format!("{}; {}", losses_of(losses), briefly(&said(shown, rows)))
        } else {
            briefly(&said(shown, rows))
        },
        rows: rows.iter().map(|row| (*row).clone()).collect(),
    }
}

fn is_troubled(row: &Map<String, Value>) -> bool {
    let held = ["blocked", "does not answer"].iter().any(|words| text(row, "cause").contains(words));
    let told = ["set_aside", "held_up"].iter().any(|key| !text(row, key).is_empty());
    let unread = text(row, "state") == "not captured" && text(row, "left_out").is_empty();
    number(row, "failures") > 0 || number(row, "losses") > 0 || told || held || unread
}

/// Marks a row whose log dockerd writes, while dockerd does not answer ([`super::Look`]).
pub(super) const DOUBTFUL: &str = "may_lack_lines";

fn is_doubtful(row: &Map<String, Value>) -> bool {
    row.get(DOUBTFUL).is_some_and(|doubtful| *doubtful == true)
}

/// What a source is at. Where groups of sinks fare differently, what each does: one may deliver while another waits.
fn said(shown: &Map<String, Value>, rows: &[&Map<String, Value>]) -> String {
    let held =
        |row: &Map<String, Value>| !text(row, "held_up").is_empty() || text(row, "cause").contains("blocked");
    if rows.len() < 2 || rows.iter().all(|row| held(row)) || !held(shown) {
        return what(shown);
    }
    let sinks = |row: &Map<String, Value>| {
        let sinks = row.get("sinks").and_then(Value::as_array).into_iter().flatten();
        sinks.filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
    };
    let others = rows.iter().filter(|row| !held(row)).map(|row| format!("{}: {}", sinks(row), what(row)));
    // Those that go on need few words, and would be cut behind the others.
    let all: Vec<String> = others.chain([format!("{}: {}", sinks(shown), what(shown))]).collect();
    all.join("; ")
}

/// What a stream is at, what it waits for and why.
fn what(row: &Map<String, Value>) -> String {
    let state = text(row, "state");
    let error =
        if number(row, "failures") > 0 && state != "not captured" { text(row, "last_error") } else { "" };
    if let Some(why) = [text(row, "set_aside"), error].into_iter().find(|why| !why.is_empty()) {
        return format!("{state}: {}", without_request(why));
    }
    if !text(row, "held_up").is_empty() {
        return format!("waits: {}", text(row, "held_up"));
    }
    if state == "not captured" {
        return format!("{state}: {}", text(row, "cause"));
    }
    if !text(row, "left_out").is_empty() {
        return format!("left out: {}", text(row, "left_out"));
    }
    if text(row, "cause").starts_with("its output is blocked") {
        return format!("waits: {}", text(row, "cause"));
    }
    if state != "following" || is_troubled(row) {
        return format!("{state}: {}", text(row, "cause"));
    }
    if is_doubtful(row) {
        return "lines may wait in dockerd".to_owned();
    }
    // An operation with a timer ends by itself, and says nothing to who looks for what is wrong.
    let age = row.get("operation_age_ms").and_then(Value::as_u64);
    match (text(row, "operation"), age.filter(|age| *age >= OPERATION_IS_LONG_MS)) {
        (operation, Some(age)) if !operation.is_empty() => {
            format!("follows: {operation} (for {})", duration(age))
        }
        _ if text(row, "mode") == "api" => "follows over the API".to_owned(),
        _ => "follows its file".to_owned(),
    }
}

/// A row has room for what happened, and its details for the request.
fn without_request(why: &str) -> String {
    let within = why.strip_prefix("no answer to GET ").and_then(|rest| rest.rsplit_once(" within "));
    within.map_or_else(|| why.to_owned(), |(_, time)| format!("no answer within {time}"))
}

/// A sentence of the agent in few words: IDs in twelve digits, as `docker ps` shows them, and paths of the Engine's API
/// without what was asked for.
pub(super) fn briefly(text: &str) -> String {
    let words = text.split(' ').map(|word| match word.split_once('?') {
        Some((path, _)) if path.starts_with('/') => path,
        _ => word,
    });
    with_ids(&words.collect::<Vec<_>>().join(" "), |id| &id[..ID_DIGITS_SHOWN])
}

/// Everything that is known of a source, a name and a text each.
pub(super) fn details(source: &Source) -> Vec<(String, String)> {
    let mut lines = vec![("source".to_owned(), source.name.clone()), ("at".to_owned(), source.what.clone())];
    for row in &source.rows {
        let of = |key: &str| row.get(key).and_then(Value::as_u64);
        let sinks = row.get("sinks").and_then(Value::as_array).into_iter().flatten();
        let sinks: Vec<&str> = sinks.filter_map(Value::as_str).collect();
        let mut add = |name: &str, value: String| {
            if !value.is_empty() {
                lines.push((name.to_owned(), value));
            }
        };
        add("for sinks", sinks.join(", "));
        add("container", text(row, "container_id").to_owned());
        let since = duration(number(row, "state_age_ms"));
        add("state", format!("{} for {since}: {}", text(row, "state"), text(row, "cause")));
        add("read from", format!("{}: {}", text(row, "mode"), text(row, "mode_reason")));
        let ends =
            of("operation_deadline_ms").map_or(String::new(), |left| format!(", ends in {}", duration(left)));
        let operation = text(row, "operation");
        add("waits for", if operation.is_empty() { String::new() } else { format!("{operation}{ends}") });
        add("set aside", text(row, "set_aside").to_owned());
        add("held up", text(row, "held_up").to_owned());
        add("last error", text(row, "last_error").to_owned());
        let last = of("last_line_age_ms")
            .map_or("none yet".to_owned(), |age| format!("the last {} ago", duration(age)));
        add("lines", format!("{}, {last}", number(row, "lines")));
        add("unread", bytes(of("lag_bytes")));
        if number(row, "losses") > 0 {
            add("lost", format!("{}, {} known", losses_of(number(row, "losses")), bytes(of("lost_bytes"))));
        }
        add("rotations", number(row, "rotations").to_string());
        add("position", row.get("position").map(Value::to_string).unwrap_or_default());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: &Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn two_groups_of_sinks_are_one_source_and_the_worse_is_shown() {
        let rows = [
            row(
                &serde_json::json!({"key": "c:1", "name": "web", "state": "following", "lines_per_second": 9.0, "lag_bytes": 5}),
            ),
            row(
                &serde_json::json!({"key": "c:1", "name": "web", "state": "waiting", "cause": "the spool is full", "lag_bytes": 900}),
            ),
            row(
                &serde_json::json!({"key": "c:2", "name": "db", "state": "following", "failures": 2, "last_error": "EIO"}),
            ),
        ];
        let sources = sources(&rows, "", Order::Trouble);
        let shown: Vec<_> =
            sources.iter().map(|one| (one.name.as_str(), one.what.as_str(), one.lag)).collect();
        assert_eq!(shown, [("db", "following: EIO", None), ("web", "waiting: the spool is full", Some(900))]);
    }

    /// The spool is full, and the files are written on.
    #[test]
    fn each_group_of_sinks_says_what_it_waits_for() {
        let rows = [
            row(
                &serde_json::json!({"key": "c:1", "name": "web", "state": "following", "sinks": ["local_file"]}),
            ),
            row(
                &serde_json::json!({"key": "c:1", "name": "web", "state": "following", "sinks": ["loki"], "held_up": "loki has not taken it"}),
            ),
            row(
                &serde_json::json!({"key": "c:2", "name": "none", "state": "not captured", "cause": "no driver"}),
            ),
        ];
        let sources = sources(&rows, "", Order::Trouble);
        let shown: Vec<_> = sources.iter().map(|one| (one.what.as_str(), one.troubled)).collect();
        let web = "local_file: follows its file; loki: waits: loki has not taken it";
        assert_eq!(shown, [("not captured: no driver", true), (web, true)]);
    }

    /// A file's end tells nothing while the one who writes it stands still.
    #[test]
    fn a_silent_dockerd_leaves_doubts() {
        let rows = [
            row(
                &serde_json::json!({"key": "c:1", "name": "web", "state": "following", "mode": "file", "lag_bytes": 0,
                "may_lack_lines": true}),
            ),
            row(
                &serde_json::json!({"key": "c:2", "name": "api", "state": "opening", "mode": "api", "failures": 1,
                "last_error": "no answer to GET /containers/a/logs?stdout=1 within 5 s"}),
            ),
            row(
                &serde_json::json!({"key": "f:1", "name": "/var/log/a", "state": "following", "mode": "file",
                "operation": "read", "operation_age_ms": 2_000, "lines_per_second": 5.0}),
            ),
        ];
        let sources = sources(&rows, "", Order::Trouble);
        let shown: Vec<_> = sources.iter().map(|one| (one.what.as_str(), one.doubtful)).collect();
        let expected = [
            ("opening: no answer within 5 s", false),
            ("lines may wait in dockerd", true),
            ("follows: read (for 2.0s)", false),
        ];
        assert_eq!(shown, expected);
    }

    /// A row was filled by the ID alone, and what came behind it was never seen.
    #[test]
    fn ids_and_queries_are_brief() {
        let id = format!("fa00{}", "0".repeat(60));
        let check = |long: &str, brief: &str| assert_eq!(briefly(long), brief);
        check(
            &format!("no answer to GET /containers/{id}/logs?stdout=1&since=17.2 within 5 s"),
            "no answer to GET /containers/fa0000000000/logs within 5 s",
        );
        check(
            &format!("descriptor 7 of stream:container:{id}, "),
            "descriptor 7 of stream:container:fa0000000000, ",
        );
        check("why? 0123456789abcdef über /a/b", "why? 0123456789abcdef über /a/b");
        check("", "");
    }

    #[test]
    fn rows_are_sorted_and_filtered() {
        let rows: Vec<_> = [("a", 1.0, 700), ("b", 5.0, 20), ("c", 3.0, 0)]
            .iter()
            .map(|(name, rate, lag)| {
                row(&serde_json::json!({"key": name, "name": name, "state": "following", "lines_per_second": rate, "lag_bytes": lag}))
            })
            .collect();
        let names = |filter: &str, order| -> String {
            sources(&rows, filter, order).iter().map(|source| source.name.as_str()).collect()
        };
        assert_eq!(names("", Order::Trouble), "bca");
        assert_eq!(names("", Order::Lag), "abc");
        assert_eq!(names("", Order::Name), "abc");
        assert_eq!(names("B", Order::Name), "b");
    }
}
