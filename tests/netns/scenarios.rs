//! Ways a table fills, refuses and lets go that an operator meets, one by one.

use anyhow::{Context, Result, ensure};
use ctwatch_lab::{
    Lab, Plan, STAYS_FULL, judge,
    traffic::{Family, Flood, Flows, Protocol, Towards, connect_locally, send_segmented},
};

use crate::{
    On, Test,
    mechanism::{holds, nothing_lost},
    test,
    watch::{Watch, agrees_with, table},
};

pub(crate) const TESTS: &[Test] = &[
    test(On::Each, "packets_to_the_router_itself_are_refused", to_the_router),
    test(On::Each, "few_buckets_so_that_entries_are_evicted", evicting),
    test(On::Each, "notrack_flows_are_none_of_conntracks", notrack),
    test(On::EachWithChainLimit, "chains_that_are_too_long", long_chains),
    test(On::Each, "entries_by_ctnetlink_into_a_full_table", by_ctnetlink),
    test(On::Each, "a_segmented_packet_is_one_refusal", segmented),
    test(On::Each, "fifty_thousand_flows_forwarded_and_local_at_once", mixed),
    test(On::Each, "tcp_that_was_never_begun_is_invalid", half_way),
];

const UDP: Flows = Flows::of(Family::V4, Protocol::Udp);

fn to_the_router() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(STAYS_FULL)?;
    let watch = Watch::start(&[])?;
    for family in [Family::V4, Family::V6] {
        // Nobody listens there, and whatever the router answers belongs to the same flow.
        let flows = Flows { towards: Towards::Router, ..Flows::of(family, Protocol::Udp) };
        let sent = lab.send(&Flood::of(flows, 2000))?;
        ensure!(sent.arrived == 2000, "{sent:?}");
    }
    let last = watch.stop()?;
    let verdict = judge::ask(lab.router())?;
    ensure!(verdict.drop > 0, "{verdict:?}");
    agrees_with(table(&last, lab.router())?, &verdict, 4000 - verdict.drop)?;
    nothing_lost(&last)
}

/// Room is made from the buckets that a new entry belongs to: with few buckets there is always
/// something to throw out, with many hardly ever.
fn evicting() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_buckets(512)?;
    lab.set_limit(STAYS_FULL)?;
    let watch = Watch::start(&[])?;
    let sent = lab.send(&Flood::of(UDP, 2000))?;
    let last = watch.stop()?;
    let verdict = judge::ask(lab.router())?;
    ensure!(verdict.early_drop > 1000 && verdict.drop < 1000, "{verdict:?}");
    agrees_with(table(&last, lab.router())?, &verdict, sent.arrived - verdict.drop)?;
    nothing_lost(&last)
}

fn notrack() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(STAYS_FULL)?;
    lab.router().nft(
        "table inet raw { chain c { type filter hook prerouting priority raw; meta l4proto udp notrack; }\n }",
    )?;
    let watch = Watch::start(&[])?;
    for family in [Family::V4, Family::V6] {
        let sent = lab.send(&Flood::of(Flows::of(family, Protocol::Udp), 2000))?;
        ensure!(sent.arrived == 2000, "{sent:?}");
    }
    let last = watch.stop()?;
    let verdict = judge::ask(lab.router())?;
    ensure!(verdict == judge::Verdict::default(), "{verdict:?}");
    agrees_with(table(&last, lab.router())?, &verdict, 0)
}

/// In 512 buckets, a chain is too long from 50 to 80 entries on: the kernel draws the limit anew
/// for each.
fn long_chains() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_buckets(512)?;
    lab.set_limit(1_000_000)?;
    let watch = Watch::start(&[])?;
    let flows = Flows { sources: 100, ..UDP };
    let sent = lab.send(&Flood::of(flows, 30_000))?;
    let last = watch.stop()?;
    let verdict = judge::ask(lab.router())?;
    ensure!(verdict.chaintoolong > 1000, "{verdict:?}");
    ensure!(verdict.insert_failed == verdict.chaintoolong && verdict.drop == 0, "{verdict:?}");
    let table = table(&last, lab.router())?;
    holds(table, "/drops/chain_too_long", verdict.chaintoolong)?;
    for other in ["table_full", "no_memory", "clash", "nat_exhausted", "tracker"] {
        holds(table, &format!("/drops/{other}"), 0)?;
    }
    holds(table, "/insertions", sent.arrived - verdict.chaintoolong)?;
    nothing_lost(&last)
}

