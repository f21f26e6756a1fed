//! Single drops, filtered in the kernel by what the screen is narrowed to. A thread of its own loads the programs and
//! reads them, while the pane is looked at and no longer.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use ctwatch_abi::top::By;

use super::super::{
    scope, setup,
    trace::{
        filter::filter,
        printer::{Printer, Rest},
        wanted_id,
    },
};
use crate::{
    cli::{
        HowArgs, MechanismArg, NetnsArg, Output, OutputArgs, Port, Protocol, TraceArgs, Which, Word,
    },
    host::{
        kernel::privileges::Privileges,
        netns::{names::Namer, visit::netns_cookie},
    },
    model::names::address,
    output::services::Services,
    probe::{
        acquire::{Acquired, Depth, acquire},
        load::Asked,
        trace::{Filter, Traced},
    },
    record::measurement::Signal,
    recording::mask::Mask,
    threads,
    tui::state::Narrowing,
};

/// So many lines a second, and so many are kept.
const RATE: u64 = 50;
const KEPT: usize = 1000;
/// Between two looks into the buffer.
const PAUSE: Duration = Duration::from_millis(200);

/// What is traced: of a namespace by its inode, and what its packets are like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TraceOf {
    pub(super) inode: Option<u32>,
    src: Option<IpAddr>,
    dst: Option<IpAddr>,
    service: Option<(u8, u16)>,
    /// Of a state: a dropped packet has no entry that could be in one.
    protocol: Option<u8>,
}

impl TraceOf {
    pub(super) fn narrowed<'a>(
        inode: Option<u32>,
        steps: impl Iterator<Item = &'a Narrowing>,
    ) -> Self {
        let mut of = Self { inode, ..Self::default() };
        for step in steps {
            let (by, key) = match step {
                Narrowing::Netns { .. } => continue,
                Narrowing::State { protocol, .. } => {
                    of.protocol = Some(*protocol);
                    continue;
                }
                Narrowing::Key { by, key, .. } => (by, key),
            };
            if matches!(by, By::Source | By::Flow) {
                of.src = Some(address(key.family, &key.src));
            }
            if matches!(by, By::Destination | By::Service | By::Flow) {
                of.dst = Some(address(key.family, &key.dst));
            }
            if matches!(by, By::Service | By::Flow) {
                of.service = Some((key.protocol, u16::from_be(key.dport)));
            }
        }
        of
    }

    /// As the kernel knows them, of what was chosen among masked ones.
    fn unmasked(self, mask: &Mask) -> Self {
        let original = |address: Option<IpAddr>| address.map(|masked| mask.original(masked));
        Self { src: original(self.src), dst: original(self.dst), ..self }
    }

    fn args(&self, mechanism: MechanismArg) -> TraceArgs {
        let netns = self.inode.map(|inode| Word::One(NetnsArg::Inode(inode)));
        let has_ports = |protocol| ctwatch_abi::protocol::has_ports(protocol);
        TraceArgs {
            src: self.src.map(Into::into),
            dst: self.dst.map(Into::into),
            proto: self.service.map(|(protocol, _)| protocol).or(self.protocol).map(Protocol),
            dport: self
                .service
                .filter(|(protocol, _)| has_ports(*protocol))
                .map(|(_, port)| Port::Number(port)),
            reason: Vec::new(),
            count: None,
            rate: RATE,
            which: Which { netns: netns.into_iter().collect(), owner: None },
            print: OutputArgs { output: Output::Text },
            how: HowArgs { mechanism },
        }
    }
}

/// What the thread tells.
#[derive(Default)]
struct Told {
    lines: VecDeque<String>,
    /// Why there are none.
    why: String,
}

pub(super) struct TracePane {
    mechanism: MechanismArg,
    services: Services,
    zone: jiff::tz::TimeZone,
    mask: Option<Mask>,
    running: Option<Running>,
}

struct Running {
    of: TraceOf,
    told: Arc<Mutex<Told>>,
    is_over: Arc<AtomicBool>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
    }
}

