//! A sample as it is recorded: what is as it was in the one before is not repeated.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use ctwatch_abi::{
    NetnsId,
    top::{By, Key, Stream},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::LISTED;
use crate::record::sample::{
    Access, Idle, PlaneCount, Probed, Sample, TableSample, ToldApart, TopCount, TopCounts,
};

/// What is left out where it is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    Limit,
    Buckets,
    Probed,
    ToldApart,
    Planes,
    Cgroups,
    /// One that a later version left out.
    #[serde(other)]
    Unknown,
}

/// One tick. `sample` holds the tables that are not as they were.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// Nothing is left out: reading can begin here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub full: bool,
    /// Parts of the sample that are as they were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<Part>,
    /// Tables that were read, and are as they were. Those that are in no list here were not read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub same: Vec<NetnsId>,
    /// Tables that are not there any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<NetnsId>,
    /// Lists that begin here: what was in them before is not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub anew: Vec<List>,
    /// Lists that are not kept any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<List>,
    /// Of its lists, the counts that are not as they were.
    pub sample: Sample,
}

/// Of which stream, and by what it is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct List {
    pub stream: Stream,
    pub by: By,
}

impl List {
    fn of(counts: &TopCounts) -> Self {
        Self { stream: counts.stream, by: counts.by }
    }
}

impl Frame {
    /// Without anything yet.
    pub fn of(time: Timestamp, elapsed: Duration) -> Self {
        Self {
            full: false,
            kept: Vec::new(),
            same: Vec::new(),
            gone: Vec::new(),
            anew: Vec::new(),
            ended: Vec::new(),
            sample: Sample::empty(time, elapsed),
        }
    }
}

/// All that the last frame left to be known, on both sides alike.
#[derive(Clone, Debug, Default)]
struct Known {
    tables: BTreeMap<NetnsId, Last>,
    limit: Option<u32>,
    buckets: Option<u32>,
    probed: Option<Probed>,
    told_apart: Vec<ToldApart>,
    planes: Option<Vec<PlaneCount>>,
    cgroups: Vec<(u64, String)>,
    lists: BTreeMap<List, Listed>,
}

/// The last reading of a table, and when that was.
#[derive(Clone, Debug)]
struct Last {
    table: TableSample,
    at: Duration,
}

/// What is recorded of one list.
#[derive(Clone, Debug, Default)]
struct Listed {
    offered: u64,
    left_out: u64,
    left_out_at_most: u64,
    counts: HashMap<Key, TopCount>,
}

impl Listed {
    fn takes(&mut self, list: &TopCounts) -> bool {
        let now = (list.offered, list.left_out, list.left_out_at_most);
        let before = (self.offered, self.left_out, self.left_out_at_most);
        (self.offered, self.left_out, self.left_out_at_most) = now;
        now != before
    }
}

impl Last {
    /// How old its reading is, where it is not read: as the sampler has it.
    fn age(&self, now: Duration) -> Duration {
        match self.table.access {
            Access::Unseen => Duration::ZERO,
            Access::Entered | Access::Refused => now.saturating_sub(self.at),
        }
    }
}

/// From samples to frames.
#[derive(Clone, Debug, Default)]
pub struct Encoder {
    known: Known,
    /// Whether there was a frame.
    has_begun: bool,
    /// Counts of the last sample, to tell who did most since.
    counted: HashMap<(List, Key), u64>,
}

/// So many counts of one list are recorded before those that are not among the first any more are
/// forgotten.
const MOST_LISTED: usize = 1024;

impl Encoder {
    /// `full`: reading can begin there.
    pub fn encode(&mut self, sample: &Sample, full: bool) -> Frame {
        let full = full || !self.has_begun;
        self.has_begun = true;
        if full {
            self.known.lists.clear();
        }
        let mut frame = Frame { full, ..Frame::of(sample.time, sample.elapsed) };
        self.tables(sample, &mut frame);
        self.parts(sample, &mut frame);
        self.lists(sample, &mut frame);
        frame
    }

