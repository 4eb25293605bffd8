//! The volume for what migrations save before they take data away, and the image whose pg_dump does it. Pure.
//!
//! Neither is there before the first plan that needs it; from then on the volume stays, like all that holds data.

use serde_json::{Value, json};

use crate::{
    api::{amas_database::AmasDatabaseSpec, migrations::BackupSettings, postgres::ManagedPostgres, units::Quantity},
    controllers::Settings,
    engine::{
        child::ChildKind,
        children::{Seen, owner_of},
    },
    stores::workload::{Family, claim_spec},
};

use super::{
    observe::Observed,
    plan::{Plan, Step},
    validate::Valid,
    volumes,
};

const COMPONENT: &str = "backups";

/// The name of the volume's claim.
pub fn claim_name(family: &Family) -> String {
    family.child_name(COMPONENT)
}

/// The image that has pg_dump of the server's version or a later one: the server's own, or of the newest that we know.
pub fn image(spec: &AmasDatabaseSpec, valid: &Valid, settings: &Settings) -> String {
    let chosen = spec
        .migrations
        .as_ref()
        .and_then(|migrations| migrations.backup.image.clone());
    let of_server = || {
        let server = valid
            .workloads
            .iter()
            .find(|workload| workload.component == "postgres")?;
        Some(server.image.clone())
    };
    let newest = || settings.images.of("postgres", &ManagedPostgres::newest());
    // One without the program says so.
    let own = || settings.own_image.clone();
    chosen.or_else(of_server).or_else(newest).unwrap_or_else(own)
}

/// Makes the claim where a Job needs it, and larger where that is asked for. Whether the Job may be made.
pub fn steps(spec: &AmasDatabaseSpec, valid: &Valid, observed: &Observed, needed: bool, plan: &mut Plan) -> bool {
    let Some(migrations) = &spec.migrations else {
        return !needed;
    };
    let key = (ChildKind::PersistentVolumeClaim, claim_name(&valid.family));
    let mut body = claim(&valid.family, &migrations.backup);
    match observed.children.get(&key) {
        None if !needed => {}
        None if observed.taken.contains(&key) => {
            plan.taken.push(key);
            return false;
        }
        None => plan.steps.push(Step::Create(key.0, body)),
        Some(seen) if seen.deleting => return !needed,
        Some(seen) if grows(seen, &key.1, &migrations.backup.size, observed) => plan.steps.push(Step::Grow(body)),
        Some(seen) => {
            if let Some(volume) = &seen.facts.volume {
                body["spec"]["resources"]["requests"]["storage"] = json!(volume.requested);
            }
            if seen.hash != key.0.hash(&body) || seen.owner != owner_of(&body) {
                plan.steps.push(Step::Update(key.0, body));
            }
        }
    }
    true
}

/// Whether more is asked for than the volume has, and nobody has refused that yet.
fn grows(seen: &Seen, name: &str, asked: &Quantity, observed: &Observed) -> bool {
    let volume = seen.facts.volume.as_deref();
    volume.is_some_and(|volume| volumes::growth(name, volume, asked, observed) == Some(None))
}

fn claim(family: &Family, backup: &BackupSettings) -> Value {
    let spec = claim_spec(&backup.size, backup.storage_class_name.as_deref());
    json!({"metadata": family.metadata(&claim_name(family), "postgresql", COMPONENT, false), "spec": spec})
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{Situation, platform};
    use super::*;
    use crate::stores::images::Images;

    /// The steps for an object, and whether the Job may be made.
    fn planned(situation: &Situation, needed: bool) -> (Vec<Step>, bool) {
        let mut plan = situation.plan();
        plan.steps.clear();
        let may = steps(
            &situation.object.spec,
            &situation.valid(),
            &situation.observed,
            needed,
            &mut plan,
        );
        (plan.steps, may)
    }

    fn claimed(situation: &mut Situation, size: &str) {
        situation.see(
            ChildKind::PersistentVolumeClaim,
            &json!({"metadata": {"name": "amas-backups", "namespace": "amas", "uid": "v", "labels": {"amas.dev/database": "amas"}},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}}),
        );
    }

    #[test]
    fn the_volume_is_made_when_it_is_needed_grows_and_is_left_alone() {
        let mut situation = Situation::converged(platform());
        assert_eq!(planned(&situation, false), (vec![], true));
        let (made, may) = planned(&situation, true);
        let [Step::Create(ChildKind::PersistentVolumeClaim, body)] = made.as_slice() else {
            panic!("{made:?}")
        };
        assert!(may && body["metadata"]["ownerReferences"].is_null());
        assert_eq!(body["metadata"]["name"], "amas-backups");
        assert_eq!(body["spec"]["resources"]["requests"]["storage"], "10Gi");

        claimed(&mut situation, "10Gi");
        for needed in [true, false] {
            assert_eq!(planned(&situation, needed), (vec![], true));
        }
        let size = |situation: &mut Situation, size: &str| {
            let migrations = situation.object.spec.migrations.as_mut().unwrap();
            migrations.backup.size = Quantity::parse(size).unwrap();
        };
        size(&mut situation, "20Gi");
        assert!(matches!(&planned(&situation, false).0[..], [Step::Grow(_)]));
        let refused = ("amas-backups".to_owned(), "20Gi".to_owned());
        situation.observed.growth_refused.insert(refused, "no".into());
        assert_eq!(planned(&situation, true), (vec![], true));
        size(&mut situation, "5Gi");
        assert_eq!(planned(&situation, true), (vec![], true), "it cannot shrink");
    }

    #[test]
    fn no_job_is_made_while_the_name_is_somebody_else_s() {
        let mut situation = Situation::converged(platform());
        let key = (ChildKind::PersistentVolumeClaim, "amas-backups".to_owned());
        situation.observed.taken.push(key);
        assert_eq!(planned(&situation, true), (vec![], false));
    }

    #[test]
    fn the_image_is_the_server_s_unless_another_is_chosen() {
        let mut situation = Situation::new(platform());
        situation.settings.images = Images::new(None, "postgres:17=localhost/postgres").unwrap();
        let image = |situation: &Situation| image(&situation.object.spec, &situation.valid(), &situation.settings);
        assert_eq!(image(&situation), "localhost/postgres");
        situation.object.spec.migrations.as_mut().unwrap().backup.image = Some("mine".into());
        assert_eq!(image(&situation), "mine");
    }
}
