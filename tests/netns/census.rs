//! Who holds the table: against what `conntrack -L` lists and what the generator sent.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    net::UdpSocket,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ctwatch::{host::kernel::symbols::Symbols, probe::census::Walker};
use ctwatch_lab::{
    Lab, Plan, STAYS_FULL, judge,
    netns::Netns,
    traffic::{Family, Flood, Flows, Protocol},
};
use serde_json::Value;

use crate::{
    On, Test, test,
    watch::{Background, Watch, ctwatch, table},
};

pub(crate) const TESTS: &[Test] = &[
    test(On::Once, "a_census_agrees_with_conntrack_l", agrees),
    test(On::Once, "a_census_agrees_on_nat_and_on_times", translated),
    test(On::OnceAlone, "a_census_tells_offloaded_entries_apart", offloaded),
    test(On::Once, "the_table_is_where_the_code_says", by_code),
    test(On::Once, "a_census_while_the_table_changes", changing),
    test(On::Once, "a_census_tells_what_has_expired", expired),
    test(On::Once, "a_census_of_three_hundred_namespaces", many),
    test(On::Once, "a_census_of_a_saturated_table_comes_by_itself", by_itself),
    test(On::Benchmark, "what_a_census_costs", cost),
];

const UDP: Flows = Flows::of(Family::V4, Protocol::Udp);

const KALLSYMS: &str = "/proc/kallsyms";
/// Where ctwatch has no programs for the kernel, nothing walks.
const WAYS: &[&str] =
    if cfg!(target_arch = "arm") { &["ctnetlink"] } else { &["walk", "ctnetlink"] };

/// And by `/proc/net/nf_conntrack`, which not every kernel has.
fn all_ways() -> Vec<&'static str> {
    let mut ways = WAYS.to_vec();
    match fs::exists("/proc/net/nf_conntrack") {
        Ok(true) => ways.push("procfs"),
        _ => println!("n/a by procfs: this kernel has no /proc/net/nf_conntrack"),
    }
    ways
}

fn census(args: &[&str]) -> Result<Value> {
    let output = ctwatch()?.args(["census", "--output", "json"]).args(args).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{args:?}: {said}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The beginning of it: lists are long.
fn brief(value: &Value) -> String {
    value.to_string().chars().take(1000).collect()
}

/// As on a kernel that names its functions only.
fn by_code() -> Result<()> {
    let lab = Lab::new(Plan::default())?;
    lab.keep_entries()?;
    lab.send(&Flood::of(UDP, 1000))?;
    let text = fs::read_to_string(KALLSYMS)?;
    let names = ["nf_conntrack_hash", "nf_conntrack_htable_size"];
    let is_named = |line: &&str| line.split_whitespace().nth(2).is_some_and(|n| names.contains(&n));
    let (named, others): (Vec<&str>, Vec<&str>) = text.lines().partition(is_named);
    let symbols = Symbols::parse(others.join("\n").as_bytes(), &Walker::SYMBOLS)?;
    let mut walker = Walker::with(&symbols)?;
    let place = walker.place();
    for line in &named {
        let address = u64::from_str_radix(line.split_whitespace().next().unwrap_or(""), 16)?;
        ensure!([place.table_at, place.size_at].contains(&address), "{line}: {place:x?}");
    }
    ensure!(named.len() == 2 || named.is_empty(), "{named:?}");
    let mut entries: BTreeMap<u64, u64> = BTreeMap::new();
    let walked = walker.walk(|held| *entries.entry(held.key.netns).or_default() += 1)?;
    ensure!(entries.values().any(|entries| *entries == 1000), "{entries:?}");
    ensure!(walked.strayed == 0, "{walked:?}");
    Ok(())
}

/// What `conntrack -L` lists, by what a census tells apart.
#[derive(Default, Debug)]
struct Listed {
    entries: u64,
    assured: u64,
    unreplied: u64,
    /// By protocol and state, where there is one.
    states: BTreeMap<(String, Option<String>), u64>,
    sources: BTreeMap<String, u64>,
    zones: BTreeMap<u64, u64>,
}

fn list(netns: &Netns) -> Result<Listed> {
    let mut listed = Listed::default();
    for family in ["ipv4", "ipv6"] {
        for line in netns.run(&["conntrack", "-L", "-f", family])?.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let Some(source) = words.iter().find_map(|word| word.strip_prefix("src=")) else {
                continue;
            };
            let assured = words.contains(&"[ASSURED]").then(|| "ASSURED".to_owned());
            let state = if words[0] == "tcp" { Some(words[3].to_owned()) } else { assured };
            let protocol = words[0].to_owned();
            listed.entries += 1;
            listed.assured += u64::from(words.contains(&"[ASSURED]"));
            listed.unreplied += u64::from(words.contains(&"[UNREPLIED]"));
            *listed.states.entry((protocol, state)).or_default() += 1;
            *listed.sources.entry(source.to_owned()).or_default() += 1;
            let zone = words.iter().find_map(|word| word.strip_prefix("zone="));
            let zone = zone.and_then(|zone| zone.parse().ok()).unwrap_or(0);
            *listed.zones.entry(zone).or_default() += 1;
        }
    }
    Ok(listed)
}

