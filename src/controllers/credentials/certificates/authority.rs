//! The authorities that the managed servers of an AmasDatabase are verified against: the one that signs, the one that will, and those that
//! have signed. All of them are published together, so that clients know the next before anything is signed by it.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::{api::sensitive::Sensitive, controllers::credentials::Entries, stores::workload::CA_CERTIFICATE};

pub const CA_KEY: &str = "ca.key";
const NEXT_KEY: &str = "next.key";
/// A line for each certificate in `ca.crt`: its standing, its end, and its name.
const NOTE: &str = "ca.note";

/// Ten years.
pub const DAYS: i64 = 3650;
/// The next authority is published so long before the end of the one that signs, and signs itself after clients had time to take it up.
const AHEAD: SignedDuration = days(365);
const SETTLING: SignedDuration = days(30);
/// At the latest so long before the end.
const LATEST: SignedDuration = days(10);
/// An authority that no longer signs and whose end is not known is trusted so long.
const PARTING: SignedDuration = days(30);

const fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * days)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Signs,
    Next,
    Former,
}

impl Standing {
    const ALL: [(Self, &'static str); 3] = [(Self::Signs, "signs"), (Self::Next, "next"), (Self::Former, "former")];

    fn word(self) -> &'static str {
        let found = Self::ALL.iter().find(|(standing, _)| *standing == self);
        found.map_or("former", |(_, word)| word)
    }

    /// Where its key is, if it has one.
    fn key(self) -> Option<&'static str> {
        match self {
            Self::Signs => Some(CA_KEY),
            Self::Next => Some(NEXT_KEY),
            Self::Former => None,
        }
    }
}

/// One authority.
#[derive(Clone, Debug, PartialEq)]
pub struct Authority {
    pub standing: Standing,
    pub name: String,
    pub ends: Timestamp,
    /// As PEM.
    pub certificate: String,
    /// Absent where somebody else signs.
    pub key: Option<Sensitive>,
}

impl Authority {
    fn made(&self) -> Timestamp {
        self.ends - days(DAYS)
    }

    /// It signs no more. `until`: how long it is trusted at most.
    fn part(mut self, until: Timestamp) -> Self {
        self.standing = Standing::Former;
        self.ends = self.ends.min(until);
        self.key = None;
        self
    }
}

/// The certificates of a PEM text, one by one and always written alike.
pub fn split(pem: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let one = |part: &str| {
        let begin = part.find("-----BEGIN CERTIFICATE-----")?;
        Some(format!("{}{END}\n", &part[begin..]))
    };
    pem.split_inclusive(END)
        .filter_map(|part| part.strip_suffix(END))
        .filter_map(one)
        .collect()
}

/// All authorities, those that sign first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Authorities(pub Vec<Authority>);

impl Authorities {
    /// What a Secret holds, as far as it can be used; `usable` judges certificate and key.
    pub fn read(entries: &Entries, now: Timestamp, usable: impl Fn(&str, Option<&Sensitive>) -> bool) -> Self {
        let text = |key: &str| entries.get(key).map(Sensitive::reveal).unwrap_or_default();
        let mut notes = text(NOTE).lines();
        let mut all = Vec::new();
        for certificate in split(text(CA_CERTIFICATE)) {
            let (standing, ends, name) =
                notes
                    .next()
                    .and_then(read_note)
                    .unwrap_or((Standing::Former, now + PARTING, String::new()));
            let key = standing.key().and_then(|key| entries.get(key)).cloned();
            let authority = Authority {
                standing,
                name,
                ends,
                certificate,
                key,
            };
            if !usable(&authority.certificate, None) || authority.ends <= now {
                continue;
            }
            let works = usable(&authority.certificate, authority.key.as_ref());
            all.push(match standing {
                Standing::Former => authority,
                _ if works => authority,
                _ => authority.part(now + PARTING),
            });
        }
        Self(all)
    }

    /// The one that signs with a key of ours.
    pub fn signing(&self) -> Option<&Authority> {
        let mut all = self.0.iter();
        all.find(|one| one.standing == Standing::Signs && one.key.is_some())
    }

    fn next(&self) -> Option<&Authority> {
        let mut all = self.0.iter();
        all.find(|one| one.standing == Standing::Next && one.key.is_some())
    }

