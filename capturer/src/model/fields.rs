//! What a pipeline adds to records (fields, labels, marks) and the bytes it makes. Pipelines and sinks share these
//! types, as they do those of record.rs.
//!
//! A batch without a pipeline has none ([`crate::model::record::Batch::changes`] is `None`), and neither has a batch
//! that its pipeline did not change.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::limits::{FIELD_NAME_BYTES_MAX, FIELD_VALUE_BYTES_MAX, FIELDS_BYTES_MAX, FIELDS_MAX};
use crate::model::record::Batch;

/// What a pipeline made of a batch. Records that it did not change still point into the original batch.
#[derive(Debug)]
pub struct Changes {
    /// The batch as it was captured.
    pub original: Arc<Batch>,
    /// Messages and times that the pipeline made ([`crate::model::record::BufferKind::Changed`]).
    pub bytes: Vec<u8>,
    /// By index of the record; empty = no record has extras.
    pub extras: Vec<Extra>,
}

/// What a record carries besides its message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extra {
    /// Fields found in its message.
    pub fields: Fields,
    /// Labels that the pipeline set; they take precedence over the source's own.
    pub labels: Option<Arc<Labels>>,
    /// The record stands for this many identical lines; 0 = for itself alone.
    pub repeated: u64,
    /// Steps that failed on the record.
    pub failed: Failed,
}

impl Extra {
    /// The record carries nothing besides its message.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.labels.is_none() && self.repeated == 0 && self.failed.is_empty()
    }
}

/// Label → value.
pub type Labels = BTreeMap<String, String>;

/// Steps that failed on a record, each named once, in the order of [`Failed::NAMES`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Failed(u8);

impl Failed {
    /// Steps that can fail.
    pub const NAMES: [&str; 3] = ["parse", "timestamp", "rename"];

    /// The message could not be parsed.
    pub const PARSE: Failed = Failed(1);
    /// The field that should hold a time does not.
    pub const TIMESTAMP: Failed = Failed(2);
    /// A field can't be renamed, because another field has the new name.
    pub const RENAME: Failed = Failed(4);

    /// Adds the failures of `other`.
    pub fn add(&mut self, other: Failed) {
        self.0 |= other.0;
    }

    /// Whether it includes `one`.
    pub fn has(self, one: Failed) -> bool {
        self.0 & one.0 != 0
    }

    /// Whether no step failed.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Names of the steps that failed.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let failed = move |(bit, name): (usize, &'static str)| (self.0 & 1 << bit != 0).then_some(name);
        Failed::NAMES.into_iter().enumerate().filter_map(failed)
    }
}

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Any text, not escaped.
    Text(&'a str),
    /// A number as JSON writes it.
    Number(&'a str),
    /// A boolean: true or false.
    Bool(bool),
}

impl<'a> Value<'a> {
    /// The value as text.
    pub fn as_str(&self) -> &'a str {
        match self {
            Value::Text(text) | Value::Number(text) => text,
            Value::Bool(true) => "true",
            Value::Bool(false) => "false",
        }
    }
}

/// Names and values of a record's fields, in the order in which they were first set, within the bounds of
/// [`crate::limits`]. One string holds all of them.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    text: String,
    items: Vec<Item>,
    /// Bytes of present names and values; `text` may also hold replaced ones.
    live_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    name: (u32, u32),
    value: (u32, u32),
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Text,
    Number,
    Bool,
}

impl Fields {
    /// Sets or changes a field. Returns false if a bound applied: the field was left out, or its text was cut.
    #[must_use]
    pub fn set(&mut self, name: &str, value: Value) -> bool {
        let text = value.as_str();
        let kept = &text[..text.floor_char_boundary(FIELD_VALUE_BYTES_MAX)];
        // A number that is cut would be another number.
        if matches!(value, Value::Number(_)) && kept.len() < text.len() {
            return false;
        }
        let old = self.position(name);
        let (old_bytes, name_bytes) = match old {
            Some(index) => (len(self.items[index].value), 0),
            None => (0, name.len()),
        };
        let bytes = self.live_bytes - old_bytes + name_bytes + kept.len();
        let too_many = old.is_none() && self.items.len() == FIELDS_MAX;
        if name.is_empty() || name.len() > FIELD_NAME_BYTES_MAX || too_many || bytes > FIELDS_BYTES_MAX {
            return false;
        }
        self.put(old, name, kept, kind_of(value));
        kept.len() == text.len()
    }

    /// Replaces texts and numbers by what `change` returns. No bound applies, because what is replaced must not remain.
    pub fn replace(&mut self, mut change: impl FnMut(&str, &str) -> Option<String>) -> bool {
        let mut changed = false;
        for index in 0..self.items.len() {
            let item = self.items[index];
            if matches!(item.kind, Kind::Bool) {
                continue;
            }
            if let Some(new) = change(self.part(item.name), self.part(item.value)) {
                let name = self.part(item.name).to_owned();
                self.put(Some(index), &name, &new, Kind::Text);
                changed = true;
            }
        }
        if changed {
            self.forget_replaced();
        }
        changed
    }

