//! Why a table fills, and why there is one at all: each cause made with the real tools, its cure
//! applied and undone.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ctwatch_lab::{
    Lab, Plan, judge,
    netns::Netns,
    traffic::{Family, Flood, Flows, Protocol},
};

use crate::{
    On, Test,
    advice::{check, datagrams, undo},
    doctor::{fix, found, report, type_in},
    test,
};

pub(crate) const TESTS: &[Test] = &[
    test(On::Once, "the_doctor_and_connections_that_wait_to_be_closed", close_wait).anywhere(),
    test(On::Once, "the_doctor_and_a_timeout_policy", policy),
    test(On::Once, "the_doctor_and_few_buckets", few_buckets),
    test(On::OnceAlone, "the_doctor_and_what_tracks_besides_rules", others),
    test(On::OnceAlone, "the_doctor_and_a_flow_table", flow_table),
];

const UDP: Flows = Flows::of(Family::V4, Protocol::Udp);
const TCP: Flows = Flows::of(Family::V4, Protocol::TcpSyn);

/// kubernetes#97377: an hour for each, whose age is anything up to that.
fn close_wait() -> Result<()> {
    const ENTRIES: u32 = 120;
    const BEFORE: u32 = 3600;
    const AFTER: u32 = 30;
    let mut lab = Lab::new(Plan::fresh())?;
    let router = lab.router().clone();
    lab.set_limit(ENTRIES + 15)?;
    router.sysctl("net/netfilter/nf_conntrack_tcp_timeout_close_wait", &BEFORE.to_string())?;
    for rule in ["-N KUBE-SERVICES", "-A FORWARD -j KUBE-SERVICES"] {
        router.run(&format!("iptables-nft {rule}").split(' ').collect::<Vec<_>>())?;
    }
    let lives = |nth: u32| BEFORE - nth * BEFORE / ENTRIES;
    let script: String = (0..ENTRIES)
        .map(|nth| {
            format!(
                "conntrack -I -p tcp -s 192.0.2.1 -d 192.0.2.2 --sport {} --dport 80 --state \
                 CLOSE_WAIT -u SEEN_REPLY,ASSURED -t {}\n",
                1000 + nth,
                lives(nth)
            )
        })
        .collect();
    router.run(&["sh", "-ec", &script])?;
    // Those that were silent for longer than the shorter time.
    let would_go = (0..ENTRIES).filter(|nth| lives(*nth) <= BEFORE - AFTER).count();
    let said = report(&[])?;
    let timeouts = found(&said, "timeouts", router.name())?;
    let cure = fix(timeouts, "tcp_timeout_close_wait 3600 -> 30")?;
    let promise = cure["expect"].as_str().context("no promise")?;
    let number = promise.split(' ').nth(1).context("no number")?.replace(',', "");
    let promised: usize = number.parse().with_context(|| format!("no number: {promise}"))?;
    ensure!(promised.abs_diff(would_go) * 10 <= would_go, "{promised} for {would_go}: {cure:#}");
    type_in(&cure["now"])?;
    ensure!(check(cure)? == "30", "{}", check(cure)?);
    undo(cure)?;
    ensure!(check(cure)? == "3600", "{}", check(cure)?);
    Ok(())
}

/// A policy of nft gives a time of its own: how many live by it instead of by the sysctl, nobody can
/// tell, and it is said.
fn policy() -> Result<()> {
    let mut lab = Lab::new(Plan::fresh())?;
    let router = lab.router().clone();
    lab.set_limit(1000)?;
    router.sysctl("net/netfilter/nf_conntrack_udp_timeout", "60")?;
    router.nft(
        "table ip short {
           ct timeout seconds { protocol udp; l3proto ip; policy = { unreplied : 20, replied : 20 }; }
           chain c { type filter hook prerouting priority -150; udp dport 1-65535 ct timeout set \"seconds\"; }
         }",
    )?;
    lab.send(&Flood::of(Flows { sources: 100, ..UDP }, 900))?;
    let listed = router.run(&["conntrack", "-L", "-p", "udp"])?;
    let left = |line: &str| line.split_whitespace().nth(2)?.parse::<u32>().ok();
    ensure!(listed.lines().filter_map(left).all(|left| left <= 20), "no policy: {listed}");
    let said = report(&[])?;
    let timeouts = found(&said, "timeouts", router.name())?;
    let cure = fix(timeouts, "udp_timeout 60 -> 10")?;
    let expect = cure["expect"].as_str().context("nothing is expected")?;
    ensure!(expect.starts_with("at most 9"), "{expect}");
    let why = "without those that live by the timeout policy of table ip short, chain c";
    ensure!(expect.contains(why), "{expect}");
    Ok(())
}