    /// Brings the authorities to where they should be at this time. `make` makes one, by its name.
    pub fn succeed<E>(
        self,
        (base, now): (&str, Timestamp),
        make: impl Fn(&str) -> Result<Authority, E>,
    ) -> Result<Self, E> {
        let parting = |one: Authority| match one.standing {
            // Somebody else has signed so far.
            Standing::Signs if one.key.is_none() => one.part(now + PARTING),
            _ => one,
        };
        let mut all = Self(self.0.into_iter().map(parting).collect());
        let due = match (all.signing(), all.next()) {
            (Some(signs), Some(next)) => now >= next.made() + SETTLING || now >= signs.ends - LATEST,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        if due {
            all.promote();
        }
        match all.signing().map(|signs| (signs.name.clone(), signs.ends)) {
            None => all.0.insert(0, make(base)?),
            Some((name, ends)) if now >= ends - AHEAD && all.next().is_none() => {
                let next = make(&successor(base, &name))?;
                all.0.insert(
                    1,
                    Authority {
                        standing: Standing::Next,
                        ..next
                    },
                );
            }
            Some(_) => {}
        }
        Ok(all)
    }

    fn promote(&mut self) {
        let signed: Vec<Authority> = self.0.extract_if(.., |one| one.standing == Standing::Signs).collect();
        for one in &mut self.0 {
            if one.standing == Standing::Next {
                one.standing = Standing::Signs;
            }
        }
        // It is trusted to its end: of what it has signed, some may still be in use.
        let former = signed.into_iter().map(|one| {
            let ends = one.ends;
            one.part(ends)
        });
        self.0.extend(former);
    }

    /// Somebody else signs, with these authorities.
    pub fn given(self, certificates: Vec<String>, name: &str, now: Timestamp) -> Self {
        let mut all = Vec::new();
        for certificate in certificates {
            let known = self
                .0
                .iter()
                .find(|one| one.certificate == certificate && one.standing == Standing::Signs);
            if all.iter().all(|one: &Authority| one.certificate != certificate) {
                all.push(Authority {
                    standing: Standing::Signs,
                    name: name.to_owned(),
                    ends: known.map_or(now + days(DAYS), |known| known.ends),
                    certificate,
                    key: None,
                });
            }
        }
        for one in self.0 {
            if all.iter().any(|given| given.certificate == one.certificate) {
                continue;
            }
            all.push(match one.standing {
                Standing::Former => one,
                _ => one.part(now + PARTING),
            });
        }
        Self(all)
    }

    pub fn entries(&self) -> Entries {
        let certificates: String = self.0.iter().map(|one| one.certificate.as_str()).collect();
        let notes: String = self
            .0
            .iter()
            .map(|one| format!("{} {:.0} {}\n", one.standing.word(), one.ends, one.name))
            .collect();
        let keys = self.0.iter().filter_map(|one| {
            let name = one.standing.key()?;
            Some((name.to_owned(), one.key.clone()?))
        });
        let mut entries: Entries = keys.collect();
        entries.insert(CA_CERTIFICATE.into(), Sensitive::new(certificates));
        entries.insert(NOTE.into(), Sensitive::new(notes));
        entries
    }

    /// When the clock alone changes something.
    pub fn changes_at(&self) -> Option<Timestamp> {
        let succession = match (self.signing(), self.next()) {
            (Some(signs), Some(next)) => Some((next.made() + SETTLING).min(signs.ends - LATEST)),
            (Some(signs), None) => Some(signs.ends - AHEAD),
            (None, _) => None,
        };
        let former = self.0.iter().filter(|one| one.standing == Standing::Former);
        former.map(|one| one.ends).chain(succession).min()
    }
}

fn read_note(line: &str) -> Option<(Standing, Timestamp, String)> {
    let mut words = line.splitn(3, ' ');
    let word = words.next()?;
    let (standing, _) = Standing::ALL.into_iter().find(|(_, known)| *known == word)?;
    let ends = words.next()?.parse().ok()?;
    Some((standing, ends, words.next().unwrap_or_default().to_owned()))
}

/// `amas db 2` after `amas db`.
fn successor(base: &str, name: &str) -> String {
    let number = name.strip_prefix(base).and_then(|rest| rest.trim().parse().ok());
    format!("{base} {}", number.unwrap_or(1_u32).saturating_add(1))
}