/// They are refused like packets are, by the same function; but no packet is lost.
fn by_ctnetlink() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(STAYS_FULL)?;
    lab.send(&Flood::of(UDP, 2000))?;
    let before = judge::ask(lab.router())?;
    let watch = Watch::start(&[])?;
    let mut refused = 0;
    for port in 1..=20 {
        let port = port.to_string();
        let words = ["-I", "-p", "udp", "-s", "10.1.0.1", "-d", "10.2.0.1", "-t", "60"];
        let mut command = lab.router().command("conntrack")?;
        command.args(words).args(["--sport", &port, "--dport", "9"]);
        let output = command.output().context("cannot run conntrack")?;
        refused += u64::from(!output.status.success());
    }
    let last = watch.stop()?;
    let now = judge::ask(lab.router())?;
    ensure!(refused > 0 && now.drop == before.drop, "{refused} refused, {now:?} {before:?}");
    holds(table(&last, lab.router())?, "/drops/table_full", 0)?;
    let figure = &table(&last, lab.router())?["refused_ctnetlink"];
    let by_function = ["fexit", "kprobe"].iter().any(|name| last["mechanisms"]["drops"] == *name);
    match by_function {
        true => ensure!(figure["total"] == refused, "{refused} were refused: {figure}"),
        false => ensure!(figure["exactness"] == "unavailable", "{figure}"),
    }
    Ok(())
}

/// A packet that is cut into ten only when it leaves is one packet to conntrack.
fn segmented() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(STAYS_FULL)?;
    let watch = Watch::start(&[])?;
    let outcome = send_segmented(lab.router(), 1000, 10)?;
    let last = watch.stop()?;
    let verdict = judge::ask(lab.router())?;
    ensure!(verdict.drop > 0 && verdict.drop == outcome.refused, "{outcome:?} {verdict:?}");
    agrees_with(table(&last, lab.router())?, &verdict, outcome.sent)?;
    nothing_lost(&last)
}

/// In softirq and in process context at once, many of them refused: what is counted and what is
/// admitted to be lost is what was sent.
fn mixed() -> Result<()> {
    const FORWARDED: u64 = 40_000;
    const LOCAL: u16 = 10_000;
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(STAYS_FULL)?;
    let watch = Watch::start(&[])?;
    let flood = Flood::of(Flows { sources: 1000, services: 10, ..UDP }, FORWARDED);
    let (sent, local) = std::thread::scope(|scope| {
        let flood = scope.spawn(|| lab.send(&flood));
        let local = connect_locally(lab.router(), Family::V4, LOCAL)?;
        let sent = flood.join().map_err(|_| anyhow::anyhow!("the flood panicked"))??;
        anyhow::Ok((sent, local))
    })?;
    let last = watch.stop()?;
    let verdict = judge::ask(lab.router())?;
    ensure!(sent.arrived == FORWARDED && local.sent + local.refused == u64::from(LOCAL));
    ensure!(verdict.drop > 1000 && verdict.insert_failed == 0, "{verdict:?}");
    let all = FORWARDED + u64::from(LOCAL);
    agrees_with(table(&last, lab.router())?, &verdict, all - verdict.drop)?;
    // A local sender is interrupted in the middle of a program, which is then not run for what comes
    // in: the counters know of those, the figures are right, and it is said.
    let lost = last["lost"].as_u64().context("lost is not stated")?;
    ensure!(lost < verdict.drop, "lost {lost}: {verdict:?}");
    Ok(())
}

/// Where conntrack is told not to pick connections up half-way, and a rule drops what is invalid.
fn half_way() -> Result<()> {
    let lab = Lab::new(Plan::default())?;
    lab.router().nft(
        "table inet drops { chain c { type filter hook forward priority 10; ct state invalid drop; }\n }",
    )?;
    lab.router().sysctl("net/netfilter/nf_conntrack_tcp_loose", "0")?;
    let watch = Watch::start(&[])?;
    for family in [Family::V4, Family::V6] {
        lab.send(&Flood::of(Flows::of(family, Protocol::TcpAck), 1000))?;
    }
    let last = watch.stop()?;
    let verdict = judge::ask(lab.router())?;
    ensure!(verdict.invalid == 2000 && verdict.entries == 0 && verdict.drop == 0, "{verdict:?}");
    agrees_with(table(&last, lab.router())?, &verdict, 0)
}
