//! The server's schema against the wanted one: compared by definition, in memory. No client, no clock.

use crate::{
    api::names::GraphName,
    stores::neo4j::{
        cypher,
        duty::{ConstraintDuty, GraphDuty, IndexDuty},
        facts::{GraphFacts, ItemFacts, ItemState},
    },
};

/// What two SHOW statements gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schema {
    pub constraints: Vec<FoundConstraint>,
    pub indexes: Vec<FoundIndex>,
}

/// A row of SHOW CONSTRAINTS.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FoundConstraint {
    pub name: String,
    pub kind: String,
    pub on: Definition,
    pub owned_index: Option<String>,
}

/// A row of SHOW INDEXES.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FoundIndex {
    pub name: String,
    pub kind: String,
    pub on: Definition,
    pub state: String,
    pub percent: f64,
    pub owner: Option<String>,
    pub failure: String,
}

/// What a constraint or an index is on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Definition {
    /// `NODE` or `RELATIONSHIP`.
    pub entity: String,
    pub labels: Vec<String>,
    pub properties: Vec<String>,
}

impl Definition {
    fn is(&self, label: &GraphName, properties: &[GraphName]) -> bool {
        self.entity == "NODE"
            && self.labels.len() == 1
            && self.labels[0] == label.as_str()
            && self
                .properties
                .iter()
                .map(String::as_str)
                .eq(properties.iter().map(GraphName::as_str))
    }
}

/// One schema statement, and which item it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    CreateConstraint {
        item: usize,
        statement: String,
    },
    CreateIndex {
        item: usize,
        statement: String,
    },
    /// What a constraint creation leaves behind when its connection breaks: an unowned index with the constraint's
    /// name and definition, which blocks every further attempt. Only to be dropped once it has stood for a while,
    /// for in the last moment of somebody else's creation it looks the same.
    DropOrphan {
        item: usize,
        index: String,
        statement: String,
    },
}

impl Step {
    /// The text that is sent.
    pub fn statement(&self) -> &str {
        match self {
            Self::CreateConstraint { statement, .. }
            | Self::CreateIndex { statement, .. }
            | Self::DropOrphan { statement, .. } => statement,
        }
    }

    /// Changes the facts of the item this step is for.
    pub(super) fn item_of(&self, facts: &mut GraphFacts, change: impl FnOnce(&mut ItemFacts)) {
        let item = match self {
            Self::CreateConstraint { item, .. } | Self::DropOrphan { item, .. } => facts.constraints.get_mut(*item),
            Self::CreateIndex { item, .. } => facts.indexes.get_mut(*item),
        };
        if let Some(item) = item {
            change(item);
        }
    }
}

/// Where every item of the duty stands.
pub fn compare(have: &Schema, want: &GraphDuty) -> GraphFacts {
    GraphFacts {
        generation: want.generation,
        constraints: want.constraints.iter().map(|wanted| have.constraint(wanted)).collect(),
        indexes: want.indexes.iter().map(|wanted| have.index(wanted)).collect(),
    }
}

/// What is to be done, in order; empty when converged.
pub fn plan(have: &Schema, want: &GraphDuty) -> Vec<Step> {
    let state = compare(have, want);
    let constraints = want.constraints.iter().zip(&state.constraints).enumerate();
    let constraints = constraints.filter_map(|(item, (wanted, facts))| match &facts.state {
        ItemState::Missing => Some(Step::CreateConstraint {
            item,
            statement: cypher::create_constraint(wanted),
        }),
        ItemState::Blocked(_) => have.orphan(wanted).map(|orphan| Step::DropOrphan {
            item,
            index: orphan.name.clone(),
            statement: cypher::drop_index(&orphan.name),
        }),
        _ => None,
    });
    let indexes = want.indexes.iter().zip(&state.indexes).enumerate();
    let indexes = indexes
        .filter(|(_, (_, facts))| facts.state == ItemState::Missing)
        .map(|(item, (wanted, _))| Step::CreateIndex {
            item,
            statement: cypher::create_index(wanted),
        });
    constraints.chain(indexes).collect()
}

