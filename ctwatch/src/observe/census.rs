//! Takes a census: who holds the table now. By a walk inside the kernel where the table can be
//! found, else from ctnetlink or `/proc`, namespace by namespace.
//!
//! Goes into namespaces, so it runs on a thread of its own.

use std::{
    collections::HashSet,
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use ctwatch_abi::{
    NetnsId,
    top::{By, Seed},
};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;

use super::{sampler::Scope, wanted::Whose};
use crate::{
    host::{
        self,
        kernel::modules,
        netfilter::{
            ctnetlink::{self, Dumped},
            dump, listing,
        },
        netns::{
            self, Finder, Netns, owner,
            visit::{Source, Visit, Visitor},
        },
    },
    model::census::{self, KernelCount, StateOf, Taken},
    probe::census::Walker,
    threads,
};

/// Which way is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The walk where it can be had.
    Best,
    Walk,
    Ctnetlink,
    Procfs,
    /// As little as can be: no program, and no module that is not loaded already.
    NoProgram,
}

/// What is to be told apart, and how many of each are to be named.
#[derive(Clone, Debug)]
pub struct Question {
    pub by: Vec<By>,
    pub most: usize,
    pub scope: Scope,
    pub whose: Whose,
    /// Where entries are listed namespace by namespace, of these alone: to list what strangers hold
    /// would be a cost that they cause.
    pub only_judged: bool,
}

/// A thread that takes a census when it is asked to.
pub struct CensusThread {
    requests: mpsc::Sender<CensusRequest>,
}

/// In which state entries are of more interest, and who wants to know.
type CensusRequest = (Option<StateOf>, oneshot::Sender<Result<Taken>>);

impl CensusThread {
    pub fn start(way: Way, cookies: bool, question: Question) -> Result<Self> {
        let (requests, inbox) = mpsc::channel::<CensusRequest>();
        threads::start("census", move || {
            let mut taker = None;
            for (focus, reply) in inbox {
                let begin = cpu_time();
                let taken = match &mut taker {
                    Some(taker) => Ok(taker),
                    none => Taker::new(way, cookies).map(|taker| none.insert(taker)),
                };
                let taken = taken.and_then(|taker| taker.look(&question, focus));
                // What it took to get ready is a cost too.
                let cpu = cpu_time().saturating_sub(begin);
                // Whoever asked may have gone; there is nobody to tell.
                let _ = reply.send(taken.map(|taken| Taken { cpu, ..taken }));
            }
        })?;
        Ok(Self { requests })
    }

    pub fn ask(&self, focus: Option<StateOf>) -> Result<oneshot::Receiver<Result<Taken>>> {
        let (reply, answer) = oneshot::channel();
        self.requests.send((focus, reply)).ok().context("the thread of the census has ended")?;
        Ok(answer)
    }
}

/// Where entries are listed, without a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    Ctnetlink,
    Procfs,
}

/// Keeps what it takes to take a census again.
pub struct Taker {
    way: Way,
    walker: Option<Walker>,
    /// Why there is no walker.
    why: Option<String>,
    list: List,
    /// Why it is not ctnetlink's.
    why_procfs: Option<String>,
    cookies: bool,
    finder: Finder,
    visitor: Visitor,
}

impl Taker {
    /// On the thread that will take the census.
    pub fn new(way: Way, cookies: bool) -> Result<Self> {
        let mut why = None;
        let walker = match way {
            Way::Ctnetlink | Way::Procfs | Way::NoProgram => None,
            Way::Walk => Some(Walker::open().context("the kernel's table cannot be walked here")?),
            Way::Best => Walker::open().map_err(|error| why = Some(format!("{error:#}"))).ok(),
        };
        let mut why_procfs = None;
        let list = match way {
            Way::Ctnetlink => List::Ctnetlink,
            Way::Procfs => List::Procfs,
            _ => match ctnetlink::answers() {
                Ok(()) => List::Ctnetlink,
                Err(why) => {
                    why_procfs = Some(why);
                    List::Procfs
                }
            },
        };
        let visitor = Visitor::new(match list {
            List::Ctnetlink => Source::Ctnetlink,
            List::Procfs => Source::Procfs,
        })?;
        let finder = Finder::default();
        Ok(Self { way, walker, why, list, why_procfs, cookies, finder, visitor })
    }

    pub fn take(&mut self, question: &Question) -> Result<Taken> {
        self.look(question, None)
    }

