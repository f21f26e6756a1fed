//! Packets that a firewall rule drops are no drops of conntrack.

use anyhow::{Result, ensure};
use ctwatch_lab::{
    Lab, Plan, judge,
    traffic::{Family, Flood, Flows, Protocol},
};

use crate::{
    On, Test,
    mechanism::holds,
    test,
    watch::{Watch, table},
};

pub(crate) const TESTS: &[Test] = &[
    test(On::Each, "dropped_by_an_iptables_raw_rule", || {
        dropped(Plan::fresh(), |lab| iptables(lab, "-t raw -A PREROUTING -p udp -j DROP"))
    }),
    test(On::Each, "dropped_by_an_nft_raw_rule", || nft("filter hook prerouting priority raw")),
    test(On::Each, "dropped_by_an_nft_rule_between_conntrack_and_nat", || {
        nft("filter hook prerouting priority dstnat - 1")
    }),
    test(On::Each, "dropped_by_an_nft_rule_in_nat_prerouting", || {
        nft("nat hook prerouting priority dstnat")
    }),
    test(On::Each, "dropped_by_an_nft_forward_rule", || nft("filter hook forward priority filter")),
    test(On::Each, "dropped_by_an_iptables_forward_rule", || {
        dropped(Plan::fresh(), |lab| iptables(lab, "-A FORWARD -p udp -j DROP"))
    }),
    test(On::Each, "dropped_by_an_invalid_rule", invalid),
    test(On::Each, "raw_drops_beside_a_full_table", raw_beside_full),
    test(On::Each, "nat_runs_out_of_ports", nat_exhausted),
];

const REASONS: [&str; 6] =
    ["table_full", "no_memory", "clash", "chain_too_long", "nat_exhausted", "tracker"];
const PACKETS: u64 = 2000;
const UDP: Flows = Flows { sources: 10, ..Flows::of(Family::V4, Protocol::Udp) };

/// The same rule for both families. Its tables stay as long as the namespace.
fn iptables(lab: &Lab, rule: &str) -> Result<()> {
    for program in ["iptables-legacy", "ip6tables-legacy"] {
        let words: Vec<&str> = std::iter::once(program).chain(rule.split(' ')).collect();
        lab.router().run(&words)?;
    }
    Ok(())
}

fn nft(chain: &str) -> Result<()> {
    dropped(Plan::default(), |lab| {
        lab.router().nft(&format!(
            "table inet drops {{ chain c {{ type {chain}; meta l4proto udp drop; }}\n }}"
        ))
    })
}

fn dropped(plan: Plan, rule: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    let lab = Lab::new(plan)?;
    rule(&lab)?;
    let watch = Watch::start(&[])?;
    for family in [Family::V4, Family::V6] {
        let sent = lab.send(&Flood::of(Flows { family, ..UDP }, PACKETS))?;
        ensure!(sent.arrived == PACKETS, "{sent:?}");
    }
    let last = watch.stop()?;
    let verdict = judge::ask(lab.router())?;
    ensure!(verdict.entries == 0 && verdict.drop == 0, "{verdict:?}");
    let table = table(&last, lab.router())?;
    for reason in REASONS {
        holds(table, &format!("/drops/{reason}"), 0)?;
    }
    ensure!(table["saturated"] == false, "{table}");
    // What a rule drops before it is confirmed is allocated, and never inserted.
    holds(table, "/insertions", 0)?;
    holds(table, "/removals", 0)
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
    holds(table, "/invalid", PACKETS)?;
    holds(table, "/drops/table_full", 0)?;
    holds(table, "/insertions", 0)
}

/// The probes see both alike; the counters tell them apart.
fn raw_beside_full() -> Result<()> {
    let mut lab = Lab::new(Plan::fresh())?;
    lab.set_limit(200)?;
    lab.router().run(
        &"iptables-legacy -t raw -A PREROUTING -p icmp -j DROP".split(' ').collect::<Vec<_>>(),
    )?;
    let watch = Watch::start(&[])?;
    lab.send(&Flood::of(UDP, PACKETS))?;
    lab.send(&Flood::of(Flows { protocol: Protocol::IcmpEcho, ..UDP }, PACKETS))?;
    let last = watch.stop()?;
    let verdict = judge::ask(lab.router())?;
    ensure!(verdict.drop > 0, "{verdict:?}");
    holds(table(&last, lab.router())?, "/drops/table_full", verdict.drop)
}

/// Ten ports for all flows to one service: from the eleventh on, NAT finds no free tuple. To the
/// counters that looks like a lost clash, so without hooks on the functions each is an upper bound.
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
    holds(table, "/drops/table_full", 0)?;
    holds(table, "/insertions", 10)?;
    holds(table, "/removals", 0)?;
    holds(table, "/dropped", verdict.drop)?;
    holds(table, "/drops/clash_or_nat_exhausted", verdict.insert_failed)?;
    if ["fexit", "kprobe"].iter().any(|name| last["mechanisms"]["drops"] == *name) {
        holds(table, "/drops/nat_exhausted", verdict.insert_failed)?;
        return holds(table, "/drops/clash", 0);
    }
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
