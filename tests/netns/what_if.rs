//! What the page says there would have been with a fix, against the same traffic with the fix in force.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ctwatch_lab::{
    Lab, Plan, STAYS_FULL, judge,
    netns::Netns,
    traffic::{Family, Flood, Flows, Protocol},
};
use serde_json::Value;

use crate::{
    On, Test,
    doctor::{fix, found, type_in},
    mechanism,
    recordings::{Running, TICK, lines_with, recorded},
    test,
    watch::{ctwatch, finished},
};

pub(crate) const TESTS: &[Test] = &[
    test(On::EachWithPrograms, "more_room_holds_what_the_page_reckons", room),
    test(On::Once, "a_shorter_timeout_holds_what_the_page_reckons", timeout).anywhere(),
];

const UDP: Flows = Flows { sources: 10, ..Flows::of(Family::V4, Protocol::Udp) };
/// One is recorded when it begins, and another when a table is full.
const FACTS: &str = "\"type\":\"facts\"";
const CENSUS: &str = "\"type\":\"census\"";

/// A recording of what is sent meanwhile.
fn record(netns: &Netns, folder: &Path, send: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut command = ctwatch()?;
    let mechanism = mechanism::current().name();
    command.args(["record", "-i", "200ms", "--netns", netns.name(), "--mechanism", mechanism]);
    command.arg(folder);
    let mut record = Running::start(&mut command, &folder.with_extension("out"))?;
    recorded(folder, FACTS, 1)?;
    recorded(folder, TICK, 3)?;
    send()?;
    record.signal(libc::SIGINT)
}

/// Until the recorder takes another census of a table that fills: of one CPU it takes a hundredth, and what
/// it took to get ready is seconds where that is emulated.
fn may_count_again(folder: &Path) -> Result<()> {
    recorded(folder, CENSUS, 1)?;
    let seen = Instant::now();
    let lines = lines_with(folder, CENSUS)?;
    let line: Value = serde_json::from_str(lines.first().context("no census")?)?;
    let cpu = line["taken"]["cpu_ns"].as_u64().with_context(|| line.to_string())?;
    let rest = (Duration::from_nanos(cpu) * 100).max(Duration::from_secs(1));
    thread::sleep(rest.saturating_sub(seen.elapsed()));
    Ok(())
}

fn told(folder: &Path, args: &[&str]) -> Result<String> {
    let (out, errors, code) = finished(ctwatch()?.args(args).arg("--from").arg(folder))?;
    ensure!(code == Some(0), "{args:?}: {code:?} {errors}");
    Ok(out)
}

/// The fix of the doctor, and what the page says of it: from, and to.
fn reckoned(
    netns: &Netns,
    folder: &Path,
    id: &str,
    title: &str,
) -> Result<(Value, std::ops::RangeInclusive<u64>)> {
    let report: Value = serde_json::from_str(&told(folder, &["doctor", "--output", "json"])?)?;
    let cure = fix(found(&report, id, netns.name())?, title)?.clone();
    let page = told(folder, &["report", "--output", "-"])?;
    let title = cure["title"].as_str().context("no title")?.replace('>', "&gt;");
    let of_it = page.split("<details class=\"fix\"").find(|fix| fix.contains(&title));
    let of_it = of_it.with_context(|| format!("no fix {title} in {page}"))?;
    let number = |name: &str| -> Result<u64> {
        let after = of_it.split(&format!("{name}=\"")).nth(1);
        let digits = after.and_then(|rest| rest.split('"').next());
        Ok(digits.with_context(|| format!("no {name} in {of_it}"))?.parse()?)
    };
    Ok((cure, number("data-at-least")?..=number("data-at-most")?))
}

/// The most entries that a tick met.
fn most(folder: &Path) -> Result<u64> {
    let played = told(folder, &["watch", "--output", "json"])?;
    let ticks = played.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
    let tables = ticks.iter().filter_map(|tick| tick["tables"].as_array()).flatten();
    tables.filter_map(|table| table["entries"].as_u64()).max().context("no entries")
}