    fn tables(&mut self, sample: &Sample, frame: &mut Frame) {
        let tables = &mut self.known.tables;
        let there: HashSet<NetnsId> = sample.tables.iter().map(|table| table.id).collect();
        let idle: HashMap<NetnsId, Duration> =
            sample.idle.iter().map(|idle| (idle.id, idle.age)).collect();
        tables.retain(|id, _| {
            let is_there = there.contains(id) || idle.contains_key(id);
            if !is_there && !frame.full {
                frame.gone.push(*id);
            }
            is_there
        });
        for table in &sample.tables {
            let known = tables.get(&table.id).is_some_and(|last| last.table == *table);
            match known && !frame.full {
                true => frame.same.push(table.id),
                false => frame.sample.tables.push(table.clone()),
            }
            tables.insert(table.id, Last { table: table.clone(), at: sample.elapsed });
        }
        for Idle { id, age } in &sample.idle {
            let Some(last) = tables.get_mut(id) else {
                // Never read since the recording began: that is all there is to say.
                frame.sample.idle.push(Idle { id: *id, age: *age });
                continue;
            };
            if frame.full {
                frame.sample.tables.push(last.table.clone());
            }
            if frame.full || last.age(sample.elapsed) != *age {
                frame.sample.idle.push(Idle { id: *id, age: *age });
            }
            if last.table.access != Access::Unseen {
                last.at = sample.elapsed.saturating_sub(*age);
            }
        }
    }

    fn parts(&mut self, sample: &Sample, frame: &mut Frame) {
        fn part<T: Clone + PartialEq>(
            now: &T,
            (known, written): (&mut T, &mut T),
            (part, frame): (Part, &mut (bool, Vec<Part>)),
        ) {
            match now == known && !frame.0 {
                true => frame.1.push(part),
                false => {
                    known.clone_from(now);
                    written.clone_from(now);
                }
            }
        }
        let Known { limit, buckets, probed, told_apart, planes, cgroups, .. } = &mut self.known;
        let (mut kept, out) = ((frame.full, Vec::new()), &mut frame.sample);
        part(&sample.limit, (limit, &mut out.limit), (Part::Limit, &mut kept));
        part(&sample.buckets, (buckets, &mut out.buckets), (Part::Buckets, &mut kept));
        part(&sample.probed, (probed, &mut out.probed), (Part::Probed, &mut kept));
        part(&sample.told_apart, (told_apart, &mut out.told_apart), (Part::ToldApart, &mut kept));
        part(&sample.planes, (planes, &mut out.planes), (Part::Planes, &mut kept));
        // Of what is recorded: names that no list needs are not.
        part(&sample.cgroups, (cgroups, &mut out.cgroups), (Part::Cgroups, &mut kept));
        frame.kept = kept.1;
    }

    /// The first of each list, and those that were among them since the last full frame.
    fn lists(&mut self, sample: &Sample, frame: &mut Frame) {
        let before = std::mem::take(&mut self.counted);
        let there: HashSet<List> = sample.tops.iter().map(List::of).collect();
        self.known.lists.retain(|list, _| {
            let is_there = there.contains(list);
            if !is_there {
                frame.ended.push(*list);
            }
            is_there
        });
        for list in &sample.tops {
            let id = List::of(list);
            let is_new = !self.known.lists.contains_key(&id);
            let listed = self.known.lists.entry(id).or_default();
            let anew = is_new || listed.counts.len() > MOST_LISTED;
            if anew {
                *listed = Listed::default();
                if !frame.full {
                    frame.anew.push(id);
                }
            }
            let first = first(list, &before);
            let mut written = TopCounts { counts: Vec::new(), ..*list };
            for count in &list.counts {
                self.counted.insert((id, count.key), count.count);
                match listed.counts.get_mut(&count.key) {
                    Some(known) if known == count => continue,
                    Some(known) => *known = *count,
                    None if first.contains(&count.key) => {
                        listed.counts.insert(count.key, *count);
                    }
                    None => {
                        written.left_out += 1;
                        written.left_out_at_most = written.left_out_at_most.max(count.count);
                        continue;
                    }
                }
                written.counts.push(*count);
            }
            if listed.takes(&written) || anew || frame.full || !written.counts.is_empty() {
                frame.sample.tops.push(written);
            }
        }
    }
}

/// In each namespace those that did most since the sample before, and those that did most of all.
fn first(list: &TopCounts, before: &HashMap<(List, Key), u64>) -> HashSet<Key> {
    let mut by_netns: HashMap<NetnsId, Vec<(&TopCount, u64)>> = HashMap::new();
    for count in &list.counts {
        let last = before.get(&(List::of(list), count.key)).copied().unwrap_or(0);
        let grown = count.count.saturating_sub(last);
        by_netns.entry(count.key.netns).or_default().push((count, grown));
    }
    let mut first = HashSet::new();
    for counts in by_netns.values_mut() {
        for by_growth in [true, false] {
            let rank = |(count, grown): &(&TopCount, u64)| {
                Reverse((if by_growth { *grown } else { count.count }, count.key))
            };
            if counts.len() > LISTED {
                counts.select_nth_unstable_by_key(LISTED, rank);
            }
            first.extend(counts.iter().take(LISTED).map(|(count, _)| count.key));
        }
    }
    first
}

