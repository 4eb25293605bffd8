//! Parameters that the running server takes up: set where it shows others, all or none, and read back.

use std::collections::BTreeMap;

use crate::stores::{
    endpoint::StoreError,
    redis::{
        duty::RedisDuty,
        parameters::{Parameters, agree, is_read_at_start},
        session::{Connection, lane},
    },
};

/// What the server says of the parameters that it was asked to take up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParameterFacts {
    /// Of these parameters.
    pub asked: Parameters,
    /// Why it takes none of them up, if it does not: one sentence for each reason.
    pub refused: Vec<String>,
}

/// What was set: as it was asked for and as the server showed it afterwards. The server writes some values in its own way.
pub type Taken = BTreeMap<String, (String, String)>;

/// Brings the parameters in.
pub async fn hold(
    connection: &mut Connection,
    duty: &RedisDuty,
    taken: &mut Taken,
) -> Result<Option<ParameterFacts>, StoreError> {
    if duty.parameters.is_empty() {
        taken.clear();
        return Ok(None);
    }
    let mut facts = ParameterFacts {
        asked: duty.parameters.clone(),
        refused: Vec::new(),
    };
    let shown = read(connection, &duty.parameters).await?;
    let unknown = duty.parameters.keys().filter(|name| !shown.contains_key(*name));
    facts.refused = unknown
        .map(|name| format!("{name}: this server has no such parameter"))
        .collect();
    let is_in = |(name, wanted): &(&String, &String)| {
        let shown = &shown[*name];
        let set = taken
            .get(*name)
            .is_some_and(|(asked, after)| asked == *wanted && after == shown);
        set || agree(wanted, shown)
    };
    if !facts.refused.is_empty() {
        return Ok(Some(facts));
    }
    let live = duty.parameters.iter().filter(|(name, _)| !is_read_at_start(name));
    let wrong: Vec<(&String, &String)> = live.filter(|pair| !is_in(pair)).collect();
    if wrong.is_empty() {
        return Ok(Some(facts));
    }
    let names: Vec<&str> = wrong.iter().map(|(name, _)| name.as_str()).collect();
    tracing::info!(parameters = names.join(", "), "setting the server's parameters");
    let mut command = redis::cmd("CONFIG");
    command.arg("SET");
    for (name, value) in &wrong {
        command.arg(name.as_str()).arg(value.trim());
    }
    match command.query_async::<()>(connection).await.map_err(lane) {
        Ok(()) => {
            let after = read(connection, &duty.parameters).await?;
            let set = wrong.into_iter().filter_map(|(name, value)| {
                let shown = after.get(name)?.clone();
                Some((name.clone(), (value.clone(), shown)))
            });
            taken.extend(set);
        }
        Err(StoreError::Rejected(text)) => facts.refused.push(text),
        Err(other) => return Err(other),
    }
    Ok(Some(facts))
}

async fn read(connection: &mut Connection, parameters: &Parameters) -> Result<BTreeMap<String, String>, StoreError> {
    let mut command = redis::cmd("CONFIG");
    command.arg("GET");
    for name in parameters.keys() {
        command.arg(name.as_str());
    }
    command.query_async(connection).await.map_err(lane)
}
