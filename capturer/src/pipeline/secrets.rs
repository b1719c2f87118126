//! Finds secrets in a text by hand, because no regular expression describes them: values of keys called password and
//! the like, in any quotes and escapes, of options and in elements; passwords in addresses; private keys.
//!
//! One pass each, from left to right. Bytes looked at behind a place are skipped afterwards, or their number is
//! bounded.

use std::ops::Range;

use crate::decode::work;

/// Longest part of a key before its sign that is looked at.
const KEY_BYTES_MAX: usize = 64;
/// Longest text of an element's attributes.
const ATTRIBUTES_BYTES_MAX: usize = 256;
/// Most blanks around a sign.
const BLANKS_MAX: usize = 8;

/// If a key's name contains one of these, in lower case and without signs, its value is secret.
const SECRET_WORDS: [&str; 20] = [
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "pwd",
    "secret",
    "apikey",
    "accesskey",
    "accountkey",
    "privatekey",
    "encryptionkey",
    "signingkey",
    "credential",
    "authorization",
    "sessionid",
    "cookie",
    "connectionstring",
    "jwt",
    // Whoever has a signed address can read what it leads to.
    "amzsignature",
    "googsignature",
];
/// As `SECRET_WORDS`, but only at the end of a name: "token" is a secret, "tokens" are mostly counted.
const SECRET_ENDS: [&str; 12] = [
    "token",
    "tokenvalue",
    "subscriptionkey",
    "functionskey",
    "masterkey",
    "otpcode",
    "mfacode",
    "2facode",
    "onetimecode",
    "verificationcode",
    "authcode",
    "securitycode",
];
/// As `SECRET_ENDS`, but as words of their own: "pass" and "otp" are secrets, "bypass" and "hotpot" are not.
const SECRET_LAST_WORDS: [&str; 7] = ["auth", "pass", "pin", "otp", "totp", "cvv", "cvc"];
/// A value that hides something has a run of so many letters, digits and signs, where the key alone does not say it.
const TOKEN_BYTES_MIN: usize = 12;
/// Values that hide nothing.
const NO_SECRETS: [&[u8]; 6] = [b"", b"null", b"nil", b"none", b"true", b"false"];
/// Words in front of the secret in an `Authorization`.
const SCHEMES: [&[u8]; 7] = [b"bearer", b"basic", b"token", b"digest", b"negotiate", b"apikey", b"hawk"];

/// The beginning of every replacement.
const REDACTED: &[u8] = b"[redacted";

/// Whether the key's name says that its value is secret.
pub(super) fn is_secret_key(key: &[u8]) -> bool {
    let key = &key[key.len().saturating_sub(KEY_BYTES_MAX)..];
    let letters =
        key.iter().filter(|byte| byte.is_ascii_alphanumeric()).map(u8::to_ascii_lowercase).collect();
    let Ok(name) = String::from_utf8(letters) else { return false };
    // A secretary is not one.
    let is_in = |word: &&str| name.contains(*word) && (**word != *"secret" || !name.contains("secretar"));
    if SECRET_WORDS.iter().any(is_in) {
        return true;
    }
    let last_is = |word: &str| {
        let at = key.len().checked_sub(word.len());
        at.is_some_and(|at| {
            let boundary = at == 0 || !key[at - 1].is_ascii_alphanumeric() || key[at].is_ascii_uppercase();
            boundary && key[at..].eq_ignore_ascii_case(word.as_bytes())
        })
    };
    SECRET_ENDS.iter().any(|word| name.ends_with(word)) || SECRET_LAST_WORDS.iter().any(|word| last_is(word))
}

/// Places of secret values, in order and not nested.
pub(super) fn values(text: &[u8]) -> Vec<Range<usize>> {
    let (mut found, mut at) = (Vec::new(), 0);
    let mut programs = Programs::default();
    while let Some(run) =
        text[at..].iter().position(|byte| matches!(byte, b'=' | b':' | b'-' | b'<' | b'%' | b'\'' | b'"'))
    {
        let sign = at + run;
        work::add(run + 1);
        at = sign + 1;
        let secret = match text[sign] {
            b'-' => private_key(text, sign)
                .or_else(|| password_of_program(text, sign, &mut programs))
                .or_else(|| value_of_option(text, sign)),
            b'<' => inside_element(text, sign),
            b'"' if !may_begin(text, sign) => None,
            b'\'' | b'"' => password_of_sql(text, sign).or_else(|| value_of_pair(text, sign)),
            b'%' => value_behind_encoded(text, sign),
            b':' if text[sign..].starts_with(b"://") => {
                at = sign + 3;
                password_of_address(text, sign + 3)
            }
            _ => value_behind(text, sign),
        };
        if let Some(range) = secret {
            at = range.end.max(at);
            found.push(range);
        }
    }
    found
}