fn agrees() -> Result<()> {
    let lab = Lab::new(Plan::default())?;
    lab.keep_entries()?;
    for (family, protocol, packets) in [
        (Family::V4, Protocol::Udp, 3000),
        (Family::V6, Protocol::Udp, 2000),
        (Family::V4, Protocol::TcpSyn, 1000),
        (Family::V6, Protocol::TcpSyn, 500),
        (Family::V4, Protocol::IcmpEcho, 100),
    ] {
        let flows = Flows { sources: 7, services: 3, ..Flows::of(family, protocol) };
        ensure!(
            lab.send(&Flood::of(flows, packets))?.arrived == packets,
            "the flood was cut short"
        );
    }
    // Connections that nobody had to make.
    for (number, state, zone) in
        [(1, "ESTABLISHED", "0"), (2, "TIME_WAIT", "0"), (3, "ESTABLISHED", "5")]
    {
        let port = (1000 + number).to_string();
        let words = [
            "conntrack",
            "-I",
            "-p",
            "tcp",
            "-s",
            "192.0.2.1",
            "-d",
            "192.0.2.2",
            "--sport",
            &port,
        ];
        let more = [
            "--dport",
            "179",
            "--state",
            state,
            "-t",
            "3000",
            "-u",
            "ASSURED,SEEN_REPLY",
            "-w",
            zone,
        ];
        lab.router().run(&[&words[..], &more[..]].concat())?;
    }
    let listed = list(lab.router())?;
    ensure!(listed.entries == 6538 && listed.assured == 3, "{listed:?}");
    for way in all_ways() {
        let by = "source,service,flow,destination,state,zone";
        let args = ["--mechanism", way, "--by", by, "--top", "100", "--netns", lab.router().name()];
        let census = census(&args)?;
        ensure!(census["mechanism"] == way && census["strayed"] == 0, "{}", brief(&census));
        let table = table(&census, lab.router())?;
        ensure!(table["entries"] == listed.entries, "{listed:?}: {}", brief(table));
        ensure!(
            table["kernel"] == serde_json::json!([listed.entries, listed.entries]),
            "{}",
            brief(table)
        );
        ensure!(
            (&table["pinned"], &table["closing"]) == (&2.into(), &1.into()),
            "{}",
            brief(table)
        );
        let states = table["states"].as_array().context("no states")?;
        ensure!(states.len() == listed.states.len(), "{listed:?}: {}", brief(table));
        for state in states {
            let named = (
                state["proto"].as_str().context("no protocol")?.to_owned(),
                state["state"].as_str().map(str::to_owned),
            );
            ensure!(
                listed.states.get(&named).is_some_and(|count| state["entries"] == *count),
                "{listed:?}: {state}"
            );
        }
        let sum =
            |field: &str| states.iter().filter_map(|state| state[field].as_u64()).sum::<u64>();
        ensure!(
            (sum("assured"), sum("unreplied")) == (listed.assured, listed.unreplied),
            "{}",
            brief(table)
        );
        // Made to live 3,000 seconds.
        let within = |limit: &str| {
            states.iter().filter_map(|s| s["remaining_below"][limit].as_u64()).sum::<u64>()
        };
        ensure!(
            within("<1h") == listed.entries && within("<10m") == listed.entries - 3,
            "{}",
            brief(table)
        );
        for zone in table["zones"].as_array().context("no zones")? {
            let number = zone["zone"].as_u64().context("no zone")?;
            ensure!(
                listed.zones.get(&number).is_some_and(|count| zone["entries"] == *count),
                "{listed:?}: {zone}"
            );
        }
        let holding = table["top"]["holding"].as_array().context("no lists")?;
        let sources: Vec<&Value> = holding.iter().filter(|entry| entry["by"] == "source").collect();
        ensure!(sources.len() == listed.sources.len(), "{listed:?}: {sources:?}");
        for entry in sources {
            let source = entry["key"]["src"].as_str().context("no source")?;
            // Printed otherwise than by conntrack, where it is IPv6.
            let truth = listed.sources.iter().find(|(listed, _)| {
                listed.parse::<std::net::IpAddr>().ok() == source.parse::<std::net::IpAddr>().ok()
            });
            ensure!(
                truth.is_some_and(|(_, count)| entry["count"] == *count),
                "{listed:?}: {entry}"
            );
            ensure!(entry["error"] == 0, "{entry}");
        }
    }
    Ok(())
}

