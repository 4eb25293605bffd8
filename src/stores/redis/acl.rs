//! The passwords of the one user of a managed server: the file it reads at its start, so that no password is in a Pod, ConfigMap or argument,
//! and the same held on the running server. Only hashes are sent.

use std::collections::{BTreeSet, HashMap};

use sha2::{Digest, Sha256};

use super::{
    duty::RedisDuty,
    session::{Connection, connect, lane},
};
use crate::{
    api::sensitive::Sensitive,
    stores::endpoint::{Endpoint, StoreError},
};

/// The content of `aclfile`: user `default` with every right and these passwords, kept as their SHA-256.
pub fn acl_file<'a>(passwords: impl IntoIterator<Item = &'a Sensitive>) -> String {
    let hashes: Vec<String> = passwords
        .into_iter()
        .map(|password| format!("#{}", hash(password)))
        .collect();
    format!("user default on {} ~* &* +@all\n", hashes.join(" "))
}

fn hash(password: &Sensitive) -> String {
    hex::encode(Sha256::digest(password.reveal().as_bytes()))
}

/// Logs in with the password of the Secret, or, while one takes the place of another, with the second: a server that was started from an older
/// file knows only that.
pub async fn log_in<T, F>(duty: &RedisDuty, open: impl Fn(Endpoint) -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    match (open(duty.endpoint.clone()).await, &duty.second) {
        (Err(StoreError::LoginRefused(_)), Some(second)) => {
            open(Endpoint {
                password: second.clone(),
                ..duty.endpoint.clone()
            })
            .await
        }
        (outcome, _) => outcome,
    }
}

pub async fn connection(duty: &RedisDuty) -> Result<Connection, StoreError> {
    log_in(duty, async |endpoint| connect(&endpoint, |config| config).await).await
}

/// Gives the running server exactly the passwords of the duty. Open connections stay.
pub async fn hold(connection: &mut Connection, duty: &RedisDuty) -> Result<(), StoreError> {
    let user = &duty.endpoint.user;
    let found: HashMap<String, redis::Value> = redis::cmd("ACL")
        .arg("GETUSER")
        .arg(user)
        .query_async(connection)
        .await
        .map_err(lane)?;
    let have: BTreeSet<String> = found
        .get("passwords")
        .map(redis::from_redis_value_ref)
        .transpose()
        .map_err(|error| StoreError::Rejected(error.to_string()))?
        .unwrap_or_default();
    let changes = changes(&have, [Some(&duty.endpoint.password), duty.second.as_ref()]);
    if changes.is_empty() {
        return Ok(());
    }
    tracing::info!(user, changes = changes.len(), "passwords of the Redis user changed");
    redis::cmd("ACL")
        .arg("SETUSER")
        .arg(user)
        .arg(changes)
        .query_async::<()>(connection)
        .await
        .map_err(lane)
}

/// The rules of ACL SETUSER that lead from the hashes a user has to those it should have. New ones come first.
fn changes(have: &BTreeSet<String>, want: [Option<&Sensitive>; 2]) -> Vec<String> {
    let want: BTreeSet<String> = want.into_iter().flatten().map(hash).collect();
    let added = want.difference(have).map(|hash| format!("#{hash}"));
    let removed = have.difference(&want).map(|hash| format!("!{hash}"));
    added.chain(removed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    #[test]
    fn holds_the_digests_and_not_the_passwords() {
        let secret = Sensitive::new("secret");
        assert_eq!(acl_file([&secret]), format!("user default on #{HASH} ~* &* +@all\n"));
        let two = acl_file([&secret, &Sensitive::new("next")]);
        assert!(
            two.starts_with(&format!("user default on #{HASH} #")) && !two.contains("next"),
            "{two}"
        );
    }

    #[test]
    fn only_differences_are_sent() {
        let (secret, next) = (Sensitive::new("secret"), Sensitive::new("next"));
        let have: BTreeSet<String> = [HASH.to_owned()].into();
        assert_eq!(changes(&have, [Some(&secret), None]), [""; 0]);
        assert_eq!(changes(&have, [Some(&secret), Some(&next)]).len(), 1);
        let replaced = changes(&have, [Some(&next), None]);
        assert!(
            replaced[0].starts_with('#') && replaced[1] == format!("!{HASH}"),
            "{replaced:?}"
        );
    }
}
