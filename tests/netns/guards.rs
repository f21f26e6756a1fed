//! Settings of the kernel that keep programs out are named, whatever verb is asked: only on a machine of its
//! own, because what is locked down stays so.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use ctwatch_lab::{
    Lab, Plan, STAYS_FULL, judge,
    traffic::{Family, Flood, Flows, Protocol},
};
use serde_json::Value;

use crate::{
    On, Test, test,
    watch::{ctwatch, finished, table},
};

/// In this order, and after all others.
pub(crate) const TESTS: &[Test] = &[
    test(On::OnceAlone, "hidden_addresses_are_named", hidden),
    test(On::OnceAlone, "capabilities_that_are_not_enough_are_named", few_capabilities),
    test(On::OnceAlone, "a_lockdown_is_named", locked_down),
];

const KPTR_RESTRICT: &str = "/proc/sys/kernel/kptr_restrict";
const PARANOID: &str = "/proc/sys/kernel/perf_event_paranoid";
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
const UDP: Flows = Flows { sources: 10, ..Flows::of(Family::V4, Protocol::Udp) };

/// What its outputs say together.
fn said(command: &mut Command) -> Result<String> {
    let (out, err, _) = finished(command)?;
    Ok(out + &err)
}

fn report(args: &[&str]) -> Result<Value> {
    let (out, err, _) = finished(ctwatch()?.args(["doctor", "--output", "json"]).args(args))?;
    serde_json::from_str(&out).with_context(|| format!("{out}{err}"))
}

/// A setting, as it was before in the end.
struct Setting {
    file: &'static str,
    before: String,
}

impl Setting {
    fn set(file: &'static str, value: &str) -> Result<Self> {
        let before = fs::read_to_string(file)?;
        fs::write(file, value).with_context(|| format!("{value} into {file}"))?;
        Ok(Self { file, before })
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let _ = fs::write(self.file, &self.before);
    }
}

/// And what is said to type helps, and can be undone.
fn hidden() -> Result<()> {
    let _lab = Lab::new(Plan::default())?;
    let _setting = Setting::set(KPTR_RESTRICT, "2")?;
    let args = ["watch", "-n", "1", "--mechanism", "tracepoint"];
    let why = said(ctwatch()?.args(args))?;
    ensure!(why.contains("hidden, also from root (kernel.kptr_restrict is 2)"), "{why}");
    ensure!(!why.contains("CAP_SYSLOG"), "{why}");
    let advice = report(&["--mechanism", "tracepoint"])?["advice"].to_string();
    for (words, level) in [("kernel.kptr_restrict=1", "1"), ("kernel.kptr_restrict=2", "2")] {
        let typed = format!("sysctl -w {words}");
        ensure!(advice.contains(&typed), "{advice}");
        let (out, err, code) = finished(Command::new("sh").args(["-c", &typed]))?;
        ensure!(code == Some(0), "{out}{err}");
        ensure!(fs::read_to_string(KPTR_RESTRICT)?.trim() == level);
        let (out, err, code) = finished(ctwatch()?.args(args))?;
        ensure!((code == Some(0)) == (level == "1"), "{level}: {out}{err}");
    }
    Ok(())
}

fn few_capabilities() -> Result<()> {
    let _lab = Lab::new(Plan::default())?;
    let _setting = Setting::set(PARANOID, "3")?;
    let few = |mechanism: &str| -> Result<String> {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-all,+bpf,+perfmon,+net_admin", "--"]);
        command.arg(ctwatch()?.get_program());
        said(command.args(["watch", "-n", "1", "--mechanism", mechanism]))
    };
    let kprobe = few("kprobe")?;
    let causes = [
        "kernel.perf_event_paranoid is 3: kprobes need CAP_SYS_ADMIN",
        "kernel addresses are hidden (kernel.kptr_restrict): needs CAP_SYSLOG",
        // Before Linux 5.11.
        "maps count against the limit of locked memory",
    ];
    ensure!(causes.iter().any(|cause| kprobe.contains(cause)), "{kprobe}");
    let fexit = few("fexit")?;
    ensure!(!fexit.contains("the kernel has no BTF object"), "{fexit}");
    let none = Command::new("setpriv")
        .args(["--bounding-set=-all", "--"])
        .arg(ctwatch()?.get_program())
        .arg("trace")
        .stdin(std::process::Stdio::null())
        .output()?;
    let none = String::from_utf8_lossy(&none.stderr).into_owned();
    ensure!(none.contains("needs CAP_BPF and CAP_PERFMON"), "{none}");
    Ok(())
}

/// The counters go on.
fn locked_down() -> Result<()> {
    if !Path::new(LOCKDOWN).exists() {
        let mount = ["-t", "securityfs", "none", "/sys/kernel/security"];
        let (out, err, code) = finished(Command::new("mount").args(mount))?;
        ensure!(code == Some(0), "{out}{err}");
    }
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(STAYS_FULL)?;
    lab.keep_entries()?;
    fs::write(LOCKDOWN, "confidentiality").context("this kernel cannot be locked down")?;
    lab.send(&Flood::of(UDP, 1000))?;
    let verdict = judge::ask(lab.router())?;
    ensure!(verdict.drop > 0, "{verdict:?}");
    let why = "locked down (confidentiality, by /sys/kernel/security/lockdown)";
    let netns = ["--netns", lab.router().name()];
    let never = ["cannot use helper", "unknown func", "processed ", "Verifier output"];
    for args in [&["watch", "-n", "1"][..], &["trace", "-n", "1"], &["doctor"], &["census"]] {
        let text = said(ctwatch()?.args(args).args(netns))?;
        ensure!(text.contains(why) || args[0] == "census", "{args:?}: {text}");
        ensure!(!never.iter().any(|words| text.contains(words)), "{args:?}: {text}");
    }
    let report = report(&netns)?;
    let advice = report["advice"].to_string();
    ensure!(advice.contains("lockdown=integrity"), "{advice}");
    ensure!(!advice.contains("CONFIG_DEBUG_INFO_BTF"), "{advice}");
    let (out, err, code) =
        finished(ctwatch()?.args(["watch", "-n", "1", "-o", "json"]).args(netns))?;
    ensure!(code == Some(0), "{out}{err}");
    let tick: Value = serde_json::from_str(out.lines().last().context("no tick")?)?;
    ensure!(table(&tick, lab.router())?["entries"] == STAYS_FULL, "{tick}");
    let (out, _, code) = finished(ctwatch()?.args(["census", "-o", "json"]).args(netns))?;
    let census: Value = serde_json::from_str(&out)?;
    ensure!(code == Some(0) && census["entries"] == STAYS_FULL, "{census}");
    Ok(())
}
