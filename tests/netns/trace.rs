//! Single refusals: against what the generator sent and what the kernel counted.

use std::{
    collections::HashSet,
    io::{BufRead, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout, Stdio},
};

use anyhow::{Context, Result, ensure};
use ctwatch_lab::{
    Lab, Plan, judge,
    traffic::{Family, Flood, Flow, Flows, Protocol, connect_locally},
};
use serde_json::Value;

use crate::{On, Test, causes::unload, mechanism, test, watch::ctwatch};

pub(crate) const TESTS: &[Test] = &[
    test(On::EachWithPrograms, "each_refusal_is_traced", each),
    test(On::EachWithPrograms, "traced_by_filter_and_rate", filtered),
    test(On::EachWithPrograms, "ports_behind_extension_headers", extended),
    test(On::EachWithPrograms, "refusals_at_confirmation_are_traced", at_confirmation),
    test(On::EachAlone, "a_refusal_in_tc_marks_no_later_drop", in_tc),
    test(On::Once, "a_trace_names_the_process_of_this_host", local),
];

const UDP: Flows = Flows::of(Family::V4, Protocol::Udp);

pub(crate) struct Trace {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// Nobody reads it, and it stays open.
    _said: BufReader<ChildStderr>,
}

impl Trace {
    pub(crate) fn start(args: &[&str]) -> Result<Self> {
        let mut child = ctwatch()?
            .args(["trace", "--output", "json", "--mechanism", mechanism::current().name()])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start ctwatch")?;
        let lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let mut said = BufReader::new(child.stderr.take().context("no errors")?);
        let mut first = String::new();
        said.read_line(&mut first)?;
        ensure!(first.contains("tracing drops"), "{first}");
        Ok(Self { child, lines, _said: said })
    }

    /// What was shown, how many more it was said there were, and how many in all.
    pub(crate) fn stop(self) -> Result<(Vec<Value>, u64, u64)> {
        let Traced { shown, more, refused, undecided } = self.end()?;
        ensure!(undecided == 0, "{undecided} are not told of, nor left out");
        Ok((shown, more, refused))
    }

    pub(crate) fn end(mut self) -> Result<Traced> {
        let pid = i32::try_from(self.child.id())?;
        // SAFETY: a signal to our own child, which has not been waited for.
        ensure!(unsafe { libc::kill(pid, libc::SIGINT) } == 0, "cannot stop it");
        let (mut shown, mut more, mut refused, mut undecided) = (Vec::new(), 0, None, 0);
        for line in self.lines.by_ref() {
            let object: Value = serde_json::from_str(&line?)?;
            more += object["more"].as_u64().unwrap_or(0);
            refused = object["dropped"].as_u64().or(refused);
            undecided += object["undecided"].as_u64().unwrap_or(0);
            if object["reason"].is_string() {
                shown.push(object);
            }
        }
        ensure!(self.child.wait()?.success(), "it failed");
        let refused = refused.context("it said nothing at the end")?;
        Ok(Traced { shown, more, refused, undecided })
    }
}

/// What a trace has said.
pub(crate) struct Traced {
    pub(crate) shown: Vec<Value>,
    pub(crate) more: u64,
    pub(crate) refused: u64,
    /// In namespaces that it had not looked at yet.
    pub(crate) undecided: u64,
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn each() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(50)?;
    let trace = Trace::start(&["--rate", "1000000", "--netns", lab.router().name()])?;
    let mut sent = HashSet::new();
    for family in [Family::V4, Family::V6] {
        let flows = Flows { sources: 5, services: 3, ..Flows::of(family, Protocol::Udp) };
        lab.send(&Flood::of(flows, 1000))?;
        sent.extend((0..1000).map(|index| flows.flow(index)));
    }
    let (shown, more, refused) = trace.stop()?;
    let verdict = judge::ask(lab.router())?;
    ensure!(
        verdict.drop > 1000 && (more, refused) == (0, verdict.drop),
        "{more} {refused}: {verdict:?}"
    );
    ensure!(
        shown.len() as u64 == verdict.drop,
        "{} shown of {refused}, {} of IPv6: {verdict:?}",
        shown.len(),
        shown.iter().filter(|o| o["src"].as_str().is_some_and(|s| s.contains(":"))).count()
    );
    for object in &shown {
        ensure!(matches!(object["reason"].as_str(), Some("table_full" | "untracked")), "{object}");
        let flow = flow_of(object)?;
        // Each was sent once, so each is refused at most once.
        ensure!(sent.remove(&flow), "{flow:?} was not sent, or told twice: {object}");
        ensure!(object["iface"] == "down0" && object["comm"] == Value::Null, "{object}");
        ensure!(object["netns"]["name"] == lab.router().name(), "{object}");
    }
    Ok(())
}

