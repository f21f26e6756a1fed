//! Who is dropped, who fills the table, who holds it.

use ctwatch_abi::top::By;

use crate::{
    model::{Snapshot, Table, figure::Exactness, top::TopEntry},
    output::text::words::{marked, number, percent},
    tui::{
        canvas::Canvas,
        look::Tone,
        pointing::ClickTarget,
        rows::{self, TalkerRow, TalkerRows},
        scene::{Band, Scene},
        state::{TalkerList, TalkerSort},
    },
};

/// All three beside each other, or as many as there is room for: the one that was chosen first. Returns how many
/// rows they took.
pub(super) fn three(
    canvas: &mut Canvas<'_>,
    scene: &Scene<'_>,
    snapshot: &Snapshot,
    table: &Table,
    by: By,
    place: Band,
) -> u16 {
    let columns = canvas.columns();
    let mut longest = 1;
    let many = beside(columns);
    let chosen = scene.state.listed;
    let all = TalkerList::ALL.iter().copied();
    let shown: Vec<TalkerList> = match many {
        3 => all.collect(),
        _ => std::iter::once(chosen)
            .chain(all.filter(|one| *one != chosen))
            .take(many.into())
            .collect(),
    };
    let width = columns / many;
    for (number, listed) in (0..).zip(shown) {
        let x = 1 + number * width;
        let room = width.saturating_sub(2);
        let mark = if is_of_all_states(scene, listed) { " *" } else { "" };
        let heading = format!("{} by {}{mark}", listed.name(), by.name());
        canvas.text(x, place.y, room, &heading, Tone::Heading);
        let place = Band { y: place.y + 1, rows: place.rows.saturating_sub(1) };
        let found = rows::talkers(snapshot, table, (listed, by), scene.state, scene.services);
        longest = longest.max(list(canvas, (x, room), place, &found, listed));
    }
    longest + 1
}

/// A packet that is dropped has no entry, and a new entry is in no state for long: these are not narrowed to one.
fn is_of_all_states(scene: &Scene<'_>, listed: TalkerList) -> bool {
    scene.state.state().is_some() && listed != TalkerList::Holding
}

/// Returns how many rows it took.
fn list(
    canvas: &mut Canvas<'_>,
    (x, room): (u16, u16),
    place: Band,
    found: &TalkerRows<'_>,
    listed: TalkerList,
) -> u16 {
    match found {
        TalkerRows::None(why) if place.rows > 0 => {
            canvas.text(x, place.y, room, why, Tone::Faint);
            1
        }
        TalkerRows::None(_) => 0,
        TalkerRows::List { by, rows, .. } => {
            for (y, row) in (place.y..place.y + place.rows).zip(rows) {
                short(canvas, (x, y, room), row, listed, *by);
            }
            u16::try_from(rows.len()).unwrap_or(place.rows).min(place.rows)
        }
    }
}

/// Who holds the table, or the entries in the state that it is narrowed to: by as many groupings as there is room for.
pub(super) fn holding(
    canvas: &mut Canvas<'_>,
    scene: &Scene<'_>,
    snapshot: &Snapshot,
    table: &Table,
    place: Band,
) {
    let first = rows::grouping(scene.state);
    let others = scene.state.groupings.iter().copied().filter(|by| *by != first);
    let all = std::iter::once(first).chain(others).filter(|by| by.is_of_entries());
    // In less room flows are cut to nothing.
    let all: Vec<By> = all.take(usize::from(canvas.columns() / 38).max(1)).collect();
    let width = canvas.columns() / u16::try_from(all.len().max(1)).unwrap_or(1);
    for (number, by) in (0..).zip(all) {
        let x = 1 + number * width;
        let room = width.saturating_sub(2);
        canvas.text(x, place.y, room, &format!("holding by {}", by.name()), Tone::Heading);
        let listed = TalkerList::Holding;
        let found = rows::talkers(snapshot, table, (listed, by), scene.state, scene.services);
        let place = Band { y: place.y + 1, rows: place.rows.saturating_sub(1) };
        list(canvas, (x, room), place, &found, listed);
    }
}

/// So many lists fit beside each other.
fn beside(columns: u16) -> u16 {
    match columns {
        0..60 => 1,
        60..78 => 2,
        _ => 3,
    }
}

