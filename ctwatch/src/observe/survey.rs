//! Looks over this machine for the doctor, once: host -> facts. Read-only, and it loads nothing.
//!
//! Goes into namespaces, so it runs on a thread of its own.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use ctwatch_abi::NetnsId;

use super::{in_time::ask, sampler::Scope, wanted::Whose};
use crate::{
    host::{
        self,
        kernel::{
            kmsg,
            modules::{self, Life},
            settings,
        },
        machine::{evidence, tools},
        netfilter::{hooks, legacy, nft},
        netns::{
            self, Finder, Netns, addresses, allowances, bridges, owner,
            visit::{self, Reading, Source, Sysctls, Visit, Visitor, sysctl},
        },
    },
    record::{
        counters::CounterSums,
        facts::{Facts, Form, Known, Namespace, Stranger, Totals},
        sample::Owner,
    },
    threads,
};

/// Where it says which expectations there are, of the calling thread's namespace.
const EXPECTATIONS: &str = "/proc/thread-self/net/nf_conntrack_expect";

/// All that can be found out without counting anything. `cookies`: whether namespaces are known by
/// their cookies; `asked`: whether somebody wanted this scope and no more.
pub fn survey(
    scope: Scope,
    whose: Whose,
    source: Source,
    cookies: bool,
    asked: bool,
) -> Result<Facts> {
    threads::apart("survey", move || look(&scope, whose, source, cookies, asked))?
}

fn look(scope: &Scope, whose: Whose, source: Source, cookies: bool, asked: bool) -> Result<Facts> {
    let release = host::kernel_release();
    let said = |error: anyhow::Error| format!("{error:#}");
    let mut unvisited = Vec::new();
    match scope {
        Scope::All => {}
        Scope::Own if !asked => {
            unvisited.push("other namespaces are not looked into: needs CAP_SYS_ADMIN".to_owned())
        }
        _ => unvisited.push("other namespaces are not looked into: --netns says so".to_owned()),
    }
    if let Whose::Host | Whose::User(_) = whose {
        unvisited.push("those of other owners are not looked into: --owner says so".to_owned());
    }
    let own = netns::current().map(|own| own.inode).ok();
    let found = fullest(scope, whose, source)?;
    let mut unowned: Vec<(String, String)> = match whose {
        Whose::HostFirst | Whose::Host => found.iter().filter_map(unowned).collect(),
        _ => Vec::new(),
    };
    // Not in the order of how full they are, which changes.
    unowned.sort();
    let parts = Parts::look();
    // Of the whole machine; read while namespaces are looked into.
    let memory = ask("memory", settings::memory);
    let slab = ask("/proc/slabinfo", settings::slab);
    let log = ask("the kernel's log", kmsg::read);
    let files = ask("files of sysctl.d", settings::sysctls);
    let barred = ask("files of modprobe.d", settings::barred);
    let tools = ask("programs here", tools::tools);
    let evidence = ask("who manages this machine", evidence::evidence);
    let modules = ask("modules", {
        let release = release.clone();
        move || {
            let loaded = settings::loaded();
            (settings::trackers(&release, &loaded), loaded)
        }
    });
    let (looked, missing) = each(found, TIME, move || {
        let visitor = Visitor::new(source)?;
        Ok(move |(owner, netns): &(Owner, Netns)| {
            if let Owner::User(uid) = owner
                && !whose.judges(owner)
            {
                return Ok(Looked::Stranger(stranger(
                    *uid,
                    netns,
                    visitor.enter(netns, || visitor.read_here(|_| Vec::new()))?,
                )));
            }
            let visit =
                visitor.enter(netns, || namespace(netns, &visitor, cookies, own, &parts))?;
            Ok(Looked::Own(Box::new(visit)))
        })
    })?;
    let (mut namespaces, mut others) = (Vec::new(), Vec::new());
    for looked in looked {
        match looked {
            Looked::Stranger(stranger) => others.extend(stranger),
            Looked::Own(visit) => match *visit {
                Visit::Read(namespace) => namespaces.push(namespace),
                Visit::Refused(error) => unvisited.push(said(error)),
                Visit::Gone => {}
            },
        }
    }
    namespaces.sort_by_key(|namespace: &Namespace| namespace.inode);
    let missing: Vec<Netns> = missing.into_iter().map(|(_, netns)| netns).collect();
    unvisited.extend(too_late(&missing));
    let (on_disk, loaded) = match modules.answer() {
        Ok(found) => found,
        Err(why) => (Err(why.clone()), Err(why)),
    };
    let files = files.or_none(&mut unvisited);
    let barred = barred.or_none(&mut unvisited);
    let tools = tools.or_none(&mut unvisited);
    let evidence = evidence.or_none(&mut unvisited);
    Ok(Facts {
        form: match modules::life() {
            None => Form::Absent,
            Some(Life::Module(_)) => Form::Module,
            Some(Life::BuiltIn) => Form::BuiltIn,
            Some(Life::Unknown) => Form::Loaded,
        },
        on_disk,
        modules: loaded,
        limit: visit::limit(source).map_err(said),
        buckets: visit::buckets().map_err(said),
        buckets_by: settings::buckets_by(),
        expect_max: sysctl("nf_conntrack_expect_max").map_err(said),
        memory: memory.answer().flatten(),
        slab: slab.answer().flatten(),
        log: log.answer().flatten(),
        settings: files,
        barred,
        namespaces,
        others,
        unowned,
        tools,
        evidence,
        limit_is: settings::limit_is(),
        unvisited,
        release,
    })
}

