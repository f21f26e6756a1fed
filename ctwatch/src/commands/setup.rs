//! From what this machine offers to what is needed for watching it.

use std::path::Path;

use anyhow::{Result, bail};

use crate::{
    cli,
    collect::{Means, Scope},
    host::{
        self,
        ctnetlink::Ctnetlink,
        netns,
        privileges::{Privilege, Privileges},
        procstat,
        visit::{Source, netns_cookie, sysctl},
    },
    output::Header,
    probe::{
        layout::Resolved,
        load,
        plan::{Facts, Mechanism, Plan, Request, Signal, plan},
        read::Probes,
    },
};

/// There from the moment `nf_conntrack` is.
const CONNTRACK: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

pub(super) fn conntrack_is_there() -> bool {
    Path::new(CONNTRACK).exists()
}

/// Chooses the mechanisms, loads the probes, and says what cannot be had and why.
pub(super) fn prepare(args: &cli::WatchArgs) -> Result<(Means, Header)> {
    let privileges = Privileges::read();
    let scope = scope(&args.netns, privileges)?;
    let request = match args.mechanism {
        cli::Mechanism::Auto => Request::Auto,
        cli::Mechanism::Tracepoint => Request::Only(Mechanism::Tracepoint),
        cli::Mechanism::Counters => Request::Only(Mechanism::Counters),
    };
    let cookies = netns_cookie().is_some();
    let (plan, probes) = plan_and_load(facts(request, privileges), request, cookies)?;
    let source = match plan.mechanism(Signal::Table) {
        Some(Mechanism::Procfs) => Source::Procfs,
        _ => Source::Ctnetlink,
    };
    let mut notes = plan.refusals();
    if scope == Scope::Own && !privileges.has(Privilege::SysAdmin) {
        notes.push("other namespaces are not looked into: needs CAP_SYS_ADMIN".to_owned());
    }
    let header = Header {
        version: env!("CARGO_PKG_VERSION"),
        kernel: host::kernel_release(),
        interval: args.interval(),
        mechanisms: Signal::ALL
            .map(|signal| (signal.name(), plan.mechanism(signal).map(Mechanism::name)))
            .to_vec(),
        notes,
    };
    Ok((Means { source, probes, scope, cookies }, header))
}

fn scope(wanted: &cli::Netns, privileges: Privileges) -> Result<Scope> {
    let current = netns::current()?;
    let inode = match wanted {
        cli::Netns::All if privileges.has(Privilege::SysAdmin) => return Ok(Scope::All),
        cli::Netns::All => return Ok(Scope::Own),
        cli::Netns::Inode(inode) => *inode,
        cli::Netns::Name(name) => {
            let found = netns::find()?;
            let named = found.values().find(|netns| netns.name.as_deref() == Some(name));
            let Some(named) = named else {
                let mut known: Vec<_> = found.values().filter_map(|n| n.name.clone()).collect();
                known.truncate(20);
                bail!("no network namespace is called {name:?}; there are: {}", known.join(", "));
            };
            named.inode
        }
    };
    if inode == current.inode {
        return Ok(Scope::Own);
    }
    if !privileges.has(Privilege::SysAdmin) {
        bail!("looking into another network namespace needs CAP_SYS_ADMIN");
    }
    // A name was found just now.
    if matches!(wanted, cli::Netns::Inode(_)) && !netns::find()?.contains_key(&inode) {
        bail!("no network namespace has the inode number {inode} (lsns -t net lists them)");
    }
    Ok(Scope::One(inode))
}

/// What this machine offers, and the layout that the probes need, where they are asked for.
fn facts(request: Request, privileges: Privileges) -> (Facts, Option<Resolved>) {
    let missing = [Privilege::Bpf, Privilege::Perfmon]
        .into_iter()
        .filter(|privilege| !privileges.has(*privilege))
        .map(Privilege::name)
        .collect::<Vec<_>>();
    let mut bpf = load::embedded();
    if bpf.is_ok() && !missing.is_empty() {
        bpf = Err(format!("needs {}", missing.join(" and ")));
    }
    // Not worth its time where no program can be loaded anyway.
    let wanted = bpf.is_ok() && request != Request::Only(Mechanism::Counters);
    let resolved = wanted.then(Resolved::of_this_kernel);
    let ctnetlink = Ctnetlink::open().and_then(|mut socket| socket.counters()).map(|_| ());
    let ctnetlink = ctnetlink.map_err(|error| match privileges.has(Privilege::NetAdmin) {
        true => format!("{error:#}"),
        false => "needs CAP_NET_ADMIN".to_owned(),
    });
    let procstat = || procstat::counters().map(|_| ()).map_err(|error| format!("{error:#}"));
    let unresolved = Err("not looked for".to_owned());
    let facts = Facts {
        bpf,
        drop_layout: resolved.as_ref().map_or(unresolved.clone(), |r| r.drops.clone()),
        entry_layout: resolved.as_ref().map_or(unresolved, |r| r.entries.clone()),
        counters: ctnetlink.clone().or_else(|_| procstat()),
        ctnetlink,
        procfs: sysctl("nf_conntrack_count").map(|_| ()).map_err(|error| format!("{error:#}")),
    };
    (facts, resolved)
}

fn plan_and_load(
    (mut facts, resolved): (Facts, Option<Resolved>),
    request: Request,
    cookies: bool,
) -> Result<(Plan, Option<Probes>)> {
    let mut chosen = plan(&facts, request);
    let mut probes = None;
    if let Some(mut resolved) = resolved.filter(|_| chosen.probes()) {
        if !cookies {
            // Both halves must call a namespace by the same name.
            resolved.layout.net_cookie = 0;
        }
        match Probes::start(&chosen, &resolved.layout) {
            Ok(started) => probes = Some(started),
            Err(error) => {
                facts.bpf = Err(format!("{error:#}"));
                chosen = plan(&facts, request);
            }
        }
    }
    if let Request::Only(mechanism) = request
        && chosen.mechanism(Signal::Drops) != Some(mechanism)
    {
        let why = chosen.refused.iter().find(|refusal| refusal.mechanism == mechanism);
        let why = why.map_or_else(String::new, |refusal| refusal.why.clone());
        bail!("the mechanism {} cannot be used here: {why}", mechanism.name());
    }
    if chosen.chosen.is_empty() {
        bail!("nothing can be measured here: {}", chosen.refusals().join("; "));
    }
    Ok((chosen, probes))
}
