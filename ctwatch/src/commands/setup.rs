//! From what this machine offers to what is needed for watching it.

use std::time::Duration;

use anyhow::{Result, bail};
use ctwatch_abi::top::{By, Wanted};

use super::scope::{scope, unseen_processes, whose};
use crate::{
    cli,
    host::{
        self,
        kernel::{
            modules,
            privileges::{Privilege, Privileges},
        },
        netns::visit::Source,
    },
    observe::{
        census::{Question, Way},
        sampler::{Means, Scope},
        schedule::{self, When},
        session::Beginning,
        surveyor::Looking,
        wanted::Whose,
    },
    probe::{
        acquire::{Acquired, Depth, acquire, loaded_meanwhile, unusable},
        load::Asked,
        plan::{Plan, Request},
        running::Probes,
    },
    record::measurement::{Mechanism, Signal},
    record::session::{FORMAT, Header, Measured},
    recording::{LISTED, line::RecordedOn},
};

/// Chooses the mechanisms, loads the probes, and says what cannot be had and why.
pub(super) fn prepare(args: &cli::WatchArgs) -> Result<Beginning> {
    let privileges = Privileges::read();
    let scope = scope(&args.which, privileges)?;
    let whose = whose(&args.which, &scope);
    let request = request(args.how.mechanism);
    let ctnetlink_came = modules::ctnetlink_would_be_loaded();
    let lists = match args.tops() {
        0 => Wanted::default(),
        _ => Wanted::of(args.by()),
    };
    let asked = Asked { lists, trace: None };
    let Acquired { plan, probes, cookies, .. } = acquire(request, privileges, Depth::Enough, asked);
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
    let header = header(&plan, probes.as_ref(), args.interval(), notes);
    let means = Means { source, probes, scope, whose, only_judged: false, cookies };
    Ok(Beginning { census: census(args, &means), means, header })
}

/// Where it is recorded.
pub(super) fn origin() -> RecordedOn {
    RecordedOn { host: host::name(), boot_id: host::boot_id().ok(), kernel: host::kernel_release() }
}

/// What it takes to look at the machine, as it is watched with these.
pub(super) fn looking(args: &cli::WatchArgs, means: &Means) -> Looking {
    Looking {
        scope: means.scope.clone(),
        whose: means.whose,
        source: means.source,
        cookies: means.cookies,
        is_any: args.which.is_any(),
    }
}

/// What does not change for as long as it is watched with these.
pub(super) fn header(
    plan: &Plan,
    probes: Option<&Probes>,
    interval: Duration,
    notes: Vec<String>,
) -> Header {
    Header {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: host::kernel_release(),
        boot_id: host::boot_id().ok(),
        interval,
        mechanisms: Signal::ALL
            .map(|signal| Measured {
                signal: signal.name().to_owned(),
                mechanism: plan.mechanism(signal).map(|by| by.name().to_owned()),
            })
            .to_vec(),
        notes,
        top_bytes: probes.and_then(Probes::top_bytes).map(|bytes| bytes as u64),
    }
}

/// While a table is saturated; where somebody asks who it is, always.
fn census(args: &cli::WatchArgs, means: &Means) -> Option<schedule::Wanted> {
    let mut by: Vec<By> = args.by().into_iter().filter(|by| by.is_of_entries()).collect();
    let mut most = args.tops();
    if args.record.is_some() {
        // What the doctor asks for.
        by.extend([By::Source, By::Service, By::Destination]);
        by.sort_unstable();
        by.dedup();
        most = most.max(LISTED);
    }
    let question =
        Question { by, most, scope: means.scope.clone(), whose: means.whose, only_judged: true };
    let wanted = schedule::Wanted {
        when: match args.top {
            Some(_) => When::Always,
            None if args.record.is_some() || args.serves => When::NowAndThen,
            None => When::Saturated,
        },
        way: match args.how.mechanism {
            cli::MechanismArg::Counters => Way::NoProgram,
            _ => Way::Best,
        },
        cookies: means.cookies,
        question,
    };
    (args.tops() > 0).then_some(wanted)
}

/// What it takes to read the kernel's own counters, and no more; and what that costs.
pub(super) fn without_programs(
    scope: Scope,
    whose: Whose,
    privileges: Privileges,
    interval: Duration,
) -> Result<(Means, Header)> {
    let request = Request::Only(Mechanism::Counters);
    let ctnetlink_came = modules::ctnetlink_would_be_loaded();
    let Acquired { plan, cookies, .. } =
        acquire(request, privileges, Depth::Enough, Asked::default());
    let source = match plan.mechanism(Signal::Table) {
        Some(Mechanism::Ctnetlink) => Source::Ctnetlink,
        Some(_) => Source::Procfs,
        None => bail!("nothing can be read here: {}", plan.refusals().join("; ")),
    };
    let notes = loaded_meanwhile(&plan, ctnetlink_came).into_iter().collect();
    let header = header(&plan, None, interval, notes);
    Ok((Means { source, probes: None, scope, whose, only_judged: true, cookies }, header))
}

pub(super) fn request(mechanism: cli::MechanismArg) -> Request {
    match mechanism {
        cli::MechanismArg::Auto => Request::Auto,
        cli::MechanismArg::Fexit => Request::Only(Mechanism::Fexit),
        cli::MechanismArg::Kprobe => Request::Only(Mechanism::Kprobe),
        cli::MechanismArg::Tracepoint => Request::Only(Mechanism::Tracepoint),
        cli::MechanismArg::Counters => Request::Only(Mechanism::Counters),
    }
}
