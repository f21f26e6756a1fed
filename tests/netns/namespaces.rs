//! Namespaces come and go while ctwatch runs.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ctwatch_lab::{
    Lab, Plan, STAYS_FULL,
    crowd::Crowd,
    judge,
    netns::Netns,
    traffic::{Family, Flood, Flows, Protocol},
};
use serde_json::Value;

use crate::{
    On, Test,
    mechanism::holds,
    test,
    watch::{Background, Watch, ctwatch, finished, named, table},
};

pub(crate) const TESTS: &[Test] = &[
    test(On::EachWithPrograms, "made_saturated_and_deleted_meanwhile", comes_and_goes),
    test(On::Once, "two_hundred_idle_namespaces", many).anywhere(),
    test(On::Once, "a_deleted_namespace_is_told_of_once", gone_once),
    test(On::Once, "idle_namespaces_are_read_in_turns", idle_in_turns),
    test(On::Once, "thousands_of_namespaces_are_counted", thousands),
    test(On::Once, "one_namespace_by_name_and_by_inode", one).anywhere(),
    test(On::Once, "every_namespace_can_be_named", every_name).anywhere(),
    test(On::Once, "a_namespace_deleted_under_watch_is_really_gone", not_kept_alive),
    test(On::Once, "a_scope_never_turns_to_a_stranger", stranger),
    test(On::Once, "hostile_names_cannot_speak_to_the_terminal", hostile).anywhere(),
    test(On::Once, "nor_can_hostile_interfaces_and_processes", hostile_talkers).anywhere(),
];

const UDP: Flows = Flows::of(Family::V4, Protocol::Udp);

fn reachable(object: &Value, netns: &Netns) -> Option<bool> {
    table(object, netns).ok()?["reachable"].as_bool()
}

fn comes_and_goes() -> Result<()> {
    let mut watch = Watch::start(&[])?;
    let mut lab = Lab::new(Plan::fresh())?;
    lab.set_limit(STAYS_FULL)?;
    let sent = lab.send(&Flood::of(UDP, 2000))?;
    let verdict = judge::ask(lab.router())?;
    let router = lab.router().clone();
    let seen = |object: &Value| {
        table(object, &router).is_ok_and(|table| table["insertions"]["total"] != 0)
    };
    watch.until(seen).context("nothing was inserted")?;
    // What was counted by then is known from before it went.
    watch.fresh()?;
    drop(lab);
    let gone = |object: &Value| reachable(object, &router) == Some(false);
    let mut last = watch.until(gone).context("it is still there")?;
    // The kernel takes a namespace down in its own time.
    let inserted = sent.arrived - verdict.drop;
    // A kprobe that was missed, where the kernel does not say so, leaves a bound for ever.
    let mut told = last.clone();
    let mut ended = |object: &Value| {
        table(object, &router).is_ok_and(|table| {
            told.clone_from(object);
            let is_bound = table["removals"]["exactness"] != "exact";
            table["removals"]["total"] == inserted || table["gone"] == true && is_bound
        })
    };
    // Where it has done so by then, it is told of that once.
    if !ended(&last) {
        let outcome = watch.until(ended);
        last = outcome.with_context(|| {
            let told = table(&told, &router).map(|table| table.to_string());
            format!("not all entries ended: {sent:?} {verdict:?} {told:?}")
        })?;
    }
    let table = table(&last, &router)?;
    holds(table, "/drops/table_full", verdict.drop)?;
    holds(table, "/insertions", inserted)?;
    holds(table, "/removals", inserted)?;
    watch.stop().map(|_| ())
}

