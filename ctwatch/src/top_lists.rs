//! Top lists, from events to what is shown: events are told apart as the programs do it, read as user space
//! reads it, and what is shown is held against the truth.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use ctwatch_abi::{
    Count, NetnsId, NetnsTally,
    budget::{Budget, Window},
    testing::Random,
    top::{AF_INET, By, HALVES, Key, Set, Stream},
};

use crate::{
    model::{Model, Snapshot, figure::Exactness, verdict::situations::table},
    probe::top::merge,
    record::{
        sample::{Counted, HookReadings, Idle, Probed, Sample, TableSample, ToldApart, TopCounts},
        tests::recorded,
    },
};

const CPUS: usize = 3;
/// Of eight places each, for each list on each CPU: far fewer than there are sources.
const SETS: usize = 4;
const LISTS: [By; 3] = [By::Source, By::Interface, By::Process];
const WINDOW: Window = Window { events: 16, shift: 0 };
const NAMESPACES: [NetnsId; 2] = [1, 2];
/// Windows of the budget from one reading to the next.
const WINDOWS: u64 = 6;

type Place = (Stream, By, Key);

/// What happened to one key since the programs were attached.
#[derive(Clone, Copy, Default)]
struct Happened {
    events: u64,
    /// What those stand for that came into the list; and those that stand for several, and the most.
    weight: u64,
    scaled: u64,
    heaviest: u64,
}

type Truth = HashMap<Place, Happened>;

fn events(truth: &Truth, place: &Place) -> u64 {
    truth.get(place).map_or(0, |of_it| of_it.events)
}

/// All of a stream in a namespace: each event has a source.
fn all_events(truth: &Truth, of: Stream, netns: NetnsId) -> u64 {
    let is_of_it = |(stream, by, key): &Place| (*stream, *by, key.netns) == (of, By::Source, netns);
    truth.iter().filter(|(place, _)| is_of_it(place)).map(|(_, of_it)| of_it.events).sum()
}

/// Whose events they are, and how many come in a window on a CPU.
#[derive(Clone, Copy)]
struct Traffic {
    source: fn(&mut Random) -> u64,
    came: fn(window: u64, random: &mut Random) -> u64,
    /// Some events do not come to the budget, and some into no list of interfaces and processes.
    is_whole: bool,
}

const TRAFFIC: [Traffic; 4] = [
    // Each sends half as often as the one before.
    Traffic {
        source: |random| random.draw().trailing_zeros().into(),
        came: |_, random| 1 << (3 + random.draw() % 6),
        is_whole: false,
    },
    // One among many who come once.
    Traffic {
        source: |random| match random.draw() % 16 {
            0 => 0,
            _ => random.draw() >> 40 | 1 << 24,
        },
        came: |window, _| if window.is_multiple_of(2) { 4 } else { 300 },
        is_whole: false,
    },
    // More than there are places for, each as often as the others.
    Traffic { source: |random| random.draw() % 60, came: |_, _| 64, is_whole: true },
    // A dozen, and as many who come once.
    Traffic {
        source: |random| match random.draw() % 2 {
            0 => random.draw() % 12,
            _ => random.draw() >> 40 | 1 << 24,
        },
        came: |_, random| 1 << (random.draw() % 9),
        is_whole: true,
    },
];

/// As many as can all be told apart, and as there are places for.
const CALM: Traffic =
    Traffic { source: |random| random.draw() % 4, came: |_, _| 16, is_whole: true };

/// The programs, and what happens around them.
struct Machine {
    traffic: Traffic,
    random: Random,
    seed: [u64; HALVES],
    window: u64,
    /// Whether insertions are told apart.
    is_asked: bool,
    /// Nothing happens in the second namespace.
    is_quiet: bool,
    budgets: [[Budget; CPUS]; 2],
    sets: HashMap<(Stream, By), [[Set; CPUS]; SETS]>,
    tallies: BTreeMap<NetnsId, NetnsTally>,
    truth: Truth,
    /// When each namespace was read, and what had been counted in it.
    read: BTreeMap<NetnsId, (u64, NetnsTally)>,
}

/// What was read, and what had happened when that began and when it ended.
struct Reading {
    sample: Sample,
    is_still: bool,
    from: Truth,
    to: Truth,
}

