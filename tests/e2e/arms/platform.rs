//! The AMAS platform in both arms.

use std::time::{Duration, Instant};

use amas_operator::api::{amas_database::AmasDatabase, cache_policy::CachePolicy, graph_schema::GraphSchema};
use kube::{Api, ResourceExt, api::DynamicObject};

use super::{
    by_hand::ByHand,
    contest::{Contest, Sample},
    end_state::{self, Facts},
    graph, sql,
};
use crate::{
    cluster::{
        clients::{self, Stores},
        conditions,
        objects::api,
        platform::{GATES, Platform},
        wait,
    },
    ensure,
    harness::{About, Result, context::Ctx},
};

/// How long an arm may take.
pub const PATIENCE: Duration = Duration::from_secs(300);

impl Contest for Platform {
    fn name(&self) -> &'static str {
        "AMAS platform"
    }

    async fn ours(&self, ctx: &Ctx, namespace: &str) -> Result<Sample> {
        let start = Instant::now();
        self.apply(ctx, namespace).await?;
        let graph_name = self.graph.name_any();
        let cache_name = self.cache.name_any();
        let waits = futures::try_join!(
            poll_true(
                api::<AmasDatabase>(&ctx.client, namespace),
                self.database.name_any(),
                &GATES
            ),
            poll_true(api::<CachePolicy>(&ctx.client, namespace), cache_name, &["Ready"]),
            poll_true(api::<GraphSchema>(&ctx.client, namespace), graph_name, &["Ready"]),
        );
        let (gates, _, _) = waits?;
        let took = start.elapsed();
        Ok(Sample {
            took,
            facts: our_facts(self, ctx, namespace).await?,
            parts: gates.parts(start),
        })
    }

    async fn floor(&self, ctx: &Ctx, namespace: &str) -> Result<Sample> {
        let hand = ByHand::new(ctx, namespace);
        let start = Instant::now();
        let parts = by_hand(self, &hand).await?;
        let took = start.elapsed();
        let mut stores = floor_stores(self, &hand).await?;
        Ok(Sample {
            took,
            facts: all_facts(&mut stores).await?,
            parts,
        })
    }
}

/// The whole platform by hand; says when each store was done.
pub async fn by_hand(platform: &Platform, hand: &ByHand<'_>) -> Result<String> {
    let spec = &platform.database.spec;
    let postgres = spec.postgres.as_ref().about("the platform has no PostgreSQL")?;
    let start = Instant::now();
    hand.neo4j(spec).await?;
    hand.postgres(postgres).await?;
    hand.redis(spec).await?;
    let since = || start.elapsed().as_secs_f64();
    let (sql_done, redis_done, graph_done) = futures::try_join!(
        async { sql::provision(hand, spec).await.map(|()| since()) },
        async { graph::redis(hand, &platform.cache.spec).await.map(|()| since()) },
        async { graph::neo4j(hand, &platform.graph.spec).await.map(|()| since()) },
    )?;
    Ok(format!(
        "PostgreSQL {sql_done:.2}, Redis {redis_done:.2}, Neo4j {graph_done:.2}"
    ))
}

async fn our_facts(platform: &Platform, ctx: &Ctx, namespace: &str) -> Result<Facts> {
    let postgres = platform
        .database
        .spec
        .postgres
        .as_ref()
        .about("the platform has no PostgreSQL")?;
    let owner = postgres.owner_name()?;
    let mut stores = Stores::open(&ctx.client, namespace, &platform.name(), owner.as_str()).await?;
    all_facts(&mut stores).await
}

/// Sessions on the stores of a floor, on PostgreSQL as the owner.
pub async fn floor_stores(platform: &Platform, hand: &ByHand<'_>) -> Result<Stores> {
    let postgres = platform
        .database
        .spec
        .postgres
        .as_ref()
        .about("the platform has no PostgreSQL")?;
    let url = hand.postgres_url(postgres.owner_name()?.as_str(), postgres.database.as_str());
    Ok(Stores {
        postgres: clients::postgres(&url).await?,
        redis: clients::redis(&hand.redis_url()).await?,
        neo4j: clients::neo4j(&hand.neo4j_uri(), "neo4j", &hand.password).await?,
    })
}

async fn all_facts(stores: &mut Stores) -> Result<Facts> {
    let mut facts = end_state::sql(&mut stores.postgres).await?;
    facts.extend(end_state::redis(&mut stores.redis).await?);
    facts.extend(end_state::neo4j(&stores.neo4j).await?);
    Ok(facts)
}

/// When each condition was first seen True.
pub struct Gates(Vec<(&'static str, Instant)>);

impl Gates {
    pub fn parts(&self, start: Instant) -> String {
        let one = |(kind, at): &(&str, Instant)| format!("{kind} {:.2}", at.duration_since(start).as_secs_f64());
        self.0.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

/// Asks as often as the floor's clients do until all conditions are True at once.
pub async fn poll_true(api: Api<DynamicObject>, name: String, kinds: &'static [&'static str]) -> Result<Gates> {
    let mut seen = Gates(Vec::new());
    wait::retry(PATIENCE, async || {
        let object = api.get(&name).await?;
        for kind in kinds {
            let new = !seen.0.iter().any(|(known, _)| known == kind);
            if new && conditions::status(&object, kind) == Some("True") {
                seen.0.push((kind, Instant::now()));
            }
        }
        ensure!(
            conditions::all_true(&object, kinds),
            "{}",
            conditions::describe(&object)
        );
        Ok(())
    })
    .await?;
    Ok(seen)
}
