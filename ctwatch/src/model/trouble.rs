//! What is wrong with a table at a reading, and since when.
//!
//! Which drops make an incident: a packet that is dropped for want of room (a full table, no memory, a
//! chain that is too long) is one by itself, because the next one fares no better; a lost clash, a tuple of
//! NAT's that was just taken and a verdict of a protocol's tracker hit single packets on any busy host, so
//! those make one only when there are [`Criteria::many`] of them, and then whatever the reason.

use std::time::Duration;

use super::{
    Table,
    incident::{Cause, Happened, Stage, Tick, least},
    planes::ControlPlane,
};

/// One packet of these is an incident.
const WANT_OF_ROOM: [&str; 3] = ["table_full", "no_memory", "chain_too_long"];
/// It takes many of these.
const STRAYS: [&str; 3] = ["clash", "nat_exhausted", "tracker"];

/// What begins an incident, and what ends it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Criteria {
    /// It ends after so long without trouble. Where nobody watched for longer, it has ended too.
    pub quiet: Duration,
    /// So many dropped packets within that time begin one, for whatever reason.
    pub many: u64,
    /// From this fill on, a table begins one that will be full sooner than this.
    pub fill: f64,
    pub full_within: Duration,
}

impl Default for Criteria {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self { quiet: minute, many: 10, fill: 0.8, full_within: minute }
    }
}

impl Criteria {
    /// Where tables are read so seldom: with one reading in the time of quiet, each would begin anew.
    #[must_use]
    pub fn read_every(self, interval: Duration) -> Self {
        Self { quiet: self.quiet.max(interval.saturating_mul(2)), ..self }
    }
}

/// What a table had come to at a reading.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    /// When it was read; `None`: at the first reading, before which nobody watched.
    pub(super) at: Option<Tick>,
    pub(super) totals: Happened,
    pub(super) planes: Vec<ControlPlane>,
}

/// Where an incident begins, if it becomes one.
#[derive(Clone, Debug)]
pub(super) struct Start {
    pub(super) at: Tick,
    /// What came since is of it.
    pub(super) before: Standing,
    pub(super) entries: Option<u32>,
    pub(super) limit: Option<u32>,
}

#[derive(Clone, Debug)]
pub(super) struct Trouble {
    pub(super) stage: Stage,
    pub(super) cause: Cause,
    pub(super) start: Start,
}

impl Standing {
    pub(super) fn of(table: &Table, now: Tick) -> Self {
        let (totals, planes) = (Happened::in_all(table), table.control_plane.clone());
        Self { at: Some(now), totals, planes }
    }

    /// As far as the reading before does not know better.
    pub(super) fn after(self, before: &Self, table: &Table) -> Self {
        // What was not read this time is of the last time.
        let at = if table.age.is_zero() { self.at } else { before.at };
        Self { at, totals: self.totals.not_before(&before.totals), ..self }
    }

    /// Before this one, which is the first of the table: it is new, unless nobody watched before.
    pub(super) fn before(first: &Self, last: Option<Tick>) -> Self {
        match last {
            Some(_) => Self { at: last, totals: first.totals.none_of(), planes: Vec::new() },
            None => Self { at: None, ..first.clone() },
        }
    }
}

/// What is wrong with the table, and since when. `strays`: the first of drops that may become many.
pub(super) fn trouble(
    table: &Table,
    before: &Standing,
    now: &Standing,
    at: Tick,
    strays: &mut Option<Box<Start>>,
    criteria: Criteria,
) -> Option<Trouble> {
    let start = || Start { at, before: before.clone(), entries: table.entries, limit: table.limit };
    let totals = now.totals.as_far_as(&before.totals);
    let grew = |of: &dyn Fn(&Happened) -> u64| of(&totals) > of(&before.totals);
    let short = WANT_OF_ROOM
        .into_iter()
        .find(|reason| grew(&|totals: &Happened| totals.at_least(&[*reason])));
    let drops = grew(&Happened::certainly_dropped);
    if strays.as_ref().is_some_and(|first| at.after(first.at) > criteria.quiet) {
        *strays = None;
    }
    if drops && strays.is_none() {
        *strays = Some(Box::new(start()));
    }
    let are_many = |first: &Start| {
        let (now, before) = (now.totals.as_far_as(&first.before.totals), &first.before.totals);
        now.certainly_dropped().saturating_sub(before.certainly_dropped()) >= criteria.many
    };
    if let Some(reason) = short {
        // They are accounted for: a stray that follows is one.
        *strays = None;
        let cause = Cause::Dropped(reason);
        return Some(Trouble { stage: Stage::Dropping, cause, start: start() });
    }
    if let Some(first) = strays.take_if(|first| are_many(first)) {
        let cause = Cause::Dropped(reason(&now.totals, &first.before.totals));
        return Some(Trouble { stage: Stage::Dropping, cause, start: *first });
    }
    // Where it was not read this time, nothing has come into it since, and what pressed it is over.
    let is_fresh = table.age.is_zero();
    if is_full(table) || table.saturated && is_fresh {
        return Some(Trouble { stage: Stage::Full, cause: Cause::Full, start: start() });
    }
    let soon = table.time_to_full_s.is_some_and(|s| s < criteria.full_within.as_secs_f64());
    let is_near = table.fill.is_some_and(|fill| fill >= criteria.fill);
    (soon && is_near && is_fresh).then(|| Trouble {
        stage: Stage::Filling,
        cause: Cause::Filling,
        start: start(),
    })
}

/// For which reason most were certainly dropped.
fn reason(now: &Happened, before: &Happened) -> &'static str {
    let more = |now: u64, before: u64| now.saturating_sub(before);
    let of = |name| more(now.at_least(&[name]), before.at_least(&[name]));
    let apart = STRAYS.into_iter().chain(WANT_OF_ROOM).map(|name| (of(name), name));
    let both = |totals: &Happened| least(&totals.drops.clash_or_nat_exhausted);
    let both = (more(both(now), both(before)), "clash_or_nat_exhausted");
    // Of as many, the one that says more.
    let most = apart.chain([both]).rev().max_by_key(|(count, _)| *count);
    most.filter(|(count, _)| *count > 0).map_or("dropped", |(_, name)| name)
}

pub(super) fn is_full(table: &Table) -> bool {
    table.fill.is_some_and(|fill| fill >= 1.0)
}
