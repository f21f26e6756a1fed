//! What the doctor finds, on machines that are ill for real; and whether its cures cure.

use std::{
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ctwatch_lab::{
    Lab, Plan, STAYS_FULL, judge,
    netns::Netns,
    topology::TRACKING,
    traffic::{Family, Flood, Flows, Protocol},
};
use serde_json::Value;

use crate::{
    On, Test,
    advice::Files,
    machine::unload,
    test,
    watch::{self, ctwatch, finished},
};

pub(crate) const TESTS: &[Test] = &[
    test(On::Once, "the_doctor_and_a_full_table", full),
    test(On::Once, "the_doctor_and_a_talker_that_need_not_be_tracked", talker),
    test(On::Once, "the_doctor_predicts_what_a_timeout_frees", timeout).anywhere(),
    test(On::Once, "the_doctor_names_the_rules_that_need_tracking", rules),
    test(On::Once, "the_doctor_without_root", nobody).anywhere(),
    test(On::OnceAlone, "a_listed_table_and_all_that_follows_from_it", story),
    test(On::OnceAlone, "a_limit_that_is_written_down_outlives_the_module", persistent),
];

const UDP: Flows = Flows::of(Family::V4, Protocol::Udp);

/// The doctor's report, and what it said beside it.
pub(crate) fn report(args: &[&str]) -> Result<Value> {
    let mut command = ctwatch()?;
    let (json, errors, code) = finished(command.args(["doctor", "--output", "json"]).args(args))?;
    ensure!(code == Some(0), "{errors}");
    serde_json::from_str(&json).with_context(|| format!("not JSON: {json}"))
}

/// Its findings that speak of this, by their ids.
pub(crate) fn found<'a>(report: &'a Value, id: &str, of: &str) -> Result<&'a Value> {
    let all = report["findings"].as_array().context("no findings")?;
    let speaks = |finding: &&Value| finding["id"] == id && finding.to_string().contains(of);
    all.iter().find(speaks).with_context(|| format!("no {id} of {of} in {all:#?}"))
}

/// The first cure whose title begins like that.
pub(crate) fn fix<'a>(finding: &'a Value, title: &str) -> Result<&'a Value> {
    let fixes = finding["fixes"].as_array().context("no fixes")?;
    let wanted = |fix: &&Value| fix["title"].as_str().is_some_and(|t| t.starts_with(title));
    fixes.iter().find(wanted).with_context(|| format!("no cure {title} in {finding:#}"))
}

/// As somebody would paste it.
pub(crate) fn type_in(commands: &Value) -> Result<()> {
    for command in commands.as_array().context("no commands")? {
        let command = command.as_str().context("a command is no text")?;
        let output = Command::new("sh").args(["-ec", command]).output()?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{command}: {complaint}");
    }
    Ok(())
}

/// While a hundred new ones come in each second.
fn while_more_come<T>(lab: &Lab, what: impl FnOnce() -> Result<T>) -> Result<T> {
    watch::while_more_come(lab, UDP, 1 << 32, 100, what)
}

