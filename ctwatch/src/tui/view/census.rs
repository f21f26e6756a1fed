//! The census of one namespace: its states by the time that entries have left, and who holds them.

use super::{bars, lists};
use crate::{
    model::{Snapshot, Table},
    output::text::{census::head, words::number},
    tui::{
        canvas::Canvas,
        history,
        look::Tone,
        pointing::ClickTarget,
        rows,
        scene::{Band, Scene, WINDOW},
        states::{STATE_COLUMNS, StateRow, chosen, shown_columns, states},
    },
};

/// The lists of who it is begin with so many rows left, and take at least so many.
const LISTS: u16 = 5;

pub(super) fn draw(
    canvas: &mut Canvas<'_>,
    scene: &Scene<'_>,
    snapshot: &Snapshot,
    table: &Table,
    place: Band,
) {
    let Band { mut y, rows: room } = place;
    let (end, columns, state) = (y + room, canvas.columns(), scene.state);
    if room < 2 {
        return;
    }
    let (Some((taken, age)), Some(found)) = (&snapshot.census, states(snapshot, table, state))
    else {
        canvas.rule(y, "census", Tone::Heading);
        canvas.text(1, y + 1, columns - 1, "no census yet", Tone::Plain);
        return;
    };
    let of = state.state().map_or_else(String::new, |(_, name)| format!(" of {name}"));
    let heading =
        format!("census{of} by {} {} s ago: states by time left", taken.by, age.as_secs());
    canvas.rule(y, &heading, Tone::Heading);
    y += 1;
    let mut lines = head(taken, table.id, table.limit);
    if lines.is_empty() {
        lines.push("the census found no entries here".to_owned());
    }
    // On a small screen the states come first.
    let most = if room < 8 { 1 } else { lines.len() };
    for line in lines.iter().take(most) {
        canvas.text(1, y, columns - 1, line.trim(), Tone::Plain);
        y += 1;
    }
    if found.is_empty() {
        let none = match state.state() {
            Some(_) => "no entries are in this state by now".to_owned(),
            None if !state.filter().is_empty() => format!("no state matches /{}", state.filter()),
            None => return,
        };
        if y < end {
            canvas.text(1, y, columns - 1, &none, Tone::Plain);
        }
        return;
    }
    let left = end.saturating_sub(y);
    let wanted = u16::try_from(found.len() + 1).unwrap_or(u16::MAX);
    let lists_take = if left >= 2 + LISTS { LISTS.max(left / 3) } else { 0 };
    let taken = of_states(canvas, scene, &found, Band { y, rows: wanted.min(left - lists_take) });
    y += taken;
    if state.state().is_some() && end.saturating_sub(y) > LISTS {
        past(canvas, scene, table, y);
        y += 1;
    }
    if lists_take > 0 {
        let rows = end.saturating_sub(y);
        lists::holding(canvas, scene, snapshot, table, Band { y, rows });
    }
}

/// A heading, and the rows around the chosen one. Returns how many rows it took.
fn of_states(canvas: &mut Canvas<'_>, scene: &Scene<'_>, found: &[StateRow], band: Band) -> u16 {
    let (columns, state) = (canvas.columns(), scene.state);
    let name_width = if columns < 60 { 17 } else { 22 };
    let cells = shown_columns(columns.saturating_sub(name_width + 1));
    let sorted = state.census_sort;
    let is_hidden = sorted.is_some() && cells.iter().all(|(at, _)| *at != sorted);
    let title = match sorted.and_then(|at| STATE_COLUMNS.get(at)).filter(|_| is_hidden) {
        Some(column) => format!("state, by {}", column.title),
        None if found.len() > 1 => format!("state of {}", found.len()),
        None => "state".to_owned(),
    };
    canvas.text(1, band.y, name_width - 1, &title, Tone::Heading);
    let mut x = name_width;
    for (at, column) in &cells {
        let is_sorted = sorted.is_some() && *at == sorted;
        let title = if is_sorted { format!("v{}", column.title) } else { column.title.to_owned() };
        let tone = if is_sorted { Tone::Selected } else { Tone::Heading };
        canvas.right(x, band.y, column.width + 1, &title, tone);
        if let Some(at) = at {
            canvas.target((x, band.y, column.width + 1), ClickTarget::StateColumn(*at));
        }
        x += column.width + 1;
    }
    let most = usize::from(band.rows.saturating_sub(1));
    let chosen = chosen(found, state);
    let first = rows::window(chosen, found.len(), most);
    let mut y = band.y + 1;
    for (at, row) in found.iter().enumerate().skip(first).take(most) {
        canvas.text(1, y, name_width - 1, &row.name, Tone::Plain);
        let mut x = name_width;
        for (_, column) in &cells {
            canvas.right(x, y, column.width + 1, &(column.cell)(row), Tone::Plain);
            x += column.width + 1;
        }
        if at == chosen && state.state().is_none() {
            canvas.choose(y);
        }
        canvas.target((0, y, columns), ClickTarget::State(row.protocol, row.state));
        y += 1;
    }
    y - band.y
}

/// How many entries were in the state that it is narrowed to, by the censuses that are kept.
fn past(canvas: &mut Canvas<'_>, scene: &Scene<'_>, table: &Table, y: u16) {
    const LABEL: u16 = 9;
    const SCALE: u16 = 14;
    let Some((of, _)) = scene.state.state() else { return };
    let width = canvas.columns().saturating_sub(LABEL + SCALE + 1);
    let until = scene.state.cursor.unwrap_or(u64::MAX);
    let entries = |snapshot: &Snapshot| {
        snapshot.census.as_ref()?;
        let census = snapshot.census(history::table(snapshot, table.id)?);
        let states = census.map_or(&[][..], |census| &census.states);
        let known = states.iter().find(|state| (state.protocol, state.state) == of);
        Some(known.map_or(0, |state| state.holds.all()) as f64)
    };
    let series = scene.history.series(until, (width.into(), canvas.look.beside()), WINDOW, entries);
    let most = series.iter().flatten().copied().fold(0.0, f64::max);
    canvas.text(1, y, LABEL - 1, "entries", Tone::Plain);
    bars::chart(canvas, (LABEL, y, 1), &series, most, Tone::Bar);
    canvas.text(LABEL + width + 1, y, SCALE, &format!("of {}", number(most)), Tone::Faint);
}
