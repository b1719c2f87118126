//! `capturer dead-letters`: look at what a network sink's other side refused, send it again, or throw it away. It may
//! be used while the agent runs.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anyhow::Context as _;

use crate::commands::cli;
use crate::commands::cli::{DeadLetters as Command, Exit};
use crate::decode::timestamp;
use crate::settings::{Settings, shown_url};
use crate::sink::dead_letters::{DeadLetters, Letter};
use crate::sink::loki::answer::Verdict;
use crate::sink::loki::by_hand::ByHand;
use crate::text::counted::which;
use crate::text::terminal::shown;

/// Lines shown of each text.
const SHOWN_CHARS: usize = 100;

/// Carries the command out.
pub fn run(command: &Command, out: &mut dyn Write, err: &mut dyn Write) -> Exit {
    let (Command::List { config, .. } | Command::Replay(config) | Command::Purge(config)) = command;
    let settings = match cli::load(config) {
        Ok((settings, _)) => settings,
        Err(error) => return cli::refuse(&error, err),
    };
    let bytes_max = settings.sinks.loki.as_ref().map_or(u64::MAX, |loki| loki.dead_letter_bytes_max);
    let letters = DeadLetters::new(&settings.data_dir, bytes_max);
    let result = match command {
        Command::List { json, .. } => list(&letters, *json, out),
        Command::Replay(_) => replay(&letters, &settings, out),
        Command::Purge(_) => purge(&letters, out),
    };
    result.unwrap_or_else(|error| cli::fail(&error))
}

fn list(letters: &DeadLetters, json: bool, out: &mut dyn Write) -> anyhow::Result<Exit> {
    let (letters, unreadable) = letters.read().context("reading the dead letters")?;
    if json {
        for letter in &letters {
            say(out, &(serde_json::to_string(letter)? + "\n"));
        }
        return Ok(Exit::Ok);
    }
    if letters.is_empty() {
        say(out, "no dead letters are kept now\n");
    }
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for letter in &letters {
        *counts.entry((&letter.sink, &letter.reason)).or_default() += 1;
        let Letter { time, sink, reason, labels, line, answer, .. } = letter;
        say(
            out,
            &format!(
                "{time} {sink} {reason} {}\n  line   {}\n  answer {}\n",
                short(labels),
                short(line),
                short(answer)
            ),
        );
    }
    for ((sink, reason), count) in counts {
        say(out, &format!("{count} refused by {sink}: {reason}\n"));
    }
    tell_unreadable(unreadable, out);
    Ok(Exit::Ok)
}

/// Each letter is sent once: taken, it is gone; refused again, it is a new letter; not answered, it stays.
fn replay(letters: &DeadLetters, settings: &Settings, out: &mut dyn Write) -> anyhow::Result<Exit> {
    let loki = settings.sinks.loki.as_ref().context("replaying: sinks.loki is not enabled in this config")?;
    let mut by_hand = ByHand::new(loki).context("sinks.loki")?;
    let taken = letters.take().context("taking the dead letters")?;
    let (mut sent, mut refused, mut kept, mut trouble) = (0, 0, 0, None);
    for letter in &taken.letters {
        // Once Loki does not answer, the rest is kept without asking it again.
        let verdict = if trouble.is_none() { Some(by_hand.replay(letter)) } else { None };
        match verdict {
            Some(Verdict::Accepted) => sent += 1,
            Some(Verdict::Refused { reason, code, words }) => {
                refused += 1;
                let time = timestamp::format(crate::sink::spool::unix_ms() as i64 * 1_000_000);
                let reason = reason.as_str().to_owned();
                let again = Letter { time, reason, status: code, answer: words, ..letter.clone() };
                letters.bury(&again).context("putting back what was refused again")?;
            }
            Some(Verdict::Retry { words, .. } | Verdict::Hold { words, .. }) => {
                trouble = Some(words);
                kept += 1;
                letters.bury(letter).context("putting back what was not sent")?;
            }
            None => {
                kept += 1;
                letters.bury(letter).context("putting back what was not sent")?;
            }
        }
    }
    tell_unreadable(taken.unreadable, out);
    taken.remove().context("removing what was sent")?;
    say(out, &format!("{sent} delivered, {refused} refused again, {kept} kept\n"));
    match trouble {
        Some(words) => anyhow::bail!("replaying to {}: {words}", shown_url(&loki.url)),
        None => Ok(Exit::Ok),
    }
}

fn purge(letters: &DeadLetters, out: &mut dyn Write) -> anyhow::Result<Exit> {
    let taken = letters.take().context("taking the dead letters")?;
    let count = taken.letters.len() + taken.unreadable;
    taken.remove().context("removing the dead letters")?;
    say(out, &format!("{count} thrown away\n"));
    Ok(Exit::Ok)
}

fn tell_unreadable(count: usize, out: &mut dyn Write) {
    if count > 0 {
        say(
            out,
            &format!(
                "{} no dead letters (torn by a crash, or edited)\n",
                which(count as u64, "1 line is", &format!("{count} lines are"))
            ),
        );
    }
}

/// What a container printed must not steer the terminal.
fn short(text: &str) -> String {
    let short: String = text.chars().take(SHOWN_CHARS).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("{}{more}", shown(&short))
}

/// A reader that went away (`| head`) is no error of ours.
fn say(out: &mut dyn Write, text: &str) {
    let _: io::Result<()> = out.write_all(text.as_bytes());
}