fn full() -> Result<()> {
    let mut lab = Lab::new(Plan::fresh())?;
    lab.set_buckets(4096)?;
    lab.set_limit(STAYS_FULL)?;
    lab.keep_entries()?;
    lab.send(&Flood::of(UDP, 2000))?;
    let report = report(&[])?;
    let before = judge::ask(lab.router())?;
    ensure!(before.drop > 0, "{before:?}");
    let name = lab.router().name();
    let finding = found(&report, "table_full", name)?;
    ensure!(finding["severity"] == "critical", "{finding:#}");
    ensure!(report["findings"][0]["severity"] == "critical", "{report:#}");
    let evidence = finding["evidence"].to_string();
    ensure!(evidence.contains("reclaimable"), "{evidence}");
    let raise = fix(finding, "raise the limit")?;
    let expected = raise["expect"].as_str().context("nothing is expected")?;
    let percents = expected.split('%').next().and_then(|words| words.rsplit(' ').next());
    let promised: u64 = percents.context("no percentage")?.parse()?;
    type_in(&raise["now"])?;
    let limit = lab.router().run(&["sysctl", "-n", "net.netfilter.nf_conntrack_max"])?;
    let is = 100 * judge::ask(lab.router())?.entries / limit.trim().parse::<u64>()?;
    ensure!(is.abs_diff(promised) <= 10, "{is}% full, {promised}% promised: {raise:#}");
    let sent = lab.send(&Flood { first: 5000, ..Flood::of(UDP, 100) })?;
    let after = judge::ask(lab.router())?;
    ensure!(after.drop == before.drop, "packets are refused still: {before:?} {after:?}");
    ensure!(
        sent.arrived == 100 && after.entries > STAYS_FULL.into(),
        "{sent:?} {before:?} {after:?}"
    );
    // What was written is put back; the files never were.
    let undo: Vec<&Value> = raise["undo"].as_array().context("no undo")?.iter().collect();
    let sysctls = undo.into_iter().filter(|c| !c.to_string().contains("rm -f"));
    type_in(&Value::Array(sysctls.cloned().collect()))?;
    lab.send(&Flood { first: 10_000, ..Flood::of(UDP, 100) })?;
    let undone = judge::ask(lab.router())?;
    ensure!(undone.drop > after.drop, "not undone: {after:?} {undone:?}");
    Ok(())
}

/// A service that fills the table by itself.
fn talker() -> Result<()> {
    let mut lab = Lab::new(Plan::fresh())?;
    lab.set_limit(STAYS_FULL)?;
    lab.keep_entries()?;
    let flows = Flows { sources: 3, ..UDP };
    lab.send(&Flood::of(flows, 2000))?;
    {
        let title = "do not track udp/1 of 10.100.0.2";
        let report = report(&[])?;
        let cure = fix(found(&report, "top_talkers", lab.router().name())?, title)?.clone();
        let before = judge::ask(lab.router())?;
        type_in(&cure["now"])?;
        let sent = lab.send(&Flood { first: 5000, ..Flood::of(flows, 1000) })?;
        let after = judge::ask(lab.router())?;
        ensure!(after.drop == before.drop, "{title}: {before:?} {after:?}");
        ensure!(sent.arrived == 1000, "{title}: {sent:?}");
        type_in(&cure["undo"])?;
        lab.send(&Flood { first: 9000, ..Flood::of(flows, 1000) })?;
        let undone = judge::ask(lab.router())?;
        ensure!(undone.drop > after.drop, "{title} is not undone: {undone:?}");
    }
    Ok(())
}

/// Connections that keep coming, in a table that has found its level.
fn timeout() -> Result<()> {
    const BEFORE: u64 = 15;
    let mut lab = Lab::new(Plan::fresh())?;
    // Room was short; and is not while it is measured, in which those count that have expired.
    lab.set_limit(100)?;
    lab.send(&Flood::of(UDP, 500))?;
    lab.router().run(&["conntrack", "-F"])?;
    lab.set_limit(100_000)?;
    lab.router().sysctl("net/netfilter/nf_conntrack_udp_timeout", &BEFORE.to_string())?;
    let alive = || -> Result<f64> {
        // Only those whose time is not over yet.
        let listed = lab.router().run(&["conntrack", "-L"])?;
        Ok(listed.lines().filter(|line| line.starts_with("udp")).count() as f64)
    };
    let level = || thread::sleep(Duration::from_secs(BEFORE + 3));
    let cured = || -> Result<()> {
        level();
        let before = alive()?;
        let report = report(&[])?;
        let finding = found(&report, "timeouts", lab.router().name())?;
        let cure = fix(finding, "udp_timeout 15 -> 10")?;
        let promise = cure["expect"].as_str().context("no promise")?;
        let number = promise.split(' ').nth(1).context("no number")?.replace(',', "");
        let promised: f64 = number.parse().with_context(|| format!("no number: {promise}"))?;
        type_in(&cure["now"])?;
        level();
        let gone = before - alive()?;
        let slack = 0.10 * before;
        ensure!((gone - promised).abs() <= slack, "{before}; {promised} promised, {gone} gone");
        type_in(&cure["undo"])?;
        let value =
            lab.router().run(&["sysctl", "-n", "net.netfilter.nf_conntrack_udp_timeout"])?;
        ensure!(value.trim() == BEFORE.to_string(), "{value}");
        Ok(())
    };
    while_more_come(&lab, cured)
}

