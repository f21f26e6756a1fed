//! From snapshots to incidents: what happened at three in the morning. Pure.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashSet},
    sync::{Arc, Weak},
};

use ctwatch_abi::{NetnsId, top::Stream};

use super::{
    Snapshot, Table,
    census::Taken,
    figure::{Bounds, Exactness},
    incident::{
        AtPeak, Ending, Happened, Incident, LastCensus, PeakEntries, PlaneDrops, Stage, Tick, least,
    },
    planes::ControlPlane,
    top::{TopEntry, TopList},
    trouble::{Criteria, Standing, Start, Trouble, is_full, trouble},
};

/// So many are followed at a time; others are counted.
pub const MOST_OPEN: usize = 64;
/// Of each list, so many entries are kept.
const MOST_LISTED: usize = 5;

/// What a look at a snapshot found.
#[derive(Clone, Debug)]
pub enum Turn {
    Began(Incident),
    /// It went further than before: a table that was filling is full, or drops.
    Grew(Incident),
    Ended(Incident),
}

/// All incidents of one life of the table.
#[derive(Clone, Debug)]
pub struct Incidents {
    /// What each id begins with.
    life: String,
    epoch: u32,
    criteria: Criteria,
    last: Option<Tick>,
    /// As many as there are namespaces, and those that have just gone.
    watched: BTreeMap<NetnsId, Watched>,
    /// Over, without ever having had room.
    untold: u64,
}

/// One table.
#[derive(Clone, Debug)]
struct Watched {
    last: Standing,
    /// The first of drops that may become many.
    strays: Option<Box<Start>>,
    phase: Phase,
    is_seen: bool,
}

#[derive(Clone, Debug)]
enum Phase {
    Quiet,
    Open(Box<Open>),
    /// There was no room for it; with what it began, and when it was last seen.
    Untold(Box<Trouble>, Tick),
}

#[derive(Clone, Debug)]
struct Open {
    incident: Incident,
    before: Standing,
    /// The one that was last taken in.
    census: Weak<Taken>,
}

impl Incidents {
    /// `epoch` is the life of the table that the snapshots are of.
    pub fn new(boot_id: Option<&str>, epoch: u32, criteria: Criteria) -> Self {
        // A recording is written by others: what is no boot id would have to be escaped everywhere.
        let is_one = |id: &&str| {
            (1..=36).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
        };
        Self {
            life: format!("{}-{epoch}", boot_id.filter(is_one).unwrap_or("unknown")),
            epoch,
            criteria,
            last: None,
            watched: BTreeMap::new(),
            untold: 0,
        }
    }

    /// Takes in the next snapshot. The first is the start: what was before it is of no incident.
    pub fn look(&mut self, snapshot: &Snapshot) -> Vec<Turn> {
        let now = Tick { time: snapshot.time, elapsed: snapshot.elapsed };
        let (criteria, last) = (self.criteria, self.last.replace(now));
        let mut turns = Vec::new();
        if last.is_some_and(|last| now.after(last) > criteria.quiet) {
            turns.extend(self.end_all(Ending::Unwatched).into_iter().map(Turn::Ended));
        }
        let mut waiting = Vec::new();
        for table in &snapshot.tables {
            if let Some(watched) = self.watched.get_mut(&table.id)
                && watched.is_as_it_was(table)
            {
                watched.is_seen = true;
                continue;
            }
            let standing = Standing::of(table, now);
            let watched = self.watched.entry(table.id).or_insert_with(|| Watched {
                last: Standing::before(&standing, last),
                strays: None,
                phase: Phase::Quiet,
                is_seen: true,
            });
            watched.is_seen = true;
            let standing = standing.after(&watched.last, table);
            if !table.is_judged {
                // Whose it is may be found out late, so it is known what it had come to by then.
                let phase = std::mem::replace(&mut watched.phase, Phase::Quiet);
                self.untold += u64::from(phase.is_untold());
                turns.extend(phase.end(Ending::Gone, None).map(Turn::Ended));
                (watched.last, watched.strays) = (standing, None);
                continue;
            }
            let Watched { last: before, strays, .. } = watched;
            let trouble = trouble(table, before, &standing, now, strays, criteria);
            let is_quiet = trouble.is_none() && !table.is_unknown();
            match &mut watched.phase {
                Phase::Open(open) => {
                    if let Some(trouble) = trouble {
                        let grew = open.go_on(snapshot, table, &standing, now, trouble.stage);
                        turns.extend(grew.then(|| Turn::Grew(open.incident.clone())));
                    } else if is_quiet {
                        open.rest(now);
                    }
                    open.take_census(snapshot, table);
                    let since = open.incident.last;
                    if table.is_gone || is_quiet && now.after(since) >= criteria.quiet {
                        let ending = if table.is_gone { Ending::Gone } else { Ending::Quiet };
                        let ended = std::mem::replace(&mut watched.phase, Phase::Quiet);
                        turns.extend(ended.end(ending, Some(now)).map(Turn::Ended));
                    }
                }
                Phase::Untold(first, seen) => match trouble {
                    Some(trouble) => {
                        (*seen, first.stage) = (now, first.stage.max(trouble.stage));
                        waiting.push((table, (**first).clone()));
                    }
                    None if table.is_gone || is_quiet && now.after(*seen) >= criteria.quiet => {
                        watched.phase = Phase::Quiet;
                        self.untold += 1;
                    }
                    None => {}
                },
                Phase::Quiet => waiting.extend(trouble.map(|trouble| (table, trouble))),
            }
            watched.last = standing;
        }
        turns.extend(self.begin(snapshot, waiting, now));
        turns.extend(self.sweep(snapshot, now).into_iter().map(Turn::Ended));
        turns
    }

