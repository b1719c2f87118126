//! Which requests over the network are answered: those that name this server ([`Hosts`]) and, if a token is set, have
//! it.

use base64::Engine as _;
use hyper::header::{AUTHORIZATION, HeaderMap};

use super::hosts::Hosts;
use crate::settings::Secret;

/// The rules for requests; see the head of this file.
#[derive(Clone, Debug, Default)]
pub(super) struct Access {
    pub hosts: Hosts,
    pub token: Option<Secret>,
}

impl Access {
    /// Whether a request has the token, or none is set. Browsers ask for a password, which is the token then.
    pub fn knows(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (scheme, rest) = given.split_once(' ').unwrap_or_default();
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return same(rest.as_bytes(), token.reveal().as_bytes());
        }
        let decoded = base64::engine::general_purpose::STANDARD.decode(rest).unwrap_or_default();
        let password = decoded.splitn(2, |byte| *byte == b':').nth(1).unwrap_or_default();
        scheme.eq_ignore_ascii_case("basic") && same(password, token.reveal().as_bytes())
    }
}

/// Takes the same time wherever the texts differ, so that a token can't be guessed byte by byte.
fn same(given: &[u8], wanted: &[u8]) -> bool {
    let differ = given.iter().zip(wanted).fold(0, |differ, (a, b)| differ | (a ^ b));
    given.len() == wanted.len() && differ == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_opens() {
        let token = "0123456789abcdef";
        let basic = |text: &str| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text));
        let access = Access { token: Some(Secret::new(token)), ..Access::default() };
        let check = |given: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, given.parse().unwrap());
            access.knows(&headers)
        };
        for good in [format!("Bearer {token}"), format!("bearer {token}"), basic(&format!("me:{token}"))] {
            assert!(check(&good), "{good}");
        }
        for bad in ["", "Bearer", "Bearer ", "Bearer 0123456789abcde", "Bearer 0123456789abcdefg", token] {
            assert!(!check(bad), "{bad}");
        }
        assert!(!check(&basic(token)) && !check(&basic("me:")) && !check("Basic !"));
        assert!(!access.knows(&HeaderMap::new()));
        assert!(Access::default().knows(&HeaderMap::new()), "none is wanted");
    }
}
