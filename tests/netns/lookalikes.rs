//! What looks like a full table and is something else, provoked for real: the doctor names the right
//! one.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Seek, Write},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use ctwatch::host::netns::allowances;
use ctwatch_lab::{
    Lab, Plan, judge,
    netns::Netns,
    traffic::{Family, Flood, Flows, Protocol},
};
use serde_json::Value;

use crate::{
    On, Test,
    advice::Files,
    doctor::{fix, found, report, type_in},
    mechanism::{self, Mechanism},
    test,
    watch::{Watch, ctwatch, table},
};

pub(crate) const TESTS: &[Test] = &[
    test(On::Once, "the_doctor_and_nat_without_ports", ports),
    test(On::Once, "the_doctor_and_a_rule_that_drops_invalid_packets", rule),
    test(On::Once, "the_doctor_and_expectations_that_are_full", expectations),
    test(On::Once, "counters_of_an_adapter_are_read", adapter),
    test(On::OnceWithChainLimit, "the_doctor_and_chains_that_are_too_long", chains),
    test(On::OnceAlone, "no_memory_for_entries", memory),
    test(On::OnceAlone, "the_doctor_and_no_memory_for_entries", diagnosed_memory),
];

const UDP: Flows = Flows::of(Family::V4, Protocol::Udp);

/// Of all findings that speak of this namespace.
fn ids(report: &Value, of: &Netns) -> Result<Vec<String>> {
    let all = report["findings"].as_array().context("no findings")?;
    let of_it = all.iter().filter(|finding| finding.to_string().contains(of.name()));
    Ok(of_it.filter_map(|finding| finding["id"].as_str().map(str::to_owned)).collect())
}

fn ports() -> Result<()> {
    let lab = Lab::new(Plan::fresh())?;
    lab.router().nft(
        "table ip nat { chain c { type nat hook postrouting priority srcnat;
         meta l4proto udp snat to 10.99.2.1:1000-1009; }\n }",
    )?;
    lab.send(&Flood::of(Flows { sources: 1, ..UDP }, 500))?;
    let verdict = judge::ask(lab.router())?;
    let said = report(&[])?;
    let seen = ids(&said, lab.router())?;
    let findings = &said["findings"];
    ensure!(seen.contains(&"nat_exhausted".to_owned()), "{seen:?} {verdict:?} {findings:#}");
    ensure!(!seen.contains(&"table_full".to_owned()), "{seen:?}");
    Ok(())
}

fn rule() -> Result<()> {
    let lab = Lab::new(Plan::fresh())?;
    lab.router().nft(
        "table inet drops { chain c { type filter hook forward priority 10;
         ct state invalid counter drop; }\n }",
    )?;
    lab.send(&Flood::of(Flows { protocol: Protocol::IcmpEchoReply, ..UDP }, 100))?;
    let said = report(&[])?;
    ensure!(ids(&said, lab.router())? == ["invalid_rule"], "{said:#}");
    let finding = found(&said, "invalid_rule", lab.router().name())?;
    ensure!(finding["title"].to_string().contains("100 packets"), "{finding:#}");
    let cure = &finding["fixes"][0];
    let _files = Files::of(cure);
    ensure!(type_in(&cure["now"]).is_err(), "what was not kept is removed: {cure:#}");
    type_in(&cure["save"])?;
    type_in(&cure["now"])?;
    let said = report(&[])?;
    ensure!(ids(&said, lab.router())?.is_empty(), "{:#}", said["findings"]);
    Ok(())
}

/// No adapter of a cloud is here, but any driver is asked the same way.
fn adapter() -> Result<()> {
    let lab = Lab::new(Plan::default())?;
    let counted = lab.router().within(|| allowances::statistics("up0"))??;
    let peer = counted.iter().find(|(name, _)| name == "peer_ifindex");
    let peer = peer.with_context(|| format!("{counted:?}"))?.1;
    let said = lab.router().run(&["ip", "-j", "link", "show", "up0"])?;
    let links: Value = serde_json::from_str(&said)?;
    ensure!(links[0]["link_index"] == peer, "{peer}: {links}");
    ensure!(lab.router().within(|| allowances::statistics("lo"))?.is_err(), "lo counts nothing");
    Ok(())
}

