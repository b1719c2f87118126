//! Just enough of Rust's grammar for the rules: code without comments and strings, and `use` trees spelled out.
//!
//! Deliberately no parser: the rules look for words and paths, and a wrong guess costs one odd finding, not a build.

/// The text with every comment, string and character literal blanked out, so that a word found in it is code. Lines stay
/// where they were.
pub fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = skip_end(&chars, at);
        if end > at {
            out.extend(chars[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            at = end;
        } else {
            out.push(chars[at]);
            at += 1;
        }
    }
    out
}

/// The end of the comment or literal that begins at `at`; `at` itself if there is none.
fn skip_end(chars: &[char], at: usize) -> usize {
    let rest = &chars[at..];
    let inside_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match rest {
        ['/', '/', ..] => at + rest.iter().position(|&c| c == '\n').unwrap_or(rest.len()),
        ['/', '*', ..] => at + block_comment(rest),
        ['r', '#' | '"', ..] if !inside_word => raw_string(rest, 1).map_or(at, |length| at + length),
        ['b', 'r', '#' | '"', ..] if !inside_word => raw_string(rest, 2).map_or(at, |length| at + length),
        ['"', ..] => at + quoted(rest, '"'),
        // 'a' and '\n' are characters; 'a without a closing quote is a lifetime.
        ['\'', '\\', ..] => at + quoted(rest, '\''),
        ['\'', _, '\'', ..] => at + 3,
        _ => at,
    }
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        match &rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// The length of `r##"…"##`; nothing for a raw identifier such as `r#type`.
fn raw_string(rest: &[char], prefix: usize) -> Option<usize> {
    let hashes = rest[prefix..].iter().take_while(|&&c| c == '#').count();
    let open = prefix + hashes;
    if rest.get(open) != Some(&'"') {
        return None;
    }
    let closes = |at: &usize| {
        rest[*at] == '"'
            && rest.len() >= at + 1 + hashes
            && rest[at + 1..at + 1 + hashes].iter().all(|&c| c == '#')
    };
    Some((open + 1..rest.len()).find(closes).map_or(rest.len(), |at| at + 1 + hashes))
}

fn quoted(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Whether `line` contains `word` with no letter, digit or underscore on either side.
pub fn has_word(line: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(part_of_word) && !line[at + word.len()..].starts_with(part_of_word)
    })
}

/// The paths of each `use` in `code`, groups spelled out, each with its line: `use a::{b, c::{self, d as e}}` is `a::b`,
/// `a::c`, `a::c::d`.
pub fn used_paths(code: &str) -> Vec<(usize, String)> {
    let mut paths = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let statement = line.trim_start();
        let statement = statement.strip_prefix("pub ").or_else(|| {
            statement.starts_with("pub(").then(|| statement.split_once(") ").map_or("", |(_, rest)| rest))
        });
        let statement = statement.unwrap_or_else(|| line.trim_start());
        if !statement.starts_with("use ") {
            continue;
        }
        let start: usize = code.lines().take(index).map(|line| line.len() + 1).sum();
        let from = start + line.len() - statement.len() + "use ".len();
        let tree: String = code[from..].split(';').next().unwrap_or_default().split_whitespace().fold(
            String::new(),
            |tree, word| {
                if word == "as" || tree.ends_with(" as") { tree + " " + word } else { tree + word }
            },
        );
        let mut spelled = Vec::new();
        spell_out("", &tree, &mut spelled);
        paths.extend(spelled.into_iter().map(|path| (index + 1, path)));
    }
    paths
}

fn spell_out(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let Some((head, group)) = tree.split_once('{') else {
        let name = tree.split(" as").next().unwrap_or(tree);
        let path = format!("{prefix}{name}");
        paths.push(path.strip_suffix("::self").map_or(path.clone(), str::to_owned));
        return;
    };
    let group = group.strip_suffix('}').unwrap_or(group);
    let (mut depth, mut from) = (0_usize, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                spell_out(&format!("{prefix}{head}"), &group[from..at], paths);
                from = at + 1;
            }
            _ => {}
        }
    }
    if from < group.len() {
        spell_out(&format!("{prefix}{head}"), &group[from..], paths);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_no_code() {
        let cases = [
            ("a // unsafe\nb", "a          \nb"),
            ("a /* x /* y */ unsafe */ b", "a                        b"),
            ("f(\"un\\\"safe\") + 1", "f(          ) + 1"),
            ("f(r#\"a\"b\"#)", "f(        )"),
            ("r#type", "r#type"),
            ("'a: '\"' '\\'' x", "'a:          x"),
            ("for<'a> &'a str", "for<'a> &'a str"),
        ];
        for (text, expected) in cases {
            assert_eq!(code_only(text), expected, "of {text:?}");
        }
    }

    #[test]
    fn words_are_found_whole() {
        assert!(has_word("unsafe { x }", "unsafe"));
        assert!(!has_word("#![deny(unsafe_code)] not_unsafe", "unsafe"));
    }

    #[test]
    fn groups_are_spelled_out() {
        let code =
            "//\nuse a::{\n  b, c::{self, d as e},\n};\n    pub(crate) use f::g;\nlet used = use_it;\n";
        let expected = [(2, "a::b"), (2, "a::c"), (2, "a::c::d"), (5, "f::g")];
        let got = used_paths(code);
        assert_eq!(got.iter().map(|(line, path)| (*line, path.as_str())).collect::<Vec<_>>(), expected);
    }
}
