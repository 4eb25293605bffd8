//! PostgreSQL: one database, its roles and their rights, watched over one connection of the owner.
//!
//! `duty` says what is asked and what is known; `sentinel` watches (over `wire`); `work` makes it true:
//! `certificate` sees to a renewed certificate; `clients` sees that applications are sent to the same server; `mark` tells whose a role is, `part` takes leave of a server; `catalog` reads, `plan` (with `logins`) decides on `step`s, `rights` is the
//! same for the app roles' rights; `drift` tells whether the schema is as migrations left it; `configure` sees to the parameters of a managed server, by the rules in `parameters`.

mod catalog;
mod certificate;
mod clients;
mod configure;
mod connect;
mod drift;
mod duty;
mod logins;
mod mark;
mod parameters;
mod part;
mod plan;
mod provided;
mod rights;
mod scram;
mod sentinel;
mod sql;
mod step;
mod wire;
mod work;
pub mod workload;

pub use catalog::OTHER_CONNECTIONS;
pub use configure::{Configuration, ConfigurationFacts};
pub use drift::DriftDuty;
pub use duty::{
    Access, Claim, Clients, Deposit, ExtensionDuty, Figures, MigrationFacts, MissingExtension, PlanEstimates,
    PostgresDuty, PostgresFacts, RoleDuty, Session, Twin, WaitingPlan, twin_name,
};
pub use rights::SECRET_MARKER;
pub use sentinel::PostgresSentinel;
pub use work::PostgresWorker;

use super::{
    endpoint::{Endpoint, StoreError},
    health::Attention,
    keeper::{Duty, Parting, Progress, ServerIdentity, Store},
};

/// The engine PostgreSQL. It has no policies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Postgres;

impl Store for Postgres {
    type Base = PostgresDuty;
    type Policy = ();
    type Facts = PostgresFacts;
    type Sentinel = PostgresSentinel;
    type Worker = PostgresWorker;

    fn endpoint(base: &PostgresDuty) -> &Endpoint {
        &base.owner_login
    }

    async fn open(base: &PostgresDuty) -> Result<(PostgresSentinel, ServerIdentity), StoreError> {
        sentinel::open(base).await
    }

    fn attention(base: &PostgresDuty) -> Attention {
        base.attention
    }

    fn is_managed(base: &PostgresDuty) -> bool {
        base.exclusive
    }

    async fn work(
        worker: &mut PostgresWorker,
        duty: &Duty<Self>,
        facts: &mut PostgresFacts,
    ) -> Result<Progress, StoreError> {
        work::slice(worker, &duty.base, facts).await
    }

    async fn part(base: &PostgresDuty, how: Parting) -> Result<Vec<String>, StoreError> {
        part::part(base, how).await
    }

    fn differs_materially(before: &PostgresFacts, after: &PostgresFacts) -> bool {
        after.differs_materially(before)
    }
}