/// A thread that ended badly has left it as whole as any other.
fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TracePane {
    pub(super) fn new(
        mechanism: MechanismArg,
        services: Services,
        zone: jiff::tz::TimeZone,
        mask: Option<Mask>,
    ) -> Self {
        Self { mechanism, services, zone, mask, running: None }
    }

    pub(super) fn stop(&mut self) {
        self.running = None;
    }

    /// Goes on, or begins with something else. Returns the lines, the newest first, or why there are none.
    pub(super) fn look(&mut self, of: TraceOf) -> Result<(Vec<String>, String)> {
        let of = match &self.mask {
            Some(mask) => of.unmasked(mask),
            None => of,
        };
        if self.running.as_ref().is_none_or(|running| running.of != of) {
            self.running = None;
            self.running = Some(self.start(of)?);
        }
        let Some(running) = &self.running else { return Ok(Default::default()) };
        let told = lock(&running.told);
        Ok((told.lines.iter().cloned().collect(), told.why.clone()))
    }

    fn start(&self, of: TraceOf) -> Result<Running> {
        let why = "loading the programs that trace".to_owned();
        let told = Arc::new(Mutex::new(Told { why, ..Told::default() }));
        let is_over = Arc::new(AtomicBool::new(false));
        let (tell, over) = (Arc::clone(&told), Arc::clone(&is_over));
        let args = of.args(self.mechanism);
        let mask = self.mask.clone();
        let printer = Printer {
            output: Output::Text,
            services: self.services.clone(),
            zone: self.zone.clone(),
            left: None,
            shown: 0,
            last: Traced::default(),
            bytes: Vec::new(),
            mask: self.mask.clone(),
        };
        threads::start("trace", move || {
            if let Err(why) = trace(&args, printer, &tell, &over) {
                let why = format!("{why:#}");
                let why = mask.map_or_else(|| why.clone(), |mut mask| mask.words(&why));
                lock(&tell).why = format!("cannot trace: {why}");
            }
        })?;
        Ok(Running { of, told, is_over })
    }
}

fn trace(
    args: &TraceArgs,
    mut printer: Printer,
    told: &Mutex<Told>,
    is_over: &AtomicBool,
) -> Result<()> {
    let dport = match &args.dport {
        Some(Port::Number(port)) => Some(*port),
        _ => None,
    };
    let mut namer = Namer::new(netns_cookie().is_some())?;
    let wanted = args.which.one().map(scope::named).transpose()?;
    let netns = wanted_id(wanted.as_ref(), &namer)?;
    let filter = filter(args, dport).map_err(anyhow::Error::msg)?;
    let filter = Filter { netns, ..filter };
    let asked = Asked { trace: Some(filter), ..Asked::default() };
    let request = setup::request(args.how.mechanism);
    let Acquired { plan, probes, .. } = acquire(request, Privileges::read(), Depth::Enough, asked);
    let mechanism = plan.mechanism(Signal::Drops).filter(|by| by.is_programs());
    let (Some(mechanism), Some(mut probes)) = (mechanism, probes) else {
        bail!("nothing can trace drops here: {}", plan.refusals().join("; "));
    };
    let mut trace = probes.take_trace().context("the probes do not trace")?;
    lock(told).why = format!("tracing by {}: nothing was dropped since", mechanism.name());
    let mut before = 0;
    while !is_over.load(Relaxed) {
        let rest = printer.drain(&mut trace, &mut namer)?;
        let untold = trace.traced()?.untold;
        let more = untold - std::mem::replace(&mut before, untold).min(untold);
        let bytes = printer.bytes();
        let text = String::from_utf8_lossy(&bytes);
        let mut told = lock(told);
        for line in text.lines() {
            told.lines.push_front(line.to_owned());
        }
        if more > 0 {
            told.lines.push_front(format!("*** {more} more were dropped than are shown"));
        }
        told.lines.truncate(KEPT);
        drop(told);
        if rest != Rest::More {
            sleep(PAUSE);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ctwatch_abi::top::Key;

    use super::*;

    fn narrowed(steps: &[Narrowing]) -> TraceOf {
        TraceOf::narrowed(Some(7), steps.iter())
    }

    #[test]
    fn what_was_masked_is_traced_by_its_true_value() {
        let mut mask = Mask::random();
        let (src, dst): (IpAddr, IpAddr) =
            ("192.0.2.7".parse().unwrap(), "2001:db8::1".parse().unwrap());
        let key = |address: IpAddr| {
            let mut bytes = [0; 16];
            let (family, octets) = match address {
                IpAddr::V4(v4) => (2, v4.octets().to_vec()),
                IpAddr::V6(v6) => (10, v6.octets().to_vec()),
            };
            bytes[..octets.len()].copy_from_slice(&octets);
            Key { src: bytes, dst: bytes, family, ..Key::default() }
        };
        for (by, address) in [(By::Source, src), (By::Destination, dst)] {
            let masked = mask.address(address);
            let step = Narrowing::Key { by, key: key(masked), name: masked.to_string() };
            let of = narrowed(&[step]);
            let shown = if by == By::Source { of.src } else { of.dst };
            assert_eq!(shown, Some(masked));
            let of = of.unmasked(&mask);
            let traced = if by == By::Source { of.src } else { of.dst };
            assert_eq!((traced, of.inode), (Some(address), Some(7)));
        }
    }

    #[test]
    fn a_state_is_traced_by_its_protocol() {
        let step = Narrowing::State { protocol: 6, state: 7, name: "tcp TIME_WAIT".to_owned() };
        let args = narrowed(&[step]).args(MechanismArg::Auto);
        assert_eq!(args.proto.map(|Protocol(number)| number), Some(6));
        assert_eq!((args.src, args.dst), (None, None));
    }
}