/// Each connection expects another, as with FTP.
fn expectations() -> Result<()> {
    const MOST: u32 = 10;
    let mut lab = Lab::new(Plan::fresh())?;
    lab.set_expectations(MOST)?;
    lab.router().nft(
        "table ip expecting {
           ct expectation second { protocol udp; dport 9; timeout 60s; size 1; l3proto ip; }
           chain c { type filter hook forward priority 10; ct expectation set \"second\"; }
         }",
    )?;
    let expected = || -> Result<usize> {
        Ok(lab.router().run(&["conntrack", "-L", "expect"])?.lines().count())
    };
    let flows = Flows { sources: 100, ..UDP };
    lab.send(&Flood::of(flows, 100))?;
    ensure!(expected()? == 10, "{}", expected()?);
    let said = report(&[])?;
    ensure!(ids(&said, lab.router())? == ["expectations_full"], "{:#}", said["findings"]);
    let finding = found(&said, "expectations_full", lab.router().name())?;
    let evidence = finding["evidence"].to_string();
    ensure!(evidence.contains(&format!("expects {MOST} connections")), "{evidence}");
    let more = fix(finding, "let more be expected")?;
    ensure!(more["expect"].to_string().contains("four times"), "{more}");
    type_in(&more["now"])?;
    lab.send(&Flood { first: 1 << 32, ..Flood::of(flows, 100) })?;
    ensure!(expected()? == 40, "{}", expected()?);
    Ok(())
}

fn chains() -> Result<()> {
    let mut lab = Lab::new(Plan::fresh())?;
    lab.set_buckets(512)?;
    lab.set_limit(1_000_000)?;
    lab.send(&Flood::of(Flows { sources: 100, ..UDP }, 30_000))?;
    let said = report(&[])?;
    let seen = ids(&said, lab.router())?;
    ensure!(seen.contains(&"chain_too_long".to_owned()), "{seen:?}");
    ensure!(!seen.contains(&"table_full".to_owned()), "{seen:?}");
    let before = judge::ask(lab.router())?;
    type_in(&fix(found(&said, "chain_too_long", lab.router().name())?, "as many buckets")?["now"])?;
    lab.send(&Flood { first: 100_000, ..Flood::of(Flows { sources: 100, ..UDP }, 10_000) })?;
    let after = judge::ask(lab.router())?;
    ensure!(after.chaintoolong == before.chaintoolong, "{before:?} {after:?}");
    Ok(())
}

/// Packets that conntrack refused in a namespace, read in a way that takes no memory.
struct Refused(File);

impl Refused {
    fn of(netns: &Netns) -> Result<Self> {
        // Not of this process: of this thread, which is in there.
        let open = || File::open("/proc/thread-self/net/stat/nf_conntrack");
        Ok(Self(netns.within(open)?.context("no counters")?))
    }

    fn now(&mut self) -> Result<u64> {
        let mut bytes = [0; 4096];
        self.0.rewind()?;
        let mut length = 0;
        loop {
            match self.0.read(&mut bytes[length..])? {
                0 => break,
                more => length += more,
            }
        }
        let mut lines = std::str::from_utf8(&bytes[..length])?.lines();
        let names = lines.next().context("no counters")?;
        let at = names.split_whitespace().position(|name| name == "drop").context("no drops")?;
        lines.try_fold(0, |sum, line| {
            let count = line.split_whitespace().nth(at).context("no drops of a CPU")?;
            Ok(sum + u64::from_str_radix(count, 16)?)
        })
    }
}

/// So much has to be kept free that nobody gets any: the page allocator refuses whoever cannot wait,
/// and has those who can wait for it.
struct Shortage {
    reserve: File,
    before: String,
    victims: Vec<Child>,
}

impl Shortage {
    /// Nothing happens yet. Should somebody need memory that is not to be had, the kernel kills for
    /// it: a bystander, and not this process or one that it starts.
    fn prepare() -> Result<Self> {
        const RESERVE: &str = "/proc/sys/vm/min_free_kbytes";
        fs::write("/proc/self/oom_score_adj", "-1000").context("cannot be spared")?;
        let bystander = "echo 1000 > /proc/self/oom_score_adj; exec sleep 600";
        let before = fs::read_to_string(RESERVE)?.trim().to_owned();
        let reserve = File::options().write(true).open(RESERVE)?;
        let mut prepared = Self { reserve, before, victims: Vec::new() };
        for _ in 0..40 {
            prepared.victims.push(Command::new("sh").args(["-c", bystander]).spawn()?);
        }
        Ok(prepared)
    }

    fn keep(&mut self, kilobytes: &str) -> Result<()> {
        self.reserve.rewind()?;
        self.reserve.write_all(kilobytes.as_bytes()).context("cannot set the reserve")
    }

