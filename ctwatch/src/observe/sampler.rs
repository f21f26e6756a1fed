//! One reading of everything: the namespaces, what the kernel says in each, what the probes
//! counted. Runs on a thread of its own, because entering a namespace changes the thread.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use ctwatch_abi::{
    MAX_NETNS, MAX_STRANGERS, NetnsId, NetnsTally,
    top::{By, Stream},
};
use tokio::sync::oneshot;

use super::{
    turns::{Read, Tallies, Turns, Weight},
    wanted::{Patterns, Whose},
};
use crate::{
    host::{
        kernel::cgroups::Cgroups,
        netns::{
            self, Finder, Netns, Target, owner,
            visit::{Reading, Source, Visit, Visitor},
        },
    },
    probe::running::Probes,
    record::{
        counters::Summing,
        netns_map::NetnsMap,
        sample::{Access, HookReadings, Idle, Owner, Probed, Sample, TableSample, TopCounts},
        workload::Workload,
    },
    threads,
};

/// Of each namespace, at most so many interfaces are looked up by name.
const MOST_INTERFACES: usize = 64;
const MOST_CGROUPS: usize = 1024;

/// Which namespaces are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    All,
    /// This process's own: what may be read without `CAP_SYS_ADMIN`.
    Own,
    One(Target),
    /// Those that were named, and those that are called like that, whenever they come; all, where
    /// it is only said which are not wanted.
    Some(Vec<Target>, Patterns),
}

/// What is needed to read.
pub struct Means {
    pub source: Source,
    pub probes: Option<Probes>,
    pub scope: Scope,
    pub whose: Whose,
    /// Those that are not judged are only told of: else whoever makes a thousand decides how long a
    /// reading takes.
    pub only_judged: bool,
    /// The programs name namespaces by cookie too, so both sides must.
    pub cookies: bool,
}

/// Asks the collecting thread for samples.
pub struct Collector {
    requests: mpsc::Sender<Request>,
    reads: Reads,
}

struct Request {
    whole: bool,
    insertions: bool,
    reply: oneshot::Sender<Result<Sample>>,
}

/// What a namespace is called that is being read.
type Reads = Arc<Mutex<Option<String>>>;

impl Collector {
    pub fn start(means: Means) -> Result<Self> {
        let (requests, inbox) = mpsc::channel::<Request>();
        let reads = Reads::default();
        let mut worker = Worker::new(means, Arc::clone(&reads));
        threads::start("collector", move || {
            let mut visitor = None;
            for Request { whole, insertions, reply } in inbox {
                // Whoever asked may have gone; there is nobody to tell.
                let _ = reply.send(worker.sample(&mut visitor, whole, insertions));
            }
        })?;
        Ok(Self { requests, reads })
    }

    /// The namespace that is being read, if one is.
    pub fn reads(&self) -> Option<String> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One that comes when it is there. `whole`: of all namespaces, and else of those in which
    /// anything happens, and of the others in turns. `insertions`: their lists are kept.
    pub fn request(
        &self,
        whole: bool,
        insertions: bool,
    ) -> Result<oneshot::Receiver<Result<Sample>>> {
        let (reply, answer) = oneshot::channel();
        let request = Request { whole, insertions, reply };
        self.requests.send(request).ok().context("the collecting thread has ended")?;
        Ok(answer)
    }
}

struct Worker {
    means: Means,
    started: Instant,
    /// What the namespaces that are still spoken of were called when they were last seen.
    names: NetnsMap<String>,
    /// And what lived in them, where that is known.
    workloads: HashMap<NetnsId, Workload>,
    /// And whose they are: that never changes. Kept where an id is never used again.
    owners: NetnsMap<Owner>,
    finder: Finder,
    /// The counters of each, summed.
    sums: Sums,
    /// What the last reading of each was, and which of them it is time to read.
    turns: Turns,
    /// Namespaces that the probes counted in and that were looked for in vain.
    hidden: HashSet<NetnsId>,
    /// What was counted in namespaces that made room for others.
    set_aside: SetAside,
    /// What was counted in those that nothing leads to, at the last sample.
    unseen: Tallies,
    /// Interfaces that are spoken of, by namespace.
    interfaces: HashMap<NetnsId, BTreeSet<u32>>,
    interface_names: HashMap<NetnsId, Interfaces>,
    cgroups: Cgroups,
    reads: Reads,
}

