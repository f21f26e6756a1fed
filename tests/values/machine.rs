//! A machine as the sampler tells of it, in which what happens is made to happen.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use ctwatch::model::census::{Census, KernelCount, Taken};
use ctwatch::record::{
    counters::{CounterSums, CpuCounters},
    entry::{Held, Left, Status},
    facts::{Facts, Namespace, RuleTable, Totals},
    sample::{
        Access, Counted, HookReadings, Idle, Owner, PlaneCount, Probed, Sample, TableSample,
        ToldApart, TopCount, TopCounts,
    },
    session::{FORMAT, Header, Measured},
    workload::Workload,
};
use ctwatch_abi::{
    Count, NetnsTally,
    plane::Plane,
    top::{AF_INET, By, Key, Seed, Stream},
};
use jiff::Timestamp;

/// Who talks to whom: source, destination, protocol, port.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Talk {
    pub(crate) source: Ipv4Addr,
    pub(crate) service: (Ipv4Addr, u8, u16),
    pub(crate) ifindex: u32,
}

impl Talk {
    pub(crate) fn dns(source: Ipv4Addr) -> Self {
        Self { source, service: (Ipv4Addr::new(10, 100, 0, 2), 17, 53), ifindex: 2 }
    }

    fn key(&self, netns: u64) -> Key {
        let (destination, protocol, port) = self.service;
        let mut key = Key { netns, family: AF_INET, protocol, ..Key::default() };
        key.src[..4].copy_from_slice(&self.source.octets());
        key.dst[..4].copy_from_slice(&destination.octets());
        (key.dport, key.ifindex) = (port.to_be(), self.ifindex);
        key
    }
}

/// One namespace and what was counted in it.
pub(crate) struct Place {
    pub(crate) table: TableSample,
    /// Nothing happens in it, and it is not read any more, since then.
    pub(crate) idle_since: Option<Timestamp>,
    tally: NetnsTally,
    cpu: CpuCounters,
}

/// As a recorder on it sees it: its own counts begin with it, the kernel's go on.
pub(crate) struct Machine {
    pub(crate) now: Timestamp,
    /// When the recorder began.
    begun: Timestamp,
    pub(crate) limit: u32,
    pub(crate) places: Vec<Place>,
    counted: BTreeMap<(Stream, By, Key), u64>,
    planes: BTreeMap<(u64, Plane), u64>,
    pub(crate) cgroups: Vec<(u64, String)>,
    /// Processes that sent what was dropped: name, number of the cgroup.
    pub(crate) process: Option<(String, u64)>,
    random: u64,
}

impl Machine {
    pub(crate) fn new(now: Timestamp, limit: u32, seed: u64) -> Self {
        Self {
            now,
            begun: now,
            limit,
            places: Vec::new(),
            counted: BTreeMap::new(),
            planes: BTreeMap::new(),
            cgroups: Vec::new(),
            process: None,
            random: seed,
        }
    }

