//! Which requests are answered, by their `Host` header. A web page from elsewhere can give its own name this server's
//! address (DNS rebinding), and a browser then lets it read the answers, including log lines. It can't do so under an
//! address, or under a name that is not its own. So a request has to name this server by one of these.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{HOST, HeaderMap};

/// Names that a request may use for this server, besides loopback addresses and `localhost`.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosts {
    /// The address of `admin.listen`.
    pub listen: Option<IpAddr>,
    /// The names of `admin.hosts`.
    pub names: Vec<String>,
}

impl Hosts {
    /// Whether a request that came to the address `local` is answered. A request without the header is not from a
    /// browser. The error is the name it used.
    pub fn check(&self, headers: &HeaderMap, local: Option<SocketAddr>) -> Result<(), String> {
        for value in headers.get_all(HOST) {
            let text = String::from_utf8_lossy(value.as_bytes());
            if !self.is_ours(without_port(&text), local) {
                return Err(text.into_owned());
            }
        }
        Ok(())
    }

    fn is_ours(&self, host: &str, local: Option<SocketAddr>) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        let named = |name: &str| name.eq_ignore_ascii_case(host);
        match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(ip) => {
                ip.is_loopback() || self.listen == Some(ip) || local.is_some_and(|local| same(local.ip(), ip))
            }
            Err(_) => host.is_empty() || named("localhost") || self.names.iter().any(|name| named(name)),
        }
    }
}

/// A socket that listens on every address shows IPv4 addresses in their IPv6 form.
fn same(local: IpAddr, ip: IpAddr) -> bool {
    local.to_canonical() == ip.to_canonical()
}

fn without_port(host: &str) -> &str {
    // `[::1]:8001`; `::1` without brackets is not a valid host.
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_means_this_server_is_answered() {
        let hosts = Hosts { listen: "10.1.2.3".parse().ok(), names: vec!["logs.example".to_owned()] };
        let local = "192.168.0.7:8001".parse().ok();
        let check = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            hosts.check(&headers, local).is_ok()
        };
        for good in [
            "localhost",
            "LOCALHOST:8001",
            "localhost.",
            "127.0.0.1:8001",
            "127.9.9.9",
            "[::1]:8001",
            "[::1]",
            "10.1.2.3:8001",
            "192.168.0.7:8001",
            "logs.example",
            "Logs.Example:8001",
            "",
        ] {
            assert!(check(good), "{good}");
        }
        for bad in [
            "evil.example",
            "evil.example:8001",
            "localhost.evil.example",
            "127.0.0.1.evil.example:8001",
            "10.1.2.4:8001",
            "[::2]:8001",
            "x",
            "8001",
            ":8001x",
            "localhost@evil.example",
        ] {
            assert!(!check(bad), "{bad}");
        }
        assert!(hosts.check(&HeaderMap::new(), local).is_ok(), "no browser");
    }

    #[test]
    fn two_names_must_both_be_right() {
        let mut headers = HeaderMap::new();
        headers.append(HOST, "localhost".parse().unwrap());
        headers.append(HOST, "evil.example".parse().unwrap());
        assert_eq!(Hosts::default().check(&headers, None), Err("evil.example".to_owned()));
    }
}