/// The flow of which a refusal tells.
fn flow_of(object: &Value) -> Result<Flow> {
    let of = |field: &str| object[field].as_str().context("an address");
    let port = |field: &str| object[field].as_u64().and_then(|port| u16::try_from(port).ok());
    Ok(Flow {
        src: of("src")?.parse()?,
        dst: of("dst")?.parse()?,
        sport: port("sport").context("a port")?,
        dport: port("dport").context("a port")?,
    })
}

/// IPv6's hop-by-hop and destination options stand before the ports.
fn extended() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(50)?;
    let flows = Flows { extended: true, services: 3, ..Flows::of(Family::V6, Protocol::Udp) };
    lab.send(&Flood::of(flows, 100))?;
    let name = lab.router().name();
    let wanted = ["--netns", name, "--proto", "udp", "--dport", "2", "--rate", "1000000"];
    let trace = Trace::start(&wanted)?;
    let before = judge::ask(lab.router())?.drop;
    lab.send(&Flood { first: 1 << 32, ..Flood::of(flows, 300) })?;
    let (shown, _, refused) = trace.stop()?;
    let dropped = judge::ask(lab.router())?.drop - before;
    ensure!(dropped > 250, "only {dropped} of 300 refused");
    ensure!(refused >= 80 && shown.len() as u64 == refused, "{refused} refused");
    let sent: HashSet<_> = (1 << 32..(1 << 32) + 300).map(|index| flows.flow(index)).collect();
    for object in &shown {
        let flow = flow_of(object)?;
        ensure!(flow.dport == 2 && sent.contains(&flow), "{object}");
    }
    Ok(())
}

fn filtered() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(50)?;
    lab.send(&Flood::of(Flows { protocol: Protocol::IcmpEcho, ..UDP }, 50))?;
    let flows = Flows { sources: 4, services: 4, ..UDP };
    let wanted = ["--src", "10.128.0.2/31", "--dport", "2", "--proto", "udp", "--rate", "10"];
    let trace = Trace::start(&wanted)?;
    let before = judge::ask(lab.router())?;
    lab.send(&Flood {
        first: 1 << 32,
        ..Flood::of(Flows { protocol: Protocol::TcpSyn, ..flows }, 160)
    })?;
    lab.send(&Flood::of(flows, 1600))?;
    let (shown, more, refused) = trace.stop()?;
    let verdict = judge::ask(lab.router())?;
    ensure!(verdict.drop - before.drop > 1500, "{verdict:?}");
    // Two of four sources, one of four services; a few found room.
    let room = 1760 - (verdict.drop - before.drop);
    ensure!((200 - room..=200).contains(&refused), "{refused} of 200, {room} found room");
    ensure!(shown.len() as u64 + more == refused, "{} and {more} are not {refused}", shown.len());
    // A flood may go on over the turn of a second, or two where it is emulated.
    ensure!((10..=60).contains(&shown.len()), "{} shown", shown.len());
    for object in &shown {
        let source = object["src"].as_str().context("no source")?;
        ensure!(["10.128.0.2", "10.128.0.3"].contains(&source) && object["dport"] == 2, "{object}");
    }
    Ok(())
}