/// By every tool that makes some, and no other.
fn rules() -> Result<()> {
    let mut lab = Lab::new(Plan::without_tracking())?;
    let (router, bare) = (lab.router().clone(), lab.add_netns("bare")?);
    let needs = |netns: &Netns| -> Result<Vec<String>> {
        let said = report(&[])?;
        let all = said["tracking"]["needed_by"].as_array().context("no reasons")?;
        let of_it = all.iter().filter_map(Value::as_str).filter(|n| n.starts_with(netns.name()));
        Ok(of_it.map(str::to_owned).collect())
    };
    ensure!(needs(&router)?.is_empty(), "{:?}", needs(&router)?);
    router.nft(
        "table inet other { chain c { type filter hook forward priority 0; tcp dport 9 drop; }\n }",
    )?;
    router.nft("table inet raw { chain c { type filter hook prerouting priority raw; udp dport 4789 notrack; }\n }")?;
    ensure!(needs(&router)?.is_empty(), "{:?}", needs(&router)?);
    router.nft(TRACKING)?;
    let words =
        |text: &str| -> Result<()> { router.run(&text.split(' ').collect::<Vec<_>>()).map(|_| ()) };
    words("iptables-legacy -N OWN")?;
    words("iptables-legacy -A OWN -p tcp -j ACCEPT")?;
    words("iptables-legacy -A OWN -m conntrack --ctstate INVALID -j DROP")?;
    words("iptables-legacy -A FORWARD -j OWN")?;
    words("ip6tables-legacy -t raw -A PREROUTING -p udp -j CT --notrack")?;
    words("iptables-legacy -t nat -A POSTROUTING -s 192.0.2.0/24 -j MASQUERADE")?;
    let said = needs(&router)?.join("\n");
    for expected in [
        "iptables-legacy table ip filter, chain OWN, rule 2: -m conntrack, 0 packets",
        "iptables-legacy table ip nat, chain POSTROUTING, rule 1: -j MASQUERADE, 0 packets",
        "nft table inet ",
        ": ct",
    ] {
        ensure!(said.contains(expected), "{expected:?} is not in\n{said}");
    }
    for other in ["inet other", "inet raw", "ip6 raw", "-p tcp"] {
        ensure!(!said.contains(other), "{other:?} needs none: {said}");
    }
    ensure!(needs(&bare)?.is_empty(), "{:?}", needs(&bare)?);
    Ok(())
}

/// Whoever may see nothing says so, and does not call the machine healthy.
fn nobody() -> Result<()> {
    const NOBODY: u32 = 65534;
    let mut lab = Lab::new(Plan::fresh())?;
    lab.set_limit(STAYS_FULL)?;
    lab.keep_entries()?;
    lab.send(&Flood::of(UDP, 2000))?;
    // Where it was built, not everybody may look.
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    let copy = folder.path().join("ctwatch");
    fs::copy(ctwatch()?.get_program(), &copy)?;
    let doctor = |output: &str| -> Result<String> {
        let mut command = Command::new(&copy);
        command.args(["doctor", "--output", output]).uid(NOBODY).gid(NOBODY);
        let (said, errors, code) = finished(&mut command)?;
        ensure!(code == Some(0), "{errors}");
        Ok(said)
    };
    let said: Value = serde_json::from_str(&doctor("json")?)?;
    let capabilities = said["capabilities"].as_array().context("no capabilities")?;
    ensure!(capabilities.iter().all(|one| one["held"] == false), "{capabilities:?}");
    let unknown = said["tracking"]["unknown"].to_string();
    ensure!(unknown.contains("needs CAP_SYS_ADMIN"), "{unknown}");
    // The router is full; it cannot know, and must not say anything about it.
    ensure!(!said["findings"].to_string().contains(lab.router().name()), "{said:#}");
    let text = doctor("text")?;
    let found = said["findings"].as_array().is_some_and(|all| !all.is_empty());
    ensure!(found || text.contains("not all could"), "{text}");
    Ok(())
}

