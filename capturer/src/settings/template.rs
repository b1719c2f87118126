//! Values of labels as the config writes them: fixed text with placeholders for facts about a line.
//! `sink/label_value.rs` fills them in.

use super::units::Mismatch;

/// Names of the placeholders for facts; `{label:KEY}` stands for a record's label.
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
    pub(crate) parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Text that stands as it is.
    Text(String),
    /// One of the facts.
    Fact(Fact),
    /// The record's label with this key.
    Label(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    ContainerName,
    ContainerId,
    Image,
    Path,
    Stream,
    Host,
}

impl LabelTemplate {
    /// Parses a template.
    pub(crate) fn parse(text: &str) -> Result<LabelTemplate, Mismatch> {
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

    /// Its value for every line; `None` = the value depends on the line.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_placeholder_is_named_where_users_look() {
        for page in ["configs/config.yaml", "docs/loki.md"] {
            let text = std::fs::read_to_string(format!("{}/../{page}", env!("CARGO_MANIFEST_DIR"))).unwrap();
            for name in FACTS.map(|(name, _)| name).into_iter().chain(["label:KEY"]) {
                assert!(text.contains(&format!("{{{name}}}")), "{page} does not name {{{name}}}");
            }
        }
    }

    #[test]
    fn what_stands_for_nothing_is_refused() {
        for bad in ["{", "}", "{}", "{nope}", "{label:}", "a{container_name", "{container_name}}"] {
            assert!(LabelTemplate::parse(bad).is_err(), "{bad}");
        }
    }
}