/// What service addresses lead to, a backend that is gone too; and times just below a limit.
fn translated() -> Result<()> {
    const NAT: &str = "
table ip lab_nat {
    chain pre {
        type nat hook prerouting priority -100;
        udp dport 1 dnat to 10.100.244.5:5353
        udp dport 2 dnat to 10.100.244.6:5353
    }
    chain post { type nat hook postrouting priority 100; udp dport 5353 snat to 10.99.2.9; }
}
";
    let lab = Lab::new(Plan::default())?;
    lab.keep_entries()?;
    lab.router().nft(NAT)?;
    lab.send(&Flood::of(Flows { sources: 7, services: 3, ..UDP }, 3000))?;
    for (port, seconds) in [("1", "3595"), ("2", "3900"), ("3", "86395"), ("4", "86700")] {
        let words = "conntrack -I -p tcp -s 192.0.2.1 -d 192.0.2.2 --dport 179 --state ESTABLISHED \
                     -u ASSURED,SEEN_REPLY --sport";
        let words = words.split_whitespace().chain([port, "-t", seconds]);
        lab.router().run(&words.collect::<Vec<_>>())?;
    }
    let mut backends: BTreeMap<(String, u64), u64> = BTreeMap::new();
    let mut shown: BTreeMap<String, u64> = BTreeMap::new();
    for line in lab.router().run(&["conntrack", "-L"])?.lines() {
        // The second of each is the reply's.
        let reply =
            |name: &str| line.split_whitespace().filter_map(|w| w.strip_prefix(name)).nth(1);
        let (Some(src), Some(dst)) = (reply("src="), reply("dst=")) else { continue };
        let sport = reply("sport=").context("no port")?.parse()?;
        *backends.entry((src.to_owned(), sport)).or_default() += 1;
        *shown.entry(dst.to_owned()).or_default() += 1;
    }
    // About a third of the flows each.
    let to = |backend: &str| *backends.get(&(backend.to_owned(), 5353)).unwrap_or(&0);
    let sent = [to("10.100.244.5"), to("10.100.244.6")];
    ensure!(sent.iter().all(|count| *count > 900), "{backends:?}");
    ensure!(shown.get("10.99.2.9") == Some(&(sent[0] + sent[1])), "{backends:?} {shown:?}");
    for way in all_ways() {
        let by = "backend,reply-destination,state";
        let args = ["--mechanism", way, "--by", by, "--top", "100", "--netns", lab.router().name()];
        let census = census(&args)?;
        let table = table(&census, lab.router())?;
        let (mut by_backend, mut by_destination) = (BTreeMap::new(), BTreeMap::new());
        for entry in table["top"]["holding"].as_array().context("no lists")? {
            let (key, count) = (&entry["key"], entry["count"].as_u64().context("no count")?);
            ensure!(entry["error"] == 0, "{entry}");
            let address = |name: &str| key[name].as_str().map(str::to_owned).context("no address");
            if entry["by"] == "backend" {
                let port = key["reply_sport"].as_u64().context("no port")?;
                by_backend.insert((address("reply_src")?, port), count);
            } else {
                by_destination.insert(address("reply_dst")?, count);
            }
        }
        ensure!(by_backend == backends, "{way}: {by_backend:?}: {backends:?}");
        ensure!(by_destination == shown, "{way}: {by_destination:?}: {shown:?}");
        let states = table["states"].as_array().context("no states")?;
        let tcp = states.iter().find(|state| state["proto"] == "tcp").context("no tcp")?;
        let below = ["<10m", "<1h", "<1d"].map(|limit| tcp["remaining_below"][limit].as_u64());
        ensure!(below == [Some(0), Some(1), Some(3)] && tcp["entries"] == 4, "{way}: {tcp}");
    }
    Ok(())
}

