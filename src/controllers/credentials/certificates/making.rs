//! How a certificate is made, and an authority's.

use k8s_openapi::jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, Error, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};

use super::{Certificates, DAYS, SPARE_DAYS, authority, starts_with_it};
use crate::{
    api::sensitive::Sensitive,
    controllers::credentials::certificates::authority::{Authority, Standing, split},
};

impl Certificates {
    /// How many days a server's certificate is good for: never longer than its authority.
    pub(super) fn good_for(&self, component: &str, signing: &Authority) -> i64 {
        let left = signing.ends.duration_since(self.now).as_hours() / 24;
        match starts_with_it(component) {
            true => left,
            false => left.min(DAYS),
        }
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

    pub(super) fn authority_params(&self, name: &str) -> Result<CertificateParams, Error> {
        let mut params = self.params(&[], name, authority::DAYS)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(params)
    }

    pub(super) fn make_authority(&self, name: &str) -> Result<Authority, Error> {
        let key = KeyPair::generate()?;
        let certificate = self.authority_params(name)?.self_signed(&key)?.pem();
        Ok(Authority {
            standing: Standing::Signs,
            name: name.to_owned(),
            ends: self.date(authority::DAYS).0,
            certificate: split(&certificate).concat(),
            key: Some(Sensitive::new(key.serialize_pem())),
        })
    }

    /// Certificate, key and note.
    pub(super) fn issue(
        &self,
        names: &[String],
        (days, about): (i64, &str),
        issuer: &Issuer<'_, KeyPair>,
    ) -> Result<Vec<Sensitive>, Error> {
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
        let (renew, _) = self.date(days - SPARE_DAYS.min(days / 3));
        let note = format!("{renew:.0} {about}");
        Ok([certificate, key.serialize_pem(), note].map(Sensitive::new).into())
    }
}
