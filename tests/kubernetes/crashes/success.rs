//! Success is not said before the last step: no generation of an object is called Ready while one of its writes is still to come.

use std::time::Instant;

use super::{
    cases::{Blow, Case},
    life::{Life, Place, Run},
};
use crate::support::{fault::Fault, proxy::Said};

impl Life {
    /// Ready was not said before the write that was spoilt, nor, where it did not arrive, before as many of its words came as it takes without a
    /// blow and one more. As the proxies saw it, so that nobody has to look at the right moment.
    pub async fn check_success(&self, case: &Case, run: &Run) -> Result<(), String> {
        let is_told = case.write.ends_with("/status") || case.write.ends_with("/events");
        let becomes_ready = self.subject.serves() && case.stage.makes();
        if is_told || !becomes_ready || case.place == Place::Reads {
            return Ok(());
        }
        let arrived = !matches!(case.blow, Blow::Fault(Fault::Swallowed | Fault::Answer(_)));
        let usual = run.writes[&case.place]
            .iter()
            .filter(|other| **other == case.write)
            .count();
        let last = if arrived { case.number } else { usual + 1 };
        let moments = self.plan(case.place).moments(&self.own(&case.write));
        let Some(last) = moments.get(last - 1).or(moments.last()) else {
            return Ok(());
        };
        match self.said_ready(asking(case)).await.into_iter().find(|said| said < last) {
            Some(said) => Err(format!("success was said {:?} before a write of its", *last - said)),
            None => Ok(()),
        }
    }

    /// Whenever the operator said of the object of this kind, as it is asked for now, that it is Ready.
    async fn said_ready(&self, kind: &str) -> Vec<Instant> {
        let Some(object) = self.ns.get(kind, "a").await else {
            return Vec::new();
        };
        let meta = &object["metadata"];
        let is_of_this = |said: &Said| meta["uid"] == said.uid && meta["generation"] == said.generation;
        let all = self.to_api.said_ready().into_iter();
        all.filter(is_of_this).map(|said| said.at).collect()
    }
}

/// What asks for a write.
fn asking(case: &Case) -> &'static str {
    match case.place {
        Place::Neo4j if case.write.starts_with("CREATE ") => "GraphSchema",
        Place::Redis if case.write.starts_with("CONFIG ") => "CachePolicy",
        _ => "AmasDatabase",
    }
}
