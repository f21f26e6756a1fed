//! Finds out what this machine offers, tries it, and goes on without what the kernel refuses: plan,
//! load, and plan again until the kernel agrees.

use super::{
    bpf,
    layout::Resolved,
    load::{self, Asked, LoadRefused},
    plan::{Plan, Request, plan},
    running::Probes,
    types,
};
use crate::{
    host::{
        kernel::{
            config, guards,
            modules::{self, ABSENT, Presence},
            privileges::{Privilege, Privileges},
        },
        netfilter::{
            ctnetlink::{Ctnetlink, explained},
            procstat,
        },
        netns::visit::{Source, entry_counts, netns_cookie, sysctl},
    },
    record::measurement::{Mechanism, Need, Offers, Signal},
};

/// What was found out about this machine, and what came of it.
pub struct Acquired {
    pub offers: Offers,
    pub plan: Plan,
    pub probes: Option<Probes>,
    pub cookies: bool,
}

/// How much is to be found out.
#[derive(Clone, Copy, PartialEq)]
pub enum Depth {
    /// What it takes to count.
    Enough,
    /// Everything, for somebody who asks.
    All,
}

/// Finds out what this machine offers, tries it, and goes on without what the kernel refuses.
pub fn acquire(request: Request, privileges: Privileges, depth: Depth, asked: Asked) -> Acquired {
    let cookies = netns_cookie().is_some();
    let offers = offered(privileges);
    // Not worth its time where no program can be loaded anyway.
    if offers.of(Need::Bpf).is_err() || request == Request::Only(Mechanism::Counters) {
        let plan = plan(&offers, request);
        return Acquired { offers, plan, probes: None, cookies };
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
    attempt(request, offers, resolved, cookies, asked)
}

fn attempt(
    request: Request,
    mut offers: Offers,
    mut resolved: Resolved,
    cookies: bool,
    asked: Asked,
) -> Acquired {
    if !cookies {
        // Both halves must call a namespace by the same name.
        resolved.layout.net_cookie = 0;
    }
    take_in(&mut offers, &resolved);
    offers.set(Need::Fexit, found(&resolved.fexit));
    // Unless it turns out otherwise.
    offers.set(Need::KprobeMisses, found(&resolved.kprobe));
    offers.set(Need::Tracepoint, Ok(()));
    let mut misses_tried = false;
    loop {
        let chosen = plan(&offers, request);
        if !chosen.probes() {
            return Acquired { offers, plan: chosen, probes: None, cookies };
        }
        // Each turn takes one fact away or finds one out, so this ends.
        if resolved.complete(&chosen) {
            take_in(&mut offers, &resolved);
            continue;
        }
        if !misses_tried && counts_entries_by_kprobe(&chosen) {
            misses_tried = true;
            if !load::probes_tell_misses() {
                offers.set(Need::KprobeMisses, Err(NO_MISSES.to_owned()));
                continue;
            }
        }
        match Probes::start(&chosen, &resolved, asked) {
            Err(LoadRefused { mechanism, error }) => {
                offers.set(need(mechanism), Err(guards::explained(&format!("{error:#}"))));
            }
            Ok(probes) if offers.of(Need::KprobeMisses).is_ok() && !probes.misses_are_known() => {
                offers.set(Need::KprobeMisses, Err(NO_MISSES.to_owned()));
            }
            Ok(probes) => {
                return Acquired { offers, plan: chosen, probes: Some(probes), cookies };
            }
        }
    }
}

const NO_MISSES: &str = "this kernel does not say what its kprobes miss";

/// What looking for the kernel's symbols may change.
fn take_in(offers: &mut Offers, resolved: &Resolved) {
    offers.set(Need::EntryLayout, resolved.entries.clone());
    offers.set(Need::DropLayout, resolved.drops.clone());
    offers.set(Need::FreeLayout, resolved.free.clone());
    offers.set(Need::Kprobe, found(&resolved.kprobe));
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
fn offered(privileges: Privileges) -> Offers {
    let mut offers = Offers::new();
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
    // What no setting of this machine can change, first.
    offers.set(Need::Bpf, load::embedded().and(bpf).and(privileged));
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
    offers.set(
        Need::Counters,
        match (&ctnetlink, procstat) {
            (Ok(()), _) | (_, Ok(())) => Ok(()),
            // One of the two is enough. Where both are missing, the error says why of each.
            (Err(why), Err(no_file))
                if !privileges.has(Privilege::NetAdmin) && unseen().is_none() =>
            {
                Err(format!("{no_file}, and ctnetlink {why}"))
            }
            (Err(_), no_file) => no_file,
        },
    );
    let source = if ctnetlink.is_ok() { Source::Ctnetlink } else { Source::Procfs };
    offers.set(Need::EntryCounts, offer_of_entries(&offers, source));
    offers.set(Need::Ctnetlink, ctnetlink);
    let count = sysctl("nf_conntrack_count").map(|_| ()).map_err(|error| format!("{error:#}"));
    offers.set(Need::Procfs, count);
    offers
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
fn offer_of_entries(offers: &Offers, source: Source) -> Result<(), String> {
    offers.of(Need::Counters).map_err(str::to_owned).and_then(|()| entry_counts(source))
}

/// Why nothing can be shown at all.
pub fn unusable(plan: &Plan, request: Request) -> Option<String> {
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

/// Asking ctnetlink may load its module.
pub fn loaded_meanwhile(plan: &Plan, would_be_loaded: bool) -> Option<String> {
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