    /// New flows meanwhile, until enough of them found no memory or all are sent; whoever watches holds
    /// still, for it would want some too. Returns how many arrived.
    fn strike(&mut self, lab: &Lab, watcher: u32) -> Result<u64> {
        const ENOUGH: u64 = 300;
        let flood = Flood { rate: Some(10_000), ..Flood::of(UDP, 20_000) };
        let mut refused = Refused::of(lab.router())?;
        refused.now()?;
        let before = self.before.clone();
        let tell = |signal: libc::c_int| -> Result<()> {
            // SAFETY: a signal to our own child, which has not been waited for.
            let told = unsafe { libc::kill(i32::try_from(watcher)?, signal) };
            ensure!(told == 0, "cannot stop or continue the watcher");
            Ok(())
        };
        let sent = thread::scope(|scope| {
            let sender = scope.spawn(|| lab.send(&flood));
            thread::sleep(Duration::from_millis(700));
            tell(libc::SIGSTOP)?;
            // Not for long at a time: whoever sends may wait for memory too.
            while refused.now()? < ENOUGH && !sender.is_finished() {
                self.keep("8388608")?;
                thread::sleep(Duration::from_millis(200));
                self.keep(&before)?;
                thread::sleep(Duration::from_millis(20));
            }
            tell(libc::SIGCONT)?;
            sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))?
        })?;
        Ok(sent.arrived)
    }
}

impl Drop for Shortage {
    fn drop(&mut self) {
        let before = self.before.clone();
        let _ = self.keep(&before);
        for victim in &mut self.victims {
            let _ = victim.kill();
            let _ = victim.wait();
        }
        let _ = fs::write("/proc/self/oom_score_adj", "0");
    }
}

/// With each mechanism: what it says must be true, and with hooks that miss nothing it is exact.
fn memory() -> Result<()> {
    let mut shortage = Shortage::prepare()?;
    for mechanism in mechanism::asked_for().0 {
        mechanism::set(mechanism);
        let mut lab = Lab::new(Plan::fresh())?;
        lab.set_limit(1 << 20)?;
        let watch = Watch::start(&[])?;
        let arrived = shortage.strike(&lab, watch.pid())?;
        let last = watch.stop()?;
        let verdict = judge::ask(lab.router())?;
        let name = mechanism.name();
        ensure!(verdict.drop > 100, "{name}: there was memory: {verdict:?}");
        ensure!(verdict.entries + verdict.drop == arrived, "{name}: {arrived} {verdict:?}");
        let table = table(&last, lab.router())?;
        let within = |reason: &str, truth: u64| -> Result<()> {
            let figure = &table["drops"][reason];
            let least = figure["at_least"].as_u64().context("no least")?;
            let most = figure["total"].as_u64().context("no total")?;
            ensure!((least..=most).contains(&truth), "{name}: {reason} is {truth}, not {figure}");
            Ok(())
        };
        within("no_memory", verdict.drop)?;
        within("table_full", 0)?;
        // Not every kernel says what kprobes missed.
        if mechanism == Mechanism::Fexit && verdict.invalid == 0 {
            let figure = &table["drops"]["no_memory"];
            ensure!(figure["exactness"] == "exact", "{name}: {figure}");
        }
    }
    mechanism::set(Mechanism::Auto);
    Ok(())
}

fn diagnosed_memory() -> Result<()> {
    let mut shortage = Shortage::prepare()?;
    let mut lab = Lab::new(Plan::fresh())?;
    lab.set_limit(1 << 20)?;
    let mut doctor = ctwatch()?
        .args(["doctor", "--output", "json", "--for", "10s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut said = BufReader::new(doctor.stderr.take().context("no errors")?).lines();
    let begins = said.find(|line| line.as_ref().map_or(true, |line| line.contains("counting")));
    begins.context("it does not count")??;
    shortage.strike(&lab, doctor.id())?;
    let verdict = judge::ask(lab.router())?;
    let output = doctor.wait_with_output()?;
    ensure!(output.status.success() && verdict.drop > 100, "{verdict:?} {output:?}");
    let said: Value = serde_json::from_slice(&output.stdout)?;
    let finding = found(&said, "no_memory", lab.router().name())?;
    let title = finding["title"].as_str().context("no title")?;
    let certain = title.starts_with("the kernel had no memory for at least");
    let severity = if certain { "critical" } else { "warning" };
    ensure!(finding["severity"] == severity, "{finding:#}");
    let hooked = said["signals"].as_array().is_some_and(|signals| {
        signals.iter().any(|signal| signal["name"] == "drops" && signal["mechanism"] == "fexit")
    });
    ensure!(certain || !hooked, "{finding:#}");
    let seen = ids(&said, lab.router())?;
    ensure!(!seen.contains(&"table_full".to_owned()), "{seen:?}");
    Ok(())
}
