//! What real kernels of 4.x printed (tests/fixtures), against what was sent through them.

use std::{fs, path::PathBuf, time::Duration};

use ctwatch_abi::top::By;

use crate::{
    host::{
        kernel::settings,
        netfilter::{listing, procstat},
    },
    model::{
        Model, Snapshot,
        census::{Census, Holds, SEED},
        figure::Exactness,
    },
    record::{
        counters::{CounterSums, CpuCounters, Summing},
        facts::BucketsBy,
        sample::{Access, Owner, Sample, TableSample},
        tests::recorded,
    },
};

const COUNTING: &str = "4.4.34";
const OTHERS: [&str; 2] = ["4.14.79", "4.19.50"];

fn fixture(version: &str, file: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("../tests/fixtures/kernels").join(version).join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// One step of a generator, or one reading after it.
#[derive(Debug)]
enum Line {
    /// Flows that got into the table, and that were refused.
    Sent {
        into_table: u64,
        refused: u64,
    },
    Read {
        entries: u32,
        counters: Vec<CpuCounters>,
    },
}

/// In their order. The last step is left out: a rule drops its flows before they are confirmed.
fn traffic(version: &str) -> Vec<Line> {
    let stat = fixture(version, "3-phase2/proc_net_stat_nf_conntrack");
    let header = stat.lines().next().unwrap().to_owned();
    let text = fixture(version, "traffic");
    let steps = text.lines().take_while(|line| !line.starts_with("phase 6"));
    let number = |words: &[&str], before: &str| {
        let at = words.iter().position(|word| *word == before).unwrap();
        words[at - 1].parse::<u64>().unwrap()
    };
    let line = |line: &str| {
        if let Some((before, row)) = line.split_once("; stat: ") {
            let entries = before.rsplit(' ').next().unwrap().parse().unwrap();
            let counters = procstat::parse(&format!("{header}\n{row}\n")).unwrap();
            return Some(Line::Read { entries, counters });
        }
        let words: Vec<&str> = line.split([' ', ',']).collect();
        match words[0] {
            "udp:" => {
                let (into_table, refused) = (number(&words, "sent"), number(&words, "failed"));
                Some(Line::Sent { into_table, refused })
            }
            "tcp:" => {
                let into_table = number(&words, "connected");
                Some(Line::Sent { into_table, refused: number(&words, "unanswered") })
            }
            _ => None,
        }
    };
    steps.filter_map(line).collect()
}

fn sample(seconds: u64, entries: u32, counters: CounterSums) -> Sample {
    let table = TableSample {
        workload: Default::default(),
        id: 1,
        inode: 1,
        name: None,
        owner: Owner::Host,
        is_judged: true,
        access: Access::Entered,
        entries: Some(entries),
        counters: Some(counters),
        unread: None,
        hooks: None,
        interfaces: Vec::new(),
    };
    let tables = vec![table];
    recorded(&Sample { limit: Some(200), tables, ..Sample::at(Duration::from_secs(seconds)) })
}

/// Each reading as `watch` shows it, with what had been sent by then.
fn watched(version: &str) -> Vec<(Snapshot, u64, u64)> {
    let (mut model, mut shown) = (Model::default(), Vec::new());
    let (mut sent, mut turned_away) = (0, 0);
    let mut summing = Summing::default();
    for (second, line) in (0..).zip(traffic(version)) {
        match line {
            Line::Sent { into_table, refused } => {
                (sent, turned_away) = (sent + into_table, turned_away + refused)
            }
            Line::Read { entries, counters } => {
                let snapshot = {
                    let sums = summing.take(&counters, Duration::from_secs(second));
                    model.advance(&sample(second, entries, sums))
                };
                shown.push((snapshot, sent, turned_away));
            }
        }
    }
    assert!(shown.len() > 20, "{}", shown.len());
    shown
}

#[test]
fn a_kernel_that_counts_entries_is_exact() {
    let shown = watched(COUNTING);
    let mut exact = 0;
    for (snapshot, sent, refused) in &shown {
        let table = &snapshot.tables[0];
        assert_eq!(table.dropped.total, Some(*refused));
        if table.insertions.exactness == Exactness::Unavailable {
            assert_eq!((exact, table.insertions.total), (0, None), "known once is known for good");
            continue;
        }
        exact += 1;
        let marks = [table.insertions.exactness, table.removals.exactness];
        assert_eq!(marks, [Exactness::Exact; 2]);
        assert_eq!(table.insertions.total, Some(*sent));
        assert_eq!(table.removals.total, Some(sent - u64::from(table.entries.unwrap())));
    }
    let before = shown.len() - exact;
    // Nothing had been removed from the table in the first five, so nothing was shown to be counted.
    assert_eq!(before, 5, "of {}", shown.len());
    assert_eq!(shown.last().unwrap().1, 455);
}

#[test]
fn a_kernel_that_keeps_the_columns_at_0_claims_nothing() {
    for version in OTHERS {
        for (snapshot, _, refused) in watched(version) {
            let table = &snapshot.tables[0];
            assert_eq!((table.insertions.total, table.removals.total), (None, None), "{version}");
            assert_eq!(table.dropped.total, Some(refused), "{version}");
        }
    }
}

/// `-rw-r--r-- 1 0 0 …`
fn mode(line: &str) -> u32 {
    let bits = line.bytes().skip(1).take(9);
    bits.fold(0, |mode, bit| mode << 1 | u32::from(bit != b'-'))
}

#[test]
fn buckets_are_set_by_what_each_kernel_lets_write() {
    for (version, by) in [
        (COUNTING, BucketsBy::Hashsize),
        (OTHERS[0], BucketsBy::Sysctl),
        (OTHERS[1], BucketsBy::Sysctl),
    ] {
        let listed = fixture(version, "modes.ls-l");
        let of = |name: &str| listed.lines().find(|line| line.ends_with(name)).map(mode);
        let (sysctl, hashsize) = (of("/nf_conntrack_buckets"), of("/hashsize"));
        assert!(sysctl.is_some() && hashsize == Some(0o600), "{listed}");
        assert_eq!(settings::buckets_by_of(sysctl, hashsize, false), Ok(by), "{version}");
    }
}

#[test]
fn a_census_by_procfs_is_what_was_sent() {
    for version in [COUNTING].into_iter().chain(OTHERS) {
        let by = [By::Source, By::Service, By::Backend];
        let mut census = Census::new(&by, SEED);
        let file = fixture(version, "2-phase1/proc_net_nf_conntrack");
        listing::entries(1, file.as_bytes(), |held| census.enter(held)).unwrap();
        let counted = census.finish(10);
        let table = counted.table(1).unwrap();
        // 40 datagrams that nothing answers, 10 connections that are held open.
        let holds = Holds { reclaimable: 40, pinned: 10, ..Holds::default() };
        assert_eq!(table.holds, holds, "{version}");
        let states: Vec<_> = table
            .states
            .iter()
            .map(|s| (s.protocol, s.name(), s.holds.all(), s.unreplied))
            .collect();
        assert_eq!(states, [(17, None, 40, 40), (6, Some("ESTABLISHED"), 10, 0)], "{version}");
        let below: Vec<_> = table.states.iter().map(|s| s.lifetimes.below_limits()).collect();
        // At 40 s and at five days.
        assert_eq!(below, [[0, 40, 40, 40, 40], [0; 5]], "{version}");
        for by in [By::Service, By::Backend] {
            let list = counted.lists(1).find(|list| list.by == by).unwrap();
            let named: Vec<_> =
                list.entries.iter().map(|e| (e.name(by, |_, _| None), e.count)).collect();
            let truth = [("127.0.0.1 udp/9".to_owned(), 40), ("127.0.0.1 tcp/5001".to_owned(), 10)];
            assert_eq!(named, truth, "{version}");
        }
        let mut full = 0;
        let file = fixture(version, "3-phase2/proc_net_nf_conntrack");
        listing::entries(1, file.as_bytes(), |held| {
            assert!(held.status.is_confirmed() && matches!(held.key.protocol, 6 | 17));
            full += 1;
        })
        .unwrap();
        assert_eq!(full, 60, "{version}");
    }
}
