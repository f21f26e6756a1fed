//! Unprivileged users make namespaces, fill their tables and flood them: that is no matter of the
//! host's.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use ctwatch_lab::{
    Lab, STAYS_FULL, judge,
    netns::Netns,
    strangers::{self, Stranger},
    topology::TRACKING,
    traffic::{Family, Flood, Flows, Protocol},
};
use serde_json::Value;

use crate::{
    On, Test,
    doctor::report,
    mechanism::{self, Mechanism, holds, nothing_lost},
    test,
    trace::{Trace, Traced},
    watch::{Background, Watch, agrees_with, ctwatch, finished, named, table},
};

pub(crate) const TESTS: &[Test] = &[
    test(On::Once, "1100_namespaces_of_strangers_crowd_nobody_out", crowd),
    test(On::Once, "a_strangers_flood_is_no_alarm", flood),
    test(On::Once, "namespaces_are_chosen_by_pattern", patterns).anywhere(),
    test(On::EachWithPrograms, "a_trace_tells_strangers_from_the_host", traced),
    test(On::EachWithPrograms, "a_trace_follows_a_pattern", traced_by_pattern),
];

const UDP: Flows = Flows::of(Family::V4, Protocol::Udp);
/// `nobody`, and another one.
const UIDS: [u32; 2] = [65_534, 54_321];

fn of_owner(object: &Value, uid: u32) -> Vec<&Value> {
    let tables = object["tables"].as_array().map(Vec::as_slice).unwrap_or_default();
    tables.iter().filter(|table| table["netns"]["owner"] == uid).collect()
}

fn check(args: &[&str]) -> Result<(String, Option<i32>)> {
    let (text, errors, code) = finished(ctwatch()?.args(["check", "--for", "300ms"]).args(args))?;
    ensure!(errors.is_empty(), "{errors}");
    Ok((text, code))
}

/// Whose it is, and that it decides alarms.
fn is_hosts(object: &Value, netns: &Netns) -> Result<()> {
    let table = table(object, netns)?;
    ensure!(table["netns"]["owner"] == "host" && table["judged"] == true, "{table}");
    Ok(())
}

fn crowd() -> Result<()> {
    const LIMIT: u32 = 20;
    const PACKETS: u16 = 40;
    let mut lab = Lab::new(ctwatch_lab::Plan::default())?;
    lab.keep_entries()?;
    lab.set_limit(LIMIT)?;
    let (text, code) = check(&[])?;
    ensure!(code == Some(0), "before anything happens: {code:?} {text}");
    let mut before = Watch::start(&["--interval", "1s"])?;
    let mut strangers = Vec::new();
    for uid in UIDS {
        let plan = strangers::Plan { uid, namespaces: 550, packets: PACKETS, flood: false };
        let stranger = Stranger::start(plan)?;
        ensure!(stranger.refused > 550 * 10, "only {} refused", stranger.refused);
        strangers.push(stranger);
    }
    let (text, code) = check(&[])?;
    ensure!(code == Some(0), "{code:?} {text}");
    ensure!(text.contains("1100 namespaces of unprivileged users not judged"), "{text}");
    // The host's own comes after them, and counts after them.
    let late = lab.add_netns("late")?;
    late.nft(TRACKING)?;
    late.run(&["ip", "link", "set", "lo", "up"])?;
    before.until(|object| table(object, &late).is_ok())?;
    let mut after = Watch::start(&["--interval", "1s"])?;
    let sent = lab.send(&Flood::of(UDP, 2000))?;
    late.within(|| -> Result<()> {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
        for port in 1..=10 {
            socket.send_to(b"x", ("127.0.0.1", port))?;
            // Each answer is an error of the socket's.
            let _ = socket.take_error();
        }
        Ok(())
    })??;
    let verdict = judge::ask(lab.router())?;
    ensure!(verdict.drop > 1000, "{verdict:?}");
    // Where to look through all processes takes long it is done seldom, and may have been done last
    // before any of them came.
    for (watch, least) in [(&mut before, 0), (&mut after, 550)] {
        let object = watch.fresh()?;
        for uid in UIDS {
            let theirs = of_owner(&object, uid);
            ensure!(theirs.len() >= least, "{} of uid {uid}", theirs.len());
            ensure!(theirs.iter().all(|table| table["judged"] == false));
        }
        let tables = object["tables"].as_array().context("no tables")?;
        let first = tables.iter().position(|table| table["judged"] == false);
        let last = tables.iter().rposition(|table| table["judged"] == true);
        ensure!(last < first, "strangers come last: {first:?} {last:?}");
    }
    for watch in [before, after] {
        let last = watch.stop()?;
        agrees_with(table(&last, lab.router())?, &verdict, sent.arrived - verdict.drop)?;
        holds(table(&last, &late)?, "/insertions", 10)?;
        holds(table(&last, &late)?, "/drops/table_full", 0)?;
        is_hosts(&last, lab.router())?;
        is_hosts(&last, &late)?;
        nothing_lost(&last)?;
    }
    Ok(())
}

