//! One dropped packet, one object.

use std::{
    io::{self, Write},
    net::IpAddr,
};

use serde::Serialize;

use super::{
    line::{Begin, write_line},
    netns::NetnsObject,
};
use crate::{
    model::names::{address, protocol},
    output::{
        DropLine,
        drop::{comm, has_known_ports, reason},
    },
};

#[derive(Serialize)]
struct Object<'a> {
    #[serde(flatten)]
    begin: Begin,
    time: String,
    reason: &'static str,
    proto: String,
    src: IpAddr,
    dst: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    sport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dport: Option<u16>,
    ifindex: u32,
    iface: Option<&'a str>,
    netns: NetnsObject<'a>,
    comm: Option<String>,
    pid: Option<u32>,
}

#[derive(Serialize)]
struct MoreObject {
    #[serde(flatten)]
    begin: Begin,
    more: u64,
}

#[derive(Serialize)]
struct UndecidedObject {
    #[serde(flatten)]
    begin: Begin,
    undecided: u64,
}

#[derive(Serialize)]
struct EndObject {
    #[serde(flatten)]
    begin: Begin,
    shown: u64,
    dropped: u64,
}

pub fn line(out: &mut impl Write, line: &DropLine<'_>) -> io::Result<()> {
    let DropLine { time, event, named, owner, .. } = line;
    let port = |port| has_known_ports(event).then(|| u16::from_be(port));
    let comm = comm(event);
    write_line(
        out,
        &Object {
            begin: Begin::of("drop"),
            time: time.to_string(),
            reason: reason(event),
            proto: protocol(event.protocol),
            src: address(event.family, &event.src),
            dst: address(event.family, &event.dst),
            sport: port(event.sport),
            dport: port(event.dport),
            ifindex: event.ifindex,
            iface: named.interface.as_deref().filter(|_| event.ifindex != 0),
            netns: NetnsObject::of(event.netns, named.inode)
                .called(named.netns.as_deref(), &named.workload)
                .owned(owner),
            pid: comm.as_ref().map(|_| event.pid),
            comm,
        },
    )
}

/// So many more were dropped than were shown.
pub fn more(out: &mut impl Write, more: u64) -> io::Result<()> {
    write_line(out, &MoreObject { begin: Begin::of("more"), more })
}

/// So many more may have been wanted: by the name of their namespace, which is not known.
pub fn undecided(out: &mut impl Write, undecided: u64) -> io::Result<()> {
    write_line(out, &UndecidedObject { begin: Begin::of("undecided"), undecided })
}

pub fn end(out: &mut impl Write, shown: u64, dropped: u64) -> io::Result<()> {
    write_line(out, &EndObject { begin: Begin::of("end"), shown, dropped })
}