/// So many that nothing leads to are kept: each takes some memory here, and most are gone for good.
const MOST_UNSEEN: usize = 256;

/// What interfaces of one namespace are called, and when they were asked for that.
type Interfaces = BTreeMap<u32, (Duration, Option<String>)>;

/// An interface that is still spoken of may have another name by now.
const NAMED_FOR: Duration = Duration::from_secs(10);

/// Of the interfaces that are spoken of, those whose names are unknown or old.
fn to_ask(spoken_of: &BTreeSet<u32>, known: Option<&Interfaces>, now: Duration) -> Vec<u32> {
    let is_old = |index: &&u32| {
        let asked = known.and_then(|known| known.get(*index)).map(|(asked, _)| *asked);
        asked.is_none_or(|asked| now.saturating_sub(asked) >= NAMED_FOR)
    };
    spoken_of.iter().filter(is_old).copied().collect()
}

/// What is told of each namespace.
struct Rows {
    tables: Vec<TableSample>,
    idle: Vec<Idle>,
    /// What was surely told of those of `tables` and `idle` that nothing leads to.
    unseen: Tallies,
}

impl Worker {
    fn new(means: Means, reads: Reads) -> Self {
        Self {
            reads,
            turns: Turns::default(),
            means,
            started: Instant::now(),
            names: NetnsMap::default(),
            workloads: HashMap::new(),
            owners: NetnsMap::default(),
            sums: Sums::default(),
            finder: Finder::default(),
            hidden: HashSet::new(),
            set_aside: SetAside::default(),
            unseen: Tallies::default(),
            interfaces: HashMap::new(),
            interface_names: HashMap::new(),
            cgroups: Cgroups::default(),
        }
    }

    fn reads_now(&self, netns: Option<&Netns>) {
        *self.reads.lock().unwrap_or_else(PoisonError::into_inner) = netns.map(Netns::shown);
    }

    /// `whole`: of all namespaces, however little happens in them.
    fn sample(
        &mut self,
        visitor: &mut Option<Visitor>,
        whole: bool,
        insertions: bool,
    ) -> Result<Sample> {
        let visitor = match visitor {
            Some(visitor) => visitor,
            None => visitor.insert(Visitor::new(self.means.source)?),
        };
        self.take_back()?;
        if let Some(probes) = &mut self.means.probes {
            probes.ask(insertions)?;
        }
        let before = self.tallies();
        let mut everywhere = self.set_aside.everywhere(before.as_ref());
        if let Some(probes) = &self.means.probes {
            everywhere.add(&probes.strangers_rest());
        }
        let probes = self.means.probes.as_ref();
        // Before the lists: what those lack of it is in none.
        let told_apart = probes.map(Probes::told_apart).transpose()?.unwrap_or_default();
        let planes = probes.and_then(Probes::planes);
        let tops = self.tops(insertions);
        let cgroups = self.cgroups(&tops);
        let limit = visitor.bounds().limit();
        // What is in the lists by now is to be in the totals too.
        let by_now = self.tallies();
        let found = self.find(by_now.as_ref())?;
        let (found, others) = self.split(found);
        let now = self.started.elapsed();
        // Nobody else tells where something happens.
        let whole = whole || by_now.is_none();
        let due = self.turns.due(found, by_now.as_ref(), limit, now, whole);
        let mut visits = self.visit(visitor, due, now)?;
        // A process that led to one is gone: another may be in it.
        let is_lost =
            |(netns, visit): &(Netns, Visit)| matches!(visit, Visit::Gone) && netns.pid().is_some();
        let may_be_elsewhere = matches!(self.means.scope, Scope::All | Scope::Some(..));
        if visits.iter().any(is_lost) && may_be_elsewhere && self.finder.may_hurry() {
            let lost: HashSet<Netns> =
                visits.extract_if(.., |visit| is_lost(visit)).map(|(netns, _)| netns).collect();
            let inodes: HashSet<u32> = lost.iter().map(|netns| netns.inode).collect();
            let mut again = self.means.scope.among(&*self.finder.find(true)?);
            again.retain(|netns| inodes.contains(&netns.inode) && !lost.contains(netns));
            let (again, _) = self.split(again);
            visits.extend(self.visit(visitor, again, now)?);
        }
        let after = self.tallies();
        let elapsed = self.started.elapsed();
        let probes = self.means.probes.as_ref();
        let probed = probes.map(Probes::probed).transpose()?;
        let tallies = (before.as_ref(), by_now.as_ref(), after.as_ref());
        // Read, as far as anybody is told, when the sample was: then their age follows from two samples.
        let Rows { mut tables, idle, unseen } = self.tables(visits, tallies, elapsed, whole);
        tables.extend(others);
        self.make_room(unseen, after.as_ref())?;
        Ok(Sample {
            time: jiff::Timestamp::now(),
            elapsed,
            limit,
            buckets: visitor.bounds().buckets(),
            probed: probed.map(|probed| Probed { everywhere, ..probed }),
            tops,
            told_apart,
            planes,
            cgroups,
            tables,
            idle,
        })
    }

