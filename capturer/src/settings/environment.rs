//! Variables that other programs obey: which proxy to use, where Docker is. This one goes by its config alone, and says so to
//! whoever expects otherwise.

use std::net::Ipv4Addr;
use std::path::Path;

use super::{Settings, units};

/// A sentence for each variable that has no effect here. `variable` reads the environment.
pub fn ignored(settings: &Settings, variable: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    proxy(settings, variable).into_iter().chain(docker_host(settings, variable)).collect()
}

/// What is said if a variable names another Engine than the config.
fn docker_host(settings: &Settings, variable: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let monitor = &settings.container_monitor;
    let host = variable("DOCKER_HOST").filter(|host| !host.trim().is_empty() && monitor.enabled)?;
    let ours = monitor.socket_path.display();
    let Ok(theirs) = units::socket_path(host.trim()) else {
        // Not its value, which may have a password.
        return Some(format!(
            "DOCKER_HOST is set and has no effect: it names an Engine that is not reached by a Unix socket, and capturer captures the \
             containers of {ours}. It runs on the host of each Engine: start it there"
        ));
    };
    // `/var/run` is a link to `/run`.
    let plain = |path: &Path| Path::new("/run").join(path.strip_prefix("/var/run").unwrap_or(path));
    (plain(&theirs) != plain(&monitor.socket_path)).then(|| {
        let theirs = theirs.display();
        format!(
            "DOCKER_HOST names {theirs} and has no effect: capturer captures the containers of {ours}. If those of {theirs} are meant, \
             set container_monitor.socket_path: {theirs}"
        )
    })
}

/// What is said if a variable names a proxy for the address of Loki.
fn proxy(settings: &Settings, variable: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let url = &settings.sinks.loki.as_ref()?.url;
    let (host, scheme) = (url.host()?.trim_matches(['[', ']']), url.scheme_str()?);
    let names: &[&str] = match scheme {
        "https" => &["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"],
        _ => &["http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"],
    };
    let is_set = |name: &&&str| variable(name).is_some_and(|value| !value.trim().is_empty());
    let name = names.iter().find(is_set)?;
    let direct = ["NO_PROXY", "no_proxy"].into_iter().find_map(variable).unwrap_or_default();
    if is_loopback(host) || direct.split(',').any(|entry| is_direct(host, entry.trim())) {
        return None;
    }
    // Not its value, which may have a password.
    Some(format!(
        "{name} is set and has no effect: capturer connects to {host} directly. If this host reaches it only through the proxy, \
         let the firewall pass capturer to {host}, or run something on this host that forwards there (nginx, socat) and name that in \
         sinks.loki.url. If the direct way is meant, add {host} to NO_PROXY"
    ))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host == "::1" || host.parse().is_ok_and(|ip: Ipv4Addr| ip.is_loopback())
}

/// Whether an entry of `NO_PROXY` names the host: itself, its domain, its network, or everything.
fn is_direct(host: &str, entry: &str) -> bool {
    if entry == "*" || entry.eq_ignore_ascii_case(host) {
        return true;
    }
    if let (Some((net, bits)), Ok(host)) = (entry.split_once('/'), host.parse::<Ipv4Addr>()) {
        let (Ok(net), Ok(bits @ 0..=32)) = (net.parse::<Ipv4Addr>(), bits.parse::<u32>()) else {
            return false;
        };
        let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
        return u32::from(net) & mask == u32::from(host) & mask;
    }
    let domain = entry.trim_start_matches('*').trim_start_matches('.').to_ascii_lowercase();
    let host = host.to_ascii_lowercase();
    !domain.is_empty()
        && host.strip_suffix(&domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::super::file::{Outside, parse};
    use super::*;

    fn told(url: &str, variables: &[(&str, &str)]) -> Option<String> {
        told_of(&format!("sinks: {{loki: {{enabled: true, url: \"{url}\"}}}}"), variables)
    }

    fn told_of(text: &str, variables: &[(&str, &str)]) -> Option<String> {
        let outside = Outside { variable: &|_| None, file: &|_| Err("none".to_owned()) };
        let settings = parse("c.yaml", text, &[], &outside).unwrap_or_else(|error| panic!("{error}"));
        let value = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let mut told = ignored(&settings, &value);
        assert!(told.len() < 2, "{told:?}");
        told.pop()
    }

    /// Whoever uses another Engine by this variable saw none of its containers, and no word why.
    #[test]
    fn another_engine_than_the_configured_one_is_named() {
        let to = |config: &str, host| told_of(config, &[("DOCKER_HOST", host)]);
        let text = to("", "unix:///run/user/1000/docker.sock").expect("told");
        assert!(text.ends_with("set container_monitor.socket_path: /run/user/1000/docker.sock"), "{text}");
        let text = to("", "tcp://bob:s3cret@10.0.0.1:2375").expect("told");
        assert!(
            text.contains("the containers of /var/run/docker.sock") && !text.contains("s3cret"),
            "{text}"
        );
        for (config, host) in [
            ("", ""),
            ("", "unix:///var/run/docker.sock"),
            ("", "unix:///run/docker.sock"),
            (
                "container_monitor: {socket_path: /run/user/1000/docker.sock}",
                "unix:///run/user/1000/docker.sock",
            ),
            (
                "container_monitor: {enabled: false}\nfile_monitor: {files: [{paths: [/a.log]}]}",
                "tcp://10.0.0.1:2375",
            ),
        ] {
            assert_eq!(to(config, host), None, "{config} {host}");
        }
    }

    /// Lines waited for days for a Loki that only the proxy could reach, and no word said that the proxy was not used.
    #[test]
    fn a_proxy_that_is_not_used_is_named() {
        let (https, proxy) = ("https://loki.example.com:3100", "http://bob:s3cret@proxy:3128");
        let text = told(https, &[("HTTPS_PROXY", proxy)]).expect("told");
        assert!(text.starts_with("HTTPS_PROXY is set and has no effect"), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
        assert!(told("http://10.1.2.3:3100", &[("http_proxy", proxy)]).is_some());
        assert!(told(https, &[("all_proxy", proxy), ("NO_PROXY", "other.com, 10.0.0.0/8")]).is_some());
        for (url, variables) in [
            (https, vec![("HTTP_PROXY", proxy)]),
            (https, vec![("HTTPS_PROXY", "")]),
            (https, vec![("HTTPS_PROXY", proxy), ("NO_PROXY", "a, .example.com")]),
            (https, vec![("HTTPS_PROXY", proxy), ("no_proxy", "LOKI.example.com")]),
            (https, vec![("HTTPS_PROXY", proxy), ("NO_PROXY", "*")]),
            ("http://10.1.2.3:3100", vec![("HTTP_PROXY", proxy), ("NO_PROXY", "10.0.0.0/8")]),
            ("http://127.0.0.1:3100", vec![("HTTP_PROXY", proxy)]),
            ("http://localhost:3100", vec![("HTTP_PROXY", proxy)]),
        ] {
            assert_eq!(told(url, &variables), None, "{url} {variables:?}");
        }
    }
}