/// Whether the last tick knows how many entries were removed at most.
fn removals_are_bounded(folder: &Path) -> Result<bool> {
    let played = told(folder, &["watch", "--output", "json"])?;
    let last: Value = serde_json::from_str(played.lines().last().context("no tick")?)?;
    let exactness = &last["tables"][0]["removals"]["exactness"];
    Ok(exactness == "exact" || exactness == "upper_bound")
}

fn room() -> Result<()> {
    // More than there was room for, and less than 95% of what there is room for then.
    const FLOWS: u64 = 150;
    let mut lab = Lab::new(Plan::fresh())?;
    lab.set_buckets(4096)?;
    lab.set_limit(STAYS_FULL)?;
    lab.keep_entries()?;
    let place = tempfile::tempdir()?;
    let [narrow, roomy] = ["narrow", "roomy"].map(|name| place.path().join(name));
    // Twice the same: what was dropped comes again, and is no further entry.
    let floods = || -> Result<()> {
        for _ in 0..2 {
            lab.send(&Flood::of(UDP, FLOWS))?;
            thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    };
    record(lab.router(), &narrow, || floods().and_then(|()| recorded(&narrow, FACTS, 2)))?;
    let dropped = judge::ask(lab.router())?.drop;
    ensure!(dropped > 0, "nothing was dropped");
    if !removals_are_bounded(&narrow)? {
        // What was evicted has no bound then, and the page says that.
        let page = told(&narrow, &["report", "--output", "-"])?;
        ensure!(page.contains("cannot be told: nobody knows how many"), "{page}");
        return Ok(());
    }
    let (cure, reckoned) = reckoned(lab.router(), &narrow, "table_full", "raise the limit")?;
    type_in(&cure["now"])?;
    lab.router().run(&["conntrack", "-F"])?;
    record(lab.router(), &roomy, floods)?;
    ensure!(judge::ask(lab.router())?.drop == dropped, "the fix is not in force");
    let most = most(&roomy)?;
    ensure!(most >= FLOWS, "{most} entries of {FLOWS} flows");
    ensure!(reckoned.contains(&most), "{most} is not within {reckoned:?}");
    ensure!(*reckoned.start() > STAYS_FULL.into(), "{reckoned:?} says nothing");
    let undo = cure["undo"].as_array().context("no undo")?.iter();
    type_in(&Value::Array(undo.filter(|c| !c.to_string().contains("rm -f")).cloned().collect()))
}

fn timeout() -> Result<()> {
    let mut lab = Lab::new(Plan::fresh())?;
    lab.set_limit(STAYS_FULL)?;
    lab.router().sysctl("net/netfilter/nf_conntrack_udp_timeout", "30")?;
    let place = tempfile::tempdir()?;
    let long = place.path().join("long");
    let floods = || -> Result<()> {
        lab.send(&Flood::of(UDP, 75))?;
        thread::sleep(Duration::from_secs(12));
        lab.send(&Flood { first: 1_000, ..Flood::of(UDP, 24) })?;
        Ok(())
    };
    record(lab.router(), &long, || {
        may_count_again(&long)?;
        floods().and_then(|()| recorded(&long, CENSUS, 2))
    })?;
    let title = "udp_timeout 30 -> 10";
    let (cure, reckoned) = reckoned(lab.router(), &long, "timeouts", title)?;
    type_in(&cure["now"])?;
    lab.router().run(&["conntrack", "-F"])?;
    floods()?;
    let census = ctwatch()?
        .args(["census", "--output", "json", "--netns", lab.router().name()])
        .output()
        .context("no census")?;
    let census: Value = serde_json::from_slice(&census.stdout)?;
    let count = |name: &str| census["tables"][0][name].as_u64().with_context(|| census.to_string());
    let alive = count("entries")? - count("expired")?;
    ensure!(reckoned.contains(&alive), "{alive} is not within {reckoned:?}: {census}");
    ensure!(*reckoned.end() < 50, "{reckoned:?} says nothing");
    type_in(&cure["undo"])?;
    Ok(())
}