/// Those that are looked into, and whose they are: one's own, and then the fullest. What is most wanted comes
/// first, as there may be no time for all.
pub fn fullest(scope: &Scope, whose: Whose, source: Source) -> Result<Vec<(Owner, Netns)>> {
    let own = netns::current().map(|own| own.inode).ok();
    let found = find(scope)?.into_iter().map(|netns| (owner::owner(&netns), netns));
    let mut found: Vec<(Owner, Netns)> = found.filter(|(owner, _)| whose.admits(owner)).collect();
    let is_last = |owner: &Owner| matches!(owner, Owner::User(_)) && !whose.judges(owner);
    let held = entries(&found, source)?;
    found.sort_by_key(|(owner, netns)| {
        let entries = held.get(&netns.inode).copied().unwrap_or(0);
        (is_last(owner), own != Some(netns.inode), netns.pid() != Some(1), Reverse(entries))
    });
    Ok(found)
}

/// One whose owner is unknown, and why.
fn unowned((owner, netns): &(Owner, Netns)) -> Option<(String, String)> {
    match owner {
        Owner::Unknown(why) => Some((netns.shown(), why.clone())),
        Owner::Host | Owner::User(_) => None,
    }
}

/// What one was found to be.
enum Looked {
    Own(Box<Visit<Namespace>>),
    /// `None` where it is gone.
    Stranger(Option<Stranger>),
}

fn find(scope: &Scope) -> Result<Vec<Netns>> {
    if *scope == Scope::Own {
        return Ok(vec![netns::current()?]);
    }
    Ok(scope.among(&*Finder::default().find(true)?))
}

/// How many entries each holds, as far as that is known soon.
fn entries(found: &[(Owner, Netns)], source: Source) -> Result<HashMap<u32, u32>> {
    let found: Vec<Netns> = found.iter().map(|(_, netns)| netns.clone()).collect();
    let (held, _) = each(found, SOON, move || {
        let visitor = Visitor::new(source)?;
        Ok(move |netns: &Netns| {
            let visit = visitor.enter(netns, || visitor.entries_here().1)?;
            Ok(match visit {
                Visit::Read(Ok(entries)) => Some((netns.inode, entries)),
                _ => None,
            })
        })
    })?;
    Ok(held.into_iter().flatten().collect())
}

/// To find out which of them are fullest.
const SOON: Duration = Duration::from_secs(1);
/// All of them are looked into in no more time than this.
const TIME: Duration = Duration::from_secs(10);
/// One that is being looked into then may take so much longer.
const GRACE: Duration = Duration::from_secs(1);
/// Where there are many, several threads share them, each of which takes so many or more.
const FEW: usize = 64;
const MOST_THREADS: usize = 4;
/// Names in one line.
const MOST_NAMES: usize = 20;