/// A name, a rate or a count, and a share.
fn short(
    canvas: &mut Canvas<'_>,
    (x, y, width): (u16, u16, u16),
    row: &TalkerRow<'_>,
    listed: TalkerList,
    by: By,
) {
    // A service that is cut is none: its port comes last.
    let has_share = width >= 30 || !matches!(by, By::Service | By::Flow);
    let share_width = if has_share { 5 } else { 0 };
    let amount_width = if width < 30 { 7 } else { 10 };
    let entry = row.entry;
    let (amount, share) = match listed {
        TalkerList::Holding => (count(entry), share(entry.share)),
        TalkerList::Dropped | TalkerList::Inserted => (now(entry), share(entry.share_now)),
    };
    let name_width = width.saturating_sub(amount_width + share_width);
    let tone = if listed == TalkerList::Dropped && entry.per_s > Some(0.0) {
        Tone::Bad
    } else {
        Tone::Plain
    };
    canvas.text(x, y, name_width, &row.name, tone);
    canvas.right(x + name_width, y, amount_width, &amount, Tone::Plain);
    if has_share {
        canvas.right(x + name_width + amount_width, y, share_width, &share, Tone::Plain);
    }
}

fn now(entry: &TopEntry) -> String {
    match entry.per_s {
        Some(per_s) => marked(entry.per_s_is, &format!("{}/s", number(per_s))),
        None => "-".to_owned(),
    }
}

fn count(entry: &TopEntry) -> String {
    let exactness = match (entry.estimate, entry.error) {
        (Some(_), _) => Exactness::Estimated,
        (None, 0) => Exactness::Exact,
        (None, _) => Exactness::UpperBound,
    };
    marked(exactness, &entry.count.to_string())
}

fn share(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.0}%", share * 100.0))
}

/// One list, with all that is known of each row.
pub(super) fn pane(
    canvas: &mut Canvas<'_>,
    scene: &Scene<'_>,
    snapshot: &Snapshot,
    table: &Table,
    place: Band,
) {
    const NUMBERS: [(&str, u16); 5] =
        [("now", 10), ("share", 7), ("in all", 10), ("share", 7), ("at least", 9)];
    let Band { y, rows: room } = place;
    let columns = canvas.columns();
    if room < 2 {
        return;
    }
    let state = scene.state;
    let by = rows::grouping(state);
    let listed = state.listed.name();
    let found = rows::talkers(snapshot, table, (state.listed, by), state, scene.services);
    let since = match &found {
        TalkerRows::List { since: Some(since), .. } => {
            let since = since.to_zoned(scene.zone.clone());
            format!(" since {}", since.strftime("%H:%M:%S"))
        }
        _ => String::new(),
    };
    let narrowed = match is_of_all_states(scene, state.listed) {
        true => "; of all states: they are in none",
        false => "",
    };
    canvas.rule(y, &format!("{listed} by {}{since}{narrowed}", by.name()), Tone::Heading);
    let rows = match found {
        TalkerRows::None(why) => {
            canvas.text(1, y + 1, columns - 1, why, Tone::Faint);
            return;
        }
        TalkerRows::List { rows, .. } => rows,
    };
    let shown = match columns {
        0..60 => 2,
        60..78 => 4,
        _ => 5,
    };
    let numbers = &NUMBERS[..shown];
    let wide: u16 = numbers.iter().map(|(_, width)| *width).sum();
    let name_width = columns.saturating_sub(wide + 1);
    let sorted = match state.talker_sort {
        TalkerSort::Now => Some(0),
        TalkerSort::All => Some(2),
        TalkerSort::Least => Some(4),
        TalkerSort::Name => None,
    };
    let of = |at: Option<usize>| if sorted == at { Tone::Selected } else { Tone::Heading };
    canvas.text(1, y + 1, name_width - 1, &format!("{} of {}", by.name(), rows.len()), of(None));
    canvas.target((0, y + 1, name_width), ClickTarget::TalkerColumn(TalkerSort::Name));
    let mut x = name_width;
    for (at, (title, width)) in numbers.iter().enumerate() {
        let title = if sorted == Some(at) { format!("v{title}") } else { (*title).to_owned() };
        canvas.right(x, y + 1, *width, &title, of(Some(at)));
        let sort = match at {
            0 | 1 => TalkerSort::Now,
            2 | 3 => TalkerSort::All,
            _ => TalkerSort::Least,
        };
        canvas.target((x, y + 1, *width), ClickTarget::TalkerColumn(sort));
        x += width;
    }
    let most = usize::from(room - 2);
    let chosen = rows.iter().position(|row| Some(row.entry.key) == state.talker).unwrap_or(0);
    let first = rows::window(chosen, rows.len(), most);
    for (y, (at, row)) in (y + 2..).zip(rows.iter().enumerate().skip(first).take(most)) {
        let entry = row.entry;
        canvas.text(1, y, name_width - 1, &row.name, Tone::Plain);
        let cells = [
            now(entry),
            percent(entry.share_now),
            count(entry),
            percent(entry.share),
            entry.at_least().to_string(),
        ];
        let mut x = name_width;
        for ((_, width), cell) in numbers.iter().zip(cells) {
            canvas.right(x, y, *width, &cell, Tone::Plain);
            x += width;
        }
        canvas.target((0, y, columns), ClickTarget::Talker(entry.key));
        if at == chosen {
            canvas.choose(y);
        }
    }
}
