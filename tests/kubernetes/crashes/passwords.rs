//! What may become of passwords: none is made twice, and what is published opens the store.

use std::collections::BTreeMap;

use serde_json::Value;
use sqlx::{
    ConnectOptions, Connection,
    postgres::{PgConnectOptions, PgSslMode},
};

use super::life::{Life, Stage};

impl Life {
    /// The Secrets as they are now.
    pub async fn secrets(&self) -> BTreeMap<String, Value> {
        let all = self.ns.list("Secret").await;
        let named = |secret: &Value| {
            (
                secret["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
                secret["data"].clone(),
            )
        };
        all.iter().map(named).collect()
    }

    /// No password was made twice: what stood in a Secret when the blow came is still there, but for what the stage replaces; and that is replaced
    /// by what was already recorded.
    pub async fn check_secrets(&self, stage: Stage, before: &BTreeMap<String, Value>) -> Result<(), String> {
        let after = self.secrets().await;
        for (name, old) in before.iter().filter(|_| stage != Stage::Delete) {
            let new = &after.get(name).ok_or(format!("Secret {name} is gone"))?;
            if stage != Stage::Rotate || *name != self.rotated() {
                let kept = |(key, value): (&String, &Value)| new[key] == *value;
                if !old.as_object().into_iter().flatten().all(kept) {
                    return Err(format!("Secret {name} has changed"));
                }
                continue;
            }
            let published = !old["rotation.count"].is_null();
            let decided = if published {
                &old["PGPASSWORD"]
            } else {
                &old["rotation.next-password"]
            };
            if !decided.is_null() && new["PGPASSWORD"] != *decided {
                return Err(format!("Secret {name} has another password than was decided on"));
            }
        }
        Ok(())
    }

    /// What is published opens the store.
    pub async fn check_logins(&self) -> Result<(), String> {
        for (name, data) in self.secrets().await {
            let Some(url) = data["DATABASE_URL"].as_str() else {
                continue;
            };
            let options: PgConnectOptions = decoded(url).parse().unwrap();
            let login = options
                .ssl_mode(PgSslMode::Disable)
                .disable_statement_logging()
                .connect()
                .await;
            let connection = login.map_err(|error| format!("the login in Secret {name}: {error}"))?;
            connection.close().await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

fn decoded(text: &str) -> String {
    use base64::Engine;
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).unwrap()).unwrap()
}
