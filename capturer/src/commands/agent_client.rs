//! Requests to the admin server of a running agent, for commands that watch it (`tap`, `top`).

use std::io::{self, BufRead as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::commands::cli;
use crate::commands::cli::{AgentArgs, Exit};
use crate::commands::http::{self, Connection, Failure, Patience};
use crate::settings::{Admin, Secret};
use crate::telemetry::admin::server::SPEAKS_TLS;

/// Longest wait to connect, and for each part of an answer that should come at once.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest wait for the whole body of such an answer: the largest come from an agent of 20,000 streams.
const WHOLE_PATIENCE: Duration = Duration::from_secs(10);
/// What is printed of an agent that hangs.
pub const NO_ANSWER: &str = "gives no answer";
/// A longer answer is not read.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

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
        let mut answer = self.open(path)?;
        answer.body.get_mut().set_patience(Patience::Until(Instant::now() + WHOLE_PATIENCE));
        let status = answer.status;
        let body =
            answer.read_all(ANSWER_BYTES_MAX).map_err(|error| self.explain(&error.into(), WHOLE_PATIENCE))?;
        Ok((status, body))
    }

    /// Returns the answer as far as its body. Each read of that waits at most 5 s, unless that is changed.
    ///
    /// # Errors
    /// As [`AgentClient::get`].
    pub fn open(&self, path: &str) -> anyhow::Result<http::Answer> {
        let ask = || -> Result<http::Answer, Failure> {
            let token = self.token.as_ref();
            let token = token.map(|token| format!("Authorization: Bearer {}\r\n", token.reveal()));
            let host = self.address.to_string();
            let mut connection = self.connect()?;
            connection.set_patience(Patience::Until(Instant::now() + PATIENCE));
            let mut answer = http::get(connection, &host, path, &token.unwrap_or_default())?;
            if answer.status == 400 && answer.body.fill_buf()?.starts_with(SPEAKS_TLS.as_bytes()) {
                return Err(Failure::Tls);
            }
            answer.body.get_mut().set_patience(Patience::EachRead(PATIENCE));
            Ok(answer)
        };
        let answer = ask().map_err(|failure| self.explain(&failure, PATIENCE))?;
        if answer.status == 401 {
            anyhow::bail!("{}", self.unknown_here());
        }
        Ok(answer)
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

    fn connect(&self) -> Result<Connection, Failure> {
        if let Some(Ok(connection)) = self.socket.as_ref().map(|path| Connection::unix(path, PATIENCE)) {
            return Ok(connection);
        }
        if self.tls {
            return Err(Failure::Tls);
        }
        Ok(Connection::tcp(&self.address, PATIENCE)?)
    }

    fn explain(&self, failure: &Failure, patience: Duration) -> anyhow::Error {
        let address = self.address;
        let cause = match failure {
            Failure::Tls => return anyhow::anyhow!("the agent at {address} {TLS}"),
            Failure::Io(error) if is_of_time(error) => {
                return anyhow::anyhow!(
                    "the agent at {address} {NO_ANSWER} within {} s: look with systemctl status capturer and journalctl -u capturer",
                    patience.as_secs()
                );
            }
            Failure::Io(error) => error.to_string(),
            Failure::NotHttp => "what answers there is not capturer".to_owned(),
        };
        anyhow::anyhow!(
            "no agent can be asked at {address}: {cause}; check that it runs, and name its admin.listen with --admin or its config with -c"
        )
    }
}

/// A write that waits too long fails with the first.
fn is_of_time(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: SocketAddr) -> AgentClient {
        AgentClient { address, socket: None, token: None, is_from_variable: false, tls: false, doubt: None }
    }

    /// "Resource temporarily unavailable (os error 11)" told nobody what was wrong.
    #[test]
    fn an_agent_that_hangs_is_said_to_give_no_answer() {
        let client = client("127.0.0.1:9".parse().unwrap());
        for kind in [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut] {
            let said = client.explain(&io::Error::from(kind).into(), PATIENCE).to_string();
            assert!(said.starts_with("the agent at 127.0.0.1:9 gives no answer within 5 s"), "{said}");
        }
    }

    #[test]
    fn nobody_there_is_said_with_the_address() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = client(free).get("/healthz").unwrap_err().to_string();
        assert!(error.contains(&free.to_string()) && error.contains("--admin"), "{error}");
    }
}
