//! The part of the status that is about credentials: where each rotation stands, and when the clock has something to do. Pure.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    api::status::CredentialStatus,
    controllers::credentials::{Known, Purpose, rotation},
};

use super::{
    super::{secrets, validate::Valid},
    Draft,
};

impl Draft<'_> {
    /// Those about which there is anything to say.
    pub(super) fn credentials(&mut self, valid: &Valid) -> Vec<CredentialStatus> {
        let mut all = Vec::new();
        for secret in &valid.secrets {
            if let (Purpose::Certificates(certificates), Some(Known::Present(entries))) =
                (&secret.purpose, self.observed.secrets.get(&secret.name))
                && let Some(at) = certificates.renews_at(entries)
            {
                let left = Duration::try_from(at.duration_since(self.observed.now)).unwrap_or_default();
                self.look_within(left.max(Duration::from_secs(1)));
            }
            let (Some(Known::Present(entries)), Some(name)) =
                (self.observed.secrets.get(&secret.name), secret.credential())
            else {
                continue;
            };
            let Some(state) = secret.state(entries) else { continue };
            let moment = secrets::moment(&self.object.spec, (secret, Some(&state)), self.observed, self.plan);
            if let Some(at) = secrets::wakes_at(secret, &state, &moment) {
                let left = Duration::try_from(at.duration_since(self.observed.now)).unwrap_or_default();
                self.look_within(left.max(Duration::from_millis(10)));
            }
            let rotation = &state.rotation;
            let status = CredentialStatus {
                name: name.to_owned(),
                secret: secret.name.clone(),
                rotations: i64::try_from(rotation.count).unwrap_or(i64::MAX),
                rotated_at: rotation.at.map(Time),
                preparing: rotation.next.is_some(),
                previous_valid_until: rotation::ends_at(&state, moment.overlap).map(Time),
                next_rotation_at: rotation::due_at(secret, &state, &moment).map(Time),
            };
            if rotation.count > 0 || status.preparing || status.next_rotation_at.is_some() {
                all.push(status);
            }
        }
        all
    }
}
