//! From what this machine offers to what is needed for watching it.

use anyhow::{Context, Result, anyhow, bail};
use ctwatch_ebpf::top::Wanted;

use super::ABSENT;
use crate::{
    cli::{self, Which, Word},
    collect::{Means, Scope},
    host::{
        self, config,
        ctnetlink::{Ctnetlink, explained},
        modules::{self, Presence},
        netns::{self, Netns, Target},
        privileges::{Privilege, Privileges},
        procstat,
        visit::{Source, Visit, Visitor, entry_counts, netns_cookie, sysctl},
    },
    output::Header,
    probe::{
        bpf,
        layout::Resolved,
        load::{self, Asked, Refused},
        plan::{Facts, Mechanism, Need, Plan, Request, Signal, plan},
        read::Probes,
        types,
    },
    threads,
    wanted::{Pattern, Patterns, Whose},
};

/// What was found out about this machine, and what came of it.
pub(super) struct Chosen {
    pub(super) facts: Facts,
    pub(super) plan: Plan,
    pub(super) probes: Option<Probes>,
    pub(super) cookies: bool,
}

/// Chooses the mechanisms, loads the probes, and says what cannot be had and why.
pub(super) fn prepare(args: &cli::WatchArgs) -> Result<(Means, Header)> {
    let privileges = Privileges::read();
    let scope = scope(&args.which, privileges)?;
    let whose = whose(&args.which, &scope);
    let request = request(args.mechanism);
    let ctnetlink_came = modules::ctnetlink_would_be_loaded();
    let lists = match args.tops() {
        0 => Wanted::default(),
        _ => Wanted::of(args.by()),
    };
    let asked = Asked { lists, trace: None };
    let Chosen { plan, probes, cookies, .. } = choose(request, privileges, Depth::Enough, asked);
    if let Some(why) = unusable(&plan, request) {
        bail!("{why}");
    }
    let source = match plan.mechanism(Signal::Table) {
        Some(Mechanism::Ctnetlink) => Source::Ctnetlink,
        _ => Source::Procfs,
    };
    let mut notes = plan.notes();
    notes.extend(loaded_meanwhile(&plan, ctnetlink_came));
    if scope == Scope::Own && !privileges.has(Privilege::SysAdmin) {
        notes.push("other namespaces are not looked into: needs CAP_SYS_ADMIN".to_owned());
    }
    notes.extend(unseen_processes(&scope, privileges));
    let header = Header {
        version: env!("CARGO_PKG_VERSION"),
        kernel: host::kernel_release(),
        interval: args.interval(),
        mechanisms: Signal::ALL
            .map(|signal| (signal.name(), plan.mechanism(signal).map(Mechanism::name)))
            .to_vec(),
        notes,
        top_bytes: probes.as_ref().and_then(Probes::top_bytes),
    };
    Ok((Means { source, probes, scope, whose, only_judged: false, cookies }, header))
}

/// What it takes to read the kernel's own counters, and no more; and what that costs.
pub(super) fn without_programs(
    scope: Scope,
    whose: Whose,
    privileges: Privileges,
) -> Result<(Means, Vec<String>)> {
    let request = Request::Only(Mechanism::Counters);
    let ctnetlink_came = modules::ctnetlink_would_be_loaded();
    let Chosen { plan, cookies, .. } = choose(request, privileges, Depth::Enough, Asked::default());
    let source = match plan.mechanism(Signal::Table) {
        Some(Mechanism::Ctnetlink) => Source::Ctnetlink,
        Some(_) => Source::Procfs,
        None => bail!("nothing can be read here: {}", plan.refusals().join("; ")),
    };
    let notes = loaded_meanwhile(&plan, ctnetlink_came).into_iter().collect();
    Ok((Means { source, probes: None, scope, whose, only_judged: true, cookies }, notes))
}

/// Asking ctnetlink may load its module.
fn loaded_meanwhile(plan: &Plan, would_be_loaded: bool) -> Option<String> {
    let was_asked = plan.mechanism(Signal::Table) == Some(Mechanism::Ctnetlink);
    match modules::ctnetlink() {
        _ if !would_be_loaded => None,
        Some(true) => {
            Some("nf_conntrack_netlink was loaded: nothing else has the counters".to_owned())
        }
        None if was_asked => Some(
            "nf_conntrack_netlink was asked, as nothing else has the counters; whether that loaded \
             it cannot be seen here"
                .to_owned(),
        ),
        _ => None,
    }
}