/// Each is told of once more when it is gone, and what happened in it is not lost.
fn gone_once() -> Result<()> {
    const MANY: usize = 40;
    let mut watch = Watch::start(&[])?;
    let mut lab = Lab::new(Plan::default())?;
    let crowd = Crowd::new(&mut lab, MANY)?;
    let members: Vec<Netns> = crowd.netns().cloned().collect();
    lab.set_limit(1)?;
    crowd.enter(MANY)?;
    crowd.refuse(MANY)?;
    lab.set_limit(100_000)?;
    let dropped: u64 = crowd.verdicts()?.iter().map(|verdict| verdict.drop).sum();
    ensure!(dropped > MANY as u64 / 2, "only {dropped} of {MANY} dropped one");
    // What was never read of a namespace's counters goes with it.
    let all_read = |object: &Value| {
        let tables: Vec<_> = members.iter().filter_map(|netns| table(object, netns).ok()).collect();
        let read = tables.iter().filter_map(|table| table["dropped"]["at_least"].as_u64());
        tables.len() == MANY && read.sum::<u64>() >= dropped
    };
    watch.until(all_read)?;
    // Its sockets would keep it alive.
    drop(crowd);
    members.iter().try_for_each(|netns| lab.remove_netns(netns))?;
    let mut last: BTreeMap<String, Value> = BTreeMap::new();
    let object = watch.until(|object| {
        for netns in &members {
            if let Ok(table) = table(object, netns)
                && table["gone"] == true
                && last.insert(netns.name().to_owned(), table.clone()).is_some()
            {
                return true;
            }
        }
        last.len() == MANY
    })?;
    ensure!(last.len() == MANY, "one is gone twice: {object}");
    for _ in 0..5 {
        let object = watch.next()?;
        let again = members.iter().find(|netns| table(&object, netns).is_ok());
        ensure!(again.is_none(), "{again:?} comes again: {object}");
        ensure!(object["gone"]["namespaces"].as_u64() >= Some(MANY as u64), "{}", object["gone"]);
        ensure!(object["gone"]["dropped"]["at_least"].as_u64() >= Some(dropped), "{object}");
    }
    let told: u64 =
        last.values().filter_map(|table| table["drops"]["table_full"]["total"].as_u64()).sum();
    ensure!(told == dropped, "{told} of {dropped} refusals were told of");
    watch.stop().map(|_| ())
}

/// What a tick costs follows what changes: idle namespaces are read in turns, and their age is told.
fn idle_in_turns() -> Result<()> {
    const MANY: usize = 400;
    const OLDEST: f64 = 10.0;
    let mut lab = Lab::new(Plan::default())?;
    let crowd = Crowd::new(&mut lab, MANY)?;
    let mut watch = Watch::start(&["--interval", "200ms"])?;
    let age = |table: &Value| table["age_s"].as_f64().unwrap_or(f64::NAN);
    // Each is read twice before it is known to be idle.
    for _ in 0..3 {
        watch.next()?;
    }
    let members: Vec<Netns> = crowd.netns().cloned().collect();
    let (mut read, mut ticks) = (0, 0);
    let until = Instant::now() + Duration::from_secs(12);
    while Instant::now() < until {
        let object = watch.next()?;
        let interval = object["interval_s"].as_f64().context("no interval")?;
        for netns in &members {
            let age = age(table(&object, netns)?);
            ensure!(age <= OLDEST + interval, "{} was read {age} s ago", netns.name());
            read += u32::from(age < interval / 2.0);
        }
        ticks += 1;
    }
    let each = f64::from(read) / f64::from(ticks);
    ensure!(each > 0.0 && each < MANY as f64 / 4.0, "{each} of {MANY} are read at each tick");
    // Where something happens, that is told at once, and to the packet.
    const FEW: usize = 5;
    lab.set_limit(1)?;
    crowd.enter(FEW)?;
    crowd.refuse(FEW)?;
    let object = watch.fresh()?;
    lab.set_limit(100_000)?;
    for (netns, verdict) in members[..FEW].iter().zip(crowd.verdicts()?) {
        let table = table(&object, netns)?;
        ensure!(age(table) < 0.2, "{table}");
        holds(table, "/drops/table_full", verdict.drop)?;
    }
    watch.stop().map(|_| ())
}

