//! What is done to which write, and what of it is still to be tried.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::life::{Place, Run, Stage, Subject};
use crate::support::fault::{Fault, Write};

/// How often a write is waited for that a stage may do without, such as one of two writes of the status that came close together; and how often
/// a case is tried anew for another reason.
const TRIES: u32 = 4;

/// What is done to one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// The operator is killed when the server has carried it out, before it knows.
    Kill,
    Fault(Fault),
    /// Its answer is lost, and this is done to the reading that then asks what is there.
    Unread(Fault),
}

/// What is done to a reading.
const READ: [Fault; 3] = [Fault::Swallowed, Fault::Answer(403), Fault::Answer(500)];

impl Blow {
    /// All of them, for a write to this place: what the operator is answered, and its end. Stores have no words of their own for what may be tried again,
    /// a reading changes nothing that an end could leave, and the statuses of policies go the way of all others.
    fn all(subject: Subject, place: Place, write: &str, number: usize) -> Vec<Self> {
        let end = [Self::Kill, Self::Fault(Fault::LostAnswer)];
        if subject == Subject::Policies && place == Place::Api {
            return vec![Self::Kill, Self::Fault(Fault::Answer(409))];
        }
        if place == Place::Reads {
            return READ.map(Self::Fault).to_vec();
        }
        if place != Place::Api {
            return end.to_vec();
        }
        let answers = [
            Fault::Swallowed,
            Fault::Answer(429),
            Fault::Answer(409),
            Fault::Answer(500),
        ];
        let mut all = [answers.map(Self::Fault).as_slice(), &end].concat();
        // Nothing but a reading tells of these. One of them is enough.
        if number == 1 && write.starts_with("POST ") && write.ends_with("/secrets") {
            all.extend(READ.map(Self::Unread));
        }
        all
    }

    /// What is done to the write.
    pub fn fault(self) -> Fault {
        match self {
            Self::Kill => Fault::Unanswered,
            Self::Fault(fault) => fault,
            Self::Unread(_) => Fault::LostAnswer,
        }
    }

    /// What is done to the first reading after it.
    pub fn reading(self) -> Option<Fault> {
        match self {
            Self::Unread(fault) => Some(fault),
            Self::Kill | Self::Fault(_) => None,
        }
    }

    fn words(self) -> String {
        match self {
            Self::Kill => "killed".into(),
            Self::Fault(Fault::Swallowed) => "timeout".into(),
            Self::Fault(Fault::LostAnswer) => "answer lost".into(),
            Self::Fault(Fault::Answer(code)) => code.to_string(),
            Self::Fault(other) => format!("{other:?}"),
            Self::Unread(fault) => format!("answer lost and reading {}", Self::Fault(fault).words()),
        }
    }
}

/// Why a case was tried in vain.
#[derive(Debug, PartialEq, Eq)]
pub enum Vain {
    /// Its write did not come.
    Missed,
    /// So many Events came, but a store was taken for lost meanwhile, which costs some: on a busy machine that is nothing that the blow did.
    Outage(String),
}

/// One write that is spoilt: the one of this number among those of the same words.
#[derive(Clone, Debug)]
pub struct Case {
    pub stage: Stage,
    pub place: Place,
    pub write: Write,
    pub number: usize,
    pub blow: Blow,
    /// How often it was tried in vain, for each reason.
    missed: u32,
    outages: u32,
}

impl Case {
    /// Two changes of a status that come close together are written as one: how many writes there are is a matter of time, and so is how
    /// often something is read, and whether a stage that is soon over tells of its steps at all.
    fn may_be_absent(&self) -> bool {
        let tells = self.write.ends_with("/status");
        let may_be_silent = !self.stage.makes() && (tells || self.write.ends_with("/events"));
        self.number > 1 && (tells || self.place == Place::Reads) || may_be_silent
    }

