//! Values of labels: the config's template with its placeholders filled in for a line.

use std::borrow::Cow;

use crate::model::record::{Source, StdType};
use crate::settings::LabelTemplate;
use crate::settings::template::{Fact, Part};

impl LabelTemplate {
    /// The value for a line; empty if the line lacks one of the placeholders.
    pub fn render(&self, source: &Source, std_type: StdType, host: &str) -> String {
        let asked = |part: &&Part| !matches!(part, Part::Text(_));
        let values: Vec<Cow<str>> =
            self.parts.iter().map(|part| value(part, source, std_type, host)).collect();
        // For a container "web/{path}" does not become "web/": a line that lacks a placeholder does not get the label.
        let asks = self.parts.iter().any(|part| asked(&part));
        let mut answers = self.parts.iter().zip(&values).filter(|(part, _)| asked(part));
        if asks && answers.all(|(_, value)| value.is_empty()) {
            return String::new();
        }
        values.concat()
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
    use crate::model::record::{ContainerMeta, StreamId, StreamKey};

    fn source() -> Source {
        Source {
            container: Some(Box::new(ContainerMeta {
                id: "0123".to_owned(),
                name: "web".to_owned(),
                image: "nginx".to_owned(),
                labels: BTreeMap::from([("team".to_owned(), "a}b".to_owned())]),
            })),
            ..Source::new(StreamId(1), StreamKey::container("c"))
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
}
