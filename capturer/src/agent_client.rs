//! Questions to the admin server of an agent that runs, for commands that watch it (`tap`, `top`). In HTTP/1.0, so that an
//! answer ends with its connection.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::settings::cli::{self, AgentArgs, Exit};

/// To connect, and for each part of an answer that should be there at once.
const PATIENCE: Duration = Duration::from_secs(5);
/// A whole answer is believed up to this size.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Where an agent is asked.
#[derive(Clone, Copy, Debug)]
pub struct AgentClient {
    /// Address of its admin server.
    pub address: SocketAddr,
}

/// An answer whose body is still to be read.
pub type Answer = BufReader<TcpStream>;

impl AgentClient {
    /// By `--admin`, else by the config.
    ///
    /// # Errors
    /// What is wrong was printed; the code to exit with.
    pub fn find(arguments: &AgentArgs, err: &mut dyn io::Write) -> Result<AgentClient, Exit> {
        let listen = match &arguments.admin {
            Some(admin) => admin.listen,
            None => cli::load(&arguments.config).map_err(|error| cli::refuse(&error, err))?.0.admin.listen,
        };
        let Some(mut address) = listen else {
            let error = anyhow::anyhow!(
                "the agent of this config has no admin server to ask (admin.listen is empty); name another with --admin"
            );
            return Err(cli::fail(&error));
        };
        // One that listens everywhere listens here too.
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        Ok(AgentClient { address })
    }

    /// Status and whole body.
    ///
    /// # Errors
    /// Names the address and what to do.
    pub fn get(&self, path: &str) -> anyhow::Result<(u16, Vec<u8>)> {
        let (status, answer) = self.open(path)?;
        let mut body = Vec::new();
        answer.take(ANSWER_BYTES_MAX).read_to_end(&mut body).map_err(|error| self.explain(&error))?;
        Ok((status, body))
    }

    /// Status, and the body to be read. Each read of it waits for at most 5 s, unless that is changed.
    ///
    /// # Errors
    /// As [`AgentClient::get`].
    pub fn open(&self, path: &str) -> anyhow::Result<(u16, Answer)> {
        let ask = || -> io::Result<(u16, Answer)> {
            let mut stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address).as_bytes())?;
            let mut answer = BufReader::new(stream);
            let strange = || io::Error::other("what answers there is no capturer");
            let mut line = String::new();
            (&mut answer).take(4096).read_line(&mut line)?;
            let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
            let status = status.ok_or_else(strange)?;
            while line.trim_end() != "" {
                line.clear();
                if (&mut answer).take(16 * 1024).read_line(&mut line)? == 0 {
                    return Err(strange());
                }
            }
            Ok((status, answer))
        };
        ask().map_err(|error| self.explain(&error))
    }

    fn explain(&self, error: &io::Error) -> anyhow::Error {
        anyhow::anyhow!(
            "no agent can be asked at {}: {error}; check that it runs, and name its admin.listen with --admin or its config with -c",
            self.address
        )
    }
}

/// Percent-encoding of whatever is not plain.
pub fn quote(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// Takes it back; `None` = it is not that.
pub fn unquote(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                let (digits, tail) = rest.split_at_checked(2)?;
                bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
                rest = tail;
            }
            byte => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_can_be_taken_back() {
        for text in ["", "web-1", "a b&c=d%+é\n", "^(GET|POST) \"x\""] {
            assert_eq!(unquote(&quote(text)).as_deref(), Some(text));
        }
        assert_eq!(unquote("a+b").as_deref(), Some("a b"));
        assert!(unquote("%").is_none() && unquote("%zz").is_none() && unquote("%ff").is_none());
    }

    #[test]
    fn nobody_there_is_said_with_the_address() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = AgentClient { address: free }.get("/healthz").unwrap_err().to_string();
        assert!(error.contains(&free.to_string()) && error.contains("--admin"), "{error}");
    }
}
