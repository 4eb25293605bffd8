//! What is shown, in this order.

mod bad_input;
mod changes;
mod credentials;
mod flapping;
mod floor_arms;
mod health;
mod idle;
mod image_source;
mod load;
mod node_check;
mod persistence;
mod requirements;
mod retain_delete;
mod self_check;
mod time_to_ready;
mod tls;
mod upgrade;
mod write_counts;

use crate::harness::runner::Scenario;

pub static ALL: &[Scenario] = &[
    Scenario::new(
        "write-counts",
        "requests from create to Ready stay within children + 3 and children + 12, without a LIST",
        6,
        |ctx| Box::pin(write_counts::run(ctx)),
    ),
    Scenario::new(
        "time-to-ready",
        "apply to Ready against the same end state reached by hand",
        60,
        |ctx| Box::pin(time_to_ready::run(ctx)),
    ),
    Scenario::new(
        "idle",
        "a second apply writes nothing; 11 busy databases at rest cost the lease and nothing else; memory and image size",
        15,
        |ctx| Box::pin(idle::run(ctx)),
    ),
    Scenario::new(
        "health",
        "a killed or stopped database process is seen in time and recovers; an idle timeout is no flip",
        20,
        |ctx| Box::pin(health::run(ctx)),
    ),
    Scenario::new(
        "persistence",
        "data outlives pods, the operator's death and a power cut of the node",
        20,
        |ctx| Box::pin(persistence::run(ctx)),
    ),
    Scenario::new(
        "upgrade",
        "an operator upgrade restarts nothing; uninstall and reinstall write nothing",
        20,
        |ctx| Box::pin(upgrade::run(ctx)),
    ),
    Scenario::new(
        "changes",
        "parameters are loaded, or restart once; volumes grow; what the server would not take is refused; a wrong image is got over",
        20,
        |ctx| Box::pin(changes::run(ctx)),
    )
    .sociable(),
    Scenario::new(
        "credentials",
        "published Secrets log in, rights hold, and no generated password is seen anywhere else",
        12,
        |ctx| Box::pin(credentials::run(ctx)),
    )
    .sociable(),
    Scenario::new(
        "requirements",
        "every requirement of AMAS by its id: columns, constraints, views, rights, key families, the graph",
        12,
        |ctx| Box::pin(requirements::run(ctx)),
    )
    .sociable(),
    Scenario::new(
        "bad-input",
        "a rejected apply or a plain condition, nothing of anybody else touched, no noise, and a way back",
        24,
        |ctx| Box::pin(bad_input::run(ctx)),
    )
    .sociable(),
    Scenario::new(
        "flapping",
        "external servers restarted twenty times in a minute cost four status writes each, and are Ready again",
        10,
        |ctx| Box::pin(flapping::run(ctx)),
    ),
    Scenario::new(
        "tls",
        "encrypted stores in real pods: verified clients, clear text refused, certificates renewed under running servers",
        12,
        |ctx| Box::pin(tls::run(ctx)),
    )
    .sociable(),
    Scenario::new(
        "retain-delete",
        "with Retain the next of the name has the same data and passwords; with Delete nothing is left; Valkey for Redis",
        10,
        |ctx| Box::pin(retain_delete::run(ctx)),
    )
    .sociable(),
    Scenario::new(
        "image-source",
        "migrations from an image of nothing but files, mounted and copied",
        10,
        |ctx| Box::pin(image_source::run(ctx)),
    )
    .sociable(),
    Scenario::new(
        "self-check",
        "the suite's own parts: audit lines, objects, watches",
        1,
        |ctx| Box::pin(self_check::run(ctx)),
    )
    .without_operator(),
    Scenario::new("floor-arms", "the floors of time-to-ready alone", 10, |ctx| {
        Box::pin(floor_arms::run(ctx))
    })
    .without_operator(),
    Scenario::new(
        "node-check",
        "the suite's hands on the node: load, signals, the power switch",
        10,
        |ctx| Box::pin(node_check::run(ctx)),
    )
    .without_operator(),
];
