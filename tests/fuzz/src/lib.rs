//! Every parser of ctwatch, to be fed with nonsense: by mutations of real answers in `cargo xtask
//! test`, by libFuzzer in `cargo xtask fuzz`. None may panic, and what comes out must be something
//! that can be shown.

use std::{fmt::Debug, path::PathBuf, sync::Arc};

use clap::Parser as _;
use ctwatch::{
    bundle::Reader,
    cli::{Cli, LimitArgs},
    diagnosis::{Case, findings, tracking::tracking},
    host::{
        kernel::{
            btf::Btf,
            config, kmsg, modules,
            settings::{
                family_of, installs, memory_of, modules_of as loaded_modules, settings, slab_of,
            },
            symbols::Symbols,
        },
        machine::evidence,
        netfilter::{
            ctnetlink, dump, flow_line, hooks,
            legacy::{self, IPV4, IPV6},
            listing, nft, procstat,
        },
        netns::{self, addresses, pods},
    },
    model::{census::Census, loading::Loads},
    observe::event::Event,
    output::{DropLine, escape::escaped, json, services::Services, text},
    probe::{self, find_table, offsets::Offsets},
    record::{
        entry::Held,
        facts::{Facts, KernelLog},
        sample::{Named, Owner, Sample, TopCounts},
        session::{Epoch, Header},
    },
    recording::{
        line::Line,
        play::{Playback, Playing},
    },
    unpack::{Opened, UnpackLimits},
};
use ctwatch_abi::{
    census::{ENTRY, Record},
    top::{By, Seed, Set, Stream},
};
use serde::{Serialize, de::DeserializeOwned};

/// A parser, by the name of the folder with its seeds.
pub struct Parser {
    pub name: &'static str,
    pub read: fn(&[u8]),
}

const fn parser(name: &'static str, read: fn(&[u8])) -> Parser {
    Parser { name, read }
}

pub const PARSERS: &[Parser] = &[
    parser("addresses_ipv4", |bytes| drop(addresses::ipv4(&text(bytes)))),
    parser("addresses_ipv6", |bytes| drop(addresses::ipv6(&text(bytes)))),
    parser("btf", btf),
    parser("cgroups", |bytes| {
        if let Some(pods::Origin::Pod(uid)) = pods::origin(&text(bytes)) {
            assert!(!uid.contains(['/', '_', '.']), "{uid}");
        }
    }),
    parser("command_line", command_line),
    parser("config", |bytes| drop(config::parse("config", bytes))),
    parser("conntrack_list", conntrack_list),
    parser("copied_entry", copied_entry),
    parser("cpu_counters", |bytes| drop(ctnetlink::cpu_counters(bytes))),
    parser("datagram", datagram),
    parser("entry", entry),
    parser("entry_count", |bytes| drop(ctnetlink::attribute(bytes, 1))),
    parser("hook", |bytes| drop(hooks::parse(bytes, "ip", "input"))),
    parser("iptables", iptables),
    parser("kernel_log", kernel_log),
    parser("log_folder", |bytes| {
        if let Some((_, workload)) = pods::folder_name(&text(bytes)) {
            let pod = workload.of_pod().unwrap_or_default();
            assert!(pod == escaped(&pod) && pod.matches('/').count() == 1, "{pod}");
        }
    }),
    parser("mapped_sets", mapped_sets),
    parser("meminfo", |bytes| {
        memory_of(&text(bytes));
    }),
    parser("module_event", module_event),
    parser("modprobe_file", |bytes| drop(installs("file", &text(bytes)))),
    parser("modules", |bytes| drop(loaded_modules(&text(bytes)))),
    parser("modules_on_disk", |bytes| {
        let text = text(bytes);
        let family = family_of(&text);
        // Two readers of one file.
        let of_line = |name: &String| text.lines().any(|line| modules::is_of_module(line, name));
        assert!(family.iter().all(of_line), "{family:?}");
    }),
    parser("mounts", |bytes| {
        netns::bind_mounts(bytes).count();
    }),
    parser("name", |bytes| {
        let shown = escaped(&text(bytes));
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
    }),
    parser("nft_chain", |bytes| {
        let mut tables = Vec::new();
        drop(nft::take_chain(&mut tables, bytes));
        drop(nft::take_chain(&mut tables, bytes));
        assert!(tables.len() <= 1, "{tables:?}");
    }),
    parser("nft_rule", |bytes| {
        let mut tables = Vec::new();
        drop(nft::take_rule(&mut tables, bytes));
        assert!(tables.iter().all(|table| table.uses.len() as u64 <= table.rules), "{tables:?}");
    }),
    parser("nft_table", |bytes| drop(nft::take_table(&mut Vec::new(), bytes))),
    parser("nftables_conf", |bytes| drop(evidence::includes(&text(bytes)))),
    parser("printed_adapter", |bytes| printed("ethtool_-S_ens5", bytes)),
    parser("printed_counters", |bytes| printed("conntrack_-S", bytes)),
    parser("printed_entries", |bytes| printed("conntrack_-L", bytes)),
    parser("printed_hooks", |bytes| printed("nft_list_hooks", bytes)),
    parser("printed_log", |bytes| printed("dmesg", bytes)),
    parser("printed_modules", |bytes| printed("lsmod", bytes)),
    parser("printed_nft", |bytes| printed("nft_-a_list_ruleset", bytes)),
    parser("printed_nft_json", |bytes| printed("nft_-j_list_ruleset", bytes)),
    parser("printed_rules", |bytes| printed("iptables_-t_nat_-nvL", bytes)),
    parser("printed_saved_rules", |bytes| printed("iptables-save", bytes)),
    parser("printed_session", |bytes| printed("standard input", bytes)),
    parser("printed_sysctls", |bytes| printed("ip_netns_exec_rt_sysctl_-a", bytes)),
    parser("procstat", |bytes| {
        let text = text(bytes);
        if let Ok(rows) = procstat::parse(&text) {
            assert_eq!(rows.len() + 1, text.lines().count());
        }
    }),
    parser("record", record),
    parser("recording", recording),
    parser("refusal_event", refusal_event),
    parser("services", |bytes| drop(Services::parse(&text(bytes)))),
    parser("slabinfo", |bytes| {
        slab_of(&text(bytes));
    }),
    parser("symbols", |bytes| {
        let wanted = ["nf_conntrack_free", "early_drop", "nf_conntrack_hash"];
        if let Ok(symbols) = Symbols::parse(bytes, &wanted) {
            let code = wanted.map(|name| symbols.code(name));
            assert!(code.into_iter().flatten().all(|code| code.len > 0 && code.start > 0));
        }
    }),
    parser("sysctl_file", |bytes| drop(settings("file", &text(bytes)))),
    parser("table_candidates", table_candidates),
    parser("unpack", unpack),
];

