//! Connecting to a server: the addresses of its name are tried in parallel, so that one that swallows packets does not
//! hide the others. Also, what to do about a TLS handshake that failed, and about a server that asks for a pause.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::rustls;

use crate::decode::timestamp;
use crate::telemetry::metrics::PushFailure;
use crate::text::age::age_text;

/// A name's next address is tried when the earlier ones have not answered for this long.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);
/// At most this many addresses are tried.
const ADDRESSES_MAX: usize = 16;
/// What to do about any other.
pub(super) const CHECK_TLS: &str = "check sinks.loki.tls and the server's certificate";
/// Longer than any pause that is obeyed.
const PAUSE_SECS_MAX: u64 = 1_000_000;

/// Connects to the first address of a name that answers. `host` is for the words of an error.
pub(super) async fn connect(
    (name, port): (&str, u16),
    host: &str,
    patience: Duration,
) -> Result<TcpStream, (PushFailure, String)> {
    let until = Instant::now() + patience;
    let late = |at: &str| no_connection(host, at, patience);
    let failed = |words: &str| (PushFailure::Unreachable, format!("connecting to {host}: {words}"));
    let found = timeout_at(until, tokio::net::lookup_host((name, port)));
    let found = found.await.map_err(|_| late(" (its name was looked up)"))?;
    let found = found.map_err(|error| failed(&error.to_string()))?;
    let addresses: Vec<SocketAddr> = found.take(ADDRESSES_MAX).collect();
    let tried = match &addresses[..] {
        [only] if name == only.ip().to_string() => String::new(),
        all => format!(" at {}", all.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")),
    };
    let connected = timeout_at(until, connect_any(addresses)).await.map_err(|_| late(&tried))?;
    connected.map_err(|words| failed(&words))
}

/// There was no connection within the time limit. `at` says which addresses were tried, if that is known.
pub(super) fn no_connection(host: &str, at: &str, patience: Duration) -> (PushFailure, String) {
    (PushFailure::TimedOut, format!("no connection to {host}{at} within {}", patience_text(patience)))
}

pub(super) fn patience_text(patience: Duration) -> String {
    match patience.subsec_millis() {
        0 => age_text(patience.as_secs()),
        _ => format!("{} ms", patience.as_millis()),
    }
}

/// The first that answers, or the errors of all.
async fn connect_any(addresses: Vec<SocketAddr>) -> Result<TcpStream, String> {
    let several = addresses.len() > 1;
    let mut waiting = addresses.into_iter();
    let mut under_way = FuturesUnordered::new();
    let mut errors: Vec<String> = Vec::new();
    loop {
        if let Some(address) = waiting.next() {
            under_way.push(async move { (address, TcpStream::connect(address).await) });
        }
        let has_more = waiting.len() > 0;
        tokio::select! {
            ended = under_way.next() => match ended {
                Some((_, Ok(stream))) => return Ok(stream),
                Some((address, Err(error))) if several => errors.push(format!("{address}: {error}")),
                Some((_, Err(error))) => errors.push(error.to_string()),
                None if errors.is_empty() => return Err("its name has no address".to_owned()),
                None => return Err(errors.join("; ")),
            },
            () = sleep(NEXT_ADDRESS), if has_more => {}
        }
    }
}

/// Whether TLS, and not the network, ended a connection.
pub(super) fn is_of_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|cause| cause.is::<rustls::Error>())
}

/// The meaning of a failed TLS handshake, and what to do.
pub(super) fn tls_words(error: &io::Error) -> String {
    use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
    match cause {
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "the server does not speak TLS at this port: use http:// in sinks.loki.url, or its TLS port".to_owned()
        }
        Some(Error::InvalidCertificate(why)) if format!("{why:?}").contains("CaUsedAsEndEntity") => {
            "the server presents a CA certificate (CA:TRUE) as its own, which is not trusted even if \
             sinks.loki.tls.ca_file has it: reissue the server's certificate with basicConstraints=CA:FALSE, or let \
             the CA sign one for the server"
                .to_owned()
        }
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)) => {
            format!(
                "{error}: nobody whom this host trusts signed the server's certificate; check sinks.loki.tls: ca_file must \
                 have the certificate of the CA that signed it, or the server's own if it is self-signed"
            )
        }
        Some(Error::AlertReceived(AlertDescription::CertificateRequired)) => {
            "the server requires a certificate of its clients: set sinks.loki.tls.cert_file and key_file".to_owned()
        }
        Some(Error::AlertReceived(
            alert @ (AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::AccessDenied),
        )) => format!(
            "the server refuses our certificate ({alert:?}): check sinks.loki.tls.cert_file, which must be signed by a CA that the \
             server trusts for clients, and not have expired"
        ),
        _ => format!("{error}; {CHECK_TLS}"),
    }
}

/// The pause of a `Retry-After`: seconds, of any number of digits, or a date.
pub(super) fn retry_after(text: &str, now_ms: u64) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let seconds = text.parse::<u64>().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds.min(PAUSE_SECS_MAX)));
    }
    let then_ms = u64::try_from(http_date(text)? / 1_000_000).ok()?;
    let pause = Duration::from_millis(then_ms.saturating_sub(now_ms));
    Some(pause.min(Duration::from_secs(PAUSE_SECS_MAX)))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, the one form that is written today: nanoseconds since 1970.