/// The whole way, with the tools that everybody has: somebody lists a table that is not there,
/// which loads connection tracking; the table fills; packets are refused; and back again.
fn story() -> Result<()> {
    unload()?;
    let clean = report(&[])?;
    ensure!(clean["conntrack"] == "absent", "{clean:#}");
    ensure!(clean["findings"].as_array().is_some_and(Vec::is_empty), "{:#}", clean["findings"]);
    ensure!(!is_loaded()?, "the doctor loaded it");

    let list = ["iptables-legacy", "-t", "nat", "-L"];
    let listed = Command::new(list[0]).args(&list[1..]).output()?;
    ensure!(listed.status.success() && is_loaded()?, "{listed:?} did not load conntrack");
    let mut lab = Lab::new(Plan::without_tracking())?;
    let router = lab.router().clone();
    router.run(&list)?;
    let idle = report(&[])?;
    let nothing = found(&idle, "tracking_for_nothing", router.name())?;
    ensure!(nothing["severity"] == "info", "nothing is tracked yet: {nothing:#}");
    let listed_only = "iptables-legacy table ip nat hooks NAT in and holds no rule";
    ensure!(nothing["evidence"].to_string().contains(listed_only), "{nothing:#}");
    let chain = "nf_conntrack <- nf_nat <- iptable_nat";
    ensure!(nothing["evidence"].to_string().contains(chain), "{nothing:#}");

    // Now somebody adds a rule.
    let rule = "iptables-legacy -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT";
    router.run(&rule.split(' ').collect::<Vec<_>>())?;
    lab.set_limit(STAYS_FULL)?;
    lab.keep_entries()?;
    lab.send(&Flood::of(UDP, 2000))?;
    let before = judge::ask(&router)?;
    ensure!(before.drop > 0, "{before:?}");

    let folder = tempfile::tempdir()?;
    let place = folder.path().join("fixes");
    let place = place.to_str().context("a path")?;
    let said = report(&["--write", place])?;
    ensure!(said["conntrack"] == "module", "{said:#}");
    let needed = found(&said, "needed_by", router.name())?;
    let why = "iptables-legacy table ip filter, chain FORWARD, rule 1: -m conntrack";
    ensure!(needed["evidence"].to_string().contains(why), "{needed:#}");
    let full = found(&said, "table_full", router.name())?;
    let logged = "of \\\"table full, dropping packet\\\"";
    ensure!(full["evidence"].to_string().contains(logged), "{full:#}");

    // More room.
    let raise = fix(full, "raise the limit")?;
    type_in(&raise["now"])?;
    lab.send(&Flood { first: 5000, ..Flood::of(UDP, 50) })?;
    let after = judge::ask(&router)?;
    ensure!(after.drop == before.drop, "{before:?} {after:?}");
    lab.set_limit(STAYS_FULL)?;
    let file = format!("{place}/etc/sysctl.d/90-ctwatch-limit.conf");
    type_in(&serde_json::json!([format!("sysctl -p {file}")]))?;
    lab.send(&Flood { first: 8000, ..Flood::of(UDP, 50) })?;
    let after = judge::ask(&router)?;
    ensure!(after.drop == before.drop, "by file: {before:?} {after:?}");

    // The rule goes, and then nothing needs it.
    let remove = fix(needed, "if nobody needs them")?;
    let _files = Files::of(remove);
    type_in(&remove["save"])?;
    type_in(&remove["now"])?;
    lab.send(&Flood { first: 9000, ..Flood::of(UDP, 100) })?;
    let untracked = judge::ask(&router)?;
    ensure!(untracked.entries <= after.entries, "{after:?} {untracked:?}");
    let place = folder.path().join("more");
    let place = place.to_str().context("a path")?;
    let said = report(&["--write", place])?;
    let why = found(&said, "tracking_for_nothing", router.name())?;

    // No tracking at all.
    let stop = fix(why, "stop tracking")?;
    type_in(&stop["now"])?;
    ensure!(!is_loaded()?, "it is still loaded");
    let file = stop["files"][0]["path"].as_str().context("no file")?;
    type_in(&serde_json::json!(["mkdir -p /etc/modprobe.d", format!("cp {place}{file} {file}")]))?;
    let listed = router.run(&list);
    ensure!(listed.is_err() && !is_loaded()?, "it came back: {listed:?}");
    let said = report(&[])?;
    ensure!(said["conntrack"] == "absent", "{said:#}");
    ensure!(said["tracking"]["barred_by"].to_string().contains("nf_conntrack"), "{said:#}");
    type_in(&stop["undo"])?;
    router.run(&list).context("not undone")?;
    ensure!(is_loaded()?, "not undone");
    Ok(())
}

