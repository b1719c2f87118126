//! One row for each source, however many outlets read it. Pure.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{bytes, number, rate, text};
use crate::text::ids::briefly;
use crate::text::shown::duration_text;

fn losses_of(count: u64) -> String {
    if count == 1 { "1 loss".to_owned() } else { format!("{count} losses") }
}

/// A source: a container or a file.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub key: String,
    pub name: String,
    /// Its rows in `/api/v1/streams`, with `lines_per_second` added.
    pub rows: Vec<Map<String, Value>>,
    pub rate: f64,
    /// Unread bytes in its log, for the group of sinks with the most.
    pub lag: Option<u64>,
    /// Nobody knows how much is unread: lines may be missing from its log, or it can't be read.
    pub unknown: bool,
    pub last_ms: Option<u64>,
    /// 2 = its lines wait or are lost, 1 = they are late or left out.
    pub attention: u64,
    /// Its state, and why.
    pub what: String,
}

/// How rows are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Order {
    /// Sources that need attention, then the busiest.
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
            // Among equally bad sources, the one with the most to lose.
            Order::Trouble if a.attention > 0 => (b.attention, b.lag).cmp(&(a.attention, a.lag)),
            Order::Trouble => b.attention.cmp(&a.attention),
            Order::Rate => Ordering::Equal,
            Order::Lag => b.lag.cmp(&a.lag),
            Order::Name => a.name.cmp(&b.name),
            Order::Quiet => b.last_ms.unwrap_or(u64::MAX).cmp(&a.last_ms.unwrap_or(u64::MAX)),
        };
        by.then(b.rate.total_cmp(&a.rate)).then_with(|| a.name.cmp(&b.name))
    }
}

/// Folds streams into sources, filters by `filter` and sorts.
pub(super) fn sources(streams: &[Map<String, Value>], filter: &str, order: Order) -> Vec<Source> {
    let mut by_key: BTreeMap<String, Vec<&Map<String, Value>>> = BTreeMap::new();
    for row in streams {
        by_key.entry(key_of(row)).or_default().push(row);
    }
    let mut sources: Vec<Source> = by_key.iter().map(|(key, rows)| source(key, rows)).collect();
    let filter = filter.to_lowercase();
    sources.retain(|source| format!("{} {}", source.name, source.what).to_lowercase().contains(&filter));
    sources.sort_by(|a, b| order.compare(a, b));
    sources
}

/// What tells a source from others, however many rows it has.
pub(super) fn key_of(row: &Map<String, Value>) -> String {
    match text(row, "key") {
        // An older agent tells none.
        "" => number(row, "id").to_string(),
        key => key.to_owned(),
    }
}

fn source(key: &str, rows: &[&Map<String, Value>]) -> Source {
    let of =
        |key: &str| rows.iter().filter_map(|row| row.get(key).and_then(Value::as_u64)).collect::<Vec<_>>();
    let worst = rows.iter().max_by_key(|row| (attention(row), text(row, "state") != "following"));
    let shown = worst.unwrap_or(&rows[0]);
    let losses: u64 = of("losses").into_iter().sum();
    let is_behind = rows.iter().any(|row| row.contains_key(BEHIND));
    let mut what = briefly(&said(shown, rows));
    if is_behind && attention(shown) == 0 {
        what += ", behind";
    }
    Source {
        key: key.to_owned(),
        name: text(rows[0], "name").to_owned(),
        rate: rows.iter().map(|row| rate(row)).fold(0.0, f64::max),
        lag: of("lag_bytes").into_iter().max(),
        last_ms: of("last_line_age_ms").into_iter().min(),
        unknown: rows.iter().any(|row| is(row, "unknown")),
        attention: attention(shown).max(u64::from(is_behind)),
        what: if losses > 0 { format!("{}; {what}", losses_of(losses)) } else { what },
        rows: rows.iter().map(|row| (*row).clone()).collect(),
    }
}

/// Marks a row whose source has been behind for a while ([`super::View`]).
pub(super) const BEHIND: &str = "behind";

fn attention(row: &Map<String, Value>) -> u64 {
    number(row, "attention")
}

fn is(row: &Map<String, Value>, what: &str) -> bool {
    row.get(what).is_some_and(|is| *is == true)
}

