//! Seconds flat out: nothing may be lost.

use std::time::Duration;

use anyhow::{Result, ensure};
use ctwatch_lab::{
    Lab, Plan, STAYS_FULL, judge,
    traffic::{Family, Flood, Flows, Protocol, Sent},
};
use serde_json::Value;

use crate::{
    On, Test,
    mechanism::{self, Mechanism, holds, nothing_lost},
    test,
    watch::{Watch, agrees_with, table},
};

pub(crate) const TESTS: &[Test] = &[
    test(On::EachWithPrograms, "flat_out_into_a_full_table", full),
    test(On::EachWithPrograms, "flat_out_insertions_into_a_roomy_table", roomy),
    test(On::EachWithPrograms, "flat_out_with_entries_coming_and_going", churning),
    test(On::Once, "flat_out_with_the_counters_mechanism", counters_only),
];

const FLOWS: Flows = Flows { sources: 1000, services: 10, ..Flows::of(Family::V4, Protocol::Udp) };

fn flat_out() -> Flood {
    Flood { within: Some(Duration::from_secs(seconds())), ..Flood::of(FLOWS, 20_000_000) }
}

/// An emulated machine's seconds are as dear as its packets are slow.
fn seconds() -> u64 {
    if emulated() { 3 } else { 10 }
}

fn emulated() -> bool {
    std::env::var_os("CTWATCH_EMULATED").is_some()
}

/// So many packets are a flood.
fn many() -> u64 {
    if emulated() { 1_000 } else { 100_000 }
}

fn flooded(lab: &Lab) -> Result<(Sent, Value)> {
    let watch = Watch::start(&[])?;
    let sent = lab.send(&flat_out())?;
    ensure!(sent.packets > many(), "that was no flood: {sent:?}");
    Ok((sent, watch.stop()?))
}

fn full() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(STAYS_FULL)?;
    let (sent, last) = flooded(&lab)?;
    let verdict = judge::ask(lab.router())?;
    ensure!(verdict.drop > many(), "{verdict:?}");
    agrees_with(table(&last, lab.router())?, &verdict, sent.arrived - verdict.drop)?;
    nothing_lost(&last)?;
    Ok(())
}

fn roomy() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(30_000_000)?;
    lab.set_buckets(1 << 21)?;
    lab.keep_entries()?;
    let (sent, last) = flooded(&lab)?;
    let verdict = judge::ask(lab.router())?;
    ensure!(verdict.drop == 0 && verdict.entries == sent.arrived, "{verdict:?} {sent:?}");
    agrees_with(table(&last, lab.router())?, &verdict, sent.arrived)?;
    nothing_lost(&last)?;
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
    ensure!(verdict.drop == 0 && sent.arrived - verdict.entries > many(), "{sent:?} {verdict:?}");
    // A flush can meet an entry on its way in: that packet is refused at confirmation.
    let table = table(&last, lab.router())?;
    holds(table, "/insertions", sent.arrived - verdict.insert_failed)?;
    holds(table, "/removals", sent.arrived - verdict.insert_failed - verdict.entries)?;
    nothing_lost(&last)?;
    Ok(())
}

fn counters_only() -> Result<()> {
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(STAYS_FULL)?;
    mechanism::set(Mechanism::Counters);
    let (_, last) = flooded(&lab)?;
    let verdict = judge::ask(lab.router())?;
    let table = table(&last, lab.router())?;
    let full = &table["drops"]["table_full"];
    ensure!(full["total"] == verdict.drop && full["exactness"] == "upper_bound", "{full}");
    holds(table, "/evictions/early_drop", verdict.early_drop)?;
    let insertions = &table["insertions"];
    ensure!(
        insertions["total"].is_null() && insertions["exactness"] == "unavailable",
        "{insertions}"
    );
    Ok(())
}
