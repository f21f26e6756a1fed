//! A snapshot.

use std::io::{self, Write};

use ctwatch_abi::top::Stream;
use serde::Serialize;

use super::{
    figure::{FigureObject, SumObject},
    holds::{HoldingObject, HoldsObject, holding},
    line::{Begin, Pairs, write_line},
    loading::LoadedObject,
    netns::NetnsObject,
    talkers::{TalkerObject, talkers},
};
use crate::{
    model::{Drops, Gone, Snapshot, Table, figure::Figure, loading::Loaded},
    record::{
        sample::Access,
        session::{Epoch, Header, Measured},
    },
};

#[derive(Serialize)]
struct Object<'a> {
    #[serde(flatten)]
    begin: Begin,
    time: String,
    interval_s: f64,
    elapsed_s: f64,
    epoch: u32,
    gap_s: Option<f64>,
    kernel: &'a str,
    mechanisms: Pairs<Vec<(&'a str, Option<&'a str>)>>,
    lost: u64,
    unplaced_of_others: u64,
    forgotten: u64,
    /// What happened in those that are gone, over all of them.
    gone: GoneObject,
    gone_of_others: GoneObject,
    /// Null where nobody could see it.
    loaded: Option<Vec<LoadedObject<'a>>>,
    loaded_since: Option<String>,
    tables: Vec<TableObject<'a>>,
}

#[derive(Serialize)]
struct TableObject<'a> {
    netns: NetnsObject<'a>,
    /// It decides alarms: it is the host's own, or was asked for.
    judged: bool,
    /// It was entered.
    reachable: bool,
    /// How long ago that was: nothing that the probes count has happened in it since.
    age_s: f64,
    /// It is spoken of for the last time.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    gone: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    unread: Option<&'a str>,
    saturated: bool,
    entries: Option<u32>,
    limit: Option<u32>,
    buckets: Option<u32>,
    fill: Option<f64>,
    trend_per_s: Option<f64>,
    time_to_full_s: Option<f64>,
    insertions: FigureObject,
    removals: FigureObject,
    /// For whatever reason.
    dropped: FigureObject,
    /// By reason, and two of them together.
    drops: Pairs<Vec<(&'a str, FigureObject)>>,
    evictions: Pairs<Vec<(&'a str, FigureObject)>>,
    invalid: FigureObject,
    refused_ctnetlink: FigureObject,
    top: TopsObject<'a>,
    control_plane: Vec<ControlPlaneObject>,
    census: Option<CensusObject<'a>>,
}

#[derive(Serialize)]
struct GoneObject {
    namespaces: u64,
    insertions: SumObject,
    removals: SumObject,
    dropped: SumObject,
    table_full: SumObject,
    early_drop: SumObject,
    invalid: SumObject,
}

impl From<Gone> for GoneObject {
    fn from(gone: Gone) -> Self {
        Self {
            namespaces: gone.namespaces,
            insertions: gone.insertions.into(),
            removals: gone.removals.into(),
            dropped: gone.dropped.into(),
            table_full: gone.table_full.into(),
            early_drop: gone.early_drop.into(),
            invalid: gone.invalid.into(),
        }
    }
}

#[derive(Serialize)]
pub(super) struct TopsObject<'a> {
    drops: Vec<TalkerObject<'a>>,
    insertions: Vec<TalkerObject<'a>>,
    /// By the last census.
    holding: Vec<HoldingObject<'a>>,
    since: SinceObject,
}

/// Since when the lists count; null: there are none.
#[derive(Serialize)]
struct SinceObject {
    drops: Option<String>,
    insertions: Option<String>,
}

/// What the last census counted.
#[derive(Serialize)]
struct CensusObject<'a> {
    mechanism: &'a str,
    age_s: f64,
    entries: u64,
    #[serde(flatten)]
    holds: HoldsObject,
}

#[derive(Serialize)]
struct ControlPlaneObject {
    protocol: &'static str,
    at_least: u64,
    per_s: Option<f64>,
    exactness: &'static str,
}

