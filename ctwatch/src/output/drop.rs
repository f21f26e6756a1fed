//! What text and JSON both tell of a dropped packet.

use ctwatch_abi::{
    protocol::has_ports,
    trace::{Event, Reason},
};

use crate::{
    model::names,
    record::sample::{Named, Owner},
};

pub struct DropLine<'a> {
    pub time: jiff::Timestamp,
    pub zone: &'a jiff::tz::TimeZone,
    pub event: &'a Event,
    pub named: &'a Named,
    /// Of the namespace.
    pub owner: &'a Owner,
}

pub(super) fn reason(event: &Event) -> &'static str {
    Reason::ALL
        .into_iter()
        .find(|reason| *reason as u32 == event.reason)
        .map_or("unknown", Reason::name)
}

pub(super) fn has_known_ports(event: &Event) -> bool {
    has_ports(event.protocol) && event.portless == 0
}

/// The process' name, where there is one.
pub(super) fn comm(event: &Event) -> Option<String> {
    Some(names::comm(&event.comm)).filter(|comm| !comm.is_empty())
}
