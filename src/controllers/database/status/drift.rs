//! The part of the status that tells of a schema that no migration made. Pure.

use crate::api::{
    ACCEPT_DRIFT,
    conditions::{ConditionType, Reason, shorten},
    migrations::DriftMode,
    status::SchemaDrift,
};

use super::Draft;

/// Differences in the status, and in a condition's message.
const LISTED: usize = 10;
const SAID: usize = 3;
/// Of each.
const LINE_BYTES: usize = 300;

impl Draft<'_> {
    /// Told beside the readiness; only `Block` makes it a matter of it. Available is never touched.
    pub(super) fn drift(&mut self) {
        let Some(migrations) = &self.object.spec.migrations else {
            return;
        };
        let (Some(drift), mode) = (self.drift_status(), migrations.drift.mode) else {
            return;
        };
        let message = self.drift_message(&drift);
        if mode == DriftMode::Block {
            self.block(true, Reason::Drifted, message.clone());
        }
        self.set(ConditionType::Drifted, true, Reason::Drifted, message);
    }

    /// What differs, and what a person may do.
    pub(super) fn drift_message(&self, drift: &SchemaDrift) -> String {
        let name = self.object.metadata.name.as_deref().unwrap_or_default();
        format!(
            "{}; undo the changes, or accept them: kubectl annotate amasdb {name} {ACCEPT_DRIFT}=\"$(date +%s)\" --overwrite",
            summary(drift)
        )
    }

    /// As it was before, where it has not been looked at yet.
    pub(super) fn drift_status(&self) -> Option<SchemaDrift> {
        let facts = self.observed.postgres.as_ref().map(|snapshot| &snapshot.facts);
        let Some(found) = facts.and_then(|facts| facts.drift.as_ref()) else {
            return self.observed.status.migrations.as_ref()?.drift.clone();
        };
        let differs = found.unknown.is_none() && found.total > 0;
        let lines = found.differences.iter().take(LISTED);
        differs.then(|| SchemaDrift {
            version: found.version,
            objects: i64::try_from(found.total).unwrap_or(i64::MAX),
            differences: lines.map(|line| shorten(&line.to_string(), LINE_BYTES)).collect(),
        })
    }
}

/// `2 objects are not as version 5 left them: index a: gone; table b: new`.
pub(super) fn summary(drift: &SchemaDrift) -> String {
    let said: Vec<&str> = drift.differences.iter().take(SAID).map(String::as_str).collect();
    let more = drift.objects - i64::try_from(said.len()).unwrap_or_default();
    let (objects, them) = match drift.objects {
        1 => ("object is", "it"),
        _ => ("objects are", "them"),
    };
    let more = if more > 0 {
        format!("; and {more} more")
    } else {
        String::new()
    };
    format!(
        "{} {objects} not as version {} left {them}: {}{more}",
        drift.objects,
        drift.version,
        said.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        api::status::AmasDatabaseStatus,
        controllers::database::fixtures::{Situation, platform},
        migrate::drift::{Difference, Drift},
    };

    fn drifted(objects: usize) -> Drift {
        let difference = |number| Difference {
            kind: "index".into(),
            name: format!("i{number}"),
            recorded: Some("CREATE INDEX".into()),
            present: None,
        };
        Drift {
            version: 5,
            total: objects,
            differences: (0..objects.min(200)).map(difference).collect(),
            ..Drift::default()
        }
    }

    fn found(situation: &mut Situation, drift: Option<Drift>) -> AmasDatabaseStatus {
        Arc::make_mut(situation.observed.postgres.as_mut().unwrap()).facts.drift = drift;
        situation.settle()
    }

    fn condition(status: &AmasDatabaseStatus, name: &str) -> (String, String) {
        let found = status.conditions.iter().find(|condition| condition.type_ == name);
        found.map_or(Default::default(), |found| {
            (found.status.clone(), found.message.clone())
        })
    }

    #[test]
    fn drift_is_told_beside_the_readiness_and_only_block_makes_it_a_matter_of_it() {
        let mut situation = Situation::converged(platform());
        let clean = found(&mut situation, Some(drifted(0)));
        assert_eq!(condition(&clean, "Drifted").0, "");
        for (mode, ready, stalled) in [
            (DriftMode::Report, "True", ""),
            (DriftMode::Correct, "True", ""),
            (DriftMode::Block, "False", "True"),
        ] {
            situation.object.spec.migrations.as_mut().unwrap().drift.mode = mode;
            let status = found(&mut situation, Some(drifted(5000)));
            let (drifted, message) = condition(&status, "Drifted");
            let states = ["Ready", "Stalled", "Available"].map(|name| condition(&status, name).0);
            assert_eq!(
                (drifted.as_str(), states),
                ("True", [ready, stalled, "True"].map(String::from)),
                "{mode:?}"
            );
            let part = "5000 objects are not as version 5 left them: index i0: gone; index i1: gone; index i2: gone; and 4997 more; undo";
            assert!(
                message.starts_with(part) && message.contains("amas.dev/accept-drift="),
                "{message}"
            );
            assert!(condition(&status, "Ready").1.contains("5000 objects are not as"));
            assert_eq!(status.migrations.unwrap().drift.unwrap().differences.len(), LISTED);
        }
        // After a start of the operator it stands until the schema has been looked at.
        assert_eq!(condition(&found(&mut situation, None), "Drifted").0, "True");
        let unknown = Drift {
            unknown: Some("a run is under way, or died"),
            ..drifted(0)
        };
        let status = found(&mut situation, Some(unknown));
        assert_eq!(
            (
                condition(&status, "Drifted").0.as_str(),
                condition(&status, "Ready").0.as_str()
            ),
            ("", "True")
        );
    }

    #[test]
    fn the_word_is_handled_once_the_schema_was_accepted() {
        let mut situation = Situation::converged(platform());
        situation.observed.annotations.accept_drift = Some("1".into());
        assert_eq!(situation.report().status.handled.get("accept-drift"), None);
        Arc::make_mut(situation.observed.postgres.as_mut().unwrap())
            .facts
            .drift_accepted = Some("1".into());
        assert_eq!(
            situation
                .report()
                .status
                .handled
                .get("accept-drift")
                .map(String::as_str),
            Some("1")
        );
    }
}
