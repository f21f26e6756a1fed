//! What other tools print of a machine, given to the doctor and the census of another: the same diagnosis.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ctwatch_lab::{
    Lab, Plan, STAYS_FULL, judge,
    traffic::{Family, Flood, Flows, Protocol},
};
use serde_json::Value;

use crate::{
    On, Test, doctor, test,
    watch::{PATIENCE, ctwatch, finished},
};

pub(crate) const TESTS: &[Test] = &[
    test(On::Once, "offline_plain_commands_find_what_live_does", plain_commands),
    test(On::Once, "offline_a_list_is_counted_as_live", lists),
    test(On::Once, "offline_half_a_million_lines_in_flat_memory", flat).anywhere(),
    test(On::Benchmark, "offline_a_census_of_a_list_against_wc", ratio),
];

const UDP: Flows = Flows { sources: 10, ..Flows::of(Family::V4, Protocol::Udp) };

/// Saturated: entries stay, and packets are dropped.
fn saturated() -> Result<Lab> {
    let mut lab = Lab::new(Plan::fresh())?;
    lab.set_buckets(4096)?;
    lab.set_limit(STAYS_FULL)?;
    lab.keep_entries()?;
    lab.send(&Flood::of(UDP, 2000))?;
    Ok(lab)
}

/// Commands as sos runs them and names their files, of the host and of one namespace.
fn collect(lab: &Lab, folder: &Path) -> Result<()> {
    let name = lab.router().name();
    let within = folder.join(format!("sos_commands/networking/namespaces/{name}"));
    let kernel = folder.join("sos_commands/kernel");
    for folder in [&within, &kernel] {
        fs::create_dir_all(folder)?;
    }
    for command in [
        "conntrack -L -o extended",
        "conntrack -S",
        "sysctl -a",
        "nft -a list ruleset",
        "iptables-legacy-save",
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        let text = lab.router().run(&words).with_context(|| command.to_owned())?;
        let file = format!("ip_netns_exec_{name}_{}", command.replace([' ', '/'], "_"));
        fs::write(within.join(file), text)?;
    }
    for command in ["lsmod", "uname -a", "dmesg"] {
        let mut words = command.split(' ');
        let output = Command::new(words.next().context("no command")?).args(words).output();
        // Not every machine of ours has each of them: then the file of the kernel says the same.
        let text = match output {
            Ok(output) if output.status.success() => output.stdout,
            _ if command == "uname -a" => fs::read("/proc/version")?,
            _ if command == "lsmod" => match fs::read("/proc/modules") {
                Ok(text) => text,
                // A kernel without modules.
                Err(_) => continue,
            },
            _ => continue,
        };
        fs::write(kernel.join(command.replace(' ', "_")), text)?;
    }
    for file in ["slabinfo", "meminfo"] {
        fs::create_dir_all(folder.join("proc"))?;
        // Not every kernel has them.
        if let Ok(text) = fs::read(format!("/proc/{file}")) {
            fs::write(folder.join("proc").join(file), text)?;
        }
    }
    Ok(())
}

/// By id, those that speak of this namespace.
pub(crate) fn ids(report: &Value, of: &str) -> Result<BTreeSet<String>> {
    let findings = report["findings"].as_array().context("no findings")?.iter();
    let its = findings.filter(|finding| finding.to_string().contains(of));
    its.map(|finding| Ok(finding["id"].as_str().context("no id")?.to_owned())).collect()
}

/// Findings that the report itself says it cannot decide.
pub(crate) fn undecided(report: &Value) -> BTreeSet<String> {
    let all = report["offline"]["undecided"].as_array().into_iter().flatten();
    let ids = all.flat_map(|one| one["findings"].as_array().into_iter().flatten());
    ids.filter_map(|id| Some(id.as_str()?.to_owned())).collect()
}

fn plain_commands() -> Result<()> {
    let lab = saturated()?;
    let name = lab.router().name().to_owned();
    let folder = tempfile::tempdir()?;
    let live = doctor::report(&["--netns", &name])?;
    collect(&lab, folder.path())?;
    let place = folder.path().to_str().context("an odd name")?;
    let offline = doctor::report(&["--from", place])?;
    let (seen, found) = (ids(&live, &name)?, ids(&offline, &name)?);
    ensure!(seen.contains("table_full") && seen.len() > 2, "{seen:?}");
    let said = &offline["offline"];
    let undecided = undecided(&offline);
    let missing: Vec<_> = seen.difference(&found).filter(|id| !undecided.contains(*id)).collect();
    ensure!(missing.is_empty(), "live {seen:?}, offline {found:?}, missing {missing:?}: {said:#}");
    let more: Vec<_> = found.difference(&seen).filter(|id| *id != "unknown").collect();
    ensure!(more.is_empty(), "found offline alone: {more:?} {:#}", offline["findings"]);
    ensure!(said["not_understood"] == Value::Array(Vec::new()), "{said:#}");
    // The same figures, and what is to be typed.
    let [one, other] = [&live, &offline].map(|report| doctor::found(report, "table_full", &name));
    let (one, other) = (one?, other?);
    ensure!(one["severity"] == other["severity"], "{one:#} {other:#}");
    for part in ["now", "undo"] {
        // Whether udev runs there is in no list.
        let of = |finding: &Value| -> Vec<String> {
            let all = finding["fixes"][0][part].as_array().into_iter().flatten();
            all.map(Value::to_string).filter(|line| !line.contains("/etc/udev/")).collect()
        };
        ensure!(of(one) == of(other), "{part}: {:#?} {:#?}", of(one), of(other));
    }
    let evidence = other["evidence"].to_string();
    ensure!(evidence.contains("reclaimable"), "{evidence}");
    Ok(())
}

