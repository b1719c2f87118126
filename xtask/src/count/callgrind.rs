//! Parses callgrind's output: instructions of each of our functions, including the library functions that it calls.
//!
//! ```text
//! fn=(7) capturer::decode::json_line::next_record     a function, by number once it was named
//! 12 340                                              a line of it, and its instructions
//! cfn=(9) memchr                                      it calls
//! calls=5 0
//! 12 210                                              and that took so many in all
//! ```
//! A library function's instructions are charged to its callers, in proportion to what their calls took, up to the
//! first function of ours: nobody can fix memcpy, but a function that copies too much can be fixed. If library
//! functions call each other in circles, this is repeated until nothing is left to pass on.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};

/// After this many rounds a circle has passed on all that matters.
const ROUNDS_MAX: usize = 1_000;

/// Instructions of each function.
#[derive(Debug, Default, PartialEq)]
struct Profile {
    own: BTreeMap<String, f64>,
    /// Caller, callee, and the instructions of its calls.
    calls: BTreeMap<(String, String), f64>,
}

/// Instructions of each of our functions, and of all together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All counted instructions.
    pub total: u64,
    /// By function.
    pub functions: BTreeMap<String, u64>,
}

/// Parses a file of callgrind.
pub fn read(text: &str) -> Result<Counts> {
    let profile = parse(text)?;
    let counts = attribute(&profile);
    let said: u64 = summary(text).context("callgrind's file has no summary")?;
    ensure!(counts.total.abs_diff(said) <= said / 1000, "{} of {said} instructions were found", counts.total);
    Ok(counts)
}

fn summary(text: &str) -> Option<u64> {
    let value =
        |line: &str| line.strip_prefix("summary:").or(line.strip_prefix("totals:"))?.trim().parse().ok();
    text.lines().find_map(value)
}

fn parse(text: &str) -> Result<Profile> {
    let mut profile = Profile::default();
    let mut names = BTreeMap::<&str, String>::new();
    // `(7) name` gives a name a number, `(7)` refers to it.
    let mut named = |value: &'_ str| -> Result<String> {
        let (number, name) = value.split_once(')').context("a function without a number")?;
        let start = text.as_ptr() as usize;
        let at = number.as_ptr() as usize - start;
        let number = &text[at..at + number.len()];
        if !name.trim().is_empty() {
            names.insert(number, plain(name.trim()));
        }
        names.get(number).cloned().with_context(|| format!("nobody named function {number}"))
    };
    let (mut function, mut callee, mut is_call) = (None, None, false);
    for line in text.lines() {
        if let Some(value) = line.strip_prefix("fn=") {
            function = Some(named(value)?);
        } else if let Some(value) = line.strip_prefix("cfn=") {
            callee = Some(named(value)?);
        } else if line.starts_with("calls=") {
            is_call = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            let Some(function) = &function else { continue };
            let cost = line.split(' ').nth(1).unwrap_or("0");
            let cost: f64 = cost.parse().with_context(|| format!("no count in {line:?}"))?;
            if std::mem::take(&mut is_call) {
                let callee = callee.take().context("a call of nobody")?;
                *profile.calls.entry((function.clone(), callee)).or_default() += cost;
            } else {
                *profile.own.entry(function.clone()).or_default() += cost;
            }
        }
    }
    Ok(profile)
}

/// The name without the hash that the compiler adds, which changes with every build, and without callgrind's mark of
/// recursion.
fn plain(name: &str) -> String {
    let name = name.split('\'').next().unwrap_or(name);
    match name.rsplit_once("::h") {
        Some((name, hash)) if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            name.to_owned()
        }
        _ => name.to_owned(),
    }
}

/// `capturer::a::b`, `<capturer::a::B as core::fmt::Write>::write_str`.
fn is_ours(name: &str) -> bool {
    let name = name.trim_start_matches(['<', '&']).trim_start_matches("mut ");
    name.starts_with("capturer::") || name.starts_with("count::")
}

fn attribute(profile: &Profile) -> Counts {
    let mut callers = BTreeMap::<&str, Vec<(&str, f64)>>::new();
    for ((caller, callee), cost) in &profile.calls {
        if caller != callee && *cost > 0.0 {
            callers.entry(callee).or_default().push((caller, *cost));
        }
    }
    let mut settled = BTreeMap::<&str, f64>::new();
    let mut moving: BTreeMap<&str, f64> =
        profile.own.iter().map(|(name, own)| (name.as_str(), *own)).collect();
    for _ in 0..ROUNDS_MAX {
        let mut next = BTreeMap::<&str, f64>::new();
        for (name, amount) in moving {
            let callers = callers.get(name).filter(|_| !is_ours(name));
            match callers {
                Some(callers) => {
                    let all: f64 = callers.iter().map(|(_, cost)| cost).sum();
                    for (caller, cost) in callers {
                        *next.entry(caller).or_default() += amount * cost / all;
                    }
                }
                None => *settled.entry(name).or_default() += amount,
            }
        }
        moving = next;
        if moving.values().sum::<f64>() < 0.5 {
            break;
        }
    }
    moving.into_iter().for_each(|(name, left)| *settled.entry(name).or_default() += left);
    let total = profile.own.values().sum::<f64>().round() as u64;
    let functions =
        settled.into_iter().map(|(name, count)| (name.to_owned(), count.round() as u64)).collect();
    Counts { total, functions }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
# callgrind format
version: 1
events: Ir
summary: 1000

fl=(1) ???
fn=(1) capturer::decode::next::h0123456789abcdef
0 100
cfn=(2) memchr
calls=3 0
0 300
+1 50
cfn=(3) core::iter::fold
calls=1 0
0 250

fn=(2)
0 400

fn=(3)
0 50
cfn=(2)
calls=1 0
0 100
cfn=(4) <capturer::sink::X as core::fmt::Write>::write_str
calls=1 0
0 100

fn=(4)
0 100
cfn=(4)
calls=1 0
0 40

fn=(5) count::measured
0 300
cfn=(1)
calls=1 0
* 700
";

    #[test]
    fn libraries_count_for_those_who_call_them() {
        let counts = read(FILE).unwrap();
        assert_eq!(counts.total, 1000);
        let expected = [
            ("<capturer::sink::X as core::fmt::Write>::write_str", 100),
            // Its own 150, memchr's 300 of its own calls, fold's 50 with the 100 that fold spent in memchr.
            ("capturer::decode::next", 600),
            ("count::measured", 300),
        ];
        assert_eq!(counts.functions, expected.map(|(name, count)| (name.to_owned(), count)).into());
    }

    #[test]
    fn a_circle_of_libraries_ends() {
        let call = |from: &str, to: &str, cost| ((from.to_owned(), to.to_owned()), cost);
        let profile = Profile {
            own: [("a", 60.0), ("b", 40.0), ("capturer::x", 1.0)]
                .map(|(name, own)| (name.to_owned(), own))
                .into(),
            calls: [call("capturer::x", "a", 100.0), call("a", "b", 90.0), call("b", "a", 50.0)].into(),
        };
        assert_eq!(attribute(&profile).functions["capturer::x"], 101);
    }

    #[test]
    fn a_file_that_is_cut_off_is_none() {
        assert!(read(&FILE.replace("0 400\n", "")).is_err());
        assert!(read("fn=(7)\n").is_err());
    }
}
