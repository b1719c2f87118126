//! `${NAME}` and `${file:/path}` in values of the config: for secrets and values that differ by host. `$$` is a dollar
//! sign, and so is one before anything else.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Largest file that is read. Secrets are short; `/dev/zero` is not.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The environment and files that substitution may read, so that tests can provide their own.
pub struct Outside<'a> {
    /// Value of an environment variable; `None` = not set or not UTF-8.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// Content of a file, or why it can't be read.
    pub file: &'a dyn Fn(&Path) -> Result<String, String>,
}

impl Outside<'static> {
    /// This process's environment and file system.
    pub fn real() -> Outside<'static> {
        Outside { variable: &|name| std::env::var(name).ok(), file: &read_short }
    }
}

/// A value after substitution.
pub(super) struct Text {
    pub value: String,
    /// A placeholder was replaced: the value must not be shown.
    pub substituted: bool,
}

/// Replaces all placeholders. An error names the placeholder, never a value.
pub(super) fn substitute(written: &str, outside: &Outside) -> Result<Text, String> {
    let mut value = String::with_capacity(written.len());
    let mut substituted = false;
    let mut rest = written;
    while let Some(at) = rest.find('$') {
        value.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(escaped) = after.strip_prefix('$') {
            value.push('$');
            rest = escaped;
        } else if let Some(inside) = after.strip_prefix('{') {
            let Some((name, tail)) = inside.split_once('}') else {
                return Err("\"${\" has no closing \"}\"; write $$ for a dollar sign".to_owned());
            };
            value.push_str(&resolve(name, outside)?);
            substituted = true;
            rest = tail;
        } else {
            value.push('$');
            rest = after;
        }
    }
    value.push_str(rest);
    Ok(Text { value, substituted })
}

fn resolve(name: &str, outside: &Outside) -> Result<String, String> {
    if let Some(path) = name.strip_prefix("file:") {
        let path = Path::new(path);
        let failed = |why: &str| format!("${{{}}}: {why}", crate::text::terminal::shown(name));
        if !path.is_absolute() {
            return Err(failed("the path must be absolute"));
        }
        let content = (outside.file)(path).map_err(|why| failed(&why))?;
        return Ok(content.trim_end_matches(['\r', '\n']).to_owned());
    }
    let first_ok = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !first_ok || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        let form = "write ${NAME} or ${file:/path}, and $$ for a dollar sign";
        return Err(format!("\"${{{}}}\" is not a variable; {form}", crate::text::terminal::shown(name)));
    }
    (outside.variable)(name)
        .ok_or_else(|| {
            format!(
                "the environment variable {name} is not set (or not UTF-8); if no variable is meant, write $${{{name}}}"
            )
        })
}

fn read_short(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let mut file = File::open(path).map_err(|error| error.to_string())?;
    let read = (&mut file).take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    let len_bytes = read.map_err(|error| error.to_string())?;
    if len_bytes as u64 > FILE_BYTES_MAX {
        return Err(format!("longer than {FILE_BYTES_MAX} bytes"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(written: &str, expected: Result<&str, &str>) {
        let outside = Outside {
            variable: &|name| match name {
                "HOST" => Some("box".to_owned()),
                "EMPTY" => Some(String::new()),
                "ODD" => Some("${HOST}$$".to_owned()),
                _ => None,
            },
            file: &|path| match path.to_str() {
                Some("/run/secret") => Ok("s3cret\r\n".to_owned()),
                _ => Err("No such file".to_owned()),
            },
        };
        let result = substitute(written, &outside).map(|text| text.value);
        assert_eq!(result.as_deref().map_err(String::as_str), expected, "{written}");
    }

    #[test]
    fn values() {
        check("plain", Ok("plain"));
        check("", Ok(""));
        check("${HOST}", Ok("box"));
        check("a-${HOST}-${HOST}-b", Ok("a-box-box-b"));
        check("${EMPTY}", Ok(""));
        check("$${HOST}", Ok("${HOST}"));
        check("$$$$", Ok("$$"));
        check("cost: 5$ or $5", Ok("cost: 5$ or $5"));
        check("é${file:/run/secret}é", Ok("és3creté"));
        // A replaced value is not searched for placeholders: a secret may contain anything.
        check("${ODD}", Ok("${HOST}$$"));
    }

    #[test]
    fn errors() {
        check(
            "${NONE}",
            Err(
                "the environment variable NONE is not set (or not UTF-8); if no variable is meant, write $${NONE}",
            ),
        );
        check("${HOST", Err("\"${\" has no closing \"}\"; write $$ for a dollar sign"));
        let form = "write ${NAME} or ${file:/path}, and $$ for a dollar sign";
        check("${}", Err(&format!("\"${{}}\" is not a variable; {form}")));
        check("${A:-b}", Err(&format!("\"${{A:-b}}\" is not a variable; {form}")));
        check("${9A}", Err(&format!("\"${{9A}}\" is not a variable; {form}")));
        check("${file:x}", Err("${file:x}: the path must be absolute"));
        // The message goes to a terminal.
        check("${file:\u{1b}[2J}", Err("${file:\\u{1b}[2J}: the path must be absolute"));
        check("${file:/\u{2}}", Err("${file:/\\u{2}}: No such file"));
        check("${file:/none}", Err("${file:/none}: No such file"));
    }

    #[test]
    fn an_endless_file_is_refused() {
        assert!(read_short(Path::new("/dev/zero")).is_err_and(|why| why.contains("longer than")));
        assert!(read_short(Path::new("/proc/self")).is_err());
    }
}