    fn visit(
        &mut self,
        visitor: &Visitor,
        due: Vec<Netns>,
        now: Duration,
    ) -> Result<Vec<(Netns, Visit)>> {
        let mut visits = Vec::with_capacity(due.len());
        for netns in due {
            self.reads_now(Some(&netns));
            let wanted = |cookie: Option<u64>| {
                let id = cookie.filter(|_| self.means.cookies).unwrap_or(netns.inode.into());
                let spoken_of = self.interfaces.get(&id);
                spoken_of.map_or_else(Vec::new, |spoken_of| {
                    to_ask(spoken_of, self.interface_names.get(&id), now)
                })
            };
            let visit = visitor.enter_next(&netns, || visitor.read_here(wanted));
            visits.push((visit, netns));
        }
        visitor.go_home()?;
        self.reads_now(None);
        visits.into_iter().map(|(visit, netns)| Ok((netns, visit?))).collect()
    }

    fn find(&mut self, counted: Option<&Tallies>) -> Result<Vec<Netns>> {
        let mut found = match self.means.scope {
            Scope::Own => return Ok(vec![netns::current()?]),
            Scope::All | Scope::One(_) | Scope::Some(..) => self.finder.find(false)?,
        };
        // The probes may know of a namespace before anybody here does. What is not found then
        // either is gone, or hidden for good. Those of strangers are found when it is time: else
        // they could have all processes looked through at each tick.
        let strange: Vec<NetnsId> = counted
            .into_iter()
            .flatten()
            .filter(|(id, tally)| {
                !tally.is_strangers()
                    && !found.contains_key(&tally.inode())
                    && !self.hidden.contains(*id)
            })
            .map(|(id, _)| *id)
            .collect();
        if !strange.is_empty() && self.finder.may_hurry() {
            found = self.finder.find(true)?;
            self.hidden.extend(strange);
        }
        if let Some(counted) = counted {
            self.hidden.retain(|id| counted.contains_key(id));
        }
        Ok(self.means.scope.among(&found))
    }

    /// Those that are to be read, and rows of those that are not.
    fn split(&self, found: Vec<Netns>) -> (Vec<Netns>, Vec<TableSample>) {
        if !self.means.only_judged || self.means.whose == Whose::All {
            return (found, Vec::new());
        }
        let (mut read, mut others) = (Vec::new(), Vec::new());
        for netns in found {
            let owner = owner::owner(&netns);
            if self.means.whose.judges(&owner) {
                read.push(netns);
            } else if self.means.whose.admits(&owner) {
                let why = anyhow::anyhow!("it is a stranger's, and was not looked into");
                others.push(refused_table(netns.inode.into(), netns, (false, owner), &why));
            }
        }
        (read, others)
    }

