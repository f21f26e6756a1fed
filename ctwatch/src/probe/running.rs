//! Reading what the programs counted.

use std::{collections::HashSet, os::fd::AsFd};

use anyhow::{Context, Result, bail};
use aya::{
    maps::{Array, HashMap as BpfHashMap, Map, MapData, PerCpuArray, RingBuf},
    programs::RawTracePoint,
};
use ctwatch_abi::{
    HostCount, HostTally, NetnsId, NetnsTally,
    budget::Budget,
    plane::{Plane, PlaneKey},
    top::Stream,
};

use super::{
    bpf::{self, TracedAt},
    layout::Resolved,
    load::{self, Asked, LoadRefused, LoadedProbes},
    log,
    plan::Plan,
    tallies::Tallies,
    top::{Shape, TopSets},
    trace::Trace,
    value::Value,
};
use crate::record::{
    measurement::{Mechanism, Signal},
    netns_map::NetnsMap,
    sample::{Counted, Misses, PlaneCount, Probed, ToldApart, TopCounts},
};

const UNREADABLE: &str = "cannot read the probes' counters";

/// The attached programs and their maps.
pub struct Probes {
    netns: Tallies,
    host: PerCpuArray<MapData, Value<HostTally>>,
    budgets: PerCpuArray<MapData, Value<Budget>>,
    planes: BpfHashMap<MapData, Value<PlaneKey>, u64>,
    asked: Array<MapData, u32>,
    loaded: LoadedProbes,
    counted: Counted,
    tops: Option<TopSets>,
    trace: Option<Trace>,
}

impl Probes {
    pub fn start(plan: &Plan, resolved: &Resolved, asked: Asked) -> Result<Self, LoadRefused> {
        let mut loaded = load::load(plan, resolved, asked)?;
        let of_all = |error| LoadRefused { mechanism: None, error };
        log::listen(&mut loaded.ebpf).map_err(of_all)?;
        let counted = counted(plan, &loaded);
        let stripes = load::stripes(loaded.cpus);
        let netns = stripes.and_then(|stripes| Tallies::take(&mut loaded.ebpf, stripes));
        let netns = netns.map_err(of_all)?;
        let mut map = |name| {
            let map = loaded.ebpf.take_map(name);
            map.with_context(|| format!("the probes hold no map {name}")).map_err(of_all)
        };
        let host = PerCpuArray::try_from(map("HOST")?).map_err(|error| of_all(error.into()))?;
        let budgets =
            PerCpuArray::try_from(map("BUDGETS")?).map_err(|error| of_all(error.into()))?;
        let planes = BpfHashMap::try_from(map("PLANES")?).map_err(|error| of_all(error.into()))?;
        let streams = Array::try_from(map("ASKED")?).map_err(|error| of_all(error.into()))?;
        let trace = match asked.trace {
            Some(_) => {
                let ring =
                    RingBuf::try_from(map("TRACE")?).map_err(|error| of_all(error.into()))?;
                let traced =
                    Array::try_from(map("TRACED")?).map_err(|error| of_all(error.into()))?;
                Some(Trace::new(ring, traced, map("CHOSEN")?).map_err(of_all)?)
            }
            None => None,
        };
        let tops =
            (!asked.lists.is_none()).then(|| map_tops(&loaded)).transpose().map_err(of_all)?;
        let mut probes =
            Self { netns, host, budgets, planes, asked: streams, loaded, counted, tops, trace };
        probes.ask(!asked.lists.is_none()).map_err(of_all)?;
        Ok(probes)
    }

    /// Whether insertions are told apart from now on. Dropped packets are wherever there are lists.
    pub fn ask(&mut self, insertions: bool) -> Result<()> {
        let bit = |stream: Stream, is_set: bool| u32::from(is_set) << stream as u32;
        let streams = bit(Stream::Drops, true) | bit(Stream::Insertions, insertions);
        self.asked.set(0, streams, 0).context("cannot tell the probes what is asked for")?;
        let confirming = self.loaded.traced.iter_mut().find(|it| it.name == "fx_confirming");
        confirming.map_or(Ok(()), |confirming| confirming.set_attached(insertions))
    }

