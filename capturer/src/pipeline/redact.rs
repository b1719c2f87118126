//! Replaces secrets, in messages of any length and in every field and label.
//!
//! ```text
//! text ─▶ key_secret ─▶ bearer_token ─▶ known tokens and addresses ─▶ e-mail ─▶ credit card ─▶ own patterns, in the config's order ─▶ text
//! ```
//! It fails closed: if the work for a line or the line's size exceeds its bound, the rest of the line is replaced. A
//! user's pattern may look at the whole rest of the line for each match, so what patterns look at is summed over all
//! matches and bounded by [`WORK_BYTES_MAX`]. The presets need no such bound: none looks further than a few bytes
//! behind its match. Presets ignore colours; a user's patterns may contain them.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

use super::colours::Uncoloured;
use super::{cards, secrets, tokens};
use crate::settings::pipeline::{Pattern, Redact, RedactPreset};

/// The replacement for a secret; presets add its kind.
const REDACTED: &str = "[redacted]";
/// The replacement for the rest of a line that takes too much work.
const TOO_MUCH: &[u8] = b"[redacted: the rest of the line, which costs too much to look at]";
/// Bytes that users' patterns may look at in one line, summed over all matches, or [`WORK_FACTOR`] times its length if
/// that is more.
const WORK_BYTES_MAX: usize = 4 * 1024 * 1024;
const WORK_FACTOR: usize = 16;
/// A line may grow to this many times its length, plus some bytes.
const GROWTH_FACTOR: usize = 4;
const GROWTH_BYTES: usize = 4 * 1024;

/// Replacements for a colour: what it separates may be one word, or two.
const JOINED: &[u8] = b"";
const APART: &[u8] = b"\x1b";

static EMAIL: LazyLock<Pattern> = LazyLock::new(|| {
    Pattern::of_ours(r"(?i-u)\b[a-z0-9._%+-]{1,64}(?:@|%40)(?:[a-z0-9-]{1,63}\.){1,8}[a-z]{2,24}\b")
});

/// What redaction did to a text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    /// Something was replaced.
    pub(super) changed: bool,
    /// A bound applied, and the rest of the line was replaced.
    pub(super) limited: bool,
}

/// Redacts a text; the result borrows `text` if there is nothing to hide.
pub(super) fn redact<'t>(rules: &Redact, text: &'t [u8]) -> (Cow<'t, [u8]>, Done) {
    let mut line = RedactedLine { text: Cow::Borrowed(text), done: Done::default(), work: 0 };
    let has = |preset| rules.presets.contains(&preset);
    if has(RedactPreset::KeySecret) {
        line.replace(&[JOINED], secrets::values, REDACTED);
        line.replace(&[JOINED], tokens::passwords_of_connections, REDACTED);
    }
    if has(RedactPreset::BearerToken) {
        line.replace(&[JOINED, APART], tokens::bearers, "[redacted: token]");
        line.replace(&[JOINED, APART], tokens::basics, "[redacted: token]");
    }
    if has(RedactPreset::BearerToken) || has(RedactPreset::KeySecret) {
        line.replace(&[JOINED, APART], tokens::web_tokens, "[redacted: token]");
        line.replace(&[JOINED, APART], tokens::tokens, "[redacted: token]");
        line.replace(&[JOINED, APART], tokens::hooks, "[redacted: token]");
    }
    if has(RedactPreset::Email) && has_at_sign(text) {
        line.replace(&[JOINED, APART], emails, "[redacted: email]");
    }
    if has(RedactPreset::CreditCard) {
        line.replace(&[JOINED, APART], cards::cards, "[redacted: credit card]");
    }
    let budget = WORK_BYTES_MAX.max(WORK_FACTOR * text.len());
    for own in &rules.patterns {
        line.replace_own(
            &own.pattern,
            own.with.as_bytes(),
            budget,
            GROWTH_FACTOR * text.len() + GROWTH_BYTES,
        );
    }
    (line.text, line.done)
}

/// An address in a query has it in code.
fn has_at_sign(text: &[u8]) -> bool {
    memchr::memchr2_iter(b'@', b'%', text).any(|at| text[at] == b'@' || text[at..].starts_with(b"%40"))
}

/// Whether a field's name says that its value is a secret.
pub(super) fn is_secret_field(rules: &Redact, name: &str) -> bool {
    rules.presets.contains(&RedactPreset::KeySecret) && secrets::is_secret_key(name.as_bytes())
}

/// The value of a field that is secret.
pub(super) fn redacted() -> String {
    REDACTED.to_owned()
}

struct RedactedLine<'t> {
    text: Cow<'t, [u8]>,
    done: Done,
    /// Bytes that users' patterns have looked at, as far as that is known from outside: from where a search began to
    /// the end of the line, because the last byte of a match may depend on everything behind it.
    work: usize,
}

