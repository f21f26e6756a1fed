//! What the lists have counted, and since when: from one sample to the next.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
};

use ctwatch_abi::{
    NetnsId,
    plane::Plane,
    top::{By, Key, Stream},
};

use super::talker::{Grown, LetBy, Scale, Talker};
use crate::record::sample::{Sample, ToldApart, TopCount};

/// What was counted at the last sample.
#[derive(Clone, Debug, Default)]
pub(super) struct Talkers {
    last: HashMap<(Stream, By, Key), TopCount>,
    /// The same when the lists of the stream began to count: at the first sample, from which on totals
    /// count, or when somebody asked for them. The programs count from when they were attached.
    base: HashMap<(Stream, By, Key), TopCount>,
    /// What the keys came to at most that a list left out: at the last sample, and when it began to count.
    left_out: HashMap<(Stream, By), u64>,
    base_left_out: HashMap<(Stream, By), u64>,
    begun: Vec<Begun>,
}

/// When the lists of a stream began to count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    pub(super) stream: Stream,
    pub(super) since: jiff::Timestamp,
    /// With the first sample.
    pub(super) at_start: bool,
    /// With this sample.
    pub(super) now: bool,
    /// Events that were let by, by then and at the sample before.
    let_by: u64,
    last_let_by: u64,
    /// Events that happened and did not come to the budget, by then.
    pub(super) passed_over: i128,
}

/// The talkers of each namespace, table by table.
#[derive(Default)]
pub(super) struct Talking {
    pub(super) talkers: HashMap<(NetnsId, Stream, By), Vec<Talker>>,
    pub(super) begun: Vec<Begun>,
}

impl Talkers {
    /// Without those of `idle`, in which nothing has happened since.
    pub(super) fn advance(
        &mut self,
        sample: &Sample,
        seconds: Option<f64>,
        idle: &HashSet<NetnsId>,
    ) -> Talking {
        let mut talking = Talking::default();
        let mut now = HashMap::with_capacity(self.last.len());
        let let_by = self.begin(sample, seconds.is_none());
        for list in &sample.tops {
            let Some(at) = self.begun.iter().position(|begun| begun.stream == list.stream) else {
                continue;
            };
            let (begins, let_by) = (self.begun[at].now, let_by[at]);
            let which = (list.stream, list.by);
            let last_left_out = self.left_out.insert(which, list.left_out_at_most).unwrap_or(0);
            if begins {
                self.base_left_out.insert(which, list.left_out_at_most);
            }
            let base_left_out = self.base_left_out.get(&which).copied().unwrap_or(0);
            for count in &list.counts {
                let id = (list.stream, list.by, count.key);
                now.insert(id, *count);
                if begins {
                    self.base.insert(id, *count);
                }
                if idle.contains(&count.key.netns) {
                    continue;
                }
                let (base, last) = (self.base.get(&id), self.last.get(&id));
                let grown = |before: Option<&TopCount>, left_out| match before {
                    Some(before) => Grown::of(count, before),
                    None => Grown::of_left_out(count, left_out),
                };
                let since = grown(base, base_left_out);
                let grown = (!begins).then(|| grown(last, last_left_out));
                let (base, last) =
                    (base.copied().unwrap_or_default(), last.copied().unwrap_or_default());
                let of = (count.key.netns, list.stream, list.by);
                let scale = Scale {
                    weight: count.scaled.saturating_sub(base.scaled),
                    is_now: count.scaled > last.scaled || let_by.now > 0,
                    taken_for: count.heaviest,
                    heaviest: count.heaviest.max(let_by.heaviest),
                    let_by,
                };
                let (key, error) = (count.key, count.error);
                let talker = Talker { key, count: count.count, error, since, grown, scale };
                talking.talkers.entry(of).or_default().push(talker);
            }
        }
        self.last = now;
        talking.begun.clone_from(&self.begun);
        for talkers in talking.talkers.values_mut() {
            let grown = |talker: &Talker| talker.grown.map_or(0, |grown| grown.least);
            // Of equals the first by key: a recording does not keep the order of the kernel's slots.
            talkers
                .sort_by_key(|talker| (Reverse((grown(talker), talker.most_since())), talker.key));
        }
        talking
    }

    /// The lists of which streams are kept now, and since when; how much of each was let by.
    fn begin(&mut self, sample: &Sample, at_start: bool) -> Vec<LetBy> {
        let is_kept = |stream| sample.tops.iter().any(|list| list.stream == stream);
        self.begun.retain(|begun| is_kept(begun.stream));
        self.begun.iter_mut().for_each(|begun| begun.now = false);
        for stream in Stream::ALL.into_iter().filter(|stream| is_kept(*stream)) {
            if self.begun.iter().any(|begun| begun.stream == stream) {
                continue;
            }
            let let_by = told(sample, stream).map_or(0, |told| told.let_by);
            self.base.retain(|(other, ..), _| *other != stream);
            self.begun.push(Begun {
                stream,
                since: sample.time,
                at_start,
                now: true,
                let_by,
                last_let_by: let_by,
                passed_over: 0,
            });
        }
        let of = |begun: &mut Begun| {
            let Some(told) = told(sample, begun.stream) else { return LetBy::default() };
            let last = std::mem::replace(&mut begun.last_let_by, told.let_by);
            LetBy {
                in_all: told.let_by.saturating_sub(begun.let_by),
                now: told.let_by.saturating_sub(last),
                heaviest: told.heaviest,
                is_known: true,
            }
        };
        self.begun.iter_mut().map(of).collect()
    }

    pub(super) fn begun(&self) -> &[Begun] {
        &self.begun
    }

    /// Events of a stream that happened and did not come to the budget, when its lists began to count.
    pub(super) fn passed_over(&mut self, of: impl Fn(Stream) -> i128) {
        for begun in self.begun.iter_mut().filter(|begun| begun.now && !begun.at_start) {
            begun.passed_over = of(begun.stream);
        }
    }
}

pub(super) fn told(sample: &Sample, stream: Stream) -> Option<&ToldApart> {
    sample.told_apart.iter().find(|told| told.stream == stream)
}

impl Talking {
    /// Control planes among the services whose packets were refused: what is certain since the sample
    /// before, and in all.
    pub(super) fn planes(&self, netns: NetnsId) -> impl Iterator<Item = (Plane, (u64, u64))> {
        let talkers = self.talkers.get(&(netns, Stream::Drops, By::Service));
        talkers.into_iter().flatten().filter_map(|talker| {
            let plane = Plane::of(talker.key.protocol, u16::from_be(talker.key.dport))?;
            // Of an estimate only what is proven in all.
            let grown = talker.grown.filter(|_| !talker.is_estimated());
            let in_all = talker.proven(talker.certain(), talker.scale.weight);
            Some((plane, (grown.map_or(0, |grown| grown.least), in_all)))
        })
    }
}
