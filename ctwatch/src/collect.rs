//! One reading of everything: the namespaces, what the kernel says in each, what the probes
//! counted. Runs on a thread of its own, because entering a namespace changes the thread.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::Instant,
};

use anyhow::{Context, Result};
use ctwatch_ebpf::{MAX_NETNS, MAX_STRANGERS, NetnsId, NetnsTally, top::By};
use tokio::sync::oneshot;

use crate::{
    host::{
        cgroups::Cgroups,
        netns::{self, Finder, Netns, Target},
        owner,
        visit::{self, Reading, Source, Visit, Visitor},
    },
    probe::read::Probes,
    sample::{Access, HookReadings, Owner, Probed, Sample, TableSample, TopCounts},
    threads,
    wanted::{Patterns, Whose},
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
    requests: mpsc::Sender<oneshot::Sender<Result<Sample>>>,
    reads: Reads,
}

/// What a namespace is called that is being read.
type Reads = Arc<Mutex<Option<String>>>;

impl Collector {
    pub fn start(means: Means) -> Result<Self> {
        let (requests, inbox) = mpsc::channel::<oneshot::Sender<Result<Sample>>>();
        let reads = Reads::default();
        let mut worker = Worker::new(means, Arc::clone(&reads));
        threads::start("collector", move || {
            let mut visitor = None;
            for reply in inbox {
                // Whoever asked may have gone; there is nobody to tell.
                let _ = reply.send(worker.sample(&mut visitor));
            }
        })?;
        Ok(Self { requests, reads })
    }

    /// The namespace that is being read, if one is.
    pub fn reads(&self) -> Option<String> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub async fn sample(&self) -> Result<Sample> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(reply).ok().context("the collecting thread has ended")?;
        answer.await.context("the collecting thread has ended")?
    }
}

struct Worker {
    means: Means,
    started: Instant,
    /// What the namespaces that are still spoken of were called when they were last seen.
    names: HashMap<NetnsId, String>,
    /// And whose they are: that never changes. Kept where an id is never used again.
    owners: HashMap<NetnsId, Owner>,
    finder: Finder,
    /// Namespaces that the probes counted in and that were looked for in vain.
    hidden: HashSet<NetnsId>,
    /// What was counted in namespaces that made room for others.
    set_aside: SetAside,
    /// What was counted in those that nothing leads to, at the last sample.
    unseen: HashMap<NetnsId, NetnsTally>,
    /// Interfaces that are spoken of, by namespace.
    interfaces: HashMap<NetnsId, BTreeSet<u32>>,
    cgroups: Cgroups,
    reads: Reads,
}

impl Worker {
    fn new(means: Means, reads: Reads) -> Self {
        Self {
            reads,
            means,
            started: Instant::now(),
            names: HashMap::new(),
            owners: HashMap::new(),
            finder: Finder::default(),
            hidden: HashSet::new(),
            set_aside: SetAside::default(),
            unseen: HashMap::new(),
            interfaces: HashMap::new(),
            cgroups: Cgroups::default(),
        }
    }

    fn reads_now(&self, netns: Option<&Netns>) {
        let name = |netns: &Netns| netns.name.clone().unwrap_or_else(|| netns.inode.to_string());
        *self.reads.lock().unwrap_or_else(PoisonError::into_inner) = netns.map(name);
    }

    fn sample(&mut self, visitor: &mut Option<Visitor>) -> Result<Sample> {
        let visitor = match visitor {
            Some(visitor) => visitor,
            None => visitor.insert(Visitor::new(self.means.source)?),
        };
        let before = self.tallies()?;
        let mut everywhere = self.set_aside.everywhere(before.as_ref());
        if let Some(probes) = &self.means.probes {
            everywhere.add(&probes.strangers_rest()?);
        }
        let tops = self.tops();
        let cgroups = self.cgroups(&tops);
        let found = self.find(before.as_ref())?;
        let (found, others) = self.split(found);
        let interfaces: Vec<u32> = self.interfaces.values().flatten().copied().collect();
        let visits = found
            .into_iter()
            .map(|netns| {
                self.reads_now(Some(&netns));
                visitor.read(&netns, &interfaces).map(|visit| (netns, visit))
            })
            .collect::<Result<Vec<_>>>()?;
        self.reads_now(None);
        let after = self.tallies()?;
        let elapsed = self.started.elapsed();
        let probes = self.means.probes.as_ref();
        let sample = Sample {
            time: jiff::Timestamp::now(),
            elapsed,
            limit: visit::limit(self.means.source).ok(),
            buckets: visit::buckets().ok(),
            probed: probes
                .map(Probes::probed)
                .transpose()?
                .map(|probed| Probed { everywhere, ..probed }),
            tops,
            cgroups,
            tables: {
                let mut tables = self.tables(visits, before.as_ref(), after.as_ref());
                tables.extend(others);
                tables
            },
        };
        self.make_room(&sample)?;
        Ok(sample)
    }

