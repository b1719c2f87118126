//! Requests to the admin server of a running agent, for commands that watch it (`tap`, `top`). In HTTP/1.0, so that an
//! answer ends with its connection.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use crate::commands::cli;
use crate::commands::cli::{AgentArgs, Exit};
use crate::settings::{Admin, Secret};
use crate::telemetry::admin::server::SPEAKS_TLS;

/// Longest wait to connect, and for each part of an answer that should come at once.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is printed of an agent that hangs.
pub const NO_ANSWER: &str = "gives no answer";
/// A longer answer is not read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The token for an agent that `--admin` names.
pub const TOKEN_VARIABLE: &str = "CAPTURER_ADMIN_TOKEN";

const TLS: &str = "speaks TLS (admin.tls_cert), which this command does not: set admin.socket in its config, name that config with \
                   -c, and run this as a user who may use the socket";

/// The agent that is asked.
#[derive(Clone, Debug)]
pub struct AgentClient {
    /// Address of its admin server.
    pub address: SocketAddr,
    /// Its Unix socket, which is tried first because it needs no token.
    pub socket: Option<PathBuf>,
    /// The token that the agent requires.
    pub token: Option<Secret>,
    /// The token comes from [`TOKEN_VARIABLE`], not from the config.
    pub is_from_variable: bool,
    /// The agent speaks TLS, which this client does not.
    pub tls: bool,
    /// Why this may not be the agent that the user means.
    pub doubt: Option<String>,
}

/// An answer whose body has not been read yet.
pub type AnswerReader = BufReader<Wire>;

/// A connection to the agent.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Wire {
    /// How long a read may wait; `None` = for ever.
    ///
    /// # Errors
    /// As the socket's own.
    pub fn set_read_timeout(&self, patience: Option<Duration>) -> io::Result<()> {
        match self {
            Wire::Tcp(stream) => stream.set_read_timeout(patience),
            Wire::Unix(stream) => stream.set_read_timeout(patience),
        }
    }

    fn set_write_timeout(&self, patience: Option<Duration>) -> io::Result<()> {
        match self {
            Wire::Tcp(stream) => stream.set_write_timeout(patience),
            Wire::Unix(stream) => stream.set_write_timeout(patience),
        }
    }
}

impl io::Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Tcp(stream) => stream.read(buffer),
            Wire::Unix(stream) => stream.read(buffer),
        }
    }
}

