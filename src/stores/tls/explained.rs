//! What went wrong with a connection, in words that say which certificate it is about and what to do.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use jiff::Timestamp;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{
    client::TlsStream,
    rustls::{AlertDescription, CertificateError, Error, pki_types::UnixTime},
};

/// What a failed handshake means; `None`: the connection broke, which says nothing of certificates.
pub(super) fn explain(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match error {
        Error::InvalidCertificate(problem) => certificate(problem),
        Error::AlertReceived(alert) => refused(*alert),
        Error::InvalidMessage(_) => {
            "the server does not speak TLS on this port; give its TLS port, or tls.mode: Disable for clear text".into()
        }
        Error::PeerIncompatible(_) => format!("the server offers no version of TLS that is safe (1.2, 1.3): {error}"),
        other => other.to_string(),
    })
}

fn certificate(problem: &CertificateError) -> String {
    let date = |time: &UnixTime| {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        Timestamp::from_second(seconds).map_or_else(|_| "an unknown date".into(), |at| at.strftime("%F").to_string())
    };
    match problem {
        CertificateError::UnknownIssuer => {
            "the server's certificate is signed by an unknown authority; put the certificate of its authority under ca.crt".into()
        }
        CertificateError::BadSignature => {
            "the server's certificate is signed by an unknown authority: of the same name as one under ca.crt, but with another key; \
             put the authority's present certificate under ca.crt"
                .into()
        }
        CertificateError::ExpiredContext { not_after, .. } => format!(
            "the server's certificate, or one above it, expired on {}; renew it on the server",
            date(not_after)
        ),
        CertificateError::NotValidYetContext { not_before, .. } => format!(
            "the server's certificate, or one above it, is not valid before {}; look at the clocks",
            date(not_before)
        ),
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "the host name {} is not among those of the server's certificate ({}); connect by one of these, or renew it with this name",
            expected.to_str(),
            names(presented)
        ),
        other => format!("the server's certificate cannot be used: {other}"),
    }
}

/// The names of a certificate, without the words that the parser puts around them.
fn names(presented: &[String]) -> String {
    const SHOWN: usize = 8;
    if presented.is_empty() {
        return "it has none: a common name alone does not count".into();
    }
    let bare = |name: &String| {
        let inner = name.split_once('(').map_or(name.as_str(), |(_, inner)| inner);
        inner.trim_matches([')', '"', '(']).to_owned()
    };
    let more = if presented.len() > SHOWN { ", ..." } else { "" };
    let shown: Vec<String> = presented.iter().take(SHOWN).map(bare).collect();
    format!("{}{more}", shown.join(", "))
}

/// The server's last word of a handshake; most are about the client's certificate.
fn refused(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => {
            "the server wants a client certificate; put one under tls.crt and tls.key".into()
        }
        AlertDescription::UnknownCA => {
            "the server does not know the authority of our client certificate (tls.crt)".into()
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown => {
            format!("the server refuses our client certificate (tls.crt), or misses one: {alert:?}")
        }
        AlertDescription::CertificateExpired => "our client certificate (tls.crt) has expired; renew it".into(),
        other => format!("the server ended the handshake: {other:?}"),
    }
}

/// With TLS 1.3 a server says only after the handshake what it thinks of the client: its words are explained there too.
pub(super) struct Explained(pub(super) TlsStream<TcpStream>);

fn told(error: io::Error) -> io::Error {
    match explain(&error) {
        Some(text) => io::Error::new(error.kind(), text),
        None => error,
    }
}

impl AsyncRead for Explained {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(ready!(Pin::new(&mut self.0).poll_read(context, buffer)).map_err(told))
    }
}

impl AsyncWrite for Explained {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(ready!(Pin::new(&mut self.0).poll_write(context, bytes)).map_err(told))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(ready!(Pin::new(&mut self.0).poll_flush(context)).map_err(told))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_rustls::rustls::pki_types::ServerName;

    #[test]
    fn certificates_are_told_plainly() {
        let expired = CertificateError::ExpiredContext {
            time: UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000)),
            not_after: UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_700_000_000)),
        };
        assert!(certificate(&expired).contains("expired on 2023-11-14"));
        let elsewhere = CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("db.example").unwrap(),
            presented: vec!["DnsName(\"other.example\")".into(), "IpAddress(10.0.0.1)".into()],
        };
        assert!(
            certificate(&elsewhere)
                .contains("db.example is not among those of the server's certificate (other.example, 10.0.0.1)")
        );
        assert!(certificate(&CertificateError::UnknownIssuer).contains("ca.crt"));
    }
}