fn few_buckets() -> Result<()> {
    const LIMIT: u32 = 32_768;
    let mut lab = Lab::new(Plan::fresh())?;
    lab.set_buckets(1024)?;
    lab.set_limit(LIMIT)?;
    lab.send(&Flood::of(Flows { sources: 100, ..UDP }, 3000))?;
    let entries = judge::ask(lab.router())?.entries;
    ensure!(entries >= 3000, "{entries}");
    let said = report(&[])?;
    let few = found(&said, "few_buckets", "buckets")?;
    let title = few["title"].as_str().context("no title")?;
    ensure!(title.contains("there are 1,024 buckets for up to 32,768 entries"), "{title}");
    let cure = fix(few, "as many buckets")?;
    type_in(&cure["now"])?;
    ensure!(check(cure)? == LIMIT.to_string(), "{}", check(cure)?);
    ensure!(judge::ask(lab.router())?.entries >= 3000, "entries are lost");
    lab.send(&Flood { first: 1 << 32, ..Flood::of(Flows { sources: 100, ..TCP }, 100) })?;
    ensure!(found(&report(&[])?, "few_buckets", "buckets").is_err(), "not cured");
    undo(cure)?;
    ensure!(check(cure)? == "1024", "{}", check(cure)?);
    Ok(())
}

fn load(module: &str) -> Result<()> {
    let output = Command::new("modprobe").arg(module).output()?;
    ensure!(output.status.success(), "{module}: {output:?}");
    Ok(())
}

/// As it was: the doctor advises less where such a module is loaded.
pub(crate) fn unload(module: &str) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let output = Command::new("modprobe").args(["-r", module]).output()?;
        if output.status.success() {
            return Ok(());
        }
        ensure!(Instant::now() < until, "{module}: {output:?}");
        thread::sleep(Duration::from_millis(200));
    }
}

/// No rule says so, and yet they want connections tracked; what they do is not read, so nothing of
/// what they may translate is left untracked.
fn others() -> Result<()> {
    for (module, name) in [
        ("ip_vs", "IPVS"),
        ("openvswitch", "Open vSwitch (its ct action)"),
        ("act_ct", "tc (act_ct)"),
    ] {
        load(module)?;
        let outcome = beside(module, name);
        unload(module)?;
        outcome.with_context(|| format!("beside {module}"))?;
    }
    Ok(())
}

fn beside(module: &str, name: &str) -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(1000)?;
    lab.keep_entries()?;
    datagrams(&lab.client().clone(), 20_000..20_900, "10.100.0.2:9000")?;
    let said = report(&[])?;
    let reasons = said["tracking"]["needed_by"].to_string();
    ensure!(reasons.contains(&format!("{name}: module {module} is loaded")), "{reasons}");
    ensure!(found(&said, "tracking_for_nothing", "").is_err(), "{:#}", said["findings"]);
    let talkers = found(&said, "top_talkers", lab.router().name())?;
    let why = format!("{module} is loaded, and what it does is not read");
    ensure!(talkers["evidence"].to_string().contains(&why), "{talkers:#}");
    ensure!(talkers["fixes"].as_array().is_some_and(Vec::is_empty), "{talkers:#}");
    Ok(())
}

fn offloads(router: &Netns) -> Result<()> {
    router.nft(
        "table inet fast {
           flowtable ft { hook ingress priority 0; devices = { up0, down0 }; }
           chain c { type filter hook forward priority 0; ct state established flow add @ft; }
         }",
    )
}

fn flow_table() -> Result<()> {
    let lab = Lab::new(Plan::without_tracking())?;
    let router = lab.router().clone();
    offloads(&router)?;
    let said = report(&[])?;
    let reasons = said["tracking"]["needed_by"].to_string();
    ensure!(reasons.contains("flow tables: module nf_flow_table is loaded"), "{reasons}");
    let rule = format!("{}: nft table inet fast, chain c", router.name());
    ensure!(reasons.contains(&rule) && reasons.contains("flow_offload"), "{reasons}");
    Ok(())
}