    fn look(&mut self, question: &Question, focus: Option<StateOf>) -> Result<Taken> {
        let (begin, cpu) = (Instant::now(), cpu_time());
        let found = self.find(&question.scope)?;
        let mut notes: Vec<String> =
            self.why.iter().map(|why| format!("not by walk: {why}")).collect();
        let mut kernel = self.counts(question, &found, &mut notes)?;
        let seed = Seed(host::secrets());
        let new = || census::Census::with_focus(&question.by, seed, focus);
        let (census, by, strayed) = match &mut self.walker {
            Some(walker) => {
                let wanted: HashSet<NetnsId> = kernel.iter().map(|count| count.netns).collect();
                let all_owners = matches!(question.whose, Whose::All | Whose::HostFirst);
                let all = question.scope == Scope::All && all_owners;
                let (census, walked) = walker.census(new, |census, held| {
                    if all || wanted.contains(&held.key.netns) {
                        census.enter(held);
                    }
                })?;
                (census, "walk", walked.strayed)
            }
            None => {
                let why = self.why_procfs.iter().map(|why| format!("not by ctnetlink: {why}"));
                notes.extend(why);
                let by = match self.list {
                    List::Ctnetlink => "ctnetlink",
                    List::Procfs => "procfs",
                };
                (self.lists(new(), question, &found, &mut kernel)?, by, 0)
            }
        };
        self.count_again(&found, &mut kernel)?;
        let counted = census.finish(question.most);
        Ok(Taken {
            by: by.into(),
            took: begin.elapsed(),
            cpu: cpu_time().saturating_sub(cpu),
            strayed,
            kernel,
            counted,
            notes,
        })
    }

    fn find(&mut self, scope: &Scope) -> Result<Vec<Netns>> {
        if *scope == Scope::Own {
            return Ok(vec![netns::current()?]);
        }
        Ok(scope.among(&*self.finder.find(false)?))
    }

    /// How full the kernel says that each is.
    fn counts(
        &self,
        Question { scope, whose, .. }: &Question,
        found: &[Netns],
        notes: &mut Vec<String>,
    ) -> Result<Vec<KernelCount>> {
        let mut counts = Vec::with_capacity(found.len());
        for netns in found {
            let owner = owner::owner(netns);
            if !whose.admits(&owner) {
                continue;
            }
            let visit = self.visitor.enter_next(netns, || self.visitor.entries_here());
            let (cookie, entries) = match visit? {
                Visit::Read(reading) if scope.is(netns, reading.0) => reading,
                // Gone, and its number is another's.
                Visit::Read(_) => continue,
                Visit::Refused(error) => {
                    notes.push(format!("{error:#}"));
                    continue;
                }
                Visit::Gone => continue,
            };
            counts.push(KernelCount {
                netns: self.id(netns, cookie),
                is_judged: whose.judges(&owner),
                owner,
                inode: netns.inode,
                name: netns.name.clone(),
                workload: netns.workload.clone(),
                before: entries.ok(),
                after: None,
                unlisted: None,
                is_torn: false,
            });
        }
        self.visitor.go_home()?;
        Ok(counts)
    }

    /// The same once more, of those that were counted.
    fn count_again(&self, found: &[Netns], kernel: &mut [KernelCount]) -> Result<()> {
        let mut found = found.iter();
        for count in kernel {
            // They were counted in the order in which they were found.
            let Some(netns) = found.by_ref().find(|netns| netns.inode == count.inode) else {
                break;
            };
            let visit = self.visitor.enter_next(netns, || self.visitor.entries_here());
            if let Visit::Read((cookie, entries)) = visit?
                && self.id(netns, cookie) == count.netns
            {
                count.after = entries.ok();
            }
        }
        self.visitor.go_home()
    }

    fn id(&self, netns: &Netns, cookie: Option<u64>) -> NetnsId {
        cookie.filter(|_| self.cookies).unwrap_or(netns.inode.into())
    }

    /// Those that hold nothing are not asked.
    fn lists(
        &self,
        mut census: census::Census,
        question: &Question,
        found: &[Netns],
        kernel: &mut [KernelCount],
    ) -> Result<census::Census> {
        let (mut first, mut listed) = (None, 0_usize);
        for netns in found {
            let Some(count) = kernel.iter_mut().find(|count| count.inode == netns.inode) else {
                continue;
            };
            if count.before == Some(0) || (question.only_judged && !count.is_judged) {
                continue;
            }
            let by_ctnetlink = self.list == List::Ctnetlink;
            // Unloaded since.
            if by_ctnetlink && self.way != Way::Ctnetlink && modules::ctnetlink() == Some(false) {
                bail!("asking ctnetlink would load its module");
            }
            let name = || netns.shown();
            let dumped = self.visitor.enter(netns, || match self.list {
                List::Ctnetlink => dump::dump(count.netns, |held| census.enter(held)),
                List::Procfs => {
                    listing::list(count.netns, |held| census.enter(held)).map(|()| Dumped::Whole)
                }
            })?;
            match dumped {
                Visit::Read(Ok(dumped)) => {
                    listed += 1;
                    count.is_torn = dumped == Dumped::Torn;
                }
                Visit::Read(Err(error)) => {
                    let name = name();
                    let mut error = error.context(format!("cannot list the entries of {name}"));
                    if let Some(why) = &self.why_procfs {
                        error = error.context(format!("not by ctnetlink: {why}"));
                    }
                    count.unlisted = Some(format!("{error:#}"));
                    first.get_or_insert(error);
                }
                Visit::Refused(error) => {
                    count.unlisted = Some(format!("{error:#}"));
                    first.get_or_insert(error);
                }
                Visit::Gone => count.unlisted = Some("it is gone".to_owned()),
            }
        }
        // Nothing at all is no census.
        match first {
            Some(error) if listed == 0 => Err(error),
            _ => Ok(census),
        }
    }
}

/// What this thread has used.
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
