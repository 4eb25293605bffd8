//! Which configuration a server's pod has been tried with, noted on the pod: a pod that does not start with one is made anew when another
//! is asked for, since Kubernetes itself would try again only after minutes; and Redis, which cannot put a parameter back that is no
//! longer asked for, is made anew to forget it. Pure.

use crate::{
    api::amas_database::AmasDatabaseSpec,
    engine::child::{ChildKind, Facts},
    stores::{
        redis::parameters,
        revisions,
        workload::{Workload, digest},
    },
};

use super::{configuration, configuration::Writing, observe::Observed, plan::Step, validate::Valid};

/// How a pod's container is that ends again and again.
const CRASHES: &str = "CrashLoopBackOff";

/// Whether the pod's server does not stay up.
pub fn crashes(pod: &Facts) -> bool {
    pod.trouble.as_ref().is_some_and(|(word, _)| word == CRASHES)
}

/// What is to be done about the pod of a server whose configuration is written.
pub fn step(spec: &AmasDatabaseSpec, valid: &Valid, workload: &Workload, observed: &Observed) -> Option<Step> {
    let name = valid.family.child_name(workload.component);
    let pod = format!("{name}-0");
    let seen = observed.children.get(&(ChildKind::Pod, pod.clone()))?;
    let set = observed.children.get(&(ChildKind::StatefulSet, name))?;
    let current = set.facts.template.as_ref()?.wanted.as_ref();
    // One that is about to be replaced learns of everything then.
    if seen.deleting || (seen.facts.made_from.is_some() && seen.facts.made_from.as_ref() != current) {
        return None;
    }
    let tried = seen.facts.config.as_deref();
    match workload.component {
        "postgres" if crashes(&seen.facts) => again(pod, tried, revisions::config(workload)),
        "redis" => redis(spec, observed, (pod, &seen.facts)),
        _ => None,
    }
}

/// Of a pod that does not start: once for each configuration.
fn again(pod: String, tried: Option<&str>, config: String) -> Option<Step> {
    match tried {
        Some(tried) if tried == config => None,
        Some(_) => Some(Step::Restart {
            pod,
            why: "it did not start with the configuration that it had, and has another one now".into(),
        }),
        None => Some(Step::SendConfig { pod, config }),
    }
}

