//! What is left out is as it was: a host that lives for a while comes back as it was seen.

use std::io::Write;

use ctwatch_abi::{Count, NetnsTally};
use flate2::{Compression, write::GzEncoder};

use super::*;
use crate::{
    record::{
        counters::CounterSums,
        sample::{Counted, HookReadings, Misses, Owner},
        workload::Workload,
    },
    recording::line::Line,
};

struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// Namespaces in which more or less happens, as the sampler tells of them.
struct Host {
    random: Random,
    tables: Vec<(TableSample, Duration)>,
    tallies: Vec<NetnsTally>,
    second: u64,
    /// In so many of a hundred something happens in a second.
    busy: u64,
    lists: Vec<TopCounts>,
}

fn table(id: u64) -> TableSample {
    TableSample {
        id,
        inode: 4_026_531_840 + u32::try_from(id).unwrap(),
        name: Some(format!("cni-{id:08x}-1f2e-4c5d-8a9b-{:012x}", id * 7_919)),
        workload: Workload::default(),
        owner: Owner::Host,
        is_judged: true,
        access: Access::Entered,
        entries: Some(1000),
        counters: Some(CounterSums { cpus: 64, chaintoolong: Some(0), ..CounterSums::default() }),
        unread: None,
        hooks: Some(HookReadings::default()),
        interfaces: Vec::new(),
    }
}

impl Host {
    fn new(namespaces: u64, busy: u64) -> Self {
        Self {
            random: Random(7),
            tables: (1..=namespaces).map(|id| (table(id), Duration::ZERO)).collect(),
            tallies: (1..=namespaces).map(|id| NetnsTally::new(id, 1)).collect(),
            second: 0,
            busy,
            lists: Vec::new(),
        }
    }

    /// As it is after another second: those in which nothing happened are read in turns.
    fn tick(&mut self) -> Sample {
        self.second += 1;
        let noise = self.random.below(3_000_000);
        let now = Duration::from_secs(self.second) + Duration::from_nanos(noise);
        let mut sample = Frame::of(
            Timestamp::from_second(1_800_000_000 + self.second.cast_signed()).unwrap(),
            now,
        )
        .sample;
        (sample.limit, sample.buckets) = (Some(262_144), Some(65_536));
        let mut everywhere = NetnsTally::default();
        for at in 0..self.tables.len() {
            let happens = self.random.below(100) < self.busy;
            let turn = (self.second + at as u64).is_multiple_of(9);
            let (table, read) = &mut self.tables[at];
            if happens {
                let more = self.random.below(200);
                let tally = &mut self.tallies[at];
                (0..more).for_each(|_| tally.bump(Count::Inserted));
                (0..self.random.below(200)).for_each(|_| tally.bump(Count::Removed));
                table.entries = table.entries.map(|_| 1000 + self.random.below(400) as u32);
                if let Some(sums) = &mut table.counters {
                    sums.found += more * 3;
                    sums.invalid += self.random.below(3);
                    sums.search_restart += self.random.below(2);
                }
                table.hooks = Some(HookReadings { before: *tally, after: *tally });
            }
            if happens || turn || *read == Duration::ZERO {
                *read = now;
                sample.tables.push(table.clone());
            } else {
                let age = match table.access {
                    Access::Unseen => Duration::ZERO,
                    _ => now - *read,
                };
                sample.idle.push(Idle { id: table.id, age });
            }
            everywhere.add(&self.tallies[at]);
        }
        let counted =
            Counted { refusals: true, insertions: true, ends: true, ..Counted::default() };
        let misses = Misses::default();
        sample.probed = Some(Probed { everywhere, counted, misses, ..Probed::default() });
        sample.tops.clone_from(&self.lists);
        sample
    }
}

/// In one order.
fn sorted(mut sample: Sample) -> Sample {
    sample.tables.sort_by_key(|table| table.id);
    sample.idle.sort_by_key(|idle| idle.id);
    sample.tops.sort_by_key(List::of);
    sample.tops.iter_mut().for_each(|list| list.counts.sort_by_key(|count| count.key));
    sample
}

