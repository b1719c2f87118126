//! Values of labels as the config writes them: fixed text with placeholders for what is known of a line.

use std::borrow::Cow;

use super::units::Mismatch;
use crate::record::{Source, StdType};

/// Names that stand for one fact each; `{label:KEY}` stands for a record's label.
const FACTS: [(&str, Fact); 6] = [
    ("container_name", Fact::ContainerName),
    ("container_id", Fact::ContainerId),
    ("image", Fact::Image),
    ("path", Fact::Path),
    ("stream", Fact::Stream),
    ("host", Fact::Host),
];

/// A checked template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelTemplate {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Fact(Fact),
    Label(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fact {
    ContainerName,
    ContainerId,
    Image,
    Path,
    Stream,
    Host,
}

impl LabelTemplate {
    /// Takes a template apart.
    pub(super) fn parse(text: &str) -> Result<LabelTemplate, Mismatch> {
        let names = FACTS.map(|(name, _)| format!("{{{name}}}")).join(", ");
        let expected = || {
            Mismatch::new(format!(
                "a text in which {names} or {{label:KEY}} may stand for what is known of a line"
            ))
        };
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            if at > 0 {
                parts.push(Part::Text(rest[..at].to_owned()));
            }
            let inside = rest[at..].strip_prefix('{').and_then(|inside| inside.split_once('}'));
            let (name, tail) = inside.ok_or_else(expected)?;
            parts.push(match FACTS.iter().find(|(known, _)| *known == name) {
                Some((_, fact)) => Part::Fact(*fact),
                None => match name.strip_prefix("label:").filter(|key| !key.is_empty()) {
                    Some(key) => Part::Label(key.to_owned()),
                    None => return Err(expected()),
                },
            });
            rest = tail;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(LabelTemplate { parts })
    }

    /// What it says of a line; empty where the line has none of what it asks for.
    pub fn render(&self, source: &Source, std_type: StdType, host: &str) -> String {
        let asked = |part: &&Part| !matches!(part, Part::Text(_));
        let values: Vec<Cow<str>> =
            self.parts.iter().map(|part| value(part, source, std_type, host)).collect();
        // "web/{path}" of a container is not "web/": a line without what is asked for has no such label.
        let asks = self.parts.iter().any(|part| asked(&part));
        let mut answers = self.parts.iter().zip(&values).filter(|(part, _)| asked(part));
        if asks && answers.all(|(_, value)| value.is_empty()) {
            return String::new();
        }
        values.concat()
    }

    /// What it says of every line; `None` = that depends on the line.
    pub fn fixed(&self) -> Option<String> {
        let text = |part: &Part| match part {
            Part::Text(text) => Some(text.clone()),
            Part::Fact(_) | Part::Label(_) => None,
        };
        self.parts.iter().map(text).collect::<Option<Vec<_>>>().map(|texts| texts.concat())
    }

    /// Its fixed parts.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            Part::Fact(_) | Part::Label(_) => None,
        })
    }

    /// Keys of the record labels it uses.
    pub fn source_labels(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Label(key) => Some(key.as_str()),
            Part::Text(_) | Part::Fact(_) => None,
        })
    }
}

fn value<'a>(part: &'a Part, source: &'a Source, std_type: StdType, host: &'a str) -> Cow<'a, str> {
    let container = source.container.as_ref();
    let text = match part {
        Part::Text(text) => Some(text.as_str()),
        Part::Fact(Fact::ContainerName) => container.map(|container| container.name.as_str()),
        Part::Fact(Fact::ContainerId) => container.map(|container| container.id.as_str()),
        Part::Fact(Fact::Image) => container.map(|container| container.image.as_str()),
        Part::Fact(Fact::Path) => source.path.as_deref(),
        Part::Fact(Fact::Stream) => Some(std_type.as_str()),
        Part::Fact(Fact::Host) => Some(host),
        Part::Label(key) => {
            let own = container.and_then(|container| container.labels.get(key));
            own.or_else(|| source.labels.get(key)).map(String::as_str)
        }
    };
    Cow::Borrowed(text.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::record::{ContainerMeta, StreamId, StreamKey};

    fn source() -> Source {
        Source {
            id: StreamId(1),
            key: StreamKey::container("c"),
            container: Some(ContainerMeta {
                id: "0123".to_owned(),
                name: "web".to_owned(),
                image: "nginx".to_owned(),
                labels: BTreeMap::from([("team".to_owned(), "a}b".to_owned())]),
            }),
            path: None,
            labels: BTreeMap::new(),
            outlet: crate::record::Outlet::default(),
            pipeline: None,
            pipeline_labels: BTreeMap::new(),
        }
    }

    #[test]
    fn placeholders_are_replaced() {
        let check = |text: &str, expected: &str| {
            let template = LabelTemplate::parse(text).unwrap();
            assert_eq!(template.render(&source(), StdType::Stderr, "box"), expected, "{text}");
        };
        check("", "");
        check("capturer", "capturer");
        check("{host}/{container_name}-{stream}", "box/web-stderr");
        check("{label:team}", "a}b");
        check("{label:none}", "");
        check("x{path}y", "");
        check("{path}{image}", "nginx");
    }

    #[test]
    fn what_stands_for_nothing_is_refused() {
        for bad in ["{", "}", "{}", "{nope}", "{label:}", "a{container_name", "{container_name}}"] {
            assert!(LabelTemplate::parse(bad).is_err(), "{bad}");
        }
    }
}
