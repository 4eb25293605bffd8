//! The users of a managed server. Neo4j keeps one password a user, so while an old and a new one are both valid there are two users; on the
//! Community edition each of them is an administrator. Passwords travel as bound parameters, which the server keeps out of its logs.

use super::{
    bolt::Bolt,
    duty::{Neo4jDuty, User},
    packstream::Value,
};
use crate::stores::endpoint::{Endpoint, StoreError};

const SYSTEM: &str = "system";
const SHOW: &str = "SHOW USERS YIELD user RETURN user";
const CREATE: &str = "CREATE USER $user SET PASSWORD $password CHANGE NOT REQUIRED";
const ALTER: &str = "ALTER USER $user SET PASSWORD $password CHANGE NOT REQUIRED";
/// It has the password already: after some refused logins the server lets a user in by no password for some seconds.
const UNCHANGED: &str = "cannot be the same";
const DROP: &str = "DROP USER $user IF EXISTS";

/// Logs in as the Secret says; while that is being replaced, or on a volume that is newer than it, as whoever else may be there.
pub async fn log_in(duty: &Neo4jDuty) -> Result<(Bolt, Endpoint), StoreError> {
    let refused = match Bolt::connect(&duty.endpoint).await {
        Err(error) if error.is_refused_login() => error,
        outcome => return Ok((outcome?, duty.endpoint.clone())),
    };
    let stand_ins = stand_ins(duty);
    for login in &stand_ins {
        match Bolt::connect(login).await {
            Err(error) if error.is_refused_login() => {}
            Err(error) => return Err(error),
            Ok(bolt) => return Ok((bolt, login.clone())),
        }
    }
    Err(match refused {
        StoreError::LoginRefused(why) if !stand_ins.is_empty() => {
            StoreError::LoginRefused(format!("{why} (nor any other user that may be there)"))
        }
        refused => refused,
    })
}

/// A login that works; without asking the server where there is only one.
pub async fn choose(duty: &Neo4jDuty) -> Result<Endpoint, StoreError> {
    if stand_ins(duty).is_empty() {
        return Ok(duty.endpoint.clone());
    }
    log_in(duty).await.map(|(_, login)| login)
}

fn stand_ins(duty: &Neo4jDuty) -> Vec<Endpoint> {
    let of = |user: &str, password: &crate::api::sensitive::Sensitive| Endpoint {
        user: user.to_owned(),
        password: password.clone(),
        ..duty.endpoint.clone()
    };
    let next = duty.next.iter().map(|next| of(&duty.endpoint.user, next));
    let valid = duty
        .others
        .iter()
        .filter_map(|user| Some(of(&user.name, user.password.as_ref()?)));
    // What a fresh volume starts with.
    let first = duty
        .others
        .iter()
        .filter(|user| user.first)
        .map(|user| of(&user.name, &duty.endpoint.password));
    next.chain(valid).chain(first).collect()
}

/// Makes the users what the duty says: first those that must be there, then those that must not.
pub async fn hold(duty: &Neo4jDuty) -> Result<(), StoreError> {
    let (mut bolt, login) = log_in(duty).await?;
    let rows = bolt.query(SHOW, SYSTEM).await?;
    let there: Vec<&str> = rows.iter().filter_map(|row| row.first()?.as_str()).collect();
    let own = User {
        name: duty.endpoint.user.clone(),
        password: Some(duty.next.clone().unwrap_or_else(|| duty.endpoint.password.clone())),
        first: false,
    };
    for user in duty.others.iter().chain([&own]) {
        let Some(password) = &user.password else { continue };
        let as_user = Endpoint {
            user: user.name.clone(),
            password: password.clone(),
            ..duty.endpoint.clone()
        };
        let exists = there.contains(&user.name.as_str());
        // A user has one password: who got in with another need not try, which the server would count.
        let tells = login.user == user.name;
        if exists && (as_user == login || !tells && may_log_in(&as_user).await?) {
            continue;
        }
        tracing::info!(user = user.name, exists, "password of a Neo4j user set");
        let parameters = [
            ("user", Value::text(&user.name)),
            ("password", Value::text(password.reveal())),
        ];
        let changed = bolt
            .change(if exists { ALTER } else { CREATE }, parameters, SYSTEM)
            .await;
        match changed {
            Err(StoreError::Rejected(text)) if text.contains(UNCHANGED) => {}
            outcome => outcome?,
        }
    }
    let gone = duty
        .others
        .iter()
        .filter(|user| user.password.is_none() && there.contains(&user.name.as_str()));
    for user in gone {
        if login.user == user.name {
            // Nobody can drop himself; the proper user was made above.
            bolt = Bolt::connect(&duty.endpoint).await?;
        }
        tracing::info!(user = user.name, "Neo4j user dropped");
        bolt.change(DROP, [("user", Value::text(&user.name))], SYSTEM).await?;
    }
    Ok(())
}

async fn may_log_in(login: &Endpoint) -> Result<bool, StoreError> {
    match Bolt::connect(login).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_refused_login() => Ok(false),
        Err(error) => Err(error),
    }
}