/// From `-----BEGIN RSA PRIVATE KEY-----` to its end, or to the end of the text.
fn private_key(text: &[u8], at: usize) -> Option<Range<usize>> {
    const BEGIN: &[u8] = b"-----BEGIN ";
    const END: &[u8] = b"-----END ";
    let rest = text[at..].strip_prefix(BEGIN)?;
    let name_len = rest.iter().take(KEY_BYTES_MAX).position(|byte| *byte == b'-')?;
    let name = &rest[..name_len];
    if !name.ends_with(b"PRIVATE KEY") && !name.ends_with(b"PRIVATE KEY BLOCK") {
        return None;
    }
    let start = at + BEGIN.len() + name_len + b"-----".len().min(rest.len() - name_len);
    if text[start..].starts_with(REDACTED) {
        return None;
    }
    let end = memchr::memmem::find(&text[start..], END).map_or(text.len(), |end| start + end);
    (start < end).then_some(start..end)
}

/// `CREATE USER shop PASSWORD 's3cret'`, `IDENTIFIED WITH x BY "s3cret"`, `SET PASSWORD FOR a = PASSWORD('s3cret')`: servers
/// log the statements that they ran.
fn password_of_sql(text: &[u8], sign: usize) -> Option<Range<usize>> {
    let before = &text[sign.saturating_sub(STATEMENT_BYTES_MAX)..sign];
    let mut before = &before[..before.len() - string_prefix(before).len()];
    let parenthesis = before.ends_with(b"(");
    if parenthesis {
        before = &before[..before.len() - 1];
    }
    let words = before.trim_ascii_end();
    let blanks = before.len() - words.len();
    let ends = |word: &[u8]| {
        let at = words.len().checked_sub(word.len());
        at.is_some_and(|at| {
            words[at..].eq_ignore_ascii_case(word) && words[..at].last().is_some_and(|byte| *byte == b' ')
        })
    };
    let has = |word: &[u8]| words.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word));
    let is_password = blanks <= BLANKS_MAX
        && (blanks > 0 || parenthesis)
        && (ends(b"password")
            || ends(b"identified by")
            || (ends(b"by") && has(b" identified with "))
            || (words.ends_with(b"=") && has(b"set password for ")));
    if !is_password || text[sign + 1..].starts_with(REDACTED) {
        return None;
    }
    let end = quoted_end(text, sign + 1, 0, text[sign]);
    (sign + 1 < end).then_some(sign + 1..end)
}

/// So much of a statement is looked at before a password.
const STATEMENT_BYTES_MAX: usize = 128;

/// What may stand right before a quote and belong to the string: `b'x'`, `N'x'`, `@"x"`.
const STRING_PREFIXES: [&[u8]; 16] =
    [b"b", b"B", b"u", b"U", b"r", b"f", b"n", b"N", b"e", b"E", b"L", b"br", b"rb", b"@", b"$", b"&"];

/// Whether a string that [`password_of_sql`] and [`value_of_pair`] look at may begin with this quote. A line of JSON has many
/// others.
fn may_begin(text: &[u8], sign: usize) -> bool {
    let before = |count: usize| sign.checked_sub(count).map(|at| text[at]);
    match before(1) {
        Some(b' ' | b'(' | b'[' | b'\\' | b'@' | b'$' | b'&') => true,
        Some(b'b' | b'B' | b'u' | b'U' | b'r' | b'f' | b'n' | b'N' | b'e' | b'E' | b'L') => {
            before(2).is_none_or(|byte| !byte.is_ascii_alphanumeric() || matches!(byte, b'b' | b'r'))
        }
        _ => false,
    }
}

/// The prefix of a string at the end of a text; empty if it has none.
fn string_prefix(text: &[u8]) -> &[u8] {
    let is_of_prefix = |byte: &u8| byte.is_ascii_alphanumeric() || b"_@$&".contains(byte);
    let looked_at = &text[text.len().saturating_sub(3)..];
    let start = looked_at.iter().rposition(|byte| !is_of_prefix(byte)).map_or(0, |at| at + 1);
    let prefix = &looked_at[start..];
    if STRING_PREFIXES.contains(&prefix) { prefix } else { b"" }
}

