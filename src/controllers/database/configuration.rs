//! Whether a changed configuration of a PostgreSQL or Redis server may be written for it. Pure.

use crate::{
    api::{postgres::PostgresSpec, redis::RedisSpec},
    engine::child::ChildKind,
    stores::{health::Verdict, postgres::Configuration, revisions::config, workload::Workload},
};

use super::{observe::Observed, table::StoreKind, validate::Valid};

/// What holds for the configuration that the specification gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Writing {
    /// It is written, or may be.
    Allowed,
    /// Until the running server has judged it.
    Waits,
    /// The server would not take these; it goes on with what it has.
    Refused(Vec<String>),
}

/// The PostgreSQL server's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    pub writing: Writing,
    /// What the keeper is told.
    pub duty: Configuration,
}

pub fn judge(spec: &PostgresSpec, valid: &Valid, observed: &Observed) -> Option<Judged> {
    let managed = spec.managed.as_ref()?;
    let workload = valid
        .workloads
        .iter()
        .find(|workload| workload.component == "postgres")?;
    let limits = &managed.resources.limits;
    let mut duty = Configuration {
        parameters: managed.parameters.clone(),
        memory: limits.get("memory").map(|limit| limit.value()),
        huge_pages: limits.keys().any(|name| name.starts_with("hugepages-")),
        written: config(workload),
    };
    let live = live(valid, workload, observed);
    let writing = writing(&duty, live, observed);
    if let (Writing::Waits | Writing::Refused(_), Some(live)) = (&writing, live) {
        duty.written = live.to_owned();
    }
    Some(Judged { writing, duty })
}

/// The name of the ConfigMap, without which there is none yet.
fn live<'a>(valid: &Valid, workload: &Workload, observed: &'a Observed) -> Option<&'a str> {
    let name = valid.family.child_name(&format!("{}-config", workload.component));
    let seen = observed.children.get(&(ChildKind::ConfigMap, name))?;
    seen.facts.config.as_deref()
}

fn writing(wanted: &Configuration, live: Option<&str>, observed: &Observed) -> Writing {
    if live.is_none_or(|live| live == wanted.written) {
        return Writing::Allowed;
    }
    let facts = observed
        .postgres
        .as_ref()
        .and_then(|snapshot| snapshot.facts.configuration.as_ref());
    match facts.filter(|facts| facts.judged == Some(wanted.case())) {
        Some(facts) if facts.refused.is_empty() => Writing::Allowed,
        Some(facts) => Writing::Refused(facts.refused.clone()),
        None => unasked(StoreKind::Postgres, "postgres", observed),
    }
}

/// A server that cannot be asked is not kept from the change that may bring it back; one that was not heard of yet may be running.
fn unasked(store: StoreKind, component: &str, observed: &Observed) -> Writing {
    let broken = observed.children.iter().any(|((kind, name), seen)| {
        *kind == ChildKind::Pod && name.ends_with(&format!("-{component}-0")) && seen.facts.trouble.is_some()
    });
    let down = observed
        .health(store)
        .is_some_and(|health| health.verdict == Verdict::Down);
    match broken || down {
        true => Writing::Allowed,
        false => Writing::Waits,
    }
}

