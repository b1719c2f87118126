//! Dashboard, alert rules, runbooks and reference page agree with the agent's catalog of metrics: otherwise nobody
//! would notice a name that no agent has. Prometheus itself checks the expressions and each alert's cases.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use capturer_tests::reference::{self, RUNBOOKS, mentioned, names, top};
use capturer_tests::{dashboard, skipped};

fn read(path: &str) -> String {
    fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn documents() -> Vec<(String, String)> {
    let folders = ["docs", "docs/runbooks", "alerts", "dashboards"];
    let files = folders.iter().flat_map(|folder| fs::read_dir(top().join(folder)).unwrap());
    let paths = files.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let text = |path: PathBuf| (path.display().to_string(), fs::read_to_string(&path).unwrap_or_default());
    paths.chain([top().join("README.md")]).map(text).collect()
}

#[test]
fn what_is_made_from_the_catalog_is_up_to_date() {
    assert_eq!(reference::stale().unwrap(), Vec::<&str>::new(), "run cargo xtask docs");
}

#[test]
fn every_name_in_documents_exists() {
    let names = names();
    let mut unknown = Vec::new();
    for (path, text) in documents() {
        // `log_capturer_spool_` in a grep is the beginning of names.
        let is_known = |name: &String| {
            names.contains(name) || name.ends_with('_') && names.iter().any(|known| known.starts_with(name))
        };
        unknown.extend(
            mentioned(&text).into_iter().filter(|name| !is_known(name)).map(|name| format!("{path}: {name}")),
        );
    }
    assert_eq!(unknown, Vec::<String>::new());
}

/// An alert with a reason leads to a page which explains that reason.
#[test]
fn runbooks_know_every_reason() {
    let pages = [
        ("losses_total", "losses"),
        ("sources_unreadable", "sources-unreadable"),
        ("push_failures_total", "pushes-refused"),
        ("dead_letters_total", "dead-letters"),
        ("container_stream_errors_total", "stream-errors"),
    ];
    let sets = capturer::testing::closed_sets();
    let mut missing = Vec::new();
    for (metric, page) in pages {
        let text = read(&format!("docs/runbooks/{page}.md"));
        let (.., values) =
            sets.iter().find(|(name, ..)| *name == metric).expect("a metric with a closed set");
        let unknown = values.iter().filter(|value| !text.contains(&format!("`{value}`")));
        missing.extend(unknown.map(|value| format!("{page}: {value}")));
    }
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn every_alert_and_panel_leads_to_a_runbook() {
    let rules = read("alerts/capturer.rules.yml");
    let alerts = rules.matches("- alert: ").count();
    let urls: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("runbook_url: ")).collect();
    assert!(alerts > 20 && urls.len() == alerts, "{alerts} alerts, {} runbooks", urls.len());
    let of_alerts = urls.iter().map(|url| url.strip_prefix(RUNBOOKS).unwrap().strip_suffix(".md").unwrap());
    let linked: BTreeSet<&str> = of_alerts.chain(dashboard::runbooks()).collect();
    for runbook in linked {
        let text = read(&format!("docs/runbooks/{runbook}.md"));
        for part in ["## Symptom", "## Meaning", "## Look", "## Cure", "## Prevention"] {
            assert!(text.contains(part), "{runbook}: no {part}");
        }
    }
}

/// Whoever was woken reads a line, not a paragraph.
#[test]
fn runbooks_are_in_short_pieces() {
    const WORDS_MAX: usize = 50;
    let mut long = Vec::new();
    for (path, text) in documents().iter().filter(|(path, _)| path.contains("/runbooks/")) {
        let (mut piece, mut words, mut is_code) = (String::new(), 0, false);
        for line in text.lines().chain([""]) {
            is_code ^= line.starts_with("```");
            let numbered = line.split_once(". ").is_some_and(|(number, _)| number.parse::<u8>().is_ok());
            if line.is_empty() || line.starts_with(['-', '|', '#', '`']) && words > 0 || numbered {
                if words > WORDS_MAX {
                    long.push(format!("{path}: {words} words: {piece:.60}"));
                }
                (piece, words) = (String::new(), 0);
            }
            if !is_code {
                piece += line;
                words += line.split_whitespace().count();
            }
        }
    }
    assert_eq!(long, Vec::<String>::new());
}

#[test]
fn every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() {
    let (rules, tests) = (read("alerts/capturer.rules.yml"), read("alerts/capturer.tests.yml"));
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        for case in ["fires", "silent"] {
            assert!(tests.contains(&format!("'{alert}: {case}")), "{alert}: no case in which it {case}");
        }
    }
}

fn promtool(arguments: &[&str]) -> Result<Option<()>> {
    let output = match Command::new("promtool").args(arguments).current_dir(top().join("alerts")).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.context("starting promtool")?,
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(output.status.success(), "promtool: {}{}", text(&output.stdout), text(&output.stderr));
    Ok(Some(()))
}

#[test]
fn alerts_fire_when_they_must_and_only_then() -> Result<()> {
    let checked = promtool(&["check", "rules", "capturer.rules.yml"])?;
    if checked.and(promtool(&["test", "rules", "capturer.tests.yml"])?).is_none() {
        skipped!("no promtool: apt-get install prometheus brings it");
    }
    Ok(())
}

#[test]
fn prometheus_parses_every_query_of_the_dashboard() -> Result<()> {
    let queries = dashboard::queries();
    ensure!(queries.len() > 30, "only {} queries", queries.len());
    let mut rules = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    for (index, query) in queries.iter().enumerate() {
        ensure!(!query.contains('$'), "a variable is left in {query}");
        rules += &format!("      - {{record: 'panel:{index}', expr: '{query}'}}\n");
    }
    let file = tempfile::Builder::new().suffix(".yml").tempfile()?;
    fs::write(file.path(), rules)?;
    if promtool(&["check", "rules", &file.path().display().to_string()])?.is_none() {
        skipped!("no promtool: apt-get install prometheus brings it");
    }
    Ok(())
}