pub(super) fn request(mechanism: cli::Mechanism) -> Request {
    match mechanism {
        cli::Mechanism::Auto => Request::Auto,
        cli::Mechanism::Fexit => Request::Only(Mechanism::Fexit),
        cli::Mechanism::Kprobe => Request::Only(Mechanism::Kprobe),
        cli::Mechanism::Tracepoint => Request::Only(Mechanism::Tracepoint),
        cli::Mechanism::Counters => Request::Only(Mechanism::Counters),
    }
}

pub(super) fn scope(which: &Which, privileges: Privileges) -> Result<Scope> {
    if which.is_any() {
        return one(&cli::Netns::All, privileges);
    }
    if let Some(wanted) = which.one() {
        return one(wanted, privileges);
    }
    if !privileges.has(Privilege::SysAdmin) {
        bail!(OTHERS);
    }
    let (mut targets, mut patterns) = (Vec::new(), Patterns::default());
    for word in &which.netns {
        match word {
            Word::One(cli::Netns::All) => patterns.only.push(Pattern::exactly("*")),
            Word::One(wanted) => {
                let netns = named(wanted)?;
                targets.push(threads::apart("namespace", move || target(netns))??);
            }
            Word::Like(pattern) => patterns.only.push(pattern.clone()),
            Word::Not(pattern) => patterns.not.push(pattern.clone()),
        }
    }
    Ok(Scope::Some(targets, patterns))
}

/// Those that were asked for by name raise alarms whoever owns them. A pattern is no name: whoever
/// names his own processes after it must not raise one.
pub(super) fn whose(which: &Which, scope: &Scope) -> Whose {
    let is_named = match scope {
        Scope::Own | Scope::One(_) => true,
        Scope::Some(targets, patterns) => !targets.is_empty() && patterns.only.is_empty(),
        Scope::All => false,
    };
    which.owner.unwrap_or(if is_named { Whose::All } else { Whose::default() })
}

fn one(wanted: &cli::Netns, privileges: Privileges) -> Result<Scope> {
    let may = privileges.has(Privilege::SysAdmin);
    let current = netns::current()?;
    let netns = match wanted {
        cli::Netns::All if may => return Ok(Scope::All),
        cli::Netns::All => return Ok(Scope::Own),
        cli::Netns::Inode(inode) if *inode == current.inode => return Ok(Scope::Own),
        // Without it, others may be there and not be seen.
        cli::Netns::Inode(_) if !may => bail!(OTHERS),
        _ => named(wanted)?,
    };
    if netns.inode == current.inode {
        return Ok(Scope::Own);
    }
    if !may {
        bail!(OTHERS);
    }
    // Going into it changes the thread.
    threads::apart("namespace", move || target(netns))?.map(Scope::One)
}

/// Namespaces that only such a process shows are not seen, and nothing else says so.
pub(super) fn unseen_processes(scope: &Scope, privileges: Privileges) -> Option<String> {
    const UNSEEN: &str = "namespaces that nothing but processes with more capabilities shows are \
                          not seen: needs CAP_SYS_PTRACE";
    let unseen = *scope == Scope::All && !privileges.has(Privilege::SysPtrace);
    unseen.then(|| UNSEEN.to_owned())
}

const OTHERS: &str = "looking into another network namespace needs CAP_SYS_ADMIN";

/// The namespace that this way leads to now.
fn target(netns: Netns) -> Result<Target> {
    match Visitor::new(Source::Procfs)?.enter(&netns, netns_cookie)? {
        Visit::Read(cookie) => Ok(Target::new(netns, cookie)),
        // It is shown as what it is: there, and not to be read.
        Visit::Refused(_) => Ok(Target::new(netns, None)),
        Visit::Gone => bail!("the network namespace {} is gone", netns.inode),
    }
}

