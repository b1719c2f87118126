//! Patterns for absolute paths, in `file_monitor` and its excludes.
//!
//! ```text
//! /srv/{shop,blog}/**/[!x]*.log
//!      └ either   │  └ one character that is not x, then anything within the name
//!                 └ any number of directories, also none
//! ```
//! Braces are expanded when the config is read. The rest is matched name by name, so `*` never matches a `/`. Syntax of
//! other tools that is not supported is refused with what to write instead: a pattern that silently matches nothing is
//! the most common reason why a file is not collected.

use std::sync::Arc;

use glob::Pattern;

use crate::text::path_text::{as_chars, name_of, pattern_as_chars, text_of};

/// How many patterns braces may expand to.
const ALTERNATIVES_MAX: usize = 256;

/// A pattern; see the head of this file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    text: String,
    alternatives: Vec<Vec<Part>>,
}

/// A component of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Exactly this name.
    Name(String),
    /// A name that matches.
    Wild(Wild),
    /// `**`: any number of directories, also none.
    Directories,
}

/// A pattern over one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wild(Arc<Pattern>);

impl Wild {
    /// Whether it matches the name. Hidden names match only if the pattern begins with a dot itself.
    pub fn matches(&self, name: &str) -> bool {
        (!name.starts_with('.') || self.0.as_str().starts_with('.')) && self.matches_hidden(name)
    }

    /// As [`Wild::matches`], with a leading dot like any other character.
    pub fn matches_hidden(&self, name: &str) -> bool {
        self.0.matches(&as_chars(name))
    }
}

impl PathPattern {
    /// Parses a pattern; the error says what is wrong with it and what to write instead.
    pub fn new(text: &str) -> Result<PathPattern, String> {
        PathPattern::read(text, false)
    }

    /// As [`PathPattern::new`], for excludes: there a directory stands for everything in it.
    pub fn exclude(text: &str) -> Result<PathPattern, String> {
        PathPattern::read(text, true)
    }

    fn read(text: &str, is_exclude: bool) -> Result<PathPattern, String> {
        foreign(text)?;
        let path = if is_exclude { text.trim_end_matches('/') } else { text };
        if path.ends_with('/') {
            return Err(format!(
                "{text} is a directory: write {text}* for its files, or {text}** for all beneath it"
            ));
        }
        let mut alternatives = Vec::new();
        for path in expand(path)? {
            alternatives.push(parts(&path)?);
        }
        Ok(PathPattern { text: text.to_owned(), alternatives })
    }

    /// The pattern as the config has it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The patterns that its braces expand to.
    pub fn alternatives(&self) -> &[Vec<Part>] {
        &self.alternatives
    }

    /// The directories it names, in which files are searched for.
    pub fn directories(&self) -> impl Iterator<Item = String> {
        self.alternatives.iter().filter_map(|parts| {
            let (last, directories) = parts.split_last()?;
            if let Part::Name(_) = last {
                return None;
            }
            let name =
                |part: &Part| if let Part::Name(name) = part { Some(format!("/{name}")) } else { None };
            directories.iter().map(name).collect()
        })
    }

    /// Whether it is exactly this path, so that nothing has to be searched for.
    pub fn names(&self, path: &str) -> bool {
        self.alternatives.iter().any(|parts| {
            let mut names = path.split('/').filter(|name| !name.is_empty());
            let same = parts
                .iter()
                .all(|part| matches!(part, Part::Name(name) if names.next() == Some(name.as_str())));
            same && names.next().is_none()
        })
    }

    /// Whether it matches this path.
    pub fn matches(&self, path: &str) -> bool {
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        self.alternatives.iter().any(|parts| reached(parts, &names, false)[names.len()])
    }

    /// As [`PathPattern::matches`], with hidden names like any others.
    pub fn matches_hidden(&self, path: &str) -> bool {
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        self.alternatives.iter().any(|parts| reached(parts, &names, true)[names.len()])
    }

