//! The volume of a managed server: what is in it, whether it is as large as asked for, and whether it can become so. Pure.

use crate::{
    api::{conditions::Reason, units::Quantity},
    engine::child::{ChildKind, Volume},
    stores::workload::Workload,
};

use super::{observe::Observed, validate::Valid};

/// How a volume is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Not there yet, or as asked for.
    Fits,
    /// To be made larger.
    Grows,
    /// Was asked to be larger and is not yet.
    Growing(String),
    /// Stays as it is, and why.
    Refused(Reason, String),
    /// Is gone, with its data: no other takes its place.
    Missing(String),
    /// Holds what this server cannot open: it must not be started on it.
    Foreign(String),
}

impl State {
    /// Whether an object must not be made on such a volume.
    pub fn keeps_out(&self, kind: ChildKind) -> bool {
        match self {
            Self::Foreign(_) => kind == ChildKind::StatefulSet,
            Self::Missing(_) => matches!(kind, ChildKind::StatefulSet | ChildKind::PersistentVolumeClaim),
            _ => false,
        }
    }
}

/// Judges the volume of a server.
pub fn judge(valid: &Valid, workload: &Workload, observed: &Observed) -> State {
    let name = valid.family.child_name(workload.component);
    let seen = observed.children.get(&(ChildKind::PersistentVolumeClaim, name.clone()));
    let Some(volume) = seen.and_then(|seen| seen.facts.volume.as_deref()) else {
        return State::Fits;
    };
    let (ours, field) = (workload.data(), format!("spec.{}.managed", workload.component));
    if let Some(theirs) = volume.data.as_ref().filter(|theirs| **theirs != ours) {
        return State::Foreign(format!(
            "volume {name} holds the data of {theirs}, and {field} asks for {ours}: ask for {theirs}, or take another name, or delete \
             PersistentVolumeClaim {name} and its data"
        ));
    }
    let asked = &workload.storage.size;
    let Ok(requested) = Quantity::parse(volume.requested.as_str()) else {
        return State::Fits;
    };
    if asked.value() < requested.value() {
        return State::Refused(
            Reason::InvalidSpec,
            format!(
                "{field}.storage.size: {asked} is less than the {requested} that volume {name} has, and a volume cannot shrink; write {requested}"
            ),
        );
    }
    match growth(&name, volume, asked, observed) {
        None => {}
        Some(None) => return State::Grows,
        Some(Some(why)) => {
            return State::Refused(
                Reason::VolumeCannotGrow,
                format!("volume {name} stays at {requested}, {asked} was refused: {why}"),
            );
        }
    }
    match volume.capacity.as_ref().map(|text| Quantity::parse(text.as_str())) {
        Some(Ok(capacity)) if capacity.value() < requested.value() => {
            let note = volume
                .resizing
                .as_ref()
                .map(|note| format!(" ({note})"))
                .unwrap_or_default();
            State::Growing(format!("volume {name} grows from {capacity} to {requested}{note}"))
        }
        _ => State::Fits,
    }
}

/// Where more is asked for than a claim has: why that was refused before, if it was.
pub fn growth<'a>(name: &str, volume: &Volume, asked: &Quantity, observed: &'a Observed) -> Option<Option<&'a String>> {
    let requested = Quantity::parse(volume.requested.as_str()).ok()?;
    let refused = || observed.growth_refused.get(&(name.to_owned(), asked.to_string()));
    (asked.value() > requested.value()).then(refused)
}

/// The size that the claim is rendered with: what it has, unless it grows.
pub fn size<'a>(volume: Option<&'a Volume>, state: &State) -> Option<&'a str> {
    (*state != State::Grows).then(|| volume.map(|volume| volume.requested.as_str()))?
}

#[cfg(test)]
mod tests {
    use super::super::{
        fixtures::{Situation, platform},
        plan::Step,
    };
    use crate::engine::child::ChildKind;
    use serde_json::{Value, json};

    const CLAIM: &str = "amas-postgres";

    /// A converged platform whose volume is so, and that asks for 20Gi.
    fn with(requested: &str, capacity: &str, data: &str) -> Situation {
        let mut situation = Situation::converged(platform());
        situation.settle();
        situation.see(
            ChildKind::PersistentVolumeClaim,
            &json!({"metadata": {"name": CLAIM, "namespace": "amas", "uid": "v", "labels": {"amas.dev/database": "amas"},
                "annotations": {"amas.dev/data": data}},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": requested}}},
                "status": {"capacity": {"storage": capacity}}}),
        );
        situation.managed_postgres().storage.size = serde_json::from_value(Value::from("20Gi")).unwrap();
        situation
    }

    const OURS: &str = "postgresql 17";

    #[test]
    fn a_larger_volume_is_asked_for_awaited_and_shown() {
        let steps = with("10Gi", "10Gi", OURS).plan().steps;
        let [Step::Grow(body)] = &steps[..] else {
            panic!("{steps:?}")
        };
        assert_eq!(body["spec"]["resources"]["requests"]["storage"], "20Gi");

        let growing = with("20Gi", "10Gi", OURS);
        assert_eq!(growing.plan().steps, []);
        assert_eq!(
            growing.ready(),
            (
                "Configuring".into(),
                "postgres: volume amas-postgres grows from 10Gi to 20Gi".into()
            )
        );
        let grown = with("20Gi", "20Gi", OURS);
        assert_eq!(grown.ready().0, "Ready");
        let stores = grown.report().status.stores.unwrap();
        assert_eq!(stores.postgres.unwrap().volume.as_deref(), Some("20Gi"));
    }

    #[test]
    fn a_refusal_and_a_smaller_size_are_said_and_nothing_is_written() {
        let mut refused = with("10Gi", "10Gi", OURS);
        let key = (CLAIM.to_owned(), "20Gi".to_owned());
        refused
            .observed
            .growth_refused
            .insert(key, "the class does not allow it".into());
        assert_eq!(refused.plan().steps, []);
        let (reason, message) = refused.ready();
        assert_eq!(reason, "VolumeCannotGrow");
        assert!(message.contains("the class does not allow it"), "{message}");
        let available = refused.report().status.conditions;
        assert!(
            available
                .iter()
                .any(|one| one.type_ == "Available" && one.status == "True")
        );

        let smaller = with("40Gi", "40Gi", OURS);
        assert_eq!(smaller.plan().steps, []);
        let (reason, message) = smaller.ready();
        assert_eq!(reason, "InvalidSpec");
        assert!(message.contains("20Gi is less than the 40Gi"), "{message}");
    }

    #[test]
    fn no_server_is_started_on_the_data_of_another() {
        let mut foreign = with("20Gi", "20Gi", "postgresql 15");
        let set = (ChildKind::StatefulSet, CLAIM.to_owned());
        foreign.observed.children.remove(&set);
        let steps = foreign.plan().steps;
        assert_eq!(steps, [], "no StatefulSet");
        let (reason, message) = foreign.ready();
        assert_eq!(reason, "DataVersionMismatch");
        assert!(
            message.contains("postgresql 15") && message.contains("postgresql 17"),
            "{message}"
        );
    }
}
