//! What is said before the first line.

use super::words::name;
use crate::{
    model::{Snapshot, Table},
    output::escape::escaped,
    record::{
        sample::Owner,
        session::{Epoch, Header, Measured},
    },
};

/// What there is to say where another life of the table begins.
pub fn interruption(epoch: Epoch) -> Option<String> {
    let gap = epoch.gap?.as_secs_f64();
    Some(format!(
        "nf_conntrack was loaded again: counting begins anew after {gap:.1} s not watched"
    ))
}

/// The lines before the first: what is watched, by what means, and what is missing and why.
pub fn preamble(header: &Header, epoch: Epoch, snapshot: &Snapshot) -> Vec<String> {
    let mut lines = vec![format!(
        "ctwatch {} on Linux {}, every {} s; {}",
        header.version,
        header.kernel,
        header.interval.as_secs_f64(),
        mechanisms(header)
    )];
    if let Some(table) = snapshot.tables.first() {
        let number = |value: Option<u32>| value.map_or_else(|| "?".to_owned(), |v| v.to_string());
        let judged: Vec<_> = snapshot.tables.iter().filter(|table| table.is_judged).collect();
        let tracking = judged.iter().filter(|table| table.is_tracking()).count();
        let unknown = judged.iter().filter(|t| t.is_unknown() && !t.is_tracking()).count();
        let known = judged.len() - unknown;
        let namespaces = match (known, unknown) {
            (known, 0) => format!("{tracking} of {known} namespaces track connections"),
            (0, unknown) => format!("none of {unknown} namespaces can be read"),
            (known, unknown) => format!(
                "{tracking} of {known} namespaces track connections, and {unknown} cannot be read"
            ),
        };
        let others = match snapshot.tables.len() - judged.len() {
            0 => String::new(),
            1 => "; 1 more is of an unprivileged user".to_owned(),
            more => format!("; {more} more are of unprivileged users"),
        };
        lines.push(format!(
            "limit {} entries for each namespace, {} buckets for all; {namespaces}{others}",
            number(table.limit),
            number(table.buckets),
        ));
    }
    if let Some(bytes) = header.top_bytes {
        let megabytes = bytes as f64 / f64::from(1 << 20);
        lines.push(format!("top lists in {megabytes:.1} MB of the kernel's memory, no more"));
    }
    lines.extend(interruption(epoch).map(|note| format!("*** {note}")));
    lines.extend(unread(snapshot));
    lines.extend(unowned(snapshot));
    lines.extend(header.notes.iter().map(|note| format!("note: {}", escaped(note))));
    lines.push("/s rates over the interval; <= at most, >= at least, - not measured".to_owned());
    lines
}

/// `drops, insertions by tracepoint; table by ctnetlink; removals not measured`
fn mechanisms(header: &Header) -> String {
    let mut groups: Vec<(Option<&str>, Vec<&str>)> = Vec::new();
    for Measured { signal, mechanism } in &header.mechanisms {
        let mechanism = mechanism.as_deref();
        match groups.iter_mut().find(|(of, _)| *of == mechanism) {
            Some((_, signals)) => signals.push(signal),
            None => groups.push((mechanism, vec![signal])),
        }
    }
    let groups = groups.iter().map(|(mechanism, signals)| match mechanism {
        Some(mechanism) => format!("{} by {mechanism}", signals.join(", ")),
        None => format!("{} not measured", signals.join(", ")),
    });
    groups.collect::<Vec<_>>().join("; ")
}

/// Namespaces whose owner is unknown: how many, and why the first is.
fn unowned(snapshot: &Snapshot) -> Option<String> {
    let unowned = |table: &Table| match &table.owner {
        Owner::Unknown(why) => Some((name(table), why.clone())),
        Owner::Host | Owner::User(_) => None,
    };
    let mut unowned = snapshot.tables.iter().filter_map(unowned);
    let (name, why) = unowned.next()?;
    let name = escaped(&name);
    let (of, it) = match unowned.count() {
        0 => (name, "it counts"),
        more => (format!("{name} and {more} more"), "they count"),
    };
    Some(format!("note: the owner of {of} is unknown, so {it} as the host's: {}", escaped(&why)))
}

/// Namespaces that could not be looked into: how many, and why the first could not.
fn unread(snapshot: &Snapshot) -> Option<String> {
    let mut unread = snapshot.tables.iter().filter(|table| table.unread.is_some());
    let first = unread.next()?;
    let why = escaped(first.unread.as_deref().unwrap_or_default());
    let first = escaped(&name(first));
    Some(match unread.count() {
        0 => format!("note: {first} is not readable: {why}"),
        more => format!("note: {first} and {more} more are not readable: {why}"),
    })
}