/// `("DB_PASSWORD", "x")`, `[b'cookie', b'x']`: name and value are a list of two, as headers and environments are printed.
/// A list of names has a name there.
fn value_of_pair(text: &[u8], sign: usize) -> Option<Range<usize>> {
    let quote = text[sign];
    let escapes = text[..sign].iter().rev().take(BLANKS_MAX).take_while(|byte| **byte == b'\\').count();
    let before = &text[..sign - escapes];
    let before = &before[..before.len() - string_prefix(before).len()];
    let close = match before.last()? {
        b'(' => b')',
        b'[' => b']',
        _ => return None,
    };
    let name_len = text[sign + 1..].iter().take(KEY_BYTES_MAX).take_while(|byte| is_of_name(byte)).count();
    let name = &text[sign + 1..sign + 1 + name_len];
    let mut behind = text[sign + 1 + name_len..].iter().enumerate().skip(escapes + 1).map(|(_, byte)| *byte);
    if !is_secret_key(name) || behind.next() != Some(b',') {
        return None;
    }
    let mut start = sign + 1 + name_len + escapes + 2;
    start += text[start..].iter().take(BLANKS_MAX).take_while(|byte| **byte == b' ').count();
    let (inside, end) = string_at(text, start, escapes)?;
    let value = &text[inside..end];
    let is_last = text.get(end + escapes + 1) == Some(&close) && text.get(end + escapes) == Some(&quote);
    // What is said of a field, as by ["password","is too short"], is no value. Nor are names of tests and tags.
    let is_said = value.contains(&b' ') && !value.contains(&b'=');
    let is_word = SECRET_LAST_WORDS.iter().any(|word| name.eq_ignore_ascii_case(word.as_bytes()));
    let hides = !value.is_empty() && !is_said && !is_secret_key(value) && (!is_word || has_token(value));
    (is_last && hides && !value.starts_with(REDACTED)).then_some(inside..end)
}

/// The string that begins here, perhaps with a prefix: its inside. Its quotes are behind so many escapes.
fn string_at(text: &[u8], start: usize, escapes: usize) -> Option<(usize, usize)> {
    let prefix = text[start..].iter().take(3).position(|byte| b"\"'`\\".contains(byte))?;
    if prefix > 0 && !STRING_PREFIXES.contains(&&text[start..start + prefix]) {
        return None;
    }
    let at = start + prefix + escapes;
    let quote = *text.get(at).filter(|byte| b"\"'`".contains(byte))?;
    let is_escaped = text[start + prefix..at].iter().all(|byte| *byte == b'\\');
    is_escaped.then(|| (at + 1, quoted_end(text, at + 1, escapes, quote)))
}

/// `user:password@` behind `://`.
fn password_of_address(text: &[u8], start: usize) -> Option<Range<usize>> {
    let ends = |byte: &u8| byte.is_ascii_whitespace() || b"/?#\"'<>".contains(byte);
    let len = text[start..].iter().position(ends).unwrap_or(text.len() - start);
    let authority = &text[start..start + len];
    let user_len = authority.iter().rposition(|byte| *byte == b'@')?;
    let name_len = authority[..user_len].iter().position(|byte| *byte == b':')?;
    (name_len + 1 < user_len).then(|| start + name_len + 1..start + user_len)
}

/// Where programs with password options are first named; searched for once, when needed.
#[derive(Default)]
struct Programs {
    mysql: Option<usize>,
    curl: Option<usize>,
}

impl Programs {
    /// Whether one of these names comes before a place.
    fn stands_before(known: &mut Option<usize>, names: [&[u8]; 2], text: &[u8], place: usize) -> bool {
        let first = *known.get_or_insert_with(|| {
            work::add(text.len());
            names.iter().filter_map(|name| memchr::memmem::find(text, name)).min().unwrap_or(usize::MAX)
        });
        first < place
    }
}