/// Flows that a flow table forwards, beside one that it does not.
fn offloaded() -> Result<()> {
    const FLOWS: u64 = 5;
    const TABLE: &str = "
table inet lab_flows {
    flowtable f { hook ingress priority 0; devices = { down0, up0 }; }
    chain forward { type filter hook forward priority 1; udp dport 7777 flow add @f; }
}
";
    let lab = Lab::new(Plan::default())?;
    lab.router().nft(TABLE)?;
    lab.server().run(&["ip", "route", "add", "10.99.1.0/24", "via", "10.99.2.1"])?;
    let bind = |netns: &Netns, address: &str| -> Result<UdpSocket> {
        let socket = netns.within(|| UdpSocket::bind(address))??;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(socket)
    };
    for flow in 0..=FLOWS {
        // The last one is not asked of the flow table.
        let port = if flow == FLOWS { 7778 } else { 7777 };
        let server = bind(lab.server(), &format!("10.99.2.2:{port}"))?;
        let client = bind(lab.client(), "10.99.1.2:0")?;
        for _ in 0..3 {
            client.send_to(b"a question", ("10.99.2.2", port))?;
            let (_, from) = server.recv_from(&mut [0; 16])?;
            server.send_to(b"an answer", from)?;
            client.recv_from(&mut [0; 16])?;
        }
    }
    let listed = lab.router().run(&["conntrack", "-L"])?;
    let marked = listed.lines().filter(|line| line.contains("OFFLOAD]")).count();
    ensure!(marked as u64 == FLOWS, "{listed}");
    for way in all_ways() {
        let census = census(&["--mechanism", way, "--by", "state"])?;
        let table = table(&census, lab.router())?;
        ensure!(table["entries"] == FLOWS + 1 && table["offloaded"] == FLOWS, "{}", brief(table));
        let states = table["states"].as_array().context("no states")?;
        let state = states.iter().find(|state| state["state"] == "OFFLOAD").context("no state")?;
        ensure!(state["entries"] == FLOWS && state["remaining_below"].is_null(), "{way}: {state}");
    }
    Ok(())
}

