//! Who has conntrack loaded: only on a machine of its own, where it is a module and may be unloaded.

use std::{
    process::{Child, Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    On, Test,
    machine::unload,
    test,
    watch::{Lines, PATIENCE, ctwatch, lines},
};

pub(crate) const TESTS: &[Test] = &[test(On::OnceAlone, "who_loads_conntrack_is_named", who_loads)];

const MASQUERADE: &str = "add table ip who; \
                          add chain ip who nat { type nat hook postrouting priority 100; }; \
                          add rule ip who nat masquerade";
const STATE: &str = "add table ip who; add chain ip who c; add rule ip who c ct state new accept";
/// ctwatch, started while there is nothing to watch. It does not hold the module.
struct Waiting {
    child: Child,
    objects: Lines,
    said: Lines,
}

impl Waiting {
    /// Returns when it says that it waits.
    fn start() -> Result<Self> {
        let mut child = ctwatch()?
            .args(["watch", "-i", "200ms", "--output", "json", "--mechanism", "kprobe"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start ctwatch")?;
        let objects = lines(child.stdout.take().context("no output")?);
        let said = lines(child.stderr.take().context("no error output")?);
        let waiting = Self { child, objects, said };
        waiting.says("waiting for it")?;
        Ok(waiting)
    }

    /// The next line on its standard error that contains this.
    fn says(&self, wanted: &str) -> Result<String> {
        let mut others = String::new();
        loop {
            let line = self.said.recv_timeout(PATIENCE);
            let line = line.with_context(|| format!("it says no {wanted:?}, but: {others}"))??;
            if line.contains(wanted) {
                return Ok(line);
            }
            others.push_str(&line);
        }
    }

    /// What it knows of the last time that this module was loaded, once it was so often.
    fn loaded(&mut self, module: &str, times: usize) -> Result<(Value, Value)> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let line = self.objects.recv_timeout(PATIENCE).context("ctwatch says no more")??;
            let object: Value = serde_json::from_str(&line)?;
            let loaded = object["loaded"].as_array().context("it does not see what is loaded")?;
            let mut of = loaded.iter().filter(|loaded| loaded["module"] == module);
            if let Some(last) = of.nth(times - 1) {
                ensure!(of.next().is_none(), "{module} more than {times} times: {object}");
                return Ok((last.clone(), object));
            }
        }
        anyhow::bail!("{module} was not loaded {times} times in {} s", PATIENCE.as_secs())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs it to its end, and says what its number was.
fn run(argv: &[&str]) -> Result<u32> {
    let mut child = Command::new(argv[0])
        .args(&argv[1..])
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run {}", argv[0]))?;
    let pid = child.id();
    ensure!(child.wait()?.success(), "{} failed", argv.join(" "));
    Ok(pid)
}

fn is_there(module: &str) -> bool {
    let found = Command::new("modprobe").args(["-n", module]).stderr(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

fn who_loads() -> Result<()> {
    let me = std::process::id();
    unload()?;
    let mut waiting = Waiting::start()?;
    let mut times = 0;
    let askers: [(&[&str], &str, &str); 3] = [
        (&["iptables-legacy", "-t", "nat", "-L"], "iptable_nat", "iptable_nat"),
        (&["nft", MASQUERADE], "nft_masq", "nft-"),
        (&["nft", STATE], "nft_ct", "nft-expr-"),
    ];
    for (argv, module, request) in askers {
        // Newer kernels come without the older tables.
        if !is_there(module) {
            continue;
        }
        unload()?;
        let (comm, pid) = (argv[0], run(argv)?);
        times += 1;
        let line = waiting.says("nf_conntrack was loaded by modprobe[")?;
        ensure!(line.contains(&format!("], asked for by {comm}[{pid}] ({request}")), "{line}");
        let (loaded, object) = waiting.loaded("nf_conntrack", times)?;
        ensure!(loaded["comm"] == "modprobe" && loaded["pid"] != pid, "{loaded}");
        let asked = &loaded["asked_by"];
        ensure!(asked["pid"] == pid && asked["comm"] == comm, "{loaded}");
        let name = asked["request"].as_str().context("no request")?;
        ensure!(name.starts_with(request), "{loaded}");
        ensure!(asked["parent"]["pid"] == me, "{loaded}, and this is {me}");
        ensure!(object["epoch"] == times, "{object}");
        let time = |value: &Value| value.as_str()?.parse::<jiff::Timestamp>().ok();
        let (since, at) = (time(&object["loaded_since"]), time(&loaded["time"]));
        ensure!(since.is_some() && since < at, "seen before it was watched: {object}");
        // What it loaded itself nobody else is to be blamed for, and the other way round.
        let all = object["loaded"].as_array().context("no list")?;
        let blamed = all.iter().filter(|loaded| loaded["asked_by"]["comm"] == "ctwatch");
        ensure!(blamed.count() == 0, "{object}");
        run(&["nft", "flush ruleset"])?;
    }
    unload()?;
    let pid = run(&["modprobe", "nf_conntrack"])?;
    let line = waiting.says("nf_conntrack was loaded by")?;
    ensure!(line.contains(&format!(" by modprobe[{pid}], child of ")), "{line}");
    let (loaded, _) = waiting.loaded("nf_conntrack", times + 1)?;
    ensure!(loaded["pid"] == pid && loaded["comm"] == "modprobe", "{loaded}");
    let asked = &loaded["asked_by"];
    ensure!(asked["pid"] == me && asked["request"] == Value::Null, "{loaded}, and this is {me}");
    ensure!(times >= 2, "only {times} of the ways to have it loaded are there");
    Ok(())
}
