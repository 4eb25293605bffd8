//! A server that answers: whether everything that is declared for it is in.

use crate::{
    api::{TAKE_OVER, conditions::Reason},
    stores::postgres::{self, ConfigurationFacts, MissingExtension},
};

use super::{
    super::{losses, plan::Plan, table::StoreKind},
    StoreState, Subject,
};

impl Subject<'_> {
    /// What the facts of a server that answers say.
    pub fn serving(&self) -> StoreState {
        let changing = || StoreState::Changing("being brought to the specification".into());
        let Some(heard) = self.observed.heard(self.store) else {
            return changing();
        };
        if let Some(conflict) = heard.conflict {
            return self.conflicted(conflict);
        }
        if let Some(state) = self.of_its_own() {
            return state;
        }
        match (heard.error, heard.duty_in, self.plan.duties.wanted(self.store)) {
            (Some(error), ..) if self.observed.barred_since(self.store).is_some() => {
                StoreState::Refusing(Reason::LoginRefused, error.clone())
            }
            (Some(error), ..) => StoreState::Refusing(Reason::Refused, error.clone()),
            (None, Some(duty_in), Some(wanted)) if duty_in == wanted => StoreState::Serving,
            // Never configured yet: roles and database may be missing, so nobody could use it.
            (None, None, _) if !self.store.was_seen(&self.observed.status) => StoreState::Away {
                human: false,
                reason: Reason::Provisioning,
                message: "the server is starting".into(),
            },
            _ => changing(),
        }
    }

    /// What only one of the stores can lack: its database, an extension, or a parameter that the server takes.
    fn of_its_own(&self) -> Option<StoreState> {
        match self.store {
            StoreKind::Postgres => {
                let facts = &self.observed.postgres.as_ref()?.facts;
                if let Some(duty) = self.plan.duties.postgres.as_ref().filter(|_| facts.database_missing) {
                    return Some(StoreState::Away {
                        human: true,
                        reason: Reason::DatabaseMissing,
                        message: losses::of_database(duty.database.as_str(), self.valid),
                    });
                }
                let extension = facts.missing_extensions.first().map(missing);
                extension.or_else(|| configuration_state(self.plan, facts.configuration.as_ref()))
            }
            StoreKind::Redis => {
                let facts = self.observed.redis.as_ref()?.facts.parameters.as_ref()?;
                let asked = &self.plan.duties.redis.as_ref()?.parameters;
                (*asked == facts.asked).then(|| invalid_parameters("redis", &facts.refused))?
            }
            StoreKind::Neo4j => None,
        }
    }

    /// A store that somebody else claims: of no use to this object unless it was its own before.
    fn conflicted(&self, holder: &str) -> StoreState {
        let name = &self.valid.family.database;
        let message = format!(
            "{holder}; release it there (delete that object), or take it over: kubectl annotate amasdb {name} {TAKE_OVER}=\"$(date +%s)\" --overwrite"
        );
        if self.store.was_seen(&self.observed.status) {
            return StoreState::Refusing(Reason::Conflicted, message);
        }
        StoreState::Away {
            human: true,
            reason: Reason::Conflicted,
            message,
        }
    }
}

fn invalid_parameters(store: &str, refused: &[String]) -> Option<StoreState> {
    let refused = Some(refused).filter(|refused| !refused.is_empty())?.join("; ");
    Some(StoreState::Refusing(
        Reason::InvalidParameter,
        format!("spec.{store}.managed.parameters: {refused}; the server goes on with the values it has"),
    ))
}

/// What is wrong with the server's configuration, or still on its way.
fn configuration_state(plan: &Plan, facts: Option<&ConfigurationFacts>) -> Option<StoreState> {
    if let Some(state) = invalid_parameters("postgres", &plan.refused) {
        return Some(state);
    }
    let (facts, wanted) = (facts?, plan.duties.postgres.as_ref()?.configuration.as_ref()?);
    if !facts.overridden.is_empty() {
        let names = facts.overridden.join(", ");
        let message = format!(
            "{names}: ALTER SYSTEM goes before the specification; run ALTER SYSTEM RESET as {}",
            postgres::workload::ADMIN
        );
        return Some(StoreState::Refusing(Reason::Refused, message));
    }
    if facts.loaded.as_ref() != Some(&wanted.written) {
        return Some(StoreState::Changing(
            "the changed configuration is on its way to the server".into(),
        ));
    }
    let restart = facts.restart.join(", ");
    (!restart.is_empty()).then(|| StoreState::Changing(format!("{restart}: the new value waits for a restart")))
}

fn missing(extension: &MissingExtension) -> StoreState {
    let message = match extension.installed {
        true => format!(
            "extension {} cannot be created with our rights; as an administrator run: {}",
            extension.name, extension.statement
        ),
        false => format!(
            "extension {} is not installed on the server; use an image or service that has it",
            extension.name
        ),
    };
    StoreState::Refusing(Reason::ExtensionMissing, message)
}