    /// Of each stream: how many events came to its lists, and for how many those stand that were taken.
    pub fn told_apart(&self) -> Result<Vec<ToldApart>> {
        if self.tops.is_none() {
            return Ok(Vec::new());
        }
        let each = Stream::ALL.into_iter().map(|stream| {
            let cpus = self.budgets.get(&(stream as u32), 0).context(UNREADABLE)?;
            let budgets: Vec<Budget> = cpus.iter().map(|Value(budget)| *budget).collect();
            Ok(ToldApart::of(stream, &budgets))
        });
        each.collect()
    }

    /// Dropped packets of control planes; `None` where nothing counts them.
    pub fn planes(&self) -> Option<Vec<PlaneCount>> {
        let counts = ["fx_allocated", "dropped", "dropped_bare", "refused", "refused_bare"];
        let raw = ["dropped_raw", "dropped_bare_raw", "refused_raw", "refused_bare_raw"];
        if !counts.into_iter().chain(raw).any(|name| self.runs(name)) {
            return None;
        }
        let found = self.planes.iter().filter_map(Result::ok).filter_map(|(Value(key), count)| {
            let plane = *Plane::EACH.get(key.plane as usize)?;
            Some(PlaneCount { netns: key.netns, plane, count })
        });
        Some(found.collect())
    }

    /// Single refusals, where they were asked for. The programs run for as long as this lives.
    pub fn take_trace(&mut self) -> Option<Trace> {
        self.trace.take()
    }

    /// Heavy hitters, where they are counted.
    pub fn tops(&self) -> Vec<TopCounts> {
        let mut lists = self.tops.as_ref().map(TopSets::read).unwrap_or_default();
        lists.retain(|list| match list.stream {
            Stream::Drops => self.counted.drops || self.counted.refusals,
            Stream::Insertions => self.counted.insertions,
        });
        lists
    }

    /// Memory of the kernel that the tables of heavy hitters take.
    pub fn top_bytes(&self) -> Option<usize> {
        self.tops.as_ref().map(TopSets::bytes)
    }

    /// Memory of the kernel that the counts of namespaces take.
    pub fn tally_bytes(&self) -> usize {
        self.netns.bytes()
    }

    /// What was counted in each namespace, over all CPUs, since the start.
    pub fn tallies(&self) -> NetnsMap<NetnsTally> {
        self.netns.read()
    }

    /// What was counted in namespaces of unprivileged users beyond those that have a place.
    pub fn strangers_rest(&self) -> NetnsTally {
        self.netns.rest()
    }

    /// Makes room for other namespaces in place of these. Their last counts come with
    /// [`Self::left`].
    pub fn forget(&mut self, these: &HashSet<NetnsId>) -> Result<()> {
        let planes = self.planes.keys().filter_map(Result::ok);
        let gone: Vec<_> = planes.filter(|Value(key)| these.contains(&key.netns)).collect();
        for key in gone {
            let _ = self.planes.remove(&key);
        }
        self.netns.forget(these)
    }

    /// All that was counted in those that were forgotten before this.
    pub fn left(&mut self) -> Result<Vec<NetnsTally>> {
        self.netns.left()
    }

    /// Whether the kernel says what the probes on entries miss.
    pub fn misses_are_known(&self) -> bool {
        let entries = ["kp_inserted", "kp_freed"];
        entries.iter().all(|name| matches!(self.missed_by(name), Ok(Some(_))))
    }

    /// What is no namespace's, and how far the counts go.
    pub fn probed(&self) -> Result<Probed> {
        let cpus = self.host.get(&0, 0).context(UNREADABLE)?;
        let mut host = HostTally::default();
        cpus.iter().for_each(|Value(cpu)| host.add(cpu));
        let misses = self.misses(&host)?;
        let strangers_rest = self.strangers_rest();
        let everywhere = NetnsTally::default();
        Ok(Probed { host, counted: self.counted, misses, everywhere, strangers_rest })
    }