/// `mysql -psecret`, `curl -u user:password`: options whose names do not say it, of programs named before them.
fn password_of_program(text: &[u8], sign: usize, programs: &mut Programs) -> Option<Range<usize>> {
    let begins = sign > 0 && b" \t\"'`,[(".contains(&text[sign - 1]);
    if !begins {
        return None;
    }
    let ends = |byte: &u8| byte.is_ascii_whitespace() || b"\"'`".contains(byte);
    // Nothing is skipped behind redacted text, and there may be much of it, so the end is searched for last.
    let until = |start: usize, quote: Option<u8>| {
        let rest = Some(&text[start..]).filter(|rest| !rest.starts_with(REDACTED))?;
        let end = match quote {
            Some(quote) => quoted_end(text, start, 0, quote),
            None => start + rest.iter().position(ends).unwrap_or(rest.len()),
        };
        (start < end).then_some(start..end)
    };
    let quote_at = |at: usize| text.get(at).copied().filter(|byte| matches!(byte, b'"' | b'\''));
    let option = &text[sign..];
    if option.starts_with(b"-p") {
        let is_mysql = Programs::stands_before(&mut programs.mysql, [b"mysql", b"mariadb"], text, sign);
        let quote = quote_at(sign + 2);
        let range = is_mysql.then(|| until(sign + 2 + usize::from(quote.is_some()), quote))??;
        // `docker run --name mysql -p3306:3306` is about ports.
        let value = &text[range.clone()];
        let is_port = value.contains(&b':') && value.iter().all(|byte| b"0123456789.:".contains(byte));
        // Options of other programs, and long options with one dash.
        const OTHERS: [&[u8]; 7] = [b"ort", b"id", b"ath", b"ool", b"rotocol", b"lugin", b"rint"];
        let is_other = OTHERS.iter().any(|name| {
            value.strip_prefix(*name).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"="))
        });
        return (!is_port && !is_other).then_some(range);
    }
    let names = [&b"--user"[..], b"--proxy-user", b"-u", b"-U"];
    let name = names.into_iter().find(|name| option.starts_with(name))?;
    let is_between = |byte: &&u8| b" \t\"'`,=".contains(byte);
    let between = option[name.len()..].iter().take(BLANKS_MAX).take_while(is_between).count();
    // `--username` is another option.
    let is_name = !name.starts_with(b"--") || between > 0;
    if !is_name || !Programs::stands_before(&mut programs.curl, [b"curl", b"wget"], text, sign) {
        return None;
    }
    let start = sign + name.len() + between;
    let user = text[start..].iter().take(KEY_BYTES_MAX).position(|byte| *byte == b':' || ends(byte))?;
    // The quote before the user's name ends the password, too, which may have blanks.
    let quote = quote_at(start - 1).filter(|_| between > 0);
    if text[start + user] == b':' { until(start + user + 1, quote) } else { None }
}

/// `--password x`, also as two texts of a list: `"--password", "x"`.
fn value_of_option(text: &[u8], sign: usize) -> Option<Range<usize>> {
    let begins = sign == 0 || b" \t\"'`=,[(".contains(&text[sign - 1]);
    let dashes = text[sign..].iter().take(2).take_while(|byte| **byte == b'-').count();
    let name = &text[sign + dashes..];
    let name_len = name.iter().take(KEY_BYTES_MAX).take_while(|byte| is_of_name(byte)).count();
    let between = &name[name_len..];
    let between_len = between.iter().take(BLANKS_MAX).take_while(|byte| b" \t\"'`,".contains(byte)).count();
    if !begins || between_len == 0 || !is_secret_key(&name[..name_len]) {
        return None;
    }
    let start = sign + dashes + name_len + between_len;
    let quote = *between[..between_len].last()?;
    let range = match quote {
        b'"' | b'\'' | b'`' => start..quoted_end(text, start, 0, quote),
        _ => start..unquoted_end(text, start),
    };
    let value = &text[range.clone()];
    // Not if another option or nothing follows.
    (!value.is_empty() && !value.starts_with(b"-") && !value.starts_with(REDACTED)).then_some(range)
}

/// `<password>x</password>`, `<Password type="text">x</Password>`
fn inside_element(text: &[u8], sign: usize) -> Option<Range<usize>> {
    let name = &text[sign + 1..];
    let is_name = |byte: &&u8| is_of_name(byte) || **byte == b':';
    let name_len = name.iter().take(KEY_BYTES_MAX).take_while(is_name).count();
    if name_len == 0 || !is_secret_key(&name[..name_len]) {
        return None;
    }
    let tag = &name[name_len..];
    let tag_len = tag.iter().take(ATTRIBUTES_BYTES_MAX).position(|byte| *byte == b'>' || *byte == b'<')?;
    let start = sign + 1 + name_len + tag_len + 1;
    if tag[tag_len] == b'<' || tag[..tag_len].ends_with(b"/") || text[start..].starts_with(REDACTED) {
        return None;
    }
    let content = &text[start..];
    // A CDATA section hides a value just as well.
    let end = match content.starts_with(b"<![CDATA[") {
        true => memchr::memmem::find(content, b"]]>").unwrap_or(content.len()),
        false => memchr::memchr(b'<', content).unwrap_or(content.len()),
    };
    (!content[..end].trim_ascii().is_empty()).then_some(start..start + end)
}