/// From frames to samples.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    known: Known,
    has_begun: bool,
}

impl Decoder {
    /// `None` where what it leaves out is not known: until the next full one.
    pub fn decode(&mut self, frame: Frame) -> Option<Sample> {
        let Frame { full, kept, same, gone, anew, ended, sample } = frame;
        let continues = self.has_begun;
        if !continues && !full {
            return None;
        }
        self.has_begun = true;
        let mut sample = sample;
        if full {
            self.known = Known::default();
        }
        self.parts(&mut sample, &kept);
        self.lists(&mut sample, &anew, &ended);
        let now = sample.elapsed;
        let tables = &mut self.known.tables;
        let said: HashMap<NetnsId, Duration> =
            sample.idle.iter().map(|idle| (idle.id, idle.age)).collect();
        // As the encoder does: its next age is reckoned from there.
        for (id, age) in &said {
            if let Some(last) = tables.get_mut(id).filter(|of| of.table.access != Access::Unseen) {
                last.at = now.saturating_sub(*age);
            }
        }
        for table in &sample.tables {
            let age = said.get(&table.id).copied().unwrap_or_default();
            let at = now.saturating_sub(age);
            tables.insert(table.id, Last { table: table.clone(), at });
        }
        for id in gone {
            tables.remove(&id);
        }
        for id in same {
            let last = tables.get_mut(&id)?;
            last.at = now;
            sample.tables.push(last.table.clone());
        }
        let read: HashSet<NetnsId> = sample.tables.iter().map(|table| table.id).collect();
        if full {
            // Those that were not read are here to be known; whoever knows them is told that they were not.
            if continues {
                sample.tables.retain(|table| !said.contains_key(&table.id));
            } else {
                sample.idle.retain(|idle| !read.contains(&idle.id));
            }
            return Some(sample);
        }
        for (id, last) in tables.iter().filter(|(id, _)| !read.contains(id)) {
            if !said.contains_key(id) {
                sample.idle.push(Idle { id: *id, age: last.age(now) });
            }
        }
        Some(sample)
    }

    fn lists(&mut self, sample: &mut Sample, anew: &[List], ended: &[List]) {
        let lists = &mut self.known.lists;
        for list in anew.iter().chain(ended) {
            lists.remove(list);
        }
        for written in std::mem::take(&mut sample.tops) {
            let listed = lists.entry(List::of(&written)).or_default();
            listed.takes(&written);
            listed.counts.extend(written.counts.into_iter().map(|count| (count.key, count)));
        }
        let list = |(list, listed): (&List, &Listed)| TopCounts {
            stream: list.stream,
            by: list.by,
            offered: listed.offered,
            left_out: listed.left_out,
            left_out_at_most: listed.left_out_at_most,
            counts: listed.counts.values().copied().collect(),
        };
        sample.tops = lists.iter().map(list).collect();
    }

    /// The same with the last reading of each table in it, for somebody who knows none.
    pub fn whole(&self, mut sample: Sample) -> Sample {
        for idle in std::mem::take(&mut sample.idle) {
            match self.known.tables.get(&idle.id) {
                Some(last) => sample.tables.push(last.table.clone()),
                None => sample.idle.push(idle),
            }
        }
        sample
    }

    /// What comes next does not follow what was before: the next full frame begins anew.
    pub fn lose(&mut self) {
        *self = Self::default();
    }

    fn parts(&mut self, sample: &mut Sample, kept: &[Part]) {
        fn part<T: Clone>(is_kept: bool, known: &mut T, written: &mut T) {
            match is_kept {
                true => written.clone_from(known),
                false => known.clone_from(written),
            }
        }
        let Known { limit, buckets, probed, told_apart, planes, cgroups, .. } = &mut self.known;
        let is = |part| kept.contains(&part);
        part(is(Part::Limit), limit, &mut sample.limit);
        part(is(Part::Buckets), buckets, &mut sample.buckets);
        part(is(Part::Probed), probed, &mut sample.probed);
        part(is(Part::ToldApart), told_apart, &mut sample.told_apart);
        part(is(Part::Planes), planes, &mut sample.planes);
        part(is(Part::Cgroups), cgroups, &mut sample.cgroups);
    }
}

#[cfg(test)]
mod tests;