    /// An operator remembers what it has read of users' Secrets: only one that has just started reads for a create.
    pub fn needs_a_start(&self) -> bool {
        self.place == Place::Reads && self.stage == Stage::Create
    }

    fn words(&self) -> String {
        let of = if self.place == Place::Reads { "reading " } else { "" };
        format!("{of}{}", self.blow.words())
    }

    pub fn new((stage, place): (Stage, Place), write: &str, number: usize, blow: Blow) -> Self {
        Self {
            stage,
            place,
            write: write.to_owned(),
            number,
            blow,
            missed: 0,
            outages: 0,
        }
    }
}

/// Every write of a stage with every blow, and every reading where something is made.
fn of_stage(subject: Subject, stage: Stage, run: &Run) -> VecDeque<Case> {
    let mut all = VecDeque::new();
    let reads = stage.makes().then_some((&Place::Reads, &run.reads));
    for (place, writes) in run.sure.iter().chain(reads) {
        let spoilt = writes
            .iter()
            .enumerate()
            .filter(|(_, write)| subject.spoils(*place, write));
        for (index, write) in spoilt {
            let number = writes[..=index].iter().filter(|other| *other == write).count();
            let case = |blow| Case::new((stage, *place), write, number, blow);
            all.extend(Blow::all(subject, *place, write, number).into_iter().map(case));
        }
    }
    all
}

/// What is left to try, and what was.
pub struct Todo {
    left: Mutex<BTreeMap<Stage, VecDeque<Case>>>,
    done: Mutex<BTreeMap<String, usize>>,
    /// How many were given up since their write did not come.
    absent: AtomicUsize,
    pub total: usize,
}

impl Todo {
    pub fn new(subject: Subject, normal: &[Run]) -> Self {
        let stages = subject.stages().iter().zip(normal);
        let left: BTreeMap<_, _> = stages
            .map(|(stage, run)| (*stage, of_stage(subject, *stage, run)))
            .collect();
        Self {
            total: left.values().map(VecDeque::len).sum(),
            left: Mutex::new(left),
            done: Mutex::default(),
            absent: AtomicUsize::new(0),
        }
    }

    /// One case of each stage that has some left.
    pub fn next(&self) -> BTreeMap<Stage, Case> {
        let mut left = self.left.lock().unwrap();
        let next = |(stage, cases): (&Stage, &mut VecDeque<Case>)| Some((*stage, cases.pop_front()?));
        left.iter_mut().filter_map(next).collect()
    }

    /// It was not its turn.
    pub fn put_back(&self, cases: impl IntoIterator<Item = Case>) {
        let mut left = self.left.lock().unwrap();
        for case in cases {
            left.entry(case.stage).or_default().push_front(case);
        }
    }

    /// It has to be tried again, but not for ever.
    pub fn again(&self, mut case: Case, why: Vain) -> Result<(), String> {
        let times = match why {
            Vain::Missed => &mut case.missed,
            Vain::Outage(_) => &mut case.outages,
        };
        *times += 1;
        if *times < TRIES {
            self.left.lock().unwrap().entry(case.stage).or_default().push_back(case);
        } else if why == Vain::Missed && case.may_be_absent() {
            self.absent.fetch_add(1, Ordering::Relaxed);
        } else {
            return Err(format!("{why:?} in {TRIES} tries: {case:?}"));
        }
        Ok(())
    }

    pub fn did(&self, case: &Case) {
        *self.done.lock().unwrap().entry(case.words()).or_default() += 1;
    }

    pub fn tried(&self) -> usize {
        self.done.lock().unwrap().values().sum()
    }

    pub fn absent(&self) -> usize {
        self.absent.load(Ordering::Relaxed)
    }

    /// How many writes each blow was done to.
    pub fn words(&self) -> String {
        let done = self.done.lock().unwrap();
        let each: Vec<String> = done.iter().map(|(blow, count)| format!("{blow} {count}")).collect();
        each.join(", ")
    }
}