/// `password%3Dx%26y%3Dz`, and the same encoded twice.
fn value_behind_encoded(text: &[u8], sign: usize) -> Option<Range<usize>> {
    let rest = &text[sign + 1..];
    let rest = rest.strip_prefix(b"25").unwrap_or(rest);
    let is_sign = rest
        .get(..2)
        .is_some_and(|code| code.eq_ignore_ascii_case(b"3D") || code.eq_ignore_ascii_case(b"3A"));
    let key = key_before(&text[..sign]);
    let before = text[..sign].strip_suffix(key).unwrap_or_default();
    // The key may begin with the end of the code before it: `%26pin`.
    let key = if before.ends_with(b"%") { key.strip_prefix(b"25").unwrap_or(key).get(2..)? } else { key };
    if !is_sign || !is_secret_key(key) {
        return None;
    }
    let start = text.len() - rest.len() + 2;
    if text[start..].starts_with(REDACTED) {
        return None;
    }
    let ends = [&b"%26"[..], b"%2526", b"%3B", b"%3b"];
    let is_end = |at: &usize| ends.iter().any(|end| text[start + at..].starts_with(end));
    // Looked at in growing windows: of many pairs in a row each ends soon.
    let mut window = 4 * KEY_BYTES_MAX;
    let end = loop {
        let limit = text.len().min(start + window);
        let plain_end = unquoted_end(&text[..limit], start);
        if let Some(end) = memchr::memchr_iter(b'%', &text[start..plain_end]).find(is_end) {
            break end;
        }
        // At the window's edge nobody sees what follows.
        if plain_end + 2 * KEY_BYTES_MAX < limit || limit == text.len() {
            break plain_end - start;
        }
        window *= 2;
    };
    (end > 0).then_some(start..start + end)
}

/// A byte that a name may have.
fn is_of_name(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-.".contains(byte)
}

/// `"name":"DB_PASSWORD","value":` and `key="Password" value=`: the name is in a pair of its own, before the value's.
fn is_value_of_secret(text: &[u8], sign: usize) -> bool {
    const LOOKED_AT_BYTES: usize = 2 * KEY_BYTES_MAX;
    let text = &text[sign.saturating_sub(LOOKED_AT_BYTES)..sign];
    let around = |byte: &u8| b" \t\"'`\\,".contains(byte);
    let mut rest = text;
    let mut word = |signs: &[u8]| {
        let end = rest.iter().rposition(|byte| !around(byte) && !signs.contains(byte)).map_or(0, |at| at + 1);
        let start = rest[..end].iter().rposition(|byte| !is_of_name(byte)).map_or(0, |at| at + 1);
        let word = &rest[start..end];
        rest = &rest[..start];
        word
    };
    let (value, secret) = (word(b""), word(b""));
    if !value.eq_ignore_ascii_case(b"value") || !is_secret_key(secret) {
        return false;
    }
    let name = word(b"=:");
    name.eq_ignore_ascii_case(b"name") || name.eq_ignore_ascii_case(b"key")
}