/// The same for Redis: its running server judges by taking the values up, and what is asked for anew is written after that.
pub fn judge_redis(spec: &RedisSpec, observed: &Observed) -> Writing {
    let Some(managed) = spec.managed.as_ref().filter(|managed| !managed.parameters.is_empty()) else {
        return Writing::Allowed;
    };
    let facts = observed
        .redis
        .as_ref()
        .and_then(|snapshot| snapshot.facts.parameters.as_ref());
    match facts.filter(|facts| facts.asked == managed.parameters) {
        Some(facts) if facts.refused.is_empty() => Writing::Allowed,
        Some(facts) => Writing::Refused(facts.refused.clone()),
        None => unasked(StoreKind::Redis, "redis", observed),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{
        fixtures::{Situation, loaded, platform},
        plan::Step,
    };
    use crate::{
        engine::child::ChildKind,
        stores::postgres::{Configuration, ConfigurationFacts},
    };

    const MAP: &str = "amas-postgres-config";

    fn changed(value: &str) -> Situation {
        let mut situation = Situation::converged(platform());
        situation.settle();
        situation
            .managed_postgres()
            .parameters
            .insert("shared_buffers".into(), value.into());
        situation
    }

    fn wanted(situation: &Situation) -> Configuration {
        situation.plan().duties.postgres.unwrap().configuration.unwrap()
    }

    fn facts(situation: &mut Situation, change: impl Fn(&mut ConfigurationFacts)) {
        let snapshot = Arc::make_mut(situation.observed.postgres.as_mut().unwrap());
        change(snapshot.facts.configuration.as_mut().unwrap());
        snapshot.facts.duty_in = None;
    }

    /// What the API would show after the steps.
    fn carry_out(situation: &mut Situation) {
        for step in situation.plan().steps {
            let (kind, mut body) = match step {
                Step::Update(kind, body) => (kind, body),
                Step::Replace(body, _) => (ChildKind::StatefulSet, body),
                other => panic!("{other:?}"),
            };
            body["metadata"]["uid"] = serde_json::json!("child");
            situation.see(kind, &body);
        }
    }

    #[test]
    fn a_change_waits_for_its_judgement_and_is_then_written() {
        let mut situation = changed("512MB");
        assert_eq!(situation.plan().steps, [], "not judged");
        assert_eq!(situation.ready().0, "Configuring");
        let case = wanted(&situation).case();
        facts(&mut situation, |facts| facts.judged = Some(case.clone()));
        let steps = situation.plan().steps;
        assert!(
            matches!(&steps[..], [Step::Update(ChildKind::ConfigMap, body)] if body["metadata"]["name"] == MAP),
            "{steps:?}"
        );
    }

    #[test]
    fn a_refused_value_is_not_written() {
        let mut situation = changed("1PB");
        let case = wanted(&situation).case();
        let (written, before) = (wanted(&situation).written, "shared_buffers: too much");
        facts(&mut situation, |facts| {
            (facts.judged, facts.refused) = (Some(case.clone()), vec![before.into()])
        });
        let plan = situation.plan();
        assert_eq!(plan.steps, []);
        assert_eq!(
            wanted(&situation).written,
            written,
            "the server goes on with what it has"
        );
        let (reason, message) = situation.ready();
        assert_eq!(reason, "InvalidParameter");
        assert!(message.contains(before), "{message}");
    }

    #[test]
    fn what_waits_for_a_restart_restarts_once() {
        let mut situation = changed("512MB");
        let case = wanted(&situation).case();
        facts(&mut situation, |facts| facts.judged = Some(case.clone()));
        carry_out(&mut situation);
        let pod = serde_json::json!({"metadata": {"name": "amas-postgres-0", "namespace": "amas", "uid": "p",
            "labels": {"amas.dev/database": "amas"}}});
        situation.see(ChildKind::Pod, &pod);
        let steps = situation.plan().steps;
        assert!(matches!(&steps[..], [Step::SendConfig { .. }]), "{steps:?}");

        let now = wanted(&situation);
        facts(&mut situation, |facts| {
            *facts = loaded(&now).unwrap();
            facts.restart = vec!["shared_buffers".into()];
        });
        let steps = situation.plan().steps;
        let [Step::Replace(_, why)] = &steps[..] else {
            panic!("{steps:?}")
        };
        assert_eq!(why, "shared_buffers can only be changed by a restart");
        carry_out(&mut situation);
        assert_eq!(situation.plan().steps, [], "once");
        assert_eq!(situation.ready().0, "Configuring");
    }

    #[test]
    fn a_server_that_is_down_gets_the_change_unjudged() {
        let mut situation = changed("512MB");
        situation.lose(super::StoreKind::Postgres);
        let steps = situation.plan().steps;
        assert!(
            matches!(&steps[..], [Step::Update(ChildKind::ConfigMap, _)]),
            "{steps:?}"
        );
    }
}