    /// And which interfaces they are about: their names are known inside their namespaces only.
    fn tops(&mut self, insertions: bool) -> Vec<TopCounts> {
        let mut tops = self.means.probes.as_ref().map(Probes::tops).unwrap_or_default();
        // What is not kept counts nothing, and is no empty list.
        tops.retain(|list| insertions || list.stream != Stream::Insertions);
        self.interfaces.clear();
        for list in tops.iter().filter(|list| list.by == By::Interface) {
            for count in &list.counts {
                let known = self.interfaces.entry(count.key.netns).or_default();
                if count.key.ifindex != 0 && known.len() < MOST_INTERFACES {
                    known.insert(count.key.ifindex);
                }
            }
        }
        tops
    }

    fn cgroups(&mut self, tops: &[TopCounts]) -> Vec<(u64, String)> {
        let processes = tops.iter().filter(|list| list.by == By::Process);
        let numbers: BTreeSet<u64> =
            processes.flat_map(|list| &list.counts).map(|count| count.key.cgroup()).collect();
        let named = numbers
            .into_iter()
            .take(MOST_CGROUPS)
            .filter_map(|number| self.cgroups.name(number).map(|name| (number, name.to_owned())));
        named.collect()
    }

    fn tallies(&self) -> Option<Tallies> {
        let mut tallies = self.means.probes.as_ref().map(Probes::tallies)?;
        self.set_aside.add_to(&mut tallies);
        Some(tallies)
    }

    /// A row for each namespace that was read, and for each that only the probes know: gone, or kept
    /// alive by something that does not show where it is. And those that are as they were.
    fn tables(
        &mut self,
        visits: Vec<(Netns, Visit)>,
        (before, by_now, after): (Option<&Tallies>, Option<&Tallies>, Option<&Tallies>),
        now: Duration,
        whole: bool,
    ) -> Rows {
        let of = |aside: &SetAside, id: &NetnsId, tallies: Option<&Tallies>| {
            tallies.map(|tallies| aside.of(id, tallies))
        };
        let hooks = |aside: &SetAside, id: &NetnsId| {
            Some(HookReadings { before: of(aside, id, before)?, after: of(aside, id, after)? })
        };
        // One that may not be entered tells no cookie: the probes know it by its inode number too.
        let by_inode: HashMap<u32, NetnsId> =
            match visits.iter().any(|(_, visit)| matches!(visit, Visit::Refused(_))) {
                true => after.into_iter().flatten().map(|(id, of)| (of.inode(), *id)).collect(),
                false => HashMap::new(),
            };
        let id_of = |inode: u32| by_inode.get(&inode).copied().unwrap_or(inode.into());
        let mut tables: Vec<TableSample> = Vec::with_capacity(visits.len());
        for (netns, visit) in visits {
            let way = netns.clone();
            let inode = netns.inode;
            let cookie = match &visit {
                Visit::Read(reading) => reading.cookie,
                Visit::Refused(_) | Visit::Gone => None,
            };
            // Gone, or another by now, under the number of the one that was asked for.
            if matches!(visit, Visit::Gone) || !self.means.scope.is(&netns, cookie) {
                self.turns.forget(inode);
                continue;
            }
            let cookie = cookie.filter(|_| self.means.cookies);
            let owner = self.owner(&netns, cookie);
            let is_judged = self.means.whose.judges(&owner);
            let weight = match self.means.whose.admits(&owner) {
                true if is_judged => Weight::Full,
                true => Weight::Little,
                false => Weight::None,
            };
            let mut table = match visit {
                Visit::Read(reading) => {
                    let id = cookie.unwrap_or(NetnsId::from(netns.inode));
                    let interfaces = self.named(id, &reading.interfaces, now);
                    let summing = self.sums.of(id);
                    read_table(id, netns, (is_judged, owner), reading, interfaces, (summing, now))
                }
                Visit::Refused(error) => {
                    refused_table(id_of(inode), netns, (is_judged, owner), &error)
                }
                Visit::Gone => continue,
            };
            let read = Read::of(&table, of(&self.set_aside, &table.id, by_now), now);
            self.turns.read(way, read, weight);
            if weight == Weight::None {
                continue;
            }
            table.hooks = hooks(&self.set_aside, &table.id);
            if let Some(name) = &table.name {
                self.names.insert(table.id, name.clone());
            }
            if table.workload != Workload::default() {
                self.workloads.insert(table.id, table.workload.clone());
            }
            tables.push(table);
        }
        let mut seen: NetnsMap<()> = tables.iter().map(|table| (table.id, ())).collect();
        let mut idle: Vec<Idle> =
            self.turns.idle(now).filter(|idle| !seen.contains_key(&idle.id)).collect();
        seen.extend(idle.iter().map(|idle| (idle.id, ())));
        let mut unseen = Tallies::default();
        for (id, tally) in after.into_iter().flatten().filter(|(id, _)| !seen.contains_key(id)) {
            let name = self.names.get(id);
            let workload = self.workloads.get(id).cloned().unwrap_or_default();
            let cookies = self.means.cookies;
            let names = workload.names(netns::called(name.map(String::as_str), tally.inode()));
            if !self.means.scope.admits(*id, tally.inode(), names, cookies) {
                continue;
            }
            let owner = match self.owners.get(id) {
                Some(owner) => owner.clone(),
                None => owner::as_counted(tally.owner()),
            };
            if !self.means.whose.admits(&owner) {
                continue;
            }
            let is_still = self.unseen.get(id) == Some(tally);
            unseen.insert(*id, surely_told(before.and_then(|before| before.get(id)), tally));
            if is_still && !whole {
                idle.push(Idle { id: *id, age: Duration::ZERO });
                continue;
            }
            tables.push(TableSample {
                id: *id,
                inode: tally.inode(),
                name: name.cloned(),
                workload,
                is_judged: self.means.whose.judges(&owner),
                owner,
                access: Access::Unseen,
                entries: None,
                counters: None,
                unread: None,
                hooks: hooks(&self.set_aside, id),
                interfaces: Vec::new(),
            });
        }
        let is_spoken_of = |id: &NetnsId| seen.contains_key(id) || unseen.contains_key(id);
        self.names.retain(|id, _| is_spoken_of(id));
        self.workloads.retain(|id, _| is_spoken_of(id));
        self.owners.retain(|id, _| is_spoken_of(id));
        self.sums.retain(is_spoken_of);
        self.interface_names.retain(|id, _| is_spoken_of(id));
        Rows { tables, idle, unseen }
    }

