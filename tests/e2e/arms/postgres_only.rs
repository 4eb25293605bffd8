//! The smallest database, one managed PostgreSQL with one role, in both arms.

use std::time::Instant;

use amas_operator::api::amas_database::AmasDatabase;
use kube::api::DynamicObject;

use super::{
    by_hand::ByHand,
    contest::{Contest, Sample},
    end_state,
    platform::poll_true,
    sql,
};
use crate::{
    cluster::{
        clients::{self, Values, role_secret},
        objects::{self, api},
        platform::postgres_only,
    },
    harness::{About, Result, context::Ctx},
};

const NAME: &str = "small";

pub struct PostgresOnly {
    objects: Vec<DynamicObject>,
    typed: AmasDatabase,
}

impl PostgresOnly {
    pub fn new() -> Result<Self> {
        let objects = postgres_only(NAME)?;
        let first = objects.first().about("no object")?;
        let typed = serde_json::from_value(serde_json::to_value(first)?)?;
        Ok(Self { objects, typed })
    }
}

impl Contest for PostgresOnly {
    fn name(&self) -> &'static str {
        "PostgreSQL-only AmasDatabase"
    }

    async fn ours(&self, ctx: &Ctx, namespace: &str) -> Result<Sample> {
        let start = Instant::now();
        objects::apply(&ctx.client, namespace, &self.objects).await?;
        let databases = api::<AmasDatabase>(&ctx.client, namespace);
        let gates = poll_true(databases, NAME.into(), &["Ready", "PostgresReady"]).await?;
        let took = start.elapsed();
        let postgres = self.typed.spec.postgres.as_ref().about("no PostgreSQL")?;
        let owner = role_secret(NAME, postgres.owner_name()?.as_str());
        let secret = Values::read(&ctx.client, namespace, &owner).await?;
        let mut session = clients::postgres(secret.get("DATABASE_URL")?).await?;
        Ok(Sample {
            took,
            facts: end_state::sql(&mut session).await?,
            parts: gates.parts(start),
        })
    }

    async fn floor(&self, ctx: &Ctx, namespace: &str) -> Result<Sample> {
        let hand = ByHand::new(ctx, namespace);
        let postgres = self.typed.spec.postgres.as_ref().about("no PostgreSQL")?;
        let start = Instant::now();
        hand.postgres(postgres).await?;
        let applied = start.elapsed().as_secs_f64();
        sql::provision(&hand, &self.typed.spec).await?;
        let took = start.elapsed();
        let url = hand.postgres_url(postgres.owner_name()?.as_str(), postgres.database.as_str());
        let mut session = clients::postgres(&url).await?;
        Ok(Sample {
            took,
            facts: end_state::sql(&mut session).await?,
            parts: format!("applied {applied:.2}"),
        })
    }
}