/// Chains that are too long, where this kernel refuses for that, and NAT without ports: each as what
/// it is, if functions are hooked.
fn at_confirmation() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_buckets(512)?;
    lab.set_limit(1_000_000)?;
    let wanted = ["--rate", "1000000", "--netns", lab.router().name()];
    let told = |flows: Flows, packets: u64, reason: &str| -> Result<(usize, judge::Verdict)> {
        let trace = Trace::start(&wanted)?;
        lab.send(&Flood::of(flows, packets))?;
        let (shown, more, _) = trace.stop()?;
        let by_tracepoint = shown.iter().any(|object| object["reason"] == "unconfirmed");
        let reason = if by_tracepoint { "unconfirmed" } else { reason };
        let other = shown.iter().find(|object| object["reason"] != reason);
        ensure!(other.is_none() && more == 0, "not {reason}: {other:?}, {more} not shown");
        let named =
            shown.iter().all(|object| object["proto"] == "udp" && object["iface"] == "down0");
        ensure!(named, "{:?}", shown.first());
        Ok((shown.len(), judge::ask(lab.router())?))
    };
    let (shown, verdict) = told(Flows { sources: 100, ..UDP }, 30_000, "chain_too_long")?;
    ensure!(shown as u64 == verdict.chaintoolong, "{shown} shown: {verdict:?}");
    ensure!(shown > 0 || !judge::limits_chains()?, "no chain is too long: {verdict:?}");
    lab.router().run(&["conntrack", "-F"])?;
    lab.router().nft(
        "table ip nat { chain c { type nat hook postrouting priority srcnat;
         meta l4proto udp snat to 10.99.2.1:1000-1009; }\n }",
    )?;
    let before = verdict.insert_failed;
    let (shown, verdict) = told(Flows { sources: 1, ..UDP }, 500, "nat_exhausted")?;
    let failed = verdict.insert_failed - before;
    ensure!(shown as u64 == failed && failed > 400, "{shown} shown: {verdict:?}");
    Ok(())
}

/// What conntrack refuses within act_ct is dropped by tc, and before Linux 6.11 by nobody. A rule drops
/// the packet that comes next on that CPU, in the same namespace: that is no refusal.
fn in_tc() -> Result<()> {
    // Not only by tc: what passes there is refused once more.
    in_tc_with(Plan::fresh(), |lab| {
        lab.send(&Flood::of(Flows { protocol: Protocol::IcmpEcho, ..UDP }, 50))?;
        let chain = "type filter hook prerouting priority raw";
        lab.router().nft(&format!("table ip raw {{ chain c {{ {chain}; udp dport 2 drop; }}\n }}"))
    })?;
    // Rules of iptables are in the function that also drops for conntrack.
    in_tc_with(Plan::without_tracking(), |lab| {
        let rule = "iptables-legacy -t raw -A PREROUTING -p udp --dport 2 -j DROP";
        lab.router().run(&rule.split(' ').collect::<Vec<_>>()).map(|_| ())
    })
}

fn in_tc_with(plan: Plan, rule: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    let mut lab = Lab::new(plan)?;
    let outcome = through_tc(&mut lab, plan, rule);
    lab.router().run(&["tc", "qdisc", "del", "dev", "down0", "clsact"])?;
    drop(lab);
    unload("act_ct")?;
    outcome
}

fn through_tc(lab: &mut Lab, plan: Plan, rule: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    const TO_TC: u16 = 1;
    lab.set_limit(50)?;
    lab.keep_entries()?;
    for words in [
        "tc qdisc add dev down0 clsact",
        "tc filter add dev down0 ingress protocol ip flower ip_proto udp dst_port 1 action ct commit",
    ] {
        lab.router().run(&words.split(' ').collect::<Vec<_>>())?;
    }
    rule(lab)?;
    let trace = Trace::start(&["--rate", "1000000", "--netns", lab.router().name()])?;
    let before = judge::ask(lab.router())?.drop;
    // The two take turns.
    lab.send(&Flood { first: 1 << 32, ..Flood::of(Flows { services: 2, ..UDP }, 1000) })?;
    let (shown, ..) = trace.stop()?;
    let refused = judge::ask(lab.router())?.drop - before;
    ensure!(refused > 400, "only {refused} of 500 refused within tc");
    let later = shown.iter().filter(|object| object["dport"] != TO_TC);
    let wrong: Vec<_> = later.filter(|object| object["reason"] == "table_full").collect();
    ensure!(wrong.is_empty(), "{} of 500, {plan:?}: {:?}", wrong.len(), wrong.first());
    Ok(())
}

fn local() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(10)?;
    lab.set_buckets(1 << 18)?;
    lab.send(&Flood::of(Flows { protocol: Protocol::IcmpEcho, ..UDP }, 100))?;
    let trace = Trace::start(&["--rate", "100000"])?;
    let own = connect_locally(lab.router(), Family::V4, 20)?;
    let (shown, ..) = trace.stop()?;
    ensure!(own.refused > 10 && shown.len() >= usize::try_from(own.refused)?, "{own:?} {shown:?}");
    let me = std::fs::read_to_string("/proc/self/comm")?;
    let mine = shown.iter().filter(|object| object["pid"] == std::process::id());
    ensure!(mine.count() >= 10, "{me}: {shown:?}");
    Ok(())
}