/// The value behind `=` or `:`, if the key before the sign is secret.
fn value_behind(text: &[u8], sign: usize) -> Option<Range<usize>> {
    let key = key_before(&text[..sign]);
    let is_secret = is_secret_key(key) || is_value_of_secret(text, sign) || is_signature(text, sign, key);
    let may_be = !is_secret && (ends_with(key, b"tokens") || is_api_key(text, sign, key));
    if !is_secret && !may_be {
        return None;
    }
    let mut start = sign + 1;
    // `=>`, `:=`, `==`
    while matches!(text.get(start), Some(b'=' | b'>')) && start < sign + 3 {
        start += 1;
    }
    start += text[start..].iter().take(BLANKS_MAX).take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    start += wrapper_len(&text[start..]);
    let escapes = text[start..].iter().take_while(|byte| **byte == b'\\').count();
    let quoted = matches!(text.get(start + escapes), Some(b'"' | b'\'' | b'`'));
    // Tested before the end is searched for: nothing is skipped behind redacted text, and there may be much of it.
    if text[start + if quoted { escapes + 1 } else { 0 }..].starts_with(REDACTED) {
        return None;
    }
    // A value that may hide nothing is looked at again by what it contains, so its end is not searched for far away.
    let text = if is_secret { text } else { &text[..text.len().min(start + MAYBE_BYTES_MAX)] };
    let range = match text.get(start + escapes) {
        Some(quote @ (b'"' | b'\'' | b'`')) => {
            let quotes = quotes_len(&text[start + escapes..], *quote);
            let inside = start + escapes + quotes;
            match quotes {
                1 => inside..tuple_end(text, start, quoted_end(text, inside, escapes, *quote), escapes),
                _ => inside..closing_quote(text, inside, escapes, *quote),
            }
        }
        Some(b'[' | b'{') if escapes == 0 => start..nested_end(text, start),
        _ if is_cookies(key) => start..cookies_end(text, start),
        _ if ends_with(key, b"authorization") && has_parameters(&text[start..]) => {
            start..parameters_end(text, unquoted_end(text, start))
        }
        _ => start..in_connection_string(text, unquoted_end(text, start)),
    };
    let value = &text[range.clone()];
    let hides = !NO_SECRETS.iter().any(|word| value.eq_ignore_ascii_case(word));
    (hides && (is_secret || has_token(value))).then_some(range)
}

/// How languages print what holds a string: `Some("x")`, `SecretStr('x')`, `('x',)`, `b'x'`. The length of what stands before
/// the quote or its escapes; 0 if the value is not so.
fn wrapper_len(value: &[u8]) -> usize {
    let is_of_wrapper = |byte: &&u8| is_of_name(byte) || b":<>(@$&".contains(byte);
    let len = value.iter().take(KEY_BYTES_MAX).take_while(is_of_wrapper).count();
    let (wrapper, behind) = value.split_at(len);
    let escapes = behind.iter().take(BLANKS_MAX).take_while(|byte| **byte == b'\\').count();
    let is_quoted = matches!(behind.get(escapes), Some(b'"' | b'\'' | b'`'));
    let prefix = wrapper.iter().rposition(|byte| *byte == b'(').map_or(wrapper, |at| &wrapper[at + 1..]);
    let is_string = STRING_PREFIXES.contains(&prefix) || (prefix.is_empty() && len > 0);
    if is_quoted && is_string { len } else { 0 }
}

/// `auth=('bob', 'x')`: behind the last string of a tuple whose first one ends at `end`.
fn tuple_end(text: &[u8], start: usize, mut end: usize, escapes: usize) -> usize {
    let is_tuple = start > 0
        && text[start - 1] == b'('
        && text[..start - 1].last().is_none_or(|byte| b"=: ".contains(byte));
    while is_tuple && text.get(end + escapes + 1) == Some(&b',') {
        let blanks =
            text[end + escapes + 2..].iter().take(BLANKS_MAX).take_while(|byte| **byte == b' ').count();
        let Some((_, next)) = string_at(text, end + escapes + 2 + blanks, escapes) else { break };
        end = next;
    }
    end
}

/// How many quotes open the string: more than one in `"""x"""` and where a quote within quotes is written twice, `""x""`.
fn quotes_len(text: &[u8], quote: u8) -> usize {
    let run = text.iter().take(3).take_while(|byte| **byte == quote).count();
    // What is empty is closed by its second quote.
    if text.get(run).is_some_and(|byte| byte.is_ascii_alphanumeric()) { run } else { 1 }
}

/// Longest value that is hidden for what it looks like, not for its name.
const MAYBE_BYTES_MAX: usize = 1024;

fn ends_with(key: &[u8], word: &[u8]) -> bool {
    key.len().checked_sub(word.len()).is_some_and(|at| key[at..].eq_ignore_ascii_case(word))
}

/// `API key: …` as people write it, in two words.
fn is_api_key(text: &[u8], sign: usize, key: &[u8]) -> bool {
    let before = text[..sign].strip_suffix(key).and_then(|text| text.strip_suffix(b" "));
    let is_word = |text: &[u8]| text.last().is_none_or(|byte| !is_of_name(byte));
    let is_api = |text: &[u8]| ends_with(text, b"api") && is_word(&text[..text.len() - b"api".len()]);
    key.eq_ignore_ascii_case(b"key") && before.is_some_and(is_api)
}

