//! `capturer dead-letters`: shows lines that a network sink's server refused, sends them again, or throws them away. It
//! may be used while the agent runs.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anyhow::Context as _;

use crate::commands::cli;
use crate::commands::cli::{DeadLettersCommand as Command, Exit};
use crate::decode::timestamp;
use crate::settings::{Settings, shown_url};
use crate::sink::dead_letters::{DeadLetters, Letter, Taken};
use crate::sink::loki::answer::Verdict;
use crate::sink::loki::by_hand::ByHand;
use crate::text::counted::which;
use crate::text::terminal::shown;

/// Characters shown of each text.
const SHOWN_CHARS: usize = 100;
/// So many letters that were refused again are put back at once.
const PUT_BACK_AT_ONCE: usize = 100;

/// Carries the command out.
pub fn run(command: &Command, out: &mut dyn Write, err: &mut dyn Write) -> Exit {
    let (Command::List { config, .. } | Command::Replay(config) | Command::Purge(config)) = command;
    let settings = match cli::load(config) {
        Ok((settings, _)) => settings,
        Err(error) => return cli::refuse(&error, err),
    };
    let bytes_max = settings.sinks.loki.as_ref().map_or(u64::MAX, |loki| loki.dead_letter_bytes_max);
    let letters = DeadLetters::new(&settings.data_dir, bytes_max).patient();
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

/// Sends each letter once: a delivered one is removed, one that is refused again becomes a new letter, and an
/// unanswered one stays. A signal ends this after the letter that is being sent.
fn replay(letters: &DeadLetters, settings: &Settings, out: &mut dyn Write) -> anyhow::Result<Exit> {
    let loki = settings.sinks.loki.as_ref().context("replaying: sinks.loki is not enabled in this config")?;
    let mut by_hand = ByHand::new(loki).context("sinks.loki")?;
    by_hand.heed_signals().context("waiting for signals")?;
    let mut taken = letters.take().context("taking the dead letters")?;
    let (mut sent, mut refused, mut trouble) = (0, 0, None);
    let mut again: Vec<Letter> = Vec::new();
    while let Some(letter) = taken.nth(again.len()) {
        if by_hand.was_signalled() {
            trouble = Some("stopped by a signal; the next replay sends the rest".to_owned());
            break;
        }
        match by_hand.replay(letter) {
            Verdict::Accepted => {
                put_back(letters, &mut taken, &mut again)?;
                taken.done().context("removing what was sent")?;
                sent += 1;
            }
            Verdict::Refused { reason, code, words } => {
                refused += 1;
                let time = timestamp::format(crate::sink::spool::unix_ms() as i64 * 1_000_000);
                let reason = reason.as_str().to_owned();
                again.push(Letter { time, reason, status: code, answer: words, ..letter.clone() });
                if again.len() >= PUT_BACK_AT_ONCE {
                    put_back(letters, &mut taken, &mut again)?;
                }
            }
            // Loki does not answer: keep the rest without asking again.
            Verdict::Retry { words, .. } | Verdict::Hold { words, .. } => {
                trouble = Some(words);
                break;
            }
        }
    }
    put_back(letters, &mut taken, &mut again)?;
    tell_unreadable(taken.unreadable, out);
    let untried = taken.left();
    if untried == 0 {
        taken.remove().context("removing what was sent")?;
    }
    say(out, &format!("{sent} delivered, {refused} refused again, {} kept\n", untried + refused));
    match trouble {
        Some(words) => anyhow::bail!("replaying to {}: {words}", shown_url(&loki.url)),
        None if refused > 0 => anyhow::bail!(
            "replaying to {}: it still refuses {}; capturer dead-letters list says why",
            shown_url(&loki.url),
            which(refused as u64, "1 line", &format!("{refused} lines"))
        ),
        None => Ok(Exit::Ok),
    }
}

/// Puts the oldest of the letters that were refused again back as new letters, with one sync for all of them.
fn put_back(letters: &DeadLetters, taken: &mut Taken, again: &mut Vec<Letter>) -> anyhow::Result<()> {
    if again.is_empty() {
        return Ok(());
    }
    letters.bury_all(again).context("putting back what was refused again")?;
    again.drain(..).try_for_each(|_| taken.done()).context("removing what was refused again")
}

fn purge(letters: &DeadLetters, out: &mut dyn Write) -> anyhow::Result<Exit> {
    let taken = letters.take().context("taking the dead letters")?;
    let count = taken.left() + taken.unreadable;
    taken.remove().context("removing the dead letters")?;
    say(out, &format!("{count} thrown away\n"));
    Ok(Exit::Ok)
}

fn tell_unreadable(count: usize, out: &mut dyn Write) {
    if count > 0 {
        say(
            out,
            &format!(
                "{} unreadable (torn by a crash, or edited)\n",
                which(count as u64, "1 line is", &format!("{count} lines are"))
            ),
        );
    }
}

/// Text that a container printed must not control the terminal.
fn short(text: &str) -> String {
    let short: String = text.chars().take(SHOWN_CHARS).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("{}{more}", shown(&short))
}

/// Standard output remembers its errors (text/output.rs).
fn say(out: &mut dyn Write, text: &str) {
    let _: io::Result<()> = out.write_all(text.as_bytes());
}