    /// Whether it matches this path or a directory above it, including hidden ones: as an exclude it leaves out all of
    /// these.
    pub fn covers(&self, path: &str) -> bool {
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        self.alternatives.iter().any(|parts| reached(parts, &names, true)[1..].iter().any(|reached| *reached))
    }
}

/// How many of the names the parts may have matched. A table instead of backtracking, so that whoever makes directories
/// can't choose how long this takes.
fn reached(parts: &[Part], names: &[&str], hidden: bool) -> Vec<bool> {
    let mut at = vec![false; names.len() + 1];
    at[0] = true;
    for part in parts {
        let mut next = vec![false; names.len() + 1];
        for from in (0..=names.len()).filter(|from| at[*from]) {
            match part {
                Part::Directories => {
                    next[from] = true;
                    for (index, name) in names.iter().enumerate().skip(from) {
                        if next[index + 1] || !hidden && name.starts_with('.') {
                            break;
                        }
                        next[index + 1] = true;
                    }
                }
                Part::Name(name) => {
                    let fits = names.get(from) == Some(&name.as_str());
                    next[(from + 1).min(names.len())] |= fits;
                }
                Part::Wild(wild) => {
                    let fits =
                        |name: &&str| if hidden { wild.matches_hidden(name) } else { wild.matches(name) };
                    let fits = names.get(from).is_some_and(fits);
                    next[(from + 1).min(names.len())] |= fits;
                }
            }
        }
        at = next;
    }
    at
}

/// Refuses syntax of other pattern languages.
fn foreign(text: &str) -> Result<(), String> {
    if !text.starts_with('/') {
        let regex = text.starts_with('^') || text.contains(".*");
        let hint = if regex { "; this is not a regular expression: * stands for any text" } else { "" };
        return Err(format!("the path must be absolute, such as /var/log/*.log{hint}"));
    }
    let bytes = text.as_bytes();
    let is_hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    let mut class = None;
    for (at, byte) in bytes.iter().enumerate() {
        let next = bytes.get(at + 1).copied();
        match (byte, class) {
            // The first character of a class may be a ].
            (b']', Some(from)) if at > from => {
                no_regex_class(&text[from..at])?;
                class = None;
            }
            (b'[', Some(_)) if next == Some(b':') => {
                return Err(
                    "classes such as [[:digit:]] are not supported: write [0-9] or [a-zA-Z]".to_owned()
                );
            }
            (_, Some(_)) => {}
            (b'[', None) => class = Some(at + 1 + usize::from(matches!(next, Some(b'!' | b'^')))),
            (b'\\', None) if next == Some(b'x') && is_hex(at + 2) && is_hex(at + 3) => {}
            (b'\\', None) => {
                return Err("\\ does not escape here: write [*] for a * and [\\] for a \\".to_owned());
            }
            (b'+' | b'@' | b'!' | b'?', None) if next == Some(b'(') => {
                let sign = char::from(*byte);
                return Err(format!(
                    "{sign}(…) is not supported: write {{a,b}} for either, or [(] for the character"
                ));
            }
            (b'|', None) => {
                return Err("a|b is not supported: write {a,b}, or [|] for the character".to_owned());
            }
            _ => {}
        }
    }
    if class.is_some() {
        return Err("a [ has no ]: write [[] for the character itself".to_owned());
    }
    Ok(())
}

/// Refuses what makes a class that nobody means: one of a regular expression, or a range that is turned around.
fn no_regex_class(class: &str) -> Result<(), String> {
    let mut chars = class.char_indices();
    let escape = chars.find_map(|(at, char)| {
        let next = class[at + char.len_utf8()..].chars().next()?;
        (char == '\\' && "dDwWsS".contains(next)).then_some(next)
    });
    if let Some(letter) = escape {
        return Err(format!(
            "[\\{letter}] is of regular expressions: write [0-9] or [a-zA-Z]; [{letter}\\] for a \\ or the letter"
        ));
    }
    let chars: Vec<char> = class.chars().collect();
    let mut at = 0;
    while at + 2 < chars.len() {
        let (from, dash, to) = (chars[at], chars[at + 1], chars[at + 2]);
        if dash != '-' {
            at += 1;
            continue;
        }
        if from > to {
            return Err(format!("[{from}-{to}] matches nothing: write [{to}-{from}]"));
        }
        at += 3;
    }
    Ok(())
}