fn through(frame: Frame) -> Frame {
    match Line::parse(&Line::Tick(Box::new(frame)).text().unwrap()).unwrap() {
        Line::Tick(frame) => *frame,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_played_back_is_what_was_seen() {
    let mut host = Host::new(40, 30);
    let (mut encoder, mut decoder, mut late) =
        (Encoder::default(), Decoder::default(), Decoder::default());
    for second in 1..200_u64 {
        match second {
            20 => host.tables[3].0.access = Access::Unseen,
            30 => host.tables[5].0.name = Some("other".to_owned()),
            40 => _ = host.tables.remove(7),
            _ => {}
        }
        if second == 40 {
            host.tallies.remove(7);
        }
        if second > 50 {
            host.tables.push((table(1000 + second), Duration::ZERO));
            host.tallies.push(NetnsTally::new(1000 + second, 1));
        }
        let sample = host.tick();
        let frame = through(encoder.encode(&sample, second % 60 == 1));
        assert_eq!(frame.full, second % 60 == 1);
        assert_eq!(
            sorted(decoder.decode(frame.clone()).unwrap()),
            sorted(sample.clone()),
            "{second}"
        );
        // Whoever comes later waits for a full frame, and then knows all.
        if second < 90 {
            continue;
        }
        match late.decode(frame) {
            None => assert!(second < 121),
            Some(seen) if second == 121 => {
                let there = |sample: &Sample| sample.tables.len() + sample.idle.len();
                assert_eq!((seen.tables.len(), there(&seen)), (there(&sample), there(&sample)));
            }
            Some(seen) => assert_eq!(sorted(seen), sorted(sample), "{second}"),
        }
    }
}

#[test]
fn an_idle_host_repeats_nothing() {
    let mut host = Host::new(100, 0);
    let mut encoder = Encoder::default();
    encoder.encode(&host.tick(), false);
    (0..5).for_each(|_| _ = encoder.encode(&host.tick(), false));
    let frame = encoder.encode(&host.tick(), false);
    assert!(frame.sample.tables.is_empty() && frame.sample.idle.is_empty(), "{frame:?}");
    let text = Line::Tick(Box::new(frame)).text().unwrap();
    assert!(text.len() < 300, "{}", String::from_utf8_lossy(&text));
}

fn count(source: u64, count: u64) -> TopCount {
    let mut key = Key { netns: 1, family: 2, ..Key::default() };
    key.src[..8].copy_from_slice(&source.to_be_bytes());
    TopCount { key, count, ..TopCount::default() }
}

fn list(counts: Vec<TopCount>) -> TopCounts {
    let (stream, by) = (Stream::Drops, By::Source);
    TopCounts { stream, by, offered: 5, left_out: 0, left_out_at_most: 0, counts }
}

#[test]
fn the_first_of_a_list_are_recorded_and_the_rest_is_bounded() {
    let mut host = Host::new(1, 0);
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
    let mut played = |host: &mut Host| {
        let frame = through(encoder.encode(&host.tick(), false));
        decoder.decode(frame).unwrap().tops
    };
    host.lists = vec![list((0..10).map(|source| count(source, 1)).collect())];
    assert_eq!(sorted_counts(&played(&mut host)[0]).len(), 10, "few are all there");
    host.lists = vec![list((0..1000).map(|source| count(source, 5000 - source)).collect())];
    let tops = played(&mut host);
    let kept = sorted_counts(&tops[0]);
    assert!((LISTED..=2 * LISTED + 10).contains(&kept.len()), "{}", kept.len());
    assert_eq!(tops[0].left_out, 1000 - kept.len() as u64);
    assert!((0..LISTED as u64).all(|source| kept.contains(&source)), "{kept:?}");
    let most_left_out = (0..1000).find(|source| !kept.contains(source)).unwrap();
    assert_eq!(tops[0].left_out_at_most, 5000 - most_left_out);
    // One from far behind does more than all others now, and stays in it.
    let mut now: Vec<TopCount> = (0..1000).map(|source| count(source, 5000 - source)).collect();
    now[700].count += 100;
    host.lists = vec![list(now.clone())];
    assert!(sorted_counts(&played(&mut host)[0]).contains(&700));
    now[700].count += 1;
    host.lists = vec![list(now)];
    let tops = played(&mut host);
    let of_700 = tops[0].counts.iter().find(|found| found.key == count(700, 0).key).unwrap();
    assert_eq!(of_700.count, 4401);
    // What is not kept any more is in no list.
    host.lists = Vec::new();
    assert!(played(&mut host).is_empty());
    host.lists = vec![list(vec![count(3, 1)])];
    assert_eq!(sorted_counts(&played(&mut host)[0]), [3], "it begins anew");
}

fn sorted_counts(list: &TopCounts) -> Vec<u64> {
    let source = |count: &TopCount| u64::from_be_bytes(count.key.src[..8].try_into().unwrap());
    let mut sources: Vec<u64> = list.counts.iter().map(source).collect();
    sources.sort_unstable();
    sources
}

/// Megabytes of a day, by five minutes of it.
fn a_day(mut host: Host) -> f64 {
    let mut encoder = Encoder::default();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    for second in 0..300 {
        let frame = encoder.encode(&host.tick(), second % 60 == 0);
        gzip.write_all(&Line::Tick(Box::new(frame)).text().unwrap()).unwrap();
    }
    gzip.finish().unwrap().len() as f64 * 288.0 / f64::from(1 << 20)
}

#[test]
fn a_day_takes_little_room() {
    let four = a_day(Host::new(4, 100));
    assert!(four < 20.0, "4 namespaces in which something happens each second: {four:.1} MB");
    let some = a_day(Host::new(200, 5));
    assert!(some < 150.0, "200 namespaces on 64 CPUs, ten busy each second: {some:.1} MB");
}

/// Playing a recording takes little more than reading its files and what the model takes by itself: three
/// hours of four namespaces, against `zcat | wc -l` on the same file and the same samples in memory.
#[test]
fn playing_takes_little_more_than_reading_and_reckoning() {
    use std::{hint::black_box, process::Command};

    use crate::{
        model::Model,
        observe::event::Event,
        record::session::{Epoch, FORMAT, Header},
        recording::{
            line::{RecordedOn, Segment},
            play::{Player, Playing},
        },
    };

    const TICKS: usize = 10_800;
    let mut host = Host::new(4, 100);
    let samples: Vec<Sample> = (0..TICKS).map(|_| host.tick()).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("day.ndjson.gz");
    let mut gzip = GzEncoder::new(std::fs::File::create(&path).unwrap(), Compression::default());
    let mut encoder = Encoder::default();
    let header = Header {
        format: FORMAT,
        version: String::new(),
        kernel: String::new(),
        boot_id: None,
        interval: Duration::from_secs(1),
        mechanisms: Vec::new(),
        notes: Vec::new(),
        top_bytes: None,
    };
    let header = Box::new(header);
    let segment = Segment::new(1, samples[0].time, &RecordedOn::default());
    let begin = Line::Begin { again: false, header, epoch: Epoch { number: 1, gap: None } };
    for line in [Line::Segment(segment), begin] {
        gzip.write_all(&line.text().unwrap()).unwrap();
    }
    for (second, sample) in samples.iter().enumerate() {
        let frame = encoder.encode(sample, second % 60 == 0);
        gzip.write_all(&Line::Tick(Box::new(frame)).text().unwrap()).unwrap();
    }
    gzip.finish().unwrap();
    // Of a CPU: what else the machine does takes none of this thread's, nor of that child's.
    let time = |work: &mut dyn FnMut()| {
        let begun = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        work();
        let took = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime) - begun;
        took.tv_sec as f64 + took.tv_nsec as f64 / 1e9
    };
    let read = || {
        let mut command = Command::new("sh");
        let said =
            command.args(["-c", "zcat \"$0\" | wc -l > /dev/null; times"]).arg(&path).output();
        let said = String::from_utf8(said.unwrap().stdout).unwrap();
        // The shell's own, and its children's: `0m0.010000s 0m0.000000s`.
        let children = said.lines().nth(1).unwrap();
        let seconds = |word: &str| {
            let (minutes, seconds) = word.trim_end_matches('s').split_once('m').unwrap();
            60.0 * minutes.parse::<f64>().unwrap() + seconds.parse::<f64>().unwrap()
        };
        children.split_whitespace().map(seconds).sum::<f64>()
    };
    let mut reckon = || {
        let mut model = Model::default();
        samples.iter().for_each(|sample| _ = black_box(model.advance(sample)));
    };
    let mut play = || {
        let mut player = Player::open(&path, Playing::default()).unwrap();
        let mut ticks = 0;
        loop {
            match player.next_event().unwrap() {
                Event::Tick { snapshot, .. } => {
                    black_box(snapshot);
                    ticks += 1;
                }
                Event::End => break,
                _ => {}
            }
        }
        assert_eq!(ticks, TICKS - 1);
    };
    // Side by side, and the best of several: other work on the machine takes caches from all three.
    let ratios = (0..5).map(|_| time(&mut play) / (read() + time(&mut reckon)));
    let ratios: Vec<f64> = ratios.collect();
    let best = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    assert!(best < 2.0, "{ratios:?}");
}