    /// The same numbers in each run.
    pub(crate) fn below(&mut self, most: u64) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % most
    }

    pub(crate) fn place(&mut self, id: u64, name: &str, entries: u32) -> usize {
        let inode = 4_026_531_840 + u32::try_from(id).unwrap();
        let table = TableSample {
            id,
            inode,
            name: Some(name.to_owned()),
            workload: Workload::default(),
            owner: Owner::Host,
            is_judged: true,
            access: Access::Entered,
            entries: Some(entries),
            counters: None,
            unread: None,
            hooks: None,
            interfaces: vec![(2, "uplink".to_owned())],
        };
        let cpu = CpuCounters { chaintoolong: Some(0), ..CpuCounters::default() };
        self.places.push(Place { table, idle_since: None, tally: NetnsTally::new(id, inode), cpu });
        self.places.len() - 1
    }

    /// Another recorder begins.
    pub(crate) fn restart(&mut self) {
        self.begun = self.now;
        self.counted.clear();
        self.planes.clear();
        for Place { table, tally, .. } in &mut self.places {
            *tally = NetnsTally::new(table.id, table.inode);
        }
    }

    /// All that the kernel had counted is gone too.
    pub(crate) fn reboot(&mut self) {
        self.restart();
        for Place { cpu, .. } in &mut self.places {
            *cpu = CpuCounters { chaintoolong: Some(0), ..CpuCounters::default() };
        }
    }

    pub(crate) fn entries(&self, at: usize) -> u32 {
        self.places[at].table.entries.unwrap_or(0)
    }

    pub(crate) fn insert(&mut self, at: usize, talk: Talk, times: u32) {
        let place = &mut self.places[at];
        (0..times).for_each(|_| place.tally.bump(Count::Inserted));
        place.table.entries = place.table.entries.map(|entries| entries + times);
        let key = talk.key(place.table.id);
        self.count(Stream::Insertions, key, &[By::Source, By::Service], times);
    }

    pub(crate) fn remove(&mut self, at: usize, times: u32) {
        let Place { table, tally, .. } = &mut self.places[at];
        let times = times.min(table.entries.unwrap_or(0));
        (0..times).for_each(|_| tally.bump(Count::Removed));
        table.entries = table.entries.map(|entries| entries - times);
    }

    /// Others make room.
    pub(crate) fn evict(&mut self, at: usize, times: u32) {
        self.remove(at, times);
        self.places[at].cpu.early_drop += times;
    }

    /// The table is full. `seen`: the recorder runs.
    pub(crate) fn refuse(&mut self, at: usize, talk: Talk, times: u32, seen: bool) {
        let place = &mut self.places[at];
        place.cpu.drop += times;
        if !seen {
            return;
        }
        (0..times).for_each(|_| place.tally.bump(Count::TableFull));
        let key = talk.key(place.table.id);
        let by = [By::Source, By::Destination, By::Service, By::Flow, By::Interface];
        self.count(Stream::Drops, key, &by, times);
        if let Some((name, cgroup)) = &self.process {
            let mut key = Key { netns: key.netns, ..Key::default() };
            let name = &name.as_bytes()[..name.len().min(15)];
            key.src[..name.len()].copy_from_slice(name);
            key.dst[..8].copy_from_slice(&cgroup.to_ne_bytes());
            *self.counted.entry((Stream::Drops, By::Process, key)).or_default() += u64::from(times);
        }
    }

    /// Of those that were dropped, so many were a control plane's.
    pub(crate) fn plane(&mut self, at: usize, plane: Plane, times: u64) {
        *self.planes.entry((self.places[at].table.id, plane)).or_default() += times;
    }

    fn count(&mut self, stream: Stream, key: Key, by: &[By], times: u32) {
        for by in by {
            *self.counted.entry((stream, *by, key.of(*by))).or_default() += u64::from(times);
        }
    }

    /// So much later.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now.checked_add(time).unwrap();
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now.duration_since(self.begun).unsigned_abs()
    }

    /// What the sampler reads now.
    pub(crate) fn sample(&self) -> Sample {
        let counted =
            Counted { refusals: true, clashes: true, insertions: true, ends: true, drops: false };
        let mut everywhere = NetnsTally::default();
        let table = |place: &Place| TableSample {
            counters: place.table.entries.map(|_| CounterSums::of(&[place.cpu])),
            hooks: Some(HookReadings { before: place.tally, after: place.tally }),
            ..place.table.clone()
        };
        let is_read = |place: &&Place| place.idle_since.is_none();
        let tables = self.places.iter().filter(is_read).map(table).collect();
        let idle = self.places.iter().filter_map(|place| {
            let age = self.now.duration_since(place.idle_since?).unsigned_abs();
            Some(Idle { id: place.table.id, age })
        });
        self.places.iter().for_each(|place| everywhere.add(&place.tally));
        let probed = Probed { counted, everywhere, ..Probed::default() };
        let planes = self.planes.iter();
        let planes = planes.map(|((netns, plane), count)| PlaneCount {
            netns: *netns,
            plane: *plane,
            count: *count,
        });
        Sample {
            limit: Some(self.limit),
            buckets: Some(self.limit),
            tables,
            idle: idle.collect(),
            probed: Some(probed),
            tops: self.tops(),
            told_apart: Stream::ALL.map(|stream| self.told_apart(stream)).to_vec(),
            planes: Some(planes.collect()),
            cgroups: self.cgroups.clone(),
            ..Sample::empty(self.now, self.elapsed())
        }
    }

    fn offered(&self, stream: Stream) -> u64 {
        let of = self.counted.iter().filter(|((of, by, _), _)| (*of, *by) == (stream, By::Source));
        of.map(|(_, count)| count).sum()
    }

    fn told_apart(&self, stream: Stream) -> ToldApart {
        let all = self.offered(stream);
        ToldApart { stream, considered: all, taken: all, let_by: 0, heaviest: 1 }
    }

    fn tops(&self) -> Vec<TopCounts> {
        let mut lists: Vec<TopCounts> = Vec::new();
        for ((stream, by, key), count) in &self.counted {
            let is_this = |list: &&mut TopCounts| (list.stream, list.by) == (*stream, *by);
            let counted = TopCount { key: *key, count: *count, ..TopCount::default() };
            match lists.iter_mut().find(is_this) {
                Some(list) => list.counts.push(counted),
                None => lists.push(TopCounts {
                    stream: *stream,
                    by: *by,
                    offered: self.offered(*stream),
                    left_out: 0,
                    left_out_at_most: 0,
                    counts: vec![counted],
                }),
            }
        }
        lists
    }

    /// Who holds a table: of each ten entries five are a resolver's, three are pinned, one is closing.
    pub(crate) fn census(&self, at: usize) -> Taken {
        // Any secret will do, as long as it is the same in each run.
        let seed =
            Seed(std::array::from_fn(|at| 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(at as u64 + 1)));
        let mut census = Census::new(&[By::Source, By::Destination, By::Service], seed);
        let table = &self.places[at].table;
        for number in 0..self.entries(at) {
            let source =
                Ipv4Addr::new(10, 128, 0, if number % 10 < 5 { 35 } else { (number % 90) as u8 });
            let (seen, assured) = (Status::CONFIRMED, Status::REPLIED | Status::ASSURED);
            let service = Ipv4Addr::new(10, 100, 0, 2);
            let (service, status, state) = match number % 10 {
                5..8 => ((service, 6, 40_443), seen | assured, 3),
                8 => ((service, 6, 40_443), seen | assured, 7),
                _ => ((service, 17, 40_053), seen, 0),
            };
            let key = Talk { source, service, ifindex: 0 }.key(table.id);
            let left = Left::Seconds(20 + number % 50);
            census.enter(&Held {
                key,
                translated: key,
                status: Status(status),
                state,
                zone: 0,
                left,
            });
        }
        let kernel = KernelCount {
            netns: table.id,
            owner: table.owner.clone(),
            is_judged: table.is_judged,
            inode: table.inode,
            name: table.name.clone(),
            workload: table.workload.clone(),
            before: table.entries,
            after: table.entries,
            unlisted: None,
            is_torn: false,
        };
        Taken {
            by: "walk".into(),
            took: Duration::from_millis(41),
            cpu: Duration::from_millis(40),
            strayed: 0,
            kernel: vec![kernel],
            counted: census.finish(20),
            notes: Vec::new(),
        }
    }

    /// What the doctor finds.
    pub(crate) fn facts(&self, rules: u64, settings: &[(&str, &str)]) -> Facts {
        let mut facts: Facts = serde_json::from_str(FACTS).unwrap();
        facts.limit = Ok(self.limit);
        facts.buckets = Ok(self.limit);
        let setting = |(name, value): &(&str, &str)| ctwatch::record::facts::Setting {
            file: "/etc/sysctl.d/90-conntrack.conf".to_owned(),
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        };
        facts.settings = settings.iter().map(setting).collect();
        let first: Namespace = facts.namespaces[0].clone();
        let namespace = |(at, place): (usize, &Place)| {
            let table = &place.table;
            let mut nft = first.nft.clone().unwrap_or_default();
            nft.iter_mut().for_each(|table: &mut RuleTable| table.rules = rules);
            Namespace {
                id: table.id,
                inode: table.inode,
                name: table.name.clone(),
                workload: table.workload.clone(),
                is_own: at == 0,
                by_ip: at > 0,
                pid: Some(1),
                mount: None,
                entries: table.entries.ok_or_else(|| "it could not be entered".to_owned()),
                totals: Ok(Totals {
                    drop: place.cpu.drop.into(),
                    early_drop: place.cpu.early_drop.into(),
                    chaintoolong: Some(0),
                    ..Totals::default()
                }),
                nft: Ok(nft),
                ..first.clone()
            }
        };
        facts.namespaces = self.places.iter().enumerate().map(namespace).collect();
        facts
    }

    pub(crate) fn header(&self, boot_id: &str, interval: Duration) -> Header {
        let signals = ["drops", "insertions", "removals"];
        let mut mechanisms: Vec<Measured> = Vec::new();
        for signal in signals {
            let mechanism = Some("kprobe".to_owned());
            mechanisms.push(Measured { signal: signal.to_owned(), mechanism });
        }
        let mechanism = Some("ctnetlink".to_owned());
        mechanisms.push(Measured { signal: "table".to_owned(), mechanism });
        Header {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: "6.12.0".to_owned(),
            boot_id: Some(boot_id.to_owned()),
            interval,
            mechanisms,
            notes: Vec::new(),
            top_bytes: Some(6_782_976),
        }
    }
}

