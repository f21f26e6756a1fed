//! `ctwatch trace`: single packets as conntrack drops them.

mod choice;
pub(super) mod filter;
pub(super) mod printer;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use ctwatch_abi::NetnsId;
use tokio::time::{MissedTickBehavior, interval};

use choice::Choice;
use filter::{filter, is_told, port, unseen};
use printer::{Printer, Rest};

use super::{WrongUsage, scope, setup, signals::Signals, writer::Writer};
use crate::{
    cli::TraceArgs,
    host::{
        kernel::{
            modules::{self, ABSENT, Presence},
            privileges::{Privileges, Work, keep},
        },
        machine::zone,
        netns::{self, names::Namer, visit::netns_cookie},
    },
    output::aside,
    probe::{
        acquire::{Acquired, Depth, acquire},
        load::Asked,
        trace::{Filter, Reason, Traced},
    },
    record::measurement::Signal,
    recording::mask::Mask,
};

pub async fn run(args: TraceArgs, mask: Option<Mask>) -> Result<()> {
    // Before anything else: what makes no sense loads nothing.
    let services = super::services();
    let port = port(&args, &services).map_err(WrongUsage)?;
    let filter = filter(&args, port).map_err(WrongUsage)?;
    let mut signals = Signals::new()?;
    match modules::presence() {
        Presence::Loaded(_) => {}
        Presence::Absent => bail!("{ABSENT}: nothing is tracked, and conntrack drops nothing"),
        Presence::OutOfSight(why) => bail!("{why}"),
    }
    let cookies = netns_cookie().is_some();
    let mut namer = Namer::new(cookies)?;
    let privileges = Privileges::read();
    let (wanted, mut choice) = match args.which.one() {
        _ if args.which.is_any() => (None, None),
        Some(one) => (Some(scope::named(one)?), None),
        None => (None, Some(Choice::new(scope::scope(&args.which, privileges)?, cookies)?)),
    };
    let netns = wanted_id(wanted.as_ref(), &namer)?;
    let filter = Filter { netns, is_chosen: choice.is_some().into(), ..filter };
    // By its cookie it is never another's; by its number it may be.
    let target = wanted.filter(|_| !cookies).map(|netns| netns::Target::new(netns, None));
    let asked = Asked { trace: Some(filter), ..Asked::default() };
    let request = setup::request(args.how.mechanism);
    let Acquired { plan, probes, .. } = acquire(request, privileges, Depth::Enough, asked);
    let mechanism = plan.mechanism(Signal::Drops).filter(|by| by.is_programs());
    if plan.mechanism(Signal::Drops).is_some_and(|by| !by.is_programs()) {
        let why = plan.refusals_of(|signal| signal == Signal::Drops).join("; ");
        match why.as_str() {
            "" => bail!("counters know no single packet: trace needs fexit, kprobe or tracepoint"),
            why => bail!("counters know no single packet, and no program can be used: {why}"),
        }
    }
    let (Some(mechanism), Some(mut probes)) = (mechanism, probes) else {
        bail!("nothing can trace drops here: {}", plan.refusals().join("; "));
    };
    if let Some(reasons) = unseen(&args, mechanism) {
        let told = Reason::ALL.into_iter().filter(|reason| is_told(*reason, mechanism));
        let told: Vec<&str> = told.map(Reason::name).collect();
        bail!(
            "the mechanism {} does not tell {reasons}; it tells {}",
            mechanism.name(),
            told.join(", ")
        );
    }
    let mut trace = probes.take_trace().context("the probes do not trace")?;
    if let Some(choice) = &mut choice {
        trace.choose(choice.look()?)?;
    }
    aside::say(&format!("tracing drops by {}, {} a second at most", mechanism.name(), args.rate));
    // What is attached stays; namespaces are still to be named.
    keep(Work::Look, false)?;
    let writer = Writer::start()?;
    let mut trace = trace.wait_for()?;
    let mut printer = Printer {
        output: args.print.output,
        services,
        zone: zone::local(),
        left: args.count,
        shown: 0,
        last: Traced::default(),
        bytes: Vec::new(),
        mask,
    };
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut left = Rest::Nothing;
    loop {
        let (mut stop, tick) = tokio::select! {
            biased;
            () = signals.any() => (true, false),
            _ = ticks.tick() => (false, true),
            () = std::future::ready(()), if left == Rest::More => (false, false),
            ready = trace.readable_mut() => { ready?.clear_ready(); (false, false) }
        };
        left = printer.drain(trace.get_mut(), &mut namer)?;
        if tick {
            if let Some(choice) = &mut choice {
                trace.get_mut().choose(choice.look()?)?;
            }
            printer.more(trace.get_ref().traced()?)?;
            if target.as_ref().is_some_and(|target| !target.is_there()) {
                aside::say("the path to the network namespace is gone: the trace ends");
                stop = true;
            }
        }
        stop |= writer.write(printer.bytes(), &mut signals).await?;
        if left == Rest::Enough || stop {
            // What came while that was written, and not all that may come yet.
            for _ in 0..LAST {
                left = printer.drain(trace.get_mut(), &mut namer)?;
                writer.write(printer.bytes(), &mut signals).await?;
                if left != Rest::More {
                    break;
                }
            }
            printer.end(trace.get_ref())?;
            writer.write(printer.bytes(), &mut signals).await?;
            return Ok(());
        }
    }
}

/// So often, at the end.
const LAST: u32 = 16;

/// What the programs call it.
pub(super) fn wanted_id(wanted: Option<&netns::Netns>, namer: &Namer) -> Result<NetnsId> {
    let Some(netns) = wanted else { return Ok(0) };
    namer.id(netns)?.with_context(|| format!("the network namespace {} is gone", netns.inode))
}
