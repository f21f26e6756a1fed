//! The lab itself: a judge that says what others say, and a kept lab that is as good as new.

use std::{
    fs,
    process::{Child, Stdio},
};

use anyhow::{Result, ensure};
use ctwatch_lab::{
    Lab, Plan,
    judge::{self, Verdict},
    topology::TRACKING,
    traffic::{Family, Flood, Flows, Protocol},
};

use crate::{On, Test, test};

pub(crate) const TESTS: &[Test] = &[
    test(On::Once, "the_judge_says_what_conntrack_says", judged),
    test(On::Once, "a_kept_lab_is_as_good_as_new", as_new),
    test(On::Once, "a_lab_that_is_not_clean_is_thrown_away", unclean),
];

const UDP: Flows = Flows::of(Family::V4, Protocol::Udp);
const HOST: [&str; 3] = [
    "/proc/sys/net/netfilter/nf_conntrack_max",
    "/sys/module/nf_conntrack/parameters/hashsize",
    "/proc/sys/net/netfilter/nf_conntrack_expect_max",
];

/// Refuses, evicts, finds invalid, and has no port left.
fn everything_happens(lab: &mut Lab) -> Result<()> {
    lab.keep_entries()?;
    lab.set_buckets(512)?;
    lab.set_limit(200)?;
    lab.send(&Flood { first: 1 << 32, ..Flood::of(UDP, 1000) })?;
    lab.set_limit(1_000_000)?;
    lab.send(&Flood::of(Flows { protocol: Protocol::IcmpEchoReply, ..UDP }, 100))?;
    lab.router().nft(
        "table ip nat { chain c { type nat hook postrouting priority srcnat;
         meta l4proto udp snat to 10.99.2.1:1000-1009; }\n }",
    )?;
    lab.send(&Flood { first: 1 << 33, ..Flood::of(Flows { sources: 1, ..UDP }, 500) })?;
    lab.router().nft("delete table ip nat")
}

fn judged() -> Result<()> {
    let mut lab = Lab::new(Plan::fresh())?;
    everything_happens(&mut lab)?;
    // Too long for the chains, where there is such a limit.
    lab.send(&Flood { first: 1 << 34, ..Flood::of(Flows { sources: 100, ..UDP }, 30_000) })?;
    let (ours, theirs) = (judge::ask(lab.router())?, judge::by_conntrack(lab.router())?);
    ensure!(ours == theirs, "{ours:?} {theirs:?}");
    let Verdict { entries, invalid, insert_failed, drop, chaintoolong, .. } = ours;
    ensure!([entries, invalid, insert_failed, drop].iter().all(|count| *count > 0), "{ours:?}");
    ensure!((chaintoolong > 0) == judge::limits_chains()?, "{ours:?}");
    Ok(())
}

fn read_all() -> Result<Vec<String>> {
    HOST.iter().map(|path| fs::read_to_string(path).map_err(Into::into)).collect()
}

fn as_new() -> Result<()> {
    let before = read_all()?;
    let (name, left) = {
        let mut lab = Lab::new(Plan::default())?;
        everything_happens(&mut lab)?;
        lab.set_expectations(10)?;
        lab.router().nft(
            "table ip expecting {
               ct expectation second { protocol udp; dport 9; timeout 60s; size 1; l3proto ip; }
               chain c { type filter hook forward priority 10; ct expectation set \"second\"; }
             }",
        )?;
        lab.router().run(&["conntrack", "-F"])?;
        lab.send(&Flood::of(Flows { sources: 10, ..UDP }, 10))?;
        ensure!(!lab.router().run(&["conntrack", "-L", "expect"])?.is_empty(), "none expected");
        lab.router().sysctl("net/netfilter/nf_conntrack_tcp_loose", "0")?;
        ensure!(judge::ask(lab.router())?.drop > 0);
        (lab.router().name().to_owned(), lab.add_netns("left")?)
    };
    ensure!(read_all()? == before, "{before:?} {:?}", read_all()?);
    let mut lab = Lab::new(Plan::default())?;
    let router = lab.router().clone();
    ensure!(router.name() == name, "{} is a new lab, and not {name}", router.name());
    let verdict = judge::ask(&router)?;
    ensure!(verdict == Verdict::default(), "{verdict:?}");
    ensure!(judge::by_conntrack(&router)?.drop > 0, "the namespace is another");
    ensure!(!left.path().exists(), "{} is left", left.name());
    ensure!(router.run(&["conntrack", "-L", "expect"])?.is_empty(), "expectations are left");
    // What is laid by netlink is what the text says.
    let text = lab.add_netns("text")?;
    text.nft(TRACKING)?;
    let list = ["nft", "list", "ruleset"];
    let (laid, meant) = (router.run(&list)?, text.run(&list)?);
    ensure!(laid == meant && laid.contains("ct state"), "{laid}\n{meant}");
    for (name, value) in [("udp_timeout", "300"), ("tcp_loose", "0")] {
        let now = router.run(&["sysctl", "-n", &format!("net.netfilter.nf_conntrack_{name}")])?;
        ensure!(now.trim() != value, "nf_conntrack_{name} is {now}");
    }
    let sent = lab.send(&Flood::of(UDP, 100))?;
    let verdict = judge::ask(&router)?;
    ensure!(sent.arrived == 100, "{sent:?}");
    ensure!(verdict == Verdict { entries: 100, ..Verdict::default() }, "{verdict:?}");
    Ok(())
}

/// Ends with the trial.
struct Lodger(Child);

impl Drop for Lodger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Something that a trial leaves behind.
type Leave<'a> = &'a mut dyn FnMut(&Lab) -> Result<()>;

fn unclean() -> Result<()> {
    let mut lodgers = Vec::new();
    let mut lodge = |lab: &Lab| -> Result<()> {
        let mut sleep = lab.router().command("sleep")?;
        lodgers.push(Lodger(sleep.arg("60").stdout(Stdio::null()).spawn()?));
        Ok(())
    };
    let run = |lab: &Lab, words: &str| {
        lab.router().run(&words.split(' ').collect::<Vec<_>>()).map(|_| ())
    };
    let ways: [(&str, Leave); 4] = [
        ("an address", &mut |lab| run(lab, "ip addr add 10.97.0.1/24 dev up0")),
        ("a table of iptables", &mut |lab| run(lab, "iptables-legacy -t raw -L")),
        ("a sysctl", &mut |lab| lab.client().sysctl("net/ipv6/conf/default/accept_ra", "1")),
        ("a process", &mut lodge),
    ];
    for (what, leave) in ways {
        let name = {
            let lab = Lab::new(Plan::default())?;
            leave(&lab)?;
            lab.router().name().to_owned()
        };
        let next = Lab::new(Plan::default())?;
        ensure!(next.router().name() != name, "{what} is left in {name}");
    }
    Ok(())
}
