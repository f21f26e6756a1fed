//! Which rows a pane has, and in which order: chosen from what was measured, never computed.

use ctwatch_abi::{
    NetnsId,
    top::{By, Key},
};

use super::{
    columns::{COLUMNS, by_column, coarse, worst},
    state::{Narrowing, Pane, TalkerList, TalkerSort, TopState},
};
use crate::{
    model::{Snapshot, Table, top::TopEntry},
    output::{
        services::Services,
        text::words::{name, talker},
    },
};

/// Namespaces that are there, as they are filtered and sorted.
pub fn tables<'a>(snapshot: &'a Snapshot, state: &TopState) -> Vec<&'a Table> {
    let wanted = |table: &&Table| match state.netns() {
        Some(netns) => table.id == netns,
        None => state.is_filtered_in(Pane::Namespaces, &name(table)),
    };
    let mut tables: Vec<&Table> = snapshot.tables.iter().filter(wanted).collect();
    match state.table_sort.and_then(|at| COLUMNS.get(at)) {
        Some(column) => tables.sort_by(|a, b| by_column(column, a, b)),
        None => tables.sort_by(|a, b| worst(a, b)),
    }
    tables
}

/// The namespace that the panes below are about: the one that was chosen, or else the first.
pub fn selected<'a>(snapshot: &'a Snapshot, state: &TopState) -> Option<&'a Table> {
    let tables = tables(snapshot, state);
    let chosen = tables.iter().find(|table| Some(table.id) == state.chosen);
    chosen.or(tables.first()).copied()
}

/// One row of a list of talkers.
pub struct TalkerRow<'a> {
    pub entry: &'a TopEntry,
    pub name: String,
}

/// A list of a namespace, or why there is none.
pub enum TalkerRows<'a> {
    List { by: By, rows: Vec<TalkerRow<'a>>, since: Option<jiff::Timestamp> },
    None(&'static str),
}

/// By what a list is told apart: once it is narrowed to a source, only flows know their source.
pub fn grouping(state: &TopState) -> By {
    let mut keys = state.narrowed.iter().rev().filter_map(|step| match &step.to {
        Narrowing::Key { by, .. } => Some(*by),
        Narrowing::Netns { .. } | Narrowing::State { .. } => None,
    });
    match keys.next() {
        Some(By::Source | By::Destination | By::Service) => By::Flow,
        Some(by) => by,
        None => state.by,
    }
}

pub fn talkers<'a>(
    snapshot: &'a Snapshot,
    table: &'a Table,
    (listed, by): (TalkerList, By),
    state: &TopState,
    services: &Services,
) -> TalkerRows<'a> {
    let (entries, since): (&[TopEntry], _) = match listed {
        TalkerList::Holding => {
            let Some((taken, _)) = &snapshot.census else {
                return TalkerRows::None("no census yet");
            };
            if !by.is_of_entries() {
                return TalkerRows::None("entries do not know it");
            }
            let list = match state.state_of() {
                None => taken.counted.lists(table.id).find(|list| list.by == by),
                Some(of) => match taken.counted.holders_in(of) {
                    Some(lists) => lists.iter().find(|list| list.by == by),
                    None if state.is_recorded => {
                        return TalkerRows::None("not recorded by state");
                    }
                    None => return TalkerRows::None("the next census tells"),
                },
            };
            match list {
                Some(list) => (&list.entries, None),
                None => return TalkerRows::None("none at the census"),
            }
        }
        TalkerList::Dropped | TalkerList::Inserted => {
            let stream = listed.stream();
            if !snapshot.lists_since.iter().any(|(of, _)| Some(*of) == stream) {
                return TalkerRows::None("not measured here");
            }
            match table.top.iter().find(|list| Some(list.stream) == stream && list.by == by) {
                Some(list) => (&list.entries, list.since),
                None => return TalkerRows::None("none"),
            }
        }
    };
    let row = |entry: &'a TopEntry| TalkerRow { entry, name: talker(by, entry, services) };
    // Without anything certain, a name is only the last of many that came by.
    let shown = entries.iter().filter(|entry| entry.at_least() > 0 || entry.per_s > Some(0.0));
    let wanted = shown.filter(|entry| is_within(by, &entry.key, state)).map(row);
    let is_shown =
        |name: &str| state.pane != Pane::Talkers || state.is_filtered_in(Pane::Talkers, name);
    let mut rows: Vec<TalkerRow<'a>> = wanted.filter(|row| is_shown(&row.name)).collect();
    let now = |row: &TalkerRow<'_>| coarse(row.entry.per_s);
    let all = |row: &TalkerRow<'_>| row.entry.count;
    match state.talker_sort {
        TalkerSort::Now => rows.sort_by(|a, b| {
            now(b).total_cmp(&now(a)).then(all(b).cmp(&all(a))).then(a.name.cmp(&b.name))
        }),
        TalkerSort::All => rows.sort_by(|a, b| all(b).cmp(&all(a)).then(a.name.cmp(&b.name))),
        TalkerSort::Least => rows
            .sort_by(|a, b| b.entry.at_least().cmp(&a.entry.at_least()).then(a.name.cmp(&b.name))),
        TalkerSort::Name => rows.sort_by(|a, b| a.name.cmp(&b.name)),
    }
    match rows.is_empty() {
        true => TalkerRows::None("none"),
        false => TalkerRows::List { by, rows, since },
    }
}

/// Whether it belongs to what the screen is narrowed to, as far as such a key tells.
fn is_within(by: By, key: &Key, state: &TopState) -> bool {
    state.narrowed.iter().all(|step| match &step.to {
        Narrowing::Netns { .. } | Narrowing::State { .. } => true,
        Narrowing::Key { by: narrow, key: of, .. } => {
            let src = || key.src == of.src && key.family == of.family;
            let dst = || key.dst == of.dst && key.family == of.family;
            let service = || dst() && (key.protocol, key.dport) == (of.protocol, of.dport);
            match (narrow, by) {
                (By::Source, By::Source | By::Flow) => src(),
                (By::Destination, By::Destination | By::Service | By::Flow) => dst(),
                (By::Service, By::Service | By::Flow) => service(),
                _ if *narrow == by => key == of,
                _ => false,
            }
        }
    })
}

/// Where the chosen row is, and the first that is shown of so many.
pub fn window(chosen: usize, all: usize, room: usize) -> usize {
    let last = all.saturating_sub(room);
    chosen.saturating_sub(room / 2).min(last)
}

/// The place of the chosen namespace.
pub fn place(tables: &[&Table], chosen: Option<NetnsId>) -> usize {
    tables.iter().position(|table| Some(table.id) == chosen).unwrap_or(0)
}
