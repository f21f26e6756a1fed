//! Who it is: against a generator that knows whom it sent for.

use std::{collections::HashMap, net::Ipv4Addr};

use anyhow::{Context, Result, ensure};
use ctwatch_lab::{
    Lab, Plan, judge,
    traffic::{Family, Flood, Flows, Protocol, connect_locally},
};
use serde_json::Value;

use crate::{
    On, Test, mechanism, test,
    watch::{Watch, table},
};

pub(crate) const TESTS: &[Test] = &[
    test(On::EachWithPrograms, "who_is_refused_among_many_random_sources", refused),
    test(On::EachWithPrograms, "who_fills_the_table_among_many_random_sources", inserted),
    test(On::EachWithPrograms, "what_a_rule_drops_is_certainly_nobodys_refusal", rule),
    test(On::EachWithPrograms, "a_few_refused_bgp_packets_are_called_out", control_plane),
];

const UDP: Flows = Flows::of(Family::V4, Protocol::Udp);
/// The first addresses speak often; the rest of as many as there are once each.
const TALKERS: u32 = 20;
const EACH: u64 = 500;
const RANDOM: u32 = 30_000;
const SERVICES: u16 = 4;

/// A table that is full, and in which hardly anything is ever found to be thrown out.
fn full(lab: &mut Lab) -> Result<()> {
    lab.set_buckets(1 << 20)?;
    lab.set_limit(10)?;
    let filling = Flows { protocol: Protocol::IcmpEcho, ..UDP };
    lab.send(&Flood::of(filling, 10)).map(|_| ())
}

/// Sends for many who speak once and for a few who speak often; returns how many packets in all.
fn everybody(lab: &Lab) -> Result<u64> {
    let many = Flows { sources: RANDOM, services: SERVICES, ..UDP };
    let few = Flows { sources: TALKERS, services: SERVICES, ..UDP };
    let many = lab.send(&Flood::of(many, RANDOM.into()))?;
    // Flows that the first flood has not begun.
    let few = Flood { first: 1 << 32, ..Flood::of(few, u64::from(TALKERS) * EACH) };
    let few = lab.send(&few)?;
    let sent = u64::from(RANDOM) + u64::from(TALKERS) * EACH;
    ensure!(many.arrived + few.arrived == sent, "{many:?} {few:?}");
    Ok(sent)
}

fn list<'a>(table: &'a Value, stream: &str, by: &str) -> Result<Vec<&'a Value>> {
    let all = table["top"][stream].as_array().context("no top list")?;
    Ok(all.iter().filter(|entry| entry["by"] == by).collect())
}

fn bounds(entry: &Value) -> Result<(u64, u64)> {
    let count = entry["count"].as_u64().context("no count")?;
    let error = entry["error"].as_u64().context("no error")?;
    Ok((count - error, count))
}

/// Every bound holds, and those who speak often are all found; though nobody knows whose packets
/// those few were that found room after all.
fn agrees(
    table: &Value,
    stream: &str,
    sent: u64,
    room: u64,
    interface: Option<&str>,
) -> Result<()> {
    let holds = |(least, most): (u64, u64), truth: u64| least <= truth && truth <= most + room;
    let truth: HashMap<String, u64> = (0..TALKERS)
        .map(|talker| (Ipv4Addr::from(0x0a80_0000 + talker).to_string(), EACH + 1))
        .collect();
    let sources = list(table, stream, "source")?;
    ensure!(sources.len() == TALKERS as usize, "{} sources", sources.len());
    for entry in sources {
        let source = entry["key"]["src"].as_str().context("no source")?;
        let truth = truth.get(source).with_context(|| format!("{source} is no talker: {entry}"))?;
        ensure!(holds(bounds(entry)?, *truth), "{truth} sent by {source}: {entry}");
        ensure!(bounds(entry)?.1 < 2 * truth, "a bound that says little: {entry}");
    }
    for entry in list(table, stream, "service")? {
        if entry["key"]["proto"] == "udp" {
            let truth = sent / u64::from(SERVICES);
            ensure!(holds(bounds(entry)?, truth), "{truth} sent to {entry}");
        }
    }
    if let Some(interface) = interface {
        let interfaces = list(table, stream, "interface")?;
        let [only] = interfaces.as_slice() else { anyhow::bail!("{interfaces:?}") };
        ensure!(only["key"]["iface"] == interface, "{only}");
        ensure!(holds(bounds(only)?, sent), "{sent} came in by {only}");
    }
    Ok(())
}

