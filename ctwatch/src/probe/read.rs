//! Reading what the programs counted.

use std::collections::HashMap;

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray, PerCpuHashMap},
    programs::RawTracePoint,
};
use ctwatch_ebpf::{HostTally, Layout, NetnsId, NetnsTally};

use super::{load, misses, plan::Plan, talk};
use crate::sample::Misses;

/// The attached programs and their maps.
pub struct Probes {
    netns: PerCpuHashMap<MapData, NetnsId, NetnsTally>,
    host: PerCpuArray<MapData, HostTally>,
    ebpf: Ebpf,
}

impl Probes {
    pub fn start(plan: &Plan, layout: &Layout) -> Result<Self> {
        let mut ebpf = load::load(plan, layout)?;
        talk::listen(&mut ebpf)?;
        let mut map =
            |name| ebpf.take_map(name).with_context(|| format!("the probes hold no map {name}"));
        let netns = PerCpuHashMap::try_from(map("NETNS")?)?;
        let host = PerCpuArray::try_from(map("HOST")?)?;
        Ok(Self { netns, host, ebpf })
    }

    /// What was counted in each namespace, over all CPUs, since the start.
    pub fn tallies(&self) -> Result<HashMap<NetnsId, NetnsTally>> {
        let mut tallies = HashMap::new();
        for entry in self.netns.iter() {
            let (key, cpus) = entry.context("cannot read the probes' counters")?;
            let mut sum = NetnsTally::default();
            cpus.iter().for_each(|cpu| sum.add(cpu));
            tallies.insert(key, sum);
        }
        Ok(tallies)
    }

    /// Makes room for another namespace in place of one that is gone.
    pub fn forget(&mut self, key: &NetnsId) -> Result<()> {
        self.netns.remove(key).context("cannot remove a namespace from the probes' counters")
    }

    pub fn host(&self) -> Result<HostTally> {
        let cpus = self.host.get(&0, 0).context("cannot read the probes' counters")?;
        let mut sum = HostTally::default();
        for cpu in cpus.iter() {
            sum.no_memory = sum.no_memory.wrapping_add(cpu.no_memory);
            sum.unplaced_drops = sum.unplaced_drops.wrapping_add(cpu.unplaced_drops);
            sum.unplaced_ends = sum.unplaced_ends.wrapping_add(cpu.unplaced_ends);
            sum.unplaced_ends_missed =
                sum.unplaced_ends_missed.wrapping_add(cpu.unplaced_ends_missed);
        }
        Ok(sum)
    }

    pub fn misses(&self) -> Result<Misses> {
        Ok(Misses {
            dropped: self.missed_by("dropped")?,
            page_allocated: self.missed_by("page_allocated")?,
        })
    }

    /// 0 for a program that is not loaded: it cannot have missed anything.
    fn missed_by(&self, name: &str) -> Result<u64> {
        let Some(program) = self.ebpf.program(name) else { return Ok(0) };
        let program: &RawTracePoint = program.try_into()?;
        let Ok(fd) = program.fd() else { return Ok(0) };
        misses::of_program(std::os::fd::AsFd::as_fd(fd))
    }
}