fn is_loaded() -> Result<bool> {
    Ok(fs::exists("/sys/module/nf_conntrack")?)
}

/// What applies settings when a module comes.
struct Udev(Child);

impl Udev {
    fn start() -> Result<Self> {
        let program = ["/usr/lib/systemd/systemd-udevd", "/lib/systemd/systemd-udevd"];
        let program = program.into_iter().find(|path| fs::exists(path).unwrap_or(false));
        let program = program.context("there is no udev")?;
        // It complains of groups that this machine does not have.
        let udev = Self(Command::new(program).stderr(Stdio::null()).spawn()?);
        let until = Instant::now() + Duration::from_secs(30);
        while !fs::exists("/run/udev/control")? {
            ensure!(Instant::now() < until, "udev does not begin");
            thread::sleep(Duration::from_millis(100));
        }
        Ok(udev)
    }
}

impl Drop for Udev {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// At boot the sysctl is not there yet, because the module is not.
fn persistent() -> Result<()> {
    const LIMIT: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
    let folder = tempfile::tempdir()?;
    let place = folder.path().join("fixes");
    let place = place.to_str().context("a path")?;
    let raise = {
        let mut lab = Lab::new(Plan::fresh())?;
        lab.set_buckets(4096)?;
        lab.set_limit(STAYS_FULL)?;
        lab.keep_entries()?;
        lab.send(&Flood::of(UDP, 2000))?;
        let said = report(&["--write", place])?;
        fix(found(&said, "table_full", lab.router().name())?, "raise the limit")?.clone()
    };
    let files = raise["files"].as_array().context("no files")?;
    let mut wanted = None;
    for file in files {
        let (path, content) = (file["path"].as_str(), file["content"].as_str());
        let (path, content) = (path.context("no path")?, content.context("no content")?);
        let limit =
            content.lines().find_map(|line| line.strip_prefix("net.netfilter.nf_conntrack_max = "));
        wanted = wanted.or(limit.map(str::to_owned));
        let path = Path::new(path);
        fs::create_dir_all(path.parent().context("no folder")?)?;
        fs::copy(format!("{place}{}", path.display()), path)?;
    }
    let wanted = wanted.with_context(|| format!("no limit in {files:?}"))?;
    let limit = || -> Result<String> { Ok(fs::read_to_string(LIMIT)?.trim().to_owned()) };
    let reload = || -> Result<()> {
        unload()?;
        let output = Command::new("modprobe").arg("nf_conntrack").output()?;
        ensure!(output.status.success(), "{output:?}");
        Ok(())
    };
    let _udev = Udev::start()?;
    reload()?;
    let until = Instant::now() + Duration::from_secs(20);
    while limit()? != wanted {
        ensure!(Instant::now() < until, "{} and not {wanted}", limit()?);
        thread::sleep(Duration::from_millis(100));
    }
    type_in(&raise["undo"])?;
    reload()?;
    thread::sleep(Duration::from_secs(3));
    ensure!(limit()? != wanted, "{wanted} is not undone");
    Ok(())
}