/// What to write instead of a path that does not begin with a `/`, where that is known.
pub(super) fn not_absolute(text: &str) -> Option<String> {
    if let Some(path) = text.strip_prefix("~/").or_else(|| text.strip_prefix("$HOME/")) {
        return Some(format!("write ${{HOME}}/{path} for the home of the agent's user"));
    }
    let name: String = text.strip_prefix('$')?.chars().take_while(is_of_variable).collect();
    (!name.is_empty()).then(|| format!("write ${{{name}}} for the variable"))
}

fn is_of_variable(char: &char) -> bool {
    char.is_ascii_alphanumeric() || *char == '_'
}

/// What may be wrong with a pattern that matches nothing: it has something that other programs replace, and that stands for
/// itself here. A file may well have such a name, so it is not refused.
pub fn advice(pattern: &str) -> Option<String> {
    let variable = pattern.match_indices('$').find_map(|(at, _)| {
        let name: String = pattern[at + 1..].chars().take_while(is_of_variable).collect();
        (!name.is_empty()).then_some(name)
    });
    if let Some(name) = variable {
        return Some(format!("${name} is taken literally: write ${{{name}}} for the variable"));
    }
    if pattern.ends_with('$') {
        return Some("the $ at its end is taken literally: this is not a regular expression".to_owned());
    }
    let time = pattern.match_indices('%').find_map(|(at, _)| {
        let letter = pattern[at + 1..].chars().next()?;
        "YmdHMSyjbBs".contains(letter).then_some(letter)
    });
    if let Some(letter) = time {
        return Some(format!("%{letter} is taken literally: write * or [0-9]* in its place"));
    }
    if pattern.contains("{{") && pattern.contains("}}") || pattern.contains("{%") || pattern.contains("<%") {
        return Some("it looks like a template that nothing has filled in".to_owned());
    }
    if let Some(sign) = [",/", ", /", ":/", ";/"].into_iter().find(|between| pattern.contains(between)) {
        let sign = if sign.starts_with(',') { "a comma" } else { &sign[..1] };
        return Some(format!("{sign} is taken literally: write each path as an item of its own"));
    }
    if pattern.ends_with(char::is_whitespace) {
        return Some("it ends with a blank".to_owned());
    }
    if pattern.contains(['"', '\'']) {
        return Some("quotation marks are taken literally".to_owned());
    }
    None
}

/// Writes braces out.
fn expand(text: &str) -> Result<Vec<String>, String> {
    let mut done = Vec::new();
    let mut todo = vec![text.to_owned()];
    while let Some(text) = todo.pop() {
        let Some((from, to, commas)) = first_braces(&text)? else {
            done.push(text);
            continue;
        };
        if commas.is_empty() && text[from..to].contains("..") {
            let range = &text[from..=to];
            return Err(format!(
                "ranges such as {range} are not supported: write the values out, as in {{1,2,3}}"
            ));
        }
        let mut starts = vec![from + 1];
        starts.extend(commas.iter().map(|comma| comma + 1));
        let ends = commas.iter().copied().chain([to]);
        let choices: Vec<&str> = starts.iter().zip(ends).map(|(start, end)| &text[*start..end]).collect();
        // In reverse order, because they are taken from the end.
        todo.extend(
            choices.iter().rev().map(|choice| format!("{}{choice}{}", &text[..from], &text[to + 1..])),
        );
        if todo.len() + done.len() > ALTERNATIVES_MAX {
            return Err(format!(
                "its braces stand for more than {ALTERNATIVES_MAX} patterns: write several patterns"
            ));
        }
    }
    Ok(done)
}