/// Looks into each, in about this order, for so long; and those for which there was no time. `begin`
/// is called on each thread that does it.
fn each<N, T, L>(
    found: Vec<N>,
    time: Duration,
    begin: impl FnOnce() -> Result<L> + Clone + Send + 'static,
) -> Result<(Vec<T>, Vec<N>)>
where
    N: Clone + Send + Sync + 'static,
    T: Send + 'static,
    L: FnMut(&N) -> Result<T>,
{
    let until = Instant::now() + time;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = processors.min(MOST_THREADS).min(found.len() / FEW + 1);
    let (found, next) = (Arc::new(found), Arc::new(AtomicUsize::new(0)));
    let (tell, told) = mpsc::channel();
    let mut started = 0;
    for _ in 0..threads {
        let (found, next, tell, begin) =
            (Arc::clone(&found), Arc::clone(&next), tell.clone(), begin.clone());
        let thread = threads::start("look", move || {
            let mut look = match begin() {
                Ok(look) => look,
                Err(error) => {
                    // Whoever waits may have had no more time.
                    let _ = tell.send((0, Err(error)));
                    return;
                }
            };
            while Instant::now() < until {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(netns) = found.get(at) else { return };
                let looked = look(netns);
                // After an error this thread is lost somewhere.
                let is_over = looked.is_err();
                if tell.send((at, looked)).is_err() || is_over {
                    return;
                }
            }
        });
        match thread {
            Ok(_) => started += 1,
            Err(error) if started == 0 => return Err(error),
            // Fewer take longer.
            Err(_) => break,
        }
    }
    drop(tell);
    let mut looked: Vec<Option<T>> = Vec::new();
    looked.resize_with(found.len(), || None);
    let wait = |until: Instant| (until + GRACE).saturating_duration_since(Instant::now());
    while let Ok((at, answer)) = told.recv_timeout(wait(until)) {
        looked[at] = Some(answer?);
    }
    let missing = found.iter().zip(&looked).filter(|(_, looked)| looked.is_none());
    let missing = missing.map(|(netns, _)| netns.clone()).collect();
    Ok((looked.into_iter().flatten().collect(), missing))
}

/// Those for which there was no time.
fn too_late(missing: &[Netns]) -> Option<String> {
    if missing.is_empty() {
        return None;
    }
    let mut names: Vec<String> = missing.iter().take(MOST_NAMES).map(Netns::shown).collect();
    match missing.len().saturating_sub(MOST_NAMES) {
        0 => {}
        more => names.push(format!("and {more} more")),
    }
    Some(format!(
        "{} not looked into, for lack of time ({} s; --netns looks into one): {}",
        if missing.len() == 1 {
            "1 namespace was".to_owned()
        } else {
            format!("{} namespaces were", missing.len())
        },
        TIME.as_secs(),
        names.join(", ")
    ))
}

/// What is the same in all namespaces: whether parts of netfilter may be asked.
#[derive(Clone)]
struct Parts {
    hooks: Known<()>,
    nft: bool,
    bridges: bool,
}

impl Parts {
    fn look() -> Self {
        Self {
            hooks: hooks::may_be_asked(),
            nft: nft::may_be_asked(),
            bridges: bridges::may_be_tracked(),
        }
    }
}

/// The one that this thread is in.
fn namespace(
    netns: &Netns,
    visitor: &Visitor,
    cookies: bool,
    own: Option<u32>,
    parts: &Parts,
) -> Namespace {
    let Reading { cookie, entries, counters, .. } = visitor.read_here(|_| Vec::new());
    let said = |error: anyhow::Error| format!("{error:#}");
    Namespace {
        id: cookie.filter(|_| cookies).unwrap_or(NetnsId::from(netns.inode)),
        inode: netns.inode,
        name: netns.name.clone(),
        workload: netns.workload.clone(),
        is_own: own == Some(netns.inode),
        by_ip: netns.is_by_ip(),
        pid: netns.pid(),
        mount: netns.mount().map(|path| path.display().to_string()),
        addresses: addresses::addresses(),
        allowances: allowances::allowances(),
        entries: entries.map_err(said),
        totals: counters.map(|cpus| totals(&CounterSums::of(&cpus))).map_err(said),
        expectations: expectations(),
        timeouts: timeouts(),
        hooks: parts.hooks.clone().and_then(|()| hooks::hooks()),
        bridges: if parts.bridges { bridges::tracked() } else { None },
        // Where it is not loaded there are none.
        nft: if parts.nft { nft::tables() } else { Ok(Vec::new()) },
        legacy: legacy::tables(),
    }
}

