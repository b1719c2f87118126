//! Which requests the test Loki accepts and refuses, in the words of a real one (3.4.6).

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use capturer::testing::{EntryAdapter, PushRequest, StreamAdapter, read_label_text, timestamp};

use crate::loki::{Ledger, Limits, POISON, POISON_WORDS};

/// What is left of each rate, by label set or tenant: bytes, and when that was.
#[derive(Debug, Default)]
pub struct Rates(BTreeMap<String, (f64, Instant)>);

impl Rates {
    /// Whether so many bytes are within a rate, of which a second's worth may come at once.
    fn allows(&mut self, whose: &str, rate: usize, bytes: usize) -> bool {
        let now = Instant::now();
        let (left, at) = self.0.entry(whose.to_owned()).or_insert((rate as f64, now));
        *left = (*left + at.elapsed().as_secs_f64() * rate as f64).min(rate as f64);
        *at = now;
        let allowed = bytes as f64 <= *left;
        if allowed {
            *left -= bytes as f64;
        }
        allowed
    }
}

/// Refusals before any line is checked.
pub fn refuse_whole(
    limits: &Limits,
    tenant: &str,
    push: &PushRequest,
    blocked: bool,
) -> Option<(u16, String)> {
    let mut entries = push.streams.iter().flat_map(|stream| &stream.entries);
    if let Some(text) = &limits.firewall
        && entries.clone().any(|entry| entry.line.contains(text))
    {
        return Some((403, "<html><h1>403 Forbidden</h1>request blocked</html>\n".to_owned()));
    }
    let taken = |c: char| c.is_ascii_alphanumeric() || "!-_.*'()".contains(c);
    if tenant.is_empty() && limits.wants_tenant {
        return Some((401, "no org id\n".to_owned()));
    }
    if let Some(c) = tenant.chars().find(|c| !taken(*c)) {
        return Some((400, format!("tenant ID '{tenant}' contains unsupported character '{c}'\n")));
    }
    if !limits.tenants.is_empty() && !limits.tenants.iter().any(|known| known == tenant) {
        return Some((403, "this tenant may not write\n".to_owned()));
    }
    if push.lines() == 0 {
        return Some((422, "error at least one valid stream is required for ingestion\n".to_owned()));
    }
    if !limits.metadata_allowed && entries.any(|entry| !entry.structured_metadata.is_empty()) {
        let words = "stream '{}' includes structured metadata, but this feature is disallowed. Please see `limits_config.allow_structured_metadata` or contact your Loki administrator to enable it.\n";
        return Some((400, words.to_owned()));
    }
    if blocked {
        return Some((260, format!("ingestion blocked for user {tenant} until '2036-01-01T00:00:00Z'\n")));
    }
    let unreadable = push.streams.iter().find(|stream| read_label_text(&stream.labels).is_none())?;
    Some((400, format!("couldn't parse labels: {}: 1:2: parse error\n", unreadable.labels)))
}

/// Stores the good lines of a request; status and words.
pub fn take(
    limits: &Limits,
    rates: &mut Rates,
    tenant: &str,
    push: &PushRequest,
    ledger: &mut Ledger,
) -> (u16, String) {
    let now_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as i64);
    // The distributor looks at all lines, and tells of all.
    let mut refused: BTreeMap<String, usize> = BTreeMap::new();
    let mut good: Vec<(&StreamAdapter, Vec<&EntryAdapter>)> = Vec::new();
    for stream in &push.streams {
        let entries = stream.entries.iter().filter(|entry| match refusal(limits, now_ns, stream, entry) {
            Some(words) => {
                *refused.entry(words).or_default() += 1;
                false
            }
            None => true,
        });
        good.push((stream, entries.collect()));
    }
    let bytes: usize = good.iter().flat_map(|(_, entries)| entries).map(|entry| entry.line.len()).sum();
    if let Some((of, rate)) = &limits.tenant_rate
        && of == tenant
        && !rates.allows(&format!("tenant {tenant}"), *rate, bytes)
    {
        let words = format!(
            "Ingestion rate limit exceeded for user {tenant} (limit: {rate} bytes/sec) while attempting to ingest"
        );
        return (429, words);
    }
    let mut last = None;
    for (stream, entries) in good {
        // The ingester's answer is the last label set's, whatever became of the others.
        last = ingest(limits, rates, (tenant, stream), &entries, ledger);
    }
    if !refused.is_empty() {
        let named = refused.iter().map(|(words, count)| match count {
            1 => words.clone(),
            count => format!("{count} errors like: {words}"),
        });
        return (400, named.collect::<Vec<_>>().join("; "));
    }
    last.unwrap_or((204, String::new()))
}