impl Schema {
    fn constraint(&self, wanted: &ConstraintDuty) -> ItemFacts {
        let equal = |found: &&FoundConstraint| {
            // Neo4j renamed the type; both words are in use.
            matches!(found.kind.as_str(), "UNIQUENESS" | "NODE_PROPERTY_UNIQUENESS")
                && found.on.is(&wanted.label, &wanted.properties)
        };
        if let Some(found) = best(self.constraints.iter().filter(equal), |found| &found.name, &wanted.name) {
            let index = self
                .indexes
                .iter()
                .find(|index| Some(&index.name) == found.owned_index.as_ref());
            return present(
                &wanted.name,
                &found.name,
                index.map_or(ItemState::Online, FoundIndex::item_state),
            );
        }
        let state = match (self.in_the_way(wanted), self.half_seen(wanted)) {
            (Some(index), _) if index.is_filling() => ItemState::Populating(index.percent),
            (Some(index), _) => ItemState::Blocked(format!(
                "index {} on the same label and properties is in the way; it must be dropped first",
                cypher::quote(&index.name)
            )),
            (None, Some(index)) => ItemState::Populating(index.percent),
            (None, None) => self.free_or_taken(&wanted.name),
        };
        ItemFacts {
            name: wanted.name.clone(),
            actual_name: None,
            state,
        }
    }

    fn index(&self, wanted: &IndexDuty) -> ItemFacts {
        let equal = |found: &&FoundIndex| found.kind == "RANGE" && found.on.is(&wanted.label, &wanted.properties);
        match best(self.indexes.iter().filter(equal), |found| &found.name, &wanted.name) {
            Some(found) => present(&wanted.name, &found.name, found.item_state()),
            None => {
                let state = self.free_or_taken(&wanted.name);
                ItemFacts {
                    name: wanted.name.clone(),
                    actual_name: None,
                    state,
                }
            }
        }
    }

    /// The server builds a constraint on an index of its own, and allows no second one on the same definition.
    fn in_the_way(&self, wanted: &ConstraintDuty) -> Option<&FoundIndex> {
        self.indexes_for(wanted).find(|index| index.owner.is_none())
    }

    /// The index of a constraint that came, or went, between the two statements that this was read by: the next look tells.
    fn half_seen(&self, wanted: &ConstraintDuty) -> Option<&FoundIndex> {
        let known = |owner: &String| self.constraints.iter().any(|found| found.name == *owner);
        self.indexes_for(wanted)
            .find(|index| index.owner.as_ref().is_some_and(|owner| !known(owner)))
    }

    fn indexes_for(&self, wanted: &ConstraintDuty) -> impl Iterator<Item = &FoundIndex> {
        let same = move |index: &&FoundIndex| index.kind == "RANGE" && index.on.is(&wanted.label, &wanted.properties);
        self.indexes.iter().filter(same)
    }

    fn orphan(&self, wanted: &ConstraintDuty) -> Option<&FoundIndex> {
        self.in_the_way(wanted)
            .filter(|index| index.name == wanted.name.as_str() && !index.is_filling())
    }

    /// Constraints and indexes share one space of names.
    fn free_or_taken(&self, name: &GraphName) -> ItemState {
        let taken = |kind: &str, on: &Definition| {
            let (labels, properties) = (on.labels.join(", "), on.properties.join(", "));
            ItemState::NameTaken(format!("the name belongs to a {kind} on {labels} ({properties})"))
        };
        if let Some(found) = self.constraints.iter().find(|found| found.name == name.as_str()) {
            return taken(&format!("{} constraint", found.kind.to_lowercase()), &found.on);
        }
        match self.indexes.iter().find(|found| found.name == name.as_str()) {
            Some(found) => taken(&format!("{} index", found.kind.to_lowercase()), &found.on),
            None => ItemState::Missing,
        }
    }
}