fn refused() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    full(&mut lab)?;
    let watch = Watch::start(&["--top", "20"])?;
    let sent = everybody(&lab)?;
    let last = watch.stop()?;
    let verdict = judge::ask(lab.router())?;
    let room = sent - verdict.drop;
    ensure!(room < 20, "{sent} {verdict:?}");
    agrees(table(&last, lab.router())?, "drops", sent, room, Some("down0"))
}

fn inserted() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(1_000_000)?;
    lab.set_buckets(1 << 17)?;
    let watch = Watch::start(&["--top", "20"])?;
    let sent = everybody(&lab)?;
    let last = watch.stop()?;
    ensure!(judge::ask(lab.router())?.entries == sent, "{:?}", judge::ask(lab.router())?);
    let table = table(&last, lab.router())?;
    if !["fexit", "kprobe"].iter().any(|by| last["mechanisms"]["insertions"] == *by) {
        // Nothing sees an insertion as it happens.
        ensure!(list(table, "insertions", "source")?.is_empty(), "{table}");
        return Ok(());
    }
    // A kprobe may be missed, and says so.
    if mechanism::current() == mechanism::Mechanism::Kprobe && table["insertions"]["total"] != sent
    {
        return Ok(());
    }
    agrees(table, "insertions", sent, 0, None)
}

/// The tracepoint sees packets that a rule drops before conntrack like those that are refused.
fn rule() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    full(&mut lab)?;
    let rule = "iptables-legacy -t raw -A PREROUTING -p tcp -j DROP";
    lab.router().run(&rule.split(' ').collect::<Vec<_>>())?;
    let watch = Watch::start(&["--top", "20"])?;
    let dropped = Flows { protocol: Protocol::TcpSyn, ..UDP };
    lab.send(&Flood::of(dropped, 1000))?;
    lab.send(&Flood::of(Flows { sources: 2, ..UDP }, 100))?;
    let last = watch.stop()?;
    let verdict = judge::ask(lab.router())?;
    ensure!(verdict.drop > 90, "{verdict:?}");
    let table = table(&last, lab.router())?;
    let services = list(table, "drops", "service")?;
    ensure!(!services.is_empty(), "{table}");
    for entry in services {
        let truth = if entry["key"]["proto"] == "udp" { verdict.drop } else { 0 };
        let (least, most) = bounds(entry)?;
        ensure!((least..=most).contains(&truth), "{truth}: {entry}");
    }
    Ok(())
}

fn control_plane() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    full(&mut lab)?;
    let watch = Watch::start(&[])?;
    lab.send(&Flood::of(Flows { protocol: Protocol::TcpSyn, services: 200, ..UDP }, 2000))?;
    let own = connect_locally(lab.router(), Family::V4, 10)?;
    let last = watch.stop()?;
    ensure!(own.refused > 5, "{own:?}");
    let table = table(&last, lab.router())?;
    let found = table["control_plane"].as_array().context("no control plane")?;
    let bgp = found.iter().find(|found| found["protocol"] == "BGP");
    let bgp = bgp.with_context(|| format!("BGP is not called out: {table}"))?;
    // 2,000 SYNs to 200 ports, 179 among them.
    ensure!(bgp["at_least"].as_u64().is_some_and(|count| (1..=10).contains(&count)), "{bgp}");
    let interfaces = list(table, "drops", "interface")?;
    let here = interfaces.iter().find(|entry| entry["key"]["ifindex"] == 0);
    let here = here.context("what this host itself sent came in by no interface")?;
    ensure!(here["count"] == own.refused, "{own:?}: {here}");
    Ok(())
}
