//! Names of output files as the config writes them: fixed text with placeholders for facts about a source, in a path
//! that stays below its directory.
//!
//! There is no placeholder for the date. An output keeps its name, because the checkpoint holds by this name how much
//! of it counts, and does so before the first line is written. A name that changed at midnight would be one that no
//! checkpoint knows yet, so a crash could leave lines in it that are written again. `rotate_every` renames files
//! instead.
//!
//! Not here: how a source's values become part of a path, and that they can't leave the directory either
//! (sink/file_name.rs).

use super::units::Mismatch;
use crate::limits::FILE_NAME_BYTES_MAX;
use crate::text::terminal::shown;

/// A checked template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileTemplate {
    text: String,
    /// There is at least one component, and none is empty, `.` or `..`.
    components: Vec<Vec<NamePart>>,
}

/// A part of a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamePart {
    /// At most [`FILE_NAME_BYTES_MAX`] bytes, without slashes and NULs.
    Literal(String),
    /// `{container_name}`: the name, or what a source without one has instead.
    ContainerName,
    /// `{container_id}`: all 64 digits, or what a source without one has instead.
    ContainerId,
    /// `{image}`: the image, or `no-image`.
    Image,
    /// `{path}`: the last part of a followed file's path, and a hash of the whole path.
    Path,
    /// `{label:KEY}`: the value of the record's label, or `no-label`.
    Label(String),
}

const PLACEHOLDERS: [(&str, NamePart); 4] = [
    ("container_name", NamePart::ContainerName),
    ("container_id", NamePart::ContainerId),
    ("image", NamePart::Image),
    ("path", NamePart::Path),
];

impl FileTemplate {
    /// Whether each source gets an output of its own.
    pub fn names_source(&self) -> bool {
        let parts = self.components.iter().flatten();
        parts
            .into_iter()
            .any(|part| matches!(part, NamePart::ContainerName | NamePart::ContainerId | NamePart::Path))
    }

    /// Parses a template.
    pub(crate) fn parse(text: &str) -> Result<FileTemplate, Mismatch> {
        let expected = || Mismatch::new("a file name such as {container_name}.ndjson");
        if text.is_empty() || text.ends_with('/') || text.contains('\0') {
            return Err(expected());
        }
        if text.starts_with('/') {
            let why = "it is taken beneath sinks.local_file.directory, so it can't begin with /";
            return Err(expected().hint(why));
        }
        let (mut components, mut parts, mut rest) = (Vec::new(), Vec::new(), text);
        loop {
            let (literal, behind) = rest.split_at(rest.find(['/', '{', '}']).unwrap_or(rest.len()));
            if literal.len() > FILE_NAME_BYTES_MAX {
                let why = format!("a file's name has at most {FILE_NAME_BYTES_MAX} bytes");
                return Err(expected().hint(why));
            }
            if !literal.is_empty() {
                parts.push(NamePart::Literal(literal.to_owned()));
            }
            if let Some(tail) = behind.strip_prefix('/') {
                components.push(std::mem::take(&mut parts));
                rest = tail;
            } else if behind.is_empty() {
                components.push(parts);
                break;
            } else {
                let inside = behind.strip_prefix('{').and_then(|inside| inside.split_once('}'));
                let (name, tail) = inside.ok_or_else(|| expected().hint("each { needs its }"))?;
                parts.push(placeholder(name).ok_or_else(|| expected().hint(unknown(name)))?);
                rest = tail;
            }
        }
        let leads_elsewhere = |parts: &Vec<NamePart>| match parts.as_slice() {
            [] => true,
            [NamePart::Literal(literal)] => matches!(literal.as_str(), "." | ".."),
            _ => false,
        };
        if components.iter().any(leads_elsewhere) {
            return Err(expected().hint("its parts can't be empty, . or .."));
        }
        Ok(FileTemplate { text: text.to_owned(), components })
    }

    /// As the config has it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Labels that it uses.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.components.iter().flatten().filter_map(|part| match part {
            NamePart::Label(label) => Some(label.as_str()),
            _ => None,
        })
    }

    /// The path's components, each with its parts.
    pub fn components(&self) -> impl Iterator<Item = &[NamePart]> {
        self.components.iter().map(Vec::as_slice)
    }
}

fn placeholder(name: &str) -> Option<NamePart> {
    let plain = PLACEHOLDERS.into_iter().find(|(known, _)| *known == name).map(|(_, part)| part);
    let label = || name.strip_prefix("label:").filter(|key| !key.is_empty());
    plain.or_else(|| Some(NamePart::Label(label()?.to_owned())))
}

/// Names that users of other agents write for a time.
const TIMES: [&str; 8] = ["date", "time", "timestamp", "year", "month", "day", "hour", "now"];

fn unknown(name: &str) -> String {
    if TIMES.contains(&name) {
        return format!(
            "{{{name}}} is unknown: an output keeps its name while it is written; for one file per day set \
             sinks.local_file.rotate_every to 24h, which puts the time into the names of older files"
        );
    }
    let known = PLACEHOLDERS.map(|(name, _)| format!("{{{name}}}")).join(", ");
    format!("{{{}}} is unknown; there are {known} and {{label:KEY}}", shown(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_stay_beneath_their_directory() {
        let longest = "x".repeat(FILE_NAME_BYTES_MAX);
        let beside = format!("{longest}/{longest}{{path}}");
        for good in
            ["{container_name}.ndjson", "a/b", "{image}/{container_id}", "..a", "a..b", "..{path}", &beside]
        {
            assert_eq!(
                FileTemplate::parse(good).map(|template| template.as_str() == good),
                Ok(true),
                "{good}"
            );
        }
        let longer = format!("a/{longest}x");
        for (bad, hint) in [
            ("", ""),
            ("a\0b", ""),
            ("a/", ""),
            ("/a", "can't begin with /"),
            ("../a", "can't be empty, . or .."),
            ("a/../b", "can't be empty, . or .."),
            ("a/..", "can't be empty, . or .."),
            ("a//b", "can't be empty, . or .."),
            ("./a", "can't be empty, . or .."),
            ("{nope}", "{nope} is unknown; there are {container_name}, "),
            ("{date}.ndjson", "set sinks.local_file.rotate_every to 24h"),
            ("{year}/{month}", "set sinks.local_file.rotate_every to 24h"),
            ("{}", "{} is unknown"),
            ("{label:}", "{label:} is unknown"),
            ("{Image}", "{Image} is unknown"),
            ("{{path}}", "{{path} is unknown"),
            ("a{b/c}", "{b/c} is unknown"),
            ("{path", "each { needs its }"),
            ("path}", "each { needs its }"),
            (&longer, "a file's name has at most"),
        ] {
            let mismatch = FileTemplate::parse(bad).expect_err(bad);
            assert!(
                mismatch.hint.contains(hint) && mismatch.hint.is_empty() == hint.is_empty(),
                "{bad}: {mismatch:?}"
            );
        }
    }

    /// Labels are often named like `app.kubernetes.io/name`: a slash in braces separates nothing.
    #[test]
    fn a_label_may_have_a_slash() {
        let template = FileTemplate::parse("{label:a.b/c}/x{image}").unwrap();
        let label = vec![NamePart::Label("a.b/c".to_owned())];
        let rest = vec![NamePart::Literal("x".to_owned()), NamePart::Image];
        assert_eq!(template.components().collect::<Vec<_>>(), [label, rest]);
    }
}