impl RedactedLine<'_> {
    /// Searches the text without colours, each replaced by one of `marks`.
    fn replace(&mut self, marks: &[&[u8]], find: impl Fn(&[u8]) -> Vec<Range<usize>>, with: &str) {
        for mark in marks {
            let Some(plain) = Uncoloured::of(&self.text, mark) else {
                let found = find(&self.text);
                return self.put(found, with);
            };
            let found = find(&plain.text).into_iter().map(|range| plain.place(range));
            self.put(found.collect(), with);
        }
    }

    fn put(&mut self, found: Vec<Range<usize>>, with: &str) {
        if found.is_empty() {
            return;
        }
        let (mut out, mut at) = (Vec::with_capacity(self.text.len()), 0);
        let mut inside = InJson::new(&self.text);
        for range in found {
            out.extend_from_slice(&self.text[at..range.start]);
            let quote = inside.quote_of(&range);
            for part in [quote, with.as_bytes(), quote] {
                out.extend_from_slice(part);
            }
            at = range.end;
        }
        out.extend_from_slice(&self.text[at..]);
        self.text = Cow::Owned(out);
        self.done.changed = true;
    }

    fn replace_own(&mut self, pattern: &Pattern, with: &[u8], work_max: usize, len_max: usize) {
        let (mut out, mut at, mut from) = (Vec::new(), 0, 0);
        let text = &*self.text;
        loop {
            self.work += text.len() - from;
            // The first search of a line is always made; without a match there is no second.
            let too_much = (self.work > work_max && from > 0) || out.len() + text.len() - at > len_max;
            if too_much {
                out.extend_from_slice(TOO_MUCH);
                self.done.limited = true;
                break;
            }
            let Some(captures) = pattern.regex().captures_at(text, from) else {
                out.extend_from_slice(&text[at..]);
                break;
            };
            let found = captures.get_match();
            if found.is_empty() {
                // An empty match has nothing to hide.
                from = found.end() + 1;
                if from > text.len() {
                    out.extend_from_slice(&text[at..]);
                    break;
                }
                continue;
            }
            out.extend_from_slice(&text[at..found.start()]);
            captures.expand(with, &mut out);
            (at, from) = (found.end(), found.end());
            self.done.changed = true;
        }
        if self.done.limited {
            self.done.changed = true;
        }
        if self.done.changed {
            self.text = Cow::Owned(out);
        }
    }
}

/// Where a number or list in JSON is replaced, the replacement needs quotes, or the line would not be JSON any more.
struct InJson<'t> {
    text: &'t [u8],
    /// The text begins like JSON: quotes have been tracked up to this offset.
    looked_at: Option<usize>,
    quoted: bool,
}

impl<'t> InJson<'t> {
    fn new(text: &'t [u8]) -> InJson<'t> {
        let is_json = text.trim_ascii_start().first() == Some(&b'{');
        InJson { text, looked_at: is_json.then_some(0), quoted: false }
    }

    /// The quotes that the replacement needs; none within a string. Call it with ranges in order.
    fn quote_of(&mut self, range: &Range<usize>) -> &'static [u8] {
        if let Some(from) = self.looked_at {
            let mut escaped = false;
            for byte in &self.text[from..range.start] {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' => escaped = true,
                    b'"' => self.quoted = !self.quoted,
                    _ => {}
                }
            }
            self.looked_at = Some(range.end);
        }
        let behind =
            self.text[range.end..].iter().take(BLANKS_MAX + 1).find(|byte| !byte.is_ascii_whitespace());
        if !matches!(behind, None | Some(b',' | b'}' | b']')) {
            return b"";
        }
        let before = &self.text[range.start.saturating_sub(BLANKS_MAX + 4)..range.start];
        let before = before.trim_ascii_end();
        let key_ends =
            |end: &[u8]| before.strip_suffix(b":").is_some_and(|key| key.trim_ascii_end().ends_with(end));
        let in_list = self.looked_at.is_some() && !self.quoted && matches!(before.last(), Some(b'[' | b','));
        // JSON within JSON has escaped quotes. Nested once more, the text is not treated as JSON.
        if key_ends(br#"\\""#) {
            b""
        } else if key_ends(br#"\""#) {
            br#"\""#
        } else if key_ends(b"\"") || in_list {
            b"\""
        } else {
            b""
        }
    }
}

/// Most blanks around one of JSON's signs.
const BLANKS_MAX: usize = 8;

fn emails(text: &[u8]) -> Vec<Range<usize>> {
    EMAIL.regex().find_iter(text).map(|found| found.range()).collect()
}

#[cfg(test)]
#[path = "redact_tests.rs"]
mod tests;
