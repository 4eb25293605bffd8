//! What passes through a proxy is counted, and one of it can be spoilt. The product needs no hooks for that.

use std::{sync::Mutex, time::Instant};

use tokio::sync::watch;

/// What happens to one write, or to one reading where those are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does not arrive, and nobody answers.
    Swallowed,
    /// It is carried out, and nobody answers.
    Unanswered,
    /// It is carried out, and the connection breaks before the whole answer is there.
    LostAnswer,
    /// It is carried out, and the answer is on its way until it is let go. From a store only.
    Held,
    /// It does not arrive, and this status is the answer (429 with Retry-After: 1). Of an API server only.
    Answer(u16),
    /// It does not arrive, and the answer says that it did.
    Pretended,
}

/// Which write is spoilt.
#[derive(Clone, Debug)]
pub enum Which {
    /// The one of this number, counted from 1.
    Number(usize),
    /// The one of this number among those of the same words.
    Of(Write, usize),
    /// All of these words, until the count begins anew.
    Each(Write),
}

/// One write in words, such as `PATCH /apis/...`.
pub type Write = String;

/// The count of one proxy, and the fault that is planned.
pub struct Plan {
    planned: Mutex<Planned>,
    happened: watch::Sender<bool>,
    let_go: watch::Sender<bool>,
}

#[derive(Default)]
struct Planned {
    /// And when each came.
    writes: Vec<(Write, Instant)>,
    fault: Option<(Which, Fault)>,
    /// What was spoilt.
    spoilt: Option<Write>,
    never_again: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            planned: Mutex::default(),
            happened: watch::Sender::new(false),
            let_go: watch::Sender::new(false),
        }
    }
}

impl Plan {
    /// Counts from 1 again, and spoils that write.
    pub fn begin(&self, fault: Option<(Which, Fault)>) {
        let mut planned = self.planned.lock().unwrap();
        *planned = Planned {
            fault,
            never_again: planned.never_again,
            ..Planned::default()
        };
        drop(planned);
        self.happened.send_replace(false);
    }

    /// From now on no write arrives that has the words of one that was spoilt, and each is answered as if it had: as the servers see it, the operator
    /// never writes it again.
    pub fn never_again(&self) {
        self.planned.lock().unwrap().never_again = true;
    }

    /// Takes a write in; gives what is planned for it.
    pub fn count(&self, write: Write) -> Option<Fault> {
        let mut planned = self.planned.lock().unwrap();
        let pretended = planned.never_again && planned.spoilt.as_ref() == Some(&write);
        planned.writes.push((write.clone(), Instant::now()));
        if pretended {
            return Some(Fault::Pretended);
        }
        let fault = planned.due()?;
        planned.spoilt = Some(write);
        Some(fault)
    }

    /// Whether the write has come that shall be spoilt.
    pub fn is_met(&self) -> bool {
        self.planned.lock().unwrap().spoilt.is_some()
    }

    /// When these came.
    pub fn moments(&self, write: &Write) -> Vec<Instant> {
        let planned = self.planned.lock().unwrap();
        let same = planned.writes.iter().filter(|(other, _)| other == write);
        same.map(|(_, at)| *at).collect()
    }

    /// The planned fault has done its work.
    pub fn has_happened(&self) {
        self.happened.send_replace(true);
    }

    /// Waits for that.
    pub async fn happened(&self) {
        let _ = self.happened.subscribe().wait_for(|happened| *happened).await;
    }

    /// Lets the answer arrive that was held.
    pub fn let_go(&self) {
        self.let_go.send_replace(true);
    }

    /// Waits for that.
    pub async fn was_let_go(&self) {
        let _ = self.let_go.subscribe().wait_for(|gone| *gone).await;
    }

    /// The writes since the count began.
    pub fn writes(&self) -> Vec<Write> {
        let planned = self.planned.lock().unwrap();
        planned.writes.iter().map(|(write, _)| write.clone()).collect()
    }

    /// How many these are.
    pub fn counted(&self) -> usize {
        self.planned.lock().unwrap().writes.len()
    }
}

impl Planned {
    /// What is planned for the last write.
    fn due(&self) -> Option<Fault> {
        let (which, fault) = self.fault.as_ref()?;
        let (last, _) = self.writes.last()?;
        let is_it = match which {
            Which::Number(number) => *number == self.writes.len(),
            Which::Of(write, number) => {
                write == last && *number == self.writes.iter().filter(|(other, _)| other == write).count()
            }
            Which::Each(write) => write == last,
        };
        is_it.then_some(*fault)
    }
}
