//! What is decided for a store when it is made and cannot change: kept in the status, so that a block that was taken out of the
//! specification comes back as it was. The API server compares a specification only with the one before it. Pure.

use std::collections::BTreeMap;

use crate::{
    api::{amas_database::AmasDatabaseSpec, common::Storage},
    engine::child::ChildKind,
};

use super::observe::Observed;

/// By the store, then by the field below its block.
pub type Pins = BTreeMap<String, BTreeMap<String, String>>;

/// What a specification decides.
pub fn of(spec: &AmasDatabaseSpec) -> Pins {
    let mut all = Pins::new();
    let mut pin = |store: &str, fields: Vec<(&str, String)>| {
        let fields = fields.into_iter().map(|(field, value)| (field.to_owned(), value));
        all.insert(store.to_owned(), fields.collect());
    };
    if let Some(postgres) = &spec.postgres {
        let owner = postgres.owner_name().map(|owner| owner.to_string()).unwrap_or_default();
        let mut fields = vec![("database", postgres.database.to_string()), ("owner", owner)];
        fields.extend(server(
            postgres
                .managed
                .as_ref()
                .map(|managed| (&managed.version, &managed.storage)),
        ));
        pin("postgres", fields);
    }
    if let Some(redis) = &spec.redis {
        let managed = redis.managed.as_ref();
        let mut fields = server(managed.map(|managed| (&managed.version, &managed.storage)));
        fields.extend(managed.map(|managed| ("managed.persistence", format!("{:?}", managed.persistence))));
        pin("redis", fields);
    }
    if let Some(neo4j) = &spec.neo4j {
        let managed = neo4j.managed.as_ref();
        let mut fields = server(managed.map(|managed| (&managed.version, &managed.storage)));
        fields.extend(managed.map(|managed| ("managed.initialDatabase", managed.initial_database.clone())));
        pin("neo4j", fields);
    }
    all
}

fn server(managed: Option<(&String, &Storage)>) -> Vec<(&'static str, String)> {
    let Some((version, storage)) = managed else {
        return vec![("mode", "external".into())];
    };
    let class = storage.storage_class_name.clone().unwrap_or_default();
    vec![
        ("mode", "managed".into()),
        ("managed.version", version.clone()),
        ("managed.storage.storageClassName", class),
    ]
}

/// Refuses what was decided otherwise before.
pub fn check(spec: &AmasDatabaseSpec, observed: &Observed) -> Result<(), Vec<String>> {
    let wanted = of(spec);
    let mut problems = Vec::new();
    for (store, fields) in kept(observed) {
        let Some(now) = wanted.get(store) else { continue };
        for (field, was) in fields {
            let Some(is) = now.get(field).filter(|is| *is != was) else {
                continue;
            };
            let show = |value: &String| {
                if value.is_empty() {
                    "absent".to_owned()
                } else {
                    value.clone()
                }
            };
            problems.push(format!(
                "spec.{store}.{field}: it was {} when this store was made and cannot become {}; put it back, or make another AmasDatabase and move the data",
                show(was),
                show(is)
            ));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// What stands: of a managed store only while its volume does, for with that goes everything that was decided.
fn kept(observed: &Observed) -> impl Iterator<Item = (&String, &BTreeMap<String, String>)> {
    let volumes: Vec<&String> = observed
        .children
        .keys()
        .filter(|(kind, _)| *kind == ChildKind::PersistentVolumeClaim)
        .map(|(_, name)| name)
        .collect();
    observed.status.pinned.iter().filter(move |(store, fields)| {
        let managed = fields.get("mode").is_some_and(|mode| mode == "managed");
        !managed || volumes.iter().any(|volume| volume.ends_with(&format!("-{store}")))
    })
}

/// What the status keeps from now on.
pub fn next(spec: &AmasDatabaseSpec, observed: &Observed) -> Pins {
    let mut all: Pins = kept(observed)
        .map(|(store, fields)| (store.clone(), fields.clone()))
        .collect();
    all.extend(of(spec));
    all
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{Situation, platform};
    use super::*;

    #[test]
    fn a_block_that_comes_back_is_the_same() {
        let mut situation = Situation::converged(platform());
        let before = situation.settle().pinned;
        assert_eq!(before["postgres"]["database"], "amas");
        assert_eq!(check(&situation.object.spec, &situation.observed), Ok(()));

        let postgres = situation.object.spec.postgres.take();
        let migrations = situation.object.spec.migrations.take();
        assert_eq!(situation.settle().pinned, before, "kept while it is out");

        (situation.object.spec.postgres, situation.object.spec.migrations) = (postgres, migrations);
        assert_eq!(check(&situation.object.spec, &situation.observed), Ok(()));
        let spec = situation.object.spec.postgres.as_mut().unwrap();
        spec.database = crate::api::names::SqlName::parse("other").unwrap();
        spec.managed.as_mut().unwrap().version = "16".into();
        let problems = check(&situation.object.spec, &situation.observed).unwrap_err();
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(
            problems[0]
                .starts_with("spec.postgres.database: it was amas when this store was made and cannot become other"),
            "{problems:?}"
        );

        // With the volume goes what was decided for it.
        let volume = (ChildKind::PersistentVolumeClaim, "amas-postgres".to_owned());
        situation.observed.children.remove(&volume);
        assert_eq!(check(&situation.object.spec, &situation.observed), Ok(()));
    }
}
