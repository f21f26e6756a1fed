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
        dropped(|lab| {
            let router = lab.router();
            router.run(&[
                "iptables-legacy",
                "-t",
                "raw",
                "-A",
                "PREROUTING",
                "-p",
                "udp",
                "-j",
                "DROP",
            ])?;
            Ok(())
        })
    }),
    ("dropped_by_an_nft_raw_rule", || nft("prerouting priority raw", "meta l4proto udp")),
    ("dropped_by_an_nft_rule_between_conntrack_and_nat", || {
        nft("prerouting priority dstnat - 1", "meta l4proto udp")
    }),
    ("dropped_by_an_nft_forward_rule", || nft("forward priority filter", "meta l4proto udp")),
    ("dropped_by_an_iptables_forward_rule", || {
        dropped(|lab| {
            lab.router().run(&["iptables-legacy", "-A", "FORWARD", "-p", "udp", "-j", "DROP"])?;
            Ok(())
        })
    }),
    ("dropped_by_an_invalid_rule", invalid),
    ("raw_drops_beside_a_full_table", raw_beside_full),
];

const PACKETS: u64 = 5000;
const UDP: Flows = Flows { family: Family::V4, protocol: Protocol::Udp, sources: 10, services: 1 };

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
    for reason in ["table_full", "no_memory", "clash", "chain_too_long", "nat_exhausted", "tracker"]
    {
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
    lab.router().run(&[
        "iptables-legacy",
        "-t",
        "raw",
        "-A",
        "PREROUTING",
        "-p",
        "icmp",
        "-j",
        "DROP",
    ])?;
    let watch = Watch::start(&[])?;
    lab.send(&Flood::of(UDP, PACKETS))?;
    lab.send(&Flood::of(Flows { protocol: Protocol::IcmpEcho, ..UDP }, PACKETS))?;
    let last = watch.stop()?;
    let verdict = judge::ask(lab.router())?;
    ensure!(verdict.drop > 0, "{verdict:?}");
    exact(table(&last, lab.router())?, "/drops/table_full", verdict.drop)
}