/// What was there all the time is counted, and not more than ever was.
fn changing() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_buckets(1 << 14)?;
    lab.set_limit(1_000_000)?;
    lab.keep_entries()?;
    lab.send(&Flood::of(UDP, 20_000))?;
    for way in WAYS.iter().copied() {
        let census = std::thread::scope(|scope| {
            let flood = scope.spawn(|| {
                let first = if way == "walk" { 1 << 32 } else { 1 << 33 };
                lab.send(&Flood { first, ..Flood::of(UDP, 20_000) })
            });
            let census = census(&["--mechanism", way, "--by", "source"]);
            flood.join().map_err(|_| anyhow::anyhow!("the flood panicked"))??;
            census
        })?;
        let table = table(&census, lab.router())?;
        let (entries, strayed) = (table["entries"].as_u64(), census["strayed"].as_u64());
        let (entries, strayed) = (entries.context("no entries")?, strayed.context("no strays")?);
        let after = table["kernel"][1].as_u64().context("no count")?;
        // Nothing ended, so no chain can have led elsewhere; a dump of ctnetlink goes on, between
        // two answers, from where an entry is that may have moved back.
        ensure!(
            strayed == 0 && (20_000..=after + after / 100).contains(&entries),
            "{}",
            brief(table)
        );
    }
    Ok(())
}

/// Entries fill the table when their time is over: until the kernel comes across them.
fn expired() -> Result<()> {
    let lab = Lab::new(Plan::default())?;
    lab.router().sysctl("net/netfilter/nf_conntrack_udp_timeout", "1")?;
    lab.send(&Flood::of(UDP, 1000))?;
    std::thread::sleep(Duration::from_millis(1500));
    let all = census(&["--mechanism", "walk", "--by", "state"])?;
    let left = judge::ask(lab.router())?.entries;
    if let Ok(table) = table(&all, lab.router()) {
        let (entries, expired) = (table["entries"].as_u64(), table["expired"].as_u64());
        ensure!(entries == expired && entries >= Some(left), "{left} left: {}", brief(table));
        ensure!(table["states"][0]["remaining_below"]["<1d"] == 0, "{}", brief(table));
    } else {
        ensure!(left == 0, "{left} left: {}", brief(&all));
    }
    // To list them is to come across them.
    let listed = census(&["--mechanism", "ctnetlink", "--by", "state"])?;
    ensure!(table(&listed, lab.router()).is_err(), "{}", brief(&listed));
    Ok(())
}

fn many() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    let roles: Vec<String> = (0..300).map(|number| format!("idle{number}")).collect();
    let roles: Vec<&str> = roles.iter().map(String::as_str).collect();
    let others = lab.add_many(&roles)?;
    lab.keep_entries()?;
    lab.send(&Flood::of(UDP, 1000))?;
    for (number, netns) in others.iter().step_by(30).enumerate() {
        for port in 0..=number {
            let port = (1000 + port).to_string();
            netns.run(&[
                "conntrack",
                "-I",
                "-p",
                "udp",
                "-s",
                "192.0.2.1",
                "-d",
                "192.0.2.2",
                "--sport",
                &port,
                "--dport",
                "53",
                "-t",
                "300",
            ])?;
        }
    }
    for way in WAYS.iter().copied() {
        let census = census(&["--mechanism", way])?;
        ensure!(table(&census, lab.router())?["entries"] == 1000, "{}", brief(&census));
        for (number, netns) in others.iter().step_by(30).enumerate() {
            ensure!(table(&census, netns)?["entries"] == number + 1, "{}", brief(&census));
        }
        let tables = census["tables"].as_array().context("no tables")?;
        ensure!(
            tables.iter().all(|table| table["netns"]["inode"] != Value::Null),
            "{}",
            brief(&census)
        );
    }
    Ok(())
}