fn lists() -> Result<()> {
    let lab = saturated()?;
    let name = lab.router().name().to_owned();
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("list");
    fs::write(&file, lab.router().run(&["conntrack", "-L"])?)?;
    let census = |args: &[&str]| -> Result<Value> {
        let (json, errors, code) = finished(ctwatch()?.args(["census", "-o", "json"]).args(args))?;
        ensure!(code == Some(0), "{args:?}: {errors}");
        Ok(serde_json::from_str(&json)?)
    };
    let live = census(&["--netns", &name])?;
    let offline = census(&["--from", file.to_str().context("an odd name")?])?;
    let entries = judge::ask(lab.router())?.entries;
    ensure!(offline["entries"] == entries && live["entries"] == entries, "{live:#} {offline:#}");
    let (live, offline) = (&live["tables"][0], &offline["tables"][0]);
    for part in ["pinned", "reclaimable", "closing"] {
        ensure!(live[part] == offline[part] && live[part].is_u64(), "{part}: {live:#} {offline:#}");
    }
    // Who holds how many, whatever the order of those that hold as many.
    let holders = |table: &Value| -> Option<BTreeSet<String>> {
        let all = table["top"]["holding"].as_array()?.iter();
        Some(all.map(|one| format!("{} {} {}", one["by"], one["key"], one["count"])).collect())
    };
    let (of_live, of_offline) = (holders(live), holders(offline));
    ensure!(of_live.as_ref().is_some_and(|all| all.len() > 10), "{live:#}");
    ensure!(of_live == of_offline, "{of_live:#?} {of_offline:#?}");
    Ok(())
}

/// Lines as `conntrack -L` prints them, of as many sources as a large table has.
fn line(number: u32) -> String {
    let (a, b) = (number / 250 % 250, number % 250);
    let port = 1024 + number % 60_000;
    format!(
        "tcp      6 431999 ESTABLISHED src=10.1.{a}.{b} dst=10.96.0.10 sport={port} dport=443 \
         src=10.96.0.10 dst=10.1.{a}.{b} sport=443 dport={port} [ASSURED] mark=0 use=1\n"
    )
}

/// What a census of so many lines has in memory at most, in kB.
fn memory(lines: u32) -> Result<u64> {
    let mut command = ctwatch()?;
    command.args(["census", "--from", "-", "-o", "json"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().context("no input")?;
    let mut written = 0_u64;
    for begin in (0..lines).step_by(1000) {
        let block: String = (begin..lines.min(begin + 1000)).map(line).collect();
        input.write_all(block.as_bytes())?;
        written += block.len() as u64;
    }
    input.flush()?;
    // All of it is read, and the end is not seen yet: that is the moment.
    let process = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", child.id()));
    let field = |text: &str, name: &str| -> Option<u64> {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    let begun = Instant::now();
    while field(&process("io")?, "rchar:").is_none_or(|read| read < written) {
        ensure!(begun.elapsed() < PATIENCE, "it does not read on");
        std::thread::sleep(Duration::from_millis(10));
    }
    let most = field(&process("status")?, "VmHWM:").context("no VmHWM")?;
    drop(input);
    let output = child.wait_with_output()?;
    let json: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(json["entries"] == lines, "{lines}: {json:#}");
    Ok(most)
}

fn flat() -> Result<()> {
    let (few, many) = (memory(20_000)?, memory(500_000)?);
    // What tells sources apart is allocated whole.
    ensure!(many < few + 4096, "{few} kB with 20,000 lines, {many} kB with 500,000");
    Ok(())
}

/// Reads a file of so many lines, at best of some runs.
fn best(mut command: impl FnMut() -> Result<Command>) -> Result<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let mut command = command()?;
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let begun = Instant::now();
        ensure!(command.status()?.success(), "{command:?}");
        best = best.min(begun.elapsed());
    }
    Ok(best)
}

/// A benchmark: of the program as it is shipped. In instructions, which the machines of benchmarks count, `wc` is 24
/// times as cheap; in time, where both wait for memory, some 9 times.
fn ratio() -> Result<()> {
    const MOST: f64 = 26.0;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("list");
    let mut list = std::io::BufWriter::new(fs::File::create(&file)?);
    for number in 0..500_000 {
        list.write_all(line(number).as_bytes())?;
    }
    list.flush()?;
    let lines = best(|| {
        let mut command = Command::new("wc");
        command.args(["-l"]).arg(&file);
        Ok(command)
    })?;
    let census = best(|| {
        let mut command = ctwatch()?;
        command.args(["census", "--from", "-"]).stdin(fs::File::open(&file)?);
        Ok(command)
    })?;
    let ratio = census.as_secs_f64() / lines.as_secs_f64();
    println!("500,000 lines: wc -l {lines:?}, census --from - {census:?}, {ratio:.1} times");
    ensure!(ratio <= MOST, "{ratio:.1} times wc -l: {census:?} and {lines:?}");
    Ok(())
}