/// The first pair of braces outside a class, with the commas directly within it.
fn first_braces(text: &str) -> Result<Option<(usize, usize, Vec<usize>)>, String> {
    let (mut depth, mut from, mut commas) = (0, 0, Vec::new());
    let mut class = None;
    for (at, char) in text.char_indices() {
        match (char, class) {
            (']', Some(from)) if at > from => class = None,
            (_, Some(_)) => {}
            ('[', None) => {
                let negated = text[at + 1..].starts_with(['!', '^']);
                class = Some(at + 1 + usize::from(negated));
            }
            ('{', None) => {
                if depth == 0 {
                    from = at;
                }
                depth += 1;
            }
            ('}', None) if depth == 0 => {
                return Err("a } has no {: write [}] for the character itself".to_owned());
            }
            ('}', None) => {
                depth -= 1;
                if depth == 0 {
                    return Ok(Some((from, at, commas)));
                }
            }
            (',', None) if depth == 1 => commas.push(at),
            _ => {}
        }
    }
    if depth > 0 {
        return Err("a { has no }: write [{] for the character itself".to_owned());
    }
    Ok(None)
}

fn parts(path: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    for name in path.split('/').filter(|name| !name.is_empty() && *name != ".") {
        if name == "**" {
            if parts.last() != Some(&Part::Directories) {
                parts.push(Part::Directories);
            }
        } else if name.contains("**") {
            let why =
                "** stands alone between slashes, for any number of directories: write /var/log/**/*.log";
            return Err(format!("{why}, or a single * within {name}"));
        } else if name.contains(['*', '?', '[']) {
            parts.push(Part::Wild(wild(name)?));
        } else {
            // In the form in which names are written, because there is more than one way to write a byte.
            parts.push(Part::Name(text_of(&name_of(name)).into_owned()));
        }
    }
    match parts.last() {
        None => {
            Err("it names the root directory: write a file, or a pattern such as /var/log/*.log".to_owned())
        }
        Some(Part::Directories) => {
            parts.push(Part::Wild(wild("*")?));
            Ok(parts)
        }
        Some(_) => Ok(parts),
    }
}