impl FoundIndex {
    fn is_filling(&self) -> bool {
        self.state == "POPULATING" && self.percent < 100.0
    }

    fn item_state(&self) -> ItemState {
        match self.state.as_str() {
            "ONLINE" => ItemState::Online,
            "POPULATING" => ItemState::Populating(self.percent),
            _ => ItemState::Failed(self.failure.clone()),
        }
    }
}

/// Of several equal ones, the one with the wanted name.
fn best<'a, T>(
    found: impl Iterator<Item = &'a T> + Clone,
    name_of: impl Fn(&T) -> &String,
    wanted: &GraphName,
) -> Option<&'a T> {
    let mut all = found.clone();
    found
        .into_iter()
        .find(|item| name_of(item) == wanted.as_str())
        .or_else(|| all.next())
}

fn present(wanted: &GraphName, actual: &str, state: ItemState) -> ItemFacts {
    let actual_name = (actual != wanted.as_str()).then(|| actual.to_owned());
    ItemFacts {
        name: wanted.clone(),
        actual_name,
        state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::neo4j::duty::{ConstraintKind, IndexKind};

    fn name(text: &str) -> GraphName {
        GraphName::parse(text).unwrap()
    }

    fn on(label: &str, property: &str) -> Definition {
        Definition {
            entity: "NODE".into(),
            labels: vec![label.into()],
            properties: vec![property.into()],
        }
    }

    fn index(text: &str, on: Definition, owner: Option<&str>) -> FoundIndex {
        FoundIndex {
            name: text.into(),
            kind: "RANGE".into(),
            on,
            state: "ONLINE".into(),
            percent: 100.0,
            owner: owner.map(str::to_owned),
            failure: String::new(),
        }
    }

    fn constraint(text: &str, on: Definition) -> FoundConstraint {
        FoundConstraint {
            name: text.into(),
            kind: "UNIQUENESS".into(),
            on,
            owned_index: Some(text.into()),
        }
    }

    /// Wanted: constraint `u` on T.id, index `i` on T.status.
    fn want() -> GraphDuty {
        GraphDuty {
            generation: 3,
            constraints: vec![ConstraintDuty {
                name: name("u"),
                label: name("T"),
                properties: vec![name("id")],
                kind: ConstraintKind::Unique,
            }],
            indexes: vec![IndexDuty {
                name: name("i"),
                label: name("T"),
                properties: vec![name("status")],
                kind: IndexKind::Range,
            }],
        }
    }

    fn with(constraints: Vec<FoundConstraint>, indexes: Vec<FoundIndex>) -> Schema {
        Schema { constraints, indexes }
    }

    fn create_u() -> Step {
        Step::CreateConstraint {
            item: 0,
            statement: "CREATE CONSTRAINT `u` FOR (n:`T`) REQUIRE (n.`id`) IS UNIQUE".into(),
        }
    }

    fn create_i() -> Step {
        Step::CreateIndex {
            item: 0,
            statement: "CREATE RANGE INDEX `i` FOR (n:`T`) ON (n.`status`)".into(),
        }
    }

    #[test]
    fn creates_what_is_missing_constraints_first() {
        assert_eq!(plan(&Schema::default(), &want()), [create_u(), create_i()]);
    }

    #[test]
    fn converged_means_no_step() {
        let have = with(
            vec![constraint("u", on("T", "id"))],
            vec![
                index("u", on("T", "id"), Some("u")),
                index("i", on("T", "status"), None),
            ],
        );
        assert_eq!(plan(&have, &want()), []);
        assert!(compare(&have, &want()).is_in());
    }

    #[test]
    fn an_equal_one_under_another_name_is_adopted() {
        let have = with(
            vec![constraint("old_u", on("T", "id"))],
            vec![
                index("old_u", on("T", "id"), Some("old_u")),
                index("old_i", on("T", "status"), None),
            ],
        );
        let state = compare(&have, &want());
        assert_eq!(plan(&have, &want()), []);
        assert!(state.is_in());
        assert_eq!(state.constraints[0].actual_name.as_deref(), Some("old_u"));
        assert_eq!(state.indexes[0].actual_name.as_deref(), Some("old_i"));
    }

    #[test]
    fn an_index_that_belongs_to_a_constraint_serves_as_one() {
        let have = with(
            vec![constraint("s", on("T", "status"))],
            vec![index("s", on("T", "status"), Some("s"))],
        );
        assert_eq!(compare(&have, &want()).indexes[0].actual_name.as_deref(), Some("s"));
    }

    #[test]
    fn a_taken_name_is_a_conflict() {
        for have in [
            with(vec![constraint("u", on("T", "other"))], vec![]),
            with(vec![], vec![index("u", on("X", "id"), None)]),
        ] {
            assert!(matches!(
                compare(&have, &want()).constraints[0].state,
                ItemState::NameTaken(_)
            ));
            assert_eq!(plan(&have, &want()), [create_i()]);
        }
        let have = with(
            vec![constraint("i", on("X", "a"))],
            vec![index("i", on("X", "a"), Some("i"))],
        );
        assert_eq!(
            compare(&have, &want()).indexes[0].state,
            ItemState::NameTaken("the name belongs to a uniqueness constraint on X (a)".into())
        );
    }

    #[test]
    fn a_constraint_that_comes_while_it_is_looked_at_is_no_conflict() {
        let have = with(vec![], vec![index("u", on("T", "id"), Some("u"))]);
        assert_eq!(
            compare(&have, &want()).constraints[0].state,
            ItemState::Populating(100.0)
        );
        assert_eq!(plan(&have, &want()), [create_i()]);
    }

    #[test]
    fn a_plain_index_in_the_constraint_s_way_is_reported() {
        let have = with(vec![], vec![index("by_id", on("T", "id"), None)]);
        let state = compare(&have, &want());
        assert!(matches!(&state.constraints[0].state, ItemState::Blocked(text) if text.contains("`by_id`")));
        assert_eq!(plan(&have, &want()), [create_i()]);
    }

    #[test]
    fn the_remains_of_a_broken_creation_are_dropped() {
        let drop = Step::DropOrphan {
            item: 0,
            index: "u".into(),
            statement: "DROP INDEX `u`".into(),
        };
        let mut remains = index("u", on("T", "id"), None);
        assert_eq!(
            plan(&with(vec![], vec![remains.clone()]), &want()),
            [drop.clone(), create_i()]
        );
        remains.state = "POPULATING".into();
        assert_eq!(plan(&with(vec![], vec![remains.clone()]), &want()), [drop, create_i()]);
        remains.percent = 40.0;
        let busy = with(vec![], vec![remains]);
        assert_eq!(plan(&busy, &want()), [create_i()], "somebody is creating it right now");
        assert_eq!(
            compare(&busy, &want()).constraints[0].state,
            ItemState::Populating(40.0)
        );
    }

    #[test]
    fn other_kinds_and_relationships_are_not_equal() {
        let mut text = index("t", on("T", "status"), None);
        text.kind = "TEXT".into();
        let mut relationship = index("r", on("T", "status"), None);
        relationship.on.entity = "RELATIONSHIP".into();
        assert_eq!(
            plan(&with(vec![], vec![text, relationship]), &want()),
            [create_u(), create_i()]
        );
    }

    #[test]
    fn index_states_are_told() {
        let mut found = index("i", on("T", "status"), None);
        for (state, expected) in [
            ("ONLINE", ItemState::Online),
            ("POPULATING", ItemState::Populating(100.0)),
            ("FAILED", ItemState::Failed("disk".into())),
        ] {
            (found.state, found.failure) = (state.into(), "disk".into());
            assert_eq!(
                compare(&with(vec![], vec![found.clone()]), &want()).indexes[0].state,
                expected
            );
        }
    }
}
