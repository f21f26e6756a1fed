//! `ctwatch trace`: single packets as conntrack drops them.

mod choice;

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result, bail};
use ctwatch_abi::NetnsId;
use ipnet::IpNet;
use tokio::time::{MissedTickBehavior, interval};

use choice::Choice;

use super::{WrongUsage, scope, setup, signals::Signals, writer::Writer};
use crate::{
    cli::{Output, Port, TraceArgs, Which},
    host::{
        kernel::{
            modules::{self, ABSENT, Presence},
            privileges::{Privileges, Work, keep},
        },
        machine::zone,
        netns::{self, names::Namer, owner, visit::netns_cookie},
    },
    model::names,
    observe::loading::booted_at,
    observe::wanted::Whose,
    output::{DropLine, aside, json, services::Services, text},
    probe::{
        acquire::{Acquired, Depth, acquire},
        load::Asked,
        trace::{ANY_OWNER, Event, Filter, Reason, Trace, Traced},
    },
    record::measurement::{Mechanism, Signal},
    record::sample::Owner,
};

pub async fn run(args: TraceArgs) -> Result<()> {
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
    let request = setup::request(args.mechanism);
    let Acquired { plan, probes, .. } = acquire(request, privileges, Depth::Enough, asked);
    let mechanism = plan.mechanism(Signal::Drops).filter(|by| by.is_programs());
    if plan.mechanism(Signal::Drops).is_some_and(|by| !by.is_programs()) {
        bail!("counters know no single packet: trace needs fexit, kprobe or tracepoint");
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
        output: args.output,
        services,
        zone: zone::local(),
        left: args.count,
        shown: 0,
        last: Traced::default(),
        bytes: Vec::new(),
    };
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut left = Left::Nothing;
    loop {
        let (mut stop, tick) = tokio::select! {
            biased;
            () = signals.any() => (true, false),
            _ = ticks.tick() => (false, true),
            () = std::future::ready(()), if left == Left::More => (false, false),
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
        if left == Left::Enough || stop {
            // What came while that was written, and not all that may come yet.
            for _ in 0..LAST {
                left = printer.drain(trace.get_mut(), &mut namer)?;
                writer.write(printer.bytes(), &mut signals).await?;
                if left != Left::More {
                    break;
                }
            }
            printer.end(trace.get_ref())?;
            writer.write(printer.bytes(), &mut signals).await?;
            return Ok(());
        }
    }
}

/// What is left in the buffer.
#[derive(Clone, Copy, PartialEq)]
enum Left {
    Nothing,
    /// Perhaps: so many lines are written first.
    More,
    /// As many were shown as were asked for.
    Enough,
}

/// As many lines are kept until they are written.
const AT_ONCE: usize = 4096;
/// So often, at the end.
const LAST: u32 = 16;

/// Reasons that were asked for and that the programs in use cannot tell.
fn unseen(args: &TraceArgs, mechanism: Mechanism) -> Option<String> {
    let wanted = args.reason.iter().map(|reason| Reason::from(*reason));
    let unseen = wanted.filter(|reason| !is_told(*reason, mechanism));
    let unseen: Vec<&str> = unseen.map(Reason::name).collect();
    (!unseen.is_empty()).then(|| unseen.join(", "))
}

fn is_told(reason: Reason, mechanism: Mechanism) -> bool {
    let by_tracepoint = mechanism == Mechanism::Tracepoint;
    matches!(reason, Reason::Untracked | Reason::Unconfirmed) == by_tracepoint
}

/// The port that is wanted, whatever it is called.
fn port(args: &TraceArgs, services: &Services) -> Result<Option<u16>, String> {
    let protocol = args.proto.map(|protocol| names::protocol(protocol.0));
    match &args.dport {
        None => Ok(None),
        Some(Port::Number(port)) => Ok(Some(*port)),
        Some(Port::Service(name)) => services.port(name, protocol.as_deref()).map(Some),
    }
}

/// In whichever namespace.
fn filter(args: &TraceArgs, dport: Option<u16>) -> Result<Filter, String> {
    let reasons = args.reason.iter().map(|reason| 1 << Reason::from(*reason) as u32);
    let reasons = reasons.fold(0, |all, one| all | one);
    let (src_family, src, src_mask) = prefix(args.src.as_ref());
    let (dst_family, dst, dst_mask) = prefix(args.dst.as_ref());
    if src_family != 0 && dst_family != 0 && src_family != dst_family {
        return Err("--src and --dst are of different families: no packet has both".to_owned());
    }
    Ok(Filter {
        rate: args.rate,
        netns: 0,
        owner: wanted_owner(&args.which),
        is_chosen: 0,
        src,
        src_mask,
        dst,
        dst_mask,
        reasons: if reasons == 0 { u32::MAX } else { reasons },
        family: src_family.max(dst_family),
        protocol: args.proto.map_or(256, |protocol| protocol.0.into()),
        dport: dport.map_or(65_536, |port| port.to_be().into()),
    })
}

/// Family, address and mask.
fn prefix(wanted: Option<&IpNet>) -> (u32, [u64; 2], [u64; 2]) {
    let Some(net) = wanted else { return (0, [0; 2], [0; 2]) };
    let family = match net {
        IpNet::V4(_) => 2,
        IpNet::V6(_) => 10,
    };
    (family, words(net.network()), words(net.netmask()))
}

/// As the programs keep addresses.
fn words(address: IpAddr) -> [u64; 2] {
    let mut bytes = [0; 16];
    match address {
        IpAddr::V4(address) => bytes[..4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => bytes = address.octets(),
    }
    let [a, b, c, d, e, f, g, h, rest @ ..] = bytes;
    [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes(rest)]
}

/// As the programs know it. Those of others are told of too, unless somebody says otherwise: each line
/// says whose it is, and none is an alarm.
fn wanted_owner(which: &Which) -> u64 {
    match which.owner {
        None | Some(Whose::HostFirst | Whose::All) => ANY_OWNER,
        Some(Whose::Host) => 0,
        Some(Whose::User(uid)) => uid.into(),
    }
}

/// What the programs call it.
fn wanted_id(wanted: Option<&netns::Netns>, namer: &Namer) -> Result<NetnsId> {
    let Some(netns) = wanted else { return Ok(0) };
    namer.id(netns)?.with_context(|| format!("the network namespace {} is gone", netns.inode))
}

struct Printer {
    output: Output,
    services: Services,
    zone: jiff::tz::TimeZone,
    left: Option<u64>,
    shown: u64,
    last: Traced,
    bytes: Vec<u8>,
}

impl Printer {
    /// Prints what there is, or so much of it.
    fn drain(&mut self, trace: &mut Trace, namer: &mut Namer) -> Result<Left> {
        // When the machine started, had it never slept; anew each time: the clock may be set.
        let booted = booted_at()?;
        for _ in 0..AT_ONCE {
            if self.left == Some(0) {
                return Ok(Left::Enough);
            }
            let Some(event) = trace.take()? else { return Ok(Left::Nothing) };
            self.line(&event, booted, namer)?;
            self.left = self.left.map(|left| left - 1);
            self.shown += 1;
        }
        Ok(if self.left == Some(0) { Left::Enough } else { Left::More })
    }

    /// How many there were since it was last said that were not told.
    fn more(&mut self, traced: Traced) -> Result<()> {
        let more = traced.untold.saturating_sub(self.last.untold);
        if more > 0 {
            match self.output {
                Output::Text => text::trace::more(&mut self.bytes, more)?,
                Output::Json => json::trace::more(&mut self.bytes, more)?,
            }
        }
        let undecided = traced.undecided.saturating_sub(self.last.undecided);
        if undecided > 0 {
            match self.output {
                Output::Text => text::trace::undecided(&mut self.bytes, undecided)?,
                Output::Json => json::trace::undecided(&mut self.bytes, undecided)?,
            }
        }
        self.last = traced;
        Ok(())
    }

    fn line(&mut self, event: &Event, booted: jiff::Timestamp, namer: &mut Namer) -> Result<()> {
        let named = namer.name(event.netns, event.ifindex)?;
        let time = booted + Duration::from_nanos(event.at);
        let owner = match event.owner() {
            Some(uid) => owner::as_counted(Some(uid)),
            None => Owner::Unknown("the programs could not read it".to_owned()),
        };
        let line = DropLine { time, zone: &self.zone, event, named: &named, owner: &owner };
        match self.output {
            Output::Text => text::trace::line(&mut self.bytes, &line, &self.services)?,
            Output::Json => json::trace::line(&mut self.bytes, &line)?,
        }
        Ok(())
    }

    /// How many there were in all.
    fn end(&mut self, trace: &Trace) -> Result<()> {
        let traced = trace.traced()?;
        self.more(traced)?;
        match self.output {
            Output::Text => text::trace::end(&mut self.bytes, self.shown, traced.wanted)?,
            Output::Json => json::trace::end(&mut self.bytes, self.shown, traced.wanted)?,
        }
        Ok(())
    }

    /// All that is to be written by now.
    fn bytes(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}
