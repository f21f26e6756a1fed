//! A small table, 2,000 new flows: every number is known in advance or by the kernel.

use anyhow::{Result, ensure};
use ctwatch_lab::{
    Lab, Plan, STAYS_FULL, judge,
    traffic::{Family, Flood, Flows, Protocol, connect_locally},
};

use crate::{
    On, Test,
    mechanism::{holds, nothing_lost},
    test,
    watch::{Watch, agrees_with, table},
};

pub(crate) const TESTS: &[Test] = &[
    test(On::Each, "udp_into_a_full_table", || forwarded(Protocol::Udp)),
    test(On::Each, "tcp_syn_into_a_full_table", || forwarded(Protocol::TcpSyn)),
    test(On::Each, "icmp_echo_into_a_full_table", || forwarded(Protocol::IcmpEcho)),
    test(On::Each, "connections_from_the_router_itself_are_refused", local),
    test(On::Each, "two_namespaces_have_their_own_numbers", two_namespaces),
    test(On::Each, "each_retry_of_a_refused_flow_is_a_refusal", retries),
];

/// Every case for both.
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const PACKETS: u64 = 2000;

fn flows(family: Family, protocol: Protocol) -> Flows {
    // Echo requests have no ports: their flows differ by identifier.
    let services = if protocol == Protocol::IcmpEcho { 1 } else { 2000 };
    Flows { services, ..Flows::of(family, protocol) }
}

fn forwarded(protocol: Protocol) -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(STAYS_FULL)?;
    let watch = Watch::start(&[])?;
    let mut before = judge::ask(lab.router())?;
    for family in FAMILIES {
        let sent = lab.send(&Flood::of(flows(family, protocol), PACKETS))?;
        ensure!(sent.arrived == PACKETS, "{sent:?}");
        let now = judge::ask(lab.router())?;
        ensure!(now.drop > before.drop, "nothing was refused: {now:?}");
        before = now;
    }
    let last = watch.stop()?;
    let verdict = judge::ask(lab.router())?;
    let table = table(&last, lab.router())?;
    agrees_with(table, &verdict, 2 * PACKETS - verdict.drop)?;
    nothing_lost(&last)?;
    ensure!(verdict.entries <= u64::from(STAYS_FULL) && table["limit"] == STAYS_FULL, "{table}");
    Ok(())
}

fn local() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(STAYS_FULL)?;
    let watch = Watch::start(&[])?;
    let (mut sent, mut refused) = (0, 0);
    for family in FAMILIES {
        let outcome = connect_locally(lab.router(), family, 2000)?;
        ensure!(outcome.refused > 0, "{outcome:?}");
        sent += outcome.sent;
        refused += outcome.refused;
    }
    let last = watch.stop()?;
    let verdict = judge::ask(lab.router())?;
    ensure!(verdict.drop == refused, "{refused} were refused: {verdict:?}");
    agrees_with(table(&last, lab.router())?, &verdict, sent)?;
    nothing_lost(&last)
}

fn two_namespaces() -> Result<()> {
    let mut first = Lab::new(Plan::default())?;
    let second = Lab::new(Plan::default())?;
    first.set_limit(STAYS_FULL)?;
    let watch = Watch::start(&[])?;
    let one = Flood::of(flows(Family::V4, Protocol::Udp), PACKETS);
    let other = Flood::of(flows(Family::V6, Protocol::TcpSyn), 3000);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| second.send(&other));
        first.send(&one)?;
        other.join().map_err(|_| anyhow::anyhow!("the second flood panicked"))??;
        anyhow::Ok(())
    })?;
    let last = watch.stop()?;
    for (lab, packets) in [(&first, PACKETS), (&second, 3000)] {
        let verdict = judge::ask(lab.router())?;
        ensure!(verdict.drop > 0, "{verdict:?}");
        agrees_with(table(&last, lab.router())?, &verdict, packets - verdict.drop)?;
        let quiet = table(&last, lab.server())?;
        // The server tracks nothing.
        holds(quiet, "/insertions", 0)?;
    }
    Ok(())
}

fn retries() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(STAYS_FULL)?;
    lab.send(&Flood::of(flows(Family::V4, Protocol::Udp), PACKETS))?;
    let before = judge::ask(lab.router())?;
    let watch = Watch::start(&[])?;
    let flood = Flood {
        first: 1_000_000,
        each: 10,
        ..Flood::of(flows(Family::V4, Protocol::Udp), PACKETS)
    };
    let sent = lab.send(&flood)?;
    let last = watch.stop()?;
    let now = judge::ask(lab.router())?;
    ensure!(sent.flows == 200 && now.drop - before.drop > 1000, "{sent:?} {now:?}");
    let table = table(&last, lab.router())?;
    holds(table, "/drops/table_full", now.drop - before.drop)?;
    holds(table, "/evictions/early_drop", now.early_drop - before.early_drop)
}
