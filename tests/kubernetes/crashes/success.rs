//! Success is not said before the last step: no generation is called Ready while one of its writes is still to come.

use super::{
    cases::{Blow, Case},
    life::{Life, Place, Subject},
};
use crate::support::fault::Fault;

impl Life {
    /// Ready was not said before the write that was spoilt, nor, where it did not arrive, before the same came again. As the proxies saw it, so that
    /// nobody has to look at the right moment.
    pub async fn check_success(&self, case: &Case) -> Result<(), String> {
        let is_told = case.place == Place::Api && (case.write.ends_with("/status") || case.write.ends_with("/events"));
        let becomes_ready = matches!(self.subject, Subject::External) && case.stage.makes();
        let Some((spoilt, again)) = self.plan(case.place).moments() else {
            return Ok(());
        };
        if is_told || !becomes_ready || case.place == Place::Reads {
            return Ok(());
        }
        let arrived = !matches!(case.blow, Blow::Fault(Fault::Swallowed | Fault::Answer(_)));
        let last = again.filter(|_| !arrived).unwrap_or(spoilt);
        match self.said_ready().await.into_iter().find(|said| *said < last) {
            Some(said) => Err(format!("success was said {:?} before a write of its", last - said)),
            None => Ok(()),
        }
    }
}