fn redis(spec: &AmasDatabaseSpec, observed: &Observed, (pod, facts): (String, &Facts)) -> Option<Step> {
    let redis = spec.redis.as_ref()?;
    let asked = &redis.managed.as_ref()?.parameters;
    let tried = facts.config.as_deref();
    if tried.is_none() && asked.is_empty() {
        return None;
    }
    let names: Vec<&str> = asked.keys().map(String::as_str).collect();
    let config = format!("{} {}", digest(&parameters::lines(asked)), names.join(","));
    if crashes(facts) {
        return again(pod, tried, config);
    }
    if tried == Some(config.as_str()) || configuration::judge_redis(redis, observed) != Writing::Allowed {
        return None;
    }
    let before = tried
        .and_then(|tried| tried.split_once(' '))
        .map(|(_, names)| names)
        .unwrap_or_default();
    let gone: Vec<&str> = before
        .split(',')
        .filter(|name| !name.is_empty() && !asked.contains_key(*name))
        .collect();
    if gone.is_empty() {
        return Some(Step::SendConfig { pod, config });
    }
    let why = format!(
        "{} is no longer asked for, and only a start puts the server's own value back",
        gone.join(", ")
    );
    Some(Step::Restart { pod, why })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::super::{
        fixtures::{Situation, platform},
        plan::Step,
        table::StoreKind,
    };
    use crate::{engine::child::ChildKind, stores::redis::ParameterFacts};

    /// A platform whose Redis has a parameter from the start.
    fn situation() -> Situation {
        let mut object = platform();
        let redis = object.spec.redis.as_mut().unwrap().managed.as_mut().unwrap();
        redis.parameters.insert("hz".into(), "20".into());
        let mut situation = Situation::converged(object);
        situation.settle();
        situation
    }

    fn ask(situation: &mut Situation, parameters: Value) {
        let redis = situation.object.spec.redis.as_mut().unwrap().managed.as_mut().unwrap();
        redis.parameters = serde_json::from_value(parameters).unwrap();
    }

    fn pod(situation: &mut Situation, store: &str, sent: Option<&str>, crashes: bool) {
        let waiting = match crashes {
            true => json!({"waiting": {"reason": "CrashLoopBackOff", "message": "m"}}),
            false => json!({"running": {}}),
        };
        let name = format!("amas-{store}-0");
        let body = json!({"metadata": {"name": name, "namespace": "amas", "uid": "p", "labels": {"amas.dev/database": "amas"},
            "annotations": {"amas.dev/config-sent": sent}},
            "status": {"containerStatuses": [{"state": waiting,
                "lastState": {"terminated": {"message": "*** FATAL CONFIG FILE ERROR ***\nBad directive"}}}]}});
        situation.see(ChildKind::Pod, &body);
    }

    fn answer(situation: &mut Situation, refused: &[&str]) {
        let duty = situation.plan().duties.redis.unwrap();
        let (fingerprint, asked) = (duty.fingerprint(), duty.parameters);
        let snapshot = Arc::make_mut(situation.observed.redis.as_mut().unwrap());
        snapshot.facts.duty_in = Some(fingerprint);
        snapshot.facts.parameters = (!asked.is_empty()).then(|| ParameterFacts {
            asked,
            refused: refused.iter().map(|text| (*text).to_owned()).collect(),
        });
    }

    /// What the API would show of the changed file.
    fn write(situation: &mut Situation) {
        for step in situation.plan().steps {
            if let Step::Update(kind, mut body) = step {
                body["metadata"]["uid"] = json!("child");
                situation.see(kind, &body);
            }
        }
    }

    fn sent(situation: &Situation) -> String {
        match &situation.plan().steps[..] {
            [Step::SendConfig { config, .. }] => config.clone(),
            steps => panic!("{steps:?}"),
        }
    }

    #[test]
    fn a_value_is_written_once_the_server_has_taken_it_up() {
        let mut situation = situation();
        ask(&mut situation, json!({"hz": "30"}));
        assert_eq!(situation.plan().steps, [], "not asked yet");
        answer(&mut situation, &["hz: argument must be between 1 and 500"]);
        assert_eq!(situation.plan().steps, [], "refused");
        let (reason, message) = situation.ready();
        assert_eq!(reason, "InvalidParameter");
        assert!(message.contains("between 1 and 500"), "{message}");
        answer(&mut situation, &[]);
        let steps = situation.plan().steps;
        assert!(
            matches!(&steps[..], [Step::Update(ChildKind::ConfigMap, _)]),
            "{steps:?}"
        );
    }

    #[test]
    fn what_the_server_reads_at_its_start_restarts_it_once() {
        let mut situation = situation();
        ask(&mut situation, json!({"hz": "20", "io-threads": "2"}));
        answer(&mut situation, &[]);
        let steps = situation.plan().steps;
        let [Step::Update(ChildKind::ConfigMap, _), Step::Replace(..)] = &steps[..] else {
            panic!("{steps:?}")
        };
    }

    #[test]
    fn a_parameter_that_is_no_longer_asked_for_restarts_the_server() {
        let mut situation = situation();
        pod(&mut situation, "redis", None, false);
        let note = sent(&situation);
        pod(&mut situation, "redis", Some(&note), false);
        assert_eq!(situation.plan().steps, []);
        ask(&mut situation, json!({}));
        answer(&mut situation, &[]);
        write(&mut situation);
        let steps = situation.plan().steps;
        let [Step::Restart { pod: name, why }] = &steps[..] else {
            panic!("{steps:?}")
        };
        assert_eq!(name, "amas-redis-0");
        assert!(why.starts_with("hz is no longer asked for"), "{why}");
        pod(&mut situation, "redis", None, false);
        assert_eq!(situation.plan().steps, [], "the new pod has never known it");
    }

    #[test]
    fn a_server_that_does_not_start_is_tried_again_with_what_is_asked_for_then() {
        let mut situation = situation();
        situation.lose(StoreKind::Redis);
        pod(&mut situation, "redis", None, true);
        let note = sent(&situation);
        pod(&mut situation, "redis", Some(&note), true);
        assert_eq!(situation.plan().steps, [], "once");
        let (reason, message) = situation.ready();
        assert_eq!(reason, "CrashLoop");
        assert!(message.contains("Bad directive"), "{message}");
        ask(&mut situation, json!({"hz": "10"}));
        write(&mut situation);
        let steps = situation.plan().steps;
        assert!(matches!(&steps[..], [Step::Restart { .. }]), "{steps:?}");
    }

    #[test]
    fn so_is_postgres() {
        let mut situation = Situation::converged(platform());
        situation.settle();
        situation.lose(StoreKind::Postgres);
        pod(&mut situation, "postgres", None, true);
        let note = sent(&situation);
        pod(&mut situation, "postgres", Some(&note), true);
        assert_eq!(situation.plan().steps, []);
        let parameters = &mut situation.managed_postgres().parameters;
        parameters.insert("shared_buffers".into(), "64MB".into());
        write(&mut situation);
        let steps = situation.plan().steps;
        assert!(matches!(&steps[..], [Step::Restart { .. }]), "{steps:?}");
    }
}