/// Writes the snapshot as one line, with what was `loaded` until then, and from when on.
pub fn write<'a>(
    out: &mut impl Write,
    header: &Header,
    epoch: Epoch,
    snapshot: &Snapshot,
    loaded: Option<(jiff::Timestamp, impl IntoIterator<Item = &'a Loaded>)>,
) -> io::Result<()> {
    let (loaded_since, loaded) = loaded.unzip();
    let object = Object {
        begin: Begin::of("watch"),
        time: snapshot.time.to_string(),
        interval_s: snapshot.interval.as_secs_f64(),
        elapsed_s: snapshot.elapsed.as_secs_f64(),
        epoch: epoch.number,
        gap_s: epoch.gap.map(|gap| gap.as_secs_f64()),
        kernel: &header.kernel,
        mechanisms: Pairs(header.mechanisms.iter().map(mechanism).collect()),
        lost: snapshot.lost,
        unplaced_of_others: snapshot.unplaced_of_others,
        forgotten: snapshot.forgotten,
        gone: snapshot.gone.judged.into(),
        gone_of_others: snapshot.gone.others.into(),
        loaded: loaded.map(|loaded| loaded.into_iter().map(LoadedObject::from).collect()),
        loaded_since: loaded_since.map(|since| since.to_string()),
        tables: snapshot.tables.iter().map(|of| table(snapshot, of)).collect(),
    };
    write_line(out, &object)
}

fn mechanism(of: &Measured) -> (&str, Option<&str>) {
    (&of.signal, of.mechanism.as_deref())
}

fn table<'a>(snapshot: &'a Snapshot, table: &'a Table) -> TableObject<'a> {
    let held = snapshot.census.as_ref().zip(snapshot.census(table));
    TableObject {
        netns: NetnsObject::of(table.id, Some(table.inode))
            .called(table.name.as_deref(), &table.workload)
            .owned(&table.owner),
        judged: table.is_judged,
        reachable: table.access == Access::Entered,
        age_s: table.age.as_secs_f64(),
        gone: table.is_gone,
        unread: table.unread.as_deref(),
        saturated: table.saturated,
        entries: table.entries,
        limit: table.limit,
        buckets: table.buckets,
        fill: table.fill,
        trend_per_s: table.trend_per_s,
        time_to_full_s: table.time_to_full_s,
        insertions: (&table.insertions).into(),
        removals: (&table.removals).into(),
        dropped: (&table.dropped).into(),
        drops: drops(&table.drops),
        evictions: named(&table.evictions.named()),
        invalid: (&table.invalid).into(),
        refused_ctnetlink: (&table.refused_ctnetlink).into(),
        top: tops(snapshot, table),
        census: held.map(|((taken, age), census)| CensusObject {
            mechanism: taken.by.as_ref(),
            age_s: age.as_secs_f64(),
            entries: census.holds.all(),
            holds: census.holds.into(),
        }),
        control_plane: table
            .control_plane
            .iter()
            .map(|found| ControlPlaneObject {
                protocol: found.protocol,
                at_least: found.at_least,
                per_s: found.per_s,
                exactness: found.exactness.name(),
            })
            .collect(),
    }
}

/// Who it is that is dropped, inserts, and holds entries.
pub(super) fn tops<'a>(snapshot: &'a Snapshot, table: &'a Table) -> TopsObject<'a> {
    let held = snapshot.census.as_ref().filter(|_| snapshot.census(table).is_some());
    TopsObject {
        drops: talkers(&table.top, Stream::Drops),
        insertions: talkers(&table.top, Stream::Insertions),
        holding: held.map(|(taken, _)| holding(taken.counted.lists(table.id))).unwrap_or_default(),
        since: SinceObject {
            drops: since(snapshot, Stream::Drops),
            insertions: since(snapshot, Stream::Insertions),
        },
    }
}

impl TopsObject<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.drops.is_empty() && self.insertions.is_empty() && self.holding.is_empty()
    }
}

fn since(snapshot: &Snapshot, stream: Stream) -> Option<String> {
    let of_it = snapshot.lists_since.iter().find(|(of, _)| *of == stream);
    of_it.map(|(_, since)| since.to_string())
}

fn drops(drops: &Drops) -> Pairs<Vec<(&str, FigureObject)>> {
    let Pairs(mut reasons) = named(&drops.named());
    reasons.push(("clash_or_nat_exhausted", (&drops.clash_or_nat_exhausted).into()));
    Pairs(reasons)
}