fn first_finding(report: &Value) -> Result<String> {
    Ok(report["findings"][0].as_object().context("no findings")?["title"].to_string())
}

fn flood() -> Result<()> {
    let mut lab = Lab::new(ctwatch_lab::Plan::default())?;
    lab.keep_entries()?;
    lab.set_limit(STAYS_FULL)?;
    let (text, code) = check(&[])?;
    ensure!(code == Some(0), "before anything happens: {code:?} {text}");
    let quiet = report(&[])?;
    let uid = UIDS[1];
    let _stranger =
        Stranger::start(strangers::Plan { uid, namespaces: 1, packets: 500, flood: true })?;
    let mut watch = Watch::start(&[])?;
    let is_full = |object: &Value| {
        of_owner(object, uid).iter().any(|table| {
            table["saturated"] == true && table["drops"]["table_full"]["per_s"].as_f64() > Some(0.0)
        })
    };
    watch.until(is_full).context("the stranger's table is not full")?;
    let (text, code) = check(&[])?;
    ensure!(code == Some(0) && text.contains("2 namespaces of unprivileged users"), "{text}");
    ensure!(!text.contains(" dropped "), "{text}");
    let metrics = text.split_once('|').map_or("", |(_, metrics)| metrics);
    ensure!(!metrics.contains("netns"), "{text}");
    // Who asks for them is told.
    for whose in [&["--owner", "all"][..], &["--owner", "54321"]] {
        let (text, code) = check(whose)?;
        ensure!(code == Some(2), "{whose:?}: {code:?} {text}");
    }
    let mut text = Background::start(ctwatch()?.args(["watch", "-i", "200ms"]))?;
    let line = format!("uid {uid}: ");
    text.until(|text| text.matches(&line).count() > 2)?;
    let (text, errors, code) = text.interrupt()?;
    ensure!(code == Some(0) && !text.contains("***"), "{code:?} {errors} {text}");
    // The doctor finds what it found before, and the stranger last.
    let loud = report(&[])?;
    let ids = |report: &Value| -> Vec<Value> {
        let all = report["findings"].as_array().cloned().unwrap_or_default();
        all.iter().map(|finding| finding["id"].clone()).collect()
    };
    let (mut quiet, loud) = (ids(&quiet), ids(&loud));
    quiet.push("others".into());
    ensure!(quiet == loud, "{quiet:?} {loud:?}");
    // The host's own table fills meanwhile.
    let sent = lab.send(&Flood::of(UDP, 2000))?;
    let verdict = judge::ask(lab.router())?;
    let last = watch.stop()?;
    agrees_with(table(&last, lab.router())?, &verdict, sent.arrived - verdict.drop)?;
    let first = first_finding(&report(&[])?)?;
    ensure!(first.contains(lab.router().name()), "{first}");
    let (text, code) = check(&[])?;
    ensure!(code == Some(2) && text.contains(lab.router().name()), "{code:?} {text}");
    Ok(())
}

fn patterns() -> Result<()> {
    let mut lab = Lab::new(ctwatch_lab::Plan::default())?;
    let made = lab.add_many(&["pod1", "pod2", "podx"])?;
    let [first, second, third] = made.as_slice() else { anyhow::bail!("{made:?}") };
    let like = first.name().replace("pod1", "pod*");
    let not = format!("!{}", third.name());
    let mut watch = Watch::start(&["--netns", &like, "--netns", &not])?;
    let names = |object: &Value| -> Vec<String> {
        let tables = object["tables"].as_array().cloned().unwrap_or_default();
        let mut names: Vec<String> =
            tables.iter().filter_map(|t| Some(t["netns"]["name"].as_str()?.to_owned())).collect();
        names.sort();
        names
    };
    let object = watch.next()?;
    ensure!(names(&object) == [first.name(), second.name()], "{:?}", names(&object));
    // One that comes later is called like that too.
    let later = lab.add_netns("podlater")?;
    watch.until(|object| named(object, later.name()).is_ok())?;
    watch.stop()?;
    let object = Watch::start(&["--netns", first.name(), "--netns", third.name()])?.stop()?;
    ensure!(names(&object) == [first.name(), third.name()], "{:?}", names(&object));
    let object = Watch::start(&["--netns", &format!("!{like}")])?.stop()?;
    ensure!(table(&object, lab.router()).is_ok(), "{:?}", names(&object));
    ensure!(!names(&object).iter().any(|name| name.contains("pod")), "{:?}", names(&object));
    Ok(())
}

