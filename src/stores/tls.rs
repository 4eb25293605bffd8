//! TLS towards every store: one verifier for all of them, and errors that say which certificate is wrong, how, and what to do.

mod explained;

use std::{io, sync::Arc, time::Duration};

use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    },
};

use self::explained::{Explained, explain};
use crate::{
    api::sensitive::Sensitive,
    stores::{
        dial::dial,
        endpoint::{Endpoint, StoreError, Tls, Trust},
    },
};

/// A server that speaks clear text may wait for the end of what it takes for a command.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(3);

/// A connection as the clients use it.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The certificates of a PEM text, or what is wrong with it.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match all {
        Ok(all) if all.is_empty() => Err("holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)".into()),
        Ok(all) => Ok(all),
        Err(_) => Err("is no valid PEM".into()),
    }
}

fn private_key(pem: &Sensitive) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem.reveal().as_bytes())
        .map_err(|_| "holds no private key in PEM form (-----BEGIN PRIVATE KEY-----, not encrypted)".into())
}

/// Whether everything that a user gave can be used; says which key of the Secret cannot, and why.
pub fn check(trust: &Trust) -> Result<(), String> {
    config(trust).map(drop)
}

/// The certificates that are trusted when none are given, as PEM: for the one driver that reads files.
pub fn public_roots_pem() -> String {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let one = |certificate: &CertificateDer<'_>| {
        format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            BASE64_STANDARD.encode(certificate)
        )
    };
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(one).collect()
}

fn roots(trust: &Trust) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let Some(ca) = &trust.ca else {
        roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
        return Ok(roots);
    };
    for certificate in certificates(ca).map_err(|problem| format!("ca.crt {problem}"))? {
        roots
            .add(certificate)
            .map_err(|error| format!("ca.crt holds a certificate that cannot be read: {error}"))?;
    }
    Ok(roots)
}

fn config(trust: &Trust) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = if trust.verify {
        builder.with_root_certificates(roots(trust)?)
    } else {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
    };
    let Some(client) = &trust.client else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(&client.certificate).map_err(|problem| format!("tls.crt {problem}"))?;
    let key = private_key(&client.key).map_err(|problem| format!("tls.key {problem}"))?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|error| format!("tls.crt and tls.key do not belong together: {error}"))
}

/// A connection for a protocol that speaks TLS from its first byte.
pub async fn connect(endpoint: &Endpoint) -> Result<Box<dyn Stream>, StoreError> {
    encrypt(endpoint, open(endpoint).await?).await
}

/// A connection before anything is said on it.
pub async fn open(endpoint: &Endpoint) -> Result<TcpStream, StoreError> {
    let lost = |error: io::Error| StoreError::Unreachable(error.to_string());
    dial(endpoint).await.map_err(lost)
}

/// Names a certificate: the first of a PEM text.
pub fn fingerprint(pem: &str) -> Option<String> {
    certificates(pem).ok()?.first().map(name_of)
}

fn name_of(certificate: &CertificateDer<'_>) -> String {
    hex::encode(Sha256::digest(certificate))
}

/// The [`fingerprint`] of what the server shows on an open connection, whatever that is worth.
pub async fn shown(endpoint: &Endpoint, tcp: TcpStream) -> Result<Option<String>, StoreError> {
    let stream = handshake(endpoint, &Trust::default(), tcp).await?;
    let (_, session) = stream.get_ref();
    Ok(session.peer_certificates().and_then(|chain| chain.first()).map(name_of))
}

/// Encrypts an open connection as far as the endpoint asks for it.
pub async fn encrypt(endpoint: &Endpoint, tcp: TcpStream) -> Result<Box<dyn Stream>, StoreError> {
    let Tls::Encrypt(trust) = &endpoint.tls else {
        return Ok(Box::new(tcp));
    };
    Ok(Box::new(Explained(handshake(endpoint, trust, tcp).await?)))
}

async fn handshake(endpoint: &Endpoint, trust: &Trust, tcp: TcpStream) -> Result<TlsStream<TcpStream>, StoreError> {
    let config = config(trust).map_err(StoreError::Untrusted)?;
    let name = ServerName::try_from(endpoint.host.clone())
        .map_err(|_| StoreError::Untrusted(format!("{} is no host name that a certificate can have", endpoint.host)))?;
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, tcp);
    let Ok(outcome) = timeout(HANDSHAKE_DEADLINE, handshake).await else {
        return Err(StoreError::Unreachable(format!(
            "{}:{}: no answer to the TLS handshake within {} s; is this the server's TLS port?",
            endpoint.host,
            endpoint.port,
            HANDSHAKE_DEADLINE.as_secs()
        )));
    };
    outcome.map_err(|error| match explain(&error) {
        Some(text) => StoreError::Untrusted(format!("{}:{}: {text}", endpoint.host, endpoint.port)),
        None => StoreError::Unreachable(format!("TLS: {error}")),
    })
}

/// Takes every certificate (`Require`), but still checks that the server holds its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn junk_is_named_and_never_shown() {
        for junk in [
            "hunter2",
            "",
            "-----BEGIN CERTIFICATE-----\nhunter2\n-----END CERTIFICATE-----\n",
        ] {
            let trust = Trust {
                verify: true,
                ca: Some(junk.into()),
                client: None,
            };
            let problem = check(&trust).unwrap_err();
            assert!(
                problem.starts_with("ca.crt ") && !problem.contains("hunter2"),
                "{problem}"
            );
        }
        assert!(
            check(&Trust {
                verify: true,
                ..Trust::default()
            })
            .is_ok()
        );
        assert!(certificates(&public_roots_pem()).unwrap().len() > 50);
    }
}
