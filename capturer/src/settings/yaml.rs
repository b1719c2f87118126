//! Parses YAML text into a tree in which every key and value has its place.
//!
//! Deliberately small: scalars stay text, because only the key knows which type it takes (so `no` never becomes a
//! boolean by surprise). Aliases, tags and second documents are refused: no config needs them, and aliases can make a
//! huge tree of a small file.

use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput};

use super::problem::{ConfigPlace, Problem, quoted, shown};

/// Deepest nesting; the agent's own config has 4 levels.
const DEPTH_MAX: usize = 16;

/// A value, and where it begins. Has no `Debug`, because values may be secret.
#[derive(Clone)]
pub(super) struct Node {
    pub place: ConfigPlace,
    pub value: Value,
}

#[derive(Clone)]
pub(super) enum Value {
    /// An empty value, `~` or `null`.
    Null,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Clone)]
pub(super) struct Key {
    pub name: String,
    pub place: ConfigPlace,
}

impl Node {
    /// The kind of value, for a message.
    pub(super) fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Scalar(text) => quoted(text),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a section with keys".to_owned(),
        }
    }
}

/// Parses one document. A syntax error ends the parse; duplicate keys do not.
pub(super) fn parse(text: &str, set: Option<&Arc<str>>) -> Result<(Node, Vec<Problem>), Problem> {
    let parser = Parser::new_from_str(text);
    let mut builder = Builder { parser, text, set, lines: lines(text), problems: Vec::new() };
    let root = builder.document()?;
    Ok((root, builder.problems))
}

struct Builder<'t> {
    parser: Parser<'t, StrInput<'t>>,
    text: &'t str,
    /// The place of everything, if the text is not from a file.
    set: Option<&'t Arc<str>>,
    /// Indexed by the parser's line number less one.
    lines: Vec<YamlLine>,
    problems: Vec<Problem>,
}

/// A line as the parser counts them: in YAML a carriage return alone begins one, too.
#[derive(Clone, Copy)]
struct YamlLine {
    /// Its number as editors, `grep -n` and compilers count: only line feeds begin a line.
    number: usize,
    /// Characters of the editor's line before the parser's line begins.
    before: usize,
    /// Characters of the parser's line.
    chars: usize,
}

/// Never empty. The last entry is the end of the text, because the parser may name a line behind the last one.
fn lines(text: &str) -> Vec<YamlLine> {
    let (mut lines, mut line) = (Vec::new(), YamlLine { number: 1, before: 0, chars: 0 });
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        let next = match char {
            '\n' => YamlLine { number: line.number + 1, before: 0, chars: 0 },
            '\r' if chars.peek() != Some(&'\n') => {
                YamlLine { before: line.before + line.chars + 1, chars: 0, ..line }
            }
            _ => {
                line.chars += 1;
                continue;
            }
        };
        lines.push(line);
        line = next;
    }
    lines.extend([line, YamlLine { before: line.before + line.chars, chars: 0, ..line }]);
    lines
}

impl<'t> Builder<'t> {
    fn place(&self, marker: &Marker) -> ConfigPlace {
        match self.set {
            Some(key) => ConfigPlace::Set(Arc::clone(key)),
            None => {
                let at = (marker.line().max(1) - 1).min(self.lines.len() - 1);
                let YamlLine { number, before, chars } = self.lines[at];
                // The parser counts columns from 0, and in directives (%…) that are not ASCII it counts bytes.
                ConfigPlace::File { line: number, column: before + marker.col().min(chars) + 1 }
            }
        }
    }

    fn problem(&self, marker: &Marker, message: impl Into<String>) -> Problem {
        Problem { place: self.place(marker), key: String::new(), message: message.into() }
    }

