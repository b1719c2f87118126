//! One request to Loki: connect if needed, send, read the answer, each with a time limit. HTTP/1.1 with keep-alive over
//! TCP or TLS.
//!
//! Every connection has a task of its own that ends with it; there are at most as many as requests may be in flight.

use std::io;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderValue, LOCATION, RETRY_AFTER, USER_AGENT,
};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use super::NAME;
use super::answer::PushOutcome;
use super::parcel::Parcel;
use super::{body, dial};
use crate::ledger::Owner;
use crate::ledger::claims::Claims;
use crate::limits::LOKI_ANSWER_BYTES_MAX;
use crate::settings::{Loki, LokiAuth, LokiFormat, LokiTls};
use crate::sink::spool::unix_ms;
use crate::telemetry::metrics::PushFailure;

/// A connection that may be used again.
pub type Connection = SendRequest<Full<Bytes>>;

/// Shared by all requests.
pub struct Client {
    url: Uri,
    format: LokiFormat,
    auth: LokiAuth,
    tls: LokiTls,
    patience: Duration,
    claims: Claims,
}

/// Where an answer leads that redirects, without what may be a key.
fn redirect<B>(answer: &hyper::Response<B>) -> Option<String> {
    const SHOWN_CHARS: usize = 200;
    let place = answer.headers().get(LOCATION).filter(|_| answer.status().is_redirection())?.to_str().ok()?;
    let plain = place.split_once('?').map_or(place, |(plain, _)| plain);
    Some(plain.chars().take(SHOWN_CHARS).collect())
}

/// A request that failed, by name and in words.
type Failure = (PushFailure, String);

impl Client {
    /// Checks what can be checked without a connection: that certificates and token can be read.
    ///
    /// # Errors
    /// Names the file.
    pub fn new(config: &Loki, claims: Claims) -> io::Result<Client> {
        let client = Client {
            url: config.url.clone(),
            format: config.format,
            auth: config.auth.clone(),
            tls: config.tls.clone(),
            patience: config.request_timeout,
            claims,
        };
        if client.is_tls() {
            connector(&client.tls)?;
        }
        client.authorization()?;
        Ok(client)
    }

    /// The address that it pushes to, for messages, without the query, which may hold a key.
    pub fn shown_url(&self) -> String {
        crate::settings::shown_url(&self.url)
    }

    /// Sends a request. The connection is taken from and, if it can be used again, put back into `slot`.
    pub async fn push(&self, slot: &mut Option<Connection>, tenant: &str, body: &Parcel) -> PushOutcome {
        match self.try_push(slot, tenant, body).await {
            Ok(outcome) => outcome,
            Err((reason, words)) => {
                *slot = None;
                PushOutcome::Failed(reason, words)
            }
        }
    }

