//! Censuses beside the readings, as often as they may be taken.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::{sync::oneshot, time::Instant};

use super::census::{CensusThread, Question, Way};
use crate::model::{
    Snapshot,
    census::{StateOf, Taken},
};

/// A census may take no more than this share of one CPU where a person watches.
const SHARE: u32 = 100;
/// And this, for the first one after a person asked for a state.
const ASKED_SHARE: u32 = 10;
/// And where a recorder does, which is always there.
const RECORDER_SHARE: u32 = 400;
/// Nobody reads faster than that.
const SOONEST: Duration = Duration::from_secs(1);

/// Of those that are taken now and then.
const SELDOM_SHARE: u32 = 1000;
const SELDOM: Duration = Duration::from_secs(600);

/// When a census is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// While a table is saturated.
    Saturated,
    /// Then, and now and then while none is: for whoever asks the next morning what it is made of.
    NowAndThen,
    /// As often as may be.
    Always,
    /// Once, before the last reading.
    Last,
}

/// Which census, and when.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub when: When,
    pub way: Way,
    /// Namespaces are known by their cookies.
    pub cookies: bool,
    pub question: Question,
}

pub(super) struct Schedule {
    wanted: Option<Wanted>,
    when: Option<When>,
    census: Option<CensusThread>,
    answer: Option<oneshot::Receiver<Result<Taken>>>,
    due: Instant,
    /// And this, for the first one of a table that has just filled.
    soon: Instant,
    /// The last one was asked for while a table was saturated.
    of_saturated: bool,
    /// And this, while no table is saturated.
    seldom: Instant,
    /// And this, for the first one after a person asked for a state.
    asked: Instant,
    /// Who holds the entries in this state is to be counted too.
    focus: Option<StateOf>,
    /// No census has looked for it yet.
    is_new_focus: bool,
    /// Why it cannot be taken at all.
    failed: Option<anyhow::Error>,
    /// The one before the last reading was asked for.
    is_last: bool,
}

impl Schedule {
    pub(super) fn new(wanted: Option<Wanted>) -> Self {
        let when = wanted.as_ref().map(|wanted| wanted.when);
        let due = Instant::now();
        let (census, answer, failed) = (None, None, None);
        let (soon, seldom, asked, of_saturated) = (due, due, due, false);
        Self {
            wanted,
            when,
            census,
            answer,
            due,
            soon,
            of_saturated,
            seldom,
            asked,
            focus: None,
            is_new_focus: false,
            failed,
            is_last: false,
        }
    }

    /// From now on, who holds the entries in this state is counted too.
    pub(super) fn focus(&mut self, of: Option<StateOf>) {
        self.is_new_focus = of.is_some() && (self.is_new_focus || of != self.focus);
        self.focus = of;
    }

    /// Asks for one where it is wanted and due.
    pub(super) fn look(&mut self, snapshot: &Snapshot) {
        let is_saturated = snapshot.tables.iter().any(|t| t.saturated && t.is_judged);
        let is_wanted = match self.when {
            Some(When::Saturated) => is_saturated,
            Some(When::NowAndThen) => is_saturated || Instant::now() >= self.seldom,
            Some(When::Always) => true,
            Some(When::Last) | None => false,
        };
        self.of_saturated &= is_saturated;
        let due = match () {
            () if self.is_new_focus => self.asked,
            () if is_saturated && !self.of_saturated => self.soon,
            () => self.due,
        };
        if is_wanted && self.answer.is_none() && Instant::now() >= due {
            self.of_saturated = is_saturated;
            self.ask();
        }
    }

    /// Asks for the one before the last reading; whether there is one to wait for.
    pub(super) fn before_last(&mut self) -> bool {
        if self.when == Some(When::Last) {
            self.when = None;
            self.is_last = true;
            self.ask();
        }
        self.is_last && (self.answer.is_some() || self.failed.is_some())
    }

    fn ask(&mut self) {
        if let Some(Wanted { way, cookies, question, .. }) = self.wanted.take() {
            match CensusThread::start(way, cookies, question) {
                Ok(census) => self.census = Some(census),
                Err(error) => self.failed = Some(error),
            }
        }
        self.is_new_focus = false;
        self.answer = self.census.as_ref().and_then(|census| census.ask(self.focus).ok());
    }

    /// Waits for the one that was asked for. After a failure there is no other.
    pub(super) async fn done(&mut self) -> Result<Taken> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let Some(answer) = &mut self.answer else { return std::future::pending().await };
        let answer = answer.await;
        self.answer = None;
        let taken = answer.context("the thread of the census has ended").flatten();
        match &taken {
            Ok(taken) => {
                let now = Instant::now();
                let share = match self.when {
                    Some(When::NowAndThen) => RECORDER_SHARE,
                    _ => SHARE,
                };
                self.due = now + (taken.cpu * share).max(SOONEST);
                self.soon = now + (taken.cpu * SHARE).max(SOONEST);
                self.asked = now + (taken.cpu * ASKED_SHARE).max(SOONEST);
                self.seldom = now + (taken.cpu * SELDOM_SHARE).max(SELDOM);
            }
            Err(_) => self.census = None,
        }
        taken
    }
}