/// The namespace that was asked for.
pub(super) fn named(wanted: &cli::Netns) -> Result<Netns> {
    match wanted {
        cli::Netns::All => bail!("all namespaces are not one"),
        cli::Netns::Path(path) => netns::at(path),
        cli::Netns::Inode(inode) => numbered(*inode),
        cli::Netns::Name(name) => called(name)?.with_context(|| no_such(name)),
        cli::Netns::Word(word) => match (called(word)?, word.parse()) {
            (Some(netns), _) => Ok(netns),
            (None, Ok(inode)) => numbered(inode),
            (None, Err(_)) => Err(anyhow!(no_such(word))),
        },
    }
}

fn numbered(inode: u32) -> Result<Netns> {
    let mut found = netns::find()?;
    // Also where it cannot be looked for, one's own is there.
    let current = netns::current()?;
    found.entry(current.inode).or_insert(current);
    found.remove(&inode).with_context(|| {
        format!(
            "no network namespace that can be seen has the inode number {inode} (lsns -t net lists \
             them), and none that name"
        )
    })
}

fn called(name: &str) -> Result<Option<Netns>> {
    let mut named = netns::by_name(name)?;
    if named.len() > 1 {
        let paths: Vec<_> = named.iter().map(|netns| netns.path.display().to_string()).collect();
        bail!(
            "{} network namespaces are called so; take one of their paths: {}",
            named.len(),
            paths.join(", ")
        );
    }
    Ok(named.pop())
}

fn no_such(name: &str) -> String {
    let found = netns::find().unwrap_or_default();
    let shown = |netns: Netns| Some(netns.workload.shown(netns.name.as_deref())?.into_owned());
    let mut known: Vec<_> = found.into_values().filter_map(shown).collect();
    known.truncate(20);
    format!("no network namespace is called {name:?}; there are: {}", known.join(", "))
}

/// How much is to be found out.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Depth {
    /// What it takes to count.
    Enough,
    /// Everything, for somebody who asks.
    All,
}

/// Finds out what this machine offers, tries it, and goes on without what the kernel refuses.
pub(super) fn choose(
    request: Request,
    privileges: Privileges,
    depth: Depth,
    asked: Asked,
) -> Chosen {
    let cookies = netns_cookie().is_some();
    let facts = facts(privileges);
    // Not worth its time where no program can be loaded anyway.
    if facts.of(Need::Bpf).is_err() || request == Request::Only(Mechanism::Counters) {
        let plan = plan(&facts, request);
        return Chosen { facts, plan, probes: None, cookies };
    }
    // Whoever else needs the types meanwhile shares them.
    let _held = types::hold();
    let wanted = |mechanism| match request {
        Request::Only(only) => depth == Depth::All || only == mechanism,
        Request::Auto => true,
    };
    let mut resolved = Resolved::by_btf(wanted);
    if depth == Depth::All {
        resolved.look_for_symbols();
    }
    attempt(request, facts, resolved, cookies, asked)
}

fn attempt(
    request: Request,
    mut facts: Facts,
    mut resolved: Resolved,
    cookies: bool,
    asked: Asked,
) -> Chosen {
    if !cookies {
        // Both halves must call a namespace by the same name.
        resolved.layout.net_cookie = 0;
    }
    take_in(&mut facts, &resolved);
    facts.set(Need::Fexit, found(&resolved.fexit));
    // Unless it turns out otherwise.
    facts.set(Need::KprobeMisses, found(&resolved.kprobe));
    facts.set(Need::Tracepoint, Ok(()));
    let mut misses_tried = false;
    loop {
        let chosen = plan(&facts, request);
        if !chosen.probes() {
            return Chosen { facts, plan: chosen, probes: None, cookies };
        }
        // Each turn takes one fact away or finds one out, so this ends.
        if resolved.complete(&chosen) {
            take_in(&mut facts, &resolved);
            continue;
        }
        if !misses_tried && counts_entries_by_kprobe(&chosen) {
            misses_tried = true;
            if !load::probes_tell_misses() {
                facts.set(Need::KprobeMisses, Err(NO_MISSES.to_owned()));
                continue;
            }
        }
        match Probes::start(&chosen, &resolved, asked) {
            Err(Refused { mechanism, error }) => {
                facts.set(need(mechanism), Err(format!("{error:#}")));
            }
            Ok(probes) if facts.of(Need::KprobeMisses).is_ok() && !probes.misses_are_known() => {
                facts.set(Need::KprobeMisses, Err(NO_MISSES.to_owned()));
            }
            Ok(probes) => {
                return Chosen { facts, plan: chosen, probes: Some(probes), cookies };
            }
        }
    }
}