/// What is shown of refusals with this, while both the host's table and a stranger's refuse.
fn traced() -> Result<()> {
    let mut lab = Lab::new(ctwatch_lab::Plan::default())?;
    lab.set_limit(50)?;
    let uid = UIDS[1];
    let traces = [&[][..], &["--owner", "host"], &["--owner", "54321"], &["--owner", "1"]]
        .map(|args| Trace::start(&[&["--rate", "1000000"], args].concat()));
    let plan = strangers::Plan { uid, namespaces: 1, packets: 200, flood: false };
    let stranger = Stranger::start(plan)?;
    ensure!(stranger.refused > 50, "only {} refused", stranger.refused);
    lab.send(&Flood::of(UDP, 500))?;
    let drop = judge::ask(lab.router())?.drop;
    ensure!(drop > 300, "{drop}");
    let counts = traces.map(|trace| -> Result<[u64; 3]> {
        let (shown, more, refused) = trace?.stop()?;
        ensure!((more, refused) == (0, shown.len() as u64), "{more} more of {refused}");
        let of = |owner: Value| {
            shown.iter().filter(|object| object["netns"]["owner"] == owner).count() as u64
        };
        let router = |object: &&Value| object["netns"]["name"] == lab.router().name();
        let routers = shown.iter().filter(router);
        ensure!(routers.clone().all(|object| object["netns"]["owner"] == "host"));
        Ok([routers.count() as u64, of("host".into()), of(uid.into())])
    });
    let [all, hosts, strangers, none] = counts;
    let (all, hosts, strangers, none) = (all?, hosts?, strangers?, none?);
    let told = format!("{drop} dropped, {} of the stranger's", stranger.refused);
    // While one kprobe runs, the kernel runs no other on that CPU.
    let misses = if mechanism::current() == Mechanism::Kprobe { 3 } else { 0 };
    let refused = stranger.refused.saturating_sub(misses);
    ensure!(all[0] == drop && all[2] >= refused, "{all:?}: {told}");
    ensure!(hosts[0] == drop && hosts[2] == 0, "{hosts:?}, {drop} dropped");
    ensure!(strangers[..2] == [0, 0] && strangers[2] >= refused, "{strangers:?}: {told}");
    ensure!(none == [0; 3], "{none:?}");
    Ok(())
}

/// One that comes later is called like the pattern. Until it is looked at, it is said that it is not
/// known whether it is meant.
fn traced_by_pattern() -> Result<()> {
    let mut lab = Lab::new(ctwatch_lab::Plan::default())?;
    lab.set_limit(50)?;
    let late = format!("{}*", lab.router().name().replace("rt", "late"));
    let not = format!("!{}", lab.router().name());
    let traces = [&["--netns", &late, "--netns", lab.router().name()][..], &["--netns", &not]]
        .map(|args| Trace::start(&[&["--rate", "1000000"], args].concat()));
    let [with, without] = traces;
    let (with, without) = (with?, without?);
    // Nobody reads before the end, so all of it must fit into a pipe.
    lab.send(&Flood::of(UDP, 100))?;
    let drop = judge::ask(lab.router())?.drop;
    ensure!(drop > 30, "{drop}");
    let netns = lab.add_netns("late")?;
    ensure!(late.strip_suffix('*') == Some(netns.name()), "{late} {}", netns.name());
    netns.nft(TRACKING)?;
    netns.run(&["ip", "link", "set", "lo", "up"])?;
    let send = || {
        netns.within(|| -> Result<()> {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
            for port in 1..=100 {
                // Some are refused, and others are answered with an error.
                let _ = socket.send_to(b"x", ("127.0.0.1", port));
            }
            Ok(())
        })?
    };
    send()?;
    // It is looked at once a second.
    thread::sleep(Duration::from_millis(2500));
    send()?;
    let drops = judge::ask(&netns)?.drop;
    ensure!(drops > 120, "{drops}");
    let (with, without) = (with.end()?, without.end()?);
    let count = |traced: &Traced, netns: &Netns| {
        let shown = traced.shown.iter();
        shown.filter(|object| object["netns"]["name"] == netns.name()).count() as u64
    };
    for traced in [&with, &without] {
        let shown = count(traced, &netns);
        ensure!(
            shown > drops / 3,
            "{shown} of {drops}, {} {:?}",
            traced.undecided,
            traced.shown.last()
        );
        ensure!(shown + traced.undecided == drops, "{shown} of {drops}, {}", traced.undecided);
    }
    ensure!((count(&with, lab.router()), count(&without, lab.router())) == (drop, 0));
    let all = [&with, &without].map(|traced| (traced.more, traced.refused));
    ensure!(all == [(0, with.shown.len() as u64), (0, without.shown.len() as u64)], "{all:?}");
    Ok(())
}