    /// Asked for once, where it is known by what is never used again.
    fn owner(&mut self, netns: &Netns, cookie: Option<u64>) -> Owner {
        if let Some(known) = cookie.and_then(|id| self.owners.get(&id)) {
            return known.clone();
        }
        let owner = owner::owner(netns);
        if let Some(id) = cookie.filter(|_| !matches!(owner, Owner::Unknown(_))) {
            self.owners.insert(id, owner.clone());
        }
        owner
    }

    /// What its interfaces that are spoken of are called, after these were asked for anew.
    fn named(
        &mut self,
        id: NetnsId,
        answers: &[(u32, String)],
        now: Duration,
    ) -> Vec<(u32, String)> {
        let Some(spoken_of) = self.interfaces.get(&id) else {
            self.interface_names.remove(&id);
            return Vec::new();
        };
        let known = self.interface_names.entry(id).or_default();
        for index in to_ask(spoken_of, Some(known), now) {
            let answer = answers.iter().find(|(other, _)| *other == index);
            let answer = answer.map(|(_, name)| name.clone());
            let (asked, name) = known.entry(index).or_default();
            // One that is gone is spoken of by the name that it had.
            (*asked, *name) = (now, answer.or(name.take()));
        }
        known.retain(|index, _| spoken_of.contains(index));
        known.iter().filter_map(|(index, (_, name))| Some((*index, name.clone()?))).collect()
    }

