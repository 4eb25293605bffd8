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
    all.extend(rotated(old, new));
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

/// One Event for all credentials that got a new password since the last status.
fn rotated(old: &AmasDatabaseStatus, new: &AmasDatabaseStatus) -> Option<News> {
    let before = |name: &str| {
        old.credentials
            .iter()
            .find(|one| one.name == name)
            .map_or(0, |one| one.rotations)
    };
    let names: Vec<&str> = new
        .credentials
        .iter()
        .filter(|one| one.rotations > before(&one.name))
        .map(|one| one.name.as_str())
        .collect();
    let until = new.credentials.iter().filter(|one| names.contains(&one.name.as_str()));
    let until = until.filter_map(|one| Some(one.previous_valid_until.as_ref()?.0)).max();
    (!names.is_empty()).then(|| News {
        warning: false,
        reason: "CredentialsRotated".into(),
        note: format!(
            "new passwords are published: {}; the previous ones {}",
            names.join(", "),
            until.map_or("ended with that".to_owned(), |until| format!(
                "are valid until {until:.0}"
            ))
        ),
    })
}

pub fn is_true_named(conditions: &[Condition], name: &str) -> bool {
    conditions
        .iter()
        .any(|condition| condition.type_ == name && condition.status == "True")
}
