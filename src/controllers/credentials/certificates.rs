//! The certificates of one AmasDatabase's managed servers, and the authorities they are verified against: kept as long as they are good, made
//! anew in good time, or taken from an issuer. All of them are in one Secret, of which each pod sees its own part.

pub mod authority;
mod making;

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use rcgen::{Error, Issuer, KeyPair};

use self::authority::{Authorities, Authority, split};
use super::Entries;
use crate::{
    api::sensitive::Sensitive,
    stores::{
        tls,
        workload::{CA_CERTIFICATE, Family, certificate_key, digest, private_key, renewed_key},
    },
};

/// Ninety days; the last thirty are spare.
const DAYS: i64 = 90;
const SPARE_DAYS: i64 = 30;

const CHANGED: &str = "ca.changed";
/// What a person has asked for and got.
const ASKED: &str = "renew";

/// The Community edition of Neo4j takes up another certificate at its start only.
fn starts_with_it(component: &str) -> bool {
    component == "neo4j"
}

/// Who signs.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// An authority of ours.
    Own,
    /// Somebody else, as far as that is known.
    Issuer(Issuance),
}

/// What an issuer has given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Issuance {
    /// Kind and name of the issuer.
    pub issuer: String,
    pub issued: BTreeMap<&'static str, Issued>,
    pub trouble: Option<Trouble>,
}

/// A server's certificate with its key and the authorities to verify it against, as PEM.
#[derive(Clone, Debug, PartialEq)]
pub struct Issued {
    pub certificate: Sensitive,
    pub key: Sensitive,
    pub authority: String,
}

/// Why there is no certificate.
#[derive(Clone, Debug, PartialEq)]
pub struct Trouble {
    /// A person has to act.
    pub human: bool,
    pub message: String,
}

/// What the certificates are for.
#[derive(Clone, Debug, PartialEq)]
pub struct Certificates {
    /// The name of our authority; a later one has a number too.
    pub authority: String,
    /// The managed servers, by their component, with the names that clients call them by.
    pub servers: Vec<(&'static str, Vec<String>)>,
    pub source: Source,
    /// A person asks for new ones, or for one by `COMPONENT/VALUE`.
    pub asked: Option<String>,
    pub now: Timestamp,
}

/// Where it says who signed it, for which names, and when it is made anew.
fn note(component: &str) -> String {
    format!("{component}.note")
}

/// The names that clients call a server by, the full one first.
pub fn names(family: &Family, component: &str) -> Vec<String> {
    let service = family.child_name(component);
    let host = family.host(component);
    vec![
        host.clone(),
        service.clone(),
        format!("{service}.{}", family.namespace),
        format!("{host}.cluster.local"),
    ]
}

impl Certificates {
    pub fn of(
        family: &Family,
        components: impl Iterator<Item = &'static str>,
        (source, asked, now): (Source, Option<String>, Timestamp),
    ) -> Self {
        let Family {
            namespace, database, ..
        } = family;
        Self {
            authority: format!("amas {database} {}", &digest(&format!("{namespace}/{database}"))[..8]),
            servers: components
                .map(|component| (component, names(family, component)))
                .collect(),
            source,
            asked,
            now,
        }
    }

    /// Whether every server has a certificate, or can be given one.
    pub fn is_complete(&self, old: &Entries) -> bool {
        let Source::Issuer(issuance) = &self.source else {
            return true;
        };
        let has = |component: &str| {
            let keys = [certificate_key(component), private_key(component)];
            issuance.issued.contains_key(component) || keys.iter().all(|key| old.contains_key(key))
        };
        self.servers.iter().all(|(component, _)| has(component))
    }

    /// All entries: what `old` has that is good, the rest made anew. Nothing at all where the means to make it fail, which is tried again.
    pub fn entries(&self, old: &Entries) -> Entries {
        let made = match &self.source {
            Source::Own => self.made(old),
            Source::Issuer(issuance) if issuance.issued.is_empty() => Ok(old.clone()),
            Source::Issuer(issuance) => Ok(self.taken(old, issuance)),
        };
        let made = made.unwrap_or_else(|error| {
            tracing::warn!(%error, "no certificates could be made");
            old.clone()
        });
        dated(made, old, self.now)
    }