/// More than there was room for once, each counted to the packet.
fn thousands() -> Result<()> {
    const MANY: usize = 1_200;
    let mut lab = Lab::new(Plan::default())?;
    let crowd = Crowd::new(&mut lab, MANY)?;
    let mut watch = Watch::start(&["--interval", "1s"])?;
    lab.set_limit(1)?;
    crowd.enter(MANY)?;
    crowd.refuse(MANY)?;
    lab.set_limit(100_000)?;
    watch.next()?;
    let last = watch.stop()?;
    ensure!(last["lost"] == 0, "{} lost", last["lost"]);
    for (netns, verdict) in crowd.netns().zip(crowd.verdicts()?) {
        let table = table(&last, netns)?;
        holds(table, "/drops/table_full", verdict.drop)?;
        // One that was thrown out made room for another.
        holds(table, "/insertions", 1 + verdict.early_drop)?;
    }
    Ok(())
}

fn many() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    let roles: Vec<String> = (0..200).map(|number| format!("idle{number}")).collect();
    let roles: Vec<&str> = roles.iter().map(String::as_str).collect();
    let idle = lab.add_many(&roles)?;
    let mut watch = Watch::start(&[])?;
    let object = watch.next()?;
    for netns in &idle {
        let table = table(&object, netns)?;
        ensure!(table["entries"] == 0 && table["netns"]["inode"] == netns.inode()?, "{table}");
    }
    watch.stop().map(|_| ())
}

fn one() -> Result<()> {
    let lab = Lab::new(Plan::default())?;
    let inode = lab.router().inode()?.to_string();
    for wanted in [lab.router().name(), &inode] {
        let object = Watch::start(&["--netns", wanted])?.stop()?;
        let tables = object["tables"].as_array().context("no tables")?;
        ensure!(tables.len() == 1, "{} tables for {wanted}", tables.len());
        table(&object, lab.router())?;
    }
    Ok(())
}

/// Also one that is called as a number is, or as `all` is, or as another is that `ip netns` does not
/// know; and what other tools print is taken.
fn every_name() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    let others = lab.add_many(&["other", "third"])?;
    let (wanted, other, third) = (lab.router(), &others[0], &others[1]);
    let (inode, stranger) = (wanted.inode()?, other.inode()?);
    // As a mount namespace of its own sees it.
    let mounts = format!(
        "mount -t tmpfs none /mnt
         mkdir -p /mnt/a /mnt/b /mnt/netns
         cd /mnt
         touch netns/4711 netns/777 netns/all netns/{stranger} a/twin b/twin a/777 a/{inode}
         mount --bind {wanted} netns/4711
         mount --bind {wanted} netns/777
         mount --bind {wanted} netns/all
         mount --bind {wanted} netns/{stranger}
         mount --bind {other} a/777
         mount --bind {other} a/twin
         mount --bind {third} b/twin
         mount --rbind netns /run/netns
         exec \"$@\"",
        wanted = wanted.path().display(),
        other = other.path().display(),
        third = third.path().display(),
    );
    let run = |args: &[&str], name: &str| -> Result<(String, String, Option<i32>)> {
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "sh", "-ec", &mounts, "sh", "timeout", "--signal=KILL", "20"]);
        command.arg(ctwatch()?.get_program()).args(args);
        finished(command.args(["--netns", name]))
    };
    let named = |name: &str, inode: u64| -> Result<()> {
        let (json, errors, code) = run(&["watch", "-i", "100ms", "-n", "1", "-o", "json"], name)?;
        ensure!(code == Some(0), "{name}: {code:?} {errors}");
        let object: Value = serde_json::from_str(&json)?;
        let tables = object["tables"].as_array().context("no tables")?;
        ensure!(tables.len() == 1, "{name}: {object}");
        ensure!(tables[0]["netns"]["inode"] == inode, "{name}: {}", tables[0]);
        Ok(())
    };
    for name in ["4711", "777", "name:777", "name:all", "/run/netns/777", "/mnt/netns/4711"] {
        named(name, inode)?;
    }
    let by_number = [format!("inode:{inode}"), format!("net:[{inode}]"), inode.to_string()];
    by_number.iter().try_for_each(|name| named(name, inode))?;
    // A name wins; what can be nothing but a number does not.
    named(&stranger.to_string(), inode)?;
    named(&format!("net:[{stranger}]"), stranger)?;
    named("/mnt/a/777", stranger)?;
    let host = std::fs::metadata("/proc/self/ns/net")?;
    named("/proc/self/ns/net", std::os::unix::fs::MetadataExt::ino(&host))?;
    let (_, errors, code) = run(&["watch"], "twin")?;
    let both = format!("/mnt/a/twin (inode {stranger}), /mnt/b/twin (inode {})", third.inode()?);
    ensure!(code == Some(1) && errors.contains(&both), "{code:?} {errors}");
    named("/mnt/a/twin", stranger)?;
    named("/mnt/b/twin", third.inode()?)?;
    for name in ["4711", "/run/netns/777", "name:all"] {
        for args in [&["census"][..], &["check", "--for", "100ms", "-c", "99%"], &["doctor"]] {
            let (out, errors, code) = run(args, name)?;
            ensure!(code == Some(0), "{args:?} {name}: {code:?} {out}{errors}");
        }
        // It waits for a refusal, until its time is over.
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "sh", "-ec", &mounts, "sh", "timeout", "2"]);
        command.arg(ctwatch()?.get_program()).args(["trace", "--netns", name]);
        let (_, errors, _) = finished(&mut command)?;
        ensure!(errors.contains("tracing drops"), "trace {name}: {errors}");
    }
    Ok(())
}

