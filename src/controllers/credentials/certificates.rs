//! The certificate authority of one AmasDatabase and the certificates of its managed servers: kept as long as they are good, made anew in
//! good time. All of them are in one Secret, of which each pod sees its own part.

use k8s_openapi::jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, Error, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};

use super::Entries;
use crate::{
    api::sensitive::Sensitive,
    stores::workload::{CA_CERTIFICATE, Family, certificate_key, digest, private_key},
};

const CA_KEY: &str = "ca.key";
/// Ten years, and ninety days; the last thirty are spare.
const AUTHORITY_DAYS: i64 = 3650;
const DAYS: i64 = 90;
const SPARE_DAYS: i64 = 30;

/// How long a server's certificate is good for. The Community edition of Neo4j takes up another one at its start only, so its own lasts as
/// long as the authority.
fn days(component: &str) -> i64 {
    match component {
        "neo4j" => AUTHORITY_DAYS,
        _ => DAYS,
    }
}

/// What the certificates are for.
#[derive(Clone, Debug, PartialEq)]
pub struct Certificates {
    /// The authority's name, the same for the whole life of the Secret.
    pub authority: String,
    /// The managed servers, by their component, with the names that clients call them by.
    pub servers: Vec<(&'static str, Vec<String>)>,
    pub now: Timestamp,
}

/// Where it says for which names a certificate is, and when it is made anew.
fn note(component: &str) -> String {
    format!("{component}.note")
}

impl Certificates {
    pub fn of(family: &Family, components: impl Iterator<Item = &'static str>, now: Timestamp) -> Self {
        let Family {
            namespace, database, ..
        } = family;
        let names = |component: &'static str| {
            let service = family.child_name(component);
            let host = family.host(component);
            (
                component,
                vec![
                    host.clone(),
                    service.clone(),
                    format!("{service}.{namespace}"),
                    format!("{host}.cluster.local"),
                ],
            )
        };
        Self {
            authority: format!("amas {database} {}", &digest(&format!("{namespace}/{database}"))[..8]),
            servers: components.map(names).collect(),
            now,
        }
    }

    /// All entries: what `old` has that is good, the rest made anew. Nothing at all where the means to make it fail, which is tried again.
    pub fn entries(&self, old: &Entries) -> Entries {
        self.made(old).unwrap_or_else(|error| {
            tracing::warn!(%error, "no certificates could be made");
            old.clone()
        })
    }

    fn made(&self, old: &Entries) -> Result<Entries, Error> {
        let text = |key: &str| old.get(key).map(Sensitive::reveal);
        let kept = text(CA_KEY).zip(text(CA_CERTIFICATE)).and_then(|(key, certificate)| {
            let usable = crate::stores::tls::certificates(certificate).is_ok();
            Some((KeyPair::from_pem(key).ok().filter(|_| usable)?, certificate.to_owned()))
        });
        let is_new = kept.is_none();
        let (key, certificate) = kept.map_or_else(|| self.authority(), Ok)?;
        let mut all = Entries::new();
        all.insert(CA_CERTIFICATE.into(), Sensitive::new(certificate));
        all.insert(CA_KEY.into(), Sensitive::new(key.serialize_pem()));
        let issuer = Issuer::new(self.authority_params()?, key);
        for (component, names) in &self.servers {
            let keys = [certificate_key(component), private_key(component), note(component)];
            let found: Option<Vec<&Sensitive>> = keys.iter().map(|key| old.get(key)).collect();
            let values = match found {
                Some(found) if !is_new && self.is_good(found[2].reveal(), names) => {
                    found.into_iter().cloned().collect()
                }
                _ => self.issue(names, days(component), &issuer)?,
            };
            all.extend(keys.into_iter().zip(values));
        }
        Ok(all)
    }

    /// When the next certificate is due.
    pub fn renews_at(&self, entries: &Entries) -> Option<Timestamp> {
        let due = |(component, _): &(&str, _)| note_time(entries.get(&note(component))?.reveal());
        self.servers.iter().filter_map(due).min()
    }

    fn is_good(&self, note: &str, names: &[String]) -> bool {
        let same = note.split_once(' ').is_some_and(|(_, noted)| noted == names.join(","));
        same && note_time(note).is_some_and(|due| self.now < due)
    }

    fn date(&self, days: i64) -> (Timestamp, Date) {
        let at = self.now + SignedDuration::from_hours(24 * days);
        (at, at.to_zoned(TimeZone::UTC).date())
    }

    fn params(&self, names: &[String], common_name: &str, days: i64) -> Result<CertificateParams, Error> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        // From yesterday on: clocks differ.
        let (from, until) = (self.date(-1).1, self.date(days).1);
        let day = |date: Date| {
            date_time_ymd(
                date.year().into(),
                date.month().unsigned_abs(),
                date.day().unsigned_abs(),
            )
        };
        (params.not_before, params.not_after) = (day(from), day(until));
        Ok(params)
    }

    fn authority_params(&self) -> Result<CertificateParams, Error> {
        let mut params = self.params(&[], &self.authority, AUTHORITY_DAYS)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(params)
    }

    fn authority(&self) -> Result<(KeyPair, String), Error> {
        let key = KeyPair::generate()?;
        let certificate = self.authority_params()?.self_signed(&key)?.pem();
        Ok((key, certificate))
    }

    /// Certificate, key and note.
    fn issue(&self, names: &[String], days: i64, issuer: &Issuer<'_, KeyPair>) -> Result<Vec<Sensitive>, Error> {
        // What is longer is cut off: clients look at the alternative names.
        let common_name: String = names
            .first()
            .into_iter()
            .flat_map(|name| name.chars())
            .take(64)
            .collect();
        let mut params = self.params(names, &common_name, days)?;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, issuer)?.pem();
        let (renew, _) = self.date(days - SPARE_DAYS);
        let note = format!("{renew:.0} {}", names.join(","));
        Ok([certificate, key.serialize_pem(), note].map(Sensitive::new).into())
    }
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

    fn at(days: i64) -> Certificates {
        let family = Family {
            namespace: "ns".into(),
            database: "db".into(),
            uid: "u".into(),
            data_goes: false,
        };
        let now = Timestamp::from_second(1_800_000_000).unwrap() + SignedDuration::from_hours(24 * days);
        Certificates::of(&family, ["postgres", "redis", "neo4j"].into_iter(), now)
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
}