    /// As the issuer gave them. What it has not given yet stays.
    fn taken(&self, old: &Entries, issuance: &Issuance) -> Entries {
        let trusted = self
            .servers
            .iter()
            .filter_map(|(component, _)| issuance.issued.get(component));
        let trusted = trusted.flat_map(|issued| split(&issued.authority)).collect();
        let authorities = Authorities::read(old, self.now, is_usable).given(trusted, &issuance.issuer, self.now);
        let mut all = authorities.entries();
        for (component, _) in &self.servers {
            let keys = [certificate_key(component), private_key(component)];
            let found = keys.clone().map(|key| old.get(&key).cloned());
            let given = issuance.issued.get(component);
            let values = match (given, found) {
                (Some(issued), _) => [issued.certificate.clone(), issued.key.clone()],
                (None, [Some(certificate), Some(key)]) => [certificate, key],
                (None, _) => continue,
            };
            all.extend(renewed(component, old, &values[0]));
            all.extend(keys.into_iter().zip(values));
        }
        all
    }

    fn made(&self, old: &Entries) -> Result<Entries, Error> {
        let authorities = Authorities::read(old, self.now, is_usable);
        let authorities = authorities.succeed((&self.authority, self.now), |name| self.make_authority(name))?;
        let mut all = authorities.entries();
        // There is one: it was made where there was none.
        let Some((signing, key)) = authorities.signing().and_then(|one| Some((one, one.key.as_ref()?))) else {
            return Ok(old.clone());
        };
        let issuer = Issuer::new(self.authority_params(&signing.name)?, KeyPair::from_pem(key.reveal())?);
        for (component, names) in &self.servers {
            let keys = [certificate_key(component), private_key(component), note(component)];
            let found: Option<Vec<&Sensitive>> = keys.iter().map(|key| old.get(key)).collect();
            let about = about(names, signing);
            let values = match found {
                Some(found) if self.is_good(found[2].reveal(), &about) && !self.is_asked(component, old) => {
                    found.into_iter().cloned().collect()
                }
                _ => self.issue(names, (self.good_for(component, signing), &about), &issuer)?,
            };
            all.extend(renewed(component, old, &values[0]));
            all.extend(keys.into_iter().zip(values));
        }
        let handled = self
            .asked
            .clone()
            .map(Sensitive::new)
            .or_else(|| old.get(ASKED).cloned());
        all.extend(handled.map(|value| (ASKED.to_owned(), value)));
        Ok(all)
    }

    /// When the clock alone changes something.
    pub fn renews_at(&self, entries: &Entries) -> Option<Timestamp> {
        let authorities = Authorities::read(entries, self.now, is_usable);
        let own = self.source == Source::Own;
        let due = |(component, _): &(&str, _)| note_time(entries.get(&note(component))?.reveal());
        let servers = self.servers.iter().filter(|_| own).filter_map(due);
        servers.chain(authorities.changes_at()).min()
    }

    /// Whether a person asks for this one, and was not heard yet.
    fn is_asked(&self, component: &str, old: &Entries) -> bool {
        let Some(asked) = &self.asked else { return false };
        let is_for = asked.split_once('/').is_none_or(|(named, _)| named == component);
        is_for && old.get(ASKED).is_none_or(|handled| handled.reveal() != asked)
    }