const NO_MISSES: &str = "this kernel does not say what its kprobes miss";

/// What looking for the kernel's symbols may change.
fn take_in(facts: &mut Facts, resolved: &Resolved) {
    facts.set(Need::EntryLayout, resolved.entries.clone());
    facts.set(Need::DropLayout, resolved.drops.clone());
    facts.set(Need::FreeLayout, resolved.free.clone());
    facts.set(Need::Kprobe, found(&resolved.kprobe));
}

fn found<T>(functions: &Result<T, String>) -> Result<(), String> {
    functions.as_ref().map(|_| ()).map_err(Clone::clone)
}

fn counts_entries_by_kprobe(plan: &Plan) -> bool {
    let by = |signal| plan.mechanism(signal) == Some(Mechanism::Kprobe);
    by(Signal::Insertions) || by(Signal::Removals)
}

/// What it takes for a mechanism to be tried again.
fn need(mechanism: Option<Mechanism>) -> Need {
    match mechanism {
        Some(Mechanism::Fexit) => Need::Fexit,
        Some(Mechanism::Kprobe) => Need::Kprobe,
        Some(Mechanism::Tracepoint) => Need::Tracepoint,
        _ => Need::Bpf,
    }
}

/// What this machine offers, as far as nothing needs to be resolved or tried.
fn facts(privileges: Privileges) -> Facts {
    let mut facts = Facts::new();
    let missing = [Privilege::Bpf, Privilege::Perfmon]
        .into_iter()
        .filter(|privilege| !privileges.has(*privilege))
        .map(Privilege::name)
        .collect::<Vec<_>>();
    let privileged = match missing.as_slice() {
        [] => Ok(()),
        missing => Err(format!("needs {}", missing.join(" and "))),
    };
    let bpf = match bpf::is_there() {
        true => Ok(()),
        false => Err(config::why_not("CONFIG_BPF_SYSCALL")),
    };
    facts.set(Need::Bpf, bpf.and(load::embedded()).and(privileged));
    let procstat = procstat::counters().map(|_| ()).map_err(|error| format!("{error:#}"));
    let ctnetlink = if let Some(why) = unseen() {
        Err(why)
    } else if procstat.is_ok() && modules::ctnetlink_would_be_loaded() {
        Err("asking it would load its module".to_owned())
    } else {
        let answer = Ctnetlink::open().and_then(|mut socket| socket.counters()).map(|_| ());
        answer.map_err(|error| match privileges.has(Privilege::NetAdmin) {
            true => explained(error),
            false => "needs CAP_NET_ADMIN".to_owned(),
        })
    };
    facts.set(Need::Counters, ctnetlink.clone().or(procstat));
    let source = if ctnetlink.is_ok() { Source::Ctnetlink } else { Source::Procfs };
    facts.set(Need::EntryCounts, facts_of_entries(&facts, source));
    facts.set(Need::Ctnetlink, ctnetlink);
    let count = sysctl("nf_conntrack_count").map(|_| ()).map_err(|error| format!("{error:#}"));
    facts.set(Need::Procfs, count);
    facts
}

/// Why conntrack is not to be asked for anything.
fn unseen() -> Option<String> {
    match modules::presence() {
        Presence::Loaded(_) => None,
        Presence::Absent => Some(ABSENT.to_owned()),
        Presence::OutOfSight(why) => Some(why),
    }
}

/// Where there are no counters, that is why.
fn facts_of_entries(facts: &Facts, source: Source) -> Result<(), String> {
    facts.of(Need::Counters).map_err(str::to_owned).and_then(|()| entry_counts(source))
}

/// Why nothing can be shown at all.
fn unusable(plan: &Plan, request: Request) -> Option<String> {
    if let Request::Only(mechanism) = request
        && plan.mechanism(Signal::Drops) != Some(mechanism)
    {
        let why = plan.refused.iter().find(|refusal| refusal.mechanism == mechanism);
        let why = why.map_or_else(String::new, |refusal| refusal.why.clone());
        return Some(format!("the mechanism {} cannot be used here: {why}", mechanism.name()));
    }
    if plan.chosen.is_empty() {
        return Some(format!("nothing can be measured here: {}", plan.refusals().join("; ")));
    }
    None
}
