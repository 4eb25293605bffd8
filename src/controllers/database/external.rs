//! From a user's Secret to an external server: where the operator logs in, where clients do, and whom both trust. Pure; no text of
//! the Secret ever reaches a message.

use std::sync::Arc;

use url::Url;

use crate::{
    api::{
        common::{External, TlsMode},
        names::SqlName,
        postgres::PostgresSpec,
        sensitive::Sensitive,
    },
    controllers::credentials::{Encryption, Entries},
    stores::{
        endpoint::{ClientCertificate, Endpoint, Tls, Trust},
        tls,
    },
};

use super::table::StoreKind;

/// An external server as its Secret describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Where the operator and migrations log in.
    pub login: Endpoint,
    /// Host and port that clients use: the same, or a pooler in front of it.
    pub clients: (String, u16),
    /// The address of the clients with its login and database, where it is another than that of `login`.
    pub before: Option<(Endpoint, Option<String>)>,
    /// The key of the Secret that holds the address of `login`, and the database which that names.
    pub key: Option<&'static str>,
    pub database: Option<String>,
}

impl Server {
    /// What an encrypted connection trusts.
    pub fn trust(&self) -> Option<&Trust> {
        match &self.login.tls {
            Tls::Encrypt(trust) => Some(trust),
            Tls::Disable => None,
        }
    }

    /// How clients speak to it.
    pub fn encryption(&self) -> Encryption {
        match self.trust() {
            None => Encryption::None,
            Some(trust) if trust.verify => Encryption::Verified,
            Some(_) => Encryption::Unverified,
        }
    }

    /// PostgreSQL's word for the mode of encryption.
    pub fn sslmode(&self) -> Option<&'static str> {
        Some(if self.trust()?.verify { "verify-full" } else { "require" })
    }
}

/// What a store's address may look like.
struct Rules {
    schemes: &'static [&'static str],
    port: u16,
    user: &'static str,
}

fn rules(store: StoreKind) -> Rules {
    let (schemes, port, user): (&[&str], u16, &str) = match store {
        StoreKind::Postgres => (&["postgresql", "postgres"], 5432, "postgres"),
        StoreKind::Redis => (&["redis", "rediss"], 6379, "default"),
        StoreKind::Neo4j => (
            &["bolt", "neo4j", "bolt+s", "bolt+ssc", "neo4j+s", "neo4j+ssc"],
            7687,
            "neo4j",
        ),
    };
    Rules { schemes, port, user }
}

/// The entries of the Secrets that an external block names.
pub struct Given<'a> {
    /// Of `secretRef`.
    pub entries: &'a Entries,
    /// Of `tls.caSecretRef`.
    pub ca: Option<&'a Entries>,
}

/// Reads the server, or says what is wrong with the Secrets without telling what is in them.
pub fn server(store: StoreKind, external: &External, given: &Given<'_>) -> Result<Server, String> {
    let secret = &external.secret_ref.name;
    let mut address = match given.entries.get("uri") {
        Some(uri) => parse(store, secret, "uri", uri)?,
        None => parts(store, secret, given.entries)?,
    };
    let clients = (address.login.host.clone(), address.login.port);
    let mut before = None;
    let mut key = given.entries.get("uri").map(|_| "uri");
    if let Some(uri) = given.entries.get("directUri") {
        if store != StoreKind::Postgres {
            return Err(format!(
                "Secret {secret} has a key directUri, which is for PostgreSQL behind a pooler only; give the server itself as uri"
            ));
        }
        let direct = parse(store, secret, "directUri", uri)?;
        if address.database.is_some() && direct.database.is_some() && address.database != direct.database {
            return Err(format!(
                "uri and directUri in Secret {secret} name different databases; both must lead to the same server and database"
            ));
        }
        before = Some((address.login, address.database));
        address = direct;
        key = Some("directUri");
    }
    let tls = encryption(external, given)?;
    if let Some((login, _)) = &mut before {
        login.tls = tls.clone();
    }
    address.login.tls = tls;
    Ok(Server {
        login: address.login,
        clients,
        before,
        key,
        database: address.database,
    })
}

