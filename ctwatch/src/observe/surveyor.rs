//! The doctor's look, again and again: rules and settings are compared, and what changed is told.

use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::{sampler::Scope, survey::survey, wanted::Whose};
use crate::{
    host::{
        netfilter::rule_news::{Changer, RuleListener, RuleNews},
        netns::visit::Source,
    },
    model::changes::changes,
    record::facts::Facts,
    threads,
};

/// How often it is looked; and so many times as long as a look takes lie between two.
const EVERY: Duration = Duration::from_secs(60);
const SHARE: u32 = 500;
/// No sooner, whatever happens.
const SOONEST: Duration = Duration::from_secs(10);

/// What a look takes.
#[derive(Clone, Debug)]
pub struct Looking {
    pub scope: Scope,
    pub whose: Whose,
    pub source: Source,
    pub cookies: bool,
    /// No option says which namespaces: then what is not looked into lacks a privilege.
    pub is_any: bool,
}

/// Facts that are not as they were.
pub struct Found {
    pub facts: Box<Facts>,
    /// Since when it may have changed; `None`: they are the first, or nothing changed.
    pub since: Option<Timestamp>,
    pub until: Timestamp,
    pub what: Vec<String>,
}

pub struct Surveyor {
    looking: Looking,
    last: Option<(Box<Facts>, Timestamp)>,
    asked: Option<(oneshot::Receiver<Result<Facts>>, Timestamp, Instant)>,
    due: Instant,
    soonest: Instant,
    /// And no sooner only because rules were changed.
    on_news: Instant,
    is_urgent: bool,
    /// What is found is told, changed or not.
    tells_all: bool,
    /// Why there is none; said once.
    failed: bool,
    /// Who changes rules here; `None`: that is not seen.
    listener: Option<RuleListener>,
    heard: RuleNews,
}

impl Surveyor {
    pub fn new(looking: Looking) -> Self {
        let (due, last, asked) = (Instant::now(), None, None);
        let (is_urgent, tells_all, failed) = (false, false, false);
        // Where it is not seen, what changed is found all the same.
        let listener = RuleListener::open().ok().flatten();
        let heard = RuleNews::default();
        Self {
            looking,
            last,
            asked,
            due,
            soonest: due,
            on_news: due,
            is_urgent,
            tells_all,
            failed,
            listener,
            heard,
        }
    }

    /// Whether rules were changed here since.
    fn listen(&mut self) -> bool {
        self.listener.as_mut().is_some_and(|listener| listener.hear(&mut self.heard))
    }

    /// What was found since. `urgent`: something happens for which it is worth a look now, and worth being
    /// told of though nothing changed.
    pub fn look(&mut self, urgent: bool) -> Result<Option<Found>> {
        // It may have to wait for its turn.
        self.is_urgent |= urgent;
        if self.listen() {
            self.due = self.due.min(self.on_news);
        }
        if self.asked.is_none() {
            let now = Instant::now();
            if now >= self.due || self.is_urgent && now >= self.soonest {
                self.tells_all = std::mem::take(&mut self.is_urgent);
                self.asked = Some((self.ask()?, Timestamp::now(), now));
            }
            return Ok(None);
        }
        let Some((answer, begun, at)) = &mut self.asked else { return Ok(None) };
        let facts = match answer.try_recv() {
            Err(TryRecvError::Empty) => return Ok(None),
            Err(TryRecvError::Closed) => anyhow::bail!("the thread of the survey has ended"),
            Ok(facts) => facts,
        };
        let (begun, took) = (*begun, at.elapsed());
        self.asked = None;
        self.due = Instant::now() + EVERY.max(took * SHARE);
        self.soonest = Instant::now() + SOONEST.max(took * SHARE / 10);
        self.on_news = Instant::now() + SOONEST.max(took * SHARE / 2);
        let facts = match facts {
            Ok(facts) => Box::new(facts),
            Err(_) if self.failed => return Ok(None),
            Err(error) => {
                self.failed = true;
                return Err(error);
            }
        };
        let before = self.last.take();
        let mut what = before.as_ref().map_or_else(Vec::new, |(last, _)| changes(last, &facts));
        let heard = std::mem::take(&mut self.heard);
        if before.is_some() {
            what.extend(by_whom(&facts, &heard));
        }
        let is_told = before.is_none() || self.tells_all || !what.is_empty();
        let since = before.map(|(_, since)| since).filter(|_| !what.is_empty());
        let until = Timestamp::now();
        let found = is_told.then(|| Found { facts: facts.clone(), since, until, what });
        self.last = Some((facts, begun));
        Ok(found)
    }

    fn ask(&self) -> Result<oneshot::Receiver<Result<Facts>>> {
        let Looking { scope, whose, source, cookies, is_any } = self.looking.clone();
        let (tell, answer) = oneshot::channel();
        threads::start("survey", move || {
            // Whoever asked may have gone.
            let _ = tell.send(survey(scope, whose, source, cookies, !is_any));
        })?;
        Ok(answer)
    }
}

/// Who changed rules of nftables in this process' own namespace: only there it is seen.
fn by_whom(facts: &Facts, heard: &RuleNews) -> Option<String> {
    let own = facts.namespaces.iter().find(|namespace| namespace.is_own)?;
    let each = heard.changers.iter().map(|Changer { pid, name }| format!("{name} (PID {pid})"));
    let mut all: Vec<String> = each.collect();
    if heard.is_cut {
        all.push("others that were not seen".to_owned());
    }
    let all = (!all.is_empty()).then(|| all.join(" and by "))?;
    Some(format!("{}: rules changed by {all}", own.called()))
}
