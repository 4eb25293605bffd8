//! From the `uri` of a user's Secret to an endpoint. Pure; no text of it ever reaches a message.

use url::Url;

use crate::{
    api::{common::TlsMode, sensitive::Sensitive},
    controllers::credentials::Entries,
    stores::endpoint::{Endpoint, Tls},
};

use super::observe::StoreKind;

/// The schemes a store's uri may have, its port, and the user it has without one.
fn rules(store: StoreKind) -> (&'static [&'static str], u16, &'static str) {
    match store {
        StoreKind::Postgres => (&["postgresql", "postgres"], 5432, "postgres"),
        StoreKind::Redis => (&["redis", "rediss"], 6379, "default"),
        StoreKind::Neo4j => (
            &["bolt", "neo4j", "bolt+s", "bolt+ssc", "neo4j+s", "neo4j+ssc"],
            7687,
            "neo4j",
        ),
    }
}

/// Reads the endpoint, or says what is wrong with the Secret without telling what is in it.
pub fn endpoint(store: StoreKind, secret: &str, entries: &Entries, tls: TlsMode) -> Result<Endpoint, String> {
    let (schemes, port, user) = rules(store);
    let uri = entries
        .get("uri")
        .ok_or_else(|| format!("Secret {secret} has no key uri that is text"))?;
    let url = Url::parse(uri.reveal().trim())
        .map_err(|error| format!("the uri in Secret {secret} cannot be read: {error}"))?;
    if !schemes.contains(&url.scheme()) {
        return Err(format!(
            "the uri in Secret {secret} begins with {}:// but must begin with {}://",
            url.scheme(),
            schemes[0]
        ));
    }
    let host = url
        .host_str()
        .filter(|host| !host.is_empty())
        .ok_or_else(|| format!("the uri in Secret {secret} names no host"))?;
    let decoded =
        |text: &str| percent_decode(text).ok_or_else(|| format!("the uri in Secret {secret} has a bad percent escape"));
    Ok(Endpoint {
        host: host.trim_matches(['[', ']']).to_owned(),
        port: url.port().unwrap_or(port),
        tls: if tls == TlsMode::Require {
            Tls::Require
        } else {
            Tls::Disable
        },
        user: if url.username().is_empty() {
            user.to_owned()
        } else {
            decoded(url.username())?
        },
        password: Sensitive::new(decoded(url.password().unwrap_or_default())?),
    })
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(uri: &str) -> Result<Endpoint, String> {
        let entries = [("uri".to_owned(), Sensitive::new(uri))].into();
        endpoint(StoreKind::Postgres, "s", &entries, TlsMode::Disable)
    }

    #[test]
    fn reads_every_part() {
        let endpoint = read("postgresql://ad%40min:p%2Fw@db.example:6000/postgres").unwrap();
        assert_eq!(
            (endpoint.host.as_str(), endpoint.port, endpoint.user.as_str()),
            ("db.example", 6000, "ad@min")
        );
        assert_eq!(endpoint.password.reveal(), "p/w");
        assert_eq!(read("postgres://[::1]").unwrap().host, "::1");
        assert_eq!(read("postgres://h").unwrap().port, 5432);
    }

    #[test]
    fn messages_never_show_the_uri() {
        for bad in [
            "",
            "hunter2",
            "mysql://u:hunter2@h",
            "postgresql://u:%zzhunter2@h",
            "postgresql:///x",
        ] {
            let message = read(bad).unwrap_err();
            assert!(
                message.contains("Secret s") && !message.contains("hunter2"),
                "{message}"
            );
        }
        assert!(
            endpoint(StoreKind::Redis, "s", &Entries::new(), TlsMode::Disable)
                .unwrap_err()
                .contains("no key uri")
        );
    }
}