    /// As many of them as there is room for, the worst first.
    fn begin(
        &mut self,
        snapshot: &Snapshot,
        mut waiting: Vec<(&Table, Trouble)>,
        now: Tick,
    ) -> Vec<Turn> {
        let mut turns = Vec::new();
        if waiting.is_empty() {
            return turns;
        }
        let fill = |table: &Table| table.fill.unwrap_or(0.0);
        waiting.sort_by(|(a, one), (b, other)| {
            let badness = |table: &Table, trouble: &Trouble| {
                let happened = Happened::in_all(table).since(&trouble.start.before.totals);
                Reverse((trouble.stage, happened.certainly_dropped()))
            };
            let order = badness(a, one).cmp(&badness(b, other));
            order.then(fill(b).total_cmp(&fill(a))).then(a.id.cmp(&b.id))
        });
        let open = self.watched.values().filter(|watched| watched.phase.is_open()).count();
        let mut room = MOST_OPEN.saturating_sub(open);
        for (table, trouble) in waiting {
            let Some(watched) = self.watched.get_mut(&table.id) else { continue };
            if room == 0 {
                watched.phase = match table.is_gone {
                    false => Phase::Untold(Box::new(trouble), now),
                    true => {
                        self.untold += 1;
                        Phase::Quiet
                    }
                };
                continue;
            }
            let mut open = Open::new(&self.life, self.epoch, table, &trouble);
            open.go_on(snapshot, table, &watched.last, now, trouble.stage);
            open.take_census(snapshot, table);
            turns.push(Turn::Began(open.incident.clone()));
            let phase = Phase::Open(Box::new(open));
            if table.is_gone {
                turns.extend(phase.end(Ending::Gone, Some(now)).map(Turn::Ended));
                watched.phase = Phase::Quiet;
            } else {
                watched.phase = phase;
                room -= 1;
            }
        }
        turns
    }

    /// Tables that are spoken of no more. One that has gone and may come back keeps its totals, so that
    /// what it had come to is not counted again.
    fn sweep(&mut self, snapshot: &Snapshot, now: Tick) -> Vec<Incident> {
        let departed: HashSet<NetnsId> = snapshot.departed.iter().map(|table| table.id).collect();
        let mut ended = Vec::new();
        let untold = &mut self.untold;
        self.watched.retain(|id, watched| {
            if std::mem::take(&mut watched.is_seen) {
                return true;
            }
            watched.strays = None;
            let phase = std::mem::replace(&mut watched.phase, Phase::Quiet);
            *untold += u64::from(phase.is_untold());
            ended.extend(phase.end(Ending::Gone, Some(now)));
            departed.contains(id)
        });
        ended
    }

