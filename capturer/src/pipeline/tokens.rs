//! Finds tokens by what they look like, whatever is before them: what their issuers put at their beginning, addresses that
//! are a secret themselves, and passwords in connection strings that are no addresses.
//!
//! False matches destroy lines, so a form without a beginning of its own is not here: 32 hexadecimal digits are mostly a
//! trace id. Patterns begin with fixed text where they can, so that a line without it costs one search for all of them.

use std::ops::Range;
use std::sync::LazyLock;

use crate::settings::pipeline::Pattern;

static BEARER: LazyLock<Pattern> = LazyLock::new(|| {
    Pattern::of_ours(r#"(?-u)\b(?:[Bb]earer|BEARER)[ \t:=]{1,4}["']?([A-Za-z0-9._~+/=-]{8,})"#)
});
static BASIC: LazyLock<Pattern> = LazyLock::new(|| {
    Pattern::of_ours(r#"(?-u)\b(?:[Bb]asic|BASIC)[ \t:=]{1,4}["']?([A-Za-z0-9+/]{6,}={0,2})"#)
});
static WEB_TOKEN: LazyLock<Pattern> = LazyLock::new(|| {
    Pattern::of_ours(r"(?-u)\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)?")
});

/// Tokens that are recognized by their prefix.
static TOKEN: LazyLock<Pattern> = LazyLock::new(|| {
    Pattern::of_ours(concat!(
        r"(?-u)\b(?:",
        // GitHub, GitLab, Slack, npm, PyPI, Docker Hub, RubyGems.
        r"gh[pousr]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{16,}|gl(?:pat|dt|rt|rtr|cbt|ptt|ft|imt|agent|soat|ffct|oas)-[A-Za-z0-9_-]{16,}",
        r"|GR1348941[A-Za-z0-9_-]{20,}",
        r"|xox[a-z]-[A-Za-z0-9-]{8,}|xapp-[A-Za-z0-9-]{16,}|npm_[A-Za-z0-9]{16,}|pypi-[A-Za-z0-9_-]{16,}",
        r"|dckr_pat_[A-Za-z0-9_-]{16,}|rubygems_[a-f0-9]{32,}",
        // AWS, Google, DigitalOcean, Hashicorp Vault, Databricks, PlanetScale, Doppler.
        r"|(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b|AIza[A-Za-z0-9_-]{30,}|ya29\.[A-Za-z0-9_-]{16,}|do[opr]_v1_[a-f0-9]{32,}",
        r"|GOCSPX-[A-Za-z0-9_-]{20,}|1//0[A-Za-z0-9_-]{40,}",
        r"|hv[sbr]\.[A-Za-z0-9_-]{16,}|dapi[a-f0-9]{32}|pscale_(?:pw|tkn|oauth)_[A-Za-z0-9_.-]{16,}",
        r"|dp\.(?:pt|st|ct|sa|scim|audit)\.[A-Za-z0-9]{32,}",
        // Stripe, Twilio, SendGrid, Shopify, Square, Grafana, Sentry, New Relic, Linear, Atlassian, Postman, Figma.
        r"|[spr]k_(?:live|test)_[A-Za-z0-9]{8,}|whsec_[A-Za-z0-9+/=]{16,}|SK[a-f0-9]{32}\b",
        r"|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",
        r"|shp[a-z]{2}_[a-fA-F0-9]{16,}|sq0[a-z]{3}-[A-Za-z0-9_-]{16,}|glsa_[A-Za-z0-9]{32,}_[a-fA-F0-9]{8}|glc_[A-Za-z0-9+/=]{32,}",
        r"|sntry[su]_[A-Za-z0-9_+/=]{32,}|NRAK-[A-Z0-9]{20,}|lin_api_[A-Za-z0-9]{32,}|ATATT3[A-Za-z0-9_=-]{40,}",
        r"|PMAK-[A-Za-z0-9]{20,}-[A-Za-z0-9]{16,}|figd_[A-Za-z0-9_-]{20,}",
        // OpenAI, Anthropic, Hugging Face, xAI, Groq, NVIDIA, Replicate; 1Password, age.
        r"|sk-[A-Za-z0-9_-]{20,}|hf_[A-Za-z0-9]{16,}|xai-[A-Za-z0-9]{40,}|gsk_[A-Za-z0-9]{40,}|nvapi-[A-Za-z0-9_-]{40,}",
        r"|r8_[A-Za-z0-9]{32,}|ops_eyJ[A-Za-z0-9_=-]{32,}|AGE-SECRET-KEY-1[0-9A-Z]{40,}",
        r")"
    ))
});

/// Whoever knows such an address may write there: Slack, Discord, Teams, Telegram.
static HOOK: LazyLock<Pattern> = LazyLock::new(|| {
    Pattern::of_ours(concat!(
        r"(?-u)\b(?:",
        r"hooks\.slack\.com/(?:services|workflows|triggers)/([A-Za-z0-9/_-]{16,})",
        r"|discord(?:app)?\.com/api/(?:v[0-9]{1,2}/)?webhooks/[0-9]{5,20}/([A-Za-z0-9_-]{20,})",
        r"|(?:webhook\.office\.com/webhookb2|outlook\.office\.com/webhook)/([A-Za-z0-9@/_-]{20,})",
        r"|api\.telegram\.org/(?:file/)?bot([0-9]{5,12}:[A-Za-z0-9_-]{20,})",
        r")"
    ))
});

/// Tokens without a key, in order and not nested.
pub(super) fn tokens(text: &[u8]) -> Vec<Range<usize>> {
    groups(&TOKEN, text)
}

/// JSON web tokens.
pub(super) fn web_tokens(text: &[u8]) -> Vec<Range<usize>> {
    groups(&WEB_TOKEN, text)
}

/// The secret part of addresses that are a secret.
pub(super) fn hooks(text: &[u8]) -> Vec<Range<usize>> {
    groups(&HOOK, text)
}

/// What follows `Bearer`. "bearer certificates" is prose: a token has digits or signs, or is long.
pub(super) fn bearers(text: &[u8]) -> Vec<Range<usize>> {
    let is_token = |text: &[u8]| text.len() >= 20 || text.iter().any(|byte| !byte.is_ascii_alphabetic());
    let found = groups(&BEARER, text);
    found.into_iter().filter(|range| is_token(&text[range.clone()])).collect()
}

/// What follows `Basic`, if it is a name and a password in Base64: "Basic authentication" is not.
pub(super) fn basics(text: &[u8]) -> Vec<Range<usize>> {
    let found = groups(&BASIC, text);
    found.into_iter().filter(|range| is_name_and_password(&text[range.clone()])).collect()
}

/// The group that matched, or the whole match of a pattern without groups.
fn groups(pattern: &Pattern, text: &[u8]) -> Vec<Range<usize>> {
    let regex = pattern.regex();
    // Groups are asked for where there is a match: they cost much more than the search.
    let of = |whole: regex::bytes::Match<'_>| {
        if regex.captures_len() == 1 {
            return whole.range();
        }
        let captures = regex.captures_at(text, whole.start());
        let group = captures.and_then(|captures| captures.iter().skip(1).flatten().next());
        group.map_or(whole.range(), |group| group.range())
    };
    regex.find_iter(text).map(of).collect()
}

/// Whether it is Base64 of printable text with a colon.
fn is_name_and_password(text: &[u8]) -> bool {
    let (mut bits, mut count, mut colon) = (0_u32, 0, false);
    for byte in text.iter().take_while(|byte| **byte != b'=') {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            _ => 63,
        };
        bits = (bits << 6 | u32::from(value)) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            let decoded = (bits >> count & 0xff) as u8;
            if decoded < b' ' || decoded == 0x7f {
                return false;
            }
            colon |= decoded == b':';
        }
    }
    colon
}