impl Machine {
    fn new(traffic: Traffic, seed: u64) -> Self {
        let mut random = Random(seed);
        let tally = |netns: NetnsId| (netns, NetnsTally::new(netns, netns as u32));
        Self {
            traffic,
            seed: std::array::from_fn(|_| random.draw()),
            random,
            window: 1000,
            is_asked: false,
            is_quiet: false,
            budgets: Default::default(),
            sets: HashMap::new(),
            tallies: NAMESPACES.map(tally).into(),
            truth: Truth::new(),
            read: BTreeMap::new(),
        }
    }

    fn run(&mut self, windows: u64) {
        for _ in 0..windows {
            self.window += 1;
            for cpu in 0..CPUS {
                for _ in 0..(self.traffic.came)(self.window, &mut self.random) {
                    self.event(cpu);
                }
            }
        }
    }

    fn event(&mut self, cpu: usize) {
        let draw = self.random.draw();
        let stream = Stream::ALL[(draw % 2) as usize];
        let netns = if self.is_quiet || draw >> 1 & 3 != 0 { 1 } else { 2 };
        let ifindex = (draw >> 3 & 3) as u32;
        let is_whole = self.traffic.is_whole;
        let (passes_over, has_no_interface) = (draw >> 8 & 63 == 0, draw >> 16 & 31 == 0);
        let mut whole = Key { netns, ifindex, family: AF_INET, ..Key::default() };
        let source = (self.traffic.source)(&mut self.random) as u32;
        whole.src[..4].copy_from_slice(&source.to_be_bytes());
        let mut process = Key { netns, ..Key::default() };
        process.src[0] = b'a' + (draw >> 24 & 3) as u8;
        // What came by an interface was sent by no process.
        let keys = [Some((By::Source, whole)), Some((By::Interface, whole))];
        let keys = keys.into_iter().chain([(ifindex == 0).then_some((By::Process, process))]);
        let keys: Vec<(By, Key)> = keys.flatten().collect();
        for (by, key) in &keys {
            self.truth.entry((stream, *by, key.of(*by))).or_default().events += 1;
        }
        let count = match stream {
            Stream::Drops => Count::TableFull,
            Stream::Insertions => Count::Inserted,
        };
        self.tallies.get_mut(&netns).unwrap().bump(count);
        if stream == Stream::Insertions && !self.is_asked || passes_over && !is_whole {
            return;
        }
        let secret = self.random.draw();
        let budget = &mut self.budgets[stream as usize][cpu];
        let Some(weight) = budget.take(self.window, WINDOW, || secret) else { return };
        for (by, key) in keys {
            if by != By::Source && has_no_interface && !is_whole {
                continue;
            }
            let (hash, key) = (key.hashes(|at| self.seed[at]).of(by), key.of(by));
            let sets = self.sets.entry((stream, by)).or_default();
            sets[hash as usize % SETS][cpu].offer(by, &key, hash, weight);
            let of_it = self.truth.entry((stream, by, key)).or_default();
            let weight = u64::from(weight);
            of_it.weight += weight;
            if weight > 1 {
                of_it.scaled += weight;
                of_it.heaviest = of_it.heaviest.max(weight);
            }
        }
    }

    /// In the order in which they are read: counts, budgets, lists, counts again, namespaces, counts; with so
    /// many windows of events in between.
    fn sample(&mut self, second: u64, is_asked: bool, meanwhile: u64) -> Reading {
        self.is_asked = is_asked;
        let (from, before) = (self.truth.clone(), self.tallies.clone());
        let mut everywhere = NetnsTally::default();
        before.values().for_each(|tally| everywhere.add(tally));
        self.run(meanwhile);
        let told_apart =
            Stream::ALL.map(|stream| ToldApart::of(stream, &self.budgets[stream as usize]));
        let mut tops = Vec::new();
        for stream in Stream::ALL {
            for by in LISTS {
                self.run(meanwhile);
                let mut list = TopCounts {
                    stream,
                    by,
                    offered: 0,
                    left_out: 0,
                    left_out_at_most: 0,
                    counts: Vec::new(),
                };
                let sets = self.sets.get(&(stream, by)).into_iter().flatten();
                sets.for_each(|cpus| merge(cpus, &mut list));
                tops.push(list);
            }
        }
        tops.retain(|list| is_asked || list.stream == Stream::Drops);
        self.run(meanwhile);
        let by_now = self.tallies.clone();
        self.run(meanwhile);
        let visited = self.tallies.clone();
        self.run(meanwhile);
        let (mut tables, mut idle) = (Vec::new(), Vec::new());
        for netns in NAMESPACES {
            let [before, by_now, visited, after] =
                [&before, &by_now, &visited, &self.tallies].map(|tallies| tallies[&netns]);
            match self.read.get(&netns) {
                Some((at, counted)) if *counted == by_now => {
                    idle.push(Idle { id: netns, age: Duration::from_secs(second - at) });
                }
                _ => {
                    self.read.insert(netns, (second, by_now));
                    let hooks = Some(HookReadings { before, after });
                    let dropped = visited.get(Count::TableFull) as u32;
                    let table = table(netns as u32, "x", 0, dropped);
                    tables.push(TableSample { hooks, ..table });
                }
            }
        }
        let counted = Counted {
            refusals: true,
            clashes: true,
            insertions: true,
            ends: true,
            ..Counted::default()
        };
        let sample = Sample {
            time: jiff::Timestamp::from_second(second as i64).unwrap(),
            tables,
            idle,
            probed: Some(Probed { counted, everywhere, ..Probed::default() }),
            tops,
            told_apart: told_apart.to_vec(),
            ..Sample::at(Duration::from_secs(second))
        };
        Reading { sample, is_still: meanwhile == 0, from, to: self.truth.clone() }
    }
}

