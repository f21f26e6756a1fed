//! Packets that a firewall rule drops are no drops of conntrack.

use anyhow::{Result, ensure};
use ctwatch_lab::{
    Lab, Plan, judge,
    traffic::{Family, Flood, Flows, Protocol},
};

use crate::{
    Test,
    watch::{Watch, exact, table},
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("dropped_by_an_iptables_raw_rule", || {
        dropped(|lab| iptables(lab, "-t raw -A PREROUTING -p udp -j DROP"))
    }),
    ("dropped_by_an_nft_raw_rule", || nft("prerouting priority raw", "meta l4proto udp")),
    ("dropped_by_an_nft_rule_between_conntrack_and_nat", || {
        nft("prerouting priority dstnat - 1", "meta l4proto udp")
    }),
    ("dropped_by_an_nft_forward_rule", || nft("forward priority filter", "meta l4proto udp")),
    ("dropped_by_an_iptables_forward_rule", || {
        dropped(|lab| iptables(lab, "-A FORWARD -p udp -j DROP"))
    }),
    ("dropped_by_an_invalid_rule", invalid),
    ("raw_drops_beside_a_full_table", raw_beside_full),
    ("nat_runs_out_of_ports", nat_exhausted),
];

const REASONS: [&str; 6] =
    ["table_full", "no_memory", "clash", "chain_too_long", "nat_exhausted", "tracker"];
const PACKETS: u64 = 5000;
const UDP: Flows = Flows { family: Family::V4, protocol: Protocol::Udp, sources: 10, services: 1 };

fn iptables(lab: &Lab, rule: &str) -> Result<()> {
    let words: Vec<&str> = std::iter::once("iptables-legacy").chain(rule.split(' ')).collect();
    lab.router().run(&words).map(|_| ())
}

fn nft(hook: &str, matching: &str) -> Result<()> {
    dropped(|lab| {
        lab.router().nft(&format!(
            "table inet drops {{ chain c {{ type filter hook {hook}; {matching} drop; }}\n }}"
        ))
    })
}

fn dropped(rule: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    let lab = Lab::new(Plan::default())?;
    rule(&lab)?;
    let watch = Watch::start(&[])?;
    let sent = lab.send(&Flood::of(UDP, PACKETS))?;
    let last = watch.stop()?;
    let verdict = judge::ask(lab.router())?;
    ensure!(sent.arrived == PACKETS && verdict.entries == 0 && verdict.drop == 0, "{verdict:?}");
    let table = table(&last, lab.router())?;
    for reason in REASONS {
        exact(table, &format!("/drops/{reason}"), 0)?;
    }
    ensure!(table["saturated"] == false, "{table}");
    // What a rule drops before it is confirmed is allocated, and never inserted.
    exact(table, "/insertions", 0)?;
    exact(table, "/removals", 0)
}

fn invalid() -> Result<()> {
    let lab = Lab::new(Plan::default())?;
    lab.router().nft(
        "table inet drops { chain c { type filter hook forward priority 10; ct state invalid drop; }\n }",
    )?;
    // An echo reply that nobody asked for is invalid.
    let watch = Watch::start(&[])?;
    let replies = Flows { protocol: Protocol::IcmpEchoReply, ..UDP };
    let sent = lab.send(&Flood::of(replies, PACKETS))?;
    let last = watch.stop()?;
    let verdict = judge::ask(lab.router())?;
    ensure!(sent.arrived == PACKETS && verdict.invalid == PACKETS, "{verdict:?}");
    let table = table(&last, lab.router())?;
    exact(table, "/invalid", PACKETS)?;
    exact(table, "/drops/table_full", 0)?;
    exact(table, "/insertions", 0)
}

/// The probes see both alike; the counters tell them apart.
fn raw_beside_full() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(200)?;
    iptables(&lab, "-t raw -A PREROUTING -p icmp -j DROP")?;
    let watch = Watch::start(&[])?;
    lab.send(&Flood::of(UDP, PACKETS))?;
    lab.send(&Flood::of(Flows { protocol: Protocol::IcmpEcho, ..UDP }, PACKETS))?;
    let last = watch.stop()?;
    let verdict = judge::ask(lab.router())?;
    ensure!(verdict.drop > 0, "{verdict:?}");
    exact(table(&last, lab.router())?, "/drops/table_full", verdict.drop)
}

/// Ten ports for all flows to one service: from the eleventh on, NAT finds no free tuple. That
/// looks like a lost clash to the counters, so each is an upper bound, and neither a full table.
fn nat_exhausted() -> Result<()> {
    let lab = Lab::new(Plan::default())?;
    lab.router().nft(
        "table ip nat { chain c { type nat hook postrouting priority srcnat;
         meta l4proto udp snat to 10.99.2.1:1000-1009; }\n }",
    )?;
    let watch = Watch::start(&[])?;
    let sent = lab.send(&Flood::of(Flows { sources: 1, ..UDP }, 500))?;
    let last = watch.stop()?;
    let verdict = judge::ask(lab.router())?;
    ensure!(verdict.insert_failed == sent.arrived - 10 && verdict.entries == 10, "{verdict:?}");
    let table = table(&last, lab.router())?;
    exact(table, "/drops/table_full", 0)?;
    exact(table, "/drops/chain_too_long", 0)?;
    exact(table, "/insertions", 10)?;
    exact(table, "/removals", 0)?;
    for reason in ["nat_exhausted", "clash"] {
        let figure = &table["drops"][reason];
        ensure!(
            figure["total"] == verdict.insert_failed
                && figure["exactness"] == "upper_bound"
                && figure["at_least"] == 0,
            "{reason}: {figure} {verdict:?}"
        );
    }
    Ok(())
}