    fn end_all(&mut self, ending: Ending) -> Vec<Incident> {
        let mut ended = Vec::new();
        for watched in self.watched.values_mut() {
            watched.strays = None;
            let phase = std::mem::replace(&mut watched.phase, Phase::Quiet);
            self.untold += u64::from(phase.is_untold());
            ended.extend(phase.end(ending, None));
        }
        ended
    }

    /// Those that are left when there is nothing more to look at: [`Ending::Open`] at the end of watching,
    /// [`Ending::Unloaded`] at the end of a life of the table.
    pub fn finish(&mut self, ending: Ending) -> Vec<Incident> {
        self.end_all(ending)
    }

    /// Those that go on, or have not been quiet for long enough.
    pub fn open(&self) -> impl Iterator<Item = &Incident> {
        self.watched.values().filter_map(|watched| match &watched.phase {
            Phase::Open(open) => Some(&open.incident),
            _ => None,
        })
    }

    /// Incidents that only a count is kept of, because there were [`MOST_OPEN`] others.
    pub fn untold(&self) -> u64 {
        let now = self.watched.values().filter(|watched| watched.phase.is_untold()).count();
        self.untold.saturating_add(now as u64)
    }
}

impl Watched {
    /// It was not read since, and nothing is wrong with it: a tick costs what changed.
    fn is_as_it_was(&self, table: &Table) -> bool {
        !table.age.is_zero() && !is_full(table) && matches!(self.phase, Phase::Quiet)
    }
}

impl Phase {
    fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }

    fn is_untold(&self) -> bool {
        matches!(self, Self::Untold(..))
    }

    /// `over`: when it was seen to be.
    fn end(self, ending: Ending, over: Option<Tick>) -> Option<Incident> {
        let Self::Open(open) = self else { return None };
        let mut incident = open.incident;
        incident.ending = ending;
        incident.over = incident.over.or(over);
        Some(incident)
    }
}

impl Open {
    fn new(life: &str, epoch: u32, table: &Table, trouble: &Trouble) -> Self {
        let Trouble { stage, cause, start } = trouble;
        let begin = start.at;
        let at = begin.time.strftime("%Y%m%dT%H%M%S%.3fZ");
        let incident = Incident {
            id: format!("{life}-{}-{at}", table.id),
            epoch,
            netns: table.id,
            inode: table.inode,
            name: table.name.clone(),
            workload: table.workload.clone(),
            owner: table.owner.clone(),
            begin,
            begin_after: start.before.at,
            last: begin,
            over: None,
            ending: Ending::Open,
            cause: *cause,
            stage: *stage,
            was_full: false,
            limit: start.limit,
            entries: start.entries,
            peak: start.entries.map(|entries| peak(begin, entries, start.limit)),
            happened: start.before.totals.since(&start.before.totals),
            control_plane: Vec::new(),
            tops: Vec::new(),
            census: None,
        };
        Self { incident, before: start.before.clone(), census: Weak::new() }
    }

    /// It is still in trouble. Whether it went further than ever before.
    fn go_on(
        &mut self,
        snapshot: &Snapshot,
        table: &Table,
        standing: &Standing,
        now: Tick,
        stage: Stage,
    ) -> bool {
        let incident = &mut self.incident;
        let happened = standing.totals.since(&self.before.totals);
        (incident.last, incident.over) = (now, None);
        // An entry is evicted, and a packet dropped for a full table, only where it is full.
        incident.was_full |= is_full(table)
            || happened.at_least(&["table_full"]) > 0
            || least(&happened.early_drop) > 0;
        incident.happened = happened;
        incident.control_plane = planes(&standing.planes, &self.before.planes);
        incident.inode = table.inode;
        incident.owner.clone_from(&table.owner);
        // A namespace that has gone has no name any more.
        if table.name.is_some() {
            incident.name.clone_from(&table.name);
            incident.workload.clone_from(&table.workload);
        }
        if let Some(entries) = table.entries
            && incident.peak.is_none_or(|peak| entries > peak.entries)
        {
            incident.peak = Some(peak(now, entries, table.limit));
        }
        // What was not read this time has no rates of its own.
        if table.age.is_zero() {
            for stream in Stream::ALL {
                self.take_lists(snapshot, table, stream, now);
            }
        }
        let incident = &mut self.incident;
        let grew = stage > incident.stage;
        incident.stage = incident.stage.max(stage);
        grew
    }

