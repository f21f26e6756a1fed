//! What the doctor finds while the screen is looked at: rules and settings are read now and then, the rest is what
//! was watched.

use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

use ctwatch_abi::NetnsId;
use jiff::Timestamp;
use tokio::time::Instant;

use super::super::past::{as_read, case, report};
use crate::{
    diagnosis::{
        self,
        report::{Finding, Report},
    },
    model::Snapshot,
    observe::surveyor::{Looking, Surveyor},
    record::{facts::Facts, sample::Sample, session::Header},
    recording::mask::Mask,
};

/// Findings are looked for anew no sooner.
const AGAIN: Duration = Duration::from_secs(3);

pub(super) struct Doctoring {
    /// What it takes to look, of the life that is watched.
    pub(super) looking: Rc<Cell<Option<Looking>>>,
    known: Option<Looking>,
    surveyor: Option<Surveyor>,
    facts: Option<Box<Facts>>,
    mask: Option<Mask>,
    found: Option<FoundNow>,
    /// Why there is nothing.
    pub(super) why: String,
}

/// What was found last.
struct FoundNow {
    all: Report,
    /// Of one namespace, and of the host.
    about: Option<(NetnsId, Vec<Finding>)>,
    at: Instant,
}

impl Doctoring {
    pub(super) fn new(mask: Option<Mask>) -> Self {
        Self {
            looking: Rc::default(),
            known: None,
            surveyor: None,
            facts: None,
            mask,
            found: None,
            why: "looking at rules and settings".to_owned(),
        }
    }

    /// Facts of a recording.
    pub(super) fn recorded(&mut self, facts: Option<&(Timestamp, Box<Facts>)>) {
        match facts {
            Some((_, facts)) => self.facts = Some(facts.clone()),
            None => self.why = "the recording holds no rules and settings".to_owned(),
        }
    }

    /// Once a tick. It looks only where somebody wants to know.
    pub(super) fn look(&mut self, is_wanted: bool, is_urgent: bool) {
        if let Some(looking) = self.looking.take() {
            self.known = Some(looking);
            self.surveyor = None;
        }
        if is_wanted && self.surveyor.is_none() {
            self.surveyor = self.known.clone().map(Surveyor::new);
        }
        let Some(surveyor) = &mut self.surveyor else { return };
        match surveyor.look(is_urgent) {
            Ok(Some(found)) => match &mut self.mask {
                None => self.facts = Some(found.facts),
                Some(mask) => match mask.facts(*found.facts) {
                    Ok(facts) => self.facts = Some(Box::new(facts)),
                    Err(why) => self.why = format!("rules cannot be masked: {why:#}"),
                },
            },
            Ok(None) => return,
            Err(why) => self.why = format!("rules and settings cannot be read: {why:#}"),
        }
        self.found = None;
    }

    /// Whether it has to be looked for anew.
    pub(super) fn is_due(&self, netns: Option<NetnsId>) -> bool {
        let is_known = |found: &FoundNow| {
            found.at.elapsed() < AGAIN && found.about.as_ref().map(|(netns, _)| *netns) == netns
        };
        self.facts.is_some() && !self.found.as_ref().is_some_and(is_known)
    }

    pub(super) fn find(
        &mut self,
        header: &Header,
        snapshot: &Snapshot,
        sample: Option<&Sample>,
        netns: Option<NetnsId>,
    ) {
        let Some(facts) = &self.facts else { return };
        let facts = as_read(facts.as_ref().clone(), snapshot, sample);
        let census = snapshot.census.as_ref().and_then(|(taken, age)| {
            Some((Arc::clone(taken), snapshot.time.checked_sub(*age).ok()?))
        });
        let about = netns.map(|netns| {
            let taken = census.as_ref().map(|(taken, _)| taken.as_ref());
            (netns, diagnosis::findings_about(&case(snapshot, taken, &facts), netns))
        });
        let all = report(header, snapshot, census, &facts);
        self.found = Some(FoundNow { all, about, at: Instant::now() });
        if self.findings().is_empty() {
            self.why = "nothing is found".to_owned();
        }
    }

    /// Of everything.
    pub(super) fn report(&self) -> Option<&Report> {
        self.found.as_ref().map(|found| &found.all)
    }

    /// Of what the screen is narrowed to.
    pub(super) fn findings(&self) -> &[Finding] {
        let Some(found) = &self.found else { return &[] };
        found.about.as_ref().map_or(&found.all.findings, |(_, findings)| findings)
    }
}