/// Why a database cannot be held with these privileges: as its owner only, or beside the administrator whose login was given.
pub fn owner_problems(postgres: &PostgresSpec, owner: Option<&SqlName>, server: &Server) -> Vec<String> {
    let mut problems = Vec::new();
    let login = server.login.user.as_str();
    if !postgres.is_owners() {
        let roles = postgres.roles.iter().map(|role| ("roles", role.name.as_str()));
        let owner = owner.map(|owner| ("owner", owner.as_str()));
        for (field, name) in owner.into_iter().chain(roles).filter(|(_, name)| *name == login) {
            problems.push(format!(
                "spec.postgres.{field}: {name} is the administrator's login in the Secret, whose password and rights the operator leaves alone; name another role, \
                 or let that login only own the database with external.privileges: Owner"
            ));
        }
        return problems;
    }
    for role in postgres.roles.iter().filter(|role| role.secret_ref.is_none()) {
        problems.push(format!(
            "spec.postgres.roles: with external.privileges: Owner the operator may not create role {0} nor give it a password; have an administrator make it \
             and name a Secret with its password as secretRef, or leave {0} out, or give an administrator's login and privileges: Admin",
            role.name
        ));
    }
    if owner.is_some_and(|owner| owner.as_str() != login) {
        problems.push(
            "spec.postgres.owner: with external.privileges: Owner it must name the login in the Secret, which owns the database".to_owned(),
        );
    }
    if server.key.is_none() || server.database.as_deref() != Some(postgres.database.as_str()) {
        problems.push(format!(
            "spec.postgres.external.secretRef: with privileges: Owner the Secret's uri (or directUri) must lead to the database itself: ...@host:port/{}",
            postgres.database
        ));
    }
    problems
}

fn encryption(external: &External, given: &Given<'_>) -> Result<Tls, String> {
    let secret = &external.secret_ref.name;
    if external.tls.mode == TlsMode::Disable {
        return Ok(Tls::Disable);
    }
    let text = |entries: &Entries, key: &str| entries.get(key).map(|value| value.reveal().to_owned());
    let ca = match (&external.tls.ca_secret_ref, given.ca) {
        (Some(other), Some(entries)) => Some(
            text(entries, "ca.crt").ok_or_else(|| format!("Secret {} has no key ca.crt that is text", other.name))?,
        ),
        (Some(other), None) => {
            return Err(format!(
                "Secret {} does not exist; create it with a key ca.crt",
                other.name
            ));
        }
        (None, _) => text(given.entries, "ca.crt"),
    };
    let client = match (text(given.entries, "tls.crt"), given.entries.get("tls.key")) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some(ClientCertificate {
            certificate,
            key: key.clone(),
        }),
        (Some(_), None) => {
            return Err(format!(
                "Secret {secret} has tls.crt but no tls.key; a client certificate needs both"
            ));
        }
        (None, Some(_)) => {
            return Err(format!(
                "Secret {secret} has tls.key but no tls.crt; a client certificate needs both"
            ));
        }
    };
    let trust = Trust {
        verify: external.tls.mode == TlsMode::VerifyFull,
        ca,
        client,
    };
    tls::check(&trust).map_err(|problem| {
        let ca = external
            .tls
            .ca_secret_ref
            .as_ref()
            .filter(|_| problem.starts_with("ca.crt"));
        format!("Secret {}: {problem}", ca.map_or(secret, |other| &other.name))
    })?;
    Ok(Tls::Encrypt(Arc::new(trust)))
}

/// One address.
struct Address {
    login: Endpoint,
    database: Option<String>,
}

