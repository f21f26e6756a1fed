//! What the programs count in each namespace: read where they write it.

use std::{collections::HashSet, os::fd::AsFd};

use anyhow::{Context, Result, bail};
use aya::{
    Ebpf,
    maps::{Array, HashMap as BpfHashMap, Map, MapData, Queue},
};
use ctwatch_abi::{MAX_NETNS, NetnsId, NetnsTally, PLACES, REST, tally_index};

use super::{mapped::Mapped, value::Value};
use crate::record::netns_map::NetnsMap;

/// The places of the namespaces, and what is counted there.
pub(super) struct Tallies {
    places: BpfHashMap<MapData, NetnsId, u32>,
    free: Queue<MapData, u32>,
    free_of_strangers: Queue<MapData, u32>,
    tallies: Array<MapData, Value<NetnsTally>>,
    /// The same.
    memory: Mapped<NetnsTally>,
    stripes: u32,
    /// Places that lost their namespace. A program that was about to count there has done so by the next
    /// time that somebody asks.
    leaving: HashSet<u32>,
}

impl Tallies {
    pub(super) fn take(ebpf: &mut Ebpf, stripes: u32) -> Result<Self> {
        let mut map = |name| {
            let map = ebpf.take_map(name);
            map.with_context(|| format!("the probes hold no map {name}"))
        };
        let (places, tallies) = (map("NETNS")?, map("TALLIES")?);
        let (free, free_of_strangers) = (map("FREE")?, map("FREE_OF_STRANGERS")?);
        let Map::Array(data) = &tallies else { bail!("the map TALLIES is no array") };
        let memory = Mapped::new(data.fd().as_fd(), (stripes * PLACES) as usize)
            .context("cannot map what the probes count")?;
        Ok(Self {
            places: BpfHashMap::try_from(places)?,
            free: Queue::try_from(free)?,
            free_of_strangers: Queue::try_from(free_of_strangers)?,
            tallies: Array::try_from(tallies)?,
            memory,
            stripes,
            leaving: HashSet::new(),
        })
    }

    /// Memory of the kernel that the counts take.
    pub(super) fn bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// What was counted in each namespace since the start.
    pub(super) fn read(&self) -> NetnsMap<NetnsTally> {
        let mut all: NetnsMap<NetnsTally> = NetnsMap::default();
        for place in 0..REST {
            let tally = self.at(place);
            if tally.id() != 0 {
                // One that comes back while its last place is being left has two.
                all.entry(tally.id()).and_modify(|sum| sum.add(&tally)).or_insert(tally);
            }
        }
        all
    }

    /// What was counted in those of strangers that have no place.
    pub(super) fn rest(&self) -> NetnsTally {
        self.sum(REST, self.stripe(REST, 0))
    }

    fn at(&self, place: u32) -> NetnsTally {
        // Whose it is, first: what is counted in a place that has no name yet, or one that this CPU is
        // shown half of, is read the next time.
        self.sum(place, self.stripe(place, 0).filter(NetnsTally::is_named))
    }

    fn sum(&self, place: u32, first: Option<NetnsTally>) -> NetnsTally {
        let Some(mut sum) = first else { return NetnsTally::default() };
        (1..self.stripes).filter_map(|stripe| self.stripe(place, stripe)).for_each(|s| sum.add(&s));
        sum
    }

    fn stripe(&self, place: u32, stripe: u32) -> Option<NetnsTally> {
        let at = self.memory.at(tally_index(place, stripe) as usize)?;
        // SAFETY: within the mapping, and each number in it is written whole.
        Some(unsafe { at.read_volatile() })
    }

    /// Takes the places of these namespaces away: what happens in them from now on is counted in others.
    pub(super) fn forget(&mut self, these: &HashSet<NetnsId>) -> Result<()> {
        for place in 0..REST {
            let id = self.at(place).id();
            if id != 0 && these.contains(&id) && self.leaving.insert(place) {
                let removed = self.places.remove(&id);
                removed.context("cannot remove a namespace from the probes' counters")?;
            }
        }
        Ok(())
    }

    /// What was counted in the places that were taken away before; they can be had again.
    pub(super) fn left(&mut self) -> Result<Vec<NetnsTally>> {
        let mut left = Vec::with_capacity(self.leaving.len());
        for place in std::mem::take(&mut self.leaving) {
            left.push(self.at(place));
            for stripe in 0..self.stripes {
                self.tallies.set(tally_index(place, stripe), Value(NetnsTally::default()), 0)?;
            }
            let free = if place < MAX_NETNS { &mut self.free } else { &mut self.free_of_strangers };
            free.push(place, 0).context("cannot make room for a namespace")?;
        }
        Ok(left)
    }
}