    /// The probes have so many places for namespaces and no more: where they are taken, those make room
    /// that nothing leads to and in which nothing happens: the gone ones, and of the hidden ones those
    /// that can be taken up again. What they counted has been handed on in this sample. Strangers have
    /// places of their own, and make room for each other alone.
    fn make_room(&mut self, unseen: Tallies, counted: Option<&Tallies>) -> Result<()> {
        let Some(probes) = self.means.probes.as_mut() else { return Ok(()) };
        let before = std::mem::replace(&mut self.unseen, unseen);
        let crowded = [(false, MAX_NETNS), (true, MAX_STRANGERS)].map(|(strangers, room)| {
            let is_it = |tally: &&NetnsTally| tally.is_strangers() == strangers;
            let there = counted.into_iter().flat_map(HashMap::values).filter(is_it).count();
            let unseen = self.unseen.values().filter(is_it).count();
            there > room as usize * 3 / 4 || unseen > MOST_UNSEEN
        });
        if crowded.contains(&true) {
            let mut these = still(&before, &self.unseen);
            these.retain(|_, is_strangers| crowded[usize::from(*is_strangers)]);
            probes.forget(&these.keys().copied().collect())?;
            self.hidden.retain(|id| !these.contains_key(id));
        }
        Ok(())
    }

    /// Those that made room at the last sample have it made by now.
    fn take_back(&mut self) -> Result<()> {
        if let Some(probes) = self.means.probes.as_mut() {
            for tally in probes.left()? {
                self.set_aside.take(tally.id(), tally);
            }
        }
        Ok(())
    }
}

/// The counters of each namespace, summed. Memory for those that are spoken of.
#[derive(Debug, Default)]
struct Sums {
    of: NetnsMap<Summing>,
    /// How many were let go: one that comes back has a gap.
    let_go: u32,
}

impl Sums {
    fn of(&mut self, id: NetnsId) -> &mut Summing {
        let gaps = self.let_go;
        self.of.entry(id).or_insert_with(|| Summing::after(gaps))
    }

    fn retain(&mut self, is_spoken_of: impl Fn(&NetnsId) -> bool) {
        let before = self.of.len();
        self.of.retain(|id, _| is_spoken_of(id));
        let let_go = u32::try_from(before - self.of.len()).unwrap_or(u32::MAX);
        self.let_go = self.let_go.saturating_add(let_go);
    }
}

/// What happened between the two readings of one sample is for the next to tell: as long as that has not
/// been, the namespace is not still.
fn surely_told(before: Option<&NetnsTally>, after: &NetnsTally) -> NetnsTally {
    let nothing = || NetnsTally::new(after.id(), after.inode()).owned_by(after.owner());
    before.copied().unwrap_or_else(nothing)
}

/// Those that have counted nothing since, and whether they are strangers'.
fn still(before: &Tallies, now: &Tallies) -> HashMap<NetnsId, bool> {
    let same = now.iter().filter(|(id, tally)| before.get(*id) == Some(*tally));
    same.map(|(id, tally)| (*id, tally.is_strangers())).collect()
}

/// What was counted in namespaces before they made room for others. One that only looked gone, and
/// counts again, goes on from there.
#[derive(Debug, Default)]
struct SetAside {
    kept: Tallies,
    /// The order in which they were: the host's, and others', who must not crowd those out.
    order: [VecDeque<NetnsId>; 2],
    /// Of those that are not kept any more.
    rest: NetnsTally,
}

impl SetAside {
    /// Half a megabyte, twice.
    const MOST: usize = 4096;

    /// `tally`: what was counted there since it last made room.
    fn take(&mut self, id: NetnsId, tally: NetnsTally) {
        let order = &mut self.order[usize::from(tally.is_strangers())];
        match self.kept.entry(id) {
            Entry::Occupied(mut kept) => kept.get_mut().add(&tally),
            Entry::Vacant(place) => {
                place.insert(tally);
                order.push_back(id);
            }
        }
        if order.len() > Self::MOST
            && let Some(oldest) = order.pop_front()
            && let Some(tally) = self.kept.remove(&oldest)
        {
            self.rest.add(&tally);
        }
    }

    fn add_to(&self, tallies: &mut Tallies) {
        for (id, tally) in tallies {
            if let Some(kept) = self.kept.get(id) {
                tally.add(kept);
            }
        }
    }