fn named<'a>(figures: &[(&'a str, &Figure)]) -> Pairs<Vec<(&'a str, FigureObject)>> {
    Pairs(figures.iter().map(|(name, figure)| (*name, (*figure).into())).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        output::fixtures::{FIRST, header, loaded, snapshots},
        record::sample::Owner,
    };

    fn object() -> Value {
        with_loaded(None)
    }

    fn with_loaded(loaded: Option<&[Loaded]>) -> Value {
        let [_, second] = snapshots();
        let mut out = Vec::new();
        let loaded = loaded.map(|loaded| (jiff::Timestamp::UNIX_EPOCH, loaded.iter()));
        write(&mut out, &header(), FIRST, &second, loaded).unwrap();
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1, "one line");
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn an_owner_is_a_number_or_unknown_with_a_reason() {
        let netns = |owner: &Owner| {
            let none = NetnsObject::of(1, Some(1));
            serde_json::to_value(none.owned(owner)).unwrap()
        };
        let user = json!({"inode": 1, "name": null, "owner": 1000});
        assert_eq!(netns(&Owner::User(1000)), user);
        let unknown = json!({"inode": 1, "name": null, "owner": null, "owner_unknown": "why"});
        assert_eq!(netns(&Owner::Unknown("why".to_owned())), unknown);
    }

    #[test]
    fn the_contract_holds() {
        let object = object();
        assert_eq!((&object["schema"], &object["type"]), (&json!(1), &json!("watch")));
        assert_eq!(object["time"], "1970-01-01T00:00:01Z");
        assert_eq!(object["interval_s"], 1.0);
        assert_eq!((&object["epoch"], &object["gap_s"]), (&json!(1), &Value::Null));
        assert_eq!(object["kernel"], "6.12.0");
        assert_eq!(object["lost"], 0);
        assert_eq!(object["mechanisms"], json!({"drops": "tracepoint", "insertions": null}));
        let table = &object["tables"][0];
        let netns =
            json!({"cookie": 42, "inode": 4_026_532_246_u32, "name": "rt", "owner": "host"});
        assert_eq!(table["netns"], netns);
        assert_eq!(table["judged"], true);
        assert_eq!(table["entries"], 200);
        assert_eq!(table["limit"], 200);
        assert_eq!(table["buckets"], 262_144);
        assert_eq!(table["fill"], 1.0);
        assert_eq!(table["trend_per_s"], 200.0);
        assert_eq!(table["time_to_full_s"], Value::Null);
        let exact = |total: u64| {
            let per_s = total as f64;
            json!({"total": total, "per_s": per_s, "exactness": "exact", "at_least": total})
        };
        assert_eq!(table["insertions"], exact(217));
        assert_eq!(table["removals"], exact(17));
        assert_eq!(table["drops"]["table_full"], exact(1783));
        assert_eq!(table["dropped"], exact(1783));
        for reason in [
            "no_memory",
            "clash",
            "chain_too_long",
            "nat_exhausted",
            "tracker",
            "clash_or_nat_exhausted",
        ] {
            assert_eq!(table["drops"][reason], exact(0), "{reason}");
        }
        assert_eq!(table["evictions"]["early_drop"], exact(17));
        assert_eq!(table["invalid"], exact(0));
        assert_eq!(table["refused_ctnetlink"]["exactness"], "unavailable");
    }

    #[test]
    fn a_namespace_has_a_cookie_or_none() {
        let cookie = |id, inode| serde_json::to_value(NetnsObject::of(id, inode)).unwrap();
        let inode = 4_026_532_246_u32;
        assert_eq!(cookie(7, Some(inode))["cookie"], 7);
        assert_eq!(cookie(7, None), json!({"cookie": 7, "inode": null, "name": null}));
        assert_eq!(cookie(inode.into(), Some(inode)).get("cookie"), None);
        assert_eq!(cookie(inode.into(), None).get("cookie"), None);
    }

    #[test]
    fn what_was_loaded_names_who_asked() {
        let unseen = object();
        assert_eq!((&unseen["loaded"], &unseen["loaded_since"]), (&Value::Null, &Value::Null));
        assert_eq!(with_loaded(Some(&[]))["loaded"], json!([]));
        assert_eq!(with_loaded(Some(&[]))["loaded_since"], "1970-01-01T00:00:00Z");
        let mut one = loaded("nf_conntrack", Some("iptable_nat"));
        one.by.comm = "a\u{1b}[2J".to_owned();
        let object = with_loaded(Some(&[one]));
        assert_eq!(
            object["loaded"],
            json!([{
                "time": "1970-01-01T00:00:00Z",
                "module": "nf_conntrack",
                "pid": 12,
                "comm": "a\u{1b}[2J",
                "asked_by": {
                    "pid": 11,
                    "comm": "iptables",
                    "request": "iptable_nat",
                    "parent": {"pid": 7, "comm": "bash"}
                }
            }])
        );
    }

    #[test]
    fn what_is_not_measured_is_null_and_not_zero() {
        let gc = &object()["tables"][0]["evictions"]["gc"];
        assert_eq!(gc["total"], Value::Null);
        assert_eq!(gc["exactness"], "unavailable");
    }
}