/// Words apart by spaces, and the first of them as a limit.
fn command_line(bytes: &[u8]) {
    let text = text(bytes);
    let _ = text.parse::<LimitArgs>();
    let words = std::iter::once("ctwatch").chain(text.split(' '));
    if let Ok(cli) = Cli::try_parse_from(words) {
        let by = cli.watch.by();
        let twice = |by: &By| cli.watch.by().iter().filter(|other| *other == by).count() > 1;
        assert!(!by.iter().any(twice), "{by:?}");
        assert!(!cli.watch.interval().is_zero());
    }
}

/// As the walk copies it, without a lock: eight bytes for the clock, and what may be an entry.
fn copied_entry(bytes: &[u8]) {
    let Some((jiffies, rest)) = bytes.split_first_chunk() else { return };
    let mut entry = [0; ENTRY];
    let length = rest.len().min(ENTRY);
    entry[..length].copy_from_slice(&rest[..length]);
    let jiffies = u64::from_ne_bytes(*jiffies);
    let Some(held) = Offsets::EXAMPLE.held(&Record { netns: 1, entry }, jiffies, 250) else {
        return;
    };
    assert!(matches!(held.key.family, 2 | 10), "{held:?}");
    into_census(&held);
}

/// The code of a function, and behind it the memory that it may refer to.
fn table_candidates(bytes: &[u8]) {
    const START: u64 = 0xffff_ffff_8100_0000;
    let (code, memory) = bytes.split_at(bytes.len().min(64));
    let word = |at: u64| {
        let at = usize::try_from(at & 0x7ff).ok()?;
        Some(u64::from_ne_bytes(*memory.get(at..)?.first_chunk()?))
    };
    for referred in [find_table::x86_64, find_table::aarch64] {
        let referred = referred(code, START);
        for buckets in [0, 1, 64, u32::MAX] {
            if let Ok(place) = find_table::find(&referred, buckets, word) {
                let both = [place.table_at, place.size_at];
                assert!(both.iter().all(|at| referred.contains(at)), "{place:?}");
            }
        }
    }
}