    /// A field's value.
    pub fn get(&self, name: &str) -> Option<Value<'_>> {
        self.position(name).map(|index| self.value(self.items[index]))
    }

    /// Removes a field.
    pub fn remove(&mut self, name: &str) {
        if let Some(index) = self.position(name) {
            let item = self.items.remove(index);
            self.live_bytes -= len(item.name) + len(item.value);
        }
    }

    /// All fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        self.items.iter().map(|item| (self.part(item.name), self.value(*item)))
    }

    /// Whether there are no fields.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    fn put(&mut self, old: Option<usize>, name: &str, value: &str, kind: Kind) {
        let value_at = self.append(value);
        self.live_bytes += value.len();
        match old {
            Some(index) => {
                self.live_bytes -= len(self.items[index].value);
                self.items[index].value = value_at;
                self.items[index].kind = kind;
            }
            None => {
                let name_at = self.append(name);
                self.live_bytes += name.len();
                self.items.push(Item { name: name_at, value: value_at, kind });
            }
        }
        if self.text.len() > 2 * FIELDS_BYTES_MAX + self.live_bytes {
            self.forget_replaced();
        }
    }

    /// Drops replaced values from `text`: they take memory and may be secret.
    fn forget_replaced(&mut self) {
        let old = std::mem::take(&mut self.text);
        let part = |(start, end): (u32, u32)| &old[start as usize..end as usize];
        let mut items = std::mem::take(&mut self.items);
        for item in &mut items {
            item.name = self.append(part(item.name));
            item.value = self.append(part(item.value));
        }
        self.items = items;
    }

    fn append(&mut self, text: &str) -> (u32, u32) {
        let start = self.text.len() as u32;
        self.text.push_str(text);
        (start, self.text.len() as u32)
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.items.iter().position(|item| self.part(item.name) == name)
    }

    fn part(&self, (start, end): (u32, u32)) -> &str {
        &self.text[start as usize..end as usize]
    }

    fn value(&self, item: Item) -> Value<'_> {
        let text = self.part(item.value);
        match item.kind {
            Kind::Text => Value::Text(text),
            Kind::Number => Value::Number(text),
            Kind::Bool => Value::Bool(text == "true"),
        }
    }
}

impl PartialEq for Fields {
    fn eq(&self, other: &Fields) -> bool {
        self.iter().eq(other.iter())
    }
}

fn len((start, end): (u32, u32)) -> usize {
    (end - start) as usize
}

fn kind_of(value: Value) -> Kind {
    match value {
        Value::Text(_) => Kind::Text,
        Value::Number(_) => Kind::Number,
        Value::Bool(_) => Kind::Bool,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(fields: &Fields) -> Vec<(&str, Value<'_>)> {
        fields.iter().collect()
    }

    #[test]
    fn order_is_that_of_the_first_set() {
        let mut fields = Fields::default();
        assert!(fields.set("b", Value::Number("1")) && fields.set("a", Value::Text("x")));
        assert!(fields.set("b", Value::Bool(true)));
        assert_eq!(all(&fields), [("b", Value::Bool(true)), ("a", Value::Text("x"))]);
        fields.remove("b");
        fields.remove("none");
        assert_eq!(all(&fields), [("a", Value::Text("x"))]);
        assert_eq!(fields.get("b"), None);
    }

    #[test]
    fn bounds() {
        let mut fields = Fields::default();
        assert!(!fields.set("", Value::Text("x")));
        assert!(!fields.set(&"n".repeat(FIELD_NAME_BYTES_MAX + 1), Value::Text("x")));
        let long = "€".repeat(FIELD_VALUE_BYTES_MAX);
        assert!(!fields.set("long", Value::Text(&long)), "cut");
        assert!(fields.get("long").expect("kept").as_str().len() <= FIELD_VALUE_BYTES_MAX);
        let number = "1".repeat(FIELD_VALUE_BYTES_MAX + 1);
        assert!(!fields.set("number", Value::Number(&number)) && fields.get("number").is_none());
        assert!(fields.set("number", Value::Number(&number[1..])));
        fields.remove("number");
        for number in 0..200 {
            let _ = fields.set(&format!("field {number}"), Value::Text(&"x".repeat(1000)));
        }
        let bytes: usize = fields.iter().map(|(name, value)| name.len() + value.as_str().len()).sum();
        assert!(bytes <= FIELDS_BYTES_MAX && bytes == fields.live_bytes);
        for _ in 0..1000 {
            assert!(fields.set("long", Value::Text(&"y".repeat(4000))), "what is replaced counts no more");
        }
        assert!(fields.text.len() <= 4 * FIELDS_BYTES_MAX, "{}", fields.text.len());
        let mut many = Fields::default();
        assert_eq!((0..200).filter(|n| many.set(&format!("f{n}"), Value::Bool(true))).count(), FIELDS_MAX);
    }

    #[test]
    fn what_is_replaced_is_gone() {
        let mut fields = Fields::default();
        assert!(fields.set("a", Value::Text("secret")) && fields.set("n", Value::Number("12")));
        assert!(fields.set("b", Value::Bool(true)));
        assert!(fields.replace(|name, _| (name != "b").then(|| "*".to_owned())));
        let expected = [("a", Value::Text("*")), ("n", Value::Text("*")), ("b", Value::Bool(true))];
        assert_eq!(all(&fields), expected);
        assert!(!fields.text.contains("secret"));
        assert!(!fields.replace(|_, _| None));
    }

    #[test]
    fn failures_are_named_once() {
        let mut failed = Failed::default();
        assert!(!failed.has(Failed::PARSE));
        assert!(failed.is_empty() && failed.names().count() == 0);
        failed.add(Failed::TIMESTAMP);
        failed.add(Failed::PARSE);
        failed.add(Failed::PARSE);
        assert_eq!(failed.names().collect::<Vec<_>>(), ["parse", "timestamp"]);
        assert!(failed.has(Failed::PARSE) && failed.has(Failed::TIMESTAMP));
    }
}