/// Whether it has something like a token: letters and digits in one word. Numbers, names and times are none.
fn has_token(value: &[u8]) -> bool {
    let is_of_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-+/.~".contains(byte);
    let is_token = |word: &[u8]| {
        let digits = word.iter().filter(|byte| byte.is_ascii_digit()).count();
        let letters = word.iter().filter(|byte| byte.is_ascii_alphabetic()).count();
        word.len() >= TOKEN_BYTES_MIN && digits > 0 && letters > 2
    };
    value.split(|byte| !is_of_token(byte)).any(is_token)
}

/// Whether an `Authorization` of this scheme has a list of parameters, the proof among them.
fn has_parameters(value: &[u8]) -> bool {
    const SCHEMES: [&[u8]; 5] = [b"digest ", b"aws4-hmac-sha256 ", b"oauth ", b"signature ", b"hawk "];
    SCHEMES.iter().any(|scheme| value.get(..scheme.len()).is_some_and(|of| of.eq_ignore_ascii_case(scheme)))
}

/// Behind the last of `username="a", response="b"`, which follow some schemes of an `Authorization`.
fn parameters_end(text: &[u8], start: usize) -> usize {
    let (mut end, mut at) = (start, start);
    loop {
        at += text[at..].iter().take(BLANKS_MAX).take_while(|byte| **byte == b' ').count();
        let name_len = text[at..].iter().take(KEY_BYTES_MAX).take_while(|byte| is_of_name(byte)).count();
        let value = at + name_len + 1;
        if name_len > 0 && text.get(value - 1) == Some(&b'=') {
            end = match text.get(value) {
                Some(b'"') => (quoted_end(text, value + 1, 0, b'"') + 1).min(text.len()),
                _ => unquoted_end(text, value),
            };
        } else if end == start && text[start..].starts_with(b"\"") && at == start {
            // The scheme's word was taken together with the name of its first parameter.
            end = (quoted_end(text, start + 1, 0, b'"') + 1).min(text.len());
        } else {
            return end;
        }
        match text.get(end) {
            Some(b',') => at = end + 1,
            _ => return end,
        }
    }
}

/// `?sig=…` of Azure and `&Signature=…` of CloudFront, in an address that is signed. Elsewhere such a word means other things.
fn is_signature(text: &[u8], sign: usize, key: &[u8]) -> bool {
    let is_named = key.eq_ignore_ascii_case(b"sig") || key.eq_ignore_ascii_case(b"signature");
    let before = sign.checked_sub(key.len() + 1).map(|at| text[at]);
    is_named && text[sign] == b'=' && matches!(before, Some(b'?' | b'&'))
}

/// The name before a sign, without quotes, escapes and blanks.
fn key_before(text: &[u8]) -> &[u8] {
    let text = &text[text.len().saturating_sub(KEY_BYTES_MAX + 2 * BLANKS_MAX)..];
    let around = |byte: &u8| matches!(byte, b' ' | b'\t' | b'"' | b'\'' | b'`' | b'\\' | b']');
    let end = text.iter().rposition(|byte| !around(byte)).map_or(0, |at| at + 1);
    let start = text[..end].iter().rposition(|byte| !is_of_name(byte)).map_or(0, |at| at + 1);
    &text[start..end]
}

/// Where the quote is closed, behind as many escapes as it was opened with. An unclosed one ends with the text. SQL and YAML
/// write a single quote within a value twice.
fn quoted_end(text: &[u8], inside: usize, escapes: usize, quote: u8) -> usize {
    let mut end = closing_quote(text, inside, escapes, quote);
    while quote == b'\'' && escapes == 0 && end > inside && text[end..].starts_with(b"''") {
        end = closing_quote(text, end + 2, 0, quote);
    }
    end
}

fn closing_quote(text: &[u8], inside: usize, escapes: usize, quote: u8) -> usize {
    let mut run = 0;
    for (at, byte) in text.iter().enumerate().skip(inside) {
        match *byte {
            b'\\' => run += 1,
            // In unescaped quotes, an odd number of escapes makes the quote part of the value.
            byte if byte == quote && (if escapes == 0 { run % 2 == 0 } else { run <= escapes }) => {
                work::add(at - inside);
                return at - run.min(escapes);
            }
            _ => run = 0,
        }
        if *byte == quote {
            run = 0;
        }
    }
    work::add(text.len() - inside);
    text.len()
}

