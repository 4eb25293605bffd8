//! Does the matrix find what it looks for? Each of these operators has a mistake, played by the proxies or by hand, and has to be caught.

use std::time::Duration;

use amas_operator::api::amas_database::AmasDatabase;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{
    cases::{Blow, Case},
    ground,
    life::{Life, Place, Stage, Subject},
    settle::Course,
    spoil, undisturbed,
};
use crate::support::{fault::Fault, turns};

/// What is never written again is missed after this.
const SOON: Duration = Duration::from_secs(20);

/// What an operator does wrong after a blow.
#[derive(Clone, Copy, Debug)]
pub enum Mistake {
    /// What did not arrive is not written again.
    NotAgain,
    /// A password that is there is made anew.
    AnotherPassword,
    /// Ready is said while a write is still under way.
    SuccessTooEarly,
}

impl Mistake {
    /// Before the blow, since the next try may come at once.
    pub fn prepare(self, life: &Life, case: &Case) {
        if let Self::NotAgain = self {
            life.plan(case.place).never_again();
        }
    }

    /// After the blow.
    pub async fn make(self, life: &Life) {
        match self {
            Self::NotAgain => {}
            Self::AnotherPassword => {
                let other = json!({"stringData": {"REDIS_PASSWORD": "made by the operator that came after"}});
                let (api, params) = (life.ns.kind("Secret"), PatchParams::default());
                api.patch("a-redis-connection", &params, &Patch::Merge(other))
                    .await
                    .unwrap();
            }
            Self::SuccessTooEarly => {
                let object = life.ns.get("AmasDatabase", "a").await.unwrap();
                let meta = &object["metadata"];
                let ready = json!({"type": "Ready", "status": "True"});
                // The version is none of this object's, so nothing comes of it but that it was said.
                let said = json!({"metadata": {"uid": meta["uid"], "resourceVersion": "1"},
                    "status": {"observedGeneration": meta["generation"], "conditions": [ready]}});
                let api: kube::Api<AmasDatabase> = kube::Api::namespaced(as_operator(life).await, &life.ns.name);
                let answer = api
                    .patch_status("a", &PatchParams::default(), &Patch::Merge(said))
                    .await;
                assert!(answer.is_err(), "the version is an old one");
            }
        }
    }
}

/// A client whose requests pass for the operator's.
async fn as_operator(life: &Life) -> kube::Client {
    let config = kube::config::Kubeconfig::read_from(&life.to_api.kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(config, &Default::default())
        .await
        .unwrap();
    kube::Client::try_from(config).unwrap()
}

/// How the matrix judges a create in which the first write that begins so is spoilt, and then a mistake is made.
async fn judged(subject: Subject, place: Place, write: &str, blow: Blow, mistake: Mistake) -> String {
    let ground = ground(subject).await;
    let _turn = turns::turn().await;
    let mut life = Life::begin(&ground).await;
    let normal = undisturbed(&mut life).await;
    let mut writes = normal[0].sure[&place].iter();
    let write = writes.find(|other| other.starts_with(write)).unwrap();
    let case = Case::new((Stage::Create, place), write, 1, blow);
    // Without the mistake there is nothing to say.
    assert_eq!(spoil(&mut life, &case, &normal[0], None).await, Ok(None));
    for (stage, run) in subject.stages().iter().zip(&normal).skip(1) {
        life.enter(*stage).await;
        life.settle(*stage, Course::Like(run)).await.unwrap();
    }
    life.collect().await;

    // The others are looked for at an end that has to come.
    if let Mistake::NotAgain = mistake {
        life.patience = SOON;
    }
    let outcome = spoil(&mut life, &case, &normal[0], Some(mistake)).await;
    life.end().await;
    outcome.expect_err("the mistake is found")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_is_not_made_again_is_found() {
    let (services, refused) = ("POST /api/v1/namespaces/{ns}/services", Blow::Fault(Fault::Answer(500)));
    let said = judged(Subject::Managed, Place::Api, services, refused, Mistake::NotAgain).await;
    assert!(said.contains("missing") && said.contains("Service"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_is_made_twice_is_found() {
    let secrets = "POST /api/v1/namespaces/{ns}/secrets";
    let said = judged(
        Subject::Managed,
        Place::Api,
        secrets,
        Blow::Kill,
        Mistake::AnotherPassword,
    )
    .await;
    assert!(said.contains("a-redis-connection has changed"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_is_not_written_again_is_found() {
    let lost = Blow::Fault(Fault::Swallowed);
    let said = judged(Subject::External, Place::Redis, "SET ", lost, Mistake::NotAgain).await;
    assert!(said.contains("missing") && said.contains("redis claim"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_success_that_is_said_too_early_is_found() {
    let (secrets, lost) = ("POST /api/v1/namespaces/{ns}/secrets", Blow::Fault(Fault::Swallowed));
    let said = judged(Subject::External, Place::Api, secrets, lost, Mistake::SuccessTooEarly).await;
    assert!(said.contains("success was said"), "{said}");
}