/// Most bytes of a name or a password in a connection string.
const PART_BYTES_MAX: usize = 128;

/// Passwords of connection strings that are no addresses: `shop:s3cret@tcp(db:3306)/shop` as Go's MySQL driver has it, and
/// `jdbc:oracle:thin:shop/s3cret@db`.
pub(super) fn passwords_of_connections(text: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for at in memchr::memmem::find_iter(text, b"@") {
        let behind = &text[at + 1..];
        let is_go =
            [&b"tcp("[..], b"tcp6(", b"unix(", b"cloudsql("].iter().any(|net| behind.starts_with(net));
        let from = at.saturating_sub(2 * PART_BYTES_MAX);
        let part = |byte: &u8| byte.is_ascii_whitespace() || b"\"'`".contains(byte);
        let begin = || text[from..at].iter().rposition(part).map_or(from, |end| from + end + 1);
        let start = if is_go {
            let begin = begin();
            text[begin..at].iter().position(|byte| *byte == b':').map(|colon| begin + colon + 1)
        } else if memchr::memmem::rfind(&text[from..at], b"jdbc:oracle:").is_some() {
            let begin = begin();
            let is_oracle = memchr::memmem::find(&text[begin..at], b"jdbc:oracle:").is_some();
            let slash = text[begin..at].iter().position(|byte| *byte == b'/');
            slash.filter(|_| is_oracle).map(|slash| begin + slash + 1)
        } else {
            None
        };
        let is_told =
            |range: &Range<usize>| memchr::memmem::find(&text[range.clone()], b"[redacted").is_some();
        let range = start.map(|start| start..at).filter(|range| !range.is_empty() && !is_told(range));
        let is_behind =
            |range: &Range<usize>| found.last().is_none_or(|last: &Range<usize>| last.end <= range.start);
        if let Some(range) = range.filter(is_behind) {
            found.push(range);
        }
    }
    found
}
