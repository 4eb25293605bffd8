//! How long passwords that the operator makes are kept.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{common::utc, units::Span};

/// Credentials of an AmasDatabase.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// How passwords are replaced. Default: only when asked for by the annotation `amas.dev/rotate-credentials`.
    #[serde(default)]
    pub rotation: RotationSettings,
}

/// How passwords that the operator made are replaced. Those that a user brings are never replaced by the operator.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RotationSettings {
    /// The age at which a password is replaced, such as `90d`; longer than overlap. Counted from the last rotation, or from the creation of the
    /// AmasDatabase. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Span>,
    /// Times of the calendar at which passwords are replaced, as the five fields of cron (minute, hour, day of the month, month, day of the week),
    /// such as `30 2 1 * *`: at 02:30 on the first of each month. A time at which the operator does not run is made up for when it does. Times must be
    /// further apart than overlap. Beside `every`, whichever comes first. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9A-Za-z*,/#-]+( [0-9A-Za-z*,/#-]+){4}$"), length(max = 128))]
    pub schedule: Option<String>,
    /// Time zone of schedule, by its name in the IANA database, such as `Europe/Paris`. Default: UTC.
    #[serde(default = "utc")]
    #[schemars(regex(pattern = "^[A-Za-z0-9_/+-]+$"), length(max = 64))]
    pub time_zone: String,
    /// How long the old password stays valid beside the new one. Applications must take up the changed Secret within this time. A shorter value
    /// also ends an overlap that is under way. Default: 1h.
    #[serde(default = "default_overlap")]
    pub overlap: Span,
}

impl Default for RotationSettings {
    fn default() -> Self {
        Self {
            every: None,
            schedule: None,
            time_zone: utc(),
            overlap: default_overlap(),
        }
    }
}

const fn default_overlap() -> Span {
    Span::from_secs(3600)
}