/// The inode number of a namespace that is gone is used again at once,
/// unless something else on the machine was faster: then another is tried.
fn stranger() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    let mut others = Vec::new();
    for by_inode in [false, true] {
        for attempt in 0.. {
            ensure!(attempt < 4, "no number is used again: {others:?}");
            let kind = u8::from(by_inode);
            let wanted = lab.add_netns(&format!("wanted{kind}x{attempt}"))?;
            let number = wanted.inode()?.to_string();
            let name = if by_inode { &number } else { wanted.name() };
            let mut watch = Watch::start(&["--netns", name])?;
            watch.until(|object| reachable(object, &wanted) == Some(true))?;
            let again = used_again(&mut lab, &wanted, &mut others)?;
            if let Some(other) = &again {
                is_not_told(&mut watch, &wanted, other)?;
            }
            watch.stop()?;
            if again.is_some() {
                break;
            }
        }
    }
    Ok(())
}

/// A new namespace with the number of `wanted`, which is removed.
fn used_again(lab: &mut Lab, wanted: &Netns, others: &mut Vec<u64>) -> Result<Option<Netns>> {
    let inode = wanted.inode()?;
    lab.remove_netns(wanted)?;
    let until = Instant::now() + Duration::from_secs(20);
    while Instant::now() < until {
        let other = lab.add_netns(&format!("other{}", others.len()))?;
        others.push(other.inode()?);
        if other.inode()? == inode {
            return Ok(Some(other));
        }
        // The kernel takes the old one down in its own time.
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(None)
}

fn is_not_told(watch: &mut Watch, wanted: &Netns, other: &Netns) -> Result<()> {
    other.nft(ctwatch_lab::topology::TRACKING)?;
    other.run(&["ip", "link", "set", "lo", "up"])?;
    other.within(|| {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
        socket.send_to(b"x", "127.0.0.1:9").map(|_| ())
    })??;
    ensure!(judge::ask(other)?.entries > 0, "nothing is tracked there");
    let object = watch.fresh()?;
    let tables = object["tables"].as_array().context("no tables")?;
    for table in tables {
        ensure!(table["netns"]["name"] == wanted.name(), "a stranger: {table}");
        ensure!(table["reachable"] == false && table["entries"].is_null(), "{table}");
    }
    Ok(())
}

fn not_kept_alive() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    let netns = lab.add_netns("short")?;
    let mut watch = Watch::start(&[])?;
    watch.until(|object| reachable(object, &netns) == Some(true))?;
    // A veth pair lives as long as the namespace of its one end, and no longer.
    let far = lab.client();
    far.run(&[
        "ip",
        "link",
        "add",
        "peer0",
        "type",
        "veth",
        "peer",
        "name",
        "p",
        "netns",
        netns.name(),
    ])?;
    lab.remove_netns(&netns)?;
    let until = Instant::now() + Duration::from_secs(20);
    while Instant::now() < until {
        watch.next()?;
        if far.run(&["ip", "link", "show", "peer0"]).is_err() {
            return watch.stop().map(|_| ());
        }
    }
    anyhow::bail!("the namespace is still alive twenty seconds after it was deleted")
}

