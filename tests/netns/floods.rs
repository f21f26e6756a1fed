//! Ten seconds flat out: nothing may be lost.

use std::time::Duration;

use anyhow::{Result, ensure};
use ctwatch_lab::{
    Lab, Plan, judge,
    traffic::{Family, Flood, Flows, Protocol, Sent},
};
use serde_json::Value;

use crate::{
    Test,
    watch::{Watch, agrees_with, exact, table},
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("flat_out_into_a_full_table", full),
    ("flat_out_insertions_into_a_roomy_table", roomy),
    ("flat_out_with_entries_coming_and_going", churning),
    ("flat_out_with_the_counters_mechanism", counters_only),
];

const FLOWS: Flows =
    Flows { family: Family::V4, protocol: Protocol::Udp, sources: 1000, services: 10 };

fn flat_out() -> Flood {
    Flood { within: Some(Duration::from_secs(10)), ..Flood::of(FLOWS, 20_000_000) }
}

fn flooded(lab: &Lab, args: &[&str]) -> Result<(Sent, Value)> {
    let watch = Watch::start(args)?;
    let sent = lab.send(&flat_out())?;
    ensure!(sent.packets > 100_000, "that was no flood: {sent:?}");
    Ok((sent, watch.stop()?))
}

fn full() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(200)?;
    let (sent, last) = flooded(&lab, &[])?;
    let verdict = judge::ask(lab.router())?;
    ensure!(verdict.drop > 100_000, "{verdict:?}");
    agrees_with(table(&last, lab.router())?, &verdict, sent.arrived - verdict.drop)?;
    ensure!(last["lost"] == 0, "lost {}", last["lost"]);
    Ok(())
}

fn roomy() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(30_000_000)?;
    lab.set_buckets(1 << 21)?;
    let (sent, last) = flooded(&lab, &[])?;
    let verdict = judge::ask(lab.router())?;
    ensure!(verdict.drop == 0 && verdict.entries == sent.arrived, "{verdict:?} {sent:?}");
    agrees_with(table(&last, lab.router())?, &verdict, sent.arrived)?;
    ensure!(last["lost"] == 0, "lost {}", last["lost"]);
    Ok(())
}

/// Flushing from another process while packets arrive: ends of entries in softirq and in process
/// context, on both sides of every interruption.
fn churning() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(30_000_000)?;
    let watch = Watch::start(&[])?;
    let sent = std::thread::scope(|scope| {
        let flood = scope.spawn(|| lab.send(&flat_out()));
        while !flood.is_finished() {
            lab.router().run(&["conntrack", "-F"])?;
        }
        flood.join().map_err(|_| anyhow::anyhow!("the flood panicked"))?
    })?;
    let last = watch.stop()?;
    let verdict = judge::ask(lab.router())?;
    // A flush walks behind a table that grows before it, so it may be one or many.
    ensure!(verdict.drop == 0 && sent.arrived - verdict.entries > 100_000, "{sent:?} {verdict:?}");
    // A flush can meet an entry on its way in: that packet is refused at confirmation.
    let table = table(&last, lab.router())?;
    exact(table, "/insertions", sent.arrived - verdict.insert_failed)?;
    exact(table, "/removals", sent.arrived - verdict.insert_failed - verdict.entries)?;
    ensure!(last["lost"] == 0, "lost {}", last["lost"]);
    Ok(())
}

fn counters_only() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(200)?;
    let (_, last) = flooded(&lab, &["--mechanism", "counters"])?;
    let verdict = judge::ask(lab.router())?;
    let table = table(&last, lab.router())?;
    let full = &table["drops"]["table_full"];
    ensure!(full["total"] == verdict.drop && full["exactness"] == "upper_bound", "{full}");
    exact(table, "/evictions/early_drop", verdict.early_drop)?;
    let insertions = &table["insertions"];
    ensure!(
        insertions["total"].is_null() && insertions["exactness"] == "unavailable",
        "{insertions}"
    );
    Ok(())
}