fn refusal(limits: &Limits, now_ns: i64, stream: &StreamAdapter, entry: &EntryAdapter) -> Option<String> {
    let labels = &stream.labels;
    let time_ns = entry.timestamp.unwrap_or_default().to_ns();
    let oldest = now_ns - limits.age_max.as_nanos() as i64;
    let newest = now_ns + limits.grace.as_nanos() as i64;
    let count = read_label_text(labels).map_or(0, |pairs| pairs.len());
    if count > limits.labels_max {
        return Some(format!(
            "entry for stream '{labels}' has {count} label names; limit {}",
            limits.labels_max
        ));
    }
    if time_ns < oldest {
        return Some(format!(
            "entry for stream '{labels}' has timestamp too old: {}, oldest acceptable timestamp is: {}",
            second(time_ns),
            second(oldest)
        ));
    }
    if time_ns > newest {
        return Some(format!("entry for stream '{labels}' has timestamp too new: {}", second(time_ns)));
    }
    if entry.line.len() > limits.line_bytes_max {
        return Some(format!(
            "Max entry size '{}' bytes exceeded for stream '{labels}' while adding an entry with length '{}' bytes",
            limits.line_bytes_max,
            entry.line.len()
        ));
    }
    entry.line.contains(POISON).then(|| POISON_WORDS.to_owned())
}

/// Stores what the rate and the label set's newest line allow; `None` = all of it.
fn ingest(
    limits: &Limits,
    rates: &mut Rates,
    (tenant, stream): (&str, &StreamAdapter),
    entries: &[&EntryAdapter],
    ledger: &mut Ledger,
) -> Option<(u16, String)> {
    let labels = &stream.labels;
    let whose = format!("{tenant} {labels}");
    let rate = limits.stream_rate.as_ref().filter(|(of, _)| labels.contains(of)).map(|(_, rate)| *rate);
    let (mut over, mut behind, mut named) = (0, 0, String::new());
    for entry in entries {
        let time_ns = entry.timestamp.unwrap_or_default().to_ns();
        let newest = ledger.newest.get(&whose).copied().unwrap_or(i64::MIN);
        let oldest = newest.saturating_sub(limits.behind_max.as_nanos() as i64);
        if rate.is_some_and(|rate| !rates.allows(&whose, rate, entry.line.len())) {
            over += entry.line.len();
        } else if time_ns < oldest {
            behind += 1;
            if behind <= 10 {
                named += &format!(
                    "entry with timestamp {} ignored, reason: 'entry too far behind, entry timestamp is: {}, oldest \
                     acceptable timestamp is: {}',\n",
                    second(time_ns).replace('T', " ").replace('Z', " +0000 UTC"),
                    second(time_ns),
                    second(oldest)
                );
            }
        } else {
            ledger.newest.insert(whose.clone(), newest.max(time_ns));
            ledger.store(labels, time_ns, &entry.line);
        }
    }
    if over > 0 {
        let rate = rate.unwrap_or_default();
        return Some((
            429,
            format!(
                "Per stream rate limit exceeded (limit: {rate}B/sec) while attempting to ingest for stream '{labels}' \
                 totaling {over}B, consider splitting a stream via additional labels or contact your Loki administrator"
            ),
        ));
    }
    (behind > 0).then(|| {
        let total = entries.len();
        (400, format!("{named}user '{tenant}', total ignored: {behind} out of {total} for stream: {labels}"))
    })
}

fn second(ns: i64) -> String {
    format!("{}Z", &timestamp::format(ns)[..19])
}