fn hostile() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    let netns = lab.add_netns("\u{1b}[31mred\u{9b}1m\u{202e}")?;
    netns.nft(ctwatch_lab::topology::TRACKING)?;
    netns.run(&["ip", "link", "set", "lo", "up"])?;
    netns.within(|| {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
        socket.send_to(b"x", "127.0.0.1:9").map(|_| ())
    })??;
    let (text, errors, code) = finished(ctwatch()?.args(["-i", "200ms", "-n", "2"]))?;
    ensure!(code == Some(0), "{code:?} {errors}");
    ensure!(text.contains("\\u{1b}[31mred"), "{text}");
    ensure!(!text.contains(['\u{1b}', '\u{9b}']), "{text:?}");
    let mut command = ctwatch()?;
    let (json, _, _) = finished(command.args(["-i", "200ms", "-n", "1", "--output", "json"]))?;
    ensure!(!json.contains(['\u{1b}', '\u{9b}']), "{json:?}");
    let object: Value = serde_json::from_str(&json)?;
    named(&object, netns.name()).map(|_| ())
}

/// Lists and single refusals name interfaces and processes, and whoever made those chose the
/// names.
fn hostile_talkers() -> Result<()> {
    const INTERFACE: &str = "\u{1b}[7m\u{9b}0m";
    const PROCESS: &std::ffi::CStr = c"\x1b]0;x\x07\nroot#";
    let mut lab = Lab::new(Plan::fresh())?;
    lab.set_limit(5)?;
    lab.send(&Flood::of(UDP, 10))?;
    let (client, router) = (lab.client().clone(), lab.router().clone());
    let peer = ["peer", "name", "up1", "netns", client.name()];
    let link = [&["ip", "link", "add", INTERFACE, "type", "veth"], &peer[..]].concat();
    router.run(&link)?;
    router.run(&["ip", "addr", "add", "10.98.0.1/24", "dev", INTERFACE])?;
    router.run(&["ip", "link", "set", INTERFACE, "up"])?;
    client.run(&["ip", "addr", "add", "10.98.0.2/24", "dev", "up1"])?;
    client.run(&["ip", "link", "set", "up1", "up"])?;
    let watch = Background::start(ctwatch()?.args(["watch", "-i", "200ms", "--top", "9"]))?;
    let mut trace = ctwatch()?;
    // It has nothing to say before the first refusal, which is in a moment.
    let trace =
        std::thread::spawn(move || finished(trace.args(["trace", "--rate", "10000", "-n", "500"])));
    let talk = |netns: &Netns, host: &str| {
        netns.within(|| {
            // SAFETY: a string that ends with a zero, to name this thread.
            unsafe { libc::prctl(libc::PR_SET_NAME, PROCESS.as_ptr()) };
            let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
            for port in 1..100 {
                // Refused by the router itself, or on the way.
                let _ = socket.send_to(b"x", (host, port));
            }
            std::io::Result::Ok(())
        })
    };
    for _ in 0..100 {
        if trace.is_finished() {
            break;
        }
        talk(&client, "10.98.0.1")??;
        talk(&router, "10.100.0.9")??;
        std::thread::sleep(Duration::from_millis(200));
    }
    let (lists, errors, code) = watch.interrupt()?;
    ensure!(code == Some(0), "{code:?} {errors}");
    let (traced, errors, code) = trace.join().map_err(|_| anyhow::anyhow!("it panicked"))??;
    ensure!(code == Some(0), "{code:?} {errors}");
    for (what, text) in [("watch", lists), ("trace", traced)] {
        ensure!(!text.contains(['\u{1b}', '\u{9b}', '\u{7}']), "{what}: {text:?}");
        ensure!(text.contains("\\u{1b}[7m"), "{what} names no interface: {text}");
        ensure!(text.contains("\\u{1b}]0;x"), "{what} names no process: {text}");
        ensure!(!text.lines().any(|line| line.starts_with("root#")), "{what}: {text}");
    }
    Ok(())
}