fn wild(name: &str) -> Result<Wild, String> {
    // Both spellings of "none of these".
    let pattern = Pattern::new(&pattern_as_chars(&name.replace("[^", "[!"), Pattern::escape));
    pattern
        .map(|pattern| Wild(Arc::new(pattern)))
        .map_err(|error| format!("{name}: {} at character {}", error.msg, error.pos + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_that_are_looked_into() {
        let of = |text: &str| PathPattern::new(text).unwrap().directories().collect::<Vec<_>>();
        assert_eq!(of("/l/old/a.log*"), ["/l/old"]);
        assert_eq!(of("/l/{a,b}/[0-9].log"), ["/l/a", "/l/b"]);
        for none in ["/l/a.log", "/l/*/a.log*", "/l/**/*.log"] {
            assert_eq!(of(none), Vec::<String>::new(), "{none}");
        }
    }

    /// A pattern, what it matches, and what it does not.
    #[test]
    fn what_patterns_match() {
        let table: &[(&str, &[&str], &[&str])] = &[
            ("/a/b.log", &["/a/b.log"], &["/a/b.log1", "/b.log", "/a/b.log/c"]),
            (r"/a/caf\xE9*.log", &[r"/a/caf\xE9-1.log"], &["/a/café-1.log", "/a/caf-1.log"]),
            (r"/a/th\xe9.log", &[r"/a/th\xE9.log"], &["/a/thé.log"]),
            ("/a/caf?-?.log", &[r"/a/caf\xE9-1.log", "/a/café-1.log"], &[r"/a/caf\xE9\xE9-1.log"]),
            (r"/a/\x2A?.log", &["/a/*1.log"], &["/a/11.log"]),
            (r"/a/\xc3\xa9?", &["/a/é1"], &[r"/a/\xC31"]),
            ("/a/*.log", &["/a/b.log", "/a/ä.log"], &["/a/.b.log", "/a/x/b.log", "/a/.log", "/a/b.txt"]),
            ("/a/.*.log", &["/a/.b.log"], &["/a/b.log"]),
            ("/a/?.log", &["/a/b.log", "/a/ö.log"], &["/a/bb.log", "/a/.log"]),
            ("/a/[ab].log", &["/a/a.log"], &["/a/c.log"]),
            ("/a/[!ab].log", &["/a/c.log"], &["/a/a.log", "/a/..log"]),
            ("/a/[^ab].log", &["/a/c.log"], &["/a/a.log"]),
            ("/a/[0-9]*", &["/a/1", "/a/9x"], &["/a/x"]),
            ("/a/[]].log", &["/a/].log"], &["/a/[.log"]),
            ("/a/[*]", &["/a/*"], &["/a/b"]),
            ("/a/[{]b[}]", &["/a/{b}"], &["/a/b"]),
            ("/a/{b,c}.log", &["/a/b.log", "/a/c.log"], &["/a/d.log", "/a/{b,c}.log"]),
            ("/a/{b,c/d}/*", &["/a/b/x", "/a/c/d/x"], &["/a/c/x"]),
            ("/a/x{,.1}", &["/a/x", "/a/x.1"], &["/a/x."]),
            ("/a/{b,{c,d}e}", &["/a/b", "/a/ce", "/a/de"], &["/a/c", "/a/be"]),
            ("/a/{*.log,**/x}", &["/a/b.log", "/a/x", "/a/b/c/x"], &["/a/b/c.log"]),
            (
                "/a/**/b.log",
                &["/a/b.log", "/a/x/b.log", "/a/x/y/b.log"],
                &["/a/.x/b.log", "/b.log", "/a/xb.log"],
            ),
            ("/a/**", &["/a/b", "/a/x/b"], &["/a", "/a/.b", "/a/x/.b", "/a/.x/b"]),
            ("/a/**/**/b", &["/a/b", "/a/x/b"], &["/a/x"]),
            ("/a/**/.b", &["/a/.b", "/a/x/.b"], &["/a/b"]),
            ("/**/b", &["/b", "/x/y/b"], &["/x/c"]),
            ("/a//b/./c", &["/a/b/c"], &["/a/c"]),
            ("/a/caf\\xE9*", &["/a/caf\\xE9*"], &[]),
        ];
        for (pattern, matching, others) in table {
            let read = PathPattern::new(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            for path in *matching {
                assert!(read.matches(path), "{pattern} should match {path}");
                assert!(read.covers(path), "{pattern} should cover {path}");
            }
            for path in *others {
                assert!(!read.matches(path), "{pattern} should not match {path}");
            }
        }
    }

    #[test]
    fn an_exclude_covers_what_is_beneath_it_and_hidden_files() {
        let check = |pattern: &str, path: &str, expected: bool| {
            assert_eq!(PathPattern::exclude(pattern).unwrap().covers(path), expected, "{pattern} {path}");
        };
        check("/var/log/journal", "/var/log/journal/1/a.log", true);
        check("/var/log/journal/", "/var/log/journal/1/a.log", true);
        check("/var/log/*", "/var/log/.hidden", true);
        check("/var/log/**/*.gz", "/var/log/.x/a.gz", true);
        check("/var/log/*.gz", "/var/log/a/b.gz", false);
        check("/var/log/a", "/var/log/ab", false);
        check("/var/log/a/b", "/var/log/a", false);
    }

    /// What users of shells, other agents and regular expressions write.
    #[test]
    fn what_is_not_known_is_refused_with_what_to_write() {
        let table = [
            ("var/log/*.log", "must be absolute"),
            ("^/var/log/.*$", "not a regular expression"),
            ("~/a.log", "must be absolute"),
            ("/a/", "write /a/* for its files"),
            ("/", "is a directory"),
            ("/a/x**", "/var/log/**/*.log"),
            ("/a/***", "/var/log/**/*.log"),
            ("/a/[b", "[[]"),
            ("/a/[", "[[]"),
            ("/a/[]", "[[]"),
            ("/a/[b/c]d[", "[[]"),
            ("/a/{b", "[{]"),
            ("/a/b}", "[}]"),
            ("/a/{1..3}", "{1,2,3}"),
            ("/a/[[:digit:]]", "[0-9]"),
            ("/a/[\\d].log", "write [0-9]"),
            ("/a/[!x\\w]*", "[w\\] for a"),
            ("/a/[z-a]", "write [a-z]"),
            ("/a/[0-9z-a]", "write [a-z]"),
            ("/a/[!9-0]", "write [0-9]"),
            ("/a/\\*", "[*]"),
            ("/a/\\d+", "[*]"),
            ("/a/+(b)", "{a,b}"),
            ("/a/@(b|c)", "{a,b}"),
            ("/a/(b|c)", "{a,b}"),
            ("/{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}", "several patterns"),
        ];
        for (pattern, hint) in table {
            let error = PathPattern::new(pattern).expect_err(pattern);
            assert!(error.contains(hint), "{pattern}: {error}");
        }
    }

    /// Each matched nothing, and nothing told why. Names may have all of it.
    #[test]
    fn what_other_programs_replace_is_told_where_nothing_matches() {
        let table = [
            ("/srv/$APP/*.log", "write ${APP}"),
            ("/srv/a.log$", "not a regular expression"),
            ("/srv/%Y/a.log", "%Y is taken literally"),
            ("/srv/app-%d.log", "write *"),
            ("/srv/{{ app }}/a.log", "template"),
            ("/srv/a.log,/srv/b.log", "an item of its own"),
            ("/srv/a.log, /srv/b.log", "a comma is taken literally"),
            ("/srv/a.log:/srv/b.log", ": is taken literally"),
            ("/srv/a.log ", "ends with a blank"),
            ("/srv/\"a b\".log", "quotation marks"),
        ];
        for (pattern, expected) in table {
            PathPattern::new(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            let told = advice(pattern).unwrap_or_default();
            assert!(told.contains(expected), "{pattern}: {told:?}");
        }
        for plain in ["/srv/{a,b}/*.log", "/srv/a b/c.log", "/srv/{a,{b,c}}x", "/srv/100%/a", "/srv/[a-z],b"]
        {
            assert_eq!(advice(plain), None, "{plain}");
        }
        for (text, expected) in
            [("~/a.log", "${HOME}/a.log"), ("$HOME/*", "${HOME}/*"), ("$APP/a.log", "${APP}")]
        {
            assert!(not_absolute(text).unwrap().contains(expected), "{text}");
        }
        assert_eq!(not_absolute("var/log/a.log"), None);
    }

    /// Classes whose characters are as meant.
    #[test]
    fn classes_that_are_meant_so() {
        let table = [
            ("/a/[\\]", "/a/\\"),
            ("/a/[d\\]", "/a/\\"),
            ("/a/[a-]", "/a/-"),
            ("/a/[-a]", "/a/-"),
            ("/a/[0-9a-f]", "/a/c"),
            ("/a/[+--]", "/a/,"),
            ("/a/[]-a]", "/a/^"),
        ];
        for (pattern, path) in table {
            let read = PathPattern::new(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            assert!(read.matches(path), "{pattern} should match {path}");
        }
    }

    /// Whoever makes directories must not decide how long a match takes.
    #[test]
    fn many_wildcards_are_no_trap() {
        let pattern = PathPattern::new(&format!("/{}", "**/a*a*a/".repeat(50) + "b")).unwrap();
        let path = "/aaaaaaaaaa".repeat(400);
        let start = std::time::Instant::now();
        assert!(!pattern.matches(&path));
        let name = PathPattern::new(&format!("/{}b", "*a".repeat(60))).unwrap();
        assert!(!name.matches(&format!("/{}", "a".repeat(255))));
        assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
    }

    #[test]
    fn a_name_is_told_from_a_pattern() {
        let check = |pattern: &str, path: &str, expected: bool| {
            assert_eq!(PathPattern::new(pattern).unwrap().names(path), expected, "{pattern} {path}");
        };
        check("/a/b.log", "/a/b.log", true);
        check("/a/{b,c}.log", "/a/c.log", true);
        check("/a/*.log", "/a/b.log", false);
        check("/a", "/a/b.log", false);
        check("/a/b.log/c", "/a/b.log", false);
    }
}