impl io::Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Tcp(stream) => stream.write(bytes),
            Wire::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AgentClient {
    /// Finds the agent by `--admin`, else by the config, else at the default address.
    ///
    /// # Errors
    /// The exit code; the problem was printed.
    pub fn find(arguments: &AgentArgs, err: &mut dyn io::Write) -> Result<AgentClient, Exit> {
        let mut doubt = None;
        let admin = match &arguments.admin {
            Some(admin) => admin.clone(),
            None => match cli::load(&arguments.config) {
                Ok((settings, _)) => settings.admin,
                Err(error) => {
                    // Whoever has just broken the config wants to see the agent that still runs with the previous one.
                    let admin = Admin::default();
                    let _ = cli::refuse(&error, err);
                    let address = admin.listen.map(|address| address.to_string()).unwrap_or_default();
                    let said = format!(
                        "this config can't be used, so the agent is asked at the default address {address}; \
                         --admin names another"
                    );
                    let _ = writeln!(err, "{said}");
                    doubt = Some(said);
                    admin
                }
            },
        };
        let Some(mut address) = admin.listen else {
            let error = anyhow::anyhow!(
                "the agent of this config has no admin server to ask (admin.listen is empty); name another with --admin"
            );
            return Err(cli::fail(&error));
        };
        // An agent that listens on every address listens on this one, too.
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        let given = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty());
        if given.as_ref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            let error = anyhow::anyhow!(
                "{TOKEN_VARIABLE} is not a valid token: it contains a space, a line break or another character that a \
                 token cannot have"
            );
            return Err(cli::fail(&error));
        }
        let is_from_variable = given.is_some();
        let token = given.map(Secret::new).or(admin.token);
        let tls = admin.tls.is_some();
        Ok(AgentClient { address, socket: admin.socket, token, is_from_variable, tls, doubt })
    }

    /// Returns the status and the whole body.
    ///
    /// # Errors
    /// Names the address and what to do.
    pub fn get(&self, path: &str) -> anyhow::Result<(u16, Vec<u8>)> {
        let (status, answer) = self.open(path)?;
        let mut body = Vec::new();
        answer.take(ANSWER_BYTES_MAX).read_to_end(&mut body).map_err(|error| self.explain(&error))?;
        Ok((status, body))
    }

    /// Returns the status, and a reader of the body. Each read waits at most 5 s, unless that is changed.
    ///
    /// # Errors
    /// As [`AgentClient::get`].
    pub fn open(&self, path: &str) -> anyhow::Result<(u16, AnswerReader)> {
        let ask = || -> io::Result<(u16, AnswerReader)> {
            let mut stream = self.connect()?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            let token =
                self.token.as_ref().map(|token| format!("Authorization: Bearer {}\r\n", token.reveal()));
            let (host, token) = (self.address, token.unwrap_or_default());
            stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n{token}\r\n").as_bytes())?;
            let mut answer = BufReader::new(stream);
            let strange = || io::Error::other("what answers there is not capturer");
            let begins = answer.fill_buf()?;
            // The answer is a TLS alert or handshake.
            if begins.len() > 1 && matches!(begins[0], 0x15 | 0x16) && begins[1] == 3 {
                return Err(io::Error::other(TLS));
            }
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
            if status == 400 && answer.fill_buf()?.starts_with(SPEAKS_TLS.as_bytes()) {
                return Err(io::Error::other(TLS));
            }
            Ok((status, answer))
        };
        let (status, answer) = ask().map_err(|error| self.explain(&error))?;
        if status == 401 {
            anyhow::bail!("{}", self.unknown_here());
        }
        Ok((status, answer))
    }

    /// The agent answers but does not accept this client.
    fn unknown_here(&self) -> String {
        let address = self.address;
        match (&self.token, self.is_from_variable) {
            (None, _) => format!(
                "the agent at {address} requires its token (admin.token): name its config with -c, or give the token \
                 in {TOKEN_VARIABLE}"
            ),
            (Some(_), true) => {
                format!("the agent at {address} has a different token from the one in {TOKEN_VARIABLE}")
            }
            (Some(_), false) => format!(
                "the agent at {address} has a different token from admin.token in this config: it was started with \
                 another config, or before the token was changed (a reload does not change it)"
            ),
        }
    }

    fn connect(&self) -> io::Result<Wire> {
        if let Some(Ok(stream)) = self.socket.as_ref().map(UnixStream::connect) {
            return Ok(Wire::Unix(stream));
        }
        if self.tls {
            return Err(io::Error::other(TLS));
        }
        Ok(Wire::Tcp(TcpStream::connect_timeout(&self.address, PATIENCE)?))
    }

    fn explain(&self, error: &io::Error) -> anyhow::Error {
        if error.get_ref().is_some_and(|inner| inner.to_string() == TLS) {
            return anyhow::anyhow!("the agent at {} {TLS}", self.address);
        }
        if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
            return anyhow::anyhow!(
                "the agent at {} {NO_ANSWER} within {} s: look with systemctl status capturer and journalctl -u capturer",
                self.address,
                PATIENCE.as_secs()
            );
        }
        anyhow::anyhow!(
            "no agent can be asked at {}: {error}; check that it runs, and name its admin.listen with --admin or its config with -c",
            self.address
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "Resource temporarily unavailable (os error 11)" told nobody what was wrong.
    #[test]
    fn an_agent_that_hangs_is_said_to_give_no_answer() {
        let client = AgentClient {
            address: "127.0.0.1:9".parse().unwrap(),
            socket: None,
            token: None,
            is_from_variable: false,
            tls: false,
            doubt: None,
        };
        for kind in [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut] {
            let said = client.explain(&kind.into()).to_string();
            assert!(said.starts_with("the agent at 127.0.0.1:9 gives no answer within 5 s"), "{said}");
        }
    }

    #[test]
    fn nobody_there_is_said_with_the_address() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = AgentClient {
            address: free,
            socket: None,
            token: None,
            is_from_variable: false,
            tls: false,
            doubt: None,
        }
        .get("/healthz")
        .unwrap_err()
        .to_string();
        assert!(error.contains(&free.to_string()) && error.contains("--admin"), "{error}");
    }
}