fn by_itself() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(STAYS_FULL)?;
    lab.keep_entries()?;
    let mut watch = Watch::start(&["--by", "source,service"])?;
    lab.send(&Flood::of(Flows { sources: 3, ..UDP }, STAYS_FULL.into()))?;
    let router = lab.router().clone();
    let object = watch.until(|object| {
        table(object, &router).is_ok_and(|table| table["census"]["entries"].is_number())
    })?;
    let entries = judge::ask(lab.router())?.entries;
    let seen = table(&object, &router)?;
    ensure!(
        seen["census"]["reclaimable"] == entries && seen["census"]["pinned"] == 0,
        "{}",
        brief(seen)
    );
    let holding = seen["top"]["holding"].as_array().context("no list")?;
    let sources = holding.iter().filter(|entry| entry["by"] == "source");
    let sum: u64 = sources.filter_map(|entry| entry["count"].as_u64()).sum();
    ensure!(sum == entries, "{}", brief(seen));
    watch.stop().map(|_| ())?;
    let mut text = ctwatch()?;
    let text = text.args(["watch", "--interval", "300ms", "--top", "3"]);
    let mut watching = Background::start(text)?;
    watching.until(|text| {
        text.contains("reclaimable (100.0%)") && text.contains("holding by source: ")
    })?;
    watching.interrupt().map(|_| ())
}

/// One census in each way, beside what there was before, on one table.
fn cost() -> Result<()> {
    const ENTRIES: u64 = 500_000;
    let mut lab = Lab::new(Plan::default())?;
    lab.set_buckets(1 << 18)?;
    lab.set_limit(1_000_000)?;
    lab.keep_entries()?;
    lab.send(&Flood::of(Flows { sources: 50_000, services: 50, ..UDP }, ENTRIES))?;
    println!();
    let mut listing = lab.router().command("conntrack")?;
    listing.arg("-L").stdout(Stdio::null()).stderr(Stdio::null());
    let begin = Instant::now();
    ensure!(listing.status()?.success(), "conntrack -L failed");
    let each = |seconds: f64, entries: f64| seconds * 1e9 / entries;
    let base = each(begin.elapsed().as_secs_f64(), ENTRIES as f64);
    println!("census | `conntrack -L` | {ENTRIES} | {base:.0} | 1.0 |");
    // Not every kernel has that file, and where it is, it is read from the start for every page.
    if let Some((entries, took)) = lab.router().within(read_file)?? {
        let took = each(took, entries as f64);
        println!(
            "census | `/proc/net/nf_conntrack` | {entries} | {took:.0} | {:.2} |",
            base / took
        );
    }
    for (way, by) in WAYS
        .iter()
        .copied()
        .flat_map(|way| [(way, "state"), (way, "state,source,destination,service")])
    {
        let census = census(&["--mechanism", way, "--by", by])?;
        let table = table(&census, lab.router())?;
        ensure!(table["entries"] == ENTRIES, "{}", brief(table));
        let took = each(census["took_s"].as_f64().context("no time")?, ENTRIES as f64);
        println!(
            "census | `ctwatch census --mechanism {way} --by {by}` | {ENTRIES} | {took:.0} | {:.1} |",
            base / took
        );
    }
    Ok(())
}

/// `/proc/net/nf_conntrack`, as much of it as there is time for: entries, and seconds.
fn read_file() -> Result<Option<(usize, f64)>> {
    const LONG_ENOUGH: Duration = Duration::from_secs(5);
    let Ok(mut file) = fs::File::open("/proc/thread-self/net/nf_conntrack") else {
        return Ok(None);
    };
    let (mut page, mut entries) = (vec![0; 1 << 16], 0);
    let begin = Instant::now();
    while begin.elapsed() < LONG_ENOUGH {
        match file.read(&mut page)? {
            0 => break,
            read => entries += page[..read].iter().filter(|byte| **byte == b'\n').count(),
        }
    }
    ensure!(entries > 0, "nothing is in the file");
    Ok(Some((entries, begin.elapsed().as_secs_f64())))
}