/// What a list says of one key: in all since it began, and since the reading before.
#[derive(Clone, Copy)]
struct Since<'a> {
    began: &'a Reading,
    last: Option<&'a Reading>,
    now: &'a Reading,
}

/// How many entries were looked at, and of how many the truth is beyond the margin.
#[derive(Debug, Default)]
struct Looked {
    entries: u64,
    exact: u64,
    estimates: u64,
    /// How far apart the ends are, of all estimates: of the margins, and of what is proven.
    width: u64,
    width_proven: u64,
    beyond: u64,
}

impl Looked {
    /// Each entry of a stream.
    fn at(&mut self, snapshot: &Snapshot, stream: Stream, since: Since<'_>) {
        let Since { began, last, now } = since;
        for table in &snapshot.tables {
            let all = |truth| all_events(truth, stream, table.id);
            let all = all(&now.to) - all(&began.from);
            for list in table.top.iter().filter(|list| list.stream == stream) {
                let since = (began.sample.elapsed > Duration::ZERO).then_some(began.sample.time);
                assert_eq!(list.since, since, "{stream:?}");
                for entry in &list.entries {
                    let place = (stream, list.by, entry.key);
                    let of = |truth| events(truth, &place);
                    let least = of(&now.from).saturating_sub(of(&began.to));
                    let most = of(&now.to) - of(&began.from);
                    let proven = match entry.estimate {
                        None => (entry.count - entry.error, Some(entry.count)),
                        Some(it) => (it.proven_at_least, it.proven_at_most),
                    };
                    let holds = proven.0 <= most && proven.1.is_some_and(|end| least <= end);
                    assert!(holds, "{least} to {most} of {place:?}: {entry:?}");
                    self.entries += 1;
                    self.exact += u64::from(entry.estimate.is_none() && entry.error == 0);
                    if let Some(it) = entry.estimate {
                        self.estimates += 1;
                        self.width += it.at_most - it.at_least;
                        self.width_proven += proven.1.unwrap_or(0) - proven.0;
                        self.beyond += u64::from(most < it.at_least || it.at_most < least);
                    }
                    if !now.is_still {
                        continue;
                    }
                    assert!(entry.at_most() <= all, "one of {all}: {entry:?}");
                    let share = (all > 0).then(|| entry.count as f64 / all as f64);
                    assert_eq!(entry.share, share, "of {all}");
                    let Some(last) = last.filter(|_| table.age.is_zero()) else { continue };
                    // The readings are a second apart.
                    let grew = (of(&now.to) - of(&last.to)) as f64;
                    let per_s = entry.per_s.unwrap_or(0.0);
                    let holds = match entry.per_s_is {
                        Exactness::Exact => per_s == grew,
                        Exactness::LowerBound => per_s <= grew,
                        Exactness::UpperBound => per_s >= grew,
                        Exactness::Estimated => true,
                        Exactness::Unavailable => began.sample.time == now.sample.time,
                    };
                    assert!(holds, "{grew} of {place:?}: {entry:?}");
                }
            }
        }
    }
}