/// `None` where it is gone.
fn stranger(uid: u32, netns: &Netns, visit: Visit) -> Option<Stranger> {
    let said = |error: anyhow::Error| format!("{error:#}");
    let (entries, totals) = match visit {
        Visit::Read(Reading { entries, counters, .. }) => (
            entries.map_err(said),
            counters.map(|cpus| totals(&CounterSums::of(&cpus))).map_err(said),
        ),
        Visit::Refused(error) => (Err(said(error)), Err("it could not be entered".to_owned())),
        Visit::Gone => return None,
    };
    let name = netns.name.clone();
    Some(Stranger { uid, inode: netns.inode, name, entries, totals })
}

/// In the doctor's words.
pub fn totals(sums: &CounterSums) -> Totals {
    let CounterSums {
        invalid, insert_failed, drop, early_drop, clash_resolve, chaintoolong, ..
    } = *sums;
    Totals { invalid, insert_failed, drop, early_drop, clash_resolve, chaintoolong }
}

fn expectations() -> Known<u32> {
    let text = fs::read_to_string(EXPECTATIONS)
        .map_err(|error| format!("cannot read {EXPECTATIONS}: {error}"))?;
    u32::try_from(text.lines().count()).map_err(|error| error.to_string())
}

/// What cannot be read is not among them.
fn timeouts() -> BTreeMap<String, u32> {
    let Ok(sysctls) = Sysctls::open() else { return BTreeMap::new() };
    let names = sysctls.names().into_iter().filter(|name| name.contains("_timeout"));
    names.filter_map(|name| sysctls.number(&name).ok().map(|seconds| (name, seconds))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::recorded;

    /// Whatever may be read here, and as whom.
    #[test]
    fn what_is_seen_here_can_be_recorded() {
        let facts = survey(Scope::Own, Whose::All, Source::Procfs, true, true).unwrap();
        let read = recorded(&facts);
        assert_eq!((read.release, read.namespaces.len()), (host::kernel_release(), 1));
    }

    fn found(count: u32) -> Vec<Netns> {
        let path = |inode| format!("/x/{inode}").into();
        let netns =
            |inode| Netns { inode, name: None, path: path(inode), workload: Default::default() };
        (0..count).map(netns).collect()
    }

    #[test]
    fn all_are_looked_into_where_there_is_time() {
        let begin = || Ok(|netns: &Netns| Ok(netns.inode));
        let (looked, missing) = each(found(1000), Duration::from_secs(60), begin).unwrap();
        assert_eq!(looked, (0..1000).collect::<Vec<u32>>());
        assert_eq!((missing.len(), too_late(&missing)), (0, None));
    }

    #[test]
    fn those_without_time_are_named() {
        let begin = || Ok(|_: &Netns| Ok(()));
        let (looked, missing) = each(found(30), Duration::ZERO, begin).unwrap();
        assert_eq!((looked.len(), missing.len()), (0, 30));
        let said = too_late(&missing).unwrap();
        assert!(said.starts_with("30 namespaces were not looked into"), "{said}");
        assert!(said.ends_with("18, 19, and 10 more"), "{said}");
        // One that does not answer keeps the others from nothing.
        let begin = || {
            Ok(|netns: &Netns| {
                if netns.inode == 0 {
                    std::thread::sleep(Duration::from_secs(3600));
                }
                Ok(())
            })
        };
        let (looked, missing) = each(found(1), Duration::from_millis(10), begin).unwrap();
        assert_eq!((looked.len(), missing.len()), (0, 1));
    }

    #[test]
    fn a_thread_that_is_lost_is_an_error() {
        let begin = || Ok(|_: &Netns| -> Result<()> { anyhow::bail!("cannot return") });
        assert!(each(found(3), Duration::from_secs(60), begin).is_err());
    }
}