    async fn try_push(
        &self,
        slot: &mut Option<Connection>,
        tenant: &str,
        body: &Parcel,
    ) -> Result<PushOutcome, Failure> {
        let request = self.request(tenant, body)?;
        let mut connection = match slot.take().filter(|connection| !connection.is_closed()) {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let exchange = async {
            let answer = connection.send_request(request).await.map_err(broken)?;
            let code = answer.status().as_u16();
            let asked = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            let retry_after = asked.and_then(|text| dial::retry_after(text, unix_ms()));
            let encoding = answer.headers().get(CONTENT_ENCODING).cloned();
            let is_success = answer.status().is_success();
            let leads_to = redirect(&answer);
            let (words, ended) = words_of(answer.into_body(), encoding.as_ref()).await;
            let words = leads_to.map_or(words.clone(), |place| format!("it redirects to {place} {words}"));
            let whole = match ended {
                // Nobody can tell whose answer it was: an empty body and a proxy's page that was cut look alike.
                Ended::Broken(error) if is_success => return Err(broken(error)),
                Ended::Broken(_) | Ended::TooLong => false,
                Ended::Whole => true,
            };
            Ok((PushOutcome::Status { code, retry_after, words }, whole))
        };
        let late = || {
            let patience = dial::patience_text(self.patience);
            (PushFailure::TimedOut, format!("no answer from {} within {patience}", self.host()))
        };
        let (outcome, whole) = timeout(self.patience, exchange).await.map_err(|_| late())??;
        if whole {
            *slot = Some(connection);
        }
        Ok(outcome)
    }

    fn request(&self, tenant: &str, body: &Parcel) -> Result<Request<Full<Bytes>>, Failure> {
        let unusable = |error: &dyn std::fmt::Display| (PushFailure::Unexpected, error.to_string());
        let body = body::pack(self.format, body).map_err(|error| unusable(&error))?;
        let path = self.url.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::post(path)
            .header(HOST, self.url.authority().map_or("", |authority| authority.as_str()))
            .header(USER_AGENT, concat!("capturer/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, body.content_type);
        if let Some(encoding) = body.content_encoding {
            request = request.header(CONTENT_ENCODING, encoding);
        }
        if !tenant.is_empty() {
            request = request.header("X-Scope-OrgID", tenant);
        }
        let authorization =
            self.authorization().map_err(|error| (PushFailure::Unauthorized, error.to_string()))?;
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        request.body(Full::new(body.bytes)).map_err(|error| unusable(&error))
    }

    fn authorization(&self) -> io::Result<Option<HeaderValue>> {
        let text = match &self.auth {
            LokiAuth::None => return Ok(None),
            LokiAuth::Basic(user, password) => {
                let pair = format!("{user}:{}", password.reveal());
                format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
            }
            LokiAuth::Bearer(token) => format!("Bearer {}", token.reveal()),
            LokiAuth::BearerFile(path) => {
                let named = |error: io::Error| in_file("the token", path, error);
                let token = std::fs::read_to_string(path).map_err(named)?;
                if token.trim().is_empty() {
                    return Err(named(io::Error::other("the file is empty")));
                }
                format!("Bearer {}", token.trim())
            }
        };
        // Its own error would show the value.
        let mut value = HeaderValue::try_from(text).map_err(|_| {
            io::Error::other("the token or password has characters that an HTTP header cannot contain")
        })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let name = self.url.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = self.url.port_u16().unwrap_or(if self.is_tls() { 443 } else { 80 });
        let until = Instant::now() + self.patience;
        let tcp = dial::connect((name, port), self.host(), self.patience).await?;
        let late = || dial::no_connection(self.host(), "", self.patience);
        timeout_at(until, self.secure(tcp, name)).await.map_err(|_| late())?
    }

    async fn secure(&self, tcp: TcpStream, name: &str) -> Result<Connection, Failure> {
        let _ = tcp.set_nodelay(true);
        let tcp = self.claims.hold(tcp, Owner::Sink(NAME.to_owned()));
        if !self.is_tls() {
            return handshake(tcp).await;
        }
        let bad =
            |error: &dyn std::fmt::Display| (PushFailure::Tls, format!("TLS with {}: {error}", self.host()));
        // Read again for each connection: certificates are renewed while the agent runs.
        let check = |error: &dyn std::fmt::Display| bad(&format!("{error}; {}", dial::CHECK_TLS));
        let connector = connector(&self.tls).map_err(|error| check(&error))?;
        let name = ServerName::try_from(name.to_owned()).map_err(|error| check(&error))?;
        let tls = connector.connect(name, tcp).await.map_err(|error| bad(&dial::tls_words(&error)))?;
        handshake(tls).await
    }

    fn is_tls(&self) -> bool {
        self.url.scheme_str() == Some("https")
    }

    fn host(&self) -> &str {
        self.url.authority().map_or("", |authority| authority.as_str())
    }
}

async fn handshake<S>(stream: S) -> Result<Connection, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // Whoever waits for an answer is told how it ends.
    tokio::spawn(connection);
    Ok(sender)
}

fn broken(error: hyper::Error) -> Failure {
    let mut text = format!("the connection broke: {error}");
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        // With TLS 1.3 the server judges the client's certificate after the handshake.
        if let Some(error) = error.downcast_ref::<io::Error>().filter(|error| dial::is_of_tls(error)) {
            return (PushFailure::Tls, dial::tls_words(error));
        }
        text += &format!(": {error}");
        cause = error.source();
    }
    (PushFailure::BrokenAnswer, text)
}

/// How the reading of a body ended.
enum Ended {
    /// That was all of it: the connection can be used again.
    Whole,
    /// There is more than is read.
    TooLong,
    Broken(hyper::Error),
}

/// The beginning of a body.
async fn words_of(mut body: hyper::body::Incoming, encoding: Option<&HeaderValue>) -> (String, Ended) {
    let mut bytes = Vec::new();
    let ended = loop {
        match body.frame().await {
            None => break Ended::Whole,
            Some(Err(error)) => break Ended::Broken(error),
            Some(Ok(frame)) => bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| data.as_ref())),
        }
        if bytes.len() > LOKI_ANSWER_BYTES_MAX {
            bytes.truncate(LOKI_ANSWER_BYTES_MAX);
            break Ended::TooLong;
        }
    };
    (text_of(&bytes, encoding.map_or(b"", HeaderValue::as_bytes)), ended)
}