    /// What was ever counted there, also where it made room and has counted nothing since: it may have
    /// been found only then.
    fn of(&self, id: &NetnsId, tallies: &Tallies) -> NetnsTally {
        tallies.get(id).or_else(|| self.kept.get(id)).copied().unwrap_or_default()
    }

    /// What was counted in all namespaces, of which these were completed.
    fn everywhere(&self, tallies: Option<&Tallies>) -> NetnsTally {
        let mut sum = self.rest;
        let counts = |id: &NetnsId| tallies.is_some_and(|tallies| tallies.contains_key(id));
        let kept = self.kept.iter().filter(|(id, _)| !counts(id));
        kept.chain(tallies.into_iter().flatten()).for_each(|(_, tally)| sum.add(tally));
        sum
    }
}

impl Scope {
    /// Those that are wanted, of all that were found.
    pub fn among(&self, found: &BTreeMap<u32, Netns>) -> Vec<Netns> {
        match self {
            Self::One(target) => target.among(found).into_iter().collect(),
            Self::Some(targets, patterns) => {
                let named: Vec<Netns> =
                    targets.iter().filter_map(|target| target.among(found)).collect();
                let all = targets.is_empty() && patterns.only.is_empty();
                let wanted = |netns: &Netns| {
                    let is_named = named.iter().any(|named| named.inode == netns.inode);
                    patterns.admit(netns.names(), all || is_named)
                };
                found.values().filter(|netns| wanted(netns)).cloned().collect()
            }
            Self::All | Self::Own => found.values().cloned().collect(),
        }
    }

    /// Whether the one that was entered, and has this cookie, is wanted.
    pub fn is(&self, netns: &Netns, cookie: Option<u64>) -> bool {
        match self {
            Self::One(target) => target.is(cookie),
            Self::Some(targets, patterns) => {
                let is_it = |target: &Target| target.inode == netns.inode && target.is(cookie);
                targets.is_empty() && patterns.only.is_empty()
                    || targets.iter().any(is_it)
                    || netns.names().any(|name| patterns.name(&name))
            }
            Self::All | Self::Own => true,
        }
    }

    /// `names`: what one that only the programs know was called.
    fn admits(
        &self,
        id: NetnsId,
        inode: u32,
        names: impl Iterator<Item = String>,
        cookies: bool,
    ) -> bool {
        match self {
            Self::All => true,
            Self::Own => netns::current().is_ok_and(|own| own.inode == inode),
            Self::One(target) => target.is_counted_as(id, cookies),
            Self::Some(targets, patterns) => {
                let all = targets.is_empty() && patterns.only.is_empty();
                let is_named = targets.iter().any(|target| target.is_counted_as(id, cookies));
                patterns.admit(names, all || is_named)
            }
        }
    }
}

/// `whose`: whether it is judged, and the owner.
fn read_table(
    id: NetnsId,
    netns: Netns,
    whose: (bool, Owner),
    reading: Reading,
    interfaces: Vec<(u32, String)>,
    (summing, at): (&mut Summing, Duration),
) -> TableSample {
    let mut unread = None;
    let mut note = |error: anyhow::Error| {
        unread.get_or_insert(format!("{error:#}"));
    };
    let (entries, counters) =
        (reading.entries.map_err(&mut note).ok(), reading.counters.map_err(&mut note).ok());
    let counters = counters.map(|cpus| summing.take(&cpus, at));
    TableSample { entries, counters, unread, interfaces, ..row(id, netns, whose, Access::Entered) }
}

fn refused_table(
    id: NetnsId,
    netns: Netns,
    whose: (bool, Owner),
    error: &anyhow::Error,
) -> TableSample {
    let unread = Some(format!("{error:#}"));
    TableSample { unread, ..row(id, netns, whose, Access::Refused) }
}