/// As many CPUs' as there are bytes for.
fn mapped_sets(bytes: &[u8]) {
    let sets: Vec<Set> = bytes
        .chunks_exact(size_of::<Set>())
        // SAFETY: as many bytes as a set has, any of which are a value of it.
        .map(|bytes| unsafe { bytes.as_ptr().cast::<Set>().read_unaligned() })
        .collect();
    let mut list = TopCounts {
        stream: Stream::Drops,
        by: By::Source,
        offered: 0,
        left_out: 0,
        left_out_at_most: 0,
        counts: Vec::new(),
    };
    probe::top::merge(&sets, &mut list);
    assert!(list.counts.iter().all(|count| count.count > 0), "{list:?}");
}

fn refusal_event(bytes: &[u8]) {
    let Ok(event) = probe::trace::event(bytes) else { return };
    let line = DropLine {
        time: jiff::Timestamp::UNIX_EPOCH + std::time::Duration::from_nanos(event.at),
        zone: &jiff::tz::TimeZone::UTC,
        event: &event,
        named: &Named::default(),
        owner: &Owner::Host,
    };
    let (mut as_text, mut as_json) = (Vec::new(), Vec::new());
    text::trace::line(&mut as_text, &line, &Services::default()).unwrap_or_default();
    json::trace::line(&mut as_json, &line).unwrap_or_default();
    let text = String::from_utf8_lossy(&as_text);
    assert!(!text.trim_end_matches('\n').chars().any(char::is_control), "{text:?}");
    let object = serde_json::from_slice::<serde_json::Value>(&as_json);
    assert!(object.is_ok_and(|object| object["reason"].is_string()), "{as_json:?}");
}

fn module_event(bytes: &[u8]) {
    let mut loading = Loads::default();
    let length = size_of::<ctwatch_abi::loading::Event>();
    for bytes in bytes.chunks(length) {
        let Ok(event) = probe::modules::event(bytes) else { return };
        loading.take(&event, jiff::Timestamp::UNIX_EPOCH);
    }
    let events = bytes.len() / length;
    assert!(loading.loaded().len() <= events, "{loading:?}");
}

/// Nonsense or not, files are read as if they were UTF-8.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// As vmlinux's own, and on top of itself as a module's.
fn btf(bytes: &[u8]) {
    const WANTED: &[&str] = &["nf_conntrack_free", "nf_conn", "skb_drop_reason"];
    let Ok(base) = Btf::parse(bytes.to_vec(), None, WANTED) else { return };
    let base = Arc::new(base);
    let module = Btf::parse(bytes.to_vec(), Some(Arc::clone(&base)), WANTED);
    for btf in [Some(&*base), module.as_ref().ok()].into_iter().flatten() {
        drop(btf.function("nf_conntrack_free"));
        drop(btf.size("nf_conn"));
        for path in ["ct_net", "a", "tuplehash", "tuplehash.tuple", "no"] {
            drop(btf.offset("nf_conn", path));
        }
        drop(btf.enumerator("skb_drop_reason", "OTHER"));
    }
}

/// Whatever the kernel answers to a question for the counters of each CPU.
fn datagram(bytes: &[u8]) {
    const COUNTERS: u16 = 1 << 8 | 4;
    let _ = ctnetlink::messages(bytes, COUNTERS, 1, true, &mut |body| {
        ctnetlink::cpu_counters(body).map(drop)
    });
}

/// All the way into a census.
fn entry(bytes: &[u8]) {
    if let Ok(held) = dump::entry(1, bytes) {
        into_census(&held);
        // A line of it is one line.
        let mut line = String::new();
        if flow_line::line(&mut line, bytes).is_ok() {
            assert!(!line.contains(['\n', '\u{1b}']), "{line:?}");
        }
    }
}

fn into_census(held: &Held) {
    let seed = Seed(std::array::from_fn(|at| 0x9e37_79b9_7f4a_7c15 << at));
    let mut census = Census::new(&[By::Source, By::Service], seed);
    census.enter(held);
    let counted = census.finish(3);
    assert_eq!(counted.holds().all(), 1, "{held:?}");
    assert_eq!(counted.lists(1).count(), 2, "{held:?}");
}

/// Line by line: each is an entry, or the end of it.
fn conntrack_list(bytes: &[u8]) {
    let mut entries = 0;
    let whole = listing::entries(1, bytes, |held| {
        assert!(matches!(held.key.family, 2 | 10), "{held:?}");
        assert_eq!(held.key.protocol, held.translated.protocol, "{held:?}");
        entries += 1;
    });
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
    assert!(entries <= lines && (whole.is_err() || entries == lines), "{entries} of {lines}");
}