/// The text of an answer's body. Proxies compress answers even if nobody asked them to.
fn text_of(bytes: &[u8], encoding: &[u8]) -> String {
    let encoding = encoding.trim_ascii().to_ascii_lowercase();
    if bytes.is_empty() || matches!(&encoding[..], b"" | b"identity") {
        return String::from_utf8_lossy(bytes).trim().to_owned();
    }
    let mut unpacked = Vec::new();
    if matches!(&encoding[..], b"gzip" | b"x-gzip") {
        // The bytes may be cut; the part that can be unpacked is used, up to the bound of an answer.
        let _ = MultiGzDecoder::new(bytes).take(LOKI_ANSWER_BYTES_MAX as u64).read_to_end(&mut unpacked);
    }
    match String::from_utf8_lossy(&unpacked).trim() {
        "" => "(compressed body)".to_owned(),
        text => text.to_owned(),
    }
}

fn connector(tls: &LokiTls) -> io::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    match &tls.ca_file {
        Some(path) => {
            for certificate in certificates("the authorities", path)? {
                roots.add(certificate).map_err(|error| in_file("the authorities", path, error))?;
            }
        }
        // An unreadable certificate is no reason to trust none of the others.
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    if roots.is_empty() {
        if let Some(path) = &tls.ca_file {
            return Err(in_file("the authorities", path, NO_PEM));
        }
        return Err(io::Error::other(
            "this host has no trusted certificate authorities: set sinks.loki.tls.ca_file",
        ));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots);
    let config = match (&tls.cert_file, &tls.key_file) {
        (Some(cert_file), Some(key_file)) => {
            let chain = certificates("our certificate", cert_file)?;
            if chain.is_empty() {
                return Err(in_file("our certificate", cert_file, NO_PEM));
            }
            let key = PrivateKeyDer::from_pem_file(key_file);
            let key = key.map_err(|error| in_file("our key", key_file, error))?;
            config
                .with_client_auth_cert(chain, key)
                .map_err(|error| in_file("our certificate", cert_file, error))?
        }
        _ => config.with_no_client_auth(),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

fn certificates(what: &str, path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    read.map_err(|error| in_file(what, path, error))
}

/// What is wrong with a file in which nobody found a certificate.
const NO_PEM: &str = "it has no certificate in PEM form (-----BEGIN CERTIFICATE-----); openssl x509 -inform der -in FILE \
                      turns one in DER form into that";

fn in_file(what: &str, path: &Path, error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("reading {what} from {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of an archive in a log tell nobody why Loki refused the lines.
    #[test]
    fn a_compressed_answer_is_read_or_said_to_be_one() {
        let pack = |text: &str| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            io::Write::write_all(&mut encoder, text.as_bytes()).unwrap();
            encoder.finish().unwrap()
        };
        let words = "entry too far behind";
        assert_eq!(text_of(words.as_bytes(), b""), words);
        assert_eq!(text_of(words.as_bytes(), b"identity"), words);
        assert_eq!(text_of(&pack(words), b"GZIP"), words);
        assert_eq!(text_of(&pack(words), b"br"), "(compressed body)");
        assert_eq!(text_of(b"no gzip", b"gzip"), "(compressed body)");
        assert_eq!(text_of(b"", b"gzip"), "");
        let bomb = pack(&"x".repeat(100 * LOKI_ANSWER_BYTES_MAX));
        assert_eq!(text_of(&bomb, b"gzip").len(), LOKI_ANSWER_BYTES_MAX);
        let numbers: String = (0..LOKI_ANSWER_BYTES_MAX).map(|number| format!("{number} ")).collect();
        let cut = &pack(&numbers)[..LOKI_ANSWER_BYTES_MAX];
        assert!(text_of(cut, b"gzip").starts_with("0 1 2 3 "));
    }
}
