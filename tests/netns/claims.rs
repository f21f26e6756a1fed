//! What the doctor and a check claim of a table that is in no trouble, or in none any more.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ctwatch_lab::{
    Lab, Plan, STAYS_FULL, judge,
    netns::Netns,
    plugin::{self, Output},
    traffic::{Family, Flood, Flows, Protocol},
};
use serde_json::Value;

use crate::{
    On, Test,
    doctor::{fix, found, report, type_in},
    test,
    watch::{ctwatch, finished},
};

pub(crate) const TESTS: &[Test] = &[
    test(On::Once, "the_doctor_remembers_a_table_that_was_full", was_full),
    test(On::Once, "the_doctor_finds_nothing_on_a_healthy_machine", healthy),
    test(On::Once, "the_doctor_and_connections_seen_one_way_only", one_way),
    test(On::Once, "the_doctor_knows_all_forms_of_a_rule_on_invalid", invalid),
    test(On::Once, "the_doctor_limits_one_host_that_scans", scan),
    test(On::Once, "the_doctor_and_packets_of_a_bridge", bridged),
    test(On::Once, "check_counts_drops_from_call_to_call", from_call_to_call),
];

const UDP: Flows = Flows::of(Family::V4, Protocol::Udp);

/// Packets that conntrack would not have: all of its drops but lost clashes.
fn at_the_door(netns: &Netns) -> Result<u64> {
    let verdict = judge::ask(netns)?;
    Ok(verdict.drop - (verdict.insert_failed - verdict.chaintoolong))
}

/// All that it dropped.
fn all_drops(netns: &Netns) -> Result<u64> {
    let verdict = judge::ask(netns)?;
    Ok(verdict.drop + verdict.chaintoolong)
}

/// So many packets are dropped in the router, whose table is empty again after that.
pub(crate) fn fill_and_empty(lab: &mut Lab, first: u64) -> Result<()> {
    lab.set_limit(100)?;
    lab.send(&Flood { first, ..Flood::of(Flows { sources: 10, ..UDP }, 500) })?;
    lab.router().run(&["conntrack", "-F"])?;
    lab.set_limit(100_000)
}

fn was_full() -> Result<()> {
    let mut lab = Lab::new(Plan::fresh())?;
    let other = lab.add_netns("other")?;
    let until = Instant::now() + Duration::from_secs(60);
    let said = loop {
        let first = judge::ask(lab.router())?.drop;
        fill_and_empty(&mut lab, first)?;
        let dropped = at_the_door(lab.router())?;
        ensure!(dropped > 300, "{dropped}");
        let said = report(&[])?;
        let finding = found(&said, "was_full", lab.router().name())?;
        let title = finding["title"].as_str().context("no title")?.replace(',', "");
        ensure!(title.contains(&format!(" full: {dropped} packets dropped since")), "{title}");
        ensure!(finding["severity"] == "warning", "{finding:#}");
        // The kernel writes ten lines of the network in five seconds, whoever they are about.
        if title.contains("last logged at") {
            break said;
        }
        ensure!(Instant::now() < until, "{title}");
        thread::sleep(Duration::from_secs(1));
    };
    ensure!(found(&said, "was_full", other.name()).is_err(), "{said:#}");
    Ok(())
}

/// Findings that speak of this namespace.
fn of<'a>(report: &'a Value, netns: &Netns) -> Result<Vec<&'a Value>> {
    let all = report["findings"].as_array().context("no findings")?;
    Ok(all.iter().filter(|finding| finding.to_string().contains(netns.name())).collect())
}

fn healthy() -> Result<()> {
    let mut lab = Lab::new(Plan::fresh())?;
    lab.set_limit(100_000)?;
    lab.router().nft(
        "table ip nat { chain c { type nat hook postrouting priority srcnat; masquerade; }\n }
         table inet drops { chain c { type filter hook forward priority 10;
         ct state vmap { established : accept, related : accept, invalid : drop }
         ct state { invalid, untracked } drop; ct state invalid,untracked drop; ct state invalid drop; }
         }",
    )?;
    for protocol in [Protocol::Udp, Protocol::TcpSyn] {
        lab.send(&Flood::of(Flows { protocol, sources: 10, ..UDP }, 300))?;
    }
    ensure!(judge::ask(lab.router())?.entries >= 300, "nothing is in the table");
    let said = report(&[])?;
    let findings = of(&said, lab.router())?;
    ensure!(findings.is_empty(), "{findings:#?}");
    Ok(())
}