/// The place behind the bracket that closes the one at `start`. An unclosed one ends with the text.
fn nested_end(text: &[u8], start: usize) -> usize {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for (at, byte) in text.iter().enumerate().skip(start) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => depth += 1,
            b']' | b'}' if !quoted => {
                depth -= 1;
                if depth == 0 {
                    work::add(at - start);
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    work::add(text.len() - start);
    text.len()
}

/// A blank ends it, or a quote, or a sign with another pair or the end of a list behind it. Behind a scheme, the next
/// word is taken, too.
fn unquoted_end(text: &[u8], start: usize) -> usize {
    let mut end = start;
    while let Some(byte) = text.get(end) {
        let ends = match byte {
            byte if byte.is_ascii_whitespace() => true,
            b'"' | b'\'' | b'`' | b'&' | b'<' => true,
            b',' | b';' | b'|' => a_pair_follows(&text[end + 1..]),
            b')' | b']' | b'}' => text.get(end + 1).is_none_or(|next| !next.is_ascii_alphanumeric()),
            b'\\' => matches!(text.get(end + 1), Some(b'n' | b'r' | b't' | b'"')),
            _ => false,
        };
        if ends {
            break;
        }
        end += 1;
    }
    work::add(end - start);
    let is_scheme = SCHEMES.iter().any(|scheme| scheme.eq_ignore_ascii_case(&text[start..end]));
    match text.get(end) {
        Some(b' ') if is_scheme => {
            // A scheme behind a scheme is not one, so that each word is looked at once.
            let next = end + 1;
            let is_end = |byte: &u8| byte.is_ascii_whitespace() || b"\"'`,".contains(byte);
            next + text[next..].iter().position(is_end).unwrap_or(text.len() - next)
        }
        _ => end,
    }
}

/// A header with all cookies of a site. `Set-Cookie` has one, and what is said of it: its path, its age.
fn is_cookies(key: &[u8]) -> bool {
    let len = b"cookie".len();
    let is_cookie = key.len() >= len && key[key.len() - len..].eq_ignore_ascii_case(b"cookie");
    is_cookie && !key[..key.len() - len].trim_ascii().ends_with(b"-")
}

/// Behind the last of `a=b; c=d`: which of them is the session is known to nobody but the site.
fn cookies_end(text: &[u8], start: usize) -> usize {
    let mut end = unquoted_end(text, start);
    while let Some(rest) = text[end..].strip_prefix(b";") {
        let blanks = rest.iter().take(BLANKS_MAX).take_while(|byte| **byte == b' ').count();
        let pair = &rest[blanks..];
        let name_len = pair.iter().take(KEY_BYTES_MAX).take_while(|byte| is_of_name(byte)).count();
        if name_len == 0 || pair.get(name_len) != Some(&b'=') {
            break;
        }
        end = unquoted_end(text, end + 1 + blanks + name_len + 1);
    }
    end
}

/// The end of a value that ended at a blank: in a list of pairs with semicolons it may go on, `Password=p w;Encrypt=true`.
fn in_connection_string(text: &[u8], end: usize) -> usize {
    if text.get(end) != Some(&b' ') {
        return end;
    }
    let rest = &text[end..text.len().min(end + KEY_BYTES_MAX)];
    let Some(len) = rest.iter().position(|byte| b";=:,&\"'`<>\n".contains(byte)) else { return end };
    let is_name = |byte: &&u8| is_of_name(byte) || **byte == b' ';
    let name_len = |text: &[u8]| text.iter().take(KEY_BYTES_MAX).take_while(is_name).count();
    let pair = &text[end + len + 1..];
    let is_pair = rest[len] == b';' && pair.first().is_some_and(u8::is_ascii_alphabetic);
    if is_pair && pair.get(name_len(pair)) == Some(&b'=') { end + len } else { end }
}

/// Whether nothing, a blank, or a name with its sign follows.
fn a_pair_follows(text: &[u8]) -> bool {
    let name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.\"'\\".contains(byte);
    match text.first() {
        None => true,
        Some(byte) if byte.is_ascii_whitespace() => true,
        // JSON's next key, which may have blanks before its sign. A quote ends the value in any case.
        Some(b'"') => true,
        Some(b'\\') if text.get(1) == Some(&b'"') => true,
        Some(_) => {
            let len = text.iter().take(KEY_BYTES_MAX).take_while(|byte| name(byte)).count();
            len > 0 && matches!(text.get(len), Some(b'=' | b':'))
        }
    }
}
