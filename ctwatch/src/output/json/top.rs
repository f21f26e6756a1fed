//! The top lists of a snapshot, and nothing else of it.

use std::io::{self, Write};

use serde::Serialize;

use super::{
    line::{Begin, write_line},
    netns::NetnsObject,
    watch::{TopsObject, tops},
};
use crate::model::Snapshot;

#[derive(Serialize)]
struct TopObject<'a> {
    #[serde(flatten)]
    begin: Begin,
    time: String,
    /// Those that have any list.
    tables: Vec<ListedObject<'a>>,
}

#[derive(Serialize)]
struct ListedObject<'a> {
    netns: NetnsObject<'a>,
    top: TopsObject<'a>,
}

/// One object, one line.
pub fn write(out: &mut impl Write, snapshot: &Snapshot) -> io::Result<()> {
    let listed = snapshot.tables.iter().map(|table| ListedObject {
        netns: NetnsObject::of(table.id, Some(table.inode))
            .called(table.name.as_deref(), &table.workload)
            .owned(&table.owner),
        top: tops(snapshot, table),
    });
    let object = TopObject {
        begin: Begin::of("top"),
        time: snapshot.time.to_string(),
        tables: listed.filter(|listed| !listed.top.is_empty()).collect(),
    };
    write_line(out, &object)
}