fn invalid() -> Result<()> {
    let lab = Lab::new(Plan::fresh())?;
    lab.router().nft(
        "table inet drops { chain c { type filter hook forward priority 10;
         ct state vmap { established : accept, related : accept, invalid : drop }
         ct state { invalid, untracked } drop; ct state invalid,untracked drop; ct state invalid drop;
         ct state vmap { established : drop, invalid : accept }
         ct state { established, related } drop; }\n }",
    )?;
    let said = report(&[])?;
    ensure!(found(&said, "invalid_rule", lab.router().name()).is_err(), "conntrack counts none");
    lab.send(&Flood::of(Flows { protocol: Protocol::IcmpEchoReply, ..UDP }, 100))?;
    let said = report(&[])?;
    let finding = found(&said, "invalid_rule", lab.router().name())?;
    let title = finding["title"].as_str().context("no title")?;
    ensure!(title.starts_with("4 rules of"), "{finding:#}");
    let evidence = finding["evidence"].to_string();
    ensure!(evidence.contains("conntrack counts invalid 100 since"), "{evidence}");
    ensure!(evidence.contains("be_liberal"), "{evidence}");
    // The same in words of iptables, and by way of a chain that drops all.
    lab.router().nft("delete table inet drops")?;
    let mut first = 0;
    for tool in ["iptables-nft", "iptables-legacy"] {
        let type_in = |words: &str| {
            let words = format!("{tool} {words}");
            lab.router().run(&words.split(' ').collect::<Vec<_>>())
        };
        for words in [
            "-N LOGDROP",
            "-A LOGDROP -m limit --limit 1/sec",
            "-A LOGDROP -j DROP",
            "-N PERHAPS",
            "-A PERHAPS -p tcp -j DROP",
        ] {
            type_in(words)?;
        }
        for (rule, drops) in [
            ("FORWARD -m conntrack --ctstate INVALID,UNTRACKED -j LOGDROP", true),
            ("FORWARD -m state --state INVALID -j DROP", true),
            ("FORWARD -m conntrack --ctstate INVALID,UNTRACKED -j PERHAPS", false),
            ("FORWARD -m conntrack --ctstate INVALID,NEW -j DROP", false),
        ] {
            type_in(&format!("-A {rule}"))?;
            first += 1 << 32;
            let more = Flows { protocol: Protocol::IcmpEchoReply, ..UDP };
            lab.send(&Flood { first, ..Flood::of(more, 100) })?;
            let said = report(&[])?;
            let is_found = found(&said, "invalid_rule", lab.router().name()).is_ok();
            let counted = || lab.router().run(&["nft", "list", "ruleset"]);
            ensure!(is_found == drops, "{tool} {rule}: {} {:#}", counted()?, said["findings"]);
            type_in(&format!("-D {rule}"))?;
        }
    }
    Ok(())
}

/// Picked up in the middle, and never answered: a route of its own for each direction.
fn one_way() -> Result<()> {
    const ENTRIES: u16 = 250;
    let mut lab = Lab::new(Plan::fresh())?;
    // From 95% on the kernel collects such entries, and it reckons that by the hundred: of 250 it takes
    // 190 for it.
    lab.set_limit(300)?;
    let script: String = (0..ENTRIES)
        .map(|number| {
            format!(
                "conntrack -I -p tcp -s 192.0.2.1 -d 192.0.2.2 --sport {} --dport 80 --state \
                 ESTABLISHED -t 299\n",
                1000 + number
            )
        })
        .collect();
    lab.router().run(&["sh", "-ec", &script])?;
    let said = report(&[])?;
    let filling = found(&said, "table_filling", lab.router().name())?;
    let evidence = filling["evidence"].to_string();
    ensure!(evidence.contains("no reply was ever seen for 250 of the 250"), "{filling:#}");
    let timeouts = found(&said, "timeouts", lab.router().name());
    ensure!(timeouts.is_err(), "{timeouts:#?}");
    Ok(())
}

/// SYNs of one host that nobody answers: all of the table is its own, until it is limited.
fn scan() -> Result<()> {
    const SYNS: Flows = Flows { protocol: Protocol::TcpSyn, sources: 1, ..UDP };
    let mut lab = Lab::new(Plan::fresh())?;
    lab.set_limit(1_250)?;
    let router = lab.router().clone();
    router.sysctl("net/netfilter/nf_conntrack_tcp_timeout_syn_sent", "20")?;
    lab.send(&Flood::of(SYNS, 1_000))?;
    let said = report(&[])?;
    let filling = found(&said, "table_filling", router.name())?;
    let evidence = filling["evidence"].to_string();
    ensure!(evidence.contains("100% are TCP in SYN_SENT"), "{filling:#}");
    ensure!(evidence.contains("come from one source"), "{filling:#}");
    let limit = fix(filling, "limit the connections that")?;
    type_in(&limit["now"])?;
    router.run(&["conntrack", "-F"])?;
    lab.send(&Flood { first: 1 << 32, ..Flood::of(SYNS, 1_000) })?;
    let scanned = judge::ask(&router)?.entries;
    // A second's worth at once (6 in a second, and the bucket of nft's limit), and not 1,000.
    ensure!(scanned < 100, "{scanned}");
    lab.send(&Flood { first: 2 << 32, ..Flood::of(Flows { sources: 1, ..UDP }, 100) })?;
    ensure!(judge::ask(&router)?.entries >= scanned + 100, "others are dropped too");
    type_in(&limit["undo"])?;
    let left = router.run(&["nft", "list", "tables"])?;
    ensure!(!left.contains("ctwatch_limit"), "{left}");
    Ok(())
}