/// A namespace of which no number is known.
fn row(
    id: NetnsId,
    netns: Netns,
    (is_judged, owner): (bool, Owner),
    access: Access,
) -> TableSample {
    TableSample {
        id,
        inode: netns.inode,
        name: netns.name,
        workload: netns.workload,
        owner,
        is_judged,
        access,
        entries: None,
        counters: None,
        unread: None,
        hooks: None,
        interfaces: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use ctwatch_abi::Count;

    use super::*;
    use crate::record::tests::recorded;

    fn tally(refused: u32) -> NetnsTally {
        let mut tally = NetnsTally::new(1, 1);
        (0..refused).for_each(|_| tally.bump(Count::TableFull));
        tally
    }

    /// Whatever may be read here, and as whom.
    #[test]
    fn what_is_read_here_can_be_recorded() {
        for source in [Source::Procfs, Source::Ctnetlink] {
            let means = Means {
                source,
                probes: None,
                scope: Scope::Own,
                whose: Whose::All,
                only_judged: false,
                cookies: true,
            };
            let mut worker = Worker::new(means, Reads::default());
            let sample = worker.sample(&mut None, true, false).unwrap();
            assert_eq!(recorded(&sample).tables.len(), 1, "{sample:?}");
        }
    }

    #[test]
    fn a_hidden_namespace_goes_on_after_it_made_room() {
        let mut aside = SetAside::default();
        let refused = |aside: &SetAside, raw: &[(NetnsId, u32)]| {
            let mut tallies: Tallies =
                raw.iter().map(|(id, refused)| (*id, tally(*refused))).collect();
            aside.add_to(&mut tallies);
            let all = aside.everywhere(Some(&tallies)).get(Count::TableFull);
            (tallies.get(&7).map(|tally| tally.get(Count::TableFull)), all)
        };
        assert_eq!(refused(&aside, &[(7, 5), (8, 1)]), (Some(5), 6));
        aside.take(7, tally(5));
        assert_eq!(refused(&aside, &[(8, 1)]), (None, 6));
        let found_late = aside.of(&7, &Tallies::default());
        assert_eq!(found_late.get(Count::TableFull), 5, "found when it had made room");
        assert_eq!(refused(&aside, &[(7, 2), (8, 1)]), (Some(7), 8), "it was not gone");
        aside.take(7, tally(2));
        assert_eq!(refused(&aside, &[(7, 1), (8, 1)]), (Some(8), 9));
        // However many there are, nothing is lost of what happened anywhere.
        (100..10_000).for_each(|id| aside.take(id, tally(1)));
        assert!(aside.kept.len() <= SetAside::MOST && aside.order[0].len() <= SetAside::MOST);
        assert_eq!(refused(&aside, &[(8, 1)]).1, 7 + 9_900 + 1);
    }

    #[test]
    fn what_comes_while_it_is_read_is_told_next() {
        let means = Means {
            source: Source::Procfs,
            probes: None,
            scope: Scope::All,
            whose: Whose::All,
            only_judged: false,
            cookies: true,
        };
        let mut worker = Worker::new(means, Reads::default());
        let mut told = |before: Option<u32>, after: u32| {
            let of = |refused| -> Tallies { [(1, tally(refused))].into_iter().collect() };
            let (before, after) = (before.map_or_else(Tallies::default, of), of(after));
            let tallies = (Some(&before), Some(&after), Some(&after));
            let rows = worker.tables(Vec::new(), tallies, Duration::ZERO, false);
            worker.unseen = rows.unseen;
            let table = rows.tables.first()?;
            Some(table.hooks?.before.get(Count::TableFull))
        };
        assert_eq!(told(None, 5), Some(0), "all of it came in between");
        assert_eq!(told(Some(5), 5), Some(5));
        assert_eq!(told(Some(5), 5), None, "nothing happened since");
        assert_eq!(told(Some(5), 7), Some(5));
        assert_eq!(told(Some(7), 7), Some(7));
        assert_eq!(told(Some(7), 7), None);
    }

    #[test]
    fn only_where_nothing_happens_room_is_made() {
        let of = |all: &[(NetnsId, u32)]| -> Tallies {
            all.iter().map(|(id, refused)| (*id, tally(*refused))).collect()
        };
        let found = still(&of(&[(1, 5), (2, 5)]), &of(&[(1, 5), (2, 6), (3, 1)]));
        assert_eq!(found, HashMap::from([(1, false)]));
    }
}