    fn next(&mut self) -> Result<(Event<'t>, Span), Problem> {
        match self.parser.next() {
            Some(Ok(found)) => Ok(found),
            Some(Err(error)) => {
                let place = self.place(error.marker());
                let line = match place {
                    ConfigPlace::File { line, .. } => self.text.split('\n').nth(line - 1).unwrap_or_default(),
                    _ => self.text,
                };
                let message = format!("not valid YAML: {}{}", error.info(), cure(error.info(), line));
                Err(Problem { place, key: String::new(), message })
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn document(&mut self) -> Result<Node, Problem> {
        // An empty text has no event of its own.
        let place = self.set.map_or(ConfigPlace::Nowhere, |key| ConfigPlace::Set(Arc::clone(key)));
        let mut root = Node { place, value: Value::Null };
        let mut documents = 0;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root),
                Event::Nothing | Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(_) if documents == 1 => {
                    return Err(self.problem(&span.start, "a second document begins here; a config has one"));
                }
                Event::DocumentStart(_) => documents += 1,
                event => root = self.node(event, span, 0)?,
            }
        }
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, Problem> {
        if depth > DEPTH_MAX {
            return Err(self.problem(&span.start, format!("nested deeper than {DEPTH_MAX} levels")));
        }
        let place = self.place(&span.start);
        let value = match event {
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => {
                return Err(self.problem(&span.start, "tags (!…) are not supported here"));
            }
            Event::Alias(_) => {
                return Err(
                    self.problem(&span.start, "aliases (*…) are not supported here; write the value out")
                );
            }
            Event::Scalar(text, style, ..) => scalar(&text, style),
            Event::SequenceStart(..) => Value::List(self.list(depth)?),
            Event::MappingStart(..) => Value::Map(self.map(depth)?),
            _ => return Err(self.problem(&span.start, "a value was expected here")),
        };
        Ok(Node { place, value })
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Problem> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<(Key, Node)>, Problem> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let name = match event {
                Event::MappingEnd => return Ok(entries),
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(self.problem(&span.start, "a key must be plain text")),
            };
            let key = Key { name, place: self.place(&span.start) };
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            match entries.iter().find(|(first, _)| first.name == key.name) {
                Some((first, _)) => {
                    let message = duplicate(&first.place, &key.name);
                    self.problems.push(Problem { place: key.place, key: String::new(), message });
                }
                None => entries.push((key, value)),
            }
        }
    }
}

/// What to do about the mistakes that people make most: the parser's own words name only the rule that was broken.
fn cure(info: &str, line: &str) -> String {
    if info.contains("tab") {
        return "; indent with blanks: YAML takes no tabs there".to_owned();
    }
    if info.contains("escape") {
        return "; within double quotes a backslash begins an escape: put the value into single quotes"
            .to_owned();
    }
    if info.contains("mapping values are not allowed") {
        return "; keys of one section begin in one column, and a value that contains a colon and a blank needs quotes"
            .to_owned();
    }
    let behind_key = line.split_once(": ").map_or(line, |(_, value)| value);
    let value = behind_key.trim_start_matches(|char: char| char.is_whitespace() || char == '-');
    let needs_quotes = |char: char| "*&!%@`|>".contains(char);
    let first = value.chars().next();
    // The first value of a list in brackets, too.
    let in_list = value.strip_prefix('[').and_then(|inside| inside.trim_start().chars().next());
    if let Some(char) = first.into_iter().chain(in_list).find(|char| needs_quotes(*char)) {
        return format!("; a value that begins with {char} needs quotes");
    }
    let is_within = info.contains("flow") || info.contains("while parsing a block");
    match first.filter(|char| is_within && matches!(char, '{' | '[')) {
        Some(char) => format!("; if a text is meant, one that begins with {char} needs quotes"),
        None => String::new(),
    }
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    let is_null = style == ScalarStyle::Plain && matches!(text, "" | "~" | "null" | "Null" | "NULL");
    if is_null { Value::Null } else { Value::Scalar(text.to_owned()) }
}

fn duplicate(first: &ConfigPlace, name: &str) -> String {
    let name = quoted(name);
    match first {
        ConfigPlace::File { line, .. } => {
            format!("the key {name} is given twice; the first is on line {line}")
        }
        _ => format!("the key {name} is given twice"),
    }
}

/// Puts a `--set` value into the tree and adds missing sections. Returns why it can't.
pub(super) fn set(root: &mut Node, key: &Arc<str>, value: Node) -> Result<(), String> {
    let mut node = root;
    let mut walked = String::new();
    for name in key.split('.') {
        if name.is_empty() {
            return Err("the key has an empty part; write it as section.key".to_owned());
        }
        if matches!(node.value, Value::Null) {
            node.value = Value::Map(Vec::new());
        }
        let entries = match &mut node.value {
            Value::Map(entries) => entries,
            Value::List(_) => return Err(format!("{} is a list; set it as a whole", shown(&walked))),
            _ => return Err(format!("{} is a single value, not a section", shown(&walked))),
        };
        let index = entries.iter().position(|(key, _)| key.name == name).unwrap_or_else(|| {
            let place = ConfigPlace::Set(Arc::clone(key));
            let section = Node { place: place.clone(), value: Value::Null };
            entries.push((Key { name: name.to_owned(), place }, section));
            entries.len() - 1
        });
        node = &mut entries[index].1;
        walked = if walked.is_empty() { name.to_owned() } else { format!("{walked}.{name}") };
    }
    *node = value;
    Ok(())
}