    fn is_good(&self, note: &str, about: &str) -> bool {
        let same = note.split_once(' ').is_some_and(|(_, noted)| noted == about);
        same && note_time(note).is_some_and(|due| self.now < due)
    }
}

/// Whether an authority's certificate can be read, and its key, where it has one.
fn is_usable(certificate: &str, key: Option<&Sensitive>) -> bool {
    let has_key = key.is_none_or(|key| KeyPair::from_pem(key.reveal()).is_ok());
    has_key && tls::certificates(certificate).is_ok()
}

/// What a certificate is for and by whom.
fn about(names: &[String], signing: &Authority) -> String {
    format!("{} {}", names.join(","), digest(&signing.certificate))
}

/// The mark of a certificate that has replaced another, for a server that only a restart brings it to.
fn renewed(component: &str, old: &Entries, certificate: &Sensitive) -> Option<(String, Sensitive)> {
    let key = renewed_key(component);
    let replaced = old
        .get(&certificate_key(component))
        .is_some_and(|old| old != certificate);
    let mark = match replaced {
        true => Some(Sensitive::new(digest(certificate.reveal()))),
        false => old.get(&key).cloned(),
    };
    mark.filter(|_| starts_with_it(component)).map(|mark| (key, mark))
}

/// Notes when the authorities changed that had been published before.
fn dated(mut made: Entries, old: &Entries, now: Timestamp) -> Entries {
    let known = old.get(CA_CERTIFICATE);
    let at = match known.is_some() && made.get(CA_CERTIFICATE) != known {
        true => Some(Sensitive::new(format!("{now:.0}"))),
        false => old.get(CHANGED).cloned(),
    };
    made.extend(at.map(|at| (CHANGED.to_owned(), at)));
    made
}

/// When the authorities last changed.
pub fn changed_at(entries: &Entries) -> Option<Timestamp> {
    entries.get(CHANGED)?.reveal().parse().ok()
}

fn note_time(note: &str) -> Option<Timestamp> {
    note.split_once(' ')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::{
        endpoint::{ClientCertificate, Trust},
        tls,
    };
    use k8s_openapi::jiff::SignedDuration;

    fn at(days: i64) -> Certificates {
        let family = Family {
            namespace: "ns".into(),
            database: "db".into(),
            uid: "u".into(),
            data_goes: false,
        };
        let now = Timestamp::from_second(1_800_000_000).unwrap() + SignedDuration::from_hours(24 * days);
        let source = Source::Own;
        Certificates::of(&family, ["postgres", "redis", "neo4j"].into_iter(), (source, None, now))
    }

    #[test]
    fn what_is_good_is_kept_and_what_is_due_made_anew_by_the_same_authority() {
        let first = at(0).entries(&Entries::new());
        assert_eq!(at(59).entries(&first), first);
        assert_eq!(at(0).renews_at(&first), Some(at(60).now));
        let later = at(61).entries(&first);
        assert_eq!(
            (&later["ca.crt"], &later["ca.key"]),
            (&first["ca.crt"], &first["ca.key"])
        );
        assert_eq!(later["neo4j.crt"], first["neo4j.crt"], "which it could not take up");
        for key in ["postgres.crt", "postgres.key", "redis.crt"] {
            assert_ne!(later[key], first[key], "{key}");
        }
        // They belong together, as far as can be told without a handshake.
        for entries in [&first, &later] {
            let trust = Trust {
                verify: true,
                ca: Some(entries["ca.crt"].reveal().into()),
                client: Some(ClientCertificate {
                    certificate: entries["redis.crt"].reveal().into(),
                    key: entries["redis.key"].clone(),
                }),
            };
            tls::check(&trust).unwrap();
        }
    }

    #[test]
    fn junk_and_other_names_are_replaced() {
        let first = at(0).entries(&Entries::new());
        let mut junk = first.clone();
        junk.insert("ca.key".into(), Sensitive::new("\u{1}junk"));
        let mended = at(0).entries(&junk);
        assert_ne!(mended["ca.crt"], first["ca.crt"]);
        assert_ne!(
            mended["postgres.crt"], first["postgres.crt"],
            "signed by nobody any more"
        );
        let mut moved = at(0);
        moved.servers[0].1[0] = "elsewhere.ns.svc".into();
        let moved = moved.entries(&first);
        assert_ne!(moved["postgres.crt"], first["postgres.crt"]);
        assert_eq!(moved["redis.crt"], first["redis.crt"]);
    }

    #[test]
    fn what_a_person_asks_for_is_done_once() {
        let first = at(0).entries(&Entries::new());
        let ask = |value: &str| Certificates {
            asked: Some(value.into()),
            ..at(1)
        };
        let one = ask("redis/1").entries(&first);
        assert_ne!(one["redis.crt"], first["redis.crt"]);
        assert_eq!(one["postgres.crt"], first["postgres.crt"]);
        assert_eq!(ask("redis/1").entries(&one), one);
        assert_eq!(at(1).entries(&one), one, "the annotation may go");
        let all = ask("2").entries(&one);
        assert!(all["redis.crt"] != one["redis.crt"] && all["neo4j.crt"] != one["neo4j.crt"]);
        assert_eq!(all["ca.crt"], first["ca.crt"]);
    }

    /// Whether a client that trusts these authorities accepts this certificate.
    fn verify(authorities: &str, certificate: &str, (name, now): (&str, Timestamp)) -> Result<(), String> {
        use tokio_rustls::rustls::{
            RootCertStore,
            client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
            crypto::ring,
            pki_types::{ServerName, UnixTime},
        };
        let mut roots = RootCertStore::empty();
        for authority in tls::certificates(authorities)? {
            roots.add(authority).unwrap();
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), ring::default_provider().into())
            .build()
            .unwrap();
        let time = std::time::Duration::from_secs(now.as_second().unsigned_abs());
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let chain = tls::certificates(certificate)?;
        let checked = verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], UnixTime::since_unix_epoch(time));
        checked.map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn authorities_follow_one_another_and_nobody_is_ever_without_one_that_signs() {
        const STEP: i64 = 15;
        let mut entries = Entries::new();
        let (mut published, mut signed, mut restarts) = (Vec::new(), Vec::new(), Vec::new());
        for day in (0..9000).step_by(usize::try_from(STEP).unwrap()) {
            let moment = at(day);
            entries = moment.entries(&entries);
            assert_eq!(moment.entries(&entries), entries, "day {day}: once");
            assert!(moment.renews_at(&entries).unwrap() > moment.now, "day {day}");
            published.push(entries["ca.crt"].reveal().to_owned());
            // A client that has not looked for two weeks, and one that looks now.
            for known in published.iter().rev().take(2) {
                for (component, names) in &moment.servers {
                    let certificate = entries[&certificate_key(component)].reveal();
                    verify(known, certificate, (&names[0], moment.now))
                        .unwrap_or_else(|error| panic!("day {day}: {component}: {error}"));
                }
            }
            let now = split(published.last().unwrap());
            assert!(now.len() <= 2, "day {day}: {}", now.len());
            if !signed.contains(&now[0]) {
                signed.push(now[0].clone());
                restarts.push(entries.get("neo4j.renewed").cloned());
            }
        }
        assert_eq!(signed.len(), 3, "at most ten years each");
        assert!(restarts[0].is_none() && restarts[1].is_some() && restarts[1] != restarts[2]);
        assert!(
            entries["ca.note"].reveal().contains(" 3\n"),
            "{}",
            entries["ca.note"].reveal()
        );
    }

    #[test]
    fn an_operator_that_was_away_comes_back_to_what_can_be_trusted() {
        let first = at(0).entries(&Entries::new());
        // Twenty days before the end the next one is published at once, and signs ten days later.
        let late = at(3630).entries(&first);
        assert_eq!(split(late["ca.crt"].reveal()).len(), 2);
        assert_eq!(split(late["ca.crt"].reveal())[0], split(first["ca.crt"].reveal())[0]);
        assert!(at(3630).renews_at(&late).unwrap() > at(3630).now);
        let after = at(3641).entries(&late);
        assert_eq!(split(after["ca.crt"].reveal())[0], split(late["ca.crt"].reveal())[1]);
        assert!(!after.contains_key("next.key"));
        // All of it has ended.
        let gone = at(4000).entries(&first);
        assert_eq!(split(gone["ca.crt"].reveal()).len(), 1);
        let names = at(4000).servers[0].1.clone();
        verify(
            gone["ca.crt"].reveal(),
            gone["postgres.crt"].reveal(),
            (&names[0], at(4000).now),
        )
        .unwrap();
    }

    /// As an issuer would give them, each time anew.
    fn issuance(days: i64) -> Source {
        let other = at(days);
        let entries = other.entries(&Entries::new());
        let issued = other.servers.iter().map(|(component, _)| {
            let entry = |key: String| entries[&key].clone();
            let issued = Issued {
                certificate: entry(certificate_key(component)),
                key: entry(private_key(component)),
                authority: entries["ca.crt"].reveal().to_owned(),
            };
            (*component, issued)
        });
        Source::Issuer(Issuance {
            issuer: "Issuer ours".into(),
            issued: issued.collect(),
            trouble: None,
        })
    }

    #[test]
    fn what_an_issuer_gives_is_taken_and_what_was_before_is_trusted_for_a_while() {
        let own = at(0).entries(&Entries::new());
        let from = |days: i64, source: &Source| Certificates {
            source: source.clone(),
            ..at(days)
        };
        let none = Source::Issuer(Issuance::default());
        assert!(from(0, &none).is_complete(&own) && !from(0, &none).is_complete(&Entries::new()));
        assert_eq!(from(0, &none).entries(&own), own, "nothing is given yet");

        let issuer = issuance(1);
        let taken = from(1, &issuer).entries(&own);
        let Source::Issuer(given) = &issuer else { panic!() };
        assert_eq!(taken["redis.crt"], given.issued["redis"].certificate);
        assert!(!taken.contains_key("ca.key") && taken.contains_key("neo4j.renewed"));
        assert_eq!(changed_at(&taken), Some(at(1).now));
        assert_eq!(from(2, &issuer).entries(&taken), taken);
        let both = split(taken["ca.crt"].reveal());
        assert_eq!(
            both,
            [split(&given.issued["redis"].authority), split(own["ca.crt"].reveal())].concat()
        );
        assert_eq!(from(1, &issuer).renews_at(&taken), Some(at(31).now));
        assert_eq!(split(from(32, &issuer).entries(&taken)["ca.crt"].reveal()).len(), 1);

        // And back.
        let back = from(40, &Source::Own).entries(&taken);
        assert!(back.contains_key("ca.key") && back["redis.crt"] != taken["redis.crt"]);
        assert_eq!(split(back["ca.crt"].reveal()).len(), 2);
    }
}
