//! Where the admin server accepts connections: an address, with or without TLS, and a Unix socket.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};

use crate::ledger::Owner;
use crate::ledger::claims::{Claim, Claims};
use crate::settings::{Admin, AdminTls};

/// An accepted connection.
pub(super) enum Incoming {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

impl AsFd for Incoming {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Incoming::Tcp(stream) => stream.as_fd(),
            Incoming::Unix(stream) => stream.as_fd(),
        }
    }
}

/// Ports below this need a permission, unless somebody changed `net.ipv4.ip_unprivileged_port_start`.
const UNPRIVILEGED_PORT_MIN: u16 = 1024;

/// A port that needs a permission is bound here, before the agent gives up its permissions. A failure is reported when
/// the server starts, so that another agent with the same `data_dir` is reported first.
#[derive(Debug, Default)]
pub struct Early(Option<io::Result<TcpListener>>);

impl Early {
    /// Call this while the agent has all its permissions.
    pub fn bind(settings: &Admin) -> Early {
        let listen = settings.listen.filter(|listen| (1..UNPRIVILEGED_PORT_MIN).contains(&listen.port()));
        Early(listen.map(TcpListener::bind))
    }
}

/// Bound, but not on a runtime yet.
pub(super) struct Bound {
    tcp: TcpListener,
    unix: Option<(UnixListener, PathBuf)>,
    /// Set if the address speaks TLS.
    pub tls: Option<TlsAcceptor>,
    /// Where it listens.
    pub addr: SocketAddr,
}

/// The listeners on the server's runtime.
pub(super) struct Listeners {
    tcp: tokio::net::TcpListener,
    unix: Option<tokio::net::UnixListener>,
    path: Option<PathBuf>,
    _claims: Vec<Claim>,
}

impl Bound {
    pub fn new(listen: SocketAddr, early: Early, settings: &Admin) -> anyhow::Result<Bound> {
        let tcp = early.0.unwrap_or_else(|| TcpListener::bind(listen)).map_err(|error| {
            let hint = match error.kind() {
                io::ErrorKind::AddrInUse => "another process listens there",
                io::ErrorKind::AddrNotAvailable => "this host has no such address",
                io::ErrorKind::PermissionDenied => "ports below 1024 need the right CAP_NET_BIND_SERVICE",
                _ => "it can't be listened on",
            };
            anyhow::Error::new(error)
                .context(format!("admin server on {listen}: {hint}; change admin.listen"))
        })?;
        tcp.set_nonblocking(true).context("admin server: making its socket non-blocking")?;
        let addr = tcp.local_addr().context("admin server: asking for its address")?;
        let unix = match &settings.socket {
            Some(path) => {
                let listener = unix(path)
                    .with_context(|| format!("admin server on {}; change admin.socket", path.display()))?;
                Some((listener, path.clone()))
            }
            None => None,
        };
        let tls = settings.tls.as_ref().map(acceptor).transpose()?;
        Ok(Bound { tcp, unix, tls, addr })
    }

    /// Call this on the runtime.
    pub fn listen(self, claims: &Claims) -> io::Result<Listeners> {
        let tcp = tokio::net::TcpListener::from_std(self.tcp)?;
        let mut held = vec![claims.claim(tcp.as_fd(), Owner::Admin)];
        let (unix, path) = match self.unix {
            Some((listener, path)) => {
                let unix = tokio::net::UnixListener::from_std(listener)?;
                held.push(claims.claim(unix.as_fd(), Owner::Admin));
                (Some(unix), Some(path))
            }
            None => (None, None),
        };
        Ok(Listeners { tcp, unix, path, _claims: held })
    }
}

impl Listeners {
    /// The next connection on any listener.
    pub async fn accept(&self) -> io::Result<Incoming> {
        let unix = async {
            match &self.unix {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            tcp = self.tcp.accept() => Ok(Incoming::Tcp(tcp?.0)),
            unix = unix => Ok(Incoming::Unix(unix?.0)),
        }
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Removes a socket that an earlier agent left, but not one in use.
fn unix(path: &Path) -> io::Result<UnixListener> {
    let left = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if left && !is_in_use(path)? {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Whether somebody listens on a socket. A plain connect waits for ever if the listener hangs and its queue is full.
fn is_in_use(path: &Path) -> io::Result<bool> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let result = rustix::net::connect(&socket, &SocketAddrUnix::new(path)?);
    Ok(matches!(result, Ok(()) | Err(rustix::io::Errno::AGAIN)))
}

/// Whether certificate and key can be used.
///
/// # Errors
/// Names the file that can't be used.
pub fn check_tls(tls: &AdminTls) -> anyhow::Result<()> {
    acceptor(tls).map(drop)
}

fn acceptor(tls: &AdminTls) -> anyhow::Result<TlsAcceptor> {
    let (cert_file, key_file) = (&tls.cert_file, &tls.key_file);
    let in_cert =
        || format!("admin.tls_cert {}: no certificate in PEM can be read there", cert_file.display());
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(cert_file).and_then(Iterator::collect).with_context(in_cert)?;
    anyhow::ensure!(!chain.is_empty(), in_cert());
    let key = PrivateKeyDer::from_pem_file(key_file)
        .with_context(|| format!("admin.tls_key {}: no key in PEM can be read there", key_file.display()))?;
    let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("admin server: TLS")?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("admin.tls_cert and admin.tls_key do not belong together")?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A plain connect to a socket whose queue is full waits for ever, and the start with it.
    #[test]
    fn a_socket_of_a_process_that_hangs_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let address = SocketAddrUnix::new(&path).unwrap();
        let socket = || rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        let (listener, first) = (socket(), socket());
        rustix::net::bind(&listener, &address).unwrap();
        assert!(!is_in_use(&path).unwrap());
        rustix::net::listen(&listener, 0).unwrap();
        rustix::net::connect(&first, &address).unwrap();
        assert_eq!(unix(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        unix(&path).expect("nobody listens any more");
    }
}