fn parse(store: StoreKind, secret: &str, key: &str, uri: &Sensitive) -> Result<Address, String> {
    let rules = rules(store);
    let url = Url::parse(uri.reveal().trim())
        .map_err(|error| format!("the {key} in Secret {secret} cannot be read: {error}"))?;
    if !rules.schemes.contains(&url.scheme()) {
        return Err(format!(
            "the {key} in Secret {secret} begins with {}:// but must begin with {}://",
            url.scheme(),
            rules.schemes[0]
        ));
    }
    let host = url
        .host_str()
        .filter(|host| !host.is_empty())
        .ok_or_else(|| format!("the {key} in Secret {secret} names no host"))?;
    let decoded = |text: &str| {
        percent_decode(text).ok_or_else(|| format!("the {key} in Secret {secret} has a bad percent escape"))
    };
    let user = match url.username() {
        "" => rules.user.to_owned(),
        user => decoded(user)?,
    };
    let database = url.path().trim_start_matches('/');
    Ok(Address {
        login: Endpoint {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port().unwrap_or(rules.port),
            tls: Tls::Disable,
            user,
            password: Sensitive::new(decoded(url.password().unwrap_or_default())?),
        },
        database: (!database.is_empty()).then(|| decoded(database)).transpose()?,
    })
}