/// The answers to both questions, one after the other.
fn iptables(bytes: &[u8]) {
    let (info, entries) = bytes.split_at(bytes.len().min(84));
    for kind in [IPV4, IPV6] {
        if let Ok(table) = legacy::parse(kind, "filter", info, entries) {
            assert!(table.uses.len() as u64 <= table.rules, "{table:?}");
        }
    }
}

/// A line of a recording as each of the things that it may be.
fn record(bytes: &[u8]) {
    written_again::<Header>(bytes);
    written_again::<Epoch>(bytes);
    written_again::<Sample>(bytes);
    written_again::<Facts>(bytes);
    written_again::<Held>(bytes);
}

/// Lines of a recording, whatever they say: what is played back is told, and nothing panics.
fn recording(bytes: &[u8]) {
    let mut playing =
        Playback::new(Playing { length: 5, by: vec![By::Source], ..Playing::default() });
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        match Line::parse(line) {
            Ok(line) => playing.take(line),
            Err(error) => {
                playing.take(Line::Unread { place: String::new(), why: error.to_string() })
            }
        }
        while let Some(event) = playing.told() {
            if let Event::Tick { snapshot, .. } = event {
                assert!(snapshot.tables.len() <= bytes.len(), "{snapshot:?}");
            }
        }
    }
}

/// What could be read is what is read again.
fn written_again<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(read) = serde_json::from_slice::<T>(bytes) else { return };
    let written = serde_json::to_vec(&read).unwrap_or_default();
    let again = serde_json::from_slice::<T>(&written);
    assert!(again.as_ref().is_ok_and(|again| *again == read), "{read:?} {again:?}");
}

/// What a tool printed, as a piece of a bundle: no line is counted twice, and what comes of it can be shown.
fn printed(name: &str, bytes: &[u8]) {
    let mut reader = Reader::counting(&[], 1);
    drop(reader.piece(name, &mut &*bytes));
    let bundle = reader.finish();
    let lines = bytes.split(|byte| *byte == b'\n').count() as u64;
    let counted = bundle.census.holds().all();
    let misread = bundle.misread.len() as u64 + bundle.more_misread;
    assert!(counted + misread <= lines + 1, "{counted} and {misread} of {lines}");
    for one in &bundle.misread {
        assert!(one.line >= 1 && one.line <= lines, "{one:?}");
        assert!(one.text.chars().count() <= 123, "{one:?}");
    }
    let namespaces = bundle.facts.namespaces.iter();
    for table in namespaces.flat_map(|namespace| namespace.rule_tables()) {
        assert!(table.uses.len() as u64 <= table.rules, "{table:?}");
    }
    let case = Case {
        facts: &bundle.facts,
        census: Err("not counted"),
        live: None,
        settings: Default::default(),
    };
    drop(findings(&case));
    drop(tracking(&bundle.facts));
}

/// One record again and again.
fn kernel_log(bytes: &[u8]) {
    let mut log = KernelLog::default();
    let record = text(bytes);
    (0..10).for_each(|_| kmsg::take(&mut log, &record));
    assert!(log.lines.len() <= 5 && log.table_full % 10 == 0, "{log:?}");
}

/// Where the seeds of a parser are: real answers, and what once was its undoing.
pub fn seeds(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "seeds", name].iter().collect()
}

fn unpack(bytes: &[u8]) {
    const MOST: u64 = 1 << 20;
    let limits = UnpackLimits { bytes: 4 * MOST, piece: MOST, entries: 100, ..Default::default() };
    let opened = Opened::Stream(Box::new(std::io::Cursor::new(bytes.to_vec())), "x".to_owned());
    let mut pieces = 0;
    let unpacked = opened.unpack(limits, &mut |name, text| {
        assert!(!name.starts_with('/') && !name.split('/').any(|part| part == ".."), "{name}");
        // The sum of what a reader is given is bounded, whatever it does with an error.
        let read = std::io::copy(text, &mut std::io::sink()).unwrap_or(MOST);
        assert!(read <= MOST, "{read}");
        pieces += 1;
        Ok(())
    });
    if let Ok(unpacked) = unpacked {
        assert!(unpacked.pieces <= pieces && pieces <= 100, "{unpacked:?}");
    }
}