/// A router with one rule that needs tracking, as the doctor sees it.
const FACTS: &str = r#"{
  "release": "6.12.0", "form": "module",
  "modules": {"ok": [{"name": "nf_conntrack", "references": 3, "users": ["nf_nat", "nf_conntrack_netlink"]},
                     {"name": "nf_nat", "references": 1, "users": ["nft_chain_nat"]}]},
  "on_disk": {"ok": ["nf_conntrack", "nf_nat"]},
  "limit": {"ok": 65536}, "buckets": {"ok": 65536}, "buckets_by": {"ok": "sysctl"},
  "expect_max": {"ok": 256}, "memory": {"ok": 8589934592},
  "slab": {"ok": {"objects": 1000, "size": 320}}, "log": {"ok": {}},
  "namespaces": [{
    "id": 1, "inode": 4026531841, "name": "host",
    "entries": {"ok": 0}, "totals": {"unknown": "not asked for"}, "expectations": {"ok": 0},
    "timeouts": {"tcp_timeout_established": 432000, "udp_timeout": 30},
    "hooks": {"ok": [{"family": "ip", "hook": "prerouting", "priority": -200,
                      "function": "ipv4_conntrack_in", "module": "nf_conntrack"}]},
    "nft": {"ok": [{
      "framework": "nft", "family": "ip", "name": "nat", "nat_chains": ["postrouting"], "rules": 1,
      "uses": [{"chain": "postrouting", "number": 4, "by": ["masquerade"]}],
      "chains": [{"name": "postrouting",
                  "base": {"is_nat": true, "hook": "postrouting", "priority": 100},
                  "rules": [{"number": 4, "act": "translate_source"}]}]}]},
    "legacy": {"ok": []}}],
  "tools": {"there": ["conntrack", "ip", "nft", "sed", "sysctl"], "systemd": true, "home": "/root", "run": "/run",
            "stamp": "20261126T030000"},
  "evidence": {"files": ["/etc/nftables.conf"]}, "limit_is": "yes"}"#;