    fn misses(&self, host: &HostTally) -> Result<Misses> {
        let of = |names: &[&str]| -> Result<Option<u64>> {
            let mut sum = Some(0);
            for name in names {
                sum = sum.zip(self.missed_by(name)?).map(|(sum, missed)| sum + missed);
            }
            Ok(sum)
        };
        let plus = |missed: Option<u64>, more| missed.map(|missed| missed + host.get(more));
        let ends = match self.counted.ends && !self.runs("freed") && !self.runs("fx_freed") {
            true => of(&["kp_freed"])?,
            // What the first program is not run for, the second is.
            false => Some(0),
        };
        Ok(Misses {
            drops: of(&["dropped", "dropped_bare", "dropped_raw", "dropped_bare_raw"])?,
            page_allocations: of(&["page_allocated"])?,
            refusals: plus(
                of(&["fx_allocated", "kp_early_drop", "kr_early_drop"])?,
                HostCount::UnpairedRefusals,
            ),
            clashes: plus(of(&["fx_clash", "kp_clash", "kr_clash"])?, HostCount::UnpairedClashes),
            insertions: of(&["fx_inserted", "kp_inserted"])?,
            ends,
        })
    }

    fn runs(&self, name: &str) -> bool {
        self.loaded.traced.iter().any(|traced| traced.name == name)
            || self.tracepoint(name).is_some()
    }

    fn tracepoint(&self, name: &str) -> Option<&RawTracePoint> {
        let program: &RawTracePoint = self.loaded.ebpf.program(name)?.try_into().ok()?;
        program.fd().is_ok().then_some(program)
    }

    /// 0 for a program that does not run: it cannot have missed anything.
    fn missed_by(&self, name: &str) -> Result<Option<u64>> {
        if let Some(traced) = self.loaded.traced.iter().find(|traced| traced.name == name) {
            let missed = bpf::missed_by_program(traced.program())?;
            // Kernels that do not count this do not pass over a tracepoint's program either.
            return Ok(missed.or((traced.at == TracedAt::Tracepoint).then_some(0)));
        }
        if let Some((_, link)) = self.loaded.probes.iter().find(|(probe, _)| *probe == name) {
            let Some(link) = link else { return Ok(None) };
            // Both came with the same kernel: the program's own are of those it was to be run for.
            let probe = bpf::missed_by_probe(*link)?;
            let program = self.probe_program_misses(name)?;
            return Ok(probe.zip(program).map(|(probe, program)| probe + program));
        }
        match self.tracepoint(name) {
            // As above.
            Some(program) => Ok(Some(bpf::missed_by_program(program.fd()?.as_fd())?.unwrap_or(0))),
            None => Ok(Some(0)),
        }
    }

    fn probe_program_misses(&self, name: &str) -> Result<Option<u64>> {
        let program = self.loaded.ebpf.program(name).context("a probe's program is gone")?;
        let program: &aya::programs::KProbe = program.try_into()?;
        bpf::missed_by_program(program.fd()?.as_fd())
    }
}

fn map_tops(loaded: &LoadedProbes) -> Result<TopSets> {
    let map = loaded.ebpf.map("TOP").context("the probes hold no map TOP")?;
    let Map::Array(data) = map else { bail!("the map TOP is no array") };
    TopSets::map(data.fd().as_fd(), Shape::of(loaded.cpus))
}

fn counted(plan: &Plan, loaded: &LoadedProbes) -> Counted {
    let functions = [Mechanism::Fexit, Mechanism::Kprobe];
    let by_function =
        |signal| plan.mechanism(signal).is_some_and(|mechanism| functions.contains(&mechanism));
    let attached = |names: [&str; 2]| {
        loaded.traced.iter().any(|traced| names.contains(&traced.name))
            || loaded.probes.iter().any(|(probe, _)| names.contains(probe))
    };
    Counted {
        drops: plan.mechanism(Signal::Drops) == Some(Mechanism::Tracepoint),
        refusals: by_function(Signal::Drops),
        clashes: attached(["fx_clash", "kr_clash"]),
        insertions: by_function(Signal::Insertions),
        ends: plan.mechanism(Signal::Removals).is_some_and(Mechanism::is_programs),
    }
}
