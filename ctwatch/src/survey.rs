//! Looks over this machine for the doctor, once: host -> facts. Read-only, and it loads nothing.
//!
//! Goes into namespaces, so it runs on a thread of its own.

use std::{collections::BTreeMap, fs};

use anyhow::Result;
use ctwatch_ebpf::NetnsId;

use crate::{
    collect::Scope,
    facts::{Facts, Form, Known, Namespace, Stranger, Totals},
    host::{
        self, addresses, allowances, bridges, evidence, hooks, kmsg, legacy,
        modules::{self, Life},
        netns::{self, Finder, Netns},
        nft, owner, settings, tools,
        visit::{self, Reading, Source, Visit, Visitor, sysctl},
    },
    sample::{CpuCounters, Owner},
    threads,
    wanted::Whose,
};

const SYSCTLS: &str = "/proc/sys/net/netfilter";
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
    let visitor = Visitor::new(source)?;
    let (mut namespaces, mut unvisited) = (Vec::new(), Vec::new());
    let (mut others, mut unowned) = (Vec::new(), Vec::new());
    match scope {
        Scope::All => {}
        Scope::Own if !asked => {
            unvisited.push("other namespaces are not looked into: needs CAP_SYS_ADMIN".to_owned())
        }
        _ => unvisited.push("other namespaces are not looked into: --netns says so".to_owned()),
    }
    let own = netns::current().map(|own| own.inode).ok();
    if let Whose::Host | Whose::User(_) = whose {
        unvisited.push("those of other owners are not looked into: --owner says so".to_owned());
    }
    for netns in &find(scope)? {
        let owner = owner::owner(netns);
        if !whose.admits(&owner) {
            continue;
        }
        if let Owner::User(uid) = owner
            && !whose.judges(&owner)
        {
            others.extend(stranger(uid, netns, visitor.read(netns, &[])?));
            continue;
        }
        if let (Owner::Unknown(why), Whose::HostFirst | Whose::Host) = (owner, whose) {
            unowned.push((netns.called(), why));
        }
        match visitor.enter(netns, || namespace(netns, &visitor, cookies, own))? {
            Visit::Read(namespace) => namespaces.push(namespace),
            Visit::Refused(error) => unvisited.push(said(error)),
            Visit::Gone => {}
        }
    }
    let loaded = settings::loaded();
    Ok(Facts {
        form: match modules::life() {
            None => Form::Absent,
            Some(Life::Module(_)) => Form::Module,
            Some(Life::BuiltIn) => Form::BuiltIn,
            Some(Life::Unknown) => Form::Loaded,
        },
        on_disk: settings::trackers(&release, &loaded),
        modules: loaded,
        limit: visit::limit(source).map_err(said),
        buckets: visit::buckets().map_err(said),
        buckets_by: settings::buckets_by(),
        expect_max: sysctl("nf_conntrack_expect_max").map_err(said),
        memory: settings::memory(),
        slab: settings::slab(),
        log: kmsg::read(),
        settings: settings::sysctls(),
        barred: settings::barred(),
        namespaces,
        others,
        unowned,
        tools: tools::tools(),
        evidence: evidence::evidence(),
        limit_is: settings::limit_is(),
        unvisited,
        release,
    })
}

fn find(scope: &Scope) -> Result<Vec<Netns>> {
    if *scope == Scope::Own {
        return Ok(vec![netns::current()?]);
    }
    Ok(scope.among(Finder::default().find(true)?))
}

/// The one that this thread is in.
fn namespace(netns: &Netns, visitor: &Visitor, cookies: bool, own: Option<u32>) -> Namespace {
    let Reading { cookie, entries, counters, .. } = visitor.read_here(&[]);
    let said = |error: anyhow::Error| format!("{error:#}");
    Namespace {
        id: cookie.filter(|_| cookies).unwrap_or(NetnsId::from(netns.inode)),
        inode: netns.inode,
        name: netns.name.clone(),
        is_own: own == Some(netns.inode),
        by_ip: netns.is_by_ip(),
        pid: netns.pid(),
        mount: netns.mount().map(|path| path.display().to_string()),
        addresses: addresses::addresses(),
        allowances: allowances::allowances(),
        entries: entries.map_err(said),
        totals: counters.map(|cpus| totals(&cpus)).map_err(said),
        expectations: expectations(),
        timeouts: timeouts(),
        hooks: hooks::hooks(),
        bridges: bridges::tracked(),
        nft: nft::tables(),
        legacy: legacy::tables(),
    }
}

/// `None` where it is gone.
fn stranger(uid: u32, netns: &Netns, visit: Visit) -> Option<Stranger> {
    let said = |error: anyhow::Error| format!("{error:#}");
    let (entries, totals) = match visit {
        Visit::Read(Reading { entries, counters, .. }) => {
            (entries.map_err(said), counters.map(|cpus| totals(&cpus)).map_err(said))
        }
        Visit::Refused(error) => (Err(said(error)), Err("it could not be entered".to_owned())),
        Visit::Gone => return None,
    };
    let name = netns.name.clone();
    Some(Stranger { uid, inode: netns.inode, name, entries, totals })
}

fn totals(cpus: &[CpuCounters]) -> Totals {
    cpus.iter().fold(Totals::default(), |sum, cpu| Totals {
        invalid: sum.invalid + u64::from(cpu.invalid),
        insert_failed: sum.insert_failed + u64::from(cpu.insert_failed),
        drop: sum.drop + u64::from(cpu.drop),
        early_drop: sum.early_drop + u64::from(cpu.early_drop),
        clash_resolve: sum.clash_resolve + u64::from(cpu.clash_resolve),
        chaintoolong: cpu.chaintoolong.map(|more| sum.chaintoolong.unwrap_or(0) + u64::from(more)),
    })
}

fn expectations() -> Known<u32> {
    let text = fs::read_to_string(EXPECTATIONS)
        .map_err(|error| format!("cannot read {EXPECTATIONS}: {error}"))?;
    u32::try_from(text.lines().count()).map_err(|error| error.to_string())
}

/// What cannot be read is not among them.
fn timeouts() -> BTreeMap<String, u32> {
    let entries = fs::read_dir(SYSCTLS).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let timeouts = names.filter(|name| name.contains("_timeout"));
    timeouts.filter_map(|name| sysctl(&name).ok().map(|seconds| (name, seconds))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_over_all_cpus() {
        let cpu = |drop, chaintoolong| CpuCounters { drop, chaintoolong, ..Default::default() };
        let sum = totals(&[cpu(1, Some(2)), cpu(u32::MAX, Some(3))]);
        assert_eq!((sum.drop, sum.chaintoolong), (1 + u64::from(u32::MAX), Some(5)));
        assert_eq!(totals(&[cpu(1, None)]).chaintoolong, None);
    }
}