fn http_date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let [_, day, month, year, time, "GMT"] = words[..] else { return None };
    let month = 1 + MONTHS.iter().position(|name| *name == month)?;
    timestamp::parse(format!("{year}-{month:02}-{day:0>2}T{time}Z").as_bytes())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use rustix::net::{
        AddressFamily, SocketFlags, SocketType, bind, connect, getsockname, listen, socket_with,
    };

    use super::*;

    #[test]
    fn a_pause_in_seconds_or_until_a_date() {
        let now_ms = 784_111_777_000;
        for (text, seconds) in [
            ("5", Some(5)),
            (" 120 ", Some(120)),
            ("99999999999999999999999", Some(PAUSE_SECS_MAX)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 6 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("Fri, 01 Jan 9998 00:00:00 GMT", None),
            ("-5", None),
            ("soon", None),
            ("", None),
        ] {
            let found = retry_after(text, now_ms).map(|pause| pause.as_secs());
            if text.contains("9998") {
                assert!(found.is_none_or(|seconds| seconds == PAUSE_SECS_MAX));
            } else {
                assert_eq!(found, seconds, "{text}");
            }
        }
    }

    #[test]
    fn a_failed_handshake_says_what_to_do() {
        use rustls::{CertificateError, Error, InvalidMessage, OtherError};
        let words = |error: Error| tls_words(&io::Error::new(io::ErrorKind::InvalidData, error));
        let plain = words(Error::InvalidMessage(InvalidMessage::InvalidContentType));
        assert!(plain.contains("use http://"), "{plain}");
        let asks = words(Error::AlertReceived(rustls::AlertDescription::CertificateRequired));
        assert!(asks.contains("set sinks.loki.tls.cert_file and key_file"), "{asks}");
        let refuses = words(Error::AlertReceived(rustls::AlertDescription::UnknownCA));
        assert!(refuses.contains("refuses our certificate (UnknownCA)"), "{refuses}");
        #[derive(Debug)]
        struct CaUsedAsEndEntity;
        impl std::fmt::Display for CaUsedAsEndEntity {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "x")
            }
        }
        impl std::error::Error for CaUsedAsEndEntity {}
        let other = CertificateError::Other(OtherError(std::sync::Arc::new(CaUsedAsEndEntity)));
        let own = words(Error::InvalidCertificate(other));
        assert!(own.contains("CA:FALSE"), "{own}");
        for why in [CertificateError::UnknownIssuer, CertificateError::BadSignature] {
            let unknown = words(Error::InvalidCertificate(why));
            assert!(unknown.contains("ca_file must") && unknown.contains("self-signed"), "{unknown}");
        }
        let expired = words(Error::InvalidCertificate(CertificateError::Expired));
        assert!(expired.contains("xpired") && expired.contains("check sinks.loki.tls"), "{expired}");
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    /// Its queue is full, so the kernel drops what comes: the address is there, and answers nothing.
    fn black_hole() -> (SocketAddr, Vec<std::os::fd::OwnedFd>) {
        let open = |flags| socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
        let server = open(SocketFlags::empty());
        bind(&server, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        listen(&server, 0).unwrap();
        let address = SocketAddr::try_from(getsockname(&server).unwrap()).unwrap();
        let mut held = vec![server];
        for _ in 0..6 {
            let client = open(SocketFlags::NONBLOCK);
            let _ = connect(&client, &address);
            held.push(client);
        }
        (address, held)
    }

    #[test]
    fn an_address_that_swallows_packets_does_not_hide_the_next() {
        let (hole, _held) = black_hole();
        let good = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = good.local_addr().unwrap();
        let refused = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        runtime().block_on(async {
            let alone = tokio::time::timeout(Duration::from_millis(600), connect_any(vec![hole])).await;
            assert!(alone.is_err(), "it is a black hole");
            for addresses in [vec![hole, address], vec![refused, hole, address]] {
                let connected = connect_any(addresses).await.unwrap();
                assert_eq!(connected.peer_addr().unwrap(), address);
            }
            let words = connect_any(vec![refused, refused]).await.unwrap_err();
            assert_eq!(words.matches(&refused.to_string()).count(), 2, "{words}");
        });
    }

    #[test]
    fn what_was_tried_is_named() {
        let (hole, _held) = black_hole();
        // The name is looked up within the same time: on a busy machine that may take all of it.
        let (mut patience, mut tries) = (Duration::from_millis(300), 0);
        let (reason, words) = loop {
            let connected = super::connect(("localhost", hole.port()), "loki:1", patience);
            let (reason, words) = runtime().block_on(connected).unwrap_err();
            if !words.contains("was looked up") || tries == 5 {
                break (reason, words);
            }
            (patience, tries) = (patience * 2, tries + 1);
        };
        // Where localhost has ::1 too, nobody listens there.
        assert_eq!(reason, PushFailure::TimedOut, "{words}");
        assert!(words.contains("loki:1 at") && words.contains(&hole.to_string()), "{words}");
        assert!(words.ends_with(&format!(" within {} ms", patience.as_millis())), "{words}");
    }
}
