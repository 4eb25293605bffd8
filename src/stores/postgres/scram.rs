//! Password verifiers: made here so that a password never travels in a statement, and checked without changing them.

use base64::{Engine, prelude::BASE64_STANDARD};
use postgres_protocol::{
    authentication::sasl::{ChannelBinding, ScramSha256},
    password::scram_sha_256,
};
use sha2::{Digest, Sha256};

use crate::api::sensitive::Sensitive;

/// A fresh verifier, as `pg_authid.rolpassword` holds it.
pub fn verifier(password: &Sensitive) -> String {
    scram_sha_256(password.reveal().as_bytes())
}

/// Whether `stored` (from `pg_authid`) was made from this password: the login is played through against it.
pub fn matches(stored: &str, password: &Sensitive) -> bool {
    play(stored, password.reveal().as_bytes()).is_some()
}

fn play(stored: &str, password: &[u8]) -> Option<()> {
    let (iterations, rest) = stored.strip_prefix("SCRAM-SHA-256$")?.split_once(':')?;
    let (salt, keys) = rest.split_once('$')?;
    let server_key = BASE64_STANDARD.decode(keys.split_once(':')?.1).ok()?;
    let mut client = ScramSha256::new(password, ChannelBinding::unsupported());
    let client_first = std::str::from_utf8(client.message())
        .ok()?
        .strip_prefix("n,,")?
        .to_owned();
    let nonce = client_first.split_once("r=")?.1;
    let server_first = format!("r={nonce}server,s={salt},i={iterations}");
    client.update(server_first.as_bytes()).ok()?;
    let client_final = std::str::from_utf8(client.message()).ok()?;
    let without_proof = client_final.split_once(",p=")?.0;
    let exchange = format!("{client_first},{server_first},{without_proof}");
    let signature = BASE64_STANDARD.encode(hmac(&server_key, exchange.as_bytes()));
    // The client accepts the server's signature only if its password gives the same server key.
    client.finish(format!("v={signature}").as_bytes()).ok()
}

/// HMAC-SHA-256 with a key of at most one block, which a SCRAM key always is.
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let pad = |byte: u8| {
        let mut block = [byte; 64];
        block.iter_mut().zip(key).for_each(|(pad, key)| *pad ^= key);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new()
        .chain_update(pad(0x5c))
        .chain_update(inner)
        .finalize()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_is_known_by_its_password_only() {
        let password = Sensitive::new("s3cret");
        let stored = verifier(&password);
        assert!(stored.starts_with("SCRAM-SHA-256$4096:") && !stored.contains("s3cret"));
        assert!(matches(&stored, &password));
        assert!(!matches(&stored, &Sensitive::new("S3cret")));
        for other in ["", "md5abcdef", "SCRAM-SHA-256$4096:nonsense"] {
            assert!(!matches(other, &password), "{other}");
        }
    }

    #[test]
    fn hmac_as_in_rfc_4231() {
        let hex = hex::encode(hmac(b"Jefe", b"what do ya want for nothing?"));
        assert_eq!(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }
}