/// Insertions are asked for, then for a while not, then again; nothing happens in the second namespace
/// before they are told apart again, and for a while after.
fn replay(traffic: Traffic, seed: u64, meanwhile: u64) -> [Looked; 2] {
    let mut machine = Machine::new(traffic, seed);
    let mut model = Model::with_tops(10_000, &LISTS);
    let mut readings: Vec<Reading> = Vec::new();
    let (mut looked, mut asked_at) = (<[Looked; 2]>::default(), None);
    for second in 0..13 {
        machine.is_quiet = matches!(second, 2 | 7..=10);
        machine.run(WINDOWS);
        let is_asked = matches!(second, 3..=6 | 9..);
        let reading = machine.sample(second, is_asked, meanwhile);
        let snapshot = match seed {
            0 => model.advance(&recorded(&reading.sample)),
            _ => model.advance(&reading.sample),
        };
        readings.push(reading);
        let (now, last) = (readings.last().unwrap(), readings.iter().nth_back(1));
        asked_at = is_asked.then(|| asked_at.unwrap_or(readings.len() - 1));
        // Only of the last look: one key is in many, and who is unlucky once is so for a while.
        looked = Default::default();
        let since = Since { began: &readings[0], last, now };
        looked[0].at(&snapshot, Stream::Drops, since);
        match asked_at {
            Some(at) => {
                let since = Since { began: &readings[at], last, now };
                looked[1].at(&snapshot, Stream::Insertions, since);
            }
            None => {
                let mut lists = snapshot.tables.iter().flat_map(|table| &table.top);
                assert!(lists.all(|list| list.stream == Stream::Drops), "nobody asks");
            }
        }
        let since: Vec<_> = snapshot.lists_since.iter().map(|(_, since)| *since).collect();
        let first = readings[0].sample.time;
        let began = [Some(first), asked_at.map(|at| readings[at].sample.time)];
        assert_eq!(since, began.into_iter().flatten().collect::<Vec<_>>());
    }
    looked
}

fn replay_all(seeds: impl Iterator<Item = u64>, meanwhile: u64) {
    let (mut estimates, mut beyond, mut width, mut width_proven) = (0, 0, 0, 0);
    for seed in seeds {
        let traffic = TRAFFIC[seed as usize % TRAFFIC.len()];
        for looked in replay(traffic, seed, meanwhile) {
            assert!(looked.entries > 10, "{looked:?}");
            estimates += looked.estimates;
            beyond += looked.beyond;
            (width, width_proven) = (width + looked.width, width_proven + looked.width_proven);
        }
    }
    let may = 0.001 * estimates as f64;
    assert!(estimates > 1000 && width < width_proven, "{width} {width_proven}");
    assert!(beyond as f64 <= may + 3.0 * may.sqrt(), "{beyond} of {estimates}");
}

#[test]
fn what_is_shown_holds_since_the_list_began() {
    replay_all(0..24, 0);
}

/// Of events that happen while it is read, nobody can say whether they are in it.
#[test]
fn bounds_hold_while_more_happens_than_is_read() {
    // How many events are in no list is known of a moment, and not of all of a reading.
    let is_whole = |seed: &u64| TRAFFIC[*seed as usize % TRAFFIC.len()].is_whole;
    replay_all((100..124).filter(is_whole), 1);
}

#[test]
fn a_later_list_within_the_budget_is_exact() {
    for seed in 0..4 {
        for looked in replay(CALM, seed, 0) {
            assert!(looked.entries > 20 && looked.exact == looked.entries, "{looked:?}");
        }
    }
}

/// Of the sum of their weights, whatever was taken for how many.
#[test]
fn counts_over_cpus_bound_what_was_counted() {
    for seed in 0..12 {
        let mut machine = Machine::new(TRAFFIC[seed as usize % TRAFFIC.len()], seed);
        machine.run(10 * WINDOWS);
        machine.is_asked = true;
        machine.run(10 * WINDOWS);
        let Reading { sample, to: truth, .. } = machine.sample(1, true, 0);
        let mut scaled = 0;
        for list in &sample.tops {
            let mut offered = 0;
            for ((stream, by, _), of_it) in &truth {
                offered += if (*stream, *by) == (list.stream, list.by) { of_it.weight } else { 0 };
            }
            assert_eq!(list.offered, offered);
            for count in &list.counts {
                let of_it = truth[&(list.stream, list.by, count.key)];
                let certain = count.count - count.error;
                let holds = certain <= of_it.weight && of_it.weight <= count.count;
                assert!(holds, "{} of {count:?}", of_it.weight);
                assert!(of_it.scaled <= count.scaled && of_it.heaviest <= count.heaviest);
                scaled += of_it.scaled;
            }
        }
        assert!(scaled > 0, "{seed}: nothing was taken for several");
    }
}