fn bridged() -> Result<()> {
    let mut lab = Lab::new(Plan::fresh())?;
    let router = lab.router().clone();
    if router.run(&["sysctl", "-n", "net.bridge.bridge-nf-call-iptables"]).is_err() {
        eprintln!("br_netfilter is not loaded here: only that nothing is said of bridges");
    }
    let is_on = |netns: &Netns| {
        let value = netns.run(&["sysctl", "-n", "net.bridge.bridge-nf-call-iptables"]);
        value.is_ok_and(|value| value.trim() == "1")
    };
    let tracked = is_on(&router);
    lab.set_limit(STAYS_FULL)?;
    lab.send(&Flood::of(UDP, 80))?;
    let said = report(&[])?;
    ensure!(found(&said, "bridge_tracked", router.name()).is_err(), "there is no bridge");
    router.run(&["ip", "link", "add", "ctwbr0", "type", "bridge"])?;
    let said = report(&[])?;
    let finding = found(&said, "bridge_tracked", router.name());
    ensure!(finding.is_ok() == tracked, "{:#}", said["findings"]);
    if let Ok(finding) = finding {
        let leave = fix(finding, "leave bridged packets")?;
        type_in(&leave["now"])?;
        ensure!(!is_on(&router), "it is 1 still");
        type_in(&leave["undo"])?;
        ensure!(is_on(&router), "it is 0 still");
    }
    Ok(())
}

fn said(netns: &Netns, args: &[&str]) -> Result<Output> {
    let mut command = ctwatch()?;
    command.args(["check", "--for", "100ms", "--netns", netns.name()]).args(args);
    let (text, errors, code) = finished(&mut command)?;
    let output = plugin::parse("CTWATCH", &text).with_context(|| format!("{text}{errors}"))?;
    ensure!(code == Some(output.code()), "{code:?}: {text}");
    Ok(output)
}

fn from_call_to_call() -> Result<()> {
    let mut lab = Lab::new(Plan::fresh())?;
    let folder = tempfile::tempdir()?;
    let state = folder.path().join("state");
    let path = state.to_str().context("not UTF-8")?;
    let dropped = |output: &Output, netns: &Netns| -> Result<Option<f64>> {
        Ok(output.metric(&format!("{} dropped", netns.name()))?.value)
    };
    let args = ["-w", "dropped=0", "-c", "dropped=100000", "--state", path];
    let without = said(lab.router(), &["-w", "dropped=0"])?;
    ensure!(without.code() == 3 && without.text.contains("--state"), "{}", without.text);

    fill_and_empty(&mut lab, 0)?;
    let first = said(lab.router(), &args)?;
    ensure!(first.code() == 0 && first.text.contains("begins with this call"), "{}", first.text);
    ensure!(dropped(&first, lab.router())?.is_none(), "{}", first.text);
    let before = all_drops(lab.router())?;
    let calm = said(lab.router(), &args)?;
    ensure!(calm.code() == 0 && dropped(&calm, lab.router())? == Some(0.0), "{}", calm.text);

    // While nobody looks.
    fill_and_empty(&mut lab, 1 << 32)?;
    let between = all_drops(lab.router())? - before;
    ensure!(between > 300, "{between}");
    let after = said(lab.router(), &args)?;
    ensure!(after.code() == 1, "{}", after.text);
    ensure!(dropped(&after, lab.router())? == Some(between as f64), "{between}: {}", after.text);
    ensure!(after.text.contains(&format!("dropped {between} packets since")), "{}", after.text);
    let again = said(lab.router(), &args)?;
    ensure!(again.code() == 0, "{}", again.text);

    // Of another boot; of another program; a link.
    let text = std::fs::read_to_string(&state)?;
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    std::fs::write(&state, text.replace(boot.trim(), "another"))?;
    let many = said(lab.router(), &args)?;
    ensure!(many.code() == 1, "more than 0 since the start: {}", many.text);
    std::fs::write(&state, "not ours")?;
    let strange = said(lab.router(), &args)?;
    ensure!(strange.code() == 3 && strange.text.contains("no state file"), "{}", strange.text);
    ensure!(std::fs::read_to_string(&state)? == "not ours", "it was overwritten");
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&state, &link)?;
    let linked = said(lab.router(), &["--state", link.to_str().context("not UTF-8")?])?;
    ensure!(linked.code() == 3 && linked.text.contains("symbolic link"), "{}", linked.text);
    Ok(())
}
