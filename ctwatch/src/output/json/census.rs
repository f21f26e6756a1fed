//! Who holds the table.

use std::io::{self, Write};

use serde::Serialize;

use super::{
    holds::{HoldingObject, HoldsObject, holding},
    line::{Begin, Pairs, write_line},
    netns::NetnsObject,
};
use crate::{
    model::{
        census::{self, KernelCount, StateCount, TableCensus, Taken},
        groups::{Group, Grouping, Key, groups},
        names::protocol,
    },
    output::taken::{LIMITS, elsewhere, tables, unlisted},
};

#[derive(Serialize)]
struct Object<'a> {
    #[serde(flatten)]
    begin: Begin,
    /// Null: it is of what other tools printed, and they did not say.
    time: Option<String>,
    kernel: &'a str,
    mechanism: &'a str,
    took_s: f64,
    cpu_s: f64,
    entries: u64,
    limit: Option<u32>,
    strayed: u64,
    unplaced: u64,
    notes: &'a [String],
    /// Namespaces of which not all entries are in it.
    unlisted: Vec<UnlistedObject<'a>>,
    /// By pod or by namespace of Kubernetes, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<GroupObject>>,
    tables: Vec<TableObject<'a>>,
}

#[derive(Serialize)]
struct GroupObject {
    by: &'static str,
    /// Null: no pod is known to live there.
    key: Option<GroupKeyObject>,
    entries: u64,
    /// Network namespaces that hold something.
    tables: u64,
    share: Option<f64>,
    #[serde(flatten)]
    holds: HoldsObject,
}

#[derive(Serialize)]
struct GroupKeyObject {
    namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<String>,
}

fn group_objects(taken: &Taken, by: Grouping) -> Vec<GroupObject> {
    let all = taken.counted.holds().all();
    let object = |group: Group| GroupObject {
        by: by.name(),
        key: group.key.map(|Key { namespace, pod }| GroupKeyObject { namespace, pod }),
        entries: group.holds.all(),
        tables: group.tables,
        share: (all > 0).then(|| group.holds.all() as f64 / all as f64),
        holds: group.holds.into(),
    };
    groups(taken, by).into_iter().map(object).collect()
}

#[derive(Serialize)]
struct TableObject<'a> {
    netns: NetnsObject<'a>,
    entries: u64,
    /// What the kernel counted before and after.
    kernel: [Option<u32>; 2],
    /// Why no number of this table is exact.
    inexact: Option<&'static str>,
    #[serde(flatten)]
    holds: HoldsObject,
    states: Vec<StateObject>,
    zones: Vec<ZoneObject>,
    top: TopObject<'a>,
}

#[derive(Serialize)]
struct StateObject {
    proto: String,
    state: Option<&'static str>,
    entries: u64,
    assured: u64,
    unreplied: u64,
    /// So many have less time left than that.
    remaining_below: Option<Pairs<Vec<(&'static str, u64)>>>,
}

#[derive(Serialize)]
struct ZoneObject {
    zone: u16,
    entries: u64,
}

#[derive(Serialize)]
struct TopObject<'a> {
    holding: Vec<HoldingObject<'a>>,
}

fn netns(count: &KernelCount) -> NetnsObject<'_> {
    NetnsObject::of(count.netns, Some(count.inode))
        .called(count.name.as_deref(), &count.workload)
        .owned(&count.owner)
}

#[derive(Serialize)]
struct UnlistedObject<'a> {
    netns: NetnsObject<'a>,
    why: &'a str,
}

/// One object, one line.
pub fn write(
    out: &mut impl Write,
    taken: &Taken,
    groupings: &[Grouping],
    limit: Option<u32>,
    kernel: &str,
    time: impl Into<Option<jiff::Timestamp>>,
) -> io::Result<()> {
    let known =
        tables(taken).into_iter().map(|(count, table)| table_object(taken, Some(count), table));
    let unknown = elsewhere(taken).map(|table| table_object(taken, None, table));
    let object = Object {
        begin: Begin::of("census"),
        time: time.into().map(|time| time.to_string()),
        kernel,
        mechanism: &taken.by,
        took_s: taken.took.as_secs_f64(),
        cpu_s: taken.cpu.as_secs_f64(),
        entries: taken.counted.holds().all(),
        limit,
        strayed: taken.strayed,
        unplaced: taken.counted.unplaced,
        notes: &taken.notes,
        unlisted: unlisted(taken)
            .map(|(count, why)| UnlistedObject { netns: netns(count), why })
            .collect(),
        groups: (!groupings.is_empty())
            .then(|| groupings.iter().flat_map(|by| group_objects(taken, *by)).collect()),
        tables: known.chain(unknown).collect(),
    };
    write_line(out, &object)
}

fn table_object<'a>(
    taken: &'a Taken,
    count: Option<&'a KernelCount>,
    table: &'a TableCensus,
) -> TableObject<'a> {
    TableObject {
        // Where nothing leads into it, it has a number at most.
        netns: count.map_or_else(|| NetnsObject::of(table.netns, None), netns),
        entries: table.holds.all(),
        kernel: count.map_or([None, None], |count| [count.before, count.after]),
        inexact: count.filter(|count| count.is_torn).map(|_| census::TORN),
        holds: table.holds.into(),
        states: table.states.iter().map(state_object).collect(),
        zones: table
            .zones
            .iter()
            .map(|(zone, entries)| ZoneObject { zone: *zone, entries: *entries })
            .collect(),
        top: TopObject { holding: holding(taken.counted.lists(table.netns)) },
    }
}

fn state_object(state: &StateCount) -> StateObject {
    let below = LIMITS.into_iter().zip(state.lifetimes.below_limits());
    StateObject {
        proto: protocol(state.protocol),
        state: state.name(),
        entries: state.holds.all(),
        assured: state.holds.pinned + state.holds.closing,
        unreplied: state.unreplied,
        remaining_below: (state.lifetimes.unknown == 0).then(|| Pairs(below.collect())),
    }
}