    fn find(&mut self, counted: Option<&HashMap<NetnsId, NetnsTally>>) -> Result<Vec<Netns>> {
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
        if !strange.is_empty() {
            found = self.finder.find(true)?;
            self.hidden.extend(strange);
        }
        Ok(self.means.scope.among(found))
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
    fn tops(&mut self) -> Vec<TopCounts> {
        let tops = self.means.probes.as_ref().map(Probes::tops).unwrap_or_default();
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

    fn tallies(&self) -> Result<Option<HashMap<NetnsId, NetnsTally>>> {
        let mut tallies = self.means.probes.as_ref().map(Probes::tallies).transpose()?;
        if let Some(tallies) = &mut tallies {
            self.set_aside.add_to(tallies);
        }
        Ok(tallies)
    }

    /// A row for each namespace that was found, and for each that only the probes know: gone, or
    /// kept alive by something that does not show where it is.
    fn tables(
        &mut self,
        visits: Vec<(Netns, Visit)>,
        before: Option<&HashMap<NetnsId, NetnsTally>>,
        after: Option<&HashMap<NetnsId, NetnsTally>>,
    ) -> Vec<TableSample> {
        let hooks = |aside: &SetAside, id: &NetnsId| {
            let of = |tallies| aside.of(id, tallies);
            Some(HookReadings { before: of(before?), after: of(after?) })
        };
        // One that may not be entered tells no cookie: the probes know it by its inode number too.
        let id_of = |inode: u32| {
            let known = after.into_iter().flatten().find(|(_, tally)| tally.inode() == inode);
            known.map_or(NetnsId::from(inode), |(id, _)| *id)
        };
        let mut tables: Vec<TableSample> = Vec::with_capacity(visits.len());
        for (netns, visit) in visits {
            let cookie = match &visit {
                Visit::Read(reading) => reading.cookie,
                Visit::Refused(_) => None,
                Visit::Gone => continue,
            };
            // Another by now, under the number of the one that was asked for.
            if !self.means.scope.is(&netns, cookie) {
                continue;
            }
            let owner = self.owner(&netns, cookie.filter(|_| self.means.cookies));
            if !self.means.whose.admits(&owner) {
                continue;
            }
            let whose = (self.means.whose.judges(&owner), owner);
            let mut table = match visit {
                Visit::Read(reading) => read_table(netns, whose, reading, self.means.cookies),
                Visit::Refused(error) => refused_table(id_of(netns.inode), netns, whose, &error),
                Visit::Gone => continue,
            };
            table.hooks = hooks(&self.set_aside, &table.id);
            if let Some(name) = &table.name {
                self.names.insert(table.id, name.clone());
            }
            tables.push(table);
        }
        let seen: HashSet<NetnsId> = tables.iter().map(|table| table.id).collect();
        for (id, tally) in after.into_iter().flatten() {
            let name = self.names.get(id);
            let admits = self.means.scope.admits(*id, tally.inode(), name, self.means.cookies);
            let owner = || match self.owners.get(id) {
                Some(owner) => owner.clone(),
                None => owner::as_counted(tally.owner()),
            };
            if admits
                && !seen.contains(id)
                && let owner = owner()
                && self.means.whose.admits(&owner)
            {
                tables.push(TableSample {
                    id: *id,
                    inode: tally.inode(),
                    name: name.cloned(),
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
        }
        let spoken_of: HashSet<NetnsId> = tables.iter().map(|table| table.id).collect();
        self.names.retain(|id, _| spoken_of.contains(id));
        self.owners.retain(|id, _| spoken_of.contains(id));
        tables
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

    /// The probes' map holds so many namespaces and no more: where it fills up, those make room that
    /// nothing leads to and in which nothing happens: the gone ones, and of the hidden ones those
    /// that can be taken up again. What they counted has been handed on in this sample. Strangers have
    /// a map of their own, and make room for each other alone.
    fn make_room(&mut self, sample: &Sample) -> Result<()> {
        let Some(probes) = self.means.probes.as_mut() else { return Ok(()) };
        let unseen = sample.tables.iter().filter(|table| table.access == Access::Unseen);
        let unseen = unseen.filter_map(|table| Some((table.id, table.hooks?.after)));
        let before = std::mem::replace(&mut self.unseen, unseen.collect());
        let crowded = [(false, MAX_NETNS), (true, MAX_STRANGERS)].map(|(strangers, room)| {
            let counted = sample.tables.iter().filter_map(|table| table.hooks);
            let there = counted.filter(|hooks| hooks.after.inode() != 0);
            let there = there.filter(|hooks| hooks.after.is_strangers() == strangers);
            there.count() > room as usize * 3 / 4
        });
        for (id, tally) in still(&before, &self.unseen) {
            if crowded[usize::from(tally.is_strangers())] {
                probes.forget(&id, tally.is_strangers())?;
                self.set_aside.take(id, tally);
                self.hidden.remove(&id);
            }
        }
        Ok(())
    }
}

/// Those that have counted nothing since.
fn still(
    before: &HashMap<NetnsId, NetnsTally>,
    now: &HashMap<NetnsId, NetnsTally>,
) -> Vec<(NetnsId, NetnsTally)> {
    let same = now.iter().filter(|(id, tally)| before.get(*id) == Some(*tally));
    same.map(|(id, tally)| (*id, *tally)).collect()
}

/// What was counted in namespaces before they made room for others. One that only looked gone, and
/// counts again, goes on from there.
#[derive(Debug, Default)]
struct SetAside {
    kept: HashMap<NetnsId, NetnsTally>,
    /// The order in which they were: the host's, and others', who must not crowd those out.
    order: [VecDeque<NetnsId>; 2],
    /// Of those that are not kept any more.
    rest: NetnsTally,
}

impl SetAside {
    /// Half a megabyte, twice.
    const MOST: usize = 4096;

    /// `tally`: all that was ever counted there.
    fn take(&mut self, id: NetnsId, tally: NetnsTally) {
        let order = &mut self.order[usize::from(tally.is_strangers())];
        if self.kept.insert(id, tally).is_none() {
            order.push_back(id);
        }
        if order.len() > Self::MOST
            && let Some(oldest) = order.pop_front()
            && let Some(tally) = self.kept.remove(&oldest)
        {
            self.rest.add(&tally);
        }
    }

    fn add_to(&self, tallies: &mut HashMap<NetnsId, NetnsTally>) {
        for (id, tally) in tallies {
            if let Some(kept) = self.kept.get(id) {
                tally.add(kept);
            }
        }
    }

    /// What was ever counted there, also where it made room and has counted nothing since: it may have
    /// been found only then.
    fn of(&self, id: &NetnsId, tallies: &HashMap<NetnsId, NetnsTally>) -> NetnsTally {
        tallies.get(id).or_else(|| self.kept.get(id)).copied().unwrap_or_default()
    }

    /// What was counted in all namespaces, of which these were completed.
    fn everywhere(&self, tallies: Option<&HashMap<NetnsId, NetnsTally>>) -> NetnsTally {
        let mut sum = self.rest;
        let counts = |id: &NetnsId| tallies.is_some_and(|tallies| tallies.contains_key(id));
        let kept = self.kept.iter().filter(|(id, _)| !counts(id));
        kept.chain(tallies.into_iter().flatten()).for_each(|(_, tally)| sum.add(tally));
        sum
    }
}

impl Scope {
    /// Those that are wanted, of all that were found.
    pub fn among(&self, found: BTreeMap<u32, Netns>) -> Vec<Netns> {
        match self {
            Self::One(target) => target.among(found).into_iter().collect(),
            Self::Some(targets, patterns) => {
                let named: Vec<Netns> =
                    targets.iter().filter_map(|target| target.among(found.clone())).collect();
                let all = targets.is_empty() && patterns.only.is_empty();
                let wanted = |netns: &Netns| {
                    let name = netns.called();
                    let is_named = named.iter().any(|named| named.inode == netns.inode);
                    !patterns.leave_out(&name) && (all || is_named || patterns.name(&name))
                };
                found.into_values().filter(wanted).collect()
            }
            Self::All | Self::Own => found.into_values().collect(),
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
                    || patterns.name(&netns.called())
            }
            Self::All | Self::Own => true,
        }
    }

    /// `name`: what one that only the programs know was called.
    fn admits(&self, id: NetnsId, inode: u32, name: Option<&String>, cookies: bool) -> bool {
        match self {
            Self::All => true,
            Self::Own => netns::current().is_ok_and(|own| own.inode == inode),
            Self::One(target) => target.is_counted_as(id, cookies),
            Self::Some(targets, patterns) => {
                let name = netns::called(name.map(String::as_str), inode);
                let all = targets.is_empty() && patterns.only.is_empty();
                let is_named = targets.iter().any(|target| target.is_counted_as(id, cookies));
                !patterns.leave_out(&name) && (all || is_named || patterns.name(&name))
            }
        }
    }
}

/// `whose`: whether it is judged, and the owner.
fn read_table(
    netns: Netns,
    (is_judged, owner): (bool, Owner),
    reading: Reading,
    cookies: bool,
) -> TableSample {
    let cookie = reading.cookie.filter(|_| cookies);
    let mut unread = None;
    let mut note = |error: anyhow::Error| {
        unread.get_or_insert(format!("{error:#}"));
    };
    TableSample {
        id: cookie.unwrap_or(NetnsId::from(netns.inode)),
        inode: netns.inode,
        name: netns.name,
        owner,
        is_judged,
        access: Access::Entered,
        entries: reading.entries.map_err(&mut note).ok(),
        counters: reading.counters.map_err(&mut note).ok(),
        unread,
        hooks: None,
        interfaces: reading.interfaces,
    }
}

fn refused_table(
    id: NetnsId,
    netns: Netns,
    (is_judged, owner): (bool, Owner),
    error: &anyhow::Error,
) -> TableSample {
    TableSample {
        id,
        inode: netns.inode,
        name: netns.name,
        owner,
        is_judged,
        access: Access::Refused,
        entries: None,
        counters: None,
        unread: Some(format!("{error:#}")),
        hooks: None,
        interfaces: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use ctwatch_ebpf::Count;

    use super::*;

    fn tally(refused: u32) -> NetnsTally {
        let mut tally = NetnsTally::of(1);
        (0..refused).for_each(|_| tally.bump(Count::TableFull));
        tally
    }

    #[test]
    fn a_hidden_namespace_goes_on_after_it_made_room() {
        let mut aside = SetAside::default();
        let refused = |aside: &SetAside, raw: &[(NetnsId, u32)]| {
            let mut tallies: HashMap<_, _> =
                raw.iter().map(|(id, refused)| (*id, tally(*refused))).collect();
            aside.add_to(&mut tallies);
            let all = aside.everywhere(Some(&tallies)).get(Count::TableFull);
            (tallies.get(&7).map(|tally| tally.get(Count::TableFull)), all)
        };
        assert_eq!(refused(&aside, &[(7, 5), (8, 1)]), (Some(5), 6));
        aside.take(7, tally(5));
        assert_eq!(refused(&aside, &[(8, 1)]), (None, 6));
        let found_late = aside.of(&7, &HashMap::new());
        assert_eq!(found_late.get(Count::TableFull), 5, "found when it had made room");
        assert_eq!(refused(&aside, &[(7, 2), (8, 1)]), (Some(7), 8), "it was not gone");
        aside.take(7, tally(7));
        assert_eq!(refused(&aside, &[(7, 1), (8, 1)]), (Some(8), 9));
        // However many there are, nothing is lost of what happened anywhere.
        (100..10_000).for_each(|id| aside.take(id, tally(1)));
        assert!(aside.kept.len() <= SetAside::MOST && aside.order[0].len() <= SetAside::MOST);
        assert_eq!(refused(&aside, &[(8, 1)]).1, 7 + 9_900 + 1);
    }

    #[test]
    fn only_where_nothing_happens_room_is_made() {
        let of = |all: &[(NetnsId, u32)]| -> HashMap<_, _> {
            all.iter().map(|(id, refused)| (*id, tally(*refused))).collect()
        };
        let found = still(&of(&[(1, 5), (2, 5)]), &of(&[(1, 5), (2, 6), (3, 1)]));
        assert_eq!(found, [(1, tally(5))]);
    }
}