/// An address in single keys, as other operators write them.
fn parts(store: StoreKind, secret: &str, entries: &Entries) -> Result<Address, String> {
    let rules = rules(store);
    let text = |keys: &[&str]| {
        let mut found = keys.iter().filter_map(|key| entries.get(*key));
        found.next().map(|value| value.reveal().trim().to_owned())
    };
    let host = text(&["host"])
        .filter(|host| !host.is_empty())
        .ok_or_else(|| format!("Secret {secret} has neither a key uri nor a key host that is text"))?;
    let port = match text(&["port"]) {
        Some(port) => port
            .parse()
            .map_err(|_| format!("the port in Secret {secret} is no number from 1 to 65535"))?,
        None => rules.port,
    };
    let password = entries.get("password").cloned();
    Ok(Address {
        login: Endpoint {
            host,
            port,
            tls: Tls::Disable,
            user: text(&["username", "user"]).unwrap_or_else(|| rules.user.to_owned()),
            password: password.unwrap_or_else(|| Sensitive::new("")),
        },
        database: text(&["dbname", "database"]),
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
    use serde_json::{Value, json};

    fn entries(pairs: &[(&str, &str)]) -> Entries {
        let one = |(key, value): &(&str, &str)| ((*key).to_owned(), Sensitive::new(*value));
        pairs.iter().map(one).collect()
    }

    fn read(store: StoreKind, tls: Value, pairs: &[(&str, &str)]) -> Result<Server, String> {
        let external = serde_json::from_value(json!({"secretRef": {"name": "s"}, "tls": tls})).unwrap();
        let entries = entries(pairs);
        server(
            store,
            &external,
            &Given {
                entries: &entries,
                ca: None,
            },
        )
    }

    #[test]
    fn an_administrators_own_login_is_no_role_of_the_database() {
        let server = clear(&[("uri", "postgresql://boss:x@h/postgres")]).unwrap();
        let problems = |owner: &str, role: &str| {
            let spec = json!({"database": "d", "owner": owner, "roles": [{"name": role, "access": "ReadWrite"}], "external": {"secretRef": {"name": "s"}}});
            let postgres: PostgresSpec = serde_json::from_value(spec).unwrap();
            owner_problems(&postgres, postgres.owner.as_ref(), &server)
        };
        assert_eq!(problems("d_owner", "d_app"), [] as [String; 0]);
        for (owner, role, field) in [("boss", "d_app", "owner"), ("d_owner", "boss", "roles")] {
            let [problem] = &problems(owner, role)[..] else {
                panic!("{owner} {role}")
            };
            let begin = format!("spec.postgres.{field}: boss is the administrator's login in the Secret");
            assert!(problem.starts_with(&begin), "{problem}");
        }
    }

    fn clear(pairs: &[(&str, &str)]) -> Result<Server, String> {
        read(StoreKind::Postgres, json!({"mode": "Disable"}), pairs)
    }

    #[test]
    fn reads_every_part() {
        let server = clear(&[("uri", "postgresql://ad%40min:p%2Fw@db.example:6000/postgres")]).unwrap();
        let login = server.login;
        assert_eq!(
            (
                login.host.as_str(),
                login.port,
                login.user.as_str(),
                login.password.reveal()
            ),
            ("db.example", 6000, "ad@min", "p/w")
        );
        assert_eq!(clear(&[("uri", "postgres://[::1]")]).unwrap().login.host, "::1");
        assert_eq!(clear(&[("uri", "postgres://h")]).unwrap().login.port, 5432);
        let parts = [("host", "h"), ("username", "u"), ("password", "p"), ("port", "99")];
        assert_eq!(
            clear(&parts).unwrap().login,
            clear(&[("uri", "postgres://u:p@h:99")]).unwrap().login
        );
    }

    #[test]
    fn verified_in_full_unless_said_otherwise() {
        let external: External = serde_json::from_value(json!({"secretRef": {"name": "s"}})).unwrap();
        assert_eq!(external.tls.mode, TlsMode::VerifyFull);
        let uri = ("uri", "rediss://h");
        let server = read(StoreKind::Redis, json!({}), &[uri]).unwrap();
        assert_eq!(
            (server.sslmode(), server.trust().unwrap().ca.as_ref()),
            (Some("verify-full"), None)
        );
        let server = read(StoreKind::Redis, json!({"mode": "Require"}), &[uri]).unwrap();
        assert_eq!(server.sslmode(), Some("require"));
    }

    #[test]
    fn clients_go_through_the_pooler_and_we_do_not() {
        let pooled = ("uri", "postgresql://u:p@pooler:6432/amas");
        let server = clear(&[pooled, ("directUri", "postgresql://u:p@db/amas")]).unwrap();
        assert_eq!((server.login.host.as_str(), server.login.port), ("db", 5432));
        assert_eq!(server.clients, ("pooler".to_owned(), 6432));
        let problem = clear(&[pooled, ("directUri", "postgresql://u:p@db/other")]).unwrap_err();
        assert!(problem.contains("different databases"), "{problem}");
        let problem = read(
            StoreKind::Redis,
            json!({}),
            &[("uri", "redis://h"), ("directUri", "redis://h")],
        )
        .unwrap_err();
        assert!(problem.contains("PostgreSQL"), "{problem}");
    }

    #[test]
    fn messages_say_what_is_wrong_and_never_show_a_value() {
        let good = ("uri", "postgresql://h");
        let cases: [(&[(&str, &str)], &str); 13] = [
            (&[("uri", "")], "cannot be read"),
            (&[("uri", "hunter2")], "cannot be read"),
            (&[("uri", "mysql://u:hunter2@h")], "must begin with postgresql://"),
            (&[("uri", "postgresql://u:%zzhunter2@h")], "percent escape"),
            (&[("uri", "postgresql:///x")], "names no host"),
            (&[], "neither a key uri nor a key host"),
            (&[("host", "h"), ("port", "hunter2")], "the port"),
            (&[good, ("directUri", "redis://hunter2")], "the directUri"),
            (&[good, ("ca.crt", "hunter2")], "ca.crt holds no certificate"),
            // What is read of one that is no text.
            (&[good, ("ca.crt", "")], "ca.crt holds no certificate in PEM form"),
            (&[good, ("tls.crt", "hunter2")], "no tls.key"),
            (&[good, ("tls.key", "hunter2")], "no tls.crt"),
            (
                &[good, ("tls.crt", "hunter2"), ("tls.key", "hunter2")],
                "tls.crt holds no certificate",
            ),
        ];
        for (pairs, expected) in cases {
            let problem = read(StoreKind::Postgres, json!({}), pairs).unwrap_err();
            assert!(problem.contains("Secret s") && problem.contains(expected), "{problem}");
            assert!(!problem.contains("hunter2"), "{problem}");
        }
    }

    #[test]
    fn authorities_may_come_from_a_secret_of_their_own() {
        let external =
            serde_json::from_value(json!({"secretRef": {"name": "s"}, "tls": {"caSecretRef": {"name": "roots"}}}));
        let (external, entries, empty) = (external.unwrap(), entries(&[("uri", "bolt://h")]), Entries::new());
        let read = |ca| server(StoreKind::Neo4j, &external, &Given { entries: &entries, ca }).unwrap_err();
        assert!(read(None).contains("Secret roots does not exist"));
        assert!(read(Some(&empty)).contains("Secret roots has no key ca.crt"));
    }
}
