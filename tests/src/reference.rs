//! Files of the tree that are made from the catalog of metrics, so that no name in them can drift: `docs/metrics.md` here,
//! the dashboard in [`crate::dashboard`]. Also where names of metrics are looked for in files that people write.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use capturer::testing::{CATALOG, Entry, Kind, PREFIX, closed_sets};

/// Where runbooks are, by their file's name. A place in the tree: where it is read differs from team to team, and
/// docs/operate.md says how to make addresses of it.
pub const RUNBOOKS: &str = "docs/runbooks/";

/// The top of the tree.
pub fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Files that are made, with what should be in them.
pub fn files() -> Vec<(&'static str, String)> {
    vec![("docs/metrics.md", metrics_page()), ("dashboards/capturer.json", crate::dashboard::json())]
}

/// Names of those files whose content is another one.
pub fn stale() -> Result<Vec<&'static str>> {
    let mut stale = Vec::new();
    for (path, wanted) in files() {
        let there = fs::read_to_string(top().join(path)).unwrap_or_default();
        if there != wanted {
            stale.push(path);
        }
    }
    Ok(stale)
}

/// Writes them.
pub fn write() -> Result<()> {
    for (path, text) in files() {
        let path = top().join(path);
        fs::create_dir_all(path.parent().context("a file stands in a folder")?)?;
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn metrics_page() -> String {
    let mut page = "# Metrics\n\n\
        Every family that `/metrics` shows. This page is made from the list in `capturer/src/telemetry/metrics.rs` by `cargo xtask docs`; \
        don't edit it.\n\n\
        - A source is a container, or a file of `file_monitor`. At most `metrics.max_containers` of them have series of their own; \
        the others share one whose labels say `other`. Series of a source go when it goes.\n\
        - `source_*` are made when somebody asks, and say what the capture loop knew at that moment. If the loop is stuck they \
        stand still, and `component_health{component=\"capture_loop\"}` is 0.\n\
        - Alert rules are in `alerts/capturer.rules.yml`, a dashboard in `dashboards/capturer.json`, and what to do in \
        [runbooks](runbooks/README.md).\n\n"
        .to_owned();
    page += "| name | type | labels | unit | meaning |\n|---|---|---|---|---|\n";
    for Entry { name, kind, labels, unit, help } in CATALOG {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let help = help.replace('|', "\\|");
        let _ = writeln!(
            page,
            "| `{name}` | {} | {} | {} | {help} |",
            kind.as_str(),
            labels.join(", "),
            unit.as_str()
        );
    }
    page +=
        "\n## Values of labels\n\nThese sets are closed: each value has a series from the start, at 0.\n\n";
    page += "| metric | label | values |\n|---|---|---|\n";
    for (metric, label, values) in closed_sets() {
        let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
        let _ = writeln!(page, "| `{PREFIX}{metric}` | `{label}` | {} |", values.join(", "));
    }
    page
}

/// All names that a scrape can show: families, and the parts of histograms.
pub fn names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in CATALOG {
        names.insert(entry.name.to_owned());
        if entry.kind == Kind::Histogram {
            names.extend(["_bucket", "_sum", "_count"].map(|part| format!("{}{part}", entry.name)));
        }
    }
    names
}

/// Names in a text that look like metrics of the agent.
pub fn mentioned(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(|c: char| !is_part(c));
    words.filter(|word| word.starts_with(PREFIX) && word.len() > PREFIX.len()).map(str::to_owned).collect()
}