    fn rest(&mut self, now: Tick) {
        self.incident.over.get_or_insert(now);
    }

    /// Those of the moment in which most happened; until anything is known to happen, the last.
    fn take_lists(&mut self, snapshot: &Snapshot, table: &Table, stream: Stream, now: Tick) {
        let of_it = table.top.iter().filter(|list| list.stream == stream);
        let lists: Vec<TopList> = of_it.filter_map(first).collect();
        let per_s = match stream {
            Stream::Drops => table.drops.table_full.per_s,
            Stream::Insertions => table.insertions.per_s,
        };
        let per_s = per_s.unwrap_or(0.0);
        let tops = &mut self.incident.tops;
        let is_less =
            |kept: &AtPeak| kept.stream == stream && kept.per_s > 0.0 && kept.per_s >= per_s;
        if lists.is_empty() || tops.iter().any(is_less) {
            return;
        }
        let since = snapshot.lists_since.iter().find(|(of, _)| *of == stream);
        let since = since.map(|(_, since)| *since);
        tops.retain(|kept| kept.stream != stream);
        tops.push(AtPeak { stream, at: now, since, per_s, lists });
        tops.sort_by_key(|kept| kept.stream as u32);
    }

    fn take_census(&mut self, snapshot: &Snapshot, table: &Table) {
        let Some((taken, age)) = &snapshot.census else { return };
        let newest = Arc::downgrade(taken);
        if newest.ptr_eq(&self.census) {
            return;
        }
        self.census = newest;
        let Some(census) = taken.counted.table(table.id) else { return };
        let Ok(time) = snapshot.time.checked_sub(*age) else { return };
        let is_torn = taken.kernel.iter().any(|count| count.netns == table.id && count.is_torn);
        let mut top: Vec<_> = taken.counted.lists(table.id).cloned().collect();
        top.iter_mut().for_each(|list| list.entries.truncate(MOST_LISTED));
        let (by, holds) = (taken.by.clone(), census.holds);
        self.incident.census = Some(LastCensus { by, time, holds, is_torn, top });
    }
}

fn peak(at: Tick, entries: u32, limit: Option<u32>) -> PeakEntries {
    let fill = limit.filter(|limit| *limit > 0);
    let fill = fill.map(|limit| f64::from(entries) / f64::from(limit));
    PeakEntries { at, entries, limit, fill }
}

/// The first entries of a list: of those who do something now, where there are any.
fn first(list: &TopList) -> Option<TopList> {
    let is_active = |entry: &&TopEntry| entry.per_s.is_some_and(|per_s| per_s > 0.0);
    let mut entries: Vec<TopEntry> =
        list.entries.iter().filter(is_active).take(MOST_LISTED).cloned().collect();
    if entries.is_empty() {
        entries = list.entries.iter().take(MOST_LISTED).cloned().collect();
    }
    (!entries.is_empty()).then_some(TopList { entries, ..*list })
}

/// Control planes of which packets were certainly dropped since.
fn planes(now: &[ControlPlane], before: &[ControlPlane]) -> Vec<PlaneDrops> {
    let bounds = |plane: &ControlPlane| match plane.exactness {
        Exactness::Exact => Bounds::exactly(plane.at_least),
        _ => Bounds::at_least(plane.at_least),
    };
    let since = |plane: &ControlPlane| {
        let then = before.iter().find(|then| then.protocol == plane.protocol);
        let then =
            then.map_or_else(|| bounds(&ControlPlane { at_least: 0, ..plane.clone() }), bounds);
        let dropped = bounds(plane).since(then, true).figure(None, None);
        PlaneDrops { protocol: plane.protocol, dropped }
    };
    let mut planes: Vec<PlaneDrops> = now.iter().map(since).collect();
    planes.retain(|plane| least(&plane.dropped) > 0);
    planes.sort_by_key(|plane| Reverse(least(&plane.dropped)));
    planes
}
