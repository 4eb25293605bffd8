//! What a change of status means: how soon it is written, and what is worth an Event. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    api::amas_database::AmasDatabaseStatus,
    engine::{events::News, status::Weight},
};

use super::facts;

/// How much it matters that the status changed.
pub fn weight(old: &AmasDatabaseStatus, new: &AmasDatabaseStatus) -> Weight {
    if old == new {
        return Weight::None;
    }
    if facts::differ_only_in_figures(old, new) {
        return if facts::figures_moved(old, new) {
            Weight::Figures
        } else {
            Weight::None
        };
    }
    let status = |conditions: &[Condition], name: &str| {
        conditions
            .iter()
            .find(|condition| condition.type_ == name)
            .map(|condition| condition.status.clone())
    };
    let flipped = |name: &str| status(&old.conditions, name) != status(&new.conditions, name);
    let lost = |name: &str| {
        status(&old.conditions, name).as_deref() == Some("True")
            && status(&new.conditions, name).as_deref() == Some("False")
    };
    let news = ["Ready", "Available", "Stalled", "Degraded"]
        .iter()
        .any(|name| flipped(name))
        || new.conditions.iter().any(|condition| lost(&condition.type_));
    if news { Weight::News } else { Weight::Progress }
}

/// What is worth an Event: Ready gained or lost, a human needed, migrations in.
pub fn news(old: &AmasDatabaseStatus, new: &AmasDatabaseStatus) -> Vec<News> {
    let find = |status: &AmasDatabaseStatus, name: &str| {
        status
            .conditions
            .iter()
            .find(|condition| condition.type_ == name)
            .cloned()
    };
    let was = |name: &str| is_true_named(&old.conditions, name);
    let is = |name: &str| is_true_named(&new.conditions, name);
    let tell = |name: &str, warning: bool| {
        find(new, name).map(|condition| News {
            warning,
            reason: condition.reason,
            note: condition.message,
        })
    };
    let mut all = Vec::new();
    if is("MigrationsApplied")
        && !was("MigrationsApplied")
        && new
            .migrations
            .as_ref()
            .is_some_and(|migrations| migrations.attempts > 0)
    {
        all.extend(tell("MigrationsApplied", false).map(|news| News {
            reason: "MigrationsApplied".into(),
            ..news
        }));
    }
    match (was("Ready"), is("Ready")) {
        (false, true) => all.extend(tell("Ready", false)),
        (true, false) if !is("Stalled") => all.extend(tell("Ready", true)),
        _ => {}
    }
    let stalled = |status| find(status, "Stalled").map(|condition| (condition.reason, condition.message));
    if is("Stalled") && stalled(old) != stalled(new) {
        all.extend(tell("Stalled", true));
    }
    all
}

pub fn is_true_named(conditions: &[Condition], name: &str) -> bool {
    conditions
        .iter()
        .any(|condition| condition.type_ == name && condition.status == "True")
}
