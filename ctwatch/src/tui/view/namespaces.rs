//! The list of namespaces: a row each.

use std::time::Duration;

use super::bars;
use crate::{
    model::{Snapshot, Table},
    output::text::words::name,
    record::sample::Access,
    tui::{
        canvas::Canvas,
        columns::{COLUMNS, fitting},
        look::Tone,
        pointing::ClickTarget,
        rows,
        scene::Scene,
        state::Pane,
    },
};

/// A reading that is older is said to be.
const OLD: u64 = 2;
/// A census that is older does not say what a table holds now.
const RECENT: Duration = Duration::from_secs(60);

/// A heading, and so many rows at most. Returns how many rows it took.
pub(super) fn draw(
    canvas: &mut Canvas<'_>,
    scene: &Scene<'_>,
    snapshot: &Snapshot,
    tables: &[&Table],
    y: u16,
    most: u16,
) -> u16 {
    let columns = canvas.columns();
    let name_width = match columns {
        0..60 => 11,
        60..120 => 16,
        _ => 38,
    };
    let bar_width = match columns {
        0..60 => 0,
        60..120 => 12,
        _ => 30,
    };
    let bar_at = 1 + name_width + 1;
    let left = if bar_width > 0 { bar_at + bar_width } else { bar_at - 1 };
    let cells = fitting(columns.saturating_sub(left));
    let state = scene.state;
    let more = tables.len().saturating_sub(usize::from(most));
    let hidden = state.table_sort.filter(|sorted| cells.iter().all(|(at, _)| at != sorted));
    let heading = match (hidden.and_then(|at| COLUMNS.get(at)), more) {
        (Some(column), _) => format!("by {}", column.title),
        (None, 0) => "netns".to_owned(),
        (None, _) => format!("netns ({})", tables.len()),
    };
    canvas.text(1, y, name_width, &heading, Tone::Heading);
    let mut x = left;
    for (at, column) in &cells {
        let is_sorted = state.table_sort == Some(*at);
        let title = if is_sorted { format!("v{}", column.title) } else { column.title.to_owned() };
        let tone = if is_sorted { Tone::Selected } else { Tone::Heading };
        canvas.right(x, y, column.width + 1, &title, tone);
        canvas.target((x, y, column.width + 1), ClickTarget::TableColumn(*at));
        x += column.width + 1;
    }
    let chosen = rows::selected(snapshot, state).map(|table| table.id);
    let first = rows::window(rows::place(tables, chosen), tables.len(), usize::from(most));
    let mut row = y + 1;
    for table in tables.iter().skip(first).take(usize::from(most)) {
        let tone = tone(table);
        canvas.text(0, row, 1, mark(table), tone);
        canvas.text(1, row, name_width, &name(table), tone);
        if bar_width > 0 {
            let is_new = snapshot.census.as_ref().is_some_and(|(_, age)| *age <= RECENT);
            let holds = snapshot.census(table).map(|census| &census.holds).filter(|_| is_new);
            bars::fill(canvas, (bar_at, row, bar_width), table.fill, holds, tone);
        }
        match why_not(table) {
            Some(why) => _ = canvas.text(left + 1, row, columns - left - 1, &why, Tone::Warning),
            None => {
                let mut x = left;
                for (at, column) in &cells {
                    canvas.right(
                        x,
                        row,
                        column.width + 1,
                        &(column.cell)(table),
                        of_cell(*at, table, tone),
                    );
                    x += column.width + 1;
                }
                if table.age.as_secs() >= OLD && x < columns {
                    let age = format!(" ({} s ago)", table.age.as_secs());
                    canvas.text(x, row, columns - x, &age, Tone::Faint);
                }
            }
        }
        if Some(table.id) == chosen && state.pane == Pane::Namespaces && tables.len() > 1 {
            canvas.choose(row);
        }
        canvas.target((0, row, columns), ClickTarget::Netns(table.id));
        row += 1;
    }
    if tables.is_empty() {
        let none = match state.filter_of(Pane::Namespaces) {
            "" => "no network namespace is there".to_owned(),
            filter => format!("no namespace matches /{filter}"),
        };
        canvas.text(1, row, columns - 1, &none, Tone::Plain);
        row += 1;
    }
    row - y
}

/// Colour is not the only sign of it.
fn mark(table: &Table) -> &'static str {
    match () {
        () if table.saturated => "!",
        () if table.dropped.per_s.is_some_and(|per_s| per_s > 0.0) => "!",
        () if !table.is_judged => "u",
        () => " ",
    }
}

fn tone(table: &Table) -> Tone {
    match table.fill {
        _ if !table.is_judged => Tone::Faint,
        _ if table.saturated => Tone::Bad,
        Some(fill) if fill >= 0.95 => Tone::Bad,
        Some(fill) if fill >= 0.8 => Tone::Warning,
        _ if !table.is_tracking() => Tone::Faint,
        _ => Tone::Plain,
    }
}

/// Drops stand out in any row.
fn of_cell(at: usize, table: &Table, tone: Tone) -> Tone {
    let is_drop = COLUMNS.get(at).is_some_and(|column| column.title == "drop/s");
    match is_drop && table.is_judged && table.dropped.per_s.is_some_and(|per_s| per_s > 0.0) {
        true => Tone::Bad,
        false => tone,
    }
}

/// Where there are no figures: what is not seen is never called empty.
fn why_not(table: &Table) -> Option<String> {
    match table.access {
        Access::Unseen => Some("held by an open file only, or gone".to_owned()),
        _ if table.is_unknown() => {
            let why = table.unread.as_deref().unwrap_or("why is not known");
            Some(format!("not readable: {why}"))
        }
        _ => None,
    }
}
