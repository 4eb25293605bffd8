//! What annotations ask for, once for each value.

use crate::api::{
    ACCEPT_DRIFT, ACCEPT_EMPTY, APPROVE_PLAN, REISSUE, RENEW, RESTART, ROTATE, TAKE_OVER,
    amas_database::{AmasDatabase, AmasDatabaseStatus},
    conditions::shorten,
};
use crate::controllers::{database::losses, sources::REREAD};

/// Of a one-shot annotation's value, which may be as long as it likes, this much counts.
const HANDLED_LIMIT: usize = 253;
/// Where the status keeps the last handled value of the annotation that asks to take over.
pub const HANDLED_TAKE_OVER: &str = "take-over";
/// The same of the one that accepts a changed schema.
pub const HANDLED_DRIFT: &str = "accept-drift";
/// The same of the one by which sources are read again.
pub const HANDLED_REREAD: &str = "reread-sources";

/// The annotations' values, of which those that are kept as handled count only until they are.
#[derive(Clone, Debug, Default)]
pub struct Annotations {
    /// New passwords, in place.
    pub rotate: Option<String>,
    /// New passwords for what has lost its own.
    pub reissue: Option<String>,
    /// New certificates.
    pub renew: Option<String>,
    /// A restart of the managed servers.
    pub restart: Option<String>,
    /// The plan that is approved.
    pub approved_plan: Option<String>,
    /// To take over what somebody else claims, until it is handled.
    pub take_over: Option<String>,
    /// To let a store begin anew, empty, until it is handled.
    pub accept_empty: Option<String>,
    /// To accept the schema as it is, until it is handled.
    pub accept_drift: Option<String>,
    /// To read sources again, until it is handled: what failed is tried once more.
    pub try_again: Option<String>,
}

impl Annotations {
    /// What `object` asks for, of which its status does not say yet that it is handled.
    pub fn of(object: &AmasDatabase, status: &AmasDatabaseStatus) -> Self {
        let ask = |name| annotation(object, name).map(|value| kept(&value));
        let until_handled = |name, handled| ask(name).filter(|value| status.handled.get(handled) != Some(value));
        Self {
            rotate: ask(ROTATE),
            reissue: ask(REISSUE),
            renew: ask(RENEW),
            restart: ask(RESTART),
            approved_plan: ask(APPROVE_PLAN),
            take_over: until_handled(TAKE_OVER, HANDLED_TAKE_OVER),
            accept_empty: until_handled(ACCEPT_EMPTY, losses::HANDLED),
            accept_drift: until_handled(ACCEPT_DRIFT, HANDLED_DRIFT),
            try_again: until_handled(REREAD, HANDLED_REREAD),
        }
    }
}

/// A value as it counts: one that names something still does when it is cut, though nothing that there is.
fn kept(value: &str) -> String {
    let short = shorten(value, HANDLED_LIMIT);
    match value.contains('/') && !short.contains('/') {
        true => format!("{}/", shorten(value, HANDLED_LIMIT - 1)),
        false => short,
    }
}

/// An annotation's value.
pub fn annotation(object: &AmasDatabase, name: &str) -> Option<String> {
    object.metadata.annotations.as_ref()?.get(name).cloned()
}