/// The state of a source in the agent's words. If groups of sinks differ, the state of each: one may deliver while
/// another waits. The one that waits comes first, because the end of a row is cut.
fn said(shown: &Map<String, Value>, rows: &[&Map<String, Value>]) -> String {
    let says = |row: &Map<String, Value>| text(row, "says").to_owned();
    let others: Vec<&&Map<String, Value>> = rows.iter().filter(|row| !is(row, "waits")).collect();
    if others.is_empty() || !is(shown, "waits") {
        return says(shown);
    }
    let sinks = |row: &Map<String, Value>| {
        let sinks = row.get("sinks").and_then(Value::as_array).into_iter().flatten();
        sinks.filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
    };
    let others: Vec<String> = others
        .iter()
        .map(|row| match text(row, "besides") {
            "" => format!("{} goes on", sinks(row)),
            besides => besides.to_owned(),
        })
        .collect();
    format!("{}; {}", says(shown), others.join("; "))
}

/// Everything known of a source, as pairs of name and text.
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
        let since = duration_text(number(row, "state_age_ms"));
        add("state", format!("{} for {since}: {}", text(row, "state"), text(row, "cause")));
        add("read from", format!("{}: {}", text(row, "mode"), text(row, "mode_reason")));
        let ends = of("operation_deadline_ms")
            .map_or(String::new(), |left| format!(", ends in {}", duration_text(left)));
        let operation = text(row, "operation");
        add("waits for", if operation.is_empty() { String::new() } else { format!("{operation}{ends}") });
        add("set aside", text(row, "set_aside").to_owned());
        add("held up", text(row, "held_up").to_owned());
        add("last error", text(row, "last_error").to_owned());
        let last = of("last_line_age_ms")
            .map_or("none yet".to_owned(), |age| format!("the last {} ago", duration_text(age)));
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
                &serde_json::json!({"key": "c:1", "name": "web", "says": "follows", "lines_per_second": 9.0, "lag_bytes": 5}),
            ),
            row(
                &serde_json::json!({"key": "c:1", "name": "web", "says": "waits: x", "attention": 2, "lag_bytes": 900}),
            ),
            row(
                &serde_json::json!({"key": "c:2", "name": "db", "says": "waits: EIO", "attention": 2, "losses": 1}),
            ),
        ];
        let sources = sources(&rows, "", Order::Trouble);
        let shown: Vec<_> =
            sources.iter().map(|one| (one.name.as_str(), one.what.as_str(), one.lag)).collect();
        assert_eq!(shown, [("web", "waits: x", Some(900)), ("db", "1 loss; waits: EIO", None)]);
    }

    /// The spool is full, and local files are still written.
    #[test]
    fn who_waits_stands_before_who_goes_on() {
        let rows = [
            row(
                &serde_json::json!({"key": "c:1", "name": "web", "says": "follows its file", "sinks": ["local_file"]}),
            ),
            row(
                &serde_json::json!({"key": "c:1", "name": "web", "says": "loki waits: the spool is full", "waits": true,
                "attention": 2, "sinks": ["loki"]}),
            ),
        ];
        let sources = sources(&rows, "", Order::Trouble);
        assert_eq!(sources[0].what, "loki waits: the spool is full; local_file goes on");
        let mut rows = rows;
        rows[0].insert("besides".to_owned(), "lines for x wait in its spool".into());
        let sources = super::sources(&rows, "", Order::Trouble);
        assert_eq!(sources[0].what, "loki waits: the spool is full; lines for x wait in its spool");
    }

    /// In a list of three hundred sources the worst come first, and amber ones before those that are well.
    #[test]
    fn the_worst_come_first() {
        let one = |name: &str, attention: u64, lag: u64| {
            row(
                &serde_json::json!({"key": name, "name": name, "attention": attention, "lag_bytes": lag, "lines_per_second": 9.0}),
            )
        };
        let mut behind = one("behind", 0, 5);
        behind.insert(BEHIND.to_owned(), true.into());
        let rows = [one("well", 0, 0), one("a", 2, 10), one("b", 2, 20), one("limited", 1, 700), behind];
        let sources = sources(&rows, "", Order::Trouble);
        let names: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
        assert_eq!(names, ["b", "a", "limited", "behind", "well"]);
    }

    #[test]
    fn rows_are_sorted_and_filtered() {
        let rows: Vec<_> = [("a", 1.0, 700), ("b", 5.0, 20), ("c", 3.0, 0)]
            .iter()
            .map(|(name, rate, lag)| {
                row(&serde_json::json!({"key": name, "name": name, "lines_per_second": rate, "lag_bytes": lag}))
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
